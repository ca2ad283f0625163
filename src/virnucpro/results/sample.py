"""A sample as a whole: counted in one pass over its finished blocks, before any record is judged.

From the counts come the prior, the shares of hosts, and the q-values under a null. This module
knows no file but by way of finished blocks.
"""

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace

import numpy as np
from numpy.typing import NDArray

from virnucpro.bundle.calibration import (
    LENGTH_EDGES,
    Calibration,
    chunk_log_odds,
    probability,
)
from virnucpro.calls import Rule
from virnucpro.errors import SettingsError, meant
from virnucpro.results.contig_calls import ContigCalls, Contigs
from virnucpro.results.false_discovery import (
    FEWEST,
    MIXTURE,
    OWN,
    WORST,
    Bound,
    Null,
    Resolution,
    Steps,
    mixture,
    q_values,
    worst,
    worst_of_groups,
)
from virnucpro.results.finished import FinishedBlocks
from virnucpro.results.judge import (
    AUTO,
    CalibratedJudge,
    Discovery,
    Judge,
    MeanJudge,
    Question,
    origin_of,
    origins_of,
)
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

# A group of hosts counts for the worst null where so much of the sample seems to be of it.
LEAST_SHARE = 0.05
ALL = "all groups"
# Of fewer units it cannot be told what five of them stay below.
BOUNDED = 20
_NAMED = 4  # more groups are counted in a sentence
# Negatives seem to hold viruses if more of them are called than hosts explain, by so many standard
# deviations. Hosts that the calibration lacks exceed the bound of all by a third at most on val. A
# bound of fewer than _FEW negatives is none.
_SPREADS, _UNLIKE, _FEW = 3.0, 1.5, 5


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


def summed(finished: FinishedBlocks, rule: Rule) -> Iterator[Contigs]:
    """The contigs of finished blocks, block by block. Raises BlockError."""
    contig_calls = ContigCalls()
    for scored in finished.scored():
        records, rows = scored.records, scored.rows
        calls = rule.chunks(scored.scores)
        columns = (rows.record, rows.start, rows.end, scored.scores, calls, records.all_end)
        yield contig_calls.add(len(records), *columns)


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

    of_own = Sample(None, bins, 1)
    null = _own(negatives, rule, lambda contigs: contigs.mean, judge.length_bin, untold, of_own)
    steps = Steps.of([null])
    sample = Sample(steps, bins, 1)
    for contigs in summed(finished, rule):
        some = contigs.called > 0
        called_nt = contigs.called_nt[some]
        sample.add(contigs.mean[some], judge.length_bin(called_nt), untold(contigs)[some])
    judge.discovery = _discovered(sample, steps.p_values(null), OWN, len(null), question)
    return judge


def _own(
    negatives: FinishedBlocks,
    rule: Rule,
    score_of: Callable[[Contigs], Float64],
    length_bin: Callable[[Float64], Int64],
    origin: Callable[[Contigs], UInt8],
    counted: Sample,
) -> Null:
    """Return the user's negatives; 16 bytes each. counted: takes them, too."""
    scores, where = [np.zeros(0)], [np.zeros(0, np.uint8)]
    for contigs in summed(negatives, rule):
        some = contigs.called > 0
        score, bins = score_of(contigs)[some], length_bin(contigs.called_nt[some])
        counted.add(score, bins, origin(contigs)[some])
        scores.append(score)
        where.append(bins.astype(np.uint8))
    return Null.of(np.concatenate(scores), np.concatenate(where), counted.bins)


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

    own, viral = None, ""
    if negatives is not None:
        of_own = Sample(None, bins, origins)
        own = _own(negatives, rule, score_of, calibration.length_bin, origin, of_own)
        viral = viral_negatives(calibration, own, of_own)
    steps = _steps(calibration) if own is None else Steps.of([own])
    sample = Sample(steps, bins, origins)
    for contigs in summed(finished, rule):
        some = contigs.called > 0
        called_nt = contigs.called_nt[some]
        score = score_of(contigs)[some]
        sample.add(score, calibration.length_bin(called_nt), origin(contigs)[some])
        sample.cells.add(score, calibration.rule.size(called_nt))
        sample.above += int(np.count_nonzero(probability(score) >= calibration.threshold))
    if own is not None:
        p_values, name, number, hosts = steps.p_values(own), OWN, len(own), {OWN: own}
    else:
        hosts = _hosts(calibration, question, sample)
        shares = _shares(calibration, sample) if question.host == MIXTURE else None
        p_values = _p_values(steps, hosts, _everything(calibration), shares)
        p_values = bounded(p_values, steps, hosts, bounds_by_group(calibration), shares)
        name, number = _named(question.host, hosts), sum(map(len, hosts.values()))
    prior = _prior(sample, calibration, question, hosts)
    by_threshold = question.fdr is None and len(calibration.bounds.score)
    return CalibratedJudge(
        rule,
        calibration,
        threshold,
        prior,
        replace(_discovered(sample, p_values, name, number, question), viral=viral),
        _wrong_bound(sample, calibration, threshold, prior) if by_threshold else None,
    )


def _everything(calibration: Calibration) -> Null:
    """The negatives of all groups."""
    held_out = calibration.negatives
    return Null.of(held_out.log_odds, held_out.length_bin, calibration.bins)


def _steps(calibration: Calibration) -> Steps:
    """The steps of all that a calibration has to compare with."""
    return Steps.of([_everything(calibration), *bounds_by_group(calibration).values()])


def viral_negatives(calibration: Calibration, own: Null, counted: Sample) -> str:
    """Say that the user's negatives seem to hold viruses, if they do.

    Of hosts, five units stay below the bounds of the calibration in 95 of 100 draws: that of their
    group by origin, or that of all for hosts that it lacks, with room for these. Lengths of which
    it has few negatives tell nothing. counted: the same negatives.
    """
    cut = chunk_log_odds(np.array([calibration.threshold]))
    everything, bounds = _everything(calibration), bounds_by_group(calibration)
    hosts = _hosts(calibration, Question(negatives=True), counted)
    number, called, explained = 0, 0, 0.0
    for b, negatives in enumerate(own.by_bin):
        if len(everything.by_bin[b]) >= FEWEST:
            of_all = max(float(null.p_values(b, cut)[0]) for null in (everything, bounds[ALL]))
            of_groups = [
                float(bounds[name].p_values(b, cut)[0])
                for name, null in hosts.items()
                if len(null.by_bin[b]) >= _FEW
            ]
            number += len(negatives)
            called += int(np.count_nonzero(negatives >= cut))
            explained += len(negatives) * max([_UNLIKE * of_all, *of_groups])
    if called <= explained + _SPREADS * explained**0.5:
        return ""
    return (
        f"{called:,} of {number:,} negatives have p_virus >= "
        f"{calibration.threshold:g}, of which hosts explain {explained:,.0f} at most, so these "
        "negatives seem to hold viruses and q-values are too large: classify the file of "
        "--negatives by itself to see which, take out those that a search of known viruses "
        "confirms, or use --host instead"
    )


def _wrong_bound(sample: Sample, calibration: Calibration, threshold: float, prior: Prior) -> float:
    """Return how many calls are wrong at most if the hosts are five units drawn at random."""
    most, _ = calibration.few_units_at(threshold)
    return (1 - prior.low) * float(sample.by_bin @ most)


def _hosts(calibration: Calibration, question: Question, sample: Sample) -> dict[str, Null]:
    """The nulls that the sample is judged by, by group."""
    held_out = calibration.negatives

    def null(name: str) -> Null:
        of_group = held_out.of(name)
        return Null.of(of_group.log_odds, of_group.length_bin, calibration.bins)

    if question.host not in (WORST, MIXTURE):
        return {question.host: null(question.host)}
    shares = _shares(calibration, sample)
    least = LEAST_SHARE if question.host == WORST else 0.0
    kept = [name for name in held_out.names if shares.get(name, 0.0) >= least]
    return {name: null(name) for name in kept or held_out.names}


def _shares(calibration: Calibration, sample: Sample) -> dict[str, float]:
    """Share of each group of hosts among the records, as their origins tell.

    Without origins every group may be there; a group that no origin names counts as there, too.
    Records without an origin, which ended with the bundle that looked first, may be of any group.
    """
    names = calibration.negatives.names
    found = dict(zip(origins_of(calibration), sample.by_origin.tolist(), strict=True))
    told = sum(found.get(name, 0) for name in names)
    if not told:
        return dict.fromkeys(names, 1.0)
    any_group = int(sample.by_origin[0])
    return {
        name: (found[name] + any_group) / sample.records if name in found else 1.0 for name in names
    }


def _p_values(
    steps: Steps,
    hosts: Mapping[str, Null],
    everything: Null,
    shares: Mapping[str, float] | None,
) -> list[Float64]:
    """p of the worst of hosts, which may be one, or of their mixture by shares.

    everything: the negatives of all groups, for lengths of which the hosts have too few.
    """
    if shares is None:
        return worst_of_groups(steps, hosts, everything)
    p_values = {name: steps.p_values(null) for name, null in hosts.items()}
    return mixture(p_values, {name: shares[name] for name in hosts})


def bounds_by_group(calibration: Calibration) -> dict[str, Bound]:
    """Return the bound of each group, and that of all together under ALL."""
    names = (*calibration.negatives.names, ALL)
    return {
        name: Bound.of([calibration.bounds.of(group, b) for b in range(calibration.bins)])
        for group, name in enumerate(names)
    }


def bounded(
    p_values: Sequence[Float64],
    steps: Steps,
    hosts: Mapping[str, Null],
    bounds: Mapping[str, Bound],
    shares: Mapping[str, float] | None = None,
) -> list[Float64]:
    """p of hosts, by length bin and step, raised to the bounds of these groups and of all.

    A group of fewer than BOUNDED negatives in a length bin has no bound of its own there. shares:
    of a mixture, whose bound is that of the groups' bounds.
    """
    of_group = {name: steps.p_values(bounds[name]) for name in hosts}
    for name, least in of_group.items():
        for b, negatives in enumerate(hosts[name].by_bin):
            if len(negatives) < BOUNDED:
                least[b] = np.zeros_like(least[b])
    of_hosts = [*of_group.values()]
    if shares is not None:
        of_hosts = [mixture(of_group, {name: shares[name] for name in hosts})]
    return worst([[*p_values], *of_hosts, steps.p_values(bounds[ALL])])


def _named(host: str, hosts: Mapping[str, Null]) -> str:
    """The null in words."""
    if host not in (WORST, MIXTURE):
        return f"null: {host}"
    several = ", ".join(sorted(hosts)) if len(hosts) <= _NAMED else f"{len(hosts)} groups"
    return f"null: {'the worst' if host == WORST else 'a mixture'} of {several}"


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


def _discovered(
    sample: Sample, p_values: Sequence[Float64], null: str, negatives: int, question: Question
) -> Discovery:
    assert sample.steps is not None
    return Discovery(
        null=null,
        negatives=negatives,
        steps=sample.steps,
        q=tuple(q_values(p_values, sample.counts)),
        resolution=Resolution.of(p_values, sample.counts),
        asked=question.fdr,
    )
