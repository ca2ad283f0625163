"""The layers of both encoders as an x86 processor likes them, in fp32 or bf16: same formulas.

Weights of products lie in the blocks that oneDNN's kernels read, and nowhere else: the modules that
they come from are left without. A product adds its residual, multiplies or takes GELU while its
result is still in a core's registers. ESM-2's rotary pairs (d, d + D/2) are moved next to each
other, in the weights of q and k alike, which changes no score: turning all heads is then one pass
over complex numbers. Measured to be faster on one kind of processor, an AMD EPYC with AVX-512.

B sequences, T tokens, N = B * T, C width, F inner width, X width of a product, H heads, D width of
a head.
"""

import ctypes
import os
import platform
import sys
from functools import cache

import torch
from torch import Tensor, nn

from virnucpro.devices.machine import cpu_has_bf16
from virnucpro.encoders.attention import Mask, mask_of
from virnucpro.encoders.dnabert_s import DnabertS
from virnucpro.encoders.dnabert_s import Layer as DnabertSLayer
from virnucpro.encoders.esm2 import Esm2, check_length
from virnucpro.encoders.esm2 import Layer as Esm2Layer
from virnucpro.encoders.flat import Flat, layers_of, mixed, take_weight

_LIBC = ctypes.CDLL(None) if sys.platform == "linux" else None
# By itself glibc keeps what is freed between what is not: at worst as much again as the weights.
_TRIM = getattr(_LIBC, "malloc_trim", None)
# And what a layer frees goes back to the system, for the next layer to have it cleared, page by
# page, again: a twentieth of the time. So it keeps this much, and pieces up to 32 MiB, its most,
# but where the user has said otherwise in the environment.
_OPTION = getattr(_LIBC, "mallopt", None)
_KEPT = {"MALLOC_MMAP_THRESHOLD_": (-3, 32 << 20), "MALLOC_TRIM_THRESHOLD_": (-1, 128 << 20)}


def can_pack(device: torch.device, dtype: torch.dtype) -> bool:
    """Return True for an x86 processor, a torch with oneDNN, and a dtype in hardware."""
    return (
        device.type == "cpu"
        and platform.machine() in ("x86_64", "AMD64")
        and torch.backends.mkldnn.is_available()  # type: ignore[no-untyped-call]
        and (dtype == torch.float32 or (dtype == torch.bfloat16 and cpu_has_bf16()))
    )


class Product:
    """A linear layer, its weight packed. All take rows (N, C) and give rows (N, X)."""

    def __init__(self, weight: Tensor, bias: Tensor | None) -> None:
        self.weight = torch.ops.mkldnn._reorder_linear_weight(weight, None)
        self.bias = bias

    @classmethod
    def of(cls, linear: nn.Linear) -> "Product":
        """Takes the weight away from the layer."""
        product = cls(linear.weight, linear.bias)
        _empty(linear)
        return product

    def __call__(self, x_NC: Tensor) -> Tensor:
        return self._fused(x_NC, "none")

    def gelu(self, x_NC: Tensor) -> Tensor:
        """GELU of it, exact."""
        return self._fused(x_NC, "gelu")

    def add(self, x_NC: Tensor, more_NX: Tensor) -> Tensor:
        """It and more, which may be wider: then it is changed."""
        if more_NX.dtype != x_NC.dtype:
            return more_NX.add_(self(x_NC))
        return self._with(x_NC, more_NX, "add")

    def times(self, x_NC: Tensor, factor_NX: Tensor) -> Tensor:
        """It, each number times another."""
        return self._with(x_NC, factor_NX, "mul")

    def _fused(self, x_NC: Tensor, then: str) -> Tensor:
        made: Tensor = torch.ops.mkldnn._linear_pointwise(
            x_NC, self.weight, self.bias, then, [], "none"
        )
        return made

    def _with(self, x_NC: Tensor, other_NX: Tensor, then: str) -> Tensor:
        made: Tensor = torch.ops.mkldnn._linear_pointwise.binary(
            x_NC, other_NX, self.weight, self.bias, then
        )
        return made


class _Esm2Layer:
    """A layer of Esm2."""

    def __init__(self, block: Esm2Layer) -> None:
        self.heads = block.heads
        self.attention_norm, self.ffn_norm = block.attention_norm, block.ffn_norm
        self.qkv = _paired(block.qkv, block.heads)
        self.out, self.up, self.down = (
            Product.of(linear) for linear in (block.out, block.up, block.down)
        )

    def __call__(
        self, x_NC: Tensor, turn_TC: Tensor, mask: Mask, backend: str, dtype: torch.dtype
    ) -> Tensor:
        # In fp32 whatever the dtype: most processors attend faster so, and all alike.
        qkv_NX = self.qkv(self.attention_norm(x_NC).to(dtype)).float()
        _turn_(qkv_NX, turn_TC)
        x_NC = self.out.add(mixed(qkv_NX, self.heads, mask, backend).to(dtype), x_NC)
        up_NF = self.up.gelu(self.ffn_norm(x_NC).to(dtype))
        return self.down.add(up_NF, x_NC)


class PackedEsm2(nn.Module, Flat[Esm2]):
    """Esm2 of packed products; hidden states as Esm2 gives them. Takes the weights of model."""

    def __init__(self, model: Esm2) -> None:
        super().__init__()
        self.model = model
        self.layers = [_Esm2Layer(block) for block in layers_of(model.layers, Esm2Layer)]

    def forward(self, ids_BT: Tensor, *, backend: str, padded: bool | None = None) -> Tensor:
        """Raises ValueError for more than 1024 residues."""
        _keep_freed()
        tokens = ids_BT.shape[1]
        check_length(tokens)
        keep_BT = ids_BT != self.pad
        x_NC = self.model.embed(ids_BT, keep_BT).flatten(0, 1)
        cos_TD, sin_TD = self.model.rotary(tokens, torch.float32)
        heads = self.model.config.heads
        turn_TP = torch.complex(cos_TD, sin_TD)[:, : cos_TD.shape[1] // 2]
        turn_TC = turn_TP.repeat(1, 2 * heads)
        mask = mask_of(keep_BT, None, padded)
        for layer in self.layers:
            x_NC = layer(x_NC, turn_TC, mask, backend, self.dtype)
        return _hidden(self.model.norm(x_NC), keep_BT, mask)


class _DnabertSLayer:
    """A layer of DnabertS; its gated product is two, the second times the first."""

    def __init__(self, block: DnabertSLayer) -> None:
        self.heads = block.heads
        self.attention_norm, self.ffn_norm = block.attention_norm, block.ffn_norm
        gate_FC, value_FC = block.gate.weight.chunk(2)
        self.gate, self.value = Product(gate_FC, None), Product(value_FC, None)
        _empty(block.gate)
        self.qkv, self.out, self.down = (
            Product.of(linear) for linear in (block.qkv, block.out, block.down)
        )

    def __call__(self, x_NC: Tensor, mask: Mask, backend: str, dtype: torch.dtype) -> Tensor:
        qkv_NX = self.qkv(x_NC.to(dtype))
        mixed_NC = mixed(qkv_NX, self.heads, mask, backend)
        x_NC = self.attention_norm(self.out.add(mixed_NC, x_NC))
        h_NC = x_NC.to(dtype)
        inner_NF = self.value.times(h_NC, self.gate.gelu(h_NC))
        normed: Tensor = self.ffn_norm(self.down.add(inner_NF, x_NC))
        return normed


class PackedDnabertS(nn.Module, Flat[DnabertS]):
    """DnabertS of packed products; hidden states as DnabertS gives them. Takes its weights."""

    def __init__(self, model: DnabertS) -> None:
        super().__init__()
        self.model = model
        self.layers = [_DnabertSLayer(block) for block in layers_of(model.layers, DnabertSLayer)]

    def forward(self, ids_BT: Tensor, *, backend: str, padded: bool | None = None) -> Tensor:
        _keep_freed()
        keep_BT = ids_BT != self.pad
        x_NC = self.model.embed(ids_BT).flatten(0, 1)
        mask = mask_of(keep_BT, self.model.slopes, padded)
        for layer in self.layers:
            x_NC = layer(x_NC, mask, backend, self.dtype)
        return _hidden(x_NC, keep_BT, mask)


def _paired(qkv: nn.Linear, heads: int) -> Product:
    """The product that gives q, k and v, with the numbers that rotary turns together side by side
    in each head of q and k. Takes the weight away from the layer."""
    for tensor in (qkv.weight.data, qkv.bias.data):
        for rows in tensor.chunk(3)[:2]:
            halves = rows.view(heads, 2, -1, *rows.shape[1:])
            rows.copy_(halves.transpose(1, 2).flatten(0, 2))
    return Product.of(qkv)


def _turn_(qkv_NX: Tensor, turn_TC: Tensor) -> None:
    """Turns the pairs of q and k, in fp32, where they lie."""
    tokens, width = turn_TC.shape
    qk_BTX = qkv_NX.view(-1, tokens, qkv_NX.shape[1])[..., : 2 * width]
    wide_BTX = qk_BTX.float()
    torch.view_as_complex(wide_BTX.view(*wide_BTX.shape[:2], width, 2)).mul_(turn_TC)
    if wide_BTX.dtype != qk_BTX.dtype:
        qk_BTX.copy_(wide_BTX)


def _hidden(x_NC: Tensor, keep_BT: Tensor, mask: Mask) -> Tensor:
    """Rows as (B, T, C), zero at pads."""
    hidden_BTC = x_NC.view(*keep_BT.shape, -1)
    if mask.keep is None:
        return hidden_BTC
    return hidden_BTC.masked_fill_(~keep_BT[..., None], 0)


def _empty(linear: nn.Linear) -> None:
    take_weight(linear)
    if _TRIM is not None:
        _TRIM(0)


@cache
def _keep_freed() -> None:
    """For the whole process: memory that was freed stays for the next batch, up to a bound.

    Not before the first batch: what loading frees is to go back.
    """
    for name, (option, value) in _KEPT.items():
        if _OPTION is not None and name not in os.environ:
            _OPTION(option, value)
