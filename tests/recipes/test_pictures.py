"""Pictures of the documentation are those of the bundles that are there."""

import runpy
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]


def test_the_reliability_drawing_is_that_of_the_cards():
    drawn = runpy.run_path(str(ROOT / "recipes" / "reliability.py"))["drawn"]()
    assert (ROOT / "docs" / "reliability.svg").read_text("utf-8") == drawn
