"""A run directory -> its rows, typed and one at a time, in the order of the input."""

import gzip
import zlib
from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any, NamedTuple, TextIO, TypeVar, cast

from virnucpro.errors import InputError
from virnucpro.results.files import RunFiles
from virnucpro.storage.atomic import PACKED_SUFFIX
from virnucpro.storage.lock import holder_of

Row = TypeVar("Row", bound=NamedTuple)
_READERS: dict[Any, Callable[[str], Any]] = {
    str: str,
    int: int,
    float | None: lambda text: float(text) if text else None,
    tuple[str, ...]: lambda text: tuple(filter(None, text.split(","))),
}


class ChunkRow(NamedTuple):
    """A row of calls.tsv, as in docs/outputs.md.

    start, end: nt on the contig, 0-based half-open; frames: those that were scored, as F1 or R3;
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
    """The chunks of a run, plain or gzipped, in memory one by one.

    prefix: that of the run; needed only where the folder holds several. Raises InputError at once
    where there is no such run, and at a row that is damaged.
    """
    return _rows(_files(run_dir, prefix).calls, ChunkRow)


def contigs(run_dir: Path | str, prefix: str | None = None) -> Iterator[ContigRow]:
    """The records of a run; otherwise as calls."""
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
        file = _opened(path)
    except OSError as error:
        raise InputError(f"cannot be read ({error.strerror}); run predict again", path) from error
    return _read(file, path, kind)


def _opened(path: Path) -> TextIO:
    if path.suffix == PACKED_SUFFIX:
        return cast("TextIO", gzip.open(path, "rt", encoding="utf-8", newline="\n"))
    return path.open(encoding="utf-8", newline="\n")


def _read(file: TextIO, path: Path, kind: type[Row]) -> Iterator[Row]:
    number = 1
    with file:
        try:
            columns = _columns(_cells(file.readline()), kind, path)
            for line in file:
                number += 1
                cells = _cells(line)
                yield kind._make(read(cells[place]) for read, place in columns)
        except (ValueError, IndexError, EOFError, OSError, zlib.error) as error:
            raise InputError("this row is damaged; run predict again", path, number) from error


def _cells(line: str) -> list[str]:
    return line.rstrip("\n").split("\t")


def _columns(
    header: Sequence[str], kind: type[Row], path: Path
) -> list[tuple[Callable[[str], Any], int]]:
    """How each field is read, and from which column: later versions may have more of these."""
    missing = [name for name in kind._fields if name not in header]
    if missing:
        raise InputError(f"there is no column {missing[0]}; run predict again", path, 1)
    types = kind.__annotations__
    return [(_READERS[types[name]], header.index(name)) for name in kind._fields]


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
    """Whether this is the hidden folder of a run."""
    hidden = RunFiles(Path()).hidden.name
    return path.is_dir() and path.name.startswith(".") and path.name.endswith(hidden)


def _in_its_form(files: RunFiles) -> RunFiles:
    """With names of gzipped tables where these are what is there."""
    packed = replace(files, packed=True)
    there = [form for form in (files, packed) if form.contigs.exists() or form.calls.exists()]
    return there[0] if there else files
