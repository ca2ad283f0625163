"""Memory of a device as observed, and the settings of its allocator."""

import os
import resource
import sys
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from virnucpro.errors import SettingsError

if TYPE_CHECKING:
    import torch


# Both names are honoured by torch; the older one wins there when both are set.
ALLOCATOR = ("PYTORCH_CUDA_ALLOC_CONF", "PYTORCH_ALLOC_CONF")
EXPANDABLE = "expandable_segments"
# Of what is free, so much may be planned for: the rest goes to fragments and to the libraries.
PLANNED = 0.8
GIB = 1 << 30
PROCESS = Path("/proc/self/status")
MACHINE = Path("/proc/meminfo")


def peak_memory_bytes() -> int:
    """The largest resident size of this process so far.

    Linux keeps it exactly; what getrusage gives there begins at the size of the process that
    started this one.
    """
    if (known := _kilobytes(PROCESS, "VmHWM:")) is not None:
        return known
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return peak if sys.platform == "darwin" else peak * 1024


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

    def fuller(self, other: "Memory") -> "Memory":
        """Return the largest of what both devices took, and the smallest of what they have free."""
        return Memory(
            allocated=_extreme(max, self.allocated, other.allocated),
            reserved=_extreme(max, self.reserved, other.reserved),
            peak=_extreme(max, self.peak, other.peak),
            free=_extreme(min, self.free, other.free),
        )

    def as_dict(self) -> dict[str, int | float | None]:
        """Return sizes in bytes and the fragmentation, for run.json."""
        sizes = {f"{name}_bytes": getattr(self, name) for name in self.__slots__}
        return {**sizes, "fragmentation": self.fragmentation}

    def __str__(self) -> str:
        share = self.fragmentation
        return (
            f"allocated {_gib(self.allocated)}, reserved {_gib(self.reserved)}, "
            f"free {_gib(self.free)}, peak {_gib(self.peak)}, "
            f"fragmentation {'unknown' if share is None else f'{share:.0%}'}"
        )


def _extreme(choose: Callable[[int, int], int], one: int | None, other: int | None) -> int | None:
    """Return the larger or smaller of two numbers, of which either may be unknown."""
    if one is None or other is None:
        return other if one is None else one
    return choose(one, other)


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
    """Return True if the allocator's segments on a device can expand; None without segments."""
    import torch

    index = torch.device(device).index or 0
    snapshot = torch.cuda.memory_snapshot()  # type: ignore[no-untyped-call]
    segments = [s for s in snapshot if s["device"] == index]
    return any(s["is_expandable"] for s in segments) if segments else None
