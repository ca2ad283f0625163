"""The program as a user runs it, and a bundle that is there at once: k-mer weights made by hand."""

import csv
import json
import os
import random
import signal
import subprocess
import sys
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import numpy as np

import forks
from virnucpro.bundle.manifest import Bundle
from virnucpro.bundle.write import write_bundle
from virnucpro.classifiers.chunk_status import MIN_NT
from virnucpro.classifiers.kmer import KMER_WEIGHTS, class_count

TABLES = (
    "calls.tsv",
    "contigs.tsv",
    "prediction_results.txt",
    "prediction_results_highestscore.csv",
)
REGIONS = ("regions.tsv", "regions.bed")
PARQUET = ("calls.parquet", "contigs.parquet", "embeddings.parquet")
VIRAL = ("viral.fasta", "viral_names.txt")
RESULTS = (*TABLES, "pairs.tsv", *REGIONS, *PARQUET, *VIRAL, "others.fasta", "failed.tsv")
# What a run leaves in which nothing failed.
WHOLE = {
    *TABLES,
    *REGIONS,
    *VIRAL,
    "run.json",
    "log.txt",
    "report.html",
    "virnucpro_mqc.json",
    "virnucpro_general_mqc.json",
}
PROGRAM = (sys.executable, "-m", "virnucpro")
SUPPORT = Path(__file__).parent
# For preexec_fn: the tests may run where Ctrl-C is ignored, as in the background of a script.
interruptible = partial(signal.signal, signal.SIGINT, signal.SIG_DFL)


@dataclass(frozen=True)
class Finished:
    """How a command ended and what it printed."""

    code: int
    out: str
    err: str

    @property
    def error(self) -> str:
        """The one sentence of a failure; there must be one, and no traceback."""
        assert "Traceback" not in self.err, self.err
        (line,) = [x for x in self.err.splitlines() if x.startswith("virnucpro: ")]
        assert self.err.rstrip().splitlines()[-1] == line
        return line.removeprefix("virnucpro: ")


def virnucpro(*arguments: object, through: Sequence[str] = (), **options) -> Finished:
    """Runs a command to its end.

    through: a command that runs commands, put in front; options are those of subprocess.run.
    """
    words = [os.fspath(a) if isinstance(a, Path) else str(a) for a in arguments]
    if through or options.keys() - {"cwd", "input"}:
        command = [*through, *PROGRAM, *words]
        done = subprocess.run(command, capture_output=True, check=False, timeout=120, **options)
    else:
        done = forks.run("virnucpro", words, options.get("cwd"), options.get("input"))
    return Finished(done.returncode, done.stdout.decode(), done.stderr.decode())


def made_bundle(
    directory: Path, *, chunk_nt: int = 500, block_nt: int = 1_000_000, seed: int = 7
) -> Bundle:
    """A k-mer bundle with random weights, whose scores of random DNA lie on both sides of 0.5."""
    rng = np.random.default_rng(seed)
    n = class_count(4)
    arrays = {
        "weight": rng.normal(0.0, 2.0, n),
        "mean": np.full(n, 1 / n),
        "scale": np.full(n, 0.05),
        "bias": np.zeros(1),
    }
    manifest = {
        "name": directory.name,
        "description": "random weights, for tests",
        "kind": "kmer",
        "chunk_nt": chunk_nt,
        "block_nt": block_nt,
        "min_nt": MIN_NT,
        "validated_nt": 75,
        "threshold": 0.5,
        "kmer": {"k": 4},
    }
    return write_bundle(directory, manifest, {KMER_WEIGHTS: arrays})


def frames_manifest(**changes) -> dict:
    """bundle.toml of a bundle of kind frames, enough to be read, not to compute with."""
    manifest = {
        "name": "frames",
        "description": "",
        "kind": "frames",
        "chunk_nt": 300,
        "block_nt": 20_000,
        "min_nt": 3,
        "validated_nt": 300,
        "threshold": 0.5,
    }
    return manifest | changes


def chunks_manifest(part: dict, **changes) -> dict:
    """bundle.toml of a bundle of kind chunks with a tiny codon network; part: of that network."""
    manifest = {
        "name": "tiny",
        "description": "",
        "kind": "chunks",
        "chunk_nt": 130,
        "block_nt": 10_000,
        "min_nt": 60,
        "validated_nt": 75,
        "threshold": 0.5,
        "codon": part,
    }
    return manifest | changes


def dna(length_nt: int, seed: object = 0) -> str:
    """Random DNA."""
    return "".join(random.Random(str(seed)).choices("ACGT", k=length_nt))


def fasta(records: Iterable[tuple[str, str]]) -> bytes:
    """Headers and sequences as FASTA."""
    return "".join(f">{header}\n{sequence}\n" for header, sequence in records).encode()


def random_reads(number: int, length_nt: int, seed: int = 0) -> bytes:
    """FASTA of many random reads, made fast."""
    rng = np.random.default_rng(seed)
    text = np.frombuffer(b"ACGT", np.uint8)[rng.integers(0, 4, (number, length_nt), np.uint8)]
    return b"".join(b">r%d\n%b\n" % (i, row.tobytes()) for i, row in enumerate(text))


def table(path: Path) -> list[dict[str, str]]:
    """The rows of a table of ours."""
    csv.field_size_limit(1 << 30)  # a name may be as long as a FASTA header
    with path.open(encoding="utf-8", newline="\n") as file:
        return list(csv.DictReader(file, delimiter="\t", quoting=csv.QUOTE_NONE))


def run_json(run_dir: Path) -> dict:
    return json.loads((run_dir / "run.json").read_text())


def results(run_dir: Path) -> dict[str, bytes]:
    """The results that are there, by name."""
    return {n: (run_dir / n).read_bytes() for n in RESULTS if (run_dir / n).exists()}
