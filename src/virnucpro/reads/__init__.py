"""Input files -> a stream of contigs, whatever their format and compression."""

from virnucpro.reads.compression import GZIP_ERRORS, GZIP_MAGIC
from virnucpro.reads.contig import Contig, Seen, letters, template_of
from virnucpro.reads.files import PAIRS, Reading
from virnucpro.reads.names import FASTA_SUFFIXES, GZIP_SUFFIXES, sample_name
from virnucpro.reads.sources import TRIAL_RECORDS, Source, files_in, open_sources

__all__ = [
    "FASTA_SUFFIXES",
    "GZIP_ERRORS",
    "GZIP_MAGIC",
    "GZIP_SUFFIXES",
    "PAIRS",
    "TRIAL_RECORDS",
    "Contig",
    "Reading",
    "Seen",
    "Source",
    "files_in",
    "letters",
    "open_sources",
    "sample_name",
    "template_of",
]
