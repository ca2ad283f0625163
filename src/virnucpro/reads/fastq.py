"""FASTQ -> entries; what follows '+', and the qualities, are not looked at."""

import io
from pathlib import Path

from virnucpro.errors import InputError, StreamBroken
from virnucpro.reads.contig import Entries, named
from virnucpro.reads.text import whole_lines

_DOT = ord(".")  # as a number, for which bytes are searched faster
_BEGIN = "a record must begin here, with '@'"
_PLUS = (
    "the third line of a record must begin with '+' (FASTQ whose sequences go over several lines "
    "cannot be read; write each on one line)"
)
_JOINED = f"{_BEGIN} (a line end may be missing where two files were joined)"
_CUT = "the file ends within a record"


def entries(text: io.BufferedReader, path: Path) -> Entries:
    """The records of a stream; if it breaks, the complete ones.

    Blank lines between records, blanks around letters and the kind of line end are passed over; a
    '.' is read as N, as old sequencers wrote it. Raises InputError for what is not FASTQ,
    StreamBroken where a record after others is malformed, and whatever broke the stream.
    """
    record, name, line = 0, "", 1
    lines: list[bytes] = [b""]
    for block in whole_lines(text):
        lines[-1:] = (lines[-1] + block).split(b"\n")
        at, last = 0, len(lines) - 5
        while at <= last:
            header = lines[at]
            if header[:1] != b"@":
                if not header or header.isspace():
                    at += 1
                    continue
                longer = at > 3 and len(lines[at - 1]) > len(lines[at - 3])
                raise _malformed(_JOINED if longer else _BEGIN, path, line + at, record, name)
            if lines[at + 2][:1] != b"+":
                raise _malformed(_PLUS, path, line + at + 2, record, name)
            letters = lines[at + 1].strip()
            if _DOT in letters:
                letters = letters.replace(b".", b"N")
            record += 1
            name, text_of_header = named(header[1:])
            yield name, text_of_header, letters, 0, ""
            at += 4
        del lines[:at]
        line += at
    while lines and not lines[0].strip():
        del lines[0]
        line += 1
    if not lines:
        return
    header, letters, plus, qualities = [*lines, b"", b"", b""][:4]
    if header[:1] != b"@":
        raise _malformed(_BEGIN, path, line, record, name)
    if (len(lines) > 3 or plus) and plus[:1] != b"+":
        raise _malformed(_PLUS, path, line + 2, record, name)
    letters = letters.strip()
    if len(lines) < 4 or (letters and not qualities):
        raise _malformed(_CUT, path, line + len(lines) - 1, record, name)
    name, text_of_header = named(header[1:])
    yield name, text_of_header, letters.replace(b".", b"N"), 0, ""
    if len(qualities) < len(letters):
        raise _malformed(_CUT, path, line + 3, record + 1, name)


def _malformed(why: str, path: Path, line: int, record: int, name: str) -> InputError:
    if not record:
        return InputError(f"not FASTQ: {why}", path, line)
    return StreamBroken(
        f"{why}; record {record} ({name}) is the last one that was read and is kept; correct the "
        "file, or copy it again, and repeat the run",
        path,
        line,
    )


def line_of_sequence(text: io.BufferedReader, record: int) -> int | None:
    """Return the line on which the letters of a record stand, by a scan of its own."""
    place = seen = number = 0
    for block in whole_lines(text):
        for line in block.split(b"\n")[: block.count(b"\n")]:
            number += 1
            if place or line.strip():
                seen += not place
                place = (place + 1) % 4
                if (seen, place) == (record, 2):
                    return number
    return None
