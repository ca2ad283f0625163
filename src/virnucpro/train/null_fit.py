"""Scores of others: negatives one a unit, bounds for hosts of a few units, and the threshold."""

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from virnucpro.bundle.calibration import LENGTH_EDGES, Bounds, Negatives, RecordRule, probability
from virnucpro.train.scored_records import UNNAMED, ScoredRecords

Float64 = NDArray[np.float64]
Int64 = NDArray[np.int64]

# Shares of others are bounded for hosts of so few units, with this probability.
FEW_UNITS, SURE, UNIT_DRAWS = 5, 0.95, 1000
# Of fewer units one is more than a twentieth, the rate that thresholds are made for.
DECIDING = 20


def nulls_of(records: ScoredRecords, rule: RecordRule) -> Negatives:
    """The negatives of a calibration: of every unit that is not viral, one record a length bin."""
    kept = records.part(~records.viral & records.first)
    # Two windows of one unit may end in one bin, where chunks without a call shorten them.
    _, once = np.unique(np.stack([kept.unit, kept.length_bin]), axis=1, return_index=True)
    kept = kept.part(np.sort(once))
    present, group = np.unique(kept.group, return_inverse=True)
    return Negatives(
        log_odds=rule.log_odds(kept.evidence, kept.called_nt),
        length_bin=kept.length_bin.astype(np.uint8),
        group=group.astype(np.uint8),
        names=tuple(kept.group_names[i] or UNNAMED for i in present.tolist()),
    )


def bounds_of(
    records: ScoredRecords, rule: RecordRule, names: Sequence[str], seed: int = 0
) -> Bounds:
    """Return the shares of others above scores that hosts of FEW_UNITS units stay below.

    A share is the SURE quantile of the mean over FEW_UNITS units drawn at random, each with the
    share of its own windows; with n units it is raised to (1 + n * share) / (1 + n). names: of the
    negatives, whose bounds come in this order, then those of all together, and those of viral
    records, which are the 1 - SURE quantile, lowered to n * share / (1 + n).
    """
    score = rule.log_odds(records.evidence, records.called_nt)
    rng = np.random.default_rng(seed)
    of_name = {name or UNNAMED: i for i, name in enumerate(records.group_names)}
    sides = [~records.viral & (records.group == of_name[name]) for name in names]
    parts: list[tuple[Float64, Float64, int, int]] = []
    for group, side in enumerate((*sides, ~records.viral, records.viral)):
        for b in range(len(LENGTH_EDGES) + 1):
            here = side & (records.length_bin == b)
            if here.any():
                viral = bool(records.viral[here][0])
                parts.append((*_bound(score[here], records.unit[here], rng, viral), b, group))
    if not parts:
        return Bounds.none()
    sizes = [len(at) for at, _, _, _ in parts]
    return Bounds(
        np.concatenate([at for at, _, _, _ in parts]),
        np.concatenate([share for _, share, _, _ in parts]),
        np.repeat(np.array([b for _, _, b, _ in parts], np.uint8), sizes),
        np.repeat(np.array([group for _, _, _, group in parts], np.uint8), sizes),
    )


def _bound(
    score: Float64, unit: Int64, rng: np.random.Generator, viral: bool
) -> tuple[Float64, Float64]:
    """Scores, the last infinite, and the share up to each, (k,); score, unit: (r,)."""
    edges = np.append(np.unique(score), np.inf)
    rates = []
    for one in np.unique(unit):
        own = np.sort(score[unit == one])
        rates.append(1 - np.searchsorted(own, edges, side="left") / len(own))
    drawn = rng.integers(0, len(rates), (UNIT_DRAWS, FEW_UNITS))
    table, level = np.stack(rates), 1 - SURE if viral else SURE
    # A slice of the edges at a time, so that thousands of them fit into memory.
    pieces = np.array_split(table, max(1, len(edges) // 500), axis=1)
    share = np.concatenate([np.quantile(p[drawn].mean(1), level, axis=0) for p in pieces])
    share = ((not viral) + len(rates) * share) / (1 + len(rates))
    digits = 10.0 ** (1 - np.floor(np.log10(np.maximum(share, 1e-9))))
    round_away = np.floor if viral else np.ceil
    share = np.clip(round_away(share * digits + (1e-9 if viral else -1e-9)) / digits, 0, 1)
    kept = np.append(share[1:] != share[:-1], True)
    return edges[kept], share[kept]


def threshold_for(records: ScoredRecords, rule: RecordRule, worst_rate: float) -> tuple[float, str]:
    """The least p_virus at which no group of others is called virus more often than worst_rate.

    Every unit of a group and length counts the same, so that lengths of which a group has few
    units, one of which may be a fifth of them, weigh little. Groups of fewer than DECIDING units do
    not decide, unless all are. Returns the threshold, with two decimals, and the group.
    """
    others = records.part(~records.viral)
    score = rule.log_odds(others.evidence, others.called_nt)
    of = np.stack([others.group, others.unit, others.length_bin])
    _, cell, sizes = np.unique(of, axis=1, return_inverse=True, return_counts=True)
    weight = 1 / sizes[cell.reshape(-1)]
    units = {g: len(np.unique(others.unit[others.group == g])) for g in np.unique(others.group)}
    cuts = {}
    for group, number in units.items():
        if number >= min(DECIDING, max(units.values())):
            here = others.group == group
            order = np.argsort(score[here])
            share = np.cumsum(weight[here][order]) / weight[here].sum()
            cuts[int(group)] = score[here][order][np.searchsorted(share, 1 - worst_rate)]
    worst = max(cuts, key=lambda group: cuts[group])
    threshold = np.ceil(100 * float(probability(np.array([cuts[worst]]))[0])) / 100
    return min(float(threshold), 0.99), others.group_names[worst] or UNNAMED
