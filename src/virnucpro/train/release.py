"""Files of a RefSeq release: listed, chosen, and downloaded one after the other, checked.

The release lists its files with their MD5 sums in release-catalog; a mirror without that list is
read by its index pages, and its files are checked by their size and by the sums that gzip keeps.
This module knows no genome.
"""

import gzip
import hashlib
import json
import re
import shutil
import time
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from tempfile import TemporaryDirectory

from virnucpro.bundle.fetch import PART, NotServed, fetch, size_of
from virnucpro.errors import BundleError, InputError, SettingsError
from virnucpro.progress import Position, Progress
from virnucpro.reads import GZIP_ERRORS
from virnucpro.storage.atomic import disk_errors, write_json
from virnucpro.storage.lock import Lock

RELEASE = "https://ftp.ncbi.nlm.nih.gov/refseq/release"
# The groups of the published method, and their folders in a release.
GROUPS = {
    "viral": ("viral",),
    "archaea": ("archaea",),
    "bacteria": ("bacteria",),
    "fungi": ("fungi",),
    "invertebrate": ("invertebrate",),
    "plant": ("plant",),
    "protozoa": ("protozoa",),
    "vertebrate": ("vertebrate_mammalian", "vertebrate_other"),
}
RECORD = "fetched.json"
ADVICE = "check --address"
_GENOMES = re.compile(r"(\w+)\.([\d.]+)\.genomic\.gbff\.gz")
_MD5 = re.compile(r"[0-9a-f]{32}")
_LINK = re.compile(r'href="([^"/]+)"')
_MARGIN_BYTES = 50_000_000
_PIECE_BYTES = 2**20


@dataclass(frozen=True, slots=True)
class ReleaseFile:
    """A file of a release. md5, size_bytes: None where the server does not state it."""

    group: str
    folder: str
    name: str
    md5: str | None = None
    size_bytes: int | None = None

    @property
    def place(self) -> str:
        """The path below the folder of a download."""
        return f"{self.group}/{self.name}"


@dataclass(frozen=True, slots=True)
class Release:
    """The chosen files of a release. number: empty if unknown."""

    address: str
    number: str
    files: list[ReleaseFile]

    @property
    def size_bytes(self) -> int:
        """The sum of the sizes that are known."""
        return sum(file.size_bytes or 0 for file in self.files)


def read_release(
    address: str, groups: Sequence[str], most_files: int, pause_s: float, stages: Progress
) -> Release:
    """Return the chosen genome files of a release, with sizes; nothing of them is downloaded.

    most_files: of each folder, spread evenly over it. Raises SettingsError for an address that is
    not one, BundleError where the server lists no such file.
    """
    if not address.startswith(("https://", "http://")):
        raise SettingsError(f"--address must begin with https://, got {address!r}")
    address = address.rstrip("/")
    with TemporaryDirectory(prefix="virnucpro-") as made:
        catalogue = _Catalogue(address, Path(made), pause_s)
        number, sums = catalogue.number(), catalogue.sums()
        chosen: list[ReleaseFile] = []
        for group in groups:
            for folder in GROUPS[group]:
                names = sums or dict.fromkeys(catalogue.index(folder))
                files = [
                    ReleaseFile(group, folder, name, md5)
                    for name, md5 in names.items()
                    if (match := _GENOMES.fullmatch(name)) and match[1] == folder
                ]
                if not files:
                    raise BundleError(
                        f"{address}: lists no file {folder}.*.genomic.gbff.gz; {ADVICE}"
                    )
                chosen += spread(sorted(files, key=_order), most_files)
    if not sums:
        stages.line(
            "this server has no list of MD5 sums; files are checked by their size and as gzip"
        )
    sized = []
    for done, file in enumerate(chosen):
        stages.advance(Position(done, len(chosen), f"asking for the size of {file.name}"))
        time.sleep(pause_s)
        sized.append(replace(file, size_bytes=size_of(_url(address, file))))
    return Release(address, number, sized)


class _Catalogue:
    """The lists of a release. folder: a temporary one."""

    def __init__(self, address: str, folder: Path, pause_s: float) -> None:
        self._address, self._folder, self._pause_s = address, folder, pause_s
        self._number = ""

    def _text(self, path: str) -> str:
        """Return a text; empty if the server does not have it."""
        part = self._folder / "text"
        part.unlink(missing_ok=True)
        time.sleep(self._pause_s)
        try:
            fetch(f"{self._address}/{path}", part, None, lambda _: None, ADVICE)
        except NotServed:
            return ""
        return part.read_text("utf-8", "replace")

    def number(self) -> str:
        given = self._text("RELEASE_NUMBER").strip()
        self._number = given if given.isdecimal() else ""
        return self._number

    def sums(self) -> dict[str, str | None]:
        """Return the MD5 sum of each file; nothing where the release has no list."""
        listed = self._text(f"release-catalog/release{self._number}.files.installed")
        pairs = (line.split() for line in listed.splitlines())
        found = ((pair[1].rpartition("/")[2], pair[0]) for pair in pairs if len(pair) == 2)
        return {name: md5 if _MD5.fullmatch(md5) else None for name, md5 in found}

    def index(self, folder: str) -> list[str]:
        """Return the names that the index page of a folder links to."""
        return _LINK.findall(self._text(f"{folder}/"))


def _order(file: ReleaseFile) -> list[int]:
    match = _GENOMES.fullmatch(file.name)
    assert match is not None
    return [int(part) for part in match[2].split(".") if part]


def spread(files: Sequence[ReleaseFile], most: int) -> list[ReleaseFile]:
    """Return at most so many, evenly spread, the first among them."""
    count = min(most, len(files))
    return [files[place * len(files) // count] for place in range(count)]


def _url(address: str, file: ReleaseFile) -> str:
    return f"{address}/{file.folder}/{file.name}"


def download_release(release: Release, out: Path, pause_s: float, stages: Progress) -> None:
    """Download the files of a release, one after the other, each kept once it is checked.

    What is there and right is not fetched again; what was stopped goes on. pause_s: between two
    files. Raises BundleError where a file stays wrong, ResumeError where another process is at it.
    """
    with disk_errors(out):
        lock = Lock(out / ".fetching")
    try:
        missing = [file for file in release.files if not _is_whole(out / file.place, file)]
        if there := len(release.files) - len(missing):
            stages.line(f"{there:,} of {len(release.files):,} files are there already")
        _check_space(missing, out)
        progress = _Bytes(stages, sum(file.size_bytes or 0 for file in missing))
        for file in missing:
            time.sleep(pause_s)
            progress.name = file.name
            with disk_errors(out):
                _bring(file, _url(release.address, file), out / file.place, progress)
        write_json(out / RECORD, _record(release, out))
    finally:
        lock.remove()


def fetched(folder: Path) -> dict[str, list[Path]]:
    """Return the files of a finished download by group; none for a folder that it did not make.

    Raises InputError for a download that was stopped, or that lacks one of its files.
    """
    again = "run `virnucpro train fetch` again"
    record = folder / RECORD
    if not record.exists():
        if any(folder.glob(f"*/*{PART}")):
            raise InputError(f"this download was stopped before it was whole; {again}", folder)
        return {}
    try:
        places = [*json.loads(record.read_text("utf-8"))["files"]]
    except (ValueError, KeyError, TypeError) as error:
        raise InputError(f"not as the download left it ({error}); {again}", record) from error
    found: dict[str, list[Path]] = {}
    for place in map(str, places):
        path = folder / place
        if not path.is_file():
            raise InputError(f"this file of the download is missing; {again}", path)
        found.setdefault(path.parent.name, []).append(path)
    return found


def _bring(file: ReleaseFile, url: str, target: Path, progress: "_Bytes") -> None:
    part = target.with_name(target.name + PART)
    for resumed in (part.exists(), False):
        fetch(url, part, file.size_bytes, progress, ADVICE, checked=file.md5 is not None)
        if (fault := _fault(part, file.md5)) is None:
            part.replace(target)
            return
        part.unlink()
        if not resumed:  # else it may have begun in another release
            raise BundleError(f"{url}: {fault}; it was not kept: run the same command again")


def _fault(path: Path, md5: str | None) -> str | None:
    """Return what is wrong with a file that has come; without an MD5 sum, by what gzip keeps."""
    if md5 is not None:
        found = _md5(path)
        return None if found == md5 else f"its MD5 sum is {found} instead of {md5}"
    try:
        with gzip.open(path, "rb") as opened:
            while opened.read(_PIECE_BYTES):
                pass
    except GZIP_ERRORS as error:
        return f"it cannot be unpacked ({error})"
    return None


class _Bytes:
    """Bytes of all files together, as steps."""

    def __init__(self, stages: Progress, total: int) -> None:
        self._stages, self._total, self._done, self.name = stages, total, 0, ""

    def __call__(self, new_bytes: int) -> None:
        self._done += new_bytes
        total = max(self._total, self._done)
        note = f"{self.name}, {self._done / 1e6:,.0f} of {total / 1e6:,.0f} MB"
        self._stages.advance(Position(self._done, total, note))


def _is_whole(path: Path, file: ReleaseFile) -> bool:
    if not path.is_file():
        return False
    if file.md5 is not None:
        return _md5(path) == file.md5
    return file.size_bytes in (None, path.stat().st_size)


def _md5(path: Path) -> str:
    with path.open("rb") as opened:
        return hashlib.file_digest(opened, "md5").hexdigest()


def _check_space(files: Iterable[ReleaseFile], out: Path) -> None:
    needed, free = sum(file.size_bytes or 0 for file in files), shutil.disk_usage(out).free
    if needed and needed + _MARGIN_BYTES > free:
        raise BundleError(
            f"{out}: {needed / 1e9:.1f} GB are still needed here, but {free / 1e9:.1f} GB are "
            "free; free some, choose another folder with -o, or fewer files with --files"
        )


def _record(release: Release, out: Path) -> dict[str, object]:
    return {
        "address": release.address,
        "release": release.number,
        "files": {
            file.place: {"bytes": (out / file.place).stat().st_size, "md5": file.md5}
            for file in release.files
        },
    }
