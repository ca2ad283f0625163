"""The output that people look at after a run: report.html, and a table for MultiQC."""

from collections.abc import Sequence
from contextlib import suppress
from pathlib import Path

from virnucpro.errors import InputError, ResumeError, SettingsError
from virnucpro.report.multiqc import general_statistics, multiqc_table
from virnucpro.report.page import GENERATOR, page_of
from virnucpro.report.runs import read_run
from virnucpro.results.files import RunFiles
from virnucpro.results.read import run_files
from virnucpro.storage.atomic import disk_errors, write_atomic

MOST_RUNS = 100


def write_reports(files: RunFiles) -> None:
    """Writes the page and both files for MultiQC of a finished run.

    By way of its scratch folder where that is still there. Raises VirnucproError when the
    disk refuses, InputError for a damaged table.
    """
    run = read_run(files)
    scratch = files.scratch if files.hidden.is_dir() else None
    if scratch is not None:  # what a kill leaves there goes with it
        with disk_errors(files.run_dir):
            scratch.mkdir(exist_ok=True)
    write_atomic(files.report, page_of([run]), scratch)
    write_atomic(files.multiqc, multiqc_table(run), scratch)
    write_atomic(files.multiqc_general, general_statistics(run), scratch)
    if scratch is not None:
        with suppress(OSError):  # tables in the making may lie there
            scratch.rmdir()


def remake(folders: Sequence[Path], out: Path | None = None, *, paths: bool = True) -> Path:
    """Makes the page anew, of one run or of several side by side; returns where it is.

    folders: run directories, in which every prefix is a run. out: None is beside the one run.
    paths: whether the page tells any. Raises InputError for a folder without a run or with a
    damaged file, and where no run has come to results, SettingsError for several runs without out
    or for too many, ResumeError if something else than a report lies at out, VirnucproError when
    the disk refuses.
    """
    files = [run for folder in folders for run in run_files(folder)]
    if len(files) > MOST_RUNS:
        raise SettingsError(
            f"these are {len(files):,} runs, but a page has room for {MOST_RUNS}; MultiQC shows "
            f"any number of {RunFiles(Path()).multiqc}"
        )
    if out is None and len(files) > 1:
        raise SettingsError(f"these are {len(files):,} runs; name the page of them with -o")
    target = files[0].report if out is None else out
    _check_replaceable(target)
    runs = [read_run(run, share=len(files)) for run in files]
    if all(run.is_bare for run in runs):
        raise InputError(
            "this run is not finished, so there is nothing to show of it; give its predict command "
            "again (parts of a run need `virnucpro merge`)",
            files[0].run_json,
        )
    write_atomic(target, page_of(runs, paths=paths))
    return target


def _check_replaceable(target: Path) -> None:
    """Raise ResumeError if something else than a report of ours would be replaced.

    Raises FolderError if the folder cannot be looked into.
    """
    with disk_errors(target.parent):
        if target.is_dir():
            raise ResumeError(f"{target}: this is a folder; name a file in it with -o")
        if target.exists() and target.stat().st_size and not is_report(target):
            raise ResumeError(
                f"{target}: not a report of virnucpro, so it is not replaced; name another file "
                "with -o"
            )


def is_report(path: Path) -> bool:
    """Return whether a file is a page of this program."""
    if not path.is_file():
        return False
    with path.open("rb") as file:
        return GENERATOR.encode() in file.read(2000)
