"""What the tests of both encoders share: golden examples, batches of them, and tiny models."""

from dataclasses import dataclass

import numpy as np
import torch
from safetensors.torch import load_file, save_file

from virnucpro.tokens import padded

# Tiny products gain nothing from a second thread, and lose much where tests share the cores.
torch.set_num_threads(1)

# Attention kernels that run without a GPU.
ON_CPU = ("math", "sdpa")


@dataclass(frozen=True)
class Example:
    """One golden sequence: ids (T,), hidden (T, C), mean (C,)."""

    ids: np.ndarray
    hidden: torch.Tensor
    mean: torch.Tensor


def golden_examples(path):
    tensors = load_file(path)
    return [
        Example(
            tensors[f"input_ids.{k}"][0].numpy(),
            tensors[f"hidden.{k}"][0],
            tensors[f"mean.{k}"][0],
        )
        for k in range(len(tensors) // 3)
    ]


def worst_error(encoder, examples):
    """Maximal absolute error of hidden states and means, with all examples in one batch."""
    ids_BT = torch.from_numpy(padded([e.ids for e in examples], encoder.model.pad))
    hidden_BTC, pooled_BC = encoder.hidden(ids_BT), encoder.pooled(ids_BT)
    errors = [
        max(
            (hidden_BTC[row, : len(e.ids)] - e.hidden).abs().max().item(),
            (pooled_BC[row] - e.mean).abs().max().item(),
        )
        for row, e in enumerate(examples)
    ]
    return max(errors)


def tiny_esm2(path, layers, width=16, heads=2, seed=0):
    """Random weights in fair-esm's names with their config inside, at path; returns the tensors."""
    random = np.random.default_rng(seed)

    def normal(*shape):
        return torch.from_numpy(random.normal(0, 0.3, shape).astype(np.float32))

    tensors = {"embed_tokens.weight": normal(33, width)}
    inv_freq = 10000.0 ** (-torch.arange(0, width // heads, 2) / (width // heads))
    for layer in range(layers):
        name = f"layers.{layer}."
        for linear, (rows, columns) in {
            **{f"self_attn.{p}_proj": (width, width) for p in ("q", "k", "v", "out")},
            "fc1": (4 * width, width),
            "fc2": (width, 4 * width),
        }.items():
            tensors[f"{name}{linear}.weight"] = normal(rows, columns)
            tensors[f"{name}{linear}.bias"] = normal(rows)
        for norm in ("self_attn_layer_norm", "final_layer_norm"):
            tensors[f"{name}{norm}.weight"] = 1 + normal(width)
            tensors[f"{name}{norm}.bias"] = normal(width)
        tensors[f"{name}self_attn.rot_emb.inv_freq"] = inv_freq.clone()
    tensors["emb_layer_norm_after.weight"] = 1 + normal(width)
    tensors["emb_layer_norm_after.bias"] = normal(width)
    config = f'{{"num_layers": {layers}, "embed_dim": {width}, "attention_heads": {heads}}}'
    save_file(tensors, path, metadata={"config": config})
    return tensors
