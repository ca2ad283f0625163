"""Makes the embedded bundles mini-500-v2 and mini-300-v2, and their k-mer baseline.

Parts, in order: train (a network, four that go on from its weights, each where it was stopped, and
the mean of the four), kmer (the baseline), bundle (the directories), card (what val says of them,
written into bundle.toml), robustness (what errors of sequencing cost, likewise), calibration,
prescreen (how the baseline does before a network), and compare (exit code 1 unless the AUROC is
that of the embedded bundles to within noise). Each runs alone with --only.
"""

import argparse
import csv
import gzip
import json
import math
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from safetensors import safe_open
from safetensors.numpy import save_file

import calibrate
import fragments
import prescreen
import robustness
from sides import SHORTEST_NT, UNRESOLVED, fitting_side, train_side
from virnucpro.bundle import load
from virnucpro.bundle.manifest import Bundle, read_manifest
from virnucpro.bundle.write import write_manifest
from virnucpro.classifiers import Classifier
from virnucpro.classifiers.codon import CodonConfig, codon_network
from virnucpro.measure.accuracy import (
    PREVALENCES,
    evaluate,
    performance_by_length,
    score_contigs,
)
from virnucpro.measure.labels import LabelledContig, read_two_sided
from virnucpro.measure.metrics import confusion, expected_precision
from virnucpro.measure.performance import Performance
from virnucpro.train.encoder_fit import FitProgress, FitResult, fit_encoder, write_chunk_bundle
from virnucpro.train.encoder_settings import EncoderSettings
from virnucpro.train.fragments import Augmentation
from virnucpro.train.judge import Judge
from virnucpro.train.kmer_fit import KmerSettings, fit_kmer, write_kmer_bundle
from virnucpro.train.slices import described, judging_slice, parted
from virnucpro.train.units import calibration_units

CHUNKS_NT = (500, 300)
DESCRIPTION = (
    "Codon network trained from scratch on public genomes; not the published VirNucPro model. "
    "Tells viral from other DNA, names no taxa."
)
ONE_PERCENT = 0.01
SHORT_NT = 150
SUBSTITUTIONS = (0.01, 0.05)
THRESHOLDS = (0.5, 0.7, 0.8, 0.9, 0.95)
LENGTHS_NT = (SHORTEST_NT, 100, 150, 250, 300, 500, 1000, 2000)
TRUNK, MEAN = "plain", "mean"
# Of AUROC on the fixed fragments: about what networks of other seeds and sizes differ by.
NOISE = 0.01
STEPS = 30_000
GROUPS = (
    *("rna_virus", "dna_virus", "phage"),
    *("bacteria", "archaea", "fungi", "protozoa", "plant", "invertebrate", "vertebrate", "human"),
    *("organelle", "plasmid", "mobile_element"),
)
NETWORK = CodonConfig(
    channels=(64, 128),
    blocks=(1, 2),
    kernels=(5, 5),
    attention=("frame", "frame"),
    heads=2,
    rotary=16,
    dropout=0.15,
)
PLAIN = EncoderSettings(
    network=NETWORK,
    steps=STEPS,
    patience=0,
    augmentation=Augmentation(nonsense=0.02),
    groups=GROUPS,
    unresolved=UNRESOLVED,
    by_level=True,
    slice_fraction=0.03,
    evaluate_every=1000,
    save_every=1000,
)
# They begin with the weights of the trunk, share its slice, and see the units more evenly.
BRANCH = replace(
    PLAIN,
    steps=6500,
    learning_rate=1e-3,
    unit_power=0.25,
    evaluate_every=3250,
    slice_seed=PLAIN.seed,
)
NETWORKS = {TRUNK: PLAIN, **{f"branch-{seed}": replace(BRANCH, seed=seed) for seed in (1, 2, 3, 4)}}
# Of the training record of a network: what it shares with those that are averaged with it.
SHARED = ("contigs_sha256", "parameters", "device", "precision", "fitting", "slice", "data")
SLICE_AREA, SLICE_RECALL = "slice_auroc", "slice_recall_at_1pct_fpr"


def train(options: argparse.Namespace) -> None:
    """Fits the networks that are not there yet, and averages the branches.

    Weights go into a file for each network, with the record in its metadata.
    """
    labelled = train_side(options.data)
    contigs = fitting_side(labelled.contigs)
    deadline = None if options.max_minutes is None else time.monotonic() + 60 * options.max_minutes
    for name, settings in NETWORKS.items():
        if options.network not in (None, name) or is_finished(options, name):
            continue

        def tell(now: FitProgress, name: str = name) -> None:
            if now.evaluated:
                done = f"step {now.step}/{now.steps}, loss {now.loss:.4f}"
                left = f"{now.seconds_left / 60:.1f} min left"
                print(f"{name}: {done}, slice AUROC {now.auroc:.4f}, {left}", flush=True)

        result = fit_encoder(
            contigs,
            replace(settings, steps=options.steps) if options.steps else settings,
            options.device,
            options.work / name,
            tell,
            data_sha256=labelled.sha256,
            max_minutes=None if deadline is None else max(0, deadline - time.monotonic()) / 60,
            start=None if name == TRUNK else trained(options, TRUNK).network,
        )
        keep(options, name, result)
        print(f"{name}: {json.dumps(result.record[SLICE_AREA])}, {result.record['seconds']} s")
        if not result.finished:
            print(f"{name}: time is up; the same command goes on from {result.state}")
            return
    if options.network is None:
        average(options, labelled.contigs, contigs)


def average(
    options: argparse.Namespace,
    everything: Sequence[LabelledContig],
    contigs: Sequence[LabelledContig],
) -> None:
    """Averages the weights of the branches, and judges that on the slice beside each network."""
    networks = {name: trained(options, name) for name in NETWORKS}
    apart = calibration_units(everything)
    trunk = networks[TRUNK]
    branches = [fit.network.state_dict() for name, fit in networks.items() if name != TRUNK]
    mean = codon_network(trunk.network.part())
    mean.load_state_dict(
        {k: torch.stack([b[k] for b in branches]).double().mean(0) for k in branches[0]}
    )
    settings = NETWORKS[TRUNK]
    held_out = judging_slice(contigs, settings.slice_fraction, settings.cut_by, "the network")
    judge = Judge(parted(contigs, held_out)[1], settings, torch.device(options.device))
    for name, network in {**{k: v.network for k, v in networks.items()}, MEAN: mean}.items():
        judged = judge.judged(network.to(options.device), math.inf)
        print(f"{name} on the slice: {json.dumps(judged)}", flush=True)
    assert judged is not None
    record = {
        "method": f"mean of the weights of {len(branches)} networks that were trained further from "
        "one that was trained from random weights",
        **{name: trunk.record[name] for name in SHARED},
        "calibration": described([c for c in everything if c.unit in apart]),
        SLICE_AREA: judged["auroc"],
        SLICE_RECALL: judged["recall_at_1pct_fpr"],
        "seconds": round(sum(fit.record["seconds"] for fit in networks.values()), 1),
        "steps": sum(fit.record["steps"] for fit in networks.values()),
        "networks": {
            name: {k: v for k, v in fit.record.items() if k not in SHARED}
            for name, fit in networks.items()
        },
    }
    keep(options, MEAN, FitResult(mean.cpu().eval(), record, True, options.work))


def keep(options: argparse.Namespace, name: str, result: FitResult) -> None:
    """Writes the weights of a network, with the record in their metadata."""
    metadata = {
        "part": json.dumps(result.network.part()),
        "record": json.dumps(result.record),
        "finished": json.dumps(result.finished),
    }
    options.out.mkdir(parents=True, exist_ok=True)
    save_file(result.network.arrays(), options.out / f"{name}.safetensors", metadata)


def is_finished(options: argparse.Namespace, name: str) -> bool:
    """Return whether a network is there, and was trained to its end."""
    path = options.out / f"{name}.safetensors"
    if not path.is_file():
        return False
    with safe_open(path, framework="numpy") as file:
        finished: bool = json.loads(file.metadata()["finished"])
    return finished


def trained(options: argparse.Namespace, name: str) -> FitResult:
    """What train wrote of a network."""
    path = options.out / f"{name}.safetensors"
    if not is_finished(options, name):
        raise SystemExit(f"{path} is not there, or was stopped; run with --only train")
    with safe_open(path, framework="numpy") as file:
        metadata = file.metadata()
        arrays = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118
    network = codon_network(json.loads(metadata["part"]), path)
    network.load_state_dict({name: torch.from_numpy(values) for name, values in arrays.items()})
    return FitResult(network.eval(), json.loads(metadata["record"]), True, options.work)


def write(options: argparse.Namespace) -> None:
    """Writes the bundles of the mean, still without a card."""
    fit = trained(options, MEAN)
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


def measure(options: argparse.Namespace) -> None:
    """Measures every bundle on val and writes the cards, the k-mer baseline beside."""
    sources = sources_of(options.data)
    fixed = {length_nt: fragments.fixed(options.data, length_nt) for length_nt in CHUNKS_NT}
    fixed[SHORT_NT] = fragments.middles(options.data, fixed[min(CHUNKS_NT)], SHORT_NT)
    folder = options.data / "val"
    val = read_two_sided([folder / "viral.fasta.gz"], [folder / "nonviral.fasta.gz"])
    for chunk_nt in CHUNKS_NT:
        baseline = load(options.out / f"kmer-{chunk_nt}-v1")
        scorer = baseline.classifier("cpu")
        of_baseline = _measured(options, baseline, scorer, val.contigs, fixed, None)
        if not baseline.card:
            _keep_card(baseline, {**of_baseline, "sources": sources}, {})
        bundle = load(options.out / f"mini-{chunk_nt}-v2")
        scorer = bundle.classifier(options.device, "fp32")
        card = _measured(options, bundle, scorer, val.contigs, fixed, of_baseline)
        bf16 = evaluate(bundle.classifier("cpu", "bf16"), fixed[chunk_nt], chunk_nt=chunk_nt)
        card["fixed_fragments_bf16"] = _numbers(bf16.chunk[0])
        card |= _changed(bundle, scorer, fixed[chunk_nt])
        card["by_origin"] = _by_origin(bundle, scorer, fixed[chunk_nt])
        card["sources"] = sources
        _keep_card(bundle, card, {"bf16": _agreement(bundle, fixed[chunk_nt])})


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
    prescreen.main([str(options.out), "--data", str(options.data), "--device", options.device])


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


def _measured(
    options: argparse.Namespace,
    bundle: Bundle,
    classifier: Classifier,
    val: Sequence[LabelledContig],
    fixed: Mapping[int, Sequence[LabelledContig]],
    baseline: Mapping[str, Any] | None,
) -> dict[str, Any]:
    """The numbers of a card; beside each AUROC that of the baseline on the same fragments."""
    chunk_nt = bundle.chunk_nt
    found = evaluate(classifier, fixed[chunk_nt], chunk_nt=chunk_nt, threshold=bundle.threshold)
    print(f"{bundle.name}, {classifier.precision}: {_numbers(found.chunk[0])}", flush=True)
    lengths = performance_by_length(
        classifier,
        val,
        chunk_nt=chunk_nt,
        lengths_nt=LENGTHS_NT,
        per_side=options.per_side,
        threshold=bundle.threshold,
    )
    by_length = [
        {"length_nt": length_nt, **_numbers(performance), **_precisions(performance)}
        for length_nt, performance in lengths.items()
    ]
    card: dict[str, Any] = {
        "measured_on": "val, units of which no record is in training, though relatives of some are "
        "(see by_novelty); fixed fragments of the chunk length, and fragments cut from val at each "
        "length",
        "precision": classifier.precision,
        "fixed_fragments": _numbers(found.chunk[0]),
        "expected_precision": _precisions(found.chunk[0]),
        "by_threshold": _at_thresholds(classifier, fixed[chunk_nt], chunk_nt),
        "by_length": by_length,
        "by_novelty": _by_novelty(bundle, classifier, fixed),
        "by_part": [
            {"part": p.part, "value": p.value, "against": p.against, **_numbers(p)}
            for p in found.chunk[1:]
            if p.part != "novelty"
        ],
    }
    if baseline is not None:
        _beside(card, baseline)
    return card


def _by_novelty(
    bundle: Bundle, classifier: Classifier, fixed: Mapping[int, Sequence[LabelledContig]]
) -> list[dict[str, Any]]:
    """Fragments of each length by how near the nearest virus of training is, against all others."""
    rows = []
    for length_nt in sorted(fixed):
        found = evaluate(
            classifier, fixed[length_nt], chunk_nt=bundle.chunk_nt, threshold=bundle.threshold
        ).contig
        for part in (p for p in found if p.part in ("all", "novelty")):
            recall = part.recall_at_1pct_fpr_interval
            row = {
                "length_nt": length_nt,
                "novelty": part.value or part.part,
                "viral": part.viral,
                **{k: v for k, v in _numbers(part).items() if k.startswith(("auroc", "recall"))},
                "recall_at_1pct_fpr_low": recall and recall.low,
                "recall_at_1pct_fpr_high": recall and recall.high,
            }
            rows.append(_rounded(row))
    return rows


def _changed(
    bundle: Bundle, classifier: Classifier, fixed: Sequence[LabelledContig]
) -> dict[str, Any]:
    """What substitutions cost, and how much of what has no origin is called virus."""
    rows = []
    for rate in SUBSTITUTIONS:
        changed = fragments.substituted(fixed, rate)
        found = evaluate(classifier, changed, chunk_nt=bundle.chunk_nt, threshold=bundle.threshold)
        rows.append({"substitutions": rate, **_numbers(found.chunk[0])})
    nonsense = []
    for kind, texts in (
        ("shuffled viral fragments", fragments.shuffled([f for f in fixed if f.label])),
        ("shuffled other fragments", fragments.shuffled([f for f in fixed if not f.label])),
        ("tandem repeats", fragments.repeats(bundle.chunk_nt, 1200)),
    ):
        p_virus = classifier.score(texts).p_virus
        called = float((p_virus >= bundle.threshold).mean())
        row = {"kind": kind, "fragments": len(texts), "called_virus": called}
        row["p_virus_of_highest_1_pct"] = float(np.quantile(p_virus, 0.99))
        nonsense.append(_rounded(row))
    return {"by_substitutions": rows, "nonsense": nonsense}


def _by_origin(
    bundle: Bundle, classifier: Classifier, fixed: Sequence[LabelledContig]
) -> list[dict[str, Any]]:
    """How often the group head names the group of a fragment, where that is resolved."""
    log_p = classifier.score([f.sequence.decode("ascii") for f in fixed]).groups
    assert log_p is not None
    groups = bundle.part("codon")["groups"]
    named = np.array(groups)[log_p.argmax(1)]
    group = np.array([fragment.group for fragment in fixed])
    rows = []
    for name in groups:
        inside = group == name
        if inside.any():
            right = float((named[inside] == name).mean())
            rows.append(_rounded({"group": name, "fragments": int(inside.sum()), "right": right}))
    return rows


def _at_thresholds(
    classifier: Classifier, fragments: Sequence[LabelledContig], chunk_nt: int
) -> list[dict[str, Any]]:
    """What other cuts of p_virus give on fragments of the chunk length."""
    score = score_contigs(classifier, fragments, chunk_nt).chunk
    label = np.array([fragment.label == 1 for fragment in fragments])
    rows = []
    for threshold in THRESHOLDS:
        found = confusion(label, score, threshold)
        recall, rate = found.recall, found.false_positive_rate
        precision = expected_precision(recall, rate, ONE_PERCENT)
        row = {"recall": recall, "false_positive_rate": rate, "precision_at_1_percent": precision}
        rows.append({"threshold": threshold, **_rounded(row)})
    return rows


def _beside(card: dict[str, Any], baseline: Mapping[str, Any]) -> None:
    """Adds the baseline's AUROC and recall to rows on the same fragments."""
    rows = [card["fixed_fragments"], *card["by_length"], *card["by_part"]]
    of_baseline = [
        baseline["fixed_fragments"],
        *baseline["by_length"],
        *baseline["by_part"],
    ]
    for row, other in zip(rows, of_baseline, strict=True):
        row["kmer_auroc"] = other["auroc"]
        row["kmer_recall_at_1pct_fpr"] = other["recall_at_1pct_fpr"]


def _numbers(performance: Performance) -> dict[str, Any]:
    interval = performance.auroc_interval
    found = {
        "viral": performance.viral,
        "others": performance.others,
        "auroc": performance.auroc,
        "auroc_low": interval and interval.low,
        "auroc_high": interval and interval.high,
        "recall_at_1pct_fpr": performance.recall_at_1pct_fpr,
        "recall": performance.recall,
        "false_positive_rate": performance.false_positive_rate,
    }
    return _rounded(found)


def _rounded(values: Mapping[str, Any]) -> dict[str, Any]:
    return {k: round(v, 4) if isinstance(v, float) else v for k, v in values.items()}


def _precisions(performance: Performance) -> dict[str, float]:
    """Precision to expect at the default threshold, by the share of virus in a sample."""
    found = {}
    for share in PREVALENCES:
        value = expected_precision(performance.recall, performance.false_positive_rate, share)
        if value is not None:
            found[f"at_{share * 100:g}_percent_virus"] = round(value, 4)
    return found


def _agreement(bundle: Bundle, fragments: Sequence[LabelledContig]) -> dict[str, Any]:
    """How far bf16 lies from fp32 on fragments."""
    scores = [
        score_contigs(bundle.classifier("cpu", precision), fragments, bundle.chunk_nt).chunk
        for precision in ("fp32", "bf16")
    ]
    called = [score >= bundle.threshold for score in scores]
    difference = np.abs(scores[0] - scores[1])
    return {
        "chunks": len(difference),
        "label_agreement": round(float((called[0] == called[1]).mean()), 5),
        "max_difference": round(float(difference.max()), 5),
        "mean_difference": round(float(difference.mean()), 6),
    }


def _keep_card(bundle: Bundle, card: Mapping[str, Any], agreement: Mapping[str, Any]) -> None:
    manifest = read_manifest(bundle.path)
    files = manifest.pop("files")
    manifest |= {"card": card, **({"agreement": agreement} if agreement else {})}
    write_manifest(bundle.path, manifest, files)
    print(f"{bundle.name}: card written {agreement}", flush=True)


def sources_of(data: Path) -> list[dict[str, Any]]:
    """Records, bases and stated licence of each source of the training data."""
    licences: dict[str, str] = {}
    records: dict[str, int] = {}
    bases: dict[str, int] = {}
    for readme in (data / "more" / "README.md", data / "README.md"):
        licences |= _licences(readme.read_text("utf-8"))
    tables = [
        data / part / f"{side}.tsv.gz"
        for part in ("train", "more")
        for side in ("viral", "nonviral")
    ]
    for path in tables:
        with gzip.open(path, "rt", encoding="utf-8") as table:
            for row in csv.DictReader(table, delimiter="\t", quoting=csv.QUOTE_NONE):
                records[row["source"]] = records.get(row["source"], 0) + 1
                bases[row["source"]] = bases.get(row["source"], 0) + int(row["length"])
    return [
        {"source": s, "records": records[s], "bases": bases[s], "licence": licences[s]}
        for s in sorted(records)
    ]


def _licences(readme: str) -> dict[str, str]:
    """Source -> licence, from the table under `## Sources`."""
    table = readme.partition("## Sources")[2].partition("\n## ")[0]
    rows = [line.strip("| ").split(" | ") for line in table.splitlines() if line.startswith("|")]
    return {row[0]: row[2] for row in rows[2:]}


PARTS: dict[str, Callable[[argparse.Namespace], None]] = {
    "train": train,
    "kmer": write_kmer,
    "bundle": write,
    "card": measure,
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
    parser.add_argument("--network", choices=NETWORKS, help="train this one alone")
    parser.add_argument("--steps", type=int, help="fewer than the recipe has, to try it out")
    parser.add_argument("--max-minutes", type=float, help="stop then; the same command goes on")
    parser.add_argument("--per-side", type=int, default=1000, help="fragments at each length")
    options = parser.parse_args(arguments)
    options.work = options.work or options.out / "training"
    options.kmer = KmerSettings()
    for name, part in PARTS.items():
        if options.only in (None, name):
            part(options)
    return 0


if __name__ == "__main__":
    sys.exit(main())
