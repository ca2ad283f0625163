"""virnucpro calibrate."""

from pathlib import Path
from typing import Any

import rich_click as click

from virnucpro.cli.completion import bundle_names
from virnucpro.cli.labelled import OPTIONS, labelled_options, read_labelled, scoring_options
from virnucpro.cli.terminal import Screen
from virnucpro.cli.values import FILE, NAME
from virnucpro.progress import WARNING, Position


@click.command()
@click.argument("bundle", type=NAME, shell_complete=bundle_names)
@click.option_panel("Labelled sequences", options=OPTIONS)
@click.option_panel("Output", options=["--out", "--name", "--quiet", "--no-progress"])
@labelled_options
@click.option("-o", "--out", type=FILE, required=True, help="Directory of the new bundle.")
@click.option("--name", type=NAME, help="Name of the new bundle; default: the directory's.")
@scoring_options
@click.option("--seed", type=click.IntRange(min=0), default=0, show_default=True)
@click.option("-q", "--quiet", is_flag=True, help="Print warnings and errors only.")
@click.option("--no-progress", is_flag=True, help="Print no progress.")
def calibrate(
    bundle: str,
    out: Path,
    name: str | None,
    precision: str,
    threads: int | None,
    seed: int,
    quiet: bool,
    no_progress: bool,
    **labelled: Any,  # noqa: ANN401
) -> None:
    """Make a copy of a bundle whose scores are calibrated on your own sequences.

    The bundle must not have been trained on these sequences. A table beside a FASTA file with a
    column unit tells which belong together (a genome, a family). A fifth of the units measures the
    calibration; the final one is fitted on all. Groups of others (column group) become the choices
    of predict --host.

    \b
    virnucpro calibrate mini-500 --positive viral.fasta --negative soil.fasta -o soil-500
    virnucpro predict reads.fastq -o run --bundle soil-500 --prior auto --fdr 0.05
    """
    from virnucpro.bundle import load
    from virnucpro.bundle.write import check_free
    from virnucpro.devices.machine import use_threads
    from virnucpro.measure.doubts import CALIBRATED, known
    from virnucpro.train.calibrate import calibrated_copy, calibration_of, lengths_without_data
    from virnucpro.train.scored_records import windows_of

    found = load(bundle)
    check_free(out)
    if found.kind != "kmer":
        use_threads(threads)
    with Screen(quiet=quiet, bar=not no_progress) as screen:
        data = read_labelled(**labelled, stages=screen)
        for sentence in known(found, data.contigs, CALIBRATED):
            screen.line(f"{WARNING}{sentence}")
        windows = windows_of(data.contigs, found.chunk_nt, seed=seed)
        total, done = sum(len(window.contig.sequence) for window in windows), 0

        def advance(bases: int) -> None:
            nonlocal done
            done += bases
            screen.advance(Position(min(done, total), total, f"{done:,} nt scored"))

        calibration = calibration_of(found, windows, precision, seed=seed, progress=advance)
        if sentence := lengths_without_data(calibration):
            screen.line(f"{WARNING}{sentence}")
        made = calibrated_copy(found, out, name or out.name, calibration, data.sha256)
        error = calibration.measured["calibration_error"]
        screen.line(
            f"calibration error {error:.3f} on a fifth of the units; the default threshold is "
            f"{calibration.threshold:g}, at which {100 * calibration.worst_rate:g} % of "
            f"{calibration.worst_group} are called virus"
        )
        screen.line(f"wrote {made.path}, sha256 {made.sha256}")
