"""A server of files on this machine that misbehaves as told: drops, lies, refuses."""

import re
import socket
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from threading import Event, Thread

_RANGE = re.compile(r"bytes=(\d+)-")


@dataclass
class Manners:
    """files: path to content. ranges: whether the server knows them. drop_after: bytes of a body
    after which the connection is closed, the first `drops` times. answers: codes to send first, by
    path; an empty list stands for as ever. seen: paths and ranges that were asked for with GET;
    agents: how the clients called themselves; retry_after: header of errors. versions: path to
    ETag; if_range: whether the server knows If-Range."""

    files: dict[str, bytes]
    ranges: bool = True
    drop_after: int = 0
    drops: int = 0
    answers: dict[str, list[int]] = field(default_factory=dict)
    cuts: dict[str, int] = field(default_factory=dict)
    stalls: dict[str, int] = field(default_factory=dict)
    ended: Event = field(default_factory=Event)
    shifted: int = 0
    redirects: dict[str, str] = field(default_factory=dict)
    seen: list[tuple[str, str]] = field(default_factory=list)
    agents: set[str] = field(default_factory=set)
    retry_after: str = ""
    versions: dict[str, str] = field(default_factory=dict)
    if_range: bool = True

    def sent(self, ending: str) -> list[str]:
        """The ranges that were asked for, of requests for paths with that ending."""
        return [range_ for path, range_ in self.seen if path.endswith(ending)]


class _Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    manners: Manners

    def log_message(self, *_):
        pass

    def do_HEAD(self):
        self.manners.agents.add(self.headers.get("User-Agent", ""))
        data = self.manners.files.get(self.path)
        self.send_response(404 if data is None else 200)
        self.send_header("Content-Length", str(len(data or b"")))
        self.end_headers()

    def do_GET(self):
        manners = self.manners
        manners.agents.add(self.headers.get("User-Agent", ""))
        manners.seen.append((self.path, self.headers.get("Range", "")))
        if codes := manners.answers.get(self.path):
            self.send_response(codes.pop(0))
            if manners.retry_after:
                self.send_header("Retry-After", manners.retry_after)
            self.send_header("Content-Length", "0")
            self.end_headers()
            return
        if place := manners.redirects.get(self.path):
            self.send_response(302)
            self.send_header("Location", place)
            self.send_header("Content-Length", "0")
            self.end_headers()
            return
        data = manners.files.get(self.path)
        if data is None:
            self.send_error(404)
            return
        start, match = 0, _RANGE.fullmatch(self.headers.get("Range", ""))
        version = manners.versions.get(self.path, "")
        changed = manners.if_range and self.headers.get("If-Range", version) != version
        if match and manners.ranges and not changed:
            start = int(match[1]) - manners.shifted
            if start >= len(data):
                self.send_error(416)
                return
        self.send_response(206 if start else 200)
        if start:
            self.send_header("Content-Range", f"bytes {start}-{len(data) - 1}/{len(data)}")
        if version:
            self.send_header("ETag", version)
        body = data[start:]
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        cut = manners.cuts.get(self.path)
        if self.path in manners.stalls:
            self.wfile.write(data[start : manners.stalls[self.path]])
            manners.ended.wait()
            return
        if manners.drops and len(body) > manners.drop_after:
            manners.drops -= 1
            cut = start + manners.drop_after
        if cut is None:
            self.wfile.write(body)
            return
        self.wfile.write(data[start:cut])
        self.close_connection = True


@contextmanager
def serving(manners: Manners, port: int = 0):
    """The server's address while it runs."""
    handler = type("Handler", (_Handler,), {"manners": manners})
    server = ThreadingHTTPServer(("127.0.0.1", port), handler)
    server.handle_error = lambda *_: None  # a connection that it dropped itself
    thread = Thread(target=server.serve_forever, kwargs={"poll_interval": 0.02})
    thread.start()
    try:
        yield f"http://127.0.0.1:{server.server_address[1]}"
    finally:
        manners.ended.set()
        server.shutdown()
        server.server_close()
        thread.join()


@contextmanager
def refusing():
    """An address where nobody listens, and nobody else can begin to."""
    with socket.socket() as held:
        held.bind(("127.0.0.1", 0))
        yield f"http://127.0.0.1:{held.getsockname()[1]}"
