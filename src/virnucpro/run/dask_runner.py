"""Blocks sent as tasks to workers of Dask distributed, which each hold a classifier.

Blocks are dealt out as workers become free, two in flight a worker. A block whose worker died is
tried again alone, so that a block that kills its workers is told from the others that were with it.
"""

from collections import Counter, deque
from collections.abc import Iterable, Iterator, Mapping
from concurrent.futures import CancelledError
from contextlib import ExitStack
from dataclasses import dataclass, replace
from queue import Empty, SimpleQueue
from statistics import median
from time import monotonic
from types import TracebackType
from typing import TYPE_CHECKING, Any, Self

from virnucpro.blocks import Block, Scored, Share, Telemetry
from virnucpro.calls import Scores
from virnucpro.errors import VirnucproError, WorkerError
from virnucpro.run.cluster import THREADS_A_WORKER, LocalWorkers, RunningCluster
from virnucpro.run.dask_worker import Identity, PackedBlock, ScoredChunks, Task, identify, score

if TYPE_CHECKING:
    from distributed import Future

# A block that kills its worker this often is given up.
MOST_DEATHS = 3
# Without any worker for this long a run ends; it can be resumed.
NO_WORKER_S = 60.0
# A block may take this much longer than recent ones, and this long in any case.
SLOWER_THAN_RECENT = 20.0
LEAST_LIMIT_S = 300.0
_LOOK_S = 0.5
_RESUMABLE = "finished blocks are kept, so the same command goes on"


class DaskRunner:
    """Scores blocks on the workers of a cluster, for `with`.

    identities: what each worker computes with, by its name. Raises WorkerError where workers are
    missing or differ, and as runners.Scorer does.
    """

    def __init__(self, task: Task, cluster: LocalWorkers | RunningCluster) -> None:
        self._task = task
        self._cluster = cluster
        self._ends = ExitStack()
        self._loaded = Telemetry()
        self.identities: dict[str, Identity] = {}

    @property
    def first(self) -> Identity:
        """What the first worker computes with, and therefore all of them."""
        return next(iter(self.identities.values()))

    @property
    def loaded(self) -> Telemetry:
        """Telemetry of loading the classifier, of all workers."""
        return self._loaded

    def __enter__(self) -> Self:
        with ExitStack() as ends:
            ends.enter_context(self._cluster)
            self._identify()
            self._ends = ends.pop_all()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self._ends.__exit__(kind, error, trace)

    def _identify(self) -> None:
        """Load the classifier on every worker. Raises WorkerError if one differs from the first."""
        client = self._cluster.client
        hosts = Counter(w["host"] for w in client.scheduler_info(n_workers=-1)["workers"].values())
        self._task = replace(self._task, workers_a_host=max(hosts.values()))
        futures = {
            address: client.submit(identify, self._task, workers=[address], pure=False)
            for address in sorted(client.scheduler_info(n_workers=-1)["workers"])
        }
        first: Identity | None = None
        for address, future in futures.items():
            identity, loaded = _result(future)
            first = first or identity
            for what, (expected, found) in first.differences(identity).items():
                raise WorkerError(
                    f"the worker {identity.name} on {identity.host} ({address}) differs from the "
                    f"first one in its {what}: {found}, not {expected}; results must not depend on "
                    "who computes, so leave it out of the cluster"
                )
            self.identities[identity.name] = identity
            self._loaded += loaded
            future.release()

    def run(self, blocks: Iterable[Block]) -> Iterator[Scored]:
        """Yield every block once, scored, in the order in which they finish."""
        yield from _Dealer(self._task, self._cluster, len(self.identities)).run(blocks)


@dataclass(slots=True)
class _Sent:
    """A block in flight. block: without its letters, which packed has."""

    block: Block
    packed: PackedBlock
    alone: bool
    since: float


class _Dealer:
    """Deals blocks out to workers, and keeps account of those in flight."""

    def __init__(self, task: Task, cluster: LocalWorkers | RunningCluster, workers: int) -> None:
        self._task = task
        self._cluster = cluster
        self._client = cluster.client
        self._most = THREADS_A_WORKER * workers
        self._sent: dict[str, tuple[_Sent, Future]] = {}
        self._finished: SimpleQueue[str] = SimpleQueue()
        self._suspects: deque[_Sent] = deque()
        self._deaths = Counter[int]()
        self._recent: deque[float] = deque(maxlen=32)
        self._seen_workers = monotonic()

    def run(self, blocks: Iterable[Block]) -> Iterator[Scored]:
        """Yield every block once, scored. An error is raised after those that were in flight."""
        unsent = iter(blocks)
        fatal: VirnucproError | MemoryError | None = None
        more = True
        try:
            while self._sent or (fatal is None and (more or self._suspects)):
                if fatal is None and self._suspects:
                    if not self._sent:
                        suspect = self._suspects.popleft()
                        self._send(_alone(suspect))
                elif fatal is None and more and len(self._sent) < self._most:
                    if (block := next(unsent, None)) is None:
                        more = False
                    else:
                        packed = PackedBlock.of(block)
                        self._send(_Sent(replace(block, text=b""), packed, False, monotonic()))
                    continue
                try:
                    scored = self._next()
                except (VirnucproError, MemoryError) as error:
                    fatal = fatal or error
                    continue
                if scored is not None:
                    yield scored
        finally:
            for _, future in self._sent.values():
                future.release()
        if fatal is not None:
            raise fatal

    def _send(self, sent: _Sent) -> None:
        future = self._client.submit(score, self._task, sent.packed, pure=False)
        self._sent[future.key] = sent, future
        future.add_done_callback(lambda done: self._finished.put(done.key))

    def _next(self) -> Scored | None:
        """Wait a little for the next block; None if there is none yet."""
        try:
            key = self._finished.get(timeout=_LOOK_S)
        except Empty:
            self._look_after_workers()
            return None
        sent, future = self._sent.pop(key)
        try:
            return self._scored(sent, future)
        finally:
            future.release()

    def _scored(self, sent: _Sent, future: "Future") -> Scored | None:
        from distributed import KilledWorker

        try:
            chunks: ScoredChunks = _result(future)
        except KilledWorker as error:
            return self._killed(sent, error.allowed_failures + 1)
        self._recent.append(monotonic() - sent.since)
        identity = chunks.identity
        share = Share(
            host=identity.host,
            device=identity.device_name,
            blocks=1,
            chunks=len(sent.block.rows),
            seconds=chunks.telemetry.scoring_s,
        )
        telemetry = replace(chunks.telemetry, shares={identity.name: share})
        return _scored(sent.block, chunks.as_scores(), chunks.failures, telemetry)

    def _killed(self, sent: _Sent, deaths: int) -> Scored | None:
        """Have a block tried again alone, or give it up if it was alone too often."""
        self._cluster.replace_dead()
        number, rows = sent.block.number, len(sent.block.rows)
        self._deaths[number] += deaths
        if not sent.alone or self._deaths[number] < MOST_DEATHS:
            self._suspects.append(sent)
            return None
        reason = f"{self._deaths[number]} workers died while they scored it or its neighbours"
        return _scored(
            sent.block, Scores.failed(rows), dict.fromkeys(range(rows), reason), Telemetry()
        )

    def _look_after_workers(self) -> None:
        """Replace dead workers and end those that hang. Raises WorkerError if none can go on."""
        now = monotonic()
        self._cluster.replace_dead()
        if self._client.status != "running":
            raise self._abandoned("the connection to the Dask scheduler was lost")
        if self._client.scheduler_info(n_workers=-1)["workers"]:
            self._seen_workers = now
        elif now - self._seen_workers > NO_WORKER_S:
            raise self._abandoned(f"the cluster has had no worker for {NO_WORKER_S:.0f} s")
        limit_s = LEAST_LIMIT_S
        if self._recent:
            limit_s = max(limit_s, SLOWER_THAN_RECENT * median(self._recent))
        for key, (sent, _) in self._sent.items():
            if now - sent.since > limit_s:
                self._end_worker_of(key, sent, limit_s)
                return

    def _end_worker_of(self, key: str, sent: _Sent, limit_s: float) -> None:
        """End a worker that hangs. Raises WorkerError if it is not ours to end."""
        sent.since = monotonic()
        workers = self._client.scheduler_info(n_workers=-1)["workers"]
        for address, keys in self._client.processing().items():
            name = str(workers.get(address, {}).get("name", address))
            if key in keys and not self._cluster.kill(name):
                raise self._abandoned(
                    f"the worker {name} has not finished block {sent.block.number} in "
                    f"{limit_s:.0f} s; end it"
                )

    def _abandoned(self, reason: str) -> WorkerError:
        """Return the error of a run that cannot go on; nothing in flight is waited for."""
        for _, future in self._sent.values():
            future.release()
        self._sent.clear()
        return WorkerError(f"{reason}; {_RESUMABLE}")


def _alone(sent: _Sent) -> _Sent:
    """Return a block to be sent again, alone."""
    return replace(sent, alone=True, since=monotonic())


def _scored(
    block: Block, scores: Scores, failures: Mapping[int, str], telemetry: Telemetry
) -> Scored:
    return Scored(
        block_number=block.number,
        digest=block.digest,
        records=block.records,
        rows=block.rows,
        scores=scores,
        failures=failures,
        telemetry=telemetry,
    )


def _result(future: "Future") -> Any:  # noqa: ANN401
    """Return what a task returned, or raise what it raised."""
    try:
        return future.result()
    except CancelledError as error:
        raise WorkerError(f"the Dask scheduler has gone; {_RESUMABLE}") from error
