"""Ids of proteins and nucleotides."""

import json
import subprocess
import sys

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from safetensors import safe_open

from virnucpro.errors import BundleError
from virnucpro.tokens import PROTEIN_ALPHABET, NucleotideTokenizer, padded, protein_ids


@pytest.fixture(scope="module")
def words(golden):
    return NucleotideTokenizer(golden / "dnabert_s_tokenizer.json")


def test_alphabet_is_that_of_the_weights(golden):
    with safe_open(golden / "esm2_fair_layout.weights.safetensors", "np") as file:
        assert json.loads(file.metadata()["config"])["alphabet"] == list(PROTEIN_ALPHABET)


def test_golden_proteins(golden):
    with safe_open(golden / "esm2.examples.safetensors", "np") as file:
        for k, protein in enumerate(json.loads(file.metadata()["proteins"])):
            assert protein_ids(protein).tolist() == file.get_tensor(f"input_ids.{k}")[0].tolist()


def test_letters_outside_the_alphabet_are_unk():
    assert protein_ids("MJm*-.é1").tolist() == [0, 20, 3, 3, 3, 30, 29, 3, 3, 2]
    assert protein_ids("").tolist() == [0, 2]


@given(st.text(max_size=50))
def test_one_id_a_letter_and_no_special_inside(protein):
    ids = protein_ids(protein)
    assert ids.dtype == np.int64
    plain = [
        PROTEIN_ALPHABET.index(letter) if letter in PROTEIN_ALPHABET else 3 for letter in protein
    ]
    assert ids.tolist() == [0, *plain, 2]


def test_padded():
    assert padded([np.array([1, 2, 3]), np.array([4])], 9).tolist() == [[1, 2, 3], [4, 9, 9]]
    assert padded([], 9).shape == (0, 0)


def test_known_encodings(words):
    known = {
        "ACGTAGCATCGGATCTATCTATCGACACTTGGTTATCGATCTACGAGCATCTCGTTAGC": (
            "1 5 194 32 757 1239 2092 294 24 359 88 93 32 75 77 19 2"
        ),
        "ACGTNNNNACGT": "1 5 6 1049 0 0 0 0 5 6 1049 2",
    }
    for nucleotides, ids in known.items():
        assert words.ids(nucleotides).tolist() == [int(word) for word in ids.split()]
    for ids, batched in zip(known.values(), words.batch(list(known)), strict=True):
        assert batched.tolist() == [int(word) for word in ids.split()]


def test_neither_padding_nor_truncation(words):
    assert len(words.ids("A")) == 3
    random = np.random.default_rng(1)
    assert len(words.ids("".join(random.choice(list("ACGT"), 20_000)))) > 2002


def test_case_counts(words):
    assert words.ids("acgt").tolist() == [1, 0, 0, 0, 0, 2]


@pytest.mark.parametrize(
    ("text", "said"),
    [
        (None, "cannot be read"),
        ("{", "damaged"),
        ("[]", "damaged"),
        ('{"model": {"type": "WordPiece", "vocab": {}, "merges": []}}', "no byte-pair encoding"),
    ],
)
def test_what_is_no_tokenizer(tmp_path, text, said):
    path = tmp_path / "tokenizer.json"
    if text is not None:
        path.write_text(text)
    with pytest.raises(BundleError, match=said) as caught:
        NucleotideTokenizer(path)
    assert str(path) in str(caught.value)


def test_another_tokenizer_is_refused(golden, tmp_path):
    tokenizer = json.loads((golden / "dnabert_s_tokenizer.json").read_text())
    tokenizer["model"]["vocab"]["[PAD]"], tokenizer["model"]["vocab"]["[SEP]"] = 2, 3
    for token in tokenizer["added_tokens"]:
        token["id"] = {2: 3, 3: 2}.get(token["id"], token["id"])
    path = tmp_path / "tokenizer.json"
    path.write_text(json.dumps(tokenizer))
    with pytest.raises(BundleError, match="not the tokenizer of DNABERT-S"):
        NucleotideTokenizer(path)


def test_tokens_load_no_torch():
    code = "import sys, virnucpro.tokens; sys.exit('torch' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0
