"""Fragments of one length, drawn evenly from the groups and units of labelled contigs."""

from collections.abc import Iterator, Sequence
from dataclasses import replace

import numpy as np

from virnucpro.measure.labels import LabelledContig

MOST_UNKNOWN = 0.05
DRAWS_BEFORE_GIVING_UP = 50
COMPLEMENT = bytes.maketrans(b"ACGT", b"TGCA")
ACGT = b"ACGT"


def fragments_at(
    contigs: Sequence[LabelledContig], length_nt: int, per_side: int, seed: int = 0
) -> list[LabelledContig]:
    """About per_side fragments of length_nt from the contigs of each label.

    The same share for every group of a label, round-robin over the units of a group (in an order
    drawn by the seed), within a unit every start equally likely, a random strand; no start twice
    on a contig and at most 5 % of letters other than A, C, G, T. A group without a contig of that
    length has no fragment, and its share goes to the others; one that runs out of new starts gives
    fewer. Named f<length>_<number>.
    """
    rng = np.random.default_rng([seed, length_nt])
    fragments: list[LabelledContig] = []
    for label in (1, 0):
        long_enough = [c for c in contigs if c.label == label and len(c.sequence) >= length_nt]
        groups: dict[str, list[LabelledContig]] = {}
        for contig in long_enough:
            groups.setdefault(contig.group, []).append(contig)
        for place, group in enumerate(sorted(groups)):
            share = per_side // len(groups) + (place < per_side % len(groups))
            for contig, sequence in _drawn(groups[group], length_nt, share, rng):
                name = f"f{length_nt}_{len(fragments) + 1}"
                fragments.append(_named(contig, name, sequence))
    return fragments


def _drawn(
    contigs: list[LabelledContig], length_nt: int, count: int, rng: np.random.Generator
) -> Iterator[tuple[LabelledContig, bytes]]:
    """Fragments of one group, its units in turn; a unit that gives nothing new is left out."""
    units: dict[str, list[LabelledContig]] = {}
    for contig in contigs:
        units.setdefault(contig.unit, []).append(contig)
    names = sorted(units)
    turn = [units[names[i]] for i in rng.permutation(len(names))]
    used: set[tuple[str, int]] = set()
    while count > 0 and turn:
        for unit in list(turn):
            found = _new_fragment(unit, length_nt, used, rng)
            if found is None:
                turn.remove(unit)
                continue
            yield found
            count -= 1
            if count == 0:
                return


def _new_fragment(
    unit: list[LabelledContig],
    length_nt: int,
    used: set[tuple[str, int]],
    rng: np.random.Generator,
) -> tuple[LabelledContig, bytes] | None:
    starts = np.cumsum([len(contig.sequence) - length_nt + 1 for contig in unit])
    for _ in range(DRAWS_BEFORE_GIVING_UP):
        behind = int(rng.integers(1, starts[-1] + 1))
        place = int(np.searchsorted(starts, behind))
        contig, start = unit[place], int(starts[place]) - behind
        sequence = contig.sequence[start : start + length_nt]
        unknown = len(sequence.translate(None, ACGT))
        if (contig.name, start) in used or unknown > MOST_UNKNOWN * length_nt:
            continue
        used.add((contig.name, start))
        flip = rng.random() < 0.5
        return contig, sequence.translate(COMPLEMENT)[::-1] if flip else sequence
    return None


def _named(contig: LabelledContig, name: str, sequence: bytes) -> LabelledContig:
    return replace(contig, name=name, sequence=sequence)
