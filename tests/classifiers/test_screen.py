"""Notes on letters: suspects on both strands, chance, repeats, and unknown letters."""

import time

import numpy as np
import pytest

from command import dna
from virnucpro.blocks import Texts
from virnucpro.classifiers import screen
from virnucpro.classifiers.complexity import complexities, low_shares
from virnucpro.classifiers.screen import NOTE_TEXTS, notes_of
from virnucpro.frames import letter_codes

COMPLEMENT = str.maketrans("ACGT", "TGCA")
# The two that Illumina's kits ligate, as their documentation prints them.
TRUSEQ = "AGATCGGAAGAGCACACGTCTGAACTCCAGTCA"


def noted(*chunks: str) -> list[str]:
    return [NOTE_TEXTS[bits] for bits in notes_of(Texts.of_strings(chunks))]


def both_strands(chunk: str) -> tuple[str, str]:
    return chunk, chunk.translate(COMPLEMENT)[::-1]


@pytest.fixture(scope="module")
def suspects() -> dict[str, str]:
    """The longest of each name."""
    found: dict[str, str] = {}
    for bit, letters in screen._records():
        name = screen.NOTES[bit].name
        if len(letters) > len(found.get(name, "")):
            found[name] = letters.decode()
    return found


@pytest.mark.parametrize(
    ("name", "least_nt"),
    [("PhiX174", 5_386), ("lambda", 48_502), ("M13", 6_407), ("SV40", 5_243), ("vector", 4_000)],
)
def test_whole_genomes_are_noted_on_both_strands(suspects, name, least_nt):
    genome = suspects[name]
    assert len(genome) >= least_nt
    chunks = [genome[i : i + 300] for i in range(0, len(genome) - 300, 250)]
    notes = noted(*[strand for chunk in chunks for strand in both_strands(chunk)])
    assert np.mean([note == name for note in notes]) > 0.9
    assert "" not in notes


def test_random_letters_have_no_note():
    assert set(noted(*[dna(500, i) for i in range(300)])) == {""}


def test_half_a_chunk_is_noted_and_a_third_is_not(suspects):
    genome = suspects["PhiX174"]
    assert noted(genome[:270] + dna(230), genome[:150] + dna(350)) == ["PhiX174", ""]


def test_an_adapter_behind_a_read_is_noted():
    for strand in both_strands(dna(117, 1) + TRUSEQ):
        assert noted(strand) == ["adapter"]
    assert noted(dna(117, 1) + TRUSEQ[:24]) == [""]


def test_a_mismatch_breaks_only_the_kmers_around_it(suspects):
    genome = suspects["PhiX174"][1000:1500]
    other = genome[:250] + ("A" if genome[250] != "A" else "C") + genome[251:]
    assert noted(other) == ["PhiX174"]
    assert noted(genome[:200] + "N" * 40 + genome[240:]) == ["PhiX174"]


@pytest.mark.parametrize("unit", ["A", "T", "AC", "CAG", "AACCCT"])
def test_repeats_are_of_low_complexity_and_nothing_else(unit):
    repeat = (unit * 500)[:500]
    assert noted(repeat, repeat[:200] + dna(300), repeat[:60]) == [
        "low_complexity",
        "",
        "low_complexity",
    ]


def test_unknown_letters_are_no_note():
    assert noted("N" * 500, "N" * 400 + dna(100)) == ["", ""]


def test_a_note_does_not_depend_on_the_chunks_beside_it(suspects):
    phix = suspects["PhiX174"]
    chunks = [dna(70, 3), phix[:90], "A" * 64, dna(300, 4), phix[2000:2333], "AC" * 40, "ACG"]
    assert noted(*chunks) == [note for chunk in chunks for note in noted(chunk)]
    assert noted() == []


def test_the_end_of_a_short_chunk_is_its_end():
    """Its one window would be longer than it is, and end in the next chunk."""
    short = [dna(3, k) + "AT" * 24 + dna(9, k) for k in range(40)]
    alone = [noted(chunk)[0] for chunk in short]
    mixed = noted(*(part for chunk in short for part in (chunk, "AT" * 40)))
    assert mixed[::2] == alone


def test_both_ways_of_looking_for_low_complexity_agree():
    chunks = [dna(n, n) + "AT" * (n // 4) for n in (64, 128, 320, 960)]
    texts = Texts.of_strings(chunks)
    shares = low_shares(letter_codes(texts.text), texts)
    expected = [found.share for found in complexities([c.encode() for c in chunks])]
    assert shares.tolist() == expected  # chunks that end where a window does
    assert any(0 < share < 1 for share in expected)


def test_the_screen_is_quick():
    """0.08 s for a megabase on a quiet machine; the bound leaves room for a busy one."""
    rng = np.random.default_rng(0)
    text = np.frombuffer(b"ACGT", np.uint8)[rng.integers(0, 4, 1_000_000)].tobytes()
    offset = np.arange(0, 1_000_000, 500, dtype=np.int64)
    texts = Texts(text, offset, np.full(len(offset), 500, np.int64))
    notes_of(texts)
    spent = []
    for _ in range(3):
        clock = time.perf_counter()
        notes_of(texts)
        spent.append(time.perf_counter() - clock)
    assert min(spent) < 0.5
