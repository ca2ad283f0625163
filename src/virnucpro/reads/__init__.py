"""Input files -> a stream of contigs, whatever their format and compression."""

from virnucpro.reads.compression import GZIP_ERRORS, GZIP_MAGIC
from virnucpro.reads.contig import MATE_TEXTS, Contig, Seen, letters, template_of
from virnucpro.reads.files import PAIRS, Reading
from virnucpro.reads.mates import are_pair
from virnucpro.reads.names import FASTA_SUFFIXES, GZIP_SUFFIXES, decoded, sample_name
from virnucpro.reads.sources import TRIAL_RECORDS, Source, holds_records, open_sources
from virnucpro.reads.streams import STDIN

__all__ = [
    "FASTA_SUFFIXES",
    "GZIP_ERRORS",
    "GZIP_MAGIC",
    "GZIP_SUFFIXES",
    "MATE_TEXTS",
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
