"""log.txt of a run directory."""

from collections.abc import Iterator
from contextlib import contextmanager, suppress
from datetime import UTC, datetime
from pathlib import Path
from typing import TextIO

from virnucpro.journal import RunFiles, disk_errors
from virnucpro.progress import Watcher


class RunLog:
    """log.txt, and the watcher's copy of each line."""

    def __init__(self, file: TextIO, watcher: Watcher) -> None:
        self._file = file
        self.watcher = watcher

    def line(self, text: str) -> None:
        self.keep(text)
        self.watcher.line(text)

    def keep(self, text: str) -> None:
        """A line for log.txt alone."""
        now = datetime.now(UTC).strftime("%Y-%m-%d %H:%M:%S")
        with disk_errors(Path(self._file.name).parent):
            self._file.write(f"{now} {text}\n")
            self._file.flush()


@contextmanager
def open_log(files: RunFiles, watcher: Watcher) -> Iterator[RunLog]:
    with disk_errors(files.run_dir):
        # A path need not be UTF-8.
        file = files.log.open("a", encoding="utf-8", errors="backslashreplace")
    try:
        yield RunLog(file, watcher)
    finally:
        with suppress(OSError):  # every line was flushed; what the disk refused was said then
            file.close()
