"""A file in its place, whole or not at all. Knows nothing of what is in it."""

import os
import secrets
from pathlib import Path


def write_atomic(path: Path, data: bytes, by_way_of: Path | None = None) -> None:
    """Puts a file there, or over the one that is, also through a loss of power.

    by_way_of: a folder of the same file system for what a kill in between leaves behind. Several
    may write at once; one of them is then there. A device or a pipe is written to and stays what it
    is. Raises OSError.
    """
    if path.exists() and not path.is_file():
        path.write_bytes(data)
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
