"""Bundles of kind frames, the published method: open frames, two encoders, one head."""

from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray

from virnucpro.batches import Block
from virnucpro.bundle import Bundle
from virnucpro.calls import Scores, Status, frame_scores_to_chunks
from virnucpro.classifiers.texts import Texts
from virnucpro.encoders import Encoder, load_dnabert_s, load_esm2
from virnucpro.errors import BundleError
from virnucpro.frames import OpenFrames, open_frames_of
from virnucpro.head import Head


class FrameClassifier:
    """DNABERT-S and ESM-2 with a head on both embeddings, on their device."""

    def __init__(self, bundle: Bundle, device: str, precision: str) -> None:
        self.name = bundle.name
        self.precision = precision
        self.device = device
        self._dnabert_s, self._esm2 = load_encoders(
            bundle.path, bundle.part("encoders"), device, precision
        )
        self._head: Head = bundle.head.to(device)
        width = self._dnabert_s.width + self._esm2.width
        if self._head.features != width:
            raise BundleError(
                f"{bundle.path}: the head takes {self._head.features} numbers, the encoders give "
                f"{width}; they do not belong together."
            )

    @property
    def attention(self) -> Mapping[str, str]:
        """The attention kernel of each encoder."""
        return {"dnabert_s": self._dnabert_s.attention, "esm2": self._esm2.attention}

    def score_block(self, block: Block) -> Scores:
        """Scores of the chunks of a block, in the order of its rows."""
        return self._score(Texts.of_block(block))

    def score(self, chunks: Sequence[str]) -> Scores:
        """Scores of chunks given as text, in any case, U read as T."""
        return self._score(Texts.of_strings(chunks))

    def _score(self, texts: Texts) -> Scores:
        frames = open_frames_of(texts.text, texts.offset, texts.length_nt)
        status = np.full(len(texts), Status.NO_OPEN_FRAME, np.uint8)
        status[frames.chunk] = Status.OK
        probability = self._head.probabilities(self.features(frames)).cpu().numpy()
        return frame_scores_to_chunks(
            len(texts), frames.chunk, frames.frame, probability[:, 0], probability[:, 1], status
        )

    def features(self, frames: OpenFrames) -> torch.Tensor:
        """[nucleotides | protein] embeddings of m open frames, float32 (m, features)."""
        return frame_features(self._dnabert_s, self._esm2, frames)


def load_encoders(
    directory: Path, parts: Mapping[str, object], device: str, precision: str
) -> tuple[Encoder, Encoder]:
    """DNABERT-S and ESM-2 of a bundle; their paths may be relative to its directory."""
    found = []
    for name in ("dnabert_s", "esm2"):
        part = parts.get(name)
        if not isinstance(part, Mapping) or not isinstance(part.get("path"), str):
            raise BundleError(f"{directory}: its manifest names no path for the encoder {name}.")
        found.append(directory / part["path"])
    return load_dnabert_s(found[0], device, precision), load_esm2(found[1], device, precision)


def frame_features(dnabert_s: Encoder, esm2: Encoder, frames: OpenFrames) -> torch.Tensor:
    """[nucleotides | protein] embeddings of m open frames, float32 (m, features)."""
    nucleotides: NDArray[np.float32] = dnabert_s.embed(frames.nucleotides)
    protein: NDArray[np.float32] = esm2.embed(frames.protein)
    return torch.from_numpy(np.concatenate([nucleotides, protein], axis=1))
