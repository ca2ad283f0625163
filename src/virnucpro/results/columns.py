"""Scored blocks and verdicts on their contigs -> the columns of our tables."""

from collections.abc import Sequence
from typing import NamedTuple, TypeAlias

import numpy as np
from numpy.typing import NDArray

from virnucpro.blocks import Scored
from virnucpro.calls import Embeddings
from virnucpro.classifiers.screen import NOTE_TEXTS
from virnucpro.reads import MATE_TEXTS
from virnucpro.records import Records
from virnucpro.results.contig_calls import Contigs
from virnucpro.results.judge import Judged
from virnucpro.results.kinds import Words
from virnucpro.results.regions import Region
from virnucpro.results.schema import (
    CallsColumns,
    CallsPrescreened,
    CallsTable,
    ContigsColumns,
    ContigsPaired,
    ContigsRecoded,
    ContigsTable,
    EmbeddingsColumns,
    EmbeddingsTable,
    FailedColumns,
    FailedTable,
    RegionsColumns,
    RegionsTable,
)

# The columns of a table, and after them those that it has in this run alone.
Parts: TypeAlias = tuple[NamedTuple, ...]


def calls_columns(
    scored: Scored, calls: NDArray[np.uint8], speakers: tuple[str, str] | None = None
) -> Parts:
    """Return the columns of the calls of a block; calls: (n,). speakers: as of write.Wanted."""
    rows, scores, records = scored.rows, scored.scores, scored.records
    of = rows.record.tolist()
    columns: CallsColumns = CallsTable(
        sample=[records.sample[i] for i in of],
        record=records.record[rows.record],
        contig=[records.name[i] for i in of],
        chunk=rows.number,
        start=rows.start,
        end=rows.end,
        frames=scores.frames,
        p_virus=scores.p_virus,
        call=calls,
        status=scores.status,
        max_p_virus=scores.max_p_virus,
        max_p_others=scores.max_p_others,
    )
    if speakers is None:
        return (columns,)
    first = scores.prescreened  # None of a block that was given up
    codes = np.zeros(len(scores), np.uint8) if first is None else first.astype(np.uint8)
    return columns, CallsPrescreened(Words(codes, speakers))


def contigs_columns(
    records: Records,
    contigs: Contigs,
    judged: Judged,
    status: NDArray[np.uint8],
    origins: Sequence[str],
    *,
    codes: bool = False,
    mates: bool = False,
) -> Parts:
    """Return the columns of r contigs.

    status: (r,); origins: names of those in judged; codes, mates: as of write.Wanted.
    """
    columns: ContigsColumns = ContigsTable(
        sample=records.sample,
        record=records.record,
        contig=records.name,
        length_nt=records.length_nt,
        chunks=contigs.chunks,
        called=contigs.called,
        virus_chunks=contigs.virus,
        p_virus=judged.p_virus,
        max_p_virus=contigs.max_p_virus,
        call=judged.call,
        status=status,
        log_odds=judged.log_odds,
        probability=judged.probability,
        q_value=judged.q_value,
        origin=Words(judged.origin, origins),
        note=Words(judged.notes, NOTE_TEXTS),
    )
    parts: Parts = (columns, ContigsRecoded(records.code)) if codes else (columns,)
    if mates:
        parts = (*parts, ContigsPaired(Words(records.mate.astype(np.uint8), MATE_TEXTS)))
    return parts


def regions_columns(records: Records, regions: Sequence[Region]) -> RegionsColumns:
    """Return the columns of regions, whose index is a row of records."""
    return RegionsTable(
        sample=[records.sample[r.index] for r in regions],
        record=np.array([records.record[r.index] for r in regions], np.int64),
        contig=[records.name[r.index] for r in regions],
        region=np.array([r.number for r in regions], np.int64),
        start=np.array([r.start for r in regions], np.int64),
        end=np.array([r.end for r in regions], np.int64),
        length_nt=np.array([r.length_nt for r in regions], np.int64),
        chunks=np.array([r.chunks for r in regions], np.int64),
        called=np.array([r.called for r in regions], np.int64),
        virus_chunks=np.array([r.virus for r in regions], np.int64),
        p_virus=np.array([r.p_virus for r in regions], np.float64),
        expected_by_chance=np.array([r.expected for r in regions], np.float64),
    )


def failed_columns(records: Records, contigs: Contigs, reasons: dict[int, str]) -> FailedColumns:
    """Return the columns of the failures of r contigs.

    reasons: why the first chunk of a record failed, by ordinal; those of ended ones go.
    """
    rows = np.flatnonzero(records.faulty | (contigs.failed > 0))
    told = []
    for row in rows.tolist():
        why = reasons.pop(int(records.ordinal[row]), "unknown")
        some = f"{contigs.failed[row]} of {contigs.chunks[row]} chunks"
        reason = records.faults.get(row) or f"{some} could not be scored: {why}"
        told.append(" ".join(reason.split()))
    return FailedTable(
        sample=[records.sample[row] for row in rows.tolist()],
        record=records.record[rows],
        contig=[records.name[row] for row in rows.tolist()],
        reason=told,
    )


def embeddings_columns(scored: Scored, embeddings: Embeddings) -> EmbeddingsColumns:
    """Return the columns of the frames of a block, in their order."""
    scores, records = scored.scores, scored.records
    of = scored.rows.record[scores.frame_chunk]
    return EmbeddingsTable(
        sample=[records.sample[i] for i in of.tolist()],
        record=records.record[of],
        contig=[records.name[i] for i in of.tolist()],
        chunk=scored.rows.number[scores.frame_chunk],
        frame=scores.frame,
        nucleotides=embeddings.nucleotides,
        protein=embeddings.protein,
    )
