"""The sides of the data that the embedded bundles are made from: fitted on, and kept apart."""

import csv
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path

from virnucpro.measure.labels import Labelled, LabelledContig, read_two_sided
from virnucpro.train.units import calibration_units

PROPHAGES = Path(__file__).with_name("prophages.tsv")
EUKARYOTES = ("fungi", "protozoa", "plant", "invertebrate", "vertebrate", "human")
UNRESOLVED = (
    ("unknown_virus", ("rna_virus", "dna_virus", "phage")),
    ("prokaryote_unresolved", ("bacteria", "archaea", "plasmid")),
    ("fungi_protozoa", ("fungi", "protozoa")),
    ("eukaryote_unresolved", EUKARYOTES),
)
CHUNKS_NT = (500, 300)
SHORTEST_NT = 75  # that a network is to score


def train_side(data: Path, parts: Sequence[str] = ("train", "more")) -> Labelled:
    """The contigs to train on, calibration units among them; val is never read here."""
    folders = [data / part for part in parts]
    return read_two_sided(
        [folder / "viral.fasta.gz" for folder in folders],
        [folder / "nonviral.fasta.gz" for folder in folders],
    )


def fitting_side(contigs: Sequence[LabelledContig]) -> list[LabelledContig]:
    """What networks are fitted on and chosen by: no calibration unit, and no prophage."""
    kept_apart = calibration_units(contigs)
    fitting = [contig for contig in contigs if contig.unit not in kept_apart]
    return without_stretches(fitting, read_stretches(PROPHAGES))


def read_stretches(table: Path) -> dict[str, list[tuple[int, int]]]:
    """Contig -> stretches [start, end), of a table with columns id, start, end."""
    found: dict[str, list[tuple[int, int]]] = {}
    with table.open(encoding="utf-8") as file:
        for row in csv.DictReader(file, delimiter="\t"):
            found.setdefault(row["id"], []).append((int(row["start"]), int(row["end"])))
    return found


def without_stretches(
    contigs: Sequence[LabelledContig], stretches: Mapping[str, Sequence[tuple[int, int]]]
) -> list[LabelledContig]:
    """The contigs with these stretches cut out, what is left between them each a contig."""
    found: list[LabelledContig] = []
    for contig in contigs:
        if not (cuts := stretches.get(contig.name.partition("|")[0])):
            found.append(contig)
            continue
        starts = [0, *(end for _, end in sorted(cuts))]
        ends = [*(start for start, _ in sorted(cuts)), len(contig.sequence)]
        for start, end in zip(starts, ends, strict=True):
            if end - start >= SHORTEST_NT:
                name, piece = f"{contig.name}:{start + 1}-{end}", contig.sequence[start:end]
                found.append(replace(contig, name=name, sequence=piece))
    return found
