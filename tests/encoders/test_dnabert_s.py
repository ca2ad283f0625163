"""DNABERT-S: parity with the published code and with float64 formulas; batches equal rows."""

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from safetensors.torch import load_file
from torch.nn import functional as F

import plain_encoders
import tolerances
from encoder_examples import ON_CPU, golden_examples, worst_error
from virnucpro.encoders import dnabert_s, load_dnabert_s
from virnucpro.encoders.attention import alibi_slopes
from virnucpro.errors import BundleError
from virnucpro.tokens import padded

SIZES = {12: 3, 8: 2}  # heads -> layers


def weights(golden, heads=12):
    return golden / f"dnabert_h{heads}.weights.safetensors"


@pytest.fixture(scope="module", params=SIZES)
def heads(request):
    return request.param


@pytest.fixture(scope="module")
def examples(golden, heads):
    return golden_examples(golden / f"dnabert_h{heads}.examples.safetensors")


@pytest.fixture(scope="module")
def encoders(golden):
    words = golden / "dnabert_s_tokenizer.json"
    return {
        p: load_dnabert_s(weights(golden), "cpu", p, words, plain=True) for p in ("fp32", "bf16")
    }


@pytest.mark.parametrize("kernel", ON_CPU)
def test_each_golden_sequence_alone(golden, heads, examples, kernel):
    encoder = load_dnabert_s(weights(golden, heads), "cpu", "fp32", plain=True)
    encoder.attention = kernel
    for example in examples:
        assert worst_error(encoder, [example]) <= tolerances.DNABERT_S_GOLDEN_FP32


@pytest.mark.parametrize("kernel", ON_CPU)
@pytest.mark.parametrize("order", [1, -1])
def test_golden_sequences_in_one_batch(golden, heads, examples, kernel, order):
    encoder = load_dnabert_s(weights(golden, heads), "cpu", "fp32", plain=True)
    encoder.attention = kernel
    assert worst_error(encoder, examples[::order]) <= tolerances.DNABERT_S_GOLDEN_FP32


@pytest.mark.parametrize("precision", ["bf16", "fp16"])
def test_half_precision_against_fp32(golden, heads, examples, precision):
    encoder = load_dnabert_s(weights(golden, heads), "cpu", precision, plain=True)
    error = worst_error(encoder, examples)
    bound = tolerances.GOLDEN_HALF["dnabert_s", precision]
    assert tolerances.DNABERT_S_GOLDEN_FP32 < error <= bound


@pytest.mark.parametrize("kernel", ON_CPU)
def test_float64_equals_the_formulas(golden, heads, examples, kernel):
    model = load_dnabert_s(weights(golden, heads), "cpu", "fp32", plain=True).model.double()
    tensors = load_file(weights(golden, heads))
    for example in examples[:4]:
        plain = plain_encoders.dnabert_s(tensors, example.ids, SIZES[heads], heads)
        ids_BT = torch.from_numpy(example.ids)[None]
        hidden_BTC = model(ids_BT, backend=kernel)
        assert np.abs(hidden_BTC[0].numpy() - plain).max() <= tolerances.FLOAT64
        mean = model.pool(hidden_BTC, ids_BT)[0].numpy()
        assert np.abs(mean - plain.mean(0)).max() <= tolerances.FLOAT64


NUCLEOTIDES = st.text("ACGTN", min_size=1, max_size=120)


@settings(max_examples=30, deadline=None)
@given(
    batch=st.lists(NUCLEOTIDES, max_size=8),
    budget=st.integers(1, 200),
    precision=st.sampled_from(["fp32", "bf16"]),
)
def test_any_batch_equals_each_sequence_alone(encoders, batch, budget, precision):
    """TRAP N8, N9."""
    encoder = encoders[precision]
    alone = np.zeros((len(batch), encoder.width), np.float32)
    for row, ids in enumerate(encoder._tokenize(batch)):
        alone[row] = encoder.pooled(torch.from_numpy(ids)[None])[0].numpy()
    encoder.batch_tokens = budget
    bound = tolerances.BATCH_FP32 if precision == "fp32" else tolerances.BATCH_BF16
    assert np.abs(encoder.embed(batch) - alone).max(initial=0) <= bound["dnabert_s"]


@pytest.mark.parametrize("kernel", ON_CPU)
@pytest.mark.parametrize("precision", ["fp32", "bf16"])
def test_pads_change_nothing(golden, encoders, kernel, precision):
    """TRAP N8."""
    examples = golden_examples(golden / "dnabert_h12.examples.safetensors")
    encoder = encoders[precision]
    encoder.attention = kernel
    alone = encoder.pooled(torch.from_numpy(examples[1].ids)[None])
    ids_BT = torch.from_numpy(padded([examples[1].ids, examples[4].ids], encoder.model.pad))
    bound = tolerances.BATCH_FP32 if precision == "fp32" else tolerances.BATCH_BF16
    assert (encoder.pooled(ids_BT)[0] - alone[0]).abs().max() <= bound["dnabert_s"]
    assert not encoder.hidden(ids_BT)[0, len(examples[1].ids) :].any()


def test_unk_is_no_pad(encoders):
    """The published config calls id 0 the pad; it is [UNK], a token like any other."""
    encoder = encoders["fp32"]
    with_n, without = encoder.embed(["ACGTNNNNACGT", "ACGTACGT"])
    assert np.abs(with_n - without).max() > 0.01
    assert encoder.hidden(torch.tensor([[1, 0, 2]]))[0, 1].any()


def test_published_size():
    """The published weights count 117,068,544 with the pooler, which is not built here."""
    config = dnabert_s.DnabertSConfig(vocabulary=4096, layers=12, width=768, heads=12, ffn=3072)
    with torch.device("meta"):
        model = dnabert_s.DnabertS(config)
    assert sum(p.numel() for p in model.parameters()) + 768 * 769 == 117_068_544


def test_slopes():
    assert alibi_slopes(8) == plain_encoders.slopes(8)
    assert alibi_slopes(12) == plain_encoders.slopes(12)
    assert alibi_slopes(1) == [2.0**-8]
    assert len(set(alibi_slopes(20))) == 20


def mean_without_specials(self, hidden_BTC, ids_BT):
    keep_BT1 = (ids_BT > 3)[..., None]
    return (hidden_BTC * keep_BT1).sum(1) / keep_BT1.sum(1)


def swapped(order):
    """Attention that takes q, k, v in another order."""

    def attention(*qkv_and_mask, backend):
        *qkv, mask = qkv_and_mask
        return _attention(*(qkv[place] for place in order), mask, backend=backend)

    return attention


_gelu, _slopes, _attention = F.gelu, dnabert_s.alibi_slopes, dnabert_s.attention
MISTAKES = {
    "slopes reversed": (dnabert_s, "alibi_slopes", lambda heads: _slopes(heads)[::-1]),
    "slopes sorted": (dnabert_s, "alibi_slopes", lambda heads: sorted(_slopes(heads))),
    "no ALiBi": (dnabert_s, "alibi_slopes", lambda heads: [0.0] * heads),
    "tanh GELU": (F, "gelu", lambda x, approximate: _gelu(x, approximate="tanh")),
    "specials left out of the mean": (dnabert_s.DnabertS, "pool", mean_without_specials),
    "q and k swapped": (dnabert_s, "attention", swapped((1, 0, 2))),
    "k and v swapped": (dnabert_s, "attention", swapped((0, 2, 1))),
}


@pytest.mark.parametrize("mistake", MISTAKES)
def test_a_mistake_shows(golden, heads, examples, monkeypatch, mistake):
    """TRAP N5."""
    encoder = load_dnabert_s(weights(golden, heads), "cpu", "fp32", plain=True)
    assert worst_error(encoder, examples) <= tolerances.DNABERT_S_GOLDEN_FP32
    monkeypatch.setattr(*MISTAKES[mistake])
    assert worst_error(encoder, examples) > tolerances.BROKEN * tolerances.DNABERT_S_GOLDEN_FP32


@pytest.mark.parametrize("precision", ["fp32", "bf16", "fp16"])
def test_dtypes_outlast_a_forward(golden, precision):
    """TRAP N10."""
    encoder = load_dnabert_s(weights(golden), "cpu", precision, plain=True)
    before = {name: tensor.dtype for name, tensor in encoder.model.state_dict().items()}
    assert encoder.hidden(torch.tensor([[1, 7, 2]])).dtype == torch.float32
    assert {name: tensor.dtype for name, tensor in encoder.model.state_dict().items()} == before
    expected = {"fp32": torch.float32, "bf16": torch.bfloat16, "fp16": torch.float16}[precision]
    assert set(before.values()) == {expected}


def test_without_a_tokenizer_only_ids_are_taken(golden):
    encoder = load_dnabert_s(weights(golden), "cpu", "fp32", plain=True)
    with pytest.raises(BundleError, match="came without its tokenizer"):
        encoder.embed(["ACGT"])
    assert encoder.rows([np.array([1, 5, 2])]).shape == (1, 96)


def test_embed_of_nothing(encoders):
    assert encoders["fp32"].embed([]).shape == (0, 96)
    assert encoders["fp32"].embed([""]).shape == (1, 96)
