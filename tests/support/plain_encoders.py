"""The formulas of both encoders read slowly in float64 numpy: one sequence, one head at a time."""

import math

import numpy as np

_erf = np.vectorize(math.erf, otypes=[np.float64])


def gelu(x):
    return x * 0.5 * (1 + _erf(x / math.sqrt(2)))


def layer_norm(x, weight, bias, eps):
    centred = x - x.mean(-1, keepdims=True)
    return centred / np.sqrt((centred**2).mean(-1, keepdims=True) + eps) * weight + bias


def softmax(scores):
    powers = np.exp(scores - scores.max(-1, keepdims=True))
    return powers / powers.sum(-1, keepdims=True)


class Weights:
    """Float64 views of a state dict, addressed by the published names."""

    def __init__(self, tensors):
        self.tensors = {name: np.asarray(value, np.float64) for name, value in tensors.items()}

    def __getitem__(self, name):
        return self.tensors[name]

    def linear(self, name, x, bias=True):
        y = x @ self[f"{name}.weight"].T
        return y + self[f"{name}.bias"] if bias else y

    def norm(self, name, x, eps):
        return layer_norm(x, self[f"{name}.weight"], self[f"{name}.bias"], eps)


def turned(x, inv_freq):
    """Rotary positions of one head, (T, D): dimension d is paired with d + D/2."""
    half = x.shape[1] // 2
    out = np.empty_like(x)
    for place in range(x.shape[0]):
        for d in range(half):
            c, s = math.cos(place * inv_freq[d]), math.sin(place * inv_freq[d])
            a, b = x[place, d], x[place, d + half]
            out[place, d], out[place, d + half] = a * c - b * s, b * c + a * s
    return out


def esm2(tensors, ids, layers, heads):
    """Hidden states (T, C) of one protein from weights with fair-esm's names."""
    w = Weights(tensors)
    x = w["embed_tokens.weight"][ids] * 0.88
    width = x.shape[1] // heads
    for layer in range(layers):
        name = f"layers.{layer}."
        h = w.norm(name + "self_attn_layer_norm", x, 1e-5)
        q, k, v = (w.linear(f"{name}self_attn.{p}_proj", h) for p in "qkv")
        inv_freq = w[name + "self_attn.rot_emb.inv_freq"]
        mixed = np.empty_like(x)
        for head in range(heads):
            part = slice(head * width, (head + 1) * width)
            qh, kh = turned(q[:, part] * width**-0.5, inv_freq), turned(k[:, part], inv_freq)
            mixed[:, part] = softmax(qh @ kh.T) @ v[:, part]
        x = x + w.linear(name + "self_attn.out_proj", mixed)
        h = w.norm(name + "final_layer_norm", x, 1e-5)
        x = x + w.linear(name + "fc2", gelu(w.linear(name + "fc1", h)))
    return w.norm("emb_layer_norm_after", x, 1e-5)


def slopes(heads):
    """ALiBi's slopes written out for the numbers of heads that the golden models have."""
    eight = [2.0**-p for p in range(1, 9)]
    return {8: eight, 12: [*eight, 2**-0.5, 2**-1.5, 2**-2.5, 2**-3.5]}[heads]


def dnabert_s(tensors, ids, layers, heads):
    """Hidden states (T, C) of one sequence from weights with the published names."""
    w = Weights(tensors)
    x = w["embeddings.word_embeddings.weight"][ids]
    x = x + w["embeddings.token_type_embeddings.weight"][0]
    x = w.norm("embeddings.LayerNorm", x, 1e-12)
    tokens, width = x.shape[0], x.shape[1] // heads
    distance = np.abs(np.arange(tokens)[:, None] - np.arange(tokens)[None, :])
    for layer in range(layers):
        name = f"encoder.layer.{layer}."
        q, k, v = np.split(w.linear(name + "attention.self.Wqkv", x), 3, axis=1)
        mixed = np.empty_like(x)
        for head, slope in enumerate(slopes(heads)):
            part = slice(head * width, (head + 1) * width)
            scores = q[:, part] @ k[:, part].T / math.sqrt(width) - slope * distance
            mixed[:, part] = softmax(scores) @ v[:, part]
        x = w.norm(
            name + "attention.output.LayerNorm",
            w.linear(name + "attention.output.dense", mixed) + x,
            1e-12,
        )
        gated, value = np.split(w.linear(name + "mlp.gated_layers", x, bias=False), 2, axis=1)
        x = w.norm(
            name + "mlp.layernorm", w.linear(name + "mlp.wo", gelu(gated) * value) + x, 1e-12
        )
    return x
