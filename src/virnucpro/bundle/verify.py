"""Every checksum of a bundle, computed anew: what `virnucpro bundles verify` tells.

What was remembered of a file is replaced by what is found. This module loads no weights.
"""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path

from virnucpro.bundle.catalogue import git_blob_id
from virnucpro.bundle.manifest import MANIFEST, Bundle, check_file_name
from virnucpro.errors import BundleError
from virnucpro.storage.digests import file_digest


@dataclass(frozen=True, slots=True)
class Checked:
    """A file as it was found; fault: what is wrong with it, nothing if it is what it should be."""

    path: Path
    fault: str


def listed_files(bundle: Bundle) -> Iterator[tuple[Path, str]]:
    """Every file that the manifest lists with its sha256, those of its encoders too.

    Raises BundleError for a manifest that is damaged.
    """
    for name, sha256 in bundle.files.items():
        yield bundle.path / name, sha256
    encoders = bundle.parts.get("encoders")
    for part in encoders.values() if isinstance(encoders, Mapping) else ():
        part = part if isinstance(part, Mapping) else {}
        path, sums = part.get("path"), part.get("sha256")
        if not isinstance(path, str) or not isinstance(sums, Mapping):
            raise BundleError(
                f"{bundle.path}: its manifest names no files of an encoder; make it again"
            )
        place = bundle.path / path
        for name, sha256 in sums.items():
            check_file_name(bundle.path / MANIFEST, name)
            # An encoder may be one file, and then path names it.
            yield (place if place.name == name else place / name), sha256


def verified(bundle: Bundle) -> Iterator[Checked]:
    """Every file of a bundle, read whole, one after the other."""
    for path, sha256 in listed_files(bundle):
        yield _checked(path, sha256, own=path.parent == bundle.path)
    head = bundle.parts.get("head")
    if isinstance(head, Mapping) and head.get("file") is not None:
        check_file_name(bundle.path / MANIFEST, head.get("file"))
        path = bundle.path / str(head.get("file"))
        try:
            other = path.is_file() and git_blob_id(path.read_bytes()) != head.get("git_blob")
        except OSError as error:
            yield Checked(path, f"cannot be read ({error.strerror or error})")
        else:
            if other:
                yield Checked(path, "has another git blob id than bundle.toml names")


def _checked(path: Path, sha256: str, *, own: bool) -> Checked:
    """own: whether it lies in the bundle; of others, which may be private, nothing is told."""
    try:
        found = file_digest(path, afresh=True)
    except BundleError as error:
        return Checked(path, str(error).removeprefix(f"{path}: "))
    if found == sha256:
        return Checked(path, "")
    instead = f"is {found} instead of {sha256}" if own else f"is not {sha256}"
    return Checked(path, f"its sha256 {instead}")
