"""Several runs side by side."""

from collections.abc import Sequence
from dataclasses import replace

from virnucpro.report.html import Html, joined
from virnucpro.report.html import element as h
from virnucpro.report.notes import notes
from virnucpro.report.pieces import bar, legend, noted, row, status_mark, table
from virnucpro.report.quantities import NOTHING, duration, several, share_of
from virnucpro.report.runs import BINS, Run
from virnucpro.report.sections import record_parts

# The columns besides the run itself, and the class of each.
_COLUMNS = {
    "bundle": None,
    "cut at": "n",
    "records": "n",
    "called virus": "n",
    "": None,
    "scores of chunks": None,
    "time": "n",
}


def comparison(runs: Sequence[Run], paths: bool) -> Html:
    """The head of the page, with a row for each run, and what is grave of any of them."""
    names = {"run": None} | _COLUMNS
    head = [h("th", name, scope="col", class_=class_) for name, class_ in names.items()]
    varied = {
        "bundles": {run.bundle.get("sha256") for run in runs},
        "thresholds": {run.threshold for run in runs},
    }
    differ = " and ".join(name for name, values in varied.items() if len(values) > 1)
    sentence = f"These runs have different {differ}; their calls cannot be compared."
    labels = [f"{number}. {run.name}" for number, run in enumerate(runs, 1)]
    options = [h("option", label, value=i) for i, label in enumerate(labels)]
    grave = [
        replace(note, title=f"{label}: {note.title}")
        for label, run in zip(labels, runs, strict=True)
        for note in notes(run, paths=paths)
        if note.grave
    ]
    return h(
        "header",
        h("p", "VirNucPro report", class_="kicker"),
        h("h1", several(len(runs), "run"), " side by side"),
        h("p", sentence, class_="care") if differ else None,
        table(head, map(_compared, runs, labels), "compare"),
        legend("virus", "others", none="not called", failed="failed"),
        noted(grave),
        h(
            "p",
            h("label", "Details of ", for_="choose-run"),
            h("select", *options, id="choose-run"),
            class_="choose screen",
        ),
    )


def _compared(run: Run, label: str) -> Html:
    counts = run.counts
    total_s = (run.document.get("timings") or {}).get("total_s")
    return row(
        label if run.status == "complete" else joined(label, " ", status_mark(run.status)),
        h("td", run.bundle.get("name", "unknown")),
        h("td", NOTHING if run.threshold is None else f"{run.threshold:g}", class_="n"),
        h("td", f"{counts['records']:,}", class_="n"),
        h(
            "td",
            f"{counts['virus']:,} ({share_of(counts['virus'], counts['records'])})",
            class_="n",
        ),
        h("td", bar(record_parts(run), counts["records"]), class_="wide"),
        h("td", _spark(run)),
        h("td", NOTHING if total_s is None else duration(total_s), class_="n"),
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
    said = "Histogram of p_virus of the chunks, from 0 to 1"
    return h("svg", *parts, viewBox="0 0 100 24", class_="spark", role="img", aria_label=said)
