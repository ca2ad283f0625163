"""The user's own negatives (--negatives): scored as the sample is, in blocks of their own.

Their blocks lie in a folder beside those of the sample, and go on after an interruption as these
do. A file of other content is another set of blocks, which are computed anew.
"""

from collections.abc import Callable
from dataclasses import dataclass, field, replace

from virnucpro.blocks import Block, Scored, Telemetry
from virnucpro.calls import is_called
from virnucpro.errors import InputError, StreamBroken
from virnucpro.reads import Source, open_sources
from virnucpro.reads.files import Reading
from virnucpro.reads.inputs import shapes_of
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

        Raises InputError for a file that cannot be read, that can be read once only, that has no
        record, or whose first records show a fault.
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
        faults: list[InputError] = []
        shapes = shapes_of([source], 1, faults)  # chunks may be of any size: nobody counts them
        if faults:
            raise faults[0]
        if not shapes[0].records:
            _refuse_empty(source)
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
        if watcher.complete and not watcher.called:
            line(
                f"warning: {self.source.path}: none of these negatives could be scored, as they "
                "are too short or hardly DNA, so every q_value is 1; give longer ones"
            )
        return watcher.telemetry


def _refuse_empty(source: Source) -> None:
    """Raise InputError for a file without records, which may be one that broke off."""
    for _ in source.again().contigs():
        pass
    raise InputError(
        "--negatives has no record, so there is nothing to compare with; name a file that has "
        "some, or leave it out",
        source.path,
    )


@dataclass(slots=True)
class _Watcher:
    """Satisfies journal.Watcher.

    called: chunks with a score; complete: whether no block was left to another part.
    """

    line: Callable[[str], None]
    records: int = 0
    called: int = 0
    complete: bool = True
    telemetry: Telemetry = field(default_factory=Telemetry)

    def advance(self, scored: Scored, *, new: bool) -> None:
        self.records += len(scored.records.begun)
        self.called += int(is_called(scored.scores.status).sum())
        if new:
            self.telemetry += scored.telemetry

    def skip(self, block: Block) -> None:
        self.complete = False
        self.records += len(block.records.begun)
