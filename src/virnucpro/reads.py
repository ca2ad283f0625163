"""Input files -> a stream of contigs.

Each file is read once, from start to end; its sha256 and the bytes read so far fall out of the same
pass. This module knows no chunk, no encoder and no table.
"""

import gzip
import hashlib
import io
import os
import re
import stat
import zlib
from collections.abc import Generator, Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING, BinaryIO, cast

from dnaio import FastaReader
from dnaio.exceptions import FastaFormatError

from virnucpro.errors import InputError, StreamBroken

if TYPE_CHECKING:
    from _typeshed import WriteableBuffer

IUPAC = b"ACGTUNRYSWKMBDHVacgtunryswkmbdhv"
# Letters of proteins that no nucleotide code uses.
PROTEIN_ONLY = "EFILPQ"
# A letter outside IUPAC in one of so many first records means that the file is no DNA.
TRIAL_RECORDS = 100
FASTA_SUFFIXES = (".fasta", ".fa", ".fna", ".ffn", ".fas", ".fsa", ".frn", ".seq")
GZIP_SUFFIXES = (".gz", ".gzip", ".bgz")
GZIP_ERRORS = (EOFError, gzip.BadGzipFile, zlib.error)
GZIP_MAGIC = b"\x1f\x8b"
OTHER_MAGIC = {
    b"BZh": "compressed with bzip2",
    b"\xfd7zXZ\x00": "compressed with xz",
    b"\x28\xb5\x2f\xfd": "compressed with zstd",
    b"PK\x03\x04": "a zip archive",
    b"CRAM": "a CRAM file",
    b"BAM\x01": "a BAM file",
    b"\xff\xfe": "text in UTF-16",
    b"\xfe\xff": "text in UTF-16",
}
UTF8_MARK = b"\xef\xbb\xbf"
READ_BYTES = 1 << 16

_ESCAPE = 0x1A
_TO_ESCAPE = re.compile(rb"[\x1a\x80-\xff]")
_FROM_ESCAPE = re.compile(rb"\x1a([0-9a-f]{2})")
_TO_LETTERS = bytes.maketrans(b"acgtunryswkmbdhvU", b"ACGTTNRYSWKMBDHVT")
_CONTROLS = dict.fromkeys([*range(0x20), *range(0x7F, 0xA0)], "\N{REPLACEMENT CHARACTER}")


@dataclass(frozen=True, slots=True)
class Contig:
    """One record of an input, a read or an assembled sequence.

    record counts from 1 within the input. name is the first word of the header, empty if the header
    is. sequence holds the letters exactly as they stand in the input, without line ends. fault says
    why the contig cannot be processed; its sequence is then empty, and refused_nt how long it was.
    header is the whole first line, without '>'.
    """

    sample: str
    record: int
    name: str
    sequence: bytes = field(repr=False)
    fault: str = ""
    header: str = field(default="", repr=False)
    refused_nt: int = 0

    @property
    def length_nt(self) -> int:
        """Letters that it has in the input."""
        return len(self.sequence) or self.refused_nt

    def refused(self, fault: str) -> "Contig":
        """The same without its letters, as one that cannot be processed for this reason."""
        return replace(self, sequence=b"", fault=fault, refused_nt=len(self.sequence))


@dataclass(frozen=True, slots=True)
class Seen:
    """What a pass over an input has delivered so far.

    records: how many; crc: CRC-32 over their headers and letters; sha256: hex digest of the whole
    file, empty unless the pass reached its end.
    """

    records: int = 0
    crc: int = 0
    sha256: str = ""


def letters(sequence: bytes) -> bytes:
    """Upper case, U read as T; other IUPAC codes are kept."""
    return sequence.translate(_TO_LETTERS)


def open_sources(paths: Sequence[Path], sample: str | None = None) -> list["Source"]:
    """The inputs of a run, each checked at once to be a file that can be read.

    sample replaces the name that is made from the file's. Raises InputError for a path that cannot
    be read, and for two inputs of one sample name: rows are told apart by sample and record.
    """
    sources: list[Source] = []
    for path in paths:
        _check_readable(path)
        source = Source(path, sample_name(path) if sample is None else _decoded(sample))
        for other in sources:
            if other.sample == source.sample:
                raise InputError(
                    f"its rows would carry the same sample name, {source.sample}, as those of "
                    f"{other.path}; classify the two in runs of their own, or rename one",
                    path,
                )
        sources.append(source)
    return sources


def sample_name(path: Path) -> str:
    """The file's name without the suffixes of FASTA and gzip, in any case; others stay."""
    name = _decoded(path.name)
    for suffixes in (GZIP_SUFFIXES, FASTA_SUFFIXES):
        suffix = next((s for s in suffixes if name.lower().endswith(s)), "")
        name = name[: len(name) - len(suffix)] or name
    return name


def _decoded(name: str) -> str:
    """A name from the system, which need not be UTF-8, as text that can be printed."""
    return _printable(os.fsencode(name).decode("utf-8", errors="replace"))


def _check_readable(path: Path) -> None:
    if str(path) == "-":
        raise InputError("standard input cannot be read yet; write it to a file and name that")
    try:
        mode = path.stat().st_mode
        if stat.S_ISREG(mode):
            path.open("rb").close()
    except OSError as error:
        raise InputError(f"cannot be read ({error.strerror}); check the path", path) from error
    if stat.S_ISDIR(mode):
        raise InputError("this is a directory; name the FASTA file in it", path)
    if not stat.S_ISREG(mode):
        raise InputError("pipes and devices cannot be read yet; write it to a file", path)


class Source:
    """One input file, FASTA, plain or gzipped (told by its content, not by its name).

    seen: what contigs has delivered.
    """

    def __init__(self, path: Path, sample: str) -> None:
        self.path = path
        self.sample = sample
        self.size_bytes = path.stat().st_size
        self.seen = Seen()
        self._raw: _HashedFile | None = None

    @property
    def bytes_read(self) -> int:
        """How much of the file, as it lies on the disk, was read so far."""
        return 0 if self._raw is None else self._raw.bytes_read

    @property
    def sha256(self) -> str:
        """Hex digest of the whole file, as it lies on the disk; empty until it was read."""
        return "" if self._raw is None else self._raw.sha256

    def whole_sha256(self) -> str:
        """Hex digest of the whole file, by a pass of its own. Raises InputError."""
        try:
            with self.path.open("rb") as file:
                return hashlib.file_digest(file, "sha256").hexdigest()
        except OSError as error:
            raise InputError(f"cannot be read ({error.strerror}); check it", self.path) from error

    def contigs(self) -> Generator[Contig, None, None]:
        """Every record of the file, in order; a file without any text has none.

        Blank lines, lines that begin with '#', the kind of line end and a missing last one are
        nothing to a record. A letter outside IUPAC raises InputError within the first 100 records
        and makes a fault later. A gzip stream that ends early or is damaged raises StreamBroken
        after every record that was complete. Raises InputError for what is no FASTA.
        """
        last, crc = "", 0
        self.seen = Seen()
        try:
            self._raw = _HashedFile(self.path)
            with _text_of(self._raw) as text:
                _check_format(text, self.path)
                for contig in self._contigs(_AsciiStream(text)):
                    header = contig.header.encode("utf-8", "surrogateescape")
                    crc = zlib.crc32(contig.sequence, zlib.crc32(b">%b\n" % header, crc))
                    self.seen = Seen(contig.record, crc)
                    yield contig
                    last = f"record {contig.record} ({contig.name})"
                    del contig  # its letters; the next is read meanwhile
            self.seen = replace(self.seen, sha256=self.sha256)
        except FastaFormatError as error:
            raise InputError(
                "this is no FASTA: a line that begins with '>' must come before any other text",
                self.path,
                (error.line or 0) + 1,
            ) from error
        except GZIP_ERRORS as error:
            raise StreamBroken(
                f"the gzip stream is cut off or damaged {_after(last)}; copy or download the file "
                "again and repeat the run",
                self.path,
            ) from error
        except OSError as error:
            raise StreamBroken(
                f"reading failed {_after(last)} ({error.strerror}); make the file readable and "
                "repeat the run",
                self.path,
            ) from error

    def head(self, size_bytes: int) -> tuple[bytes, float]:
        """The first bytes of the text, and the share of the file on the disk that they stand for.

        What cannot be read ends it early: contigs will say what that is.
        """
        text, share = bytearray(), 1.0
        with suppress(*GZIP_ERRORS, OSError):
            raw = _HashedFile(self.path)
            with _text_of(raw) as stream:
                while data := stream.read1(READ_BYTES):
                    text += data
                    if len(text) >= size_bytes:
                        share = min(1.0, raw.bytes_read / max(1, self.size_bytes))
                        break
        return bytes(text), share

    def _contigs(self, stream: "_AsciiStream") -> Iterator[Contig]:
        """The records of a stream; if it breaks, those before the last one begun."""
        waiting, record = None, 0
        for entry in FastaReader(cast("BinaryIO", stream)):
            if waiting is not None:
                yield self._contig(record, *waiting)
            waiting, record = (entry.name, entry.sequence.encode("ascii")), record + 1
        if stream.broken is not None:
            raise stream.broken
        if waiting is not None:
            yield self._contig(record, *waiting)

    def _contig(self, record: int, header: str, sequence: bytes) -> Contig:
        name = _first_word(header)
        contig = Contig(self.sample, record, name, sequence, header=_unescaped(header))
        others = sequence.translate(None, IUPAC)
        if not others:
            return contig
        position = next(i for i, letter in enumerate(sequence) if letter in others)
        why = _why_not_dna(_unescaped(sequence[position:].decode("ascii")))
        if record <= TRIAL_RECORDS:
            line = _line_of_letter(self.path, record)
            raise InputError(f"record {record} ({name}) holds {why}", self.path, line)
        return contig.refused(f"it holds, at base {position + 1}, {why}")


class _HashedFile(io.FileIO):
    """A file that counts and hashes the bytes that are read from it, once each, in order."""

    def __init__(self, path: Path) -> None:
        super().__init__(path, "rb")
        self.bytes_read = 0
        self.sha256 = ""
        self._hash = hashlib.sha256()

    def readinto(self, buffer: "WriteableBuffer", /) -> int:
        count = super().readinto(buffer) or 0
        self._hash.update(memoryview(buffer)[:count])
        self.bytes_read += count
        if not count:
            self.sha256 = self._hash.hexdigest()
        return count

    def drain(self) -> None:
        """Read on to the end, for what a decompressor left unread."""
        while self.readinto(bytearray(READ_BYTES)):
            pass


class _AsciiStream(io.BufferedIOBase):
    """Bytes with every one outside ASCII as _ESCAPE and two hex digits.

    FastaReader decodes in the encoding of the locale; this way all locales read the same, and a
    header with an accent in it breaks none. _unescaped is the way back. Where reading fails the
    stream just ends, and broken is the error: FastaReader would drop what it holds by then.
    """

    def __init__(self, stream: io.BufferedReader) -> None:
        self._stream = stream
        self.broken: Exception | None = None

    def readable(self) -> bool:
        return True

    def read1(self, size: int = -1, /) -> bytes:
        try:
            data = b"" if self.broken else self._stream.read1(size)
        except (*GZIP_ERRORS, OSError) as error:
            self.broken, data = error, b""
        if data.isascii() and _ESCAPE not in data:
            return data
        return _TO_ESCAPE.sub(lambda match: b"%c%02x" % (_ESCAPE, match[0][0]), data)


def _unescaped(text: str) -> str:
    """What the file says, read as UTF-8, and as Latin-1 where it is none."""
    if chr(_ESCAPE) not in text:
        return text
    data = _FROM_ESCAPE.sub(lambda match: bytes([int(match[1], 16)]), text.encode("ascii"))
    try:
        return data.decode("utf-8")
    except UnicodeDecodeError:
        return data.decode("latin-1")


@contextmanager
def _text_of(raw: _HashedFile) -> Iterator[io.BufferedReader]:
    """The text of a file, decompressed if it is gzipped and without a byte-order mark; closes it.

    Where the gzip stream breaks, the rest of the file is still read for its digest.
    """
    with io.BufferedReader(raw, READ_BYTES) as file:
        packed = file.peek(len(GZIP_MAGIC)).startswith(GZIP_MAGIC)
        # A GzipFile is read as a BufferedReader is: read1 gives what there is before it raises.
        text = cast("io.BufferedReader", gzip.GzipFile(fileobj=file) if packed else file)
        try:
            if text.peek(len(UTF8_MARK)).startswith(UTF8_MARK):
                text.read(len(UTF8_MARK))
            yield text
        except GZIP_ERRORS:
            raw.drain()
            raise


def _check_format(text: io.BufferedReader, path: Path) -> None:
    head = text.peek(512)
    for magic, what in OTHER_MAGIC.items():
        if head.startswith(magic):
            raise InputError(f"this is {what}; write it as FASTA, plain or gzipped", path)
    if head.lstrip().startswith(b"@"):
        raise InputError("this is FASTQ, which cannot be read yet; write it as FASTA", path)


def _after(last: str) -> str:
    if not last:
        return "before its first record was complete"
    return f"after {last}, the last one that was complete and is kept"


def _first_word(header: str) -> str:
    words = header.split(None, 1)
    name = words[0] if words else ""
    if name.isprintable():  # an escape is not
        return name
    return _printable("".join(_unescaped(header).split(None, 1)[:1]))


def _printable(name: str) -> str:
    return name if name.isprintable() else name.translate(_CONTROLS)


def _why_not_dna(text: str) -> str:
    """What is wrong with text, whose first letter is outside IUPAC, and what to do."""
    letter = "a space" if text[0] == " " else f"the letter {text[0]!r}"
    why = f"{letter}, which is no IUPAC nucleotide code"
    if any(residue in text.upper() for residue in PROTEIN_ONLY):
        return f"{why}: this looks like protein; give the DNA or RNA that it was translated from"
    if text[0] in "-.":
        return f"{why}: this looks like an alignment; remove its gaps"
    return f"{why}; correct or remove the record"


def _line_of_letter(path: Path, record: int) -> int | None:
    """The line of a record's first letter outside IUPAC, by a scan of its own."""
    allowed = dict.fromkeys(IUPAC)
    seen = 0
    with _text_of(_HashedFile(path)) as data:
        text = io.TextIOWrapper(data, encoding="ascii", errors="surrogateescape")
        for number, line in enumerate(map(str.strip, text), 1):
            seen += line.startswith(">")
            if seen == record and not line.startswith((">", "#")) and line.translate(allowed):
                return number
    return None
