"""Types of arguments and options: paths, names, shares. An empty one is refused everywhere.

An empty path would be the current folder, and is what an unset variable of a shell comes to.
"""

import re
from pathlib import Path
from typing import Any

import rich_click as click
from click.types import StringParamType

_PERCENT = re.compile(r"(\d+(?:\.\d+)?) ?%", re.ASCII)
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
    def convert(
        self,
        value: Any,  # noqa: ANN401
        param: click.Parameter | None,
        ctx: click.Context | None,
    ) -> Any:  # noqa: ANN401
        try:
            share = super().convert(value, param, ctx)
        except click.BadParameter:
            share = None
        if share is None or share != share:
            why = f"{value!r} is not a number from 0 to 1, such as {_meant(value)}"
            self.fail(EMPTY if value == "" else why, param, ctx)
        return share


def _meant(value: object) -> str:
    """Return the share that a text such as 5% stands for; 0.5 as an example for any other."""
    percent = _PERCENT.fullmatch(str(value))
    share = float(percent[1]) / 100 if percent else 0.5
    return f"{share:.10g}" if share <= 1 else "0.5"


class _Prior(click.ParamType):  # type: ignore[type-arg]  # older versions have none
    name = "prior"

    def convert(
        self,
        value: Any,  # noqa: ANN401
        param: click.Parameter | None,
        ctx: click.Context | None,
    ) -> Any:  # noqa: ANN401
        """Return auto, or a share. Raises BadParameter."""
        return value if value == "auto" else SHARE.convert(value, param, ctx)


FILE = FilePath(path_type=Path, readable=False)
NAME = _Name()
SHARE = _Share(0, 1)
PRIOR = _Prior()
