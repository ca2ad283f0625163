"""Bundles: directories that hold everything a classifier needs, and say what was measured of it.

bundle.toml names the chunk length, how frames are scored, every file with its sha256, the training
record and the card. The sha256 of a bundle is that of its bundle.toml. This module knows the
directory; what computes with it lies in classifiers/, which is loaded only when asked for.
"""

import tomllib
from collections.abc import Mapping
from dataclasses import dataclass, field
from enum import StrEnum
from pathlib import Path
from typing import TYPE_CHECKING, Any

from numpy.typing import NDArray
from safetensors import SafetensorError
from safetensors.numpy import load as load_arrays

from virnucpro.bundle.catalogue import read_catalogue
from virnucpro.calls import KINDS, Kind
from virnucpro.errors import BundleError
from virnucpro.storage.digests import file_digest, file_sha256, refuse_irregular

if TYPE_CHECKING:
    import torch

    from virnucpro.bundle.calibration import Calibration
    from virnucpro.classifiers import Classifier
    from virnucpro.classifiers.head import Head
    from virnucpro.devices.compute import Compute

FORMAT = 1
MANIFEST = "bundle.toml"
# The largest embedded one has 63 kB; of 50 MB tomllib would need minutes.
MOST_MANIFEST_BYTES = 4_000_000
_DAMAGED = "the bundle is damaged, fetch or make it again"
LABELS = ("others", "virus")


class Provenance(StrEnum):
    """The provenance of the weights that a bundle holds, in the words of a log."""

    PUBLISHED = "the published VirNucPro model"
    PUBLISHED_HEAD = (
        "the published VirNucPro head, but not on the encoders that it was published with: "
        "thresholds made for those may not apply"
    )
    OTHER = "not the published VirNucPro model: thresholds made for that one do not apply"


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
    kind: Kind
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
        except KeyError as error:  # a type of numbers that numpy lacks
            raise BundleError(f"{path}: holds arrays of type {error}; {_DAMAGED}") from error

    def part(self, name: str) -> Mapping[str, Any]:
        """Settings of one part. Raises BundleError."""
        found = self.parts.get(name)
        if not isinstance(found, Mapping):
            raise BundleError(
                f"{self.path / MANIFEST}: has no table [{name}], as its kind needs; {_DAMAGED}"
            )
        return found

    def encoder(self, name: str) -> Path:
        """The directory or file of an encoder, its files checked. Raises BundleError."""
        from virnucpro.bundle.encoder_files import checked_encoder

        return checked_encoder(self.path / MANIFEST, self.parts, name)

    @property
    def provenance(self) -> Provenance:
        """The provenance of these weights, by the digests that the manifest lists."""
        blob = table_of(self.parts, "head").get("git_blob")
        known = read_catalogue().of_head(blob) if self.kind == "frames" else None
        if known is None or known.chunk_nt != self.chunk_nt:
            return Provenance.OTHER
        given = table_of(self.parts, "encoders")
        theirs = all(
            table_of(given, encoder.part).get("revision") == encoder.revision
            and encoder.recognises(table_of(table_of(given, encoder.part), "sha256"))
            for encoder in known.encoders
        )
        return Provenance.PUBLISHED if theirs else Provenance.PUBLISHED_HEAD

    @property
    def record_threshold(self) -> float:
        """Least p_virus of a record called virus; that of chunks, unless there is a calibration."""
        calibrated = table_of(self.parts, "calibration").get("threshold", self.threshold)
        return float(calibrated)

    @property
    def calibration(self) -> "Calibration | None":
        """The calibration that makes scores of records comparable; None where it was not fitted.

        Raises BundleError.
        """
        from virnucpro.bundle.calibration import CALIBRATION, Calibration

        if "calibration" not in self.parts:
            return None
        arrays = self.arrays(CALIBRATION)
        try:
            return Calibration.of(self.part("calibration"), arrays, self.chunk_nt)
        except (KeyError, TypeError, ValueError) as error:
            raise BundleError(
                f"{self.path / CALIBRATION}: does not fit {MANIFEST} ({error}); {_DAMAGED}"
            ) from error

    @property
    def head(self) -> "Head":
        """The head alone, without its encoders. Raises BundleError for a kind without a head."""
        from virnucpro.classifiers import head_of

        return head_of(self)

    def classifier(
        self,
        device: "str | torch.device" = "cpu",
        precision: str = "auto",
        compute: "Compute | None" = None,
        *,
        embeddings: bool = False,
    ) -> "Classifier":
        """Return a classifier of chunks with this bundle; see classifiers.classifier_of."""
        from virnucpro.classifiers import DEFAULTS, classifier_of

        return classifier_of(self, device, precision, compute or DEFAULTS, embeddings=embeddings)


def read_manifest(directory: Path) -> dict[str, Any]:
    """bundle.toml as it stands. Raises BundleError."""
    path = directory / MANIFEST
    refuse_irregular(path)
    try:
        if (size := path.stat().st_size) > MOST_MANIFEST_BYTES:
            raise BundleError(f"{path}: {size:,} bytes are too many for a manifest; {_DAMAGED}")
        return tomllib.loads(path.read_text("utf-8"))
    except OSError as error:
        raise BundleError(
            f"{path}: cannot be read ({error.strerror or error}); make it readable, or choose "
            "another bundle"
        ) from error
    except (ValueError, RecursionError) as error:  # also of an integer of thousands of digits
        raise BundleError(f"{path}: not a TOML file ({error}); {_DAMAGED}") from error


def table_of(values: Mapping[str, Any], name: str) -> Mapping[str, Any]:
    """A table that a manifest may lack; nothing where something else stands in its place."""
    found = values.get(name)
    return found if isinstance(found, Mapping) else {}


def read_bundle(directory: Path) -> Bundle:
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
    for name in document["files"]:
        check_file_name(path, name)
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


def check_file_name(manifest: Path, name: object) -> None:
    """Raise BundleError if what a manifest names is not a file in the folder of the bundle."""
    plain = isinstance(name, str) and name not in ("", ".", "..") and name.isprintable()
    if not plain or "/" in str(name) or "\\" in str(name):
        raise BundleError(
            f"{manifest}: {name!a} is a path, and files of a bundle are named without one; "
            f"{_DAMAGED}"
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
    """Raise BundleError if the kind is unknown, or if a number is one that nothing can run with."""
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
