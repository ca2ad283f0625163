"""What dealing blocks out costs, and how well 1 to 32 workers are used: blocks of a known cost.

    python bench/scaling.py [--workers 1 2 4 8 16 32] [--seconds 1.0] [--blocks 10] [--json FILE]

Each run is a real `virnucpro predict --workers N` with processes of its own on this machine. A
block holds --block-nt letters, as on a GPU; a worker scores it with the k-mer model and then sleeps
until --seconds are over since it had it, so that many workers fit on a few processors; --blocks are
dealt out for each worker. Efficiency is (blocks x seconds / workers) / time of the run's blocks;
overhead is what a worker waits for each block beside its cost. A run whose blocks cost nothing but
the k-mer model gives the most blocks a second that the client reads, deals out and keeps.
"""

import argparse
import json
import os
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Any

import numpy as np

from figures import machine, markdown
from virnucpro.bundle import load

LENGTH_NT = 500
SLEEPING = """
import time
from virnucpro.classifiers.kmer import KmerClassifier


def lasting(score_block):
    def scored(self, block):
        began = time.perf_counter()
        scores = score_block(self, block)
        time.sleep(max(0.0, {seconds} - (time.perf_counter() - began)))
        return scores

    return scored


if KmerClassifier.score_block.__name__ != "scored":  # Dask runs a file that it preloads twice
    KmerClassifier.score_block = lasting(KmerClassifier.score_block)
"""


def bundle_with(folder: Path, block_nt: int) -> Path:
    """The embedded k-mer bundle with blocks of another size."""
    copy = folder / "bundle"
    shutil.copytree(load("kmer-500").path, copy)
    toml = copy / "bundle.toml"
    lines = toml.read_text("utf-8").splitlines()
    changed = [f"block_nt = {block_nt}" if x.startswith("block_nt") else x for x in lines]
    toml.write_text("\n".join(changed) + "\n", "utf-8")
    return copy


def written(path: Path, blocks: int, block_nt: int) -> None:
    """FASTA of random sequences that fill about so many blocks."""
    rng = np.random.default_rng(3)
    letters = np.frombuffer(b"ACGT", np.uint8)
    a_block = -(-block_nt // (LENGTH_NT + 64))  # as blocks.RECORD_NT weighs a record
    with path.open("wb") as file:
        for k in range(blocks * a_block):
            text = letters[rng.integers(0, 4, LENGTH_NT, np.uint8)].tobytes()
            file.write(b">r%d\n%b\n" % (k, text))


def measured(
    folder: Path, bundle: Path, workers: int, seconds: float, blocks: int, block_nt: int
) -> dict[str, Any]:
    """A run, in numbers."""
    written(folder / "in.fa", blocks, block_nt)
    preload = folder / "sleeping.py"
    preload.write_text(SLEEPING.format(seconds=seconds), "utf-8")
    out = folder / "run"
    command = ["predict", folder / "in.fa", "-o", out, "--bundle", bundle, "--workers", workers]
    options = ["--write", "none", "--no-compat-tables", "--force", "-q"]
    subprocess.run(
        [sys.executable, "-m", "virnucpro", *map(str, command), *options],
        env=os.environ | {"DASK_DISTRIBUTED__WORKER__PRELOAD": json.dumps([str(preload)])},
        check=True,
    )
    document = json.loads((out / "run.json").read_text("utf-8"))
    total, blocks_s = document["blocks"]["total"], document["timings"]["blocks_s"]
    return {
        "workers": workers,
        "seconds_a_block": seconds,
        "blocks": total,
        "startup_s": document["timings"]["startup_s"],
        "blocks_s": blocks_s,
        "blocks_a_second": total / blocks_s,
        "efficiency": total * seconds / workers / blocks_s,
        "overhead_ms": 1000 * (workers * blocks_s / total - seconds),
        "peak_bytes": document["memory"]["peak_bytes"],
        **machine(),
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--workers", type=int, nargs="+", default=[1, 2, 4, 8, 16, 32])
    parser.add_argument("--seconds", type=float, default=1.0, help="cost of a block")
    parser.add_argument("--blocks", type=int, default=10, help="for each worker")
    parser.add_argument("--block-nt", type=int, default=500_000)
    parser.add_argument("--free-blocks", type=int, default=200, help="of the run without a cost")
    parser.add_argument("--json", type=Path)
    wish = parser.parse_args()
    found = []
    with tempfile.TemporaryDirectory() as scratch:
        folder = Path(scratch)
        bundle = bundle_with(folder, wish.block_nt)
        cases = [(2, 0.0, wish.free_blocks)] if wish.free_blocks else []
        cases += [(workers, wish.seconds, wish.blocks * workers) for workers in wish.workers]
        for workers, seconds, blocks in cases:
            found.append(measured(folder, bundle, workers, seconds, blocks, wish.block_nt))
            print(json.dumps(found[-1]), flush=True)
            if wish.json is not None:
                wish.json.write_text(json.dumps(found, indent=1) + "\n", "utf-8")
    rows = [
        [
            str(run["workers"]),
            f"{run['seconds_a_block']:g}",
            str(run["blocks"]),
            f"{run['startup_s']:.1f}",
            f"{run['blocks_s']:.2f}",
            f"{run['blocks_a_second']:.1f}",
            f"{run['efficiency']:.1%}" if run["seconds_a_block"] else "",
            f"{run['overhead_ms']:.1f}" if run["seconds_a_block"] else "",
            f"{run['load_1min']}",
        ]
        for run in found
    ]
    columns = [
        "workers",
        "cost of a block, s",
        "blocks",
        "start-up, s",
        "blocks, s",
        "blocks a second",
    ]
    print(markdown([*columns, "efficiency", "overhead a block, ms", "load of the machine"], rows))


if __name__ == "__main__":
    main()
