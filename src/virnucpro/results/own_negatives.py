"""The user's own negatives: the null that they are, and sentences on what is wrong with them."""

from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Self

import numpy as np
from numpy.typing import NDArray

from virnucpro.bundle.calibration import Calibration
from virnucpro.calls import STATUS_NAMES, Rule, Status
from virnucpro.progress import several
from virnucpro.results.contig_calls import Contigs, summed
from virnucpro.results.false_discovery import Null
from virnucpro.results.finished import FinishedBlocks
from virnucpro.results.hosts import lengths_of_few_hosts, viral_negatives

Float64 = NDArray[np.float64]
Int64 = NDArray[np.int64]
UInt8 = NDArray[np.uint8]

_FAILED = STATUS_NAMES[Status.FAILED]
_BY_THEMSELVES = (
    "classify the file of --negatives by itself, and take out those that a search of known "
    "viruses confirms"
)


@dataclass(frozen=True, slots=True)
class OwnNegatives:
    """Negatives of a user, of which 16 bytes each are held.

    by_origin: numbers by origin; unscored: numbers of those without a score, by status.
    """

    null: Null
    by_origin: Int64
    unscored: Mapping[str, int]

    @classmethod
    def of(
        cls,
        finished: FinishedBlocks,
        rule: Rule,
        score_of: Callable[[Contigs], Float64],
        length_bin: Callable[[Float64], Int64],
        bins: int,
        origin: Callable[[Contigs], UInt8],
        origins: int,
    ) -> Self:
        """Return those of finished blocks. Raises BlockError."""
        scores, where = [np.zeros(0)], [np.zeros(0, np.uint8)]
        by_origin, unscored = np.zeros(origins, np.int64), Counter[str]()
        for contigs in summed(finished, rule):
            some = contigs.called > 0
            unscored.update(STATUS_NAMES[status] for status in contigs.status[~some].tolist())
            by_origin += np.bincount(origin(contigs)[some], minlength=origins)
            scores.append(score_of(contigs)[some])
            where.append(length_bin(contigs.called_nt[some]).astype(np.uint8))
        null = Null.of(np.concatenate(scores), np.concatenate(where), bins)
        return cls(null, by_origin, dict(unscored))

    def viral(self, calibration: Calibration | None) -> str:
        """Say that they seem to hold viruses, if they do; see viral_negatives."""
        if calibration is None:
            return ""
        return viral_negatives(calibration, self.null, self.by_origin)

    def useless(
        self, bins: Sequence[str], records_by_bin: Sequence[int], asked: float | None
    ) -> Iterator[str]:
        """Yield which of them, and which records of the sample, are compared with nothing.

        bins: their names; records_by_bin: of the sample; asked: the rate.
        """
        number, without = len(self.null), sum(self.unscored.values())
        if without:
            why = ", ".join(
                f"{n:,} {name.replace('_', ' ')}" for name, n in sorted(self.unscored.items())
            )
            named = "; `virnucpro validate` names the failed ones" if _FAILED in why else ""
            yield (
                f"{without:,} of {several(number + without, 'negative')} "
                f"{'has' if without == 1 else 'have'} no score and "
                f"{'is' if without == 1 else 'are'} left out of the comparison ({why}){named}"
            )
        if not number:
            return
        lacking = [b for b, n in enumerate(records_by_bin) if n and not len(self.null.by_bin[b])]
        uncompared, records = sum(records_by_bin[b] for b in lacking), sum(records_by_bin)
        if uncompared and (asked is None or uncompared < records):  # else the refusal says so
            yield (
                f"no negative has the length of {uncompared:,} of {several(records, 'record')} "
                f"({', '.join(bins[b] for b in lacking)}), so the q_value of these is 1; cut "
                "longer negatives to the lengths of the records, or give some of these lengths"
            )

    def untold(self, calibration: Calibration | None) -> str:
        """Say that nobody looked whether they hold viruses, and what to do; empty if one did."""
        number = len(self.null)
        if not number:
            return ""
        if calibration is None:
            return (
                "this bundle has no calibration to tell by whether the negatives hold viruses, "
                f"which make q-values too large; {_BY_THEMSELVES}"
            )
        few = lengths_of_few_hosts(calibration)
        if not (of_these := sum(len(self.null.by_bin[b]) for b in few)):
            return ""
        names = calibration.bin_names()
        lengths = ", ".join(names[b] for b in few if len(self.null.by_bin[b]))
        return (
            f"whether {of_these:,} of {several(number, 'negative')} hold viruses cannot be told, "
            f"because the calibration has few hosts of their length ({lengths}); cut them to the "
            f"lengths of the records, or {_BY_THEMSELVES}"
        )
