"""New bundles: files, then the manifest that lists them. One process at a time makes a bundle."""

import hashlib
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import tomli_w
from numpy.typing import NDArray
from safetensors.numpy import save as save_arrays

from virnucpro.bundle.manifest import FORMAT, MANIFEST, Bundle, read_bundle, read_manifest
from virnucpro.errors import BundleError, ResumeError
from virnucpro.storage.atomic import replace_file
from virnucpro.storage.lock import Lock

# A folder in a directory whose bundle is not whole yet.
BEING_MADE = ".being-made"


Arrays = Mapping[str, NDArray[Any]]


def check_free(directory: Path) -> None:
    """Raises BundleError unless a new bundle can go there.

    There is nothing, an empty directory, or what was left when the making of one was stopped.
    """
    try:
        if not directory.exists():
            return
        names = {path.name for path in directory.iterdir()} if directory.is_dir() else {MANIFEST}
    except OSError as error:
        raise BundleError(
            f"{directory}: cannot be looked into ({error.strerror or error}); choose another "
            "directory"
        ) from error
    if MANIFEST in names or (names and BEING_MADE not in names):
        raise BundleError(f"{directory}: already holds something; choose an empty directory")


@contextmanager
def being_made(directory: Path) -> Iterator[None]:
    """While this process alone makes a bundle in a directory, which is made too.

    What is stopped in between leaves a mark there, by which check_free knows it. Raises BundleError
    where another process is at it, OSError where nothing can be written.
    """
    try:
        lock = Lock(directory / BEING_MADE)
    except ResumeError as error:
        raise BundleError(
            f"{directory}: another process is making a bundle here; wait for it to end, or choose "
            "another directory"
        ) from error
    try:
        yield
    except BaseException:
        lock.release()
        raise
    lock.remove()


def write_bundle(
    directory: Path, manifest: Mapping[str, Any], files: Mapping[str, bytes | Arrays]
) -> Bundle:
    """A new bundle: its files, then the manifest that lists them with their sha256.

    manifest: what bundle.toml holds besides `format` and `[files]`; None values are left out. A
    file is bytes, or arrays for a safetensors file. Raises BundleError if the directory is not
    empty, or cannot be written to.
    """
    check_free(directory)
    try:
        with being_made(directory):
            return write_files(directory, manifest, files)
    except OSError as error:
        raise BundleError(
            f"{directory}: the bundle cannot be written ({error.strerror or error}); choose "
            "another directory"
        ) from error


def write_files(
    directory: Path, manifest: Mapping[str, Any], files: Mapping[str, bytes | Arrays]
) -> Bundle:
    """Write files as write_bundle does, into a directory that is ours alone. Raises OSError."""
    return write_manifest(directory, manifest, _written(directory, files))


def _written(directory: Path, files: Mapping[str, bytes | Arrays]) -> dict[str, str]:
    """Write files, and return the sha256 of each."""
    sums: dict[str, str] = {}
    for name, content in files.items():
        data = content if isinstance(content, bytes) else save_arrays(dict(content))
        (directory / name).parent.mkdir(parents=True, exist_ok=True)
        replace_file(directory / name, data)
        sums[name] = hashlib.sha256(data).hexdigest()
    return sums


def write_copy(
    bundle: Bundle, out: Path, changes: Mapping[str, Any], files: Mapping[str, Arrays] | None = None
) -> Bundle:
    """Write a copy of a bundle; encoders that it names stay where they are.

    changes: entries of its manifest in place of the old ones; files: the same of its files. Raises
    BundleError.
    """
    manifest = read_manifest(bundle.path)
    new = files or {}
    kept = {
        file: bundle.file(file).read_bytes() for file in manifest.pop("files") if file not in new
    }
    manifest.pop("format")
    for encoder in manifest.get("encoders", {}).values():
        encoder["path"] = str((bundle.path / encoder["path"]).resolve())
    return write_bundle(out, {**manifest, **changes}, {**kept, **new})


def write_into(
    bundle: Bundle, changes: Mapping[str, Any], files: Mapping[str, bytes | Arrays] | None = None
) -> Bundle:
    """Write entries and files of a bundle in place of the old ones, as write_copy takes them.

    Raises BundleError, OSError.
    """
    manifest = read_manifest(bundle.path)
    sums = {**manifest.pop("files"), **_written(bundle.path, files or {})}
    return write_manifest(bundle.path, {**manifest, **changes}, sums)


def write_manifest(directory: Path, manifest: Mapping[str, Any], sums: Mapping[str, str]) -> Bundle:
    """Writes bundle.toml, also over an older one, for files that lie there with these sha256."""
    document = {"format": FORMAT, **_without_none(dict(manifest)), "files": dict(sums)}
    replace_file(directory / MANIFEST, tomli_w.dumps(document).encode())
    return read_bundle(directory)


def _without_none(values: Mapping[str, Any]) -> dict[str, Any]:
    """TOML has no null: what is not known is left out."""
    return {name: _plain(value) for name, value in values.items() if value is not None}


def _plain(value: Any) -> Any:  # noqa: ANN401
    if isinstance(value, Mapping):
        return _without_none(value)
    if isinstance(value, list | tuple):
        return [_plain(item) for item in value if item is not None]
    if isinstance(value, np.generic):
        return value.item()
    return value
