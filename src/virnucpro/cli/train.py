"""virnucpro train kmer | encoder | head."""

from collections.abc import Callable
from pathlib import Path
from typing import Any, TypeVar

import rich_click as click

from virnucpro.cli.labelled import OPTIONS, labelled_options, read_labelled
from virnucpro.cli.terminal import Screen

Command = TypeVar("Command", bound=Callable[..., Any])
OUTPUT = ["--out", "--name", "--description", "--quiet", "--no-progress"]


@click.group()
def train() -> None:
    """Make a bundle from labelled sequences."""


def _bundle_options(command: Command) -> Command:
    """Adds what every kind of training asks for."""
    for option in (
        click.option("--no-progress", is_flag=True, help="Print no progress."),
        click.option("-q", "--quiet", is_flag=True, help="Print errors only."),
        click.option("--seed", default=0, show_default=True, help="Equal seeds, equal bundles."),
        click.option(
            "--chunk", "chunk_nt", default=500, show_default=True, help="Length of a chunk, nt."
        ),
        click.option("--description", default="", help="One line for `bundles list`."),
        click.option("--name", help="Name of the bundle; default: the directory's."),
        click.option(
            "-o",
            "--out",
            type=click.Path(path_type=Path),
            required=True,
            help="Directory of the new bundle.",
        ),
    ):
        command = option(command)
    return labelled_options(command)


@train.command()
@click.option_panel("Labelled sequences", options=OPTIONS)
@click.option_panel("Output", options=OUTPUT)
@_bundle_options
@click.option("-k", type=click.IntRange(4, 6), default=5, show_default=True, help="Word length.")
@click.option("--fragments", default=100_000, show_default=True, help="How many to fit on.")
def kmer(
    out: Path,
    name: str | None,
    description: str,
    chunk_nt: int,
    seed: int,
    k: int,
    fragments: int,
    quiet: bool,
    no_progress: bool,
    **labelled: Any,  # noqa: ANN401
) -> None:
    """Fit the k-mer linear model: numpy only, in seconds, the baseline of any other bundle."""
    from virnucpro.train.kmer_fit import KmerSettings, fit_kmer, write_kmer_bundle

    settings = KmerSettings(k=k, fragments=fragments, seed=seed)
    with Screen(quiet=quiet, bar=not no_progress) as screen:
        data = read_labelled(**labelled, stages=screen)
        fit = fit_kmer(
            data.contigs,
            settings,
            data.sha256,
            lambda what, share: screen.step(round(100 * share), 100, what),
        )
        bundle = write_kmer_bundle(
            out,
            fit,
            name=name or out.name,
            description=description,
            chunk_nt=chunk_nt,
            validated_nt=settings.shortest_nt,
        )
        screen.line(f"AUROC {fit.record['slice_auroc']:.4f} on the slice held out by unit")
        screen.line(f"wrote {bundle.path}, sha256 {bundle.sha256}")
