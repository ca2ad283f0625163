"""Lines of a table -> its cells by columns, as arrays and texts; knows no name of a column.

Cells are found and parsed for all rows at once, without an object for each.
"""

from collections.abc import Iterator, Sequence

import numpy as np
from numpy.typing import NDArray

Float64 = NDArray[np.float64]
Int64 = NDArray[np.int64]
UInt8 = NDArray[np.uint8]

_TAB, _NEWLINE, _DOT, _MINUS, _ZERO = b"\t\n.-0"
# A number of so many letters is exact as an int64, and as a float64 where one of them is a dot.
_MOST_LETTERS = 16
_DECIMALS = 6  # as the tables print most numbers


class Cells:
    """A column of n cells, one at least, in the bytes of a table; a text is made when asked for.

    start, end: (n,) places of each.
    """

    def __init__(self, data: UInt8, start: Int64, end: Int64) -> None:
        self._data = data
        self._start = start
        self._end = end
        self._length = end - start

    def __len__(self) -> int:
        return len(self._start)

    def __getitem__(self, i: int) -> str:
        cell = self._data[self._start[i] : self._end[i]]
        return cell.tobytes().decode("utf-8", "replace")

    def __iter__(self) -> Iterator[str]:
        return iter(self.texts())

    def same(self) -> str | None:
        """Return the text of all cells; None where they differ."""
        first, middle, last = (self[i] for i in (0, len(self) // 2, -1))
        width = int(self._length[0])
        if not first == middle == last or np.any(self._length != width):
            return None
        if width:
            letters = self._right_aligned(width)
            if np.any(letters != letters[0]):
                return None
        return first

    def texts(self) -> list[str]:
        """Return the text of each cell."""
        edges = np.zeros(len(self._data) + 1, np.int8)
        edges[self._start] = 1
        edges[self._end + 1] -= 1
        inside = np.cumsum(edges[:-1], dtype=np.int8).view(np.bool_)
        text = self._data[inside].tobytes().decode("utf-8", "replace")
        return text[:-1].split(text[-1])

    def whole_numbers(self) -> Int64:
        """Return the numbers, (n,). Raises ValueError where a cell holds another text."""
        width = int(self._length.max())
        if width <= _MOST_LETTERS and self._length.all():
            found = _number(self._right_aligned(width))
            if found is not None:
                return found
        return np.fromiter(map(int, self.texts()), np.int64, len(self))

    def decimals(self) -> Float64:
        """Return the numbers, (n,), nan for an empty cell. Raises ValueError for another text."""
        found = self._six_decimals()
        if found is not None:
            return found
        parsed = (float(text) if text else np.nan for text in self.texts())
        return np.fromiter(parsed, np.float64, len(self))

    def _six_decimals(self) -> Float64 | None:
        """Return numbers that have six decimals, or are empty; None for others."""
        width, filled = int(self._length.max()), self._length > 0
        if not _DECIMALS < width <= _MOST_LETTERS:
            return None
        letters = self._right_aligned(width)
        if not np.array_equal(letters[:, -_DECIMALS - 1] == _DOT, filled):
            return None
        rows, first = np.arange(len(self)), width - self._length
        negative = filled.copy()
        negative[filled] = letters[rows[filled], first[filled]] == _MINUS
        letters[rows[negative], first[negative]] = _ZERO
        number = _number(np.delete(letters, -_DECIMALS - 1, axis=1))
        if number is None:
            return None
        value = np.copysign(number / 10.0**_DECIMALS, np.where(negative, -1.0, 1.0))
        return np.where(filled, value, np.nan)

    def _right_aligned(self, width: int) -> UInt8:
        """Return the last bytes of each cell, (n, width); zeros as digits before its first."""
        before = max(0, width - int(self._end[0]))
        data = np.concatenate((np.zeros(before, np.uint8), self._data)) if before else self._data
        windows = np.lib.stride_tricks.sliding_window_view(data, width)
        letters: UInt8 = windows[self._end - width + before]
        if np.any(self._length != width):
            letters[np.arange(width) < width - self._length[:, None]] = _ZERO
        return letters


def cells_of(data: bytes, width: int, places: Sequence[int]) -> list[Cells]:
    """Return columns of whole lines, by their places in a line.

    Raises ValueError where a line has not width cells.
    """
    letters = np.frombuffer(data, np.uint8)
    ends = np.flatnonzero((letters == _TAB) | (letters == _NEWLINE))
    if len(ends) % width:
        raise ValueError("a row of other width")
    newline = (letters[ends] == _NEWLINE).reshape(-1, width)
    if np.any(newline[:, :-1]) or not np.all(newline[:, -1]):
        raise ValueError("a row of other width")
    starts = np.append(0, ends[:-1] + 1)
    return [Cells(letters, starts[i::width], ends[i::width]) for i in places]


def _number(letters: UInt8) -> Int64 | None:
    """Return the numbers that digits make, (n, width) -> (n,); None where one is no digit."""
    digits = letters - np.uint8(_ZERO)
    if np.any(digits > 9):
        return None
    number: Int64 = digits @ 10 ** np.arange(digits.shape[1] - 1, -1, -1, dtype=np.int64)
    return number
