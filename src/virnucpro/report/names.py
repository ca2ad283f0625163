"""Names from outside as a page shows them: visible, and short."""

import re

LONGEST_NAME = 100
# Controls, lone halves of a character, and marks that turn the direction of what follows.
_INVISIBLE = re.compile(
    "[\x00-\x08\x0b-\x1f\x7f-\x9f\u200e\u200f\u202a-\u202e\u2066-\u2069\ud800-\udfff]"
)


def visible(name: str) -> str:
    """A text from outside, with a mark where a letter would show nothing or move others."""
    return _INVISIBLE.sub("\N{REPLACEMENT CHARACTER}", name)


def short(name: str) -> str:
    """A name that does not fill the page, with its end, in which names of reads differ."""
    name = visible(name)
    if len(name) <= LONGEST_NAME:
        return name
    end = (LONGEST_NAME - 1) // 2
    return f"{name[: LONGEST_NAME - 1 - end]}…{name[-end:]}"
