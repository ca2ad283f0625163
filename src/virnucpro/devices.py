"""What this machine offers, as observed: processors, precision, memory.

Importing this loads no torch.
"""

import os
import platform
import re
import resource
import sys
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import TypeVar

from virnucpro.errors import DeviceError, SettingsError

PRECISIONS = ("auto", "fp32", "bf16", "fp16")
BF16_CAPABILITY = (8, 0)
CGROUP_QUOTA = Path("/sys/fs/cgroup/cpu.max")
PROCESS = Path("/proc/self/status")

_DEVICE = re.compile(r"(cpu|cuda)(:\d+)?")

Item = TypeVar("Item")
Found = TypeVar("Found")


@dataclass(frozen=True, slots=True)
class Device:
    """Where a run computes. kind: cpu or cuda; name: the machine's own; threads: of the CPU."""

    kind: str
    name: str
    threads: int


def cpu_count() -> int:
    """Processors that this process may use, by affinity and cgroup quota, at least 1."""
    allowed = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count()
    return max(1, min(allowed or 1, _cgroup_quota() or sys.maxsize))


def _cgroup_quota() -> int | None:
    try:
        quota, period = CGROUP_QUOTA.read_text("ascii").split()
    except (OSError, ValueError):
        return None
    return None if quota == "max" else max(1, int(quota) // int(period))


def cpu_name() -> str:
    """The processor's name, as the system tells it."""
    try:
        with open("/proc/cpuinfo", encoding="utf-8", errors="replace") as file:  # noqa: PTH123
            for line in file:
                if line.startswith("model name"):
                    return line.split(":", 1)[1].strip()
    except OSError:
        pass
    return platform.processor() or platform.machine()


def peak_memory_bytes() -> int:
    """The largest resident size of this process so far.

    Linux keeps it exactly; what getrusage gives there begins at the size of the process that
    started this one.
    """
    with suppress(OSError):
        for line in PROCESS.read_text("ascii", "replace").splitlines():
            if line.startswith("VmHWM:"):
                return int(line.split()[1]) * 1024
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return peak if sys.platform == "darwin" else peak * 1024


def use_threads(threads: int | None) -> int:
    """Sets how many threads torch computes with on the CPU; None means every processor allowed."""
    import torch

    if threads is not None and threads < 1:
        raise SettingsError(f"{threads} threads cannot compute; give 1 or more")
    torch.set_num_threads(threads or cpu_count())
    return torch.get_num_threads()


def each_on_one_thread(compute: Callable[[Item], Found], items: Sequence[Item]) -> list[Found]:
    """compute of every item, in order: as many at once as torch has CPU threads, one thread each.

    Threads that share a product wait for each other after each one, which costs a fifth on an idle
    machine and most of the time on a busy one. What one thread computes is also the same number
    however many there are. After an error or an interrupt no further item is begun.
    """
    import torch

    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        with ThreadPoolExecutor(threads) as pool:
            return list(pool.map(compute, items))
    finally:
        torch.set_num_threads(threads)


def cpu_has_bf16() -> bool:
    """Whether this CPU multiplies bf16 matrices in hardware (AMX or AVX512-BF16).

    On other CPUs bf16 is emulated, and slower than fp32.
    """
    import torch

    cpu = torch.cpu
    return bool(cpu._is_amx_tile_supported() or cpu._is_avx512_bf16_supported())


def known_device(device: object) -> str:
    """The name of a device, also of a torch.device; whether it is there is looked at on loading.

    Raises DeviceError for one that nothing here computes on.
    """
    name = str(device)
    if _DEVICE.fullmatch(name) is None:
        raise DeviceError(f"device {name!r} is not known; choose cpu or cuda, or one as cuda:0")
    return name


def precision_for(wish: str, device: str, bf16_agrees: bool) -> str:
    """The precision to compute in.

    auto is bf16 on CUDA of capability 8.0 and up, on a CPU bf16 where it is in hardware and the
    bundle states its agreement with fp32 (bf16_agrees), else fp32. Raises SettingsError for a name
    that is none, DeviceError for a device that is not there.
    """
    if wish not in PRECISIONS:
        raise SettingsError(f"precision {wish!r} is not known; choose {', '.join(PRECISIONS)}")
    if wish != "auto":
        return wish
    if device.startswith("cpu"):
        return "bf16" if bf16_agrees and cpu_has_bf16() else "fp32"
    return "bf16" if _capability(device) >= BF16_CAPABILITY else "fp32"


def check_present(device: str) -> None:
    """Raises DeviceError for a known device that this machine lacks."""
    import torch

    here = torch.cuda.device_count() if torch.cuda.is_available() else 0
    if device.startswith("cuda") and int(device.partition(":")[2] or 0) >= here:
        raise DeviceError(
            f"device {device} was asked for, but torch sees {here or 'no'} CUDA "
            f"device{'s' * (here > 1)} here"
        )


def _capability(device: str) -> tuple[int, int]:
    import torch

    check_present(device)
    return torch.cuda.get_device_capability(device)
