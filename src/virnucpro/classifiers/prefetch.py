"""Blocks prepared ahead of the device, by processes that never import torch, in input order.

The processes are started by name, not forked and not through multiprocessing: threads and CUDA are
no matter then, and a script without `if __name__ == "__main__"` does not run again in each.
"""

import json
import os
import re
import signal
import subprocess
import sys
import tempfile
from collections import deque
from collections.abc import Iterable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import contextmanager, suppress
from itertools import pairwise
from pathlib import Path
from queue import SimpleQueue
from threading import Lock
from typing import Self

from virnucpro.blocks import Block, Texts
from virnucpro.classifiers.prepared import FramePreparation, PreparedFrames, texts_to_bytes
from virnucpro.classifiers.worker import ASKED, ERRORS, FAILED, NO_MEMORY, WHO, received, send
from virnucpro.errors import OutOfMemory, SettingsError, VirnucproError, WorkerError

# More would wait for the one that reads.
MOST_WORKERS = 8
# Parts of blocks on their way for each process: one in its hands, one that waits for it or for the
# device. A part is small, so that all processes have some of the first block of a GPU.
AHEAD = 2
PART_NT = 250_000

# The modules that this process finds, wherever it found them.
_PROGRAM = (
    "import sys; sys.path[:] = sys.argv[1:]; from virnucpro.classifiers.worker import main; main()"
)
_ENVIRONMENT = {
    "TOKENIZERS_PARALLELISM": "false",
    **dict.fromkeys(
        ("RAYON_NUM_THREADS", "OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS"), "1"
    ),
}
_Ahead = tuple[Block, list[Future[PreparedFrames]]]
# A line that Rust, in which the tokenizer is written, says as it aborts.
_NO_MEMORY = re.compile(r"memory allocation of \d+ bytes failed")


def workers_for(device_kind: str, gpus: int, cpus: int, wish: int | None = None) -> int:
    """Return the number of processes that prepare blocks.

    A wish is taken as it is. Else, on cuda, each GPU's share of the processors, 1 to 8; on a
    cpu none, for it has none to spare. Raises SettingsError for a negative wish.
    """
    if wish is not None:
        if wish < 0:
            raise SettingsError(f"--dataloader-workers must be 0 or more, got {wish}")
        return wish
    return max(1, min(cpus // max(1, gpus), MOST_WORKERS)) if device_kind == "cuda" else 0


class Loaders:
    """Prepares blocks in some processes of its own, or in this one; to be used in a with block.

    workers: how many, each of one thread; 0 is this process. Large blocks are prepared in parts,
    and beyond the block that comes next none is read while AHEAD times as many parts are on their
    way, so memory does not grow with the input. The processes are there from the beginning to the
    end of the with block, and do not outlive this process however it ends.
    """

    def __init__(self, preparation: FramePreparation, workers: int) -> None:
        self._preparation = preparation
        self._workers = workers
        self._all: list[_Worker] = []
        self._free: SimpleQueue[_Worker] = SimpleQueue()
        self._changing, self._closed = Lock(), False

    def __enter__(self) -> Self:
        self._threads = ThreadPoolExecutor(max(1, self._workers))
        try:
            for _ in range(self._workers):
                self._free.put(self._started())
        except BaseException:
            self._close()
            raise
        return self

    def __exit__(self, *_: object) -> None:
        self._close()

    def _close(self) -> None:
        with self._changing:
            self._closed = True
        for worker in self._all:
            worker.kill()
        self._threads.shutdown(cancel_futures=True)
        while self._all:
            self._all.pop().close()

    @property
    def pids(self) -> list[int]:
        """The ids of the processes that are there."""
        with self._changing:
            return [worker.pid for worker in self._all if worker.alive]

    def prepared(self, blocks: Iterable[Block]) -> Iterator[tuple[Block, PreparedFrames]]:
        """Each block with what was prepared of it, in their order.

        blocks is read in the caller's thread. An error in reading is raised after the blocks that
        came before it. Raises OutOfMemory where memory ran out in a process, or it was killed with
        SIGKILL, and so was the one that was given the halves of the block; WorkerError where one
        ended for another reason, or cannot be started.
        """
        if not self._workers:
            for block in blocks:
                yield block, self._preparation(block)
            return
        ahead: deque[_Ahead] = deque()
        broken: list[VirnucproError] = []
        for block in _until_broken(blocks, broken):
            parts = [self._threads.submit(self._by_a_worker, part) for part in _parts(block)]
            ahead.append((block, parts))
            # One stays behind: what the caller sends next is prepared while it waits for this.
            while len(ahead) > 1 and (
                all(part.done() for part in ahead[0][1])
                or sum(len(parts) for _, parts in ahead) >= AHEAD * self._workers
            ):
                yield _first(ahead)
        while ahead:
            yield _first(ahead)
        if broken:
            raise broken[0]

    def _by_a_worker(self, block: Block) -> PreparedFrames:
        """Has a block prepared by a process that is free; runs in a thread, which waits for it."""
        worker = self._free.get()
        try:
            try:
                return worker.prepared(block)
            except _Killed:
                worker = self._started(instead_of=worker)
            # Half a block needs half the memory, if memory it was.
            half, rows = len(block.rows) // 2, len(block.rows)
            try:
                parts = [worker.prepared(block.part(*p)) for p in ((0, half), (half, rows))]
            except _Killed as error:
                raise OutOfMemory(
                    f"{WHO} was killed, and so was the next with half the block, perhaps by the "
                    "kernel because memory ran out; give the program more memory, or take fewer"
                ) from error
            return PreparedFrames.joined(parts)
        finally:
            self._free.put(worker)

    def _started(self, instead_of: "_Worker | None" = None) -> "_Worker":
        with self._changing:
            if self._closed:
                raise WorkerError(f"{WHO} ended because the run did")
            worker = _Worker(self._preparation)
            self._all.append(worker)
            if instead_of is not None:
                self._all.remove(instead_of)
                instead_of.close()
        return worker


def _until_broken(blocks: Iterable[Block], broken: list[VirnucproError]) -> Iterator[Block]:
    """Yield the blocks until reading them raises an error, which is kept for later."""
    try:
        yield from blocks
    except VirnucproError as error:
        broken.append(error)


def _parts(block: Block) -> list[Block]:
    """Return a block in parts of about PART_NT letters, with about equally many chunks each."""
    number = max(1, min(len(block.rows), len(block.text) // PART_NT))
    edges = [len(block.rows) * k // number for k in range(number + 1)]
    return [block] if number == 1 else [block.part(*pair) for pair in pairwise(edges)]


def _first(ahead: deque[_Ahead]) -> tuple[Block, PreparedFrames]:
    block, parts = ahead.popleft()
    prepared = [part.result() for part in parts]
    return block, prepared[0] if len(prepared) == 1 else PreparedFrames.joined(prepared)


class _Killed(Exception):
    """SIGKILL ended a process."""


class _Worker:
    """A process of loading.py, asked by one thread at a time: a question, then its answer.

    It reads a question whole before it answers, so neither end waits for the other's pipe.
    """

    def __init__(self, preparation: FramePreparation) -> None:
        self._said = tempfile.TemporaryFile()  # noqa: SIM115
        path = [os.fspath(entry) or str(Path.cwd()) for entry in sys.path]
        try:
            with _interrupts_held():
                self._process = subprocess.Popen(
                    [sys.executable, "-c", _PROGRAM, *path],
                    stdin=subprocess.PIPE,
                    stdout=subprocess.PIPE,
                    stderr=self._said,
                    env=os.environ | _ENVIRONMENT,
                )
        except OSError as error:
            self._said.close()
            raise WorkerError(
                f"{WHO} cannot be started ({error.strerror}); run with --dataloader-workers 0"
            ) from error
        assert self._process.stdin is not None
        assert self._process.stdout is not None
        self._questions, self._answers = self._process.stdin, self._process.stdout
        # It reads the tokenizer while the device warms up; what comes of that is asked later.
        self._ask(json.dumps(preparation.described()).encode("ascii"))
        self._ready = False
        self._fault: VirnucproError | None = None

    @property
    def pid(self) -> int:
        return self._process.pid

    @property
    def alive(self) -> bool:
        return self._process.poll() is None

    def prepared(self, block: Block) -> PreparedFrames:
        """Raises _Killed, WorkerError, and what the process says went wrong."""
        if self._fault is not None:
            raise self._fault
        if not self._ready:
            try:
                self._answer()
            except VirnucproError as error:  # there is no second answer
                self._fault = error
                raise
            self._ready = True
        self._ask(texts_to_bytes(Texts.of_block(block)))
        return PreparedFrames.from_bytes(self._answer())

    def _ask(self, question: bytes) -> None:
        with suppress(BrokenPipeError):  # an answer may be there all the same
            send(self._questions, ASKED, question)

    def _answer(self) -> bytes:
        answer = received(self._answers)
        if answer is None:
            raise self._end()
        kind, content = answer
        if kind == FAILED:
            words = json.loads(content)
            raise ERRORS[words["kind"]](words["said"])
        return content

    def _end(self) -> Exception:
        """Return why the process is gone."""
        code = self._process.wait()
        if code == -signal.SIGKILL:
            return _Killed()
        self._said.seek(0)
        lines = self._said.read().decode("utf-8", "replace").strip().splitlines() or ["nothing"]
        if any(map(_NO_MEMORY.fullmatch, lines)):
            return OutOfMemory(NO_MEMORY)
        how = f"exit code {code}" if code >= 0 else f"signal {-code}"
        return WorkerError(
            f"{WHO} ended early with {how}, and last said: {lines[-1]}; run again, or with "
            "--dataloader-workers 0"
        )

    def kill(self) -> None:
        """Ends the process, which keeps nothing."""
        self._process.kill()
        self._process.wait()

    def close(self) -> None:
        for file in (self._questions, self._answers, self._said):
            with suppress(BrokenPipeError):  # what was still to be sent
                file.close()


@contextmanager
def _interrupts_held() -> Iterator[None]:
    """A process started within never gets Ctrl-C, not even before it can say that it ignores it."""
    before = signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGINT})
    try:
        yield
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, before)
