"""A published model, downloaded or carried here, verified file by file and made into a bundle.

Every file is checked under another name before it gets its own; bundle.toml comes last. Files that
are there already are not fetched again. The network is fetch's business; without it, everything
comes from a folder that was made with --to elsewhere.
"""

import json
import os
import re
import shutil
from collections import Counter
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any, Protocol

from virnucpro.bundle import downloads_folder, load
from virnucpro.bundle.assemble import (
    PICKLE,
    EncoderFiles,
    copy_checked,
    frames_manifest,
    head_table,
    wrong_fields,
)
from virnucpro.bundle.catalogue import CONFIG, PARTS, Known, KnownEncoder, KnownFile, git_blob_id
from virnucpro.bundle.fetch import (
    PART,
    NoNetwork,
    Progress,
    address,
    fetch,
    hub_folder,
    hub_is_chosen,
)
from virnucpro.bundle.manifest import Bundle, read_manifest
from virnucpro.bundle.pickled_head import read_head
from virnucpro.bundle.write import being_made, check_free, write_files
from virnucpro.classifiers.open_frames import HEAD
from virnucpro.errors import BundleError
from virnucpro.progress import Position
from virnucpro.progress import Progress as Watcher
from virnucpro.storage.atomic import disk_errors
from virnucpro.storage.digests import VARIABLE, cache_dir, file_digest

ENCODERS = "encoders"
INDEX = ".index.json"
SHARD = re.compile(r".+-\d{5}-of-\d{5}\..+")
# What a file system needs beside the files themselves.
_MARGIN_BYTES = 50_000_000


@dataclass(frozen=True, slots=True)
class Placed:
    """The places of a model's parts: the bundle's directory, and each encoder's folder.

    lock: the directory in which one process works at a time.
    """

    bundle: Path
    encoders: Mapping[str, Path]
    lock: Path

    def folder(self, encoder: KnownEncoder) -> Path:
        """Return the folder of an encoder."""
        return self.encoders[encoder.part]


@dataclass(frozen=True, slots=True)
class ModelFile:
    """A file of a published model.

    name: for a person. target: where it goes. inside: where a bundle made with --to has it. hub:
    where the hub's own cache would have it. fault: says what is wrong with a file that should be
    this one; empty if it is the one.
    """

    name: str
    target: Path
    inside: str
    address: str
    size_bytes: int | None
    hub: Path | None
    fault: Callable[[Path], str]


def _wanted(known: Known, places: Placed) -> Iterator[ModelFile]:
    head, at = known.head, places.bundle / PICKLE
    yield ModelFile(head.file, at, PICKLE, head.url, None, None, partial(_head_fault, known))
    for encoder in known.encoders:
        for file in encoder.files:
            yield ModelFile(
                f"{encoder.repository} {file.name}",
                places.folder(encoder) / file.name,
                f"{encoder.part}/{file.name}",
                address(encoder, file.name),
                file.size_bytes,
                hub_folder(encoder) / file.name,
                partial(_fault, encoder, file),
            )


def _head_fault(known: Known, path: Path) -> str:
    blob, published = git_blob_id(path.read_bytes()), known.head.git_blob
    return "" if blob == published else f"its git blob is {blob} instead of {published}"


def _fault(encoder: KnownEncoder, file: KnownFile, path: Path) -> str:
    size = path.stat().st_size
    if file.size_bytes not in (None, size):
        return f"it has {size:,} bytes instead of {file.size_bytes:,}"
    if file.sha256 is not None and file_digest(path) != file.sha256:
        return "it has another sha256 than the published file"
    wrong = []
    if file.name == CONFIG:
        wrong = wrong_fields(encoder, path)
    elif file.name.endswith(INDEX) and not _names_shards(encoder, path):
        wrong = ["it does not name the published shards"]
    return f"it is not the published one: {'; '.join(wrong)}" if wrong else ""


def _names_shards(encoder: KnownEncoder, path: Path) -> bool:
    """Return True if an index of shards names exactly the shards of this encoder."""
    shards = {file.name for file in encoder.files if SHARD.fullmatch(file.name)}
    try:
        return {*json.loads(path.read_bytes())["weight_map"].values()} == shards
    except (OSError, ValueError, TypeError, KeyError, AttributeError):
        return False


class Origin(Protocol):
    """The source of the files of a published model."""

    def bring(self, wanted: ModelFile, part: Path, progress: Progress) -> None:
        """Put a file at part; whoever asks checks it."""


class Network:
    """The addresses of the catalogue; files that the hub's cache has are copied."""

    def bring(self, wanted: ModelFile, part: Path, progress: Progress) -> None:
        """Download it, or copy it. Raises BundleError."""
        hub = wanted.hub
        if hub is not None and hub.is_file() and not wanted.fault(hub):
            copy_checked(hub, part, file_digest(hub), progress)
        else:
            fetch(wanted.address, part, wanted.size_bytes, progress)


@dataclass(frozen=True, slots=True)
class Folder:
    """A folder that was made with --to and carried here."""

    path: Path

    def bring(self, wanted: ModelFile, part: Path, progress: Progress) -> None:
        """Copy it. Raises BundleError where it is missing or another one."""
        file = self.path / wanted.inside
        fault = wanted.fault(file) if file.is_file() else "missing"
        if fault:
            raise BundleError(
                f"{file}: {fault}; name a folder that was made with `virnucpro bundles download "
                "--to`, or use `virnucpro bundles import` for files from elsewhere"
            )
        copy_checked(file, part, file_digest(file), progress)


def placed(known: Known, to: Path | None, source: Path | None) -> Placed:
    """Return where a model goes: all of it into the directory to, or else into the caches.

    An encoder that lies in the hub's cache is used where it is; it also goes there if HF_HOME or
    HF_HUB_CACHE is set and it comes from the network (source: None). Raises BundleError where
    no cache folder can be used, and where the directory holds anything but this model.
    """
    if to is not None:
        with disk_errors(to, "--to"):
            if not _is_downloaded(known, to):
                check_free(to)
        return Placed(to, {encoder.part: to / encoder.part for encoder in known.encoders}, to)
    cache, downloads = cache_dir(), downloads_folder()
    if cache is None or downloads is None:
        raise BundleError(
            f"{known.name} cannot be kept: there is no usable cache folder; set {VARIABLE} to a "
            f"folder, or choose one for this bundle with --to"
        )
    encoders = {}
    for encoder in known.encoders:
        hub, own = hub_folder(encoder), cache / ENCODERS / encoder.name
        in_hub = (source is None and hub_is_chosen()) or _is_whole(encoder, hub)
        encoders[encoder.part] = hub if in_hub else own
    return Placed(downloads / known.name, encoders, downloads)


def _is_whole(encoder: KnownEncoder, folder: Path) -> bool:
    paths = [(file, folder / file.name) for file in encoder.files]
    return all(path.is_file() for _, path in paths) and not any(
        _fault(encoder, file, path) for file, path in paths
    )


def _is_downloaded(known: Known, directory: Path) -> bool:
    """Return True if a directory has the manifest that a download of this model writes."""
    try:
        manifest = read_manifest(directory)
        encoders, head = manifest["encoders"], manifest["head"]["git_blob"]
        whose = {part: (encoders[part]["path"], encoders[part]["revision"]) for part in PARTS}
    except (BundleError, KeyError, TypeError):
        return False
    wanted = {encoder.part: (encoder.part, encoder.revision) for encoder in known.encoders}
    return (manifest.get("name"), head, whose) == (known.name, known.head.git_blob, wanted)


def acquire(known: Known, places: Placed, origin: Origin, stages: Watcher) -> Bundle:
    """Bring every file to its place, verified, and write the bundle.

    A second call continues where the first was stopped, and mends what is damaged. Raises
    BundleError.
    """
    with disk_errors(places.bundle, "--to"):
        missing = _missing(known, places, stages)
        if not missing and (bundle := _whole(known, places)):
            stages.line(f"{known.name} is there already, and whole")
            return bundle
        progress = _Progress(stages, sum(missing.values()))
        _check_space({wanted.target: size for wanted, size in missing.items()})
        with being_made(places.lock):
            for wanted in missing:
                progress.name = wanted.name
                _bring(wanted, origin, progress)
            return _written(known, places)


def _whole(known: Known, places: Placed) -> Bundle | None:
    """Return the bundle of this model, if it is there and its own files are whole."""
    directory = places.bundle
    links = {directory / encoder.part: places.folder(encoder) for encoder in known.encoders}
    if not _is_downloaded(known, directory) or any(
        inside.resolve() != folder.resolve() for inside, folder in links.items()
    ):
        return None
    try:
        bundle = load(directory)
        for name in (HEAD, PICKLE):
            bundle.file(name)
    except BundleError:
        return None
    return bundle


class _Progress:
    """Bytes of all files together, as steps."""

    def __init__(self, stages: Watcher, total: int) -> None:
        self.stages, self.total, self.done, self.name = stages, total, 0, ""

    def __call__(self, new_bytes: int) -> None:
        self.done += new_bytes
        total = max(self.total, self.done)
        note = f"{self.name}, {self.done / 1e6:,.0f} of {total / 1e6:,.0f} MB"
        self.stages.advance(Position(self.done, total, note))


def _part(target: Path) -> Path:
    return target.with_name(target.name + PART)


def _missing(known: Known, places: Placed, stages: Watcher) -> dict[ModelFile, int]:
    """Return the files that are missing or damaged, and how many bytes of each are to come."""
    found: dict[ModelFile, int] = {}
    for wanted in _wanted(known, places):
        if wanted.target.exists():
            if not (fault := wanted.fault(wanted.target)):
                continue
            stages.line(f"{wanted.target}: {fault}; it is fetched again")
        part = _part(wanted.target)
        have = part.stat().st_size if part.exists() else 0
        found[wanted] = max(0, (wanted.size_bytes or 0) - have)
    return found


def _check_space(missing: Mapping[Path, int]) -> None:
    """Raise BundleError where a disk lacks room for what is to come."""
    needed: Counter[int] = Counter()
    place: dict[int, Path] = {}
    for target, size in missing.items():
        folder = target.parent
        while not folder.exists():
            folder = folder.parent
        device = folder.stat().st_dev
        needed[device] += size
        place[device] = folder
    for device, size in needed.items():
        free = shutil.disk_usage(place[device]).free
        if size + _MARGIN_BYTES * (size > 0) > free:
            raise BundleError(
                f"{place[device]}: {size / 1e9:.1f} GB are still needed here, but "
                f"{free / 1e9:.1f} GB are free; free some, or choose another place with --to or "
                f"{VARIABLE}"
            )


def _bring(wanted: ModelFile, origin: Origin, progress: Progress) -> None:
    part = _part(wanted.target)
    part.parent.mkdir(parents=True, exist_ok=True)
    try:
        origin.bring(wanted, part, progress)
        if fault := wanted.fault(part):
            part.unlink()
            raise BundleError(
                f"{wanted.name}: {fault}; it was not kept: run the same command again, or use "
                "`virnucpro bundles import` for files that you have"
            )
        part.replace(wanted.target)
    finally:
        if part.exists() and not part.stat().st_size:
            part.unlink()


def _written(known: Known, places: Placed) -> Bundle:
    head = read_head(places.bundle / PICKLE)
    data = (places.bundle / PICKLE).read_bytes()
    tables: dict[str, Any] = {}
    for encoder in known.encoders:
        folder, inside = places.folder(encoder), places.bundle / encoder.part
        if folder != inside:
            inside.unlink(missing_ok=True)
            # Relative, so that a whole cache can be moved.
            inside.symlink_to(os.path.relpath(folder.resolve(), places.bundle.resolve()))
        found = EncoderFiles.at(encoder.part, inside)
        if not encoder.recognises(found.sums):
            raise BundleError(f"{folder}: changed while it was fetched; run the same command again")
        tables[encoder.part] = found.table(encoder, inside=True)
    parts = {
        "head": {
            **head_table(head, known.head.git_blob),
            "licence": known.head.licence,
            "origin": known.head.origin,
        },
        "encoders": tables,
        "card": {
            "measured": "by nobody here: the published weights were not at hand when this program "
            "was made; `virnucpro evaluate` measures them on your data"
        },
    }
    manifest = frames_manifest(known.name, known.description, known.chunk_nt, parts)
    return write_files(places.bundle, manifest, {HEAD: head.arrays, PICKLE: data})


def download(known: Known, places: Placed, source: Path | None, stages: Watcher) -> Bundle:
    """Return a published model from the network, or without it from a folder made with --to.

    Raises BundleError; where nothing can be reached, with what to run elsewhere.
    """
    try:
        return acquire(known, places, Network() if source is None else Folder(source), stages)
    except NoNetwork as error:
        raise NoNetwork(_elsewhere(known, error.reason)) from error


def _elsewhere(known: Known, reason: str) -> str:
    return (
        f"{known.name} cannot be fetched here: {reason}; on a machine with network run "
        f"`virnucpro bundles download {known.name} --to {known.name}`, carry the folder "
        f"{known.name} here, and run `virnucpro bundles download {known.name} --from {known.name}`"
    )
