"""`virnucpro predict` from the command to its last file, in processes of its own.

    python bench/predict.py [FASTA ...] [--bundle mini-500]
        [--only speed|latency|memory|kmer|reads]

Five parts. speed: chunks a second of whole inputs, the precisions by turns. latency: seconds from
the command to a complete run directory for a file of a dozen records. memory: the peak at 1 k, 10 k
and 100 k chunks, as run.json says and as the system counts it. kmer: reads of 150 nt a second with
a k-mer model, which is fitted first where none is given. Start-up is part of every figure. Inputs
of the last two are windows drawn from the FASTA files, so that no two are alike. Ends with 1 where
a goal of the project is missed, which on a busy machine means little; the load stands in the JSON.
"""

import argparse
import json
import os
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from figures import machine, table
from virnucpro.bundle import load
from virnucpro.reads import letters, open_sources

REPOSITORY = Path(__file__).resolve().parents[1]
VALIDATION = REPOSITORY.parent / "shared" / "data" / "val"
SIDES = ("viral", "nonviral")
SAMPLE = REPOSITORY / "examples" / "sample.fasta"
PARTS = ("speed", "latency", "memory", "kmer", "reads")
CHUNKS_A_SECOND = {"bf16": 250, "fp32": 100}
READS_A_SECOND = 10_000
FIRST_RESULT_S = 5.0
PEAK_BYTES = 1.5e9
# The smallest input does not fill a block; more than this at 100 times its size is growth.
FLAT = 1.2
EVERY_S = 0.2
WINDOWS_AT_ONCE = 100_000
READ_NT = 150
GIB = 1 << 30


@dataclass(frozen=True, slots=True)
class Ended:
    """One process of predict: seconds from its start to its end, what it left, its own peak."""

    wall_s: float
    cpu_s: float
    maxrss_bytes: int
    disk_bytes: int
    open_files: int
    run: dict[str, Any]

    @property
    def chunks(self) -> int:
        return int(self.run["counts"]["chunks"])

    @property
    def peak_bytes(self) -> int:
        return int(self.run["memory"]["peak_bytes"])


def virnucpro(*arguments: str | Path, watched: Path) -> Ended:
    """Runs the command, looking at its disk and files meanwhile. Ends this program if it fails.

    The parent must stay small: a child's maxrss is never below what its parent held at the fork.
    """
    began = time.perf_counter()
    child = subprocess.Popen([sys.executable, "-m", "virnucpro", *map(str, arguments)])
    disk_bytes = open_files = 0
    while not (waited := os.wait4(child.pid, os.WNOHANG))[0]:
        disk_bytes = max(disk_bytes, bytes_in(watched))
        open_files = max(open_files, files_of(child.pid))
        time.sleep(min(EVERY_S, 0.01 * (time.perf_counter() - began)))
    wall_s = time.perf_counter() - began
    _, state, usage = waited
    child.returncode = os.waitstatus_to_exitcode(state)
    if child.returncode:
        raise SystemExit(f"virnucpro {arguments[0]} ended with {child.returncode}")
    # Kilobytes on Linux, bytes on macOS.
    unit = 1 if sys.platform == "darwin" else 1024
    document = json.loads((watched / "run.json").read_text("utf-8"))
    cpu_s = usage.ru_utime + usage.ru_stime
    return Ended(wall_s, cpu_s, usage.ru_maxrss * unit, disk_bytes, open_files, document)


def bytes_in(folder: Path) -> int:
    """What a folder takes on the disk; files come and go meanwhile."""
    total = 0
    for place, _, names in os.walk(folder):
        for name in names:
            with suppress(FileNotFoundError):
                total += (Path(place) / name).stat().st_blocks * 512
    return total


def files_of(pid: int) -> int:
    """Open files of a process; 0 where the system does not say."""
    try:
        return sum(1 for _ in Path(f"/proc/{pid}/fd").iterdir())
    except OSError:
        return 0


@dataclass(frozen=True, slots=True)
class Bench:
    """Where runs go, and with how many threads."""

    folder: Path
    threads: int | None
    repeats: int

    def predict(self, inputs: Sequence[Path], bundle: str, precision: str = "auto") -> Ended:
        """One run of predict, in a folder that is used again."""
        out = self.folder / "run"
        options: list[str | Path] = [
            "--bundle",
            bundle,
            "--precision",
            precision,
            "-o",
            out,
            "--force",
            "-q",
        ]
        options += [] if self.threads is None else ["--threads", str(self.threads)]
        return virnucpro("predict", *inputs, *options, watched=out)

    def speed(
        self, inputs: Sequence[Path], bundles: Sequence[str], precisions: Sequence[str]
    ) -> list[dict[str, Any]]:
        """Chunks a second, by turns, so that a busy minute does not fall on one of them alone."""
        turns = [(bundle, precision) for bundle in bundles for precision in precisions]
        runs: dict[tuple[str, str], list[Ended]] = {turn: [] for turn in turns}
        for turn in turns * self.repeats:
            runs[turn].append(self.predict(inputs, *turn))
        found = []
        for (bundle, precision), ended in runs.items():
            rate = statistics.median(run.chunks / run.wall_s for run in ended)
            found.append(
                {
                    "bundle": Path(bundle).name,
                    "precision": precision,
                    "threads": ended[0].run["device"]["threads"],
                    "chunks": ended[0].chunks,
                    "chunks_a_second": round(rate, 1),
                    "each": [round(run.chunks / run.wall_s, 1) for run in ended],
                    "chunks_a_cpu_second": round(max(r.chunks / r.cpu_s for r in ended), 1),
                    "startup_s": statistics.median(r.run["timings"]["startup_s"] for r in ended),
                    "goal": (goal := CHUNKS_A_SECOND.get(precision, 0)),
                    "reached": rate >= goal,
                }
            )
        return found

    def latency(self, sample: Path, bundles: Sequence[str]) -> list[dict[str, Any]]:
        """Seconds until everything lies there for a few records; the first may read cold files."""
        found = []
        for bundle in bundles:
            ended = [self.predict([sample], bundle) for _ in range(self.repeats)]
            seconds = [run.wall_s for run in ended]
            found.append(
                {
                    "bundle": Path(bundle).name,
                    "precision": ended[0].run["device"]["precision"],
                    "records": ended[0].run["counts"]["records"],
                    "chunks": ended[0].chunks,
                    "seconds": round(statistics.median(seconds), 2),
                    "each": [round(s, 2) for s in seconds],
                    "cpu_s": round(min(run.cpu_s for run in ended), 2),
                    "goal": FIRST_RESULT_S,
                    "reached": statistics.median(seconds) <= FIRST_RESULT_S,
                }
            )
        return found

    def memory(
        self, inputs: Sequence[Path], bundles: Sequence[str], sizes: Sequence[int]
    ) -> list[dict[str, Any]]:
        """Peak memory at each size, a chunk a record, and its ratio to that of the first."""
        found = []
        for bundle in bundles:
            first = 0
            for chunks in sizes:
                made = self.folder / "chunks.fasta"
                write_windows(made, inputs, load(bundle).chunk_nt, chunks)
                ended = self.predict([made], bundle)
                first = first or ended.peak_bytes
                ratio = ended.peak_bytes / first
                found.append(
                    {
                        "bundle": Path(bundle).name,
                        "chunks": ended.chunks,
                        "peak_gib": round(ended.peak_bytes / GIB, 3),
                        "maxrss_gib": round(ended.maxrss_bytes / GIB, 3),
                        "ratio": round(ratio, 3),
                        "chunks_a_second": round(ended.chunks / ended.wall_s, 1),
                        "goal": f"< {PEAK_BYTES / 1e9:g} GB, ratio <= {FLAT}",
                        "reached": ended.peak_bytes < PEAK_BYTES and ratio <= FLAT,
                    }
                )
        return found

    def kmer(self, inputs: Sequence[Path], bundle: str, reads: int) -> list[dict[str, Any]]:
        """Reads a second of a k-mer model, which must not have loaded torch."""
        made = self.folder / "reads.fasta"
        write_windows(made, inputs, READ_NT, reads)
        ended = [self.predict([made], bundle) for _ in range(self.repeats)]
        rate = statistics.median(run.chunks / run.wall_s for run in ended)
        return [
            {
                "bundle": Path(bundle).name,
                "reads": ended[0].chunks,
                "reads_a_second": round(rate),
                "each": [round(run.chunks / run.wall_s) for run in ended],
                "peak_gib": round(ended[0].peak_bytes / GIB, 3),
                "torch": ended[0].run["versions"]["torch"],
                "goal": READS_A_SECOND,
                "reached": rate >= READS_A_SECOND and ended[0].run["versions"]["torch"] is None,
            }
        ]

    def reads(
        self, inputs: Sequence[Path], bundle: str, sizes: Sequence[int]
    ) -> list[dict[str, Any]]:
        """Rate, memory, disk and open files at each size; memory is compared with the last but one.

        The first sizes do not fill a block.
        """
        found: list[dict[str, Any]] = []
        made = self.folder / "reads.fasta"
        before = 0
        for reads in sizes:
            write_windows(made, inputs, READ_NT, reads)
            ended = self.predict([made], bundle)
            kept = bytes_in(self.folder / "run")
            grown = ended.peak_bytes / before if before else 1.0
            full = reads * READ_NT > load(bundle).block_nt
            before = ended.peak_bytes if full else 0
            rate = reads / ended.wall_s
            found.append(
                {
                    "bundle": Path(bundle).name,
                    "reads": ended.chunks,
                    "reads_a_second": round(rate),
                    "peak_gib": round(ended.peak_bytes / GIB, 3),
                    "ratio": round(grown, 3),
                    "disk_a_read": round(ended.disk_bytes / reads),
                    "results_a_read": round(kept / reads),
                    "open_files": ended.open_files,
                    "goal": f">= {READS_A_SECOND}, ratio <= {FLAT}",
                    "reached": rate >= READS_A_SECOND and grown <= FLAT,
                }
            )
        return found


def write_windows(path: Path, genomes: Sequence[Path], length_nt: int, count: int) -> None:
    """Windows of one length from random places of real contigs, each place alike; seeded."""
    contigs = [
        letters(contig.sequence)
        for source in open_sources(genomes)
        for contig in source.contigs()
        if len(contig.sequence) >= length_nt
    ]
    text = b"".join(contigs)
    places = np.array([len(contig) - length_nt + 1 for contig in contigs])
    begin = np.cumsum([0] + [len(contig) for contig in contigs[:-1]])
    rng = np.random.default_rng(1)
    with path.open("wb") as file:
        for first in range(0, count, WINDOWS_AT_ONCE):  # this process must stay small
            number = rng.integers(places.sum(), size=min(WINDOWS_AT_ONCE, count - first))
            which = np.searchsorted(np.cumsum(places), number, side="right")
            start = begin[which] + number - (np.cumsum(places) - places)[which]
            for name, at in enumerate(start.tolist(), first + 1):
                file.write(b">window_%d\n%s\n" % (name, text[at : at + length_nt]))


def arguments() -> argparse.Namespace:
    """The command line."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").split("\n", 1)[0])
    parser.add_argument("inputs", type=Path, nargs="*", help="FASTA; default: the val genomes")
    parser.add_argument("--bundle", action="append", help="name or directory; may be repeated")
    parser.add_argument("--precision", action="append", help="default: bf16 and fp32")
    parser.add_argument("--threads", type=int)
    parser.add_argument("--repeats", type=int, default=3)
    parser.add_argument("--only", choices=PARTS, action="append", help="default: all")
    parser.add_argument("--sample", type=Path, default=SAMPLE, help="file of the latency part")
    parser.add_argument("--sizes", type=int, nargs="+", default=[1_000, 10_000, 100_000])
    parser.add_argument("--kmer-bundle", default="kmer-500")
    parser.add_argument("--reads", type=int, default=200_000)
    parser.add_argument("--read-sizes", type=int, nargs="+", default=[10_000, 100_000, 1_000_000])
    parser.add_argument("--json", type=Path, help="where the figures go too")
    return parser.parse_args()


def show(part: str, rows: Sequence[dict[str, Any]]) -> None:
    """Print one part as a table."""
    columns = [name for name in rows[0] if name != "each"]
    print(f"\n{part}\n{table(columns, [[row[name] for name in columns] for row in rows])}")


def main() -> int:
    """Measure, print, write."""
    chosen = arguments()
    inputs = chosen.inputs or [VALIDATION / f"{side}.fasta.gz" for side in SIDES]
    bundles = chosen.bundle or ["mini-500"]
    precisions = chosen.precision or list(CHUNKS_A_SECOND)
    document: dict[str, Any] = {"machine": machine()}
    with tempfile.TemporaryDirectory() as folder:
        bench = Bench(Path(folder), chosen.threads, chosen.repeats)
        measure = {
            "speed": lambda: bench.speed(inputs, bundles, precisions),
            "latency": lambda: bench.latency(chosen.sample, bundles),
            "memory": lambda: bench.memory(inputs, bundles, chosen.sizes),
            "kmer": lambda: bench.kmer(inputs, chosen.kmer_bundle, chosen.reads),
            "reads": lambda: bench.reads(inputs, chosen.kmer_bundle, chosen.read_sizes),
        }
        for part in chosen.only or PARTS:
            document[part] = measure[part]()
            show(part, document[part])
    document["machine"]["load_1min_after"] = machine()["load_1min"]
    print(f"\n{json.dumps(document['machine'])}")
    if chosen.json is not None:
        chosen.json.write_text(json.dumps(document, indent=1) + "\n", "utf-8")
    rows = [row for part in PARTS for row in document.get(part, [])]
    return 0 if all(row["reached"] for row in rows) else 1


if __name__ == "__main__":
    sys.exit(main())
