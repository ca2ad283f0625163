"""Blocks prepared ahead of the device, by threads, in input order.

The tokenizer, which takes most of the time of a preparation, releases the GIL.
"""

from collections import deque
from collections.abc import Iterable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from itertools import pairwise
from typing import Self

from virnucpro.blocks import Block
from virnucpro.classifiers.prepared import FramePreparation, PreparedFrames
from virnucpro.errors import OutOfMemory, SettingsError, VirnucproError

# More would wait for the one that reads.
MOST_WORKERS = 8
# Parts of blocks on their way for each thread: one in its hands, one that waits for it or for the
# device. A part is small, so that all threads have some of the first block of a GPU.
AHEAD = 2
PART_NT = 250_000

_Ahead = tuple[Block, list[Future[PreparedFrames]]]


def workers_for(device_kind: str, gpus: int, cpus: int, wish: int | None = None) -> int:
    """Return the number of threads that prepare blocks.

    A wish is taken as it is. Else, on cuda, each GPU's share of the processors, 1 to 8; on a
    cpu none, for it has none to spare. Raises SettingsError for a negative wish.
    """
    if wish is not None:
        if wish < 0:
            raise SettingsError(f"--dataloader-workers must be 0 or more, got {wish}")
        return wish
    return max(1, min(cpus // max(1, gpus), MOST_WORKERS)) if device_kind == "cuda" else 0


class Prefetch:
    """Prepares blocks ahead of the device, for `with`.

    workers: the number of threads; with 0, each block is prepared when it is asked for. Threads
    prepare large blocks in parts, and beyond the block that comes next none is read while AHEAD
    times as many parts are on their way, so memory does not grow with the input. They end with the
    with block.
    """

    def __init__(self, preparation: FramePreparation, workers: int) -> None:
        self._preparation = preparation
        self._workers = workers

    def __enter__(self) -> Self:
        self._threads = ThreadPoolExecutor(max(1, self._workers), "prefetch")
        return self

    def __exit__(self, *_: object) -> None:
        self._threads.shutdown(cancel_futures=True)

    def prepared(self, blocks: Iterable[Block]) -> Iterator[tuple[Block, PreparedFrames]]:
        """Yield each block with its open frames, in input order.

        blocks is read in the caller's thread. An error in reading is raised after the blocks that
        came before it. Raises OutOfMemory where memory runs out.
        """
        if not self._workers:
            for block in blocks:
                yield block, self._prepared(block)
            return
        ahead: deque[_Ahead] = deque()
        broken: list[VirnucproError] = []
        for block in _until_broken(blocks, broken):
            ahead.append((block, [self._submitted(part) for part in _parts(block)]))
            # One stays behind: what the caller sends next is prepared while it waits for this.
            while len(ahead) > 1 and (
                all(part.done() for part in ahead[0][1])
                or sum(len(parts) for _, parts in ahead) >= AHEAD * self._workers
            ):
                yield _first(ahead)
        while ahead:
            yield _first(ahead)
        if broken:
            raise broken[0]

    def _submitted(self, block: Block) -> Future[PreparedFrames]:
        try:
            return self._threads.submit(self._prepared, block)
        except RuntimeError as error:  # a limit of memory or of threads
            raise OutOfMemory(
                f"a thread that translates and tokenizes cannot be started ({error}); run with "
                "--dataloader-workers 0, or give the program more memory"
            ) from error

    def _prepared(self, block: Block) -> PreparedFrames:
        try:
            return self._preparation(block)
        except MemoryError as error:
            fewer = ", or take fewer --dataloader-workers" if self._workers else ""
            raise OutOfMemory(
                "out of memory while a block was translated and tokenized; give the program more "
                f"memory{fewer}"
            ) from error


def _until_broken(blocks: Iterable[Block], broken: list[VirnucproError]) -> Iterator[Block]:
    """Yield the blocks until reading them raises an error, which is kept for later."""
    try:
        yield from blocks
    except VirnucproError as error:
        broken.append(error)


def _parts(block: Block) -> list[Block]:
    """Return a block in parts of about PART_NT letters, with about equally many chunks each."""
    number = max(1, min(len(block.rows), len(block.text) // PART_NT))
    edges = [len(block.rows) * k // number for k in range(number + 1)]
    return [block] if number == 1 else [block.part(*pair) for pair in pairwise(edges)]


def _first(ahead: deque[_Ahead]) -> tuple[Block, PreparedFrames]:
    block, parts = ahead.popleft()
    prepared = [part.result() for part in parts]
    return block, prepared[0] if len(prepared) == 1 else PreparedFrames.joined(prepared)
