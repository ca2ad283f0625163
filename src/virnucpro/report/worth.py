"""The worth of a call: how many of the calls to expect to be right, and what was measured."""

from collections.abc import Iterator, Sequence

from virnucpro.bundle.card import PREVALENCES, Accuracy, Rates
from virnucpro.report.html import Html, joined
from virnucpro.report.html import element as h
from virnucpro.report.pieces import columns, row, section, table
from virnucpro.report.quantities import NOTHING, rounded_percent
from virnucpro.report.runs import Run
from virnucpro.report.words import rates_of, typical_nt, unlike


def worth(run: Run) -> Html | None:
    """The section; None where run.json is missing."""
    if not run.bundle:
        return None
    title = "What a call of a chunk is worth" if run.worth else "What a call is worth"
    accuracy = Accuracy.of(run.bundle)
    if accuracy is None:
        return section(
            title,
            lead="Nothing was measured of this bundle, so nobody knows how many of its calls are "
            "right. virnucpro evaluate measures it on sequences of known origin.",
        )
    rates = rates_of(run)
    drawn = None if rates is None or unlike(run, rates) else rates
    if rates is None:
        lead: object = (
            f"This bundle was not measured at the threshold {run.chunk_threshold:g}; these are the "
            "thresholds that were."
        )
    else:
        lead = joined(
            f"On validation fragments of {rates.length_nt:,} nt this bundle finds ",
            h("b", rounded_percent(rates.recall)),
            " of the viral ones and calls ",
            h("b", rounded_percent(rates.false_positive_rate)),
            " of the others virus",
            _of_chunks(run, rates),
            _depends(run, rates),
        )
    return section(
        title,
        drawn and h("div", *[_hundred(drawn, share) for share in PREVALENCES], class_="hundreds"),
        h("div", *_measured(run, accuracy, rates), class_="measured"),
        h(
            "p",
            "Found: of viral fragments, called virus. Wrong: of other fragments, called virus. "
            "Right: of 100 calls, where 1 % of the chunks are viral.",
            _two_draws(run, accuracy),
            class_="aside",
        ),
        lead=lead,
    )


def _of_chunks(run: Run, rates: Rates) -> str:
    """Return the effect of a raised threshold on the rates, where records have several chunks."""
    short = run.longest_nt <= run.bundle["chunk_nt"]
    if run.worth or short or rates.threshold <= run.bundle["threshold"]:
        return "."
    return (
        f". This is of single chunks: the score of a longer record is the mean of its chunks, and "
        f"reaches {rates.threshold:g} more rarely, so fewer are found."
    )


def _depends(run: Run, rates: Rates) -> str:
    if not unlike(run, rates):
        return " How many of the calls are right depends on how much of the sample is viral:"
    return (
        f" Half of the chunks of this run have {typical_nt(run):,} nt or less: on these it does "
        f"worse, and how much at the threshold {rates.threshold:g} was not measured."
    )


def _two_draws(run: Run, accuracy: Accuracy) -> str | None:
    """Return why two tables give two numbers for one length and threshold."""
    if min(len(accuracy.by_threshold), len(accuracy.by_length)) < 2:
        return None
    return (
        f" By threshold: on {sum(accuracy.fragments):,} fixed fragments of "
        f"{run.bundle['chunk_nt']:,} nt. By length: on other fragments, drawn for each length from "
        "the same sequences; so the two differ a little where both have a number."
    )


def _hundred(rates: Rates, prevalence: float) -> Html:
    """A hundred calls, those that are right filled in."""
    precision = rates.precision(prevalence)
    if precision is None:
        return h("p", NOTHING)
    filled = [min(max(100 * precision - 10 * row, 0), 10) for row in range(10)]
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
    for row_, filled in enumerate(rows):
        whole, rest = divmod(filled, 1)
        if filled:
            parts.append(f"M0 {11 * row_ + 4.5}H{11 * whole + 9 * rest:.3g}")
    return "".join(parts)


def _of_hundred(precision: float | None) -> str:
    if precision is None:
        return NOTHING
    right = 100 * precision
    return f"{right:.1f}" if right < 0.95 else f"{right:.0f}"


def _measured(run: Run, accuracy: Accuracy, current: Rates | None) -> Iterator[Html]:
    chunk_nt, usual = run.bundle["chunk_nt"], run.bundle["threshold"]
    for title, name, measured in (
        (f"By threshold, fragments of {chunk_nt:,} nt", "threshold", accuracy.by_threshold),
        (f"By length of fragments, threshold {usual:g}", "length_nt", accuracy.by_length),
    ):
        if len(measured) > 1:
            rows = [
                row(
                    f"{getattr(rates, name):,g}{' nt' * (name == 'length_nt')}",
                    h("td", rounded_percent(rates.recall)),
                    h("td", rounded_percent(rates.false_positive_rate)),
                    h("td", _of_hundred(rates.precision(0.01))),
                    class_="current" if rates == current else None,
                )
                for rates in measured
            ]
            head = columns("", "found", "wrong", "right")
            yield h("div", h("h3", title), table(head, rows, "rates"))
    if accuracy.by_group:
        groups = sorted(accuracy.by_group, key=lambda group: group[1])
        most = groups[-1][1] or 1

        def line(rate: float) -> Html:
            return h("span", class_="fill-ink", style=f"width:{100 * rate / most:.1f}%")

        rows = [
            row(
                name.replace("_", " "),
                h("td", rounded_percent(rate)),
                h("td", line(rate), class_="line"),
            )
            for name, rate in groups
        ]
        title = f"By mistake, threshold {usual:g}"
        yield h("div", h("h3", title), table(columns("", "wrong", ""), rows, "rates"))
