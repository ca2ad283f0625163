"""virnucpro validate."""

import json
from pathlib import Path
from typing import TYPE_CHECKING, Any

import rich_click as click

from virnucpro.cli.completion import bundle_names
from virnucpro.cli.options import OPTIONS, pairs_of, reading_options
from virnucpro.cli.terminal import complain, folded
from virnucpro.cli.values import FILE, NAME
from virnucpro.progress import escaped, several

if TYPE_CHECKING:
    from virnucpro.run.validate import Inspection


@click.command()
@click.argument("inputs", nargs=-1, type=FILE)
@click.option_panel("Input", options=["--sample-sheet", *OPTIONS, "--negatives"])
@click.option(
    "--sample-sheet", type=FILE, help="Instead of INPUTS: a table of samples, as for predict."
)
@reading_options
@click.option(
    "--negatives",
    type=FILE,
    metavar="FILE",
    help="Check these sequences, too, as predict does before it compares with them.",
)
@click.option(
    "--bundle",
    type=NAME,
    default="mini-500",
    show_default=True,
    shell_complete=bundle_names,
    help="As for predict.",
)
@click.option("--json", "as_json", is_flag=True, help="Print JSON.")
def validate(
    bundle: str,
    as_json: bool,
    interleaved: bool,
    unpaired: bool,
    sample_sheet: Path | None,
    **options: Any,  # noqa: ANN401
) -> int:
    """Read inputs to the end and report what predict would do with them, without scores.

    Exits as predict would: 0, 1 for what cannot be read, 2 where some records would fail.

    \b
    virnucpro validate reads.fasta.gz --json
    virnucpro validate r_1.fastq.gz --mates r_2.fastq.gz
    """
    if sample_sheet is None and not options["inputs"]:
        raise click.UsageError("no input was named; give files, folders, - or --sample-sheet.")
    pairs = pairs_of(interleaved, unpaired)
    from virnucpro.bundle import load
    from virnucpro.run.samples import settings_of_samples
    from virnucpro.run.settings import Settings
    from virnucpro.run.validate import inspect, inspect_negatives

    settings = Settings.of(out=Path(), bundle=bundle, pairs=pairs, **options)
    runs = [settings] if sample_sheet is None else settings_of_samples(sample_sheet, settings)
    loaded = load(bundle)
    found: list[Inspection] = []
    for run in runs:
        inspections, notes = inspect(run, loaded)
        found += inspections
        for note in notes:
            click.echo(folded(note), err=True)
    if negatives := inspect_negatives(settings, loaded):
        found.append(negatives)
    if as_json:
        click.echo(json.dumps([inspection.as_dict() for inspection in found], indent=2))
    else:
        for inspection in found:
            _print(inspection)
    for inspection in found:
        if inspection.broken:
            complain(inspection.broken)
    codes = [inspection.exit_code for inspection in found]
    return 1 if 1 in codes else max(codes)


def _print(found: "Inspection") -> None:
    if found.sample is None:
        what = "cannot be used as negatives" if found.negatives else "could not be opened"
        click.echo(escaped(f"{found.path}: {what}"))
        return
    mates = f" and {found.mates}" if found.mates else ""
    what = "negatives" if found.negatives else f"sample {found.sample}"
    click.echo(escaped(f"{found.path}{mates}, {what}"))
    lengths = "" if found.longest_nt is None else f", {found.shortest_nt:,} to {found.longest_nt:,}"
    short = f", {found.short:,} shorter than --min-length" if found.short else ""
    click.echo(f"  records  {found.records:,}, of these {found.empty:,} empty{short}")
    if found.pairs:
        alone = f", of these {found.without_mate:,} without a mate" if found.without_mate else ""
        click.echo(f"  pairs    {found.pairs:,}{alone}")
    click.echo(f"  bases    {found.bases:,}{lengths}")
    status = ", ".join(f"{n:,} {name.replace('_', ' ')}" for name, n in found.chunk_status.items())
    click.echo(f"  chunks   {found.chunks:,}{': ' if status else ''}{status}")
    if found.open_frames is not None:
        click.echo(f"  frames   {found.open_frames:,} open")
    click.echo(f"  failing  {several(found.faulty, 'record')}")
    for fault in found.faults:
        click.echo(f"    {fault}")
    if found.warning:
        click.echo(f"  warning  {found.warning}")
    if found.broken:
        click.echo("  its end was not reached")
