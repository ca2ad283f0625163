"""The published models that this version knows: what they are made of, and how each is recognised.

The list is a TOML file, the package's own or an institute's. This module opens no other file and
no connection.
"""

import hashlib
import re
import tomllib
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, TypeVar

from virnucpro.errors import BundleError

CATALOGUE = Path(__file__).parents[1] / "bundles" / "catalogue.toml"
FORMAT = 1
PARTS = ("dnabert_s", "esm2")
CONFIG = "config.json"
_VERSIONED = re.compile(r"(?P<alias>.+)-v(?P<version>\d+)")
_PLAIN_NAME = re.compile(r"[A-Za-z0-9_][A-Za-z0-9._-]*")
_REPOSITORY = re.compile(r"[A-Za-z0-9_][A-Za-z0-9._-]*/[A-Za-z0-9_][A-Za-z0-9._-]*")
_SHA1, _SHA256 = re.compile(r"[0-9a-f]{40}"), re.compile(r"[0-9a-f]{64}")
# What leaves this machine is encrypted.
_URL = re.compile(r"https://\S+|http://(localhost|127\.0\.0\.1)(:\d+)?/\S*")

T = TypeVar("T")


@dataclass(frozen=True, slots=True)
class KnownFile:
    """A file of an encoder; None for what is not known of it."""

    name: str
    size_bytes: int | None
    sha256: str | None


@dataclass(frozen=True, slots=True)
class KnownHead:
    """A published head. git_blob: the id that git gives its content."""

    file: str
    url: str
    git_blob: str
    licence: str
    origin: str
    size_bytes: int | None
    sha256: str | None


@dataclass(frozen=True, slots=True)
class KnownEncoder:
    """A published encoder at one revision of its repository on the hub.

    part: which of the two it is, dnabert_s or esm2. config: fields that its config.json must hold.
    """

    part: str
    repository: str
    revision: str
    licence: str
    origin: str
    files: tuple[KnownFile, ...]
    config: Mapping[str, Any] = field(hash=False)

    @property
    def name(self) -> str:
        """One word for folders."""
        return f"{self.repository.replace('/', '--')}--{self.revision[:12]}"

    def recognises(self, sums: Mapping[str, str]) -> bool:
        """Whether these files, name to sha256, are its own, as far as they are known."""
        known = {file.name: file.sha256 for file in self.files}
        return sums.keys() == known.keys() and all(
            known[name] in (None, digest) for name, digest in sums.items()
        )


@dataclass(frozen=True, slots=True)
class Known:
    """A published model."""

    name: str
    description: str
    chunk_nt: int
    head: KnownHead
    encoders: tuple[KnownEncoder, ...]

    @property
    def size_bytes(self) -> int:
        """All that it takes, where the size is known."""
        return sum(file.size_bytes or 0 for e in self.encoders for file in e.files) + (
            self.head.size_bytes or 0
        )

    def encoder(self, part: str) -> KnownEncoder:
        """The encoder of that part."""
        return next(encoder for encoder in self.encoders if encoder.part == part)


@dataclass(frozen=True, slots=True)
class Catalogue:
    """Known models, in their order."""

    bundles: tuple[Known, ...]

    def find(self, name: str) -> Known | None:
        """The model of a name or an alias."""
        by_name = {known.name: known for known in self.bundles}
        return by_name.get(newest(by_name).get(name, name))

    def of_head(self, git_blob: str | None) -> Known | None:
        """The model whose published head has this id."""
        return next((known for known in self.bundles if known.head.git_blob == git_blob), None)


def git_blob_id(content: bytes) -> str:
    """The id that git gives a file of this content."""
    return hashlib.sha1(b"blob %d\0" % len(content) + content, usedforsecurity=False).hexdigest()


def newest(names: Iterable[str]) -> dict[str, str]:
    """Aliases of versioned names: `x` is the highest `x-vN`."""
    found: dict[str, tuple[int, str]] = {}
    for name in names:
        if match := _VERSIONED.fullmatch(name):
            version = int(match["version"]), name
            found[match["alias"]] = max(version, found.get(match["alias"], version))
    return {alias: name for alias, (_, name) in found.items()}


def read_catalogue(path: Path | None = None) -> Catalogue:
    """The package's own catalogue, or an institute's. Raises BundleError for one that is none."""
    path = path or CATALOGUE
    try:
        document = tomllib.loads(path.read_text("utf-8"))
    except OSError as error:
        raise BundleError(
            f"{path}: cannot be read ({error.strerror or error}); check --catalogue"
        ) from error
    except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
        raise BundleError(f"{path}: not a TOML file ({error}); check --catalogue") from error
    try:
        return _catalogue(document)
    except _Wrong as wrong:
        raise BundleError(
            f"{path}: not a catalogue of bundles: {wrong}; correct it, or leave --catalogue out"
        ) from wrong


class _Wrong(Exception):
    """What is wrong with a catalogue, in words."""


def _catalogue(document: Mapping[str, Any]) -> Catalogue:
    if document.get("format") != FORMAT:
        raise _Wrong(f"its format is {document.get('format')!r}, this version reads {FORMAT}")
    tables = _get(document, "encoders", dict)
    encoders = {name: _encoder(name, table) for name, table in tables.items()}
    bundles = tuple(_known(table, encoders) for table in _get(document, "bundles", list))
    if len({known.name for known in bundles}) < len(bundles):
        raise _Wrong("it has two bundles of one name")
    return Catalogue(bundles)


def _known(table: Any, encoders: Mapping[str, KnownEncoder]) -> Known:  # noqa: ANN401
    table = _table(table, "a bundle")
    name = _matching(table, "name", _PLAIN_NAME)
    chosen = []
    for wanted in _get(table, "encoders", list):
        if not isinstance(wanted, str) or wanted not in encoders:
            raise _Wrong(f"{name} names the encoder {wanted!r}, which it does not describe")
        chosen.append(encoders[wanted])
    if sorted(encoder.part for encoder in chosen) != sorted(PARTS):
        raise _Wrong(f"{name} must have one encoder of each: {', '.join(PARTS)}")
    return Known(
        name=name,
        description=_get(table, "description", str),
        chunk_nt=_get(table, "chunk_nt", int),
        head=_head(_get(table, "head", dict)),
        encoders=tuple(chosen),
    )


def _head(table: Mapping[str, Any]) -> KnownHead:
    return KnownHead(
        file=_matching(table, "file", _PLAIN_NAME),
        url=_matching(table, "url", _URL),
        git_blob=_matching(table, "git_blob", _SHA1),
        licence=_get(table, "licence", str),
        origin=_get(table, "origin", str),
        size_bytes=_get(table, "bytes", int) if "bytes" in table else None,
        sha256=_matching(table, "sha256", _SHA256) if "sha256" in table else None,
    )


def _encoder(name: str, table: Any) -> KnownEncoder:  # noqa: ANN401
    table = _table(table, f"the encoder {name}")
    files = []
    for file in _get(table, "files", list):
        file = _table(file, f"a file of the encoder {name}")
        files.append(
            KnownFile(
                name=_matching(file, "name", _PLAIN_NAME),
                size_bytes=_get(file, "bytes", int) if "bytes" in file else None,
                sha256=_matching(file, "sha256", _SHA256) if "sha256" in file else None,
            )
        )
    if not any(file.sha256 for file in files):
        raise _Wrong(f"no file of the encoder {name} has a sha256")
    return KnownEncoder(
        part=_get(table, "part", str),
        repository=_matching(table, "repository", _REPOSITORY),
        revision=_matching(table, "revision", _SHA1),
        licence=_get(table, "licence", str),
        origin=_get(table, "origin", str),
        files=tuple(files),
        config=_get(table, "config", dict) if "config" in table else {},
    )


def _table(value: Any, what: str) -> Mapping[str, Any]:  # noqa: ANN401
    if not isinstance(value, dict):
        raise _Wrong(f"{what} is {value!r}, not a table")
    return value


def _get(table: Mapping[str, Any], name: str, kind: type[T]) -> T:
    value = table.get(name)
    if type(value) is not kind:
        raise _Wrong(f"{name} is {value!r}, not a {kind.__name__}")
    return value


def _matching(table: Mapping[str, Any], name: str, pattern: re.Pattern[str]) -> str:
    value = _get(table, name, str)
    if not pattern.fullmatch(value):
        raise _Wrong(f"{name} is {value!r}, which is no usable {name}")
    return value
