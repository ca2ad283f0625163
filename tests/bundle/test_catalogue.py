"""The package's own list of published models."""

import hashlib
import json
import re

import pytest

from published_files import git_blob
from virnucpro.bundle.assemble import wrong_fields
from virnucpro.bundle.catalogue import PARTS, git_blob_id, newest, read_catalogue

BLOBS = {
    "virnucpro-500": "fc35d5ef9f1f4564eea7036f34f4f8ec6000d33d",
    "virnucpro-300": "a0b5b85e7c1e44f00cde146d091beb82b2c8e855",
}


@pytest.mark.parametrize("alias", BLOBS)
def test_the_published_models_are_known(alias):
    """The ids of the heads are those of the specification."""
    catalogue = read_catalogue()
    known = catalogue.find(alias)
    assert known is catalogue.find(known.name) is catalogue.of_head(BLOBS[alias])
    assert known.name == f"{alias}-v1"
    assert str(known.chunk_nt) in alias
    assert known.head.git_blob == BLOBS[alias]
    assert known.head.file == f"{known.chunk_nt}_model.pth"
    assert {encoder.part for encoder in known.encoders} == {"dnabert_s", "esm2"}
    assert known.size_bytes > 11_800_000_000
    assert catalogue.find(f"{alias}-v2") is None
    assert catalogue.of_head(None) is None


def test_what_is_fetched_is_named_and_pinned():
    """The list is trusted where it is read: names become paths, and addresses are opened."""
    plain, sha1, sha256 = r"\w[\w.-]*", r"[0-9a-f]{40}", r"[0-9a-f]{64}"
    for known in read_catalogue().bundles:
        assert re.fullmatch(plain, known.name)
        assert re.fullmatch(plain, known.head.file)
        assert known.head.url.startswith("https://")
        assert re.fullmatch(sha1, known.head.git_blob)
        assert sorted(encoder.part for encoder in known.encoders) == sorted(PARTS)
        for encoder in known.encoders:
            assert re.fullmatch(f"{plain}/{plain}", encoder.repository)
            assert re.fullmatch(sha1, encoder.revision)
            assert all(re.fullmatch(plain, file.name) for file in encoder.files)
            sums = [file.sha256 for file in encoder.files if file.sha256]
            assert sums
            assert all(re.fullmatch(sha256, digest) for digest in sums)


def test_the_listed_tokenizer_is_the_golden_one(golden):
    files = {f.name: f for f in read_catalogue().find("virnucpro-500").encoder("dnabert_s").files}
    data = (golden / "dnabert_s_tokenizer.json").read_bytes()
    assert files["tokenizer.json"].size_bytes == len(data)
    assert files["tokenizer.json"].sha256 == hashlib.sha256(data).hexdigest()


# What the published config.json of ESM-2 3B says, in the fields that are read.
ESM2_CONFIG = {
    "num_hidden_layers": 36,
    "hidden_size": 2560,
    "num_attention_heads": 40,
    "intermediate_size": 10240,
    "vocab_size": 33,
    "layer_norm_eps": 1e-05,
    "emb_layer_norm_before": False,
    "token_dropout": True,
    "position_embedding_type": "rotary",
}


@pytest.mark.parametrize(
    "change",
    [
        {"layer_norm_eps": 0.5},
        {"emb_layer_norm_before": True},
        {"token_dropout": False},
        {"num_attention_heads": 20},
        {"embed_dim": 2560, "num_layers": 36, "attention_heads": 20},
    ],
)
def test_another_config_is_not_the_published_one(tmp_path, change):
    """No sha256 of it is known; what is computed depends on these fields alone."""
    known = read_catalogue().find("virnucpro-500").encoder("esm2")
    path = tmp_path / "config.json"
    path.write_text(json.dumps(ESM2_CONFIG))
    assert wrong_fields(known, path) == []
    path.write_text(json.dumps(ESM2_CONFIG | change))
    (words,) = wrong_fields(known, path)
    assert next(iter(change)) in words


def test_git_agrees_on_its_ids():
    assert git_blob_id(b"") == "e69de29bb2d1d6434b8b29ae775ad8c2e48c5391"
    assert git_blob_id(b"abc\n") == git_blob(b"abc\n") == "8baef1b4abc478178b004d62031cf7fe6db6f903"


def test_the_newest_version_is_the_highest_number():
    names = ["a-v2", "a-v10", "a-v9", "b-v1", "c", "d-vx"]
    assert newest(names) == {"a": "a-v10", "b": "b-v1"}
