"""A published model, fetched or carried here, verified part by part and made into a bundle.

Every file is checked under another name before it gets its own; bundle.toml comes last. What was
done is not done again. The network is downloads' business; without it, everything is taken from a
folder.
"""

import fcntl
import json
import os
import re
import shutil
from collections import Counter
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

from virnucpro.bundle import downloads_folder, load
from virnucpro.bundle.assemble import (
    PICKLE,
    EncoderFiles,
    copy_checked,
    frames_manifest,
    head_table,
    write_parts,
    wrong_fields,
)
from virnucpro.bundle.catalogue import CONFIG, PARTS, Known, KnownEncoder, KnownFile, git_blob_id
from virnucpro.bundle.fetch import (
    PART,
    NoNetwork,
    Progress,
    address,
    chosen_hub_folder,
    fetch,
    in_hub_cache,
)
from virnucpro.bundle.manifest import MANIFEST, Bundle, read_manifest
from virnucpro.bundle.pickled_head import read_head
from virnucpro.classifiers.open_frames import HEAD
from virnucpro.errors import BundleError, ResumeError
from virnucpro.progress import Position
from virnucpro.progress import Progress as Watcher
from virnucpro.storage.atomic import disk_errors
from virnucpro.storage.digests import VARIABLE, cache_dir, file_digest, file_sha256
from virnucpro.storage.lock import Lock

ENCODERS = "encoders"
# A carried bundle lies flat; a hub's cache has its files three folders down.
_DEPTH = 4
INDEX = ".index.json"
SHARD = re.compile(r".+-\d{5}-of-\d{5}\..+")
_LARGEST_HEAD_BYTES = 2**30
# What a file system needs beside the files themselves.
_MARGIN_BYTES = 50_000_000
# In the directory of a bundle, while a download is at work there.
_LOCKED = ".being-downloaded"


class Source(Protocol):
    """Where the files of a published model come from."""

    def head(self, known: Known, part: Path, progress: Progress) -> None:
        """Puts the head's file there."""

    def encoder_file(
        self, encoder: KnownEncoder, file: KnownFile, part: Path, progress: Progress
    ) -> None:
        """Puts a file of an encoder there."""


class Network:
    """Addresses of the catalogue, and the hub."""

    def head(self, known: Known, part: Path, progress: Progress) -> None:
        """Downloads it."""
        fetch(known.head.url, part, known.head.size_bytes, progress)

    def encoder_file(
        self, encoder: KnownEncoder, file: KnownFile, part: Path, progress: Progress
    ) -> None:
        """Downloads it."""
        fetch(address(encoder, file.name), part, file.size_bytes, progress)


@dataclass(frozen=True, slots=True)
class Folder:
    """A folder with the published files, or a bundle that was carried here; no network."""

    path: Path

    def head(self, known: Known, part: Path, progress: Progress) -> None:
        """Copies the file of the published id, whatever its name."""
        seen = []
        for folder in self._folders():
            for file in sorted(folder.glob("*.pth")):
                if file.is_file() and file.stat().st_size <= _LARGEST_HEAD_BYTES:
                    seen.append(file)
                    if _is_head(known, file):
                        copy_checked(file, part, file_digest(file), progress)
                        return
        among = f"none of {', '.join(map(str, seen))} is it" if seen else "no .pth file is there"
        raise BundleError(
            f"{self.path}: the head {known.head.file} of {known.name} (git blob "
            f"{known.head.git_blob}) is not in this folder; {among}; name the folder that has it "
            "with --from"
        )

    def encoder_file(
        self, encoder: KnownEncoder, file: KnownFile, part: Path, progress: Progress
    ) -> None:
        """Copies it out of the folder that has all of the encoder's files."""
        source = self._of(encoder) / file.name
        copy_checked(source, part, file_digest(source), progress)

    def _of(self, encoder: KnownEncoder) -> Path:
        """The folder of an encoder, told by content; BundleError naming what is wrong."""
        names = {file.name for file in encoder.files}
        wrong: list[str] = []
        for folder in self._folders():
            if not all((folder / name).is_file() for name in names):
                continue
            faults = list(_faults(encoder, folder))
            if not faults:
                return folder
            wrong += faults
        reason = (
            "; ".join(wrong)
            if wrong
            else f"no folder there, {_DEPTH} levels deep, has all of {', '.join(sorted(names))}"
        )
        raise BundleError(
            f"{self.path}: {encoder.repository} as published is not in this folder: {reason}; an "
            "encoder in another layout goes with `virnucpro bundles import`"
        )

    def _folders(self) -> Iterator[Path]:
        if not self.path.is_dir():
            raise BundleError(f"{self.path}: no such folder; name the one that was carried here")
        for root, folders, _ in os.walk(self.path, followlinks=True):
            folders.sort()
            if len(Path(root).relative_to(self.path).parts) == _DEPTH:
                folders.clear()
            yield Path(root)


def _faults(encoder: KnownEncoder, folder: Path) -> Iterator[str]:
    for file in encoder.files:
        if fault := _fault(encoder, file, folder / file.name):
            yield fault


def _fault(encoder: KnownEncoder, file: KnownFile, path: Path, named: Path | None = None) -> str:
    """What is wrong with a file that should be this one; nothing if it is the one."""
    name = named or path
    size = path.stat().st_size
    if file.size_bytes not in (None, size):
        return f"{name} has {size:,} bytes instead of {file.size_bytes:,}"
    if file.sha256 is not None and file_digest(path) != file.sha256:
        return f"{name} has another sha256 than the published file"
    wrong = []
    if file.name == CONFIG:
        wrong = wrong_fields(encoder, path)
    elif file.name.endswith(INDEX) and not _names_shards(encoder, path):
        wrong = ["it does not name the published shards"]
    return f"{name} is not the published one: {'; '.join(wrong)}" if wrong else ""


def _names_shards(encoder: KnownEncoder, path: Path) -> bool:
    """Whether an index of shards names just those of this encoder."""
    shards = {file.name for file in encoder.files if SHARD.fullmatch(file.name)}
    try:
        return {*json.loads(path.read_bytes())["weight_map"].values()} == shards
    except (OSError, ValueError, TypeError, KeyError, AttributeError):
        return False


@dataclass(frozen=True, slots=True)
class Placed:
    """Where the parts of a model go: the bundle's directory, and each encoder's folder."""

    bundle: Path
    encoders: Mapping[str, Path]

    def folder(self, encoder: KnownEncoder) -> Path:
        """That of one encoder."""
        return self.encoders[encoder.part]


def placed(known: Known, to: Path | None, source: Path | None) -> Placed:
    """Where a model goes: all of it into the directory to, or else into the caches.

    source: the folder that it comes from, None for the network. Raises BundleError where there is
    no cache, and where the directory holds anything but this model.
    """
    if to is not None:
        places = Placed(to, {encoder.part: to / encoder.part for encoder in known.encoders})
        with disk_errors(to, "--to"):
            if to.exists() and not _is_ours(known, places):
                raise BundleError(f"{to}: already holds something else; choose an empty directory")
        return places
    cache, downloads = cache_dir(), downloads_folder()
    if cache is None or downloads is None:
        raise BundleError(
            f"{known.name} cannot be kept: there is no usable cache folder; set {VARIABLE} to a "
            f"folder, or choose one for this bundle with --to"
        )
    encoders = {}
    for encoder in known.encoders:
        shared = chosen_hub_folder(encoder) if source is None else None
        encoders[encoder.part] = shared or cache / ENCODERS / encoder.name
    return Placed(downloads / known.name, encoders)


def _is_ours(known: Known, places: Placed) -> bool:
    """Whether all that lies in a directory came there by an earlier download of this model.

    An imported bundle has the same names in it, and its encoders may be the only copy of a user's
    own: without the manifest that a download writes last, every file must be a verified one.
    """
    directory = places.bundle
    ours = {PICKLE, PICKLE + PART, HEAD, MANIFEST, *PARTS, _LOCKED}
    if not directory.is_dir() or not ours.issuperset(path.name for path in directory.iterdir()):
        return False
    try:
        return _is_downloaded(known, read_manifest(directory))
    except BundleError:  # not written yet, or damaged
        head = directory / PICKLE
        return (not head.exists() or _is_head(known, head)) and not any(
            _fault(encoder, file, places.folder(encoder) / file.name)
            for encoder in known.encoders
            for file in encoder.files
            if (places.folder(encoder) / file.name).exists()
        )


def _is_downloaded(known: Known, manifest: Mapping[str, Any]) -> bool:
    """Whether a manifest is that which a download of this model writes."""
    try:
        encoders, head = manifest["encoders"], manifest["head"]["git_blob"]
        whose = {part: (encoders[part]["path"], encoders[part]["revision"]) for part in PARTS}
    except (KeyError, TypeError):
        return False
    wanted = {encoder.part: (encoder.part, encoder.revision) for encoder in known.encoders}
    return (manifest.get("name"), head, whose) == (known.name, known.head.git_blob, wanted)


def acquire(
    known: Known, places: Placed, source: Source, stages: Watcher, *, apart: bool = False
) -> Bundle:
    """Brings every part to its place, verified, and writes the bundle.

    apart: whether the bundle must stand alone, as one that is to be carried does. A second call
    goes on where the first was stopped, and mends what is damaged. Raises BundleError.
    """
    links = isinstance(source, Network) and not apart
    with disk_errors(places.bundle, "--to"):
        missing = _missing(known, places, stages, links=links)
        if not missing and (bundle := _whole(known, places.bundle)):
            stages.line(f"{known.name} is there already, and whole")
            return bundle
        progress = _Progress(stages, sum(missing.values()))
        _check_space(missing)
        with _locked(places.bundle):
            _head(known, places.bundle / PICKLE, source, progress)
            for encoder in known.encoders:
                for file in encoder.files:
                    target = places.folder(encoder) / file.name
                    if target in missing:
                        _encoder_file(encoder, file, target, source, progress, apart=apart)
            return _written(known, places)


def _whole(known: Known, directory: Path) -> Bundle | None:
    """The bundle of this model, if it is there and its own files are what they should be."""
    try:
        if not _is_downloaded(known, read_manifest(directory)):
            return None
        bundle = load(directory)
        for name in (HEAD, PICKLE):
            bundle.file(name)
    except BundleError:
        return None
    return bundle


@contextmanager
def _locked(directory: Path) -> Iterator[None]:
    """While this download alone is at work in the directory of a bundle, which is made.

    Where nothing came, it is not left behind.
    """
    new = not directory.exists()
    try:
        lock = Lock(directory / _LOCKED)
    except ResumeError as error:
        raise BundleError(
            f"{directory}: another download of this bundle is under way; wait for it to end"
        ) from error
    try:
        yield
    finally:
        lock.remove()
        if new:
            with suppress(OSError):  # something lies there
                directory.rmdir()


class _Progress:
    """Bytes of all files together, as steps."""

    def __init__(self, stages: Watcher, total: int) -> None:
        self.stages, self.total, self.done, self.name = stages, total, 0, ""

    def __call__(self, new_bytes: int) -> None:
        self.done += new_bytes
        total = max(self.total, self.done)
        note = f"{self.name}, {self.done / 1e6:,.0f} of {total / 1e6:,.0f} MB"
        self.stages.advance(Position(self.done, total, note))


def _missing(known: Known, places: Placed, stages: Watcher, *, links: bool) -> dict[Path, int]:
    """What is not there yet, or damaged, and how many bytes of it are to come.

    links: whether files in the hub's cache are linked to, and take no room.
    """
    found: dict[Path, int] = {}
    head = places.bundle / PICKLE
    if not _is_head(known, head):
        found[head] = known.head.size_bytes or 0
    for encoder in known.encoders:
        for file in encoder.files:
            target = places.folder(encoder) / file.name
            if target.exists():
                if not (fault := _fault(encoder, file, target)):
                    continue
                stages.line(f"{fault}; it is fetched again")
            part = target.with_name(target.name + PART)
            have = part.stat().st_size if part.exists() else 0
            linked = links and in_hub_cache(encoder, file.name) is not None
            found[target] = 0 if linked else max(0, (file.size_bytes or 0) - have)
    return found


def _check_space(missing: Mapping[Path, int]) -> None:
    """Raises BundleError where a disk has no room for what is to come."""
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


def _is_head(known: Known, path: Path) -> bool:
    try:
        return git_blob_id(path.read_bytes()) == known.head.git_blob
    except OSError:  # not there, or not for us
        return False


def _head(known: Known, target: Path, source: Source, progress: _Progress) -> None:
    if _is_head(known, target):
        return
    part = target.with_name(target.name + PART)
    progress.name = known.head.file
    with _alone(part):
        source.head(known, part, progress)
        blob = git_blob_id(part.read_bytes())
        if blob != known.head.git_blob or known.head.sha256 not in (None, file_sha256(part)):
            part.unlink()
            raise BundleError(
                f"{known.head.file}: what came is not the published head (git blob {blob} instead "
                f"of {known.head.git_blob}), and was not kept; run the same command again, or give "
                "the file with --from"
            )
        part.replace(target)


def _encoder_file(
    encoder: KnownEncoder,
    file: KnownFile,
    target: Path,
    source: Source,
    progress: _Progress,
    *,
    apart: bool,
) -> None:
    target.parent.mkdir(parents=True, exist_ok=True)
    part = target.with_name(target.name + PART)
    progress.name = f"{encoder.repository} {file.name}"
    other = in_hub_cache(encoder, file.name) if isinstance(source, Network) else None
    if other is not None and not _fault(encoder, file, other):
        with _alone(part):
            if apart:
                copy_checked(other, part, file_digest(other), progress)
            else:
                part.unlink()
                part.symlink_to(other)
            part.replace(target)
        return
    with _alone(part):
        if target.exists() and not _fault(encoder, file, target):
            return  # come meanwhile, for another bundle with this encoder
        source.encoder_file(encoder, file, part, progress)
        if fault := _fault(encoder, file, part, named=target):
            part.unlink()
            raise BundleError(
                f"{fault}; what came was not kept: run the same command again, or give the file "
                "with --from"
            )
        part.replace(target)


@contextmanager
def _alone(part: Path) -> Iterator[None]:
    """While no other process writes this file. Raises BundleError where one does."""
    with part.open("ab") as file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
            mine = os.path.samestat(os.fstat(file.fileno()), part.stat())
        except (BlockingIOError, FileNotFoundError):
            mine = False  # the other may have put it into its place just now
        if not mine:
            raise BundleError(
                f"{part}: another download of this file is under way; wait for it to end"
            )
        try:
            yield
        finally:
            if part.exists() and not part.is_symlink() and not part.stat().st_size:
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
    return write_parts(places.bundle, manifest, head.arrays, {PICKLE: data})


def download(known: Known, to: Path | None, source: Path | None, stages: Watcher) -> Bundle:
    """A published model from the network, or without it from a folder that was carried here.

    to: a directory that then holds all of it; None: the caches. Raises BundleError; where there is
    no network, with what to run elsewhere.
    """
    places = placed(known, to, source)
    offer: Source = Network() if source is None else Folder(source)
    try:
        return acquire(known, places, offer, stages, apart=to is not None)
    except NoNetwork as error:
        raise NoNetwork(_elsewhere(known, error.reason)) from error


def _elsewhere(known: Known, reason: str) -> str:
    return (
        f"{known.name} cannot be fetched here: {reason}; on a machine with network run "
        f"`virnucpro bundles download {known.name} --to {known.name}`, carry the folder "
        f"{known.name} here, and run `virnucpro bundles download {known.name} --from {known.name}`"
    )
