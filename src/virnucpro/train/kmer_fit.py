"""Fitting the k-mer linear model: labelled contigs -> fragments -> penalised logistic regression.

Newton's method (iteratively reweighted least squares) on standardised canonical k-mer
frequencies. The strength of the penalty is chosen on a slice of the contigs cut by unit. The same
contigs and settings give the same arrays. numpy only.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from virnucpro.bundle.manifest import LABELS, Bundle
from virnucpro.bundle.write import write_bundle
from virnucpro.calls import DEFAULT_THRESHOLD
from virnucpro.classifiers.chunk_status import MIN_NT
from virnucpro.classifiers.kmer import (
    KMER_WEIGHTS,
    KmerClassifier,
    class_count,
    kmer_frequencies,
    logistic,
)
from virnucpro.measure.labels import LabelledContig
from virnucpro.measure.metrics import auroc
from virnucpro.train.checks import check_finite, check_least
from virnucpro.train.slices import contigs_digest, described, judging_slice, parted
from virnucpro.train.units import contig_weights

Bool = NDArray[np.bool_]
Float32 = NDArray[np.float32]
Float64 = NDArray[np.float64]
Progress = Callable[[str, float], None]

GRAM_ROWS = 16384
# A few seconds of work, and tables of a few megabytes.
BLOCK_NT = 5_000_000
NEWTON_STEPS = 30
GRADIENT_TOLERANCE = 1e-6


@dataclass(frozen=True, slots=True, kw_only=True)
class KmerSettings:
    """The settings by which the k-mer model is fitted.

    fragments: how many to draw for fitting, of shortest_nt to longest_nt, and held_out_fragments
    for choosing l2 among penalties (the weight of half the squared weights beside the mean log
    loss); slice_fraction: of the bases of each group held out for that, by unit.
    """

    k: int = 5
    fragments: int = 100_000
    held_out_fragments: int = 10_000
    shortest_nt: int = 150
    longest_nt: int = 500
    slice_fraction: float = 0.05
    penalties: tuple[float, ...] = (1.0, 0.1, 0.01, 0.001, 0.0001)
    seed: int = 0

    def up_to(self, chunk_nt: int) -> "KmerSettings":
        """Return the same for chunks of a length, which is that of the longest fragment."""
        return replace(self, shortest_nt=min(self.shortest_nt, chunk_nt), longest_nt=chunk_nt)

    def __post_init__(self) -> None:
        check_least(self, k=4, fragments=2, held_out_fragments=2, penalties=0, seed=0)
        check_least(self, shortest_nt=self.k, longest_nt=self.shortest_nt)


@dataclass(frozen=True, slots=True)
class KmerFit:
    """A fitted model, see KmerClassifier for its arrays, and the record of how it was made."""

    k: int
    weight: Float64
    mean: Float64
    scale: Float64
    bias: float
    record: dict[str, Any] = field(repr=False)

    def arrays(self) -> dict[str, Float64]:
        """The arrays by the names that a bundle keeps them under: weight, mean, scale, bias."""
        bias = np.array([self.bias])
        return {"weight": self.weight, "mean": self.mean, "scale": self.scale, "bias": bias}

    def classifier(self, *, validated_nt: int, name: str = "kmer") -> KmerClassifier:
        """The classifier of these arrays."""
        return KmerClassifier(
            weight=self.weight,
            mean=self.mean,
            scale=self.scale,
            bias=self.bias,
            k=self.k,
            validated_nt=validated_nt,
            name=name,
        )


def fit_kmer(
    contigs: Sequence[LabelledContig],
    settings: KmerSettings | None = None,
    data_sha256: Mapping[str, str] | None = None,
    progress: Progress | None = None,
) -> KmerFit:
    """Fit the model; data_sha256, file to hash, goes into the record.

    progress is called with a word and the finished share. Raises InputError when a label is
    missing, or no group has units enough to hold one out.
    """
    settings = settings or KmerSettings()
    tell = progress or (lambda _what, _share: None)
    held_out = judging_slice(contigs, settings.slice_fraction, settings.seed, "the penalty")
    fitting, judging = parted(contigs, held_out)
    tell("fragments", 0.0)
    x, label = _draw(fitting, settings, settings.fragments, stream=0)
    x_out, label_out = _draw(judging, settings, settings.held_out_fragments, stream=1)
    mean, scale = _standardise(x)
    x_out -= mean.astype(np.float32)
    x_out /= scale.astype(np.float32)
    candidates: list[dict[str, float | None]] = []
    best: tuple[float, float, Float64] | None = None
    solution = np.zeros(x.shape[1] + 1)
    for tried, l2 in enumerate(settings.penalties):
        tell("fitting", tried / len(settings.penalties))
        solution = _newton(x, label, l2, solution)
        logit = _logits(x_out, solution)
        area = auroc(label_out, logit)
        candidates.append({"l2": l2, "auroc": area, "log_loss": _log_loss(logit, label_out)})
        if best is None or (area or 0.0) > best[0]:
            best = (area or 0.0, l2, solution)
    assert best is not None
    tell("fitting", 1.0)
    record = {
        "method": "logistic regression on canonical k-mer frequencies, Newton's method",
        "settings": asdict(settings),
        "data": dict(data_sha256 or {}),
        "contigs_sha256": contigs_digest(contigs),
        "fitting": described(fitting),
        "slice": described(judging),
        "penalties": candidates,
        "chosen_l2": best[1],
        "slice_auroc": best[0],
    }
    weight, bias = best[2][:-1], float(best[2][-1])
    return KmerFit(settings.k, weight, mean, scale, bias, record)


def write_kmer_bundle(
    directory: Path,
    fit: KmerFit,
    *,
    name: str,
    description: str,
    chunk_nt: int,
    validated_nt: int,
) -> Bundle:
    """A new bundle of kind kmer; validated_nt: shortest length that was measured.

    Raises BundleError if the directory is not empty, or the arrays are not finite.
    """
    check_finite(fit.arrays())
    manifest = {
        "name": name,
        "description": description,
        "kind": "kmer",
        "chunk_nt": chunk_nt,
        "block_nt": BLOCK_NT,
        "min_nt": MIN_NT,
        "validated_nt": validated_nt,
        "threshold": DEFAULT_THRESHOLD,
        "labels": list(LABELS),
        "kmer": {"k": fit.k},
        "training": fit.record,
    }
    return write_bundle(directory, manifest, {KMER_WEIGHTS: fit.arrays()})


def _draw(
    contigs: Sequence[LabelledContig], settings: KmerSettings, count: int, stream: int
) -> tuple[Float32, Bool]:
    """k-mer frequencies (count, classes) and labels (count,) of random fragments."""
    rng = np.random.default_rng([settings.seed, stream])
    size = np.array([len(contig.sequence) for contig in contigs])
    weight = contig_weights(contigs)
    chosen = np.sort(rng.choice(len(contigs), size=count, p=weight))
    wanted = rng.integers(settings.shortest_nt, settings.longest_nt + 1, size=count)
    length = np.minimum(wanted, size[chosen])
    start = rng.integers(0, size[chosen] - length + 1)
    x = np.empty((count, class_count(settings.k)), dtype=np.float32)
    for first in range(0, count, GRAM_ROWS):
        rows = slice(first, min(first + GRAM_ROWS, count))
        spans = zip(chosen[rows], start[rows], length[rows], strict=True)
        text = b"".join(contigs[c].sequence[s : s + n] for c, s, n in spans)
        offset = np.cumsum(length[rows]) - length[rows]
        x[rows] = kmer_frequencies(text, offset, length[rows], settings.k)
    label = np.array([contig.label == 1 for contig in contigs])
    return x, label[chosen]


def _standardise(x: Float32) -> tuple[Float64, Float64]:
    """Centre and scale the columns in place; returns mean and standard deviation."""
    mean = x.mean(axis=0, dtype=np.float64)
    x -= mean.astype(np.float32)
    scale = np.sqrt(np.mean(np.square(x), axis=0, dtype=np.float64))
    scale[scale == 0] = 1.0
    x /= scale.astype(np.float32)
    return mean, scale


def _logits(x: Float32, solution: Float64) -> Float64:
    logit = np.full(len(x), solution[-1])
    logit += x @ solution[:-1].astype(np.float32)
    return logit


def _log_loss(logit: Float64, label: Bool) -> float:
    return float(np.mean(np.logaddexp(0.0, np.where(label, -logit, logit))))


def _newton(x: Float32, label: Bool, l2: float, start: Float64) -> Float64:
    """Minimise mean log loss + l2 / 2 * |weights|^2, the bias free; (classes + 1,), bias last.

    A step that does not lower the objective is halved.
    """
    solution = start.copy()
    objective = _objective(x, label, l2, solution)
    for _ in range(NEWTON_STEPS):
        gradient, curvature = _derivatives(x, label, l2, solution)
        if np.abs(gradient).max() < GRADIENT_TOLERANCE:
            break
        step = np.linalg.solve(curvature, gradient)
        for _halving in range(20):
            candidate = solution - step
            reached = _objective(x, label, l2, candidate)
            if reached < objective:
                break
            step /= 2
        else:
            break
        solution, objective = candidate, reached
    return solution


def _objective(x: Float32, label: Bool, l2: float, solution: Float64) -> float:
    weight = solution[:-1]
    return _log_loss(_logits(x, solution), label) + l2 / 2 * float(weight @ weight)


def _derivatives(x: Float32, label: Bool, l2: float, solution: Float64) -> tuple[Float64, Float64]:
    """Gradient (classes + 1,) and Hessian (classes + 1, classes + 1) of the objective."""
    n, width = x.shape
    p = logistic(_logits(x, solution))
    gradient = np.zeros(width + 1)
    curvature = np.zeros((width + 1, width + 1))
    for first in range(0, n, GRAM_ROWS):
        part = slice(first, first + GRAM_ROWS)
        columns = np.concatenate([x[part], np.ones((len(x[part]), 1), np.float32)], axis=1)
        spread = np.sqrt(p[part] * (1 - p[part])).astype(np.float32)
        gradient += columns.T @ (p[part] - label[part]).astype(np.float32)
        weighted = columns * spread[:, None]
        curvature += weighted.T @ weighted
    penalty = np.full(width + 1, l2)
    penalty[-1] = 0.0
    curvature /= n
    curvature[np.diag_indices(width + 1)] += penalty + 1e-9
    return gradient / n + penalty * solution, curvature
