"""The files of a finished run -> what a page can show of it, in bounded memory.

Tables are streamed: contigs.tsv with regions.tsv and pairs.tsv once, viral.fasta once, calls.tsv
once. What is kept does not grow with the input, but for one line of counts a sample, and a number a
region. This module knows nothing of HTML.
"""

from collections import Counter
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from itertools import groupby
from pathlib import Path
from typing import Any

import numpy as np

from virnucpro.calls import CALL_NAMES, STATUS_NAMES, Call, Status
from virnucpro.classifiers.complexity import Complexity, complexities
from virnucpro.errors import InputError
from virnucpro.report.names import short
from virnucpro.report.pairs import Pairs, PairsBeside
from virnucpro.report.shown import Chosen, RegionRow, Shown, ShownRow
from virnucpro.report.tracks import Track
from virnucpro.results.files import RunFiles
from virnucpro.results.read import Columns, blocks
from virnucpro.results.record import FINISHED
from virnucpro.results.run_schema import checked_document
from virnucpro.results.schema import CallsTable, ContigsPaired, ContigsTable, RegionsTable

BINS = 50
# Of a longer record of viral.fasta no more is looked at for low complexity.
LONGEST_NT = 4_000_000
LOW_SHARE = 0.5
_AT_ONCE_NT = 1_000_000
_OF_CONTIGS = tuple(name for name in ShownRow._fields if name != "mate")
_OF_CHUNKS = ("sample", "record", "start", "end", "frames", "p_virus", "call", "status")


@dataclass(slots=True)
class Histogram:
    """The distribution of p_virus: counts of BINS equal parts of 0 to 1, by call."""

    virus: list[int] = field(default_factory=lambda: [0] * BINS)
    others: list[int] = field(default_factory=lambda: [0] * BINS)

    @property
    def total(self) -> int:
        """The number of scores."""
        return sum(self.virus) + sum(self.others)

    def add(self, block: Columns) -> None:
        """Count the rows of a table; rows without a call are not counted."""
        for counts, call in ((self.virus, Call.VIRUS), (self.others, Call.OTHERS)):
            p_virus = block["p_virus"][block["call"] == call]
            part = np.minimum((p_virus * BINS).astype(np.int64), BINS - 1)
            for i, number in enumerate(np.bincount(part, minlength=BINS).tolist()):
                counts[i] += number


@dataclass(slots=True)
class Run:
    """The content of a run directory, for one prefix.

    document: run.json, empty if it is missing; missing: names of files that are not there.
    records: counts by sample; by_length: counts of those with a call, by the lengths that the
    bundle was measured at, each from so many nt on; chunks: counts by call and by `status ...`;
    lengths_nt: chunks of each length. excerpts: ordinals in viral.fasta of regions, which are not
    records. low_shares: share of low complexity of the shown records of viral.fasta, by their
    ordinal there; low: how many of all low_seen looked at are mostly of low complexity.
    """

    files: RunFiles
    document: Mapping[str, Any]
    missing: list[str] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)
    records: dict[str, Counter[str]] = field(default_factory=dict)
    chunks: Counter[str] = field(default_factory=Counter)
    record_scores: Histogram = field(default_factory=Histogram)
    chunk_scores: Histogram = field(default_factory=Histogram)
    shortest_nt: int | None = None
    longest_nt: int = 0
    lengths_nt: Counter[int] = field(default_factory=Counter)
    by_length: dict[int, Counter[str]] = field(default_factory=dict)
    shown: list[Shown] = field(default_factory=list)
    tracks: list[Track] = field(default_factory=list)
    pairs: Pairs = field(default_factory=Pairs)
    excerpts: set[int] = field(default_factory=set)
    low_shares: dict[int, float] = field(default_factory=dict)
    low: int = 0
    low_seen: int = 0

    @property
    def name(self) -> str:
        """The name that a person would give this run: its samples, shortened, else its folder."""
        samples = list(self.records) or [i["sample"] for i in self.document.get("inputs", [])]
        if not samples:
            return self.files.prefix or self.files.run_dir.resolve().name
        more = f" and {len(samples) - 3:,} more" if len(samples) > 3 else ""
        return ", ".join(map(short, samples[:3])) + more

    @property
    def counts(self) -> Counter[str]:
        """Records of all samples together."""
        return sum(self.records.values(), Counter())

    @property
    def status(self) -> str:
        """The way the run ended, as run.json says."""
        return str(self.document.get("status", "unknown"))

    @property
    def is_bare(self) -> bool:
        """Whether the run is not finished, and left nothing to show."""
        return self.status not in FINISHED and not any(
            path.exists() for path in (self.files.contigs, self.files.calls)
        )

    @property
    def bundle(self) -> Mapping[str, Any]:
        """The entry of the bundle in run.json; empty where it is missing."""
        return self.document.get("bundle") or {}

    @property
    def settings(self) -> Mapping[str, Any]:
        """The entry of the settings in run.json; empty where it is missing."""
        return self.document.get("settings") or {}

    @property
    def threshold(self) -> float | None:
        """The threshold on p_virus of records; None where run.json does not say."""
        found = self.settings.get("threshold")
        return None if found is None else float(found)

    @property
    def fdr(self) -> float | None:
        """The rate of false discoveries by which records were called; None if by threshold."""
        found = self.settings.get("fdr")
        return None if found is None else float(found)

    @property
    def chunk_threshold(self) -> float | None:
        """The threshold on p_virus of chunks, another number if the bundle has a calibration."""
        found = self.settings.get("chunk_threshold", self.threshold)
        return None if found is None else float(found)

    @property
    def worth(self) -> Mapping[str, Any]:
        """The entry of expected mistakes in run.json; empty without a calibration."""
        return self.document.get("worth") or {}


def read_run(files: RunFiles, share: int = 1) -> Run:
    """Reads the files of a run; those that are missing are named in it.

    share: how many runs the page has room for. Raises InputError for a damaged file.
    """
    run = Run(files, _document(files))
    shown = [files.run_json, files.contigs, files.calls]
    if run.settings.get("write") != "none":
        shown.append(files.viral_fasta)
    listed = run.document.get("outputs") or {}
    shown += [path for path in (files.regions, files.pairs) if path.name in listed]
    run.missing = [path.name for path in shown if not path.exists()]
    chosen: list[tuple[str, Shown]] = []
    if files.contigs.exists():
        chosen = _read_contigs(run, share)
    complexity = _read_viral(run, {s.viral for _, s in chosen})
    if files.calls.exists():
        run.tracks = [Track(s, reason, complexity.get(s.viral)) for reason, s in chosen]
        _read_calls(run)
    return run


def _document(files: RunFiles) -> dict[str, Any]:
    if not files.run_json.exists():
        return {}
    try:
        return checked_document(files.run_json.read_bytes())
    except OSError as error:
        raise InputError(f"cannot be read ({error.strerror}); check it", files.run_json) from error
    except ValueError as error:
        raise InputError(
            f"this file is damaged, or was not written by virnucpro ({error}); run predict again",
            files.run_json,
        ) from error


class _Regions:
    """regions.tsv, read beside contigs.tsv, whose order it has."""

    def __init__(self, path: Path) -> None:
        self._records = groupby(_region_rows(path) if path.exists() else (), key=lambda r: r[0])
        self._next = next(self._records, None)

    def of(self, block: Columns) -> dict[int, tuple[RegionRow, ...]]:
        """The regions of the next rows of contigs.tsv, by row."""
        found: dict[int, tuple[RegionRow, ...]] = {}
        while self._next is not None:
            (sample, record), rows = self._next
            places = np.flatnonzero(block["record"] == record).tolist()
            place = next((i for i in places if block["sample"][i] == sample), None)
            if place is None:
                break
            found[place] = tuple(row for _, row in rows)
            self._next = next(self._records, None)
        return found

    @property
    def left(self) -> bool:
        """Return whether there is a row of a record that is missing from contigs.tsv."""
        return self._next is not None


def _region_rows(path: Path) -> Iterator[tuple[tuple[str, int], RegionRow]]:
    for block in blocks(path, RegionsTable, ("sample", "record", *RegionRow._fields)):
        numbers = (block[name].tolist() for name in ("record", *RegionRow._fields))
        for sample, record, *region in zip(block["sample"], *numbers, strict=True):
            yield (sample, record), RegionRow(*region)


def _read_contigs(run: Run, share: int) -> list[tuple[str, Shown]]:
    """Counts contigs.tsv, and chooses what is shown; returns what is drawn, with the reason."""
    chosen, regions = Chosen(share), _Regions(run.files.regions)
    pairs = PairsBeside(run.files.pairs, share) if run.files.pairs.exists() else None
    for block in blocks(run.files.contigs, ContigsTable, _OF_CONTIGS, ContigsPaired):
        _count(run, block)
        chosen.add(block, regions.of(block))
        if pairs is not None:
            pairs.add(block)
    if regions.left:
        run.notes.append(
            f"{run.files.regions.name} tells of records that {run.files.contigs.name} does not hold"
        )
    if pairs is not None:
        run.pairs = pairs.pairs()
        if not run.pairs.fits:
            run.notes.append(
                f"{run.files.pairs.name} and {run.files.contigs.name} do not hold the same mates, "
                "so pairs are only counted here; run predict again"
            )
    run.shown, run.excerpts = chosen.rows(), chosen.excerpts
    return chosen.drawn()


def _count(run: Run, block: Columns) -> None:
    samples, failed = block["sample"], block["status"] == Status.FAILED
    start = 0
    for sample, rows in groupby(samples):
        part = slice(start, start := start + len([*rows]))
        counter = run.records.setdefault(sample, Counter())
        counter["records"] += part.stop - part.start
        counter["failed"] += int(failed[part].sum())
        for call in Call:
            of_call = (block["call"][part] == call) & ~failed[part]
            counter[CALL_NAMES[call]] += int(of_call.sum())
        counter["bases"] += int(block["length_nt"][part].sum())
        counter["chunks"] += int(block["chunks"][part].sum())
        counter["virus_chunks"] += int(block["virus_chunks"][part].sum())
        counter["of several chunks"] += int((block["chunks"][part] > 1).sum())
    run.record_scores.add(block)
    begins = sorted({float(row["from_nt"]) for row in run.bundle.get("of_records", ())})
    length_bin = np.digitize(block["length_nt"], begins) - 1
    for place, from_nt in enumerate(begins):
        calls = block["call"][length_bin == place]
        counter = run.by_length.setdefault(int(from_nt), Counter())
        counter["records"] += int((calls != Call.NONE).sum())
        counter["virus"] += int((calls == Call.VIRUS).sum())
    with_letters = block["length_nt"][block["length_nt"] > 0]
    if len(with_letters):
        run.shortest_nt = min(int(with_letters.min()), run.shortest_nt or int(with_letters.min()))
        run.longest_nt = max(int(with_letters.max()), run.longest_nt)


def _read_viral(run: Run, drawn: set[int]) -> dict[int, Complexity]:
    """Looks for low complexity in viral.fasta; returns that of the drawn records.

    Its records are those called virus, whole and in the order of contigs.tsv, and among them the
    regions of others. Where the two do not fit, a note says so, and nothing is told of complexity.
    """
    wanted = {shown.viral: shown.row.length_nt for shown in run.shown}
    found: dict[int, Complexity] = {}
    number, fits = 0, True
    for batch in _batches(_fasta(run.files.viral_fasta)):
        looked_at = complexities([sequence for _, sequence in batch])
        for (length_nt, _), complexity in zip(batch, looked_at, strict=True):
            if number not in run.excerpts:
                run.low += complexity.share >= LOW_SHARE
                run.low_seen += 1
            if number in wanted:
                fits &= wanted[number] == length_nt
                run.low_shares[number] = complexity.share
            if number in drawn:
                found[number] = complexity
            number += 1
    if not fits or number != run.counts["virus"] + len(run.excerpts):
        run.low, run.low_seen, run.low_shares, found = 0, 0, {}, {}
        if run.files.contigs.exists() and run.files.viral_fasta.exists():
            run.notes.append(
                f"{run.files.viral_fasta.name} does not hold the records that "
                f"{run.files.contigs.name} calls virus, so low complexity was not looked for"
            )
    return found


def _fasta(path: Path) -> Iterator[tuple[int, bytes]]:
    """Lengths of the records of a file of ours, and their sequences up to LONGEST_NT."""
    if not path.exists():
        return
    length_nt, sequence = -1, bytearray()
    with path.open("rb") as file:
        for line in file:
            if line.startswith(b">"):
                if length_nt >= 0:
                    yield length_nt, bytes(sequence)
                length_nt = 0
                sequence.clear()
            else:
                letters = line.rstrip()
                length_nt += len(letters)
                if length_nt <= LONGEST_NT:
                    sequence += letters
    if length_nt >= 0:
        yield length_nt, bytes(sequence)


def _batches(records: Iterator[tuple[int, bytes]]) -> Iterator[list[tuple[int, bytes]]]:
    batch, size = list[tuple[int, bytes]](), 0
    for length_nt, sequence in records:
        batch.append((length_nt, sequence))
        size += len(sequence)
        if size >= _AT_ONCE_NT:
            yield batch
            batch, size = [], 0
    if batch:
        yield batch


def _read_calls(run: Run) -> None:
    """Counts calls.tsv, and gathers the chunks of what is drawn."""
    tracks = {(t.shown.row.sample, t.shown.row.record): t for t in run.tracks}
    records = np.array([record for _, record in tracks], np.int64)
    for block in blocks(run.files.calls, CallsTable, _OF_CHUNKS):
        for call in Call:
            run.chunks[CALL_NAMES[call]] += int((block["call"] == call).sum())
        for status in Status:
            of_status = int((block["status"] == status).sum())
            run.chunks[f"status {STATUS_NAMES[status]}"] += of_status
        lengths, numbers = np.unique(block["end"] - block["start"], return_counts=True)
        run.lengths_nt.update(dict(zip(lengths.tolist(), numbers.tolist(), strict=True)))
        run.chunk_scores.add(block)
        for i in np.flatnonzero(np.isin(block["record"], records)).tolist():
            track = tracks.get((block["sample"][i], int(block["record"][i])))
            if track is not None:
                track.add(block, i)
