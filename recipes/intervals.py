"""Measures the numbers of the embedded bundles' cards again, each with its interval.

    python recipes/intervals.py mini-500-v2 mini-300-v2 --data DATA

Writes docs/cards/NAME.tsv: table and row of the card, metric, value, ends of the 95 % interval,
units. Intervals are percentiles of 1,000 resamples (seed 0) of whole units with replacement, those
of viruses and of others apart; a loss is resampled in pairs. A side of one unit has none. Besides
what the card has, the share called virus of others that no network was fitted on, by group and
level, and of the stretches that were cut out as prophages. The bundles are not changed.
"""

import argparse
import sys
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

import calibrate
import fragments
import measures
import robustness
import sides
from virnucpro.bundle import load
from virnucpro.bundle.manifest import Bundle
from virnucpro.calls import Scores
from virnucpro.classifiers import Classifier
from virnucpro.measure.accuracy import PREVALENCES, fragments_at, score_contigs
from virnucpro.measure.labels import NOVELTIES, STRICT, LabelledContig, read_two_sided
from virnucpro.measure.metrics import (
    auroc,
    confusion,
    expected_precision,
    recall_at_false_positive_rate,
)
from virnucpro.train.scored_records import score_records, windows_of
from virnucpro.train.slices import described

CARDS = Path(__file__).resolve().parents[1] / "docs" / "cards"
COLUMNS = ("table", "row", "metric", "value", "low", "high", "viral_units", "other_units")
RESAMPLES = 1000
ENDS = (0.025, 0.975)
EVERY = 4  # of the chunks of prophages

Bool = NDArray[np.bool_]
Float64 = NDArray[np.float64]
Rows = NDArray[np.intp]
# Of rows, each as often as it was drawn.
Statistic = Callable[[Rows], float | None]
Line = tuple[str, ...]


class Remembering:
    """A classifier that scores no list of chunks twice: both bundles hold the same weights."""

    def __init__(self, classifier: Classifier, known: dict[int, Scores]) -> None:
        self.name, self._classifier, self._known = classifier.name, classifier, known

    def score(self, chunks: Sequence[str]) -> Scores:
        """Scores of chunks."""
        key = hash(tuple(chunks))
        if key not in self._known:
            self._known[key] = self._classifier.score(chunks)
        return self._known[key]


def resampled(label: Bool, unit: NDArray[np.str_], seed: int = 0) -> Iterator[Rows]:
    """Yield the rows of each resample; of a side without rows, none."""
    sides = []
    for side in (label, ~label):
        names, of_row = np.unique(unit[side], return_inverse=True)
        sides.append((np.flatnonzero(side), of_row, len(names)))
    rng = np.random.default_rng(seed)
    for _ in range(RESAMPLES):
        drawn = []
        for rows, of_row, units in sides:
            if units:
                times = np.bincount(rng.integers(units, size=units), minlength=units)
                drawn.append(np.repeat(rows, times[of_row]))
        yield np.concatenate(drawn)


def lines_of(
    table: str,
    row: str,
    given: Sequence[LabelledContig],
    statistics: Mapping[str, Statistic],
) -> Iterator[Line]:
    """Yield the line of each metric of a row of the card."""
    label = np.array([fragment.label == 1 for fragment in given], np.bool_)
    unit = np.array([fragment.unit for fragment in given], np.str_)
    units = [len(np.unique(unit[side])) for side in (label, ~label)]
    values: dict[str, list[float]] = {name: [] for name in statistics}
    if 1 not in units:
        for drawn in resampled(label, unit):
            for name, statistic in statistics.items():
                value = statistic(drawn)
                values[name].append(np.nan if value is None else value)
    for name, statistic in statistics.items():
        whole = statistic(np.arange(len(given)))
        if whole is None:
            continue
        ends = ("", "")
        if values[name]:
            low, high = np.nanquantile(values[name], ENDS)
            ends = (f"{low:.4f}", f"{high:.4f}")
        yield (table, row, name, f"{whole:.4f}", *ends, *map(str, units))


def of_scores(label: Bool, score: Float64, threshold: float) -> dict[str, Statistic]:
    """Statistics of scores of rows, as the card has them."""

    def rates(rows: Rows) -> tuple[float | None, float | None]:
        found = confusion(label[rows], score[rows], threshold)
        return found.recall, found.false_positive_rate

    def precision(share: float) -> Statistic:
        return lambda rows: expected_precision(*rates(rows), share)

    return {
        "auroc": lambda rows: auroc(label[rows], score[rows]),
        "recall_at_1pct_fpr": lambda rows: recall_at_false_positive_rate(
            label[rows], score[rows], measures.ONE_PERCENT
        ),
        "recall": lambda rows: rates(rows)[0],
        "false_positive_rate": lambda rows: rates(rows)[1],
        **{f"at_{100 * share:g}_percent_virus": precision(share) for share in PREVALENCES},
    }


def _labels(given: Sequence[LabelledContig]) -> Bool:
    return np.array([fragment.label == 1 for fragment in given], np.bool_)


def _only(found: Mapping[str, Statistic], *names: str) -> dict[str, Statistic]:
    return {name: found[name] for name in names}


ACCURACY = ("auroc", "recall_at_1pct_fpr", "recall", "false_positive_rate")


def of_fixed(
    bundle: Bundle, classifier: Remembering, given: list[LabelledContig]
) -> Iterator[Line]:
    """Lines of the fixed fragments of the chunk length, by threshold, part and origin."""
    label = _labels(given)
    score = score_contigs(classifier, given, bundle.chunk_nt).chunk
    yield from lines_of("fixed_fragments", "", given, of_scores(label, score, bundle.threshold))
    for threshold in measures.THRESHOLDS:
        found = of_scores(label, score, threshold)
        kept = _only(found, "recall", "false_positive_rate", "at_1_percent_virus")
        yield from lines_of("by_threshold", f"{threshold:g}", given, kept)
    for name in ("group", "level", "source and level"):
        value = np.array(
            [f"{f.source} {f.level}" if " and " in name else getattr(f, name) for f in given]
        )
        for each in np.unique(value):
            inside = value == each
            sides = label[inside]
            both = bool(sides.any() and not sides.all())
            # A part of one side is set against all of the other.
            rows = np.flatnonzero(inside if both else inside | (label != sides.any()))
            found = of_scores(label[rows], score[rows], bundle.threshold)
            metrics = ["auroc"]
            metrics += ["recall"] if sides.any() else []
            metrics += ["false_positive_rate"] if not sides.all() else []
            part = [given[i] for i in rows]
            yield from lines_of("by_part", f"{name}: {each}", part, _only(found, *metrics))
    texts = [fragment.sequence.decode("ascii") for fragment in given]
    groups = classifier.score(texts).groups
    names = bundle.part("codon")["groups"]
    assert groups is not None
    named = np.array(names)[groups.argmax(1)]
    group = np.array([fragment.group for fragment in given])
    for each in names:
        if (inside := group == each).any():
            right, part = named[inside] == each, [f for f in given if f.group == each]
            yield from lines_of("by_origin", each, part, {"right": _share(right)})


def _share(hit: Bool) -> Statistic:
    return lambda rows: float(hit[rows].mean())


def of_val(val: Sequence[LabelledContig]) -> Iterator[Line]:
    """Lines with the records, bases and units of both sides of val."""
    for name, label in (("viral", 1), ("others", 0)):
        side = [contig for contig in val if contig.label == label]
        counts = {**described(side)}
        units = (str(counts["units"]), "0") if label else ("0", str(counts["units"]))
        for metric, key in (("records", "contigs"), ("bases", "bases"), ("units", "units")):
            yield ("val", name, metric, str(counts[key]), "", "", *units)


def by_novelty(
    bundle: Bundle, classifier: Remembering, fixed: Mapping[int, list[LabelledContig]]
) -> Iterator[Line]:
    """Lines of viruses by how near the nearest one of training is, against all others."""
    for length_nt, given in sorted(fixed.items()):
        score = score_contigs(classifier, given, bundle.chunk_nt).contig
        label = _labels(given)
        novelty = np.array([fragment.novelty for fragment in given])
        for name in ("all", "strict", *NOVELTIES):
            wanted = {"all": NOVELTIES, "strict": STRICT}.get(name, (name,))
            rows = np.flatnonzero(~label | np.isin(novelty, wanted))
            if not label[rows].any():
                continue
            found = of_scores(label[rows], score[rows], bundle.threshold)
            kept = _only(found, "auroc", "recall_at_1pct_fpr", "recall")
            part = [given[i] for i in rows]
            yield from lines_of("by_novelty", f"{length_nt} {name}", part, kept)


def by_length(
    bundle: Bundle, classifier: Remembering, val: Sequence[LabelledContig], per_side: int
) -> Iterator[Line]:
    """Lines of fragments that are cut from val at each length."""
    for length_nt in measures.LENGTHS_NT:
        given = fragments_at(val, length_nt, per_side)
        score = score_contigs(classifier, given, bundle.chunk_nt).contig
        found = of_scores(_labels(given), score, bundle.threshold)
        yield from lines_of("by_length", str(length_nt), given, found)


def of_changes(
    bundle: Bundle, classifier: Remembering, fixed: list[LabelledContig], per_side: int
) -> Iterator[Line]:
    """Lines of what errors of sequencing and the like cost, and of nonsense that is called."""
    given = robustness.sampled(fixed, per_side)
    label, usual = _labels(given), np.zeros(0)
    for name, change in robustness.changes_of(bundle.chunk_nt).items():
        score = score_contigs(classifier, change(given), bundle.chunk_nt).contig
        usual = score if not len(usual) else usual
        now = _only(of_scores(label, score, 0.5), "auroc", "recall_at_1pct_fpr")
        before = of_scores(label, usual, 0.5)

        losses = {f"{metric}_lost": _lost(before[metric], now[metric]) for metric in now}
        yield from lines_of("robustness", name, given, {**now, **losses})
    for name, side in (("viral", 1), ("other", 0)):
        part = [fragment for fragment in fixed if fragment.label == side]
        p_virus = classifier.score(fragments.shuffled(part)).p_virus
        called = {"called_virus": _share(p_virus >= bundle.threshold)}
        yield from lines_of("nonsense", f"shuffled {name} fragments", part, called)


def _lost(before: Statistic, now: Statistic) -> Statistic:
    return lambda rows: (before(rows) or 0) - (now(rows) or 0)


def of_others(bundle: Bundle, classifier: Remembering, data: Path, each: int) -> Iterator[Line]:
    """Lines of others of calibration units by group and level, and of the prophages cut out."""
    apart = [
        replace(contig, group=f"{contig.group}, {contig.level}")
        for contig in calibrate.calibration_side(data)
        if not contig.label
    ]
    names = sorted({c.group for c in apart if len(c.sequence) >= bundle.chunk_nt})
    drawn = fragments_at(apart, bundle.chunk_nt, each * len(names))
    stretches = sides.read_stretches(sides.PROPHAGES)
    folder = data / "more"
    more = read_two_sided([folder / "viral.fasta.gz"], [folder / "nonviral.fasta.gz"]).contigs
    step, cut = bundle.chunk_nt, []
    for contig in more:
        for start, end in stretches.get(contig.name.partition("|")[0], ()):
            places = range(start, end - step + 1, step)
            cut += [replace(contig, sequence=contig.sequence[at : at + step]) for at in places]
    parts = {name: [f for f in drawn if f.group == name] for name in names}
    parts["stretches cut out as prophages"] = cut[::EVERY]
    for name, part in parts.items():
        score = classifier.score([f.sequence.decode("ascii") for f in part]).p_virus
        found = of_scores(_labels(part), score, bundle.threshold)
        rate = _only(found, "false_positive_rate")
        yield from lines_of("never_fitted_on", f"{name} ({len(part)})", part, rate)


def of_records(
    bundle: Bundle, classifier: Remembering, val: Sequence[LabelledContig], most: int
) -> Iterator[Line]:
    """Lines of whole records at the calibrated threshold, by length."""
    calibration = bundle.calibration
    assert calibration is not None
    windows = windows_of(val, bundle.chunk_nt, most=most)
    records = score_records(classifier, windows, bundle.chunk_nt)
    score = calibration.rule.log_odds(records.evidence, records.called_nt)
    least = float(np.log(calibration.threshold / (1 - calibration.threshold)))
    for b, name in enumerate(calibration.bin_names()):
        inside = records.length_bin == b
        if not inside.any():
            continue
        pairs = zip(records.viral[inside], records.unit[inside], strict=True)
        given = [LabelledContig("", b"", int(v), unit=str(u)) for v, u in pairs]
        found = of_scores(records.viral[inside], score[inside], least)
        kept = _only(found, "recall", "false_positive_rate", "at_1_percent_virus")
        yield from lines_of("records", name, given, kept)


def measured(
    bundle: Bundle, known: dict[int, Scores], options: argparse.Namespace
) -> Iterator[Line]:
    """Yield all lines of a bundle."""
    data: Path = options.data
    classifier = Remembering(bundle.classifier(options.device, "fp32"), known)
    fixed = {length_nt: fragments.fixed(data, length_nt) for length_nt in sides.CHUNKS_NT}
    fixed[measures.SHORT_NT] = fragments.middles(
        data, fixed[min(sides.CHUNKS_NT)], measures.SHORT_NT
    )
    folder = data / "val"
    val = read_two_sided([folder / "viral.fasta.gz"], [folder / "nonviral.fasta.gz"]).contigs
    own = fixed[bundle.chunk_nt]
    yield from of_val(val)
    yield from of_fixed(bundle, classifier, own)
    yield from by_novelty(bundle, classifier, fixed)
    yield from by_length(bundle, classifier, val, options.per_side)
    yield from of_changes(bundle, classifier, own, options.per_side)
    yield from of_others(bundle, classifier, data, options.each)
    yield from of_records(bundle, classifier, val, options.most)


def main(arguments: list[str] | None = None) -> int:
    """Writes the table of each bundle that is named."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("bundles", nargs="+", help="name or folder")
    parser.add_argument("--data", type=Path, required=True, help="folder with train, more, val")
    parser.add_argument("--out", type=Path, default=CARDS)
    parser.add_argument("--device", default="cpu")
    parser.add_argument("--per-side", type=int, default=1000, help="fragments at each length")
    parser.add_argument("--each", type=int, default=100, help="fragments of a group and level")
    parser.add_argument("--most", type=int, default=400, help="records of a group and length")
    options = parser.parse_args(arguments)
    options.out.mkdir(parents=True, exist_ok=True)
    known: dict[int, Scores] = {}
    for name in options.bundles:
        bundle = load(name)
        with (options.out / f"{bundle.name}.tsv").open("w", encoding="utf-8") as file:
            print(*COLUMNS, sep="\t", file=file)
            for line in measured(bundle, known, options):
                print(*line, sep="\t", file=file, flush=True)
    return 0


if __name__ == "__main__":
    sys.exit(main())
