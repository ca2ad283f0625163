"""Published weights on disk -> a module on its device, in its dtype, tensor by tensor.

Strict: a name that no rule covers, a name that is missing, and a shape that differs are errors that
name them. Files are opened one after the other. This module knows nothing of encoders' formulas.
"""

from collections.abc import Callable, Collection, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from threading import Lock
from typing import Any, TypeVar

import torch
from torch import Tensor, nn
from torch.overrides import TorchFunctionMode

from virnucpro.devices.machine import each_on_one_thread
from virnucpro.encoders.weights.files import WeightFile, config_of_text, read_weights
from virnucpro.encoders.weights.layouts import Layout
from virnucpro.errors import BundleError
from virnucpro.storage.digests import refuse_irregular

CONFIG = "config.json"
TOKENIZER = "tokenizer.json"
# In a directory, the first of these that is there; an index names its shards.
WEIGHTS = ("model.safetensors", "pytorch_model.bin")
INDEX = ".index.json"
_SHOWN = 6
# Numbers that pass through fp32 at once: they stay in a core's cache.
_PIECE = 2**17

T = TypeVar("T", int, float, bool)
M = TypeVar("M", bound=nn.Module)


@dataclass(frozen=True, slots=True)
class Published:
    """The place of an encoder on disk: the files that it is read from.

    path: as it was named. index: None where the weights are one file. config: None where the
    weights hold it themselves.
    """

    path: Path
    weights: tuple[Path, ...]
    index: Path | None
    config: Path | None
    tokenizer: Path | None

    @property
    def files(self) -> tuple[Path, ...]:
        """All of them."""
        others = (self.index, self.config, self.tokenizer)
        return (*self.weights, *(path for path in others if path is not None))


@dataclass(frozen=True, slots=True)
class Opened:
    """Published weights: their config, all names, and their files, each read when it is its turn.

    path: what errors name.
    """

    path: Path
    config: Mapping[str, Any]
    names: Collection[str]
    shards: Iterable[WeightFile]


def find_published(path: Path | str) -> Published:
    """An encoder in a published directory, or in one file with its config inside.

    A directory holds config.json, one of WEIGHTS or the index of its shards, and, for DNABERT-S,
    tokenizer.json. A file is fair-esm's, or safetensors with the config as JSON in its metadata,
    under "config". Raises BundleError.
    """
    path = Path(path)
    if not path.is_dir():
        return Published(path, (path,), None, None, None)
    config, tokenizer = path / CONFIG, path / TOKENIZER
    if not config.is_file():
        raise BundleError(f"{path}: holds no {CONFIG}; an encoder's directory needs it")
    words = tokenizer if tokenizer.is_file() else None
    for name in WEIGHTS:
        if (path / name).is_file():
            return Published(path, (path / name,), None, config, words)
        index = path / f"{name}{INDEX}"
        if index.is_file():
            shards = sorted(set(_weight_map(index).values()))
            return Published(path, tuple(path / shard for shard in shards), index, config, words)
    raise BundleError(
        f"{path}: holds no {' or '.join(WEIGHTS)}, nor an index of their shards; an encoder's "
        "directory needs one"
    )


def _weight_map(index: Path) -> dict[str, str]:
    """Tensor -> shard, of an index whose shards are all there, beside it."""
    found = config_of_text(index, _text(index)).get("weight_map")
    if not isinstance(found, dict) or not found:
        raise BundleError(f"{index}: holds no weight_map, so it is not an index of weights")
    for shard in found.values():
        plain = isinstance(shard, str) and Path(shard).name == shard and "\\" not in shard
        if not plain or shard in ("", ".."):
            raise BundleError(
                f"{index}: names the shard {shard!r}, not the plain name of a file beside it; "
                "fetch the index again from its publisher"
            )
    missing = [s for s in sorted(set(found.values())) if not (index.parent / s).is_file()]
    if missing:
        raise BundleError(
            f"{index}: its shards {_listed(missing)} are not there; fetch them into {index.parent}"
        )
    return found


def _text(path: Path) -> bytes:
    refuse_irregular(path)
    try:
        return path.read_bytes()
    except OSError as error:
        raise BundleError(f"{path}: cannot be read ({error.strerror or error})") from error


def open_published(published: Published) -> Opened:
    """Open the weights; raise BundleError for files that are not weights or lack a config."""
    if published.index is not None:
        weight_map = _weight_map(published.index)
        assert published.config is not None
        config = config_of_text(published.config, _text(published.config))
        shards = _shards(published.index, weight_map)
        return Opened(published.index, config, weight_map, shards)
    [path] = published.weights
    file = read_weights(path)
    if published.config is not None:
        found: Mapping[str, Any] | None = config_of_text(published.config, _text(published.config))
    else:
        found = file.config
    if found is None:
        raise BundleError(
            f"{path}: holds no config of an encoder; give the directory that also holds {CONFIG}"
        )
    return Opened(path, found, list(file.tensors), [file])


def _shards(index: Path, weight_map: Mapping[str, str]) -> Iterator[WeightFile]:
    for shard in sorted(set(weight_map.values())):
        file = read_weights(index.parent / shard)
        promised = {name for name, place in weight_map.items() if place == shard}
        lacking = sorted(promised - file.tensors.keys())
        if lacking:
            raise BundleError(
                f"{file.path}: lacks {_listed(lacking)}, which {index.name} says it holds; fetch "
                "both again"
            )
        yield file


def field_of(config: Mapping[str, Any], name: str, kind: type[T]) -> T:
    """A field of a published config; BundleError where it is missing or of another kind."""
    value = config.get(name)
    if kind is float and type(value) is int:
        return kind(value)
    if type(value) is not kind or (kind is int and value < 1):
        raise BundleError(f"the config's {name} is {value!r}, not a usable {kind.__name__}")
    return value


def load_published(
    build: Callable[[Mapping[str, Any]], M],
    published: Published,
    layouts: Sequence[Layout],
    dtype: torch.dtype,
    device: torch.device,
) -> M:
    """Return the module that published weights describe; see load.

    build: makes the module from the published config.
    """
    opened = open_published(published)

    def built() -> M:
        try:
            return build(opened.config)
        except BundleError as error:
            raise BundleError(f"{opened.path}: {error}") from error

    return load(built, opened, layouts, dtype, device)


def load(
    build: Callable[[], M],
    opened: Opened,
    layouts: Sequence[Layout],
    dtype: torch.dtype,
    device: torch.device,
) -> M:
    """The module that build makes, with the published weights, frozen, in eval mode.

    It is built without memory of its own; each tensor is copied once, straight into dtype on
    device. Buffers keep their own dtype. Raises BundleError naming what is missing, unexpected or
    misshapen.
    """
    with torch.device("meta"), _Uninitialised():
        module = build()
    filling = _Filling(module, _layout_of(opened, layouts), dtype, device, opened.path)
    for shard in opened.shards:
        filling.take_all(shard.tensors)
    module.load_state_dict(filling.finished(), assign=True)
    return module.to(device).requires_grad_(False).eval()


class _Uninitialised(TorchFunctionMode):
    """Modules are built without random numbers.

    Without memory none are drawn, but torch then imports its compiler for them, which takes 2 s.
    """

    def __torch_function__(
        self,
        func: Callable[..., Any],
        types: Collection[type],
        args: tuple[Any, ...] = (),
        kwargs: Mapping[str, Any] | None = None,
    ) -> Any:  # noqa: ANN401
        kwargs = kwargs or {}
        if getattr(func, "__module__", "") == "torch.nn.init":
            return kwargs["tensor"] if "tensor" in kwargs else args[0]
        return func(*args, **kwargs)


def _layout_of(opened: Opened, layouts: Sequence[Layout]) -> Layout:
    for layout in layouts:
        if any(layout.short(name) == layout.mark for name in opened.names):
            return layout
    marks = " or ".join(layout.mark for layout in layouts)
    raise BundleError(f"{opened.path}: not the weights of this encoder; it holds no {marks}")


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
        self.again: list[tuple[str, Tensor, Tensor]] = []
        self.unexpected: list[str] = []
        self.misshapen: list[str] = []
        self.lock = Lock()

    def take_all(self, tensors: dict[str, Tensor]) -> None:
        """Copies published tensors to their places and empties the dict meanwhile.

        On the CPU by several threads: most of the time goes into the first touch of new memory.
        """

        def take(name: str) -> None:
            tensor = tensors.pop(name)
            target = self._target(name, tensor)
            if target is not None:
                _copy(target, tensor)

        if self.device.type == "cpu":
            each_on_one_thread(take, list(tensors))
        else:
            for name in list(tensors):
                take(name)

    def _target(self, name: str, tensor: Tensor) -> Tensor | None:
        """Return the tensor to copy a published one to, None where it is not to be copied."""
        if self.layout.ignores(name):
            return None
        part = self.layout.part(name)
        with self.lock:
            if part is None or part.stem not in self.wanted:
                self.unexpected.append(name)
                return None
            rows, *rest = self.wanted[part.stem].shape
            shape = (rows // part.of, *rest)
            seen = part.place in self.places[part.stem]
            self.places[part.stem].add(part.place)
            if tuple(tensor.shape) != shape or not tensor.is_floating_point():
                found = f"{str(tensor.dtype).removeprefix('torch.')} {tuple(tensor.shape)}"
                self.misshapen.append(f"{name} is {found} instead of {shape}")
                return None
            target = self._whole(part.stem).chunk(part.of)[part.place]
            if seen:
                self.again.append((name, target, tensor))
                return None
            return target

    def _whole(self, ours: str) -> Tensor:
        if ours not in self.filled:
            self.filled[ours] = torch.empty(
                self.wanted[ours].shape, dtype=self.dtypes[ours], device=self.device
            )
        return self.filled[ours]

    def finished(self) -> dict[str, Tensor]:
        """The whole state; what an optional name lacks keeps the module's own value.

        Layers may each hold a copy of one tensor, as of inv_freq, but not different ones.
        """
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
        for name, target, tensor in self.again:
            if not torch.equal(target, tensor.to(target)):
                raise BundleError(f"{self.path}: {name} is there twice, with different values")
        return {name: self.filled.get(name, own) for name, own in self.wanted.items()}

    def _missing(self) -> Iterator[str]:
        for ours in self.wanted.keys() - set(self.layout.optional):
            for place, theirs in enumerate(self.layout.sources(ours)):
                if place not in self.places[ours]:
                    yield theirs


@torch.no_grad()  # of each thread; a damaged file may say that its tensors want gradients
def _copy(target: Tensor, source: Tensor) -> None:
    """Copies on, rounded to the dtype of target."""
    if target.device.type != "cpu":
        # As it is: torch would round it here, before it sends it.
        target.copy_(source.to(target.device))
    elif {target.dtype, source.dtype} == {torch.float16, torch.bfloat16} and source.numel():
        # By way of fp32, which is exact: torch has vectors for both steps, and none for one.
        between = torch.empty(min(_PIECE, source.numel()), dtype=torch.float32)
        pieces = (torch.split(tensor.flatten(), _PIECE) for tensor in (source, target))
        for theirs, ours in zip(*pieces, strict=True):
            ours.copy_(between[: theirs.numel()].copy_(theirs))
    else:
        target.copy_(source)


def _complaint(verb: str, names: Iterable[str]) -> list[str]:
    listed = sorted(names)
    return [f"{verb} {_listed(listed)}"] if listed else []


def _listed(names: Sequence[str]) -> str:
    """Names with commas, the first few and how many more."""
    more = f" and {len(names) - _SHOWN} more" if len(names) > _SHOWN else ""
    return f"{', '.join(names[:_SHOWN])}{more}"
