"""Adds to the embedded bundles the protein k-mers of what they were trained on.

    python recipes/protein_kmers.py OUT/mini-500-v2 OUT/mini-300-v2 --data DATA

Filters hold k-mers of all units that the network was fitted on and chosen by; their weights are
fitted on the units that it was chosen by, before these are added. Neither val nor a calibration
unit is read. Bundles of one network get the same. What was measured of a bundle before (card,
calibration, prescreen) is stale then.
"""

import argparse
import json
import sys
from collections.abc import Sequence
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

import networks
import sides
from virnucpro.bundle.manifest import Bundle, read_bundle
from virnucpro.classifiers.protein_kmers import PROTEIN_KMERS
from virnucpro.classifiers.whole_chunks import CODON_WEIGHTS
from virnucpro.measure.labels import LabelledContig
from virnucpro.train.protein_kmers_fit import (
    FittedKmers,
    KmerSettings,
    UnitKmers,
    fit_protein_kmers,
    keep_protein_kmers,
)

# The slice by which the network was chosen.
SETTINGS = KmerSettings(seed=networks.PLAIN.cut_by, slice_fraction=networks.PLAIN.slice_fraction)


def fit(
    bundle: Bundle,
    contigs: Sequence[LabelledContig],
    device: str,
    units: Sequence[UnitKmers] | None = None,
) -> FittedKmers:
    """Fits the k-mers of a bundle that has none yet; units: those of the contigs, if known."""
    classifier = bundle.classifier(device, "fp32")

    def tell(done: int, units: int) -> None:
        if done % 2000 == 0 or done == units:
            print(f"{done:,} of {units:,} units", flush=True)

    def p_virus(texts: Sequence[str]) -> NDArray[np.float64]:
        return np.asarray(classifier.score(texts).p_virus)

    return fit_protein_kmers(contigs, p_virus, SETTINGS, tell, units=units)


def main(arguments: list[str] | None = None) -> int:
    """Fits the k-mers of the network of these bundles, and writes them into each."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("bundles", nargs="+", type=Path)
    parser.add_argument("--data", type=Path, required=True, help="folder with train, more")
    parser.add_argument("--device", default="cpu", help="for the network: cpu, cuda:0")
    options = parser.parse_args(arguments)
    bundles = [read_bundle(path) for path in options.bundles]
    for bundle in bundles:
        if PROTEIN_KMERS in bundle.parts:
            raise SystemExit(f"{bundle.path}: has protein k-mers already; make the bundle again")
    if len({bundle.files[CODON_WEIGHTS] for bundle in bundles}) != 1:
        raise SystemExit("the bundles hold different networks; name them apart")
    contigs = sides.fitting_side(sides.train_side(options.data).contigs)
    fitted = fit(bundles[0], contigs, options.device)
    print(json.dumps({name: fitted.part[name] for name in ("weights", "training")}))
    for bundle in bundles:
        made = keep_protein_kmers(bundle, fitted)
        print(f"{made.name}: {made.sha256}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
