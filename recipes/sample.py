"""Makes examples/sample.fasta: records of the validation genomes that are public references.

python recipes/sample.py ../shared/data/val examples/sample.fasta
"""

import argparse
import gzip
import textwrap
from pathlib import Path

# id in the data -> header here: accession (with the window, 0-based half-open) and organism
VIRAL = {
    "GU327363.1": "GU327363.1 Cucumber mosaic virus",
    "EU680971.1": "EU680971.1 Pteromalus puparum small RNA-containing virus",
    "KC562231.1": "KC562231.1 Human metapneumovirus",
    "AF059243.1": "AF059243.1 Enterobacteria phage NL95",
    "EU929075.1": "EU929075.1 Asama virus",
    "JN857329.1": "JN857329.1 Circoviridae batCV-SC703",
}
CELLULAR = {
    "NC_000854.2_0": "NC_000854.2:0-20000 Aeropyrum pernix K1",
    "NC_010104.1_1080000": "NC_010104.1:1080000-1100000 Brucella canis ATCC 23365",
    "Plasmodium_f_NC_037283.1_3000000": "NC_037283.1:3000000-3020000 Plasmodium falciparum",
    "godb_NC_015121.1_Vigna_radiata_mitochondrion_complete_genome_0": (
        "NC_015121.1:0-20000 Vigna radiata mitochondrion"
    ),
    "tiara_mitochondria_mitochondria_NC_018542.1_0_15000_0": (
        "NC_018542.1:0-5000 Alulatettix yunnanensis mitochondrion"
    ),
    "mpa2_NC_022567.1_1747395-1747742": (
        "NC_022567.1:1747394-1747742 Adlercreutzia equolifaciens, a gene"
    ),
}


def records(path: Path) -> dict[str, str]:
    """Sequences by the id before the first bar of their header."""
    with gzip.open(path, "rt", encoding="ascii") as file:
        lines = file.read().split("\n")
    return {h[1:].partition("|")[0]: s for h, s in zip(lines[::2], lines[1::2], strict=False)}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("val", type=Path)
    parser.add_argument("out", type=Path)
    arguments = parser.parse_args()
    with arguments.out.open("w", encoding="ascii") as out:
        for side, wanted in (("viral", VIRAL), ("nonviral", CELLULAR)):
            found = records(arguments.val / f"{side}.fasta.gz")
            for name, header in wanted.items():
                out.write(f">{header}\n" + "\n".join(textwrap.wrap(found[name], 70)) + "\n")


if __name__ == "__main__":
    main()
