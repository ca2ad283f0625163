"""A model on disk: manifest, card, digests; `load` finds one by its name."""

import os
import stat
from collections.abc import Mapping
from pathlib import Path

from virnucpro.bundle.catalogue import newest, read_catalogue
from virnucpro.bundle.manifest import MANIFEST, Bundle, read_bundle
from virnucpro.errors import BundleError, meant
from virnucpro.storage.digests import VARIABLE, cache_path, warn_once

DEFAULT_BUNDLE = "mini-500"


EMBEDDED = Path(__file__).parents[1] / "bundles"


DOWNLOADED = "bundles"


def load(name_or_path: str | Path) -> Bundle:
    """A bundle by its name or alias, embedded or downloaded, or any bundle by its directory.

    `mini-500` is an alias of the newest `mini-500-vN`. Nothing is downloaded. Raises BundleError.
    """
    found = find(name_or_path)
    if found is not None:
        return read_bundle(found)
    name = str(name_or_path)
    if known := read_catalogue().find(name):
        raise BundleError(
            f"{name}: {known.description}, of {known.size_bytes / 1e9:.1f} GB, is not on this "
            f"machine yet; fetch it with `virnucpro bundles download {name}`"
        )
    here = sorted({*_embedded(), *_downloaded()})
    nearest = meant(name, [*here, *read_catalogue().names])
    raise BundleError(
        f"{name}: no bundle of this name and no directory with a {MANIFEST}{nearest}; give a "
        f"bundle's directory, or one of the bundles that are here: {', '.join(here) or 'none'}"
    )


def find(name_or_path: str | Path) -> Path | None:
    """The directory of a bundle that is here, as load looks for it. Raises BundleError."""
    for places in (_embedded, _downloaded):  # the cache is looked into only where it is needed
        if found := places().get(str(name_or_path)):
            return found
    path = Path(name_or_path)
    try:  # not by is_file: from Python 3.14 on that is silent where nothing may be looked into
        return path if stat.S_ISREG((path / MANIFEST).stat().st_mode) else None
    except (FileNotFoundError, NotADirectoryError, ValueError):
        return None
    except OSError as error:
        raise BundleError(
            f"{path}: cannot be looked into ({error.strerror or error}); give a bundle's name, or "
            "a directory that you may read"
        ) from error


def embedded_bundles() -> list[Bundle]:
    """The bundles that come with the package, by name."""
    return [read_bundle(path) for path in _in(EMBEDDED).values()]


def downloaded_bundles() -> list[Path]:
    """The directories of the bundles in the cache, by name; load tells whether one is whole."""
    return [*_cached().values()]


def downloads_folder() -> Path | None:
    """Return the folder of downloaded bundles, which need not exist; None if no home is known."""
    found = cache_path()
    return None if found is None else found / DOWNLOADED


def aliases_of(bundle: Bundle) -> list[str]:
    """The shorter names that this embedded or downloaded bundle answers to."""
    places = _downloaded() | _embedded()
    return sorted(n for n, path in places.items() if path == bundle.path and n != bundle.name)


def _in(folder: Path) -> dict[str, Path]:
    """Raises OSError where the folder is there and cannot be looked into; glob may be silent."""
    try:
        places = sorted(folder.iterdir())
    except FileNotFoundError:
        return {}
    return {path.name: path for path in places if os.path.exists(path / MANIFEST)}  # noqa: PTH110


def _with_aliases(places: Mapping[str, Path]) -> dict[str, Path]:
    return {**places, **{alias: places[name] for alias, name in newest(places).items()}}


def _embedded() -> dict[str, Path]:
    """Names and aliases of the embedded bundles; an alias means its highest version."""
    return _with_aliases(_in(EMBEDDED))


def _downloaded() -> dict[str, Path]:
    return _with_aliases(_cached())


def _cached() -> dict[str, Path]:
    """The bundles in the cache by name; empty, with a warning, where the cache cannot be read."""
    folder = downloads_folder()
    try:
        return {} if folder is None else _in(folder)
    except OSError as error:
        warn_once(
            f"{folder}: downloaded bundles cannot be looked for here ({error.strerror or error}); "
            f"set {VARIABLE} to a folder that you may read"
        )
        return {}
