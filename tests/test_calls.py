import json
import random
from fractions import Fraction
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from made_blocks import MadeChunk, MadeContig, blocks_of_made, frame_scores
from virnucpro.calls import (
    FRAME_NAMES,
    Call,
    Rule,
    Status,
    chunk_calls,
    consensus,
    frame_scores_to_chunks,
)
from virnucpro.results.contig_calls import ContigCalls


def table(text: str) -> list[list[str]]:
    return [line.split("\t") for line in text.splitlines()[1:]]


def test_consensus_is_the_published_one(golden: Path):
    vectors = json.loads((golden / "consensus.json").read_text())
    frames = [(i, float(p0), float(p1)) for i, _, p0, p1 in table(vectors["frames_tsv"])]
    expected = [(i, truth == "True") for i, truth in table(vectors["consensus_tsv"])]
    random.Random(1).shuffle(frames)
    found = chunk_calls(frames)
    assert [(chunk, virus) for chunk, virus, _, _ in found] == expected
    for chunk, _, m0, m1 in found:
        own = [(p0, p1) for i, p0, p1 in frames if i[:-2] == chunk]
        assert (m0, m1) == (max(p for p, _ in own), max(p for _, p in own))
    ids = [chunk for chunk, *_ in found]
    rows = np.array(sorted((ids.index(i[:-2]), p0, p1) for i, p0, p1 in frames))
    arrays = consensus(rows[:, 0].astype(np.int32), rows[:, 1], rows[:, 2])
    columns = (arrays.virus, arrays.max_p_others, arrays.max_p_virus)
    assert arrays.chunk.tolist() == list(range(len(ids)))
    assert list(zip(*(c.tolist() for c in columns), strict=True)) == [row[1:] for row in found]


def test_ids_are_data():
    """TRAP D13. They are sorted by their bytes: one that is not UTF-8 is less than any letter."""
    ids = ["F1_chunk_1F1", "a b.F2_chunk_1R3", "é_chunk_10F3", "é_chunk_2F3", "z_chunk_1F3"]
    ids.append("\udc80_chunk_1F1")
    expected = ["F1_chunk_1", "a b.F2_chunk_1", "z_chunk_1", "\udc80_chunk_1"]
    expected += ["é_chunk_10", "é_chunk_2"]
    assert [row[0] for row in chunk_calls([(i, 0.5, 0.5) for i in ids])] == expected
    assert all(virus for _, virus, _, _ in chunk_calls([(i, 0.5, 0.5) for i in ids]))
    with pytest.raises(ValueError, match="c_chunk_1X9"):
        chunk_calls([("c_chunk_1X9", 0.1, 0.9)])


def test_the_consensus_of_no_frame_and_of_a_tie():
    assert chunk_calls([]) == []
    none = np.zeros(0, np.float32)
    assert len(consensus(np.zeros(0, np.int32), none, none).virus) == 0
    half = np.full(2, 0.5, np.float32)
    assert consensus(np.zeros(2, np.int32), half, half).virus.tolist() == [True]


probabilities = st.floats(0, 1, width=32)
made_chunks = st.lists(
    st.dictionaries(st.integers(0, 5), st.tuples(probabilities, probabilities), max_size=6),
    max_size=8,
)


@given(made_chunks)
def test_vectorised_consensus_equals_the_plain_one(frames):
    frames = [{f: p for f, p in chunk.items() if max(p) > 0} for chunk in frames]
    chunks = [MadeChunk(0, 9, Status.OK if own else Status.NO_OPEN_FRAME, own) for own in frames]
    scores = frame_scores(chunks)
    rows = [
        (f"{i:03d}{FRAME_NAMES[f]}", *p) for i, own in enumerate(frames) for f, p in own.items()
    ]
    plain = {int(chunk): rest for chunk, *rest in chunk_calls(rows)}
    calls = Rule("frames").chunks(scores)
    for i, own in enumerate(frames):
        assert scores.frames[i] == sum(1 << f for f in own)
        if not own:
            assert np.isnan(scores.p_virus[i])
            assert calls[i] == Call.NONE
            continue
        virus, m0, m1 = plain[i]
        assert (scores.max_p_others[i], scores.max_p_virus[i]) == (m0, m1)
        assert scores.p_virus[i] == m1 / (m0 + m1)
        assert calls[i] == (Call.VIRUS if virus else Call.OTHERS)


@given(probabilities.filter(bool), st.integers(-2, 2))
def test_a_contig_of_one_chunk_is_called_as_the_chunk(m0, steps):
    m1 = np.float32(m0)
    for _ in range(abs(steps)):
        m1 = np.nextafter(m1, np.float32(np.sign(steps)))
    if not 0 <= m1 <= 1:
        return
    scores = frame_scores([MadeChunk(0, 9, Status.OK, {2: (m0, float(m1))})])
    chunk = Rule("frames").chunks(scores)
    assert chunk[0] == (Call.VIRUS if m1 >= np.float32(m0) else Call.OTHERS)
    assert Rule("frames").contigs(scores.p_virus)[0] == chunk[0]


def test_thresholds_and_kinds():
    chunks = [MadeChunk(0, 9, Status.OK, {0: (1 - p, p)}) for p in (0.2, 0.5, 0.7, 0.9)]
    (block,) = blocks_of_made([MadeContig("a", chunks)], [], "chunks")
    assert list(Rule("chunks", 0.5).chunks(block.scores)) == [1, 2, 2, 2]
    assert list(Rule("kmer", 0.8).chunks(block.scores)) == [1, 1, 1, 2]
    scores = frame_scores(chunks)
    assert list(Rule("frames", 0.8).chunks(scores)) == [1, 1, 1, 2]
    assert list(Rule("frames", 0.1).chunks(scores)) == [2, 2, 2, 2]


def test_a_failed_chunk_keeps_its_frames_and_has_no_score():
    scores = frame_scores([MadeChunk(0, 9, Status.FAILED, {1: (0.25, 0.75)})])
    assert np.isnan(scores.p_virus[0])
    assert np.isnan(scores.max_p_virus[0])
    assert scores.frames[0] == 2
    assert Rule("frames").chunks(scores)[0] == Call.NONE


@pytest.mark.parametrize(
    ("chunk", "frame", "status"),
    [
        ([0, 0], [2, 1], [0]),  # frames out of order
        ([1, 0], [0, 0], [0, 0]),  # chunks out of order
        ([0], [0], [Status.OK, Status.OK]),  # called without a frame
        ([0], [0], [Status.NO_OPEN_FRAME]),  # has a frame
    ],
)
def test_frames_that_do_not_fit_are_refused(chunk, frame, status):
    p = np.full(len(chunk), 0.5, dtype=np.float32)
    with pytest.raises(ValueError):
        frame_scores_to_chunks(
            len(status),
            np.array(chunk, dtype=np.int32),
            np.array(frame, dtype=np.uint8),
            p,
            p,
            np.array(status, dtype=np.uint8),
        )


@st.composite
def made_contigs(draw):
    """Contigs as in a real run: overlapping chunks, some without a call, some without chunks."""
    contigs = []
    for ordinal in range(draw(st.integers(0, 6))):
        chunks, end = [], 0
        for _ in range(draw(st.integers(0, 5))):
            start = max(0, end - draw(st.integers(0, 4)))
            end += draw(st.integers(1, 9))
            status = draw(st.sampled_from([Status.OK, Status.OK, Status.TOO_SHORT, Status.FAILED]))
            p = draw(st.floats(0.01, 0.99))  # long mantissas: the order of a sum shows
            chunks.append(MadeChunk(start, end, status, {draw(st.integers(0, 5)): (1 - p, p)}))
        contigs.append(MadeContig(f"c{ordinal}", chunks, end))
    return contigs


OF_CONTIGS = ("chunks", "called", "virus", "failed", "mean", "max_p_virus", "status")


def aggregate(blocks, rule):
    calls = ContigCalls()
    rows = []
    for block in blocks:
        chunk = rule.chunks(block.scores)
        last_ends = not block.records or block.records[-1].ends
        rows_ = block.rows
        found = calls.add(
            len(block.records),
            rows_.record,
            rows_.start,
            rows_.end,
            block.scores,
            chunk,
            last_ends,
        )
        columns = [getattr(found, name).tolist() for name in OF_CONTIGS]
        rows += zip(*columns, strict=True)
    return rows


@given(made_contigs(), st.lists(st.integers(0, 30)))
def test_contigs_equal_a_plain_sum_wherever_blocks_are_cut(contigs, cuts):
    rule = Rule("chunks", 0.5)
    rows = aggregate(blocks_of_made(contigs, cuts, "chunks"), rule)
    assert repr(rows) == repr(aggregate(blocks_of_made(contigs, [], "chunks"), rule))
    assert len(rows) == len(contigs)
    for contig, row in zip(contigs, rows, strict=True):
        chunks, called, virus, failed, p_virus, highest, status = row
        scored = [(c, Fraction(next(iter(c.frames.values()))[1])) for c in contig.chunks]
        scored = [(c, p) for c, p in scored if c.status == Status.OK]
        assert (chunks, called) == (len(contig.chunks), len(scored))
        assert virus == sum(p >= Fraction(1, 2) for _, p in scored)
        assert failed == sum(c.status == Status.FAILED for c in contig.chunks)
        if not scored:
            assert np.isnan(p_virus)
            assert np.isnan(highest)
            worst = max((c.status for c in contig.chunks), default=Status.EMPTY)
            assert status == worst
            continue
        covered, total, weight = 0, Fraction(0), 0
        for chunk, p in scored:
            adds = chunk.end - max(chunk.start, covered)
            covered = chunk.end
            total, weight = total + adds * p, weight + adds
        assert p_virus == pytest.approx(float(total / weight), rel=1e-12)
        assert highest == max(p for _, p in scored)
        assert status == Status.OK


def test_sums_do_not_depend_on_where_blocks_are_cut():
    values = np.random.default_rng(1).random(40)
    chunks = [MadeChunk(7 * k, 7 * k + 9, Status.OK, {0: (0.5, p)}) for k, p in enumerate(values)]
    contigs, rule = [MadeContig("a", chunks)], Rule("chunks")
    whole = aggregate(blocks_of_made(contigs, [], "chunks"), rule)
    for cut in range(1, 40):
        assert aggregate(blocks_of_made(contigs, [cut, cut + 3], "chunks"), rule) == whole


def test_equal_chunks_keep_their_score():
    for p in (0.1, 0.7, 1 / 3):
        chunks = [MadeChunk(7 * k, 7 * k + 9, Status.OK, {0: (1 - p, p)}) for k in range(50)]
        ((*_, p_virus, _, _),) = aggregate(
            blocks_of_made([MadeContig("a", chunks)], [3, 9], "chunks"), Rule("chunks", p)
        )
        assert p_virus == p
