"""How much of a chunk is already known: sampled protein k-mers of viruses, and of others.

The amino acids are merged into a reduced alphabet, so that related proteins share k-mers, and one
k-mer in `sampled` is looked at, by its hash alone. Two Bloom filters hold those that occur in
viruses and in no other sequence, and those that occur in several units of others and in no virus.
Of viruses only the longest frame at each place counts.
The most found in one frame adds to the logit of a codon network, which generalises but remembers
little.

Shapes: B chunks, 6 frames, T codons, W = T - k + 1 k-mers, S sampled k-mers, P probes.
"""

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from virnucpro.classifiers.codon import Outputs, are_viral
from virnucpro.classifiers.model import PROTEIN_KMERS, Model
from virnucpro.errors import BundleError
from virnucpro.frames import AMINO_ACIDS

PROTEIN_KMERS_FILE = "protein-kmers.safetensors"
SIDES = ("virus", "others")
# Ten classes of Murphy, Wallqvist and Levy 2000 (Protein Engineering 13:149).
REDUCED = ("LVIM", "C", "A", "G", "ST", "P", "FYW", "EDNQ", "KR", "H")
_LETTER_BITS = 4
# 15 letters leave the sign of a number of 64 bits alone; more probes or fewer k-mers help nobody.
_MOST = {"k": 15, "sampled": 1 << 16, "probes": 64}
# The odds of both sides together stay far from 0 and infinity.
_LARGEST_WEIGHT = 100.0
_NONE = -1
# The finaliser of SplitMix64 (Steele, Lea and Flood 2014), as signed numbers.
_ADDED, _FIRST, _SECOND = (
    int(np.uint64(number).view(np.int64))
    for number in (0x9E3779B97F4A7C15, 0xBF58476D1CE4E5B9, 0x94D049BB133111EB)
)
_POSITIVE = (1 << 63) - 1


@dataclass(frozen=True, slots=True, kw_only=True)
class KmerShape:
    """Choice of k-mers: k letters of the alphabet, one in `sampled`.

    probes: bits that a Bloom filter sets for a k-mer.
    """

    alphabet: tuple[str, ...] = REDUCED
    k: int = 13
    sampled: int = 12
    probes: int = 11

    def __post_init__(self) -> None:
        """Raises ValueError for values out of range."""
        for name, most in _MOST.items():
            number = getattr(self, name)
            if type(number) is not int or not 1 <= number <= most:
                raise ValueError(f"{name} must be an integer from 1 to {most}")
        if len(self.alphabet) > 1 << _LETTER_BITS:
            raise ValueError(f"the alphabet must have at most {1 << _LETTER_BITS} letters")
        if sorted("".join(self.alphabet)) != sorted({*AMINO_ACIDS} - {"*"}):
            raise ValueError("the alphabet does not hold each amino acid once")

    def letters(self, codons: Tensor) -> Tensor:
        """Codons, 64 for an unknown one -> numbers of letters, int64; -1 for stop and unknown."""
        number = {amino: i for i, merged in enumerate(self.alphabet) for amino in merged}
        table = [*(number.get(amino, _NONE) for amino in AMINO_ACIDS), _NONE]
        return torch.tensor(table, device=codons.device)[codons.long()]

    def hashes(self, letters: Tensor) -> tuple[Tensor, Tensor]:
        """Letters (..., T) -> hashes (..., W) below 2**63, and whether each k-mer is sampled.

        A k-mer with a stop or an unknown codon never is. T must not be below k.
        """
        width = letters.shape[-1] - self.k + 1
        key = torch.zeros_like(letters[..., :width])
        whole = torch.ones_like(key, dtype=torch.bool)
        for i in range(self.k):
            letter = letters[..., i : i + width]
            key = (key << _LETTER_BITS) + letter
            whole &= letter >= 0
        found = _mixed(key)
        return found, whole & (found % self.sampled == 0)

    def bits(self, hashes_S: Tensor, size: int) -> Tensor:
        """Bits (S, P) of sampled k-mers in a filter of that many (Kirsch and Mitzenmacher 2008)."""
        rest_S = torch.div(hashes_S, self.sampled, rounding_mode="floor")
        first_S, step_S = rest_S & 0x3FFFFFFF, (rest_S >> 30) | 1
        probe_P = torch.arange(self.probes, device=hashes_S.device)
        return (first_S[:, None] + probe_P * step_S[:, None]) % size


def _mixed(key: Tensor) -> Tensor:
    """A hash of each number, 0 and more."""
    key = key + _ADDED
    key = (key ^ _shifted(key, 30)) * _FIRST
    key = (key ^ _shifted(key, 27)) * _SECOND
    return (key ^ _shifted(key, 31)) & _POSITIVE


def _shifted(key: Tensor, by: int) -> Tensor:
    """Return key >> by, as of numbers without a sign."""
    return (key >> by) & ((1 << (64 - by)) - 1)


class ProteinKmers(nn.Module):
    """Both filters, and what the k-mers found of a side add to the logit.

    filters: of each of SIDES bits, in bytes, the first bit of a byte the lowest. weights: of each
    side what 0, 1, 2, ... k-mers add; more than the last count as the last. virus_groups: which
    groups of the network are viruses, (G,).
    """

    def __init__(
        self,
        shape: KmerShape,
        filters: Mapping[str, NDArray[np.uint8]],
        weights: Mapping[str, Sequence[float]],
        virus_groups: Sequence[bool],
    ) -> None:
        super().__init__()
        self.shape = shape
        for side in SIDES:
            bytes_ = filters[side]
            if bytes_.dtype != np.uint8 or bytes_.ndim != 1 or not bytes_.size:
                raise ValueError(f"the filter of {side} is not a row of bytes")
            self.register_buffer(f"{side}_filter", torch.from_numpy(bytes_.copy()))
            self.register_buffer(f"{side}_weight", _weight(weights[side], side))
        self.register_buffer("virus_groups", torch.tensor(virus_groups, dtype=torch.bool))

    def found(self, codons_B6T: Tensor) -> Tensor:
        """The most k-mers of a frame that each filter holds, (B, 2) in the order of SIDES."""
        batch, frames, codons = codons_B6T.shape
        if codons < self.shape.k:
            return torch.zeros(batch, len(SIDES), dtype=torch.int64, device=codons_B6T.device)
        hashes_B6W, sampled_B6W = self.shape.hashes(self.shape.letters(codons_B6T))
        place_S = sampled_B6W.flatten().nonzero().squeeze(1)
        hashes_S = hashes_B6W.flatten()[place_S]
        frame_S = torch.div(place_S, hashes_B6W.shape[2], rounding_mode="floor")
        most = []
        for side in SIDES:
            bytes_ = self.get_buffer(f"{side}_filter")
            bit_SP = self.shape.bits(hashes_S, 8 * len(bytes_))
            held_S = ((bytes_[bit_SP >> 3] >> (bit_SP & 7)) & 1).all(1)
            count = torch.zeros(batch * frames, dtype=torch.int64, device=frame_S.device)
            count.index_add_(0, frame_S, held_S.long())
            most.append(count.view(batch, frames).amax(1))
        return torch.stack(most, 1)

    def added(self, codons_B6T: Tensor) -> Tensor:
        """What the k-mers of each chunk add to its logit, (B,) in fp64."""
        found_B2 = self.found(codons_B6T)
        weights = [self.get_buffer(f"{side}_weight") for side in SIDES]
        parts = [
            weight[count_B.clamp(max=len(weight) - 1)]
            for weight, count_B in zip(weights, found_B2.unbind(1), strict=True)
        ]
        return parts[0] + parts[1]

    def applied(self, outputs: Outputs, codons_B6T: Tensor) -> Outputs:
        """The outputs of the network with the odds of virus, and of each viral group, changed.

        Those of a chunk of which nothing is known stay as they are, to the last bit.
        """
        return outputs.with_added(self.added(codons_B6T), self.get_buffer("virus_groups"))


def _weight(values: Sequence[float], side: str) -> Tensor:
    """Return the weights of a side as a tensor. Raises ValueError."""
    numbers = [v for v in values if type(v) in (int, float) and abs(v) <= _LARGEST_WEIGHT]
    if not numbers or len(numbers) != len(values):
        raise ValueError(
            f"the weights of {side} are not a list of numbers from {-_LARGEST_WEIGHT:g} to "
            f"{_LARGEST_WEIGHT:g}"
        )
    return torch.tensor(numbers, dtype=torch.float64)


def protein_kmers_of(model: Model, groups: Sequence[str]) -> ProteinKmers | None:
    """The k-mers of a bundle, if it has any; groups: of its network. Raises BundleError."""
    if PROTEIN_KMERS not in model.parts:
        return None
    part, arrays = model.part(PROTEIN_KMERS), model.arrays(PROTEIN_KMERS_FILE)
    try:
        shape = KmerShape(
            alphabet=tuple(part["alphabet"]),
            k=part["k"],
            sampled=part["sampled"],
            probes=part["probes"],
        )
        return ProteinKmers(shape, arrays, part["weights"], are_viral(groups, part))
    except (KeyError, TypeError, ValueError) as error:
        reason = f"{error} is missing" if isinstance(error, KeyError) else error
        raise BundleError(
            f"{model.path / PROTEIN_KMERS_FILE}: not the protein k-mers that its bundle describes "
            f"({reason}); fetch or make the bundle again"
        ) from error


def part_of(
    shape: KmerShape, weights: Mapping[str, Sequence[float]], virus_groups: Sequence[str]
) -> dict[str, Any]:
    """Return what a manifest keeps of them besides the filters, as protein_kmers_of reads it."""
    plain = {**asdict(shape), "alphabet": list(shape.alphabet)}
    return {**plain, "weights": dict(weights), "virus_groups": list(virus_groups)}
