"""Finished blocks of a run on disk, which a later process goes on from.

A later process reads the input again and takes a block as finished if its file is whole and its
digest is that of what was read. A block is written to a temporary file, flushed and renamed, so it
is there whole or not at all. Blocks that lie behind an input that broke off are provisional: this
run's tables use them, and the next process removes them, since the input may be whole by then.

This module knows no column and no score, and does not know whose folder it works in.
"""

import hashlib
import json
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import replace
from itertools import zip_longest
from pathlib import Path
from typing import Protocol

from virnucpro.blocks import Block, Scored
from virnucpro.calls import Embeddings
from virnucpro.errors import BlockError, OtherRun
from virnucpro.records import Record
from virnucpro.results.files import BLOCK, PROVISIONAL, RunFiles
from virnucpro.results.record import BlockCounts
from virnucpro.run.block_file import embeddings_to_bytes, read_block, read_embeddings, to_bytes
from virnucpro.run.settings import Part
from virnucpro.storage.atomic import write_atomic


class Watcher(Protocol):
    """A watcher of a run, which sees every block."""

    def line(self, text: str) -> None:
        """Take one line of the log."""

    def advance(self, scored: Scored, *, new: bool) -> None:
        """Take a finished block; new: finished by this process."""

    def within(self, chunks: float) -> None:
        """Take how many chunks of blocks that are not finished are scored."""

    def skip(self, block: Block) -> None:
        """Take a block that belongs to another part."""


class Journal:
    """The blocks of one run, in a folder that this process alone works in.

    counts: of blocks, as far as the input was read. compared: whether the whole input was found to
    be that of the finished blocks.
    """

    def __init__(
        self,
        files: RunFiles,
        fingerprint: Mapping[str, str],
        *,
        part: Part | None = None,
        embeddings: bool = False,
        check: Callable[[], None] = lambda: None,
    ) -> None:
        """Open the journal of a run.

        part: of the blocks; None: all. embeddings: whether a block counts as finished only with
        those of its frames. check: raises ResumeError if the folder is not ours any more; called
        before each write.
        """
        self._files = files
        self._fingerprint = sha256_of(fingerprint)
        self._part = part
        self._embeddings = embeddings
        self._check = check
        self._total = self._reused = self._damaged = 0
        self._provisional_from: int | None = None
        self._new: set[int] = set()
        self.compared = False

    @property
    def counts(self) -> BlockCounts:
        """Counts of blocks so far."""
        return BlockCounts(total=self._total, reused=self._reused, damaged=self._damaged)

    @property
    def kept_blocks(self) -> int:
        """The number of blocks on disk, whether or not they fit."""
        return self._files.finished_blocks

    def unfinished(
        self,
        blocks: Iterable[Block],
        broken: Sequence[object],
        watcher: Watcher,
    ) -> Iterator[Block]:
        """Yield the blocks of this part that no earlier process has finished.

        broken: holds something once an input has broken off. Raises OtherRun, naming the first
        record that differs, if the finished blocks are of another input.
        """
        self._total = self._reused = 0
        self._provisional_from = None
        for block in blocks:
            if broken and self._provisional_from is None:
                self._provisional_from = block.number
            self._total = block.number + 1
            if self._part is not None and not self._part.has(block.number):
                watcher.skip(block)
            elif (scored := self._finished(block, watcher.line)) is None:
                yield block
            else:
                self._reused += block.number not in self._new
                watcher.advance(scored, new=False)
        if not broken:
            self._refuse_more()
        self.compared = True

    def _finished(self, block: Block, say: Callable[[str], None]) -> Scored | None:
        """Return a block as an earlier process kept it."""
        path = self._files.block(block.number)
        if not path.exists() or self._is_provisional(block.number):
            return None
        try:
            scored = read_block(path, block.number, self._fingerprint)
            if scored.digest != block.digest:
                raise self._other_input(first_difference(scored.records, block.records))
            if self._embeddings:
                self.embeddings(scored)
        except BlockError as error:
            self._damaged += 1
            say(f"{error}; it is computed again")
            return None
        if scored.records != block.records:  # samples may have other names
            scored = replace(scored, records=block.records)
            self._write(scored)
        return scored

    def _refuse_more(self) -> None:
        """Raise OtherRun if an earlier process read more than this one."""
        for path in sorted(self._files.blocks.glob(f"*.{BLOCK}")):
            if path.stem.isdecimal() and int(path.stem) >= self._total:
                try:
                    scored = read_block(path, int(path.stem), self._fingerprint)
                except BlockError:  # a damaged one proves nothing
                    continue
                raise self._other_input(first_difference(scored.records, ()))

    def _other_input(self, difference: str) -> OtherRun:
        folder, option = self._files.kept.parent, self._files.journal_option
        return OtherRun(
            f"{folder}: the unfinished run here read another input: {difference}; choose another "
            f"folder with {option}, or replace the run with --rerun"
        )

    def commit(self, scored: Scored) -> None:
        """Keep a finished block, whole or not at all. Committing a block twice changes nothing."""
        self._write(scored)
        self._new.add(scored.block_number)
        self._total = max(self._total, scored.block_number + 1)

    def _write(self, scored: Scored) -> None:
        self._check()
        option = self._files.journal_option
        path = self._path(scored.block_number)
        if scored.scores.embeddings is not None:  # before the block, which says that they are there
            data = embeddings_to_bytes(scored, scored.scores.embeddings, self._fingerprint)
            write_atomic(self._files.embeddings_of(path), data, option=option)
        write_atomic(path, to_bytes(scored, self._fingerprint), option=option)

    def scored(self) -> Iterator[Scored]:
        """Yield the finished blocks in their order, one at a time.

        Raises BlockError if one is missing or damaged.
        """
        for number in range(self._total):
            yield read_block(self._path(number), number, self._fingerprint)

    def embeddings(self, scored: Scored) -> Embeddings | None:
        """Return the embeddings of a finished block's frames; None where it has no frame.

        Raises BlockError if they are missing or damaged.
        """
        path = self._files.embeddings_of(self._path(scored.block_number))
        return read_embeddings(path, scored, self._fingerprint)

    def _path(self, number: int) -> Path:
        return self._files.block(number, provisional=self._is_provisional(number))

    def _is_provisional(self, number: int) -> bool:
        return self._provisional_from is not None and number >= self._provisional_from

    def remove_provisional(self) -> None:
        """Remove what lay behind the break of an input in an earlier process."""
        for path in self._files.blocks.glob(f"*.{PROVISIONAL}*"):
            path.unlink()


def sha256_of(fingerprint: Mapping[str, str]) -> str:
    """Return the sha256 of a fingerprint, which marks each block."""
    return hashlib.sha256(json.dumps(fingerprint, sort_keys=True).encode()).hexdigest()


def first_difference(old: Iterable[Record], new: Iterable[Record]) -> str:
    """Return a sentence on the first record of a block that is not the same as before."""
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
