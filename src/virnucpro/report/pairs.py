"""pairs.tsv, read beside contigs.tsv: counts of pairs, and those of them that a page shows.

Holds no more than a few blocks of rows, besides the pairs that are shown.
"""

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field
from enum import IntEnum
from pathlib import Path
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from virnucpro.calls import CALL_NAMES, Call
from virnucpro.report.shown import MOST_ROWS, Top
from virnucpro.results.read import Columns, blocks
from virnucpro.results.schema import PairsTable


class Agreement(IntEnum):
    """How the calls of the mates of a pair, each by itself, go together."""

    BOTH_VIRUS = 0
    BOTH_OTHERS = 1
    DISAGREE = 2
    ONE_ONLY = 3
    NONE = 4


AGREEMENTS = ("both virus", "both others", "mates disagree", "one mate only", "no mate called")

# Of pairs.tsv; its status says no more than the records and the calls of the mates.
_COLUMNS = tuple(name for name in PairsTable._fields if name != "status")


class ShownPair(NamedTuple):
    """A row of pairs.tsv, with what contigs.tsv says of its mates.

    A record is 0 and a number nan where it is missing.
    call_1, call_2: of each mate; origin, note: the words of both.
    """

    ordinal: int
    sample: str
    template: str
    record_1: int
    record_2: int
    p_virus_1: float
    p_virus_2: float
    p_virus: float
    call_1: Call
    call_2: Call
    agreement: Agreement
    origin: str
    note: str


@dataclass(slots=True)
class Pairs:
    """The pairs of a run.

    calls: counts by call; agreements: by the calls of the mates, and by call. shown: those called
    virus, of the highest p_virus. fits: False where contigs.tsv does not hold the same mates;
    agreements and shown are empty then.
    """

    calls: Counter[str] = field(default_factory=Counter)
    agreements: Counter[tuple[Agreement, Call]] = field(default_factory=Counter)
    shown: Sequence[ShownPair] = ()
    fits: bool = True


class _Mates(NamedTuple):
    """Records of contigs.tsv that are mates, n of them: columns."""

    sample: list[str]
    record: NDArray[np.int64]
    call: NDArray[np.uint8]
    origin: list[str]
    note: list[str]

    @classmethod
    def of(cls, block: Columns) -> "_Mates":
        rows = np.flatnonzero([mate != "" for mate in block["mate"]])
        texts = [[*block[name]] for name in ("sample", "origin", "note")]
        sample, origin, note = ([of[i] for i in rows.tolist()] for of in texts)
        return cls(sample, block["record"][rows], block["call"][rows], origin, note)

    def part(self, of: slice) -> "_Mates":
        """Return some of them."""
        return _Mates(
            self.sample[of], self.record[of], self.call[of], self.origin[of], self.note[of]
        )

    def then(self, more: "_Mates") -> "_Mates":
        """Return these, and others after them."""
        return _Mates(
            self.sample + more.sample,
            np.append(self.record, more.record),
            np.append(self.call, more.call),
            self.origin + more.origin,
            self.note + more.note,
        )


class PairsBeside:
    """Takes contigs.tsv block by block; each row of pairs.tsv is of its next one or two mates.

    share: how many runs the page has room for.
    """

    def __init__(self, path: Path, share: int) -> None:
        self._blocks = blocks(path, PairsTable, _COLUMNS)
        self._next = next(self._blocks, None)
        self._waiting: _Mates | None = None
        self._top = Top[ShownPair](MOST_ROWS // share)
        self._found = Pairs()
        self._ordinal = 0

    def add(self, block: Columns) -> None:
        """The next rows of contigs.tsv."""
        mates = _Mates.of(block)
        mates = mates if self._waiting is None else self._waiting.then(mates)
        while self._next is not None and (number := _mates_in(self._next)) <= len(mates.record):
            self._count(self._next, mates.part(slice(number)))
            mates = mates.part(slice(number, None))
        if self._next is None and len(mates.record):  # there is no row for them
            self._found.fits, mates = False, mates.part(slice(0))
        self._waiting = mates

    def pairs(self) -> Pairs:
        """Return what was found, after all rows of contigs.tsv."""
        found = self._found
        found.fits &= self._next is None
        while self._next is not None:
            self._count(self._next, None)
        if found.fits:
            found.shown = sorted(self._top.rows(), key=lambda pair: pair.ordinal)
        else:
            found.agreements.clear()
        return found

    def _count(self, block: Columns, mates: _Mates | None) -> None:
        """Count a block of pairs.tsv, and go on to the next. mates: of these pairs."""
        found, call = self._found, block["call"]
        for each in Call:
            found.calls[CALL_NAMES[each]] += int((call == each).sum())
        if mates is not None:
            places = _places(block)
            found.fits &= all(_is_there(block, mates, *of) for of in places)
            if found.fits:
                self._tell(block, mates, places)
        self._ordinal += len(call)
        self._next = next(self._blocks, None)

    def _tell(
        self, block: Columns, mates: _Mates, places: "list[tuple[str, NDArray[np.int64]]]"
    ) -> None:
        """Count pairs by the calls of their mates, and choose those that are shown."""
        call = block["call"]
        calls = np.append(mates.call, np.uint8(Call.NONE))  # the last stands for a missing mate
        one, two = (calls[place] for _, place in places)
        agreement = _agreement(one, two)
        numbers = np.bincount(agreement * len(Call) + call, minlength=len(Agreement) * len(Call))
        for code in np.flatnonzero(numbers).tolist():
            of_mates, of_pair = divmod(code, len(Call))
            self._found.agreements[Agreement(of_mates), Call(of_pair)] += int(numbers[code])
        keys = np.where(call == Call.VIRUS, block["p_virus"], -np.inf)
        for i in np.flatnonzero(keys > self._top.floor).tolist():
            here = [int(place[i]) for _, place in places if place[i] >= 0]
            pair = ShownPair(
                ordinal=self._ordinal + i,
                sample=block["sample"][i],
                template=block["template"][i],
                record_1=int(block["record_1"][i]),
                record_2=int(block["record_2"][i]),
                p_virus_1=float(block["p_virus_1"][i]),
                p_virus_2=float(block["p_virus_2"][i]),
                p_virus=float(block["p_virus"][i]),
                call_1=Call(one[i]),
                call_2=Call(two[i]),
                agreement=Agreement(agreement[i]),
                origin=_together([mates.origin[place] for place in here]),
                note=_together([mates.note[place] for place in here]),
            )
            self._top.add(float(keys[i]), pair.ordinal, pair)


def _mates_in(block: Columns) -> int:
    """Return how many records the pairs of a block are made of."""
    return sum(int((block[name] > 0).sum()) for name in ("record_1", "record_2"))


def _places(block: Columns) -> list[tuple[str, NDArray[np.int64]]]:
    """Return the first and the second mates: their columns, and (n,) of each the place or -1."""
    one, two = block["record_1"], block["record_2"]
    sizes = (one > 0).astype(np.int64) + (two > 0)
    start = np.cumsum(sizes) - sizes
    both = sizes == 2
    return [
        ("record_1", np.where(one > 0, start + (both & (one > two)), -1)),
        ("record_2", np.where(two > 0, start + (both & (two > one)), -1)),
    ]


def _is_there(block: Columns, mates: _Mates, column: str, place: NDArray[np.int64]) -> bool:
    """Return whether the mates of one column are the records that stand at these places."""
    some = np.flatnonzero(place >= 0)
    where = place[some]
    if not np.array_equal(block[column][some], mates.record[where]):
        return False
    samples = [*block["sample"]]
    pairs = zip(some.tolist(), where.tolist(), strict=True)
    return all(samples[i] == mates.sample[at] for i, at in pairs)


def _agreement(one: NDArray[np.uint8], two: NDArray[np.uint8]) -> NDArray[np.int64]:
    """Return how the calls of mates go together, (n,)."""
    called = (one != Call.NONE).astype(np.int64) + (two != Call.NONE)
    agreement = np.select(
        [called == 0, called == 1, one != two, one == Call.VIRUS],
        [Agreement.NONE, Agreement.ONE_ONLY, Agreement.DISAGREE, Agreement.BOTH_VIRUS],
        Agreement.BOTH_OTHERS,
    )
    return agreement.astype(np.int64)


def _together(texts: Sequence[str]) -> str:
    """Return the words of mates, each once."""
    words = (word for text in texts for word in text.split(","))
    return ",".join(dict.fromkeys(filter(None, words)))
