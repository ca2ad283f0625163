"""Which genetic code a record is read by: the one that makes its open frames much longer.

For each code every letter has the longest stretch without a stop that covers it, in any of the six
frames; the mean of these over the record is what codes are compared by. In a genome that reads a
stop through, it grows several times over; elsewhere reading one of three stops through lengthens
frames by half or so. Tables 4 and 25 have the same stops, so 25 is never told from 4, nor 11 from
1. This module knows lengths and letters only, and a record as a whole.
"""

import numpy as np
from numpy.typing import NDArray

from virnucpro.frames import AMINO_ACID_OF, CODES, COMPLEMENT, STANDARD, STOP, letter_codes
from virnucpro.reads import letters

UInt8 = NDArray[np.uint8]
Int32 = NDArray[np.int32]

AUTO = "auto"
CHOICES = (*map(str, CODES), AUTO)
# Told apart by their stops.
TOLD = (STANDARD, 4, 15)
# Frames must be so many times as long as by the standard code, and so many codons, and a record
# have so many letters: chosen on records of val, see bench/recoded.py.
MARGIN = 3.5
FEWEST_CODONS = 200
# By the standard code recoded genomes have shorter frames (177 codons at most, of those at hand);
# where most stops are TGA, as in phages rich in G and C, reading it through joins whole genes.
MOST_CODONS_BY_STANDARD = 200
SHORTEST_NT = 1000
# Of a longer record its beginning tells.
LOOKED_AT_NT = 1_000_000

_CODON = 64


def code_of(sequence: bytes, choice: str) -> int:
    """Return the code of a record. choice: one of CHOICES."""
    return told_code(sequence) if choice == AUTO else int(choice)


def told_code(sequence: bytes) -> int:
    """Return the code of a record by its open frames; the standard one where they do not tell."""
    if len(sequence) < SHORTEST_NT:
        return STANDARD
    codons = codons_of(letter_codes(letters(sequence[:LOOKED_AT_NT])))
    lengths = {code: mean_open(codons, code) for code in TOLD}
    if lengths[STANDARD] > MOST_CODONS_BY_STANDARD:
        return STANDARD
    best = max(TOLD, key=lambda code: lengths[code])
    enough = max(FEWEST_CODONS, MARGIN * lengths[STANDARD])
    return best if lengths[best] >= enough else STANDARD


def mean_open(codons: UInt8, code: int) -> float:
    """Return the mean, in codons, of the longest open stretch over each letter."""
    longest = np.zeros(len(codons), np.int32)
    for stops in _stops(code):
        is_stop = stops[codons]
        for phase in range(3):
            covered = np.repeat(_open_lengths(is_stop[phase::3]), 3)[: len(codons) - phase]
            part = longest[phase : phase + len(covered)]
            np.maximum(part, covered, out=part)
    return float(longest.mean()) if len(longest) else 0.0


def codons_of(codes: UInt8) -> UInt8:
    """Return the codon that begins at each letter, 16a + 4b + c; 64 with another than ACGT."""
    first, second, third = codes[:-2], codes[1:-1], codes[2:]
    known = (first < 4) & (second < 4) & (third < 4)
    return np.where(known, 16 * first + 4 * second + third, _CODON).astype(np.uint8)


def _stops(code: int) -> tuple[NDArray[np.bool_], NDArray[np.bool_]]:
    """Return which codons end a frame of the forward strand, and of the reverse one, (65,) each."""
    amino_acid_of = AMINO_ACID_OF | CODES[code]
    forward = [amino == STOP for amino in amino_acid_of.values()]
    reverse = [amino_acid_of[codon.translate(COMPLEMENT)[::-1]] == STOP for codon in amino_acid_of]
    return np.array([*forward, True]), np.array([*reverse, True])


def _open_lengths(is_stop: NDArray[np.bool_]) -> Int32:
    """The length of the open stretch that each codon of one frame lies in, 0 for a stop, (n,)."""
    ends = np.concatenate(([-1], np.flatnonzero(is_stop), [len(is_stop)]))
    lengths = np.diff(ends) - 1
    covered = np.repeat(lengths, lengths + 1)[: len(is_stop)]
    return np.where(is_stop, 0, covered).astype(np.int32)
