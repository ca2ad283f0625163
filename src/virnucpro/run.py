"""One run of predict: settings -> a run directory with its tables, log and run.json."""

import sys
from collections import Counter
from collections.abc import Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from time import perf_counter
from typing import TYPE_CHECKING, Any, TextIO

import numpy as np

from virnucpro import __version__
from virnucpro.bundle import DEFAULT_BUNDLE, Bundle, load
from virnucpro.calls import Rule
from virnucpro.classifiers import Classifier
from virnucpro.devices import Device, cpu_name, peak_memory_bytes, use_threads
from virnucpro.errors import (
    OutOfMemory,
    ResumeError,
    SettingsError,
    StreamBroken,
    Terminated,
    VirnucproError,
)
from virnucpro.journal import RUN_SCHEMA_VERSION, Journal, RunFiles, disk_errors, write_json
from virnucpro.pipeline import classify, contigs_of
from virnucpro.progress import Position, Silent, Watcher
from virnucpro.reads import Source, open_sources
from virnucpro.report import write_reports
from virnucpro.report.card import about_bundle
from virnucpro.runners import SerialRunner
from virnucpro.scored import Scored
from virnucpro.tables import Counts, write_tables

if TYPE_CHECKING:
    from collections.abc import Iterator


@dataclass(frozen=True, slots=True, kw_only=True)
class Settings:
    """What a user asked for. None means the bundle's or this machine's own."""

    inputs: tuple[Path, ...]
    out: Path
    bundle: str = DEFAULT_BUNDLE
    sample: str | None = None
    prefix: str = ""
    threshold: float | None = None
    precision: str = "auto"
    threads: int | None = None
    allow_partial: bool = False
    force: bool = False
    command: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class Outcome:
    """How a run ended: status, exit code and error as in run.json, counts of the tables."""

    files: RunFiles
    status: str
    exit_code: int
    error: str | None
    counts: Counts | None


def predict(
    paths: Path | str | Sequence[Path | str],
    bundle: str | Path = DEFAULT_BUNDLE,
    out: Path | str = "virnucpro_run",
    *,
    sample: str | None = None,
    prefix: str = "",
    threshold: float | None = None,
    precision: str = "auto",
    threads: int | None = None,
    allow_partial: bool = False,
    force: bool = False,
) -> Outcome:
    """Classifies FASTA files into a new run directory, without a word to the terminal.

    paths: one file or several. bundle: the name of an embedded bundle, or a bundle's directory.
    sample: the name in the column sample, for one file only; otherwise made from the file's name.
    prefix: put before the name of each file written, with a dot. threshold: least p_virus of a call
    virus, 0 to 1; None: the bundle's. precision: fp32, bf16, fp16 or auto. threads: of the CPU;
    None: all that are allowed. allow_partial: whether an exit code of 0 stands for a run in which
    some records failed, too. force: whether an earlier run in out is replaced. Raises
    errors.VirnucproError.
    """
    several = [paths] if isinstance(paths, Path | str) else paths
    return run(
        Settings(
            inputs=tuple(Path(path) for path in several),
            out=Path(out),
            bundle=str(bundle),
            sample=sample,
            prefix=prefix,
            threshold=threshold,
            precision=precision,
            threads=threads,
            allow_partial=allow_partial,
            force=force,
        )
    )


def run(settings: Settings, watcher: Watcher | None = None) -> Outcome:
    """Runs predict.

    Raises VirnucproError, and KeyboardInterrupt or Terminated when interrupted; run.json says so
    too, if the run directory was ours by then. An input that broke off or could not be processed
    in part raises nothing: the outcome says it.
    """
    started, clock = datetime.now(UTC), perf_counter()
    _check(settings)
    bundle = load(settings.bundle)
    sources = open_sources(settings.inputs, settings.sample)
    files = RunFiles(settings.out, settings.prefix)
    threads = _threads(bundle, settings)
    classifier = bundle.classifier(precision=settings.precision)
    if settings.force:
        _check_spared(sources, files)
        Journal.discard(files)
    journal = Journal.create(settings.out, _fingerprint(bundle, classifier), settings.prefix)
    device = Device("cpu", cpu_name(), threads)
    with _log(files, watcher or Silent()) as log:
        ongoing = _Run(settings, bundle, sources, classifier, journal, device, log, started)
        ongoing.timings["startup_s"] = perf_counter() - clock
        return ongoing.outcome()


def _check(settings: Settings) -> None:
    if not settings.inputs:
        raise SettingsError("no input was named; give one FASTA file or more")
    if settings.sample is not None and len(settings.inputs) > 1:
        raise SettingsError(
            f"the sample name {settings.sample} was given for {len(settings.inputs)} inputs, but "
            "rows are told apart by it; run them one by one, or leave it out"
        )
    if settings.threshold is not None and not 0 <= settings.threshold <= 1:
        raise SettingsError(f"the threshold is {settings.threshold}, but must lie in 0 to 1")
    if settings.prefix and Path(settings.prefix).name != settings.prefix:
        raise SettingsError(
            f"the prefix is {settings.prefix!r}, but must be a part of a file's name, without '/'; "
            "name the folder with -o"
        )


def _check_spared(sources: Sequence[Source], files: RunFiles) -> None:
    """Raises ResumeError where --force would remove an input: it lies there as a run's file."""
    replaced = {path.resolve() for path in files.public}
    for source in sources:
        if source.path.resolve() in replaced:
            raise ResumeError(
                f"{source.path}: this input is a file of the run that --force replaces; choose "
                "another folder with -o"
            )


def _threads(bundle: Bundle, settings: Settings) -> int:
    """Threads of the CPU; the k-mer model uses one and loads no torch to say so."""
    return 1 if bundle.kind == "kmer" else use_threads(settings.threads)


def _fingerprint(bundle: Bundle, classifier: Classifier) -> dict[str, str]:
    return {
        "bundle": bundle.sha256,
        "precision": classifier.precision,
        "device": classifier.device.split(":")[0],
        "chunk_nt": str(bundle.chunk_nt),
        "block_nt": str(bundle.block_nt),
        "version": __version__,
    }


class _Log:
    """log.txt, and the watcher's copy of each line."""

    def __init__(self, file: TextIO, watcher: Watcher) -> None:
        self._file = file
        self.watcher = watcher

    def line(self, text: str) -> None:
        self.keep(text)
        self.watcher.line(text)

    def keep(self, text: str) -> None:
        """A line for log.txt alone."""
        now = datetime.now(UTC).strftime("%Y-%m-%d %H:%M:%S")
        with disk_errors(Path(self._file.name).parent):
            self._file.write(f"{now} {text}\n")
            self._file.flush()


@contextmanager
def _log(files: RunFiles, watcher: Watcher) -> "Iterator[_Log]":
    with disk_errors(files.run_dir):
        # A path need not be UTF-8.
        file = files.log.open("w", encoding="utf-8", errors="backslashreplace")
    try:
        yield _Log(file, watcher)
    finally:
        with suppress(OSError):  # every line was flushed; what the disk refused was said then
            file.close()


@dataclass(slots=True)
class _Run:
    """A run under way: what it was given, and what it has found so far."""

    settings: Settings
    bundle: Bundle
    sources: list[Source]
    classifier: Classifier
    journal: Journal
    device: Device
    log: _Log
    started: datetime
    records: Counter[str] = field(default_factory=Counter)
    chunks: int = 0
    timings: dict[str, float] = field(default_factory=dict)
    broken: list[StreamBroken] = field(default_factory=list)

    def outcome(self) -> Outcome:
        """Does the work; whatever ends it, run.json says how."""
        try:
            self._announce()
            counts = self._work()
        except BaseException as error:
            status, code, sentence = _ending(error)
            with suppress(VirnucproError):  # a disk that refuses must not hide it
                self.log.keep(f"{status}: {sentence}")
            with suppress(VirnucproError):  # what ended the run is what it must end with
                self._write_json(status, code, sentence, None)
            raise
        return self._finished(counts)

    def _work(self) -> Counts:
        with self._timed("blocks_s"):
            contigs = contigs_of(self.sources, self.broken)
            sizes = self.bundle.chunk_nt, self.bundle.block_nt
            classify(contigs, SerialRunner(self.classifier), self.journal, *sizes, self._seen)
        with self._timed("tables_s"):
            digests = [source.sha256 if self._whole(source) else "" for source in self.sources]
            again = open_sources([s.path for s in self.sources], self.settings.sample)
            rule = Rule(self.bundle.kind, self.threshold)
            return write_tables(self.journal.files, self.journal, rule, again, digests)

    @property
    def threshold(self) -> float:
        """Where p_virus is cut."""
        wish = self.settings.threshold
        return self.bundle.threshold if wish is None else wish

    def _whole(self, source: Source) -> bool:
        return all(error.path != source.path for error in self.broken)

    def _announce(self) -> None:
        bundle, say = self.bundle, self.log.line
        published = (
            "the published VirNucPro model"
            if bundle.is_published_model
            else "not the published VirNucPro model: cuts made for that one do not apply"
        )
        say(
            f"virnucpro {__version__}, bundle {bundle.name}, {published}; bundle sha256 "
            f"{bundle.sha256}"
        )
        say(
            f"chunks of {bundle.chunk_nt} nt, virus at p_virus >= {self.threshold:g}; "
            f"{self.classifier.precision} on {self.device.name}, "
            f"{self.device.threads} thread{'s' * (self.device.threads > 1)}"
        )
        if bundle.kind == "kmer" and (self.settings.threads or 1) > 1:
            say(f"--threads {self.settings.threads} changes nothing: this bundle computes on one")
        for source in self.sources:
            say(f"reading {source.path} as sample {source.sample}, {source.size_bytes:,} bytes")

    def _seen(self, scored: Scored) -> None:
        self.records.update(record.sample for record in scored.records if record.begins)
        self.chunks += len(scored.rows)
        for name, seconds in scored.telemetry.items():
            self.timings[name] = self.timings.get(name, 0.0) + seconds
        self.log.watcher.position(
            Position(
                bytes_read=sum(source.bytes_read for source in self.sources),
                bytes_total=sum(source.size_bytes for source in self.sources),
                records=self.records.total(),
                chunks=self.chunks,
            )
        )

    def _finished(self, counts: Counts) -> Outcome:
        status, code, error = "complete", 0, None
        if counts.incomplete:
            status, code = "partial", 0 if self.settings.allow_partial else 2
        if self.broken:
            status, code, error = "failed", 1, "; ".join(map(str, self.broken))
        self._summarise(counts)
        self._write_json(status, code, error, counts)
        self.journal.finished()
        write_reports(self.journal.files)
        return Outcome(self.journal.files, status, code, error, counts)

    def _summarise(self, counts: Counts) -> None:
        say = self.log.line
        say(
            f"{counts.records:,} records: {counts.virus:,} virus, {counts.others:,} others, "
            f"{counts.none:,} not called, {counts.failed:,} failed"
        )
        say(
            f"{counts.chunks:,} chunks: {counts.virus_chunks:,} virus, {counts.others_chunks:,} "
            f"others{_not_ok(counts)}"
        )
        if counts.incomplete:
            say(f"what could not be processed is listed in {self.journal.files.failed}")

    def _write_json(
        self, status: str, exit_code: int, error: str | None, counts: Counts | None
    ) -> None:
        self.timings["total_s"] = (datetime.now(UTC) - self.started).total_seconds()
        document = {
            "schema_version": RUN_SCHEMA_VERSION,
            "status": status,
            "exit_code": exit_code,
            "error": error,
            "versions": _versions(),
            "command": list(self.settings.command),
            "inputs": [self._input(source) for source in self.sources],
            "bundle": about_bundle(self.bundle),
            "settings": {
                "threshold": self.threshold,
                "sample": self.settings.sample,
                "prefix": self.settings.prefix,
                "precision": self.classifier.precision,
                "threads": self.device.threads,
                "allow_partial": self.settings.allow_partial,
                "force": self.settings.force,
            },
            "device": {
                "kind": self.device.kind,
                "name": self.device.name,
                "precision": self.classifier.precision,
                "threads": self.device.threads,
            },
            "attention": dict(self.classifier.attention),
            "fingerprint": _fingerprint(self.bundle, self.classifier),
            "counts": None if counts is None else counts.as_dict(),
            "timings": {name: round(seconds, 3) for name, seconds in self.timings.items()},
            "memory": {"peak_bytes": peak_memory_bytes()},
            "started": self.started.isoformat(timespec="seconds"),
            "finished": datetime.now(UTC).isoformat(timespec="seconds"),
        }
        write_json(self.journal.files.run_json, document)

    def _input(self, source: Source) -> dict[str, Any]:
        return {
            "path": str(source.path),
            "sample": source.sample,
            "sha256": source.sha256 or None,
            "bytes": source.size_bytes,
            "records": self.records[source.sample],
        }

    @contextmanager
    def _timed(self, name: str) -> "Iterator[None]":
        clock = perf_counter()
        yield
        self.timings[name] = perf_counter() - clock


def _ending(error: BaseException) -> tuple[str, int, str]:
    """Status, exit code and sentence of a run that this error ends."""
    if isinstance(error, VirnucproError):
        return "failed", error.exit_code, str(error)
    if isinstance(error, Terminated):
        return "interrupted", error.exit_code, "terminated by a signal"
    if isinstance(error, KeyboardInterrupt):
        return "interrupted", 130, "interrupted from the keyboard"
    if isinstance(error, MemoryError):
        return "failed", OutOfMemory.exit_code, "out of memory"
    return "failed", 1, f"{type(error).__name__}: {error}"


def _not_ok(counts: Counts) -> str:
    """What stands behind the numbers of calls: chunks whose status is not ok, by status."""
    reasons = [
        f"{number:,} {name.replace('_', ' ')}"
        for name, number in counts.chunk_status.items()
        if number and name != "ok"
    ]
    return f"; {', '.join(reasons)}" if reasons else ""


def _versions() -> dict[str, str | None]:
    torch = sys.modules.get("torch")
    return {
        "virnucpro": __version__,
        "python": sys.version.split()[0],
        "torch": None if torch is None else str(torch.__version__),
        "numpy": np.__version__,
    }
