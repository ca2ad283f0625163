"""FASTA and FASTQ as they occur."""

from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from command import dna, fasta
from made_reads import fastq
from virnucpro.reads import Source, open_sources
from virnucpro.reads.text import whole_lines

READS = [("a x", "ACGT"), ("b", "GGTTN")]
MARK = b"\xef\xbb\xbf"


def source_of(path: Path, data: bytes) -> Source:
    path.write_bytes(data)
    (source,) = open_sources([path])
    return source


def told(source: Source) -> list[tuple[str, str]]:
    return [(c.header, c.sequence.decode()) for c in source.contigs()]


@pytest.mark.parametrize(
    "data",
    [
        b"@a x\nACGT\n+a\nIIII\n@b\nGGTTN\n+\nIIIII\n",
        b"@a x\nACGT\n+anything at all\nIIII\n@b\nGGTTN\n+b\nIIIII\n",
        b"@a x\nACGT\n+\nIII\n@b\nGGTTN\n+\nIIIIIII\n",
        b"@a x\nACGT\n+\n\n@b\nGGTTN\n+\n*\n",
        b"@a x\nACGT\n+\n@b@c\n@b\nGGTTN\n+\n\xff\xff \t\x00\n",
        b"@a x\nACGT\n+\nIIII\n\n\n@b\nGGTTN\n+\nIIIII\n\n",
        b"\n \n@a x\n ACGT \n+\nIIII\n@b\nGGTT.\n+\nIIII!\n",
        b"@a x\nACGT\n+\nIIII\n@b\nGGTTN\n+\nIIIII",
    ],
)
@pytest.mark.parametrize("end", [b"\n", b"\r\n", b"\r", b"\r\r\n"])
def test_the_third_and_fourth_line_of_fastq_are_nothing_to_a_record(tmp_path, data, end):
    assert told(source_of(tmp_path / "in", data.replace(b"\n", end))) == READS


def test_a_read_without_letters(tmp_path):
    for data in (b"@a\n\n+\n\n@b\nAC\n+\nII\n", b"@b\nAC\n+\nII\n@a\n\n+\n\n", b"@a\n\n+\n"):
        source = source_of(tmp_path / "in", data)
        assert dict(told(source))["a"] == ""


def test_points_stand_for_n_in_fastq_alone(tmp_path):
    assert told(source_of(tmp_path / "in", b"@a\n..AC.\n+\nIIIII\n")) == [("a", "NNACN")]
    with pytest.raises(Exception, match="this looks like an alignment"):
        told(source_of(tmp_path / "in", b">a\n..AC.\n"))


@pytest.mark.parametrize("form", [fasta, fastq])
@pytest.mark.parametrize("between", [MARK, b"\n" + MARK, MARK + MARK])
def test_byte_order_marks_where_files_were_joined(tmp_path, form, between):
    parts = [form([read]) for read in READS]
    whole = MARK + parts[0] + between + parts[1]
    assert told(source_of(tmp_path / "in", whole)) == READS
    without_end = MARK + parts[0].rstrip(b"\n") + between + parts[1]
    assert told(source_of(tmp_path / "in", without_end)) == READS


def test_fastq_that_was_joined_without_a_line_end(tmp_path):
    with pytest.raises(Exception, match="a line end may be missing where two files were joined"):
        told(source_of(tmp_path / "in", fastq(READS).rstrip(b"\n") + fastq(READS)))


ends = st.sampled_from(["\n", "\r\n", "\r"])


class Slow:
    """A stream that gives so many bytes at a time."""

    def __init__(self, data: bytes, size: int) -> None:
        self.data, self.size = data, size

    def read1(self, _: int) -> bytes:
        data, self.data = self.data[: self.size], self.data[self.size :]
        return data


@given(st.lists(st.tuples(st.text("ab\u00e9", max_size=4), ends)), st.integers(1, 5))
@settings(max_examples=200)
def test_lines_are_the_same_however_they_come(lines, size):
    text = "".join(line + end for line, end in lines)
    blocks = list(whole_lines(Slow(text.encode(), size)))
    assert all(block.endswith(b"\n") for block in blocks)
    # Carriage returns before a line end belong to it.
    expected = [line for line in _lines(text) if line]
    assert [line for line in b"".join(blocks).decode().split("\n") if line] == expected


def _lines(text: str) -> list[str]:
    return text.replace("\r\n", "\n").replace("\r", "\n").split("\n")


def test_a_record_over_many_blocks(tmp_path):
    long = dna(300_000)
    for width in (60, 400_000):
        lines = "\n".join(long[i : i + width] for i in range(0, len(long), width))
        data = f">x\nAC\n>long\n{lines}\n>y\nGT".encode()
        assert told(source_of(tmp_path / "in", data)) == [("x", "AC"), ("long", long), ("y", "GT")]
    assert told(source_of(tmp_path / "in", fastq([("long", long)]))) == [("long", long)]


def test_a_zero_byte_behind_byte_order_marks_does_not_make_it_foreign(tmp_path):
    for mark in (MARK, MARK + MARK, b"\n" + MARK):
        data = mark + b"@a\nACGT\n+\nII\0I\n"
        assert told(source_of(tmp_path / "in", data)) == [("a", "ACGT")]
