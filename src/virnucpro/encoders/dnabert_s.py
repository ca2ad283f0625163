"""DNABERT-S (Zhou et al. 2024), the nucleotide encoder: DNABERT-2's MosaicBERT, any of its sizes.

Post-LayerNorm blocks, ALiBi instead of position embeddings, a gated feed-forward part. Pooler and
language model head are not built. This module reads no file itself and knows no batching.

B sequences, T tokens ([CLS], pieces, [SEP], pads), C width, H heads, D width of a head, F inner
width of the feed-forward part.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from functools import cache
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from virnucpro.encoders.attention import Mask, alibi_slopes, attention, mask_of
from virnucpro.encoders.precision import WideLayerNorm, wide
from virnucpro.encoders.weights.load import field_of
from virnucpro.errors import BundleError
from virnucpro.tokens import NUCLEOTIDE_PAD


@dataclass(frozen=True, slots=True, kw_only=True)
class DnabertSConfig:
    """The sizes of a DNABERT-S; ffn is the inner width of a block's feed-forward part."""

    vocabulary: int
    layers: int
    width: int
    heads: int
    ffn: int
    token_types: int = 2
    eps: float = 1e-12

    def __post_init__(self) -> None:
        if self.width % self.heads:
            raise BundleError(
                f"a DNABERT-S of width {self.width} cannot have {self.heads} heads of even width"
            )


def dnabert_s_config(published: Mapping[str, Any]) -> DnabertSConfig:
    """The sizes in a published config; BundleError for a missing field or another model."""
    if "alibi_starting_size" not in published:
        raise BundleError("the config is not that of a DNABERT-S (it names no ALiBi)")
    return DnabertSConfig(
        vocabulary=field_of(published, "vocab_size", int),
        layers=field_of(published, "num_hidden_layers", int),
        width=field_of(published, "hidden_size", int),
        heads=field_of(published, "num_attention_heads", int),
        ffn=field_of(published, "intermediate_size", int),
        token_types=field_of(published, "type_vocab_size", int),
        eps=field_of(published, "layer_norm_eps", float),
    )


class Layer(nn.Module):
    """x = LN(attention(x) + x), then LN(ffn(x) + x); the stream x is wide, the products are not."""

    def __init__(self, config: DnabertSConfig) -> None:
        super().__init__()
        self.heads = config.heads
        self.qkv = nn.Linear(config.width, 3 * config.width)
        self.out = nn.Linear(config.width, config.width)
        self.attention_norm = WideLayerNorm(config.width, eps=config.eps)
        self.gate = nn.Linear(config.width, 2 * config.ffn, bias=False)
        self.down = nn.Linear(config.ffn, config.width)
        self.ffn_norm = WideLayerNorm(config.width, eps=config.eps)

    def forward(self, x_BTC: Tensor, mask: Mask, backend: str) -> Tensor:
        x_BTC = self.attention_norm(self._attend(x_BTC, mask, backend) + x_BTC)
        gate_BTF, value_BTF = self.gate(x_BTC.to(self.gate.weight.dtype)).chunk(2, dim=-1)
        mixed_BTC: Tensor = self.down(F.gelu(gate_BTF, approximate="none") * value_BTF)
        normed: Tensor = self.ffn_norm(mixed_BTC + x_BTC)
        return normed

    def _attend(self, x_BTC: Tensor, mask: Mask, backend: str) -> Tensor:
        qkv_BTC = self.qkv(x_BTC.to(self.qkv.weight.dtype))
        q, k, v = qkv_BTC.unflatten(-1, (3, self.heads, -1)).permute(2, 0, 3, 1, 4)
        mixed_BHTD = attention(q, k, v, mask, backend=backend)
        out: Tensor = self.out(mixed_BHTD.transpose(1, 2).flatten(2))
        return out


class DnabertS(nn.Module):
    """The encoder: ids (B, T) -> hidden states (B, T, C) of the last layer, zero at pads.

    Hidden states are fp32 (fp64 from a model in fp64); the weights' dtype is that of the products.
    """

    pad = NUCLEOTIDE_PAD
    biased = True

    def __init__(self, config: DnabertSConfig) -> None:
        super().__init__()
        self.config = config
        self.words = nn.Embedding(config.vocabulary, config.width)
        self.types = nn.Embedding(config.token_types, config.width)
        self.norm = WideLayerNorm(config.width, eps=config.eps)
        self.layers = nn.ModuleList(Layer(config) for _ in range(config.layers))

    @property
    def width(self) -> int:
        return self.config.width

    @property
    def dtype(self) -> torch.dtype:
        """Dtype of the products."""
        return self.words.weight.dtype

    @property
    def slopes(self) -> Tensor:
        """ALiBi's, (H,), wide, on the device."""
        weight = self.words.weight
        return _on(tuple(alibi_slopes(self.config.heads)), wide(weight.dtype), weight.device)

    @property
    def token_bytes(self) -> int:
        """About the memory that a layer needs at once for each token of a batch."""
        config = self.config
        half = self.dtype.itemsize * (5 * config.width + 3 * config.ffn)
        return 4 * wide(self.dtype).itemsize * config.width + half

    def forward(
        self, ids_BT: Tensor, *, backend: str = "auto", padded: bool | None = None
    ) -> Tensor:
        """backend: see attention. padded: whether there are pads; None looks, and waits."""
        keep_BT = ids_BT != NUCLEOTIDE_PAD
        x_BTC = self.embed(ids_BT)
        mask = mask_of(keep_BT, self.slopes, padded)
        for layer in self.layers:
            x_BTC = layer(x_BTC, mask, backend)
        return x_BTC.masked_fill(~keep_BT[..., None], 0)

    def embed(self, ids_BT: Tensor) -> Tensor:
        """Return the input of the first layer, (B, T, C), wide."""
        words_BTC: Tensor = self.words(ids_BT).to(wide(self.dtype))
        x_BTC: Tensor = self.norm(words_BTC + self.types.weight[0].to(wide(self.dtype)))
        return x_BTC

    def pool(self, hidden_BTC: Tensor, ids_BT: Tensor) -> Tensor:
        """The mean over all tokens, (B, C), [CLS] and [SEP] included."""
        keep_BT1 = (ids_BT != NUCLEOTIDE_PAD)[..., None]
        return (hidden_BTC * keep_BT1).sum(1) / keep_BT1.sum(1)


@cache
def _on(slopes: tuple[float, ...], dtype: torch.dtype, device: torch.device) -> Tensor:
    """Slopes on a device; kept there, since sending them makes the host wait."""
    return torch.tensor(slopes, dtype=dtype, device=device)
