"""Contigs -> blocks, and all values that travel with them, in one file since they hold each other.

A block is the one unit of memory, device work, progress, resume and distribution. This module
knows nothing of files or networks.
"""

import hashlib
import operator
import zlib
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any, TypeVar

import numpy as np
from numpy.typing import NDArray

from virnucpro.calls import Scores
from virnucpro.chunks import span_arrays, spans_of
from virnucpro.devices.memory import Memory
from virnucpro.frames import STANDARD
from virnucpro.reads import Contig, letters
from virnucpro.records import Records

Int32 = NDArray[np.int32]
Int64 = NDArray[np.int64]
UInt8 = NDArray[np.uint8]
Value = TypeVar("Value")

# What a contig weighs in a block besides its letters, so that empty ones fill blocks too.
RECORD_NT = 64


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
    digests. code: (n,) the genetic code of each chunk; None where it is the standard one of all.
    """

    number: int
    records: Records
    rows: Rows
    offset: Int64
    text: bytes = field(repr=False)
    digest: str
    code: UInt8 | None = None

    def chunk(self, row: int) -> bytes:
        """The letters of one chunk."""
        start = int(self.offset[row])
        return self.text[start : start + int(self.rows.length_nt[row])]

    def part(self, first: int, last: int) -> "Block":
        """The same block with its chunks [first, last) alone, and no more text than they span."""
        rows = Rows(*(getattr(self.rows, name)[first:last] for name in Rows.__slots__))
        offset = self.offset[first:last]
        begin = int(offset.min(initial=len(self.text)))
        end = int((offset + rows.length_nt).max(initial=begin))
        code = None if self.code is None else self.code[first:last]
        text = self.text[begin:end]
        return replace(self, rows=rows, offset=offset - begin, text=text, code=code)

    def chosen(self, kept: NDArray[np.bool_]) -> "Block":
        """The same block with some of its chunks alone, and no other text; kept: (n,)."""
        rows = Rows(*(getattr(self.rows, name)[kept] for name in Rows.__slots__))
        texts = [self.chunk(row) for row in np.flatnonzero(kept).tolist()]
        ends = np.cumsum(rows.length_nt)
        code = None if self.code is None else self.code[kept]
        offset, text = ends - rows.length_nt, b"".join(texts)
        return replace(self, rows=rows, offset=offset, text=text, code=code)


@dataclass(frozen=True, slots=True)
class Batches:
    """The batches of one encoder.

    budget: most tokens of a batch, as it should be; least: as memory allowed; count: how many
    there were; tokens: of all of them, of which pads were pads. widened: sequences that overflowed
    in fp16 and were computed again in fp32.
    """

    budget: int
    least: int
    count: int
    tokens: int
    pads: int
    widened: int = 0

    @property
    def padding(self) -> float | None:
        """Share of pads among the tokens, 0 to 1; None before the first."""
        return self.pads / self.tokens if self.tokens else None

    def since(self, before: "Batches") -> "Batches":
        """Return the batches that came after others."""
        return replace(
            self,
            count=self.count - before.count,
            tokens=self.tokens - before.tokens,
            pads=self.pads - before.pads,
            widened=self.widened - before.widened,
        )

    def __add__(self, other: "Batches") -> "Batches":
        return Batches(
            budget=max(self.budget, other.budget),
            least=min(self.least, other.least),
            count=self.count + other.count,
            tokens=self.tokens + other.tokens,
            pads=self.pads + other.pads,
            widened=self.widened + other.widened,
        )

    def as_dict(self) -> dict[str, int | float | None]:
        """Return plain values for run.json."""
        padding = None if self.padding is None else round(self.padding, 4)
        return {
            "budget_tokens": self.budget,
            "least_tokens": self.least,
            "count": self.count,
            "padding": padding,
            **({"widened": self.widened} if self.widened else {}),
        }


@dataclass(frozen=True, slots=True)
class Share:
    """The share of a run that one worker computed.

    seconds: in which its device had blocks. used, looks: how often it was looked how much of the
    moment before the device had computed, and the sum of these shares; 0 looks: unknown.
    """

    host: str
    device: str
    blocks: int = 0
    chunks: int = 0
    seconds: float = 0.0
    used: float = 0.0
    looks: int = 0

    @property
    def utilisation(self) -> float | None:
        """Share of the time in which the device computed, 0 to 1; None: unknown."""
        return self.used / self.looks if self.looks else None

    def __add__(self, other: "Share") -> "Share":
        return replace(
            self,
            blocks=self.blocks + other.blocks,
            chunks=self.chunks + other.chunks,
            seconds=self.seconds + other.seconds,
            used=self.used + other.used,
            looks=self.looks + other.looks,
        )

    def as_dict(self, name: str, wall_s: float) -> dict[str, object]:
        """Return plain values for run.json. wall_s: in which the blocks of the run were scored."""
        known = self.utilisation
        return {
            "name": name,
            "host": self.host,
            "device": self.device,
            "blocks": self.blocks,
            "chunks": self.chunks,
            "seconds": round(self.seconds, 3),
            "busy": round(self.seconds / wall_s, 3) if wall_s else None,
            "utilisation": "unknown" if known is None else round(known, 3),
        }


@dataclass(frozen=True, slots=True, kw_only=True)
class Telemetry:
    """Observations made while blocks were scored, or a classifier loaded; they add up with +.

    scoring_s: seconds spent on blocks. kernels: names of the attention kernels that ran, by
    encoder. batches: by encoder. memory: of the device, by stage; of several devices, the fullest.
    embedding_widths: of nucleotides and protein. in_turns: whether a device holds only one of both
    encoders at a time. expandable_segments: as the allocator has them; None: unknown. shares: of
    workers, by name. notes: sentences for the log.
    """

    scoring_s: float = 0.0
    kernels: Mapping[str, frozenset[str]] = field(default_factory=dict)
    batches: Mapping[str, Batches] = field(default_factory=dict)
    memory: Mapping[str, Memory] = field(default_factory=dict)
    embedding_widths: tuple[int, int] | None = None
    in_turns: bool = False
    expandable_segments: bool | None = None
    shares: Mapping[str, Share] = field(default_factory=dict)
    notes: tuple[str, ...] = ()

    def __add__(self, other: "Telemetry") -> "Telemetry":
        segments = self.expandable_segments
        return Telemetry(
            scoring_s=self.scoring_s + other.scoring_s,
            kernels=_joined(self.kernels, other.kernels, operator.or_),
            batches=_joined(self.batches, other.batches, operator.add),
            memory=_joined(self.memory, other.memory, Memory.fuller),
            embedding_widths=self.embedding_widths or other.embedding_widths,
            in_turns=self.in_turns or other.in_turns,
            expandable_segments=other.expandable_segments if segments is None else segments,
            shares=_joined(self.shares, other.shares, operator.add),
            notes=self.notes + other.notes,
        )

    @property
    def attention(self) -> dict[str, str]:
        """The attention kernels that ran, with commas, by encoder."""
        return {name: ",".join(sorted(seen)) for name, seen in self.kernels.items() if seen}


def _joined(
    one: Mapping[str, Value], other: Mapping[str, Value], join: Callable[[Value, Value], Value]
) -> dict[str, Value]:
    """Return both mappings in one; join makes one value of two under the same name."""
    both = one.keys() & other.keys()
    return {**one, **other, **{name: join(one[name], other[name]) for name in both}}


@dataclass(frozen=True, slots=True)
class Scored:
    """A block with its scores: all that comes back from a device.

    scores has as many rows as rows. failures: why a chunk could not be scored, by its row.
    telemetry: observations made while this block was scored; empty for a block read from disk.
    """

    block_number: int
    digest: str
    records: Records
    rows: Rows
    scores: Scores
    failures: Mapping[int, str] = field(default_factory=dict)
    telemetry: Telemetry = field(default_factory=Telemetry)

    def __post_init__(self) -> None:
        if len(self.rows) != len(self.scores):
            raise ValueError(f"{len(self.scores)} scores for {len(self.rows)} chunks")

    @classmethod
    def of(
        cls, block: Block, scores: Scores, failures: Mapping[int, str], telemetry: Telemetry
    ) -> "Scored":
        """Return a block, without its letters, with its scores."""
        return cls(
            block.number, block.digest, block.records, block.rows, scores, failures, telemetry
        )


def blocks_of(
    contigs: Iterable[Contig], chunk_nt: int, block_nt: int, first_nt: int | None = None
) -> Iterator[Block]:
    """Contigs as blocks of about block_nt letters, a function of the input and the sizes alone.

    A long contig goes on in the next block, cut between two chunks; letters that these share stand
    in both. Every contig is in a block, also one without a chunk. first_nt: what the first block
    holds where that is less; each has twice as much as the one before then, up to block_nt.
    """
    draft, full_nt = _Draft(0, chunk_nt, 0), min(first_nt or block_nt, block_nt)
    for ordinal, contig in enumerate(contigs):
        length_nt = 0 if contig.short else len(contig.sequence)
        if length_nt <= chunk_nt or length_nt <= full_nt - draft.weight_nt:
            draft.add(contig, length_nt)
            if draft.weight_nt >= full_nt:
                yield draft.finished()
                draft = _Draft(draft.number + 1, chunk_nt, ordinal + 1)
                full_nt = min(2 * full_nt, block_nt)
            continue
        start, end = span_arrays(length_nt, chunk_nt)
        first, chunks = 0, len(start)
        while first < chunks:
            free = int(start[first]) + max(0, full_nt - draft.weight_nt)
            last = max(first + 1, int(np.searchsorted(end, free, side="right")))
            part = contig.sequence[int(start[first]) : int(end[last - 1])]
            draft.add_part(contig, part, first, last if last < chunks else None)
            if last < chunks or draft.weight_nt >= full_nt:
                yield draft.finished()
                draft = _Draft(draft.number + 1, chunk_nt, ordinal + (last == chunks))
                full_nt = min(2 * full_nt, block_nt)
            first = last
    if draft.weight_nt:
        yield draft.finished()


class _Draft:
    """A block in the making. ordinal: of its first contig."""

    def __init__(self, number: int, chunk_nt: int, ordinal: int) -> None:
        self.number = number
        self.weight_nt = 0
        # The fields of contigs, one after the other: an object for each would cost more than them.
        self._fields: list[Any] = []
        self._chunk_nt = chunk_nt
        self._ordinal = ordinal
        # Chunks of the first contig that lie in earlier blocks, and of the last one up to here.
        self._first = 0
        self._last: int | None = None

    def add(self, contig: Contig, letters_nt: int) -> None:
        """Take in a contig as a whole. letters_nt: that its chunks span."""
        self._fields.extend(contig)
        self.weight_nt += letters_nt + RECORD_NT

    def add_part(self, contig: Contig, part: bytes, first: int, last: int | None) -> None:
        """Take in the chunks [first, last) of a contig, which span a part; last: None for all."""
        self.add(contig._replace(sequence=part, refused_nt=contig.length_nt), len(part))
        self._first, self._last = first or self._first, last

    def finished(self) -> Block:
        width = len(Contig._fields)
        columns = (self._fields[place::width] for place in range(width))
        sample, record, name, sequence, fault, _, mate, short, whole_nt, codes = columns
        has_nt = np.fromiter(map(len, sequence), np.int64, len(sequence))
        length_nt = np.where(whole_nt, whole_nt, has_nt)
        is_short = np.array(short, np.bool_)
        faults = {row: why for row, why in enumerate(fault) if why} if any(fault) else {}
        without = is_short.copy()
        without[[*faults]] = True
        all_chunks = np.where(without, 0, -(-length_nt // self._chunk_nt))
        first, last = np.zeros_like(all_chunks), all_chunks.copy()
        first[0] = self._first
        if self._last is not None:
            last[-1] = self._last
        count = last - first
        parts = [*map(letters, sequence)]
        text = b"".join(part for part, none in zip(parts, short, strict=True) if not none)
        edges = np.append(0, np.cumsum(np.where(is_short, 0, has_nt)))
        rows = _rows(length_nt, self._chunk_nt, first, count)
        from_start = np.zeros_like(count)
        from_start[0] = rows.start[0] if count[0] else 0
        offset = rows.start + np.repeat(edges[:-1] - from_start, count)
        records = Records(
            sample=sample,
            name=name,
            ordinal=np.arange(self._ordinal, self._ordinal + len(count), dtype=np.int64),
            record=np.array(record, np.int64),
            length_nt=length_nt,
            begins=first == 0,
            ends=last == all_chunks,
            letters_crc=np.fromiter(map(zlib.crc32, parts), np.int64, len(parts)),
            mate=np.array(mate, np.int64),
            short=is_short,
            code=np.array(codes, np.int64),
            faults=faults,
        )
        digest = _digest(records, count, text)
        usual = codes.count(STANDARD) == len(codes)
        code = None if usual else records.code[rows.record].astype(np.uint8)
        return Block(self.number, records, rows, offset, text, digest, code)


def _rows(length_nt: Int64, chunk_nt: int, first: Int64, count: Int64) -> Rows:
    """Chunks [first, first + count) of r contigs, (r,), one after the other."""
    record = np.repeat(np.arange(len(count), dtype=np.int32), count)
    before = np.cumsum(count) - count
    k = np.arange(len(record), dtype=np.int64) - np.repeat(before - first, count)
    start, end = spans_of(length_nt[record], chunk_nt, k)
    return Rows(record, (k + 1).astype(np.int32), start, end)


def _digest(records: Records, chunks: Int64, text: bytes) -> str:
    told = [""] * len(records)
    for row, why in records.faults.items():
        told[row] = why
    for row in np.flatnonzero(records.short).tolist():
        told[row] = str(records.letters_crc[row])
    columns = (records.record, records.length_nt, records.begins, chunks)
    record, length_nt, begins, count = (column.tolist() for column in columns)
    rows = zip(record, records.name, length_nt, begins, count, told, strict=True)
    line = "%d\t%s\t%d\t%s\t%d\t%s\n"
    digest = hashlib.sha256("".join([line % row for row in rows]).encode() + b"\0")
    digest.update(text)
    return digest.hexdigest()


@dataclass(frozen=True, slots=True)
class Texts:
    """n chunks: chunk i is text[offset[i] : offset[i] + length_nt[i]], upper case, U read as T.

    code: (n,) their genetic codes; None where it is the standard one of all.
    """

    text: bytes
    offset: Int64
    length_nt: Int64
    code: UInt8 | None = None

    def __len__(self) -> int:
        return len(self.offset)

    @classmethod
    def of_block(cls, block: Block) -> "Texts":
        """The chunks of a block."""
        return cls(block.text, block.offset, block.rows.length_nt, block.code)

    @classmethod
    def of_strings(cls, chunks: Sequence[str]) -> "Texts":
        """Chunks given one by one."""
        parts = [letters(chunk.encode("ascii", "replace")) for chunk in chunks]
        length_nt = np.array([len(part) for part in parts], np.int64)
        return cls(b"".join(parts), np.cumsum(length_nt) - length_nt, length_nt)
