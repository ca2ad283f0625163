"""What scores chunks: one face for the three kinds of bundle.

Importing this loads no torch; a kind that needs it is loaded when a bundle of that kind is.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Protocol

from virnucpro.batches import Block
from virnucpro.bundle import Bundle
from virnucpro.cache import cache_dir
from virnucpro.calls import Scores
from virnucpro.devices import check_fp8, known_device, precision_for
from virnucpro.errors import BundleError, DeviceError, SettingsError

if TYPE_CHECKING:
    import torch

    from virnucpro.head import Head

__all__ = ["Classifier", "Plan", "classifier_of", "head_of", "plan_of"]


class Classifier(Protocol):
    """A bundle, loaded on a device in a precision."""

    @property
    def name(self) -> str:
        """The bundle's name."""

    @property
    def precision(self) -> str:
        """What matrix products run in: fp32, bf16 or fp16, or fp64 without torch."""

    @property
    def device(self) -> str:
        """As torch names it: cpu, cuda:0."""

    @property
    def attention(self) -> Mapping[str, str]:
        """The attention kernels of each encoder that have run so far, with commas, as observed."""

    def score_block(self, block: Block) -> Scores:
        """Scores of a block's chunks, in the order of its rows."""

    def score(self, chunks: Sequence[str]) -> Scores:
        """Scores of chunks given as text, in any case, U read as T."""


@dataclass(frozen=True, slots=True)
class Plan:
    """What a bundle will compute in, known before its weights are read.

    precision, device: as of Classifier; attention: the kernels by which small tensors of each
    encoder's kind were computed there.
    """

    precision: str
    device: str
    attention: Mapping[str, str]


def plan_of(bundle: Bundle, device: "str | torch.device" = "cpu", precision: str = "auto") -> Plan:
    """How classifier_of would compute. Raises DeviceError and SettingsError as it does."""
    name, chosen = _chosen(bundle, device, precision)
    if bundle.kind == "kmer":
        return Plan(chosen, name, {})
    from virnucpro.encoders.attention import kernels_tried
    from virnucpro.encoders.precision import device_of, dtype_of

    place = device_of(name)
    eight_bit = chosen == "fp8" and bundle.kind == "frames"
    if eight_bit:
        check_fp8(name)
    dtype = dtype_of("bf16" if eight_bit else chosen)
    if bundle.kind == "frames":
        slopes = {"dnabert_s": True, "esm2": False}
        kernels = {e: kernels_tried(place, dtype, slopes=s, pads=True) for e, s in slopes.items()}
    elif bundle.part("codon").get("attention"):
        kernels = {"codon": kernels_tried(place, dtype, slopes=False, pads=False)}
    else:
        kernels = {}
    return Plan(chosen, name, kernels)


def classifier_of(
    bundle: Bundle,
    device: "str | torch.device" = "cpu",
    precision: str = "auto",
    *,
    cache_weights: bool = False,
) -> Classifier:
    """Loads a bundle.

    device: cpu, cuda or cuda:N, or a torch.device of these. precision: fp32, bf16, fp16, or auto
    (see devices.precision_for). cache_weights: whether the published encoders are kept in the cache
    as they lie in memory, and read from there. Raises BundleError, DeviceError, and SettingsError
    for a precision that the kind of bundle does not have; device and precision are looked at first.
    """
    name, chosen = _chosen(bundle, device, precision)
    if bundle.kind == "kmer":
        from virnucpro.classifiers.kmers import kmer_classifier

        return kmer_classifier(bundle)
    if bundle.kind == "chunks":
        from virnucpro.classifiers.whole_chunks import ChunkClassifier

        return ChunkClassifier(bundle, name, chosen)
    from virnucpro.classifiers.open_frames import FrameClassifier

    return FrameClassifier(bundle, name, chosen, cache_dir() if cache_weights else None)


def _chosen(bundle: Bundle, device: "str | torch.device", precision: str) -> tuple[str, str]:
    """Device and precision by name. Raises DeviceError, and SettingsError."""
    name = known_device(device)
    if bundle.kind == "kmer":
        if not name.startswith("cpu"):
            raise DeviceError(f"bundle {bundle.name} computes on the cpu only, not on {name}")
        if precision not in ("auto", "fp64"):
            raise SettingsError(f"bundle {bundle.name} computes in fp64 only, not in {precision}")
        return name, "fp64"
    agrees = "bf16" in bundle.parts.get("agreement", {})
    return name, precision_for(precision, name, agrees)


def head_of(bundle: Bundle) -> "Head":
    """The head of a bundle, on the CPU in fp32. Raises BundleError for the k-mer model."""
    if bundle.kind == "kmer":
        raise BundleError(f"bundle {bundle.name} is a linear model on k-mers and has no head")
    if bundle.kind == "chunks":
        from virnucpro.classifiers.whole_chunks import codon_network_of

        return codon_network_of(bundle, "cpu", "fp32").head
    from virnucpro.classifiers.open_frames import HEAD
    from virnucpro.head import load_head

    return load_head(bundle.file(HEAD))
