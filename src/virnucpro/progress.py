"""The watcher of work in progress: one protocol for runs, downloads, training and measuring.

With it stand helpers for the text of its lines, which every room may use.
"""

import re
from dataclasses import dataclass
from typing import Protocol

# Begins a line that nobody should miss.
WARNING = "warning: "
_CONTROLS = re.compile(r"[\x00-\x08\x0b-\x1f\x7f-\x9f]")


def escaped(text: str) -> str:
    """Return text whose control characters a terminal shows instead of obeying them."""
    return _CONTROLS.sub(lambda match: f"\\x{ord(match[0]):02x}", text)


def several(number: int, thing: str) -> str:
    """Return a number of things, as a line says it."""
    return f"{number:,} {thing}{'' if number == 1 else 's'}"


@dataclass(frozen=True, slots=True)
class Position:
    """The progress of work so far.

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

    def common(self, text: str, *, detail: bool = False) -> None:
        """Take one line that is the same for every sample of a sheet."""
        (self.detail if detail else self.line)(text)

    def advance(self, position: Position) -> None:
        """Take the position when work begins, and after each step."""


class Silent(Progress):
    """A progress that is not shown."""

    def line(self, text: str) -> None:
        """Do nothing."""

    def detail(self, text: str) -> None:
        """Do nothing."""

    def advance(self, position: Position) -> None:
        """Do nothing."""
