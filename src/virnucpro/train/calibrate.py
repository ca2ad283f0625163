"""A bundle and windows of labelled sequences -> a copy of the bundle with a calibration."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np

from virnucpro.bundle.calibration import CALIBRATION, Calibration
from virnucpro.bundle.manifest import Bundle, table_of
from virnucpro.bundle.write import write_copy
from virnucpro.classifiers.model import PROTEIN_KMERS
from virnucpro.errors import InputError
from virnucpro.train.calibration_fit import fit_calibration, measured_of
from virnucpro.train.scored_records import ScoredRecords, Window, score_records

# Of this share of the units of each label it is measured how good a calibration is.
MEASURED_SHARE = 0.2
FEWEST_UNITS = 10
MOST_GROUPS = 200  # groups are numbered in a byte


def calibration_of(
    bundle: Bundle,
    windows: Sequence[Window],
    precision: str = "auto",
    *,
    seed: int = 0,
    progress: Callable[[int], None] | None = None,
) -> Calibration:
    """Fit a calibration of a bundle.

    A fifth of the units, by turns, measures one that was fitted on the others; the one that is
    returned was fitted on all. Raises InputError for too few units and too many groups, before
    anything is scored, and for too few units that have a score.
    """
    for label, name in ((1, "viral"), (0, "other")):
        of_label = [window.contig for window in windows if window.contig.label == label]
        _check_number(len({contig.unit for contig in of_label}), name)
    if (groups := len({contig.group for contig in of_label})) > MOST_GROUPS:
        raise InputError(
            f"the other sequences are of {groups:,} groups, and a calibration holds up to "
            f"{MOST_GROUPS}; put what tells them apart into the column unit"
        )
    classifier = of_unknown_hosts(bundle).classifier(precision=precision)
    records = score_records(classifier, windows, bundle.chunk_nt, progress)
    measured = _measured_units(records, seed)
    first = fit_calibration(records.part(~measured), bundle.chunk_nt, seed)
    on = f"{len(np.unique(records.unit[measured])):,} units, held out from a first fit"
    return replace(
        fit_calibration(records, bundle.chunk_nt, seed),
        measured=measured_of(records.part(measured), first, on),
    )


def lengths_without_data(calibration: Calibration) -> str:
    """Say which lengths of records a calibration was not fitted on; empty if there are none."""
    names = calibration.bin_names()
    if not (lengths := ", ".join(names[b] for b in calibration.unfitted_bins())):
        return ""
    return (
        f"no viral sequence, or no other, has these lengths: {lengths}; scores of such records "
        "are extrapolated, so give longer sequences of both sides if a sample has some"
    )


def of_unknown_hosts(bundle: Bundle) -> Bundle:
    """The bundle without what its protein k-mers know of others.

    Others to calibrate on may have relatives among what a bundle remembers, and hosts of a sample
    none: a calibration that counted on being told of them would promise too much.
    """
    if PROTEIN_KMERS not in bundle.parts:
        return bundle
    part = bundle.part(PROTEIN_KMERS)
    weights = {**table_of(part, "weights"), "others": [0.0]}
    return replace(bundle, parts={**bundle.parts, PROTEIN_KMERS: {**part, "weights": weights}})


def _measured_units(records: ScoredRecords, seed: int) -> "np.typing.NDArray[np.bool_]":
    """Which records, (r,), belong to the fifth of the units of each label."""
    rng = np.random.default_rng(seed)
    chosen: list[int] = []
    for side, name in ((records.viral, "viral"), (~records.viral, "other")):
        units = np.unique(records.unit[side])
        _check_number(len(units), name)
        chosen += rng.permutation(units)[: max(1, round(MEASURED_SHARE * len(units)))].tolist()
    return np.isin(records.unit, chosen)


def _check_number(units: int, name: str) -> None:
    """Raise InputError for too few units."""
    if units < FEWEST_UNITS:
        raise InputError(
            f"a calibration needs {FEWEST_UNITS} units or more of {name} sequences that can be "
            f"scored, and there are {units}; give more (each is a unit of its own, unless the "
            "table beside them has a column unit)"
        )


def calibrated_copy(
    bundle: Bundle,
    out: Path,
    name: str,
    calibration: Calibration,
    data_sha256: Mapping[str, str],
) -> Bundle:
    """Write a copy of a bundle with a calibration; encoders that it names stay where they are.

    data_sha256: of the files that it was fitted on. Raises BundleError.
    """
    part = {**calibration.part(), "data": dict(data_sha256)}
    changes = {"name": name, "calibration": part}
    return write_copy(bundle, out, changes, {CALIBRATION: calibration.arrays()})
