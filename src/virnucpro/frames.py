"""Chunk -> open frames: six-frame translation by table, with the published method's quirks.

open_frames is the plain reading of the rules and the oracle of the tests; open_frames_of does the
same for many chunks at once in numpy. A frame is dropped for any stop, also a terminal one; a codon
with a letter other than ACGT translates to nothing; no start codon is sought, so an open frame is
not an ORF. The published method has NCBI's table 1; in others a stop is read through. This module
knows no file, no contig and no encoder.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray

from virnucpro.calls import FRAME_NAMES

UInt8 = NDArray[np.uint8]
Int32 = NDArray[np.int32]
Int64 = NDArray[np.int64]

STOP = "*"
UNKNOWN_LETTER = 4
# NCBI's standard code, table 1, for the codons AAA, AAC, AAG, AAT, ACA, ... TTT.
AMINO_ACIDS = "KNKNTTTTRSRSIIMIQHQHPPPPRRRRLLLLEDEDAAAAGGGGVVVV*Y*YSSSS*CWCLFLF"
AMINO_ACID_OF = {
    first + second + third: AMINO_ACIDS[16 * i + 4 * j + k]
    for i, first in enumerate("ACGT")
    for j, second in enumerate("ACGT")
    for k, third in enumerate("ACGT")
}
# What other genetic codes read where table 1 has something else; starts do not matter here.
CODES: dict[int, dict[str, str]] = {
    1: {},
    4: {"TGA": "W"},
    11: {},
    15: {"TAG": "Q"},
    25: {"TGA": "G"},
}
STANDARD = 1
# Every letter but ACGT stays as it is, also the IUPAC codes that have a complement.
COMPLEMENT = str.maketrans("ACGT", "TGCA")


@dataclass(frozen=True, slots=True)
class Frame:
    """An open frame of one chunk; name is one of F1, F2, F3, R1, R2, R3.

    nucleotides is what a nucleotide encoder sees, upper case and on the strand of the frame;
    protein is what a protein encoder sees, one letter a codon that translates.
    """

    name: str
    nucleotides: str
    protein: str


@dataclass(frozen=True, slots=True)
class OpenFrames:
    """The m open frames of a list of chunks, ordered by chunk and then F1..R3.

    chunk: (m,) index of the chunk; frame: (m,) 0..5 for F1, F2, F3, R1, R2, R3; nucleotides and
    protein: m strings each, as in Frame.
    """

    chunk: Int32
    frame: UInt8
    nucleotides: list[str] = field(repr=False)
    protein: list[str] = field(repr=False)

    def __len__(self) -> int:
        return len(self.protein)


def open_frames(sequence: str, code: int = STANDARD) -> list[Frame]:
    """The open frames of one chunk, in the order F1, F2, F3, R1, R2, R3. code: one of CODES."""
    forward = sequence.upper()
    reverse = forward.translate(COMPLEMENT)[::-1]
    frames = []
    for name, strand in zip(FRAME_NAMES, (forward,) * 3 + (reverse,) * 3, strict=True):
        first = int(name[1]) - 1
        protein = _translate(strand[first:], AMINO_ACID_OF | CODES[code])
        if protein and STOP not in protein:
            frames.append(Frame(name, _nucleotides(strand[first:], len(protein)), protein))
    return frames


def _translate(strand: str, amino_acid_of: Mapping[str, str]) -> str:
    codons = (strand[i : i + 3] for i in range(0, len(strand) - 2, 3))
    return "".join(amino_acid_of.get(codon, "") for codon in codons)


def _nucleotides(strand: str, length_aa: int) -> str:
    # Published quirks: one base more than the codons where the strand has it, and counted from the
    # protein, so that codons that translate to nothing cut letters off the end.
    return strand[: 1 + 3 * length_aa]


def _byte_table(values: dict[str, int], other: int) -> bytes:
    """A table for bytes.translate: values for these letters in either case, other for the rest."""
    table = bytearray([other]) * 256
    for letter, value in values.items():
        table[ord(letter)] = table[ord(letter.lower())] = value
    return bytes(table)


_LETTER_CODE = _byte_table({"A": 0, "C": 1, "G": 2, "T": 3}, other=UNKNOWN_LETTER)
_COMPLEMENT = bytes.maketrans(b"ACGT", b"TGCA")
# A codon's code is the sum of three bytes: 0..63, or 64 and more where a letter is not of ACGT.
_CODON_PART = tuple(
    _byte_table({"A": 0, "C": place, "G": 2 * place, "T": 3 * place}, other=64)
    for place in (16, 4, 1)
)
DROPPED = "-"
_AMINO_ACID = {
    code: ("".join((AMINO_ACID_OF | other).values()) + DROPPED * 192).encode("ascii")
    for code, other in CODES.items()
}


def letter_codes(text: bytes) -> UInt8:
    """A, C, G, T in either case -> 0, 1, 2, 3 and everything else -> 4; a new array (letters,)."""
    return np.frombuffer(bytearray(text).translate(_LETTER_CODE), dtype=np.uint8)


def open_frames_by_code(text: bytes, offset: Int64, length_nt: Int64, code: UInt8) -> OpenFrames:
    """The same as open_frames_of, of chunks that each have a code, (n,)."""
    places = [np.flatnonzero(code == each) for each in np.unique(code)]
    parts = [
        open_frames_of(text, offset[place], length_nt[place], int(code[place[0]]))
        for place in places
    ]
    if len(parts) == 1:
        return parts[0]
    empty = [np.zeros(0, np.int64)]
    chunk = np.concatenate(empty + [p[f.chunk] for p, f in zip(places, parts, strict=True)])
    frame = np.concatenate([*(part.frame for part in parts), np.zeros(0, np.uint8)])
    nucleotides, proteins = (
        [text for part in parts for text in getattr(part, name)]
        for name in ("nucleotides", "protein")
    )
    order = np.lexsort((frame, chunk))
    return OpenFrames(
        chunk[order].astype(np.int32),
        frame[order],
        [nucleotides[i] for i in order.tolist()],
        [proteins[i] for i in order.tolist()],
    )


def open_frames_of(
    text: bytes, offset: Int64, length_nt: Int64, code: int = STANDARD
) -> OpenFrames:
    """The open frames of n chunks; chunk i is text[offset[i] : offset[i] + length_nt[i]].

    text is ASCII; chunks may overlap and come in any order. Equal to open_frames of every chunk,
    at a small part of its cost: each codon of the text is translated once per strand, stops are
    found by binary search, and strings are made for open frames only. Takes about 10 bytes of
    memory a letter of text, beside the result. Raises ValueError for a chunk outside the text.
    """
    if np.any(offset < 0) or np.any(length_nt < 0) or np.any(offset + length_nt > len(text)):
        raise ValueError(f"a chunk lies outside its text of {len(text)} letters")
    upper = text.upper()
    strands = upper + upper.translate(_COMPLEMENT)[::-1]
    begin_6N, end_6N = _frame_spans(len(text), offset, length_nt)
    amino_acids, phase_start = translate_by_phase(strands, code)
    first_6N = phase_start[begin_6N % 3] + begin_6N // 3
    last_6N = first_6N + (end_6N - begin_6N) // 3
    chunk, frame = np.nonzero(_are_open(amino_acids, first_6N, last_6N).T)
    proteins = _slices(amino_acids, first_6N[frame, chunk], last_6N[frame, chunk])
    if DROPPED in amino_acids:
        proteins = [protein.replace(DROPPED, "") for protein in proteins]
        kept = np.fromiter(map(bool, proteins), dtype=bool, count=len(proteins))
        chunk, frame, proteins = chunk[kept], frame[kept], [*filter(None, proteins)]
    length_aa = np.fromiter(map(len, proteins), dtype=np.int64, count=len(proteins))
    begin, end = begin_6N[frame, chunk], end_6N[frame, chunk]
    # The same published quirks as in _nucleotides.
    nucleotides = _slices(
        strands.decode("ascii"), begin, np.minimum(begin + 1 + 3 * length_aa, end)
    )
    return OpenFrames(chunk.astype(np.int32), frame.astype(np.uint8), nucleotides, proteins)


def _frame_spans(text_nt: int, offset: Int64, length_nt: Int64) -> tuple[Int64, Int64]:
    """Return where each frame begins and its strand of the chunk ends, on the text and then its
    reverse complement, which follows it at text_nt: two arrays (6, n)."""
    forward = offset
    reverse = 2 * text_nt - offset - length_nt
    begin_6N = np.stack([forward, forward + 1, forward + 2, reverse, reverse + 1, reverse + 2])
    end_6N = np.stack([forward + length_nt] * 3 + [reverse + length_nt] * 3)
    return begin_6N, end_6N


def translate_by_phase(strands: bytes, code: int) -> tuple[str, Int64]:
    """Return the amino acids of all codons that begin at 0, 3, 6, ..., then at 1, 4, 7, ... and at
    2, 5, 8, ...; and where each of the three parts starts, (3,).

    One letter a codon: DROPPED stands for one that translates to nothing, so that positions remain.
    strands: ASCII, upper case; code: one of CODES.
    """
    parts = [np.frombuffer(strands.translate(table), dtype=np.uint8) for table in _CODON_PART]
    codons = parts[0][:-2] + parts[1][1:-1] + parts[2][2:]
    phases = [codons[phase::3] for phase in range(3)]
    phase_start = np.cumsum([0] + [len(phase) for phase in phases[:-1]], dtype=np.int64)
    amino_acids = np.concatenate(phases).tobytes().translate(_AMINO_ACID[code])
    return amino_acids.decode("ascii"), phase_start


def _are_open(amino_acids: str, first: Int64, last: Int64) -> NDArray[np.bool_]:
    """Return whether amino_acids[first : last] has a codon at all and no stop, for each pair."""
    stops = np.flatnonzero(np.frombuffer(amino_acids.encode("ascii"), dtype=np.uint8) == ord(STOP))
    next_stop = np.append(stops, len(amino_acids))[np.searchsorted(stops, first)]
    return (first < last) & (next_stop >= last)


def _slices(text: str, first: Int64, last: Int64) -> list[str]:
    return [text[i:j] for i, j in zip(first.tolist(), last.tolist(), strict=True)]
