"""Scores of labelled rows -> numbers over all rows and over parts of them, and these as text.

A row is a chunk or a contig. Knows no classifier.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from virnucpro.measure.labels import NOVELTIES, STRICT, LabelledContig
from virnucpro.measure.metrics import (
    Confusion,
    Interval,
    auprc,
    auroc,
    auroc_interval,
    confusion,
    ranked,
    recall_at_false_positive_rate,
    recall_interval,
)

Bool = NDArray[np.bool_]
Float64 = NDArray[np.float64]
Int64 = NDArray[np.int64]


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


def _ends(interval: Interval | None) -> str:
    return "" if interval is None else f"{interval.low:.3f}-{interval.high:.3f}"


def _text(value: float | None) -> str:
    return "" if value is None else f"{value:.3f}"


class Measurement:
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
