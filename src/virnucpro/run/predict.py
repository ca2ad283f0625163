"""One run of predict: settings -> a run directory with its results, log and run.json."""

from collections.abc import Callable, Iterator, Sequence
from contextlib import (
    AbstractContextManager,
    ExitStack,
    contextmanager,
    nullcontext,
    suppress,
)
from dataclasses import dataclass, field, replace
from pathlib import Path
from time import perf_counter
from typing import Any

from virnucpro.blocks import Telemetry
from virnucpro.bundle import DEFAULT_BUNDLE
from virnucpro.devices.memory import memory_of
from virnucpro.errors import (
    BlockError,
    InputError,
    OtherRun,
    ResumeError,
    StreamBroken,
    VirnucproError,
    ending,
)
from virnucpro.progress import Progress, Silent, several
from virnucpro.reads.inputs import closing_lines, opening_lines, other_bundle, shapes_of
from virnucpro.report import write_reports
from virnucpro.results.record import (
    FINISHED,
    PART,
    RUNNING,
    RunRecord,
)
from virnucpro.results.write import Written, planned
from virnucpro.run.directory import RunDirectory
from virnucpro.run.distribution import runner_for, running_cluster
from virnucpro.run.finalise import finalise, results_plan
from virnucpro.run.journal import Journal
from virnucpro.run.log import (
    RunLog,
    closing,
    computing,
    disk_taken,
    open_log,
    opening,
    overflows,
    shares,
)
from virnucpro.run.pipeline import coded, compute, contigs_of, limited
from virnucpro.run.prepare import Job, prepare
from virnucpro.run.recording import record_of
from virnucpro.run.resume import Outcome, as_before, finished_before, why_again
from virnucpro.run.runners import LoadedClassifiers, Runner
from virnucpro.run.settings import Part, Settings
from virnucpro.run.watch import Watch


def predict(
    paths: Path | str | Sequence[Path | str],
    bundle: str | Path = DEFAULT_BUNDLE,
    out: Path | str = "virnucpro_run",
    **options: Any,  # noqa: ANN401
) -> Outcome:
    """Classify the sequences of files into a run directory, without a word to the terminal.

    Goes on with an unfinished run there; a finished one is left as it is.

    paths: one file or several. bundle: the name of a bundle, or its directory. options: groups of
    settings (reading, compute, outputs, restart), or single settings by name, as threshold=0.7; see
    run.settings.Settings. Raises errors.VirnucproError, and TypeError for an unknown option.
    """
    return run(Settings.of(paths, out, bundle, **options))


def run(
    settings: Settings,
    progress: Progress | None = None,
    loaded: LoadedClassifiers | None = None,
) -> Outcome:
    """Run predict.

    loaded: takes the classifier that was loaded, and gives it to a later run of the same bundle.

    Raises VirnucproError, and KeyboardInterrupt or Terminated when interrupted; run.json says so
    too, if the run directory was ours by then. An input that broke off or could not be processed
    in part raises nothing: the outcome says it.
    """
    clock, progress = perf_counter(), progress or Silent()
    with ExitStack() as ends:
        remote = None
        if settings.compute.scheduler is not None:
            remote = ends.enter_context(running_cluster(settings))
        job = prepare(settings, None if remote is None else remote.first)
        try:
            return _attempt(job, remote, progress, loaded, clock)
        except OtherRun as error:
            if not settings.restart.rerun:
                raise
            progress.line(f"{error.args[0].partition(';')[0]}; --rerun replaces it")
        forced = replace(settings, restart=replace(settings.restart, force=True))
        # A pipe gives its bytes once, so the inputs are not opened anew.
        sources = [source.again() for source in job.sources]
        job = replace(job, settings=forced, sources=sources)
        return _attempt(job, remote, progress, loaded, clock)


def _attempt(
    job: Job,
    remote: Runner | None,
    progress: Progress,
    loaded: LoadedClassifiers | None,
    clock: float,
) -> Outcome:
    """Run a job. Raises OtherRun, with nothing removed, if another run is in the way."""
    settings, again = job.settings, ""
    if not settings.restart.force and (earlier := finished_before(job)) is not None:
        again = why_again(job, earlier)
        if not again:
            return as_before(job.files, earlier, settings.outputs, progress)
    with ExitStack() as ends:
        directory = ends.enter_context(
            RunDirectory.take(
                job.files,
                job.fingerprint,
                settings.restart,
                again=bool(again),
                embeddings=settings.outputs.save_embeddings,
            )
        )
        log = ends.enter_context(open_log(job.files, progress, as_json=settings.outputs.log_json))
        under_way = _Run(job, directory, log, again, {"startup_s": perf_counter() - clock})

        def opened() -> AbstractContextManager[Runner]:
            return runner_for(job, loaded) if remote is None else nullcontext(remote)

        return under_way.outcome(opened)


@dataclass(slots=True)
class _Run:
    """A run under way: what it was given, and what was observed so far.

    again: why a finished run is made again, if it is. negatives: the blocks of the user's own.
    replacing: whether earlier results may have been removed by now.
    """

    job: Job
    directory: RunDirectory
    log: RunLog
    again: str
    timings: dict[str, float]
    broken: list[StreamBroken] = field(default_factory=list)
    negatives: Journal | None = None
    on_record: bool = False
    replacing: bool = False
    watch: Watch = field(init=False)

    def __post_init__(self) -> None:
        job = self.job
        self.watch = Watch(
            log=self.log,
            chunk_nt=job.bundle.chunk_nt,
            sources=job.sources,
            letters_a_byte=[1.0] * len(job.sources),
            unbounded=job.streamed or job.settings.reading.max_records is not None,
        )

    def outcome(self, opened: Callable[[], AbstractContextManager[Runner]]) -> Outcome:
        """Do the work; whatever ends it, run.json says how. opened: gives a runner."""
        outcome = self._outcome(opened)
        self.log.end(outcome.status, outcome.exit_code)
        return outcome

    def _outcome(self, opened: Callable[[], AbstractContextManager[Runner]]) -> Outcome:
        try:
            self._announce()
            self._computed(opened)
            if self.job.settings.restart.part is not None:
                return self._part_completed(self.job.settings.restart.part)
            try:
                written = self._finalised()
            except BlockError as error:  # it was whole when it was found or written
                self.log.line(f"{error}; it is computed again")
                self._begin_again()
                self._computed(opened)
                written = self._finalised()
            return self._completed(written)
        except BaseException as error:
            self._record_failure(error)
            self.log.end(*ending(error)[:2])
            raise

    def _announce(self) -> None:
        job, log = self.job, self.log
        lines = opening(job.settings, job.bundle, job.plan, job.device)
        log.common(next(lines))
        log.common(f"bundle sha256 {job.bundle.sha256}", detail=True)
        if job.prescreen is not None:
            log.common(job.prescreen.sentence)
            log.common(f"prescreen sha256 {job.prescreen.bundle.sha256}", detail=True)
        for line in lines:
            log.common(line)
        for line in (*job.notes, *self.directory.notes):
            log.line(line)
        log.lines(opening_lines(job.sources))
        faults: list[InputError] = []
        shapes = shapes_of(job.sources, faults, job.bundle.chunk_nt)
        if faults:  # sooner than when hours were spent on what comes before them
            raise InputError.of(faults)
        if not job.streamed:  # else nobody knows how much will come, and of what length
            self.watch.letters_a_byte = [shape.letters_a_byte for shape in shapes]
            self._suggest(sum(s.records for s in shapes), sum(s.letters for s in shapes))
            for line in disk_taken(job.settings.outputs, job.bundle, shapes, job.files):
                log.line(line)
        if self.again:
            log.line(
                f"warning: the run here was finished, but {self.again}: its results are made again"
            )
        elif before := job.files.finished_blocks:
            log.line(f"finished blocks of an earlier start: {before:,}; those that fit are reused")

    def _suggest(self, records: float, letters: float) -> None:
        if sentence := other_bundle(self.job.bundle.name, records, letters):
            self.log.line(sentence)

    def _begin_again(self) -> None:
        again = [source.again() for source in self.job.sources]
        self.job = replace(self.job, sources=again)
        self.broken.clear()
        self.watch.begin_again(again)

    def _computed(self, opened: Callable[[], AbstractContextManager[Runner]]) -> None:
        with ExitStack() as ends:
            with self._timed("startup_s"):
                runner = ends.enter_context(opened())
            self._blocks_computed(runner)

    def _blocks_computed(self, runner: Runner) -> None:
        job, log = self.job, self.log
        cuda = job.device.kind == "cuda"
        for stage, memory in runner.loaded.memory.items():
            log.memory(stage, memory, cuda=cuda)
        for line in computing(
            runner.loaded, job.device, job.compute, job.prefetch, prefetches=job.prefetches
        ):
            log.common(line, detail=not cuda)
        self.watch.observe(runner.loaded)
        self.watch.kept_blocks = self.directory.journal.kept_blocks
        self.watch.show()
        with self._timed("blocks_s"):
            contigs = self.watch.counted(
                coded(
                    limited(contigs_of(job.sources, self.broken), job.settings.reading),
                    job.settings.scoring.genetic_code,
                )
            )
            journal = self.directory.journal
            compute(contigs, self.broken, runner, journal, job.sizes, self.watch)
            if job.negatives is not None:
                self.negatives = self.directory.journal_of_negatives(job.negatives.sha256)
                self.watch.telemetry = job.negatives.score(
                    runner, self.negatives, job.sizes, log, self.watch.telemetry
                )
        if journal.counts.reused:
            total = several(journal.counts.total, "block")
            log.detail(f"{journal.counts.reused:,} of {total} were finished before")
        if "blocks" not in self.watch.telemetry.memory:  # every block was finished before
            self.watch.observe(Telemetry(memory={"blocks": memory_of(job.device.index)}))
        telemetry = self.watch.telemetry
        log.memory("blocks", telemetry.memory["blocks"], cuda=cuda)
        for line in (*overflows(telemetry.batches), *shares(telemetry.shares)):
            log.line(line)

    def _finalised(self) -> Written:
        job = self.job
        widths = self.watch.telemetry.embedding_widths
        first = None if job.prescreen is None else job.prescreen.bundle.name
        code = job.settings.scoring.genetic_code
        plan = results_plan(job.bundle, job.settings.outputs, widths, first, code)
        for note in plan.notes:
            self.log.common(note)
        running = self._record(RUNNING, None, None, None)
        self.replacing = True
        self.directory.begin_results(running, planned(job.files, plan.wanted))
        with self._timed("tables_s"):
            before = [source.seen for source in job.sources]
            again = [source.again() for source in job.sources]
            written = finalise(
                self.directory.journal, again, before, plan, job.files, self.negatives
            )
        memory = memory_of(job.device.index)
        self.watch.observe(Telemetry(memory={"tables": memory}))
        self.log.memory("tables", memory, cuda=job.device.kind == "cuda")
        return written

    def _completed(self, written: Written) -> Outcome:
        job, counts = self.job, written.counts
        status, error = "partial" if counts.incomplete else "complete", None
        code = job.settings.outputs.exit_code(status)
        if self.broken:
            status, code, error = "failed", 1, "; ".join(map(str, self.broken))
        for lines in closing_lines(job.sources):
            self.log.lines(lines)
        if job.streamed:
            self._suggest(counts.records, counts.bases)
        for line in closing(written, job.files):
            self.log.line(line)
        if error is not None:
            self.log.ended(status, error)
        self.directory.write(self._record(status, code, error, written))
        self.on_record = True
        write_reports(job.files)
        if status in FINISHED:  # else the blocks are what a later run goes on from
            self.directory.complete(keep_blocks=job.settings.restart.keep_blocks)
        return Outcome(job.files, status, code, error, counts)

    def _part_completed(self, part: Part) -> Outcome:
        """Leave the blocks of a part for a merge, with what else it must know."""
        job, blocks = self.job, self.directory.journal.counts
        status, code, error = PART, 0, None
        if self.broken:
            status, code, error = "failed", 1, "; ".join(map(str, self.broken))
            self.log.ended(status, error)
        self.directory.keep_manifest(job.bundle.path)
        self.directory.write(self._record(status, code, error, None))
        self.on_record = True
        empty = " and holds none, as there are fewer blocks than parts"
        self.log.line(
            f"part {part} of {several(blocks.total, 'block')} is finished"
            f"{empty if part.number > blocks.total else ''}; `virnucpro merge` of all "
            f"{part.of} parts makes the results"
        )
        return Outcome(job.files, status, code, error, None)

    def _record_failure(self, error: BaseException) -> None:
        """Say in log and run.json how the run ended, unless they say so already.

        A run of another input stays as it is, and so does a finished one that was to be made again.
        """
        if self.on_record:
            return
        status, code, sentence = ending(error)
        compared = self.directory.journal.compared
        remains = self.again and not self.replacing
        refused = remains or (not compared and isinstance(error, ResumeError))
        # What ended the run is what it must end with, whatever the disk says to that.
        with suppress(VirnucproError):
            self.log.ended(status, sentence)
            if remains and isinstance(error, VirnucproError):
                self.log.line("the results of the earlier run here remain as they were")
        with suppress(VirnucproError):
            if not refused:
                self.directory.fail(self._record(status, code, sentence, None))

    def _record(
        self, status: str, exit_code: int | None, error: str | None, written: Written | None
    ) -> RunRecord:
        return record_of(
            self.job,
            self.directory,
            self.watch.telemetry,
            self.timings,
            status=status,
            exit_code=exit_code,
            error=error,
            written=written,
            whole=not self.broken,
            negative_blocks=self.negatives.counts.total if self.negatives else None,
        )

    @contextmanager
    def _timed(self, name: str) -> Iterator[None]:
        clock = perf_counter()
        yield
        self.timings[name] = self.timings.get(name, 0.0) + perf_counter() - clock
