"""`python -m virnucpro`, which is the program `virnucpro`."""

from virnucpro.leaving import take_early


def main() -> None:
    """Runs the program and exits; what takes its time is imported when signals are taken."""
    take_early()
    from virnucpro.cli import main

    main()


if __name__ == "__main__":
    main()
