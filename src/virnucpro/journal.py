"""The run directory: what lies in it, whose it is, and how a file gets into it.

Nothing under a public name is ever half written. Blocks, and tables in the making, lie in a
hidden folder; a finished file is flushed to the disk and renamed into its place. A finished block
is a file there, and the only thing that a later process goes on from: it reads the input again and
takes a block for done where the file is whole and its digest is that of what was read. This module
knows no column and no score.
"""

import contextlib
import errno
import hashlib
import json
import os
import secrets
import shutil
import zlib
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from itertools import zip_longest
from pathlib import Path
from types import TracebackType
from typing import Any, Protocol

from virnucpro.batches import Block, Record
from virnucpro.errors import ResumeError, StreamBroken, VirnucproError
from virnucpro.lock import NAME as LOCK
from virnucpro.lock import Lock
from virnucpro.scored import Scored

RUN_SCHEMA_VERSION = 1
FINISHED = ("complete", "partial")

PACKED_SUFFIX = ".gz"
# Of zlib: the usual 6 takes four times as long, for tables that are a seventh smaller.
_PACKED_LEVEL = 1
_GZIP_FORM = 16 + zlib.MAX_WBITS  # a header without name and time: equal tables are equal files

_FULL = {errno.ENOSPC, errno.EDQUOT, errno.EFBIG}
_UNKNOWN = {errno.EINVAL, errno.ENOTSUP, errno.EOPNOTSUPP, errno.ENOSYS}
_FORBIDDEN = {errno.EACCES, errno.EPERM, errno.EROFS}


@contextlib.contextmanager
def disk_errors(folder: Path, option: str = "-o") -> Iterator[None]:
    """Turns what the disk refuses while something is written in a folder into one sentence.

    option: what the user names another folder with.
    """
    try:
        yield
    except OSError as error:
        if error.errno in _FULL:
            sentence = (
                f"{folder}: the disk is full; free some space, or choose another folder with "
                f"{option}, and run again"
            )
        elif error.errno in _FORBIDDEN:
            sentence = (
                f"{folder}: no permission to write here; choose another folder with {option}, or "
                "change the permissions of this one"
            )
        else:
            sentence = (
                f"{folder}: this folder cannot be written to ({error.strerror or error}); choose "
                f"another with {option}"
            )
        raise VirnucproError(sentence) from error


@dataclass(frozen=True, slots=True)
class RunFiles:
    """Every path of a run. prefix stands before each name, with a dot after it unless empty.

    journal: another folder for the finished blocks, by default the run directory. packed: whether
    the four tables are gzipped, which their names say too.
    """

    run_dir: Path
    prefix: str = ""
    journal: Path | None = None
    packed: bool = False

    def _public(self, name: str) -> Path:
        return self.run_dir / (f"{self.prefix}.{name}" if self.prefix else name)

    def _table(self, name: str) -> Path:
        return self._public(f"{name}{PACKED_SUFFIX}" if self.packed else name)

    @property
    def calls(self) -> Path:
        return self._table("calls.tsv")

    @property
    def contigs(self) -> Path:
        return self._table("contigs.tsv")

    @property
    def frame_scores(self) -> Path:
        return self._table("prediction_results.txt")

    @property
    def chunk_scores(self) -> Path:
        return self._table("prediction_results_highestscore.csv")

    @property
    def viral_fasta(self) -> Path:
        return self._public("viral.fasta")

    @property
    def failed(self) -> Path:
        return self._public("failed.tsv")

    @property
    def run_json(self) -> Path:
        return self._public("run.json")

    @property
    def log(self) -> Path:
        return self._public("log.txt")

    @property
    def report(self) -> Path:
        return self._public("report.html")

    @property
    def multiqc(self) -> Path:
        return self._public("virnucpro_mqc.json")

    @property
    def public(self) -> tuple[Path, ...]:
        """Every file that a user may find, in the order of docs/outputs.md."""
        tables = (self.calls, self.contigs, self.frame_scores, self.chunk_scores)
        seen = (self.report, self.multiqc)
        return (*tables, self.viral_fasta, self.failed, *seen, self.run_json, self.log)

    @property
    def results(self) -> tuple[Path, ...]:
        """What a run of these names may leave besides run.json and log.txt, in either form."""
        other = replace(self, packed=not self.packed)
        return tuple(dict.fromkeys((*self.public[:-2], *other.public[:-2])))

    @property
    def hidden(self) -> Path:
        return self._hidden(self.run_dir)

    @property
    def kept(self) -> Path:
        """Where the finished blocks lie, and what they are of; hidden unless journal is given."""
        return self._hidden(self.journal or self.run_dir)

    @property
    def journal_option(self) -> str:
        """What a user names the folder of the blocks with."""
        return "--journal" if self.journal else "-o"

    def _hidden(self, folder: Path) -> Path:
        return folder / (f".{self.prefix}.virnucpro" if self.prefix else ".virnucpro")

    @property
    def fingerprint(self) -> Path:
        return self.kept / "fingerprint.json"

    @property
    def blocks(self) -> Path:
        return self.kept / "blocks"

    @property
    def scratch(self) -> Path:
        """Where tables are put together and sorted; emptied when they are done."""
        return self.hidden / "scratch"

    def block(self, number: int) -> Path:
        return self.blocks / f"{number:09d}.block"


def write_atomic(
    path: Path, data: bytes, by_way_of: Path | None = None, option: str = "-o"
) -> None:
    """Puts a file into its place whole or not at all, also through a loss of power.

    by_way_of: a folder of the same file system for what a kill in between leaves behind; option: as
    in disk_errors.
    """
    name = f".{path.name}.{os.getpid()}.{secrets.token_hex(4)}"
    temporary = (by_way_of or path.parent) / name
    with disk_errors(path.parent, option):
        try:
            with temporary.open("xb") as file:
                file.write(data)
                file.flush()
                os.fsync(file.fileno())
            temporary.replace(path)
            _sync_folder(path.parent)
        finally:
            temporary.unlink(missing_ok=True)


def write_json(
    path: Path,
    document: Mapping[str, Any],
    by_way_of: Path | None = None,
    option: str = "-o",
) -> None:
    """Puts a JSON document into its place as write_atomic does."""
    data = (json.dumps(document, indent=2, allow_nan=False) + "\n").encode()
    write_atomic(path, data, by_way_of, option)


def _sync_folder(folder: Path) -> None:
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    except OSError as error:  # some file systems flush files alone
        if error.errno not in _UNKNOWN:
            raise
    finally:
        os.close(descriptor)


class OutputFile:
    """A new file, written from beginning to end; durable: also through a loss of power.

    Gzipped if its name says so. sha256: hex digest of a durable file, once it is closed.
    """

    def __init__(self, path: Path, durable: bool = True) -> None:
        self.path = path
        self.sha256 = ""
        self._durable = durable
        self._hash = hashlib.sha256()
        packed = path.suffix == PACKED_SUFFIX
        self._packer = zlib.compressobj(_PACKED_LEVEL, wbits=_GZIP_FORM) if packed else None
        with disk_errors(path.parent):
            self._file = path.open("xb")

    def write(self, data: bytes) -> None:
        """Appends; raises VirnucproError when the disk refuses."""
        self._append(self._packer.compress(data) if self._packer else data)

    def _append(self, data: bytes) -> None:
        with disk_errors(self.path.parent):
            self._file.write(data)
        if self._durable:
            self._hash.update(data)

    def close(self) -> None:
        """Flushes everything; raises VirnucproError when the disk refuses."""
        if self._packer:
            self._append(self._packer.flush())
        with disk_errors(self.path.parent):
            self._file.flush()
            if self._durable:
                os.fsync(self._file.fileno())
            self._file.close()
        self.sha256 = self._hash.hexdigest()

    def __enter__(self) -> "OutputFile":
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        if error is None:
            self.close()
        else:
            self.abandon()

    def abandon(self) -> None:
        """Closes a file that nobody will read; closing flushes, and the disk may still be full."""
        with contextlib.suppress(OSError):
            self._file.close()


class Staging:
    """Public files that are put together in the scratch folder and appear when all are finished.

    outputs: takes the sha256 of each by its name, then.
    """

    def __init__(self, files: RunFiles, outputs: dict[str, str]) -> None:
        self._files = files
        self._outputs = outputs
        self._staged: dict[Path, OutputFile] = {}

    def __enter__(self) -> "Staging":
        shutil.rmtree(self._files.scratch, ignore_errors=True)
        with disk_errors(self._files.run_dir):
            self._files.scratch.mkdir(parents=True)
        return self

    def open(self, target: Path, first_line: bytes = b"") -> OutputFile:
        """The file that will become target: a new one, or the one that this gave before."""
        if target not in self._staged:
            self._staged[target] = OutputFile(self._files.scratch / target.name)
            self._staged[target].write(first_line)
        return self._staged[target]

    def publish(self) -> None:
        """Flushes all files to the disk, then renames them one after the other."""
        for staged in self._staged.values():
            staged.close()
        with disk_errors(self._files.run_dir):
            for target, staged in self._staged.items():
                staged.path.replace(target)
                self._outputs[target.name] = staged.sha256
            _sync_folder(self._files.run_dir)

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        for staged in self._staged.values():
            staged.abandon()
        shutil.rmtree(self._files.scratch, ignore_errors=True)


class Onlooker(Protocol):
    """Whoever looks on while blocks are finished."""

    @property
    def broken(self) -> Sequence[StreamBroken]:
        """The inputs that have broken off so far."""

    def seen(self, scored: Scored, *, new: bool) -> None:
        """Of each block, when it is finished, or found to be from an earlier process."""

    def line(self, text: str) -> None:
        """One line for the log."""


class Journal:
    """The finished blocks of one run, which this process alone works on. For `with`.

    count: blocks of the input, as far as it was read; reused of them were there already, damaged
    of them had to be computed again. outputs: sha256 of the results by name, once they are there.
    notes: what a user should know of the folder.
    """

    def __init__(self, files: RunFiles) -> None:
        self.files = files
        self.count = self.reused = self.damaged = 0
        self.outputs: dict[str, str] = {}
        self.notes: list[str] = []
        self._locks: list[Lock] = []
        self._provisional_from: int | None = None

    @classmethod
    def open(
        cls,
        files: RunFiles,
        fingerprint: Mapping[str, str],
        *,
        resume: bool = True,
        force: bool = False,
        again: bool = False,
    ) -> "Journal":
        """Takes a folder for a run: a new or empty one, a foreign one, or one with this run.

        Blocks of an earlier process stay, its results go; files of other names are untouched.
        force: nothing of an earlier run stays. again: whether a finished run, which the caller has
        compared with this one, is to be made again. Raises ResumeError if the folder is in use,
        holds another run, an unfinished one without resume, or a file under a name that this run
        would write, and with force also if it holds something, but no run; VirnucproError if it
        cannot be written to.
        """
        journal = cls(files)
        with disk_errors(files.run_dir):
            _refuse_foreign_files(files, force)
            if not force:
                refuse_other_run(files, fingerprint)
        try:
            journal._lock()
            if not force:
                refuse_other_run(files, fingerprint, resume, again)
            journal._begin(fingerprint, force)
        except BaseException:
            journal.close()
            raise
        return journal

    def _lock(self) -> None:
        for folder, option in {self.files.hidden: "-o", self.files.kept: "--journal"}.items():
            with disk_errors(folder.parent, option if self.files.journal else "-o"):
                self._locks.append(Lock(folder))
            self.notes += self._locks[-1].notes

    def _begin(self, fingerprint: Mapping[str, str], force: bool) -> None:
        files = self.files
        with disk_errors(files.run_dir):
            # It goes first: where it says complete, every table is there. The folder is known as
            # ours by its lock, from here on.
            for path in (files.run_json, *files.results, *([files.log] if force else [])):
                path.unlink(missing_ok=True)
        with disk_errors(files.kept.parent, files.journal_option):
            if force:
                shutil.rmtree(files.blocks, ignore_errors=True)
            write_json(files.fingerprint, fingerprint, option=files.journal_option)
            files.blocks.mkdir(exist_ok=True)
            self._sweep()

    def _sweep(self) -> None:
        """Removes what a kill has left of write_atomic."""
        for folder in {self.files.hidden, self.files.kept, self.files.blocks}:
            for path in folder.glob(".*"):
                path.unlink()

    def unfinished(self, blocks: Iterable[Block], onlooker: Onlooker) -> Iterator[Block]:
        """The blocks that no earlier process finished.

        Raises ResumeError, naming the first record that differs, if an earlier process read another
        input.
        """
        for block in blocks:
            if self._provisional_from is None and onlooker.broken:
                self._provisional_from = block.number
            self.count = block.number + 1
            scored = self._found(block, onlooker)
            if scored is None:
                yield block
            else:
                self.reused += 1
                onlooker.seen(scored, new=False)
        if not onlooker.broken:
            self._refuse_more()

    def _found(self, block: Block, onlooker: Onlooker) -> Scored | None:
        """What an earlier process kept of this block."""
        path = self.files.block(block.number)
        if not path.exists():
            return None
        try:
            scored = Scored.from_file(path, block.number)
        except ResumeError as error:
            self.damaged += 1
            onlooker.line(f"{error}; it is computed again")
            return None
        if scored.digest != block.digest:
            if scored.provisional or self._is_provisional(block.number):
                return None
            raise self._other_input(_first_difference(scored.records, block.records))
        if (scored.records, scored.provisional) != (
            block.records,
            self._is_provisional(block.number),
        ):
            # Samples may have other names; an input that had broken off may be whole now.
            scored = replace(scored, records=block.records)
            self._keep(scored)
        return scored

    def _refuse_more(self) -> None:
        """Raises ResumeError if an earlier process read more than this one."""
        for path in sorted(self.files.blocks.glob("*.block")):
            if path.stem.isdecimal() and int(path.stem) >= self.count:
                try:
                    scored = Scored.from_file(path, int(path.stem))
                except ResumeError:  # a damaged one says nothing
                    continue
                if not scored.provisional:
                    raise self._other_input(_first_difference(scored.records, ()))

    def _other_input(self, difference: str) -> ResumeError:
        return ResumeError(
            f"{self.files.kept.parent}: the unfinished run here read another input: {difference}; "
            "choose another folder, or start over with --force"
        )

    def _is_provisional(self, number: int) -> bool:
        return self._provisional_from is not None and number >= self._provisional_from

    def commit(self, scored: Scored) -> None:
        """Keeps a finished block, whole or not at all."""
        self._keep(scored)
        self.count = max(self.count, scored.block_number + 1)

    def _keep(self, scored: Scored) -> None:
        marked = replace(scored, provisional=self._is_provisional(scored.block_number))
        path = self.files.block(scored.block_number)
        write_atomic(path, marked.to_bytes(), option=self.files.journal_option)

    def scored(self) -> Iterator[Scored]:
        """The finished blocks in their order, one at a time.

        Raises ResumeError if one is missing or damaged.
        """
        for number in range(self.count):
            yield Scored.from_file(self.files.block(number), number)

    def write_run_json(self, document: Mapping[str, Any]) -> None:
        """Puts run.json into its place, after everything that it speaks of."""
        write_json(self.files.run_json, document, self.files.hidden)

    def finished(self, keep_blocks: bool = False) -> None:
        """Removes the hidden folder, once everything public is in its place."""
        files = self.files
        with disk_errors(files.run_dir):
            shutil.rmtree(files.scratch, ignore_errors=True)
            if not keep_blocks:
                shutil.rmtree(files.blocks, ignore_errors=True)
                files.fingerprint.unlink(missing_ok=True)
            self._sweep()
            for lock in self._locks:
                lock.remove()

    def close(self) -> None:
        """Lets others in."""
        for lock in self._locks:
            lock.release()

    def __enter__(self) -> "Journal":
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.close()


def read_run_json(files: RunFiles) -> dict[str, Any] | None:
    """run.json, if it is there. Raises ResumeError if it is not one of ours."""
    if not files.run_json.exists():
        return None
    document = _json(files.run_json)
    if not {"schema_version", "fingerprint"} <= document.keys():
        raise ResumeError(
            f"{files.run_json}: this was not written by virnucpro, so nothing here is replaced; "
            "choose another folder with -o"
        )
    return document


def missing_or_changed(files: RunFiles, document: Mapping[str, Any]) -> list[str]:
    """The results that are not there as run.json lists them, by name."""
    outputs = document.get("outputs") or {}
    return [name for name, sha256 in outputs.items() if _sha256(files.run_dir / name) != sha256]


def _sha256(path: Path) -> str:
    with contextlib.suppress(OSError), path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()
    return ""


def _first_difference(old: Iterable[Record], new: Iterable[Record]) -> str:
    """The first record of a block that is not the same as before, in words."""
    for before, now in zip_longest(old, new):
        if before is None:
            return f"{_named(now)} was not in it"
        if now is None:
            return f"{_named(before)} was in it"
        if before.name != now.name or before.record != now.record:
            return f"{_named(now)} was {_named(before)} there"
        if before.length_nt != now.length_nt:
            return f"{_named(now)} has {now.length_nt:,} nt now, and had {before.length_nt:,}"
        if replace(before, sample=now.sample) != now:
            break
    return f"{_named(now)} had other letters"


def _named(record: Record) -> str:
    return f"record {record.record} ({record.name}) of sample {record.sample}"


def refuse_other_run(
    files: RunFiles, fingerprint: Mapping[str, str], resume: bool = True, again: bool = True
) -> None:
    """Raises ResumeError if the folder holds another run.

    Without resume also if it holds an unfinished one, without again if a finished one.
    """
    document = read_run_json(files)
    unfinished = files.fingerprint.exists()
    found = [_json(files.fingerprint)] if unfinished else []
    if document is not None:
        found.append({**document["fingerprint"]})
        unfinished = document.get("status") not in FINISHED
    for there in found:
        for field in fingerprint:
            if there.get(field) != fingerprint[field]:
                raise ResumeError(
                    f"{files.run_dir}: this folder holds another run, with another {field} "
                    f"({there.get(field, 'unknown')}; this run: {fingerprint[field]}); choose "
                    "another with -o, or replace it with --force"
                )
    if document is not None and not unfinished and not again:
        raise ResumeError(
            f"{files.run_dir}: another process has just finished a run here; give the command again"
        )
    if unfinished and not resume:
        raise ResumeError(
            f"{files.run_dir}: this folder already holds an unfinished run; go on with it without "
            "--no-resume, choose another with -o, or replace it with --force"
        )


def _refuse_foreign_files(files: RunFiles, force: bool) -> None:
    """Raises ResumeError if the folder is none, or something lies where this run would write."""
    for folder in (files.run_dir, files.journal or files.run_dir):
        if os.path.lexists(folder) and not folder.is_dir():
            option = "-o" if folder == files.run_dir else "--journal"
            raise ResumeError(f"{folder}: this is a file; choose a folder with {option}")
    for folder in (files.hidden, files.kept):
        if os.path.lexists(folder) and not _is_hidden_folder(folder, files):
            raise _in_the_way(folder, files)
    marks = (files.hidden / LOCK, files.hidden / files.fingerprint.name)
    if read_run_json(files) is not None or any(mark.exists() for mark in marks):
        return
    for path in (*files.results, *files.public):
        if os.path.lexists(path):
            raise _in_the_way(path, files)
    if force and files.run_dir.exists() and not _holds_a_run(files.run_dir):
        raise ResumeError(
            f"{files.run_dir}: holds files, but no run that --force could replace (there is no "
            f"{files.run_json.name}); leave it out, or choose another folder with -o"
        )


def _is_hidden_folder(folder: Path, files: RunFiles) -> bool:
    """Whether a folder of that name is one of ours: it is empty, or holds what we put there."""
    ours = {LOCK, files.fingerprint.name, files.blocks.name, files.scratch.name}
    return folder.is_dir() and all(
        path.name in ours or path.name.startswith((".", f"{LOCK}.")) for path in folder.iterdir()
    )


def _holds_a_run(folder: Path) -> bool:
    """Whether a folder is empty, or holds a run, of whatever prefix."""
    names = [path.name for path in folder.iterdir()]
    return not names or any(name.endswith(("run.json", ".virnucpro")) for name in names)


def _in_the_way(path: Path, files: RunFiles) -> ResumeError:
    return ResumeError(
        f"{path}: this is in the way and belongs to no run (there is no {files.run_json.name} "
        "beside it); move it, or choose another folder with -o"
    )


def clear_leftovers(files: RunFiles) -> None:
    """Removes the hidden folder of a finished run that was killed at its very end."""
    if files.hidden.exists() or files.kept.exists():
        with Journal(files) as journal:
            journal._lock()
            journal.finished()


def _json(path: Path) -> dict[str, Any]:
    try:
        return {**json.loads(path.read_bytes())}
    except (TypeError, ValueError) as error:  # no JSON, or not an object
        raise ResumeError(
            f"{path}: this file of an earlier run is damaged; choose another folder with -o"
        ) from error
