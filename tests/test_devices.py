"""What the machine offers, as observed."""

import os
import subprocess
import sys

import pytest

from command import virnucpro
from virnucpro import devices
from virnucpro.errors import DeviceError, SettingsError


def test_processors_are_those_allowed(monkeypatch):
    assert 1 <= devices.cpu_count() <= (os.cpu_count() or 1)
    monkeypatch.setattr(devices, "_cgroup_quota", lambda: None)
    monkeypatch.setattr(os, "sched_getaffinity", lambda _: set(range(7)), raising=False)
    assert devices.cpu_count() == 7
    monkeypatch.setattr(devices, "_cgroup_quota", lambda: 3)
    assert devices.cpu_count() == 3
    monkeypatch.setattr(devices, "_cgroup_quota", lambda: 64)
    assert devices.cpu_count() == 7
    monkeypatch.delattr(os, "sched_getaffinity")
    monkeypatch.setattr(os, "cpu_count", lambda: None)
    assert devices.cpu_count() == 1


@pytest.mark.parametrize(
    ("text", "quota"),
    [("max 100000\n", None), ("250000 100000\n", 2), ("50000 100000\n", 1), ("nonsense", None)],
)
def test_the_quota_of_a_container(tmp_path, monkeypatch, text, quota):
    file = tmp_path / "cpu.max"
    file.write_text(text)
    monkeypatch.setattr(devices, "CGROUP_QUOTA", file)
    assert devices._cgroup_quota() == quota
    file.unlink()
    assert devices._cgroup_quota() is None


def test_peak_memory_is_in_bytes_and_grows():
    before = devices.peak_memory_bytes()
    assert 10_000_000 < before < 100_000_000_000
    ballast = bytearray(os.urandom(1 << 20) * 64)
    del ballast
    assert devices.peak_memory_bytes() >= before


def test_the_peak_of_a_fresh_process_counts_what_it_held():
    program = (
        "from virnucpro.devices import peak_memory_bytes as peak\n"
        "before = peak(); held = bytearray(b'x') * (200 << 20); print(peak() - before)"
    )
    run = subprocess.run([sys.executable, "-c", program], capture_output=True, check=True)
    assert 190 << 20 < int(run.stdout) < 230 << 20


def test_the_processor_has_a_name():
    assert devices.cpu_name().strip() != ""


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
    monkeypatch.setattr(devices, "cpu_has_bf16", lambda: hardware)
    assert devices.precision_for(wish, "cpu", agrees) == chosen


@pytest.mark.parametrize(
    ("capability", "chosen"), [((7, 5), "fp32"), ((8, 0), "bf16"), ((9, 0), "bf16")]
)
def test_precision_on_cuda(monkeypatch, capability, chosen):
    monkeypatch.setattr(devices, "_capability", lambda _: capability)
    assert devices.precision_for("auto", "cuda:0", False) == chosen


def test_an_unknown_precision_names_the_known():
    with pytest.raises(SettingsError, match="'fp4' is not known; choose auto, fp32, bf16, fp16"):
        devices.precision_for("fp4", "cpu", True)


def test_a_device_that_is_not_there(monkeypatch):
    torch = pytest.importorskip("torch")
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    with pytest.raises(DeviceError, match="cuda:0 was asked for, but torch sees no CUDA device"):
        devices.precision_for("auto", "cuda:0", False)
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 2)
    devices.check_present("cuda")
    devices.check_present("cuda:1")
    with pytest.raises(DeviceError, match=r"cuda:2 was asked .*torch sees 2 CUDA devices here"):
        devices.precision_for("auto", "cuda:2", False)


def test_threads():
    torch = pytest.importorskip("torch")
    before = torch.get_num_threads()
    try:
        assert devices.use_threads(1) == torch.get_num_threads() == 1
        assert devices.use_threads(None) == devices.cpu_count()
        with pytest.raises(SettingsError, match="0 threads cannot compute"):
            devices.use_threads(0)
    finally:
        torch.set_num_threads(before)


def test_no_threads_is_a_wrong_command_line(tmp_path):
    assert virnucpro("predict", "x.fa", "-o", tmp_path / "r", "--threads", 0).code == 2
