"""Names are data: what samtools and seqkit take for the name of a record is its name."""

import csv
import subprocess
import sys
from pathlib import Path

import pysam
import pytest

from command import dna, fasta, made_bundle, run_json, table, virnucpro
from made_reads import fastq, ubam
from virnucpro.reads import Reading, Source, open_sources, sample_name

ODD = ["NA", "None", "001", "1e5", "nan", "null", "TRUE", "-1", "#a", "a,b", 'a"b', "'a", "=1+1"]


@pytest.fixture(scope="module")
def bundle(tmp_path_factory) -> Path:
    return made_bundle(tmp_path_factory.mktemp("bundles") / "km", block_nt=20_000).path


def source_of(path: Path, data: bytes, **reading) -> Source:
    path.write_bytes(data)
    (source,) = open_sources([path], reading=Reading(**reading))
    return source


def names(source: Source) -> list[str]:
    return [contig.name for contig in source.contigs()]


def sam(name: bytes, header: bytes = b"@HD\tVN:1.6\n", tags: bytes = b"") -> bytes:
    return header + name + b"\t4\t*\t0\t0\t*\t*\t0\t0\tACGT\t*" + tags + b"\n"


def test_a_qname_may_hold_a_blank(tmp_path):
    reads = [(f"M0:1:{i} 1:N:0:ACGT", dna(80, i)) for i in range(5)]
    for mode in ("wb", "wc", "w"):
        path = ubam(tmp_path / "in", reads, mode=mode)
        (source,) = open_sources([path])
        assert names(source) == [name for name, _ in reads]


def test_names_of_a_bam_are_listed_as_they_are(tmp_path, bundle):
    reads = [(f"M0:1:{i} 1:N:0:ACGT", dna(300, i)) for i in range(9)]
    path = ubam(tmp_path / "in.bam", reads)
    out = tmp_path / "run"
    done = virnucpro("predict", path, "-o", out, "--bundle", bundle, "--threshold", "0.01")
    assert done.code == 0
    listed = (out / "viral_names.txt").read_text().splitlines()
    assert len(listed) > 3
    assert set(listed) < {name for name, _ in reads}


@pytest.mark.parametrize(
    ("raw", "name"),
    [
        (b"a b", "a"),
        (b"a\tb", "a"),
        (b"a\x0bb", "a"),
        (b"a\xc2\xa0b", "a\u00a0b"),
        (b"a\xe3\x80\x80b", "a\u3000b"),
        (b"a\xe2\x80\xa8b", "a\ufffdb"),
        (b"a\x1fb", "a\ufffdb"),
        (b"a\x1b[31mb", "a\ufffd[31mb"),
        (b"a\xc2\x9bb", "a\ufffdb"),
        (b"caf\xe9", "caf\u00e9"),
        (b"caf\xc3\xa9 \xe9", "caf\u00e9"),
    ],
)
def test_a_name_ends_at_a_blank_of_ascii(tmp_path, raw, name):
    assert names(source_of(tmp_path / "in.fa", b">" + raw + b"\nACGT\n")) == [name]
    assert names(source_of(tmp_path / "in.fq", b"@" + raw + b"\nACGT\n+\nIIII\n")) == [name]


@pytest.mark.parametrize(
    ("raw", "name"), [(b"r\xe9", "r\u00e9"), (b"r\xc3\xa9", "r\u00e9"), (b"r\x1b[1m", "r\ufffd[1m")]
)
def test_a_qname_need_not_be_utf_8(tmp_path, raw, name):
    assert names(source_of(tmp_path / "in.sam", sam(raw))) == [name]
    (tmp_path / "in.bam").write_bytes(pysam.view("-b", str(tmp_path / "in.sam"), catch_stdout=True))
    assert names(open_sources([tmp_path / "in.bam"])[0]) == [name]


@pytest.mark.parametrize(
    ("raw", "sample"),
    [(b"l\xe9ke", "l\u00e9ke"), (b"l\xc3\xa9ke", "l\u00e9ke"), (b"a b", "a b"), (b"a:b", "a:b")],
)
def test_a_sample_of_a_read_group_need_not_be_utf_8(tmp_path, raw, sample):
    header = b"@CO\t\xe9\n@RG\tSM:" + raw + b"\tID:x\n"
    source = source_of(tmp_path / "in", sam(b"r", header, b"\tRG:Z:x"), read_groups=True)
    assert [c.sample for c in source.contigs()] == [sample]


def test_a_header_is_copied_byte_by_byte(tmp_path, bundle):
    header = b"caf\xe9 \xc3\xa9\t\xff \xc2\xa0"
    (tmp_path / "in.fa").write_bytes(b">" + header + b"\n" + dna(300).encode() + b"\n")
    out = tmp_path / "run"
    options = ("--bundle", bundle, "--threshold", "0.0001", "-q")
    assert virnucpro("predict", tmp_path / "in.fa", "-o", out, *options).code == 0
    assert (out / "viral.fasta").read_bytes().splitlines()[0] == b">" + header
    assert [row["contig"] for row in table(out / "contigs.tsv")] == ["caf\u00e9"]


def test_control_letters_reach_no_file_of_lines(tmp_path, bundle):
    """A line end in the QNAME of a BAM would begin another record, or row."""
    data = bytes(pysam.view("-b", str(write(tmp_path / "x.sam", sam(b"rXYrX"))), catch_stdout=True))
    with pysam.BGZFile(str(write(tmp_path / "x.bam", data))) as file:
        plain = file.read()
    with pysam.BGZFile(str(tmp_path / "in.bam"), "wb") as file:
        file.write(plain.replace(b"rXYrX", b"r\n>r\x1b"))
    out = tmp_path / "run"
    options = ("--bundle", bundle, "-q", "--write", "all")
    assert virnucpro("predict", tmp_path / "in.bam", "-o", out, *options).code == 0
    assert [row["contig"] for row in table(out / "contigs.tsv")] == ["r\ufffd>r\ufffd"]
    copied = (out / "others.fasta").read_bytes() + (out / "viral.fasta").read_bytes()
    assert copied.count(b"\n") == 2
    assert b"\x1b" not in copied


def write(path: Path, data: bytes) -> Path:
    path.write_bytes(data)
    return path


@pytest.mark.parametrize("form", [fasta, fastq])
def test_names_that_readers_of_tables_misread_come_back_as_they_are(tmp_path, bundle, form):
    reads = [(name, dna(300, i)) for i, name in enumerate(ODD)]
    (tmp_path / "NA").write_bytes(form(reads))
    out = tmp_path / "run"
    assert virnucpro("predict", tmp_path / "NA", "-o", out, "--bundle", bundle, "-q").code == 0
    with (out / "contigs.tsv").open(newline="") as file:
        rows = list(csv.reader(file, delimiter="\t", quoting=csv.QUOTE_NONE))
    assert [row[rows[0].index("contig")] for row in rows[1:]] == ODD
    assert run_json(out)["inputs"][0]["sample"] == "NA"


def test_pipes_that_a_shell_opened_have_a_name(tmp_path, bundle):
    assert sample_name(Path("/dev/fd/63")) == "pipe"
    assert sample_name(Path("/proc/self/fd/11"), Path("/dev/fd/63")) == "pipe"
    assert sample_name(tmp_path / "63") == "63"
    for name in ("a.fa", "b.fa"):
        (tmp_path / name).write_bytes(fasta([("r", dna(300, name))]))
    command = f'"$0" -m virnucpro predict <(cat a.fa) <(cat b.fa) -o run --bundle "{bundle}" -q'
    words = ["bash", "-c", command, sys.executable]
    done = subprocess.run(words, cwd=tmp_path, capture_output=True, check=False, timeout=60)
    assert done.returncode == 0, done.stderr
    rows = table(tmp_path / "run" / "contigs.tsv")
    assert [row["sample"] for row in rows] == ["pipe", "pipe2"]
