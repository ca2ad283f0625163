"""One input file or pipe -> its records, whatever its format and compression."""

import io
import re
import stat
from collections import Counter
from contextlib import closing
from dataclasses import dataclass
from pathlib import Path

from virnucpro.errors import InputError, SettingsError, StreamBroken
from virnucpro.reads.ahead import ahead
from virnucpro.reads.bam import entries as of_alignments
from virnucpro.reads.bam import form_of
from virnucpro.reads.compression import DAMAGE, READ_BYTES, UTF8_MARK, Hashed, is_damage, text_of
from virnucpro.reads.contig import Entries
from virnucpro.reads.fasta import entries as of_fasta
from virnucpro.reads.fasta import first_line, line_of_letter
from virnucpro.reads.fastq import entries as of_fastq
from virnucpro.reads.fastq import line_of_sequence
from virnucpro.reads.mates import side_by_side
from virnucpro.reads.streams import STDIN, Spool

# What a file is by its first bytes, and what to do.
_ANOTHER = "give FASTA, FASTQ, BAM or CRAM"
_PACKED = "unpack it, and name the files in it"
_PAGE = "a web page", "the download went wrong, so fetch the file itself"
_UTF16 = "text in UTF-16", "save it as UTF-8"
_FOREIGN = {
    b"PK\x03\x04": ("a zip archive, or an Office document", _PACKED),
    b"\x1f\x8b": ("compressed twice", "decompress it once, as with gzip -d"),
    b"\x1f\x9d": ("packed by compress", "unpack it with uncompress"),
    b"\x04\x22\x4d\x18": ("packed by lz4", "unpack it with lz4 -d"),
    b"NCBI.sra": ("an SRA archive", "make FASTQ of it with fasterq-dump"),
    b"\x89HDF": ("an HDF5 file, as FAST5 is", "give what a basecaller makes of it"),
    b"LOCUS ": ("a GenBank file", "get or export it as FASTA"),
    b"ID   ": ("an EMBL or UniProt file", "get or export it as FASTA"),
    b"##fileformat=VCF": ("a VCF file, of variants", _ANOTHER),
    b"##gff": ("a GFF file, of annotations", _ANOTHER),
    b"<!DOCTYPE": _PAGE,
    b"<!doctype": _PAGE,
    b"<html": _PAGE,
    b"\xff\xfe": _UTF16,
    b"\xfe\xff": _UTF16,
}
_TAR = (257, b"ustar")
# Name, flag, reference, position, quality, CIGAR and what follows, in letters that may be cut off.
_BARE_SAM = re.compile(
    rb"[^\t@>][^\t]*\t\d+\t[^\t]+\t\d+\t\d+\t(\*|(\d+[MIDNSHP=X])+)(\t[^\t]+){4}"
)
# Blanks and byte-order marks.
_BEFORE_TEXT = b" \t\n\v\f\r" + UTF8_MARK
_ADDRESS = re.compile(r"(https?|ftp|s3|gs):/+(.+)", re.IGNORECASE)
PAIRS = ("auto", "interleaved", "none")


@dataclass(frozen=True, slots=True, kw_only=True)
class Reading:
    """Settings of how inputs are read.

    sample: the name in the column sample, for one input; None: made from the file's name. mates:
    the file of the second mates, for one input. pairs: "auto" takes mates of a BAM by their flags,
    "interleaved" each two records that follow each other, "none" none. read_groups: whether the
    read groups of a BAM name the samples. reference: FASTA that a CRAM was made with. min_length:
    records of fewer nt are listed, but not classified; max_length: records of more nt are listed
    as failed. max_records: of each input, at most. spool: folder, there when reading begins, for a
    copy of what comes through a pipe; None allows one pass over it.
    """

    sample: str | None = None
    mates: Path | None = None
    pairs: str = "auto"
    read_groups: bool = False
    reference: Path | None = None
    min_length: int | None = None
    max_length: int | None = None
    max_records: int | None = None
    spool: Path | None = None

    def check(self, inputs: int) -> None:
        """Raise SettingsError for settings that contradict each other. inputs: their number."""
        self.check_number(inputs)
        if self.pairs not in PAIRS:
            raise SettingsError(f"pairs must be {', '.join(PAIRS)}, got {self.pairs!r}")
        if self.mates is not None and self.pairs == "interleaved":
            raise SettingsError("mates lie in a file of their own or interleaved, not both")
        if self.mates is not None and self.pairs == "none":
            raise SettingsError(
                "--mates and --unpaired contradict each other; to read both files without pairs, "
                "name both as inputs"
            )
        for name in ("min_length", "max_length", "max_records"):
            number = getattr(self, name)
            if number is not None and number < 1:
                option = f"--{name.replace('_', '-')}"
                raise SettingsError(f"{option} must be 1 or more, got {number}")
        if self.max_length is not None and (self.min_length or 0) > self.max_length:
            raise SettingsError(
                f"no record has --min-length {self.min_length} and --max-length "
                f"{self.max_length}: give a --max-length that is no less than --min-length"
            )

    def check_number(self, inputs: int) -> None:
        """Raise SettingsError for what goes with one input where there are more."""
        if inputs < 2:
            return
        if self.sample is not None:
            raise SettingsError(
                f"the sample name {self.sample} was given for {inputs} inputs, but rows are told "
                "apart by it; run them one by one, or leave it out"
            )
        if self.mates is not None:
            raise SettingsError(
                f"--mates goes with one input, and there are {inputs}; run the pairs one by one, "
                "or name them in a --sample-sheet"
            )
        if self.read_groups:
            raise SettingsError(
                f"--read-groups goes with one input, and there are {inputs}; run them one by one"
            )


def readable_size(path: Path) -> int | None:
    """Return a file's size in bytes; None for a pipe. Raises InputError for what cannot be read."""
    if path == STDIN:
        return None
    try:
        status = path.stat()
        if stat.S_ISREG(status.st_mode):
            path.open("rb").close()
            return status.st_size
    except OSError as error:
        if address := _ADDRESS.fullmatch(str(path)):  # a path has no double slash
            scheme, rest = address.groups()
            raise InputError(
                "this is an address, and nothing is fetched here; download it and name the file",
                f"{scheme}://{rest}",
            ) from error
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
        """Return the file or pipe at a path. Raises InputError where it cannot be read."""
        size_bytes = readable_size(path)
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
        """The bytes of the file, as it lies on the disk, that were read so far."""
        return 0 if self._raw is None else self._raw.bytes_read

    @property
    def warning(self) -> str:
        """A note of what is odd about the end of the file, though it was read; empty if nothing."""
        return "" if self._raw is None else self._raw.warning

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
            readable_size(self.path)
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
            if self._raw.fault:
                raise StreamBroken(
                    f"{self._raw.fault}; every record before is kept, but if others were there, as "
                    "in a damaged part, they are missing: copy or download the file again",
                    self.path,
                )
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
            assert self._raw is not None
            entries = self._alignments(text, form, self._raw)
        else:
            _refuse_foreign(head, self.path)
            is_fastq = head.lstrip(_BEFORE_TEXT).startswith(b"@")
            form = "FASTQ" if is_fastq else "FASTA"
            entries = (of_fastq if is_fastq else of_fasta)(text, self.path)
        self.form = f"{form}, {packed}" if packed else form
        return entries

    def _alignments(self, text: io.BufferedReader, form: str, raw: Hashed) -> Entries:
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
            raw,
            left_out=self.left_out,
            pairs=reading.pairs == "auto",
            read_groups=reading.read_groups,
            reference=reading.reference,
        )
        entries = ahead(entries, self.stream.stop if self.stream else _nothing)
        return side_by_side(entries, self.path) if reading.pairs == "auto" else entries

    def line_of_letter(self, record: int) -> int | None:
        """The line of a record's first letter outside IUPAC, where the format has lines.

        None also for a stream that is not kept, as it takes a second pass.
        """
        scan = line_of_sequence if self.form.startswith("FASTQ") else line_of_letter
        kept = self.stream is None or self.stream.kept
        if not (self.form.startswith("FAST") and kept):
            return None
        with closing(self.opened()) as raw, text_of(raw) as (_, text):
            return scan(text, record)


def _nothing() -> None:
    """Do nothing: a file that is read needs nothing to stop it."""


def _refuse_foreign(head: bytes, path: Path) -> None:
    begins, first = head.lstrip(_BEFORE_TEXT), first_line(head)
    found = (found for magic, found in _FOREIGN.items() if begins.startswith(magic))
    what, do = next(found, ("", ""))
    if begins.startswith(b"#") and first.startswith(b">"):
        what = ""  # FASTA below such comments, as the end of a GFF has it
    elif _BARE_SAM.match(first):
        what, do = "a SAM without its header", "write it with `samtools view -h`"
    if head[_TAR[0] :].startswith(_TAR[1]):
        what, do = "a tar archive", _PACKED
    start = head.lstrip(_BEFORE_TEXT)[:1]
    if not what and start not in b">@#" and (b"\0" in head or start > b"~"):
        what, do = "a binary file", _ANOTHER
    if what:
        raise InputError(f"this is {what}; {do}", path)


def _after(record: int, name: str) -> str:
    if not record:
        return "before its first record was complete"
    return f"after record {record} ({name}), the last one that was complete and is kept"
