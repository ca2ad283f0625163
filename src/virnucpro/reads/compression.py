"""Bytes of an input -> its text, decompressed as its first bytes say; knows no record."""

import bz2
import gzip
import hashlib
import io
import lzma
import sys
import zlib
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING, BinaryIO, cast

if sys.version_info >= (3, 14):
    from compression.zstd import ZstdCompressor, ZstdError, ZstdFile
    from compression.zstd import decompress as zstd_decompress
else:
    from backports.zstd import ZstdCompressor, ZstdError, ZstdFile
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
# A frame without text, as pzstd puts first.
_ZSTD_SKIPPABLE = tuple(bytes((low, 0x2A, 0x4D, 0x18)) for low in range(0x50, 0x60))
# Each of these is read as a BufferedReader is: read1 gives what there is before it raises.
_FORMS: dict[str, tuple[bytes | tuple[bytes, ...], Callable[[BinaryIO], object]]] = {
    "gzip": (GZIP_MAGIC, lambda file: gzip.GzipFile(fileobj=file)),
    "bzip2": (b"BZh", bz2.BZ2File),
    "xz": (b"\xfd7zXZ\x00", lzma.LZMAFile),
    "zstd": ((b"\x28\xb5\x2f\xfd", *_ZSTD_SKIPPABLE), ZstdFile),
}


class Hashed(io.RawIOBase):
    """Raw bytes that are counted and hashed as they are read, once each, in order."""

    def __init__(self, raw: io.RawIOBase) -> None:
        self._raw = raw
        self._hash = hashlib.sha256()
        self.bytes_read = 0
        self.sha256 = ""

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


def is_damage(error: BaseException) -> bool:
    """Whether it is the content of a file that is wrong, and not the reading of it."""
    return isinstance(error, DAMAGE) or (isinstance(error, OSError) and error.errno is None)


@contextmanager
def text_of(raw: Hashed) -> Iterator[tuple[str, io.BufferedReader]]:
    """How an input is compressed ("" if it is not), and its text, without a byte-order mark.

    A BAM file, which htslib decompresses, is left as it is. Where the stream breaks, the rest of
    the file is still read for its digest. Closes the file.
    """
    with io.BufferedReader(raw, READ_BYTES) as file:
        form = compression_of(file.peek(READ_BYTES))
        text = cast("io.BufferedReader", _FORMS[form][1](cast("BinaryIO", file)) if form else file)
        try:
            if text.peek(len(UTF8_MARK)).startswith(UTF8_MARK):
                text.read(len(UTF8_MARK))
            yield form, text
        except (*DAMAGE, OSError) as error:
            if is_damage(error):
                raw.drain()
            raise


def compression_of(head: bytes) -> str:
    """By the first bytes of a file; a BAM file counts as not compressed."""
    form = next((name for name, (magic, _) in _FORMS.items() if head.startswith(magic)), "")
    return "" if form == "gzip" and is_bam(head) else form


def is_bam(head: bytes) -> bool:
    """By the first bytes of a file, compressed or not."""
    if head.startswith(GZIP_MAGIC):
        try:
            head = zlib.decompressobj(_GZIP_FORM).decompress(head, len(_BAM_MAGIC))
        except zlib.error:
            return False
    return head.startswith(_BAM_MAGIC)
