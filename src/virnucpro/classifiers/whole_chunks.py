"""Bundles of kind chunks: a codon network and a head score a chunk as a whole.

Shapes: n chunks, B of a batch, L letters, T codons.
"""

from collections.abc import Iterator, Mapping, Sequence

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from virnucpro.batches import Block
from virnucpro.bundle import Bundle
from virnucpro.calls import FRAME_NAMES, Scores, Status
from virnucpro.encoders.codon import (
    CodonNetwork,
    canonical_codes,
    frame_codons,
    load_codon_network,
    padded_codons,
    unflip_frames,
)
from virnucpro.encoders.precision import dtype_of
from virnucpro.frames import UNKNOWN_LETTER, letter_codes
from virnucpro.texts import Texts, chunk_status, whole_chunk_scores

WEIGHTS = "codon.safetensors"
ALL_FRAMES = (1 << len(FRAME_NAMES)) - 1
# Codons of a batch, of all six frames: 32 chunks of 500 nt on a CPU, where more gains nothing.
BATCH_CODONS = {"cpu": 32_256, "cuda": 2_064_384}

Float64 = NDArray[np.float64]
Int64 = NDArray[np.int64]
UInt8 = NDArray[np.uint8]


class ChunkClassifier:
    """A codon network with its head, on its device."""

    def __init__(self, bundle: Bundle, device: str, precision: str) -> None:
        self.name = bundle.name
        self.precision = precision
        self.device = device
        self.attention: Mapping[str, str] = {}
        self._min_nt = bundle.min_nt
        self._validated_nt = bundle.validated_nt
        self._budget = BATCH_CODONS[torch.device(device).type]
        self._network: CodonNetwork = load_codon_network(
            bundle.file(WEIGHTS), bundle.part("codon"), dtype_of(precision), torch.device(device)
        )

    def score_block(self, block: Block) -> Scores:
        """Scores of the chunks of a block, in the order of its rows."""
        return self._score(Texts.of_block(block))

    def score(self, chunks: Sequence[str]) -> Scores:
        """Scores of chunks given as text, in any case, U read as T."""
        return self._score(Texts.of_strings(chunks))

    def _score(self, texts: Texts) -> Scores:
        codes = letter_codes(texts.text)
        status = chunk_status(codes, texts, self._min_nt, self._validated_nt)
        called = np.flatnonzero(status <= Status.BELOW_VALIDATED_LENGTH)
        p_virus = np.full(len(texts), np.nan)
        frame = np.zeros(len(texts), np.uint8)
        for rows in _of_one_padded_length(texts.length_nt, called):
            codes_nL = _padded(codes, texts.offset[rows], texts.length_nt[rows])
            p_virus[rows], frame[rows] = self._distinct(codes_nL, texts.length_nt[rows])
        return whole_chunk_scores(status, p_virus, frame, ALL_FRAMES)

    def _distinct(self, codes_nL: UInt8, length_n: Int64) -> tuple[Float64, UInt8]:
        """P(virus) and heaviest frame of each row; rows that are equal on a strand, once."""
        lengths = torch.from_numpy(length_n)
        canonical, flipped = canonical_codes(torch.from_numpy(codes_nL), lengths)
        place: dict[bytes, int] = {}
        index = np.array([place.setdefault(row.tobytes(), len(place)) for row in canonical.numpy()])
        first = torch.from_numpy(np.unique(index, return_index=True)[1])
        rows_a_batch = max(1, self._budget // (len(FRAME_NAMES) * padded_codons(int(length_n[0]))))
        parts = [
            self._forward(canonical[rows], lengths[rows]) for rows in first.split(rows_a_batch)
        ]
        p_virus = torch.cat([p_virus_B for p_virus_B, _ in parts]).numpy()
        weight_n6 = torch.cat([weight_B6 for _, weight_B6 in parts])[torch.from_numpy(index)]
        frame = unflip_frames(weight_n6, flipped).argmax(1).to(torch.uint8).numpy()
        return p_virus[index].astype(np.float64), frame

    def _forward(self, codes_BL: Tensor, length_B: Tensor) -> tuple[Tensor, Tensor]:
        codes_BL, length_B = codes_BL.to(self.device), length_B.to(self.device)
        with torch.inference_mode():
            p_virus_B, weight_B6 = self._network.probabilities(frame_codons(codes_BL, length_B))
        return p_virus_B.cpu(), weight_B6.cpu()


def _of_one_padded_length(length_nt: Int64, rows: NDArray[np.intp]) -> Iterator[NDArray[np.intp]]:
    """The given rows, grouped by what their chunks are padded to, the longest first."""
    padded = np.array([padded_codons(n) for n in length_nt[rows].tolist()], np.int64)
    for codons in np.unique(padded)[::-1]:
        yield rows[padded == codons]


def _padded(codes: UInt8, offset_n: Int64, length_n: Int64) -> UInt8:
    """Letter codes of n chunks as one array (n, 3 * T + 2), filled up with N."""
    position = np.arange(3 * padded_codons(int(length_n[0])) + 2)
    inside = position < length_n[:, None]
    where = np.minimum(offset_n[:, None] + position, len(codes) - 1)
    return np.where(inside, codes[where], UNKNOWN_LETTER).astype(np.uint8)
