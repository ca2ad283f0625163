"""The finished blocks of a run, which a later process goes on from.

A finished block is a file in a hidden folder of the run directory. A later process reads the input
again and takes a block for done where the file is whole and its digest is that of what was read.
Nothing under a public name is ever half written: a finished file is flushed to the disk and renamed
into its place. This module knows no column and no score.
"""

import hashlib
import json
import shutil
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import suppress
from dataclasses import replace
from pathlib import Path
from typing import Any, Protocol, Self

from virnucpro.batches import Block
from virnucpro.calls import Embeddings
from virnucpro.errors import BlockError, ResumeError
from virnucpro.lock import Lock
from virnucpro.ownership import (
    claim,
    owner_of,
    owner_there,
    put_aside_edited,
    refuse_foreign_files,
    refuse_other_owner,
    refuse_other_run,
    results_written,
)
from virnucpro.rereading import before_break, difference, first_difference
from virnucpro.run_directory import RunFiles, read_json, read_run_json
from virnucpro.scored import Scored, embeddings_from_file, embeddings_to_bytes
from virnucpro.writing import disk_errors, remove_leftovers, write_atomic, write_json


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
    ) -> Self:
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
            refuse_foreign_files(files, force)
            refuse_other_owner(files, force)
            if not force:
                refuse_other_run(files, fingerprint)
        try:
            journal._lock()
            refuse_other_owner(files, force)
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
            self._clear_results(self.notes.append)
            with disk_errors(files.run_dir):
                files.log.unlink(missing_ok=True)
        if log_json:
            self._logs = {files.log_json.name}
            claim(files, self._logs)
        with disk_errors(files.kept.parent, files.journal_option):
            if force:
                _remove_tree(files.blocks)
            if force or not files.fingerprint.exists():
                self._own(fingerprint)
            files.blocks.mkdir(exist_ok=True)
            self._sweep()

    def _sweep(self) -> None:
        """Removes what a kill has left of files that were being written."""
        for folder in {self.files.hidden, self.files.kept, self.files.blocks}:
            remove_leftovers(folder)

    def _own(self, fingerprint: Mapping[str, Any]) -> None:
        document = {**fingerprint, "run_dir": owner_of(self.files)}
        write_json(self.files.fingerprint, document, option=self.files.journal_option)

    def _clear_results(self, say: Callable[[str], None]) -> None:
        """Removes what earlier processes have put under public names, but for the log.

        say: takes a line on each result that somebody has edited, which stays under another name.
        """
        self._check_locks()
        self.compared = True
        files, document = self.files, read_run_json(self.files)
        names = results_written(files, document) - self._logs
        claim(files, names)
        with disk_errors(files.run_dir):
            # It goes first: where it says complete, every table is there.
            if document is not None:
                for line in put_aside_edited(files, document):
                    say(line)
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
            there = read_json(self.files.fingerprint)
            if there.get("run_dir") != owner_of(self.files):  # a retry in a new folder
                self._own(there)
        if not self.compared:
            self._clear_results(onlooker.line)

    def _found(self, block: Block, onlooker: Onlooker) -> Scored | None:
        """What an earlier process kept of this block."""
        path = self.files.block(block.number)
        if not path.exists():
            return None
        unbroken = self._unbroken_of(block.number)
        try:
            scored = Scored.from_file(path, block.number, self._fingerprint)
            if words := difference(scored, block, unbroken):
                raise self._other_input(words)
            if scored.digest != block.digest:  # one of them broke off
                return None
            if self._with_embeddings:
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
                if before := before_break(scored.records, scored.unbroken):
                    raise self._other_input(first_difference(before, ()))

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

    def write_run_json(self, document: Mapping[str, Any], onlooker: Onlooker) -> None:
        """Puts run.json into its place, after everything that it speaks of."""
        if not self.compared:
            self._clear_results(onlooker.line)
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

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()


def _sha256_of(fingerprint: Mapping[str, str]) -> str:
    return hashlib.sha256(json.dumps(fingerprint, sort_keys=True).encode()).hexdigest()


def _remove_tree(folder: Path) -> None:
    with suppress(FileNotFoundError):
        shutil.rmtree(folder)


def clear_leftovers(files: RunFiles) -> None:
    """Removes the hidden folder of a finished run that was killed at its very end.

    Blocks of another run, in a folder that several share, stay.
    """
    mine = [f for f in (replace(files, journal=None), files) if f.kept.exists()]
    for each in dict.fromkeys(mine):
        if owner_there(each) in (None, owner_of(each)):
            with Journal(each) as journal:
                journal._lock()
                journal.finished()
