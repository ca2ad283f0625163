"""Parts that the layers of fused.py and packed.py share: tokens of all sequences lie in one matrix.

They take the weights of a module, and answer for it in all but the layers themselves.

B sequences, T tokens, N = B * T, C width, H heads, D width of a head.
"""

from collections.abc import Iterable, Iterator
from typing import Generic, TypeVar

import torch
from torch import Tensor, nn

from virnucpro.encoders.attention import Mask, attention
from virnucpro.encoders.dnabert_s import DnabertS
from virnucpro.encoders.dnabert_s import Layer as DnabertSLayer
from virnucpro.encoders.esm2 import Esm2
from virnucpro.encoders.esm2 import Layer as Esm2Layer

M = TypeVar("M", Esm2, DnabertS)
Layer = TypeVar("Layer", Esm2Layer, DnabertSLayer)


class Flat(Generic[M]):
    """A model by other layers than its module's own."""

    model: M

    @property
    def pad(self) -> int:
        return self.model.pad

    @property
    def biased(self) -> bool:
        return self.model.biased

    @property
    def width(self) -> int:
        return self.model.width

    @property
    def dtype(self) -> torch.dtype:
        return self.model.dtype

    @property
    def token_bytes(self) -> int:
        return self.model.token_bytes

    def pool(self, hidden_BTC: Tensor, ids_BT: Tensor) -> Tensor:
        """Pool as the module's own method does."""
        return self.model.pool(hidden_BTC, ids_BT)


def heads_of(qkv_NX: Tensor, heads: int, tokens: int) -> tuple[Tensor, Tensor, Tensor]:
    """Queries, keys and values, each (B, H, T, D), of rows that hold all heads."""
    qkv_BT3HD = qkv_NX.view(-1, tokens, 3, heads, qkv_NX.shape[1] // (3 * heads))
    q, k, v = qkv_BT3HD.permute(2, 0, 3, 1, 4)
    return q, k, v


def mixed(qkv_NX: Tensor, heads: int, mask: Mask, backend: str) -> Tensor:
    """Attention of rows that hold q, k and v of all heads, (N, C)."""
    found = attention(*heads_of(qkv_NX, heads, mask.tokens), mask, backend=backend)
    return found.transpose(1, 2).flatten(0, 1).flatten(1)


def layers_of(layers: Iterable[nn.Module], kind: type[Layer]) -> Iterator[Layer]:
    """The same, as what they are."""
    for layer in layers:
        assert isinstance(layer, kind)
        yield layer


def take_weight(linear: nn.Linear) -> None:
    """Leaves a layer without its weight, which lies elsewhere in another form."""
    linear.weight = nn.Parameter(linear.weight.new_empty(0), requires_grad=False)
