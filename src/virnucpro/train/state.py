"""The state of a training on disk: tensors and JSON in one file, whole or not at all."""

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from safetensors import SafetensorError, safe_open
from safetensors.torch import save
from torch import Tensor
from torch.optim import Optimizer

from virnucpro.storage.atomic import disk_errors, write_atomic

TRAINING = "training"
OPTIMISER = "optimiser"


def prefixed(prefix: str, tensors: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Tensors under prefix.name."""
    return {f"{prefix}.{name}": tensor for name, tensor in tensors.items()}


def under(prefix: str, tensors: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """The inverse of prefixed, out of many tensors."""
    start = f"{prefix}."
    return {k.removeprefix(start): v for k, v in tensors.items() if k.startswith(start)}


def optimiser_tensors(optimiser: Optimizer) -> dict[str, Tensor]:
    """Moments and step counts, by parameter."""
    found: dict[str, Tensor] = {}
    for parameter, values in optimiser.state_dict()["state"].items():
        found |= prefixed(f"{OPTIMISER}.{parameter}", values)
    return found


def load_optimiser(optimiser: Optimizer, tensors: Mapping[str, Tensor]) -> None:
    """Takes up what optimiser_tensors gave."""
    state: dict[int, dict[str, Tensor]] = {}
    for name, tensor in under(OPTIMISER, tensors).items():
        parameter, _, what = name.partition(".")
        state.setdefault(int(parameter), {})[what] = tensor
    optimiser.load_state_dict({**optimiser.state_dict(), "state": state})


def write_state(path: Path, tensors: Mapping[str, Tensor], training: Mapping[str, Any]) -> None:
    """Writes a state over an older one. Raises VirnucproError where the disk refuses."""
    plain = {name: tensor.detach().cpu().contiguous() for name, tensor in tensors.items()}
    write_atomic(path, save(plain, {TRAINING: json.dumps(training)}))


def read_state(path: Path) -> tuple[dict[str, Tensor], dict[str, Any]] | None:
    """Tensors and the JSON beside them; None for a file that is none of ours, or damaged.

    Raises VirnucproError if the file cannot be read at all.
    """
    try:
        with disk_errors(path), safe_open(path, framework="pt") as file:
            training = json.loads((file.metadata() or {})[TRAINING])
            return {name: file.get_tensor(name) for name in file.keys()}, training  # noqa: SIM118
    except (SafetensorError, KeyError, ValueError):
        return None
