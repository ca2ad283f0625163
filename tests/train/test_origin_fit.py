"""The origin of records, from log-probabilities that claim too much."""

from dataclasses import replace

import numpy as np
import pytest
from test_calibration_fit import simulated

from virnucpro.errors import InputError
from virnucpro.train.origin_fit import confusion_of, fit_origin, precision_of, with_threshold

GROUPS = ("phage", "bacteria", "human", "ape")
NAMES = {"human": "primate", "ape": "primate"}
STANDS_FOR = {"unknown": ("phage", "bacteria")}


def of_groups(records: int, seed: int, biased: float = 1.0, scale: float = 2.0):
    """Records of the groups, whose network says scale times too much, and bacteria too often."""
    rng = np.random.default_rng(seed)
    truth = rng.integers(0, 4, records)
    logits = rng.normal(0, 1.5, (records, 4)) + 2.0 * np.eye(4)[truth]
    said = scale * logits + biased * np.array([0.0, 1.0, 0.0, 0.0])
    log_p = said - np.log(np.exp(said).sum(axis=1, keepdims=True))
    names = (*GROUPS, "unknown", "nothing")
    group = np.where((truth < 2) & (rng.random(records) < 0.3), 4, truth)
    plain = simulated(records, seed)
    return replace(plain, group=group, group_names=names, groups=log_p)


def test_bias_and_scale_are_taken_back():
    origin = fit_origin(of_groups(8_000, 1), GROUPS, NAMES, STANDS_FOR)
    assert origin.names == ("phage", "bacteria", "primate", "primate")
    # Signal 2 and noise of 1.5 ask for 2 / 1.5**2, and the network says twice as much.
    assert origin.scale == pytest.approx(2 / 1.5**2 / 2, abs=0.05)
    assert origin.bias[1] - origin.bias[0] == pytest.approx(-1.0 * origin.scale, abs=0.1)


def test_the_threshold_keeps_its_promise_on_others():
    origin = fit_origin(of_groups(8_000, 1), GROUPS, NAMES, STANDS_FOR)
    with_one = with_threshold(origin, of_groups(8_000, 2), STANDS_FOR)
    assert 0.3 < with_one.threshold < 1
    new = of_groups(8_000, 3)
    precision, told = precision_of(with_one, new, STANDS_FOR)
    assert precision == pytest.approx(0.9, abs=0.02)
    assert 0.2 < told < 1
    table = confusion_of(with_one, new, STANDS_FOR)
    assert set(table) == {*GROUPS, "unknown"}
    assert table["human"]["primate"] > table["human"].get("bacteria", 0)
    assert sum(map(sum, (row.values() for row in table.values()))) == 8_000


def test_a_network_without_groups_has_no_origin():
    with pytest.raises(InputError, match="names no groups"):
        fit_origin(simulated(50, 1), GROUPS, NAMES, STANDS_FOR)
