"""Annotated records, and which open frames of their chunks a coding sequence confirms.

A frame is confirmed where an annotated CDS has its strand and its phase: the codons of both begin
at the same letters. This module knows no file and no format.

N chunks, m frames of them; frames are numbered 0..5 for F1, F2, F3, R1, R2, R3.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from virnucpro.chunks import span_arrays
from virnucpro.frames import open_frames_of

AT_ONCE = 4096

Int64 = NDArray[np.int64]


class Exon(NamedTuple):
    """A stretch of a coding sequence, 0-based half-open; skipped: letters at its 5' end that belong
    to the codon of the exon before."""

    start: int
    end: int
    reverse: bool
    skipped: int


@dataclass(frozen=True, slots=True)
class Annotated:
    """A record with its coding sequences. sequence holds upper-case letters with U read as T.

    unit: what must not be divided between training and held-out data; empty if unknown.
    """

    name: str
    sequence: bytes = field(repr=False)
    exons: Sequence[Exon] = field(repr=False)
    unit: str
    organism: str


@dataclass(frozen=True, slots=True)
class Confirmed:
    """The m confirmed open frames of a record, in the order of its chunks and F1..R3.

    chunk: from 0; start, end: of the chunk; overlap_nt: of the frame with coding sequences.
    """

    chunk: Int64
    start: Int64
    end: Int64
    frame: Int64
    overlap_nt: Int64
    protein: list[str] = field(repr=False)


def confirmed_frames(record: Annotated, chunk_nt: int, overlap_nt: int) -> Iterator[Confirmed]:
    """Yield the confirmed open frames of a record, those of some thousand chunks at once.

    overlap_nt: the fewest letters that a frame shares with coding sequences of its strand and
    phase.
    """
    start, end = span_arrays(len(record.sequence), chunk_nt)
    overlap_6N = coding_overlaps(record.exons, start, end)
    coding = np.flatnonzero((overlap_6N >= overlap_nt).any(axis=0))
    for first in range(0, len(coding), AT_ONCE):
        rows = coding[first : first + AT_ONCE]
        spans = zip(start[rows].tolist(), end[rows].tolist(), strict=True)
        text = b"".join(record.sequence[a:b] for a, b in spans)
        length_nt = end[rows] - start[rows]
        frames = open_frames_of(text, np.cumsum(length_nt) - length_nt, length_nt)
        chunk, frame = rows[frames.chunk], frames.frame.astype(np.int64)
        overlap = overlap_6N[frame, chunk]
        kept = np.flatnonzero(overlap >= overlap_nt)
        if len(kept):
            chunk = chunk[kept]
            protein = [frames.protein[row] for row in kept.tolist()]
            yield Confirmed(chunk, start[chunk], end[chunk], frame[kept], overlap[kept], protein)


def coding_overlaps(exons: Sequence[Exon], start: Int64, end: Int64) -> Int64:
    """Return how many letters each frame of each chunk shares with coding sequences (6, N).

    Exons of several transcripts count once.
    """
    overlap_6N = np.zeros((6, len(start)), np.int64)
    for (reverse, codons), spans in _merged(exons).items():
        if reverse:
            frame = (end - codons) % 3
            low, high = start, end - frame
        else:
            frame = (codons - start) % 3
            low, high = start + frame, end
        shared = np.maximum(_covered(high, spans) - _covered(low, spans), 0)
        overlap_6N[frame + 3 * reverse, np.arange(len(start))] = shared
    return overlap_6N


def _merged(exons: Sequence[Exon]) -> dict[tuple[bool, int], Int64]:
    """Return the union (k, 2) of exons, by strand and by the place of their codons modulo 3."""
    by_class: dict[tuple[bool, int], list[tuple[int, int]]] = {}
    for exon in exons:
        codons = exon.end - exon.skipped if exon.reverse else exon.start + exon.skipped
        by_class.setdefault((exon.reverse, codons % 3), []).append((exon.start, exon.end))
    found = {}
    for key, spans in by_class.items():
        union: list[list[int]] = []
        for start, end in sorted(spans):
            if union and start <= union[-1][1]:
                union[-1][1] = max(end, union[-1][1])
            else:
                union.append([start, end])
        found[key] = np.array(union, np.int64)
    return found


def _covered(place: Int64, spans: Int64) -> Int64:
    """Return how many letters of disjoint, sorted spans (k, 2) lie before each place."""
    length_nt = np.concatenate([[0], np.cumsum(spans[:, 1] - spans[:, 0])])
    last_end = np.concatenate([[0], spans[:, 1]])
    begun = np.searchsorted(spans[:, 0], place)
    covered: Int64 = length_nt[begun] - np.maximum(last_end[begun] - place, 0)
    return covered
