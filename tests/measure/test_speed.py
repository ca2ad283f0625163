"""virnucpro bench: it times what it says, on a processor in seconds."""

import json

import click
import numpy as np
import pytest
import torch

from command import virnucpro
from virnucpro.cli.bench import _case
from virnucpro.encoders.cpu import PackedEsm2, can_pack
from virnucpro.encoders.esm2 import Esm2, Esm2Config
from virnucpro.measure.speed import Bench, Case, Rival, random_weights

CPU = torch.device("cpu")


@pytest.fixture
def bench():
    return Bench(CPU, "tiny", "tiny", tokens=900, repeats=2)


def test_from_the_command_line(tmp_path):
    file = tmp_path / "bench.json"
    cases = ("esm2:ours:fp32", "dnabert_s:ours:fp32:math", "esm2:ours:fp32:flash")
    options = [word for case in cases for word in ("--case", case)]
    done = virnucpro("bench", "--esm", "tiny", "--tokens", 500, *options, "--json", file)
    assert done.code == 0, done.err
    first, second, refused = json.loads(file.read_text())["readings"]
    assert (first["kernels"], second["kernels"]) == (["PyTorch CPU flash"], ["math"])
    assert first["tokens_per_s"] == pytest.approx(first["tokens"] / np.median(first["seconds"]))
    assert "runs on CUDA devices only" in refused["refused"]
    assert refused["tokens_per_s"] == 0
    assert "flash: attention kernel flash cannot be used here" in done.out


@pytest.mark.parametrize("case", ["esm2", "esm2:ours", "esm3:ours:fp32", "esm2:theirs:fp32"])
def test_a_case_that_is_none(case):
    with pytest.raises(click.BadParameter, match="is not ENCODER:BY:PRECISION"):
        _case(case)


def test_an_unknown_precision_is_said_and_the_rest_goes_on(bench):
    found = list(bench.readings([Case("esm2", "ours", "fp99"), Case("esm2", "ours", "fp32")]))
    assert "'fp99' is not known" in found[0].refused
    assert not found[1].refused


def test_a_reading_adds_up(bench):
    [reading] = bench.readings([Case("esm2", "ours", "fp32")])
    assert len(reading.seconds) == 2
    assert reading.tokens == sum(map(len, bench.ids("esm2")[: reading.tokens // 168]))
    # 2 layers of width 64 and inner width 256: products of 4 C^2 + 2 C F, and attention.
    operations = reading.tokens * 2 * (2 * (4 * 64 * 64 + 2 * 64 * 256) + 4 * 168 * 64)
    assert reading.tflops == pytest.approx(operations / np.median(reading.seconds) / 1e12)
    assert reading.peak_tflops > 0
    assert reading.padding == 0


def test_a_case_can_be_run_by_itself(bench):
    ids = bench.ids("esm2")
    rows = bench.runner(Case("esm2", "ours", "fp32"), ids)()
    assert torch.equal(rows, bench.encoder("esm2", "fp32").rows(ids))


def test_plain_is_the_module_as_it_is_written(bench):
    assert type(bench.encoder("esm2", "fp32", plain=True).model) is Esm2
    fast = type(bench.encoder("esm2", "fp32").model)
    assert fast is (PackedEsm2 if can_pack(CPU, torch.float32) else Esm2)


def test_a_rival_is_timed_beside_ours():
    """And one that is not installed is refused with its reason, and the rest goes on."""

    def make(bench, case):
        if case.precision == "int8":
            raise ImportError("No module named 'esm_cpp'")
        return lambda ids: [row.sum() for row in ids]

    rivals = {"summer": Rival(make, 2048)}
    bench = Bench(CPU, "tiny", "tiny", tokens=900, repeats=2, rivals=rivals)
    found = list(
        bench.readings([Case("esm2", "summer", precision) for precision in ("int8", "fp32")])
    )
    assert found[0].refused == "No module named 'esm_cpp'"
    assert (found[1].batch_tokens, found[1].tokens_per_s > 0) == (2048, True)


def test_random_weights_are_the_same_in_every_precision():
    config = Esm2Config(layers=1, width=16, heads=2, ffn=32)
    whole, half = (
        random_weights(lambda: Esm2(config), dtype, CPU)
        for dtype in (torch.float32, torch.bfloat16)
    )
    for (name, ours), theirs in zip(whole.named_parameters(), half.parameters(), strict=True):
        assert torch.equal(ours.bfloat16(), theirs), name
    assert torch.equal(whole.rotary.inv_freq, Esm2(config).rotary.inv_freq)
    assert whole(torch.tensor([[0, 5, 2]])).std() > 0.1


def test_json_takes_no_place_of_another_file(tmp_path):
    sequences = tmp_path / "precious.fasta"
    sequences.write_text(">a\nACGT\n")
    done = virnucpro("bench", "--esm", "tiny", "--json", str(sequences))
    assert done.code == 2
    assert "a file that is not JSON is there, and is not replaced" in done.error
    assert sequences.read_text() == ">a\nACGT\n"
