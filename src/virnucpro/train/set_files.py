"""The files of a training set: FASTA and a table beside it for each side of each part.

They are what `train` and `evaluate` read with --positive and --negative. This module knows no
genome and no choice.
"""

import shutil
from collections import Counter
from dataclasses import dataclass, field
from pathlib import Path
from typing import Self

from virnucpro.storage.atomic import OutputFile, disk_errors

PARTS = ("train", "val")
SIDES = ("nonviral", "viral")  # by label
COLUMNS = (
    *("id", "group", "level", "source", "unit", "frames", "overlap_nt"),
    *("record", "start", "end", "organism"),
)
LEVEL = "CDS"
_FRAME_LETTERS = 2


@dataclass(frozen=True, slots=True)
class Chunk:
    """A labelled chunk, its confirmed frames, their letters in a CDS, and their proteins."""

    name: str
    label: int
    group: str
    source: str
    unit: str
    frames: tuple[str, ...]
    overlap_nt: tuple[int, ...]
    record: str
    start: int
    end: int
    organism: str
    letters: bytes = field(repr=False)
    proteins: tuple[str, ...] = field(repr=False)

    def row(self) -> bytes:
        """Return its line of the table."""
        lists = ",".join(self.frames), ",".join(map(str, self.overlap_nt))
        values = (self.name, self.group, LEVEL, self.source, self.unit, *lists, self.record)
        texts = [*values, str(self.start), str(self.end), " ".join(self.organism.split())]
        return ("\t".join(texts) + "\n").encode()

    def fasta(self) -> bytes:
        """Return its two lines of FASTA."""
        return b">%b\n%b\n" % (self.name.encode(), self.letters)

    def proteins_fasta(self) -> bytes:
        """Return the proteins of its frames, each under the id of its frame."""
        pairs, name = zip(self.frames, self.proteins, strict=True), _searched(self.name)
        return "".join(f">{name}{frame}\n{text}\n" for frame, text in pairs).encode()


def _searched(name: str) -> str:
    """Return a name as it is in a search; mmseqs takes but a part of one with bars."""
    return name.replace("|", "~")


class SetFiles:
    """The files of a set that is being made, for `with`.

    Val waits in the folder work, a new one, until it is known which of its chunks stay. counts: of
    chunks, frames and units, by part, side and group. sha256: of each file, once finished.
    """

    def __init__(self, out: Path, work: Path) -> None:
        self._out, self._work = out, work
        self._files: dict[tuple[str, int], tuple[OutputFile, OutputFile]] = {}
        self._proteins: dict[str, OutputFile] = {}
        self._units: dict[tuple[str, str, str], set[str]] = {}
        self.counts: dict[tuple[str, str, str], Counter[str]] = {}
        self.sha256: dict[str, str] = {}

    def __enter__(self) -> Self:
        with disk_errors(self._out):
            for folder in (self._out / "train", self._out / "val", self._work):
                shutil.rmtree(folder, ignore_errors=True)
                folder.mkdir(parents=True)
        for part in PARTS:
            self._proteins[part] = OutputFile(self._work / f"{part}.faa", durable=False)
            for label in range(len(SIDES)):
                paths = self._paths(part, label) if part == "train" else self._waiting(label)
                self._files[part, label] = self._begun(*paths)
        return self

    def __exit__(self, kind: type[BaseException] | None, *_: object) -> None:
        if kind is not None:
            for file in (*self._proteins.values(), *sum(self._files.values(), ())):
                file.abandon()

    def _paths(self, part: str, label: int) -> tuple[Path, Path]:
        name = SIDES[label]
        return self._out / part / f"{name}.fasta.gz", self._out / part / f"{name}.tsv.gz"

    def _waiting(self, label: int) -> tuple[Path, Path]:
        return self._work / f"{label}.fasta", self._work / f"{label}.tsv"

    def _begun(self, fasta: Path, table: Path) -> tuple[OutputFile, OutputFile]:
        pair = OutputFile(fasta), OutputFile(table)
        pair[1].write(("\t".join(COLUMNS) + "\n").encode())
        return pair

    def add(self, part: str, chunk: Chunk) -> None:
        """Write a chunk."""
        fasta, table = self._files[part, chunk.label]
        fasta.write(chunk.fasta())
        table.write(chunk.row())
        self._proteins[part].write(chunk.proteins_fasta())
        if part == "train":
            self._count(part, chunk.label, chunk.group, chunk.unit, len(chunk.frames))

    def _count(self, part: str, label: int, group: str, unit: str, frames: int) -> None:
        key = part, SIDES[label], group
        units = self._units.setdefault(key, set())
        units.add(unit)
        counts = self.counts.setdefault(key, Counter())
        counts.update(chunks=1, frames=frames)
        counts["units"] = len(units)

    def proteins(self) -> tuple[Path, Path]:
        """Return the proteins of val and of train, all written."""
        for file in self._proteins.values():
            file.close()
        return self._work / "val.faa", self._work / "train.faa"

    def finish(self, near: frozenset[str]) -> Counter[str]:
        """Write val without the chunks of these proteins; return how many went, by side."""
        gone = {name[:-_FRAME_LETTERS] for name in near}
        removed: Counter[str] = Counter()
        for pair in self._files.values():
            for file in pair:
                file.close()
        for label in range(len(SIDES)):
            removed[SIDES[label]] = self._copied(label, gone)
        for part in PARTS:
            for label in range(len(SIDES)):
                for file in self._files[part, label]:
                    self.sha256[f"{part}/{file.path.name}"] = file.sha256
        return removed

    def _copied(self, label: int, gone: set[str]) -> int:
        removed = 0
        fasta, table = self._begun(*self._paths("val", label))
        self._files["val", label] = fasta, table
        waiting_fasta, waiting_table = self._waiting(label)
        with waiting_fasta.open("rb") as records, waiting_table.open("rb") as rows:
            next(rows)
            for row in rows:
                record = next(records) + next(records)
                name, group, _, _, unit, frames, *_ = row.decode().split("\t")
                if _searched(name) in gone:
                    removed += 1
                    continue
                fasta.write(record)
                table.write(row)
                self._count("val", label, group, unit, frames.count(",") + 1)
        fasta.close()
        table.close()
        return removed
