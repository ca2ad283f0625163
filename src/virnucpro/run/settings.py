"""Settings of a run: five frozen groups, each declared by the room that they are for.

Importing this loads no torch.
"""

from collections.abc import Sequence
from dataclasses import dataclass, field, fields, replace
from pathlib import Path
from typing import Any

from virnucpro.bundle import DEFAULT_BUNDLE
from virnucpro.bundle.manifest import Bundle
from virnucpro.bundle.prescreen import Scoring
from virnucpro.devices.compute import Compute
from virnucpro.errors import SettingsError
from virnucpro.frames import STANDARD
from virnucpro.reads.files import Reading
from virnucpro.results import sample
from virnucpro.results.files import RunFiles
from virnucpro.results.outputs import Outputs


@dataclass(frozen=True, slots=True)
class Part:
    """One of several parts of a run: the blocks whose number is number - 1 modulo of."""

    number: int
    of: int

    @classmethod
    def parse(cls, text: str) -> "Part":
        """Return the part that a text as 2/5 names. Raises SettingsError."""
        number, _, of = text.partition("/")
        if not (number.isdecimal() and of.isdecimal() and 1 <= int(number) <= int(of)):
            raise SettingsError(f"--part must be i/n with 1 <= i <= n, as 2/5, got {text!r}")
        return cls(int(number), int(of))

    def has(self, block: int) -> bool:
        """Return whether the block of this number belongs to the part."""
        return block % self.of == self.number - 1

    def __str__(self) -> str:
        return f"{self.number}/{self.of}"


@dataclass(frozen=True, slots=True, kw_only=True)
class Restart:
    """Settings of what becomes of an earlier run in the folder, and of the blocks of this one.

    resume: False refuses an unfinished run. force: replace an earlier run. rerun: go on with an
    unfinished run of this input, and replace a run of another. keep_blocks: finished blocks stay
    for a later run with, say, another threshold. journal: folder for the blocks; None: the run
    directory. part: score these blocks alone, for a later merge; None: all.
    """

    resume: bool = True
    force: bool = False
    rerun: bool = False
    keep_blocks: bool = False
    journal: Path | None = None
    part: Part | None = None


_GROUPS = {
    "reading": Reading,
    "scoring": Scoring,
    "compute": Compute,
    "outputs": Outputs,
    "restart": Restart,
}
# Where pipes are spooled is up to the run, not to whoever starts it.
_NO_OPTIONS = {"spool"}
_PATHS = {"mates", "reference", "journal", "negatives"}


@dataclass(frozen=True, slots=True, kw_only=True)
class Settings:
    """The settings that a user asked for. command: the command line, for run.json."""

    inputs: tuple[Path, ...]
    out: Path
    bundle: str = DEFAULT_BUNDLE
    reading: Reading = field(default_factory=Reading)
    scoring: Scoring = field(default_factory=Scoring)
    compute: Compute = field(default_factory=Compute)
    outputs: Outputs = field(default_factory=Outputs)
    restart: Restart = field(default_factory=Restart)
    command: tuple[str, ...] = ()

    @classmethod
    def of(
        cls,
        inputs: Path | str | Sequence[Path | str],
        out: Path | str,
        bundle: str | Path = DEFAULT_BUNDLE,
        command: Sequence[str] = (),
        **options: Any,  # noqa: ANN401
    ) -> "Settings":
        """Return settings from options by name: whole groups, and fields of groups.

        A field wins over the same field of its group. Raises TypeError for an unknown option.
        """
        several = [inputs] if isinstance(inputs, Path | str) else inputs
        groups = {name: options.pop(name, kind()) for name, kind in _GROUPS.items()}
        for name, kind in _GROUPS.items():
            known = {f.name for f in fields(kind)} - _NO_OPTIONS
            given = {option: options.pop(option) for option in known & options.keys()}
            values = {f.name: getattr(groups[name], f.name) for f in fields(kind)} | given
            for path in _PATHS & values.keys():
                values[path] = None if values[path] is None else Path(values[path])
            if isinstance(values.get("part"), str):
                values["part"] = Part.parse(values["part"])
            groups[name] = kind(**values)
        if options:
            raise TypeError(f"unknown options: {', '.join(sorted(options))}")
        return cls(
            inputs=tuple(Path(path) for path in several),
            out=Path(out),
            bundle=str(bundle),
            command=tuple(command),
            **groups,
        )

    def check(self) -> None:
        """Raise SettingsError for what no machine could do."""
        if not self.inputs:
            raise SettingsError("no input was named; give one file or more")
        if self.restart.rerun and not self.restart.resume:
            raise SettingsError("--rerun and --no-resume contradict each other; give one of them")
        self.reading.check(len(self.inputs))
        self.scoring.check()
        self.compute.check()
        self.outputs.check()

    def check_for(self, bundle: Bundle) -> None:
        """Raise SettingsError for what this bundle does not have."""
        if self.outputs.save_embeddings and bundle.kind != "frames":
            raise SettingsError(
                f"--save-embeddings needs a bundle of kind frames, and {bundle.name} is of kind "
                f"{bundle.kind}, which embeds no frame; leave it out, or choose another bundle"
            )
        if self.scoring.genetic_code != str(STANDARD) and bundle.kind != "frames":
            raise SettingsError(
                f"--genetic-code is for bundles that read open frames, and {bundle.name} is of "
                f"kind {bundle.kind}, which reads through every stop; leave it out"
            )
        if self.outputs.save_embeddings and self.scoring.prescreen is not None:
            raise SettingsError(
                "--save-embeddings and --prescreen contradict each other, since chunks that end "
                "there are not embedded; give one of them"
            )
        sample.check(bundle.calibration, self.outputs.question)

    @property
    def files(self) -> RunFiles:
        """The files of the run."""
        journal = self.restart.journal
        elsewhere = journal is not None and journal.resolve() != self.out.resolve()
        return RunFiles(
            self.out,
            self.outputs.prefix,
            journal if elsewhere else None,
            self.outputs.tables == "gz",
        )

    @property
    def spooling(self) -> Reading:
        """The settings of how inputs are read, with pipes spooled in the run directory."""
        return replace(self.reading, spool=self.out)

    def as_dict(self) -> dict[str, Any]:
        """Return the options by name as plain values, for run.json."""
        options = {
            f.name: getattr(group, f.name)
            for group in (self.reading, self.scoring, self.compute, self.outputs, self.restart)
            for f in fields(group)
            if f.name not in _NO_OPTIONS
        }
        return {
            name: str(value) if isinstance(value, Path | Part) else value
            for name, value in options.items()
        }


def option_names() -> set[str]:
    """Return the names of all options that Settings.of takes."""
    return {f.name for kind in _GROUPS.values() for f in fields(kind)} - _NO_OPTIONS
