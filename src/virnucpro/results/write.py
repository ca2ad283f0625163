"""Scored blocks -> the tables of a run, in one streaming merge.

A block is formatted by columns and written at once; nothing is held for longer than a block, apart
from what must be sorted, which lies on the disk. These modules know no encoder and no device.
"""

from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple

import numpy as np

from virnucpro.blocks import Scored
from virnucpro.calls import Call
from virnucpro.reads import Seen, Source
from virnucpro.records import Records
from virnucpro.results.columns import (
    calls_columns,
    contigs_columns,
    embeddings_columns,
    failed_columns,
    regions_columns,
)
from virnucpro.results.contig_calls import ContigCalls, with_faults
from virnucpro.results.counts import Counts, Tally
from virnucpro.results.files import RunFiles
from virnucpro.results.finished import FinishedBlocks
from virnucpro.results.judge import Judge
from virnucpro.results.pairs import PairedCalls
from virnucpro.results.parquet import ParquetTable
from virnucpro.results.published import write_published
from virnucpro.results.regions import Odds, Region, RegionFinder
from virnucpro.results.rows import bed_rows, header, text_of
from virnucpro.results.schema import (
    CallsPrescreened,
    CallsTable,
    ContigsPaired,
    ContigsRecoded,
    ContigsTable,
    EmbeddingsTable,
    FailedTable,
    PairsTable,
    RegionsTable,
)
from virnucpro.results.sequences import Marks, copy_sequences
from virnucpro.results.staging import Staging
from virnucpro.results.unique_names import name_hashes, unique_names
from virnucpro.results.worth import Mistakes, Worth
from virnucpro.storage.atomic import OutputFile
from virnucpro.storage.sorting import pieces_of


@dataclass(frozen=True, slots=True, kw_only=True)
class Wanted:
    """The files to be written besides calls.tsv, contigs.tsv, failed.tsv and the regions.

    compat_tables: the two in the published tool's format. odds: what finds regions; None finds
    none. sequences: "none", "viral" (viral.fasta) or "all" (others.fasta, too). parquet: calls and
    contigs in that format. embeddings: None, or the widths of the ones to be written, as parquet
    has them. speakers: names of the bundle and of the one that looked first, for the last column
    of the calls; None without one. codes: whether contigs.tsv has the genetic code of each record;
    mates: whether it says which mate of a pair each is.
    """

    compat_tables: bool = True
    odds: Odds | None = None
    sequences: str = "viral"
    parquet: bool = False
    embeddings: tuple[int, int] | None = None
    speakers: tuple[str, str] | None = None
    codes: bool = False
    mates: bool = False


@dataclass(frozen=True, slots=True)
class Written:
    """The results of a run: counts of its tables, and sha256 and bytes of each file by name.

    worth: how many of the calls to expect to be wrong; None where nobody can say. prescreened:
    chunks whose score is of the bundle that looked first; None without one. refusal: why a rate of
    false discoveries calls nothing; empty where it does, or none was asked for. notes: lines on
    what the calls are worth. excerpts: regions in viral.fasta, of records not called virus.
    """

    counts: Counts
    worth: Worth | None
    digests: Mapping[str, str]
    sizes: Mapping[str, int]
    prescreened: int | None = None
    refusal: str = ""
    notes: tuple[str, ...] = ()
    excerpts: int = 0


def planned(files: RunFiles, wanted: Wanted) -> list[Path]:
    """Return every file that write_tables may write."""
    paths = [files.calls, files.contigs, files.failed, files.pairs, files.viral_names]
    paths += [files.regions, files.regions_bed]
    if wanted.compat_tables:
        paths += [files.frame_scores, files.chunk_scores]
    if wanted.sequences != "none":
        paths.append(files.viral_fasta)
    if wanted.sequences == "all":
        paths.append(files.others_fasta)
    if wanted.parquet:
        paths += [files.calls_parquet, files.contigs_parquet]
    if wanted.embeddings is not None:
        paths.append(files.embeddings)
    return paths


def write_tables(
    files: RunFiles,
    finished: FinishedBlocks,
    judge: Judge,
    sources: Sequence[Source],
    before: Sequence[Seen],
    wanted: Wanted = Wanted(),
) -> Written:
    """Write all tables and sequences; they appear one after the other, when all are finished.

    sources: the inputs, opened anew for the second pass; before: what the first pass has seen of
    each. Raises InputError if an input has changed since, VirnucproError if the disk refuses,
    ResumeError if a block is missing or damaged.
    """
    with Staging(files) as staging:
        hashes = files.scratch / "names.hashes"
        with Marks(files.scratch) as marks:
            counts, worth, prescreened, frames = _write_calls(
                files, staging, finished, judge, wanted, hashes, marks
            )
        if wanted.compat_tables:
            names = unique_names(lambda: _records(finished), hashes, files.scratch)
            write_published(files, staging, finished.scored() if frames else iter(()), names)
        if wanted.embeddings is not None:
            file = staging.open(files.embeddings)
            with ParquetTable(file, EmbeddingsTable, widths=wanted.embeddings) as table:
                for scored in finished.scored():
                    if (embeddings := finished.embeddings(scored)) is not None:
                        table.add(embeddings_columns(scored, embeddings))
        if wanted.sequences != "none":
            viral = staging.open(files.viral_fasta)
            others = staging.open(files.others_fasta) if wanted.sequences == "all" else None
            if others is not None or marks.virus or marks.excerpts:
                copy_sequences(sources, before, marks, viral, others)
        staging.publish()
        first = None if wanted.speakers is None else prescreened
        excerpts = 0 if wanted.sequences == "none" else marks.excerpts
        return Written(counts, worth, staging.digests, staging.sizes, first, excerpts=excerpts)


def _records(finished: FinishedBlocks) -> Iterator[Records]:
    return (scored.records for scored in finished.scored())


def _in_order(blocks: Iterator[Scored]) -> Iterator[Scored]:
    """Passes blocks on; checks that every record and every chunk is there, once and in order."""
    ordinal, whole, chunk = -1, True, 0
    for scored in blocks:
        records = scored.records
        before = np.append(ordinal, records.ordinal)[: len(records)]
        ended = np.append(whole, records.ends)[: len(records)]
        wrong = (records.begins != ended) | (records.ordinal != before + records.begins)
        for row in np.flatnonzero(wrong).tolist():
            raise AssertionError(
                f"block {scored.block_number}: record {records.ordinal[row]} after {before[row]}"
            )
        if len(records):
            ordinal, whole = int(records.ordinal[-1]), records.all_end
        chunk = _checked_chunks(scored, chunk)
        yield scored
    if not whole:
        raise AssertionError(f"the end of record {ordinal} is missing")


def _checked_chunks(scored: Scored, before: int) -> int:
    """Checks that chunks count from 1 (or from before, if the first record goes on) to the end.

    Returns the number of the last chunk if the last record goes on, else 0.
    """
    rows, records = scored.rows, scored.records
    if not len(records):
        return before
    covered, last = (np.zeros(len(records), dtype=np.int64) for _ in range(2))
    covered[rows.record], last[rows.record] = rows.end, rows.number
    length = np.where(records.ends & ~records.faulty & ~records.short, records.length_nt, -1)
    expected = np.append(before, rows.number)[: len(rows)] + 1
    first = np.diff(rows.record, prepend=-1) != 0
    expected[first] = np.where(rows.record[first] == 0, before, 0) + 1
    if np.any(rows.number != expected) or np.any((covered != length) & (length >= 0)):
        raise AssertionError(
            f"block {scored.block_number}: a record lacks a chunk or has one twice"
        )
    return 0 if records.all_end else int(last[-1])


def _write_calls(
    files: RunFiles,
    staging: Staging,
    finished: FinishedBlocks,
    judge: Judge,
    wanted: Wanted,
    hashes: Path,
    marks: Marks,
) -> tuple[Counts, Worth | None, int, int]:
    """First pass: tables of calls, contigs, regions and failures, and what later passes need.

    The last are the numbers of chunks that were prescreened, and of frames that were scored.
    """
    calls_table = (CallsTable, CallsPrescreened) if wanted.speakers else (CallsTable,)
    contigs_table: tuple[type[NamedTuple], ...] = (ContigsTable,)
    contigs_table += (ContigsRecoded,) if wanted.codes else ()
    contigs_table += (ContigsPaired,) if wanted.mates else ()
    calls_file = staging.open(files.calls, header(*calls_table))
    contigs_file = staging.open(files.contigs, header(*contigs_table))
    regions_file = staging.open(files.regions, header(RegionsTable))
    bed_file = staging.open(files.regions_bed)
    contig_calls, tally, pairs = ContigCalls(), Tally(), PairedCalls(judge, files.scratch)
    finder = None if wanted.odds is None else RegionFinder(wanted.odds, judge.stretch)
    mistakes = Mistakes(judge)
    reasons: dict[int, str] = {}
    prescreened = frames = 0

    def write_if_any(path: Path, table: type[NamedTuple], lines: bytes) -> None:
        """Write a table that is there only if it has a row."""
        if lines:
            staging.open(path, header(table)).write(lines)

    with (
        OutputFile(hashes, durable=False) as hash_file,
        ExitStack() as ends,
    ):
        parquet = None
        if wanted.parquet:
            parquet = tuple(
                ends.enter_context(ParquetTable(staging.open(path), *table))
                for path, table in (
                    (files.calls_parquet, calls_table),
                    (files.contigs_parquet, contigs_table),
                )
            )
        for scored in _in_order(finished.scored()):
            records, rows, scores = scored.records, scored.rows, scored.scores
            hash_file.write(name_hashes(records.begun).tobytes())
            calls = judge.rule.chunks(scores)
            of_chunks = calls_columns(scored, calls, wanted.speakers)
            calls_file.write(text_of(*of_chunks))
            frames += len(scores.frame)
            if scores.prescreened is not None:
                prescreened += int(scores.prescreened.sum())
            columns = (rows.record, rows.start, rows.end, scores, calls, records.all_end)
            contigs = contig_calls.add(len(records), *columns)
            ended = records[: len(contigs)]
            status = with_faults(ended, contigs.status)
            judged = judge.contigs(contigs)
            called = judged.call
            mistakes.add(judged)
            of_contigs = contigs_columns(
                *(ended, contigs, judged, status, judge.origins),
                codes=wanted.codes,
                mates=wanted.mates,
            )
            contigs_file.write(text_of(*of_contigs))
            if parquet is not None:
                parquet[0].add(*of_chunks)
                parquet[1].add(*of_contigs)
            for row, reason in scored.failures.items():
                reasons.setdefault(int(records.ordinal[rows.record[row]]), reason)
            failed = failed_columns(ended, contigs, reasons)
            write_if_any(files.failed, FailedTable, text_of(failed))
            write_if_any(files.pairs, PairsTable, pairs.add(ended, contigs, judged))
            regions: list[Region] = []
            if finder is not None:
                spans = (rows.record, rows.start, rows.end, scores.p_virus, calls)
                regions = finder.add(len(records), *spans, records.all_end)
            if regions:
                regions_file.write(text_of(regions_columns(ended, regions)))
                bed_file.write(bed_rows(ended, regions))
            marks.add(called == Call.VIRUS, regions)
            tally.add(ended, contigs, called, status, scores, calls, regions)
    write_if_any(files.pairs, PairsTable, pairs.rest())
    names_file = staging.open(files.viral_names)
    for piece in pieces_of(pairs.viral_names()):
        names_file.write(piece)
    worth = mistakes.worth(pairs.worth())
    return tally.counts(pairs.count, pairs.virus), worth, prescreened, frames
