"""The user's own negatives (--negatives): scored as the sample is, in blocks of their own.

Their blocks lie in a folder beside those of the sample, and go on after an interruption as these
do. A file of other content is another set of blocks, which are computed anew.
"""

from collections.abc import Callable
from dataclasses import dataclass, field, replace

from virnucpro.blocks import Block, Scored, Telemetry
from virnucpro.errors import InputError, StreamBroken
from virnucpro.reads import Source, open_sources
from virnucpro.reads.files import Reading
from virnucpro.results.outputs import Outputs
from virnucpro.run.journal import Journal
from virnucpro.run.pipeline import coded, compute, contigs_of, limited
from virnucpro.run.runners import Runner


@dataclass(slots=True)
class Negatives:
    """The negatives of a run: where they are read from, and how."""

    source: Source
    reading: Reading
    genetic_code: str
    _digest: str = ""

    @classmethod
    def of(cls, outputs: Outputs, reading: Reading, genetic_code: str) -> "Negatives | None":
        """Return those that a user named; None for none.

        Raises InputError for a file that cannot be read, or that can be read once only.
        """
        if outputs.negatives is None:
            return None
        lengths = replace(Reading(), min_length=reading.min_length, max_length=reading.max_length)
        (source,) = open_sources([outputs.negatives], "negatives", lengths)
        if source.streamed:
            raise InputError(
                "--negatives must be a file that can be read twice, and this is a pipe; write it "
                "to a file first",
                outputs.negatives,
            )
        return cls(source, lengths, genetic_code)

    @property
    def sha256(self) -> str:
        """The digest of the file, as it was when it was first asked for."""
        self._digest = self._digest or self.source.whole_sha256()
        return self._digest

    def score(
        self,
        runner: Runner,
        journal: Journal,
        sizes: tuple[int, ...],
        line: Callable[[str], None],
    ) -> Telemetry:
        """Score those that no earlier process has scored.

        Raises StreamBroken, and InputError if the file changed since its digest was taken.
        """
        broken: list[StreamBroken] = []
        watcher = _Watcher(line)
        contigs = coded(limited(contigs_of([self.source], broken), self.reading), self.genetic_code)
        compute(contigs, broken, runner, journal, sizes, watcher)
        if broken:
            raise broken[0]
        if self.source.whole and self.source.sha256 != self.sha256:
            raise InputError(
                "these negatives changed while they were read; give the command again",
                self.source.path,
            )
        line(f"negatives: {watcher.records:,} records of {self.source.path}")
        return watcher.telemetry


@dataclass(slots=True)
class _Watcher:
    """Satisfies journal.Watcher."""

    line: Callable[[str], None]
    records: int = 0
    telemetry: Telemetry = field(default_factory=Telemetry)

    def advance(self, scored: Scored, *, new: bool) -> None:
        self.records += len(scored.records.begun)
        if new:
            self.telemetry += scored.telemetry

    def skip(self, block: Block) -> None:
        self.records += len(block.records.begun)
