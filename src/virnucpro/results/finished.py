"""The face of the finished blocks of a run, which tables are made from."""

from collections.abc import Iterator
from typing import Protocol

from virnucpro.blocks import Scored
from virnucpro.calls import Embeddings


class FinishedBlocks(Protocol):
    """All blocks of a run, on disk; a journal gives them, or the journals of several parts."""

    def scored(self) -> Iterator[Scored]:
        """Yield the blocks in their order, one at a time. Raises BlockError."""

    def embeddings(self, scored: Scored) -> Embeddings | None:
        """Return the embeddings of a block's frames; None without a frame. Raises BlockError."""
