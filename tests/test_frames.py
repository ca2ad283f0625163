import json

import numpy as np
import pytest
from Bio.Seq import Seq
from hypothesis import example, given, settings
from hypothesis import strategies as st

from virnucpro.calls import FRAME_NAMES
from virnucpro.frames import (
    CODES,
    Frame,
    letter_codes,
    open_frames,
    open_frames_by_code,
    open_frames_of,
)

ALPHABETS = ["ACGT", "ACGTN", "ACGTacgt", "ACGTURYSWKMBDHVNacgturyswkmbdhvn", "N", "GCA-*X?\t "]
# Few stops, so that most frames are open.
CODING = st.lists(st.sampled_from(["GCT", "ATG", "gga", "CAC", "NNN", "GN", "A"]), max_size=60)
dna = st.one_of(
    st.sampled_from(ALPHABETS).flatmap(lambda letters: st.text(letters, max_size=120)),
    CODING.map("".join),
)
ascii_text = st.text(st.characters(max_codepoint=127), max_size=60)


def frames_by_biopython(sequence: str, table: int = 1) -> list[Frame]:
    """The rules of section 1, with Biopython's table and its codons one by one."""
    forward = sequence.upper()
    reverse = "".join(dict(zip("ACGT", "TGCA", strict=True)).get(c, c) for c in reversed(forward))
    frames = []
    for name in FRAME_NAMES:
        strand = (forward if name[0] == "F" else reverse)[int(name[1]) - 1 :]
        codons = [strand[i : i + 3] for i in range(0, len(strand), 3)]
        read = [c for c in codons if len(c) == 3 and set(c) <= set("ACGT")]
        protein = str(Seq("".join(read)).translate(table=table))
        if protein and "*" not in protein:
            frames.append(Frame(name, strand[: 3 * len(protein) + 1], protein))
    return frames


def frames_of(text: bytes, spans: list[tuple[int, int]]) -> list[list[Frame]]:
    """The fast path, one list a chunk."""
    begin = np.array([start for start, _ in spans], dtype=np.int64)
    length = np.array([end - start for start, end in spans], dtype=np.int64)
    found = open_frames_of(text, begin, length)
    assert found.chunk.dtype == np.int32
    assert found.frame.dtype == np.uint8
    assert len(found) == len(found.chunk) == len(found.frame) == len(found.nucleotides)
    order = list(zip(found.chunk.tolist(), found.frame.tolist(), strict=True))
    assert order == sorted(set(order))
    chunks: list[list[Frame]] = [[] for _ in spans]
    for (chunk, frame), nt, aa in zip(order, found.nucleotides, found.protein, strict=True):
        chunks[chunk].append(Frame(FRAME_NAMES[frame], nt, aa))
    return chunks


@pytest.fixture(scope="module")
def golden_cases(golden) -> list[tuple[str, list[Frame]]]:
    cases = json.loads((golden / "frames.json").read_text())["cases"]
    assert len(cases) > 100
    return [
        (c["sequence"], [Frame(f["frame"], f["nucleotide"], f["protein"]) for f in c["frames"]])
        for c in cases
    ]


def test_golden_plain(golden_cases):
    for sequence, frames in golden_cases:
        assert open_frames(sequence) == frames


def test_golden_fast_one_by_one(golden_cases):
    for sequence, frames in golden_cases:
        assert frames_of(sequence.encode(), [(0, len(sequence))]) == [frames]


def test_golden_fast_in_one_text(golden_cases):
    text = "TA".join(sequence for sequence, _ in golden_cases).encode()
    spans, at = [], 0
    for sequence, _ in golden_cases:
        spans.append((at, at + len(sequence)))
        at += len(sequence) + 2
    assert frames_of(text, spans) == [frames for _, frames in golden_cases]


@given(dna)
@settings(max_examples=300)
def test_plain_equals_biopython(sequence):
    assert open_frames(sequence) == frames_by_biopython(sequence)


@given(st.text(max_size=60))
def test_plain_on_any_text(sequence):
    """TRAP D8."""
    assert open_frames(sequence) == frames_by_biopython(sequence)


@st.composite
def texts_and_spans(draw):
    text = draw(st.one_of(dna, ascii_text))
    edge = st.integers(0, len(text))
    spans = draw(st.lists(st.tuples(edge, edge).map(lambda pair: tuple(sorted(pair))), max_size=12))
    return text, spans


@given(texts_and_spans())
@settings(max_examples=500)
@example(("", []))
@example(("", [(0, 0), (0, 0)]))
@example(("GC", [(0, 2), (2, 2)]))
@example(("GCTAGCTAGC" * 3, [(20, 30), (0, 30), (3, 9), (3, 9)]))
@example(("N" * 30, [(0, 30), (5, 25)]))
@example(("GCTNNNGCAGC", [(0, 11), (1, 11), (0, 10), (0, 9)]))
def test_fast_equals_plain(case):
    """TRAP D8."""
    text, spans = case
    expected = [open_frames(text[start:end]) for start, end in spans]
    assert frames_of(text.encode("ascii"), spans) == expected


def test_every_codon():
    for first in "ACGT":
        for second in "ACGT":
            for third in "ACGT":
                codon = first + second + third
                protein = str(Seq(codon).translate(table=1))
                expected = [] if protein == "*" else [Frame("F1", codon, protein)]
                for frames in (open_frames(codon), frames_of(codon.encode(), [(0, 3)])[0]):
                    assert frames[: len(expected)] == expected
                    assert [f.name for f in frames[len(expected) :]] in ([], ["R1"])


def test_a_stop_anywhere_closes_the_frame():
    for stop in ("TAA", "TAG", "TGA", "taa"):
        for codons in range(4):
            chunk = "GCC" * codons + stop + "GCC" * (3 - codons)
            assert "F1" not in [frame.name for frame in open_frames(chunk)]
            assert "F1" not in [f.name for f in frames_of(chunk.encode(), [(0, 12)])[0]]


def test_a_stop_outside_the_chunk_or_frame_does_not():
    text = b"TAAGCCGCCGCCTAA"
    assert frames_of(text, [(3, 12)])[0][0] == Frame("F1", "GCCGCCGCC", "AAA")
    assert frames_of(text, [(3, 13)])[0][0] == Frame("F1", "GCCGCCGCCT", "AAA")


def test_dropped_codons_shorten_the_nucleotides_at_the_end():
    assert open_frames("GCTNNNCATCA")[0] == Frame("F1", "GCTNNNC", "AH")


def test_lists_of_no_chunks_or_no_frames():
    assert frames_of(b"ACGT", []) == []
    assert frames_of(b"N" * 600, [(0, 300), (300, 600)]) == [[], []]


@pytest.mark.parametrize(("offset", "length_nt"), [(-1, 3), (0, 5), (5, 0), (3, -1)])
def test_a_chunk_outside_its_text(offset, length_nt):
    with pytest.raises(ValueError, match="outside its text of 4 letters"):
        open_frames_of(b"ACGT", np.array([offset]), np.array([length_nt]))


def test_real_genomes(shared):
    import gzip

    with gzip.open(shared / "data" / "val" / "viral.fasta.gz", "rt") as file:
        text = "".join(line.strip() for line in file if not line.startswith(">"))[:60_000]
    spans = [(i, min(i + 300, len(text))) for i in range(0, len(text), 293)]
    frames = frames_of(text.encode(), spans)
    assert frames == [open_frames(text[start:end]) for start, end in spans]
    assert sum(map(len, frames)) > 100


@given(st.binary(max_size=80))
def test_letter_codes(text):
    codes = letter_codes(text)
    expected = ["ACGT".find(chr(b).upper()) if b < 128 else -1 for b in text]
    assert codes.tolist() == [4 if code < 0 else code for code in expected]
    assert codes.dtype == np.uint8
    codes[:] = 0  # may be written to


@given(dna, st.sampled_from([*CODES]))
@example("TGATAGTAATGATAGTAA", 25)
def test_every_genetic_code_is_the_one_of_ncbi(sequence, code):
    expected = frames_by_biopython(sequence, code)
    assert open_frames(sequence, code) == expected
    found = open_frames_of(
        sequence.encode(), np.zeros(1, np.int64), np.array([len(sequence)]), code
    )
    names = [FRAME_NAMES[frame] for frame in found.frame.tolist()]
    made = map(Frame, names, found.nucleotides, found.protein)
    assert [*made] == expected


@given(st.lists(st.tuples(dna, st.sampled_from([*CODES])), max_size=6))
def test_chunks_of_several_codes_keep_their_order(chunks):
    text = "".join(sequence for sequence, _ in chunks)
    length = np.array([len(sequence) for sequence, _ in chunks], np.int64)
    code = np.array([code for _, code in chunks], np.uint8)
    found = open_frames_by_code(text.encode(), np.cumsum(length) - length, length, code)
    assert found.chunk.dtype == np.int32
    assert found.frame.dtype == np.uint8
    expected = [
        (i, frame.name, frame.nucleotides, frame.protein)
        for i, (sequence, code) in enumerate(chunks)
        for frame in open_frames(sequence, code)
    ]
    names = [FRAME_NAMES[frame] for frame in found.frame.tolist()]
    got = zip(found.chunk.tolist(), names, found.nucleotides, found.protein, strict=True)
    assert [*got] == expected
