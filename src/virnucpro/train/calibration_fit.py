"""Fits a calibration, the rule of records above all, to scored windows of labelled sequences.

The units must be others than those that the network was fitted on. This module does not write
files.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from virnucpro.bundle.calibration import Calibration, Curve, RecordRule, probability
from virnucpro.errors import InputError
from virnucpro.measure.metrics import expected_precision
from virnucpro.train.null_fit import bounds_of, nulls_of, threshold_for
from virnucpro.train.scored_records import ScoredRecords

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


def fit_calibration(
    records: ScoredRecords, chunk_nt: int, seed: int = 0, hosts: Mapping[str, str] | None = None
) -> Calibration:
    """Fit a calibration on scored records.

    hosts: the host that the negatives of a group count as, by default the group. Raises InputError
    unless both labels are there.
    """
    if not len(records.viral) or records.viral.all() or not records.viral.any():
        raise InputError("a calibration needs viral and other sequences that have a score")
    # Not by group and unit: a group of two units would weigh as much as one of hundreds.
    weight = records.even_weight
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
    bounds = bounds_of(by_host, rule, negatives.names, seed)
    threshold, worst_group = threshold_for(by_host, rule, WORST_RATE)
    return Calibration(
        rule=rule,
        replicates=np.stack(replicates).astype(np.float32),
        negatives=negatives,
        threshold=threshold,
        worst_rate=WORST_RATE,
        worst_group=worst_group,
        bounds=bounds,
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
