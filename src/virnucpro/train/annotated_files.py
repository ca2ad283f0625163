"""Files of annotated records: GenBank flat files, or FASTA with a GFF3 beside it.

A FASTA file has its GFF3 (`x.gff3` or `x.gff`, plain or gzip) and a table of units (`x.tsv`) under
the same name.
"""

import io
from array import array
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path

from virnucpro.errors import InputError
from virnucpro.measure.labels import DESCRIPTIONS, read_table, table_beside
from virnucpro.reads import FASTA_SUFFIXES, letters, open_sources
from virnucpro.reads.compression import DAMAGE, Hashed, is_damage, text_of
from virnucpro.reads.names import PACKED_SUFFIXES
from virnucpro.train.annotated import Annotated, Exon
from virnucpro.train.genbank import MAGIC, genbank_records

GENBANK_SUFFIXES = (".gb", ".gbk", ".gbff", ".genbank")
GFF_SUFFIXES = (".gff3", ".gff")
ANY = "*"
UNIT = DESCRIPTIONS.index("unit")
_FIELDS = 8


@dataclass(slots=True)
class AnnotatedFile:
    """One GenBank or FASTA file. sha256: of every file that a pass over it has read whole."""

    path: Path
    sha256: dict[Path, str] = field(default_factory=dict)

    def records(self) -> Iterator[Annotated]:
        """Yield its records, one at a time. Raises InputError."""
        if _bare(self.path).endswith(GENBANK_SUFFIXES) or self._is_genbank():
            yield from self._genbank()
        else:
            yield from self._fasta()

    def _is_genbank(self) -> bool:
        with _opened(self.path, {}) as text:  # files of GenBank's own releases begin with a title
            head = text.peek(len(MAGIC))
            return head.startswith(MAGIC) or (b"\n" + MAGIC in head and not head.startswith(b">"))

    def _genbank(self) -> Iterator[Annotated]:
        with _opened(self.path, self.sha256) as text:
            yield from genbank_records(text, self.path)

    def _fasta(self) -> Iterator[Annotated]:
        gff, table = _gff_beside(self.path), table_beside(self.path)
        if gff is None:
            raise InputError(
                "no annotation of this FASTA: put its GFF3 beside it under the same name, as "
                f"{_stem(self.path)}.gff3, or give a GenBank file",
                self.path,
            )
        units: dict[str, str] = {}
        if table is not None:
            digests: dict[str, str] = {}
            rows = read_table([table], digests).rows
            units = {name: values[UNIT] for name, (_, values) in rows.items()}
            (self.sha256[table],) = digests.values()
        with _opened(gff, self.sha256) as text:
            exons = gff_exons(text, gff)
        (source,) = open_sources([self.path])
        annotated = False
        for contig in source.contigs():
            unit = units.get(contig.name) or units.get(ANY, "")
            if not unit:
                raise InputError(
                    f"the unit of {contig.name} is unknown; a table {_stem(self.path)}.tsv beside "
                    "this file must give it: columns id and unit (of a virus its family, else the "
                    f"genus), a row for each record, or one with the id {ANY} for all",
                    self.path,
                )
            found = _unpacked(exons.get(contig.name))
            annotated = annotated or bool(found)
            yield Annotated(contig.name, letters(contig.sequence), found, unit, "")
        self.sha256[self.path] = source.sha256
        if exons and not annotated:
            raise InputError(
                f"none of its records is named in {gff}; give both the same names", self.path
            )


def gff_exons(text: io.BufferedIOBase, path: Path) -> dict[str, "array[int]"]:
    """Return the coding exons of each sequence, four numbers each. Raises InputError."""
    found: dict[str, array[int]] = {}
    for number, line in enumerate(text, 1):
        if line.startswith(b"##FASTA"):
            break
        if line.startswith(b"#") or b"\tCDS\t" not in line:
            continue
        fields = line.decode("utf-8", "replace").rstrip("\r\n").split("\t")
        if len(fields) <= _FIELDS or "pseudo=true" in fields[_FIELDS].split(";"):
            continue
        name, _, _, start, end, _, strand, phase = fields[:_FIELDS]
        if not (start.isdecimal() and end.isdecimal()) or phase not in ("0", "1", "2"):
            raise InputError("a CDS needs a start, an end, and the phase 0, 1 or 2", path, number)
        exon = (int(start) - 1, int(end), int(strand == "-"), int(phase))
        found.setdefault(name, array("q")).extend(exon)
    return found


def _unpacked(numbers: "array[int] | None") -> list[Exon]:
    rest = iter(numbers or ())
    return [Exon(a, b, bool(r), s) for a, b, r, s in zip(rest, rest, rest, rest, strict=True)]


def annotated_files(path: Path) -> list[Path]:
    """Return a file, or those of a folder that hold annotated records, in the order of their names.

    Raises InputError where there is none.
    """
    if not path.is_dir():
        return [path]
    suffixes = (*GENBANK_SUFFIXES, *FASTA_SUFFIXES)
    found = sorted(p for p in path.iterdir() if p.is_file() and _bare(p).endswith(suffixes))
    if not found:
        raise InputError("no GenBank or FASTA file in this folder", path)
    return found


@contextmanager
def _opened(path: Path, sha256: dict[Path, str]) -> Iterator[io.BufferedReader]:
    """Open the text of a file, decompressed; its digest is added to sha256 if it is read whole."""
    try:
        raw = Hashed(io.FileIO(path))
        with text_of(raw) as (_, text):
            yield text
            raw.drain()
            sha256[path] = raw.sha256
    except (*DAMAGE, OSError) as error:
        why = "damaged or cut off; fetch it again" if is_damage(error) else "check the path"
        reason = error.strerror if isinstance(error, OSError) else str(error)
        raise InputError(f"cannot be read ({reason}): {why}", path) from error


def _bare(path: Path) -> str:
    """Return a name in lower case, without the ending of a compressed file."""
    name = path.name.lower()
    packed = next((suffix for suffix in PACKED_SUFFIXES if name.endswith(suffix)), "")
    return name.removesuffix(packed)


def _stem(path: Path) -> str:
    """Return the name of a FASTA file without its endings."""
    bare = _bare(path)
    suffix = next((suffix for suffix in FASTA_SUFFIXES if bare.endswith(suffix)), "")
    return path.name[: len(bare) - len(suffix)]


def _gff_beside(path: Path) -> Path | None:
    names = (_stem(path) + suffix + packed for suffix in GFF_SUFFIXES for packed in ("", ".gz"))
    return next((file for name in names if (file := path.with_name(name)).is_file()), None)
