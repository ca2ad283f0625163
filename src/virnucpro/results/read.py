"""A run directory -> its tables, by rows or by columns, in the order of the input.

Tables are read in blocks of columns: a million rows in seconds, and in bounded memory.
"""

import gzip
import io
import zlib
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import replace
from itertools import chain, islice
from pathlib import Path
from typing import Any, NamedTuple, TypeAlias, TypeVar, cast

from virnucpro.errors import InputError
from virnucpro.results.cells import cells_of
from virnucpro.results.files import RunFiles
from virnucpro.results.kinds import Column
from virnucpro.results.schema import ChunkRow as ChunkRow  # a name of this module, too
from virnucpro.results.schema import ContigRow as ContigRow
from virnucpro.results.schema import kinds_of
from virnucpro.storage.atomic import PACKED_SUFFIX
from virnucpro.storage.lock import holder_of

BLOCK_ROWS = 10_000

Row = TypeVar("Row", bound=NamedTuple)
Columns: TypeAlias = Mapping[str, Column]


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
    kinds = kinds_of(kind)

    def transposed(block: Columns) -> Iterator[tuple[Any, ...]]:
        return zip(*(kinds[name].values(column) for name, column in block.items()), strict=True)

    read = blocks(path, kind, kind._fields)
    return map(kind._make, chain.from_iterable(map(transposed, read)))


def blocks(
    path: Path,
    table: type[NamedTuple],
    names: Sequence[str],
    optional: type[NamedTuple] | None = None,
) -> Iterator[Columns]:
    """Yield the named columns of a table, plain or gzipped, BLOCK_ROWS rows at a time.

    optional: columns of texts that some runs have, empty where the file lacks them.

    Whole numbers, codes (calls, statuses, frames as bits), probabilities with nan where there is
    none, and texts. Later versions may have more columns. What stands before a damaged row comes
    first. Raises InputError for what is damaged.
    """
    try:
        yield from _blocks(path, table, names, optional)
    except (EOFError, gzip.BadGzipFile, zlib.error) as error:
        raise InputError("this file is damaged; run predict again", path) from error


def _blocks(
    path: Path,
    table: type[NamedTuple],
    names: Sequence[str],
    optional: type[NamedTuple] | None,
) -> Iterator[Columns]:
    perhaps = {} if optional is None else kinds_of(optional)
    kinds = {**kinds_of(table), **perhaps}
    with _opened(path) as file:
        header = file.readline().decode("utf-8", "replace").rstrip("\n").split("\t")
        if missing := set(names) - set(header):
            raise InputError(f"the column {min(missing)} is missing; run predict again", path, 1)
        places = {name: header.index(name) for name in names}
        lacking = perhaps.keys() - set(header)
        places |= {name: header.index(name) for name in perhaps if name in header}

        def columns(lines: Sequence[bytes]) -> Columns:
            data = b"".join(lines)
            data = data if data.endswith(b"\n") else data + b"\n"
            cells = cells_of(data, len(header), [*places.values()])
            found = {name: kinds[name].read(of) for name, of in zip(places, cells, strict=True)}
            return found | {name: ("",) * len(lines) for name in lacking}

        before = 1
        while lines := list(islice(file, BLOCK_ROWS)):
            try:
                block = columns(lines)
            except (LookupError, OverflowError, ValueError) as error:
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
        except (LookupError, OverflowError, ValueError):
            return number
    raise AssertionError("lines that can be read one by one, but not together")


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
