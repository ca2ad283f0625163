"""Telling a genetic code by open frames, on genes written in each code."""

from itertools import product

import numpy as np
import pytest

from command import dna
from virnucpro.classifiers.genetic_code import (
    CHOICES,
    LOOKED_AT_NT,
    MARGIN,
    SHORTEST_NT,
    code_of,
    codons_of,
    mean_open,
    told_code,
)
from virnucpro.cli import program
from virnucpro.frames import COMPLEMENT, letter_codes, open_frames

STOPS = {"TAA", "TAG", "TGA"}
SENSE = [c for c in map("".join, product("ACGT", repeat=3)) if c not in STOPS]
READ_THROUGH = {1: None, 4: "TGA", 15: "TAG"}


def genome(code: int, genes: int = 6, codons: int = 300, seed: int = 0) -> str:
    """Genes on both strands, of which those of other codes have a stop read through in them."""
    random = np.random.default_rng(seed)
    parts = []
    for k in range(genes):
        gene = random.choice(SENSE, codons).tolist()
        if READ_THROUGH[code]:
            for place in range(20, codons, 25):
                gene[place] = READ_THROUGH[code]
        text = "ATG" + "".join(gene) + "TAA" + dna(40, (seed, k))
        parts.append(text if k % 2 else text.translate(COMPLEMENT)[::-1])
    return "".join(parts)


@pytest.mark.parametrize("code", READ_THROUGH)
def test_a_genome_has_the_code_by_which_its_frames_are_long(code):
    text = genome(code, seed=code)
    for sequence in (text, text.translate(COMPLEMENT)[::-1], text.lower(), text.replace("T", "U")):
        assert code_of(sequence.encode(), "auto") == code
    assert code_of(text.encode(), "25") == 25


@pytest.mark.parametrize("seed", range(5))
def test_dna_without_genes_has_the_standard_code(seed):
    assert told_code(dna(20_000, seed).encode()) == 1


def test_short_records_and_records_without_letters_have_the_standard_code():
    text = genome(4)
    assert told_code(text[: SHORTEST_NT - 1].encode()) == 1
    assert told_code(genome(4, genes=1, codons=500).encode()) == 4
    for sequence in ("", "AC", "N" * 2000):
        assert told_code(sequence.encode()) == 1


def test_genes_that_end_in_tga_have_the_standard_code():
    """Of a genome rich in G and C, as those of mycobacteriophages, where TAA and TAG are rare."""
    random = np.random.default_rng(3)
    weight = np.array([2.3 ** sum(letter in "GC" for letter in codon) for codon in SENSE])
    genes = (random.choice(SENSE, 500, p=weight / weight.sum()) for _ in range(20))
    text = "".join("ATG" + "".join(gene) + "TGA" for gene in genes).encode()
    codons = codons_of(letter_codes(text))
    assert mean_open(codons, 4) > MARGIN * mean_open(codons, 1)
    assert told_code(text) == 1


def test_the_beginning_of_a_long_record_tells():
    filler = dna(LOOKED_AT_NT, 1).encode()
    rest = genome(4, codons=600, seed=4).encode() * 400
    assert told_code(rest) == 4
    assert told_code(filler + rest) == 1


def test_mean_open_is_that_of_the_longest_frame_over_each_letter():
    text = "ATGGCTTGAGCTGCTTAGGCAGCATAAGCTNGCTAACCCTTA" * 2
    for code in (1, 4, 15):
        stops = STOPS - {READ_THROUGH[code]}
        longest = np.zeros(len(text) - 2)
        for strand, sign in ((text, 1), (text.translate(COMPLEMENT)[::-1], -1)):
            for phase in range(3):
                places = [*range(phase, len(text) - 2, 3)]
                ends = [strand[i : i + 3] in stops or "N" in strand[i : i + 3] for i in places]
                run = []
                for place, end in zip([*places, None], [*ends, True], strict=True):
                    if not end:
                        run.append(place)
                        continue
                    for i in run:
                        first = i if sign == 1 else len(text) - 3 - i
                        # As a codon that begins there, and the two letters behind it.
                        for nt in range(first, min(first + 3, len(longest))):
                            longest[nt] = max(longest[nt], len(run))
                    run = []
        assert mean_open(codons_of(letter_codes(text.encode())), code) == pytest.approx(
            longest.mean()
        )


def test_the_command_line_offers_what_there_is():
    (option,) = (p for p in program.commands["predict"].params if p.name == "genetic_code")
    assert tuple(option.type.choices) == CHOICES
    for choice in CHOICES[:-1]:
        assert open_frames("GCTGCT", int(choice))
