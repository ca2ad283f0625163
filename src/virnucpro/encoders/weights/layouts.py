"""Names of published weights -> names of our modules: a layout is a table. Nothing is read here.

In a table, # stands for the number of a layer, and a key is the name of a tensor without its last
word (weight, bias, inv_freq).
"""

import re
from collections.abc import Mapping
from dataclasses import dataclass

# What TensorFlow called them; transformers writes a LayerNorm's so again from version 5 on.
_OLD_WORDS = {"gamma": "weight", "beta": "bias"}
_NUMBER = re.compile(r"(?<=\.)\d+(?=\.|$)")


@dataclass(frozen=True, slots=True)
class Part:
    """The place of a tensor: one of ours, or one of `of` equal parts of it along dimension 0."""

    stem: str
    place: int = 0
    of: int = 1


@dataclass(frozen=True, slots=True)
class Layout:
    """The names that one publisher gives to the weights of one encoder.

    mark: a name that only this layout has. prefixes: the first that a name begins with is cut off;
    none is required. ignored: beginnings of the names of what an encoder does not run. optional:
    names of ours that a file need not hold.
    """

    name: str
    mark: str
    prefixes: tuple[str, ...]
    parts: Mapping[str, Part]
    ignored: tuple[str, ...]
    optional: tuple[str, ...] = ()

    def short(self, name: str) -> str:
        """A published name without its prefix."""
        for prefix in self.prefixes:
            if name.startswith(prefix):
                return name[len(prefix) :]
        return name

    def ignores(self, name: str) -> bool:
        """Return True if a published name is of a part that no encoder here runs."""
        return self.short(name).startswith(self.ignored)

    def part(self, name: str) -> Part | None:
        """Return the place of the tensor of a published name, None for one that no rule covers."""
        stem, _, last = self.short(name).rpartition(".")
        general, number = _general(stem)
        rule = self.parts.get(general)
        if rule is None:
            return None
        last = _OLD_WORDS.get(last, last)
        return Part(f"{rule.stem.replace('#', number)}.{last}", rule.place, rule.of)

    def sources(self, ours: str) -> list[str]:
        """The published names, without prefix, of one of our tensors, in the order of its parts."""
        stem, _, last = ours.rpartition(".")
        general, number = _general(stem)
        rules = (
            (rule.place, theirs) for theirs, rule in self.parts.items() if rule.stem == general
        )
        return [f"{theirs.replace('#', number)}.{last}" for _, theirs in sorted(rules)]


def _general(stem: str) -> tuple[str, str]:
    """A stem with # for the number of its layer, and that number ("" where it has none)."""
    number = _NUMBER.search(stem)
    if number is None:
        return stem, ""
    return f"{stem[: number.start()]}#{stem[number.end() :]}", number.group()


def _qkv(source: str, names: tuple[str, str, str]) -> dict[str, Part]:
    """Three published projections as parts of our fused one."""
    return {source + name: Part("layers.#.qkv", place, 3) for place, name in enumerate(names)}


# Everything that a file may hold and an encoder does not run, for all layouts.
_HEADS = ("lm_head.", "contact_head.", "pooler.", "cls.")
# Leftovers in real Hugging Face files; a model with rotary positions does not use them.
_LEFTOVERS = ("embeddings.position_embeddings.weight", "embeddings.position_ids")

ESM2_FAIR = Layout(
    name="fair-esm",
    mark="embed_tokens.weight",
    prefixes=("encoder.sentence_encoder.", "encoder."),
    parts={
        "embed_tokens": Part("embedding"),
        "layers.#.self_attn.rot_emb": Part("rotary"),
        "layers.#.self_attn_layer_norm": Part("layers.#.attention_norm"),
        **_qkv("layers.#.self_attn.", ("q_proj", "k_proj", "v_proj")),
        "layers.#.self_attn.out_proj": Part("layers.#.out"),
        "layers.#.final_layer_norm": Part("layers.#.ffn_norm"),
        "layers.#.fc1": Part("layers.#.up"),
        "layers.#.fc2": Part("layers.#.down"),
        "emb_layer_norm_after": Part("norm"),
    },
    ignored=_HEADS,
    optional=("rotary.inv_freq",),
)
ESM2_HUGGING_FACE = Layout(
    name="Hugging Face ESM",
    mark="embeddings.word_embeddings.weight",
    prefixes=("esm.",),
    parts={
        "embeddings.word_embeddings": Part("embedding"),
        "rotary_embeddings": Part("rotary"),
        "encoder.layer.#.attention.self.rotary_embeddings": Part("rotary"),
        # transformers 5 saves one for all layers, with a star for their numbers.
        "encoder.layer.*.attention.self.rotary_embeddings": Part("rotary"),
        "encoder.layer.#.attention.LayerNorm": Part("layers.#.attention_norm"),
        **_qkv("encoder.layer.#.attention.self.", ("query", "key", "value")),
        "encoder.layer.#.attention.output.dense": Part("layers.#.out"),
        "encoder.layer.#.LayerNorm": Part("layers.#.ffn_norm"),
        "encoder.layer.#.intermediate.dense": Part("layers.#.up"),
        "encoder.layer.#.output.dense": Part("layers.#.down"),
        "encoder.emb_layer_norm_after": Part("norm"),
    },
    ignored=(*_HEADS, *_LEFTOVERS),
    optional=("rotary.inv_freq",),
)
DNABERT_S = Layout(
    name="DNABERT-S",
    mark="embeddings.token_type_embeddings.weight",
    prefixes=("bert.",),
    parts={
        "embeddings.word_embeddings": Part("words"),
        "embeddings.token_type_embeddings": Part("types"),
        "embeddings.LayerNorm": Part("norm"),
        "encoder.layer.#.attention.self.Wqkv": Part("layers.#.qkv"),
        "encoder.layer.#.attention.output.dense": Part("layers.#.out"),
        "encoder.layer.#.attention.output.LayerNorm": Part("layers.#.attention_norm"),
        "encoder.layer.#.mlp.gated_layers": Part("layers.#.gate"),
        "encoder.layer.#.mlp.wo": Part("layers.#.down"),
        "encoder.layer.#.mlp.layernorm": Part("layers.#.ffn_norm"),
    },
    ignored=_HEADS,
)
