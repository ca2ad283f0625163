"""What a person sees on stderr meanwhile: a bar on a terminal, plain lines elsewhere."""

import sys
from time import monotonic
from types import TracebackType
from typing import Self

from rich.console import Console
from rich.progress import (
    BarColumn,
    Progress,
    TaskProgressColumn,
    TextColumn,
    TimeElapsedColumn,
)
from rich.table import Table
from rich.text import Text

from virnucpro.cli.stopping import stop
from virnucpro.progress import Position

PLAIN_EVERY_S = 30.0
PAPER_WIDTH = 240


def duration(seconds: float) -> str:
    """Seconds as h:mm:ss."""
    minutes, rest = divmod(round(seconds), 60)
    return f"{minutes // 60}:{minutes % 60:02}:{rest:02}"


def paper(*, wide: bool = False) -> Console:
    """Standard output for tables.

    As wide as a terminal; elsewhere, or on request, so wide that nothing is cut or folded.
    """
    width = None if sys.stdout.isatty() and not wide else PAPER_WIDTH
    return Console(width=width, markup=False, emoji=False, highlight=False)


class Screen:
    """A watcher of runs and of training, for `with`.

    quiet leaves out everything but errors, bar=False only the bar and the periodic lines.
    """

    def __init__(self, *, quiet: bool = False, bar: bool = True) -> None:
        self._quiet = quiet
        self._console = Console(stderr=True, highlight=False, soft_wrap=True, emoji=False)
        self._moving = bar and not quiet
        self._progress: Progress | None = None
        if self._moving and sys.stderr.isatty():
            self._progress = Progress(
                TextColumn("{task.description}"),
                BarColumn(),
                TaskProgressColumn(),
                TextColumn("{task.fields[note]}"),
                TimeElapsedColumn(),
                TextColumn("ETA {task.fields[left]}"),
                console=self._console,
                transient=True,
            )
            self._task = self._progress.add_task("working", total=None, note="", left="unknown")
        self._started = self._last = monotonic()

    def __enter__(self) -> Self:
        if self._progress is not None:
            self._progress.start()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        if self._progress is not None:
            self._progress.stop()

    def line(self, text: str) -> None:
        """One line of the log. Raises what a signal asked for and was not heard."""
        stop.check()
        if not self._quiet:
            self._console.print(text, markup=False)

    def table(self, table: Table | Text) -> None:
        """A table before the work begins."""
        if not self._quiet:
            width = None if sys.stderr.isatty() else PAPER_WIDTH
            Console(stderr=True, width=width, highlight=False, emoji=False).print(table)

    def position(self, position: Position) -> None:
        """How far a run is."""
        seconds = max(monotonic() - self._started, 1e-3)
        note = (
            f"{position.records:,} records, {position.chunks:,} chunks, "
            f"{(position.chunks - position.chunks_before) / seconds:,.0f} chunks/s"
        )
        self.step(position.bytes_read, position.bytes_total, note, position.bytes_before)

    def step(self, done: int, total: int, note: str, before: int = 0) -> None:
        """How far any work is; before: what was done already when it began."""
        if not self._moving:
            return
        now = monotonic()
        spent = now - self._started
        here = done - before
        left = duration(spent * (total - done) / here) if here and total else "unknown"
        if self._progress is not None:
            whole = total or None  # of a pipe nobody knows it
            self._progress.update(self._task, completed=done, total=whole, note=note, left=left)
        elif now - self._last >= PLAIN_EVERY_S:
            self._last = now
            share = f"{done / total:.0%}" if total else f"{done / 1e6:,.1f} MB read"
            self.line(f"{share}, {note}, {duration(spent)} elapsed, {left} left")
