"""How blocks reach a classifier: one interface, whatever computes.

Blocks may come back in any order.
"""

from collections.abc import Iterable, Iterator
from time import perf_counter
from typing import Protocol

import numpy as np

from virnucpro.batches import Block
from virnucpro.calls import Scores
from virnucpro.classifiers import Classifier
from virnucpro.errors import DeviceError
from virnucpro.scored import Scored

# So many chunks that fail one after the other, and none scored between, are the device's fault.
MOST_FAILURES = 8


class Runner(Protocol):
    """Scores blocks."""

    def run(self, blocks: Iterable[Block]) -> Iterator[Scored]:
        """Every block once, in any order."""


class SerialRunner:
    """One classifier in this process, block after block.

    Where the device fails on a block, its halves are tried, down to the chunks that it fails on;
    these are listed as failed, and the rest is scored. Raises DeviceError where it is not a matter
    of single chunks.
    """

    def __init__(self, classifier: Classifier) -> None:
        self._classifier = classifier
        self._failed_in_a_row = 0

    def run(self, blocks: Iterable[Block]) -> Iterator[Scored]:
        """Every block once, in their order."""
        for block in blocks:
            started = perf_counter()
            failures: dict[int, str] = {}
            scores = self._scores(block, 0, failures)
            rows = len(block.rows)
            # A few chunks may have no finite score each; a device that failed on all is gone.
            if len(failures) == rows and (
                self._failed_in_a_row >= rows > 1 or rows > MOST_FAILURES
            ):
                raise DeviceError(
                    f"no chunk of block {block.number} could be scored: {failures[0]}"
                )
            yield Scored(
                block_number=block.number,
                digest=block.digest,
                records=block.records,
                rows=block.rows,
                scores=scores,
                telemetry={"scoring_s": perf_counter() - started},
                failures=failures,
            )

    def _scores(self, part: Block, first: int, failures: dict[int, str]) -> Scores:
        """Scores of a part of a block that begins at a row of it; failures are added by row."""
        try:
            scores = self._classifier.score_block(part)
        except DeviceError as error:
            if len(part.rows) > 1:
                half = len(part.rows) // 2
                halves = ((0, half), (half, len(part.rows)))
                return Scores.joined(
                    [self._scores(part.part(*rows), first + rows[0], failures) for rows in halves]
                )
            self._failed_in_a_row += 1
            if not len(part.rows) or self._failed_in_a_row > MOST_FAILURES:
                raise
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
