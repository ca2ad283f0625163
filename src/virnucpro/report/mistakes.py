"""The number of calls of this sample to expect to be wrong, by its calibration."""

from collections.abc import Mapping, Sequence
from typing import Any

from virnucpro.report.html import Html
from virnucpro.report.html import element as h
from virnucpro.report.pieces import columns, legend, row, section, table
from virnucpro.report.quantities import percent, several, share_of
from virnucpro.report.runs import Run

_WIDTH, _HEIGHT = 480, 120
_ENDS = (("0", "\N{MINUS SIGN}10"), (str(_WIDTH // 2), "0"), (str(_WIDTH), "10"))
_ANCHORS = ("start", "middle", "end")


def mistakes(run: Run) -> Html | None:
    """The section; None without a calibration."""
    worth = run.worth
    if not worth:
        return None
    return section(
        "Expected mistakes",
        h("div", _thresholds(worth), _origins(worth), _notes(worth), class_="measured"),
        _spread(worth),
        lead=f"{worth['sentence']}.",
    )


def _thresholds(worth: Mapping[str, Any]) -> Html:
    rows = [
        row(
            f"{at['threshold']:g}",
            h("td", f"{at['called']:,}"),
            h("td", f"{at['wrong']:,.0f}"),
            class_="current" if at["threshold"] == worth["threshold"] else None,
        )
        for at in worth["by_threshold"]
    ]
    share = percent(worth["prior"]["used"])
    return h(
        "div",
        h("h3", f"By threshold, if {share} of the records are viral"),
        table(columns("p_virus", "called", "wrong"), rows, "rates"),
    )


def _origins(worth: Mapping[str, Any]) -> Html | None:
    """Return the apparent make-up of the sample; never called taxonomy."""
    found = sorted(worth["origins"].items(), key=lambda item: -item[1])
    return _counted("Probable origin of the records", found, worth["scored"])


def _notes(worth: Mapping[str, Any]) -> Html | None:
    found = sorted(worth["notes"].items(), key=lambda item: -item[1])
    return _counted("Noted of their letters", found, worth["scored"])


def _counted(title: str, found: Sequence[tuple[str, int]], whole: int) -> Html | None:
    found = [(name, number) for name, number in found if number]
    if not found:
        return None
    most = max(number for _, number in found)
    rows = [
        row(
            name.replace("_", " "),
            h("td", f"{number:,}"),
            h("td", share_of(number, whole)),
            h("td", _line(number / most), class_="line"),
        )
        for name, number in found
    ]
    return h("div", h("h3", title), table(columns("", "records", "", ""), rows, "rates"))


def _line(share: float) -> Html:
    return h("span", class_="fill-ink", style=f"width:{100 * share:.1f}%")


def _spread(worth: Mapping[str, Any]) -> Html | None:
    """Log-odds of the records as columns, of the negatives as a line, each as shares."""
    scores, null = worth["scores"], worth["null_scores"]
    if not sum(scores) or not sum(null):
        return None
    shares = [[number / sum(numbers) for number in numbers] for numbers in (scores, null)]
    top, width = max(map(max, shares)), _WIDTH / len(scores)

    def height(share: float) -> float:
        return float(_HEIGHT * share / top)

    columns_ = [
        h(
            "rect",
            x=f"{i * width + 0.5:g}",
            y=f"{_HEIGHT - height(share):.1f}",
            width=f"{width - 1:g}",
            height=f"{height(share):.1f}",
            class_="fill-others",
        )
        for i, share in enumerate(shares[0])
        if share
    ]
    line = "".join(
        f"{'L' if i else 'M'}{i * width:g} {_HEIGHT - height(share):.1f}H{(i + 1) * width:g}"
        for i, share in enumerate(shares[1])
    )
    ticks = [
        h("text", text, x=x, y=_HEIGHT + 14, text_anchor=anchor)
        for (x, text), anchor in zip(_ENDS, _ANCHORS, strict=True)
    ]
    said = (
        f"Log-odds of {several(worth['scored'], 'record')}, and of the negatives of the calibration"
    )
    drawing = h(
        "svg",
        *columns_,
        h("path", d=line, class_="null"),
        *ticks,
        viewBox=f"0 0 {_WIDTH} {_HEIGHT + 18}",
        role="img",
        aria_label=said,
        class_="spread",
    )
    key = legend(others="records of this run", ink="sequences known not to be viral")
    return h("figure", drawing, h("figcaption", f"{said}. ", key))
