"""The side of a Dask worker: a classifier per process, and blocks as packed letters.

A task gets what a classifier needs of a block and no more: letters at two bits each, and where its
chunks begin and end. What else a block holds stays with the client.
"""

import os
import platform
import sys
from collections.abc import Callable, Mapping
from dataclasses import dataclass, fields
from functools import partial
from threading import Lock, Thread
from time import monotonic
from typing import Any, TypeVar

import numpy as np
from distributed import get_worker
from numpy.typing import NDArray

from virnucpro import __version__, errors
from virnucpro.blocks import Block, Rows, Telemetry
from virnucpro.bundle import load
from virnucpro.bundle.manifest import Bundle
from virnucpro.bundle.prescreen import Prescreen, Scoring
from virnucpro.calls import Embeddings, Scores
from virnucpro.classifiers.cascade import Cuts
from virnucpro.classifiers.plan import Plan, plan_of
from virnucpro.devices.choice import devices_for
from virnucpro.devices.compute import Compute
from virnucpro.devices.machine import cpu_count, cpu_name, device_name, use_threads
from virnucpro.devices.memory import memory_of
from virnucpro.progress import hearing
from virnucpro.records import Records
from virnucpro.run.runners import Scorer, Work

Answer = TypeVar("Answer")
# No more often than this within a block.
TOLD_EVERY_S = 1.0

_LETTERS = np.frombuffer(b"ACGT", np.uint8)
_CODE = np.full(256, 4, np.uint8)
_CODE[_LETTERS] = range(4)


@dataclass(frozen=True, slots=True)
class First:
    """The bundle that looks first, by a name that is known everywhere."""

    bundle: str
    sha256: str
    cuts: Cuts


def named_first(scoring: Scoring, prescreen: Prescreen | None) -> First | None:
    """Return the bundle that looks first as workers need to know it."""
    if prescreen is None or scoring.prescreen is None:
        return None
    return First(scoring.prescreen, prescreen.bundle.sha256, prescreen.cuts)


@dataclass(frozen=True, slots=True)
class Task:
    """The model and settings that every block of a run is scored with.

    compute: as asked for, resolved by each worker. workers_a_host: that share its processors.
    """

    bundle: str
    sha256: str
    compute: Compute
    workers_a_host: int
    embeddings: bool
    first: First | None = None


@dataclass(frozen=True, slots=True)
class Identity:
    """The means that a worker computes with, compared with other workers before a run begins."""

    name: str
    host: str
    version: str
    sha256: str
    device_name: str
    threads: int
    plan: Plan

    def differences(self, other: "Identity") -> dict[str, tuple[object, object]]:
        """Return what differs in a way that would change results, by name."""
        mine, others = self._compared(), other._compared()
        return {name: (mine[name], others[name]) for name in mine if mine[name] != others[name]}

    def _compared(self) -> dict[str, object]:
        plan = self.plan
        return {
            "version of virnucpro": self.version,
            "bundle sha256": self.sha256,
            "precision": plan.precision,
            "kind of device": plan.device.partition(":")[0],
            "attention": dict(plan.attention),
            "size of blocks": (plan.first_nt, plan.block_nt),
        }


@dataclass(frozen=True, slots=True)
class PackedBlock:
    """The chunks of a block, to be scored elsewhere.

    codes: four letters A, C, G, T a byte; letters: how many there are in all. Other letters are
    given by runs: place and length (k,), and the letter of each run. offset, length_nt: (n,) of the
    chunks in the letters. code: as of a block.
    """

    number: int
    letters: int
    codes: bytes
    run_place: NDArray[np.int64]
    run_length: NDArray[np.int64]
    run_letter: bytes
    offset: NDArray[np.int64]
    length_nt: NDArray[np.int32]
    code: NDArray[np.uint8] | None

    @classmethod
    def of(cls, block: Block) -> "PackedBlock":
        """Pack the chunks of a block."""
        text = np.frombuffer(block.text, np.uint8)
        codes = _CODE[text]
        other = np.flatnonzero(codes == 4)
        letters = text[other]
        new = np.ones(len(other), bool)
        new[1:] = (np.diff(other) != 1) | (np.diff(letters) != 0)
        first = np.flatnonzero(new)
        codes[other] = 0
        padded = np.zeros(-(-len(codes) // 4) * 4, np.uint8)
        padded[: len(codes)] = codes
        a, b, c, d = padded.reshape(-1, 4).T
        return cls(
            number=block.number,
            letters=len(text),
            codes=(a | b << 2 | c << 4 | d << 6).tobytes(),
            run_place=other[first],
            run_length=np.diff(np.append(first, len(other))),
            run_letter=letters[first].tobytes(),
            offset=block.offset,
            length_nt=block.rows.length_nt.astype(np.int32),
            code=block.code,
        )

    def block(self) -> Block:
        """Return a block with the same chunks, and no records."""
        packed = np.frombuffer(self.codes, np.uint8)
        codes = np.stack([packed >> shift & 3 for shift in (0, 2, 4, 6)], axis=1).reshape(-1)
        text = _LETTERS[codes[: self.letters]]
        place = np.repeat(self.run_place - np.cumsum(self.run_length), self.run_length)
        total = int(self.run_length.sum())
        place += np.arange(total) + np.repeat(self.run_length, self.run_length)
        text[place] = np.repeat(np.frombuffer(self.run_letter, np.uint8), self.run_length)
        length_nt = self.length_nt.astype(np.int64)
        zero = np.zeros(len(length_nt), np.int32)
        rows = Rows(zero, zero, np.zeros_like(length_nt), length_nt)
        letters = text.tobytes()
        return Block(self.number, Records.of(), rows, self.offset, letters, "", self.code)


@dataclass(frozen=True, slots=True)
class ScoredChunks:
    """The answer to a block: arrays of its scores, failures by row, and who computed it."""

    identity: Identity
    scores: Mapping[str, NDArray[Any]]
    embeddings: Embeddings | None
    failures: Mapping[int, str]
    telemetry: Telemetry

    def as_scores(self) -> Scores:
        """Return the scores as a value."""
        return Scores(**self.scores, embeddings=self.embeddings)


_SCORE_ARRAYS = tuple(f.name for f in fields(Scores) if f.name != "embeddings")
# One classifier a process, whatever number of threads Dask gives to its tasks.
_scorers: dict[Task, tuple[Scorer, Identity]] = {}
_loading = Lock()


def _loaded(task: Task) -> tuple[Scorer, Identity]:
    with _loading:
        if task not in _scorers:
            _scorers.clear()  # another run may have left one; memory may not hold two
            _scorers[task] = _load(task)
        return _scorers[task]


def _bundle(name: str, sha256: str) -> Bundle:
    """Load a bundle. Raises WorkerError for another than the client has."""
    found = load(name)
    if found.sha256 != sha256:
        raise errors.WorkerError(
            f"bundle {name} has sha256 {found.sha256[:12]}... here, not {sha256[:12]}... as at the "
            "client; install the same bundle on all hosts"
        )
    return found


def _load(task: Task) -> tuple[Scorer, Identity]:
    bundle, first = _bundle(task.bundle, task.sha256), task.first
    kmer = bundle.kind == "kmer"
    # A nanny sets OMP_NUM_THREADS to 1, which is not the wish of anybody.
    share = max(1, cpu_count() // task.workers_a_host)
    threads = 1 if kmer else use_threads(task.compute.threads or share)
    device = "cpu" if kmer else devices_for(task.compute.gpus)[0]
    plan = plan_of(bundle, device, task.compute.precision, task.compute.attention)
    prescreen = None
    if first is not None:
        prescreen = Prescreen(_bundle(first.bundle, first.sha256), first.cuts)
        plan = prescreen.plan(plan, task.compute.attention)
    work = Work(bundle, plan, task.compute.on(device), 0, task.embeddings, prescreen)
    scorer = Scorer(work)
    scorer.__enter__()
    identity = Identity(
        name=str(get_worker().name),
        host=platform.node(),
        version=__version__,
        sha256=bundle.sha256,
        device_name=cpu_name() if device == "cpu" else device_name(device),
        threads=threads,
        plan=plan,
    )
    return scorer, identity


@dataclass(frozen=True, slots=True)
class Failure:
    """An error for the user as plain values. kind: its class in virnucpro.errors."""

    kind: str
    text: str

    def error(self) -> errors.VirnucproError:
        """Return the error, to be raised where the run is."""
        kind: type[errors.VirnucproError] = getattr(errors, self.kind)
        return kind(self.text)


def _answer(compute: Callable[[], Answer]) -> Answer | Failure:
    """Return what a function returns, or its failure, which names this worker."""
    who = f"worker {get_worker().name} on {platform.node()}"
    try:
        return compute()
    except errors.VirnucproError as error:
        return Failure(type(error).__name__, f"{who}: {error}")
    except MemoryError:
        memory = memory_of("cpu")
        return Failure(
            errors.OutOfMemory.__name__,
            f"{who}: out of memory ({memory}); give it more, or take fewer workers; what is "
            "finished is kept, and the same command goes on from it",
        )


def identify(task: Task) -> tuple[Identity, Telemetry] | Failure:
    """Load the classifier of a run, and return what computes here."""

    def identity() -> tuple[Identity, Telemetry]:
        scorer, identity = _loaded(task)
        return identity, scorer.loaded

    return _answer(identity)


def score(task: Task, packed: PackedBlock, topic: str) -> ScoredChunks | Failure:
    """Score a block. Runs in a thread of the worker, beside one that prepares the next block.

    topic: of Dask, under which the share that is scored is told meanwhile.
    """
    return _answer(partial(_scored, task, packed, topic))


def _scored(task: Task, packed: PackedBlock, topic: str) -> ScoredChunks:
    scorer, identity = _loaded(task)
    block = packed.block()
    preparation = scorer.preparation
    prepared = None if preparation is None else preparation(block)
    # A GPU takes its steps long before it does them.
    told = _teller(topic, block.number) if identity.plan.device.startswith("cpu") else None
    with hearing(told):
        scored = scorer.finish(scorer.begin(block, prepared))
    return ScoredChunks(
        identity=identity,
        scores={name: getattr(scored.scores, name) for name in _SCORE_ARRAYS},
        embeddings=scored.scores.embeddings,
        failures=scored.failures,
        telemetry=scored.telemetry,
    )


def _teller(topic: str, number: int) -> Callable[[float], None]:
    """Return a function that tells the client the share of a block, now and then."""
    worker, told_at = get_worker(), monotonic()

    def tell(share: float) -> None:
        nonlocal told_at
        if monotonic() - told_at >= TOLD_EVERY_S:
            told_at = monotonic()
            worker.log_event(topic, (number, share))

    return tell


def dask_setup(_worker: object) -> None:
    """End this process with the one that started it; Dask calls it as a worker begins."""
    Thread(target=_end_with_input, daemon=True).start()


def _end_with_input() -> None:
    sys.stdin.buffer.read()
    os._exit(1)
