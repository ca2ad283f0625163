"""A bundle of kind frames out of its parts: a head, two encoders, and whose they are.

Encoders are named where they lie, or copied into the bundle. bundle.toml is written last, so that a
directory that lacks something is not a bundle.
"""

import hashlib
import json
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from types import MappingProxyType
from typing import Any

from virnucpro.bundle.catalogue import CONFIG, PARTS, KnownEncoder, git_blob_id, read_catalogue
from virnucpro.bundle.encoder_files import encoder_config, encoder_files, encoder_sums
from virnucpro.bundle.manifest import LABELS, Bundle
from virnucpro.bundle.pickled_head import PickledHead, read_head
from virnucpro.bundle.write import Arrays, being_made, check_free, write_files
from virnucpro.calls import DEFAULT_THRESHOLD
from virnucpro.classifiers.open_frames import BLOCK_NT, DNABERT_S, HEAD
from virnucpro.encoders.dnabert_s import dnabert_s_config
from virnucpro.encoders.esm2 import check_chunk, esm2_config
from virnucpro.errors import BundleError
from virnucpro.storage.atomic import disk_errors

PICKLE = "head.pth"
_COPIED_AT_ONCE = 2**22


@dataclass(frozen=True, slots=True)
class EncoderFiles:
    """An encoder on disk: the files that it is read from, by name, with their sha256."""

    part: str
    path: Path
    files: Mapping[str, Path] = field(repr=False)
    sums: Mapping[str, str] = field(repr=False)

    @classmethod
    def at(cls, part: str, path: Path) -> "EncoderFiles":
        """Reads the files whole, but those that are known. Raises BundleError."""
        return cls(part, path, encoder_files(path), encoder_sums(path))

    @property
    def inside(self) -> str:
        """The path of the encoder in a bundle that holds a copy."""
        return self.part if self.path.is_dir() else f"{self.part}/{self.path.name}"

    def table(self, known: KnownEncoder | None, *, inside: bool) -> dict[str, Any]:
        """Return its entry of a manifest; known: whose it is; inside: whether the bundle has it."""
        path = self.inside if inside else str(self.path.resolve())
        whose = {} if known is None else _whose(known)
        return {"path": path, **whose, "sha256": dict(self.sums)}

    def published(self) -> KnownEncoder | None:
        """The published encoder that this is, by its digests and the fields of its config."""
        for bundle in read_catalogue().bundles:
            known = bundle.encoder(self.part)
            if known.recognises(self.sums) and not wrong_fields(known, self.files[CONFIG]):
                return known
        return None

    def copy_into(self, directory: Path) -> None:
        """Copies it into a bundle. Raises BundleError for a copy that differs."""
        for name, source in self.files.items():
            target = directory / self.part / name
            target.parent.mkdir(parents=True, exist_ok=True)
            copy_checked(source, target, self.sums[name])


def wrong_fields(known: KnownEncoder, path: Path) -> list[str]:
    """Fields of a config.json that are not those of this encoder, in words."""
    try:
        config = json.loads(path.read_bytes())
    except (OSError, ValueError):
        config = None
    if not isinstance(config, dict):
        return ["it is not a JSON object"]
    if "embed_dim" in config and "embed_dim" not in known.config:
        return ["it has embed_dim, a field of another layout"]  # whose fields would be read instead
    return [
        f"{name} is {config.get(name)!r} instead of {value!r}"
        for name, value in known.config.items()
        if config.get(name) != value
    ]


def _whose(known: KnownEncoder) -> dict[str, str]:
    return {
        "repository": known.repository,
        "revision": known.revision,
        "licence": known.licence,
        "origin": known.origin,
    }


def copy_checked(
    source: Path, target: Path, sha256: str, copied: Callable[[int], None] = lambda _: None
) -> None:
    """Copies a file, told of the bytes of each piece.

    Raises BundleError where it cannot be read, or is not what it was; OSError where it cannot be
    written.
    """
    digest = hashlib.sha256()
    with target.open("wb") as new:
        for piece in _pieces(source):
            digest.update(piece)
            new.write(piece)
            copied(len(piece))
    if digest.hexdigest() != sha256:
        target.unlink()
        raise BundleError(f"{source}: changed while it was copied; copy it again")


def _pieces(source: Path) -> Iterator[bytes]:
    try:
        with source.open("rb") as file:
            while piece := file.read(_COPIED_AT_ONCE):
                yield piece
    except OSError as error:
        raise BundleError(f"{source}: cannot be read ({error.strerror or error})") from error


def frames_manifest(
    name: str, description: str, chunk_nt: int, parts: Mapping[str, Any]
) -> dict[str, Any]:
    """bundle.toml of a bundle of kind frames, with these tables of its own."""
    return {
        "name": name,
        "description": description,
        "kind": "frames",
        "chunk_nt": chunk_nt,
        "block_nt": BLOCK_NT,
        "min_nt": 0,
        "validated_nt": chunk_nt,
        "threshold": DEFAULT_THRESHOLD,
        "labels": list(LABELS),
        **parts,
    }


def put_together(
    directory: Path,
    manifest: Mapping[str, Any],
    head: Arrays,
    files: Mapping[str, bytes] = MappingProxyType({}),
    copies: Iterable[EncoderFiles] = (),
) -> Bundle:
    """Copies encoders into a directory, writes the head and other files there, last the manifest.

    Raises VirnucproError where the disk refuses.
    """
    with disk_errors(directory), being_made(directory):
        for encoder in copies:
            encoder.copy_into(directory)
        return write_files(directory, manifest, {HEAD: head, **files})


@dataclass(frozen=True, slots=True)
class Imported:
    """A bundle made of a pickled head, and the lines that say what was found in it."""

    bundle: Bundle
    found: tuple[str, ...]


def import_head(
    path: Path,
    directory: Path,
    chunk_nt: int,
    encoders: Mapping[str, Path],
    *,
    copy: bool = False,
) -> Imported:
    """A bundle in an empty directory from a pickled head, and encoders by the names in PARTS.

    Encoders may be missing: such a bundle scores features, not sequences. copy: whether their files
    are copied into it. Raises BundleError for a file that is not a head, for a published head with
    another chunk length than its own, and for encoders that do not fit.
    """
    check_chunk(chunk_nt, BundleError)
    head = read_head(path)
    data = path.read_bytes()
    blob = git_blob_id(data)
    known = read_catalogue().of_head(blob)
    if known is not None and known.chunk_nt != chunk_nt:
        raise BundleError(
            f"{path}: this is the published head for chunks of {known.chunk_nt} nt, not of "
            f"{chunk_nt}; import it with --chunk {known.chunk_nt}"
        )
    widths = {part: encoder_width(part, path) for part, path in encoders.items()}
    if len(widths) == len(PARTS) and sum(widths.values()) != head.features:
        raise BundleError(
            f"{path}: the head takes {head.features:,} numbers a frame, these encoders give "
            f"{sum(widths.values()):,}; they do not belong together"
        )
    check_free(directory)
    found = [EncoderFiles.at(part, path) for part, path in encoders.items()]
    tables: dict[str, Any] = {"head": head_table(head, blob)}
    if found:
        tables["encoders"] = {e.part: e.table(e.published(), inside=copy) for e in found}
    whose = "a head" if known is None else f"the published head of {known.name}"
    description = f"{whose}, imported from {path.name}"
    manifest = frames_manifest(directory.resolve().name, description, chunk_nt, tables)
    copies = found if copy else ()
    bundle = put_together(directory, manifest, head.arrays, {PICKLE: data}, copies)
    return Imported(bundle, tuple(_findings(path, head, blob, bundle, found)))


def head_table(head: PickledHead, blob: str) -> dict[str, Any]:
    """Return the manifest's table of a head that came as a pickle, which lies beside it."""
    return {"file": PICKLE, "git_blob": blob, "features": head.features, "hidden": head.hidden}


def encoder_width(part: str, path: Path) -> int:
    """Numbers that an encoder gives, from its config. Raises BundleError for another encoder."""
    config = encoder_config(path)
    try:
        return dnabert_s_config(config).width if part == DNABERT_S else esm2_config(config).width
    except BundleError as error:
        raise BundleError(f"{path}: not the encoder {part}: {error}") from error


def _findings(
    path: Path, head: PickledHead, blob: str, bundle: Bundle, encoders: list[EncoderFiles]
) -> list[str]:
    kind = "a whole pickled module" if head.whole else "a state dict"
    known = read_catalogue().of_head(blob)
    whose = f"the published head {known.head.file}" if known else "not one of the published heads"
    lines = [
        f"{path}: {kind}; nothing in it was executed",
        f"{head.features:,} features, {head.hidden:,} hidden units, 2 classes",
        f"git blob {blob}: {whose}",
    ]
    for encoder in encoders:
        table = bundle.part("encoders")[encoder.part]
        its = f"{table['repository']} as published" if "repository" in table else "given by you"
        lines.append(f"{encoder.part}: {encoder.path}, {its}; {', '.join(encoder.files)}")
    missing = [part for part in PARTS if part not in {e.part for e in encoders}]
    if missing:
        lines.append(
            f"no encoder {' and '.join(missing)}: this bundle scores features, not sequences"
        )
    return lines
