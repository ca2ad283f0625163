"""What scores chunks: one face for the three kinds of bundle.

Importing this loads no torch; a kind that needs it is loaded when a bundle of that kind is.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Protocol

from virnucpro.batches import Batches, Block
from virnucpro.bundle import Bundle
from virnucpro.calls import Scores
from virnucpro.devices import check_fp8, known_device, precision_for
from virnucpro.engine import DEFAULTS, Engine
from virnucpro.errors import BundleError, DeviceError, SettingsError

if TYPE_CHECKING:
    import torch

    from virnucpro.head import Head
    from virnucpro.preparation import FramePreparation, PreparedFrames

__all__ = ["DEFAULTS", "Ahead", "Classifier", "Plan", "classifier_of", "head_of", "plan_of"]

# 2 Mnt hold some 6,000 open frames, 60 batches of a GPU: few pads, and a kill costs seconds. The
# first block is what a GPU waits for, so it holds less.
CUDA_BLOCK_NT, CUDA_FIRST_NT = 2_000_000, 250_000


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

    @property
    def batches(self) -> Mapping[str, Batches]:
        """The batches of each encoder so far."""

    @property
    def ahead(self) -> "Ahead | None":
        """Itself where blocks are prepared ahead of the device, else None."""

    def restore_budgets(self) -> None:
        """Batches are as large as when it was loaded, whatever did not fit in memory since."""

    def score_block(self, block: Block) -> Scores:
        """Scores of a block's chunks, in the order of its rows."""

    def score(self, chunks: Sequence[str]) -> Scores:
        """Scores of chunks given as text, in any case, U read as T."""


class Ahead(Protocol):
    """A classifier for which blocks are prepared on the host while the device computes."""

    @property
    def preparation(self) -> "FramePreparation":
        """What may run in another process: a block -> what the encoders take of it."""

    @property
    def in_turns(self) -> bool:
        """Whether the device holds the weights of only one encoder at a time."""

    @property
    def widths(self) -> tuple[int, int]:
        """Of the embeddings of nucleotides and of a protein."""

    def begin(self, prepared: "PreparedFrames") -> Callable[[], Scores]:
        """Sends a block to the device; what it returns waits for the scores."""


@dataclass(frozen=True, slots=True)
class Plan:
    """What a bundle will compute in, known before its weights are read.

    precision, device: as of Classifier; attention: the kernels by which small tensors of each
    encoder's kind were computed there; first_nt, block_nt: sizes of blocks, see batches.blocks_of.
    """

    precision: str
    device: str
    attention: Mapping[str, str]
    first_nt: int
    block_nt: int


def plan_of(
    bundle: Bundle,
    device: "str | torch.device" = "cpu",
    precision: str = "auto",
    attention: str = "auto",
) -> Plan:
    """How classifier_of would compute. Raises DeviceError and SettingsError as it does."""
    name, chosen = _chosen(bundle, device, precision)
    if bundle.kind == "kmer":
        return Plan(chosen, name, {}, bundle.block_nt, bundle.block_nt)
    from virnucpro.encoders.attention import backend_for, check_backend, kernels_tried
    from virnucpro.encoders.precision import device_of, dtype_of, products

    place = device_of(name)
    if chosen == "fp8":
        check_fp8(name)
    dtype = dtype_of(products(chosen))
    check_backend(attention, place, dtype, biased=False)
    if bundle.kind == "frames":
        slopes = {"dnabert_s": True, "esm2": False}
    else:
        slopes = {"codon": False} if bundle.part("codon").get("attention") else {}
    kernels = {
        encoder: kernels_tried(
            place,
            dtype,
            slopes=biased,
            pads=bundle.kind == "frames",
            backend=backend_for(attention, biased),
        )
        for encoder, biased in slopes.items()
    }
    return Plan(chosen, name, kernels, *_block_sizes(bundle, name))


def _block_sizes(bundle: Bundle, device: str) -> tuple[int, int]:
    """A GPU needs more at once than what costs a CPU minutes."""
    least = bundle.block_nt
    if bundle.kind == "frames" and device.startswith("cuda"):
        return max(least, CUDA_FIRST_NT), max(least, CUDA_BLOCK_NT)
    return least, least


def classifier_of(
    bundle: Bundle,
    device: "str | torch.device" = "cpu",
    precision: str = "auto",
    engine: Engine = DEFAULTS,
) -> Classifier:
    """Loads a bundle.

    device: cpu, cuda or cuda:N, or a torch.device of these. precision: fp32, bf16, fp16, fp8, or
    auto (see devices.precision_for). engine: how it computes there. Raises BundleError,
    DeviceError, OutOfMemory, and SettingsError for what the kind of bundle or the device does not
    have; device and precision are looked at first.
    """
    name, chosen = _chosen(bundle, device, precision)
    if bundle.kind == "kmer":
        from virnucpro.classifiers.kmers import kmer_classifier

        return kmer_classifier(bundle)
    if bundle.kind == "chunks":
        from virnucpro.classifiers.whole_chunks import ChunkClassifier

        return ChunkClassifier(bundle, name, chosen, engine)
    from virnucpro.classifiers.open_frames import FrameClassifier

    return FrameClassifier(bundle, name, chosen, engine)


def _chosen(bundle: Bundle, device: "str | torch.device", precision: str) -> tuple[str, str]:
    """Device and precision by name. Raises DeviceError, and SettingsError."""
    name = known_device(device)
    if bundle.kind == "kmer":
        if not name.startswith("cpu"):
            raise DeviceError(f"bundle {bundle.name} computes on the cpu only, not on {name}")
        if precision not in ("auto", "fp64"):
            raise SettingsError(f"bundle {bundle.name} computes in fp64 only, not in {precision}")
        return name, "fp64"
    if precision == "fp8" and bundle.kind != "frames":
        raise SettingsError(
            f"precision fp8 is for published encoders on a Hopper GPU; bundle {bundle.name} "
            "computes in fp32, bf16 or fp16"
        )
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
