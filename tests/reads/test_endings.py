"""Ends of files: one that is missing, and what lies behind one, is never silent."""

import bz2
import gzip
import lzma
from pathlib import Path

import pysam
import pytest
from backports import zstd

from command import dna, fasta, made_bundle, run_json, table, virnucpro
from made_reads import COMPRESSIONS, fastq, ubam
from virnucpro.errors import InputError, StreamBroken
from virnucpro.reads import Contig, Source, open_sources
from virnucpro.reads.bam import LEFT_OUT

READS = [(f"r{i}", dna(150, i)) for i in range(60)]
END_MARK = bytes.fromhex("1f8b08040000000000ff0600424302001b0003000000000000000000")
FILLER = (b"\r\n", b"\n\n\n", b"\0\n", b"\xff" * 600, b"\x1a")


@pytest.fixture(scope="module")
def bundle(tmp_path_factory) -> Path:
    return made_bundle(tmp_path_factory.mktemp("bundles") / "km", block_nt=20_000).path


def source_of(path: Path, data: bytes) -> Source:
    path.write_bytes(data)
    (source,) = open_sources([path])
    return source


def read(source: Source) -> tuple[list[tuple[str, str]], InputError | None]:
    got: list[Contig] = []
    try:
        got.extend(source.contigs())
    except InputError as error:
        return [(c.name, c.sequence.decode()) for c in got], error
    return [(c.name, c.sequence.decode()) for c in got], None


def bgzf(text: bytes, cuts: list[int]) -> bytes:
    """BGZF whose blocks end at these places, without its end mark."""
    blocks = b""
    for begin, end in zip([0, *cuts], [*cuts, len(text)], strict=True):
        packed = gzip.compress(text[begin:end], mtime=0)
        size = (len(packed) + 8 - 1).to_bytes(2, "little")
        extra = b"\x06\x00BC\x02\x00" + size
        blocks += packed[:3] + b"\x04" + packed[4:10] + extra + packed[10:]
    return blocks


def sam(reads: list[tuple[str, str]]) -> bytes:
    lines = "".join(f"{n}\t4\t*\t0\t0\t*\t*\t0\t0\t{s}\t*\n" for n, s in reads)
    return b"@HD\tVN:1.6\n" + lines.encode()


@pytest.mark.parametrize("form", [fasta, fastq, sam])
def test_bgzf_is_read_as_any_gzip_is(tmp_path, form):
    data = bgzf(form(READS), [1_000, 2_345]) + END_MARK
    source = source_of(tmp_path / "in", data)
    assert read(source) == (READS, None)
    assert not source.warnings
    with pysam.BGZFile(str(tmp_path / "in")) as file:
        assert file.read() == form(READS)


@pytest.mark.parametrize("form", [fasta, fastq, sam])
def test_bgzf_without_its_end_mark_is_told(tmp_path, form):
    source = source_of(tmp_path / "in", bgzf(form(READS), [1_000]))
    assert read(source) == (READS, None)
    ((path, told),) = source.warnings
    assert path == tmp_path / "in"
    assert told.startswith("this BGZF file lacks its end mark, as one that was cut off does")


def test_bgzf_that_ends_within_a_line_is_cut_off(tmp_path):
    text = fasta(READS)
    cut = text[: text.index(b">r40") + 50]
    got, error = read(source_of(tmp_path / "in", bgzf(cut, [1_000])))
    assert got == READS[:40]
    assert isinstance(error, StreamBroken)
    assert "the gzip stream is cut off or damaged after record 40 (r39)" in str(error)


def test_a_block_of_bgzf_that_is_damaged_is_no_end(tmp_path):
    blocks = [bgzf(fasta(READS[a : a + 20]), []) for a in (0, 20, 40)]
    damaged = blocks[0] + b"XX" + blocks[1][2:] + blocks[2] + END_MARK
    got, error = read(source_of(tmp_path / "in", damaged))
    assert got == READS[:19]
    assert "cut off or damaged after record 19" in str(error)


@pytest.mark.parametrize("packed", ["gzip", "bzip2", "xz", "zstd"])
@pytest.mark.parametrize("behind", FILLER)
def test_filler_behind_a_stream_loses_nothing_and_is_told(tmp_path, packed, behind):
    source = source_of(tmp_path / "in", COMPRESSIONS[packed](fasta(READS)) + behind)
    assert read(source) == (READS, None)
    ((_, told),) = source.warnings
    name = {"bzip2": "bzip2", "gzip": "gzip", "xz": "xz", "zstd": "zstd"}[packed]
    assert f"behind the end of the {name} stream are not part of it" in told


@pytest.mark.parametrize("packed", ["gzip", "bzip2", "xz", "zstd"])
@pytest.mark.parametrize("form", [fasta, fastq])
def test_other_bytes_behind_a_stream_end_the_run_after_its_records(tmp_path, packed, form):
    """They may be a damaged member, with records."""
    member = COMPRESSIONS[packed](form(READS[30:]))
    source = source_of(tmp_path / "in", COMPRESSIONS[packed](form(READS[:30])) + b"XX" + member[2:])
    got, error = read(source)
    assert got == READS[:30]
    assert isinstance(error, StreamBroken)
    assert f"the {len(member):,} bytes behind the end of the {packed} stream" in str(error)
    assert source.sha256


def test_padding_between_members_and_behind_them_is_passed_over(tmp_path):
    parts = [gzip.compress(fasta(READS[:30])), gzip.compress(fasta(READS[30:]))]
    source = source_of(tmp_path / "in", (b"\0" * 512).join([*parts, b""]))
    assert read(source) == (READS, None)
    assert not source.warnings


@pytest.mark.parametrize("behind", FILLER)
def test_filler_behind_a_bam(tmp_path, behind):
    data = ubam(tmp_path / "x.bam", READS).read_bytes()
    source = source_of(tmp_path / "in.bam", data + behind)
    assert read(source) == (READS, None)
    assert f"the {len(behind):,} bytes behind the end of the BAM file" in source.warnings[0][1]


def test_other_bytes_behind_a_bam(tmp_path):
    data = ubam(tmp_path / "x.bam", READS).read_bytes()
    got, error = read(source_of(tmp_path / "in.bam", data + b"hello" * 100_000))
    assert got == READS
    assert "the 500,000 bytes behind the end of the BAM file" in str(error)
    two = source_of(tmp_path / "in.bam", data + END_MARK)
    assert read(two) == (READS, None)
    assert not two.warnings


@pytest.mark.parametrize("filler", [b"\0" * 50, b"hello"])
def test_what_lies_behind_a_cram(tmp_path, filler):
    data = ubam(tmp_path / "x.cram", READS, mode="wc").read_bytes()
    source = source_of(tmp_path / "in.cram", data + filler)
    got, error = read(source)
    assert got == READS
    told = f"the {len(filler)} bytes behind the end of the CRAM file are not part of it"
    assert told in (str(error) if filler == b"hello" else source.warnings[0][1])
    got, error = read(source_of(tmp_path / "in.cram", data + data))
    assert got == READS
    assert f"the {len(data):,} bytes behind the end of the CRAM file" in str(error)


@pytest.mark.parametrize("times", [1, 40])
def test_bams_that_cat_joined_are_told(tmp_path, times):
    reads = READS * times
    data = ubam(tmp_path / "x.bam", reads).read_bytes()
    got, error = read(source_of(tmp_path / "in.bam", data + data))
    assert got == reads
    assert f"another BAM begins after record {len(reads)}, and only the first" in str(error)
    assert "samtools cat" in str(error)


def test_a_bam_in_an_ordinary_gzip_is_read(tmp_path):
    data = gzip.compress(gzip.decompress(ubam(tmp_path / "x.bam", READS).read_bytes()))
    source = source_of(tmp_path / "in.bam", data)
    assert read(source) == (READS, None)
    assert not source.warnings
    assert source.left_out == dict.fromkeys(LEFT_OUT, 0)
    got, error = read(source_of(tmp_path / "in.bam", data[:-600]))
    assert got == READS[: len(got)] != READS
    assert "the gzip stream is cut off or damaged after record" in str(error)


@pytest.mark.parametrize("end", [b"\r\n", b"\r", b"\r\r\n"])
@pytest.mark.parametrize("pack", [bytes, gzip.compress])
def test_lines_of_sam_end_in_any_way(tmp_path, end, pack):
    source = source_of(tmp_path / "in", pack(sam(READS).replace(b"\n", end)))
    assert read(source) == (READS, None)


def test_a_window_of_zstd_of_any_size_is_read(tmp_path):
    text = fasta(READS)
    for window in (27, 31):
        options = {zstd.CompressionParameter.window_log: window}
        packer = zstd.ZstdCompressor(options=options)
        data = packer.compress(text) + packer.flush()
        assert read(source_of(tmp_path / "in", data)) == (READS, None)


def test_what_zlib_read_before_a_wrong_checksum_is_kept(tmp_path):
    data = gzip.compress(fasta(READS))
    for broken in (data[:-8] + bytes(8), data[:-4] + b"\1\1\1\1"):
        got, error = read(source_of(tmp_path / "in", broken))
        assert got == READS[:-1]
        assert "cut off or damaged after record 59" in str(error)


def test_the_ends_of_blocks_fall_anywhere(tmp_path):
    """Members of every size, and line ends at their borders."""
    text = fasta(READS[:6]).replace(b"\n", b"\r\n")
    for size in (1, 2, 3, 7, 100):
        for pack in (gzip.compress, bz2.compress, lzma.compress, zstd.compress):
            if size < 7 and pack is lzma.compress:
                continue
            members = [pack(text[i : i + size]) for i in range(0, len(text), size)]
            assert read(source_of(tmp_path / "in", b"".join(members))) == (READS[:6], None)


def test_fastq_that_ends_within_qualities_keeps_its_letters(tmp_path):
    got, error = read(source_of(tmp_path / "in", fastq(READS)[:-10]))
    assert got == READS
    assert isinstance(error, StreamBroken)
    assert "the file ends within a record; record 60 (r59) is the last one" in str(error)


# Headers of alignments

LINE = "r0\t4\t*\t0\t0\t*\t*\t0\t0\tACGT\t*\n"


@pytest.mark.parametrize(
    "header",
    [
        "@HD\tSO:unsorted\tVN:1.6\n",
        "@SQ\tLN:10\tSN:x\n",
        "@RG\tSM:a\tID:b\n",
        "@CO\tanything at all\n",
        "@PG\tPN:x\tID:y\n",
        "@SQ\tSN:x\tLN:10\n@HD\tVN:1.6\n",
    ],
)
def test_sam_is_told_whatever_the_order_of_its_tags(tmp_path, header):
    source = source_of(tmp_path / "in", (header + LINE).encode())
    assert read(source) == ([("r0", "ACGT")], None)
    assert source.files[0].form == "SAM"


@pytest.mark.parametrize("name", ["HD", "SQ\tSN:x", "CO\ta"])
def test_fastq_whose_names_look_like_a_header_of_sam(tmp_path, name):
    source = source_of(tmp_path / "in", f"@{name}\nACGT\n+\nIIII\n".encode())
    assert [c.header for c in source.contigs()] == [name]


@pytest.mark.parametrize(
    ("header", "line"),
    [
        ("@HD\tVN:1.6\n@SQ\tSN:x\n", 2),
        ("@SQ\tLN:5\n", 1),
        ("@HD\tVN:1.6\n@RG\tSM:a\n", 2),
        ("@HD\tVN:1.6\n@RG\tID:a\tfoo\n", 2),
        ("@HD\tVN:1.6\n@PG\tPN:a\n", 2),
        ("@HD\tVN:1.6\n@\n", 2),
        ("@SQ\tSN:x\tLN:10\n@SQ\tSN:x\tLN:11\n", None),
    ],
)
def test_a_malformed_header_is_no_damage(tmp_path, header, line):
    got, error = read(source_of(tmp_path / "in", (header + LINE).encode()))
    assert not got
    assert not isinstance(error, StreamBroken)
    assert "malformed" in str(error)
    assert error.line == line


def test_a_line_of_sam_that_is_none_is_no_damage(tmp_path):
    text = b"@HD\tVN:1.6\n" + LINE.encode() + b"\n" + LINE.encode()
    got, error = read(source_of(tmp_path / "in", text))
    assert got == [("r0", "ACGT")]
    assert "the line after alignment 1 that was read is not one of SAM" in str(error)


@pytest.mark.parametrize("kept", [20, 30, 40, 60, 100])
def test_a_bam_that_is_cut_in_its_header_says_one_sentence(tmp_path, bundle, kept):
    data = ubam(tmp_path / "x.bam", READS).read_bytes()
    (tmp_path / "in.bam").write_bytes(data[:kept])
    out = tmp_path / "run"
    done = virnucpro("predict", tmp_path / "in.bam", "-o", out, "--bundle", bundle, "-q")
    assert done.code == 1
    assert "cut off or damaged before its first record was complete" in done.err
    assert len(done.err.splitlines()) == 2  # that no record was read, and this


# What a run says of them


def test_a_run_says_what_is_odd_about_an_end(tmp_path, bundle):
    (tmp_path / "in.fa.gz").write_bytes(bgzf(fasta(READS), [1_000]))
    out = tmp_path / "run"
    done = virnucpro("predict", tmp_path / "in.fa.gz", "-o", out, "--bundle", bundle)
    assert done.code == 0
    said = f"warning: {tmp_path / 'in.fa.gz'}: this BGZF file lacks its end mark"
    assert said in done.err
    assert said in (out / "log.txt").read_text()
    assert "this BGZF file lacks its end mark" in run_json(out)["inputs"][0]["warning"]
    done = virnucpro("validate", tmp_path / "in.fa.gz", "--bundle", bundle)
    assert (done.code, "lacks its end mark" in done.out + done.err) == (0, True)


def test_a_run_keeps_what_comes_before_other_bytes(tmp_path, bundle):
    (tmp_path / "in.fa.gz").write_bytes(gzip.compress(fasta(READS)) + b"hello")
    out = tmp_path / "run"
    done = virnucpro("predict", tmp_path / "in.fa.gz", "-o", out, "--bundle", bundle, "-q")
    assert done.code == 1
    assert "the 5 bytes behind the end of the gzip stream are not part of it" in done.error
    assert [row["contig"] for row in table(out / "contigs.tsv")] == [name for name, _ in READS]


@pytest.mark.parametrize("cut", [1, 9, 14, 20])
def test_a_sam_that_ends_within_its_header_was_cut_off(tmp_path, cut):
    header = b"@HD\tVN:1.6\n@RG\tID:a\tSM:lake\n"
    assert read(source_of(tmp_path / "whole.sam", header)) == ([], None)
    got, error = read(source_of(tmp_path / "cut.sam", header[:-cut]))
    assert got == []
    assert isinstance(error, StreamBroken)
    assert "is cut off or damaged before its first record was complete" in str(error)


def test_the_last_record_of_a_sam_needs_no_line_end(tmp_path):
    assert read(source_of(tmp_path / "x.sam", sam(READS)[:-1])) == (READS, None)


def test_a_sam_of_secondary_alignments_alone_needs_no_line_end(tmp_path):
    text = b"@HD\tVN:1.6\n@SQ\tSN:c\tLN:9000\nr\t256\tc\t1\t0\t4M\t*\t0\t0\tACGT\tIIII"
    assert read(source_of(tmp_path / "x.sam", text)) == ([], None)
