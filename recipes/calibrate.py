"""Fits the calibration of an embedded bundle on the units that no network was fitted on.

val chooses the threshold of origins and measures the rest; it is never fitted on. What was measured
stands in the table [calibration] of the bundle's manifest.
"""

import argparse
import sys
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import sides
from virnucpro.bundle.calibration import CALIBRATION, Calibration
from virnucpro.bundle.manifest import Bundle, read_bundle
from virnucpro.bundle.write import write_into
from virnucpro.measure.labels import LabelledContig, read_two_sided
from virnucpro.train.calibrate import of_unknown_hosts
from virnucpro.train.calibration_fit import fit_calibration, measured_of
from virnucpro.train.origin_fit import confusion_of, fit_origin, precision_of, with_threshold
from virnucpro.train.scored_records import ScoredRecords, score_records, windows_of
from virnucpro.train.units import calibration_units

# What a user would call the others that the groups of the data stand for.
HOSTS = {
    "prokaryote_unresolved": "bacteria",
    "plasmid": "bacteria",
    "mobile_element": "bacteria",
    "fungi_protozoa": "fungi",
    "eukaryote_unresolved": "protozoa",
}
ORIGINS = {"plasmid": "bacteria", "mobile_element": "bacteria"}
STANDS_FOR = {name: tuple(groups) for name, groups in sides.UNRESOLVED}


def calibration_side(data: Path) -> list[LabelledContig]:
    """The contigs of units that no network saw, without prophages."""
    contigs = sides.train_side(data).contigs
    apart = calibration_units(contigs)
    held_out = [contig for contig in contigs if contig.unit in apart]
    return sides.without_stretches(held_out, sides.read_stretches(sides.PROPHAGES))


def without_rrna(contigs: Sequence[LabelledContig]) -> list[LabelledContig]:
    """The contigs that are not ribosomal RNA.

    A third of the calibration units are rRNA, which looks less viral than anything else and is
    rare in samples: with it, too few calls would be expected to be wrong.
    """
    return [contig for contig in contigs if contig.level != "rRNA"]


def scored(
    bundle: Bundle, contigs: Sequence[LabelledContig], options: argparse.Namespace
) -> ScoredRecords:
    """Windows of every length, scored."""
    windows = windows_of(contigs, bundle.chunk_nt, most=options.most, a_unit=options.a_unit)
    bases = sum(len(window.contig.sequence) for window in windows)
    print(f"{bundle.name}: {len(windows):,} windows, {bases / 1e6:.1f} Mb", flush=True)
    classifier = bundle.classifier(options.device, options.precision)
    return score_records(classifier, windows, bundle.chunk_nt)


def calibrate(bundle: Bundle, options: argparse.Namespace) -> Calibration:
    """Fits on the calibration units, and measures on val."""
    hosts_unknown = of_unknown_hosts(bundle)
    fitting = scored(hosts_unknown, without_rrna(calibration_side(options.data)), options)
    calibration = fit_calibration(fitting, bundle.chunk_nt, hosts=HOSTS)
    folder = options.data / "val"
    val = read_two_sided([folder / "viral.fasta.gz"], [folder / "nonviral.fasta.gz"])
    judging = scored(bundle, val.contigs, options)
    measured: dict[str, Any] = measured_of(judging, calibration, "val")
    if groups := tuple(bundle.part("codon").get("groups", ())):
        origin = fit_origin(fitting, groups, ORIGINS, STANDS_FOR)
        origin = with_threshold(origin, judging, STANDS_FOR)
        precision, told = precision_of(origin, judging, STANDS_FOR)
        calibration = replace(calibration, origin=origin)
        measured |= {
            "origin_precision": round(precision, 4),
            "origin_told": round(told, 4),
            "origin_confusion": [
                {"group": name, **row}
                for name, row in confusion_of(origin, judging, STANDS_FOR).items()
            ],
        }
    return replace(calibration, measured=measured)


def keep(bundle: Bundle, calibration: Calibration) -> None:
    """Writes the calibration into the bundle."""
    changes, files = {"calibration": calibration.part()}, {CALIBRATION: calibration.arrays()}
    made = write_into(bundle, changes, files)
    print(f"{made.name}: {made.sha256}, threshold {calibration.threshold}")


def main(arguments: list[str] | None = None) -> int:
    """Calibrates each bundle that is named."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("bundles", nargs="+", type=Path)
    parser.add_argument("--data", type=Path, required=True, help="folder with train, more, val")
    parser.add_argument("--device", default="cpu")
    parser.add_argument("--precision", default="fp32")
    parser.add_argument("--most", type=int, default=400, help="windows of a group and length")
    parser.add_argument("--a-unit", type=int, default=25, help="windows of a unit and length")
    options = parser.parse_args(arguments)
    for path in options.bundles:
        bundle = read_bundle(path)
        keep(bundle, calibrate(bundle, options))
    return 0


if __name__ == "__main__":
    sys.exit(main())
