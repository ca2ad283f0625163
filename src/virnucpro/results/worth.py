"""The number of calls of a run to expect to be wrong, counted while its tables are written."""

import math
from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from numpy.typing import NDArray

from virnucpro.calls import Call
from virnucpro.classifiers.screen import LOW_COMPLEXITY, NOTE_TEXTS
from virnucpro.progress import several
from virnucpro.results.expected_wrong import (
    expected_in_words,
    expected_wrong,
    rounded,
    wrong_by_prior,
    wrong_in_words,
)
from virnucpro.results.judge import Judge, Judged, MeanJudge
from virnucpro.results.prior import Prior
from virnucpro.results.worth_of_pairs import WorthOfPairs

Float64 = NDArray[np.float64]

THRESHOLDS = (0.5, 0.7, 0.8, 0.9, 0.95, 0.99)
BINS = 40
# Log-odds beyond these are shown as these.
WIDEST = 10.0


@dataclass(frozen=True, slots=True, kw_only=True)
class AtThreshold:
    """The calls at a threshold. wrong: expected, at the prior that is used."""

    threshold: float
    called: int
    wrong: float


@dataclass(frozen=True, slots=True, kw_only=True)
class Worth:
    """The worth of the calls of records in this sample.

    called: virus; wrong, fewest_wrong, most_wrong: of these, expected at the prior and at the ends
    of its interval; where fdr decides, fdr times called, 0, and fdr times called again.
    wrong_bound: of these, wrong at most if the hosts look more viral than most of the calibration,
    see CalibratedJudge. more_virus: whether more records are called than the prior with such hosts
    and chance (two standard deviations, and one record) explain. scored: records with a score.
    threshold: of p_virus; None where fdr decides. null, negatives: what q-values compare with.
    refusal: why fdr calls nothing; empty where it does. viral_negatives, negative_notes, beyond:
    see judge.Discovery. pairs: of mates; None where the input has none. origins, notes: counts of
    records. scores, null_scores: counts of records and of negatives in BINS equal parts of -WIDEST
    to WIDEST log-odds.
    """

    called: int
    scored: int
    wrong: float
    fewest_wrong: float
    most_wrong: float
    wrong_bound: float | None
    more_virus: bool
    prior: Prior
    threshold: float | None
    fdr: float | None
    null: str
    negatives: int
    smallest_q: float
    refusal: str
    viral_negatives: str
    beyond: int
    negative_notes: tuple[str, ...] = ()
    pairs: WorthOfPairs | None = None
    by_threshold: tuple[AtThreshold, ...]
    origins: Mapping[str, int]
    notes: Mapping[str, int]
    scores: tuple[int, ...]
    null_scores: tuple[int, ...]

    def as_dict(self) -> dict[str, Any]:
        """Return plain values for run.json."""
        names = ("wrong", "fewest_wrong", "most_wrong", "wrong_bound")
        return {
            "called": self.called,
            "scored": self.scored,
            **{name: rounded(getattr(self, name)) for name in names},
            "prior": self.prior.as_dict(),
            "threshold": self.threshold,
            "fdr": self.fdr,
            "null": self.null,
            "negatives": self.negatives,
            "smallest_q": self.smallest_q,
            "refusal": self.refusal,
            "viral_negatives": self.viral_negatives,
            "negative_notes": list(self.negative_notes),
            "beyond": self.beyond,
            "pairs": None if self.pairs is None else self.pairs.as_dict(),
            "by_threshold": [
                {"threshold": at.threshold, "called": at.called, "wrong": round(at.wrong, 1)}
                for at in self.by_threshold
            ],
            "origins": dict(self.origins),
            "notes": dict(self.notes),
            "scores": list(self.scores),
            "null_scores": list(self.null_scores),
            "sentence": self.sentence,
        }

    @property
    def sentence(self) -> str:
        """The worth of the calls in one sentence, for log and report."""
        if self.refusal:
            return self.refusal
        calls = f"{several(self.called, 'record')} called virus"
        if not self.called:
            return f"{calls} ({self.prior.sentence})"
        if self.fdr is not None:
            number = wrong_in_words(self.fewest_wrong, self.most_wrong, self.fdr)
            return (
                f"{calls}; of these {number} ({100 * self.fdr:g} %) are expected to be wrong "
                f"({self.null}, {self.negatives:,} negatives)" + self._beyond
            )
        expected = expected_in_words(
            calls, self.fewest_wrong, self.most_wrong, self.wrong_bound, self.prior
        )
        if self.more_virus:
            expected += (
                f"; so many calls mean that more than {100 * self.prior.high:.2g} % are viral: "
                "give the share with --prior, or let --prior auto estimate it"
            )
        return expected

    @property
    def _beyond(self) -> str:
        if not self.beyond:
            return ""
        return (
            f"; {several(self.beyond, 'more record')} of a score above all negatives of the same "
            f"length {'is' if self.beyond == 1 else 'are'} not called, since these are too few for "
            "that rate: call by --threshold"
        )


@dataclass(slots=True)
class Mistakes:
    """Adds up records as they are judged; without a calibration there is nothing to say of them."""

    judge: Judge
    called: int = 0
    scored: int = 0
    wrong: Float64 = field(default_factory=lambda: np.zeros(3))
    thresholds: tuple[float, ...] = field(init=False)
    by_threshold: Float64 = field(init=False)
    origins: NDArray[np.int64] = field(init=False)
    notes: Counter[int] = field(default_factory=Counter)
    scores: NDArray[np.int64] = field(default_factory=lambda: np.zeros(BINS, np.int64))

    def __post_init__(self) -> None:
        judge = self.judge
        thresholds = {*THRESHOLDS}
        if not isinstance(judge, MeanJudge) and judge.discovery.asked is None:
            thresholds.add(judge.threshold)
        self.thresholds = tuple(sorted(thresholds))
        self.by_threshold = np.zeros((len(self.thresholds), 2))
        self.origins = np.zeros(len(judge.origins), np.int64)

    def add(self, judged: Judged) -> None:
        """Take r records."""
        self.notes.update(judged.notes[judged.notes > 0].tolist())
        judge = self.judge
        if isinstance(judge, MeanJudge):
            return
        some = judged.call != Call.NONE
        log_odds, virus = judged.log_odds[some], judged.call[some] == Call.VIRUS
        self.scored += len(log_odds)
        self.called += int(virus.sum())
        self.wrong += wrong_by_prior(log_odds[virus], judge.prior)
        wrong = expected_wrong(log_odds, judge.prior.used)
        low = judged.notes[some] & LOW_COMPLEXITY > 0  # never called virus
        for row, threshold in zip(self.by_threshold, self.thresholds, strict=True):
            above = (judged.p_virus[some] >= threshold) & ~low
            row += above.sum(), wrong[above].sum()
        self.origins += np.bincount(judged.origin[some], minlength=len(self.origins))
        self.scores += _spread(log_odds)

    def worth(self, pairs: WorthOfPairs | None = None) -> Worth | None:
        """Return what the calls are worth; None without a calibration. pairs: their worth."""
        judge = self.judge
        if isinstance(judge, MeanJudge):
            return None
        found = judge.discovery
        most, used, fewest = self.wrong.tolist()
        if found.asked is not None:  # q-values bound the mistakes from above, whatever the prior
            most, used, fewest = found.asked * self.called, found.asked * self.called, 0.0
        bound, viral = judge.wrong_bound, judge.prior.high * self.scored
        chance = 1 + 2 * math.sqrt(viral + (bound or 0.0))
        notes: Counter[str] = Counter()
        for bits, number in self.notes.items():
            for name in NOTE_TEXTS[bits].split(","):
                notes[name] += number
        origins = dict(zip(judge.origins, self.origins.tolist(), strict=True))
        return Worth(
            called=self.called,
            scored=self.scored,
            wrong=used,
            fewest_wrong=fewest,
            most_wrong=most,
            wrong_bound=None if bound is None else min(float(self.called), max(most, bound)),
            more_virus=bound is not None and self.called > viral + bound + chance,
            prior=judge.prior,
            threshold=judge.threshold if found.asked is None else None,
            fdr=found.asked,
            null=found.null,
            negatives=found.negatives,
            smallest_q=found.resolution.smallest_q,
            refusal=found.refusal,
            viral_negatives=found.viral,
            negative_notes=(*found.useless, *filter(None, [found.untold])),
            beyond=found.beyond,
            pairs=pairs,
            by_threshold=tuple(
                AtThreshold(threshold=threshold, called=int(called), wrong=wrong)
                for threshold, (called, wrong) in zip(
                    self.thresholds, self.by_threshold.tolist(), strict=True
                )
            ),
            origins={name: number for name, number in origins.items() if name},
            notes=dict(sorted(notes.items())),
            scores=tuple(self.scores.tolist()),
            null_scores=tuple(_spread(judge.calibration.negatives.log_odds).tolist()),
        )


def _spread(log_odds: Float64) -> NDArray[np.int64]:
    part = ((log_odds + WIDEST) / (2 * WIDEST) * BINS).astype(np.int64)
    return np.bincount(np.clip(part, 0, BINS - 1), minlength=BINS)
