"""Several workers: the same bytes, and real faults of real processes.

Faults that must happen inside a worker are preloaded into it (FAULTS), as Dask lets anybody do.
"""

import json
import os
import shutil
import signal
import socket
import subprocess
import sys
import threading
import time
from contextlib import contextmanager, suppress
from pathlib import Path
from types import SimpleNamespace

import dask
import psutil
import pytest
from distributed.comm import CommClosedError

from command import (
    PROGRAM,
    dna,
    fasta,
    interruptible,
    made_bundle,
    random_reads,
    results,
    run_json,
    table,
)
from virnucpro.errors import OutOfMemory, SettingsError, WorkerError
from virnucpro.progress import Silent
from virnucpro.run import cluster, dask_runner
from virnucpro.run.predict import run
from virnucpro.run.settings import Settings

BLOCK_NT = 12_000
# In the first record of the block at which a fault happens; harmless letters elsewhere.
MARK = "ACGTTGCATTAGCCGATCGGATTACAGGCATCCGTAAGC" * 3
FAULTS = """
import os, signal, time
from pathlib import Path

import numpy as np

from virnucpro.classifiers.kmer import KmerClassifier

HERE, MARK = Path({folder!r}), {mark!r}


def with_faults(score_block):
    def faulty(self, block):
        time.sleep({sleep_s})
        if MARK in block.text:
            {fault}
        return score_block(self, block)

    return faulty


if KmerClassifier.score_block.__name__ != "faulty":  # Dask runs a file that it preloads twice
    KmerClassifier.score_block = with_faults(KmerClassifier.score_block)
"""
KILL = "os.kill(os.getpid(), signal.SIGKILL)"
HANG = "(HERE / 'hanging').touch(); time.sleep(600)"
ONCE = "if not (HERE / 'hanging').exists(): " + HANG
NO_MEMORY = "np.empty(1 << 50, np.uint8)"


class Watching(Silent):
    """Does something once, when so many chunks are scored; remembers lines."""

    def __init__(self, act=lambda: None, after=1):
        self.lines, self.notes, self._act, self._after = [], [], act, after

    def line(self, text):
        self.lines.append(text)

    def advance(self, position):
        self.notes.append(position.note)
        if position.count >= self._after and self._act is not None:
            act, self._act = self._act, None
            act()


@pytest.fixture(scope="module")
def here(tmp_path_factory) -> Path:
    """A folder with an input of some 17 blocks, among them one with MARK, and a bundle."""
    folder = tmp_path_factory.mktemp("cluster")
    records = [(f"r{k}", dna(400, k)) for k in range(430)]
    records[200] = ("marked", MARK + dna(280, "marked"))
    records[33], records[99] = ("empty", ""), ("other letters", "NNNNRYKM" * 50)
    (folder / "in.fa").write_bytes(fasta(records))
    made_bundle(folder / "km", block_nt=BLOCK_NT)
    return folder


@pytest.fixture(scope="module")
def expected(here) -> dict[str, bytes]:
    """The results of one process."""
    run(settings(here, here / "serial"))
    return results(here / "serial")


def settings(here, out, **options) -> Settings:
    return Settings.of(here / "in.fa", out, here / "km", **options)


@contextmanager
def preloaded(folder: Path, fault: str = "pass", sleep_s: float = 0.0):
    """Workers that are started meanwhile have a fault at MARK, and take some time for a block."""
    path = folder / "faults.py"
    mark = MARK.encode()
    path.write_text(
        FAULTS.format(folder=str(folder), mark=mark, sleep_s=sleep_s, fault=fault), "utf-8"
    )
    with dask.config.set({"distributed.worker.preload": [str(path)]}):
        yield


def workers_of(pid: int | None = None) -> list[psutil.Process]:
    """The worker processes that a process started."""
    found = []
    for child in psutil.Process(pid).children(recursive=True):
        with suppress(psutil.NoSuchProcess, psutil.ZombieProcess):  # it ended meanwhile
            if any("dask_worker" in word for word in child.cmdline()):
                found.append(child)
    return found


def kill_one() -> None:
    workers_of()[0].kill()


# The same bytes


def test_tables_are_those_of_one_process(here, expected, tmp_path):
    listening = set()

    def look() -> None:
        for process in (psutil.Process(), *workers_of()):
            listening.update(
                c.laddr.ip for c in process.net_connections("tcp") if c.status == "LISTEN"
            )

    watching = Watching(look)
    run(settings(here, tmp_path / "run", workers=2), watching)
    assert results(tmp_path / "run") == expected
    assert listening == {"127.0.0.1"}
    document = run_json(tmp_path / "run")
    shares = document["workers"]
    assert [share["name"] for share in shares] == ["1", "2"]
    assert sum(share["blocks"] for share in shares) == document["blocks"]["total"] > 12
    assert sum(share["chunks"] for share in shares) == document["counts"]["chunks"]
    assert all(0 <= share["busy"] <= 1 for share in shares)
    seconds = sum(share["seconds"] for share in shares)
    assert seconds > 0
    assert document["timings"]["scoring_s"] == pytest.approx(seconds / 2, abs=2e-3)
    assert {share["utilisation"] for share in shares} == {"unknown"}
    assert [line.split(" ")[0] for line in watching.lines].count("worker") == 2
    assert any(line.startswith("load balance (slowest / mean): ") for line in watching.lines)
    assert " chunks, 2 workers at " in watching.notes[-1]
    assert not workers_of()


def test_a_worker_tells_how_much_of_its_block_is_scored(here, expected, tmp_path):
    """A block of the k-mer model has no steps, so one is made in it."""
    seen = tmp_path / "seen"
    step = (
        "from virnucpro.progress import stepped; time.sleep(1.1); stepped(0.5); "
        "[time.sleep(0.1) for _ in range(200) if not (HERE / 'seen').exists()]"
    )
    positions = []

    def advance(position):
        if not position.whole and position.count not in {p.count for p in positions if p.whole}:
            seen.touch()
        positions.append(position)

    watching = Watching()
    watching.advance = advance
    with preloaded(tmp_path, step):
        run(settings(here, tmp_path / "run", workers=1), watching)
    assert results(tmp_path / "run") == expected
    whole = [position.count for position in positions if position.whole]
    parts = {position.count for position in positions if not position.whole} - {*whole}
    assert len(parts) == 1
    assert whole[0] < parts.pop() < whole[-1]
    for values in ([p.count for p in positions], [p.done for p in positions]):
        assert values == sorted(values)


@pytest.mark.slow
@pytest.mark.parametrize("workers", [1, 3, 7])
def test_the_number_of_workers_does_not_show(here, expected, tmp_path, workers):
    run(settings(here, tmp_path / "run", workers=workers))
    assert results(tmp_path / "run") == expected


@pytest.mark.slow
def test_torch_in_workers_has_its_share_of_the_processors(tmp_path):
    """Dask's own way of starting workers would leave them one thread each."""
    (tmp_path / "in.fa").write_bytes(random_reads(60, 500))
    outcomes = [
        run(Settings.of(tmp_path / "in.fa", tmp_path / name, "mini-500", **options))
        for name, options in (("serial", {}), ("two", {"workers": 2, "threads": 2}))
    ]
    assert [outcome.status for outcome in outcomes] == ["complete", "complete"]
    assert results(tmp_path / "two") == results(tmp_path / "serial")
    assert run_json(tmp_path / "two")["settings"]["threads"] == 2


def test_a_run_goes_on_with_another_number_of_workers(here, expected, tmp_path):
    def stop() -> None:
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        run(settings(here, tmp_path / "run"), Watching(stop, after=100))
    run(settings(here, tmp_path / "run", workers=1))
    assert results(tmp_path / "run") == expected
    assert run_json(tmp_path / "run")["blocks"]["reused"] > 2


# Faults


def test_a_killed_worker_is_replaced_and_its_blocks_are_scored_again(here, expected, tmp_path):
    watching = Watching(kill_one, after=30)
    with preloaded(tmp_path, sleep_s=0.1):
        run(settings(here, tmp_path / "run", workers=2), watching)
    assert results(tmp_path / "run") == expected
    document = run_json(tmp_path / "run")
    assert sum(share["blocks"] for share in document["workers"]) == document["blocks"]["total"]
    assert any(line.endswith(", which is tried again") for line in watching.lines)
    assert not any("missing or damaged" in line for line in watching.lines)  # at the end


def test_a_killed_client_leaves_no_worker_and_a_run_that_goes_on(here, expected, tmp_path):
    """TRAP R5, R6. A worker that is in the middle of a block ends, too."""
    out = tmp_path / "run"
    command = [*PROGRAM, "predict", here / "in.fa", "-o", out, "--bundle", here / "km"]
    with preloaded(tmp_path, HANG):
        preload = {"DASK_DISTRIBUTED__WORKER__PRELOAD": json.dumps([str(tmp_path / "faults.py")])}
    process = subprocess.Popen(
        [*map(str, command), "--workers", "2", "-q"],
        env=os.environ | preload,
        preexec_fn=interruptible,
    )
    wait_for(lambda: (tmp_path / "hanging").exists() and any(out.glob(".virnucpro/blocks/*.block")))
    workers = workers_of(process.pid)
    assert len(workers) == 2
    process.kill()
    process.wait()
    _, alive = psutil.wait_procs(workers, timeout=10)
    assert not alive
    run(settings(here, out))
    assert results(out) == expected
    assert run_json(out)["blocks"]["reused"] > 0


@pytest.mark.parametrize(("how", "code"), [(signal.SIGINT, 130), (signal.SIGTERM, 143)])
@pytest.mark.slow
def test_a_signal_ends_client_and_workers_in_order(here, tmp_path, how, code):
    out = tmp_path / "run"
    command = [*PROGRAM, "predict", here / "in.fa", "-o", out, "--bundle", here / "km"]
    with preloaded(tmp_path, HANG):
        preload = {"DASK_DISTRIBUTED__WORKER__PRELOAD": json.dumps([str(tmp_path / "faults.py")])}
    process = subprocess.Popen(
        [*map(str, command), "--workers", "2", "-q"],
        env=os.environ | preload,
        preexec_fn=interruptible,
        stderr=subprocess.PIPE,
        text=True,
    )
    wait_for((tmp_path / "hanging").exists)
    workers = workers_of(process.pid)
    process.send_signal(how)
    _, err = process.communicate(timeout=10)
    assert process.returncode == code
    assert "Traceback" not in err
    assert not any(worker.is_running() for worker in workers)
    assert run_json(out)["status"] == "interrupted"


def test_a_block_that_kills_its_workers_is_given_up(here, expected, tmp_path):
    watching = Watching()
    with preloaded(tmp_path, KILL):
        outcome = run(settings(here, tmp_path / "run", workers=2), watching)
    assert (outcome.status, outcome.exit_code) == ("partial", 2)
    failed = table(tmp_path / "run" / "failed.tsv")
    assert "marked" in [row["contig"] for row in failed]
    assert {row["reason"] for row in failed} == {
        "1 of 1 chunks could not be scored: 3 workers died, or did not answer, while they scored "
        "its block"
    }
    assert 0 < len(failed) < 40
    assert any("is given up" in line for line in watching.lines)
    lost = {row["contig"] for row in failed}
    rows = (tmp_path / "run" / "calls.tsv").read_text().splitlines()
    kept = [row for row in rows if row.split("\t")[2] not in lost]
    all_rows = expected["calls.tsv"].decode().splitlines()
    assert kept == [row for row in all_rows if row.split("\t")[2] not in lost]


def test_a_worker_that_hangs_is_ended_and_its_block_scored_elsewhere(
    here, expected, tmp_path, monkeypatch
):
    monkeypatch.setattr(dask_runner, "LEAST_LIMIT_S", 1.0)
    monkeypatch.setattr(dask_runner, "FIRST_LIMIT_S", 1.0)
    with preloaded(tmp_path, ONCE):
        run(settings(here, tmp_path / "run", workers=2))
    assert (tmp_path / "hanging").exists()
    assert results(tmp_path / "run") == expected


def test_a_worker_out_of_memory_ends_the_run_with_its_numbers(here, expected, tmp_path):
    with (
        preloaded(tmp_path, NO_MEMORY),
        pytest.raises(OutOfMemory, match=r"worker [12] on \S+: out of memory \(allocated .* GiB"),
    ):
        run(settings(here, tmp_path / "run", workers=2))
    document = run_json(tmp_path / "run")
    assert (document["status"], document["exit_code"]) == ("failed", 4)
    run(settings(here, tmp_path / "run"))
    assert results(tmp_path / "run") == expected
    assert run_json(tmp_path / "run")["blocks"]["reused"] > 0


LIMITED = """
import resource
from pathlib import Path

from virnucpro.classifiers.whole_chunks import ChunkClassifier


def limited(score_block):
    def with_limit(self, block):
        size = int(Path("/proc/self/statm").read_text().split()[0]) * resource.getpagesize()
        most = min(resource.getrlimit(resource.RLIMIT_AS)[0] % (1 << 62), size + {room})
        resource.setrlimit(resource.RLIMIT_AS, (most, most))
        return score_block(self, block)

    return with_limit


if ChunkClassifier.score_block.__name__ != "with_limit":  # Dask runs a file that it preloads twice
    ChunkClassifier.score_block = limited(ChunkClassifier.score_block)
"""


@pytest.mark.slow
@pytest.mark.skipif(not Path("/proc/self/statm").exists(), reason="sets its limit by /proc")
def test_a_worker_whose_memory_is_short_takes_smaller_batches(tmp_path):
    """A limit of the system, not an error that a test raises."""
    (tmp_path / "in.fa").write_bytes(random_reads(400, 500))
    path = tmp_path / "limited.py"
    path.write_text(LIMITED.format(room=150 << 20))
    options = {"workers": 1, "threads": 1, "batch_tokens": 4_000_000}
    watching = Watching()
    with dask.config.set({"distributed.worker.preload": [str(path)]}):
        outcome = run(
            Settings.of(tmp_path / "in.fa", tmp_path / "run", "mini-500", **options), watching
        )
    assert outcome.status == "complete"
    (line,) = [line for line in watching.lines if "memory is short" in line]
    assert "not 4,000,000, so scores may round otherwise" in line


@pytest.mark.parametrize("option", [{"workers": 2}, {"scheduler": "tcp://127.0.0.1:8786"}])
@pytest.mark.parametrize("dask_is", ["not installed", "damaged"])
def test_without_dask_no_folder_is_made(here, tmp_path, monkeypatch, option, dask_is):
    spec = None if dask_is == "not installed" else object()
    monkeypatch.setattr(cluster, "find_spec", lambda _: spec)
    monkeypatch.setitem(sys.modules, "distributed", None)
    words = dask_is if spec is None else "cannot be loaded"
    (name,) = option
    with pytest.raises(SettingsError, match=f"^--{name} needs Dask .*{words}.*install"):
        run(settings(here, tmp_path / "run", **option))
    assert not (tmp_path / "run").exists()


def test_a_worker_that_cannot_start_is_one_sentence(here, tmp_path):
    path = tmp_path / "faults.py"
    path.write_text("import os\nos._exit(7)\n")
    with (
        dask.config.set({"distributed.worker.preload": [str(path)]}),
        pytest.raises(WorkerError, match=r"a worker process did not start: exit code 7"),
    ):
        run(settings(here, tmp_path / "run", workers=1))
    assert run_json(tmp_path / "run")["status"] == "failed"


# A running cluster


class Cluster:
    """A scheduler and workers that somebody started by hand."""

    def __init__(self, folder: Path, workers: int, host: str = "127.0.0.1"):
        with socket.socket() as free:
            free.bind((host, 0))
            port = free.getsockname()[1]
        self.address = f"tcp://{host}:{port}"
        self._folder = folder
        self.scheduler = self.started("scheduler", "--host", host, "--port", port)
        self.workers = [self.worker(f"w{k}") for k in range(workers)]

    def started(self, what: str, *arguments: object, through=()) -> subprocess.Popen:
        command = [*through, sys.executable, "-m", "dask", what, "--no-dashboard"]
        with (self._folder / f"{what}.log").open("ab") as log:
            return subprocess.Popen([*command, *map(str, arguments)], stdout=log, stderr=log)

    def worker(self, name: str, host: str = "127.0.0.1", through=()) -> subprocess.Popen:
        options = ("--name", name, "--host", host, "--no-nanny", "--nthreads", 2)
        memory = ("--memory-limit", 0)
        return self.started("worker", self.address, *options, *memory, through=through)

    def end(self) -> None:
        for process in (*self.workers, self.scheduler):
            process.kill()
            process.wait()


@pytest.fixture
def running(tmp_path):
    """Start a cluster with some workers; it ends with the test."""
    clusters = []

    def start(workers: int, **where: str) -> Cluster:
        clusters.append(Cluster(tmp_path, workers, **where))
        wait_for(lambda: "Scheduler at" in (tmp_path / "scheduler.log").read_text())
        (tmp_path / "worker.log").touch()
        wait_for(lambda: (tmp_path / "worker.log").read_text().count("Registered to") >= workers)
        return clusters[-1]

    yield start
    for each in clusters:
        each.end()


def wait_for(condition, seconds: float = 60.0) -> None:
    deadline = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < deadline, "it did not come"
        time.sleep(0.02)


def environment_of(preload: Path) -> dict[str, str]:
    return {"DASK_DISTRIBUTED__WORKER__PRELOAD": json.dumps([str(preload)])}


def test_a_running_cluster_computes_and_a_lost_scheduler_ends_the_run(
    here, expected, tmp_path, running, monkeypatch
):
    with preloaded(tmp_path, sleep_s=0.1):
        monkeypatch.setenv(*environment_of(tmp_path / "faults.py").popitem())
        started = running(2)
    monkeypatch.setattr(cluster, "RECONNECT_S", 2.0)
    where = {"scheduler": started.address}
    run(settings(here, tmp_path / "first", **where))
    assert results(tmp_path / "first") == expected
    assert {share["name"] for share in run_json(tmp_path / "first")["workers"]} == {"w0", "w1"}
    began = time.monotonic()
    with pytest.raises(WorkerError, match=r"^the Dask scheduler has gone; finished blocks are"):
        run(settings(here, tmp_path / "run", **where), Watching(started.scheduler.kill, after=30))
    assert time.monotonic() - began < 30
    run(settings(here, tmp_path / "run"))
    assert results(tmp_path / "run") == expected
    assert run_json(tmp_path / "run")["blocks"]["reused"] > 0


def test_without_a_worker_left_a_run_ends(here, expected, tmp_path, running, monkeypatch):
    with preloaded(tmp_path, sleep_s=0.1):
        monkeypatch.setenv(*environment_of(tmp_path / "faults.py").popitem())
        started = running(1)
    monkeypatch.setattr(dask_runner, "NO_WORKER_S", 1.0)
    kill = Watching(started.workers[0].kill, after=30)
    with pytest.raises(WorkerError, match="the cluster has had no worker for 1 s; finished blocks"):
        run(settings(here, tmp_path / "run", scheduler=started.address), kill)
    run(settings(here, tmp_path / "run", workers=1))
    assert results(tmp_path / "run") == expected


@pytest.mark.slow
def test_a_worker_of_another_version_is_refused_by_name(here, tmp_path, running, monkeypatch):
    other = tmp_path / "other.py"
    other.write_text("import virnucpro.run.dask_worker as w\nw.__version__ = '0.0.7'\n")
    started = running(1)
    monkeypatch.setenv(*environment_of(other).popitem())
    started.workers.append(started.worker("stranger"))
    wait_for(lambda: (tmp_path / "worker.log").read_text().count("Registered to") == 2)
    with pytest.raises(WorkerError, match=r"differs from .* in its version of virnucpro: "):
        run(settings(here, tmp_path / "run", scheduler=started.address))


@pytest.fixture
def other_host():
    """A network namespace, which stands for a host: how to run there, both addresses, its link."""
    name, ours, theirs = "virnucpro-test", "10.213.7.1", "10.213.7.2"
    steps = [
        f"netns add {name}",
        f"link add vnp0 type veth peer name vnp1 netns {name}",
        f"addr add {ours}/30 dev vnp0",
        "link set vnp0 up",
        f"-n {name} addr add {theirs}/30 dev vnp1",
        f"-n {name} link set vnp1 up",
        f"-n {name} link set lo up",
    ]
    try:
        if shutil.which("ip") is None or any(ip(step) for step in steps):
            pytest.skip("no network namespaces are to be had here")
        yield ("ip", "netns", "exec", name), ours, theirs
    finally:
        if shutil.which("ip") is not None:
            ip("link del vnp0")
            ip(f"netns del {name}")


def ip(words: str) -> int:
    return subprocess.run(["ip", *words.split()], capture_output=True, check=False).returncode


@pytest.mark.slow
def test_a_connection_that_is_lost_for_20_s(
    here, expected, tmp_path, running, other_host, monkeypatch
):
    through, ours, theirs = other_host
    with preloaded(tmp_path, sleep_s=0.1):
        monkeypatch.setenv(*environment_of(tmp_path / "faults.py").popitem())
        started = running(0, host=ours)
        started.workers.append(started.worker("here", ours))
        started.workers.append(started.worker("there", theirs, through))
        wait_for(lambda: (tmp_path / "worker.log").read_text().count("Registered to") == 2)

    def cut() -> None:
        assert ip("link set vnp0 down") == 0
        timer = threading.Timer(20.0, ip, ["link set vnp0 up"])
        timer.start()

    run(settings(here, tmp_path / "run", scheduler=started.address), Watching(cut, after=30))
    assert results(tmp_path / "run") == expected
    shares = {share["name"]: share["blocks"] for share in run_json(tmp_path / "run")["workers"]}
    assert sum(shares.values()) == run_json(tmp_path / "run")["blocks"]["total"]
    assert shares["there"] > 0


def test_a_cluster_without_workers_is_one_sentence(here, tmp_path, running, monkeypatch):
    address = running(0).address
    monkeypatch.setattr(cluster, "RECONNECT_S", 2.0)
    with pytest.raises(WorkerError, match="the scheduler has no workers; start some with"):
        run(settings(here, tmp_path / "run", scheduler=address))


@pytest.mark.parametrize("address", ["host", "foo://host:1", "tcp://", "tcp://host:port"])
def test_what_is_no_address_of_a_scheduler_is_said_at_once(here, tmp_path, address):
    with pytest.raises(SettingsError, match=f"^--scheduler must be .*got '{address}' "):
        run(settings(here, tmp_path / "run", scheduler=address))
    assert not (tmp_path / "run").exists()


@pytest.mark.parametrize("content", ["", "[]", "{}", '{"address": 5}', '{"address": "tcp://h"}'])
def test_a_damaged_file_of_a_scheduler_is_one_sentence(here, tmp_path, monkeypatch, content):
    monkeypatch.setattr(cluster, "RECONNECT_S", 0.1)
    (tmp_path / "s.json").write_text(content)
    with pytest.raises(WorkerError, match=r"s\.json: not the file of a Dask scheduler \("):
        run(settings(here, tmp_path / "run", scheduler=str(tmp_path / "s.json")))
    assert not (tmp_path / "run").exists()


@pytest.mark.parametrize(
    ("address", "sentence"),
    [
        ("missing.json", r"missing.json: this file of a Dask scheduler is missing; start one"),
        ("tcp://127.0.0.1:9", r"^tcp://127.0.0.1:9: no Dask scheduler answers here "),
    ],
)
def test_a_scheduler_that_does_not_answer_is_one_sentence(
    here, tmp_path, monkeypatch, address, sentence
):
    monkeypatch.setattr(cluster, "RECONNECT_S", 0.5)
    with pytest.raises(WorkerError, match=sentence):
        run(settings(here, tmp_path / "run", scheduler=address))


def test_a_connection_that_is_lost_while_scores_come_leaves_their_block_to_be_sent_again():
    class Lost:
        def result(self, timeout):
            raise CommClosedError("reset by peer")

    runner = object.__new__(dask_runner._Dealer)
    runner._again, runner._sent = [], {}
    sent = dask_runner._Sent(block=SimpleNamespace(number=7), packed=None)
    for times in range(1, dask_runner.MOST_LOSSES):
        assert runner._scored(sent, Lost()) is None
        assert runner._again == times * [sent]
    with pytest.raises(WorkerError, match=r"of block 7 were lost 10 times with their connection"):
        runner._scored(sent, Lost())
