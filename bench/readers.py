"""Nucleotides a second that each reader delivers, in one thread of Python.

    python bench/readers.py [--reads 400000] [--length 150] [--only FASTQ,gzip ...] [--markdown]

Random reads with binned qualities, and contigs of 20 kb as FASTA on lines of 60, are written in
every format and compression and read to the end with their digests, as predict reads them. Each is
read three times, the median counts. Beside seconds of the clock stand those of the processor, which
tell what a busy machine would do alone; BAM, CRAM and SAM are read by two threads. Names the
readers that deliver less than --floor in a second of the processor, and ends with 1: 100 times the
0.3 million nucleotides a second that one H100 takes for the largest published encoder.
"""

import argparse
import bz2
import gzip
import lzma
import statistics
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
import pysam

from figures import machine, markdown, table
from virnucpro.reads import open_sources
from virnucpro.reads.compression import ZstdCompressor

FLOOR = 30e6
COLUMNS = ("input", "MB", "s", "processor s", "Mnt/s", "Mnt a processor s", "records/s")
COMPRESSIONS: dict[str, Callable[[bytes], bytes]] = {
    "plain": lambda data: data,
    "gzip": lambda data: gzip.compress(data, 6),
    "bzip2": bz2.compress,
    "xz": lambda data: lzma.compress(data, preset=2),
    "zstd": lambda data: ZstdCompressor(level=3).compress(data, ZstdCompressor.FLUSH_FRAME),
}


def random_letters(rng: np.random.Generator, letters: bytes, n: int) -> bytes:
    """So many of these letters, the first half of which are rare."""
    weights = np.geomspace(1, 8 if len(letters) > 4 else 1, len(letters))
    return rng.choice(np.frombuffer(letters, np.uint8), n, p=weights / weights.sum()).tobytes()


def made(reads: int, length: int) -> Iterator[tuple[str, bytes]]:
    """Names and texts of FASTQ and FASTA of reads, and of FASTA of contigs."""
    rng = np.random.default_rng(0)
    bases = random_letters(rng, b"ACGT", reads * length)
    quality = random_letters(rng, b"#,:F", reads * length)
    spans = [slice(i * length, (i + 1) * length) for i in range(reads)]
    named = [
        (b"A00123:45:HXXXXX:1:%d:%d:%d" % (i % 96, i // 96, i), s) for i, s in enumerate(spans)
    ]
    yield "FASTQ", b"".join(b"@%b\n%b\n+\n%b\n" % (n, bases[s], quality[s]) for n, s in named)
    yield "FASTA of reads", b"".join(b">%b\n%b\n" % (n, bases[s]) for n, s in named)
    lines = [bases[i : i + 60] for i in range(0, len(bases), 60)]
    contigs = (lines[i : i + 333] for i in range(0, len(lines), 333))
    yield (
        "FASTA of contigs",
        b"".join(b">c%d\n%b\n" % (i, b"\n".join(part)) for i, part in enumerate(contigs)),
    )


def alignments(fastq: bytes, path: Path, mode: str) -> None:
    """The same reads, unaligned and paired, as BAM or CRAM."""
    lines = fastq.decode("ascii").split("\n")
    with pysam.AlignmentFile(path, mode, header={"HD": {"VN": "1.6"}}) as file:
        for i in range(len(lines) // 4):
            name, sequence, _, quality = lines[4 * i : 4 * i + 4]
            record = pysam.AlignedSegment(file.header)
            record.query_name, record.flag = f"{name[1:]}{i // 2}", (0x4D, 0x8D)[i % 2]
            record.query_sequence = sequence
            record.query_qualities = pysam.qualitystring_to_array(quality)
            file.write(record)


def measured(path: Path, name: str) -> tuple[float, list[str]]:
    """Nucleotides a second of the processor, and a row of the table."""
    times: list[tuple[float, float]] = []
    for _ in range(3):
        (source,) = open_sources([path])
        clock, processor, letters, records = time.perf_counter(), time.process_time(), 0, 0
        for contig in source.contigs():
            letters += len(contig.sequence)
            records += 1
        times.append((time.perf_counter() - clock, time.process_time() - processor))
        assert source.sha256
    seconds, processor = (statistics.median(column) for column in zip(*times, strict=True))
    size = path.stat().st_size
    figures = (seconds, processor, letters / seconds / 1e6, letters / processor / 1e6)
    row = [name, f"{size / 1e6:.1f}", *(f"{value:.2f}" for value in figures)]
    return letters / processor, [*row, f"{records / seconds:,.0f}"]


def main() -> int:
    """Write, read, print."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").split("\n", 1)[0])
    parser.add_argument("--reads", type=int, default=400_000)
    parser.add_argument("--length", type=int, default=150)
    parser.add_argument("--only", nargs="+", help="as FASTQ,gzip or BAM")
    parser.add_argument("--floor", type=float, default=FLOOR)
    parser.add_argument("--markdown", action="store_true")
    chosen = parser.parse_args()
    print(machine())
    rows, slow = [], []
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "in"

        def try_one(name: str, write: Callable[[], object]) -> None:
            if chosen.only and name.replace(" ", "").replace(",plain", "") not in chosen.only:
                return
            write()
            rate, row = measured(path, name)
            rows.append(row)
            if rate < chosen.floor:
                slow.append(name)

        for form, text in made(chosen.reads, chosen.length):
            for packed, pack in COMPRESSIONS.items():
                try_one(f"{form}, {packed}", lambda t=text, p=pack: path.write_bytes(p(t)))
            if form == "FASTQ":
                for name, mode in (("BAM", "wb"), ("CRAM", "wc"), ("SAM", "w")):
                    try_one(name, lambda t=text, m=mode: alignments(t, path, m))
    print((markdown if chosen.markdown else table)(COLUMNS, rows))
    for name in slow:
        print(f"{name}: below {chosen.floor / 1e6:g} Mnt/s")
    return 1 if slow else 0


if __name__ == "__main__":
    sys.exit(main())
