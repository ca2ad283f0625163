"""The files of a finished run -> what a page can show of it, in bounded memory.

Tables are streamed: contigs.tsv once, viral.fasta once, calls.tsv once. What is kept does not grow
with the input, but for one line of counts a sample. This module knows no HTML.
"""

import heapq
import json
from collections import Counter
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Generic, NamedTuple, TypeVar

from virnucpro.calls import FRAME_NAMES
from virnucpro.errors import InputError
from virnucpro.journal import RunFiles
from virnucpro.report.complexity import Complexity, complexities

BINS = 50
MOST_TRACKS = 40  # of each of the reasons to draw a contig
MOST_ROWS = 10_000
MOST_POINTS = 40_000
POINTS_A_TRACK = 1_000
# Longer records of viral.fasta are not looked at for low complexity.
LONGEST_NT = 4_000_000
LOW_SHARE = 0.5
_AT_ONCE_NT = 1_000_000

Row = TypeVar("Row")


class ContigRow(NamedTuple):
    """A row of contigs.tsv."""

    sample: str
    record: int
    contig: str
    length_nt: int
    chunks: int
    called: int
    virus_chunks: int
    p_virus: float | None
    max_p_virus: float | None
    call: str
    status: str


class ChunkRow(NamedTuple):
    """A row of calls.tsv, of the columns that are shown."""

    sample: str
    record: int
    chunk: int
    start: int
    end: int
    frames: str
    p_virus: float | None
    call: str
    status: str


@dataclass(frozen=True, slots=True)
class Shown:
    """A record of the page: its row, and its ordinals in contigs.tsv and viral.fasta."""

    row: ContigRow
    ordinal: int
    viral: int | None


@dataclass(slots=True)
class Track:
    """The chunks along one contig, `group` of them at a point.

    p and high: mean and largest p_virus of the called ones; frames: bits, and status, of the first
    chunk of a point. complexity: None where it was not looked at.
    """

    shown: Shown
    reason: str
    group: int
    complexity: Complexity | None
    start: list[int] = field(default_factory=list)
    end: list[int] = field(default_factory=list)
    p: list[float | None] = field(default_factory=list)
    high: list[float | None] = field(default_factory=list)
    called: list[int] = field(default_factory=list)
    virus: list[int] = field(default_factory=list)
    chunks: list[int] = field(default_factory=list)
    frames: list[int] = field(default_factory=list)
    status: list[str] = field(default_factory=list)

    def add(self, row: ChunkRow) -> None:
        """The next chunk of the contig."""
        if not self.chunks or self.chunks[-1] == self.group:
            self._begin(row)
        self.end[-1] = max(self.end[-1], row.end)
        self.chunks[-1] += 1
        if row.p_virus is not None:
            before = self.p[-1] or 0.0
            self.called[-1] += 1
            self.p[-1] = before + (row.p_virus - before) / self.called[-1]
            self.high[-1] = max(self.high[-1] or 0.0, row.p_virus)
        self.virus[-1] += row.call == "virus"

    def _begin(self, row: ChunkRow) -> None:
        for column, value in (
            (self.start, row.start),
            (self.end, row.end),
            (self.called, 0),
            (self.virus, 0),
            (self.chunks, 0),
            (self.frames, _bits(row.frames)),
        ):
            column.append(value)
        self.p.append(None)
        self.high.append(None)
        self.status.append(row.status)


@dataclass(slots=True)
class Scores:
    """How p_virus is spread: counts of BINS equal parts of 0 to 1, by call."""

    virus: list[int] = field(default_factory=lambda: [0] * BINS)
    others: list[int] = field(default_factory=lambda: [0] * BINS)

    def add(self, p_virus: float | None, call: str) -> None:
        """One record or chunk; one without a call is in no part."""
        if p_virus is not None:
            part = self.virus if call == "virus" else self.others
            part[min(int(p_virus * BINS), BINS - 1)] += 1


@dataclass(slots=True)
class Run:
    """What a run directory holds, for one prefix.

    document: run.json, empty if it is missing; missing: names of files that are not there.
    records: counts by sample; chunks: counts by call and by `status ...`; lengths_nt: chunks of
    each length. low_shares: share of low complexity of the shown records of viral.fasta, by their
    ordinal there; low: how many of all low_seen looked at are mostly of low complexity.
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
    """The runs whose files lie in a folder, by prefix. Raises InputError if there is none."""
    if not folder.is_dir():
        raise InputError("there is no such folder; name the run directory of predict", folder)
    names = [p.name for p in RunFiles(Path()).public if p.name in ("run.json", "contigs.tsv")]
    found = {
        path.name.removesuffix(name).removesuffix(".")
        for name in names
        for path in folder.iterdir()
        if path.name == name or path.name.endswith(f".{name}")
    }
    if not found:
        raise InputError(
            f"this folder holds no run: there is neither {' nor '.join(names)} in it; name the "
            "run directory of predict",
            folder,
        )
    return [RunFiles(folder, prefix) for prefix in sorted(found)]


def read_run(files: RunFiles, share: int = 1) -> Run:
    """Reads the files of a run; those that are missing are named in it.

    share: how many runs the page has room for. Raises InputError for a damaged file.
    """
    run = Run(files, _document(files))
    optional = {files.failed.name, files.report.name, files.multiqc.name}
    run.missing = [p.name for p in files.public if p.name not in optional and not p.exists()]
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


def _rows(
    path: Path, kind: Callable[..., Row], read: Mapping[str, Callable[[str], Any]]
) -> Iterator[Row]:
    """The rows of a table, of the columns that read names. Raises InputError."""
    with path.open(encoding="utf-8", errors="replace", newline="\n") as file:
        header = file.readline().rstrip("\n").split("\t")
        if missing := read.keys() - set(header):
            raise InputError(f"lacks the column {min(missing)}; run predict again", path, 1)
        columns = [(header.index(name), convert) for name, convert in read.items()]
        for number, line in enumerate(file, 2):
            cells = line.rstrip("\n").split("\t")
            try:
                yield kind(*[convert(cells[i]) for i, convert in columns])
            except (IndexError, ValueError) as error:
                raise InputError("this row is damaged; run predict again", path, number) from error


def _score(cell: str) -> float | None:
    return float(cell) if cell else None


def _bits(frames: str) -> int:
    return sum(1 << FRAME_NAMES.index(name) for name in frames.split(",")) if frames else 0


_CONTIG_COLUMNS: dict[str, Callable[[str], Any]] = {
    **dict.fromkeys(ContigRow._fields, str),
    **dict.fromkeys(("record", "length_nt", "chunks", "called", "virus_chunks"), int),
    **dict.fromkeys(("p_virus", "max_p_virus"), _score),
}
_CHUNK_COLUMNS: dict[str, Callable[[str], Any]] = {
    **dict.fromkeys(ChunkRow._fields, str),
    **dict.fromkeys(("record", "chunk", "start", "end"), int),
    "p_virus": _score,
}


class _Top(Generic[Row]):
    """The rows of the largest keys, the earlier one first where keys are equal."""

    def __init__(self, size: int) -> None:
        self._size = size
        self._heap: list[tuple[float, int, Row]] = []

    def add(self, key: float, ordinal: int, row: Row) -> None:
        if len(self._heap) < self._size:
            heapq.heappush(self._heap, (key, -ordinal, row))
        elif key > self._heap[0][0]:
            heapq.heapreplace(self._heap, (key, -ordinal, row))

    def rows(self) -> list[Row]:
        return [row for _, _, row in sorted(self._heap, reverse=True)]


# Why a contig is drawn, and what it is ranked by; 0 is not drawn for that reason.
_REASONS: dict[str, Callable[[ContigRow], float]] = {
    "Most chunks called virus": lambda row: row.virus_chunks,
    "Highest p_virus": lambda row: row.p_virus or 0.0,
    "Longest": lambda row: row.length_nt,
}


def _group(row: ContigRow) -> int:
    """How many chunks of a contig make a point, so that the points are not too many."""
    return max(-(-row.chunks // POINTS_A_TRACK), 1)


def _read_contigs(run: Run, most_rows: int, most_points: int) -> list[tuple[str, Shown]]:
    """Counts contigs.tsv, and chooses what is shown; returns what is drawn, with the reason."""
    table = _Top[Shown](most_rows)
    tops = {reason: _Top[Shown](MOST_TRACKS) for reason in _REASONS}
    viral = 0
    for ordinal, row in enumerate(_rows(run.files.contigs, ContigRow, _CONTIG_COLUMNS)):
        _count(run, row)
        shown = Shown(row, ordinal, viral if row.call == "virus" else None)
        viral += row.call == "virus"
        table.add(-1.0 if row.p_virus is None else row.p_virus, ordinal, shown)
        if row.chunks > 1:
            for reason, key in _REASONS.items():
                if (value := key(row)) > 0:
                    tops[reason].add(value, ordinal, shown)
    run.shown = sorted(table.rows(), key=lambda shown: shown.ordinal)
    drawn: dict[int, tuple[str, Shown]] = {}
    for reason, top in tops.items():
        room = most_points // len(tops)
        for shown in top.rows():
            room -= min(shown.row.chunks, POINTS_A_TRACK)
            if room >= 0:
                drawn.setdefault(shown.ordinal, (reason, shown))
    return list(drawn.values())


def _count(run: Run, row: ContigRow) -> None:
    counter = run.records.get(row.sample)
    if counter is None:
        counter = run.records[row.sample] = Counter()
    call = "failed" if row.status == "failed" else row.call
    counter["records"] += 1
    counter[call] += 1
    counter["bases"] += row.length_nt
    counter["chunks"] += row.chunks
    counter["virus_chunks"] += row.virus_chunks
    counter["of several chunks"] += row.chunks > 1
    run.record_scores.add(row.p_virus, row.call)
    run.longest_nt = max(run.longest_nt, row.length_nt)
    if row.length_nt:
        run.shortest_nt = min(row.length_nt, run.shortest_nt or row.length_nt)


def _read_viral(run: Run, drawn: set[int | None]) -> dict[int | None, Complexity]:
    """Looks for low complexity in viral.fasta; returns that of the drawn records.

    Its records are those called virus, whole and in the order of contigs.tsv. Where the two do not
    fit, a note says so, and nothing is told of complexity.
    """
    wanted = {shown.viral: shown.row.length_nt for shown in run.shown}
    found: dict[int | None, Complexity] = {}
    number, fits = 0, True
    for sequences in _batches(_fasta(run.files.viral_fasta)):
        looked_at = complexities([sequence[:LONGEST_NT] for sequence in sequences])
        for sequence, complexity in zip(sequences, looked_at, strict=True):
            share = complexity.low_share()
            run.low += share >= LOW_SHARE
            if number in wanted:
                fits &= wanted[number] == len(sequence)
                run.low_shares[number] = share
            if number in drawn:
                found[number] = complexity
            number += 1
    run.low_seen = number
    if not fits or number != run.counts["virus"]:
        run.low, run.low_seen, run.low_shares, found = 0, 0, {}, {}
        if run.files.contigs.exists() and run.files.viral_fasta.exists():
            run.notes.append(
                f"{run.files.viral_fasta.name} does not hold the records that "
                f"{run.files.contigs.name} calls virus, so low complexity was not looked for"
            )
    return found


def _fasta(path: Path) -> Iterator[bytes]:
    """Sequences of a file of ours."""
    if not path.exists():
        return
    lines: list[bytes] | None = None
    with path.open("rb") as file:
        for line in file:
            if line.startswith(b">"):
                if lines is not None:
                    yield b"".join(lines)
                lines = []
            elif lines is not None:
                lines.append(line.rstrip())
    if lines is not None:
        yield b"".join(lines)


def _batches(sequences: Iterator[bytes]) -> Iterator[list[bytes]]:
    batch, size = list[bytes](), 0
    for sequence in sequences:
        batch.append(sequence)
        size += len(sequence)
        if size >= _AT_ONCE_NT:
            yield batch
            batch, size = [], 0
    if batch:
        yield batch


def _read_calls(run: Run) -> None:
    """Counts calls.tsv, and gathers the chunks of what is drawn."""
    tracks = {(t.shown.row.sample, t.shown.row.record): t for t in run.tracks}
    for row in _rows(run.files.calls, ChunkRow, _CHUNK_COLUMNS):
        run.chunks[row.call] += 1
        run.chunks[f"status {row.status}"] += 1
        run.lengths_nt[row.end - row.start] += 1
        run.chunk_scores.add(row.p_virus, row.call)
        track = tracks.get((row.sample, row.record))
        if track is not None:
            track.add(row)
