"""GenBank flat files -> annotated records, one at a time.

Read are what a training set needs: accession, organism, lineage, coding sequences and letters.
"""

import io
import re
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path

from virnucpro.errors import InputError
from virnucpro.reads import letters
from virnucpro.train.annotated import Annotated, Exon

MAGIC = b"LOCUS "
_NOT_LETTERS = b" 0123456789\r\n"
_SPAN = re.compile(r"<?(\d+)(?:\.\.>?(\d+))?")
# Names of lineages that group what is not classified, and so are no unit.
_UNCLASSIFIED = ("unclassified", "environmental", "unassigned", "incertae", "uncultured", "other ")
_VIRUSES = "Viruses"


@dataclass(slots=True)
class _Draft:
    """A record in the making. length_nt: as its first line has it."""

    locus: str
    length_nt: int
    version: str = ""
    organism: str = ""
    lineage: str = ""
    exons: list[Exon] = field(default_factory=list)
    parts: list[bytes] = field(default_factory=list)

    @property
    def name(self) -> str:
        return self.version or self.locus

    def finished(self, path: Path) -> Annotated:
        """Return the record. Raises InputError if it has not the letters that it should."""
        sequence = letters(b"".join(self.parts))
        if sequence and len(sequence) != self.length_nt:
            raise InputError(
                f"the record {self.name} has {len(sequence):,} letters, but its first line says "
                f"{self.length_nt:,}; fetch the file again",
                path,
            )
        unit = unit_of(self.organism, [w.strip() for w in self.lineage.rstrip(".").split(";")])
        return Annotated(self.name, sequence, self.exons, unit, self.organism)


def genbank_records(text: io.BufferedIOBase, path: Path) -> Iterator[Annotated]:
    """Yield the records of a flat file; one that names contigs instead of letters has none.

    Raises InputError for what is not GenBank, and where the file ends within a record.
    """
    draft: _Draft | None = None
    lines = _Lines(text)
    for line in lines:
        if line.startswith(MAGIC):
            draft = _begun(line, path, lines.number)
        elif draft is None:
            continue
        elif line.startswith(b"//"):
            yield draft.finished(path)
            draft = None
        elif line.startswith(b"VERSION "):
            draft.version = line.decode("latin-1").split()[1]
        elif line.startswith(b"  ORGANISM "):
            draft.organism, draft.lineage = _source(line, lines)
        elif line.startswith(b"     CDS "):
            draft.exons += _coding(line, lines)
        elif line.startswith(b"ORIGIN"):
            for letters_line in lines:
                if letters_line.startswith(b"//"):
                    lines.back(letters_line)
                    break
                draft.parts.append(letters_line.translate(None, _NOT_LETTERS))
    if draft is not None:
        raise InputError(f"ends within the record {draft.name}; fetch the file again", path)


class _Lines:
    """Lines, of which the last can be given back."""

    def __init__(self, text: io.BufferedIOBase) -> None:
        self._text = text
        self._again: bytes | None = None
        self.number = 0

    def __iter__(self) -> Iterator[bytes]:
        return self

    def __next__(self) -> bytes:
        if self._again is not None:
            line, self._again = self._again, None
            return line
        self.number += 1
        return next(self._text)

    def back(self, line: bytes) -> None:
        self._again = line

    def continued(self, indent: int) -> Iterator[str]:
        """Yield the lines that begin with so many blanks, without them."""
        for line in self:
            if line[:indent].strip():
                self.back(line)
                return
            yield line[indent:].decode("latin-1").rstrip()


def _begun(line: bytes, path: Path, number: int) -> _Draft:
    words = line.decode("latin-1").split()
    if len(words) < 4 or not words[2].isdecimal() or words[3] not in ("bp", "rc"):
        raise InputError("this LOCUS line states no length in bp; give DNA", path, number)
    return _Draft(words[1], int(words[2]))


def _source(line: bytes, lines: _Lines) -> tuple[str, str]:
    """Return organism and lineage; a long name goes on until a line with a semicolon."""
    name = [line[12:].decode("latin-1").strip()]
    lineage: list[str] = []
    for text in lines.continued(12):
        (lineage if lineage or ";" in text or text.endswith(".") else name).append(text.strip())
    return " ".join(name), " ".join(lineage)


def _coding(line: bytes, lines: _Lines) -> list[Exon]:
    """Return the exons of a CDS; nothing for a pseudogene or a location that is not certain."""
    location, qualifiers = [line[21:].decode("latin-1").strip()], list[str]()
    for text in lines.continued(21):
        (qualifiers if qualifiers or text.startswith("/") else location).append(text)
    first = 1
    for text in qualifiers:
        if text == "/pseudo" or text.startswith("/pseudogene="):
            return []
        if text.startswith("/codon_start="):
            given = text.partition("=")[2].strip('"')
            if given not in ("1", "2", "3"):
                return []
            first = int(given)
    return exons_of("".join(location), first - 1)


def exons_of(location: str, skipped: int) -> list[Exon]:
    """Return the exons at a location, as GenBank writes it.

    skipped: letters before the first whole codon. Exons that lie in another record are left out; a
    location with an uncertain place gives nothing.
    """
    try:
        spans = _spans("".join(location.split()), reverse=False)
    except (ValueError, RecursionError):
        return []
    found = []
    for remote, start, end, reverse in spans:
        length_nt = end - start
        if not remote and skipped < length_nt:
            found.append(Exon(start, end, reverse, skipped))
        skipped = (skipped - length_nt) % 3 if skipped < length_nt else skipped - length_nt
    return found


def _spans(location: str, reverse: bool) -> list[tuple[bool, int, int, bool]]:
    """Return (in another record, start, end, reverse) in the order of translation."""
    name, bracket, inner = location.partition("(")
    if bracket and inner.endswith(")") and name in ("complement", "join", "order"):
        inner = inner[:-1]
        if name == "complement":
            return _spans(inner, not reverse)[::-1]
        return [span for part in _arguments(inner) for span in _spans(part, reverse)]
    accession, colon, span = location.rpartition(":")
    match = _SPAN.fullmatch(span)
    if match is None:
        raise ValueError(location)
    start = int(match[1])
    return [(bool(colon and accession), start - 1, int(match[2] or start), reverse)]


def _arguments(text: str) -> list[str]:
    """Return what commas outside of brackets divide."""
    found, depth = [""], 0
    for letter in text:
        depth += (letter == "(") - (letter == ")")
        if letter == "," and not depth:
            found.append("")
        else:
            found[-1] += letter
    return found


def unit_of(organism: str, lineage: list[str]) -> str:
    """Return the unit of an organism: of a virus its family, of others the genus.

    Without one, the nearest rank above that has a name. Empty if there is none.
    """
    ranks = [rank for rank in lineage if rank and not rank.lower().startswith(_UNCLASSIFIED)]
    if lineage and lineage[0] == _VIRUSES:
        family = next((rank for rank in reversed(ranks) if rank.endswith("viridae")), "")
        if family:
            return family
        return ranks[-1] if len(ranks) > 1 else organism
    words = organism.replace("[", "").replace("]", "").replace("'", "").split()
    genus = " ".join(words[: 2 if words[:1] == ["Candidatus"] else 1])
    if genus in ranks:
        return genus
    return ranks[-1] if ranks else ""
