"""The published models that this version knows: what they are made of, and how each is recognised.

The list is a TOML file of the package. This module opens no other file and no connection.
"""

import hashlib
import re
import tomllib
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

CATALOGUE = Path(__file__).parents[1] / "bundles" / "catalogue.toml"
PARTS = ("dnabert_s", "esm2")
CONFIG = "config.json"
_VERSIONED = re.compile(r"(?P<alias>.+)-v(?P<version>\d+)")


@dataclass(frozen=True, slots=True)
class KnownFile:
    """A file of an encoder; None for what is not known of it."""

    name: str
    size_bytes: int | None = None
    sha256: str | None = None


@dataclass(frozen=True, slots=True)
class KnownHead:
    """A published head. git_blob: the id that git gives its content."""

    file: str
    url: str
    git_blob: str
    licence: str
    origin: str


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
    config: Mapping[str, Any] = field(default_factory=dict, hash=False)

    @property
    def name(self) -> str:
        """One word for folders."""
        return f"{self.repository.replace('/', '--')}--{self.revision[:12]}"

    def recognises(self, sums: Mapping[str, str]) -> bool:
        """Return whether these files, name to sha256, are its own, as far as they are known."""
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
        """Return the size of its encoders, as far as it is known."""
        return sum(file.size_bytes or 0 for e in self.encoders for file in e.files)

    def encoder(self, part: str) -> KnownEncoder:
        """The encoder of that part."""
        return next(encoder for encoder in self.encoders if encoder.part == part)


@dataclass(frozen=True, slots=True)
class Catalogue:
    """Known models, in their order."""

    bundles: tuple[Known, ...]

    @property
    def names(self) -> list[str]:
        """All names and aliases."""
        names = [known.name for known in self.bundles]
        return [*names, *newest(names)]

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


def read_catalogue() -> Catalogue:
    """Read the package's own list of published models."""
    document = tomllib.loads(CATALOGUE.read_text("utf-8"))
    encoders = {name: _encoder(table) for name, table in document["encoders"].items()}
    bundles = (_known(table, encoders) for table in document["bundles"])
    return Catalogue(tuple(bundles))


def _known(table: dict[str, Any], encoders: Mapping[str, KnownEncoder]) -> Known:
    head = KnownHead(**table.pop("head"))
    chosen = tuple(encoders[name] for name in table.pop("encoders"))
    return Known(head=head, encoders=chosen, **table)


def _encoder(table: dict[str, Any]) -> KnownEncoder:
    files = tuple(KnownFile(**file) for file in table.pop("files"))
    return KnownEncoder(files=files, **table)
