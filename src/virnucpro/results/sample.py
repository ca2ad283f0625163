"""A sample as a whole: counted in one pass over its finished blocks, before any record is judged.

From the counts come the prior, the shares of hosts, and the q-values under a null. This module
knows no file but by way of finished blocks.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace

import numpy as np
from numpy.typing import NDArray

from virnucpro.bundle.calibration import LENGTH_EDGES, Calibration, length_bins, probability
from virnucpro.calls import Rule
from virnucpro.errors import SettingsError, meant
from virnucpro.results.contig_calls import Contigs, summed
from virnucpro.results.false_discovery import (
    FEWEST,
    MIXTURE,
    OWN,
    WORST,
    Null,
    Resolution,
    Steps,
    q_values,
)
from virnucpro.results.finished import FinishedBlocks
from virnucpro.results.hosts import (
    bounded,
    bounds_by_group,
    compared,
    everything_of,
    hosts_of,
    p_values_of,
    shares_of,
)
from virnucpro.results.judge import (
    AUTO,
    CalibratedJudge,
    Discovery,
    Judge,
    MeanJudge,
    Question,
    extrapolated,
    origin_of,
    origins_of,
    wrong_bound,
)
from virnucpro.results.own_negatives import OwnNegatives
from virnucpro.results.prior import (
    DEFAULT_PRIOR,
    Cells,
    Prior,
    background_share,
    estimated_prior,
    widened,
)

Float64 = NDArray[np.float64]
Int64 = NDArray[np.int64]
UInt8 = NDArray[np.uint8]


@dataclass(slots=True)
class Sample:
    """All records of a run, counted.

    steps: of the nulls; counts: records by length bin and step; cells: by size and log-odds; above:
    the threshold of the calibration; by_bin: by length bin; by_origin: by origin.
    """

    steps: Steps | None
    bins: int
    origins: int
    counts: list[Int64] = field(init=False)
    cells: Cells = field(default_factory=Cells)
    above: int = 0
    by_bin: Int64 = field(init=False)
    by_origin: Int64 = field(init=False)

    def __post_init__(self) -> None:
        self.counts = [] if self.steps is None else self.steps.zeros()
        self.by_bin = np.zeros(self.bins, np.int64)
        self.by_origin = np.zeros(self.origins, np.int64)

    @property
    def records(self) -> int:
        """The number of records with a score."""
        return int(self.by_bin.sum())

    def add(self, score: Float64, length_bin: Int64, origin: UInt8) -> None:
        """Count r records with a score."""
        self.by_bin += np.bincount(length_bin, minlength=self.bins)
        self.by_origin += np.bincount(origin, minlength=self.origins)
        if self.steps is not None:
            step = self.steps.step(length_bin, score)
            for b, counts in enumerate(self.counts):
                counts += np.bincount(step[length_bin == b], minlength=len(counts))


def judge_of(
    finished: FinishedBlocks,
    rule: Rule,
    chunk_nt: int,
    calibration: Calibration | None,
    question: Question,
    threshold: float,
    negatives: FinishedBlocks | None = None,
) -> Judge:
    """Return what judges a run, after one pass over its finished blocks.

    threshold: least p_virus of a record called virus. negatives: the user's own, scored as the
    sample. Raises SettingsError where the bundle cannot answer the question, BlockError.
    """
    check(calibration, question)
    if calibration is None:
        return _mean_judge(finished, rule, chunk_nt, question, negatives)
    return _calibrated_judge(finished, rule, calibration, question, threshold, negatives)


def check(calibration: Calibration | None, question: Question) -> None:
    """Raise SettingsError where a question needs what is missing."""
    if calibration is None:
        if question.prior is not None:
            raise SettingsError(
                "--prior needs a bundle with a calibration, and this one has none; make one with "
                "`virnucpro calibrate`"
            )
        if question.host != WORST:
            raise SettingsError(
                "--host needs a bundle with a calibration, and this one has none; give "
                "--negatives, or make one with `virnucpro calibrate`"
            )
        if question.fdr is not None and not question.negatives:
            raise SettingsError(
                "--fdr needs negatives, and this bundle has none; give --negatives, or make a "
                "calibrated bundle with `virnucpro calibrate`"
            )
        return
    if question.negatives and question.host != WORST:
        raise SettingsError("--host and --negatives both name the null; give one of them")
    known = (WORST, MIXTURE, *calibration.negatives.names)
    if question.host not in known:
        raise SettingsError(
            f"this bundle's calibration has no negatives of {question.host}"
            f"{meant(question.host, known)}; choose --host from {', '.join(known)}, or give "
            "--negatives"
        )


def _mean_judge(
    finished: FinishedBlocks,
    rule: Rule,
    chunk_nt: int,
    question: Question,
    negatives: FinishedBlocks | None,
) -> MeanJudge:
    judge = MeanJudge(rule, chunk_nt)
    if negatives is None:
        return judge
    bins = len(LENGTH_EDGES) + 1

    def untold(contigs: Contigs) -> UInt8:
        return np.zeros(len(contigs), np.uint8)

    def mean(contigs: Contigs) -> Float64:
        return contigs.mean

    own = OwnNegatives.of(negatives, rule, mean, judge.length_bin, bins, untold, 1)
    null = own.null
    steps = Steps.of([null])
    sample = Sample(steps, bins, 1)
    for contigs in summed(finished, rule):
        some = contigs.called > 0
        called_nt = contigs.called_nt[some]
        sample.add(contigs.mean[some], judge.length_bin(called_nt), untold(contigs)[some])
    names = [name for _, name in length_bins(LENGTH_EDGES, chunk_nt)]
    found = _discovered(sample, steps.p_values(null), OWN, len(null), question)
    judge.discovery = _with_doubts(found, own, sample, names, None)
    return judge


def _calibrated_judge(
    finished: FinishedBlocks,
    rule: Rule,
    calibration: Calibration,
    question: Question,
    threshold: float,
    negatives: FinishedBlocks | None,
) -> CalibratedJudge:
    bins, origins = calibration.bins, len(origins_of(calibration))

    def score_of(contigs: Contigs) -> Float64:
        return calibration.rule.log_odds(contigs.evidence, contigs.called_nt)

    def origin(contigs: Contigs) -> UInt8:
        return origin_of(calibration, contigs)

    own = None
    if negatives is not None:
        length_bin = calibration.length_bin
        own = OwnNegatives.of(negatives, rule, score_of, length_bin, bins, origin, origins)
        steps = Steps.of([own.null])
    else:
        everything, bounds = everything_of(calibration), bounds_by_group(calibration)
        steps = Steps.of([everything, *bounds.values()])
    sample = Sample(steps, bins, origins)
    for contigs in summed(finished, rule):
        some = contigs.called > 0
        called_nt = contigs.called_nt[some]
        score = score_of(contigs)[some]
        sample.add(score, calibration.length_bin(called_nt), origin(contigs)[some])
        sample.cells.add(score, calibration.rule.size(called_nt))
        sample.above += int(np.count_nonzero(probability(score) >= calibration.threshold))
    if own is not None:
        p_values, name, number = steps.p_values(own.null), OWN, len(own.null)
        hosts = {OWN: own.null}
    else:
        hosts = hosts_of(calibration, question.host, sample.by_origin)
        shares = shares_of(calibration, sample.by_origin) if question.host == MIXTURE else None
        p_values = p_values_of(steps, hosts, everything, shares)
        p_values = bounded(p_values, steps, hosts, bounds, shares)
        name, number = compared(question.host, hosts, everything, sample.by_bin)
    discovery = _discovered(sample, p_values, name, number, question)
    if own is not None:
        discovery = _with_doubts(discovery, own, sample, calibration.bin_names(), calibration)
    prior = _prior(sample, calibration, question, hosts)
    by_threshold = question.fdr is None and len(calibration.bounds.score)
    return CalibratedJudge(
        rule,
        calibration,
        threshold,
        prior,
        discovery,
        wrong_bound(sample.by_bin, calibration, threshold, prior) if by_threshold else None,
        extrapolated(sample.by_bin, calibration),
    )


def _prior(
    sample: Sample, calibration: Calibration, question: Question, hosts: Mapping[str, Null]
) -> Prior:
    if question.prior is None:
        return Prior.fixed(DEFAULT_PRIOR, "default")
    if question.prior != AUTO:
        return Prior.fixed(float(question.prior), "given")
    background = background_of([*hosts.values()], sample.by_bin)
    prior = estimated_prior(sample.cells, calibration, background)
    return with_calls(prior, calibration, sample.above, sample.by_bin)


def with_calls(prior: Prior, calibration: Calibration, above: int, records_by_bin: Int64) -> Prior:
    """Return an estimate with all that calls allow. above: records above the threshold."""
    records = int(records_by_bin.sum())
    if not records or not len(calibration.bounds.score):
        return prior
    others_most, viral_least = (
        float(records_by_bin @ share) / records
        for share in calibration.few_units_at(calibration.threshold)
    )
    return widened(prior, above / records, others_most, viral_least)


def background_of(nulls: Sequence[Null], records_by_bin: Int64) -> float:
    """The largest share of virus that negatives of any group, or all, would be estimated at.

    Few negatives of a group would tell anything; together they tell something.
    """
    large = [null for null in nulls if len(null) >= FEWEST]
    return max(_background(null, records_by_bin) for null in (*large, Null.joined(nulls)))


def _background(null: Null, records_by_bin: Int64) -> float:
    where = np.repeat(np.arange(len(null.by_bin)), [len(part) for part in null.by_bin])
    return background_share(np.concatenate(null.by_bin), where, records_by_bin)


def _with_doubts(
    found: Discovery,
    own: OwnNegatives,
    sample: Sample,
    bins: Sequence[str],
    calibration: Calibration | None,
) -> Discovery:
    """Return the same with what is wrong with the user's negatives. bins: names of lengths."""
    return replace(
        found,
        viral=own.viral(calibration),
        useless=(*own.useless(bins, sample.by_bin.tolist(), found.asked),),
        untold=own.untold(calibration),
    )


def _discovered(
    sample: Sample,
    p_values: Sequence[Float64],
    null: str,
    negatives: int,
    question: Question,
) -> Discovery:
    assert sample.steps is not None
    q, asked = tuple(q_values(p_values, sample.counts)), question.fdr
    beyond = 0
    if asked is not None:
        # Where a length has no negatives, p is 1, and nothing was compared.
        highest = zip(q, p_values, sample.counts, strict=True)
        beyond = sum(int(n[-1]) for of, p, n in highest if of[-1] > asked and p[-1] < 1)
    return Discovery(
        null=null,
        negatives=negatives,
        steps=sample.steps,
        q=q,
        resolution=Resolution.of(p_values, sample.counts),
        asked=asked,
        beyond=beyond,
    )
