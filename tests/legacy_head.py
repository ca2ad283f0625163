"""Converts a pickled published head to safetensors without executing anything in it.

    python tests/legacy_head.py HEAD.pth HEAD.safetensors

The pickle may name only what such a file needs, and each name stands for something inert of ours:
torch is not asked to load anything. Both of torch's containers are read: zip archives, and the
older stream of pickles followed by the tensors' bytes.
"""

import io
import pickle
import struct
import sys
import zipfile
from collections import OrderedDict
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from safetensors.torch import save_file

from virnucpro.errors import BundleError
from virnucpro.head import Head

LEGACY_MAGIC = 0x1950A86A20F9469CFC6C
NAMES = {"hidden_layer": "hidden", "bn1": "norm", "output_layer": "output"}


class Module:
    """Stands for every module of the file; its state lands in __dict__."""


@dataclass(frozen=True)
class Lazy:
    """A tensor whose bytes are read later."""

    storage: tuple[str, str]
    offset: int
    shape: tuple[int, ...]
    stride: tuple[int, ...]


def rebuild_tensor(storage, offset, shape, stride, *_):
    return Lazy(storage, offset, tuple(shape), tuple(stride))


def rebuild_parameter(data, *_):
    return data


ALLOWED = {
    ("__main__", "MLPClassifier"): Module,
    ("torch.nn.modules.linear", "Linear"): Module,
    ("torch.nn.modules.batchnorm", "BatchNorm1d"): Module,
    ("torch.nn.modules.dropout", "Dropout"): Module,
    ("torch._utils", "_rebuild_parameter"): rebuild_parameter,
    ("torch._utils", "_rebuild_tensor_v2"): rebuild_tensor,
    ("torch", "FloatStorage"): "<f4",
    ("torch", "LongStorage"): "<i8",
    ("collections", "OrderedDict"): OrderedDict,
    ("__builtin__", "set"): set,
    ("builtins", "set"): set,
}


class HeadUnpickler(pickle.Unpickler):
    """Resolves the allowed names and refuses every other one by name."""

    def find_class(self, module, name):
        if (module, name) not in ALLOWED:
            raise BundleError(f"the head's pickle names {module}.{name}; nothing was executed.")
        return ALLOWED[module, name]

    def persistent_load(self, pid):
        if pid[0] == "module":
            return pid[1]
        _, dtype, key, *_ = pid
        return dtype, key


def read_zip(path):
    with zipfile.ZipFile(path) as archive:
        (name,) = (n for n in archive.namelist() if n.endswith("/data.pkl"))
        root = HeadUnpickler(io.BytesIO(archive.read(name))).load()
        folder = name.removesuffix("data.pkl") + "data/"
        return root, {
            n.removeprefix(folder): archive.read(n)
            for n in archive.namelist()
            if n.startswith(folder)
        }


def read_stream(path):
    with path.open("rb") as file:
        if HeadUnpickler(file).load() != LEGACY_MAGIC:
            raise BundleError(f"{path}: neither of torch's two containers.")
        HeadUnpickler(file).load()  # protocol
        HeadUnpickler(file).load()  # sizes of the writer's types
        reader = HeadUnpickler(file)
        root = reader.load()
        storages = {}
        sizes = {}
        for tensor in tensors_of(root).values():
            sizes[tensor.storage[1]] = np.dtype(tensor.storage[0]).itemsize
        for key in HeadUnpickler(file).load():
            (count,) = struct.unpack("<q", file.read(8))
            storages[key] = file.read(count * sizes[key])
        return root, storages


def tensors_of(module, prefix=""):
    """Lazy tensors of a module and those below it, by their dotted names."""
    state = module.__dict__
    found = {
        prefix + name: value
        for kind in ("_parameters", "_buffers")
        for name, value in state[kind].items()
        if value is not None
    }
    for name, child in state["_modules"].items():
        found |= tensors_of(child, f"{prefix}{name}.")
    return found


def array(tensor, storages):
    dtype, key = tensor.storage
    values = np.frombuffer(storages[key], dtype)
    count = int(np.prod(tensor.shape))
    return values[tensor.offset : tensor.offset + count].reshape(tensor.shape)


def convert(path):
    """The head in a published .pth file."""
    path = Path(path)
    root, storages = read_zip(path) if zipfile.is_zipfile(path) else read_stream(path)
    state = {}
    for name, tensor in tensors_of(root).items():
        module, _, last = name.partition(".")
        values = np.array(array(tensor, storages))
        state[f"{NAMES[module]}.{last}"] = torch.from_numpy(values)
    hidden, features = state["hidden.weight"].shape
    head = Head(features, hidden)
    head.load_state_dict(state)
    assert root.__dict__["_modules"]["bn1"].__dict__["eps"] == head.norm.eps
    return head.eval()


def save_head(head: Head, path: Path | str) -> None:
    """Writes a head as safetensors."""
    save_file({name: tensor.contiguous() for name, tensor in head.state_dict().items()}, path)


if __name__ == "__main__":
    save_head(convert(sys.argv[1]), sys.argv[2])
