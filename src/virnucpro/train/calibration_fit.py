"""Fits a calibration: windows of labelled sequences, their scores, and the rule of records.

Everything is balanced by hand, since it is unknown what a sample will hold: see
ScoredRecords.weight. The units must be others than those that the network was fitted on. This
module does not write files.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from itertools import pairwise
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from virnucpro.bundle.calibration import (
    LENGTH_EDGES,
    Calibration,
    Curve,
    Negatives,
    RecordRule,
    probability,
)
from virnucpro.errors import InputError
from virnucpro.measure.accuracy import ScoresChunks, contigs_of_labelled
from virnucpro.measure.labels import LabelledContig
from virnucpro.measure.metrics import expected_precision
from virnucpro.results.false_discovery import FEWEST

Bool = NDArray[np.bool_]
Float64 = NDArray[np.float64]
Int64 = NDArray[np.int64]

# At the default threshold so much of the worst group is called virus.
WORST_RATE = 0.05
# Knots of the curves, in chunks.
KNOTS = (0.12, 0.2, 0.35, 0.6, 1.0, 2.0, 4.0, 8.0, 16.0, 32.0, 64.0)
_POWERS = (0.0, 0.25, 0.5, 0.75, 1.0)
_ROUGH = 2.0  # weight of second differences against the log-likelihood of a thousand records
_STEPS = 60
_LEAST_B = 0.02
DRAWS = 40
PARTS = 15  # of a reliability diagram
_SHORTEST_NT, _LONGEST_CHUNKS = 60, 60.0
_MOST_UNKNOWN = 0.05
_TRIES = 20


class Window(NamedTuple):
    """A stretch of a labelled sequence. first: of its unit in its length bin."""

    contig: LabelledContig
    length_bin: int
    first: bool


@dataclass(frozen=True, slots=True)
class ScoredRecords:
    """Sums over the chunks of r records, as results.contig_calls.Contigs has them, and labels.

    unit, group: (r,) indices; first: (r,) of a unit in its length bin; groups: (r, G).
    """

    evidence: Float64
    called_nt: Float64
    viral: Bool
    unit: Int64
    group: Int64
    first: Bool
    length_bin: Int64
    group_names: tuple[str, ...]
    groups: Float64

    def part(self, kept: NDArray[Any]) -> "ScoredRecords":
        """Some of the records."""
        columns = ("evidence", "called_nt", "viral", "unit", "group", "first", "length_bin")
        return replace(
            self, **{n: getattr(self, n)[kept] for n in columns}, groups=self.groups[kept]
        )

    def by_host(self, hosts: Mapping[str, str]) -> "ScoredRecords":
        """The same records with the groups of others named as hosts."""
        names = [hosts.get(name, name) for name in self.group_names]
        known = tuple(sorted(set(names)))
        place = np.array([known.index(name) for name in names], np.int64)
        return replace(self, group=place[self.group], group_names=known)

    @property
    def weight(self) -> Float64:
        """Weight of each record, (r,), mean 1.

        Length bins and labels in them weigh the same, in these every group, in a group every unit.
        """
        side = _classes(self.length_bin, self.viral)
        group = _classes(side, self.group)
        unit = _classes(group, self.unit)
        _, first = np.unique(unit, return_index=True)
        units = np.bincount(group[first])[group]
        return _even(side, 1.0 / (units * np.bincount(unit)[unit]))

    @property
    def even_weight(self) -> Float64:
        """Weight of each record, (r,), mean 1: length bins and labels equal, and all in them."""
        return _even(_classes(self.length_bin, self.viral), np.ones(len(self.viral)))


def _classes(outer: NDArray[Any], inner: NDArray[Any]) -> Int64:
    """Numbers from 0 of the pairs of two columns, (r,)."""
    pairs = outer.astype(np.int64) * (int(inner.max(initial=0)) + 1) + inner.astype(np.int64)
    return np.unique(pairs, return_inverse=True)[1].astype(np.int64)


def _even(side: Int64, weight: Float64) -> Float64:
    """Weights scaled so that each side has the same sum, and all together the mean 1."""
    even = weight / np.bincount(side, weights=weight)[side]
    scaled: Float64 = even * len(even) / max(even.sum(), 1e-300)
    return scaled


def windows_of(
    contigs: Sequence[LabelledContig],
    chunk_nt: int,
    *,
    a_unit: int = 25,
    most: int = 400,
    seed: int = 0,
) -> list[Window]:
    """Draw windows of every length bin from every unit that reaches it.

    Lengths are drawn evenly by their logarithm. most: windows of a group in a length bin, its units
    by turns, and at most a_unit of each; of long ones fewer, by the square root of their chunks.
    Where a group has more units, each has one.
    """
    rng = np.random.default_rng(seed)
    units: dict[tuple[int, str, str], list[LabelledContig]] = {}
    for contig in contigs:
        if len(contig.sequence) >= _SHORTEST_NT:
            key = contig.label, contig.group, contig.unit
            units.setdefault(key, []).append(contig)
    groups: dict[tuple[int, str], list[list[LabelledContig]]] = {}
    for (label, group, _), members in sorted(units.items()):
        groups.setdefault((label, group), []).append(members)
    edges = [_SHORTEST_NT / chunk_nt, *LENGTH_EDGES, _LONGEST_CHUNKS]
    windows: list[Window] = []
    for of_group in groups.values():
        for b, (low, high) in enumerate(pairwise(edges)):
            room = int(most / np.sqrt(max(1.0, low)))
            order = [of_group[i] for i in rng.permutation(len(of_group))]
            for turn in range(a_unit):
                drawn = [_window(m, low * chunk_nt, high * chunk_nt, rng) for m in order]
                windows += [Window(found, b, turn == 0) for found in drawn if found is not None]
                order = [m for m, found in zip(order, drawn, strict=True) if found is not None]
                room -= len(order)
                if room <= 0 or not order:
                    break
                rng.shuffle(order)
                order = order[:room]
    return windows


def _window(
    members: Sequence[LabelledContig], low_nt: float, high_nt: float, rng: np.random.Generator
) -> LabelledContig | None:
    """A window of a unit of a length in [low_nt, high_nt); None where no contig is that long."""
    long_enough = [contig for contig in members if len(contig.sequence) >= low_nt]
    if not long_enough:
        return None
    size = np.array([len(contig.sequence) for contig in long_enough], np.float64)
    for _ in range(_TRIES):
        contig = long_enough[int(rng.choice(len(size), p=size / size.sum()))]
        top = min(high_nt, len(contig.sequence) + 1)
        length = int(np.exp(rng.uniform(np.log(np.ceil(low_nt)), np.log(top))))
        length = min(max(length, int(np.ceil(low_nt))), len(contig.sequence))
        start = int(rng.integers(0, len(contig.sequence) - length + 1))
        sequence = contig.sequence[start : start + length]
        if len(sequence.translate(None, b"ACGT")) <= _MOST_UNKNOWN * length:
            return replace(contig, sequence=sequence)
    return None


def score_records(
    classifier: ScoresChunks,
    windows: Sequence[Window],
    chunk_nt: int,
    progress: Callable[[int], None] | None = None,
) -> ScoredRecords:
    """Scores of windows; windows without a called chunk are left out."""
    sums = contigs_of_labelled(
        classifier, [window.contig for window in windows], chunk_nt, progress
    )
    names = tuple(sorted({window.contig.group for window in windows}))
    of_unit: dict[str, int] = {}
    unit = [of_unit.setdefault(window.contig.unit, len(of_unit)) for window in windows]
    found = ScoredRecords(
        evidence=sums.evidence,
        called_nt=sums.called_nt,
        viral=np.array([window.contig.label == 1 for window in windows], np.bool_),
        unit=np.array(unit, np.int64),
        group=np.array([names.index(window.contig.group) for window in windows], np.int64),
        first=np.array([window.first for window in windows], np.bool_),
        length_bin=np.digitize(sums.called_nt / chunk_nt, LENGTH_EDGES),
        group_names=names,
        groups=sums.groups,
    )
    return found.part(sums.called_nt > 0)


def fit_calibration(
    records: ScoredRecords, chunk_nt: int, seed: int = 0, hosts: Mapping[str, str] | None = None
) -> Calibration:
    """Fit a calibration on scored records.

    hosts: the host that the negatives of a group count as, by default the group. Raises InputError
    unless both labels are there.
    """
    if not len(records.viral) or records.viral.all() or not records.viral.any():
        raise InputError("a calibration needs viral and other sequences that have a score")
    weight = records.weight
    fits = {power: _fit(records, weight, chunk_nt, power) for power in _POWERS}
    power = min(fits, key=lambda p: fits[p].loss)
    best = fits[power].value
    rng = np.random.default_rng(seed)
    units = records.unit.max() + 1
    replicates = []
    for _ in range(DRAWS):
        times = np.bincount(rng.integers(0, units, units), minlength=units)
        drawn = _fit(records, weight * times[records.unit], chunk_nt, power, best)
        replicates.append(drawn.value)
    knots = np.log(KNOTS)
    rule = RecordRule(Curve(knots, best[0]), Curve(knots, best[1]), power, chunk_nt)
    by_host = records.by_host(hosts or {})
    negatives = nulls_of(by_host, rule)
    threshold, worst_group = threshold_for(by_host, rule, WORST_RATE)
    return Calibration(
        rule=rule,
        replicates=np.stack(replicates).astype(np.float32),
        negatives=negatives,
        threshold=threshold,
        worst_rate=WORST_RATE,
        worst_group=worst_group,
    )


class _Fit(NamedTuple):
    """a and b at the knots, (2, knots), and the loss that they leave."""

    value: Float64
    loss: float


def _fit(
    records: ScoredRecords,
    weight: Float64,
    chunk_nt: int,
    power: float,
    start: Float64 | None = None,
) -> _Fit:
    """Fit both curves by penalised logistic regression, Newton's method."""
    size = records.called_nt / chunk_nt
    x = records.evidence / chunk_nt / size**power
    basis = _basis(np.log(size))
    design = np.concatenate([basis, basis * x[:, None]], axis=1)
    knots = basis.shape[1]
    bend = np.diff(np.eye(knots), 2, axis=0)
    rough = _ROUGH * weight.sum() / 1000 * (bend.T @ bend)
    # Where nothing was seen, a is 0 and b 1; a little everywhere.
    little = weight.sum() / 1000 * 1e-2 * np.eye(knots)
    none = np.zeros((knots, knots))
    penalty = np.block([[rough + little, none], [none, rough + little]])
    centre = np.concatenate([np.zeros(knots), np.ones(knots)])
    value = centre if start is None else start.ravel()
    for _ in range(_STEPS):
        p = probability(design @ value)
        slope = design.T @ (weight * (p - records.viral)) + penalty @ (value - centre)
        curve = (design * (weight * np.maximum(p * (1 - p), 1e-6))[:, None]).T @ design + penalty
        step = np.linalg.solve(curve, slope)
        value = value - step / max(1.0, float(np.abs(step).max()))
        if np.abs(step).max() < 1e-5:
            break
    s = design @ value
    loss = np.sum(weight * (np.logaddexp(0, s) - records.viral * s))
    away = value - centre
    fitted = value.reshape(2, knots)
    fitted[1] = np.maximum(fitted[1], _LEAST_B)
    return _Fit(fitted, float(loss + away @ penalty @ away / 2))


def _basis(log_size: Float64) -> Float64:
    """Share of each knot at each size, (r, knots): linear between knots."""
    knots = np.log(KNOTS)
    return np.stack([np.interp(log_size, knots, row) for row in np.eye(len(knots))], axis=1)


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
        names=tuple(kept.group_names[i] or "others" for i in present.tolist()),
    )


def threshold_for(records: ScoredRecords, rule: RecordRule, worst_rate: float) -> tuple[float, str]:
    """The least p_virus at which no group of others is called virus more often than worst_rate.

    Length bins and units of a group weigh the same. Groups of fewer than FEWEST records do not
    decide, unless all are. Returns the threshold, with two decimals, and the group that decides.
    """
    others = records.part(~records.viral)
    score = rule.log_odds(others.evidence, others.called_nt)
    weight = others.weight
    sizes = np.bincount(others.group, minlength=len(others.group_names))
    large = np.flatnonzero(sizes >= min(FEWEST, sizes.max()))
    cuts = {}
    for group in large.tolist():
        here = others.group == group
        order = np.argsort(score[here])
        share = np.cumsum(weight[here][order]) / weight[here].sum()
        cuts[group] = score[here][order][np.searchsorted(share, 1 - worst_rate)]
    worst = max(cuts, key=lambda group: cuts[group])
    threshold = np.ceil(100 * float(probability(np.array([cuts[worst]]))[0])) / 100
    return min(float(threshold), 0.99), others.group_names[worst] or "others"


@dataclass(frozen=True, slots=True)
class Reliability:
    """The distance of scores from frequencies. error: expected calibration error, 0 to 1.

    predicted, observed, records: by PARTS equal parts of p_virus; nan without a record.
    """

    error: float
    predicted: Float64
    observed: Float64
    records: Int64


def reliability_of(p_virus: Float64, viral: Bool, weight: Float64) -> Reliability:
    """Measure the calibration of scores; p_virus, viral, weight: (r,)."""
    part = np.minimum((p_virus * PARTS).astype(np.int64), PARTS - 1)

    def total(value: Float64) -> Float64:
        return np.bincount(part, weights=value, minlength=PARTS).astype(np.float64)

    mass = total(weight)
    some = np.where(mass > 0, mass, np.nan)
    predicted, observed = total(weight * p_virus) / some, total(weight * viral) / some
    error = np.nansum(mass * np.abs(predicted - observed)) / weight.sum()
    records = np.bincount(part, minlength=PARTS)
    return Reliability(float(error), predicted, observed, records)


def measured_of(records: ScoredRecords, calibration: Calibration, on: str) -> dict[str, Any]:
    """The tables of a card on a calibration, from records that it was not fitted on.

    right_at_N_percent: share of calls that are right where N % of the records are viral. on: a
    sentence on the records.
    """
    score = calibration.rule.log_odds(records.evidence, records.called_nt)
    p_virus = probability(score)
    called = p_virus >= calibration.threshold

    def row(kept: Bool) -> dict[str, Any]:
        part, hit = records.part(kept), called[kept]
        found = reliability_of(p_virus[kept], part.viral, part.even_weight)
        recall, rate = (
            float(hit[side].mean()) if side.any() else None for side in (part.viral, ~part.viral)
        )
        rates: dict[str, Any] = {"recall": recall, "false_positive_rate": rate}
        for share in (0.01, 0.1, 0.5):
            # No mistake among a few hundred is not none at all.
            right = expected_precision(recall, rate, share) if rate else None
            rates[f"right_at_{100 * share:g}_percent"] = right
        return {"records": int(kept.sum()), "calibration_error": found.error, **_rounded(rates)}

    whole = reliability_of(p_virus, records.viral, records.even_weight)
    lengths = enumerate(calibration.bin_names())
    bins = [(name, records.length_bin == b) for b, name in lengths]
    groups = [(name, records.group == i) for i, name in enumerate(records.group_names) if name]
    return {
        "measured_on": on,
        "calibration_error": round(whole.error, 4),
        "by_length": [{"length": name, **_rounded(row(kept))} for name, kept in bins if kept.any()],
        "by_group": [
            {
                "group": name,
                "viral": bool(records.viral[kept].any()),
                "records": int(kept.sum()),
                "called_virus": round(float(called[kept].mean()), 4),
                "mean_p_virus": round(float(p_virus[kept].mean()), 4),
            }
            for name, kept in groups
            if kept.any()
        ],
        "reliability": [
            {"p_virus": round(x, 3), "viral": round(y, 3), "records": n}
            for x, y, n in zip(
                whole.predicted.tolist(),
                whole.observed.tolist(),
                whole.records.tolist(),
                strict=True,
            )
            if n
        ],
    }


def _rounded(values: dict[str, Any]) -> dict[str, Any]:
    return {k: round(v, 4) if isinstance(v, float) else v for k, v in values.items()}
