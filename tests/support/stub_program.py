"""The program with a classifier that fails on purpose; its scores are those of the bundle.

    python stub_program.py FAULT[=VALUE],... [argument of virnucpro ...]

slow=S: sleeps S seconds a block. memory=N: out of memory from block N on. kill=N: killed there.
stop=N: SIGINT there; stop=compared: while the input is compared with that of a finished run;
stop=said: while the last line is said. device: the device fails on every chunk that holds MARK.
dead: it fails always. gone: after its first failure it computes nothing more. nan: a chunk that
holds MARK has no score. torch: an operation of torch fails in a codon network on a chunk of one
letter. hang: writing run.json takes a minute. read=N: reading an input fails behind N bytes.
no-flock=S: the file system has no locks, and a lock file is stale after S seconds. The numbers of
the blocks scored are appended to the file scored.txt of the working directory. damage: the first
block is cut short before tables are made, once.
"""

import errno
import os
import signal
import sys
import time
from pathlib import Path

import numpy as np

from virnucpro import cli
from virnucpro.blocks import Block
from virnucpro.bundle.manifest import Bundle
from virnucpro.calls import Scores
from virnucpro.cli.terminal import Screen
from virnucpro.errors import DeviceError, OutOfMemory
from virnucpro.reads import Source
from virnucpro.reads.compression import Hashed
from virnucpro.results.files import RunFiles
from virnucpro.run import predict as run
from virnucpro.run.directory import RunDirectory
from virnucpro.storage import lock

MARK = b"ACGTACGTTTTTTTTTTGGGGGGGGGG"


class Stub:
    """A classifier with faults."""

    def __init__(self, classifier, faults: dict[str, str]) -> None:
        self._classifier = classifier
        self._faults = faults
        self._gone = False

    def __getattr__(self, name: str):
        return getattr(self._classifier, name)

    def score_block(self, block: Block) -> Scores:
        with Path("scored.txt").open("a") as file:
            file.write(f"{block.number}\n")
        time.sleep(float(self._faults.get("slow", 0)))
        if block.number >= int(self._faults.get("memory", 1 << 30)):
            raise OutOfMemory("one row does not fit; run again with --batch-tokens 64")
        if block.number >= int(self._faults.get("kill", 1 << 30)):
            os.kill(os.getpid(), signal.SIGKILL)
        if self._faults.get("stop") == str(block.number):
            os.kill(os.getpid(), signal.SIGINT)
        marked = [row for row in range(len(block.rows)) if MARK in block.chunk(row)]
        if "dead" in self._faults or ("device" in self._faults and marked):
            self._gone = "gone" in self._faults
            raise DeviceError("the device failed")
        scores = self._classifier.score_block(block)
        if "nan" in self._faults:
            scores.p_virus[marked] = np.nan
        return scores

    def score(self, chunks) -> Scores:
        if self._gone:
            raise DeviceError("the device is gone")
        return self._classifier.score(chunks)


def fail_in_torch() -> None:
    import torch

    def before(module: torch.nn.Module, arguments: tuple[torch.Tensor, ...]) -> None:
        if type(module).__name__ == "CodonEncoder":
            frame_BT = arguments[0][:, 0, :30]
            if (frame_BT == frame_BT[:, :1]).all(1).any():
                torch.zeros(2) @ torch.zeros(3)

    torch.nn.modules.module.register_module_forward_pre_hook(before)


def main() -> None:
    faults = dict(fault.partition("=")[::2] for fault in sys.argv.pop(1).split(",") if fault)
    original = Bundle.classifier
    Bundle.classifier = lambda *asked, **how: Stub(original(*asked, **how), faults)
    if "torch" in faults:
        fail_in_torch()
    if "hang" in faults:
        RunDirectory.write = lambda *_: time.sleep(60)
    if faults.get("stop") == "compared":
        Source.whole_sha256 = lambda *_: os.kill(os.getpid(), signal.SIGINT)
    if faults.get("stop") == "said":
        line = Screen.line

        def stopping(screen, text: str) -> None:
            line(screen, text)
            if text.startswith("results are in"):
                os.kill(os.getpid(), signal.SIGINT)

        Screen.line = stopping
    if "damage" in faults:
        finalise = run.finalise

        def damaging(*arguments):
            if not Path("damaged.txt").exists():
                Path("damaged.txt").touch()
                [files] = [each for each in arguments if isinstance(each, RunFiles)]
                os.truncate(files.block(0), 99)
            return finalise(*arguments)

        run.finalise = damaging
    if "read" in faults:
        fill = Hashed.readinto

        def failing(file, buffer) -> int:
            if file.bytes_read >= int(faults["read"]):
                raise OSError(errno.EIO, "Input/output error")
            return fill(file, memoryview(buffer)[:1_000])

        Hashed.readinto = failing
    if "no-flock" in faults:

        def refuse(*_):
            raise OSError(errno.ENOLCK, "no locks available")

        lock.fcntl.flock = refuse
        lock.BEAT_S, lock.SETTLE_S = 0.1, 0.05
        lock.STALE_S = float(faults["no-flock"])
    cli.main()


if __name__ == "__main__":
    main()
