"""How often regions are reported where there is no virus, and how often one is found.

    python bench/regions.py DATA [--bundle mini-500] [--threshold T ...]

DATA has val/nonviral.fasta.gz and val/viral.fasta.gz with headers `id|group|organism`. First the
sequences of 5 kb or more that are not viral, as they are; then bacterial windows of 15 kb or more,
each with five things put in after 10 kb: the genes of three runs of phage genes, one after the
other, and two viral sequences of 10 kb or more. A virus counts as found where a region covers at
least half of it; the ends are compared where the region covers it alone.
"""

import argparse
import gzip
import tempfile
from collections import Counter, defaultdict
from pathlib import Path

import numpy as np

from figures import table
from virnucpro.bundle import load
from virnucpro.results.regions import Odds, odds_of
from virnucpro.run.predict import predict

PLACE = 10_000
LEAST_HOST, LEAST_WINDOW, LEAST_VIRUS = 5_000, 15_000, 10_000


def records(path: Path) -> list[tuple[str, str]]:
    with gzip.open(path, "rt") as file:
        lines = [line.rstrip() for line in file]
    return [(head[1:], text) for head, text in zip(lines[::2], lines[1::2], strict=True)]


def inserts(viral: list[tuple[str, str]]) -> dict[str, str]:
    runs = defaultdict(list)
    for head, text in viral:
        if head.split("|")[1] == "phage":
            runs[head.split("|")[2]].append(text)
    phages = sorted(("".join(genes) for genes in runs.values()), key=len, reverse=True)
    long = [text for _, text in viral if len(text) > LEAST_VIRUS]
    return {f"insert{i}": text for i, text in enumerate([*phages[:3], *long[:2]])}


def rows(path: Path) -> list[dict[str, str]]:
    lines = [line.split("\t") for line in path.read_text().splitlines()]
    return [dict(zip(lines[0], line, strict=True)) for line in lines[1:]]


def measured(name: str, threshold: float, folder: Path, hosts: list[str], lengths: dict) -> list:
    """One row of the table."""
    odds = odds_of(load(name), threshold)
    if not isinstance(odds, Odds):
        return [f"{threshold:g}", "-", "-", odds, "", ""]
    regions = {}
    for part in ("hosts", "made"):
        out = folder / f"{part} {name}"
        predict(
            folder / f"{part}.fa",
            name,
            out,
            threshold=threshold,
            compat_tables=False,
            keep_blocks=True,
        )
        regions[part] = rows(out / "regions.tsv")
    false = Counter(row["contig"].split("|")[1] for row in regions["hosts"])
    records_with = len({row["contig"] for row in regions["hosts"]})
    found, off = set(), []
    for row in regions["made"]:
        start, end = int(row["start"]), int(row["end"])
        stop = PLACE + lengths[row["contig"]]
        if min(end, stop) - max(start, PLACE) >= (stop - PLACE) / 2:
            found.add(row["contig"])
            off += [abs(start - PLACE), abs(end - stop)]
    groups = ", ".join(f"{group} {number}" for group, number in false.most_common())
    return [
        f"{threshold:g}",
        f"{odds.recall:.3f}, {odds.false_positive_rate:.3f}",
        str(odds.fewest_chunks),
        f"{records_with} of {len(hosts)} ({groups})",
        f"{len(found)} of {len(lengths)}",
        f"{np.median(off):,.0f} nt" if off else "",
    ]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("data", type=Path)
    parser.add_argument("--bundle", default="mini-500")
    parser.add_argument("--threshold", type=float, nargs="+", default=[0.5, 0.7, 0.8, 0.9])
    options = parser.parse_args()
    nonviral = records(options.data / "val" / "nonviral.fasta.gz")
    viral = records(options.data / "val" / "viral.fasta.gz")
    hosts = [(head, text) for head, text in nonviral if len(text) >= LEAST_HOST]
    windows = [
        text
        for head, text in hosts
        if head.split("|")[1] == "bacteria" and len(text) >= LEAST_WINDOW
    ]
    made, lengths = [], {}
    for i, window in enumerate(windows):
        for name, text in inserts(viral).items():
            made.append((f"w{i}_{name}", window[:PLACE] + text + window[PLACE:]))
            lengths[made[-1][0]] = len(text)
    with tempfile.TemporaryDirectory() as place:
        folder = Path(place)
        for name, entries in (("hosts", hosts), ("made", made)):
            text = "".join(f">{head}\n{sequence}\n" for head, sequence in entries)
            (folder / f"{name}.fa").write_text(text)
        head = ["threshold", "r, f", "fewest chunks", "hosts with a region", "found", "ends off by"]
        lines = [
            measured(options.bundle, t, folder, [head for head, _ in hosts], lengths)
            for t in options.threshold
        ]
        print(table(head, lines))


if __name__ == "__main__":
    main()
