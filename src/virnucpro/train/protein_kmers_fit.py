"""Labelled contigs and the scores of a network -> filters of protein k-mers, and their weights.

Of viruses the k-mers of the longest frame at each place are kept, which is mostly the coding one,
if no other sequence has them in any frame; of others those of all frames that several units share,
if they are none of these k-mers of viruses.
Weights are fitted on a slice of units, with filters that these units are not in. This module knows
no command line.
"""

from collections import defaultdict
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from virnucpro.bundle.manifest import Bundle
from virnucpro.bundle.write import write_into
from virnucpro.classifiers.codon import frame_codons, padded_codes
from virnucpro.classifiers.model import PROTEIN_KMERS
from virnucpro.classifiers.protein_kmers import (
    PROTEIN_KMERS_FILE,
    SIDES,
    KmerShape,
    ProteinKmers,
    part_of,
)
from virnucpro.errors import InputError
from virnucpro.measure.fragments import fragments_at
from virnucpro.measure.labels import LabelledContig
from virnucpro.train.slices import described, judging_slice, parted

Float64 = NDArray[np.float64]
Hashes = NDArray[np.int64]

# Sequences of a unit are read together up to this length, which bounds memory, except of a virus
# that is longer: its longest frames need its whole stretches.
READ_AT_ONCE_NT = 2_000_000
_STEPS = 2000


@dataclass(frozen=True, slots=True, kw_only=True)
class KmerSettings:
    """How filters and weights are made.

    others_units: units that share a k-mer of others that is kept. distinct: different letters that
    a kept k-mer has, so that repeats are not remembered. bits: of a filter for each k-mer; 16 with
    11 probes find 0.05 % of what they do not hold. most: the highest count with a weight of its
    own. lengths_nt, per_side: fragments that weights are fitted on, of each length and label. seed,
    slice_fraction: of the slice, see units.held_out_slice.
    """

    shape: KmerShape = field(default_factory=KmerShape)
    others_units: int = 2
    distinct: int = 5
    bits: int = 16
    most: int = 8
    lengths_nt: tuple[int, ...] = (150, 300, 500)
    per_side: int = 2000
    seed: int = 0
    slice_fraction: float = 0.03


@dataclass(frozen=True, slots=True)
class FittedKmers:
    """Filters by side, and what a manifest keeps of them, with the record of their making."""

    filters: dict[str, NDArray[np.uint8]] = field(repr=False)
    part: dict[str, Any]


@dataclass(frozen=True, slots=True)
class UnitKmers:
    """The k-mers of the contigs of one label in a unit, ascending."""

    label: int
    unit: str
    kmers: Hashes = field(repr=False)


def fit_protein_kmers(
    contigs: Sequence[LabelledContig],
    p_virus: Callable[[Sequence[str]], Float64],
    settings: KmerSettings | None = None,
    progress: Callable[[int, int], None] | None = None,
    *,
    units: Sequence[UnitKmers] | None = None,
) -> FittedKmers:
    """Fit filters on all contigs, and weights on a slice of them.

    p_virus: the network's P(virus) of sequences; it must not have been fitted on the slice. The
    progress is called with units done and units in all. units: what units_of gave for the contigs,
    if it is there already. Raises InputError when a side is missing.
    """
    settings = settings or KmerSettings()
    held_out = judging_slice(
        contigs, settings.slice_fraction, settings.seed, "the weights of protein k-mers"
    )
    judging = parted(contigs, held_out)[1]
    if units is None:
        units = units_of(contigs, settings, progress)
    held = {contig.unit for contig in judging}
    apart = _kept([unit for unit in units if unit.unit not in held], settings)
    weights, effect = _fitted_weights(judging, p_virus, _filters(apart, settings), settings)
    kept = _kept(units, settings)
    training = {
        "settings": {k: v for k, v in asdict(settings).items() if k != "shape"},
        "kmers": {side: len(hashes) for side, hashes in kept.items()},
        "contigs": described(contigs),
        "weights_fitted_on": described(judging),
        "log_loss": effect,
    }
    viral = sorted({contig.group for contig in contigs if contig.label == 1})
    part = {**part_of(settings.shape, weights, viral), "training": training}
    return FittedKmers(_filters(kept, settings), part)


def keep_protein_kmers(bundle: Bundle, fitted: FittedKmers) -> Bundle:
    """Return the bundle with these protein k-mers among its files."""
    return write_into(bundle, {PROTEIN_KMERS: fitted.part}, {PROTEIN_KMERS_FILE: fitted.filters})


def units_of(
    contigs: Sequence[LabelledContig],
    settings: KmerSettings,
    progress: Callable[[int, int], None] | None = None,
) -> list[UnitKmers]:
    """The k-mers of each unit and label."""
    members: dict[tuple[int, str], list[bytes]] = defaultdict(list)
    for contig in contigs:
        members[(contig.label, contig.unit)].append(contig.sequence)
    units = []
    for (label, unit), sequences in members.items():
        texts = _joined(sequences) if label == 1 else _pieces(sequences, settings.shape.k)
        found = [kmers_of(text, settings, longest=label == 1) for text in texts]
        units.append(UnitKmers(label, unit, np.unique(np.concatenate(found))))
        if progress is not None:
            progress(len(units), len(members))
    return units


def _joined(sequences: Sequence[bytes]) -> Iterable[bytes]:
    """Yield the sequences, with N between them, in texts of about READ_AT_ONCE_NT."""
    together: list[bytes] = []
    length_nt = 0
    for sequence in sequences:
        together.append(sequence)
        length_nt += len(sequence)
        if length_nt >= READ_AT_ONCE_NT:
            yield b"N".join(together)
            together, length_nt = [], 0
    if together:
        yield b"N".join(together)


def _pieces(sequences: Sequence[bytes], k: int) -> Iterable[bytes]:
    """Yield what _joined yields, cut so that each k-mer lies in a piece as a whole."""
    overlap_nt = 3 * k - 1
    for text in _joined(sequences):
        for start in range(0, max(1, len(text) - overlap_nt), READ_AT_ONCE_NT):
            yield text[start : start + READ_AT_ONCE_NT + overlap_nt]


def kmers_of(sequence: bytes, settings: KmerSettings, *, longest: bool) -> Hashes:
    """Hashes of the sampled k-mers of all six frames, in no order.

    longest: only of the frame with the longest stretch without stop at the middle of the k-mer.
    """
    shape = settings.shape
    if len(sequence) < 3 * shape.k:
        return np.zeros(0, np.int64)
    letters_6T = shape.letters(frame_codons(*padded_codes([sequence]))[0])
    hashes_6W, sampled_6W = shape.hashes(letters_6T)
    frame_S, place_S = sampled_6W.nonzero(as_tuple=True)
    keep_S = _varied(letters_6T, frame_S, place_S, settings)
    if longest:
        keep_S &= _longest(letters_6T, frame_S, place_S, len(sequence), shape.k)
    found: Hashes = hashes_6W[frame_S[keep_S], place_S[keep_S]].numpy()
    return found


def _varied(letters_6T: Tensor, frame_S: Tensor, place_S: Tensor, settings: KmerSettings) -> Tensor:
    """Whether k-mers hold as many different letters as is asked for."""
    seen = torch.zeros(len(place_S), len(settings.shape.alphabet), dtype=torch.bool)
    row_S = torch.arange(len(place_S))
    for i in range(settings.shape.k):
        seen[row_S, letters_6T[frame_S, place_S + i]] = True
    return seen.sum(1) >= settings.distinct


def _longest(
    letters_6T: Tensor, frame_S: Tensor, place_S: Tensor, length_nt: int, k: int
) -> Tensor:
    """Whether no other frame has a longer stretch without stop where the k-mer has its middle."""
    run_6T = np.stack([_stretches(letters.numpy()) for letters in letters_6T])
    best_L = np.zeros(length_nt, np.int64)
    for frame, run_T in enumerate(run_6T):
        strand, phase = divmod(frame, 3)
        along_L = np.zeros(length_nt, np.int64)
        spread = np.repeat(run_T, 3)[: length_nt - phase]
        along_L[phase : phase + len(spread)] = spread
        np.maximum(best_L, along_L[::-1] if strand else along_L, out=best_L)
    of_S, at_S = frame_S.numpy(), place_S.numpy()
    middle_S = of_S % 3 + 3 * (at_S + k // 2) + 1
    middle_S = np.where(of_S >= 3, length_nt - 1 - middle_S, middle_S)
    return torch.from_numpy(run_6T[of_S, at_S] >= best_L[middle_S])


def _stretches(letters_T: NDArray[np.int64]) -> NDArray[np.int64]:
    """At each codon the length of the stretch without stop or unknown codon that it is in, (T,)."""
    inside = np.concatenate(([False], letters_T >= 0, [False]))
    first = np.flatnonzero(inside[1:] & ~inside[:-1])
    last = np.flatnonzero(~inside[1:] & inside[:-1])
    found = np.zeros(len(letters_T), np.int64)
    found[inside[1:-1]] = np.repeat(last - first, last - first)
    return found


def _kept(units: Sequence[UnitKmers], settings: KmerSettings) -> dict[str, Hashes]:
    """The k-mers that each filter is to hold."""
    virus = _counted([unit.kmers for unit in units if unit.label == 1])[0]
    others, count = _counted([unit.kmers for unit in units if unit.label == 0])
    return {
        "virus": np.setdiff1d(virus, others, assume_unique=True),
        "others": np.setdiff1d(others[count >= settings.others_units], virus, assume_unique=True),
    }


def _counted(parts: Sequence[Hashes]) -> tuple[Hashes, NDArray[np.int64]]:
    """Different k-mers, ascending, and how many of the parts have each."""
    together = np.sort(np.concatenate([np.zeros(0, np.int64), *parts]))
    first = np.flatnonzero(np.diff(together, prepend=-1))
    return together[first], np.diff(np.append(first, len(together)))


def _filters(kept: Mapping[str, Hashes], settings: KmerSettings) -> dict[str, NDArray[np.uint8]]:
    return {side: filter_of(kept[side], settings) for side in SIDES}


def filter_of(kmers: Hashes, settings: KmerSettings) -> NDArray[np.uint8]:
    """A Bloom filter that holds these k-mers, in bytes."""
    size = 8 * max(1, -(-len(kmers) * settings.bits // 8))
    held = np.zeros(size, np.bool_)
    for part in torch.split(torch.from_numpy(kmers), 1_000_000):
        held[settings.shape.bits(part, size).flatten().numpy()] = True
    return np.packbits(held, bitorder="little")


def _fitted_weights(
    judging: Sequence[LabelledContig],
    p_virus: Callable[[Sequence[str]], Float64],
    filters: dict[str, NDArray[np.uint8]],
    settings: KmerSettings,
) -> tuple[dict[str, list[float]], dict[str, float]]:
    """Weights of each side by count, from none on, and the log loss before and after."""
    module = ProteinKmers(settings.shape, filters, {side: [0.0] for side in SIDES}, ())
    found, logit, label = [], [], []
    for length_nt in settings.lengths_nt:
        drawn = fragments_at(judging, length_nt, settings.per_side, settings.seed)
        if {fragment.label for fragment in drawn} != {0, 1}:
            continue
        codons = frame_codons(*padded_codes([f.sequence for f in drawn]))
        found.append(module.found(codons).numpy())
        p = np.clip(p_virus([f.sequence.decode("ascii") for f in drawn]), 1e-6, 1 - 1e-6)
        logit.append(np.log(p / (1 - p)))
        label.append(np.array([f.label for f in drawn], np.float64))
    if not found:
        raise InputError(
            f"the slice that fits the weights of protein k-mers has no {min(settings.lengths_nt)} "
            "nt of one side; give longer sequences"
        )
    return _weights(np.concatenate(found), np.concatenate(logit), np.concatenate(label), settings)


def _weights(
    found_N2: NDArray[np.int64], logit_N: Float64, label_N: Float64, settings: KmerSettings
) -> tuple[dict[str, list[float]], dict[str, float]]:
    """Logistic regression with the network's logit as it is; one more k-mer never weighs less.

    By projected gradients with momentum (Nesterov), all weights of a side of one sign.
    """
    level = np.arange(1, settings.most + 1)
    known = [(found_N2[:, [i]] >= level) * sign for i, sign in enumerate((1.0, -1.0))]
    x = np.concatenate([*known, np.ones((len(label_N), 1))], 1)
    signed = np.append(np.full(2 * settings.most, True), False)
    step = 4 * len(x) / np.linalg.norm(x, 2) ** 2
    ridge = 1 / len(x)
    weight = ahead = np.zeros(x.shape[1])
    for turn in range(_STEPS):
        p = 1 / (1 + np.exp(-(logit_N + x @ ahead)))
        slope = x.T @ (p - label_N) / len(x) + ridge * np.where(signed, ahead, 0)
        moved = ahead - step * slope
        moved = np.where(signed, np.maximum(moved, 0), moved)
        ahead = moved + turn / (turn + 3) * (moved - weight)
        weight = moved
    sides = weight[:-1].reshape(2, -1) * [[1], [-1]]
    totals = np.cumsum(np.pad(sides, ((0, 0), (1, 0))), 1).round(4)
    # Without the constant, which takes up what the network is wrong by everywhere and is not kept.
    added_N = sum(
        totals[i, count_N.clip(max=settings.most)] for i, count_N in enumerate(found_N2.T)
    )
    losses = {
        "before": _log_loss(logit_N, label_N),
        "after": _log_loss(logit_N + added_N, label_N),
    }
    return dict(zip(SIDES, totals.tolist(), strict=True)), losses


def _log_loss(logit_N: Float64, label_N: Float64) -> float:
    """The mean of -ln P(label)."""
    return round(float(np.logaddexp(0, np.where(label_N == 1, -logit_N, logit_N)).mean()), 5)
