"""Finished blocks and inputs -> the results of a run. Knows nothing of how blocks were scored."""

from collections.abc import Sequence
from dataclasses import dataclass, replace

from virnucpro.bundle.calibration import Calibration
from virnucpro.bundle.manifest import Bundle
from virnucpro.calls import Rule
from virnucpro.classifiers.genetic_code import AUTO
from virnucpro.frames import STANDARD
from virnucpro.progress import WARNING
from virnucpro.reads import Seen, Source
from virnucpro.results.files import RunFiles
from virnucpro.results.finished import FinishedBlocks
from virnucpro.results.judge import Question
from virnucpro.results.outputs import Outputs
from virnucpro.results.regions import odds_of
from virnucpro.results.sample import judge_of
from virnucpro.results.write import Wanted, Written, write_tables

UNCALIBRATED = (
    "how many of these calls are wrong is not estimated, because the bundle has no calibration; "
    "`virnucpro calibrate` makes a copy of it that has one, from sequences of your own"
)


@dataclass(frozen=True, slots=True)
class ResultsPlan:
    """The rules by which the results of a run are made.

    rule: calls chunks. threshold: least p_virus of a record called virus. notes: sentences on what
    is left out.
    """

    rule: Rule
    threshold: float
    chunk_nt: int
    calibration: Calibration | None
    question: Question
    wanted: Wanted
    notes: tuple[str, ...]


def results_plan(
    bundle: Bundle,
    outputs: Outputs,
    embedding_widths: tuple[int, int] | None,
    prescreen: str | None = None,
    genetic_code: str = str(STANDARD),
) -> ResultsPlan:
    """Return what the results of a bundle's scores are made by.

    embedding_widths: of nucleotides and protein, if embeddings can be written. prescreen: name of
    the bundle that looked first. genetic_code: as of Scoring. Raises BundleError.
    """
    threshold = outputs.chunk_threshold(bundle)
    odds = odds_of(bundle, threshold)
    notes = (f"no regions are looked for: {odds}",) if isinstance(odds, str) else ()
    wanted = Wanted(
        compat_tables=outputs.compat_tables,
        odds=None if isinstance(odds, str) else odds,
        sequences=outputs.write,
        parquet=outputs.parquet,
        embeddings=embedding_widths if outputs.save_embeddings else None,
        speakers=None if prescreen is None else (bundle.name, prescreen),
        codes=genetic_code == AUTO,
    )
    return ResultsPlan(
        rule=Rule(bundle.kind, threshold),
        threshold=outputs.record_threshold(bundle),
        chunk_nt=bundle.chunk_nt,
        calibration=bundle.calibration,
        question=outputs.question,
        wanted=wanted,
        notes=notes,
    )


def finalise(
    finished: FinishedBlocks,
    sources: Sequence[Source],
    before: Sequence[Seen],
    plan: ResultsPlan,
    files: RunFiles,
    negatives: FinishedBlocks | None = None,
) -> Written:
    """Write the results of a run, which appear together.

    sources: the inputs, opened anew; before: as far as they were read when blocks were made of
    them. negatives: blocks of the user's own. Raises InputError if an input has changed since it
    was read, VirnucproError if the disk refuses, ResumeError for a damaged block.
    """
    judge = judge_of(
        finished,
        plan.rule,
        plan.chunk_nt,
        plan.calibration,
        plan.question,
        plan.threshold,
        negatives,
    )
    wanted = replace(plan.wanted, mates=any(seen.mates for seen in before))
    written = write_tables(files, finished, judge, sources, before, wanted)
    records = sum(seen.records for seen in before)
    if written.counts.records != records:
        raise AssertionError(f"{records} records read, {written.counts.records} in the tables")
    unknown = written.worth is None and plan.question.fdr is None and written.counts.virus
    notes: tuple[str, ...] = (UNCALIBRATED,) if unknown else ()
    if (discovery := judge.discovery) is None:
        return replace(written, notes=notes)
    warnings = (f"{WARNING}{sentence}" for sentence in discovery.useless)
    notes += (*warnings, *filter(None, [discovery.untold]))
    if judge.extrapolated:
        notes += (f"{WARNING}{judge.extrapolated}",)
    return replace(written, refusal=discovery.refusal, notes=notes)
