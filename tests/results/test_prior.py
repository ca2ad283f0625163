"""The share of virus in simulated samples, and when it cannot be told."""

import numpy as np
import pytest

from made_calibrations import a_calibration
from virnucpro.results.prior import (
    DEFAULT_PRIOR,
    Cells,
    Prior,
    background_share,
    estimated_prior,
    most_likely_share,
    widened,
)

SPREAD = 2.5


def sample(share: float, records: int, seed: int) -> np.ndarray:
    """Log-odds that are what they say: of normal scores with one spread."""
    rng = np.random.default_rng(seed)
    viral = rng.random(records) < share
    return rng.normal(np.where(viral, 1, -1) * SPREAD**2 / 2, SPREAD)


def cells_of(log_odds, size=1.0) -> Cells:
    cells = Cells()
    cells.add(log_odds, np.full(len(log_odds), size))
    return cells


@pytest.mark.parametrize(("share", "within"), [(0.01, 0.3), (0.1, 0.05), (0.5, 0.03), (0.9, 0.03)])
def test_a_share_is_found(share, within):
    calibration = a_calibration()
    found = [
        estimated_prior(cells_of(sample(share, 20_000, seed)), calibration, 0.0)
        for seed in range(5)
    ]
    for prior in found:
        assert prior.low <= prior.used <= prior.high
        assert prior.used == pytest.approx(share, rel=within)
    assert sum(prior.low <= share <= prior.high for prior in found) >= 4


def test_the_share_is_a_fixed_point_of_expectation_maximisation():
    log_odds = sample(0.03, 5_000, 1)
    (share,) = most_likely_share(log_odds, np.ones((1, 5_000)))
    posterior = 1 / (1 + np.exp(-(log_odds + np.log(share / (1 - share)))))
    assert posterior.mean() == pytest.approx(share, abs=1e-6)


def test_all_or_nothing():
    assert most_likely_share(np.full(5, -30.0), np.ones((1, 5)))[0] == 0.0
    assert most_likely_share(np.full(5, 30.0), np.ones((1, 5)))[0] == 1.0


def test_no_more_than_false_positives_give_is_an_upper_end():
    background = 0.02
    prior = estimated_prior(cells_of(sample(0.015, 20_000, 3)), a_calibration(), background)
    assert prior.how == "upper end"
    assert prior.low == 0.0
    assert prior.used == prior.high > 0.015
    assert prior.sentence.startswith("between 0 and")
    more = estimated_prior(cells_of(sample(0.1, 20_000, 3)), a_calibration(), background)
    assert more.how == "estimated"
    assert more.low < 0.1 < more.high


def test_an_uncertain_calibration_gives_a_wide_interval():
    rng = np.random.default_rng(0)
    cells = cells_of(sample(0.1, 20_000, 4))
    sure = estimated_prior(cells, a_calibration(), 0.0)
    shaken = a_calibration(replicates=rng.normal((0.0, 1.0), (0.5, 0.1), (40, 2)))
    unsure = estimated_prior(cells, shaken, 0.0)
    assert unsure.high - unsure.low > 2 * (sure.high - sure.low)


def test_negatives_have_a_share_of_their_own():
    log_odds = np.concatenate([np.full(90, -5.0), np.full(10, 5.0), np.full(50, -5.0)])
    where = np.repeat([0, 1], [100, 50])
    assert background_share(log_odds, where, np.array([10, 0])) == pytest.approx(0.1, abs=0.02)
    assert background_share(log_odds, where, np.array([0, 10])) == 0.0
    assert background_share(log_odds, where, np.array([10, 10])) == pytest.approx(0.05, abs=0.01)
    assert background_share(log_odds[:0], where[:0], np.array([1, 1])) == 0.0


def test_order_does_not_matter_and_nothing_is_the_default():
    log_odds = sample(0.2, 1_000, 5)
    one, other = cells_of(log_odds), cells_of(log_odds[::-1][:300])
    other.add(log_odds[::-1][300:], np.ones(700))
    assert np.array_equal(one.counts, other.counts)
    assert estimated_prior(Cells(), a_calibration(), 0.0) == Prior.fixed(DEFAULT_PRIOR, "default")


def test_an_estimate_is_widened_by_what_the_number_of_calls_allows():
    sure = Prior(0.2, 0.3, 0.4, "estimated", 0.01)
    # Called are 37 %: from (0.37 - 0.1) / 0.9 = 30 % to 0.37 / 0.95 = 39 % viral.
    assert widened(sure, 0.37, 0.1, 0.95) == sure
    found = widened(sure, 0.19, 0.1, 0.38)
    assert (found.low, found.used, found.high) == pytest.approx((0.1, 0.3, 0.5))
    assert found.how == "estimated"
    nothing_sure = widened(sure, 0.1, 0.1, 0.2)
    assert (nothing_sure.low, nothing_sure.used, nothing_sure.high) == pytest.approx((0, 0.4, 0.5))
    assert nothing_sure.how == "upper end"
    assert widened(sure, 0.1, 1.0, 0.0).high == 1.0  # nothing is known of either side
