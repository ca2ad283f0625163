"""The out-of-memory answer: what counts as running out, smaller batches, the final report."""

import re
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING

from virnucpro.devices.machine import Found
from virnucpro.devices.memory import Memory, clear_cache, memory_of
from virnucpro.errors import DeviceError, OutOfMemory

if TYPE_CHECKING:
    import torch


# Of what the allocator reserved, so much held by no tensor is worth a word.
FRAGMENTED = 0.2


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


def is_out_of_memory(error: BaseException) -> bool:
    """Return True if memory ran out: by the error's type, or by its whole first line."""
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
    """Return what else to try, the flags by name."""
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
