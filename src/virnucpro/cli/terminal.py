"""Progress on stderr: a bar on a terminal, plain lines elsewhere."""

import os
import sys
from collections.abc import Callable, Iterator, Sequence
from contextlib import suppress
from io import BufferedWriter, FileIO, TextIOWrapper
from textwrap import fill
from threading import Event, Thread
from time import monotonic
from typing import TYPE_CHECKING, Self, TextIO

import rich_click as click
from rich.console import Console
from rich.progress import (
    BarColumn,
    Progress,
    ProgressColumn,
    Task,
    TaskProgressColumn,
    TextColumn,
    TimeElapsedColumn,
)
from rich.table import Table
from rich.text import Text

from virnucpro.cli.signals import stop
from virnucpro.devices.memory import peak_memory_bytes
from virnucpro.progress import PLAIN_EVERY_S, WARNING, Forecast, Position, escaped
from virnucpro.progress import Progress as Watcher

if TYPE_CHECKING:
    from _typeshed import ReadableBuffer

PAPER_WIDTH = 100  # of a file or a pipe, which people read as often as programs do
_UNBOUNDED = 100_000
NARROWEST = 20  # of a terminal that lines are broken for
BAR_WIDTH = 16
CONTINUED = ", continued"


def duration(seconds: float) -> str:
    """Seconds as h:mm:ss."""
    minutes, rest = divmod(round(seconds), 60)
    return f"{minutes // 60}:{minutes % 60:02}:{rest:02}"


class Paper:
    """Standard output, or error, for tables: as wide as a terminal, elsewhere PAPER_WIDTH.

    width: of tables. There, sentences are not folded, nor is a word, such as a path, that is wider
    than all of it.
    """

    def __init__(self, *, stderr: bool = False) -> None:
        self._terminal = (sys.stderr if stderr else sys.stdout).isatty()
        self._console = Console(
            stderr=stderr,
            width=None if self._terminal else _UNBOUNDED,
            markup=False,
            emoji=False,
            highlight=False,
            # In NO_COLOR Rich would still write in bold.
            color_system=None if os.environ.get("NO_COLOR") else "auto",
        )
        self.width = self._console.width if self._terminal else PAPER_WIDTH

    def print(self, *parts: Table | Text | str) -> None:
        """Print tables and sentences, one below the other."""
        for part in parts:
            width = None
            if isinstance(part, Table) and not self._terminal:
                width = self.width
                for column in part.columns:
                    cells = (column.header, *column.cells)
                    column.min_width = max(self._console.measure(cell).minimum for cell in cells)
            self._console.print(part, width=width)


def columns_fitting(rows: Sequence[Sequence[str]], width: int, repeated: int) -> list[list[int]]:
    """The columns of a table in as many parts as it takes to fit a width, by index.

    The first ones, as many as are repeated, stand in each part. A column that is too wide for any
    has one of its own. Without columns there is no part.
    """
    if not rows[0]:
        return []
    wide = [2 + max(map(len, column)) for column in zip(*rows, strict=True)]
    repeated = min(repeated, len(wide))
    first, room = list(range(repeated)), width - sum(wide[:repeated])
    parts: list[list[int]] = [[]]
    for column in range(repeated, len(wide)):
        if parts[-1] and sum(wide[i] for i in parts[-1]) + wide[column] > room:
            parts.append([])
        parts[-1].append(column)
    return [first + part for part in parts]


def tables_in_parts(
    header: Sequence[str],
    rows: Sequence[Sequence[str]],
    width: int,
    *,
    title: str = "",
    repeated: int = 1,
) -> Iterator[Table]:
    """A table, in parts to be printed one below the other where it is wider than that.

    A further part with nothing in it is left out.
    """
    for number, part in enumerate(columns_fitting([header, *rows], width, repeated)):
        if number and not any(row[column] for row in rows for column in part[repeated:]):
            continue
        table = Table(title=Text(escaped(title)) if title else None, title_justify="left", box=None)
        title = f"{title.removesuffix(CONTINUED)}{CONTINUED}" if title else ""
        for column in part:
            table.add_column(Text(escaped(header[column])), overflow="fold")
        for row in rows:
            table.add_row(*(Text(escaped(row[column])) for column in part))
        yield table


class _Left(ProgressColumn):
    """The time left, also between two steps."""

    def __init__(self, left_s: Callable[[], float | None]) -> None:
        super().__init__()
        self._left_s = left_s

    def render(self, task: Task) -> Text:
        left = self._left_s()
        return Text("" if left is None else f"{duration(left)} left")


def folded(text: str, *, stderr: bool = True) -> str:
    """Lines for a person; in a terminal broken at blanks, unless it is very narrow.

    Nothing else is broken, so a path without blanks stays whole, however long; a tab becomes
    blanks.
    """
    text = escaped(text)
    stream = sys.stderr if stderr else sys.stdout
    if stream is None or not stream.isatty():
        return text
    width = Console(stderr=stderr).width
    if width < NARROWEST:
        return text
    lines = (
        fill(x, width, break_long_words=False, break_on_hyphens=False) for x in text.split("\n")
    )
    return "\n".join(lines)


class _Unfailing(FileIO):
    """A descriptor that takes everything, also where its disk is full or nobody reads it."""

    def write(self, data: "ReadableBuffer", /) -> int:
        with suppress(OSError):
            return super().write(data)
        return memoryview(data).nbytes


def unfailing_stderr() -> TextIO:
    """Return standard error such that what cannot be printed changes nothing else."""
    raw, encoding = _Unfailing(2, "w", closefd=False), sys.stderr.encoding
    return TextIOWrapper(raw, encoding, "backslashreplace", line_buffering=True, write_through=True)


class _Unbroken(FileIO):
    """A descriptor that takes everything once nobody reads it any more; a full disk still fails."""

    def write(self, data: "ReadableBuffer", /) -> int:
        with suppress(BrokenPipeError):
            return super().write(data)
        return memoryview(data).nbytes


def unbroken(stdout: TextIOWrapper) -> TextIOWrapper:
    """Return standard output such that a reader who leaves, as head does, ends no command.

    One that stands for another file in a test stays as it is.
    """
    with suppress(OSError):  # it is no file
        if stdout.fileno() == 1:
            return _unbroken_of(stdout)
    return stdout


def _unbroken_of(stdout: TextIOWrapper) -> TextIOWrapper:
    return TextIOWrapper(
        BufferedWriter(_Unbroken(1, "w", closefd=False)),
        stdout.encoding,
        stdout.errors,
        line_buffering=stdout.line_buffering,
        write_through=stdout.write_through,
    )


def complain(text: str) -> None:
    """Says on standard error what is wrong."""
    click.echo(folded(f"virnucpro: {text}"), err=True)


class _Stderr(Console):
    """Falls silent where nobody reads it any more, or its disk is full: the run goes on."""

    def say(self, text: str) -> None:
        """One line."""
        try:
            self.print(folded(text), markup=False)
        except OSError:
            self.quiet = True

    def on_broken_pipe(self) -> None:
        """Fall silent instead of ending the program, which is rich's answer."""
        self.quiet = True


class Screen(Watcher):
    """Progress in a terminal or a file, for `with`.

    quiet leaves out everything but warnings and errors, bar=False only the bar and the periodic
    lines; verbose adds a line for each block, and what computes it.
    """

    def __init__(self, *, quiet: bool = False, bar: bool = True, verbose: bool = False) -> None:
        self._quiet = quiet
        self._verbose = verbose
        self._console = _Stderr(stderr=True, highlight=False, soft_wrap=True, emoji=False)
        self._started = monotonic()
        self._forecast = Forecast()
        self._note = ""
        self._progress: Progress | None = None
        self._ended = Event()
        self._lines: Thread | None = None
        if not bar or quiet:
            return
        console = self._console
        if sys.stderr.isatty() and not console.is_dumb_terminal and not console.no_color:
            self._progress = Progress(
                BarColumn(BAR_WIDTH),
                TaskProgressColumn(),
                TextColumn("{task.description}", markup=False),
                TimeElapsedColumn(),
                _Left(lambda: self._forecast.left_s(monotonic())),
                console=self._console,
                transient=True,
            )
            self._task = self._progress.add_task("starting", total=None)
        else:
            self._lines = Thread(target=self._plain_lines, daemon=True)

    def __enter__(self) -> Self:
        if self._lines is not None:
            self._lines.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._ended.set()
        if self._progress is not None:
            self._progress.stop()
        if self._lines is not None:
            self._lines.join(1.0)  # no longer: whoever reads the lines may have stopped reading

    def line(self, text: str) -> None:
        """One line of the log. Raises what a signal asked for and was not heard."""
        self._begin()
        if not self._quiet or text.startswith(WARNING):
            self._console.say(text)

    def detail(self, text: str) -> None:
        """One line for those who want every detail."""
        if self._verbose:
            self.line(text)

    def table(self, table: Table | Text) -> None:
        """A table before the work begins."""
        if not self._quiet:
            Paper(stderr=True).print(table)

    def advance(self, position: Position) -> None:
        """Show how far work is. Raises what a signal asked for and was not heard."""
        self._begin()
        forecast = self._forecast
        forecast.take(monotonic(), position)
        details = [position.note]
        if position.unit and forecast.rate is not None:
            details.append(f"{_few_digits(forecast.rate)} {position.unit}/s")
        if position.unit:
            details.append(f"{peak_memory_bytes() / 2**30:.2f} GiB")
        self._note = ", ".join(details)
        if position.unit:  # a bar has room for one count
            details[0] = position.note.rpartition(", ")[2]
        if self._progress is not None:
            share = forecast.share
            self._progress.update(
                self._task,
                completed=share or 0,
                total=None if share is None else 1.0,
                description=", ".join(details),
            )
        if self._verbose and position.count and position.whole:
            self.line(self.now())

    def _begin(self) -> None:
        """Take the signals, and show the bar: one that kills would leave the cursor hidden."""
        stop.check()
        if self._progress is not None and not self._ended.is_set():
            self._progress.start()

    def now(self) -> str:
        """Return how far the work is at this moment, in one line."""
        left, share = self._forecast.left_s(monotonic()), self._forecast.share
        parts = (
            "" if share is None else f"{share:.0%}",
            self._note or "starting",
            f"{duration(monotonic() - self._started)} elapsed",
            "" if left is None else f"{duration(left)} left",
        )
        return ", ".join(filter(None, parts))

    def _plain_lines(self) -> None:
        """A line every half minute, also while one block takes longer."""
        while not self._ended.wait(PLAIN_EVERY_S):
            self._console.say(self.now())


def _few_digits(rate: float) -> str:
    """Return a rate in few digits; a slow one is not shown as zero."""
    return f"{rate:,.0f}" if rate >= 10 else f"{rate:.2g}"
