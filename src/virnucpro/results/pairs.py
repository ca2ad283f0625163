"""Calls of mates -> calls of pairs, and the names of what was called virus.

Works on the records of a run in their order and holds one of them, besides names that are sorted
on the disk. This module knows no encoder and no format of reads.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import groupby
from math import nan
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from virnucpro.calls import Call
from virnucpro.reads import template_of
from virnucpro.records import Record, Records
from virnucpro.results.contig_calls import Contigs
from virnucpro.results.judge import Judge, Judged
from virnucpro.results.rows import text_of
from virnucpro.results.schema import PAIR_STATUSES, PairsColumns, PairsTable
from virnucpro.results.worth_of_pairs import MistakesOfPairs, WorthOfPairs
from virnucpro.storage.sorting import SortedLines


@dataclass(frozen=True, slots=True)
class _Mate:
    """A contig of a pair; p_virus and mean are nan and called_nt 0 where it has no call.

    mean, evidence, low: as of Contigs.
    """

    record: Record
    p_virus: float
    mean: float
    evidence: float
    called_nt: float
    low: bool


class PairedCalls:
    """Takes contigs as they end, in the order of the input, and finds mates that follow each other.

    A pair is judged as a contig made of both, and is not virus where all that has a score is of
    low complexity. count: rows given so far; virus: of these, called
    virus.
    """

    def __init__(self, judge: Judge, scratch: Path) -> None:
        self._judge = judge
        self._mistakes = MistakesOfPairs(judge)
        self._names = SortedLines(scratch, "viral_names")
        self.count = self.virus = 0
        self._waiting: _Mate | None = None

    def add(self, records: Records, contigs: Contigs, judged: Judged) -> bytes:
        """Rows of pairs.tsv that are known by now.

        judged: the verdicts on the r contigs.
        """
        called = judged.call
        if self._waiting is None and not np.any(records.mate):
            virus = np.flatnonzero(called == Call.VIRUS).tolist()
            self._names.add(_lines([records.name[i] for i in virus]))
            return b""
        found: list[_Pair] = []
        sums = zip(
            judged.p_virus.tolist(),
            contigs.mean.tolist(),
            contigs.evidence.tolist(),
            contigs.called_nt.tolist(),
            contigs.low.tolist(),
            strict=True,
        )
        for record, of_mate, call in zip(records, sums, called.tolist(), strict=True):
            if not record.mate:
                found += self._alone()
                self._names.add(_lines([record.name] if call == Call.VIRUS else []))
                continue
            mate = _Mate(record, *of_mate)
            template = self._template_with(mate)
            if self._waiting is not None and template is not None:
                found.append((template, (self._waiting, mate)))
                self._waiting = None
            else:
                found += self._alone()
                self._waiting = mate
        return self._rows(found)

    def rest(self) -> bytes:
        """The row of a mate that waits in vain."""
        return self._rows(self._alone())

    def worth(self) -> WorthOfPairs | None:
        """Return what the calls are worth; None without pairs or without a calibration."""
        return self._mistakes.worth() if self.count else None

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

    def _alone(self) -> "list[_Pair]":
        mate, self._waiting = self._waiting, None
        return [] if mate is None else [(mate.record.name, (mate,))]

    def _rows(self, found: "Sequence[_Pair]") -> bytes:
        mean = np.array([_mean(mates) for _, mates in found], np.float64)
        evidence, called_nt = (
            np.array([sum(getattr(m, name) for m in mates) for _, mates in found], np.float64)
            for name in ("evidence", "called_nt")
        )
        low = np.array([all(m.low for m in mates if m.called_nt) for _, mates in found], np.bool_)
        score = self._judge.score(mean, evidence, called_nt)
        called = self._judge.calls(score, called_nt, low)
        viral = [
            mate.record.name
            for (_, mates), call in zip(found, called.tolist(), strict=True)
            if call == Call.VIRUS
            for mate in mates
        ]
        self._names.add(_lines(viral))
        self._mistakes.add(score, called_nt, called)
        self.count += len(found)
        self.virus += int(np.sum(called == Call.VIRUS))
        return text_of(_columns(found, self._judge.p_virus(score), called)) if found else b""


# A template, and its mates in the order of the input.
_Pair = tuple[str, tuple[_Mate, ...]]


def _columns(
    found: "Sequence[_Pair]", p_virus: NDArray[np.float64], called: NDArray[np.uint8]
) -> PairsColumns:
    """Return the columns of pairs; p_virus, called: (n,) of each."""
    mates = [{mate.record.mate: mate for mate in mates} for _, mates in found]

    def numbers(which: int) -> NDArray[np.int64]:
        each = (of.get(which) for of in mates)
        return np.array([mate.record.record if mate else 0 for mate in each], np.int64)

    def scores(which: int) -> NDArray[np.float64]:
        each = (of.get(which) for of in mates)
        return np.array([mate.p_virus if mate else nan for mate in each], np.float64)

    return PairsTable(
        sample=[mates[0].record.sample for _, mates in found],
        template=[template for template, _ in found],
        record_1=numbers(1),
        record_2=numbers(2),
        p_virus_1=scores(1),
        p_virus_2=scores(2),
        p_virus=p_virus,
        call=called,
        status=np.array([_status(mates) for _, mates in found], np.uint8),
    )


def _status(mates: tuple[_Mate, ...]) -> int:
    if len(mates) < 2:
        return PAIR_STATUSES.index("mate_missing")
    return 2 - sum(mate.called_nt > 0 for mate in mates)


def _mean(mates: Sequence[_Mate]) -> float:
    """Of the called ones; nan if there is none."""
    called = [mate for mate in mates if mate.called_nt]
    scores = [mate.mean for mate in called]
    if len(scores) < 2:
        return scores[0] if scores else float("nan")
    weight = sum(mate.called_nt for mate in called)
    mean = sum(mate.mean * mate.called_nt for mate in called) / weight
    return min(max(mean, min(scores)), max(scores))  # rounding must not carry it past its terms


def _lines(names: Sequence[str]) -> Iterator[bytes]:
    return (f"{name}\n".encode("utf-8", "surrogateescape") for name in names if name)
