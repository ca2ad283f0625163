"""How blocks reach a classifier: one interface, whatever computes.

Blocks may come back in any order.
"""

from collections import deque
from collections.abc import Callable, Generator, Iterable, Iterator
from contextlib import closing
from dataclasses import dataclass
from functools import partial
from time import perf_counter
from typing import TYPE_CHECKING, Protocol

import numpy as np

from virnucpro.batches import Block
from virnucpro.calls import Scores
from virnucpro.classifiers import Classifier
from virnucpro.errors import DeviceError, OutOfMemory
from virnucpro.scored import Scored

if TYPE_CHECKING:
    from virnucpro.loaders import Loaders
    from virnucpro.preparation import PreparedFrames

# Chunks of two lengths, with open frames, that any device scores.
PROBE = (
    "AGCGGAATCATCTCGAGTGGGATGCATCGTGTCTCTTAAATCGCGCCGGTGTTTGATTTGGATGCATTATCACTT",
    "CATAACGACCTCTACGTCAAGATTACTGTCACTCCCCCTAATTTCTTAGTGGCCAAGCTATGTTTGAGA",
)
# So many chunks that fail one after the other, and none scored between, are the device's fault.
MOST_FAILURES = 8


class Runner(Protocol):
    """Scores blocks."""

    def run(self, blocks: Iterable[Block]) -> Iterator[Scored]:
        """Every block once, in any order."""


@dataclass(frozen=True, slots=True)
class _Begun:
    """A block on its way: what waits for its scores, and the seconds that it took so far."""

    block: Block
    finish: Callable[[], Scores]
    seconds: float


class SerialRunner:
    """One classifier in this process, block after block.

    Where the classifier lets it, blocks are prepared by loaders (None: in this process), and on a
    GPU the next one is sent before the one before it is waited for. Where the device fails on a
    block, its halves are tried, down to the chunks that it fails on; these are listed as failed,
    and the rest is scored. Raises DeviceError where it is not a matter of single chunks, as where
    it fails on any other, too, and OutOfMemory.
    """

    def __init__(self, classifier: Classifier, loaders: "Loaders | None" = None) -> None:
        self._classifier = classifier
        self._loaders = loaders
        self._waiting = 1 if classifier.device.startswith("cuda") else 0
        self._failed_in_a_row = 0

    def run(self, blocks: Iterable[Block]) -> Iterator[Scored]:
        """Every block once, in their order."""
        begun: deque[_Begun] = deque()
        with closing(self._begun(blocks)) as sent:
            try:
                for one in sent:
                    begun.append(one)
                    if len(begun) > self._waiting:
                        yield self._scored(begun.popleft())
            except OutOfMemory:  # of the one that came after these
                while begun:
                    yield self._scored(begun.popleft())
                raise
            while begun:
                yield self._scored(begun.popleft())

    def _begun(self, blocks: Iterable[Block]) -> Generator[_Begun]:
        ahead = self._classifier.ahead
        if ahead is None:
            for block in blocks:
                yield _Begun(block, partial(self._classifier.score_block, block), 0.0)
            return
        both: Iterable[tuple[Block, PreparedFrames]]
        if self._loaders is None:
            both = ((block, ahead.preparation(block)) for block in blocks)
        else:
            both = self._loaders.prepared(blocks)
        for block, prepared in both:
            started = perf_counter()
            try:
                finish = ahead.begin(prepared)
            except DeviceError:
                finish = partial(self._classifier.score_block, block)
            yield _Begun(block, finish, perf_counter() - started)

    def _scored(self, begun: _Begun) -> Scored:
        started, block = perf_counter(), begun.block
        failures: dict[int, str] = {}
        scores = self._scores(block, 0, failures, begun.finish)
        rows = len(block.rows)
        # A few chunks may have no finite score each; a device that failed on all is gone.
        if len(failures) == rows and (self._failed_in_a_row >= rows > 1 or rows > MOST_FAILURES):
            raise DeviceError(f"no chunk of block {block.number} could be scored: {failures[0]}")
        return Scored(
            block_number=block.number,
            digest=block.digest,
            records=block.records,
            rows=block.rows,
            scores=scores,
            telemetry={"scoring_s": begun.seconds + perf_counter() - started},
            failures=failures,
        )

    def _scores(
        self, part: Block, first: int, failures: dict[int, str], finish: Callable[[], Scores]
    ) -> Scores:
        """Scores of a part of a block that begins at a row of it; failures are added by row."""
        try:
            scores = finish()
        except DeviceError as error:
            if len(part.rows) > 1:
                half = len(part.rows) // 2
                halves = [part.part(0, half), part.part(half, len(part.rows))]
                return Scores.joined(
                    [
                        self._scores(
                            piece, begin, failures, partial(self._classifier.score_block, piece)
                        )
                        for begin, piece in zip((first, first + half), halves, strict=True)
                    ]
                )
            self._failed_in_a_row += 1
            if not len(part.rows) or self._failed_in_a_row > MOST_FAILURES:
                raise
            self._classifier.score(PROBE)  # raises where the device is gone, whatever the chunk
            failures[first] = str(error)
            return Scores.failed(1)
        self._failed_in_a_row = 0
        no_number = np.flatnonzero(scores.called & ~np.isfinite(scores.p_virus))
        if not len(no_number):
            return scores
        failures |= {
            first + row: f"its score in {self._classifier.precision} is no finite number"
            for row in no_number.tolist()
        }
        return scores.failing(no_number)
