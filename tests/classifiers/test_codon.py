"""The codon network: frames, strands, padding, folding, loading."""

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from safetensors.torch import save_file

from virnucpro.classifiers.codon import (
    AMBIGUOUS_CODON,
    CODON_BUCKET,
    CodonConfig,
    CodonNetwork,
    _turned,
    canonical_codes,
    codon_network,
    convolved_as_product,
    frame_codons,
    load_codon_network,
    padded_codons,
    reverse_complement,
    unflip_frames,
)
from virnucpro.errors import BundleError
from virnucpro.frames import UNKNOWN_LETTER, letter_codes

CONFIGS = (
    CodonConfig(channels=(8, 16), blocks=(1, 1), kernels=(5, 3), embedding=12),
    CodonConfig(
        channels=(8, 16),
        blocks=(1, 1),
        kernels=(5, 3),
        embedding=12,
        attention=("frame", "frame"),
        heads=2,
    ),
    CodonConfig(
        channels=(8, 128),
        blocks=(1, 1),
        kernels=(5, 3),
        embedding=12,
        attention=("frame",),
        heads=2,
        rotary=16,
    ),
)
GROUPS = ("phage", "plant", "fungi")
COMPLEMENT = bytes.maketrans(b"ACGT", b"TGCA")
texts = st.text("ACGTNR", min_size=60, max_size=320).map(str.encode)


def network_of(config, seed=3):
    """A network that has been trained a little, so that no statistic is at its start value."""
    torch.manual_seed(seed)
    network = CodonNetwork(config, 8, GROUPS if config.rotary else ())
    network.train()
    for _ in range(3):
        network(torch.randint(0, 65, (6, 6, 24), dtype=torch.int32))
    with torch.no_grad():
        for name, parameter in network.named_parameters():
            if "norm" in name:
                parameter.add_(0.3 * torch.randn_like(parameter))
    return network.eval()


def plain(text):
    return b"".join(bytes([c]) if c in b"ACGT" else b"N" for c in text)


def reversed_strand(text):
    return text.translate(COMPLEMENT)[::-1]


def codes_of(parts):
    codes = np.full((len(parts), 3 * max(padded_codons(len(p)) for p in parts) + 2), UNKNOWN_LETTER)
    for row, part in zip(codes, parts, strict=True):
        row[: len(part)] = letter_codes(part)
    return torch.from_numpy(codes.astype(np.uint8)), torch.tensor([len(p) for p in parts])


def scored(network, parts):
    codes_BL, length_B = codes_of(parts)
    codes_BL, flipped_B = canonical_codes(codes_BL, length_B)
    p_B, _, weight_B6, _ = network.outputs(frame_codons(codes_BL, length_B))
    return p_B, unflip_frames(weight_B6, flipped_B)


def plain_codons(text, frames_T):
    found = []
    for strand in (plain(text), reversed_strand(plain(text))):
        for frame in range(3):
            codons = [strand[i : i + 3] for i in range(frame, len(strand) - 2, 3)]
            numbers = [
                AMBIGUOUS_CODON
                if b"N" in c
                else sum(4**p * b"ACGT".index(c[2 - p : 3 - p]) for p in range(3))
                for c in codons
            ]
            found.append(numbers + [AMBIGUOUS_CODON] * (frames_T - len(numbers)))
    return found


@settings(deadline=None)
@given(texts)
def test_frame_codons_are_those_of_a_plain_reading(text):
    codes_BL, length_B = codes_of([text])
    found = frame_codons(codes_BL, length_B)[0].tolist()
    assert found == plain_codons(text, padded_codons(len(text)))


@settings(deadline=None)
@given(texts)
def test_canonical_strand_is_the_smaller_text(text):
    codes_BL, length_B = codes_of([text])
    canonical_BL, flipped_B = canonical_codes(codes_BL, length_B)
    forward, reverse = plain(text), reversed_strand(plain(text))
    expected, _ = codes_of([min(forward, reverse)])
    assert canonical_BL.tolist() == expected.tolist()
    assert bool(flipped_B[0]) == (reverse < forward)


@settings(deadline=None)
@given(st.lists(texts, min_size=1, max_size=5))
def test_reverse_complement_twice_is_the_same(parts):
    codes_BL, length_B = codes_of(parts)
    once_BL = reverse_complement(codes_BL, length_B)
    assert torch.equal(reverse_complement(once_BL, length_B), codes_BL)
    expected, _ = codes_of([reversed_strand(plain(p)) for p in parts])
    assert torch.equal(once_BL, expected)


@pytest.mark.parametrize("config", CONFIGS)
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_both_strands_get_the_same_score_to_the_bit(config, dtype):
    network = network_of(config).for_inference().to(dtype)

    @settings(max_examples=25, deadline=None)
    @given(texts)
    def holds(text):
        p_B, weight_B6 = scored(network, [text])
        q_B, reverse_weight_B6 = scored(network, [reversed_strand(plain(text))])
        assert torch.equal(p_B, q_B)
        if plain(text) != reversed_strand(plain(text)):
            assert torch.equal(weight_B6, reverse_weight_B6[:, [3, 4, 5, 0, 1, 2]])
        assert 0 <= float(p_B[0]) <= 1

    holds()


@pytest.mark.parametrize("config", CONFIGS)
def test_a_chunk_does_not_see_its_neighbours(config):
    network = network_of(config).for_inference()
    rng = np.random.default_rng(5)
    low = 3 * (padded_codons(200) - CODON_BUCKET) + 3
    parts = [rng.choice(list(b"ACGTN"), n).astype(np.uint8).tobytes() for n in range(low, low + 20)]
    together, weights = scored(network, parts)
    for place, part in enumerate(parts):
        alone, weight = scored(network, [part])
        torch.testing.assert_close(alone[0], together[place], atol=1e-6, rtol=0)
        torch.testing.assert_close(weight[0], weights[place], atol=1e-6, rtol=0)


@pytest.mark.parametrize("config", CONFIGS)
def test_folding_changes_nothing(config):
    network = network_of(config)
    codons = torch.randint(0, 65, (16, 6, 40), dtype=torch.int32)
    before, _, weight_before, _ = network.outputs(codons)
    after, _, weight_after, _ = network.for_inference().outputs(codons)
    torch.testing.assert_close(before, after, atol=1e-5, rtol=0)
    torch.testing.assert_close(weight_before, weight_after, atol=1e-5, rtol=0)


def test_frame_weights_sum_to_one_and_order_of_frames_does_not_matter():
    network = network_of(CONFIGS[1])
    codons = torch.randint(0, 65, (4, 6, 40), dtype=torch.int32)
    order = [4, 2, 0, 5, 1, 3]
    p_B, _, weight_B6, _ = network.outputs(codons)
    q_B, _, shuffled_B6, _ = network.outputs(codons[:, order])
    torch.testing.assert_close(weight_B6.sum(1), torch.ones(4))
    torch.testing.assert_close(p_B, q_B)
    torch.testing.assert_close(weight_B6[:, order], shuffled_B6)


@pytest.mark.parametrize("length_nt", [60, 75, 119, 120, 300, 500, 501])
def test_padding_depends_on_the_length_alone_and_holds_every_codon(length_nt):
    assert padded_codons(length_nt) % CODON_BUCKET == 0
    assert 0 <= padded_codons(length_nt) - length_nt // 3 < CODON_BUCKET


def test_written_weights_come_back(tmp_path):
    network = network_of(CONFIGS[1])
    path = tmp_path / "codon.safetensors"
    save_file({k: torch.from_numpy(v) for k, v in network.arrays().items()}, path)
    loaded = load_codon_network(path, network.part(), torch.float32, torch.device("cpu"))
    codons = torch.randint(0, 65, (4, 6, 40), dtype=torch.int32)
    expected = network.outputs(codons)
    found = loaded.outputs(codons)
    torch.testing.assert_close(found, expected, atol=1e-5, rtol=0)


def test_weights_of_another_shape_are_refused(tmp_path):
    network = network_of(CONFIGS[0])
    path = tmp_path / "codon.safetensors"
    save_file({k: torch.from_numpy(v) for k, v in network.arrays().items()}, path)
    other = {**network.part(), "hidden": 9}
    with pytest.raises(BundleError, match="head"):
        load_codon_network(path, other, torch.float32, torch.device("cpu"))
    with pytest.raises(BundleError, match="does not describe"):
        load_codon_network(path, {"hidden": 8, "wings": 2}, torch.float32, torch.device("cpu"))
    path.write_bytes(b"not safetensors")
    with pytest.raises(BundleError, match="damaged"):
        load_codon_network(path, network.part(), torch.float32, torch.device("cpu"))


def test_attention_that_this_version_does_not_know_is_refused():
    part = {**CodonNetwork(CONFIGS[1], 8).part(), "attention": ["frame", "all"]}
    with pytest.raises(BundleError, match="not 'all'"):
        codon_network(part)


def test_positions_are_turned_as_a_plain_rotation_does():
    generator = torch.Generator().manual_seed(1)
    qk_RT2HD = torch.randn(2, 5, 2, 2, 6, generator=generator, dtype=torch.float64)
    expected = qk_RT2HD.clone()
    for t in range(5):
        for pair in range(2):
            angle = t * 100.0 ** (-pair / 2)
            turn = torch.tensor([[np.cos(angle), -np.sin(angle)], [np.sin(angle), np.cos(angle)]])
            both = qk_RT2HD[:, t, :, :, [pair, pair + 2]]
            expected[:, t, :, :, [pair, pair + 2]] = both @ turn.T
    torch.testing.assert_close(_turned(qk_RT2HD.clone(), 4), expected)
    with torch.no_grad():
        torch.testing.assert_close(_turned(qk_RT2HD.clone(), 4), expected)


def test_a_network_with_positions_tells_the_order_of_what_lies_far_apart():
    config = CONFIGS[2]
    network = network_of(config)
    torch.manual_seed(2)
    codons = torch.randint(0, 64, (1, 6, 64), dtype=torch.int32)
    swapped = torch.cat((codons[..., 32:], codons[..., :32]), -1)
    assert abs(float(network.outputs(codons).p_virus - network.outputs(swapped).p_virus)) > 1e-6


def test_a_second_head_names_groups_and_changes_no_score(tmp_path):
    network = network_of(CONFIGS[2])
    path = tmp_path / "codon.safetensors"
    save_file({k: torch.from_numpy(v) for k, v in network.arrays().items()}, path)
    codons = torch.randint(0, 65, (4, 6, 40), dtype=torch.int32)
    loaded = load_codon_network(path, network.part(), torch.float32, torch.device("cpu"))
    assert loaded.groups == GROUPS
    found = loaded.outputs(codons)
    logits_BG = network.both(codons)[1]
    torch.testing.assert_close(found.group, logits_BG.softmax(1), atol=1e-5, rtol=0)
    torch.testing.assert_close(found.group.sum(1), torch.ones(4))
    half = load_codon_network(path, network.part(), torch.bfloat16, torch.device("cpu"))
    assert half.outputs(codons).group.dtype == torch.float32
    without = CodonNetwork(CONFIGS[2], 8)
    without.load_state_dict(
        {k: v for k, v in network.state_dict().items() if not k.startswith("group.")}
    )
    plain_outputs = without.eval().outputs(codons)
    assert plain_outputs.group.shape == (4, 0)
    assert "groups" not in without.part()
    assert torch.equal(plain_outputs.p_virus, network.outputs(codons).p_virus)


@pytest.mark.parametrize(("kernel", "stride", "padding"), [(5, 1, 2), (2, 2, 0), (3, 1, 1)])
def test_a_convolution_is_one_matrix_product(kernel, stride, padding):
    torch.manual_seed(1)
    convolution = torch.nn.Conv2d(8, 12, (1, kernel), (1, stride), (0, padding)).double()
    x = torch.randn(3, 8, 6, 20, dtype=torch.float64).to(memory_format=torch.channels_last)
    found = convolved_as_product(x, convolution)
    assert found.shape == convolution(x).shape
    assert found.is_contiguous(memory_format=torch.channels_last)
    assert torch.allclose(found, convolution(x), atol=1e-12)
