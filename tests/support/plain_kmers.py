"""Protein k-mers in plain Python, on texts and ints: the oracle of what counts and keeps them."""

from virnucpro.frames import AMINO_ACID_OF

COMPLEMENT = str.maketrans("ACGT", "TGCA")
UNKNOWN = "X"


def reverse(text):
    return text.translate(COMPLEMENT)[::-1]


def six_frames(text):
    """Proteins of F1 F2 F3 R1 R2 R3, * for a stop and X for an unknown codon."""
    return [
        "".join(
            AMINO_ACID_OF.get(strand[i : i + 3], UNKNOWN) for i in range(phase, len(strand) - 2, 3)
        )
        for strand in (text, reverse(text))
        for phase in range(3)
    ]


def splitmix64(number):
    """What SplitMix64 gives first from this seed."""
    number = (number + 0x9E3779B97F4A7C15) % 2**64
    number = (number ^ number >> 30) * 0xBF58476D1CE4E5B9 % 2**64
    number = (number ^ number >> 27) * 0x94D049BB133111EB % 2**64
    return number ^ number >> 31


def letters_of(shape, protein):
    """Numbers of letters, None for a stop and an unknown codon."""
    number = {amino: i for i, merged in enumerate(shape.alphabet) for amino in merged}
    return [number.get(amino) for amino in protein]


def hash_of(letters):
    """The hash of a k-mer, None where one of its letters is."""
    if None in letters:
        return None
    key = 0
    for letter in letters:
        key = 16 * key + letter
    return splitmix64(key) % 2**63


def sampled_kmers(shape, protein):
    """(place, hash, different letters) of each k-mer that is looked at."""
    letters = letters_of(shape, protein)
    for place in range(len(letters) - shape.k + 1):
        kmer = letters[place : place + shape.k]
        found = hash_of(kmer)
        if found is not None and found % shape.sampled == 0:
            yield place, found, len(set(kmer))


def kmers_of_text(shape, text):
    """Hashes of the sampled k-mers of each frame, six lists."""
    return [[kmer for _, kmer, _ in sampled_kmers(shape, frame)] for frame in six_frames(text)]


def bits_of(shape, kmer, size):
    rest = kmer // shape.sampled
    first, step = rest % 2**30, rest >> 30 | 1
    return [(first + probe * step) % size for probe in range(shape.probes)]


def bytes_of(shape, kmers, size):
    """A Bloom filter of that many bits, as bytes."""
    number = 0
    for kmer in kmers:
        for bit in bits_of(shape, kmer, size):
            number |= 1 << bit
    return number.to_bytes(size // 8, "little")
