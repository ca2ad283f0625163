"""What scores chunks: one face for the three kinds of bundle.

Importing this loads no torch; a kind that needs it is loaded when a bundle of that kind is.
"""

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Protocol

from virnucpro.batches import Block
from virnucpro.bundle import Bundle
from virnucpro.cache import cache_dir
from virnucpro.calls import Scores
from virnucpro.devices import known_device, precision_for
from virnucpro.errors import BundleError, DeviceError, SettingsError

if TYPE_CHECKING:
    import torch

    from virnucpro.head import Head

__all__ = ["Classifier", "classifier_of", "head_of"]


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
    device = known_device(device)
    if bundle.kind == "kmer":
        from virnucpro.classifiers.kmers import kmer_classifier

        if not device.startswith("cpu"):
            raise DeviceError(f"bundle {bundle.name} computes on the cpu only, not on {device}")
        if precision not in ("auto", "fp64"):
            raise SettingsError(f"bundle {bundle.name} computes in fp64 only, not in {precision}")
        return kmer_classifier(bundle)
    agrees = "bf16" in bundle.parts.get("agreement", {})
    chosen = precision_for(precision, device, agrees)
    if bundle.kind == "chunks":
        from virnucpro.classifiers.whole_chunks import ChunkClassifier

        return ChunkClassifier(bundle, device, chosen)
    from virnucpro.classifiers.open_frames import FrameClassifier

    return FrameClassifier(bundle, device, chosen, cache_dir() if cache_weights else None)


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
