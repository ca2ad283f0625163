"""What the machine offers, as observed."""

import os
import subprocess
import sys

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from command import virnucpro
from virnucpro.devices import choice, machine, memory, out_of_memory
from virnucpro.errors import DeviceError, OutOfMemory, SettingsError


def test_processors_are_those_allowed(monkeypatch):
    assert 1 <= machine.cpu_count() <= (os.cpu_count() or 1)
    monkeypatch.setattr(machine, "_cgroup_quota", lambda: None)
    monkeypatch.setattr(os, "sched_getaffinity", lambda _: set(range(7)), raising=False)
    assert machine.cpu_count() == 7
    monkeypatch.setattr(machine, "_cgroup_quota", lambda: 3)
    assert machine.cpu_count() == 3
    monkeypatch.setattr(machine, "_cgroup_quota", lambda: 64)
    assert machine.cpu_count() == 7
    monkeypatch.delattr(os, "sched_getaffinity")
    monkeypatch.setattr(os, "cpu_count", lambda: None)
    assert machine.cpu_count() == 1


@pytest.mark.parametrize(
    ("text", "quota"),
    [("max 100000\n", None), ("250000 100000\n", 2), ("50000 100000\n", 1), ("nonsense", None)],
)
def test_the_quota_of_a_container(tmp_path, monkeypatch, text, quota):
    file = tmp_path / "cpu.max"
    file.write_text(text)
    monkeypatch.setattr(machine, "CGROUP_QUOTA", file)
    assert machine._cgroup_quota() == quota
    file.unlink()
    assert machine._cgroup_quota() is None


def test_peak_memory_is_in_bytes_and_grows():
    before = memory.peak_memory_bytes()
    assert 10_000_000 < before < 100_000_000_000
    ballast = bytearray(os.urandom(1 << 20) * 64)
    del ballast
    assert memory.peak_memory_bytes() >= before


def test_the_peak_of_a_fresh_process_counts_what_it_held():
    program = (
        "from virnucpro.devices.memory import peak_memory_bytes as peak\n"
        "before = peak(); held = bytearray(b'x') * (200 << 20); print(peak() - before)"
    )
    run = subprocess.run([sys.executable, "-c", program], capture_output=True, check=True)
    assert 190 << 20 < int(run.stdout) < 230 << 20


def test_the_processor_has_a_name():
    assert machine.cpu_name().strip() != ""


@pytest.mark.parametrize(
    ("wish", "agrees", "hardware", "chosen"),
    [
        ("auto", True, True, "bf16"),
        ("auto", False, True, "fp32"),
        ("auto", True, False, "fp32"),
        ("fp32", True, True, "fp32"),
        ("bf16", False, False, "bf16"),
        ("fp16", True, True, "fp16"),
    ],
)
def test_precision_on_a_cpu(monkeypatch, wish, agrees, hardware, chosen):
    monkeypatch.setattr(choice, "cpu_has_bf16", lambda: hardware)
    assert choice.precision_for(wish, "cpu", agrees) == chosen


@pytest.mark.parametrize(
    ("capability", "guarded", "chosen"),
    [
        ((6, 1), True, "fp32"), ((7, 0), True, "fp16"), ((7, 5), True, "fp16"),
        ((9, 0), True, "fp16"), ((7, 5), False, "fp32"), ((8, 0), False, "bf16"),
    ],
)  # fmt: skip
def test_precision_on_cuda(monkeypatch, capability, guarded, chosen):
    monkeypatch.setattr(choice, "_capability", lambda _: capability)
    assert choice.precision_for("auto", "cuda:0", False, guarded=guarded) == chosen


def test_an_unknown_precision_names_the_known():
    with pytest.raises(
        SettingsError, match="'fp4' is not known; choose auto, fp32, bf16, fp16, fp8"
    ):
        choice.precision_for("fp4", "cpu", True)


def test_a_device_that_is_not_there(monkeypatch):
    torch = pytest.importorskip("torch")
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    with pytest.raises(DeviceError, match="cuda:0 was asked for, but torch sees no CUDA device"):
        choice.precision_for("auto", "cuda:0", False)
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 2)
    choice.check_present("cuda")
    choice.check_present("cuda:1")
    with pytest.raises(
        DeviceError, match=r"cuda:2 was asked .*torch sees 2 CUDA devices here, counted from 0"
    ):
        choice.precision_for("auto", "cuda:2", False)


def test_all_gpus_of_a_machine_without_one(monkeypatch):
    monkeypatch.setattr(choice, "gpu_count", lambda: 0)
    with pytest.raises(DeviceError, match="sees no CUDA device; compute on the CPU with"):
        choice.devices_for("all")


def test_threads(monkeypatch):
    torch = pytest.importorskip("torch")
    before = torch.get_num_threads()
    monkeypatch.delenv("OMP_NUM_THREADS", raising=False)
    try:
        assert machine.use_threads(1) == torch.get_num_threads() == 1
        assert machine.use_threads(None) == machine.cpu_count()
        with pytest.raises(SettingsError, match="0 threads cannot compute"):
            machine.use_threads(0)
    finally:
        torch.set_num_threads(before)


def test_no_threads_is_a_wrong_command_line(tmp_path):
    assert virnucpro("predict", "x.fa", "-o", tmp_path / "r", "--threads", 0).code == 2


# Memory


def test_memory_of_this_process():
    seen = memory.memory_of("cpu")
    assert 10_000_000 < seen.allocated <= seen.peak
    assert seen.free > 0
    assert seen.reserved is None
    assert seen.fragmentation is None
    assert "fragmentation unknown" in str(seen)


def test_what_is_not_known_is_said_to_be_unknown(tmp_path, monkeypatch):
    """TRAP R11."""
    monkeypatch.setattr(memory, "PROCESS", tmp_path / "none")
    monkeypatch.setattr(memory, "MACHINE", tmp_path / "none")
    seen = memory.memory_of("cpu")
    assert seen.allocated is seen.free is None
    assert str(seen).startswith("allocated unknown, reserved unknown, free unknown, peak ")
    assert memory.budget_that_fits(4096, 1 << 40, "cpu") == 4096


@pytest.mark.parametrize(
    ("allocated", "reserved", "share"),
    [(3, 4, 0.25), (4, 4, 0.0), (0, 8, 1.0), (0, 0, None), (5, None, None), (None, 5, None)],
)
def test_fragmentation_is_a_share_of_what_is_reserved(allocated, reserved, share):
    """TRAP R11."""
    assert memory.Memory(allocated, reserved, None, None).fragmentation == share


@given(st.integers(1, 1 << 20), st.integers(1, 1 << 20), st.integers(0, 1 << 36))
def test_a_budget_is_halved_until_it_fits(tokens, token_bytes, free):
    seen = memory.Memory(1 << 30, 3 << 30, None, free)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(memory, "memory_of", lambda _: seen)
        found = memory.budget_that_fits(tokens, token_bytes, "cuda")
    room = memory.PLANNED * (free + (2 << 30))
    assert found in {max(1, tokens >> times) for times in range(21)}
    assert found * token_bytes <= room or found == 1
    assert found == tokens or 2 * (found + 1) * token_bytes > room


MESSAGES = [
    "[enforce fail at alloc_cpu.cpp:127] err == 0. DefaultCPUAllocator: can't allocate memory: you "
    "tried to allocate 4503599627370496 bytes. Error code 12 (Cannot allocate memory)",
    "[enforce fail at alloc_cpu.cpp:80] data. DefaultCPUAllocator: not enough memory: you tried to "
    "allocate 17179869184 bytes.",
    "CUDA error: out of memory\nCUDA kernel errors might be asynchronously reported at some other",
    "CUDA driver error: out of memory",
    "CUDA error: CUBLAS_STATUS_ALLOC_FAILED when calling `cublasCreate(handle)`",
    "CUDA error: CUBLAS_STATUS_ALLOC_FAILED when calling `cublasLtCreate(&handle)`",
    "cuDNN error: CUDNN_STATUS_ALLOC_FAILED",
    "Triton Error [CUDA]: out of memory",
]


@pytest.mark.parametrize("message", MESSAGES)
def test_whole_messages_say_that_memory_ran_out(message):
    """TRAP R7."""
    assert out_of_memory.is_out_of_memory(RuntimeError(message))
    assert not out_of_memory.is_out_of_memory(RuntimeError(f"in this room: {message}"))
    assert not out_of_memory.is_out_of_memory(ValueError(message))


@pytest.mark.parametrize(
    "error",
    [
        RuntimeError("no room for oom"),
        RuntimeError("CUDA error: an illegal memory access was encountered"),
        RuntimeError("CUDA error: CUBLAS_STATUS_NOT_INITIALIZED when calling `cublasCreate(h)`"),
        RuntimeError("out of memory"),
        OSError(12, "Cannot allocate memory"),
        KeyboardInterrupt(),
    ],
)
def test_what_is_not_out_of_memory(error):
    """TRAP R7."""
    assert not out_of_memory.is_out_of_memory(error)


def test_types_that_say_it():
    torch = pytest.importorskip("torch")
    with pytest.raises(RuntimeError) as real:
        torch.empty(1 << 50)
    for error in (MemoryError(), torch.OutOfMemoryError("CUDA out of memory."), real.value):
        assert out_of_memory.is_out_of_memory(error)


@pytest.mark.parametrize(
    ("before", "after"),
    [
        ({}, {"PYTORCH_ALLOC_CONF": "expandable_segments:True"}),
        (
            {"PYTORCH_CUDA_ALLOC_CONF": "max_split_size_mb:64"},
            {"PYTORCH_CUDA_ALLOC_CONF": "max_split_size_mb:64,expandable_segments:True"},
        ),
        (
            {"PYTORCH_ALLOC_CONF": "expandable_segments:True, backend:native"},
            {"PYTORCH_ALLOC_CONF": "expandable_segments:True, backend:native"},
        ),
    ],
)
def test_the_allocators_settings_are_kept(monkeypatch, before, after):
    for name in memory.ALLOCATOR:
        monkeypatch.delenv(name, raising=False)
    for name, value in before.items():
        monkeypatch.setenv(name, value)
    monkeypatch.delitem(sys.modules, "torch", raising=False)
    memory.use_expandable_segments()
    assert {n: os.environ[n] for n in memory.ALLOCATOR if n in os.environ} == after


def test_expandable_segments_against_the_environment_or_too_late(monkeypatch):
    torch = pytest.importorskip("torch")
    monkeypatch.setenv("PYTORCH_CUDA_ALLOC_CONF", "expandable_segments:False")
    with pytest.raises(SettingsError, match="PYTORCH_CUDA_ALLOC_CONF says expandable_segments:Fal"):
        memory.use_expandable_segments()
    monkeypatch.setattr(torch.cuda, "is_initialized", lambda: True)
    with pytest.raises(SettingsError, match="when CUDA had started"):
        memory.use_expandable_segments()


def test_fp8_needs_hopper(monkeypatch):
    with pytest.raises(DeviceError, match=r"fp8 needs a GPU of capability 9\.0"):
        choice.check_fp8("cpu")
    monkeypatch.setattr(choice, "_capability", lambda _: (8, 9))
    with pytest.raises(DeviceError, match="cuda:0 is not; choose bf16"):
        choice.check_fp8("cuda:0")
    monkeypatch.setattr(choice, "_capability", lambda _: (9, 0))
    choice.check_fp8("cuda:0")


@pytest.mark.parametrize(
    ("error", "found", "said"),
    [
        (
            RuntimeError("CUDA error: an illegal memory access was encountered\nCompile with"),
            DeviceError,
            "km: computing on cpu failed (CUDA error: an illegal memory access was encountered); "
            "run again, or compute elsewhere",
        ),
        (RuntimeError(), DeviceError, "km: computing on cpu failed (RuntimeError)"),
        (RuntimeError("CUDA error: out of memory"), OutOfMemory, "km: out of memory (allocated"),
        (torch.OutOfMemoryError("CUDA out of memory."), OutOfMemory, "km: out of memory"),
        (torch.AcceleratorError("CUDA error: unknown error"), DeviceError, "CUDA error: unknown"),
    ],
)
def test_an_error_of_torch_while_computing_is_one_of_ours(error, found, said):
    """TRAP R7: told by its type and whole message."""
    with pytest.raises(found) as caught, out_of_memory.computing("km", "cpu"):
        raise error
    assert said in str(caught.value)
    assert caught.value.__cause__ is error


@pytest.mark.parametrize(
    "error", [ValueError("a"), TypeError("a"), RecursionError("a"), NotImplementedError("a")]
)
def test_a_bug_while_computing_stays_a_bug(error):
    with pytest.raises(type(error)), out_of_memory.computing("km", "cpu"):
        raise error
