"""What a bundle was trained on, as a sketch."""

import random

import numpy as np
import pytest

from command import dna, made_bundle
from virnucpro.bundle import load
from virnucpro.bundle.sketch import (
    ONE_IN,
    K,
    _hashes,
    _words,
    add_sketch,
    share_known,
    sketch_of,
    training_sketch,
)

COMPLEMENT = str.maketrans("ACGT", "TGCA")


def turned(sequence: str) -> str:
    return sequence.translate(COMPLEMENT)[::-1]


def test_words_are_the_letters_as_numbers_of_base_four():
    sequence = dna(100)
    letters = np.array(["ACGT".index(x) for x in sequence], np.uint64)
    expected = [
        int("".join(str("ACGT".index(x)) for x in sequence[i : i + K]), 4)
        for i in range(len(sequence) - K + 1)
    ]
    assert _words(letters).tolist() == expected


def test_both_strands_and_either_case_are_one():
    sequence = dna(5_000)
    for other in (turned(sequence), sequence.lower()):
        assert set(_hashes(other.encode())) == set(_hashes(sequence.encode()))


def test_other_letters_are_passed_over():
    left, right = dna(400, 1), dna(400, 2)
    found = _hashes(f"{left}N{right}".encode())
    assert found.tolist() == [*_hashes(left.encode()), *_hashes(right.encode())]
    assert not len(_hashes(b"ACGT"))
    assert not len(_hashes(b""))


def test_a_sketch_holds_one_in_so_many_and_does_not_depend_on_the_cuts(monkeypatch):
    sequence = "".join(random.Random(1).choices("ACGT", k=400_000)).encode()
    whole = sketch_of([sequence])
    assert 0.7 < len(whole) * ONE_IN / len(sequence) < 1.3
    monkeypatch.setattr("virnucpro.bundle.sketch._AT_ONCE_NT", 1_000)
    assert sketch_of([sequence]).tolist() == whole.tolist()
    parts = [sequence[: 200_000 + K - 1], sequence[200_000:]]
    assert sketch_of(parts).tolist() == whole.tolist()


def test_the_share_of_known_sequences_is_estimated():
    rng = random.Random(2)
    trained = ["".join(rng.choices("ACGT", k=100_000)).encode() for _ in range(4)]
    other = "".join(rng.choices("ACGT", k=200_000)).encode()
    sketch = sketch_of(trained)
    assert share_known(sketch, trained[:2]) == 1.0
    assert share_known(sketch, [other]) == 0.0
    assert share_known(sketch, [*trained[:2], other]) == pytest.approx(0.5, abs=0.12)
    assert share_known(sketch, [b"ACGT"]) is None


def test_a_bundle_keeps_its_sketch(tmp_path):
    bundle = made_bundle(tmp_path / "km")
    assert training_sketch(bundle) is None
    sequence = dna(50_000).encode()
    add_sketch(bundle, [sequence])
    found = load(tmp_path / "km")
    assert training_sketch(found).tolist() == sketch_of([sequence]).tolist()
    assert found.arrays("kmer.safetensors").keys() == bundle.arrays("kmer.safetensors").keys()
