"""Codons of chunks, as a codon network and protein k-mers take them."""

import numpy as np
import torch

from virnucpro.classifiers.codon import frame_codons, padded_codons
from virnucpro.frames import UNKNOWN_LETTER, letter_codes


def codons_of(chunks, more=0):
    """Codons (B, 6, T) of chunks, padded to the longest of them, and further."""
    given = [chunk.encode() if isinstance(chunk, str) else chunk for chunk in chunks]
    codons = padded_codons(max(map(len, given))) + more
    codes = np.full((len(given), 3 * codons + 2), UNKNOWN_LETTER, np.uint8)
    for row, chunk in zip(codes, given, strict=True):
        row[: len(chunk)] = letter_codes(chunk)
    return frame_codons(torch.from_numpy(codes), torch.tensor([*map(len, given)]))
