"""The sections that the script fills: scores, chunks along the records, and the records."""

from virnucpro.report.data import short
from virnucpro.report.html import Html
from virnucpro.report.html import element as h
from virnucpro.report.pieces import button, choice, legend, noscript, scrolled, section
from virnucpro.report.runs import Run
from virnucpro.report.tracks import Track


def score_plot(run: Run) -> Html | None:
    """A histogram of p_virus; None where nothing has a score."""
    if not sum(run.chunk_scores.virus + run.chunk_scores.others):
        return None
    of = choice("of", ("chunks", "records"), "Scores of", "choice screen")
    cut = "" if run.threshold is None else f" The line is the threshold, {run.threshold:g}."
    if run.worth:
        cut = (
            f" The line is the threshold: {run.chunk_threshold:g} for chunks, whose scores are the "
            f"network's, and {run.threshold:g} for records, whose scores are calibrated."
        )
    return section(
        "Scores",
        h("div", of, legend("virus", "others"), class_="tools"),
        h("div", class_="plot", data_plot="scores"),
        noscript(),
        lead=f"p_virus of everything that has a score.{cut}",
    )


def track_plot(run: Run) -> Html | None:
    """The chunks along a record that a reader picks; None without a chunk."""
    if not run.lengths_nt.total():
        return None
    title = "Along the sequences"
    if not run.tracks:
        return section(
            title, lead="Every record is a single chunk, so there is nothing to draw along them."
        )
    drawn = "p_virus of each chunk."
    if len(run.tracks) < run.counts["of several chunks"]:
        drawn = (
            f"{len(run.tracks):,} of the {run.counts['of several chunks']:,} records of more than "
            "one chunk: those with the longest viral regions, with the most chunks called virus, "
            "with the highest p_virus, and the longest."
        )
    said = "Chunks along the record; arrow keys go from chunk to chunk"
    return section(
        title,
        _picking(run),
        h("p", class_="caption", data_part="caption"),
        h(
            "div",
            class_="plot",
            data_plot="track",
            tabindex="0",
            role="application",
            aria_label=said,
        ),
        h("div", class_="plot strip screen", data_plot="strip"),
        legend(
            "virus",
            "others",
            none="not called",
            region="viral region: more calls virus than chance would give this record",
            low="mostly repeats of few letters (looked for in records called virus)",
        ),
        h("dl", class_="chunk screen", data_part="chunk", aria_live="polite"),
        noscript(),
        lead=drawn,
        class_="tracks",
    )


def _picking(run: Run) -> Html:
    """Return the controls by which a record is picked and zoomed."""
    options: dict[str, list[Html]] = {}
    for i, track in enumerate(run.tracks):
        options.setdefault(track.reason, []).append(h("option", _option(track), value=i))
    groups = [h("optgroup", *of_reason, label=reason) for reason, of_reason in options.items()]
    return h(
        "div",
        _tool("←", "Previous", data_step="-1"),
        h("select", *groups, aria_label="Record", class_="pick"),
        _tool("→", "Next", data_step="1"),
        h(
            "span",
            _tool("\N{MINUS SIGN}", "Zoom out", data_zoom="2"),
            _tool("+", "Zoom in", data_zoom="0.5"),
            button("Whole", data_zoom="all"),
            class_="choice",
        ),
        class_="tools screen",
    )


def _tool(sign: str, said: str, **data: str) -> Html:
    return button(sign, **data, aria_label=said, title=said)


def _option(track: Track) -> str:
    row = track.shown.row
    return (
        f"{short(row.contig)} · {row.length_nt:,} nt · {row.virus_chunks:,} of "
        f"{row.chunks:,} chunks virus"
    )


def record_table(run: Run) -> Html | None:
    """The table of the records; None without a record."""
    if not run.shown:
        return None
    calls = ("all", "virus", "others", "not called")
    return section(
        "Records",
        h(
            "div",
            h("input", type="search", placeholder="Search names", aria_label="Search names"),
            choice("call", calls, "Show records", "choice"),
            h("span", class_="found", data_part="found", aria_live="polite"),
            class_="tools screen",
        ),
        scrolled(h("table", h("thead"), h("tbody"), class_="records")),
        h(
            "p",
            button("← Previous", data_page="-1"),
            h("span", data_part="page"),
            button("Next →", data_page="1"),
            class_="pages",
        ),
        noscript(),
        lead=h("span", data_part="extent"),
        class_="table",
    )
