"""Scores of two classifiers as one: each chunk once, its frames and groups with it."""

import numpy as np
import pytest

from virnucpro.blocks import blocks_of
from virnucpro.calls import Scores, Status
from virnucpro.classifiers.cascade import CascadeClassifier, Cuts, joined
from virnucpro.classifiers.chunk_status import whole_chunk_scores
from virnucpro.progress import hearing, stepped, steps_ahead
from virnucpro.reads import Contig

OK, SHORT = Status.OK, Status.TOO_SHORT


class Stub:
    """Scores a chunk by its length, and remembers what it saw."""

    precision, device, ahead, attention, batches = "fp32", "cpu", None, {"codon": "math"}, {}

    def __init__(self, name, p_of, groups=0):
        self.name, self.p_of, self.groups, self.saw = name, p_of, groups, []

    def restore_budgets(self):
        self.saw.clear()

    def score(self, chunks):
        self.saw += chunks
        status = np.array([OK if len(c) >= 4 else SHORT for c in chunks], np.uint8)
        p_virus = np.array([self.p_of[c[0]] for c in chunks], np.float64)
        frame = np.array([len(c) % 6 for c in chunks], np.uint8)
        group_p = np.full((len(chunks), self.groups), 0.5, np.float32) if self.groups else None
        return whole_chunk_scores(status, p_virus, frame, 63, group_p)


def test_chunks_keep_their_order_frames_and_groups():
    small = Stub("small", {"A": 0.1, "C": 0.8, "G": 0.2})
    large = Stub("large", {"A": 0.9, "C": 0.6, "G": 0.7}, groups=3)
    both = CascadeClassifier(small, large, Cuts((0,), (0.2,)))
    chunks = ["CCCC", "AAAAA", "AC", "GGGGGG", "AAAA"]
    found = both.score(chunks)
    assert found.p_virus.tolist() == pytest.approx([0.6, 0.1, np.nan, 0.7, 0.1], nan_ok=True)
    assert found.prescreened.tolist() == [False, True, False, False, True]
    assert large.saw == ["CCCC", "AC", "GGGGGG"]
    assert found.frame_chunk.tolist() == [0, 1, 3, 4]
    assert found.frame.tolist() == [4, 5, 0, 4]
    assert found.frame_p_virus.tolist() == pytest.approx([0.6, 0.1, 0.7, 0.1])
    assert found.status.tolist() == [OK, OK, SHORT, OK, OK]
    assert (found.groups != 0).all(axis=1).tolist() == [True, False, False, True, False]
    assert both.attention == {"codon": "math", "prescreen codon": "math"}
    both.restore_budgets()
    assert (small.saw, large.saw) == ([], [])


def test_only_the_large_one_is_heard():
    class Stepping(Stub):
        def score_block(self, block):
            steps_ahead(4)
            stepped(self.of_four)
            return self.score([block.chunk(row).decode() for row in range(len(block.rows))])

    small, large = (Stepping(name, {"A": 0.9}) for name in ("small", "large"))
    small.of_four, large.of_four = 3, 2
    (block,) = blocks_of([Contig("in", 1, "a", b"A" * 100)], 100, 1_000)
    told = []
    with hearing(told.append):
        CascadeClassifier(small, large, Cuts((0,), (0.2,))).score_block(block)
    assert told == [0.5]


def test_all_or_none_may_end():
    first = whole_chunk_scores(np.zeros(3, np.uint8), np.array([0.1, 0.2, 0.3]))
    second = whole_chunk_scores(np.zeros(3, np.uint8), np.array([0.7, 0.8, 0.9]))
    nothing = whole_chunk_scores(np.zeros(0, np.uint8), np.zeros(0))
    all_ended = joined(first, nothing, np.ones(3, np.bool_))
    assert all_ended.p_virus.tolist() == [0.1, 0.2, 0.3]
    assert joined(first, second, np.zeros(3, np.bool_)).p_virus.tolist() == [0.7, 0.8, 0.9]


def test_several_frames_a_chunk_stay_with_it():
    """As of a large bundle of kind frames."""
    first = whole_chunk_scores(np.zeros(3, np.uint8), np.array([0.9, 0.1, 0.9]))
    two = np.zeros(2, np.float32)
    second = Scores(
        status=np.array([OK, Status.NO_OPEN_FRAME], np.uint8),
        frames=np.array([5, 0], np.uint8),
        p_virus=np.array([0.5, np.nan]),
        max_p_virus=np.array([0.5, np.nan], np.float32),
        max_p_others=np.array([0.5, np.nan], np.float32),
        frame_chunk=np.zeros(2, np.int32),
        frame=np.array([0, 2], np.uint8),
        frame_p_others=two,
        frame_p_virus=two,
    )
    found = joined(first, second, np.array([False, True, False]))
    assert found.frame_chunk.tolist() == [0, 0, 1]
    assert found.frame.tolist() == [0, 2, 0]
    assert found.frames.tolist() == [5, 0, 0]
    assert np.isnan(found.max_p_virus).tolist() == [False, True, True]
    halves = [found, Scores.failed(1)]
    assert Scores.joined(halves).prescreened.tolist() == [False, True, False, False]
    assert found.failing(np.array([1])).prescreened.tolist() == [False, False, False]


def test_cuts_hold_from_their_length_on():
    cuts = Cuts((100, 300), (0.1, 0.3))
    lengths = np.array([0, 99, 100, 299, 300, 5000])
    assert cuts.of(lengths).tolist() == [0.0, 0.0, 0.1, 0.1, 0.3, 0.3]
    assert str(cuts) == "0.1 from 100 nt, 0.3 from 300 nt"
