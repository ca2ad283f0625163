"""Bundles: names, damage, and what a new one holds."""

import errno
import hashlib
import json
import os
import tomllib
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import pytest
import torch

from command import frames_manifest, made_bundle, virnucpro
from virnucpro import bundle as bundles
from virnucpro.bundle import embedded_bundles, load, write
from virnucpro.bundle.card import about_bundle
from virnucpro.bundle.manifest import MANIFEST, MOST_MANIFEST_BYTES, Provenance, read_manifest
from virnucpro.bundle.write import write_bundle
from virnucpro.classifiers.kmer import KMER_WEIGHTS
from virnucpro.classifiers.whole_chunks import codon_network_of
from virnucpro.errors import BundleError, DeviceError, SettingsError
from virnucpro.measure.labels import NOVELTIES

EMBEDDED = [bundle.name for bundle in embedded_bundles()]
ALIASES = ["mini-300", "mini-500"]


@pytest.fixture
def embedded(tmp_path, monkeypatch) -> Path:
    """A package with bundles of these names."""
    folder = tmp_path / "embedded"
    for name in ("mini-500-v1", "mini-500-v10", "mini-500-v2", "mini-300-v1", "odd", "odd-vx"):
        made_bundle(folder / name)
    (folder / "not-a-bundle-v9").mkdir()
    monkeypatch.setattr(bundles, "EMBEDDED", folder)
    return folder


def test_an_alias_is_the_newest_version(embedded):
    assert load("mini-500").path.name == "mini-500-v10"
    assert load("mini-500-v2").path.name == "mini-500-v2"
    assert load("mini-300").path.name == "mini-300-v1"
    assert bundles.aliases_of(load("mini-500-v10")) == ["mini-500"]
    assert bundles.aliases_of(load("mini-500-v2")) == []
    names = ["mini-300-v1", "mini-500-v1", "mini-500-v10", "mini-500-v2", "odd", "odd-vx"]
    assert [bundle.name for bundle in embedded_bundles()] == names


def test_an_unknown_name_lists_those_there_are(embedded):
    with pytest.raises(BundleError, match="mini-400: no bundle of this name") as caught:
        load("mini-400")
    assert "mini-300, mini-300-v1, mini-500, mini-500-v1," in str(caught.value)


def test_the_nearest_name_is_suggested(embedded):
    for name, nearest in (("mini500", "mini-500"), ("MINI-300", "mini-300")):
        with pytest.raises(BundleError, match=rf"{name}: .* \(did you mean {nearest}\?\); give"):
            load(name)
    with pytest.raises(BundleError, match=r"\(did you mean virnucpro-500\?\); give"):
        load("virnucpro500")  # which says then how to fetch it
    with pytest.raises(BundleError) as caught:
        load("results/lake")
    assert "did you mean" not in str(caught.value)


def test_a_directory_is_a_name_too(tmp_path):
    made = made_bundle(tmp_path / "mine")
    assert load(tmp_path / "mine") == load(str(tmp_path / "mine")) == made


def test_what_is_written_is_read(tmp_path):
    manifest = frames_manifest(
        card={"auroc": np.float64(0.5), "interval": (0.25, None, 0.75), "unknown": None},
        training={"seed": np.int64(3), "nested": {"gone": None, "here": [1, 2]}},
    )
    bundle = write_bundle(tmp_path / "b", manifest, {"a.bin": b"abc", "x.safetensors": {}})
    assert bundle.card == {"auroc": 0.5, "interval": [0.25, 0.75]}
    assert bundle.parts == {"training": {"seed": 3, "nested": {"here": [1, 2]}}}
    assert bundle.file("a.bin").read_bytes() == b"abc"
    assert bundle.arrays("x.safetensors") == {}
    assert bundle.sha256 == hashlib.sha256((tmp_path / "b" / MANIFEST).read_bytes()).hexdigest()
    assert read_manifest(tmp_path / "b")["files"]["a.bin"] == hashlib.sha256(b"abc").hexdigest()
    assert load(tmp_path / "b") == bundle


def test_the_same_content_has_the_same_sha256(tmp_path):
    assert made_bundle(tmp_path / "1" / "km").sha256 == made_bundle(tmp_path / "2" / "km").sha256
    other = made_bundle(tmp_path / "3" / "km", chunk_nt=300)
    assert other.sha256 != made_bundle(tmp_path / "4" / "km").sha256


def test_a_directory_that_holds_something_is_refused(tmp_path):
    (tmp_path / "mine").write_text("x")
    with pytest.raises(BundleError, match="already holds something"):
        write_bundle(tmp_path, frames_manifest(), {})
    with pytest.raises(BundleError, match="already holds something"):
        write_bundle(tmp_path / "mine", frames_manifest(), {})
    assert [path.name for path in tmp_path.iterdir()] == ["mine"]


def test_many_write_and_read_at_once(tmp_path):
    """Neither an error nor a manifest that is not whole (R8)."""
    made = made_bundle(tmp_path / "km")
    document = tomllib.loads((made.path / MANIFEST).read_text())
    sums = document.pop("files")
    del document["format"]

    def written(_):
        return write.write_manifest(made.path, document, sums)

    with ThreadPoolExecutor(4) as pool:
        writing = pool.map(written, range(200))
        reading = pool.map(lambda _: load(made.path), range(200))
        assert {found.sha256 for found in (*writing, *reading)} == {made.sha256}
    assert {path.name for path in made.path.iterdir()} == {MANIFEST, KMER_WEIGHTS}


def test_one_process_makes_a_bundle_in_a_directory(tmp_path):
    with (
        write.being_made(tmp_path / "b"),
        pytest.raises(BundleError, match="another process is making a bundle here"),
    ):
        made_bundle(tmp_path / "b")
    assert not list((tmp_path / "b").iterdir())
    assert made_bundle(tmp_path / "b").classifier()


def test_a_directory_that_cannot_be_made_is_one_sentence(tmp_path):
    (tmp_path / "mine").write_text("x")
    with pytest.raises(BundleError, match="the bundle cannot be written"):
        write_bundle(tmp_path / "mine" / "deeper", frames_manifest(), {})


LONG = "x" * 300  # no file system takes such a name, not even for root


def test_a_place_that_cannot_be_looked_into_is_one_sentence(tmp_path):
    for name in (LONG, tmp_path / LONG / "deeper"):
        with pytest.raises(BundleError, match=r"cannot be looked into \(File name too long\)"):
            load(name)
    with pytest.raises(BundleError, match="cannot be looked into"):
        write_bundle(tmp_path / LONG, frames_manifest(), {})


def test_a_cache_that_cannot_be_looked_into_is_a_warning(tmp_path):
    """And only where it is needed (a container under another user)."""
    given = {"env": {**os.environ, "VIRNUCPRO_CACHE": str(tmp_path / LONG)}}
    done = virnucpro("bundles", "show", "kmer-500", **given)
    assert (done.code, done.err) == (0, "")
    done = virnucpro("bundles", "list", **given)
    assert done.code == 0, done.err
    assert "kmer-500-v1" in done.out
    assert done.err.count("downloaded bundles cannot be looked for here") == 1
    done = virnucpro("bundles", "show", "nosuch", **given)
    assert "nosuch: no bundle of this name" in done.error


def test_a_folder_without_permission_is_one_sentence(tmp_path, monkeypatch):
    """Root may look everywhere, so that the refusal of others is made here."""
    inside = tmp_path / "closed" / "b"
    monkeypatch.setattr(bundles, "downloads_folder", lambda: inside)
    warned = []
    monkeypatch.setattr(bundles, "warn_once", warned.append)

    def refusing(real):
        def refused(path, *arguments, **options):
            if Path(path).is_relative_to(inside):
                raise PermissionError(errno.EACCES, "Permission denied", str(path))
            return real(path, *arguments, **options)

        return refused

    for name in ("stat", "listdir", "scandir"):
        monkeypatch.setattr(os, name, refusing(getattr(os, name)))
    for act in (load, write.check_free):
        with pytest.raises(BundleError, match="cannot be looked into"):
            act(inside)
    assert bundles.downloaded_bundles() == []
    assert "downloaded bundles cannot be looked for here (Permission denied)" in warned[0]


def test_a_damaged_bundle_in_the_cache_is_listed_as_such(tmp_path):
    for name in ("whole-v1", "damaged-v1"):
        made_bundle(tmp_path / "bundles" / name)
    (tmp_path / "bundles" / "damaged-v1" / MANIFEST).write_text("= = =")
    done = virnucpro("bundles", "list", env={**os.environ, "VIRNUCPRO_CACHE": str(tmp_path)})
    assert done.code == 0, done.err
    rows = [line.split() for line in done.out.splitlines()]
    assert ["whole-v1", "whole", "downloaded"] in [row[:3] for row in rows]
    assert ["damaged-v1", "damaged"] in [row[:2] for row in rows]
    assert "not a TOML file" in " ".join(done.out.split())


def test_a_damaged_file_is_named(tmp_path):
    bundle = made_bundle(tmp_path / "km")
    data = (bundle.path / KMER_WEIGHTS).read_bytes()
    for damage in (data[:-1] + bytes([data[-1] ^ 1]), data[:-1], b""):
        (bundle.path / KMER_WEIGHTS).write_bytes(damage)
        with pytest.raises(
            BundleError, match=f"{KMER_WEIGHTS}: its sha256 is not the one that bundle.toml"
        ):
            bundle.classifier()
    (bundle.path / KMER_WEIGHTS).unlink()
    with pytest.raises(BundleError, match=f"{KMER_WEIGHTS}: cannot be read"):
        bundle.classifier()


def test_a_file_that_is_not_listed_or_no_safetensors(tmp_path):
    bundle = write_bundle(tmp_path / "b", frames_manifest(), {"a": b"abc"})
    with pytest.raises(BundleError, match="lists no file b; the bundle is damaged"):
        bundle.file("b")
    with pytest.raises(BundleError, match="a: not a safetensors file"):
        bundle.arrays("a")


def test_arrays_that_do_not_fit_are_refused(tmp_path):
    made = made_bundle(tmp_path / "km")
    arrays = made.arrays(KMER_WEIGHTS)
    for number, change in enumerate(({"weight": np.zeros(3)}, {"bias": np.zeros(0)})):
        manifest = tomllib.loads((made.path / MANIFEST).read_text())
        del manifest["format"], manifest["files"]
        bundle = write_bundle(tmp_path / str(number), manifest, {KMER_WEIGHTS: arrays | change})
        with pytest.raises(BundleError, match="not the arrays of a k-mer model"):
            bundle.classifier()


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"kind": "magic"}, "kind is 'magic', not one of frames, chunks, kmer"),
        ({"chunk_nt": "500"}, "chunk_nt is '500', not a usable int"),
        ({"chunk_nt": -1}, "chunk_nt is -1, not a usable int"),
        ({"block_nt": True}, "block_nt is True, not a usable int"),
        ({"threshold": None}, "threshold is None, not a usable float"),
        ({"name": 5}, "name is 5, not a usable str"),
        ({"threshold": 1.5}, "threshold is 1.5, but must lie in 0 to 1"),
        ({"threshold": -0.1}, "threshold is -0.1, but must lie in 0 to 1"),
        ({"threshold": float("nan")}, "threshold is nan, but must lie in 0 to 1"),
        ({"threshold": float("inf")}, "threshold is inf, but must lie in 0 to 1"),
        ({"chunk_nt": 0}, "chunk_nt is 0, but must lie in 1 to"),
        ({"block_nt": 2**31}, "block_nt is 2147483648, but must lie in 1 to 2147483647"),
        ({"validated_nt": 2**70}, "validated_nt is 1180591620717411303424, but must lie in 0 to"),
        ({"min_nt": 301}, "min_nt is 301, but must lie in 0 to 300"),
        ({"labels": ["virus", "others"]}, r"labels are \['virus', 'others'\], but scores are kept"),
        ({"labels": "others"}, "labels are 'others', but scores are kept"),
        ({"card": 3}, "card is 3, not a table"),
    ],
)
def test_a_manifest_with_a_wrong_value_is_refused(tmp_path, change, words):
    with pytest.raises(BundleError, match=f"bundle.toml: {words}"):
        write_bundle(tmp_path / "b", frames_manifest(**change), {})


@pytest.mark.parametrize("change", [{}, {"labels": ["others", "virus"]}, {"threshold": 1.0}])
def test_a_manifest_at_its_bounds_is_read(tmp_path, change):
    edge = {"chunk_nt": 300, "min_nt": 300, "block_nt": 1, "threshold": 0.0}
    made = write_bundle(tmp_path / "b", frames_manifest(**edge | change), {})
    assert made.labels == ("others", "virus")


def test_another_format_and_no_toml_are_refused(tmp_path):
    made = made_bundle(tmp_path / "km")
    text = (made.path / MANIFEST).read_text()
    (made.path / MANIFEST).write_text(text.replace("format = 1", "format = 2"))
    with pytest.raises(BundleError, match="has format 2, this version reads 1"):
        load(made.path)
    for junk in (b"= = =", b"\xff\xfe", b"a = " + b"9" * 5000, b"a = " + b"[" * 100_000):
        (made.path / MANIFEST).write_bytes(junk)
        with pytest.raises(BundleError, match=r"bundle.toml: not a TOML file"):
            load(made.path)


def test_a_manifest_of_a_stranger_takes_no_time(tmp_path):
    made = made_bundle(tmp_path / "km")
    with (made.path / MANIFEST).open("ab") as file:
        file.truncate(MOST_MANIFEST_BYTES + 1)
    with pytest.raises(BundleError, match=r"bundle.toml: 4,000,001 bytes are too many for"):
        load(made.path)


@pytest.mark.parametrize("edges", ["5", "[]", "[nan]", "[inf, 1]", '["a"]'])
def test_a_calibration_of_a_stranger_tells_nothing_of_records(tmp_path, edges):
    made = made_bundle(tmp_path / "km")
    row = '{length = "under 275 nt", recall = 0.5, false_positive_rate = 0.1}'
    with (made.path / MANIFEST).open("a") as file:
        file.write(f"\n[calibration]\nthreshold = 0.5\nedges = {edges}\nby_length = [{row}]\n")
    assert about_bundle(load(made.path))["of_records"] == []
    text = (made.path / MANIFEST).read_text()
    (made.path / MANIFEST).write_text(text.replace(f"edges = {edges}", "edges = [0.55]"))
    (told,) = about_bundle(load(made.path))["of_records"]
    assert told == {"from_nt": 0, "recall": 0.5, "false_positive_rate": 0.1}


def test_a_missing_table_is_named(tmp_path):
    bundle = write_bundle(tmp_path / "b", frames_manifest(kind="kmer"), {KMER_WEIGHTS: {}})
    with pytest.raises(BundleError, match="not the arrays of a k-mer model"):
        bundle.classifier()
    with pytest.raises(BundleError, match=r"has no table \[kmer\], as its kind needs"):
        bundle.part("kmer")


def test_a_precision_that_the_kind_has_not(tmp_path):
    with pytest.raises(SettingsError, match="computes in fp64 only, not in bf16"):
        made_bundle(tmp_path / "km").classifier(precision="bf16")


@pytest.mark.parametrize("kind", ["kmer", "chunks", "frames"])
@pytest.mark.parametrize("device", ["banana", "mps", "cuda:x", "cpux", "", "meta"])
def test_a_device_that_is_none_is_one_sentence(tmp_path, kind, device):
    """Said before anything is loaded: there are no weights here."""
    made = write_bundle(tmp_path / "b", frames_manifest(kind=kind), {})
    with pytest.raises(DeviceError, match=f"device {device!r} is not known; choose cpu or cuda"):
        made.classifier(device)


def test_the_linear_model_computes_on_the_cpu_only(tmp_path):
    made = made_bundle(tmp_path / "km")
    assert made.classifier(torch.device("cpu")).device == "cpu"
    with pytest.raises(DeviceError, match="km computes on the cpu only, not on cuda:0"):
        made.classifier(torch.device("cuda:0"))


def test_a_bundle_is_shown(tmp_path):
    made = made_bundle(tmp_path / "km")
    done = virnucpro("bundles", "show", made.path)
    assert done.code == 0
    assert made.sha256 in done.out
    assert "random weights, for tests" in done.out
    assert done.err == ""
    done = virnucpro("bundles", "show", "nosuch")
    assert done.code == 1
    assert "nosuch: no bundle of this name" in done.error


def bundle_nt(alias):
    return int(alias.removeprefix("mini-"))


@pytest.mark.parametrize("alias", ALIASES)
def test_a_card_begins_with_what_everybody_should_know(alias):
    """On a page of a terminal or two; the rest, training and finer divisions, is asked for."""
    shown = virnucpro("bundles", "show", alias)
    everything = virnucpro("bundles", "show", alias, "--all")
    assert (shown.code, everything.code, shown.err) == (0, 0, "")
    assert len(shown.out.splitlines()) < 110 < len(everything.out.splitlines())
    first, rest = shown.out.rstrip().rsplit("\n", 1)
    words = set(first.split())
    assert rest == "Sources, training and files: --all, or --json for programs."
    assert words <= set(everything.out.split())
    card = json.loads(virnucpro("bundles", "show", alias, "--json").out)["card"]
    for row in (*card["by_threshold"], *card["by_length"]):
        assert f"{row['false_positive_rate']:.4g}" in words
    groups = {row["value"] for row in card["by_part"] if row["part"] == "group"}
    assert groups <= words
    novelties = [row for row in card["by_novelty"] if row["length_nt"] == bundle_nt(alias)]
    assert [row["novelty"] for row in novelties] == ["all", "strict", *NOVELTIES]
    for row in novelties:
        assert {row["novelty"], f"{row['auroc']:.4g}"} <= words
    assert not {row["value"] for row in card["by_part"] if row["part"] == "source"} & words


def test_a_calibrated_bundle_shows_two_thresholds():
    for words in (("mini-500",), ("mini-500", "--all")):
        shown = " ".join(virnucpro("bundles", "show", *words).out.split())
        assert " threshold of records 0.77 threshold of chunks 0.5 " in shown
    assert " threshold 0.5 " in " ".join(virnucpro("bundles", "show", "mini-500-v1").out.split())
    assert json.loads(virnucpro("bundles", "show", "mini-500", "--json").out)["threshold"] == 0.5


@pytest.mark.skipif(not EMBEDDED, reason="no bundle is embedded yet")
@pytest.mark.parametrize("alias", ALIASES)
def test_the_embedded_bundles_are_whole(alias):
    bundle = load(alias)
    assert bundle.name.startswith(f"{alias}-v") or alias in bundles.aliases_of(bundle)
    assert bundle.chunk_nt == int(alias.removeprefix("mini-"))
    assert sum(path.stat().st_size for path in bundle.path.rglob("*")) <= 12_000_000
    assert all(bundle.file(name) for name in bundle.files)
    assert bundle.min_nt == 60
    assert bundle.provenance is Provenance.OTHER
    assert bundle.card
    assert bundle.parts["training"]
    listed = virnucpro("bundles", "list")
    assert listed.code == 0
    assert alias in listed.out


@pytest.mark.parametrize("name", ["mini-500", "mini-300"])
def test_the_head_of_an_embedded_bundle_gives_the_scores_of_its_network(name):
    found = load(name)
    network = codon_network_of(found, "cpu", "fp32")
    codons = torch.randint(0, 65, (5, 6, 168), generator=torch.Generator().manual_seed(1))
    p_virus = network.outputs(codons).p_virus
    probabilities = found.head.probabilities(network.encoder(codons)[0])
    assert probabilities.shape == (5, 2)
    assert torch.equal(probabilities[:, 1], p_virus)


def test_a_bundle_without_a_head_says_so():
    with pytest.raises(BundleError, match="kmer-500-v1 is a linear model on k-mers and has no"):
        _ = load("kmer-500").head
