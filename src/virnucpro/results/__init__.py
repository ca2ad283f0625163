"""The files of a run: names, columns, rows, run.json. Knows nothing of devices."""

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from virnucpro.results.read import ChunkRow, ContigRow, calls, contigs

__all__ = ["ChunkRow", "ContigRow", "calls", "contigs"]


def __getattr__(name: str) -> Any:  # noqa: ANN401
    """Import the readers of tables when they are asked for: they load numpy."""
    if name in __all__:
        from virnucpro.results import read

        return getattr(read, name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
