"""Names of bundles that a shell offers."""

from collections.abc import Iterable

import rich_click as click
from click.shell_completion import CompletionItem


def bundle_names(
    _context: click.Context, _parameter: click.Parameter, begun: str
) -> list[CompletionItem]:
    """Bundles that are here, by all their names; else directories."""
    return _offered(_here(), begun) or [CompletionItem(begun, type="dir")]


def published_names(
    _context: click.Context, _parameter: click.Parameter, begun: str
) -> list[CompletionItem]:
    """Models that can be fetched, here or not."""
    return _offered(_published(), begun)


def all_names(
    _context: click.Context, _parameter: click.Parameter, begun: str
) -> list[CompletionItem]:
    """Bundles that are here or can be fetched; else directories."""
    found = _offered({*_here(), *_published()}, begun)
    return found or [CompletionItem(begun, type="dir")]


def _offered(names: Iterable[str], begun: str) -> list[CompletionItem]:
    return [CompletionItem(name) for name in sorted(names) if name.startswith(begun)]


def _here() -> list[str]:
    from virnucpro.bundle import aliases_of, downloaded_bundles, embedded_bundles, load
    from virnucpro.errors import BundleError

    names = []
    for path in [bundle.path for bundle in embedded_bundles()] + downloaded_bundles():
        try:
            names += [path.name, *aliases_of(load(path))]
        except BundleError:  # a damaged one
            continue
    return names


def _published() -> list[str]:
    from virnucpro.bundle.catalogue import read_catalogue

    return read_catalogue().names
