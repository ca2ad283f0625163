"""The files of a published encoder that a bundle names: which they are, and their digests."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from virnucpro.encoders.weights.load import find_published, open_published
from virnucpro.errors import BundleError
from virnucpro.storage.digests import file_digest


def encoder_files(path: Path | str) -> dict[str, Path]:
    """Return the files that a published encoder is read from, by name. Raises BundleError."""
    return {file.name: file for file in find_published(path).files}


def encoder_config(path: Path | str) -> Mapping[str, Any]:
    """Return the config that a published encoder came with. Raises BundleError."""
    return open_published(find_published(path)).config


def encoder_sums(path: Path | str) -> dict[str, str]:
    """Return the sha256 of each of these files, by name. Raises BundleError."""
    return {name: file_digest(file) for name, file in encoder_files(path).items()}


def checked_encoder(manifest: Path, parts: Mapping[str, Any], name: str) -> Path:
    """Return where an encoder of a bundle lies, if its files are those that the manifest names.

    parts: of the manifest. Raises BundleError.
    """
    directory = manifest.parent
    encoders = parts.get("encoders")
    if not isinstance(encoders, Mapping) or name not in encoders:
        raise BundleError(
            f"{directory}: holds a head, but no encoder {name}; make a bundle of both encoders "
            "with `virnucpro bundles import HEAD.pth -o DIR --chunk N --esm PATH --dnabert PATH`"
        )
    part = encoders[name]
    path = part.get("path") if isinstance(part, Mapping) else None
    sums = part.get("sha256") if isinstance(part, Mapping) else None
    if not isinstance(path, str) or not isinstance(sums, Mapping):
        raise BundleError(
            f"{manifest}: names no path and sha256 for the encoder {name}; the bundle is damaged"
        )
    place = directory / path
    if not place.exists():
        raise BundleError(
            f"{place}: the encoder {name} is not there any more; put it back, or make or download "
            "the bundle again"
        )
    found = encoder_sums(place)
    wrong = sorted(file for file in {*found, *sums} if found.get(file) != sums.get(file))
    if wrong:
        raise BundleError(
            f"{place}: {', '.join(wrong)} of the encoder {name} is not what {manifest.name} names; "
            "put the files there that the head was fitted on"
        )
    return place
