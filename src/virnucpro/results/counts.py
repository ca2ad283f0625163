"""Counts of what a run did with its input, made while its tables are written."""

from collections import Counter
from collections.abc import Sequence
from dataclasses import asdict, dataclass, fields
from typing import Any

import numpy as np
from numpy.typing import NDArray

from virnucpro.calls import STATUS_NAMES, Call, Scores, Status
from virnucpro.records import Records
from virnucpro.results.contig_calls import Contigs
from virnucpro.results.regions import Region


@dataclass(frozen=True, slots=True, kw_only=True)
class Counts:
    """The counts of what a run did with its input. Creating one checks that it adds up.

    records = called + none + failed, called = virus + others; partly_failed of the called records
    have chunks that failed. chunks counts all chunks, chunk_status chunks by status. regions:
    rows of regions.tsv, on region_records records. pairs: rows of pairs.tsv, of which virus_pairs
    are called virus.
    """

    records: int
    called: int
    none: int
    failed: int
    partly_failed: int
    virus: int
    others: int
    chunks: int
    virus_chunks: int
    others_chunks: int
    chunk_status: dict[str, int]
    bases: int
    regions: int = 0
    region_records: int = 0
    pairs: int = 0
    virus_pairs: int = 0

    def __post_init__(self) -> None:
        called = sum(self.chunk_status[STATUS_NAMES[s]] for s in Status if s.called)
        fits = {
            "records": (self.records, self.called + self.none + self.failed),
            "called records": (self.called, self.virus + self.others),
            "chunks": (self.chunks, sum(self.chunk_status.values())),
            "called chunks": (called, self.virus_chunks + self.others_chunks),
        }
        for what, (whole, parts) in fits.items():
            if whole != parts:
                raise AssertionError(f"the {what} do not add up: {whole} but {parts}")

    @property
    def incomplete(self) -> bool:
        """Return whether anything is listed in failed.tsv."""
        return self.failed + self.partly_failed > 0

    def as_dict(self) -> dict[str, Any]:
        """Return plain values for run.json."""
        return asdict(self)


class Tally:
    """Counts blocks and the contigs that end in them; sums are taken apart, to be compared."""

    def __init__(self) -> None:
        self._numbers: Counter[str] = Counter()
        self._status = np.zeros(len(Status), np.int64)

    def add(
        self,
        records: Records,
        contigs: Contigs,
        called: NDArray[np.uint8],
        status: NDArray[np.uint8],
        scores: Scores,
        calls: NDArray[np.uint8],
        regions: Sequence[Region],
    ) -> None:
        """Count r records that end in a block, and its n chunks.

        called, status: (r,) calls and status of the records; calls: (n,) of the chunks.
        """
        self._status += np.bincount(scores.status, minlength=len(Status))
        for name, number in {
            "records": len(records),
            "bases": np.sum(records.length_nt),
            "called": np.sum(contigs.called > 0),
            "none": np.sum((called == Call.NONE) & (status != Status.FAILED)),
            "failed": np.sum(status == Status.FAILED),
            "partly_failed": np.sum((contigs.called > 0) & (contigs.failed > 0)),
            "virus": np.sum(called == Call.VIRUS),
            "others": np.sum(called == Call.OTHERS),
            "chunks": np.sum(contigs.chunks),
            "virus_chunks": np.sum(calls == Call.VIRUS),
            "others_chunks": np.sum(calls == Call.OTHERS),
            "regions": len(regions),
            "region_records": len({region.index for region in regions}),
        }.items():
            self._numbers[name] += int(number)

    def counts(self, pairs: int, virus_pairs: int) -> Counts:
        """Return all counts; raises AssertionError where they do not add up."""
        chunk_status = dict(zip(STATUS_NAMES, self._status.tolist(), strict=True))
        del chunk_status[STATUS_NAMES[Status.EMPTY]]  # of records alone
        self._numbers.update(pairs=pairs, virus_pairs=virus_pairs)
        names = [field.name for field in fields(Counts) if field.name != "chunk_status"]
        return Counts(chunk_status=chunk_status, **{name: self._numbers[name] for name in names})
