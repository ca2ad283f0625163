"""ESM-2 (Lin et al. 2023), the protein encoder: any of its sizes, from its published layouts.

Pre-LayerNorm blocks with rotary positions on the whole width of a head. The language model head is
not built. This module reads no file itself and knows no batching.

B proteins, T tokens (<cls>, residues, <eos>, pads), C width, H heads, D width of a head.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from virnucpro.encoders.attention import Mask, attention, mask_of
from virnucpro.encoders.precision import WideLayerNorm, wide
from virnucpro.encoders.weights.load import field_of
from virnucpro.errors import BundleError, VirnucproError
from virnucpro.tokens import (
    PROTEIN_ALPHABET,
    PROTEIN_CLS,
    PROTEIN_EOS,
    PROTEIN_MASK,
    PROTEIN_PAD,
)

MAX_RESIDUES = 1024
# Training masked 15 % of the tokens and blanked 80 % of those; embeddings keep that scale.
TOKEN_DROPOUT_KEPT = 1 - 0.15 * 0.8


@dataclass(frozen=True, slots=True, kw_only=True)
class Esm2Config:
    """The sizes of an ESM-2; ffn is the inner width of a block's feed-forward part."""

    layers: int
    width: int
    heads: int
    ffn: int
    token_dropout: bool = True
    eps: float = 1e-5

    def __post_init__(self) -> None:
        if self.width % (2 * self.heads):
            raise BundleError(
                f"an ESM-2 of width {self.width} cannot have {self.heads} heads of even width"
            )


def esm2_config(published: Mapping[str, Any]) -> Esm2Config:
    """The sizes in a published config: fair-esm's own three fields, or Hugging Face's.

    Raises BundleError for a field that is missing or an architecture that is not ESM-2.
    """
    if "embed_dim" in published:
        width = field_of(published, "embed_dim", int)
        return Esm2Config(
            layers=field_of(published, "num_layers", int),
            width=width,
            heads=field_of(published, "attention_heads", int),
            ffn=4 * width,
            token_dropout=bool(published.get("token_dropout", True)),
        )
    if published.get("position_embedding_type") != "rotary" or published.get(
        "emb_layer_norm_before"
    ):
        raise BundleError("the config is not that of an ESM-2 (rotary, no LayerNorm at its start)")
    return Esm2Config(
        layers=field_of(published, "num_hidden_layers", int),
        width=field_of(published, "hidden_size", int),
        heads=field_of(published, "num_attention_heads", int),
        ffn=field_of(published, "intermediate_size", int),
        token_dropout=field_of(published, "token_dropout", bool),
        eps=field_of(published, "layer_norm_eps", float),
    )


class Rotary(nn.Module):
    """Rotary positions: angle of position t and pair d is t * inv_freq[d], position 0 at <cls>.

    inv_freq comes from the weights where they hold it: the published values are rounded to fp16,
    and recomputed ones shift the phase by 0.027 rad at position 168. It stays fp32 through every
    cast.
    """

    inv_freq: Tensor

    def __init__(self, head_width: int) -> None:
        super().__init__()
        pair = torch.arange(0, head_width, 2, dtype=torch.float32, device="cpu")
        self.register_buffer("inv_freq", 10000 ** (-pair / head_width))

    def _apply(self, fn: Callable[[Tensor], Tensor], recurse: bool = True) -> "Rotary":
        kept = self.inv_freq
        super()._apply(fn, recurse)  # type: ignore[no-untyped-call]
        self.inv_freq = kept.to(self.inv_freq.device)
        return self

    def forward(self, tokens: int, dtype: torch.dtype) -> tuple[Tensor, Tensor]:
        """Cosines and sines, each (T, D), in wide(dtype)."""
        place_T = torch.arange(tokens, device=self.inv_freq.device, dtype=wide(dtype))
        angle_TD = torch.outer(place_T, self.inv_freq.to(wide(dtype))).repeat(1, 2)
        return angle_TD.cos(), angle_TD.sin()


def rotate(x_BHTD: Tensor, cos_TD: Tensor, sin_TD: Tensor) -> Tensor:
    """Turns each pair (d, d + D/2) by its angle; computed wide, returned in the dtype of x."""
    first, second = x_BHTD.chunk(2, dim=-1)
    turned_BHTD = torch.cat((-second, first), dim=-1)
    return (x_BHTD * cos_TD + turned_BHTD * sin_TD).to(x_BHTD.dtype)


class Layer(nn.Module):
    """x + attention(LN(x)), then x + ffn(LN(x)); the stream x is wide, the products are not."""

    def __init__(self, config: Esm2Config) -> None:
        super().__init__()
        self.heads = config.heads
        self.attention_norm = WideLayerNorm(config.width, eps=config.eps)
        self.qkv = nn.Linear(config.width, 3 * config.width)
        self.out = nn.Linear(config.width, config.width)
        self.ffn_norm = WideLayerNorm(config.width, eps=config.eps)
        self.up = nn.Linear(config.width, config.ffn)
        self.down = nn.Linear(config.ffn, config.width)

    def forward(
        self, x_BTC: Tensor, turn: tuple[Tensor, Tensor], mask: Mask, backend: str
    ) -> Tensor:
        x_BTC = x_BTC + self._attend(self.attention_norm(x_BTC), turn, mask, backend)
        h_BTC = self.ffn_norm(x_BTC).to(self.up.weight.dtype)
        down_BTC: Tensor = self.down(F.gelu(self.up(h_BTC), approximate="none"))
        return x_BTC + down_BTC

    def _attend(
        self, h_BTC: Tensor, turn: tuple[Tensor, Tensor], mask: Mask, backend: str
    ) -> Tensor:
        qkv_BTC = self.qkv(h_BTC.to(self.qkv.weight.dtype))
        q, k, v = qkv_BTC.unflatten(-1, (3, self.heads, -1)).permute(2, 0, 3, 1, 4)
        mixed_BHTD = attention(rotate(q, *turn), rotate(k, *turn), v, mask, backend=backend)
        out: Tensor = self.out(mixed_BHTD.transpose(1, 2).flatten(2))
        return out


class Esm2(nn.Module):
    """The encoder: ids (B, T) -> hidden states (B, T, C) after the final LayerNorm, zero at pads.

    Hidden states are fp32 (fp64 from a model in fp64); the weights' dtype is that of the products.
    """

    pad = PROTEIN_PAD
    biased = False

    def __init__(self, config: Esm2Config) -> None:
        super().__init__()
        self.config = config
        self.embedding = nn.Embedding(len(PROTEIN_ALPHABET), config.width)
        self.rotary = Rotary(config.width // config.heads)
        self.layers = nn.ModuleList(Layer(config) for _ in range(config.layers))
        self.norm = WideLayerNorm(config.width, eps=config.eps)

    @property
    def width(self) -> int:
        return self.config.width

    @property
    def dtype(self) -> torch.dtype:
        """Dtype of the products."""
        return self.embedding.weight.dtype

    @property
    def token_bytes(self) -> int:
        """About the memory that a layer needs at once for each token of a batch."""
        config = self.config
        half = self.dtype.itemsize * (5 * config.width + 2 * config.ffn)
        return 4 * wide(self.dtype).itemsize * config.width + half

    def forward(
        self, ids_BT: Tensor, *, backend: str = "auto", padded: bool | None = None
    ) -> Tensor:
        """backend: see attention. padded: whether there are pads; None looks, and waits for that.

        Raises ValueError for more than 1024 residues.
        """
        check_length(ids_BT.shape[1])
        keep_BT = ids_BT != PROTEIN_PAD
        x_BTC = self.embed(ids_BT, keep_BT)
        turn = self.rotary(ids_BT.shape[1], self.dtype)
        mask = mask_of(keep_BT, None, padded)
        for layer in self.layers:
            x_BTC = layer(x_BTC, turn, mask, backend)
        hidden_BTC: Tensor = self.norm(x_BTC)
        return hidden_BTC.masked_fill(~keep_BT[..., None], 0)

    def embed(self, ids_BT: Tensor, keep_BT: Tensor) -> Tensor:
        """Return the input of the first layer, (B, T, C), wide."""
        x_BTC: Tensor = self.embedding(ids_BT)
        x_BTC = x_BTC.to(wide(x_BTC.dtype))
        if not self.config.token_dropout:
            return x_BTC
        blank_BT = ids_BT == PROTEIN_MASK
        blanks_B = blank_BT.sum(1, dtype=x_BTC.dtype) / keep_BT.sum(1)
        x_BTC = x_BTC.masked_fill(blank_BT[..., None], 0)
        return x_BTC * (TOKEN_DROPOUT_KEPT / (1 - blanks_B))[:, None, None]

    def pool(self, hidden_BTC: Tensor, ids_BT: Tensor) -> Tensor:
        """The mean over the residues alone, (B, C): neither <cls> nor <eos>."""
        residue_BT = (ids_BT != PROTEIN_CLS) & (ids_BT != PROTEIN_PAD) & (ids_BT != PROTEIN_EOS)
        residue_BT1 = residue_BT[..., None]
        return (hidden_BTC * residue_BT1).sum(1) / residue_BT1.sum(1)


def check_chunk(chunk_nt: int, refusal: type[VirnucproError]) -> None:
    """Raise a refusal for a chunk whose frames are no codon or too long for ESM-2."""
    if not 3 <= chunk_nt <= 3 * MAX_RESIDUES:
        raise refusal(
            f"chunks of {chunk_nt} nt cannot be used; ESM-2 takes 3 to {3 * MAX_RESIDUES}"
        )


def check_length(tokens: int) -> None:
    """ValueError for more tokens than <cls>, 1024 residues and <eos>."""
    if tokens > MAX_RESIDUES + 2:
        raise ValueError(
            f"ESM-2 takes at most {MAX_RESIDUES} residues, this protein has {tokens - 2}; "
            "cut it into shorter ones."
        )
