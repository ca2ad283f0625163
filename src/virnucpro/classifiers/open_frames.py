"""Bundles of kind frames, the published method: open frames, two encoders, one head.

n chunks, m open frames of them. Only scores leave the device, unless embeddings are asked for.
"""

from collections.abc import Callable, Mapping, Sequence
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass, field, replace
from pathlib import Path
from threading import Lock
from typing import Any, Self

import numpy as np
import torch
from torch import Tensor

from virnucpro.blocks import Batches, Block, Texts
from virnucpro.calls import Embeddings, Scores, frame_scores_to_chunks
from virnucpro.classifiers.head import CLASSES, Head, load_head
from virnucpro.classifiers.model import Model
from virnucpro.classifiers.prepared import FramePreparation, PreparedFrames
from virnucpro.devices.compute import DEFAULTS, Compute
from virnucpro.devices.out_of_memory import computing, is_out_of_memory
from virnucpro.encoders import Encoder, load_dnabert_s, load_esm2
from virnucpro.encoders.esm2 import MAX_RESIDUES, check_length
from virnucpro.encoders.turns import Visitor
from virnucpro.encoders.weights.load import find_published
from virnucpro.errors import BundleError
from virnucpro.frames import OpenFrames
from virnucpro.progress import steps_ahead
from virnucpro.tokens import TokenRows, UInt16

DNABERT_S, ESM2 = "dnabert_s", "esm2"
HEAD = "head.safetensors"
# Size of a block. 20 kb hold about 40 to 80 open frames, some 7,000 residues. At 6 GFLOP a residue
# (ESM-2 3B) that is 40 TFLOP: 7 minutes on a CPU that sustains 100 GFLOP/s, which is what a kill
# costs there; a GPU takes more at once (classifiers.CUDA_BLOCK_NT).
BLOCK_NT = 20_000


@dataclass(frozen=True, slots=True)
class FrameEncoders:
    """Both encoders on one device; turns: where only one of them fits there at a time.

    Several threads may ask for features; one after the other gets them.
    """

    dnabert_s: Encoder
    esm2: Encoder
    turns: tuple[Visitor, Visitor] | None = None
    _lock: Lock = field(default_factory=Lock, repr=False, compare=False)

    @classmethod
    def of(cls, dnabert_s: Encoder, esm2: Encoder) -> Self:
        """Loaded encoders; raises BundleError where DNABERT-S has no tokenizer."""
        dnabert_s.ids([])  # raises here already, not in the middle of a training
        return cls(dnabert_s, esm2)

    @property
    def width(self) -> int:
        """Numbers a frame."""
        return self.dnabert_s.width + self.esm2.width

    def features(self, frames: OpenFrames) -> Tensor:
        """[nucleotides | protein] embeddings, float32 (m, width), on the device.

        Raises ValueError for a protein that is longer than ESM-2 takes.
        """
        nucleotides = TokenRows.of(self.dnabert_s.ids(frames.nucleotides))
        return self.features_of(nucleotides, TokenRows.of(self.esm2.ids(frames.protein)))

    def features_of(self, nucleotides: TokenRows, protein: TokenRows) -> Tensor:
        """The same, of the tokens of m frames."""
        with self._lock:
            with self._visiting(0):
                nucleotides_MC = self.dnabert_s.rows(nucleotides)
            with self._visiting(1):
                return torch.cat((nucleotides_MC, self.esm2.rows(protein)), dim=1)

    def wide_features_of(self, nucleotides: Sequence[UInt16], protein: Sequence[UInt16]) -> Tensor:
        """The same in fp32, of the ids of each frame; see Encoder.wide_rows."""
        with self._lock:
            with self._visiting(0):
                nucleotides_MC = self.dnabert_s.wide_rows(nucleotides)
            with self._visiting(1):
                return torch.cat((nucleotides_MC, self.esm2.wide_rows(protein)), dim=1)

    def _visiting(self, place: int) -> AbstractContextManager[None]:
        """While an encoder's weights are on the device."""
        return nullcontext() if self.turns is None else self.turns[place].there()


class FrameClassifier:
    """DNABERT-S and ESM-2 with a head on both embeddings, on their device.

    Raises BundleError where chunks are so long that an open frame could exceed what ESM-2 takes,
    where an encoder's files are not those that the manifest names, and where head and encoders do
    not fit each other; OutOfMemory where the weights of one encoder alone do not fit the device.
    """

    def __init__(
        self,
        model: Model,
        device: str,
        precision: str,
        compute: Compute = DEFAULTS,
        *,
        embeddings: bool = False,
    ) -> None:
        if model.chunk_nt // 3 > MAX_RESIDUES:
            raise BundleError(
                f"{model.path}: chunk_nt is {model.chunk_nt}, but ESM-2 takes "
                f"proteins of at most {MAX_RESIDUES} residues; the bundle cannot be used"
            )
        self.name = model.name
        self.precision = precision
        self.device = device
        self._keeps = embeddings
        paths = {name: model.encoder(name) for name in (DNABERT_S, ESM2)}
        with computing(self.name, device):
            self._encoders = _loaded(paths, device, precision, compute)
        tokenizer = find_published(paths[DNABERT_S]).tokenizer
        assert tokenizer is not None  # FrameEncoders.of has said otherwise
        self._preparation = FramePreparation(tokenizer)
        self._head: Head = load_head(model.file(HEAD)).to(device)
        if self._head.features != self._encoders.width:
            raise BundleError(
                f"{model.path}: the head takes {self._head.features} numbers, the encoders give "
                f"{self._encoders.width}; they do not belong together"
            )

    @property
    def attention(self) -> Mapping[str, str]:
        """The attention kernels of each encoder that have run so far, with commas."""
        seen = {
            DNABERT_S: self._encoders.dnabert_s.kernels_seen,
            ESM2: self._encoders.esm2.kernels_seen,
        }
        return {name: ",".join(sorted(kernels)) for name, kernels in seen.items() if kernels}

    @property
    def batches(self) -> Mapping[str, Batches]:
        """The batches of each encoder so far."""
        return {DNABERT_S: self._encoders.dnabert_s.batches, ESM2: self._encoders.esm2.batches}

    def restore_budgets(self) -> None:
        """Do as Classifier says."""
        self._encoders.dnabert_s.restore_budget()
        self._encoders.esm2.restore_budget()

    @property
    def ahead(self) -> Self:
        """Itself: blocks are prepared on the host while the device computes."""
        return self

    @property
    def in_turns(self) -> bool:
        """True if the device holds the weights of only one encoder at a time."""
        return self._encoders.turns is not None

    @property
    def widths(self) -> tuple[int, int]:
        """The widths of the embeddings of nucleotides and of a protein."""
        return self._encoders.dnabert_s.width, self._encoders.esm2.width

    @property
    def preparation(self) -> FramePreparation:
        """The work on a block that can precede score_prepared, also in another thread."""
        return self._preparation

    def score_block(self, block: Block) -> Scores:
        """Scores of the chunks of a block, in the order of its rows."""
        return self.score_prepared(self._preparation(block))

    def score(self, chunks: Sequence[str]) -> Scores:
        """Scores of chunks given as text, in any case, U read as T.

        Raises ValueError for an open frame that is longer than ESM-2 takes.
        """
        return self.score_prepared(self._preparation.of_texts(Texts.of_strings(chunks)))

    def score_prepared(self, prepared: PreparedFrames) -> Scores:
        """Scores of chunks that were prepared, in their order. Raises as score does."""
        return self.begin(prepared)()

    def begin(self, prepared: PreparedFrames) -> Callable[[], Scores]:
        """Sends chunks to the device; what it returns waits for their scores, once.

        Raises as score does, and both raise DeviceError.
        """
        check_length(int(prepared.protein.lengths.max(initial=0)))
        cuda = self.device.startswith("cuda")
        pinned = cuda and self._encoders.esm2.pinned
        with computing(self.name, self.device):
            # First: page-locking memory waits for the device.
            widths = (CLASSES, self._encoders.width) if self._keeps else (CLASSES,)
            on_host = [torch.empty(len(prepared.chunk), c, pin_memory=pinned) for c in widths]
            encoders = self._encoders
            work = encoders.dnabert_s.work(prepared.nucleotides)
            steps_ahead(work + encoders.esm2.work(prepared.protein))
            features = encoders.features_of(prepared.nucleotides, prepared.protein)
            on_host[0].copy_(self._head.probabilities(features), non_blocking=pinned)
            if self._keeps:
                on_host[1].copy_(features, non_blocking=pinned)
            copied = torch.cuda.current_stream(features.device).record_event() if cuda else None

        def scores() -> Scores:
            with computing(self.name, self.device):
                if copied is not None:
                    copied.synchronize()
                if self.precision == "fp16":
                    self._mend(prepared, on_host)
            found, *vectors = (tensor.numpy() for tensor in on_host)
            width = self._encoders.dnabert_s.width
            return frame_scores_to_chunks(
                len(prepared.status),
                prepared.chunk,
                prepared.frame,
                found[:, 0],
                found[:, 1],
                prepared.status,
                *[Embeddings(both[:, :width], both[:, width:]) for both in vectors],
            )

        return scores

    def _mend(self, prepared: PreparedFrames, on_host: Sequence[Tensor]) -> None:
        """Compute frames again in fp32 whose numbers overflowed in fp16, in place.

        An overflow reaches every number of its frame, and no other frame: both encoders end in a
        LayerNorm, which makes of an infinite number one that is undefined.
        """
        lost = np.flatnonzero(~np.isfinite(on_host[0].numpy()).all(axis=1))
        if not len(lost):
            return
        features = self._encoders.wide_features_of(
            prepared.nucleotides.of_rows(lost), prepared.protein.of_rows(lost)
        )
        on_host[0][lost] = self._head.probabilities(features).cpu()
        if self._keeps:
            on_host[1][lost] = features.cpu()


def _loaded(
    paths: Mapping[str, Path], device: str, precision: str, compute: Compute
) -> FrameEncoders:
    """Both encoders; where only one fits the device at a time, in turns."""
    words: dict[str, Any] = {"compute": compute}
    dnabert_s = load_dnabert_s(paths[DNABERT_S], device, precision, **words)
    try:
        esm2 = load_esm2(paths[ESM2], device, precision, **words)
    except RuntimeError as error:
        if not is_out_of_memory(error) or device == "cpu":
            raise
    else:
        return FrameEncoders.of(dnabert_s, esm2)
    # Here no frame of the failed loading holds its tensors any more.
    first = Visitor(dnabert_s)
    esm2 = load_esm2(paths[ESM2], device, precision, **words)
    both = FrameEncoders.of(dnabert_s, esm2)
    return replace(both, turns=(first, Visitor(esm2)))
