"""The time that work still needs, and its rate, from how far it came recently."""

from collections import deque
from collections.abc import Callable

from virnucpro.progress import Position

# What a forecast looks back on: this long, and no fewer steps than these.
RECENT_S = 60.0
RECENT_STEPS = 8


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
