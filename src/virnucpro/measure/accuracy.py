"""The accuracy of a classifier on labelled contigs: per chunk and per contig, in all and in parts.

Also draws the fragments of a given length that a bundle's card is measured on. Knows nothing of
the classifier but that it scores chunks; prints nothing: tables are rows of text for the caller.
"""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import asdict, dataclass, field, replace
from typing import Any, Literal, Protocol

import numpy as np
from numpy.typing import NDArray

from virnucpro.blocks import Texts
from virnucpro.bundle.calibration import Calibration, probability
from virnucpro.calls import DEFAULT_THRESHOLD, Rule, Scores
from virnucpro.chunks import span_arrays
from virnucpro.classifiers.screen import with_notes
from virnucpro.measure.labels import NOVELTIES, STRICT, LabelledContig
from virnucpro.measure.metrics import (
    Confusion,
    Interval,
    auprc,
    auroc,
    auroc_interval,
    confusion,
    expected_precision,
    ranked,
    recall_at_false_positive_rate,
    recall_interval,
)
from virnucpro.results.contig_calls import ContigCalls, Contigs

Bool = NDArray[np.bool_]
Float64 = NDArray[np.float64]
Int64 = NDArray[np.int64]
Progress = Callable[[int], None]
Rank = Literal["chunk", "contig"]

SCORED_AT_ONCE_NT = 2_000_000
PREVALENCES = (0.001, 0.01, 0.1)
MOST_UNKNOWN = 0.05
DRAWS_BEFORE_GIVING_UP = 50
COMPLEMENT = bytes.maketrans(b"ACGT", b"TGCA")
ACGT = b"ACGT"


class ScoresChunks(Protocol):
    """The part of a classifier that is needed here."""

    @property
    def name(self) -> str:
        """Name that results are reported under."""

    def score(self, chunks: Sequence[str]) -> Scores:
        """Scores of chunks given as text."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Performance:
    """Numbers for one part of the data; None for a number that the part cannot give.

    part and value name it (`group`, `phage`); of `all` the value is empty. A part with both
    labels is judged within itself. A part with one label is set against every row of the other
    label for AUROC and recall at a false-positive rate (against says so); accuracy, recall and
    false-positive rate are its own, and precision, F1 and AUPRC, which depend on how much of the
    other side there is, are left out. without_score of its rows have no score and rank lowest.
    The intervals, of AUROC and of recall at 1 % false positives, resample units; parts with both
    labels have the first, all rows and those of one novelty both.
    """

    part: str
    value: str
    against: str
    viral: int
    others: int
    without_score: int
    auroc: float | None
    auroc_interval: Interval | None
    auprc: float | None
    accuracy: float | None
    precision: float | None
    recall: float | None
    false_positive_rate: float | None
    f1: float | None
    recall_at_1pct_fpr: float | None
    recall_at_1pct_fpr_interval: Interval | None
    recall_at_01pct_fpr: float | None


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


TABLE_HEADER = (
    "part",
    "against",
    "viral",
    "others",
    "no score",
    "AUROC",
    "95 % interval",
    "AUPRC",
    "accuracy",
    "precision",
    "recall",
    "FPR",
    "F1",
    "recall at 1 % FPR",
    "95 % interval of it",
    "recall at 0.1 % FPR",
)


def table_row(performance: Performance) -> list[str]:
    """One row of text under TABLE_HEADER."""
    counts = (performance.viral, performance.others, performance.without_score)
    return [
        f"{performance.part} {performance.value}".strip(),
        performance.against,
        *map(str, counts),
        _text(performance.auroc),
        _ends(performance.auroc_interval),
        _text(performance.auprc),
        _text(performance.accuracy),
        _text(performance.precision),
        _text(performance.recall),
        _text(performance.false_positive_rate),
        _text(performance.f1),
        _text(performance.recall_at_1pct_fpr),
        _ends(performance.recall_at_1pct_fpr_interval),
        _text(performance.recall_at_01pct_fpr),
    ]


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
    measured = _Measurement(contigs, threshold, resamples, seed)
    cut = threshold if contig_threshold is None else contig_threshold
    by_contig = _Measurement(contigs, cut, resamples, seed)
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
        measured = _Measurement(fragments, threshold, resamples, seed)
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


def fragments_at(
    contigs: Sequence[LabelledContig], length_nt: int, per_side: int, seed: int = 0
) -> list[LabelledContig]:
    """About per_side fragments of length_nt from the contigs of each label.

    The same share for every group of a label, round-robin over the units of a group (in an order
    drawn by the seed), within a unit every start equally likely, a random strand; no start twice
    on a contig and at most 5 % of letters other than A, C, G, T. A group without a contig of that
    length has no fragment, and its share goes to the others; one that runs out of new starts gives
    fewer. Named f<length>_<number>.
    """
    rng = np.random.default_rng([seed, length_nt])
    fragments: list[LabelledContig] = []
    for label in (1, 0):
        long_enough = [c for c in contigs if c.label == label and len(c.sequence) >= length_nt]
        groups: dict[str, list[LabelledContig]] = {}
        for contig in long_enough:
            groups.setdefault(contig.group, []).append(contig)
        for place, group in enumerate(sorted(groups)):
            share = per_side // len(groups) + (place < per_side % len(groups))
            for contig, sequence in _drawn(groups[group], length_nt, share, rng):
                name = f"f{length_nt}_{len(fragments) + 1}"
                fragments.append(_named(contig, name, sequence))
    return fragments


def _drawn(
    contigs: list[LabelledContig], length_nt: int, count: int, rng: np.random.Generator
) -> Iterator[tuple[LabelledContig, bytes]]:
    """Fragments of one group, its units in turn; a unit that gives nothing new is left out."""
    units: dict[str, list[LabelledContig]] = {}
    for contig in contigs:
        units.setdefault(contig.unit, []).append(contig)
    names = sorted(units)
    turn = [units[names[i]] for i in rng.permutation(len(names))]
    used: set[tuple[str, int]] = set()
    while count > 0 and turn:
        for unit in list(turn):
            found = _new_fragment(unit, length_nt, used, rng)
            if found is None:
                turn.remove(unit)
                continue
            yield found
            count -= 1
            if count == 0:
                return


def _new_fragment(
    unit: list[LabelledContig],
    length_nt: int,
    used: set[tuple[str, int]],
    rng: np.random.Generator,
) -> tuple[LabelledContig, bytes] | None:
    starts = np.cumsum([len(contig.sequence) - length_nt + 1 for contig in unit])
    for _ in range(DRAWS_BEFORE_GIVING_UP):
        behind = int(rng.integers(1, starts[-1] + 1))
        place = int(np.searchsorted(starts, behind))
        contig, start = unit[place], int(starts[place]) - behind
        sequence = contig.sequence[start : start + length_nt]
        unknown = len(sequence.translate(None, ACGT))
        if (contig.name, start) in used or unknown > MOST_UNKNOWN * length_nt:
            continue
        used.add((contig.name, start))
        flip = rng.random() < 0.5
        return contig, sequence.translate(COMPLEMENT)[::-1] if flip else sequence
    return None


def _named(contig: LabelledContig, name: str, sequence: bytes) -> LabelledContig:
    return replace(contig, name=name, sequence=sequence)


def _parts(length_nt: Int64) -> Iterator[slice]:
    """Slices of rows of about SCORED_AT_ONCE_NT letters each."""
    part = (np.cumsum(length_nt) - length_nt) // SCORED_AT_ONCE_NT
    ends = np.flatnonzero(np.diff(part, append=-1)) + 1
    first = 0
    for end in ends.tolist():
        yield slice(first, end)
        first = end


def _ends(interval: Interval | None) -> str:
    return "" if interval is None else f"{interval.low:.3f}-{interval.high:.3f}"


def _text(value: float | None) -> str:
    return "" if value is None else f"{value:.3f}"


class _Measurement:
    """Turns scores of rows, chunks or contigs, into performances over all rows and over parts."""

    def __init__(
        self, contigs: Sequence[LabelledContig], threshold: float, resamples: int, seed: int
    ) -> None:
        self._threshold = threshold
        self._resamples = resamples
        self._seed = seed
        self._label = np.array([c.label == 1 for c in contigs], dtype=np.bool_)
        novelty = np.array([c.novelty for c in contigs], dtype=np.str_)
        named = [*NOVELTIES, *sorted({*novelty.tolist()} - {*NOVELTIES, ""})]
        self._novelties = {value: novelty == value for value in named}
        self._novelties = {"strict": np.isin(novelty, STRICT), **self._novelties}
        self._unit = np.array([c.unit for c in contigs], dtype=np.str_)
        self._parts = {
            "group": np.array([c.group for c in contigs], dtype=np.str_),
            "level": np.array([c.level for c in contigs], dtype=np.str_),
            "source": np.array([c.source for c in contigs], dtype=np.str_),
            "source and level": np.array(
                [f"{c.source} {c.level}" if c.source and c.level else "" for c in contigs],
                dtype=np.str_,
            ),
        }

    def of_rows(self, contig: Int64, score: Float64) -> tuple[Performance, ...]:
        """Over all rows, then over every part that the contigs are described by."""
        found = [self.over_all(contig, score)]
        found += [
            self._over("novelty", value, inside[contig] & self._label[contig], contig, score)
            for value, inside in self._novelties.items()
            if (inside[contig] & self._label[contig]).any()
        ]
        for part, value_of_contig in self._parts.items():
            values = value_of_contig[contig]
            found += [
                self._over(part, value, values == value, contig, score)
                for value in np.unique(values[values != ""]).tolist()
            ]
        return tuple(found)

    def over_all(self, contig: Int64, score: Float64) -> Performance:
        """Over all rows."""
        return self._over("all", "", np.ones(len(contig), dtype=np.bool_), contig, score)

    def _over(
        self, part: str, value: str, inside: Bool, contig: Int64, score: Float64
    ) -> Performance:
        label = self._label[contig]
        own_label, own_score = label[inside], score[inside]
        both = bool(own_label.any() and not own_label.all())
        rows = inside if both else inside | (label != label[inside].any())
        against = (
            "" if rows.sum() == inside.sum() else "all others" if own_label[0] else "all viral"
        )
        counts = confusion(own_label, own_score, self._threshold)
        row_label, row_score = label[rows], score[rows]
        viral_side = bool(own_label.any())
        return Performance(
            part=part,
            value=value,
            against=against,
            viral=int(own_label.sum()),
            others=int((~own_label).sum()),
            without_score=int(np.count_nonzero(np.isneginf(ranked(own_score)))),
            auroc=auroc(row_label, row_score),
            auroc_interval=self._interval(row_label, row_score, contig[rows])
            if both or part == "novelty"
            else None,
            auprc=auprc(own_label, own_score) if both else None,
            **_of_calls(counts, both),
            recall_at_1pct_fpr=_recall_at(row_label, row_score, 0.01) if viral_side else None,
            recall_at_1pct_fpr_interval=self._recall_interval(row_label, row_score, contig[rows])
            if part in ("all", "novelty")
            else None,
            recall_at_01pct_fpr=_recall_at(row_label, row_score, 0.001) if viral_side else None,
        )

    def _interval(self, label: Bool, score: Float64, contig: Int64) -> Interval | None:
        unit = self._unit[contig]
        return auroc_interval(label, score, unit, resamples=self._resamples, seed=self._seed)

    def _recall_interval(self, label: Bool, score: Float64, contig: Int64) -> Interval | None:
        unit = self._unit[contig]
        return recall_interval(label, score, unit, 0.01, resamples=self._resamples, seed=self._seed)


def _recall_at(label: Bool, score: Float64, rate: float) -> float | None:
    return recall_at_false_positive_rate(label, score, rate)


def _of_calls(counts: Confusion, both: bool) -> dict[str, float | None]:
    return {
        "accuracy": counts.accuracy,
        "precision": counts.precision if both else None,
        "recall": counts.recall,
        "false_positive_rate": counts.false_positive_rate,
        "f1": counts.f1 if both else None,
    }
