"""virnucpro bundles list | show | verify | download | import."""

import json
from pathlib import Path
from typing import TYPE_CHECKING

import rich_click as click

from virnucpro.cli.completion import all_names, bundle_names, published_names
from virnucpro.cli.terminal import Paper, Screen, complain, folded, tables_in_parts
from virnucpro.cli.values import FILE, NAME
from virnucpro.progress import escaped, several

if TYPE_CHECKING:
    from virnucpro.bundle.catalogue import Known


@click.group()
def bundles() -> None:
    """See which bundles there are, and what was measured of them; fetch, check or import one."""


@bundles.command("list")
def list_() -> None:
    """List the bundles that are embedded, downloaded, or known and can be downloaded."""
    from virnucpro.bundle import (
        DEFAULT_BUNDLE,
        aliases_of,
        downloaded_bundles,
        embedded_bundles,
        find,
        load,
    )
    from virnucpro.bundle.catalogue import newest, read_catalogue
    from virnucpro.cli.cards import contents, megabytes
    from virnucpro.errors import BundleError

    known = read_catalogue().bundles
    header = ("bundle", "also called", "where", "chunk_nt", "kind", "MB", "what it is")
    rows: list[tuple[str, ...]] = []
    default = find(DEFAULT_BUNDLE)
    here = [("embedded", bundle.path) for bundle in embedded_bundles()]
    here.sort(key=lambda each: each[1] != default)  # it comes first
    here += [("downloaded", path) for path in downloaded_bundles()]
    for where, path in here:
        try:
            bundle = load(path)
            numbers = str(bundle.chunk_nt), bundle.kind, contents(bundle)["megabytes"]
        except BundleError as error:
            rows.append((path.name, "", "damaged", "", "", "", str(error)))
            continue
        aliases = ", ".join(aliases_of(bundle))
        where = f"{where}, default" if path == default else where
        rows.append((bundle.name, aliases, where, *numbers, bundle.description))
    names_here = {path.name for _, path in here}
    alias_of = {name: alias for alias, name in newest(k.name for k in known).items()}
    for model in known:
        if model.name not in names_here:
            numbers = str(model.chunk_nt), "frames", megabytes(model.size_bytes)
            alias = alias_of.get(model.name, "")
            rows.append((model.name, alias, "to fetch", *numbers, model.description))
    paper = Paper()
    paper.print(*tables_in_parts(header, rows, paper.width))


@bundles.command()
@click.argument("bundle", type=NAME, shell_complete=all_names)
@click.option("--all", "everything", is_flag=True, help="Print every table of its card.")
@click.option("--json", "as_json", is_flag=True, help="Print all of it as JSON.")
def show(bundle: str, everything: bool, as_json: bool) -> None:
    """Show the card of a bundle: what it is, and how well it does; with --all how it was made, too.

    Of a bundle that is known but not here: its parts, with their size, licence and origin.

    \b
    virnucpro bundles show mini-500
    virnucpro bundles show mini-500 --all
    """
    from virnucpro.bundle import find, load
    from virnucpro.bundle.catalogue import read_catalogue
    from virnucpro.bundle.manifest import read_manifest
    from virnucpro.cli.cards import card_tables, contents, essentials, known_manifest

    known = read_catalogue().find(bundle)
    if known is not None and find(bundle) is None:
        document = known_manifest(known)
    else:
        found = load(bundle)
        document = read_manifest(found.path)
        document["sha256"] = found.sha256
        document["path"] = str(found.path)
        document["weights"] = str(found.provenance)
        document["contents"] = contents(found)
    if as_json:
        click.echo(json.dumps(document, indent=2))
        return
    paper = Paper()
    for part in (card_tables if everything else essentials)(document, paper.width):
        paper.print(part)
        paper.print("")


@bundles.command()
@click.argument("bundle", type=NAME, shell_complete=bundle_names)
def verify(bundle: str) -> int:
    """Compute every checksum of a bundle anew; exit code 1 if one is not what it should be."""
    from virnucpro.bundle import load
    from virnucpro.bundle.verify import verified

    found = load(bundle)
    wrong, total = [], 0
    for checked in verified(found):
        fault = checked.fault
        line = f"WRONG {checked.path}: {fault}" if fault else f"ok    {checked.path}"
        click.echo(escaped(line))
        total += 1
        if fault:
            wrong.append(checked.path.name)
    if wrong:
        complain(
            f"{found.path}: {', '.join(wrong)} of bundle {found.name} "
            f"{'is' if len(wrong) == 1 else 'are'} damaged or missing; fetch or make it again"
        )
        return 1
    files = several(total, "file")
    whole = f"{found.name} is whole: {files}; {found.provenance}; sha256 {found.sha256}"
    click.echo(folded(whole, stderr=False))
    return 0


@bundles.command()
@click.argument("name", type=NAME, shell_complete=published_names)
@click.option(
    "--to",
    type=FILE,
    metavar="DIR",
    help="Put all of it into this directory, which can be carried and used with --bundle DIR; "
    "default: the cache (VIRNUCPRO_CACHE; encoders in HF_HOME or HF_HUB_CACHE where set).",
)
@click.option(
    "--from",
    "source",
    type=FILE,
    metavar="DIR",
    help="Take everything from this folder, made with --to elsewhere, without any network.",
)
@click.option("-q", "--quiet", is_flag=True, help="Print warnings and errors only.")
@click.option("--no-progress", is_flag=True, help="Print no progress, only what was done.")
def download(
    name: str,
    to: Path | None,
    source: Path | None,
    quiet: bool,
    no_progress: bool,
) -> None:
    """Fetch a published model, verify every file of it, and keep it under its name.

    A download that was stopped goes on when it is run again. Proxies are taken from the
    environment (https_proxy), a mirror of the hub from HF_ENDPOINT.

    \b
    virnucpro bundles download virnucpro-500
    virnucpro bundles download virnucpro-500 --to carried
    virnucpro bundles download virnucpro-500 --from carried
    """
    if _is_embedded(name):
        if to is not None or source is not None:
            raise click.UsageError(f"{name} comes with the program; leave out --to and --from.")
        if not quiet:
            here = f"{name} comes with the program, so it is here: use it with --bundle {name}"
            click.echo(folded(here), err=True)
        return
    known = _known(name)
    from virnucpro.bundle.download import download as acquired
    from virnucpro.bundle.download import placed
    from virnucpro.cli.cards import card_tables, known_manifest

    with Screen(quiet=quiet, bar=not no_progress) as screen:
        places = placed(known, to, source)
        manifest = known_manifest(known, places)
        for part in card_tables(manifest, Paper(stderr=True).width):
            screen.table(part)
        bundle = acquired(known, places, source, screen)
        screen.line(f"{bundle.name}: {bundle.provenance}; sha256 {bundle.sha256}")
        screen.line(f"use it with --bundle {to or known.name}")


def _is_embedded(name: str) -> bool:
    from virnucpro.bundle import aliases_of, embedded_bundles

    return any(name in (bundle.name, *aliases_of(bundle)) for bundle in embedded_bundles())


def _known(name: str) -> "Known":
    from virnucpro.bundle.catalogue import read_catalogue
    from virnucpro.errors import BundleError, meant

    listed = read_catalogue()
    known = listed.find(name)
    if known is None:
        names = ", ".join(model.name for model in listed.bundles)
        raise BundleError(
            f"{name}: no bundle of this name can be downloaded{meant(name, listed.names)}; "
            f"those that can are {names}"
        )
    return known


@bundles.command("import")
@click.argument("head", type=FILE, metavar="HEAD.pth")
@click.option("-o", "--out", type=FILE, required=True, metavar="DIR", help="New bundle.")
@click.option(
    "--chunk",
    type=click.IntRange(min=3),
    required=True,
    metavar="N",
    help="Length of the chunks that the head was trained on, in nt.",
)
@click.option("--esm", type=FILE, metavar="PATH", help="ESM-2, in any published layout.")
@click.option("--dnabert", type=FILE, metavar="PATH", help="DNABERT-S, as published.")
@click.option("--copy", is_flag=True, help="Copy the encoders into the bundle.")
def import_(
    head: Path, out: Path, chunk: int, esm: Path | None, dnabert: Path | None, copy: bool
) -> None:
    """Make a bundle of a pickled head, a published one or one of your own.

    Nothing in the file is executed; what a head does not need is refused. Without encoders the
    bundle scores features, not sequences.

    \b
    virnucpro bundles import HEAD.pth -o mine --chunk 500 --esm ESM --dnabert DNABERT
    """
    encoders = {part: path for part, path in (("dnabert_s", dnabert), ("esm2", esm)) if path}
    if copy and not encoders:
        raise click.UsageError("--copy copies encoders; name them with --esm and --dnabert.")
    from virnucpro.bundle.assemble import import_head

    made = import_head(head, out, chunk, encoders, copy=copy)
    for line in made.found:
        click.echo(escaped(line), err=True)
    click.echo(f"{out}: {made.bundle.provenance}; sha256 {made.bundle.sha256}", err=True)
