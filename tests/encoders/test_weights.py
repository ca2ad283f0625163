"""Published files -> encoders: every layout, and every way in which a file can be wrong."""

import json

import pytest
import torch
from safetensors import safe_open
from safetensors.torch import load_file, save_file

import tolerances
from encoder_examples import golden_examples, tiny_esm2, worst_error
from virnucpro.encoders import load_dnabert_s, load_esm2
from virnucpro.errors import BundleError, DeviceError, SettingsError


@pytest.fixture
def tiny(tmp_path):
    """A two-layer ESM-2: its path and tensors, to be damaged and written again."""
    path = tmp_path / "tiny.safetensors"
    return path, tiny_esm2(path, layers=2)


CONFIG = {"num_layers": 2, "embed_dim": 16, "attention_heads": 2}


def rewrite(path, tensors, config=CONFIG):
    metadata = None if config is None else {"config": json.dumps(config)}
    save_file(tensors, path, metadata=metadata)


def refused(path, load=load_esm2):
    with pytest.raises(BundleError) as caught:
        load(path)
    return str(caught.value)


def golden_parts(path):
    with safe_open(path, "pt") as file:
        return load_file(path), json.loads(file.metadata()["config"])


def publish(folder, tensors, config):
    folder.mkdir()
    (folder / "config.json").write_text(json.dumps(config))
    save_file(tensors, folder / "model.safetensors")
    return folder


def test_masked_lm_directory(golden, tmp_path):
    """EsmForMaskedLM as published: a prefix, heads, two leftovers, inv_freq in each layer."""
    tensors, config = golden_parts(golden / "esm2_hf_layout.weights.safetensors")
    inv_freq = tensors.pop("rotary_embeddings.inv_freq")
    tensors = {f"esm.{name}": tensor for name, tensor in tensors.items()}
    for layer in range(3):
        name = f"esm.encoder.layer.{layer}.attention.self.rotary_embeddings.inv_freq"
        tensors[name] = inv_freq.clone()
    tensors["esm.embeddings.position_embeddings.weight"] = torch.zeros(1026, 80)
    tensors["esm.embeddings.position_ids"] = torch.arange(1026)[None]
    tensors["lm_head.dense.weight"] = torch.zeros(80, 80)
    encoder = load_esm2(publish(tmp_path / "esm2", tensors, config))
    examples = golden_examples(golden / "esm2.examples.safetensors")
    assert worst_error(encoder, examples) <= tolerances.ESM2_GOLDEN_FP32


@pytest.mark.parametrize("prefix", ["encoder.sentence_encoder.", "encoder."])
def test_fair_prefixes(golden, tmp_path, prefix):
    tensors, config = golden_parts(golden / "esm2_fair_layout.weights.safetensors")
    tensors = {
        (f"encoder.{n}" if n.startswith("lm_head") else f"{prefix}{n}"): t.clone()
        for n, t in tensors.items()
    }
    rewrite(tmp_path / "fair.safetensors", tensors, config)
    encoder = load_esm2(tmp_path / "fair.safetensors")
    examples = golden_examples(golden / "esm2.examples.safetensors")
    assert worst_error(encoder, examples) <= tolerances.ESM2_GOLDEN_FP32


def test_dnabert_s_directory(golden, tmp_path):
    tensors, config = golden_parts(golden / "dnabert_h12.weights.safetensors")
    tensors = {f"bert.{name}": tensor for name, tensor in tensors.items()}
    tensors["cls.predictions.bias"] = torch.zeros(4096)
    folder = publish(tmp_path / "dnabert", tensors, config)
    words = (golden / "dnabert_s_tokenizer.json").read_bytes()
    (folder / "tokenizer.json").write_bytes(words)
    encoder = load_dnabert_s(folder)
    examples = golden_examples(golden / "dnabert_h12.examples.safetensors")
    assert worst_error(encoder, examples) <= tolerances.DNABERT_S_GOLDEN_FP32
    assert encoder.embed(["ACGT"]).shape == (1, 96)


def test_a_tokenizer_of_another_model(golden, tmp_path):
    tensors, config = golden_parts(golden / "dnabert_h8.weights.safetensors")
    words = "embeddings.word_embeddings.weight"
    tensors[words] = tensors[words][:100].clone()
    rewrite(tmp_path / "a.safetensors", tensors, {**config, "vocab_size": 100})
    with pytest.raises(BundleError, match="has 4096 tokens, the weights 100"):
        load_dnabert_s(tmp_path / "a.safetensors", tokenizer=golden / "dnabert_s_tokenizer.json")


def test_missing_and_unexpected_names(tiny):
    path, tensors = tiny
    tensors["layers.0.self_attn.k_bias"] = tensors.pop("layers.0.self_attn.k_proj.bias")
    tensors["layers.2.fc1.bias"] = tensors["layers.1.fc1.bias"].clone()
    tensors["layers.1.fc3.weight"] = torch.zeros(2)
    rewrite(path, tensors)
    said = refused(path)
    assert f"{path}: does not fit its config as fair-esm weights" in said
    assert "it lacks layers.0.self_attn.k_proj.bias;" in said
    for name in ("layers.0.self_attn.k_bias", "layers.1.fc3.weight", "layers.2.fc1.bias"):
        assert name in said


def test_every_name_is_needed(tiny):
    path, tensors = tiny
    for name in tensors:
        if name.endswith("inv_freq") or name == "embed_tokens.weight":
            continue
        rewrite(path, {n: t for n, t in tensors.items() if n != name})
        assert refused(path).endswith(f"it lacks {name}")


def test_a_layer_too_few(tiny):
    path, tensors = tiny
    rewrite(path, tensors, {**CONFIG, "num_layers": 3})
    said = refused(path)
    assert "lacks layers.2.fc1.bias" in said
    assert "and 10 more" in said


def test_shapes(tiny):
    path, tensors = tiny
    tensors["layers.0.self_attn.v_proj.weight"] = torch.zeros(16, 8)
    tensors["layers.0.fc2.bias"] = torch.zeros(16, dtype=torch.int64)
    rewrite(path, tensors)
    said = refused(path)
    assert "layers.0.self_attn.v_proj.weight is float32 (16, 8) instead of (16, 16)" in said
    assert "layers.0.fc2.bias is int64 (16,) instead of (16,)" in said
    assert "lacks" not in said


def test_differing_copies(tiny):
    path, tensors = tiny
    tensors["layers.1.self_attn.rot_emb.inv_freq"] *= 1.01
    rewrite(path, tensors)
    assert "layers.1.self_attn.rot_emb.inv_freq is there twice" in refused(path)


@pytest.mark.parametrize("keep", [0, 4, 7, 200, -1])
def test_truncated(tiny, keep):
    path, _ = tiny
    path.write_bytes(path.read_bytes()[:keep])
    said = refused(path)
    assert str(path) in said
    assert "truncated or damaged" in said


def test_damaged_header(tiny):
    path, _ = tiny
    damaged = bytearray(path.read_bytes())
    damaged[3] ^= 0xFF
    path.write_bytes(damaged)
    assert "truncated or damaged" in refused(path)


def test_missing_files(tmp_path, tiny):
    assert "cannot be read" in refused(tmp_path / "nowhere")
    folder = tmp_path / "folder"
    folder.mkdir()
    assert "holds no config.json" in refused(folder)
    (folder / "config.json").write_text("{")
    assert "holds no model.safetensors" in refused(folder)
    (folder / "model.safetensors").write_bytes(tiny[0].read_bytes())
    assert "config is not JSON" in refused(folder)
    (folder / "config.json").write_text("[]")
    assert "not a JSON object" in refused(folder)


@pytest.mark.parametrize(
    ("config", "said"),
    [
        (None, "holds no config of an encoder"),
        ({}, "not that of an ESM-2"),
        ({**CONFIG, "num_layers": "2"}, "num_layers is '2'"),
        ({**CONFIG, "num_layers": 0}, "num_layers is 0"),
        ({**CONFIG, "attention_heads": 3}, "cannot have 3 heads"),
        ({"embed_dim": 16, "num_layers": 2}, "attention_heads is None"),
        ({"position_embedding_type": "absolute"}, "not that of an ESM-2"),
        ({"position_embedding_type": "rotary"}, "num_hidden_layers is None"),
    ],
)
def test_configs(tiny, config, said):
    path, tensors = tiny
    rewrite(path, tensors, config)
    assert said in refused(path)


def test_weights_of_another_encoder(golden, tmp_path):
    assert "not that of an ESM-2" in refused(golden / "dnabert_h8.weights.safetensors")
    hf = golden / "esm2_hf_layout.weights.safetensors"
    assert "not that of a DNABERT-S" in refused(hf, load_dnabert_s)
    tensors, _ = golden_parts(golden / "dnabert_h8.weights.safetensors")
    rewrite(tmp_path / "a.safetensors", tensors)
    assert "lacks" in refused(tmp_path / "a.safetensors")
    rewrite(tmp_path / "b.safetensors", {"a.weight": torch.zeros(1)})
    assert "it holds no embed_tokens.weight" in refused(tmp_path / "b.safetensors")


def test_unknown_precision_and_device(tiny):
    with pytest.raises(SettingsError, match="'fp4' is not known"):
        load_esm2(tiny[0], "cpu", "fp4")
    with pytest.raises(DeviceError, match="fp8 needs a GPU"):
        load_esm2(tiny[0], "cpu", "fp8")
    with pytest.raises(DeviceError, match="is not known; choose cpu or cuda"):
        load_esm2(tiny[0], "gpu7", "fp32")


@pytest.mark.skipif(torch.cuda.is_available(), reason="this machine has a CUDA device")
def test_missing_device(tiny):
    with pytest.raises(DeviceError, match="sees no CUDA device"):
        load_esm2(tiny[0], "cuda", "fp32")
