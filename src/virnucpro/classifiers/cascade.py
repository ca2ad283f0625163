"""Two classifiers: a small one looks first, and hands on what a large one must see.

A chunk that the small one scores below a cut keeps that score; every other chunk, also one that
the small one does not call, has the score and the status that the large one gives it. What becomes
of a chunk depends on its letters alone, so not on blocks or on who computes.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, TypeVar

import numpy as np
from numpy.typing import NDArray

from virnucpro.blocks import Batches, Block
from virnucpro.calls import Scores
from virnucpro.classifiers import Classifier
from virnucpro.progress import hearing

Bool = NDArray[np.bool_]
Int64 = NDArray[np.int64]
Value = TypeVar("Value")

# Before the names of encoders of the classifier that looks first.
FIRST = "prescreen "


@dataclass(frozen=True, slots=True)
class Cuts:
    """Least scores of chunks that are handed on, by the length from which on each holds.

    A chunk that is shorter than the first length is handed on. lengths_nt: ascending.
    """

    lengths_nt: tuple[int, ...]
    p_virus: tuple[float, ...]

    def of(self, length_nt: Int64) -> NDArray[np.float64]:
        """The cut of chunks of these lengths, (n,)."""
        place = np.searchsorted(self.lengths_nt, length_nt, side="right")
        return np.array((0.0, *self.p_virus))[place]

    def __str__(self) -> str:
        if self.lengths_nt == (0,):
            return f"{self.p_virus[0]:g}"
        return ", ".join(
            f"{cut:g} from {length_nt} nt"
            for length_nt, cut in zip(self.lengths_nt, self.p_virus, strict=True)
        )


class CascadeClassifier:
    """A small and a large classifier as one."""

    ahead = None

    def __init__(self, small: Classifier, large: Classifier, cuts: Cuts) -> None:
        self.small = small
        self.large = large
        self.name = large.name
        self.precision = large.precision
        self.device = large.device
        self._cuts = cuts

    @property
    def attention(self) -> Mapping[str, str]:
        """The attention kernels of both."""
        return {**self.large.attention, **with_first(self.small.attention)}

    @property
    def batches(self) -> Mapping[str, Batches]:
        """The batches of both."""
        return {**self.large.batches, **with_first(self.small.batches)}

    def restore_budgets(self) -> None:
        """Do as Classifier says."""
        self.small.restore_budgets()
        self.large.restore_budgets()

    def score_block(self, block: Block) -> Scores:
        """Scores of the chunks of a block, in the order of its rows."""
        with hearing(None):  # it takes little of the time
            first = self.small.score_block(block)
        ended = self._ended(first, block.rows.length_nt)
        return joined(first, self.large.score_block(block.chosen(~ended)), ended)

    def score(self, chunks: Sequence[str]) -> Scores:
        """Scores of chunks given as text, in any case, U read as T."""
        first = self.small.score(chunks)
        ended = self._ended(first, np.array([len(chunk) for chunk in chunks], np.int64))
        handed_on = [chunk for chunk, ends in zip(chunks, ended.tolist(), strict=True) if not ends]
        return joined(first, self.large.score(handed_on), ended)

    def _ended(self, first: Scores, length_nt: Int64) -> Bool:
        return first.called & (first.p_virus < self._cuts.of(length_nt))


def with_first(of_small: Mapping[str, Value]) -> dict[str, Value]:
    """Values of the encoders of the classifier that looks first, under names that say so."""
    return {FIRST + name: value for name, value in of_small.items()}


def joined(first: Scores, second: Scores, ended: Bool) -> Scores:
    """The first scores where ended, (n,), says so, elsewhere the second, in their order.

    Groups are those of the second; a chunk that ended has zeros, which speak for none of them.
    """
    chunk = np.concatenate((first.frame_chunk, np.flatnonzero(~ended)[second.frame_chunk]))
    kept = np.concatenate((ended[first.frame_chunk], np.ones(len(second.frame_chunk), np.bool_)))
    order = np.flatnonzero(kept)[np.argsort(chunk[kept], kind="stable")]
    columns: dict[str, Any] = {}
    for name in ("status", "frames", "p_virus", "max_p_virus", "max_p_others"):
        columns[name] = getattr(first, name).copy()
        columns[name][~ended] = getattr(second, name)
    for name in ("frame", "frame_p_others", "frame_p_virus"):
        columns[name] = np.concatenate((getattr(first, name), getattr(second, name)))[order]
    groups = None
    if second.groups is not None:
        groups = np.zeros((len(ended), second.groups.shape[1]), second.groups.dtype)
        groups[~ended] = second.groups
    return Scores(
        **columns,
        frame_chunk=chunk[order].astype(np.int32),
        groups=groups,
        prescreened=ended,
    )
