"""Coding sequences of genomes: read as Biopython reads them, and compared with open frames."""

import gzip
from collections import Counter
from pathlib import Path

import numpy as np
import pytest
from Bio import SeqIO
from Bio.Seq import Seq
from Bio.SeqFeature import SimpleLocation
from hypothesis import given, settings
from hypothesis import strategies as st

from made_genomes import CLOSED, cds, cell, coding, genome, joined, record, simple, virus, written
from virnucpro.calls import FRAME_NAMES
from virnucpro.chunks import chunk_spans, span_arrays
from virnucpro.errors import InputError
from virnucpro.frames import open_frames
from virnucpro.train.annotated import Annotated, Exon, coding_overlaps, confirmed_frames
from virnucpro.train.annotated_files import AnnotatedFile, annotated_files
from virnucpro.train.genbank import exons_of, unit_of


def read(path):
    return list(AnnotatedFile(path).records())


def exon_codons(exon):
    """The first letters of the whole codons of an exon, on the forward strand's count."""
    if exon.reverse:
        return [*range(exon.end - exon.skipped - 3, exon.start - 1, -3)]
    return [*range(exon.start + exon.skipped, exon.end - 2, 3)]


exons = st.builds(
    lambda start, length, reverse, skipped: Exon(start, start + length, reverse, skipped),
    st.integers(0, 300),
    st.integers(3, 120),
    st.booleans(),
    st.integers(0, 2),
)


@settings(max_examples=60, deadline=None)
@given(st.lists(exons, max_size=5), st.integers(20, 150), st.integers(430, 500))
def test_overlaps_are_those_of_letters_one_by_one(found, chunk_nt, length_nt):
    start, end = span_arrays(length_nt, chunk_nt)
    overlaps = coding_overlaps(found, start, end)
    for column, (a, b) in enumerate(chunk_spans(length_nt, chunk_nt)):
        for frame in range(6):
            reverse, shift = divmod(frame, 3)
            # A codon of this frame begins at these places modulo 3, on its strand.
            codons = (b - shift) % 3 if reverse else (a + shift) % 3
            covered = {
                letter
                for exon in found
                if exon.reverse == bool(reverse)
                and codons
                == ((exon.end - exon.skipped) if reverse else (exon.start + exon.skipped)) % 3
                for letter in range(exon.start, exon.end)
            }
            own = range(a, b - shift) if reverse else range(a + shift, b)
            assert overlaps[frame, column] == len(covered.intersection(own))


def test_the_frame_of_a_gene_is_the_one_that_is_confirmed():
    random = np.random.default_rng(1)
    text, spans = genome(random, genes=4, codons=150)
    exons = [Exon(a, b, strand < 0, 0) for a, b, strand in spans]
    proteins = [
        str((Seq(text[a:b]) if s > 0 else Seq(text[a:b]).reverse_complement()).translate())
        for a, b, s in spans
    ]
    made = Annotated("g", text.encode(), exons, "u", "")
    seen = Counter()
    for found in confirmed_frames(made, 120, 60):
        for row, protein in enumerate(found.protein):
            chunk = text[found.start[row] : found.end[row]]
            name = FRAME_NAMES[found.frame[row]]
            assert {f.name: f.protein for f in open_frames(chunk)}[name] == protein
            # All of it but what lies beside the gene is a piece of the gene's protein.
            assert any(protein[5:-20] in gene for gene in proteins)
            assert 60 <= found.overlap_nt[row] <= 120
            seen[name[0]] += 1
    assert seen["F"] > 3
    assert seen["R"] > 3


def test_another_strand_or_phase_confirms_nothing():
    random = np.random.default_rng(2)
    text = coding(random, 100)
    for exon, count in (
        (Exon(0, 300, False, 0), 1),
        (Exon(1, 300, False, 0), 0),
        (Exon(0, 300, True, 0), 0),
        (Exon(1, 300, False, 2), 1),
        (Exon(0, 149, False, 0), 0),
        (Exon(0, 150, False, 0), 1),
    ):
        closed = [f for f in open_frames(text) if f.name != "F1"]
        assert not closed
        found = [*confirmed_frames(Annotated("g", text.encode(), [exon], "u", ""), 300, 150)]
        assert sum(len(part.chunk) for part in found) == count, exon


def test_isoforms_count_once_and_many_chunks_come_in_parts(monkeypatch):
    monkeypatch.setattr("virnucpro.train.annotated.AT_ONCE", 2)
    text = coding(np.random.default_rng(3), 500)
    exons = [Exon(0, 1500, False, 0), Exon(0, 1500, False, 0), Exon(300, 1500, False, 0)]
    parts = [*confirmed_frames(Annotated("g", text.encode(), exons, "u", ""), 300, 150)]
    assert [part.chunk.tolist() for part in parts] == [[0, 1], [2, 3], [4]]
    assert {int(n) for part in parts for n in part.overlap_nt} == {300}


def test_genbank_is_read_as_biopython_reads_it(tmp_path):
    random = np.random.default_rng(4)
    text = coding(random, 400)
    features = [
        cds(SimpleLocation(10, 100, 1), codon_start=["3"]),
        cds(SimpleLocation(10, 100, -1), codon_start=["2"]),
        cds(joined((100, 150, 1), (200, 260, 1), (262, 264, 1), (300, 400, 1))),
        cds(joined((600, 700, -1), (500, 540, -1)), codon_start=["2"]),
        cds(joined((0, 50, 1), (49, 90, 1)), ribosomal_slippage=[None]),
        cds(joined((1000, 1200, 1), (0, 40, 1)), note=["long " * 40 + "/pseudogene in a note"]),
    ]
    long = "Some virus with a very long name that goes on and on and on until a second line begins"
    path = written(
        tmp_path / "x.gbff.gz", [record("AB1.2", text, features, long, ["Viruses", "X"])]
    )
    (ours,) = read(path)
    with gzip.open(path, "rt") as file:
        (theirs,) = SeqIO.parse(file, "genbank")
    assert (ours.name, ours.sequence.decode()) == (theirs.id, str(theirs.seq))
    assert ours.organism == theirs.annotations["organism"]
    left = [*ours.exons]
    for feature in theirs.features:
        mine = left[: len(feature.location.parts)]
        left = left[len(mine) :]
        assert [(e.start, e.end, e.reverse) for e in mine] == [
            (int(p.start), int(p.end), p.strand < 0) for p in feature.location.parts
        ]
        # The whole codons of all exons are those of the transcript that lie in one exon.
        first = int(feature.qualifiers["codon_start"][0]) - 1
        places = [
            place
            for part in feature.location.parts
            for place in (
                range(int(part.start), int(part.end))
                if part.strand > 0
                else range(int(part.end) - 1, int(part.start) - 1, -1)
            )
        ]
        codons = [places[i : i + 3] for i in range(first, len(places) - 2, 3)]
        whole = [min(c) for c in codons if max(c) - min(c) == 2 and len({*c}) == 3]
        assert {c for e in mine for c in exon_codons(e)} <= {*whole}
        assert sum(len(exon_codons(e)) for e in mine) >= len(whole) - len(mine)
    assert left == []


@pytest.mark.parametrize(
    ("location", "expected"),
    [
        ("<1..>9", [(0, 9, False, 0)]),
        ("7", [(6, 7, False, 0)]),
        ("complement(join(1..4,11..20))", [(10, 20, True, 0), (0, 4, True, 2)]),
        ("join(complement(11..20),complement(1..4))", [(10, 20, True, 0), (0, 4, True, 2)]),
        ("join(J00194.1:1..4,11..20)", [(10, 20, False, 2)]),
        ("order(1..3,\n  5..7)", [(0, 3, False, 0), (4, 7, False, 0)]),
        ("join(1..1,3..9)", [(0, 1, False, 0), (2, 9, False, 2)]),
        ("(3.5)..9", []),
        ("3^4", []),
    ],
)
def test_locations(location, expected):
    assert exons_of(location, 0) == [Exon(*each) for each in expected]


def test_what_is_skipped_may_be_more_than_an_exon():
    assert exons_of("join(1..1,3..9)", 2) == [Exon(2, 9, False, 1)]


def test_pseudogenes_and_other_features_confirm_nothing(tmp_path):
    text = coding(np.random.default_rng(5), 100)
    where = SimpleLocation(0, 300, 1)
    features = [cds(where, pseudo=[None]), cds(where, pseudogene=["unknown"]), cds(where)]
    features[2].type = "gene"
    (found,) = read(written(tmp_path / "x.gb", [record("A1.1", text, features, "O", ["Viruses"])]))
    assert found.exons == []


@pytest.mark.parametrize(
    ("organism", "lineage", "unit"),
    [
        ("T4", "Viruses; Uroviricota; Straboviridae; Tequatrovirus", "Straboviridae"),
        ("phage", "Viruses; Uroviricota; Caudoviricetes; Xvirus", "Xvirus"),
        ("phage", "Viruses; Caudoviricetes; unclassified Caudoviricetes", "Caudoviricetes"),
        ("Odd virus", "Viruses", "Odd virus"),
        ("Escherichia coli K-12", "Bacteria; Enterobacteriaceae; Escherichia", "Escherichia"),
        ("Solanum lycopersicum", "Eukaryota; Solanum; Solanum subgen. Lyco", "Solanum"),
        ("[Clostridium] scindens", "Bacteria; Lachnospiraceae", "Lachnospiraceae"),
        ("Candidatus P. ubique", "Bacteria; Candidatus P.", "Candidatus P."),
        ("uncultured x", "Bacteria; environmental samples", "Bacteria"),
        ("construct", "", ""),
    ],
)
def test_the_unit_of_a_lineage(organism, lineage, unit):
    assert unit_of(organism, lineage.split("; ")) == unit


def test_a_cut_off_or_damaged_genbank_file_is_refused(tmp_path):
    random = np.random.default_rng(6)
    path = written(tmp_path / "x.gb", [virus(random, 1, "Aviridae")])
    whole = path.read_text()
    for broken, why in (
        (whole[: len(whole) // 2], "ends within the record NC_000001.1"),
        (whole.replace("        1 t", "        1 "), "letters, but its first line says"),
        (whole.replace(" bp ", " aa "), "states no length in bp"),
    ):
        assert broken != whole
        path.write_text(broken)
        with pytest.raises(InputError, match=why):
            read(path)
    packed = written(tmp_path / "y.gbff.gz", [virus(random, 1, "Aviridae")])
    packed.write_bytes(packed.read_bytes()[:-300])
    with pytest.raises(InputError, match=r"y\.gbff\.gz: cannot be read .*fetch it again"):
        read(packed)


def test_a_record_that_names_contigs_has_no_letters(tmp_path):
    path = written(tmp_path / "x.gb", [virus(np.random.default_rng(7), 1, "Aviridae")])
    before, _, _ = path.read_text().partition("ORIGIN")
    path.write_text(f"{before}CONTIG      join(AB1.1:1..99)\n//\n")
    (found,) = read(path)
    assert found.sequence == b""
    assert found.exons


def gff(made):
    """The rows of the CDS features of a record, in the order of the file."""
    rows = ["##gff-version 3"]
    for number, feature in enumerate(made.features):
        done = int(feature.qualifiers["codon_start"][0]) - 1
        phases = []
        for part in feature.location.parts:
            phases.append(done)
            done = (done - len(part)) % 3
        for part, phase in zip(feature.location.parts, phases, strict=True):
            span = f"{int(part.start) + 1}\t{int(part.end)}\t.\t{'+-'[part.strand < 0]}\t{phase}"
            rows.append(f"{made.id}\tx\tCDS\t{span}\tID=cds{number}")
            rows.append(f"{made.id}\tx\texon\t{span}\tID=exon{number}")
    return "\n".join(rows) + "\n"


def fasta_pair(folder, made, units="id\tunit\n*\tEscherichia\n", name="e"):
    folder.mkdir(exist_ok=True)
    text = "".join(f">{each.id} about\n{each.seq}\n" for each in made)
    (folder / f"{name}.fna").write_text(text)
    (folder / f"{name}.gff3").write_text("".join(map(gff, made)))
    if units:
        (folder / f"{name}.tsv").write_text(units)
    return folder / f"{name}.fna"


def test_fasta_with_gff3_is_the_same_as_genbank(tmp_path):
    random = np.random.default_rng(8)
    made = [cell(random, n, "Escherichia") for n in range(2)]
    made[0].features.append(cds(joined((600, 700, -1), (500, 541, -1), (300, 350, -1))))
    ours = read(fasta_pair(tmp_path / "f", made))
    theirs = read(written(tmp_path / "x.gb", made))
    for one, other in zip(ours, theirs, strict=True):
        assert (one.name, one.sequence, one.unit) == (other.name, other.sequence, other.unit)
        assert sorted(one.exons) == sorted(other.exons)


def test_a_file_knows_the_digests_of_all_that_it_read(tmp_path):
    path = fasta_pair(tmp_path, [cell(np.random.default_rng(9), 1, "A")])
    file = AnnotatedFile(path)
    assert [*file.records()]
    assert {p.suffix for p in file.sha256} == {".fna", ".gff3", ".tsv"}
    assert all(len(digest) == 64 for digest in file.sha256.values())


def test_fasta_without_annotation_or_unit_is_refused(tmp_path):
    made = [cell(np.random.default_rng(10), 1, "A")]
    path = fasta_pair(tmp_path, made, units="")
    with pytest.raises(InputError, match=r"the unit of NZ_000001\.1 is unknown; a table e\.tsv"):
        read(path)
    (tmp_path / "e.gff3").rename(tmp_path / "other.gff3")
    with pytest.raises(InputError, match=r"put its GFF3 beside it .* as e\.gff3"):
        read(path)


def test_gff3_of_other_names_or_without_phase_is_refused(tmp_path):
    made = [cell(np.random.default_rng(11), 1, "A")]
    path = fasta_pair(tmp_path, made)
    table = tmp_path / "e.gff3"
    good = table.read_text()
    table.write_text(good.replace("NZ_", "chr"))
    with pytest.raises(InputError, match="give both the same names"):
        read(path)
    table.write_text(good.replace("\t0\tID=cds0", "\t.\tID=cds0"))
    with pytest.raises(InputError, match=r"e\.gff3, line 2: a CDS needs"):
        read(path)
    table.write_text(good.replace("ID=cds0", "ID=cds0;pseudo=true") + "##FASTA\n>x\tCDS\tx\nAC\n")
    (found,) = read(path)
    assert len(found.exons) == len(made[0].features) - 1


def test_a_folder_gives_its_genomes_and_nothing_else(tmp_path):
    for name in (
        "b.gbff.gz",
        "a.fna",
        "a.gff3",
        "a.tsv",
        "c.GBK",
        "fetched.json",
        "d.gbff.gz.part",
    ):
        (tmp_path / name).touch()
    assert [path.name for path in annotated_files(tmp_path)] == ["a.fna", "b.gbff.gz", "c.GBK"]
    assert annotated_files(Path("some.txt")) == [Path("some.txt")]
    (tmp_path / "empty").mkdir()
    with pytest.raises(InputError, match="no GenBank or FASTA file"):
        annotated_files(tmp_path / "empty")


def test_genbank_of_any_name_is_known_by_its_content(tmp_path):
    path = written(tmp_path / "genome.txt", [virus(np.random.default_rng(12), 1, "Aviridae")])
    release = tmp_path / "gbvrl1.seq"
    release.write_text(f"GBVRL1.SEQ   Genetic Sequence Data Bank\n\n{path.read_text()}")
    assert read(release)[0].name == "NC_000001.1"
    (found,) = read(path)
    assert found.unit == "Aviridae"
    assert CLOSED.encode() in found.sequence
    assert simple([(0, 3, 1)])[0].location.start == 0
