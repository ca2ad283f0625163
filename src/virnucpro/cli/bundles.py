"""virnucpro bundles list | show."""

import json

import rich_click as click

from virnucpro.cli.terminal import paper


@click.group()
def bundles() -> None:
    """See which bundles there are, and what was measured of them."""


@bundles.command("list")
def list_() -> None:
    """List the embedded bundles."""
    from rich.table import Table

    from virnucpro.bundle import aliases_of, embedded_bundles

    table = Table("bundle", "also called", "chunk_nt", "kind", "kB", "what it is", box=None)
    for bundle in embedded_bundles():
        size = sum(path.stat().st_size for path in bundle.path.rglob("*") if path.is_file())
        names = ", ".join(aliases_of(bundle))
        numbers = str(bundle.chunk_nt), bundle.kind, f"{size / 1000:,.0f}"
        table.add_row(bundle.name, names, *numbers, bundle.description)
    paper().print(table)


@bundles.command()
@click.argument("bundle")
@click.option("--json", "as_json", is_flag=True, help="Print JSON.")
def show(bundle: str, as_json: bool) -> None:
    """Show the card of a bundle: what it is, how it was trained, how well it does."""
    from virnucpro.bundle import load, read_manifest

    found = load(bundle)
    document = read_manifest(found.path)
    document["sha256"] = found.sha256
    document["path"] = str(found.path)
    if as_json:
        click.echo(json.dumps(document, indent=2))
        return
    from virnucpro.cli.cards import card_tables

    console = paper()
    for part in card_tables(document):
        console.print(part)
        console.print()
