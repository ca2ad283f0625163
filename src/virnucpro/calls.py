"""Scores of frames -> scores of chunks -> calls of chunks and contigs.

Arrays are columns: n chunks, m scored frames of them, r contigs. This module knows nothing of
encoders or files.
"""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, fields, replace
from enum import IntEnum
from typing import Literal, get_args

import numpy as np
from numpy.typing import NDArray

FRAME_NAMES = ("F1", "F2", "F3", "R1", "R2", "R3")
# Frames as the tables name them, by bits: bit i is frame i of F1..R3.
FRAME_SETS = [
    ",".join(name for bit, name in enumerate(FRAME_NAMES) if bits >> bit & 1)
    for bits in range(1 << len(FRAME_NAMES))
]
DEFAULT_THRESHOLD = 0.5
# What a bundle scores, and so how: see bundle.manifest.Bundle.
Kind = Literal["frames", "chunks", "kmer"]
KINDS: tuple[Kind, ...] = get_args(Kind)


class Status(IntEnum):
    """The reason why a chunk was called or not; the names in lower case stand in the tables."""

    OK = 0
    BELOW_VALIDATED_LENGTH = 1
    NO_OPEN_FRAME = 2
    TOO_SHORT = 3
    AMBIGUOUS = 4
    FAILED = 5
    EMPTY = 6

    @property
    def called(self) -> bool:
        """Return whether a chunk of this status has a score."""
        return self <= Status.BELOW_VALIDATED_LENGTH


STATUS_NAMES = [status.name.lower() for status in Status]


def is_called(status: NDArray[np.uint8]) -> NDArray[np.bool_]:
    """Status.called of each, (n,)."""
    return status <= Status.BELOW_VALIDATED_LENGTH


@dataclass(frozen=True, slots=True)
class Embeddings:
    """The encoders' embeddings of m frames, float32: nucleotides (m, 768), protein (m, 2560).

    Other encoders have other widths.
    """

    nucleotides: NDArray[np.float32]
    protein: NDArray[np.float32]

    def __len__(self) -> int:
        return len(self.protein)

    @classmethod
    def joined(cls, parts: Sequence["Embeddings"]) -> "Embeddings | None":
        """Return the embeddings of the parts, one after the other; None without parts."""
        if not parts:
            return None
        both = ([p.nucleotides for p in parts], [p.protein for p in parts])
        return cls(*map(np.concatenate, both))

    def part(self, kept: NDArray[np.bool_]) -> "Embeddings":
        """The embeddings of some frames; kept: (m,)."""
        return Embeddings(self.nucleotides[kept], self.protein[kept])


# Columns of scores that not every classifier has.
OPTIONAL = ("embeddings", "groups", "notes", "prescreened")


@dataclass(frozen=True, slots=True)
class Scores:
    """The scores by a classifier of n chunks, and of the m frames of them that it scored.

    status: (n,) Status; frames: (n,) bit i set if frame i of F1..R3 was scored; p_virus,
    max_p_virus, max_p_others: (n,), nan where missing. frame_chunk: (m,) index of the chunk,
    ascending; frame: (m,) 0..5, ascending within a chunk; frame_p_others, frame_p_virus: (m,).
    A classifier of whole chunks gives one frame row a called chunk, its most heavily weighted
    frame, and no max_p_virus or max_p_others. embeddings: of the m frames, where they were asked
    for. groups: (n, G) log-probabilities of the groups that the network tells apart, for networks
    that do. notes: (n,) bits of what was noted of the letters, see classifiers.screen.
    prescreened: (n,) whether a bundle that looked first gave the score of a chunk, and did not hand
    it on; None where none looks first.
    """

    status: NDArray[np.uint8]
    frames: NDArray[np.uint8]
    p_virus: NDArray[np.float64]
    max_p_virus: NDArray[np.float32]
    max_p_others: NDArray[np.float32]
    frame_chunk: NDArray[np.int32]
    frame: NDArray[np.uint8]
    frame_p_others: NDArray[np.float32]
    frame_p_virus: NDArray[np.float32]
    embeddings: Embeddings | None = None
    groups: NDArray[np.float16] | None = None
    notes: NDArray[np.uint8] | None = None
    prescreened: NDArray[np.bool_] | None = None

    def __post_init__(self) -> None:
        if self.embeddings is not None and len(self.embeddings) != len(self.frame):
            raise ValueError(f"{len(self.embeddings)} embeddings of {len(self.frame)} frames")

    def __len__(self) -> int:
        return len(self.status)

    @property
    def called(self) -> NDArray[np.bool_]:
        """Return whether each chunk has a score, (n,)."""
        return is_called(self.status)

    @classmethod
    def failed(cls, n: int) -> "Scores":
        """The scores of n chunks that could not be scored, all missing."""
        none, floats = np.zeros(0, np.uint8), np.zeros(0, np.float32)
        missing = np.full(n, np.nan)
        return cls(
            status=np.full(n, Status.FAILED, np.uint8),
            frames=np.zeros(n, np.uint8),
            p_virus=missing,
            max_p_virus=missing.astype(np.float32),
            max_p_others=missing.astype(np.float32),
            frame_chunk=none.astype(np.int32),
            frame=none,
            frame_p_others=floats,
            frame_p_virus=floats,
        )

    @classmethod
    def joined(cls, parts: Sequence["Scores"]) -> "Scores":
        """The chunks of one or more scores, one after the other."""
        before = np.cumsum([0, *map(len, parts)])
        moved = [
            replace(part, frame_chunk=(part.frame_chunk + first).astype(np.int32))
            for part, first in zip(parts, before[:-1], strict=True)
        ]
        names = [part.name for part in fields(cls) if part.name not in OPTIONAL]
        return cls(
            **{n: np.concatenate([getattr(part, n) for part in moved]) for n in names},
            embeddings=Embeddings.joined([p.embeddings for p in parts if p.embeddings is not None]),
            groups=_groups_of(parts),
            notes=None,
            prescreened=_prescreened_of(parts),
        )

    def failing(self, chunks: NDArray[np.integer]) -> "Scores":
        """The same, with these chunks as failed."""
        one_by_one = Scores.failed(len(self))
        bad = np.zeros(len(self), np.bool_)
        bad[chunks] = True
        columns = ("status", "frames", "p_virus", "max_p_virus", "max_p_others")
        kept = ~bad[self.frame_chunk]
        rows = ("frame_chunk", "frame", "frame_p_others", "frame_p_virus")
        return Scores(
            **{n: np.where(bad, getattr(one_by_one, n), getattr(self, n)) for n in columns},
            **{n: getattr(self, n)[kept] for n in rows},
            embeddings=None if self.embeddings is None else self.embeddings.part(kept),
            groups=self.groups,
            notes=self.notes,
            prescreened=None if self.prescreened is None else self.prescreened & ~bad,
        )


def _groups_of(parts: Sequence[Scores]) -> NDArray[np.float16] | None:
    """The groups of all parts; zeros for a part that failed, which has no groups."""
    widths = {part.groups.shape[1] for part in parts if part.groups is not None}
    if not widths:
        return None
    missing = widths.pop()
    found = [
        np.zeros((len(part), missing), np.float16) if part.groups is None else part.groups
        for part in parts
    ]
    return np.concatenate(found)


def _prescreened_of(parts: Sequence[Scores]) -> NDArray[np.bool_] | None:
    """Return whether each chunk was prescreened; a part that failed was not."""
    if all(part.prescreened is None for part in parts):
        return None
    none = [np.zeros(len(part), np.bool_) for part in parts]
    found = [part.prescreened for part in parts]
    return np.concatenate([n if f is None else f for n, f in zip(none, found, strict=True)])


class Call(IntEnum):
    """The call of a chunk or a contig; the names in lower case stand in the tables."""

    NONE = 0
    OTHERS = 1
    VIRUS = 2


CALL_NAMES = [call.name.lower() for call in Call]


@dataclass(frozen=True, slots=True)
class Rule:
    """The rule from score to call. kind is the bundle's."""

    kind: Kind
    threshold: float = DEFAULT_THRESHOLD

    def chunks(self, scores: Scores) -> NDArray[np.uint8]:
        """Call of each chunk, (n,)."""
        if self.kind == "frames" and self.threshold == DEFAULT_THRESHOLD:
            virus = scores.max_p_virus >= scores.max_p_others
        else:
            virus = scores.p_virus >= self.threshold
        calls = np.where(scores.called, np.where(virus, Call.VIRUS, Call.OTHERS), Call.NONE)
        return calls.astype(np.uint8)

    def contigs(self, p_virus: NDArray[np.float64]) -> NDArray[np.uint8]:
        """Call of each contig, (r,), from its mean; NONE for nan.

        A contig with one called chunk is called as that chunk: in float64, m1 / (m0 + m1) of two
        float32 numbers is at least 0.5 exactly where m1 >= m0.
        """
        virus = np.where(p_virus >= self.threshold, Call.VIRUS, Call.OTHERS)
        return np.where(np.isnan(p_virus), Call.NONE, virus).astype(np.uint8)


@dataclass(frozen=True, slots=True)
class Consensus:
    """The published consensus of c chunks that have a scored frame.

    chunk: (c,) which they are, ascending; first: (c,) the first frame of each; max_p_others,
    max_p_virus: (c,) m0 and m1, the largest P(others) and P(virus) of its frames.
    """

    chunk: NDArray[np.int64]
    first: NDArray[np.intp]
    max_p_others: NDArray[np.floating]
    max_p_virus: NDArray[np.floating]

    @property
    def virus(self) -> NDArray[np.bool_]:
        """m1 >= m0: a tie is virus, (c,)."""
        return self.max_p_virus >= self.max_p_others


def consensus(
    frame_chunk: NDArray[np.integer],
    p_others: NDArray[np.floating],
    p_virus: NDArray[np.floating],
) -> Consensus:
    """The consensus of m scored frames; frame_chunk: (m,) the chunk of each, ascending."""
    chunk, first = np.unique(frame_chunk, return_index=True)
    m0, m1 = (np.maximum.reduceat(p, first) for p in (p_others, p_virus))
    return Consensus(chunk.astype(np.int64), first, m0, m1)


def chunk_calls(
    frames: Iterable[tuple[str, float, float]],
) -> list[tuple[str, bool, float, float]]:
    """Consensus of scored frames by chunk: the published rule on the published ids.

    frames: (frame id, P(others), P(virus)), in any order. Returns (chunk id, is virus, largest
    P(others), largest P(virus)), sorted by the UTF-8 bytes of the id. The frame's name is taken
    off the end of the id, and nothing else. Raises ValueError for an id that does not end in one.
    """
    rows = list(frames)
    for frame_id, _, _ in rows:
        if not frame_id.endswith(FRAME_NAMES):
            raise ValueError(f"{frame_id!r} does not end in one of {', '.join(FRAME_NAMES)}")
    chunk_of = [frame_id[:-2] for frame_id, _, _ in rows]
    chunks = sorted(set(chunk_of), key=lambda chunk: chunk.encode("utf-8", "surrogateescape"))
    number = {chunk: i for i, chunk in enumerate(chunks)}
    index = np.array([number[chunk] for chunk in chunk_of], np.int64)
    order = np.argsort(index, kind="stable")
    p_others, p_virus = (np.array([row[column] for row in rows])[order] for column in (1, 2))
    found = consensus(index[order], p_others, p_virus)
    columns = (found.virus, found.max_p_others, found.max_p_virus)
    return list(zip(chunks, *(column.tolist() for column in columns), strict=True))


def frame_scores_to_chunks(
    n: int,
    frame_chunk: NDArray[np.int32],
    frame: NDArray[np.uint8],
    p_others: NDArray[np.float32],
    p_virus: NDArray[np.float32],
    status: NDArray[np.uint8],
    embeddings: Embeddings | None = None,
) -> Scores:
    """Consensus of n chunks: m0, m1 are the largest P(others), P(virus) of their frames.

    frame_chunk, frame, p_others, p_virus: (m,), ordered by chunk and frame, as embeddings are, if
    they are to be kept; status: (n,). A chunk that failed has no score, even if some of its frames
    have. Raises ValueError if the order or the status does not fit the frames.
    """
    order = frame_chunk.astype(np.int64) * len(FRAME_NAMES) + frame
    if np.any(order[1:] <= order[:-1]):
        raise ValueError("the frames are not in the order of chunk and frame")
    found = consensus(frame_chunk, p_others, p_virus)
    m0, m1 = (np.full(n, np.nan, dtype=np.float32) for _ in range(2))
    frames = np.zeros(n, dtype=np.uint8)
    m0[found.chunk], m1[found.chunk] = found.max_p_others, found.max_p_virus
    bits = np.left_shift(1, frame).astype(np.uint8)
    frames[found.chunk] = np.bitwise_or.reduceat(bits, found.first)
    called = is_called(status)
    if np.any((called != (frames > 0)) & (status != Status.FAILED)):
        raise ValueError("a chunk is called without a frame, or has a frame and is not called")
    m0[~called], m1[~called] = np.nan, np.nan
    wide0, wide1 = m0.astype(np.float64), m1.astype(np.float64)
    return Scores(
        status=status.astype(np.uint8),
        frames=frames,
        p_virus=wide1 / (wide0 + wide1),
        max_p_virus=m1,
        max_p_others=m0,
        frame_chunk=frame_chunk.astype(np.int32),
        frame=frame.astype(np.uint8),
        frame_p_others=p_others.astype(np.float32),
        frame_p_virus=p_virus.astype(np.float32),
        embeddings=embeddings,
    )
