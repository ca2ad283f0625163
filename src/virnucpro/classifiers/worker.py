"""The work of a process of loaders.py: a description in, then chunks in, prepared frames out.

A message is its kind, one byte, the length of its content, eight, and the content. The process ends
when its standard input does, so also when the one that started it is killed. It does not load
torch.
"""

import json
import os
import signal
import struct
import sys
from contextlib import suppress
from typing import IO

from virnucpro.classifiers.prepared import FramePreparation, texts_from_bytes
from virnucpro.errors import BundleError, OutOfMemory, VirnucproError

ASKED, DONE, FAILED = b"?", b"+", b"-"
# What a process may say of itself; any other error ends it.
ERRORS: dict[str, type[VirnucproError]] = {c.__name__: c for c in (BundleError, OutOfMemory)}

WHO = "a process that translates and tokenizes (--dataloader-workers)"
NO_MEMORY = f"{WHO} ran out of memory; give the program more, or take fewer of them"

_HEADER = struct.Struct("<cQ")


def send(sink: IO[bytes], kind: bytes, content: bytes) -> None:
    """Writes one message. Raises BrokenPipeError where the reader is gone."""
    sink.write(_HEADER.pack(kind, len(content)))
    sink.write(content)
    sink.flush()


def received(source: IO[bytes]) -> tuple[bytes, bytes] | None:
    """The next message, its kind and its content; None where the other end has closed."""
    header = source.read(_HEADER.size)
    if len(header) < _HEADER.size:
        return None
    kind, size = _HEADER.unpack(header)
    content = source.read(size)
    return None if len(content) < size else (kind, content)


def serve(source: IO[bytes], sink: IO[bytes]) -> None:
    """Answers messages until there are no more, or memory runs out, which is the last answer."""
    try:
        _serve(source, sink)
    except MemoryError:
        send(sink, FAILED, _NO_MEMORY)


def _serve(source: IO[bytes], sink: IO[bytes]) -> None:
    preparation: FramePreparation | None = None
    while (message := received(source)) is not None:
        answer = b""
        try:
            if preparation is None:
                preparation = FramePreparation.of_description(json.loads(message[1]))
            else:
                answer = preparation.of_texts(texts_from_bytes(message[1])).to_bytes()
        except BundleError as error:
            send(sink, FAILED, _words(error))
        else:
            send(sink, DONE, answer)


def _words(error: VirnucproError) -> bytes:
    return json.dumps({"kind": type(error).__name__, "said": str(error)}).encode("ascii")


# Made in advance: when it is wanted there is no room to make anything.
_NO_MEMORY = _words(OutOfMemory(NO_MEMORY))


def main() -> None:
    """The process: messages on standard input and output. Ctrl-C is left to the one above it."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    # What a library prints must not come between the messages.
    with os.fdopen(os.dup(sys.stdout.fileno()), "wb") as sink, suppress(BrokenPipeError):
        os.dup2(sys.stderr.fileno(), sys.stdout.fileno())
        serve(sys.stdin.buffer, sink)
