"""The pages of cards say what the manifests and the measured intervals say."""

import importlib
import sys
from pathlib import Path

import numpy as np
import pytest

from virnucpro.bundle import load
from virnucpro.measure.labels import LabelledContig
from virnucpro.measure.metrics import auroc_interval, recall_interval

ROOT = Path(__file__).resolve().parents[2]
CARDS = ROOT / "docs" / "cards"
NAMES = [path.stem for path in sorted(CARDS.glob("*.tsv"))]
# fp32 on another kind of device; a share of a thousand fragments may be one off.
TOLERANCE = 0.002


@pytest.fixture(scope="module")
def recipes():
    sys.path.insert(0, str(ROOT / "recipes"))
    return importlib.import_module("card"), importlib.import_module("intervals")


def test_the_default_bundle_has_a_card():
    assert load("mini-500").name in NAMES


@pytest.mark.parametrize("name", NAMES)
def test_a_page_is_made_of_manifest_and_intervals(recipes, name):
    assert (CARDS / f"{name}.md").read_text("utf-8") == recipes[0].page(name)


@pytest.mark.parametrize("name", NAMES)
def test_what_was_measured_again_is_what_the_manifest_states(recipes, name):
    card = load(name).card
    lines = recipes[0].Intervals(CARDS / f"{name}.tsv").lines
    stated = [
        *((("fixed_fragments", "", m), v) for m, v in card["fixed_fragments"].items()),
        *((("fixed_fragments", "", m), v) for m, v in card["expected_precision"].items()),
    ]
    for table, key in (
        ("by_length", lambda row: str(row["length_nt"])),
        ("by_threshold", lambda row: f"{row['threshold']:g}"),
        ("by_novelty", lambda row: f"{row['length_nt']} {row['novelty']}"),
        ("by_part", lambda row: f"{row['part']}: {row['value']}"),
        ("by_origin", lambda row: row["group"]),
        ("robustness", lambda row: row["change"]),
        ("nonsense", lambda row: row["kind"]),
    ):
        stated += [((table, key(row), m), v) for row in card[table] for m, v in row.items()]
    compared = 0
    for place, value in stated:
        if place in lines:
            assert float(lines[place]["value"]) == pytest.approx(value, abs=TOLERANCE), place
            compared += 1
    assert compared > 200
    low = float(lines["fixed_fragments", "", "auroc"]["low"])
    assert low == pytest.approx(card["fixed_fragments"]["auroc_low"], abs=TOLERANCE)


def test_intervals_are_those_of_the_measures(recipes):
    random = np.random.default_rng(4)
    label = random.random(300) < 0.4
    unit = random.integers(0, 25, 300).astype(str)
    score = label + random.normal(0, 1, 300)
    given = [LabelledContig("", b"", int(v), unit=u) for v, u in zip(label, unit, strict=True)]
    found = recipes[1].of_scores(label, score, 0.5)
    lines = {line[2]: line for line in recipes[1].lines_of("t", "r", given, found)}
    for name, interval in (
        ("auroc", auroc_interval(label, score, unit)),
        ("recall_at_1pct_fpr", recall_interval(label, score, unit, 0.01)),
    ):
        low, high = map(float, lines[name][4:6])
        assert (low, high) == pytest.approx((interval.low, interval.high), abs=6e-5)
    assert lines["auroc"][6:] == (str(len({*unit[label]})), str(len({*unit[~label]})))


def test_a_side_of_one_unit_has_no_interval(recipes):
    given = [LabelledContig("", b"", 0, unit="u")] * 3
    (line,) = recipes[1].lines_of("t", "r", given, {"right": lambda rows: len(rows) / 3})
    assert line == ("t", "r", "right", "1.0000", "", "", "0", "1")
