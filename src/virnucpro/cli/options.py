"""The options that say how inputs are read, the same for predict and validate."""

from collections.abc import Callable
from typing import Any, TypeVar

import rich_click as click

from virnucpro.cli.values import FILE, NAME

Command = TypeVar("Command", bound=Callable[..., Any])
OPTIONS = [
    "--sample",
    "--mates",
    "--interleaved",
    "--unpaired",
    "--read-groups",
    "--reference",
    "--min-length",
    "--max-length",
    "--max-records",
]


def reading_options(command: Command) -> Command:
    """Adds the options, the ones of pairs as the two switches interleaved and unpaired."""
    for option in (
        click.option(
            "--max-records",
            type=click.IntRange(min=1),
            help="Stop after this many records of each input, for a trial.",
        ),
        click.option(
            "--max-length",
            type=click.IntRange(min=1),
            help="List longer records in failed.tsv instead of classifying them.",
        ),
        click.option(
            "--min-length",
            type=click.IntRange(min=1),
            help="List shorter records as too_short instead of classifying them.",
        ),
        click.option(
            "--reference",
            type=FILE,
            help="FASTA that a CRAM was made with, if it needs one.",
        ),
        click.option(
            "--read-groups",
            is_flag=True,
            help="Take samples from the read groups (SM) of a BAM; for one input only.",
        ),
        click.option(
            "--unpaired",
            is_flag=True,
            help="Read each record on its own, even if a BAM marks mates.",
        ),
        click.option(
            "--interleaved",
            is_flag=True,
            help="Every two consecutive records are mates.",
        ),
        click.option(
            "--mates",
            type=FILE,
            help="File of the second mates, in the order of the first; for one input only.",
        ),
        click.option(
            "--sample",
            type=NAME,
            help="Name for the column sample, for one input only. Default: made from "
            "the file's name.",
        ),
    ):
        command = option(command)
    return command


def pairs_of(interleaved: bool, unpaired: bool) -> str:
    """Return what the two switches come to, as in reads.Reading. Raises UsageError."""
    if interleaved and unpaired:
        raise click.UsageError("--interleaved and --unpaired contradict each other.")
    return "interleaved" if interleaved else "none" if unpaired else "auto"
