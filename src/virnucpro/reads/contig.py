"""Contigs, which every reader delivers, with names and letters as they stand in the input."""

from collections.abc import Generator
from dataclasses import dataclass, field
from typing import NamedTuple

IUPAC = b"ACGTUNRYSWKMBDHVacgtunryswkmbdhv"
# Letters of proteins that no nucleotide code uses.
PROTEIN_ONLY = "EFILPQ"
# What names of mates may end in where the two differ; the first is the usual one.
MATE_MARKS = ("/", ".", "_")
# How a table tells the mate that a record is: as its name ends in most files; by Contig.mate.
MATE_TEXTS = ("", "/1", "/2")

_TO_LETTERS = bytes.maketrans(b"acgtunryswkmbdhvU", b"ACGTTNRYSWKMBDHVT")
# Control letters, and what else ends a line for some reader.
_CONTROLS = dict.fromkeys(
    [*range(0x20), *range(0x7F, 0xA0), 0x2028, 0x2029], "\N{REPLACEMENT CHARACTER}"
)


class Contig(NamedTuple):
    """One record of an input, a read or an assembled sequence.

    record counts from 1 within the input. name is the first word of the header, up to a blank of
    ASCII, empty if the header is; for an alignment it is its QNAME, blanks included. sequence
    holds the letters as they stand in the input, without line ends. fault says why the contig
    cannot be processed; its sequence is then empty, and refused_nt how long it was.
    header is the whole first line, without '>' or '@'. mate: 1 or 2 of a pair, 0 outside of one.
    short: whether it has fewer letters than are asked for, so that it is listed and not classified.
    code: the genetic code by which its frames are read.
    """

    sample: str
    record: int
    name: str
    sequence: bytes
    fault: str = ""
    header: str = ""
    mate: int = 0
    short: bool = False
    refused_nt: int = 0
    code: int = 1

    @property
    def length_nt(self) -> int:
        """The number of letters that it has in the input."""
        return len(self.sequence) or self.refused_nt

    def refused(self, fault: str) -> "Contig":
        """Return it without its letters, as one that cannot be processed for this reason."""
        return self._replace(sequence=b"", fault=fault, refused_nt=len(self.sequence))


@dataclass(frozen=True, slots=True)
class Seen:
    """The records that a pass over an input has delivered so far.

    records: how many; crc: CRC-32 over their headers and letters; sha256: hex digest of the whole
    input, empty unless the pass reached its end. mates: whether there was one of a pair.
    """

    records: int = 0
    crc: int = 0
    sha256: str = ""
    mates: bool = field(default=False, compare=False)


# A record as its format gives it: name, header and sequence; mate and sample where the format knows
# them, else 0 and nothing. Tuples, since they are made by the million.
Entry = tuple[str, str, bytes, int, str]
Entries = Generator[Entry, None, None]


def letters(sequence: bytes) -> bytes:
    """Return letters in upper case, U read as T; other IUPAC codes are kept."""
    return sequence.translate(_TO_LETTERS)


def named(header: bytes) -> tuple[str, str]:
    """Return the name in a header, and the header, whose bytes outside UTF-8 are escaped."""
    text = header.decode("utf-8", "surrogateescape")
    if " " not in text and text.isprintable():
        return text, text
    words = header.split(None, 1)
    return printable(words[0]) if words else "", text


def printable(name: bytes) -> str:
    """Return a name without control letters, read as UTF-8, and as Latin-1 where it is not."""
    text = decoded_text(name)
    return text if text.isprintable() else text.translate(_CONTROLS)


def decoded_text(data: bytes) -> str:
    """Return data read as UTF-8, and as Latin-1 where it is not UTF-8."""
    try:
        return data.decode("utf-8")
    except UnicodeDecodeError:
        return data.decode("latin-1")


def template_of(first: str, second: str) -> str | None:
    """Return the name that two mates share; None where two names are not of mates.

    Their names are the same, or end in /1 and /2 (also .1 and .2, _1 and _2) and are the same
    before that.
    """
    if first == second:
        return first
    marked = first[:-1] == second[:-1] and (first[-1:], second[-1:]) == ("1", "2")
    return first[:-2] if marked and first[-2:-1] in MATE_MARKS and len(first) > 2 else None


def why_not_dna(text: str) -> str:
    """Return what is wrong with text, whose first letter is outside IUPAC, and what to do."""
    if text[0] == "\ufeff":
        return (
            "a byte-order mark, which an editor left where files were joined; remove it, as with "
            r"`sed 's/\xef\xbb\xbf//g'`"
        )
    if text[0] == "\0":
        return "a zero byte, as text in UTF-16 and binary files do; save it as UTF-8"
    letter = "a space" if text[0] == " " else f"the letter {text[0]!r}"
    why = f"{letter}, which is no IUPAC nucleotide code"
    if text[0] == ">":
        return f"{why}: a line end is missing before it, perhaps where files were joined; put it in"
    if any(residue in text.upper() for residue in PROTEIN_ONLY):
        return f"{why}: this looks like protein; give the DNA or RNA that it was translated from"
    if text[0] in "-.":
        return f"{why}: this looks like an alignment; remove its gaps"
    return f"{why}; correct or remove the record"
