"""Rows in equal rows out: batches by a token budget, duplicates once, one forward a batch."""

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from encoder_examples import tiny_esm2
from virnucpro.batches import token_batches
from virnucpro.encoders import load_esm2


@given(st.lists(st.integers(1, 50), max_size=40), st.integers(1, 120))
def test_batches_hold_every_row_once_within_the_budget(lengths, budget):
    found = list(token_batches(lengths, budget))
    assert sorted(row for batch in found for row in batch) == list(range(len(lengths)))
    for batch in found:
        longest = max(lengths[row] for row in batch)
        assert len(batch) == 1 or len(batch) * longest <= budget
    flat = [lengths[row] for batch in found for row in batch]
    assert flat == sorted(lengths, reverse=True)


def test_batches_are_full():
    assert [len(batch) for batch in token_batches([10] * 25, 100)] == [10, 10, 5]


@pytest.fixture(scope="module")
def encoder(tmp_path_factory):
    path = tmp_path_factory.mktemp("tiny") / "tiny.safetensors"
    tiny_esm2(path, layers=2)
    return load_esm2(path)


@pytest.fixture
def shapes(encoder, monkeypatch):
    """The shape of every batch that goes through the model."""
    seen = []
    forward = encoder.model.forward

    def counting(ids_BT, **settings):
        seen.append(tuple(ids_BT.shape))
        return forward(ids_BT, **settings)

    monkeypatch.setattr(encoder.model, "forward", counting)
    return seen


def test_one_forward_a_batch_and_duplicates_once(encoder, shapes):
    encoder.batch_tokens = 20
    rows = encoder.embed(["MKV", "MKVAAAA", "MKV", "MKC", "MKV", "MKVAAAA"])
    assert shapes == [(2, 9), (1, 5)]
    assert np.array_equal(rows[0], rows[2])
    assert np.array_equal(rows[1], rows[5])
    assert not np.array_equal(rows[0], rows[3])


def test_the_kernels_that_ran_are_known(encoder, monkeypatch):
    encoder = load_esm2(encoder.name)
    monkeypatch.setattr(encoder, "attention", "math")
    encoder.ids(["MKV"])
    assert encoder.kernels_seen == set()
    encoder.embed(["MKV"])
    assert encoder.kernels_seen == {"math"}
    monkeypatch.setattr(encoder, "attention", "auto")
    encoder.hidden(torch.tensor([[0, 5, 2]]))
    assert encoder.kernels_seen == {"math", "PyTorch CPU flash"}


def test_rows_follow_their_sequences(encoder):
    """A permutation of the sequences permutes the rows, to the bit: the batches are the same."""
    random = np.random.default_rng(5)
    proteins = ["".join(random.choice(list("ACDEFGHIKL"), n)) for n in range(1, 30)]
    encoder.batch_tokens = 64
    rows = encoder.embed(proteins)
    order = random.permutation(len(proteins))
    assert np.array_equal(encoder.embed([proteins[k] for k in order]), rows[order])


def test_hidden_takes_ids_as_they_are(encoder):
    hidden = encoder.hidden(torch.tensor([[0, 5, 6, 2], [0, 7, 2, 1]]))
    assert hidden.shape == (2, 4, 16)
    assert hidden.dtype == torch.float32
    assert not hidden[1, 3].any()
