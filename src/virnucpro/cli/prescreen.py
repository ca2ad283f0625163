"""virnucpro prescreen."""

from pathlib import Path
from typing import Any

import rich_click as click

from virnucpro.cli.completion import bundle_names
from virnucpro.cli.labelled import OPTIONS, labelled_options, read_labelled, scoring_options
from virnucpro.cli.terminal import Paper, Screen, tables_in_parts
from virnucpro.cli.values import FILE, NAME
from virnucpro.progress import Position


@click.command()
@click.argument("bundle", type=NAME, shell_complete=bundle_names)
@click.argument("first", type=NAME, shell_complete=bundle_names)
@click.option_panel("Labelled sequences", options=OPTIONS)
@click.option_panel("Output", options=["--out", "--name", "--quiet", "--no-progress"])
@labelled_options
@click.option(
    "-o", "--out", type=FILE, help="Directory of a copy of BUNDLE that keeps what was measured."
)
@click.option("--name", type=NAME, help="Name of the copy; default: the directory's.")
@scoring_options
@click.option(
    "--per-side",
    type=click.IntRange(min=1),
    default=2000,
    show_default=True,
    help="Fragments of each length, viral and other.",
)
@click.option("--seed", type=click.IntRange(min=0), default=0, show_default=True)
@click.option("-q", "--quiet", is_flag=True, help="Print warnings and errors only.")
@click.option("--no-progress", is_flag=True, help="Print no progress.")
def prescreen(
    bundle: str,
    first: str,
    out: Path | None,
    name: str | None,
    precision: str,
    threads: int | None,
    per_side: int,
    seed: int,
    quiet: bool,
    no_progress: bool,
    **labelled: Any,  # noqa: ANN401
) -> None:
    """Measure what a quick bundle, FIRST, would lose and save if it looked before BUNDLE.

    Prints, for chunks of full length, the threshold that hands on a share of the viral chunks that
    BUNDLE calls virus, and the share of others that it hands on, too. The sequences must be others
    than those that either was trained on.

    \b
    virnucpro prescreen virnucpro-500 mini-500 --positive viral.fasta --negative soil.fasta -o both
    virnucpro predict reads.fastq -o run --bundle both --prescreen mini-500
    """
    from virnucpro.bundle import load
    from virnucpro.bundle.prescreen import check_pair
    from virnucpro.bundle.write import check_free, write_copy
    from virnucpro.devices.choice import devices_for
    from virnucpro.devices.machine import use_threads
    from virnucpro.train.prescreen_fit import (
        choices_of,
        entry_of,
        lengths_of,
        look,
        table_of,
        with_entry,
    )

    large, small = load(bundle), load(first)
    check_pair(large, small)
    if out is not None:
        check_free(out)
    use_threads(threads)
    with Screen(quiet=quiet, bar=not no_progress) as screen:
        data = read_labelled(**labelled, stages=screen)
        lengths = lengths_of(large.chunk_nt)

        def advance(length_nt: int) -> None:
            done = lengths.index(length_nt) + 1
            screen.advance(Position(done, len(lengths), f"{length_nt} nt scored"))

        looked = look(
            small,
            large,
            data.contigs,
            device=devices_for(None)[0] if large.kind != "kmer" else "cpu",
            precision=precision,
            per_side=per_side,
            seed=seed,
            progress=advance,
        )
        choices = choices_of(looked, large.threshold)
        if out is not None:
            entry = entry_of(small, choices, ", ".join(data.sha256), per_side)
            changes = {"name": name or out.name, **with_entry(large, entry)}
            made = write_copy(large, out, changes)
            screen.line(f"wrote {made.path}, sha256 {made.sha256}")
    header = ["kept of viral calls", "threshold", "others handed on"]
    paper = Paper()
    paper.print(*tables_in_parts(header, table_of(choices), paper.width))
