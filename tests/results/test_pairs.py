"""Mates: found, checked, and called together."""

import re
import shlex
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import pysam
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from test_outputs_doc import rows as documented_rows
from test_outputs_doc import sections, words

from command import dna, fasta, made_bundle, results, run_json, table, virnucpro
from made_blocks import MadeChunk, MadeContig, blocks_of_made
from made_calibrations import a_calibration
from made_reads import COMPRESSIONS, alignment, fastq, ubam
from virnucpro.blocks import Scored
from virnucpro.bundle.calibration import Bounds
from virnucpro.calls import Rule, Status
from virnucpro.classifiers.screen import LOW_COMPLEXITY
from virnucpro.errors import InputError, SettingsError, StreamBroken
from virnucpro.reads import Contig, Reading, are_pair, open_sources, template_of
from virnucpro.reads.mates import REMEMBERED, side_by_side
from virnucpro.records import Records
from virnucpro.results import contigs
from virnucpro.results import pairs as pairs_module
from virnucpro.results.contig_calls import ContigCalls
from virnucpro.results.judge import MeanJudge, Question
from virnucpro.results.pairs import PairedCalls
from virnucpro.results.sample import judge_of, summed
from virnucpro.results.schema import PAIR_STATUSES, ContigsTable, PairsTable
from virnucpro.results.worth import Mistakes
from virnucpro.results.worth_of_pairs import MistakesOfPairs
from virnucpro.run.predict import predict

PAIRED = [(f"t{i // 2}", dna(90 + i % 40, i)) for i in range(120)]
FIRST, SECOND = PAIRED[::2], PAIRED[1::2]


@pytest.fixture(scope="module")
def bundle(tmp_path_factory) -> Path:
    return made_bundle(tmp_path_factory.mktemp("bundles") / "km", block_nt=3_000).path


def marked(reads, mark: str):
    return [(f"{name}{mark} more", sequence) for name, sequence in reads]


def two_files(folder: Path, first: bytes, second: bytes):
    (folder / "r_1.fq").write_bytes(first)
    (folder / "r_2.fq").write_bytes(second)
    reading = Reading(mates=folder / "r_2.fq")
    (source,) = open_sources([folder / "r_1.fq"], reading=reading)
    return source


# Finding mates


def test_every_way_to_give_pairs_gives_the_same(tmp_path, bundle):
    (tmp_path / "x_1.fq").write_bytes(COMPRESSIONS["gzip"](fastq(FIRST)))
    (tmp_path / "x_2.fq").write_bytes(fastq(SECOND))
    (tmp_path / "x.fq").write_bytes(fastq(PAIRED))
    (tmp_path / "x.fa").write_bytes(fasta(PAIRED))
    runs = {
        "two": predict(tmp_path / "x_1.fq", bundle, tmp_path / "two", mates=tmp_path / "x_2.fq"),
        "fq": predict(tmp_path / "x.fq", bundle, tmp_path / "fq", pairs="interleaved"),
        "fa": predict(tmp_path / "x.fa", bundle, tmp_path / "fa", pairs="interleaved"),
        "bam": predict(ubam(tmp_path / "x.bam", PAIRED, paired=True), bundle, tmp_path / "bam"),
    }
    assert {outcome.exit_code for outcome in runs.values()} == {0}
    found = {name: results(tmp_path / name) for name in runs}
    assert found["two"]["pairs.tsv"].count(b"\n") == 61
    assert all(each == found["two"] for each in found.values())
    unpaired = predict(tmp_path / "x.bam", bundle, tmp_path / "none", pairs="none")
    assert unpaired.exit_code == 0
    assert not unpaired.files.pairs.exists()
    with_mates = found["bam"]["contigs.tsv"].decode().splitlines()
    without, mates = zip(*(line.rsplit("\t", 1) for line in with_mates), strict=True)
    assert (tmp_path / "none" / "contigs.tsv").read_text().splitlines() == [*without]
    assert mates == ("mate", *("/1", "/2") * 60)
    assert [r["contig"] for r in table(tmp_path / "bam" / "contigs.tsv")] == [n for n, _ in PAIRED]


def test_a_mate_is_told_beside_its_name_whatever_that_is(tmp_path, bundle):
    (tmp_path / "x_1.fq").write_bytes(fastq(marked(FIRST[:3], "/1")))
    (tmp_path / "x_2.fq").write_bytes(fastq(marked(SECOND[:3], "/2")))
    mates = tmp_path / "x_2.fq"
    assert predict(tmp_path / "x_1.fq", bundle, tmp_path / "two", mates=mates).exit_code == 0
    found = [(r["contig"], r["mate"]) for r in table(tmp_path / "two" / "contigs.tsv")]
    assert found == [(f"t{i}/{mate}", f"/{mate}") for i in range(3) for mate in (1, 2)]
    with pysam.AlignmentFile(tmp_path / "x.bam", "wb", header={"HD": {"VN": "1.6"}}) as file:
        for name, flag in [("s.1", 4), ("r.1", 0x8D), ("r.1", 0x4D), ("lone", 0x4D), ("s.2", 4)]:
            file.write(alignment(file.header, name, dna(90, f"{name}{flag}"), flag))
    outcome = predict(tmp_path / "x.bam", bundle, tmp_path / "bam", threshold=0)
    rows = table(tmp_path / "bam" / "contigs.tsv")
    wanted = [("s.1", ""), ("r.1", "/2"), ("r.1", "/1"), ("lone", "/1"), ("s.2", "")]
    assert [(r["contig"], r["mate"]) for r in rows] == wanted
    page = outcome.files.report.read_text()
    assert all(f'"{name}"' in page for name in ("s.1", "r.1/2", "r.1/1", "lone/1", "s.2"))
    assert "t1/1/1" not in (tmp_path / "two" / "report.html").read_text()
    assert [c.contig for c in contigs(tmp_path / "bam")] == [name for name, _ in wanted]
    ids = table(tmp_path / "bam" / "prediction_results_highestscore.csv")
    assert "r.1_1_chunk_1" in {row["Modified_ID"] for row in ids}


def test_records_without_mates_have_no_column_of_mates(tmp_path, bundle):
    (tmp_path / "x.fq").write_bytes(fastq(marked(PAIRED, "/1")))
    for path in (tmp_path / "x.fq", ubam(tmp_path / "x.bam", PAIRED)):
        outcome = predict(path, bundle, tmp_path / f"run{path.suffix}")
        header = outcome.files.contigs.read_text().splitlines()[0]
        assert header.split("\t") == [*ContigsTable._fields]


def test_records_of_two_files_count_by_turns(tmp_path):
    source = two_files(tmp_path, fastq(FIRST), fastq(SECOND))
    contigs = list(source.contigs())
    assert source.sample == "r"
    assert [(c.record, c.mate) for c in contigs] == [(i + 1, 1 + i % 2) for i in range(120)]
    assert [(c.name, c.sequence.decode()) for c in contigs] == PAIRED
    assert source.bytes_read == source.size_bytes > 0


@pytest.mark.parametrize(
    ("first", "second", "template"),
    [
        ("a", "a", "a"),
        ("a/1", "a/2", "a"),
        ("a.1", "a.2", "a"),
        ("x_1", "x_2", "x"),
        ("a/1", "a/1", "a/1"),
        ("a/1", "b/2", None),
        ("a/2", "a/1", None),
        ("a1", "a2", None),
        ("/1", "/2", None),
        ("a", "a/2", None),
        ("", "", ""),
    ],
)
def test_names_of_mates(first, second, template):
    assert template_of(first, second) == template


def test_a_record_without_a_mate_is_of_no_pair():
    one = Contig("in", 1, "a", b"ACGT", mate=1)
    mates = {mate: are_pair(one, one._replace(record=2, mate=mate)) for mate in range(3)}
    assert mates == {0: False, 1: False, 2: True}


def test_mates_of_other_names_in_two_files(tmp_path):
    wrong = marked(SECOND[:7], "/2") + marked(SECOND[8:], "/2")
    source = two_files(tmp_path, fastq(marked(FIRST, "/1")), fastq(wrong))
    got = []
    with pytest.raises(StreamBroken) as caught:
        got.extend(contig.name for contig in source.contigs())
    assert got == [f"t{i}/{mate}" for i in range(7) for mate in (1, 2)]
    said = f"r_1.fq: record 8 (t7/1) and record 8 (t8/2) of {tmp_path}/r_2.fq are not mates"
    assert said in str(caught.value)


def test_first_records_that_are_not_mates_are_told_before_the_bundle_is_loaded(
    tmp_path, bundle, monkeypatch
):
    loads = "virnucpro.run.predict.runner_for"
    monkeypatch.setattr(loads, lambda *_: pytest.fail("the bundle is loaded"))
    one, two = tmp_path / "r_1.fq", tmp_path / "r_2.fq"
    one.write_bytes(fastq(marked(FIRST, "/1")))
    two.write_bytes(fastq(marked(SECOND[1:], "/2")))
    said = re.escape(f"record 1 (t0/1) and record 1 (t1/2) of {two} are not mates by their names")
    with pytest.raises(InputError, match=said):
        predict(one, bundle, tmp_path / "run", mates=two)
    said = re.escape("record 1 (t0/1) and record 2 (t1/1) are not mates by their names")
    with pytest.raises(InputError, match=said):
        predict(one, bundle, tmp_path / "run", pairs="interleaved")


def test_interleaved_mates_in_the_wrong_order_are_told_so(tmp_path, bundle):
    path = tmp_path / "r.fq"
    turned = zip(marked(SECOND, "/2"), marked(FIRST, "/1"), strict=True)
    path.write_bytes(fastq([record for pair in turned for record in pair]))
    said = "record 1 (t0/2) and record 2 (t0/1) are mates in the wrong order; put the first mate of"
    with pytest.raises(InputError, match=re.escape(said)):
        predict(path, bundle, tmp_path / "run", pairs="interleaved")


@pytest.mark.parametrize("mark", ["/", ".", "_"])
def test_swapped_files_of_mates_are_told_with_the_right_words(tmp_path, bundle, mark):
    (tmp_path / "s R1.fq").write_bytes(fastq(marked(FIRST, f"{mark}1")))
    (tmp_path / "s R2.fq").write_bytes(fastq(marked(SECOND, f"{mark}2")))
    said = (
        f"s R2.fq: this file and s R1.fq are swapped: record 1 (t0{mark}2) here is the second "
        f"mate, and record 1 (t0{mark}1) there the first; give 's R1.fq' --mates 's R2.fq', or in "
        "a sample sheet s R1.fq as path and this file as mates"
    )
    swapped = ("s R2.fq", "--mates", "s R1.fq", "--bundle", bundle)
    done = virnucpro("predict", *swapped, "-o", "run", cwd=tmp_path)
    assert (done.code, done.error) == (1, said)
    done = virnucpro("validate", *swapped, cwd=tmp_path)
    assert (done.code, said in done.out + done.err) == (1, True)
    (tmp_path / "sheet.tsv").write_text("sample\tpath\tmates\na\ts R2.fq\ts R1.fq\n")
    sheet = ("--sample-sheet", "sheet.tsv", "-o", "x", "--bundle", bundle)
    done = virnucpro("predict", *sheet, cwd=tmp_path)
    assert (done.code, done.error) == (1, f"sample a: {said}")
    done = virnucpro("validate", "--sample-sheet", "sheet.tsv", "--bundle", bundle, cwd=tmp_path)
    assert (done.code, said in done.error) == (1, True)
    words = (*shlex.split(said.partition("give ")[2].partition(",")[0]), "--bundle", bundle)
    assert virnucpro("predict", *words, "-o", "right", cwd=tmp_path).code == 0


def test_names_that_do_not_prove_a_swap_are_only_not_of_mates(tmp_path):
    wrong = two_files(tmp_path, fastq([("a/2", "ACGT")]), fastq([("b/1", "ACGT")]))
    with pytest.raises(InputError, match="are not mates by their names"):
        list(wrong.contigs())
    first, second = ("a/1", "b/2"), ("a/2", "b/1")
    mixed = two_files(tmp_path, *(fastq([(n, "ACGT") for n in of]) for of in (first, second)))
    with pytest.raises(StreamBroken, match="are not mates by their names"):
        list(mixed.contigs())


@pytest.mark.parametrize("compression", ["plain", "gzip"])
@pytest.mark.parametrize("empty", ["r_1.fq", "r_2.fq"])
def test_a_file_of_mates_without_records_is_told_before_the_bundle_is_loaded(
    tmp_path, bundle, monkeypatch, compression, empty
):
    loads = "virnucpro.run.predict.runner_for"
    monkeypatch.setattr(loads, lambda *_: pytest.fail("the bundle is loaded"))
    one, two = tmp_path / "r_1.fq", tmp_path / "r_2.fq"
    for path, mates in ((one, FIRST), (two, SECOND)):
        data = b"" if path.name == empty else fastq(mates)
        path.write_bytes(COMPRESSIONS[compression](data))
    full = "r_2.fq" if empty == "r_1.fq" else "r_1.fq"
    with pytest.raises(InputError) as caught:
        predict(one, bundle, tmp_path / "run", mates=two)
    assert str(caught.value) == (
        f"{tmp_path}/{empty}: there is no record in this file, so record 1 (t0) of "
        f"{tmp_path}/{full} has no mate; give two files with the mates in the same order"
    )
    document = run_json(tmp_path / "run")
    assert (document["status"], document["exit_code"]) == ("failed", 1)
    sheet = tmp_path / "sheet.tsv"
    sheet.write_text(f"sample\tpath\tmates\na\t{one}\t{two}\n")
    done = virnucpro("predict", "--sample-sheet", sheet, "-o", tmp_path / "x", "--bundle", bundle)
    assert (done.code, done.error) == (1, f"sample a: {caught.value}")
    assert not (tmp_path / "x").exists()


def test_two_files_of_mates_without_any_record_are_an_empty_input(tmp_path, bundle):
    source = two_files(tmp_path, b"", b"")
    assert list(source.contigs()) == []
    mates = tmp_path / "r_2.fq"
    assert predict(tmp_path / "r_1.fq", bundle, tmp_path / "run", mates=mates).exit_code == 0


@pytest.mark.parametrize(("n1", "n2"), [(5, 4), (4, 5), (2, 1), (1, 2)])
def test_two_files_of_other_length(tmp_path, n1, n2):
    source = two_files(tmp_path, fastq(FIRST[:n1]), fastq(SECOND[:n2]))
    got = []
    with pytest.raises(StreamBroken) as caught:
        got.extend(contig.name for contig in source.contigs())
    assert len(got) == 2 * min(n1, n2)
    longer, shorter = ("r_1.fq", "r_2.fq") if n1 > n2 else ("r_2.fq", "r_1.fq")
    said = f"{longer}: record {max(n1, n2)} (t{max(n1, n2) - 1}) has no mate, since {tmp_path}"
    assert f"{said}/{shorter} ends before it" in str(caught.value)


def test_files_that_are_not_interleaved_keep_what_came_before(tmp_path, bundle):
    path = tmp_path / "x.fq"
    path.write_bytes(fastq([*PAIRED[:10], *PAIRED[11:]]))
    outcome = predict(path, bundle, tmp_path / "run", pairs="interleaved")
    assert (outcome.exit_code, outcome.status) == (1, "failed")
    assert "record 11 (t5) and record 12 (t6) are not mates by their names" in str(outcome.error)
    assert len(table(tmp_path / "run" / "contigs.tsv")) == 10
    assert len(table(tmp_path / "run" / "pairs.tsv")) == 5
    path.write_bytes(fastq(PAIRED[:11]))
    outcome = predict(path, bundle, tmp_path / "odd", pairs="interleaved")
    assert "record 11 (t5) has no mate, since the file ends there" in str(outcome.error)
    path.write_bytes(fastq(PAIRED))  # the same command goes on with the whole file
    assert predict(path, bundle, tmp_path / "odd", pairs="interleaved").exit_code == 0
    assert run_json(tmp_path / "odd")["blocks"]["reused"] >= 0
    assert len(table(tmp_path / "odd" / "pairs.tsv")) == 60


def test_a_bad_letter_names_the_file_that_it_is_in(tmp_path):
    second = fastq([*SECOND[:3], ("t3", "ACE"), *SECOND[4:]])
    with pytest.raises(InputError, match=r"r_2\.fq, line 14: record 4 \(t3\) holds the letter 'E'"):
        list(two_files(tmp_path, fastq(FIRST), second).contigs())


def test_pairs_are_counted_in_the_log_the_page_and_run_json(tmp_path, bundle):
    both = [record for pair in zip(FIRST, SECOND, strict=True) for record in pair]
    (tmp_path / "r.fq").write_bytes(fastq(both))
    outcome = predict(tmp_path / "r.fq", bundle, tmp_path / "run", pairs="interleaved")
    rows = table(tmp_path / "run" / "pairs.tsv")
    virus = sum(row["call"] == "virus" for row in rows)
    assert (outcome.counts.pairs, outcome.counts.virus_pairs) == (len(rows), virus)
    assert f"{len(rows):,} pairs: {virus:,} virus" in outcome.files.log.read_text()
    assert f"{virus:,}</b> of {len(rows):,} pairs called virus" in outcome.files.report.read_text()


def test_options_that_go_together_or_not(tmp_path, bundle):
    bam = ubam(tmp_path / "x.bam", PAIRED, paired=True)
    other = ubam(tmp_path / "y.bam", PAIRED, paired=True)
    with pytest.raises(InputError, match="it was given as its own mates"):
        open_sources([bam], reading=Reading(mates=tmp_path / "." / "x.bam"))
    for reading in (Reading(mates=other), Reading(pairs="interleaved")):
        (source,) = open_sources([bam], reading=reading)
        with pytest.raises(InputError, match="is for FASTQ and FASTA; the mates of this BAM"):
            list(source.contigs())
    with pytest.raises(SettingsError, match="--mates goes with one input, and there are 2; run "):
        open_sources([bam, bam], reading=Reading(mates=bam))
    for missing in (tmp_path / "no.bam", bam):  # it is said before anything is opened
        with pytest.raises(SettingsError, match="--mates goes with one input, and there are 2"):
            predict([missing, missing], bundle, tmp_path / "run", mates=missing)
    (tmp_path / "folder").mkdir()
    for name in ("x.bam", "y.bam"):
        (tmp_path / "folder" / name).symlink_to(tmp_path / name)
    for options, said in (
        ({"mates": bam}, "--mates goes with one input, and there are 2"),
        ({"read_groups": True}, "--read-groups goes with one input, and there are 2"),
        ({"sample": "lake"}, "the sample name lake was given for 2 inputs"),
    ):
        with pytest.raises(SettingsError, match=said):
            predict(tmp_path / "folder", bundle, tmp_path / "run", **options)
    with pytest.raises(SettingsError, match="--mates and --unpaired contradict each other"):
        predict(bam, bundle, tmp_path / "run", mates=bam, pairs="none")
    with pytest.raises(SettingsError, match="not both"):
        predict(bam, bundle, tmp_path / "run", mates=bam, pairs="interleaved")


# Pairs of a BAM


def test_mates_that_are_not_side_by_side_are_refused(tmp_path, bundle):
    header = {"HD": {"VN": "1.6", "SO": "coordinate"}, "SQ": [{"SN": "ref", "LN": 9_000}]}
    path = tmp_path / "sorted.bam"
    with pysam.AlignmentFile(path, "wb", header=header) as file:
        for i in range(50):
            file.write(alignment(file.header, f"q{i}", dna(100, i), 0x41, 100 * i))
            if i >= 3:
                late = alignment(file.header, f"q{i - 3}", dna(100, -i), 0x91, 100 * i + 1)
                file.write(late)
    done = virnucpro("predict", path, "-o", tmp_path / "run", "--bundle", bundle)
    assert done.code == 1
    assert "the mates of q0 are records 1 and 5, not side by side" in done.error
    assert "`samtools collate -o collated.bam sorted.bam`" in done.error
    assert predict(path, bundle, tmp_path / "none", pairs="none").exit_code == 0
    pysam.collate("-o", str(tmp_path / "collated.bam"), str(path))
    assert predict(tmp_path / "collated.bam", bundle, tmp_path / "collated").exit_code == 0
    found = [row["status"] for row in table(tmp_path / "collated" / "pairs.tsv")]
    assert sorted(found) == ["mate_missing"] * 3 + ["ok"] * 47
    scores = [
        sorted((r["contig"], r["p_virus"]) for r in table(tmp_path / run / "contigs.tsv"))
        for run in ("none", "collated")
    ]
    assert scores[0] == scores[1]


def test_mates_in_two_inputs_are_no_pair(tmp_path, bundle):
    for sample, flag in (("a", 0x4D), ("b", 0x8D)):
        path = tmp_path / f"{sample}.bam"
        with pysam.AlignmentFile(path, "wb", header={"HD": {"VN": "1.6"}}) as file:
            file.write(alignment(file.header, "t", dna(90), flag))
    predict([tmp_path / "a.bam", tmp_path / "b.bam"], bundle, tmp_path / "run")
    pairs = [(row["sample"], row["status"]) for row in table(tmp_path / "run" / "pairs.tsv")]
    assert pairs == [("a", "mate_missing"), ("b", "mate_missing")]


def test_a_mate_that_is_left_out_or_missing_leaves_the_other(tmp_path, bundle):
    path = tmp_path / "x.bam"
    with pysam.AlignmentFile(path, "wb", header={"HD": {"VN": "1.6"}}) as file:
        for name, flag in [
            ("both", 0x4D),
            ("both", 0x8D),
            ("second", 0x8D),
            ("single", 0x4),
            ("failed", 0x4D),
            ("failed", 0x8D | 0x200),
            ("swapped", 0x8D),
            ("swapped", 0x4D),
            ("neither", 0x4D | 0x80),  # first and second at once
            ("neither", 0x8D),
            ("last", 0x4D),
        ]:
            file.write(alignment(file.header, name, dna(90, f"{name}{flag}"), flag))
    assert predict(path, bundle, tmp_path / "run").exit_code == 0
    rows = table(tmp_path / "run" / "pairs.tsv")
    found = [(r["template"], r["record_1"], r["record_2"], r["status"]) for r in rows]
    assert found == [
        ("both", "1", "2", "ok"),
        ("second", "", "3", "mate_missing"),
        ("failed", "5", "", "mate_missing"),
        ("swapped", "7", "6", "ok"),
        ("neither", "", "9", "mate_missing"),
        ("last", "10", "", "mate_missing"),
    ]


def test_what_is_remembered_of_lone_mates_is_bounded():
    lone = [(f"q{i}", "", b"", 1, "") for i in range(1, REMEMBERED + 1_000)]
    late = [*lone, (f"q{REMEMBERED + 100}", "", b"", 2, "")]
    assert len(list(side_by_side(iter(late), Path("x.bam")))) == len(late)
    early = [*late, ("q7", "", b"", 2, "")]
    with pytest.raises(InputError, match="the mates of q7 are records 7 and 51001, not"):
        list(side_by_side(iter(early), Path("x.bam")))


def test_two_first_mates_beside_each_other_are_no_pair():
    twice = [
        ("q", "", b"", 1, ""),
        ("q", "", b"", 1, ""),
        ("r", "", b"", 0, ""),
        ("q", "", b"", 2, ""),
    ]
    with pytest.raises(InputError, match="the mates of q are records 1 and 4, not side by side"):
        list(side_by_side(iter(twice), Path("x.bam")))


# Calls of pairs


@st.composite
def runs_of_mates(draw):
    contigs, mates = [], []
    for number in range(draw(st.integers(0, 6))):
        kinds = draw(st.sampled_from([(0,), (1, 2), (2, 1), (1,), (2,), (1, 1)]))
        for mate in kinds:
            chunks, end = [], 0
            for _ in range(draw(st.integers(0, 3))):
                start, end = max(0, end - draw(st.integers(0, 3))), end + draw(st.integers(1, 9))
                status = draw(st.sampled_from([Status.OK, Status.OK, Status.TOO_SHORT]))
                p = draw(st.integers(1, 63)) / 64
                chunks.append(MadeChunk(start, end, status, {0: (1 - p, p)}))
            contigs.append(MadeContig(f"t{number}", chunks, end))
            mates.append(mate)
    return contigs, mates


def rows_of(folder: Path, contigs, mates, cuts) -> tuple[list[list[str]], list[str]]:
    judge, calls = MeanJudge(Rule("chunks"), 500), ContigCalls()
    paired, text = PairedCalls(judge, folder), b""
    for block in blocks_of_made(contigs, cuts, "chunks"):
        records = Records.of(replace(r, mate=mates[r.ordinal]) for r in block.records)
        columns = (block.rows.record, block.rows.start, block.rows.end, block.scores)
        ends = not records or records[-1].ends
        found = calls.add(len(records), *columns, judge.rule.chunks(block.scores), ends)
        text += paired.add(records[: len(found)], found, judge.contigs(found))
    text += paired.rest()
    names = b"".join(paired.viral_names()).decode().splitlines()
    return [line.split("\t") for line in text.decode().splitlines()], names


@given(runs_of_mates(), st.lists(st.integers(0, 20)))
@settings(max_examples=150, deadline=None)
def test_a_pair_is_called_as_one_contig_of_both(tmp_path_factory, run, cuts):
    contigs, mates = run
    folder = tmp_path_factory.getbasetemp()
    rows, names = rows_of(folder, contigs, mates, cuts)
    assert (rows, names) == rows_of(folder, contigs, mates, [])
    expected, viral, i = [], set(), 0
    while i < len(contigs):
        pair = {mates[i], *mates[i + 1 : i + 2]} == {1, 2} and contigs[i].name == contigs[
            i + 1
        ].name
        both = contigs[i : i + 1 + pair]
        # One contig: the chunks of the second behind those of the first.
        shift = max((chunk.end for chunk in both[0].chunks), default=0)
        chunks = [*both[0].chunks]
        for chunk in both[1].chunks if pair else ():
            moved = (chunk.start + shift, chunk.end + shift)
            chunks.append(MadeChunk(*moved, chunk.status, chunk.frames))
        mean, call = as_one(chunks)
        if call == "virus" and both[0].name:
            viral.add(both[0].name)
        if mates[i]:
            expected.append((both[0].name, mean, call))
        i += 1 + pair
    assert [(row[1], row[7]) for row in rows] == [(name, call) for name, _, call in expected]
    for row, (_, mean, _) in zip(rows, expected, strict=True):
        assert len(row) == len(PairsTable._fields)
        assert (row[6] == "") == (mean is None)
        assert mean is None or float(row[6]) == pytest.approx(mean, abs=1e-6)
    assert names == sorted(viral)


@pytest.mark.parametrize(
    ("scored", "noted", "call"),
    [
        ((True, True), (True, True), "others"),
        ((True, True), (True, False), "virus"),
        ((True, True), (False, True), "virus"),
        ((True, False), (True, False), "others"),
        ((True, False), (False, False), "virus"),
        ((False, False), (False, False), "none"),
        ((True,), (True,), "others"),
        ((True,), (False,), "virus"),
    ],
)
@pytest.mark.parametrize("question", [Question(), Question(fdr=0.5)])
def test_a_pair_of_low_complexity_alone_is_no_virus(tmp_path, scored, noted, call, question):
    status = [Status.OK if each else Status.TOO_SHORT for each in scored]
    chunks = [MadeChunk(0, 500, each, {0: (0.01, 0.99)}) for each in status]
    contigs = [MadeContig("t", [chunk], 500) for chunk in chunks]
    (block,) = blocks_of_made(contigs, [], "chunks")
    notes = np.array(noted, np.uint8) * LOW_COMPLEXITY
    records = Records.of(replace(r, mate=r.ordinal + 1) for r in block.records)
    block = replace(block, records=records, scores=replace(block.scores, notes=notes))
    # A record without evidence is called virus by this calibration.
    rule = a_calibration({"bacteria": [[-9.0] * 99] * 5}, a=5.0)
    judge = judge_of(Finished([block]), Rule("chunks"), 500, rule, question, 0.5)
    (found,) = summed(Finished([block]), Rule("chunks"))
    paired = PairedCalls(judge, tmp_path)
    text = paired.add(records, found, judge.contigs(found)) + paired.rest()
    (row,) = [line.split("\t") for line in text.decode().splitlines()]
    assert row[7] == call
    assert [*paired.viral_names()] == ([b"t\n"] if call == "virus" else [])
    assert paired.virus == (call == "virus")


@pytest.mark.parametrize("fdr", [None, 0.5])
def test_the_mistakes_among_pairs_are_those_of_records_with_the_chunks_of_both(tmp_path, fdr):
    rng = np.random.default_rng(3)
    scores = rng.uniform(0.05, 0.999, 80).tolist()
    chunks = [[MadeChunk(0, 150, Status.OK, {0: (1 - p, p)})] for p in scores]
    mates = [MadeContig(f"t{i // 2}", of, 150) for i, of in enumerate(chunks)]
    both = [
        MadeContig(
            f"t{i}",
            [chunks[2 * i][0], MadeChunk(150, 300, Status.OK, chunks[2 * i + 1][0].frames)],
            300,
        )
        for i in range(40)
    ]
    bound = np.array([0.65, 0.02])
    limits = Bounds(
        np.tile([1.0, np.inf], 5),
        np.tile(bound, 5),
        np.repeat(np.arange(5, dtype=np.uint8), 2),
        np.full(10, 1, np.uint8),
    )
    rule = replace(
        a_calibration({"bacteria": [np.linspace(-9, 0, 99).tolist()] * 5}),
        bounds=limits if fdr is None else Bounds.none(),
    )
    question = Question(prior=0.2, fdr=fdr)
    worths = []
    for made in (mates, both):
        (block,) = blocks_of_made(made, [], "chunks")
        judge = judge_of(Finished([block]), Rule("chunks"), 500, rule, question, 0.5)
        (found,) = summed(Finished([block]), Rule("chunks"))
        judged, records, whole = judge.contigs(found), block.records, Mistakes(judge)
        whole.add(judged)
        if made is mates:
            records = Records.of(replace(r, mate=1 + r.ordinal % 2) for r in records)
        paired = PairedCalls(judge, tmp_path)
        paired.add(records, found, judged)
        paired.rest()
        worths.append((whole.worth(), paired.worth()))
    (_, pairs), (records, none) = worths
    assert none is None
    assert 0 < pairs.called <= 40
    names = ("wrong", "fewest_wrong", "most_wrong", "wrong_bound")
    numbers = [getattr(pairs, name) for name in names]
    if fdr is None:
        assert pairs.called == records.called
        assert numbers == pytest.approx([getattr(records, name) for name in names])
        told, _, _ = records.sentence.partition("; so many calls mean")
        same = told.replace(" records ", " pairs ")
        assert pairs.sentence == f"{same}; more where mates overlap"
    else:
        assert numbers == [None] * 4
        assert "--fdr 0.5 holds for the calls of records" in pairs.sentence
    assert MistakesOfPairs(MeanJudge(Rule("chunks"), 500)).worth() is None


@dataclass
class Finished:
    """Satisfies FinishedBlocks."""

    blocks: list[Scored]

    def scored(self):
        yield from self.blocks

    def embeddings(self, scored):
        return None


def as_one(chunks) -> tuple[float | None, str]:
    total = weight = covered = 0.0
    for chunk in chunks:
        if chunk.status == Status.OK:
            adds = chunk.end - max(chunk.start, covered)
            covered = chunk.end
            total, weight = total + adds * chunk.frames[0][1], weight + adds
    if not weight:
        return None, "none"
    return total / weight, "virus" if total / weight >= 0.5 else "others"


def test_states_of_a_pair(tmp_path, bundle):
    short, good = dna(20), dna(90)
    reads = [("a", good), ("a", short), ("b", short), ("b", short), ("c", good), ("c", good)]
    (tmp_path / "x.fa").write_bytes(fasta(reads))
    assert predict(tmp_path / "x.fa", bundle, tmp_path / "run", pairs="interleaved").exit_code == 0
    rows = table(tmp_path / "run" / "pairs.tsv")
    assert [row["status"] for row in rows] == ["one_called", "not_called", "ok"]
    assert {row["status"] for row in rows} < {*PAIR_STATUSES}
    assert rows[0]["p_virus"] == rows[0]["p_virus_1"] == rows[2]["p_virus"] != ""
    assert (rows[0]["p_virus_2"], rows[1]["p_virus"], rows[1]["call"]) == ("", "", "none")


def test_columns_and_states_are_documented_as_they_are(tmp_path, bundle):
    """TRAP N14."""
    documented = documented_rows(sections()["pairs.tsv"], "column | type")
    assert [words(row[0])[0] for row in documented] == list(PairsTable._fields)
    assert {*words(documented[-1][2])} == {*PAIR_STATUSES}
    (tmp_path / "x.fa").write_bytes(fasta(PAIRED))
    assert predict(tmp_path / "x.fa", bundle, tmp_path / "run", pairs="interleaved").exit_code == 0
    header, *lines = (tmp_path / "run" / "pairs.tsv").read_text().splitlines()
    assert header.split("\t") == list(PairsTable._fields)
    kinds = [{"int": int, "float": float, "text": str}[row[1]] for row in documented]
    for line in [*(line.split("\t") for line in lines), [words(row[3])[0] for row in documented]]:
        for kind, value in zip(kinds, line, strict=True):
            kind(value)


def test_pairs_in_gz_and_a_threshold(tmp_path, bundle):
    (tmp_path / "x.fq").write_bytes(fastq(PAIRED))
    arguments = {"bundle": bundle, "out": tmp_path / "run", "pairs": "interleaved"}
    assert predict(tmp_path / "x.fq", **arguments, tables="gz", threshold=0).exit_code == 0
    assert (tmp_path / "run" / "pairs.tsv.gz").exists()
    names = (tmp_path / "run" / "viral_names.txt").read_text().splitlines()
    assert names == sorted({name for name, _ in PAIRED})
    assert predict(tmp_path / "x.fq", **arguments, threshold=1).exit_code == 0
    assert (tmp_path / "run" / "viral_names.txt").read_bytes() == b""
    assert not (tmp_path / "run" / "pairs.tsv.gz").exists()
    # What a run takes for pairs is no part of its fingerprint, but its tables are made again.
    more = {"bundle": bundle, "out": tmp_path / "run", "threshold": 1}
    assert predict(tmp_path / "x.fq", **more).exit_code == 0
    assert not (tmp_path / "run" / "pairs.tsv").exists()


@pytest.mark.parametrize("names", [[name for name, _ in PAIRED], ["same"] * len(PAIRED)])
def test_whole_pairs_of_a_part(tmp_path, names):
    """TRAP D12."""
    records = [(name, sequence) for name, (_, sequence) in zip(names, PAIRED, strict=True)]
    (tmp_path / "x.fq").write_bytes(fastq(records))
    reading = Reading(pairs="interleaved", max_records=7)
    (source,) = open_sources([tmp_path / "x.fq"], reading=reading)
    assert [c.record for c in source.contigs()] == [1, 2, 3, 4, 5, 6, 7, 8]
    assert not source.whole


# Names


def test_names_take_out_what_was_called_virus(tmp_path, bundle):
    path = ubam(tmp_path / "x.bam", PAIRED, paired=True)
    assert predict(path, bundle, tmp_path / "run").exit_code == 0
    run = tmp_path / "run"
    taken = pysam.view("-N", str(run / "viral_names.txt"), str(path)).splitlines()
    wanted = {r["template"] for r in table(run / "pairs.tsv") if r["call"] == "virus"}
    assert 0 < len(wanted) < 60
    assert [line.split("\t")[0] for line in taken] == [n for n, _ in PAIRED if n in wanted]


def test_names_with_marks_are_written_as_they_stand(tmp_path, bundle):
    (tmp_path / "x_1.fq").write_bytes(fastq(marked(FIRST, "/1")))
    (tmp_path / "x_2.fq").write_bytes(fastq(marked(SECOND, "/2")))
    mates = tmp_path / "x_2.fq"
    assert predict(tmp_path / "x_1.fq", bundle, tmp_path / "run", mates=mates).exit_code == 0
    rows = [r for r in table(tmp_path / "run" / "pairs.tsv") if r["call"] == "virus"]
    names = (tmp_path / "run" / "viral_names.txt").read_text().splitlines()
    assert names == sorted(f"{row['template']}/{mate}" for row in rows for mate in (1, 2))


def test_names_of_records_without_mates_are_those_called_virus(tmp_path, bundle):
    repeated = [(f"n{i % 25}", dna(90, i)) for i in range(60)] + [("", dna(90, "x"))]
    (tmp_path / "x.fa").write_bytes(fasta(repeated))
    assert predict(tmp_path / "x.fa", bundle, tmp_path / "run").exit_code == 0
    rows = table(tmp_path / "run" / "contigs.tsv")
    wanted = {row["contig"] for row in rows if row["call"] == "virus"} - {""}
    names = (tmp_path / "run" / "viral_names.txt").read_text().splitlines()
    assert names == sorted(wanted)
    assert len(names) > 2
    assert not (tmp_path / "run" / "pairs.tsv").exists()


def test_means_stay_between_their_terms():
    for p in np.random.default_rng(3).random(200):
        mates = [pairs_module._Mate(None, p, p, 0.0, nt, False) for nt in (7.0, 11.0)]  # type: ignore[arg-type]
        assert pairs_module._mean(mates) == p
