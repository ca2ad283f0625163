"""Fits how the groups that a network names become the origin of a record."""

from collections.abc import Mapping, Sequence

import numpy as np
from numpy.typing import NDArray

from virnucpro.bundle.calibration import Origin
from virnucpro.errors import InputError
from virnucpro.train.scored_records import ScoredRecords

Bool = NDArray[np.bool_]
Float64 = NDArray[np.float64]

# Of the origins that are told, so many are right.
PRECISION = 0.9
_STEPS = 400
_RATE = 0.5
_RIDGE = 1e-2


def fit_origin(
    records: ScoredRecords,
    groups: Sequence[str],
    names: Mapping[str, str],
    stands_for: Mapping[str, Sequence[str]],
) -> Origin:
    """Fit bias and scale of the groups' log-probabilities by multinomial logistic regression.

    groups: of the network, in its order; names: the origin that each counts as, by default its own
    name; stands_for: the groups that a group of the data may be, where that is several. Every
    group of the data weighs the same. The threshold is left at 0; see with_threshold. Raises
    InputError for scores of a network without groups.
    """
    if records.groups.shape[1] != len(groups) or not len(groups):
        raise InputError("the network of this bundle names no groups, so there is no origin to fit")
    possible = _possible(records, groups, stands_for)
    kept = possible.any(axis=1)
    x, possible = records.groups[kept], possible[kept]
    weight = 1.0 / np.bincount(records.group)[records.group[kept]]
    weight /= weight.sum()
    bias, scale = np.zeros(len(groups)), 1.0
    for _ in range(_STEPS):
        p = _softmax(bias + scale * x)
        inside = np.where(possible, p, 0.0)
        inside /= np.maximum(inside.sum(axis=1, keepdims=True), 1e-12)
        slope = weight[:, None] * (p - inside)
        bias -= _RATE * (slope.sum(axis=0) + _RIDGE * bias / len(groups))
        scale -= _RATE * float((slope * x).sum()) / max(1.0, float(np.abs(x).max()))
        scale = max(scale, 0.05)
    return Origin(tuple(groups), tuple(names.get(g, g) for g in groups), bias, scale, 0.0)


def with_threshold(
    origin: Origin,
    records: ScoredRecords,
    stands_for: Mapping[str, Sequence[str]],
    precision: float = PRECISION,
) -> Origin:
    """Return the origin with the least threshold at which its calls reach the precision.

    Every group of the records weighs the same.
    """
    right, sure, weight = _judged(origin, records, stands_for)
    order = np.argsort(-sure, kind="stable")
    share = np.cumsum((right * weight)[order]) / np.cumsum(weight[order])
    good = np.flatnonzero(share >= precision)
    least = float(sure[order][good[-1]]) if len(good) else 1.0
    # Rounded up, so that no record at the edge is told that was not counted.
    threshold = min(1.0, np.ceil(1000 * least) / 1000)
    return Origin(origin.groups, origin.names, origin.bias, origin.scale, float(threshold))


def confusion_of(
    origin: Origin, records: ScoredRecords, stands_for: Mapping[str, Sequence[str]]
) -> dict[str, dict[str, int]]:
    """Records of each group by their origin, for a card."""
    told = origin.of(records.groups)
    found: dict[str, dict[str, int]] = {}
    for g, name in enumerate(records.group_names):
        counts = np.bincount(told[records.group == g], minlength=len(origin.choices))
        if counts.sum() and (name in origin.groups or name in stands_for):
            row = zip(origin.choices, counts.tolist(), strict=True)
            found[name] = {choice: number for choice, number in row if number}
    return found


def precision_of(
    origin: Origin, records: ScoredRecords, stands_for: Mapping[str, Sequence[str]]
) -> tuple[float, float]:
    """Share of the told origins that are right, and share of the records that are told one."""
    right, sure, weight = _judged(origin, records, stands_for)
    told = sure >= origin.threshold
    return (
        float(np.average(right[told], weights=weight[told])) if told.any() else float("nan"),
        float(np.average(told, weights=weight)),
    )


def _judged(
    origin: Origin, records: ScoredRecords, stands_for: Mapping[str, Sequence[str]]
) -> tuple[Bool, Float64, Float64]:
    """Return, of known records, if the likeliest origin is right, its probability, and a weight."""
    possible = _possible(records, origin.groups, stands_for)
    kept = possible.any(axis=1)
    p = _softmax(origin.bias + origin.scale * records.groups[kept])
    choices = origin.choices[1:]
    members = np.array([[name == choice for name in origin.names] for choice in choices])
    coarse = p @ members.T
    best = coarse.argmax(axis=1)
    right = (possible[kept] @ members.T)[np.arange(len(best)), best] > 0
    weight = 1.0 / np.bincount(records.group)[records.group[kept]]
    return right, coarse[np.arange(len(best)), best], weight


def _possible(
    records: ScoredRecords, groups: Sequence[str], stands_for: Mapping[str, Sequence[str]]
) -> Bool:
    """Return which groups of the network each record may be of, (r, G)."""
    of_group = np.array(
        [
            [group in stands_for.get(name, (name,)) for group in groups]
            for name in records.group_names
        ]
    )
    return of_group[records.group]


def _softmax(logits: Float64) -> Float64:
    p = np.exp(logits - logits.max(axis=1, keepdims=True))
    scaled: Float64 = p / p.sum(axis=1, keepdims=True)
    return scaled
