"""The data that the script draws, as JSON of bounded size."""

from collections.abc import Callable, Sequence
from itertools import accumulate
from math import isnan
from typing import Any, NamedTuple

from jinja2.utils import htmlsafe_json_dumps

from virnucpro.calls import CALL_NAMES, FRAME_NAMES, STATUS_NAMES
from virnucpro.report.names import short, whole
from virnucpro.report.pairs import AGREEMENTS, ShownPair
from virnucpro.report.runs import BINS, Histogram, Run
from virnucpro.report.shown import Row, Shown
from virnucpro.report.tracks import Track
from virnucpro.report.words import typical_nt

MOST_TABLE_BYTES = 2_000_000
MOST_PAIRS_BYTES = 1_200_000
MOST_TRACK_NAMES_BYTES = 200_000  # with these, the fullest page is still below 5 MB


class _RecordRow(NamedTuple):
    """A row of the table of records; the script finds its fields by these names."""

    sample: int
    record: int
    name: str
    length_nt: int
    chunks: int
    virus_chunks: int
    p_virus: float | None
    max_p_virus: float | None
    call: int
    status: int
    low: int | None
    track: int | None
    probability: float | None
    q_value: float | None
    origin: str
    note: str


class _PairRow(NamedTuple):
    """A row of the table of pairs."""

    sample: int
    name: str
    record_1: int | None
    record_2: int | None
    p_virus: float | None
    p_virus_1: float | None
    p_virus_2: float | None
    call_1: int
    call_2: int
    agreement: int
    origin: str
    note: str


def data_of(runs: Sequence[Run]) -> dict[str, Any]:
    """All that the script gets."""
    return {
        "bins": BINS,
        "frames": FRAME_NAMES,
        "calls": CALL_NAMES,
        "statuses": [name.replace("_", " ") for name in STATUS_NAMES],
        "mates": AGREEMENTS,
        "columns": {"rows": _RecordRow._fields, "pairs": _PairRow._fields},
        "runs": [_run(run, len(runs)) for run in runs],
    }


def _run(run: Run, share: int) -> dict[str, Any]:
    samples = list(run.records)
    sample = {name: i for i, name in enumerate(samples)}
    where = {track.shown.ordinal: i for i, track in enumerate(run.tracks)}
    rows = [
        _RecordRow(
            sample=sample[s.row.sample],
            record=s.row.record,
            name=whole(s.row.name),
            length_nt=s.row.length_nt,
            chunks=s.row.chunks,
            virus_chunks=s.row.virus_chunks,
            p_virus=_number(s.row.p_virus),
            max_p_virus=_number(s.row.max_p_virus),
            call=s.row.call,
            status=s.row.status,
            low=_hundredths(run.low_shares.get(s.viral)),
            track=where.get(s.ordinal),
            probability=_number(s.row.probability),
            q_value=_number(s.row.q_value),
            origin=s.row.origin,
            note=s.row.note,
        )
        for s in _fitting(run.shown, _of_record, MOST_TABLE_BYTES // share)
    ]
    pairs = [
        _PairRow(
            sample=sample[p.sample],
            name=whole(p.template),
            record_1=p.record_1 or None,
            record_2=p.record_2 or None,
            p_virus=_number(p.p_virus),
            p_virus_1=_number(p.p_virus_1),
            p_virus_2=_number(p.p_virus_2),
            call_1=p.call_1,
            call_2=p.call_2,
            agreement=p.agreement,
            origin=p.origin,
            note=p.note,
        )
        for p in _fitting(run.pairs.shown, _of_pair, MOST_PAIRS_BYTES // share)
    ]
    of_names = sum(_bytes_of(track.shown.row.name) for track in run.tracks)
    name_of = whole if of_names <= MOST_TRACK_NAMES_BYTES // share else short
    return {
        "threshold": run.threshold if run.fdr is None else None,
        "chunk_threshold": run.chunk_threshold,
        "typical": typical_nt(run),
        "chunk": run.bundle.get("chunk_nt"),
        "validated": run.bundle.get("validated_nt"),
        "samples": [short(name) for name in samples],
        "records": run.counts["records"],
        "scores": {"chunks": _scores(run.chunk_scores), "records": _scores(run.record_scores)},
        "rows": rows,
        "pairs": pairs,
        "virus_pairs": run.pairs.calls["virus"],
        "tracks": [_track(track, name_of) for track in run.tracks],
    }


def _scores(scores: Histogram) -> dict[str, list[int]]:
    return {"virus": scores.virus, "others": scores.others}


class _Place(NamedTuple):
    """What decides whether a row has a place: its score, its ordinal, and its bytes, about."""

    p_virus: float
    ordinal: int
    size: int


def _of_record(shown: Shown) -> _Place:
    row = shown.row
    size = _bytes_of(row.name) + len(row.origin) + len(row.note) + 96
    return _Place(row.p_virus, shown.ordinal, size)


def _of_pair(pair: ShownPair) -> _Place:
    size = _bytes_of(pair.template) + len(pair.origin) + len(pair.note) + 80
    return _Place(pair.p_virus, pair.ordinal, size)


def _bytes_of(name: str) -> int:
    """Return how many bytes a name takes where the page holds it, markup escaped."""
    return len(htmlsafe_json_dumps(whole(name)))


def _fitting(shown: Sequence[Row], place_of: Callable[[Row], _Place], most_bytes: int) -> list[Row]:
    """Return as many rows as the page has room for, those of the highest p_virus first."""
    placed = [(place_of(row), row) for row in shown]
    placed.sort(key=lambda p: (-p[0].p_virus if p[0].p_virus >= 0 else 1.0, p[0].ordinal))
    sizes = accumulate(place.size for place, _ in placed)
    kept = [both for both, size in zip(placed, sizes, strict=True) if size <= most_bytes]
    return [row for _, row in sorted(kept, key=lambda p: p[0].ordinal)]


def _hundredths(share: float | None) -> int | None:
    return None if share is None else round(100 * share)


def _number(value: float) -> float | None:
    return None if isnan(value) else value


def _decimals(values: Sequence[float]) -> list[float | None]:
    return [_number(round(value, 3)) for value in values]


def _track(track: Track, name_of: Callable[[str], str]) -> dict[str, Any]:
    row, seen = track.shown.row, track.complexity
    low = None
    if seen is not None:
        spans = zip(track.start, track.end, strict=True)
        low = [_hundredths(seen.low_share(start, end)) for start, end in spans]
    single = track.group == 1
    return {
        "name": name_of(row.name),
        "record": row.record,
        "sample": short(row.sample),
        "length": row.length_nt,
        "chunks": row.chunks,
        "virus": row.virus_chunks,
        "p": _number(row.p_virus),
        "call": row.call,
        "group": track.group,
        "start": track.start,
        "end": track.end,
        "score": _decimals(track.p),
        "high": None if single else _decimals(track.high),
        "viral": track.virus,
        "called": None if single else track.called,
        "count": None if single else track.chunks,
        "status": track.status,
        "frames": track.frames if single and len({*track.frames} - {0}) > 1 else None,
        "low": low,
        "regions": [[r.start, r.end, r.virus_chunks, r.called] for r in track.shown.regions],
    }
