"""Blocks through threads: nothing lost, in order, however it ends."""

import os
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
from virnucpro.classifiers import prefetch
from virnucpro.classifiers.prefetch import AHEAD, Prefetch, workers_for
from virnucpro.classifiers.prepared import FramePreparation
from virnucpro.errors import InputError, OutOfMemory, SettingsError
from virnucpro.frames import open_frames

NUMBERS = (0, 1, 2, 4, 8)


@pytest.fixture(scope="module")
def preparation(tmp_path_factory):
    return FramePreparation(small_tokenizer(tmp_path_factory.mktemp("words") / "tokenizer.json"))


@pytest.fixture(scope="module")
def pools(preparation):
    """Return a Prefetch that has begun, by its number of threads."""
    made = {}

    def pool(workers):
        if workers not in made:
            made[workers] = Prefetch(preparation, workers).__enter__()
        return made[workers]

    yield pool
    for started in made.values():
        started.__exit__(None, None, None)


class Slow:
    """A preparation that takes at least some seconds, and counts its calls by thread."""

    def __init__(self, preparation, seconds=0.01):
        self.preparation, self.seconds = preparation, seconds
        self.threads = []

    def __call__(self, block):
        self.threads.append(threading.get_ident())
        time.sleep(self.seconds)
        return self.preparation(block)


def some_blocks(count=6, chunks=4):
    random = np.random.default_rng(4)
    codons = ["GCA", "AAA", "ATT", "CAA", "GGA", "AAT"]
    return blocks(["".join(random.choice(codons, 30 * chunks)) for _ in range(count)], 60 * chunks)


def assert_whole(found, given_, preparation):
    """Every block once, in order, as this thread prepares it."""
    assert [block.number for block, _ in found] == [block.number for block in given_]
    for block, prepared in found:
        assert_equal(prepared, preparation(block))


def test_large_blocks_are_prepared_in_parts(preparation, pools, monkeypatch):
    """Of unequal chunks, some without a frame; with fewer chunks than parts, too."""
    random = np.random.default_rng(9)
    texts = ["".join(random.choice(list("ACGT"), n)) for n in random.integers(0, 400, 60)]
    given_ = blocks([*texts, "TTAATTAATTAA" * 9, "ACG" * 500], 3_000)
    assert len(given_) > 3
    for part_nt in (100, 700, 2_000):
        monkeypatch.setattr(prefetch, "PART_NT", part_nt)
        parts = [part for block in given_ for part in prefetch._parts(block)]
        assert len(parts) > len(given_) or part_nt == 2_000
        assert sum(len(part.rows) for part in parts) == sum(len(b.rows) for b in given_)
        assert_whole(list(pools(2).prepared(given_)), given_, preparation)


# Conservation


def names(block, chunk, frame):
    """(record, chunk, frame) of each frame."""
    rows = block.rows
    return [
        (int(rows.record[c]), int(rows.number[c]), FRAME_NAMES[f])
        for c, f in zip(chunk, frame, strict=True)
    ]


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
def test_fewer_blocks_than_threads_and_nothing_in_them(pools, preparation, workers, contigs):
    """TRAP D7, D8."""
    whole = blocks(contigs)
    assert_whole(list(pools(workers).prepared(whole)), whole, preparation)


def test_order_is_kept_where_later_blocks_are_done_first(preparation):
    whole = some_blocks(12)

    def unequal(block):
        time.sleep(0.03 if block.number % 4 == 0 else 0)
        return preparation(block)

    with Prefetch(unequal, 4) as pool:
        assert_whole(list(pool.prepared(whole)), whole, preparation)


@pytest.mark.parametrize("workers", [1, 3])
def test_blocks_are_read_a_little_ahead_in_the_thread_that_asks(preparation, workers):
    """TRAP R9."""
    taken, threads = [], set()

    def counted():
        for block in some_blocks(30):
            taken.append(block.number)
            threads.add(threading.get_ident())
            yield block

    ahead = []
    with Prefetch(Slow(preparation), workers) as pool:
        for given_, (block, _) in enumerate(pool.prepared(counted())):
            assert block.number == given_
            ahead.append(len(taken) - given_)
    assert max(ahead) == AHEAD * workers
    assert threads == {threading.get_ident()}


def test_parts_of_a_block_count_too(preparation, monkeypatch):
    """TRAP R9: of a block as large as all that may be on the way, only the next is read."""
    monkeypatch.setattr(prefetch, "PART_NT", 60)
    taken = []

    def counted():
        for block in some_blocks(9, chunks=8):
            taken.append(block.number)
            yield block

    with Prefetch(Slow(preparation), 2) as pool:
        for given_, _ in enumerate(pool.prepared(counted())):
            assert len(taken) - given_ <= 2


@pytest.mark.parametrize("workers", [1, 3])
def test_so_many_threads_prepare_at_the_same_time(preparation, workers):
    together = threading.Barrier(workers, timeout=20)
    slow = Slow(preparation)

    def meeting(block):
        together.wait()
        return slow(block)

    whole = some_blocks(3 * workers)
    with Prefetch(meeting, workers) as pool:
        assert_whole(list(pool.prepared(whole)), whole, preparation)
    assert len(set(slow.threads)) == workers
    assert threading.get_ident() not in slow.threads


def test_without_threads_the_caller_prepares_when_it_asks(preparation):
    slow, whole = Slow(preparation, 0), some_blocks(5)
    with Prefetch(slow, 0) as pool:
        for count, _ in enumerate(pool.prepared(whole), 1):
            assert slow.threads == count * [threading.get_ident()]


# Errors


@pytest.mark.parametrize("workers", [0, 1, 4])
def test_an_error_of_the_blocks_comes_after_those_before_it(preparation, workers):
    whole = some_blocks(7)

    def breaking():
        yield from whole
        raise InputError("it broke", "in.fa", 7)

    found = []
    with (
        Prefetch(Slow(preparation), workers) as pool,
        pytest.raises(InputError, match="line 7: it broke"),
    ):
        found.extend(pool.prepared(breaking()))
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


@pytest.mark.parametrize("workers", [0, 1, 4])
def test_an_error_of_a_preparation_comes_in_its_place(pools, preparation, workers):
    """TRAP R5: after the blocks before it, and before a later error in reading."""
    whole = some_blocks(5)

    def breaking():
        yield from [*whole[:2], outside(whole[2]), *whole[3:]]
        raise InputError("it broke")

    found = []
    with pytest.raises(ValueError, match="a chunk lies outside"):
        found.extend(pools(workers).prepared(breaking()))
    assert_whole(found, whole[:2], preparation)
    assert_whole(list(pools(workers).prepared(whole)), whole, preparation)


def test_a_thread_that_cannot_be_started(preparation, monkeypatch):
    """TRAP R7."""

    def refused(self):
        raise RuntimeError("can't start new thread")

    with Prefetch(preparation, 2) as prefetch:
        monkeypatch.setattr(threading.Thread, "start", refused)
        with pytest.raises(
            OutOfMemory, match=r"cannot be started \(can't .*--dataloader-workers 0"
        ):
            list(prefetch.prepared(some_blocks(2)))
        monkeypatch.undo()


@pytest.mark.parametrize(
    ("workers", "advice"), [(0, "more memory$"), (1, "memory, or take fewer"), (4, "or take fewer")]
)
def test_memory_that_runs_out(preparation, workers, advice):
    """TRAP R7."""
    whole = some_blocks(5)

    def failing(block):
        if block.number == 2:
            raise MemoryError
        return preparation(block)

    found = []
    with Prefetch(failing, workers) as pool, pytest.raises(OutOfMemory, match=advice) as end:
        found.extend(pool.prepared(whole))
    assert end.value.exit_code == 4
    assert_whole(found, whole[:2], preparation)


# The end


def at_work():
    return [thread for thread in threading.enumerate() if thread.name.startswith("prefetch")]


def test_no_thread_is_left_after_the_end(preparation, pools):
    """TRAP R6."""
    before = at_work()
    with Prefetch(Slow(preparation), 3) as pool:
        next(pool.prepared(some_blocks(9)))
        assert len(at_work()) == len(before) + 3
    assert at_work() == before
    with suppress(KeyError), Prefetch(Slow(preparation), 2) as pool:
        for _ in pool.prepared(some_blocks(9)):
            raise KeyError
    assert at_work() == before


def test_what_was_not_begun_is_not_done_at_the_end(preparation, monkeypatch):
    """TRAP R6."""
    monkeypatch.setattr(prefetch, "PART_NT", 60)
    slow = Slow(preparation, 0.02)
    with Prefetch(slow, 1) as pool:
        next(pool.prepared(some_blocks(2, chunks=40)))
        begun = len(slow.threads)
    assert begun > 10
    assert len(slow.threads) <= begun + 3


def test_a_consumer_that_leaves_early_leaves_nothing_behind(pools, preparation):
    whole = some_blocks(8)
    for _ in pools(2).prepared(whole):
        break
    assert_whole(list(pools(2).prepared(whole)), whole, preparation)


SCRIPT = """
import os, sys
sys.path[:0] = sys.argv[2].split(os.pathsep)
from test_prefetch import some_blocks
from virnucpro.classifiers.prefetch import Prefetch
from virnucpro.classifiers.prepared import FramePreparation

made = some_blocks(20, chunks=200)

def endless():
    while True:
        yield from made

with Prefetch(FramePreparation(sys.argv[1]), 3) as pool:
    for count, _ in enumerate(pool.prepared(endless())):
        if count == 50:
            print("at work", flush=True)
"""


def test_ctrl_c_while_threads_work_ends_all_of_them(tmp_path):
    """TRAP R6."""
    process = subprocess.Popen(
        [
            *(sys.executable, "-c", SCRIPT, str(small_tokenizer(tmp_path / "tokenizer.json"))),
            os.pathsep.join([str(SUPPORT), str(Path(__file__).parent)]),
        ],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        preexec_fn=interruptible,
    )
    try:
        assert process.stdout.readline() == b"at work\n"
        process.send_signal(signal.SIGINT)
        _, said = process.communicate(timeout=20)
    finally:
        process.kill()
    assert process.returncode == -signal.SIGINT
    assert said.count(b"Traceback") == 1
    assert said.rstrip().endswith(b"KeyboardInterrupt")


# How many


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
