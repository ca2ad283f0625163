"""Chunks a second of the networks of embedded bundles, and of their protein k-mers, by turns.

    python bench/chunks.py [mini-500-v2 mini-500-v1] [--device cpu] [--precision fp32 bf16]

Each round runs every contestant once on the same random chunks, so that what else the machine does
meets all alike: on a CPU in processor time of one thread, on a GPU by the clock. Shown are medians,
and the median over rounds of the time of the first network over that of each.
"""

import argparse
import statistics
import time
from collections.abc import Callable
from functools import partial

import torch

from figures import by_turns, machine, table
from virnucpro.bundle import load
from virnucpro.classifiers.codon import frame_codons, padded_codons
from virnucpro.classifiers.protein_kmers import protein_kmers_of
from virnucpro.classifiers.whole_chunks import codon_network_of


def contestants(
    names: list[str], precisions: list[str], device: str, chunks: int
) -> dict[tuple[str, ...], Callable[[], object]]:
    """What is to be run on the same codons, by bundle, part and precision."""
    found: dict[tuple[str, ...], Callable[[], object]] = {}
    for name in names:
        bundle = load(name)
        codons = random_codons(chunks, bundle.chunk_nt, device)
        for precision in precisions:
            network = codon_network_of(bundle, device, precision)
            found[name, "network", precision] = partial(network.outputs, codons)
        kmers = protein_kmers_of(bundle, network.groups)
        if kmers is not None:
            found[name, "k-mers", "any"] = partial(kmers.to(device).added, codons)
    return found


def random_codons(chunks: int, chunk_nt: int, device: str) -> torch.Tensor:
    """Codons (chunks, 6, T) of random letters."""
    codes = torch.randint(0, 4, (chunks, 3 * padded_codons(chunk_nt) + 2), dtype=torch.uint8)
    return frame_codons(codes, torch.full((chunks,), chunk_nt)).to(device)


def on_gpu() -> float:
    """The clock, once the GPU has done what it was given."""
    torch.cuda.synchronize()
    return time.perf_counter()


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").split("\n", 1)[0])
    parser.add_argument("bundles", nargs="*", default=["mini-500-v2", "mini-500-v1"])
    parser.add_argument("--device", default="cpu")
    parser.add_argument("--precision", nargs="+", default=["fp32", "bf16"])
    parser.add_argument("--chunks", type=int, help="a turn; default: 32 on a CPU, 4,096 on a GPU")
    parser.add_argument("--rounds", type=int, default=15)
    options = parser.parse_args()
    on_cpu = options.device == "cpu"
    chunks = options.chunks or (32 if on_cpu else 4096)
    torch.set_num_threads(1)
    runs = contestants(options.bundles, options.precision, options.device, chunks)
    clock = time.thread_time if on_cpu else on_gpu
    taken = by_turns(runs, clock, options.rounds)
    first = next(iter(taken.values()))
    rows = []
    for key, times in taken.items():
        rate = chunks / statistics.median(times)
        ratios = [one / other for one, other in zip(first, times, strict=True)]
        rows.append([*key, f"{rate:,.0f}", f"{statistics.median(ratios):.2f}"])
    columns = ["bundle", "part", "precision", "chunks/s", "over the first"]
    print(f"{chunks} chunks a turn, {options.rounds} rounds on {options.device}; {machine()}")
    print(table(columns, rows))


if __name__ == "__main__":
    main()
