"""A run that was finished before: whether it is this one, and what is left to do.

Nothing here computes, and no model is loaded.
"""

from contextlib import suppress
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import TYPE_CHECKING

from virnucpro.errors import OtherRun, ResumeError
from virnucpro.progress import Progress
from virnucpro.report import write_reports
from virnucpro.results.counts import Counts
from virnucpro.results.files import RunFiles
from virnucpro.results.outputs import Outputs
from virnucpro.results.record import RunRecord
from virnucpro.run.directory import clear_leftovers, missing_or_changed
from virnucpro.run.fingerprint import in_words, refuse_other
from virnucpro.storage.atomic import disk_errors
from virnucpro.storage.lock import Lock

if TYPE_CHECKING:
    from virnucpro.run.prepare import Job

# Settings that change the results of the same scores.
OF_TABLES = (
    *("tables", "compat_tables", "write", "parquet", "save_embeddings"),
    *("pairs", "read_groups", "prior", "fdr", "host"),
)


@dataclass(frozen=True, slots=True)
class Outcome:
    """The end of a run: status, exit code and error as in run.json, counts of the tables.

    counts is None for a part of a run, which has no tables. before: whether it had been finished
    before, so that nothing was done.
    """

    files: RunFiles
    status: str
    exit_code: int
    error: str | None
    counts: Counts | None
    before: bool = False

    @property
    def read_first(self) -> str:
        """The files that a person begins with, as a sentence names them."""
        paired = self.counts is not None and self.counts.pairs
        return f"{self.files.report} or {self.files.pairs if paired else self.files.contigs}"


def finished_before(job: "Job") -> RunRecord | None:
    """Return the record of a finished run of the same inputs and fingerprint in this folder.

    Raises OtherRun if it is a finished run of others, or a whole one where a part is asked for.
    """
    files, sources = job.files, job.sources
    record = RunRecord.read(files.run_json, ResumeError)
    if record is None or not record.is_finished:
        return None
    if job.settings.restart.part is not None:
        raise OtherRun(
            f"{files.run_dir}: this folder holds a finished run, which a part would replace; "
            "choose another with -o, or replace it with --rerun"
        )
    refuse_other(record.fingerprint, job.fingerprint, files)
    if len(record.inputs) != len(sources):
        raise OtherRun(
            f"{files.run_dir}: this folder holds a finished run of {len(record.inputs)} inputs, "
            f"not {len(sources)}; choose another with -o, or replace it with --rerun"
        )
    for source, before in zip(sources, record.inputs, strict=True):
        # The size alone may tell at once that it is another file, but never that it is the same;
        # where only the first records are read, others may have come after them.
        any_size = source.streamed or source.reading.max_records is not None
        same_size = any_size or source.size_bytes == before.bytes
        if not same_size or source.whole_sha256() != before.sha256:
            raise OtherRun(
                f"{files.run_dir}: this folder holds a finished run of another input: the content "
                f"of {source.path} is not that of {before.path} then; choose another folder with "
                "-o, or replace the run with --rerun"
            )
    return record


def why_again(job: "Job", earlier: RunRecord) -> str:
    """Return why the results of a finished run must be made anew; empty if they need not."""
    settings = job.settings.as_dict()
    before = earlier.settings
    other: list[str] = []
    if before.get("threshold") != job.threshold:
        other.append(f"the threshold was {before.get('threshold')}")
    elif before.get("chunk_threshold", job.chunk_threshold) != job.chunk_threshold:
        other.append(f"the threshold of chunks was {before['chunk_threshold']}")
    other += [
        _setting_before(name, value, settings[name])
        for name in OF_TABLES
        if (value := before.get(name)) != settings[name]
    ]
    negatives = None if job.negatives is None else job.negatives.sha256
    if (earlier.negatives or {}).get("sha256") != negatives:
        other.append(
            "the negatives were others" if earlier.negatives else "there were no negatives"
        )
    if other:
        return ", ".join(other)
    if earlier.samples != [source.sample for source in job.sources]:
        return f"the sample was {', '.join(earlier.samples)}"
    if names := missing_or_changed(job.files, earlier):
        return f"{', '.join(names)} {'is' if len(names) == 1 else 'are'} missing or changed"
    return ""


def _setting_before(name: str, before: object, now: object) -> str:
    """Say what a setting was, where it is another now."""
    if before is None:
        return f"it had no --{name}"
    if now is None:
        return f"it had --{name} {in_words(before)} (this command has none)"
    return f"the setting {name} was {in_words(before)}"


def as_before(files: RunFiles, earlier: RunRecord, outputs: Outputs, progress: Progress) -> Outcome:
    """Return the outcome of a finished run, all of whose results are there.

    Raises ResumeError if its last files are being written by another process.
    """
    _finish_last_files(files, keep_blocks=bool(earlier.settings.get("keep_blocks")))
    progress.line(
        f"{files.run_dir}: this run was finished on {_day(earlier.finished_at)} "
        f"({earlier.status}), and every result is as it was written; nothing is done, --force "
        "starts over"
    )
    assert earlier.counts is not None  # of a finished run
    code = outputs.exit_code(earlier.status)
    return Outcome(files, earlier.status, code, None, earlier.counts, before=True)


def _finish_last_files(files: RunFiles, *, keep_blocks: bool) -> None:
    """Write the reports, and remove the hidden folder, of a run that was killed before."""
    if not all(path.exists() for path in files.reports):
        with disk_errors(files.run_dir):
            lock = Lock(files.hidden)
        try:
            write_reports(files)
        finally:
            lock.release()
    if not keep_blocks:
        clear_leftovers(files)
    else:
        with suppress(OSError):  # the blocks lie there
            files.hidden.rmdir()


def _day(finished: datetime | None) -> str:
    """Return a time of run.json for a person."""
    return (
        "an unknown day" if finished is None else f"{finished.astimezone(UTC):%Y-%m-%d %H:%M} UTC"
    )
