"""Numbers as a person reads them. This module knows no run."""

from datetime import datetime

NOTHING = "\N{EN DASH}"
_UNITS = ((1e9, "G"), (1e6, "M"), (1e3, "k"))


def percent(share: float) -> str:
    """A share as a person reads it: never 0 % for something, nor 100 % for less than all."""
    if 0 < share < 0.001:
        return "< 0.1 %"
    if 0.999 < share < 1:
        return "> 99.9 %"
    return f"{100 * share:.1f} %" if 0 < share < 1 else f"{100 * share:.0f} %"


def rounded_percent(share: float) -> str:
    """A share that was measured on thousands: no more digits than that allows."""
    shown = 100 * share
    return f"{shown:.0f} %" if shown >= 9.95 else f"{shown:.1f} %" if shown >= 0.05 else "0 %"


def share_of(part: int, whole: int) -> str:
    """A part as a share of the whole, where there is a whole."""
    return percent(part / whole) if whole else NOTHING


def of_hundred(share: float | None) -> str:
    """A share as a number of a hundred."""
    if share is None:
        return NOTHING
    return f"{100 * share:.1f}" if 100 * share < 0.95 else f"{100 * share:.0f}"


def number(value: float) -> str:
    """A whole number."""
    return f"{value:,.0f}"


def size(number: float, unit: str) -> str:
    """Bases (b) or bytes (B), to three digits."""
    for many, prefix in _UNITS:
        if number >= many:
            return f"{number / many:.3g} {prefix}{unit}"
    return f"{number:,.0f} {unit}"


def duration(seconds: float) -> str:
    """A time that something took."""
    if seconds < 60:
        return f"{seconds:.2f} s" if seconds < 10 else f"{seconds:.1f} s"
    minutes, rest = divmod(round(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours} h {minutes} min" if hours else f"{minutes} min {rest} s"


def instant(text: str) -> str:
    """A moment of run.json; other text comes out as it went in."""
    try:
        when = datetime.fromisoformat(text)
    except ValueError:
        return text
    return f"{when.day} {when:%B %Y, %H:%M} UTC"
