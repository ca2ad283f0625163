"""Which sequences a bundle was trained on, as a sketch of their 31-mers that a bundle can hold.

FracMinHash (Irber et al. 2022, bioRxiv 2022.01.11.475838): of all canonical 31-mers those stay
whose hash is among the lowest 1 in 2,000, so that the share of one set that is in another can be
estimated from two sketches. A bundle may lack the file.
"""

from collections.abc import Iterable

import numpy as np
from numpy.typing import NDArray

from virnucpro.bundle.manifest import Bundle
from virnucpro.bundle.write import write_into

SKETCH = "sketch.safetensors"
K = 31
ONE_IN = 2_000
_HASHES = "hashes"
_LOWEST = np.uint64(2**64 // ONE_IN)
_AT_ONCE_NT = 1 << 22
_CODES = np.full(256, 4, np.uint8)
_CODES[np.frombuffer(b"ACGTacgt", np.uint8)] = [0, 1, 2, 3] * 2
# Powers of two that 31 is the sum of.
_PARTS = (16, 8, 4, 2, 1)

Hashes = NDArray[np.uint64]


def sketch_of(sequences: Iterable[bytes]) -> Hashes:
    """Return the sketch of DNA, ascending. 31-mers with other letters than ACGT are passed over."""
    found = [np.zeros(0, np.uint64)]
    for sequence in sequences:
        for begin in range(0, len(sequence), _AT_ONCE_NT):
            hashes = _hashes(sequence[begin : begin + _AT_ONCE_NT + K - 1])
            found.append(hashes[hashes < _LOWEST])
    return np.unique(np.concatenate(found))


def add_sketch(bundle: Bundle, sequences: Iterable[bytes]) -> Bundle:
    """Return a bundle with the sketch of what it was trained on among its files."""
    return write_into(bundle, {}, {SKETCH: {_HASHES: sketch_of(sequences)}})


def training_sketch(bundle: Bundle) -> Hashes | None:
    """Return the sketch in a bundle; None if it has none. Raises BundleError."""
    return bundle.arrays(SKETCH)[_HASHES] if SKETCH in bundle.files else None


def share_known(sketch: Hashes, sequences: Iterable[bytes]) -> float | None:
    """Return which share of the 31-mers of sequences a sketch knows; None if they are too few."""
    mine = sketch_of(sequences)
    return float(np.isin(mine, sketch, assume_unique=True).mean()) if len(mine) else None


def _hashes(sequence: bytes) -> Hashes:
    """Return a hash of each canonical 31-mer, by its place."""
    codes = _CODES[np.frombuffer(sequence, np.uint8)]
    count = len(codes) - K + 1
    if count < 1:
        return np.zeros(0, np.uint64)
    unknown = np.concatenate([[0], np.cumsum(codes == 4)])
    known = unknown[K:] == unknown[:-K]
    letters = np.where(codes == 4, 0, codes).astype(np.uint64)
    forward = _words(letters)
    reverse = _words(np.uint64(3) - letters[::-1])[::-1]
    return _mixed(np.minimum(forward, reverse)[known])


def _words(letters: Hashes) -> Hashes:
    """Return each 31 letters that follow each other as one number, two bits a letter."""
    count = len(letters) - K + 1
    by_length, length = {1: letters}, 1
    while length < max(_PARTS):
        half = by_length[length]
        by_length[2 * length] = half[:-length] << np.uint64(2 * length) | half[length:]
        length *= 2
    words, place = np.zeros(count, np.uint64), 0
    for length in _PARTS:
        words = words << np.uint64(2 * length) | by_length[length][place : place + count]
        place += length
    return words


def _mixed(words: Hashes) -> Hashes:
    """Return the finaliser of SplitMix64 (Steele et al. 2014), which is one to one."""
    words = (words ^ words >> np.uint64(30)) * np.uint64(0xBF58476D1CE4E5B9)
    words = (words ^ words >> np.uint64(27)) * np.uint64(0x94D049BB133111EB)
    return words ^ words >> np.uint64(31)
