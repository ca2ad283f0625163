"""Contig -> chunks: overlapping spans that cover it, cut as the published method cuts them.

This module knows lengths only, no letters and no files.
"""

import numpy as np
from numpy.typing import NDArray

Int64 = NDArray[np.int64]


def chunk_spans(length_nt: int, chunk_nt: int) -> list[tuple[int, int]]:
    """The chunks of a contig as (start, end), 0-based half-open, at most chunk_nt long each.

    With n = ceil(L / C) chunks, neighbours share the R = n * C - L letters that are too many:
    low = floor(R / n) each, and the first R - low * (n - 1) pairs one more. Where that is more
    pairs than there are, the last chunk is the shorter for it; the published heads were trained on
    exactly this. A contig of no letters has no chunk. Raises ValueError for a negative length or a
    chunk length below 1.

    >>> chunk_spans(501, 500)
    [(0, 500), (250, 501)]
    """
    count, step, wider = _cut(length_nt, chunk_nt)
    starts = [k * step - min(k, wider) for k in range(count)]
    return [(start, min(start + chunk_nt, length_nt)) for start in starts]


def span_arrays(length_nt: int, chunk_nt: int) -> tuple[Int64, Int64]:
    """The starts and the ends of chunk_spans as two arrays (chunks,)."""
    count, _, _ = _cut(length_nt, chunk_nt)
    return spans_of(np.int64(length_nt), chunk_nt, np.arange(count, dtype=np.int64))


def spans_of(length_nt: Int64 | np.int64, chunk_nt: int, number: Int64) -> tuple[Int64, Int64]:
    """The starts and the ends of n chunks, (n,), by their numbers from 0.

    length_nt: of the contig of each, (n,), or of the one contig of all.
    """
    count = np.maximum(-(-length_nt // chunk_nt), 1)
    surplus = count * chunk_nt - length_nt
    low = surplus // count
    start = number * (chunk_nt - low) - np.minimum(number, surplus - low * (count - 1))
    return start, np.minimum(start + chunk_nt, length_nt)


def _cut(length_nt: int, chunk_nt: int) -> tuple[int, int, int]:
    """Number of chunks, the way from one start to the next, and how many ways are one shorter."""
    if length_nt < 0 or chunk_nt < 1:
        raise ValueError(f"no chunks of {chunk_nt} nt can be cut from a contig of {length_nt} nt")
    count = -(-length_nt // chunk_nt)
    surplus = count * chunk_nt - length_nt
    low = surplus // count if count else 0
    return count, chunk_nt - low, surplus - low * (count - 1)
