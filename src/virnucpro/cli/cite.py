"""virnucpro cite."""

from pathlib import Path

import rich_click as click

from virnucpro.cli.values import FilePath


@click.command()
@click.argument("run_dir", required=False, type=FilePath(path_type=Path))
@click.option("--bibtex", "as_bibtex", is_flag=True, help="Print BibTeX alone.")
def cite(run_dir: Path | None, as_bibtex: bool) -> None:
    """Print how to cite the program and its method: a paragraph, references, BibTeX.

    With a run directory, the paragraph says what was run, with which bundle and settings, and what
    came out; the run must be finished.

    \b
    virnucpro cite run
    virnucpro cite --bibtex > virnucpro.bib
    """
    from virnucpro.report import citation

    if as_bibtex:
        click.echo(citation.bibtex(), nl=False)
        return
    from virnucpro.errors import InputError
    from virnucpro.report.runs import read_run
    from virnucpro.report.words import methods, references
    from virnucpro.results.read import run_files
    from virnucpro.results.record import FINISHED

    runs = [read_run(files) for files in run_files(run_dir)] if run_dir is not None else [None]
    for run in runs:
        if run is not None and run.document.get("status") not in FINISHED:
            raise InputError(
                "this run is not finished, so there is nothing to write about it; give its predict "
                "command again, or leave out the folder",
                run.files.run_json,
            )
    for run in runs:
        click.echo(f"{methods(run)}\n")
    click.echo(references())
    click.echo(citation.bibtex(), nl=False)
