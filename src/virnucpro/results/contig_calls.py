"""Scores and calls of whole contigs, summed from their chunks, block by block."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray

from virnucpro.bundle.calibration import chunk_log_odds
from virnucpro.calls import Call, Rule, Scores, Status
from virnucpro.classifiers.screen import LOW_COMPLEXITY, NOTES
from virnucpro.records import Records
from virnucpro.results.finished import FinishedBlocks


@dataclass(frozen=True, slots=True)
class Contigs:
    """The results of r contigs, summed up from their chunks.

    chunks, called, virus, failed: (r,) numbers of chunks; called_nt: (r,) bases that the called
    ones add to chunks before them; mean: (r,) p_virus of its called chunks, as the network gave it,
    weighted by these bases; evidence: (r,) sum of their log-odds times these bases, where chunks of
    low complexity speak for no virus; max_p_virus: (r,) largest p_virus of a chunk, nan where none
    was called; status: (r,) Status, FAILED where no chunk was called and one failed. groups: (r, G)
    mean log-probabilities of groups, G 0 where the network tells none; notes: (r,) bits of
    classifiers.screen.
    """

    chunks: NDArray[np.int64]
    called: NDArray[np.int64]
    virus: NDArray[np.int64]
    failed: NDArray[np.int64]
    called_nt: NDArray[np.float64]
    mean: NDArray[np.float64]
    evidence: NDArray[np.float64]
    max_p_virus: NDArray[np.float64]
    status: NDArray[np.uint8]
    groups: NDArray[np.float64]
    notes: NDArray[np.uint8]

    def __len__(self) -> int:
        return len(self.status)

    @property
    def low(self) -> NDArray[np.bool_]:
        """Return whether each is noted for low complexity, (r,)."""
        noted: NDArray[np.bool_] = self.notes & LOW_COMPLEXITY > 0
        return noted

    @classmethod
    def joined(cls, parts: Sequence["Contigs"]) -> "Contigs":
        """The contigs of one or more, one after the other; without groups, unless all have them."""
        width = min((part.groups.shape[1] for part in parts if len(part)), default=0)
        columns = [[getattr(part, name) for part in parts] for name in cls.__slots__]
        place = cls.__slots__.index("groups")
        columns[place] = [groups[:, :width] for groups in columns[place] if len(groups)] or [
            np.zeros((0, 0))
        ]
        return cls(*map(np.concatenate, columns))


@dataclass(frozen=True, slots=True)
class _Sums:
    """The sums kept of r contigs until their last chunk is in; worst is their largest Status.

    noted: (r, notes) bases of called chunks with each note.
    """

    chunks: NDArray[np.int64]
    called: NDArray[np.int64]
    virus: NDArray[np.int64]
    failed: NDArray[np.int64]
    worst: NDArray[np.uint8]
    weighted: NDArray[np.float64]
    evidence: NDArray[np.float64]
    weight: NDArray[np.float64]
    low: NDArray[np.float64]
    high: NDArray[np.float64]
    last_end: NDArray[np.int64]
    groups: NDArray[np.float64]
    noted: NDArray[np.float64]

    @classmethod
    def zeros(cls, r: int, groups: int) -> "_Sums":
        def count() -> NDArray[np.int64]:
            return np.zeros(r, dtype=np.int64)

        return cls(
            chunks=count(),
            called=count(),
            virus=count(),
            failed=count(),
            worst=np.zeros(r, dtype=np.uint8),
            weighted=np.zeros(r),
            evidence=np.zeros(r),
            weight=np.zeros(r),
            low=np.full(r, np.inf),
            high=np.full(r, -np.inf),
            last_end=count(),
            groups=np.zeros((r, groups)),
            noted=np.zeros((r, len(NOTES))),
        )

    def part(self, keep: slice) -> "_Sums":
        """The contigs of a slice, as a copy."""
        return _Sums(*(getattr(self, name)[keep].copy() for name in self.__slots__))


class ContigCalls:
    """Chunks -> contigs, block by block; holds one unfinished contig and nothing else.

    Sums run in the order of the chunks, one by one, so that they are the same numbers wherever
    the blocks were cut.
    """

    def __init__(self) -> None:
        self._open = _Sums.zeros(0, 0)

    def add(
        self,
        r: int,
        record: NDArray[np.int32],
        start: NDArray[np.int64],
        end: NDArray[np.int64],
        scores: Scores,
        calls: NDArray[np.uint8],
        last_ends: bool,
    ) -> Contigs:
        """The contigs that end in this block.

        r: contigs of the block, the first of which goes on from the block before if that one
        was left open; record: (n,) which of them a chunk belongs to, ascending; start, end: (n,)
        of the chunks; calls: (n,) Call; last_ends: whether the last contig ends here. A contig
        without any chunk has status EMPTY.
        """
        groups = 0 if scores.groups is None else scores.groups.shape[1]
        if carried := len(self._open.chunks):
            groups = max(groups, self._open.groups.shape[1])
        sums = _Sums.zeros(r, groups)
        for name in _Sums.__slots__ if carried else ():
            before = getattr(self._open, name)
            if before.ndim == 1 or before.shape[1]:  # a block that was given up names no groups
                getattr(sums, name)[:carried] = before
        _count(sums, record, scores.status, calls)
        called = np.flatnonzero(calls != Call.NONE)
        if len(called):
            _weigh(sums, record[called], start[called], end[called], scores, called)
        cut = r if last_ends else r - 1
        self._open = sums.part(slice(cut, r))
        return _contigs(sums.part(slice(0, cut)))


def summed(finished: FinishedBlocks, rule: Rule) -> Iterator[Contigs]:
    """Yield the contigs of finished blocks, block by block. Raises BlockError."""
    contig_calls = ContigCalls()
    for scored in finished.scored():
        records, rows = scored.records, scored.rows
        calls = rule.chunks(scored.scores)
        columns = (rows.record, rows.start, rows.end, scored.scores, calls, records.all_end)
        contigs = contig_calls.add(len(records), *columns)
        status = with_faults(records[: len(contigs)], contigs.status)
        yield replace(contigs, status=status)


def with_faults(records: Records, status: NDArray[np.uint8]) -> NDArray[np.uint8]:
    """Return the status of records, (r,), also of those that were not cut into chunks."""
    listed = np.where(records.short, Status.TOO_SHORT, status)
    return np.where(records.faulty, Status.FAILED, listed).astype(np.uint8)


def _count(
    sums: _Sums,
    record: NDArray[np.int32],
    status: NDArray[np.uint8],
    calls: NDArray[np.uint8],
) -> None:
    """Adds the chunks of a block, (n,), to the counts."""
    r = len(sums.chunks)
    sums.chunks[:] += np.bincount(record, minlength=r)
    sums.called[:] += np.bincount(record[calls != Call.NONE], minlength=r)
    sums.virus[:] += np.bincount(record[calls == Call.VIRUS], minlength=r)
    sums.failed[:] += np.bincount(record[status == Status.FAILED], minlength=r)
    np.maximum.at(sums.worst, record, status)


def _weigh(
    sums: _Sums,
    record: NDArray[np.int32],
    start: NDArray[np.int64],
    end: NDArray[np.int64],
    scores: Scores,
    called: NDArray[np.intp],
) -> None:
    """Adds called chunks, (n,), to the sums; called: (n,) their places in scores."""
    contigs, first = np.unique(record, return_index=True)
    covered_to = np.concatenate((end[:1], end[:-1]))
    covered_to[first] = sums.last_end[contigs]
    adds = (end - np.maximum(start, covered_to)).astype(np.float64)
    p_virus = scores.p_virus[called]
    log_odds = chunk_log_odds(p_virus)
    if scores.notes is not None:
        notes = scores.notes[called]
        log_odds = np.where(notes & LOW_COMPLEXITY, np.minimum(log_odds, 0.0), log_odds)
        for place, bit in enumerate(NOTES):
            if np.any(notes & bit):
                _add(sums.noted[:, place], record, np.where(notes & bit, adds, 0.0))
    _add(sums.weighted, record, p_virus * adds)
    _add(sums.evidence, record, log_odds * adds)
    _add(sums.weight, record, adds)
    if scores.groups is not None:
        for group, log_p in enumerate(scores.groups[called].T):
            _add(sums.groups[:, group], record, log_p.astype(np.float64) * adds)
    sums.low[contigs] = np.minimum(sums.low[contigs], np.minimum.reduceat(p_virus, first))
    sums.high[contigs] = np.maximum(sums.high[contigs], np.maximum.reduceat(p_virus, first))
    sums.last_end[contigs] = end[np.append(first[1:], len(end)) - 1]


def _add(total: NDArray[np.float64], record: NDArray[np.int32], value: NDArray[np.float64]) -> None:
    """Add the values of chunks, (n,), to the totals of their records, (r,).

    bincount adds one by one in order; with the old sums in front it goes on where they stopped.
    """
    r = len(total)
    where = np.concatenate((np.arange(r), record))
    total[:] = np.bincount(where, np.concatenate((total, value)), minlength=r)


def _contigs(sums: _Sums) -> Contigs:
    """Finished sums -> contigs."""
    called = sums.called > 0
    weight = np.where(called, sums.weight, 1.0)
    # Rounding must not carry a mean past its terms: contigs of equal chunks keep their score.
    mean = np.clip(sums.weighted / weight, sums.low, sums.high)
    status = np.where(called, Status.OK, np.where(sums.chunks > 0, sums.worst, Status.EMPTY))
    return Contigs(
        chunks=sums.chunks,
        called=sums.called,
        virus=sums.virus,
        failed=sums.failed,
        called_nt=sums.weight,
        mean=np.where(called, mean, np.nan),
        evidence=sums.evidence,
        max_p_virus=np.where(called, sums.high, np.nan),
        status=status.astype(np.uint8),
        groups=sums.groups / weight[:, None],
        notes=_notes(sums.noted / weight[:, None]),
    )


def _notes(share: NDArray[np.float64]) -> NDArray[np.uint8]:
    """Bits of the notes of r contigs; share: (r, notes) of the bases of called chunks."""
    least = np.array([note.least_share for note in NOTES.values()])
    bits = np.array([*NOTES], np.uint8)
    notes: NDArray[np.uint8] = np.where((share > 0) & (share >= least), bits, 0).sum(axis=1)
    return notes.astype(np.uint8)
