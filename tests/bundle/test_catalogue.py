"""The list of known models: what the package's own says, and lists that are none."""

import copy
import json
import tomllib

import pytest
import tomli_w

from published_files import git_blob
from virnucpro.bundle.assemble import wrong_fields
from virnucpro.bundle.catalogue import CATALOGUE, git_blob_id, newest, read_catalogue
from virnucpro.errors import BundleError

DOCUMENT = tomllib.loads(CATALOGUE.read_text())
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


def test_the_listed_tokenizer_is_the_golden_one(golden):
    import hashlib

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


def setting(*keys, value):
    """A catalogue with another value there; None takes it away."""

    def changed():
        document = copy.deepcopy(DOCUMENT)
        place = document
        for key in keys[:-1]:
            place = place[key]
        if value is None:
            del place[keys[-1]]
        else:
            place[keys[-1]] = value
        return document

    return changed


HEAD = ("bundles", 0, "head")
FILE = ("encoders", "dnabert-s", "files", 0)


@pytest.mark.parametrize(
    ("change", "words"),
    [
        (setting("format", value=2), "its format is 2, this version reads 1"),
        (setting("bundles", value=None), "bundles is None, not a list"),
        (setting("bundles", value=[3]), "a bundle is 3, not a table"),
        (setting("bundles", 0, "name", value="../up"), "which is no usable name"),
        (setting("bundles", 0, "name", value="virnucpro-300-v1"), "two bundles of one name"),
        (setting("bundles", 0, "chunk_nt", value="500"), "chunk_nt is '500', not a int"),
        (setting("bundles", 0, "encoders", value=["x"]), "the encoder 'x', which it does not"),
        (setting("bundles", 0, "encoders", value=["esm2-3b"]), "one encoder of each"),
        (setting(*HEAD, "url", value="http://elsewhere.org/x"), "which is no usable url"),
        (setting(*HEAD, "url", value="file:///etc/passwd"), "which is no usable url"),
        (setting(*HEAD, "url", value="http://127.0.0.1.evil.org/x"), "which is no usable url"),
        (setting(*HEAD, "git_blob", value="abc"), "which is no usable git_blob"),
        (setting(*HEAD, "licence", value=None), "licence is None, not a str"),
        (setting(*FILE, "name", value="a/../../b"), "which is no usable name"),
        (setting(*FILE, "name", value=".hidden"), "which is no usable name"),
        (setting(*FILE, "sha256", value="F" * 64), "which is no usable sha256"),
        (setting("encoders", "esm2-3b", "revision", value="main"), "no usable revision"),
        (setting("encoders", "esm2-3b", "repository", value="a/b/c"), "no usable repository"),
        (setting("encoders", "esm2-3b", "files", value=[{"name": "x"}]), "has a sha256"),
    ],
)
def test_a_list_that_is_none_is_refused(tmp_path, change, words):
    path = tmp_path / "list.toml"
    path.write_text(tomli_w.dumps(change()))
    with pytest.raises(BundleError, match=words) as caught:
        read_catalogue(path)
    assert str(caught.value).startswith(f"{path}: not a catalogue of bundles: ")


def test_a_list_that_cannot_be_read(tmp_path):
    with pytest.raises(BundleError, match="cannot be read"):
        read_catalogue(tmp_path / "none.toml")
    for junk in (b"= = =", b"\xff"):
        (tmp_path / "list.toml").write_bytes(junk)
        with pytest.raises(BundleError, match="not a TOML file"):
            read_catalogue(tmp_path / "list.toml")
