"""virnucpro doctor: what it says was tried, and what is broken shows in the exit code."""

import json

import pytest
import torch

from command import virnucpro
from virnucpro.bundle import load
from virnucpro.classifiers.protein_kmers import SIDES, ProteinKmers
from virnucpro.cli.doctor import doctor as command
from virnucpro.encoders.attention import KERNELS as kernels  # noqa: N811
from virnucpro.encoders.attention import _math as doctor_math
from virnucpro.measure import doctor


def findings():
    return {finding.topic: finding for finding in doctor.examine()}


def test_a_sound_machine():
    done = virnucpro("doctor", "--json")
    assert done.code == 0
    found = {finding["topic"]: finding for finding in json.loads(done.out)}
    assert not any(finding["broken"] for finding in found.values())
    assert set(doctor.STORED) <= set(found)
    assert found["cpu, attention of ESM-2, fp32, auto"]["text"].startswith("PyTorch CPU flash")
    assert found["cpu, attention of DNABERT-S, with ALiBi, bf16, math"]["text"].startswith("math")
    assert torch.__version__ in found["torch"]["text"]


def test_stored_scores_lie_where_an_error_shows():
    assert all(0.2 < score < 0.8 for scores in doctor.STORED.values() for score in scores)


@pytest.mark.parametrize("side", range(len(SIDES)))
@pytest.mark.parametrize("name", ["mini-300", "mini-500"])
def test_protein_kmers_that_a_filter_does_not_find_are_broken(monkeypatch, name, side):
    found = ProteinKmers.found

    def without(self, codons):
        return found(self, codons).index_fill(1, torch.tensor(side), 0)

    monkeypatch.setattr(ProteinKmers, "found", without)
    assert doctor._bundle(load(name)).broken


def test_another_score_is_broken(monkeypatch):
    name = next(iter(doctor.STORED))
    *others, last = doctor.STORED[name]
    monkeypatch.setitem(doctor.STORED, name, (*others, last + 1e-3))
    monkeypatch.setattr(doctor, "_attention", lambda device: iter(()))
    found = findings()
    assert [topic for topic, finding in found.items() if finding.broken] == [name]


@pytest.mark.parametrize(
    ("wrong", "text"),
    [
        (lambda q, k, v, mask, scale: doctor_math(q, k, v, mask, 1.0), "math, "),
        (
            lambda *given: (_ for _ in ()).throw(RuntimeError("no kernel image\nmore")),
            "failed: no ",
        ),
    ],
)
def test_a_wrong_kernel_is_broken(monkeypatch, capsys, wrong, text):
    monkeypatch.setitem(kernels, "sdpa", wrong)
    broken = [f for f in doctor._attention(torch.device("cpu")) if f.broken]
    assert {f.topic.rpartition(", ")[2] for f in broken} == {"auto"}
    assert all(f.text.startswith(text) for f in broken)
    monkeypatch.setattr(doctor, "embedded_bundles", list)
    assert command.callback(as_json=False) == 1
    lines = capsys.readouterr().out.splitlines()
    assert any(line.startswith("BROKEN cpu, attention of ESM-2, fp32, auto: ") for line in lines)
    assert lines[0] == f"{len(broken)} things are broken: {'; '.join(f.topic for f in broken)}"


PREDICT = "virnucpro predict contigs.fasta -o run"
REINSTALL = "pip install --force-reinstall . # in the folder of the source code"
KERNEL = "attention of ESM-2, bf16"
NEXT = [
    ([], PREDICT),
    (["torch", f"cpu, {KERNEL}, math"], "nvidia-smi"),
    (
        ["mini-500-v1", f"cpu, {KERNEL}, auto"],
        REINSTALL,
    ),
    ([f"cuda:0, {KERNEL}, triton"], f"{PREDICT} --attention math"),
    ([f"cuda:0, {KERNEL}, triton", f"cuda:0, {KERNEL}, math"], f"{PREDICT} --gpus none"),
    ([f"cpu, {KERNEL}, math"], "pip install --force-reinstall torch"),
]


@pytest.mark.parametrize(("broken", "command_"), NEXT)
def test_the_last_line_is_the_command_to_try_next(monkeypatch, capsys, broken, command_):
    findings = [doctor.Finding(topic, "tried", broken=True) for topic in broken]
    monkeypatch.setattr(doctor, "examine", lambda: iter(findings))
    assert command.callback(as_json=False) == bool(broken)
    assert capsys.readouterr().out.splitlines()[-1] == f"next: {command_}"


def test_the_first_line_is_the_verdict(monkeypatch, capsys):
    for broken, line in ((False, "everything works"), (True, "1 thing is broken: b")):
        findings = [doctor.Finding("a", "fine"), doctor.Finding("b", "tried", broken=broken)]
        monkeypatch.setattr(doctor, "examine", lambda findings=findings: iter(findings))
        assert command.callback(as_json=False) == broken
        assert capsys.readouterr().out.splitlines()[0] == line
