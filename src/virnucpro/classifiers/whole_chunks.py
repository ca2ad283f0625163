"""Bundles of kind chunks: a codon network and a head score a chunk as a whole.

Shapes: n chunks, B of a batch, L letters, T codons.
"""

from collections.abc import Iterator, Mapping, Sequence
from functools import partial
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from virnucpro.blocks import Batches, Block, Texts
from virnucpro.calls import FRAME_NAMES, Scores, is_called
from virnucpro.classifiers.chunk_status import chunk_status, whole_chunk_scores
from virnucpro.classifiers.codon import (
    CodonNetwork,
    Outputs,
    canonical_codes,
    frame_codons,
    load_codon_network,
    padded_codons,
    unflip_frames,
)
from virnucpro.classifiers.model import Model
from virnucpro.classifiers.protein_kmers import protein_kmers_of
from virnucpro.classifiers.second_opinion import second_opinion_of
from virnucpro.devices.compute import DEFAULTS, Compute
from virnucpro.devices.machine import each_on_one_thread
from virnucpro.devices.out_of_memory import computing, fitting
from virnucpro.encoders.attention import observing
from virnucpro.encoders.precision import device_of, dtype_of
from virnucpro.frames import UNKNOWN_LETTER, letter_codes
from virnucpro.progress import steps_ahead

CODON = "codon"
CODON_WEIGHTS = "codon.safetensors"
ALL_FRAMES = (1 << len(FRAME_NAMES)) - 1
# Codons of a batch, of all six frames: 32 chunks of 500 nt on a CPU, where more gains nothing.
BATCH_CODONS = {"cpu": 32_256, "cuda": 2_064_384}

Float32 = NDArray[np.float32]
Int64 = NDArray[np.int64]
UInt8 = NDArray[np.uint8]
Batch = tuple[Tensor, Tensor]  # codes (B, L), length (B,)


class ChunkClassifier:
    """A codon network, and the protein k-mers and second network that the bundle may have."""

    ahead = None

    def __init__(
        self, model: Model, device: str, precision: str, compute: Compute = DEFAULTS
    ) -> None:
        self.name = model.name
        self.precision = precision
        self.device = device
        self._min_nt = model.min_nt
        self._validated_nt = model.validated_nt
        self._budget = compute.batch_tokens or BATCH_CODONS[torch.device(device).type]
        self._least = self._budget
        self._count = self._positions = self._pads = 0
        self._network = codon_network_of(model, device, precision, compute.attention)
        kmers = protein_kmers_of(model, self.groups)
        self._kmers = None if kmers is None else kmers.to(device)
        self._second = second_opinion_of(model, self._network, device, precision, compute.attention)
        self._kernels_seen: dict[Any, str] = {}

    @property
    def attention(self) -> Mapping[str, str]:
        """The attention kernels that have run so far, with commas."""
        seen = sorted(set(self._kernels_seen.values()))
        return {CODON: ",".join(seen)} if seen else {}

    @property
    def batches(self) -> Mapping[str, Batches]:
        """Batches so far, in codons of all six frames."""
        counts = (self._budget, self._least, self._count, self._positions, self._pads)
        return {CODON: Batches(*counts)}

    def restore_budgets(self) -> None:
        """Do as Classifier says."""
        self._least = self._budget

    def score_block(self, block: Block) -> Scores:
        """Scores of the chunks of a block, in the order of its rows."""
        return self._score(Texts.of_block(block))

    def score(self, chunks: Sequence[str]) -> Scores:
        """Scores of chunks given as text, in any case, U read as T."""
        return self._score(Texts.of_strings(chunks))

    @property
    def groups(self) -> tuple[str, ...]:
        """The groups that the network names, of viruses and of others; often empty."""
        return self._network.groups

    def _score(self, texts: Texts) -> Scores:
        status, called, outputs, flipped = self._outputs(texts)
        p_virus = np.full(len(texts), np.nan)
        frame = np.zeros(len(texts), np.uint8)
        p_virus[called] = outputs.p_virus.numpy()
        frame[called] = unflip_frames(outputs.weight, flipped).argmax(1).numpy()
        group_p = None
        if self.groups:
            group_p = np.zeros((len(texts), len(self.groups)), np.float32)
            group_p[called] = outputs.group.numpy()
        return whole_chunk_scores(status, p_virus, frame, ALL_FRAMES, group_p)

    def _outputs(self, texts: Texts) -> tuple[UInt8, NDArray[np.intp], Outputs, Tensor]:
        """Status of every chunk, which are called, and of these the outputs and whether flipped."""
        codes = letter_codes(texts.text)
        status = chunk_status(codes, texts, self._min_nt, self._validated_nt)
        called = np.flatnonzero(is_called(status))
        batches, place, flipped = self._batches(codes, texts, called)
        steps_ahead(len(batches))
        with computing(self.name, self.device):
            parts = self._forwards(batches)
        self._count += len(batches)
        for codes_BL, length_B in batches:
            self._positions += codes_BL.numel()
            self._pads += codes_BL.numel() - int(length_B.sum())
        none, groups = torch.zeros(0), torch.zeros(0, len(self.groups))
        nothing = Outputs(none, none, torch.zeros(0, 6), groups)
        return status, called, Outputs(*(t[place] for t in _joined([nothing, *parts]))), flipped

    def _batches(
        self, codes: UInt8, texts: Texts, called: NDArray[np.intp]
    ) -> tuple[list[Batch], Tensor, Tensor]:
        """Batches of canonical strands, equal ones once; of each called chunk its place in them.

        The third is whether a chunk lies there as its reverse complement.
        """
        batches: list[Batch] = []
        place = np.zeros(len(called), np.int64)
        flipped = torch.zeros(len(called), dtype=torch.bool)
        before = 0
        for codons, which in _of_one_padded_length(texts.length_nt[called]):
            rows = called[which]
            length_n = torch.from_numpy(texts.length_nt[rows])
            given_nL = torch.from_numpy(_padded(codes, texts, rows, codons))
            codes_nL, flipped[which] = canonical_codes(given_nL, length_n)
            first, index = _distinct(codes_nL, length_n)
            place[which] = before + index
            before += len(first)
            rows_a_batch = max(1, self._least // (len(FRAME_NAMES) * codons))
            parts = torch.split(first, rows_a_batch)
            batches += [(codes_nL[rows_B], length_n[rows_B]) for rows_B in parts]
        return batches, torch.from_numpy(place), flipped

    def _forwards(self, batches: list[Batch]) -> list[Outputs]:
        if self.device == "cpu":
            return each_on_one_thread(self._fitting, batches)
        return [self._fitting(batch) for batch in batches]

    def _fitting(self, batch: Batch) -> Outputs:
        """Do as _forward; a batch that does not fit in memory goes as two, and later ones as small.

        Raises OutOfMemory, with a report, for a single chunk that does not fit.
        """
        codes_BL, length_B = batch
        rows, codons = len(codes_BL), len(FRAME_NAMES) * (codes_BL.shape[1] // 3)
        whole = fitting(partial(self._forward, batch), self.name, rows, rows * codons, self.device)
        if whole is not None:
            return whole
        self._least = min(self._least, rows * codons // 2)
        half = rows // 2
        return _joined(
            [
                self._fitting((codes_BL[some], length_B[some]))
                for some in (slice(half), slice(half, None))
            ]
        )

    def _forward(self, batch: Batch) -> Outputs:
        """Return the output of the network for canonical strands, on the CPU."""
        codes_BL, length_B = (tensor.to(self.device) for tensor in batch)
        with torch.inference_mode(), observing(self._kernels_seen):
            codons_B6T = frame_codons(codes_BL, length_B)
            first = outputs = self._network.outputs(codons_B6T)
            if self._kmers is not None:
                outputs = self._kmers.applied(first, codons_B6T)
            if self._second is not None:
                outputs = self._second.applied(first, outputs, codons_B6T)
        return Outputs(*(tensor.cpu() for tensor in outputs))


def _joined(parts: Sequence[Outputs]) -> Outputs:
    return Outputs(*map(torch.cat, zip(*parts, strict=True)))


def codon_network_of(
    model: Model, device: str, precision: str, attention: str = "auto"
) -> CodonNetwork:
    """The network of a bundle of kind chunks. Raises BundleError, DeviceError, SettingsError."""
    weights, part = model.file(CODON_WEIGHTS), model.part(CODON)
    return load_codon_network(weights, part, dtype_of(precision), device_of(device), attention)


def _of_one_padded_length(length_n: Int64) -> Iterator[tuple[int, NDArray[np.intp]]]:
    """Chunks grouped by the codons that they are padded to, the longest first."""
    padded = np.array([padded_codons(length_nt) for length_nt in length_n.tolist()], np.int64)
    for codons in np.unique(padded)[::-1].tolist():
        yield codons, np.flatnonzero(padded == codons)


def _padded(codes: UInt8, texts: Texts, rows: NDArray[np.intp], codons: int) -> UInt8:
    """Letter codes of n chunks as one array (n, 3 * codons + 2), filled up with N."""
    position = np.arange(3 * codons + 2)
    inside = position < texts.length_nt[rows, None]
    where = np.minimum(texts.offset[rows, None] + position, len(codes) - 1)
    return np.where(inside, codes[where], UNKNOWN_LETTER).astype(np.uint8)


def _distinct(codes_nL: Tensor, length_n: Tensor) -> tuple[Tensor, Int64]:
    """The first of each set of equal chunks, and which set each of the n is in.

    Codes alone do not tell a chunk from the one that goes on with N.
    """
    sets: dict[tuple[bytes, int], int] = {}
    keys = zip(map(bytes, codes_nL.numpy()), length_n.tolist(), strict=True)
    index = np.array([sets.setdefault(key, len(sets)) for key in keys], np.int64)
    return torch.from_numpy(np.unique(index, return_index=True)[1]), index
