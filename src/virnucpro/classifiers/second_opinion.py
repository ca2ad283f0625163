"""A second network for the chunks that the first leaves unsure, on the frames that weigh most.

Two networks of other first weights are wrong about different chunks, so that their mean generalises
better than either; where the first is sure, the second would change little. What it adds to the
logit fades to nothing at the edge of what is unsure, and so does a frame where another comes to
weigh as much, so that rounding cannot make a score jump.

Shapes: B chunks, of which U are unsure, 6 frames, F that are asked about, T codons.
"""

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor, nn

from virnucpro.classifiers.codon import CodonNetwork, Outputs, are_viral, load_codon_network
from virnucpro.classifiers.model import SECOND_OPINION, Model
from virnucpro.encoders.precision import device_of, dtype_of
from virnucpro.errors import BundleError

SECOND_WEIGHTS = "second.safetensors"
_FRAMES = 6
# A frame counts in full that outweighs those that are left out by a tenth of its weight.
_CLEARLY_AHEAD = 0.1
# Of a frame that weighs as much as one that is left out: all may, in a repeat.
_LEAST_FAVOUR = 1e-6


class SecondOpinion(nn.Module):
    """A network that is asked where the logit is nearer to 0 than `unsure`.

    share: the most that its logit counts, against 1 - share of the first network's. frames: how
    many frames it sees. virus_groups: which groups of the first network are viruses, (G,).
    """

    def __init__(
        self,
        network: CodonNetwork,
        *,
        unsure: float,
        share: float,
        frames: int,
        virus_groups: Sequence[bool],
    ) -> None:
        super().__init__()
        if not 0 < unsure < float("inf"):
            raise ValueError("unsure is not a number above 0")
        if not 0 < share <= 1:
            raise ValueError("share is not a number above 0, up to 1")
        if type(frames) is not int or not 1 <= frames < _FRAMES:
            raise ValueError(f"frames is not an integer from 1 to {_FRAMES - 1}")
        self.network = network
        self.unsure, self.share, self.frames = float(unsure), float(share), frames
        self.register_buffer("virus_groups", torch.tensor(virus_groups, dtype=torch.bool))

    def applied(self, first: Outputs, known: Outputs, codons_B6T: Tensor) -> Outputs:
        """known, with the odds of virus, and of each viral group, changed where it is unsure.

        first: the outputs of the first network; known: those with protein k-mers, or the same. The
        others stay as they are, to the last bit.
        """
        added_B = self._added(first, known, codons_B6T)
        return known.with_added(added_B, self.get_buffer("virus_groups"))

    def _added(self, first: Outputs, known: Outputs, codons_B6T: Tensor) -> Tensor:
        logit_B = known.logit
        added_B = torch.zeros_like(logit_B)
        row_U = (logit_B.abs() < self.unsure).nonzero().squeeze(1)
        if len(row_U):
            second_U = self.asked(first.weight[row_U], codons_B6T[row_U])
            share_U = (1 - logit_B[row_U].abs() / self.unsure).clamp(max=self.share)
            added_B[row_U] = share_U * (second_U - first.logit[row_U])
        return added_B

    def asked(self, weight_U6: Tensor, codons_U6T: Tensor) -> Tensor:
        """Return the logit of the second network, (U,) in fp64; weight: of frames in the first."""
        frame_UF, favour_UF = self._frames(weight_U6)
        row_U1 = torch.arange(len(frame_UF), device=frame_UF.device)[:, None]
        return self.network.outputs(codons_U6T[row_U1, frame_UF], favour_UF).logit

    def _frames(self, weight_U6: Tensor) -> tuple[Tensor, Tensor]:
        """Return the frames that weigh most, the first one first, and how much each is favoured."""
        most = weight_U6.topk(self.frames + 1, dim=1)
        frame_UF = most.indices[:, :-1]
        weight_UF, left_out_U1 = weight_U6.gather(1, frame_UF), most.values[:, -1:]
        ahead_UF = (weight_UF - left_out_U1) / weight_UF.clamp(min=_LEAST_FAVOUR)
        return frame_UF, (ahead_UF / _CLEARLY_AHEAD).clamp(_LEAST_FAVOUR, 1).log()


def second_opinion_of(
    model: Model, first: CodonNetwork, device: str, precision: str, attention: str
) -> SecondOpinion | None:
    """The second network of a bundle, if it has one. Raises BundleError."""
    if SECOND_OPINION not in model.parts:
        return None
    part, path = model.part(SECOND_OPINION), model.file(SECOND_WEIGHTS)
    try:
        network = load_codon_network(
            path, part["network"], dtype_of(precision), device_of(device), attention
        )
        one, other = first.encoder.config, network.encoder.config
        if bool(one.attention) != bool(other.attention) or one.head_width != other.head_width:
            raise ValueError("its attention has not the shape of the first network's")
        second = SecondOpinion(
            network,
            unsure=part["unsure"],
            share=part["share"],
            frames=part["frames"],
            virus_groups=are_viral(first.groups, part),
        )
    except (KeyError, TypeError, ValueError) as error:
        reason = f"{error} is missing" if isinstance(error, KeyError) else error
        raise BundleError(
            f"{path}: not the second network that its bundle describes ({reason}); fetch or make "
            "the bundle again"
        ) from error
    return second.to(device)


def part_of(
    network: CodonNetwork,
    *,
    unsure: float,
    share: float,
    frames: int,
    virus_groups: Sequence[str],
) -> dict[str, Any]:
    """Return what a manifest keeps of it besides the weights, as second_opinion_of reads it."""
    return {
        "network": network.part(),
        "unsure": unsure,
        "share": share,
        "frames": frames,
        "virus_groups": list(virus_groups),
    }
