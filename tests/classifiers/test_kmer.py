from itertools import product
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from virnucpro.blocks import Block, Rows
from virnucpro.calls import Scores, Status
from virnucpro.classifiers.kmer import (
    KmerClassifier,
    canonical_classes,
    class_count,
    kmer_frequencies,
    kmer_numbers,
)
from virnucpro.errors import BundleError, SettingsError
from virnucpro.measure.labels import LabelledContig
from virnucpro.measure.metrics import auroc
from virnucpro.train.kmer_fit import (
    KmerFit,
    KmerSettings,
    _draw,
    _newton,
    _standardise,
    fit_kmer,
    write_kmer_bundle,
)

COMPLEMENT = str.maketrans("ACGT", "TGCA")


def reverse_complement(text: str) -> str:
    return text.translate(COMPLEMENT)[::-1]


def canonical(k: int) -> list[str]:
    """Canonical k-mers in alphabetical order, the plain way."""
    kmers = ("".join(letters) for letters in product("ACGT", repeat=k))
    return sorted({min(kmer, reverse_complement(kmer)) for kmer in kmers})


def plain_frequencies(chunk: str, k: int) -> np.ndarray:
    place = {kmer: i for i, kmer in enumerate(canonical(k))}
    counts = np.zeros(len(place))
    for i in range(len(chunk) - k + 1):
        kmer = chunk[i : i + k]
        if set(kmer) <= set("ACGT"):
            counts[place[min(kmer, reverse_complement(kmer))]] += 1
    return counts / max(counts.sum(), 1)


def classifier(k: int = 5, seed: int = 0, validated_nt: int = 60) -> KmerClassifier:
    rng = np.random.default_rng(seed)
    n = class_count(k)
    return KmerClassifier(
        weight=rng.normal(size=n),
        mean=rng.random(n) / n,
        scale=rng.uniform(0.001, 0.01, size=n),
        bias=0.3,
        k=k,
        validated_nt=validated_nt,
    )


def plain_p_virus(chunk: str, k: int, seed: int = 0) -> float:
    rng = np.random.default_rng(seed)
    n = class_count(k)
    weight, mean, scale = rng.normal(size=n), rng.random(n) / n, rng.uniform(0.001, 0.01, size=n)
    logit = 0.3 + np.sum(weight * (plain_frequencies(chunk, k) - mean) / scale)
    return float(1 / (1 + np.exp(-logit)))


def block_of(text: str, spans: list[tuple[int, int]]) -> Block:
    start = np.array([s for s, _ in spans], dtype=np.int64)
    end = np.array([e for _, e in spans], dtype=np.int64)
    rows = Rows(
        np.zeros(len(spans), np.int32), np.arange(1, len(spans) + 1, dtype=np.int32), start, end
    )
    return Block(0, (), rows, start, text.encode(), "")


def same(a: Scores, b: Scores) -> bool:
    names = a.__slots__
    scores = ("p_virus", "max_p_virus", "max_p_others")
    return all(np.array_equal(getattr(a, n), getattr(b, n), equal_nan=n in scores) for n in names)


def random_text(size: int, unknown: float, seed: int) -> str:
    rng = np.random.default_rng(seed)
    letters = rng.choice(list("ACGT"), size=size)
    return "".join(
        np.where(rng.random(size) < unknown, rng.choice(list("NRY"), size=size), letters)
    )


# Short ones by hypothesis itself, which seldom writes long texts, and random ones of any length.
dirty_strategy = st.one_of(
    st.text(alphabet="ACGTN", max_size=20),
    st.builds(
        random_text, st.integers(0, 300), st.sampled_from([0.0, 0.01, 0.3]), st.integers(0, 10**6)
    ),
)


@pytest.mark.parametrize("k", [4, 5, 6])
def test_classes_are_the_canonical_kmers_in_alphabetical_order(k: int) -> None:
    names = canonical(k)
    assert class_count(k) == len(names)
    classes = canonical_classes(k)
    assert np.count_nonzero(classes >= 0) == 4**k
    for kmer in (names[0], names[len(names) // 3], names[-1]):
        for strand in (kmer, reverse_complement(kmer)):
            codes = np.array(["ACGT".index(letter) for letter in strand], dtype=np.uint8)
            assert classes[kmer_numbers(codes, k)[0]] == names.index(kmer)


def test_another_k_is_refused() -> None:
    with pytest.raises(ValueError, match="k is 7"):
        class_count(7)


@settings(max_examples=60, deadline=None)
@given(st.lists(dirty_strategy, max_size=4), st.sampled_from([4, 5]))
def test_frequencies_equal_a_plain_count(chunks: list[str], k: int) -> None:
    length = np.array([len(c) for c in chunks], dtype=np.int64)
    found = kmer_frequencies("".join(chunks).encode(), np.cumsum(length) - length, length, k)
    expected = [plain_frequencies(chunk, k) for chunk in chunks]
    np.testing.assert_array_equal(found, np.array(expected).reshape(len(chunks), class_count(k)))


@settings(max_examples=60, deadline=None)
@given(dirty_strategy, st.sampled_from([4, 5, 6]))
def test_score_equals_a_plain_logistic_regression(chunk: str, k: int) -> None:
    scores = classifier(k).score([chunk])
    letters = sum(letter in "ACGT" for letter in chunk)
    if len(chunk) < 60 or letters < 60:
        assert np.isnan(scores.p_virus[0])
    elif plain_frequencies(chunk, k).any():
        # Rounding of weights to 2**-24, see FRACTION_BITS, and sums in another order.
        assert scores.p_virus[0] == pytest.approx(plain_p_virus(chunk, k), abs=1e-7)


@settings(max_examples=80, deadline=None)
@given(st.lists(dirty_strategy, min_size=1, max_size=6))
def test_both_strands_have_the_very_same_score(chunks: list[str]) -> None:
    model = classifier()
    turned = [chunk.translate(COMPLEMENT)[::-1] for chunk in chunks]
    assert same(model.score(chunks), model.score(turned))


@settings(max_examples=80, deadline=None)
@given(st.data(), dirty_strategy.filter(len))
def test_a_chunk_scores_the_same_in_any_block(data: st.DataObject, text: str) -> None:
    text = text * 3
    span = st.tuples(st.integers(0, len(text)), st.integers(0, len(text))).map(sorted).map(tuple)
    spans = data.draw(st.lists(span, max_size=8))
    model = classifier()
    together = model.score_block(block_of(text, spans))
    assert len(together) == len(spans)
    assert same(together, model.score([text[s:e] for s, e in spans]))
    for i, (start, end) in enumerate(spans):
        alone = model.score([text[start:end]])
        assert alone.status[0] == together.status[i]
        np.testing.assert_array_equal(alone.p_virus[0], together.p_virus[i])


def test_statuses() -> None:
    plain = "ACGTTGCAAC" * 20
    model = classifier(validated_nt=150)
    chunks = [
        plain[:59],
        plain[:60],
        plain[:149],
        plain[:150],
        plain[:59] + "N" * 90,
        plain[:60] + "N" * 90,
        "N" * 59,
        "",
    ]
    scores = model.score(chunks)
    assert [Status(s) for s in scores.status] == [
        Status.TOO_SHORT,
        Status.BELOW_VALIDATED_LENGTH,
        Status.BELOW_VALIDATED_LENGTH,
        Status.OK,
        Status.AMBIGUOUS,
        Status.OK,
        Status.TOO_SHORT,
        Status.TOO_SHORT,
    ]
    called = np.array([False, True, True, True, False, True, False, False])
    np.testing.assert_array_equal(~np.isnan(scores.p_virus), called)
    np.testing.assert_array_equal(scores.frame_chunk, np.flatnonzero(called))
    assert not scores.frames.any()
    assert not scores.frame.any()
    np.testing.assert_array_equal(scores.frame_p_virus, scores.p_virus[called].astype(np.float32))
    np.testing.assert_allclose(scores.frame_p_others + scores.frame_p_virus, 1, atol=1e-7)
    assert np.isnan(scores.max_p_virus).all()
    assert np.isnan(scores.max_p_others).all()


def test_case_and_u_do_not_matter() -> None:
    chunk = "ACGTTGCAACTTGATTACAG" * 5
    model = classifier()
    scores = model.score([chunk, chunk.lower(), chunk.replace("T", "U")])
    assert len(set(scores.p_virus.tolist())) == 1


def test_no_kmer_at_all_is_average_composition() -> None:
    scores = classifier().score(["ACGTN" * 20, "ACNN" * 40])
    assert scores.p_virus.tolist() == pytest.approx([1 / (1 + np.exp(-0.3))] * 2, abs=1e-12)


def test_no_chunks() -> None:
    assert len(classifier().score([])) == 0
    assert len(classifier().score_block(block_of("", []))) == 0


def test_arrays_that_cannot_be_are_refused() -> None:
    n = class_count(5)
    ones = np.ones(n)
    with pytest.raises(ValueError, match="shape"):
        KmerClassifier(weight=np.ones(n - 1), mean=ones, scale=ones, bias=0.0)
    with pytest.raises(ValueError, match="finite"):
        KmerClassifier(weight=ones, mean=ones, scale=np.zeros(n) + 1e-30, bias=0.0)


def made_up_contigs(seed: int = 0) -> list[LabelledContig]:
    """Viral contigs rich in A and T, others in G and C, eight units a side."""
    rng = np.random.default_rng(seed)
    contigs = []
    for label, p in ((1, [0.3, 0.2, 0.2, 0.3]), (0, [0.25, 0.27, 0.25, 0.23])):
        for unit in range(8):
            text = "".join(rng.choice(list("ACGT"), size=3000, p=p))
            name = f"{label}_{unit}"
            contigs.append(LabelledContig(name, text.encode(), label, f"g{unit % 2}", unit=name))
    return contigs


SMALL = KmerSettings(k=4, fragments=1500, held_out_fragments=300, penalties=(0.1, 0.01))


def test_fit_learns_composition_and_is_deterministic() -> None:
    contigs = made_up_contigs()
    fit = fit_kmer(contigs, SMALL, {"x.fasta": "00"})
    again = fit_kmer(contigs, SMALL, {"x.fasta": "00"})
    for name, values in fit.arrays().items():
        np.testing.assert_array_equal(values, again.arrays()[name])
    other = fit_kmer(contigs, KmerSettings(**{**fit.record["settings"], "seed": 1}))
    assert not np.array_equal(fit.weight, other.weight)
    unseen = made_up_contigs(seed=1)
    chunks = [c.sequence[i : i + 300].decode() for c in unseen for i in range(0, 3000, 300)]
    label = np.repeat([c.label == 1 for c in unseen], 10)
    area = auroc(label, fit.classifier(validated_nt=150).score(chunks).p_virus)
    assert area is not None
    assert area > 0.9
    assert fit.record["data"] == {"x.fasta": "00"}
    assert fit.record["slice"]["units"] + fit.record["fitting"]["units"] == 16
    assert fit.record["chosen_l2"] in SMALL.penalties


def test_fit_reaches_the_minimum_of_scikit_learn() -> None:
    x, label = _draw(made_up_contigs(), SMALL, 1500, stream=0)
    _standardise(x)
    solution = _newton(x, label, 0.01, np.zeros(x.shape[1] + 1))
    # C of scikit-learn weighs the summed log loss: C = 1 / (rows * l2).
    from sklearn.linear_model import LogisticRegression  # takes a second to load

    oracle = LogisticRegression(C=1 / (1500 * 0.01), tol=1e-8, max_iter=2000)
    oracle.fit(x.astype(np.float64), label)
    np.testing.assert_allclose(solution[:-1], oracle.coef_[0], atol=2e-4)
    assert solution[-1] == pytest.approx(oracle.intercept_[0], abs=2e-4)


def test_weights_are_rounded_as_finely_as_promised() -> None:
    """To 2**-24, so by less than 2**-25: on one k-mer alone, where no other rounding evens it."""
    n = class_count(5)
    model = KmerClassifier(weight=np.full(n, 0.3), mean=np.zeros(n), scale=np.ones(n), bias=0.0)
    (p_virus,) = model.score(["A" * 100]).p_virus
    assert abs(np.log(p_virus / (1 - p_virus)) - 0.3) < 2**-25


@pytest.mark.parametrize(
    "wrong",
    [
        {"k": 3},
        {"fragments": 0},
        {"seed": -1},
        {"shortest_nt": 3},
        {"longest_nt": 100},
        {"penalties": ()},
    ],
)
def test_settings_that_cannot_work(wrong: dict) -> None:
    with pytest.raises(SettingsError, match=next(iter(wrong))):
        KmerSettings(**wrong)


def test_a_fit_that_is_not_finite_becomes_no_bundle(tmp_path: Path) -> None:
    n = class_count(4)
    fit = KmerFit(4, np.full(n, np.nan), np.zeros(n), np.ones(n), 0.0, {})
    with pytest.raises(BundleError, match="weight are not finite"):
        write_kmer_bundle(
            tmp_path / "b", fit, name="b", description="", chunk_nt=500, validated_nt=150
        )
    assert not (tmp_path / "b").exists()
