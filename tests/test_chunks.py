import itertools
import json
import time

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from virnucpro.chunks import chunk_spans, span_arrays

lengths = st.integers(0, 5000)
chunk_lengths = st.integers(1, 700)


def test_golden(golden):
    cases = json.loads((golden / "fragment_spans.json").read_text())["cases"]
    assert len(cases) > 100
    for case in cases:
        spans = [tuple(span) for span in case["spans"]]
        assert chunk_spans(case["length"], case["fragment_length"]) == spans, case["length"]


@pytest.mark.parametrize(
    ("length_nt", "chunk_nt", "spans"),
    [
        (0, 300, []),
        (1, 300, [(0, 1)]),
        (300, 300, [(0, 300)]),
        (301, 300, [(0, 300), (150, 301)]),
        (501, 500, [(0, 500), (250, 501)]),
        # R = 250 for 2 gaps: low = 83, r = 84 > 2, so both gaps are 84 and the last chunk is short.
        (650, 300, [(0, 300), (216, 516), (432, 650)]),
    ],
)
def test_by_hand(length_nt, chunk_nt, spans):
    assert chunk_spans(length_nt, chunk_nt) == spans


def published(length_nt: int, chunk_nt: int) -> list[tuple[int, int]]:
    """SPEC section 1, word for word, gap by gap."""
    count = -(-length_nt // chunk_nt)
    surplus = count * chunk_nt - length_nt
    low = surplus // count if count else 0
    wider = surplus - low * (count - 1)
    gaps = ([low + 1] * wider + [low] * count)[: max(0, count - 1)]
    spans = []
    for k in range(count):
        start = k * chunk_nt - sum(gaps[:k])
        spans.append((start, min(start + chunk_nt, length_nt)))
    return spans


@given(lengths, chunk_lengths)
def test_equals_the_rule_read_plainly(length_nt, chunk_nt):
    assert chunk_spans(length_nt, chunk_nt) == published(length_nt, chunk_nt)


@given(lengths, chunk_lengths)
def test_arrays_equal_spans(length_nt, chunk_nt):
    start, end = span_arrays(length_nt, chunk_nt)
    assert start.dtype == end.dtype == np.int64
    assert list(zip(start.tolist(), end.tolist(), strict=True)) == chunk_spans(length_nt, chunk_nt)


@given(st.integers(1, 5000), chunk_lengths)
def test_chunks_cover_the_contig_in_order(length_nt, chunk_nt):
    spans = chunk_spans(length_nt, chunk_nt)
    assert len(spans) == -(-length_nt // chunk_nt)
    assert spans[0][0] == 0
    assert spans[-1][1] == length_nt
    for start, end in spans:
        assert 0 < end - start <= chunk_nt
    for (start, end), (next_start, next_end) in itertools.pairwise(spans):
        assert start < next_start <= end
        assert end <= next_end
    assert all(end - start == chunk_nt for start, end in spans[:-1])


@pytest.mark.parametrize(("length_nt", "chunk_nt"), [(-1, 300), (10, 0), (10, -3)])
@pytest.mark.parametrize("cut", [chunk_spans, span_arrays])
def test_impossible_lengths(cut, length_nt, chunk_nt):
    with pytest.raises(ValueError, match=f"chunks of {chunk_nt} nt"):
        cut(length_nt, chunk_nt)


def test_a_chromosome_is_cut_at_once():
    began = time.process_time()
    start, end = span_arrays(250_000_000, 300)
    assert time.process_time() - began < 5
    assert len(start) == 833_334
    assert end[-1] == 250_000_000
    assert int((end[:-1] - start[1:]).max()) <= 1
