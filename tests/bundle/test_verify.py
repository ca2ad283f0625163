"""Verifying a bundle: whatever was remembered of its files, they are read."""

import hashlib
import os
import re

import pytest

from command import frames_manifest
from virnucpro.bundle.assemble import copy_checked
from virnucpro.bundle.card import about_bundle
from virnucpro.bundle.manifest import MANIFEST, Provenance, read_bundle
from virnucpro.bundle.pickled_head import read_head
from virnucpro.bundle.verify import verified
from virnucpro.bundle.write import write_bundle
from virnucpro.encoders.weights.files import read_weights
from virnucpro.errors import BundleError
from virnucpro.storage import digests as cache
from virnucpro.storage.digests import REMEMBERED_BYTES

OLD_NS = 1_600_000_000_000_000_000


def faults(bundle) -> dict[str, str]:
    return {checked.path.name: checked.fault for checked in verified(bundle) if checked.fault}


def test_a_big_file_that_rotted_in_place_is_found(tmp_path, monkeypatch):
    """Its size, time and inode are as they were, so that predict trusts it."""
    monkeypatch.setenv(cache.VARIABLE, str(tmp_path / "cache"))
    big = bytes(REMEMBERED_BYTES)
    bundle = write_bundle(tmp_path / "b", frames_manifest(), {"big": big, "small": b"abc"})
    path = bundle.path / "big"
    os.utime(path, ns=(OLD_NS, OLD_NS))
    assert faults(bundle) == {}
    with path.open("r+b") as file:
        file.write(b"x")
    os.utime(path, ns=(OLD_NS, OLD_NS))
    assert bundle.file("big") == path
    assert faults(bundle).keys() == {"big"}
    with pytest.raises(BundleError, match="its sha256 is not the one that"):
        bundle.file("big")  # what was found is remembered
    (bundle.path / "small").unlink()
    assert faults(bundle)["small"].startswith("cannot be read")


@pytest.mark.parametrize("encoders", [3, {"esm2": 3}, {"esm2": {"path": 3}}, {"esm2": {}}])
def test_a_manifest_with_no_files_of_an_encoder(tmp_path, encoders):
    bundle = write_bundle(tmp_path / "b", frames_manifest(encoders=encoders), {})
    if isinstance(encoders, dict):
        with pytest.raises(BundleError, match="its manifest names no files of an encoder"):
            list(verified(bundle))
    assert bundle.provenance is Provenance.OTHER


def test_a_file_that_changes_while_it_is_copied(tmp_path):
    (tmp_path / "old").write_bytes(b"abc")
    with pytest.raises(BundleError, match="old: changed while it was copied"):
        copy_checked(tmp_path / "old", tmp_path / "new", "0" * 64)
    assert not (tmp_path / "new").exists()


@pytest.mark.parametrize("name", ["../b/small", "/etc/hostname", "a/../small", "..", "a\\\\b", ""])
def test_files_of_a_bundle_have_names_and_no_paths(tmp_path, name):
    bundle = write_bundle(tmp_path / "b", frames_manifest(), {"small": b"abc"})
    text = (bundle.path / MANIFEST).read_text()
    (bundle.path / MANIFEST).write_text(re.sub(r"(?m)^\"?small\"? =", f'"{name}" =', text))
    with pytest.raises(BundleError, match="is a path, and files of a bundle are named without one"):
        read_bundle(bundle.path)


def test_of_files_outside_nothing_is_told(tmp_path):
    secret = tmp_path / "secret"
    secret.write_bytes(b"secret")
    sums = {"secret": "0" * 64}
    encoders = {"encoders": {"esm2": {"path": str(tmp_path), "sha256": sums}}}
    bundle = write_bundle(tmp_path / "b", frames_manifest(**encoders), {"small": b"abc"})
    (found,) = faults(bundle).values()
    assert hashlib.sha256(b"secret").hexdigest() not in found


@pytest.mark.parametrize("kind", ["pipe", "folder", "device"])
def test_what_is_no_file_is_not_read(tmp_path, kind):
    bundle = write_bundle(tmp_path / "b", frames_manifest(), {"small": b"abc"})
    for name in ("small", MANIFEST):
        path = bundle.path / name
        path.unlink()
        if kind == "pipe":
            os.mkfifo(path)
        elif kind == "folder":
            path.mkdir()
        else:
            path.symlink_to("/dev/zero")
        if name == "small":
            assert "not a file of a bundle" in faults(bundle)["small"]
    with pytest.raises(BundleError, match="not a file of a bundle"):
        read_bundle(bundle.path)
    with pytest.raises(BundleError, match="not a file of a bundle"):
        read_head(path)
    with pytest.raises(BundleError, match="not a file of a bundle"):
        read_weights(path)


@pytest.mark.parametrize(
    "card",
    [
        {"fixed_fragments": 3, "by_length": "x", "by_part": [1]},
        {"fixed_fragments": {"recall": "high"}},
        {"fixed_fragments": {"recall": 0.5}, "by_length": [{"length_nt": "x"}, 3]},
    ],
)
def test_a_card_of_strangers_breaks_nothing(tmp_path, card):
    bundle = write_bundle(tmp_path / "b", frames_manifest(card=card), {"small": b"abc"})
    assert about_bundle(bundle)["name"] == "frames"
