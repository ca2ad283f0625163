"""Annotated genomes for tests: GenBank by Biopython, FASTA with GFF3 by hand."""

import gzip

import numpy as np
from Bio import SeqIO
from Bio.Seq import Seq
from Bio.SeqFeature import CompoundLocation, SeqFeature, SimpleLocation
from Bio.SeqRecord import SeqRecord

CODONS = [a + b + c for a in "ACGT" for b in "ACGT" for c in "ACGT"]
SENSE = [codon for codon in CODONS if codon not in ("TAA", "TAG", "TGA")]
# Holds a stop in each of the six frames.
CLOSED = "TTAATTAATTAA"


def coding(random, codons):
    return "".join(random.choice(SENSE, codons))


def genome(random, genes=3, codons=300):
    """A genome of genes with stops between them, each second on the other strand: text, spans."""
    text, spans = CLOSED * 5, []
    for number in range(genes):
        gene = "ATG" + coding(random, codons - 2) + "TAA"
        strand = 1 if number % 2 == 0 else -1
        spans.append((len(text), len(text) + len(gene), strand))
        text += (gene if strand == 1 else str(Seq(gene).reverse_complement())) + CLOSED * 5
    return text, spans


def record(name, text, features, organism="", taxonomy=()):
    annotations = {"molecule_type": "DNA", "organism": organism, "taxonomy": list(taxonomy)}
    made = SeqRecord(Seq(text), name, name.partition(".")[0], "made", annotations=annotations)
    made.features += features
    return made


def cds(location, **qualifiers):
    return SeqFeature(location, type="CDS", qualifiers={"codon_start": ["1"], **qualifiers})


def simple(spans):
    return [cds(SimpleLocation(*span)) for span in spans]


def joined(*parts):
    return CompoundLocation([SimpleLocation(*part) for part in parts])


def written(path, records):
    opened = gzip.open if path.suffix == ".gz" else open
    path.parent.mkdir(parents=True, exist_ok=True)
    with opened(path, "wt") as file:
        SeqIO.write(records, file, "genbank")
    return path


def virus(random, number, family, **sizes):
    text, spans = genome(random, **sizes)
    taxonomy = ["Viruses", "Riboviria", family] if family else ["Viruses", "Riboviria"]
    return record(f"NC_{number:06}.1", text, simple(spans), f"Virus {number}", taxonomy)


def cell(random, number, genus, **sizes):
    text, spans = genome(random, **sizes)
    taxonomy = ["Bacteria", "Pseudomonadota", f"{genus}aceae", genus]
    return record(f"NZ_{number:06}.1", text, simple(spans), f"{genus} species {number}", taxonomy)


def collection(folder, seed=0, units=6, groups=("bacteria", "fungi")):
    """Folders of groups as `train fetch` leaves them, each with some units of two genomes."""
    random = np.random.default_rng(seed)
    viruses = [virus(random, n, f"Family{n // 2}viridae") for n in range(2 * units)]
    half = len(viruses) // 2 + 1  # the families do not end where files do
    written(folder / "viral" / "viral.1.genomic.gbff.gz", viruses[:half])
    written(folder / "viral" / "viral.2.genomic.gbff.gz", viruses[half:])
    for place, group in enumerate(groups):
        cells = [
            cell(random, 1000 * (place + 1) + n, f"{group.title()}{n // 2}")
            for n in range(2 * units)
        ]
        written(folder / group / f"{group}.1.genomic.gbff.gz", cells)
    return folder
