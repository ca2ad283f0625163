"""Chunks as text, and what the bundles that score whole chunks have in common: who is called.

This module knows no model and no file.
"""

import numpy as np
from numpy.typing import NDArray

from virnucpro.blocks import Texts
from virnucpro.calls import Scores, Status, is_called
from virnucpro.frames import UNKNOWN_LETTER

Float64 = NDArray[np.float64]
Int64 = NDArray[np.int64]
UInt8 = NDArray[np.uint8]

# Letters A, C, G or T that a chunk needs to be called as a whole.
MIN_NT = 60
# A group that is less likely counts as this likely.
LEAST_GROUP_P = 1e-5


def chunk_status(codes: UInt8, texts: Texts, min_nt: int, validated_nt: int) -> UInt8:
    """Status (n,) of chunks that a bundle scores as a whole; codes are those of their text.

    Shorter than min_nt: too_short; fewer letters ACGT than that: ambiguous; shorter than
    validated_nt: called, with a status that says so.
    """
    known = np.concatenate(([0], np.cumsum(codes < UNKNOWN_LETTER, dtype=np.int64)))
    known_nt = known[texts.offset + texts.length_nt] - known[texts.offset]
    status = np.full(len(texts), Status.OK, dtype=np.uint8)
    status[texts.length_nt < validated_nt] = Status.BELOW_VALIDATED_LENGTH
    status[known_nt < min_nt] = Status.AMBIGUOUS
    status[texts.length_nt < min_nt] = Status.TOO_SHORT
    return status


def whole_chunk_scores(
    status: UInt8,
    p_virus: Float64,
    frame: UInt8 | None = None,
    frames: int = 0,
    group_p: NDArray[np.float32] | None = None,
) -> Scores:
    """Scores of n chunks from P(virus) (n,), which is ignored where the status says not called.

    frame: (n,) the most heavily weighted frame of each; without weights F1 stands for it. frames:
    the bits of the frames that were scored, the same for every called chunk. group_p: (n, G)
    probabilities of groups, ignored as p_virus is.
    """
    called = is_called(status)
    row = np.flatnonzero(called).astype(np.int32)
    none = np.full(len(status), np.nan, dtype=np.float32)
    return Scores(
        status=status,
        frames=np.where(called, frames, 0).astype(np.uint8),
        p_virus=np.where(called, p_virus, np.nan),
        max_p_virus=none,
        max_p_others=none,
        frame_chunk=row,
        frame=np.zeros(len(row), np.uint8) if frame is None else frame[row],
        frame_p_others=(1.0 - p_virus[row]).astype(np.float32),
        frame_p_virus=p_virus[row].astype(np.float32),
        groups=None if group_p is None else _logarithms(group_p, called),
    )


def _logarithms(group_p: NDArray[np.float32], called: NDArray[np.bool_]) -> NDArray[np.float16]:
    """Log-probabilities, as blocks keep them; 0 where a chunk is not called."""
    some = np.where(called[:, None], np.maximum(group_p, LEAST_GROUP_P), 1.0)
    return np.log(some).astype(np.float16)
