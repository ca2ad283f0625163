"""`python -m virnucpro`, which is the program `virnucpro`; and `virnucpro-compat`."""

import os
import signal
import sys


def main() -> None:
    """Run the program and exit; what takes its time is imported here."""
    _begin()
    from virnucpro.cli import main

    main()


def compat() -> None:
    """Run virnucpro-compat and exit."""
    _begin()
    from virnucpro.cli import main
    from virnucpro.cli.compat import compat

    main(compat)


def _begin() -> None:
    _open_missing_streams()
    # No traceback of a Ctrl-C while nothing has begun; cli.signals takes it later.
    if signal.getsignal(signal.SIGINT) != signal.SIG_IGN:
        signal.signal(signal.SIGINT, signal.SIG_DFL)


def _open_missing_streams() -> None:
    """Open descriptors 0, 1 and 2 where they are missing: the next file would take their numbers.

    What is printed to them then goes nowhere, as to /dev/null. sys.stdin stays None where it was:
    nothing is piped in.
    """
    while (descriptor := os.open(os.devnull, os.O_RDWR)) <= 2:
        os.set_inheritable(descriptor, True)
    os.close(descriptor)
    if sys.stdout is None:
        sys.stdout = open(1, "w", closefd=False)  # noqa: SIM115
    if sys.stderr is None:
        sys.stderr = open(2, "w", closefd=False)  # noqa: SIM115


if __name__ == "__main__":
    main()
