"""An estimate of the disk that a run will take, from a look at the head of its inputs.

The figures are upper ends for usual data: every record called virus, every name there twice. They
are for a warning before the start, never for a decision.
"""

import shutil
from collections.abc import Iterable, Sequence
from contextlib import closing, suppress
from dataclasses import dataclass
from math import ceil
from pathlib import Path

from virnucpro.errors import StreamBroken
from virnucpro.reads import Source

HEAD_BYTES = 1 << 21
# Bytes for each record and each chunk, besides names, in finished blocks and in tables. At their
# peak, runs of reads of 150 nt and of contigs of 7,000 nt took 59 to 65 and 102 to 223 with names
# of 5 to 27 letters (kmer-500 and mini-500); of names each takes about 5 copies.
BLOCK_A_ROW, TABLES_A_ROW = 65, 140
# Shares of the tables that are left when they are gzipped, and without the published ones: 0.21
# to 0.33, and 0.39 to 0.59 in the same runs of kmer-500.
PACKED, WITHOUT_COMPAT = 0.4, 0.6
# Of a frame, by the published encoders.
EMBEDDING = 4 * (768 + 2560) + 20
# How often the letters of an input are written: a region also stands in its record's others.fasta.
COPIES = {"none": 0, "viral": 1, "all": 2}
# Of six frames so many are open on average where a bundle scores frames, with room to spare.
OPEN_FRAMES = 2


@dataclass(frozen=True, slots=True)
class Shape:
    """The content of an input, counted in its head and multiplied up.

    name_bytes: of all names; mates: records that are one of a pair. letters_a_byte: letters,
    also of headers, to a byte on the disk.
    """

    records: float
    chunks: float
    letters: float
    name_bytes: float
    sample_bytes: int
    mates: float = 0.0
    letters_a_byte: float = 1.0

    @classmethod
    def of(cls, source: Source, chunk_nt: int) -> "Shape":
        """Reads records of the first HEAD_BYTES. A stream that breaks ends it early.

        Raises InputError as Source.contigs does, and VirnucproError where a pipe cannot be kept.
        """
        records = chunks = letters = names = mates = 0
        whole, read, head = 1.0, 0, source.again()
        with suppress(StreamBroken), closing(head.contigs()) as contigs:
            for contig in contigs:
                length_nt = len(contig.sequence)
                records += 1
                chunks += ceil(length_nt / chunk_nt)
                letters += length_nt
                mates += contig.mate > 0
                names += len(contig.name.encode("utf-8", "surrogateescape"))
                if records == 1 or letters + names <= HEAD_BYTES:
                    read = head.bytes_read
                elif head.bytes_read > read:  # what was read ahead is used up
                    whole = max(1.0, source.size_bytes / max(1, read))
                    break
        columns = (records * whole, chunks * whole, letters * whole, names * whole)
        density = head.letters / read if head.letters and read else 1.0
        return cls(*columns, len(source.sample.encode()), mates * whole, density)


@dataclass(frozen=True, slots=True)
class Need:
    """Bytes of disk: of finished blocks, and of tables with what is sorted to make them."""

    blocks: int
    tables: int


def disk_needed(
    shapes: Iterable[Shape],
    *,
    frames: bool,
    packed: bool,
    compat: bool,
    sequences: str = "viral",
    embeddings: bool = False,
) -> Need:
    """Return what a run of such inputs takes at its peak.

    frames: whether the bundle scores frames; packed, compat, sequences, embeddings: as the settings
    tables, compat_tables, write and save_embeddings.
    """
    blocks = tables = 0.0
    share = (PACKED if packed else 1) * (1 if compat else WITHOUT_COMPAT)
    for shape in shapes:
        n, per_chunk = max(1.0, shape.records), OPEN_FRAMES if frames else 1
        name = shape.name_bytes / n
        rows = n + shape.chunks * (1 + per_chunk) / 2 + shape.mates / 2
        blocks += rows * (BLOCK_A_ROW + name / 2)
        tables += rows * (TABLES_A_ROW + 4.5 * name + 2 * shape.sample_bytes) * share
        tables += shape.letters * 61 / 60 * COPIES[sequences]
        if embeddings:  # in the blocks, and in their table
            blocks += shape.chunks * per_chunk * EMBEDDING
            tables += shape.chunks * per_chunk * EMBEDDING
    return Need(ceil(blocks), ceil(tables))


def shortage(needs: Sequence[tuple[Path, int]]) -> str | None:
    """Return one sentence if what existing folders are to take does not fit on their disks."""
    by_disk: dict[int, tuple[Path, int]] = {}
    for folder, needed in needs:
        first, sum_bytes = by_disk.get(folder.stat().st_dev, (folder, 0))
        by_disk[folder.stat().st_dev] = first, sum_bytes + needed
    for folder, needed in by_disk.values():
        free = shutil.disk_usage(folder).free
        if needed > free:
            return (
                f"{folder}: this run may need up to {_size(needed)}, but {_size(free)} "
                "are free; free some space, or write less with --tables gz or --no-compat-tables"
            )
    return None


def _size(count: int) -> str:
    if count < 1e5:
        return f"{count / 1e3:.0f} kB"
    return f"{count / 1e6:.1f} MB" if count < 1e8 else f"{count / 1e9:.1f} GB"
