"""The one folder of all caches, and the sha256 of big files that it remembers.

A cache saves work and is never needed: where its folder cannot be used, everything is computed
again. This module knows no bundle and no format.
"""

import hashlib
import json
import logging
import os
import stat
import time
from functools import cache
from pathlib import Path

from platformdirs import user_cache_path

from virnucpro.errors import BundleError
from virnucpro.storage.atomic import replace_file

VARIABLE = "VIRNUCPRO_CACHE"
DIGESTS = "digests"
# A smaller file is hashed in some 20 ms; to remember that is not worth a file.
REMEMBERED_BYTES = 16 * 2**20
# A file that changed so lately may change again within one tick of its clock, at the same size.
SETTLED_NS = 2_000_000_000


def cache_path() -> Path | None:
    """Return the folder of all caches, whether or not it is there; None where no home is known."""
    chosen = os.environ.get(VARIABLE)
    if chosen:
        return Path(chosen).absolute()
    try:
        path = user_cache_path("virnucpro", appauthor=False)
    except RuntimeError:  # how platformdirs says that no home is known
        return None
    return path if path.is_absolute() else None  # older ones leave a bare ~


def cache_dir() -> Path | None:
    """The folder of all caches, made where it is not there yet; None where it cannot be used.

    That is a warning, once, and not a failure: in a container the home may be missing, the user
    unknown, or the disk for reading only.
    """
    path = cache_path()
    if path is None:
        warn_once(
            f"no home folder is known, so nothing is kept in a cache; set {VARIABLE} to a folder"
        )
        return None
    try:
        path.mkdir(parents=True, exist_ok=True)
        reason = "" if os.access(path, os.W_OK | os.X_OK) else "no permission to write"
    except OSError as error:
        reason = error.strerror or str(error)
    if reason:
        warn_once(
            f"{path}: nothing can be kept in this cache ({reason}); set {VARIABLE} to a folder "
            "that can be written to"
        )
        return None
    return path


@cache
def warn_once(sentence: str) -> None:
    """A warning in the log, unless this process has given it already."""
    logging.getLogger("virnucpro").warning("warning: %s", sentence)


def refuse_irregular(path: Path) -> None:
    """Raise BundleError for a device or a pipe, which would be read for ever, or for a folder."""
    try:
        mode = path.stat().st_mode
    except OSError:  # said by whoever reads it
        return
    if not stat.S_ISREG(mode):
        what = "a folder" if stat.S_ISDIR(mode) else "a device or pipe"
        raise BundleError(f"{path}: this is {what}, not a file of a bundle; put the file there")


def file_sha256(path: Path) -> str:
    """Hex digest of a file, read whole. Raises BundleError where it cannot be read."""
    refuse_irregular(path)
    try:
        with path.open("rb") as file:
            return hashlib.file_digest(file, "sha256").hexdigest()
    except OSError as error:
        raise BundleError(f"{path}: cannot be read ({error.strerror or error})") from error


def file_digest(path: Path, *, afresh: bool = False) -> str:
    """The sha256 of a file; a big one is read once, then known by its size, mtime and inode.

    afresh: whether it is read whatever is remembered, which is then replaced. Several processes may
    ask at once. Raises BundleError where the file cannot be read.
    """
    path = Path(path)
    refuse_irregular(path)
    before = _stamp(path)
    if before["bytes"] < REMEMBERED_BYTES:
        return file_sha256(path)
    known = None if afresh else _remembered(path, before)
    if known is not None:
        return known
    digest = file_sha256(path)
    if _stamp(path) == before and time.time_ns() - before["mtime_ns"] > SETTLED_NS:
        _remember(path, {**before, "sha256": digest})
    return digest


def _stamp(path: Path) -> dict[str, int]:
    try:
        found = path.stat()
    except OSError as error:
        raise BundleError(f"{path}: cannot be read ({error.strerror or error})") from error
    return {"bytes": found.st_size, "mtime_ns": found.st_mtime_ns, "inode": found.st_ino}


def _memo(folder: Path, path: Path) -> Path:
    name = hashlib.sha256(os.fsencode(path.resolve())).hexdigest()
    return folder / DIGESTS / f"{name}.json"


def _remembered(path: Path, stamp: dict[str, int]) -> str | None:
    """A digest that was kept for a file of just this stamp; a damaged memo counts as none."""
    folder = cache_path()
    if folder is None:
        return None
    try:
        memo = json.loads(_memo(folder, path).read_bytes())
    except (OSError, ValueError):
        return None
    if not isinstance(memo, dict):
        return None
    digest = memo.pop("sha256", None)
    return digest if memo == stamp and isinstance(digest, str) and len(digest) == 64 else None


def _remember(path: Path, memo: dict[str, int | str]) -> None:
    folder = cache_dir()
    if folder is None:
        return
    target = _memo(folder, path)
    try:
        target.parent.mkdir(exist_ok=True)
        replace_file(target, json.dumps(memo).encode())
    except OSError as error:
        warn_once(f"{target.parent}: a digest cannot be kept ({error.strerror or error})")
