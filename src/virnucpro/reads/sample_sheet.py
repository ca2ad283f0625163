"""A sheet of samples: a tab-separated table of names and files. Knows no run."""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path

from virnucpro.errors import InputError
from virnucpro.reads import open_sources

COLUMNS = ("sample", "path", "mates")
MOST_SHOWN = 60


@dataclass(frozen=True, slots=True)
class Sample:
    """A row of a sheet. name is also that of a folder; paths are as they stand there."""

    name: str
    path: Path
    mates: Path | None = None


def read_sheet(path: Path) -> list[Sample]:
    """The rows of a sheet whose first line names the columns sample, path and perhaps mates.

    Raises InputError naming line and column of all that is wrong, also files that cannot be read.
    """
    try:
        lines = path.read_text("utf-8-sig").split("\n")
    except OSError as error:
        raise InputError(f"cannot be read ({error.strerror}); check the path", path) from error
    except UnicodeDecodeError as error:
        raise InputError(
            "the sheet is no UTF-8 text; export it as text with tabs between its columns", path
        ) from error
    header = _cells(lines[0])
    if header not in (list(COLUMNS[:2]), list(COLUMNS)):
        raise InputError(
            "the first line must name the columns sample, path and, if wanted, mates, with tabs "
            f"between them, not {lines[0].strip()[:MOST_SHOWN]!r}; {_do(lines[0])}",
            path,
            1,
        )
    samples: list[Sample] = []
    faults: list[InputError] = []
    seen: dict[str, int] = {}
    for number, line in enumerate(lines[1:], 2):
        if not line.strip():
            continue
        cells = _cells(line)
        wrong = [
            InputError(why, path, number)
            for why in (_wrong_columns(cells, len(header)) or _wrong_cells(cells, seen))
        ]
        seen.setdefault(cells[0], number)
        faults += wrong
        if not wrong:
            name, file, mates = [*cells, ""][:3]
            samples.append(Sample(name, Path(file), Path(mates) if mates else None))
    if faults:
        raise InputError.of(faults)
    if not samples:
        raise InputError("the sheet names no sample; add a line for each", path)
    return samples


def _do(line: str) -> str:
    """What to do about a first line that is no header."""
    if line.startswith((">", "@")):
        return "this looks like an input: name it without --sample-sheet"
    apart = next(
        (word for sign, word in ((",", "commas"), (";", "semicolons")) if sign in line), ""
    )
    if apart and "\t" not in line:
        return f"its columns are {apart} apart: put tabs instead"
    return "write that line at the top"


def _cells(line: str) -> list[str]:
    return [cell.strip() for cell in line.split("\t")]


def _wrong_columns(cells: list[str], columns: int) -> list[str]:
    if len(cells) <= columns:
        return []
    return [
        f"{len(cells)} columns, but the header has {columns}; name them there, or take them out"
    ]


def _wrong_cells(cells: list[str], seen: Mapping[str, int]) -> Iterator[str]:
    """What is wrong with each cell of a row; seen: the lines of the samples above it."""
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
            yield f"column {column}: standard input cannot be in a sheet"
        elif named:
            try:
                open_sources([Path(named)])
            except InputError as error:
                yield f"column {column}: {error}"
