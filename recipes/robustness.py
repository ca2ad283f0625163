"""Measures what errors of sequencing, chimeras and shorter reads cost a bundle, for its card.

    python recipes/robustness.py OUT/mini-500-v2 OUT/mini-300-v2 --data DATA

On the fixed fragments of val of the bundle's chunk length, viral and other ones changed alike; rows
go into the card as [[card.robustness]], the loss of AUROC and of recall at 1 % false positives
beside each. Reads are the middles of the same fragments.
"""

import argparse
import sys
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np

import fragments
from virnucpro.bundle.manifest import Bundle, read_bundle
from virnucpro.bundle.write import write_into
from virnucpro.classifiers import Classifier
from virnucpro.measure.accuracy import score_contigs
from virnucpro.measure.labels import LabelledContig
from virnucpro.measure.metrics import auroc, recall_at_false_positive_rate

Fragments = Sequence[LabelledContig]
READS_NT = (250, 200, 150, 100, 75)
RATE = 0.01
AS_THEY_ARE = "none"
CHANGES: dict[str, Callable[[Fragments], list[LabelledContig]]] = {
    AS_THEY_ARE: list,
    "0.5 % substitutions": lambda given: fragments.substituted(given, 0.005),
    "1 % substitutions": lambda given: fragments.substituted(given, 0.01),
    "5 % substitutions": lambda given: fragments.substituted(given, 0.05),
    "0.5 % insertions and deletions": lambda given: fragments.with_indels(given, 0.005),
    "2 % insertions and deletions": lambda given: fragments.with_indels(given, 0.02),
    "a tenth N, in one stretch": lambda given: fragments.with_unknown(given, 0.1),
    "three tenths N, in one stretch": lambda given: fragments.with_unknown(given, 0.3),
    "half of another fragment, not viral": lambda given: fragments.chimeras(given),
    "lower case": lambda given: fragments.lower_case(given),
}


def sampled(given: Fragments, per_side: int, seed: int = 0) -> list[LabelledContig]:
    """At most per_side fragments of each label."""
    rng = np.random.default_rng(seed)
    found = []
    for label in (1, 0):
        side = [fragment for fragment in given if fragment.label == label]
        found += [side[i] for i in sorted(rng.permutation(len(side))[:per_side].tolist())]
    return found


def changes_of(chunk_nt: int) -> dict[str, Callable[[Fragments], list[LabelledContig]]]:
    """The changes, the first of which changes nothing, and cuts to reads of less than chunk_nt."""
    changes = dict(CHANGES)
    for nt in READS_NT:
        if nt < chunk_nt:
            changes[f"reads of {nt} nt"] = lambda whole, nt=nt: fragments.cut(whole, nt)
    return changes


def measured(bundle: Bundle, classifier: Classifier, given: Fragments) -> Iterator[dict[str, Any]]:
    """Rows of a card. given: fragments of the chunk length."""
    usual: dict[str, float] = {}
    for name, change in changes_of(bundle.chunk_nt).items():
        changed = change(given)
        score = score_contigs(classifier, changed, bundle.chunk_nt).contig
        label = np.array([fragment.label == 1 for fragment in changed])
        known = np.where(np.isnan(score), -1.0, score)
        found = {
            "auroc": float(auroc(label, known) or 0),
            "recall_at_1pct_fpr": float(recall_at_false_positive_rate(label, known, RATE) or 0),
        }
        usual = usual or found
        lost = {f"{key}_lost": usual[key] - value for key, value in found.items()}
        numbers = {key: round(value, 4) for key, value in {**found, **lost}.items()}
        yield {"change": name, "viral": int(label.sum()), "others": int((~label).sum()), **numbers}


def keep(bundle: Bundle, data: Path, device: str, per_side: int) -> None:
    """Measures a bundle and writes the rows into its card, in place of older ones."""
    given = sampled(fragments.fixed(data, bundle.chunk_nt), per_side)
    rows = []
    classifier = bundle.classifier(device, "auto" if bundle.kind == "kmer" else "fp32")
    for row in measured(bundle, classifier, given):
        print(f"{bundle.name}: {row}", flush=True)
        rows.append(row)
    made = write_into(bundle, {"card": {**bundle.card, "robustness": rows}})
    print(f"{made.name}: {made.sha256}")


def main(arguments: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("bundles", nargs="+", type=Path)
    parser.add_argument("--data", type=Path, required=True, help="folder with val")
    parser.add_argument("--device", default="cpu")
    parser.add_argument("--per-side", type=int, default=1000, help="fragments of each label")
    options = parser.parse_args(arguments)
    for path in options.bundles:
        keep(read_bundle(path), options.data, options.device, options.per_side)
    return 0


if __name__ == "__main__":
    sys.exit(main())
