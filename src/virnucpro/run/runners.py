"""The way of blocks to a classifier: one interface, whatever computes.

A runner owns everything on its side of that line: loading the classifier, preparing blocks ahead,
refusing an attention kernel that is not the planned one, halving batches that do not fit, bisecting
a block that fails. What it observes comes back in the telemetry of each block.
"""

from collections import deque
from collections.abc import Callable, Generator, Iterable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, ExitStack, closing, nullcontext
from dataclasses import dataclass
from functools import partial
from platform import node
from threading import Lock
from time import perf_counter
from types import TracebackType
from typing import Protocol, Self, TypeAlias

import numpy as np

from virnucpro.blocks import Batches, Block, Scored, Share, Telemetry, Texts
from virnucpro.bundle.prescreen import Prescreen
from virnucpro.calls import Scores
from virnucpro.classifiers import Classifier
from virnucpro.classifiers.cascade import CascadeClassifier
from virnucpro.classifiers.model import Model
from virnucpro.classifiers.plan import Plan
from virnucpro.classifiers.prefetch import Prefetch
from virnucpro.classifiers.prepared import FramePreparation, PreparedFrames
from virnucpro.classifiers.screen import with_notes
from virnucpro.devices.compute import Compute
from virnucpro.devices.machine import device_name, gpu_utilisation
from virnucpro.devices.memory import expandable_segments_seen, memory_of
from virnucpro.errors import DeviceError, OutOfMemory
from virnucpro.progress import hearing

# Chunks of two lengths, with open frames, that any device scores.
PROBE = (
    "AGCGGAATCATCTCGAGTGGGATGCATCGTGTCTCTTAAATCGCGCCGGTGTTTGATTTGGATGCATTATCACTT",
    "CATAACGACCTCTACGTCAAGATTACTGTCACTCCCCCTAATTTCTTAGTGGCCAAGCTATGTTTGAGA",
)
# More chunks than these that fail one after the other, and none scored between, are the device's
# fault.
MOST_FAILURES = 8

# Loaded classifiers by the sha256 of their model, what they compute in, and what they give back.
LoadedClassifiers = dict[tuple[object, ...], Classifier]
# The arguments of __exit__.
Raised: TypeAlias = tuple[type[BaseException] | None, BaseException | None, TracebackType | None]


UnderWay: TypeAlias = Callable[[float], None]


def unheard(_chunks: float) -> None:
    """Take no notice of what is under way."""


class Loadable(Model, Protocol):
    """A model that gives its classifier; see bundle.manifest.Bundle."""

    @property
    def sha256(self) -> str:
        """The digest of the model."""

    def classifier(
        self, device: str, precision: str, compute: Compute, *, embeddings: bool
    ) -> Classifier:
        """Load the classifier."""


class Runner(AbstractContextManager["Runner", None], Protocol):
    """Scores blocks, for `with`.

    loaded: telemetry of loading, known on entry; it adds to the telemetry of the blocks. under_way:
    takes how many chunks of blocks that are not finished are scored, where that is known.
    """

    under_way: UnderWay

    @property
    def loaded(self) -> Telemetry:
        """Telemetry of loading the classifier."""

    def run(self, blocks: Iterable[Block]) -> Iterator[Scored]:
        """Yield every block once, scored, in any order."""


@dataclass(frozen=True, slots=True)
class Work:
    """The work, as a runner needs to know it.

    plan, compute: resolved for one device. workers: threads that prefetch.
    embeddings: whether the embeddings of each frame come back with the scores. prescreen: the
    bundle that looks first.
    """

    model: Loadable
    plan: Plan
    compute: Compute
    workers: int
    embeddings: bool = False
    prescreen: Prescreen | None = None

    def classifier(self) -> Classifier:
        """Load the classifier, with the one that looks first."""
        plan, compute = self.plan, self.compute
        large = self.model.classifier(
            plan.device, plan.precision, compute, embeddings=self.embeddings
        )
        return large if self.prescreen is None else self.prescreen.before(large, plan, compute)


class Scorer:
    """A classifier on its device, for `with`. Several threads may use it at once.

    loaded: telemetry of loading. Where the device fails on a block, its halves are tried, down to
    the chunks that it fails on; these are listed as failed, and the others are scored. Raises
    DeviceError where the device fails on all chunks, or ran another attention kernel than the plan
    says; OutOfMemory where one row alone does not fit.
    """

    def __init__(self, work: Work, cache: LoadedClassifiers | None = None) -> None:
        """Prepare to load. cache: takes the classifier, and gives one that was loaded before."""
        self._work = work
        self._cache = {} if cache is None else cache
        self._device, self._observing = Lock(), Lock()
        self._free_since = 0.0
        self._host = node()
        self._failed_in_a_row = 0
        # Notes on letters stand in no table of a bundle without a calibration.
        self._judged = "calibration" in work.model.parts
        self._counted: Mapping[str, Batches] = {}
        self.loaded = Telemetry()

    def __enter__(self) -> Self:
        work, device = self._work, self._work.plan.device
        start = memory_of(device)
        self._device_name = device_name(device)
        first = work.prescreen and (work.prescreen.bundle.sha256, work.prescreen.cuts)
        options = (work.compute, work.embeddings, first)
        key = (work.model.sha256, device, work.plan.precision, *options)
        fresh = key not in self._cache
        if fresh:
            self._cache[key] = work.classifier()
        self._classifier = classifier = self._cache[key]
        classifier.restore_budgets()
        # With pads and without: other kernels than planned are known before the first block.
        for chunks in (PROBE, PROBE[:1]) if fresh else ():
            self._probe(chunks)
        self._check_kernels()
        self._counted = dict(classifier.batches)
        cuda = device.startswith("cuda")
        self.loaded = Telemetry(
            kernels=self._kernels(),
            batches={name: b.since(b) for name, b in self._counted.items()},
            memory={"start": start, "loaded": memory_of(device)},
            embedding_widths=classifier.ahead.widths if classifier.ahead else None,
            in_turns=bool(classifier.ahead and classifier.ahead.in_turns),
            expandable_segments=expandable_segments_seen(device) if cuda else None,
        )
        return self

    def __exit__(self, _kind: object, error: BaseException | None, *_: object) -> None:
        if isinstance(error, DeviceError):  # nothing more can be computed with it
            self._cache.clear()

    def _probe(self, chunks: Sequence[str]) -> None:
        """Score chunks by every network. Raises DeviceError where the device is gone."""
        found = self._classifier
        both = (found.small, found.large) if isinstance(found, CascadeClassifier) else (found,)
        for each in both:
            each.score(chunks)

    @property
    def preparation(self) -> FramePreparation | None:
        """The part of the work that can be done ahead of the device; None without any."""
        return self._classifier.ahead.preparation if self._classifier.ahead else None

    def _kernels(self) -> dict[str, frozenset[str]]:
        seen = self._classifier.attention
        return {name: frozenset(kernels.split(",")) for name, kernels in seen.items()}

    def _check_kernels(self) -> None:
        """Raise DeviceError if another attention kernel ran than planned."""
        for name, seen in self._kernels().items():
            planned = self._work.plan.attention.get(name, "none")
            if other := seen - set(planned.split(",")):
                raise DeviceError(
                    f"the attention of {name} ran by {', '.join(sorted(other))}, not by {planned} "
                    "as in the fingerprint of this run, and results of several are not mixed; "
                    "please report this"
                )

    def begin(self, block: Block, prepared: PreparedFrames | None) -> "Begun":
        """Send a block to the device. prepared: by preparation, if there is one."""
        finish: Callable[[], Scores] = partial(self._classifier.score_block, block)
        ahead = self._classifier.ahead
        if ahead is None or prepared is None:
            return Begun(block, finish, perf_counter(), waits=False)
        with self._device:
            since = perf_counter()
            try:
                return Begun(block, ahead.begin(prepared), since, waits=True)
            except DeviceError:
                return Begun(block, finish, since, waits=False)

    def finish(self, begun: "Begun") -> Scored:
        """Wait for the scores of a block that was sent."""
        block, failures = begun.block, dict[int, str]()
        finish, needs_device = begun.finish, True
        if begun.waits:  # for the device alone, so another block may be sent meanwhile
            finish, needs_device = _outcome_of(finish)
        with self._device if needs_device else nullcontext():
            scores = self._scores(block, 0, failures, finish)
        rows = len(block.rows)
        # A few chunks may have no finite score each; a device that failed on all is gone.
        in_a_row = self._failed_in_a_row >= rows > 1
        if len(failures) == rows and (in_a_row or rows > MOST_FAILURES):
            raise DeviceError(f"no chunk of block {block.number} could be scored: {failures[0]}")
        with self._observing:
            self._check_kernels()
            telemetry = self._telemetry(begun.since, rows)
        if self._judged:
            scores = with_notes(scores, Texts.of_block(block))
        return Scored.of(block, scores, failures, telemetry)

    def _telemetry(self, since: float, chunks: int) -> Telemetry:
        """Return what was observed since the last block. since: when this one began."""
        now = perf_counter()
        # Blocks overlap on their device, and no second counts twice.
        seconds = now - max(since, self._free_since)
        self._free_since = now
        batches, device = dict(self._classifier.batches), self._classifier.device
        new = {name: found.since(self._counted[name]) for name, found in batches.items()}
        self._counted = batches
        used = gpu_utilisation(device)
        share = Share(
            host=self._host,
            device=self._device_name,
            blocks=1,
            chunks=chunks,
            seconds=seconds,
            used=used or 0.0,
            looks=0 if used is None else 1,
        )
        return Telemetry(
            scoring_s=seconds,
            kernels=self._kernels(),
            batches=new,
            memory={"blocks": memory_of(device)},
            shares={device: share},
        )

    def _scores(
        self, part: Block, first: int, failures: dict[int, str], finish: Callable[[], Scores]
    ) -> Scores:
        """Return scores of a part of a block; first: its first row in the block.

        failures: takes the reason of each chunk that failed, by its row in the block.
        """
        try:
            scores = finish()
        except DeviceError as error:
            if len(part.rows) > 1:
                half = len(part.rows) // 2
                halves = [part.part(0, half), part.part(half, len(part.rows))]
                return Scores.joined(
                    [
                        self._scores(
                            piece, begin, failures, partial(self._classifier.score_block, piece)
                        )
                        for begin, piece in zip((first, first + half), halves, strict=True)
                    ]
                )
            self._failed_in_a_row += 1
            if not len(part.rows) or self._failed_in_a_row > MOST_FAILURES:
                raise
            self._probe(PROBE)  # raises where the device is gone, whatever the chunk
            failures[first] = str(error)
            return Scores.failed(1)
        self._failed_in_a_row = 0
        no_number = np.flatnonzero(scores.called & ~np.isfinite(scores.p_virus))
        if not len(no_number):
            return scores
        failures |= {
            first + row: f"its score in {self._classifier.precision} is not a finite number"
            for row in no_number.tolist()
        }
        return scores.failing(no_number)


@dataclass(frozen=True, slots=True)
class Begun:
    """A block on its way; finish gives its scores. since: when the device had it.

    waits: whether finish does nothing but wait for the device.
    """

    block: Block
    finish: Callable[[], Scores]
    since: float
    waits: bool


def _outcome_of(finish: Callable[[], Scores]) -> tuple[Callable[[], Scores], bool]:
    """Call a function now; return one that returns or raises the same, and whether it raises."""
    try:
        scores = finish()
    except DeviceError as error:
        caught = error

        def fail() -> Scores:
            raise caught

        return fail, True
    return lambda: scores, False


class SerialRunner:
    """One classifier in this process, block after block.

    On a GPU the next block is sent before the one before it is waited for. Raises as Scorer does.
    """

    def __init__(self, work: Work, cache: LoadedClassifiers | None = None) -> None:
        """Prepare to run. cache: as of Scorer."""
        self.under_way: UnderWay = unheard
        self._work = work
        self._scorer = Scorer(work, cache)
        self._ends = ExitStack()
        self._prefetch: Prefetch | None = None

    @property
    def loaded(self) -> Telemetry:
        """Telemetry of loading the classifier."""
        return self._scorer.loaded

    def __enter__(self) -> Self:
        with ExitStack() as ends:
            scorer = ends.enter_context(self._scorer)
            if scorer.preparation is not None:
                prefetch = Prefetch(scorer.preparation, self._work.workers)
                self._prefetch = ends.enter_context(prefetch)
            self._ends = ends.pop_all()
        return self

    def __exit__(self, *raised: *Raised) -> None:
        self._ends.__exit__(*raised)

    def run(self, blocks: Iterable[Block]) -> Iterator[Scored]:
        """Yield every block once, in their order."""
        begun: deque[Begun] = deque()
        waiting = 1 if self._on_gpu else 0
        with closing(self._begun(blocks)) as sent:
            try:
                for one in sent:
                    begun.append(one)
                    if len(begun) > waiting:
                        yield self._finished(begun.popleft())
            except OutOfMemory:  # of the one that came after these
                while begun:
                    yield self._finished(begun.popleft())
                raise
            while begun:
                yield self._finished(begun.popleft())

    def _begun(self, blocks: Iterable[Block]) -> Generator[Begun]:
        together: Iterable[tuple[Block, PreparedFrames | None]]
        together = ((block, None) for block in blocks)
        if self._prefetch is not None:
            together = self._prefetch.prepared(blocks)
        for block, prepared in together:
            with self._heard(block):
                begun = self._scorer.begin(block, prepared)
            yield begun

    def _finished(self, begun: Begun) -> Scored:
        with self._heard(begun.block):
            return self._scorer.finish(begun)

    @property
    def _on_gpu(self) -> bool:
        return self._work.plan.device.startswith("cuda")

    def _heard(self, block: Block) -> AbstractContextManager[None]:
        """While steps of a block are passed on; a GPU takes them long before it does them."""
        if self._on_gpu:
            return nullcontext()
        return hearing(lambda share: self.under_way(share * len(block.rows)))
