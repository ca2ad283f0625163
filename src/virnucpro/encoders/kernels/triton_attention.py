"""Attention of both encoders in Triton, by the algorithm of FlashAttention-2 (Dao 2023).

Softmax runs along with the sums, so scores never leave the processor. PyTorch's own kernels take
ALiBi as T * T numbers a head, rounded to 16 bit, and want queries and keys turned before. Here
distances are computed where they are used, in float32; q, k and v are read where a matrix product
left them, and rows are written as the next product reads them. A pair (d, d + D/2) of a head is
turned on its way in, so a head is held as two halves.

B sequences, H heads, T tokens, D width of a head; M queries i, N keys j of a program.
"""

import torch
import triton
import triton.language as tl
from torch import Tensor

# Queries, and keys and values, that a program has at once.
ROWS = 64
LOG2_E = 1.4426950408889634


@triton.jit
def _turned(x1, x2, cos, sin):
    """Pairs of numbers, turned in float32."""
    a1, a2 = x1.to(tl.float32), x2.to(tl.float32)
    return (a1 * cos - a2 * sin).to(x1.dtype), (a2 * cos + a1 * sin).to(x2.dtype)


# One kernel for any number of tokens: a variant for multiples of 16 brings nothing but compiling.
@triton.jit(do_not_specialize=["tokens"])
def _attend_rows(
    q,
    k,
    v,
    out,
    cos,
    sin,
    lengths,
    slopes,
    q_b,
    q_h,
    q_t,
    k_b,
    k_h,
    k_t,
    v_b,
    v_h,
    v_t,
    heads,
    tokens,
    scale,
    D: tl.constexpr,
    HALF: tl.constexpr,
    WIDE: tl.constexpr,
    TURNS: tl.constexpr,
    SLOPES: tl.constexpr,
    PADS: tl.constexpr,
    M: tl.constexpr,
    N: tl.constexpr,
):
    tiles = (tokens + M - 1) // M
    head = tl.program_id(0) // tiles
    b = (head // heads).to(tl.int64)
    h = head % heads
    end = tl.load(lengths + b) if PADS else tokens
    i = tl.program_id(0) % tiles * M + tl.arange(0, M)
    half = tl.arange(0, HALF)
    wide = tl.arange(0, WIDE)
    dtype = q.dtype.element_ty

    q_at = q + b * q_b + h * q_h + i[:, None] * q_t + half[None, :]
    q_there = (i < tokens)[:, None] & (half < D // 2)[None, :]
    q1 = tl.load(q_at, mask=q_there, other=0.0)
    q2 = tl.load(q_at + D // 2, mask=q_there, other=0.0)
    if TURNS:
        q_turn = i[:, None] * (D // 2) + half[None, :]
        q_cos = tl.load(cos + q_turn, mask=q_there, other=0.0)
        q_sin = tl.load(sin + q_turn, mask=q_there, other=0.0)
        q1, q2 = _turned(q1, q2, q_cos, q_sin)
    if SLOPES:
        slope = tl.load(slopes + h) * 1.4426950408889634

    most = tl.full((M,), -1e30, tl.float32)
    total = tl.zeros((M,), tl.float32)
    mixed = tl.zeros((M, WIDE), tl.float32)
    for begin in range(0, end, N):
        j = begin + tl.arange(0, N)
        seen = j < end
        k_at = k + b * k_b + h * k_h + j[:, None] * k_t + half[None, :]
        there = seen[:, None] & (half < D // 2)[None, :]
        k1 = tl.load(k_at, mask=there, other=0.0)
        k2 = tl.load(k_at + D // 2, mask=there, other=0.0)
        if TURNS:
            k_turn = j[:, None] * (D // 2) + half[None, :]
            k_cos = tl.load(cos + k_turn, mask=there, other=0.0)
            k_sin = tl.load(sin + k_turn, mask=there, other=0.0)
            k1, k2 = _turned(k1, k2, k_cos, k_sin)
        score = tl.dot(q2, k2.T, tl.dot(q1, k1.T)) * scale
        if SLOPES:
            score -= slope * tl.abs(i[:, None] - j[None, :]).to(tl.float32)
        score = tl.where(seen[None, :], score, float("-inf"))
        before = most
        most = tl.maximum(most, tl.max(score, 1))
        p = tl.exp2(score - most[:, None])
        fade = tl.exp2(before - most)
        total = total * fade + tl.sum(p, 1)
        v_at = v + b * v_b + h * v_h + j[:, None] * v_t + wide[None, :]
        rows = tl.load(v_at, mask=seen[:, None] & (wide < D)[None, :], other=0.0)
        mixed = tl.dot(p.to(dtype), rows, mixed * fade[:, None])
    mixed = tl.where((i < end)[:, None], mixed / total[:, None], 0.0)
    at = out + ((b * tokens + i[:, None]) * heads + h) * D + wide[None, :]
    tl.store(at, mixed.to(dtype), mask=(i < tokens)[:, None] & (wide < D)[None, :])


def _launch(
    q_BHTD: Tensor,
    k_BHTD: Tensor,
    v_BHTD: Tensor,
    cos_TD: Tensor | None,
    sin_TD: Tensor | None,
    lengths_B: Tensor | None,
    slopes_H: Tensor | None,
    scale: float,
) -> Tensor:
    batch, heads, tokens, width = q_BHTD.shape
    out_BTHD = q_BHTD.new_empty(batch, tokens, heads, width)
    # One dimension, since the second of a grid ends at 65,535.
    programs = triton.cdiv(tokens, ROWS) * batch * heads
    with torch.cuda.device(q_BHTD.device):  # Triton launches on the current one
        _attend_rows[(programs,)](
            q_BHTD,
            k_BHTD,
            v_BHTD,
            out_BTHD,
            cos_TD,
            sin_TD,
            lengths_B,
            slopes_H,
            *q_BHTD.stride()[:3],
            *k_BHTD.stride()[:3],
            *v_BHTD.stride()[:3],
            heads,
            tokens,
            scale * LOG2_E,
            D=width,
            HALF=max(16, triton.next_power_of_2(width // 2)),
            WIDE=max(16, triton.next_power_of_2(width)),
            TURNS=cos_TD is not None,
            SLOPES=slopes_H is not None,
            PADS=lengths_B is not None,
            M=ROWS,
            N=ROWS,
            num_warps=4,
            num_stages=3 if cos_TD is None else 1,
        )
    return out_BTHD


# An operation of torch's dispatcher, so that who observes what runs sees this one, too.
_LIBRARY = torch.library.Library("virnucpro", "DEF")
_LIBRARY.define(
    "flash_attention(Tensor q, Tensor k, Tensor v, Tensor? cos, Tensor? sin, Tensor? lengths, "
    "Tensor? slopes, float scale) -> Tensor"
)
_LIBRARY.impl("flash_attention", _launch, "CUDA")


def flash_attention(
    q_BHTD: Tensor,
    k_BHTD: Tensor,
    v_BHTD: Tensor,
    *,
    turn: tuple[Tensor, Tensor] | None,
    lengths_B: Tensor | None,
    slopes_H: Tensor | None,
    scale: float,
) -> Tensor:
    """softmax(scale q k^T - slope |i - j|) v, (B, H, T, D), zero behind each sequence.

    q, k, v: bf16 or fp16 on CUDA, of any strides but the last. turn: cosines and sines, float32
    (T, D/2), of the rotary positions that q and k do not have yet. lengths: int32 (B,). slopes:
    float32 (H,).
    """
    cos_TD, sin_TD = turn or (None, None)
    mixed_BTHD: Tensor = torch.ops.virnucpro.flash_attention(
        q_BHTD, k_BHTD, v_BHTD, cos_TD, sin_TD, lengths_B, slopes_H, scale
    )
    return mixed_BTHD.transpose(1, 2)
