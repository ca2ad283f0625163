"""Fitting the head: the recipe, and that a disturbed training ends as an undisturbed one."""

import errno
import json
import shutil
import time
from contextlib import closing
from dataclasses import replace

import numpy as np
import pytest
import torch

from frame_bundles import (
    CHUNK_NT,
    CLOSED,
    Stopped,
    Told,
    genes,
    loaded,
    published_dnabert_s,
    published_esm2,
)
from virnucpro.bundle import assemble as assembly
from virnucpro.bundle import load
from virnucpro.bundle.manifest import Provenance, read_manifest
from virnucpro.calls import Status
from virnucpro.chunks import chunk_spans
from virnucpro.classifiers.open_frames import BLOCK_NT, FrameEncoders
from virnucpro.errors import (
    BundleError,
    DeviceError,
    InputError,
    ResumeError,
    SettingsError,
    VirnucproError,
)
from virnucpro.frames import open_frames
from virnucpro.measure.labels import LabelledContig
from virnucpro.train import embedding
from virnucpro.train.embedding import FEATURES, INDEX, FeatureRows
from virnucpro.train.head_fit import STATE, fit_head, write_frames_bundle
from virnucpro.train.head_settings import HeadSettings
from virnucpro.train.slices import contigs_digest
from virnucpro.train.units import held_out_slice

SETTINGS = HeadSettings(
    chunk_nt=CHUNK_NT,
    hidden=16,
    batch_frames=16,
    learning_rate=0.01,
    epochs=4,
    patience=4,
    slice_fraction=0.3,
)
CONTIGS = genes()


@pytest.fixture(scope="module")
def paths(golden, tmp_path_factory):
    folder = tmp_path_factory.mktemp("encoders")
    return published_dnabert_s(golden, folder / "dnabert_s"), published_esm2(golden, folder / "esm")


@pytest.fixture(scope="module")
def encoders(paths):
    return loaded(*paths)


@pytest.fixture(scope="module")
def undisturbed(encoders, tmp_path_factory):
    """A fit, and the folder that it was made in."""
    folder = tmp_path_factory.mktemp("undisturbed")
    return fit_head(CONTIGS, SETTINGS, *encoders, folder, Told(), {"a.fasta": "0"}), folder


def weights(fit):
    return {name: tensor.numpy() for name, tensor in fit.head.state_dict().items()}


def assert_equal_weights(one, other):
    for name, array in weights(one).items():
        np.testing.assert_array_equal(array, weights(other)[name], err_msg=name)


def count_encoded(monkeypatch):
    """Counts the blocks that are embedded from now on."""
    made = []
    real = embedding._embedded
    monkeypatch.setattr(embedding, "_embedded", lambda *a: made.append(1) or real(*a))
    return made


def test_learns_and_says_how(undisturbed):
    fit, _ = undisturbed
    record = fit.record
    assert record["slice_auroc"] > 0.9
    assert [epoch["epoch"] for epoch in record["epochs"]] == [1, 2, 3, 4]
    assert record["epochs"][-1]["loss"] < record["epochs"][0]["loss"]
    chosen = record["epochs"][record["chosen_epoch"] - 1]
    best = max(epoch["slice_auroc"] for epoch in record["epochs"])
    assert chosen["slice_loss"] == min(
        epoch["slice_loss"] for epoch in record["epochs"] if epoch["slice_auroc"] == best
    )
    assert record["data"] == {"a.fasta": "0"}
    assert record["contigs_sha256"] == contigs_digest(CONTIGS)
    assert not fit.head.training


def test_counts_of_the_record(undisturbed):
    record = undisturbed[0].record
    held_out = held_out_slice(CONTIGS, SETTINGS.slice_fraction, SETTINGS.seed)
    for part, out in (("fitting", False), ("slice", True)):
        for label, side in enumerate(("others", "viral")):
            own = [
                c for c, o in zip(CONTIGS, held_out, strict=True) if o == out and c.label == label
            ]
            texts = [c.sequence.decode() for c in own]
            cut = [t[a:b] for t in texts for a, b in chunk_spans(len(t), CHUNK_NT)]
            frames = [len(open_frames(chunk)) for chunk in cut]
            assert record[part][side] == {
                "contigs": len(own),
                "units": len(own),
                "chunks": len(cut),
                "chunks_without_frame": frames.count(0),
                "frames": sum(frames),
            }
    assert record["fitting"]["viral"]["chunks_without_frame"] > 0


def test_rows_on_disk_are_the_embeddings_of_frames_one_by_one(undisturbed, encoders):
    rows = np.fromfile(undisturbed[1] / FEATURES, "<f4").reshape(-1, 96 + 80)
    texts = [c.sequence.decode() for c in CONTIGS]
    cut = [t[a:b] for t in texts for a, b in chunk_spans(len(t), CHUNK_NT)]
    frames = [frame for chunk in cut for frame in open_frames(chunk)]
    assert len(rows) == len(frames)
    for row in np.random.default_rng(0).choice(len(rows), 25, replace=False):
        nucleotides, protein = frames[row].nucleotides, frames[row].protein
        alone = [encoders[0].embed([nucleotides])[0], encoders[1].embed([protein])[0]]
        np.testing.assert_allclose(rows[row], np.concatenate(alone), atol=1.5e-4, rtol=0)


def test_two_runs_give_equal_weights(undisturbed, encoders):
    state = torch.get_rng_state()
    torch.manual_seed(99)
    again = fit_head(CONTIGS, SETTINGS, *encoders, None, Told())
    torch.set_rng_state(state)
    assert_equal_weights(undisturbed[0], again)
    assert again.record["epochs"] == undisturbed[0].record["epochs"]


def test_leaves_the_random_numbers_of_the_caller_alone(encoders, undisturbed, tmp_path):
    shutil.copytree(undisturbed[1], tmp_path / "work")
    before = torch.get_rng_state()
    fit_head(CONTIGS, replace(SETTINGS, epochs=1), *encoders, tmp_path / "work", Told())
    assert torch.equal(before, torch.get_rng_state())


def test_the_seed_matters_also_for_the_first_weights(encoders, undisturbed, tmp_path):
    shutil.copytree(undisturbed[1], tmp_path / "work")
    still = replace(SETTINGS, epochs=1, learning_rate=1e-12)
    one, other = (
        weights(fit_head(CONTIGS, replace(still, seed=s), *encoders, tmp_path / "work", Told()))
        for s in (0, 1)
    )
    assert np.abs(one["hidden.weight"] - other["hidden.weight"]).max() > 0.01


def frames_by_hand(folder):
    """Features, label, and whether held out, of every frame in the file of an embedding."""
    out = held_out_slice(CONTIGS, SETTINGS.slice_fraction, SETTINGS.seed)
    rows = np.fromfile(folder / FEATURES, "<f4").reshape(-1, 96 + 80)
    count = [
        sum(len(open_frames(t[a:b])) for a, b in chunk_spans(len(t), CHUNK_NT))
        for t in (c.sequence.decode() for c in CONTIGS)
    ]
    return rows, np.repeat([c.label for c in CONTIGS], count), np.repeat(out, count)


def test_the_slice_is_judged_with_both_classes_alike(undisturbed):
    fit, folder = undisturbed
    rows, label, out = frames_by_hand(folder)
    share = np.bincount(label[~out]) / np.count_nonzero(~out)
    assert abs(share[1] - 0.5) > 0.1
    probability = fit.head.probabilities(rows[out])
    weight = 1 / share[label[out]]
    lost = -np.log(probability[np.arange(len(probability)), label[out]])
    chosen = fit.record["epochs"][fit.record["chosen_epoch"] - 1]
    assert chosen["slice_loss"] == pytest.approx(np.average(lost, weights=weight), rel=1e-5)


def test_both_classes_weigh_the_same_in_an_epoch(undisturbed, encoders, tmp_path, monkeypatch):
    shutil.copytree(undisturbed[1], tmp_path / "work")
    sums = np.zeros(2)
    real = torch.nn.functional.cross_entropy

    def seen(logits, label, weight):
        np.add.at(sums, label.numpy(), weight.numpy()[label.numpy()])
        return real(logits, label, weight)

    monkeypatch.setattr(torch.nn.functional, "cross_entropy", seen)
    fit_head(CONTIGS, replace(SETTINGS, epochs=1), *encoders, tmp_path / "work", Told())
    _, label, out = frames_by_hand(undisturbed[1])
    assert sums.sum() == pytest.approx(np.count_nonzero(~out))
    assert sums[0] == pytest.approx(sums[1])
    assert np.bincount(label[~out])[0] > 2 * np.bincount(label[~out])[1]


def test_what_the_slice_holds_moves_no_weight(encoders, undisturbed, tmp_path):
    shutil.copytree(undisturbed[1], tmp_path / "work")
    out = held_out_slice(CONTIGS, SETTINGS.slice_fraction, SETTINGS.seed)
    others = [
        replace(c, sequence=c.sequence[::-1]) if o else c for c, o in zip(CONTIGS, out, strict=True)
    ]
    one = replace(SETTINGS, epochs=1)
    fits = [fit_head(c, one, *encoders, tmp_path / "work", Told()) for c in (CONTIGS, others)]
    # Blocks hold contigs of both parts, so that batches differ, and round differently.
    for name, array in weights(fits[0]).items():
        np.testing.assert_allclose(array, weights(fits[1])[name], atol=1e-4, rtol=1e-3)
    assert fits[0].record["slice"] != fits[1].record["slice"]


@pytest.mark.parametrize("epoch", [1, 3])
def test_stopped_after_an_epoch_goes_on_to_the_same_weights(
    epoch, encoders, undisturbed, tmp_path, monkeypatch
):
    shutil.copytree(undisturbed[1], tmp_path / "work")
    (tmp_path / "work" / STATE).unlink()
    seen = []

    def stop(note):
        if note.startswith("loss"):
            seen.append(note)
            if len(seen) == epoch:
                raise Stopped

    with pytest.raises(Stopped):
        fit_head(CONTIGS, SETTINGS, *encoders, tmp_path / "work", Told(stop))
    made = count_encoded(monkeypatch)
    told = Told()
    fit = fit_head(CONTIGS, SETTINGS, *encoders, tmp_path / "work", told)
    assert_equal_weights(undisturbed[0], fit)
    assert fit.record["epochs"] == undisturbed[0].record["epochs"]
    assert f"going on after epoch {epoch}" in told.lines
    assert len([n for n in told.notes if n.startswith("loss")]) == SETTINGS.epochs - epoch
    assert made == []


def test_stopped_while_embedding_goes_on_from_what_is_there(
    encoders, undisturbed, tmp_path, monkeypatch
):
    told = Told()

    def stop(note):
        if len(told.notes) == 1:
            raise Stopped

    told._at_step = stop
    with pytest.raises(Stopped):
        fit_head(CONTIGS, SETTINGS, *encoders, tmp_path, told)
    for name in (FEATURES, INDEX):
        with (tmp_path / name).open("ab") as file:
            file.write(b'{"key":"half a li')
    made = count_encoded(monkeypatch)
    fit = fit_head(CONTIGS, SETTINGS, *encoders, tmp_path, Told())
    blocks = len((undisturbed[1] / INDEX).read_text().splitlines())
    assert blocks > 1
    assert len(made) == blocks - 1
    for name in (FEATURES, INDEX):
        assert (tmp_path / name).read_bytes() == (undisturbed[1] / name).read_bytes()
    assert_equal_weights(undisturbed[0], fit)


def test_a_damaged_row_is_embedded_again(encoders, undisturbed, tmp_path, monkeypatch):
    shutil.copytree(undisturbed[1], tmp_path / "work")
    whole = (tmp_path / "work" / FEATURES).read_bytes()
    (tmp_path / "work" / FEATURES).write_bytes(whole[:-1] + bytes([whole[-1] ^ 1]))
    made = count_encoded(monkeypatch)
    fit_head(CONTIGS, SETTINGS, *encoders, tmp_path / "work", Told())
    assert len(made) == 1
    assert (tmp_path / "work" / FEATURES).read_bytes() == whole


def test_other_contigs_or_encoders_use_nothing_of_the_old(encoders, undisturbed, tmp_path):
    shutil.copytree(undisturbed[1], tmp_path / "work")
    others = [replace(CONTIGS[0], sequence=CONTIGS[0].sequence[3:]), *CONTIGS[1:]]
    fit = fit_head(others, SETTINGS, *encoders, tmp_path / "work", told := Told())
    assert not [line for line in told.lines if "already" in line or "going on" in line]
    fresh = fit_head(others, SETTINGS, *encoders, None, Told())
    assert_equal_weights(fit, fresh)


def test_a_changed_label_keeps_embeddings_and_drops_the_state(encoders, undisturbed, tmp_path):
    shutil.copytree(undisturbed[1], tmp_path / "work")
    swapped = [replace(c, label=1 - c.label) for c in CONTIGS]
    fit = fit_head(swapped, SETTINGS, *encoders, tmp_path / "work", told := Told())
    assert [line for line in told.lines if "already" in line]
    assert not [line for line in told.lines if "going on" in line]
    assert fit.record["slice_auroc"] > 0.9


def test_the_published_recipe_is_sgd_with_a_rate_that_falls():
    recipe = HeadSettings.published(chunk_nt=300)
    assert (recipe.optimiser, recipe.batch_frames, recipe.momentum) == ("sgd", 32, 0.9)
    assert recipe.patience == 5
    rates = [recipe.learning_rate_of(epoch) for epoch in (1, 10, 11, 20, 21)]
    assert rates == pytest.approx([2e-4, 2e-4, 1.7e-4, 1.7e-4, 1.445e-4])
    assert HeadSettings().learning_rate_of(50) == HeadSettings().learning_rate == 5e-4


def test_sgd_steps_by_the_rate_of_the_epoch_and_goes_on_after_a_stop(
    encoders, undisturbed, tmp_path
):
    shutil.copytree(undisturbed[1], tmp_path / "work")
    rates = []

    class Seen(torch.optim.SGD):
        def step(self):
            rates.append((self.param_groups[0]["lr"], self.param_groups[0]["momentum"]))
            return super().step()

    sgd = {"optimiser": "sgd", "momentum": 0.9, "decay": 0.5, "decay_epochs": 2}
    settings = replace(SETTINGS, **sgd)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(torch.optim, "SGD", Seen)
        whole = fit_head(CONTIGS, settings, *encoders, tmp_path / "work", Told())
    steps = len(rates) // 4
    assert rates == [(0.01, 0.9)] * 2 * steps + [(0.005, 0.9)] * 2 * steps
    assert whole.record["slice_auroc"] > 0.9
    (tmp_path / "work" / STATE).unlink()
    seen = []

    def stop(note):
        seen.append(note)
        if note.startswith("loss") and len([n for n in seen if n.startswith("loss")]) == 3:
            raise Stopped

    with pytest.raises(Stopped):
        fit_head(CONTIGS, settings, *encoders, tmp_path / "work", Told(stop))
    told = Told()
    again = fit_head(CONTIGS, settings, *encoders, tmp_path / "work", told)
    assert "going on after epoch 3" in told.lines
    assert_equal_weights(whole, again)


def stated(contigs):
    """Contigs of one chunk; each other one states that its first open frame codes."""
    cut = [replace(c, sequence=c.sequence[:CHUNK_NT]) for c in contigs]
    names = [[frame.name for frame in open_frames(c.sequence.decode())] for c in cut]
    return [
        replace(c, frames=found[0]) if k % 3 and found else c
        for k, (c, found) in enumerate(zip(cut, names, strict=True))
    ]


def test_stated_frames_alone_are_fitted_on_and_all_are_judged(encoders, tmp_path, monkeypatch):
    contigs = stated(genes(40, 2000, seed=3))
    passed = []
    real = torch.nn.functional.cross_entropy

    def seen(logits, label, weight):
        passed.append(len(label))
        return real(logits, label, weight)

    monkeypatch.setattr(torch.nn.functional, "cross_entropy", seen)
    fit = fit_head(contigs, replace(SETTINGS, epochs=1), *encoders, tmp_path, Told())
    out = held_out_slice(contigs, SETTINGS.slice_fraction, SETTINGS.seed)
    opened = [len(open_frames(c.sequence.decode())) for c in contigs]
    fitted = [1 if c.frames else n for c, n in zip(contigs, opened, strict=True)]
    wanted = sum(n for n, o in zip(fitted, out, strict=True) if not o)
    assert sum(passed) == fit.record["fitted_frames"] == wanted
    every = sum(n for n, o in zip(opened, out, strict=True) if not o)
    assert wanted < every
    part = fit.record["slice"]
    judged = sum(n for n, o in zip(opened, out, strict=True) if o)
    assert part["viral"]["frames"] + part["others"]["frames"] == judged


def test_frames_stated_of_a_longer_chunk_are_refused(encoders):
    contigs = [replace(CONTIGS[0], frames="F1"), *CONTIGS[1:]]
    with pytest.raises(InputError, match="give --chunk as the training set was made with"):
        fit_head(contigs, SETTINGS, *encoders, None, Told())


def test_the_state_knows_which_frames_were_stated(encoders):
    contigs = stated(genes(8, 700, seed=3))
    bare = [replace(c, frames="") for c in contigs]
    assert contigs_digest(contigs) != contigs_digest(bare)


def test_several_devices_give_the_same_rows_in_the_same_order(
    paths, undisturbed, encoders, tmp_path, monkeypatch
):
    slow = []
    real = embedding._embedded

    def uneven(block, pair):
        slow.append(id(pair))
        if block.number % 2:
            time.sleep(0.05)
        return real(block, pair)

    monkeypatch.setattr(embedding, "_embedded", uneven)
    fit = fit_head(CONTIGS, SETTINGS, *encoders, tmp_path, told := Told(), others=[loaded(*paths)])
    assert len({*slow}) == 2
    assert (tmp_path / FEATURES).read_bytes() == (undisturbed[1] / FEATURES).read_bytes()
    assert (tmp_path / INDEX).read_bytes() == (undisturbed[1] / INDEX).read_bytes()
    assert_equal_weights(undisturbed[0], fit)
    assert "embedding 24 contigs on cpu, cpu in fp32" in told.lines


def test_a_device_that_fails_ends_the_embedding(paths, encoders, tmp_path, monkeypatch):
    real = embedding._embedded

    def failing(block, pair):
        if block.number == 1:
            raise DeviceError("gone")
        return real(block, pair)

    monkeypatch.setattr(embedding, "_embedded", failing)
    with pytest.raises(DeviceError, match="gone"):
        fit_head(CONTIGS, SETTINGS, *encoders, tmp_path, Told(), others=[loaded(*paths)])
    assert len((tmp_path / INDEX).read_text().splitlines()) == 1


def test_numbers_that_overflow_are_refused(encoders, tmp_path, monkeypatch):
    monkeypatch.setattr(FrameEncoders, "features", lambda *_: torch.tensor([[np.inf] * 176]))
    with pytest.raises(SettingsError, match="numbers overflow in fp32; choose --precision"):
        fit_head(CONTIGS, SETTINGS, *encoders, tmp_path, Told())


def test_rows_are_read_in_any_order(undisturbed):
    rows = np.fromfile(undisturbed[1] / FEATURES, "<f4").reshape(-1, 96 + 80)
    with (undisturbed[1] / FEATURES).open("rb") as file:
        read = FeatureRows(file, *rows.shape)
    with closing(read) as features:
        random = np.random.default_rng(0)
        for asked in (
            random.permutation(len(rows)),
            np.arange(3, 40),
            np.array([5, 5, 4]),
            np.array([], np.int64),
        ):
            np.testing.assert_array_equal(features[asked], rows[asked])
        with pytest.raises(OSError, match="ends too early"):
            features[np.array([len(rows)])]


@pytest.mark.parametrize("at", ["embedded", "slice AUROC"])
def test_one_training_a_folder(encoders, tmp_path, at):
    """While contigs are embedded and while the head is fitted."""

    def second(note):
        if at not in note:
            return
        with pytest.raises(ResumeError, match="another training"):
            fit_head(CONTIGS, SETTINGS, *encoders, tmp_path, Told())
        raise Stopped

    with pytest.raises(Stopped):
        fit_head(CONTIGS, SETTINGS, *encoders, tmp_path, Told(second))


def test_patience_ends_the_training(encoders, undisturbed, tmp_path):
    shutil.copytree(undisturbed[1], tmp_path / "work")
    patient = replace(SETTINGS, epochs=60, patience=2, learning_rate=0.3)
    record = fit_head(CONTIGS, patient, *encoders, tmp_path / "work", Told()).record
    assert len(record["epochs"]) == record["chosen_epoch"] + 2 < 60


def test_a_missing_side_is_refused(encoders):
    with pytest.raises(InputError, match="fitting needs viral and other"):
        fit_head([c for c in CONTIGS if c.label], SETTINGS, *encoders, None, Told())


def test_a_side_without_open_frames_is_refused(encoders):
    closed = [replace(c, sequence=CLOSED.encode() * 30) if c.label else c for c in CONTIGS]
    with pytest.raises(InputError, match="no open frame"):
        fit_head(closed, SETTINGS, *encoders, None, Told())


def test_contigs_without_letters_or_frames_do_no_harm(encoders, undisturbed):
    empty = LabelledContig("empty", b"", 1, unit="empty")
    fit = fit_head([*CONTIGS, empty], replace(SETTINGS, epochs=1), *encoders, None, Told())
    assert (
        fit.record["fitting"]["viral"]["frames"]
        == (undisturbed[0].record["fitting"]["viral"]["frames"])
    )


@pytest.mark.parametrize(
    "wrong",
    [
        {"chunk_nt": 3075},
        {"chunk_nt": 2},
        {"batch_frames": 1},
        {"seed": -1},
        {"epochs": 0},
        {"optimiser": "x"},
    ],
)
def test_settings_that_cannot_work(wrong):
    with pytest.raises(SettingsError):
        HeadSettings(**wrong)


def test_dnabert_s_without_its_tokenizer_is_refused_at_once(golden, encoders):
    bare, _ = loaded(golden / "dnabert_h12.weights.safetensors", encoders[1].name)
    with pytest.raises(BundleError, match=r"tokenizer\.json"):
        fit_head(CONTIGS, SETTINGS, bare, encoders[1], None, Told())


@pytest.mark.parametrize("copy", [True, False])
def test_a_bundle_is_written_and_read(copy, undisturbed, paths, tmp_path):
    fit = undisturbed[0]
    written = write_frames_bundle(tmp_path / "b", fit, "tiny", "A test.", *paths, copy)
    bundle = load(tmp_path / "b")
    assert bundle == written
    assert (bundle.kind, bundle.chunk_nt, bundle.block_nt) == ("frames", CHUNK_NT, BLOCK_NT)
    assert bundle.provenance is Provenance.OTHER
    assert read_manifest(bundle.path)["labels"] == ["others", "virus"]
    assert {*bundle.files} == {"head.safetensors"}
    for name in bundle.files:
        bundle.file(name)
    for part, path in zip(("dnabert_s", "esm2"), paths, strict=True):
        found = bundle.part("encoders")[part]
        assert (tmp_path / "b" / found["path"]).exists()
        assert (found["path"] == str(path)) is not copy
    assert bundle.part("training")["epochs"] == fit.record["epochs"]
    assert json.loads(json.dumps(bundle.part("training"))) == json.loads(json.dumps(fit.record))
    features = np.random.default_rng(0).normal(size=(5, 176)).astype(np.float32)
    np.testing.assert_array_equal(
        bundle.head.probabilities(features), fit.head.probabilities(features)
    )


def test_a_bundle_that_stands_alone(undisturbed, golden, tmp_path):
    dnabert_s = published_dnabert_s(golden, tmp_path / "d")
    esm2 = published_esm2(golden, tmp_path / "e")
    write_frames_bundle(tmp_path / "b", undisturbed[0], "tiny", "", dnabert_s, esm2, True)
    for gone in ("d", "e"):
        shutil.rmtree(tmp_path / gone)
    moved = (tmp_path / "b").rename(tmp_path / "elsewhere")
    scores = load(moved).classifier().score([CONTIGS[2].sequence.decode()[:CHUNK_NT]])
    assert scores.status.tolist() == [Status.OK]


def test_other_encoders_than_those_fitted_on_are_refused(undisturbed, paths, golden, tmp_path):
    other = golden / "esm2_fair_layout.weights.safetensors"
    with pytest.raises(BundleError, match="not the encoder esm2"):
        write_frames_bundle(tmp_path / "b", undisturbed[0], "tiny", "", paths[0], other, True)
    assert not (tmp_path / "b").exists()


def test_a_copy_that_fails_leaves_no_bundle(undisturbed, paths, tmp_path, monkeypatch):
    def full(source, target, sha256):
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(assembly, "copy_checked", full)
    with pytest.raises(VirnucproError, match="the disk is full"):
        write_frames_bundle(tmp_path / "b", undisturbed[0], "tiny", "", *paths, True)
    with pytest.raises(BundleError, match=r"no directory with a bundle\.toml"):
        load(tmp_path / "b")
