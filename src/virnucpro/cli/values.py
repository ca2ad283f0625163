"""Types of arguments and options: paths, names, shares. An empty one is refused everywhere.

An empty path would be the current folder, and is what an unset variable of a shell comes to.
"""

import re
from pathlib import Path
from typing import Any

import rich_click as click
from click.types import StringParamType

_NUMBER = re.compile(r"(\d+(?:[.,]\d+)?) ?(%?)", re.ASCII)
EMPTY = "it is empty; is a shell variable unset?"


class _NotEmpty(click.ParamType):  # type: ignore[type-arg]  # older versions have none
    def convert(
        self,
        value: Any,  # noqa: ANN401
        param: click.Parameter | None,
        ctx: click.Context | None,
    ) -> Any:  # noqa: ANN401
        """Raises BadParameter."""
        if value == "":
            self.fail(EMPTY, param, ctx)
        return super().convert(value, param, ctx)


class FilePath(_NotEmpty, click.Path):
    """A path that is not empty."""


class _Name(_NotEmpty, StringParamType):
    """A text that is not empty."""


class _Share(click.FloatRange):
    """A number from 0 to 1.

    words: those that stand for one, in lower case. least: that a number above 1 may have meant.
    """

    def __init__(self, *words: str, least: float = 0.0) -> None:
        super().__init__(0, 1)
        self.words = words
        self.least = least

    def convert(
        self,
        value: Any,  # noqa: ANN401
        param: click.Parameter | None,
        ctx: click.Context | None,
    ) -> Any:  # noqa: ANN401
        """Return a number or a word. Raises BadParameter."""
        if str(value).lower() in self.words:
            return str(value).lower()
        try:
            share = super().convert(value, param, ctx)
        except click.BadParameter:
            share = None
        if share is None or share != share:
            allowed = "".join(f"{word} or " for word in self.words)
            share_meant = _meant(value, self.least)
            why = f"{value!r} is not {allowed}a number from 0 to 1, such as {share_meant}"
            self.fail(EMPTY if value == "" else why, param, ctx)
        return share


def _meant(value: object, least: float) -> str:
    """Return the share that a text such as 5%, 5 or 0,05 stands for; 0.5 for any other.

    least: that a number above 1 without a percent sign stands for.
    """
    number = _NUMBER.fullmatch(str(value))
    if number is None:
        return "0.5"
    share = float(number[1].replace(",", "."))
    if number[2]:
        share /= 100
    elif share > 1:
        share /= 100
        if share < least:
            return "0.5"
    return f"{share:.10g}" if share <= 1 else "0.5"


FILE = FilePath(path_type=Path, readable=False)
NAME = _Name()
SHARE = _Share()
# Nobody means 0.015 by 1.5.
THRESHOLD = _Share(least=0.5)
PRIOR = _Share("auto")
