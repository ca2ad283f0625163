"""Ctrl-C, SIGTERM and SIGHUP: they kill the program at once until there is work to save.

From then on the first one raises, so that work ends in order, and one that comes later ends the
program at once. What is finished of a run is safe whatever they do.
"""

import os
import signal
from contextlib import suppress
from time import monotonic
from types import FrameType

from virnucpro.errors import Terminated

INTERRUPTED = 130
SIGNALS = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)
# Signals that come within this time are one: a scheduler may signal a process and its group.
TOGETHER_S = 1.0
_SHOW_CURSOR = b"\r\x1b[2K\x1b[?25h"  # and clears the line that ^C or a bar stands in


class Stop:
    """The signals that end the program."""

    def __init__(self) -> None:
        self._taken = False
        self._first: float | None = None
        self._raised: type[BaseException] = KeyboardInterrupt

    def check(self) -> None:
        """Take the signals from now on, and raise what one asked for and was swallowed since."""
        if not self._taken:
            self._taken = True
            for number in SIGNALS:
                if signal.getsignal(number) != signal.SIG_IGN:  # as under nohup
                    signal.signal(number, self._take)
        if self._first is not None:
            raise self._raised

    def end(self) -> None:
        """Ignore the signals: Python puts its own handlers back while it ends."""
        for number in SIGNALS:
            signal.signal(number, signal.SIG_IGN)

    def _take(self, number: int, _frame: FrameType | None) -> None:
        if self._first is None:
            self._first = monotonic()
            self._raised = KeyboardInterrupt if number == signal.SIGINT else Terminated
            raise self._raised
        if monotonic() - self._first > TOGETHER_S:
            with suppress(OSError):  # nobody reads it
                cursor = _SHOW_CURSOR if os.isatty(2) else b""
                os.write(2, cursor + b"virnucpro: stopped at once\n")
            os._exit(128 + number)


stop = Stop()
