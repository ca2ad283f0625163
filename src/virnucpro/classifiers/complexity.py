"""The share of a sequence of low complexity: repeats of few letters, which any model misreads.

A window is of low complexity if its triplets repeat as much as dustmasker's default level asks
for: sum over triplets of c(c-1)/2, divided by their number less one, above 2. This module knows
nothing of tables.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from virnucpro.blocks import Texts

WINDOW_NT, STEP_NT = 64, 32
LEVEL = 2.0
_TRIPLETS = WINDOW_NT - 2
_UNKNOWN = 64  # a triplet with another letter than A, C, G, T
_LEAST = 10  # triplets that a window needs to be judged
_AT_ONCE = 16_384

_CODES = np.full(256, 4, np.uint8)
for _code, _letters in enumerate((b"Aa", b"Cc", b"Gg", b"TtUu")):
    _CODES[list(_letters)] = _code

Bool = NDArray[np.bool_]


@dataclass(frozen=True, slots=True)
class Complexity:
    """low: (windows,) of a sequence; window i begins at i * STEP_NT. share: of all that are low."""

    low: Bool
    share: float

    def low_share(self, start: int, end: int) -> float:
        """Share of the windows of a stretch that are of low complexity; 0 without a window."""
        last = max(end - WINDOW_NT, start) // STEP_NT + 1
        part = self.low[start // STEP_NT : last]
        return float(part.mean()) if len(part) else 0.0


def complexities(sequences: Sequence[bytes]) -> list[Complexity]:
    """Return the complexities of several sequences, which is faster than one by one for reads."""
    counts = [max(len(s) - WINDOW_NT, 0) // STEP_NT + 1 for s in sequences]
    padded = b"".join(s + b"N" * WINDOW_NT for s in sequences)
    codes = _CODES[np.frombuffer(padded, np.uint8)].astype(np.int16)
    triplets = codes[:-2] * 16 + codes[1:-1] * 4 + codes[2:]
    unknown = np.maximum(np.maximum(codes[:-2], codes[1:-1]), codes[2:]) > 3
    triplets[unknown] = _UNKNOWN
    first = np.cumsum([0, *(len(s) + WINDOW_NT for s in sequences[:-1])])
    window = np.arange(sum(counts)) - np.repeat(np.cumsum([0, *counts[:-1]]), counts)
    starts = np.repeat(first, counts) + window * STEP_NT
    low = np.concatenate(
        [_low(triplets, starts[i : i + _AT_ONCE]) for i in range(0, len(starts), _AT_ONCE)]
    )
    ends = np.cumsum(counts, dtype=np.int64)
    shares = np.add.reduceat(low, ends - np.array(counts), dtype=np.int64) / counts
    return [
        Complexity(low[end - count : end], share)
        for end, count, share in zip(ends.tolist(), counts, shares.tolist(), strict=True)
    ]


def low_shares(codes: NDArray[np.uint8], texts: Texts) -> NDArray[np.float64]:
    """Share of the windows of each chunk that are of low complexity, (n,); codes: of their text.

    The last window of a chunk ends where the chunk does.
    """
    if not len(texts):
        return np.zeros(0)
    wide = np.minimum(codes, 4).astype(np.int16)
    wide = np.append(wide, np.full(WINDOW_NT, 4, np.int16))
    triplets = wide[:-2] * 16 + wide[1:-1] * 4 + wide[2:]
    triplets[np.maximum(np.maximum(wide[:-2], wide[1:-1]), wide[2:]) > 3] = _UNKNOWN
    last = texts.offset + np.maximum(texts.length_nt - WINDOW_NT, 0)
    counts = -(-np.maximum(texts.length_nt - WINDOW_NT, 0) // STEP_NT) + 1
    begin = np.cumsum(counts) - counts
    window = np.arange(counts.sum()) - np.repeat(begin, counts)
    starts = np.minimum(np.repeat(texts.offset, counts) + window * STEP_NT, np.repeat(last, counts))
    low = np.concatenate(
        [_low(triplets, starts[i : i + _AT_ONCE]) for i in range(0, len(starts), _AT_ONCE)]
    )
    short = np.flatnonzero(texts.length_nt < WINDOW_NT)  # one window each, with letters of the next
    if len(short):
        ends = (texts.offset + texts.length_nt - 2)[short]
        low[begin[short]] = _low(triplets, texts.offset[short], ends)
    shares: NDArray[np.float64] = np.add.reduceat(low, begin, dtype=np.int64) / counts
    return shares


def _low(
    triplets: NDArray[np.int16], starts: NDArray[np.int64], ends: NDArray[np.int64] | None = None
) -> Bool:
    """Return whether windows are of low complexity. ends: triplets from there do not count."""
    place = starts[:, None] + np.arange(_TRIPLETS)
    seen = triplets[place] + np.int64(0)
    if ends is not None:
        seen[place >= ends[:, None]] = _UNKNOWN
    seen += np.arange(len(starts))[:, None] * (_UNKNOWN + 1)
    counted = np.bincount(seen.ravel(), minlength=len(starts) * (_UNKNOWN + 1))
    repeats = counted.reshape(len(starts), -1)[:, :_UNKNOWN]
    known = repeats.sum(1)
    score = (repeats * (repeats - 1) // 2).sum(1) / np.maximum(known - 1, 1)
    result: Bool = (known >= _LEAST) & (score > LEVEL)
    return result
