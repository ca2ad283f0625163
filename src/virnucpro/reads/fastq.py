"""FASTQ -> entries; qualities are checked for their number and then ignored."""

import io
import re
from pathlib import Path
from typing import BinaryIO, cast

from dnaio import FastqReader
from dnaio.exceptions import FastqFormatError

from virnucpro.errors import InputError, StreamBroken
from virnucpro.reads.contig import Entries, first_word
from virnucpro.reads.text import AsciiStream, unescaped

_CUT = "Premature end"
# What dnaio says -> what a user should know.
_WRONG = {
    "expected to start with '@'": "a record must begin here, with '@'",
    "expected to start with '+'": "the third line of a record must begin with '+' (FASTQ whose "
    "sequences go over several lines cannot be read; write each on one line)",
    "qualities differ": "the sequence and its qualities are not of the same length",
    "descriptions don't match": "the name after '+' is not that of the record",
    _CUT: "the file ends within a record",
}
_BLANK_END = re.compile(r"incomplete final record was: '(\\[nr])*'$")


def entries(text: io.BufferedReader, path: Path) -> Entries:
    """The records of a stream; if it breaks, those that are complete.

    Raises InputError for what is no FASTQ, StreamBroken where a record after others is malformed,
    and whatever broke the stream.
    """
    stream, record, last = AsciiStream(text), 0, ""
    try:
        for entry in FastqReader(cast("BinaryIO", stream)):
            record, last = record + 1, entry.name
            yield unescaped(entry.name), entry.sequence.encode("ascii"), 0, ""
    except FastqFormatError as error:
        last_line = error.line is not None and error.line >= stream.line_ends
        cut = stream.broken is not None and (last_line or _CUT in str(error))
        if not cut and not _BLANK_END.search(str(error)):
            why = next((why for said, why in _WRONG.items() if said in str(error)), str(error))
            line = None if error.line is None else error.line + 1
            if not record:
                raise InputError(f"this is no FASTQ: {why}", path, line) from error
            raise StreamBroken(
                f"{why}; record {record} ({first_word(unescaped(last))}) is the last one that was "
                "read and is kept; correct the file, or copy it again, and repeat the run",
                path,
                line,
            ) from error
    if stream.broken is not None:
        raise stream.broken


def line_of_sequence(record: int) -> int:
    """Where the letters of a record stand."""
    return 4 * record - 2
