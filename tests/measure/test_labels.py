import gzip
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from virnucpro.errors import InputError
from virnucpro.measure.labels import (
    LabelledContig,
    beside,
    read_two_sided,
    read_with_labels,
    table_beside,
    with_novelty,
)
from virnucpro.train.units import calibration_units, contig_weights, held_out_slice


def write(path: Path, text: str) -> Path:
    data = text.encode()
    path.write_bytes(gzip.compress(data) if path.suffix == ".gz" else data)
    return path


def fasta(path: Path, *names: str) -> Path:
    return write(path, "".join(f">{name}\nACGUacgtNN\n" for name in names))


def test_two_files_give_the_label_and_the_table_beside_the_rest(tmp_path: Path) -> None:
    viral = fasta(tmp_path / "v.fasta.gz", "A.1|phage|x", "B")
    other = fasta(tmp_path / "o.fa", "C|bacteria|y", "D|two", "E||z")
    columns = "id\tgroup\torganism\tlevel\tsource\tunit\n"
    write(tmp_path / "v.tsv.gz", columns + "A.1\t\tx\tgenome\ts\tfam:X\nB\tdna\ty\tgenome\ts\t\n")
    found = read_two_sided([viral], [other])
    assert found.contigs == [
        LabelledContig("A.1|phage|x", b"ACGTACGTNN", 1, "phage", "genome", "s", "fam:X"),
        LabelledContig("B", b"ACGTACGTNN", 1, "dna", "genome", "s", "B"),
        LabelledContig("C|bacteria|y", b"ACGTACGTNN", 0, "bacteria", unit="C|bacteria|y"),
        LabelledContig("D|two", b"ACGTACGTNN", 0, unit="D|two"),
        LabelledContig("E||z", b"ACGTACGTNN", 0, unit="E||z"),
    ]
    folder = tmp_path.name
    assert set(found.sha256) == {f"{folder}/{n}" for n in ("v.fasta.gz", "v.tsv.gz", "o.fa")}
    assert not found.faults


@pytest.mark.parametrize("name", ["x.fsa.gz", "x.FA.GZ", "x.seq", "x.fna.bgz"])
def test_every_suffix_that_is_read_has_its_table_beside(name: str, tmp_path: Path) -> None:
    (tmp_path / name).touch()
    table = write(tmp_path / "x.tsv", "id\tunit\nA\tu\n")
    assert table_beside(tmp_path / name) == table


def test_a_table_beside_that_leaves_a_contig_out_is_named(tmp_path: Path) -> None:
    viral = fasta(tmp_path / "v.fasta", "A", "B")
    write(tmp_path / "v.tsv", "id\tunit\nA\tu\n")
    with pytest.raises(InputError, match=r"v\.tsv: no row for the contig B"):
        read_two_sided([viral], [viral])


@pytest.mark.parametrize("name", ["lcl|900001|x", "gnl|TAXON|x", "gi|1|ref|NC_1.1|"])
def test_names_of_ncbi_tell_no_group(tmp_path: Path, name: str) -> None:
    viral, other = fasta(tmp_path / "v.fasta", name), fasta(tmp_path / "o.fasta", "B")
    assert [c.group for c in read_two_sided([viral], [other]).contigs] == ["", ""]


def test_an_unrelated_table_beside_is_left_alone_and_said_to_be(tmp_path: Path) -> None:
    viral, other = fasta(tmp_path / "v.fasta", "A"), fasta(tmp_path / "o.fasta", "B")
    table = write(tmp_path / "v.tsv", "id\tUnit\nA\t2\n")
    assert [c.label for c in read_two_sided([viral], [other]).contigs] == [1, 0]
    found = beside(viral)
    assert found is not None
    assert found.sentence.startswith(f"{table} is not used: to describe the sequences of v.fasta, ")
    assert "a column id and any of group, level, source, unit" in found.sentence
    assert beside(other) is None
    write(tmp_path / "v.tsv.gz", "id\tunit\nA\tx\n")
    found = beside(viral)
    assert found is not None
    assert found.sentence == f"{table}.gz describes the sequences of {viral}"


def test_a_side_without_contigs_is_an_error(tmp_path: Path) -> None:
    viral, empty = fasta(tmp_path / "v.fasta", "A"), write(tmp_path / "o.fasta", "")
    with pytest.raises(InputError, match="negative side"):
        read_two_sided([viral], [empty])
    with pytest.raises(InputError, match="positive side"):
        read_two_sided([], [viral])


def test_a_table_of_labels(tmp_path: Path) -> None:
    path = fasta(tmp_path / "x.fasta", "A", "B|phage|z")
    table = write(tmp_path / "t.tsv.gz", "unit\tlabel\tid\nu1\t1\tB\n\nu2\t0\tA\n")
    found = read_with_labels([path], [table])
    assert [(c.name, c.label, c.group, c.unit) for c in found.contigs] == [
        ("A", 0, "", "u2"),
        ("B|phage|z", 1, "phage", "u1"),
    ]


@pytest.mark.parametrize(
    ("table", "message"),
    [
        ("id\tlabel\nA\t1\n", r"t\.tsv: 1 id \(B\) without a label, of .*x\.fasta"),
        ("id\tlabel\nA\t1\nB\t0\nC\t1\n", r"1 id \(C\) labelled here, but missing in .*x\.fasta"),
        ("id\tlabel\nA\t1\nB\tvirus\n", r"t\.tsv, line 3: the label is 'virus'"),
        ("id\tlabel\nA\t1\nA\t0\n", r"t\.tsv, line 3: the id A occurs a second time"),
        ("id\tlabel\nA\t1\nB\n", r"t\.tsv, line 3: 1 columns, but the header has 2"),
        ("name\tlabel\nA\t1\n", r"t\.tsv, line 1: the first line names no column id"),
        ("id\tgroup\nA\tx\nB\ty\n", r"t\.tsv: the table has no column label"),
        ("", r"t\.tsv, line 1: the first line names no column id"),
        ("id\tlabel\n", r"2 ids \(A, B\) without a label, of "),
    ],
)
def test_what_is_wrong_with_a_table_is_said(tmp_path: Path, table: str, message: str) -> None:
    path = fasta(tmp_path / "x.fasta", "A", "B")
    with pytest.raises(InputError, match=message):
        read_with_labels([path], [write(tmp_path / "t.tsv", table)])


def test_frames_come_from_the_table_and_are_checked(tmp_path: Path) -> None:
    sides = [fasta(tmp_path / "v.fa", "a", "b"), fasta(tmp_path / "o.fa", "c")]
    write(tmp_path / "v.tsv", "id\tunit\tframes\na\tu\tF1,R3\nb\tu\t\n")
    found = read_two_sided(sides[:1], sides[1:]).contigs
    assert [contig.frames for contig in found] == ["F1,R3", "", ""]
    write(tmp_path / "v.tsv", "id\tunit\tframes\na\tu\tF1,F4\nb\tu\t\n")
    with pytest.raises(
        InputError, match=r"v\.tsv, line 2: the frames are 'F1,F4', but must be of F1"
    ):
        read_two_sided(sides[:1], sides[1:])


def test_long_lists_are_cut_and_repeats_refused(tmp_path: Path) -> None:
    path = fasta(tmp_path / "x.fasta", *"ABCDEFG")
    table = write(tmp_path / "t.tsv", "id\tlabel\nA\t1\n")
    with pytest.raises(InputError, match=r"6 ids \(B, C, D, E, F and 1 more\)"):
        read_with_labels([path], [table])
    with pytest.raises(InputError, match="A occurs twice"):
        read_with_labels([fasta(path, "A", "A")], [table])


def test_a_missing_or_broken_table_is_said(tmp_path: Path) -> None:
    path = fasta(tmp_path / "x.fasta", "A")
    with pytest.raises(InputError, match="cannot be read"):
        read_with_labels([path], [tmp_path / "none.tsv"])
    broken = tmp_path / "b.tsv.gz"
    broken.write_bytes(gzip.compress(b"id\tlabel\nA\t1\n")[:-6])
    with pytest.raises(InputError, match="cannot be read"):
        read_with_labels([path], [broken])


def test_a_contig_that_is_no_dna_stays_without_letters(tmp_path: Path) -> None:
    many = [f"r{i}" for i in range(150)]
    viral, other = fasta(tmp_path / "v.fasta", *many), fasta(tmp_path / "o.fasta", "B")
    with viral.open("a") as file:
        file.write(">late\nACGTX\n")
    found = read_two_sided([viral], [other])
    assert (found.contigs[150].name, found.contigs[150].sequence) == ("late", b"")
    assert len(found.faults) == 1
    assert "record 151 (late)" in found.faults[0]


def contig(name: str, label: int, group: str, unit: str, size: int) -> LabelledContig:
    return LabelledContig(name, b"A" * size, label, group, unit=unit)


contigs_strategy = st.lists(
    st.builds(
        contig,
        st.uuids().map(str),
        st.integers(0, 1),
        st.sampled_from(["a", "b"]),
        st.integers(0, 12).map("u{}".format),
        st.integers(1, 300),
    ),
    min_size=1,
    max_size=60,
)


@settings(max_examples=80, deadline=None)
@given(contigs_strategy, st.integers(0, 3), st.randoms())
def test_no_unit_lies_on_both_sides_whatever_the_order(contigs, seed, random) -> None:
    out = held_out_slice(contigs, 0.2, seed)
    sides = {True: set(), False: set()}
    for c, is_out in zip(contigs, out, strict=True):
        sides[bool(is_out)].add(c.unit)
    assert not sides[True] & sides[False]
    mixed = list(zip(contigs, out.tolist(), strict=True))
    random.shuffle(mixed)
    again = held_out_slice([c for c, _ in mixed], 0.2, seed)
    assert again.tolist() == [is_out for _, is_out in mixed]


def test_every_group_of_several_units_gives_about_the_fraction() -> None:
    rng = np.random.default_rng(0)
    contigs = [
        contig(f"{g}{i}", 1, g, f"{g}{i}", int(rng.integers(100, 400)))
        for g in "ab"
        for i in range(200)
    ]
    contigs += [contig("x", 0, "lone", "lone", 50), contig("y", 0, "lone", "lone", 70)]
    contigs += [contig("big", 0, "two", "big", 900), contig("small", 0, "two", "small", 100)]
    out = held_out_slice(contigs, 0.1, seed=0)
    size = np.array([len(c.sequence) for c in contigs])
    for group in "ab":
        inside = np.array([c.group == group for c in contigs])
        assert size[inside & out].sum() / size[inside].sum() == pytest.approx(0.1, abs=0.01)
    assert out[-4:].tolist() == [False, False, False, True]
    assert out.tolist() != held_out_slice(contigs, 0.1, seed=1).tolist()


def test_a_large_slice_leaves_a_unit_to_train_on() -> None:
    contigs = [contig(f"c{i}", 1, "a", f"u{i}", 10) for i in range(3)]
    assert held_out_slice(contigs, 0.99).tolist().count(True) == 2


def test_the_slice_is_the_same_in_every_process() -> None:
    contigs = [contig(f"c{i}", 1, "a", f"u{i}", 10) for i in range(20)]
    out = held_out_slice(contigs, 0.2, seed=0)
    # Python's own hash of text differs between processes; this one must not.
    assert [c.unit for c, is_out in zip(contigs, out, strict=True) if is_out] == [
        "u0",
        "u7",
        "u11",
        "u14",
    ]


def test_calibration_units_are_whole_and_the_same_in_any_order() -> None:
    contigs = [contig(f"c{i}", i % 2, f"g{i % 2}", f"u{i // 3}", 50 + i) for i in range(600)]
    apart = calibration_units(contigs)
    assert apart == calibration_units(contigs[::-1])
    share = sum(len(c.sequence) for c in contigs if c.unit in apart) / sum(
        len(c.sequence) for c in contigs
    )
    assert 0.02 < share < 0.04
    rest = [c for c in contigs if c.unit not in apart]
    slice_ = held_out_slice(rest, 0.03, seed=0)
    assert slice_.any()


def test_levels_of_a_group_are_weighed_as_groups() -> None:
    contigs = [
        replace(contig("p", 1, "a", "u", 100), level="gene_CDS"),
        replace(contig("q", 1, "a", "u", 900), level="genome"),
        contig("t", 0, "c", "x", 10),
    ]
    np.testing.assert_allclose(contig_weights(contigs), [0.05, 0.45, 0.5])
    np.testing.assert_allclose(contig_weights(contigs, by_level=True), [0.125, 0.375, 0.5])


def test_an_impossible_fraction_is_refused() -> None:
    with pytest.raises(ValueError, match="fraction"):
        held_out_slice([], 1.0)


def test_weights_are_halves_roots_and_roots() -> None:
    contigs = [
        contig("p", 1, "a", "u", 100),
        contig("q", 1, "a", "v", 300),
        contig("r", 1, "a", "v", 600),
        contig("s", 1, "b", "w", 4000),
        contig("t", 0, "c", "x", 10),
    ]
    root = np.sqrt
    a, b = root(1000), root(4000)
    u, v = root(100), root(900)
    expected = np.array([a * u / (u + v), a * v / (u + v) / 3, a * v / (u + v) * 2 / 3, b]) / (
        a + b
    )
    np.testing.assert_allclose(contig_weights(contigs), [*(expected / 2), 0.5])


@pytest.mark.parametrize(("power", "first"), [(0.0, 1 / 2), (0.5, 1 / 4), (1.0, 1 / 10)])
def test_a_lower_power_gives_small_units_more(power, first) -> None:
    contigs = [
        contig("p", 1, "a", "u", 100),
        contig("q", 1, "a", "v", 900),
        contig("empty", 1, "a", "w", 0),
        contig("t", 0, "c", "x", 10),
    ]
    expected = [first / 2, (1 - first) / 2, 0.0, 0.5]
    np.testing.assert_allclose(contig_weights(contigs, unit_power=power), expected)


@settings(max_examples=60, deadline=None)
@given(contigs_strategy)
def test_weights_sum_to_one_and_labels_have_halves(contigs) -> None:
    weight = contig_weights(contigs)
    assert weight.min() > 0
    label = np.array([c.label for c in contigs])
    for side in np.unique(label):
        assert weight[label == side].sum() == pytest.approx(1 / len(np.unique(label)))


def test_contigs_without_letters_have_no_weight() -> None:
    weight = contig_weights([contig("a", 1, "g", "u", 0), contig("b", 1, "h", "v", 5)])
    assert weight.tolist() == [0.0, 1.0]
    with pytest.raises(ValueError, match="no contig has a base"):
        contig_weights([contig("a", 1, "g", "u", 0)])


def test_novelty_comes_from_a_table_of_its_own(tmp_path) -> None:
    contigs = [contig("a|phage|x", 1, "phage", "u", 9), contig("b", 0, "human", "v", 9)]
    table = tmp_path / "n.tsv"
    table.write_text("id\tnovelty\tidentity\na\tdistant\t40\n")
    assert [c.novelty for c in with_novelty(contigs, table)] == ["distant", ""]
    for text, said in {
        "id\tidentity\na\t40\n": "names no column novelty",
        "id\tnovelty\na\tclose\na\tclose\n": "the id a occurs a second time",
        "id\tnovelty\na\n": "1 columns, but the header has 2",
        "id\tnovelty\nz\tclose\n": r"1 id \(z\) described here, but not among the contigs",
    }.items():
        table.write_text(text)
        with pytest.raises(InputError, match=said):
            with_novelty(contigs, table)
