"""A JSON file that a command was asked to write with --json."""

import os
from pathlib import Path

from virnucpro.errors import SettingsError
from virnucpro.storage.atomic import is_special


def check_json_file(path: Path) -> None:
    """Raises SettingsError where none can be written, or another file lies: sooner than after work.

    An older JSON file is replaced, anything else is not: it may be an input, mistyped.
    """
    folder = path.parent
    if is_special(path) and os.access(path, os.W_OK):
        return
    if path.is_dir() or not folder.is_dir() or not os.access(folder, os.W_OK | os.X_OK):
        raise SettingsError(f"{path}: no file can be written here; name another with --json")
    if path.exists() and not _is_json(path):
        raise SettingsError(
            f"{path}: a file that is not JSON is there, and is not replaced; name another with "
            "--json"
        )


def _is_json(path: Path) -> bool:
    """Return True if it is empty or begins as a JSON object does."""
    with path.open("rb") as file:
        return file.read(1) in (b"", b"{")
