"""A bundle that looks first: whose score a chunk has, and that nothing else decides it."""

import shutil
from pathlib import Path

import pyarrow.parquet
import pytest

from command import dna, fasta, frames_manifest, made_bundle, results, run_json, table, virnucpro
from frame_bundles import genes, small_bundle, written
from virnucpro.bundle import load
from virnucpro.bundle.manifest import read_manifest
from virnucpro.bundle.prescreen import DEFAULT_RECALL, PART, Prescreen
from virnucpro.bundle.write import write_bundle, write_copy, write_manifest
from virnucpro.classifiers.cascade import Cuts
from virnucpro.classifiers.kmer import KmerClassifier
from virnucpro.classifiers.plan import plan_of
from virnucpro.devices.compute import Compute
from virnucpro.errors import OtherRun, SettingsError
from virnucpro.run.merge import merge
from virnucpro.run.predict import run
from virnucpro.run.runners import SerialRunner, Work
from virnucpro.run.settings import Settings

BLOCK_NT = 12_000
CUT = 0.4


@pytest.fixture(scope="module")
def here(tmp_path_factory) -> Path:
    """A folder with an input of some 7 blocks, a large bundle and a small one of other weights."""
    folder = tmp_path_factory.mktemp("prescreen")
    records = [(f"r{k}", dna(400, k)) for k in range(120)]
    records[7], records[8], records[9] = ("empty", ""), ("short", "ACGT" * 9), ("N", "N" * 300)
    records.append(("long", dna(30_000, "long")))
    (folder / "in.fa").write_bytes(fasta(records))
    made_bundle(folder / "large", block_nt=BLOCK_NT)
    made_bundle(folder / "small", seed=8)
    return folder


def settings(here: Path, out: Path, **options) -> Settings:
    first = {"prescreen": str(here / "small"), "prescreen_threshold": CUT, "parquet": True}
    return Settings.of(here / "in.fa", out, here / "large", **{**first, **options})


@pytest.fixture(scope="module")
def whole(here) -> Path:
    """The run directory of one process, undivided."""
    run(settings(here, here / "whole"))
    return here / "whole"


def test_a_chunk_has_the_score_of_the_bundle_that_spoke(here, whole):
    alone = {}
    for name in ("large", "small"):
        run(Settings.of(here / "in.fa", here / f"{name}_alone", here / name))
        alone[name] = table(here / f"{name}_alone" / "calls.tsv")
    rows = table(whole / "calls.tsv")
    spoke = [row.pop("bundle") for row in rows]
    for row, name, large, small in zip(rows, spoke, alone["large"], alone["small"], strict=True):
        ended = small["p_virus"] != "" and float(small["p_virus"]) < CUT
        assert name == ("small" if ended else "large")
        assert row == (small if ended else large)
        assert not (ended and row["call"] == "virus")
    assert {"small", "large"} == set(spoke)
    assert {row["status"] for row in rows} >= {"ok", "too_short", "ambiguous"}
    found = pyarrow.parquet.read_table(whole / "calls.parquet").column("bundle").to_pylist()
    assert found == spoke
    frames = [line.split("\t") for line in (whole / "prediction_results.txt").read_text().split()]
    assert len(frames) > 1
    document = run_json(whole)
    assert document["prescreen"]["chunks"] == spoke.count("small")
    assert document["prescreen"]["sha256"] == load(here / "small").sha256
    log = (whole / "log.txt").read_text()
    assert f"small scores chunks first, and rules out p_virus below {CUT}" in log
    assert f"{spoke.count('small'):,} of the chunks were ruled out by the first bundle" in log


def test_without_it_there_is_no_such_column(here, whole, tmp_path):
    run(Settings.of(here / "in.fa", tmp_path / "run", here / "large"))
    header = (tmp_path / "run" / "calls.tsv").read_text().split("\n")[0]
    assert (whole / "calls.tsv").read_text().split("\n")[0] == header + "\tbundle"
    document = run_json(tmp_path / "run")
    assert "prescreen" not in document
    assert "prescreen" not in document["fingerprint"]


def test_neither_blocks_nor_parts_nor_resume_nor_workers_change_it(here, whole, tmp_path):
    expected = results(whole)
    parts = [tmp_path / f"p{k}" for k in (1, 2, 3)]
    for k, part in enumerate(parts, 1):
        run(settings(here, part, part=f"{k}/3"))
    merge(parts, tmp_path / "merged")
    assert results(tmp_path / "merged") == expected
    assert run_json(tmp_path / "merged")["prescreen"] == run_json(whole)["prescreen"]
    journal = tmp_path / "journal"
    run(settings(here, tmp_path / "first", journal=journal, keep_blocks=True))
    for block in sorted(journal.rglob("*.block"))[::2]:
        block.unlink()
    run(settings(here, tmp_path / "kept", journal=journal))
    assert run_json(tmp_path / "kept")["blocks"]["reused"] > 0
    assert results(tmp_path / "kept") == expected
    shutil.copytree(here / "large", tmp_path / "large")
    manifest = read_manifest(tmp_path / "large")
    sums = manifest.pop("files")
    write_manifest(tmp_path / "large", manifest | {"block_nt": 1_000_000}, sums)
    one_block = settings(here, tmp_path / "one")
    run(Settings.of(**{**_as_options(one_block), "bundle": tmp_path / "large"}))
    assert run_json(tmp_path / "one")["blocks"]["total"] == 1
    assert results(tmp_path / "one") == expected
    run(settings(here, tmp_path / "two", workers=2))
    assert len(run_json(tmp_path / "two")["workers"]) == 2
    assert results(tmp_path / "two") == expected


def _as_options(made: Settings) -> dict:
    groups = ("reading", "scoring", "compute", "outputs", "restart")
    return {
        "inputs": made.inputs,
        "out": made.out,
        "bundle": made.bundle,
        **{name: getattr(made, name) for name in groups},
    }


@pytest.mark.parametrize(
    "other", [{"prescreen_threshold": 0.41}, {"prescreen": None, "prescreen_threshold": None}]
)
def test_another_prescreen_is_another_run(here, whole, other):
    told = r"other thresholds of it \(sha256 [0-9a-f]{12}\.\.\.; this run: "
    with pytest.raises(OtherRun, match=told):
        run(settings(here, whole, **other))


def test_the_cut_comes_from_what_was_measured_of_the_pair(here, tmp_path):
    large, small = load(here / "large"), load(here / "small")
    with pytest.raises(SettingsError, match=r"was not measured.*virnucpro prescreen large small"):
        run(settings(here, tmp_path / "run", prescreen_threshold=None))
    choices = [
        {"recall": 0.9, "thresholds": [0.3, 0.4], "handed_on": [0.5, 0.4]},
        {"recall": DEFAULT_RECALL, "thresholds": [0.2, 0.3], "handed_on": [0.7, 0.6]},
    ]
    entry = {"name": "s", "sha256": small.sha256, "lengths_nt": [100, 450], "choices": choices}
    write_copy(large, tmp_path / "both", {PART: [entry]})
    options = {"prescreen": str(here / "small"), "out": tmp_path / "run"}
    run(Settings.of(here / "in.fa", bundle=tmp_path / "both", **options))
    for row in table(tmp_path / "run" / "calls.tsv"):
        cut = 0.3 if int(row["end"]) - int(row["start"]) >= 450 else 0.2
        assert row["bundle"] != "s"
        if row["p_virus"]:
            assert (row["bundle"] == "small") <= (float(row["p_virus"]) < cut)
    log = (tmp_path / "run" / "log.txt").read_text()
    assert "below 0.2 from 100 nt, 0.3 from 450 nt" in log
    assert "99.5 % of held-out viral chunks that are called virus are passed on, and 60 % of" in log
    again = {**options, "out": tmp_path / "again", "prescreen_recall": 0.7}
    with pytest.raises(SettingsError, match=r"must be one of 0\.9, 0\.995, got 0\.7"):
        run(Settings.of(here / "in.fa", bundle=tmp_path / "both", **again))


@pytest.mark.parametrize(
    ("options", "said"),
    [
        ({"threshold": 0.3}, "would rule out chunks of a p_virus up to 0.4, although from 0.3 on"),
        ({"prescreen_recall": 0.9}, "both decide what is handed on"),
        ({"prescreen": None}, "are for a bundle that looks first"),
        ({"prescreen_threshold": 1.5}, "--prescreen-threshold must be 0 to 1, got 1.5"),
        ({"prescreen": "kmer-300"}, "must score whole chunks of 500 nt"),
        ({"prescreen": "nothing"}, "no bundle of this name"),
    ],
)
def test_what_does_not_go_together_is_refused(here, tmp_path, options, said):
    with pytest.raises(Exception, match=said):
        run(settings(here, tmp_path / "run", **options))
    assert not (tmp_path / "run").exists()


def test_embeddings_of_chunks_that_ended_are_not_there(here, tmp_path):
    write_bundle(tmp_path / "frames", frames_manifest(chunk_nt=500), {})
    out = tmp_path / "run"
    done = virnucpro(
        *("predict", here / "in.fa", "-o", out, "--bundle", tmp_path / "frames"),
        *("--prescreen", here / "small", "--prescreen-threshold", CUT, "--save-embeddings"),
    )
    assert done.code == 2
    assert "--save-embeddings and --prescreen contradict each other" in done.error


def test_frames_are_looked_at_only_where_a_chunk_is_handed_on(golden, tmp_path):
    bundle = small_bundle(golden, tmp_path, 300)
    made_bundle(tmp_path / "small", chunk_nt=300)
    path = written(tmp_path / "in.fa", genes(6, 900, seed=3))
    run(Settings.of(path, tmp_path / "alone", bundle))
    first = {"prescreen": str(tmp_path / "small"), "prescreen_threshold": 0.5}
    run(Settings.of(path, tmp_path / "run", bundle, **first))
    rows, alone = (table(tmp_path / out / "calls.tsv") for out in ("run", "alone"))
    spoke = [row.pop("bundle") for row in rows]
    assert {*spoke} == {"small", "tiny-300"}
    for row, other, name in zip(rows, alone, spoke, strict=True):
        if name == "small":
            assert (row["call"], row["frames"], row["max_p_virus"]) == ("others", "", "")
        else:
            for column in ("p_virus", "max_p_virus", "max_p_others"):
                close = pytest.approx(float(other.pop(column) or -1), abs=2e-6)
                assert float(row.pop(column) or -1) == close
            assert row == other


def test_a_device_is_tried_with_both(here, monkeypatch):
    """Also where the first bundle would end every chunk."""
    seen = []
    score = KmerClassifier.score

    def noted(self, chunks):
        seen.append(self.name)
        return score(self, chunks)

    monkeypatch.setattr(KmerClassifier, "score", noted)
    large = load(here / "large")
    prescreen = Prescreen(load(here / "small"), Cuts((0,), (1.0,)))
    work = Work(large, plan_of(large), Compute().on("cpu"), 0, prescreen=prescreen)
    with SerialRunner(work):
        assert {*seen} == {"large", "small"}
