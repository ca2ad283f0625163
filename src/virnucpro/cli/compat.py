"""virnucpro-compat: the command line of the published program's container, as pipelines call it."""

import os
import shutil
import sys
from pathlib import Path

import rich_click as click

from virnucpro import __version__
from virnucpro.cli.predict import predict
from virnucpro.cli.values import FILE, NAME
from virnucpro.errors import SettingsError

# What has no meaning here, and why.
WITHOUT_EFFECT = {
    "batch_size": "the head scores each batch of the encoders at once",
    "virnucpro_path": "models are bundles, found by name",
    "persistent_models": "a bundle is loaded once",
}


@click.command(context_settings={"help_option_names": ["-h", "--help"]})
@click.argument("input_file", metavar="INPUT", type=FILE)
@click.argument("output_tsv", metavar="OUTPUT.tsv", type=FILE)
@click.option(
    "--expected-length",
    type=click.IntRange(min=1),
    default=500,
    show_default=True,
    help="Chunk length in nt; refused if it is not the bundle's.",
)
@click.option(
    "--bundle",
    type=NAME,
    help="Name or directory of a bundle; default: virnucpro-300 or virnucpro-500, the published "
    "models, by --expected-length.",
)
@click.option("--use-gpu", is_flag=True, help="Fail without a GPU.")
@click.option("--no-gpu", is_flag=True, help="Compute on the CPU.")
@click.option("--gpus", type=NAME, metavar="N,...", help="Numbers of GPUs, as 0,1.")
@click.option("--parallel", is_flag=True, help="Compute on all GPUs.")
@click.option(
    "--esm-batch-size", type=click.IntRange(min=1), help="Most tokens of a batch of ESM-2."
)
@click.option(
    "--dnabert-batch-size", type=click.IntRange(min=1), help="Most tokens of a batch of DNABERT-S."
)
@click.option("--threads", type=click.IntRange(min=1), help="CPU threads.")
@click.option(
    "--resume", is_flag=True, help="Go on with an unfinished run instead of starting over."
)
@click.option("--allow-partial", is_flag=True, help="Exit 0, not 2, when some records failed.")
@click.option("--verbose", is_flag=True, help="Print a line after each block.")
@click.option("--batch-size", type=int, help="Without effect.")
@click.option("--persistent-models", is_flag=True, help="Without effect.")
@click.option("--virnucpro-path", type=FILE, help="Without effect.")
@click.version_option(__version__, message="virnucpro %(version)s")
def compat(
    input_file: Path,
    output_tsv: Path,
    expected_length: int,
    bundle: str | None,
    use_gpu: bool,
    no_gpu: bool,
    gpus: str | None,
    parallel: bool,
    esm_batch_size: int | None,
    dnabert_batch_size: int | None,
    threads: int | None,
    resume: bool,
    allow_partial: bool,
    verbose: bool,
    **ignored: object,
) -> int:
    """Classify a BAM, FASTA or FASTQ file with the arguments of the published program's container.

    Writes OUTPUT.tsv (a row a frame) and OUTPUT_highestscore.csv (a row a chunk) in its formats.
    All other results, report.html among them, are in the run directory OUTPUT.run. Exit codes are
    those of `virnucpro predict`, which this program runs.
    """
    if output_tsv.suffix != ".tsv":
        raise click.UsageError(f"OUTPUT.tsv must end in .tsv, got {output_tsv}.")
    if no_gpu and (use_gpu or gpus):
        raise click.UsageError("--no-gpu contradicts --use-gpu and --gpus; leave one out.")
    base = output_tsv.with_suffix("")
    run_dir = base.with_name(f"{base.name}.run")
    words = ["--bundle", _bundle(bundle, expected_length)]
    words += ["--rerun" if resume else "--force"]
    values = {
        "--gpus": _gpus(gpus, use_gpu=use_gpu, no_gpu=no_gpu, parallel=parallel),
        "--esm-batch-size": esm_batch_size,
        "--dnabert-batch-size": dnabert_batch_size,
        "--threads": threads,
    }
    words += [f"{name}={value}" for name, value in values.items() if value is not None]
    switches = {"--allow-partial": allow_partial, "--verbose": verbose}
    words += [name for name, given in switches.items() if given]
    for name in (name for name, value in ignored.items() if value):
        option = f"--{name.replace('_', '-')}"
        click.echo(f"{option} has no effect: {WITHOUT_EFFECT[name]}", err=True)
    code = _predict([*words, "-o", os.fspath(run_dir), "--", os.fspath(input_file)])
    if code in (0, 2):
        _place(run_dir / "prediction_results.txt", output_tsv)
        highest = base.with_name(f"{base.name}_highestscore.csv")
        _place(run_dir / "prediction_results_highestscore.csv", highest)
    return code


def _bundle(chosen: str | None, expected_length: int) -> str:
    """Return the bundle of a chunk length.

    Raises SettingsError if the one that was chosen has another, BundleError if it is not here.
    """
    from virnucpro.bundle import load
    from virnucpro.bundle.catalogue import read_catalogue

    known = sorted({known.chunk_nt for known in read_catalogue().bundles})
    if chosen is None and expected_length not in known:
        lengths = " or ".join(map(str, known))
        raise SettingsError(
            f"--expected-length must be {lengths} for a published model, got {expected_length}; "
            "name another bundle with --bundle"
        )
    name = chosen or f"virnucpro-{expected_length}"
    bundle = load(name)
    if bundle.chunk_nt != expected_length:
        raise SettingsError(
            f"--expected-length must be {bundle.chunk_nt} for the bundle {bundle.name}, got "
            f"{expected_length}; give {bundle.chunk_nt}, or a bundle of the other length with "
            "--bundle"
        )
    return name


def _gpus(gpus: str | None, *, use_gpu: bool, no_gpu: bool, parallel: bool) -> str | None:
    """Return the value of predict's --gpus; None where the first GPU is taken if there is one."""
    if gpus or no_gpu:
        return gpus or "none"
    if parallel:
        from virnucpro.devices.machine import gpu_count

        return "all" if use_gpu or gpu_count() else None
    return "0" if use_gpu else None


def _predict(words: list[str]) -> int:
    sys.argv = ["virnucpro", "predict", *words]  # run.json keeps the command
    return int(predict.main(words, prog_name="virnucpro predict", standalone_mode=False) or 0)


def _place(source: Path, target: Path) -> None:
    """Copy a file to its place, whole or not at all. Raises VirnucproError if it does not fit."""
    from virnucpro.storage.atomic import disk_errors

    with disk_errors(target.parent, "OUTPUT.tsv"):
        part = target.with_name(f".{target.name}.{os.getpid()}")
        try:
            shutil.copyfile(source, part)
            part.replace(target)
        finally:
            part.unlink(missing_ok=True)
