"""Random fragments of labelled contigs, drawn on the training device itself.

The whole training set lies there as one byte a letter, so that drawing a batch costs a few
gathers and no host work. This module knows neither files nor networks.

Shapes: B fragments, L letters, T codons.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from virnucpro.classifiers.codon import (
    AMBIGUOUS_CODON,
    padded_codons,
    reverse_complement,
)
from virnucpro.frames import UNKNOWN_LETTER, letter_codes

NO_CONTIG = -1
LONGEST_REPEAT_NT = 6
_WITH_INDELS = 0.3


@dataclass(frozen=True, slots=True, kw_only=True)
class Augmentation:
    """The changes made to each fragment, besides taking a random strand.

    substitutions: letters that become another one; indels: letters that are left out, or have one
    before them that is put in, half each, in three fragments of ten; unknown: letters that become
    N, in one fragment of ten; hidden: codons of a frame that become the unknown one. Each is the
    highest rate: that of a fragment is drawn from [0, highest]. nonsense: share of a batch whose
    letters are shuffled, or become a tandem repeat of 1 to LONGEST_REPEAT_NT, half each; these are
    others of no group.
    """

    substitutions: float = 0.02
    indels: float = 0.0
    unknown: float = 0.02
    hidden: float = 0.2
    nonsense: float = 0.0


class FragmentPool:
    """Contigs to draw from, with the probability of each.

    weights (contigs,) need not sum to 1; of the contigs at least as long as the fragment, one is
    drawn by weight, then a start uniformly.
    """

    def __init__(
        self,
        sequences: Sequence[bytes],
        weights: NDArray[np.float64],
        device: torch.device,
    ) -> None:
        lengths = np.array([len(s) for s in sequences], np.int64)
        text = np.concatenate([letter_codes(s) for s in sequences])
        self._text = torch.from_numpy(text).to(device)
        self._start = torch.from_numpy(np.cumsum(lengths) - lengths).to(device)
        self._length = torch.from_numpy(lengths).to(device)
        self._weight = torch.from_numpy(np.asarray(weights, np.float64)).to(device)
        self._longest = int(lengths[np.asarray(weights) > 0].max(initial=0))
        self._device = device

    def draw(
        self, count: int, length_nt: int, generator: torch.Generator, augmentation: Augmentation
    ) -> tuple[Tensor, Tensor, Tensor]:
        """codes (B, 3 * T + 2), length_nt (B,), contig (B,) of count fragments on random strands.

        The contig of nonsense is NO_CONTIG. Raises ValueError when no contig is that long.
        """
        if length_nt > self._longest:
            raise ValueError(f"no contig to draw from has {length_nt} nt")
        cumulative = torch.where(self._length >= length_nt, self._weight, 0.0).cumsum(0)
        at = uniform(generator, count).double() * cumulative[-1]
        # right: a contig of weight 0 begins and ends at the same sum and is never met.
        pick = torch.searchsorted(cumulative, at, right=True).clamp(max=len(cumulative) - 1)
        room = (self._length[pick] - length_nt + 1).double()
        start = (uniform(generator, count).double() * room).long()
        codes_BL = self._read(pick, start, length_nt, generator, augmentation.indels)
        made = int(augmentation.nonsense * count)
        if made:
            codes_BL[:made] = _nonsense(codes_BL[:made], generator)
            pick[:made] = NO_CONTIG
        codes_BL = _substituted(codes_BL, augmentation, generator)
        padded = 3 * padded_codons(length_nt) + 2
        codes_BL = torch.nn.functional.pad(codes_BL, (0, padded - length_nt), value=UNKNOWN_LETTER)
        length_B = torch.full((count,), length_nt, device=self._device)
        flip_B1 = uniform(generator, count, 1) < 0.5
        strand_BL = torch.where(flip_B1, reverse_complement(codes_BL, length_B), codes_BL)
        return strand_BL, length_B, pick

    def _read(
        self, pick: Tensor, start: Tensor, length_nt: int, generator: torch.Generator, indels: float
    ) -> Tensor:
        """Letters of the contigs from these starts on, with insertions and deletions; N beyond."""
        place_BL = start[:, None] + torch.arange(length_nt, device=self._device)
        if not indels:
            return self._text[self._start[pick][:, None] + place_BL]
        shape = place_BL.shape
        some_B1 = uniform(generator, shape[0], 1) < _WITH_INDELS
        rate_B1 = indels * uniform(generator, shape[0], 1) * some_B1
        change_BL = uniform(generator, *shape)
        put_in_BL = change_BL < rate_B1 / 2
        left_out_BL = ~put_in_BL & (change_BL < rate_B1)
        place_BL = place_BL + (left_out_BL.long() - put_in_BL.long()).cumsum(1)
        inside_BL = (place_BL >= 0) & (place_BL < self._length[pick][:, None])
        place_BL = torch.where(inside_BL, place_BL, 0) + self._start[pick][:, None]
        new_BL = torch.randint(
            0, 4, shape, generator=generator, device=self._device, dtype=torch.uint8
        )
        codes_BL = torch.where(put_in_BL, new_BL, self._text[place_BL])
        return torch.where(put_in_BL | inside_BL, codes_BL, UNKNOWN_LETTER)


def _nonsense(codes_BL: Tensor, generator: torch.Generator) -> Tensor:
    """Shuffled letters in the first half of the rows, tandem repeats in the others."""
    count, length_nt = codes_BL.shape
    shuffled_BL = codes_BL.gather(1, uniform(generator, count, length_nt).argsort(1))
    unit_B1 = 1 + (uniform(generator, count, 1) * LONGEST_REPEAT_NT).long()
    letters_BU = (uniform(generator, count, LONGEST_REPEAT_NT) * 4).to(codes_BL.dtype)
    repeat_BL = letters_BU.gather(1, torch.arange(length_nt, device=unit_B1.device) % unit_B1)
    first_B1 = torch.arange(count, device=unit_B1.device)[:, None] < (count + 1) // 2
    return torch.where(first_B1, shuffled_BL, repeat_BL)


def _substituted(
    codes_BL: Tensor, augmentation: Augmentation, generator: torch.Generator
) -> Tensor:
    count, length_nt = codes_BL.shape
    rate_B1 = augmentation.substitutions * uniform(generator, count, 1)
    other_BL = torch.randint(
        1, 4, codes_BL.shape, generator=generator, device=codes_BL.device, dtype=torch.uint8
    )
    changed_BL = (uniform(generator, count, length_nt) < rate_B1) & (codes_BL < UNKNOWN_LETTER)
    codes_BL = torch.where(changed_BL, (codes_BL + other_BL) % 4, codes_BL)
    some_B1 = uniform(generator, count, 1) < 0.1
    rate_B1 = augmentation.unknown * uniform(generator, count, 1) * some_B1
    hidden_BL = uniform(generator, count, length_nt) < rate_B1
    return torch.where(hidden_BL, UNKNOWN_LETTER, codes_BL)


def blurred(codons_B6T: Tensor, augmentation: Augmentation, generator: torch.Generator) -> Tensor:
    """Codons with some hidden, each frame by itself."""
    count, shape = len(codons_B6T), tuple(codons_B6T.shape)
    if augmentation.hidden:
        rate_B11 = augmentation.hidden * uniform(generator, count, 1, 1)
        hidden_B6T = uniform(generator, *shape) < rate_B11
        codons_B6T = torch.where(hidden_B6T, AMBIGUOUS_CODON, codons_B6T)
    return codons_B6T


def uniform(generator: torch.Generator, *shape: int) -> Tensor:
    """Numbers from [0, 1) on the generator's device."""
    return torch.rand(shape, generator=generator, device=generator.device)
