"""Rows in equal rows out: batches by a token budget, duplicates once, one forward a batch."""

import subprocess
import sys

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from encoder_examples import tiny_esm2
from virnucpro.encoders import load_esm2
from virnucpro.encoders.batching import LEAST_OF_BUDGET, MOST_PADS, token_batches
from virnucpro.errors import OutOfMemory


@given(st.lists(st.integers(1, 50), max_size=40), st.integers(1, 120))
def test_batches_hold_every_row_once_within_the_budget(lengths, budget):
    """TRAP D1."""
    found = list(token_batches(lengths, budget))
    assert sorted(row for batch in found for row in batch) == list(range(len(lengths)))
    for batch in found:
        longest = max(lengths[row] for row in batch)
        assert len(batch) == 1 or len(batch) * longest <= budget
    flat = [lengths[row] for batch in found for row in batch]
    assert flat == sorted(lengths, reverse=True)


@given(st.lists(st.integers(1, 50), max_size=60), st.integers(50, 400))
def test_pads_are_few_where_batches_are_not_small(lengths, budget):
    for batch in token_batches(lengths, budget):
        longest = lengths[batch[0]]
        real = sum(lengths[row] for row in batch[:-1])
        if real >= LEAST_OF_BUDGET * budget:
            tokens = len(batch) * longest
            assert tokens - real - lengths[batch[-1]] <= MOST_PADS * tokens


def test_a_batch_ends_before_rows_that_are_much_shorter():
    assert list(token_batches([100] * 10 + [60] * 10, 10_000)) == [[*range(10)], [*range(10, 20)]]
    assert list(token_batches([100] * 5 + [60] * 2, 10_000)) == [[*range(7)]]
    assert list(token_batches([125] * 5 + [60], 10_000)) == [[*range(5)], [5]]  # a sixteenth


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
    """TRAP N2."""
    encoder.batch_tokens = 20
    rows = encoder.embed(["MKV", "MKVAAAA", "MKV", "MKC", "MKV", "MKVAAAA"])
    assert shapes == [(1, 9), (2, 5)]
    assert np.array_equal(rows[0], rows[2])
    assert np.array_equal(rows[1], rows[5])
    assert not np.array_equal(rows[0], rows[3])


def test_the_kernels_that_ran_are_known(encoder, monkeypatch):
    """TRAP N1."""
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
    """TRAP D3.

    A permutation of the sequences permutes the rows, to the bit: the batches are the same.
    """
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


# Memory that runs out


def limited(encoder, monkeypatch, tokens, error=None):
    """A model that cannot take batches of more tokens than that; the sizes that it was given."""
    seen = []
    forward = encoder.model.forward

    def limit(ids_BT, **settings):
        seen.append(ids_BT.numel())
        if ids_BT.numel() > tokens:
            raise error or torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2 GiB.")
        return forward(ids_BT, **settings)

    monkeypatch.setattr(encoder.model, "forward", limit)
    return seen


PROTEINS = ["".join("ACDEFGHIKL"[(k + i) % 10] for i in range(5 + k % 7)) for k in range(40)]


@pytest.mark.parametrize(
    "error",
    [None, MemoryError(), RuntimeError("CUDA error: out of memory\nCUDA kernel errors might")],
)
def test_a_batch_that_does_not_fit_is_halved_and_stays_so(encoder, monkeypatch, error):
    """TRAP N2."""
    encoder = load_esm2(encoder.name)
    expected = encoder.embed(PROTEINS)
    encoder = load_esm2(encoder.name)
    seen = limited(encoder, monkeypatch, 60, error)
    encoder.batch_tokens = 400
    rows = encoder.embed(PROTEINS)
    assert np.abs(rows - expected).max() < 1e-5
    assert encoder.batch_tokens <= 60
    failed = [size for size in seen if size > 60]
    assert len(failed) <= 4
    assert encoder.forwards == len(seen) - len(failed)
    del seen[:]
    encoder.embed(PROTEINS)
    assert max(seen) <= 60


def test_no_batch_that_did_not_fit_is_tried_again_as_it_was(encoder, monkeypatch):
    """Half of a batch that is far smaller than the budget, not half of the budget, comes next."""
    encoder = load_esm2(encoder.name)
    seen = limited(encoder, monkeypatch, 60)
    encoder.batch_tokens = 100_000
    encoder.embed(PROTEINS)
    failed = [size for size in seen if size > 60]
    assert failed
    assert len(failed) == len(set(failed))


def test_one_row_that_does_not_fit_ends_with_a_report(encoder, monkeypatch):
    encoder = load_esm2(encoder.name)
    limited(encoder, monkeypatch, 8)
    with pytest.raises(OutOfMemory) as end:
        encoder.embed(PROTEINS)
    report = str(end.value)
    for word in ("one sequence, 13 tokens", "allocated", "reserved", "free", "peak", "recommend"):
        assert word in report
    assert "fragmentation" in report
    assert "Tried to allocate 2 GiB" in report
    assert end.value.exit_code == 4


def test_another_error_is_not_tried_again(encoder, monkeypatch):
    """TRAP N2, R7."""
    encoder = load_esm2(encoder.name)
    seen = limited(encoder, monkeypatch, 60, RuntimeError("no room: oom"))
    encoder.batch_tokens = 400
    with pytest.raises(RuntimeError, match="no room"):
        encoder.embed(PROTEINS)
    assert len(seen) == 1


@pytest.mark.parametrize(("interval", "cleared"), [(3, [3, 6, 9]), (1, [*range(1, 12)]), (0, [])])
def test_the_cache_is_cleared_after_so_many_batches(encoder, monkeypatch, interval, cleared):
    encoder = load_esm2(encoder.name)
    encoder.batch_tokens, encoder.cache_clear_interval = 9, interval
    after = []
    monkeypatch.setattr(
        "virnucpro.encoders.encoder.clear_cache", lambda _: after.append(encoder.forwards)
    )
    encoder.embed(["M" * n for n in range(5, 16)])
    assert (encoder.forwards, after) == (11, cleared)


def test_padding_is_a_share(encoder):
    """TRAP R11."""
    encoder = load_esm2(encoder.name)
    assert encoder.padding is None
    encoder.embed(["MKV", "MKVAAAA"])
    assert (encoder.tokens, encoder.pads, encoder.padding) == (18, 4, 4 / 18)


LIMITED = """
import resource, sys
import numpy as np, torch
from virnucpro.encoders import load_esm2
from virnucpro.errors import OutOfMemory
torch.set_num_threads(1)
from virnucpro.devices.compute import Compute
encoder = load_esm2(sys.argv[1], compute=Compute(attention="math"))
proteins = ["M" * n for n in range(1019, 1025)]
expected = encoder.embed([proteins[0][:9]])
encoder.batch_tokens = 100_000
held = int(open("/proc/self/statm").read().split()[0]) * resource.getpagesize()
resource.setrlimit(resource.RLIMIT_AS, (held + (int(sys.argv[2]) << 20), -1))
rows = encoder.embed(proteins)
encoder.batch_tokens = 1100
print(encoder.forwards, np.abs(rows[:1] - encoder.embed(proteins[:1])).max() < 1e-5)
"""


@pytest.mark.skipif(sys.platform != "linux", reason="needs /proc")
def test_a_process_of_limited_memory(tmp_path):
    """Out of memory for real: batches shrink, and where no row fits the report says so.

    Scores of one row of 16 heads take 64 MiB, of all rows 384 MiB, and several such at a time.
    """
    path = tmp_path / "wide.safetensors"
    tiny_esm2(path, layers=1, width=64, heads=16)

    def limited_to(mebibytes):
        program = [sys.executable, "-c", LIMITED, str(path), str(mebibytes)]
        return subprocess.run(program, capture_output=True, text=True)

    done = limited_to(500)
    assert done.returncode == 0, done.stderr
    forwards, same = done.stdout.split()
    assert 1 + 2 <= int(forwards) <= 1 + 6
    assert same == "True"
    done = limited_to(20)
    assert "OutOfMemory" in done.stderr
    for word in ("out of memory: a batch of one sequence", "peak", "free", "--batch-tokens 1"):
        assert word in done.stderr
