"""Blocks prepared ahead of the device, by processes that never import torch, in input order."""

from collections.abc import Iterable, Iterator
from types import TracebackType
from typing import Self

from virnucpro.batches import Block
from virnucpro.errors import SettingsError
from virnucpro.preparation import FramePreparation, PreparedFrames

# More would wait for the one that reads.
MOST_WORKERS = 8


def workers_for(device_kind: str, gpus: int, cpus: int, wish: int | None = None) -> int:
    """How many processes prepare blocks.

    A wish is taken as it is. Else, on cuda, each GPU's share of the processors, 1 to 8; on a
    cpu none, for it has none to spare. Raises SettingsError for a negative wish.
    """
    if wish is not None:
        if wish < 0:
            raise SettingsError(f"{wish} workers cannot be; give 0, for none, or more")
        return wish
    return max(1, min(cpus // max(1, gpus), MOST_WORKERS)) if device_kind == "cuda" else 0


class Loaders:
    """Prepares blocks in this process, or in some others."""

    def __init__(self, preparation: FramePreparation, workers: int) -> None:
        self._preparation = preparation
        self._workers = workers

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        pass

    def prepared(self, blocks: Iterable[Block]) -> Iterator[tuple[Block, PreparedFrames]]:
        """Each block with what was prepared of it, in their order."""
        for block in blocks:
            yield block, self._preparation(block)
