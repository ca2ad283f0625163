"""What this machine offers, as observed: processors, precision, memory; the out-of-memory answer.

Importing this loads no torch.
"""

import os
import platform
import re
import resource
import sys
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, TypeVar

from virnucpro.errors import DeviceError, OutOfMemory, SettingsError

if TYPE_CHECKING:
    import torch

PRECISIONS = ("auto", "fp32", "bf16", "fp16", "fp8")
BF16_CAPABILITY = (8, 0)
FP8_CAPABILITY = (9, 0)
# Both names are honoured by torch; the older one wins there when both are set.
ALLOCATOR = ("PYTORCH_CUDA_ALLOC_CONF", "PYTORCH_ALLOC_CONF")
EXPANDABLE = "expandable_segments"
# Of what is free, so much may be planned for: the rest goes to fragments and to the libraries.
PLANNED = 0.8
# Of what the allocator reserved, so much held by no tensor is worth a word.
FRAGMENTED = 0.2
GIB = 1 << 30
CGROUP_QUOTA = Path("/sys/fs/cgroup/cpu.max")
PROCESS = Path("/proc/self/status")
MACHINE = Path("/proc/meminfo")

# What else than torch.OutOfMemoryError and MemoryError says that memory ran out: whole messages, of
# an allocation on the CPU, of the CUDA driver, of cuBLAS, cuDNN and Triton.
_OUT_OF_MEMORY = re.compile(
    r"(\[enforce fail at alloc_cpu\.cpp:\d+\] (err == 0|data)\. )?"
    r"DefaultCPUAllocator: (can't allocate memory|not enough memory): "
    r"you tried to allocate \d+ bytes\.( Error code \d+ \([^)]*\))?"
    r"|CUDA (driver )?error: out of memory"
    r"|CUDA error: CUBLAS_STATUS_ALLOC_FAILED when calling `cublas\w+\(.*\)`"
    r"|cuDNN error: CUDNN_STATUS_(ALLOC_FAILED|INTERNAL_ERROR_DEVICE_ALLOCATION_FAILED)"
    r"|Triton Error \[CUDA\]: out of memory"
)

_DEVICE = re.compile(r"(cpu|cuda)(:\d+)?")

Item = TypeVar("Item")
Found = TypeVar("Found")


@dataclass(frozen=True, slots=True)
class Device:
    """Where a run computes. index: cpu or cuda:N; name: the machine's own; threads: of the CPU."""

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


def peak_memory_bytes() -> int:
    """The largest resident size of this process so far.

    Linux keeps it exactly; what getrusage gives there begins at the size of the process that
    started this one.
    """
    if (known := _kilobytes(PROCESS, "VmHWM:")) is not None:
        return known
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return peak if sys.platform == "darwin" else peak * 1024


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


def device_for(gpus: str | None) -> str:
    """The device of a run: cpu, or cuda:N.

    gpus: all, none, or the number of one; None takes the first GPU if there is one. Raises
    DeviceError for a GPU that is not there, SettingsError for what means nothing, and for several,
    on which a run cannot compute yet.
    """
    if gpus == "none":
        return "cpu"
    words = [] if gpus in (None, "all") else str(gpus).split(",")
    if not all(word.strip().isdecimal() for word in words):
        raise SettingsError(f"gpus is {gpus!r}, but must be all, none, or the number of one")
    if len(words) > 1:
        raise SettingsError(
            f"a run computes on one GPU only, not on {len(words)}; name one, as --gpus "
            f"{words[0].strip()}"
        )
    here = gpu_count()
    if gpus == "all" and here > 1:
        raise SettingsError(
            f"a run computes on one GPU only, and there are {here}; name one, as --gpus 0"
        )
    if words:
        name = f"cuda:{int(words[0])}"
        check_present(name)
        return name
    if gpus == "all" and not here:
        raise DeviceError(
            "all GPUs were asked for, but torch sees no CUDA device here; compute on the CPU by "
            "--gpus none, or see with virnucpro doctor what is there"
        )
    return "cuda:0" if here else "cpu"


def gpu_count() -> int:
    """The CUDA devices that torch sees."""
    import torch

    return torch.cuda.device_count() if torch.cuda.is_available() else 0


def device_name(device: str) -> str:
    """What a device calls itself."""
    if device.startswith("cpu"):
        return cpu_name()
    import torch

    return torch.cuda.get_device_name(device)


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
    here = gpu_count()
    if device.startswith("cuda") and int(device.partition(":")[2] or 0) >= here:
        raise DeviceError(
            f"device {device} was asked for, but torch sees {here or 'no'} CUDA "
            f"device{'s' * (here > 1)} here; virnucpro doctor shows what there is"
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


@dataclass(frozen=True, slots=True)
class Memory:
    """Memory of a device in bytes; None where it is not known.

    allocated: what tensors hold; reserved: what the allocator took for them; peak: the most that
    they ever held; free: of the whole device or machine. On a CPU allocated is the resident size
    of this process, and nothing is reserved.
    """

    allocated: int | None
    reserved: int | None
    peak: int | None
    free: int | None

    @property
    def fragmentation(self) -> float | None:
        """(reserved - allocated) / reserved; None where nothing is reserved."""
        if not self.reserved or self.allocated is None:
            return None
        return (self.reserved - self.allocated) / self.reserved

    def as_dict(self) -> dict[str, int | float | None]:
        """For run.json: sizes in bytes, and the fragmentation."""
        sizes = {f"{name}_bytes": getattr(self, name) for name in self.__slots__}
        return {**sizes, "fragmentation": self.fragmentation}

    def __str__(self) -> str:
        share = self.fragmentation
        return (
            f"allocated {_gib(self.allocated)}, reserved {_gib(self.reserved)}, "
            f"free {_gib(self.free)}, peak {_gib(self.peak)}, "
            f"fragmentation {'unknown' if share is None else f'{share:.0%}'}"
        )


def _gib(size_bytes: int | None) -> str:
    return "unknown" if size_bytes is None else f"{size_bytes / GIB:.2f} GiB"


def memory_of(device: "str | torch.device") -> Memory:
    """The memory of a device as it is now."""
    if str(device).startswith("cpu"):
        resident = _kilobytes(PROCESS, "VmRSS:")
        return Memory(resident, None, peak_memory_bytes(), _kilobytes(MACHINE, "MemAvailable:"))
    import torch

    cuda = torch.cuda
    free, _ = cuda.mem_get_info(device)
    return Memory(
        cuda.memory_allocated(device),
        cuda.memory_reserved(device),
        cuda.max_memory_allocated(device),
        free,
    )


def _kilobytes(file: Path, name: str) -> int | None:
    """A line of a file of the kernel's, in bytes; None where it does not say.

    Also None where no memory is left to read it, for a report must still be made then.
    """
    with suppress(OSError, MemoryError):
        for line in file.read_text("ascii", "replace").splitlines():
            if line.startswith(name):
                return int(line.split()[1]) * 1024
    return None


def clear_cache(device: "str | torch.device") -> None:
    """Gives back to the device what the allocator holds and no tensor needs."""
    if str(device).startswith("cuda"):
        import torch

        torch.cuda.empty_cache()


def budget_that_fits(tokens: int, token_bytes: int, device: "str | torch.device") -> int:
    """A token budget, halved until a batch of it fits into the memory of a device that is free.

    What the allocator holds without a tensor in it counts as free. An unknown size lowers nothing.
    """
    memory = memory_of(device)
    if memory.free is None:
        return tokens
    unused = (memory.reserved or 0) - (memory.allocated or 0) if memory.reserved else 0
    while tokens > 1 and tokens * token_bytes > PLANNED * (memory.free + unused):
        tokens //= 2
    return tokens


def is_out_of_memory(error: BaseException) -> bool:
    """Whether an error says that memory ran out: by its type, or by its whole first line."""
    if isinstance(error, MemoryError | OutOfMemory):
        return True
    import torch

    if isinstance(error, torch.OutOfMemoryError):
        return True
    first = str(error).partition("\n")[0]
    return isinstance(error, RuntimeError) and _OUT_OF_MEMORY.fullmatch(first) is not None


@contextmanager
def computing(what: str, device: "str | torch.device") -> Iterator[None]:
    """Turns what torch raises when a computation fails on a device into an error of ours.

    what: whose computation, for the message. Raises OutOfMemory, else DeviceError. A subclass of
    RuntimeError that is none of torch's is a bug and stays what it is.
    """
    try:
        yield
    except RuntimeError as error:
        import torch

        said = (str(error) or type(error).__name__).partition("\n")[0].rstrip(".")
        if is_out_of_memory(error):
            memory = memory_of(device)
            raise OutOfMemory(
                f"{what}: out of memory ({memory}); {_advice(device, memory)}{_said(str(error))}"
            ) from error
        if type(error) not in (RuntimeError, torch.AcceleratorError):
            raise
        raise DeviceError(
            f"{what}: computing on {device} failed ({said}); run again, or compute elsewhere"
        ) from error


def out_of_memory(
    what: str, tokens: int, device: "str | torch.device", memory: Memory, cause: str
) -> OutOfMemory:
    """The error of a run in which a single sequence, of some tokens, did not fit: its report.

    memory: as it was when it failed; cause: what said so.
    """
    return OutOfMemory(
        f"{what}: out of memory: a batch of one sequence, {tokens:,} tokens, does not fit "
        f"({memory}); {_advice(device, memory)}; recommended batch size: --batch-tokens {tokens}, "
        "one sequence at a time from the start; what is finished is kept, and the same command "
        f"goes on from it{_said(cause)}"
    )


def fitting(
    compute: Callable[[], Found], what: str, rows: int, tokens: int, device: "str | torch.device"
) -> Found | None:
    """compute() of a batch, or None where it does not fit in memory: then half of it may.

    what, tokens: whose batch, and how large, for the report. Raises OutOfMemory, with that report,
    where it was of one row.
    """
    try:
        return compute()
    except (RuntimeError, MemoryError) as error:
        if not is_out_of_memory(error):
            raise
        cause = str(error)
    # Here no frame of what failed holds its tensors any more.
    memory = memory_of(device)
    clear_cache(device)
    if rows == 1:
        raise out_of_memory(what, tokens, device, memory, cause)
    return None


def _advice(device: "str | torch.device", memory: Memory) -> str:
    """What else to try, the flags by name."""
    if str(device).startswith("cpu"):
        return (
            "give the program more memory or let other programs free theirs; flags that help: "
            "fewer --threads, fewer --dataloader-workers, --precision bf16"
        )
    segments = "" if (memory.fragmentation or 0.0) < FRAGMENTED else "--expandable-segments, "
    return (
        "let other programs free the GPU's memory; flags that help: --precision bf16 where it is "
        f"fp32, {segments}--cache-clear-interval 1, another of --gpus, or --gpus none"
    )


def _said(cause: str) -> str:
    first = cause.partition("\n")[0].rstrip(".")
    return f" ({first})" if first else ""


def use_expandable_segments() -> None:
    """Lets the CUDA allocator grow its segments, keeping what the environment says besides.

    Raises SettingsError where CUDA has started already, or where the environment says otherwise.
    """
    torch = sys.modules.get("torch")
    if torch is not None and torch.cuda.is_initialized():
        raise SettingsError(
            "expandable segments were asked for when CUDA had started; ask before anything is "
            "loaded on a GPU"
        )
    name = next((name for name in ALLOCATOR if os.environ.get(name)), ALLOCATOR[-1])
    settings = [part for part in os.environ.get(name, "").split(",") if part.strip()]
    said = {part.partition(":")[0].strip(): part.partition(":")[2].strip() for part in settings}
    if said.get(EXPANDABLE, "True") != "True":
        raise SettingsError(
            f"expandable segments were asked for, but {name} says {EXPANDABLE}:"
            f"{said[EXPANDABLE]}; take one of the two back"
        )
    if EXPANDABLE not in said:
        settings.append(f"{EXPANDABLE}:True")
    os.environ[name] = ",".join(settings)
    if torch is not None:  # it read the environment when it was loaded
        torch.cuda.memory._set_allocator_settings(os.environ[name])


def expandable_segments_seen(device: "str | torch.device") -> bool | None:
    """Whether the allocator's segments on a device are expandable; None while it has none."""
    import torch

    index = torch.device(device).index or 0
    snapshot = torch.cuda.memory_snapshot()  # type: ignore[no-untyped-call]
    segments = [s for s in snapshot if s["device"] == index]
    return any(s["is_expandable"] for s in segments) if segments else None
