"""Whether a calibrated bundle keeps its word on val: how far scores are from frequencies, and how
often calls by q-value hold more mistakes than was asked for, in samples put together from val.

    python bench/worth.py mini-500 --data DATA --fdr 0.05 0.1 0.2
"""

import argparse
import sys
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from virnucpro.bundle import load
from virnucpro.bundle.calibration import Calibration, probability
from virnucpro.measure.labels import read_two_sided
from virnucpro.results.false_discovery import (
    WORST,
    Bound,
    Null,
    Resolution,
    Steps,
    q_values,
    worst_of_groups,
)
from virnucpro.results.hosts import bounded, bounds_by_group, viral_negatives
from virnucpro.results.judge import origins_of
from virnucpro.results.prior import Cells, estimated_prior
from virnucpro.results.sample import background_of, with_calls
from virnucpro.train.calibration_fit import reliability_of
from virnucpro.train.scored_records import ScoredRecords, score_records, windows_of

RECORDS = 20_000
SHARES = (0.001, 0.01, 0.1, 0.5)
FEWEST = 50
RESAMPLES = 200
# Lengths of the records of a sample: short reads, long reads, contigs.
BINS = (0, 1, 2)
NEGATIVES, VIRUS_IN_NEGATIVES = 1000, (0, 0.05, 0.1, 0.2, 0.3, 0.4, 0.5)


@dataclass(frozen=True)
class Simulated:
    """Draws of one kind of sample. wrong: false discovery proportion of those that call any."""

    draws: int
    refused: int
    wrong: NDArray[np.float64]
    recall: float

    def kept(self, fdr: float) -> float:
        """Share of draws with a refusal, or with no more mistakes than asked for."""
        return (self.refused + int(np.sum(self.wrong <= fdr))) / self.draws


def reliability(records: ScoredRecords, calibration: Calibration) -> Iterator[str]:
    score = calibration.rule.log_odds(records.evidence, records.called_nt)
    p_virus = probability(score)
    for name, weight in (("records", records.even_weight), ("groups and units", records.weight)):
        found = reliability_of(p_virus, records.viral, weight)
        by_bin = [
            reliability_of(p_virus[kept], records.viral[kept], weight[kept]).error
            for b in range(calibration.bins)
            if (kept := records.length_bin == b).any()
        ]
        parts = ", ".join(f"{error:.3f}" for error in by_bin)
        low, high = error_interval(p_virus, records, weight)
        yield (
            f"expected calibration error, {name} equal: {found.error:.3f} ({low:.3f} to "
            f"{high:.3f}); by length {parts}"
        )


def error_interval(
    p_virus: NDArray[np.float64], records: ScoredRecords, weight: NDArray[np.float64]
) -> tuple[float, float]:
    """The 95 % interval of the expected calibration error, by resampling units."""
    rng = np.random.default_rng(0)
    units = int(records.unit.max()) + 1
    errors = []
    for _ in range(RESAMPLES):
        times = np.bincount(rng.integers(0, units, units), minlength=units)
        drawn = weight * times[records.unit]
        errors.append(reliability_of(p_virus, records.viral, drawn).error)
    low, high = np.quantile(errors, (0.025, 0.975))
    return float(low), float(high)


def p_values_of(
    calibration: Calibration, steps: Steps, bounds: Mapping[str, Bound], null: str
) -> list[NDArray[np.float64]]:
    names = calibration.negatives.names if null == WORST else (null,)
    hosts = {name: null_of(calibration, name) for name in names}
    found = calibration.negatives
    everything = Null.of(found.log_odds, found.length_bin, calibration.bins)
    p_values = worst_of_groups(steps, hosts, everything)
    return bounded(p_values, steps, hosts, bounds)


def null_of(calibration: Calibration, name: str) -> Null:
    found = calibration.negatives.of(name)
    return Null.of(found.log_odds, found.length_bin, calibration.bins)


def simulated(
    records: ScoredRecords,
    calibration: Calibration,
    host: str,
    share: float,
    null: str,
    fdr: float,
    draws: int,
) -> Simulated | None:
    """Samples of a host of val with this share of virus; None without records of the host."""
    score = calibration.rule.log_odds(records.evidence, records.called_nt)
    inside = np.isin(records.length_bin, BINS)
    viral = np.flatnonzero(records.viral & inside)
    others = np.flatnonzero(
        ~records.viral & inside & (records.group == records.group_names.index(host))
    )
    if len(others) < FEWEST:
        return None
    everything = calibration.negatives
    bounds = bounds_by_group(calibration)
    together = Null.of(everything.log_odds, everything.length_bin, calibration.bins)
    steps = Steps.of([together, *bounds.values()])
    p_values = p_values_of(calibration, steps, bounds, null)
    rng = np.random.default_rng(1)
    refused, wrong, found = 0, [], []
    for _ in range(draws):
        number = rng.binomial(RECORDS, share)
        drawn = np.concatenate([rng.choice(viral, number), rng.choice(others, RECORDS - number)])
        length_bin, here = records.length_bin[drawn], score[drawn]
        step = steps.step(length_bin, here)
        counts = steps.zeros()
        for b, of_bin in enumerate(counts):
            of_bin += np.bincount(step[length_bin == b], minlength=len(of_bin))
        q = q_values(p_values, counts)
        called = np.zeros(RECORDS, bool)
        for b, of_bin in enumerate(q):
            at = length_bin == b
            called[at] = of_bin[step[at]] <= fdr
        if not called.any():
            refused += 1
            assert Resolution.of(p_values, counts).smallest_q > fdr
            continue
        wrong.append(float((~records.viral[drawn][called]).mean()))
        found.append(float(called[:number].mean()) if number else 0.0)
    recall = float(np.mean(found)) if found else 0.0
    return Simulated(draws, refused, np.array(wrong), recall)


def discoveries(
    records: ScoredRecords, calibration: Calibration, fdr: float, draws: int
) -> Iterator[str]:
    others = sorted({records.group_names[g] for g in records.group[~records.viral]})
    nulls = [WORST, *calibration.negatives.names]
    yield f"draws of {RECORDS:,} records with no more than {100 * fdr:g} % wrong, or refused"
    yield "host | virus | null | kept | refused | mean wrong | worst wrong | found"
    for host in others:
        for share in SHARES:
            for null in [n for n in nulls if n in (WORST, host)]:
                found = simulated(records, calibration, host, share, null, fdr, draws)
                if found is not None:
                    yield f"{host} | {100 * share:g} % | {null} | {_row(found, fdr)}"
    yield "with the wrong null, 10 % virus:"
    for host in others:
        for null in calibration.negatives.names:
            if null != host:
                found = simulated(records, calibration, host, 0.1, null, fdr, draws // 4)
                if found is not None and len(found.wrong):
                    yield f"{host} | 10 % | {null} | {_row(found, fdr)}"


def _row(found: Simulated, fdr: float) -> str:
    mean, most = (
        (f"{100 * found.wrong.mean():.1f} %", f"{100 * found.wrong.max():.1f} %")
        if len(found.wrong)
        else ("", "")
    )
    return (
        f"{100 * found.kept(fdr):.0f} % | {found.refused}/{found.draws} | {mean} | {most} | "
        f"{100 * found.recall:.0f} %"
    )


def priors(records: ScoredRecords, calibration: Calibration) -> Iterator[str]:
    """What --prior auto says of samples of each host."""
    score = calibration.rule.log_odds(records.evidence, records.called_nt)
    inside = np.isin(records.length_bin, BINS)
    viral = np.flatnonzero(records.viral & inside)
    rng, held, tried = np.random.default_rng(2), 0, 0
    nulls = [null_of(calibration, name) for name in calibration.negatives.names]
    yield "host | virus | --prior auto"
    for g, host in enumerate(records.group_names):
        others = np.flatnonzero(~records.viral & inside & (records.group == g))
        if len(others) < FEWEST:
            continue
        for share in SHARES:
            number = round(RECORDS * share)
            drawn = np.concatenate(
                [rng.choice(viral, number), rng.choice(others, RECORDS - number)]
            )
            cells = Cells()
            cells.add(score[drawn], calibration.rule.size(records.called_nt[drawn]))
            by_bin = np.bincount(records.length_bin[drawn], minlength=calibration.bins)
            prior = estimated_prior(cells, calibration, background_of(nulls, by_bin))
            above = int(np.sum(probability(score[drawn]) >= calibration.threshold))
            prior = with_calls(prior, calibration, above, by_bin)
            missed = "" if prior.low <= share <= prior.high else " (missed)"
            held, tried = held + (not missed), tried + 1
            yield f"{host} | {100 * share:g} % | {prior.sentence}{missed}"
    yield f"the interval held the share in {held} of {tried}"


def hints(records: ScoredRecords, calibration: Calibration, draws: int) -> Iterator[str]:
    """How often negatives of a host and length that hold so much virus are said to hold some."""
    score = calibration.rule.log_odds(records.evidence, records.called_nt)
    origin = np.zeros(len(score), np.uint8)
    if calibration.origin is not None:
        origin += 1 + calibration.origin.of(records.groups)
    rng, bins, origins = np.random.default_rng(3), calibration.bins, len(origins_of(calibration))
    yield "negatives of | length | draws with a hint at " + ", ".join(
        f"{100 * share:g} %" for share in VIRUS_IN_NEGATIVES
    )
    for g, host in enumerate(records.group_names):
        for b, length in enumerate(calibration.bin_names()):
            inside = records.length_bin == b
            viral = np.flatnonzero(records.viral & inside)
            others = np.flatnonzero(~records.viral & inside & (records.group == g))
            if len(others) < FEWEST:
                continue
            told = []
            for share in VIRUS_IN_NEGATIVES:
                number, hinted = round(NEGATIVES * share), 0
                for _ in range(draws):
                    drawn = np.concatenate(
                        [rng.choice(viral, number), rng.choice(others, NEGATIVES - number)]
                    )
                    by_origin = np.bincount(origin[drawn], minlength=origins)
                    own = Null.of(score[drawn], records.length_bin[drawn], bins)
                    hinted += bool(viral_negatives(calibration, own, by_origin))
                told.append(f"{hinted}/{draws}")
            yield f"{host} | {length} | {', '.join(told)}"


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("bundle")
    parser.add_argument("--data", type=Path, required=True, help="folder with val")
    parser.add_argument("--device", default="cpu")
    parser.add_argument("--precision", default="fp32")
    parser.add_argument("--fdr", type=float, nargs="+", default=[0.05])
    parser.add_argument("--draws", type=int, default=200)
    options = parser.parse_args()
    bundle = load(options.bundle)
    calibration = bundle.calibration
    if calibration is None:
        raise SystemExit(f"{bundle.name} has no calibration")
    folder = options.data / "val"
    val = read_two_sided([folder / "viral.fasta.gz"], [folder / "nonviral.fasta.gz"])
    classifier = bundle.classifier(options.device, options.precision)
    records = score_records(classifier, windows_of(val.contigs, bundle.chunk_nt), bundle.chunk_nt)
    for lines in (
        reliability(records, calibration),
        *(discoveries(records, calibration, fdr, options.draws) for fdr in options.fdr),
        priors(records, calibration),
        hints(records, calibration, options.draws),
    ):
        for line in lines:
            print(line, flush=True)
    return 0


if __name__ == "__main__":
    sys.exit(main())
