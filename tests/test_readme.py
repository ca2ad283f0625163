"""What README says of the embedded bundle is what its card says."""

import re

import pytest

from conftest import REPOSITORY
from virnucpro.bundle import load
from virnucpro.bundle.manifest import read_manifest

README = (REPOSITORY / "README.md").read_text("utf-8")
THRESHOLDS = (REPOSITORY / "docs" / "before-after.md").read_text("utf-8")
CARD = read_manifest(load("mini-500").path)["card"]


def found_and_wrong(records: str, *cuts: float) -> list[float]:
    """Per cent of the viral records found and of the others called, as docs/before-after.md says.

    In the order of the sentence: a cut behind each share found, "none" for no record called.
    """
    table = re.findall(r"^\|.*\|$", THRESHOLDS, re.MULTILINE)
    header, *rows = ([cell.strip() for cell in line.strip("|").split("|")] for line in table)
    at = [header.index(f"{cut:g}") for cut in cuts]
    (found, wrong) = (row for row in rows if row[0] == records)
    shares = [[re.fullmatch(r"(\d+) % \((\d+)\)", row[i]) for i in at] for row in (found, wrong)]
    numbers: list[float] = []
    for share, cut in zip(shares[0], cuts, strict=True):
        numbers += [int(share[1]), cut]
    return numbers + [int(share[1]) for share in shares[1] if share[2] != "0"]


def row_of(measured) -> str:
    return (
        f"| {measured['length_nt']:,} nt | {measured['auroc']:.3f} | "
        f"{100 * measured['recall_at_1pct_fpr']:.0f} % | {measured['kmer_auroc']:.3f} |"
    )


@pytest.mark.parametrize("measured", CARD["by_length"], ids=lambda row: str(row["length_nt"]))
def test_accuracy_by_length(measured):
    assert row_of(measured) in README


def test_what_a_call_means():
    fixed = CARD["fixed_fragments"]
    cut = next(row for row in CARD["by_threshold"] if row["threshold"] == 0.9)
    longest = CARD["by_length"][-1]
    said = README[README.index("**What a call means.**") : README.index("## Two commands")]
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
