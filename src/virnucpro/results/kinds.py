"""Kinds of columns: how their values stand in a text table, in Parquet, and when read back.

A kind works on whole columns, so that it is looked up once a block and never by cell.
"""

from collections.abc import Callable, Sequence
from math import isnan, nan
from typing import Any, NamedTuple, TypeAlias

import numpy as np
from numpy.typing import NDArray

from virnucpro.results.cells import Cells

Column: TypeAlias = Any  # a sequence of texts, an array, or Words


class Words(NamedTuple):
    """A column of few words, such as origins: the code of each row, (n,), and the word of each."""

    codes: NDArray[np.uint8]
    words: Sequence[str]


class Kind:
    """A kind of column. parquet: a type of pyarrow, "coded" for a dictionary, or "vectors"."""

    def __init__(self, parquet: str = "string") -> None:
        self.parquet = parquet

    def cells(self, column: Column) -> list[Any]:
        """Return the cells of a text table: texts, or all of them ints."""
        return [*column]

    def stored(self, column: Column) -> Column:
        """Return the values that Parquet gets: of a coded one (codes, words)."""
        return column

    def read(self, cells: Cells) -> Column:
        """Return the column of cells. Raises ValueError or LookupError for damaged ones."""
        same = cells.same()
        return cells if same is None else (same,) * len(cells)

    def values(self, column: Column) -> Sequence[Any]:
        """Return the values that rows hold of a column that was read."""
        values: Sequence[Any] = column
        return values


class Texts(Kind):
    """Texts as they stand in the input."""

    def stored(self, column: Column) -> Column:
        """Replace letters that are no UTF-8, which text tables copy; Parquet cannot hold them."""
        return [
            text
            if text.isascii()
            else text.encode("utf-8", "surrogateescape").decode("utf-8", "replace")
            for text in column
        ]


class Integers(Kind):
    """Whole numbers, (n,)."""

    def cells(self, column: Column) -> list[Any]:
        """Return them as they are: lines are made of ints faster than of their digits."""
        cells: list[int] = column.tolist()
        return cells

    def read(self, cells: Cells) -> Column:
        """Return int64."""
        same = cells.same()
        return cells.whole_numbers() if same is None else np.full(len(cells), int(same), np.int64)

    values = cells


class Ordinals(Integers):
    """Numbers from 1, (n,); 0 is an empty cell."""

    def cells(self, column: Column) -> list[Any]:
        """Return them, or nothing."""
        return [str(number or "") for number in column.tolist()]

    def read(self, cells: Cells) -> Column:
        """Return int64, 0 for an empty cell."""
        return np.fromiter((int(text or 0) for text in cells.texts()), np.int64, len(cells))


class Floats(Kind):
    """Numbers, (n,), printed by texts; nan is an empty cell, and None in a row."""

    def __init__(
        self, texts: Callable[[NDArray[np.floating[Any]]], list[str]], parquet: str = "float64"
    ) -> None:
        super().__init__(parquet)
        self._texts = texts

    def cells(self, column: Column) -> list[Any]:
        """Return them as printed."""
        return self._texts(column)

    def read(self, cells: Cells) -> Column:
        """Return float64."""
        same = cells.same()
        if same is None:
            return cells.decimals()
        return np.full(len(cells), float(same) if same else nan)

    def values(self, column: Column) -> Sequence[Any]:
        """Return floats."""
        return [None if isnan(number) else number for number in column.tolist()]


class Coded(Kind):
    """Codes of names that are the same in every run, (n,). in_rows: what rows hold of each."""

    def __init__(
        self,
        names: Sequence[str],
        parquet: str = "coded",
        in_rows: Sequence[Any] | None = None,
    ) -> None:
        super().__init__(parquet)
        self._names = names
        self._in_rows = names if in_rows is None else in_rows
        self._codes = {name: code for code, name in enumerate(names)}

    def cells(self, column: Column) -> list[Any]:
        """Return their names."""
        return _named(column, self._names)

    def stored(self, column: Column) -> Column:
        """Return codes with their names, or the names alone where these are texts."""
        return (column, self._names) if self.parquet == "coded" else self.cells(column)

    def read(self, cells: Cells) -> Column:
        """Return the codes, uint8."""
        same = cells.same()
        if same is not None:
            return np.full(len(cells), self._codes[same], np.uint8)
        return np.fromiter(map(self._codes.__getitem__, cells.texts()), np.uint8, len(cells))

    def values(self, column: Column) -> Sequence[Any]:
        """Return what rows hold of each."""
        return [self._in_rows[code] for code in column.tolist()]


class Named(Kind):
    """Words, whose names a run decides; an empty one is a missing value in Parquet."""

    def cells(self, column: Column) -> list[Any]:
        """Return the words."""
        return _named(column.codes, column.words)

    def stored(self, column: Column) -> Column:
        """Return codes with the words, or the words alone where these are texts."""
        return column if self.parquet == "coded" else [word or None for word in self.cells(column)]


def _named(codes: NDArray[np.uint8], names: Sequence[str]) -> list[Any]:
    """Return the name of each code, fast where all are the same, as many are."""
    if len(codes) and np.all(codes == codes[0]):
        return [names[codes[0]]] * len(codes)
    return [names[code] for code in codes.tolist()]


def six_decimals(values: NDArray[np.floating[Any]]) -> list[str]:
    """Return probabilities with six decimals; nan is an empty text."""
    missing = np.isnan(values)
    if missing.all():
        return [""] * len(values)
    texts = ("%.6f\n" * len(values) % tuple(values.tolist())).split("\n")
    for row in np.flatnonzero(missing).tolist():
        texts[row] = ""
    return texts[:-1]


def four_digits(values: NDArray[np.floating[Any]]) -> list[str]:
    """Return four significant digits, which a small q-value needs; nan is an empty text."""
    if np.isnan(values).all():
        return [""] * len(values)
    distinct, place = np.unique(values, return_inverse=True)  # few, as q-values are
    texts = ["" if np.isnan(value) else f"{value:.4g}" for value in distinct]
    return [texts[i] for i in place.tolist()]


def three_digits(values: NDArray[np.floating[Any]]) -> list[str]:
    """Return three significant digits with an exponent."""
    return [f"{value:.2e}" for value in values.tolist()]


def shortest(values: NDArray[np.floating[Any]]) -> list[str]:
    """Return the shortest decimals that read back as the same float32."""
    texts: list[str] = values.astype(np.float32).astype("U16").tolist()
    return texts
