"""The codon network of the embedded bundles, a whole chunk to one embedding; one network, one file.

Every frame is read as codons from end to end, a stop being a token like any other, by one shared
stack of convolutions; the frames are then combined by attention. Nothing here depends on the order
of the frames, so both strands of a chunk carry the same information; canonical_codes makes even
the rounding the same.

Shapes: B chunks, 6 frames, L letters, T codons, C channels, E embedding width, G groups. A batch
holds chunks of one padded length only, padded_codons(length_nt); letters beyond the end of a chunk
count as N, so no mask is needed, and what a chunk gets does not depend on its neighbours.
"""

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import torch
import torch.nn.functional as F
from numpy.typing import NDArray
from torch import Tensor, nn

from virnucpro.classifiers.head import Head, misfits, state_of
from virnucpro.encoders.attention import Mask, attention, backend_for_short
from virnucpro.encoders.precision import WideLayerNorm, wide
from virnucpro.errors import BundleError
from virnucpro.frames import AMINO_ACIDS, UNKNOWN_LETTER, letter_codes

CODONS = 64
AMBIGUOUS_CODON = 64
CODON_BUCKET = 8
# Chunks have some 84 positions here: the slowest pair of channels turns by less than half a circle.
ROTARY_BASE = 100.0
# Codes of A C G T N in the order of their letters, A < C < G < N < T.
_LETTER_RANK = (0, 1, 2, 4, 3)
_COMPLEMENT = (3, 2, 1, 0, 4)
# Of a probability whose logarithm is taken: the smallest above 0 in fp32.
_LEAST_P = 1e-45
# The amino acid of each codon 16a+4b+c over A C G T, by number, and that of the unknown codon.
_AMINO_NAMES = "ACDEFGHIKLMNPQRSTVWY*X"
AMINO_OF_CODON = tuple(_AMINO_NAMES.index(amino) for amino in AMINO_ACIDS + "X")


def padded_codons(length_nt: int) -> int:
    """Codons that a chunk is padded to: a function of its own length alone."""
    return CODON_BUCKET * max(1, -(-(length_nt // 3) // CODON_BUCKET))


def padded_codes(sequences: Sequence[bytes]) -> tuple[Tensor, Tensor]:
    """Codes (B, L) and lengths (B,) of sequences of one length, as frame_codons takes them."""
    count, length_nt = len(sequences), len(sequences[0])
    codes = np.full((count, 3 * padded_codons(length_nt) + 2), UNKNOWN_LETTER, np.uint8)
    codes[:, :length_nt] = letter_codes(b"".join(sequences)).reshape(count, length_nt)
    return torch.from_numpy(codes), torch.full((count,), length_nt)


def reverse_complement(codes_BL: Tensor, length_B: Tensor) -> Tensor:
    """Reverse complements of codes (A0 C1 G2 T3, else 4), each within its own length."""
    position_L = torch.arange(codes_BL.shape[1], device=codes_BL.device)
    source_BL = length_B[:, None] - 1 - position_L
    inside_BL = source_BL >= 0
    gathered_BL = codes_BL.gather(1, source_BL.clamp(min=0))
    complement = torch.tensor(_COMPLEMENT, dtype=codes_BL.dtype, device=codes_BL.device)
    return torch.where(inside_BL, complement[gathered_BL.long()], UNKNOWN_LETTER)


def canonical_codes(codes_BL: Tensor, length_B: Tensor) -> tuple[Tensor, Tensor]:
    """The lexicographically smaller strand of each chunk; whether it is the reverse one, (B,)."""
    reverse_BL = reverse_complement(codes_BL, length_B)
    rank = torch.tensor(_LETTER_RANK, dtype=torch.int8, device=codes_BL.device)
    difference_BL = rank[codes_BL.long()] - rank[reverse_BL.long()]
    first_B = (difference_BL != 0).to(torch.uint8).argmax(dim=1, keepdim=True)
    flipped_B = difference_BL.gather(1, first_B).squeeze(1) > 0
    return torch.where(flipped_B[:, None], reverse_BL, codes_BL), flipped_B


def frame_codons(codes_BL: Tensor, length_B: Tensor) -> Tensor:
    """Codons 16a+4b+c, or 64 with any letter but ACGT, of F1 F2 F3 R1 R2 R3: (B, 6, T).

    L must be 3 * T + 2.
    """
    strands_B2L = torch.stack([codes_BL, reverse_complement(codes_BL, length_B)], dim=1).int()
    first, second, third = strands_B2L[..., :-2], strands_B2L[..., 1:-1], strands_B2L[..., 2:]
    known = (first < 4) & (second < 4) & (third < 4)
    codon = torch.where(known, 16 * first + 4 * second + third, AMBIGUOUS_CODON)
    batch, _, positions = codon.shape
    return codon.view(batch, 2, positions // 3, 3).transpose(2, 3).reshape(batch, 6, positions // 3)


@dataclass(frozen=True, slots=True, kw_only=True)
class CodonConfig:
    """Shape of the network: per stage its channels, residual blocks and kernel.

    Each stage after the first halves the number of positions. Then attention layers of that many
    heads, each "frame": over the positions of one frame. rotary: channels of a head that are turned
    by position, even; with 0 attention knows no order. embedding is E. dropout acts in training
    only, on channels inside a residual block and on what an attention layer adds.
    """

    channels: tuple[int, ...] = (64, 128)
    blocks: tuple[int, ...] = (1, 3)
    kernels: tuple[int, ...] = (5, 5)
    attention: tuple[str, ...] = ("frame",)
    heads: int = 4
    rotary: int = 0
    embedding: int = 256
    dropout: float = 0.15

    @property
    def head_width(self) -> int:
        """Channels of a head of attention."""
        return self.channels[-1] // self.heads

    def to_dict(self) -> dict[str, Any]:
        """Plain values for a bundle's manifest."""
        return {k: list(v) if isinstance(v, tuple) else v for k, v in asdict(self).items()}

    @classmethod
    def from_dict(cls, values: dict[str, Any]) -> "CodonConfig":
        """The inverse of to_dict."""
        plain: dict[str, Any] = {
            k: tuple(v) if isinstance(v, list) else v for k, v in values.items()
        }
        return cls(**plain)


class Convolution(nn.Module):
    """Convolution along the codons and batch normalisation, which fold() merges for inference."""

    def __init__(self, inputs: int, outputs: int, kernel: int, stride: int = 1) -> None:
        super().__init__()
        padding = (0, (kernel - 1) // 2)
        self.convolution = nn.Conv2d(inputs, outputs, (1, kernel), (1, stride), padding, bias=False)
        self.norm: nn.Module = nn.BatchNorm2d(outputs)

    def forward(self, x_BCFT: Tensor) -> Tensor:
        normed: Tensor = self.norm(self._convolved(x_BCFT))
        return normed

    def _convolved(self, x_BCFT: Tensor) -> Tensor:
        """As one product in fp32 on a GPU, where cuDNN gives wrong rows for 2,048 x 64 x 6 x 168.

        Seen on an H200 with torch 2.11: the first 16 and the last 16 rows, by up to 0.6.
        """
        convolution = self.convolution
        if not x_BCFT.is_cuda or x_BCFT.dtype != torch.float32 or torch.is_grad_enabled():
            convolved: Tensor = convolution(x_BCFT)
            return convolved
        return convolved_as_product(x_BCFT, convolution)

    def fold(self) -> None:
        """Merge the normalisation's running statistics into the weights."""
        norm = self.norm
        if not isinstance(norm, nn.BatchNorm2d):
            return
        assert norm.running_var is not None
        assert norm.running_mean is not None
        scale = norm.weight / torch.sqrt(norm.running_var + norm.eps)
        self.convolution.weight = nn.Parameter(self.convolution.weight * scale[:, None, None, None])
        self.convolution.bias = nn.Parameter(norm.bias - norm.running_mean * scale)
        self.norm = nn.Identity()


def convolved_as_product(x_BCFT: Tensor, convolution: nn.Conv2d) -> Tensor:
    """Return what a convolution along the codons gives, as one matrix product."""
    weight_OC1K, padding = convolution.weight, int(convolution.padding[1])
    padded_BCFT = F.pad(x_BCFT, (padding, padding))
    window_BCFTK = padded_BCFT.unfold(3, weight_OC1K.shape[3], convolution.stride[1])
    batch, _, frames, positions, _ = window_BCFTK.shape
    rows_NI = window_BCFTK.permute(0, 2, 3, 1, 4).reshape(batch * frames * positions, -1)
    product_NO = F.linear(rows_NI, weight_OC1K.flatten(1), convolution.bias)
    return product_NO.view(batch, frames, positions, -1).permute(0, 3, 1, 2)


class Residual(nn.Module):
    """Two convolutions and the way around them."""

    def __init__(self, channels: int, kernel: int, dropout: float) -> None:
        super().__init__()
        self.first = Convolution(channels, channels, kernel)
        self.second = Convolution(channels, channels, kernel)
        self.dropout = nn.Dropout2d(dropout)

    def forward(self, x_BCFT: Tensor) -> Tensor:
        inner = F.relu(self.first(x_BCFT), inplace=True)
        return F.relu(x_BCFT + self.second(self.dropout(inner)), inplace=True)


class Attention(nn.Module):
    """A transformer layer, LayerNorm first, over the positions of each frame.

    Where rotary is 0 it ignores order: neighbours have been mixed by the convolutions before it.
    """

    def __init__(self, channels: int, heads: int, rotary: int, dropout: float) -> None:
        super().__init__()
        self.heads = heads
        self.rotary = rotary
        self.backend = "auto"
        self.attention_norm = WideLayerNorm(channels)
        self.qkv = nn.Linear(channels, 3 * channels)
        self.mix = nn.Linear(channels, channels)
        self.feed_norm = WideLayerNorm(channels)
        self.widen = nn.Linear(channels, 2 * channels)
        self.narrow = nn.Linear(2 * channels, channels)
        self.dropout = nn.Dropout(dropout)

    def forward(self, x_BFTC: Tensor) -> Tensor:
        dtype = self.mix.weight.dtype
        mixed_BFTC = self._mixed(_product(self.qkv, self.attention_norm(x_BFTC).to(dtype)))
        x_BFTC = _plus(x_BFTC, self.dropout(_product(self.mix, mixed_BFTC)))
        hidden = F.relu(_product(self.widen, self.feed_norm(x_BFTC).to(dtype)), inplace=True)
        return _plus(x_BFTC, self.dropout(_product(self.narrow, hidden)))

    def _mixed(self, qkv_BFT3C: Tensor) -> Tensor:
        batch, frames, positions, width = qkv_BFT3C.shape
        qkv_RT3HD = qkv_BFT3C.view(
            batch * frames, positions, 3, self.heads, width // 3 // self.heads
        )
        qk_RT2HD, v_RTHD = qkv_RT3HD[:, :, :2], qkv_RT3HD[:, :, 2]
        if self.rotary:
            qk_RT2HD = _turned(qk_RT2HD, self.rotary)
        q, k = qk_RT2HD.permute(2, 0, 3, 1, 4)
        v = v_RTHD.transpose(1, 2)
        kernel = backend_for_short(self.backend, q.device, q.dtype, q.shape[-1])
        mixed_RHTD = attention(q, k, v, Mask(None, None, positions), backend=kernel)
        return mixed_RHTD.transpose(1, 2).reshape(batch, frames, positions, width // 3)


def _product(linear: nn.Linear, x_BFTC: Tensor) -> Tensor:
    """linear(x); on a CPU, to score, as a convolution, in which oneDNN adds the bias by itself."""
    with_onednn = torch.backends.mkldnn.is_available()  # type: ignore[no-untyped-call]
    if x_BFTC.is_cuda or torch.is_grad_enabled() or not with_onednn:
        found: Tensor = linear(x_BFTC)
        return found
    weight = linear.weight[:, :, None, None]
    return F.conv2d(x_BFTC.permute(0, 3, 1, 2), weight, linear.bias).permute(0, 2, 3, 1)


def _plus(x: Tensor, more: Tensor) -> Tensor:
    """Their sum, in place where no gradient needs the old x."""
    return x + more if torch.is_grad_enabled() else x.add_(more)


def _turned(qk_RT2HD: Tensor, channels: int) -> Tensor:
    """Queries and keys with the first channels of each head turned by position (rotary, Su 2021).

    Pair (d, d + channels/2) turns by t * ROTARY_BASE ** (-2d/channels) at position t. Without
    gradients they are turned where they lie.
    """
    dtype, device = wide(qk_RT2HD.dtype), qk_RT2HD.device
    _, positions, _, heads, _ = qk_RT2HD.shape
    pair = torch.arange(0, channels, 2, device=device, dtype=dtype)
    place_T = torch.arange(positions, device=device, dtype=dtype)
    angle_TP = torch.outer(place_T, ROTARY_BASE ** (-pair / channels))
    cos_TC = torch.cat((angle_TP.cos(), angle_TP.cos()), -1)
    sin_TC = torch.cat((-angle_TP.sin(), angle_TP.sin()), -1)
    # Of the shape of what they multiply and of one piece in memory: four times as fast on a CPU.
    cos, sin = (x[:, None, None, :].repeat(1, 2, heads, 1) for x in (cos_TC, sin_TC))
    given = qk_RT2HD[..., :channels].to(dtype).contiguous()
    crossed = torch.cat(given.chunk(2, dim=-1)[::-1], -1)
    turned = torch.addcmul(given * cos, crossed, sin).to(qk_RT2HD.dtype)
    if torch.is_grad_enabled():
        return torch.cat((turned, qk_RT2HD[..., channels:]), -1)
    qk_RT2HD[..., :channels] = turned
    return qk_RT2HD


class CodonEncoder(nn.Module):
    """Codons (B, 6, T) -> embeddings (B, E) and frame weights (B, 6) that sum to 1."""

    def __init__(self, config: CodonConfig) -> None:
        super().__init__()
        if other := set(config.attention) - {"frame"}:
            raise ValueError(f"attention reaches over a frame, not {other.pop()!r}")
        self.config = config
        channels = config.channels
        self.codon = nn.Embedding(CODONS + 1, channels[0])
        self.amino: nn.Embedding | None = nn.Embedding(len(_AMINO_NAMES), channels[0])
        layers: list[nn.Module] = []
        before = channels[0]
        for stage, (width, blocks, kernel) in enumerate(
            zip(channels, config.blocks, config.kernels, strict=True)
        ):
            if stage:
                layers += [Convolution(before, width, 2, stride=2), nn.ReLU(inplace=True)]
            layers += [Residual(width, kernel, config.dropout) for _ in range(blocks)]
            before = width
        self.stack = nn.Sequential(*layers)
        self.attention = nn.ModuleList(
            Attention(before, config.heads, config.rotary, config.dropout) for _ in config.attention
        )
        self.project = nn.Linear(2 * before, config.embedding)
        self.weigh = nn.Linear(config.embedding, 1)
        self.to(memory_format=torch.channels_last)  # type: ignore[call-overload]

    def forward(self, codons_B6T: Tensor, favour_B6: Tensor | None = None) -> tuple[Tensor, Tensor]:
        """favour: the logarithm of a factor of each frame's weight, before they sum to 1."""
        x_BCFT = self.stack(F.embedding(codons_B6T, self._codon_table()).permute(0, 3, 1, 2))
        x_BFTC = self._attended(x_BCFT.permute(0, 2, 3, 1))
        mean_B6C = x_BFTC.mean(2, dtype=wide(x_BFTC.dtype)).to(x_BFTC.dtype)
        pooled_B6C = torch.cat([mean_B6C, x_BFTC.amax(2)], 2)
        frame_B6E = F.relu(self.project(pooled_B6C.to(self.project.weight.dtype)))
        logit_B6 = self.weigh(frame_B6E).squeeze(2).to(wide(frame_B6E.dtype))
        weight_B6 = (logit_B6 if favour_B6 is None else logit_B6 + favour_B6).softmax(1)
        embedding_BE = (weight_B6[:, :, None].to(frame_B6E.dtype) * frame_B6E).sum(1)
        return embedding_BE, weight_B6

    def _codon_table(self) -> Tensor:
        """A codon is its own vector and that of its amino acid, so that synonyms are alike."""
        if self.amino is None:
            return self.codon.weight
        amino = torch.tensor(AMINO_OF_CODON, device=self.codon.weight.device)
        together: Tensor = self.codon.weight + self.amino(amino)
        return together

    def _attended(self, x_BFTC: Tensor) -> Tensor:
        """Through the attention layers, on a wide residual stream."""
        if len(self.attention):
            x_BFTC = x_BFTC.to(wide(x_BFTC.dtype))
        for layer in self.attention:
            x_BFTC = layer(x_BFTC)
        return x_BFTC

    def fold(self) -> None:
        """Merge what training keeps apart (normalisations, amino acids), for inference only."""
        self.codon.weight = nn.Parameter(self._codon_table().detach())
        self.amino = None
        for module in self.modules():
            if isinstance(module, Convolution):
                module.fold()


class Outputs(NamedTuple):
    """The output of a network for B chunks, in fp32.

    p_virus, p_others: P(virus) and P(others), (B,), each as exact as fp32 is near 0; weight: of the
    frames, (B, 6), that sum to 1; group: P of each of the network's groups, (B, G), that sum to 1;
    G is 0 for a network that knows none.
    """

    p_virus: Tensor
    p_others: Tensor
    weight: Tensor
    group: Tensor

    @property
    def logit(self) -> Tensor:
        """The logarithm of the odds of virus, (B,) in fp64."""
        virus_B, others_B = (p.double().clamp(min=_LEAST_P) for p in (self.p_virus, self.p_others))
        return virus_B.log() - others_B.log()

    def with_added(self, added_B: Tensor, viral_G: Tensor) -> "Outputs":
        """The same with that added to the logit, and to that of each viral group against the rest.

        Chunks to which 0 is added stay as they are, to the last bit.
        """
        odds_B = added_B.exp()
        virus_B, others_B = odds_B * self.p_virus, self.p_others.double()
        group_BG = torch.where(viral_G, odds_B[:, None] * self.group, self.group.double())
        group_BG = group_BG / group_BG.sum(1, keepdim=True)
        both_B, same_B = virus_B + others_B, odds_B == 1
        p_virus_B = torch.where(same_B, self.p_virus, (virus_B / both_B).float())
        p_others_B = torch.where(same_B, self.p_others, (others_B / both_B).float())
        group_BG = torch.where(same_B[:, None], self.group, group_BG.float())
        return Outputs(p_virus_B, p_others_B, self.weight, group_BG)


def are_viral(groups: Sequence[str], part: Mapping[str, Any]) -> list[bool]:
    """Whether each of a network's groups is among the virus_groups of a part of its bundle.

    Raises KeyError and ValueError for a part that does not say.
    """
    names = part["virus_groups"]
    if not isinstance(names, list) or {type(name) for name in names} - {str}:
        raise ValueError("virus_groups is not a list of names")
    return [group in names for group in groups]


class CodonNetwork(nn.Module):
    """The encoder and its heads: codons (B, 6, T) -> logits (B, 2) of others and virus.

    A network that was trained to name groups keeps a second head, for the logits of groups.
    """

    def __init__(self, config: CodonConfig, hidden: int, groups: Sequence[str] = ()) -> None:
        super().__init__()
        self.groups = tuple(groups)
        self.encoder = CodonEncoder(config)
        self.head = Head(config.embedding, hidden)
        self.group = nn.Linear(config.embedding, len(groups)) if groups else None

    def forward(self, codons_B6T: Tensor) -> Tensor:
        return self.both(codons_B6T)[0]

    def both(self, codons_B6T: Tensor) -> tuple[Tensor, Tensor]:
        """Logits (B, 2) of others and virus, and logits (B, G) of the groups."""
        embedding_BE = self.encoder(codons_B6T)[0]
        return self.head(embedding_BE), self._group_logits(embedding_BE)

    def outputs(self, codons_B6T: Tensor, favour_B6: Tensor | None = None) -> Outputs:
        """Probabilities, without gradients; favour: as of CodonEncoder."""
        with torch.inference_mode():
            embedding_BE, weight_B6 = self.encoder(codons_B6T, favour_B6)
            p_others_B, p_virus_B = self.head.probabilities(embedding_BE).unbind(1)
            group_BG = self._group_logits(embedding_BE).softmax(1)
            return Outputs(p_virus_B, p_others_B, weight_B6, group_BG)

    def _group_logits(self, embedding_BE: Tensor) -> Tensor:
        if self.group is None:
            return embedding_BE.new_zeros(len(embedding_BE), 0, dtype=wide(embedding_BE.dtype))
        logits_BG: Tensor = self.group(embedding_BE.to(self.group.weight.dtype))
        return logits_BG.to(wide(logits_BG.dtype))

    def part(self) -> dict[str, Any]:
        """Return what a manifest keeps of the network besides its weights."""
        found = {**self.encoder.config.to_dict(), "hidden": self.head.hidden.out_features}
        return {**found, "groups": list(self.groups)} if self.groups else found

    def arrays(self) -> dict[str, NDArray[Any]]:
        """The weights by name, as a bundle keeps them."""
        return {k: v.detach().cpu().contiguous().numpy() for k, v in self.state_dict().items()}

    def for_inference(self) -> "CodonNetwork":
        """Itself, folded, in eval mode and without gradients."""
        self.eval()
        self.encoder.fold()
        return self.requires_grad_(False)


def codon_network(part: Mapping[str, Any], where: Path | str = "bundle.toml") -> CodonNetwork:
    """The network that part() describes, with random weights. Raises BundleError."""
    values = dict(part)
    try:
        hidden, groups = int(values.pop("hidden")), values.pop("groups", ())
        return CodonNetwork(CodonConfig.from_dict(values), hidden, tuple(map(str, groups)))
    except (KeyError, TypeError, ValueError) as error:
        raise BundleError(f"{where}: does not describe a codon network ({error})") from error


def load_codon_network(
    path: Path,
    part: Mapping[str, Any],
    dtype: torch.dtype,
    device: torch.device,
    attention: str = "auto",
) -> CodonNetwork:
    """A network ready to score. Raises BundleError where file and description do not fit.

    attention: see attention.BACKENDS.
    """
    network = codon_network(part, path)
    state = state_of(path)
    if wrong := misfits(network, state):
        raise BundleError(f"{path}: not the weights that its bundle describes; see {wrong[0]}")
    network.load_state_dict(state)
    network.for_inference().to(device=device, dtype=dtype)
    for layer in network.encoder.attention:
        assert isinstance(layer, Attention)
        layer.backend = attention
    # In bf16 the heads would leave a few hundred distinct scores, and ties among them.
    network.head.float()
    if network.group is not None:
        network.group.float()
    return network


def unflip_frames(weight_B6: Tensor, flipped_B: Tensor) -> Tensor:
    """Frame weights of the strand that was scored -> those of the chunk as it was given."""
    other_B6 = weight_B6[:, [3, 4, 5, 0, 1, 2]]
    return torch.where(flipped_B[:, None], other_B6, weight_B6)
