"""The sample that a file is of, as its name says."""

import os
import re
from pathlib import Path

from virnucpro.reads.contig import printable
from virnucpro.reads.streams import STDIN

FASTA_SUFFIXES = (".fasta", ".fa", ".fna", ".ffn", ".fas", ".fsa", ".frn", ".seq")
GZIP_SUFFIXES = (".gz", ".gzip", ".bgz")
PACKED_SUFFIXES = (*GZIP_SUFFIXES, ".bz2", ".xz", ".zst", ".zstd")
RECORD_SUFFIXES = (*FASTA_SUFFIXES, ".fastq", ".fq", ".bam", ".cram", ".sam")
# A pipe that a shell opened for `<(...)`, whose number says nothing.
_DESCRIPTOR = re.compile(r"/(dev|proc/self|proc/\d+)/fd/\d+")
PIPE = "pipe"
_MATE_ENDS = re.compile(r"[._-]?R?$")


def sample_name(path: Path, other: Path | None = None) -> str:
    """The file's name without the suffixes of its format and compression, in any case.

    Of two files of mates what their names share, without an R at its end; of a pipe without a name
    PIPE.
    """
    if path == STDIN:
        return "stdin"
    if _DESCRIPTOR.fullmatch(str(path)):
        return PIPE
    name = decoded(path.name)
    for suffixes in (PACKED_SUFFIXES, RECORD_SUFFIXES):
        suffix = next((s for s in suffixes if name.lower().endswith(s)), "")
        name = name[: len(name) - len(suffix)] or name
    if other is not None:
        shared = os.path.commonprefix([name, sample_name(other)])  # noqa: RUF071 - letters
        name = _MATE_ENDS.sub("", shared, count=1) or name
    return name


def decoded(name: str) -> str:
    """A name from the system, which need not be UTF-8, as text that can be printed."""
    return printable(os.fsencode(name).decode("utf-8", errors="replace").encode())
