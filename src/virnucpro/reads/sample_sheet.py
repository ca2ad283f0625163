"""A sheet of samples: a tab-separated table of names and files. Knows no run."""

import re
from codecs import BOM_UTF16_BE, BOM_UTF16_LE
from collections.abc import Iterator, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

from virnucpro.errors import InputError
from virnucpro.reads import open_sources

COLUMNS = ("sample", "path", "mates")
MOST_SHOWN = 60


@dataclass(frozen=True, slots=True)
class SheetRow:
    """A row of a sheet. name is also the name of a folder; paths are as they stand there."""

    name: str
    path: Path
    mates: Path | None = None


def read_sheet(path: Path) -> list[SheetRow]:
    """The rows of a sheet whose first line names the columns sample, path and perhaps mates.

    What spreadsheets and R add is passed over: quotes around cells, empty cells behind the last
    column, rows of empty cells, and a byte-order mark, also the one of UTF-16.

    Raises InputError naming line and column of all that is wrong, also files that cannot be read.
    """
    try:
        lines = _text(path.read_bytes()).split("\n")
    except OSError as error:
        raise InputError(f"cannot be read ({error.strerror}); check the path", path) from error
    except UnicodeDecodeError as error:
        raise InputError(
            "the sheet is not UTF-8 text; export it as UTF-8 (or Unicode) text with tabs between "
            "its columns",
            path,
        ) from error
    header = [cell.lower() for cell in _cells(lines[0])]
    if header not in (list(COLUMNS[:2]), list(COLUMNS)):
        raise InputError(
            "the first line must name the columns sample, path and, if wanted, mates, in this "
            f"order with tabs between them{_instead(lines[0], header)}",
            path,
            1,
        )
    samples: list[SheetRow] = []
    faults: list[InputError] = []
    seen: dict[str, int] = {}
    for number, line in enumerate(lines[1:], 2):
        cells = _cells(line)
        if not any(cells):
            continue
        wrong = [
            InputError(why, path, number)
            for why in (_wrong_columns(cells, len(header)) or _wrong_cells(cells, seen))
        ]
        seen.setdefault(cells[0], number)
        faults += wrong
        if not wrong:
            name, file, mates = [*cells, ""][:3]
            samples.append(SheetRow(name, _path(file), _path(mates) if mates else None))
    if faults:
        raise InputError.of(faults)
    if not samples:
        raise InputError("the sheet names no sample; add a line for each", path)
    return samples


def _instead(line: str, header: Sequence[str]) -> str:
    """Return what a first line that is not our header holds, and what to do. header: its cells."""
    if not line.strip():
        return ", but it is empty; write it"
    if len(header) < 2 or not {*COLUMNS} & {*header}:
        return f", not {line.strip()[:MOST_SHOWN]!r}; {_do(line)}"
    missing = " and ".join(name for name in COLUMNS[:2] if name not in header)
    unknown = ", ".join(repr(name[:MOST_SHOWN]) for name in header if name not in COLUMNS)
    wrong = [f"{missing} missing"] if missing else []
    wrong += [f"{unknown} unknown"] if unknown else []
    why = f" ({'; '.join(wrong)})" if wrong else ""
    todo = "rename them, or take others out" if wrong else "put each there once, in this order"
    return f", but it names {', '.join(header)[:MOST_SHOWN]}{why}; {todo}"


def _do(line: str) -> str:
    """Return what to do about a first line that names no column of ours."""
    if line.startswith((">", "@")):
        return "this looks like an input: name it without --sample-sheet"
    apart = next(
        (word for sign, word in ((",", "commas"), (";", "semicolons")) if sign in line), ""
    )
    if apart and "\t" not in line:
        return f"its columns are {apart} apart: put tabs instead"
    if "\t" in line:
        return "rename its columns, or write such a line above it if it is a sample"
    return "write that line at the top"


def _text(data: bytes) -> str:
    """Return data as text, with plain line ends. Raises UnicodeDecodeError."""
    encoding = "utf-16" if data.startswith((BOM_UTF16_LE, BOM_UTF16_BE)) else "utf-8-sig"
    return re.sub(r"\r\n?", "\n", data.decode(encoding))


def _cells(line: str) -> list[str]:
    """The cells of a line, without the empty ones at its end."""
    cells = [_unquoted(cell.strip()) for cell in line.split("\t")]
    while len(cells) > 1 and not cells[-1]:
        cells.pop()
    return cells


def _unquoted(cell: str) -> str:
    if len(cell) > 1 and cell[0] == cell[-1] == '"':
        return cell[1:-1].replace('""', '"').strip()
    return cell


def _path(text: str) -> Path:
    """The file that a cell names; ~ is a home, as in a shell."""
    path = Path(text)
    with suppress(RuntimeError):  # of nobody here
        return path.expanduser()
    return path


def _wrong_columns(cells: list[str], columns: int) -> list[str]:
    if len(cells) <= columns:
        return []
    return [
        f"{len(cells)} columns, but the header has {columns}; name them there, or take them out"
    ]


def _wrong_cells(cells: list[str], seen: Mapping[str, int]) -> Iterator[str]:
    """Yield what is wrong with each cell of a row; seen: the lines of the samples above it."""
    name, file, mates = [*cells, "", ""][:3]
    if not name:
        yield "column sample: it is empty"
    elif name.startswith(".") or "/" in name or not name.isprintable():
        yield f"column sample: {name!r} cannot name a folder; choose another"
    elif name in seen:
        yield f"column sample: {name} stands on line {seen[name]}, too; give it one line"
    if not file:
        yield "column path: it is empty"
    for column, named in (("path", file), ("mates", mates)):
        if named == "-":
            yield f"column {column}: must be a file, and - is standard input"
        elif "\0" in named:
            yield f"column {column}: {named!r} cannot name a file"
        elif named:
            try:
                open_sources([_path(named)])
            except InputError as error:
                yield f"column {column}: {error}"
