from types import ModuleType

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from virnucpro.measure.metrics import (
    auprc,
    auroc,
    auroc_interval,
    confusion,
    expected_precision,
    recall_at_false_positive_rate,
    recall_interval,
)


@pytest.fixture(scope="module")
def oracle() -> ModuleType:
    """scikit-learn's; it takes a second to load, so not every process of the suite does."""
    from sklearn import metrics

    return metrics


def rows(data: st.DataObject) -> tuple[np.ndarray, np.ndarray]:
    """Labels of both kinds and scores with many ties, some missing."""
    n = data.draw(st.integers(2, 40))
    label = np.array(data.draw(st.lists(st.booleans(), min_size=n, max_size=n)))
    label[0], label[1] = True, False
    value = st.one_of(st.just(np.nan), st.sampled_from([0.1, 0.25, 0.5, 0.75]), st.floats(0, 1))
    return label, np.array(data.draw(st.lists(value, min_size=n, max_size=n)))


def filled(score: np.ndarray) -> np.ndarray:
    """What scikit-learn can take: below every score where there is none."""
    return np.where(np.isnan(score), -1.0, score)


@settings(max_examples=150, deadline=None)
@given(st.data())
def test_areas_equal_scikit_learn(oracle: ModuleType, data: st.DataObject) -> None:
    label, score = rows(data)
    assert auroc(label, score) == pytest.approx(oracle.roc_auc_score(label, filled(score)))
    expected = oracle.average_precision_score(label, filled(score))
    assert auprc(label, score) == pytest.approx(expected)


@settings(max_examples=100, deadline=None)
@given(st.data(), st.sampled_from([0.25, 0.5, 0.3]))
def test_confusion_equals_scikit_learn(
    oracle: ModuleType, data: st.DataObject, threshold: float
) -> None:
    label, score = rows(data)
    called = filled(score) >= threshold
    found = confusion(label, score, threshold)
    assert found.accuracy == pytest.approx(oracle.accuracy_score(label, called))
    assert found.recall == pytest.approx(oracle.recall_score(label, called))
    if called.any():
        assert found.precision == pytest.approx(oracle.precision_score(label, called))
        assert found.f1 == pytest.approx(oracle.f1_score(label, called))
    else:
        assert found.precision is None
    assert found.false_positive_rate == pytest.approx(called[~label].mean())


@settings(max_examples=100, deadline=None)
@given(st.data(), st.sampled_from([0.1, 0.2, 0.5, 1.0]))
def test_recall_at_rate_equals_trying_every_threshold(data: st.DataObject, rate: float) -> None:
    label, score = rows(data)
    found = recall_at_false_positive_rate(label, score, rate)
    others = int((~label).sum())
    if rate * others < 1:
        assert found is None
        return
    best = 0.0
    for threshold in score[~np.isnan(score)]:
        called = filled(score) >= threshold
        if called[~label].sum() <= rate * others + 1e-9:
            best = max(best, called[label].mean())
    assert found == pytest.approx(best)


def test_rate_is_resolved_by_exactly_one_negative() -> None:
    label = np.array([True] * 5 + [False] * 1000)
    score = np.linspace(1, 0, 1005)
    assert recall_at_false_positive_rate(label, score, 0.001) == 1.0
    assert recall_at_false_positive_rate(label[:-1], score[:-1], 0.001) is None


def test_a_rate_allows_as_many_as_its_product_means() -> None:
    """0.29 * 100 is 28.999999999999996 in floating point."""
    label = np.array([False] * 29 + [True] + [False] * 71)
    assert recall_at_false_positive_rate(label, np.linspace(1, 0, 101), 0.29) == 1.0
    assert recall_at_false_positive_rate(label, np.linspace(1, 0, 101), 0.28) == 0.0


def test_what_has_no_score_ranks_lowest_and_ties() -> None:
    label = np.array([True, True, False, False])
    assert auroc(label, np.array([np.nan, 0.5, np.nan, 0.1])) == (0.5 + 0 + 1 + 1) / 4
    assert auroc(label, np.full(4, np.nan)) == 0.5
    found = confusion(label, np.full(4, np.nan), 0.0)
    assert (found.true_positives, found.false_positives) == (0, 0)
    assert found.precision is None
    assert recall_at_false_positive_rate(label, np.full(4, np.nan), 1.0) == 0.0


def test_one_class_or_nothing_has_no_area() -> None:
    one = np.array([True, True])
    score = np.array([0.1, 0.2])
    nothing, no_score = np.zeros(0, np.bool_), np.zeros(0)
    assert auroc(one, score) is None
    assert auroc(nothing, no_score) is None
    assert auprc(~one, score) is None
    assert auprc(nothing, no_score) is None
    assert auroc_interval(one, score, ["a", "b"]) is None
    assert auroc_interval(nothing, no_score, []) is None
    assert confusion(nothing, no_score, 0.5).accuracy is None


def test_expected_precision_is_bayes_rule() -> None:
    assert expected_precision(0.9, 0.01, 0.01) == pytest.approx(0.009 / (0.009 + 0.0099))
    assert expected_precision(0.9, 0.0, 0.01) == 1.0
    assert expected_precision(0.0, 0.0, 0.01) is None
    assert expected_precision(None, 0.1, 0.01) is None


def drawn(n_units: int, rows_each: int, spread: float) -> tuple[np.ndarray, np.ndarray, list[str]]:
    rng = np.random.default_rng(3)
    label = np.repeat(np.arange(n_units) % 2 == 0, rows_each)
    shift = np.repeat(rng.normal(size=n_units), rows_each) * spread
    score = label + shift + rng.normal(size=len(label))
    return label, score, [f"u{i}" for i in np.repeat(np.arange(n_units), rows_each)]


def test_interval_holds_the_area_and_is_wider_over_units() -> None:
    label, score, unit = drawn(30, 40, spread=1.0)
    area = auroc(label, score)
    over_units = auroc_interval(label, score, unit, seed=1)
    over_rows = auroc_interval(label, score, [str(i) for i in range(len(label))], seed=1)
    assert area is not None
    assert over_units is not None
    assert over_rows is not None
    assert over_units.low < over_rows.low < area < over_rows.high < over_units.high
    assert over_units == auroc_interval(label, score, unit, seed=1)
    assert over_units != auroc_interval(label, score, unit, seed=2)


def test_interval_over_rows_agrees_with_the_normal_approximation() -> None:
    label, score, _ = drawn(2, 400, spread=0.0)
    interval = auroc_interval(label, score, [str(i) for i in range(800)], resamples=2000)
    area = auroc(label, score)
    assert interval is not None
    assert area is not None
    q1, q2 = area / (2 - area), 2 * area**2 / (1 + area)  # Hanley and McNeil 1982
    spread = np.sqrt(
        (area * (1 - area) + 399 * (q1 - area**2) + 399 * (q2 - area**2)) / (400 * 400)
    )
    assert interval.high - interval.low == pytest.approx(2 * 1.96 * spread, rel=0.12)


def test_a_unit_of_both_labels_is_drawn_on_each_side_apart() -> None:
    label = np.array([True, False] * 10)
    interval = auroc_interval(label, np.arange(20.0), ["same"] * 20, resamples=20)
    assert interval is not None
    assert interval.low == interval.high == auroc(label, np.arange(20.0))


def test_the_interval_of_recall_holds_it_and_is_wider_over_units() -> None:
    label, score, unit = drawn(30, 40, spread=1.0)
    recall = recall_at_false_positive_rate(label, score, 0.05)
    over_units = recall_interval(label, score, unit, 0.05, seed=1)
    over_rows = recall_interval(label, score, [str(i) for i in range(len(label))], 0.05, seed=1)
    assert recall is not None
    assert over_units is not None
    assert over_rows is not None
    assert over_units.low < over_rows.low < recall < over_rows.high
    assert over_rows.high - over_rows.low < over_units.high - over_units.low
    same = recall_interval(label, score, ["u"] * len(label), 0.05, resamples=20)
    assert same is not None
    assert same.low == same.high == recall


def test_rows_without_score_are_never_found_in_an_interval_of_recall() -> None:
    label = np.array([True] * 4 + [False] * 4)
    score = np.array([0.9, 0.8, np.nan, np.nan, *[np.nan] * 4])
    interval = recall_interval(label, score, ["u"] * 8, 0.5, resamples=20)
    assert interval is not None
    assert interval.low == interval.high == 0.5
    assert recall_interval(label, score, ["u"] * 8, 0.01) is None
