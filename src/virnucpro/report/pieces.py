"""The pieces that the sections of the page are put together from."""

from collections.abc import Iterable, Sequence

from virnucpro.report.html import Html
from virnucpro.report.html import element as h
from virnucpro.report.notes import Note
from virnucpro.report.quantities import several

# The kind, which gives the colour; the name; the number.
Parts = Sequence[tuple[str, str, int]]


def section(title: str, *children: object, lead: object = None, class_: str = "") -> Html:
    """A part of the page; lead: a sentence that it begins with."""
    lead = lead and h("p", lead, class_="lead")
    return h("section", h("h2", title), lead, *children, class_=class_ or None)


def scrolled(table: Html) -> Html:
    """A table that may be wider than the page."""
    return h("div", table, class_="scroll")


def table(head: Iterable[Html | None], rows: Iterable[Html], class_: str) -> Html:
    """A table; head: its th."""
    body = h("thead", h("tr", *head)), h("tbody", *rows)
    return scrolled(h("table", *body, class_=class_))


def columns(*names: str) -> list[Html]:
    """The head of a table."""
    return [h("th", name, scope="col") for name in names]


def row(name: object, *cells: Html | None, class_: str | None = None) -> Html:
    """A row of a table; cells: its td."""
    return h("tr", h("th", name, scope="row"), *cells, class_=class_)


def more_of(number: int, thing: str, where: str) -> Html | None:
    """Return a line on what a table leaves out; None if it leaves out nothing."""
    return h("p", f"{several(number, thing)} in {where}.", class_="aside") if number else None


def status_mark(status: str) -> Html:
    """Return a mark of how a run ended."""
    return h("span", status, class_=f"status {status}")


def noted(notes: Sequence[Note]) -> Html | None:
    """Return a list of warnings; None if there are no notes."""
    items = [
        h("li", h("strong", note.title), " ", note.text, class_="grave" if note.grave else None)
        for note in notes
    ]
    return h("ul", *items, class_="notes") if items else None


def swatch(kind: str) -> Html:
    """A spot of a colour."""
    return h("i", class_=f"swatch fill-{kind}")


def legend(*kinds: str, **more: str) -> Html:
    """Return the meaning of the colours; more: kinds with other names."""
    keys = {kind: kind for kind in kinds} | more
    return h("span", *[h("span", swatch(k), text) for k, text in keys.items()], class_="legend")


def bar(parts: Parts, whole: int) -> Html:
    """Parts of a whole, side by side."""
    there = [part for part in parts if part[2]]
    return h(
        "div",
        *[h("span", class_=f"fill-{kind}", style=f"flex-grow:{n}") for kind, _, n in there],
        class_="bar" if whole else "bar nothing",
        role="img",
        aria_label=", ".join(f"{name} {number:,}" for _, name, number in there) or "nothing",
    )


def button(text: str, **attributes: object) -> Html:
    """A button, which the script gives its work by a data attribute."""
    return h("button", text, type="button", **attributes)


def choice(of: str, names: Iterable[str], said: str, class_: str) -> Html:
    """Buttons of which one is pressed, at first the first; of: what is chosen, for the script."""
    buttons = [
        button(name, **{f"data_{of}": name}, aria_pressed=str(i == 0).lower())
        for i, name in enumerate(names)
    ]
    return h("span", *buttons, class_=class_, role="group", aria_label=said)


def noscript() -> Html:
    """Return the text that stands where a script would draw."""
    return h("noscript", h("p", "This is drawn by a script, which is switched off here."))


def copied(text: str, identifier: str, tag: str) -> Html:
    """A text with a button that copies it."""
    copy = button("Copy", data_copy=identifier, class_="screen")
    return h("div", h(tag, text, id=identifier), copy, class_="copied")
