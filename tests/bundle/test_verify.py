"""Verifying a bundle: whatever was remembered of its files, they are read."""

import os

import pytest

from command import frames_manifest
from virnucpro.bundle.assemble import copy_checked
from virnucpro.bundle.manifest import Provenance
from virnucpro.bundle.verify import verified
from virnucpro.bundle.write import write_bundle
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
