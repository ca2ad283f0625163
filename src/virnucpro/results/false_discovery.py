"""Scores of records and of negatives -> q-values, in memory that does not grow with the sample.

Conformal p-values: p(s) = (1 + #{N >= s}) / (1 + |N|) with N the negatives of the record's length
bin (Vovk, Gammerman and Shafer 2005; for outliers Bates et al., Annals of Statistics 2023). As p
takes |N| + 1 values a bin, a sample is counted by these, and Benjamini and Hochberg's procedure
(1995) runs on the counts. Where a null stands for hosts of other units than the sample's, p is at
least what hosts of a few units stay below. This module knows no file and no bundle.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

Float64 = NDArray[np.float64]
Int64 = NDArray[np.int64]

MIXTURE, WORST, OWN = "mixture", "worst", "null: your own"
# A group of fewer negatives in a length bin is judged with all others together: alone, it could
# never tell a q-value that anybody asks for.
FEWEST = 100


@dataclass(frozen=True, slots=True)
class Null:
    """Scores of negatives of one kind, ascending, by length bin."""

    by_bin: tuple[Float64, ...]

    @classmethod
    def of(cls, score: Float64, length_bin: NDArray[np.integer], bins: int) -> "Null":
        """Return the null of n negatives; score, length_bin: (n,)."""
        return cls(tuple(np.sort(score[length_bin == b]) for b in range(bins)))

    @classmethod
    def joined(cls, nulls: Sequence["Null"]) -> "Null":
        """Return the negatives of several nulls together."""
        bins = zip(*(null.by_bin for null in nulls), strict=True)
        return cls(tuple(np.sort(np.concatenate(parts)) for parts in bins))

    def __len__(self) -> int:
        return sum(map(len, self.by_bin))

    def p_values(self, length_bin: int, score: Float64) -> Float64:
        """p of scores in one length bin, (n,)."""
        negatives = self.by_bin[length_bin]
        above = len(negatives) - np.searchsorted(negatives, score, side="left")
        p: Float64 = np.asarray((1.0 + above) / (1.0 + len(negatives)), np.float64)
        return p


@dataclass(frozen=True, slots=True)
class Bound:
    """Least p-values, by length bin: share[k] up to by_bin[k], the last above all of by_bin."""

    by_bin: tuple[Float64, ...]
    share: tuple[Float64, ...]

    @classmethod
    def of(cls, parts: Sequence[tuple[Float64, Float64]]) -> "Bound":
        """Return a bound by (scores, shares) of each length bin, as bundle.calibration has them."""
        return cls(
            tuple(score[:-1] for score, _ in parts),
            tuple(share if len(share) else np.zeros(1) for _, share in parts),
        )

    def p_values(self, length_bin: int, score: Float64) -> Float64:
        """Least p of scores in one length bin, (n,)."""
        place = np.searchsorted(self.by_bin[length_bin], score, side="left")
        found: Float64 = self.share[length_bin][place]
        return found


@dataclass(frozen=True, slots=True)
class Steps:
    """The places where p-values change: scores, ascending, by length bin.

    A score in (edge[j - 1], edge[j]] is on step j; one above all edges on the last. Scores on one
    step have the same p-value under every null that the steps were made of.
    """

    edges: tuple[Float64, ...]

    @classmethod
    def of(cls, nulls: Sequence[Null | Bound]) -> "Steps":
        """Return the steps of several nulls and bounds together."""
        bins = zip(*(null.by_bin for null in nulls), strict=True)
        return cls(tuple(np.unique(np.concatenate(parts)) for parts in bins))

    def step(self, length_bin: Int64, score: Float64) -> Int64:
        """The step of each of r scores, (r,)."""
        found = np.zeros(len(score), np.int64)
        for b, edges in enumerate(self.edges):
            here = length_bin == b
            found[here] = np.searchsorted(edges, score[here], side="left")
        return found

    def zeros(self) -> list[Int64]:
        """Return counts that are all zero, by length bin and step."""
        return [np.zeros(len(edges) + 1, np.int64) for edges in self.edges]

    def p_values(self, null: Null | Bound) -> list[Float64]:
        """p under a null, or least p under a bound, by length bin and step."""
        return [null.p_values(b, np.append(edges, np.inf)) for b, edges in enumerate(self.edges)]


def mixture(p_values: Mapping[str, list[Float64]], weights: Mapping[str, float]) -> list[Float64]:
    """p under a mixture of nulls; weights need not sum to 1."""
    total = sum(weights.values())
    bins = len(next(iter(p_values.values())))
    return [
        np.sum([p_values[name][b] * weight / total for name, weight in weights.items()], axis=0)
        for b in range(bins)
    ]


def worst(p_values: Sequence[list[Float64]]) -> list[Float64]:
    """The largest p under any of several nulls."""
    return [np.max(parts, axis=0) for parts in zip(*p_values, strict=True)]


def worst_of_groups(
    steps: Steps, groups: Mapping[str, Null], everything: Null | None = None
) -> list[Float64]:
    """The largest p under any group, by length bin and step.

    A group of fewer than FEWEST negatives in a length bin stands there for nothing by itself: all
    groups together are a null like any other, and where these are too few as well, everything is.
    """
    together = Null.joined([*groups.values()])
    found = steps.p_values(together)
    if everything is not None:
        of_all = steps.p_values(everything)
        few = [len(negatives) < FEWEST for negatives in together.by_bin]
        found = [a if too_few else p for p, a, too_few in zip(found, of_all, few, strict=True)]
    for null in groups.values():
        of_group = steps.p_values(null)
        for b, negatives in enumerate(null.by_bin):
            if len(negatives) >= FEWEST:
                found[b] = np.maximum(found[b], of_group[b])
    return found


def q_values(p_values: Sequence[Float64], counts: Sequence[Int64]) -> list[Float64]:
    """Benjamini and Hochberg's q by length bin and step: the least rate at which it is called.

    p_values, counts: of the records of the sample, by length bin and step.
    """
    p, n = np.concatenate(p_values), np.concatenate(counts)
    values, place = np.unique(p, return_inverse=True)
    called = np.cumsum(np.bincount(place, weights=n, minlength=len(values)))
    records = called[-1] if len(called) else 0
    rate = np.full(len(values), np.inf)
    np.divide(values * records, called, out=rate, where=called > 0)
    q = np.minimum(np.minimum.accumulate(rate[::-1])[::-1], 1.0)[place]
    ends = np.cumsum([len(part) for part in p_values])
    return np.split(q, ends[:-1])


@dataclass(frozen=True, slots=True)
class Resolution:
    """The resolution that a null has for a sample.

    records: of the sample; smallest_q: of any of these; best: records that have it; reached: the
    largest p of these; floor: the smallest of its length bin. So no q is below floor * records /
    best. Both are 1 where no negative has the length of a record.
    """

    floor: float
    reached: float
    best: int
    records: int
    smallest_q: float

    @classmethod
    def of(cls, p_values: Sequence[Float64], counts: Sequence[Int64]) -> "Resolution":
        """Return the resolution of a null for a sample, by length bin and step."""
        pairs = [(p, n) for p, n in zip(p_values, counts, strict=True) if n.sum()]
        if not pairs:
            return cls(1.0, 1.0, 0, 0, 0.0)
        told = q_values([p for p, _ in pairs], [n for _, n in pairs])
        smallest = min(float(q[n > 0].min()) for q, (_, n) in zip(told, pairs, strict=True))
        best, ends = 0, []
        for q, (p, n) in zip(told, pairs, strict=True):
            has = (q <= smallest) & (n > 0)
            best += int(n[has].sum())
            if has.any():
                ends.append((float(p[has].max()), float(p[-1])))
        reached, floor = max((e for e in ends if e[1] < 1), default=(1.0, 1.0))
        return cls(floor, reached, best, sum(int(n.sum()) for _, n in pairs), smallest)
