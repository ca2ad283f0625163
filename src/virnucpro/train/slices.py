"""Labelled contigs parted by unit: what is fitted on, and the slice that judges the fits."""

import hashlib
from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from virnucpro.errors import InputError
from virnucpro.measure.labels import LabelledContig
from virnucpro.train.units import held_out_slice

Bool = NDArray[np.bool_]


def judging_slice(
    contigs: Sequence[LabelledContig], fraction: float, seed: int, chooses: str
) -> Bool:
    """Which contigs (n,) are held out, see held_out_slice; chooses: what for, in words.

    Raises InputError unless both parts have viral and other contigs.
    """
    held_out = held_out_slice(contigs, fraction, seed)
    for part, what in zip(
        parted(contigs, held_out), ("fitting", f"the slice that chooses {chooses}"), strict=True
    ):
        if {contig.label for contig in part if contig.sequence} != {0, 1}:
            raise InputError(
                f"{what} needs viral and other contigs; give both, each of two units or more"
            )
    return held_out


def parted(
    contigs: Sequence[LabelledContig], held_out: Bool
) -> tuple[list[LabelledContig], list[LabelledContig]]:
    """The contigs to fit on, and those that are held out."""
    pairs = list(zip(contigs, held_out, strict=True))
    return [c for c, out in pairs if not out], [c for c, out in pairs if out]


def described(contigs: Sequence[LabelledContig]) -> dict[str, int]:
    """Their numbers for a training record."""
    return {
        "contigs": len(contigs),
        "bases": sum(len(contig.sequence) for contig in contigs),
        "units": len({contig.unit for contig in contigs}),
    }


def contigs_digest(contigs: Sequence[LabelledContig]) -> str:
    """sha256 over label, name, group, unit, stated frames and letters of every contig, in order."""
    digest = hashlib.sha256()
    for c in contigs:
        head = f"{c.label}\t{c.name}\t{c.group}\t{c.unit}\t{len(c.sequence)}"
        digest.update(f"{head}\t{c.frames}\n".encode() if c.frames else f"{head}\n".encode())
        digest.update(c.sequence)
    return digest.hexdigest()
