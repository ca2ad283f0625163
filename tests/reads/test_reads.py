import gzip
import hashlib
import os
import random
import subprocess
import sys
import zlib
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from virnucpro.errors import InputError, StreamBroken
from virnucpro.reads import Contig, letters, open_sources, sample_name


def source_of(path: Path, data: bytes):
    path.write_bytes(data)
    [source] = open_sources([path])
    return source


def read(path: Path, data: bytes) -> list[Contig]:
    return list(source_of(path, data).contigs())


@pytest.fixture
def fasta(tmp_path) -> Path:
    return tmp_path / "reads.fasta"


def test_records_in_order(fasta):
    assert read(fasta, b">a first one\nACGT\nacgu\n>b\nNNRY\n") == [
        Contig("reads", 1, "a", b"ACGTacgu", header="a first one"),
        Contig("reads", 2, "b", b"NNRY", header="b"),
    ]


@pytest.mark.parametrize(
    ("data", "expected"),
    [
        (b"", []),
        (b"\n\n \n", []),
        (b">a\nAC\nGT", [("a", b"ACGT")]),
        (b">a\r\nAC\r\nGT\r\n", [("a", b"ACGT")]),
        (b">a\rAC\rGT\r", [("a", b"ACGT")]),
        (b"\n\n>a\n\nAC\n\n\nGT\n\n", [("a", b"ACGT")]),
        (b">a\n  AC \t\nGT\n", [("a", b"ACGT")]),
        (b">a\n>b\nA\n>c", [("a", b""), ("b", b"A"), ("c", b"")]),
        (b">\nACGT\n>  \nA\n", [("", b"ACGT"), ("", b"A")]),
        (b"> a b\nACGT\n", [("a", b"ACGT")]),
        (b">a\tb c\nACGT\n", [("a", b"ACGT")]),
        (b">a\nA\n>a\nC\n", [("a", b"A"), ("a", b"C")]),
        (b"# comment\n>a\nA\n#C\nG\n", [("a", b"AG")]),
        (b"##gff-version 3\n>a\nACGT", [("a", b"ACGT")]),
        (b"##gff-version 3\r\n\r\n##FASTA\r\n >a\r\nACGT\r\n", [("a", b"ACGT")]),
        (b"##gff-version 3\r##FASTA\r>a\rACGT\r", [("a", b"ACGT")]),
        (b"#r\t0\tc\t1\t60\t4M\t*\t0\t0\tACGT\t*\n>a\nA\n", [("a", b"A")]),
        (b">r\t0\tc\t1\t60\t4M\t*\t0\t0\tACGT\t*\nA\n", [("r", b"A")]),
        (b">a>b;c|d\nA\n", [("a>b;c|d", b"A")]),
        (b"\xef\xbb\xbf>a\nA\n", [("a", b"A")]),
        (b">a Bact\xc3\xa9riophage \xce\xbb\nA\n", [("a", b"A")]),
        ("> \u03bb-\u00e9 x\nA\n".encode(), [("\u03bb-\u00e9", b"A")]),
        (b">\xe9t\xe9 x\nA\n", [("\u00e9t\u00e9", b"A")]),
        (
            ">a\u00a0b c\nA\n>\u00a0\nC\n>\u2028x\nG\n".encode(),
            [("a\u00a0b", b"A"), ("\u00a0", b"C"), ("\ufffdx", b"G")],
        ),
        (b">a\x00b\x1bc\x7f x\nA\n", [("a\ufffdb\ufffdc\ufffd", b"A")]),
        (b">a\x1a41 x\nA\n", [("a\ufffd41", b"A")]),
        # Without a blank anywhere, and not the last record.
        (b">a\tb\nA\n>c\nC\n", [("a", b"A"), ("c", b"C")]),
        (b">a\x1ab\nA\n>c\nC\n", [("a\ufffdb", b"A"), ("c", b"C")]),
        (b">a\nA\n#C\nG\n>c\nC\n", [("a", b"AG"), ("c", b"C")]),
        (b">\xe9\nA\n>c\nC\n", [("\u00e9", b"A"), ("c", b"C")]),
    ],
)
@pytest.mark.parametrize("packed", [False, True])
def test_forms_of_fasta(fasta, data, expected, packed):
    contigs = read(fasta, gzip.compress(data) if packed else data)
    assert [(c.name, c.sequence) for c in contigs] == expected
    assert [c.record for c in contigs] == list(range(1, len(expected) + 1))
    assert not any(c.fault for c in contigs)


def test_an_empty_file_named_gz(tmp_path):
    assert read(tmp_path / "reads.fa.gz", b"") == []


def test_gzip_is_told_by_content(tmp_path):
    assert read(tmp_path / "plain.fa.gz", b">a\nA\n")[0].sequence == b"A"
    assert read(tmp_path / "packed.fa", gzip.compress(b">a\nA\n"))[0].sequence == b"A"


def test_gzip_of_several_members(fasta):
    members = [gzip.compress(part) for part in (b"", b">a\nAC", b"GT\n>b\nT", b"\n", b"")]
    assert [c.sequence for c in read(fasta, b"".join(members) + b"\0" * 100)] == [b"ACGT", b"T"]


def test_every_iupac_code_is_taken_and_nothing_else(fasta):
    codes = b"ACGTUNRYSWKMBDHV"
    assert read(fasta, b">a\n" + codes + codes.lower() + b"\n")[0].sequence == codes + codes.lower()
    for code in set(range(0x21, 0x7F)) - set(codes + codes.lower()) - set(b">#"):
        with pytest.raises(InputError, match="which is no IUPAC nucleotide code"):
            read(fasta, b">a\nAC" + bytes([code]) + b"GT\n")


def test_long_lines(fasta):
    sequence = b"ACGTN" * 400_000
    assert read(fasta, b">a\n" + sequence + b"\n>b\nA\n")[0].sequence == sequence


def test_letters():
    assert letters(b"ACGTUNRYSWKMBDHV") == b"ACGTTNRYSWKMBDHV"
    assert letters(b"acgtunryswkmbdhv") == b"ACGTTNRYSWKMBDHV"


names = st.text("abcXYZ019_.|:-\u00e9\u03bb", min_size=1, max_size=8)
sequences = st.text("ACGTUNacgtunRYSWKMBDHV", max_size=150)


@given(
    st.lists(st.tuples(names, st.sampled_from(["", " and more", "\t\u00e9t\u00e9"]), sequences)),
    st.integers(1, 80),
    st.sampled_from(["\n", "\r\n"]),
    st.booleans(),
)
@settings(max_examples=100)
def test_what_is_written_is_read(tmp_path_factory, records, width, line_end, packed):
    lines = []
    for name, rest, sequence in records:
        lines.append(f">{name}{rest}")
        lines += [sequence[i : i + width] for i in range(0, len(sequence), width)]
    data = line_end.join(lines).encode("utf-8")
    path = tmp_path_factory.getbasetemp() / "written.fna"
    source = source_of(path, gzip.compress(data) if packed else data)
    contigs = list(source.contigs())
    assert [(c.name, c.sequence.decode()) for c in contigs] == [(n, s) for n, _, s in records]
    assert source.sha256 == hashlib.sha256(path.read_bytes()).hexdigest()
    assert source.bytes_read == source.size_bytes == path.stat().st_size


@pytest.mark.parametrize("packed", [False, True])
def test_digest_and_progress_in_one_pass(fasta, packed):
    generator = random.Random(1)
    reads = (bytes(generator.choices(b"ACGT", k=200)) for _ in range(10_000))
    data = b"".join(b">r\n" + sequence + b"\n" for sequence in reads)
    data = gzip.compress(data, 1) if packed else data
    source = source_of(fasta, data)
    assert (source.bytes_read, source.size_bytes, source.sha256) == (0, len(data), "")
    seen = set()
    for _ in source.contigs():
        assert source.sha256 == "" or source.bytes_read == len(data)
        seen.add(source.bytes_read)
    assert len(seen) > 2
    assert source.bytes_read == len(data)
    assert source.sha256 == hashlib.sha256(data).hexdigest()


def test_bytes_after_the_gzip_stream_count(fasta):
    data = gzip.compress(b">a\nA\n") + b"\0" * 1_000_000
    source = source_of(fasta, data)
    assert len(list(source.contigs())) == 1
    assert source.sha256 == hashlib.sha256(data).hexdigest()


def test_reading_twice_gives_the_same(fasta):
    source = source_of(fasta, b">a\nACGT\n>b\nA\n")
    assert list(source.contigs()) == list(source.contigs())
    assert source.bytes_read == source.size_bytes


def test_no_locale_matters(fasta):
    fasta.write_bytes(">\u03bb \u00e9\nA\n".encode())
    program = (
        "import sys, pathlib; from virnucpro.reads import open_sources; "
        "[s] = open_sources([pathlib.Path(sys.argv[1])]); print(ascii(next(s.contigs()).name))"
    )
    environment = os.environ | {"LC_ALL": "C", "PYTHONUTF8": "0", "PYTHONCOERCECLOCALE": "0"}
    command = [sys.executable, "-c", program, str(fasta)]
    done = subprocess.run(command, env=environment, capture_output=True, text=True, check=True)
    assert done.stdout.strip() == ascii("\u03bb")


# Bad input


BARE_SAM = "a SAM without its header; write it with `samtools view -h`"
BARE_SAMS = [
    name + b"\t0\tchr1\t7\t60\t2S2=\t*\t0\t0\tACGT\tIIII\tNM:i:0\n"
    for name in (b"r1", b"{r", b"ID   r", b"NCBI.sra.1", b"\nr1")
] + [
    b"r1\t77\t*\t0\t0\t*\t*\t0\t0\tAC\t*\r\n",
    b"r1\t4\t*\t0\t0\t*\t*\t0\t0\t" + b"ACGT" * 40_000 + b"\t*\n",
]


@pytest.mark.parametrize(
    ("data", "line", "words"),
    [
        (b"ACGT\n", 1, "not FASTA"),
        (b"\n\nACGT\n>a\nA\n", 3, "not FASTA"),
        (b";old comment\n>a\nA\n", 1, "not FASTA"),
        (b"ACGT\n", 1, "; these are letters without a name: put a line '>NAME' before them"),
        (b"#c\nid,seq\na,ACGT\n", 2, "; this looks like a table: export its sequences"),
        (b"id\tseq\na\tACGT\n", 1, "; this looks like a table: export its sequences"),
        (b"hello\n>a\nACGT\n", 1, "; give FASTA, FASTQ, BAM or CRAM"),
        (b"\x89PNG\r\n", None, "this is a binary file; give FASTA, FASTQ, BAM or CRAM"),
        (b"%PDF-1.4\n\0", None, "this is a binary file; give"),
        (b"##fileformat=VCFv4.2\n#CHROM\n", None, "this is a VCF file, of variants; give FASTA"),
        (b"##gff-version 3\n", None, "this is a GFF file, of annotations; give FASTA"),
        (b"##gff-version 3\nc\t.\tgene\n##FASTA\n>c\nA\n", None, "this is a GFF file, of"),
        *((sam, None, f"this is {BARE_SAM}") for sam in BARE_SAMS),
        (b"c\t1\t9\tn\t0\t+\t1\t9\t0\t1\t9\t1\n", 1, "; this looks like a table: export"),
        (b"q\t7\t98.5\t150\t2\t0\t1\t150\t9\t158\t1e-70\t270\n", 1, "looks like a table"),
        (b"LOCUS       NC_1\n", None, "this is a GenBank file; get or export it as FASTA"),
        (
            b" \n<html>",
            None,
            "this is a web page; the download went wrong, so fetch the file itself",
        ),
        (b"\x01\x00\x02", None, "this is a binary file; give FASTA"),
        (gzip.compress(gzip.compress(b">a\nACGT\n", mtime=0), mtime=0), None, "compressed twice"),
        (
            b"PK\x03\x04",
            None,
            "a zip archive, or an Office document; unpack it, and name the files",
        ),
        (b"x" * 257 + b"ustar", None, "a tar archive"),
        (">a\nACGT".encode("utf-16"), None, "UTF-16"),
        (b">a\nACGT\n>p x\n\nAC\nMSTEQL\n", 6, "record 2 (p) holds the letter 'E'"),
        (b">a\nMSTEQL\n", 2, "looks like protein"),
        (">a\nACGT\n".encode("utf-16-le"), 2, "holds a zero byte, as text in UTF-16"),
        (
            b">a\nAC-GT\n",
            2,
            "the letter '-', which is no IUPAC nucleotide code: this looks like an",
        ),
        (b">a\nACGT*\n", 2, "the letter '*'"),
        (b">a\nAC>GT\n", 2, "the letter '>'"),
        (b">a\nA C\n", 2, "a space"),
        (b">a\r\nA\r\nX\r\n", 3, "the letter 'X'"),
        (b"#c\n>a\n#E\nAC\n\nAC\xc3\xa9T\n", 6, "the letter 'é'"),
        (b">a\nAC\xe9T\n", 2, "the letter 'é'"),
        (b">a\nAC\x1a41\n", 2, "the letter '\\x1a'"),
        (b">a\nAC\n>b\nAC>c\nGT\n", 4, "a line end is missing before it, perhaps where files"),
        (b">a\nAC\xef\xbb\xbfGT\n", 2, "a byte-order mark, which an editor left where files"),
    ],
)
def test_not_dna(fasta, data, line, words):
    with pytest.raises(InputError) as caught:
        read(fasta, data)
    assert not isinstance(caught.value, StreamBroken)
    assert caught.value.exit_code == 1
    assert (caught.value.path, caught.value.line) == (fasta, line)
    assert words in str(caught.value)
    assert str(caught.value).startswith(str(fasta))
    assert "\n" not in str(caught.value)


def test_a_bad_letter_in_record_100_stops_and_in_101_is_a_fault(fasta):
    good = b"".join(b">r%d\nACGT\n" % i for i in range(1, 100))
    with pytest.raises(InputError, match=r"line 200: record 100 \(bad\)"):
        read(fasta, good + b">bad\nACGE\n")
    contigs = read(fasta, good + b">r100\nA\n>bad\nAC\nGTE-\n>good\nA\n")
    assert [c.record for c in contigs] == list(range(1, 103))
    assert contigs[100].name == "bad"
    assert (contigs[100].sequence, contigs[100].length_nt) == (b"", 6)
    assert contigs[100].fault.startswith("it holds, at base 5, the letter 'E'")
    assert contigs[101] == Contig("reads", 102, "good", b"A", header="good")


def test_contigs_before_a_bad_letter_are_delivered(fasta):
    contigs = source_of(fasta, b">a\nACGT\n>b\nAEC\n").contigs()
    assert next(contigs).name == "a"
    with pytest.raises(InputError):
        next(contigs)


def packed_reads(count: int) -> tuple[bytes, list[bytes]]:
    generator = random.Random(2)
    reads = [bytes(generator.choices(b"ACGT", k=250)) for _ in range(count)]
    text = b"".join(b">r%d\n%s\n" % (i, r) for i, r in enumerate(reads, 1))
    return gzip.compress(text, 6), reads


@pytest.mark.parametrize("kept", [0.97, 0.5, 0.01, 0.0])
def test_a_truncated_gzip(fasta, kept):
    data, reads = packed_reads(2000)
    cut = data[: max(5, int(len(data) * kept))]
    source = source_of(fasta, cut)
    got: list[bytes] = []
    with pytest.raises(StreamBroken) as caught:
        sequences_until_error(source, got)
    complete = _complete_reads(cut)
    assert got == reads[:complete]
    last = f"after record {complete} (r{complete})" if complete else "before its first record"
    assert last in str(caught.value)
    assert source.sha256 == hashlib.sha256(cut).hexdigest()
    assert source.bytes_read == len(cut)


def sequences_until_error(source, got: list[bytes]) -> None:
    got.extend(contig.sequence for contig in source.contigs())


def _complete_reads(cut: bytes) -> int:
    """How many reads are followed by the header of another, of what zlib makes of the stream."""
    text = zlib.decompressobj(31).decompress(cut)
    ends = text.rfind(b"\n>")
    return text[: ends + 1].count(b">")


def test_a_gzip_cut_inside_its_trailer(fasta):
    data, reads = packed_reads(50)
    got: list[bytes] = []
    with pytest.raises(StreamBroken, match="after record 49"):
        sequences_until_error(source_of(fasta, data[:-3]), got)
    assert got == reads[:49]


@pytest.mark.parametrize("where", [0.3, 0.8])
def test_a_damaged_gzip(fasta, where):
    data, reads = packed_reads(2000)
    at = int(len(data) * where)
    damaged = data[:at] + bytes(64) + data[at + 64 :]
    source = source_of(fasta, damaged)
    got: list[bytes] = []
    with pytest.raises((StreamBroken, InputError)):
        sequences_until_error(source, got)
    intact = _complete_reads(data[:at])
    assert got[: intact - 1] == reads[: intact - 1]


def test_a_wrong_checksum(fasta):
    data, _ = packed_reads(20)
    source = source_of(fasta, data[:-8] + bytes(4) + data[-4:] + b"\0" * 600_000)
    with pytest.raises(StreamBroken, match="cut off or damaged after record 19"):
        list(source.contigs())
    assert source.sha256 == hashlib.sha256(fasta.read_bytes()).hexdigest()


def test_a_gzip_of_nonsense(fasta):
    with pytest.raises(StreamBroken, match="before its first record"):
        read(fasta, gzip.compress(b"")[:10] + b"\xff" * 1000)


# Paths and samples


def test_paths_that_cannot_be_read(tmp_path):
    with pytest.raises(InputError, match=r"missing\.fa: .*No such file"):
        open_sources([tmp_path / "missing.fa"])
    with pytest.raises(InputError, match="directory"):
        open_sources([tmp_path])
    with pytest.raises(InputError, match="cannot be read"):
        open_sources([tmp_path / ("x" * 300)])


@pytest.mark.skipif(os.geteuid() == 0, reason="root may read everything")
def test_a_file_without_permission(fasta):
    fasta.write_bytes(b">a\nA\n")
    fasta.chmod(0)
    with pytest.raises(InputError, match="Permission denied"):
        open_sources([fasta])


def test_a_file_that_goes_away(fasta):
    source = source_of(fasta, b">a\nA\n")
    fasta.unlink()
    with pytest.raises(InputError, match="before its first record"):
        list(source.contigs())


@pytest.mark.parametrize(
    ("file_name", "sample"),
    [
        ("a.fasta", "a"),
        ("a.FA.GZ", "a"),
        ("a.b.fna.gz", "a.b"),
        ("my.fa.sample 1.ffn", "my.fa.sample 1"),
        ("a.gz", "a"),
        ("a.fasta.fa", "a.fasta"),
        ("a.txt", "a.txt"),
        ("fasta", "fasta"),
        (".fa", ".fa"),
        ("\u00e9.fas", "\u00e9"),
        ("a\tb\nc.fsa", "a\ufffdb\ufffdc"),
        (os.fsdecode(b"\xff.fa"), "\ufffd"),
    ],
)
def test_sample_names(file_name, sample):
    assert sample_name(Path("some.fa") / file_name) == sample


def test_sample_given(fasta):
    fasta.write_bytes(b">a\nA\n")
    [source] = open_sources([fasta], sample="S1")
    assert [c.sample for c in source.contigs()] == ["S1"]


def test_two_inputs_of_one_sample_name(tmp_path):
    paths = [tmp_path / "x" / "contigs.fa", tmp_path / "y" / "contigs.fasta.gz"]
    for path in paths:
        path.parent.mkdir()
        path.write_bytes(b">a\nA\n")
    with pytest.raises(InputError, match="same sample name, contigs"):
        open_sources(paths)
    with pytest.raises(InputError, match="same sample name, S"):
        open_sources(paths, sample="S")


def test_real_genomes(shared):
    path = shared / "data" / "val" / "viral.fasta.gz"
    [source] = open_sources([path])
    contigs = list(source.contigs())
    with gzip.open(path, "rt") as file:
        headers = [line[1:].split()[0] for line in file if line.startswith(">")]
    assert [c.name for c in contigs] == headers
    assert source.sha256 == hashlib.sha256(path.read_bytes()).hexdigest()
