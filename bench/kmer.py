"""Reads per second of the k-mer model's scoring alone, on one core.

    python bench/kmer.py [--reads 200000] [--length 150] [--k 5]

Random weights and letters: neither changes the work. Prints one line; ends with 1 below --floor.
"""

import argparse
import sys

import numpy as np

from figures import processor_seconds
from virnucpro.blocks import Block, Record, Rows
from virnucpro.classifiers.kmer import KmerClassifier, class_count


def random_block(reads: int, length_nt: int, unknown: float, rng: np.random.Generator) -> Block:
    """A block of single-chunk reads of which the share unknown of letters is N."""
    letters = np.frombuffer(b"ACGT", np.uint8)[rng.integers(4, size=reads * length_nt)]
    letters[rng.random(len(letters)) < unknown] = ord("N")
    offset = np.arange(reads, dtype=np.int64) * length_nt
    zero = np.zeros(reads, dtype=np.int64)
    rows = Rows(np.arange(reads, dtype=np.int32), np.ones(reads, np.int32), zero, zero + length_nt)
    records = tuple(Record(i, "bench", i + 1, "", length_nt, True, True) for i in range(reads))
    return Block(0, records, rows, offset, letters.tobytes(), "")


def main() -> int:
    """Measure and print."""
    options = argparse.ArgumentParser(description=(__doc__ or "").split("\n", 1)[0])
    options.add_argument("--reads", type=int, default=200_000)
    options.add_argument("--reads-per-block", type=int, default=10_000)
    options.add_argument("--length", type=int, default=150)
    options.add_argument("--k", type=int, default=5)
    options.add_argument("--unknown", type=float, default=0.0005)
    options.add_argument("--floor", type=float, default=100_000)
    chosen = options.parse_args()
    rng = np.random.default_rng(0)
    n = class_count(chosen.k)
    classifier = KmerClassifier(
        weight=rng.normal(size=n), mean=np.full(n, 1 / n), scale=np.ones(n), bias=0.0, k=chosen.k
    )
    block = random_block(chosen.reads_per_block, chosen.length, chosen.unknown, rng)
    rounds = max(chosen.reads // chosen.reads_per_block, 1)
    classifier.score_block(block)
    per_second = chosen.reads_per_block / processor_seconds(
        lambda: classifier.score_block(block), rounds
    )
    print(f"k = {chosen.k}: {per_second:,.0f} reads of {chosen.length} nt a second of one core")
    return 0 if per_second >= chosen.floor else 1


if __name__ == "__main__":
    sys.exit(main())
