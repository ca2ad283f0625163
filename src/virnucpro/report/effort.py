"""The effort of a run: time and memory."""

from collections.abc import Iterator
from typing import Any, NamedTuple

from virnucpro.progress import several
from virnucpro.report.quantities import duration, size
from virnucpro.report.runs import Run


class Effort(NamedTuple):
    """Seconds of each part of a run and of all, and facts besides; whole_s: the parts' sum."""

    parts: dict[str, float]
    whole_s: float
    total_s: float
    facts: list[str]


def effort_of(run: Run) -> Effort | None:
    """Return the effort of a run; None where run.json tells no time."""
    timings = dict(run.document.get("timings") or {})
    total = timings.pop("total_s", None)
    if total is None:
        return None
    scoring = timings.pop("scoring_s", 0.0)
    parts = {
        "start-up, until the bundle is loaded": timings.pop("startup_s", 0.0),
        "reading, cutting and keeping chunks": max(timings.pop("blocks_s", 0.0) - scoring, 0.0),
        "scoring": scoring,
        "tables": timings.pop("tables_s", 0.0),
    }
    busy = parts["reading, cutting and keeping chunks"] + scoring
    parts["other"] = max(total - sum(parts.values()), 0.0)
    facts = [*_speed(run, busy), *_memory(run.document.get("memory") or {})]
    if timings:
        also = (f"{_words(name, '_s')} {duration(s)}" for name, s in timings.items())
        facts.append(f"of these times: {', '.join(also)}")
    return Effort(parts, sum(parts.values()) or 1, total, facts)


def _speed(run: Run, busy_s: float) -> Iterator[str]:
    """The speed of a run that was not interrupted; else its time cannot be accounted for."""
    chunks = run.lengths_nt.total()
    if reused := (run.document.get("blocks") or {}).get("reused", 0):
        yield f"{several(reused, 'block')} had been scored by an earlier process"
    elif busy_s > 0 and chunks:
        bases = size(run.counts["bases"] / busy_s, "b")
        yield f"{chunks / busy_s:,.0f} chunks and {bases} a second once started"


def _memory(memory: dict[str, Any], before: str = "") -> Iterator[str]:
    """Every number of bytes in run.json's memory, with what it is of."""
    for name, value in memory.items():
        if isinstance(value, dict):
            yield from _memory(value, f"{before}{_words(name, '_bytes')}, ")
        elif name.endswith("_bytes") and isinstance(value, int | float):
            peak = name == "peak_bytes" and not before
            what = "of memory at the peak" if peak else f"{before}{_words(name, '_bytes')}"
            yield f"{size(value, 'B')} {what}"


def _words(name: str, unit: str) -> str:
    return name.removesuffix(unit).replace("_", " ")
