"""The one door to attention: softmax(q k^T / sqrt(D) + bias) v, by a kernel that the caller names.

A kernel that is named runs or raises; nothing is tried again with another one. What a mask means
(which tokens are seen, how distance counts) is kept beside its additive form, for kernels that take
the meaning instead of the numbers. This module knows no encoder.

B sequences, H heads, T tokens (q: queries, k: keys), D width of a head.
"""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from dataclasses import dataclass

import torch
from torch import Tensor
from torch.nn import functional as F

from virnucpro.encoders.precision import wide
from virnucpro.errors import SettingsError

# Where the names of kernels go as they run; a context of its own in every thread.
_SEEN: ContextVar[set[str] | None] = ContextVar("kernels seen", default=None)


@dataclass(frozen=True, slots=True)
class Mask:
    """Who attends to whom; made once a forward and used by every layer.

    keep: (B, T), False at pads, None when the batch has none. slopes: (H,), ALiBi's, or None.
    bias: both as one tensor to add to the scaled scores, in wide(dtype), broadcastable to
    (B, H, Tq, Tk); None when there is nothing to add. Both kernels here read bias alone; keep and
    slopes are for those that take no tensor of that size.
    """

    keep: Tensor | None
    slopes: Tensor | None
    bias: Tensor | None


def mask_of(keep_BT: Tensor, slopes_H: Tensor | None, dtype: torch.dtype) -> Mask:
    """The mask of a batch: pads are not seen, and heads with a slope lose slope * |i - j|."""
    padded = not bool(keep_BT.all())
    bias: Tensor | None = None
    if slopes_H is not None:
        place_T = torch.arange(keep_BT.shape[1], device=keep_BT.device, dtype=wide(dtype))
        distance_TT = (place_T[:, None] - place_T[None, :]).abs()
        bias = -slopes_H.to(wide(dtype))[None, :, None, None] * distance_TT
    if padded:
        none = torch.zeros((), dtype=wide(dtype), device=keep_BT.device)
        hidden_B11T = none.where(keep_BT, -torch.inf)[:, None, None, :]
        bias = hidden_B11T if bias is None else bias + hidden_B11T
    return Mask(keep_BT if padded else None, slopes_H, bias)


def alibi_slopes(heads: int) -> list[float]:
    """ALiBi's slope of each head (Press et al. 2022).

    For n heads, a power of two: 2^(-8/n), 2^(-16/n), ... For other n: those of the power of two
    below, then every other one of twice that power.
    """
    power = 1 << (heads.bit_length() - 1)
    slopes = [2.0 ** (-8 * place / power) for place in range(1, power + 1)]
    between = [2.0 ** (-4 * place / power) for place in range(1, 2 * power + 1, 2)]
    return slopes + between[: heads - power]


def _math(q_BHTD: Tensor, k_BHTD: Tensor, v_BHTD: Tensor, mask: Mask) -> Tensor:
    """Softmax written out; scores, bias and softmax in wide precision."""
    q_BHTD, k_BHTD = q_BHTD.to(wide(q_BHTD.dtype)), k_BHTD.to(wide(k_BHTD.dtype))
    scores_BHTT = (q_BHTD * q_BHTD.shape[-1] ** -0.5) @ k_BHTD.transpose(-1, -2)
    if mask.bias is not None:
        scores_BHTT = scores_BHTT + mask.bias
    mixed_BHTD: Tensor = scores_BHTT.softmax(-1).to(v_BHTD.dtype) @ v_BHTD
    return mixed_BHTD


def _sdpa(q_BHTD: Tensor, k_BHTD: Tensor, v_BHTD: Tensor, mask: Mask) -> Tensor:
    """Whichever kernel torch's scaled_dot_product_attention picks for this input."""
    return F.scaled_dot_product_attention(q_BHTD, k_BHTD, v_BHTD, attn_mask=mask.bias)


Kernel = Callable[[Tensor, Tensor, Tensor, Mask], Tensor]
KERNELS: dict[str, Kernel] = {"math": _math, "sdpa": _sdpa}


def kernel_named(backend: str) -> Kernel:
    """The kernel of that name; SettingsError for a name that is none."""
    if backend not in KERNELS:
        raise SettingsError(
            f"attention kernel {backend!r} is not known; choose {', '.join(KERNELS)}"
        )
    return KERNELS[backend]


def attention(
    q_BHTD: Tensor, k_BHTD: Tensor, v_BHTD: Tensor, mask: Mask, *, backend: str
) -> Tensor:
    """Attention of each head, (B, H, Tq, D), in the dtype of v.

    Raises SettingsError for an unknown backend.
    """
    mixed_BHTD = kernel_named(backend)(q_BHTD, k_BHTD, v_BHTD, mask)
    seen = _SEEN.get()
    if seen is not None:
        seen.add(backend)
    return mixed_BHTD


@contextmanager
def observing(seen: set[str]) -> Iterator[None]:
    """Adds to seen the name of every kernel that this thread runs within, once it has run."""
    before = _SEEN.set(seen)
    try:
        yield
    finally:
        _SEEN.reset(before)
