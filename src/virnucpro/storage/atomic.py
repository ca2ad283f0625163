"""The way of a file to its place: whole or not at all, and what is said when the disk refuses.

Knows nothing of what is in a file.
"""

import contextlib
import errno
import hashlib
import json
import os
import re
import secrets
import zlib
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any, Self

from virnucpro.errors import FolderError, VirnucproError

PACKED_SUFFIX = ".gz"
# Of zlib: the usual 6 takes four times as long, for tables that are a seventh smaller.
_PACKED_LEVEL = 1
_GZIP_FORM = 16 + zlib.MAX_WBITS  # a header without name and time: equal tables are equal files

# Of replace_file: the name of the file, the process, and chance.
_TEMPORARY = re.compile(r"\..+\.\d+\.[0-9a-f]{8}")

_FULL = {errno.ENOSPC, errno.EDQUOT, errno.EFBIG}
_UNKNOWN = {errno.EINVAL, errno.ENOTSUP, errno.EOPNOTSUPP, errno.ENOSYS}
_FORBIDDEN = {errno.EACCES, errno.EPERM, errno.EROFS}


@contextlib.contextmanager
def disk_errors(folder: Path, option: str = "-o") -> Iterator[None]:
    """Turns what the disk refuses while something is written in a folder into one sentence.

    option: what the user names another folder with. Raises VirnucproError for a full disk, and
    FolderError for a folder that takes no file.
    """
    try:
        yield
    except OSError as error:
        if error.errno in _FULL:
            raise VirnucproError(
                f"{folder}: the disk is full; free some space, or choose another folder with "
                f"{option}, and run again"
            ) from error
        if error.errno in _FORBIDDEN:
            raise FolderError(
                f"{folder}: no permission to write here; choose another folder with {option}, or "
                "change the permissions of this one"
            ) from error
        raise FolderError(
            f"{folder}: this folder cannot be written to ({error.strerror or error}); choose "
            f"another with {option}"
        ) from error


def is_special(path: Path) -> bool:
    """Return True for a device, a pipe, or a name of an open file, as /dev/stdout is.

    A rename there would put a file in its place.
    """
    if not path.exists() or path.is_dir():
        return False
    folder = path.parent.resolve()
    return not path.is_file() or folder == Path("/dev") or folder.is_relative_to("/proc")


def replace_file(path: Path, data: bytes, by_way_of: Path | None = None) -> None:
    """Puts a file there, or over the one that is, whole or not at all.

    by_way_of: a folder of the same file system for what a kill in between leaves behind. Several
    may write at once; one of them is then there. What is_special tells is written to, and stays
    what it is. Raises OSError.
    """
    if is_special(path):
        with path.open("ab") as there:
            there.write(data)
        return
    name = f".{path.name}.{os.getpid()}.{secrets.token_hex(4)}"
    temporary = (by_way_of or path.parent) / name
    try:
        with temporary.open("xb") as file:
            file.write(data)
            file.flush()
            os.fsync(file.fileno())
        temporary.replace(path)
    finally:
        temporary.unlink(missing_ok=True)


def remove_leftovers(folder: Path) -> None:
    """Removes what a kill has left of replace_file."""
    for path in folder.glob(".*"):
        if _TEMPORARY.fullmatch(path.name):
            path.unlink()


def write_atomic(
    path: Path, data: bytes, by_way_of: Path | None = None, option: str = "-o"
) -> None:
    """Puts a file into its place whole or not at all, also through a loss of power.

    by_way_of: a folder of the same file system for what a kill in between leaves behind; option: as
    in disk_errors.
    """
    with disk_errors(path.parent, option):
        replace_file(path, data, by_way_of)
        sync_folder(path.parent)


def write_json(
    path: Path, document: Mapping[str, Any], by_way_of: Path | None = None, option: str = "-o"
) -> None:
    """Puts a JSON document into its place as write_atomic does."""
    data = (json.dumps(document, indent=2, allow_nan=False) + "\n").encode()
    write_atomic(path, data, by_way_of, option)


def sync_folder(folder: Path) -> None:
    """Makes the names in a folder last through a loss of power."""
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    except OSError as error:  # some file systems flush files alone
        if error.errno not in _UNKNOWN:
            raise
    finally:
        os.close(descriptor)


class OutputFile:
    """A new file, written from beginning to end; durable: also through a loss of power.

    Gzipped if its name says so. sha256: hex digest of a durable file, once it is closed.
    """

    def __init__(self, path: Path, durable: bool = True) -> None:
        self.path = path
        self.sha256 = ""
        self._durable = durable
        self._hash = hashlib.sha256()
        packed = path.suffix == PACKED_SUFFIX
        self._packer = zlib.compressobj(_PACKED_LEVEL, wbits=_GZIP_FORM) if packed else None
        with disk_errors(path.parent):
            self._file = path.open("xb")

    def write(self, data: bytes) -> None:
        """Appends; raises VirnucproError when the disk refuses."""
        self._append(self._packer.compress(data) if self._packer else data)

    def _append(self, data: bytes) -> None:
        with disk_errors(self.path.parent):
            self._file.write(data)
        if self._durable:
            self._hash.update(data)

    def close(self) -> None:
        """Flushes everything; raises VirnucproError when the disk refuses."""
        if self._packer:
            self._append(self._packer.flush())
        with disk_errors(self.path.parent):
            self._file.flush()
            if self._durable:
                os.fsync(self._file.fileno())
            self._file.close()
        self.sha256 = self._hash.hexdigest()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: type[BaseException] | None, *_: object) -> None:
        if kind is None:
            self.close()
        else:
            self.abandon()

    def abandon(self) -> None:
        """Closes a file that nobody will read; closing flushes, and the disk may still be full."""
        with contextlib.suppress(OSError):
            self._file.close()
