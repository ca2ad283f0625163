"""The options that name labelled sequences, the same for training and evaluation."""

from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

import rich_click as click

from virnucpro.cli.values import FILE
from virnucpro.progress import WARNING, several

if TYPE_CHECKING:
    from virnucpro.measure.labels import Labelled
    from virnucpro.progress import Progress

Command = TypeVar("Command", bound=Callable[..., Any])
OPTIONS = ["--fasta", "--labels", "--positive", "--negative"]


def labelled_options(command: Command) -> Command:
    """Adds --fasta, --labels, --positive and --negative."""
    for option in (
        click.option("--negative", multiple=True, type=FILE, help="FASTA of other sequences."),
        click.option(
            "--positive",
            multiple=True,
            type=FILE,
            help="FASTA of viral sequences. A table of the same name beside it (x.tsv or x.tsv.gz "
            "beside x.fasta.gz) with a column id and any of group, level, source, unit describes "
            "them.",
        ),
        click.option(
            "--labels",
            multiple=True,
            type=FILE,
            help="Table for --fasta with columns id, label (1 = viral, 0 = other) and, if known, "
            "group, level, source, unit.",
        ),
        click.option("--fasta", multiple=True, type=FILE, help="FASTA of labelled sequences."),
    ):
        command = option(command)
    return command


def scoring_options(command: Command) -> Command:
    """Add --precision and --threads, by which labelled sequences are scored."""
    threads = click.option(
        "--threads", type=click.IntRange(min=1), help="CPU threads; default: as for predict."
    )
    precision = click.option(
        "--precision",
        type=click.Choice(["auto", "fp32", "bf16", "fp16"]),
        default="auto",
        show_default=True,
        help="As for predict.",
    )
    return precision(threads(command))


def read_labelled(
    fasta: tuple[Path, ...],
    labels: tuple[Path, ...],
    positive: tuple[Path, ...],
    negative: tuple[Path, ...],
    stages: "Progress",
    warns: bool = True,
) -> "Labelled":
    """The labelled contigs that the four options name.

    Says which tables beside files describe them. warns: of sequences on both sides, too. Raises
    InputError where it warns and nearly all of a side are on both.
    """
    from virnucpro.measure.doubts import check_sides, on_both_sides
    from virnucpro.measure.labels import read_two_sided, read_with_labels

    one, two = bool(fasta and labels), bool(positive and negative)
    if one == two or bool(fasta) != bool(labels) or bool(positive) != bool(negative):
        raise click.UsageError("give either --fasta with --labels, or --positive with --negative.")
    found = read_with_labels(fasta, labels) if one else read_two_sided(positive, negative)
    for fault in found.faults:
        stages.line(f"without its sequence: {fault}")
    for table in found.tables:
        stages.line(table.sentence)
    bases = sum(len(contig.sequence) for contig in found.contigs)
    units = len({contig.unit for contig in found.contigs})
    of_units = "" if units == len(found.contigs) else f", of {several(units, 'unit')}"
    stages.line(f"read {len(found.contigs):,} labelled sequences, {bases:,} nt{of_units}")
    if warns:
        check_sides(found.contigs)
    for sentence in on_both_sides(found.contigs) if warns else ():
        stages.line(f"{WARNING}{sentence}")
    return found
