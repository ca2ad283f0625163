"""virnucpro train kmer | encoder | head; make and fetch are in training_data.py."""

from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

import rich_click as click

from virnucpro.cli.labelled import OPTIONS, labelled_options, read_labelled
from virnucpro.cli.terminal import Screen
from virnucpro.cli.training_data import fetch, make
from virnucpro.cli.values import FILE, NAME
from virnucpro.progress import WARNING, Position, several

if TYPE_CHECKING:
    from virnucpro.bundle.manifest import Bundle

Command = TypeVar("Command", bound=Callable[..., Any])
SHORTEST_CHUNK_NT = 60
LITTLE_BETTER_THAN_GUESSING = 0.55
OUTPUT = ["--out", "--name", "--description", "--chunk", "--seed", "--quiet", "--no-progress"]


@click.group()
@click.command_panel("Data", commands=["fetch", "make"])
@click.command_panel("Bundles", commands=["head", "encoder", "kmer"])
def train() -> None:
    """Make a bundle from labelled sequences, or labelled sequences from annotated genomes."""


train.add_command(fetch)
train.add_command(make)


def _bundle_options(command: Command) -> Command:
    """Adds what every kind of training asks for."""
    for option in (
        click.option("--no-progress", is_flag=True, help="Print no progress."),
        click.option("-q", "--quiet", is_flag=True, help="Print warnings and errors only."),
        click.option(
            "--seed",
            type=click.IntRange(min=0),
            default=0,
            show_default=True,
            help="On a CPU, equal seeds give equal bundles.",
        ),
        click.option(
            "--chunk",
            "chunk_nt",
            type=click.IntRange(min=SHORTEST_CHUNK_NT),
            default=500,
            show_default=True,
            help="Length of a chunk, nt.",
        ),
        click.option("--description", default="", help="One line for `bundles list`."),
        click.option("--name", type=NAME, help="Name of the bundle; default: the directory's."),
        click.option(
            "-o",
            "--out",
            type=FILE,
            required=True,
            help="Directory of the new bundle.",
        ),
    ):
        command = option(command)
    return labelled_options(command)


def _tell(screen: Screen, auroc: float, bundle: "Bundle", of: str = "") -> None:
    screen.line(f"AUROC {auroc:.4f}{of} on the slice of the sequences that was held out by unit")
    if auroc < LITTLE_BETTER_THAN_GUESSING:
        screen.line(
            f"{WARNING}this bundle hardly tells the sides apart: guessing has an AUROC of 0.5; "
            "train on more sequences, and look whether the sides are what you think"
        )
    screen.line(f"wrote {bundle.path}, sha256 {bundle.sha256}")


@train.command()
@click.option_panel("Labelled sequences", options=OPTIONS)
@click.option_panel("Output", options=OUTPUT)
@_bundle_options
@click.option("-k", type=click.IntRange(4, 6), default=5, show_default=True, help="Word length.")
@click.option(
    "--fragments",
    type=click.IntRange(min=1000),
    default=100_000,
    show_default=True,
    help="How many to fit on.",
)
def kmer(
    out: Path,
    name: str | None,
    description: str,
    chunk_nt: int,
    seed: int,
    k: int,
    fragments: int,
    quiet: bool,
    no_progress: bool,
    **labelled: Any,  # noqa: ANN401
) -> None:
    """Fit the k-mer linear model: numpy only, in seconds, the baseline of any other bundle.

    \b
    virnucpro train kmer --positive viral.fasta --negative host.fasta -o mine
    """
    from virnucpro.bundle.sketch import add_sketch
    from virnucpro.bundle.write import check_free
    from virnucpro.train.kmer_fit import KmerSettings, fit_kmer, write_kmer_bundle

    settings = KmerSettings(k=k, fragments=fragments, seed=seed).up_to(chunk_nt)
    with Screen(quiet=quiet, bar=not no_progress) as screen:
        check_free(out)
        data = read_labelled(**labelled, stages=screen)
        fit = fit_kmer(
            data.contigs,
            settings,
            data.sha256,
            lambda what, share: screen.advance(Position(share, 1, what)),
        )
        bundle = write_kmer_bundle(
            out,
            fit,
            name=name or out.name,
            description=description,
            chunk_nt=chunk_nt,
            validated_nt=settings.shortest_nt,
        )
        bundle = add_sketch(bundle, (contig.sequence for contig in data.contigs))
        _tell(screen, fit.record["slice_auroc"], bundle)


@train.command()
@click.option_panel("Labelled sequences", options=OPTIONS)
@click.option_panel("Encoders", options=["--dnabert", "--esm", "--copy", "--precision", "--gpus"])
@click.option_panel("Training", options=["--recipe", "--epochs", "--threads", "--work"])
@click.option_panel("Output", options=OUTPUT)
@_bundle_options
@click.option(
    "--dnabert",
    type=FILE,
    required=True,
    help="Directory of DNABERT-S: config.json, model.safetensors, tokenizer.json.",
)
@click.option(
    "--esm",
    type=FILE,
    required=True,
    help="Directory of an ESM-2 of any size: config.json, model.safetensors.",
)
@click.option("--copy", is_flag=True, help="Copy the encoders into the bundle.")
@click.option(
    "--precision",
    type=click.Choice(["auto", "fp32", "bf16", "fp16"]),
    default="auto",
    show_default=True,
    help="What the encoders compute in; auto: bf16 on a GPU that has it, fp32 on a CPU.",
)
@click.option(
    "--gpus",
    type=NAME,
    metavar="all|none|N,...",
    help="Where the encoders compute: all, none, or numbers of GPUs as 0,1; default: the first, if "
    "there is one. The head is fitted on the first.",
)
@click.option(
    "--recipe",
    type=click.Choice(["adam", "published"]),
    default="adam",
    show_default=True,
    help="adam: batches of 256, rate 0.0005. published: SGD in batches of 32, rate 0.0002, "
    "momentum 0.9, times 0.85 after every 10 epochs. Both stop after 5 epochs without a better one "
    "on units held out, and keep the best.",
)
@click.option(
    "--epochs",
    type=click.IntRange(min=1),
    default=100,
    show_default=True,
    help="Most passes over the frames.",
)
@click.option("--threads", type=click.IntRange(min=1), help="CPU threads; default: as for predict.")
@click.option(
    "--work",
    type=FILE,
    help="Keeps embeddings and state here, so that a second call goes on from them.",
)
def head(
    out: Path,
    name: str | None,
    description: str,
    chunk_nt: int,
    seed: int,
    dnabert: Path,
    esm: Path,
    copy: bool,
    precision: str,
    gpus: str | None,
    recipe: str,
    epochs: int,
    threads: int | None,
    work: Path | None,
    quiet: bool,
    no_progress: bool,
    **labelled: Any,  # noqa: ANN401
) -> None:
    """Fit the published head on the open frames of two frozen encoders.

    Each open frame is embedded once. Of a training set by `train make` those are fitted on that an
    annotated CDS confirms, of other sequences all.

    \b
    virnucpro train head --dnabert DNABERT --esm ESM -o mine \\
          --positive viral.fasta --negative host.fasta
    """
    from virnucpro.bundle.sketch import add_sketch
    from virnucpro.bundle.write import check_free
    from virnucpro.devices.choice import devices_for, precision_for
    from virnucpro.devices.machine import use_threads
    from virnucpro.encoders import load_dnabert_s, load_esm2
    from virnucpro.train.head_fit import fit_head, write_frames_bundle
    from virnucpro.train.head_settings import HeadSettings

    chosen = HeadSettings.published if recipe == "published" else HeadSettings
    settings = chosen(chunk_nt=chunk_nt, epochs=epochs, seed=seed)
    use_threads(threads)
    with Screen(quiet=quiet, bar=not no_progress) as screen:
        check_free(out)
        devices = devices_for(gpus)
        precision = precision_for(precision, devices[0], bf16_agrees=False)
        first, *others = [
            (load_dnabert_s(dnabert, device, precision), load_esm2(esm, device, precision))
            for device in devices
        ]
        data = read_labelled(**labelled, stages=screen)
        fit = fit_head(data.contigs, settings, *first, work, screen, data.sha256, others)
        bundle = write_frames_bundle(
            out, fit, name or out.name, description, dnabert, esm, copy=copy
        )
        bundle = add_sketch(bundle, (contig.sequence for contig in data.contigs))
        _tell(screen, fit.record["slice_auroc"], bundle)


@train.command()
@click.option_panel("Labelled sequences", options=OPTIONS)
@click.option_panel(
    "Training",
    options=["--steps", "--batch-nt", "--max-minutes", "--device", "--threads", "--work"],
)
@click.option_panel("Output", options=OUTPUT)
@_bundle_options
@click.option(
    "--steps",
    type=click.IntRange(min=1),
    default=6500,
    show_default=True,
    help="Steps of the whole training.",
)
@click.option(
    "--batch-nt",
    type=click.IntRange(min=1000),
    default=320_000,
    show_default=True,
    help="Letters of a step; on a CPU a step of that many takes tens of seconds.",
)
@click.option(
    "--max-minutes",
    type=click.FloatRange(min=0),
    help="Stop at the end of the step then and keep the state; the same command goes on. The "
    "protein k-mers, which follow the last step, do not count.",
)
@click.option(
    "--device", type=NAME, default="cpu", show_default=True, help="As torch names it: cpu, cuda:0."
)
@click.option("--threads", type=click.IntRange(min=1), help="CPU threads; default: as for predict.")
@click.option(
    "--work",
    type=FILE,
    help="Folder of the training's state; default: the output directory's name with .training.",
)
def encoder(
    out: Path,
    name: str | None,
    description: str,
    chunk_nt: int,
    seed: int,
    steps: int,
    batch_nt: int,
    max_minutes: float | None,
    device: str,
    threads: int | None,
    work: Path | None,
    quiet: bool,
    no_progress: bool,
    **labelled: Any,  # noqa: ANN401
) -> int:
    """Train a small encoder from scratch, end to end with its head, as the embedded bundles were.

    Exits 1 when --max-minutes ended it; the same command then goes on from its state.

    \b
    virnucpro train encoder --positive viral.fasta --negative host.fasta -o mine
    """
    from virnucpro.bundle.sketch import add_sketch
    from virnucpro.bundle.write import check_free
    from virnucpro.devices.machine import use_threads
    from virnucpro.devices.out_of_memory import computing
    from virnucpro.encoders.precision import device_of
    from virnucpro.train.encoder_fit import FitProgress, fit_encoder, write_chunk_bundle
    from virnucpro.train.encoder_settings import EncoderSettings
    from virnucpro.train.judge import scorer_of
    from virnucpro.train.protein_kmers_fit import KmerSettings, fit_protein_kmers

    settings = EncoderSettings(steps=steps, batch_nt=batch_nt, seed=seed).up_to(chunk_nt)
    use_threads(threads)
    place = device_of(device)
    work = work or out.with_name(f"{out.name}.training")
    with Screen(quiet=quiet, bar=not no_progress) as screen:
        check_free(out)

        def tell(now: FitProgress) -> None:
            if now.judging:
                note = f"step {now.step:,} of {several(now.steps, 'step')}, judging it on the slice"
                screen.advance(Position(now.step, None, note))
                return
            area = "" if now.auroc is None else f", slice AUROC {now.auroc:.4f}"
            screen.advance(Position(now.step, now.steps, f"loss {now.loss:.4f}{area}"))

        def collected(done: int, units: int) -> None:
            if done == units:
                screen.advance(Position(done, None, "weighing protein k-mers on the slice"))
            else:
                screen.advance(Position(done, units, f"{done:,} of {several(units, 'unit')}"))

        data = read_labelled(**labelled, stages=screen)
        screen.line(f"training in {work}, {several(steps, 'step')} of {batch_nt:,} nt")
        fit = fit_encoder(
            data.contigs,
            settings,
            place,
            work,
            tell,
            data_sha256=data.sha256,
            max_minutes=max_minutes,
        )
        if not fit.finished:
            screen.line(f"time is up; the same command goes on from {fit.state}")
            return 1
        screen.line("collecting protein k-mers of the training data")
        of_slice = KmerSettings(
            lengths_nt=settings.slice_lengths_nt,
            seed=settings.cut_by,
            slice_fraction=settings.slice_fraction,
        )
        with computing("protein k-mers", place):
            kmers = fit_protein_kmers(
                data.contigs, scorer_of(fit.network, place), of_slice, collected
            )
        bundle = write_chunk_bundle(
            out,
            fit,
            name=name or out.name,
            description=description,
            chunk_nt=chunk_nt,
            validated_nt=min(settings.slice_lengths_nt),
            kmers=kmers,
        )
        areas = fit.record["slice_auroc"].values()
        bundle = add_sketch(bundle, (contig.sequence for contig in data.contigs))
        _tell(screen, sum(areas) / len(areas), bundle, " of the network, without k-mers,")
    return 0
