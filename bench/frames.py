"""MB/s of nucleotides through chunks and open frames, the fast path beside the plain one.

    python bench/frames.py [GENOMES.fasta[.gz]]

One core, in seconds of processor time, so that a busy machine blurs the figures less; each is the
median of several repeats. The text of a repeat is handled in blocks, as a run does. A nucleotide
counts once, also where chunks overlap. Strings of the open frames are part of the work. Random DNA
is the easy case (hardly any frame is open), genomes are the real one, reads of 60 nt the hard one
(most chunks have several).
"""

import argparse
import random
from pathlib import Path

import numpy as np

from figures import processor_seconds
from virnucpro.chunks import chunk_spans, span_arrays
from virnucpro.frames import open_frames, open_frames_of
from virnucpro.reads import letters, open_sources

BLOCK_NT = 1 << 20
PLAIN_NT = 300_000  # the plain path is too slow for more

Contigs = list[bytes]


def blocks(contigs: Contigs) -> list[Contigs]:
    """Contigs in groups of about BLOCK_NT letters."""
    groups: list[Contigs] = [[]]
    filled_nt = 0
    for contig in contigs:
        if filled_nt >= BLOCK_NT:
            groups.append([])
            filled_nt = 0
        groups[-1].append(contig)
        filled_nt += len(contig)
    return groups


def fast(contigs: Contigs, chunk_nt: int) -> int:
    """Open frames of all contigs by the path that runs use."""
    count = 0
    for group in blocks(contigs):
        spans = [span_arrays(len(contig), chunk_nt) for contig in group]
        begin = np.cumsum([0] + [len(contig) for contig in group[:-1]])
        offset = np.concatenate([b + start for b, (start, _) in zip(begin, spans, strict=True)])
        length_nt = np.concatenate([end - start for start, end in spans])
        count += len(open_frames_of(b"".join(group), offset, length_nt))
    return count


def plain(contigs: Contigs, chunk_nt: int) -> int:
    """Open frames of all contigs by the plain reading of the rules."""
    return sum(
        len(open_frames(contig[start:end].decode("ascii")))
        for contig in contigs
        for start, end in chunk_spans(len(contig), chunk_nt)
    )


def head(contigs: Contigs, length_nt: int) -> Contigs:
    """The first contigs, up to so many letters in all, the last one cut."""
    taken: Contigs = []
    for contig in contigs:
        if length_nt <= 0:
            break
        taken.append(contig[:length_nt])
        length_nt -= len(taken[-1])
    return taken


def measure(what: str, contigs: Contigs, chunk_nt: int, repeats: int) -> None:
    """Print one row of the table."""
    sample = head(contigs, PLAIN_NT)
    if fast(sample, chunk_nt) != plain(sample, chunk_nt):
        raise SystemExit("the two paths differ")
    total_nt = sum(map(len, contigs))
    plain_s = processor_seconds(lambda: plain(sample, chunk_nt), repeats)
    fast_s = processor_seconds(lambda: fast(contigs, chunk_nt), repeats)
    plain_rate, fast_rate = sum(map(len, sample)) / plain_s / 1e6, total_nt / fast_s / 1e6
    chunks = sum(len(chunk_spans(len(contig), chunk_nt)) for contig in contigs)
    print(
        f"{what:<16}{chunk_nt:>6}{total_nt / 1e6:>8.1f}{fast(contigs, chunk_nt) / chunks:>13.2f}"
        f"{plain_rate:>13.2f}{fast_rate:>13.1f}{fast_rate / plain_rate:>8.0f}"
    )


def main() -> None:
    """Measure random DNA, genomes where they are given, and short reads."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").split("\n", 1)[0])
    parser.add_argument("genomes", type=Path, nargs="?", help="FASTA of real genomes")
    parser.add_argument("--repeats", type=int, default=7)
    settings = parser.parse_args()
    generator = random.Random(1)
    dna = bytes(generator.choices(b"ACGT", k=4_000_000))
    print("input            chunk     Mnt  frames/chunk   plain MB/s   fast MB/s   ratio")
    for chunk_nt in (300, 500):
        measure("random DNA", [dna], chunk_nt, settings.repeats)
    if settings.genomes is not None:
        [source] = open_sources([settings.genomes])
        genomes = [letters(contig.sequence) for contig in source.contigs()]
        for chunk_nt in (300, 500):
            measure("genomes", genomes, chunk_nt, settings.repeats)
    reads = [dna[i : i + 60] for i in range(0, 1_000_000, 60)]
    measure("reads of 60 nt", reads, 300, settings.repeats)


if __name__ == "__main__":
    main()
