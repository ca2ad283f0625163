"""Every input that people have: formats, compressions, folders, pipes, sheets."""

import gzip
import hashlib
import itertools
import json
import os
import random
import signal
import subprocess
import sys
import threading
import time
from pathlib import Path

import jsonschema
import pysam
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from test_outputs_doc import schema

import forks
from command import (
    dna,
    fasta,
    made_bundle,
    results,
    run_json,
    table,
    virnucpro,
)
from made_reads import COMPRESSIONS, alignment, count, fastq, ubam
from virnucpro.cli.terminal import complain
from virnucpro.errors import InputError, ResumeError, SettingsError, StreamBroken
from virnucpro.reads import Reading, Source, open_sources, sample_name
from virnucpro.reads.bam import LEFT_OUT, LEFT_OUT_FLAGS
from virnucpro.reads.estimate import Shape
from virnucpro.reads.inputs import open_inputs, opening_lines, other_bundle
from virnucpro.run.directory import written_in
from virnucpro.run.predict import predict

READS = [(f"r{i} and more", dna(120 + i % 9, i)) for i in range(150)]


@pytest.fixture(scope="module")
def bundle(tmp_path_factory) -> Path:
    return made_bundle(tmp_path_factory.mktemp("bundles") / "km", block_nt=20_000).path


def source_of(path: Path, data: bytes, **reading) -> Source:
    path.write_bytes(data)
    (source,) = open_sources([path], reading=Reading(**reading))
    return source


def files_in(folder: Path) -> tuple[list[Path], list[str]]:
    sources, notes = open_inputs([folder], None, Reading(), written_in)
    return [source.path for source in sources], notes


def told(source: Source) -> list[tuple[str, str]]:
    return [(c.header, c.sequence.decode()) for c in source.contigs()]


def until_it_broke(source: Source) -> tuple[list[tuple[str, str]], StreamBroken]:
    got = []
    with pytest.raises(StreamBroken) as caught:
        got.extend((c.header, c.sequence.decode()) for c in source.contigs())
    return got, caught.value


# Formats and compressions


@pytest.mark.parametrize("packed", COMPRESSIONS)
@pytest.mark.parametrize("form", [fasta, fastq])
def test_every_compression_is_told_by_content(tmp_path, form, packed):
    data = COMPRESSIONS[packed](form(READS))
    source = source_of(tmp_path / "in.anything", data)
    assert told(source) == READS
    assert source.sha256 == hashlib.sha256(data).hexdigest()
    assert (source.bytes_read, source.seen.records) == (len(data), len(READS))
    assert source.files[0].form == f"{form.__name__.upper()}, {packed}".removesuffix(", plain")


@pytest.mark.parametrize("packed", ["gzip", "bzip2", "xz", "zstd"])
def test_several_members_and_an_empty_one(tmp_path, packed):
    pack, text = COMPRESSIONS[packed], fastq(READS)
    members = [pack(text[:1_000]), pack(b""), pack(text[1_000:])]
    assert told(source_of(tmp_path / "in", b"".join(members))) == READS
    assert told(source_of(tmp_path / "in", pack(b""))) == []


@pytest.mark.parametrize("low", [0x50, 0x5F])
def test_zstd_that_begins_with_a_frame_without_text(tmp_path, low):
    """As pzstd writes it."""
    skipped = bytes((low, 0x2A, 0x4D, 0x18, 4, 0, 0, 0)) + b"size"
    text, pack = fastq(READS), COMPRESSIONS["zstd"]
    data = skipped + pack(text[:1_000]) + skipped + pack(text[1_000:])
    source = source_of(tmp_path / "in", data)
    assert told(source) == READS
    assert source.files[0].form == "FASTQ, zstd"
    assert files_in(tmp_path)[0] == [tmp_path / "in"]


@pytest.mark.parametrize("packed", ["gzip", "bzip2", "xz", "zstd"])
@pytest.mark.parametrize("form", [fasta, fastq])
@pytest.mark.parametrize("kept", [0.9, 0.5, 0.002])
def test_a_truncated_stream_keeps_what_was_whole(tmp_path, form, packed, kept):
    reads = [(f"r{i}", dna(250, i)) for i in range(5_000 if packed == "bzip2" else 1_500)]
    data = COMPRESSIONS[packed](form(reads))
    source = source_of(tmp_path / "in", data[: int(kept * len(data))])
    got, error = until_it_broke(source)
    assert got == reads[: len(got)]
    assert len(got) > 0 or kept < 0.9
    last = f"after record {len(got)} (r{len(got) - 1})" if got else "before its first record"
    assert last in str(error)
    assert source.sha256 == hashlib.sha256(source.path.read_bytes()).hexdigest()


@pytest.mark.parametrize("packed", ["gzip", "bzip2", "xz", "zstd"])
def test_a_damaged_stream_is_no_whole_one(tmp_path, packed):
    data = COMPRESSIONS[packed](fasta(READS))
    middle = len(data) // 2
    damaged = data[:middle] + bytes(20) + data[middle + 20 :] + bytes(400_000)
    source = source_of(tmp_path / "in", damaged)
    with pytest.raises(InputError) as caught:
        list(source.contigs())
    # Where it is found to be damaged, and is not read as other letters, what follows is hashed.
    digest = hashlib.sha256(damaged).hexdigest()
    assert source.sha256 == digest or not isinstance(caught.value, StreamBroken)


reads = st.lists(
    st.tuples(st.sampled_from(["a", "b/1", "é x", "λ"]), st.text("ACGTNU", max_size=90))
)


@given(st.lists(st.tuples(st.sampled_from([*COMPRESSIONS]), st.booleans(), reads), max_size=4))
@settings(max_examples=60, deadline=None)
def test_records_are_kept_however_they_are_divided(tmp_path_factory, parts):
    folder = tmp_path_factory.mktemp("parts")
    paths = [folder / f"part{i}" for i in range(len(parts))]
    for path, (packed, is_fastq, part) in zip(paths, parts, strict=True):
        path.write_bytes(COMPRESSIONS[packed]((fastq if is_fastq else fasta)(part)))
    sources = open_sources(paths)
    assert [told(source) for source in sources] == [part for _, _, part in parts]
    for path, source in zip(paths, sources, strict=True):
        assert source.sha256 == hashlib.sha256(path.read_bytes()).hexdigest()


def test_tables_are_the_same_whatever_the_form(tmp_path, bundle):
    plain = [(header.split()[0], sequence) for header, sequence in READS]
    forms = {"fasta": fasta(plain), "fastq.zst": COMPRESSIONS["zstd"](fastq(plain))}
    for name, data in forms.items():
        (tmp_path / f"x.{name}").write_bytes(data)
    for mode, name in (("wb", "bam"), ("wc", "cram"), ("w", "sam")):
        ubam(tmp_path / f"x.{name}", plain, mode=mode)
    expected = None
    for path in sorted(tmp_path.glob("x.*")):
        assert predict(path, bundle, tmp_path / f"run {path.suffix}").exit_code == 0
        found = results(tmp_path / f"run {path.suffix}")
        expected = expected or found
        assert found == expected, path


# FASTQ


@pytest.mark.parametrize(
    ("data", "line", "words"),
    [
        ("@a\nACGT\nIIII\n@b\n", 3, "the third line of a record must begin with '+'"),
        ("@a\nACGT\n\nIIII", 3, "the third line of a record must begin with '+'"),
        ("@a\nAC\nGT\n+\nII\nII\n", 3, "FASTQ whose sequences go over several lines"),
        ("@a\nACGT\n", 3, "the file ends within a record"),
        ("\n\n@a\nAC\n+\nII\n\n@b\nAXC\n+\nIII\n", 9, "record 2 (b) holds the letter 'X'"),
        ("@a\nACE\n+\nIII\n", 2, "record 1 (a) holds the letter 'E'"),
        ("@a\nAC\n+\nII\n@b x\nA-C\n+\nIII\n", 6, "record 2 (b) holds the letter '-'"),
        ("@a\nA C\n+\nIII\n", 2, "a space"),
    ],
)
def test_malformed_fastq_in_one_sentence(tmp_path, data, line, words):
    with pytest.raises(InputError) as caught:
        list(source_of(tmp_path / "in.fq", data.encode()).contigs())
    assert not isinstance(caught.value, StreamBroken)
    assert caught.value.line == line
    assert words in str(caught.value)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("bad", [b"@b\nACGT\nACGT\n+\n", b"@b\nACGT\nx\nIIII\n", b"@b\nAC", b"x\n"])
def test_malformed_fastq_after_whole_records_keeps_these(tmp_path, bad):
    good = [(f"r{i}", dna(50, i)) for i in range(3)]
    got, error = until_it_broke(source_of(tmp_path / "in.fq", fastq(good) + bad + fastq(good)))
    assert got == good
    assert "record 3 (r2) is the last one that was read and is kept" in str(error)
    assert ", line 1" in str(error)


def test_a_fastq_whose_first_line_looks_like_an_alignment(tmp_path):
    header = "r\t0\tc\t1\t60\t4M\t*\t0\t0\tACGT\tIIII"
    assert told(source_of(tmp_path / "in.fq", fastq([(header, "ACGT")]))) == [(header, "ACGT")]


@pytest.mark.parametrize("end", [b"", b"\n", b"\n\n", b"\r\n"])
def test_line_ends_and_blank_last_lines_are_nothing_to_fastq(tmp_path, end):
    data = fastq(READS[:5])
    for text in (data, data.replace(b"\n", b"\r\n"), data.rstrip(b"\n")):
        assert told(source_of(tmp_path / "in.fq", text + end)) == READS[:5]


# BAM and CRAM


REFERENCE = dna(3_000, "reference")
COMPLEMENT = str.maketrans("ACGT", "TGCA")


@pytest.fixture
def aligned(tmp_path) -> tuple[Path, list[tuple[str, str]]]:
    """A BAM with alignments of every kind, and the reads that are primary, as sequenced."""
    header = {"HD": {"VN": "1.6"}, "SQ": [{"SN": "ref", "LN": len(REFERENCE)}]}
    path, primary = tmp_path / "aligned.bam", []
    with pysam.AlignmentFile(path, "wb", header=header) as file:
        for i, bits in enumerate(itertools.product((0, 1), repeat=5)):
            flags = (0x10, *LEFT_OUT.values())
            flag = sum(f for f, bit in zip(flags, bits, strict=True) if bit)
            stored = REFERENCE[40 * i : 40 * i + 100]
            file.write(alignment(file.header, f"q{i}", stored, flag, 40 * i))
            if not flag & LEFT_OUT_FLAGS:
                read = stored[::-1].translate(COMPLEMENT) if flag & 0x10 else stored
                primary.append((f"q{i}", read))
        file.write(alignment(file.header, "unmapped", "ACGTT", 0x4))
    return path, [*primary, ("unmapped", "ACGTT")]


def test_primary_alignments_once_as_they_were_sequenced(aligned):
    path, primary = aligned
    (source,) = open_sources([path])
    assert told(source) == primary
    assert source.left_out is not None
    assert source.seen.records + sum(source.left_out.values()) == count(path)
    assert source.seen.records == count(path, "-F", str(LEFT_OUT_FLAGS)) == 3
    assert LEFT_OUT_FLAGS == 3840
    before = 0
    for name, bit in LEFT_OUT.items():
        assert source.left_out[name] == count(path, "-f", str(bit), "-F", str(before)) > 0
        before |= bit


def test_counts_of_alignments_are_told(aligned, tmp_path, bundle):
    path, primary = aligned
    done = virnucpro("predict", path, "-o", tmp_path / "run", "--bundle", bundle)
    assert done.code == 0
    assert "aligned.bam: 33 alignments, of which 3 were read; left out: 16 secondary, 8" in done.err
    document = run_json(tmp_path / "run")
    jsonschema.validate(document, schema())
    (found,) = document["inputs"]
    assert found["left_out"] == {
        "secondary": 16,
        "supplementary": 8,
        "qc_failed": 4,
        "duplicate": 2,
    }
    assert found["sha256"] == hashlib.sha256(path.read_bytes()).hexdigest()
    rows = table(tmp_path / "run" / "contigs.tsv")
    assert [row["contig"] for row in rows] == [name for name, _ in primary]


def test_lengths_that_no_record_has_are_refused():
    Reading(min_length=5, max_length=5).check(1)
    with pytest.raises(SettingsError, match="--max-length that is no less than --min-length"):
        Reading(min_length=6, max_length=5).check(1)


@pytest.mark.parametrize(
    ("names", "told"),
    [
        (("s_R1.fastq", "s_R2.fastq"), True),
        (("s.1.fq", "s.2.fq"), True),
        (("s_R2_001.fastq.gz", "s_R1_001.fastq.gz"), True),
        (("s_R1.fastq", "t_R2.fastq"), False),
        (("day1.fastq", "day2.fastq"), False),
        (("s_1.fasta", "s_2.fasta"), False),
    ],
)
def test_inputs_that_are_named_as_mates_are_told(tmp_path, names, told):
    for name in names:
        data = fastq([("r", "ACGT" * 30)]) if "fasta" not in name else b">r\nACGT\n"
        (tmp_path / name).write_bytes(gzip.compress(data) if name.endswith("gz") else data)
    sources = open_sources([tmp_path / name for name in names])
    said = [line for line in opening_lines(sources) if "are named as mates" in line]
    assert bool(said) == told
    if told:
        first, second = sorted(str(tmp_path / name) for name in names)
        assert said[0].startswith(f"{first} and {second} are named as mates and read as two")
    plain = open_sources([tmp_path / name for name in names], None, Reading(pairs="none"))
    assert not [line for line in opening_lines(plain) if "mates" in line]


def test_of_a_part_of_a_bam_no_counts_are_claimed(aligned, tmp_path, bundle):
    """More was read ahead than was asked for."""
    path, _ = aligned
    arguments = ("predict", path, "--bundle", bundle, "--max-records")
    done = virnucpro(*arguments, 1, "-o", tmp_path / "run")
    assert done.code == 0
    assert "only its first 1 records were read" in done.err
    assert "left out" not in done.err
    document = run_json(tmp_path / "run")
    jsonschema.validate(document, schema())
    assert document["inputs"][0]["left_out"] is None
    done = virnucpro(*arguments, 3, "-o", tmp_path / "all")
    assert "33 alignments, of which 3 were read" in done.err


@pytest.mark.parametrize(("mode", "kept"), [("wb", 0.9), ("wb", 0.3), ("wc", 0.9)])
def test_truncated_alignments_keep_what_was_whole(tmp_path, mode, kept):
    many = [(f"r{i}", dna(150, i)) for i in range(15_000 if mode == "wc" else 3_000)]
    data = ubam(tmp_path / "whole", many, mode=mode).read_bytes()
    source = source_of(tmp_path / "in", data[: int(kept * len(data))])
    got, error = until_it_broke(source)
    assert got == many[: len(got)]
    assert 0 < len(got) < len(many)
    assert f"cut off or damaged after record {len(got)} (r{len(got) - 1})" in str(error)
    assert source.sha256 == hashlib.sha256(source.path.read_bytes()).hexdigest()


def test_a_bam_cut_between_two_blocks_lacks_its_end_mark(tmp_path):
    data = ubam(tmp_path / "whole", READS).read_bytes()
    got, error = until_it_broke(source_of(tmp_path / "in", data[:-28]))
    assert len(got) == len(READS)
    assert "the BAM file is cut off" in str(error)


@pytest.mark.parametrize("data", [b"BAM\x01", b"CRAM", b"CRAM\x03\x00" + bytes(40), b"@SQ\tSN:\n@"])
def test_what_only_begins_as_alignments_is_refused(tmp_path, data):
    with pytest.raises(InputError, match="before its first record"):
        list(source_of(tmp_path / "in", data).contigs())


def test_a_cram_needs_its_reference(tmp_path, monkeypatch):
    monkeypatch.setenv("REF_PATH", str(tmp_path / "nowhere"))
    reference = tmp_path / "ref.fa"
    reference.write_text(f">ref\n{REFERENCE}\n")
    pysam.faidx(str(reference))
    header = {"HD": {"VN": "1.6"}, "SQ": [{"SN": "ref", "LN": len(REFERENCE)}]}
    with pysam.AlignmentFile(
        tmp_path / "in.cram", "wc", header=header, reference_filename=str(reference)
    ) as file:
        for i in range(20):
            file.write(alignment(file.header, f"q{i}", REFERENCE[i : i + 100], 0, i))
    (source,) = open_sources([tmp_path / "in.cram"], reading=Reading(reference=reference))
    assert told(source) == [(f"q{i}", REFERENCE[i : i + 100]) for i in range(20)]
    reference.rename(tmp_path / "moved.fa")
    with pytest.raises(InputError, match=r"ref\.fa: cannot be read \(No such file or directory\)"):
        open_sources([tmp_path / "in.cram"], reading=Reading(reference=reference))
    with pytest.raises(InputError, match="standard input: a reference cannot come through a pipe"):
        open_sources([tmp_path / "in.cram"], reading=Reading(reference=Path("-")))
    (source,) = open_sources([tmp_path / "in.cram"])
    with pytest.raises(InputError, match="give the right one with --reference FASTA") as caught:
        list(source.contigs())
    assert not isinstance(caught.value, StreamBroken)


def test_options_of_other_formats_are_said_to_change_nothing(aligned, tmp_path, bundle):
    fq, bam = tmp_path / "in.fq", aligned[0]
    fq.write_bytes(fastq(READS))
    (tmp_path / "ref.fa").write_text(f">ref\n{REFERENCE}\n")
    cram = ubam(tmp_path / "in.cram", READS, mode="wc")
    options = ("--read-groups", "--reference", tmp_path / "ref.fa", "--bundle", bundle)
    groups = f"--read-groups changes nothing: {fq} is FASTQ, which has none"
    reference = "--reference changes nothing: no input is a CRAM"
    for path, said in ((fq, [reference, groups]), (bam, [reference]), (cram, [])):
        out = tmp_path / f"run.{path.name}"
        done = virnucpro("predict", path, *options, "-o", out)
        assert done.code == 0
        assert [line for line in done.err.splitlines() if "changes nothing" in line] == said


def test_without_pysam_one_sentence(tmp_path, monkeypatch):
    ubam(tmp_path / "in.bam", READS)
    monkeypatch.setitem(sys.modules, "pysam", None)
    (source,) = open_sources([tmp_path / "in.bam"])
    with pytest.raises(InputError, match=r"pip install pysam`, or write the reads as FASTQ"):
        list(source.contigs())


def test_read_groups_name_samples(tmp_path, bundle):
    groups = [{"ID": "g1", "SM": "lake"}, {"ID": "g2", "SM": "sea"}, {"ID": "g3"}]
    path = tmp_path / "in.bam"
    with pysam.AlignmentFile(path, "wb", header={"HD": {"VN": "1.6"}, "RG": groups}) as file:
        for i, group in enumerate(("g1", "g2", "g3", None, "g1")):
            made = alignment(file.header, f"r{i}", dna(90, i), 0x4)
            made.set_tag("RG", group)
            file.write(made)
    outcome = predict(path, bundle, tmp_path / "run", read_groups=True)
    assert outcome.exit_code == 0
    rows = table(tmp_path / "run" / "contigs.tsv")
    assert [row["sample"] for row in rows] == ["lake", "sea", "in", "in", "lake"]
    assert [row["record"] for row in rows] == ["1", "2", "3", "4", "5"]
    with pytest.raises(SettingsError, match="--read-groups goes with one input"):
        open_sources([path, path], reading=Reading(read_groups=True))


# Folders


def test_200_small_files_in_a_folder(tmp_path, bundle):
    folder = tmp_path / "many"
    folder.mkdir()
    for i in range(200):
        (folder / f"s{i:03}.fa").write_bytes(fasta([(f"c{i}", dna(100, i))]))
    (folder / "notes.txt").write_text("# notes\nnot a sequence\n")
    (folder / "empty.fa").touch()
    (folder / "sub").mkdir()
    done = virnucpro("predict", folder, "-o", tmp_path / "run", "--bundle", bundle)
    assert done.code == 0
    said = "200 files of sequences of 203 entries; passed over: empty.fa, notes.txt, sub"
    assert f"{folder}: {said}" in done.err
    assert done.err.count("reading ") == 10
    assert f"reading {folder / 's009.fa'} " in done.err
    assert "190 more such lines in log.txt" in done.err
    log = (tmp_path / "run" / "log.txt").read_text()
    assert all(f"reading {folder / f's{i:03}.fa'} as sample s{i:03}, " in log for i in range(200))
    rows = table(tmp_path / "run" / "contigs.tsv")
    assert [(r["sample"], r["record"]) for r in rows] == [(f"s{i:03}", "1") for i in range(200)]
    assert len(run_json(tmp_path / "run")["inputs"]) == 200
    inside = [folder / f"s{i:03}.fa" for i in range(200)]
    assert predict(inside, bundle, tmp_path / "one by one").exit_code == 0
    assert results(tmp_path / "one by one") == results(tmp_path / "run")


def test_what_is_said_of_many_inputs_is_counted_beyond_ten(tmp_path, bundle):
    """On the screen; the logs have a line on each. Up to ten have theirs everywhere."""
    many = [ubam(tmp_path / f"s{i:02}.bam", READS[: i % 3]) for i in range(36)]
    flags = ("--bundle", bundle, "--max-records", "1", "--log-json", "-o")
    done = virnucpro("predict", *many, *flags, "run", cwd=tmp_path)
    assert done.code == 0, done.err
    counted = [line for line in done.err.splitlines() if "such line" in line]
    # Of 36 inputs, 24 alignments, 12 whose rest was not read, and 12 without a record.
    assert counted == [f"{more} more such lines in log.txt" for more in (26, 14, 2, 2)]
    said = ("reading ", " alignments, of which ", ": only its first ", ": no record was read")
    assert [done.err.count(words) for words in said] == [10] * 4
    logs = [(tmp_path / "run" / name).read_text() for name in ("log.txt", "log.jsonl")]
    assert [[log.count(words) for words in said] for log in logs] == [[36, 24, 12, 12]] * 2
    few = virnucpro("predict", *many[:10], *flags, "few", cwd=tmp_path)
    assert "such line" not in few.err
    assert few.err.count(": only its first 1 records were read") == 3
    assert few.err.count(": no record was read") == 4


def test_inputs_without_a_record_are_warned_of(tmp_path, bundle):
    (tmp_path / "in.fa").write_bytes(fasta(READS))
    for name in ("none.fa", "none.gz"):
        (tmp_path / name).write_bytes(gzip.compress(b"") if name == "none.gz" else b"")
    predicted = ("predict", "--bundle", bundle, "--log-json", "-o")
    done = virnucpro(*predicted, "some", "none.gz", "in.fa", cwd=tmp_path)
    assert (done.code, "warning: none.gz: no record was read" in done.err) == (0, True)
    log = (tmp_path / "some" / "log.jsonl").read_text().splitlines()
    said = [json.loads(line) for line in log]
    assert [line["text"] for line in said if line["level"] == "warning"] == [
        "none.gz: no record was read"
    ]
    for name in ("none.fa", "none.gz", "-"):
        done = virnucpro(*predicted, f"run{name}", name, cwd=tmp_path, input=b"")
        assert done.code == 0
        assert "warning: no record was read, so every table has its header alone" in done.err


def test_what_in_a_folder_holds_sequences_is_told_by_content(tmp_path):
    for name, data in {
        "a": fasta(READS),
        "b": COMPRESSIONS["xz"](fastq(READS)),
        "c.fa": b"hello",
        "d": COMPRESSIONS["zstd"](b"no sequences"),
        "e": b"# comment\n\n>x\nA\n",
    }.items():
        (tmp_path / name).write_bytes(data)
    ubam(tmp_path / "f", READS)
    (found, (note,)) = files_in(tmp_path)
    assert [path.name for path in found] == ["a", "b", "e", "f"]
    assert note.endswith("4 files of sequences of 6 entries; passed over: c.fa, d")
    for path in found:
        path.unlink()
    with pytest.raises(InputError, match="there is no file of sequences"):
        files_in(tmp_path)


def test_results_of_runs_in_a_folder_are_no_input(tmp_path, bundle):
    """The run directory lies in the folder of the reads, or is that folder, twice even."""
    reads = tmp_path / "reads"
    reads.mkdir()
    for name in "ab":
        (reads / f"{name}.fa").write_bytes(fasta(READS[:40]))
    (reads / "c.fasta").write_bytes(fasta(READS[:5]))
    predicted = ("predict", "reads", "--bundle", bundle)
    for again, out in enumerate(["apart", "reads/run", "reads", "reads", "reads", "reads/run"]):
        prefix = ("--prefix", "second") if again == 4 else ()
        done = virnucpro(*predicted, "-o", out, *prefix, cwd=tmp_path)
        assert done.code == 0, done.err
        assert (again in (3, 5)) == ("nothing is done" in done.err)
        document = tmp_path / out / ("second.run.json" if prefix else "run.json")
        inputs = json.loads(document.read_text())["inputs"]
        assert [i["path"] for i in inputs] == [f"reads/{n}" for n in ("a.fa", "b.fa", "c.fasta")]
    assert (reads / "viral.fasta").stat().st_size > 0
    (found, (note,)) = files_in(reads)
    assert [path.name for path in found] == ["a.fa", "b.fa", "c.fasta"]
    assert note.endswith("; 26 that runs here wrote left out; passed over: run")
    # A pattern of the shell names the run directory, too.
    done = virnucpro(
        "predict", "reads/a.fa", "reads/run", "-o", "o", "--bundle", bundle, cwd=tmp_path
    )
    assert done.code == 0
    assert "reads/run: this folder holds a run of virnucpro, and its results are not" in done.err
    assert [i["path"] for i in run_json(tmp_path / "o")["inputs"]] == ["reads/a.fa"]
    for folder in ("reads/run", "o"):
        done = virnucpro("predict", folder, "-o", "p", "--bundle", bundle, cwd=tmp_path)
        assert done.code == 1
        assert done.error.startswith(f"{folder}: this folder holds a run of virnucpro")
    done = virnucpro("predict", "o/viral.fasta", "-o", "p", "--bundle", bundle, cwd=tmp_path)
    assert done.code == 0


def test_a_folder_of_a_run_that_was_stopped_is_no_input(tmp_path, bundle):
    (tmp_path / "in.fa").write_bytes(fasta(READS[:2]))
    assert predict(tmp_path / "in.fa", bundle, tmp_path).exit_code == 0
    record = run_json(tmp_path) | {"status": "running", "finished": None, "counts": None}
    (tmp_path / "run.json").write_text(json.dumps(record))
    (tmp_path / "viral.fasta").write_bytes(b">v\nACGT\n")
    assert [path.name for path in files_in(tmp_path)[0]] == ["in.fa"]
    (tmp_path / "run.json").write_text("{}")  # another program's
    assert [path.name for path in files_in(tmp_path)[0]][:1] == ["in.fa"]
    assert "viral.fasta" in [path.name for path in files_in(tmp_path)[0]]


def test_a_folder_is_what_a_pattern_of_the_shell_names(tmp_path):
    """rsync and editors put hidden copies beside the files."""
    for name in (".in.fa.Xy12ab", "in.fa", "._in.fa"):
        (tmp_path / name).write_bytes(fasta(READS[:2]))
    (tmp_path / "gone.fa").symlink_to("nowhere")
    os.mkfifo(tmp_path / "pipe")
    (found, (note,)) = files_in(tmp_path)
    assert [path.name for path in found] == ["in.fa"]
    assert note.endswith("1 file of sequences of 3 entries; passed over: gone.fa, pipe")
    (tmp_path / "top" / "lane1").mkdir(parents=True)
    with pytest.raises(InputError, match="in this folder; folders in it, as lane1, are not looked"):
        files_in(tmp_path / "top")


# What is known to be wrong before anything is computed


def test_all_that_is_wrong_is_said_before_anything_is_scored(tmp_path, bundle):
    (tmp_path / "good.fa").write_bytes(fasta(READS))
    bad = {
        "text": b"hello\n",
        "protein.fa": b">p\nMKLEFPQ\n",
        "late.fa": fasta([*READS[:90], ("x", "AC!GT")]),
        "packed.7z": b"7z\xbc\xaf\x27\x1c\0\4rest",
        "page.fa": b"<!DOCTYPE html>\n<html>\n",
    }
    for name, data in bad.items():
        (tmp_path / name).write_bytes(data)
    (tmp_path / "none").mkdir()
    arguments = ("predict", "good.fa", *bad, "-o", "run", "--bundle", bundle)
    done = virnucpro(*arguments, cwd=tmp_path)
    assert done.code == 1
    for words in (
        "text, line 1: not FASTA",
        "protein.fa, line 2: record 1 (p) holds the letter 'L'",
        "late.fa, line 182: record 91 (x) holds the letter '!'",
        "packed.7z: this is a binary file",
        "page.fa: this is a web page",
    ):
        assert words in done.error
    document = run_json(tmp_path / "run")
    assert (document["error"], document["blocks"]["total"]) == (done.error, 0)
    # With those that cannot be opened.
    more = ("no.fa", "none", "nor.fa", "good.fa")
    done = virnucpro(
        "predict", "good.fa", "text", *more, "-o", "r", "--bundle", bundle, cwd=tmp_path
    )
    assert done.code == 1
    assert done.error.startswith("5 faults, which end the run: ")
    for words in (
        "no.fa: cannot",
        "none: there is no file",
        "nor.fa: cannot",
        "text, line 1: not FASTA",
    ):
        assert words in done.error
    assert "good.fa: this file was named twice, also as good.fa" in done.error
    assert not (tmp_path / "r").exists()


def test_a_file_that_breaks_off_is_still_read_as_far_as_it_goes(tmp_path, bundle):
    whole = gzip.compress(fasta(READS))
    (tmp_path / "cut.fa.gz").write_bytes(whole[: len(whole) // 2])
    (tmp_path / "good.fa").write_bytes(fasta(READS))
    done = virnucpro("predict", "cut.fa.gz", "good.fa", "-o", "r", "--bundle", bundle, cwd=tmp_path)
    assert (done.code, "is cut off or damaged after record" in done.error) == (1, True)
    assert table(tmp_path / "r" / "contigs.tsv")[-1]["contig"] == "r149"


def test_what_comes_beside_a_pipe_is_looked_at(tmp_path, bundle):
    (tmp_path / "text").write_bytes(b"hello\n")
    arguments = ("predict", "-", "text", "-o", "run", "--bundle", bundle)
    done = virnucpro(*arguments, cwd=tmp_path, input=fasta(READS))
    assert (done.code, done.error.startswith("text, line 1: not FASTA")) == (1, True)
    assert run_json(tmp_path / "run")["inputs"][0]["records"] == 0


# Pipes


def test_a_gzipped_fastq_piped_in(tmp_path, bundle):
    (tmp_path / "in.fq.gz").write_bytes(gzip.compress(fastq(READS)))
    arguments = ("-o", tmp_path / "run", "--bundle", bundle, "--sample", "in")
    with (tmp_path / "in.fq.gz").open("rb") as file:
        zcat = subprocess.Popen(["cat"], stdin=file, stdout=subprocess.PIPE)
        with zcat:
            done = virnucpro("predict", "-", *arguments, stdin=zcat.stdout)
    assert done.code == 0, done.err
    assert "reading - as sample in, a pipe" in done.err
    assert predict(tmp_path / "in.fq.gz", bundle, tmp_path / "file").exit_code == 0
    assert results(tmp_path / "run") == results(tmp_path / "file")
    assert (tmp_path / "run" / "viral.fasta").stat().st_size > 0
    (piped,) = run_json(tmp_path / "run")["inputs"]
    assert piped["sha256"] == hashlib.sha256((tmp_path / "in.fq.gz").read_bytes()).hexdigest()
    assert piped["bytes"] == (tmp_path / "in.fq.gz").stat().st_size
    # Given again: the same stream changes nothing, another is refused.
    data = (tmp_path / "in.fq.gz").read_bytes()
    done = virnucpro("predict", "-", *arguments, input=data)
    assert (done.code, "nothing is done" in done.err) == (0, True)
    done = virnucpro("predict", "-", *arguments, "--threshold", "0.2", input=data)
    assert (done.code, "its results are made again" in done.err) == (0, True)
    done = virnucpro("predict", "-", *arguments, input=data[:-9])
    assert (done.code, "finished run of another input" in done.err) == (3, True)


@pytest.mark.parametrize("form", ["fastq", "bam"])
def test_a_named_pipe_is_read_once_and_kept_for_the_second_pass(tmp_path, bundle, form):
    plain = [(header.split()[0], sequence) for header, sequence in READS]
    ubam(tmp_path / "x.bam", plain)
    (tmp_path / "x.fastq").write_bytes(fastq(plain))
    data = (tmp_path / f"x.{form}").read_bytes()
    os.mkfifo(tmp_path / "pipe")
    writer = threading.Thread(target=(tmp_path / "pipe").write_bytes, args=(data,))
    writer.start()
    outcome = predict(tmp_path / "pipe", bundle, tmp_path / "run", sample="x")
    writer.join()
    assert outcome.exit_code == 0
    assert predict(tmp_path / f"x.{form}", bundle, tmp_path / "file").exit_code == 0
    assert results(tmp_path / "run") == results(tmp_path / "file")


def test_nothing_piped_in(tmp_path, bundle):
    """A terminal that waits for someone to type is no input; an empty pipe is an empty one."""
    leader, follower = os.openpty()
    arguments = ("predict", "-", "-o", tmp_path / "run", "--bundle", bundle)
    done = virnucpro(*arguments, stdin=follower)
    os.close(leader)
    os.close(follower)
    assert done.code == 1
    assert done.error.startswith("nothing is piped into standard input")
    assert virnucpro(*arguments, input=b"").code == 0
    assert table(tmp_path / "run" / "contigs.tsv") == []


def test_a_killed_run_on_a_pipe_goes_on_when_the_stream_is_given_again(tmp_path, bundle):
    data = fastq((f"r{i}", dna(200, i)) for i in range(1_500))
    arguments = ["predict", "-", "-o", str(tmp_path / "run"), "--bundle", str(bundle), "-q"]
    process = forks.Fork("virnucpro", arguments, data=b"")
    assert process.stdin is not None
    process.stdin.write(data + fastq([("wide", dna(1_500_000))]))
    process.stdin.flush()
    blocks, deadline = tmp_path / "run" / ".virnucpro" / "blocks", time.monotonic() + 60
    while len(list(blocks.glob("*.block"))) < 5:  # the stream stays open, so it cannot finish
        assert process.poll() is None
        assert time.monotonic() < deadline
        time.sleep(0.02)
    process.kill()
    process.communicate()
    there = {path.name for path in (tmp_path / "run" / ".virnucpro").iterdir()}
    assert there <= {"blocks", "fingerprint.json", "lock", "scratch"}  # no copy is left behind
    other = data.replace(dna(200, 7).encode(), dna(200, "other").encode())
    done = virnucpro(*arguments, input=other)
    assert (done.code, "record 8 (r7) of sample stdin had other letters" in done.error) == (3, True)
    whole = data + fastq([("wide", dna(1_500_000))])
    assert virnucpro(*arguments, input=whole).code == 0
    assert run_json(tmp_path / "run")["blocks"]["reused"] >= 5
    (tmp_path / "stdin.fq").write_bytes(whole)
    assert predict(tmp_path / "stdin.fq", bundle, tmp_path / "clean").exit_code == 0
    assert results(tmp_path / "run") == results(tmp_path / "clean")


@pytest.mark.parametrize(("form", "code"), [("fastq", 130), ("bam", 130), ("bam", 143)])
def test_a_pipe_that_stands_still_keeps_nobody_waiting(tmp_path, bundle, form, code):
    """TRAP R6: htslib would wait for more whatever the signal."""
    rng = random.Random(1)
    many = [(f"r{i}", "".join(rng.choices("ACGT", k=150))) for i in range(30_000)]
    ubam(tmp_path / "x.bam", many)
    data = fastq(many) if form == "fastq" else (tmp_path / "x.bam").read_bytes()
    assert len(data) > 1_500_000
    arguments = ["predict", "-", "-o", str(tmp_path / "run"), "--bundle", str(bundle), "-q"]
    with forks.Fork("virnucpro", arguments, data=b"") as process:
        process.stdin.write(data[:1_500_000])  # beyond one piece of the copy, and then nothing
        process.stdin.flush()
        blocks, deadline = tmp_path / "run" / ".virnucpro" / "blocks", time.monotonic() + 60
        while not list(blocks.glob("*.block")):
            assert process.poll() is None
            assert time.monotonic() < deadline
            time.sleep(0.02)
        time.sleep(1)
        began = time.monotonic()
        process.send_signal(signal.SIGINT if code == 130 else signal.SIGTERM)
        assert process.wait(10) == code
        assert time.monotonic() - began < 5
        assert b"Traceback" not in process.stderr.read()


@pytest.mark.parametrize("words", [("-", "--mates", "-"), ("-", "-")])
def test_standard_input_is_given_once(tmp_path, bundle, words):
    arguments = (*words, "-o", tmp_path / "run", "--bundle", bundle)
    done = virnucpro("predict", *arguments, input=fastq(READS))
    assert done.code == 1
    assert done.error.startswith("'-', standard input, can be read once only; give the other")
    assert not (tmp_path / "run").exists()


def test_a_pipe_without_a_folder_is_read_once(tmp_path, bundle):
    done = virnucpro("validate", "-", "--bundle", bundle, input=fastq(READS))
    assert done.code == 0
    assert "records  150" in done.out
    done = virnucpro("validate", "-", "--bundle", bundle, input=b">a\nAC!GT\n")
    assert done.code == 1
    assert done.error.startswith("standard input: record 1 (a) holds the letter '!'")


# Lengths and numbers of records


def test_shorter_records_are_listed_and_not_classified(tmp_path, bundle):
    path = tmp_path / "in.fa"
    path.write_bytes(fasta([("a", dna(300)), ("b", dna(99)), ("c", dna(100)), ("d", "")]))
    assert predict(path, bundle, tmp_path / "run", min_length=100).exit_code == 0
    rows = table(tmp_path / "run" / "contigs.tsv")
    found = [(r["contig"], r["length_nt"], r["chunks"], r["status"]) for r in rows]
    assert found == [
        ("a", "300", "1", "ok"),
        ("b", "99", "0", "too_short"),
        ("c", "100", "1", "ok"),
        ("d", "0", "0", "empty"),
    ]
    assert {row["contig"] for row in table(tmp_path / "run" / "calls.tsv")} == {"a", "c"}
    counts = run_json(tmp_path / "run")["counts"]
    assert (counts["records"], counts["none"], counts["failed"]) == (4, 2, 0)
    with pytest.raises(ResumeError, match="another min_length"):
        predict(path, bundle, tmp_path / "run")


def test_a_changed_letter_of_a_short_record_is_seen(tmp_path, bundle):
    """It is in no chunk, but the finished blocks are those of the input that held it."""
    (tmp_path / "in.fa").write_bytes(fasta([("a", dna(90)), *READS]))
    broken = gzip.compress((tmp_path / "in.fa").read_bytes())[:-9]
    (tmp_path / "in.fa").write_bytes(broken)
    arguments = {"bundle": bundle, "out": tmp_path / "run", "min_length": 100}
    assert predict(tmp_path / "in.fa", **arguments).exit_code == 1
    (tmp_path / "in.fa").write_bytes(fasta([("a", dna(90, "other")), *READS]))
    with pytest.raises(ResumeError, match=r"record 1 \(a\) of sample in had other letters"):
        predict(tmp_path / "in.fa", **arguments)


def test_a_part_of_an_input_is_called_one(tmp_path, bundle):
    for name in ("a", "b"):
        (tmp_path / f"{name}.fq").write_bytes(fastq(READS))
    arguments = ("a.fq", "b.fq", "--bundle", bundle, "--max-records")
    done = virnucpro("predict", *arguments, "7", "-o", "run", cwd=tmp_path)
    assert done.code == 0
    assert done.err.count("only its first 7 records were read, as --max-records asks") == 2
    rows = table(tmp_path / "run" / "contigs.tsv")
    assert [(r["sample"], r["record"]) for r in rows] == [
        (sample, str(i)) for sample in "ab" for i in range(1, 8)
    ]
    inputs = run_json(tmp_path / "run")["inputs"]
    assert [(i["records"], i["whole"]) for i in inputs] == [(7, False)] * 2
    done = virnucpro("predict", *arguments, "7", "-o", "run", cwd=tmp_path)
    assert (done.code, "nothing is done" in done.err) == (0, True)
    done = virnucpro("predict", *arguments, "8", "-o", "run", cwd=tmp_path)
    assert (done.code, "another max_records" in done.error) == (3, True)
    done = virnucpro("predict", *arguments, "150", "-o", "all", cwd=tmp_path)
    assert (done.code, "--max-records asks" in done.err) == (0, False)
    assert all(i["whole"] for i in run_json(tmp_path / "all")["inputs"])


@pytest.mark.parametrize("pack", ["plain", "gzip"])
def test_records_after_those_asked_for_may_come_later(tmp_path, bundle, pack):
    """SPEC 7: the digest is that of what was read; a file that is being written may grow."""
    arguments = ("in.fa", "--bundle", bundle, "--max-records", "100", "-o", "run")
    for number, words in {
        120: "100 records: ",
        150: "nothing is done",
        99: "another input",
    }.items():
        (tmp_path / "in.fa").write_bytes(COMPRESSIONS[pack](fasta(READS[:number])))
        done = virnucpro("predict", *arguments, cwd=tmp_path)
        assert (done.code, words in done.err) == (3 if number == 99 else 0, True), done.err
    (tmp_path / "in.fa").write_bytes(fasta([*READS[:99], ("r99 and more", dna(120))]))
    done = virnucpro("predict", *arguments, cwd=tmp_path)
    assert (done.code, "another input" in done.error) == (3, True)
    # All of it was read then, and more is there now.
    for number, code in {60: 0, 61: 3}.items():
        (tmp_path / "in.fa").write_bytes(COMPRESSIONS[pack](fasta(READS[:number])))
        done = virnucpro("predict", *arguments[:-1], "less", cwd=tmp_path)
        assert done.code == code


@pytest.mark.parametrize("case", [str.upper, str.lower])
def test_letters_u_are_told_of_once(tmp_path, bundle, case):
    rna = [(name, case(sequence.replace("T", "U"))) for name, sequence in READS]
    (tmp_path / "in.fa").write_bytes(fasta(rna))
    done = virnucpro("predict", tmp_path / "in.fa", "-o", tmp_path / "run", "--bundle", bundle)
    assert done.err.count("letters U (RNA), which were read as T") == 1
    (tmp_path / "in.fa").write_bytes(fasta(READS))
    done = virnucpro("predict", tmp_path / "in.fa", "-o", tmp_path / "dna", "--bundle", bundle)
    assert "RNA" not in done.err


@pytest.mark.parametrize(
    ("bundle_name", "length_nt", "other"),
    [
        ("mini-500-v1", 150, None),
        ("mini-500-v1", 2_000, None),
        ("mini-300-v1", 2_000, "mini-500"),
        ("mini-300-v1", 150, None),
        ("virnucpro-500", 150, "virnucpro-300"),
        ("my-bundle", 150, None),
    ],
)
def test_the_bundle_that_suits_is_named(tmp_path, bundle_name, length_nt, other):
    source = source_of(tmp_path / "in", fastq((f"r{i}", dna(length_nt, i)) for i in range(9)))
    shape = Shape.of(source, 500)
    said = other_bundle(bundle_name, shape.records, shape.letters)
    assert (said is None) == (other is None)
    assert said is None or f"{other} would suit them better" in said


@pytest.mark.parametrize(
    ("name", "other", "sample"),
    [
        ("x.fastq.gz", None, "x"),
        ("x.fq.zst", None, "x"),
        ("x.y.bam", None, "x.y"),
        ("x_R1_001.fastq.gz", "x_R2_001.fastq.gz", "x"),
        ("x_1.fq", "x_2.fq", "x"),
        ("R1.fq", "R2.fq", "R1"),
        ("a.fq", "b.fq", "a"),
        ("-", None, "stdin"),
    ],
)
def test_sample_names_of_reads(name, other, sample):
    assert sample_name(Path(name), other and Path(other)) == sample


# Sheets


def sheet(folder: Path, text: str) -> Path:
    (folder / "sheet.tsv").write_text(text)
    return folder / "sheet.tsv"


def test_a_sheet_of_samples_is_a_run_for_each(tmp_path, bundle):
    (tmp_path / "one.fa").write_bytes(fasta(READS))
    for mate in (1, 2):
        (tmp_path / f"two_{mate}.fq").write_bytes(fastq(READS[:20]))
    path = sheet(tmp_path, "sample\tpath\tmates\nlake\tone.fa\nsea\ttwo_1.fq\ttwo_2.fq\n\n")
    arguments = ("predict", "--sample-sheet", path, "-o", "out", "--bundle", bundle)
    done = virnucpro(*arguments, cwd=tmp_path)
    assert done.code == 0, done.err
    assert {path.name for path in (tmp_path / "out").iterdir()} == {"lake", "sea"}
    assert len(table(tmp_path / "out" / "sea" / "pairs.tsv")) == 20
    assert {r["sample"] for r in table(tmp_path / "out" / "lake" / "contigs.tsv")} == {"lake"}
    assert predict(tmp_path / "one.fa", bundle, tmp_path / "alone", sample="lake").exit_code == 0
    assert results(tmp_path / "alone") == results(tmp_path / "out" / "lake")
    (tmp_path / "out" / "sea" / "contigs.tsv").unlink()
    before = (tmp_path / "out" / "lake" / "run.json").stat().st_mtime_ns
    done = virnucpro(*arguments, cwd=tmp_path)
    assert (done.code, done.err.count("nothing is done")) == (0, 1)
    assert (tmp_path / "out" / "lake" / "run.json").stat().st_mtime_ns == before
    assert (tmp_path / "out" / "sea" / "contigs.tsv").exists()


def test_a_sheet_says_once_what_is_common_to_its_samples(tmp_path, bundle):
    for name in "abc":
        (tmp_path / f"{name}.fa").write_bytes(fasta(READS[:3]))
    path = sheet(tmp_path, "sample\tpath\n" + "".join(f"{n}\t{n}.fa\n" for n in "abc"))
    options = ("-o", "out", "--bundle", bundle, "--verbose", "--no-progress", "--pin-memory")
    done = virnucpro("predict", "--sample-sheet", path, *options, cwd=tmp_path)
    assert done.code == 0, done.err
    shown = done.err.splitlines()
    headings = [shown.index(f"sample {i} of 3: {name}") for i, name in enumerate("abc", 1)]
    logs = [(tmp_path / "out" / name / "log.txt").read_text() for name in "abc"]
    for begin in (
        "virnucpro 0",
        "bundle sha256",
        "records are called virus at",
        "chunks of",
        "warning: --pin-memory changes nothing",
        "no regions are looked for",
    ):
        assert [line.startswith(begin) for line in shown].count(True) == 1, begin
        assert all(f" {begin}" in log for log in logs), begin
    assert shown[headings[0] - 1].startswith("warning: --pin-memory")
    for name, start, end in zip("abc", headings, [*headings[1:], len(shown)], strict=True):
        of_sample = shown[start + 1 : end]
        assert of_sample[0].startswith(f"reading {name}.fa as sample {name}, ")
        assert any(line.startswith("this may need up to ") for line in of_sample)
        assert sum(line.startswith("3 records: ") for line in of_sample) == 1


def shown_by_sheet(path: Path, bundle) -> list[str]:
    """The lines that a run of a sheet shows, into a folder beside it."""
    flags = ("-o", "out", "--bundle", bundle, "--no-progress")
    return virnucpro("predict", "--sample-sheet", path, *flags, cwd=path.parent).err.splitlines()


def test_no_line_of_a_sample_stands_below_the_heading_of_another(tmp_path, bundle):
    for name in "ab":
        (tmp_path / f"{name}.fa").write_bytes(fasta(READS[:3]))
    path = sheet(tmp_path, "sample\tpath\na\ta.fa\nb\tb.fa\n")
    whole = shown_by_sheet(path, bundle)
    common = whole[: whole.index("sample 1 of 2: a")]
    (tmp_path / "out" / "b" / "contigs.tsv").unlink()
    shown = shown_by_sheet(path, bundle)
    second = shown.index("sample 2 of 2: b")
    assert shown[0] == "sample 1 of 2: a"
    assert second == 2
    assert "nothing is done" in shown[1]
    assert len(common) > 2
    assert shown[second + 1 :][: len(common)] == common


@pytest.mark.parametrize("name", "ab")
def test_a_sample_that_fails_at_once_has_a_heading_above_its_error(tmp_path, bundle, name):
    for other in "ab":
        (tmp_path / f"{other}.fa").write_bytes(fasta(READS[:3]))
    path = sheet(tmp_path, "sample\tpath\na\ta.fa\nb\tb.fa\n")
    shown_by_sheet(path, bundle)
    (tmp_path / f"{name}.fa").write_bytes(fasta(READS[3:6]))
    shown = shown_by_sheet(path, bundle)
    (place,) = (i for i, line in enumerate(shown) if line.startswith(f"virnucpro: sample {name}: "))
    assert shown[place - 1] == f"sample {'ab'.index(name) + 1} of 2: {name}"
    assert len([line for line in shown if line.startswith("sample ")]) == 2


def test_a_sheet_ends_with_the_worst_of_its_codes_and_runs_all(tmp_path, bundle):
    bad = [(f"s{i}", dna(90, i) + "!" * (i == 110)) for i in range(1, 121)]
    cut = gzip.compress(fasta(READS), mtime=0)[:-100]
    inputs = {"good": fasta(READS), "partly": fasta(bad), "cut": cut, "last": fasta(READS)}
    for name, data in inputs.items():
        (tmp_path / name).write_bytes(data)
    names = ["partly", "last"], ["cut", "partly", "good", "last"]
    for rows, code in zip(names, (2, 1), strict=True):
        path = sheet(tmp_path, "sample\tpath\n" + "".join(f"{n}\t{n}\n" for n in rows))
        arguments = ("predict", "--sample-sheet", path, "-o", f"out{code}", "--bundle", bundle)
        done = virnucpro(*arguments, cwd=tmp_path)
        assert done.code == code, done.err
        for name in rows:
            status = {"cut": "failed", "partly": "partial"}.get(name, "complete")
            assert run_json(tmp_path / f"out{code}" / name)["status"] == status
    assert "virnucpro: sample cut: cut: the gzip stream is cut off" in done.err


def test_faults_in_first_records_of_a_sheet_are_told_at_once_before_anything_is_run(
    tmp_path, bundle
):
    (tmp_path / "good.fa").write_bytes(fasta(READS))
    (tmp_path / "protein.fa").write_bytes(b">p1\nMKVLEFPQ\n")
    (tmp_path / "one.fq").write_bytes(fastq(READS[:20]))
    (tmp_path / "two.fq").write_bytes(fastq(READS[1:20]))
    rows = "lake\tgood.fa\nprot\tprotein.fa\nsea\tone.fq\ttwo.fq\n"
    path = sheet(tmp_path, f"sample\tpath\tmates\n{rows}")
    done = virnucpro("predict", "--sample-sheet", path, "-o", "o", "--bundle", bundle, cwd=tmp_path)
    assert done.code == 1
    assert "2 faults, which end the run: sample prot: protein.fa, line 2: record 1" in done.error
    assert "; sample sea: one.fq: record 1 (r0) and record 1 (r1) of two.fq are not" in done.error
    assert not (tmp_path / "o").exists()


def test_a_sheet_loads_its_bundle_once(tmp_path, bundle, monkeypatch):
    from virnucpro.bundle.manifest import Bundle
    from virnucpro.cli.terminal import Screen
    from virnucpro.run.samples import run_samples
    from virnucpro.run.settings import Settings

    loads, classifier = [], Bundle.classifier
    monkeypatch.setattr(
        Bundle, "classifier", lambda *how, **more: loads.append(1) or classifier(*how, **more)
    )
    for name in "abc":
        (tmp_path / name).write_bytes(fasta(READS[:3]))
    path = sheet(tmp_path, "sample\tpath\n" + "".join(f"{n}\t{tmp_path / n}\n" for n in "abc"))
    settings = Settings(inputs=(), out=tmp_path / "out", bundle=str(bundle))
    assert run_samples(path, settings, Screen(quiet=True), complain) == 0
    assert len(loads) == 1


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("", "sheet.tsv, line 1: the first line must name the columns sample, path and"),
        ("name\tpath\n", "sheet.tsv, line 1: the first line must name the columns"),
        ("\nsample\tpath\n", "with tabs between them, but it is empty; write it"),
        (
            "name\tpath\n",
            "must name the columns sample, path and, if wanted, mates, in this order with tabs "
            "between them, but it names name, path (sample missing; 'name' unknown); rename them",
        ),
        ("sample\tfile\tmate\n", "(path missing; 'file', 'mate' unknown); rename them"),
        ("sample\tmates\n", "but it names sample, mates (path missing); rename them"),
        ("sample\tpath\tgroup\n", "sample, path, group ('group' unknown); rename them, or take"),
        ("path\tsample\n", "but it names path, sample; put each there once, in this order"),
        ("sample\tpath\tpath\n", "put each there once, in this order"),
        ("id\tfile\n", "not 'id\\tfile'; rename its columns, or write such a line above it if it"),
        ("lake\n", "not 'lake'; write that line at the top"),
        (
            "sample,path\na,x.fa\n",
            "not 'sample,path'; its columns are commas apart: put tabs instead",
        ),
        ("sample;path\na;x.fa\n", "its columns are semicolons apart: put tabs instead"),
        (">a\nACGT\n", "this looks like an input: name it without --sample-sheet"),
        ("sample\tpath\n", "sheet.tsv: the sheet names no sample; add a line for each"),
        ("sample\tpath\na\tx.fa\na\tx.fa\n", "line 3: column sample: a stands on line 2, too"),
        ("sample\tpath\na\tno.fa\n", "line 2: column path: no.fa: cannot be read (No such file"),
        ("sample\tpath\n\tx.fa\n", "line 2: column sample: it is empty"),
        ("sample\tpath\na\n", "line 2: column path: it is empty"),
        ("sample\tpath\n..\tx.fa\n", "column sample: '..' cannot name a folder"),
        ("sample\tpath\na/b\tx.fa\n", "column sample: 'a/b' cannot name a folder"),
        ("sample\tpath\na\tx.fa\tx.fa\n", "line 2: 3 columns, but the header has 2"),
        ("sample\tpath\tmates\na\tx.fa\tno.fa\n", "line 2: column mates: no.fa: cannot be read"),
        ("sample\tpath\na\t-\n", "line 2: column path: must be a file, and - is standard input"),
    ],
)
def test_mistakes_in_a_sheet(tmp_path, monkeypatch, text, words):
    from virnucpro.reads.sample_sheet import read_sheet

    monkeypatch.chdir(tmp_path)
    (tmp_path / "x.fa").write_bytes(fasta(READS[:2]))
    with pytest.raises(InputError) as caught:
        read_sheet(sheet(tmp_path, text))
    assert words in str(caught.value)


@pytest.mark.parametrize("scheme", ["https", "HTTP", "S3"])
def test_an_address_is_no_file(tmp_path, bundle, scheme):
    address = f"{scheme}://example.org/reads.fa.gz"
    done = virnucpro("predict", address, "-o", tmp_path / "o", "--bundle", bundle)
    assert done.code == 1
    assert done.error == (
        f"{address}: this is an address, and nothing is fetched here; download it and name the file"
    )


def test_all_mistakes_in_a_sheet_are_named_at_once(tmp_path, bundle):
    path = sheet(tmp_path, "sample\tpath\na\tno.fa\nb\tnor.fa\na/b\tx\n")
    done = virnucpro("predict", "--sample-sheet", path, "-o", tmp_path / "o", "--bundle", bundle)
    assert done.code == 1
    for words in (
        "line 2: column path: no.fa",
        "line 3: column path: nor.fa",
        "line 4: column sam",
    ):
        assert words in done.error


def test_options_that_contradict_a_sheet_are_named_before_anything_is_run(tmp_path, bundle):
    for name in "xy":
        (tmp_path / f"{name}.fa").write_bytes(fasta(READS[:2]))
    path = sheet(tmp_path, "sample\tpath\tmates\na\tx.fa\nb\tx.fa\ty.fa\n")
    words = ("--sample-sheet", path, "-o", "o", "--bundle", bundle, "--interleaved")
    done = virnucpro("predict", *words, cwd=tmp_path)
    assert (done.code, f"{path}: sample b: mates lie in a" in done.error) == (2, True)
    assert not (tmp_path / "o").exists()


def test_a_sheet_goes_with_no_other_input(tmp_path, bundle):
    path = sheet(tmp_path, "sample\tpath\na\tx.fa\n")
    done = virnucpro("predict", path, "--sample-sheet", path, "-o", "o", cwd=tmp_path)
    assert (done.code, f"and mates; leave out {path}" in done.error) == (2, True)
    words = ("--sample", "s", "--mates", "y.fa", "--sample-sheet", path, "-o", "o")
    done = virnucpro("predict", *words, cwd=tmp_path)
    assert (done.code, "leave out --sample s --mates y.fa" in done.error) == (2, True)
    done = virnucpro("predict", "-o", "o", cwd=tmp_path)
    assert (done.code, "no input was named" in done.err) == (2, True)
