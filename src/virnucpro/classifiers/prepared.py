"""A block as it is prepared for the encoders: its open frames, and their tokens.

This module does not import torch and knows nothing of encoders.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Self

import numpy as np
from numpy.typing import NDArray

from virnucpro.blocks import Block, Texts
from virnucpro.calls import Status
from virnucpro.frames import open_frames_by_code, open_frames_of
from virnucpro.tokens import NucleotideTokenizer, TokenRows, protein_rows

UInt8 = NDArray[np.uint8]
Int32 = NDArray[np.int32]


@dataclass(frozen=True, slots=True)
class PreparedFrames:
    """The m open frames of n chunks, ready for the encoders.

    status: (n,) Status; chunk: (m,) index of the chunk, ascending; frame: (m,) 0..5 for F1, F2, F3,
    R1, R2, R3, ascending within a chunk; nucleotides, protein: m rows each.
    """

    status: UInt8
    chunk: Int32
    frame: UInt8
    nucleotides: TokenRows
    protein: TokenRows

    @classmethod
    def joined(cls, parts: Sequence["PreparedFrames"]) -> Self:
        """Chunks of one or more, one after the other: as if they had been prepared at once."""
        before = np.cumsum([0] + [len(part.status) for part in parts])
        chunk = [part.chunk + n for part, n in zip(parts, before[:-1], strict=True)]
        return cls(
            status=np.concatenate([part.status for part in parts]),
            chunk=np.concatenate(chunk).astype(np.int32),
            frame=np.concatenate([part.frame for part in parts]),
            nucleotides=TokenRows.joined([part.nucleotides for part in parts]),
            protein=TokenRows.joined([part.protein for part in parts]),
        )


class FramePreparation:
    """Prepares blocks for bundles of kind frames, with the tokenizer.json of a DNABERT-S.

    Raises BundleError where that is missing, damaged, or another tokenizer.
    """

    def __init__(self, tokenizer: Path | str) -> None:
        self._tokenizer = NucleotideTokenizer(tokenizer)

    def __call__(self, block: Block) -> PreparedFrames:
        """Prepare a block, its chunks in the order of its rows."""
        return self.of_texts(Texts.of_block(block))

    def of_texts(self, texts: Texts) -> PreparedFrames:
        """Prepare chunks, in their order."""
        if texts.code is None:
            frames = open_frames_of(texts.text, texts.offset, texts.length_nt)
        else:
            frames = open_frames_by_code(texts.text, texts.offset, texts.length_nt, texts.code)
        status = np.full(len(texts), Status.NO_OPEN_FRAME, np.uint8)
        status[frames.chunk] = Status.OK
        return PreparedFrames(
            status=status,
            chunk=frames.chunk,
            frame=frames.frame,
            nucleotides=self._tokenizer.rows(frames.nucleotides),
            protein=protein_rows(frames.protein),
        )
