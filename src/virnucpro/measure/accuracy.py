"""The accuracy of a classifier on labelled contigs: per chunk and per contig, in all and in parts.

Knows nothing of the classifier but that it scores chunks; prints nothing: tables are rows of text
for the caller.
"""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import asdict, dataclass, field
from typing import Any, Literal, Protocol

import numpy as np
from numpy.typing import NDArray

from virnucpro.blocks import Texts
from virnucpro.bundle.calibration import Calibration, probability
from virnucpro.calls import DEFAULT_THRESHOLD, Rule, Scores
from virnucpro.chunks import span_arrays
from virnucpro.classifiers.screen import with_notes
from virnucpro.measure.fragments import fragments_at
from virnucpro.measure.labels import LabelledContig
from virnucpro.measure.metrics import expected_precision
from virnucpro.measure.performance import TABLE_HEADER, Measurement, Performance, table_row
from virnucpro.results.contig_calls import ContigCalls, Contigs

Float64 = NDArray[np.float64]
Int64 = NDArray[np.int64]
Progress = Callable[[int], None]
Rank = Literal["chunk", "contig"]

SCORED_AT_ONCE_NT = 2_000_000
PREVALENCES = (0.001, 0.01, 0.1)


class ScoresChunks(Protocol):
    """The part of a classifier that is needed here."""

    @property
    def name(self) -> str:
        """Name that results are reported under."""

    def score(self, chunks: Sequence[str]) -> Scores:
        """Scores of chunks given as text."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Evaluation:
    """The measured numbers, at both ranks; the first Performance of each is that over all rows.

    expected_precision: at contig rank, pairs of the share of virus in a sample and the precision
    to expect there at the threshold.
    """

    classifier: str
    chunk_nt: int
    threshold: float
    bases: int
    seed: int
    chunk: tuple[Performance, ...] = field(repr=False)
    contig: tuple[Performance, ...] = field(repr=False)
    expected_precision: tuple[tuple[float, float | None], ...]

    def of(self, rank: Rank) -> tuple[Performance, ...]:
        """The performances at chunk or contig rank."""
        return self.chunk if rank == "chunk" else self.contig

    def as_dict(self) -> dict[str, Any]:
        """Plain values for JSON."""
        found = asdict(self)
        found["expected_precision"] = [
            {"prevalence": share, "precision": value} for share, value in self.expected_precision
        ]
        return found

    def table(self, rank: Rank) -> tuple[list[str], list[list[str]]]:
        """Header and rows of text at one rank, for a table; empty where a number is missing."""
        return list(TABLE_HEADER), [table_row(performance) for performance in self.of(rank)]


@dataclass(frozen=True, slots=True)
class ScoredContigs:
    """p_virus of the n chunks and of the contigs, nan without score.

    contig_of_chunk: (n,) index, ascending; chunk: (n,); contig: (contigs,).
    """

    contig_of_chunk: Int64
    chunk: Float64
    contig: Float64


def evaluate(
    classifier: ScoresChunks,
    contigs: Sequence[LabelledContig],
    *,
    chunk_nt: int,
    threshold: float = DEFAULT_THRESHOLD,
    resamples: int = 1000,
    seed: int = 0,
    progress: Progress | None = None,
    calibration: Calibration | None = None,
    contig_threshold: float | None = None,
) -> Evaluation:
    """Cut contigs into chunks, score them, and compare with the labels.

    A chunk has the label of its contig. progress is called with the bases of each part scored.
    calibration: makes scores of contigs, which contig_threshold cuts.
    """
    scored = score_contigs(classifier, contigs, chunk_nt, progress, calibration)
    measured = Measurement(contigs, threshold, resamples, seed)
    cut = threshold if contig_threshold is None else contig_threshold
    by_contig = Measurement(contigs, cut, resamples, seed)
    of_contigs = by_contig.of_rows(np.arange(len(contigs)), scored.contig)
    whole = of_contigs[0]
    return Evaluation(
        classifier=classifier.name,
        chunk_nt=chunk_nt,
        threshold=threshold,
        bases=sum(len(contig.sequence) for contig in contigs),
        seed=seed,
        chunk=measured.of_rows(scored.contig_of_chunk, scored.chunk),
        contig=of_contigs,
        expected_precision=tuple(
            (share, expected_precision(whole.recall, whole.false_positive_rate, share))
            for share in PREVALENCES
        ),
    )


def performance_by_length(
    classifier: ScoresChunks,
    contigs: Sequence[LabelledContig],
    *,
    chunk_nt: int,
    lengths_nt: Sequence[int],
    per_side: int = 2000,
    threshold: float = DEFAULT_THRESHOLD,
    resamples: int = 1000,
    seed: int = 0,
) -> dict[int, Performance]:
    """For each length, the performance over fragments of it, at contig rank; see fragments_at."""
    found = {}
    for length_nt in lengths_nt:
        fragments = fragments_at(contigs, length_nt, per_side, seed)
        scored = score_contigs(classifier, fragments, chunk_nt)
        measured = Measurement(fragments, threshold, resamples, seed)
        found[length_nt] = measured.over_all(np.arange(len(fragments)), scored.contig)
    return found


def score_contigs(
    classifier: ScoresChunks,
    contigs: Sequence[LabelledContig],
    chunk_nt: int,
    progress: Progress | None = None,
    calibration: Calibration | None = None,
) -> ScoredContigs:
    """Scores of all chunks of the contigs, in order, and of the contigs as predict makes them.

    calibration: that of the bundle, if it has one.
    """
    of_chunk, p_chunk = [], []

    def keep(row: Int64, scores: Scores) -> None:
        of_chunk.append(row)
        p_chunk.append(scores.p_virus)

    sums = contigs_of_labelled(classifier, contigs, chunk_nt, progress, keep)
    p_contig = sums.mean
    if calibration is not None:
        p_contig = probability(calibration.rule.log_odds(sums.evidence, sums.called_nt))
    empty = np.zeros(0, np.int64)
    return ScoredContigs(
        np.concatenate([empty, *of_chunk]), np.concatenate([np.zeros(0), *p_chunk]), p_contig
    )


def contigs_of_labelled(
    classifier: ScoresChunks,
    contigs: Sequence[LabelledContig],
    chunk_nt: int,
    progress: Progress | None = None,
    keep: Callable[[Int64, Scores], None] | None = None,
) -> Contigs:
    """Sums over the chunks of each contig, as predict makes them; of one without a chunk, too.

    A few megabases are scored at a time. keep: takes the contig of each chunk, and its scores.
    """
    of_chunk, start, end = _chunks(contigs, chunk_nt)
    contig_calls, finished = ContigCalls(), 0
    parts = [contig_calls.add(0, *_no_chunks(), last_ends=True)]
    for part in _parts(end - start):
        rows = zip(of_chunk[part], start[part], end[part], strict=True)
        texts = [contigs[c].sequence[s:e].decode("ascii") for c, s, e in rows]
        scores = classifier.score(texts)
        if len(scores) != len(texts):
            raise ValueError(f"{len(texts)} chunks went in, {len(scores)} scores came out")
        scores = with_notes(scores, Texts.of_strings(texts))
        if keep is not None:
            keep(of_chunk[part], scores)
        ends = part.stop == len(of_chunk)
        last = len(contigs) - 1 if ends else int(of_chunk[part.stop - 1])
        found = contig_calls.add(
            last - finished + 1,
            (of_chunk[part] - finished).astype(np.int32),
            start[part],
            end[part],
            scores,
            Rule("chunks").chunks(scores),
            last_ends=ends or int(of_chunk[part.stop]) != last,
        )
        parts.append(found)
        finished += len(found)
        if progress is not None:
            progress(sum(map(len, texts)))
    if finished < len(contigs):  # none of them has a chunk
        parts.append(contig_calls.add(len(contigs) - finished, *_no_chunks(), last_ends=True))
    return Contigs.joined(parts)


def _no_chunks() -> tuple[NDArray[np.int32], Int64, Int64, Scores, NDArray[np.uint8]]:
    empty = np.zeros(0, np.int64)
    return empty.astype(np.int32), empty, empty, Scores.failed(0), np.zeros(0, np.uint8)


def _chunks(contigs: Sequence[LabelledContig], chunk_nt: int) -> tuple[Int64, Int64, Int64]:
    """Index of the contig, start and end of every chunk, (n,) each."""
    spans = [span_arrays(len(contig.sequence), chunk_nt) for contig in contigs]
    empty = np.zeros(0, dtype=np.int64)
    return (
        np.repeat(np.arange(len(contigs)), [len(start) for start, _ in spans]),
        np.concatenate([empty, *(start for start, _ in spans)]),
        np.concatenate([empty, *(end for _, end in spans)]),
    )


def _parts(length_nt: Int64) -> Iterator[slice]:
    """Slices of rows of about SCORED_AT_ONCE_NT letters each."""
    part = (np.cumsum(length_nt) - length_nt) // SCORED_AT_ONCE_NT
    ends = np.flatnonzero(np.diff(part, append=-1)) + 1
    first = 0
    for end in ends.tolist():
        yield slice(first, end)
        first = end
