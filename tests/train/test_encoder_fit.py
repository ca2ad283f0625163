"""Training the small encoder: it learns, is deterministic, and goes on where it stopped."""

import dataclasses
import errno
import os
from types import SimpleNamespace

import numpy as np
import pytest
import torch

from virnucpro.bundle import load
from virnucpro.classifiers.codon import AMBIGUOUS_CODON, CodonConfig, frame_codons
from virnucpro.errors import BundleError, InputError, ResumeError, SettingsError, VirnucproError
from virnucpro.frames import letter_codes
from virnucpro.measure.labels import LabelledContig
from virnucpro.train import encoder_fit, judge
from virnucpro.train.encoder_fit import STATE, fit_encoder, weights_digest, write_chunk_bundle
from virnucpro.train.encoder_settings import EncoderSettings, learning_rate_at
from virnucpro.train.fragments import NO_CONTIG, Augmentation, FragmentPool, blurred
from virnucpro.train.judge import Judge

TINY = EncoderSettings(
    network=CodonConfig(
        channels=(8, 16), blocks=(1, 1), kernels=(3, 3), attention=("frame",), heads=2, embedding=16
    ),
    hidden=8,
    steps=12,
    batch_nt=6400,
    lengths_nt=(75, 150, 200),
    slice_fraction=0.3,
    slice_fragments=40,
    slice_lengths_nt=(150,),
    evaluate_every=4,
)


def contigs_of(units=6, length_nt=900, seed=0):
    """Viral contigs rich in A, others rich in G, each of its own unit."""
    rng = np.random.default_rng(seed)
    found = []
    for label, p in ((1, [0.4, 0.2, 0.1, 0.3]), (0, [0.1, 0.3, 0.4, 0.2])):
        for unit in range(units):
            text = rng.choice(list(b"ACGT"), length_nt, p=p).astype(np.uint8).tobytes()
            found.append(
                LabelledContig(f"{label}_{unit}", text, label, "g", unit=f"{label}u{unit}")
            )
    return found


@pytest.fixture(autouse=True)
def one_thread():
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


def same(first, second):
    a, b = first.network.state_dict(), second.network.state_dict()
    return a.keys() == b.keys() and all(torch.equal(a[k], b[k]) for k in a)


def test_two_fits_give_the_same_weights_and_another_seed_others(tmp_path):
    before = torch.get_rng_state()
    first = fit_encoder(contigs_of(), TINY, "cpu", tmp_path / "a")
    second = fit_encoder(contigs_of(), TINY, "cpu", tmp_path / "b")
    other = fit_encoder(contigs_of(), dataclasses.replace(TINY, seed=1), "cpu", tmp_path / "c")
    assert torch.equal(torch.get_rng_state(), before)
    assert first.finished
    assert same(first, second)
    assert not same(first, other)


def test_a_stopped_fit_goes_on_to_the_same_weights(tmp_path):
    whole = fit_encoder(contigs_of(), TINY, "cpu", tmp_path / "whole")

    class Stop(Exception):
        pass

    def stop(now):
        if now.evaluated:
            raise Stop

    for _ in range(2):
        with pytest.raises(Stop):
            fit_encoder(contigs_of(), TINY, "cpu", tmp_path / "parts", stop)
    reached = fit_encoder(contigs_of(), TINY, "cpu", tmp_path / "parts", max_minutes=0)
    assert reached.record["steps"] == 8
    parts = fit_encoder(contigs_of(), TINY, "cpu", tmp_path / "parts")
    assert same(whole, parts)
    without_times = [
        [{k: v for k, v in e.items() if k != "seconds"} for e in r.record["evaluations"]]
        for r in (whole, parts)
    ]
    assert without_times[0] == without_times[1]
    assert parts.record["steps"] == TINY.steps


def test_a_killed_fit_goes_on_from_the_last_save_by_the_clock(tmp_path, monkeypatch):
    whole = fit_encoder(contigs_of(), TINY, "cpu", tmp_path / "whole")
    monkeypatch.setattr(encoder_fit, "REPORT_EVERY_S", 0.0)
    monkeypatch.setattr(encoder_fit, "SAVE_EVERY_S", 0.0)

    class Killed(Exception):
        pass

    def kill(now):
        if now.step == 3:
            raise Killed

    with pytest.raises(Killed):
        fit_encoder(contigs_of(), TINY, "cpu", tmp_path / "parts", kill)
    reached = []
    parts = fit_encoder(contigs_of(), TINY, "cpu", tmp_path / "parts", reached.append)
    assert reached[0].step == 4
    assert same(whole, parts)


def test_the_time_limit_saves_the_state_and_the_next_call_finishes(tmp_path):
    paused = fit_encoder(contigs_of(), TINY, "cpu", tmp_path, max_minutes=0)
    assert not paused.finished
    assert paused.state.is_file()
    assert [p.name for p in tmp_path.iterdir()] == [STATE]
    finished = fit_encoder(contigs_of(), TINY, "cpu", tmp_path)
    assert finished.finished
    assert same(finished, fit_encoder(contigs_of(), TINY, "cpu", tmp_path / "again"))


def test_the_time_limit_within_an_evaluation_changes_nothing(tmp_path, monkeypatch):
    whole = fit_encoder(contigs_of(), TINY, "cpu", tmp_path / "whole")
    now = [0.0]
    real = Judge._scores

    def slow(judging, *batch):
        now[0] = 100.0
        return real(judging, *batch)

    monkeypatch.setattr(judge, "JUDGED_AT_ONCE", 16)
    monkeypatch.setattr(Judge, "_scores", slow)
    for module in (encoder_fit, judge):
        monkeypatch.setattr(module, "time", SimpleNamespace(monotonic=lambda: now[0]))
    paused = fit_encoder(contigs_of(), TINY, "cpu", tmp_path / "parts", max_minutes=1)
    monkeypatch.undo()
    assert (paused.finished, paused.record["steps"]) == (False, 4)
    assert paused.record["evaluations"] == []
    parts = fit_encoder(contigs_of(), TINY, "cpu", tmp_path / "parts")
    assert same(whole, parts)
    assert [e["loss"] for e in parts.record["evaluations"]] == [
        e["loss"] for e in whole.record["evaluations"]
    ]


def test_it_learns_what_tells_the_sides_apart_and_keeps_the_best(tmp_path):
    told = []
    settings = dataclasses.replace(TINY, steps=60, evaluate_every=20)
    result = fit_encoder(
        contigs_of(), settings, "cpu", tmp_path, told.append, data_sha256={"x.fasta": "00"}
    )
    record = result.record
    assert [p.step for p in told if p.evaluated] == [20, 40, 60]
    assert told[-1].seconds_left == 0
    assert record["slice_auroc"]["150"] > 0.95
    best = max(record["evaluations"], key=lambda e: e["mean"])
    assert record["chosen_step"] == best["step"]
    assert record["data"] == {"x.fasta": "00"}
    assert record["settings"]["steps"] == 60
    assert record["fitting"]["units"] + record["slice"]["units"] == 12
    assert not result.network.training
    codes = torch.from_numpy(np.stack([letter_codes(c.sequence[:146]) for c in contigs_of(seed=9)]))
    score = result.network.outputs(frame_codons(codes, torch.full((12,), 146))).p_virus
    assert float(score[:6].min()) > float(score[6:].max())


def test_patience_ends_a_fit_that_gets_no_better(tmp_path):
    settings = dataclasses.replace(
        TINY, steps=400, evaluate_every=1, patience=3, learning_rate=0.0, average_decay=0.0
    )
    result = fit_encoder(contigs_of(), settings, "cpu", tmp_path)
    assert result.finished
    assert result.record["steps"] < 100


def test_the_state_of_another_training_is_refused(tmp_path):
    fit_encoder(contigs_of(), TINY, "cpu", tmp_path, max_minutes=0)
    with pytest.raises(ResumeError, match="made with steps = 12, not 13"):
        fit_encoder(contigs_of(), dataclasses.replace(TINY, steps=13), "cpu", tmp_path)
    contigs = contigs_of()
    others = [contigs_of(seed=1)] + [
        [*contigs[:-1], dataclasses.replace(contigs[-1], **change)]
        for change in ({"unit": "1u0"}, {"group": "h"}, {"name": "x"}, {"label": 1})
    ]
    for other in others:
        with pytest.raises(ResumeError, match="other contigs"):
            fit_encoder(other, TINY, "cpu", tmp_path)
    (tmp_path / STATE).write_bytes(b"broken")
    with pytest.raises(ResumeError, match="damaged"):
        fit_encoder(contigs_of(), TINY, "cpu", tmp_path)


def test_a_fit_begins_with_the_weights_that_are_given(tmp_path):
    first = fit_encoder(contigs_of(), TINY, "cpu", tmp_path / "a").network
    still = dataclasses.replace(TINY, learning_rate=0.0, weight_decay=0.0)
    result = fit_encoder(contigs_of(), still, "cpu", tmp_path / "b", start=first)
    weights = dict(first.named_parameters())
    for name, values in result.network.named_parameters():
        assert torch.equal(values, weights[name]), name
    assert "given weights" in result.record["method"]
    assert result.record["start_sha256"] == weights_digest(first)
    other = dataclasses.replace(still, hidden=still.hidden + 1)
    with pytest.raises(SettingsError, match="shape"):
        fit_encoder(contigs_of(), other, "cpu", tmp_path / "c", start=first)
    with pytest.raises(ResumeError, match="began with other weights"):
        fit_encoder(contigs_of(), still, "cpu", tmp_path / "b")


def test_fits_with_one_seed_for_the_slice_are_judged_alike(tmp_path):
    seeds = [{"seed": 1, "slice_seed": 0}, {"seed": 2, "slice_seed": 0}, {"seed": 0}]
    fits = [
        fit_encoder(contigs_of(), dataclasses.replace(TINY, **s), "cpu", tmp_path / str(i))
        for i, s in enumerate(seeds)
    ]
    assert fits[0].record["slice"] == fits[1].record["slice"] == fits[2].record["slice"]
    assert fits[0].record["evaluations"] != fits[1].record["evaluations"]


def test_one_side_alone_is_refused(tmp_path):
    viral = [c for c in contigs_of() if c.label]
    with pytest.raises(InputError, match="viral and other"):
        fit_encoder(viral, TINY, "cpu", tmp_path)
    settings = dataclasses.replace(TINY, slice_lengths_nt=(2000,))
    with pytest.raises(InputError, match="no 2000 nt"):
        fit_encoder(contigs_of(), settings, "cpu", tmp_path)


def test_the_learning_rate_rises_then_falls():
    rates = [learning_rate_at(EncoderSettings(steps=1000), step) for step in range(1000)]
    peak = int(np.argmax(rates))
    assert 20 <= peak <= 40
    assert rates[0] < rates[peak] / 10
    assert rates[-1] < rates[peak] / 100
    assert rates[peak] == pytest.approx(2e-3, rel=0.02)


def test_fragments_are_pieces_of_their_contigs_on_both_strands():
    sequences = [b"A" * 400 + b"C" * 400, b"G" * 70, b"C" * 90]
    pool = FragmentPool(sequences, np.array([0.5, 0.5, 0.0]), torch.device("cpu"))
    generator = torch.Generator().manual_seed(1)
    still = Augmentation(substitutions=0, unknown=0)
    codes, length, contig = pool.draw(200, 60, generator, still)
    assert set(length.tolist()) == {60}
    assert set(contig.tolist()) == {0, 1}
    label = contig == 0
    assert 60 < int(label.sum()) < 140
    for row, side in zip(codes[:, :60].tolist(), label.tolist(), strict=True):
        assert set(row) <= ({0, 1} if side else {2}) or set(row) <= ({2, 3} if side else {1})
    strands = {row[0] in (2,) for row in codes[label == 0].tolist()}
    assert strands == {True, False}
    long, _, contigs = pool.draw(50, 80, generator, still)
    assert not contigs.any()
    assert (long[:, 80:] == 4).all()
    with pytest.raises(ValueError, match="no contig"):
        pool.draw(1, 801, generator, still)


def test_nonsense_is_shuffled_or_repeats_and_of_no_contig():
    pool = FragmentPool([b"AAAAAAAAAC" * 100], np.ones(1), torch.device("cpu"))
    generator = torch.Generator().manual_seed(1)
    some = Augmentation(substitutions=0, unknown=0, nonsense=0.1)
    codes, _, contig = pool.draw(200, 300, generator, some)
    assert contig.tolist() == [NO_CONTIG] * 20 + [0] * 180
    text = codes[:, :300]
    rare = [torch.bincount(row, minlength=5).sort(descending=True).values.tolist() for row in text]
    assert all(counts[:2] == [270, 30] for counts in rare[:10])
    apart = [sorted(set(np.diff(np.flatnonzero(row != row.mode().values)))) for row in text]
    assert all(gaps == [10] for gaps in apart[20:])
    assert all(len(gaps) > 5 for gaps in apart[:10])
    for row in text[10:20]:
        assert any(torch.equal(row[unit:], row[:-unit]) for unit in range(1, 7))


def test_a_bounded_loss_learns_and_is_another_training(tmp_path):
    settings = dataclasses.replace(TINY, steps=60, evaluate_every=20, loss_power=0.5)
    found = {}
    for power in (0.5, 0.0):
        own = dataclasses.replace(settings, loss_power=power)
        found[power] = fit_encoder(contigs_of(), own, "cpu", tmp_path / f"{power}")
    assert found[0.5].record["slice_auroc"]["150"] > 0.95
    weights = [fit.network.arrays()["head.output.weight"] for fit in found.values()]
    assert not np.array_equal(*weights)


def test_groups_and_the_tail_are_learned_with_the_sides(tmp_path):
    settings = dataclasses.replace(
        TINY,
        steps=60,
        evaluate_every=20,
        groups=("g", "h"),
        unresolved=(("either", ("g", "h")),),
        augmentation=Augmentation(nonsense=0.05),
        tail_weight=0.3,
        by_level=True,
    )
    contigs = [
        dataclasses.replace(c, group="either" if "5" in c.name else "h" if c.label else "g")
        for c in contigs_of()
    ]
    result = fit_encoder(contigs, settings, "cpu", tmp_path)
    assert result.record["slice_auroc"]["150"] > 0.95
    assert 0 <= result.record["slice_recall_at_1pct_fpr"]["150"] <= 1
    assert result.network.groups == ("g", "h")
    codes = torch.from_numpy(np.stack([letter_codes(c.sequence[:146]) for c in contigs_of(seed=9)]))
    group = result.network.outputs(frame_codons(codes, torch.full((12,), 146))).group
    assert float(group[:6, 1].min()) > float(group[6:, 1].max())
    with pytest.raises(InputError, match="not among those that the network is to name"):
        fit_encoder(contigs_of(), dataclasses.replace(settings, groups=("x",)), "cpu", tmp_path)


def test_substitutions_change_about_as_many_letters_as_asked():
    pool = FragmentPool([b"A" * 1000], np.ones(1), torch.device("cpu"))
    generator = torch.Generator().manual_seed(1)
    codes, _, _ = pool.draw(400, 300, generator, Augmentation(substitutions=0.2, unknown=0))
    same_letter = (codes[:, :300] == codes[:, :300].mode(1).values[:, None]).float().mean()
    assert 0.88 < float(same_letter) < 0.92


def test_letters_are_put_in_and_left_out_of_what_a_contig_goes_on_with():
    """The contig here counts its own letters from 10 on, so that each tells where it is from."""
    pool = FragmentPool([b"A" * 700, b"A" * 5000], np.ones(2), torch.device("cpu"))
    pool._text = torch.cat([torch.arange(700), torch.arange(5000)]) + 10
    generator = torch.Generator().manual_seed(1)
    contig, start = torch.arange(4000) % 2, torch.arange(4000) // 2 % 300
    found = pool._read(contig, start, 400, generator, 0.1).numpy()
    changed = edits = 0
    for row, first, short in zip(found, start.numpy(), (contig == 0).numpy(), strict=True):
        if short:
            row = row[: len(row) - np.argmax(row[::-1] != 4)]  # without N beyond the contig
        put_in, place = row < 10, row[row >= 10] - 10
        assert (row[put_in] < 4).all()
        assert place[0] in (first, first + 1, first + 2)
        assert (np.diff(place) >= 1).all()
        assert not short or len(row) == 400 or place[-1] >= 698
        here = int(put_in.sum() + (np.diff(place) - 1).sum())
        changed += here > 0
        edits += here
    assert 0.24 < changed / 4000 < 0.31
    assert 0.0135 < edits / (4000 * 400) < 0.0165  # three in ten of a mean rate of 0.05
    assert torch.equal(pool._read(contig, start, 9, generator, 0.0)[:, 0], start + 10)
    quiet = Augmentation(substitutions=0, unknown=0, indels=0.3)
    codes, _, _ = FragmentPool([b"AC" * 100], np.ones(1), torch.device("cpu")).draw(
        300, 200, generator, quiet
    )
    assert codes.dtype == torch.uint8
    assert set(codes[:, :200].flatten().tolist()) == {0, 1, 2, 3, 4}


def test_blurring_hides_codons():
    generator = torch.Generator().manual_seed(1)
    codons = torch.randint(0, 64, (300, 6, 40), dtype=torch.int32)
    hidden = blurred(codons, Augmentation(hidden=0.4), generator)
    share = (hidden == AMBIGUOUS_CODON).float().mean()
    assert 0.17 < float(share) < 0.23
    assert (hidden == codons)[hidden != AMBIGUOUS_CODON].all()


def test_progress_is_told_at_every_slow_step(tmp_path, monkeypatch):
    monkeypatch.setattr(encoder_fit, "REPORT_EVERY_S", 0.0)
    told = []
    fit_encoder(contigs_of(), TINY, "cpu", tmp_path, told.append)
    assert [p.step for p in told if p.judging] == [4, 8, 12]
    told = [p for p in told if not p.judging]
    assert [p.step for p in told] == list(range(1, 13))
    assert [p.step for p in told if p.evaluated] == [4, 8, 12]
    assert [p.auroc is None for p in told[:4]] == [True, True, True, False]


def test_a_folder_that_cannot_be_written_to_is_one_sentence(tmp_path):
    (tmp_path / "file").touch()
    with pytest.raises(VirnucproError, match="file/work: this folder cannot be written"):
        fit_encoder(contigs_of(), TINY, "cpu", tmp_path / "file" / "work")


def test_a_full_disk_leaves_the_older_state_and_nothing_else(tmp_path, monkeypatch):
    fit_encoder(contigs_of(), TINY, "cpu", tmp_path, max_minutes=0)
    before = (tmp_path / STATE).read_bytes()

    def full(_):
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(os, "fsync", full)
    with pytest.raises(VirnucproError, match="the disk is full"):
        fit_encoder(contigs_of(), TINY, "cpu", tmp_path)
    assert [p.name for p in tmp_path.iterdir()] == [STATE]
    assert (tmp_path / STATE).read_bytes() == before


def test_a_bundle_says_what_it_is_told_and_holds_finite_weights(tmp_path):
    fit = fit_encoder(contigs_of(), TINY, "cpu", tmp_path / "work")
    about = {"name": "x", "description": "", "chunk_nt": 500, "validated_nt": 123}
    write_chunk_bundle(tmp_path / "good", fit, **about)
    assert load(tmp_path / "good").validated_nt == 123
    with torch.no_grad():
        fit.network.head.hidden.weight[0, 0] = float("nan")
    with pytest.raises(BundleError, match=r"head\.hidden\.weight are not finite"):
        write_chunk_bundle(tmp_path / "bad", fit, **about)
    assert not (tmp_path / "bad").exists()


@pytest.mark.parametrize(
    "wrong",
    [
        {"steps": 0},
        {"seed": -1},
        {"batch_nt": 0},
        {"lengths_nt": ()},
        {"learning_rate": float("nan")},
        {"slice_lengths_nt": (300, 0)},
    ],
)
def test_settings_that_cannot_work(wrong):
    with pytest.raises(SettingsError, match=next(iter(wrong))):
        EncoderSettings(**wrong)
