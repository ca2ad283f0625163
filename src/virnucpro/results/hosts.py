"""Hosts: the negatives and bounds of a calibration that stand for those of a sample.

They are chosen by the origins of its records. What they explain of the user's own negatives tells
whether these hold viruses.
"""

from collections.abc import Mapping, Sequence

import numpy as np
from numpy.typing import NDArray

from virnucpro.bundle.calibration import Calibration, chunk_log_odds
from virnucpro.results.false_discovery import (
    FEWEST,
    MIXTURE,
    WORST,
    Bound,
    Null,
    Steps,
    mixture,
    worst,
    worst_of_groups,
)
from virnucpro.results.judge import origins_of

Float64 = NDArray[np.float64]
Int64 = NDArray[np.int64]

# A group of hosts counts for the worst null where so much of the sample seems to be of it.
LEAST_SHARE = 0.05
ALL = "all groups"
# Of fewer units it cannot be told what five of them stay below.
BOUNDED = 20
_NAMED = 4  # more groups are counted in a sentence
# Negatives seem to hold viruses if more of them are called than hosts explain, by so many standard
# deviations. Hosts that the calibration lacks may exceed the bound of all, by a third in the worst
# case seen on val. Groups of fewer than _FEW negatives have no bound here, and fewer calls than
# _LEAST tell nothing.
_SPREADS, _UNLIKE, _FEW, _LEAST = 3.0, 1.5, 5, 10


def everything_of(calibration: Calibration) -> Null:
    """The negatives of all groups."""
    held_out = calibration.negatives
    return Null.of(held_out.log_odds, held_out.length_bin, calibration.bins)


def hosts_of(calibration: Calibration, host: str, by_origin: Int64) -> dict[str, Null]:
    """The nulls that a sample is judged by, by group. by_origin: numbers of its records."""
    held_out = calibration.negatives

    def null(name: str) -> Null:
        of_group = held_out.of(name)
        return Null.of(of_group.log_odds, of_group.length_bin, calibration.bins)

    if host not in (WORST, MIXTURE):
        return {host: null(host)}
    shares = shares_of(calibration, by_origin)
    least = LEAST_SHARE if host == WORST else 0.0
    kept = [name for name in held_out.names if shares.get(name, 0.0) >= least]
    return {name: null(name) for name in kept or held_out.names}


def shares_of(calibration: Calibration, by_origin: Int64) -> dict[str, float]:
    """Share of each group of hosts among the records, as their origins tell.

    Without origins every group may be there; a group that no origin names counts as there, too.
    Records without an origin, which ended with the bundle that looked first, may be of any group.
    """
    names = calibration.negatives.names
    found = dict(zip(origins_of(calibration), by_origin.tolist(), strict=True))
    told = sum(found.get(name, 0) for name in names)
    if not told:
        return dict.fromkeys(names, 1.0)
    records = int(by_origin.sum())
    any_group = int(by_origin[0])
    return {name: (found[name] + any_group) / records if name in found else 1.0 for name in names}


def p_values_of(
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


def compared(
    host: str, hosts: Mapping[str, Null], everything: Null, records_by_bin: Int64
) -> tuple[str, int]:
    """The null in words, and how many negatives records of the most frequent length compare with.

    Of worst, those of the group with the fewest. everything: see p_values_of.
    """
    b = int(np.argmax(records_by_bin))
    sizes = {name: len(null.by_bin[b]) for name, null in hosts.items()}
    names = ", ".join(sorted(hosts)) if len(hosts) <= _NAMED else f"{len(hosts)} groups"
    if host == MIXTURE:
        return f"null: a mixture of {names}", sum(sizes.values())
    of_all = len(everything.by_bin[b])
    few = {name for name, number in sizes.items() if number < min(FEWEST, of_all)}
    number = min(of_all if name in few else number for name, number in sizes.items())
    if few == hosts.keys():
        have = "has" if len(hosts) == 1 else "have"
        return f"null: all groups, as {names} {have} few negatives of this length", number
    words = f"null: {host}" if host != WORST else f"null: the worst of {names}"
    return f"{words}, all groups where one has few negatives" if few else words, number


def lengths_of_few_hosts(calibration: Calibration) -> list[int]:
    """Return the length bins in which viral_negatives can tell nothing."""
    by_bin = everything_of(calibration).by_bin
    return [b for b, negatives in enumerate(by_bin) if len(negatives) < FEWEST]


def viral_negatives(calibration: Calibration, own: Null, by_origin: Int64) -> str:
    """Say that the user's negatives seem to hold viruses, if they do.

    Of hosts, five units stay below the bounds of the calibration in 95 of 100 draws: that of their
    group by origin, or that of all for hosts that it lacks, with room for these. Lengths of which
    it has few negatives tell nothing. by_origin: numbers of the negatives.
    """
    cut = chunk_log_odds(np.array([calibration.threshold]))
    everything, bounds = everything_of(calibration), bounds_by_group(calibration)
    hosts = hosts_of(calibration, WORST, by_origin)
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
    if called < _LEAST or called <= explained + _SPREADS * explained**0.5:
        return ""
    return (
        f"{called:,} of {number:,} negatives have p_virus >= "
        f"{calibration.threshold:g}, of which hosts explain {explained:,.0f} at most, so these "
        "negatives seem to hold viruses and q-values are too large: classify the file of "
        "--negatives by itself to see which, take out those that a search of known viruses "
        "confirms, or use --host instead"
    )
