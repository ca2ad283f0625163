"""A file in its place, whole or not at all. Knows nothing of what is in it."""

import os
import secrets
from pathlib import Path


def is_special(path: Path) -> bool:
    """Whether this is a device, a pipe, or a name of an open file, as /dev/stdout is.

    A rename there would put a file in its place.
    """
    if not path.exists() or path.is_dir():
        return False
    folder = path.parent.resolve()
    return not path.is_file() or folder == Path("/dev") or folder.is_relative_to("/proc")


def write_atomic(path: Path, data: bytes, by_way_of: Path | None = None) -> None:
    """Puts a file there, or over the one that is, also through a loss of power.

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
