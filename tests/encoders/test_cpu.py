"""The layers for x86 processors: parity, batches equal rows, what stays wide, where they run."""

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

import tolerances
from encoder_examples import ON_CPU, golden_examples, worst_error
from virnucpro.encoders import cpu, esm2_encoder, load_dnabert_s, load_esm2
from virnucpro.encoders.cpu import PackedDnabertS, PackedEsm2, Product, can_pack
from virnucpro.encoders.dnabert_s import DnabertS
from virnucpro.encoders.esm2 import Esm2
from virnucpro.measure.speed import ESM2_SIZES, random_weights
from virnucpro.tokens import padded

CPU = torch.device("cpu")
MODELS = {
    "esm2 fair": ("esm2_fair_layout", "esm2"),
    "esm2 hf": ("esm2_hf_layout", "esm2"),
    "dnabert_s h12": ("dnabert_h12", "dnabert_h12"),
    "dnabert_s h8": ("dnabert_h8", "dnabert_h8"),
}
FP32 = {
    "esm2": tolerances.ESM2_GOLDEN_FP32,
    "dnabert_s": tolerances.DNABERT_S_GOLDEN_FP32,
}
pytestmark = pytest.mark.skipif(
    not can_pack(CPU, torch.float32), reason="runs on x86 processors, by oneDNN"
)
in_bf16 = pytest.mark.skipif(not can_pack(CPU, torch.bfloat16), reason="no bf16 in this CPU")
PRECISIONS = ("fp32", pytest.param("bf16", marks=in_bf16))


def bound(name, precision):
    family = name.split()[0]
    return FP32[family] if precision == "fp32" else tolerances.GOLDEN_HALF[family, precision]


def encoder_of(golden, name, precision="fp32", **words):
    """An encoder of a golden model, and the model's golden sequences."""
    weights, examples = MODELS[name]
    load = load_esm2 if name.startswith("esm2") else load_dnabert_s
    encoder = load(golden / f"{weights}.weights.safetensors", "cpu", precision, **words)
    return encoder, golden_examples(golden / f"{examples}.examples.safetensors")


@pytest.mark.parametrize("kernel", ON_CPU)
@pytest.mark.parametrize("name", MODELS)
@pytest.mark.parametrize("precision", PRECISIONS)
def test_golden_sequences_alone_and_in_one_batch(golden, name, precision, kernel):
    """TRAP N5, N8."""
    encoder, examples = encoder_of(golden, name, precision)
    assert isinstance(encoder.model, (PackedEsm2, PackedDnabertS))
    encoder.attention = kernel
    assert worst_error(encoder, examples) <= bound(name, precision)
    for example in examples:
        assert worst_error(encoder, [example]) <= bound(name, precision)


@pytest.mark.parametrize("name", ["esm2 fair", "dnabert_s h12"])
@pytest.mark.parametrize("precision", PRECISIONS)
def test_pads_change_nothing(golden, name, precision):
    """TRAP N8, N9."""
    encoder, examples = encoder_of(golden, name, precision)
    ids_BT = torch.from_numpy(padded([e.ids for e in examples], encoder.model.pad))
    together, hidden_BTC = encoder.pooled(ids_BT), encoder.hidden(ids_BT)
    bounds = tolerances.BATCH_FP32 if precision == "fp32" else tolerances.BATCH_BF16
    for row, example in enumerate(examples):
        alone = encoder.pooled(torch.from_numpy(example.ids)[None])[0]
        assert (together[row] - alone).abs().max() <= bounds[name.split()[0]]
        assert not hidden_BTC[row, len(example.ids) :].any()


PROTEIN = st.text("ACDEFGHIKLMNPQRSTVWYX", min_size=1, max_size=40)


@settings(max_examples=20, deadline=None)
@given(batch=st.lists(PROTEIN, min_size=1, max_size=8), budget=st.integers(1, 200))
def test_any_batch_equals_the_module_as_it_is_written(golden, batch, budget):
    plain, _ = encoder_of(golden, "esm2 fair", plain=True)
    fast, _ = encoder_of(golden, "esm2 fair")
    fast.batch_tokens = budget
    assert np.abs(fast.embed(batch) - plain.embed(batch)).max() <= tolerances.ESM2_GOLDEN_FP32


def other_way(qkv_NX, turn_TC):
    _turn(qkv_NX, turn_TC.conj().resolve_conj())


def not_paired(qkv, heads):
    return Product.of(qkv)


def no_gelu(self, x_NC):
    return self(x_NC)


def not_added(self, x_NC, more_NX):
    return self(x_NC)


def not_times(self, x_NC, factor_NX):
    return self(x_NC)


def everyone(keep_BT, *rest):
    return _mask_of(keep_BT | True, *rest)


_turn, _mask_of, _mixed = cpu._turn_, cpu.mask_of, cpu.mixed
MISTAKES = {
    "esm2 fair": [
        (cpu, "_turn_", other_way),
        (cpu, "_paired", not_paired),
        (cpu, "mask_of", everyone),
        (Product, "gelu", no_gelu),
        (Product, "add", not_added),
    ],
    "dnabert_s h12": [
        (cpu, "mask_of", everyone),
        (Product, "gelu", no_gelu),
        (Product, "add", not_added),
        (Product, "times", not_times),
    ],
}


@pytest.mark.parametrize(
    ("name", "mistake"), [(name, mistake) for name in MISTAKES for mistake in MISTAKES[name]]
)
def test_a_mistake_shows(golden, monkeypatch, name, mistake):
    monkeypatch.setattr(*mistake)
    encoder, examples = encoder_of(golden, name)
    assert worst_error(encoder, examples) > tolerances.BROKEN * bound(name, "fp32")


@in_bf16
@pytest.mark.parametrize("name", ["esm2 fair", "dnabert_s h12"])
def test_bf16_is_not_fp32_and_leaves_the_stream_wide(golden, name):
    """TRAP N10: what every LayerNorm takes, and what comes out, is fp32."""
    encoder, examples = encoder_of(golden, name, "bf16")
    before = {key: tensor.dtype for key, tensor in encoder.model.state_dict().items()}
    streams = set()
    for module in encoder.model.modules():
        if isinstance(module, torch.nn.LayerNorm):
            module.register_forward_pre_hook(lambda _, given: streams.add(given[0].dtype))
    assert worst_error(encoder, examples) > bound(name, "fp32")
    assert streams == {torch.float32}
    assert {key: tensor.dtype for key, tensor in encoder.model.state_dict().items()} == before


@in_bf16
def test_attention_of_bf16_proteins_is_wide(golden, monkeypatch):
    encoder, examples = encoder_of(golden, "esm2 fair", "bf16")
    seen = set()

    def watched(qkv_NX, *rest):
        seen.add(qkv_NX.dtype)
        return _mixed(qkv_NX, *rest)

    monkeypatch.setattr(cpu, "mixed", watched)
    assert worst_error(encoder, examples) <= bound("esm2 fair", "bf16")
    assert seen == {torch.float32}


@pytest.mark.parametrize("name", ["esm2 fair", "dnabert_s h12"])
def test_memory_that_a_layer_frees_is_kept_for_the_next(golden, monkeypatch, name):
    """What glibc is told; whether a page comes back to it by itself is left to chance."""
    told = []
    monkeypatch.setattr(cpu, "_OPTION", lambda *option: told.append(option))
    cpu._keep_freed.cache_clear()
    encoder, examples = encoder_of(golden, name)
    assert not told
    worst_error(encoder, examples)
    mmap_threshold, trim_threshold = -3, -1  # of malloc.h
    assert told == [(mmap_threshold, 32 << 20), (trim_threshold, 128 << 20)]
    monkeypatch.setenv("MALLOC_TRIM_THRESHOLD_", "1000")
    cpu._keep_freed.cache_clear()
    told.clear()
    worst_error(encoder, examples)
    assert told == [(mmap_threshold, 32 << 20)]


@pytest.mark.parametrize("name", ["esm2 fair", "dnabert_s h12"])
def test_weights_lie_in_memory_once(golden, name):
    """What is left in the modules is what no product reads: embeddings, norms, biases."""
    plain, _ = encoder_of(golden, name, plain=True)
    fast, _ = encoder_of(golden, name)
    linear = {
        f"model.{key}.weight"
        for key, module in plain.model.named_modules()
        if isinstance(module, torch.nn.Linear)
    }
    state = fast.model.state_dict()
    assert len(linear) == 4 * len(plain.model.layers)
    assert {key for key, tensor in state.items() if not tensor.numel()} == linear


def test_where_they_run(golden, monkeypatch):
    assert not can_pack(torch.device("cuda"), torch.float32)
    assert not can_pack(CPU, torch.float16)
    assert not can_pack(CPU, torch.float64)
    monkeypatch.setattr(cpu, "cpu_has_bf16", lambda: False)
    assert not can_pack(CPU, torch.bfloat16)
    assert can_pack(CPU, torch.float32)
    monkeypatch.setattr("platform.machine", lambda: "aarch64")
    for name, module in (("esm2 fair", Esm2), ("dnabert_s h12", DnabertS)):
        encoder, examples = encoder_of(golden, name)
        assert type(encoder.model) is module
        assert worst_error(encoder, examples) <= bound(name, "fp32")
    monkeypatch.undo()
    monkeypatch.setattr(torch.backends.mkldnn, "is_available", lambda: False)
    assert not can_pack(CPU, torch.float32)


def test_a_model_gives_its_weights_to_one_encoder():
    model = random_weights(lambda: Esm2(ESM2_SIZES["tiny"]), torch.float32, CPU)
    esm2_encoder(model, name="first", precision="fp32")
    with pytest.raises(ValueError, match="were taken by another encoder"):
        esm2_encoder(model, name="second", precision="fp32")
