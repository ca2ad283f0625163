"""Tables of a run, read in blocks of columns: a million rows in seconds, and in bounded memory."""

import gzip
import zlib
from collections.abc import Callable, Iterator, Mapping, Sequence
from itertools import islice
from pathlib import Path
from typing import Any, TypeAlias

import numpy as np

from virnucpro.calls import CALL_NAMES, FRAME_SETS, STATUS_NAMES
from virnucpro.errors import InputError
from virnucpro.storage.atomic import PACKED_SUFFIX

BLOCK_ROWS = 10_000

Column: TypeAlias = Any  # a tuple of texts, or an array of one dimension
Columns: TypeAlias = Mapping[str, Column]
Reader: TypeAlias = Callable[[Sequence[str]], Column]


def blocks(path: Path, names: Sequence[str]) -> Iterator[Columns]:
    """The named columns of a table, plain or gzipped, BLOCK_ROWS rows at a time.

    Whole numbers, codes (calls, statuses, frames as bits), probabilities with nan where there is
    none, and texts.

    Raises InputError for what is damaged.
    """
    try:
        yield from _blocks(path, names)
    except (EOFError, gzip.BadGzipFile, zlib.error) as error:
        raise InputError("this file is damaged; run predict again", path) from error


def _blocks(path: Path, names: Sequence[str]) -> Iterator[Columns]:
    opened = gzip.open if path.suffix == PACKED_SUFFIX else open
    with opened(path, "rt", encoding="utf-8", errors="replace", newline="\n") as file:
        header = file.readline().rstrip("\n").split("\t")
        if missing := set(names) - set(header):
            raise InputError(f"lacks the column {min(missing)}; run predict again", path, 1)
        places = {name: header.index(name) for name in names}

        def columns(lines: Sequence[str]) -> Columns:
            cells = [*zip(*(line.rstrip("\n").split("\t") for line in lines), strict=True)]
            return {name: _READERS[name](cells[place]) for name, place in places.items()}

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


def _integers(cells: Sequence[str]) -> Column:
    return np.fromiter(map(int, cells), np.int64, len(cells))


def _scores(cells: Sequence[str]) -> Column:
    return np.fromiter((float(cell or "nan") for cell in cells), np.float64, len(cells))


def _codes(names: Sequence[str]) -> Reader:
    code = {name: i for i, name in enumerate(names)}
    return lambda cells: np.fromiter((code[cell] for cell in cells), np.uint8, len(cells))


_READERS: dict[str, Reader] = {
    **dict.fromkeys(("sample", "contig"), tuple),
    **dict.fromkeys(("record", "length_nt", "start", "end"), _integers),
    **dict.fromkeys(("chunks", "called", "virus_chunks"), _integers),
    **dict.fromkeys(("p_virus", "max_p_virus"), _scores),
    "call": _codes(CALL_NAMES),
    "status": _codes(STATUS_NAMES),
    "frames": _codes(FRAME_SETS),
}
