"""Recoded genomes: what --genetic-code auto tells, and what they cost a bundle of whole chunks.

    python bench/recoded.py mini-500 --data DATA

First real ones: which code is told of all genomes of viruses of more, and the share of fragments
called virus of phages that are recoded by their open frames, and of others (a bundle that was
trained on more knows them), and what is told of stretches of viruses rich in G and C. Then viral
records of val, recoded within their longest frames that are open by the standard code (100 codons
or more, where two overlap the longer): every TGG becomes TGA for code 4; for code 15 half of the
CAG and CAA become TAG. Which code is told of records as they are and recoded, by length; and the
bundle's AUROC and recall on fragments of the same places, against the same others.
"""

import argparse
import sys
from collections.abc import Iterator, Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np

from virnucpro.bundle import load
from virnucpro.classifiers.genetic_code import TOLD, codons_of, mean_open, told_code
from virnucpro.frames import COMPLEMENT, STANDARD, letter_codes
from virnucpro.measure.accuracy import ScoresChunks
from virnucpro.measure.labels import LabelledContig, read_two_sided
from virnucpro.measure.metrics import auroc, recall_at_false_positive_rate

RECODED = {4: ({"TGG": 1.0}, "TGA"), 15: ({"CAG": 0.5, "CAA": 0.5}, "TAG")}
STOPS = {"TAA", "TAG", "TGA"}
FEWEST_CODONS = 100
MOST_SHARED = 0.1
LENGTHS_NT = (1000, 2000, 5000, 10_000)
EACH = 60
# Of a genome of this length, by the standard code so short, and by another so many times as long.
GENOME_NT, SHORT_CODONS, LONGER = 5000, 200, 2.0
A_GENOME = 100
RICH = 0.6


def long_frames(text: str) -> Iterator[tuple[int, int, int]]:
    """Start, end and strand of frames that are open, the longest first; none much in another."""
    found = []
    for strand, letters in ((1, text), (-1, text.translate(COMPLEMENT)[::-1])):
        for phase in range(3):
            begin = phase
            ends = [i for i in range(phase, len(letters) - 2, 3) if letters[i : i + 3] in STOPS]
            for end in [*ends, phase + (len(letters) - phase) // 3 * 3]:
                if end - begin >= 3 * FEWEST_CODONS:
                    first = begin if strand == 1 else len(text) - end
                    found.append((first, first + end - begin, strand))
                begin = end + 3
    taken = np.zeros(len(text), np.bool_)
    for first, last, strand in sorted(found, key=lambda frame: frame[0] - frame[1]):
        if taken[first:last].mean() <= MOST_SHARED:
            taken[first:last] = True
            yield first, last, strand


def recoded(sequence: bytes, code: int, rng: np.random.Generator) -> bytes:
    """A record as it would be in another code."""
    text = sequence.decode("ascii")
    letters = list(text)
    shares, stop = RECODED[code]
    for first, last, strand in long_frames(text):
        for place in range(first, last - 2, 3):
            codon = text[place : place + 3]
            read = codon if strand == 1 else codon.translate(COMPLEMENT)[::-1]
            if rng.random() < shares.get(read, 0.0):
                new = stop if strand == 1 else stop.translate(COMPLEMENT)[::-1]
                letters[place : place + 3] = new
    return "".join(letters).encode()


def told(contigs: Sequence[LabelledContig], rng: np.random.Generator) -> Iterator[str]:
    yield "length | records | told 1, 4, 15"
    for length_nt in LENGTHS_NT:
        groups: dict[str, list[LabelledContig]] = {}
        for contig in contigs:
            if len(contig.sequence) >= length_nt:
                side = f"viral as {contig.source}" if contig.source in ("4", "15") else contig.group
                groups.setdefault(side, []).append(contig)
        for name, members in sorted(groups.items()):
            chosen = [members[i] for i in rng.permutation(len(members))[:EACH]]
            codes = []
            for contig in chosen:
                start = int(rng.integers(len(contig.sequence) - length_nt + 1))
                codes.append(told_code(contig.sequence[start : start + length_nt]))
            shares = ", ".join(f"{100 * np.mean(np.array(codes) == c):.0f} %" for c in (1, 4, 15))
            yield f"{length_nt:,} nt | {name}, {len(chosen)} | {shares}"


def lost(
    classifier: ScoresChunks,
    viral: dict[str, list[LabelledContig]],
    others: Sequence[LabelledContig],
    length_nt: int,
    count: int,
) -> Iterator[str]:
    rng = np.random.default_rng(1)
    places = []
    standard = viral["1"]
    for i in rng.permutation(len(standard)).tolist() * 4:
        if len(standard[i].sequence) >= length_nt and len(places) < count:
            places.append((i, int(rng.integers(len(standard[i].sequence) - length_nt + 1))))
    drawn = [c for c in others if len(c.sequence) >= length_nt]
    negative = []
    for i in rng.integers(0, len(drawn), count):
        start = int(rng.integers(len(drawn[i].sequence) - length_nt + 1))
        negative.append(drawn[i].sequence[start : start + length_nt].decode("ascii"))
    score_of_others = classifier.score(negative).p_virus
    yield f"{length_nt} nt, {len(places)} fragments of each | AUROC | viral at 1 % false positives"
    for code, records in viral.items():
        texts = [records[i].sequence[at : at + length_nt].decode("ascii") for i, at in places]
        score = np.concatenate((classifier.score(texts).p_virus, score_of_others))
        label = np.arange(len(score)) < len(texts)
        known = np.where(np.isnan(score), 0.0, score)
        recall = recall_at_false_positive_rate(label, known, 0.01)
        yield f"code {code} | {auroc(label, known):.4f} | {100 * (recall or 0):.1f} %"


def real(
    classifier: ScoresChunks, genomes: Sequence[LabelledContig], chunk_nt: int, threshold: float
) -> Iterator[str]:
    """Genomes of viruses, each of GENOME_NT or more."""
    rng = np.random.default_rng(2)
    codes = np.array([told_code(genome.sequence) for genome in genomes])
    yield f"{len(genomes):,} genomes, told: " + ", ".join(
        f"{code}: {int((codes == code).sum()):,}" for code in TOLD
    )
    others: list[str] = []
    yield "genome | codons by 1, 4, 15 | told | fragments | called virus | median p_virus"
    for genome, told_ in zip(genomes, codes, strict=True):
        codons = codons_of(letter_codes(genome.sequence))
        opened = {code: mean_open(codons, code) for code in TOLD}
        usual, longest = opened[STANDARD], max(opened.values())
        if usual > SHORT_CODONS or longest < LONGER * usual:
            if genome.group == "phage":
                others += _pieces(genome, chunk_nt, 1, rng)
            continue
        lengths = ", ".join(f"{length:.0f}" for length in opened.values())
        name = genome.name.split("|")[-1]
        pieces = _pieces(genome, chunk_nt, A_GENOME, rng)
        yield f"{name} | {lengths} | {told_} | {_called(classifier, pieces, threshold)}"
    yield f"other phages | | | {_called(classifier, others, threshold)}"


def _gc(sequence: bytes) -> float:
    return (sequence.count(b"G") + sequence.count(b"C")) / len(sequence)


def _pieces(
    genome: LabelledContig, chunk_nt: int, count: int, rng: np.random.Generator
) -> list[str]:
    most = len(genome.sequence) - chunk_nt + 1
    starts = rng.choice(most, min(count, most // chunk_nt), replace=False).tolist()
    return [genome.sequence[at : at + chunk_nt].decode("ascii") for at in starts]


def _called(classifier: ScoresChunks, texts: Sequence[str], threshold: float) -> str:
    score = classifier.score(texts).p_virus
    called = np.mean(score >= threshold)
    return f"{len(texts)} | {100 * called:.0f} % | {np.nanmedian(score):.2f}"


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("bundle")
    parser.add_argument("--data", type=Path, required=True, help="folder with val, more")
    parser.add_argument("--device", default="cpu")
    parser.add_argument("--real", action="store_true", help="real genomes of more alone")
    parser.add_argument("--count", type=int, default=1000, help="fragments of each kind")
    options = parser.parse_args()
    bundle, folder = load(options.bundle), options.data / "val"
    classifier = bundle.classifier(options.device, "fp32")
    others_of_val = [folder / "nonviral.fasta.gz"]
    more = read_two_sided([options.data / "more" / "viral.fasta.gz"], others_of_val).contigs
    genomes = [c for c in more if c.label and len(c.sequence) >= GENOME_NT]
    for line in real(classifier, genomes, bundle.chunk_nt, bundle.threshold):
        print(line, flush=True)
    rich = [replace(c, group="rich in G and C") for c in genomes if _gc(c.sequence) > RICH]
    for line in told(rich, np.random.default_rng(3)):
        print(line, flush=True)
    if options.real:
        return 0
    val = read_two_sided([folder / "viral.fasta.gz"], others_of_val).contigs
    rng = np.random.default_rng(0)
    standard = [contig for contig in val if contig.label]
    others = [contig for contig in val if not contig.label]
    viral = {"1": standard} | {
        str(code): [
            replace(c, sequence=recoded(c.sequence, code, rng), source=str(code)) for c in standard
        ]
        for code in RECODED
    }
    for line in told([*val, *viral["4"], *viral["15"]], rng):
        print(line, flush=True)
    for length_nt in (bundle.chunk_nt, 150):
        for line in lost(classifier, viral, others, length_nt, options.count):
            print(line, flush=True)
    return 0


if __name__ == "__main__":
    sys.exit(main())
