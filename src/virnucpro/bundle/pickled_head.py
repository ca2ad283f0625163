"""A pickled head as plain arrays, in one file, so that its safety can be read in one go.

Nothing in the file is executed. A pickle is a program for a small stack machine. Its instructions
are read one by one, and followed on values of our own: a name is a word of a fixed list, an object
an empty box with that name, a tensor a note of where its bytes lie. An instruction or a name that
such a file does not need is refused by name. Both of torch's containers are read: zip archives, and
the older stream of pickles followed by the tensors' bytes. This module knows no torch.
"""

import io
import math
import pickletools
import struct
import warnings
import zipfile
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, NoReturn

import numpy as np
from numpy.typing import NDArray

from virnucpro.errors import BundleError
from virnucpro.storage.digests import refuse_irregular

Array = NDArray[Any]

CLASSIFIER = "__main__.MLPClassifier"
# What a published file names, and a plain state dict of one; nothing else.
_OBJECTS = (
    CLASSIFIER,
    "torch.nn.modules.linear.Linear",
    "torch.nn.modules.batchnorm.BatchNorm1d",
    "torch.nn.modules.dropout.Dropout",
)
_TENSOR, _PARAMETER = "torch._utils._rebuild_tensor_v2", "torch._utils._rebuild_parameter"
_ORDERED, _SETS = "collections.OrderedDict", ("__builtin__.set", "builtins.set")
_STORAGES = {
    "torch.FloatStorage": "<f4",
    "torch.DoubleStorage": "<f8",
    "torch.HalfStorage": "<f2",
    "torch.LongStorage": "<i8",
}
_ALLOWED = {*_OBJECTS, _TENSOR, _PARAMETER, _ORDERED, *_SETS, *_STORAGES}
_MAGIC = 0x1950A86A20F9469CFC6C
_ZIP = b"PK\x03\x04"
# The published ones take 7 MB.
_MOST_BYTES = 2**30
# The published ones have 900 instructions, and matrices.
_MOST_INSTRUCTIONS = 100_000
_MOST_DIMENSIONS = 2
_EPS = 1e-5
_COUNT = "bn1.num_batches_tracked"
_OURS = {"hidden_layer": "hidden", "bn1": "norm", "output_layer": "output"}
_SHOWN = 80


@dataclass(frozen=True, slots=True)
class PickledHead:
    """The arrays of a head under the names that head.Head gives them, float32.

    whole: whether the file held the whole module, as the published ones do, or its state dict.
    """

    arrays: Mapping[str, Array] = field(repr=False)
    whole: bool

    @property
    def features(self) -> int:
        """Width of a row that it takes."""
        return int(self.arrays["hidden.weight"].shape[1])

    @property
    def hidden(self) -> int:
        """The inner width."""
        return int(self.arrays["hidden.weight"].shape[0])


def read_head(path: Path) -> PickledHead:
    """A head from the .pth file of a whole module or of its state dict, of any width.

    Raises BundleError for a file that is missing, truncated, damaged, or holds anything else.
    """
    refuse_irregular(path)
    try:
        if path.stat().st_size > _MOST_BYTES:
            raise BundleError(f"{path}: larger than any head; give the .pth file of a head")
        data = path.read_bytes()
    except OSError as error:
        raise BundleError(f"{path}: cannot be read ({error.strerror or error})") from error
    try:
        root, storages = _zip(data) if data.startswith(_ZIP) else _stream(data)
        found, whole = _tensors(root)
        return PickledHead(_arrays(found, storages), whole)
    except _Refused as refusal:
        raise BundleError(f"{path}: {refusal}; nothing in it was executed") from refusal
    except (ValueError, IndexError, KeyError, TypeError, OverflowError, struct.error) as error:
        raise BundleError(_damaged(path)) from error
    except (zipfile.BadZipFile, NotImplementedError, RuntimeError, EOFError) as error:
        raise BundleError(_damaged(path)) from error


def _damaged(path: Path) -> str:
    return f"{path}: not a pickled head, truncated or damaged; fetch it again"


class _Refused(Exception):
    """A file that could be read, but holds what no head holds."""


def _refuse(sentence: str) -> NoReturn:
    raise _Refused(sentence)


def _word(value: object) -> str:
    """Something out of a file, fit for a terminal."""
    text = value if isinstance(value, str) else type(value).__name__
    shown = text if text.isprintable() else ascii(text)
    return shown if len(shown) <= _SHOWN else f"{shown[:_SHOWN]}..."


# The stack machine


@dataclass(frozen=True, slots=True)
class _Name:
    """A global of the list, by its dotted name; nothing stands behind it."""

    dotted: str


@dataclass(slots=True, eq=False)
class _Box:
    """Stands for an object of that name."""

    name: str
    state: dict[Any, Any] = field(default_factory=dict, repr=False)


@dataclass(frozen=True, slots=True)
class _Storage:
    """Numbers in a row, somewhere in the file."""

    key: str
    dtype: str
    count: int


@dataclass(frozen=True, slots=True)
class _Tensor:
    """A contiguous stretch of a storage."""

    storage: _Storage
    offset: int
    shape: tuple[int, ...]

    @property
    def count(self) -> int:
        """Numbers in it."""
        return math.prod(self.shape)


_MARK = object()
_PUSH_ARGUMENT = {
    "BININT", "BININT1", "BININT2", "LONG1", "BINFLOAT", "BINUNICODE", "SHORT_BINUNICODE",
}  # fmt: skip
_PUSH: dict[str, Callable[[], Any]] = {
    "NONE": lambda: None,
    "NEWTRUE": lambda: True,
    "NEWFALSE": lambda: False,
    "EMPTY_DICT": dict,
    "EMPTY_LIST": list,
    "EMPTY_TUPLE": tuple,
    "MARK": lambda: _MARK,
}
_TUPLES = {"TUPLE1": 1, "TUPLE2": 2, "TUPLE3": 3}


def _instructions(file: io.BytesIO) -> Iterator[Any]:
    """Yield the next pickle's instructions; a warning about its spelling is for its author."""
    instructions = pickletools.genops(file)
    while True:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", DeprecationWarning)
            instruction = next(instructions, None)
        if instruction is None:
            return
        yield instruction


def _unpickled(file: io.BytesIO) -> Any:  # noqa: ANN401
    """The value of the next pickle, which is read to its end."""
    stack: list[Any] = []
    memo: dict[Any, Any] = {}
    for number, (opcode, argument, _) in enumerate(_instructions(file)):
        name = opcode.name
        if number > _MOST_INSTRUCTIONS:
            _refuse("its pickle is longer than any head's")
        if name in _PUSH:
            stack.append(_PUSH[name]())
        elif name in _PUSH_ARGUMENT:
            stack.append(argument)
        elif name in ("BINPUT", "LONG_BINPUT"):
            memo[argument] = stack[-1]
        elif name == "MEMOIZE":
            memo[len(memo)] = stack[-1]
        elif name in ("BINGET", "LONG_BINGET"):
            stack.append(memo[argument])
        elif name in _TUPLES:
            items = [stack.pop() for _ in range(_TUPLES[name])]
            stack.append(tuple(reversed(items)))
        elif name == "TUPLE":
            stack.append(tuple(_popped(stack)))
        elif name in ("APPEND", "APPENDS"):
            items = _popped(stack) if name == "APPENDS" else [stack.pop()]
            _a(list, stack[-1]).extend(items)
        elif name in ("SETITEM", "SETITEMS"):
            items = _popped(stack) if name == "SETITEMS" else [stack.pop(), stack.pop()][::-1]
            _a(dict, stack[-1]).update(_pairs(items))
        elif name == "GLOBAL":
            stack.append(_name(str(argument).replace(" ", ".", 1)))
        elif name == "STACK_GLOBAL":
            last, module = stack.pop(), stack.pop()
            stack.append(_name(f"{_a(str, module)}.{_a(str, last)}"))
        elif name in ("REDUCE", "NEWOBJ"):
            arguments = _a(tuple, stack.pop())
            stack.append(_called(name, _a(_Name, stack.pop()).dotted, arguments))
        elif name == "BUILD":
            state = stack.pop()
            _build(stack[-1], state)
        elif name == "BINPERSID":
            stack.append(_persistent(_a(tuple, stack.pop())))
        elif name == "STOP":
            (value,) = stack
            return value
        elif name not in ("PROTO", "FRAME"):
            _refuse(f"its pickle has the instruction {name}, which no head needs")
    raise ValueError("a pickle without an end")


def _popped(stack: list[Any]) -> list[Any]:
    """Remove and return the items above the last mark, and remove the mark."""
    items: list[Any] = []
    while (item := stack.pop()) is not _MARK:
        items.append(item)
    return items[::-1]


def _a(kind: type, value: Any) -> Any:  # noqa: ANN401
    if type(value) is not kind:
        raise TypeError(f"a {type(value).__name__} instead of a {kind.__name__}")
    return value


def _pairs(items: list[Any]) -> dict[str, Any]:
    # Keys of other kinds would have to be hashed, which may recurse without a bound.
    return {_a(str, key): value for key, value in zip(items[::2], items[1::2], strict=True)}


def _name(dotted: str) -> _Name:
    if dotted not in _ALLOWED:
        _refuse(f"its pickle names {_word(dotted)}, which no head needs")
    return _Name(dotted)


def _called(how: str, name: str, arguments: tuple[Any, ...]) -> Any:  # noqa: ANN401
    """Return a substitute of our own making for what calling a global would give."""
    if how == "NEWOBJ" and name in _OBJECTS and not arguments:
        return _Box(name)
    if how == "REDUCE" and name == _ORDERED and not arguments:
        return {}
    if how == "REDUCE" and name in _SETS and len(arguments) == 1:
        return None  # which buffers are not saved: of no use here
    if how == "REDUCE" and name == _TENSOR and len(arguments) == 6:
        return _tensor(*arguments[:4])
    if how == "REDUCE" and name == _PARAMETER and len(arguments) == 3:
        return _a(_Tensor, arguments[0])
    _refuse(f"its pickle calls {name} in a way that no head needs")


def _build(target: Any, state: Any) -> None:  # noqa: ANN401
    """Gives a box its state; what an ordered dict carries beside its items is left out."""
    if type(state) is not dict or type(target) not in (_Box, dict):
        _refuse(f"its pickle gives a {_word(target)} a state that is not a plain dict")
    if type(target) is _Box:
        target.state = state


def _persistent(what: tuple[Any, ...]) -> Any:  # noqa: ANN401
    """A storage; or a class that stands there with its source text, which is not looked at."""
    if what[0] == "module":
        return _a(_Name, what[1])
    kind, key, _, count = what[1:5]
    if what[0] != "storage" or _a(_Name, kind).dotted not in _STORAGES:
        _refuse("its pickle refers to something else than numbers outside of it")
    if len(what) > 5 and what[5] is not None:
        _refuse("its tensors are views of others")
    return _Storage(_a(str, key), _STORAGES[kind.dotted], _whole(count))


def _whole(number: Any) -> int:  # noqa: ANN401
    if type(number) is not int or number < 0:
        raise ValueError("an invalid size")
    return number


def _tensor(storage: Any, offset: Any, shape: Any, stride: Any) -> _Tensor:  # noqa: ANN401
    sizes = tuple(_whole(size) for size in _a(tuple, shape))
    if len(sizes) > _MOST_DIMENSIONS:
        _refuse(f"it holds a tensor of {len(sizes)} dimensions")
    found = _Tensor(_a(_Storage, storage), _whole(offset), sizes)
    if found.offset + found.count > found.storage.count:
        raise ValueError("a tensor that reaches beyond its storage")
    step = 1
    for size, given in zip(reversed(sizes), reversed(_a(tuple, stride)), strict=True):
        if size > 1 and given != step:
            _refuse("its tensors do not lie in order")
        step *= size
    return found


# The containers


Storages = Callable[[_Storage], bytes]


def _zip(data: bytes) -> tuple[Any, Storages]:
    archive = zipfile.ZipFile(io.BytesIO(data))
    names = archive.namelist()
    if len({*names}) < len(names):
        _refuse("its archive holds a name twice")
    (pickled,) = (name for name in names if name.rpartition("/")[2] == "data.pkl")
    folder = pickled.removesuffix("data.pkl")
    order = f"{folder}byteorder"
    if order in names and _entry(archive, order) != b"little":
        _refuse("its numbers are not little-endian")

    def storage(wanted: _Storage) -> bytes:
        return _entry(archive, f"{folder}data/{wanted.key}")

    return _unpickled(io.BytesIO(_entry(archive, pickled))), storage


def _entry(archive: zipfile.ZipFile, name: str) -> bytes:
    """An entry, its checksum held; torch compresses no entry, and a bomb would be compressed."""
    if archive.getinfo(name).compress_type != zipfile.ZIP_STORED:
        _refuse("its archive is compressed")
    return archive.read(name)


def _stream(data: bytes) -> tuple[Any, Storages]:
    file = io.BytesIO(data)
    if _unpickled(file) != _MAGIC:
        _refuse("it holds a pickle, but in neither of torch's two containers")
    _unpickled(file)  # the container's version
    if _a(dict, _unpickled(file))["little_endian"] is not True:
        _refuse("its numbers are not little-endian")
    root = _unpickled(file)
    sizes = {}
    for tensor in _tensors(root)[0].values():
        sizes[tensor.storage.key] = np.dtype(tensor.storage.dtype).itemsize
    found: dict[str, bytes] = {}
    for key in _a(list, _unpickled(file)):
        (count,) = struct.unpack("<q", file.read(8))
        found[_a(str, key)] = file.read(_whole(count) * sizes[key])
    if file.read(1):
        raise ValueError("more behind the last tensor")
    return root, lambda wanted: found[wanted.key]


# What a head is made of


def _tensors(root: Any) -> tuple[dict[str, _Tensor], bool]:  # noqa: ANN401
    """The tensors of a head by their dotted names, and whether it is the whole module."""
    if type(root) is dict:
        tensors = {name: tensor for name, tensor in root.items() if type(tensor) is _Tensor}
        if not tensors or len(tensors) < len(root):
            _refuse("it holds no head")
        return tensors, False
    if type(root) is not _Box or root.name != CLASSIFIER:
        _refuse("it holds no head")
    found = {}
    for module, box in _a(dict, root.state["_modules"]).items():
        state = _a(_Box, box).state
        for kind in ("_parameters", "_buffers"):
            for name, tensor in _a(dict, state[kind]).items():
                found[f"{module}.{name}"] = _a(_Tensor, tensor)
        if module == "bn1" and _a(float, state["eps"]) != _EPS:
            _refuse(f"its bn1 has an eps of {state['eps']} instead of {_EPS}")
    return found, True


def _arrays(tensors: Mapping[str, _Tensor], storages: Storages) -> dict[str, Array]:
    _check_shapes({name: tensor.shape for name, tensor in tensors.items()})
    found: dict[str, Array] = {}
    for name, tensor in tensors.items():
        data = storages(tensor.storage)
        if len(data) != tensor.storage.count * np.dtype(tensor.storage.dtype).itemsize:
            raise ValueError("a storage of another size than its tensor says")
        values = np.frombuffer(data, tensor.storage.dtype)
        part = values[tensor.offset : tensor.offset + tensor.count].reshape(tensor.shape)
        with np.errstate(over="ignore"):  # what does not fit is refused below
            array = part.astype(np.int64 if name == _COUNT else np.float32)
        if not np.isfinite(array).all():
            _refuse(f"its {name} is not of finite numbers alone")
        module, _, last = name.partition(".")
        found[f"{_OURS[module]}.{last}"] = array
    return found


def _check_shapes(found: Mapping[str, tuple[int, ...]]) -> None:
    """Refuse all but a head: a matrix, its norm, and a matrix onto two classes."""
    shape = found.get("hidden_layer.weight", ())
    if len(shape) != 2:
        _refuse("it holds no head: no matrix hidden_layer.weight")
    hidden, _ = shape
    wanted: dict[str, tuple[int, ...]] = {
        "hidden_layer.weight": shape,
        "hidden_layer.bias": (hidden,),
        **{f"bn1.{n}": (hidden,) for n in ("weight", "bias", "running_mean", "running_var")},
        _COUNT: (),
        "output_layer.weight": (2, hidden),
        "output_layer.bias": (2,),
    }
    wrong = sorted(name for name in wanted | dict(found) if found.get(name) != wanted.get(name))
    if wrong:
        _refuse(
            "it holds no head of two classes; what is missing, unexpected or of another size: "
            f"{_word(', '.join(wrong))}"
        )
