"""BAM, CRAM and SAM -> entries, by htslib: primary records once, letters as they were sequenced.

htslib reads a pipe that a thread fills, so that the bytes are counted and hashed on the way as
the bytes of any other input are.
"""

import io
import os
import re
import sys
import threading
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager, suppress
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, NoReturn

from virnucpro.errors import InputError, StreamBroken, VirnucproError
from virnucpro.reads.compression import (
    DAMAGE,
    GZIP_MAGIC,
    READ_BYTES,
    Hashed,
    behind,
    is_bam,
    is_filler,
)
from virnucpro.reads.contig import Entries, printable
from virnucpro.reads.reference import indexed
from virnucpro.reads.text import whole_lines

if TYPE_CHECKING:
    import pysam

CRAM_MAGIC = b"CRAM"
# Records that are counted and not read: name, flag. The first that fits counts, so that they and
# those that are read add up to `samtools view -c`.
LEFT_OUT = {"secondary": 0x100, "supplementary": 0x800, "qc_failed": 0x200, "duplicate": 0x400}
# What `samtools view -F` leaves out to count what is read.
LEFT_OUT_FLAGS = sum(LEFT_OUT.values())

_PAIRED = 0x1
# By the flags 0x40 (first) and 0x80 (second); a record that has both or none is of no pair.
_MATE = (0, 1, 2, 0)
# A line of a SAM header, and the tags that it must have (SAM specification, 1.3); a first line that
# looks like one may be the name of a FASTQ record.
_HEADER_LINE = re.compile(rb"@(HD|SQ|RG|PG)(\t[A-Za-z][A-Za-z0-9]:[^\t]*)+|@CO(\t.*)?", re.DOTALL)
_NEEDED = {b"@SQ": (b"\tSN:", b"\tLN:"), b"@RG": (b"\tID:",), b"@PG": (b"\tID:",)}
_SAM = re.compile(rb"@(HD|SQ|RG|PG|CO)\t")
_FASTQ = re.compile(rb"@[^\r\n]*(\r\n|\r|\n)[A-Za-z.*-]*\1\+")
_BGZF_END = bytes.fromhex("1f8b08040000000000ff0600424302001b0003000000000000000000")
_CRAM_END = b"\xe0EOF"
# Containers that end a CRAM of versions 3 and 2.1.
_CRAM_ENDS = tuple(
    map(
        bytes.fromhex,
        (
            "0f000000ffffffff0fe0454f4600000000010005bdd94f0001000606010001000100ee63014b",
            "0b000000ffffffff0fe0454f46000000000100000100060601000100010000",
        ),
    )
)
_TAIL_BYTES = 64
_JOIN_S = 2.0


def form_of(head: bytes) -> str:
    """Return BAM, CRAM or SAM, by the first bytes of the text; empty for another format."""
    if is_bam(head):
        return "BAM"
    if head.startswith(CRAM_MAGIC):
        return "CRAM"
    return "SAM" if _SAM.match(head) and not _FASTQ.match(head) else ""


def entries(
    stream: io.BufferedReader,
    path: Path,
    form: str,
    raw: Hashed,
    *,
    left_out: Counter[str],
    pairs: bool,
    read_groups: bool,
    reference: Path | None,
) -> Entries:
    """The primary records, complemented where they are aligned to the other strand.

    raw: takes what is odd about the end of the file. left_out: takes the numbers of other records.
    pairs: whether mates are told by their flags; read_groups: whether read groups tell the
    samples. Raises InputError where pysam, or the reference of a CRAM, is missing, and for a header
    that htslib refuses; EOFError where the stream breaks.
    """
    head = stream.peek(READ_BYTES)
    end = _End(head, form)
    reference = reference if form == "CRAM" else None
    with (
        _piped(stream, end) as (pipe, pump),
        _alignments(pipe, pump, end, path, reference) as alignments,
    ):
        sample_of = _samples(alignments) if read_groups else None
        number = seen = 0
        try:
            for found in alignments.fetch(until_eof=True):
                seen += 1
                flag = found.flag
                if flag & LEFT_OUT_FLAGS:
                    left_out[next(name for name, bit in LEFT_OUT.items() if flag & bit)] += 1
                    continue
                number += 1
                header = found.query_name or ""
                name = printable(header.encode("utf-8", "surrogateescape"))
                yield (
                    name,
                    header if header.isprintable() else name,
                    (found.get_forward_sequence() or "").encode("ascii"),
                    _MATE[flag >> 6 & 3] if pairs and flag & _PAIRED else 0,
                    sample_of(found) if sample_of else "",
                )
        except (OSError, ValueError) as error:
            pump.drain(pipe)
            _explain(error, end, form, number, path)
        pump.drain(pipe)
        end.check(raw, seen)


def _explain(error: Exception, end: "_End", form: str, number: int, path: Path) -> NoReturn:
    """Raise why htslib stopped after a record."""
    if form == "CRAM" and end.whole:
        raise InputError(
            f"this CRAM cannot be decoded after record {number}: its reference is missing "
            "or another one, or the index beside it (.fai) is of another; give the right one with "
            "--reference FASTA",
            path,
        ) from error
    if end.joined:
        raise StreamBroken(
            f"another BAM begins after record {number}, and only the first was read: join "
            "them with `samtools cat` and repeat the run",
            path,
        ) from error
    if form == "SAM" and end.whole:
        raise StreamBroken(
            f"the line after alignment {number} that was read is not one of SAM; every record "
            "before is kept: correct the file, or copy it again, and repeat the run",
            path,
        ) from error
    raise EOFError from error


def _samples(alignments: "pysam.AlignmentFile") -> "Callable[[pysam.AlignedSegment], str]":
    """The sample (SM) of a record's read group; empty if it has none."""
    names: dict[str, str] = {}
    for line in str(alignments.header).split("\n"):
        if line.startswith("@RG\t"):
            tags = dict(tag.split(":", 1) for tag in line.split("\t")[1:] if ":" in tag)
            sample = tags.get("SM", "").encode("utf-8", "surrogateescape")
            names.setdefault(tags.get("ID", ""), printable(sample))
    return lambda found: names.get(str(found.get_tag("RG")), "") if found.has_tag("RG") else ""


class _End:
    """The end of alignments, as their bytes pass: whether it is there, and what lies behind it.

    joined: whether another BAM was seen behind an end mark.
    """

    def __init__(self, head: bytes, form: str) -> None:
        self._head = head
        self._form = form
        self._bgzf = head.startswith(GZIP_MAGIC)
        self._tail = b""
        self._behind, self._filler = 0, True
        self._line_ended = True
        self.joined = False

    def pieces_of(self, stream: io.BufferedReader) -> Iterator[bytes]:
        """Yield a stream in pieces; the lines of a SAM end as htslib knows it, however they do."""
        if self._form == "SAM":
            return whole_lines(stream)
        return iter(partial(stream.read1, READ_BYTES), b"")

    def part_of(self, data: bytes) -> bytes:
        """Return the part of the next bytes that is alignments: nothing behind the end mark."""
        joined = self._tail + data
        at = self._end_of_mark(joined)
        more = joined[at:]
        if self._behind or (at and more and not (self._bgzf and more[:1] == GZIP_MAGIC[:1])):
            more = data if self._behind else more
            self._behind += len(more)
            self._filler = self._filler and is_filler(more)
            data = data[: len(data) - len(more)]
        if data:
            self._tail = (self._tail + data)[-_TAIL_BYTES:]
            self._line_ended = data.endswith(b"\n")
        return data

    def _end_of_mark(self, joined: bytes) -> int:
        """Return where the end mark ends, 0 if there is none; the last, where blocks may follow."""
        if self._form == "CRAM":
            ends = (joined.find(mark) + len(mark) for mark in _CRAM_ENDS if mark in joined)
            return min(ends, default=0)
        if not self._bgzf or _BGZF_END not in joined:
            return 0
        if not self.joined:
            self.joined = any(map(is_bam, filter(None, joined.split(_BGZF_END)[1:])))
        return joined.rfind(_BGZF_END) + len(_BGZF_END)

    @property
    def whole(self) -> bool:
        """Return whether the file ended as a whole file does, as far as its format tells."""
        if self._form == "CRAM":
            return _CRAM_END in self._tail
        return self._tail.endswith(_BGZF_END) if self._bgzf else self._line_ended

    def check(self, raw: Hashed, records: int) -> None:
        """Raise EOFError where the end is missing, and tell raw what lies behind it.

        records: how many there were; the last line of a SAM needs no end, unless it is of a header.
        """
        marked = self._bgzf or self._form == "CRAM" or (self._form == "SAM" and not records)
        if marked and not self.whole:
            raise EOFError
        if self._behind:
            told = behind(self._behind, f"{self._form} file")
            raw.warning, raw.fault = (told, "") if self._filler else ("", told)

    def malformed_header(self) -> tuple[str, int | None]:
        """Return what is wrong with the header of a whole file, and in which line of a SAM."""
        do = "correct it, as with `samtools reheader`, or give the reads as FASTQ"
        if self._form == "SAM":
            for number, line in enumerate(self._head.splitlines(), 1):
                if not line.startswith(b"@"):
                    break
                needed = _NEEDED.get(line[:3], ())
                if not (_HEADER_LINE.fullmatch(line) and all(tag in line for tag in needed)):
                    return "this line of the header is malformed; correct or remove it", number
        return f"the header of this {self._form} is malformed; {do}", None


@contextmanager
def _alignments(
    pipe: io.FileIO, pump: "_Pump", end: _End, path: Path, reference: Path | None
) -> "Iterator[pysam.AlignmentFile]":
    try:
        import pysam
    except ImportError as error:
        raise InputError(
            "BAM, CRAM and SAM are read by the package pysam, which is not installed; run `pip "
            "install pysam`, or write the reads as FASTQ with `samtools fastq`",
            path,
        ) from error
    loud = pysam.set_verbosity(0)  # what htslib prints by itself is said by us
    pysam.set_encoding_error_handler("surrogateescape")  # names need not be UTF-8
    with ExitStack() as ends:
        ends.callback(pysam.set_verbosity, loud)
        name = None if reference is None else os.fspath(ends.enter_context(indexed(reference)))
        try:
            with _silent_collector():
                alignments = pysam.AlignmentFile(pipe, "r", check_sq=False, reference_filename=name)
        except (OSError, ValueError) as error:
            pump.drain(pipe)
            if not end.whole:
                raise EOFError from error
            why, line = end.malformed_header()
            raise InputError(why, path, line) from error
        try:
            yield alignments
        finally:
            with suppress(OSError):  # of a stream that broke, which was said
                alignments.close()


@contextmanager
def _silent_collector() -> Iterator[None]:
    """Let nothing be printed when an object that could not be made is thrown away.

    pysam closes such a file once more, htslib then fails once more, and Cython prints it twice.
    """
    unraisable, uncaught = sys.unraisablehook, sys.excepthook
    sys.unraisablehook, sys.excepthook = lambda _: None, lambda *_: None
    try:
        yield
    finally:
        sys.unraisablehook, sys.excepthook = unraisable, uncaught


class _Pump(threading.Thread):
    """Copies a stream into a pipe, up to its end."""

    def __init__(self, stream: io.BufferedReader, pipe: int, end: _End) -> None:
        super().__init__(daemon=True)
        self._stream = stream
        self._pipe = pipe
        self._error: Exception | None = None
        self._end = end

    def run(self) -> None:
        try:
            with open(self._pipe, "wb") as pipe:  # noqa: PTH123 - a descriptor
                for data in self._end.pieces_of(self._stream):
                    pipe.write(self._end.part_of(data))
        except BrokenPipeError:  # nobody reads any more
            pass
        except (*DAMAGE, OSError, VirnucproError) as error:
            self._error = error

    def drain(self, pipe: io.FileIO) -> None:
        """Empty the pipe, and raise what ended the copying early."""
        while pipe.read(READ_BYTES):
            pass
        self.join(_JOIN_S)
        if self._error is not None:
            raise self._error


@contextmanager
def _piped(stream: io.BufferedReader, end: _End) -> Iterator[tuple[io.FileIO, _Pump]]:
    """The same bytes as the read end of a pipe."""
    read, write = os.pipe()
    pump = _Pump(stream, write, end)
    try:
        with io.FileIO(read, "rb") as pipe:
            pump.start()
            yield pipe, pump
    finally:
        pump.join(_JOIN_S)
