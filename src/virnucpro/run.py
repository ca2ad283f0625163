"""One run of predict: settings -> a run directory with its tables, log and run.json."""

from collections import Counter
from collections.abc import Sequence
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from time import perf_counter
from typing import TYPE_CHECKING, Any, Unpack

from virnucpro import __version__
from virnucpro.announcing import disk_taken, what_computes, what_runs, what_was_found
from virnucpro.batches import Batches
from virnucpro.bundle import DEFAULT_BUNDLE, Bundle, load
from virnucpro.calls import Rule
from virnucpro.classifiers import Classifier, Plan, plan_of
from virnucpro.devices import (
    Device,
    Memory,
    cpu_count,
    cpu_name,
    device_for,
    device_name,
    gpu_count,
    memory_of,
    peak_memory_bytes,
    use_expandable_segments,
    use_threads,
)
from virnucpro.engine import Engine
from virnucpro.errors import (
    BlockError,
    DeviceError,
    InputError,
    ResumeError,
    StreamBroken,
    VirnucproError,
)
from virnucpro.finished import Outcome, as_before, finished_before, why_again
from virnucpro.inputs import (
    NAMED,
    closing_lines,
    input_entry,
    open_inputs,
    opening_lines,
    other_bundle,
    shapes_of,
)
from virnucpro.journal import Journal
from virnucpro.pipeline import classify, contigs_of, limited
from virnucpro.progress import Position, Silent, Watcher
from virnucpro.reads import Contig, Source
from virnucpro.regions import odds_of
from virnucpro.report import write_reports
from virnucpro.report.card import about_bundle
from virnucpro.run_directory import FINISHED, RUN_SCHEMA_VERSION, RunFiles
from virnucpro.run_json import (
    device_entry,
    ending,
    inputs_digest,
    settings_entry,
    versions_entry,
)
from virnucpro.runlog import RunLog, open_log
from virnucpro.runners import PROBE, SerialRunner
from virnucpro.scored import Scored
from virnucpro.settings import Options, Settings, settings_of
from virnucpro.tables import Counts, Wanted, write_tables

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Mapping

    from virnucpro.batches import Block
    from virnucpro.loaders import Loaders


# Classifiers by the sha256 of their bundle, device, precision and engine.
Kept = dict[tuple[str, str, str, Engine], Classifier]


def predict(
    paths: Path | str | Sequence[Path | str],
    bundle: str | Path = DEFAULT_BUNDLE,
    out: Path | str = "virnucpro_run",
    **options: Unpack[Options],
) -> Outcome:
    """Classifies FASTA files into a run directory, without a word to the terminal.

    Goes on with an unfinished run there; a finished one is left as it is.

    paths: one file or several. bundle: the name of an embedded bundle, or a bundle's directory.
    options: as in settings.Settings. Raises errors.VirnucproError.
    """
    return run(settings_of(paths, bundle, out, options))


def run(settings: Settings, watcher: Watcher | None = None, kept: "Kept | None" = None) -> Outcome:
    """Runs predict.

    kept: takes the classifier that was loaded, and gives it to a later run of the same bundle.

    Raises VirnucproError, and KeyboardInterrupt or Terminated when interrupted; run.json says so
    too, if the run directory was ours by then. An input that broke off or could not be processed
    in part raises nothing: the outcome says it.
    """
    started, clock = datetime.now(UTC), perf_counter()
    settings.check()
    bundle = load(settings.bundle)
    settings.check_for(bundle)
    sources, notes = open_inputs(
        settings.inputs, settings.sample, settings.reading, bundle.chunk_nt
    )
    elsewhere = (
        settings.journal is not None and settings.journal.resolve() != settings.out.resolve()
    )
    blocks_in = settings.journal if elsewhere else None
    files = RunFiles(settings.out, settings.prefix, blocks_in, settings.tables == "gz")
    _check_spared(sources, files)
    device = _device(bundle, settings)
    plan = plan_of(bundle, device.index, settings.precision, settings.attention)
    fingerprint = _fingerprint(bundle, plan, settings)
    watcher = watcher or Silent()
    again = ""
    if not settings.force:
        earlier = finished_before(files, fingerprint, sources)
        if earlier is not None:
            again = why_again(files, earlier, settings, bundle, sources)
            if not again:
                return as_before(files, earlier, settings, watcher)
    options = {
        "resume": settings.resume,
        "force": settings.force,
        "again": bool(again),
        "with_embeddings": settings.save_embeddings,
        "log_json": settings.log_json,
    }
    with (
        Journal.open(files, fingerprint, **options) as journal,
        open_log(files, watcher, as_json=settings.log_json) as log,
    ):
        journal.notes += notes
        ongoing = _Run(settings, bundle, sources, plan, fingerprint, journal, device, log, started)
        ongoing.kept = {} if kept is None else kept
        ongoing.timings["startup_s"] = perf_counter() - clock
        return ongoing.outcome(again)


def _check_spared(sources: Sequence[Source], files: RunFiles) -> None:
    """Raises ResumeError where an input lies there as a file of the run, which would replace it."""
    replaced = {path.resolve() for path in (*files.results, *files.public)}
    for path in (file.path for source in sources for file in source.files):
        if path.resolve() in replaced:
            raise ResumeError(
                f"{path}: this input has the name of a file that the run would write; "
                "choose another folder with -o"
            )


def _device(bundle: Bundle, settings: Settings) -> Device:
    """Where a run computes; the k-mer model uses one thread and loads no torch to say so."""
    if bundle.kind == "kmer":
        return Device("cpu", cpu_name(), 1)
    if settings.expandable_segments:
        use_expandable_segments()
    index = device_for(settings.gpus)
    return Device(index, device_name(index), use_threads(settings.threads))


def _fingerprint(bundle: Bundle, plan: Plan, settings: Settings) -> dict[str, str]:
    """What makes a run this run, as far as it is known before the inputs are read."""
    return {
        "bundle": bundle.sha256,
        "precision": plan.precision,
        "device": plan.device.split(":")[0],
        "attention": ", ".join(f"{name} {by}" for name, by in plan.attention.items()),
        "chunk_nt": str(bundle.chunk_nt),
        "frames": "open" if bundle.kind == "frames" else "none",
        "block_nt": "-".join(str(nt) for nt in sorted({plan.first_nt, plan.block_nt})),
        "min_length": str(settings.min_length or "none"),
        "max_length": str(settings.max_length or "none"),
        "max_records": str(settings.max_records or "none"),
        "version": __version__,
    }


@dataclass(slots=True)
class _Run:
    """A run under way: what it was given, and what it has found so far."""

    settings: Settings
    bundle: Bundle
    sources: list[Source]
    plan: Plan
    fingerprint: dict[str, str]
    journal: Journal
    device: Device
    log: RunLog
    started: datetime
    read: Counter[str] = field(default_factory=Counter)
    records: int = 0
    chunks: int = 0
    chunks_before: int = 0
    chunks_read: int = 0
    chunks_expected: float = 0.0
    timings: dict[str, float] = field(default_factory=dict)
    broken: list[StreamBroken] = field(default_factory=list)
    budgets: dict[str, int] = field(default_factory=dict)
    memory: dict[str, Memory] = field(default_factory=dict)
    warm: dict[str, Batches] = field(default_factory=dict)
    engine: Engine | None = None
    loaders: "Loaders | None" = None
    workers: int = 0
    unbroken: int | None = None
    on_record: bool = False
    classifier: Classifier | None = None
    kept: "Kept" = field(default_factory=dict)

    def outcome(self, why_again: str) -> Outcome:
        """Does the work; whatever ends it, run.json says how."""
        try:
            self._announce(why_again)
            return self._finished(self._work())
        except BaseException as error:
            # A run of another input stays, and so does a finished one that was to be made again.
            refused = not self.journal.compared and (why_again or isinstance(error, ResumeError))
            if isinstance(error, DeviceError):  # nothing more can be computed with it
                self.kept.clear()
            if not self.on_record:
                status, code, sentence = ending(error)
                with suppress(VirnucproError):  # a disk that refuses must not hide it
                    self.log.ended(status, sentence)
                # What ended the run is what it must end with.
                with suppress(VirnucproError):
                    if not refused:
                        self._write_json(status, code, sentence, None)
            raise

    def run(self, blocks: "Iterable[Block]") -> "Iterator[Scored]":
        """As runners.Runner: a block is kept only if the kernels of the fingerprint made it."""
        assert self.classifier is not None
        for scored in SerialRunner(self.classifier, self.loaders).run(blocks):
            self._check_kernels(self.classifier)
            self._note_budgets(self.classifier)
            yield scored

    def _note_budgets(self, classifier: Classifier) -> None:
        """Says when batches became smaller for want of memory."""
        for name, batches in classifier.batches.items():
            before = self.budgets.get(name, batches.budget)
            if batches.least < before:
                self.log.line(
                    f"warning: memory is short: batches of {name} hold at most {batches.least:,} "
                    f"tokens from now on, not {before:,}, so scores may round otherwise"
                )
            self.budgets[name] = batches.least

    def _check_kernels(self, classifier: Classifier) -> None:
        for name, seen in classifier.attention.items():
            planned = self.plan.attention.get(name, "none")
            if other := set(seen.split(",")) - set(planned.split(",")):
                raise DeviceError(
                    f"the attention of {name} ran by {', '.join(sorted(other))}, not by {planned} "
                    "as in the fingerprint of this run, and results of several are not mixed; "
                    "please report this"
                )

    def _load(self, ends: ExitStack) -> None:
        """Only here, when the run directory is ours, are the weights read."""
        clock = perf_counter()
        self._note_memory("start")
        self.engine = self.settings.engine.on(self.device.index)
        asked = (self.device.index, self.plan.precision, self.engine)
        key = (self.bundle.sha256, *asked)
        loaded = key not in self.kept
        if loaded:
            self.kept[key] = self.bundle.classifier(*asked)
        self.classifier = self.kept[key]
        self.classifier.restore_budgets()
        if (ahead := self.classifier.ahead) is not None:
            from virnucpro.loaders import Loaders, workers_for

            wish = self.settings.dataloader_workers
            gpus = gpu_count() if self.device.kind == "cuda" else 0
            self.workers = workers_for(self.device.kind, gpus, cpu_count(), wish)
            # They begin while the device warms up.
            self.loaders = ends.enter_context(Loaders(ahead.preparation, self.workers))
        # With pads and without: kernels other than planned are known before the first block.
        for some in (PROBE, PROBE[:1]) if loaded else ():
            self.classifier.score(some)
        self._check_kernels(self.classifier)
        self._note_memory("loaded")
        say = self.log.line if self.device.kind == "cuda" else self.log.detail
        for line in what_computes(
            self.classifier, self.device, self.engine, self.settings.attention, self.workers
        ):
            say(line)
        self._note_budgets(self.classifier)
        self.warm = dict(self.classifier.batches)
        self.timings["startup_s"] += perf_counter() - clock

    def _note_memory(self, stage: str) -> None:
        """Memory as it is at the start, and where a stage ended."""
        memory = self.memory[stage] = memory_of(self.device.index)
        say = self.log.line if self.device.kind == "cuda" else self.log.detail
        say(f"memory, {stage}: {memory}")

    def _work(self) -> Counts:
        with ExitStack() as ends:
            self._load(ends)
            return self._worked()

    def _worked(self) -> Counts:
        try:
            return self._read_and_tabulated()
        except BlockError as error:  # whole when it was found or written, and read again since
            self.log.line(f"{error}; it is computed again")
        reused = self.journal.reused
        self.sources = [source.again() for source in self.sources]
        self.records = self.chunks = self.chunks_before = self.chunks_read = 0
        self.unbroken = None
        for found in (self.read, self.broken):
            found.clear()
        counts = self._read_and_tabulated()
        self.journal.reused = reused
        return counts

    def _read_and_tabulated(self) -> Counts:
        self._tell()
        with self._timed("blocks_s"):
            sizes = self.bundle.chunk_nt, self.plan.block_nt, self.plan.first_nt
            classify(self._contigs(), self, self.journal, sizes, self)
        if self.journal.reused:
            self.log.detail(
                f"{self.journal.reused:,} of {self.journal.count:,} blocks were finished before"
            )
        self._note_memory("blocks")
        with self._timed("tables_s"):
            before = [source.seen for source in self.sources]
            again = [source.again() for source in self.sources]
            rule = Rule(self.bundle.kind, self.threshold)
            counts = write_tables(
                self.journal.files, self.journal, rule, again, before, self._wanted()
            )
        self._note_memory("tables")
        if counts.records != self.read.total():
            raise AssertionError(
                f"{self.read.total()} records read, {counts.records} in the tables"
            )
        return counts

    def _wanted(self) -> Wanted:
        odds = odds_of(self.bundle, self.threshold)
        if isinstance(odds, str):
            self.log.line(f"no regions are looked for: {odds}")
        ahead = self.classifier.ahead if self.classifier else None
        return Wanted(
            compat_tables=self.settings.compat_tables,
            odds=None if isinstance(odds, str) else odds,
            sequences=self.settings.write,
            parquet=self.settings.parquet,
            embeddings=ahead.widths if ahead and self.settings.save_embeddings else None,
        )

    def _contigs(self) -> "Iterator[Contig]":
        """The contigs of all inputs, counted."""
        least_nt, most_nt = self.settings.min_length, self.settings.max_length
        contigs = limited(contigs_of(self.sources, self.broken), least_nt, most_nt)
        for contig in contigs:
            self._note_break()
            self.read[contig.sample] += 1
            to_cut = 0 if contig.short else len(contig.sequence)
            self.chunks_read += -(-to_cut // self.bundle.chunk_nt)
            yield contig
        self.chunks_expected = self.chunks_read
        self._note_break()

    def _note_break(self) -> None:
        if self.broken and self.unbroken is None:
            self.unbroken = self.read.total()

    @property
    def threshold(self) -> float:
        """Where p_virus is cut."""
        return self.settings.cut(self.bundle)

    def _announce(self, why_again: str) -> None:
        say = self.log.line
        lines = what_runs(self.settings, self.bundle, self.plan, self.device)
        say(next(lines))
        self.log.detail(f"bundle sha256 {self.bundle.sha256}")
        for line in lines:
            say(line)
        for note in self.journal.notes:  # before anything that may end the run
            say(note)
        self._say_each(*opening_lines(self.sources))
        faults: list[InputError] = []
        shapes = shapes_of(self.sources, self.bundle.chunk_nt, faults)
        if faults:  # sooner than when hours were spent on what comes before them
            raise InputError.of(faults)
        if not self._streamed:  # else nobody knows how much will come, and of what length
            self._say_other_bundle(sum(s.records for s in shapes), sum(s.letters for s in shapes))
            self.chunks_expected = sum(shape.chunks for shape in shapes)
            for line in disk_taken(self.settings, self.bundle, shapes, self.journal.files):
                say(line)
        if why_again:
            say(f"warning: the run here was finished, but {why_again}: the tables are made again")
        elif before := self.journal.files.finished_blocks:
            say(
                f"finished blocks of an earlier start: {before:,}; what fits the input is taken "
                "over"
            )

    def _say_each(self, lines: Sequence[str], together: str) -> None:
        """Lines on single inputs; where they are many, those go to the files alone."""
        many = together and len(lines) > NAMED
        for line in lines:
            (self.log.detail if many else self.log.line)(line)
        if many:
            self.log.line(f"{together} ({self.journal.files.log.name} has a line on each)")

    @property
    def _streamed(self) -> bool:
        return any(source.streamed for source in self.sources)

    @property
    def _bytes_total(self) -> int | None:
        """Of all inputs; None where nobody knows how much of them will be read."""
        unknown = self._streamed or self.settings.max_records is not None
        return None if unknown else sum(source.size_bytes for source in self.sources)

    def _say_other_bundle(self, records: float, letters: float) -> None:
        if sentence := other_bundle(self.bundle.name, records, letters):
            self.log.line(sentence)

    def line(self, text: str) -> None:
        """As journal.Onlooker."""
        self.log.line(text)

    def seen(self, scored: Scored, *, new: bool) -> None:
        """As journal.Onlooker."""
        for name, seconds in scored.telemetry.items() if new else ():
            self.timings[name] = self.timings.get(name, 0.0) + seconds
        self.records += sum(record.begins for record in scored.records)
        self.chunks += len(scored.rows)
        self.chunks_before += 0 if new else len(scored.rows)
        self._tell()

    def _tell(self) -> None:
        self.log.watcher.position(
            Position(
                bytes_read=sum(source.bytes_read for source in self.sources),
                bytes_total=self._bytes_total,
                records=self.records,
                chunks=self.chunks,
                chunks_before=self.chunks_before,
                chunks_read=self.chunks_read,
                chunks_expected=self.chunks_expected,
            )
        )

    def _finished(self, counts: Counts) -> Outcome:
        status, error = "partial" if counts.incomplete else "complete", None
        code = self.settings.exit_code(status)
        if self.broken:
            status, code, error = "failed", 1, "; ".join(map(str, self.broken))
        self._summarise(counts)
        if error is not None:
            self.log.ended(status, error)
        self._write_json(status, code, error, counts)
        write_reports(self.journal.files)
        if status in FINISHED:  # else the blocks are what a later run goes on from
            self.journal.finished(self.settings.keep_blocks)
        return Outcome(self.journal.files, status, code, error, counts)

    def _summarise(self, counts: Counts) -> None:
        for lines, together in closing_lines(self.sources):
            self._say_each(lines, together)
        if self._streamed:
            self._say_other_bundle(counts.records, counts.bases)
        for line in what_was_found(counts, self.journal.files):
            self.log.line(line)

    def _write_json(
        self, status: str, exit_code: int, error: str | None, counts: Counts | None
    ) -> None:
        self.timings["total_s"] = (datetime.now(UTC) - self.started).total_seconds()
        document = {
            "schema_version": RUN_SCHEMA_VERSION,
            "status": status,
            "exit_code": exit_code,
            "error": error,
            "versions": versions_entry(),
            "command": list(self.settings.command),
            "inputs": [input_entry(source) for source in self.sources],
            "bundle": about_bundle(self.bundle),
            "settings": self._settings(),
            "device": device_entry(self.device, self.plan.precision),
            "attention": dict(self.classifier.attention) if self.classifier else {},
            "fingerprint": self.fingerprint | ({} if self.broken else inputs_digest(self.sources)),
            "blocks": {
                "total": self.journal.count,
                "reused": self.journal.reused,
                "damaged": self.journal.damaged,
            },
            "outputs": self.journal.outputs,
            "counts": None if counts is None else counts.as_dict(),
            "timings": {name: round(seconds, 3) for name, seconds in self.timings.items()},
            "batches": {name: batches.as_dict() for name, batches in self._batches().items()},
            "memory": {"peak_bytes": peak_memory_bytes()}
            | {stage: memory.as_dict() for stage, memory in self.memory.items()},
            "started": self.started.isoformat(timespec="seconds"),
            "finished": datetime.now(UTC).isoformat(timespec="seconds"),
        }
        self.journal.write_run_json(document, self)
        self.on_record = True

    def _batches(self) -> "Mapping[str, Batches]":
        now = self.classifier.batches if self.classifier else {}
        return {name: now[name].since(self.warm[name]) for name in self.warm}

    def _settings(self) -> dict[str, Any]:
        return settings_entry(
            self.settings,
            self.engine or self.settings.engine.on(self.device.index),
            dataloader_workers=self.workers,
            threshold=self.threshold,
            precision=self.plan.precision,
            threads=self.device.threads,
        )

    @contextmanager
    def _timed(self, name: str) -> "Iterator[None]":
        clock = perf_counter()
        yield
        self.timings[name] = self.timings.get(name, 0.0) + perf_counter() - clock
