"""Measures what is lost and saved where a small bundle looks before a large one, on val.

    python bench/cascade.py mini-500 kmer-500 --data DATA

First, by the recall that the cuts were chosen for: of fragments of the chunk length, which were not
used to choose, the share of the large bundle's viral calls that is kept, and the work that is left
in a sample with 1 % virus. Then whole records, by length: how many are called virus, by the large
bundle alone and after the small one. Last, seconds of a processor for a sample of 1 % virus.
"""

import argparse
import sys
from collections.abc import Iterator, Sequence
from dataclasses import replace
from pathlib import Path
from time import process_time

import numpy as np
from numpy.typing import NDArray

from virnucpro.bundle import load
from virnucpro.bundle.manifest import Bundle
from virnucpro.bundle.prescreen import DEFAULT_RECALL, choice_of
from virnucpro.calls import Scores
from virnucpro.classifiers import Classifier
from virnucpro.classifiers.cascade import CascadeClassifier, Cuts
from virnucpro.measure.fragments import fragments_at
from virnucpro.measure.labels import LabelledContig, read_two_sided
from virnucpro.train.prescreen_fit import RECALLS
from virnucpro.train.scored_records import ScoredRecords, score_records, windows_of

PREVALENCE = 0.01


class Remembering:
    """The large classifier, which scores no part twice, and the small one before it.

    cuts: None where the large one speaks alone.
    """

    def __init__(self, small: Classifier, large: Classifier) -> None:
        self.name = large.name
        self.cuts: Cuts | None = None
        self._small, self._large = small, large
        self._known: dict[int, Scores] = {}

    def score(self, chunks: Sequence[str]) -> Scores:
        """Scores of chunks by whoever speaks."""
        key = hash(tuple(chunks))
        if key not in self._known:
            self._known[key] = self._large.score(chunks)
        second = self._known[key]
        if self.cuts is None:
            return second
        first = self._small.score(chunks)
        lengths = np.array([len(chunk) for chunk in chunks], np.int64)
        ended = first.called & (first.p_virus < self.cuts.of(lengths))
        return replace(second, p_virus=np.where(ended, first.p_virus, second.p_virus))


def fragments_kept(
    bundle: Bundle, first: Bundle, both: Remembering, fragments: Sequence[LabelledContig]
) -> Iterator[str]:
    texts = [fragment.sequence.decode("ascii") for fragment in fragments]
    viral = np.array([fragment.label == 1 for fragment in fragments])
    group = np.array([fragment.group for fragment in fragments])
    large = both.score(texts).p_virus
    small = first.classifier().score(texts).p_virus
    called = viral & (large >= bundle.threshold)
    yield f"{int(called.sum()):,} of {int(viral.sum()):,} viral fragments are called virus"
    yield "recall chosen | cut | kept | viral handed on | others, least and most | work | fold"
    names = np.unique(group[~viral])
    for recall in RECALLS:
        cut = choice_of(bundle, first, recall).cuts.p_virus[-1]
        passed = ~(small < cut)
        others = np.array([passed[~viral & (group == name)].mean() for name in names])
        work = PREVALENCE * passed[viral].mean() + (1 - PREVALENCE) * others.mean()
        yield (
            f"{100 * recall:g} % | {cut:.3f} | {100 * passed[called].mean():.1f} % | "
            f"{100 * passed[viral].mean():.0f} % | {100 * others.mean():.0f} % "
            f"({100 * others.min():.0f}, {100 * others.max():.0f}) | {100 * work:.0f} % | "
            f"{1 / work:.2f}"
        )


def records_called(
    bundle: Bundle, first: Bundle, both: Remembering, contigs: Sequence[LabelledContig], most: int
) -> Iterator[str]:
    calibration = bundle.calibration
    if calibration is None:
        yield f"{bundle.name} has no calibration, so whole records are not called"
        return
    windows = windows_of(contigs, bundle.chunk_nt, most=most)

    def called(cuts: Cuts | None) -> tuple[ScoredRecords, NDArray[np.bool_]]:
        both.cuts = cuts
        records = score_records(both, windows, bundle.chunk_nt)
        score = calibration.rule.log_odds(records.evidence, records.called_nt)
        least = np.log(calibration.threshold / (1 - calibration.threshold))
        return records, score >= least

    records, alone = called(None)
    yield f"{len(alone):,} records, virus at p_virus >= {calibration.threshold:g}"
    yield "recall chosen | of viral, by length | of others, by length | new false calls"
    yield f"alone | {_shares(records, alone)}"
    for recall in RECALLS:
        _, after = called(choice_of(bundle, first, recall).cuts)
        new = int((after & ~alone & ~records.viral).sum())
        yield f"{100 * recall:g} % | {_shares(records, after)} | {new}"


def _shares(records: ScoredRecords, called: NDArray[np.bool_]) -> str:
    """Per cent of viral and of other records called virus, by length."""
    sides = []
    for side in (records.viral, ~records.viral):
        bins = [side & (records.length_bin == b) for b in np.unique(records.length_bin)]
        sides.append(", ".join(f"{100 * called[here].mean():.1f}" for here in bins if here.any()))
    return " | ".join(sides)


def seconds(
    bundle: Bundle, first: Bundle, contigs: Sequence[LabelledContig], count: int
) -> Iterator[str]:
    """Yield the processor's seconds for the same sample, alone and after the small bundle."""
    drawn = fragments_at(contigs, bundle.chunk_nt, count, seed=1)
    texts = [f.sequence.decode("ascii") for f in drawn]
    viral = [t for t, f in zip(texts, drawn, strict=True) if f.label]
    others = [t for t, f in zip(texts, drawn, strict=True) if not f.label]
    sample = [*viral[: round(PREVALENCE * len(others))], *others]
    large, small = bundle.classifier("cpu", "fp32"), first.classifier()
    for recall in (DEFAULT_RECALL, 0.9):
        both = CascadeClassifier(small, large, choice_of(bundle, first, recall).cuts)
        took = dict.fromkeys(("alone", "after"), 0.0)
        for name, classifier in (("alone", large), ("after", both)) * 2:
            begin = process_time()
            classifier.score(sample)
            took[name] += (process_time() - begin) / 2
        yield (
            f"{len(sample):,} chunks, recall {100 * recall:g} %: {took['alone']:.1f} s alone, "
            f"{took['after']:.1f} s after {first.name}"
        )


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("bundle")
    parser.add_argument("first")
    parser.add_argument("--data", type=Path, required=True, help="folder with val")
    parser.add_argument("--per-side", type=int, default=2000)
    parser.add_argument("--most", type=int, default=60, help="records of a group and length")
    parser.add_argument("--sample", type=int, default=1000)
    options = parser.parse_args()
    bundle, first = load(options.bundle), load(options.first)
    folder = options.data / "val"
    val = read_two_sided([folder / "viral.fasta.gz"], [folder / "nonviral.fasta.gz"]).contigs
    both = Remembering(first.classifier(), bundle.classifier("cpu", "fp32"))
    fragments = fragments_at(val, bundle.chunk_nt, options.per_side)
    print(f"{first.name} before {bundle.name}")
    for lines in (
        fragments_kept(bundle, first, both, fragments),
        records_called(bundle, first, both, val, options.most),
        seconds(bundle, first, val, options.sample),
    ):
        for line in lines:
            print(line, flush=True)
    return 0


if __name__ == "__main__":
    sys.exit(main())
