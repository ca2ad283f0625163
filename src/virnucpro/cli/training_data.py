"""virnucpro train fetch | make: genomes from a RefSeq release, and a training set from genomes."""

from pathlib import Path
from typing import Any

import rich_click as click

from virnucpro.cli.terminal import Paper, Screen, tables_in_parts
from virnucpro.cli.values import FILE, NAME, SHARE
from virnucpro.errors import meant

VIRAL = "viral"


class _GroupPath(click.ParamType):  # type: ignore[type-arg]  # older versions have none
    name = "group=path"

    def convert(
        self,
        value: Any,  # noqa: ANN401
        param: click.Parameter | None,
        ctx: click.Context | None,
    ) -> tuple[str, Path]:
        """Return group and path. Raises BadParameter."""
        group, equals, path = str(value).partition("=")
        if not (equals and group.strip() and path):
            self.fail(f"{value!r} is not GROUP=PATH, as bacteria=genomes/ecoli.gbff", param, ctx)
        return group.strip(), Path(path)


@click.command()
@click.option(
    "-o", "--out", type=FILE, metavar="DIR", help="Download to here, a folder for each group."
)
@click.option("--list", "only_list", is_flag=True, help="Only list what would be downloaded.")
@click.option(
    "--group",
    "groups",
    multiple=True,
    type=NAME,
    help="Only this group; default: viral and the seven cellular groups.",
)
@click.option(
    "--files",
    type=click.IntRange(min=1),
    default=5,
    show_default=True,
    help="Most files of each folder of the release, evenly spread over it.",
)
@click.option(
    "--address",
    type=NAME,
    help="Of a RefSeq release or a mirror of one; default: NCBI's.",
)
@click.option(
    "--pause",
    type=click.FloatRange(min=0),
    default=1.0,
    show_default=True,
    help="Seconds between two requests.",
)
@click.option("-q", "--quiet", is_flag=True, help="Print warnings and errors only.")
@click.option("--no-progress", is_flag=True, help="Print no progress.")
def fetch(
    out: Path | None,
    only_list: bool,
    groups: tuple[str, ...],
    files: int,
    address: str | None,
    pause: float,
    quiet: bool,
    no_progress: bool,
) -> None:
    """Download annotated genomes of a RefSeq release: viral, and seven cellular groups.

    One connection at a time. A download that was stopped goes on when the command is run again;
    every file is checked by the MD5 sum that the release states, or else by its size. Proxies are
    taken from the environment (https_proxy).

    \b
    virnucpro train fetch --list
    virnucpro train fetch -o refseq
    virnucpro train make refseq -o set-300
    """
    from virnucpro.train.release import GROUPS, RELEASE, download_release, read_release

    if (out is None) != only_list:
        raise click.UsageError("give either -o DIR, or --list to see what would be downloaded.")
    if unknown := [group for group in groups if group not in GROUPS]:
        nearest = meant(unknown[0], GROUPS)
        raise click.UsageError(
            f"--group {unknown[0]} is unknown{nearest}; choose of {', '.join(GROUPS)}."
        )
    with Screen(quiet=quiet, bar=not no_progress) as screen:
        chosen = [group for group in GROUPS if group in groups] or list(GROUPS)
        release = read_release(address or RELEASE, chosen, files, pause, screen)
        number = release.number or "unknown"
        screen.line(
            f"release {number} at {release.address}: {len(release.files):,} files, "
            f"{release.size_bytes / 1e9:.2f} GB"
        )
        if out is not None:
            download_release(release, out, pause, screen)
            screen.line(f"wrote {out}; make a training set with: virnucpro train make {out} -o DIR")
    if only_list:
        rows = [
            (
                file.place,
                "unknown" if file.size_bytes is None else f"{file.size_bytes / 1e6:,.1f}",
                file.md5 or "not stated",
            )
            for file in release.files
        ]
        paper = Paper()
        paper.print(*tables_in_parts(("file", "MB", "md5"), rows, paper.width))


@click.command()
@click.argument("folder", type=FILE, required=False)
@click.option_panel("Genomes", options=["--viral", "--group"])
@click.option_panel(
    "Training set",
    options=["--chunk", "--overlap", "--chunks", "--held-out", "--identity", "--search", "--seed"],
)
@click.option_panel("Output", options=["--out", "--threads", "--quiet", "--no-progress"])
@click.option(
    "--viral", multiple=True, type=FILE, metavar="PATH", help="File or folder of viral genomes."
)
@click.option(
    "--group",
    "cellular",
    multiple=True,
    type=_GroupPath(),
    metavar="GROUP=PATH",
    help="File or folder of genomes of another group, as bacteria=PATH; once for each.",
)
@click.option(
    "-o", "--out", type=FILE, required=True, metavar="DIR", help="Directory of the new set."
)
@click.option(
    "--chunk",
    "chunk_nt",
    type=click.IntRange(min=60),
    default=300,
    show_default=True,
    help="Length of a chunk, nt; the published models have 300 and 500.",
)
@click.option(
    "--overlap",
    type=SHARE,
    default=0.5,
    show_default=True,
    help="A frame counts as coding if it has this share of --chunk in common with an annotated CDS "
    "of its strand and phase.",
)
@click.option(
    "--chunks",
    type=click.IntRange(min=2),
    default=500_000,
    show_default=True,
    help="Most chunks of each side, train and val together.",
)
@click.option(
    "--held-out",
    type=SHARE,
    default=0.1,
    show_default=True,
    help="Share for val, in whole families (viruses) and genera (others).",
)
@click.option(
    "--identity",
    type=SHARE,
    default=0.8,
    show_default=True,
    help="Chunks of val go whose protein is as identical as this to one of train.",
)
@click.option(
    "--search",
    type=click.Choice(["auto", "diamond", "mmseqs", "9-mers"]),
    default="auto",
    show_default=True,
    help="What finds such proteins; auto: diamond or mmseqs where on PATH, else shared 9-mers.",
)
@click.option("--seed", type=click.IntRange(min=0), default=0, show_default=True, help="Of chance.")
@click.option("--threads", type=click.IntRange(min=1), default=1, help="Of diamond or mmseqs.")
@click.option("-q", "--quiet", is_flag=True, help="Print warnings and errors only.")
@click.option("--no-progress", is_flag=True, help="Print no progress.")
def make(
    folder: Path | None,
    viral: tuple[Path, ...],
    cellular: tuple[tuple[str, Path], ...],
    out: Path,
    threads: int,
    quiet: bool,
    no_progress: bool,
    **settings: Any,  # noqa: ANN401
) -> None:
    """Make a training set from annotated genomes: GenBank, or FASTA with GFF3.

    FOLDER holds a folder for each group, as `train fetch` leaves them, among them viral. Genomes
    are cut into chunks; those with an open frame that an annotated CDS confirms are drawn, alike
    from groups and from families or genera.

    \b
    virnucpro train make refseq -o set-300
    virnucpro train make --viral phages.gbff --group bacteria=hosts/ -o set-500 --chunk 500
    """
    from virnucpro.train.release import fetched
    from virnucpro.train.training_set import SetSettings, make_set

    inputs: dict[str, list[Path]] = {}
    if folder is not None:
        if not folder.is_dir():
            raise click.UsageError(
                f"{folder} is not a folder; give a folder of groups, or --viral and --group."
            )
        inputs = fetched(folder) or {
            path.name: [path]
            for path in sorted(folder.iterdir())
            if path.is_dir() and not path.name.startswith(".")
        }
    for group, path in (*((VIRAL, path) for path in viral), *cellular):
        inputs.setdefault(group, []).append(path)
    if VIRAL not in inputs or len(inputs) < 2:
        raise click.UsageError(
            "viral genomes and those of another group are needed; give a folder that holds the "
            "folder viral and others, or --viral PATH and --group GROUP=PATH."
        )
    with Screen(quiet=quiet, bar=not no_progress) as screen:
        make_set(inputs, SetSettings(**settings), out, screen, threads)
