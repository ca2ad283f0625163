"""Entries read by a thread of its own, since htslib does not hear a signal while it waits."""

from collections.abc import Callable
from concurrent.futures import Future, ThreadPoolExecutor

from virnucpro.reads.contig import Entries, Entry

# What is read at a time, ahead of what is asked for.
_ENTRIES, _LETTERS = 512, 1 << 20


def ahead(entries: Entries, stop: Callable[[], None]) -> Entries:
    """The same, some of them ahead; an error is raised where it would have been.

    stop: makes entries end soon if they wait for more; it is called where nobody wants the rest.
    """
    with ThreadPoolExecutor(1) as thread:

        def begun() -> tuple[list[Entry], "Future[None]"]:
            found: list[Entry] = []
            return found, thread.submit(_fill, found, entries)

        following = begun()
        try:
            while True:
                found, filled = following
                error = filled.exception()
                if error is None and found:
                    following = begun()
                yield from found
                if error is not None:
                    raise error
                if not found:
                    return
        finally:
            stop()
            thread.submit(entries.close).result()


def _fill(found: list[Entry], entries: Entries) -> None:
    """Puts in the next entries, some; none at the end."""
    letters = 0
    for entry in entries:
        found.append(entry)
        letters += len(entry[2])
        if len(found) == _ENTRIES or letters > _LETTERS:
            return
