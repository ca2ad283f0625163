"""How many tokens of the encoders' batches are pads, and how many open frames there are.

    python bench/padding.py --tokenizer tokenizer.json [--val FOLDER] [--contigs 4000]

Contigs are windows of the genomes of val, both sides alike: chunks of 500 nt cut whole, reads of
150 nt, and contigs of 200 to 5,000 nt. They go through blocks, chunks, frames and tokens as
`predict` takes them, up to the batches; nothing is computed with. Share: pads among all tokens, 0
to 1, by the size of a block and the token budgets of a GPU and of a CPU.
"""

import argparse
import random
from collections import Counter
from collections.abc import Iterator
from pathlib import Path

from figures import table
from virnucpro.blocks import Block, Texts, blocks_of
from virnucpro.classifiers.open_frames import BLOCK_NT
from virnucpro.classifiers.plan import CUDA_BLOCK_NT
from virnucpro.encoders import CUDA_TOKENS
from virnucpro.encoders.batching import token_batches
from virnucpro.encoders.encoder import BATCH_TOKENS
from virnucpro.frames import open_frames_of
from virnucpro.reads import Contig, letters, open_sources
from virnucpro.tokens import NucleotideTokenizer, protein_ids

VALIDATION = Path(__file__).resolve().parents[2] / "shared" / "data" / "val"
CHUNK_NT = 500
LENGTHS = {"500 nt": (500, 500), "reads of 150 nt": (150, 150), "contigs": (200, 5000)}
BLOCKS_NT = (BLOCK_NT, CUDA_BLOCK_NT)


def contigs(folder: Path, lengths: tuple[int, int], count: int) -> Iterator[Contig]:
    """Windows of genomes of both sides by turns."""
    draw = random.Random(2)
    texts = []
    for side in ("viral", "nonviral"):
        [source] = open_sources([folder / f"{side}.fasta.gz"])
        whole = [letters(contig.sequence) for contig in source.contigs()]
        texts.append([text for text in whole if len(text) >= max(lengths)])
    for record in range(1, count + 1):
        text = draw.choice(texts[record % 2])
        length_nt = draw.randint(*lengths)
        start = draw.randrange(len(text) - length_nt + 1)
        yield Contig("val", record, f"w{record}", text[start : start + length_nt])


def lengths_of(block: Block, tokenizer: NucleotideTokenizer) -> dict[str, list[int]]:
    """Tokens of each distinct sequence of a block, by encoder."""
    texts = Texts.of_block(block)
    frames = open_frames_of(texts.text, texts.offset, texts.length_nt)
    return {
        "dnabert_s": [len(ids) for ids in tokenizer.batch(sorted(set(frames.nucleotides)))],
        "esm2": [len(protein_ids(protein)) for protein in sorted(set(frames.protein))],
    }


def rows(folder: Path, tokenizer: NucleotideTokenizer, count: int) -> Iterator[list[str]]:
    """Rows of the table."""
    budgets = {"GPU": CUDA_TOKENS, "CPU": dict.fromkeys(CUDA_TOKENS, BATCH_TOKENS)}
    for name, lengths in LENGTHS.items():
        for block_nt in BLOCKS_NT:
            real, whole, batches = Counter(), Counter(), Counter()
            chunks = frames = 0
            for block in blocks_of(contigs(folder, lengths, count), CHUNK_NT, block_nt):
                found = lengths_of(block, tokenizer)
                chunks += len(block.rows)
                frames += len(found["esm2"])
                for device, encoders in budgets.items():
                    for encoder, tokens in found.items():
                        real[device, encoder] += sum(tokens)
                        for batch in token_batches(tokens, encoders[encoder]):
                            whole[device, encoder] += len(batch) * tokens[batch[0]]
                            batches[device, encoder] += 1
            for key in whole:
                pads = 1 - real[key] / whole[key]
                yield [
                    name,
                    f"{block_nt:,}",
                    *key,
                    f"{chunks:,}",
                    f"{frames:,}",
                    f"{real[key] / frames:.1f}",
                    f"{whole[key] / batches[key]:,.0f}",
                    f"{pads:.2%}",
                ]


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").split("\n", 1)[0])
    parser.add_argument("--tokenizer", required=True, help="DNABERT-S's tokenizer.json")
    parser.add_argument("--val", type=Path, default=VALIDATION, help="a folder as shared/data/val")
    parser.add_argument("--contigs", type=int, default=4_000)
    chosen = parser.parse_args()
    columns = ("input", "block", "budget", "encoder", "chunks", "open frames", "tokens a frame")
    found = list(rows(chosen.val, NucleotideTokenizer(chosen.tokenizer), chosen.contigs))
    print(table((*columns, "tokens a batch", "pads"), found))


if __name__ == "__main__":
    main()
