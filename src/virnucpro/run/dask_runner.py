"""Blocks sent as tasks to workers of Dask distributed, which each hold a classifier.

Blocks are dealt out as workers become free, two in flight a worker. A block whose worker died is
tried again, and if another one dies, alone: so a block that kills its workers is told from the
others that were with it.
"""

from collections import Counter, deque
from collections.abc import Iterable, Iterator, Mapping
from concurrent.futures import CancelledError
from contextlib import ExitStack
from dataclasses import dataclass, replace
from queue import Empty, SimpleQueue
from statistics import median
from time import monotonic
from typing import TYPE_CHECKING, Any, Self
from uuid import uuid4

from virnucpro import __version__
from virnucpro.blocks import Block, Scored, Share, Telemetry
from virnucpro.calls import Scores
from virnucpro.errors import VirnucproError, WorkerError
from virnucpro.run.cluster import LocalWorkers, RunningCluster
from virnucpro.run.dask_worker import (
    Failure,
    Identity,
    PackedBlock,
    ScoredChunks,
    Task,
    identify,
    score,
)
from virnucpro.run.runners import Raised, UnderWay, unheard

if TYPE_CHECKING:
    from distributed import Future

# A block whose workers died this often is sent alone, and this often is given up.
SUSPECT_DEATHS = 2
MOST_DEATHS = 3
# A block whose scores were lost with their connection this often ends the run.
MOST_LOSSES = 10
# One computes, and one is prepared or waits.
BLOCKS_A_WORKER = 2
# Without any worker for this long a run ends; it can be resumed.
NO_WORKER_S = 60.0
# A block may take this much longer than recent ones, and this long in any case.
SLOWER_THAN_RECENT = 20.0
LEAST_LIMIT_S = 300.0
# The first block of a large model may take minutes on a few processors.
FIRST_LIMIT_S = 3600.0
_LOOK_S = 0.5
_FETCH_S = 5.0
_GOES_ON = "finished blocks are kept, so the same command goes on"


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
        self.under_way: UnderWay = unheard
        self.identities: dict[str, Identity] = {}

    @property
    def first(self) -> Identity:
        """The identity of what the first worker, and therefore every worker, computes with."""
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

    def __exit__(self, *raised: *Raised) -> None:
        self._ends.__exit__(*raised)

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
            identity, loaded = self._identity(address, future)
            first = first or identity
            refuse_other(first, identity)
            self.identities[identity.name] = identity
            share = Share(identity.host, identity.device_name)  # of a worker that may get no block
            self._loaded += loaded + Telemetry(shares={identity.name: share})
            future.release()

    @staticmethod
    def _identity(address: str, future: "Future") -> tuple[Identity, Telemetry]:
        from distributed import KilledWorker

        try:
            answer: tuple[Identity, Telemetry] | Failure = future.result()
        except KilledWorker as error:
            raise WorkerError(
                f"the worker at {address} died while it loaded the bundle, perhaps because memory "
                "ran out; see its log, or take fewer workers a host"
            ) from error
        except CancelledError as error:
            raise WorkerError(f"the Dask scheduler has gone; {_GOES_ON}") from error
        except (ImportError, AttributeError, RuntimeError) as error:
            raise WorkerError(
                f"the worker at {address} cannot run virnucpro {__version__} ({error}); install "
                "this version where it runs, or leave it out of the cluster"
            ) from error
        if isinstance(answer, Failure):
            raise answer.error()
        return answer

    def run(self, blocks: Iterable[Block]) -> Iterator[Scored]:
        """Yield every block once, scored, in the order in which they finish."""
        yield from _Dealer(self._task, self._cluster, self.first, self.under_way).run(blocks)


def refuse_other(first: Identity, other: Identity) -> None:
    """Raise WorkerError if a worker would not compute as the first one does."""
    for name, (expected, actual) in first.differences(other).items():
        raise WorkerError(
            f"the worker {other.name} on {other.host} differs from {first.name} on {first.host} in "
            f"its {name}: {actual}, not {expected}; results must not depend on who computes, so "
            "leave it out of the cluster"
        )


@dataclass(slots=True)
class _Sent:
    """A block in flight, or to be sent again. block: without its letters, which packed has.

    deaths: of workers that had it. losses: of its scores, with their connection. since: when it
    was sent.
    """

    block: Block
    packed: PackedBlock
    deaths: int = 0
    losses: int = 0
    since: float = 0.0

    @classmethod
    def of(cls, block: Block) -> "_Sent":
        return cls(replace(block, text=b""), PackedBlock.of(block))

    @property
    def alone(self) -> bool:
        """Return whether it is suspected of killing workers; no other block then goes beside it."""
        return self.deaths >= SUSPECT_DEATHS


class _Dealer:
    """Deals blocks out to workers, and keeps account of the ones in flight."""

    def __init__(
        self,
        task: Task,
        cluster: LocalWorkers | RunningCluster,
        first: Identity,
        under_way: UnderWay,
    ) -> None:
        self._under_way = under_way
        # The share of each block that is scored, as its worker says; of this run alone.
        self._shares: dict[int, float] = {}
        self._topic = f"virnucpro-{uuid4().hex}"
        self._task = task
        self._cluster = cluster
        self._client = cluster.client
        self._first = first
        self._known = {first.name}
        self._sent: dict[str, tuple[_Sent, Future]] = {}
        self._again: deque[_Sent] = deque()
        self._unsent_left = True
        self._finished: SimpleQueue[str] = SimpleQueue()
        self._recent: deque[float] = deque(maxlen=32)
        self._most = 0
        self._notes: list[str] = []
        self._looked = self._seen_workers = monotonic()

    def run(self, blocks: Iterable[Block]) -> Iterator[Scored]:
        """Yield every block once, scored. An error is raised after the ones in flight."""
        unsent = map(_Sent.of, blocks)
        fatal: VirnucproError | None = None
        self._look_after_workers()
        self._client.subscribe_topic(self._topic, self._hear)
        try:
            while self._sent or (fatal is None and (self._unsent_left or self._again)):
                try:
                    while fatal is None and (sent := self._next_to_send(unsent)) is not None:
                        self._send(sent)
                    scored = self._next_finished()
                except VirnucproError as error:
                    fatal = fatal or error
                    continue
                if scored is not None:
                    yield scored
        finally:
            for _, future in self._sent.values():
                future.release()
            if self._client.status == "running":
                self._client.unsubscribe_topic(self._topic)
        if fatal is not None:
            raise fatal

    def _hear(self, event: tuple[float, tuple[int, float]]) -> None:
        """Take the share of a block, in a thread of Dask's."""
        _, (number, share) = event
        self._shares[number] = share

    def _pass_on(self) -> None:
        """Tell how much of the blocks in flight is scored."""
        blocks = [sent.block for sent, _ in self._sent.values()]
        self._under_way(sum(len(b.rows) * self._shares.get(b.number, 0.0) for b in blocks))

    def _next_to_send(self, unsent: Iterator[_Sent]) -> _Sent | None:
        """Return a block that may be sent now; None if there is none."""
        if self._client.status != "running" or len(self._sent) >= self._most:
            return None
        if any(sent.alone for sent, _ in self._sent.values()):
            return None
        if self._again:
            wait = self._again[0].alone and self._sent
            return None if wait else self._again.popleft()
        sent = next(unsent, None) if self._unsent_left else None
        self._unsent_left = sent is not None
        return sent

    def _send(self, sent: _Sent) -> None:
        sent.since = monotonic()
        self._shares.pop(sent.block.number, None)
        arguments = self._task, sent.packed, self._topic
        self._wait_for(sent, self._client.submit(score, *arguments, pure=False))

    def _wait_for(self, sent: _Sent, future: "Future") -> None:
        self._sent[future.key] = sent, future
        future.add_done_callback(lambda done: self._finished.put(done.key))

    def _next_finished(self) -> Scored | None:
        """Wait a little for the next block; None if there is none yet."""
        if monotonic() - self._looked > _LOOK_S:
            self._look_after_workers()
            self._pass_on()
        try:
            key = self._finished.get(timeout=_LOOK_S)
        except Empty:
            return None
        if key not in self._sent:  # abandoned
            return None
        sent, future = self._sent.pop(key)
        try:
            return self._scored(sent, future)
        except TimeoutError:  # its worker has died with it, and it is computed again
            self._wait_for(sent, future)
            return None
        finally:
            if key not in self._sent:
                future.release()

    def _scored(self, sent: _Sent, future: "Future") -> Scored | None:
        from distributed import KilledWorker
        from distributed.comm import CommClosedError

        try:
            chunks: ScoredChunks | Failure = future.result(timeout=_FETCH_S)
        except KilledWorker as error:
            return self._killed(sent, error.allowed_failures + 1)
        except (CancelledError, CommClosedError) as error:  # the connection may come back
            sent.losses += 1
            if sent.losses == MOST_LOSSES:
                lost = f"the scores of block {sent.block.number} were lost {MOST_LOSSES} times"
                raise self._abandoned(f"{lost} with their connection") from error
            self._again.append(sent)
            return None
        if isinstance(chunks, Failure):
            raise chunks.error()
        self._recent.append(monotonic() - sent.since)
        identity = chunks.identity
        if identity.name not in self._known:  # it came later
            refuse_other(self._first, identity)
            self._known.add(identity.name)
        self._cluster.has_worked(identity.name)
        (share,) = chunks.telemetry.shares.values()
        telemetry = replace(
            chunks.telemetry, shares={identity.name: share}, notes=self._notes_so_far()
        )
        return Scored.of(sent.block, chunks.as_scores(), chunks.failures, telemetry)

    def _killed(self, sent: _Sent, deaths: int) -> Scored | None:
        """Have a block tried again, or give it up if its workers died too often, even alone."""
        was_alone, rows, number = sent.alone, len(sent.block.rows), sent.block.number
        sent.deaths += deaths
        if not was_alone or sent.deaths < MOST_DEATHS:
            self._notes.append(f"warning: a worker died with block {number}, which is tried again")
            self._again.append(sent)
            return None
        self._notes.append(f"warning: block {number} is given up: {sent.deaths} workers died of it")
        reason = f"{sent.deaths} workers died, or did not answer, while they scored its block"
        telemetry = Telemetry(notes=self._notes_so_far())
        failures = dict.fromkeys(range(rows), reason)
        return Scored.of(sent.block, Scores.failed(rows), failures, telemetry)

    def _notes_so_far(self) -> tuple[str, ...]:
        notes, self._notes = tuple(self._notes), []
        return notes

    def _look_after_workers(self) -> None:
        """Replace dead workers and end those that hang. Raises WorkerError if none can go on."""
        self._looked = now = monotonic()
        try:
            self._cluster.replace_dead()
        except WorkerError as error:
            raise self._abandoned(str(error)) from error
        if self._client.status == "closed":
            raise self._abandoned("the Dask scheduler has gone")
        if workers := self._workers():
            self._seen_workers = now
            self._most = BLOCKS_A_WORKER * len(workers)
        elif now - self._seen_workers > NO_WORKER_S:
            raise self._abandoned(f"the cluster has had no worker for {NO_WORKER_S:.0f} s")
        limit_s = FIRST_LIMIT_S
        if self._recent:
            limit_s = max(LEAST_LIMIT_S, SLOWER_THAN_RECENT * median(self._recent))
        for key, (sent, _) in self._sent.items():
            if now - sent.since > limit_s and workers:
                self._end_worker_of(key, sent, workers, limit_s)
                return

    def _workers(self) -> Mapping[str, Mapping[str, Any]]:
        """Return the workers that are connected, by address."""
        if self._client.status != "running":
            return {}
        workers: Mapping[str, Mapping[str, Any]]
        workers = self._client.scheduler_info(n_workers=-1)["workers"]
        return workers

    def _end_worker_of(
        self, key: str, sent: _Sent, workers: Mapping[str, Mapping[str, Any]], limit_s: float
    ) -> None:
        """End a worker that hangs. Raises WorkerError if it is not ours to end."""
        sent.since, number = monotonic(), sent.block.number
        busy = [where for where, keys in self._client.processing().items() if key in keys]
        for address in busy:
            name = str(workers.get(address, {}).get("name", address))
            if not self._cluster.kill(name):
                raise self._abandoned(
                    f"the worker {name} has not finished block {number} in {limit_s:.0f} s; end it"
                )
        if not busy:  # the answer was lost
            self._sent.pop(key)[1].release()
            if sent.deaths >= MOST_DEATHS:
                raise self._abandoned(f"no answer on block {number} arrives; see the workers' logs")
            sent.deaths += 1
            self._again.append(sent)

    def _abandoned(self, reason: str) -> WorkerError:
        """Return the error of a run that cannot go on; nothing in flight is waited for."""
        for _, future in self._sent.values():
            future.release()
        self._sent.clear()
        return WorkerError(f"{reason}; {_GOES_ON}")
