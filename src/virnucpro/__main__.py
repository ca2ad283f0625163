"""`python -m virnucpro`, which is the program `virnucpro`."""

import os
import signal
import sys


def main() -> None:
    """Run the program and exit; what takes its time is imported here."""
    # A descriptor that is missing would be given to the next file that is opened.
    while (descriptor := os.open(os.devnull, os.O_RDWR)) <= 2:
        pass
    os.close(descriptor)
    # Python has none where the descriptor was missing, and libraries write to them unasked.
    sys.stdout = sys.stdout or open(1, "w", closefd=False)  # noqa: SIM115
    sys.stderr = sys.stderr or open(2, "w", closefd=False)  # noqa: SIM115
    # No traceback of a Ctrl-C while nothing has begun; cli.signals takes it later.
    if signal.getsignal(signal.SIGINT) != signal.SIG_IGN:
        signal.signal(signal.SIGINT, signal.SIG_DFL)
    from virnucpro.cli import main

    main()


if __name__ == "__main__":
    main()
