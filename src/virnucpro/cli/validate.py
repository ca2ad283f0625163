"""virnucpro validate."""

import json
from pathlib import Path
from typing import TYPE_CHECKING

import rich_click as click

from virnucpro.cli.completion import bundle_names

if TYPE_CHECKING:
    from virnucpro.inspection import Inspection


@click.command()
@click.argument("inputs", nargs=-1, required=True, type=click.Path(path_type=Path, readable=False))
@click.option(
    "--bundle",
    default="mini-500",
    show_default=True,
    shell_complete=bundle_names,
    help="As for predict.",
)
@click.option("--json", "as_json", is_flag=True, help="Print JSON.")
def validate(inputs: tuple[Path, ...], bundle: str, as_json: bool) -> int:
    """Read inputs to the end and report what predict would do with them, without scores.

    Exits as predict would: 0, 1 for what cannot be read, 2 where some records would fail.

    \b
    virnucpro validate reads.fasta.gz --json
    """
    from virnucpro.bundle import load
    from virnucpro.inspection import inspect

    found = inspect(inputs, load(bundle))
    if as_json:
        click.echo(json.dumps([inspection.as_dict() for inspection in found], indent=2))
    else:
        for inspection in found:
            _print(inspection)
    for inspection in found:
        if inspection.broken:
            click.echo(f"virnucpro: {inspection.broken}", err=True)
    codes = [inspection.exit_code for inspection in found]
    return 1 if 1 in codes else max(codes)


def _print(found: "Inspection") -> None:
    click.echo(f"{found.path}, sample {found.sample}")
    lengths = "" if found.longest_nt is None else f", {found.shortest_nt:,} to {found.longest_nt:,}"
    click.echo(f"  records  {found.records:,}, of these {found.empty:,} empty")
    click.echo(f"  bases    {found.bases:,}{lengths}")
    status = ", ".join(f"{n:,} {name.replace('_', ' ')}" for name, n in found.chunk_status.items())
    click.echo(f"  chunks   {found.chunks:,}{': ' if status else ''}{status}")
    if found.open_frames is not None:
        click.echo(f"  frames   {found.open_frames:,} open")
    click.echo(f"  failing  {found.faulty:,} records")
    for fault in found.faults:
        click.echo(f"    {fault}")
