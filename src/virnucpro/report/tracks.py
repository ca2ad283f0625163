"""The chunks along one contig, as a page draws them."""

from dataclasses import dataclass, field
from math import isnan, nan

from virnucpro.calls import Call
from virnucpro.classifiers.complexity import Complexity
from virnucpro.report.shown import POINTS_A_TRACK, Shown
from virnucpro.results.read import Columns


@dataclass(slots=True)
class Track:
    """The chunks along one contig, `group` of them at a point.

    p and high: mean and largest p_virus of the called ones, nan without; frames: bits, and status,
    of the first chunk of a point. complexity: None where it was not looked at.
    """

    shown: Shown
    reason: str
    complexity: Complexity | None
    group: int = field(init=False)
    start: list[int] = field(default_factory=list)
    end: list[int] = field(default_factory=list)
    p: list[float] = field(default_factory=list)
    high: list[float] = field(default_factory=list)
    called: list[int] = field(default_factory=list)
    virus: list[int] = field(default_factory=list)
    chunks: list[int] = field(default_factory=list)
    frames: list[int] = field(default_factory=list)
    status: list[int] = field(default_factory=list)

    def __post_init__(self) -> None:
        self.group = max(-(-self.shown.row.chunks // POINTS_A_TRACK), 1)

    def add(self, block: Columns, i: int) -> None:
        """The next chunk of the contig: a row of calls.tsv."""
        if not self.chunks or self.chunks[-1] == self.group:
            self._begin(block, i)
        self.end[-1] = int(block["end"][i])
        self.chunks[-1] += 1
        p_virus = float(block["p_virus"][i])
        if not isnan(p_virus):
            self.called[-1] += 1
            first = self.called[-1] == 1
            before = 0.0 if first else self.p[-1]
            self.p[-1] = before + (p_virus - before) / self.called[-1]
            self.high[-1] = p_virus if first else max(self.high[-1], p_virus)
        self.virus[-1] += int(block["call"][i] == Call.VIRUS)

    def _begin(self, block: Columns, i: int) -> None:
        for column, value in (
            (self.start, block["start"][i]),
            (self.end, 0),
            (self.called, 0),
            (self.virus, 0),
            (self.chunks, 0),
            (self.frames, block["frames"][i]),
            (self.status, block["status"][i]),
        ):
            column.append(int(value))
        self.p.append(nan)
        self.high.append(nan)
