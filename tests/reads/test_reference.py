"""References of a CRAM: read where they can be, and told apart from a damaged CRAM."""

import gzip
from pathlib import Path

import pysam
import pytest

from command import dna
from made_reads import alignment
from virnucpro.errors import InputError
from virnucpro.reads import Reading, open_sources

LETTERS = dna(3_000, "reference")
LINES = "".join(f"{LETTERS[i : i + 60]}\n" for i in range(0, 3_000, 60))
TEXT = f">ref\n{LINES}"
READS = [(f"q{i}", LETTERS[i : i + 100]) for i in range(20)]


@pytest.fixture
def cram(tmp_path, monkeypatch) -> Path:
    """A CRAM whose reference has gone from where it lay."""
    monkeypatch.setenv("REF_PATH", str(tmp_path / "nowhere"))
    monkeypatch.setenv("REF_CACHE", str(tmp_path / "nowhere"))
    made = tmp_path / "made"
    made.mkdir()
    (made / "ref.fa").write_text(TEXT)
    pysam.faidx(str(made / "ref.fa"))
    header = {"HD": {"VN": "1.6"}, "SQ": [{"SN": "ref", "LN": len(LETTERS)}]}
    name = str(made / "ref.fa")
    with pysam.AlignmentFile(
        tmp_path / "in.cram", "wc", header=header, reference_filename=name
    ) as file:
        for i, (read, letters) in enumerate(READS):
            file.write(alignment(file.header, read, letters, 0, i))
    made.rename(tmp_path / "gone")
    return tmp_path / "in.cram"


def told(cram: Path, reference: Path) -> list[tuple[str, str]]:
    (source,) = open_sources([cram], reading=Reading(reference=reference))
    return [(c.name, c.sequence.decode()) for c in source.contigs()]


def test_a_reference_without_an_index(cram, tmp_path):
    (tmp_path / "r.fa").write_text(TEXT)
    assert told(cram, tmp_path / "r.fa") == READS
    pysam.tabix_compress(str(tmp_path / "r.fa"), str(tmp_path / "b.fa.gz"))
    assert told(cram, tmp_path / "b.fa.gz") == READS


@pytest.mark.parametrize("packed", [False, True])
def test_a_reference_beside_which_no_index_can_be_made(cram, tmp_path, packed):
    path = tmp_path / "r.fa"
    path.write_text(TEXT)
    if packed:
        path = tmp_path / "b.fa.gz"
        pysam.tabix_compress(str(tmp_path / "r.fa"), str(path))
    Path(f"{path}.fai").mkdir()  # as good as a folder for reading only, and also so for root
    assert told(cram, path) == READS


def test_an_empty_index_is_made_again(cram, tmp_path):
    (tmp_path / "r.fa").write_text(TEXT)
    (tmp_path / "r.fa.fai").touch()
    assert told(cram, tmp_path / "r.fa") == READS


@pytest.mark.parametrize(
    ("data", "words"),
    [
        (gzip.compress(TEXT.encode()), "compressed by gzip, which has no index; unpack it, or"),
        (
            (TEXT[:90] + "\n" + TEXT[90:]).encode(),
            "cannot be indexed: it must be FASTA whose lines",
        ),
        (b"hello\n", "this reference cannot be indexed"),
        (b"", "this reference cannot be indexed"),
    ],
)
def test_a_reference_that_cannot_be_indexed_is_spoken_of(cram, tmp_path, data, words):
    path = tmp_path / "r.fa"
    path.write_bytes(data)
    with pytest.raises(InputError, match=words) as caught:
        told(cram, path)
    assert caught.value.path == path


def test_another_reference(cram, tmp_path):
    (tmp_path / "r.fa").write_text(TEXT.replace(">ref", ">other"))
    with pytest.raises(InputError, match=r"its reference is missing or another one"):
        told(cram, tmp_path / "r.fa")


def test_the_reference_of_an_input_that_needs_none_is_not_looked_at(tmp_path):
    (tmp_path / "in.sam").write_text("@HD\tVN:1.6\nr\t4\t*\t0\t0\t*\t*\t0\t0\tACGT\t*\n")
    (tmp_path / "r.fa").write_text("hello")
    assert told(tmp_path / "in.sam", tmp_path / "r.fa") == [("r", "ACGT")]
    assert not (tmp_path / "r.fa.fai").exists()
