"""ESM-2: parity with the published code, with plain float64 formulas, and of batches with rows."""

import json

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from safetensors import safe_open
from safetensors.torch import load_file, save_file
from torch.nn import functional as F

import plain_encoders
import tolerances
from encoder_examples import ON_CPU, golden_examples, tiny_esm2, worst_error
from virnucpro.encoders import esm2, load_esm2
from virnucpro.tokens import padded, protein_ids

LAYOUTS = ("fair", "hf")


def weights(golden, layout="fair"):
    return golden / f"esm2_{layout}_layout.weights.safetensors"


@pytest.fixture(scope="module")
def examples(golden):
    return golden_examples(golden / "esm2.examples.safetensors")


@pytest.fixture(scope="module")
def proteins(golden):
    with safe_open(golden / "esm2.examples.safetensors", "np") as file:
        return json.loads(file.metadata()["proteins"])


@pytest.fixture(scope="module")
def encoders(golden):
    return {
        precision: load_esm2(weights(golden), "cpu", precision, plain=True)
        for precision in ("fp32", "bf16")
    }


@pytest.mark.parametrize("layout", LAYOUTS)
@pytest.mark.parametrize("kernel", ON_CPU)
def test_each_golden_protein_alone(golden, examples, layout, kernel):
    """TRAP N5."""
    encoder = load_esm2(weights(golden, layout), "cpu", "fp32", plain=True)
    encoder.attention = kernel
    for example in examples:
        assert worst_error(encoder, [example]) <= tolerances.ESM2_GOLDEN_FP32


@pytest.mark.parametrize("kernel", ON_CPU)
@pytest.mark.parametrize("order", [1, -1])
def test_golden_proteins_in_one_batch(golden, examples, kernel, order):
    """TRAP N8."""
    encoder = load_esm2(weights(golden), "cpu", "fp32", plain=True)
    encoder.attention = kernel
    assert worst_error(encoder, examples[::order]) <= tolerances.ESM2_GOLDEN_FP32


def test_embed_of_golden_proteins(encoders, examples, proteins):
    rows = encoders["fp32"].embed(proteins)
    means = np.stack([example.mean.numpy() for example in examples])
    assert rows.dtype == np.float32
    assert np.abs(rows - means).max() <= tolerances.ESM2_GOLDEN_FP32


@pytest.mark.parametrize("precision", ["bf16", "fp16"])
def test_half_precision_against_fp32(golden, examples, precision):
    """TRAP N10."""
    encoder = load_esm2(weights(golden), "cpu", precision, plain=True)
    error = worst_error(encoder, examples)
    assert tolerances.ESM2_GOLDEN_FP32 < error <= tolerances.GOLDEN_HALF["esm2", precision]


@pytest.mark.parametrize("kernel", ON_CPU)
def test_float64_equals_the_formulas(golden, examples, kernel):
    model = load_esm2(weights(golden), "cpu", "fp32", plain=True).model.double()
    tensors = load_file(weights(golden))
    for example in examples[:4]:
        plain = plain_encoders.esm2(tensors, example.ids, layers=3, heads=4)
        ids_BT = torch.from_numpy(example.ids)[None]
        hidden_BTC = model(ids_BT, backend=kernel)
        assert hidden_BTC.dtype == torch.float64
        assert np.abs(hidden_BTC[0].numpy() - plain).max() <= tolerances.FLOAT64
        mean = plain[1:-1].mean(0)
        assert np.abs(model.pool(hidden_BTC, ids_BT)[0].numpy() - mean).max() <= tolerances.FLOAT64


@pytest.mark.parametrize("layers", [6, 12, 33])
def test_any_number_of_layers(tmp_path, layers):
    """TRAP N13."""
    tensors = tiny_esm2(tmp_path / "tiny.safetensors", layers)
    model = load_esm2(tmp_path / "tiny.safetensors", plain=True).model.double()
    ids = protein_ids("MKTAYIAKQR")
    plain = plain_encoders.esm2(tensors, ids, layers, heads=2)
    hidden_BTC = model(torch.from_numpy(ids)[None])
    assert np.abs(hidden_BTC[0].numpy() - plain).max() <= tolerances.FLOAT64


PROTEIN = st.text("ACDEFGHIKLMNPQRSTVWYX", min_size=1, max_size=40)


@settings(max_examples=30, deadline=None)
@given(
    batch=st.lists(PROTEIN, max_size=8),
    budget=st.integers(1, 200),
    precision=st.sampled_from(["fp32", "bf16"]),
)
def test_any_batch_equals_each_protein_alone(encoders, batch, budget, precision):
    """TRAP N8, N9."""
    encoder = encoders[precision]
    alone = np.zeros((len(batch), encoder.width), np.float32)
    for row, protein in enumerate(batch):
        alone[row] = encoder.pooled(torch.from_numpy(protein_ids(protein))[None])[0].numpy()
    encoder.batch_tokens = budget
    bound = tolerances.BATCH_FP32 if precision == "fp32" else tolerances.BATCH_BF16
    assert np.abs(encoder.embed(batch) - alone).max(initial=0) <= bound["esm2"]


@pytest.mark.parametrize("kernel", ON_CPU)
@pytest.mark.parametrize("precision", ["fp32", "bf16"])
def test_pads_change_nothing(encoders, examples, kernel, precision):
    """TRAP N8."""
    encoder = encoders[precision]
    encoder.attention = kernel
    alone = encoder.pooled(torch.from_numpy(examples[2].ids)[None])
    ids_BT = torch.from_numpy(padded([examples[2].ids, examples[6].ids], encoder.model.pad))
    bound = tolerances.BATCH_FP32 if precision == "fp32" else tolerances.BATCH_BF16
    assert (encoder.pooled(ids_BT)[0] - alone[0]).abs().max() <= bound["esm2"]
    assert not encoder.hidden(ids_BT)[0, len(examples[2].ids) :].any()


def interleaved(x_BHTD, cos_TD, sin_TD):
    """Rotary positions with pairs (2d, 2d + 1): the other common convention."""
    half = x_BHTD.shape[-1] // 2
    cos, sin = cos_TD[:, :half], sin_TD[:, :half]
    first, second = x_BHTD[..., 0::2], x_BHTD[..., 1::2]
    return torch.stack((first * cos - second * sin, second * cos + first * sin), -1).flatten(-2)


def mean_with_eos(self, hidden_BTC, ids_BT):
    keep_BT1 = ((ids_BT != 0) & (ids_BT != 1))[..., None]
    return (hidden_BTC * keep_BT1).sum(1) / keep_BT1.sum(1)


def mean_with_cls(self, hidden_BTC, ids_BT):
    keep_BT1 = ((ids_BT != 2) & (ids_BT != 1))[..., None]
    return (hidden_BTC * keep_BT1).sum(1) / keep_BT1.sum(1)


def swapped(order):
    """Attention that takes q, k, v in another order."""

    def attention(*qkv_and_mask, backend):
        *qkv, mask = qkv_and_mask
        return _attention(*(qkv[place] for place in order), mask, backend=backend)

    return attention


_gelu, _rotate, _attention = F.gelu, esm2.rotate, esm2.attention
MISTAKES = {
    "no 0.88": (esm2, "TOKEN_DROPOUT_KEPT", 1.0),
    "tanh GELU": (F, "gelu", lambda x, approximate: _gelu(x, approximate="tanh")),
    "interleaved rotary": (esm2, "rotate", interleaved),
    "rotary the other way": (esm2, "rotate", lambda x, cos, sin: _rotate(x, cos, -sin)),
    "eos in the mean": (esm2.Esm2, "pool", mean_with_eos),
    "cls in the mean": (esm2.Esm2, "pool", mean_with_cls),
    "q and k swapped": (esm2, "attention", swapped((1, 0, 2))),
    "k and v swapped": (esm2, "attention", swapped((0, 2, 1))),
}


@pytest.mark.parametrize("mistake", MISTAKES)
def test_a_mistake_shows(golden, examples, monkeypatch, mistake):
    """TRAP N3, N4, N5."""
    encoder = load_esm2(weights(golden), "cpu", "fp32", plain=True)
    assert worst_error(encoder, examples) <= tolerances.ESM2_GOLDEN_FP32
    monkeypatch.setattr(*MISTAKES[mistake])
    assert worst_error(encoder, examples) > tolerances.BROKEN * tolerances.ESM2_GOLDEN_FP32


def test_unmasked_pads_show(golden, examples, monkeypatch):
    encoder = load_esm2(weights(golden), "cpu", "fp32", plain=True)
    everyone = esm2.mask_of
    monkeypatch.setattr(esm2, "mask_of", lambda keep, *rest: everyone(keep | True, *rest))
    assert worst_error(encoder, examples) > tolerances.BROKEN * tolerances.ESM2_GOLDEN_FP32


def rounded_inv_freq(golden, path):
    """The golden weights with inv_freq rounded to fp16, as the published ones have it."""
    with safe_open(weights(golden), "pt") as file:
        metadata = file.metadata()
    tensors = load_file(weights(golden))
    for name in tensors:
        if name.endswith("inv_freq"):
            tensors[name] = tensors[name].half().float()
    save_file(tensors, path, metadata=metadata)
    return tensors


def test_inv_freq_comes_from_the_weights(golden, examples, tmp_path):
    tensors = rounded_inv_freq(golden, tmp_path / "rounded.safetensors")
    model = load_esm2(tmp_path / "rounded.safetensors", plain=True).model.double()
    plain = plain_encoders.esm2(tensors, examples[3].ids, layers=3, heads=4)
    hidden = model(torch.from_numpy(examples[3].ids)[None])[0].numpy()
    assert np.abs(hidden - plain).max() <= tolerances.FLOAT64
    assert np.abs(plain - examples[3].hidden.numpy()).max() > tolerances.ESM2_GOLDEN_FP32


@pytest.mark.parametrize("precision", ["fp32", "bf16", "fp16"])
@pytest.mark.parametrize("cast", [None, torch.float16, torch.bfloat16])
def test_inv_freq_stays_fp32(golden, precision, cast):
    """TRAP N6."""
    tensors = load_file(weights(golden))
    model = load_esm2(weights(golden), "cpu", precision, plain=True).model
    if cast is not None:
        model = model.to(cast)
    assert model.rotary.inv_freq.dtype == torch.float32
    cos_TD, sin_TD = model.rotary(1025, model.embedding.weight.dtype)
    angle = 1024 * tensors["layers.0.self_attn.rot_emb.inv_freq"].double().repeat(2)
    phase = torch.atan2(sin_TD[1024].double(), cos_TD[1024].double()) - angle
    assert torch.atan2(phase.sin(), phase.cos()).abs().max() < tolerances.PHASE_RAD


def test_weights_without_inv_freq(golden, examples, tmp_path):
    with safe_open(weights(golden), "pt") as file:
        metadata = file.metadata()
    tensors = {n: t for n, t in load_file(weights(golden)).items() if "inv_freq" not in n}
    save_file(tensors, tmp_path / "bare.safetensors", metadata=metadata)
    encoder = load_esm2(tmp_path / "bare.safetensors", plain=True)
    assert worst_error(encoder, examples) <= tolerances.ESM2_GOLDEN_FP32


def test_token_dropout_comes_from_the_config(golden, examples, tmp_path):
    with safe_open(weights(golden, "hf"), "pt") as file:
        config = json.loads(file.metadata()["config"])
    config["token_dropout"] = False
    tensors = load_file(weights(golden, "hf"))
    save_file(tensors, tmp_path / "off.safetensors", metadata={"config": json.dumps(config)})
    encoder = load_esm2(tmp_path / "off.safetensors", plain=True)
    assert worst_error(encoder, examples) > tolerances.BROKEN * tolerances.ESM2_GOLDEN_FP32
    ids_BT = torch.from_numpy(examples[2].ids)[None]
    bare = encoder.model.embed(ids_BT, ids_BT != 1)
    assert torch.equal(bare, encoder.model.embedding(ids_BT))


def test_masked_tokens_are_blank_and_rescale_the_rest(encoders):
    model = encoders["fp32"].model
    ids_BT = torch.from_numpy(protein_ids("MKTAYIAK"))[None].clone()
    ids_BT[0, 3] = 32
    x_BTC = model.embed(ids_BT, ids_BT != 1)
    assert not x_BTC[0, 3].any()
    scale = 0.88 / (1 - 1 / 10)
    torch.testing.assert_close(x_BTC[0, 1], model.embedding.weight[20] * scale)
    longer_BT = torch.nn.functional.pad(ids_BT, (0, 5), value=1)
    assert torch.equal(model.embed(longer_BT, longer_BT != 1)[:, :10], x_BTC)


@pytest.mark.parametrize("precision", ["fp32", "bf16", "fp16"])
def test_dtypes_outlast_a_forward(golden, examples, precision):
    """TRAP N10."""
    encoder = load_esm2(weights(golden), "cpu", precision, plain=True)
    before = {name: tensor.dtype for name, tensor in encoder.model.state_dict().items()}
    hidden = encoder.hidden(torch.from_numpy(examples[1].ids)[None])
    assert hidden.dtype == torch.float32
    assert {name: tensor.dtype for name, tensor in encoder.model.state_dict().items()} == before
    expected = {"fp32": torch.float32, "bf16": torch.bfloat16, "fp16": torch.float16}[precision]
    assert before.pop("rotary.inv_freq") == torch.float32
    assert set(before.values()) == {expected}


def test_what_esm2_cannot_take(encoders):
    encoder = encoders["fp32"]
    with pytest.raises(ValueError, match="at most 1024 residues, this protein has 1025"):
        encoder.embed(["M", "M" * 1025])
    with pytest.raises(ValueError, match="at most 1024"):
        encoder.hidden(torch.zeros(1, 1027, dtype=torch.int64))
    with pytest.raises(ValueError, match="empty protein"):
        encoder.embed(["M", ""])
    assert encoder.embed(["M" * 1024]).shape == (1, 80)
    assert encoder.embed([]).shape == (0, 80)
