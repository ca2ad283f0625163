"""Tokens a second of ESM-2 on a processor, ours beside transformers', by turns in one process.

    python bench/by_turns.py [--esm 8M] [--tokens 4000] [--rounds 9]

Each round runs every contestant once, so that what else the machine does meets all alike: first by
the clock on all threads, then in processor time on one, which other programs hardly change. Shown
are medians, and the median over rounds of the time taken over that of ours in fp32. Needs
transformers.
"""

import argparse
import statistics
from time import perf_counter, thread_time

import torch

from figures import by_turns, machine, table
from rivals import RIVALS
from virnucpro.measure.speed import ESM2_SIZES, Bench, Case

OURS = ("ours", "fp32")
CONTESTANTS = (OURS, ("transformers", "fp32"), ("plain", "fp32"), ("ours", "bf16"))


def rows(found: dict[tuple[str, ...], list[float]], how: str, tokens: int) -> list[list[str]]:
    """Rows of the table."""
    made = []
    for (by, precision), taken in found.items():
        pairs = [theirs / ours for theirs, ours in zip(taken, found[OURS], strict=True)]
        speed = f"{tokens / statistics.median(taken):,.0f}"
        made.append([by, precision, how, speed, f"{statistics.median(pairs):.2f}"])
    return made


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--esm", choices=ESM2_SIZES, default="8M")
    parser.add_argument("--tokens", type=int, default=4000)
    parser.add_argument("--rounds", type=int, default=9)
    words = parser.parse_args()
    bench = Bench(torch.device("cpu"), words.esm, "tiny", words.tokens, words.rounds, RIVALS)
    ids = bench.ids("esm2")
    runs = {name: bench.runner(Case("esm2", *name), ids) for name in CONTESTANTS}
    tokens, threads = sum(map(len, ids)), torch.get_num_threads()
    made = rows(by_turns(runs, perf_counter, words.rounds), f"{threads} threads", tokens)
    torch.set_num_threads(1)
    made += rows(by_turns(runs, thread_time, words.rounds), "processor time, 1 thread", tokens)
    print(machine())
    print(table(["computed by", "precision", "by", "tokens a second", "time over ours fp32"], made))


if __name__ == "__main__":
    main()
