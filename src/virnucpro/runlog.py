"""log.txt of a run directory, and log.jsonl on request."""

import json
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager, suppress
from datetime import UTC, datetime
from pathlib import Path
from typing import TextIO

from virnucpro.progress import WARNING, Watcher
from virnucpro.run_directory import RunFiles
from virnucpro.writing import disk_errors


class RunLog:
    """log.txt, log.jsonl where it is wanted, and the watcher's copy of each line."""

    def __init__(self, file: TextIO, watcher: Watcher, jsonl: TextIO | None = None) -> None:
        self._file = file
        self._jsonl = jsonl
        self.watcher = watcher

    def line(self, text: str) -> None:
        self._keep(text)
        self.watcher.line(text)

    def detail(self, text: str) -> None:
        """A line for the files, and for a watcher who wants every detail."""
        self._keep(text)
        self.watcher.detail(text)

    def ended(self, status: str, sentence: str) -> None:
        """How a run ended that did not finish; for the files alone."""
        self._keep(f"{status}: {sentence}", "error")

    def _keep(self, text: str, level: str = "") -> None:
        level = level or ("warning" if text.startswith(WARNING) else "info")
        now = datetime.now(UTC)
        with disk_errors(Path(self._file.name).parent):
            self._file.write(f"{now:%Y-%m-%d %H:%M:%S} {text}\n")
            self._file.flush()
            if self._jsonl is not None:
                time = now.isoformat(timespec="milliseconds")
                text = text.removeprefix(WARNING)
                self._jsonl.write(json.dumps({"time": time, "level": level, "text": text}) + "\n")
                self._jsonl.flush()


@contextmanager
def open_log(files: RunFiles, watcher: Watcher, *, as_json: bool = False) -> Iterator[RunLog]:
    with ExitStack() as stack:

        def opened(path: Path) -> TextIO:
            with disk_errors(files.run_dir):
                # A path need not be UTF-8.
                file = path.open("a", encoding="utf-8", errors="backslashreplace")
            stack.callback(_closed, file)
            return file

        jsonl = opened(files.log_json) if as_json else None
        yield RunLog(opened(files.log), watcher, jsonl)


def _closed(file: TextIO) -> None:
    with suppress(OSError):  # every line was flushed; what the disk refused was said then
        file.close()
