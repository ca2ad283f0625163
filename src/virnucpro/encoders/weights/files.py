"""One file of weights -> its tensors by name: safetensors, or either container of torch.

Which of them it is, its content says, never its name. What torch saved is a pickle: torch's own
reader follows it, which makes tensors and, for fair-esm, an argparse.Namespace, and calls nothing
else. Tensors are views of the file wherever its container allows, so that opening one takes no
memory. This module knows no encoder.
"""

import json
import re
import warnings
import zipfile
from argparse import Namespace
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from pickle import UnpicklingError
from struct import error as StructError
from threading import Lock
from typing import Any

import torch
from safetensors import SafetensorError, safe_open
from torch import Tensor

from virnucpro.errors import BundleError
from virnucpro.storage.digests import refuse_irregular

_FETCH = "truncated or damaged; fetch it again"
# What the readers of torch raise for content that makes no sense.
_NONSENSE = (
    UnpicklingError,
    StructError,
    RuntimeError,
    ValueError,
    TypeError,
    LookupError,
    AttributeError,
    AssertionError,
    ArithmeticError,
    EOFError,
    OSError,
)
_FORBIDDEN = re.compile(r"GLOBAL (\S+)|Unsupported (operand \d+)")
_WHY = re.compile(r"WeightsUnpickler error: *(.*)")
# fair-esm's names of the sizes of an ESM-2, and those of a config.
_FAIR_FIELDS = {
    "encoder_layers": "num_layers",
    "encoder_embed_dim": "embed_dim",
    "encoder_attention_heads": "attention_heads",
    "token_dropout": "token_dropout",
}
# torch keeps what may be unpickled in one list for all threads.
_ALLOWING = Lock()


@dataclass(frozen=True, slots=True)
class WeightFile:
    """A file as it was read: its tensors on the CPU by their published names, and its config.

    config: None where the file holds none.
    """

    path: Path
    tensors: dict[str, Tensor]
    config: Mapping[str, Any] | None


def read_weights(path: Path) -> WeightFile:
    """Opens a file of weights; raises BundleError for any other file, and for a damaged one."""
    refuse_irregular(path)
    try:
        with path.open("rb") as file:
            start = file.read(64)
    except OSError as error:
        raise BundleError(f"{path}: cannot be read ({error.strerror or error})") from error
    if start[8:9] == b"{":
        return _safetensors(path)
    if start[:2] == b"PK":
        # torch takes a path that ends so for safetensors, whatever it holds.
        return _torch(path, mapped=_mappable(path) and path.suffix != ".safetensors")
    if start[:1] == b"\x80":
        return _torch(path, mapped=False)
    if start.startswith(b"version https://git-lfs"):
        raise BundleError(
            f"{path}: only Git LFS's pointer to the weights; run `git lfs pull` beside it, or "
            "fetch the file itself"
        )
    raise BundleError(f"{path}: not a safetensors file nor one that torch saved, or {_FETCH}")


def config_of_text(path: Path, text: str | bytes) -> Mapping[str, Any]:
    """A published config. Raises BundleError where it is not a JSON object."""
    try:
        config = json.loads(text)
    except ValueError as error:
        raise BundleError(f"{path}: its config is not JSON ({error}); fetch it again") from error
    if not isinstance(config, dict):
        raise BundleError(f"{path}: its config is not a JSON object; fetch it again")
    return config


def _safetensors(path: Path) -> WeightFile:
    try:
        with safe_open(path, framework="pt") as file:
            tensors = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118
            text = (file.metadata() or {}).get("config")
    except OSError as error:
        raise BundleError(f"{path}: cannot be read ({error.strerror or error})") from error
    except SafetensorError as error:
        raise BundleError(f"{path}: a safetensors file ({error}) that is {_FETCH}") from error
    return WeightFile(path, tensors, None if text is None else config_of_text(path, text))


def _mappable(path: Path) -> bool:
    """Return True if the entries of torch's zip container are stored uncompressed."""
    try:
        with zipfile.ZipFile(path) as archive:
            entries = archive.infolist()
    except (zipfile.BadZipFile, NotImplementedError, ValueError, OSError) as error:
        raise BundleError(f"{path}: a zip container of torch ({error}) that is {_FETCH}") from error
    names = {entry.filename.rpartition("/")[2] for entry in entries}
    if "data.pkl" not in names or "constants.pkl" in names:
        what = "a TorchScript program" if "constants.pkl" in names else "a zip archive"
        raise BundleError(f"{path}: {what}, not weights; give the file that the publisher offers")
    return all(entry.compress_type == zipfile.ZIP_STORED for entry in entries)


def _torch(path: Path, *, mapped: bool) -> WeightFile:
    try:
        with _ALLOWING, torch.serialization.safe_globals([Namespace]), warnings.catch_warnings():
            warnings.simplefilter("ignore")  # what torch makes of damage; the refusal says it
            if mapped:
                saved = torch.load(path, map_location="cpu", weights_only=True, mmap=True)
            else:
                with path.open("rb") as file:
                    saved = torch.load(file, map_location="cpu", weights_only=True)
    except _NONSENSE as error:
        raise BundleError(f"{path}: {_refusal(error)}") from error
    if not isinstance(saved, dict):
        raise BundleError(f"{path}: holds a {type(saved).__name__}, not weights by their names")
    config = None
    if isinstance(saved.get("model"), dict):
        config = _fair_config(path, saved.get("cfg"))
        saved = saved["model"]
    strange = [str(n) for n, t in saved.items() if not (isinstance(n, str) and _is_plain(t))]
    if strange:
        raise BundleError(
            f"{path}: {_printable(', '.join(strange[:6]))} in it are not weights; give the file of "
            "the encoder as its publisher offers it"
        )
    return WeightFile(path, dict(saved), config)


def _is_plain(value: object) -> bool:
    """Return True if it is a tensor whose numbers are all present."""
    return (
        isinstance(value, Tensor)
        and value.layout == torch.strided
        and value.device.type == "cpu"
        and not value.is_quantized
    )


def _fair_config(path: Path, cfg: object) -> Mapping[str, Any]:
    """The sizes that fair-esm keeps beside the weights of an ESM-2."""
    sizes = cfg.get("model") if isinstance(cfg, dict) else None
    if not isinstance(sizes, Namespace):
        raise BundleError(
            f"{path}: a file of fair-esm, but without the sizes of an ESM-2 (cfg); give an "
            "esm2_*.pt, not an older model and not a contact regression"
        )
    given = vars(sizes)
    return {ours: given[theirs] for theirs, ours in _FAIR_FIELDS.items() if theirs in given}


def _refusal(error: BaseException) -> str:
    """Why torch could not read a file, without torch's advice to let it run anything."""
    text = str(error)
    forbidden = _FORBIDDEN.search(text)
    if forbidden is not None:
        what = f"names {forbidden.group(1)}" if forbidden.group(1) else f"has {forbidden.group(2)}"
        return (
            f"its pickle {_printable(what)}, which weights do not need, so the file was refused "
            "and nothing in it was run; fetch it again from its publisher"
        )
    why = _WHY.search(text)
    reason = (why.group(1) if why else text.partition("\n")[0]).strip() or type(error).__name__
    return f"a file of torch ({_printable(reason)}) that is {_FETCH}"


def _printable(text: str) -> str:
    """Something out of a file, fit for a terminal."""
    return text if text.isprintable() else ascii(text)
