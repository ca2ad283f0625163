"""Finds stretches of prokaryotic windows that look viral to a network that never saw them.

    python recipes/prophages.py --data DATA --bundle mini-500-v1 > recipes/prophages.tsv

The windows of DATA/more are scored by a bundle that was trained on DATA/train alone. A stretch is
what windows of 5 kb with a mean score of MEAN and more cover together, from its first to its last
chunk that is called. Columns: id, start, end (0-based half-open), mean_score.
"""

import argparse
import csv
import gzip
import sys
from collections.abc import Iterator
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from virnucpro.bundle import load
from virnucpro.reads import letters, open_sources

GROUPS = ("bacteria", "archaea", "plasmid")
CHUNKS = 10
MEAN = 0.7


def windows(data: Path) -> Iterator[tuple[str, str]]:
    """Id and letters of each prokaryotic genome window of more that holds 5 kb."""
    folder = data / "more"
    with gzip.open(folder / "nonviral.tsv.gz", "rt", encoding="utf-8") as table:
        rows = csv.DictReader(table, delimiter="\t", quoting=csv.QUOTE_NONE)
        wanted = {r["id"] for r in rows if r["group"] in GROUPS and r["level"] == "window"}
    (source,) = open_sources([folder / "nonviral.fasta.gz"])
    for contig in source.contigs():
        if (name := contig.name.partition("|")[0]) in wanted:
            yield name, letters(contig.sequence).decode("ascii")


def stretches(score: NDArray[np.float64], threshold: float = 0.5) -> list[tuple[int, int]]:
    """First and last + 1 chunk of each stretch, of scores of neighbouring chunks; nan counts 0."""
    score = np.nan_to_num(score)
    if len(score) < CHUNKS:
        return []
    total = np.concatenate([[0.0], np.cumsum(score)])
    high = (total[CHUNKS:] - total[:-CHUNKS]) / CHUNKS >= MEAN
    covered = np.convolve(high, np.ones(CHUNKS)) > 0
    edges = np.flatnonzero(np.diff(covered.astype(int), prepend=0, append=0))
    found = []
    for first, last in edges.reshape(-1, 2).tolist():
        called = first + np.flatnonzero(score[first:last] >= threshold)
        found.append((int(called[0]), int(called[-1]) + 1))
    return found


def main() -> int:
    """Writes the table to stdout."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--data", type=Path, required=True)
    parser.add_argument("--bundle", default="mini-500-v1")
    options = parser.parse_args()
    bundle = load(options.bundle)
    classifier, step = bundle.classifier("cpu", "auto"), bundle.chunk_nt
    print("id\tstart\tend\tmean_score")
    for name, text in windows(options.data):
        chunks = [text[at : at + step] for at in range(0, len(text) - step + 1, step)]
        score = classifier.score(chunks).p_virus
        for first, last in stretches(score):
            mean = np.nanmean(score[first:last])
            print(f"{name}\t{first * step}\t{last * step}\t{mean:.3f}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
