"""Blocks through processes: nothing lost, in order, whatever is killed."""

import os
import resource
import select
import shutil
import signal
import subprocess
import sys
import threading
import time
from contextlib import suppress
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from test_prepared import DNA, assert_equal, blocks, small_tokenizer

from command import SUPPORT, interruptible
from virnucpro.calls import FRAME_NAMES
from virnucpro.classifiers import prefetch as loaders
from virnucpro.classifiers.prefetch import AHEAD, Loaders, workers_for
from virnucpro.classifiers.prepared import FramePreparation
from virnucpro.errors import (
    BundleError,
    InputError,
    OutOfMemory,
    SettingsError,
    WorkerError,
)
from virnucpro.frames import open_frames

NUMBERS = (0, 1, 2, 3, 8)
linux = pytest.mark.skipif(sys.platform != "linux", reason="needs /proc")


@pytest.fixture(scope="module")
def preparation(tmp_path_factory):
    return FramePreparation(small_tokenizer(tmp_path_factory.mktemp("words") / "tokenizer.json"))


@pytest.fixture(scope="module")
def pools(preparation):
    """Loaders that are there already, by their number of workers."""
    made = {}

    def pool(workers):
        if workers not in made:
            made[workers] = Loaders(preparation, workers).__enter__()
        return made[workers]

    yield pool
    for started in made.values():
        started.__exit__(None, None, None)


@pytest.fixture
def one(preparation):
    with Loaders(preparation, 1) as loaders:
        yield loaders


def gone(pid, within_s=5.0):
    """Whether a process is not there any more, not even as a zombie."""
    end = time.monotonic() + within_s
    while time.monotonic() < end:
        try:
            os.kill(pid, 0)
        except ProcessLookupError:
            return True
        time.sleep(0.02)
    return False


def some_blocks(count=6, chunks=4):
    random = np.random.default_rng(4)
    codons = ["GCA", "AAA", "ATT", "CAA", "GGA", "AAT"]
    return blocks(["".join(random.choice(codons, 30 * chunks)) for _ in range(count)], 60 * chunks)


def test_large_blocks_are_prepared_in_parts(preparation, pools, monkeypatch):
    """Of unequal chunks, some without a frame; with fewer chunks than parts, too."""
    random = np.random.default_rng(9)
    texts = ["".join(random.choice(list("ACGT"), n)) for n in random.integers(0, 400, 60)]
    given_ = blocks([*texts, "TTAATTAATTAA" * 9, "ACG" * 500], 3_000)
    assert len(given_) > 3
    for part_nt in (100, 700, 2_000):
        monkeypatch.setattr(loaders, "PART_NT", part_nt)
        parts = [part for block in given_ for part in loaders._parts(block)]
        assert len(parts) > len(given_) or part_nt == 2_000
        assert sum(len(part.rows) for part in parts) == sum(len(b.rows) for b in given_)
        assert_whole(list(pools(2).prepared(given_)), given_, preparation)


def assert_whole(found, given_, preparation):
    """Every block once, in order, with what this process would make of it."""
    assert [block.number for block, _ in found] == [block.number for block in given_]
    for block, prepared in found:
        assert_equal(prepared, preparation(block))


def names(block, chunk, frame):
    """(record, chunk, frame) of each frame."""
    rows = block.rows
    return [
        (int(rows.record[c]), int(rows.number[c]), FRAME_NAMES[f])
        for c, f in zip(chunk, frame, strict=True)
    ]


def test_a_process_has_read_the_tokenizer_before_the_first_block_comes(preparation):
    with Loaders(preparation, 1) as loaders:
        [worker] = loaders._all
        there, _, _ = select.select([worker._answers], [], [], 60)
        assert there


def test_a_process_without_a_tokenizer_says_so_each_time(tmp_path, preparation):
    path = tmp_path / "tokenizer.json"
    shutil.copy(preparation.described()["tokenizer"], path)
    broken = FramePreparation(path)
    path.write_text("{}")
    with Loaders(broken, 1) as loaders:
        [worker] = loaders._all
        for block in some_blocks(2):
            with pytest.raises(BundleError, match=r"not a tokenizer\.json"):
                worker.prepared(block)


# Conservation


@settings(max_examples=40, deadline=None)
@given(st.lists(DNA, max_size=12), st.sampled_from(NUMBERS), st.sampled_from([1, 150, 400, 10**6]))
def test_ids_in_are_ids_out(pools, preparation, contigs, workers, block_nt):
    """TRAP D1, D7, D8."""
    whole = blocks(contigs, block_nt)
    found = list(pools(workers).prepared(iter(whole)))
    assert_whole(found, whole, preparation)
    ids = [n for block, prepared in found for n in names(block, prepared.chunk, prepared.frame)]
    expected = [
        (int(block.rows.record[row]), int(block.rows.number[row]), frame.name)
        for block in whole
        for row in range(len(block.rows))
        for frame in open_frames(block.chunk(row).decode())
    ]
    assert sorted(ids) == sorted(expected)


@pytest.mark.parametrize("workers", NUMBERS)
@pytest.mark.parametrize(
    "contigs", [[], [""], ["N" * 200], ["ATG" * 30], ["TTAATTAATTAA" * 9]], ids=str
)
def test_fewer_blocks_than_workers_and_nothing_in_them(pools, preparation, workers, contigs):
    """TRAP D7, D8."""
    whole = blocks(contigs)
    assert_whole(list(pools(workers).prepared(whole)), whole, preparation)


@pytest.mark.parametrize("workers", [1, 3])
def test_blocks_are_taken_a_little_ahead_in_the_thread_that_asks(pools, workers):
    """TRAP R9."""
    taken, threads = [], set()

    def counted():
        for block in some_blocks(30):
            taken.append(block.number)
            threads.add(threading.get_ident())
            yield block

    for given_, (block, _) in enumerate(pools(workers).prepared(counted())):
        assert block.number == given_
        assert len(taken) - given_ <= AHEAD * workers
    assert threads == {threading.get_ident()}


@pytest.mark.parametrize("workers", [1, 2])
def test_blocks_larger_than_a_pipe_holds(pools, preparation, workers):
    """Both ways at once, while nobody takes the results."""
    whole = some_blocks(2, chunks=3000)
    assert len(whole[0].text) > 2 * 65_536
    prepared = pools(workers).prepared(whole)
    found = [next(prepared)]
    assert len(found[0][1].to_bytes()) > 2 * 65_536
    time.sleep(0.3)
    assert_whole(found + list(prepared), whole, preparation)


def test_a_consumer_that_leaves_early_leaves_nothing_behind(pools, preparation):
    whole = some_blocks(8)
    for _ in pools(2).prepared(whole):
        break
    assert_whole(list(pools(2).prepared(whole)), whole, preparation)


# Errors


@pytest.mark.parametrize("workers", [0, 2])
def test_an_error_of_the_blocks_comes_after_those_before_it(pools, preparation, workers):
    whole = some_blocks(7)

    def breaking():
        yield from whole
        raise InputError("it broke", "in.fa", 7)

    found = []
    with pytest.raises(InputError, match="line 7: it broke"):
        found.extend(pools(workers).prepared(breaking()))
        # extend keeps what it was given before the error
    assert_whole(found, whole, preparation)


def test_a_bug_in_the_blocks_is_raised(pools):
    def breaking():
        yield from some_blocks(1)
        raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError):
        list(pools(2).prepared(breaking()))


def outside(block):
    """A block whose last chunk lies outside its text, as only a bug makes one."""
    return replace(block, offset=block.offset + len(block.text))


def test_an_error_in_a_process_reaches_this_one(preparation):
    """TRAP R5."""
    whole = some_blocks(5)
    whole[2] = outside(whole[2])
    with (
        Loaders(preparation, 2) as loaders,
        pytest.raises(WorkerError, match=r"exit code 1, .*ValueError: a chunk lies outside"),
    ):
        list(loaders.prepared(whole))


def test_a_tokenizer_that_is_gone_is_named(tmp_path):
    path = small_tokenizer(tmp_path / "tokenizer.json")
    preparation = FramePreparation(path)
    path.unlink()
    with (
        Loaders(preparation, 1) as loaders,
        pytest.raises(BundleError, match=r"tokenizer\.json: the tokenizer cannot be read"),
    ):
        list(loaders.prepared(some_blocks(1)))


def test_a_process_that_cannot_be_started(preparation, monkeypatch):
    monkeypatch.setattr(sys, "executable", "/nowhere/python")
    with (
        pytest.raises(WorkerError, match=r"cannot be started \(No such file"),
        Loaders(preparation, 2),
    ):
        pass


@pytest.mark.skipif(sys.platform != "linux", reason="limits the memory of another process")
@pytest.mark.parametrize("mebibytes", [1, 8, 70])
def test_memory_that_runs_out_in_a_process(one, mebibytes):
    """TRAP R7: for the message, for an array, and for the tokenizer, which Rust aborts."""
    list(one.prepared(some_blocks(1)))
    (pid,) = one.pids
    held = int(Path(f"/proc/{pid}/statm").read_text().split()[0]) * resource.getpagesize()
    resource.prlimit(pid, resource.RLIMIT_AS, (held + (mebibytes << 20),) * 2)
    (large,) = blocks(["ATGGCA" * 400_000], 10**8, chunk_nt=300)
    with pytest.raises(OutOfMemory, match=r"\(--dataloader-workers\) ran out of memory") as end:
        list(one.prepared([large]))
    assert end.value.exit_code == 4


# Kills


def killed_with_a_block(loaders, block, number=signal.SIGKILL):
    """Blocks of which the first is in the hands of the only process when that is killed."""
    (pid,) = loaders.pids
    os.kill(pid, signal.SIGSTOP)
    yield block
    time.sleep(0.2)
    os.kill(pid, number)
    os.kill(pid, signal.SIGCONT)


def test_a_killed_process_is_replaced_and_nothing_is_lost(one, preparation):
    """TRAP R5, D1."""
    for block in [*some_blocks(3), *blocks([""]), *blocks(["ATG" * 20])]:
        (pid,) = one.pids
        found = list(one.prepared(killed_with_a_block(one, block)))
        assert_whole(found, [block], preparation)
        assert one.pids != [pid]
        assert gone(pid, 0.1)


def test_a_process_killed_while_it_waits_is_replaced(pools, preparation):
    """TRAP R5."""
    whole = some_blocks(9)
    for pid in pools(3).pids:
        os.kill(pid, signal.SIGKILL)
    assert_whole(list(pools(3).prepared(whole)), whole, preparation)
    assert len(pools(3).pids) == 3


def test_killed_again_and_again(one):
    """TRAP R5, R7."""
    done = threading.Event()

    def killing():
        while not done.is_set():
            for pid in one.pids:
                with suppress(ProcessLookupError):
                    os.kill(pid, signal.SIGKILL)
            time.sleep(0.01)

    killer = threading.Thread(target=killing)
    killer.start()
    try:
        with pytest.raises(OutOfMemory, match="perhaps by the kernel") as end:
            list(one.prepared(some_blocks(3)))
    finally:
        done.set()
        killer.join()
    assert end.value.exit_code == 4


def test_a_process_that_ends_by_another_signal(one):
    """TRAP R5: only SIGKILL may be the kernel's word for memory."""
    with pytest.raises(WorkerError, match="signal 15, and last said: nothing"):
        list(one.prepared(killed_with_a_block(one, some_blocks(1)[0], signal.SIGTERM)))


def test_ctrl_c_is_left_to_this_process(one, preparation):
    """TRAP R6: also before the process has said that it ignores it."""
    for _ in range(20):
        os.kill(one.pids[0], signal.SIGINT)
        time.sleep(0.01)
    pids = one.pids
    whole = some_blocks(3)
    assert_whole(list(one.prepared(whole)), whole, preparation)
    os.kill(one.pids[0], signal.SIGINT)
    assert_whole(list(one.prepared(whole)), whole, preparation)
    assert one.pids == pids


def test_nobody_is_left_after_the_end(preparation):
    """TRAP R6."""
    with Loaders(preparation, 3) as loaders:
        pids = loaders.pids
        next(loaders.prepared(some_blocks(9)))
        assert len(pids) == 3
    assert all(gone(pid, 0.1) for pid in pids)
    with suppress(KeyError), Loaders(preparation, 2) as loaders:
        pids = loaders.pids
        raise KeyError
    assert all(gone(pid, 0.1) for pid in pids)


# Not guarded by `if __name__ == "__main__"`, as a user's script may be.
SCRIPT = """
import os, sys, time
sys.path[:0] = sys.argv[2].split(os.pathsep)
from test_prefetch import some_blocks
from virnucpro.classifiers.prefetch import Loaders
from virnucpro.classifiers.prepared import FramePreparation
os.environ["PYTHONPATH"] = sys.argv[4]

made = some_blocks(20, chunks=200)

def endless():
    while True:
        yield from made

with Loaders(FramePreparation(sys.argv[1]), 3) as loaders:
    list(loaders.prepared(some_blocks()))
    print(*loaders.pids, flush=True)
    for _ in loaders.prepared(endless()) if sys.argv[3] == "busy" else [time.sleep(60)]:
        pass
"""


@pytest.fixture
def script(tmp_path):
    """Starts a script of its own process group; it and the ids of its processes."""
    started = []
    path = small_tokenizer(tmp_path / "tokenizer.json")
    program = tmp_path / "unguarded.py"
    program.write_text(SCRIPT)
    # Another package of our name, which this process did not take.
    (tmp_path / "other/virnucpro").mkdir(parents=True)
    (tmp_path / "other/virnucpro/__init__.py").write_text("raise ImportError")

    def start(what):
        process = subprocess.Popen(
            [
                *(
                    sys.executable,
                    str(program),
                    str(path),
                    os.pathsep.join([str(SUPPORT), str(Path(__file__).parent)]),
                    what,
                ),
                str(tmp_path / "other"),
            ],
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            start_new_session=True,
            preexec_fn=interruptible,
        )
        started.append(process)
        pids = [int(word) for word in process.stdout.readline().split()]
        assert len(pids) == 3
        time.sleep(0.5)
        return process, pids

    yield start
    for process in started:
        with suppress(ProcessLookupError):
            os.killpg(process.pid, signal.SIGKILL)
        process.communicate()


@pytest.mark.parametrize("what", ["busy", "idle"])
def test_they_end_with_the_process_that_started_them(script, what):
    """TRAP R6."""
    process, pids = script(what)
    process.kill()
    process.wait()
    assert all(gone(pid) for pid in pids)


@pytest.mark.parametrize("what", ["busy", "idle"])
def test_ctrl_c_ends_all_of_them(script, what):
    """TRAP R6."""
    process, pids = script(what)
    os.killpg(process.pid, signal.SIGINT)
    _, said = process.communicate(timeout=10)
    assert process.returncode == -signal.SIGINT
    assert said.count(b"Traceback") == 1
    assert said.rstrip().endswith(b"KeyboardInterrupt")
    assert all(gone(pid, 0.5) for pid in pids)


# What they are


@linux
def test_they_have_one_thread_and_no_torch(pools):
    list(pools(2).prepared(some_blocks(3)))
    for pid in pools(2).pids:
        assert "torch" not in Path(f"/proc/{pid}/maps").read_text()
        status = Path(f"/proc/{pid}/status").read_text()
        assert "\nThreads:\t1\n" in status


SERVED = """
import io, json, sys
from virnucpro.classifiers.worker import ASKED, DONE, received, send, serve
from virnucpro.classifiers.prepared import texts_to_bytes
from virnucpro.classifiers.chunk_status import Texts
questions, answers = io.BytesIO(), io.BytesIO()
send(questions, ASKED, json.dumps({"tokenizer": sys.argv[1]}).encode())
send(questions, ASKED, texts_to_bytes(Texts.of_strings(["ATG" * 30])))
questions.seek(0)
serve(questions, answers)
answers.seek(0)
assert received(answers) == (DONE, b"")
kind, content = received(answers)
assert kind == DONE and len(content) > 500
sys.exit("torch" in sys.modules)
"""


def test_no_torch_is_loaded_within(tmp_path):
    path = small_tokenizer(tmp_path / "tokenizer.json")
    assert not subprocess.run([sys.executable, "-c", SERVED, str(path)], check=False).returncode


@pytest.mark.parametrize(
    ("kind", "gpus", "cpus", "wish", "workers"),
    [
        ("cuda", 1, 16, None, 8),
        ("cuda", 4, 16, None, 4),
        ("cuda", 8, 4, None, 1),
        ("cuda", 1, 2, None, 2),
        ("cpu", 0, 16, None, 0),
        ("cpu", 0, 1, 12, 12),
        ("cuda", 1, 16, 0, 0),
    ],
)
def test_how_many(kind, gpus, cpus, wish, workers):
    assert workers_for(kind, gpus, cpus, wish) == workers


def test_fewer_than_none_are_refused():
    with pytest.raises(SettingsError, match="must be 0 or more, got -1"):
        workers_for("cpu", 0, 4, -1)
