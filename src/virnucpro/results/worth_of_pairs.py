"""The number of calls of pairs to expect to be wrong, counted while their table is written."""

from dataclasses import dataclass, field
from typing import Any

import numpy as np
from numpy.typing import NDArray

from virnucpro.calls import Call
from virnucpro.progress import several
from virnucpro.results.expected_wrong import expected_in_words, rounded, wrong_by_prior
from virnucpro.results.judge import CalibratedJudge, Judge, MeanJudge, wrong_bound
from virnucpro.results.prior import Prior

Float64 = NDArray[np.float64]
Int64 = NDArray[np.int64]


@dataclass(frozen=True, slots=True, kw_only=True)
class WorthOfPairs:
    """The worth of the calls of pairs; fields as of worth.Worth.

    Where fdr decides, it holds for the records, and wrong, fewest_wrong and most_wrong are None.
    """

    called: int
    wrong: float | None
    fewest_wrong: float | None
    most_wrong: float | None
    wrong_bound: float | None
    prior: Prior
    fdr: float | None

    def as_dict(self) -> dict[str, Any]:
        """Return plain values for run.json."""
        names = ("wrong", "fewest_wrong", "most_wrong", "wrong_bound")
        return {
            "called": self.called,
            **{name: rounded(getattr(self, name)) for name in names},
            "sentence": self.sentence,
        }

    @property
    def sentence(self) -> str:
        """The worth of the calls in one sentence, for log and report."""
        calls = f"{several(self.called, 'pair')} called virus"
        if not self.called:
            return calls
        if self.fewest_wrong is None or self.most_wrong is None:
            return (
                f"{calls}; how many of these are wrong is not estimated, because --fdr "
                f"{self.fdr:g} holds for the calls of records: call by --threshold for that"
            )
        numbers = self.fewest_wrong, self.most_wrong, self.wrong_bound
        return f"{expected_in_words(calls, *numbers, self.prior)}; more where mates overlap"


@dataclass(slots=True)
class MistakesOfPairs:
    """Adds up pairs as they are called, each as a record with the chunks of both mates."""

    judge: Judge
    called: int = 0
    wrong: Float64 = field(default_factory=lambda: np.zeros(3))
    by_bin: Int64 = field(init=False)

    def __post_init__(self) -> None:
        judge = self.judge
        self.by_bin = np.zeros(
            judge.calibration.bins if isinstance(judge, CalibratedJudge) else 0, np.int64
        )

    def add(self, score: Float64, called_nt: Float64, called: NDArray[np.uint8]) -> None:
        """Take n pairs, (n,) each. score: of the judge; called: Call."""
        judge = self.judge
        if isinstance(judge, MeanJudge):
            return
        virus = called == Call.VIRUS
        self.called += int(virus.sum())
        self.wrong += wrong_by_prior(score[virus], judge.prior)
        length_bin = judge.calibration.length_bin(called_nt[called != Call.NONE])
        self.by_bin += np.bincount(length_bin, minlength=len(self.by_bin))

    def worth(self) -> WorthOfPairs | None:
        """Return what the calls are worth; None without a calibration."""
        judge = self.judge
        if isinstance(judge, MeanJudge):
            return None
        asked = judge.discovery.asked
        most, used, fewest = (None if asked is not None else n for n in self.wrong.tolist())
        bound = None
        if most is not None and judge.wrong_bound is not None:
            bound = wrong_bound(self.by_bin, judge.calibration, judge.threshold, judge.prior)
            bound = min(float(self.called), max(most, bound))
        return WorthOfPairs(
            called=self.called,
            wrong=used,
            fewest_wrong=fewest,
            most_wrong=most,
            wrong_bound=bound,
            prior=judge.prior,
            fdr=asked,
        )
