"""report.html: one file that opens anywhere and asks nothing of anyone.

What must be readable without a script is written here; the script draws what moves. A content
security policy keeps the page from loading or sending anything, and any script but ours from
running.
"""

from collections.abc import Sequence
from importlib import resources

from virnucpro import __version__
from virnucpro.report.citation import bibtex
from virnucpro.report.comparison import comparison
from virnucpro.report.data import data_of
from virnucpro.report.details import details
from virnucpro.report.effort import effort
from virnucpro.report.html import Html, data_block, joined, script, script_hash
from virnucpro.report.html import element as h
from virnucpro.report.mistakes import mistakes
from virnucpro.report.notes import notes
from virnucpro.report.pieces import copied, noted, section, status_mark
from virnucpro.report.plots import record_table, score_plot, track_plot
from virnucpro.report.quantities import instant, several
from virnucpro.report.runs import Run
from virnucpro.report.sections import overview
from virnucpro.report.words import methods, model, references
from virnucpro.report.worth import worth

GENERATOR = "virnucpro report"
SCRIPTS = ("vendor/d3.min.js", "vendor/plot.umd.min.js", "page.js")


def page_of(runs: Sequence[Run], *, paths: bool = True) -> bytes:
    """The page of one run, or of several side by side. paths: whether any is told."""
    assets = resources.files("virnucpro.report")
    scripts = [assets.joinpath(name).read_text("utf-8") for name in SCRIPTS]
    title = runs[0].name if len(runs) == 1 else several(len(runs), "run")
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
        comparison(runs, paths) if len(runs) > 1 else None,
        *[_run(run, i, len(runs), paths) for i, run in enumerate(runs)],
        h("footer", f"Made by virnucpro {__version__}. This file holds everything it shows."),
        data_block("data", data_of(runs)),
        Html(f"<!--\n{assets.joinpath('vendor/LICENSES.txt').read_text('utf-8')}-->"),
        *map(script, scripts),
    )
    return joined(Html("<!DOCTYPE html>"), h("html", head, body, lang="en")).encode()


def _run(run: Run, number: int, runs: int, paths: bool) -> Html:
    parts = [
        _head(run, runs),
        _notes(run, paths),
        overview(run),
        mistakes(run),
        worth(run),
        score_plot(run),
        track_plot(run),
        record_table(run),
        effort(run),
        details(run, paths),
        _citing(run, number),
    ]
    return h("main" if runs == 1 else "article", *parts, class_="run", data_run=number)


def _head(run: Run, runs: int) -> Html:
    document, bundle = run.document, run.bundle
    facts = [
        bundle and f"{bundle['name']}, {model(bundle)}",
        instant(document["started"]) if "started" in document else None,
        f"virnucpro {document['versions']['virnucpro']}" if "versions" in document else None,
    ]
    return h(
        "header",
        h("p", "VirNucPro report", class_="kicker") if runs == 1 else None,
        h("h1" if runs == 1 else "h2", run.name, class_="name"),
        h(
            "p",
            status_mark(run.status),
            *[h("span", fact) for fact in facts if fact],
            class_="facts",
        ),
    )


def _notes(run: Run, paths: bool) -> Html | None:
    found = noted(notes(run, paths=paths))
    return found and section("Read this first", found)


def _citing(run: Run, number: int) -> Html:
    version = (run.document.get("versions") or {}).get("virnucpro", __version__)
    return section(
        "To cite",
        copied(methods(run), f"methods-{number}", "p"),
        copied(references(), f"references-{number}", "pre"),
        h("details", h("summary", "BibTeX"), copied(bibtex(version), f"bibtex-{number}", "pre")),
        lead="A paragraph for the methods section, and what it refers to.",
        class_="cite",
    )
