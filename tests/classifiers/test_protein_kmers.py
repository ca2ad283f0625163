"""Protein k-mers: hashes, what a filter holds, what was found, odds, and bundles that have them."""

import datetime
import math
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from hypothesis import example, given, settings
from hypothesis import strategies as st
from safetensors.torch import save

from chunk_codons import codons_of
from command import chunks_manifest
from plain_kmers import (
    bits_of,
    bytes_of,
    hash_of,
    kmers_of_text,
    letters_of,
    reverse,
    splitmix64,
)
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
    ProteinKmers,
    part_of,
    protein_kmers_of,
)
from virnucpro.classifiers.whole_chunks import CODON_WEIGHTS, ChunkClassifier
from virnucpro.errors import BundleError
from virnucpro.frames import AMINO_ACIDS

NETWORK = CodonConfig(channels=(8, 16), blocks=(1, 1), kernels=(5, 3), embedding=12)
GROUPS = ("phage", "human", "plant")
# So many bits that what is not held is not found either.
BITS = 1 << 20
SHORT = KmerShape(k=4, sampled=2, probes=5)
HALVES = ("ACFGILMVWP", "DEHKNQRSTY")
SIXTEEN = ("LVIM", "FYW", *"CAGSTPEDNQKRH")
shapes = st.builds(
    KmerShape,
    alphabet=st.sampled_from([KmerShape().alphabet, HALVES, SIXTEEN]),
    k=st.integers(1, 15),
    sampled=st.integers(1, 9),
)
texts = st.text("ACGT", max_size=160) | st.text("ACGTN", max_size=160)
NO_WEIGHTS = {side: [0.0] for side in SIDES}


def array_of(shape, kmers, size=BITS):
    return np.frombuffer(bytes_of(shape, kmers, size), np.uint8)


def made(shape, virus=(), others=(), weights=NO_WEIGHTS, virus_groups=()):
    held = {"virus": array_of(shape, virus), "others": array_of(shape, others)}
    return ProteinKmers(shape, held, weights, virus_groups)


def found_in(kmers, chunks, more=0):
    return kmers.found(codons_of(chunks, more)).tolist()


def random_dna(length_nt, seed):
    return "".join(np.random.default_rng(seed).choice([*"ACGT"], length_nt))


def test_the_oracle_is_splitmix64():
    assert splitmix64(0) == 0xE220A8397B1DCDAF
    assert splitmix64(1234567) == 6457827717110365317


@given(shapes, st.lists(st.integers(0, 64), min_size=15, max_size=40))
@example(KmerShape(k=15, sampled=1), [0] * 15)
@example(KmerShape(k=2, sampled=1), [48, *[0] * 12, 64, 0])
def test_hashes_are_those_of_plain_ints(shape, codons):
    letters = letters_of(shape, [(AMINO_ACIDS + "X")[codon] for codon in codons])
    tensor = shape.letters(torch.tensor(codons))
    assert tensor.tolist() == [-1 if letter is None else letter for letter in letters]
    hashes, sampled = shape.hashes(tensor)
    assert hashes.min() >= 0
    assert len(hashes) == len(sampled) == len(codons) - shape.k + 1
    for i, (found, looked_at) in enumerate(zip(hashes.tolist(), sampled.tolist(), strict=True)):
        expected = hash_of(letters[i : i + shape.k])
        assert looked_at == (expected is not None and expected % shape.sampled == 0)
        assert expected in (None, found)


def test_kmers_with_a_stop_or_an_unknown_codon_are_never_sampled():
    shape = KmerShape(k=3, sampled=1)
    for stop in (AMINO_ACIDS.index("*"), AMINO_ACIDS.rindex("*"), 64):
        sampled = shape.hashes(shape.letters(torch.tensor([9, 9, 9, 9, stop, 9, 9, 9])))[1]
        assert sampled.tolist() == [True, True, False, False, False, True]


@pytest.mark.parametrize("sampled", [1, 3, 8, 50])
def test_one_kmer_in_so_many_is_sampled(sampled):
    torch.manual_seed(0)
    letters = torch.randint(0, 10, (200_000,))
    share = KmerShape(sampled=sampled).hashes(letters)[1].double().mean().item()
    assert share == pytest.approx(1 / sampled, rel=4 * math.sqrt(sampled / 200_000))


@given(
    shapes,
    st.lists(st.integers(0, 2**63 - 1), min_size=1, max_size=9),
    st.integers(1, 2**28).map(lambda size: 8 * size),
)
def test_bits_are_those_of_plain_ints(shape, kmers, size):
    assert shape.bits(torch.tensor(kmers), size).tolist() == [
        bits_of(shape, kmer, size) for kmer in kmers
    ]


@settings(max_examples=60)
@given(st.lists(texts, min_size=1, max_size=5), st.data())
def test_found_is_what_exact_membership_counts(chunks, data):
    frames = [kmers_of_text(SHORT, chunk) for chunk in chunks]
    known = sorted({kmer for chunk in frames for frame in chunk for kmer in frame})
    side = st.sets(st.sampled_from(known)) if known else st.just(set())
    held = [data.draw(side | st.just(set(known)), label=name) for name in SIDES]
    expected = [
        [max(sum(kmer in kept for kmer in frame) for frame in chunk) for kept in held]
        for chunk in frames
    ]
    assert found_in(made(SHORT, *held), chunks) == expected


def test_all_kmers_or_none_are_found():
    chunks = [random_dna(300, seed) for seed in range(5)]
    held = {
        kmer
        for chunk in chunks[:3]
        for frame in kmers_of_text(KmerShape(), chunk)
        for kmer in frame
    }
    every = [max(map(len, kmers_of_text(KmerShape(), chunk))) for chunk in chunks]
    assert min(every) > 0
    both = found_in(made(KmerShape(), held), chunks)
    assert both == [[most, 0] for most in every[:3]] + [[0, 0]] * 2
    assert found_in(made(KmerShape(), others=held), chunks[:3]) == [[0, n] for n in every[:3]]
    full = np.full(1, 255, np.uint8)
    kmers = ProteinKmers(KmerShape(), dict.fromkeys(SIDES, full), NO_WEIGHTS, ())
    assert found_in(kmers, chunks) == [[most, most] for most in every]


@settings(max_examples=40)
@given(st.lists(texts, min_size=1, max_size=5), st.integers(0, 9))
def test_neighbours_padding_and_strand_change_nothing(chunks, more):
    held = [kmer for frame in kmers_of_text(SHORT, "".join(chunks)) for kmer in frame]
    kmers = made(SHORT, held[::2], held[1::2])
    together = found_in(kmers, chunks)
    assert together == [found_in(kmers, [chunk])[0] for chunk in chunks]
    assert together == found_in(kmers, chunks, more)
    assert together == found_in(kmers, [reverse(chunk) for chunk in chunks])


@pytest.mark.parametrize("length_nt", [0, 2, 24, 38])
def test_nothing_is_found_in_a_chunk_of_fewer_codons_than_k(length_nt):
    shape = KmerShape(sampled=1)
    kmers = ProteinKmers(shape, {s: np.full(1, 255, np.uint8) for s in SIDES}, NO_WEIGHTS, ())
    assert found_in(kmers, ["GCA" * 13, "GCA" * 12]) == [[1, 1], [0, 0]]
    assert found_in(kmers, [("GCA" * 13)[:length_nt]]) == [[0, 0]]
    assert kmers.found(torch.zeros(0, 6, 16, dtype=torch.int32)).shape == (0, 2)


def applied(weights, counts, p_virus, group, virus_groups):
    kmers = made(SHORT, weights=weights, virus_groups=virus_groups)
    kmers.found = lambda _: torch.tensor(counts)
    weight = torch.full((len(counts), 6), 1 / 6)
    p = torch.tensor(p_virus)
    outputs = Outputs(p, 1 - p, weight, torch.tensor(group))
    changed = kmers.applied(outputs, torch.zeros(len(counts), 6, 8, dtype=torch.int32))
    assert changed.weight is weight
    assert changed.p_virus.dtype == changed.group.dtype == torch.float32
    return changed


def test_scores_near_1_lose_nothing_to_rounding():
    logit = torch.linspace(-30, 30, 61, dtype=torch.float64)
    kmers = made(SHORT, weights={"virus": [0.0], "others": [0.0, -6.9]})
    kmers.found = lambda _: torch.tensor([[0, 1]] * 61)
    p, none = logit.sigmoid().float(), torch.zeros(61, 0)
    outputs = Outputs(p, (-logit).sigmoid().float(), torch.zeros(61, 6), none)
    changed = kmers.applied(outputs, torch.zeros(61, 6, 8, dtype=torch.int32))
    expected = torch.sigmoid(logit - 6.9)
    torch.testing.assert_close(changed.p_virus.double(), expected, rtol=3e-7, atol=0)


weight_lists = st.lists(st.floats(-6, 6), min_size=1, max_size=5)
probabilities = st.floats(0, 1, width=32)


@given(
    weight_lists,
    weight_lists,
    st.tuples(st.integers(0, 9), st.integers(0, 9)),
    probabilities,
    st.lists(st.floats(0.001, 1), min_size=3, max_size=3),
)
def test_odds_are_those_of_float64(virus, others, counts, p, parts):
    group = np.float32(np.array(parts) / sum(parts))
    changed = applied(
        {"virus": virus, "others": others}, [counts], [p], group[None], (True, False, True)
    )
    added = virus[min(counts[0], len(virus) - 1)] + others[min(counts[1], len(others) - 1)]
    odds = math.exp(added)
    assert changed.p_virus.item() == pytest.approx(odds * p / (odds * p + 1 - p), rel=1e-6)
    moved = group.astype(np.float64) * [odds, 1, odds]
    np.testing.assert_allclose(changed.group[0].numpy(), moved / moved.sum(), rtol=1e-6)
    assert changed.group.sum().item() == pytest.approx(1, abs=1e-6)


@pytest.mark.parametrize("weight", [-100.0, -3.0, 0.0, 3.0, 100.0])
def test_certain_scores_stay(weight):
    weights = {"virus": [weight], "others": [weight]}
    groups = [[1.0, 0.0], [0.0, 1.0]]
    changed = applied(weights, [[0, 0], [0, 0]], [1.0, 0.0], groups, (True, False))
    assert changed.p_virus.tolist() == [1, 0]
    assert changed.group.tolist() == groups


def test_a_network_without_groups_keeps_none():
    changed = applied(
        {"virus": [1.0], "others": [0.0]}, [[1, 0]], [0.5], np.zeros((1, 0), "f4"), ()
    )
    assert changed.group.shape == (1, 0)
    assert changed.p_virus.item() == pytest.approx(1 / (1 + math.exp(-1)))


CHUNKS = [random_dna(130, seed) for seed in range(8)]
SHAPE = KmerShape(k=9, sampled=1)
HELD = [kmer for chunk in CHUNKS[:4] for frame in kmers_of_text(SHAPE, chunk) for kmer in frame]
FILTERS = {"virus": array_of(SHAPE, HELD, 1 << 16), "others": array_of(SHAPE, (), 1 << 16)}
PART = part_of(SHAPE, NO_WEIGHTS, ["phage", "a group that the network does not name"])


@pytest.fixture(scope="module")
def network():
    torch.manual_seed(5)
    made_network = CodonNetwork(NETWORK, 8, GROUPS).train()
    for _ in range(3):
        made_network(torch.randint(0, 65, (6, 6, 24), dtype=torch.int32))
    return made_network.eval()


@pytest.fixture
def bundle(network, tmp_path):
    """Writes a bundle; part: of its protein k-mers, file: arrays or bytes; None for neither."""

    def write(part=PART, file=FILTERS):
        manifest = chunks_manifest(network.part(), **{PROTEIN_KMERS: part})
        files = {CODON_WEIGHTS: network.arrays()}
        if file is not None:
            files[PROTEIN_KMERS_FILE] = file
        return write_bundle(tmp_path / f"{len([*tmp_path.iterdir()])}", manifest, files)

    return write


def scores(bundle, chunks=CHUNKS):
    return ChunkClassifier(bundle, "cpu", "fp32").score(chunks)


def test_weights_of_zero_change_no_score(bundle):
    without, zero = scores(bundle(None, None)), scores(bundle())
    assert without.p_virus.tolist() == zero.p_virus.tolist()
    assert without.frame.tolist() == zero.frame.tolist()
    np.testing.assert_allclose(np.exp(without.groups), np.exp(zero.groups), rtol=0.01)


def test_what_is_known_moves_score_and_groups(bundle):
    weights = {"virus": [0.0, 1.5], "others": [0.0, -1.0]}
    before, after = scores(bundle()), scores(bundle({**PART, "weights": weights}))
    odds = after.p_virus / (1 - after.p_virus) / (before.p_virus / (1 - before.p_virus))
    np.testing.assert_allclose(odds, [math.exp(1.5)] * 4 + [1] * 4, rtol=1e-4)
    phage = [np.exp(s.groups.astype(float))[:, GROUPS.index("phage")] for s in (before, after)]
    assert (phage[1][:4] > phage[0][:4]).all()
    assert phage[1][4:] == pytest.approx(phage[0][4:], rel=0.01)
    swapped = {"virus": FILTERS["others"], "others": FILTERS["virus"]}
    lower = scores(bundle({**PART, "weights": weights}, swapped))
    assert (lower.p_virus[:4] < before.p_virus[:4]).all()
    assert lower.p_virus[4:].tolist() == before.p_virus[4:].tolist()


def test_case_u_and_strand_are_as_elsewhere(bundle):
    made_bundle = bundle({**PART, "weights": {"virus": [0.0, 1.0, 3.0], "others": [0.0]}})
    plain = scores(made_bundle).p_virus.tolist()
    assert (
        scores(made_bundle, [c.lower().replace("t", "u") for c in CHUNKS]).p_virus.tolist() == plain
    )
    assert scores(made_bundle, [reverse(c) for c in CHUNKS]).p_virus.tolist() == plain


def weighing(virus):
    return {"weights": {"virus": virus, "others": [0.0]}}


TWENTY = [*"ACDEFGHIKLMNPQRSTVWY"]
MALFORMED = [
    *({name: None} for name in PART),
    {"alphabet": "".join(TWENTY)},
    {"alphabet": TWENTY},
    {"alphabet": 10},
    {"alphabet": [1, 2, 3]},
    {"alphabet": [["L", "V"], ["I"]]},
    {"alphabet": []},
    {"alphabet": [*SHAPE.alphabet[:-1]]},
    {"alphabet": [*SHAPE.alphabet, "A"]},
    {"alphabet": [*SHAPE.alphabet, "*"]},
    *(
        {name: value}
        for name in ("k", "sampled", "probes")
        for value in (0, -1, 2**31, 2**70, 5.0, 5.5, math.inf, math.nan, True, "5", [5], {"a": 5})
    ),
    {"k": 16},
    {"k": 40},
    {"weights": "0.0"},
    {"weights": [[0.0], [0.0]]},
    {"weights": {"virus": [0.0]}},
    *map(
        weighing,
        (
            *("0", 0.0, 1, True, {}, {"0": 1.0}, [], [[0.0]], [[0.0], [1.0, 2.0]], ["0"], [True]),
            *([math.nan], [0.0, math.inf], [-math.inf], [1e3], [10**400], [0.0, "x"], [{}]),
            [datetime.date(2000, 1, 1)],
        ),
    ),
    {"virus_groups": "phage"},
    {"virus_groups": {"phage": True}},
    {"virus_groups": ["phage", 1]},
    {"virus_groups": [["phage"]]},
    {"virus_groups": [1]},
    {"virus_groups": 1},
]


@pytest.mark.parametrize("change", MALFORMED, ids=lambda change: ascii(change)[:50])
def test_a_malformed_part_is_told_with_its_file(bundle, change):
    damaged = bundle(PART | change)
    with pytest.raises(BundleError, match=PROTEIN_KMERS_FILE):
        ChunkClassifier(damaged, "cpu", "fp32")


@pytest.mark.parametrize("part", [3, "x", [1], True])
def test_a_part_that_is_no_table(bundle, part):
    with pytest.raises(BundleError, match=rf"bundle\.toml: has no table \[{PROTEIN_KMERS}\]"):
        ChunkClassifier(bundle(part), "cpu", "fp32")


BYTES = FILTERS["virus"]
BROKEN = {
    "a side is missing": {"virus": BYTES},
    "other names": {"viruses": BYTES, "others": BYTES},
    "floats": FILTERS | {"virus": BYTES.astype(np.float32)},
    "wide": FILTERS | {"others": BYTES.astype(np.int64)},
    "signed": FILTERS | {"others": BYTES.view(np.int8)},
    "table": FILTERS | {"virus": BYTES.reshape(2, -1)},
    "numbers alone": save({side: torch.tensor(1, dtype=torch.uint8) for side in SIDES}),
    "empty": FILTERS | {"others": BYTES[:0]},
    "numbers that numpy lacks": save(
        {side: torch.zeros(4, dtype=torch.bfloat16) for side in SIDES}
    ),
    "text": b"not a safetensors file",
    "nothing": b"",
    "absent": None,
}


@pytest.mark.parametrize("file", BROKEN.values(), ids=BROKEN)
def test_a_broken_file_is_told_by_name(bundle, file):
    with pytest.raises(BundleError, match=PROTEIN_KMERS_FILE):
        ChunkClassifier(bundle(file=file), "cpu", "fp32")


def test_filters_are_those_that_the_manifest_lists(bundle):
    changed = bundle()
    (changed.path / PROTEIN_KMERS_FILE).write_bytes(save({"virus": torch.zeros(1)}))
    with pytest.raises(BundleError, match=f"{PROTEIN_KMERS_FILE}: its sha256"):
        ChunkClassifier(changed, "cpu", "fp32")


values = st.recursive(
    st.integers() | st.floats() | st.booleans() | st.text(max_size=3) | st.sampled_from(GROUPS),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.sampled_from(SIDES), inner),
    max_leaves=6,
)


@settings(max_examples=80)
@given(st.dictionaries(st.sampled_from(sorted(PART)), values, min_size=1, max_size=2))
def test_any_part_scores_or_is_told(change):
    model = SimpleNamespace(
        path=Path("tiny"),
        parts={PROTEIN_KMERS: PART | change},
        part=lambda name: model.parts[name],
        arrays=lambda _: FILTERS,
    )
    try:
        kmers = protein_kmers_of(model, GROUPS)
    except BundleError:
        return
    p = torch.rand(8)
    outputs = Outputs(p, 1 - p, torch.full((8, 6), 1 / 6), torch.full((8, 3), 1 / 3))
    changed = kmers.applied(outputs, codons_of(CHUNKS))
    for tensor in changed:
        assert ((tensor >= 0) & (tensor <= 1)).all()


def test_a_bundle_may_have_none():
    assert protein_kmers_of(SimpleNamespace(parts={}), GROUPS) is None
