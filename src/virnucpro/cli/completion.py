"""What a shell may offer for a bundle."""

import rich_click as click
from click.shell_completion import CompletionItem


def bundle_names(
    _context: click.Context, _parameter: click.Parameter, begun: str
) -> list[CompletionItem]:
    """Bundles that are here, by all their names; else directories."""
    from virnucpro.bundle import aliases_of, downloaded_bundles, embedded_bundles, load
    from virnucpro.errors import BundleError

    names = []
    for path in [bundle.path for bundle in embedded_bundles()] + downloaded_bundles():
        try:
            names += [path.name, *aliases_of(load(path))]
        except BundleError:  # a damaged one
            continue
    found = [CompletionItem(name) for name in sorted(names) if name.startswith(begun)]
    return found or [CompletionItem(begun, type="dir")]
