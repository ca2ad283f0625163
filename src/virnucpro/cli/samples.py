"""A run for each sample of a sheet, one after the other in one process."""

from dataclasses import replace
from pathlib import Path

from virnucpro.cli.terminal import Screen, complain
from virnucpro.errors import SettingsError, VirnucproError
from virnucpro.run import Kept, run
from virnucpro.samples import Sample, read_sheet
from virnucpro.settings import Settings

# Exit codes from the best to the worst.
CODES = (0, 2, 3, 1, 4)


def run_samples(sheet: Path, settings: Settings, screen: Screen) -> int:
    """Runs every sample; returns the worst exit code.

    A sample that fails does not stop the others. Raises VirnucproError for a sheet that is wrong,
    before anything is run, and what interrupts a run.
    """
    samples = settings_of_samples(sheet, settings)
    kept: Kept = {}
    codes: list[int] = []
    for number, sample in enumerate(samples, 1):
        screen.line(f"sample {number} of {len(samples)}: {sample.sample}")
        codes.append(_run(sample, screen, kept))
    failed = [str(sample.sample) for sample, code in zip(samples, codes, strict=True) if code]
    if failed:
        screen.line(f"not complete: {', '.join(failed)}")
    many = f"{len(samples):,} sample{'s' * (len(samples) > 1)}"
    screen.line(f"{many}: results are in {settings.out}, a folder for each")
    return max(codes, key=CODES.index)


def settings_of_samples(sheet: Path, settings: Settings) -> list[Settings]:
    """Those of each sample. Raises SettingsError, and InputError for a sheet that is wrong."""
    if settings.inputs or settings.sample is not None or settings.mates is not None:
        raise SettingsError("--sample-sheet names inputs, samples and mates; leave these out")
    samples = [_of(sample, settings) for sample in read_sheet(sheet)]
    for sample in samples:
        try:
            sample.check()
        except SettingsError as error:
            raise SettingsError(f"{sheet}: sample {sample.sample}: {error}") from error
    return samples


def _of(sample: Sample, settings: Settings) -> Settings:
    """What the sheet's row makes of the settings."""
    return replace(
        settings,
        inputs=(sample.path,),
        mates=sample.mates,
        sample=sample.name,
        out=settings.out / sample.name,
        journal=None if settings.journal is None else settings.journal / sample.name,
    )


def _run(settings: Settings, screen: Screen, kept: Kept) -> int:
    try:
        outcome = run(settings, screen, kept)
    except VirnucproError as error:
        complain(f"sample {settings.sample}: {error}")
        return error.exit_code
    if outcome.error is not None:
        complain(f"sample {settings.sample}: {outcome.error}")
    return outcome.exit_code
