"""A run for each sample of a sheet, one after the other in one process."""

import errno
import os
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from virnucpro.errors import InputError, SettingsError, VirnucproError
from virnucpro.progress import Position, Progress, several
from virnucpro.reads import open_sources
from virnucpro.reads.inputs import shapes_of
from virnucpro.reads.sample_sheet import SheetRow, read_sheet
from virnucpro.run.predict import run
from virnucpro.run.runners import LoadedClassifiers
from virnucpro.run.settings import Settings
from virnucpro.storage.atomic import disk_errors

# Exit codes from the best to the worst.
CODES = (0, 2, 3, 1, 4)


def run_samples(
    sheet: Path, settings: Settings, progress: Progress, complain: Callable[[str], None]
) -> int:
    """Run every sample and return the worst exit code. complain: takes the error of each.

    A sample that fails does not stop the others. Raises VirnucproError for a sheet that is wrong,
    for faults that show in the first records of its files, and for a folder that cannot be written
    to, before anything is run, and what interrupts a run.
    """
    samples = settings_of_samples(sheet, settings)
    _check_inputs(samples)
    _check_folder(settings.out, samples)
    loaded: LoadedClassifiers = {}
    shown: set[str] = set()
    codes: dict[str, int] = {}
    done = 0
    for number, sample in enumerate(samples, 1):
        name = str(sample.reading.sample)
        shows = _OfSample(progress, shown, f"sample {number} of {len(samples)}: {name}")
        if number > 1:
            shows.head()
        codes[name], has_results = _run(sample, shows, complain, loaded)
        done += has_results
    if failed := [name for name, code in codes.items() if code]:
        progress.line(f"not complete: {', '.join(failed)}")
    if done:
        count = (
            f"{'' if done == len(samples) else f'{done:,} of '}{several(len(samples), 'sample')}"
        )
        progress.line(f"{count}: results are in {settings.out}, a folder for each")
    return max(codes.values(), key=CODES.index)


def settings_of_samples(sheet: Path, settings: Settings) -> list[Settings]:
    """Return settings for each sample.

    Raises SettingsError, and InputError for a sheet that is wrong.
    """
    reading = settings.reading
    given = [str(path) for path in settings.inputs]
    given += [f"--sample {reading.sample}"] if reading.sample is not None else []
    given += [f"--mates {reading.mates}"] if reading.mates is not None else []
    if given:
        raise SettingsError(
            f"--sample-sheet names inputs, samples and mates; leave out {' '.join(given)}"
        )
    samples = [_of(sample, settings) for sample in read_sheet(sheet)]
    for sample in samples:
        try:
            sample.check()
        except SettingsError as error:
            raise SettingsError(f"{sheet}: sample {sample.reading.sample}: {error}") from error
    return samples


@dataclass(slots=True)
class _OfSample(Progress):
    """The progress of one of several samples: a heading, and only lines that none before it had.

    The heading of the first sample waits for a line of its own, so that lines common to all stand
    above it. shown: the lines of earlier samples that are common to all.
    """

    progress: Progress
    shown: set[str]
    heading: str

    def common(self, text: str, *, detail: bool = False) -> None:
        """Pass on a line, unless another sample has."""
        if text not in self.shown:
            self.shown.add(text)
            self.progress.common(text, detail=detail)

    def line(self, text: str) -> None:
        """Pass on one line."""
        self.head()
        self.progress.line(text)

    def detail(self, text: str) -> None:
        """Pass on one line for people who want every detail."""
        self.head()
        self.progress.detail(text)

    def advance(self, position: Position) -> None:
        """Pass on the position."""
        self.progress.advance(position)

    def head(self) -> None:
        """Pass on the heading, once."""
        if self.heading:
            self.progress.line(self.heading)
            self.heading = ""


def _check_inputs(samples: Sequence[Settings]) -> None:
    """Raise InputError that says what is wrong with all samples, as far as first records tell."""
    faults: list[InputError] = []
    for sample in samples:
        found: list[InputError] = []
        reading = sample.reading
        try:
            sources = open_sources(sample.inputs, reading.sample, reading, found)
            shapes_of(sources, found)
        except InputError as error:
            found.append(error)
        faults += [InputError(f"sample {reading.sample}: {error}") for error in found]
    if faults:
        raise InputError.of(faults)


def _check_folder(out: Path, samples: Sequence[Settings]) -> None:
    """Raise FolderError, once for all samples, if no folder of theirs could be made in this one.

    Finished runs may lie in one that cannot be written to.
    """
    if all(sample.out.is_dir() for sample in samples):
        return
    with disk_errors(out):
        out.mkdir(parents=True, exist_ok=True)
        if not os.access(out, os.W_OK | os.X_OK):
            raise PermissionError(errno.EACCES, os.strerror(errno.EACCES))


def _of(sample: SheetRow, settings: Settings) -> Settings:
    """Return the settings for a row of the sheet."""
    journal = settings.restart.journal
    return replace(
        settings,
        inputs=(sample.path,),
        reading=replace(settings.reading, mates=sample.mates, sample=sample.name),
        out=settings.out / sample.name,
        restart=replace(settings.restart, journal=journal and journal / sample.name),
    )


def _run(
    settings: Settings,
    progress: _OfSample,
    complain: Callable[[str], None],
    loaded: LoadedClassifiers,
) -> tuple[int, bool]:
    """Run a sample; return its exit code, and whether it came as far as results."""
    name = settings.reading.sample
    try:
        outcome = run(settings, progress, loaded)
    except VirnucproError as error:
        progress.head()
        complain(f"sample {name}: {error}")
        return error.exit_code, False
    if outcome.error is not None:
        complain(f"sample {name}: {outcome.error}")
    return outcome.exit_code, True
