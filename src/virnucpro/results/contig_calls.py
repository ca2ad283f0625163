"""Scores and calls of whole contigs, summed from those of their chunks, block by block."""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from virnucpro.calls import Call, Scores, Status


@dataclass(frozen=True, slots=True)
class Contigs:
    """What the chunks of r contigs say of them.

    chunks, called, virus, failed: (r,) numbers of chunks; called_nt: (r,) bases that the called
    ones add to those before them; p_virus: (r,) mean of its called chunks weighted by the bases
    that each adds; max_p_virus: (r,) largest p_virus of a chunk, nan where none was called;
    status: (r,) Status, FAILED where no chunk was called and one failed.
    """

    chunks: NDArray[np.int64]
    called: NDArray[np.int64]
    virus: NDArray[np.int64]
    failed: NDArray[np.int64]
    called_nt: NDArray[np.float64]
    p_virus: NDArray[np.float64]
    max_p_virus: NDArray[np.float64]
    status: NDArray[np.uint8]

    def __len__(self) -> int:
        return len(self.status)


@dataclass(frozen=True, slots=True)
class _Sums:
    """What is kept of r contigs until their last chunk is in; worst is their largest Status."""

    chunks: NDArray[np.int64]
    called: NDArray[np.int64]
    virus: NDArray[np.int64]
    failed: NDArray[np.int64]
    worst: NDArray[np.uint8]
    weighted: NDArray[np.float64]
    weight: NDArray[np.float64]
    low: NDArray[np.float64]
    high: NDArray[np.float64]
    last_end: NDArray[np.int64]

    @classmethod
    def zeros(cls, r: int) -> "_Sums":
        def count() -> NDArray[np.int64]:
            return np.zeros(r, dtype=np.int64)

        return cls(
            chunks=count(),
            called=count(),
            virus=count(),
            failed=count(),
            worst=np.zeros(r, dtype=np.uint8),
            weighted=np.zeros(r),
            weight=np.zeros(r),
            low=np.full(r, np.inf),
            high=np.full(r, -np.inf),
            last_end=count(),
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
        self._open = _Sums.zeros(0)

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
        sums = _Sums.zeros(r)
        carried = len(self._open.chunks)
        for name in _Sums.__slots__:
            getattr(sums, name)[:carried] = getattr(self._open, name)
        _count(sums, record, scores.status, calls)
        called = calls != Call.NONE
        _weigh(sums, record[called], start[called], end[called], scores.p_virus[called])
        cut = r if last_ends else r - 1
        self._open = sums.part(slice(cut, r))
        return _contigs(sums.part(slice(0, cut)))


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
    p_virus: NDArray[np.float64],
) -> None:
    """Adds called chunks, (n,), to the sums of the mean."""
    if not len(record):
        return
    r = len(sums.chunks)
    contigs, first = np.unique(record, return_index=True)
    covered_to = np.concatenate((end[:1], end[:-1]))
    covered_to[first] = sums.last_end[contigs]
    adds = (end - np.maximum(start, covered_to)).astype(np.float64)
    # bincount adds one by one in order; with the old sums in front it goes on where they stopped.
    where = np.concatenate((np.arange(r), record))
    for total, value in ((sums.weighted, p_virus * adds), (sums.weight, adds)):
        total[:] = np.bincount(where, np.concatenate((total, value)), minlength=r)
    sums.low[contigs] = np.minimum(sums.low[contigs], np.minimum.reduceat(p_virus, first))
    sums.high[contigs] = np.maximum(sums.high[contigs], np.maximum.reduceat(p_virus, first))
    sums.last_end[contigs] = end[np.append(first[1:], len(end)) - 1]


def _contigs(sums: _Sums) -> Contigs:
    """Finished sums -> contigs."""
    called = sums.called > 0
    mean = np.full(len(called), np.nan)
    np.divide(sums.weighted, sums.weight, out=mean, where=called)
    # Rounding must not carry a mean past its terms: contigs of equal chunks keep their score.
    mean = np.where(called, np.clip(mean, sums.low, sums.high), np.nan)
    status = np.where(called, Status.OK, np.where(sums.chunks > 0, sums.worst, Status.EMPTY))
    return Contigs(
        chunks=sums.chunks,
        called=sums.called,
        virus=sums.virus,
        failed=sums.failed,
        called_nt=sums.weight,
        p_virus=mean,
        max_p_virus=np.where(called, sums.high, np.nan),
        status=status.astype(np.uint8),
    )
