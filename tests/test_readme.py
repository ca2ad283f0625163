"""README and docs/before-after.md say of the embedded bundle what its card says."""

import re

import pytest

from conftest import REPOSITORY
from virnucpro.bundle import load
from virnucpro.bundle.manifest import read_manifest

README = (REPOSITORY / "README.md").read_text("utf-8")
WORTH = (REPOSITORY / "docs" / "before-after.md").read_text("utf-8")
CARD = read_manifest(load("mini-500").path)["card"]


def found_and_wrong(records: str, *cuts: float) -> list[float]:
    """Per cent of the viral records found and of the others called, as docs/before-after.md says.

    In the order of the sentence: a cut behind each share found, "none" for no record called.
    """
    table = re.findall(r"^\|.*\|$", WORTH[WORTH.index("## Which threshold") :], re.MULTILINE)
    header, *rows = ([cell.strip() for cell in line.strip("|").split("|")] for line in table)
    at = [header.index(f"{cut:g}") for cut in cuts]
    (found, wrong) = (row for row in rows if row[0] == records)
    shares = [[re.fullmatch(r"(\d+) % \((\d+)\)", row[i]) for i in at] for row in (found, wrong)]
    numbers: list[float] = []
    for share, cut in zip(shares[0], cuts, strict=True):
        numbers += [int(share[1]), cut]
    return numbers + [int(share[1]) for share in shares[1] if share[2] != "0"]


def row_of(measured) -> str:
    found = 100 * measured["recall_at_1pct_fpr"]
    return f"| {measured['length_nt']:,} nt | {measured['auroc']:.3f} | {found:.0f} % |"


@pytest.mark.parametrize("measured", CARD["by_length"], ids=lambda row: str(row["length_nt"]))
def test_accuracy_by_length(measured):
    assert f"{row_of(measured)} {measured['kmer_auroc']:.3f} |" in WORTH


def test_readme_has_some_of_it():
    rows = re.findall(r"^\| [\d,]+ nt .*$", README, re.MULTILINE)
    assert len(rows) == 4
    assert {*rows} < {row_of(measured) for measured in CARD["by_length"]}
    right = CARD["expected_precision"]["at_1_percent_virus"]
    assert f"about {100 * right:.0f} of 100 chunks of 500 nt called virus are viral" in README


def test_readme_comes_to_the_point():
    assert len(README[: README.index("virnucpro predict examples")].split()) < 90
    assert len(README[: README.index("## Further")].split()) < 450


def test_what_a_call_means():
    fixed = CARD["fixed_fragments"]
    cut = next(row for row in CARD["by_threshold"] if row["threshold"] == 0.9)
    longest = CARD["by_length"][-1]
    said = WORTH[WORTH.index("## What a call means") : WORTH.index("`mini-500` on validation")]
    numbers = [float(n.replace(",", "")) for n in re.findall(r"\d[\d,]*\.?\d*", said)]
    rates = {part["value"]: part.get("false_positive_rate") for part in CARD["by_part"]}
    groups = ("human", "fungi", "bacteria", "fungi_protozoa")
    measured = [
        *(fixed["viral"] + fixed["others"], 500, 500),
        *(round(100 * fixed["recall"]), round(100 * fixed["false_positive_rate"])),
        *(round(fixed["auroc"], 3), 95),
        *(float(f"{fixed['auroc_low']:.3f}"), float(f"{fixed['auroc_high']:.3f}")),
        *(1, round(100 * CARD["expected_precision"]["at_1_percent_virus"]), 100),
        *(0.9, round(100 * cut["precision_at_1_percent"]), 100, round(100 * cut["recall"])),
        # By `python bench/contigs.py`: no card has it.
        *(3000, *found_and_wrong("over 3,000 nt", 0.5, 0.6, 0.9)),
        *(2000, round(100 * longest["false_positive_rate"])),
        *(round(100 * rates[group]) for group in groups),
        500,
    ]
    assert numbers == measured
