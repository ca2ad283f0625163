"""How fast blocks are prepared for the encoders: open frames, nucleotides and proteins as ids.

    python bench/loaders.py --tokenizer tokenizer.json [--val FOLDER] [--contigs 6000]

Contigs are windows of the genomes of val, as in bench/padding.py. First the processor time that an
open frame takes, by part, in microseconds; then open frames a second of wall time, prepared in the
calling thread (0) and in 1, 2, ... others, while the calling thread does nothing else.
"""

import argparse
import time
from collections.abc import Sequence
from pathlib import Path

from figures import machine, processor_seconds, table
from padding import CHUNK_NT, LENGTHS, VALIDATION, contigs
from virnucpro.blocks import Block, Texts, blocks_of
from virnucpro.classifiers.open_frames import BLOCK_NT
from virnucpro.classifiers.prefetch import Prefetch
from virnucpro.classifiers.prepared import FramePreparation
from virnucpro.frames import OpenFrames, open_frames_of
from virnucpro.tokens import NucleotideTokenizer, protein_rows

WORKERS = (0, 1, 2)


def frames_of(block: Block) -> OpenFrames:
    """The open frames of a block."""
    texts = Texts.of_block(block)
    return open_frames_of(texts.text, texts.offset, texts.length_nt)


def parts(blocks: Sequence[Block], tokenizer: str, repeats: int) -> list[float]:
    """Microseconds an open frame of translation, nucleotide ids, protein ids."""
    frames = [frames_of(block) for block in blocks]
    # A tokenizer remembers short sequences, so each repeat has its own.
    fresh = iter([NucleotideTokenizer(tokenizer) for _ in range(repeats)])

    def tokenized() -> None:
        words = next(fresh)
        for found in frames:
            words.rows(found.nucleotides)

    seconds = (
        processor_seconds(lambda: [frames_of(block) for block in blocks], repeats),
        processor_seconds(tokenized, repeats),
        processor_seconds(lambda: [protein_rows(f.protein) for f in frames], repeats),
    )
    return [1e6 * s / sum(map(len, frames)) for s in seconds]


def rate(blocks: Sequence[Block], tokenizer: str, workers: int) -> float:
    """Open frames a second."""
    with Prefetch(FramePreparation(tokenizer), workers) as prefetch:
        began = time.perf_counter()
        count = sum(len(prepared.chunk) for _, prepared in prefetch.prepared(blocks))
        return count / (time.perf_counter() - began)


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").split("\n", 1)[0])
    parser.add_argument("--tokenizer", required=True, help="DNABERT-S's tokenizer.json")
    parser.add_argument("--val", type=Path, default=VALIDATION, help="a folder as shared/data/val")
    parser.add_argument("--contigs", type=int, default=6_000)
    parser.add_argument("--workers", type=int, nargs="+", default=WORKERS)
    parser.add_argument("--repeats", type=int, default=5)
    chosen = parser.parse_args()
    print(machine())
    rows = []
    for name, lengths in LENGTHS.items():
        blocks = list(blocks_of(contigs(chosen.val, lengths, chosen.contigs), CHUNK_NT, BLOCK_NT))
        frames = sum(len(frames_of(block)) for block in blocks)
        times = parts(blocks, chosen.tokenizer, chosen.repeats)
        rates = [rate(blocks, chosen.tokenizer, workers) for workers in chosen.workers]
        rows.append(
            [name, f"{frames:,}"]
            + [f"{s:.1f}" for s in (*times, sum(times))]
            + [f"{r:,.0f}" for r in rates]
        )
    columns = ["input", "open frames", "translate, us", "nucleotides", "proteins", "sum"]
    print(table([*columns, *(f"frames/s, {w}" for w in chosen.workers)], rows))


if __name__ == "__main__":
    main()
