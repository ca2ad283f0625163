"""Filters of protein k-mers and their weights: what is kept, what is not, and what it is worth."""

from dataclasses import replace
from itertools import chain
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from hypothesis import example, given, settings
from hypothesis import strategies as st
from scipy.optimize import minimize
from sklearn.metrics import roc_auc_score

from chunk_codons import codons_of
from command import frames_manifest
from made_genomes import SENSE, coding
from plain_kmers import bytes_of, kmers_of_text, reverse, sampled_kmers, six_frames
from virnucpro.bundle import load
from virnucpro.bundle.write import write_bundle
from virnucpro.classifiers.codon import (
    CodonConfig,
    CodonNetwork,
    Outputs,
)
from virnucpro.classifiers.protein_kmers import (
    PROTEIN_KMERS,
    PROTEIN_KMERS_FILE,
    SIDES,
    KmerShape,
    protein_kmers_of,
)
from virnucpro.classifiers.whole_chunks import CODON_WEIGHTS
from virnucpro.errors import InputError
from virnucpro.measure.labels import LabelledContig
from virnucpro.train import protein_kmers_fit
from virnucpro.train.protein_kmers_fit import (
    KmerSettings,
    UnitKmers,
    _counted,
    _kept,
    _log_loss,
    _stretches,
    _weights,
    filter_of,
    fit_protein_kmers,
    keep_protein_kmers,
    kmers_of,
    units_of,
)

EVERY = KmerShape(k=8, sampled=1)
SETTINGS = KmerSettings(
    shape=EVERY, most=4, lengths_nt=(150, 240), per_side=100, slice_fraction=0.25
)
hash_sets = st.lists(st.sets(st.integers(0, 2**63 - 1) | st.integers(0, 20)), max_size=5)
texts = st.text("ACGT", max_size=150) | st.text("ACGTN", max_size=150)


def held(settings_, filter_, kmers):
    """Which k-mers a filter seems to hold."""
    bit_SP = settings_.shape.bits(torch.from_numpy(kmers), 8 * len(filter_)).numpy()
    return np.unpackbits(filter_, bitorder="little")[bit_SP].all(1)


def array(kmers):
    return np.array(sorted(kmers), np.int64)


def hashes(number, seed):
    """Different hashes of k-mers that are sampled."""
    drawn = np.random.default_rng(seed).integers(0, 2**60, number, np.int64)
    return np.unique(drawn) * KmerShape().sampled


@settings(max_examples=60)
@given(st.sets(st.integers(0, 2**63 - 1), max_size=60), st.integers(1, 9), st.integers(1, 16))
def test_a_filter_holds_all_that_was_put_in(kmers, probes, bits):
    shape = KmerShape(probes=probes)
    made = filter_of(array(kmers), KmerSettings(shape=shape, bits=bits))
    assert held(KmerSettings(shape=shape), made, array(kmers)).all()
    size = 8 * max(1, -(-len(kmers) * bits // 8))
    assert made.tobytes() == bytes_of(shape, kmers, size)


def test_of_what_it_does_not_hold_a_filter_finds_as_much_as_is_said():
    made = filter_of(hashes(30_000, 0), KmerSettings())
    others = np.setdiff1d(hashes(300_000, 1), hashes(30_000, 0))
    assert held(KmerSettings(), made, others).mean() == pytest.approx(0.0005, abs=0.00015)


def test_a_filter_of_no_kmers_finds_nothing():
    made = filter_of(array(()), KmerSettings())
    assert (made.dtype, len(made)) == (np.uint8, 1)
    assert not held(KmerSettings(), made, hashes(1000, 2)).any()


@given(st.lists(st.integers(-1, 3), max_size=30))
@example([])
@example([-1, -1])
@example([0, 1, -1, 2])
def test_stretches_are_those_of_a_plain_loop(letters):
    expected = []
    for place, letter in enumerate(letters):
        first = last = place
        while first > 0 and letters[first - 1] >= 0:
            first -= 1
        while last + 1 < len(letters) and letters[last + 1] >= 0:
            last += 1
        expected.append(last - first + 1 if letter >= 0 else 0)
    assert _stretches(np.array(letters, np.int64)).tolist() == expected


def open_around(protein, place):
    """How many codons lie around a place without stop or unknown codon between."""
    if not 0 <= place < len(protein) or protein[place] in "*X":
        return 0
    before = protein[:place].replace("X", "*").rpartition("*")[2]
    return len(before) + len(protein[place:].replace("X", "*").partition("*")[0])


def plain_kmers(text, settings_, longest):
    """What kmers_of is to give, place by place."""
    frames, shape = six_frames(text), settings_.shape
    for number, protein in enumerate(frames):
        for place, kmer, letters in sampled_kmers(shape, protein):
            middle = number % 3 + 3 * (place + shape.k // 2) + 1
            along = [middle, len(text) - 1 - middle]
            if number >= 3:
                along.reverse()
            around = [
                open_around(other, (along[n // 3] - n % 3) // 3) for n, other in enumerate(frames)
            ]
            if letters >= settings_.distinct and (not longest or around[number] == max(around)):
                yield kmer


@settings(max_examples=60)
@given(texts, st.integers(1, 7), st.integers(1, 3), st.integers(1, 4), st.booleans())
@example("ATG" + "GCTAAAGATTGGCATCCTTGT" * 6, 5, 1, 3, True)
def test_kmers_are_those_of_a_plain_reading(text, k, sampled, distinct, longest):
    settings_ = KmerSettings(shape=KmerShape(k=k, sampled=sampled), distinct=distinct)
    found = kmers_of(text.encode(), settings_, longest=longest)
    assert sorted(found.tolist()) == sorted(plain_kmers(text, settings_, longest))


def test_of_a_long_open_frame_the_coding_one_is_kept_and_not_its_antisense():
    gene = coding(np.random.default_rng(0), 400)
    frames = kmers_of_text(EVERY, gene)
    every = replace(SETTINGS, distinct=1)
    assert min(map(len, frames)) > 50
    for text in (gene, reverse(gene)):
        kept = kmers_of(text.encode(), every, longest=True)
        assert sorted(kept.tolist()) == sorted(frames[0])
        both = kmers_of(text.encode(), every, longest=False)
        assert sorted(both.tolist()) == sorted(chain(*frames))


def test_repeats_are_not_remembered():
    repeat = b"GCTAAAGATTGG" * 30
    assert len(kmers_of(repeat, replace(SETTINGS, distinct=4), longest=False))
    assert not len(kmers_of(repeat, replace(SETTINGS, distinct=5), longest=False))


@given(hash_sets)
def test_kmers_are_counted_once_a_part(parts):
    kmers, count = _counted([array(part) for part in parts])
    every = sorted(set().union(*parts))
    assert kmers.tolist() == every
    assert count.tolist() == [sum(kmer in part for part in parts) for kmer in every]


@given(hash_sets, hash_sets, st.integers(1, 3))
@example([{1, 2, 3}], [{3, 4, 5}, {2, 4}, {6}], 2)
def test_what_both_sides_have_is_kept_of_neither(virus, others, units):
    made = [UnitKmers(1, "", array(part)) for part in virus]
    made += [UnitKmers(0, "", array(part)) for part in others]
    viral, other = set().union(*virus), set().union(*others)
    shared = {kmer for kmer in other if sum(kmer in part for part in others) >= units}
    kept = _kept(made[::-1], replace(SETTINGS, others_units=units))
    assert kept["virus"].tolist() == sorted(viral - other)
    assert kept["others"].tolist() == sorted(shared - viral)


def counts_with(effect, n=3000, most=3, seed=0):
    """Counts, logits and labels; effect: the log-odds that counts (n, 2) really add."""
    rng = np.random.default_rng(seed)
    found = rng.poisson(1.2, (n, 2))
    logit = rng.normal(0, 1, n)
    label = rng.random(n) < 1 / (1 + np.exp(-(logit + effect(found))))
    return found, logit, label.astype(float), replace(SETTINGS, most=most)


STEPS = np.array([[0, 1.0, 1.0, 2.5], [0, -0.5, -1.5, -1.5]])


def added_by(weights, found):
    """What weights (2, count) add to the logit of each, (n,)."""
    return sum(weights[side, found[:, side].clip(max=weights.shape[1] - 1)] for side in (0, 1))


@pytest.mark.parametrize("base", [0.0, -1.0])
def test_weights_are_those_of_a_general_optimiser(base):
    found, logit, label, settings_ = counts_with(lambda n: added_by(STEPS, n) + base)

    def loss(free):
        weights = np.cumsum(np.insert(free[:6].reshape(2, 3) * [[1], [-1]], 0, 0, 1), 1)
        total = logit + added_by(weights, found) + free[6]
        ridge = (free[:6] ** 2).sum() / 2 / len(label)
        return np.logaddexp(0, np.where(label == 1, -total, total)).mean() + ridge

    best = minimize(loss, np.zeros(7), bounds=[(0, None)] * 6 + [(None, None)], tol=1e-12)
    expected = np.cumsum(best.x[:6].reshape(2, 3) * [[1], [-1]], 1)
    weights, _ = _weights(found, logit, label, settings_)
    kept = np.array([weights[side] for side in SIDES])
    np.testing.assert_allclose(kept[:, 1:], expected, atol=0.002)
    np.testing.assert_allclose(kept, STEPS, atol=0.4)


@settings(max_examples=10)
@given(st.integers(0, 99), st.floats(-2, 2), st.floats(-2, 2))
def test_weights_are_monotone_and_of_their_sign(seed, virus, others):
    data = counts_with(lambda n: virus * n[:, 0] + others * n[:, 1], n=400, seed=seed)
    weights, _ = _weights(*data)
    assert [*weights] == [*SIDES]
    for sign, values in zip((1, -1), weights.values(), strict=True):
        assert values[0] == 0
        assert len(values) == 4
        assert (sign * np.diff(values) >= 0).all()


@pytest.mark.parametrize("base", [0.0, -2.0, 1.5])
def test_counts_without_information_weigh_next_to_nothing(base):
    """Also where the network is wrong by as much everywhere."""
    found, logit, label, settings_ = counts_with(lambda n: np.full(len(n), base), 9000)
    weights, _ = _weights(found, logit, label, settings_)
    assert abs(np.array([*weights.values()])).max() < 0.25
    nothing, _ = _weights(np.zeros_like(found), logit, label, settings_)
    assert nothing == dict.fromkeys(SIDES, [0.0] * 4)


def test_the_loss_told_is_that_of_the_weights_kept():
    found, logit, label, settings_ = counts_with(lambda n: n[:, 0] - n[:, 1] - 1)
    weights, loss = _weights(found, logit, label, settings_)
    added = added_by(np.array([weights[side] for side in SIDES]), found)
    assert loss == {"before": _log_loss(logit, label), "after": _log_loss(logit + added, label)}
    p = 1 / (1 + np.exp(-logit))
    expected = -np.mean(np.where(label == 1, np.log(p), np.log(1 - p)))
    assert loss["before"] == pytest.approx(expected, abs=1e-5)


def mutated(text, rng, share=0.04):
    letters = np.array([*text])
    changed = rng.random(len(text)) < share
    letters[changed] = rng.choice([*"ACGT"], changed.sum())
    return "".join(letters)


GENES = {
    label: [coding(np.random.default_rng([label, gene]), 150) for gene in range(6)]
    for label in (0, 1)
}


def copies(seed, units=4):
    """Mutated copies of the genes of both sides, each set of copies a unit."""
    rng = np.random.default_rng(seed)
    return [
        LabelledContig(
            name := f"{label}_{gene}_{unit}_{seed}",
            mutated(text, rng).encode(),
            label,
            "g" if label else "host",
            unit=name,
        )
        for label, genes in GENES.items()
        for gene, text in enumerate(genes)
        for unit in range(units)
    ]


def coin(sequences):
    """A network that knows nothing."""
    return np.random.default_rng(len(sequences)).uniform(0.3, 0.7, len(sequences))


@pytest.fixture(scope="module")
def fitted():
    return fit_protein_kmers(copies(0), coin, SETTINGS)


def module_of(fitted_, groups=()):
    """What scores in a bundle that has them; groups: of its network."""
    parts = {PROTEIN_KMERS: fitted_.part}
    model = SimpleNamespace(
        path=Path(), parts=parts, part=parts.__getitem__, arrays=lambda _: fitted_.filters
    )
    return protein_kmers_of(model, groups)


def test_relatives_are_told_where_the_network_tosses_a_coin(fitted):
    fresh = copies(1)
    sequences = [contig.sequence for contig in fresh]
    p, label = coin(sequences), [contig.label for contig in fresh]
    both = torch.from_numpy(np.stack([p, 1 - p], 1))
    outputs = Outputs(*both.unbind(1), torch.zeros(len(p), 6), both)
    changed = module_of(fitted, ("g", "host")).applied(outputs, codons_of(sequences))
    assert roc_auc_score(label, p) < 0.7
    assert roc_auc_score(label, changed.p_virus) > 0.95
    torch.testing.assert_close(changed.group[:, 0], changed.p_virus)
    assert (
        fitted.part["training"]["log_loss"]["after"] < fitted.part["training"]["log_loss"]["before"]
    )


def test_the_part_and_the_record_tell_what_was_fitted(fitted):
    assert fitted.part["alphabet"] == [*EVERY.alphabet]
    assert fitted.part["virus_groups"] == ["g"]
    assert (fitted.part["k"], fitted.part["sampled"], fitted.part["probes"]) == (8, 1, 11)
    assert fitted.part["training"]["contigs"] == {"contigs": 48, "bases": 48 * 450, "units": 48}
    assert fitted.part["training"]["weights_fitted_on"]["units"] == 12
    for side in SIDES:
        kmers = fitted.part["training"]["kmers"][side]
        assert kmers > 500
        assert len(fitted.filters[side]) == -(-kmers * SETTINGS.bits // 8)
        assert len(fitted.part["weights"][side]) == SETTINGS.most + 1


def test_the_module_counts_in_the_alphabet_that_it_was_fitted_in(fitted):
    shape = KmerShape(alphabet=("ACFGILMVWP", "DEHKNQRSTY"), k=15, sampled=1)
    other = fit_protein_kmers(copies(0), coin, replace(SETTINGS, shape=shape, distinct=2))
    assert module_of(other).shape == shape
    found = module_of(other).found(codons_of([c.sequence for c in copies(0) if c.label == 1]))
    assert (found[:, 0] > 50).all()


@pytest.mark.parametrize("seed", [0, 1])
def test_the_order_of_contigs_changes_no_filter(fitted, seed):
    order = np.random.default_rng(seed).permutation(48)
    again = fit_protein_kmers([copies(0)[i] for i in order], coin, SETTINGS)
    for side in SIDES:
        assert again.filters[side].tobytes() == fitted.filters[side].tobytes()
    assert again.part["training"]["kmers"] == fitted.part["training"]["kmers"]


def test_the_same_contigs_give_the_same_and_progress_is_told(fitted):
    told = []
    again = fit_protein_kmers(copies(0), coin, SETTINGS, lambda *now: told.append(now))
    assert told == [(done, 48) for done in range(1, 49)]
    assert again.part == fitted.part
    units = units_of(copies(0), SETTINGS)
    from_units = fit_protein_kmers(copies(0)[::-1], coin, SETTINGS, units=units)
    for side in SIDES:
        assert from_units.filters[side].tobytes() == fitted.filters[side].tobytes()


def test_texts_of_a_unit_are_read_in_parts_and_never_across(fitted, monkeypatch):
    one_unit = [replace(c, unit=f"{c.label}{c.unit[4]}") for c in copies(0)]
    whole = fit_protein_kmers(one_unit, coin, SETTINGS)
    monkeypatch.setattr(protein_kmers_fit, "READ_AT_ONCE_NT", 1)
    apart = fit_protein_kmers(one_unit, coin, SETTINGS)
    assert whole.part == apart.part
    for side in SIDES:
        assert whole.filters[side].tobytes() == apart.filters[side].tobytes()


def test_a_gene_of_both_sides_is_remembered_of_neither(fitted):
    shared = GENES[1][0].encode()
    taken = [LabelledContig(f"t{n}", shared, 0, "host", unit=f"t{n}") for n in range(3)]
    virus = LabelledContig("v", shared, 1, "g", unit="v")
    found = fit_protein_kmers([*copies(0), virus, *taken], coin, SETTINGS)
    coding_frame = array(set(kmers_of_text(EVERY, shared.decode())[0]))
    for side, before in (("virus", 0.7), ("others", 0)):
        assert held(SETTINGS, fitted.filters[side], coding_frame).mean() >= before
        assert held(SETTINGS, found.filters[side], coding_frame).mean() < 0.04


def test_what_one_other_unit_has_is_not_kept(fitted):
    lone = coding(np.random.default_rng(9), 150).encode()
    contigs = [*copies(0), LabelledContig("lone", lone, 0, "host", unit="lone")]
    once = fit_protein_kmers(contigs, coin, SETTINGS)
    assert module_of(once).found(codons_of([lone]))[0, 1] <= 5
    every = fit_protein_kmers(contigs, coin, replace(SETTINGS, others_units=1))
    assert module_of(every).found(codons_of([lone]))[0, 1] > 100


def test_weights_are_fitted_with_filters_that_the_slice_is_not_in():
    """What is found in the slice alone says nothing of other sequences."""
    rng = np.random.default_rng(4)
    strangers = [
        LabelledContig(f"{n}", "".join(rng.choice(SENSE, 150)).encode(), n % 2, "g", unit=f"{n}")
        for n in range(40)
    ]
    found = fit_protein_kmers(strangers, coin, SETTINGS)
    assert abs(np.array([*found.part["weights"].values()])).max() < 0.5


@pytest.mark.parametrize("label", [0, 1])
def test_a_side_is_missing(label):
    one = [contig for contig in copies(0) if contig.label == label]
    few = [contig for contig in copies(0) if contig.label != label][:1]
    for contigs in (one, one + few, []):
        with pytest.raises(InputError, match="viral and other contigs"):
            fit_protein_kmers(contigs, coin, SETTINGS)


@pytest.mark.parametrize("label", [(0,), (1,), (0, 1)])
def test_a_side_is_too_short_for_a_fragment(label):
    contigs = [replace(c, sequence=c.sequence[:149]) if c.label in label else c for c in copies(0)]
    with pytest.raises(InputError, match="no 150 nt of one side; give longer"):
        fit_protein_kmers(contigs, coin, SETTINGS)


def test_a_bundle_that_keeps_them_scores_with_them(fitted, tmp_path):
    torch.manual_seed(0)
    network = CodonNetwork(
        CodonConfig(channels=(8, 16), blocks=(1, 1), kernels=(5, 3), heads=2, embedding=12), 8
    )
    manifest = frames_manifest(kind="chunks", chunk_nt=450, codon=network.part())
    bundle = write_bundle(tmp_path / "plain", manifest, {CODON_WEIGHTS: network.arrays()})
    texts = [contig.sequence.decode() for contig in copies(1)]
    before = bundle.classifier().score(texts).p_virus
    kept = keep_protein_kmers(bundle, fitted)
    assert kept.files.keys() == {CODON_WEIGHTS, PROTEIN_KMERS_FILE}
    assert load(bundle.path).sha256 == kept.sha256 != bundle.sha256
    after = kept.classifier().score(texts).p_virus
    viral = np.array([contig.label == 1 for contig in copies(1)])
    assert (after[viral] > before[viral]).mean() > 0.9
    assert (after[~viral] < before[~viral]).mean() > 0.9
    again = keep_protein_kmers(kept, fitted)
    assert again.sha256 == kept.sha256
