"""The contigs of a block as columns: names, lengths and what else stays of them without letters.

This module knows no letters, no chunks and no files.
"""

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, fields
from typing import overload

import numpy as np
from numpy.typing import NDArray

Bool = NDArray[np.bool_]
Int64 = NDArray[np.int64]


@dataclass(frozen=True, slots=True)
class Record:
    """The facts that a block keeps of a contig that begins in it or goes on in it.

    ordinal counts over all inputs of the run from 0, record within its input from 1. fault says
    why the contig cannot be processed; it is empty for all others. letters_crc: CRC-32 of its
    letters in this block, which finds the record where the digests of two blocks differ. mate,
    short, code: as of the contig; a short one has no chunk, whatever its length.
    """

    ordinal: int
    sample: str
    record: int
    name: str
    length_nt: int
    begins: bool
    ends: bool
    fault: str = ""
    letters_crc: int = 0
    mate: int = 0
    short: bool = False
    code: int = 1


@dataclass(frozen=True, slots=True, eq=False)
class Records(Sequence[Record]):
    """The records of a block in input order, r rows; columns as of Record.

    faults: reasons by row. Millions of records pass through a run, so work on the columns: a
    Record is made only where one is asked for.
    """

    sample: list[str]
    name: list[str]
    ordinal: Int64
    record: Int64
    length_nt: Int64
    begins: Bool
    ends: Bool
    letters_crc: Int64
    mate: Int64
    short: Bool
    code: Int64
    faults: Mapping[int, str]

    @classmethod
    def of(cls, records: Iterable[Record] = ()) -> "Records":
        """Return records as columns."""
        rows = [*records]
        return cls(
            sample=[r.sample for r in rows],
            name=[r.name for r in rows],
            ordinal=np.array([r.ordinal for r in rows], np.int64),
            record=np.array([r.record for r in rows], np.int64),
            length_nt=np.array([r.length_nt for r in rows], np.int64),
            begins=np.array([r.begins for r in rows], np.bool_),
            ends=np.array([r.ends for r in rows], np.bool_),
            letters_crc=np.array([r.letters_crc for r in rows], np.int64),
            mate=np.array([r.mate for r in rows], np.int64),
            short=np.array([r.short for r in rows], np.bool_),
            code=np.array([r.code for r in rows], np.int64),
            faults={row: r.fault for row, r in enumerate(rows) if r.fault},
        )

    def __len__(self) -> int:
        return len(self.name)

    @overload
    def __getitem__(self, row: int) -> Record: ...

    @overload
    def __getitem__(self, row: slice) -> "Records": ...

    def __getitem__(self, row: int | slice) -> "Record | Records":
        if isinstance(row, slice):
            return self._part(range(len(self))[row])
        row = range(len(self))[row]
        return Record(
            ordinal=int(self.ordinal[row]),
            sample=self.sample[row],
            record=int(self.record[row]),
            name=self.name[row],
            length_nt=int(self.length_nt[row]),
            begins=bool(self.begins[row]),
            ends=bool(self.ends[row]),
            fault=self.faults.get(row, ""),
            letters_crc=int(self.letters_crc[row]),
            mate=int(self.mate[row]),
            short=bool(self.short[row]),
            code=int(self.code[row]),
        )

    def __iter__(self) -> Iterator[Record]:
        faults = (self.faults.get(row, "") for row in range(len(self)))
        columns = (
            self.ordinal.tolist(),
            self.sample,
            self.record.tolist(),
            self.name,
            self.length_nt.tolist(),
            self.begins.tolist(),
            self.ends.tolist(),
            faults,
            self.letters_crc.tolist(),
            self.mate.tolist(),
            self.short.tolist(),
            self.code.tolist(),
        )
        return map(Record, *columns)

    def _part(self, rows: range) -> "Records":
        """Return some rows that follow each other."""
        if len(rows) == len(self):
            return self
        part = slice(rows.start, rows.stop)
        columns = {f.name: getattr(self, f.name)[part] for f in fields(self) if f.name != "faults"}
        faults = {row - rows.start: why for row, why in self.faults.items() if row in rows}
        return Records(**columns, faults=faults)

    def __eq__(self, other: object) -> bool:
        if not isinstance(other, Records):
            return NotImplemented
        columns = ((getattr(self, f.name), getattr(other, f.name)) for f in fields(self))
        return all(
            np.array_equal(mine, theirs) if isinstance(mine, np.ndarray) else mine == theirs
            for mine, theirs in columns
        )

    __hash__ = None  # type: ignore[assignment]

    @property
    def begun(self) -> list[str]:
        """The names of the records that begin here, which all but the first do."""
        return self.name if not len(self) or self.begins[0] else self.name[1:]

    @property
    def all_end(self) -> bool:
        """Return whether the last one ends here, as all before it do; True without any."""
        return not len(self) or bool(self.ends[-1])

    @property
    def faulty(self) -> Bool:
        """Return whether each cannot be processed, (r,)."""
        found = np.zeros(len(self), np.bool_)
        found[[*self.faults]] = True
        return found
