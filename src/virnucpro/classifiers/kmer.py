"""The k-mer linear model: canonical k-mer frequencies of a chunk -> logistic regression, in numpy.

Baseline of the bundles' cards, prescreen, and the fast bundle of load trials. A k-mer and its
reverse complement are counted as one, and the weights are summed as integers, so a chunk has the
very same score on both strands and in whatever block it lies. This module knows no file and no
torch.
"""

from collections.abc import Mapping, Sequence
from functools import cache

import numpy as np
from numpy.typing import NDArray

from virnucpro.blocks import Batches, Block, Texts
from virnucpro.calls import Scores, is_called
from virnucpro.classifiers.chunk_status import MIN_NT, chunk_status, whole_chunk_scores
from virnucpro.classifiers.model import Model
from virnucpro.errors import BundleError
from virnucpro.frames import letter_codes

Float64 = NDArray[np.float64]
Int64 = NDArray[np.int64]

K_CHOICES = (4, 5, 6)
LETTERS = 5  # A C G T and "anything else": k-mers are numbers to this base, below 2**16 for k = 6
FRACTION_BITS = 24  # weights as multiples of 2**-24; a rounded mean of them is off by < 2**-25
LARGEST_WEIGHT = 2.0**19  # 2**19 * 2**24 * 2**20 positions of a chunk stay inside an int64


def check_k(k: int) -> None:
    """Raise ValueError unless k is one that the model is made for."""
    if k not in K_CHOICES:
        raise ValueError(f"k is {k}, but must be one of {K_CHOICES}")


@cache
def canonical_classes(k: int) -> NDArray[np.int16]:
    """(5**k,) class of every k-mer over A C G T other, the k-mer a number to the base 5.

    A k-mer and its reverse complement share a class; classes are numbered by the smaller of the
    two in alphabetical order. -1 for a k-mer with another letter.
    """
    check_k(k)
    place = LETTERS ** np.arange(k - 1, -1, -1)
    digits = np.arange(LETTERS**k)[:, None] // place % LETTERS
    plain = (digits < LETTERS - 1).all(axis=1)
    forward = np.flatnonzero(plain)
    reverse = (3 - digits[plain])[:, ::-1] @ place
    _, number = np.unique(np.minimum(forward, reverse), return_inverse=True)
    classes = np.full(LETTERS**k, -1, dtype=np.int16)
    classes[plain] = number
    classes.flags.writeable = False
    return classes


def class_count(k: int) -> int:
    """Return the number of canonical k-mers: 136, 512, 2080 for k = 4, 5, 6."""
    return int(canonical_classes(k).max()) + 1


def kmer_numbers(codes: NDArray[np.uint8], k: int) -> NDArray[np.uint16]:
    """Letter codes (n,) 0..4 -> the k-mer that begins at each letter, (max(n - k + 1, 0),)."""
    check_k(k)
    n = max(len(codes) - k + 1, 0)
    numbers = np.zeros(n, dtype=np.uint16)
    for i in range(k):
        numbers *= np.uint16(LETTERS)
        numbers += codes[i : i + n]
    return numbers


def kmer_frequencies(text: bytes, offset: Int64, length_nt: Int64, k: int) -> Float64:
    """Relative frequencies of the canonical k-mers of n chunks, (n, classes), for fitting.

    Chunk i is text[offset[i] : offset[i] + length_nt[i]]; k-mers with a letter other than ACGT
    are skipped; a chunk without any k-mer has a row of zeros.
    """
    n_classes = class_count(k)
    classes = canonical_classes(k)[kmer_numbers(letter_codes(text), k)]
    frequencies = np.zeros((len(offset), n_classes))
    for row, (start, length) in enumerate(zip(offset.tolist(), length_nt.tolist(), strict=True)):
        found = classes[start : start + max(length - k + 1, 0)]
        counts = np.bincount(found[found >= 0], minlength=n_classes)
        frequencies[row] = counts / max(counts.sum(), 1)
    return frequencies


def logistic(logit: Float64) -> Float64:
    """1 / (1 + exp(-logit)) without overflow."""
    small = np.exp(-np.abs(logit))
    return np.where(logit >= 0, 1.0, small) / (1.0 + small)


class KmerClassifier:
    """Scores chunks by a logistic regression on standardised canonical k-mer frequencies.

    weight, mean, scale: (classes,) in the order of canonical_classes(k); the logit of a chunk with
    frequencies x is bias + sum(weight * (x - mean) / scale). A chunk without any k-mer counts as
    one of average composition. Chunks shorter than validated_nt are called with a status that says
    so; chunks of less than min_nt letters are not called.
    """

    precision = "fp64"
    device = "cpu"
    ahead = None

    def __init__(
        self,
        *,
        weight: Float64,
        mean: Float64,
        scale: Float64,
        bias: float,
        k: int = 5,
        min_nt: int = MIN_NT,
        validated_nt: int = MIN_NT,
        name: str = "kmer",
    ) -> None:
        classes = canonical_classes(k)
        for what, values in (("weight", weight), ("mean", mean), ("scale", scale)):
            if values.shape != (class_count(k),):
                raise ValueError(f"{what} has shape {values.shape}, not ({class_count(k)},)")
        per_kmer = weight.astype(np.float64) / scale.astype(np.float64)
        if not np.all(np.abs(per_kmer) <= LARGEST_WEIGHT):
            raise ValueError(f"a weight is not finite or larger than {LARGEST_WEIGHT:g}")
        self.name = name
        self.k = k
        self.min_nt = min_nt
        self.validated_nt = validated_nt
        self.attention: Mapping[str, str] = {}
        self.batches: Mapping[str, Batches] = {}
        self._average = float(bias)
        self._bias = float(bias) - float(np.sum(per_kmer * mean))
        fixed = np.rint(per_kmer * 2.0**FRACTION_BITS).astype(np.int64)
        self._fixed_weight: Int64 = np.where(classes >= 0, fixed[classes], 0)

    def restore_budgets(self) -> None:
        """Do nothing: there are no batches."""

    def score_block(self, block: Block) -> Scores:
        """Scores of the chunks of a block, in the order of its rows."""
        return self._score(Texts.of_block(block))

    def score(self, chunks: Sequence[str]) -> Scores:
        """Scores of chunks given as text, in any case, U read as T."""
        return self._score(Texts.of_strings(chunks))

    def _score(self, texts: Texts) -> Scores:
        codes = letter_codes(texts.text)
        status = chunk_status(codes, texts, self.min_nt, self.validated_nt)
        if not is_called(status).any():
            return whole_chunk_scores(status, np.full(len(texts), np.nan))
        logit = self._logits(codes, texts.offset, texts.length_nt)
        return whole_chunk_scores(status, logistic(logit))

    def _logits(self, codes: NDArray[np.uint8], offset: Int64, length_nt: Int64) -> Float64:
        """Logit of each chunk, (n,)."""
        numbers = kmer_numbers(codes, self.k)
        end = np.maximum(offset + length_nt - self.k + 1, offset)
        # Differences of one running sum are exact here: integers, and the sum may wrap around.
        running = np.zeros(len(numbers) + 1, dtype=np.int64)
        np.cumsum(self._fixed_weight[numbers], out=running[1:])
        last = len(numbers)
        total = running[np.minimum(end, last)] - running[np.minimum(offset, last)]
        kmers = end - offset - self._skipped(codes, numbers, offset, end)
        mean_weight = total / 2.0**FRACTION_BITS / np.maximum(kmers, 1)
        return np.where(kmers > 0, self._bias + mean_weight, self._average)

    def _skipped(
        self, codes: NDArray[np.uint8], numbers: NDArray[np.uint16], start: Int64, end: Int64
    ) -> Int64:
        """Return the number of k-mers in [start, end) that hold a letter other than ACGT, (n,)."""
        if codes.size == 0 or codes.max() < LETTERS - 1:
            return np.zeros(len(start), dtype=np.int64)
        return _positions_in(np.flatnonzero(canonical_classes(self.k)[numbers] < 0), start, end)


def _positions_in(positions: NDArray[np.intp], start: Int64, end: Int64) -> Int64:
    """Return the number of the ascending positions that lie in each [start, end), (n,)."""
    inside = np.searchsorted(positions, end) - np.searchsorted(positions, start)
    return inside.astype(np.int64)


KMER_WEIGHTS = "kmer.safetensors"


def kmer_classifier(model: Model) -> KmerClassifier:
    """Raises BundleError where the arrays do not fit."""
    arrays = model.arrays(KMER_WEIGHTS)
    try:
        return KmerClassifier(
            weight=arrays["weight"],
            mean=arrays["mean"],
            scale=arrays["scale"],
            bias=float(arrays["bias"][0]),
            k=int(model.part("kmer")["k"]),
            min_nt=model.min_nt,
            validated_nt=model.validated_nt,
            name=model.name,
        )
    except (KeyError, IndexError, ValueError) as error:
        raise BundleError(
            f"{model.path / KMER_WEIGHTS}: not the arrays of a k-mer model ({error})"
        ) from error
