"""run.json as one typed value: the record of a run, written and read by this module alone.

run.schema.json beside it describes the file. Fields are only ever added, so unknown fields of a
file are ignored.
"""

import sys
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field, fields
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, Self, TypeVar

import numpy as np

from virnucpro import __version__
from virnucpro.errors import VirnucproError
from virnucpro.reads import Source
from virnucpro.results.counts import Counts
from virnucpro.results.run_schema import checked_document
from virnucpro.storage.atomic import disk_errors, write_json

SCHEMA_VERSION = 1
# The status of a run that has come to its end.
FINISHED = ("complete", "partial")
RUNNING = "running"
# A part of a run is finished, and virnucpro merge makes the results.
PART = "part"

Kind = TypeVar("Kind")


@dataclass(frozen=True, slots=True, kw_only=True)
class InputRecord:
    """An input as it was read; see run.schema.json."""

    path: str
    mates: str | None = None
    sample: str
    format: str = ""
    sha256: str | None
    bytes: int
    records: int
    whole: bool = True
    warning: str | None = None
    left_out: Mapping[str, int] | None = None

    @classmethod
    def of(cls, source: Source) -> Self:
        """Return the record of an input, as far as it was read."""
        mates = [str(file.path) for file in source.files[1:]]
        whole = source.whole and bool(source.seen.sha256)
        return cls(
            path=str(source.path),
            mates=mates[0] if mates else None,
            sample=source.sample,
            format=source.files[0].form,
            sha256=source.sha256 or None,
            bytes=source.bytes_read if source.streamed else source.size_bytes,
            records=source.seen.records,
            whole=whole,
            warning="; ".join(f"{path}: {told}" for path, told in source.warnings) or None,
            left_out=source.left_out if whole else None,
        )


@dataclass(frozen=True, slots=True, kw_only=True)
class DeviceRecord:
    """The device that a run computed on. kind: cpu or cuda; threads: of the CPU."""

    kind: str
    name: str
    precision: str
    threads: int | None


@dataclass(frozen=True, slots=True, kw_only=True)
class BlockCounts:
    """Blocks of a run so far; reused ones were finished by an earlier process.

    damaged: files of an earlier process that could not be used.
    """

    total: int = 0
    reused: int = 0
    damaged: int = 0


@dataclass(frozen=True, slots=True, kw_only=True)
class RunRecord:
    """The content of run.json; see run.schema.json.

    bundle: as Bundle.about gives it. outputs: sha256 of each result by name, None before it is
    written. output_bytes: sizes of the same. counts: None where no tables were written. timings:
    seconds by stage of the run. workers: shares of several workers. part: what a merge must know of
    a part. parts: of a merged run, with their hosts and times. worth: how many of the calls to
    expect to be wrong; None without a calibration. negatives: path and sha256 of --negatives.
    prescreen: the bundle that looked first, its cuts, and how many chunks ended there.
    """

    status: str
    exit_code: int | None
    error: str | None
    versions: Mapping[str, str | None]
    command: Sequence[str]
    inputs: Sequence[InputRecord]
    bundle: Mapping[str, Any] | None
    settings: Mapping[str, Any]
    device: DeviceRecord | None
    attention: Mapping[str, str]
    fingerprint: Mapping[str, str]
    blocks: BlockCounts
    outputs: Mapping[str, str | None]
    output_bytes: Mapping[str, int] = field(default_factory=dict)
    counts: Counts | None
    timings: Mapping[str, float]
    batches: Mapping[str, Mapping[str, Any]]
    memory: Mapping[str, Any]
    started: str
    finished: str | None
    workers: Sequence[Mapping[str, Any]] = ()
    part: Mapping[str, Any] | None = None
    parts: Sequence[Mapping[str, Any]] = ()
    worth: Mapping[str, Any] | None = None
    negatives: Mapping[str, Any] | None = None
    prescreen: Mapping[str, Any] | None = None

    @property
    def is_finished(self) -> bool:
        """Return whether the run has come to its end, with all results."""
        return self.status in FINISHED

    @property
    def samples(self) -> list[str]:
        """The sample of each input."""
        return [entry.sample for entry in self.inputs]

    @property
    def finished_at(self) -> datetime | None:
        """The time when the run ended, in UTC."""
        return None if self.finished is None else datetime.fromisoformat(self.finished)

    def write(self, path: Path, scratch: Path | None = None) -> None:
        """Put run.json into its place, whole or not at all. Raises VirnucproError."""
        document = {"schema_version": SCHEMA_VERSION, **asdict(self)}
        document["counts"] = None if self.counts is None else self.counts.as_dict()
        for name in ("workers", "part", "parts", "prescreen"):
            if not document[name]:
                del document[name]
        write_json(path, document, scratch)

    @classmethod
    def read(cls, path: Path, raising: type[VirnucproError]) -> Self | None:
        """Read run.json; None if there is none.

        raising: the kind of error for a file that is damaged or was not written by virnucpro.
        """
        with disk_errors(path.parent):
            if not path.exists():
                return None
        try:
            return cls._of(checked_document(path.read_bytes()))
        except (OSError, ValueError) as error:
            raise raising(
                f"{path}: this file is damaged, or was not written by virnucpro ({error}); remove "
                "it, or choose another folder"
            ) from error

    @classmethod
    def _of(cls, values: Mapping[str, Any]) -> Self:
        """Return the record in a document. Raises ValueError for another document."""
        given: dict[str, Any] = {f.name: values.get(f.name) for f in fields(cls)}
        given["output_bytes"] = given["output_bytes"] or {}
        given["inputs"] = [_made(InputRecord, entry, "inputs") for entry in given["inputs"]]
        for name in ("workers", "parts"):
            given[name] = given[name] or ()
        given["device"] = given["device"] and _made(DeviceRecord, given["device"], "device")
        given["blocks"] = _made(BlockCounts, given["blocks"], "blocks")
        given["counts"] = given["counts"] and _made(Counts, given["counts"], "counts")
        return cls(**given)


def _made(kind: type[Kind], values: Mapping[str, Any], name: str) -> Kind:
    """Return a dataclass with the fields that a mapping gives it. Raises ValueError."""
    known = {f.name for f in fields(kind)}  # type: ignore[arg-type]
    try:
        return kind(**{key: each for key, each in values.items() if key in known})
    except (TypeError, KeyError, AssertionError) as error:
        raise ValueError(f"its {name} cannot be used: {error}") from error


def versions() -> dict[str, str | None]:
    """Return the versions of what computes."""
    torch = sys.modules.get("torch")
    return {
        "virnucpro": __version__,
        "python": sys.version.split()[0],
        "torch": None if torch is None else str(torch.__version__),
        "numpy": np.__version__,
    }


def now() -> datetime:
    """Return the time of day in UTC."""
    return datetime.now(UTC)


def instant(time: datetime) -> str:
    """Return a time as run.json has it, to the second."""
    return time.isoformat(timespec="seconds")
