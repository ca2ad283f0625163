"""The errors that a user can meet, and the exit code that each kind ends a run with.

A message is one sentence that names the file, line or record and says what to do. This module
knows nothing of files, devices or the command line.
"""

from collections.abc import Iterable, Sequence
from difflib import get_close_matches
from pathlib import Path
from typing import ClassVar

_GOES_ON = "the same command goes on from the blocks that are finished"


class VirnucproError(Exception):
    """A failure whose message is meant for the user; every other exception is a bug."""

    exit_code: ClassVar[int] = 1


class InputError(VirnucproError):
    """An input that cannot be read as what it should be."""

    def __init__(
        self, message: str, path: Path | str | None = None, line: int | None = None
    ) -> None:
        self.path = path
        self.line = line
        name = "standard input" if str(path) == "-" else path
        where = "" if path is None else f"{name}: " if line is None else f"{name}, line {line}: "
        super().__init__(where + message)

    @classmethod
    def of(cls, errors: Sequence["InputError"]) -> "InputError":
        """One error that says all of several."""
        if len(errors) == 1:
            return errors[0]
        return cls(f"{len(errors)} faults, which end the run: {'; '.join(map(str, errors))}")


class StreamBroken(InputError):
    """An input that ended early; every contig before the break was delivered and is kept."""


class BundleError(VirnucproError):
    """A bundle that is missing, damaged, or not for this use."""


class SettingsError(VirnucproError):
    """Settings that contradict each other or this machine."""

    exit_code = 2


class ResumeError(VirnucproError):
    """A run directory that cannot be used."""

    exit_code = 3


class FolderError(VirnucproError):
    """A folder that cannot be written to, as opposed to a disk that is full."""

    exit_code = 3


class OtherRun(ResumeError):
    """A run directory that holds a run of another input, bundle, precision or version."""


class BlockError(ResumeError):
    """A finished block that is missing, damaged or of another run; it can be computed again."""


class DeviceError(VirnucproError):
    """A device that is missing or failed."""


class WorkerError(VirnucproError):
    """A process of ours that ended before its work was done."""


class OutOfMemory(VirnucproError):
    """Memory that one row alone, or a block on the host, did not fit in."""

    exit_code = 4


class Terminated(BaseException):
    """SIGTERM or SIGHUP: ends a run as Ctrl-C does, with an exit code of its own.

    No KeyboardInterrupt: click turns that into an Abort that no longer says what it was.
    """

    exit_code: ClassVar[int] = 143


def meant(name: str, known: Iterable[str]) -> str:
    """Return a question, in brackets, for the known name nearest to this one; empty if none is."""
    found = get_close_matches(name.lower(), [*known], n=1)
    return f" (did you mean {found[0]}?)" if found else ""


def install_extra(name: str) -> str:
    """Return what to do where an extra is missing; the package is not on PyPI."""
    return f"install it with `pip install '.[{name}]'` in the folder of the source code"


def ending(error: BaseException) -> tuple[str, int, str]:
    """Return status, exit code and sentence of a run that this error ends."""
    if isinstance(error, VirnucproError):
        return "failed", error.exit_code, str(error)
    if isinstance(error, Terminated):
        return "interrupted", error.exit_code, f"terminated by a signal; {_GOES_ON}"
    if isinstance(error, KeyboardInterrupt):
        return "interrupted", 130, f"interrupted from the keyboard; {_GOES_ON}"
    if isinstance(error, MemoryError):
        return "failed", OutOfMemory.exit_code, "out of memory"
    return "failed", 1, f"{type(error).__name__}: {error}"
