"""Text of any encoding as ASCII, so that a reader of lines sees the same in every locale."""

import io
import re
import sys

from virnucpro.reads.compression import DAMAGE, READ_BYTES

_ESCAPE = 0x1A
_ESCAPED = chr(_ESCAPE)
_TO_ESCAPE = re.compile(rb"[\x1a\x80-\xff]")
_FROM_ESCAPE = re.compile(rb"\x1a([0-9a-f]{2})")


class AsciiStream(io.BufferedIOBase):
    """Bytes with every one outside ASCII as _ESCAPE and two hex digits.

    dnaio decodes FASTA in the encoding of the locale, and takes no FASTQ outside ASCII; this way
    all locales read the same, and a header with an accent in it breaks none. unescaped is the way
    back. Where reading fails the stream just ends, and broken is the error: dnaio would drop what
    it holds by then. line_ends: how many were read.
    """

    def __init__(self, stream: io.BufferedReader) -> None:
        self._stream = stream
        self._waiting = b""
        self.broken: Exception | None = None
        self.line_ends = 0

    def readable(self) -> bool:
        return True

    def read1(self, size: int = -1, /) -> bytes:
        try:
            data = b"" if self.broken else self._stream.read1(size)
        except (*DAMAGE, OSError) as error:
            self.broken, data = error, b""
        self.line_ends += data.count(b"\n")
        if data.isascii() and _ESCAPE not in data:
            return data
        return _TO_ESCAPE.sub(lambda match: b"%c%02x" % (_ESCAPE, match[0][0]), data)

    def read(self, size: int | None = -1, /) -> bytes:
        """At most size bytes, fewer only at the end."""
        parts = [self._waiting]
        missing = sys.maxsize if size is None or size < 0 else size
        while sum(map(len, parts)) < missing and (data := self.read1(READ_BYTES)):
            parts.append(data)
        whole = b"".join(parts)
        self._waiting = whole[missing:]
        return whole[:missing]


def unescaped(text: str) -> str:
    """What the file says, read as UTF-8, and as Latin-1 where it is none."""
    if _ESCAPED not in text:
        return text
    data = _FROM_ESCAPE.sub(lambda match: bytes([int(match[1], 16)]), text.encode("ascii"))
    try:
        return data.decode("utf-8")
    except UnicodeDecodeError:
        return data.decode("latin-1")
