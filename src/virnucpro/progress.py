"""What a run tells while it works: lines of text, and how far it is. Knows no terminal."""

from collections import deque
from dataclasses import dataclass
from typing import NamedTuple, Protocol

# Begins a line that nobody should miss.
WARNING = "warning: "

# What a forecast looks back on: so many blocks, and so long, for the rate; so much input for what
# is in it.
RECENT_BLOCKS = 8
RECENT_S = 60.0
RECENT_BYTES = 1 << 20
# Readers hold so much of a file that no contig was made of yet.
READ_AHEAD_BYTES = 1 << 18


@dataclass(frozen=True, slots=True)
class Position:
    """How far a run is: bytes read of bytes_total (as the files lie on disk), chunks scored.

    bytes_total is None where nobody knows, as of a pipe. chunks_before: those of chunks that an
    earlier process had finished. chunks_read: those of all contigs read so far, chunks among them.
    chunks_expected: those of the whole input, guessed from its head; 0 if unknown.
    """

    bytes_read: int
    bytes_total: int | None
    records: int
    chunks: int
    chunks_before: int = 0
    chunks_read: int = 0
    chunks_expected: float = 0.0


class _Scored(NamedTuple):
    time: float
    new: int


class _Read(NamedTuple):
    used: float
    chunks: int


class Forecast:
    """How fast a run is, and how long it will still take, both from what it did recently.

    What is left are the chunks of contigs that were read, and those of the bytes that were not:
    as many a byte as recently. Times are seconds of one clock.
    """

    def __init__(self) -> None:
        self._scored: deque[_Scored] = deque()
        self._read: deque[_Read] = deque([_Read(0.0, 0)])
        self._before = 0
        self._left = 0.0
        self._share: float | None = None

    def take(self, now: float, position: Position) -> None:
        """Of the position when work begins, also that of a next run, and after each block."""
        new = position.chunks - position.chunks_before
        if not new or position.chunks_before > self._before:
            self._scored.clear()  # the time that it took to find finished blocks is no rate
        self._before = position.chunks_before
        self._scored.append(_Scored(now, new))
        while len(self._scored) > RECENT_BLOCKS + 1 and self._scored[1].time <= now - RECENT_S:
            self._scored.popleft()
        if position.bytes_total is None:
            self._share = None
            return
        used = _bytes_used(position)
        if position.chunks_read < self._read[-1].chunks:
            self._read = deque([_Read(0.0, 0)])
        self._read.append(_Read(used, position.chunks_read))
        while self._read[1].used <= used - RECENT_BYTES:
            self._read.popleft()
        unread = max(0.0, position.bytes_total - used) * self._chunks_a_byte(position)
        self._left = position.chunks_read - position.chunks + unread
        whole = position.chunks + self._left
        self._share = position.chunks / whole if whole else 1.0

    def _chunks_a_byte(self, position: Position) -> float:
        first, last = self._read[0], self._read[-1]
        if last.used - first.used >= RECENT_BYTES:
            return (last.chunks - first.chunks) / (last.used - first.used)
        return _density(position)

    @property
    def rate(self) -> float | None:
        """Chunks a second; None before the first block."""
        if not self._scored:
            return None
        first, last = self._scored[0], self._scored[-1]
        spent = last.time - first.time
        return (last.new - first.new) / spent if last.new > first.new and spent > 0 else None

    @property
    def share(self) -> float | None:
        """The share of the chunks that is done, 0 to 1; None if unknown."""
        return self._share

    def left_s(self, now: float) -> float | None:
        """Seconds to the end of scoring; None if unknown."""
        if self._share is None or self.rate is None:
            return None
        return max(0.0, self._left / self.rate - (now - self._scored[-1].time))


def _density(position: Position) -> float:
    """Chunks a byte of the whole input, as far as it is known."""
    if position.chunks_expected and position.bytes_total:
        return position.chunks_expected / position.bytes_total
    return position.chunks_read / position.bytes_read if position.bytes_read else 0.0


def _bytes_used(position: Position) -> float:
    """The bytes of the contigs that were read: readers are ahead, of a small file to its end."""
    density = _density(position)
    used = position.chunks_read / density if density else position.bytes_read
    return max(position.bytes_read - READ_AHEAD_BYTES, min(position.bytes_read, used))


class Watcher(Protocol):
    """Whoever looks on."""

    def line(self, text: str) -> None:
        """One line for the log."""

    def detail(self, text: str) -> None:
        """One line for those who want every detail."""

    def position(self, position: Position) -> None:
        """When work begins, and after each finished block."""


class Silent:
    """Nobody looks on."""

    def line(self, text: str) -> None:
        """Says nothing."""

    def detail(self, text: str) -> None:
        """Says nothing."""

    def position(self, position: Position) -> None:
        """Says nothing."""


class Stages(Protocol):
    """Whoever looks on while a bundle is trained or measured."""

    def line(self, text: str) -> None:
        """One line for the log."""

    def step(self, done: int, total: int, note: str) -> None:
        """How many steps of how many are done, and the newest number in words."""
