"""Calls of chunks -> regions: stretches of a contig with more virus than chance would give.

Every chunk speaks for a virus by the logarithm of how much likelier its call is in one than in
others: log(recall / false positives) where it was called virus, a negative number where not. It
counts by the bases that it adds to the chunk before it, so that none speaks twice. A region runs
from where the sum begins to where it is largest.

Where chunks are called by chance alone, e to the sum is never expected to grow, so that a sum of s
follows a given chunk called virus with a probability of at most exp(log(recall / false positives)
- s). A contig of n called chunks has n * false positives of these on average; together, at most
n * recall * exp(-s) regions of s or more are expected. This module knows no file.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from math import exp, log
from typing import Any

import numpy as np
from numpy.typing import NDArray

from virnucpro.bundle.manifest import Bundle
from virnucpro.calls import Call
from virnucpro.results.judge import Stretch, mean_of_stretch

# A region is reported where fewer than so many as good are expected on its contig by chance.
MOST_EXPECTED = 0.05
# A single chunk is not a stretch, so a read of one has no region.
FEWEST_VIRUS = 2
# A group of fewer fragments does not tell how often its chunks are called virus.
FEWEST_OF_GROUP = 50
_MOST_RECALL = 0.999

Int64 = NDArray[np.int64]
Float64 = NDArray[np.float64]


@dataclass(frozen=True, slots=True)
class Odds:
    """The rates at which chunks of a virus, and of something else, are called virus.

    recall must be the larger one. chunk_nt: the bases that count as one chunk.
    """

    recall: float
    false_positive_rate: float
    chunk_nt: int

    def __post_init__(self) -> None:
        if not 0 < self.false_positive_rate < self.recall < 1:
            raise ValueError(f"these rates tell no virus from others: {self}")

    @property
    def of_virus(self) -> float:
        """The amount that a chunk called virus adds to a sum."""
        return log(self.recall / self.false_positive_rate)

    @property
    def of_others(self) -> float:
        """The amount that a chunk called others adds; it is negative."""
        return log((1 - self.recall) / (1 - self.false_positive_rate))

    def expected(self, score: float, called: int) -> float:
        """Return how many regions of this sum chance gives a contig of `called` chunks, at most."""
        return called * self.recall * exp(-score)

    def least(self, called: int) -> float:
        """Return the sum from which on a stretch is a region of a contig of `called` chunks."""
        return log(called * self.recall / MOST_EXPECTED)

    @property
    def fewest_chunks(self) -> int:
        """The number of called chunks from which on a contig can have a region."""
        n = FEWEST_VIRUS
        while n * self.of_virus < self.least(n):
            n += 1
        return n


def odds_of(bundle: Bundle, threshold: float) -> Odds | str:
    """Return the odds that the bundle's card measured at a threshold, or why it tells no regions.

    At a threshold between two that were measured, false positives are taken from the lower one,
    and recall from the upper one. A contig is of one host, not of the card's mixture, so false
    positives are taken from the group of hosts that the bundle mistakes most often.
    """
    card = bundle.card
    rows = [row for row in _rates(card, bundle.threshold) if row[0] <= threshold]
    if not rows:
        return f"the card of {bundle.name} has no false-positive rate at this threshold or below"
    _, highest_recall, rate = rows[-1]
    above = [row[1] for row in _rates(card, bundle.threshold) if row[0] >= threshold]
    recall = min(above[0] if above else highest_recall, _MOST_RECALL)
    others = card.get("fixed_fragments", {}).get("others", 0)
    # One more mistake than were seen: none seen is not none at all.
    rate = (rate * others + 1) / (others + 1) * _worst_group(card)
    if rate >= recall:
        return (
            f"with {bundle.name}, chunks of some hosts are called virus as often as those of a "
            f"virus ({rate:.2f} and {recall:.2f}) at this threshold"
        )
    return Odds(recall, rate, bundle.chunk_nt)


def _rates(card: Mapping[str, Any], usual: float) -> list[tuple[float, float, float]]:
    """(threshold, recall, false-positive rate) of chunks, by threshold."""
    fixed = card.get("fixed_fragments", {})
    rows = [*card.get("by_threshold", ()), {"threshold": usual, **fixed}]
    found = {
        row["threshold"]: (row["threshold"], row["recall"], row["false_positive_rate"])
        for row in rows
        if {"recall", "false_positive_rate"} <= row.keys()
    }
    return sorted(found.values())


def _worst_group(card: Mapping[str, Any]) -> float:
    """Return how often the most mistaken group is called virus, relative to all others together."""
    rates = [
        row["false_positive_rate"]
        for row in card.get("by_part", ())
        if row.get("part") == "group"
        and "false_positive_rate" in row
        and row.get("others", 0) >= FEWEST_OF_GROUP
    ]
    overall = card.get("fixed_fragments", {}).get("false_positive_rate", 0)
    return max(1.0, *(rate / overall for rate in rates)) if rates and overall else 1.0


@dataclass(frozen=True, slots=True)
class Region:
    """A stretch of a contig.

    index: of the contig in its block; number: on its contig, from 1. start, end: 0-based half-open.
    chunks, called, virus: numbers of its chunks; p_virus: of the called ones together, as the judge
    of the run has it for a record. expected: the number, at most,
    of regions as good that chance gives this contig.
    """

    index: int
    number: int
    start: int
    end: int
    chunks: int
    called: int
    virus: int
    p_virus: float
    expected: float

    @property
    def length_nt(self) -> int:
        """Bases, each counted once."""
        return self.end - self.start


@dataclass(frozen=True, slots=True)
class _Chunks:
    """Chunks of one contig, n columns in order; call: (n,) Call."""

    start: Int64
    end: Int64
    p_virus: Float64
    call: NDArray[np.uint8]

    def __len__(self) -> int:
        return len(self.start)

    def part(self, first: int, last: int) -> "_Chunks":
        """The chunks [first, last)."""
        return _Chunks(*(getattr(self, name)[first:last] for name in self.__slots__))

    def after(self, before: "_Chunks") -> "_Chunks":
        """Return the chunks of before, and then these."""
        pairs = ((getattr(before, name), getattr(self, name)) for name in self.__slots__)
        return _Chunks(*(np.concatenate(pair) for pair in pairs))

    def called(self) -> "_Chunks":
        """Return the chunks that have a call."""
        kept = self.call != Call.NONE
        return _Chunks(*(getattr(self, name)[kept] for name in self.__slots__))

    @property
    def adds_nt(self) -> Int64:
        """Bases that each adds to the one before it, (n,)."""
        covered_to = np.concatenate((self.start[:1], self.end[:-1]))
        added: Int64 = self.end - np.maximum(self.start, covered_to)
        return added


class RegionFinder:
    """Finds regions block by block; holds the chunks of one unfinished contig and nothing else."""

    def __init__(self, odds: Odds, p_virus: Stretch = mean_of_stretch) -> None:
        """Find regions by odds. p_virus: of the called chunks of one, together."""
        self._odds = odds
        self._p_virus = p_virus
        self._open: _Chunks | None = None

    def add(
        self,
        r: int,
        record: NDArray[np.int32],
        start: Int64,
        end: Int64,
        p_virus: Float64,
        calls: NDArray[np.uint8],
        last_ends: bool,
    ) -> list[Region]:
        """The regions of the contigs that end in this block, in order.

        r, record, start, end, calls, last_ends: as ContigCalls.add takes them; p_virus: (n,).
        """
        rows = _Chunks(start, end, p_virus, calls)
        edges = np.searchsorted(record, np.arange(r + 1)).tolist()
        virus = np.bincount(record[calls == Call.VIRUS], minlength=r)
        whole = {
            i: rows.part(edges[i], edges[i + 1])
            for i in np.flatnonzero(virus >= FEWEST_VIRUS).tolist()
        }
        if self._open is not None and r:
            whole[0] = rows.part(edges[0], edges[1]).after(self._open)
            self._open = None
        if r and not last_ends:
            self._open = whole.pop(r - 1, None) or rows.part(edges[r - 1], edges[r])
        return [
            region
            for index, chunks in sorted(whole.items())
            for region in _regions(index, chunks, self._odds, self._p_virus)
        ]


def _regions(index: int, chunks: _Chunks, odds: Odds, p_virus: Stretch) -> list[Region]:
    """The regions of a whole contig."""
    called = chunks.called()
    virus = int(np.sum(called.call == Call.VIRUS))
    if virus < FEWEST_VIRUS or virus * odds.of_virus < odds.least(len(called)):
        return []
    step = np.where(called.call == Call.VIRUS, odds.of_virus, odds.of_others)
    sums = step * np.minimum(called.adds_nt / odds.chunk_nt, 1.0)
    least = odds.least(len(called))
    found: list[Region] = []
    for first, last, score in stretches(sums.tolist(), least):
        part = called.part(first, last)
        if np.sum(part.call == Call.VIRUS) < FEWEST_VIRUS:
            continue
        begin, end = int(part.start[0]), int(part.end[-1])
        inside = (chunks.start >= begin) & (chunks.end <= end)
        found.append(
            Region(
                index=index,
                number=len(found) + 1,
                start=begin,
                end=end,
                chunks=int(inside.sum()),
                called=len(part),
                virus=int(np.sum(part.call == Call.VIRUS)),
                p_virus=p_virus(part.p_virus, part.adds_nt.astype(np.float64)),
                expected=odds.expected(score, len(called)),
            )
        )
    return found


def stretches(values: list[float], least: float) -> list[tuple[int, int, float]]:
    """Return (first, one past the last, sum) of the stretches whose sums are at least `least`.

    No stretch begins with values that sum to 0 or less; each ends where its sum is largest. What
    lies behind belongs to it only if the sum grows further before it has lost `least`: that much
    against a virus parts two regions.
    """
    found = []
    first = 0
    while first < len(values):
        total = best = 0.0
        at = last = first
        while at < len(values):
            total += values[at]
            at += 1
            if total > best:
                best, last = total, at
            if total <= 0 or best - total >= least:
                break
        if best >= least:
            found.append((first, last, best))
        first = last if best >= least else at
    return found
