"""How a run computes: each flag's effect, the log as observed, memory, and its end at exit 4."""

import json
import pkgutil
import subprocess
import sys

import pytest
import torch

from command import (
    TABLES,
    VIRAL,
    dna,
    made_bundle,
    random_reads,
    results,
    run_json,
    virnucpro,
)
from frame_bundles import CHUNK_NT, genes, small_bundle, written
from virnucpro.bundle import load
from virnucpro.classifiers import prefetch
from virnucpro.classifiers.open_frames import FrameEncoders
from virnucpro.classifiers.plan import plan_of
from virnucpro.classifiers.whole_chunks import CODON
from virnucpro.devices import choice, memory
from virnucpro.devices.compute import Compute
from virnucpro.encoders.turns import Visitor
from virnucpro.errors import DeviceError, OutOfMemory, SettingsError
from virnucpro.run.predict import predict, run
from virnucpro.run.settings import Settings

PINNED_FREE = 1 << 30


@pytest.fixture(scope="module")
def directory(golden, tmp_path_factory):
    return small_bundle(golden, tmp_path_factory.mktemp("bundle"), CHUNK_NT)


@pytest.fixture(scope="module")
def contigs(tmp_path_factory):
    return written(tmp_path_factory.mktemp("in") / "in.fa", genes(9, 900, seed=8))


@pytest.fixture(scope="module")
def plain(directory, contigs, tmp_path_factory):
    return predict(contigs, directory, tmp_path_factory.mktemp("plain") / "run")


def calls_of(outcome):
    return outcome.files.calls.read_bytes()


def logged(outcome):
    return [line.split(" ", 2)[2] for line in outcome.files.log.read_text().splitlines()]


# Workers


@pytest.mark.parametrize("workers", [1, 4])
def test_workers_change_nothing_but_are_there(
    directory, contigs, plain, tmp_path, monkeypatch, workers
):
    """TRAPS D1 and R12; also where a block is prepared in parts."""
    monkeypatch.setattr(prefetch, "PART_NT", 700)
    found = predict(contigs, directory, tmp_path / "run", dataloader_workers=workers)
    assert results(found.files.run_json.parent) == results(plain.files.run_json.parent)
    assert any(line.startswith(f"loader workers: {workers} (") for line in logged(found))
    assert any(line.startswith("loader workers: 0 (") for line in logged(plain))
    assert json.loads(found.files.run_json.read_text())["settings"]["dataloader_workers"] == workers


def test_workers_for_a_bundle_that_prepares_nothing_are_said_to_be_idle(tmp_path):
    bundle = made_bundle(tmp_path / "km").path
    (tmp_path / "in.fa").write_bytes(random_reads(5, 300))
    done = virnucpro(
        "predict", tmp_path / "in.fa", "-o", tmp_path / "run", "--bundle", bundle,
        "--dataloader-workers", 2, "--gpus", "all", "--batch-tokens", 5, "--pin-memory",
        "--cuda-streams", "--expandable-segments", "--cache-clear-interval", 3,
        "--esm-batch-size", 4, "--dnabert-batch-size", 4, "--attention", "flash",
    )  # fmt: skip
    assert done.code == 0
    for flag in (
        "--dataloader-workers", "--gpus", "--batch-tokens", "--pin-memory", "--cuda-streams",
        "--expandable-segments", "--cache-clear-interval", "--esm-batch-size",
        "--dnabert-batch-size", "--attention",
    ):  # fmt: skip
        (line,) = [x for x in done.err.splitlines() if x.removeprefix("warning: ").startswith(flag)]
        assert "changes nothing" in line


# Batches


def test_budgets_are_taken_and_counted(directory, contigs, plain, tmp_path):
    """TRAP R12."""
    before = json.loads(plain.files.run_json.read_text())["batches"]
    assert {b["budget_tokens"] for b in before.values()} == {4096}
    assert all(0 <= b["padding"] <= 1 for b in before.values())
    wishes = {"batch_tokens": 300, "esm_batch_size": 110}
    found = predict(contigs, directory, tmp_path / "run", **wishes)
    batches = json.loads(found.files.run_json.read_text())["batches"]
    assert batches["esm2"]["budget_tokens"] == batches["esm2"]["least_tokens"] == 110
    assert batches["dnabert_s"]["budget_tokens"] == 300
    for name in batches:
        assert batches[name]["count"] > before[name]["count"]
        line = f"batches of {name}: at most {batches[name]['budget_tokens']:,} tokens"
        assert line in logged(found)
    own = predict(contigs, directory, tmp_path / "own", dnabert_batch_size=120)
    assert (
        json.loads(own.files.run_json.read_text())["batches"]["dnabert_s"]["budget_tokens"] == 120
    )


def test_batches_of_an_embedded_bundle(tmp_path):
    """4 chunks a batch; those of the warm-up do not count."""
    (tmp_path / "in.fa").write_bytes(random_reads(40, 300))
    found = predict(tmp_path / "in.fa", out=tmp_path / "run", batch_tokens=6 * 112 * 4)
    batches = json.loads(found.files.run_json.read_text())["batches"][CODON]
    assert (batches["budget_tokens"], batches["count"]) == (2688, 10)


def test_a_batch_of_chunks_that_does_not_fit_is_halved(monkeypatch):
    classifier = load("mini-500").classifier("cpu", "fp32")
    chunks = [dna(300, seed) for seed in range(20)]
    expected = classifier.score(chunks).p_virus
    forward = classifier._forward

    def short_of_memory(batch):
        if len(batch[0]) > 3:
            raise MemoryError
        return forward(batch)

    monkeypatch.setattr(classifier, "_forward", short_of_memory)
    assert abs(classifier.score(chunks).p_virus - expected).max() < 1e-6
    batches = classifier.batches[CODON]
    assert batches.least < batches.budget
    monkeypatch.setattr(classifier, "_forward", lambda batch: [][1 << 60])
    with pytest.raises(IndexError):
        classifier.score(chunks)

    def full(batch):
        raise torch.OutOfMemoryError("CUDA out of memory.")

    monkeypatch.setattr(classifier, "_forward", full)
    with pytest.raises(OutOfMemory, match=r"one sequence, .* tokens.*--batch-tokens"):
        classifier.score(chunks)


@pytest.mark.parametrize(
    ("kind", "encoder", "where"),
    [
        ("chunks", CODON, "virnucpro.classifiers.whole_chunks.ChunkClassifier._forward"),
        ("frames", "dnabert_s", "virnucpro.encoders.Encoder._pooled"),
    ],
)
def test_what_one_sample_lowers_is_not_the_next_ones(
    kind, encoder, where, request, tmp_path, monkeypatch
):
    """SPEC 7: the tables of a sample depend on its own budget, not on the sample before it."""
    chosen = "mini-500" if kind == "chunks" else str(request.getfixturevalue("directory"))
    path = written(tmp_path / "in.fa", genes(9, 900, seed=8))
    kept, short = {}, [False]
    compute = pkgutil.resolve_name(where)

    def forward(self, batch, *more):
        if short[0] and len(batch[0] if kind == "chunks" else batch) > 2:
            raise MemoryError
        return compute(self, batch, *more)

    monkeypatch.setattr(where, forward)
    found = []
    for sample in range(3):
        short[0] = sample == 1
        settings = Settings(inputs=(path,), out=tmp_path / str(sample), bundle=chosen)
        found.append(run(settings, loaded=kept))
    batches = [json.loads(f.files.run_json.read_text())["batches"][encoder] for f in found]
    assert batches[1]["least_tokens"] < batches[1]["budget_tokens"]
    assert "memory is short" in found[1].files.log.read_text()
    assert batches[2] == batches[0]
    assert batches[0]["least_tokens"] == batches[0]["budget_tokens"]
    assert "memory is short" not in found[2].files.log.read_text()
    assert calls_of(found[2]) == calls_of(found[0])
    assert len(kept) == 1


LIMITED = """
import resource, sys
from virnucpro.cli import main
from virnucpro.run.runners import Scorer
enter = Scorer.__enter__
room = int(sys.argv.pop(1)) << 20

def limited(self):
    entered = enter(self)
    held = int(open("/proc/self/statm").read().split()[0]) * resource.getpagesize()
    resource.setrlimit(resource.RLIMIT_AS, (held + room, -1))
    return entered

Scorer.__enter__ = limited
main()
"""


@pytest.mark.skipif(sys.platform != "linux", reason="needs /proc")
def test_out_of_memory_ends_with_4_and_a_smaller_batch_goes_on(golden, tmp_path):
    """TRAP R7, for real: the memory of the process is limited once the bundle is loaded.

    Frames of 1,000 residues, so that softmax written out takes 16 MB for one alone; 8 MB are left,
    since oneDNN does not survive it if it cannot make its kernels.
    """
    directory = small_bundle(golden, tmp_path / "bundle", 3000)
    random_genes = genes(4, 3000, seed=4)
    path = tmp_path / "in.fa"
    path.write_text("".join(f">{c.name}\n{c.sequence.decode()}\n" for c in random_genes))
    command = ["predict", str(path), "-o", str(tmp_path / "run"), "--bundle", str(directory),
               "--threads", "1", "--attention", "math"]  # fmt: skip
    done = subprocess.run(
        [sys.executable, "-c", LIMITED, "8", *command], capture_output=True, text=True, check=False
    )
    assert done.returncode == 4, done.stderr[-2000:]
    assert "Traceback" not in done.stderr
    assert "out of memory" in done.stderr.splitlines()[-1]
    document = run_json(tmp_path / "run")
    assert (document["status"], document["exit_code"]) == ("failed", 4)
    again = virnucpro(*command, "--batch-tokens", 400)
    assert again.code == 0
    assert run_json(tmp_path / "run")["counts"]["records"] == 4
    assert {*TABLES, *VIRAL} <= set(results(tmp_path / "run"))


# Devices and kernels


def test_gpus_are_named_or_refused(monkeypatch):
    for here, gpus, found in (
        (0, None, "cpu"), (0, "none", "cpu"), (2, "none", "cpu"), (1, None, "cuda:0"),
        (2, None, "cuda:0"), (1, "all", "cuda:0"), (2, "1", "cuda:1"),
        (2, "all", "cuda:0 cuda:1"), (2, "1,0", "cuda:1 cuda:0"),
    ):  # fmt: skip
        monkeypatch.setattr(choice, "gpu_count", lambda here=here: here)
        assert choice.devices_for(gpus) == found.split()
    for here, gpus, error, words in (
        (0, "all", DeviceError, "no CUDA device"), (0, "0", DeviceError, "no CUDA"),
        (1, "1", DeviceError, "cuda:1"), (2, "0,2", DeviceError, "cuda:2"),
        (2, "0,0", SettingsError, "different"), (1, "first", SettingsError, "all, none"),
        (1, "", SettingsError, "all, none"), (1, "-1", SettingsError, "all, none"),
    ):  # fmt: skip
        monkeypatch.setattr(choice, "gpu_count", lambda here=here: here)
        with pytest.raises(error, match=words):
            choice.devices_for(gpus)


@pytest.mark.parametrize("attention", ["flash", "cudnn", "efficient"])
def test_a_named_kernel_that_cannot_run_is_refused_before_anything_is_written(
    directory, contigs, tmp_path, attention
):
    """TRAP N1."""
    for bundle in (directory, "mini-500"):
        with pytest.raises(SettingsError, match=f"{attention} cannot be used here"):
            predict(contigs, bundle, tmp_path / "run", attention=attention, gpus="none")
    assert not (tmp_path / "run").exists()


def test_attention_math_runs_and_is_part_of_the_fingerprint(directory, contigs, plain, tmp_path):
    found = predict(contigs, directory, tmp_path / "run", attention="math")
    document = json.loads(found.files.run_json.read_text())
    assert document["attention"] == {"dnabert_s": "math", "esm2": "math"}
    assert "attention of esm2: math" in logged(found)
    assert "attention of esm2: PyTorch CPU flash" in logged(plain)
    before = json.loads(plain.files.run_json.read_text())
    assert before["fingerprint"]["attention"] != document["fingerprint"]["attention"]
    assert plan_of(load("mini-500"), "cpu", "fp32", "math").attention == {CODON: "math"}
    assert (
        load("mini-500")
        .classifier("cpu", "fp32", Compute(attention="math"))
        .score([dna(400)])
        .called.all()
    )


def test_blocks_of_a_gpu_are_larger_but_for_the_first(directory):
    from virnucpro.classifiers import plan

    bundle, mini = load(directory), load("mini-500")
    assert bundle.block_nt == 20_000
    assert plan._block_sizes(bundle, "cpu") == (20_000, 20_000)
    assert plan._block_sizes(bundle, "cuda:0") == (250_000, 500_000)
    assert plan._block_sizes(mini, "cuda:0") == (mini.block_nt, mini.block_nt)


def test_pinning_and_streams_are_of_cuda(monkeypatch):
    assert not Compute(pin_memory=True, cuda_streams=True).on("cpu").pin_memory
    on = Compute().on("cuda:0")
    assert on.cuda_streams
    assert not Compute(cuda_streams=False).on("cuda:0").cuda_streams
    for free, pinned in ((PINNED_FREE, True), (PINNED_FREE - 1, False), (None, True)):
        seen = memory.Memory(0, None, 0, free)
        monkeypatch.setattr("virnucpro.devices.compute.memory_of", lambda _, seen=seen: seen)
        assert Compute().on("cuda:0").pin_memory == pinned
        assert Compute(pin_memory=True).on("cuda:0").pin_memory


@pytest.mark.parametrize(
    "wish",
    [{"batch_tokens": 0}, {"esm_batch_size": -1}, {"cache_clear_interval": -1},
     {"dataloader_workers": -1}],
    ids=str,
)  # fmt: skip
def test_numbers_that_mean_nothing_are_refused(contigs, tmp_path, wish):
    with pytest.raises(SettingsError):
        predict(contigs, out=tmp_path / "run", **wish)


def test_memory_of_every_stage_is_kept(plain):
    memory = json.loads(plain.files.run_json.read_text())["memory"]
    assert list(memory) == ["peak_bytes", "start", "loaded", "blocks", "tables"]
    assert all(memory[stage]["allocated_bytes"] > 1 << 20 for stage in list(memory)[1:])
    assert memory["start"]["reserved_bytes"] is None  # TRAP R11: unknown is not 0


def test_encoders_that_take_turns_score_the_same(directory, contigs):
    """Weights that live elsewhere and come when they are needed."""
    bundle = load(directory)
    classifier = bundle.classifier("cpu", "fp32")
    chunks = [c.sequence.decode()[:CHUNK_NT] for c in genes(5, 600, seed=2)]
    expected = classifier.score(chunks).p_virus
    both = classifier._encoders
    turns = (Visitor(both.dnabert_s), Visitor(both.esm2))
    classifier._encoders = FrameEncoders(both.dnabert_s, both.esm2, turns)
    assert classifier.in_turns
    for _ in range(2):
        assert (classifier.score(chunks).p_virus == expected).all()
