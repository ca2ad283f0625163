"""The layers of both encoders as a GPU likes them, in 16 bit or fp8: same formulas, fewer passes.

Tokens of all sequences lie in one matrix, N = B * T rows, because only attention looks across them.
In ESM-2 a residual is added by the matrix product that makes it, in float32, so the biases of such
products are left out of the stream: what is missing is a constant row, `shift`, which the next
LayerNorm adds. In DNABERT-S, whose every sum is normed, LayerNorm adds the residual: there that
moves fewer bytes. In fp8 the products of a layer take rows and weights of 8 bits, each row with its
own scale; attention and the stream of residuals keep their precision.

B sequences, T tokens, N = B * T, C width, F inner width, H heads, D width of a head.
"""

from collections.abc import Collection, Iterator
from dataclasses import dataclass
from typing import Self

import torch
from torch import Tensor
from torch.nn import functional as F

from virnucpro.encoders.attention import TURNING, Mask, kernel_for, mask_of
from virnucpro.encoders.dnabert_s import DnabertS
from virnucpro.encoders.dnabert_s import Layer as DnabertSLayer
from virnucpro.encoders.esm2 import Esm2, check_length
from virnucpro.encoders.esm2 import Layer as Esm2Layer
from virnucpro.encoders.flat import Flat, heads_of, layers_of, mixed, take_weight
from virnucpro.encoders.kernels.rows import (
    FP8,
    Rows,
    activate,
    add_product_,
    eight_bit_product,
    eight_bit_weight,
    gated_product,
    norm,
    rotate_,
)
from virnucpro.encoders.precision import WideLayerNorm


@dataclass(frozen=True, slots=True)
class _Norm:
    """A LayerNorm, and what its input lacks."""

    weight: Tensor
    bias: Tensor
    eps: float
    shift: Tensor | None

    @classmethod
    def of(cls, module: WideLayerNorm, shift: Tensor | None) -> Self:
        return cls(module.weight, module.bias, module.eps, shift)

    def __call__(
        self, x_NC: Tensor, dtype: torch.dtype, delta_NC: Tensor | None = None, keep: bool = False
    ) -> Rows:
        return norm(
            x_NC,
            self.weight,
            self.bias,
            self.eps,
            dtype,
            shift_C=self.shift,
            delta_NC=delta_NC,
            keep=keep,
        )


@dataclass(frozen=True, slots=True)
class _Esm2Layer:
    """A layer of Esm2; eight: its four weights in fp8 with their scales, where it runs in fp8."""

    block: Esm2Layer
    attention_norm: _Norm
    ffn_norm: _Norm
    eight: dict[str, tuple[Tensor, Tensor]] | None


class FusedEsm2(Flat[Esm2]):
    """Esm2 in 16 bit, with the products of layers eight_bit in fp8; hidden states as Esm2's."""

    def __init__(self, model: Esm2, eight_bit: Collection[int] = ()) -> None:
        self.model = model
        self.layers: list[_Esm2Layer] = []
        shift_C = torch.zeros(model.width, device=model.norm.weight.device)
        for place, block in enumerate(layers_of(model.layers, Esm2Layer)):
            first = _Norm.of(block.attention_norm, shift_C)
            shift_C = shift_C + block.out.bias.float()
            second = _Norm.of(block.ffn_norm, shift_C)
            shift_C = shift_C + block.down.bias.float()
            eight = _eight(block) if place in eight_bit else None
            self.layers.append(_Esm2Layer(block, first, second, eight))
        self.norm = _Norm.of(model.norm, shift_C)

    def __call__(self, ids_BT: Tensor, *, backend: str, padded: bool | None = None) -> Tensor:
        """Raises ValueError for more than 1024 residues."""
        check_length(ids_BT.shape[1])
        keep_BT = ids_BT != self.pad
        x_NC = self.model.embed(ids_BT, keep_BT).flatten(0, 1).contiguous()
        cos_TD, sin_TD = self.model.rotary(ids_BT.shape[1], torch.float32)
        half = cos_TD.shape[1] // 2
        turn = cos_TD[:, :half].contiguous(), sin_TD[:, :half].contiguous()
        mask = mask_of(keep_BT, None, padded, turn)
        delta_NC: Tensor | None = None
        for layer in self.layers:
            run = _esm2_layer if layer.eight is None else _esm2_layer_in_fp8
            delta_NC = run(layer, x_NC, delta_NC, mask, backend)
        hidden_NC, _ = self.norm(x_NC, torch.float32, delta_NC)
        return hidden_NC.view(*ids_BT.shape, -1).masked_fill(~keep_BT[..., None], 0)

    def eight_bit_weights(self) -> Iterator[Tensor]:
        """Weights in fp8 and their scales; empty in 16 bit."""
        for layer in self.layers:
            for weight, scale in (layer.eight or {}).values():
                yield weight
                yield scale


def _esm2_layer(
    layer: _Esm2Layer,
    x_NC: Tensor,
    delta_NC: Tensor | None,
    mask: Mask,
    backend: str,
) -> None:
    """A layer in 16 bit: changes x, and leaves nothing for the next LayerNorm to add."""
    block = layer.block
    dtype = block.up.weight.dtype
    h_NC, _ = layer.attention_norm(x_NC, dtype, delta_NC)
    qkv_NX = F.linear(h_NC, block.qkv.weight, block.qkv.bias)
    add_product_(x_NC, _mixed(qkv_NX, block.heads, mask, backend), block.out.weight)
    up_NF = F.linear(layer.ffn_norm(x_NC, dtype)[0], block.up.weight, block.up.bias)
    add_product_(x_NC, activate(up_NF, dtype)[0], block.down.weight)


def _esm2_layer_in_fp8(
    layer: _Esm2Layer,
    x_NC: Tensor,
    delta_NC: Tensor | None,
    mask: Mask,
    backend: str,
) -> Tensor:
    """A layer in fp8: such products give 16 bit, which the next LayerNorm adds to x."""
    block, eight = layer.block, layer.eight
    assert eight is not None
    dtype = block.up.bias.dtype
    rows = layer.attention_norm(x_NC, FP8, delta_NC)
    qkv_NX = eight_bit_product(rows, eight["qkv"], block.qkv.bias, dtype)
    mixed_NC = _mixed(qkv_NX, block.heads, mask, backend)
    out_NC = eight_bit_product(activate(mixed_NC, FP8, gelu=False), eight["out"], None, dtype)
    rows = layer.ffn_norm(x_NC, FP8, out_NC)
    up_NF = eight_bit_product(rows, eight["up"], block.up.bias, dtype)
    return eight_bit_product(activate(up_NF, FP8), eight["down"], None, dtype)


class FusedDnabertS(Flat[DnabertS]):
    """DnabertS in 16 bit; hidden states as DnabertS gives them."""

    def __init__(self, model: DnabertS) -> None:
        self.model = model
        self.layers = [
            (
                block,
                _Norm.of(block.attention_norm, None),
                _Norm.of(block.ffn_norm, None),
            )
            for block in layers_of(model.layers, DnabertSLayer)
        ]

    def __call__(self, ids_BT: Tensor, *, backend: str, padded: bool | None = None) -> Tensor:
        keep_BT = ids_BT != self.pad
        x_NC = self.model.embed(ids_BT).flatten(0, 1)
        h_NC = x_NC.to(self.dtype)
        mask = mask_of(keep_BT, self.model.slopes, padded)
        for block, attention_norm, ffn_norm in self.layers:
            qkv_NX = F.linear(h_NC, block.qkv.weight, block.qkv.bias)
            mixed_NC = mixed(qkv_NX, block.heads, mask, backend)
            out_NC = F.linear(mixed_NC, block.out.weight, block.out.bias)
            h_NC, _ = attention_norm(x_NC, self.dtype, out_NC, keep=True)
            inner_NF = gated_product(h_NC, block.gate.weight)
            down_NC = F.linear(inner_NF, block.down.weight, block.down.bias)
            h_NC, _ = ffn_norm(x_NC, self.dtype, down_NC, keep=True)
        return x_NC.view(*ids_BT.shape, -1).masked_fill(~keep_BT[..., None], 0)


def _mixed(qkv_NX: Tensor, heads: int, mask: Mask, backend: str) -> Tensor:
    """Do as mixed; turn q and k, where they lie, for a kernel that does not."""
    if mask.turn is not None:
        q_BHTD, _, _ = heads_of(qkv_NX, heads, mask.tokens)
        if kernel_for(backend, q_BHTD, mask) not in TURNING:
            rotate_(qkv_NX, 2 * qkv_NX.shape[1] // 3, *mask.turn)
            mask = mask.turned
    return mixed(qkv_NX, heads, mask, backend)


def _eight(block: Esm2Layer) -> dict[str, tuple[Tensor, Tensor]]:
    """The four weights of a layer in fp8, which replace the weights in 16 bit."""
    products = {"qkv": block.qkv, "out": block.out, "up": block.up, "down": block.down}
    found = {}
    for name, linear in products.items():
        found[name] = eight_bit_weight(linear.weight)
        take_weight(linear)
    return found
