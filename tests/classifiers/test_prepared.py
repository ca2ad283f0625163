"""What is computed of a block before the encoders, against the plain path."""

import json
import subprocess
import sys
from dataclasses import fields

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from tokenizers import Tokenizer
from tokenizers.models import BPE

from virnucpro.blocks import blocks_of
from virnucpro.calls import FRAME_NAMES, Status
from virnucpro.classifiers.prepared import FramePreparation, PreparedFrames
from virnucpro.errors import BundleError
from virnucpro.frames import open_frames
from virnucpro.reads import Contig
from virnucpro.tokens import (
    NUCLEOTIDE_SPECIALS,
    NucleotideTokenizer,
    TokenRows,
    protein_ids,
    protein_rows,
)

CHUNK_NT = 90


@pytest.fixture(scope="module")
def tokenizer(tmp_path_factory):
    """A small byte-pair encoding with the ids of DNABERT-S's special tokens."""
    return small_tokenizer(tmp_path_factory.mktemp("words") / "tokenizer.json")


def small_tokenizer(path):
    words = [*NUCLEOTIDE_SPECIALS, *"ACGT", "AC", "GT", "ACGT", "TA"]
    merges = [("A", "C"), ("G", "T"), ("AC", "GT"), ("T", "A")]
    model = BPE({word: k for k, word in enumerate(words)}, merges, unk_token="[UNK]")
    made = Tokenizer(model)
    made.add_special_tokens(list(NUCLEOTIDE_SPECIALS))
    made.save(str(path))
    content = json.loads(path.read_text())
    content["post_processor"] = {
        "type": "TemplateProcessing",
        "single": [
            {"SpecialToken": {"id": "[CLS]", "type_id": 0}},
            {"Sequence": {"id": "A", "type_id": 0}},
            {"SpecialToken": {"id": "[SEP]", "type_id": 0}},
        ],
        "pair": [{"Sequence": {"id": "A", "type_id": 0}}],
        "special_tokens": {
            word: {"id": word, "ids": [k], "tokens": [word]}
            for word, k in (("[CLS]", 1), ("[SEP]", 2))
        },
    }
    path.write_text(json.dumps(content))
    return path


def blocks(contigs, block_nt=10**6, chunk_nt=CHUNK_NT):
    made = [Contig("s", k, f"c{k}", text.encode()) for k, text in enumerate(contigs, 1)]
    return list(blocks_of(made, chunk_nt, block_nt))


def sequences(rows):
    """The ids of each row, one by one."""
    distinct = [part.tolist() for part in rows.distinct()]
    return [distinct[k] for k in rows.place.tolist()]


def assert_equal(one, other):
    """To the bit, with all types."""
    for part in fields(PreparedFrames):
        left, right = getattr(one, part.name), getattr(other, part.name)
        pairs = [(left, right)]
        if isinstance(left, TokenRows):
            pairs = [(getattr(left, f.name), getattr(right, f.name)) for f in fields(TokenRows)]
        for a, b in pairs:
            assert a.dtype == b.dtype
            np.testing.assert_array_equal(a, b)


DNA = st.text("ACGTN", max_size=200)


@settings(max_examples=60, deadline=None)
@given(st.lists(DNA, max_size=6))
def test_frames_and_tokens_are_those_of_the_plain_path(tokenizer, contigs):
    """TRAP D1, D3."""
    words, preparation = NucleotideTokenizer(tokenizer), FramePreparation(tokenizer)
    for block in blocks(contigs):
        prepared = preparation(block)
        expected = [
            (row, frame)
            for row in range(len(block.rows))
            for frame in open_frames(block.chunk(row).decode())
        ]
        assert prepared.chunk.tolist() == [row for row, _ in expected]
        names = [FRAME_NAMES[frame] for frame in prepared.frame]
        assert names == [frame.name for _, frame in expected]
        ids = [words.ids(frame.nucleotides).tolist() for _, frame in expected]
        assert sequences(prepared.nucleotides) == ids
        proteins = [protein_ids(frame.protein).tolist() for _, frame in expected]
        assert sequences(prepared.protein) == proteins
        open_ = {row for row, _ in expected}
        assert prepared.status.tolist() == [
            Status.OK if row in open_ else Status.NO_OPEN_FRAME for row in range(len(block.rows))
        ]


def test_the_published_tokenizer(golden):
    words = NucleotideTokenizer(golden / "dnabert_s_tokenizer.json")
    random = np.random.default_rng(3)
    texts = ["".join(random.choice(list("ACGTN"), n)) for n in random.integers(0, 300, 40)]
    expected = [words.ids(text).tolist() for text in texts]
    assert sequences(words.rows([*texts, texts[0]])) == [*expected, expected[0]]
    assert [ids.tolist() for ids in words.batch(texts)] == expected


@given(st.lists(st.text(max_size=12), max_size=8))
def test_proteins_at_once_and_one_by_one(proteins):
    assert sequences(protein_rows(proteins)) == [protein_ids(p).tolist() for p in proteins]


SOME_IDS = st.lists(st.integers(0, 3), max_size=3)


@given(st.lists(st.lists(SOME_IDS, max_size=8), min_size=1, max_size=4))
def test_equal_sequences_are_held_once_and_parts_make_the_whole(parts):
    """TRAP D1."""
    whole = [ids for part in parts for ids in part]
    rows = TokenRows.of([np.array(ids, np.int64) for ids in whole])
    assert sequences(rows) == whole
    once = [*dict.fromkeys(map(tuple, whole))]
    assert [tuple(ids.tolist()) for ids in rows.distinct()] == once
    assert rows.lengths.tolist() == [len(d) for d in rows.distinct()]
    assert len(rows) == len(whole)
    joined = TokenRows.joined([TokenRows.of([np.array(i, np.int64) for i in p]) for p in parts])
    for part in fields(TokenRows):
        np.testing.assert_array_equal(getattr(rows, part.name), getattr(joined, part.name))


def test_ids_that_16_bits_do_not_hold_are_refused():
    assert sequences(TokenRows.of([np.array([65_535])])) == [[65_535]]
    for ids in ([65_536], [-1]):
        with pytest.raises(ValueError, match="16 bits"):
            TokenRows.of([np.array(ids)])


@settings(max_examples=40, deadline=None)
@given(st.lists(DNA, max_size=5), st.data())
def test_halves_of_a_block_make_the_whole(tokenizer, contigs, data):
    preparation = FramePreparation(tokenizer)
    for block in blocks(contigs):
        cut = data.draw(st.integers(0, len(block.rows)))
        halves = block.part(0, cut), block.part(cut, len(block.rows))
        assert_equal(preparation(block), PreparedFrames.joined([*map(preparation, halves)]))


def test_a_tokenizer_that_is_gone_is_a_bundle_error(tmp_path):
    with pytest.raises(BundleError, match="cannot be read"):
        FramePreparation(tmp_path / "tokenizer.json")


def test_it_loads_no_torch():
    code = "import sys, virnucpro.classifiers.prepared; sys.exit('torch' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0
