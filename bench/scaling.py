"""What dealing blocks out costs, and how well 1 to 32 workers are used: blocks of a known cost.

    python bench/scaling.py [--workers 1 2 4 8 16 32] [--seconds 1.0] [--blocks 10] [--json FILE]

Each run is a real `virnucpro predict --workers N` with processes of its own on this machine. A
block holds --block-nt letters; a worker scores it with the k-mer model and then sleeps
until --seconds are over since it had it, so that many workers fit on a few processors; --blocks are
dealt out for each worker. Efficiency is (blocks x seconds / workers) / time of the run's blocks;
overhead is what a worker waits for each block beside its cost. Two runs whose blocks cost nothing
but the k-mer model give the most blocks a second that the client reads, deals out and keeps, and,
by their difference, its processor time for a block, which other programs blur less. Everything lies
in --folder: in memory (/dev/shm) the figures are without the disk, of which the time to write and
flush a block is said.
"""

import argparse
import json
import os
import shutil
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

import numpy as np

from figures import machine, markdown
from virnucpro.bundle import load
from virnucpro.storage.atomic import write_atomic

LENGTH_NT = 500
BLOCK_BYTES = 15_000
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
    process = subprocess.Popen(
        [sys.executable, "-m", "virnucpro", *map(str, command), *options],
        env=os.environ | {"DASK_DISTRIBUTED__WORKER__PRELOAD": json.dumps([str(preload)])},
    )
    client_s = 0.0
    while process.poll() is None:
        client_s = max(client_s, processor_s(process.pid))
        time.sleep(0.02)
    if process.returncode:
        raise SystemExit(process.returncode)
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
        "client_processor_s": client_s,
        "peak_bytes": document["memory"]["peak_bytes"],
        **machine(),
    }


def processor_s(pid: int) -> float:
    """Processor time of a process so far, of its own alone; 0 where it has ended."""
    try:
        fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    except OSError:
        return 0.0
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")


def flushed_ms(folder: Path) -> float:
    """Median time to write and flush a block of some size."""
    times = []
    for number in range(40):
        began = time.perf_counter()
        write_atomic(folder / f"{number}.block", bytes(BLOCK_BYTES))
        times.append(time.perf_counter() - began)
    return 1000 * statistics.median(times)


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--workers", type=int, nargs="+", default=[1, 2, 4, 8, 16, 32])
    parser.add_argument("--seconds", type=float, default=1.0, help="cost of a block")
    parser.add_argument("--blocks", type=int, default=10, help="for each worker")
    parser.add_argument("--block-nt", type=int, default=50_000)
    parser.add_argument(
        "--free-blocks", type=int, nargs=2, default=[50, 400], help="without a cost"
    )
    parser.add_argument("--folder", type=Path, help="where runs lie; default: the temporary folder")
    parser.add_argument("--json", type=Path)
    wish = parser.parse_args()
    found = []
    with tempfile.TemporaryDirectory(dir=wish.folder) as scratch:
        folder = Path(scratch)
        bundle = bundle_with(folder, wish.block_nt)
        print(f"to write and flush a block: {flushed_ms(folder):.1f} ms")
        cases = [(2, 0.0, blocks) for blocks in wish.free_blocks]
        cases += [(workers, wish.seconds, wish.blocks * workers) for workers in wish.workers]
        for workers, seconds, blocks in cases:
            found.append(measured(folder, bundle, workers, seconds, blocks, wish.block_nt))
            print(json.dumps(found[-1]), flush=True)
            if wish.json is not None:
                wish.json.write_text(json.dumps(found, indent=1) + "\n", "utf-8")
    few, many = found[:2]
    client_s = many["client_processor_s"] - few["client_processor_s"]
    a_block_ms = 1000 * client_s / (many["blocks"] - few["blocks"])
    print(f"processor time of the client for a block: {a_block_ms:.1f} ms")
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
