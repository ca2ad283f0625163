"""Fitting a calibration: on simulated chunks of known log-odds, and by the command."""

from dataclasses import replace

import numpy as np
import pytest

from command import dna, fasta, made_bundle, table, virnucpro
from virnucpro.bundle import load
from virnucpro.bundle.calibration import probability
from virnucpro.bundle.manifest import Bundle, read_bundle
from virnucpro.classifiers.protein_kmers import PROTEIN_KMERS
from virnucpro.errors import BundleError, InputError
from virnucpro.measure.labels import LabelledContig
from virnucpro.train.calibrate import calibration_of, of_unknown_hosts
from virnucpro.train.calibration_fit import fit_calibration, reliability_of
from virnucpro.train.null_fit import nulls_of, threshold_for
from virnucpro.train.scored_records import ScoredRecords, windows_of

CHUNK_NT = 500


def simulated(records: int, seed: int, scale: float = 3.0, shift: float = 1.0) -> ScoredRecords:
    """Records whose network claims scale times their true log-odds, and shift more for each chunk.

    Chunks of a record share half of their evidence, so that many say little more than one.
    """
    rng = np.random.default_rng(seed)
    viral = rng.random(records) < 0.5
    chunks = np.exp(rng.uniform(0, np.log(20), records)).astype(int).clip(1)
    shared, spread = rng.normal(size=records), np.sqrt(1 / chunks)
    true = np.where(viral, 1.0, -1.0) + 0.8 * shared + 0.8 * spread * rng.normal(size=records)
    said = (scale * true + shift) * chunks * CHUNK_NT
    called = (chunks * CHUNK_NT).astype(float)
    unit = np.arange(records) // 2
    return ScoredRecords(
        evidence=said,
        called_nt=called,
        viral=viral,
        unit=unit,
        group=np.where(viral, 0, 1 + unit % 2),
        first=np.arange(records) % 2 == 0,
        length_bin=np.digitize(called / CHUNK_NT, (0.55, 1.1, 4.1, 12.1)),
        group_names=("phage", "bacteria", "fungi"),
        groups=np.zeros((records, 0)),
    )


@pytest.fixture(scope="module")
def fitted():
    return fit_calibration(simulated(6_000, 1), CHUNK_NT)


def test_what_is_fitted_holds_for_others(fitted):
    new = simulated(20_000, 2)
    score = fitted.rule.log_odds(new.evidence, new.called_nt)
    raw = probability(new.evidence / new.called_nt)
    weight = np.ones(len(score))
    assert reliability_of(raw, new.viral, weight).error > 0.06
    assert reliability_of(probability(score), new.viral, weight).error < 0.02
    for b in np.unique(new.length_bin):
        kept = new.length_bin == b
        assert reliability_of(probability(score[kept]), new.viral[kept], weight[kept]).error < 0.05


def test_neighbours_that_share_evidence_do_not_count_as_independent(fitted):
    """Twenty equal chunks say little more than four, and not five times as much."""
    one, four, twenty = (
        fitted.rule.log_odds(np.array([6.0 * n * CHUNK_NT]), np.array([n * float(CHUNK_NT)]))[0]
        for n in (1, 4, 20)
    )
    assert one < four
    assert twenty < 2 * four


def test_replicates_lie_around_the_fit(fitted):
    a = fitted.replicates[:, 0].mean(axis=0)
    inner = slice(4, 9)  # knots that records reach
    assert a[inner] == pytest.approx(fitted.rule.a.value[inner], abs=0.3)
    assert fitted.replicates.std(axis=0)[:, inner].min() > 0


def test_negatives_are_one_of_a_unit_and_length(fitted):
    records = simulated(6_000, 1)
    negatives = nulls_of(records, fitted.rule)
    assert negatives.names == ("bacteria", "fungi")
    assert len(negatives.log_odds) == (records.first & ~records.viral).sum()
    every = replace(records, first=np.ones(6_000, bool), unit=np.zeros(6_000, int))
    assert len(nulls_of(every, fitted.rule).log_odds) == 4  # one a length bin


def test_the_threshold_holds_for_the_worst_group():
    records = simulated(6_000, 1)
    worse = replace(records, evidence=records.evidence + 3000.0 * (records.group == 2))
    rule = fit_calibration(worse, CHUNK_NT).rule
    threshold, group = threshold_for(worse, rule, 0.05)
    assert group == "fungi"
    p_virus = probability(rule.log_odds(worse.evidence, worse.called_nt))
    cell = worse.unit * 100 + worse.length_bin
    weight = 1 / np.bincount(cell)[cell]
    rates = [
        np.average(p_virus[kept] >= threshold, weights=weight[kept])
        for kept in (worse.group == 1, worse.group == 2)
    ]
    assert rates[0] < 0.05
    assert rates[1] == pytest.approx(0.05, abs=0.011)


def test_a_length_or_a_group_of_few_units_does_not_decide_the_threshold():
    """One that looks viral has the only long records of its group, or is a group of its own."""
    records = simulated(6_000, 1)
    rule = fit_calibration(records, CHUNK_NT).rule
    expected = threshold_for(records, rule, 0.05)
    fungi = np.flatnonzero(records.group == 2)
    one = fungi[records.unit[fungi] == records.unit[fungi[0]]]
    length_bin, evidence = records.length_bin.copy(), records.evidence.copy()
    length_bin[one], evidence[one] = 4, 1e6
    viral_unit = replace(records, length_bin=length_bin, evidence=evidence)
    assert threshold_for(viral_unit, rule, 0.05)[0] == pytest.approx(expected[0], abs=0.03)
    names = (*records.group_names, "plant")
    group = records.group.copy()
    group[one] = len(names) - 1
    alone = replace(viral_unit, group=group, group_names=names)
    assert threshold_for(alone, rule, 0.05)[0] == pytest.approx(expected[0], abs=0.03)


def test_weights_are_even_within_every_class():
    records = simulated(500, 3)
    weight = records.weight
    assert weight.mean() == pytest.approx(1.0)
    for b in np.unique(records.length_bin):
        here = records.length_bin == b
        sides = [weight[here & (records.viral == side)].sum() for side in (True, False)]
        assert sides[0] == pytest.approx(sides[1])
        one, other = (here & (records.group == g) for g in (1, 2))
        assert weight[one].sum() == pytest.approx(weight[other].sum())
        sums = np.bincount(records.unit[one], weights=weight[one])
        assert sums[sums > 0] == pytest.approx(sums.max())


def test_groups_may_count_as_one_host():
    records = simulated(2_000, 1).by_host({"bacteria": "cells", "fungi": "cells"})
    rule = fit_calibration(records, CHUNK_NT, hosts={"cells": "all"})
    assert rule.negatives.names == ("all",)
    assert rule.worst_group == "all"


def test_one_label_is_not_enough():
    records = simulated(100, 1)
    with pytest.raises(InputError, match="needs viral and other sequences"):
        fit_calibration(records.part(records.viral), CHUNK_NT)


def labelled(units: int, length_nt: int, group: str, label: int = 0) -> list[LabelledContig]:
    return [
        LabelledContig(
            f"{group}{i}", dna(length_nt, (group, i)).encode(), label, group, unit=f"{group}{i}"
        )
        for i in range(units)
    ]


def test_windows_of_every_length_from_every_unit():
    contigs = [*labelled(12, 3_000, "a"), *labelled(3, 20_000, "b"), *labelled(5, 40, "short")]
    windows = windows_of(contigs, CHUNK_NT, a_unit=4, most=30)
    assert {w.contig.group for w in windows} == {"a", "b"}
    for b, (low, high) in enumerate([(60, 275), (275, 550), (550, 2050), (2050, 6050)]):
        lengths = [len(w.contig.sequence) for w in windows if w.length_bin == b]
        assert lengths
        assert all(low <= n <= high for n in lengths)
    assert {w.contig.unit for w in windows if w.length_bin == 4} == {"b0", "b1", "b2"}
    firsts = [(w.contig.unit, w.length_bin) for w in windows if w.first]
    assert len(firsts) == len(set(firsts)) == 12 * 4 + 3 * 5
    most = max(sum(w.length_bin == b and w.contig.group == "a" for w in windows) for b in range(5))
    assert most == 30
    by_name = {c.name: c.sequence for c in contigs}
    assert all(w.contig.sequence in by_name[w.contig.name] for w in windows)
    again = windows_of(contigs, CHUNK_NT, a_unit=4, most=30)
    assert again == windows


def test_the_command_makes_a_bundle_that_predict_takes(tmp_path):
    plain = made_bundle(tmp_path / "km")
    viral = [(f"v{i}", dna(1500, i).replace("G", "A")) for i in range(60)]
    others = [(f"o{i}", dna(1500, f"o{i}")) for i in range(60)]
    (tmp_path / "v.fa").write_bytes(fasta(viral))
    (tmp_path / "o.fa").write_bytes(fasta(others))
    sides = ("--positive", tmp_path / "v.fa", "--negative", tmp_path / "o.fa")
    done = virnucpro("calibrate", plain.path, *sides, "-o", tmp_path / "mine")
    assert done.code == 0, done.err
    bundle = read_bundle(tmp_path / "mine")
    assert bundle.name == "mine"
    found = bundle.calibration
    assert found.negatives.names == ("others",)
    assert found.measured["measured_on"].startswith("24 units")
    assert {row["length"] for row in found.measured["by_length"]} == set(found.bin_names()[:3])
    lacking = ", ".join(found.bin_names()[3:])
    assert f"warning: no viral sequence, or no other, has these lengths: {lacking}; " in done.err
    run = virnucpro("predict", tmp_path / "o.fa", "-o", tmp_path / "run", "--bundle", bundle.path)
    assert run.code == 0, run.err
    assert "was not fitted on" not in run.err
    (tmp_path / "long.fa").write_bytes(fasta([("long", dna(4_000, 7))]))
    long = virnucpro("predict", tmp_path / "long.fa", "-o", tmp_path / "l", "--bundle", bundle.path)
    assert long.err.count("warning: 1 of 1 record has lengths that the calibration") == 1
    called = [row["call"] == "virus" for row in table(tmp_path / "run" / "contigs.tsv")]
    assert np.mean(called) <= 0.2
    taken = virnucpro("calibrate", plain.path, *sides, "-o", tmp_path / "mine")
    assert "already holds something" in taken.error
    (tmp_path / "few.fa").write_bytes(fasta(others[:3]))
    few = virnucpro(
        "calibrate", plain.path, *sides[:3], tmp_path / "few.fa", "-o", tmp_path / "other"
    )
    assert "needs 10 units or more of other sequences" in few.error


def test_too_few_units_are_refused_before_anything_is_scored(tmp_path):
    bundle, scored = made_bundle(tmp_path / "km"), list[int]()
    viral, others = labelled(12, 600, "v", 1), labelled(12, 600, "o")

    def calibrated(*contigs: LabelledContig):
        return calibration_of(bundle, windows_of(contigs, CHUNK_NT), progress=scored.append)

    for contigs, name in (((*viral, *others[:9]), "other"), ((*viral[:9], *others), "viral")):
        with pytest.raises(InputError, match=f"of {name} sequences .*, and there are 9"):
            calibrated(*contigs)
        assert not scored
    many = [replace(each, group=f"g{i}") for i, each in enumerate(labelled(201, 600, "m"))]
    with pytest.raises(InputError, match="of 201 groups, and a calibration holds up to 200"):
        calibrated(*viral, *many)
    assert not scored
    unknown = [replace(each, sequence=each.sequence[:59] + b"NNN") for each in others]
    with pytest.raises(InputError, match=r"of other sequences .*, and there are 0"):
        calibrated(*viral, *unknown)
    assert scored


def test_hosts_are_scored_as_if_nothing_were_known_of_them(tmp_path, monkeypatch):
    bundle = load("mini-500-v2")
    unknown = of_unknown_hosts(bundle)
    before, after = (b.part(PROTEIN_KMERS)["weights"] for b in (bundle, unknown))
    assert after == {"virus": before["virus"], "others": [0.0]}
    assert min(before["others"]) < 0
    for other in ("mini-500-v1", "kmer-500"):
        assert of_unknown_hosts(load(other)) == load(other)
    damaged = of_unknown_hosts(replace(bundle, parts={**bundle.parts, PROTEIN_KMERS: {}}))
    with pytest.raises(BundleError, match="not the protein k-mers that its bundle describes"):
        damaged.classifier("cpu", "fp32")
    asked = []

    def classifier(self, **_):
        asked.append(self)
        raise InputError("enough")

    monkeypatch.setattr(Bundle, "classifier", classifier)
    contigs = [*labelled(12, 600, "v", 1), *labelled(12, 600, "o")]
    with pytest.raises(InputError, match="enough"):
        calibration_of(bundle, windows_of(contigs, CHUNK_NT))
    assert asked == [unknown]
