"""Columns of a block -> lines of our tables, formatted by columns."""

from collections.abc import Sequence
from typing import Any, NamedTuple

from virnucpro.records import Records
from virnucpro.results.regions import Region
from virnucpro.results.schema import kinds_of


def header(*parts: type[NamedTuple]) -> bytes:
    """Return the first line of a table. parts: of results.schema, as in text_of."""
    return ("\t".join(name for part in parts for name in part._fields) + "\n").encode()


def text_of(*parts: NamedTuple) -> bytes:
    """Return the rows of a table. parts: its columns, and after them those of this run alone."""
    return _encoded(lines_of(*parts))


def lines_of(*parts: NamedTuple) -> list[str]:
    """Return the rows as text_of does, line by line, without line ends.

    A column of equal cells, as many are, becomes a part of the form of all lines.
    """
    form, varying = list[str](), list[list[Any]]()
    for part in parts:
        for kind, column in zip(kinds_of(type(part)).values(), part, strict=True):
            cells = kind.cells(column)
            if cells and cells[0] == cells[-1] and cells.count(cells[0]) == len(cells):
                form.append(str(cells[0]).replace("%", "%%"))
            else:
                form.append("%s")
                varying.append(cells)
    row = "\t".join(form)
    if not varying:
        return [row % ()] * len(cells)
    lines = zip(*varying, strict=True)
    if len(varying) == len(form) and all(isinstance(cells[0], str) for cells in varying if cells):
        return [*map("\t".join, lines)]  # faster, as in the tables of the published tool
    return [row % line for line in lines]


def bed_rows(records: Records, regions: Sequence[Region]) -> bytes:
    """Return the rows of regions.bed, BED6; the fourth column tells records of one name apart."""
    lines = [
        f"{records.name[r.index]}\t{r.start}\t{r.end}\t{records.sample[r.index]}:"
        f"{records.record[r.index]}:{r.number}\t{round(1000 * r.p_virus)}\t."
        for r in regions
    ]
    return _encoded(lines)


def _encoded(lines: Sequence[str]) -> bytes:
    """Return lines as bytes; letters of a name that are no UTF-8 come out as they came in."""
    return "\n".join((*lines, "")).encode("utf-8", "surrogateescape")
