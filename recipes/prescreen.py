"""Measures how a bundle does before a larger one, and keeps it in the latter.

Fitted on the units that no network was fitted on, as calibrations are; val is never read.

    python recipes/prescreen.py --data DATA
    python recipes/prescreen.py --data DATA --pair mini-500 OUT/larger-500
"""

import argparse
import sys
from pathlib import Path

import calibrate
from virnucpro.bundle import load
from virnucpro.bundle.write import write_into
from virnucpro.train.prescreen_fit import choices_of, entry_of, look, table_of, with_entry

EMBEDDED = Path(__file__).resolve().parents[1] / "src" / "virnucpro" / "bundles"
PAIRS = (("kmer-500-v1", "mini-500-v2"), ("kmer-300-v1", "mini-300-v2"))
MEASURED_ON = "units of train and more that no network was fitted on or chosen by"


def main(arguments: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument(
        "--bundles", type=Path, default=EMBEDDED, help="folder of the pairs of the recipe"
    )
    parser.add_argument("--pair", nargs=2, help="these two instead: name or folder of each")
    parser.add_argument("--data", type=Path, required=True, help="folder with train, more")
    parser.add_argument("--device", default="cpu")
    parser.add_argument("--per-side", type=int, default=2000)
    options = parser.parse_args(arguments)
    contigs = calibrate.without_rrna(calibrate.calibration_side(options.data))
    own = [[options.bundles / name for name in pair] for pair in PAIRS]
    for pair in [options.pair] if options.pair else own:
        small, large = map(load, pair)
        looked = look(
            small,
            large,
            contigs,
            precision="fp32",
            device=options.device,
            per_side=options.per_side,
            progress=lambda length_nt: print(f"{length_nt} nt", flush=True),
        )
        choices = choices_of(looked, large.threshold)
        entry = entry_of(small, choices, MEASURED_ON, options.per_side)
        made = write_into(large, with_entry(large, entry))
        for row in table_of(choices):
            print(" | ".join(row))
        print(f"{made.name}: {made.sha256}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
