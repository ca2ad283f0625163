"""Lines of our tables, formatted by columns; docs/outputs.md explains each."""

from collections.abc import Iterable, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from virnucpro.blocks import Record, Scored
from virnucpro.calls import CALL_NAMES, FRAME_SETS, STATUS_NAMES
from virnucpro.classifiers.screen import NOTE_TEXTS
from virnucpro.results.contig_calls import Contigs
from virnucpro.results.judge import Judged
from virnucpro.results.parquet import (
    CALLS_TYPES,
    CODE_TYPES,
    CONTIGS_TYPES,
    SPEAKER_TYPES,
    speaker_of,
)
from virnucpro.results.regions import Region

CALLS_COLUMNS, CONTIGS_COLUMNS = tuple(CALLS_TYPES), tuple(CONTIGS_TYPES)
SPEAKER_COLUMNS, CODE_COLUMNS = tuple(SPEAKER_TYPES), tuple(CODE_TYPES)
FAILED_COLUMNS = ("sample", "record", "contig", "reason")
REGIONS_COLUMNS = (
    "sample",
    "record",
    "contig",
    "region",
    "start",
    "end",
    "length_nt",
    "chunks",
    "called",
    "virus_chunks",
    "p_virus",
    "expected_by_chance",
)


def header(columns: Iterable[str]) -> bytes:
    """The first line of a table."""
    return ("\t".join(columns) + "\n").encode()


def six_decimals(values: NDArray[np.floating[Any]]) -> list[str]:
    """Probabilities as the tables print them; nan is an empty string."""
    missing = np.isnan(values)
    if missing.all():
        return [""] * len(values)
    texts = ("%.6f\n" * len(values) % tuple(values.tolist())).split("\n")
    for row in np.flatnonzero(missing).tolist():
        texts[row] = ""
    return texts[:-1]


def significant(values: NDArray[np.float64]) -> list[str]:
    """Four significant digits, which a small q-value needs; nan is an empty string."""
    if np.isnan(values).all():
        return [""] * len(values)
    distinct, place = np.unique(values, return_inverse=True)  # few, as q-values are
    texts = ["" if np.isnan(value) else f"{value:.4g}" for value in distinct]
    return [texts[i] for i in place.tolist()]


def shortest(values: NDArray[np.float32]) -> list[str]:
    """float32 -> the shortest decimals that read back as the same float32."""
    texts: list[str] = values.astype(np.float32).astype("U16").tolist()
    return texts


def _prefix(record: Record) -> str:
    """The first three columns, which are the same in all our tables."""
    return f"{record.sample}\t{record.record}\t{record.name}\t"


def calls_rows(
    scored: Scored, calls: NDArray[np.uint8], speakers: tuple[str, str] | None = None
) -> bytes:
    """Rows of calls.tsv; calls: (n,). speakers: as of write.Wanted."""
    rows, scores = scored.rows, scored.scores
    prefixes = [*map(_prefix, scored.records)]
    tails = [f"\t{call}\t{status}\t" for call in CALL_NAMES for status in STATUS_NAMES]
    ends = [f"\t{name}\n" for name in speakers or ()] or ["\n"]
    spoke = speaker_of(scores).tolist() if speakers else [0] * len(scores)
    tail = (calls.astype(np.int64) * len(STATUS_NAMES) + scores.status).tolist()
    lines = [
        f"{prefixes[i]}{k}\t{start}\t{end}\t{FRAME_SETS[bits]}\t{p}{tails[t]}{m1}\t{m0}{ends[s]}"
        for i, k, start, end, bits, p, t, m1, m0, s in zip(
            rows.record.tolist(),
            rows.number.tolist(),
            rows.start.tolist(),
            rows.end.tolist(),
            scores.frames.tolist(),
            six_decimals(scores.p_virus),
            tail,
            six_decimals(scores.max_p_virus),
            six_decimals(scores.max_p_others),
            spoke,
            strict=True,
        )
    ]
    return encoded(lines)


def contigs_rows(
    records: Sequence[Record],
    contigs: Contigs,
    judged: Judged,
    status: NDArray[np.uint8],
    origins: Sequence[str],
    *,
    codes: bool = False,
) -> bytes:
    """Rows of contigs.tsv; status: (r,); origins: names of those in judged; codes: of Wanted."""
    columns: tuple[Sequence[object], ...] = (
        [
            f"{prefix}{r.length_nt}"
            for prefix, r in zip(map(_prefix, records), records, strict=True)
        ],
        contigs.chunks.tolist(),
        contigs.called.tolist(),
        contigs.virus.tolist(),
        six_decimals(judged.p_virus),
        six_decimals(contigs.max_p_virus),
        [CALL_NAMES[call] for call in judged.call.tolist()],
        [STATUS_NAMES[state] for state in status.tolist()],
        six_decimals(judged.log_odds),
        six_decimals(judged.probability),
        significant(judged.q_value),
        [origins[i] for i in judged.origin.tolist()],
        [NOTE_TEXTS[i] for i in judged.notes.tolist()],
    )
    if codes:
        columns = (*columns, [record.code for record in records])
    row = "\t".join(["%s"] * len(columns)) + "\n"
    return encoded([row % cells for cells in zip(*columns, strict=True)])


def regions_rows(records: Sequence[Record], regions: Sequence[Region]) -> bytes:
    """Rows of regions.tsv."""
    lines = [
        f"{_prefix(records[r.index])}{r.number}\t{r.start}\t{r.end}\t{r.length_nt}\t{r.chunks}\t{r.called}\t{r.virus}\t"
        f"{r.p_virus:.6f}\t{r.expected:.2e}\n"
        for r in regions
    ]
    return encoded(lines)


def bed_rows(records: Sequence[Record], regions: Sequence[Region]) -> bytes:
    """The same as BED6; the fourth column tells records of one name apart."""
    lines = [
        f"{records[r.index].name}\t{r.start}\t{r.end}\t{records[r.index].sample}:"
        f"{records[r.index].record}:{r.number}\t{round(1000 * r.p_virus)}\t.\n"
        for r in regions
    ]
    return encoded(lines)


def failed_rows(records: Sequence[Record], contigs: Contigs, reasons: dict[int, str]) -> bytes:
    """Rows of failed.tsv.

    reasons: why the first chunk of a record failed, by ordinal; those of ended ones go.
    """
    lines = []
    for record, failed, chunks in zip(
        records, contigs.failed.tolist(), contigs.chunks.tolist(), strict=True
    ):
        if record.fault or failed:
            why = reasons.pop(record.ordinal, "unknown")
            reason = record.fault or f"{failed} of {chunks} chunks could not be scored: {why}"
            line = " ".join(reason.split())
            lines.append(f"{_prefix(record)}{line}\n")
    return encoded(lines)


def encoded(lines: Sequence[str]) -> bytes:
    """Lines -> bytes; letters of a name that are no UTF-8 come out as they came in."""
    return "".join(lines).encode("utf-8", "surrogateescape")
