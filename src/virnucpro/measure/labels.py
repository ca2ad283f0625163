"""Labelled FASTA -> labelled contigs, for training and evaluation.

The label comes from the file that a contig lies in (positive, negative) or from a table of labels;
group, level, source and unit from the same table, from a table beside the FASTA (`viral.tsv.gz`
beside `viral.fasta.gz`), or the group from a header `>ID|group|organism`. This module knows no
model.
"""

import gzip
import hashlib
import io
import re
from collections.abc import Container, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from sys import intern

from virnucpro.calls import FRAME_NAMES
from virnucpro.errors import InputError
from virnucpro.progress import several
from virnucpro.reads import (
    FASTA_SUFFIXES,
    GZIP_ERRORS,
    GZIP_MAGIC,
    GZIP_SUFFIXES,
    Contig,
    letters,
    open_sources,
)

DESCRIPTIONS = ("group", "level", "source", "unit")
FRAMES = "frames"
_GROUP = re.compile("[a-z][a-z_]*")
# From the newest to what training has almost as it is; the first two count as strictly new.
NOVELTIES = ("unseen", "distant", "related", "close", "known")
STRICT = NOVELTIES[:2]
LABELS = {"1": 1, "0": 0}
NAMED_IN_MESSAGE = 5


@dataclass(frozen=True, slots=True)
class LabelledContig:
    """A contig of which it is known whether it is viral (label 1) or other (label 0).

    sequence holds upper-case letters with U read as T. unit is what must not be divided between
    fitting and judging; a contig for which none is given is its own unit. novelty: how near the
    nearest sequence is that a bundle was trained on, one of NOVELTIES or another word. frames: of a
    contig that is one chunk, the names of those that code, with commas. group, level, source,
    novelty and frames are empty where nothing is known.
    """

    name: str
    sequence: bytes = field(repr=False)
    label: int
    group: str = ""
    level: str = ""
    source: str = ""
    unit: str = ""
    novelty: str = ""
    frames: str = ""


@dataclass(frozen=True, slots=True)
class Labelled:
    """Labelled contigs in input order, and the sha256 of every file that they were read from.

    sha256: by folder and name (`train/viral.fasta.gz`): a training record should not tell where on
    a machine the data lay.
    faults: a sentence for each contig that cannot be read as DNA. Such a contig stays among the
    others with an empty sequence: it is never drawn from, and in an evaluation it has no score.
    tables: those beside the files, whether they describe them or not.
    """

    contigs: list[LabelledContig]
    sha256: dict[str, str]
    faults: list[str]
    tables: Sequence["Beside"] = ()


@dataclass(frozen=True, slots=True)
class Table:
    """Rows of one or several tables by id; label is None where the table has no such column."""

    rows: Mapping[str, tuple[int | None, tuple[str, ...]]]
    described: bool
    where: str

    def row_of(self, name: str) -> str | None:
        """The id in the table of a contig: its name, or the part of it before the first `|`."""
        if name in self.rows:
            return name
        first = name.partition("|")[0]
        return first if first in self.rows else None


def read_two_sided(positive: Sequence[Path], negative: Sequence[Path]) -> Labelled:
    """Contigs of viral (positive) and other (negative) FASTA files.

    A table of the same name beside a file (`x.tsv` or `x.tsv.gz` beside `x.fasta.gz`) that has a
    column id and any of group, level, source, unit describes its contigs. Raises InputError for a
    file that cannot be read, a side without a contig, or a contig that such a table leaves out.
    """
    contigs: list[LabelledContig] = []
    sha256: dict[str, str] = {}
    faults: list[str] = []
    tables: list[Beside] = []
    for label, paths in ((1, positive), (0, negative)):
        found = 0
        for path in paths:
            table = None
            if (there := beside(path)) is not None:
                tables.append(there)
                table = read_table([there.path], sha256) if there.describes else None
            for contig in _contigs([path], sha256, faults):
                contigs.append(_labelled(contig, label, table))
                found += 1
        if not found:
            named = ", ".join(map(str, paths)) or "no file"
            side = "positive" if label else "negative"
            raise InputError(f"there is no contig on the {side} side ({named})")
    return Labelled(contigs, sha256, faults, tables)


def read_with_labels(fasta: Sequence[Path], labels: Sequence[Path]) -> Labelled:
    """Contigs of FASTA files with the labels of tables.

    A table is tab-separated, plain or gzip; its header names the columns id and label (1 = viral,
    0 = other) and, if wanted, group, level, source, unit. Raises InputError that names every kind
    of mismatch: a contig without a label, a label without a contig, an id that occurs twice.
    """
    sha256: dict[str, str] = {}
    faults: list[str] = []
    table = read_table(labels, sha256)
    without_label = [row for row, (label, _) in table.rows.items() if label is None]
    if without_label:
        raise InputError("the table has no column label (1 = viral, 0 = other)", table.where)
    contigs: list[LabelledContig] = []
    used: set[str] = set()
    missing: list[str] = []
    for contig in _contigs(fasta, sha256, faults):
        row = table.row_of(contig.name)
        if row is None:
            missing.append(contig.name)
            continue
        if row in used:
            raise InputError(f"{row} occurs twice in {_names(fasta)}; ids must be unique here")
        used.add(row)
        label, _ = table.rows[row]
        contigs.append(_labelled(contig, 0 if label is None else label, table))
    unused = [row for row in table.rows if row not in used]
    if missing:
        raise InputError(
            f"{_listed(missing)} without a label, of {_names(fasta)}; add a row for each, or take "
            "these sequences out",
            table.where,
        )
    if unused:
        raise InputError(
            f"{_listed(unused)} labelled here, but missing in {_names(fasta)}", table.where
        )
    if not contigs:
        raise InputError(f"there is no contig in {_names(fasta)}")
    return Labelled(contigs, sha256, faults)


def with_novelty(contigs: Sequence[LabelledContig], path: Path) -> list[LabelledContig]:
    """The contigs with the novelty that a table with columns id and novelty has of them.

    Contigs that it leaves out stay as they are. Raises InputError for a table without these
    columns, an id twice, or one that is no contig.
    """
    lines = _lines(path)
    header = next(lines, [])
    if missing := {"id", "novelty"} - set(header):
        raise InputError(f"the first line names no column {min(missing)}", path, 1)
    novelty: dict[str, str] = {}
    for _, row in _rows(lines, header, novelty, path):
        novelty[row["id"]] = row["novelty"]
    table = Table(dict.fromkeys(novelty, (None, ())), True, str(path))
    rows = [table.row_of(contig.name) for contig in contigs]
    if unused := sorted(set(novelty).difference(row for row in rows if row is not None)):
        raise InputError(f"{_listed(unused)} described here, but not among the contigs", path)
    return [
        contig if row is None else replace(contig, novelty=novelty[row])
        for contig, row in zip(contigs, rows, strict=True)
    ]


@dataclass(frozen=True, slots=True)
class Beside:
    """A table of the name of a FASTA file. describes: whether it has the columns for that."""

    path: Path
    fasta: Path
    describes: bool

    @property
    def sentence(self) -> str:
        """The use that is made of it, for the log."""
        if self.describes:
            return f"{self.path} describes the sequences of {self.fasta}"
        return (
            f"{self.path} is not used: to describe the sequences of {self.fasta.name}, "
            f"its first line must name a column id and any of {', '.join(DESCRIPTIONS)}, between "
            "tabs"
        )


def beside(fasta: Path) -> Beside | None:
    """Return the table beside a FASTA file: the same name with .tsv or .tsv.gz."""
    name = fasta.name
    for suffixes in (GZIP_SUFFIXES, FASTA_SUFFIXES):
        name = next((name[: -len(s)] for s in suffixes if name.lower().endswith(s)), name)
    paths = (fasta.with_name(name + suffix) for suffix in (".tsv", ".tsv.gz"))
    tables = [Beside(path, fasta, _describes(path)) for path in paths if path.is_file()]
    return next((table for table in tables if table.describes), tables[0] if tables else None)


def _describes(path: Path) -> bool:
    header = next(_lines(path), [])
    return "id" in header and any(column in header for column in DESCRIPTIONS)


def table_beside(fasta: Path) -> Path | None:
    """Return the table beside a FASTA file that describes its sequences."""
    found = beside(fasta)
    return found.path if found is not None and found.describes else None


def read_table(paths: Sequence[Path], sha256: dict[str, str]) -> Table:
    """Rows of tables with a header; the sha256 of each file is added under its path."""
    rows: dict[str, tuple[int | None, tuple[str, ...]]] = {}
    described = False
    for path in paths:
        lines = _lines(path)
        header = next(lines, [])
        if "id" not in header:
            raise InputError(
                "the first line names no column id; name the columns there, with tabs between them",
                path,
                1,
            )
        described = described or any(column in header for column in DESCRIPTIONS)
        for line, row in _rows(lines, header, rows, path):
            rows[row["id"]] = _description(row, path, line)
        _keep(sha256, path, hashlib.sha256(path.read_bytes()).hexdigest())
    return Table(rows, described, _names(paths))


def _rows(
    lines: Iterator[list[str]], header: list[str], before: Container[str], path: Path
) -> Iterator[tuple[int, dict[str, str]]]:
    """The rows behind a header with their line numbers. before: the ids of rows before each."""
    for line, values in enumerate(lines, start=2):
        if len(values) != len(header):
            message = f"{len(values)} columns, but the header has {len(header)}"
            raise InputError(message, path, line)
        row = dict(zip(header, values, strict=True))
        if row["id"] in before:
            raise InputError(f"the id {row['id']} occurs a second time", path, line)
        yield line, row


def _description(row: dict[str, str], path: Path, line: int) -> tuple[int | None, tuple[str, ...]]:
    """The label of a row, None without that column, and its values of DESCRIPTIONS and FRAMES."""
    label = None
    if "label" in row:
        if row["label"] not in LABELS:
            raise InputError(f"the label is {row['label']!r}, but must be 1 or 0", path, line)
        label = LABELS[row["label"]]
    frames = row.get(FRAMES, "")
    if frames and not {*frames.split(",")} <= {*FRAME_NAMES}:
        raise InputError(
            f"the frames are {frames!r}, but must be of {', '.join(FRAME_NAMES)}, with commas",
            path,
            line,
        )
    # Few different values, each in memory once.
    values = [intern(row.get(column, "")) for column in (*DESCRIPTIONS, FRAMES)]
    return label, tuple(values)


def _lines(path: Path) -> Iterator[list[str]]:
    """The tab-separated values of each line that is not empty."""
    try:
        content = path.read_bytes()
        if content.startswith(GZIP_MAGIC):
            content = gzip.decompress(content)
        text = content.decode("utf-8-sig")
    except (OSError, *GZIP_ERRORS) as error:
        raise InputError(f"the table cannot be read ({error})", path) from error
    except UnicodeDecodeError as error:
        raise InputError("the table is not UTF-8 text", path) from error
    for line in io.StringIO(text):
        if line.strip():
            yield line.rstrip("\r\n").split("\t")


def _contigs(paths: Sequence[Path], sha256: dict[str, str], faults: list[str]) -> Iterator[Contig]:
    for path in paths:
        (source,) = open_sources([path])
        for contig in source.contigs():
            if contig.fault:
                faults.append(f"{path}, record {contig.record} ({contig.name}): {contig.fault}")
            yield contig
        _keep(sha256, path, source.sha256)


def _labelled(contig: Contig, label: int, table: Table | None) -> LabelledContig:
    group, level, source, unit, frames = _header_group(contig.name), "", "", "", ""
    if table is not None and table.described:
        row = table.row_of(contig.name)
        if row is None:
            raise InputError(
                f"no row for the contig {contig.name}; add one, or move the table elsewhere",
                table.where,
            )
        told_group, level, source, unit, frames = table.rows[row][1]
        group = told_group or group
    sequence = letters(contig.sequence)
    unit = unit or contig.name
    told = group, level, source, unit
    return LabelledContig(contig.name, sequence, label, *told, frames=frames)


def _header_group(name: str) -> str:
    """Return the group in a header `>ID|group|organism`; NCBI's have numbers or capitals there."""
    parts = name.split("|")
    return parts[1] if len(parts) == 3 and all(parts) and _GROUP.fullmatch(parts[1]) else ""


def _keep(sha256: dict[str, str], path: Path, digest: str) -> None:
    short = "/".join(path.parts[-2:])
    sha256[str(path) if sha256.get(short, digest) != digest else short] = digest


def _names(paths: Iterable[Path]) -> str:
    return ", ".join(map(str, paths))


def _listed(names: Sequence[str]) -> str:
    shown = ", ".join(names[:NAMED_IN_MESSAGE])
    more = len(names) - NAMED_IN_MESSAGE
    return f"{several(len(names), 'id')} ({shown}{f' and {more} more' if more > 0 else ''})"
