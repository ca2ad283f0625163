"""Scored blocks made by hand: contigs with chunks, cut into blocks anywhere."""

from collections.abc import Sequence
from dataclasses import dataclass, field
from itertools import pairwise
from pathlib import Path

import numpy as np

from virnucpro.blocks import Rows, Scored
from virnucpro.calls import Scores, Status, frame_scores_to_chunks
from virnucpro.records import Record, Records
from virnucpro.results.files import RunFiles
from virnucpro.run.journal import Journal


@dataclass(frozen=True)
class MadeChunk:
    start: int
    end: int
    status: Status = Status.OK
    frames: dict[int, tuple[float, float]] = field(default_factory=dict)  # P(others), P(virus)


@dataclass(frozen=True)
class MadeContig:
    name: str
    chunks: Sequence[MadeChunk] = ()
    length_nt: int = 0
    fault: str = ""
    sample: str = "in"


def blocks_of_made(contigs: Sequence[MadeContig], cuts: Sequence[int], kind: str = "frames"):
    """cuts: after how many chunks (a contig without any counts as one) a new block begins."""
    pieces = [
        (ordinal, k) for ordinal, c in enumerate(contigs) for k in range(max(1, len(c.chunks)))
    ]
    inner = {c for c in cuts if 0 < c < len(pieces)}
    edges = [0, *sorted(inner), len(pieces)]
    parts = [pieces[a:b] for a, b in pairwise(edges) if b > a]
    return [block_of(number, part, contigs, kind) for number, part in enumerate(parts)]


def block_of(number, part, contigs, kind) -> Scored:
    records, rows, chunks = [], [], []
    for ordinal in sorted({ordinal for ordinal, _ in part}):
        contig = contigs[ordinal]
        mine = [k for o, k in part if o == ordinal]
        ends = mine[-1] + 1 == max(1, len(contig.chunks))
        first_of_sample = next(i for i, c in enumerate(contigs) if c.sample == contig.sample)
        records.append(
            Record(
                ordinal=ordinal,
                sample=contig.sample,
                record=ordinal - first_of_sample + 1,
                name=contig.name,
                length_nt=contig.length_nt,
                begins=mine[0] == 0,
                ends=ends,
                fault=contig.fault,
            )
        )
        for k in mine:
            if contig.chunks:
                rows.append((len(records) - 1, k + 1, contig.chunks[k].start, contig.chunks[k].end))
                chunks.append(contig.chunks[k])
    columns = np.array(rows, dtype=np.int64).reshape(-1, 4).T
    made = Rows(
        record=columns[0].astype(np.int32),
        number=columns[1].astype(np.int32),
        start=columns[2].copy(),
        end=columns[3].copy(),
    )
    scores = frame_scores(chunks) if kind == "frames" else chunk_scores(chunks)
    return Scored(number, f"digest {number}", Records.of(records), made, scores)


def frame_scores(chunks: Sequence[MadeChunk]) -> Scores:
    found = [(i, f, *p) for i, c in enumerate(chunks) for f, p in sorted(c.frames.items())]
    columns = list(zip(*found, strict=True)) or [(), (), (), ()]
    return frame_scores_to_chunks(
        len(chunks),
        np.array(columns[0], dtype=np.int32),
        np.array(columns[1], dtype=np.uint8),
        np.array(columns[2], dtype=np.float32),
        np.array(columns[3], dtype=np.float32),
        np.array([c.status for c in chunks], dtype=np.uint8),
    )


def chunk_scores(chunks: Sequence[MadeChunk]) -> Scores:
    """As a classifier of whole chunks gives them: all six frames, one row for the heaviest."""
    called = [i for i, c in enumerate(chunks) if c.status.called]
    heavy = [next(iter(chunks[i].frames.items())) for i in called]
    p_virus = np.full(len(chunks), np.nan)
    p_virus[called] = [p[1] for _, p in heavy]
    missing = np.full(len(chunks), np.nan, dtype=np.float32)
    return Scores(
        status=np.array([c.status for c in chunks], dtype=np.uint8),
        frames=np.array([63 * c.status.called for c in chunks], dtype=np.uint8),
        p_virus=p_virus,
        max_p_virus=missing,
        max_p_others=missing.copy(),
        frame_chunk=np.array(called, dtype=np.int32),
        frame=np.array([f for f, _ in heavy], dtype=np.uint8),
        frame_p_others=np.array([p[0] for _, p in heavy], dtype=np.float32),
        frame_p_virus=np.array([p[1] for _, p in heavy], dtype=np.float32),
    )


def journal_in(run_dir: Path) -> tuple[RunFiles, Journal]:
    """A journal in a new run directory, with its files."""
    files = RunFiles(run_dir)
    files.blocks.mkdir(parents=True)
    return files, Journal(files, {})
