"""Encoders written to disk as their publishers do: fair-esm's file, Hugging Face's directories."""

import json
import shutil
from argparse import Namespace

import torch
from safetensors import safe_open
from safetensors.torch import load_file, save_file

KINDS = ("safetensors", "safetensors shards", "bin", "bin shards", "bin stream")


def golden_parts(path):
    """Tensors and config of a golden model."""
    with safe_open(path, "pt") as file:
        return load_file(path), json.loads(file.metadata()["config"])


def publish(folder, tensors, config, kind="safetensors", shards=3):
    """A directory as Hugging Face lays it out."""
    folder.mkdir(parents=True)
    (folder / "config.json").write_text(json.dumps(config))
    name = "model.safetensors" if kind.startswith("safetensors") else "pytorch_model.bin"
    if not kind.endswith("shards"):
        write(folder / name, tensors, stream=kind.endswith("stream"))
        return folder
    weight_map = {}
    for k in range(shards):
        part = dict(list(tensors.items())[k::shards])
        stem, _, suffix = name.partition(".")
        shard = f"{stem}-{k + 1:05}-of-{shards:05}.{suffix}"
        write(folder / shard, part)
        weight_map |= dict.fromkeys(part, shard)
    index = {"metadata": {"total_size": 1}, "weight_map": weight_map}
    (folder / f"{name}.index.json").write_text(json.dumps(index))
    return folder


def write(path, tensors, stream=False):
    if path.suffix == ".safetensors":
        save_file(tensors, path, metadata={"format": "pt"})
    else:
        torch.save(dict(tensors), path, _use_new_zipfile_serialization=not stream)


def publish_dnabert_s(golden, folder, kind="bin", model="dnabert_h12"):
    """The golden DNABERT-S with its tokenizer beside it, as published."""
    tensors, config = golden_parts(golden / f"{model}.weights.safetensors")
    publish(folder, tensors, config, kind)
    shutil.copyfile(golden / "dnabert_s_tokenizer.json", folder / "tokenizer.json")
    return folder


def fair_checkpoint(tensors, layers, width, heads, prefix="encoder.sentence_encoder.", **sizes):
    """What fair-esm saves for an ESM-2; sizes: more fields of its Namespace."""
    named = {
        (f"encoder.{n}" if n.startswith("lm_head") else f"{prefix}{n}"): t
        for n, t in tensors.items()
    }
    model = Namespace(
        encoder_layers=layers,
        encoder_embed_dim=width,
        encoder_attention_heads=heads,
        **{"token_dropout": True, "arch": "roberta_large", **sizes},
    )
    return {"model": named, "cfg": {"model": model}}


def publish_fair(path, tensors, config, stream=False, prefix="encoder.sentence_encoder."):
    """The golden ESM-2 as fair-esm's file."""
    sizes = config["num_layers"], config["embed_dim"], config["attention_heads"]
    saved = fair_checkpoint(tensors, *sizes, prefix=prefix)
    torch.save(saved, path, _use_new_zipfile_serialization=not stream)
    return path
