"""How many calls of read pairs are wrong, and how many a run expects to be, by how far mates lie.

    python bench/pairs.py mini-500 --data DATA

DATA has val. Draws as many pairs of viral as of other units, one after the other of a unit, a
record and a place of it by chance, and runs `predict --interleaved --prior 0.5`. The distance is
that of the outer ends of two mates: twice the length of a read where they meet, less where they
overlap.
"""

import argparse
import json
import sys
import tempfile
from pathlib import Path

import numpy as np

from figures import table
from virnucpro.measure.labels import LabelledContig, read_two_sided
from virnucpro.run.predict import predict

HEADER = ["bundle", "distance, nt", "of", "called", "wrong", "expected", "at most"]
_COMPLEMENT = bytes.maketrans(b"ACGT", b"TGCA")


def pairs(contigs: list[LabelledContig], number: int, read_nt: int, distance: int) -> str:
    """FASTA of so many viral pairs and as many others, named by label."""
    rng = np.random.default_rng(0)
    text = []
    for label in (1, 0):
        units: dict[str, list[bytes]] = {}
        for contig in contigs:
            if contig.label == label and len(contig.sequence) >= distance:
                units.setdefault(contig.unit or contig.name, []).append(contig.sequence)
        names = sorted(units)
        for i in range(number):
            of_unit = units[names[rng.integers(len(names))]]
            sequence = of_unit[rng.integers(len(of_unit))]
            start = rng.integers(len(sequence) - distance + 1)
            piece = sequence[start : start + distance]
            mates = piece[:read_nt], piece[-read_nt:].translate(_COMPLEMENT)[::-1]
            text += [f">{label}_{i}/{m}\n{mate.decode()}\n" for m, mate in enumerate(mates, 1)]
    return "".join(text)


def called(path: Path, name: str) -> tuple[int, int]:
    """How many rows of a table are called virus, and how many of these are not."""
    lines = [line.split("\t") for line in path.read_text().splitlines()]
    rows = [dict(zip(lines[0], line, strict=True)) for line in lines[1:]]
    virus = [row for row in rows if row["call"] == "virus"]
    return len(virus), sum(row[name].startswith("0_") for row in virus)


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("bundles", nargs="+")
    parser.add_argument("--data", type=Path, required=True, help="folder with val")
    parser.add_argument("--pairs", type=int, default=2_000)
    parser.add_argument("--read-nt", type=int, default=150)
    parser.add_argument("--distances", type=int, nargs="+", default=[400, 300, 250, 150])
    options = parser.parse_args()
    folder = options.data / "val"
    val = read_two_sided([folder / "viral.fasta.gz"], [folder / "nonviral.fasta.gz"])
    rows = []
    with tempfile.TemporaryDirectory() as name:
        for distance in options.distances:
            path = Path(name) / f"{distance}.fa"
            path.write_text(pairs(val.contigs, options.pairs, options.read_nt, distance))
            for bundle in options.bundles:
                run = Path(name) / f"{bundle}-{distance}"
                predict(path, bundle, run, pairs="interleaved", prior=0.5)
                worth = json.loads((run / "run.json").read_text())["worth"]
                for of, told, file, column in (
                    ("pairs", worth["pairs"], "pairs.tsv", "template"),
                    ("reads", worth, "contigs.tsv", "contig"),
                ):
                    numbers = (*called(run / file, column), told["wrong"], told["wrong_bound"])
                    rows.append(
                        [
                            bundle,
                            str(distance),
                            of,
                            *("" if n is None else f"{n:,.0f}" for n in numbers),
                        ]
                    )
    print(table(HEADER, rows))
    return 0


if __name__ == "__main__":
    sys.exit(main())
