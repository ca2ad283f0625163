"""report.html: one file that opens anywhere and asks nothing of anyone.

page.html is its template, with its parts beside it. Text that must be readable without a script is
written there; the script draws what moves. A content security policy keeps the page from loading or
sending anything, and any script but ours from running.
"""

import base64
import hashlib
from collections.abc import Sequence
from functools import cache
from importlib import resources

from jinja2 import Environment, PackageLoader, StrictUndefined
from markupsafe import Markup

import virnucpro.report.drawings as drawings
import virnucpro.report.facts as facts
import virnucpro.report.quantities as quantities
import virnucpro.report.words as words
from virnucpro import __version__
from virnucpro.bundle.card import PREVALENCES, Accuracy
from virnucpro.progress import several
from virnucpro.report.citation import bibtex
from virnucpro.report.data import data_of
from virnucpro.report.effort import effort_of
from virnucpro.report.names import short, visible
from virnucpro.report.notes import grave_notes, notes
from virnucpro.report.runs import Run

GENERATOR = "virnucpro report"
SCRIPTS = ("vendor/d3.min.js", "vendor/plot.umd.min.js", "page.js")
_MOST_SAMPLES = 200


def page_of(runs: Sequence[Run], *, paths: bool = True) -> bytes:
    """The page of one run, or of several side by side. paths: whether any is told."""
    page = (
        environment()
        .get_template("page.html")
        .render(
            runs=runs,
            paths=paths,
            data=data_of(runs),
            style=_asset("page.css"),
            scripts=[_asset(name) for name in SCRIPTS],
            licences=_asset("vendor/LICENSES.txt"),
        )
    )
    return page.lstrip().encode()


@cache
def environment() -> Environment:
    """Return the templates' environment: every value is escaped, a missing one is an error."""
    made = Environment(
        loader=PackageLoader("virnucpro.report", ""),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
        finalize=_shown,
        optimized=False,  # costs more time than one page takes to render
    )
    made.policies["json.dumps_kwargs"] = {"separators": (",", ":"), "allow_nan": False}
    filters = (
        quantities.duration,
        quantities.instant,
        quantities.number,
        quantities.of_hundred,
        quantities.percent,
        quantities.rounded_percent,
        quantities.share_of,
        quantities.size,
        several,
        short,
        script_hash,
    )
    made.filters |= {function.__name__: function for function in filters}
    made.globals |= {
        "GENERATOR": GENERATOR,
        "MOST_SAMPLES": _MOST_SAMPLES,
        "NOTHING": quantities.NOTHING,
        "PREVALENCES": PREVALENCES,
        "accuracy_of": Accuracy.of,
        "bibtex": bibtex,
        "drawings": drawings,
        "effort_of": effort_of,
        "facts": facts,
        "grave_notes": grave_notes,
        "notes": notes,
        "version": __version__,
        "words": words,
    }
    return made


def _shown(value: object) -> object:
    """A value on its way into the page; a number and its sign stay on one line."""
    if isinstance(value, Markup):
        return value
    return visible(str(value)).replace(" %", "\N{NO-BREAK SPACE}%")


def _asset(name: str) -> Markup:
    """A file of ours, which the page holds as it is."""
    return Markup(resources.files("virnucpro.report").joinpath(name).read_text("utf-8"))


def script_hash(code: str) -> str:
    """The name under which a content security policy allows a script."""
    return f"'sha256-{base64.b64encode(hashlib.sha256(code.encode()).digest()).decode()}'"
