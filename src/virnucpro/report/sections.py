"""The results of calling: records and chunks by their calls, regions, pairs, and samples."""

from collections.abc import Iterator, Mapping
from typing import Any

from virnucpro.report.html import Html, joined
from virnucpro.report.html import element as h
from virnucpro.report.pieces import Parts, bar, columns, more_of, row, section, swatch, table
from virnucpro.report.quantities import several, share_of, size
from virnucpro.report.runs import Run
from virnucpro.report.words import NOT_CALLED

MOST_SAMPLES = 200
_CALLS = {"virus": "virus", "others": "others", "none": "not called", "failed": "failed"}


def overview(run: Run) -> Html:
    """The section."""
    groups = []
    if run.files.contigs.exists():
        groups.append(("records", record_parts(run), run.counts["records"]))
    if run.files.calls.exists():
        groups.append(("chunks", _chunk_parts(run), run.lengths_nt.total()))
    title, counts = "What was called", run.counts
    if not groups:
        return section(title, lead="The tables are missing, so there is nothing to count.")
    lengths = None
    if counts["bases"]:
        spread = f"{run.shortest_nt:,} to " if run.shortest_nt != run.longest_nt else ""
        lengths = f"{size(counts['bases'], 'b')} in all, {spread}{run.longest_nt:,} nt a record"
    return section(
        title,
        h("div", *[_counted(*group) for group in groups], class_="columns"),
        *_beside(run.document.get("counts") or {}),
        _samples(run),
        lead=lengths,
    )


def record_parts(run: Run) -> Parts:
    """Records by their calls, those that failed apart."""
    counts = run.counts
    return [(kind, name, counts[kind]) for kind, name in _CALLS.items()]


def _chunk_parts(run: Run) -> Parts:
    chunks = run.chunks
    parts = [("virus", "virus", chunks["virus"]), ("others", "others", chunks["others"])]
    for status, reason in NOT_CALLED.items():
        kind, name = "none", f"not called: {reason}"
        if status == "failed":
            kind, name = "failed", "failed"
        if number := chunks[f"status {status}"]:
            parts.append((kind, name, number))
    return parts


def _beside(counts: Mapping[str, Any]) -> Iterator[Html]:
    """Yield paragraphs on what else was called: regions and pairs."""
    if regions := counts.get("regions"):
        records = several(counts["region_records"], "record")
        words = f"{several(regions, 'viral region')} on {records}"
        yield h("p", h("b", words), ", also where the record as a whole is called others.")
    if pairs := counts.get("pairs"):
        virus = f"{counts['virus_pairs']:,}"
        yield h("p", h("b", virus), f" of {several(pairs, 'pair')} called virus.")


def _counted(things: str, parts: Parts, whole: int) -> Html:
    """A bar, and its parts as rows of a sum."""
    rows = [
        row(joined(swatch(kind), name), h("td", f"{number:,}"), h("td", share_of(number, whole)))
        for kind, name, number in parts
    ]
    total = row(f"all {things}", h("td", f"{whole:,}"), h("td"))
    number, said = h("b", f"{parts[0][2]:,}"), f" of {several(whole, things[:-1])} called virus"
    return h(
        "div",
        h("p", number, said, class_="headline"),
        bar(parts, whole),
        h("table", h("tbody", *rows), h("tfoot", total), class_="sum"),
    )


def _samples(run: Run) -> Html | None:
    if len(run.records) < 2:
        return None
    head = columns("sample", "records", *_CALLS.values(), "bases")
    shown = list(run.records.items())[:MOST_SAMPLES]
    rows = [
        row(sample, *[h("td", f"{counts[name]:,}") for name in ("records", *_CALLS, "bases")])
        for sample, counts in shown
    ]
    more = more_of(len(run.records) - len(shown), "more sample", "contigs.tsv")
    return joined(table(head, rows, "plain"), more)
