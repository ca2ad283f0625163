"""The row kernels of rowwise.py for CUDA, in Triton: each reads and writes a row once.

A row of C numbers is held in two pieces of powers of two, A and B, so that 2,560 = 2,048 + 512 and
10,240 = 8,192 + 2,048 leave no lane idle. No kernel is chosen by timing.
"""

import torch
import triton
import triton.language as tl
from torch import Tensor

FP8_MAX = 448.0
PAIRS = 512


def _pieces(width: int) -> tuple[int, int]:
    """Powers of two, the first below width, that hold a row together."""
    first = 1 << ((width - 1).bit_length() - 1)
    return first, 1 << (width - first - 1).bit_length()


def _warps(width: int) -> int:
    return 4 if width <= 4096 else 8


@triton.jit
def gelu(x):
    """Exact to 4e-8: x Phi(x) = max(x, 0) - |x| Phi(-|x|), and log2 Phi(-z) as a polynomial.

    Its coefficients minimise the largest error of z Phi(-z) for z from 0 to 5; it falls without end
    beyond. One exponential and no division, since both are slow beside multiplying.
    """
    z = tl.abs(x)
    power = -1.3191225e-06 * z + 2.0445981e-05
    power = power * z - 9.109587e-05
    power = power * z - 0.00038464885
    power = power * z + 0.0074235657
    power = power * z - 0.05278875
    power = power * z - 0.45908263
    power = power * z - 1.15113
    power = power * z - 0.99999845
    return tl.maximum(x, 0.0) - z * tl.exp2(power)


@triton.jit
def _store(out, scales, row, a, b, inside, C: tl.constexpr, ya, yb, EIGHT: tl.constexpr):
    """A row in the dtype of out; in fp8 divided by its scale, which brings the largest to 448."""
    if EIGHT:
        most = tl.maximum(tl.max(tl.abs(ya), 0), tl.max(tl.abs(yb), 0))
        scale = tl.maximum(most / 448.0, 1e-12)
        tl.store(scales + row, scale)
        inverse = 1.0 / scale
        ya = tl.clamp(ya * inverse, -448.0, 448.0)
        yb = tl.clamp(yb * inverse, -448.0, 448.0)
    tl.store(out + row * C + a, ya.to(out.dtype.element_ty))
    tl.store(out + row * C + b, yb.to(out.dtype.element_ty), mask=inside)


@triton.jit
def _norm_rows(
    x,
    delta,
    shift,
    weight,
    bias,
    out,
    scales,
    eps,
    C: tl.constexpr,
    A: tl.constexpr,
    B: tl.constexpr,
    ADDS: tl.constexpr,
    SHIFTS: tl.constexpr,
    KEEPS: tl.constexpr,
    EIGHT: tl.constexpr,
):
    row = tl.program_id(0).to(tl.int64)
    a = tl.arange(0, A)
    b = A + tl.arange(0, B)
    inside = b < C
    xa = tl.load(x + row * C + a)
    xb = tl.load(x + row * C + b, mask=inside, other=0.0)
    if ADDS:
        xa += tl.load(delta + row * C + a).to(tl.float32)
        xb += tl.load(delta + row * C + b, mask=inside, other=0.0).to(tl.float32)
    if ADDS or KEEPS:
        # Where a piece has fewer numbers than the program has threads, several threads read each,
        # and none may write to x before all of them have.
        tl.debug_barrier()
    if ADDS and not KEEPS:
        tl.store(x + row * C + a, xa)
        tl.store(x + row * C + b, xb, mask=inside)
    if SHIFTS:
        xa += tl.load(shift + a)
        xb += tl.load(shift + b, mask=inside, other=0.0)
    mean = (tl.sum(xa, 0) + tl.sum(xb, 0)) / C
    xa -= mean
    xb = tl.where(inside, xb - mean, 0.0)
    variance = (tl.sum(xa * xa, 0) + tl.sum(xb * xb, 0)) / C
    scale = 1.0 / tl.sqrt_rn(variance + eps)
    ya = xa * scale * tl.load(weight + a).to(tl.float32) + tl.load(bias + a).to(tl.float32)
    wb = tl.load(weight + b, mask=inside, other=0.0).to(tl.float32)
    yb = xb * scale * wb + tl.load(bias + b, mask=inside, other=0.0).to(tl.float32)
    if KEEPS:
        tl.store(x + row * C + a, ya)
        tl.store(x + row * C + b, yb, mask=inside)
    _store(out, scales, row, a, b, inside, C, ya, yb, EIGHT)


@triton.jit
def _act_rows(
    x,
    out,
    scales,
    C: tl.constexpr,
    A: tl.constexpr,
    B: tl.constexpr,
    GELU: tl.constexpr,
    GATED: tl.constexpr,
    EIGHT: tl.constexpr,
):
    row = tl.program_id(0).to(tl.int64)
    a = tl.arange(0, A)
    b = A + tl.arange(0, B)
    inside = b < C
    begin = row * C * (2 if GATED else 1)
    ya = tl.load(x + begin + a).to(tl.float32)
    yb = tl.load(x + begin + b, mask=inside, other=0.0).to(tl.float32)
    if GELU:
        ya = gelu(ya)
        yb = gelu(yb)
    if GATED:
        ya *= tl.load(x + begin + C + a).to(tl.float32)
        yb *= tl.load(x + begin + C + b, mask=inside, other=0.0).to(tl.float32)
    _store(out, scales, row, a, b, inside, C, ya, yb, EIGHT)


@triton.jit(do_not_specialize=["tokens"])
def _rotate_rows(
    x,
    cos,
    sin,
    tokens,
    stride,
    D: tl.constexpr,
    COUNT: tl.constexpr,
    BLOCK: tl.constexpr,
):
    row = tl.program_id(0).to(tl.int64)
    pair = tl.program_id(1) * BLOCK + tl.arange(0, BLOCK)
    inside = pair < COUNT
    d = pair % (D // 2)
    at = x + row * stride + (pair // (D // 2)) * D + d
    turn = (row % tokens) * (D // 2) + d
    c = tl.load(cos + turn, mask=inside, other=0.0)
    s = tl.load(sin + turn, mask=inside, other=0.0)
    first = tl.load(at, mask=inside, other=0.0).to(tl.float32)
    second = tl.load(at + D // 2, mask=inside, other=0.0).to(tl.float32)
    tl.store(at, (first * c - second * s).to(x.dtype.element_ty), mask=inside)
    tl.store(at + D // 2, (second * c + first * s).to(x.dtype.element_ty), mask=inside)


def norm_rows(
    x_NC: Tensor,
    delta_NC: Tensor | None,
    shift_C: Tensor | None,
    weight_C: Tensor,
    bias_C: Tensor,
    eps: float,
    keep: bool,
    dtype: torch.dtype,
) -> tuple[Tensor, Tensor | None]:
    """See rowwise.norm."""
    rows, width = x_NC.shape
    first, second = _pieces(width)
    out_NC, scale_N1 = _output(x_NC, rows, width, dtype)
    _norm_rows[(rows,)](
        x_NC,
        delta_NC,
        shift_C,
        weight_C,
        bias_C,
        out_NC,
        scale_N1,
        eps,
        C=width,
        A=first,
        B=second,
        ADDS=delta_NC is not None,
        SHIFTS=shift_C is not None,
        KEEPS=keep,
        EIGHT=scale_N1 is not None,
        num_warps=_warps(width),
    )
    return out_NC, scale_N1


def act_rows(
    x_NX: Tensor, gelu: bool, gated: bool, dtype: torch.dtype
) -> tuple[Tensor, Tensor | None]:
    """See rowwise.activate."""
    rows, width = x_NX.shape
    width //= 1 + gated
    first, second = _pieces(width)
    out_NF, scale_N1 = _output(x_NX, rows, width, dtype)
    _act_rows[(rows,)](
        x_NX,
        out_NF,
        scale_N1,
        C=width,
        A=first,
        B=second,
        GELU=gelu,
        GATED=gated,
        EIGHT=scale_N1 is not None,
        num_warps=_warps(width),
    )
    return out_NF, scale_N1


def rotate_rows(
    x_NX: Tensor, columns: int, cos_TD: Tensor, sin_TD: Tensor, head_width: int
) -> None:
    """See rowwise.rotate_."""
    count = columns // 2
    _rotate_rows[(x_NX.shape[0], triton.cdiv(count, PAIRS))](
        x_NX,
        cos_TD,
        sin_TD,
        cos_TD.shape[0],
        x_NX.stride(0),
        D=head_width,
        COUNT=count,
        BLOCK=PAIRS,
        num_warps=4,
    )


def _output(
    like: Tensor, rows: int, width: int, dtype: torch.dtype
) -> tuple[Tensor, Tensor | None]:
    out_NC = torch.empty(rows, width, dtype=dtype, device=like.device)
    eight = dtype == torch.float8_e4m3fn
    return out_NC, like.new_empty(rows, 1, dtype=torch.float32) if eight else None
