"""The reference of a CRAM, with the index by which htslib reads it."""

import os
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from virnucpro.errors import InputError
from virnucpro.reads.compression import GZIP_MAGIC, is_bgzf


@contextmanager
def indexed(reference: Path) -> Iterator[Path]:
    """Yield a path by which the reference can be read, beside which its index lies.

    That is made where it is missing, as `samtools faidx` does, and in a folder for the time being
    where the reference lies in one that cannot be written to. Raises InputError for what cannot be
    indexed: htslib would try, and crash.
    """
    head = _head(reference)
    if head.startswith(GZIP_MAGIC) and not is_bgzf(head):
        raise InputError(
            "this reference is compressed by gzip, which has no index; unpack it, or compress it "
            "with bgzip",
            reference,
        )
    packed = head.startswith(GZIP_MAGIC)
    if _has_index(reference, packed) or _indexed(reference):
        yield reference
        return
    with tempfile.TemporaryDirectory(prefix="virnucpro-") as folder:
        link = Path(folder) / reference.name
        link.symlink_to(reference.absolute())
        if not _indexed(link):
            raise InputError(
                "this reference cannot be indexed: it must be FASTA whose lines are of one length "
                "in each sequence; see what `samtools faidx` says of it",
                reference,
            )
        yield link


def _head(reference: Path) -> bytes:
    try:
        with reference.open("rb") as file:
            return file.read(18)
    except OSError as error:
        raise InputError(f"cannot be read ({error.strerror}); check it", reference) from error


def _has_index(reference: Path, packed: bool) -> bool:
    suffixes = (".fai", ".gzi") if packed else (".fai",)
    paths = [Path(f"{reference}{suffix}") for suffix in suffixes]
    return all(path.is_file() and path.stat().st_size for path in paths)


def _indexed(reference: Path) -> bool:
    """Make an index; return whether that could be done."""
    import pysam
    from pysam.utils import SamtoolsError

    try:
        pysam.faidx(os.fspath(reference))
    except SamtoolsError:
        return False
    return True
