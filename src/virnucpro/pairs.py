"""Calls of mates -> calls of pairs, and the names of what was called virus.

Works on the records of a run in their order and holds one of them, besides names that are sorted
on the disk. This module knows no encoder and no format of reads.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import groupby
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from virnucpro.batches import Record
from virnucpro.calls import Call, Contigs, Rule
from virnucpro.reads import template_of
from virnucpro.sorting import SortedLines

PAIRS_COLUMNS = (
    "sample",
    "template",
    "record_1",
    "record_2",
    "p_virus_1",
    "p_virus_2",
    "p_virus",
    "call",
    "status",
)
PAIR_STATUSES = ("ok", "one_called", "not_called", "mate_missing")


@dataclass(frozen=True, slots=True)
class _Mate:
    """A contig of a pair; p_virus is nan and called_nt 0 where it has no call."""

    record: Record
    p_virus: float
    called_nt: float


class PairedCalls:
    """Takes contigs as they end, in the order of the input, and finds mates that follow each other.

    The p_virus of a pair is the mean of its mates' weighted by the bases that were called, so that
    of a contig made of both.
    """

    def __init__(self, rule: Rule, scratch: Path) -> None:
        self._rule = rule
        self._names = SortedLines(scratch, "viral_names")
        self._waiting: _Mate | None = None

    def add(self, records: Sequence[Record], contigs: Contigs, called: NDArray[np.uint8]) -> bytes:
        """Rows of pairs.tsv that are known by now.

        called: (r,) Call of each of the r contigs.
        """
        if self._waiting is None and not any(record.mate for record in records):
            virus = np.flatnonzero(called == Call.VIRUS).tolist()
            self._names.add(_lines([records[i].name for i in virus]))
            return b""
        rows: list[str] = []
        columns = (contigs.p_virus.tolist(), contigs.called_nt.tolist(), called.tolist())
        for record, p_virus, called_nt, call in zip(records, *columns, strict=True):
            if not record.mate:
                rows += self._alone()
                self._names.add(_lines([record.name] if call == Call.VIRUS else []))
                continue
            mate = _Mate(record, p_virus, called_nt)
            template = self._template_with(mate)
            if self._waiting is not None and template is not None:
                rows.append(self._row(template, self._waiting, mate))
                self._waiting = None
            else:
                rows += self._alone()
                self._waiting = mate
        return _encoded(rows)

    def rest(self) -> bytes:
        """The row of a mate that waits in vain."""
        return _encoded(self._alone())

    def viral_names(self) -> Iterator[bytes]:
        """The names of records called virus, and of both mates of such pairs, each once.

        As lines, in the order of their bytes. Nothing may be added any more.
        """
        return (line for line, _ in groupby(self._names.sorted()))

    def _template_with(self, mate: _Mate) -> str | None:
        if self._waiting is None:
            return None
        before, here = self._waiting.record, mate.record
        follows = (before.sample, before.record + 1) == (here.sample, here.record)
        if not follows or {before.mate, here.mate} != {1, 2}:
            return None
        first, second = sorted((before, here), key=lambda record: record.mate)
        return template_of(first.name, second.name)

    def _alone(self) -> list[str]:
        mate, self._waiting = self._waiting, None
        return [] if mate is None else [self._row(mate.record.name, mate)]

    def _row(self, template: str, *mates: _Mate) -> str:
        by_number = {mate.record.mate: mate for mate in mates}
        called = [mate for mate in mates if not np.isnan(mate.p_virus)]
        p_virus = _mean(called)
        (call,) = self._rule.contigs(np.array([p_virus])).tolist()
        if call == Call.VIRUS:
            self._names.add(_lines([mate.record.name for mate in mates]))
        two = len(mates) > 1
        status = PAIR_STATUSES[2 - len(called) if two else 3]
        numbers, scores = (
            [str(by_number[k].record.record) if k in by_number else "" for k in (1, 2)],
            [_decimals(by_number[k].p_virus) if k in by_number else "" for k in (1, 2)],
        )
        cells = (mates[0].record.sample, template, *numbers, *scores, _decimals(p_virus))
        return "\t".join((*cells, Call(call).name.lower(), status)) + "\n"


def _mean(mates: Sequence[_Mate]) -> float:
    """Of called mates; nan if there is none."""
    scores = [mate.p_virus for mate in mates]
    weight = sum(mate.called_nt for mate in mates)
    if not scores:
        return float("nan")
    mean = sum(mate.p_virus * mate.called_nt for mate in mates) / weight
    return min(max(mean, min(scores)), max(scores))  # rounding must not carry it past its terms


def _decimals(p_virus: float) -> str:
    return "" if np.isnan(p_virus) else f"{p_virus:.6f}"


def _lines(names: Sequence[str]) -> Iterator[bytes]:
    return (f"{name}\n".encode("utf-8", "surrogateescape") for name in names if name)


def _encoded(rows: Sequence[str]) -> bytes:
    return "".join(rows).encode("utf-8", "surrogateescape")
