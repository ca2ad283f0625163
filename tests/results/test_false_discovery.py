"""q-values by counts against a plain reading of Benjamini and Hochberg's rule."""

from itertools import pairwise

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from virnucpro.results.false_discovery import (
    FEWEST,
    Bound,
    Null,
    Resolution,
    Steps,
    mixture,
    q_values,
    worst,
    worst_of_groups,
)

SCORES = st.lists(st.sampled_from([-3.0, -1.0, 0.0, 0.5, 0.5000001, 2.0, 7.0]), max_size=12)
BINS = 2


def null_of(by_bin) -> Null:
    score = np.concatenate([np.array(part, float) for part in by_bin])
    where = np.repeat(np.arange(BINS), [len(part) for part in by_bin])
    return Null.of(score, where, BINS)


def counted(steps: Steps, length_bin, score):
    counts = steps.zeros()
    for b, step in zip(length_bin, steps.step(np.array(length_bin), np.array(score)), strict=True):
        counts[b][step] += 1
    return counts


def plain_p(negatives, score) -> float:
    return (1 + sum(n >= score for n in negatives)) / (1 + len(negatives))


def plain_q(p: list[float]) -> list[float]:
    """Of each record: the least rate at which the step-up procedure calls it."""
    order = sorted(range(len(p)), key=lambda i: p[i])
    q, least = [0.0] * len(p), 1.0
    for rank in range(len(p), 0, -1):
        i = order[rank - 1]
        least = min(least, p[i] * len(p) / rank)
        q[i] = least
    return q


@given(st.tuples(SCORES, SCORES), st.lists(st.tuples(st.integers(0, 1), SCORES), max_size=4))
def test_q_values_are_those_of_the_plain_rule(negatives, parts):
    records = [(b, score) for b, scores in parts for score in scores]
    null = null_of(negatives)
    steps = Steps.of([null])
    length_bin = np.array([b for b, _ in records], np.int64)
    score = np.array([s for _, s in records])
    counts = counted(steps, length_bin, score)
    q = q_values(steps.p_values(null), counts)
    step = steps.step(length_bin, score)
    found = [q[b][j] for b, j in zip(length_bin, step, strict=True)]
    p = [plain_p(negatives[b], s) for b, s in records]
    assert found == pytest.approx(plain_q(p))
    # Monotone in the score within a length bin, and never below what the negatives resolve.
    for b in range(BINS):
        of_bin = sorted((s, x) for (c, s), x in zip(records, found, strict=True) if c == b)
        assert all(x >= y for (_, x), (_, y) in pairwise(of_bin))
        assert all(x >= 1 / (1 + len(negatives[b])) for _, x in of_bin)


@given(SCORES, SCORES, SCORES)
def test_the_worst_and_a_mixture_of_nulls(one, other, scores):
    nulls = [null_of([part, []]) for part in (one, other)]
    steps = Steps.of(nulls)
    score = np.array(scores, float)
    step = steps.step(np.zeros(len(score), np.int64), score)
    of_each = [steps.p_values(null) for null in nulls]
    highest = worst(of_each)[0][step]
    mixed = mixture(dict(zip("ab", of_each, strict=True)), {"a": 1.0, "b": 3.0})[0][step]
    for s, high, mix in zip(scores, highest, mixed, strict=True):
        a, b = plain_p(one, s), plain_p(other, s)
        assert high == max(a, b)
        assert mix == pytest.approx((a + 3 * b) / 4)


def test_a_group_of_few_negatives_is_judged_with_all_others():
    rng = np.random.default_rng(1)
    many, few = rng.normal(size=FEWEST), np.full(FEWEST - 1, 9.0)
    groups = {"many": null_of([many, []]), "few": null_of([few, []])}
    steps = Steps.of([*groups.values()])
    p = worst_of_groups(steps, groups)[0]
    of_nine = steps.step(np.zeros(1, np.int64), np.array([9.0]))[0]
    assert p[of_nine] == plain_p([*many, *few], 9.0) < plain_p(few, 9.0)
    assert p[-1] == 1 / (1 + FEWEST)  # above all: what the smaller of both nulls resolves


def test_what_a_null_resolves():
    null = null_of([range(9), range(99)])
    steps = Steps.of([null])
    counts = counted(steps, [0] * 50 + [1] * 50, [20.0] * 2 + [0.0] * 48 + [200.0] * 5 + [1.0] * 45)
    found = Resolution.of(steps.p_values(null), counts)
    assert (found.floor, found.best, found.records) == (0.01, 5, 100)
    assert found.smallest_q == pytest.approx(found.floor * found.records / found.best)
    none = Resolution.of(steps.p_values(null), steps.zeros())
    assert (none.records, none.smallest_q) == (0, 0.0)


def test_the_smallest_q_may_be_of_another_length():
    """One record beyond 999 negatives, and fifty beyond 99 of another length."""
    null = null_of([range(999), range(99)])
    steps = Steps.of([null])
    counts = counted(steps, [0] + [1] * 99, [2000.0] + [200.0] * 50 + [1.0] * 49)
    p_values = steps.p_values(null)
    told = np.concatenate(q_values(p_values, counts))[np.concatenate(counts) > 0]
    found = Resolution.of(p_values, counts)
    assert found.smallest_q == told.min() == pytest.approx(0.01 * 100 / 51)
    assert (found.floor, found.reached, found.best) == (0.01, 0.01, 51)


def test_the_floor_is_that_of_the_length_of_the_best():
    """Fifty records below one of 99 negatives; of the other length, with 999, none is near."""
    null = null_of([range(999), range(99)])
    steps = Steps.of([null])
    counts = counted(steps, [1] * 50 + [0] * 50, [98.0] * 50 + [1.0] * 50)
    found = Resolution.of(steps.p_values(null), counts)
    assert (found.floor, found.reached, found.best) == (0.01, 0.02, 50)


def test_a_rate_is_kept_in_simulated_samples():
    """Of exchangeable negatives at most the asked share is called, on average."""
    rng = np.random.default_rng(2)
    shares = []
    for _ in range(200):
        null = null_of([rng.normal(size=500), []])
        steps = Steps.of([null])
        score = np.concatenate([rng.normal(size=450), rng.normal(3.5, 1, size=50)])
        zeros = np.zeros(500, np.int64)
        q = q_values(steps.p_values(null), counted(steps, zeros, score))[0][
            steps.step(zeros, score)
        ]
        called = q <= 0.1
        shares.append(called[:450].sum() / max(called.sum(), 1))
    assert 0.05 < np.mean(shares) < 0.1 + 3 * np.std(shares) / np.sqrt(200)


def test_a_bound_holds_up_to_its_scores_and_raises_no_step_above_them():
    bound = Bound.of(
        [(np.array([0.0, 2.0, np.inf]), np.array([0.6, 0.3, 0.1])), (np.zeros(0),) * 2]
    )
    assert bound.p_values(0, np.array([-9.0, 0.0, 0.1, 2.0, 2.1, np.inf])).tolist() == [
        *(0.6, 0.6, 0.3, 0.3, 0.1, 0.1)
    ]
    assert bound.p_values(1, np.array([-9.0, 9.0])).tolist() == [0.0, 0.0]  # nothing is known
    null = null_of([[-3.0, 1.0], [0.0]])
    steps = Steps.of([null, bound])
    for b, (edges, of_bin) in enumerate(zip(steps.edges, steps.p_values(bound), strict=True)):
        middles = np.append(edges, np.inf)
        assert of_bin.tolist() == bound.p_values(b, middles).tolist()
