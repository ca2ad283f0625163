"""Converted copies of weights: used only whole, for their source and their precision alone."""

import fcntl
import os
import resource
import subprocess
import sys

import numpy as np
import pytest
import torch
from safetensors import safe_open
from safetensors.torch import load_file

from command import fasta, made_bundle, virnucpro
from encoder_examples import tiny_esm2
from frame_bundles import VIRAL_CODONS, gene
from published_encoders import golden_parts, publish, publish_dnabert_s, publish_fair
from virnucpro.bundle.encoder_files import encoder_sums
from virnucpro.bundle.write import write_bundle
from virnucpro.classifiers.head import Head
from virnucpro.encoders import load_dnabert_s, load_esm2
from virnucpro.run.predict import predict
from virnucpro.storage.digests import VARIABLE, file_sha256

TINY = {"num_layers": 2, "embed_dim": 16, "attention_heads": 2}
PROTEINS = ["MKV", "ACDEFGHIKLMNPQRSTVWY"]


@pytest.fixture
def source(tmp_path):
    tensors = tiny_esm2(tmp_path / "tiny.safetensors", layers=2)
    return publish_fair(tmp_path / "esm2.pt", tensors, TINY)


@pytest.fixture
def cache(tmp_path):
    return tmp_path / "cache"


def copies(cache):
    return sorted((cache / "weights").glob("*.safetensors"))


def leftovers(cache):
    return sorted(path.name for path in (cache / "weights").glob(".*.part"))


def embedded(path, cache, precision="bf16"):
    return load_esm2(path, "cpu", precision, cache=cache).embed(PROTEINS)


def forged(cache):
    """Makes the one copy another model, and a whole file by its name: it shows where it is read."""
    [copy] = copies(cache)
    data = bytearray(copy.read_bytes())
    with safe_open(copy, "pt") as file:
        last = file.get_tensor("norm.bias")
    at = data.rindex(last.view(torch.uint8).numpy().tobytes())
    data[at : at + last.nbytes] = torch.ones_like(last).view(torch.uint8).numpy().tobytes()
    copy.unlink()
    stem = copy.name.rsplit(".", 2)[0]
    temporary = copy.with_name("forged")
    temporary.write_bytes(data)
    temporary.rename(copy.with_name(f"{stem}.{file_sha256(temporary)}.safetensors"))


@pytest.mark.parametrize("precision", ["fp32", "bf16", "fp16"])
def test_a_copy_gives_the_same_numbers(source, cache, precision):
    expected = load_esm2(source, "cpu", precision).embed(PROTEINS)
    for _ in range(2):
        assert (embedded(source, cache, precision) == expected).all()
    [copy] = copies(cache)
    dtype = {"fp32": torch.float32, "bf16": torch.bfloat16, "fp16": torch.float16}[precision]
    tensors = load_file(copy)
    assert tensors.pop("rotary.inv_freq").dtype == torch.float32
    assert {tensor.dtype for tensor in tensors.values()} == {dtype}
    forged(cache)
    assert not (embedded(source, cache, precision) == expected).all()


def test_both_encoders_and_every_kind_of_directory(golden, tmp_path, cache):
    parts = golden_parts(golden / "esm2_hf_layout.weights.safetensors")
    paths = [publish(tmp_path / k.replace(" ", "_"), *parts, k) for k in ("bin", "bin shards")]
    for path in paths:
        expected = load_esm2(path).embed(PROTEINS)
        for _ in range(2):
            assert (embedded(path, cache, "fp32") == expected).all()
    assert len(copies(cache)) == 2  # known by their files, not by what these hold
    path = publish_dnabert_s(golden, tmp_path / "dnabert")
    expected = load_dnabert_s(path).embed(["ACGTACGT"])
    for _ in range(2):
        assert (load_dnabert_s(path, cache=cache).embed(["ACGTACGT"]) == expected).all()
    assert len(copies(cache)) == 3


def test_never_for_another_precision(source, cache):
    expected = load_esm2(source, "cpu", "fp32").embed(PROTEINS)
    embedded(source, cache, "bf16")
    forged(cache)
    assert (embedded(source, cache, "fp32") == expected).all()
    assert len(copies(cache)) == 2


def test_never_for_another_source(source, cache, tmp_path):
    embedded(source, cache)
    forged(cache)
    tensors = tiny_esm2(tmp_path / "other.safetensors", layers=2, seed=1)
    publish_fair(source, tensors, TINY)
    expected = load_esm2(source, "cpu", "bf16").embed(PROTEINS)
    assert (embedded(source, cache) == expected).all()


def test_another_name_of_the_same_file(source, cache, tmp_path):
    """Known by content: where the source lies does not matter."""
    embedded(source, cache)
    (tmp_path / "moved").mkdir()
    embedded(source.rename(tmp_path / "moved" / source.name), cache)
    assert len(copies(cache)) == 1


@pytest.mark.parametrize("damage", ["cut", "flipped", "empty", "no file"])
def test_a_damaged_copy_is_replaced(source, cache, damage):
    expected = embedded(source, cache)
    [copy] = copies(cache)
    whole = copy.read_bytes()
    if damage == "no file":
        copy.unlink()
        copy.mkdir()
    else:
        flipped = bytearray(whole)
        flipped[-200] ^= 1
        copy.write_bytes({"cut": whole[:-9], "flipped": flipped, "empty": b""}[damage])
    assert (embedded(source, cache) == expected).all()
    if damage != "no file":
        assert [path.read_bytes() for path in copies(cache)] == [whole]


def test_what_a_killed_writer_leaves(source, cache):
    expected = embedded(source, cache)
    [copy] = copies(cache)
    stem = copy.name.rsplit(".", 2)[0]
    copy.rename(copy.with_name(f".{stem}.0123456789abcdef.part"))
    assert (embedded(source, cache) == expected).all()
    assert len(copies(cache)) == 1
    assert not leftovers(cache)


def test_one_writes_while_others_read_the_source(source, cache):
    expected = load_esm2(source, "cpu", "bf16").embed(PROTEINS)
    embedded(source, cache)
    [copy] = copies(cache)
    [lock] = (cache / "weights").glob(".*.lock")
    copy.unlink()
    with lock.open("ab") as held:
        fcntl.flock(held, fcntl.LOCK_EX)
        assert (embedded(source, cache) == expected).all()
        assert not copies(cache)
    embedded(source, cache)
    assert copies(cache) == [copy]


def test_many_processes_at_once(source, cache):
    program = (
        "import sys\nfrom pathlib import Path\nfrom virnucpro.encoders import load_esm2\n"
        "encoder = load_esm2(sys.argv[1], 'cpu', 'bf16', cache=Path(sys.argv[2]))\n"
        "print(encoder.embed(['MKV']).tobytes().hex())"
    )
    command = [sys.executable, "-c", program, str(source), str(cache)]
    environment = {**os.environ, "OMP_NUM_THREADS": "1"}
    running = [
        subprocess.Popen(command, stdout=subprocess.PIPE, text=True, env=environment)
        for _ in range(3)
    ]
    said = {process.communicate()[0].strip() for process in running}
    assert [process.returncode for process in running] == [0, 0, 0]
    assert said == {load_esm2(source, "cpu", "bf16").embed(["MKV"]).tobytes().hex()}
    assert len(copies(cache)) == 1
    assert not leftovers(cache)


def test_a_folder_that_cannot_be_used(source, tmp_path, caplog):
    """A warning, never a failure."""
    expected = load_esm2(source, "cpu", "bf16").embed(PROTEINS)
    blocked = tmp_path / "blocked"
    blocked.write_text("a file where a folder should be")
    assert (embedded(source, blocked) == expected).all()
    [said] = [record.getMessage() for record in caplog.records]
    assert said == (
        f"warning: {blocked}/weights: no converted copy of the weights can be kept there "
        "(Not a directory)"
    )


def test_a_disk_that_fills_up(source, cache, caplog):
    """The limit on a file's size ends a write midway, as a full disk does."""
    expected = load_esm2(source, "cpu", "bf16").embed(PROTEINS)
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (4096, hard))
    try:
        found = embedded(source, cache)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
    assert (found == expected).all()
    assert "no converted copy of the weights can be kept there (File too large)" in caplog.text
    assert not copies(cache)
    assert not leftovers(cache)
    assert (embedded(source, cache) == expected).all()
    assert len(copies(cache)) == 1


def frames_bundle(golden, folder):
    """A bundle of kind frames that names both golden encoders where they lie, as published."""
    dnabert = publish_dnabert_s(golden, folder / "dnabert")
    parts = golden_parts(golden / "esm2_fair_layout.weights.safetensors")
    esm = publish_fair(folder / "esm2.pt", *parts)
    torch.manual_seed(3)
    head = {name: tensor.numpy() for name, tensor in Head(96 + 80, 16).state_dict().items()}
    manifest = {
        "name": "tiny-300",
        "description": "random weights, for tests",
        "kind": "frames",
        "chunk_nt": 300,
        "block_nt": 3000,
        "min_nt": 0,
        "validated_nt": 300,
        "threshold": 0.5,
        "encoders": {
            part: {"path": str(path), "sha256": encoder_sums(path)}
            for part, path in (("dnabert_s", dnabert), ("esm2", esm))
        },
    }
    return write_bundle(folder / "bundle", manifest, {"head.safetensors": head})


def test_predict_keeps_and_reads_copies(golden, tmp_path, monkeypatch, caplog):
    bundle = frames_bundle(golden, tmp_path)
    random = np.random.default_rng(1)
    records = [(f"c{k}", gene(random, VIRAL_CODONS, 700 + k)) for k in range(4)]
    (tmp_path / "in.fa").write_bytes(fasta(records))
    settings = {"bundle": bundle.path, "precision": "bf16", "threads": 1}

    def rows(name):
        return (tmp_path / name / "prediction_results.txt").read_bytes()

    monkeypatch.setenv(VARIABLE, str(tmp_path / "cache"))
    predict(tmp_path / "in.fa", out=tmp_path / "without", **settings)
    assert not copies(tmp_path / "cache")
    arguments = ("predict", tmp_path / "in.fa", "-o", tmp_path / "first", "--bundle", bundle.path)
    done = virnucpro(*arguments, "--cache-weights", "--precision", "bf16", "--threads", "1")
    assert done.code == 0, done.err
    assert len(copies(tmp_path / "cache")) == 2
    predict(tmp_path / "in.fa", out=tmp_path / "again", **settings, cache_weights=True)
    assert len(copies(tmp_path / "cache")) == 2
    assert rows("without") == rows("first") == rows("again")
    assert rows("first").count(b"\n") > 8

    monkeypatch.setenv(VARIABLE, str(tmp_path / "in.fa"))  # no folder
    predict(tmp_path / "in.fa", out=tmp_path / "blocked", **settings, cache_weights=True)
    assert rows("blocked") == rows("first")
    assert [record.getMessage().count("nothing can be kept") for record in caplog.records] == [1]


def test_a_bundle_without_published_encoders_says_so(tmp_path):
    bundle = made_bundle(tmp_path / "kmer").path
    (tmp_path / "in.fa").write_bytes(fasta([("a", "ACGT" * 200)]))
    arguments = ("predict", tmp_path / "in.fa", "-o", tmp_path / "out", "--bundle", bundle)
    done = virnucpro(*arguments, "--cache-weights")
    assert done.code == 0
    assert "--cache-weights changes nothing" in done.err
