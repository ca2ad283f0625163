"""Names from outside as a page shows them: visible, and of bounded length."""

import re

LONGEST_NAME = 100
# Of names that a reader can open and copy, so that hardly any is cut.
LONGEST_WHOLE = 1000
# Controls, lone halves of a character, and marks that turn the direction of what follows.
_INVISIBLE = re.compile(
    "[\x00-\x08\x0b-\x1f\x7f-\x9f\u200e\u200f\u202a-\u202e\u2066-\u2069\ud800-\udfff]"
)


def visible(name: str) -> str:
    """A text from outside, with a mark where a letter would show nothing or move others."""
    return _INVISIBLE.sub("\N{REPLACEMENT CHARACTER}", name)


def short(name: str) -> str:
    """A name that does not fill the page, with its end, in which names of reads differ."""
    return _cut(visible(name), LONGEST_NAME)


def whole(name: str) -> str:
    """A name to be copied; one that would make the page too big is cut like a short one."""
    return _cut(visible(name), LONGEST_WHOLE)


def _cut(name: str, longest: int) -> str:
    if len(name) <= longest:
        return name
    end = (longest - 1) // 2
    return f"{name[: longest - 1 - end]}…{name[-end:]}"
