"""A second network: asked where the first is unsure, on its best frames, without a jump."""

import dataclasses
import math
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from command import chunks_manifest
from virnucpro.bundle.write import write_bundle, write_into
from virnucpro.classifiers.codon import CodonConfig, CodonNetwork, Outputs
from virnucpro.classifiers.second_opinion import (
    SECOND_OPINION,
    SECOND_WEIGHTS,
    SecondOpinion,
    part_of,
    second_opinion_of,
)
from virnucpro.classifiers.whole_chunks import CODON_WEIGHTS, ChunkClassifier
from virnucpro.errors import BundleError

SHAPE = CodonConfig(channels=(8, 16), blocks=(1, 1), kernels=(5, 3), embedding=12)
GROUPS = ("phage", "human", "plant")
VIRAL = (True, False, False)


def network(seed, groups=()):
    torch.manual_seed(seed)
    made = CodonNetwork(SHAPE, 8, groups).train()
    for _ in range(3):
        made(torch.randint(0, 65, (6, 6, 24), dtype=torch.int32))
    # So that logits lie on both sides of what is unsure, and frames differ in weight.
    made.head.output.weight.data *= 60
    made.encoder.weigh.weight.data *= 10
    return made.eval()


def opinion(seed=2, **words):
    words = {"unsure": 1.5, "share": 0.5, "frames": 3, "virus_groups": VIRAL} | words
    return SecondOpinion(network(seed).for_inference(), **words)


def codons(rows, seed=0):
    torch.manual_seed(seed)
    return torch.randint(0, 65, (rows, 6, 24), dtype=torch.int32)


def plain_logit(made, codons_FT, factors):
    """The logit of one chunk, its frames one at a time and their weights by plain numbers."""
    frames, weights = [], []
    for codons_T, factor in zip(codons_FT, factors, strict=True):
        embedding_1E, _ = made.encoder(codons_T[None, None])
        frames.append(embedding_1E[0].double())
        weights.append(factor * math.exp(made.encoder.weigh(embedding_1E[0]).item()))
    together = sum(w * f for w, f in zip(weights, frames, strict=True)) / sum(weights)
    others, virus = made.head.probabilities(together[None].float())[0].double().tolist()
    return math.log(virus) - math.log(others)


def with_weights(outputs, weight_B6):
    return Outputs(outputs.p_virus, outputs.p_others, weight_B6, outputs.group)


def of_logit(logit_B, weight_B6):
    p_virus, p_others = torch.sigmoid(logit_B).float(), torch.sigmoid(-logit_B).float()
    return Outputs(p_virus, p_others, weight_B6, torch.full((len(logit_B), 3), 1 / 3))


@pytest.mark.parametrize("frames", [1, 3, 5])
@pytest.mark.parametrize("share", [0.3, 1.0])
def test_unsure_chunks_get_both_logits_and_sure_ones_keep_their_own(frames, share):
    first, second = network(1, GROUPS).for_inference(), opinion(frames=frames, share=share)
    given_ = codons(60)
    own = first.outputs(given_)
    found = second.applied(own, own, given_)
    unsure = own.logit.abs() < second.unsure
    assert 10 < unsure.sum() < 50
    for row in range(60):
        logit = own.logit[row].item()
        if not unsure[row]:
            for tensor, same in zip(found, own, strict=True):
                assert torch.equal(tensor[row], same[row])
            continue
        weight = own.weight[row].tolist()
        ranked = sorted(range(6), key=lambda frame: -weight[frame])
        kept, best_of_rest = sorted(ranked[:frames]), weight[ranked[frames]]
        factors = [min(1, max(1e-6, 10 * (1 - best_of_rest / weight[f]))) for f in kept]
        asked = plain_logit(second.network, given_[row, kept], factors)
        counted = min(share, 1 - abs(logit) / second.unsure)
        expected = logit + counted * (asked - logit)
        assert found.logit[row].item() == pytest.approx(expected, abs=1e-4)
        assert (found.p_virus + found.p_others)[row].item() == pytest.approx(1, abs=1e-6)


def test_groups_follow_the_odds_of_virus():
    first, second, given_ = network(1, GROUPS).for_inference(), opinion(), codons(60)
    own = first.outputs(given_)
    found = second.applied(own, own, given_)
    before, after = own.group.double(), found.group.double()
    added = found.logit - own.logit
    assert added.abs().max() > 0.1
    odds = (after[:, 0] / after[:, 1]).log() - (before[:, 0] / before[:, 1]).log()
    torch.testing.assert_close(odds, added, rtol=0, atol=1e-5)
    torch.testing.assert_close(after[:, 1] / after[:, 2], before[:, 1] / before[:, 2])
    torch.testing.assert_close(after.sum(1), torch.ones(60, dtype=torch.float64))


def test_known_kmers_decide_who_is_asked_and_stay_in_the_sum():
    first, second = network(1, GROUPS).for_inference(), opinion(unsure=4.0)
    given_ = codons(60)
    own = first.outputs(given_)
    known = own.with_added(torch.full((60,), -1.0, dtype=torch.float64), torch.tensor(VIRAL))
    found = second.applied(own, known, given_)
    unsure = known.logit.abs() < second.unsure
    assert (unsure != (own.logit.abs() < second.unsure)).any()
    assert torch.equal(found.p_virus[~unsure], known.p_virus[~unsure])
    share = (1 - known.logit.abs() / second.unsure).clamp(max=second.share)
    asked = second.applied(own, own, given_).logit
    both = unsure & (own.logit.abs() < second.unsure / 2 - 1e-3)
    expected = known.logit + share * 2 * (asked - own.logit)
    assert both.sum() > 5
    torch.testing.assert_close(found.logit[both], expected[both], rtol=0, atol=1e-4)


def test_nothing_jumps_where_a_chunk_becomes_sure():
    second = opinion()
    edge = torch.tensor([second.unsure - 1e-5, second.unsure + 1e-5, -second.unsure + 1e-5])
    weight = torch.tensor([[0.4, 0.2, 0.15, 0.1, 0.1, 0.05]]).expand(3, 6)
    own = of_logit(edge.double(), weight)
    found = second.applied(own, own, codons(1).expand(3, 6, 24))
    assert (found.logit - own.logit).abs().max() < 1e-3


def test_nothing_jumps_where_frames_change_places():
    second, given_ = opinion(), codons(40).repeat_interleave(2, 0)
    weight = torch.tensor(
        [[0.4, 0.25, 0.1001, 0.1, 0.1, 0.0499], [0.4, 0.25, 0.1, 0.1001, 0.1, 0.0499]]
    )
    apart = torch.tensor([[0.4, 0.25, 0.15, 0.1, 0.05, 0.05], [0.4, 0.25, 0.1, 0.15, 0.05, 0.05]])
    jumps = {}
    for name, pair in (("near", weight), ("apart", apart)):
        own = of_logit(torch.zeros(80, dtype=torch.float64), pair.repeat(40, 1))
        logit = second.applied(own, own, given_).logit
        jumps[name] = (logit[::2] - logit[1::2]).abs().median().item()
    assert jumps["near"] < 0.02 * jumps["apart"]


@pytest.mark.parametrize("weight", [[1 / 6] * 6, [0.5, 0.5, 0, 0, 0, 0], [1, 0, 0, 0, 0, 0]])
def test_frames_of_equal_weight_or_none_are_no_fault(weight):
    second, given_ = opinion(), codons(1)
    own = of_logit(torch.zeros(1, dtype=torch.float64), torch.tensor([weight], dtype=torch.float32))
    found = second.applied(own, own, given_)
    assert all(torch.isfinite(tensor).all() for tensor in found)


@settings(max_examples=30, deadline=None)
@given(st.lists(st.floats(-120, 120), min_size=1, max_size=20))
def test_any_logit_gives_probabilities(logits):
    second = opinion(unsure=200.0)
    weight = torch.tensor([[0.4, 0.2, 0.15, 0.1, 0.1, 0.05]]).expand(len(logits), 6)
    own = of_logit(torch.tensor(logits, dtype=torch.float64), weight)
    for tensor in second.applied(own, own, codons(len(logits))):
        assert ((tensor >= 0) & (tensor <= 1)).all()


# In a bundle


@pytest.fixture(scope="module")
def bundle(tmp_path_factory):
    first, second = network(1, GROUPS), network(2)
    folder = tmp_path_factory.mktemp("bundle") / "tiny"
    made = write_bundle(folder, chunks_manifest(first.part()), {CODON_WEIGHTS: first.arrays()})
    part = part_of(second, unsure=1.5, share=0.5, frames=3, virus_groups=["phage"])
    half = {k: v.astype(np.float16) for k, v in second.arrays().items() if v.ndim}
    return write_into(made, {SECOND_OPINION: part}, {SECOND_WEIGHTS: {**second.arrays(), **half}})


def random_dna(length_nt, seed):
    return "".join(np.random.default_rng(seed).choice([*"ACGT"], length_nt))


def test_a_bundle_asks_its_second_network(bundle):
    chunks = [random_dna(60 + n, n) for n in range(60)]
    classifier = ChunkClassifier(bundle, "cpu", "fp32")
    found = classifier.score(chunks)
    classifier._second = None
    alone = classifier.score(chunks)
    logit = np.log(alone.p_virus / (1 - alone.p_virus))
    unsure = np.abs(logit) < 1.5
    assert 5 < unsure.sum() < 55
    np.testing.assert_array_equal(found.p_virus == alone.p_virus, ~unsure)
    np.testing.assert_array_equal(found.frame, alone.frame)


def test_strands_and_neighbours_change_nothing(bundle):
    classifier = ChunkClassifier(bundle, "cpu", "fp32")
    chunks = [random_dna(60 + n % 7, n) for n in range(40)]
    turned = [chunk.translate(str.maketrans("ACGT", "TGCA"))[::-1] for chunk in chunks]
    found = classifier.score(chunks).p_virus
    np.testing.assert_array_equal(classifier.score(turned).p_virus, found)
    one = [classifier.score([chunk]).p_virus[0] for chunk in chunks]
    np.testing.assert_allclose(found, one, rtol=0, atol=1e-6)


def test_weights_of_half_precision_are_computed_in_full(bundle):
    second = second_opinion_of(bundle, network(1, GROUPS), "cpu", "fp32", "auto")
    assert {p.dtype for p in second.network.parameters()} == {torch.float32}
    assert second.network.head.output.weight.equal(network(2).head.output.weight.half().float())
    half = second_opinion_of(bundle, network(1, GROUPS), "cpu", "bf16", "auto")
    assert half.network.encoder.project.weight.dtype == torch.bfloat16
    assert half.network.head.output.weight.dtype == torch.float32
    assert second.virus_groups.tolist() == [*VIRAL]


@pytest.mark.parametrize(
    ("change", "told"),
    [
        ({"unsure": 0}, "unsure is not a number above 0"),
        ({"unsure": float("nan")}, "unsure is not a number above 0"),
        ({"unsure": "2"}, "not the second network that its bundle describes"),
        ({"share": 1.5}, "share is not a number above 0, up to 1"),
        ({"frames": 6}, "frames is not an integer from 1 to 5"),
        ({"frames": 3.0}, "frames is not an integer from 1 to 5"),
        ({"virus_groups": "phage"}, "virus_groups is not a list of names"),
        ({"network": {"hidden": 8, "wings": 2}}, "does not describe a codon network"),
        ({"network": network(3, GROUPS).part()}, "not the weights that its bundle describes"),
    ],
)
def test_a_part_that_fits_nothing_is_told(bundle, change, told):
    part = bundle.part(SECOND_OPINION) | change
    model = SimpleNamespace(
        parts={SECOND_OPINION: part}, part=lambda _: part, file=bundle.file, path=bundle.path
    )
    with pytest.raises(BundleError, match=told):
        second_opinion_of(model, network(1, GROUPS), "cpu", "fp32", "auto")


def test_a_missing_word_is_named(bundle):
    part = {k: v for k, v in bundle.part(SECOND_OPINION).items() if k != "share"}
    model = SimpleNamespace(
        parts={SECOND_OPINION: part}, part=lambda _: part, file=bundle.file, path=bundle.path
    )
    with pytest.raises(BundleError, match="'share' is missing"):
        second_opinion_of(model, network(1, GROUPS), "cpu", "fp32", "auto")


@pytest.mark.parametrize("change", [{"attention": ()}, {"heads": 2}])
def test_attention_of_another_shape_is_told(bundle, change):
    """A run records the kernels of the first network, and refuses others."""
    torch.manual_seed(1)
    first = CodonNetwork(dataclasses.replace(SHAPE, **change), 8, GROUPS)
    with pytest.raises(BundleError, match="its attention has not the shape of the first"):
        second_opinion_of(bundle, first, "cpu", "fp32", "auto")


def test_a_bundle_may_have_none():
    assert second_opinion_of(SimpleNamespace(parts={}), network(1), "cpu", "fp32", "auto") is None
