"""Notes on the letters of chunks: usual suspects by exact k-mers, and low complexity.

The suspects are control phages, cloning vectors and adapters of UniVec_Core and BBMap, in
suspects.fasta.gz beside this file (header `>accession|kind|name|source`). A k-mer of them that a
chunk has by chance is rare (24 letters); one that a natural sequence shares with a vector is not,
so a note says what a chunk looks like, and nothing is dropped for it.
"""

import gzip
from collections.abc import Iterator
from dataclasses import dataclass, replace
from functools import cache
from importlib import resources

import numpy as np
from numpy.typing import NDArray

from virnucpro.blocks import Texts
from virnucpro.calls import Scores
from virnucpro.classifiers.complexity import low_shares
from virnucpro.frames import UNKNOWN_LETTER, letter_codes

Int64 = NDArray[np.int64]
UInt8 = NDArray[np.uint8]
UInt64 = NDArray[np.uint64]

K = 24
# Of a long suspect every fourth k-mer is looked for, of a short one every one.
STEP = 4
SHORT_NT = 200
# A chunk is noted for a long suspect from this share of its k-mers on, for an adapter from this
# number, for low complexity from this share of its windows.
LEAST_KMERS = 0.5
FEWEST_KMERS = 4
MOST_EQUAL = 16
LEAST_WINDOWS = 0.5


@dataclass(frozen=True, slots=True)
class Note:
    """A value of the column note. least_share: of a record's bases in chunks that have it."""

    name: str
    least_share: float


LOW_COMPLEXITY = 128
ADAPTER = 32
NOTES = {
    1: Note("PhiX174", 0.5),
    2: Note("lambda", 0.5),
    4: Note("M13", 0.5),
    8: Note("SV40", 0.5),
    16: Note("vector", 0.5),
    ADAPTER: Note("adapter", 0.0),
    64: Note("artifact", 0.5),
    LOW_COMPLEXITY: Note("low_complexity", 0.5),
}
# Genomes that are there as a whole, by a part of their names.
_WHOLE = {
    "phi-X174": 1,
    "phiX174": 1,
    "Enterobacteria_phage_lambda": 2,
    "Bacteriophage_lambda": 2,
    "M13_genome": 4,
    "Simian_virus_40": 8,
}
_OF_KIND = {"adapter_or_primer": ADAPTER, "artifact": 64}
_LONG = tuple(bit for bit in NOTES if bit not in (ADAPTER, LOW_COMPLEXITY))
# A k-mer of several suspects counts for the first of these.
_ORDER = (1, 2, 4, 8, ADAPTER, 64, 16)
_FILTER_BITS = 23
_MIX = np.uint64(0x9E3779B97F4A7C15)
NOTE_TEXTS = [
    ",".join(note.name for bit, note in NOTES.items() if bits & bit) for bits in range(256)
]


def with_notes(scores: Scores, texts: Texts) -> Scores:
    """The same scores with notes on the letters of each called chunk; texts: the n chunks."""
    notes = np.zeros(len(texts), np.uint8)
    if len(called := np.flatnonzero(scores.called)):
        kept = Texts(texts.text, texts.offset[called], texts.length_nt[called])
        notes[called] = notes_of(kept)
    return replace(scores, notes=notes)


def notes_of(texts: Texts) -> UInt8:
    """Bits of NOTES of n chunks, (n,)."""
    notes = np.zeros(len(texts), np.uint8)
    if not len(texts):
        return notes
    codes = letter_codes(texts.text)
    notes[low_shares(codes, texts) >= LEAST_WINDOWS] |= LOW_COMPLEXITY
    kmers = np.maximum(texts.length_nt - K + 1, 0)
    position, bit = _suspects().found(codes)
    if not len(position):
        return notes
    end = texts.offset + kmers

    def count(which: int) -> Int64:
        here = position[bit == which]
        return np.searchsorted(here, end) - np.searchsorted(here, texts.offset)

    long = STEP * np.stack([count(which) for which in _LONG])
    least = LEAST_KMERS * np.maximum(kmers, 1)
    # The first that is enough by itself: a vector holds pieces of the phages before it.
    first = np.where(np.any(long >= least, axis=0), (long >= least).argmax(axis=0), long.argmax(0))
    seen = long.sum(axis=0) >= least
    notes[seen] |= np.array(_LONG, np.uint8)[first[seen]]
    # Vectors hold the sites of many primers, and primers runs of one letter.
    notes[(count(ADAPTER) >= FEWEST_KMERS) & (notes == 0)] = ADAPTER
    return notes


@dataclass(frozen=True, slots=True)
class _Suspects:
    """K-mers of the suspects, on both strands.

    kmers: (k,) ascending; bit: (k,) of NOTES; filter: whether some k-mer has a hash.
    """

    kmers: UInt64
    bit: UInt8
    filter: NDArray[np.bool_]

    def found(self, codes: UInt8) -> tuple[Int64, UInt8]:
        """Return where in a text suspects' k-mers begin, ascending, and the bit of each suspect."""
        kmers = _kmers(codes)
        where = np.flatnonzero(self.filter[_hashes(kmers)])
        place = np.searchsorted(self.kmers, kmers[where])
        place[place == len(self.kmers)] = 0
        same = self.kmers[place] == kmers[where]
        where, bit = where[same], self.bit[place[same]]
        unknown = np.cumsum(codes == UNKNOWN_LETTER, dtype=np.int64)
        known = unknown[where + K - 1] == unknown[where] - (codes[where] == UNKNOWN_LETTER)
        return where[known], bit[known]


@cache
def _suspects() -> _Suspects:
    records = sorted(_records(), key=lambda record: _ORDER.index(record[0]))
    text = b"N".join(sequence for _, sequence in records)
    length = np.array([len(sequence) for _, sequence in records], np.int64)
    of_record = np.repeat(np.arange(len(length)), np.minimum(length + 1, len(text)))[: len(text)]
    start = (np.cumsum(length + 1) - length - 1)[of_record]
    step = np.where(length < SHORT_NT, 1, STEP)[of_record]
    codes = letter_codes(text)
    unknown = np.concatenate(([0], np.cumsum(codes == UNKNOWN_LETTER, dtype=np.int64)))
    n = len(codes) - K + 1
    kept = (
        (unknown[K:] == unknown[:n])
        & ~_mostly_one_letter(codes)
        & ((np.arange(n) - start[:n]) % step[:n] == 0)
    )
    where = np.flatnonzero(kept)
    forward = _kmers(codes)[where]
    backward = _kmers(np.where(codes < UNKNOWN_LETTER, 3 - codes, codes)[::-1])[n - 1 - where]
    bit = np.array([bit for bit, _ in records], np.uint8)[of_record[where]]
    both = np.stack([forward, backward], axis=1).ravel()
    order = np.argsort(both, kind="stable")
    first = np.diff(both[order], prepend=~both[order][:1]) != 0
    kmers = both[order][first]
    table = np.zeros(1 << _FILTER_BITS, np.bool_)
    table[_hashes(kmers)] = True
    return _Suspects(kmers, np.repeat(bit, 2)[order][first], table)


def _mostly_one_letter(codes: UInt8) -> NDArray[np.bool_]:
    """Return whether the k-mer from each letter on is mostly A or mostly T: many primers end so."""
    most = np.zeros(len(codes) - K + 1, np.bool_)
    for letter in (0, 3):
        before = np.concatenate(([0], np.cumsum(codes == letter, dtype=np.int64)))
        most |= before[K:] - before[:-K] >= MOST_EQUAL
    return most


def _records() -> Iterator[tuple[int, bytes]]:
    """The bit and the letters of each suspect."""
    packed = resources.files("virnucpro.classifiers").joinpath("suspects.fasta.gz").read_bytes()
    header = ""
    for line in gzip.decompress(packed).decode("ascii").splitlines():
        if line.startswith(">"):
            header = line
        else:
            yield _bit_of(header), line.encode()


def _bit_of(header: str) -> int:
    _, kind, name, _ = header.split("|")
    if kind == "phage_or_virus":
        for part, bit in _WHOLE.items():
            if part in name:
                return bit
    return _OF_KIND.get(kind, 16)


def _kmers(codes: UInt8) -> UInt64:
    """The k-mer that begins at each letter, two bits a letter, (letters - K + 1,).

    A letter other than ACGT counts as an A.
    """
    found: UInt64 = (codes & 3).astype(np.uint64)
    for width in (1, 2, 4):  # words of 2, 4 and 8 letters
        found = (found[:-width] << np.uint64(2 * width)) | found[width:]
    eight, n = found, max(len(codes) - K + 1, 0)
    return (eight[:n] << np.uint64(32)) | (eight[8 : 8 + n] << np.uint64(16)) | eight[16 : 16 + n]


def _hashes(kmers: UInt64) -> UInt64:
    return (kmers * _MIX) >> np.uint64(64 - _FILTER_BITS)
