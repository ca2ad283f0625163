"""The one door to attention, and so one file: softmax(q k^T / sqrt(D) + bias) v.

The caller names the kernel. A kernel that is named runs or raises; nothing is tried again with
another one. Only `auto` chooses, by what is in its hands and never by trying. What a mask means
(which tokens are seen, how distance counts) is kept, and turned into what a kernel takes when that
one asks. Which kernel ran is read off the operations that torch dispatched, not off the name that
was asked for. This module knows no encoder.

B sequences, H heads, T tokens (q: queries, k: keys), D width of a head.
"""

from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from contextvars import ContextVar
from dataclasses import dataclass, replace
from functools import cached_property
from importlib.util import find_spec
from typing import Any

import torch
from torch import Tensor
from torch.nn import functional as F
from torch.nn.attention import SDPBackend, sdpa_kernel
from torch.utils._python_dispatch import TorchDispatchMode

from virnucpro.encoders.precision import wide
from virnucpro.errors import SettingsError

HALF = (torch.bfloat16, torch.float16)
FLASH_CAPABILITY = (8, 0)

# The operation that a kernel is dispatched as, and the name that a user knows it by.
NAMES = {
    "_scaled_dot_product_flash_attention": "FlashAttention-2",
    "_flash_attention_forward": "FlashAttention-2",
    "_scaled_dot_product_cudnn_attention": "cuDNN flash",
    "_scaled_dot_product_efficient_attention": "memory-efficient",
    "_scaled_dot_product_flash_attention_for_cpu": "PyTorch CPU flash",
    "flash_attention": "Triton flash",
    "baddbmm": "batched products",
}
WITH_BIAS = {"memory-efficient", "cuDNN flash", "Triton flash"}
SOFTMAX = {"softmax", "_softmax", "_safe_softmax", "_scaled_dot_product_attention_math"}

# What ran, by what was asked for; a context of its own in every thread.
_SEEN: ContextVar[dict[Any, str] | None] = ContextVar("kernels seen", default=None)
# Who is told of the tokens of each layer.
_TOLD: ContextVar[Callable[[int], None] | None] = ContextVar("layers", default=None)


@dataclass(frozen=True, eq=False)
class Mask:
    """The record of which token attends to which; made once a forward and used by every layer.

    keep: (B, T), False at pads, which stand behind a sequence; None when the batch has none.
    slopes: (H,), ALiBi's, or None. tokens: T. turn: cosines and sines, float32 (T, D/2), of rotary
    positions that q and k are given without, for a kernel of TURNING; else None.
    """

    keep: Tensor | None
    slopes: Tensor | None
    tokens: int
    turn: tuple[Tensor, Tensor] | None = None

    @cached_property
    def turned(self) -> "Mask":
        """The same for queries and keys that have their positions."""
        return replace(self, turn=None)

    @cached_property
    def lengths(self) -> Tensor | None:
        """Tokens of each sequence, int32 (B,); None when all have T."""
        return None if self.keep is None else self.keep.sum(1, dtype=torch.int32)

    @cached_property
    def _biases(self) -> dict[torch.dtype, Tensor]:
        return {}

    def bias(self, dtype: torch.dtype) -> Tensor | None:
        """Return what is added to the scaled scores, broadcastable to (B, H, Tq, Tk), in dtype.

        None when there is nothing to add. Distances are computed in wide(dtype). On a GPU rows are
        aligned as fused kernels want them, who would otherwise copy it in every layer.
        """
        if self.keep is None and self.slopes is None:
            return None
        if dtype not in self._biases:
            self._biases[dtype] = self._bias(dtype)
        return self._biases[dtype]

    def _bias(self, dtype: torch.dtype) -> Tensor:
        distance: Tensor | None = None
        if self.slopes is not None:
            place_T = torch.arange(self.tokens, device=self.slopes.device, dtype=wide(dtype))
            distance_TT = (place_T[:, None] - place_T[None, :]).abs()
            distance = (-self.slopes.to(wide(dtype))[None, :, None, None] * distance_TT).to(dtype)
        if self.keep is None:
            assert distance is not None
            return _aligned(distance)
        none = torch.zeros((), dtype=dtype, device=self.keep.device)
        hidden_B11T = none.where(self.keep, -torch.inf)[:, None, None, :]
        return _aligned(hidden_B11T, distance)

    @cached_property
    def ends(self) -> Tensor:
        """The ends of the segments of the B * T tokens in a row, int32 (2B + 1,), from 0 on.

        A sequence is one, and the pads behind it are another: what they attend to is never read.
        """
        assert self.keep is not None
        begin_B = torch.arange(len(self.keep), device=self.keep.device) * self.tokens
        stop_B = begin_B + self.keep.sum(1)
        ends_2B = torch.stack((stop_B, begin_B + self.tokens), 1).flatten()
        return F.pad(ends_2B, (1, 0)).to(torch.int32)


def mask_of(
    keep_BT: Tensor,
    slopes_H: Tensor | None,
    padded: bool | None = None,
    turn: tuple[Tensor, Tensor] | None = None,
) -> Mask:
    """The mask of a batch: pads are not seen, and heads with a slope lose slope * |i - j|.

    padded: whether there are pads at all; None asks the device, which waits for it. turn: see Mask.
    """
    padded = not bool(keep_BT.all()) if padded is None else padded
    return Mask(keep_BT if padded else None, slopes_H, keep_BT.shape[1], turn)


def _aligned(bias: Tensor, more: Tensor | None = None) -> Tensor:
    """bias + more, for a GPU in rows of a length that is a multiple of 8."""
    if not bias.is_cuda:
        return bias if more is None else more + bias
    tokens = bias.shape[-1]
    shape = bias.shape if more is None else (len(bias), *more.shape[1:])
    room = bias.new_empty(*shape[:-1], tokens + -tokens % 8)[..., :tokens]
    return room.copy_(bias) if more is None else torch.add(bias, more, out=room)


def alibi_slopes(heads: int) -> list[float]:
    """ALiBi's slope of each head (Press et al. 2022).

    For n heads, a power of two: 2^(-8/n), 2^(-16/n), ... For other n: the slopes for the power of
    two below, then every other one of twice that power.
    """
    power = 1 << (heads.bit_length() - 1)
    slopes = [2.0 ** (-8 * place / power) for place in range(1, power + 1)]
    between = [2.0 ** (-4 * place / power) for place in range(1, 2 * power + 1, 2)]
    return slopes + between[: heads - power]


def _math(
    q_BHTD: Tensor, k_BHTD: Tensor, v_BHTD: Tensor, mask: Mask, scale: float | None
) -> Tensor:
    """Softmax written out; scores, bias and softmax in wide precision."""
    q_BHTD, k_BHTD = q_BHTD.to(wide(q_BHTD.dtype)), k_BHTD.to(wide(k_BHTD.dtype))
    scale = q_BHTD.shape[-1] ** -0.5 if scale is None else scale
    scores_BHTT = (q_BHTD * scale) @ k_BHTD.transpose(-1, -2)
    bias = mask.bias(wide(v_BHTD.dtype))
    if bias is not None:
        scores_BHTT = scores_BHTT + bias
    mixed_BHTD: Tensor = scores_BHTT.softmax(-1).to(v_BHTD.dtype) @ v_BHTD
    return mixed_BHTD


def _products(
    q_BHTD: Tensor, k_BHTD: Tensor, v_BHTD: Tensor, mask: Mask, scale: float | None
) -> Tensor:
    """Softmax between two batched products in the dtype of v: for short sequences without a bias.

    Scores are summed wide and rounded to that dtype before the softmax, which is computed wide.
    """
    assert mask.keep is None
    assert mask.slopes is None
    scale = q_BHTD.shape[-1] ** -0.5 if scale is None else scale
    q, k, v = (x_BHTD.flatten(0, 1) for x_BHTD in (q_BHTD, k_BHTD, v_BHTD))
    scores = torch.baddbmm(q.new_zeros(()), q, k.transpose(1, 2), beta=0, alpha=scale)
    return torch.bmm(scores.softmax(-1), v).view(q_BHTD.shape)


def _sdpa(
    q_BHTD: Tensor, k_BHTD: Tensor, v_BHTD: Tensor, mask: Mask, scale: float | None
) -> Tensor:
    """Whichever kernel torch's scaled_dot_product_attention picks for this input."""
    dtype = q_BHTD.dtype if q_BHTD.is_cuda else wide(q_BHTD.dtype)
    return F.scaled_dot_product_attention(
        q_BHTD, k_BHTD, v_BHTD, attn_mask=mask.bias(dtype), scale=scale
    )


def _only(backend: SDPBackend) -> "Kernel":
    def kernel(
        q_BHTD: Tensor, k_BHTD: Tensor, v_BHTD: Tensor, mask: Mask, scale: float | None
    ) -> Tensor:
        bias = mask.bias(q_BHTD.dtype)
        if bias is not None:
            bias = bias.expand(len(q_BHTD), q_BHTD.shape[1], mask.tokens, mask.tokens)
        with sdpa_kernel(backend):
            return F.scaled_dot_product_attention(
                q_BHTD, k_BHTD, v_BHTD, attn_mask=bias, scale=scale
            )

    return kernel


def _flash(
    q_BHTD: Tensor, k_BHTD: Tensor, v_BHTD: Tensor, mask: Mask, scale: float | None
) -> Tensor:
    """FlashAttention-2 takes no bias; a batch with pads goes in as sequences of many lengths."""
    if mask.keep is None:
        with sdpa_kernel(SDPBackend.FLASH_ATTENTION):
            return F.scaled_dot_product_attention(q_BHTD, k_BHTD, v_BHTD, scale=scale)
    batch, tokens = mask.keep.shape
    packed = (x_BHTD.transpose(1, 2).flatten(0, 1) for x_BHTD in (q_BHTD, k_BHTD, v_BHTD))
    # The operation beneath torch.nn.attention.varlen, which hides it from what observes.
    mixed_NHD: Tensor = torch.ops.aten._flash_attention_forward(
        *packed, mask.ends, mask.ends, tokens, tokens, 0.0, False, False, scale=scale
    )[0]
    return mixed_NHD.view(batch, tokens, *mixed_NHD.shape[1:]).transpose(1, 2)


def _triton(
    q_BHTD: Tensor, k_BHTD: Tensor, v_BHTD: Tensor, mask: Mask, scale: float | None
) -> Tensor:
    from virnucpro.encoders.kernels.triton_attention import flash_attention

    if (width := q_BHTD.shape[-1]) > TRITON_WIDTH:
        raise SettingsError(
            f"attention kernel triton takes heads of a width up to {TRITON_WIDTH}, these have "
            f"{width}; choose another, or auto"
        )
    if _trains(q_BHTD):
        raise SettingsError(
            "attention kernel triton has no gradients, so nothing is trained with it; choose "
            "another, or auto"
        )
    return flash_attention(
        q_BHTD,
        k_BHTD,
        v_BHTD,
        turn=mask.turn,
        lengths_B=mask.lengths,
        slopes_H=mask.slopes,
        scale=q_BHTD.shape[-1] ** -0.5 if scale is None else scale,
    )


# q, k, v, mask, and what to scale scores with where it is not D ** -0.5 of what is given.
Kernel = Callable[[Tensor, Tensor, Tensor, Mask, float | None], Tensor]
KERNELS: Mapping[str, Kernel] = {
    "triton": _triton,
    "flash": _flash,
    "cudnn": _only(SDPBackend.CUDNN_ATTENTION),
    "efficient": _only(SDPBackend.EFFICIENT_ATTENTION),
    "math": _math,
    "products": _products,
    "sdpa": _sdpa,
}
# Kernels that take heads whose width is a multiple of 8.
ALIGNED = ("flash", "cudnn", "efficient")
# The widest head that triton takes.
TRITON_WIDTH = 128
# The narrowest head for which plain products pay in short sequences.
SHORT_WIDTH = 64
# Kernels that give queries and keys their rotary positions themselves.
TURNING = ("triton",)
BACKENDS = ("auto", "triton", "flash", "cudnn", "efficient", "math")


def why_not(backend: str, device: torch.device, dtype: torch.dtype, biased: bool) -> str | None:
    """Return why a kernel cannot run there, in words that end a sentence; None where it can.

    biased: whether every score has a bias of its own, as ALiBi's. Raises SettingsError for an
    unknown name.
    """
    if backend != "auto" and backend not in KERNELS:
        raise SettingsError(
            f"attention kernel {backend!r} is not known; choose {', '.join(BACKENDS)}"
        )
    if backend in ("auto", "math", "products", "sdpa"):
        return None
    if device.type != "cuda":
        return "it runs on CUDA devices only"
    if backend in ("triton", "flash", "cudnn"):
        if dtype not in HALF:
            return f"it takes bf16 and fp16, not {str(dtype).removeprefix('torch.')}"
        if (found := torch.cuda.get_device_capability(device)) < FLASH_CAPABILITY:
            return f"it needs a GPU of capability 8.0, this one has {found[0]}.{found[1]}"
    if backend == "flash" and biased:
        return "PyTorch's FlashAttention-2 takes no bias, which ALiBi is"
    if backend == "triton" and find_spec("triton") is None:
        return "this PyTorch has no Triton"
    if backend == "cudnn" and not torch.backends.cudnn.is_available():  # type: ignore[no-untyped-call]
        return "this PyTorch has no cuDNN"
    return None


def check_backend(backend: str, device: torch.device, dtype: torch.dtype, biased: bool) -> None:
    """Raises SettingsError where a named kernel is not known, or cannot run there."""
    if reason := why_not(backend, device, dtype, biased):
        raise SettingsError(
            f"attention kernel {backend} cannot be used here: {reason}; choose another, or auto"
        )


def automatic(q_BHTD: Tensor, mask: Mask) -> str:
    """The kernel that `auto` stands for: a function of device, dtype, heads and mask alone.

    Never cuDNN's: it takes 40 ms to plan for each new shape of a batch, and batches of real inputs
    have dozens of shapes.
    """
    if not q_BHTD.is_cuda:
        return "sdpa"
    place = q_BHTD.device, q_BHTD.dtype, mask.slopes is not None
    fits = q_BHTD.shape[-1] <= TRITON_WIDTH and not _trains(q_BHTD)
    if fits and not why_not("triton", *place):
        return "triton"
    return "efficient" if why_not("flash", *place) else "flash"


def _trains(q_BHTD: Tensor) -> bool:
    return torch.is_grad_enabled() and q_BHTD.requires_grad


def kernel_for(backend: str, q_BHTD: Tensor, mask: Mask) -> str:
    """The name of KERNELS that a name of BACKENDS means to these queries."""
    return automatic(q_BHTD, mask) if backend == "auto" else backend


def attention(
    q_BHTD: Tensor, k_BHTD: Tensor, v_BHTD: Tensor, mask: Mask, *, backend: str
) -> Tensor:
    """Attention of each head, (B, H, Tq, D), in the dtype of v.

    backend: a name of KERNELS, or auto. Raises SettingsError for one that is unknown or cannot run
    on this device, with this dtype, these heads, or with this mask.
    """
    check_backend(backend, q_BHTD.device, q_BHTD.dtype, mask.slopes is not None)
    if (told := _TOLD.get()) is not None:
        told(q_BHTD.shape[0] * q_BHTD.shape[2])
    kernel = kernel_for(backend, q_BHTD, mask)
    assert mask.turn is None or kernel in TURNING
    asked = kernel, q_BHTD.device, q_BHTD.dtype, mask.keep is None, mask.slopes is None
    seen = _SEEN.get()
    if seen is None or asked in seen:
        return _run(kernel, q_BHTD, k_BHTD, v_BHTD, mask)
    with _Operations() as operations:
        mixed_BHTD = _run(kernel, q_BHTD, k_BHTD, v_BHTD, mask)
    seen[asked] = _name(operations.names, mask)
    return mixed_BHTD


def _run(kernel: str, q_BHTD: Tensor, k_BHTD: Tensor, v_BHTD: Tensor, mask: Mask) -> Tensor:
    """A kernel, with heads filled up with zeros to a width that it takes."""
    width = q_BHTD.shape[-1]
    more = 0
    if kernel in ALIGNED:
        more = -width % 8
    elif kernel == "triton":
        more = width % 2
    if not more:
        return KERNELS[kernel](q_BHTD, k_BHTD, v_BHTD, mask, None)
    q, k, v = (F.pad(x_BHTD, (0, more)) for x_BHTD in (q_BHTD, k_BHTD, v_BHTD))
    return KERNELS[kernel](q, k, v, mask, width**-0.5)[..., :width]


class _Operations(TorchDispatchMode):  # type: ignore[no-untyped-call]
    """The names of the operations that torch dispatches in this thread."""

    def __init__(self) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self.names: list[str] = []

    @classmethod
    def _should_skip_dynamo(cls) -> bool:
        return False  # else the first operation loads torch's compiler, which takes a second

    def __torch_dispatch__(
        self,
        func: Any,  # noqa: ANN401 (torch's own signature)
        types: Any,  # noqa: ANN401
        args: tuple[Any, ...] = (),
        kwargs: dict[str, Any] | None = None,
    ) -> Any:  # noqa: ANN401
        if func is torch.ops.aten.scaled_dot_product_attention.default:
            # In inference mode it arrives whole; what it chooses is what is looked for.
            with self:
                return func.decompose(*args, **(kwargs or {}))
        self.names.append(func.overloadpacket.__name__)
        return func(*args, **(kwargs or {}))


def _name(operations: list[str], mask: Mask) -> str:
    fused = [NAMES[name] for name in operations if name in NAMES]
    if fused:
        biased = mask.slopes is not None and fused[0] in WITH_BIAS
        return f"{fused[0]} with bias" if biased else fused[0]
    if SOFTMAX & set(operations):
        return "math"
    return f"unknown ({' '.join(sorted(set(operations)))})"


@contextmanager
def observing(seen: dict[Any, str], told: Callable[[int], None] | None = None) -> Iterator[None]:
    """Puts into seen the name of every kernel that this thread runs within, once it has run.

    A kernel is watched the first time that it is asked for with this kind of device, dtype and
    mask; seen keeps what was found. told: takes the tokens of a batch, pads included, as each layer
    begins to attend.
    """
    before, before_told = _SEEN.set(seen), _TOLD.set(told)
    try:
        yield
    finally:
        _SEEN.reset(before)
        _TOLD.reset(before_told)


def backend_for(wish: str, biased: bool) -> str:
    """Return the meaning of a wish for one encoder: FlashAttention-2 takes no bias, so where there
    is one `flash` is met by any fused kernel that does, which `auto` chooses."""
    return "auto" if wish == "flash" and biased else wish


def backend_for_short(wish: str, device: torch.device, dtype: torch.dtype, width: int) -> str:
    """Return a wish's meaning for sequences of some hundred tokens at most, without pads or a bias.

    With wide heads, torch's fused kernel for CPUs takes twice as long in 16 bit as plain products.
    """
    quicker = device.type == "cpu" and dtype in HALF and width >= SHORT_WIDTH
    return "products" if wish == "auto" and quicker else wish


def kernels_tried(
    device: torch.device, dtype: torch.dtype, *, slopes: bool, pads: bool, backend: str = "auto"
) -> str:
    """The kernels that a name means there, with commas, as observed on a few small tensors.

    slopes: whether heads have ALiBi's; pads: whether batches with pads come besides others. Raises
    SettingsError for a name that cannot run there.
    """
    q = torch.ones(2, 4, 24, 64, device=device, dtype=dtype)
    slopes_H = torch.tensor(alibi_slopes(4), device=device) if slopes else None
    keep_BT = torch.ones(2, 24, dtype=torch.bool, device=device)
    keep_BT[1, 5:] = False
    seen: dict[Any, str] = {}
    with observing(seen), torch.inference_mode():
        for keep in (None, keep_BT) if pads else (None,):
            attention(q, q, q, Mask(keep, slopes_H, 24), backend=backend)
    return ",".join(sorted(set(seen.values())))
