"""Measures of how scores tell viral from other, from labels and scores, with numpy alone.

Everywhere: label (n,) bool, True = viral; score (n,) float, higher = more viral, nan = no score.
What has no score ranks below every score, equal among itself, and is never called viral. A number
that the data cannot give is None, never 0.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

Bool = NDArray[np.bool_]
Float64 = NDArray[np.float64]
Int64 = NDArray[np.int64]

LEVEL = 0.95  # of intervals


@dataclass(frozen=True, slots=True)
class Interval:
    """Ends of a confidence interval, and the share of resamples that it holds."""

    low: float
    high: float
    level: float


@dataclass(frozen=True, slots=True)
class Confusion:
    """The calls of labelled rows at a threshold; a score equal to the threshold is called viral."""

    true_positives: int
    false_positives: int
    true_negatives: int
    false_negatives: int

    @property
    def accuracy(self) -> float | None:
        """Share of rows called right."""
        right = self.true_positives + self.true_negatives
        return _share(right, right + self.false_positives + self.false_negatives)

    @property
    def precision(self) -> float | None:
        """Share of the rows called viral that are; None when none is called viral."""
        return _share(self.true_positives, self.true_positives + self.false_positives)

    @property
    def recall(self) -> float | None:
        """Share of the viral rows that are called viral."""
        return _share(self.true_positives, self.true_positives + self.false_negatives)

    @property
    def false_positive_rate(self) -> float | None:
        """Share of the other rows that are called viral."""
        return _share(self.false_positives, self.false_positives + self.true_negatives)

    @property
    def f1(self) -> float | None:
        """Harmonic mean of precision and recall."""
        twice = 2 * self.true_positives
        return _share(twice, twice + self.false_positives + self.false_negatives)


def confusion(label: Bool, score: Float64, threshold: float) -> Confusion:
    """Counts of right and wrong calls at score >= threshold."""
    called = ranked(score) >= threshold
    return Confusion(
        true_positives=int(np.count_nonzero(called & label)),
        false_positives=int(np.count_nonzero(called & ~label)),
        true_negatives=int(np.count_nonzero(~called & ~label)),
        false_negatives=int(np.count_nonzero(~called & label)),
    )


def ranked(score: Float64) -> Float64:
    """The scores with -inf where a score is missing."""
    return np.where(np.isnan(score), -np.inf, score)


def auroc(label: Bool, score: Float64) -> float | None:
    """P(a viral row scores higher than another row), equal scores counted half.

    The Mann-Whitney statistic over the product of the class sizes. None with one class only.
    """
    order, first_of_tie = _ascending(score)
    weight = np.ones(len(label))
    return _weighted_auroc(label[order], weight, first_of_tie)


def auprc(label: Bool, score: Float64) -> float | None:
    """Average precision: sum over distinct scores of (step of recall) * precision there.

    No interpolation. None without a viral row.
    """
    if not label.any():
        return None
    true, false, _ = _called_at_each_score(label, score)
    precision = true / (true + false)
    return float(np.sum(np.diff(true, prepend=0) / true[-1] * precision))


def recall_at_false_positive_rate(label: Bool, score: Float64, rate: float) -> float | None:
    """The highest recall of any threshold that calls at most rate * (other rows) wrongly viral.

    The threshold is one of the scores, so rows without a score are never called. None when no row
    is viral, or when rate * (other rows) < 1: so few others cannot resolve the rate.
    """
    others = int(np.count_nonzero(~label))
    allowed = rate * others * (1 + 1e-12)  # 0.001 * 3000 rounds to just below 3 or above it
    if allowed < 1 or not label.any():
        return None
    true, false, values = _called_at_each_score(label, score)
    possible = (false <= allowed) & np.isfinite(values)
    return float(true[possible].max(initial=0) / np.count_nonzero(label))


def expected_precision(
    recall: float | None, false_positive_rate: float | None, prevalence: float
) -> float | None:
    """Precision in a sample of which the share prevalence is viral (Bayes' rule).

    A rate of 0 among few other rows makes this an upper limit. None when nothing would be called.
    """
    if recall is None or false_positive_rate is None:
        return None
    right = recall * prevalence
    wrong = false_positive_rate * (1 - prevalence)
    return right / (right + wrong) if right + wrong > 0 else None


def auroc_interval(
    label: Bool,
    score: Float64,
    unit: Sequence[str] | NDArray[np.str_],
    *,
    resamples: int = 1000,
    seed: int = 0,
) -> Interval | None:
    """Bootstrap interval of the AUROC over units: percentiles of resampled AUROCs.

    Whole units are drawn with replacement, those of the viral and of the other rows apart, as many
    as there are; rows of one unit resemble each other, so an interval over rows would be too
    narrow. None with one class only.
    """
    return _interval(label, score, unit, _weighted_auroc, resamples, seed)


def recall_interval(
    label: Bool,
    score: Float64,
    unit: Sequence[str] | NDArray[np.str_],
    rate: float,
    *,
    resamples: int = 1000,
    seed: int = 0,
) -> Interval | None:
    """Bootstrap interval of recall_at_false_positive_rate over units, as auroc_interval.

    None where that recall is None.
    """
    if recall_at_false_positive_rate(label, score, rate) is None or label.all():
        return None
    lowest_has_score = bool(np.isfinite(ranked(score)).all())

    def recall(label: Bool, weight: Float64, first_of_tie: NDArray[np.intp]) -> float:
        true, false = _down(label, weight, first_of_tie)
        possible = false <= rate * false[-1] * (1 + 1e-12)
        possible[-1] &= lowest_has_score
        return float(true[possible].max(initial=0.0) / true[-1])

    return _interval(label, score, unit, recall, resamples, seed)


def _down(label: Bool, weight: Float64, first_of_tie: NDArray[np.intp]) -> tuple[Float64, Float64]:
    """Weight of viral and of other rows at or above each distinct score, from the highest down."""
    viral = np.add.reduceat(np.where(label, weight, 0.0), first_of_tie)
    other = np.add.reduceat(np.where(label, 0.0, weight), first_of_tie)
    return np.cumsum(viral[::-1]), np.cumsum(other[::-1])


def _interval(
    label: Bool,
    score: Float64,
    unit: Sequence[str] | NDArray[np.str_],
    statistic: Callable[[Bool, Float64, NDArray[np.intp]], float | None],
    resamples: int,
    seed: int,
) -> Interval | None:
    """Percentiles of a statistic of rows in ascending order that count weight times each."""
    if len(label) == 0 or label.all() or not label.any():
        return None
    order, first_of_tie = _ascending(score)
    _, unit_of_row = np.unique(np.asarray(unit, dtype=np.str_), return_inverse=True)
    _, side_unit = np.unique(2 * unit_of_row + label, return_inverse=True)
    side_unit, sorted_label = side_unit[order], label[order]
    sides = [np.unique(side_unit[sorted_label]), np.unique(side_unit[~sorted_label])]
    rng = np.random.default_rng(seed)
    weight_of_unit = np.zeros(side_unit.max() + 1)
    found = np.empty(resamples)
    for b in range(resamples):
        for units in sides:
            drawn = rng.integers(len(units), size=len(units))
            weight_of_unit[units] = np.bincount(drawn, minlength=len(units))
        value = statistic(sorted_label, weight_of_unit[side_unit], first_of_tie)
        found[b] = np.nan if value is None else value
    low, high = np.quantile(found, [(1 - LEVEL) / 2, (1 + LEVEL) / 2])
    return Interval(float(low), float(high), LEVEL)


def _share(part: int, whole: int) -> float | None:
    return part / whole if whole else None


def _ascending(score: Float64) -> tuple[NDArray[np.intp], NDArray[np.intp]]:
    """Order of the rows by score, and where in that order each run of equal scores begins."""
    value = ranked(score)
    order = np.argsort(value, kind="stable")
    ordered = value[order]
    begins = np.ones(len(ordered), dtype=np.bool_)
    begins[1:] = ordered[1:] != ordered[:-1]
    return order, np.flatnonzero(begins)


def _weighted_auroc(label: Bool, weight: Float64, first_of_tie: NDArray[np.intp]) -> float | None:
    """AUROC of rows in ascending order of score that count weight times each."""
    if len(label) == 0:
        return None
    viral = np.add.reduceat(np.where(label, weight, 0.0), first_of_tie)
    other = np.add.reduceat(np.where(label, 0.0, weight), first_of_tie)
    pairs = viral.sum() * other.sum()
    if pairs == 0:
        return None
    below = np.cumsum(other) - other
    return float(np.sum(viral * (below + other / 2)) / pairs)


def _called_at_each_score(label: Bool, score: Float64) -> tuple[Int64, Int64, Float64]:
    """Viral and other rows at or above each distinct score, from the highest score down."""
    order, first_of_tie = _ascending(score)
    down = np.append(first_of_tie, len(order))[-2::-1]
    viral_before = np.concatenate([[0], np.cumsum(label[order])])
    true = viral_before[-1] - viral_before[down]
    rows = len(order) - down
    return true, rows - true, ranked(score)[order][down]
