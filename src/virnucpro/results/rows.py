"""Lines of our tables, formatted by columns; docs/outputs.md explains each."""

from collections.abc import Iterable, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from virnucpro.blocks import Scored
from virnucpro.calls import CALL_NAMES, FRAME_SETS, STATUS_NAMES
from virnucpro.classifiers.screen import NOTE_TEXTS
from virnucpro.reads import MATE_TEXTS
from virnucpro.records import Record, Records
from virnucpro.results.contig_calls import Contigs
from virnucpro.results.judge import Judged
from virnucpro.results.parquet import (
    CALLS_TYPES,
    CODE_TYPES,
    CONTIGS_TYPES,
    MATE_TYPES,
    SPEAKER_TYPES,
    speaker_of,
)
from virnucpro.results.regions import Region

CALLS_COLUMNS, CONTIGS_COLUMNS = tuple(CALLS_TYPES), tuple(CONTIGS_TYPES)
SPEAKER_COLUMNS, CODE_COLUMNS = tuple(SPEAKER_TYPES), tuple(CODE_TYPES)
MATE_COLUMNS = tuple(MATE_TYPES)
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


def _prefixes(records: Records) -> list[str]:
    columns = zip(records.sample, records.record.tolist(), records.name, strict=True)
    return [f"{sample}\t{record}\t{name}\t" for sample, record, name in columns]


def calls_rows(
    scored: Scored, calls: NDArray[np.uint8], speakers: tuple[str, str] | None = None
) -> bytes:
    """Rows of calls.tsv; calls: (n,). speakers: as of write.Wanted."""
    rows, scores = scored.rows, scored.scores
    prefixes = _prefixes(scored.records)
    columns: tuple[list[Any], ...] = (
        rows.number.tolist(),
        rows.start.tolist(),
        rows.end.tolist(),
        _named(scores.frames, FRAME_SETS),
        six_decimals(scores.p_virus),
        _named(calls, CALL_NAMES),
        _named(scores.status, STATUS_NAMES),
        six_decimals(scores.max_p_virus),
        six_decimals(scores.max_p_others),
    )
    if speakers is not None:
        columns = (*columns, _named(speaker_of(scores), speakers))
    return _lines([prefixes[i] for i in rows.record.tolist()], columns)


def contigs_rows(
    records: Records,
    contigs: Contigs,
    judged: Judged,
    status: NDArray[np.uint8],
    origins: Sequence[str],
    *,
    codes: bool = False,
    mates: bool = False,
) -> bytes:
    """Rows of contigs.tsv; status: (r,); origins: names of those in judged.

    codes, mates: as of write.Wanted.
    """
    columns: tuple[list[Any], ...] = (
        records.length_nt.tolist(),
        contigs.chunks.tolist(),
        contigs.called.tolist(),
        contigs.virus.tolist(),
        six_decimals(judged.p_virus),
        six_decimals(contigs.max_p_virus),
        _named(judged.call, CALL_NAMES),
        _named(status, STATUS_NAMES),
        six_decimals(judged.log_odds),
        six_decimals(judged.probability),
        significant(judged.q_value),
        _named(judged.origin, origins),
        _named(judged.notes, NOTE_TEXTS),
    )
    if codes:
        columns = (*columns, records.code.tolist())
    if mates:
        columns = (*columns, _named(records.mate, MATE_TEXTS))
    return _lines(_prefixes(records), columns)


def _named(codes: NDArray[np.integer[Any]], names: Sequence[str]) -> list[str]:
    if len(codes) and np.all(codes == codes[0]):
        return [names[codes[0]]] * len(codes)
    return [names[code] for code in codes.tolist()]


def _lines(prefixes: list[str], columns: Sequence[list[Any]]) -> bytes:
    """Lines of n prefixes and cells; a column of equal cells, as many are, is a part of the form.

    columns: lists of n.
    """
    form, varying = [], [prefixes]
    for cells in columns:
        if cells and cells[0] == cells[-1] and cells.count(cells[0]) == len(cells):
            form.append(str(cells[0]).replace("%", "%%"))
        else:
            form.append("%s")
            varying.append(cells)
    row = "%s" + "\t".join(form) + "\n"
    return encoded([row % line for line in zip(*varying, strict=True)])


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


def failed_rows(records: Records, contigs: Contigs, reasons: dict[int, str]) -> bytes:
    """Rows of failed.tsv.

    reasons: why the first chunk of a record failed, by ordinal; those of ended ones go.
    """
    lines = []
    for row in np.flatnonzero(records.faulty | (contigs.failed > 0)).tolist():
        record, failed, chunks = records[row], contigs.failed[row], contigs.chunks[row]
        why = reasons.pop(record.ordinal, "unknown")
        reason = record.fault or f"{failed} of {chunks} chunks could not be scored: {why}"
        line = " ".join(reason.split())
        lines.append(f"{_prefix(record)}{line}\n")
    return encoded(lines)


def encoded(lines: Sequence[str]) -> bytes:
    """Lines -> bytes; letters of a name that are no UTF-8 come out as they came in."""
    return "".join(lines).encode("utf-8", "surrogateescape")
