"""The plan of a run: what a bundle will compute in on this machine, before its weights are read."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, assert_never

from virnucpro.classifiers.model import Model
from virnucpro.devices.choice import check_fp8, known_device, precision_for
from virnucpro.errors import DeviceError, SettingsError

if TYPE_CHECKING:
    import torch


# 500 knt hold some 1,000 to 3,000 open frames, 2 s of a GPU: few pads, a kill costs little, and of
# several GPUs none waits long for the last block of another. The first block is what a GPU waits
# for, so it holds less.
CUDA_BLOCK_NT = 500_000
CUDA_FIRST_NT = 250_000


@dataclass(frozen=True, slots=True)
class Plan:
    """The precision, device and kernels of a bundle, known before its weights are read.

    precision, device: as of Classifier; attention: the kernels by which small tensors of each
    encoder's kind were computed there; first_nt, block_nt: sizes of blocks, see batches.blocks_of.
    """

    precision: str
    device: str
    attention: Mapping[str, str]
    first_nt: int
    block_nt: int


def plan_of(
    model: Model,
    device: "str | torch.device" = "cpu",
    precision: str = "auto",
    attention: str = "auto",
) -> Plan:
    """Return how classifier_of would compute. Raises DeviceError and SettingsError as it does."""
    name, resolved = chosen(model, device, precision)
    if model.kind == "kmer":
        return Plan(resolved, name, {}, model.block_nt, model.block_nt)
    from virnucpro.encoders.attention import backend_for, check_backend, kernels_tried
    from virnucpro.encoders.precision import device_of, dtype_of, products

    place = device_of(name)
    if resolved == "fp8":
        check_fp8(name)
    dtype = dtype_of(products(resolved))
    check_backend(attention, place, dtype, biased=False)
    match model.kind:
        case "frames":
            kernels = {
                encoder: kernels_tried(
                    place, dtype, slopes=biased, pads=True, backend=backend_for(attention, biased)
                )
                for encoder, biased in {"dnabert_s": True, "esm2": False}.items()
            }
        case "chunks":
            kernels = _kernels_of_codons(model, place, dtype, attention)
        case unknown:
            assert_never(unknown)
    return Plan(resolved, name, kernels, *_block_sizes(model, name))


def _kernels_of_codons(
    model: Model, place: "torch.device", dtype: "torch.dtype", attention: str
) -> dict[str, str]:
    from virnucpro.classifiers.codon import codon_network
    from virnucpro.encoders.attention import backend_for_short, kernels_tried

    config = codon_network(model.part("codon"), model.path).encoder.config
    if not config.attention:
        return {}
    backend = backend_for_short(attention, place, dtype, config.head_width)
    return {"codon": kernels_tried(place, dtype, slopes=False, pads=False, backend=backend)}


def _block_sizes(model: Model, device: str) -> tuple[int, int]:
    """A GPU needs more at once than what costs a CPU minutes."""
    least = model.block_nt
    if model.kind == "frames" and device.startswith("cuda"):
        return max(least, CUDA_FIRST_NT), max(least, CUDA_BLOCK_NT)
    return least, least


def chosen(model: Model, device: "str | torch.device", precision: str) -> tuple[str, str]:
    """Device and precision by name. Raises DeviceError, and SettingsError."""
    name = known_device(device)
    agrees = "bf16" in model.parts.get("agreement", {})
    match model.kind:
        case "kmer":
            if not name.startswith("cpu"):
                raise DeviceError(f"bundle {model.name} computes on the cpu only, not on {name}")
            if precision not in ("auto", "fp64"):
                raise SettingsError(
                    f"bundle {model.name} computes in fp64 only, not in {precision}"
                )
            return name, "fp64"
        case "chunks":
            if precision == "fp8":
                raise SettingsError(
                    f"precision fp8 is for published encoders on a Hopper GPU; bundle {model.name} "
                    "computes in fp32, bf16 or fp16"
                )
            return name, precision_for(precision, name, agrees)
        case "frames":
            return name, precision_for(precision, name, agrees, guarded=True)
        case unknown:
            assert_never(unknown)
