"""report.html: one file that opens anywhere and asks nothing of anyone.

What must be readable without a script is written here; the script draws what moves. A content
security policy keeps the page from loading or sending anything, and any script but ours from
running.
"""

from collections.abc import Iterator, Mapping, Sequence
from datetime import datetime
from importlib import resources
from math import isnan
from typing import Any

from virnucpro import __version__
from virnucpro.calls import FRAME_NAMES, Call, Status
from virnucpro.citation import bibtex
from virnucpro.report.card import PREVALENCES, Accuracy, Rates
from virnucpro.report.html import (
    Html,
    as_json,
    data_block,
    element,
    joined,
    script,
    script_hash,
    visible,
)
from virnucpro.report.runs import BINS, Run, Shown, Track
from virnucpro.report.words import (
    NOT_CALLED,
    methods,
    model,
    notes,
    percent,
    rates_of,
    references,
    rounded_percent,
    several,
    typical_nt,
)

GENERATOR = "virnucpro report"
SCRIPTS = ("vendor/d3.min.js", "vendor/plot.umd.min.js", "page.js")
LONGEST_NAME = 100
MOST_TABLE_BYTES = 2_000_000
MOST_SAMPLES = 200
_NOTHING = "\N{EN DASH}"
_CALLS = [call.name.lower() for call in Call]
_STATUSES = [status.name.lower() for status in Status]
_UNITS = ((1e9, "G"), (1e6, "M"), (1e3, "k"))

h = element


def page_of(runs: Sequence[Run], *, paths: bool = True) -> bytes:
    """The page of one run, or of several side by side. paths: whether any is told."""
    assets = resources.files("virnucpro.report")
    scripts = [assets.joinpath(name).read_text("utf-8") for name in SCRIPTS]
    title = runs[0].name if len(runs) == 1 else several(len(runs), "run")
    data = {
        "bins": BINS,
        "frames": FRAME_NAMES,
        "calls": _CALLS,
        "statuses": [status.replace("_", " ") for status in _STATUSES],
        "runs": [_data(run, MOST_TABLE_BYTES // len(runs)) for run in runs],
    }
    policy = "default-src 'none'; style-src 'unsafe-inline'; script-src " + " ".join(
        map(script_hash, scripts)
    )
    head = h(
        "head",
        h("meta", charset="utf-8"),
        h("meta", http_equiv="Content-Security-Policy", content=policy),
        h("meta", name="generator", content=f"{GENERATOR} {__version__}"),
        h("meta", name="viewport", content="width=device-width, initial-scale=1"),
        h("meta", name="color-scheme", content="light dark"),
        h("title", f"{title} · VirNucPro report"),
        Html(f"<style>{assets.joinpath('page.css').read_text('utf-8')}</style>"),
    )
    body = h(
        "body",
        _comparison(runs) if len(runs) > 1 else None,
        *[_run(run, i, len(runs), paths) for i, run in enumerate(runs)],
        h("footer", f"Made by virnucpro {__version__}. This file holds everything it shows."),
        data_block("data", data),
        Html(f"<!--\n{assets.joinpath('vendor/LICENSES.txt').read_text('utf-8')}-->"),
        *map(script, scripts),
    )
    return joined(Html("<!DOCTYPE html>"), h("html", head, body, lang="en")).encode()


# Numbers


def _share(part: int, whole: int) -> str:
    return percent(part / whole) if whole else _NOTHING


def _bases(number: float) -> str:
    for size, unit in _UNITS:
        if number >= size:
            return f"{number / size:.3g} {unit}b"
    return f"{number:,.0f} b"


def _bytes(number: float) -> str:
    for size, unit in _UNITS:
        if number >= size:
            return f"{number / size:.3g} {unit}B"
    return f"{number:,.0f} B"


def _seconds(seconds: float) -> str:
    if seconds < 60:
        return f"{seconds:.2f} s" if seconds < 10 else f"{seconds:.1f} s"
    minutes, rest = divmod(round(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours} h {minutes} min" if hours else f"{minutes} min {rest} s"


def _instant(text: str) -> str:
    try:
        when = datetime.fromisoformat(text)
    except ValueError:
        return text
    return f"{when.day} {when:%B %Y, %H:%M} UTC"


# Several runs


def _comparison(runs: Sequence[Run]) -> Html:
    head = [
        h("th", name, scope="col", class_="n" if number else None)
        for name, number in (
            ("run", False),
            ("bundle", False),
            ("cut at", True),
            ("records", True),
            ("called virus", True),
            ("", False),
            ("scores of chunks", False),
            ("time", True),
        )
    ]
    rows = [_compared(run, i) for i, run in enumerate(runs)]
    bundles = {(run.document.get("bundle") or {}).get("sha256") for run in runs}
    thresholds = {run.threshold for run in runs}
    differ = [
        name
        for name, values in (("bundles", bundles), ("thresholds", thresholds))
        if len(values) > 1
    ]
    return h(
        "header",
        h("p", "VirNucPro report", class_="kicker"),
        h("h1", several(len(runs), "run"), " side by side"),
        h(
            "p",
            f"These runs have different {' and '.join(differ)}; their calls cannot be compared.",
            class_="care",
        )
        if differ
        else None,
        h(
            "div",
            h(
                "table",
                h("thead", h("tr", *head)),
                h("tbody", *rows),
                class_="compare",
            ),
            class_="scroll",
        ),
        _legend("virus", "others", none="not called", failed="failed"),
        h(
            "p",
            h("label", "Details of ", for_="choose-run"),
            h(
                "select",
                *[h("option", _label(run, i), value=i) for i, run in enumerate(runs)],
                id="choose-run",
            ),
            class_="choose screen",
        ),
    )


def _label(run: Run, number: int) -> str:
    return f"{number + 1}. {run.name}"


def _compared(run: Run, number: int) -> Html:
    counts = run.counts
    bundle = run.document.get("bundle") or {}
    total = (run.document.get("timings") or {}).get("total_s")
    return h(
        "tr",
        h("th", _label(run, number), scope="row"),
        h("td", bundle.get("name", "unknown")),
        h("td", _NOTHING if run.threshold is None else f"{run.threshold:g}", class_="n"),
        h("td", f"{counts['records']:,}", class_="n"),
        h("td", f"{counts['virus']:,} ({_share(counts['virus'], counts['records'])})", class_="n"),
        h("td", _bar(_record_parts(run), counts["records"]), class_="wide"),
        h("td", _spark(run)),
        h("td", _NOTHING if total is None else _seconds(total), class_="n"),
    )


def _spark(run: Run) -> Html | None:
    """A small histogram of the chunks' scores."""
    virus, others = run.chunk_scores.virus, run.chunk_scores.others
    most = max(a + b for a, b in zip(virus, others, strict=True))
    if not most:
        return None
    parts = [
        h(
            "rect",
            x=2 * i,
            width=1.6,
            y=f"{24 - 24 * above / most:.2f}",
            height=f"{24 * n / most:.2f}",
            class_=f"fill-{call}",
        )
        for i in range(BINS)
        for call, n, above in (
            ("others", others[i], others[i]),
            ("virus", virus[i], others[i] + virus[i]),
        )
        if n
    ]
    return h(
        "svg",
        *parts,
        viewBox="0 0 100 24",
        class_="spark",
        role="img",
        aria_label="Histogram of p_virus of the chunks, from 0 to 1",
    )


# One run


def _run(run: Run, number: int, runs: int, paths: bool) -> Html:
    parts = [
        _head(run, runs),
        _notes(run, paths),
        _overview(run),
        _precision(run),
        _scores(run),
        _tracks(run),
        _records(run),
        _effort(run),
        _details(run, paths),
        _methods(run, number),
    ]
    return h("main" if runs == 1 else "article", *parts, class_="run", data_run=number)


def _head(run: Run, runs: int) -> Html:
    document = run.document
    status = document.get("status", "unknown")
    bundle = document.get("bundle") or {}
    facts = [
        bundle and f"{bundle['name']}, {model(bundle)}",
        _instant(document["started"]) if "started" in document else None,
        f"virnucpro {document['versions']['virnucpro']}" if "versions" in document else None,
    ]
    return h(
        "header",
        h("p", "VirNucPro report", class_="kicker") if runs == 1 else None,
        h("h1" if runs == 1 else "h2", run.name, class_="name"),
        h(
            "p",
            h("span", status, class_=f"status {status}"),
            *[h("span", fact) for fact in facts if fact],
            class_="facts",
        ),
    )


def _section(title: str, *children: object, lead: object = None, class_: str = "") -> Html:
    return h(
        "section",
        h("h2", title),
        lead and h("p", lead, class_="lead"),
        *children,
        class_=class_ or None,
    )


def _notes(run: Run, paths: bool) -> Html | None:
    found = notes(run, paths=paths)
    if not found:
        return None
    return h(
        "section",
        h("h2", "Read this first"),
        h(
            "ul",
            *[
                h(
                    "li",
                    h("strong", note.title),
                    " ",
                    note.text,
                    class_="grave" if note.grave else None,
                )
                for note in found
            ],
            class_="notes",
        ),
    )


Parts = list[tuple[str, str, int]]


def _record_parts(run: Run) -> Parts:
    counts = run.counts
    names = {"virus": "virus", "others": "others", "none": "not called", "failed": "failed"}
    return [(kind, name, counts[kind]) for kind, name in names.items()]


def _chunk_parts(run: Run) -> Parts:
    chunks = run.chunks
    parts = [("virus", "virus", chunks["virus"]), ("others", "others", chunks["others"])]
    for status, reason in NOT_CALLED.items():
        kind = "failed" if status == "failed" else "none"
        name = "failed" if status == "failed" else f"not called: {reason}"
        if number := chunks[f"status {status}"]:
            parts.append((kind, name, number))
    return parts


def _bar(parts: Parts, whole: int) -> Html:
    said = ", ".join(f"{name} {number:,}" for _, name, number in parts if number)
    return h(
        "div",
        *[
            h("span", class_=f"fill-{kind}", style=f"flex-grow:{number}")
            for kind, _, number in parts
            if number
        ],
        class_="bar" if whole else "bar nothing",
        role="img",
        aria_label=said or "nothing",
    )


def _overview(run: Run) -> Html:
    groups = []
    if run.files.contigs.exists():
        groups.append(("records", _record_parts(run), run.counts["records"]))
    if run.files.calls.exists():
        groups.append(("chunks", _chunk_parts(run), run.lengths_nt.total()))
    counts = run.counts
    if not groups:
        return _section(
            "What was called", lead="The tables are missing, so there is nothing to count."
        )
    lengths = ""
    if counts["bases"]:
        spread = f"{run.shortest_nt:,} to " if run.shortest_nt != run.longest_nt else ""
        lengths = f"{_bases(counts['bases'])} in all, {spread}{run.longest_nt:,} nt a record"
    return _section(
        "What was called",
        h("div", *[_counted(*group) for group in groups], class_="columns"),
        *_beside(run.document.get("counts") or {}),
        _samples(run),
        lead=lengths or None,
    )


def _beside(counts: Mapping[str, Any]) -> Iterator[Html]:
    """What else was called: regions and pairs."""
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
        h(
            "tr",
            h("th", h("i", class_=f"swatch fill-{kind}"), name, scope="row"),
            h("td", f"{number:,}"),
            h("td", _share(number, whole)),
        )
        for kind, name, number in parts
    ]
    total = h("tr", h("th", f"all {things}", scope="row"), h("td", f"{whole:,}"), h("td"))
    return h(
        "div",
        h(
            "p",
            h("b", f"{parts[0][2]:,}"),
            f" of {several(whole, things[:-1])} called virus",
            class_="headline",
        ),
        _bar(parts, whole),
        h("table", h("tbody", *rows), h("tfoot", total), class_="sum"),
    )


def _samples(run: Run) -> Html | None:
    if len(run.records) < 2:
        return None
    names = ("records", "virus", "others", "none", "failed", "bases")
    head = ("sample", "records", "virus", "others", "not called", "failed", "bases")
    shown = list(run.records.items())[:MOST_SAMPLES]
    rows = [
        h("tr", h("th", sample, scope="row"), *[h("td", f"{counts[name]:,}") for name in names])
        for sample, counts in shown
    ]
    more = len(run.records) - len(shown)
    return joined(
        _table(head, rows, "plain"),
        h("p", f"{several(more, 'more sample')} in contigs.tsv.", class_="aside") if more else None,
    )


def _table(head: Sequence[str], rows: Sequence[Html], class_: str) -> Html:
    return h(
        "div",
        h(
            "table",
            h("thead", h("tr", *[h("th", name, scope="col") for name in head])),
            h("tbody", *rows),
            class_=class_,
        ),
        class_="scroll",
    )


# How far a call can be trusted


def _precision(run: Run) -> Html | None:
    bundle = run.document.get("bundle")
    if bundle is None:
        return None
    accuracy = Accuracy.of(bundle)
    title = "What a call is worth"
    if accuracy is None:
        return _section(
            title,
            lead="Nothing was measured of this bundle, so nobody knows how many of its calls are "
            "right. virnucpro evaluate measures it on sequences of known origin.",
        )
    rates = rates_of(run)
    if rates is None:
        lead: object = (
            f"This bundle was not measured at the threshold {run.threshold:g}; these are the "
            "thresholds that were."
        )
    else:
        lead = joined(
            f"On validation fragments of {rates.length_nt:,} nt this bundle finds ",
            h("b", rounded_percent(rates.recall)),
            " of the viral ones and calls ",
            h("b", rounded_percent(rates.false_positive_rate)),
            " of the others virus. How many of the calls are right depends on how much of the "
            "sample is viral:",
        )
    return _section(
        title,
        rates and h("div", *[_hundred(rates, share) for share in PREVALENCES], class_="hundreds"),
        h("div", *_measured(run, accuracy), class_="measured"),
        h(
            "p",
            "Found: of viral fragments, called virus. Wrong: of other fragments, called virus. "
            "Right: of 100 calls, where 1 % of the chunks are viral.",
            class_="aside",
        ),
        lead=lead,
    )


def _hundred(rates: Rates, prevalence: float) -> Html:
    """A hundred calls, those that are right filled in."""
    precision = rates.precision(prevalence)
    if precision is None:
        return h("p", _NOTHING)
    right = 100 * precision
    filled = [min(max(right - 10 * row, 0), 10) for row in range(10)]
    cells = [h("path", d=_cells([10.0] * 10), class_="cell"), h("path", d=_cells(filled))]
    number = _of_hundred(precision)
    sentence = f"of 100 chunks called virus are viral, where {100 * prevalence:g} % of all are"
    return h(
        "figure",
        h("svg", *cells, viewBox="0 0 108 108", role="img", aria_label=f"{number} {sentence}"),
        h("figcaption", h("b", number), sentence),
    )


def _cells(rows: Sequence[float]) -> str:
    """A path that shows a number of cells a row; dashes make cells of its lines."""
    parts = []
    for row, filled in enumerate(rows):
        whole, rest = divmod(filled, 1)
        if filled:
            parts.append(f"M0 {11 * row + 4.5}H{11 * whole + 9 * rest:.3g}")
    return "".join(parts)


def _of_hundred(precision: float | None) -> str:
    if precision is None:
        return _NOTHING
    right = 100 * precision
    return f"{right:.1f}" if right < 0.95 else f"{right:.0f}"


def _measured(run: Run, accuracy: Accuracy) -> Iterator[Html]:
    current, bundle = rates_of(run), run.document["bundle"]
    chunk_nt, usual = bundle["chunk_nt"], bundle["threshold"]
    head = ("", "found", "wrong", "right")
    for title, name, table in (
        (f"By threshold, {chunk_nt:,} nt", "threshold", accuracy.by_threshold),
        (f"By length, threshold {usual:g}", "length_nt", accuracy.by_length),
    ):
        if len(table) > 1:
            rows = [
                h(
                    "tr",
                    h("th", f"{getattr(r, name):,g}{' nt' * (name == 'length_nt')}", scope="row"),
                    h("td", rounded_percent(r.recall)),
                    h("td", rounded_percent(r.false_positive_rate)),
                    h("td", _of_hundred(r.precision(0.01))),
                    class_="current" if r == current else None,
                )
                for r in table
            ]
            yield h("div", h("h3", title), _table(head, rows, "rates"))
    if accuracy.by_group:
        groups = sorted(accuracy.by_group, key=lambda group: group[1])
        most = max(rate for _, rate in groups) or 1
        rows = [
            h(
                "tr",
                h("th", name.replace("_", " "), scope="row"),
                h("td", rounded_percent(rate)),
                h(
                    "td",
                    h("span", class_="fill-ink", style=f"width:{100 * rate / most:.1f}%"),
                    class_="line",
                ),
            )
            for name, rate in groups
        ]
        yield h(
            "div",
            h("h3", f"By mistake, threshold {usual:g}"),
            _table(("", "wrong", ""), rows, "rates"),
        )


# What the script fills


def _scores(run: Run) -> Html | None:
    if not sum(run.chunk_scores.virus + run.chunk_scores.others):
        return None
    choice = h(
        "span",
        *[
            h("button", name, type="button", data_of=name, aria_pressed=str(i == 0).lower())
            for i, name in enumerate(("chunks", "records"))
        ],
        class_="choice screen",
        role="group",
        aria_label="Scores of",
    )
    cut = "" if run.threshold is None else f" The line is the threshold, {run.threshold:g}."
    return _section(
        "Scores",
        h("div", choice, _legend("virus", "others"), class_="tools"),
        h("div", class_="plot", data_plot="scores"),
        _noscript(),
        lead=f"p_virus of everything that has a score.{cut}",
    )


def _noscript() -> Html:
    return h("noscript", h("p", "This is drawn by a script, which is switched off here."))


def _legend(*kinds: str, **more: str) -> Html:
    keys = {kind: kind for kind in kinds} | more
    return h(
        "span",
        *[h("span", h("i", class_=f"swatch fill-{kind}"), text) for kind, text in keys.items()],
        class_="legend",
    )


def _tracks(run: Run) -> Html | None:
    if not run.lengths_nt.total():
        return None
    title = "Along the sequences"
    if not run.tracks:
        return _section(
            title, lead="Every record is a single chunk, so there is nothing to draw along them."
        )
    drawn = "p_virus of each chunk."
    if len(run.tracks) < run.counts["of several chunks"]:
        drawn = (
            f"{len(run.tracks):,} of the {run.counts['of several chunks']:,} records of more than "
            "one chunk: those with the longest viral regions, with the most chunks called virus, "
            "with the highest p_virus, and the longest."
        )
    options = [
        h(
            "optgroup",
            *[
                h("option", _option(track), value=i)
                for i, track in enumerate(run.tracks)
                if track.reason == reason
            ],
            label=reason,
        )
        for reason in dict.fromkeys(track.reason for track in run.tracks)
    ]
    tools = h(
        "div",
        h("button", "←", type="button", data_step="-1", aria_label="Previous", title="Previous"),
        h("select", *options, aria_label="Record", class_="pick"),
        h("button", "→", type="button", data_step="1", aria_label="Next", title="Next"),
        h(
            "span",
            h(
                "button",
                "\N{MINUS SIGN}",
                type="button",
                data_zoom="2",
                aria_label="Zoom out",
                title="Zoom out",
            ),
            h("button", "+", type="button", data_zoom="0.5", aria_label="Zoom in", title="Zoom in"),
            h("button", "Whole", type="button", data_zoom="all"),
            class_="choice",
        ),
        class_="tools screen",
    )
    return _section(
        title,
        tools,
        h("p", class_="caption", data_part="caption"),
        h(
            "div",
            class_="plot",
            data_plot="track",
            tabindex="0",
            role="application",
            aria_label="Chunks along the record; arrow keys go from chunk to chunk",
        ),
        h("div", class_="plot strip screen", data_plot="strip"),
        _legend(
            "virus",
            "others",
            none="not called",
            region="viral region: more calls virus than chance would give this record",
            low="mostly repeats of few letters (looked for in records called virus)",
        ),
        h("dl", class_="chunk screen", data_part="chunk", aria_live="polite"),
        _noscript(),
        lead=drawn,
        class_="tracks",
    )


def _option(track: Track) -> str:
    row = track.shown.row
    return (
        f"{_short(row.contig)} · {row.length_nt:,} nt · {row.virus_chunks:,} of "
        f"{row.chunks:,} chunks virus"
    )


def _short(name: str) -> str:
    name = visible(name)
    return name if len(name) <= LONGEST_NAME else f"{name[: LONGEST_NAME - 1]}…"


def _records(run: Run) -> Html | None:
    if not run.shown:
        return None
    calls = ("all", "virus", "others", "not called")
    filters = h(
        "span",
        *[
            h("button", name, type="button", data_call=name, aria_pressed=str(i == 0).lower())
            for i, name in enumerate(calls)
        ],
        class_="choice",
        role="group",
        aria_label="Show records",
    )
    return _section(
        "Records",
        h(
            "div",
            h("input", type="search", placeholder="Search names", aria_label="Search names"),
            filters,
            h("span", class_="found", data_part="found", aria_live="polite"),
            class_="tools screen",
        ),
        h("div", h("table", h("thead"), h("tbody"), class_="records"), class_="scroll"),
        h(
            "p",
            h("button", "← Previous", type="button", data_page="-1"),
            h("span", data_part="page"),
            h("button", "Next →", type="button", data_page="1"),
            class_="pages",
        ),
        _noscript(),
        lead=h("span", data_part="extent"),
        class_="table",
    )


# What it took


def _effort(run: Run) -> Html | None:
    timings = dict(run.document.get("timings") or {})
    total = timings.pop("total_s", None)
    if total is None:
        return None
    scoring = timings.pop("scoring_s", 0.0)
    parts = [
        ("start-up, until the bundle is loaded", timings.pop("startup_s", 0.0)),
        ("reading, cutting and keeping chunks", max(timings.pop("blocks_s", 0.0) - scoring, 0.0)),
        ("scoring", scoring),
        ("tables", timings.pop("tables_s", 0.0)),
    ]
    parts.append(("other", max(total - sum(seconds for _, seconds in parts), 0.0)))
    whole = sum(seconds for _, seconds in parts) or 1
    rows = [
        h(
            "tr",
            h("th", name, scope="row"),
            h("td", _seconds(seconds)),
            h(
                "td",
                h("span", style=f"width:{100 * seconds / whole:.1f}%", class_="fill-ink"),
                class_="line",
            ),
        )
        for name, seconds in parts
    ]
    foot = h("tr", h("th", "all", scope="row"), h("td", _seconds(total)), h("td"))
    reused = (run.document.get("blocks") or {}).get("reused", 0)
    busy = parts[1][1] + parts[2][1]
    chunks = 0 if reused else run.lengths_nt.total()
    speed = (
        [
            f"{chunks / busy:,.0f} chunks and {_bases(run.counts['bases'] / busy)} a second"
            " once started"
        ]
        if busy > 0 and chunks
        else []
    )
    memory = [f"{_bytes(n)} {name}" for name, n in _memory(run.document.get("memory") or {})]
    also = [
        f"{name.removesuffix('_s').replace('_', ' ')} {_seconds(s)}" for name, s in timings.items()
    ]
    before = [f"{several(reused, 'block')} had been scored by an earlier process"] if reused else []
    facts = [*before, *speed, *memory, *([f"of these times: {', '.join(also)}"] if also else [])]
    return _section(
        "Time and memory",
        h("table", h("tbody", *rows), h("tfoot", foot), class_="sum effort"),
        h("p", "; ".join(facts), ".", class_="aside") if facts else None,
    )


def _memory(memory: dict[str, Any], before: str = "") -> Iterator[tuple[str, float]]:
    """Every number of bytes in run.json's memory, with what it is of."""
    for name, value in memory.items():
        words = name.removesuffix("_bytes").replace("_", " ")
        if isinstance(value, dict):
            yield from _memory(value, f"{before}{words}, ")
        elif name.endswith("_bytes") and isinstance(value, int | float):
            yield (
                (
                    "of memory at the peak"
                    if name == "peak_bytes" and not before
                    else f"{before}{words}"
                ),
                value,
            )


def _details(run: Run, paths: bool) -> Html | None:
    document = run.document
    if not document:
        return None
    bundle = document.get("bundle") or {}
    device = document.get("device") or {}
    settings = document.get("settings") or {}
    facts: list[tuple[str, object]] = [
        ("bundle", bundle.get("name")),
        ("", bundle.get("description")),
        ("bundle sha256", bundle.get("sha256") and h("code", bundle["sha256"])),
        ("threshold", settings.get("threshold")),
        ("chunks", bundle.get("chunk_nt") and f"{bundle['chunk_nt']:,} nt"),
        (
            "device",
            device
            and ", ".join(
                str(x)
                for x in (
                    device.get("name"),
                    device.get("precision"),
                    device.get("threads") and several(device["threads"], "thread"),
                )
                if x
            ),
        ),
        ("attention", ", ".join(f"{k}: {v}" for k, v in (document.get("attention") or {}).items())),
        ("versions", ", ".join(f"{k} {v}" for k, v in document["versions"].items() if v)),
        ("ended", _instant(document["finished"]) if "finished" in document else None),
        ("run directory", h("code", str(run.files.run_dir)) if paths else None),
        ("command", h("code", " ".join(document.get("command", ()))) if paths else None),
    ]
    return _section(
        "How it was run",
        h(
            "dl",
            *[
                joined(h("dt", name), h("dd", value))
                for name, value in facts
                if value not in (None, "")
            ],
            class_="details",
        ),
        _inputs(document.get("inputs", []), paths),
    )


def _inputs(inputs: Sequence[dict[str, Any]], paths: bool) -> Html | None:
    if not inputs:
        return None
    head = (
        ("sample", "file", "records", "size", "sha256")
        if paths
        else ("sample", "records", "size", "sha256")
    )
    rows = [
        h(
            "tr",
            h("th", i["sample"], scope="row"),
            h("td", h("code", i["path"]), class_="text") if paths else None,
            h("td", f"{i['records']:,}"),
            h("td", _bytes(i["bytes"])),
            h("td", h("code", i["sha256"] or "the end was not reached"), class_="text"),
        )
        for i in inputs[:MOST_SAMPLES]
    ]
    more = len(inputs) - len(rows)
    return joined(
        _table(head, rows, "plain inputs"),
        h("p", f"{several(more, 'more input')} in run.json.", class_="aside") if more else None,
    )


def _methods(run: Run, number: int) -> Html:
    version = (run.document.get("versions") or {}).get("virnucpro", __version__)
    return _section(
        "To cite",
        _copied(methods(run), f"methods-{number}", "p"),
        _copied(references(), f"references-{number}", "pre"),
        h("details", h("summary", "BibTeX"), _copied(bibtex(version), f"bibtex-{number}", "pre")),
        lead="A paragraph for the methods section, and what it refers to.",
        class_="cite",
    )


def _copied(text: str, identifier: str, tag: str) -> Html:
    return h(
        "div",
        h(tag, text, id=identifier),
        h("button", "Copy", type="button", data_copy=identifier, class_="screen"),
        class_="copied",
    )


# What the script draws


def _data(run: Run, most_bytes: int) -> dict[str, Any]:
    samples = list(run.records)
    sample = {name: i for i, name in enumerate(samples)}
    shown = _fitting(run.shown, most_bytes)
    where = {track.shown.ordinal: i for i, track in enumerate(run.tracks)}
    rows = [
        [
            sample[s.row.sample],
            s.row.record,
            _short(s.row.contig),
            s.row.length_nt,
            s.row.chunks,
            s.row.virus_chunks,
            _number(s.row.p_virus),
            _number(s.row.max_p_virus),
            s.row.call,
            s.row.status,
            _hundredths(run.low_shares.get(s.viral)),
            where.get(s.ordinal),
        ]
        for s in shown
    ]
    return {
        "threshold": run.threshold,
        "typical": typical_nt(run),
        "chunk": (run.document.get("bundle") or {}).get("chunk_nt"),
        "validated": (run.document.get("bundle") or {}).get("validated_nt"),
        "samples": [_short(name) for name in samples],
        "records": run.counts["records"],
        "scores": {
            "chunks": {"virus": run.chunk_scores.virus, "others": run.chunk_scores.others},
            "records": {"virus": run.record_scores.virus, "others": run.record_scores.others},
        },
        "rows": rows,
        "tracks": [_track(track) for track in run.tracks],
    }


def _fitting(shown: Sequence[Shown], most_bytes: int) -> list[Shown]:
    """As many records as the page has room for, those of the highest p_virus first."""
    kept, size = [], 0
    for s in sorted(
        shown, key=lambda s: (-s.row.p_virus if s.row.p_virus >= 0 else 1.0, s.ordinal)
    ):
        size += len(as_json(_short(s.row.contig))) + 64
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
        "name": _short(row.contig),
        "record": row.record,
        "sample": _short(row.sample),
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
