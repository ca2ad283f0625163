"""The inputs of a run: which files, under which sample names, and their contigs.

Each file is read once, from start to end; its sha256 and the bytes read so far fall out of the same
pass. This module knows no chunk, no encoder and no table.
"""

import hashlib
import zlib
from collections.abc import Generator, Iterator, Sequence
from contextlib import closing, suppress
from pathlib import Path

from virnucpro.errors import InputError
from virnucpro.reads.bam import LEFT_OUT, form_of
from virnucpro.reads.compression import DAMAGE, READ_BYTES, text_of
from virnucpro.reads.contig import IUPAC, Contig, Entry, Seen, decoded_text, why_not_dna
from virnucpro.reads.files import InputFile, Reading, readable_size
from virnucpro.reads.mates import alternating, are_pair, interleaved
from virnucpro.reads.names import PIPE, decoded, sample_name
from virnucpro.reads.streams import STDIN

# A letter outside IUPAC in one of so many first records means that the file is no DNA.
TRIAL_RECORDS = 100
# Readers hold this much of a file that no contig was made of yet.
READ_AHEAD_BYTES = 1 << 18
_U = b"Uu"
_DNA = IUPAC.translate(None, _U)


def open_sources(
    paths: Sequence[Path],
    sample: str | None = None,
    reading: Reading | None = None,
    faults: list[InputError] | None = None,
) -> list["Source"]:
    """The inputs of a run, each checked at once to be a file that can be read.

    sample replaces the name that is made from the file's. Raises InputError for a path that cannot
    be read, and for two inputs of one sample name: rows are told apart by sample and record;
    SettingsError for settings of one input where there are more.
    faults: takes the errors instead, and their inputs are left out.
    """
    reading = reading or Reading()
    reading.check_number(len(paths))  # a folder that was named may hold several
    if reading.reference is not None and readable_size(reading.reference) is None:
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
    if sample is None and name == PIPE and name != path.name:
        pipes = sum(other.sample.startswith(PIPE) for other in others)
        name = f"{PIPE}{pipes + 1}" if pipes else PIPE
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
    """Return whether two paths lead to one file that is there."""
    with suppress(OSError):
        return one.samefile(other)
    return False


def holds_records(path: Path) -> bool:
    """Return whether a file seems to hold sequences. Raises InputError where it cannot be read."""
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


class Source:
    """One input: a file, or the two files of mates. seen: what contigs has delivered.

    rna: whether a letter U was among it; whole: False if it has more records than were asked for.
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
        self._mates = False
        self._records = self._crc = self._letters = 0
        self._sha256 = ""
        self._text = hashlib.sha256()

    @property
    def size_bytes(self) -> int:
        """The size of the files on the disk; 0 where there is a pipe among them."""
        sizes = [file.size_bytes for file in self.files]
        return 0 if self.streamed else sum(sizes)

    @property
    def streamed(self) -> bool:
        """Return whether it comes through a pipe."""
        return any(file.stream is not None for file in self.files)

    @property
    def bytes_read(self) -> int:
        """The bytes of the files, as they lie on the disk, that were read so far."""
        return sum(file.bytes_read for file in self.files)

    @property
    def letters(self) -> int:
        """Letters of the contigs so far, and of their headers."""
        return self._letters

    def bytes_used(self, letters_a_byte: float) -> float:
        """Return how much of the files the contigs so far were made of; readers are ahead of them.

        letters_a_byte: of the files as they lie on the disk, about.
        """
        read = self.bytes_read
        if self._sha256:
            return read
        return max(read - READ_AHEAD_BYTES, min(read, self._letters / letters_a_byte))

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
        """The records that contigs has delivered; the digest only when it has come to the end."""
        return Seen(self._records, self._crc, self._sha256, self._mates)

    @property
    def warnings(self) -> list[tuple[Path, str]]:
        """Notes of what is odd about the ends of files that were read, with their paths."""
        return [(file.path, file.warning) for file in self.files if file.warning]

    @property
    def left_out(self) -> dict[str, int] | None:
        """Alignments that are not primary records, by kind; None for other formats.

        None also where max_records left some unread: alignments are read ahead and counted then.
        """
        (file, *_) = self.files
        if not self.whole:
            return None
        aligned = file.form.startswith(("BAM", "CRAM", "SAM"))
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
        record that was complete, as two records do that should be mates and are not. Raises
        InputError for what is in none of the formats, and where the first two should be mates.
        """
        self._begin()
        most = self.reading.max_records
        last: Contig | None = None  # of those that were asked for
        for name, header, sequence, mate, sample in self._entries():
            record = self._records + 1
            contig = Contig(sample or self.sample, record, name, sequence, "", header, mate)
            if others := sequence.translate(None, _DNA):
                contig = self._with_others(contig, others)
            del sequence
            line = f">{header}\n".encode("utf-8", "surrogateescape")
            if most is not None:
                if record > most and (last is None or not are_pair(last, contig)):
                    self.whole = False
                    break
                last = contig if record == most else None
                self._text.update(line + contig.sequence + b"\n")
            self._crc = zlib.crc32(contig.sequence, zlib.crc32(line, self._crc))
            self._records = record
            self._letters += len(header) + len(contig.sequence)
            if mate:
                self._mates = True
            yield contig
            del contig  # its letters; the next is read meanwhile
        self._sha256 = self.sha256 if most is None else self._text.hexdigest()

    def _entries(self) -> Iterator[Entry]:
        entries = [file.entries() for file in self.files]
        paths = [file.path for file in self.files]
        if len(paths) > 1:
            return alternating(entries[0], entries[1], (paths[0], paths[1]))
        if self.reading.pairs == "interleaved":
            return interleaved(entries[0], self.path)
        return entries[0]

    def _with_others(self, contig: Contig, others: bytes) -> Contig:
        """Return a contig with letters besides DNA: as it is if they are U, else refused.

        Raises InputError where it is one of the first records.
        """
        if not others.strip(_U):
            self.rna = True
            return contig
        sequence, record = contig.sequence, contig.record
        others = others.replace(b"U", b"").replace(b"u", b"")
        position = next(i for i, letter in enumerate(sequence) if letter in others)
        why = why_not_dna(decoded_text(sequence[position:]))
        if record <= TRIAL_RECORDS:
            file = self.files[(record - 1) % len(self.files)]
            within = (record - 1) // len(self.files) + 1
            line = file.line_of_letter(within)
            raise InputError(f"record {within} ({contig.name}) holds {why}", file.path, line)
        return contig.refused(f"it holds, at base {position + 1}, {why}")


def _together(digests: Sequence[str]) -> str:
    if len(digests) == 1 or not all(digests):
        return digests[0] if len(digests) == 1 else ""
    return hashlib.sha256("\n".join(digests).encode()).hexdigest()
