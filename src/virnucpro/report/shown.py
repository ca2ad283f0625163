"""The choice of records for a page, and of those whose chunks it draws. Knows nothing of files."""

import heapq
from collections.abc import Mapping
from dataclasses import dataclass
from math import inf
from typing import Generic, NamedTuple, TypeVar

import numpy as np
from numpy.typing import NDArray

from virnucpro.calls import Call, Status
from virnucpro.results.read import Columns

Row = TypeVar("Row")

MOST_ROWS = 10_000
MOST_TRACKS = 40  # of each of the reasons to draw a contig
MOST_POINTS = 40_000
POINTS_A_TRACK = 1_000
TRACK_POINTS = 20  # what a track takes besides its points
# Why a contig is drawn: the column that it is high in.
_REASONS = {
    "Longest viral regions": "region_nt",
    "Most chunks called virus": "virus_chunks",
    "Highest p_virus": "p_virus",
    "Longest": "length_nt",
}


class ShownRow(NamedTuple):
    """A row of contigs.tsv; a number is nan and a text is empty where it is missing."""

    sample: str
    record: int
    contig: str
    length_nt: int
    chunks: int
    virus_chunks: int
    p_virus: float
    max_p_virus: float
    call: Call
    status: Status
    probability: float
    q_value: float
    origin: str
    note: str
    mate: str = ""

    @property
    def name(self) -> str:
        """The name of the record, with its mate where it does not end so by itself."""
        return self.contig.removesuffix(self.mate) + self.mate


class RegionRow(NamedTuple):
    """The values that a page shows of a row of regions.tsv."""

    start: int
    end: int
    virus_chunks: int
    called: int


@dataclass(frozen=True, slots=True)
class Shown:
    """A record of the page: its row, and its ordinals in contigs.tsv and viral.fasta (or -1).

    regions: its rows of regions.tsv.
    """

    row: ShownRow
    ordinal: int
    viral: int
    regions: tuple[RegionRow, ...] = ()


class Top(Generic[Row]):
    """The rows of the largest keys, the earlier one first where keys are equal."""

    def __init__(self, size: int) -> None:
        self._size = size
        self._heap: list[tuple[float, int, Row]] = []

    @property
    def floor(self) -> float:
        """Only larger keys have a place here."""
        return self._heap[0][0] if len(self._heap) == self._size else -inf

    def add(self, key: float, ordinal: int, row: Row) -> None:
        if len(self._heap) < self._size:
            heapq.heappush(self._heap, (key, -ordinal, row))
        elif key > self.floor:
            heapq.heapreplace(self._heap, (key, -ordinal, row))

    def rows(self) -> list[Row]:
        return [row for _, _, row in sorted(self._heap, reverse=True)]


class Chosen:
    """The records of a page, chosen from contigs.tsv block by block.

    share: how many runs the page has room for. excerpts: ordinals in viral.fasta of regions, which
    are not records.
    """

    def __init__(self, share: int) -> None:
        self.excerpts: set[int] = set()
        self._most_points = MOST_POINTS // share
        self._table = Top[Shown](MOST_ROWS // share)
        self._tops = {reason: Top[Shown](MOST_TRACKS) for reason in _REASONS}
        self._ordinal = self._viral = 0

    def add(self, block: Columns, regions: Mapping[int, tuple[RegionRow, ...]]) -> None:
        """The next rows of contigs.tsv, with the regions of some of them."""
        virus = block["call"] == Call.VIRUS
        copies = virus.astype(np.int64)  # what viral.fasta holds of each
        region_nt = np.zeros(len(virus), np.int64)
        for i, rows in regions.items():
            region_nt[i] = sum(row.end - row.start for row in rows)
            if not virus[i]:
                copies[i] = len(rows)
        first = self._viral + np.cumsum(copies) - copies
        for i in np.flatnonzero(~virus & (copies > 0)).tolist():
            self.excerpts.update(range(first[i], first[i] + copies[i]))
        places = self._ordinal, np.where(virus, first, -1), regions
        _choose(self._table, np.nan_to_num(block["p_virus"], nan=-1.0), block, *places)
        columns = {**block, "region_nt": region_nt}
        for reason, column in _REASONS.items():
            fit = (block["chunks"] > 1) & (columns[column] > 0)
            _choose(self._tops[reason], np.where(fit, columns[column], -inf), block, *places)
        self._ordinal += len(virus)
        self._viral += int(copies.sum())

    def rows(self) -> list[Shown]:
        """Return the records of the table of the page."""
        return sorted(self._table.rows(), key=lambda shown: shown.ordinal)

    def drawn(self) -> list[tuple[str, Shown]]:
        """The records that are drawn, with the reason."""
        drawn: dict[int, tuple[str, Shown]] = {}
        for reason, top in self._tops.items():
            room = self._most_points // len(self._tops)
            for shown in top.rows():
                room -= min(shown.row.chunks, POINTS_A_TRACK) + TRACK_POINTS
                if room >= 0:
                    drawn.setdefault(shown.ordinal, (reason, shown))
        return list(drawn.values())


def _choose(
    top: Top[Shown],
    keys: NDArray[np.float64],
    block: Columns,
    ordinal: int,
    viral: NDArray[np.int64],
    regions: Mapping[int, tuple[RegionRow, ...]],
) -> None:
    """Adds the rows of a block that have a place; ordinal is that of its first row."""
    for i in np.flatnonzero(keys > top.floor).tolist():
        row, of_row = _contig_row(block, i), regions.get(i, ())
        top.add(float(keys[i]), ordinal + i, Shown(row, ordinal + i, int(viral[i]), of_row))


def _contig_row(block: Columns, i: int) -> ShownRow:
    return ShownRow(
        sample=block["sample"][i],
        record=int(block["record"][i]),
        contig=block["contig"][i],
        length_nt=int(block["length_nt"][i]),
        chunks=int(block["chunks"][i]),
        virus_chunks=int(block["virus_chunks"][i]),
        p_virus=float(block["p_virus"][i]),
        max_p_virus=float(block["max_p_virus"][i]),
        call=Call(block["call"][i]),
        status=Status(block["status"][i]),
        probability=float(block["probability"][i]),
        q_value=float(block["q_value"][i]),
        origin=block["origin"][i],
        note=block["note"][i],
        mate=block["mate"][i],
    )
