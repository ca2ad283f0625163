from collections import Counter

import numpy as np

from virnucpro.measure.fragments import fragments_at
from virnucpro.measure.labels import LabelledContig


def contig(text: str, label: int, group: str, unit: str) -> LabelledContig:
    return LabelledContig(f"{group}{unit}", text.encode(), label, group, unit=unit)


def reverse_complement(text: bytes) -> bytes:
    return text.translate(bytes.maketrans(b"ACGT", b"TGCA"))[::-1]


def test_fragments_share_groups_and_go_round_the_units() -> None:
    rng = np.random.default_rng(1)

    def random(size: int) -> str:
        return "".join(rng.choice(list("ACGT"), size=size))

    contigs = [contig(random(3000), 1, "a", f"u{i}") for i in range(4)]
    contigs += [contig(random(20_000), 1, "b", "big"), contig(random(500), 1, "b", "small")]
    contigs += [contig(random(90), 1, "c", "short"), contig(random(5000), 0, "d", "d")]
    fragments = fragments_at(contigs, 100, 60, seed=5)
    assert Counter(f.group for f in fragments) == {"a": 30, "b": 30, "d": 60}
    assert Counter(f.unit for f in fragments if f.group == "b") == {"big": 15, "small": 15}
    assert {n for u, n in Counter(f.unit for f in fragments).items() if u[0] == "u"} == {7, 8}
    assert len({f.name for f in fragments}) == len(fragments)
    source = {c.unit: c for c in contigs}
    flipped = 0
    for f in fragments:
        assert len(f.sequence) == 100
        text = source[f.unit].sequence
        forward = f.sequence in text
        assert forward or reverse_complement(f.sequence) in text
        assert f.label == source[f.unit].label
        flipped += not forward
    assert 40 < flipped < 80
    assert fragments == fragments_at(contigs, 100, 60, seed=5)
    assert fragments != fragments_at(contigs, 100, 60, seed=6)


def test_fragments_are_never_repeated_nor_mostly_unknown() -> None:
    tiny = [contig("ACGTTGCAACGT", 1, "a", "u"), contig("N" * 300 + "ACGT" * 30, 0, "b", "v")]
    fragments = fragments_at(tiny, 10, 50)
    viral = [f.sequence for f in fragments if f.label == 1]
    starts = ("ACGTTGCAAC", "CGTTGCAACG", "GTTGCAACGT")
    assert sorted(min(v, reverse_complement(v)) for v in viral) == sorted(
        min(s.encode(), reverse_complement(s.encode())) for s in starts
    )
    assert all(f.sequence.count(b"N") == 0 for f in fragments)
    assert any(f.label == 0 for f in fragments)
