"""The device and the precision that a run computes in."""

import os
import re
from collections.abc import Sequence

from virnucpro.devices.machine import (
    BF16_CAPABILITY,
    FP8_CAPABILITY,
    FP16_CAPABILITY,
    cpu_has_bf16,
    gpu_count,
)
from virnucpro.errors import DeviceError, SettingsError
from virnucpro.progress import several

PRECISIONS = ("auto", "fp32", "bf16", "fp16", "fp8")
_DEVICE = re.compile(r"(cpu|cuda)(:\d+)?")


def devices_for(gpus: str | None) -> list[str]:
    """Return the devices of a run: cpu, or cuda:N for each GPU.

    gpus: all, none, or numbers as 0,1; None takes the first GPU if there is one. Raises DeviceError
    for a GPU that is missing, SettingsError for another value.
    """
    if gpus == "none":
        return ["cpu"]
    numbers = [] if gpus in (None, "all") else [part.strip() for part in str(gpus).split(",")]
    if not all(number.isdecimal() for number in numbers) or len({*numbers}) < len(numbers):
        raise SettingsError(
            f"--gpus must be all, none, or different numbers as 0 or 0,1, got {gpus!r}"
        )
    names = [f"cuda:{int(number)}" for number in numbers]
    for name in names:
        check_present(name)
    if names:
        return names
    present = gpu_count()
    if gpus == "all":
        if not present:
            raise DeviceError(
                "--gpus all needs a GPU, but torch sees no CUDA device; compute on the CPU with "
                "--gpus none, or see with virnucpro doctor what is there"
            )
        return [f"cuda:{number}" for number in range(present)]
    return ["cuda:0" if present else "cpu"]


def visible_devices(devices: Sequence[str]) -> list[str]:
    """Return what a process sees in CUDA_VISIBLE_DEVICES that has one of these devices alone."""
    outer = os.environ.get("CUDA_VISIBLE_DEVICES")
    names = outer.split(",") if outer else None
    numbers = [int(device.partition(":")[2] or 0) for device in devices]
    return [names[number] if names else str(number) for number in numbers]


def known_device(device: object) -> str:
    """The name of a device, also of a torch.device; whether it is there is looked at on loading.

    Raises DeviceError for one that nothing here computes on.
    """
    name = str(device)
    if _DEVICE.fullmatch(name) is None:
        raise DeviceError(f"device {name!r} is not known; choose cpu or cuda, or one as cuda:0")
    return name


def precision_for(wish: str, device: str, bf16_agrees: bool, guarded: bool = False) -> str:
    """The precision to compute in.

    auto is on CUDA of capability 7.0 and up fp16 where an overflow is mended (guarded), which
    rounds eight times finer than bf16; else bf16 from 8.0 on; on a CPU bf16 where it is in hardware
    and the bundle states its agreement with fp32 (bf16_agrees); else fp32.

    Raises SettingsError for an unknown name, DeviceError for a device that is missing.
    """
    if wish not in PRECISIONS:
        raise SettingsError(f"precision {wish!r} is not known; choose {', '.join(PRECISIONS)}")
    if wish != "auto":
        return wish
    if device.startswith("cpu"):
        return "bf16" if bf16_agrees and cpu_has_bf16() else "fp32"
    capability = _capability(device)
    if guarded and capability >= FP16_CAPABILITY:
        return "fp16"
    return "bf16" if capability >= BF16_CAPABILITY else "fp32"


def check_present(device: str) -> None:
    """Raises DeviceError for a known device that this machine lacks."""
    here = gpu_count()
    if device.startswith("cuda") and int(device.partition(":")[2] or 0) >= here:
        seen = f"{several(here, 'CUDA device')} here, counted from 0" if here else "no CUDA device"
        raise DeviceError(
            f"device {device} was asked for, but torch sees {seen}; virnucpro doctor shows what "
            "there is"
        )


def _capability(device: str) -> tuple[int, int]:
    import torch

    check_present(device)
    return torch.cuda.get_device_capability(device)


def check_fp8(device: str) -> None:
    """Raises DeviceError for a known device that has no fp8 products with a scale for each row."""
    if device.startswith("cpu") or _capability(device) < FP8_CAPABILITY:
        raise DeviceError(
            f"precision fp8 needs a GPU of capability {'.'.join(map(str, FP8_CAPABILITY))} "
            f"(Hopper) or newer, which {device} is not; choose bf16"
        )
