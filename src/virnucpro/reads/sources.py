"""The inputs of a run: which files, under which sample names, and their contigs.

Each file is read once, from start to end; its sha256 and the bytes read so far fall out of the same
pass. This module knows no chunk, no encoder and no table.
"""

import hashlib
import io
import os
import re
import stat
import zlib
from collections import Counter
from collections.abc import Generator, Iterator, Sequence
from contextlib import closing, suppress
from dataclasses import dataclass
from itertools import count
from pathlib import Path

from virnucpro.errors import InputError, StreamBroken
from virnucpro.reads.ahead import ahead
from virnucpro.reads.bam import LEFT_OUT, form_of
from virnucpro.reads.bam import entries as of_alignments
from virnucpro.reads.compression import DAMAGE, READ_BYTES, Hashed, is_damage, text_of
from virnucpro.reads.contig import (
    IUPAC,
    Contig,
    Entries,
    Entry,
    Seen,
    first_word,
    printable,
    why_not_dna,
)
from virnucpro.reads.fasta import entries as of_fasta
from virnucpro.reads.fasta import line_of_letter
from virnucpro.reads.fastq import entries as of_fastq
from virnucpro.reads.fastq import line_of_sequence
from virnucpro.reads.mates import alternating, are_pair, interleaved, side_by_side
from virnucpro.reads.streams import STDIN, Spool
from virnucpro.reads.text import unescaped

# A letter outside IUPAC in one of so many first records means that the file is no DNA.
TRIAL_RECORDS = 100
FASTA_SUFFIXES = (".fasta", ".fa", ".fna", ".ffn", ".fas", ".fsa", ".frn", ".seq")
GZIP_SUFFIXES = (".gz", ".gzip", ".bgz")
PACKED_SUFFIXES = (*GZIP_SUFFIXES, ".bz2", ".xz", ".zst", ".zstd")
RECORD_SUFFIXES = (*FASTA_SUFFIXES, ".fastq", ".fq", ".bam", ".cram", ".sam")
FOREIGN = {
    b"PK\x03\x04": "a zip archive",
    b"\x1f\x8b": "compressed twice",
    b"\x1f\x9d": "packed by compress",
    b"\x04\x22\x4d\x18": "packed by lz4",
    b"7z\xbc\xaf\x27\x1c": "a 7z archive",
    b"NCBI.sra": "an SRA archive, which fasterq-dump reads",
    b"<!DOCTYPE": "a web page",
    b"<html": "a web page",
    b"\xff\xfe": "text in UTF-16",
    b"\xfe\xff": "text in UTF-16",
}
PAIRS = ("auto", "interleaved", "none")

_U = b"Uu"
_TAR = (257, b"ustar")
_MATE_ENDS = re.compile(r"[._-]?R?$")


@dataclass(frozen=True, slots=True, kw_only=True)
class Reading:
    """How inputs are read.

    mates: the file of the second mates, for one input. pairs: "auto" takes mates of a BAM by their
    flags, "interleaved" each two records that follow each other, "none" none. read_groups: whether
    the read groups of a BAM name the samples. reference: FASTA that a CRAM was made with.
    max_records: of each input, no more. spool: folder, there when reading begins, for a copy of
    what comes through a pipe; None allows one pass over it.
    """

    mates: Path | None = None
    pairs: str = "auto"
    read_groups: bool = False
    reference: Path | None = None
    max_records: int | None = None
    spool: Path | None = None


def open_sources(
    paths: Sequence[Path],
    sample: str | None = None,
    reading: Reading | None = None,
    faults: list[InputError] | None = None,
) -> list["Source"]:
    """The inputs of a run, each checked at once to be a file that can be read.

    sample replaces the name that is made from the file's. Raises InputError for a path that cannot
    be read, and for two inputs of one sample name: rows are told apart by sample and record.
    faults: takes these instead, and the inputs of which they are are left out.
    """
    reading = reading or Reading()
    if len(paths) > 1 and (reading.mates is not None or reading.read_groups):
        option = "--mates" if reading.mates is not None else "--read-groups"
        raise InputError(f"{option} goes with one input, and {len(paths)} were named")
    if reading.reference is not None and _readable_size(reading.reference) is None:
        raise InputError("a reference cannot come through a pipe; name a file", reading.reference)
    if [*paths, reading.mates].count(STDIN) > 1:
        raise InputError("'-', standard input, can be read once only; give the other as a file")
    sources: list[Source] = []
    for path in paths:
        try:
            sources.append(_source(path, sample, reading, sources))
        except InputError as error:
            if faults is None:
                raise
            faults.append(error)
    return sources


def _source(
    path: Path, sample: str | None, reading: Reading, others: Sequence["Source"]
) -> "Source":
    """One input. Raises InputError."""
    of_source = [path] if reading.mates is None else [path, reading.mates]
    if len(of_source) == 2 and _same_file(*of_source):
        raise InputError("it was given as its own mates; name the file of the others", path)
    files = [InputFile.at(each, reading) for each in of_source]
    name = sample_name(*of_source) if sample is None else decoded(sample)
    for other in others:
        if other.sample == name and _same_file(other.path, path):
            raise InputError(f"this file was named twice, also as {other.path}; name it once", path)
        if other.sample == name:
            raise InputError(
                f"its rows would carry the same sample name, {name}, as those of {other.path}; "
                "classify the two in runs of their own, or rename one",
                path,
            )
    return Source(files, name, reading)


def _same_file(one: Path, other: Path) -> bool:
    """Whether two paths lead to one file that is there."""
    with suppress(OSError):
        return one.samefile(other)
    return False


def holds_records(path: Path) -> bool:
    """Whether a file seems to be one of sequences. Raises InputError where it cannot be read."""
    try:
        with closing(InputFile.at(path, Reading()).opened()) as raw, text_of(raw) as (_, text):
            head = text.peek(READ_BYTES)
    except DAMAGE:  # of the first bytes; it is asked for, and will be refused in words
        return True
    if form_of(head):
        return True
    lines = (line.strip() for line in head.splitlines())
    first = next((line for line in lines if line and not line.startswith(b"#")), b"")
    return first.startswith((b">", b"@"))


def sample_name(path: Path, other: Path | None = None) -> str:
    """The file's name without the suffixes of its format and compression, in any case.

    Of two files of mates what their names share, without an R at its end.
    """
    if path == STDIN:
        return "stdin"
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
    return printable(os.fsencode(name).decode("utf-8", errors="replace"))


def _readable_size(path: Path) -> int | None:
    """Bytes of a file; None for a pipe. Raises InputError for what cannot be read."""
    if path == STDIN:
        return None
    try:
        status = path.stat()
        if stat.S_ISREG(status.st_mode):
            path.open("rb").close()
            return status.st_size
    except OSError as error:
        raise InputError(f"cannot be read ({error.strerror}); check the path", path) from error
    if stat.S_ISDIR(status.st_mode):
        raise InputError("this is a directory; name the files in it", path)
    if stat.S_ISBLK(status.st_mode):
        raise InputError("this is a disk; name a file", path)
    return None


class InputFile:
    """One file or pipe: FASTA, FASTQ, BAM, CRAM or SAM, compressed or not, as its content says.

    records: how many were read; left_out: alignments of other kinds; form: format and compression.
    """

    def __init__(
        self, path: Path, reading: Reading, size_bytes: int = 0, stream: Spool | None = None
    ) -> None:
        self.path = path
        self.reading = reading
        self.size_bytes = size_bytes
        self.stream = stream
        self.begin()

    @classmethod
    def at(cls, path: Path, reading: Reading) -> "InputFile":
        """What lies there. Raises InputError where it cannot be read."""
        size_bytes = _readable_size(path)
        if size_bytes is not None:
            return cls(path, reading, size_bytes)
        return cls(path, reading, 0, Spool(path, reading.spool))

    def begin(self) -> None:
        """Forgets what an earlier pass has found."""
        self.records = 0
        self.left_out = Counter[str]()
        self.form = ""
        self._damaged = "file"  # what it is called where it is
        self._raw: Hashed | None = None

    @property
    def bytes_read(self) -> int:
        """How much of the file, as it lies on the disk, was read so far."""
        return 0 if self._raw is None else self._raw.bytes_read

    @property
    def sha256(self) -> str:
        """Hex digest of the whole file, as it lies on the disk; empty until it was read."""
        return "" if self._raw is None else self._raw.sha256

    def opened(self) -> Hashed:
        """The raw bytes, from the beginning."""
        raw = io.FileIO(self.path) if self.stream is None else self.stream.reader()
        return Hashed(raw)

    def again(self) -> "InputFile":
        """The same file for another pass. Raises InputError where it cannot be read any more."""
        if self.stream is None:
            _readable_size(self.path)
        return InputFile(self.path, self.reading, self.size_bytes, self.stream)

    def whole_sha256(self) -> str:
        """Hex digest of the whole file, by a pass of its own. Raises InputError."""
        try:
            with closing(self.opened()) as raw:
                raw.drain()
                return raw.sha256
        except OSError as error:
            raise InputError(f"cannot be read ({error.strerror}); check it", self.path) from error

    def entries(self) -> Entries:
        """Every record, in order. Raises InputError, and StreamBroken after the last whole one."""
        last = ""
        try:
            self._raw = self.opened()
            with text_of(self._raw) as (packed, text):
                for entry in self._entries(packed, text):
                    self.records += 1
                    last = entry[0]
                    yield entry
                    del entry  # its letters; the next is read meanwhile
        except (*DAMAGE, OSError) as error:
            after = _after(self.records, last)
            if is_damage(error):
                raise StreamBroken(
                    f"the {self._damaged} is cut off or damaged {after}; copy or download the file "
                    "again and repeat the run",
                    self.path,
                ) from error
            reason = error.strerror if isinstance(error, OSError) else str(error)
            raise StreamBroken(
                f"reading failed {after} ({reason}); make the file readable and repeat the run",
                self.path,
            ) from error

    def _entries(self, packed: str, text: io.BufferedReader) -> Entries:
        self._damaged = f"{packed} stream" if packed else "file"
        head = text.peek(READ_BYTES)
        form = form_of(head)
        if form:
            self._damaged = self._damaged if packed else f"{form} file"
            entries = self._alignments(text, form)
        else:
            _refuse_foreign(head, self.path)
            is_fastq = head.lstrip().startswith(b"@")
            form = "FASTQ" if is_fastq else "FASTA"
            entries = (of_fastq if is_fastq else of_fasta)(text, self.path)
        self.form = f"{form}, {packed}" if packed else form
        return entries

    def _alignments(self, text: io.BufferedReader, form: str) -> Entries:
        reading = self.reading
        if reading.mates is not None or reading.pairs == "interleaved":
            option = "--mates" if reading.mates is not None else "--interleaved"
            raise InputError(
                f"{option} is for FASTQ and FASTA; the mates of this {form} are known by their "
                "flags, so leave it out",
                self.path,
            )
        entries = of_alignments(
            text,
            self.path,
            form,
            left_out=self.left_out,
            pairs=reading.pairs == "auto",
            read_groups=reading.read_groups,
            reference=reading.reference,
        )
        entries = ahead(entries, self.stream.stop if self.stream else _nothing)
        return side_by_side(entries, self.path) if reading.pairs == "auto" else entries

    def line_of_letter(self, record: int) -> int | None:
        """The line of a record's first letter outside IUPAC, where the format has lines.

        None also for FASTA from a stream that is not kept, as it takes a second pass.
        """
        if self.form.startswith("FASTQ"):
            return line_of_sequence(record)
        kept = self.stream is None or self.stream.kept
        if not (self.form.startswith("FASTA") and kept):
            return None
        with closing(self.opened()) as raw, text_of(raw) as (_, text):
            return line_of_letter(text, record)


class Source:
    """One input: a file, or the two files of mates. seen: what contigs has delivered.

    rna: whether a letter U was among it; whole: False if it was more than the records asked for.
    """

    def __init__(self, files: Sequence[InputFile], sample: str, reading: Reading) -> None:
        self.files = tuple(files)
        self.sample = sample
        self.reading = reading
        self.path = files[0].path
        self._begin()

    def _begin(self) -> None:
        for file in self.files:
            file.begin()
        self.rna = False
        self.whole = True
        self._records = self._crc = 0
        self._sha256 = ""
        self._text = hashlib.sha256()

    @property
    def size_bytes(self) -> int:
        """Of the files on the disk; 0 where there is a pipe among them."""
        sizes = [file.size_bytes for file in self.files]
        return 0 if self.streamed else sum(sizes)

    @property
    def streamed(self) -> bool:
        """Whether it comes through a pipe."""
        return any(file.stream is not None for file in self.files)

    @property
    def bytes_read(self) -> int:
        """How much of the files, as they lie on the disk, was read so far."""
        return sum(file.bytes_read for file in self.files)

    @property
    def sha256(self) -> str:
        """Hex digest of the whole file, as it lies on the disk; empty until it was read.

        Of two files: of their digests, a line each. With max_records: of the records as FASTA.
        """
        if self.reading.max_records is not None:
            return self._sha256
        return _together([file.sha256 for file in self.files])

    @property
    def seen(self) -> Seen:
        """What contigs has delivered; the digest only when it has come to the end."""
        return Seen(self._records, self._crc, self._sha256)

    @property
    def left_out(self) -> dict[str, int] | None:
        """Alignments that are no primary records, by kind; None for other formats.

        None also where max_records left some unread: alignments are read ahead and counted then.
        """
        (file, *_) = self.files
        if not self.whole:
            return None
        aligned = file.form in ("BAM", "CRAM") or file.form.startswith("SAM")
        return {name: file.left_out[name] for name in LEFT_OUT} if aligned else None

    def again(self) -> "Source":
        """The same input for another pass."""
        return Source([file.again() for file in self.files], self.sample, self.reading)

    def whole_sha256(self) -> str:
        """sha256 by a pass of its own. Raises InputError."""
        if self.reading.max_records is None:
            return _together([file.whole_sha256() for file in self.files])
        other = self.again()
        for _ in other.contigs():
            pass
        return other.sha256

    def contigs(self) -> Generator[Contig, None, None]:
        """Every record of the input, in order; a file without any text has none.

        A letter outside IUPAC raises InputError within the first 100 records and makes a fault
        later. A compressed stream that ends early or is damaged raises StreamBroken after every
        record that was complete, as mates do that are none. Raises InputError for what is none of
        the formats.
        """
        self._begin()
        contigs = self._contigs()
        if self.reading.max_records is not None:
            contigs = self._first(contigs, self.reading.max_records)
        for contig in contigs:
            self._crc = zlib.crc32(contig.sequence, zlib.crc32(_first_line(contig), self._crc))
            self._records = contig.record
            yield contig
            del contig  # its letters; the next is read meanwhile
        self._sha256 = self.sha256 if self.reading.max_records is None else self._text.hexdigest()

    def _contigs(self) -> Iterator[Contig]:
        entries = [file.entries() for file in self.files]
        paths = [file.path for file in self.files]
        if len(paths) > 1:
            mixed = alternating(entries[0], entries[1], (paths[0], paths[1]))
        elif self.reading.pairs == "interleaved":
            mixed = interleaved(entries[0], self.path)
        else:
            mixed = entries[0]
        return map(self._contig, count(1), mixed)

    def _first(self, contigs: Iterator[Contig], most: int) -> Iterator[Contig]:
        """So many contigs, and one more if it is the mate of the last."""
        last: Contig | None = None
        for contig in contigs:
            if contig.record > most and (last is None or not are_pair(last, contig)):
                self.whole = False
                return
            self._text.update(_first_line(contig) + contig.sequence + b"\n")
            last = contig if contig.record == most else None
            yield contig

    def _contig(self, record: int, entry: Entry) -> Contig:
        header, sequence, mate, sample = entry
        name, sample = first_word(header), sample or self.sample
        others = sequence.translate(None, IUPAC)
        contig = Contig(sample, record, name, sequence, "", header, mate)
        if not others:
            if not self.rna:
                self.rna = _U[0] in sequence or _U[1] in sequence
            return contig
        position = next(i for i, letter in enumerate(sequence) if letter in others)
        why = why_not_dna(unescaped(sequence[position:].decode("ascii")))
        if record <= TRIAL_RECORDS:
            file = self.files[(record - 1) % len(self.files)]
            within = (record - 1) // len(self.files) + 1
            line = file.line_of_letter(within)
            raise InputError(f"record {within} ({name}) holds {why}", file.path, line)
        return contig.refused(f"it holds, at base {position + 1}, {why}")


def _nothing() -> None:
    """What stops a file that is read: nothing need do so."""


def _first_line(contig: Contig) -> bytes:
    return f">{contig.header}\n".encode("utf-8", "surrogateescape")


def _refuse_foreign(head: bytes, path: Path) -> None:
    what = next((what for magic, what in FOREIGN.items() if head.startswith(magic)), None)
    if head[_TAR[0] :].startswith(_TAR[1]):
        what = "a tar archive"
    if what is not None:
        raise InputError(f"this is {what}; give FASTA, FASTQ, BAM or CRAM", path)


def _together(digests: Sequence[str]) -> str:
    if len(digests) == 1 or not all(digests):
        return digests[0] if len(digests) == 1 else ""
    return hashlib.sha256("\n".join(digests).encode()).hexdigest()


def _after(record: int, header: str) -> str:
    if not record:
        return "before its first record was complete"
    name = first_word(header)
    return f"after record {record} ({name}), the last one that was complete and is kept"
