"""A run that had been finished before: whether it is this one, and what is left to do.

Nothing here computes or loads a model.
"""

from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any

from virnucpro.bundle import Bundle
from virnucpro.errors import ResumeError
from virnucpro.journal import clear_leftovers
from virnucpro.ownership import refuse_other_fingerprint
from virnucpro.progress import Watcher
from virnucpro.reads import Source
from virnucpro.report import write_reports
from virnucpro.run_directory import FINISHED, RunFiles, missing_or_changed, read_run_json
from virnucpro.settings import Settings
from virnucpro.tables import Counts
from virnucpro.writing import disk_errors


@dataclass(frozen=True, slots=True)
class Outcome:
    """How a run ended: status, exit code and error as in run.json, counts of the tables.

    before: whether it had been finished before, so that nothing was done.
    """

    files: RunFiles
    status: str
    exit_code: int
    error: str | None
    counts: Counts
    before: bool = False


def finished_before(
    files: RunFiles, fingerprint: Mapping[str, str], sources: Sequence[Source]
) -> dict[str, Any] | None:
    """run.json of a finished run of the same inputs and fingerprint in this folder.

    Raises ResumeError where it is a finished run of others.
    """
    document = read_run_json(files)
    if document is None or document.get("status") not in FINISHED:
        return None
    refuse_other_fingerprint(document["fingerprint"], fingerprint, files)
    inputs = document.get("inputs", [])
    if len(inputs) != len(sources):
        raise ResumeError(
            f"{files.run_dir}: this folder holds a finished run of {len(inputs)} inputs, not "
            f"{len(sources)}; choose another with -o, or replace it with --force"
        )
    for source, before in zip(sources, inputs, strict=True):
        # The size alone may tell at once that it is another file, but never that it is the same;
        # where only the first records are read, others may have come after them.
        any_size = source.streamed or source.reading.max_records is not None
        same_size = any_size or source.size_bytes == before["bytes"]
        if not same_size or source.whole_sha256() != before["sha256"]:
            raise ResumeError(
                f"{files.run_dir}: this folder holds a finished run of another input: the content "
                f"of {source.path} is not that of {before['path']} then; choose another folder "
                "with -o, or replace the run with --force"
            )
    return document


def why_again(
    files: RunFiles,
    earlier: Mapping[str, Any],
    settings: Settings,
    bundle: Bundle,
    sources: Sequence[Source],
) -> str:
    """Why the tables of a finished run must be made anew; empty if they need not."""
    if earlier["settings"].get("threshold") != settings.cut(bundle):
        return f"the threshold was {earlier['settings'].get('threshold')}"
    outputs = ("tables", "compat_tables", "write", "parquet", "save_embeddings")
    for name in (*outputs, "pairs", "read_groups"):
        if (before := earlier["settings"].get(name)) != getattr(settings, name):
            return f"the setting {name} was {before}"
    samples = [before["sample"] for before in earlier["inputs"]]
    if samples != [source.sample for source in sources]:
        return f"the sample was {', '.join(samples)}"
    if names := missing_or_changed(files, earlier):
        return f"{', '.join(names)} {'is' if len(names) == 1 else 'are'} missing or changed"
    return ""


def as_before(
    files: RunFiles, earlier: Mapping[str, Any], settings: Settings, watcher: Watcher
) -> Outcome:
    """A finished run, all of whose results are there."""
    if not (files.report.exists() and files.multiqc.exists()):  # killed before they were written
        with disk_errors(files.run_dir):
            files.hidden.mkdir(exist_ok=True)
        write_reports(files)
    if not earlier["settings"].get("keep_blocks"):
        clear_leftovers(files)
    else:
        with suppress(OSError):  # the blocks lie there
            files.hidden.rmdir()
    status = earlier["status"]
    watcher.line(
        f"{files.run_dir}: this run was finished on {_day(earlier['finished'])} ({status}), and "
        "every result is as it was written; nothing is done, --force starts over"
    )
    code = settings.exit_code(status)
    return Outcome(files, status, code, None, Counts(**earlier["counts"]), before=True)


def _day(finished: str) -> str:
    """A time of run.json for a person."""
    return f"{datetime.fromisoformat(finished).astimezone(UTC):%Y-%m-%d %H:%M} UTC"
