"""Cuts of a pair of bundles: the recall that they keep, and what the manifest remembers."""

from pathlib import Path

import numpy as np
import pytest

from command import dna, fasta, made_bundle, table, virnucpro
from virnucpro.bundle import embedded_bundles, load
from virnucpro.bundle.prescreen import PART, choice_of
from virnucpro.cli.predict import predict
from virnucpro.errors import InputError
from virnucpro.train.prescreen_fit import RECALLS, Looked, choices_of, entry_of, with_entry

RNG = np.random.default_rng(3)


def looked(length_nt: int, shift: float = 0.0, n: int = 1000) -> Looked:
    """Fragments of which the small bundle scores the viral ones higher, and group b highest."""
    viral = np.arange(2 * n) < n
    group = np.where(viral, "phage", np.where(np.arange(2 * n) % 2, "a", "b"))
    small = RNG.random(2 * n) * 0.5 + np.where(viral, 0.4, 0.0) + np.where(group == "b", 0.2, 0.0)
    return Looked(length_nt, viral, group, small + shift, np.where(viral, RNG.random(2 * n), 0.1))


def test_the_cut_keeps_the_recall_of_the_larger_bundles_calls():
    found = looked(500)
    for recall in (0.9, 0.995, 1.0):
        cut = found.cut(recall, 0.7)
        called = found.viral & (found.large >= 0.7)
        kept = found.small[called] >= cut
        assert recall <= kept.mean() <= recall + 1.5 / called.sum()
    assert found.cut(0.9, 0.0) != found.cut(0.9, 0.7)
    shares = found.handed_on(0.45)
    assert shares["a"] == pytest.approx(0.1, abs=0.05)
    assert shares["b"] == pytest.approx(0.5, abs=0.07)


def test_what_is_not_called_is_handed_on():
    found = looked(500)
    found.small[:] = np.nan
    assert set(found.handed_on(0.5).values()) == {1.0}
    with pytest.raises(InputError, match="calls 0 virus, and 200 are needed"):
        found.cut(0.9, 0.5)


def test_cuts_rise_with_length_and_never_lose_recall():
    of_length = [looked(75, -0.2), looked(150, 0.1), looked(500)]
    for choice in choices_of(of_length, 0.5):
        cuts = choice.cuts.p_virus
        assert list(cuts) == sorted(cuts)
        for each, cut, share in zip(of_length, cuts, choice.handed_on, strict=True):
            called = each.small[each.viral & (each.large >= 0.5)]
            assert (called >= cut).mean() >= choice.recall
            assert share == pytest.approx(np.mean([*each.handed_on(cut).values()]))


def test_a_manifest_keeps_one_measurement_of_a_bundle(tmp_path):
    large, small = made_bundle(tmp_path / "large"), made_bundle(tmp_path / "small", seed=8)
    choices = choices_of([looked(75), looked(500)], 0.5)
    entry = entry_of(small, choices, "x.fa", 1000)
    changes = with_entry(large, entry)
    assert changes == {PART: [entry]}
    for written, choice in zip(entry["choices"], choices, strict=True):
        for kept, cut in zip(written["thresholds"], choice.cuts.p_virus, strict=True):
            assert cut - 1e-6 <= kept <= cut


def test_the_command_measures_a_pair_and_predict_takes_it(tmp_path):
    made_bundle(tmp_path / "large", chunk_nt=75)
    made_bundle(tmp_path / "small", chunk_nt=75, seed=8)
    for side in ("viral", "other"):
        records = [(f"{side}{k}", dna(3000, f"{side}{k}")) for k in range(30)]
        (tmp_path / f"{side}.fa").write_bytes(fasta(records))
    data = ("--positive", tmp_path / "viral.fa", "--negative", tmp_path / "other.fa")
    done = virnucpro(
        *("prescreen", tmp_path / "large", tmp_path / "small", *data),
        *("--per-side", 900, "-o", tmp_path / "both", "--quiet"),
    )
    assert (done.code, done.err) == (0, "")
    assert "99.5 %" in done.out
    found = choice_of(load(tmp_path / "both"), load(tmp_path / "small"), 0.8)
    assert found.cuts.lengths_nt == (75,)
    assert 0 < found.cuts.p_virus[0] < 0.5
    done = virnucpro(
        *("predict", tmp_path / "viral.fa", "-o", tmp_path / "run", "--bundle", tmp_path / "both"),
        *("--prescreen", tmp_path / "small", "--prescreen-recall", 0.8, "--quiet"),
    )
    assert (done.code, done.err) == (0, "")
    rows = table(tmp_path / "run" / "calls.tsv")
    ended = sum(row["bundle"] == "small" for row in rows)
    assert 1 - ended / len(rows) == pytest.approx(found.handed_on[0], abs=0.1)


def test_help_and_docs_list_the_shares_that_are_measured():
    assert RECALLS == (0.8, 0.9, 0.95, 0.98, 0.99, 0.995, 0.999)
    (option,) = (o for o in predict.params if "--prescreen-recall" in o.opts)
    assert "0.8, 0.9, 0.95, 0.98, 0.99, 0.995 (the default) or 0.999" in option.help
    docs = (Path(__file__).parents[2] / "docs" / "prescreen.md").read_text()
    assert "The other values are 0.8, 0.9, 0.95, 0.98, 0.99 and 0.999" in docs
    for bundle in embedded_bundles():
        for entry in bundle.parts.get("prescreens", ()):
            assert [row["recall"] for row in entry["choices"]] == [*RECALLS]
