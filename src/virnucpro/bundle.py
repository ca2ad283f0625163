"""Bundles: directories that hold everything a classifier needs, and say what was measured of it.

bundle.toml names the chunk length, how frames are scored, every file with its sha256, the training
record and the card. The sha256 of a bundle is that of its bundle.toml. This module knows the
directory; what computes with it lies in classifiers/, which is loaded only when asked for.
"""

import hashlib
import tomllib
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from enum import StrEnum
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import tomli_w
from numpy.typing import NDArray
from safetensors import SafetensorError
from safetensors.numpy import load as load_arrays
from safetensors.numpy import save as save_arrays

from virnucpro.cache import VARIABLE, cache_path, file_digest, file_sha256, warn_once
from virnucpro.catalogue import newest, read_catalogue
from virnucpro.errors import BundleError, ResumeError
from virnucpro.lock import Lock
from virnucpro.writing import replace_file

if TYPE_CHECKING:
    import torch

    from virnucpro.classifiers import Classifier
    from virnucpro.engine import Engine
    from virnucpro.head import Head

FORMAT = 1
MANIFEST = "bundle.toml"
_DAMAGED = "the bundle is damaged, fetch or make it again"
KINDS = ("frames", "chunks", "kmer")
LABELS = ("others", "virus")
DEFAULT_BUNDLE = "mini-500"
EMBEDDED = Path(__file__).parent / "bundles"
DOWNLOADED = "bundles"
# A folder in a directory whose bundle is not whole yet.
BEING_MADE = ".being-made"

Arrays = Mapping[str, NDArray[Any]]


class Provenance(StrEnum):
    """Whose weights a bundle holds, in the words of a log."""

    PUBLISHED = "the published VirNucPro model"
    PUBLISHED_HEAD = (
        "the published VirNucPro head, but not on the encoders that it was published with: cuts "
        "made for those may not apply"
    )
    OTHER = "not the published VirNucPro model: cuts made for that one do not apply"


@dataclass(frozen=True, slots=True)
class Bundle:
    """A bundle whose manifest was read and found whole; its files are checked when they are read.

    kind: "frames" scores open frames with the published encoders, "chunks" whole chunks with a
    codon network, "kmer" whole chunks with a linear model. chunk_nt: length of a chunk; block_nt:
    size of a block; min_nt: letters ACGT that a chunk needs to be called (kinds that score
    chunks); validated_nt: shortest length that the card measures. parts: settings of what the kind
    is made of, by name.
    """

    path: Path
    sha256: str
    name: str
    description: str
    kind: str
    chunk_nt: int
    block_nt: int
    min_nt: int
    validated_nt: int
    threshold: float
    labels: tuple[str, str]
    files: Mapping[str, str]
    parts: Mapping[str, Any] = field(repr=False)
    card: Mapping[str, Any] = field(repr=False)

    def file(self, name: str) -> Path:
        """A file of the bundle, checked against its sha256. Raises BundleError."""
        path = self.path / name
        if name not in self.files:
            raise BundleError(f"{self.path / MANIFEST}: lists no file {name}; {_DAMAGED}")
        if self.files[name] != file_digest(path):
            raise BundleError(
                f"{path}: its sha256 is not the one that {MANIFEST} lists; {_DAMAGED}"
            )
        return path

    def arrays(self, name: str) -> dict[str, NDArray[Any]]:
        """The arrays of a safetensors file of the bundle. Raises BundleError."""
        path = self.file(name)
        try:
            return load_arrays(path.read_bytes())
        except SafetensorError as error:
            raise BundleError(f"{path}: not a safetensors file ({error}); {_DAMAGED}") from error

    def part(self, name: str) -> Mapping[str, Any]:
        """Settings of one part. Raises BundleError."""
        found = self.parts.get(name)
        if not isinstance(found, Mapping):
            raise BundleError(
                f"{self.path / MANIFEST}: has no table [{name}], as its kind needs; {_DAMAGED}"
            )
        return found

    @property
    def provenance(self) -> Provenance:
        """Whose weights these are, by the digests that the manifest lists."""
        blob = _table(self.parts, "head").get("git_blob")
        known = read_catalogue().of_head(blob) if self.kind == "frames" else None
        if known is None or known.chunk_nt != self.chunk_nt:
            return Provenance.OTHER
        given = _table(self.parts, "encoders")
        theirs = all(
            _table(given, encoder.part).get("revision") == encoder.revision
            and encoder.recognises(_table(_table(given, encoder.part), "sha256"))
            for encoder in known.encoders
        )
        return Provenance.PUBLISHED if theirs else Provenance.PUBLISHED_HEAD

    @property
    def head(self) -> "Head":
        """The head alone, without its encoders. Raises BundleError for a kind that has none."""
        from virnucpro.classifiers import head_of

        return head_of(self)

    def classifier(
        self,
        device: "str | torch.device" = "cpu",
        precision: str = "auto",
        engine: "Engine | None" = None,
    ) -> "Classifier":
        """What scores chunks with this bundle; see classifiers.classifier_of."""
        from virnucpro.classifiers import DEFAULTS, classifier_of

        return classifier_of(self, device, precision, engine or DEFAULTS)


def load(name_or_path: str | Path) -> Bundle:
    """A bundle by its name or alias, embedded or downloaded, or any bundle by its directory.

    `mini-500` is an alias of the newest `mini-500-vN`. Nothing is downloaded. Raises BundleError.
    """
    found = find(name_or_path)
    if found is not None:
        return _read(found)
    name = str(name_or_path)
    if known := read_catalogue().find(name):
        raise BundleError(
            f"{name}: {known.description}, of {known.size_bytes / 1e9:.1f} GB, is not on this "
            f"machine yet; fetch it with `virnucpro bundles download {name}`"
        )
    names = ", ".join(sorted({*_embedded(), *_downloaded()})) or "none"
    raise BundleError(
        f"{name_or_path}: no bundle of this name and no directory with a {MANIFEST}; give a "
        f"bundle's directory, or one of the bundles that are here: {names}"
    )


def find(name_or_path: str | Path) -> Path | None:
    """The directory of a bundle that is here, as load looks for it. Raises BundleError."""
    for places in (_embedded, _downloaded):  # the cache is looked into only where it is needed
        if found := places().get(str(name_or_path)):
            return found
    path = Path(name_or_path)
    try:
        return path if (path / MANIFEST).is_file() else None
    except OSError as error:
        raise BundleError(
            f"{path}: cannot be looked into ({error.strerror or error}); give a bundle's name, or "
            "a directory that you may read"
        ) from error


def embedded_bundles() -> list[Bundle]:
    """The bundles that come with the package, by name."""
    return [_read(path) for path in _in(EMBEDDED).values()]


def downloaded_bundles() -> list[Path]:
    """The directories of the bundles in the cache, by name; load tells whether one is whole."""
    return [*_cached().values()]


def downloads_folder() -> Path | None:
    """Where downloaded bundles lie, whether or not it is there; None where no home is known."""
    found = cache_path()
    return None if found is None else found / DOWNLOADED


def aliases_of(bundle: Bundle) -> list[str]:
    """The shorter names that this embedded or downloaded bundle answers to."""
    places = _downloaded() | _embedded()
    return sorted(n for n, path in places.items() if path == bundle.path and n != bundle.name)


def _in(folder: Path) -> dict[str, Path]:
    return {path.parent.name: path.parent for path in sorted(folder.glob(f"*/{MANIFEST}"))}


def _with_aliases(places: Mapping[str, Path]) -> dict[str, Path]:
    return {**places, **{alias: places[name] for alias, name in newest(places).items()}}


def _embedded() -> dict[str, Path]:
    """Names and aliases of the embedded bundles; an alias means its highest version."""
    return _with_aliases(_in(EMBEDDED))


def _downloaded() -> dict[str, Path]:
    return _with_aliases(_cached())


def _cached() -> dict[str, Path]:
    """The bundles in the cache by name; none, with a warning, where it cannot be looked into."""
    folder = downloads_folder()
    try:
        return {} if folder is None else _in(folder)
    except OSError as error:
        warn_once(
            f"{folder}: downloaded bundles cannot be looked for here ({error.strerror or error}); "
            f"set {VARIABLE} to a folder that you may read"
        )
        return {}


def check_free(directory: Path) -> None:
    """Raises BundleError unless a new bundle can go there.

    There is nothing, an empty directory, or what was left when the making of one was stopped.
    """
    try:
        if not directory.exists():
            return
        names = {path.name for path in directory.iterdir()} if directory.is_dir() else {MANIFEST}
    except OSError as error:
        raise BundleError(
            f"{directory}: cannot be looked into ({error.strerror or error}); choose another "
            "directory"
        ) from error
    if MANIFEST in names or (names and BEING_MADE not in names):
        raise BundleError(f"{directory}: already holds something; choose an empty directory")


@contextmanager
def being_made(directory: Path) -> Iterator[None]:
    """While this process alone makes a bundle in a directory, which is made too.

    What is stopped in between leaves a mark there, by which check_free knows it. Raises BundleError
    where another process is at it, OSError where nothing can be written.
    """
    try:
        lock = Lock(directory / BEING_MADE)
    except ResumeError as error:
        raise BundleError(
            f"{directory}: another process is making a bundle here; wait for it to end, or choose "
            "another directory"
        ) from error
    try:
        yield
    except BaseException:
        lock.release()
        raise
    lock.remove()


def write_bundle(
    directory: Path, manifest: Mapping[str, Any], files: Mapping[str, bytes | Arrays]
) -> Bundle:
    """A new bundle: its files, then the manifest that lists them with their sha256.

    manifest: what bundle.toml holds besides `format` and `[files]`; None values are left out. A
    file is bytes, or arrays for a safetensors file. Raises BundleError if the directory is not
    empty, or cannot be written to.
    """
    sums: dict[str, str] = {}
    check_free(directory)
    try:
        with being_made(directory):
            for name, content in files.items():
                data = content if isinstance(content, bytes) else save_arrays(dict(content))
                (directory / name).parent.mkdir(parents=True, exist_ok=True)
                replace_file(directory / name, data)
                sums[name] = hashlib.sha256(data).hexdigest()
            return write_manifest(directory, manifest, sums)
    except OSError as error:
        raise BundleError(
            f"{directory}: the bundle cannot be written ({error.strerror or error}); choose "
            "another directory"
        ) from error


def write_manifest(directory: Path, manifest: Mapping[str, Any], sums: Mapping[str, str]) -> Bundle:
    """Writes bundle.toml, also over an older one, for files that lie there with these sha256."""
    document = {"format": FORMAT, **_without_none(dict(manifest)), "files": dict(sums)}
    replace_file(directory / MANIFEST, tomli_w.dumps(document).encode())
    return _read(directory)


def read_manifest(directory: Path) -> dict[str, Any]:
    """bundle.toml as it stands. Raises BundleError."""
    path = directory / MANIFEST
    try:
        return tomllib.loads(path.read_text("utf-8"))
    except OSError as error:
        raise BundleError(
            f"{path}: cannot be read ({error.strerror or error}); make it readable, or choose "
            "another bundle"
        ) from error
    except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
        raise BundleError(f"{path}: not a TOML file ({error}); {_DAMAGED}") from error


def _table(values: Mapping[str, Any], name: str) -> Mapping[str, Any]:
    """A table that a manifest may lack; nothing where something else stands in its place."""
    found = values.get(name)
    return found if isinstance(found, Mapping) else {}


def _read(directory: Path) -> Bundle:
    document = read_manifest(directory)
    path = directory / MANIFEST
    if document.get("format") != FORMAT:
        raise BundleError(
            f"{path}: has format {document.get('format')}, this version reads {FORMAT}; "
            "use a matching version of virnucpro"
        )
    fields: dict[str, Any] = {
        name: _field(path, document, name, kind) for name, kind in _FIELDS.items()
    }
    _check_fields(path, fields)
    for name in ("files", "card"):
        if not isinstance(document.setdefault(name, {}), Mapping):
            raise BundleError(f"{path}: {name} is {document[name]!r}, not a table; {_DAMAGED}")
    if document.get("labels", [*LABELS]) != [*LABELS]:
        raise BundleError(
            f"{path}: labels are {document['labels']!r}, but scores are kept in the order "
            f"{', '.join(LABELS)}; make the bundle again"
        )
    known = {*_FIELDS, "format", "files", "card", "labels"}
    return Bundle(
        path=directory,
        sha256=file_sha256(path),
        labels=LABELS,
        files=document["files"],
        card=document["card"],
        parts={name: value for name, value in document.items() if name not in known},
        **fields,
    )


_FIELDS: dict[str, type] = {
    "name": str,
    "description": str,
    "kind": str,
    "chunk_nt": int,
    "block_nt": int,
    "min_nt": int,
    "validated_nt": int,
    "threshold": float,
}

# Rows of a block are counted in 32 bits.
_MOST_NT = 2**31 - 1
_RANGES: dict[str, tuple[int, int]] = {
    "chunk_nt": (1, _MOST_NT),
    "block_nt": (1, _MOST_NT),
    "validated_nt": (0, _MOST_NT),
    "threshold": (0, 1),
}


def _field(path: Path, document: Mapping[str, Any], name: str, kind: type) -> Any:  # noqa: ANN401
    value: Any = document.get(name)
    if type(value) is not kind or (isinstance(value, int) and value < 0):
        raise BundleError(f"{path}: {name} is {value!r}, not a usable {kind.__name__}; {_DAMAGED}")
    return value


def _check_fields(path: Path, fields: Mapping[str, Any]) -> None:
    """Raises BundleError for a kind that is none, and for a number that nothing can run with."""
    if fields["kind"] not in KINDS:
        raise BundleError(
            f"{path}: kind is {fields['kind']!r}, not one of {', '.join(KINDS)}; {_DAMAGED}"
        )
    ranges = {**_RANGES, "min_nt": (0, fields["chunk_nt"])}
    for name, (least, most) in ranges.items():
        if not least <= fields[name] <= most:  # nan lies in no range
            raise BundleError(
                f"{path}: {name} is {fields[name]}, but must lie in {least} to {most}; {_DAMAGED}"
            )


def _without_none(values: Mapping[str, Any]) -> dict[str, Any]:
    """TOML has no null: what is not known is left out."""
    return {name: _plain(value) for name, value in values.items() if value is not None}


def _plain(value: Any) -> Any:  # noqa: ANN401
    if isinstance(value, Mapping):
        return _without_none(value)
    if isinstance(value, list | tuple):
        return [_plain(item) for item in value if item is not None]
    if isinstance(value, np.generic):
        return value.item()
    return value
