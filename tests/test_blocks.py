"""Blocks: nothing is lost, doubled or moved, wherever the input is cut."""

from collections import Counter
from itertools import pairwise

import numpy as np
import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from command import dna
from virnucpro.blocks import RECORD_NT, Batches, Block, Share, Telemetry, blocks_of
from virnucpro.chunks import chunk_spans
from virnucpro.reads import Contig, letters

CHUNK_NT = 50
TEXT = dna(3_000).encode()
EDGES = [0, 1, 49, 50, 51, 99, 100, 101, 149, 150, 151, 1_499, 1_500, 3_000]
LENGTHS = st.lists(st.sampled_from(EDGES) | st.integers(0, 400), max_size=40)


def contigs_of_lengths(lengths: list[int]) -> list[Contig]:
    return [
        Contig("in", i, f"c{i % 3}", TEXT[i : i + n] if n < 2_000 else TEXT[:n])
        for i, n in enumerate(lengths, 1)
    ]


def chunks_in(block: Block) -> list[tuple[int, int, int, int, bytes]]:
    """(record, k, start, end, letters) of the chunks of a block."""
    rows = block.rows
    return [
        (block.records[r].record, int(k), int(a), int(b), block.chunk(i))
        for i, (r, k, a, b) in enumerate(
            zip(rows.record, rows.number, rows.start, rows.end, strict=True)
        )
    ]


@settings(max_examples=150, deadline=None)
@given(LENGTHS, st.integers(1, 2_500), st.none() | st.integers(1, 2_500))
@example([3_000], 1, None)
@example([0, 0, 0], 10, None)
@example([1] * 40, 200, 50)
def test_every_record_and_every_chunk_once_and_in_order(lengths, block_nt, first_nt):
    """TRAP D1."""
    contigs = contigs_of_lengths(lengths)
    blocks = list(blocks_of(contigs, CHUNK_NT, block_nt, first_nt))
    assert [block.number for block in blocks] == list(range(len(blocks)))
    begun = [r for block in blocks for r in block.records if r.begins]
    assert [(r.ordinal, r.record, r.name, r.length_nt) for r in begun] == [
        (i, c.record, c.name, len(c.sequence)) for i, c in enumerate(contigs)
    ]
    ended = Counter(r.record for block in blocks for r in block.records if r.ends)
    assert ended == Counter(c.record for c in contigs)
    found = [chunk for block in blocks for chunk in chunks_in(block)]
    assert found == [
        (c.record, k, start, end, c.sequence[start:end])
        for c in contigs
        for k, (start, end) in enumerate(chunk_spans(len(c.sequence), CHUNK_NT), 1)
    ]


@settings(max_examples=100, deadline=None)
@given(LENGTHS, st.integers(1, 2_500))
def test_blocks_are_full_and_never_much_fuller(lengths, block_nt):
    blocks = list(blocks_of(contigs_of_lengths(lengths), CHUNK_NT, block_nt))
    weights = [len(block.text) + RECORD_NT * len(block.records) for block in blocks]
    assert all(weight < block_nt + CHUNK_NT + RECORD_NT for weight in weights)
    for (block, weight), (after, _) in pairwise(zip(blocks, weights, strict=True)):
        goes_on = not block.records[-1].ends
        assert weight >= block_nt or goes_on
        assert goes_on == (not after.records[0].begins)
        if goes_on:  # the next chunk of the record would not have fitted
            (first,) = chunks_in(after)[:1]
            start, end = (
                int(block.rows.start[block.rows.record == len(block.records) - 1][0]),
                first[3],
            )
            before = weight - RECORD_NT - (int(block.rows.end[-1]) - start)
            assert before + end - start > block_nt or before >= block_nt


def test_a_small_first_block_and_each_twice_the_one_before():
    contigs = contigs_of_lengths([100 - RECORD_NT] * 100)
    sizes = [len(block.records) for block in blocks_of(contigs, CHUNK_NT, 1_500, 200)]
    assert sizes == [2, 4, 8, 15, 15, 15, 15, 15, 11]
    same = blocks_of(contigs, CHUNK_NT, 1_500, 9_999)
    assert [b.digest for b in same] == [b.digest for b in blocks_of(contigs, CHUNK_NT, 1_500)]


def test_a_long_contig_is_cut_between_chunks_and_shares_letters():
    (contig,) = contigs_of_lengths([2_999])
    blocks = list(blocks_of([contig], CHUNK_NT, 500))
    assert len(blocks) > 5
    assert [r.begins for block in blocks for r in block.records] == [True] + [False] * (
        len(blocks) - 1
    )
    assert sum(len(block.text) for block in blocks) >= 2_999
    assert max(len(block.text) for block in blocks) <= 500
    assert {block.records[0].length_nt for block in blocks} == {2_999}


def test_text_is_upper_case_dna_and_offsets_are_into_it():
    contigs = [Contig("in", 1, "a", b"acgun" * 20), Contig("in", 2, "b", b"RYSW" * 20)]
    (block,) = blocks_of(contigs, CHUNK_NT, 10_000)
    assert block.text == b"ACGTN" * 20 + b"RYSW" * 20
    assert block.text == b"".join(letters(contig.sequence) for contig in contigs)
    start_of_b = chunk_spans(80, CHUNK_NT)[1][0]
    assert block.offset.tolist() == [0, 50, 100, 100 + start_of_b]
    assert block.rows.length_nt.tolist() == [50, 50, 50, 80 - start_of_b]


def test_faulty_and_empty_contigs_stay_in_their_block():
    contigs = [
        Contig("in", 1, "a", b""),
        Contig("in", 2, "b", b"", "it holds a '!'"),
        Contig("other", 1, "c", b"ACGT"),
    ]
    (block,) = blocks_of(contigs, CHUNK_NT, 10_000)
    assert [(r.sample, r.fault) for r in block.records] == [
        ("in", ""),
        ("in", "it holds a '!'"),
        ("other", ""),
    ]
    assert [r.ordinal for r in block.records] == [0, 1, 2]
    assert block.rows.record.tolist() == [2]


def test_no_contigs_are_no_blocks():
    assert list(blocks_of([], CHUNK_NT, 100)) == []


BASE = [Contig("in", 1, "a", b"ACGT" * 30), Contig("in", 2, "b", b"G"), Contig("in", 3, "c", b"AC")]


def digests(contigs: list[Contig], block_nt: int = 10_000, chunk_nt: int = CHUNK_NT) -> list[str]:
    return [block.digest for block in blocks_of(contigs, chunk_nt, block_nt)]


@pytest.mark.parametrize(
    "changed",
    [
        [BASE[0]._replace(sequence=b"ACGT" * 29 + b"ACGA"), *BASE[1:]],
        [BASE[0]._replace(sequence=b"ACGT" * 29 + b"ACG"), *BASE[1:]],
        [BASE[0]._replace(name="A"), *BASE[1:]],
        [BASE[0], BASE[1]._replace(sequence=b"GA"), BASE[2]._replace(sequence=b"C")],
        [BASE[0], BASE[1]._replace(fault="it holds a '!'"), BASE[2]],
        [BASE[0], BASE[1]._replace(record=4), BASE[2]],
        [BASE[1], BASE[0], BASE[2]],
        BASE[:2],
    ],
    ids=["letter", "length", "name", "border", "fault", "ordinal", "order", "fewer"],
)
def test_a_digest_tells_every_change(changed):
    """TRAP D10."""
    assert digests(changed) != digests(BASE)
    assert digests(list(BASE)) == digests(BASE)


def test_a_digest_does_not_tell_what_a_file_is_called():
    assert digests([contig._replace(sample="out") for contig in BASE]) == digests(BASE)


def test_digests_and_checksums_stay_as_they_are_since_unfinished_runs_hold_them():
    contigs = [
        Contig("in", 1, "a", b"acgu" * 30),
        Contig("in", 2, "b", b"ACG", short=True),
        Contig("in", 3, "c", b"", "it holds a '!'", refused_nt=70),
        Contig("in", 4, "\u00e9", b"GATTACA" * 99),
    ]
    first, *_, last = blocks_of(contigs, 100, 300)
    assert first.digest == "60aafb17aa9fca8afefb7fa7a25024ee2e07633848e799b38b543e187a21e8bd"
    assert first.records.letters_crc.tolist() == [640432770, 3187013136, 0]
    assert last.digest == "78d60234d6bd65b35b92c4cbc5163f0bf8335f1e7b933130cf2734566f12ba1a"
    assert last.records.letters_crc.tolist() == [3044656840]


def test_a_digest_tells_where_a_long_contig_was_cut():
    contig = [Contig("in", 1, "a", b"A" * 1_000)]  # every part of it has the same letters
    assert digests(contig, 300) != digests(contig, 400)
    assert len(set(digests(contig, 300))) > 1
    assert digests(contig, 10_000, 50) != digests(contig, 10_000, 60)


@given(
    st.binary(min_size=1, max_size=60).map(lambda b: bytes(b"ACGT"[x % 4] for x in b)), st.data()
)
def test_any_letter_changes_the_digest(sequence, data):
    at = data.draw(st.integers(0, len(sequence) - 1))
    other = data.draw(st.sampled_from([x for x in b"ACGTN" if x != sequence[at]]))
    changed = sequence[:at] + bytes([other]) + sequence[at + 1 :]
    assert digests([Contig("in", 1, "a", changed)]) != digests([Contig("in", 1, "a", sequence)])


def test_rows_are_typed_as_documented():
    (block,) = blocks_of(contigs_of_lengths([120, 0, 3]), CHUNK_NT, 10_000)
    rows = block.rows
    assert [a.dtype for a in (rows.record, rows.number)] == [np.int32] * 2
    assert [a.dtype for a in (rows.start, rows.end, block.offset)] == [np.int64] * 3


def test_telemetry_adds_up():
    one = Telemetry(
        scoring_s=1.0,
        kernels={"esm2": frozenset({"flash"})},
        batches={"esm2": Batches(64, 64, 1, 60, 2), "codon": Batches(9, 9, 1, 9, 0)},
        embedding_widths=(768, 2560),
        shares={"1": Share("a", "cpu", 1, 2, 3.0, 0.5, 1)},
        notes=("first",),
    )
    other = Telemetry(
        scoring_s=2.0,
        kernels={"esm2": frozenset({"math"}), "codon": frozenset({"math"})},
        batches={"esm2": Batches(64, 32, 10, 600, 20, 1)},
        in_turns=True,
        expandable_segments=False,
        shares={"1": Share("a", "cpu", 10, 20, 30.0, 0.5, 1), "2": Share("b", "cpu")},
        notes=("second",),
    )
    both = one + other
    assert both == Telemetry(
        scoring_s=3.0,
        kernels={"esm2": frozenset({"flash", "math"}), "codon": frozenset({"math"})},
        batches={"esm2": Batches(64, 32, 11, 660, 22, 1), "codon": Batches(9, 9, 1, 9, 0)},
        embedding_widths=(768, 2560),
        in_turns=True,
        expandable_segments=False,
        shares={"1": Share("a", "cpu", 11, 22, 33.0, 1.0, 2), "2": Share("b", "cpu")},
        notes=("first", "second"),
    )
    assert both.attention == {"esm2": "flash,math", "codon": "math"}
