"""A network of three times the parameters, to measure how the embedded bundles do before it.

    python recipes/larger.py --data DATA --out OUT --device cuda:0
    python recipes/protein_kmers.py OUT/larger-500 --data DATA
    python recipes/prescreen.py --data DATA --pair mini-500 OUT/larger-500
    python bench/cascade.py OUT/larger-500 mini-500 --data DATA

It is fitted on what the embedded bundles are fitted on, and goes on where it was stopped.
"""

import argparse
import sys
from dataclasses import replace
from pathlib import Path

import networks
import sides
from virnucpro.train.encoder_fit import fit_encoder, write_chunk_bundle

NAME = "larger-500"
LARGER = replace(
    networks.PLAIN,
    network=replace(networks.NETWORK, channels=(96, 192), blocks=(1, 3), attention=("frame",) * 3),
    steps=9500,
    unit_power=0.25,
    slice_seed=networks.PLAIN.seed,
    evaluate_every=1900,
    seed=1,
)


def main(arguments: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--data", type=Path, required=True, help="folder with train and more")
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--device", default="cpu")
    parser.add_argument("--steps", type=int, default=LARGER.steps)
    parser.add_argument("--max-minutes", type=float, help="stop the training then")
    options = parser.parse_args(arguments)

    labelled = sides.train_side(options.data)
    fit = fit_encoder(
        sides.fitting_side(labelled.contigs),
        replace(LARGER, steps=options.steps),
        options.device,
        options.out / "training",
        networks.teller(NAME),
        data_sha256=labelled.sha256,
        max_minutes=options.max_minutes,
    )
    if not fit.finished:
        raise SystemExit(f"time is up; the same command goes on from {fit.state}")
    bundle = write_chunk_bundle(
        options.out / NAME,
        fit,
        name=NAME,
        description="A larger codon network, for measuring a prescreen before it only.",
        chunk_nt=max(sides.CHUNKS_NT),
        validated_nt=sides.SHORTEST_NT,
    )
    print(f"wrote {bundle.path}: {fit.record['parameters']} parameters, {fit.record['seconds']} s")
    return 0


if __name__ == "__main__":
    sys.exit(main())
