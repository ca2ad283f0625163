"""Bounds of the shares of others: what hosts of a few units that nobody has seen stay below."""

from dataclasses import replace

import numpy as np

from made_calibrations import a_calibration
from virnucpro.bundle.calibration import Curve, RecordRule
from virnucpro.results.false_discovery import Bound, Null, Steps, q_values, worst
from virnucpro.train.null_fit import bounds_of, nulls_of
from virnucpro.train.scored_records import ScoredRecords

CHUNK_NT = 500
KNOTS = np.log([0.1, 10.0])
RULE = RecordRule(Curve(KNOTS, np.zeros(2)), Curve(KNOTS, np.ones(2)), 0.0, CHUNK_NT)
BIN = 1  # of a record of one chunk


def units(number: int, windows: int, rng, first: int = 0) -> ScoredRecords:
    """Others whose units differ: some look viral all over."""
    level = rng.normal(-2, 1.5, number)
    score = (level[:, None] + rng.normal(0, 1, (number, windows))).ravel()
    records = number * windows
    return ScoredRecords(
        evidence=score * CHUNK_NT,
        called_nt=np.full(records, float(CHUNK_NT)),
        viral=np.zeros(records, bool),
        unit=first + np.repeat(np.arange(number), windows),
        group=np.zeros(records, np.int64),
        first=np.tile(np.arange(windows) == 0, number),
        length_bin=np.full(records, BIN),
        group_names=("",),
        groups=np.zeros((records, 0)),
    )


def wrong_share(p_values, steps, score, viral, fdr) -> float:
    """Share of the calls that are wrong; 0 where nothing is called."""
    step = steps.step(np.full(len(score), BIN), score)
    counts = steps.zeros()
    counts[BIN] += np.bincount(step, minlength=len(counts[BIN]))
    called = q_values(p_values, counts)[BIN][step] <= fdr
    return float((~viral[called]).mean()) if called.any() else 0.0


def test_samples_of_five_new_units_keep_the_rate_that_was_asked_for():
    rng = np.random.default_rng(3)
    known = units(1000, 10, rng)
    negatives = nulls_of(known, RULE)
    bins = 5
    null = Null.of(negatives.log_odds, negatives.length_bin, bins)
    bounds = bounds_of(known, RULE, negatives.names)
    bound = Bound.of([bounds.of(0, b) for b in range(bins)])
    steps = Steps.of([null, bound])
    plain, raised = steps.p_values(null), worst([steps.p_values(null), steps.p_values(bound)])
    kept = {"plain": 0, "bounded": 0}
    for _ in range(100):
        others = units(5, 300, rng)
        viral = rng.normal(5, 1, 500)
        score = np.concatenate([others.evidence / CHUNK_NT, viral])
        label = np.arange(len(score)) >= len(others.viral)
        kept["plain"] += wrong_share(plain, steps, score, label, 0.1) <= 0.1
        kept["bounded"] += wrong_share(raised, steps, score, label, 0.1) <= 0.1
    assert kept["plain"] < 85
    assert kept["bounded"] >= 95


def test_bounds_fall_as_scores_rise_and_are_there_for_each_group_and_for_all():
    rng = np.random.default_rng(4)
    records = units(40, 10, rng)
    bounds = bounds_of(records, RULE, nulls_of(records, RULE).names)
    for group in (0, 1):  # the unnamed group, and all together
        score, share = bounds.of(group, BIN)
        assert score[-1] == np.inf
        assert (np.diff(score) > 0).all()
        assert (np.diff(share) < 0).all()
        assert share[-1] >= 1 / 41  # what 40 units can tell
        assert len(bounds.of(group, 0)[0]) == 0
    assert bounds.of(0, BIN)[1][0] == 1.0


def test_viral_records_of_few_units_are_found_at_least_so_often():
    rng = np.random.default_rng(5)
    others, viral = units(60, 10, rng), units(60, 10, rng, first=60)
    both = ScoredRecords(
        **{
            name: np.concatenate([getattr(part, name) for part in (others, viral)])
            for name in ("called_nt", "unit", "group", "first", "length_bin", "groups")
        },
        evidence=np.concatenate([others.evidence, viral.evidence + 4 * CHUNK_NT]),
        viral=np.repeat([False, True], 600),
        group_names=("",),
    )
    names = nulls_of(both, RULE).names
    calibration = replace(
        a_calibration({names[0]: []}, threshold=0.5), bounds=bounds_of(both, RULE, names)
    )
    most, least = calibration.few_units_at(0.5)
    assert calibration.few_units_at(1.0)[0][BIN] < 0.05
    assert calibration.few_units_at(0.0)[0][BIN] == 1.0
    called = both.evidence >= 0
    assert called[:600].mean() < most[BIN] < 0.5
    assert 0.5 < least[BIN] < called[600:].mean()
    assert (most[0], least[0]) == (1.0, 0.0)  # of another length nothing is known
