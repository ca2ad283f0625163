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
import re
import shutil
import zlib
from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from itertools import zip_longest
from pathlib import Path
from types import TracebackType
from typing import Any, Protocol

from virnucpro import atomic
from virnucpro.batches import Block, Record
from virnucpro.calls import Embeddings
from virnucpro.errors import BlockError, ResumeError, VirnucproError
from virnucpro.lock import NAME as LOCK
from virnucpro.lock import Lock
from virnucpro.scored import Scored, embeddings_from_file, embeddings_to_bytes

RUN_SCHEMA_VERSION = 1
FINISHED = ("complete", "partial")

PACKED_SUFFIX = ".gz"
# Of zlib: the usual 6 takes four times as long, for tables that are a seventh smaller.
_PACKED_LEVEL = 1
_GZIP_FORM = 16 + zlib.MAX_WBITS  # a header without name and time: equal tables are equal files

# Of write_atomic: the name of the file, the process, and chance.
_TEMPORARY = re.compile(r"\..+\.\d+\.[0-9a-f]{8}")
# What fingerprint.json says of blocks that lie in the run directory itself, wherever it is moved.
_HERE = "."

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
    the tables are gzipped, which their names say too.
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
    def pairs(self) -> Path:
        return self._table("pairs.tsv")

    @property
    def viral_names(self) -> Path:
        return self._public("viral_names.txt")

    @property
    def others_fasta(self) -> Path:
        return self._public("others.fasta")

    @property
    def calls_parquet(self) -> Path:
        return self._public("calls.parquet")

    @property
    def contigs_parquet(self) -> Path:
        return self._public("contigs.parquet")

    @property
    def embeddings(self) -> Path:
        return self._public("embeddings.parquet")

    @property
    def regions(self) -> Path:
        return self._public("regions.tsv")

    @property
    def regions_bed(self) -> Path:
        return self._public("regions.bed")

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
    def log_json(self) -> Path:
        return self._public("log.jsonl")

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
        regions = (self.pairs, self.regions, self.regions_bed)
        sequences = (self.viral_fasta, self.viral_names, self.others_fasta)
        parquet = (self.calls_parquet, self.contigs_parquet, self.embeddings)
        seen = (self.failed, self.report, self.multiqc, self.run_json)
        return (*tables, *regions, *sequences, *parquet, *seen, self.log, self.log_json)

    @property
    def results(self) -> tuple[Path, ...]:
        """What a run of these names may leave besides run.json and log.txt, in either form."""
        both = (*self.public, *replace(self, packed=not self.packed).public)
        return tuple(dict.fromkeys(p for p in both if p not in (self.run_json, self.log)))

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
    def written(self) -> Path:
        """The public names that runs here have written under, for when there is no run.json."""
        return self.hidden / "written.json"

    @property
    def scratch(self) -> Path:
        """Where tables are put together and sorted; emptied when they are done."""
        return self.hidden / "scratch"

    def block(self, number: int) -> Path:
        return self.blocks / f"{number:09d}.block"

    def block_embeddings(self, number: int) -> Path:
        return self.blocks / f"{number:09d}.embeddings"


def write_atomic(
    path: Path, data: bytes, by_way_of: Path | None = None, option: str = "-o"
) -> None:
    """Puts a file into its place whole or not at all, also through a loss of power.

    by_way_of: a folder of the same file system for what a kill in between leaves behind; option: as
    in disk_errors.
    """
    with disk_errors(path.parent, option):
        atomic.write_atomic(path, data, by_way_of)
        _sync_folder(path.parent)


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
        _claim(self._files, [target.name for target in self._staged])
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
    def unbroken(self) -> int | None:
        """The records that came before the first input that broke off; None while none has."""

    def seen(self, scored: Scored, *, new: bool) -> None:
        """Of each block, when it is finished, or found to be from an earlier process."""

    def line(self, text: str) -> None:
        """One line for the log."""


class Journal:
    """The finished blocks of one run, which this process alone works on. For `with`.

    count: blocks of the input, as far as it was read; reused of them were there already, damaged
    of them had to be computed again. outputs: sha256 of the results by name, once they are there.
    with_embeddings: whether a block counts as finished only with those of its frames. compared:
    whether all that is kept here is known to be of this input; the results of an earlier
    process stay until then. notes: what a user should know of the folder.
    """

    def __init__(self, files: RunFiles, with_embeddings: bool = False) -> None:
        self.files = files
        self._with_embeddings = with_embeddings
        self._logs: set[str] = set()  # names of this process, besides log.txt
        self.count = self.reused = self.damaged = 0
        self.outputs: dict[str, str] = {}
        self.compared = False
        self.notes: list[str] = []
        self._locks: list[Lock] = []
        self._fingerprint = ""
        self._provisional_from: int | None = None
        self._unbroken: int | None = None

    @classmethod
    def open(
        cls,
        files: RunFiles,
        fingerprint: Mapping[str, str],
        *,
        resume: bool = True,
        force: bool = False,
        again: bool = False,
        with_embeddings: bool = False,
        log_json: bool = False,
    ) -> "Journal":
        """Takes a folder for a run: a new or empty one, a foreign one, or one with this run.

        Blocks of an earlier process stay; files that no run here wrote are untouched. force:
        nothing of an earlier run stays. again: whether a finished run, which the caller has
        compared with this one, is to be made again. log_json: whether log.jsonl is going to be
        written; one of an earlier process goes with its results if not.

        Raises ResumeError if the folder is in use, holds another run, an unfinished one without
        resume, or a file under a name that this run would write, and with force also if it holds
        something, but no run, or blocks of a run that has another folder; VirnucproError if it
        cannot be written to.
        """
        journal = cls(files, with_embeddings)
        with disk_errors(files.run_dir):
            _refuse_foreign_files(files, force)
            _refuse_other_owner(files, force)
            if not force:
                refuse_other_run(files, fingerprint)
        try:
            journal._lock()
            _refuse_other_owner(files, force)
            if not force:
                refuse_other_run(files, fingerprint, resume, again)
            journal._begin(fingerprint, force, log_json)
        except BaseException:
            journal.close()
            raise
        return journal

    def _lock(self) -> None:
        for folder, option in {self.files.hidden: "-o", self.files.kept: "--journal"}.items():
            with disk_errors(folder.parent, option if self.files.journal else "-o"):
                self._locks.append(Lock(folder))
            self.notes += self._locks[-1].notes

    def _check_locks(self) -> None:
        for lock in self._locks:
            lock.check()

    def _begin(self, fingerprint: Mapping[str, str], force: bool, log_json: bool) -> None:
        files = self.files
        self._fingerprint = _sha256_of(fingerprint)
        if force:
            self._clear_results()
            with disk_errors(files.run_dir):
                files.log.unlink(missing_ok=True)
        if log_json:
            self._logs = {files.log_json.name}
            _claim(files, self._logs)
        with disk_errors(files.kept.parent, files.journal_option):
            if force:
                _remove_tree(files.blocks)
            if force or not files.fingerprint.exists():
                self._own(fingerprint)
            files.blocks.mkdir(exist_ok=True)
            self._sweep()

    def _sweep(self) -> None:
        """Removes what a kill has left of write_atomic."""
        for folder in {self.files.hidden, self.files.kept, self.files.blocks}:
            for path in folder.glob(".*"):
                if _TEMPORARY.fullmatch(path.name):
                    path.unlink()

    def _own(self, fingerprint: Mapping[str, Any]) -> None:
        document = {**fingerprint, "run_dir": _owner(self.files)}
        write_json(self.files.fingerprint, document, option=self.files.journal_option)

    def _clear_results(self) -> None:
        """Removes what earlier processes have put under public names, but for the log."""
        self._check_locks()
        self.compared = True
        files, document = self.files, read_run_json(self.files)
        names = _written(files, document) - self._logs
        _claim(files, names)
        with disk_errors(files.run_dir):
            # It goes first: where it says complete, every table is there.
            if document is not None:
                files.run_json.unlink()
            for name in names:
                (files.run_dir / name).unlink(missing_ok=True)
        self.outputs.clear()

    def unfinished(self, blocks: Iterable[Block], onlooker: Onlooker) -> Iterator[Block]:
        """The blocks that no earlier process finished.

        Raises ResumeError, naming the first record that differs, if an earlier process read another
        input.
        """
        self.count = self.reused = 0
        self._provisional_from = self._unbroken = None
        for block in blocks:
            if self._provisional_from is None and onlooker.unbroken is not None:
                self._provisional_from, self._unbroken = block.number, onlooker.unbroken
            self.count = block.number + 1
            scored = self._found(block, onlooker)
            if scored is None:
                yield block
            else:
                self.reused += 1
                onlooker.seen(scored, new=False)
        if onlooker.unbroken is None:
            self._refuse_more()
            there = _json(self.files.fingerprint)
            if there.get("run_dir") != _owner(self.files):  # a retry in a new folder
                self._own(there)
        if not self.compared:
            self._clear_results()

    def _found(self, block: Block, onlooker: Onlooker) -> Scored | None:
        """What an earlier process kept of this block."""
        path = self.files.block(block.number)
        if not path.exists():
            return None
        try:
            scored = Scored.from_file(path, block.number, self._fingerprint)
        except BlockError as error:
            self.damaged += 1
            onlooker.line(f"{error}; it is computed again")
            return None
        unbroken = self._unbroken_of(block.number)
        if scored.digest != block.digest:
            was, now = _before(scored.records, scored.unbroken), _before(block.records, unbroken)
            ends = len(was), len(now)
            if scored.unbroken is not None:  # it says nothing of what came behind
                now = now[: ends[0]]
            if unbroken is not None:
                was = was[: ends[1]]
            if scored.unbroken is unbroken is None or not _same(was, now):
                raise self._other_input(_first_difference(was, now))
            return None
        if self._with_embeddings:
            try:
                self.embeddings(scored)
            except BlockError as error:
                self.damaged += 1
                onlooker.line(f"{error}; it is computed again")
                return None
        if (scored.records, scored.unbroken) != (block.records, unbroken):
            # Samples may have other names; an input that had broken off may be whole now.
            scored = replace(scored, records=block.records)
            self._keep(scored)
        return scored

    def _refuse_more(self) -> None:
        """Raises ResumeError if an earlier process read more than this one."""
        for path in sorted(self.files.blocks.glob("*.block")):
            if path.stem.isdecimal() and int(path.stem) >= self.count:
                try:
                    scored = Scored.from_file(path, int(path.stem), self._fingerprint)
                except BlockError:  # a damaged one says nothing
                    continue
                if before := _before(scored.records, scored.unbroken):
                    raise self._other_input(_first_difference(before, ()))

    def _other_input(self, difference: str) -> ResumeError:
        return ResumeError(
            f"{self.files.kept.parent}: the unfinished run here read another input: {difference}; "
            "choose another folder, or start over with --force"
        )

    def _unbroken_of(self, number: int) -> int | None:
        """What Scored.unbroken is of a block of this process."""
        first = self._provisional_from
        return None if first is None or number < first else self._unbroken

    def commit(self, scored: Scored) -> None:
        """Keeps a finished block, whole or not at all."""
        self._keep(scored)
        self.count = max(self.count, scored.block_number + 1)

    def _keep(self, scored: Scored) -> None:
        self._check_locks()
        unbroken = self._unbroken_of(scored.block_number)
        marked = replace(scored, unbroken=unbroken, fingerprint=self._fingerprint)
        option = self.files.journal_option
        if scored.scores.embeddings is not None:  # before the block, which says that they are there
            data = embeddings_to_bytes(marked, scored.scores.embeddings)
            path = self.files.block_embeddings(scored.block_number)
            write_atomic(path, data, option=option)
        write_atomic(self.files.block(scored.block_number), marked.to_bytes(), option=option)

    def scored(self) -> Iterator[Scored]:
        """The finished blocks in their order, one at a time.

        Raises BlockError if one is missing or damaged.
        """
        for number in range(self.count):
            yield Scored.from_file(self.files.block(number), number, self._fingerprint)

    def embeddings(self, scored: Scored) -> Embeddings | None:
        """Those of the frames of a finished block; None where it has no frame.

        Raises BlockError where they are missing or damaged.
        """
        if not len(scored.scores.frame):
            return None
        return embeddings_from_file(self.files.block_embeddings(scored.block_number), scored)

    def write_run_json(self, document: Mapping[str, Any]) -> None:
        """Puts run.json into its place, after everything that it speaks of."""
        if not self.compared:
            self._clear_results()
        self._check_locks()
        write_json(self.files.run_json, document, self.files.hidden)

    def finished(self, keep_blocks: bool = False) -> None:
        """Removes the hidden folder, once everything public is in its place."""
        self._check_locks()
        files = self.files
        with disk_errors(files.run_dir):
            _remove_tree(files.scratch)
            if not keep_blocks:
                files.written.unlink(missing_ok=True)
                _remove_tree(files.blocks)
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
    with disk_errors(files.run_dir):
        if not files.run_json.exists():
            return None
    document = _json(files.run_json)
    kinds = {"fingerprint": dict, "outputs": dict, "settings": dict, "inputs": list}
    if (
        "schema_version" not in document
        or not all(isinstance(document.get(name, kind()), kind) for name, kind in kinds.items())
        or "fingerprint" not in document
    ):
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


def _sha256_of(fingerprint: Mapping[str, str]) -> str:
    return hashlib.sha256(json.dumps(fingerprint, sort_keys=True).encode()).hexdigest()


def _remove_tree(folder: Path) -> None:
    with contextlib.suppress(FileNotFoundError):
        shutil.rmtree(folder)


def _before(records: Sequence[Record], unbroken: int | None) -> Sequence[Record]:
    """The records that came before an input that broke off."""
    return [r for r in records if unbroken is None or r.ordinal < unbroken]


def _same(old: Sequence[Record], new: Sequence[Record]) -> bool:
    """Whether these are the same records, whatever their samples are called."""
    return len(old) == len(new) and all(
        replace(was, sample=now.sample) == now for was, now in zip(old, new, strict=True)
    )


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
    if unfinished:
        there = _json(files.fingerprint)
        refuse_other_fingerprint(there, fingerprint, files.kept.parent, files.journal_option)
    if document is not None:
        refuse_other_fingerprint(document["fingerprint"], fingerprint, files.run_dir)
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
    there: Mapping[str, Any], fingerprint: Mapping[str, str], folder: Path, option: str = "-o"
) -> None:
    """Raises ResumeError, naming the first field that differs, if a folder's run has another.

    option: what a user names the folder with.
    """
    for field in fingerprint:
        if there.get(field) != fingerprint[field]:
            raise ResumeError(
                f"{folder}: this folder holds another run, with another {field} "
                f"({there.get(field, 'unknown')}; this run: {fingerprint[field]}); choose another "
                f"with {option}{', or replace it with --force' if option == '-o' else ''}"
            )


def _owner(files: RunFiles) -> str:
    """What fingerprint.json calls the run of these files."""
    return _HERE if files.journal is None else str(files.run_dir.resolve())


def _owner_there(files: RunFiles) -> str | None:
    """Whose the blocks are that are kept there, if anybody's."""
    if files.fingerprint.exists():
        return str(_json(files.fingerprint).get("run_dir"))
    return "unknown" if any(files.blocks.glob("*")) else None


def _refuse_other_owner(files: RunFiles, force: bool) -> None:
    """Raises ResumeError if the blocks there are not for this run to take or to remove.

    A retry in a new run directory takes those of the first attempt, but removes none unread.
    """
    owner, mine = _owner_there(files), _owner(files)
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


def _written(files: RunFiles, document: Mapping[str, Any] | None) -> set[str]:
    """The names of results that runs here wrote under; document: run.json."""
    names = {path.name for path in files.results}
    found = set(_json(files.written)["names"]) if files.written.exists() else set()
    if document is not None and document.get("outputs"):
        found |= {*document["outputs"], files.report.name, files.multiqc.name}
    if document is not None and document.get("settings", {}).get("log_json"):
        found.add(files.log_json.name)
    return names & found


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
            with contextlib.suppress(ResumeError):  # run.json of another program
                found |= _written(files, read_run_json(files))
                found |= {path.name for path in (*files.public[-3:], files.hidden)}
    return found & there


def _claim(files: RunFiles, names: Collection[str]) -> None:
    """Notes down names before a run writes under them, or forgets that it did."""
    names = {*names, files.report.name, files.multiqc.name} if names else set()
    there = set(_json(files.written)["names"]) if files.written.exists() else set()
    if not names <= there:
        write_json(files.written, {"names": sorted(names | there)})


def _refuse_foreign_files(files: RunFiles, force: bool) -> None:
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
    known = _written(files, document)
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


def clear_leftovers(files: RunFiles) -> None:
    """Removes the hidden folder of a finished run that was killed at its very end.

    Blocks of another run, in a folder that several share, stay.
    """
    mine = [f for f in (replace(files, journal=None), files) if f.kept.exists()]
    for each in dict.fromkeys(mine):
        if _owner_there(each) in (None, _owner(each)):
            with Journal(each) as journal:
                journal._lock()
                journal.finished()


def _json(path: Path) -> dict[str, Any]:
    try:
        return {**json.loads(path.read_bytes())}
    except (OSError, TypeError, ValueError) as error:  # no file, no JSON, or not an object
        raise ResumeError(
            f"{path}: this file of an earlier run is damaged; choose another folder with -o"
        ) from error
