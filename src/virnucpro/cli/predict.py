"""virnucpro predict."""

import sys
from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

import rich_click as click

from virnucpro.cli.completion import bundle_names
from virnucpro.cli.compute_options import compute_options
from virnucpro.cli.config import read_config
from virnucpro.cli.options import OPTIONS, pairs_of, reading_options
from virnucpro.cli.terminal import Screen, complain, folded
from virnucpro.cli.values import FILE, NAME, PRIOR, SHARE, THRESHOLD
from virnucpro.errors import ResumeError, Terminated, VirnucproError
from virnucpro.results.files import RunFiles

if TYPE_CHECKING:
    from virnucpro.run.settings import Settings

# Options of the published programs, and what answers to them here.
ELSEWHERE = {
    "--model-type": "choose a bundle, as --bundle virnucpro-500 (published) or mini-500; it knows "
    "its chunk length",
    "--model-path": "give the directory of a bundle to --bundle",
    "--output-dir": "name the run directory with -o",
    "--parallel": "all processors are used; --threads N takes fewer",
    "--persistent-models": "a bundle is loaded once for all inputs of a run",
}


USAGE = """\
usage: virnucpro predict INPUT... -o RUN_DIR

  virnucpro predict contigs.fasta -o run
  virnucpro predict reads_1.fastq.gz --mates reads_2.fastq.gz -o run
  virnucpro predict --sample-sheet samples.tsv -o runs

then open run/report.html; virnucpro predict --help lists all options"""


def _refuse(_context: click.Context, option: click.Parameter, value: str | None) -> None:
    if value is not None:
        name = option.opts[0]
        raise click.UsageError(f"{name} is not an option of this program: {ELSEWHERE[name]}.")


Command = TypeVar("Command", bound=click.Command)


def _refusing(command: Command) -> Command:
    for name in ELSEWHERE:
        command.params.append(
            click.Option(
                [name],
                is_flag=False,
                flag_value="",
                hidden=True,
                expose_value=False,
                callback=_refuse,
            )
        )
    return command


class _Predict(click.RichCommand):
    def parse_args(self, ctx: click.Context, args: list[str]) -> list[str]:
        """Print a short usage where nothing was given, and exit with 2."""
        if not args and not ctx.resilient_parsing:
            click.echo(USAGE, err=True)
            ctx.exit(click.UsageError.exit_code)
        return super().parse_args(ctx, args)


@click.command(cls=_Predict)
@click.argument("inputs", nargs=-1, type=FILE)
@click.option_panel(
    "Most used", options=["--out", "--bundle", "--threshold", "--mates", "--gpus", "--threads"]
)
@click.option_panel("What a call is worth", options=["--prior", "--fdr", "--host", "--negatives"])
@click.option_panel(
    "Input", options=["--sample-sheet", *(name for name in OPTIONS if name != "--mates")]
)
@click.option_panel(
    "Output",
    options=[
        "--prefix",
        "--tables",
        "--no-compat-tables",
        "--write",
        "--parquet",
        "--save-embeddings",
    ],
)
@click.option_panel(
    "Resume and repeat", options=["--resume", "--rerun", "--force", "--keep-blocks", "--journal"]
)
@click.option_panel(
    "Behaviour",
    options=[
        "--allow-partial",
        "--quiet",
        "--verbose",
        "--no-progress",
        "--log-json",
        "--config",
    ],
)
@click.option_panel(
    "Prescreening",
    options=["--prescreen", "--prescreen-recall", "--prescreen-threshold"],
)
@click.option(
    "-o",
    "--out",
    type=FILE,
    required=True,
    help="Run directory. With --sample-sheet: the folder for one run directory per sample.",
)
@click.option(
    "--sample-sheet",
    type=FILE,
    help="Instead of INPUTS: a tab-separated table with the columns sample, "
    "path and, optionally, mates. Each sample is a run of its own in "
    "OUT/SAMPLE; the bundle is loaded once.",
)
@reading_options
@click.option("--prefix", default="", help="Put this and a dot before the name of each file.")
@click.option(
    "--tables",
    type=click.Choice(["plain", "gz"]),
    default="plain",
    show_default=True,
    help="gz: gzip the tables.",
)
@click.option(
    "--no-compat-tables",
    "compat_tables",
    flag_value=False,
    default=True,
    help="Leave out the two tables in the published program's format.",
)
@click.option(
    "--write",
    type=click.Choice(["none", "viral", "all"]),
    default="viral",
    show_default=True,
    help="viral: write records called virus, and viral regions of others, to "
    "viral.fasta. all: also write all other records to others.fasta.",
)
@click.option(
    "--parquet",
    is_flag=True,
    help="Also write calls.parquet and contigs.parquet, with typed columns and "
    "full precision. Needs the extra parquet (docs/install.md).",
)
@click.option(
    "--save-embeddings",
    is_flag=True,
    help="Write embeddings.parquet: the embeddings of each open frame, 13 kB "
    "per frame. For bundles of kind frames; needs pyarrow.",
)
@click.option(
    "--resume/--no-resume",
    default=True,
    show_default=True,
    help="Resume an unfinished run in the run directory, or refuse it.",
)
@click.option(
    "--rerun",
    is_flag=True,
    help="Resume an unfinished run of this input, and replace a run of another "
    "input, bundle or version. For workflow engines, which give the same "
    "command whatever has changed.",
)
@click.option("--force", is_flag=True, help="Replace an earlier run in the run directory.")
@click.option(
    "--keep-blocks",
    is_flag=True,
    help="Keep the scores in a hidden folder, so that another --threshold needs no scoring.",
)
@click.option(
    "--journal",
    type=FILE,
    help="Folder for the finished blocks of the run, so that a retry with "
    "another run directory can resume. Default: the run directory.",
)
@click.option(
    "--part",
    type=NAME,
    metavar="i/n",
    help="Score part i of n, without tables; `virnucpro merge` makes the results from all parts.",
)
@click.option(
    "--bundle",
    type=NAME,
    default="mini-500",
    show_default=True,
    shell_complete=bundle_names,
    help="Name of an installed bundle (see `virnucpro bundles list`), or the "
    "directory of a bundle. The published model is virnucpro-500 or "
    "virnucpro-300, after `virnucpro bundles download`.",
)
@click.option(
    "--prescreen",
    type=NAME,
    metavar="BUNDLE",
    shell_complete=bundle_names,
    help="Let this small bundle rule out chunks first, so that the other one "
    "scores only the rest. The column bundle of calls.tsv names the bundle "
    "that scored a chunk.",
)
@click.option(
    "--prescreen-recall",
    type=SHARE,
    metavar="SHARE",
    help="Share of the viral chunks called by the bundle that the first one "
    "must pass on, one of those that were measured for the two together: "
    "0.8, 0.9, 0.95, 0.98, 0.99, 0.995 (the default) or 0.999.",
)
@click.option(
    "--prescreen-threshold",
    type=SHARE,
    help="Instead: pass on chunks whose p_virus by the first bundle is at least this.",
)
@click.option(
    "--threshold",
    type=THRESHOLD,
    help="Call virus from this p_virus on. Default: the bundle's threshold.",
)
@click.option(
    "--prior",
    type=PRIOR,
    metavar="SHARE|auto",
    help="Share of the records that is viral, for the column probability; auto: "
    "estimate it from the sample. Default: 0.05. Needs a bundle with a "
    "calibration.",
)
@click.option(
    "--fdr",
    type=SHARE,
    help="Call records by q_value instead of the threshold, so that at most "
    "this share of the calls is expected to be wrong.",
)
@click.option(
    "--host",
    type=NAME,
    default="worst",
    show_default=True,
    metavar="GROUP|mixture|worst",
    help="Group of held-out negatives that q_value compares with: human, "
    "vertebrate, invertebrate, plant, fungi, protozoa, bacteria, archaea, "
    "or another group of the bundle's calibration. mixture: all groups. "
    "worst: of the groups in the sample, the one under which a record "
    "looks least viral.",
)
@click.option(
    "--negatives",
    type=FILE,
    metavar="FILE",
    help="Compare with these sequences instead, such as a blank or the host; "
    "they are scored in the same run.",
)
@compute_options
@click.option(
    "--allow-partial", is_flag=True, help="Exit with 0 instead of 2 if some records failed."
)
@click.option("-q", "--quiet", is_flag=True, help="Print only warnings and errors.")
@click.option(
    "-v",
    "--verbose",
    is_flag=True,
    help="Print a line after each block: share done, records, chunks, rate, "
    "peak memory, time left.",
)
@click.option(
    "--no-progress",
    is_flag=True,
    help="Print no progress: no bar on a terminal, no line every 30 s elsewhere.",
)
@click.option(
    "--log-json",
    is_flag=True,
    help="Also write log.jsonl, the log for programs, with a line on progress every 30 s.",
)
@click.option(
    "--config",
    type=FILE,
    is_eager=True,
    expose_value=False,
    callback=read_config,
    metavar="FILE.toml",
    help="Take options from this file, as written by `virnucpro config`; the "
    "command line takes precedence.",
)
def predict(
    quiet: bool,
    verbose: bool,
    no_progress: bool,
    interleaved: bool,
    unpaired: bool,
    sample_sheet: Path | None,
    **options: Any,  # noqa: ANN401
) -> int:
    """Classify the sequences of FASTA, FASTQ, BAM and CRAM files.

    INPUTS are files, compressed or not (gzip, bzip2, xz, zstd), folders of such files, or `-` for
    standard input. Their format is detected from their content.

    The run directory gets report.html (a page for any browser), contigs.tsv (a row per record),
    calls.tsv (a row per chunk), pairs.tsv (a row per pair, if there are any), regions.tsv (viral
    regions of long records), viral.fasta, viral_names.txt, two tables in the published program's
    format, virnucpro_mqc.json, log.txt and run.json. Give the same command again to resume an
    interrupted run. A finished run is left as it is; with another threshold or choice of files its
    results are made again, which needs no scoring if it was made with --keep-blocks.

    Exit codes: 0 done; 1 failed; 2 some records failed, or wrong command line; 3 the run directory
    holds another run, is in use, or cannot be written to; 4 out of memory; 130, 143 interrupted.

    \b
    virnucpro predict contigs.fasta -o run
    virnucpro predict contigs.fasta -o run --threshold 0.6
    virnucpro predict contigs.fasta -o run --prefix lake --tables gz --threads 4
    """
    from virnucpro.run.predict import run
    from virnucpro.run.samples import run_samples
    from virnucpro.run.settings import Settings

    if sample_sheet is None and not options["inputs"]:
        raise click.UsageError("no input was named; give files, folders, - or --sample-sheet.")
    pairs = pairs_of(interleaved, unpaired)
    settings = Settings.of(command=sys.argv, pairs=pairs, **options)
    try:
        with Screen(quiet=quiet, bar=not no_progress, verbose=verbose) as screen:
            if sample_sheet is not None:
                return run_samples(sample_sheet, settings, screen, complain)
            outcome = run(settings, screen)
            if outcome.error is None and outcome.counts is not None:
                screen.line(f"results are in {settings.out}; begin with {outcome.read_first}")
    except (KeyboardInterrupt, Terminated):
        if not quiet:
            click.echo(folded(_kept_of(settings, sample_sheet)), err=True)
        raise
    if outcome.error is not None:
        complain(outcome.error)
    return outcome.exit_code


def _kept_of(settings: "Settings", sample_sheet: Path | None) -> str:
    """Say what a stopped run leaves for the next one."""
    restart = settings.restart
    flags = {"--force": restart.force, "--no-resume": not restart.resume}
    given = " and ".join(flag for flag, is_given in flags.items() if is_given)
    without = f" without {given}" if given else ""
    goes_on = f": give the same command again{without}, and it goes on"
    if sample_sheet is not None:
        return (
            f"samples that are finished, and finished blocks of the one at hand, are kept{goes_on}"
        )
    files = settings.files
    blocks = files.finished_blocks
    kept = f"{blocks:,} finished block{'s are' if blocks > 1 else ' is'} kept"
    if _is_finished(files):
        return f"the run in {settings.out} is finished, and stays as it is" + (
            f"; {kept}, too" if blocks else ""
        )
    if blocks:
        return f"{kept}{goes_on}"
    without = "" if restart.force else without
    return f"no block was finished yet: the same command{without} begins at the start"


def _is_finished(files: RunFiles) -> bool:
    with suppress(VirnucproError):  # run.json of another program
        from virnucpro.results.record import RunRecord

        record = RunRecord.read(files.run_json, ResumeError)
        return record is not None and record.is_finished
    return False


predict = _refusing(predict)
