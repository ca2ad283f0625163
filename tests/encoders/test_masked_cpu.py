"""Processors that are not here, by masking features of this one: the same bounds hold."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

from virnucpro.devices.machine import cpu_has_bf16

MASKS = {"AVX2": ("avx2", "AVX2"), "SSE4.1": ("default", "SSE41")}


@pytest.mark.slow
@pytest.mark.parametrize(("aten", "onednn"), MASKS.values(), ids=MASKS)
def test_golden_vectors_hold_on_older_processors(golden, aten, onednn):
    environment = os.environ | {"ATEN_CPU_CAPABILITY": aten, "ONEDNN_MAX_CPU_ISA": onednn}
    command = [sys.executable, "-m", "pytest", "-q", "-p", "no:xdist", "-o", "addopts="]
    done = subprocess.run(
        [*command, Path(__file__).with_name("test_cpu.py"), "-k", "golden_sequences"],
        env=environment,
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stdout
    assert " passed" in done.stdout


@pytest.mark.parametrize("limit", ["AVX2", "avx512_core"])
def test_a_limit_of_onednn_takes_bf16_away(monkeypatch, limit):
    monkeypatch.setenv("ONEDNN_MAX_CPU_ISA", limit)
    assert not cpu_has_bf16()
