"""The files of a run: names, columns, rows, run.json. Knows nothing of devices."""

from virnucpro.results.read import ChunkRow, ContigRow, calls, contigs

__all__ = ["ChunkRow", "ContigRow", "calls", "contigs"]
