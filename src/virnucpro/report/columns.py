"""Tables of a run, read in blocks of columns: a million rows in seconds, and in bounded memory."""

import gzip
import zlib
from collections.abc import Callable, Iterator, Mapping, Sequence
from itertools import islice
from pathlib import Path
from typing import Any, TypeAlias

import numpy as np

from virnucpro.calls import FRAME_NAMES, Call, Status, frame_names
from virnucpro.errors import InputError
from virnucpro.journal import PACKED_SUFFIX

BLOCK_ROWS = 10_000

Column: TypeAlias = Any  # a tuple of texts, or an array of one dimension
Columns: TypeAlias = Mapping[str, Column]
Reader: TypeAlias = Callable[[Sequence[str]], Column]


def blocks(path: Path, readers: Mapping[str, Reader]) -> Iterator[Columns]:
    """The named columns of a table, plain or gzipped, BLOCK_ROWS rows at a time.

    Raises InputError for what is damaged.
    """
    try:
        yield from _blocks(path, readers)
    except (EOFError, gzip.BadGzipFile, zlib.error) as error:
        raise InputError("this file is damaged; run predict again", path) from error


def _blocks(path: Path, readers: Mapping[str, Reader]) -> Iterator[Columns]:
    opened = gzip.open if path.suffix == PACKED_SUFFIX else open
    with opened(path, "rt", encoding="utf-8", errors="replace", newline="\n") as file:
        header = file.readline().rstrip("\n").split("\t")
        if missing := readers.keys() - set(header):
            raise InputError(f"lacks the column {min(missing)}; run predict again", path, 1)
        places = {name: header.index(name) for name in readers}

        def columns(lines: Sequence[str]) -> Columns:
            cells = [*zip(*(line.rstrip("\n").split("\t") for line in lines), strict=True)]
            return {name: read(cells[places[name]]) for name, read in readers.items()}

        before = 1
        while lines := list(islice(file, BLOCK_ROWS)):
            try:
                block = columns(lines)
            except (LookupError, ValueError) as error:
                number = before + _first_damaged(lines, columns, len(header))
                raise InputError("this row is damaged; run predict again", path, number) from error
            yield block
            before += len(lines)


def _first_damaged(
    lines: Sequence[str], columns: Callable[[Sequence[str]], Columns], width: int
) -> int:
    """Which line, from 1, is the first that cannot be read."""
    for number, line in enumerate(lines, 1):
        try:
            columns([line])
        except (LookupError, ValueError):
            return number
        if line.count("\t") + 1 != width:
            return number
    raise AssertionError("lines that can be read one by one, but not together")


def integers(cells: Sequence[str]) -> Column:
    """Whole numbers."""
    return np.fromiter(map(int, cells), np.int64, len(cells))


def scores(cells: Sequence[str]) -> Column:
    """Probabilities; nan where there is none."""
    return np.fromiter((float(cell or "nan") for cell in cells), np.float64, len(cells))


def _codes(texts: Mapping[str, int]) -> Reader:
    return lambda cells: np.fromiter((texts[cell] for cell in cells), np.uint8, len(cells))


calls = _codes({call.name.lower(): call for call in Call})
statuses = _codes({status.name.lower(): status for status in Status})
# As bits: F1 is 1, R3 is 32.
frames = _codes({frame_names(bits): bits for bits in range(1 << len(FRAME_NAMES))})
