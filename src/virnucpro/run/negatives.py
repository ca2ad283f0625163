"""The user's own negatives (--negatives): scored as the sample is, in blocks of their own.

Their blocks lie in a folder beside those of the sample, and go on after an interruption as these
do. A file of other content is another set of blocks, which are computed anew.
"""

from dataclasses import dataclass, replace

from virnucpro.blocks import Telemetry
from virnucpro.errors import InputError, StreamBroken
from virnucpro.progress import several
from virnucpro.reads import Source, open_sources
from virnucpro.reads.files import Reading
from virnucpro.reads.inputs import shapes_of
from virnucpro.results.outputs import Outputs
from virnucpro.run.journal import Journal
from virnucpro.run.log import RunLog
from virnucpro.run.pipeline import coded, compute, contigs_of, limited
from virnucpro.run.runners import Runner
from virnucpro.run.watch import Watch

# Before the name of the file, which would look like one of the sample.
OPTION = "--negatives"
UNSCORED = (
    "none of these negatives could be scored, as they are too short or hardly DNA, so every "
    "q_value is 1; give longer ones"
)


@dataclass(slots=True)
class Negatives:
    """The negatives of a run: where they are read from, and how.

    letters_a_byte: of the file as it lies on the disk, about.
    """

    source: Source
    reading: Reading
    genetic_code: str
    letters_a_byte: float
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
        shapes = shapes_of([source], faults)
        if faults:
            raise InputError(f"{OPTION} {faults[0]}")
        if not shapes[0].records:
            _refuse_empty(source)
        return cls(source, lengths, genetic_code, shapes[0].letters_a_byte)

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
        log: RunLog,
        telemetry: Telemetry,
    ) -> Telemetry:
        """Score those that no earlier process has scored, and add to the telemetry of the run.

        Raises StreamBroken, and InputError if the file changed since its digest was taken.
        """
        broken: list[StreamBroken] = []
        source = self.source.again()
        log.line(f"scoring the negatives of {source.path}, {source.size_bytes:,} bytes")
        watch = Watch(
            log=log,
            chunk_nt=sizes[0],
            sources=[source],
            letters_a_byte=[self.letters_a_byte],
            unbounded=False,
            records="negatives",
            stage="negatives",
            kept_blocks=journal.kept_blocks,
            telemetry=telemetry,
        )
        watch.show()
        contigs = watch.counted(
            coded(limited(contigs_of([source], broken), self.reading), self.genetic_code)
        )
        compute(contigs, broken, runner, journal, sizes, watch)
        if broken:
            raise StreamBroken(
                f"{OPTION} {broken[0]}; the blocks of the sample are finished and kept, and the "
                "same command goes on from them once this file is whole"
            )
        if source.whole and source.sha256 != self.sha256:
            raise InputError(
                "these negatives changed while they were read; give the command again",
                source.path,
            )
        log.line(f"negatives: {several(source.seen.records, 'record')} of {source.path}")
        if not (watch.scored["called chunks"] or watch.scored["skipped chunks"]):
            log.line(f"warning: {source.path}: {UNSCORED}")
        return watch.telemetry


def _refuse_empty(source: Source) -> None:
    """Raise InputError for a file without records, which may be one that broke off."""
    for _ in source.again().contigs():
        pass
    raise InputError(
        "--negatives has no record, so there is nothing to compare with; name a file that has "
        "some, or leave it out",
        source.path,
    )
