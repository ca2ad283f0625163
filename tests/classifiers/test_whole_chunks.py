"""Bundles that score whole chunks: neighbours, threads, strands and equal chunks change nothing."""

import threading
import time

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from command import chunks_manifest, dna
from virnucpro.bundle.write import write_bundle
from virnucpro.calls import Status
from virnucpro.classifiers import whole_chunks
from virnucpro.classifiers.codon import CodonConfig, CodonNetwork
from virnucpro.classifiers.whole_chunks import CODON_WEIGHTS, ChunkClassifier
from virnucpro.devices.machine import each_on_one_thread
from virnucpro.progress import hearing

COMPLEMENT = str.maketrans("ACGT", "TGCA")
SHAPE = CodonConfig(channels=(8, 16), blocks=(1, 1), kernels=(5, 3), embedding=12)
GROUPS = ("phage", "human", "plant")
chunks = st.lists(st.text("ACGTNR", min_size=55, max_size=130), max_size=9)


@pytest.fixture(scope="module")
def bundle(tmp_path_factory):
    torch.manual_seed(5)
    network = CodonNetwork(SHAPE, 8, GROUPS).train()
    for _ in range(3):
        network(torch.randint(0, 65, (6, 6, 24), dtype=torch.int32))
    folder = tmp_path_factory.mktemp("bundle") / "tiny"
    weights = {CODON_WEIGHTS: network.eval().arrays()}
    return write_bundle(folder, chunks_manifest(network.part()), weights)


@pytest.fixture(scope="module")
def classifier(bundle):
    return ChunkClassifier(bundle, "cpu", "fp32")


@pytest.fixture
def threads():
    before = torch.get_num_threads()
    yield torch.set_num_threads
    torch.set_num_threads(before)


def reverse(chunk):
    return chunk.translate(COMPLEMENT)[::-1]


def equal(one, other):
    return np.array_equal(one, other, equal_nan=True)


@settings(max_examples=40, deadline=None)
@given(batch=chunks)
def test_any_chunks_get_what_each_gets_alone(classifier, batch):
    """TRAP N9."""
    together = classifier.score(batch)
    for row, chunk in enumerate(batch):
        alone = classifier.score([chunk])
        assert together.status[row] == alone.status[0]
        np.testing.assert_allclose(together.p_virus[row], alone.p_virus[0], rtol=0, atol=1e-6)


@settings(max_examples=20, deadline=None)
@given(batch=chunks)
def test_groups_come_with_the_scores_whatever_the_strand(classifier, batch):
    scores = classifier.score(batch)
    assert classifier.groups == GROUPS
    assert scores.groups.shape == (len(batch), len(GROUPS))
    called = scores.called
    np.testing.assert_allclose(np.exp(scores.groups[called]).sum(1), 1, atol=0.02)
    assert not scores.groups[~called].any()
    other = classifier.score([reverse(chunk) for chunk in batch])
    assert equal(scores.groups, other.groups)


@settings(max_examples=40, deadline=None)
@given(batch=chunks)
def test_both_strands_get_the_same_score(classifier, batch):
    given_ = classifier.score(batch)
    other = classifier.score([reverse(chunk) for chunk in batch])
    assert equal(given_.p_virus, other.p_virus)
    assert np.array_equal(given_.status, other.status)


@pytest.mark.parametrize("count", [2, 3])
def test_threads_change_nothing(classifier, monkeypatch, threads, count):
    """TRAP N11."""
    monkeypatch.setattr(classifier, "_least", 6 * 48 * 4)
    batch = ["".join(np.random.default_rng(k).choice([*"ACGT"], 130 - k % 40)) for k in range(60)]
    threads(1)
    one = classifier.score(batch)
    threads(count)
    several = classifier.score(batch)
    assert torch.get_num_threads() == count
    assert equal(one.p_virus, several.p_virus)
    assert np.array_equal(one.frame, several.frame)


def test_a_chunk_that_goes_on_with_n_is_another_chunk(classifier):
    """Their codes are the same once padded; their reverse frames are not."""
    chunk = "AAC" + "".join(np.random.default_rng(1).choice([*"ACGT"], 80))
    batch = [chunk, chunk + "N"]
    together = classifier.score(batch).p_virus
    alone = [classifier.score([text]).p_virus[0] for text in batch]
    assert alone[0] != alone[1]
    np.testing.assert_allclose(together, alone, rtol=0, atol=1e-6)


def test_equal_chunks_are_computed_once(classifier, monkeypatch):
    chunk = "ACGGT" * 20
    rows = []
    compute = classifier._forward

    def counted(batch):
        rows.append(len(batch[0]))
        return compute(batch)

    monkeypatch.setattr(classifier, "_forward", counted)
    found = classifier.score([chunk, reverse(chunk), "T" * 100, chunk])
    assert sum(rows) == 2
    assert found.p_virus[0] == found.p_virus[1] == found.p_virus[3]
    assert found.frame[0] == (found.frame[1] + 3) % 6


def test_attention_kernels_are_known_once_they_ran(bundle, threads):
    threads(2)
    classifier = ChunkClassifier(bundle, "cpu", "fp32")
    classifier.score(["N" * 100])
    assert classifier.attention == {}
    classifier.score(["ACGGT" * 20, "ACGGT" * 26])
    assert classifier.attention == {"codon": "PyTorch CPU flash"}


def test_nothing_to_call(classifier):
    found = classifier.score(["ACG", "N" * 100])
    assert found.status.tolist() == [Status.TOO_SHORT, Status.AMBIGUOUS]
    assert np.isnan(found.p_virus).all()
    assert len(classifier.score([]).status) == 0


def test_items_side_by_side_in_order_each_with_one_thread(threads):
    threads(2)
    both = threading.Barrier(2, timeout=20)

    def compute(item):
        both.wait()
        return item, torch.get_num_threads()

    assert each_on_one_thread(compute, range(4)) == [(item, 1) for item in range(4)]
    assert torch.get_num_threads() == 2


def test_an_error_ends_the_work_and_gives_the_threads_back(threads):
    threads(2)
    begun = []

    def compute(item):
        begun.append(item)
        raise ValueError("no")

    with pytest.raises(ValueError, match="no"):
        each_on_one_thread(compute, range(1000))
    assert len(begun) < 1000
    assert torch.get_num_threads() == 2


@pytest.mark.parametrize("number", [1, 2])
def test_each_batch_is_a_step(classifier, threads, number):
    """And the scores are the same whether anybody hears."""
    threads(number)
    texts = [dna(130, i) for i in range(9)]
    expected = classifier.score(texts)
    told = []
    before = classifier._least
    classifier._least = 6 * 48 * 2
    try:
        with hearing(told.append):
            found = classifier.score(texts)
    finally:
        classifier._least = before
    assert told == [step / 5 for step in range(1, 6)]
    np.testing.assert_allclose(found.p_virus, expected.p_virus, rtol=0, atol=1e-6)


def test_what_ends_the_work_at_a_step_leaves_the_rest(threads):
    threads(2)
    begun = []

    def stop(share):
        raise KeyboardInterrupt

    def compute(item):
        begun.append(item)
        time.sleep(0.01)

    with pytest.raises(KeyboardInterrupt), hearing(stop):
        each_on_one_thread(compute, range(1000))
    assert len(begun) < 100


def test_a_batch_holds_no_more_than_its_budget(classifier, monkeypatch):
    monkeypatch.setattr(classifier, "_least", 6 * 48 * 2)
    sizes = []
    monkeypatch.setattr(
        whole_chunks,
        "each_on_one_thread",
        lambda compute, items: sizes.extend(len(b[0]) for b in items) or [*map(compute, items)],
    )
    classifier.score([chr(65) * 100 + base * 30 for base in "ACGT"] + ["ACGTT" * 26])
    assert max(sizes) == 2
    assert sum(sizes) == 5
