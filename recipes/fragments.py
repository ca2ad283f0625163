"""Fragments of val that a card is measured on: by novelty, changed, and of no origin."""

import csv
import gzip
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np

from virnucpro.measure.labels import LabelledContig, read_with_labels, with_novelty

COMPLEMENT = bytes.maketrans(b"ACGT", b"TGCA")
# How near a stretch must lie to be a relative, and what it is called from which identity on.
OVERLAP_NT = 75
FROM_PERCENT = ((90, "known"), (70, "close"), (45, "related"), (0, "distant"))


def fixed(data: Path, length_nt: int) -> list[LabelledContig]:
    """The fixed fragments of a length, each viral one with its novelty."""
    folder = data / "val" / "fragments"
    fasta, labels = folder / f"frag{length_nt}.fasta.gz", folder / f"frag{length_nt}.labels.tsv"
    found = read_with_labels([fasta], [labels]).contigs
    return with_novelty(found, folder / f"frag{length_nt}.novelty.tsv")


def middles(data: Path, fragments: Sequence[LabelledContig], nt: int) -> list[LabelledContig]:
    """The middle nt of each fragment, viral ones with the novelty of that piece by itself.

    A piece has that of the nearest stretch of its record that overlaps it by OVERLAP_NT or more.
    """
    records = _viral_records(data)
    stretches = _stretches(data)
    found = []
    for fragment in fragments:
        start = (len(fragment.sequence) - nt) // 2
        piece = fragment.sequence[start : start + nt]
        novelty = ""
        if fragment.label:
            name, at = _place(fragment.sequence, fragment.unit, records)
            reversed_ = at < 0
            first = (~at if reversed_ else at) + (
                len(fragment.sequence) - nt - start if reversed_ else start
            )
            novelty = _novelty(stretches.get(name, []), first, first + nt)
        found.append(replace(fragment, sequence=piece, novelty=novelty))
    return found


def _viral_records(data: Path) -> dict[str, list[tuple[str, bytes]]]:
    """Unit -> names and sequences of its viral records of val."""
    folder = data / "val"
    with gzip.open(folder / "viral.tsv.gz", "rt", encoding="utf-8") as table:
        rows = csv.DictReader(table, delimiter="\t", quoting=csv.QUOTE_NONE)
        unit = {row["id"]: row["unit"] for row in rows}
    found: dict[str, list[tuple[str, bytes]]] = {}
    with gzip.open(folder / "viral.fasta.gz", "rb") as fasta:
        for header in fasta:
            name = header[1:].split(b"|")[0].strip().decode()
            found.setdefault(unit[name], []).append((name, next(fasta).strip()))
    return found


def _stretches(data: Path) -> dict[str, list[tuple[int, int, float]]]:
    """Record -> start, end and identity in per cent of what resembles training."""
    found: dict[str, list[tuple[int, int, float]]] = {}
    path = data / "val" / "viral.novelty.tsv.gz"
    with gzip.open(path, "rt", encoding="utf-8") as table:
        for row in csv.DictReader(table, delimiter="\t"):
            stretch = int(row["start"]), int(row["end"]), float(row["identity"])
            found.setdefault(row["id"], []).append(stretch)
    return found


def _place(
    sequence: bytes, unit: str, records: dict[str, list[tuple[str, bytes]]]
) -> tuple[str, int]:
    """Record and start of a fragment; the start is inverted (~start) on the other strand."""
    other = sequence.translate(COMPLEMENT)[::-1]
    for name, record in records[unit]:
        if (at := record.find(sequence)) >= 0:
            return name, at
        if (at := record.find(other)) >= 0:
            return name, ~at
    raise ValueError(f"a fragment of {unit} lies in none of its records")


def _novelty(stretches: Sequence[tuple[int, int, float]], start: int, end: int) -> str:
    near = [
        percent
        for first, last, percent in stretches
        if min(last, end) - max(first, start) >= OVERLAP_NT
    ]
    return named_novelty(max(near, default=-1))


def named_novelty(identity: float) -> str:
    """Return the novelty of what has this identity, in per cent, to its nearest; -1 for none."""
    return next((name for least, name in FROM_PERCENT if identity >= least), "unseen")


def substituted(
    fragments: Sequence[LabelledContig], rate: float, seed: int = 0
) -> list[LabelledContig]:
    """Each letter A, C, G, T becomes another one with probability rate."""
    rng = np.random.default_rng(seed)
    letters = np.frombuffer(b"ACGT", np.uint8)
    code = np.full(256, 4, np.uint8)
    code[letters] = range(4)
    found = []
    for fragment in fragments:
        text = np.frombuffer(fragment.sequence, np.uint8)
        codes = code[text]
        change = (rng.random(len(text)) < rate) & (codes < 4)
        other = letters[(codes + rng.integers(1, 4, len(text))) % 4]
        found.append(replace(fragment, sequence=np.where(change, other, text).tobytes()))
    return found


def shuffled(fragments: Sequence[LabelledContig], seed: int = 0) -> list[str]:
    """The letters of each fragment in random order."""
    rng = np.random.default_rng(seed)
    return [
        rng.permutation(np.frombuffer(fragment.sequence, np.uint8)).tobytes().decode()
        for fragment in fragments
    ]


def repeats(length_nt: int, count: int, seed: int = 0) -> list[str]:
    """Tandem repeats of random units of 1 to 12 nt."""
    rng = np.random.default_rng(seed)
    units = ["".join(rng.choice(list("ACGT"), 1 + i % 12)) for i in range(count)]
    return [(unit * length_nt)[:length_nt] for unit in units]


def with_indels(
    given: Sequence[LabelledContig], rate: float, seed: int = 0
) -> list[LabelledContig]:
    """Insertions and deletions, half each, that begin at a letter with probability rate.

    Their lengths are geometric with a mean of 1.5; an insertion repeats the letter before it as
    often as it is random, as in nanopore reads. What grows longer is cut to its length.
    """
    rng = np.random.default_rng(seed)
    found = []
    for fragment in given:
        pieces, at = [], 0
        for place in np.flatnonzero(rng.random(len(fragment.sequence)) < rate).tolist():
            if place < at:  # within what was deleted
                continue
            pieces.append(fragment.sequence[at:place])
            length, at = int(rng.geometric(1 / 1.5)), place
            if rng.random() < 0.5:
                at += length
            elif place and rng.random() < 0.5:
                pieces.append(fragment.sequence[place - 1 : place] * length)
            else:
                pieces.append(rng.choice(np.frombuffer(b"ACGT", np.uint8), length).tobytes())
        text = b"".join([*pieces, fragment.sequence[at:]])
        found.append(replace(fragment, sequence=text[: len(fragment.sequence)]))
    return found


def with_unknown(
    given: Sequence[LabelledContig], share: float, seed: int = 0
) -> list[LabelledContig]:
    """A stretch of N, of this share of each fragment, somewhere in it."""
    rng = np.random.default_rng(seed)
    found = []
    for fragment in given:
        length = round(share * len(fragment.sequence))
        at = int(rng.integers(len(fragment.sequence) - length + 1))
        text = fragment.sequence[:at] + b"N" * length + fragment.sequence[at + length :]
        found.append(replace(fragment, sequence=text))
    return found


def chimeras(given: Sequence[LabelledContig], seed: int = 0) -> list[LabelledContig]:
    """The first half of each fragment, and then the second half of one that is not viral."""
    rng = np.random.default_rng(seed)
    others = [fragment.sequence for fragment in given if not fragment.label]
    found = []
    for fragment in given:
        half = len(fragment.sequence) // 2
        other = others[int(rng.integers(len(others)))]
        found.append(replace(fragment, sequence=fragment.sequence[:half] + other[half:]))
    return found


def lower_case(given: Sequence[LabelledContig]) -> list[LabelledContig]:
    """The same in lower case, as a masked genome has it."""
    return [replace(fragment, sequence=fragment.sequence.lower()) for fragment in given]


def cut(given: Sequence[LabelledContig], nt: int) -> list[LabelledContig]:
    """The middle nt of each fragment."""
    start = [(len(fragment.sequence) - nt) // 2 for fragment in given]
    return [
        replace(fragment, sequence=fragment.sequence[first : first + nt])
        for fragment, first in zip(given, start, strict=True)
    ]
