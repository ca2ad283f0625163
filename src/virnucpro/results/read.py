"""A run directory -> its tables, by rows or by columns, in the order of the input.

Tables are read in blocks of columns: a million rows in seconds, and in bounded memory.
"""

import gzip
import io
import zlib
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from dataclasses import replace
from itertools import chain, islice
from math import isnan, nan
from pathlib import Path
from typing import Any, NamedTuple, TypeAlias, TypeVar, cast

import numpy as np

from virnucpro.calls import CALL_NAMES, FRAME_SETS, STATUS_NAMES
from virnucpro.errors import InputError
from virnucpro.results.cells import Cells, cells_of
from virnucpro.results.files import RunFiles
from virnucpro.storage.atomic import PACKED_SUFFIX
from virnucpro.storage.lock import holder_of

BLOCK_ROWS = 10_000

Row = TypeVar("Row", bound=NamedTuple)
Column: TypeAlias = Any  # a tuple of texts, or an array of one dimension
Columns: TypeAlias = Mapping[str, Column]
Reader: TypeAlias = Callable[[Cells], Column]


class ChunkRow(NamedTuple):
    """A row of calls.tsv, as in docs/outputs.md.

    start, end: nt on the contig, 0-based half-open; frames: the scored ones, as F1 or R3;
    the probabilities, 0 to 1, are None where there is none.
    """

    sample: str
    record: int
    contig: str
    chunk: int
    start: int
    end: int
    frames: tuple[str, ...]
    p_virus: float | None
    call: str
    status: str
    max_p_virus: float | None
    max_p_others: float | None


class ContigRow(NamedTuple):
    """A row of contigs.tsv, as in docs/outputs.md; numbers are None, texts empty without one."""

    sample: str
    record: int
    contig: str
    length_nt: int
    chunks: int
    called: int
    virus_chunks: int
    p_virus: float | None
    max_p_virus: float | None
    call: str
    status: str
    log_odds: float | None
    probability: float | None
    q_value: float | None
    origin: str
    note: str


def calls(run_dir: Path | str, prefix: str | None = None) -> Iterator[ChunkRow]:
    """Yield the chunks of a run, plain or gzipped; memory does not grow with their number.

    prefix: of the run; needed only where the folder holds several. Raises InputError at once
    where there is no such run, and at a row that is damaged.
    """
    return _rows(_files(run_dir, prefix).calls, ChunkRow)


def contigs(run_dir: Path | str, prefix: str | None = None) -> Iterator[ContigRow]:
    """Yield the records of a run; otherwise as calls."""
    return _rows(_files(run_dir, prefix).contigs, ContigRow)


def _files(run_dir: Path | str, prefix: str | None) -> RunFiles:
    folder = Path(run_dir)
    found = {files.prefix: files for files in run_files(folder)}
    if prefix is None and len(found) > 1:
        names = ", ".join(repr(name) for name in found)
        raise InputError(
            f"this folder holds several runs; say which by its prefix: {names}", folder
        )
    if prefix is not None and prefix not in found:
        raise InputError(f"this folder holds no run of the prefix {prefix!r}", folder)
    return found[prefix] if prefix is not None else next(iter(found.values()))


def _rows(path: Path, kind: type[Row]) -> Iterator[Row]:
    try:
        path.open("rb").close()
    except OSError as error:
        raise InputError(f"cannot be read ({error.strerror}); run predict again", path) from error
    read = blocks(path, kind._fields)
    return map(kind._make, chain.from_iterable(map(_transposed, read)))


def _transposed(block: Columns) -> Iterator[tuple[Any, ...]]:
    return zip(*(_values(name, column) for name, column in block.items()), strict=True)


def _values(name: str, column: Column) -> Sequence[Any]:
    if isinstance(column, tuple):
        return column
    if name in _CODES:
        return [_CODES[name][code] for code in column.tolist()]
    if column.dtype == np.float64:
        return [None if isnan(score) else score for score in column.tolist()]
    values: list[int] = column.tolist()
    return values


def blocks(path: Path, names: Sequence[str], optional: Collection[str] = ()) -> Iterator[Columns]:
    """Yield the named columns of a table, plain or gzipped, BLOCK_ROWS rows at a time.

    optional: those of texts that a table may lack; they are empty then.

    Whole numbers, codes (calls, statuses, frames as bits), probabilities with nan where there is
    none, and texts. Later versions may have more columns. What stands before a damaged row comes
    first. Raises InputError for what is damaged.
    """
    try:
        yield from _blocks(path, names, optional)
    except (EOFError, gzip.BadGzipFile, zlib.error) as error:
        raise InputError("this file is damaged; run predict again", path) from error


def _blocks(path: Path, names: Sequence[str], optional: Collection[str]) -> Iterator[Columns]:
    with _opened(path) as file:
        header = file.readline().decode("utf-8", "replace").rstrip("\n").split("\t")
        lacking = set(names) - set(header)
        if missing := lacking - set(optional):
            raise InputError(f"the column {min(missing)} is missing; run predict again", path, 1)
        places = {name: header.index(name) for name in names if name not in lacking}

        def columns(lines: Sequence[bytes]) -> Columns:
            data = b"".join(lines)
            cells = cells_of(data if data.endswith(b"\n") else data + b"\n", len(header))
            found = {name: _READERS[name](cells[place]) for name, place in places.items()}
            return found | {name: ("",) * len(cells[0]) for name in lacking}

        before = 1
        while lines := list(islice(file, BLOCK_ROWS)):
            try:
                block = columns(lines)
            except (LookupError, ValueError) as error:
                first = _first_damaged(lines, columns)
                if first > 1:
                    yield columns(lines[: first - 1])
                raise InputError(
                    "this row is damaged; run predict again", path, before + first
                ) from error
            yield block
            before += len(lines)


def _opened(path: Path) -> io.BufferedReader:
    if path.suffix == PACKED_SUFFIX:
        return io.BufferedReader(cast("io.RawIOBase", gzip.open(path)))
    return path.open("rb")


def _first_damaged(lines: Sequence[bytes], columns: Callable[[Sequence[bytes]], Columns]) -> int:
    """Return the number, from 1, of the first line that does not fit."""
    for number, line in enumerate(lines, 1):
        try:
            columns([line])
        except (LookupError, ValueError):
            return number
    raise AssertionError("lines that can be read one by one, but not together")


def _texts(cells: Cells) -> Column:
    same = cells.same()
    return tuple(cells.texts()) if same is None else (same,) * len(cells)


def _numbers(parse: Callable[[str], float], all_of: Callable[[Cells], Column]) -> Reader:
    """Return what reads a column of numbers, fast where all cells are the same, as many are."""

    def read(cells: Cells) -> Column:
        same = cells.same()
        if same is None:
            return all_of(cells)
        one = parse(same)
        return np.full(len(cells), one, np.int64 if isinstance(one, int) else np.float64)

    return read


def _score(cell: str) -> float:
    return float(cell) if cell else nan


def _codes(names: Sequence[str]) -> Reader:
    codes = {name: i for i, name in enumerate(names)}

    def read(cells: Cells) -> Column:
        same = cells.same()
        if same is not None:
            return np.full(len(cells), codes[same], np.uint8)
        return np.fromiter(map(codes.__getitem__, cells.texts()), np.uint8, len(cells))

    return read


_INT, _FLOAT = _numbers(int, Cells.whole_numbers), _numbers(_score, Cells.decimals)
_CODES: dict[str, Sequence[Any]] = {
    "call": CALL_NAMES,
    "status": STATUS_NAMES,
    "frames": [tuple(filter(None, names.split(","))) for names in FRAME_SETS],
}
_READERS: dict[str, Reader] = {
    **dict.fromkeys(("sample", "contig", "origin", "note", "mate"), _texts),
    **dict.fromkeys(("record", "length_nt", "chunk", "start", "end"), _INT),
    **dict.fromkeys(("chunks", "called", "virus_chunks"), _INT),
    **dict.fromkeys(("p_virus", "max_p_virus", "max_p_others"), _FLOAT),
    **dict.fromkeys(("log_odds", "probability", "q_value"), _FLOAT),
    "call": _codes(CALL_NAMES),
    "status": _codes(STATUS_NAMES),
    "frames": _codes(FRAME_SETS),
}


def run_files(folder: Path) -> list[RunFiles]:
    """The runs whose files lie in a folder, by prefix.

    Raises InputError if there is none, or one of them is at work.
    """
    if not folder.is_dir():
        raise InputError("there is no such folder; name the run directory of predict", folder)
    plain, packed = RunFiles(Path()), RunFiles(Path(), packed=True)
    names = [path.name for path in (plain.run_json, plain.contigs, packed.contigs)]
    found = {
        path.name.removesuffix(name).removesuffix(".")
        for name in names
        for path in folder.iterdir()
        if path.name == name or path.name.endswith(f".{name}")
    }
    if not found:
        for path in filter(_is_hidden, folder.iterdir()):
            _refuse_at_work(path, folder)
            raise InputError(
                "the run here was stopped before it had results; give the same predict command "
                "again",
                folder,
            )
        inside = sorted(path.parent.name for path in folder.glob(f"*/*{names[0]}"))
        deeper = f", or those in it, as {inside[0]}" if inside else ""
        raise InputError(
            f"this folder holds no run: there is neither {names[0]} nor {names[1]} in it; name "
            f"the run directory of predict{deeper}",
            folder,
        )
    for prefix in found:
        _refuse_at_work(RunFiles(folder, prefix).hidden, folder, surely=True)
    return [_in_its_form(RunFiles(folder, prefix)) for prefix in sorted(found)]


def _refuse_at_work(hidden: Path, folder: Path, *, surely: bool = False) -> None:
    """Raises InputError where a process works on a run; surely: only if it is known to live."""
    who, lives = holder_of(hidden) or ("", False)
    if who and (lives or not surely):
        stopped = "" if lives else "; if it was stopped there, give the same predict command again"
        raise InputError(f"a run is at work here, {who}; wait for its end{stopped}", folder)


def _is_hidden(path: Path) -> bool:
    """Return whether this is the hidden folder of a run."""
    hidden = RunFiles(Path()).hidden.name
    return path.is_dir() and path.name.startswith(".") and path.name.endswith(hidden)


def _in_its_form(files: RunFiles) -> RunFiles:
    """Return files with names of gzipped tables where these are what is there."""
    packed = replace(files, packed=True)
    there = [form for form in (files, packed) if form.contigs.exists() or form.calls.exists()]
    return there[0] if there else files
