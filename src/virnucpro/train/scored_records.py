"""Windows of labelled sequences and their scores: what calibrations are fitted to and judged by.

Windows are drawn of every length from every unit, so that what is fitted can be balanced by hand:
it is unknown what a sample will hold, see ScoredRecords.weight.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from itertools import pairwise
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from virnucpro.bundle.calibration import LENGTH_EDGES
from virnucpro.measure.accuracy import ScoresChunks, contigs_of_labelled
from virnucpro.measure.labels import LabelledContig

Bool = NDArray[np.bool_]
Float64 = NDArray[np.float64]
Int64 = NDArray[np.int64]

UNNAMED = "others"
_SHORTEST_NT, _LONGEST_CHUNKS = 60, 60.0
_MOST_UNKNOWN = 0.05
_TRIES = 20


class Window(NamedTuple):
    """A stretch of a labelled sequence. first: of its unit in its length bin."""

    contig: LabelledContig
    length_bin: int
    first: bool


@dataclass(frozen=True, slots=True)
class ScoredRecords:
    """Sums over the chunks of r records, as results.contig_calls.Contigs has them, and labels.

    unit, group: (r,) indices; first: (r,) of a unit in its length bin; groups: (r, G).
    """

    evidence: Float64
    called_nt: Float64
    viral: Bool
    unit: Int64
    group: Int64
    first: Bool
    length_bin: Int64
    group_names: tuple[str, ...]
    groups: Float64

    def part(self, kept: NDArray[Any]) -> "ScoredRecords":
        """Some of the records."""
        columns = ("evidence", "called_nt", "viral", "unit", "group", "first", "length_bin")
        return replace(
            self, **{n: getattr(self, n)[kept] for n in columns}, groups=self.groups[kept]
        )

    def by_host(self, hosts: Mapping[str, str]) -> "ScoredRecords":
        """The same records with the groups of others named as hosts; UNNAMED without a name."""
        names = [hosts.get(name, name) or UNNAMED for name in self.group_names]
        known = tuple(sorted(set(names)))
        place = np.array([known.index(name) for name in names], np.int64)
        return replace(self, group=place[self.group], group_names=known)

    @property
    def weight(self) -> Float64:
        """Weight of each record, (r,), mean 1.

        Length bins and labels in them weigh the same, in these every group, in a group every unit.
        """
        side = _classes(self.length_bin, self.viral)
        group = _classes(side, self.group)
        unit = _classes(group, self.unit)
        _, first = np.unique(unit, return_index=True)
        units = np.bincount(group[first])[group]
        return _even(side, 1.0 / (units * np.bincount(unit)[unit]))

    @property
    def even_weight(self) -> Float64:
        """Weight of each record, (r,), mean 1: length bins and labels equal, and all in them."""
        return _even(_classes(self.length_bin, self.viral), np.ones(len(self.viral)))


def _classes(outer: NDArray[Any], inner: NDArray[Any]) -> Int64:
    """Numbers from 0 of the pairs of two columns, (r,)."""
    pairs = outer.astype(np.int64) * (int(inner.max(initial=0)) + 1) + inner.astype(np.int64)
    return np.unique(pairs, return_inverse=True)[1].astype(np.int64)


def _even(side: Int64, weight: Float64) -> Float64:
    """Weights scaled so that each side has the same sum, and all together the mean 1."""
    even = weight / np.bincount(side, weights=weight)[side]
    scaled: Float64 = even * len(even) / max(even.sum(), 1e-300)
    return scaled


def windows_of(
    contigs: Sequence[LabelledContig],
    chunk_nt: int,
    *,
    a_unit: int = 25,
    most: int = 400,
    seed: int = 0,
) -> list[Window]:
    """Draw windows of every length bin from every unit that reaches it.

    Lengths are drawn evenly by their logarithm. most: windows of a group in a length bin, its units
    by turns, and at most a_unit of each; of long ones fewer, by the square root of their chunks.
    Where a group has more units, each has one.
    """
    rng = np.random.default_rng(seed)
    units: dict[tuple[int, str, str], list[LabelledContig]] = {}
    for contig in contigs:
        if len(contig.sequence) >= _SHORTEST_NT:
            key = contig.label, contig.group, contig.unit
            units.setdefault(key, []).append(contig)
    groups: dict[tuple[int, str], list[list[LabelledContig]]] = {}
    for (label, group, _), members in sorted(units.items()):
        groups.setdefault((label, group), []).append(members)
    edges = [_SHORTEST_NT / chunk_nt, *LENGTH_EDGES, _LONGEST_CHUNKS]
    windows: list[Window] = []
    for of_group in groups.values():
        for b, (low, high) in enumerate(pairwise(edges)):
            room = int(most / np.sqrt(max(1.0, low)))
            order = [of_group[i] for i in rng.permutation(len(of_group))]
            for turn in range(a_unit):
                drawn = [_window(m, low * chunk_nt, high * chunk_nt, rng) for m in order]
                windows += [Window(found, b, turn == 0) for found in drawn if found is not None]
                order = [m for m, found in zip(order, drawn, strict=True) if found is not None]
                room -= len(order)
                if room <= 0 or not order:
                    break
                rng.shuffle(order)
                order = order[:room]
    return windows


def _window(
    members: Sequence[LabelledContig], low_nt: float, high_nt: float, rng: np.random.Generator
) -> LabelledContig | None:
    """A window of a unit of a length in [low_nt, high_nt); None where no contig is that long."""
    long_enough = [contig for contig in members if len(contig.sequence) >= low_nt]
    if not long_enough:
        return None
    size = np.array([len(contig.sequence) for contig in long_enough], np.float64)
    for _ in range(_TRIES):
        contig = long_enough[int(rng.choice(len(size), p=size / size.sum()))]
        top = min(high_nt, len(contig.sequence) + 1)
        length = int(np.exp(rng.uniform(np.log(np.ceil(low_nt)), np.log(top))))
        length = min(max(length, int(np.ceil(low_nt))), len(contig.sequence))
        start = int(rng.integers(0, len(contig.sequence) - length + 1))
        sequence = contig.sequence[start : start + length]
        if len(sequence.translate(None, b"ACGT")) <= _MOST_UNKNOWN * length:
            return replace(contig, sequence=sequence)
    return None


def score_records(
    classifier: ScoresChunks,
    windows: Sequence[Window],
    chunk_nt: int,
    progress: Callable[[int], None] | None = None,
) -> ScoredRecords:
    """Scores of windows; windows without a called chunk are left out."""
    sums = contigs_of_labelled(
        classifier, [window.contig for window in windows], chunk_nt, progress
    )
    names = tuple(sorted({window.contig.group for window in windows}))
    of_unit: dict[str, int] = {}
    unit = [of_unit.setdefault(window.contig.unit, len(of_unit)) for window in windows]
    found = ScoredRecords(
        evidence=sums.evidence,
        called_nt=sums.called_nt,
        viral=np.array([window.contig.label == 1 for window in windows], np.bool_),
        unit=np.array(unit, np.int64),
        group=np.array([names.index(window.contig.group) for window in windows], np.int64),
        first=np.array([window.first for window in windows], np.bool_),
        length_bin=np.digitize(sums.called_nt / chunk_nt, LENGTH_EDGES),
        group_names=names,
        groups=sums.groups,
    )
    return found.part(sums.called_nt > 0)
