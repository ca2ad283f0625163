"""Writes the card of each embedded network as a page, from its manifest and its intervals alone.

    python recipes/card.py

docs/cards/NAME.md is made of bundle.toml and docs/cards/NAME.tsv, which intervals.py measures.
"""

import csv
import sys
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import mini
from virnucpro.bundle import load
from virnucpro.bundle.manifest import Bundle, read_manifest

CARDS = Path(__file__).resolve().parents[1] / "docs" / "cards"
PROPHAGES = Path(__file__).with_name("prophages.tsv")
# Power limits as NVIDIA states them.
WATTS = {"NVIDIA H200": 700}
FEW = 5
RATES = ("recall", "false_positive_rate")
COUNTS = ("records", "bases", "units")
NAMES = {
    "auroc": "AUROC",
    "recall_at_1pct_fpr": "viral found at 1 % false positives",
    "recall": "viral found",
    "false_positive_rate": "others called virus",
    "precision_at_1_percent": "calls right at 1 % virus",
    "auroc_lost": "AUROC lost",
    "recall_at_1pct_fpr_lost": "viral found at 1 % lost",
    "right": "right",
    "called_virus": "called virus",
    "at_1_percent_virus": "calls right at 1 % virus",
}

Row = Mapping[str, Any]
Key = tuple[str, str, str]


class Intervals:
    """The lines of NAME.tsv by table, row and metric."""

    def __init__(self, path: Path) -> None:
        with path.open(encoding="utf-8") as file:
            lines = [*csv.DictReader(file, delimiter="\t")]
        self.lines: dict[Key, dict[str, str]] = {
            (line["table"], line["row"], line["metric"]): line for line in lines
        }

    def text(self, table: str, row: str, metric: str, value: float | None = None) -> str:
        """Return a number with the ends of its interval. value: as the manifest has it."""
        line = self.lines.get((table, row, metric))
        if value is None:
            if line is None:
                return ""
            value = float(line["value"])
        if line is None or not line["low"]:
            return f"{value:.3f}"
        return f"{value:.3f} ({float(line['low']):.3f} to {float(line['high']):.3f})"

    def units(self, table: str, row: str, side: str) -> int:
        """Return the units of a side, viral or other, of the first metric of a row; 0: unknown."""
        found = (v for (t, r, _), v in self.lines.items() if (t, r) == (table, row))
        line = next(found, None)
        return 0 if line is None else int(line[f"{side}_units"])

    def rows(self, table: str) -> list[str]:
        """Return the rows of a table in order."""
        return [*dict.fromkeys(row for name, row, _ in self.lines if name == table)]


def page(name: str) -> str:
    """Return the page of a bundle."""
    bundle = load(name)
    manifest = read_manifest(bundle.path)
    intervals = Intervals(CARDS / f"{bundle.name}.tsv")
    parts = (
        _about(bundle, manifest),
        _remembered(manifest["protein_kmers"]),
        _use(bundle, manifest["card"], intervals),
        _splits(manifest, intervals),
        _accuracy(manifest, intervals),
        _failures(manifest, intervals),
        _cost(manifest["training"]),
        _again(),
        _data(manifest),
    )
    return "\n\n".join("\n".join(part) for part in parts) + "\n"


def _about(bundle: Bundle, manifest: Row) -> Iterator[str]:
    training = manifest["training"]
    yield f"# Card of {bundle.name}"
    yield ""
    yield f"{bundle.description} It scores chunks of {bundle.chunk_nt} nt and shorter ones."
    yield ""
    yield from _table(
        ("", ""),
        [
            ("sha256 of bundle.toml", f"`{bundle.sha256}`"),
            *((f"sha256 of {file}", f"`{sha256}`") for file, sha256 in bundle.files.items()),
            ("parameters", f"{training['parameters']:,}"),
            ("trained with", f"{training['precision']}, {training['device']}"),
            ("licence", "that of the program, MIT; those of the data stand below"),
        ],
    )
    yield ""
    yield (
        "Numbers are shares from 0 to 1. Ends of 95 % intervals stand in brackets: percentiles of "
        "1,000 resamples (seed 0) of whole units, those of viruses and of others apart. "
        "`recipes/intervals.py` measured them on an H200. A side of one unit has no interval, and "
        f"one of fewer than {FEW} units has one that is too narrow."
    )


def _remembered(kmers: Row) -> Iterator[str]:
    training = kmers["training"]
    held, losses, contigs = training["kmers"], training["log_loss"], training["contigs"]
    yield "## What it remembers"
    yield ""
    yield (
        f"Beside the network, one in {kmers['sampled']} of the protein {kmers['k']}-mers of what "
        f"it was fitted on and chosen by ({contigs['units']:,} units, "
        f"{contigs['bases'] / 1e6:.1f} Mb): {held['virus']:,} that occur in viruses only, and "
        f"{held['others']:,} that {training['settings']['others_units']} units of others or more "
        "share and no virus has ([how they are used](../bundles.md#known-and-unknown-viruses)). "
        "By their number in one frame, they add to the logit of the network:"
    )
    yield ""
    counts = range(1, len(kmers["weights"]["virus"]))
    rows = [
        (f"of {side}", *(f"{kmers['weights'][side][n]:+.1f}" for n in counts))
        for side in ("virus", "others")
    ]
    yield from _table(("k-mers", *map(str, counts[:-1]), f"{counts[-1]} or more"), rows)
    yield ""
    yield (
        f"The weights were fitted on {training['weights_fitted_on']['units']:,} units that chose "
        "the network, before their k-mers were added; the log loss there fell from "
        f"{losses['before']:.3f} to {losses['after']:.3f}."
    )


def _use(bundle: Bundle, card: Row, intervals: Intervals) -> Iterator[str]:
    fixed, at_1 = card["fixed_fragments"], "at_1_percent_virus"
    right = intervals.text("fixed_fragments", "", at_1, card["expected_precision"][at_1])
    area = intervals.text("fixed_fragments", "", "auroc", fixed["auroc"])
    yield "## What it is for"
    yield ""
    yield (
        "To rank sequences and reads by how viral they look, and to choose which to look at. Where "
        f"1 % of the chunks are viral, {right} of its calls at {bundle.threshold:g} are right: a "
        "call says where to look, and is not a finding. It does not name taxa, does not tell a "
        "prophage from a virus, is not for diagnosis, and was not measured on sequences shorter "
        f"than {bundle.validated_nt} nt. On the fixed fragments its AUROC is {area}, that of the "
        f"k-mer baseline {fixed['kmer_auroc']:.3f}."
    )


def _splits(manifest: Row, intervals: Intervals) -> Iterator[str]:
    training = manifest["training"]
    with PROPHAGES.open(encoding="utf-8") as file:
        cut = [int(row["end"]) - int(row["start"]) for row in csv.DictReader(file, delimiter="\t")]
    yield "## Splits"
    yield ""
    yield (
        "By unit, never by file: a virus family, a genus, a genome or a block of a chromosome. No "
        "record of val is in training, but relatives of some of its viruses are (by novelty, "
        "below)."
    )
    yield ""
    rows = [
        (what, *(f"{training[part][n]:,}" for n in ("contigs", "bases", "units")))
        for what, part in (
            ("fitted on", "fitting"),
            ("chose the snapshot", "slice"),
            ("kept for calibration, with rRNA, which its fit leaves out", "calibration"),
        )
    ]
    rows += [
        (
            f"val, {side}",
            *(f"{float(intervals.lines['val', side, n]['value']):,.0f}" for n in COUNTS),
        )
        for side in intervals.rows("val")
    ]
    yield from _table(("part", *COUNTS), rows)
    yield ""
    yield (
        f"Left out: {len(cut)} stretches of {sum(cut) / 1e6:.1f} Mb in windows of prokaryotes that "
        "look like prophages (`recipes/prophages.tsv`), since they are labelled as others; and, "
        "when the data were made, viruses of `train` that resemble held-out ones (45 % identity of "
        "protein over 50 residues), near-identical genomes, non-viral records that resemble a DNA "
        "virus (85 % over 200 bp), and records with 5 % or more letters other than A, C, G, T. "
        "Viruses of `more` were not left out for resembling val; how near they are was measured."
    )


def _accuracy(manifest: Row, intervals: Intervals) -> Iterator[str]:
    card = manifest["card"]
    found = _Tables(intervals)
    fixed = card["fixed_fragments"]
    yield "## Accuracy"
    yield ""
    yield (
        f"Fixed fragments of val of {manifest['chunk_nt']} nt, {fixed['viral']:,} viral and "
        f"{fixed['others']:,} others, in fp32, at a threshold of {manifest['threshold']:g}:"
    )
    yield ""
    metrics = ("auroc", "recall_at_1pct_fpr", "recall", "false_positive_rate")
    yield from found.of("fixed_fragments", "fragments", [("", fixed)], metrics, ("all",))
    yield ""
    yield "By threshold:"
    yield ""
    rows = [(f"{row['threshold']:g}", row) for row in card["by_threshold"]]
    rates = ("recall", "false_positive_rate", "precision_at_1_percent")
    yield from found.of("by_threshold", "`p_virus` from", rows, rates)
    yield ""
    yield "By length, fragments cut from val:"
    yield ""
    rows = [(str(row["length_nt"]), row) for row in card["by_length"]]
    yield from found.of("by_length", "nt", rows, (*metrics, "at_1_percent_virus"))
    yield ""
    yield (
        "By the identity of the nearest protein of a virus of training: `unseen` none, `distant` "
        "under 45 %, both together `strict`; `related` under 70 %, `close` under 90 %, `known` "
        "from there on:"
    )
    yield ""
    rows = [(f"{row['length_nt']} {row['novelty']}", row) for row in card["by_novelty"]]
    yield from found.of("by_novelty", "nt, novelty", rows, metrics[:3])
    yield ""
    yield "By group, level, and source and level, each against all of the other side:"
    yield ""
    rows = [
        (f"{row['part']}: {row['value']}", row)
        for row in card["by_part"]
        if row["part"] != "source"
    ]
    yield from found.of(
        "by_part", "part", rows, ("auroc", "recall", "false_positive_rate"), units=True
    )
    yield ""
    yield "How often the group that is named is right, of all fragments of a group:"
    yield ""
    rows = [(row["group"], row) for row in card["by_origin"]]
    yield from found.of("by_origin", "group", rows, ("right",), units=True)
    calibration = manifest["calibration"]
    measured = "" if intervals.rows("records") else " (intervals were not measured)"
    yield ""
    yield (
        "Windows of records of val, up to 25 from each unit, scored as records and called virus "
        f"from a calibrated `p_virus` of {calibration['threshold']:g} on{measured}:"
    )
    yield ""
    rows = [(row["length"], row) for row in calibration["by_length"]]
    yield from found.of("records", "length", rows, ("recall", "false_positive_rate"))


def _failures(manifest: Row, intervals: Intervals) -> Iterator[str]:
    card, found = manifest["card"], _Tables(intervals)
    groups = [row for row in card["by_part"] if row["part"] == "group"]
    hosts = sorted(
        (row for row in groups if "false_positive_rate" in row),
        key=lambda row: -row["false_positive_rate"],
    )[:3]
    viruses = sorted((row for row in groups if "recall" in row), key=lambda row: row["recall"])[:2]
    changes = {row["change"]: row for row in card["robustness"]}

    def of_group(row: Row, metric: str) -> str:
        key = f"group: {row['value']}"
        return f"{row['value']} {intervals.text('by_part', key, metric, row[metric])}"

    def lost(change: str) -> str:
        return intervals.text("robustness", change, "auroc_lost", changes[change]["auroc_lost"])

    short = card["by_length"][0]
    yield "## Where it fails"
    yield ""
    said = "; ".join(of_group(row, "false_positive_rate") for row in hosts)
    yield f"- **Hosts that look viral**, by what is called virus at the threshold: {said}."
    said = "; ".join(of_group(row, "recall") for row in viruses)
    yield f"- **Viruses that it finds least**: {said}."
    yield (
        f"- **Short fragments**: AUROC {short['auroc']:.3f} at {short['length_nt']} nt, where "
        f"{short['false_positive_rate']:.3f} of others are called virus."
    )
    yield (
        "- **Errors of reads**: insertions and deletions cost most, an AUROC of "
        f"{lost('0.5 % insertions and deletions')} at 0.5 % and "
        f"{lost('2 % insertions and deletions')} at 2 %; 5 % substitutions cost "
        f"{lost('5 % substitutions')}."
    )
    yield (
        "- **Chimeras**: where the second half is of a fragment that is not viral, "
        f"{lost('half of another fragment, not viral')} of AUROC."
    )
    yield (
        "- **Recoded genomes**: 0.02 to 0.05 of AUROC, on viruses of val recoded to codes 4 and 15 "
        "([genetic codes](../genetic-codes.md))."
    )
    yield (
        "- **Few species**: plants, vertebrates and protozoa of val are one unit each, and human "
        "and invertebrates three; their numbers say little of other species."
    )
    never = intervals.rows("never_fitted_on")
    if len(never) > FEW:
        metric = "false_positive_rate"
        rates = {
            row: float(intervals.lines["never_fitted_on", row, metric]["value"]) for row in never
        }
        worst = sorted(never[:-1], key=lambda row: -rates[row])[:FEW]
        said = "; ".join(f"{row} {intervals.text('never_fitted_on', row, metric)}" for row in worst)
        yield f"- **Others that it was not fitted on**, by group and level (chunks), worst: {said}."
        said = intervals.text("never_fitted_on", never[-1], metric)
        yield (
            f"- **Prophages**: {said} of the chunks of what was cut out as prophages are called "
            "virus. The first version chose these stretches, since it scored them high."
        )
    yield ""
    yield "Changed fragments, viral and other ones alike:"
    yield ""
    rows = [(row["change"], row) for row in card["robustness"]]
    metrics = ("auroc", "auroc_lost", "recall_at_1pct_fpr", "recall_at_1pct_fpr_lost")
    yield from found.of("robustness", "change", rows, metrics)
    yield ""
    yield "Letters without origin:"
    yield ""
    rows = [(row["kind"], row) for row in card["nonsense"]]
    yield from found.of("nonsense", "kind", rows, ("called_virus",))
    if never:
        yield ""
        yield (
            f"Others that no network was fitted on, chunks of {manifest['chunk_nt']} nt at the "
            "threshold, by group and level (number of chunks):"
        )
        yield ""
        others = [(row, {}) for row in never]
        metrics = ("false_positive_rate",)
        yield from found.of("never_fitted_on", "group, level", others, metrics, units=True)


def _cost(training: Row) -> Iterator[str]:
    hours = training["seconds"] / 3600
    device = training["device"].partition("(")[2].rstrip(")")
    yield "## Hours and energy"
    yield ""
    yield (
        f"Training took {training['seconds']:,.0f} s ({hours:.2f} h) of one {device}: "
        f"{len(training['networks'])} networks one after the other, with the evaluations of "
        "snapshots; tests ran beside two of them. Energy was not measured. A bound is the power "
        f"limit of the GPU times the hours: {WATTS[device]} W, "
        f"{hours * WATTS[device] / 1000:.2f} kWh, the host not counted. What else was tried "
        "(`recipes/README.md`): networks of 934, 574 and 559 s of an H200, two of 82 and 73 s, six "
        "of about 530 s and six of 4,500 steps on a third of one, four of 290 to 344 s of an H100, "
        "and five of 5,000 steps beside a larger one of 9,500 (1,275 s of one H200). The time "
        "of a distillation of 9,500 steps, of measuring cards and of earlier trials was not "
        "recorded."
    )


def _again() -> Iterator[str]:
    yield "## Training it again"
    yield ""
    yield "    python recipes/mini.py --data ../shared/data --out OUT --device cuda:0"
    yield ""
    yield (
        "fits, writes, measures and calibrates `mini-500-v2`, `mini-300-v2` and their baselines, "
        "and ends with exit code 1 if a card is further from the embedded one than noise. Noise is "
        f"{mini.NOISE:g} of AUROC on the fixed fragments: the weights were trained on a GPU, where "
        "the same seed gives other last bits and may choose another snapshot. Repeats of the "
        "whole recipe were not made; the networks that are averaged differ by 0.001 to 0.002, "
        "networks of other sizes by up to 0.009 (`recipes/README.md`), and by up to 0.08 in what "
        "they find at 1 % false positives. "
        "Without a GPU, `--device cpu --only train --steps 2` tries the command out."
    )


def _data(manifest: Row) -> Iterator[str]:
    training, sources = manifest["training"], manifest["card"]["sources"]
    yield "## Data"
    yield ""
    yield from _table(
        ("file", "sha256"), [(name, f"`{sha256}`") for name, sha256 in training["data"].items()]
    )
    yield ""
    total = sum(row["bases"] for row in sources)
    silent = sum(row["bases"] for row in sources if row["licence"].startswith("none found"))
    yield (
        f"{len(sources)} sources, {total / 1e6:.0f} Mb. Licences are those that the collections "
        "state for themselves; the sequences are entries of public databases. For "
        f"{100 * silent / total:.0f} % of the bases none was found."
    )
    yield ""
    yield from _table(
        ("source", "records", "Mb", "licence stated"),
        [
            (r["source"], f"{r['records']:,}", f"{r['bases'] / 1e6:.2f}", r["licence"])
            for r in sources
        ],
    )


class _Tables:
    """Tables of the card with their intervals."""

    def __init__(self, intervals: Intervals) -> None:
        self._intervals = intervals

    def of(
        self,
        table: str,
        first: str,
        rows: Sequence[tuple[str, Row]],
        metrics: Sequence[str],
        names: Sequence[str] = (),
        *,
        units: bool = False,
    ) -> Iterator[str]:
        """Yield a table. names: shown instead of the keys of rows."""
        header = (first, *(NAMES[metric] for metric in metrics), *(["units"] if units else []))
        lines = []
        for place, (key, row) in enumerate(rows):
            cells = [self._cell(table, key, metric, row) for metric in metrics]
            if units:
                sides = {"viral": "false_positive_rate", "other": "recall"}
                own = [s for s, of_other in sides.items() if {*row} & {*RATES} != {of_other}]
                counts = [self._intervals.units(table, key, side) for side in own]
                cells.append(" + ".join(str(count) for count in counts if count))
            lines.append((names[place] if names else key, *cells))
        yield from _table(header, lines)

    def _cell(self, table: str, key: str, metric: str, row: Row) -> str:
        if row and metric not in row:
            return ""
        as_measured = {"precision_at_1_percent": "at_1_percent_virus"}.get(metric, metric)
        return self._intervals.text(table, key, as_measured, row.get(metric))


def _table(header: Sequence[str], rows: Sequence[Sequence[str]]) -> Iterator[str]:
    for cells in (header, ["---"] * len(header), *rows):
        yield f"| {' | '.join(cells)} |"


def main() -> int:
    """Writes the page of every bundle whose intervals were measured."""
    for path in sorted(CARDS.glob("*.tsv")):
        path.with_suffix(".md").write_text(page(path.stem), "utf-8")
    return 0


if __name__ == "__main__":
    sys.exit(main())
