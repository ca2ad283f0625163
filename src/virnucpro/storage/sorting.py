"""Sorting lines on the disk: any number of lines in bounded memory, with a bounded number of files.

This module knows nothing of what the lines mean.
"""

import heapq
from collections.abc import Iterable, Iterator
from contextlib import ExitStack
from itertools import islice
from pathlib import Path

from virnucpro.storage.atomic import OutputFile

LINES_IN_MEMORY = 200_000
FAN_IN = 32
_PIECE = 8192


class SortedLines:
    """Takes lines in any order and gives them back in the order of their bytes.

    Lines are bytes that end in b"\\n" and hold no other. Sorted runs of lines_in_memory lines go to
    the folder; whenever fan_in runs of one size are there, they become one of the next size, so
    that fan_in + 1 files are open at most.
    """

    def __init__(
        self,
        folder: Path,
        name: str,
        lines_in_memory: int = LINES_IN_MEMORY,
        fan_in: int = FAN_IN,
    ) -> None:
        self._folder = folder
        self._name = name
        self._lines_in_memory = lines_in_memory
        self._fan_in = fan_in
        self._lines: list[bytes] = []
        self._runs: list[list[Path]] = []
        self._written = 0

    def add(self, lines: Iterable[bytes]) -> None:
        """Takes more lines."""
        rest = iter(lines)
        while piece := list(islice(rest, _PIECE)):
            self._lines += piece
            if len(self._lines) >= self._lines_in_memory:
                self._lines.sort()
                self._keep(0, self._lines)
                self._lines = []

    def _keep(self, size: int, lines: Iterable[bytes]) -> None:
        """Writes a run, and merges those of its size when there are enough."""
        path = self._folder / f"{self._name}.{self._written}.run"
        self._written += 1
        with OutputFile(path, durable=False) as run:
            for piece in pieces_of(lines):
                run.write(piece)
        if size == len(self._runs):
            self._runs.append([])
        self._runs[size].append(path)
        if len(self._runs[size]) == self._fan_in:
            merged, self._runs[size] = self._runs[size], []
            self._keep_merged(size + 1, merged)

    def _keep_merged(self, size: int, paths: list[Path]) -> None:
        with ExitStack() as stack:
            self._keep(size, heapq.merge(*(stack.enter_context(p.open("rb")) for p in paths)))
        for path in paths:
            path.unlink()

    def sorted(self) -> Iterator[bytes]:
        """All lines in order, once; the files are gone after the last. Nothing may be added."""
        self._lines.sort()
        size = 0
        while len(paths := [path for runs in self._runs for path in runs]) > self._fan_in:
            small, self._runs[size] = self._runs[size], []
            if small:
                self._keep_merged(size + 1, small)
            size += 1
        with ExitStack() as stack:
            files = [stack.enter_context(path.open("rb")) for path in paths]
            yield from heapq.merge(self._lines, *files)
        for path in paths:
            path.unlink()


def pieces_of(lines: Iterable[bytes]) -> Iterator[bytes]:
    """Lines -> pieces of thousands of lines, so that a file is not written line by line."""
    rest = iter(lines)
    while piece := b"".join(islice(rest, _PIECE)):
        yield piece
