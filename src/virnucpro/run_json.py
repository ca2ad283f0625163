"""What run.json says of a run besides what it counted: settings, versions, inputs, how it ended."""

import hashlib
import sys
from collections.abc import Sequence
from dataclasses import asdict
from typing import Any

import numpy as np

from virnucpro import __version__
from virnucpro.devices import Device
from virnucpro.engine import Engine
from virnucpro.errors import OutOfMemory, Terminated, VirnucproError
from virnucpro.reads import Source
from virnucpro.settings import Settings


def settings_entry(settings: Settings, engine: Engine, **resolved: object) -> dict[str, Any]:
    """What was asked for, with what it came to where that is known."""
    asked = asdict(settings)
    for elsewhere in ("inputs", "out", "bundle", "command"):
        del asked[elsewhere]
    of_engine = {"pin_memory": engine.pin_memory, "cuda_streams": engine.cuda_streams}
    paths = {name: str(asked[name]) for name in ("journal", "mates", "reference") if asked[name]}
    return asked | of_engine | resolved | paths


def device_entry(device: Device, precision: str) -> dict[str, Any]:
    """Where it computed."""
    return {
        "kind": device.kind,
        "name": device.name,
        "precision": precision,
        "threads": device.threads,
    }


def inputs_digest(sources: Sequence[Source]) -> dict[str, str]:
    """The sha256 over those of all inputs, in order, where each was read to its end."""
    digests = [source.sha256 for source in sources]
    if not all(digests):
        return {}
    return {"inputs": hashlib.sha256("\n".join(digests).encode()).hexdigest()}


def versions_entry() -> dict[str, str | None]:
    """Of what computed."""
    torch = sys.modules.get("torch")
    return {
        "virnucpro": __version__,
        "python": sys.version.split()[0],
        "torch": None if torch is None else str(torch.__version__),
        "numpy": np.__version__,
    }


def ending(error: BaseException) -> tuple[str, int, str]:
    """Status, exit code and sentence of a run that this error ends."""
    if isinstance(error, VirnucproError):
        return "failed", error.exit_code, str(error)
    if isinstance(error, Terminated):
        return "interrupted", error.exit_code, "terminated by a signal"
    if isinstance(error, KeyboardInterrupt):
        return "interrupted", 130, "interrupted from the keyboard"
    if isinstance(error, MemoryError):
        return "failed", OutOfMemory.exit_code, "out of memory"
    return "failed", 1, f"{type(error).__name__}: {error}"
