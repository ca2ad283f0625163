"""Who watches while work is done: one protocol for runs, downloads, training and measuring."""

from dataclasses import dataclass
from typing import Protocol

# Begins a line that nobody should miss.
WARNING = "warning: "


@dataclass(frozen=True, slots=True)
class Position:
    """How far work has come.

    done of total, in any unit; total is None if unknown, for example for a pipe. note: the same in
    words. count: units done by this process, for a rate in units a second.
    """

    done: float
    total: float | None
    note: str = ""
    count: int | None = None
    unit: str = ""


class Progress(Protocol):
    """A watcher of long work."""

    def line(self, text: str) -> None:
        """Take one line of the log."""

    def detail(self, text: str) -> None:
        """Take one line for people who want every detail."""

    def advance(self, position: Position) -> None:
        """Take the position when work begins, and after each step."""


class Silent:
    """A progress that nobody watches."""

    def line(self, text: str) -> None:
        """Do nothing."""

    def detail(self, text: str) -> None:
        """Do nothing."""

    def advance(self, position: Position) -> None:
        """Do nothing."""
