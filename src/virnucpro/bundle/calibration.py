"""The calibration of a bundle: scores of chunks -> log-odds of a record, and negatives to compare.

Notation: l, log-odds of a chunk; w, bases that it adds, in chunks; W, sum of w over the called
chunks of a record, its size; s, log-odds of the record where half of all records are viral.
Calibrations are fitted in train/calibration_fit.py; this module reads and applies them.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from itertools import pairwise
from typing import Any, Self

import numpy as np
from numpy.typing import NDArray

Float64 = NDArray[np.float64]
Int64 = NDArray[np.int64]
Arrays = dict[str, NDArray[Any]]

CALIBRATION = "calibration.safetensors"
# Scores nearer to 0 or 1 say no more than these: float32 cannot tell them apart.
_LEAST_P = 1e-6
# Where length bins of records begin, in chunks; the first begins at the shortest chunk.
LENGTH_EDGES = (0.55, 1.1, 4.1, 12.1)
UNCLEAR = "unclear"


def chunk_log_odds(p_virus: Float64) -> Float64:
    """Log-odds of scores (n,); finite."""
    p = np.clip(p_virus, _LEAST_P, 1 - _LEAST_P)
    return np.log(p) - np.log1p(-p)


def probability(log_odds: Float64) -> Float64:
    """1 / (1 + exp(-log_odds)) without overflow."""
    small = np.exp(-np.abs(log_odds))
    return np.where(log_odds >= 0, 1.0, small) / (1.0 + small)


def length_bins(edges: Sequence[float], chunk_nt: int) -> list[tuple[int, str]]:
    """Return where the length bins between edges begin, in nt, and their names."""
    begins = [round(edge * chunk_nt) for edge in edges]
    between = [f"{low:,} to {high:,} nt" for low, high in pairwise(begins)]
    names = [f"under {begins[0]:,} nt", *between, f"{begins[-1]:,} nt and more"]
    return list(zip([0, *begins], names, strict=True))


@dataclass(frozen=True, slots=True)
class Curve:
    """A value by size, linear in the logarithm of it between knots, and constant outside.

    log_size: (k,), ascending; value: (k,) or (k, m) of m curves on the same knots.
    """

    log_size: Float64
    value: Float64

    def at(self, size: Float64) -> Float64:
        """The value at each size, (r,)."""
        return np.interp(np.log(size), self.log_size, self.value)


@dataclass(frozen=True, slots=True)
class RecordRule:
    """s = a(W) + b(W) * sum(w * l) / W ** power.

    Bases that overlap count once (w), and neighbouring chunks that say the same count for less
    than independent ones (power, from 0 for independent ones to 1 for a mean).
    """

    a: Curve
    b: Curve
    power: float
    chunk_nt: int

    def log_odds(self, evidence: Float64, called_nt: Float64) -> Float64:
        """s of r records, (r,); nan where called_nt is 0.

        evidence: (r,) sum over called chunks of the bases that each adds times its log-odds;
        called_nt: (r,) sum of these bases.
        """
        size = self.size(called_nt)
        some = np.where(size > 0, size, 1.0)
        x = evidence / self.chunk_nt / some**self.power
        return np.where(size > 0, self.a.at(some) + self.b.at(some) * x, np.nan)

    def size(self, called_nt: Float64) -> Float64:
        """W of records, (r,)."""
        return called_nt / self.chunk_nt


@dataclass(frozen=True, slots=True)
class Origin:
    """The rule by which log-probabilities of groups become a coarse origin.

    groups: of the network, in its order; names: the coarse origin of each, the same for several
    that are not told apart. bias: (G,) and scale: of the mean log-probabilities of a record;
    threshold: least probability of the most likely origin, below which it is unclear.
    """

    groups: tuple[str, ...]
    names: tuple[str, ...]
    bias: Float64
    scale: float
    threshold: float

    @property
    def choices(self) -> tuple[str, ...]:
        """Every origin that a record can have, unclear first."""
        return (UNCLEAR, *dict.fromkeys(self.names))

    def of(self, mean_log_p: Float64) -> NDArray[np.uint8]:
        """Index in choices of r records, (r,). mean_log_p: (r, G), by the bases of each chunk."""
        logits = self.bias + self.scale * mean_log_p
        p = np.exp(logits - logits.max(axis=1, keepdims=True))
        p /= p.sum(axis=1, keepdims=True)
        members = np.array([[name == choice for name in self.names] for choice in self.choices[1:]])
        coarse = p @ members.T
        best = coarse.argmax(axis=1)
        sure = coarse[np.arange(len(best)), best] >= self.threshold
        return np.where(sure, best + 1, 0).astype(np.uint8)


@dataclass(frozen=True, slots=True)
class Negatives:
    """Log-odds of held-out records that are not viral, one a unit and length bin.

    log_odds, length_bin, group: (n,); group is an index in names.
    """

    log_odds: Float64
    length_bin: NDArray[np.uint8]
    group: NDArray[np.uint8]
    names: tuple[str, ...]

    def of(self, name: str) -> Self:
        """The negatives of one group."""
        kept = self.group == self.names.index(name)
        return type(self)(
            self.log_odds[kept],
            self.length_bin[kept],
            np.zeros(int(kept.sum()), np.uint8),
            (name,),
        )


@dataclass(frozen=True, slots=True)
class Bounds:
    """Shares of others at or above a score that hosts of a few units stay below, surely enough.

    Of a group and length bin: share[k] is that of scores up to score[k] and above score[k - 1]; the
    last score is infinite. score, share, length_bin, group: (n,), in the order of these; group is
    an index in the names of the negatives, or their number for all of them together, or one more
    for viral records, whose shares those of a few units are at least.
    """

    score: Float64
    share: Float64
    length_bin: NDArray[np.uint8]
    group: NDArray[np.uint8]

    @classmethod
    def none(cls) -> Self:
        """Return what bounds nothing."""
        whole = np.zeros(0, np.uint8)
        return cls(np.zeros(0), np.zeros(0), whole, whole)

    def of(self, group: int, length_bin: int) -> tuple[Float64, Float64]:
        """Scores and shares of a group in a length bin, (k,) each; k is 0 where none is known."""
        here = (self.group == group) & (self.length_bin == length_bin)
        return self.score[here], self.share[here]


@dataclass(frozen=True, slots=True)
class Calibration:
    """All that makes scores of a bundle comparable.

    replicates: a and b of the rule, fitted on units drawn anew, (draws, 2, knots): how uncertain
    it is. threshold: least p_virus of a call virus, at which worst_rate of the negatives of the
    group worst_group are called virus, and of any other large group fewer. edges: where the second
    and later length bins begin, in chunks. bounds: of the shares of others, for q-values. measured:
    tables of numbers for people.
    """

    rule: RecordRule
    replicates: Float64
    negatives: Negatives
    threshold: float
    worst_rate: float
    worst_group: str
    edges: tuple[float, ...] = LENGTH_EDGES
    origin: Origin | None = None
    bounds: Bounds = field(default_factory=Bounds.none)
    measured: Mapping[str, Any] = field(default_factory=dict)

    @property
    def bins(self) -> int:
        """The number of length bins."""
        return len(self.edges) + 1

    def few_units_at(self, threshold: float) -> tuple[Float64, Float64]:
        """Shares at a threshold by length bin, (bins,) each, of hosts and viruses of a few units.

        Of others no more, and of viral records no fewer, are called; 1 and 0 where none is known.
        """
        with np.errstate(divide="ignore"):
            cut = -np.log(np.divide(1.0, threshold) - 1)
        names = len(self.negatives.names)

        def at(group: int, unknown: float) -> Float64:
            parts = [self.bounds.of(group, b) for b in range(self.bins)]
            return np.array(
                [share[np.searchsorted(s, cut)] if len(s) else unknown for s, share in parts]
            )

        return at(names, 1.0), at(names + 1, 0.0)

    def unfitted_bins(self) -> list[int]:
        """Return the length bins of which it was fitted on no viral records, or on no others."""
        everything = len(self.negatives.names)
        sides = [self.negatives.length_bin]
        if len(self.bounds.score):  # older calibrations have none
            sides = [self.bounds.length_bin[self.bounds.group == everything + i] for i in (0, 1)]
        return [b for b in range(self.bins) if not all(np.any(side == b) for side in sides)]

    def length_bin(self, called_nt: Float64) -> Int64:
        """Length bin of records by their called bases, (r,)."""
        return np.digitize(self.rule.size(called_nt), self.edges)

    def bin_names(self) -> list[str]:
        """The length bins in words."""
        return [name for _, name in length_bins(self.edges, self.rule.chunk_nt)]

    def arrays(self) -> Arrays:
        """Return the arrays that the file of a bundle holds."""
        found: Arrays = {
            "log_size": self.rule.a.log_size,
            "a": self.rule.a.value,
            "b": self.rule.b.value,
            "replicates": self.replicates,
            "negative_log_odds": self.negatives.log_odds,
            "negative_bin": self.negatives.length_bin,
            "negative_group": self.negatives.group,
            "bound_score": self.bounds.score,
            "bound_share": self.bounds.share,
            "bound_bin": self.bounds.length_bin,
            "bound_group": self.bounds.group,
        }
        return found if self.origin is None else {**found, "origin_bias": self.origin.bias}

    def part(self) -> dict[str, Any]:
        """Return the content of the table [calibration] of a manifest."""
        found: dict[str, Any] = {
            "power": self.rule.power,
            "threshold": self.threshold,
            "worst_rate": self.worst_rate,
            "worst_group": self.worst_group,
            "edges": list(self.edges),
            "groups": list(self.negatives.names),
        }
        if self.origin is not None:
            found["origin"] = {
                "groups": list(self.origin.groups),
                "names": list(self.origin.names),
                "scale": self.origin.scale,
                "threshold": self.origin.threshold,
            }
        return {**found, **self.measured}

    @classmethod
    def of(cls, part: Mapping[str, Any], arrays: Mapping[str, NDArray[Any]], chunk_nt: int) -> Self:
        """The inverse of part and arrays. Raises KeyError, TypeError or ValueError."""
        knots = arrays["log_size"]
        origin = part.get("origin")
        found = cls(
            rule=RecordRule(
                Curve(knots, arrays["a"]), Curve(knots, arrays["b"]), float(part["power"]), chunk_nt
            ),
            replicates=arrays["replicates"],
            negatives=Negatives(
                arrays["negative_log_odds"],
                arrays["negative_bin"],
                arrays["negative_group"],
                tuple(part["groups"]),
            ),
            threshold=float(part["threshold"]),
            worst_rate=float(part["worst_rate"]),
            worst_group=str(part["worst_group"]),
            edges=tuple(map(float, part["edges"])),
            origin=origin
            and Origin(
                tuple(origin["groups"]),
                tuple(origin["names"]),
                arrays["origin_bias"],
                float(origin["scale"]),
                float(origin["threshold"]),
            ),
            bounds=Bounds(*(arrays[f"bound_{name}"] for name in ("score", "share", "bin", "group")))
            if "bound_score" in arrays
            else Bounds.none(),
            measured={name: part[name] for name in part.keys() - _FIELDS},
        )
        found.check()
        return found

    def check(self) -> None:
        """Raise ValueError where arrays do not fit, or the rule would turn scores around."""
        knots, negatives = self.rule.a.log_size, self.negatives
        shapes = {knots.shape, self.rule.a.value.shape, self.rule.b.value.shape}
        sizes = {negatives.log_odds.shape, negatives.length_bin.shape, negatives.group.shape}
        if len(shapes) != 1 or len(sizes) != 1 or self.replicates.shape[1:] != (2, *knots.shape):
            raise ValueError("its arrays differ in length")
        if np.any(np.diff(knots) <= 0) or np.any(np.diff(self.edges) <= 0):
            raise ValueError("its sizes do not ascend")
        if not np.all(self.rule.b.value > 0) or not np.all(np.isfinite(self.rule.a.value)):
            raise ValueError("b must be above 0")
        if len(negatives.log_odds) and (
            negatives.group.max() >= len(negatives.names) or negatives.length_bin.max() >= self.bins
        ):
            raise ValueError("a negative is of an unknown group or length")
        bounds = self.bounds
        columns = (bounds.score, bounds.share, bounds.length_bin, bounds.group)
        if len({column.shape for column in columns}) != 1:
            raise ValueError("its bounds differ in length")
        if not np.all((bounds.share >= 0) & (bounds.share <= 1)):
            raise ValueError("a bound is no share")
        for group in range(len(negatives.names) + 2):
            for length_bin in range(self.bins):
                score, share = bounds.of(group, length_bin)
                if len(score) and (
                    score[-1] != np.inf or np.any(np.diff(score) <= 0) or np.any(np.diff(share) > 0)
                ):
                    raise ValueError("a bound does not fall as scores rise")
        if self.origin is not None and self.origin.bias.shape != (len(self.origin.groups),):
            raise ValueError("the origins differ in number")


_FIELDS = {
    *("power", "threshold", "worst_rate", "worst_group", "edges", "groups", "origin"),
}
