"""The machine, as observed: processors, precision, memory; the out-of-memory answer.

Importing this loads no torch.
"""

import os
import platform
import sys
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import TypeVar

from virnucpro.errors import SettingsError
from virnucpro.progress import stepped

# Matrix units for fp16.
FP16_CAPABILITY = (7, 0)
BF16_CAPABILITY = (8, 0)
FP8_CAPABILITY = (9, 0)
CGROUP_QUOTA = Path("/sys/fs/cgroup/cpu.max")


Item = TypeVar("Item")
Found = TypeVar("Found")


@dataclass(frozen=True, slots=True)
class Device:
    """The device of a run. index: cpu or cuda:N; name: the machine's own; threads: of the CPU."""

    index: str
    name: str
    threads: int

    @property
    def kind(self) -> str:
        """cpu or cuda."""
        return self.index.partition(":")[0]


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


def use_threads(threads: int | None) -> int:
    """Sets how many threads torch computes with on the CPU, and says how many these are.

    None: as many as threads_by_environment says, else every processor allowed.
    """
    import torch

    if threads is not None and threads < 1:
        raise SettingsError(f"{threads} threads cannot compute; give 1 or more")
    torch.set_num_threads(threads or threads_by_environment() or cpu_count())
    return torch.get_num_threads()


def threads_by_environment() -> int | None:
    """OMP_NUM_THREADS, where it is fewer threads than the processors that may be used."""
    # For nested work it may be a list, of which the first is meant for the outermost.
    asked = os.environ.get("OMP_NUM_THREADS", "").split(",")[0].strip()
    return int(asked) if asked.isdecimal() and 0 < int(asked) < cpu_count() else None


def each_on_one_thread(compute: Callable[[Item], Found], items: Sequence[Item]) -> list[Found]:
    """compute of every item, in order: as many at once as torch has CPU threads, one thread each.

    Threads that share a product wait for each other after each one, which costs a fifth on an idle
    machine and most of the time on a busy one. What one thread computes is also the same number
    however many there are. After an error or an interrupt no further item is begun. Each item is a
    step, as in progress.stepped.
    """
    import torch

    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        if min(threads, len(items)) < 2:  # a thread takes memory, and there may be little
            return _each_a_step(map(compute, items))
        with ThreadPoolExecutor(threads) as pool:
            try:
                return _each_a_step(pool.map(compute, items))
            except BaseException:
                pool.shutdown(cancel_futures=True)
                raise
    finally:
        torch.set_num_threads(threads)


def _each_a_step(found: Iterator[Found]) -> list[Found]:
    items = []
    for item in found:
        items.append(item)
        stepped(1)
    return items


_WITHOUT_BF16 = {"SSE41", "AVX", "AVX2", "AVX2_VNNI", "AVX512_CORE", "AVX512_CORE_VNNI"}


def cpu_has_bf16() -> bool:
    """Return True if this CPU multiplies bf16 matrices in hardware (AMX or AVX512-BF16).

    On other CPUs bf16 is emulated, and slower than fp32. A limit in ONEDNN_MAX_CPU_ISA counts:
    oneDNN then has no such product.
    """
    import torch

    if os.environ.get("ONEDNN_MAX_CPU_ISA", "").upper() in _WITHOUT_BF16:
        return False

    cpu = torch.cpu
    return bool(cpu._is_amx_tile_supported() or cpu._is_avx512_bf16_supported())


def gpu_count() -> int:
    """The CUDA devices that torch sees."""
    import torch

    return torch.cuda.device_count() if torch.cuda.is_available() else 0


def gpu_utilisation(device: str) -> float | None:
    """Return the share of the last moments in which a GPU computed, by its driver; None: unknown.

    Known where nvidia-ml-py is installed.
    """
    if not device.startswith("cuda"):
        return None
    try:
        from pynvml import NVMLError
    except ImportError:
        return None
    import torch

    try:
        return torch.cuda.utilization(device) / 100
    except (NVMLError, RuntimeError):  # a driver that does not tell
        return None


def device_name(device: str) -> str:
    """Return the name that a device gives itself."""
    if device.startswith("cpu"):
        return cpu_name()
    import torch

    return torch.cuda.get_device_name(device)
