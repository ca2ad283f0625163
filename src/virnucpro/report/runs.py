"""The files of a finished run -> what a page can show of it, in bounded memory.

Tables are streamed: contigs.tsv with regions.tsv once, viral.fasta once, calls.tsv once. What is
kept does not grow with the input, but for one line of counts a sample, and a number a region. This
module knows no HTML.
"""

import heapq
import json
from collections import Counter
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field, replace
from itertools import groupby
from math import inf, isnan, nan
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from virnucpro.calls import Call, Status
from virnucpro.errors import InputError
from virnucpro.journal import RunFiles
from virnucpro.lock import holder_of
from virnucpro.report.columns import (
    Columns,
    Reader,
    blocks,
    calls,
    frames,
    integers,
    scores,
    statuses,
)
from virnucpro.report.complexity import Complexity, complexities

BINS = 50
MOST_TRACKS = 40  # of each of the reasons to draw a contig
MOST_ROWS = 10_000
MOST_POINTS = 40_000
POINTS_A_TRACK = 1_000
TRACK_POINTS = 20  # what a track takes besides its points
# Of a longer record of viral.fasta no more is looked at for low complexity.
LONGEST_NT = 4_000_000
LOW_SHARE = 0.5
_AT_ONCE_NT = 1_000_000


class ContigRow(NamedTuple):
    """A row of contigs.tsv; p_virus and max_p_virus are nan where there is none."""

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


class RegionRow(NamedTuple):
    """What a page tells of a row of regions.tsv."""

    start: int
    end: int
    virus_chunks: int
    called: int
    expected: float


@dataclass(frozen=True, slots=True)
class Shown:
    """A record of the page: its row, and its ordinals in contigs.tsv and viral.fasta (or -1).

    regions: its rows of regions.tsv.
    """

    row: ContigRow
    ordinal: int
    viral: int
    regions: tuple[RegionRow, ...] = ()


@dataclass(slots=True)
class Track:
    """The chunks along one contig, `group` of them at a point.

    p and high: mean and largest p_virus of the called ones, nan without; frames: bits, and status,
    of the first chunk of a point. complexity: None where it was not looked at.
    """

    shown: Shown
    reason: str
    group: int
    complexity: Complexity | None
    start: list[int] = field(default_factory=list)
    end: list[int] = field(default_factory=list)
    p: list[float] = field(default_factory=list)
    high: list[float] = field(default_factory=list)
    called: list[int] = field(default_factory=list)
    virus: list[int] = field(default_factory=list)
    chunks: list[int] = field(default_factory=list)
    frames: list[int] = field(default_factory=list)
    status: list[int] = field(default_factory=list)

    def add(self, block: Columns, i: int) -> None:
        """The next chunk of the contig: a row of calls.tsv."""
        if not self.chunks or self.chunks[-1] == self.group:
            self._begin(block, i)
        self.end[-1] = int(block["end"][i])
        self.chunks[-1] += 1
        p_virus = float(block["p_virus"][i])
        if not isnan(p_virus):
            self.called[-1] += 1
            first = self.called[-1] == 1
            before = 0.0 if first else self.p[-1]
            self.p[-1] = before + (p_virus - before) / self.called[-1]
            self.high[-1] = p_virus if first else max(self.high[-1], p_virus)
        self.virus[-1] += int(block["call"][i] == Call.VIRUS)

    def _begin(self, block: Columns, i: int) -> None:
        for column, value in (
            (self.start, block["start"][i]),
            (self.end, 0),
            (self.called, 0),
            (self.virus, 0),
            (self.chunks, 0),
            (self.frames, block["frames"][i]),
            (self.status, block["status"][i]),
        ):
            column.append(int(value))
        self.p.append(nan)
        self.high.append(nan)


@dataclass(slots=True)
class Scores:
    """How p_virus is spread: counts of BINS equal parts of 0 to 1, by call."""

    virus: list[int] = field(default_factory=lambda: [0] * BINS)
    others: list[int] = field(default_factory=lambda: [0] * BINS)

    def add(self, block: Columns) -> None:
        """Rows of a table; those without a call are in no part."""
        for counts, call in ((self.virus, Call.VIRUS), (self.others, Call.OTHERS)):
            p_virus = block["p_virus"][block["call"] == call]
            part = np.minimum((p_virus * BINS).astype(np.int64), BINS - 1)
            for i, number in enumerate(np.bincount(part, minlength=BINS).tolist()):
                counts[i] += number


@dataclass(slots=True)
class Run:
    """What a run directory holds, for one prefix.

    document: run.json, empty if it is missing; missing: names of files that are not there.
    records: counts by sample; chunks: counts by call and by `status ...`; lengths_nt: chunks of
    each length. excerpts: ordinals in viral.fasta of regions, which are no records. low_shares:
    share of low complexity of the shown records of viral.fasta, by their ordinal there; low: how
    many of all low_seen looked at are mostly of low complexity.
    """

    files: RunFiles
    document: Mapping[str, Any]
    missing: list[str] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)
    records: dict[str, Counter[str]] = field(default_factory=dict)
    chunks: Counter[str] = field(default_factory=Counter)
    record_scores: Scores = field(default_factory=Scores)
    chunk_scores: Scores = field(default_factory=Scores)
    shortest_nt: int | None = None
    longest_nt: int = 0
    lengths_nt: Counter[int] = field(default_factory=Counter)
    shown: list[Shown] = field(default_factory=list)
    tracks: list[Track] = field(default_factory=list)
    excerpts: set[int] = field(default_factory=set)
    low_shares: dict[int, float] = field(default_factory=dict)
    low: int = 0
    low_seen: int = 0

    @property
    def name(self) -> str:
        """What a person would call this run: its samples, else its folder."""
        samples = list(self.records) or [i["sample"] for i in self.document.get("inputs", [])]
        if not samples:
            return self.files.prefix or self.files.run_dir.resolve().name
        more = f" and {len(samples) - 3:,} more" if len(samples) > 3 else ""
        return ", ".join(samples[:3]) + more

    @property
    def counts(self) -> Counter[str]:
        """Records of all samples together."""
        return sum(self.records.values(), Counter())

    @property
    def threshold(self) -> float | None:
        """Where p_virus was cut; None where run.json does not say."""
        found = self.document.get("settings", {}).get("threshold")
        return None if found is None else float(found)


def run_files(folder: Path) -> list[RunFiles]:
    """The runs whose files lie in a folder, by prefix.

    Raises InputError if there is none, or one of them is at work.
    """
    if not folder.is_dir():
        raise InputError("there is no such folder; name the run directory of predict", folder)
    plain, packed = RunFiles(Path()), RunFiles(Path(), packed=True)
    names = [path.name for path in (plain.run_json, plain.contigs, packed.contigs)]
    found = {
        path.name.removesuffix(name).removesuffix(".")
        for name in names
        for path in folder.iterdir()
        if path.name == name or path.name.endswith(f".{name}")
    }
    if not found:
        for path in filter(_is_hidden, folder.iterdir()):
            _refuse_at_work(path, folder)
            raise InputError(
                "the run here was stopped before it had results; give the same predict command "
                "again",
                folder,
            )
        inside = sorted(path.parent.name for path in folder.glob(f"*/*{names[0]}"))
        deeper = f", or those in it, as {inside[0]}" if inside else ""
        raise InputError(
            f"this folder holds no run: there is neither {names[0]} nor {names[1]} in it; name "
            f"the run directory of predict{deeper}",
            folder,
        )
    for prefix in found:
        _refuse_at_work(RunFiles(folder, prefix).hidden, folder, surely=True)
    return [_in_its_form(RunFiles(folder, prefix)) for prefix in sorted(found)]


def _refuse_at_work(hidden: Path, folder: Path, *, surely: bool = False) -> None:
    """Raises InputError where a process works on a run; surely: only if it is known to live."""
    who, lives = holder_of(hidden) or ("", False)
    if who and (lives or not surely):
        stopped = "" if lives else "; if it was stopped there, give the same predict command again"
        raise InputError(f"a run is at work here, {who}; wait for its end{stopped}", folder)


def _is_hidden(path: Path) -> bool:
    """Whether this is the hidden folder of a run."""
    hidden = RunFiles(Path()).hidden.name
    return path.is_dir() and path.name.startswith(".") and path.name.endswith(hidden)


def _in_its_form(files: RunFiles) -> RunFiles:
    """With names of gzipped tables where these are what is there."""
    packed = replace(files, packed=True)
    there = [form for form in (files, packed) if form.contigs.exists() or form.calls.exists()]
    return there[0] if there else files


def read_run(files: RunFiles, share: int = 1) -> Run:
    """Reads the files of a run; those that are missing are named in it.

    share: how many runs the page has room for. Raises InputError for a damaged file.
    """
    run = Run(files, _document(files))
    shown = [files.run_json, files.contigs, files.calls]
    if run.document.get("settings", {}).get("write") != "none":
        shown.append(files.viral_fasta)
    if files.regions.name in (run.document.get("outputs") or {}):
        shown.append(files.regions)
    run.missing = [path.name for path in shown if not path.exists()]
    chosen: list[tuple[str, Shown]] = []
    if files.contigs.exists():
        chosen = _read_contigs(run, MOST_ROWS // share, MOST_POINTS // share)
    complexity = _read_viral(run, {shown.viral for _, shown in chosen})
    if files.calls.exists():
        run.tracks = [
            Track(shown, reason, _group(shown.row), complexity.get(shown.viral))
            for reason, shown in chosen
        ]
        _read_calls(run)
    return run


def _document(files: RunFiles) -> dict[str, Any]:
    if not files.run_json.exists():
        return {}
    try:
        document = {**json.loads(files.run_json.read_bytes())}
    except (TypeError, ValueError) as error:  # no JSON, or not an object
        raise InputError("this file is damaged; run predict again", files.run_json) from error
    if not {"schema_version", "status", "inputs"} <= document.keys():
        raise InputError("this was not written by virnucpro", files.run_json)
    return document


_CONTIG_COLUMNS: dict[str, Reader] = {
    "sample": tuple,
    "record": integers,
    "contig": tuple,
    "length_nt": integers,
    "chunks": integers,
    "virus_chunks": integers,
    "p_virus": scores,
    "max_p_virus": scores,
    "call": calls,
    "status": statuses,
}
_CHUNK_COLUMNS: dict[str, Reader] = {
    "sample": tuple,
    "record": integers,
    "start": integers,
    "end": integers,
    "frames": frames,
    "p_virus": scores,
    "call": calls,
    "status": statuses,
}


_REGION_COLUMNS: dict[str, Reader] = {
    "sample": tuple,
    "record": integers,
    "start": integers,
    "end": integers,
    "virus_chunks": integers,
    "called": integers,
    "expected_by_chance": scores,
}


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
        """Whether there is a row of a record that contigs.tsv has not."""
        return self._next is not None


def _region_rows(path: Path) -> Iterator[tuple[tuple[str, int], RegionRow]]:
    for block in blocks(path, _REGION_COLUMNS):
        columns = (block[name] for name in _REGION_COLUMNS)
        for sample, record, start, end, virus, called, expected in zip(*columns, strict=True):
            row = RegionRow(int(start), int(end), int(virus), int(called), float(expected))
            yield (sample, int(record)), row


class _Top:
    """The rows of the largest keys, the earlier one first where keys are equal."""

    def __init__(self, size: int) -> None:
        self._size = size
        self._heap: list[tuple[float, int, Shown]] = []

    @property
    def floor(self) -> float:
        """Only larger keys have a place here."""
        return self._heap[0][0] if len(self._heap) == self._size else -inf

    def add(self, key: float, shown: Shown) -> None:
        if len(self._heap) < self._size:
            heapq.heappush(self._heap, (key, -shown.ordinal, shown))
        elif key > self.floor:
            heapq.heapreplace(self._heap, (key, -shown.ordinal, shown))

    def rows(self) -> list[Shown]:
        return [row for _, _, row in sorted(self._heap, reverse=True)]


# Why a contig is drawn: the column that it is high in.
_REASONS = {
    "Longest viral regions": "region_nt",
    "Most chunks called virus": "virus_chunks",
    "Highest p_virus": "p_virus",
    "Longest": "length_nt",
}


def _group(row: ContigRow) -> int:
    """How many chunks of a contig make a point, so that the points are not too many."""
    return max(-(-row.chunks // POINTS_A_TRACK), 1)


def _read_contigs(run: Run, most_rows: int, most_points: int) -> list[tuple[str, Shown]]:
    """Counts contigs.tsv, and chooses what is shown; returns what is drawn, with the reason."""
    table = _Top(most_rows)
    tops = {reason: _Top(MOST_TRACKS) for reason in _REASONS}
    ordinal = viral = 0
    regions = _Regions(run.files.regions)
    for block in blocks(run.files.contigs, _CONTIG_COLUMNS):
        _count(run, block)
        virus = block["call"] == Call.VIRUS
        of_block = regions.of(block)
        copies = virus.astype(np.int64)  # what viral.fasta holds of each
        region_nt = np.zeros(len(virus), np.int64)
        for i, rows in of_block.items():
            region_nt[i] = sum(row.end - row.start for row in rows)
            if not virus[i]:
                copies[i] = len(rows)
        first = viral + np.cumsum(copies) - copies
        for i in np.flatnonzero(~virus & (copies > 0)).tolist():
            run.excerpts.update(range(first[i], first[i] + copies[i]))
        places = ordinal, np.where(virus, first, -1), of_block
        _choose(table, np.nan_to_num(block["p_virus"], nan=-1.0), block, *places)
        columns = {**block, "region_nt": region_nt}
        for reason, column in _REASONS.items():
            fit = (block["chunks"] > 1) & (columns[column] > 0)
            _choose(tops[reason], np.where(fit, columns[column], -inf), block, *places)
        ordinal += len(virus)
        viral += int(copies.sum())
    if regions.left:
        run.notes.append(
            f"{run.files.regions.name} tells of records that {run.files.contigs.name} does not hold"
        )
    run.shown = sorted(table.rows(), key=lambda shown: shown.ordinal)
    drawn: dict[int, tuple[str, Shown]] = {}
    for reason, top in tops.items():
        room = most_points // len(tops)
        for shown in top.rows():
            room -= min(shown.row.chunks, POINTS_A_TRACK) + TRACK_POINTS
            if room >= 0:
                drawn.setdefault(shown.ordinal, (reason, shown))
    return list(drawn.values())


def _choose(
    top: _Top,
    keys: NDArray[np.float64],
    block: Columns,
    ordinal: int,
    viral: NDArray[np.int64],
    regions: Mapping[int, tuple[RegionRow, ...]],
) -> None:
    """Adds the rows of a block that have a place; ordinal is that of its first row."""
    for i in np.flatnonzero(keys > top.floor).tolist():
        row, of_row = _contig_row(block, i), regions.get(i, ())
        top.add(float(keys[i]), Shown(row, ordinal + i, int(viral[i]), of_row))


def _contig_row(block: Columns, i: int) -> ContigRow:
    return ContigRow(
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
    )


def _count(run: Run, block: Columns) -> None:
    samples, failed = block["sample"], block["status"] == Status.FAILED
    start = 0
    for sample, rows in groupby(samples):
        part = slice(start, start := start + sum(1 for _ in rows))
        counter = run.records.setdefault(sample, Counter())
        counter["records"] += part.stop - part.start
        counter["failed"] += int(failed[part].sum())
        for call in Call:
            of_call = (block["call"][part] == call) & ~failed[part]
            counter[call.name.lower()] += int(of_call.sum())
        counter["bases"] += int(block["length_nt"][part].sum())
        counter["chunks"] += int(block["chunks"][part].sum())
        counter["virus_chunks"] += int(block["virus_chunks"][part].sum())
        counter["of several chunks"] += int((block["chunks"][part] > 1).sum())
    run.record_scores.add(block)
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
    for block in blocks(run.files.calls, _CHUNK_COLUMNS):
        for call in Call:
            run.chunks[call.name.lower()] += int((block["call"] == call).sum())
        for status in Status:
            of_status = int((block["status"] == status).sum())
            run.chunks[f"status {status.name.lower()}"] += of_status
        lengths, numbers = np.unique(block["end"] - block["start"], return_counts=True)
        run.lengths_nt.update(dict(zip(lengths.tolist(), numbers.tolist(), strict=True)))
        run.chunk_scores.add(block)
        for i in np.flatnonzero(np.isin(block["record"], records)).tolist():
            track = tracks.get((block["sample"][i], int(block["record"][i])))
            if track is not None:
                track.add(block, i)
