"""The number of calls to expect to be wrong, at a prior, and in words."""

import numpy as np
from numpy.typing import NDArray

from virnucpro.bundle.calibration import probability
from virnucpro.results.prior import Prior

Float64 = NDArray[np.float64]

_FEW = "fewer than 0.1"


def wrong_by_prior(log_odds: Float64, prior: Prior) -> Float64:
    """How many of r records are not viral where the prior is low, used, and high, (3,)."""
    shares = (prior.low, prior.used, prior.high)
    return np.array([expected_wrong(log_odds, share).sum() for share in shares])


def expected_wrong(log_odds: Float64, share: float) -> Float64:
    """The chance of each of r records not to be viral where this share of all is, (r,)."""
    if not 0 < share < 1:
        return np.full(len(log_odds), 1.0 - share)
    return probability(-(log_odds + np.log(share / (1 - share))))


def expected_in_words(
    calls: str, fewest: float, most: float, bound: float | None, prior: Prior
) -> str:
    """Return a sentence on calls, of which fewest to most are expected to be wrong.

    bound: how many at most where hosts look more viral than most; None if unknown.
    """
    number = wrong_in_words(fewest, most, None)
    are = "is" if number == "about 1" else "are"
    expected = f"{calls}; of these {number} {are} expected to be wrong ({prior.sentence})"
    if bound is not None and _whole(bound) not in (_whole(most), _FEW):
        expected += f"; up to {_whole(bound)} if its hosts look more viral than most"
    return expected


def rounded(number: float | None) -> float | None:
    """Return a number with the decimals of run.json."""
    return None if number is None else round(number, 1)


def wrong_in_words(fewest: float, most: float, fdr: float | None) -> str:
    """Return how many calls are expected to be wrong; fdr: the rate that was asked for, if any."""
    low, high = _whole(fewest), _whole(most)
    if fdr is not None:
        return high if high == _FEW else f"at most {high}"
    if low == high:
        return high if high == _FEW else f"about {high}"
    return f"up to {high}" if low == _FEW else f"{low} to {high}"


def _whole(number: float) -> str:
    if 0 < number < 0.05:
        return _FEW
    return f"{number:.1f}" if 0 < number < 0.95 else f"{number:,.0f}"
