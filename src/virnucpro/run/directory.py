"""A run directory and its owner: taken by one process, results named before they are written.

run.json comes first, with the status `running` and the names of the results, and last, with how the
run ended; whatever it names was written by a run, and nothing else in the folder is touched.
"""

import hashlib
import os
import shutil
from collections.abc import Iterable, Mapping
from contextlib import suppress
from dataclasses import replace
from pathlib import Path
from typing import Any, Self

from virnucpro.bundle.calibration import CALIBRATION
from virnucpro.bundle.manifest import MANIFEST
from virnucpro.errors import ResumeError
from virnucpro.report import is_report
from virnucpro.results.files import BLOCK, PROVISIONAL, RunFiles, read_json
from virnucpro.results.record import PART, RUNNING, RunRecord
from virnucpro.run.fingerprint import difference, refuse_other
from virnucpro.run.journal import Journal
from virnucpro.run.settings import Part, Restart
from virnucpro.storage.atomic import disk_errors, remove_leftovers, write_atomic, write_json
from virnucpro.storage.lock import NAME as LOCK
from virnucpro.storage.lock import Lock

# The owner in fingerprint.json of blocks that lie in the run directory itself, wherever it moves.
_HERE = "."


class RunDirectory:
    """A run directory that this process alone works in, for `with`.

    journal: the finished blocks. notes: sentences on the folder for the user.
    """

    def __init__(
        self,
        files: RunFiles,
        fingerprint: Mapping[str, str],
        part: Part | None = None,
        *,
        embeddings: bool = False,
    ) -> None:
        self.files = files
        self.notes: list[str] = []
        # The blocks of all parts have one fingerprint; the folder is one part's.
        self._fingerprint = dict(fingerprint) | ({} if part is None else {"part": str(part)})
        self._locks: list[Lock] = []
        self._part = part
        self.journal = Journal(
            files, fingerprint, part=part, embeddings=embeddings, check=self._check_locks
        )

    @classmethod
    def take(
        cls,
        files: RunFiles,
        fingerprint: Mapping[str, str],
        restart: Restart,
        *,
        again: bool = False,
        embeddings: bool = False,
    ) -> Self:
        """Take a folder for a run: a new or empty one, or one with this run.

        Finished blocks of an earlier process stay; files that no run wrote are untouched. With
        restart.force nothing of an earlier run stays. again: whether a finished run, compared with
        this one by the caller, is to be made again. embeddings: as of Journal. Another run that
        has finished no block is replaced, which a note says, unless either keeps blocks elsewhere.

        Raises ResumeError if the folder is in use, holds an unfinished run without restart.resume,
        or a file that is in the way, and with force also if it holds no run, or blocks of a run
        that has another folder; OtherRun if it holds another run; VirnucproError if it cannot be
        written to.
        """
        directory = cls(files, fingerprint, restart.part, embeddings=embeddings)
        with disk_errors(files.run_dir):
            refuse_foreign_files(files, restart.force)
            # An unfinished run may be one at work, which the lock tells.
            directory._refuse_others(replace(restart, resume=True), again=True)
        try:
            directory._lock()
            note = directory._refuse_others(restart, again=again)
            directory.notes += [note] if note else []
            directory._begin(restart.force or bool(note))
        except BaseException:
            directory.close()
            raise
        return directory

    def journal_of_negatives(self, sha256: str) -> Journal:
        """Return the finished blocks of --negatives; sha256: of their file."""
        of_blocks = {k: v for k, v in self._fingerprint.items() if k != "part"}
        files = self.files.of_negatives
        with disk_errors(files.kept.parent, self.files.journal_option):
            files.blocks.mkdir(parents=True, exist_ok=True)
        return Journal(
            files,
            of_blocks | {"negatives": sha256},
            part=self._part,
            check=self._check_locks,
        )

    @property
    def fingerprint(self) -> dict[str, str]:
        """The fingerprint of the run, with its part if it is one."""
        return self._fingerprint

    def _refuse_others(self, restart: Restart, *, again: bool) -> str:
        """Return a note on another run that this one replaces; empty for none."""
        _refuse_other_owner(self.files, restart.force)
        if restart.force:
            return ""
        return _refuse_other_run(self.files, self._fingerprint, resume=restart.resume, again=again)

    def _lock(self) -> None:
        files = self.files
        # The run directory last: where the other folder refuses, none is made.
        for folder, option in {files.kept: files.journal_option, files.hidden: "-o"}.items():
            with disk_errors(folder.parent, option):
                self._locks.append(Lock(folder))
            self.notes += self._locks[-1].notes

    def _check_locks(self) -> None:
        for lock in self._locks:
            lock.check()

    def _begin(self, force: bool) -> None:
        files = self.files
        if force:
            self._remove_results(None)
            with disk_errors(files.run_dir):
                files.log.unlink(missing_ok=True)
                if is_report(files.report):
                    files.report.unlink()
        with disk_errors(files.kept.parent, files.journal_option):
            if force:
                _remove_tree(files.blocks)
                _remove_tree(files.negatives)
                if files.kept != files.hidden:
                    (files.hidden / files.fingerprint.name).unlink(missing_ok=True)
            if force or not files.fingerprint.exists():
                self._own(self._fingerprint)
            files.blocks.mkdir(exist_ok=True)
            self.journal.remove_provisional()
            self._sweep()

    def _sweep(self) -> None:
        """Remove what a kill has left of files that were being written."""
        for folder in {self.files.hidden, self.files.kept, self.files.blocks}:
            remove_leftovers(folder)

    def _own(self, fingerprint: Mapping[str, Any]) -> None:
        document = {**fingerprint, "run_dir": _owner_of(self.files)}
        write_json(self.files.fingerprint, document, option=self.files.journal_option)

    def _remove_results(self, to_come: RunRecord | None) -> None:
        """Remove what earlier processes have put under public names, but for log.txt.

        log.jsonl stays if the run to come writes it too, so that it is of all of a run or gone.
        """
        self._check_locks()
        files = self.files
        record = RunRecord.read(files.run_json, ResumeError)
        names = results_of(files, record) | {files.log_json.name}
        if to_come is not None and to_come.settings.get("log_json"):
            names.remove(files.log_json.name)
        if record is not None and record.is_finished:
            # From here on it does not say complete, but still whose the results are.
            self.write(replace(record, status=RUNNING, exit_code=None, finished=None))
        with disk_errors(files.run_dir):
            for name in names:
                (files.run_dir / name).unlink(missing_ok=True)
            files.run_json.unlink(missing_ok=True)

    def begin_results(self, record: RunRecord, planned: Iterable[Path]) -> None:
        """Remove the results of earlier processes, and name the planned ones in run.json.

        Call it once the finished blocks are known to be of this input.
        """
        self._remove_results(record)
        names = {path.name: None for path in planned}
        self.write(replace(record, outputs=names))
        self._take_blocks_over()

    def _take_blocks_over(self) -> None:
        """Make blocks in the folder of --journal ours, after a retry in a new run directory."""
        owned = read_json(self.files.fingerprint)
        if self.journal.compared and owned.get("run_dir") != _owner_of(self.files):
            self._own(owned)

    def fail(self, record: RunRecord) -> None:
        """Put the record of a run that was ended by an error in the place of all results."""
        self._remove_results(record)
        self.write(record)

    def keep_manifest(self, bundle: Path) -> None:
        """Keep what results are made by of a bundle, manifest and calibration, for a merge."""
        for name in (CALIBRATION, MANIFEST):
            if (bundle / name).exists():
                write_atomic(self.files.hidden / name, (bundle / name).read_bytes())

    def write(self, record: RunRecord) -> None:
        """Put run.json into its place."""
        self._check_locks()
        record.write(self.files.run_json, self.files.hidden)

    def complete(self, *, keep_blocks: bool) -> None:
        """Remove the hidden folder, once everything public is in its place."""
        self._check_locks()
        files = self.files
        with disk_errors(files.run_dir):
            _remove_tree(files.scratch)
            if not keep_blocks:
                _remove_tree(files.blocks)
                _remove_tree(files.negatives)
                files.fingerprint.unlink(missing_ok=True)
            self._sweep()
            for lock in self._locks:
                lock.remove()

    def close(self) -> None:
        """Let other processes in."""
        for lock in self._locks:
            lock.release()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()


def clear_leftovers(files: RunFiles) -> None:
    """Remove the hidden folder of a finished run that was killed at its very end.

    Blocks of another run, in a folder that several share, stay. Raises ResumeError if the folder is
    in use.
    """
    mine = [f for f in (replace(files, journal=None), files) if f.kept.exists()]
    for each in dict.fromkeys(mine):
        if _owner_there(each) in (None, _owner_of(each)):
            with RunDirectory(each, {}) as directory:
                directory._lock()
                directory.complete(keep_blocks=False)


def results_of(files: RunFiles, record: RunRecord | None) -> set[str]:
    """Return the names of results that a run wrote or was about to write."""
    if record is None:
        return set()
    names = {*record.outputs}
    if names:
        names |= {path.name for path in files.reports}
    if record.settings.get("log_json"):
        names.add(files.log_json.name)
    return names & {path.name for path in files.results}


def written_in(folder: Path) -> set[str]:
    """Return the names of what runs have put into a folder, whatever their prefix.

    Raises OSError if the folder cannot be read.
    """
    plain = RunFiles(folder)
    marks, names = (plain.run_json.name, plain.hidden.name), {p.name for p in folder.iterdir()}
    written: set[str] = set()
    for name in names:
        mark = next((mark for mark in marks if name.endswith(mark)), name)
        files = RunFiles(folder, name.removesuffix(mark).strip("."))
        if name in (files.run_json.name, files.hidden.name):
            with suppress(ResumeError):  # run.json of another program
                written |= results_of(files, RunRecord.read(files.run_json, ResumeError))
                logs = (files.run_json, files.log, files.log_json, files.hidden)
                written |= {path.name for path in logs}
    return written & names


def missing_or_changed(files: RunFiles, record: RunRecord) -> list[str]:
    """Return the names of results that are not as run.json lists them.

    A result of the size that is listed, no younger than run.json, is taken as it was written; of
    any other the digest decides.
    """
    written_ns = files.run_json.stat().st_mtime_ns
    return [
        name
        for name, sha256 in record.outputs.items()
        if not _is_untouched(files.run_dir / name, record.output_bytes.get(name), written_ns)
        and _sha256(files.run_dir / name) != sha256
    ]


def _is_untouched(path: Path, size_bytes: int | None, written_ns: int) -> bool:
    try:
        status = path.stat()
    except OSError:
        return False
    return status.st_size == size_bytes and status.st_mtime_ns <= written_ns


def _sha256(path: Path) -> str:
    with suppress(OSError), path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()
    return ""


def _refuse_other_run(
    files: RunFiles, fingerprint: Mapping[str, str], *, resume: bool, again: bool
) -> str:
    """Raise ResumeError if the folder holds another run; return a note if it has nothing to lose.

    Without resume raises also if the folder holds an unfinished run, without again if a finished
    one.
    """
    record = RunRecord.read(files.run_json, ResumeError)
    unfinished, note = files.fingerprint.exists(), ""
    here = files.hidden / files.fingerprint.name
    options = {here: "-o", files.fingerprint: files.journal_option}
    earlier = [(read_json(path), option) for path, option in options.items() if path.exists()]
    earlier += [] if record is None else [(dict(record.fingerprint), "-o")]
    for of, option in earlier:
        if (other := difference(of, fingerprint)) is not None:
            if _has_work(files, record):
                refuse_other(of, fingerprint, files, option)
            what, before, now = other
            note = (
                f"an earlier run here, with another {what} ({before}; this run: {now}), finished "
                "no block; this run replaces it"
            )
    if record is not None:
        unfinished = not record.is_finished
        if record.is_finished and not again:
            raise ResumeError(
                f"{files.run_dir}: another process has just finished a run here; give the command "
                "again"
            )
    if note and not resume:
        raise ResumeError(
            f"{files.run_dir}: holds another run, which finished no block; leave out --no-resume "
            "to replace it, or choose another folder with -o"
        )
    if unfinished and not resume:
        raise ResumeError(
            f"{files.run_dir}: this folder already holds an unfinished run; go on with it without "
            "--no-resume, choose another with -o, or replace it with --force"
        )
    return note


def _has_work(files: RunFiles, record: RunRecord | None) -> bool:
    """Return whether an earlier run left a block, a result or a part, or may have elsewhere."""
    if files.journal is not None:
        return True
    if record is not None:
        elsewhere = record.settings.get("journal") is not None
        if record.is_finished or record.status == PART or record.outputs or elsewhere:
            return True
    return any(
        path.suffix in (f".{BLOCK}", f".{PROVISIONAL}")
        for path in files.hidden.glob(f"**/{files.blocks.name}/*")
    )


def _owner_of(files: RunFiles) -> str:
    """Return the name of these files' run in fingerprint.json."""
    return _HERE if files.journal is None else str(files.run_dir.resolve())


def _owner_there(files: RunFiles) -> str | None:
    """Return the owner of the blocks that are kept there; None without any."""
    if files.fingerprint.exists():
        return str(read_json(files.fingerprint).get("run_dir"))
    return "unknown" if any(files.blocks.glob("*")) else None


def _refuse_other_owner(files: RunFiles, force: bool) -> None:
    """Raise ResumeError if the blocks there are not for this run to take or to remove.

    A retry in a new run directory takes the blocks of the first attempt, but removes none unread.
    """
    owner, mine = _owner_there(files), _owner_of(files)
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


def refuse_foreign_files(files: RunFiles, force: bool) -> None:
    """Raise ResumeError if something lies where this run would write that no run has written."""
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
    record = RunRecord.read(files.run_json, ResumeError)
    marks = (files.hidden / LOCK, files.hidden / files.fingerprint.name)
    ours = record is not None or any(mark.exists() for mark in marks)
    known = results_of(files, record)
    known |= {files.log.name} if ours else set()
    # A run that was ended early may not have said in run.json that it writes this one.
    known |= {files.log_json.name} if (files.hidden / LOCK).exists() else set()
    known |= {files.run_json.name} if record is not None else set()
    # `virnucpro report` may have made one of an unfinished run.
    known |= {files.report.name} if ours and is_report(files.report) else set()
    for path in (*files.results, *files.public):
        if path.name not in known and os.path.lexists(path):
            raise _in_the_way(path)
    if force and not ours and files.run_dir.exists() and not _holds_a_run(files.run_dir):
        raise ResumeError(
            f"{files.run_dir}: holds files, but no run that --force could replace (there is no "
            f"{files.run_json.name}); leave it out, or choose another folder with -o"
        )


def _is_hidden_folder(folder: Path, files: RunFiles) -> bool:
    """Return whether a folder of that name is one of ours, empty or with our files."""
    ours = {LOCK, files.fingerprint.name, files.blocks.name, files.scratch.name, MANIFEST}
    ours |= {CALIBRATION, files.negatives.name}
    return folder.is_dir() and all(
        path.name in ours or path.name.startswith((".", f"{LOCK}.")) for path in folder.iterdir()
    )


def _holds_a_run(folder: Path) -> bool:
    """Return whether a folder is empty, or holds a run, of whatever prefix."""
    names = [path.name for path in folder.iterdir()]
    return not names or any(name.endswith(("run.json", ".virnucpro")) for name in names)


def _in_the_way(path: Path, option: str = "-o") -> ResumeError:
    return ResumeError(
        f"{path}: this is in the way, and no run here wrote it; move it, or choose another folder "
        f"with {option}"
    )


def _remove_tree(folder: Path) -> None:
    with suppress(FileNotFoundError):
        shutil.rmtree(folder)
