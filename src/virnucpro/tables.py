"""Scored blocks -> the tables of a run, in one streaming merge.

Every column of every table is named here and explained in docs/outputs.md. A block is formatted
by columns and written at once; nothing is held for longer than a block, apart from what must be
sorted, which lies on the disk. This module knows no encoder and no device.
"""

from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from virnucpro.batches import Record
from virnucpro.calls import (
    FRAME_NAMES,
    Call,
    ContigCalls,
    Contigs,
    Rule,
    Scores,
    Status,
    consensus,
    frame_names,
)
from virnucpro.journal import Journal
from virnucpro.names import UniqueNames, name_hashes, sort_key, unique_names
from virnucpro.pairs import PAIRS_COLUMNS, PairedCalls
from virnucpro.parquet import EmbeddingsTable, ParquetTables
from virnucpro.reads import Seen, Source
from virnucpro.regions import Odds, Region, RegionFinder
from virnucpro.run_directory import RunFiles
from virnucpro.scored import Scored
from virnucpro.sequences import Marks, copy_sequences
from virnucpro.sorting import SortedLines, pieces_of
from virnucpro.staging import Staging
from virnucpro.writing import OutputFile

CALLS_COLUMNS = (
    "sample",
    "record",
    "contig",
    "chunk",
    "start",
    "end",
    "frames",
    "p_virus",
    "call",
    "status",
    "max_p_virus",
    "max_p_others",
)
CONTIGS_COLUMNS = (
    "sample",
    "record",
    "contig",
    "length_nt",
    "chunks",
    "called",
    "virus_chunks",
    "p_virus",
    "max_p_virus",
    "call",
    "status",
)
FRAME_SCORES_COLUMNS = ("Sequence_ID", "Prediction", "score1", "score2")
CHUNK_SCORES_COLUMNS = ("Modified_ID", "Is_Virus", "max_score_0", "max_score_1")
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

_FRAMES = [frame_names(bits) for bits in range(64)]
_CALLS = [call.name.lower() for call in Call]
_STATUSES = [status.name.lower() for status in Status]
_TRUTH = ("False", "True")
_LABELS = ("others", "virus")


@dataclass(frozen=True, slots=True, kw_only=True)
class Counts:
    """What a run did with its input. Creating one checks that it adds up.

    records = called + none + failed, called = virus + others; partly_failed of the called records
    have chunks that failed. chunks counts all chunks, chunk_status those of each status. regions:
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
        called = sum(self.chunk_status[s.name.lower()] for s in Status if s.called)
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
        """Whether anything is listed in failed.tsv."""
        return self.failed + self.partly_failed > 0

    def as_dict(self) -> dict[str, Any]:
        """For run.json."""
        return asdict(self)


@dataclass(frozen=True, slots=True, kw_only=True)
class Wanted:
    """What is to be written besides calls.tsv, contigs.tsv, failed.tsv and the regions.

    compat_tables: the two in the published tool's format. odds: what finds regions; None finds
    none. sequences: "none", "viral" (viral.fasta) or "all" (others.fasta, too). parquet: calls and
    contigs in that format. embeddings: None, or the widths of those to be written, as parquet has
    them.
    """

    compat_tables: bool = True
    odds: Odds | None = None
    sequences: str = "viral"
    parquet: bool = False
    embeddings: tuple[int, int] | None = None


def write_tables(
    files: RunFiles,
    journal: Journal,
    rule: Rule,
    sources: Sequence[Source],
    before: Sequence[Seen],
    wanted: Wanted = Wanted(),
) -> Counts:
    """Writes all tables and sequences; they appear one after the other, when all are finished.

    sources: the inputs, opened anew for the second pass; before: what the first pass has seen of
    each. Raises InputError if an input has changed since, VirnucproError if the disk refuses,
    ResumeError if a block is missing or damaged.
    """
    with Staging(files, journal.outputs) as staging:
        hashes = files.scratch / "names.hashes"
        with Marks(files.scratch) as marks:
            counts = _write_calls(files, staging, journal, rule, wanted, hashes, marks)
        if wanted.compat_tables:
            names = unique_names(lambda: _records(journal), hashes, files.scratch)
            _write_scores(files, staging, journal, names)
        if wanted.embeddings is not None:
            file = staging.open(files.embeddings)
            with EmbeddingsTable(file, wanted.embeddings) as table:
                for scored in journal.scored():
                    if (found := journal.embeddings(scored)) is not None:
                        table.add(scored, found)
        if wanted.sequences != "none":
            viral = staging.open(files.viral_fasta)
            others = staging.open(files.others_fasta) if wanted.sequences == "all" else None
            if others is not None or marks.virus or marks.excerpts:
                copy_sequences(sources, before, marks, viral, others)
        staging.publish()
    return counts


def _records(journal: Journal) -> Iterator[tuple[Record, ...]]:
    return (scored.records for scored in journal.scored())


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


def shortest(values: NDArray[np.float32]) -> list[str]:
    """float32 -> the shortest decimals that read back as the same float32."""
    texts: list[str] = values.astype(np.float32).astype("U16").tolist()
    return texts


def _in_order(blocks: Iterator[Scored]) -> Iterator[Scored]:
    """Passes blocks on; checks that every record and every chunk is there, once and in order."""
    ordinal, whole, chunk = -1, True, 0
    for scored in blocks:
        for record in scored.records:
            if record.begins != whole or record.ordinal != ordinal + record.begins:
                raise AssertionError(
                    f"block {scored.block_number}: record {record.ordinal} after {ordinal}"
                )
            ordinal, whole = record.ordinal, record.ends
        chunk = _checked_chunks(scored, chunk)
        yield scored
    if not whole:
        raise AssertionError(f"the end of record {ordinal} is missing")


def _checked_chunks(scored: Scored, before: int) -> int:
    """Checks that chunks count from 1 (or from before, if the first record goes on) to the end.

    Returns the number of the last chunk if the last record goes on, else 0.
    """
    rows, records = scored.rows, scored.records
    if not records:
        return before
    covered, last = (np.zeros(len(records), dtype=np.int64) for _ in range(2))
    covered[rows.record], last[rows.record] = rows.end, rows.number
    whole = (r.length_nt if r.ends and not (r.fault or r.short) else -1 for r in records)
    length = np.fromiter(whole, np.int64, len(records))
    expected = np.append(before, rows.number)[: len(rows)] + 1
    first = np.diff(rows.record, prepend=-1) != 0
    expected[first] = np.where(rows.record[first] == 0, before, 0) + 1
    if np.any(rows.number != expected) or np.any((covered != length) & (length >= 0)):
        raise AssertionError(
            f"block {scored.block_number}: a record lacks a chunk or has one twice"
        )
    return 0 if records[-1].ends else int(last[-1])


def _write_calls(
    files: RunFiles,
    staging: Staging,
    journal: Journal,
    rule: Rule,
    wanted: Wanted,
    hashes: Path,
    marks: Marks,
) -> Counts:
    """First pass: tables of calls, contigs, regions and failures, and what later passes need."""
    calls_file = staging.open(files.calls, header(CALLS_COLUMNS))
    contigs_file = staging.open(files.contigs, header(CONTIGS_COLUMNS))
    regions_file = staging.open(files.regions, header(REGIONS_COLUMNS))
    bed_file = staging.open(files.regions_bed)
    contig_calls, tally = ContigCalls(), Counter[str]()
    pairs = PairedCalls(rule, files.scratch)
    finder = None if wanted.odds is None else RegionFinder(wanted.odds)
    reasons: dict[int, str] = {}
    with (
        OutputFile(hashes, durable=False) as hash_file,
        _parquet(files, staging, wanted) as parquet,
    ):
        for scored in _in_order(journal.scored()):
            records, rows, scores = scored.records, scored.rows, scored.scores
            begun = [record.name for record in records if record.begins]
            hash_file.write(name_hashes(begun).tobytes())
            calls = rule.chunks(scores)
            calls_file.write(_calls_rows(scored, calls))
            last_ends = not records or records[-1].ends
            columns = (rows.record, rows.start, rows.end, scores, calls, last_ends)
            contigs = contig_calls.add(len(records), *columns)
            ended = records[: len(contigs)]
            status = _with_faults(ended, contigs.status)
            called = rule.contigs(contigs.p_virus)
            contigs_file.write(_contigs_rows(ended, contigs, called, status))
            if parquet is not None:
                parquet.add_chunks(scored, calls)
                parquet.add_contigs(ended, contigs, called, status)
            for row, reason in scored.failures.items():
                reasons.setdefault(records[rows.record[row]].ordinal, reason)
            if lines := _failed_rows(ended, contigs, reasons):  # the file exists only for these
                staging.open(files.failed, header(FAILED_COLUMNS)).write(lines)
            if lines := pairs.add(ended, contigs, called):  # this one only for inputs with pairs
                staging.open(files.pairs, header(PAIRS_COLUMNS)).write(lines)
            regions: list[Region] = []
            if finder is not None:
                spans = (rows.record, rows.start, rows.end, scores.p_virus, calls)
                regions = finder.add(len(records), *spans, last_ends)
            regions_file.write(_regions_rows(ended, regions))
            bed_file.write(_bed_rows(ended, regions))
            marks.add(called == Call.VIRUS, regions)
            _add(tally, ended, contigs, called, status, scores, calls)
            tally["regions"] += len(regions)
            tally["region_records"] += len({region.index for region in regions})
    if lines := pairs.rest():
        staging.open(files.pairs, header(PAIRS_COLUMNS)).write(lines)
    tally["pairs"], tally["virus_pairs"] = pairs.count, pairs.virus
    names_file = staging.open(files.viral_names)
    for piece in pieces_of(pairs.viral_names()):
        names_file.write(piece)
    return _counts(tally)


@contextmanager
def _parquet(files: RunFiles, staging: Staging, wanted: Wanted) -> Iterator[ParquetTables | None]:
    if not wanted.parquet:
        yield None
        return
    both = staging.open(files.calls_parquet), staging.open(files.contigs_parquet)
    with ParquetTables(*both) as tables:
        yield tables


def _with_faults(records: Sequence[Record], status: NDArray[np.uint8]) -> NDArray[np.uint8]:
    faulty = np.fromiter((record.fault != "" for record in records), bool, len(records))
    short = np.fromiter((record.short for record in records), bool, len(records))
    listed = np.where(short, Status.TOO_SHORT, status)
    return np.where(faulty, Status.FAILED, listed).astype(np.uint8)


def _prefixes(records: Sequence[Record]) -> list[str]:
    """The first three columns, which are the same in all our tables."""
    return [f"{record.sample}\t{record.record}\t{record.name}\t" for record in records]


def _calls_rows(scored: Scored, calls: NDArray[np.uint8]) -> bytes:
    rows, scores = scored.rows, scored.scores
    prefixes = _prefixes(scored.records)
    tails = [f"\t{call}\t{status}\t" for call in _CALLS for status in _STATUSES]
    tail = (calls.astype(np.int64) * len(_STATUSES) + scores.status).tolist()
    lines = [
        f"{prefixes[i]}{k}\t{start}\t{end}\t{_FRAMES[bits]}\t{p}{tails[t]}{m1}\t{m0}\n"
        for i, k, start, end, bits, p, t, m1, m0 in zip(
            rows.record.tolist(),
            rows.number.tolist(),
            rows.start.tolist(),
            rows.end.tolist(),
            scores.frames.tolist(),
            six_decimals(scores.p_virus),
            tail,
            six_decimals(scores.max_p_virus),
            six_decimals(scores.max_p_others),
            strict=True,
        )
    ]
    return _encoded(lines)


def _contigs_rows(
    records: Sequence[Record],
    contigs: Contigs,
    calls: NDArray[np.uint8],
    status: NDArray[np.uint8],
) -> bytes:
    lines = [
        f"{prefix}{record.length_nt}\t{chunks}\t{called}\t{virus}\t{p}\t{high}\t"
        f"{_CALLS[call]}\t{_STATUSES[state]}\n"
        for prefix, record, chunks, called, virus, p, high, call, state in zip(
            _prefixes(records),
            records,
            contigs.chunks.tolist(),
            contigs.called.tolist(),
            contigs.virus.tolist(),
            six_decimals(contigs.p_virus),
            six_decimals(contigs.max_p_virus),
            calls.tolist(),
            status.tolist(),
            strict=True,
        )
    ]
    return _encoded(lines)


def _regions_rows(records: Sequence[Record], regions: Sequence[Region]) -> bytes:
    lines = [
        f"{records[r.index].sample}\t{records[r.index].record}\t{records[r.index].name}\t"
        f"{r.number}\t{r.start}\t{r.end}\t{r.length_nt}\t{r.chunks}\t{r.called}\t{r.virus}\t"
        f"{r.p_virus:.6f}\t{r.expected:.2e}\n"
        for r in regions
    ]
    return _encoded(lines)


def _bed_rows(records: Sequence[Record], regions: Sequence[Region]) -> bytes:
    """The same as BED6; the fourth column tells records of one name apart."""
    lines = [
        f"{records[r.index].name}\t{r.start}\t{r.end}\t{records[r.index].sample}:"
        f"{records[r.index].record}:{r.number}\t{round(1000 * r.p_virus)}\t.\n"
        for r in regions
    ]
    return _encoded(lines)


def _failed_rows(records: Sequence[Record], contigs: Contigs, reasons: dict[int, str]) -> bytes:
    """reasons: why the first chunk of a record failed, by ordinal; those of ended ones go."""
    lines = []
    for record, failed, chunks in zip(
        records, contigs.failed.tolist(), contigs.chunks.tolist(), strict=True
    ):
        if record.fault or failed:
            why = reasons.pop(record.ordinal, "unknown")
            reason = record.fault or f"{failed} of {chunks} chunks could not be scored: {why}"
            line = " ".join(reason.split())
            lines.append(f"{record.sample}\t{record.record}\t{record.name}\t{line}\n")
    return _encoded(lines)


def _add(
    tally: Counter[str],
    records: Sequence[Record],
    contigs: Contigs,
    called: NDArray[np.uint8],
    status: NDArray[np.uint8],
    scores: Scores,
    calls: NDArray[np.uint8],
) -> None:
    """Counts a block and the contigs that end in it; sums are taken apart, to be compared."""
    tally["records"] += len(records)
    tally["bases"] += sum(record.length_nt for record in records)
    tally["called"] += int(np.sum(contigs.called > 0))
    tally["none"] += int(np.sum((called == Call.NONE) & (status != Status.FAILED)))
    tally["failed"] += int(np.sum(status == Status.FAILED))
    tally["partly_failed"] += int(np.sum((contigs.called > 0) & (contigs.failed > 0)))
    tally["virus"] += int(np.sum(called == Call.VIRUS))
    tally["others"] += int(np.sum(called == Call.OTHERS))
    tally["chunks"] += int(np.sum(contigs.chunks))
    tally["virus_chunks"] += int(np.sum(calls == Call.VIRUS))
    tally["others_chunks"] += int(np.sum(calls == Call.OTHERS))
    for name, number in zip(
        _STATUSES, np.bincount(scores.status, minlength=len(Status)), strict=True
    ):
        tally[f"status {name}"] += int(number)


def _counts(tally: Counter[str]) -> Counts:
    status = {s: tally.pop(f"status {s}", 0) for s in _STATUSES[: Status.EMPTY]}
    names = [name for name in Counts.__dataclass_fields__ if name != "chunk_status"]
    return Counts(chunk_status=status, **{name: tally[name] for name in names})


def _write_scores(files: RunFiles, staging: Staging, journal: Journal, names: UniqueNames) -> None:
    """Second pass: the two tables in the published tool's format."""
    frames_file = staging.open(files.frame_scores, header(FRAME_SCORES_COLUMNS))
    chunks_file = staging.open(files.chunk_scores, header(CHUNK_SCORES_COLUMNS))
    chunks = SortedLines(files.scratch, "chunks")
    for scored in journal.scored():
        ids = _chunk_ids(scored, names.of(scored.records))
        frames_file.write(_frame_rows(ids, scored.scores))
        chunks.add(_chunk_rows(ids, scored.scores))
    for piece in pieces_of(chunks.sorted()):
        chunks_file.write(piece.replace(b"\0\0", b"\t").replace(b"\0\xff", b"\0"))


def _chunk_ids(scored: Scored, names: list[str]) -> list[str]:
    numbers = scored.rows.number.tolist()
    records = scored.rows.record.tolist()
    return [f"{names[i]}_chunk_{k}" for i, k in zip(records, numbers, strict=True)]


def _frame_rows(ids: list[str], scores: Scores) -> bytes:
    """Rows of prediction_results.txt; a tie is others."""
    labels = (scores.frame_p_virus > scores.frame_p_others).tolist()
    lines = [
        f"{ids[i]}{FRAME_NAMES[f]}\t{_LABELS[label]}\t{p0}\t{p1}\n"
        for i, f, label, p0, p1 in zip(
            scores.frame_chunk.tolist(),
            scores.frame.tolist(),
            labels,
            shortest(scores.frame_p_others),
            shortest(scores.frame_p_virus),
            strict=True,
        )
    ]
    return _encoded(lines)


def _chunk_rows(ids: list[str], scores: Scores) -> list[bytes]:
    """Lines of prediction_results_highestscore.csv with a sort key for their first column."""
    kept = scores.called[scores.frame_chunk]
    p_others, p_virus = scores.frame_p_others[kept], scores.frame_p_virus[kept]
    found = consensus(scores.frame_chunk[kept], p_others, p_virus)
    if len(found.chunk) != np.sum(scores.called):
        raise AssertionError("a called chunk has no scored frame")
    m0, m1 = shortest(found.max_p_others), shortest(found.max_p_virus)
    lines = [
        f"{sort_key(ids[i])}{_TRUTH[virus]}\t{p0}\t{p1}\n"
        for i, virus, p0, p1 in zip(found.chunk.tolist(), found.virus.tolist(), m0, m1, strict=True)
    ]
    return [line.encode("utf-8", "surrogateescape") for line in lines]


def _encoded(lines: Sequence[str]) -> bytes:
    """Lines -> bytes; letters of a name that are no UTF-8 come out as they came in."""
    return "".join(lines).encode("utf-8", "surrogateescape")
