"""How well the recipe generalises: five folds by unit over train and more, with val beside.

    python recipes/folds.py --data DATA --out OUT --device cuda:0 --only train
    python recipes/folds.py --data DATA --out OUT --only measure

train fits the trunk of networks.py for fewer steps, once without each fold, and goes on where it
was stopped. measure adds the protein k-mers of what a network was fitted on, and scores fragments
of the fold that it did not see, and the fixed fragments of val. If diamond is on PATH, viral
fragments of a fold have a novelty, as those of val have: the identity of the nearest open stretch
of a virus that the network was trained on. OUT/folds.tsv has a row for each fold and part; what is
printed is their mean, least and most. These networks are weaker than what ships, and tell how far
val speaks for other units.
"""

import argparse
import csv
import shutil
import subprocess
import sys
from collections import defaultdict
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from itertools import pairwise
from pathlib import Path

import numpy as np

import fragments
import networks
import protein_kmers
import sides
from virnucpro.bundle.manifest import Bundle, read_bundle
from virnucpro.classifiers import Classifier
from virnucpro.classifiers.protein_kmers import PROTEIN_KMERS
from virnucpro.frames import DROPPED, STANDARD, STOP, translate_by_phase
from virnucpro.measure.accuracy import evaluate
from virnucpro.measure.fragments import fragments_at
from virnucpro.measure.labels import Labelled, LabelledContig
from virnucpro.storage.atomic import replace_file
from virnucpro.train.encoder_fit import fit_encoder, write_chunk_bundle
from virnucpro.train.protein_kmers_fit import UnitKmers, keep_protein_kmers, units_of
from virnucpro.train.units import held_out_slice

FOLDS = 5
STEPS = 5000
SEED = 7
COLUMNS = ("fold", "set", "length_nt", "part", "viral", "others", "auroc", "recall_at_1pct_fpr")
PARTS = ("all", "novelty", "group", "level")
LEAST_AA = 25


def folds_of(contigs: Sequence[LabelledContig]) -> list[list[LabelledContig]]:
    """Parts the contigs into FOLDS, each of about a fifth of each label and group, whole units.

    A group of one unit is in the last part.
    """
    rest, folds = list(contigs), []
    for left in range(FOLDS, 1, -1):
        taken = held_out_slice(rest, 1 / left, SEED)
        folds.append([c for c, out in zip(rest, taken, strict=True) if out])
        rest = [c for c, out in zip(rest, taken, strict=True) if not out]
    return [*folds, rest]


def bundle_of(options: argparse.Namespace, fold: int) -> Path:
    return options.out / f"fold-{fold}"


def train(options: argparse.Namespace, labelled: Labelled) -> None:
    """Fits a network without each fold, and writes a bundle of it."""
    settings = replace(networks.PLAIN, steps=options.steps, evaluate_every=options.steps)
    minutes_left = networks.countdown(options.max_minutes)
    for fold in range(FOLDS):
        fit = fit_encoder(
            trained_on(options, fold),
            settings,
            options.device,
            options.out / "training" / str(fold),
            data_sha256=labelled.sha256,
            max_minutes=minutes_left(),
        )
        print(f"fold {fold}: {fit.record['steps']} steps, {fit.record['seconds']} s", flush=True)
        if not fit.finished:
            raise SystemExit(f"time is up; the same command goes on from {fit.state}")
        if bundle_of(options, fold).exists():
            continue
        write_chunk_bundle(
            bundle_of(options, fold),
            fit,
            name=f"fold-{fold}",
            description=f"Without fold {fold}: for measuring only.",
            chunk_nt=max(sides.CHUNKS_NT),
            validated_nt=sides.SHORTEST_NT,
        )


def remembering(options: argparse.Namespace, fold: int, units: list[UnitKmers]) -> Bundle:
    """The bundle of a fold, with the protein k-mers of what its network was fitted on.

    units: of all folds, found when they are first needed.
    """
    bundle = read_bundle(bundle_of(options, fold))
    if PROTEIN_KMERS in bundle.parts:
        return bundle
    if not units:
        units += units_of([c for part in options.folds for c in part], protein_kmers.SETTINGS)
    contigs = trained_on(options, fold)
    names = {contig.unit for contig in contigs}
    of_fitting = [unit for unit in units if unit.unit in names]
    fitted = protein_kmers.fit(bundle, contigs, options.device, of_fitting)
    return keep_protein_kmers(bundle, fitted)


def trained_on(options: argparse.Namespace, fold: int) -> list[LabelledContig]:
    """The contigs of all other folds."""
    return [c for k, part in enumerate(options.folds) if k != fold for c in part]


def open_stretches(sequence: bytes) -> Iterator[str]:
    """Yields the proteins of LEAST_AA and more between stop codons, in six frames."""
    for strand in (sequence, sequence.translate(fragments.COMPLEMENT)[::-1]):
        letters, starts = translate_by_phase(strand, STANDARD)
        letters = letters.replace(DROPPED, "X")
        for start, end in pairwise([*starts.tolist(), len(letters)]):
            pieces = letters[start:end].split(STOP)
            yield from (piece for piece in pieces if len(piece) >= LEAST_AA)


def with_novelty(
    given: Sequence[LabelledContig], trained_on: Sequence[LabelledContig], folder: Path
) -> list[LabelledContig]:
    """Adds to viral fragments their novelty, by the rule of DATA/more/README.md."""
    folder.mkdir(parents=True, exist_ok=True)
    proteins, queries, hits = (folder / name for name in ("proteins.fa", "viral.fa", "hits.tsv"))
    with proteins.open("w", encoding="ascii") as file:
        for contig in trained_on:
            if contig.label:
                file.writelines(f">p\n{piece}\n" for piece in open_stretches(contig.sequence))
    with queries.open("wb") as file:
        for place, fragment in enumerate(given):
            if fragment.label:
                file.write(b">%d\n%b\n" % (place, fragment.sequence))
    base = str(folder / "proteins.dmnd")
    search = ["blastx", "--sensitive", "--evalue", "1e-5", "-q", str(queries), "-d", base]
    columns = ["-k", "100", "-o", str(hits), "-f", "6", "qseqid", "pident", "length"]
    for step in (["makedb", "--in", str(proteins), "-d", base], [*search, *columns]):
        subprocess.run(["diamond", *step, "--quiet"], check=True)
    nearest: dict[int, float] = defaultdict(lambda: -1.0)
    with hits.open(encoding="utf-8") as file:
        for place, identity, length_aa in csv.reader(file, delimiter="\t"):
            if int(length_aa) >= LEAST_AA:
                nearest[int(place)] = max(nearest[int(place)], float(identity))
    return [
        replace(fragment, novelty=fragments.named_novelty(nearest[k]))
        if fragment.label
        else fragment
        for k, fragment in enumerate(given)
    ]


def measure(options: argparse.Namespace) -> None:
    """Measures each network on its fold and on val."""
    table = options.out / "folds.tsv"
    rows = []
    units: list[UnitKmers] = []
    for fold in range(FOLDS):
        novelty = "-novelty" if shutil.which("diamond") else ""
        own = options.out / f"fold-{fold}-{options.per_side}{novelty}.tsv"
        if not own.exists():
            classifier = remembering(options, fold, units).classifier(options.device, "fp32")
            lines = [COLUMNS, *rows_of(options, fold, classifier)]
            text = "".join("\t".join(map(str, line)) + "\n" for line in lines)
            replace_file(own, text.encode())
        with own.open(encoding="utf-8") as file:
            rows += list(csv.DictReader(file, delimiter="\t"))
    with table.open("w", encoding="utf-8") as file:
        writer = csv.DictWriter(file, COLUMNS, delimiter="\t", lineterminator="\n")
        writer.writeheader()
        writer.writerows(rows)
    for line in summary(rows):
        print(line)


def rows_of(
    options: argparse.Namespace, fold: int, classifier: Classifier
) -> Iterator[tuple[object, ...]]:
    """Yields the rows of a fold: both sets of fragments, both lengths, every part."""
    others = trained_on(options, fold)
    for length_nt in sides.CHUNKS_NT:
        drawn = fragments_at(options.folds[fold], length_nt, options.per_side)
        if shutil.which("diamond"):
            drawn = with_novelty(drawn, others, options.out / "novelty")
        for name, given in (("fold", drawn), ("val", fragments.fixed(options.data, length_nt))):
            measured = evaluate(classifier, given, chunk_nt=max(sides.CHUNKS_NT), resamples=2)
            for part in measured.contig:
                if part.part in PARTS and part.auroc is not None:
                    label = f"{part.part}: {part.value}" if part.value else part.part
                    numbers = (part.auroc, part.recall_at_1pct_fpr)
                    rounded = ("" if n is None else f"{n:.4f}" for n in numbers)
                    yield (fold, name, length_nt, label, part.viral, part.others, *rounded)
            print(
                f"fold {fold}, {name}, {length_nt} nt: AUROC {measured.contig[0].auroc:.4f}",
                flush=True,
            )


def summary(rows: Sequence[Mapping[str, str]]) -> Iterator[str]:
    """Yields a table of mean, least and most over the folds, of each part."""
    numbers: dict[tuple[str, ...], list[tuple[float, float]]] = defaultdict(list)
    for row in rows:
        key = (row["set"], row["part"], row["length_nt"])
        numbers[key].append((float(row["auroc"]), float(row["recall_at_1pct_fpr"] or "nan")))
    yield "| set | part | nt | folds | AUROC | found at 1 % false positives |"
    yield "| --- | --- | --- | --- | --- | --- |"
    for key in sorted(numbers):
        areas, recalls = zip(*numbers[key], strict=True)
        area = f"{np.mean(areas):.3f} ({min(areas):.3f} to {max(areas):.3f})"
        share = (
            f"{100 * np.mean(recalls):.0f} % ({100 * min(recalls):.0f} to {100 * max(recalls):.0f})"
        )
        share = "" if np.isnan(recalls).any() else share
        yield f"| {' | '.join(key)} | {len(areas)} | {area} | {share} |"


def main(arguments: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--data", type=Path, required=True, help="folder with train, more, val")
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--device", default="cpu")
    parser.add_argument("--only", choices=("train", "measure"))
    parser.add_argument("--steps", type=int, default=STEPS)
    parser.add_argument("--max-minutes", type=float, help="stop the training then")
    parser.add_argument("--per-side", type=int, default=2000, help="fragments of each label")
    options = parser.parse_args(arguments)
    options.out.mkdir(parents=True, exist_ok=True)
    labelled = sides.train_side(options.data)
    stretches = sides.read_stretches(sides.PROPHAGES)
    options.folds = folds_of(sides.without_stretches(labelled.contigs, stretches))
    if options.only != "measure":
        train(options, labelled)
    if options.only != "train":
        measure(options)
    return 0


if __name__ == "__main__":
    sys.exit(main())
