"""Work on each token between a layer's matrix products, in as few passes as possible.

On CUDA each is one Triton kernel, elsewhere the same in torch's own operations: this says what they
mean and lets the layers of fused.py be tested without a GPU. In fp8 a row comes with the scale that
it was divided by, (N, 1) float32; otherwise that is None.

N tokens of all sequences, T tokens a sequence, C width, F inner width, D width of a head.
"""

import torch
from torch import Tensor
from torch.nn import functional as F

FP8 = torch.float8_e4m3fn
FP8_MAX = 448.0

Rows = tuple[Tensor, Tensor | None]


def norm(
    x_NC: Tensor,
    weight_C: Tensor,
    bias_C: Tensor,
    eps: float,
    dtype: torch.dtype,
    *,
    shift_C: Tensor | None = None,
    delta_NC: Tensor | None = None,
    keep: bool = False,
) -> Rows:
    """LayerNorm of x + shift, with x float32, as rows of dtype.

    delta is added to x first, in place; keep leaves the normed rows in x, too.
    """
    if x_NC.is_cuda:
        from virnucpro.encoders.kernels.triton_rows import norm_rows

        return norm_rows(x_NC, delta_NC, shift_C, weight_C, bias_C, eps, keep, dtype)
    if delta_NC is not None:
        x_NC += delta_NC
    moved_NC = x_NC if shift_C is None else x_NC + shift_C
    normed_NC = F.layer_norm(moved_NC, moved_NC.shape[1:], weight_C.float(), bias_C.float(), eps)
    if keep:
        x_NC.copy_(normed_NC)
    return _as(normed_NC, dtype)


def activate(x_NX: Tensor, dtype: torch.dtype, *, gelu: bool = True, gated: bool = False) -> Rows:
    """Exact GELU of each number; gated: of the first half of a row, times the second half.

    Without gelu it is only a change of dtype, which fp8 needs.
    """
    if x_NX.is_cuda:
        from virnucpro.encoders.kernels.triton_rows import act_rows

        return act_rows(x_NX, gelu, gated, dtype)
    y_NX = x_NX.float()
    first, *second = y_NX.chunk(1 + gated, dim=1)
    first = F.gelu(first, approximate="none") if gelu else first
    return _as(first * second[0] if gated else first, dtype)


def rotate_(x_NX: Tensor, columns: int, cos_TD: Tensor, sin_TD: Tensor) -> None:
    """Rotary positions, in place, on the first columns of rows; token n has position n % T.

    cos, sin: float32 (T, D / 2), of pairs (d, d + D / 2).
    """
    tokens, half = cos_TD.shape
    if x_NX.is_cuda:
        from virnucpro.encoders.kernels.triton_rows import rotate_rows

        rotate_rows(x_NX, columns, cos_TD, sin_TD, 2 * half)
        return
    heads_BTHD = x_NX[:, :columns].view(-1, tokens, columns // (2 * half), 2 * half)
    first, second = heads_BTHD.float().chunk(2, dim=-1)
    cos_T1D, sin_T1D = cos_TD[:, None], sin_TD[:, None]
    turned = (first * cos_T1D - second * sin_T1D, second * cos_T1D + first * sin_T1D)
    heads_BTHD.copy_(torch.cat(turned, dim=-1))


def add_product_(x_NC: Tensor, rows_NF: Tensor, weight_CF: Tensor) -> None:
    """x += rows @ weight.T, with x float32 and the others in 16 bit, in one matrix product."""
    if x_NC.is_cuda:
        torch.addmm(x_NC, rows_NF, weight_CF.t(), out_dtype=torch.float32, out=x_NC)
    else:
        x_NC.addmm_(rows_NF.float(), weight_CF.float().t())


def gated_product(rows_NC: Tensor, weight_XC: Tensor) -> Tensor:
    """Exact GELU of rows @ gate.T, times rows @ value.T, (N, F) in the dtype of rows.

    weight holds gate and value, each (F, C), one upon the other; on CUDA one kernel computes both
    and keeps what comes between to itself, where C and F are such as its tiles take.
    """
    if rows_NC.is_cuda:
        from virnucpro.encoders.kernels.triton_products import gated_rows, takes

        if takes(weight_XC.shape[0] // 2, weight_XC.shape[1]):
            return gated_rows(rows_NC, weight_XC)
    return activate(F.linear(rows_NC, weight_XC), rows_NC.dtype, gated=True)[0]


def eight_bit_weight(weight_CF: Tensor) -> tuple[Tensor, Tensor]:
    """A weight in fp8, and the scale of each of its rows, (1, C)."""
    rows, scale = _as(weight_CF.float(), FP8)
    assert scale is not None
    return rows, scale.t().contiguous()


def eight_bit_product(
    rows: Rows, weight: tuple[Tensor, Tensor], bias_C: Tensor | None, dtype: torch.dtype
) -> Tensor:
    """rows @ weight.T + bias in dtype, with rows and weight in fp8."""
    (x_NF, scale_N1), (w_CF, scale_1C) = rows, weight
    assert scale_N1 is not None
    if x_NF.is_cuda:
        return torch._scaled_mm(
            x_NF, w_CF.t(), scale_N1, scale_1C, bias=bias_C, out_dtype=dtype, use_fast_accum=True
        )
    product_NC = (x_NF.float() @ w_CF.float().t()) * scale_N1 * scale_1C
    return (product_NC if bias_C is None else product_NC + bias_C.float()).to(dtype)


def _as(y_NC: Tensor, dtype: torch.dtype) -> Rows:
    if dtype != FP8:
        return y_NC.to(dtype), None
    scale_N1 = (y_NC.abs().amax(1, keepdim=True) / FP8_MAX).clamp_min(1e-12)
    return (y_NC / scale_N1).clamp(-FP8_MAX, FP8_MAX).to(FP8), scale_N1
