"""virnucpro report."""

from pathlib import Path

import rich_click as click

from virnucpro.cli.values import FilePath


@click.command()
@click.argument("run_dirs", nargs=-1, required=True, type=FilePath(path_type=Path))
@click.option(
    "-o",
    "--out",
    type=FilePath(path_type=Path),
    help="The page; needed for several runs. Default: report.html in the run directory.",
)
@click.option("--no-paths", is_flag=True, help="Leave out paths of files and the command line.")
def report(run_dirs: tuple[Path, ...], out: Path | None, no_paths: bool) -> None:
    """Make report.html anew from the files of a run, or of several runs side by side.

    The page opens in any browser, without a network. Every run in a directory is shown, also those
    whose files have a prefix.

    \b
    virnucpro report run
    virnucpro report run other-run -o both.html --no-paths
    """
    from virnucpro.report import remake

    click.echo(f"the page is {remake(run_dirs, out, paths=not no_paths)}", err=True)
