"""Measures how much work a bundle that looks first leaves, for any larger one behind it, on val.

    python bench/handed_on.py mini-500 --data DATA [--time FOLDER]

Cuts are chosen on viral fragments of the chunk length of units that no network was fitted on, as
the highest at which a share of all of them is handed on, whatever a larger bundle says of them. Of
fragments of val: the share of viruses handed on, that of others, the work that is left in a sample
with 1 % virus and how many times less that is; 95 % intervals resample the units of both sets, and
choose the cut again. --time also writes a bundle of the published kind with random weights into
FOLDER (DNABERT-S and the ESM-2 that --esm names at their sizes) and takes the processor time, or on
a GPU the wall-clock time, for one sample of val at each cut: how it falls with the share of chunks.
"""

import argparse
import sys
from collections.abc import Iterator, Sequence
from pathlib import Path
from time import perf_counter, process_time

import numpy as np
import torch
from numpy.typing import NDArray

import full_size
from virnucpro.bundle import load
from virnucpro.bundle.manifest import Bundle
from virnucpro.classifiers.cascade import CascadeClassifier, Cuts
from virnucpro.measure.accuracy import fragments_at
from virnucpro.measure.labels import LabelledContig, read_two_sided
from virnucpro.train.units import calibration_units

RECALLS = (0.8, 0.85, 0.9, 0.95, 0.98, 0.99, 0.995)
PREVALENCE = 0.01
RESAMPLES = 1000

Float64 = NDArray[np.float64]


class Scored:
    """Fragments with their scores by the first bundle; one without a score is handed on."""

    def __init__(self, bundle: Bundle, fragments: Sequence[LabelledContig]) -> None:
        texts = [fragment.sequence.decode("ascii") for fragment in fragments]
        score = bundle.classifier("cpu", "fp32").score(texts).p_virus
        self.score = np.where(np.isnan(score), np.inf, score)
        self.group = np.array([fragment.group for fragment in fragments])
        self._unit = np.unique([fragment.unit for fragment in fragments], return_inverse=True)[1]

    def all(self) -> NDArray[np.intp]:
        """Every row once."""
        return np.arange(len(self.score))

    def drawn(self, rng: np.random.Generator) -> NDArray[np.intp]:
        """Rows of as many units as there are, with replacement."""
        units = int(self._unit.max()) + 1
        times = np.bincount(rng.integers(units, size=units), minlength=units)
        return np.repeat(self.all(), times[self._unit])


Three = tuple[Scored, Scored, Scored]


def measures(three: Three, rows: Sequence[NDArray[np.intp]], recall: float) -> list[float]:
    """Cut, viruses handed on, others handed on (groups weigh the same), work, and times less."""
    apart, viral, others = three
    cut = float(np.quantile(apart.score[rows[0]], 1 - recall, method="lower"))
    found = float((viral.score[rows[1]] >= cut).mean())
    passed, group = others.score[rows[2]] >= cut, others.group[rows[2]]
    wrong = float(np.mean([passed[group == name].mean() for name in np.unique(group)]))
    work = PREVALENCE * found + (1 - PREVALENCE) * wrong
    return [cut, found, wrong, work, 1 / work]


def table(three: Three) -> Iterator[str]:
    yield "| recall chosen | cut | viruses handed on | others handed on | work at 1 % | fold |"
    for recall in RECALLS:
        rng = np.random.default_rng(0)
        drawn = [
            measures(three, [each.drawn(rng) for each in three], recall) for _ in range(RESAMPLES)
        ]
        low, high = np.quantile(drawn, (0.025, 0.975), axis=0)
        now = measures(three, [each.all() for each in three], recall)
        shares = (
            f"{100 * now[i]:.1f} % ({100 * low[i]:.1f} to {100 * high[i]:.1f})" for i in (1, 2, 3)
        )
        fold = f"{now[4]:.1f} ({low[4]:.1f} to {high[4]:.1f})"
        yield f"| {100 * recall:g} % | {now[0]:.3f} | {' | '.join(shares)} | {fold} |"


def times(
    first: Bundle, options: argparse.Namespace, three: Three, sample: Sequence[str]
) -> Iterator[str]:
    device: str = options.device
    tokenizer = next(path for path in full_size.TOKENIZERS if path.is_file())
    make = full_size.Maker(torch.device(device), torch.float16)
    bundle = full_size.published_kind(options.time, options.esm, make, tokenizer)
    large = load(bundle).classifier(device, options.precision)
    small = first.classifier(device, options.precision)
    clock, whose = (
        (process_time, "processor time") if device == "cpu" else (perf_counter, "wall-clock time")
    )
    yield f"{len(sample):,} chunks, 1 % viral: cut | handed on | {whose}, s"
    cuts = [measures(three, [e.all() for e in three], recall)[0] for recall in RECALLS]
    warm_up = sample[:8] if device == "cpu" else sample
    large.score(warm_up)
    small.score(warm_up)
    for cut in (0.0, *reversed(cuts)):
        both = CascadeClassifier(small, large, Cuts((0,), (cut,))) if cut else large
        begin = clock()
        scores = both.score(sample)
        took = clock() - begin
        ended = 0 if scores.prescreened is None else int(scores.prescreened.sum())
        yield f"{cut:.3f} | {len(sample) - ended} | {took:.1f}"


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("first")
    parser.add_argument("--data", type=Path, required=True, help="folder with train, more, val")
    parser.add_argument("--per-side", type=int, default=2000)
    parser.add_argument("--time", type=Path, metavar="FOLDER")
    parser.add_argument("--sample", type=int, default=300)
    parser.add_argument("--device", default="cpu", help="that takes the time")
    parser.add_argument("--precision", default="auto", help="of both bundles there")
    parser.add_argument("--esm", choices=full_size.SIZES, default="8M")
    options = parser.parse_args()
    first, folders = load(options.first), [options.data / part for part in ("train", "more", "val")]

    def sides(folders: Sequence[Path]) -> list[LabelledContig]:
        pairs = (
            [folder / f"{side}.fasta.gz" for folder in folders] for side in ("viral", "nonviral")
        )
        return read_two_sided(*pairs).contigs

    training, val = sides(folders[:2]), sides(folders[2:])
    apart = calibration_units(training)
    held_out = [contig for contig in training if contig.label and contig.unit in apart]
    del training
    fragments = fragments_at(val, first.chunk_nt, options.per_side)
    viral, others = ([f for f in fragments if f.label == label] for label in (1, 0))
    chosen_on = fragments_at(held_out, first.chunk_nt, options.per_side)
    three = Scored(first, chosen_on), Scored(first, viral), Scored(first, others)
    print(f"{len(chosen_on):,} fragments choose, {len(viral):,} viral and {len(others):,} others")
    for line in table(three):
        print(line, flush=True)
    if options.time:
        drawn = fragments_at(val, first.chunk_nt, options.sample, seed=1)
        texts = {
            label: [f.sequence.decode("ascii") for f in drawn if f.label == label]
            for label in (1, 0)
        }
        sample = [*texts[1][: round(PREVALENCE * len(texts[0]))], *texts[0]]
        for line in times(first, options, three, sample):
            print(line, flush=True)
    return 0


if __name__ == "__main__":
    sys.exit(main())
