"""Reads of one kind in every form that people have them in."""

import bz2
import gzip
import lzma
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path

import pysam
from backports import zstd

COMPRESSIONS: dict[str, Callable[[bytes], bytes]] = {
    "plain": lambda data: data,
    "gzip": gzip.compress,
    "bzip2": bz2.compress,
    "xz": lzma.compress,
    "zstd": zstd.compress,
}
Reads = Sequence[tuple[str, str]]


def fastq(reads: Iterable[tuple[str, str]]) -> bytes:
    """Headers and sequences as FASTQ."""
    return "".join(f"@{header}\n{s}\n+\n{'I' * len(s)}\n" for header, s in reads).encode()


def ubam(path: Path, reads: Reads, *, paired: bool = False, mode: str = "wb") -> Path:
    """Unaligned reads as BAM ("wb") or CRAM ("wc"); paired: each two are mates."""
    with pysam.AlignmentFile(path, mode, header={"HD": {"VN": "1.6", "SO": "unsorted"}}) as file:
        for i, (name, sequence) in enumerate(reads):
            flag = 0x4 | (0x1 | 0x8 | (0x40, 0x80)[i % 2] if paired else 0)
            file.write(alignment(file.header, name, sequence, flag))
    return path


def alignment(
    header: pysam.AlignmentHeader, name: str, sequence: str, flag: int, start: int = -1
) -> pysam.AlignedSegment:
    """A record; aligned in whole from start on, if that is given."""
    made = pysam.AlignedSegment(header)
    made.query_name, made.flag = name, flag
    made.query_sequence = sequence
    made.query_qualities = pysam.qualitystring_to_array("I" * len(sequence))
    if start >= 0:
        made.reference_id, made.reference_start = 0, start
        made.cigarstring, made.mapping_quality = f"{len(sequence)}M", 60
    return made


def count(path: Path, *options: str) -> int:
    """samtools view -c."""
    return int(pysam.view("-c", *options, str(path)))
