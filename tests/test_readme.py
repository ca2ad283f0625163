"""README and docs/before-after.md say of the embedded bundle what its card says."""

import re

import pytest

from conftest import REPOSITORY
from virnucpro.bundle import load
from virnucpro.bundle.manifest import read_manifest
from virnucpro.measure.labels import NOVELTIES

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


def interval_of(measured, name: str) -> tuple[float, float]:
    return measured[f"{name}_low"], measured[f"{name}_high"]


def test_accuracy_by_novelty():
    rows = {(row["length_nt"], row["novelty"]): row for row in CARD["by_novelty"]}
    table = WORTH[
        WORTH.index("| nearest virus in training") : WORTH.index("Of the fragments of 500")
    ]
    lines = [line.strip("|").split(" | ") for line in table.splitlines()[2:] if line]
    assert [re.findall(r"\w+", line[0])[0] for line in lines] == ["strictly", *NOVELTIES, "all"]
    for novelty, line in zip(("strict", *NOVELTIES, "all"), lines, strict=True):
        cells = []
        for length_nt in (150, 300, 500):
            row = rows[length_nt, novelty]
            low, high = interval_of(row, "auroc")
            cells.append(f"{row['auroc']:.3f} ({low:.3f}-{high:.3f})")
            low, high = interval_of(row, "recall_at_1pct_fpr")
            found = 100 * row["recall_at_1pct_fpr"]
            cells.append(f"{found:.0f} % ({100 * low:.0f}-{100 * high:.0f})")
        assert [cell.strip() for cell in line[1:]] == cells
    strict, known = rows[500, "strict"], rows[500, "known"]
    said = README[README.index("Of viruses unlike those") : README.index("## The published model")]
    assert (
        f"it finds {100 * strict['recall_at_1pct_fpr']:.0f} % at 500 nt "
        f"(AUROC {strict['auroc']:.3f})"
    ) in said
    assert f"it holds, {100 * known['recall_at_1pct_fpr']:.1f} %, at" in said


def test_what_changes_and_nonsense_do():
    whole = CARD["fixed_fragments"]
    one, five = CARD["by_substitutions"]
    called = [f"{100 * row['called_virus']:.1f} %" for row in CARD["nonsense"]]
    assert (
        f"with 1 % of the letters substituted the AUROC is {one['auroc']:.3f}, with 5 % "
        f"{five['auroc']:.3f}, and {100 * one['recall_at_1pct_fpr']:.0f} and "
        f"{100 * five['recall_at_1pct_fpr']:.0f} % are found at 1 % false positives "
        f"({whole['auroc']:.3f} and {100 * whole['recall_at_1pct_fpr']:.0f} % as they are). Of "
        f"shuffled viral fragments {called[0]} are called virus, of shuffled others {called[1]}, "
        f"of tandem repeats {called[2]}."
    ) in WORTH


def test_readme_comes_to_the_point():
    assert len(README[: README.index("virnucpro predict examples")].split()) < 90
    assert len(README[: README.index("## Further")].split()) < 450


def test_what_a_call_means():
    fixed = CARD["fixed_fragments"]
    cut = next(row for row in CARD["by_threshold"] if row["threshold"] == 0.9)
    windows = read_manifest(load("mini-500").path)["calibration"]["by_length"]
    wrong = [round(100 * row["false_positive_rate"]) for row in windows]
    said = WORTH[WORTH.index("## What a call means") : WORTH.index("`mini-500` on validation")]
    numbers = [float(n.replace(",", "")) for n in re.findall(r"\d[\d,]*\.?\d*", said)]
    rates = {part["value"]: part.get("false_positive_rate") for part in CARD["by_part"]}
    groups = ("human", "fungi", "bacteria", "fungi_protozoa")
    measured = [
        *(fixed["viral"] + fixed["others"], 500, 500, 0.5),
        *(round(100 * fixed["recall"]), round(100 * fixed["false_positive_rate"])),
        *(round(fixed["auroc"], 3), 95),
        *(float(f"{fixed['auroc_low']:.3f}"), float(f"{fixed['auroc_high']:.3f}")),
        *(1, round(100 * CARD["expected_precision"]["at_1_percent_virus"]), 100),
        *(0.9, round(100 * cut["precision_at_1_percent"]), 100, round(100 * cut["recall"])),
        # By `python bench/contigs.py`: no card has it.
        *(3000, *found_and_wrong("over 3,000 nt", 0.5, 0.77, 0.99)),
        *(1001, 3000, *found_and_wrong("1,001 to 3,000 nt", 0.5, 0.77, 0.99)[-3:]),
        *(25, wrong[2], 550, 2050, wrong[3], 6050, wrong[4], 0.77),
        *(0.5, *(round(100 * rates[group]) for group in groups)),
        500,
    ]
    assert numbers == measured
