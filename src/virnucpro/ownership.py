"""Whose a run directory is: which run lies there, and what of it another run may replace."""

import os
import re
from collections.abc import Collection, Iterator, Mapping
from contextlib import suppress
from itertools import count
from pathlib import Path
from typing import Any

from virnucpro.errors import ResumeError
from virnucpro.lock import NAME as LOCK
from virnucpro.run_directory import (
    EDITED,
    FINISHED,
    RunFiles,
    missing_or_changed,
    read_json,
    read_run_json,
)
from virnucpro.writing import disk_errors, write_json

# What fingerprint.json says of blocks that lie in the run directory itself, wherever it is moved.
_HERE = "."
_ASIDE = re.compile(rf"(.+){re.escape(EDITED)}\d*", re.DOTALL)


def refuse_other_run(
    files: RunFiles, fingerprint: Mapping[str, str], resume: bool = True, again: bool = True
) -> None:
    """Raises ResumeError if the folder holds another run.

    Without resume also if it holds an unfinished one, without again if a finished one.
    """
    document = read_run_json(files)
    unfinished = files.fingerprint.exists()
    if unfinished:
        there = read_json(files.fingerprint)
        refuse_other_fingerprint(there, fingerprint, files, files.journal_option)
    if document is not None:
        refuse_other_fingerprint(document["fingerprint"], fingerprint, files)
        unfinished = document.get("status") not in FINISHED
    if document is not None and not unfinished and not again:
        raise ResumeError(
            f"{files.run_dir}: another process has just finished a run here; give the command again"
        )
    if unfinished and not resume:
        raise ResumeError(
            f"{files.run_dir}: this folder already holds an unfinished run; go on with it without "
            "--no-resume, choose another with -o, or replace it with --force"
        )


def refuse_other_fingerprint(
    there: Mapping[str, Any], fingerprint: Mapping[str, str], files: RunFiles, option: str = "-o"
) -> None:
    """Raises ResumeError, naming the first field that differs, if the run there has another.

    option: what a user names its folder with; in that of --journal lie blocks alone.
    """
    folder = files.run_dir if option == "-o" else files.kept.parent
    for field in fingerprint:
        if there.get(field) != fingerprint[field]:
            before, now = (str(of.get(field, "unknown")) for of in (there, fingerprint))
            if field == "bundle":  # whose first figures tell as much
                before, now = (f"sha256 {sha256[:12]}..." for sha256 in (before, now))
                before += f", named in {files.log.name} there" if option == "-o" else ""
            raise ResumeError(
                f"{folder}: this folder holds another run, with another {field} "
                f"({before}; this run: {now}); choose another "
                f"with {option}{', or replace it with --force' if option == '-o' else ''}"
            )


def owner_of(files: RunFiles) -> str:
    """What fingerprint.json calls the run of these files."""
    return _HERE if files.journal is None else str(files.run_dir.resolve())


def owner_there(files: RunFiles) -> str | None:
    """Whose the blocks are that are kept there, if anybody's."""
    if files.fingerprint.exists():
        return str(read_json(files.fingerprint).get("run_dir"))
    return "unknown" if any(files.blocks.glob("*")) else None


def refuse_other_owner(files: RunFiles, force: bool) -> None:
    """Raises ResumeError if the blocks there are not for this run to take or to remove.

    A retry in a new run directory takes those of the first attempt, but removes none unread.
    """
    owner, mine = owner_there(files), owner_of(files)
    if owner is None or owner == mine or (owner == "unknown" and mine == _HERE):
        return
    folder, option = files.kept.parent, files.journal_option
    if owner == _HERE:
        raise ResumeError(
            f"{folder}: this is the run directory of an unfinished run, whose blocks lie there; "
            f"choose another folder with {option}"
        )
    if force or mine == _HERE:
        raise ResumeError(
            f"{folder}: holds the blocks of another run (run directory: {owner}), which stay; "
            f"choose another folder with {option}"
        )


def results_written(files: RunFiles, document: Mapping[str, Any] | None) -> set[str]:
    """The names of results that runs here wrote under; document: run.json."""
    found = _noted(files)
    if document is not None and document.get("outputs"):
        found |= {*document["outputs"], files.report.name, files.multiqc.name}
    if document is not None and document.get("settings", {}).get("log_json"):
        found.add(files.log_json.name)
    return found & {path.name for path in files.results}


def written_in(folder: Path) -> set[str]:
    """The names of what runs have put into a folder, whatever their prefix.

    Raises OSError where it cannot be read.
    """
    plain = RunFiles(folder)
    marks, there = (plain.run_json.name, plain.hidden.name), {p.name for p in folder.iterdir()}
    found: set[str] = set()
    for name in there:
        mark = next((mark for mark in marks if name.endswith(mark)), name)
        files = RunFiles(folder, name.removesuffix(mark).strip("."))
        if name in (files.run_json.name, files.hidden.name):
            with suppress(ResumeError):  # run.json of another program
                found |= results_written(files, read_run_json(files))
                logs = (files.run_json, files.log, files.log_json, files.hidden)
                found |= {path.name for path in logs}
    aside = {name: _ASIDE.fullmatch(name) for name in there}
    return {name for name, of in aside.items() if name in found or (of and of[1] in found)}


def _noted(files: RunFiles) -> set[str]:
    return set(read_json(files.written)["names"]) if files.written.exists() else set()


def claim(files: RunFiles, names: Collection[str]) -> None:
    """Notes down the names of results, if there are any, before a run writes or removes them."""
    wanted = {*names, files.report.name, files.multiqc.name}
    noted = _noted(files)
    if names and not wanted <= noted:
        write_json(files.written, {"names": sorted(wanted | noted)})


def put_aside_edited(files: RunFiles, document: Mapping[str, Any]) -> Iterator[str]:
    """Renames results that somebody has edited, which nothing would bring back; a line on each."""
    ours = results_written(files, document)
    for path in (files.run_dir / name for name in missing_or_changed(files, document)):
        if path.name not in ours or not path.is_file():
            continue
        names = (f"{path.name}{EDITED}{n if n > 1 else ''}" for n in count(1))
        aside = next(other for other in map(path.with_name, names) if not os.path.lexists(other))
        path.rename(aside)
        yield f"warning: {path} is not as it was written, so it is kept as {aside.name}"


def refuse_foreign_files(files: RunFiles, force: bool) -> None:
    """Raises ResumeError if the folder is none, or something lies where this run would write."""
    for folder in dict.fromkeys((files.run_dir, files.kept.parent)):
        option = "-o" if folder == files.run_dir else "--journal"
        with disk_errors(folder, option):
            if not folder.is_dir() and os.path.lexists(folder):
                raise ResumeError(f"{folder}: this is a file; choose a folder with {option}")
            hidden = files.hidden if option == "-o" else files.kept
            if os.path.lexists(hidden) and not _is_hidden_folder(hidden, files):
                raise _in_the_way(hidden, option)
            if hidden == files.kept and files.blocks.is_symlink():
                raise _in_the_way(files.blocks, files.journal_option)
    document = read_run_json(files)
    marks = (files.hidden / LOCK, files.hidden / files.fingerprint.name)
    ours = document is not None or any(mark.exists() for mark in marks)
    known = results_written(files, document)
    known |= {files.log.name} if ours else set()
    known |= {files.run_json.name} if document is not None else set()
    for path in (*files.results, *files.public):
        if path.name not in known and os.path.lexists(path):
            raise _in_the_way(path)
    if ours:
        return
    if force and files.run_dir.exists() and not _holds_a_run(files.run_dir):
        raise ResumeError(
            f"{files.run_dir}: holds files, but no run that --force could replace (there is no "
            f"{files.run_json.name}); leave it out, or choose another folder with -o"
        )


def _is_hidden_folder(folder: Path, files: RunFiles) -> bool:
    """Whether a folder of that name is one of ours: it is empty, or holds what we put there."""
    ours = {LOCK, files.fingerprint.name, files.blocks.name, files.scratch.name, files.written.name}
    return folder.is_dir() and all(
        path.name in ours or path.name.startswith((".", f"{LOCK}.")) for path in folder.iterdir()
    )


def _holds_a_run(folder: Path) -> bool:
    """Whether a folder is empty, or holds a run, of whatever prefix."""
    names = [path.name for path in folder.iterdir()]
    return not names or any(name.endswith(("run.json", ".virnucpro")) for name in names)


def _in_the_way(path: Path, option: str = "-o") -> ResumeError:
    return ResumeError(
        f"{path}: this is in the way, and no run here wrote it; move it, or choose another folder "
        f"with {option}"
    )
