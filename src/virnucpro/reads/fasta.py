"""FASTA -> entries."""

import io
from pathlib import Path
from typing import BinaryIO, cast

from dnaio import FastaReader
from dnaio.exceptions import FastaFormatError

from virnucpro.errors import InputError
from virnucpro.reads.compression import READ_BYTES
from virnucpro.reads.contig import IUPAC, Entries, Entry
from virnucpro.reads.text import AsciiStream, unescaped

_WRONG = "this is no FASTA: a line that begins with '>' must come before any other text"


def entries(text: io.BufferedReader, path: Path) -> Entries:
    """The records of a stream; if it breaks, those before the last one begun.

    Blank lines, lines that begin with '#', the kind of line end and a missing last one are nothing
    to a record. Raises InputError for what is no FASTA, and whatever broke the stream.
    """
    stream = AsciiStream(text)
    head = text.peek(READ_BYTES)
    waiting: Entry | None = None
    try:
        for entry in FastaReader(cast("BinaryIO", stream)):
            if waiting is not None:
                yield waiting
            waiting = unescaped(entry.name), entry.sequence.encode("ascii"), 0, ""
    except FastaFormatError as error:
        raise InputError(_WRONG + _do(first_line(head)), path, (error.line or 0) + 1) from error
    if stream.broken is not None:
        raise stream.broken
    if waiting is not None:
        yield waiting


def first_line(head: bytes) -> bytes:
    """The first line that is neither blank nor a comment, without blanks around it; empty if none.

    head: the first bytes of a text.
    """
    lines = map(bytes.strip, head.splitlines())
    return next((line for line in lines if line and not line.startswith(b"#")), b"")


def _do(line: bytes) -> str:
    """What to do about a first line that is none of FASTA."""
    if b"," in line or b"\t" in line:
        return "; this looks like a table: export its sequences, each below a line '>NAME'"
    if not line.translate(None, IUPAC):
        return "; these are letters without a name: put a line '>NAME' before them"
    return "; give FASTA, FASTQ, BAM or CRAM"


def line_of_letter(text: io.BufferedReader, record: int) -> int | None:
    """The line of a record's first letter outside IUPAC, by a scan of its own."""
    allowed = dict.fromkeys(IUPAC)
    seen = 0
    lines = io.TextIOWrapper(text, encoding="ascii", errors="surrogateescape")
    for number, line in enumerate(map(str.strip, lines), 1):
        seen += line.startswith(">")
        if seen == record and not line.startswith((">", "#")) and line.translate(allowed):
            return number
    return None
