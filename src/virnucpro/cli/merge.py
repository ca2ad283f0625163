"""virnucpro merge."""

import sys
from pathlib import Path

import rich_click as click

from virnucpro.cli.terminal import Screen
from virnucpro.cli.values import FILE


@click.command()
@click.argument("parts", nargs=-1, type=FILE, required=True)
@click.option("-o", "--out", type=FILE, required=True, help="Run directory for the results.")
@click.option(
    "--input",
    "inputs",
    type=FILE,
    multiple=True,
    help="Where an input lies now, if it was moved; once for each input, in their order. Digests "
    "decide whether it is the same.",
)
@click.option("--prefix", default="", help="Put before the name of each file, with a dot.")
@click.option("--force", is_flag=True, help="Replace an earlier run in the run directory.")
@click.option("-q", "--quiet", is_flag=True, help="Print warnings and errors only.")
@click.option("--no-progress", is_flag=True, help="No bar, and no line every 30 s.")
def merge(
    parts: tuple[Path, ...],
    out: Path,
    inputs: tuple[Path, ...],
    prefix: str,
    force: bool,
    quiet: bool,
    no_progress: bool,
) -> int:
    """Make the results of a run from its parts.

    PARTS are the run directories of `virnucpro predict --part i/n`, all of them, in any order. The
    results are those of an undivided run. The parts stay.

    \b
    virnucpro predict reads.fastq.gz -o part1 --part 1/2
    virnucpro predict reads.fastq.gz -o part2 --part 2/2
    virnucpro merge part1 part2 -o run
    """
    from virnucpro.run.merge import merge as merge_parts

    with Screen(quiet=quiet, bar=not no_progress) as screen:
        outcome = merge_parts(
            parts,
            out,
            inputs=inputs,
            prefix=prefix,
            force=force,
            command=sys.argv,
            progress=screen,
        )
        screen.line(f"results are in {out}; begin with {outcome.read_first}")
    return outcome.exit_code
