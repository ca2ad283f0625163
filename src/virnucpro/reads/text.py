"""Text of any line ends, cut into blocks of whole lines."""

import io
import re
from collections.abc import Iterator

from virnucpro.reads.compression import DAMAGE, READ_BYTES, UTF8_MARK

# A byte-order mark where files of an editor were joined: before a line, or where the line end
# before the next record is missing.
_RETURN = ord("\r")  # as a number, for which bytes are searched faster
_MARKED_LINE = re.compile(rb"(?m)^(?:\xef\xbb\xbf)+")
_MARKED_RECORD = re.compile(rb"(?:\xef\xbb\xbf)+(?=[>@])")


def whole_lines(text: io.BufferedReader) -> Iterator[bytes]:
    r"""Yield the text in blocks that end with a line end, which is always \n; the last may not.

    Line ends are \n, \r\n and \r. Byte-order marks where files were joined are left out. Where the
    stream breaks, what was read of the last line comes first, and then its error is raised.
    """
    begun: list[bytes] = []
    broken: Exception | None = None
    returns = 0  # carriage returns that may still belong to a \r\n
    while broken is None:
        try:
            data = text.read1(READ_BYTES)
        except (*DAMAGE, OSError) as error:
            data, broken = b"", error
        ended = not data
        if returns or _RETURN in data:
            data, returns = _with_newlines(data, returns, last=ended)
        cut = data.rfind(b"\n") + 1
        if cut:
            yield _unmarked(b"".join((*begun, data[:cut])))
            begun = []
        begun.append(data[cut:])
        if ended:
            break
    if rest := b"".join(begun):
        yield _unmarked(rest)
    if broken is not None:
        raise broken


def _with_newlines(data: bytes, returns: int, *, last: bool) -> tuple[bytes, int]:
    r"""Return data after so many \r with \n alone, and how many \r at its end were kept back."""
    body = data if last else data.rstrip(b"\r")
    kept = len(data) - len(body)
    if not body and not last:
        return b"", returns + kept
    stripped = body.lstrip(b"\r")
    returns += len(body) - len(stripped)
    if returns and stripped[:1] != b"\n":
        stripped = b"\n" * returns + stripped
    return re.sub(rb"\r+\n", b"\n", stripped).replace(b"\r", b"\n"), kept


def _unmarked(block: bytes) -> bytes:
    if UTF8_MARK[0] not in block or UTF8_MARK not in block:
        return block
    return _MARKED_RECORD.sub(b"\n", _MARKED_LINE.sub(b"", block))
