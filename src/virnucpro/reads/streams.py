"""Standard input and pipes, which give their bytes once: kept, so that they can be read again."""

import io
import os
import select
import sys
import tempfile
from pathlib import Path
from typing import TYPE_CHECKING
from weakref import finalize

from virnucpro.errors import InputError, VirnucproError
from virnucpro.reads.compression import ZstdCompressor, zstd_decompress

if TYPE_CHECKING:
    from _typeshed import WriteableBuffer

STDIN = Path("-")
# What is compressed at a time; so many bytes must have come before the first record is read.
PIECE_BYTES = 1 << 20
_LEVEL = 1
_LISTEN_MS = 200


class Spool:
    """A stream, and what it has given so far: compressed, in a file without a name.

    The file goes with the process, however that ends. folder must exist when the first piece is
    read; None keeps nothing, and the stream can be read once.
    """

    def __init__(self, path: Path, folder: Path | None) -> None:
        self._path = path
        self._folder = folder
        self._stream: int | None = None
        self._stopped = False
        self._file: io.FileIO | None = None
        self._ends = [0]
        self._given = 0

    @property
    def kept(self) -> bool:
        """Return whether what was read stays, and can be read again."""
        return self._folder is not None

    def piece(self, number: int) -> bytes:
        """PIECE_BYTES of the stream, fewer at its end, none behind it; by number, from 0."""
        if number + 1 < len(self._ends):
            assert self._file is not None
            begin, end = self._ends[number : number + 2]
            return zstd_decompress(os.pread(self._file.fileno(), end - begin, begin))
        if number < self._given:
            raise AssertionError("a stream that is not kept was read a second time")
        if self._stream is None:
            self._stream = self._opened()
        data = self._read(self._stream)
        if data and self._folder is not None:
            self._keep(data, self._folder)
        self._given += bool(data)
        return data

    def stop(self) -> None:
        """End the pass that reads, also where it waits for more; pieces before stay."""
        self._stopped = True

    def _opened(self) -> int:
        if self._path == STDIN:
            return standard_input()
        stream = os.open(self._path, os.O_RDONLY)
        finalize(self, os.close, stream)
        return stream

    def _read(self, stream: int) -> bytes:
        """The next piece; descriptors and not files, whose locks would outlive who waits here."""
        parts: list[bytes] = []
        missing = PIECE_BYTES
        waiting = select.poll()  # select takes no descriptor above 1,023
        waiting.register(stream, select.POLLIN)
        while missing and not self._stopped:
            if waiting.poll(_LISTEN_MS):
                if not (data := os.read(stream, missing)):
                    break
                parts.append(data)
                missing -= len(data)
        return b"".join(parts)

    def _keep(self, data: bytes, folder: Path) -> None:
        try:
            if self._file is None:
                self._file = tempfile.TemporaryFile(dir=folder, buffering=0)  # noqa: SIM115 - kept
                finalize(self, self._file.close)
            packed = ZstdCompressor(level=_LEVEL).compress(data, ZstdCompressor.FLUSH_FRAME)
            written = 0
            while written < len(packed):
                at = self._ends[-1] + written
                written += os.pwrite(self._file.fileno(), packed[written:], at)
        except OSError as error:
            raise VirnucproError(
                f"{folder}: a copy of what comes through the pipe cannot be kept here "
                f"({error.strerror}); choose another folder with -o, or write it to a file first"
            ) from error
        self._ends.append(self._ends[-1] + len(packed))

    def reader(self) -> io.RawIOBase:
        """All bytes of the stream, from its beginning, for a pass after the one before it ended."""
        self._stopped = False
        return _Reader(self)


class _Reader(io.RawIOBase):
    def __init__(self, spool: Spool) -> None:
        self._spool = spool
        self._number = 0
        self._data = memoryview(b"")

    def readable(self) -> bool:
        return True

    def readinto(self, buffer: "WriteableBuffer", /) -> int:
        if not self._data:
            self._data = memoryview(self._spool.piece(self._number))
            self._number += bool(self._data)
        view = memoryview(buffer)
        count = min(len(view), len(self._data))
        view[:count] = self._data[:count]
        self._data = self._data[count:]
        return count


def standard_input() -> int:
    """Return the descriptor of what is piped in. Raises InputError where nothing is."""
    if sys.stdin is None or sys.stdin.isatty():
        raise InputError("nothing is piped into standard input, which '-' stands for; name a file")
    return sys.stdin.fileno()
