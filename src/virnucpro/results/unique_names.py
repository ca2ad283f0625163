"""Unique names for the two tables whose rows are known by name alone.

The first record of a name keeps it, later ones get _1, _2, ... in input order; a name that any
record has or got is skipped. A run without repeated names costs eight bytes of disk a record and
one sort of integers; the names themselves are sorted, on disk, only where some repeat.
"""

import re
from array import array
from collections.abc import Callable, Iterable, Iterator, Sequence
from itertools import groupby
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from virnucpro.records import Records
from virnucpro.storage.sorting import SortedLines

HASHES_AT_ONCE = 1 << 20
_PIECE = 1 << 16
_NUMBERED = re.compile(r"(.*)_([1-9][0-9]{0,11})", re.DOTALL)


def sort_key(name: str) -> str:
    """A name with an end mark, such that keys in front of anything sort as the names do.

    The mark is two zero bytes; a zero byte in a name is followed by 255 (here as the escape that
    stands for this byte), so that no name that goes on after it can pass for the mark.
    """
    return name.replace("\0", "\0\udcff") + "\0\0"


def name_hashes(names: Sequence[str]) -> NDArray[np.int64]:
    """64-bit hashes, (n,), the same for equal names within one process.

    They differ from process to process, which is well: they only find suspects.
    """
    return np.fromiter(map(hash, names), dtype=np.int64, count=len(names))


def repeated_hashes(path: Path, at_once: int = HASHES_AT_ONCE) -> NDArray[np.int64]:
    """The hashes that a file of them holds more than once, ascending.

    The file is read in several passes if it holds more than at_once, so that memory is bounded.
    """
    parts = 1 + path.stat().st_size // 8 // at_once
    found = np.concatenate([_repeated(_part(path, i, parts)) for i in range(parts)])
    found.sort()
    return found


def _part(path: Path, part: int, parts: int) -> NDArray[np.int64]:
    """The hashes of a file with one remainder of a division."""
    found = [np.zeros(0, dtype=np.int64)]
    with path.open("rb") as file:
        while data := file.read(8 * _PIECE):
            hashes = np.frombuffer(data, dtype=np.int64)
            found.append(hashes[hashes % parts == part])
    return np.concatenate(found)


def _repeated(hashes: NDArray[np.int64]) -> NDArray[np.int64]:
    hashes.sort()
    return np.unique(hashes[1:][hashes[1:] == hashes[:-1]])


def _suspected(names: Sequence[str], suspects: NDArray[np.int64]) -> list[int]:
    """Which of the names have a hash that is among the suspects, which ascend."""
    hashes = name_hashes(names)
    at = np.minimum(np.searchsorted(suspects, hashes), len(suspects) - 1)
    return [int(row) for row in np.flatnonzero(suspects[at] == hashes)]


class UniqueNames:
    """Gives the records of a run, block by block in input order, their unique names."""

    def __init__(self, assigned: Iterator[tuple[int, int]]) -> None:
        """assigned: (ordinal, number) of the records that get a number, by ordinal."""
        self._assigned = assigned
        self._next = next(assigned, None)

    def of(self, records: Records) -> list[str]:
        """Unique names of a block's records, whose ordinals follow each other."""
        names, last = [*records.name], len(records) - 1
        while self._next is not None and names and self._next[0] <= records.ordinal[last]:
            ordinal, number = self._next
            row = ordinal - int(records.ordinal[0])
            names[row] = f"{names[row]}_{number}"
            if row == last and not records.all_end:  # the next block begins with the rest of it
                break
            self._next = next(self._assigned, None)
        return names


def unique_names(
    blocks: Callable[[], Iterable[Records]], hashes: Path, scratch: Path
) -> UniqueNames:
    """Resolves the names of a run.

    blocks: gives the records of each block in input order, each time it is called; hashes: file
    of the name_hashes of all records that begin in them; scratch: folder for what is sorted.
    """
    suspects = repeated_hashes(hashes)
    if not len(suspects):
        return UniqueNames(iter(()))
    by_name = SortedLines(scratch, "names")
    for records in blocks():
        begun = records.begun
        first = int(records.ordinal[-1]) + 1 - len(begun) if begun else 0
        by_name.add(_bearers(begun, first, suspects))
        by_name.add(_takers(begun, suspects))
    by_ordinal = SortedLines(scratch, "ordinals")
    by_ordinal.add(_numbers(by_name.sorted()))
    return UniqueNames((int(line[:20]), int(line[20:])) for line in by_ordinal.sorted())


def _bearers(names: Sequence[str], first: int, suspects: NDArray[np.int64]) -> Iterator[bytes]:
    """Lines for the records whose name may repeat: key, 1, ordinal. first: of the ordinals."""
    for row in _suspected(names, suspects):
        yield _bytes(f"{sort_key(names[row])}1{first + row:020d}\n")


def _takers(names: Sequence[str], suspects: NDArray[np.int64]) -> Iterator[bytes]:
    """Lines for the records whose own name is such a name with a number: key, 0, number."""
    found = [match for name in names if (match := _NUMBERED.fullmatch(name))]
    names = [match[1] for match in found]
    for row in _suspected(names, suspects):
        yield _bytes(f"{sort_key(names[row])}0{int(found[row][2]):020d}\n")


def _numbers(lines: Iterator[bytes]) -> Iterator[bytes]:
    """Sorted lines of bearers and takers -> ordinal and number of the records that get one.

    A name with a number can only be made from the part before its last underscore, so names that
    are given never meet, and each name can be settled alone.
    """
    for _, group in groupby(lines, key=lambda line: line[:-22]):
        taken = array("q")
        number = position = bearers = 0
        for line in group:
            value = int(line[-21:])
            if line[-22:-21] == b"0":
                taken.append(value)
                continue
            bearers += 1
            if bearers == 1:
                continue
            number += 1
            while position < len(taken) and taken[position] <= number:
                number += taken[position] == number
                position += 1
            yield b"%020d%d\n" % (value, number)


def _bytes(text: str) -> bytes:
    return text.encode("utf-8", "surrogateescape")
