"""Copies of published weights as they lie in memory: our names, one dtype, one safetensors file.

A copy is known by the digests of all files that it was made from, by its dtype and by the
version of this program; its own digest is part of its name, so that a damaged one is not used.
One process writes it, under a name of its own until it is whole; others read the source meanwhile.
That a copy cannot be kept is a warning, never a failure.
"""

import fcntl
import hashlib
import json
import logging
import os
import secrets
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeVar

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from virnucpro import __version__
from virnucpro.encoders.weights.layouts import Layout, converted
from virnucpro.encoders.weights.load import Opened, Published, find_published, load, open_published
from virnucpro.errors import BundleError
from virnucpro.storage.digests import file_digest

FOLDER = "weights"
_SUFFIX = ".safetensors"
_LOG = logging.getLogger(__name__)
# safetensors' names of dtypes.
_NAMES = {torch.float32: "F32", torch.float16: "F16", torch.bfloat16: "BF16"}

M = TypeVar("M", bound=nn.Module)


def load_through(
    cache: Path | None,
    build: Callable[[Mapping[str, Any]], M],
    published: Published,
    layouts: Sequence[Layout],
    dtype: torch.dtype,
    device: torch.device,
) -> M:
    """As weights.load, from a converted copy in the folder cache, which is made where it lacks.

    build: a published config -> the module. cache: None keeps no copy and looks for none.
    """
    copy = None if cache is None else _Copy.of(cache, published, dtype)
    kept = None if copy is None else copy.find()
    if kept is not None:
        try:
            opened = open_published(find_published(kept))
            ours = converted(layouts[0])
            return load(lambda: build(opened.config), opened, (ours,), dtype, device)
        except BundleError as error:
            _LOG.warning("warning: a converted copy is not used: %s", error)
    opened = open_published(published)
    module = load(lambda: _built(build, opened), opened, layouts, dtype, device)
    if copy is not None:
        copy.keep(module.state_dict(), opened.config)
    return module


def _built(build: Callable[[Mapping[str, Any]], M], opened: Opened) -> M:
    try:
        return build(opened.config)
    except BundleError as error:
        raise BundleError(f"{opened.path}: {error}") from error


@dataclass(frozen=True, slots=True)
class _Copy:
    """Where the copy of one source in one dtype lies, or would lie.

    stem: the beginning of its name.
    """

    folder: Path
    stem: str

    @classmethod
    def of(cls, cache: Path, published: Published, dtype: torch.dtype) -> "_Copy":
        """Digests the source. Raises BundleError where it cannot be read."""
        digests = [[path.name, file_digest(path)] for path in published.files]
        source = hashlib.sha256(json.dumps([__version__, digests]).encode()).hexdigest()
        return cls(cache / FOLDER, f"{source[:32]}.{_NAMES[dtype]}")

    def find(self) -> Path | None:
        """The copy, if it is there and whole."""
        for path in sorted(self.folder.glob(f"{self.stem}.*{_SUFFIX}")):
            try:
                digest = file_digest(path)
            except BundleError:  # gone meanwhile, or of another user
                continue
            if path.name == self._named(digest):
                return path
        return None

    def keep(self, state: Mapping[str, Tensor], config: Mapping[str, Any]) -> None:
        """Writes the copy, unless another process is at it; leaves no part of one behind."""
        try:
            self.folder.mkdir(parents=True, exist_ok=True)
            with self._alone() as alone:
                if alone and self.find() is None:
                    self._write(state, config)
        except OSError as error:
            _LOG.warning(
                "warning: %s: no converted copy of the weights can be kept there (%s)",
                self.folder,
                error.strerror or error,
            )

    @contextmanager
    def _alone(self) -> Iterator[bool]:
        """Whether this process is the one that writes; a lock ends with the process."""
        with (self.folder / f".{self.stem}.lock").open("ab") as lock:
            try:
                fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError:
                yield False
            else:
                yield True

    def _write(self, state: Mapping[str, Tensor], config: Mapping[str, Any]) -> None:
        unfinished = f".{self.stem}.*.part"
        for left in self.folder.glob(unfinished):
            left.unlink()
        part = self.folder / unfinished.replace("*", secrets.token_hex(8))
        try:
            digest = _write_safetensors(part, state, {"config": json.dumps(config)})
            whole = self.folder / self._named(digest)
            part.replace(whole)
        finally:
            part.unlink(missing_ok=True)
        for path in self.folder.glob(f"{self.stem}.*{_SUFFIX}"):
            if path != whole:
                path.unlink()

    def _named(self, digest: str) -> str:
        return f"{self.stem}.{digest}{_SUFFIX}"


def _write_safetensors(path: Path, state: Mapping[str, Tensor], metadata: Mapping[str, str]) -> str:
    """Writes tensors one by one, also from another device; the sha256 of the file."""
    header: dict[str, Any] = {"__metadata__": dict(metadata)}
    end = 0
    for name, tensor in state.items():
        begin, end = end, end + tensor.nbytes
        header[name] = {
            "dtype": _NAMES[tensor.dtype],
            "shape": list(tensor.shape),
            "data_offsets": [begin, end],
        }
    text = json.dumps(header).encode()
    text += b" " * (-len(text) % 8)
    digest = hashlib.sha256()
    with path.open("xb") as file:
        for content in (len(text).to_bytes(8, "little"), text, *state.values()):
            data = _bytes(content) if isinstance(content, Tensor) else bytes(content)
            digest.update(data)
            file.write(data)
        file.flush()
        os.fsync(file.fileno())
    return digest.hexdigest()


def _bytes(tensor: Tensor) -> memoryview:
    """The numbers of a tensor as they lie in memory, not copied on the CPU."""
    flat: NDArray[np.uint8] = tensor.cpu().contiguous().flatten().view(torch.uint8).numpy()
    return flat.data
