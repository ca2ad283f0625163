"""Classifiers score chunks: one interface for the three kinds of bundle.

Importing this loads no torch; a kind that needs it is loaded when a bundle of that kind is.
"""

from collections.abc import Callable, Mapping, Sequence
from typing import TYPE_CHECKING, Protocol, assert_never

from virnucpro.blocks import Batches, Block
from virnucpro.calls import Scores
from virnucpro.classifiers.model import Model
from virnucpro.classifiers.plan import Plan, chosen, plan_of
from virnucpro.devices.compute import DEFAULTS, Compute
from virnucpro.errors import BundleError

if TYPE_CHECKING:
    import torch

    from virnucpro.classifiers.head import Head
    from virnucpro.classifiers.prepared import FramePreparation, PreparedFrames

__all__ = ["DEFAULTS", "Ahead", "Classifier", "Plan", "classifier_of", "head_of", "plan_of"]


class Classifier(Protocol):
    """A bundle, loaded on a device in a precision."""

    @property
    def name(self) -> str:
        """The bundle's name."""

    @property
    def precision(self) -> str:
        """Precision of matrix products: fp32, bf16 or fp16, or fp64 without torch."""

    @property
    def device(self) -> str:
        """The device as torch names it: cpu, cuda:0."""

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
        """The step that may run in other threads: a block -> what the encoders take of it."""

    @property
    def in_turns(self) -> bool:
        """True if the device holds the weights of only one encoder at a time."""

    @property
    def widths(self) -> tuple[int, int]:
        """The widths of the embeddings of nucleotides and of a protein."""

    def begin(self, prepared: "PreparedFrames") -> Callable[[], Scores]:
        """Sends a block to the device; what it returns waits for the scores."""


def classifier_of(
    model: Model,
    device: "str | torch.device" = "cpu",
    precision: str = "auto",
    compute: Compute = DEFAULTS,
    *,
    embeddings: bool = False,
) -> Classifier:
    """Loads a bundle.

    device: cpu, cuda or cuda:N, or a torch.device of these. precision: fp32, bf16, fp16, fp8, or
    auto (see devices.precision_for). compute: how it computes there. embeddings: the embeddings
    of each frame come back with the scores. Raises BundleError,
    DeviceError, OutOfMemory, and SettingsError for what the kind of bundle or the device does not
    have; device and precision are looked at first.
    """
    name, resolved = chosen(model, device, precision)
    match model.kind:
        case "kmer":
            from virnucpro.classifiers.kmer import kmer_classifier

            return kmer_classifier(model)
        case "chunks":
            from virnucpro.classifiers.whole_chunks import ChunkClassifier

            return ChunkClassifier(model, name, resolved, compute)
        case "frames":
            from virnucpro.classifiers.open_frames import FrameClassifier

            return FrameClassifier(model, name, resolved, compute, embeddings=embeddings)
        case unknown:
            assert_never(unknown)


def head_of(model: Model) -> "Head":
    """The head of a bundle, on the CPU in fp32. Raises BundleError for the k-mer model."""
    match model.kind:
        case "kmer":
            raise BundleError(f"bundle {model.name} is a linear model on k-mers and has no head")
        case "chunks":
            from virnucpro.classifiers.whole_chunks import codon_network_of

            return codon_network_of(model, "cpu", "fp32").head
        case "frames":
            from virnucpro.classifiers.head import load_head
            from virnucpro.classifiers.open_frames import HEAD

            return load_head(model.file(HEAD))
        case unknown:
            assert_never(unknown)
