"""Makes the embedded bundles mini-500-v2 and mini-300-v2, and their k-mer baseline.

Parts, in order: train (two families of a network and some that go on from its weights, each where
it was stopped, and the mean of these), kmer (the baseline), bundle (the directories), protein_kmers
(what a bundle remembers of the sequences), second (the network that it asks where it is unsure),
card (what val says of them, written into bundle.toml), robustness (what errors of sequencing cost,
likewise), calibration, prescreen (how the baseline does before a network), and compare (exit code 1
unless the AUROC is that of the embedded bundles to within noise). Each runs alone with --only. The
embedded bundles have no second network yet.
"""

import argparse
import sys
from collections.abc import Callable
from pathlib import Path

import calibrate
import measures
import networks
import prescreen
import protein_kmers
import robustness
import second_opinion
from sides import CHUNKS_NT, SHORTEST_NT, train_side
from virnucpro.bundle import load
from virnucpro.train.encoder_fit import write_chunk_bundle
from virnucpro.train.kmer_fit import KmerSettings, fit_kmer, write_kmer_bundle

DESCRIPTION = (
    "Codon network trained from scratch on public genomes, and protein k-mers of these; not the "
    "published VirNucPro model. Tells viral from other DNA, names no taxa."
)
# Of AUROC on the fixed fragments: about what networks of other seeds and sizes differ by.
NOISE = 0.01


def write(options: argparse.Namespace) -> None:
    """Writes the bundles of the mean, still without a card."""
    fit = networks.trained(options, networks.MEAN)
    for chunk_nt in CHUNKS_NT:
        name = f"mini-{chunk_nt}-v2"
        bundle = write_chunk_bundle(
            options.out / name,
            fit,
            name=name,
            description=DESCRIPTION,
            chunk_nt=chunk_nt,
            validated_nt=SHORTEST_NT,
        )
        print(f"wrote {bundle.path}")


def remember(options: argparse.Namespace) -> None:
    """Adds the protein k-mers of what they were trained on to the bundles."""
    paths = [str(options.out / f"mini-{chunk_nt}-v2") for chunk_nt in CHUNKS_NT]
    protein_kmers.main([*paths, "--data", str(options.data), "--device", options.device])


def ask_second(options: argparse.Namespace) -> None:
    """Adds the second network to the bundles."""
    second_opinion.add(
        [load(options.out / f"mini-{chunk_nt}-v2") for chunk_nt in CHUNKS_NT],
        networks.trained(options, networks.SECOND),
        options.data,
        options.device,
    )


def write_kmer(options: argparse.Namespace) -> None:
    """Fits the k-mer baseline, on train alone as ever, and writes its bundles."""
    labelled = train_side(options.data, ("train",))
    fitted = fit_kmer(labelled.contigs, options.kmer, labelled.sha256)
    for chunk_nt in CHUNKS_NT:
        name = f"kmer-{chunk_nt}-v1"
        bundle = write_kmer_bundle(
            options.out / name,
            fitted,
            name=name,
            description="Logistic regression on k-mers: the baseline, fast and weak.",
            chunk_nt=chunk_nt,
            validated_nt=SHORTEST_NT,
        )
        print(f"wrote {bundle.path}")


def measure_robustness(options: argparse.Namespace) -> None:
    """Adds to the cards what errors of sequencing, chimeras and shorter reads cost."""
    for chunk_nt in CHUNKS_NT:
        bundle = load(options.out / f"mini-{chunk_nt}-v2")
        robustness.keep(bundle, options.data, options.device, options.per_side)


def calibrated(options: argparse.Namespace) -> None:
    """Fits the calibration of each bundle."""
    paths = [str(options.out / f"mini-{chunk_nt}-v2") for chunk_nt in CHUNKS_NT]
    calibrate.main([*paths, "--data", str(options.data), "--device", options.device])


def prescreened(options: argparse.Namespace) -> None:
    """Measures how the baseline does before each bundle."""
    out, data = str(options.out), str(options.data)
    prescreen.main(["--bundles", out, "--data", data, "--device", options.device])


def compare(options: argparse.Namespace) -> None:
    """Compares the cards with those of the embedded bundles."""
    apart = []
    for chunk_nt in CHUNKS_NT:
        name = f"mini-{chunk_nt}-v2"
        own, theirs = (load(b).card["fixed_fragments"] for b in (options.out / name, name))
        for metric in ("auroc", "recall_at_1pct_fpr"):
            print(f"{name}: {metric} {own.get(metric)}, of the embedded one {theirs[metric]}")
        if abs(own["auroc"] - theirs["auroc"]) > NOISE:
            apart.append(name)
    if apart:
        raise SystemExit(f"further than {NOISE:g} from the embedded one: {', '.join(apart)}")


PARTS: dict[str, Callable[[argparse.Namespace], None]] = {
    "train": networks.train,
    "kmer": write_kmer,
    "bundle": write,
    "protein_kmers": remember,
    "second": ask_second,
    "card": measures.measure,
    "robustness": measure_robustness,
    "calibration": calibrated,
    "prescreen": prescreened,
    "compare": compare,
}


def main(arguments: list[str] | None = None) -> int:
    """Runs the parts that --only names, or all."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument(
        "--data", type=Path, required=True, help="folder with README.md, train, val"
    )
    parser.add_argument("--out", type=Path, required=True, help="where weights and bundles go")
    parser.add_argument("--work", type=Path, help="state of the training (default: OUT/training)")
    parser.add_argument("--device", default="cpu", help="cpu, cuda:0")
    parser.add_argument("--only", choices=PARTS)
    parser.add_argument(
        "--network", choices=networks.NETWORKS, help="train this one alone, with --only train"
    )
    parser.add_argument("--steps", type=int, help="fewer than the recipe has, to try it out")
    parser.add_argument("--max-minutes", type=float, help="stop then; the same command goes on")
    parser.add_argument("--per-side", type=int, default=1000, help="fragments at each length")
    options = parser.parse_args(arguments)
    if options.network and options.only != "train":
        parser.error("--network needs --only train")
    options.work = options.work or options.out / "training"
    options.kmer = KmerSettings()
    for name, part in PARTS.items():
        if options.only in (None, name):
            part(options)
    return 0


if __name__ == "__main__":
    sys.exit(main())
