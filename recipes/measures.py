"""The card of an embedded bundle: what val says of it, the k-mer baseline beside."""

import argparse
import csv
import gzip
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

import fragments
from sides import CHUNKS_NT, SHORTEST_NT
from virnucpro.bundle import load
from virnucpro.bundle.manifest import Bundle
from virnucpro.bundle.write import write_into
from virnucpro.classifiers import Classifier
from virnucpro.measure.accuracy import (
    PREVALENCES,
    evaluate,
    performance_by_length,
    score_contigs,
)
from virnucpro.measure.labels import LabelledContig, read_two_sided
from virnucpro.measure.metrics import confusion, expected_precision
from virnucpro.measure.performance import Performance

ONE_PERCENT = 0.01
SHORT_NT = 150
SUBSTITUTIONS = (0.01, 0.05)
THRESHOLDS = (0.5, 0.7, 0.8, 0.9, 0.95)
LENGTHS_NT = (SHORTEST_NT, 100, 150, 250, 300, 500, 1000, 2000)


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
    write_into(bundle, {"card": card, **({"agreement": agreement} if agreement else {})})
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
