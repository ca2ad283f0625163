"""Kill `virnucpro predict` at random, start it again, and compare every table with a quiet run.

    python bench/crash_trials.py [--trials 500] [--seed 0] [--jobs 1]
        [--only kmer|mini|several|workers] [--frames BUNDLE]

A trial, a function of its seed, takes one of a few scenes (a bundle, an input, options) and sends
one to three times a signal among SIGKILL, SIGTERM and SIGINT to a process among all of the run's,
at a moment chosen by time or by what has appeared in the folder; now and then a second signal
follows, or a finished block is cut, altered or deleted before the next start. Then the command runs
undisturbed. Held are: the exit codes, a bound on the time to the end, that no child survives, that
a result that is there is whole at all times, that run.json never says more than what is there, and
in the end every result byte for byte, a damaged block said in the log, and nothing left over. The
scene "several workers" computes with --workers 2, which are among those killed. --frames, a small
bundle of kind frames, adds a scene in which threads prepare blocks. Ends with 1 if any trial fails,
and names its seed: `--seed N --trials 1` repeats it, as far as signals can be repeated. Linux finds
all processes of a run; elsewhere the first one alone.
"""

import argparse
import gzip
import json
import os
import random
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from virnucpro.bundle import load

SIGNALS = (signal.SIGKILL, signal.SIGKILL, signal.SIGTERM, signal.SIGINT)
RESULTS = (
    "calls.tsv",
    "contigs.tsv",
    "prediction_results.txt",
    "prediction_results_highestscore.csv",
    "viral.fasta",
    "viral_names.txt",
    "regions.tsv",
    "regions.bed",
    "others.fasta",
    "pairs.tsv",
    "calls.parquet",
    "contigs.parquet",
    "failed.tsv",
)
SCENES = (
    "kmer",
    "kmer two inputs",
    "kmer gz",
    "kmer journal",
    "kmer kept",
    "several workers",
    "mini",
)
FRAMES = "frames"
# Written once run.json says that a run is finished.
LATER = ("report.html", "virnucpro_mqc.json", "virnucpro_general_mqc.json")
END_S = 10.0  # from a signal to the end of the run
REPLACING_S = 30.0  # the same where a worker may be replaced first
RUN_S = 90.0  # of an undisturbed run, on a busy machine
PATIENCE = 1.0  # what bounds on time are multiplied with, on a machine that is busy otherwise
CHILDREN_S = 3.0  # a child may need so long to see that its parent is gone
DASK_WORKER = b"virnucpro.run.dask_worker"  # in the command line of each that a run starts
BLOCK_NT = 20_000
MINI_SHARE = 0.1
# Codes of a process that was stopped in order, and of one that the signal ended before its main
# function began, or while Python was ending after it.
IN_ORDER = {signal.SIGTERM: 143, signal.SIGINT: 130, signal.SIGKILL: -signal.SIGKILL}
COMMAND = (sys.executable, "-m", "virnucpro", "predict")
ENVIRONMENT = {**os.environ, "OMP_NUM_THREADS": "1"}


@dataclass(frozen=True)
class Scene:
    """What is run: the arguments of predict, the exit code of a quiet run, and what it leaves.

    blocks: how many there are; wall_s: seconds that a quiet run takes.
    """

    name: str
    arguments: tuple[str, ...]
    code: int
    results: dict[str, bytes]
    blocks: int
    wall_s: float

    @property
    def prefix(self) -> str:
        return "P." if "--prefix" in self.arguments else ""

    def hidden(self, place: Path) -> Path:
        """Where the finished blocks of a run in this folder lie."""
        folder = place / ("journal" if "--journal" in self.arguments else "run")
        return folder / f".{self.prefix}virnucpro"

    @property
    def end_s(self) -> float:
        """Most seconds from a signal to the end of the run."""
        return PATIENCE * (REPLACING_S if "--workers" in self.arguments else END_S)

    def command(self, place: Path) -> list[str]:
        extra = ("--journal", str(place / "journal")) if "--journal" in self.arguments else ()
        arguments = [argument for argument in self.arguments if argument != "--journal"]
        return [*COMMAND, *arguments, *extra, "-o", str(place / "run")]


class Failure(Exception):
    """What a trial found."""


@dataclass
class Trial:
    """One trial: its seed, what was done, and what was found wrong, if anything."""

    seed: int
    scene: str
    did: list[str] = field(default_factory=list)
    moments: list[str] = field(default_factory=list)
    signals: list[str] = field(default_factory=list)
    codes: list[int] = field(default_factory=list)
    damaged: int = 0
    wrong: str = ""


# Scenes


def made_input(path: Path, seed: int, reads: int, contigs: int, faulty: bool) -> Path:
    """Reads, contigs over several blocks, repeated names, empty records, and if faulty bad ones."""
    rng = random.Random(seed)
    lines = []
    lengths = [150] * reads + [rng.choice((700, 5_000, 50_000)) for _ in range(contigs)] + [0, 40]
    rng.shuffle(lengths)
    for number, length_nt in enumerate(lengths):
        name = f"read_{number // 2}" if rng.random() < 0.5 else f"c{number} with words"
        letters = "".join(rng.choices("ACGT", k=length_nt))
        if faulty and number > 150 and rng.random() < 0.02:
            letters = letters[: length_nt // 2] + "!" + letters[length_nt // 2 :]
        lines.append(f">{name}\n{letters}\n")
    data = "".join(lines).encode()
    path.write_bytes(gzip.compress(data, 1) if path.suffix == ".gz" else data)
    return path


def with_threads(bundle: Path, folder: Path) -> Scene:
    """Sequences of which most have an open frame, prepared by two threads."""
    rng = random.Random(4)
    codons = [a + b + c for a in "ACGT" for b in "ACGT" for c in "ACG" if a + b != "TG"]
    sense = [codon for codon in codons if codon not in ("TAA", "TAG")]
    path = folder / "open.fa"
    texts = ["".join(rng.choices(sense, k=rng.choice((60, 90, 300)))) for _ in range(150)]
    path.write_text("".join(f">r{k}\n{text}\n" for k, text in enumerate(texts)), "utf-8")
    few = small_blocks(str(bundle), folder, block_nt=3_000)
    arguments = (str(path), "--threads", "1", "--dataloader-workers", "2", "--bundle", str(few))
    return quiet(FRAMES, arguments, folder, warm=True)


def small_blocks(name: str, folder: Path, block_nt: int = BLOCK_NT) -> Path:
    """A copy of a bundle that cuts an input into many blocks."""
    bundle = load(name)
    copy = folder / bundle.name
    shutil.copytree(bundle.path, copy, dirs_exist_ok=True)
    toml = copy / "bundle.toml"
    lines = toml.read_text("utf-8").splitlines()
    changed = [f"block_nt = {block_nt}" if x.startswith("block_nt") else x for x in lines]
    toml.write_text("\n".join(changed) + "\n", "utf-8")
    return copy


def scenes(
    folder: Path, names: Sequence[str] = SCENES, scale: float = 1.0, warm: bool = True
) -> list[Scene]:
    """The scenes of these names, each with its quiet run. scale: of the inputs.

    warm: whether that is the second run, so that its time says more.
    """
    reads, contigs = round(2_000 * scale), round(20 * scale)
    plain = str(made_input(folder / "plain.fa", 1, reads, contigs, faulty=False))
    faulty = str(made_input(folder / "faulty.fa.gz", 2, reads, contigs, faulty=True))
    small = str(made_input(folder / "small.fa", 3, round(300 * scale), 4, faulty=False))
    forms = (
        (plain,),
        (faulty, plain),
        (plain, "--tables", "gz", "--parquet", "--write", "all"),
        (faulty, "--journal", "--prefix", "P", "--allow-partial"),
        (plain, "--keep-blocks", "--no-compat-tables"),
        (plain, "--workers", "2"),
        (small, "--threads", "1"),
    )
    found = []
    for name, form in zip(SCENES, forms, strict=True):
        if name in names:
            bundle = small_blocks("mini-500" if name == "mini" else "kmer-500", folder)
            found.append(quiet(name, (*form, "--bundle", str(bundle)), folder, warm))
    return found


def quiet(name: str, arguments: tuple[str, ...], folder: Path, warm: bool) -> Scene:
    """The scene of an undisturbed run."""
    for _ in range(1 + warm):
        place = Path(tempfile.mkdtemp(dir=folder))
        scene = Scene(name, arguments, 0, {}, 0, 0.0)
        began = time.monotonic()
        done = subprocess.run(
            scene.command(place),
            capture_output=True,
            check=False,
            env=ENVIRONMENT,
            timeout=PATIENCE * RUN_S,
        )
        wall_s = time.monotonic() - began
    if done.returncode not in (0, 2):
        raise SystemExit(f"{name}: the quiet run ended with {done.returncode}: {done.stderr!r}")
    document = json.loads((place / "run" / f"{scene.prefix}run.json").read_text("utf-8"))
    total = document["blocks"]["total"]
    results = results_in(scene, place)
    return Scene(name, arguments, done.returncode, results, total, wall_s)


def results_in(scene: Scene, place: Path) -> dict[str, bytes]:
    """The results that are there, by name."""
    names = [f"{scene.prefix}{name}{end}" for name in RESULTS for end in ("", ".gz")]
    paths = [place / "run" / name for name in names]
    return {path.name: path.read_bytes() for path in paths if path.exists()}


# Processes


def processes() -> Iterator[tuple[int, int, int, str]]:
    """(pid, parent, session, state) of every process; none where there is no /proc."""
    for folder in Path("/proc").glob("[0-9]*"):
        with suppress(OSError, ValueError):
            text = (folder / "stat").read_text("utf-8", "replace")
            state, parent, _, session = text.rpartition(")")[2].split()[:4]
            yield int(folder.name), int(parent), int(session), state


def tree(pid: int) -> list[int]:
    """A process and all that come from it."""
    found = [pid]
    children: dict[int, list[int]] = {}
    for child, parent, _, _ in processes():
        children.setdefault(parent, []).append(child)
    for member in found:
        found += children.get(member, [])
    return found


def survivors(session: int) -> list[int]:
    """Processes of a session that are still at work, and workers whose run has gone."""
    alive = [(pid, parent, its) for pid, parent, its, state in processes() if state != "Z"]
    return [pid for pid, parent, its in alive if its == session or is_orphan(pid, parent)]


def is_orphan(pid: int, parent: int) -> bool:
    """Whether a process is a worker, in a session of its own, without the run that started it."""
    with suppress(OSError):
        return parent == 1 and DASK_WORKER in Path(f"/proc/{pid}/cmdline").read_bytes()
    return False


# A trial


def trial(seed: int, choices: Sequence[Scene], folder: Path) -> Trial:
    """Runs one; what is wrong is in the answer. Its folder stays if something is."""
    rng = random.Random(seed)
    mini = [scene for scene in choices if scene.name == "mini"]
    others = [scene for scene in choices if scene.name != "mini"]
    scene = rng.choice(mini if mini and (rng.random() < MINI_SHARE or not others) else others)
    found = Trial(seed, scene.name)
    place = folder / f"trial_{seed}"
    place.mkdir()
    try:
        work(scene, place, rng, found)
    except Failure as failure:
        found.wrong = str(failure)
    else:
        shutil.rmtree(place)
    return found


def work(scene: Scene, place: Path, rng: random.Random, found: Trial) -> None:
    """The disturbed runs, then a quiet one, then one that finds it done. Raises Failure."""
    silent = True
    for attempt in range(rng.choice((1, 1, 1, 2, 2, 3))):
        if attempt and rng.random() < 0.7:
            silent &= damage(scene, place, rng, found)
        disturbed(scene, place, rng, found)
    if rng.random() < 0.3:
        silent &= damage(scene, place, rng, found)
    before = finished(scene, place)
    run_to_the_end(scene, place, found)
    expect_all(scene, place)
    log = (place / "run" / f"{scene.prefix}log.txt").read_text("utf-8")
    if not before and not silent and "computed again" not in log:
        raise Failure("a damaged block was not reported")
    if "nothing is done" not in run_to_the_end(scene, place, found):
        raise Failure("a finished run was not left as it is")
    expect_all(scene, place)


def disturbed(scene: Scene, place: Path, rng: random.Random, found: Trial) -> None:
    """Starts the run, signals it at a moment, and looks at how it ended and what it left."""
    log = place / "run" / f"{scene.prefix}log.txt"
    logged = size_of(log)
    process = subprocess.Popen(
        scene.command(place),
        stderr=subprocess.PIPE,
        stdout=subprocess.PIPE,
        start_new_session=True,
        env=ENVIRONMENT,
    )
    moment = wait_for_moment(scene, place, rng, process)
    sent = send(process.pid, rng, found)
    if rng.random() < 0.25:
        time.sleep(rng.choice((0.0, 0.002, 0.05, 0.3)))
        sent += send(process.pid, rng, found)
    found.did.append(f"{moment}: {' and '.join(f'{s.name} to {who}' for who, s in sent)}")
    found.moments.append(moment.split(" ")[0])
    try:
        out, err = process.communicate(timeout=scene.end_s)
    except subprocess.TimeoutExpired:
        for pid in tree(process.pid):
            with suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)
        process.communicate()
        raise Failure(f"still at work {scene.end_s:.0f} s after {found.did[-1]}") from None
    found.codes.append(process.returncode)
    found.did[-1] += f", ended with {process.returncode}"
    expect_no_child(process.pid)
    began = size_of(log) != logged
    text = err.decode("utf-8", "replace")
    at_work = began and not finished(scene, place)
    expect_code(scene, process.returncode, sent, at_work, text)
    if out or ("Traceback" in text and began):
        raise Failure(f"{found.did[-1]}, and said {out!r} {text[-2000:]}")
    expect_whole(scene, place)
    finished(scene, place)


def wait_for_moment(
    scene: Scene, place: Path, rng: random.Random, process: "subprocess.Popen[bytes]"
) -> str:
    """Waits for a moment of the run, or its end; says which."""
    hidden = scene.hidden(place)
    scratch = place / "run" / f".{scene.prefix}virnucpro" / "scratch"
    name = f"{scene.prefix}{rng.choice(RESULTS[:5])}*"
    there = {int(path.stem) for path in (hidden / "blocks").glob("*.block")}
    k = rng.choice([k for k in range(scene.blocks) if k not in there] or [0])
    after = {
        "time": None,
        "block": (hidden / "blocks", f"{k:09d}.block"),
        "scratch": (scratch, rng.choice(("*", "*hashes", "*.csv*", "*.fasta"))),
        "publish": (place / "run", name),
        "end": (place / "run", f"{scene.prefix}{rng.choice(('run.json', LATER[0]))}"),
    }
    kind = rng.choices(tuple(after), (25, 30, 20, 15, 10))[0]
    seconds = rng.uniform(0, 1.1 * scene.wall_s)
    began, folder_and_name = time.monotonic(), after[kind]
    while process.poll() is None and time.monotonic() - began < PATIENCE * RUN_S:
        spent = time.monotonic() - began
        if folder_and_name is None:
            if spent >= seconds:
                break
        elif holds(*folder_and_name):
            time.sleep(rng.choice((0.0, 0.0, 0.001, 0.005, 0.03)))
            break
        time.sleep(0.0005)
    what = f"{seconds:.3f} s" if folder_and_name is None else folder_and_name[1]
    return f"{kind} {what}"


def holds(folder: Path, pattern: str) -> bool:
    """Return whether there is such a file in the folder, which may come and go meanwhile."""
    try:
        return any(folder.glob(pattern))
    except FileNotFoundError:
        return False


def send(pid: int, rng: random.Random, found: Trial) -> list[tuple[str, signal.Signals]]:
    """Sends a signal to one process of the run; who got which."""
    members, which = tree(pid), rng.random()
    number = int(which * len(members))
    sent = rng.choice(SIGNALS)
    with suppress(ProcessLookupError):
        os.kill(members[number], sent)
    found.signals.append(sent.name)
    return [("the run" if members[number] == pid else f"child {number}", sent)]


def damage(scene: Scene, place: Path, rng: random.Random, found: Trial) -> bool:
    """Cuts, alters or deletes a finished block; whether that need not be said in the log."""
    blocks = sorted((scene.hidden(place) / "blocks").glob("*.block"))
    if not blocks:
        return True
    path, how = rng.choice(blocks), rng.choice(("cut", "emptied", "altered", "deleted", "longer"))
    data = path.read_bytes()
    if how == "deleted":
        path.unlink()
    elif how == "altered":
        at = rng.randrange(len(data))
        path.write_bytes(data[:at] + bytes([data[at] ^ 1 << rng.randrange(8)]) + data[at + 1 :])
    else:
        cut = {"cut": data[: rng.randrange(len(data))], "emptied": b"", "longer": data + b"\0"}
        path.write_bytes(cut[how])
    found.damaged += 1
    found.did.append(f"{path.name} {how}")
    return how == "deleted"


def run_to_the_end(scene: Scene, place: Path, found: Trial) -> str:
    """Runs the command undisturbed; what it said."""
    process = subprocess.Popen(
        scene.command(place),
        stderr=subprocess.PIPE,
        stdout=subprocess.DEVNULL,
        start_new_session=True,
        env=ENVIRONMENT,
    )
    try:
        _, err = process.communicate(timeout=PATIENCE * RUN_S)
    except subprocess.TimeoutExpired:
        process.kill()
        process.communicate()
        raise Failure(
            f"undisturbed, the run is still at work after {PATIENCE * RUN_S:.0f} s"
        ) from None
    found.did.append(f"undisturbed, ended with {process.returncode}")
    expect_no_child(process.pid)
    text = err.decode("utf-8", "replace")
    if process.returncode != scene.code:
        raise Failure(f"undisturbed, the run ended with {process.returncode}: {text[-2000:]}")
    return text


def size_of(path: Path) -> int:
    return path.stat().st_size if path.exists() else 0


# What must hold


def expect_code(
    scene: Scene,
    code: int,
    sent: Sequence[tuple[str, signal.Signals]],
    at_work: bool,
    said: str,
) -> None:
    """The code of one of the signals, or of a run that had ended before.

    Before the program's first line of log, and after it has finished, Python itself may answer.
    A child's end is the run's to answer: by going on, or by a code that is not 0.
    """
    allowed = {scene.code} | {IN_ORDER[s] for _, s in sent}
    if not at_work:
        allowed |= {-s for _, s in sent}
        if any(word in said for word in ("Fatal Python error", "the site module", "runpy")):
            allowed.add(1)
    if any(who != "the run" for who, _ in sent):
        allowed |= {1, 4}
    if code not in allowed:
        raise Failure(f"ended with {code}, not one of {sorted(allowed)}, and said {said[-2000:]}")


def expect_no_child(session: int) -> None:
    deadline = time.monotonic() + PATIENCE * CHILDREN_S
    while left := survivors(session):
        if time.monotonic() > deadline:
            for pid in left:
                with suppress(ProcessLookupError):
                    os.kill(pid, signal.SIGKILL)
            raise Failure(f"{len(left)} processes survived the run")
        time.sleep(0.05)


def expect_whole(scene: Scene, place: Path) -> None:
    """Every result that is there is the one of the quiet run."""
    for name, data in results_in(scene, place).items():
        if scene.results.get(name) != data:
            raise Failure(f"{name} is there, but not as in the quiet run")


def finished(scene: Scene, place: Path) -> bool:
    """Whether run.json says that the run is finished; every result must be there then."""
    path = place / "run" / f"{scene.prefix}run.json"
    if not path.exists():
        return False
    document = json.loads(path.read_text("utf-8"))
    if unnamed := results_in(scene, place).keys() - document["outputs"].keys():
        raise Failure(f"there, but not named in run.json: {sorted(unnamed)}")
    if document["status"] not in ("complete", "partial"):
        if document["status"] not in ("interrupted", "failed", "running"):
            raise Failure(f"run.json says {document['status']}")
        return False
    if results_in(scene, place) != scene.results:
        raise Failure("run.json says that the run is finished, but the results are not all there")
    return True


def expect_all(scene: Scene, place: Path) -> None:
    """The results of the quiet run, and nothing left over."""
    expect_whole(scene, place)
    if not finished(scene, place):
        raise Failure("the run ended as it should, but run.json does not say so")
    known = {*scene.results, *(f"{scene.prefix}{name}" for name in ("run.json", "log.txt", *LATER))}
    hidden = {scene.hidden(place).name} if "--keep-blocks" in scene.arguments else set()
    there = {path.name for path in (place / "run").iterdir()}
    if there != known | hidden:
        raise Failure(f"left over or missing: {sorted(there ^ (known | hidden))}")
    journal = place / "journal"
    if journal.exists() and (left := {path.name for path in journal.iterdir()}):
        raise Failure(f"left over in the journal: {sorted(left)}")


# All of them


def run_trials(
    seeds: Sequence[int], choices: Sequence[Scene], folder: Path, jobs: int = 1, loud: bool = True
) -> list[Trial]:
    """Runs the trials of these seeds."""
    ended = []
    with not_ignoring_interrupts(), ThreadPoolExecutor(jobs) as pool:
        for found in pool.map(lambda seed: trial(seed, choices, folder), seeds):
            ended.append(found)
            if loud and (found.wrong or len(ended) % 25 == 0):
                done = f"{len(ended)} of {len(seeds)}, {sum(bool(t.wrong) for t in ended)} failed"
                print(f"{done}{told(found) if found.wrong else ''}", flush=True)
    return ended


@contextmanager
def not_ignoring_interrupts() -> Iterator[None]:
    """A shell has its background jobs ignore SIGINT, and so would every run that they start."""
    before = signal.getsignal(signal.SIGINT)
    if before == signal.SIG_IGN:
        signal.signal(signal.SIGINT, signal.default_int_handler)
    yield
    signal.signal(signal.SIGINT, before)


def told(found: Trial) -> str:
    """A failed trial, in words."""
    steps = "; ".join(found.did)
    return f"\n--seed {found.seed} --trials 1 ({found.scene}): {found.wrong}\n  after: {steps}"


def summary(ended: Sequence[Trial], seconds: float) -> dict[str, Any]:
    """What was done, in numbers, and what failed."""
    return {
        "trials": len(ended),
        "failed": [vars(found) for found in ended if found.wrong],
        "scenes": dict(Counter(found.scene for found in ended)),
        "moments": dict(Counter(m for found in ended for m in found.moments)),
        "signals": dict(Counter(s for found in ended for s in found.signals)),
        "codes": {str(c): n for c, n in Counter(c for t in ended for c in t.codes).items()},
        "damaged_blocks": sum(found.damaged for found in ended),
        "seconds": round(seconds, 1),
    }


def main() -> int:
    """Try, print."""
    global PATIENCE
    parser = argparse.ArgumentParser(description=(__doc__ or "").split("\n", 1)[0])
    parser.add_argument("--trials", type=int, default=500)
    parser.add_argument("--seed", type=int, default=0, help="of the first trial")
    parser.add_argument("--only", choices=["kmer", "mini", "several", FRAMES])
    parser.add_argument("--frames", type=Path, help="a small bundle of kind frames")
    parser.add_argument("--jobs", type=int, default=1, help="trials at the same time")
    parser.add_argument("--keep", type=Path, help="folder for the trials; failed ones stay there")
    parser.add_argument("--json", type=Path, help="where the summary goes too")
    parser.add_argument("--patience", type=float, default=1.0, help="times all bounds on time")
    chosen = parser.parse_args()
    PATIENCE = chosen.patience
    names = [name for name in SCENES if name.startswith(chosen.only or "")]
    began = time.monotonic()
    with tempfile.TemporaryDirectory() as scratch:
        folder = chosen.keep or Path(scratch)
        folder.mkdir(parents=True, exist_ok=True)
        choices = scenes(folder, names)
        if chosen.frames is not None and chosen.only in (None, FRAMES):
            choices.append(with_threads(chosen.frames, folder))
        for scene in choices:
            print(f"{scene.name}: {scene.blocks} blocks, {scene.wall_s:.2f} s undisturbed")
        seeds = range(chosen.seed, chosen.seed + chosen.trials)
        ended = run_trials(seeds, choices, folder, chosen.jobs)
    document = summary(ended, time.monotonic() - began)
    text = json.dumps(document, indent=1)
    print(text)
    if chosen.json is not None:
        chosen.json.write_text(text + "\n", "utf-8")
    for found in ended:
        if found.wrong:
            print(told(found))
    return 1 if document["failed"] else 0


if __name__ == "__main__":
    sys.exit(main())
