"""A block as it is prepared for the encoders: its open frames, and their tokens.

Texts and PreparedFrames travel between processes as a JSON header and the bytes of their arrays.
This module does not import torch and knows nothing of encoders.
"""

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Self

import numpy as np
from numpy.typing import NDArray

from virnucpro.blocks import Block, Texts
from virnucpro.calls import Status
from virnucpro.frames import open_frames_by_code, open_frames_of
from virnucpro.tokens import NucleotideTokenizer, TokenRows, protein_rows

UInt8 = NDArray[np.uint8]
Int32 = NDArray[np.int32]

_TOKENS = ("ids", "begin", "place")


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

    def to_bytes(self) -> bytes:
        """Return bytes for from_bytes in another process: 2 bytes a token, 29 an open frame, 1 a
        chunk, and less than 500."""
        arrays: dict[str, NDArray[np.generic]] = {
            name: getattr(self, name) for name in ("status", "chunk", "frame")
        }
        for name, rows in (("nucleotides", self.nucleotides), ("protein", self.protein)):
            arrays |= {f"{name}.{part}": getattr(rows, part) for part in _TOKENS}
        return _to_bytes(arrays)

    @classmethod
    def from_bytes(cls, data: bytes) -> Self:
        """The inverse of to_bytes."""
        arrays = _from_bytes(data)
        nucleotides, protein = (
            TokenRows(*(arrays[f"{name}.{part}"] for part in _TOKENS))
            for name in ("nucleotides", "protein")
        )
        return cls(arrays["status"], arrays["chunk"], arrays["frame"], nucleotides, protein)


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

    def described(self) -> dict[str, str]:
        """Return what another process makes an equal object from, as plain JSON."""
        return {"tokenizer": str(self._tokenizer.path.absolute())}

    @classmethod
    def of_description(cls, description: Mapping[str, Any]) -> Self:
        """The inverse of described; raises as the class does."""
        return cls(description["tokenizer"])


def texts_to_bytes(texts: Texts) -> bytes:
    """Return bytes for texts_from_bytes in another process."""
    text = np.frombuffer(texts.text, np.uint8)
    code = {} if texts.code is None else {"code": texts.code}
    return _to_bytes({"text": text, "offset": texts.offset, "length_nt": texts.length_nt, **code})


def texts_from_bytes(data: bytes) -> Texts:
    """The inverse of texts_to_bytes."""
    arrays = _from_bytes(data)
    return Texts(
        arrays["text"].tobytes(), arrays["offset"], arrays["length_nt"], arrays.get("code")
    )


def _to_bytes(arrays: Mapping[str, NDArray[Any]]) -> bytes:
    """Arrays of one dimension. (safetensors does the same, but panics where memory runs out.)"""
    # The widest first behind a header of whole words: then each begins where its kind may.
    ordered = sorted(arrays.items(), key=lambda item: -item[1].itemsize)
    kinds = {name: (array.dtype.str, len(array)) for name, array in ordered}
    header = json.dumps(kinds).encode("ascii")
    header += b" " * (-len(header) % 8)
    return b"".join([len(header).to_bytes(8, "little"), header, *(a.tobytes() for _, a in ordered)])


def _from_bytes(data: bytes) -> dict[str, NDArray[Any]]:
    """The arrays, which lie in data."""
    begin = 8 + int.from_bytes(data[:8], "little")
    arrays = {}
    for name, (kind, count) in json.loads(data[8:begin]).items():
        arrays[name] = np.frombuffer(data, kind, count, begin)
        begin += arrays[name].nbytes
    return arrays
