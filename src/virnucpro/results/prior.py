"""The viral share of a sample: by maximum likelihood, with an interval, or an upper end.

The share is what expectation maximisation on posteriors climbs to (Saerens, Latinne and
Decaestecker, Neural Computation 2002). Log-odds are counted in cells of size and log-odds, so that
memory does not grow with the sample and the order of records does not matter.
"""

from dataclasses import asdict, dataclass, replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from virnucpro.bundle.calibration import Calibration, Curve, probability

Float64 = NDArray[np.float64]
Int64 = NDArray[np.int64]

DEFAULT_PRIOR = 0.05
DRAWS = 200
_SEED = 0
_WIDEST = 20.0  # log-odds beyond it count as this
_CELL = 0.05
_SIZES = 24
_SMALLEST, _LARGEST = np.log(0.1), np.log(1000.0)  # of a record, in chunks
_HALVINGS = 40
_ENDS = (2.5, 97.5)


@dataclass(frozen=True, slots=True)
class Prior:
    """The share of viral records that a sample is judged with.

    low, used, high: shares. how: "default", "given", "estimated", or "upper end" where it cannot
    be told from no virus at all. background: the share that negatives alone would be estimated at.
    """

    low: float
    used: float
    high: float
    how: str
    background: float = 0.0

    @classmethod
    def fixed(cls, share: float, how: str) -> "Prior":
        """Return a share that nobody estimated."""
        return cls(share, share, share, how)

    @property
    def sentence(self) -> str:
        """The prior in words."""
        if self.how == "estimated":
            return (
                f"prior {_percent(self.low)} to {_percent(self.high)} %, estimated from the sample"
            )
        if self.how == "upper end":
            return (
                f"between 0 and {_percent(self.high)} % viral, as the calls may all be false "
                f"positives; {_percent(self.used)} % is used"
            )
        how = "the default" if self.how == "default" else "as given"
        return f"prior {_percent(self.used)} %, {how}"

    def as_dict(self) -> dict[str, Any]:
        """Return plain values for run.json."""
        return asdict(self)


def _percent(share: float) -> str:
    return f"{100 * share:.2g}" if share < 0.995 else f"{100 * share:.3g}"


class Cells:
    """Counts of records by size and log-odds."""

    def __init__(self) -> None:
        self.counts: Int64 = np.zeros((_SIZES, round(2 * _WIDEST / _CELL)), np.int64)

    def add(self, log_odds: Float64, size: Float64) -> None:
        """Count records; log_odds: (r,) finite; size: (r,) in chunks."""
        share = (np.log(size) - _SMALLEST) / (_LARGEST - _SMALLEST)
        row = np.clip((share * _SIZES).astype(np.int64), 0, _SIZES - 1)
        place = np.floor((log_odds + _WIDEST) / _CELL).astype(np.int64)
        column = np.clip(place, 0, self.counts.shape[1] - 1)
        np.add.at(self.counts, (row, column), 1)

    def used(self) -> tuple[Float64, Float64, Int64]:
        """Log-odds, size and number of records of each cell that holds some, (c,)."""
        row, column = np.nonzero(self.counts)
        size: Float64 = np.exp(
            _SMALLEST + (row.astype(np.float64) + 0.5) / _SIZES * (_LARGEST - _SMALLEST)
        )
        log_odds = (column.astype(np.float64) + 0.5) * _CELL - _WIDEST
        return log_odds, size, self.counts[row, column]


def most_likely_share(log_odds: Float64, weight: Float64) -> Float64:
    """The share that makes log-odds likeliest, of b samples, (b,).

    log_odds: (c,) or (b, c), where half of all is viral; weight: (b, c) how often each occurs. At
    the maximum the mean posterior is the share; as the likelihood is concave, halving finds it.
    """
    low = np.full(len(weight), -_WIDEST)
    high = np.full(len(weight), _WIDEST)
    total = np.maximum(weight.sum(axis=1), np.finfo(float).tiny)
    for _ in range(_HALVINGS):
        middle = (low + high) / 2
        posterior = probability(log_odds + middle[:, None])
        grows = (posterior * weight).sum(axis=1) / total > probability(middle)
        low, high = np.where(grows, middle, low), np.where(grows, high, middle)
    share = probability((low + high) / 2)
    least, most = probability(np.array([-_WIDEST + _CELL, _WIDEST - _CELL]))
    return np.where(share <= least, 0.0, np.where(share >= most, 1.0, share))


def estimated_prior(cells: Cells, calibration: Calibration, background: float) -> Prior:
    """Return the share of a sample by maximum likelihood.

    The interval holds 95 % of the estimates over records drawn anew and over rules fitted on units
    drawn anew. background: the share that negatives alone would be estimated at, which is taken off
    the lower end.
    """
    log_odds, size, number = cells.used()
    if not len(number):
        return Prior.fixed(DEFAULT_PRIOR, "default")
    records = int(number.sum())
    (share,) = most_likely_share(log_odds, number[None].astype(np.float64))
    draws = np.random.default_rng(_SEED).multinomial(records, number / records, DRAWS)
    shares = most_likely_share(_redrawn(calibration, log_odds, size), draws.astype(np.float64))
    low, high = np.percentile(np.append(shares, share), _ENDS)
    low = max(0.0, (low - background) / max(1 - background, 1e-9))
    if low == 0.0:
        return Prior(0.0, float(high), float(high), "upper end", background)
    return Prior(float(low), float(share), float(high), "estimated", background)


def widened(prior: Prior, called: float, others_most: float, viral_least: float) -> Prior:
    """Return an estimate with all that the number of calls allows (Rogan and Gladen 1978).

    called: share of the records above the threshold; others_most: of other records of a few units
    no more are; viral_least: of viral ones no fewer. Where hosts score unlike those of the
    calibration, the likelihood alone is too sure. What is used stays that of the likelihood: its
    estimate, or its upper end where there may be no virus at all.
    """
    low = min(prior.low, max(0.0, (called - others_most) / max(1 - others_most, 1e-9)))
    high = max(prior.high, min(1.0, called / viral_least if viral_least > 0 else 1.0))
    if low == 0.0:
        return replace(prior, low=0.0, used=prior.high, high=high, how="upper end")
    return replace(prior, low=low, high=high)


def _redrawn(calibration: Calibration, log_odds: Float64, size: Float64) -> Float64:
    """Log-odds of the cells by the rules of other units, (DRAWS, c)."""
    rule, replicates = calibration.rule, calibration.replicates
    if not len(replicates):
        return np.broadcast_to(log_odds, (DRAWS, len(log_odds)))
    x = (log_odds - rule.a.at(size)) / rule.b.at(size)
    knots = rule.a.log_size
    redrawn = np.stack(
        [Curve(knots, a).at(size) + Curve(knots, b).at(size) * x for a, b in replicates]
    )
    return redrawn[np.arange(DRAWS) % len(redrawn)]


def background_share(
    log_odds: Float64, length_bin: NDArray[np.integer], records_by_bin: Int64
) -> float:
    """The share that negatives alone are estimated at, in a sample of these lengths.

    log_odds, length_bin: (n,) of the negatives; records_by_bin: (bins,) of the sample.
    """
    here = np.bincount(length_bin, minlength=len(records_by_bin))
    weight = np.where(here > 0, records_by_bin / np.maximum(here, 1), 0.0)[length_bin]
    if not weight.sum():
        return 0.0
    return float(most_likely_share(log_odds, weight[None])[0])
