"""Contigs -> their scores, calls, probabilities, q-values, origins and notes.

A judge without a calibration gives the mean of the chunks' scores; the two never meet in one
column. How a judge learns of the sample as a whole is in results/sample.py.
"""

import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import TypeAlias

import numpy as np
from numpy.typing import NDArray

from virnucpro.bundle.calibration import (
    LENGTH_EDGES,
    Calibration,
    chunk_log_odds,
    probability,
)
from virnucpro.calls import Call, Rule
from virnucpro.progress import several
from virnucpro.results.contig_calls import Contigs
from virnucpro.results.false_discovery import (
    OWN,
    WORST,
    Resolution,
    Steps,
)
from virnucpro.results.prior import (
    Prior,
)

Bool = NDArray[np.bool_]
Float64 = NDArray[np.float64]
Int64 = NDArray[np.int64]
UInt8 = NDArray[np.uint8]

# p_virus of n chunks and the bases that each adds, (n,) -> p_virus of them together.
Stretch = Callable[[Float64, Float64], float]
AUTO = "auto"


@dataclass(frozen=True, slots=True, kw_only=True)
class Question:
    """The question that a user has about a sample.

    prior: share of viral records, "auto" or None for the default; fdr: call records whose q-value
    is at most this, None: by the threshold; host: the null; negatives: whether the user's own
    negatives are the null.
    """

    prior: float | str | None = None
    fdr: float | None = None
    host: str = WORST
    negatives: bool = False


@dataclass(frozen=True, slots=True)
class Judged:
    """The verdicts on r contigs; nan and 0 where there is none.

    p_virus, log_odds, probability, q_value: (r,); call: (r,) Call; origin: (r,) index in the
    judge's origins; notes: (r,) bits of classifiers.screen.
    """

    p_virus: Float64
    call: UInt8
    log_odds: Float64
    probability: Float64
    q_value: Float64
    origin: UInt8
    notes: UInt8


@dataclass(frozen=True, slots=True)
class Discovery:
    """q-values of a sample under a null.

    null: its name in words; negatives: how many records of the most frequent length are compared
    with; q: by length bin and step; asked: the rate that was asked for, None for none; resolution:
    of the null; beyond: records that score higher than all negatives of their length, which yet are
    too few for the rate. Of the user's negatives: viral, that they seem to hold viruses, and what
    to do, else empty; useless, which of them or of the records are compared with nothing; untold,
    that nobody can tell whether they hold viruses, else empty.
    """

    null: str
    negatives: int
    steps: Steps
    q: tuple[Float64, ...]
    resolution: Resolution
    asked: float | None
    beyond: int
    viral: str = ""
    useless: tuple[str, ...] = ()
    untold: str = ""

    def of(self, score: Float64, length_bin: Int64) -> Float64:
        """q of r scores, (r,)."""
        step = self.steps.step(length_bin, score)
        found = np.full(len(score), np.nan)
        for b, q in enumerate(self.q):
            here = length_bin == b
            found[here] = q[step[here]]
        return found

    @property
    def refusal(self) -> str:
        """The reason why nothing is called at the rate asked for; empty where something is."""
        if self.asked is None or any(np.any(q <= self.asked) for q in self.q):
            return ""
        found = self.resolution
        nothing = f"nothing is called at --fdr {self.asked:g}"
        if self.null == OWN and found.floor >= 1:
            return (
                f"{nothing}: none of these negatives has the length of a record; cut them to the "
                "lengths of the records, or call by --threshold"
            )
        otherwise = self.viral or "ask for a higher --fdr, or call by --threshold"
        if self.null == OWN and found.reached > found.floor and not self.viral:
            otherwise = f"check that these negatives hold no viruses, {otherwise}"
        if found.floor * found.records <= self.asked * found.best:
            return (
                f"{nothing}: of {self.negatives:,} negatives ({self.null}) too many score as high "
                f"as the best records, of which the smallest q is {found.smallest_q:.2g}; "
                f"{otherwise}"
            )
        more = "" if self.viral else "give more --negatives of your own (without viruses), "
        few, units = "are too few, or of too few units", ", of as many units,"
        if self.null == OWN:
            few, units = "are too few", ""
        # p is at least 1 / (1 + negatives). A quotient may be rounded to above a whole number.
        needed = math.ceil(found.records / (found.best * self.asked) * (1 - 1e-12)) - 1
        return (
            f"{nothing}: the negatives of the length of the best records ({self.null}) {few}: of "
            f"{several(found.records, 'record')}, {found.best:,} "
            f"{'has' if found.best == 1 else 'have'} the smallest q, {found.smallest_q:.2g}, and a "
            f"q of {self.asked:g} takes {needed:,} negatives of this length{units} or more; "
            f"{more}{otherwise}"
        )


class MeanJudge:
    """Judges records by the mean of their chunks: for bundles without a calibration.

    discovery: q-values under the user's own negatives, where there are some.
    """

    origins = ("",)
    prior: Prior | None = None
    extrapolated = ""

    def __init__(self, rule: Rule, chunk_nt: int, discovery: Discovery | None = None) -> None:
        self.rule = rule
        self.discovery = discovery
        self._chunk_nt = chunk_nt

    def score(self, mean: Float64, evidence: Float64, called_nt: Float64) -> Float64:
        """Return the score of stretches of DNA, (k,), that their calls are made by: the mean.

        mean: p_virus of their chunks, weighted by the bases that each adds; evidence: sum of their
        log-odds times these bases; called_nt: sum of these.
        """
        return mean

    def p_virus(self, score: Float64) -> Float64:
        """Return p_virus of scores, (k,): the mean again."""
        return score

    def stretch(self, p_virus: Float64, added_nt: Float64) -> float:
        """Return p_virus of n chunks together, (n,), by the bases that each adds: the mean."""
        return mean_of_stretch(p_virus, added_nt)

    def length_bin(self, called_nt: Float64) -> Int64:
        """Length bin of records, (r,)."""
        return np.digitize(called_nt / self._chunk_nt, LENGTH_EDGES)

    def calls(self, score: Float64, called_nt: Float64, low: Bool) -> UInt8:
        """Call each score, (k,), by the threshold, or by q where a rate of mistakes was asked for.

        A score of nan is not called, and what is low never virus. low: (k,) whether all that a
        score is made of is noted for low complexity.
        """
        if self.discovery is None or self.discovery.asked is None:
            return _called((self.rule.contigs(score) == Call.VIRUS) & ~low, score)
        q = self.discovery.of(score, self.length_bin(called_nt))
        return _called((q <= self.discovery.asked) & ~low, score)

    def contigs(self, contigs: Contigs) -> Judged:
        """Judge r contigs."""
        none = np.full(len(contigs), np.nan)
        score = self.score(contigs.mean, contigs.evidence, contigs.called_nt)
        return Judged(
            p_virus=score,
            call=self.calls(score, contigs.called_nt, contigs.low),
            log_odds=none,
            probability=none,
            q_value=_q_values(self.discovery, score, self.length_bin(contigs.called_nt)),
            origin=np.zeros(len(contigs), np.uint8),
            notes=contigs.notes,
        )


class CalibratedJudge:
    """Judges records by the rule of a calibration.

    threshold: least p_virus of a call virus, where no rate of false discoveries was asked for.
    wrong_bound: records called virus that are wrong at most, in 95 of 100 draws of five units of
    hosts of the calibration; None where that is unknown. extrapolated: says how many records have
    lengths that the calibration was not fitted on; empty for none.
    """

    def __init__(
        self,
        rule: Rule,
        calibration: Calibration,
        threshold: float,
        prior: Prior,
        discovery: Discovery,
        wrong_bound: float | None = None,
        extrapolated: str = "",
    ) -> None:
        self.rule = rule
        self.extrapolated = extrapolated
        self.calibration = calibration
        self.wrong_bound = wrong_bound
        self.threshold = threshold
        self.prior = prior
        self.discovery = discovery
        self.origins = origins_of(calibration)

    def score(self, mean: Float64, evidence: Float64, called_nt: Float64) -> Float64:
        """Log-odds by the rule."""
        return self.calibration.rule.log_odds(evidence, called_nt)

    def p_virus(self, score: Float64) -> Float64:
        """Probability where half of all is viral."""
        return probability(score)

    def stretch(self, p_virus: Float64, added_nt: Float64) -> float:
        """Return p_virus as of a record of these chunks."""
        evidence = np.array([np.sum(chunk_log_odds(p_virus) * added_nt)])
        score = self.calibration.rule.log_odds(evidence, np.array([added_nt.sum()]))
        return float(probability(score)[0])

    def calls(self, score: Float64, called_nt: Float64, low: Bool) -> UInt8:
        """Call by the threshold, or by q where a rate of false discoveries was asked for."""
        if self.discovery.asked is None:
            return _called((probability(score) >= self.threshold) & ~low, score)
        q = self.discovery.of(score, self.calibration.length_bin(called_nt))
        return _called((q <= self.discovery.asked) & ~low, score)

    def contigs(self, contigs: Contigs) -> Judged:
        """Judge r contigs."""
        score = self.score(contigs.mean, contigs.evidence, contigs.called_nt)
        share = np.clip(self.prior.used, 1e-9, 1 - 1e-9)
        return Judged(
            p_virus=probability(score),
            call=self.calls(score, contigs.called_nt, contigs.low),
            log_odds=score,
            probability=probability(score + np.log(share / (1 - share))),
            q_value=_q_values(
                self.discovery, score, self.calibration.length_bin(contigs.called_nt)
            ),
            origin=origin_of(self.calibration, contigs),
            notes=contigs.notes,
        )


Judge: TypeAlias = MeanJudge | CalibratedJudge


def wrong_bound(by_bin: Int64, calibration: Calibration, threshold: float, prior: Prior) -> float:
    """Return how many calls are wrong at most if the hosts are five units drawn at random.

    by_bin: records with a score by length bin, (bins,).
    """
    most, _ = calibration.few_units_at(threshold)
    return (1 - prior.low) * float(by_bin @ most)


def extrapolated(by_bin: Int64, calibration: Calibration) -> str:
    """Say how many records have lengths that a calibration was not fitted on; empty for none.

    by_bin: records with a score by length bin, (bins,).
    """
    unlike = [b for b in calibration.unfitted_bins() if by_bin[b]]
    if not unlike:
        return ""
    names, number = calibration.bin_names(), sum(int(by_bin[b]) for b in unlike)
    return (
        f"{number:,} of {several(int(by_bin.sum()), 'record')} {'has' if number == 1 else 'have'} "
        f"lengths that the calibration was not fitted on ({', '.join(names[b] for b in unlike)}), "
        "so their scores are extrapolated; calibrate on sequences of these lengths, too"
    )


def mean_of_stretch(p_virus: Float64, added_nt: Float64) -> float:
    """The mean of n chunks, (n,), weighted by the bases that each adds."""
    return float(np.average(p_virus, weights=added_nt))


def _called(virus: Bool, score: Float64) -> UInt8:
    calls = np.where(virus, Call.VIRUS, Call.OTHERS)
    return np.where(np.isnan(score), Call.NONE, calls).astype(np.uint8)


def _q_values(discovery: Discovery | None, score: Float64, length_bin: Int64) -> Float64:
    found = np.full(len(score), np.nan)
    some = ~np.isnan(score)
    if discovery is not None:
        found[some] = discovery.of(score[some], length_bin[some])
    return found


def origins_of(calibration: Calibration) -> tuple[str, ...]:
    return ("",) if calibration.origin is None else ("", *calibration.origin.choices)


def origin_of(calibration: Calibration, contigs: Contigs) -> UInt8:
    """Index in the judge's origins of r contigs, 0 where there is none."""
    found = np.zeros(len(contigs), np.uint8)
    if calibration.origin is not None and contigs.groups.shape[1]:
        # Chunks that a bundle ended that looked first name no group.
        some = (contigs.called > 0) & contigs.groups.any(axis=1)
        found[some] = 1 + calibration.origin.of(contigs.groups[some])
    return found
