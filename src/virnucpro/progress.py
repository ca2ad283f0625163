"""What a run tells while it works: lines of text, and how far it is. Knows no terminal."""

from dataclasses import dataclass
from typing import Protocol


@dataclass(frozen=True, slots=True)
class Position:
    """How far a run is: bytes read of bytes_total (as the files lie on disk), chunks scored.

    bytes_before, chunks_before: those that an earlier process had finished.
    """

    bytes_read: int
    bytes_total: int
    records: int
    chunks: int
    bytes_before: int = 0
    chunks_before: int = 0


class Watcher(Protocol):
    """Whoever looks on."""

    def line(self, text: str) -> None:
        """One line for the log."""

    def position(self, position: Position) -> None:
        """After each finished block."""


class Silent:
    """Nobody looks on."""

    def line(self, text: str) -> None:
        """Says nothing."""

    def position(self, position: Position) -> None:
        """Says nothing."""


class Stages(Protocol):
    """Whoever looks on while a bundle is trained or measured."""

    def line(self, text: str) -> None:
        """One line for the log."""

    def step(self, done: int, total: int, note: str) -> None:
        """How many steps of how many are done, and the newest number in words."""
