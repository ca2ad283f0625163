"""The recipe that measures what errors of sequencing cost: each change, and the rows of a card."""

import importlib
import sys
from pathlib import Path

import numpy as np
import pytest

from command import dna, made_bundle
from virnucpro.bundle.manifest import read_bundle
from virnucpro.measure.labels import LabelledContig

RECIPES = Path(__file__).parents[2] / "recipes"


@pytest.fixture(scope="module")
def recipe():
    sys.path.insert(0, str(RECIPES))
    try:
        yield importlib.import_module("robustness")
    finally:
        sys.path.remove(str(RECIPES))


@pytest.fixture(scope="module")
def given() -> list[LabelledContig]:
    return [LabelledContig(f"f{k}", dna(500, k).encode(), k % 2, unit=f"u{k}") for k in range(200)]


def test_indels_come_at_their_rate_and_keep_what_is_between(recipe, given):
    assert recipe.fragments.with_indels(given, 0.0) == given
    changed = recipe.fragments.with_indels(given, 0.02)
    assert changed != recipe.fragments.with_indels(given, 0.02, seed=1)
    assert changed == recipe.fragments.with_indels(given, 0.02)
    shorter = [len(f.sequence) for f in changed]
    assert max(shorter) == 500
    assert 480 < np.mean(shorter) < 500
    same = [
        any(old.sequence[i : i + 20] in new.sequence for i in range(0, 480, 20))
        for old, new in zip(given, changed, strict=True)
    ]
    assert all(same)
    untouched = np.mean([o == n for o, n in zip(given, changed, strict=True)])
    few = recipe.fragments.with_indels(given, 0.0005)
    assert untouched < 0.01
    assert np.mean([o == n for o, n in zip(given, few, strict=True)]) == pytest.approx(
        0.78, abs=0.1
    )


def test_stretches_chimeras_lower_case_and_reads(recipe, given):
    for share in (0.1, 0.3):
        for old, new in zip(given, recipe.fragments.with_unknown(given, share), strict=True):
            assert len(new.sequence) == 500
            assert b"N" * round(500 * share) in new.sequence
            assert new.sequence.replace(b"N", b"") != old.sequence
            assert new.sequence.count(b"N") == round(500 * share)
    others = {f.sequence[250:] for f in given if not f.label}
    for old, new in zip(given, recipe.fragments.chimeras(given), strict=True):
        assert new.sequence[:250] == old.sequence[:250]
        assert new.sequence[250:] in others
        assert new.label == old.label
    assert recipe.fragments.lower_case(given)[0].sequence == given[0].sequence.lower()
    assert recipe.fragments.cut(given, 100)[0].sequence == given[0].sequence[200:300]


def test_a_card_gets_its_rows_and_keeps_the_rest(recipe, given, tmp_path, monkeypatch):
    monkeypatch.setattr(recipe.fragments, "fixed", lambda data, nt: given)
    bundle = made_bundle(tmp_path / "km")
    recipe.keep(bundle, tmp_path, "cpu", 60)
    rows = read_bundle(bundle.path).card["robustness"]
    by_change = {row["change"]: row for row in rows}
    assert [*by_change][: len(recipe.CHANGES)] == [*recipe.CHANGES]
    assert [*by_change][-5:] == [f"reads of {nt} nt" for nt in recipe.READS_NT]
    for row in rows:
        assert (row["viral"], row["others"]) == (60, 60)
        usual = by_change[recipe.AS_THEY_ARE]
        for number in ("auroc", "recall_at_1pct_fpr"):
            assert row[f"{number}_lost"] == pytest.approx(usual[number] - row[number], abs=2e-4)
    assert by_change["lower case"]["auroc_lost"] == 0
    assert by_change["reads of 75 nt"]["auroc"] != by_change["none"]["auroc"]
    before = read_bundle(bundle.path)
    recipe.keep(before, tmp_path, "cpu", 60)
    assert read_bundle(bundle.path).sha256 == before.sha256
