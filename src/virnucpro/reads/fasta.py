"""FASTA -> entries."""

import io
import re
from pathlib import Path

from virnucpro.errors import InputError
from virnucpro.reads.compression import READ_BYTES
from virnucpro.reads.contig import IUPAC, Entries, Entry, named
from virnucpro.reads.text import whole_lines

_WRONG = "not FASTA: a line that begins with '>' must come before any other text"
_PLAIN = bytes({*range(ord("!"), ord("~") + 1), ord("\n")} - {ord("#")})
_INDENTED = re.compile(rb"(?m)^[ \t\v\f]+>")
# As numbers, for which bytes are searched faster.
_HASH, _SPACE, _TAB, _VT, _FF = b"# \t\v\f"


def entries(text: io.BufferedReader, path: Path) -> Entries:
    """The records of a stream; if it breaks, the ones before the last one begun.

    Blank lines, lines that begin with '#', the kind of line end and a missing last one make no
    difference to a record. Raises InputError for what is not FASTA, and whatever broke the stream.
    """
    head = text.peek(READ_BYTES)
    header: bytes | None = None
    parts: list[bytes] = []
    lines = 0
    for block in whole_lines(text):
        before, *records = (b"\n" + block).split(b"\n>")
        if block.count(b">") != len(records):  # some are not at the beginning of a line
            before, *records = (b"\n" + _INDENTED.sub(b">", block)).split(b"\n>")
        if header is not None:
            parts.append(before)
        elif (line := _text_line(before)) is not None:
            raise InputError(_WRONG + _do(first_line(head)), path, lines + line)
        else:
            lines += block.count(b"\n")
        if records and header is not None:
            yield _entry(header, parts)
        make = _plain_entry if _is_plain(block) else _whole_entry
        yield from map(make, records[:-1])
        if records:
            header, _, letters = records[-1].partition(b"\n")
            parts = [letters]
    if header is not None:
        yield _entry(header, parts)


def _is_plain(block: bytes) -> bool:
    """Return whether nothing but line ends in a block has to be looked at."""
    return not block.translate(None, _PLAIN)


def _plain_entry(record: bytes) -> Entry:
    header, _, letters = record.partition(b"\n")
    name = header.decode("ascii")
    return name, name, letters.replace(b"\n", b""), 0, ""


def _whole_entry(record: bytes) -> Entry:
    header, _, letters = record.partition(b"\n")
    return _entry(header, [letters])


def _entry(header: bytes, parts: list[bytes]) -> Entry:
    text = parts[0] if len(parts) == 1 else b"\n".join(parts)
    letters = text.replace(b"\n", b"")
    if _HASH in letters or _SPACE in letters or _TAB in letters or _VT in letters or _FF in letters:
        lines = map(bytes.strip, text.split(b"\n"))
        letters = b"".join(line for line in lines if not line.startswith(b"#"))
    name, line = named(header.rstrip())
    return name, line, letters, 0, ""


def _text_line(text: bytes) -> int | None:
    """The number of the first line, after an empty one, that is neither blank nor a comment."""
    lines = enumerate(map(bytes.strip, text.split(b"\n")))
    return next((i for i, line in lines if line and not line.startswith(b"#")), None)


def first_line(head: bytes) -> bytes:
    """The first line that is neither blank nor a comment, without blanks around it; empty if none.

    head: the first bytes of a text.
    """
    lines = map(bytes.strip, head.splitlines())
    return next((line for line in lines if line and not line.startswith(b"#")), b"")


def _do(line: bytes) -> str:
    """Return what to do about a first line that is not FASTA."""
    if b"," in line or b"\t" in line:
        return "; this looks like a table: export its sequences, each below a line '>NAME'"
    if not line.translate(None, IUPAC):
        return "; these are letters without a name: put a line '>NAME' before them"
    return "; give FASTA, FASTQ, BAM or CRAM"


def line_of_letter(text: io.BufferedReader, record: int) -> int | None:
    """The line of a record's first letter outside IUPAC, by a scan of its own."""
    seen = number = 0
    for block in whole_lines(text):
        for line in map(bytes.strip, block.splitlines()):
            number += 1
            seen += line.startswith(b">")
            if seen == record and line[:1] not in (b">", b"#") and line.translate(None, IUPAC):
                return number
    return None
