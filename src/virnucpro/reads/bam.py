"""BAM, CRAM and SAM -> entries, by htslib: primary records once, letters as they were sequenced.

htslib reads a pipe that a thread fills, so that the bytes are counted and hashed on the way as
those of any other input are.
"""

import io
import os
import re
import threading
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import TYPE_CHECKING

from virnucpro.errors import InputError, VirnucproError
from virnucpro.reads.compression import DAMAGE, GZIP_MAGIC, READ_BYTES, is_bam
from virnucpro.reads.contig import Entries

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
_SAM = re.compile(rb"@(HD\tVN:|SQ\tSN:|RG\t|PG\tID:|CO\t)")
_BGZF_END = bytes.fromhex("1f8b08040000000000ff0600424302001b0003000000000000000000")
_CRAM_END = b"\xe0EOF"
_TAIL_BYTES = 64
_JOIN_S = 2.0


def form_of(head: bytes) -> str:
    """BAM, CRAM or SAM, by the first bytes of the text; empty if it is none."""
    if is_bam(head):
        return "BAM"
    if head.startswith(CRAM_MAGIC):
        return "CRAM"
    return "SAM" if _SAM.match(head) else ""


def entries(
    stream: io.BufferedReader,
    path: Path,
    form: str,
    *,
    left_out: Counter[str],
    pairs: bool,
    read_groups: bool,
    reference: Path | None,
) -> Entries:
    """The primary records, complemented where they are aligned to the other strand.

    left_out: takes the numbers of the others. pairs: whether mates are told by their flags;
    read_groups: whether samples are by their read groups. Raises InputError where pysam, or the
    reference of a CRAM, is missing; EOFError where the stream breaks.
    """
    ends = _end_of(stream.peek(READ_BYTES), form)
    with _piped(stream) as (pipe, pump), _alignments(pipe, path, reference) as alignments:
        sample_of = _samples(alignments) if read_groups else None
        number = 0
        try:
            for found in alignments.fetch(until_eof=True):
                flag = found.flag
                if flag & LEFT_OUT_FLAGS:
                    left_out[next(name for name, bit in LEFT_OUT.items() if flag & bit)] += 1
                    continue
                number += 1
                yield (
                    found.query_name or "",
                    (found.get_forward_sequence() or "").encode("ascii"),
                    _MATE[flag >> 6 & 3] if pairs and flag & _PAIRED else 0,
                    sample_of(found) if sample_of else "",
                )
        except (OSError, ValueError) as error:
            pump.check()
            while pipe.read(READ_BYTES):
                pass
            if form == "CRAM" and ends(pump.tail):
                raise InputError(
                    f"this CRAM cannot be decoded after record {number}: its reference is missing "
                    "or another one; give the right one with --reference FASTA",
                    path,
                ) from error
            raise EOFError from error
        while pipe.read(READ_BYTES):
            pass
        pump.check()
        if not ends(pump.tail):
            raise EOFError


def _samples(alignments: "pysam.AlignmentFile") -> "Callable[[pysam.AlignedSegment], str]":
    """The sample (SM) of a record's read group; empty if it has none."""
    groups = alignments.header.to_dict().get("RG", [])
    names = {group.get("ID"): str(group.get("SM", "")) for group in groups}
    return lambda found: names.get(found.get_tag("RG"), "") if found.has_tag("RG") else ""


def _end_of(head: bytes, form: str) -> Callable[[bytes], bool]:
    """Whether the last bytes of such a file are those of a whole one."""
    if form == "CRAM":
        return lambda tail: _CRAM_END in tail
    if head.startswith(GZIP_MAGIC):
        return lambda tail: tail.endswith(_BGZF_END)
    return lambda _: True


@contextmanager
def _alignments(
    pipe: io.FileIO, path: Path, reference: Path | None
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
    try:
        try:
            alignments = pysam.AlignmentFile(
                pipe,
                "r",
                check_sq=False,
                reference_filename=None if reference is None else os.fspath(reference),
            )
        except (OSError, ValueError) as error:
            raise EOFError from error
        try:
            yield alignments
        finally:
            with suppress(OSError):  # of a stream that broke, which was said
                alignments.close()
    finally:
        pysam.set_verbosity(loud)


class _Pump(threading.Thread):
    """Copies a stream into a pipe; tail is the last of it, once the pipe is empty."""

    def __init__(self, stream: io.BufferedReader, pipe: int) -> None:
        super().__init__(daemon=True)
        self._stream = stream
        self._pipe = pipe
        self._error: Exception | None = None
        self.tail = b""

    def run(self) -> None:
        try:
            with open(self._pipe, "wb") as pipe:  # noqa: PTH123 - a descriptor
                while data := self._stream.read1(READ_BYTES):
                    self.tail = (self.tail + data)[-_TAIL_BYTES:]
                    pipe.write(data)
        except BrokenPipeError:  # nobody reads any more
            pass
        except (*DAMAGE, OSError, VirnucproError) as error:
            self._error = error

    def check(self) -> None:
        """Raises what ended the copying early; the pipe must be empty."""
        self.join(_JOIN_S)
        if self._error is not None:
            raise self._error


@contextmanager
def _piped(stream: io.BufferedReader) -> Iterator[tuple[io.FileIO, _Pump]]:
    """The same bytes as the read end of a pipe."""
    read, write = os.pipe()
    pump = _Pump(stream, write)
    try:
        with io.FileIO(read, "rb") as pipe:
            pump.start()
            yield pipe, pump
    finally:
        pump.join(_JOIN_S)
