"""Published weights on disk -> a module on its device, in its dtype, tensor by tensor.

Strict: a name that no rule covers, a name that is missing, and a shape that differs are errors that
name them. A source of tensors is any iterator of (name, tensor); here it is one safetensors file.
Nothing is unpickled. This module knows no encoder's formulas.
"""

import json
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeVar

import torch
from safetensors import SafetensorError, safe_open
from torch import Tensor, nn

from virnucpro.encoders.layouts import Layout
from virnucpro.errors import BundleError

CONFIG = "config.json"
WEIGHTS = "model.safetensors"
TOKENIZER = "tokenizer.json"
_SHOWN = 6

T = TypeVar("T", int, float, bool)
M = TypeVar("M", bound=nn.Module)


@dataclass(frozen=True, slots=True)
class Published:
    """Where an encoder lies on disk, and its config as published."""

    weights: Path
    config: Mapping[str, Any]
    tokenizer: Path | None

    def tensors(self) -> Iterator[tuple[str, Tensor]]:
        """Names and tensors, one at a time."""
        return open_tensors(self.weights)


def find_published(path: Path | str) -> Published:
    """An encoder in a published directory, or in one safetensors file with its config inside.

    A directory holds config.json, model.safetensors and, for DNABERT-S, tokenizer.json; a file
    holds the config as JSON in its metadata, under "config". Raises BundleError.
    """
    path = Path(path)
    if not path.is_dir():
        return Published(path, _config_inside(path), None)
    for name in (CONFIG, WEIGHTS):
        if not (path / name).is_file():
            raise BundleError(f"{path}: holds no {name}; an encoder's directory needs it")
    tokenizer = path / TOKENIZER
    config = _config(path / CONFIG, (path / CONFIG).read_bytes())
    return Published(path / WEIGHTS, config, tokenizer if tokenizer.is_file() else None)


def _config_inside(path: Path) -> Mapping[str, Any]:
    with _opened(path) as weights:
        text = (weights.metadata() or {}).get("config")
    if text is None:
        raise BundleError(
            f'{path}: has no "config" in its metadata; give the directory that also holds {CONFIG}.'
        )
    return _config(path, text)


def _config(path: Path, text: str | bytes) -> Mapping[str, Any]:
    try:
        config = json.loads(text)
    except ValueError as error:
        raise BundleError(f"{path}: its config is not JSON ({error})") from error
    if not isinstance(config, dict):
        raise BundleError(f"{path}: its config is not a JSON object")
    return config


def field_of(config: Mapping[str, Any], name: str, kind: type[T]) -> T:
    """A field of a published config; BundleError where it is missing or of another kind."""
    value = config.get(name)
    if kind is float and type(value) is int:
        return kind(value)
    if type(value) is not kind or (kind is int and value < 1):
        raise BundleError(f"the config's {name} is {value!r}, not a usable {kind.__name__}")
    return value


def _opened(path: Path) -> Any:  # noqa: ANN401 (safe_open has no public type)
    """A safetensors file, opened; BundleError where it is missing, truncated or damaged."""
    try:
        return safe_open(path, framework="pt")
    except OSError as error:
        raise BundleError(f"{path}: cannot be read ({error.strerror or error})") from error
    except SafetensorError as error:
        raise BundleError(
            f"{path}: not a safetensors file, truncated or damaged ({error}); fetch it again"
        ) from error


def open_tensors(path: Path) -> Iterator[tuple[str, Tensor]]:
    """The names and tensors of a safetensors file, read one at a time; raises BundleError."""
    with _opened(path) as weights:
        for name in weights.keys():  # noqa: SIM118 (it is no mapping)
            yield name, weights.get_tensor(name)


def load(
    build: Callable[[], M],
    published: Published,
    layouts: Sequence[Layout],
    dtype: torch.dtype,
    device: torch.device,
) -> M:
    """The module that build makes, with the published weights, frozen, in eval mode.

    It is built without memory of its own; each tensor is copied once, straight into dtype on
    device. Buffers keep their own dtype. Raises BundleError naming what is missing, unexpected or
    misshapen.
    """
    with torch.device("meta"):
        module = build()
    layout = _layout_of(published, layouts)
    filling = _Filling(module, layout, dtype, device, published.weights)
    for name, tensor in published.tensors():
        filling.take(name, tensor)
    module.load_state_dict(filling.finished(), assign=True)
    return module.to(device).requires_grad_(False).eval()


def _layout_of(published: Published, layouts: Sequence[Layout]) -> Layout:
    with _opened(published.weights) as weights:
        names = list(weights.keys())
    for layout in layouts:
        if any(layout.short(name) == layout.mark for name in names):
            return layout
    marks = " or ".join(layout.mark for layout in layouts)
    raise BundleError(f"{published.weights}: not the weights of this encoder; it holds no {marks}")


class _Filling:
    """Tensors of a module as they fill up, and every complaint on the way."""

    def __init__(
        self,
        module: nn.Module,
        layout: Layout,
        dtype: torch.dtype,
        device: torch.device,
        path: Path,
    ) -> None:
        self.layout, self.device, self.path = layout, device, path
        self.wanted = module.state_dict()
        buffers = dict(module.named_buffers())
        self.dtypes = {
            name: tensor.dtype if name in buffers else dtype for name, tensor in self.wanted.items()
        }
        self.filled: dict[str, Tensor] = {}
        self.places: dict[str, set[int]] = {name: set() for name in self.wanted}
        self.unexpected: list[str] = []
        self.misshapen: list[str] = []

    def take(self, name: str, tensor: Tensor) -> None:
        """Copies one published tensor to its place."""
        if self.layout.ignores(name):
            return
        part = self.layout.part(name)
        if part is None or part.stem not in self.wanted:
            self.unexpected.append(name)
            return
        rows, *rest = self.wanted[part.stem].shape
        shape = (rows // part.of, *rest)
        if tuple(tensor.shape) != shape or not tensor.is_floating_point():
            found = f"{str(tensor.dtype).removeprefix('torch.')} {tuple(tensor.shape)}"
            self.misshapen.append(f"{name} is {found} instead of {shape}")
            self.places[part.stem].add(part.place)
            return
        target = self._target(part.stem, part.place, part.of)
        if part.place in self.places[part.stem]:
            self._same(name, target, tensor)
        target.copy_(tensor)
        self.places[part.stem].add(part.place)

    def _target(self, ours: str, place: int, of: int) -> Tensor:
        if ours not in self.filled:
            self.filled[ours] = torch.empty(
                self.wanted[ours].shape, dtype=self.dtypes[ours], device=self.device
            )
        return self.filled[ours].chunk(of)[place]

    def _same(self, name: str, target: Tensor, tensor: Tensor) -> None:
        """Layers may each hold a copy of one tensor, as of inv_freq, but not different ones."""
        if not torch.equal(target, tensor.to(target)):
            raise BundleError(f"{self.path}: {name} is there twice, with different values")

    def finished(self) -> dict[str, Tensor]:
        """The whole state; what an optional name lacks keeps the module's own value."""
        complaints = [
            *_complaint("lacks", self._missing()),
            *_complaint("holds what no rule expects:", self.unexpected),
            *_complaint("has other shapes than its config says:", self.misshapen),
        ]
        if complaints:
            raise BundleError(
                f"{self.path}: does not fit its config as {self.layout.name} weights: it "
                f"{'; it '.join(complaints)}"
            )
        return {name: self.filled.get(name, own) for name, own in self.wanted.items()}

    def _missing(self) -> Iterator[str]:
        for ours in self.wanted.keys() - set(self.layout.optional):
            for place, theirs in enumerate(self.layout.sources(ours)):
                if place not in self.places[ours]:
                    yield theirs


def _complaint(verb: str, names: Iterable[str]) -> list[str]:
    listed = sorted(names)
    if not listed:
        return []
    more = f" and {len(listed) - _SHOWN} more" if len(listed) > _SHOWN else ""
    return [f"{verb} {', '.join(listed[:_SHOWN])}{more}"]
