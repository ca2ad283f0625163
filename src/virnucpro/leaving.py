"""The end of the program at once, by a signal. It comes first, so it imports next to nothing."""

import os
import signal
from contextlib import suppress
from types import FrameType

SIGNALS = (signal.SIGINT, signal.SIGTERM)
_SHOW_CURSOR = b"\r\x1b[2K\x1b[?25h"  # and clears the line, which ^C or a bar stands in


def take_early() -> None:
    """Takes the signals while nothing has begun, but none that is ignored, as under nohup."""
    for number in SIGNALS:
        if signal.getsignal(number) != signal.SIG_IGN:
            signal.signal(number, leave)


def leave(number: int, _frame: FrameType | None = None, said: str = "before it began") -> None:
    """Ends the process with a line, and does nothing else."""
    line = f"virnucpro: stopped {said}\n".encode()
    with suppress(OSError):  # nobody reads it
        os.write(2, (_SHOW_CURSOR if os.isatty(2) else b"") + line)
    os._exit(128 + number)
