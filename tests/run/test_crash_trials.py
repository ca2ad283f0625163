"""The short form of bench/crash_trials.py, with seeds that stay the same."""

import importlib.util
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]


@pytest.fixture(scope="module")
def crash_trials():
    path = ROOT / "bench" / "crash_trials.py"
    spec = importlib.util.spec_from_file_location("crash_trials", path)
    module = importlib.util.module_from_spec(spec)
    with pytest.MonkeyPatch.context() as patch:
        patch.setitem(sys.modules, "crash_trials", module)  # where dataclasses look
        spec.loader.exec_module(module)
        yield module


# Of the first 18 all of these have every kind of moment, signal, end and damage among them.
SEEDS = (1, 3, 5, 9, 10, 11, 14, 15)
KMER = ("kmer two inputs", "kmer journal")


@pytest.mark.parametrize(
    ("names", "seeds", "scale"),
    [
        pytest.param(KMER, SEEDS[:3], 0.1, id="kmer"),
        pytest.param(KMER, SEEDS, 0.5, id="kmer, all", marks=pytest.mark.slow),
        pytest.param(("mini",), (0, 1), 0.3, id="mini", marks=pytest.mark.slow),
    ],
)
def test_killed_at_random_and_started_again(crash_trials, tmp_path, names, seeds, scale):
    """TRAP D4, R5."""
    choices = crash_trials.scenes(tmp_path, names, scale, warm=False)
    ended = crash_trials.run_trials(seeds, choices, tmp_path, jobs=2, loud=False)
    assert len(ended) == len(seeds)
    assert "\n".join(crash_trials.told(found) for found in ended if found.wrong) == ""
