"""Ctrl-C and SIGTERM: the first ends a run in order, one that comes later at once."""

import os
import signal
from time import monotonic
from types import FrameType

from virnucpro.errors import Terminated

SIGNALS = (signal.SIGINT, signal.SIGTERM)
INTERRUPTED = 130


class Stop:
    """Takes the signals; what is finished of a run is safe whatever they do.

    Signals that come within a second are one: a scheduler may signal a process and its group.
    """

    def __init__(self) -> None:
        self._first: float | None = None
        self._raised: type[BaseException] = KeyboardInterrupt

    def begin(self) -> None:
        """Takes them from now on, but none that is ignored, as SIGINT is under nohup."""
        for number in SIGNALS:
            if signal.getsignal(number) != signal.SIG_IGN:
                signal.signal(number, self._take)

    def end(self) -> None:
        """Ignores them: Python would put all handlers but this one back while it ends."""
        for number in SIGNALS:
            signal.signal(number, signal.SIG_IGN)

    def _take(self, number: int, _frame: FrameType | None) -> None:
        if self._first is None:
            self._first = monotonic()
            self._raised = Terminated if number == signal.SIGTERM else KeyboardInterrupt
            raise self._raised
        if monotonic() - self._first > 1.0:
            os._exit(128 + number)

    def check(self) -> None:
        """Raises again what nobody heard of: the import of a big library may have swallowed it."""
        if self._first is not None:
            raise self._raised


stop = Stop()
