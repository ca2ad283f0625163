"""The watcher of work in progress: one protocol for runs, downloads, training and measuring.

With it stand the forecast that is made of what it sees, the steps of work that it sees as a whole,
and helpers for the text of its lines, which every room may use.
"""

import re
from collections import deque
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from contextvars import ContextVar
from dataclasses import dataclass, field
from typing import Protocol

# What a forecast looks back on: this long, and no fewer steps than these.
RECENT_S = 60.0
RECENT_STEPS = 8

# Between lines on progress, where nothing can be drawn.
PLAIN_EVERY_S = 30.0
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
    words. count: units done by this process, for a rate in units a second. whole: whether a step
    has just ended, and not a part of one. numbers: what the note says, for programs.
    """

    done: float
    total: float | None
    note: str = ""
    count: int | None = None
    unit: str = ""
    whole: bool = True
    numbers: Mapping[str, int | str] = field(default_factory=dict)


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


class Forecast:
    """Rate and time left, from recent positions. Times are seconds of one clock."""

    def __init__(self) -> None:
        self._recent: deque[tuple[float, Position]] = deque()

    def take(self, now: float, position: Position) -> None:
        """Take a position, also the first one of new work."""
        recent = self._recent
        restarted = bool(recent) and position.done < recent[-1][1].done
        # The time that it took to find work of an earlier process says nothing of the rest.
        if restarted or position.count == 0:
            recent.clear()
        recent.append((now, position))
        while len(recent) > RECENT_STEPS + 1 and recent[1][0] <= now - RECENT_S:
            recent.popleft()

    @property
    def rate(self) -> float | None:
        """Units counted a second; None before the first step, and where none are counted."""
        return self._slope(lambda position: position.count)

    @property
    def share(self) -> float | None:
        """The share of the work that is done, 0 to 1; None if unknown."""
        if not self._recent or self._recent[-1][1].total is None:
            return None
        last = self._recent[-1][1]
        return min(1.0, last.done / last.total) if last.total else 1.0

    def left_s(self, now: float) -> float | None:
        """Seconds to the end; None if unknown."""
        speed = self._slope(lambda position: position.done)
        if self.share is None or not speed:
            return None
        time, last = self._recent[-1]
        assert last.total is not None
        return max(0.0, (last.total - last.done) / speed - (now - time))

    def _slope(self, of: Callable[[Position], float | None]) -> float | None:
        if len(self._recent) < 2:
            return None
        (begin, first), (end, last) = self._recent[0], self._recent[-1]
        before, after = of(first), of(last)
        if before is None or after is None or after <= before or end <= begin:
            return None
        return (after - before) / (end - begin)


@dataclass(slots=True)
class _Steps:
    """Work of so many units, of which some are done. told: takes the share, 0 to 1."""

    told: Callable[[float], None]
    units: float = 1.0
    done: float = 0.0


# Work whose steps are heard; a context of its own in every thread.
_HEARD: ContextVar[_Steps | None] = ContextVar("steps", default=None)


@contextmanager
def hearing(told: Callable[[float], None] | None) -> Iterator[None]:
    """Have told called with the share of the work within, 0 to 1, at each of its steps."""
    before = _HEARD.set(None if told is None else _Steps(told))
    try:
        yield
    finally:
        _HEARD.reset(before)


def steps_ahead(units: float) -> None:
    """Say how much work is ahead, to whoever hears its steps."""
    if (steps := _HEARD.get()) is not None:
        steps.units, steps.done = max(1.0, units), 0.0


def stepped(units: float) -> None:
    """Say how much of the work has just been done."""
    if (steps := _HEARD.get()) is not None:
        steps.done += units
        steps.told(min(1.0, steps.done / steps.units))
