"""Input files -> a stream of contigs, whatever their format and compression."""

from virnucpro.reads.compression import GZIP_ERRORS, GZIP_MAGIC
from virnucpro.reads.contig import Contig, Seen, letters, template_of
from virnucpro.reads.mates import are_pair
from virnucpro.reads.sources import (
    FASTA_SUFFIXES,
    GZIP_SUFFIXES,
    PAIRS,
    TRIAL_RECORDS,
    Reading,
    Source,
    decoded,
    holds_records,
    open_sources,
    sample_name,
)
from virnucpro.reads.streams import STDIN

__all__ = [
    "FASTA_SUFFIXES",
    "GZIP_ERRORS",
    "GZIP_MAGIC",
    "GZIP_SUFFIXES",
    "PAIRS",
    "STDIN",
    "TRIAL_RECORDS",
    "Contig",
    "Reading",
    "Seen",
    "Source",
    "are_pair",
    "decoded",
    "holds_records",
    "letters",
    "open_sources",
    "sample_name",
    "template_of",
]
