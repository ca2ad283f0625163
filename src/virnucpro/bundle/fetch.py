"""The one door to the network: published models and genomes, over https, on request only.

A file comes under the name NAME.part and goes on from there after whatever stopped it, also another
day: huggingface_hub, from which addresses, caches and the offline switch are taken, begins a file
of 10 GB anew (its own downloads keep nothing of a file that was stopped). Proxies are those of the
environment. Nothing here knows what a bundle is.
"""

import http.client
import os
import re
import ssl
import time
from collections.abc import Callable, Iterator
from email.utils import parsedate_to_datetime
from http.client import HTTPMessage
from io import FileIO
from pathlib import Path
from socket import gaierror
from typing import IO, NamedTuple
from urllib.error import HTTPError, URLError
from urllib.request import HTTPRedirectHandler, Request, build_opener

from virnucpro import __version__
from virnucpro.bundle.catalogue import KnownEncoder
from virnucpro.errors import BundleError

PART = ".part"
# Beside a part whose digest nobody knows: which version of the server's file it began with.
VERSION = ".version"
_TIMEOUT_S = 30
_PIECE_BYTES = 2**20
# Of a file whose size is not known: heads and tables of contents.
_MOST_BYTES = 2**30
# Attempts in a row that bring no byte; between them 0.5, 1, 2 seconds.
_TRIES = 4
_FIRST_WAIT_S = 0.5
_LONGEST_WAIT_S = 300.0
_HEADERS = {"User-Agent": f"virnucpro/{__version__}"}
_TRY_AGAIN = {408, 425, 429, 500, 502, 503, 504}
_RANGE = re.compile(r"bytes (\d+)-\d+/(\d+|\*)")

Progress = Callable[[int], None]


# It may name another server than was meant.
_CHECK = "check HF_ENDPOINT"


class NotServed(BundleError):
    """The server has no such file, or not for everyone."""


class NoNetwork(BundleError):
    """Nothing could be reached, or nothing may be: reason says which."""

    def __init__(self, reason: str) -> None:
        self.reason = reason
        super().__init__(reason)


def address(encoder: KnownEncoder, name: str) -> str:
    """Return the URL of an encoder's file, at its revision, on the hub or HF_ENDPOINT's mirror."""
    from huggingface_hub import hf_hub_url

    return hf_hub_url(encoder.repository, name, revision=encoder.revision)


def hub_folder(encoder: KnownEncoder) -> Path:
    """Return where the hub's own cache keeps an encoder, whether or not it is there."""
    from huggingface_hub import constants

    repository = f"models--{encoder.repository.replace('/', '--')}"
    return Path(constants.HF_HUB_CACHE) / repository / "snapshots" / encoder.revision


def hub_is_chosen() -> bool:
    """Return True if HF_HOME or HF_HUB_CACHE say where the hub's cache is."""
    return bool(os.environ.get("HF_HOME") or os.environ.get("HF_HUB_CACHE"))


def fetch(
    url: str,
    part: Path,
    size_bytes: int | None,
    progress: Progress,
    advice: str = _CHECK,
    *,
    checked: bool = True,
) -> None:
    """Downloads a file to part, after what lies there already; progress is told of new bytes.

    A connection that breaks is taken up again; a server that names a time to wait is given it.
    advice: what a user should do where the server has another file or none. checked: the caller
    compares the digest of the whole; else a part goes on only while the server has the version that
    it began with (ETag or Last-Modified), and is begun anew otherwise. Raises NoNetwork where
    nothing can be reached, NotServed where the server has no such file, and BundleError with what
    is wrong otherwise; what has arrived stays.
    """
    if offline():
        raise NoNetwork("HF_HUB_OFFLINE is set")
    part.parent.mkdir(parents=True, exist_ok=True)
    kept = part.with_name(part.name + VERSION)
    stamp = None if checked else kept
    with part.open("ab", buffering=0) as file:
        if stamp is not None and not _version_of(stamp):
            file.truncate(0)
        elif stamp is not None and size_bytes and _whole(file, size_bytes):
            file.truncate(file.tell() - 1)  # so that the server is asked whether it is the same
        _fill(url, file, size_bytes, progress, advice, stamp)
    kept.unlink(missing_ok=True)


def _version_of(stamp: Path) -> str:
    """Return the version that a part began with; empty if it is unknown."""
    try:
        version = stamp.read_text("ascii")
    except (FileNotFoundError, UnicodeDecodeError):
        return ""
    return version if version.isprintable() else ""


def size_of(url: str) -> int | None:
    """Return the size of a file that a server states without sending it; None if it states none.

    Raises NoNetwork where nothing can be reached.
    """
    if offline():
        raise NoNetwork("HF_HUB_OFFLINE is set")
    try:
        with _asked(Request(url, headers=_HEADERS, method="HEAD")) as answer:
            return _length(answer)
    except (HTTPError, http.client.HTTPException, TimeoutError, ConnectionError):
        return None
    except URLError as error:
        raise NoNetwork(f"{url} cannot be reached ({error.reason})") from error


def offline() -> bool:
    """Return whether the environment forbids the network, as HF_HUB_OFFLINE=1 does."""
    from huggingface_hub import constants

    return bool(constants.HF_HUB_OFFLINE)


def _asked(request: Request) -> http.client.HTTPResponse:
    answer: http.client.HTTPResponse = build_opener(_StaysSafe()).open(request, timeout=_TIMEOUT_S)
    return answer


class _Stop(NamedTuple):
    """The reason why a request brought no whole file; wait_s: as long as the server asks for."""

    reason: str
    wait_s: float = 0.0


def _fill(
    url: str,
    file: FileIO,
    size_bytes: int | None,
    progress: Progress,
    advice: str,
    stamp: Path | None,
) -> None:
    """Request after request, until all is there.

    A server that was there and is gone may be back in a second.
    """
    tries = 0
    while not _whole(file, size_bytes):
        before = file.tell()
        try:
            stop = _more(url, file, size_bytes, progress, advice, stamp)
        except NoNetwork as error:
            if not tries:
                raise
            stop = _Stop(error.reason)
        if stop is None:
            return
        tries = 1 if file.tell() > before else tries + 1
        if tries == _TRIES or stop.wait_s > _LONGEST_WAIT_S:
            later = f" in {stop.wait_s:,.0f} s" if stop.wait_s else ""
            raise BundleError(
                f"{url}: {stop.reason}; run the same command again{later}, and it goes on after "
                f"the {file.tell():,} bytes that are here"
            )
        time.sleep(max(stop.wait_s, _FIRST_WAIT_S * 2 ** (tries - 1)))


def _whole(file: FileIO, size_bytes: int | None) -> bool:
    """Return whether the file is complete; one that is too long is emptied."""
    have = file.seek(0, os.SEEK_END)
    if size_bytes is not None and have > size_bytes:
        file.truncate(0)
        have = 0
    return size_bytes is not None and have == size_bytes


def _more(
    url: str,
    file: FileIO,
    size_bytes: int | None,
    progress: Progress,
    advice: str,
    stamp: Path | None,
) -> _Stop | None:
    """One request for the rest of a file; None when all has come, else why it has not."""
    have = file.seek(0, os.SEEK_END)
    headers = {**_HEADERS, "Range": f"bytes={have}-"} if have else {**_HEADERS}
    if have and stamp is not None and (version := _version_of(stamp)):
        headers["If-Range"] = version
    try:
        with _asked(Request(url, headers=headers)) as answer:
            total = _begin(answer, file, have, stamp)
            if None not in (total, size_bytes) and total != size_bytes:
                raise BundleError(
                    f"{url}: the server has a file of {total:,} bytes there instead of "
                    f"{size_bytes:,}, so it is not the published one; {advice}"
                )
            for piece in _pieces(answer):
                file.write(piece)
                progress(len(piece))
                if file.tell() > (size_bytes or _MOST_BYTES):
                    file.seek(0)
                    file.truncate()
                    raise BundleError(
                        f"{url}: the server sends more than such a file has; {advice}"
                    )
            arrived = file.tell()
            return None if total in (None, arrived) else _Stop("the connection broke off")
    except HTTPError as error:
        return _answered(url, error, file, advice)
    except ssl.SSLError as error:
        raise BundleError(_unsafe(url, error)) from error
    except URLError as error:
        if isinstance(error.reason, ssl.SSLError):
            raise BundleError(_unsafe(url, error.reason)) from error
        if isinstance(error.reason, TimeoutError | ConnectionResetError):
            return _Stop(f"no answer ({error.reason})")
        if isinstance(error.reason, gaierror | OSError):
            reason = error.reason.strerror or error.reason
            raise NoNetwork(f"{url} cannot be reached ({reason})") from error
        return _Stop(f"no answer ({error.reason})")
    except (http.client.HTTPException, ConnectionError, TimeoutError) as error:
        return _Stop(f"the connection broke off ({type(error).__name__})")


class _StaysSafe(HTTPRedirectHandler):
    """Follows a server elsewhere, but not out of an encrypted connection."""

    def redirect_request(
        self, req: Request, fp: IO[bytes], code: int, msg: str, headers: HTTPMessage, newurl: str
    ) -> Request | None:
        """The next request. Raises BundleError for one that would not be encrypted."""
        if req.type == "https" and not newurl.lower().startswith("https://"):
            raise BundleError(
                f"{req.full_url}: the server refers to {newurl}, which is not encrypted; nothing "
                "is fetched from there"
            )
        return super().redirect_request(req, fp, code, msg, headers, newurl)


def _pieces(answer: http.client.HTTPResponse) -> Iterator[bytes]:
    """The body as it comes. Raises HTTPException where the connection breaks, however it does."""
    try:
        while piece := answer.read1(_PIECE_BYTES):
            yield piece
    except OSError as error:
        raise http.client.HTTPException(error.strerror or str(error)) from error


def _begin(
    answer: http.client.HTTPResponse, file: FileIO, have: int, stamp: Path | None
) -> int | None:
    """Puts the file to where the answer begins; the size of the whole, where the server tells."""
    version = _version(answer)
    if answer.status == http.client.PARTIAL_CONTENT:
        if stamp is not None and _version_of(stamp) not in ("", version) and version:
            file.truncate(0)  # this server knows no If-Range
            raise http.client.HTTPException("another version than before")
        range_ = _RANGE.fullmatch(answer.headers.get("Content-Range", ""))
        if range_ and int(range_[1]) == have:
            return None if range_[2] == "*" else int(range_[2])
        raise http.client.HTTPException("another range than was asked for")
    file.truncate(0)  # the server knows no ranges, or has another version, and sends the whole
    file.seek(0)
    if stamp is not None and version:
        stamp.write_text(version, "utf-8")
    elif stamp is not None:
        stamp.unlink(missing_ok=True)
    return _length(answer)


def _version(answer: http.client.HTTPResponse) -> str:
    """Return what names the version of a file, for If-Range; empty where the server does not."""
    tag = answer.headers.get("ETag", "")
    strong = tag if tag.startswith('"') else ""
    return strong or answer.headers.get("Last-Modified", "")


def _length(answer: http.client.HTTPResponse) -> int | None:
    length = answer.headers.get("Content-Length")
    return int(length) if length is not None and length.isdecimal() else None


def _answered(url: str, error: HTTPError, file: FileIO, advice: str) -> _Stop:
    """Return the meaning of an error that the server answers with; raise BundleError if final."""
    if error.code == http.client.REQUESTED_RANGE_NOT_SATISFIABLE:
        file.truncate(0)  # more is here than the server has: begin anew
        return _Stop("the server has less than what is here")
    if error.code in _TRY_AGAIN:
        return _Stop(f"the server answers {error.code} {error.reason}", _asked_to_wait_s(error))
    raise NotServed(
        f"{url}: the server answers {error.code} {error.reason}; the file is not there, or not for "
        f"everyone; {advice}"
    ) from error


def _asked_to_wait_s(error: HTTPError) -> float:
    """Return how long a server wants to be left alone: seconds, or until a date."""
    asked = error.headers.get("Retry-After", "")
    if asked.isdecimal():
        return float(asked)
    try:
        until = parsedate_to_datetime(asked).timestamp()
    except ValueError:
        return 0.0
    return max(0.0, until - time.time())


def _unsafe(url: str, error: ssl.SSLError) -> str:
    return (
        f"{url}: the connection is not safe ({error.reason or error}); if your institute has its "
        "own certificate, name its file in SSL_CERT_FILE"
    )
