"""Ctrl-C and SIGTERM: the first ends a run in order, one that comes later at once."""

import signal
import sys
from time import monotonic
from types import FrameType
from typing import TYPE_CHECKING, Any, NoReturn

from virnucpro.errors import Terminated
from virnucpro.leaving import SIGNALS, leave

if TYPE_CHECKING:
    from sys import UnraisableHookArgs

INTERRUPTED = 130
IMPORTING = "<frozen importlib._bootstrap>"
AGAIN_S = 0.02


class Stop:
    """Takes the signals; what is finished of a run is safe whatever they do.

    Signals that come within a second are one: a scheduler may signal a process and its group.
    """

    def __init__(self) -> None:
        self._first: float | None = None
        self._raised: type[BaseException] = KeyboardInterrupt
        self._number: int = signal.SIGINT
        self._begun = False
        self._waits = False
        self._timed = False
        self._alarm: Any = signal.SIG_DFL

    def begin(self) -> None:
        """Takes them from now on, but none that is ignored, as SIGINT is under nohup."""
        self._alarm = signal.signal(signal.SIGALRM, self._later)
        sys.unraisablehook = self._unraisable
        for number in SIGNALS:
            if signal.getsignal(number) != signal.SIG_IGN:
                signal.signal(number, self._take)

    def end(self) -> None:
        """Ignores them: Python would put all handlers but this one back while it ends."""
        for number in SIGNALS:
            signal.signal(number, signal.SIG_IGN)
        if self._timed:  # nobody else's alarm; ours may still come where check was sooner
            signal.setitimer(signal.ITIMER_REAL, 0)
        signal.signal(signal.SIGALRM, self._alarm)
        sys.unraisablehook = sys.__unraisablehook__

    def _take(self, number: int, frame: FrameType | None) -> None:
        if self._first is None:
            self._first = monotonic()
            self._number = number
            self._raised = Terminated if number == signal.SIGTERM else KeyboardInterrupt
            self._waits = True
            self._later(number, frame)
        elif monotonic() - self._first > 1.0:
            leave(number, said="at once")

    def _later(self, _number: int, frame: FrameType | None) -> None:
        """Raises what was asked for, but in no import: a big library may swallow or garble it."""
        if not self._waits:
            return
        if not _is_importing(frame):
            self._raise()
        if not self._begun:
            leave(self._number, said="before the end")
        self._timed = True
        signal.setitimer(signal.ITIMER_REAL, AGAIN_S)

    def _raise(self) -> NoReturn:
        self._waits = False
        raise self._raised

    def _unraisable(self, found: "UnraisableHookArgs") -> None:
        """Where it was raised and could not be passed on; check does so."""
        if self._first is None or not issubclass(found.exc_type, self._raised):
            sys.__unraisablehook__(found)

    def check(self) -> None:
        """Raises again what nobody heard of. From the first call on there is work to be saved."""
        self._begun = True
        if self._first is not None:
            self._raise()


def _is_importing(frame: FrameType | None) -> bool:
    while frame is not None and frame.f_code.co_filename != IMPORTING:
        frame = frame.f_back
    return frame is not None


stop = Stop()
