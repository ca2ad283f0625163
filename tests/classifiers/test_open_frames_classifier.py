"""Bundles of kind frames: scores against a slow path by hand, and conservation of chunks."""

import csv
import json
import math
import tomllib

import numpy as np
import pytest
import tomli_w
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch.nn.attention import SDPBackend, sdpa_kernel

from frame_bundles import (
    CHUNK_NT,
    CLOSED,
    OTHER_CODONS,
    VIRAL_CODONS,
    Told,
    gene,
    genes,
    loaded,
    published_dnabert_s,
    published_esm2,
)
from virnucpro.blocks import blocks_of
from virnucpro.bundle import load
from virnucpro.bundle.manifest import MANIFEST
from virnucpro.calls import FRAME_NAMES, Status, chunk_calls
from virnucpro.classifiers.head import load_head
from virnucpro.classifiers.plan import plan_of
from virnucpro.encoders import load_dnabert_s, load_esm2
from virnucpro.encoders.cpu import PackedEsm2
from virnucpro.encoders.esm2 import Esm2
from virnucpro.errors import BundleError, DeviceError
from virnucpro.frames import open_frames
from virnucpro.measure.metrics import auroc
from virnucpro.progress import Silent, hearing
from virnucpro.reads import Contig
from virnucpro.run.predict import predict, run
from virnucpro.run.settings import Settings
from virnucpro.tokens import protein_ids
from virnucpro.train.head_fit import HeadSettings, fit_head, write_frames_bundle

# Another batch rounds the embeddings' matrix products differently.
SAME = 1e-5


@pytest.fixture(scope="module")
def directory(golden, tmp_path_factory):
    folder = tmp_path_factory.mktemp("bundle")
    paths = published_dnabert_s(golden, folder / "d"), published_esm2(golden, folder / "e")
    sizes = HeadSettings(
        chunk_nt=CHUNK_NT,
        hidden=16,
        batch_frames=16,
        learning_rate=0.01,
        epochs=6,
        slice_fraction=0.3,
    )
    fit = fit_head(genes(16, 900, seed=5), sizes, *loaded(*paths), None, Told())
    write_frames_bundle(folder / "b", fit, "tiny-300", "A test.", *paths, copy=True)
    return folder / "b"


@pytest.fixture(scope="module")
def classifier(directory):
    return load(directory).classifier("cpu", "fp32")


@pytest.fixture(scope="module")
def by_hand(directory):
    """Scores of frames of one chunk: one sequence at a time through everything."""
    dnabert_s = load_dnabert_s(directory / "dnabert_s")
    esm2 = load_esm2(directory / "esm2/esm2.safetensors")
    head = load_head(directory / "head.safetensors").double()

    def scored(chunk):
        found = {}
        for frame in open_frames(chunk):
            row = np.concatenate(
                [dnabert_s.embed([frame.nucleotides])[0], esm2.embed([frame.protein])[0]]
            )
            hidden = head.hidden.weight.numpy() @ row + head.hidden.bias.numpy()
            scale = head.norm.weight.numpy() / np.sqrt(head.norm.running_var.numpy() + 1e-5)
            hidden = (hidden - head.norm.running_mean.numpy()) * scale + head.norm.bias.numpy()
            logit = head.output.weight.numpy() @ np.maximum(hidden, 0) + head.output.bias.numpy()
            found[frame.name] = np.exp(logit) / np.exp(logit).sum()
        return found

    return scored


def some_chunks(count=12, seed=3):
    random = np.random.default_rng(seed)
    chunks = [gene(random, (VIRAL_CODONS, OTHER_CODONS)[k % 2], 300 - 7 * k) for k in range(count)]
    chunks += ["".join(random.choice(list("ACGTN"), 40)) for _ in range(4)]
    return [*chunks, CLOSED * 5, chunks[0], "", "ACGTAC"]


def frames_of(scores):
    rows = zip(
        scores.frame_chunk.tolist(),
        scores.frame.tolist(),
        scores.frame_p_others.tolist(),
        scores.frame_p_virus.tolist(),
        strict=True,
    )
    return {(chunk, FRAME_NAMES[frame]): (p0, p1) for chunk, frame, p0, p1 in rows}


def test_equal_to_one_sequence_at_a_time(classifier, by_hand):
    """TRAP D3."""
    chunks = some_chunks()
    scores = classifier.score(chunks)
    expected = {
        (k, name): tuple(p) for k, chunk in enumerate(chunks) for name, p in by_hand(chunk).items()
    }
    found = frames_of(scores)
    assert list(found) == list(expected)
    for key, probabilities in expected.items():
        assert found[key] == pytest.approx(probabilities, abs=SAME)
    ids = [(f"c_chunk_{k}{name}", *p) for (k, name), p in expected.items()]
    calls = {int(chunk.rpartition("_")[2]): rest for chunk, *rest in chunk_calls(ids)}
    for k in range(len(chunks)):
        if k not in calls:
            assert math.isnan(scores.p_virus[k])
            continue
        virus, others_max, virus_max = calls[k]
        assert scores.max_p_others[k] == pytest.approx(others_max, abs=SAME)
        assert scores.max_p_virus[k] == pytest.approx(virus_max, abs=SAME)
        assert scores.p_virus[k] == pytest.approx(virus_max / (virus_max + others_max), abs=SAME)
        if abs(virus_max - others_max) > SAME:
            assert (scores.p_virus[k] >= 0.5) == virus


def test_tells_the_two_kinds_of_genes_apart(classifier):
    random = np.random.default_rng(9)
    label = np.arange(40) % 2 == 1
    chunks = [gene(random, VIRAL_CODONS if viral else OTHER_CODONS, 300) for viral in label]
    area = auroc(label, classifier.score(chunks).p_virus)
    assert area is not None
    assert area > 0.9


def test_chunks_without_open_frame_keep_their_row(classifier):
    """TRAP D3, D7."""
    scores = classifier.score([CLOSED * 9, "ATG" * 20, "", "N" * 300])
    assert scores.status.tolist() == [
        Status.NO_OPEN_FRAME,
        Status.OK,
        Status.NO_OPEN_FRAME,
        Status.NO_OPEN_FRAME,
    ]
    assert np.isnan(scores.p_virus).tolist() == [True, False, True, True]
    assert set(scores.frame_chunk.tolist()) == {1}


def test_nothing_to_score(classifier):
    assert len(classifier.score([])) == 0
    assert classifier.score([CLOSED]).status.tolist() == [Status.NO_OPEN_FRAME]


def test_case_and_uracil_do_not_matter(classifier):
    chunk = some_chunks()[0]
    plain, rna = classifier.score([chunk]), classifier.score([chunk.lower().replace("t", "u")])
    np.testing.assert_array_equal(plain.frame_p_virus, rna.frame_p_virus)


@settings(max_examples=6, deadline=None)
@given(st.permutations(range(len(some_chunks()))), st.integers(0, 20))
def test_neither_order_nor_company_matters(classifier, order, first):
    """TRAP D3."""
    chunks = some_chunks()
    whole, part = classifier.score(chunks), classifier.score([chunks[k] for k in order[first:]])
    assert len(part) == len(chunks) - first
    for row, k in enumerate(order[first:]):
        assert part.status[row] == whole.status[k]
        assert part.frames[row] == whole.frames[k]
        assert part.p_virus[row] == pytest.approx(whole.p_virus[k], abs=SAME, nan_ok=True)


DNA = st.text("ACGTN", max_size=120)


@settings(max_examples=25, deadline=None)
@given(st.lists(DNA, max_size=12))
def test_rows_out_are_rows_in(classifier, chunks):
    scores = classifier.score(chunks)
    assert len(scores) == len(chunks)
    expected = [(k, frame.name) for k, c in enumerate(chunks) for frame in open_frames(c)]
    assert list(frames_of(scores)) == expected
    open_ = {k for k, _ in expected}
    assert [s == Status.OK for s in scores.status] == [k in open_ for k in range(len(chunks))]


def test_a_protein_longer_than_esm2_takes_is_refused_before_any_forward(classifier, monkeypatch):
    monkeypatch.setattr(classifier._encoders.esm2.model, "forward", None)
    with pytest.raises(ValueError, match="at most 1024 residues, this protein has 1025"):
        classifier.score(["GCA" * 1025])


def test_a_block_scores_as_its_chunks(classifier):
    contigs = [Contig("s", k, c.name, c.sequence) for k, c in enumerate(genes(6, 800, seed=2), 1)]
    (block,) = blocks_of(contigs, CHUNK_NT, 10**6)
    chunks = [block.chunk(row).decode() for row in range(len(block.rows))]
    one, other = classifier.score_block(block), classifier.score(chunks)
    np.testing.assert_array_equal(one.status, other.status)
    np.testing.assert_array_equal(one.p_virus, other.p_virus)


def test_attention_kernels_are_known_once_they_ran(directory):
    classifier = load(directory).classifier("cpu", "fp32")
    classifier.score([CLOSED])
    assert classifier.attention == {}
    classifier.score(["ATG" * 20])
    assert classifier.attention == {"dnabert_s": "PyTorch CPU flash", "esm2": "PyTorch CPU flash"}
    assert (classifier.name, classifier.device, classifier.precision) == ("tiny-300", "cpu", "fp32")


def rewritten(directory, tmp_path, change):
    """A copy of the bundle with another manifest."""
    copy = tmp_path / "changed"
    copy.mkdir()
    for file in directory.iterdir():
        if file.name != MANIFEST:
            (copy / file.name).symlink_to(file)
    manifest = tomllib.loads((directory / MANIFEST).read_text())
    change(manifest)
    (copy / MANIFEST).write_text(tomli_w.dumps(manifest))
    return load(copy)


def test_chunks_too_long_for_esm2_are_refused(directory, tmp_path):
    bundle = rewritten(directory, tmp_path, lambda m: m.update(chunk_nt=3075))
    with pytest.raises(BundleError, match="chunk_nt is 3075"):
        bundle.classifier()


@pytest.mark.parametrize(
    ("part", "file"),
    [("dnabert_s", "tokenizer.json"), ("dnabert_s", "config.json"), ("esm2", "esm2.safetensors")],
)
def test_files_other_than_the_manifest_names_are_refused(directory, tmp_path, part, file):
    def change(manifest):
        manifest["encoders"][part]["sha256"][file] = "0" * 64

    bundle = rewritten(directory, tmp_path, change)
    with pytest.raises(BundleError, match=rf"{file} of the encoder {part} is not what"):
        bundle.classifier()


def test_a_file_that_the_manifest_does_not_name_is_refused(directory, tmp_path):
    bundle = rewritten(
        directory, tmp_path, lambda m: m["encoders"]["dnabert_s"]["sha256"].pop("tokenizer.json")
    )
    with pytest.raises(BundleError, match=r"tokenizer\.json of the encoder dnabert_s"):
        bundle.classifier()


def test_a_manifest_without_an_encoder_is_refused(directory, tmp_path):
    bundle = rewritten(directory, tmp_path, lambda m: m["encoders"].pop("esm2"))
    with pytest.raises(BundleError, match="holds a head, but no encoder esm2"):
        bundle.classifier()


def test_an_encoder_that_is_gone_is_refused(directory, tmp_path):
    bundle = rewritten(
        directory, tmp_path, lambda m: m["encoders"]["esm2"].update(path="gone.safetensors")
    )
    with pytest.raises(BundleError, match=r"gone\.safetensors"):
        bundle.classifier()


def test_a_head_of_other_encoders_is_refused(directory, tmp_path, golden):
    def change(manifest):
        encoders = manifest["encoders"]
        encoders["esm2"] = encoders["dnabert_s"]

    bundle = rewritten(directory, tmp_path, change)
    with pytest.raises(BundleError):
        bundle.classifier()


def test_predict_end_to_end(directory, classifier, tmp_path):
    contigs = genes(5, 700, seed=8)
    fasta = tmp_path / "in.fasta"
    texts = [c.sequence.decode() for c in contigs]
    texts.insert(2, "")
    texts.append(CLOSED * 10)
    fasta.write_text("".join(f">r{k}\n{text}\n" for k, text in enumerate(texts)))
    outcome = predict([fasta], directory, tmp_path / "run")
    assert (outcome.status, outcome.exit_code) == ("complete", 0)
    document = json.loads(outcome.files.run_json.read_text())
    assert document["attention"] == dict.fromkeys(("dnabert_s", "esm2"), "PyTorch CPU flash")
    assert document["fingerprint"]["attention"] == (
        "dnabert_s PyTorch CPU flash, esm2 PyTorch CPU flash"
    )
    with outcome.files.calls.open() as file:
        rows = list(csv.DictReader(file, delimiter="\t"))
    chunks = [texts[int(row["record"]) - 1][int(row["start"]) : int(row["end"])] for row in rows]
    scores = classifier.score(chunks)
    assert {row["status"] for row in rows} == {"ok", "no_open_frame"}
    for k, row in enumerate(rows):
        assert row["status"] == Status(scores.status[k]).name.lower()
        expected = "" if np.isnan(scores.p_virus[k]) else scores.p_virus[k]
        found = row["p_virus"] and float(row["p_virus"])
        assert found == (expected and pytest.approx(expected, abs=1e-4))
    with outcome.files.contigs.open() as file:
        assert len(list(csv.DictReader(file, delimiter="\t"))) == len(texts)


def test_an_error_of_torch_on_a_chunk_is_listed_and_the_rest_is_scored(directory, tmp_path):
    tryptophan = int(protein_ids("WWW")[2])

    def before(module, arguments):
        if type(module) in (Esm2, PackedEsm2) and ((arguments[0] == tryptophan).sum(1) > 90).any():
            torch.zeros(2) @ torch.zeros(3)

    (tmp_path / "in.fa").write_text(f">a\n{'ATG' * 90}\n>bad\n{'TGG' * 100}\n>c\n{'GCA' * 80}\n")
    hook = torch.nn.modules.module.register_module_forward_pre_hook(before)
    try:
        outcome = predict([tmp_path / "in.fa"], directory, tmp_path / "run")
    finally:
        hook.remove()
    assert (outcome.status, outcome.exit_code) == ("partial", 2)
    (row,) = outcome.files.failed.read_text().splitlines()[1:]
    assert row.startswith("in\t2\tbad\t1 of 1 chunks could not be scored: tiny-300: computing on")
    assert outcome.counts.called == 2


def test_the_plan_is_what_runs(directory):
    """TRAP N1: kernels are named by what torch dispatched, for small tensors and the model."""
    bundle = load(directory)
    for precision in ("fp32", "bf16"):
        plan = plan_of(bundle, "cpu", precision)
        classifier = bundle.classifier("cpu", precision)
        classifier.score(["ATG" * 20, "ATG" * 25])
        assert (plan.precision, plan.device) == (classifier.precision, classifier.device)
        assert plan.attention == classifier.attention
    with sdpa_kernel(SDPBackend.MATH):
        assert set(plan_of(bundle).attention.values()) == {"math"}


class Switching(Silent):
    """Lets torch choose another kernel once the run has begun."""

    def line(self, text):
        torch.backends.cuda.enable_flash_sdp(False)


def test_a_kernel_other_than_planned_is_refused_before_a_block_is_kept(directory, tmp_path):
    """TRAP N1."""
    (tmp_path / "in.fa").write_text(f">a\n{'ATG' * 90}\n")
    wish = Settings(inputs=(tmp_path / "in.fa",), out=tmp_path / "run", bundle=str(directory))
    try:
        with pytest.raises(DeviceError, match="ran by math, not by PyTorch CPU flash as in"):
            run(wish, Switching())
    finally:
        torch.backends.cuda.enable_flash_sdp(True)
    assert not list((tmp_path / "run").rglob("*.block"))
    assert run(wish).exit_code == 0


@pytest.mark.parametrize("packed", [True, False])
def test_each_layer_is_a_step_of_a_block(directory, packed, monkeypatch):
    """A batch of a large encoder takes minutes on a processor."""
    if not packed:
        monkeypatch.setattr("virnucpro.encoders.can_pack", lambda *_: False)
    classifier = load(directory).classifier("cpu", "fp32")
    chunks = [contig.sequence.decode()[:CHUNK_NT] for contig in genes(4, 600, seed=9)]
    expected, told = classifier.score(chunks), []
    with hearing(told.append):
        found = classifier.score(chunks)
    assert np.array_equal(found.p_virus, expected.p_virus, equal_nan=True)
    encoders = classifier._encoders
    layers = [len(e.model.layers) for e in (encoders.dnabert_s, encoders.esm2)]
    assert len(told) >= sum(layers)
    assert told == sorted(told)
    assert 0 < told[0] < 0.5
    assert told[-1] > 0.9
