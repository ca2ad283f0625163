"""A calibration in a bundle: read back as it was written, and refused where it does not fit."""

from dataclasses import replace

import numpy as np
import pytest

from command import made_bundle
from made_calibrations import KNOTS, a_calibration, calibrated
from virnucpro.bundle.calibration import (
    CALIBRATION,
    Bounds,
    Calibration,
    Curve,
    Origin,
    RecordRule,
    chunk_log_odds,
)
from virnucpro.bundle.manifest import read_bundle
from virnucpro.bundle.verify import verified
from virnucpro.errors import BundleError

BOUNDS = Bounds(
    np.array([-1.0, np.inf, 2.0, np.inf]),
    np.array([0.5, 0.25, 0.4, 0.1]),
    np.array([0, 0, 1, 1], np.uint8),
    np.array([0, 0, 1, 1], np.uint8),
)
ORIGIN = Origin(("phage", "human", "ape"), ("phage", "host", "host"), np.zeros(3), 1.0, 0.59)


def test_it_is_read_back_as_it_was(tmp_path):
    plain = made_bundle(tmp_path / "km")
    assert plain.calibration is None
    assert plain.record_threshold == plain.threshold
    given = a_calibration(
        {"human": [[-1.0], [0.5, -2.0]]}, power=0.25, replicates=np.ones((3, 2)), origin=ORIGIN
    )
    given = replace(given, bounds=BOUNDS)
    bundle = calibrated(plain, given)
    found = read_bundle(bundle.path).calibration
    assert found.part() == given.part() | {"data": {}}
    for name, array in given.arrays().items():
        assert np.array_equal(found.arrays()[name], array)
    assert bundle.record_threshold == 0.8 != bundle.threshold
    assert bundle.sha256 != plain.sha256
    assert not any(checked.fault for checked in verified(bundle))
    assert bundle.classifier().score(["ACGT" * 30]).p_virus == pytest.approx(
        plain.classifier().score(["ACGT" * 30]).p_virus
    )


def test_damage_is_found(tmp_path):
    bundle = calibrated(made_bundle(tmp_path / "km"), a_calibration())
    path = bundle.path / CALIBRATION
    path.write_bytes(path.read_bytes()[:-1] + b"x")
    with pytest.raises(BundleError, match="sha256 is not the one"):
        _ = read_bundle(bundle.path).calibration


@pytest.mark.parametrize(
    "change",
    [
        {"b": np.array([1.0, 0.0, 1.0])},
        {"a": np.array([0.0, np.nan, 0.0])},
        {"log_size": KNOTS[::-1].copy()},
        {"log_size": KNOTS[:2]},
        {"replicates": np.zeros((2, 1, 3))},
        {"negative_group": np.array([3, 0], np.uint8)},
        {"negative_bin": np.array([9, 0], np.uint8)},
        {"bound_score": np.array([np.inf, -1.0, 2.0, np.inf])},
        {"bound_score": np.array([-1.0, np.inf, 2.0, 3.0])},
        {"bound_share": np.array([0.5, 0.6, 0.4, 0.1])},
        {"bound_share": np.array([0.5, 0.1])},
        {"negative_bin": np.array([0], np.uint8)},
    ],
)
def test_arrays_that_do_not_fit_are_refused(change):
    calibration = replace(a_calibration(), bounds=BOUNDS)
    assert Calibration.of(calibration.part(), calibration.arrays(), 500).bins == 5
    arrays = calibration.arrays() | change
    with pytest.raises(ValueError):
        Calibration.of(calibration.part(), arrays, 500)


def test_a_curve_is_linear_in_the_logarithm_and_constant_outside():
    curve = Curve(np.log([1.0, 4.0, 16.0]), np.array([0.0, 1.0, 5.0]))
    assert curve.at(np.array([0.1, 1.0, 2.0, 8.0, 16.0, 99.0])) == pytest.approx(
        [0, 0, 0.5, 3, 5, 5]
    )


def test_log_odds_grow_with_every_chunk_and_are_missing_without_one():
    rule = RecordRule(Curve(KNOTS, np.zeros(3)), Curve(KNOTS, np.ones(3)), 0.5, 500)
    evidence, called = np.array([0.0, 500.0, 500.0, 1000.0]), np.array([0.0, 500.0, 1000.0, 1000.0])
    found = rule.log_odds(evidence, called)
    assert found == pytest.approx([np.nan, 1.0, np.sqrt(0.5), np.sqrt(2)], nan_ok=True)


def test_scores_of_nought_and_one_are_finite():
    found = chunk_log_odds(np.array([0.0, 0.5, 1.0]))
    assert found[1] == 0.0
    assert -found[0] == pytest.approx(found[2])
    assert np.isfinite(found).all()


def test_origins_add_up_groups_of_one_name_and_leave_the_rest_unclear():
    p = np.array([[0.1, 0.45, 0.45], [0.4, 0.3, 0.3], [0.9, 0.05, 0.05]])
    found = ORIGIN.of(np.log(p))
    assert [ORIGIN.choices[i] for i in found] == ["host", "host", "phage"]
    assert [ORIGIN.choices[i] for i in ORIGIN.of(np.log([[0.5, 0.25, 0.25]]))] == ["unclear"]
