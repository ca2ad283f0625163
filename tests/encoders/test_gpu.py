"""The layers for GPUs, by torch's own operations: parity, batches equal rows, no dtype changed."""

import pytest
import torch

import tolerances
from encoder_examples import golden_examples, worst_error
from virnucpro.encoders import load_dnabert_s, load_esm2
from virnucpro.encoders.gpu import FusedDnabertS, FusedEsm2
from virnucpro.encoders.kernels import rows as rowwise
from virnucpro.tokens import padded

MODELS = {
    "esm2": ("esm2_fair_layout", "esm2"),
    "dnabert_h12": ("dnabert_h12", "dnabert_h12"),
    "dnabert_h8": ("dnabert_h8", "dnabert_h8"),
}
HALF = ("bf16", "fp16")


def fused(golden, name, precision, eight_bit=False):
    """An encoder of a golden model with the layers for GPUs, and the model's golden sequences."""
    weights, examples = MODELS[name]
    load = load_esm2 if name == "esm2" else load_dnabert_s
    encoder = load(golden / f"{weights}.weights.safetensors", "cpu", precision, plain=True)
    plain = encoder.model
    esm2 = name == "esm2"
    layers = range(len(plain.layers)) if eight_bit else ()
    encoder.model = FusedEsm2(plain, layers) if esm2 else FusedDnabertS(plain)
    return encoder, golden_examples(golden / f"{examples}.examples.safetensors")


def family(name):
    return name.partition("_h")[0].replace("dnabert", "dnabert_s")


@pytest.mark.parametrize("name", MODELS)
@pytest.mark.parametrize("precision", HALF)
def test_golden_sequences_in_one_batch(golden, name, precision):
    encoder, examples = fused(golden, name, precision)
    before = {key: tensor.dtype for key, tensor in encoder.model.model.state_dict().items()}
    assert worst_error(encoder, examples) <= tolerances.GOLDEN_HALF[family(name), precision]
    for example in examples:
        error = worst_error(encoder, [example])
        assert error <= tolerances.GOLDEN_HALF[family(name), precision]
    after = {key: tensor.dtype for key, tensor in encoder.model.model.state_dict().items()}
    assert after == before


@pytest.mark.parametrize("precision", [*HALF, "fp8"])
def test_a_batch_equals_each_row_alone(golden, precision):
    encoder, examples = fused(golden, "esm2", precision.replace("fp8", "bf16"), precision == "fp8")
    together = encoder.pooled(torch.from_numpy(padded([e.ids for e in examples], 1)))
    for row, example in enumerate(examples):
        alone = encoder.pooled(torch.from_numpy(example.ids)[None])[0]
        bound = tolerances.BATCH_FP8 if precision == "fp8" else tolerances.BATCH_BF16["esm2"]
        assert (together[row] - alone).abs().max() <= bound


def test_fp8_against_fp32(golden):
    encoder, examples = fused(golden, "esm2", "bf16", eight_bit=True)
    error = worst_error(encoder, examples)
    assert tolerances.GOLDEN_HALF["esm2", "bf16"] / 2 < error <= tolerances.GOLDEN_FP8


def test_weights_in_fp8_are_held_once(golden):
    encoder, _ = fused(golden, "esm2", "bf16", eight_bit=True)
    block = encoder.model.model.layers[0]
    held = [block.qkv.weight, block.out.weight, block.up.weight, block.down.weight]
    assert sum(weight.untyped_storage().nbytes() for weight in held) == 0


_norm, _rotate = rowwise.norm, rowwise.rotate_
MISTAKES = {
    "biases left out": ("norm", lambda *a, shift_C=None, **k: _norm(*a, **k)),
    "queries alone turned": ("rotate_", lambda x, columns, *turn: _rotate(x, columns // 2, *turn)),
    "nothing turned": ("rotate_", lambda *a: None),
}


@pytest.mark.parametrize("mistake", MISTAKES)
def test_a_mistake_shows(golden, monkeypatch, mistake):
    encoder, examples = fused(golden, "esm2", "fp16")
    name, wrong = MISTAKES[mistake]
    monkeypatch.setattr(f"virnucpro.encoders.gpu.{name}", wrong)
    bound = tolerances.GOLDEN_HALF["esm2", "fp16"]
    assert worst_error(encoder, examples) > tolerances.BROKEN * bound
