"""How blocks reach a classifier: one interface, whatever computes.

Blocks may come back in any order.
"""

from collections.abc import Iterable, Iterator
from time import perf_counter
from typing import Protocol

from virnucpro.batches import Block
from virnucpro.classifiers import Classifier
from virnucpro.scored import Scored


class Runner(Protocol):
    """Scores blocks."""

    def run(self, blocks: Iterable[Block]) -> Iterator[Scored]:
        """Every block once, in any order."""


class SerialRunner:
    """One classifier in this process, block after block."""

    def __init__(self, classifier: Classifier) -> None:
        self._classifier = classifier

    def run(self, blocks: Iterable[Block]) -> Iterator[Scored]:
        """Every block once, in their order."""
        for block in blocks:
            started = perf_counter()
            scores = self._classifier.score_block(block)
            yield Scored(
                block_number=block.number,
                digest=block.digest,
                records=block.records,
                rows=block.rows,
                scores=scores,
                telemetry={"scoring_s": perf_counter() - started},
            )
