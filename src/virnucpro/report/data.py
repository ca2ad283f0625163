"""The data that the script draws, as JSON of bounded size."""

import json
from collections.abc import Sequence
from math import isnan
from typing import Any

from virnucpro.calls import CALL_NAMES, FRAME_NAMES, STATUS_NAMES
from virnucpro.report.names import short
from virnucpro.report.runs import BINS, Histogram, Run
from virnucpro.report.shown import Shown
from virnucpro.report.tracks import Track
from virnucpro.report.words import typical_nt

MOST_TABLE_BYTES = 2_000_000


def data_of(runs: Sequence[Run]) -> dict[str, Any]:
    """All that the script gets."""
    return {
        "bins": BINS,
        "frames": FRAME_NAMES,
        "calls": CALL_NAMES,
        "statuses": [name.replace("_", " ") for name in STATUS_NAMES],
        "runs": [_run(run, MOST_TABLE_BYTES // len(runs)) for run in runs],
    }


def _run(run: Run, most_bytes: int) -> dict[str, Any]:
    samples = list(run.records)
    sample = {name: i for i, name in enumerate(samples)}
    where = {track.shown.ordinal: i for i, track in enumerate(run.tracks)}
    rows = [
        [
            sample[s.row.sample],
            s.row.record,
            short(s.row.name),
            s.row.length_nt,
            s.row.chunks,
            s.row.virus_chunks,
            _number(s.row.p_virus),
            _number(s.row.max_p_virus),
            s.row.call,
            s.row.status,
            _hundredths(run.low_shares.get(s.viral)),
            where.get(s.ordinal),
            _number(s.row.probability),
            _number(s.row.q_value),
            s.row.origin,
            s.row.note,
        ]
        for s in _fitting(run.shown, most_bytes)
    ]
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
        "tracks": [_track(track) for track in run.tracks],
    }


def _scores(scores: Histogram) -> dict[str, list[int]]:
    return {"virus": scores.virus, "others": scores.others}


def _fitting(shown: Sequence[Shown], most_bytes: int) -> list[Shown]:
    """Return as many records as the page has room for, those of the highest p_virus first."""
    kept, size = [], 0
    for s in sorted(
        shown, key=lambda s: (-s.row.p_virus if s.row.p_virus >= 0 else 1.0, s.ordinal)
    ):
        size += len(json.dumps(short(s.row.name))) + len(s.row.origin) + len(s.row.note) + 96
        if size > most_bytes:
            break
        kept.append(s)
    return sorted(kept, key=lambda s: s.ordinal)


def _hundredths(share: float | None) -> int | None:
    return None if share is None else round(100 * share)


def _number(value: float) -> float | None:
    return None if isnan(value) else value


def _decimals(values: Sequence[float]) -> list[float | None]:
    return [_number(round(value, 3)) for value in values]


def _track(track: Track) -> dict[str, Any]:
    row, seen = track.shown.row, track.complexity
    low = None
    if seen is not None:
        spans = zip(track.start, track.end, strict=True)
        low = [_hundredths(seen.low_share(start, end)) for start, end in spans]
    single = track.group == 1
    return {
        "name": short(row.name),
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
