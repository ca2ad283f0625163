"""Contigs -> blocks, and sequences -> batches: integers and iterators only.

A block is the one unit of memory, device work, progress, resume and distribution. This module
knows no encoder, no device and no file.
"""

import hashlib
import zlib
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field, replace
from functools import lru_cache

import numpy as np
from numpy.typing import NDArray

from virnucpro.chunks import span_arrays
from virnucpro.reads import Contig, letters

Int32 = NDArray[np.int32]
Int64 = NDArray[np.int64]

# What a contig weighs in a block besides its letters, so that empty ones fill blocks too.
RECORD_NT = 64
# Reads are of few lengths, so their spans are worth keeping; those of a genome would be megabytes.
KEPT_SPANS_NT = 10_000
# Pads cost as much as letters, small batches leave a device idle: so much of each is borne.
MOST_PADS = 0.02
LEAST_OF_BUDGET = 1 / 16


@dataclass(frozen=True, slots=True)
class Batches:
    """The batches of an encoder so far.

    budget: most tokens of one, as it should be; least: as memory allowed; count: how many there
    were; tokens: of all of them, of which pads were pads.
    """

    budget: int
    least: int
    count: int
    tokens: int
    pads: int

    @property
    def padding(self) -> float | None:
        """Share of pads among the tokens, 0 to 1; None before the first."""
        return self.pads / self.tokens if self.tokens else None

    def since(self, before: "Batches") -> "Batches":
        """Those that came after others."""
        return replace(
            self,
            count=self.count - before.count,
            tokens=self.tokens - before.tokens,
            pads=self.pads - before.pads,
        )

    def as_dict(self) -> dict[str, int | float | None]:
        """For run.json."""
        padding = None if self.padding is None else round(self.padding, 4)
        return {
            "budget_tokens": self.budget,
            "least_tokens": self.least,
            "count": self.count,
            "padding": padding,
        }


@dataclass(frozen=True, slots=True)
class Record:
    """What a block keeps of a contig that begins in it or goes on in it.

    ordinal counts over all inputs of the run from 0, record within its input from 1. fault says
    why the contig cannot be processed; it is empty for all others. letters_crc: CRC-32 of its
    letters in this block, which finds the record where the digests of two blocks differ. mate,
    short: as of the contig; a short one has no chunk, whatever its length.
    """

    ordinal: int
    sample: str
    record: int
    name: str
    length_nt: int
    begins: bool
    ends: bool
    fault: str = ""
    letters_crc: int = 0
    mate: int = 0
    short: bool = False


@dataclass(frozen=True, slots=True)
class Rows:
    """The chunks of a block, n rows in contig order.

    record: (n,) index into Block.records; number: (n,) k of the chunk, from 1; start, end: (n,)
    0-based half-open on the contig.
    """

    record: Int32
    number: Int32
    start: Int64
    end: Int64

    def __len__(self) -> int:
        return len(self.record)

    @property
    def length_nt(self) -> Int64:
        """Chunk lengths, (n,)."""
        return self.end - self.start


@dataclass(frozen=True, slots=True)
class Block:
    """A stretch of the input: records, their chunks, and the text that the chunks lie in.

    text holds upper-case letters with U read as T; chunk i is
    text[offset[i] : offset[i] + rows.length_nt[i]]. digest is the sha256 over names, lengths and
    letters, not over samples, which are but names of files: equal blocks, and only they, have equal
    digests.
    """

    number: int
    records: tuple[Record, ...]
    rows: Rows
    offset: Int64
    text: bytes = field(repr=False)
    digest: str

    def chunk(self, row: int) -> bytes:
        """The letters of one chunk."""
        start = int(self.offset[row])
        return self.text[start : start + int(self.rows.length_nt[row])]

    def part(self, first: int, last: int) -> "Block":
        """The same block with its chunks [first, last) alone, and no more text than theirs."""
        rows = Rows(*(getattr(self.rows, name)[first:last] for name in Rows.__slots__))
        offset = self.offset[first:last]
        begin = int(offset.min(initial=len(self.text)))
        end = int((offset + rows.length_nt).max(initial=begin))
        return replace(self, rows=rows, offset=offset - begin, text=self.text[begin:end])


def blocks_of(
    contigs: Iterable[Contig], chunk_nt: int, block_nt: int, first_nt: int | None = None
) -> Iterator[Block]:
    """Contigs as blocks of about block_nt letters, a function of the input and the sizes alone.

    A long contig goes on in the next block, cut between two chunks; letters that these share stand
    in both. Every contig is in a block, also one without a chunk. first_nt: what the first block
    holds where that is less; each has twice as much as the one before then, up to block_nt.
    """
    draft, full_nt = _Draft(0), min(first_nt or block_nt, block_nt)
    for ordinal, contig in enumerate(contigs):
        text = letters(contig.sequence)
        start, end = _spans(0 if contig.short else len(text), chunk_nt)
        first = 0
        while True:
            last = draft.room(start, end, first, full_nt)
            draft.add(ordinal, contig, text, start[first:last], end[first:last], first, len(start))
            if last < len(start) or draft.weight_nt >= full_nt:
                yield draft.finished()
                draft, full_nt = _Draft(draft.number + 1), min(2 * full_nt, block_nt)
            first = last
            if last == len(start):
                break
    if draft.records:
        yield draft.finished()


def _spans(length_nt: int, chunk_nt: int) -> tuple[Int64, Int64]:
    """chunks.span_arrays, from memory for short contigs; not to be written to."""
    return (_kept_spans if length_nt <= KEPT_SPANS_NT else span_arrays)(length_nt, chunk_nt)


@lru_cache(maxsize=1024)
def _kept_spans(length_nt: int, chunk_nt: int) -> tuple[Int64, Int64]:
    start, end = span_arrays(length_nt, chunk_nt)
    start.flags.writeable = end.flags.writeable = False
    return start, end


def token_batches(lengths: Sequence[int], budget: int) -> Iterator[list[int]]:
    """Places of sequences, the longest first, in batches of rows * longest <= budget.

    A sequence longer than the budget is a batch of its own. A batch of some size also ends where
    more rows would make more than MOST_PADS of it pads. Equal lengths keep their order.
    """
    batch: list[int] = []
    longest = real = 0
    for place in sorted(range(len(lengths)), key=lambda row: -lengths[row]):
        tokens = (len(batch) + 1) * longest
        pads = tokens - real - lengths[place]
        wasteful = real >= LEAST_OF_BUDGET * budget and pads > MOST_PADS * tokens
        if batch and (tokens > budget or wasteful):
            yield batch
            batch, real = [], 0
        longest = longest if batch else lengths[place]
        batch.append(place)
        real += lengths[place]
    if batch:
        yield batch


class _Draft:
    """A block in the making."""

    def __init__(self, number: int) -> None:
        self.number = number
        self.weight_nt = 0
        self.records: list[Record] = []
        self._starts: list[Int64] = []
        self._ends: list[Int64] = []
        self._first: list[int] = []
        self._texts: list[bytes] = []

    def room(self, start: Int64, end: Int64, first: int, block_nt: int) -> int:
        """One past the last of a contig's chunks that still fits, of those from first on."""
        if first == len(start):
            return first
        free = int(start[first]) + max(0, block_nt - self.weight_nt)
        return max(first + 1, int(np.searchsorted(end, free, side="right")))

    def add(
        self,
        ordinal: int,
        contig: Contig,
        text: bytes,
        start: Int64,
        end: Int64,
        first: int,
        chunks: int,
    ) -> None:
        """Takes in the chunks [first, first + len(start)) of a contig that has so many in all."""
        ends = first + len(start) == chunks
        part = text[int(start[0]) : int(end[-1])] if len(start) else b""
        self.records.append(
            Record(
                ordinal=ordinal,
                sample=contig.sample,
                record=contig.record,
                name=contig.name,
                length_nt=contig.length_nt,
                begins=first == 0,
                ends=ends,
                fault=contig.fault,
                letters_crc=zlib.crc32(text if contig.short else part),
                mate=contig.mate,
                short=contig.short,
            )
        )
        self._starts.append(start)
        self._ends.append(end)
        self._first.append(first)
        self._texts.append(part)
        self.weight_nt += len(part) + RECORD_NT

    def finished(self) -> Block:
        count = np.array([len(start) for start in self._starts], np.int64)
        begin = np.cumsum(count) - count
        text_begin = np.cumsum([0, *map(len, self._texts[:-1])], dtype=np.int64)
        from_start = np.array([int(s[0]) if len(s) else 0 for s in self._starts], np.int64)
        start = np.concatenate(self._starts)
        row = np.arange(len(start), dtype=np.int64)
        text = b"".join(self._texts)
        rows = Rows(
            record=np.repeat(np.arange(len(count), dtype=np.int32), count),
            number=(row - np.repeat(begin - self._first, count) + 1).astype(np.int32),
            start=start,
            end=np.concatenate(self._ends),
        )
        offset = start + np.repeat(text_begin - from_start, count)
        digest = _digest(self.records, count, text)
        return Block(self.number, tuple(self.records), rows, offset, text, digest)


def _digest(records: Sequence[Record], chunks: Int64, text: bytes) -> str:
    lines = [
        f"{r.record}\t{r.name}\t{r.length_nt}\t{r.begins}\t{n}\t"
        f"{r.letters_crc if r.short else r.fault}\n"
        for r, n in zip(records, chunks.tolist(), strict=True)
    ]
    return hashlib.sha256("".join(lines).encode() + b"\0" + text).hexdigest()
