"""viral.fasta and others.fasta: a second pass over the input, checked against the first.

What goes where is written down while the tables are made, a byte a record and the ends of regions,
and read again here; nothing is held. This module knows no score.
"""

import struct
from collections.abc import Iterator, Sequence
from contextlib import closing
from dataclasses import replace
from itertools import islice
from pathlib import Path
from typing import BinaryIO, Self

import numpy as np
from numpy.typing import NDArray

from virnucpro.errors import InputError, StreamBroken
from virnucpro.reads import Contig, Seen, Source
from virnucpro.results.regions import Region
from virnucpro.storage.atomic import OutputFile

FASTA_WIDTH = 60
_CHANGED = "the file is not as it was when it was scored; run again, or name that which was scored"
_FASTA_PIECE = 10_000 * FASTA_WIDTH
_FASTA_PIECES = 2048
_OTHERS, _VIRUS, _REGIONS = b"\0", b"\1", b"\2"


class Marks:
    """The marks of what of each record is written where.

    For `with` while records are added; then for reading.
    """

    def __init__(self, folder: Path) -> None:
        self.records, self.regions = folder / "virus.flags", folder / "regions.spans"
        self._files = [OutputFile(path, durable=False) for path in (self.records, self.regions)]
        self.virus = self.excerpts = 0

    def add(self, virus: NDArray[np.bool_], regions: Sequence[Region]) -> None:
        """Add the next records, (r,), and their regions; regions of a virus stand in its record."""
        flags = virus.astype(np.uint8)
        spans: dict[int, list[int]] = {}
        for region in regions:
            if not virus[region.index]:
                spans.setdefault(region.index, []).extend((region.start, region.end))
        flags[list(spans)] = ord(_REGIONS)
        self.virus += int(virus.sum())
        self.excerpts += sum(len(ends) // 2 for ends in spans.values())
        self._files[0].write(flags.tobytes())
        for ends in spans.values():
            self._files[1].write(struct.pack(f"<{1 + len(ends)}q", len(ends), *ends))

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: type[BaseException] | None, *rest: object) -> None:
        for file in self._files:
            file.__exit__(kind, *rest)


def copy_sequences(
    sources: Sequence[Source],
    before: Sequence[Seen],
    marks: Marks,
    viral: OutputFile,
    others: OutputFile | None,
) -> None:
    """Copies records as marked; records that could not be read as DNA are in neither file.

    sources: the inputs, opened anew; before: what the first pass has seen of each. Raises
    InputError if an input has changed since, VirnucproError if the disk refuses.
    """
    with marks.records.open("rb") as flags, marks.regions.open("rb") as spans:
        wanted = (viral, others)
        waiting: tuple[list[bytes], list[bytes]] = ([], [])
        for source, seen in zip(sources, before, strict=True):
            for contig in _again(source, seen):
                flag = flags.read(1)
                if flag == _REGIONS:
                    waiting[0].extend(_excerpts(contig, _ends(spans)))
                if flag == _VIRUS:
                    waiting[0].extend(_fasta(contig))
                elif others is not None and not contig.fault:
                    waiting[1].extend(_fasta(contig))
                for file, pieces in zip(wanted, waiting, strict=True):
                    if file is not None and len(pieces) >= _FASTA_PIECES:
                        file.write(b"".join(pieces))
                        pieces.clear()
        for file, pieces in zip(wanted, waiting, strict=True):
            if file is not None and pieces:
                file.write(b"".join(pieces))


def _ends(spans: BinaryIO) -> list[int]:
    """Starts and ends of the regions of the next record that has some."""
    (number,) = struct.unpack("<q", spans.read(8))
    return list(struct.unpack(f"<{number}q", spans.read(8 * number)))


def _again(source: Source, before: Seen) -> Iterator[Contig]:
    """The contigs of an input that an earlier pass saw, and no others.

    An input that had broken off may have more by now. Raises InputError where a contig differs, or
    where a complete input is not the same to its end.
    """
    try:
        with closing(source.contigs()) as contigs:
            yield from islice(contigs, before.records)
            more = before.sha256 != "" and next(contigs, None) is not None
    except StreamBroken as error:
        raise InputError(_CHANGED, source.path) from error
    if more or replace(source.seen, sha256=before.sha256) != before:
        raise InputError(_CHANGED, source.path)
    if before.sha256 and source.sha256 != before.sha256:
        raise InputError(_CHANGED, source.path)


def _excerpts(contig: Contig, ends: Sequence[int]) -> Iterator[bytes]:
    """Stretches of a record, named as samtools faidx names them: from 1, the last one included."""
    for start, end in zip(ends[::2], ends[1::2], strict=True):
        name = f"{contig.name}:{start + 1}-{end}"
        yield from _fasta(contig._replace(header=name, sequence=contig.sequence[start:end]))


def _fasta(contig: Contig) -> Iterator[bytes]:
    """A record as in the input, on lines of FASTA_WIDTH letters, in pieces of bounded size."""
    yield b">" + contig.header.encode("utf-8", "surrogateescape") + b"\n"
    for at in range(0, len(contig.sequence), _FASTA_PIECE):
        piece = contig.sequence[at : at + _FASTA_PIECE]
        lines = [piece[i : i + FASTA_WIDTH] for i in range(0, len(piece), FASTA_WIDTH)]
        yield b"\n".join(lines) + b"\n"
