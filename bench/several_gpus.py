"""How much faster several GPUs of one machine are than one of them: whole runs of `predict`.

    python bench/several_gpus.py FOLDER [--precision bf16 fp8] [--frames 20000] [--json FILE]

Writes DNABERT-S and ESM-2 3B at their real sizes, with random weights and in published layouts,
into FOLDER (see full_size.py; 6 GB), and sequences of 500 nt from a seeded generator, each with at
least one open frame: --frames for each GPU. After a short run that compiles kernels, in each
precision:

- `--gpus 0`, and all GPUs: wall time of the command, seconds by part of the run, load balance and
  utilisation from run.json; every result of both must be equal to the byte.
- in the first precision, all GPUs, one of whose workers is killed when a third of the blocks is
  finished: the results must be the same.

From four GPUs on the runs on one GPU take long, so those of all precisions run beside each other,
each on a GPU of its own. A case that would end after --minutes is left out and named. What is done
stands in FILE after each case (default: FOLDER/several_gpus.json), and the same command goes on
from it. Where no CUDA device is, --cpu N computes with N worker processes and an ESM-2 of 8M, which
tries the script, not the machine. Ends with 1 if results differ or a case failed.
"""

import argparse
import json
import os
import signal
import subprocess
import sys
import time
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import torch

from figures import machine, markdown
from full_size import B3, TOKENIZERS, Esm2Size, Maker, make_bundle, write_dnabert_s
from full_size import write_hugging_face_esm2 as write_esm2

M8 = Esm2Size(6, 320, 20)
LENGTH_NT = 500
WARM_RECORDS = 64
# From this many GPUs on, runs on one GPU are beside each other.
TOGETHER = 4
# What a case takes beside the share of the blocks: start-up, tables, and a reserve.
BESIDE_S = 25.0


@dataclass
class Bench:
    """What is measured, where, and what is done so far."""

    folder: Path
    kept: Path
    precisions: list[str]
    devices: int
    cuda: bool
    records: int
    ends: float
    done: dict[str, Any] = field(default_factory=dict)

    def command(self, name: str, precision: str, device: str, reads: Path) -> list[str]:
        """The command of a run. device: all, or the number of one."""
        if self.cuda:
            numbers = ",".join(map(str, range(self.devices)))
            where = ["--gpus", numbers if device == "all" else device]
        else:
            where = ["--workers", str(self.devices)] if device == "all" else ["--gpus", "none"]
            where += ["--threads", "1"]
        out = self.folder / "runs" / name
        return [
            *(sys.executable, "-m", "virnucpro", "predict", str(reads), "-o", str(out), "--force"),
            *("--bundle", str(self.folder / "bundle"), "--precision", precision, *where),
            *("--no-progress", "-q"),
        ]

    def start(self, name: str, precision: str, device: str, reads: str = "reads.fa") -> "Started":
        command = self.command(name, precision, device, self.folder / reads)
        with (self.folder / f"{name}.err").open("wb") as err:
            return Started(name, time.monotonic(), subprocess.Popen(command, stderr=err))

    def finish(self, started: "Started", **more: object) -> dict[str, Any]:
        """Wait for a run, and keep its figures."""
        code = started.process.wait()
        wall_s = time.monotonic() - started.began
        path = self.folder / "runs" / started.name / "run.json"
        document = json.loads(path.read_text("utf-8")) if path.exists() else {}
        figures = {
            "exit_code": code,
            "wall_s": round(wall_s, 2),
            **{
                key: document.get(key) for key in ("status", "error", "timings", "blocks", "counts")
            },
            **{key: document.get(key) for key in ("workers", "batches", "attention", "memory")},
            "outputs": document.get("outputs"),
            **more,
        }
        if code:
            figures["said"] = (self.folder / f"{started.name}.err").read_text("utf-8")[-2000:]
        self.keep(started.name, figures)
        return figures

    def keep(self, name: str, figures: object) -> None:
        self.done[name] = figures
        self.kept.write_text(json.dumps(self.done, indent=1) + "\n", "utf-8")
        print(name, json.dumps(figures)[:300], flush=True)

    def has_time(self, name: str, seconds: float) -> bool:
        """Whether a case that takes so long still ends in time; says so if it does not."""
        if time.monotonic() + seconds < self.ends:
            return True
        self.keep(f"left out: {name}", f"it would take some {seconds:.0f} s")
        return False


@dataclass(frozen=True)
class Started:
    name: str
    began: float
    process: "subprocess.Popen[bytes]"


def written_reads(path: Path, records: int) -> None:
    """FASTA of sequences whose first frame is open."""
    rng = np.random.default_rng(LENGTH_NT)
    codons = [a + b + c for a in "ACGT" for b in "ACGT" for c in "ACGT"]
    sense = np.array([codon for codon in codons if codon not in ("TAA", "TAG", "TGA")], "S3")
    with path.open("wb") as file:
        for k in range(records):
            text = rng.choice(sense, LENGTH_NT // 3 + 1).tobytes()[:LENGTH_NT]
            file.write(b">r%d\n%b\n" % (k, text))


def written_bundle(bench: Bench, tokenizer: Path) -> None:
    began = time.monotonic()
    folder, size = bench.folder, B3 if bench.cuda else M8
    make = Maker(torch.device("cuda" if bench.cuda else "cpu"), torch.float16)
    for part in ("dnabert", "esm"):
        (folder / part).mkdir(exist_ok=True)
    write_dnabert_s(folder / "dnabert", make, tokenizer)
    write_esm2(folder / "esm", size, make, sharded=True)
    make_bundle(folder / "bundle", folder / "dnabert", folder / "esm", size.width)
    if bench.cuda:
        torch.cuda.empty_cache()
    bench.keep("weights", {"written_s": round(time.monotonic() - began, 1)})


def warmed(bench: Bench) -> None:
    """Have kernels compiled and kept, weights in the page cache, and their digests known."""
    for precision in bench.precisions:
        if (name := f"warm, {precision}") not in bench.done:
            bench.finish(bench.start(name, precision, "0", "warm.fa"))


def on_one(bench: Bench) -> None:
    """The runs on one GPU, one after the other or beside each other."""
    left = [p for p in bench.precisions if f"1, {p}" not in bench.done]
    together = bench.cuda and bench.devices >= TOGETHER and len(left) > 1
    groups = [left] if together else [[precision] for precision in left]
    for group in groups:
        longest = max(likely_s(bench, precision) for precision in group)
        if not bench.has_time(f"1, {' and '.join(group)}", bench.devices * longest + BESIDE_S):
            continue
        runs = [bench.start(f"1, {p}", p, str(k)) for k, p in enumerate(group)]
        for started in runs:
            bench.finish(started, beside=len(runs) - 1)


def likely_s(bench: Bench, precision: str) -> float:
    """What the blocks take on all devices, by those of all; 0 if that is not known."""
    figures = bench.done.get(f"all, {precision}", {})
    return float(figures["timings"]["blocks_s"]) if figures.get("exit_code") == 0 else 0.0


def on_all(bench: Bench) -> None:
    for precision in bench.precisions:
        if (name := f"all, {precision}") not in bench.done and bench.has_time(name, BESIDE_S):
            bench.finish(bench.start(name, precision, "all"))


def with_a_death(bench: Bench) -> None:
    """All devices, and a worker that dies when a third of the blocks is finished."""
    precision = bench.precisions[0]
    name = f"killed, {precision}"
    whole = bench.done.get(f"all, {precision}", {})
    if name in bench.done or whole.get("exit_code") != 0 or bench.devices < 2:
        return
    if not bench.has_time(name, 2 * likely_s(bench, precision) + BESIDE_S):
        return
    started = bench.start(name, precision, "all")
    blocks = bench.folder / "runs" / name / ".virnucpro" / "blocks"
    third = whole["blocks"]["total"] // 3
    killed = None
    while started.process.poll() is None and killed is None:
        if sum(1 for _ in blocks.glob("*.block")) >= third:
            killed = workers_of(started.process.pid)[0]
            os.kill(killed, signal.SIGKILL)
        time.sleep(0.02)
    bench.finish(started, killed_pid=killed, killed_after_blocks=third)


def workers_of(pid: int) -> list[int]:
    """The worker processes of a run."""
    workers = []
    for folder in Path("/proc").glob("[0-9]*"):
        try:
            parent = int((folder / "stat").read_text().rpartition(")")[2].split()[1])
            words = (folder / "cmdline").read_bytes()
        except OSError:  # it has just ended
            continue
        if parent == pid and b"dask_worker" in words:
            workers.append(int(folder.name))
    return workers


def compared(bench: Bench) -> bool:
    """Whether all results of a precision are equal, by their digests; kept as well."""
    equal = {}
    for precision in bench.precisions:
        runs = [bench.done.get(f"{case}, {precision}") for case in ("1", "all", "killed")]
        outputs = [run["outputs"] for run in runs if run is not None]
        equal[precision] = len(outputs) > 1 and all(one == outputs[0] for one in outputs)
    bench.keep("equal results", equal)
    return all(equal.values())


def report(bench: Bench) -> str:
    rows = []
    for name, run in bench.done.items():
        if name.split(",")[0] not in ("1", "all", "killed") or not run.get("timings"):
            continue
        timings, workers = run["timings"], run["workers"] or []
        seconds = [worker["seconds"] for worker in workers]
        used = [worker["utilisation"] for worker in workers]
        one = bench.done.get(f"1, {name.split(', ')[1]}", {})
        after = timings["total_s"] - timings["startup_s"]
        ratio = ratio_all = ""
        if one.get("timings") and not name.startswith("1"):
            ratio = f"{(one['timings']['total_s'] - one['timings']['startup_s']) / after:.3f}"
            ratio_all = f"{one['wall_s'] / run['wall_s']:.3f}"
        rows.append(
            [
                name,
                *(f"{timings[part]:.2f}" for part in ("startup_s", "blocks_s", "tables_s")),
                f"{run['wall_s']:.2f}",
                ratio,
                ratio_all,
                f"{max(seconds) * len(seconds) / sum(seconds):.3f}" if seconds else "",
                ", ".join(f"{w['busy']:.3f}" for w in workers),
                ", ".join(u if isinstance(u, str) else f"{u:.3f}" for u in used),
            ]
        )
    columns = ["GPUs, precision", "start-up, s", "blocks, s", "tables, s", "in all, s"]
    columns += ["ratio after start-up", "ratio in all", "slowest / mean", "busy", "utilisation"]
    return markdown(columns, rows)


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("folder", type=Path)
    parser.add_argument("--precision", nargs="+", default=None)
    parser.add_argument("--frames", type=int, default=20_000, help="sequences for each GPU")
    parser.add_argument("--gpus", type=int, help="take so many; default: all")
    parser.add_argument("--cpu", type=int, metavar="N", help="N processes without a GPU")
    parser.add_argument("--minutes", type=float, default=8.0)
    parser.add_argument("--tokenizer", type=Path, help="DNABERT-S's tokenizer.json")
    parser.add_argument("--json", type=Path, help="where figures are kept")
    wish = parser.parse_args()
    began = time.monotonic()
    folder: Path = wish.folder.resolve()
    folder.mkdir(parents=True, exist_ok=True)
    tokenizer = wish.tokenizer or next((path for path in TOKENIZERS if path.exists()), None)
    if tokenizer is None:
        parser.error("name DNABERT-S's tokenizer.json with --tokenizer")
    cuda = wish.cpu is None
    devices = wish.cpu or wish.gpus or torch.cuda.device_count()
    if not devices:
        parser.error("torch sees no CUDA device; --cpu N tries the script")
    kept = wish.json or folder / "several_gpus.json"
    bench = Bench(
        folder=folder,
        kept=kept,
        precisions=wish.precision or (["bf16", "fp8"] if cuda else ["fp32"]),
        devices=devices,
        cuda=cuda,
        records=wish.frames * devices,
        ends=began + 60 * wish.minutes,
        done=json.loads(kept.read_text("utf-8")) if kept.exists() else {},
    )
    names = [torch.cuda.get_device_name(k) for k in range(devices)] if cuda else ["processor"]
    about = {
        "devices": names if cuda else devices,
        "records": bench.records,
        "torch": torch.__version__,
    }
    bench.keep("machine", machine() | about)
    if not (folder / "bundle" / "bundle.toml").exists():
        written_bundle(bench, tokenizer)
    written_reads(folder / "reads.fa", bench.records)
    written_reads(folder / "warm.fa", WARM_RECORDS)
    warmed(bench)
    on_all(bench)
    on_one(bench)
    with_a_death(bench)
    equal = compared(bench)
    bench.keep("seconds in all", round(time.monotonic() - began, 1))
    print(report(bench))
    failed = [
        name for name, run in bench.done.items() if isinstance(run, dict) and run.get("exit_code")
    ]
    for name in failed:
        print(f"{name} failed: {bench.done[name]['said']}", file=sys.stderr)
    raise SystemExit(0 if equal and not failed else 1)


if __name__ == "__main__":
    main()
