"""Units of labelled contigs: cutting a slice of them, and how often to draw each contig.

A unit is what must never be divided between fitting and judging: a virus family, a genus, a
genome. Size is in bases everywhere. This module knows nothing of files or models.
"""

import hashlib
from collections import defaultdict
from collections.abc import Mapping, Sequence

import numpy as np
from numpy.typing import NDArray

from virnucpro.measure.labels import LabelledContig

Bool = NDArray[np.bool_]
Float64 = NDArray[np.float64]

Stratum = tuple[int, str]
SizesByUnit = dict[str, dict[Stratum, int]]
CALIBRATION_FRACTION = 0.03
# Another than the seeds that cut slices to choose by, so that the two do not take the same units.
CALIBRATION_SEED = 1_500


def held_out_slice(contigs: Sequence[LabelledContig], fraction: float, seed: int = 0) -> Bool:
    """Return a mask (n,) of a slice of about fraction of the bases of each label and group.

    Whole units, chosen by a hash of seed and unit, whatever the order of the contigs. A unit that
    lies in several groups counts with the one that holds most of it. A group of one unit stays
    whole outside; of any other at least one unit is taken and one left.
    """
    if not 0 < fraction < 1:
        raise ValueError(f"the fraction is {fraction}, but must lie between 0 and 1")
    parts: SizesByUnit = defaultdict(lambda: defaultdict(int))
    for contig in contigs:
        parts[contig.unit][(contig.label, contig.group)] += len(contig.sequence)
    taken = held_out_units(parts, fraction, seed)
    return np.fromiter((c.unit in taken for c in contigs), dtype=np.bool_, count=len(contigs))


def held_out_units(
    sizes_by_unit: Mapping[str, Mapping[Stratum, int]], fraction: float, seed: int
) -> set[str]:
    """Return the units of such a slice. sizes_by_unit: of each unit by label and group."""
    strata: dict[Stratum, dict[str, int]] = defaultdict(dict)
    for unit, sizes in sizes_by_unit.items():
        main = min(sizes, key=lambda stratum: (-sizes[stratum], stratum))
        strata[main][unit] = sum(sizes.values())
    return set().union(*(_take(sizes, fraction, seed) for sizes in strata.values()))


def calibration_units(contigs: Sequence[LabelledContig]) -> set[str]:
    """Units of all training contigs that no network is fitted on or chosen by.

    About CALIBRATION_FRACTION of the bases of each label and group, by held_out_slice; the contigs
    must be those of the whole training data, whatever their order.
    """
    held_out = held_out_slice(contigs, CALIBRATION_FRACTION, CALIBRATION_SEED)
    return {c.unit for c, out in zip(contigs, held_out, strict=True) if out}


def contig_weights(
    contigs: Sequence[LabelledContig], *, by_level: bool = False, unit_power: float = 0.5
) -> Float64:
    """Return the share of draws from each contig, (n,), sum 1.

    Labels half and half; within a label, groups by the square root of their size; within a group,
    units by size ** unit_power; within a unit, contigs by size. by_level: each level of a group
    (whole genomes, genes, rRNA) counts as a group. With one label only, that label has everything.
    """
    size = np.fromiter((len(c.sequence) for c in contigs), dtype=np.float64, count=len(contigs))
    label = np.fromiter((c.label for c in contigs), dtype=np.int64, count=len(contigs))
    of_group = [f"{c.label}\t{c.group}\t{c.level if by_level else ''}" for c in contigs]
    group = _numbers(of_group)
    unit = _numbers([f"{g}\t{c.unit}" for g, c in zip(of_group, contigs, strict=True)])
    if not size.sum() > 0:
        raise ValueError("no contig has a base to draw from")
    weight = _shares(size, unit)
    weight *= _power_shares(size, unit, group, unit_power)
    weight *= _power_shares(size, group, label, 0.5)
    weight /= len(np.unique(label[size > 0]))
    return weight


def _take(sizes: dict[str, int], fraction: float, seed: int) -> set[str]:
    """Units in the order of their hash, each where it brings the sum nearer to the fraction."""
    if len(sizes) < 2:
        return set()
    target = fraction * sum(sizes.values())
    taken: set[str] = set()
    total = 0
    for unit in sorted(sizes, key=lambda unit: (_hash(seed, unit), unit)):
        nearer = abs(total + sizes[unit] - target) < abs(total - target)
        if nearer and len(taken) + 1 < len(sizes):
            taken.add(unit)
            total += sizes[unit]
    return taken or {min(sizes, key=lambda unit: (sizes[unit], unit))}


def _hash(seed: int, unit: str) -> bytes:
    return hashlib.sha256(f"{seed}\t{unit}".encode()).digest()


def _numbers(names: Sequence[str]) -> NDArray[np.int64]:
    """Names -> numbers from 0 in the order in which they first occur, (n,)."""
    known: dict[str, int] = {}
    found = (known.setdefault(name, len(known)) for name in names)
    return np.fromiter(found, dtype=np.int64, count=len(names))


def _shares(size: Float64, part_of: NDArray[np.int64]) -> Float64:
    """Each row's share of the size of what it is part of, (n,); 0 where that size is 0."""
    whole = np.bincount(part_of, weights=size)[part_of]
    return np.divide(size, whole, out=np.zeros_like(size), where=whole > 0)


def _power_shares(
    size: Float64, inner: NDArray[np.int64], outer: NDArray[np.int64], power: float
) -> Float64:
    """For each row, the weight of its inner class over the sum of weights in its outer class.

    The weight of a class is its size ** power, and 0 without a base.
    """
    of_inner = np.bincount(inner, weights=size)
    weight = np.where(of_inner > 0, of_inner**power, 0.0)
    _, first = np.unique(inner, return_index=True)
    outer_sum = np.bincount(outer[first], weights=weight)
    total = outer_sum[outer]
    return np.divide(weight[inner], total, out=np.zeros_like(total), where=total > 0)
