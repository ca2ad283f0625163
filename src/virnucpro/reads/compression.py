"""Bytes of an input -> its text, decompressed as its first bytes say; knows no record."""

import bz2
import gzip
import hashlib
import io
import lzma
import sys
import zlib
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from typing import TYPE_CHECKING, Protocol, cast

if sys.version_info >= (3, 14):
    from compression.zstd import (
        DecompressionParameter,
        ZstdCompressor,
        ZstdDecompressor,
        ZstdError,
    )
    from compression.zstd import decompress as zstd_decompress
else:
    from backports.zstd import (
        DecompressionParameter,
        ZstdCompressor,
        ZstdDecompressor,
        ZstdError,
    )
    from backports.zstd import decompress as zstd_decompress

if TYPE_CHECKING:
    from _typeshed import WriteableBuffer

__all__ = ["ZstdCompressor", "zstd_decompress"]

GZIP_MAGIC = b"\x1f\x8b"
GZIP_ERRORS = (EOFError, gzip.BadGzipFile, zlib.error)
# What the decompressors raise; bz2 also a bare OSError, see is_damage.
DAMAGE = (*GZIP_ERRORS, lzma.LZMAError, ZstdError)
READ_BYTES = 1 << 16
UTF8_MARK = b"\xef\xbb\xbf"
_BAM_MAGIC = b"BAM\x01"
_GZIP_FORM = 16 + zlib.MAX_WBITS
# The extra field by which a member of gzip is a block of BGZF (SAM specification, 4.1).
_BGZF_FIELD = b"BC\x02\x00"
# What mail gateways, tapes and editors leave behind the end of a file.
_FILLER = bytes(range(0x21)) + b"\xff"
# A frame without text, as pzstd puts first.
_ZSTD_SKIPPABLE = tuple(bytes((low, 0x2A, 0x4D, 0x18)) for low in range(0x50, 0x60))
# The largest window that zstd makes, with --long=31.
_ZSTD_WINDOW: dict[int, int] = {
    DecompressionParameter.window_log_max: 31 if sys.maxsize > 1 << 32 else 30
}


class Decompressor(Protocol):
    """One member of a compressed stream, as the standard library's decompressors have it."""

    @property
    def eof(self) -> bool: ...
    @property
    def needs_input(self) -> bool: ...
    @property
    def unused_data(self) -> bytes: ...
    def decompress(self, data: bytes, max_length: int = -1) -> bytes: ...


class _Gzip:
    """A member of gzip, whose checksum zlib compares."""

    def __init__(self) -> None:
        self._zlib = zlib.decompressobj(_GZIP_FORM)
        self._broken: zlib.error | None = None
        self.needs_input = True

    @property
    def eof(self) -> bool:
        return self._zlib.eof

    @property
    def unused_data(self) -> bytes:
        return self._zlib.unused_data

    def decompress(self, data: bytes, max_length: int = -1) -> bytes:
        if self._broken is not None:
            raise self._broken
        data, before = self._zlib.unconsumed_tail + data, self._zlib.copy()
        try:
            text = self._zlib.decompress(data, max_length)
        except zlib.error as error:
            self._broken, self.needs_input = error, False
            return _until_error(before, data, max_length)
        self.needs_input = not self._zlib.unconsumed_tail and len(text) < max_length
        return text


def _until_error(member: "zlib._Decompress", data: bytes, most: int) -> bytes:
    """Return the text before a fault in data, which zlib keeps to itself."""
    text = bytearray()
    with suppress(zlib.error):
        for byte in data:
            text += member.decompress(bytes((byte,)), most - len(text))
            if len(text) == most:
                break
    return bytes(text)


_FORMS: dict[str, tuple[tuple[bytes, ...], Callable[[], Decompressor]]] = {
    "gzip": ((GZIP_MAGIC,), _Gzip),
    "bzip2": ((b"BZh",), bz2.BZ2Decompressor),
    "xz": ((b"\xfd7zXZ\x00",), lzma.LZMADecompressor),
    "zstd": (
        (b"\x28\xb5\x2f\xfd", *_ZSTD_SKIPPABLE),
        lambda: ZstdDecompressor(options=_ZSTD_WINDOW),
    ),
}


class Hashed(io.RawIOBase):
    """Raw bytes that are counted and hashed as they are read, once each, in order.

    warning and fault say what was found about their end by whoever decompressed them, if anything;
    with a fault all records before it are whole, but there may have been others.
    """

    def __init__(self, raw: io.RawIOBase) -> None:
        self._raw = raw
        self._hash = hashlib.sha256()
        self.bytes_read = 0
        self.sha256 = ""
        self.warning = self.fault = ""

    def readable(self) -> bool:
        return True

    def readinto(self, buffer: "WriteableBuffer", /) -> int:
        count = self._raw.readinto(buffer) or 0
        self._hash.update(memoryview(buffer)[:count])
        self.bytes_read += count
        if not count:
            self.sha256 = self._hash.hexdigest()
        return count

    def drain(self) -> None:
        """Read on to the end, for what a decompressor left unread."""
        while self.readinto(bytearray(READ_BYTES)):
            pass

    def close(self) -> None:
        self._raw.close()
        super().close()


class Unpacked(io.RawIOBase):
    """The text of a compressed stream, which may consist of several members.

    Bytes that are not compressed behind a whole member end the text, and raw says so. BGZF without
    its end mark, an empty block, raises EOFError where the text ends within a line; elsewhere raw
    says so.
    """

    def __init__(self, file: "io.BufferedReader[Hashed]", form: str, raw: Hashed) -> None:
        self._file = file
        self._form = form
        self._raw = raw
        self._magic, self._decompressor = _FORMS[form]
        self._member: Decompressor | None = None
        self._data = b""  # read, and not yet given to a member
        self._bgzf = is_bgzf(file.peek(READ_BYTES))
        self._last_bytes = 0  # of text in the last member
        self._line_ended = True

    def readable(self) -> bool:
        return True

    def close(self) -> None:
        self._file.close()
        super().close()

    def readinto(self, buffer: "WriteableBuffer", /) -> int:
        view = memoryview(buffer)
        while self._member is not None or self._begin():
            text = self._next(len(view))
            if text:
                view[: len(text)] = text
                self._line_ended = text[-1:] in (b"\n", b"\r")
                return len(text)
        return 0

    def _next(self, most: int) -> bytes:
        assert self._member is not None
        data = b""
        if self._member.needs_input:
            data, self._data = self._data or self._file.read1(READ_BYTES), b""
            if not data:
                raise EOFError
        text = self._member.decompress(data, most)
        self._last_bytes += len(text)
        if self._member.eof:
            self._data = self._member.unused_data
            self._member = None
        return text

    def _begin(self) -> bool:
        """Begin the next member; False where none follows."""
        while not (data := self._data.lstrip(b"\0")):
            if not (data := self._file.read1(READ_BYTES)):
                self._check_end_mark()
                return False
            self._data = data
        longest = max(map(len, self._magic))
        while len(data) < longest and (more := self._file.read1(READ_BYTES)):
            data += more
        if not data.startswith(self._magic):
            self._behind(data)
            return False
        self._data, self._member, self._last_bytes = data, self._decompressor(), 0
        return True

    def _check_end_mark(self) -> None:
        self._data = b""
        if not self._bgzf or not self._last_bytes:
            return
        if not self._line_ended:
            raise EOFError
        self._raw.warning = (
            "this BGZF file lacks its end mark, as one that was cut off does, so records may be "
            "missing; compare its size with that of the original (some programs, as bcl2fastq, "
            "leave the mark out)"
        )

    def _behind(self, data: bytes) -> None:
        """Tell of bytes behind a member that begin no other."""
        self._data = b""
        if self._bgzf and self._last_bytes:
            raise EOFError  # within the stream: a block is damaged
        count, filler = 0, True
        while data:
            count += len(data)
            filler = filler and is_filler(data)
            data = self._file.read1(READ_BYTES)
        told = behind(count, f"{self._form} stream")
        if filler:
            self._raw.warning = told
        elif self._line_ended:
            self._raw.fault = told
        else:
            raise EOFError


def behind(count: int, what: str) -> str:
    """Return what to say of this many bytes behind the end of a stream or file."""
    return f"the {count:,} bytes behind the end of the {what} are not part of it and were not read"


def is_filler(data: bytes) -> bool:
    """Return whether bytes behind the end of a file are such as tapes and gateways add."""
    return not data.strip(_FILLER)


def is_bgzf(head: bytes) -> bool:
    """Return whether a file is gzip in blocks, as bgzip and htslib write it, by its first bytes."""
    return head.startswith(GZIP_MAGIC) and head[3:4] == b"\x04" and head[12:16] == _BGZF_FIELD


def is_damage(error: BaseException) -> bool:
    """Return whether the content of a file is wrong, and not the reading of it."""
    return isinstance(error, DAMAGE) or (isinstance(error, OSError) and error.errno is None)


@contextmanager
def text_of(raw: Hashed) -> Iterator[tuple[str, io.BufferedReader]]:
    """Yield how an input is compressed ("" if it is not) and its text without a byte-order mark.

    A BAM file, which htslib decompresses, is left as it is. Where the stream breaks, the rest of
    the file is still read for its digest. Closes the file.
    """
    with io.BufferedReader(raw, READ_BYTES) as file:
        form = compression_of(file.peek(READ_BYTES))
        text = cast(
            "io.BufferedReader",
            io.BufferedReader(Unpacked(file, form, raw), READ_BYTES) if form else file,
        )
        try:
            if text.peek(len(UTF8_MARK)).startswith(UTF8_MARK):
                text.read(len(UTF8_MARK))
            yield form, text
        except (*DAMAGE, OSError) as error:
            if is_damage(error):
                raw.drain()
            raise


def compression_of(head: bytes) -> str:
    """Return the compression by the first bytes of a file; a BAM file counts as not compressed."""
    form = next((name for name, (magic, _) in _FORMS.items() if head.startswith(magic)), "")
    return "" if form == "gzip" and is_bgzf(head) and is_bam(head) else form


def is_bam(head: bytes) -> bool:
    """Return whether a file is BAM, compressed or not, by its first bytes."""
    if head.startswith(GZIP_MAGIC):
        try:
            head = zlib.decompressobj(_GZIP_FORM).decompress(head, len(_BAM_MAGIC))
        except zlib.error:
            return False
        if len(head) < len(_BAM_MAGIC):  # cut off
            return bool(head) and _BAM_MAGIC.startswith(head)
    return head.startswith(_BAM_MAGIC)
