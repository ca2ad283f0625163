"""Labelled contigs -> embeddings of their open frames in one file on disk, block by block.

Memory does not grow with the contigs: rows are appended to a file and read back through a memory
map, whose pages the system drops when it needs them. An embedding that was stopped goes on from the
blocks that are there; each is known by a key of its chunks, the encoders and the chunk length.

m open frames, F features.
"""

import fcntl
import hashlib
import json
import os
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import BinaryIO

import numpy as np
from numpy.typing import NDArray

from virnucpro.blocks import Block, Texts, blocks_of
from virnucpro.chunks import span_arrays
from virnucpro.classifiers.open_frames import BLOCK_NT, FrameEncoders
from virnucpro.errors import ResumeError
from virnucpro.frames import open_frames_of
from virnucpro.measure.labels import LabelledContig
from virnucpro.progress import Position, Progress
from virnucpro.reads import Contig

FEATURES = "features.f32"
INDEX = "features.jsonl"

Float32 = NDArray[np.float32]
Int64 = NDArray[np.int64]


@dataclass(frozen=True, slots=True)
class Embedded:
    """The m open frames of all contigs, in the order of contigs, chunks and F1..R3.

    features: (m, F), on disk; contig: (m,) place of the contig; chunk: (m,) place of the chunk
    among the chunks of all contigs, ascending; chunks: (contigs,) number of chunks of each.
    """

    features: Float32
    contig: Int64
    chunk: Int64
    chunks: Int64


@dataclass(frozen=True, slots=True)
class _Part:
    """A block in the file: its key, the chunk of each of its frames (row in the block), and the
    sha256 of its features."""

    key: str
    chunk: list[int]
    sha256: str

    def line(self) -> bytes:
        values = {"key": self.key, "chunk": self.chunk, "sha256": self.sha256}
        return json.dumps(values, separators=(",", ":")).encode() + b"\n"


def embed_contigs(
    contigs: Sequence[LabelledContig],
    chunk_nt: int,
    encoders: FrameEncoders,
    sums: Mapping[str, Mapping[str, str]],
    folder: Path,
    stages: Progress,
) -> Embedded:
    """Embeds every open frame of every chunk into files of folder.

    sums: the sha256 of the encoders' files. Raises ResumeError if another process works there.
    """
    chunks = np.array([len(span_arrays(len(c.sequence), chunk_nt)[0]) for c in contigs], np.int64)
    base = _base_key(encoders, sums, chunk_nt)
    contig_parts, chunk_parts = [np.empty(0, np.int64)], [np.empty(0, np.int64)]
    done, frames = 0, 0
    with _opened(folder, encoders.width) as file:
        for block in blocks_of(_plain(contigs), chunk_nt, BLOCK_NT):
            row = file.kept(f"{base}{block.digest}")
            if row is None:
                row = file.add(f"{base}{block.digest}", *_embedded(block, encoders))
            contig_parts.append(block.records.ordinal[block.rows.record[row]])
            chunk_parts.append(done + row)
            done += len(block.rows)
            frames += len(row)
            note = f"{frames:,} open frames embedded"
            stages.advance(Position(done, int(chunks.sum()), note))
        if file.reused:
            stages.line(f"{file.reused:,} embedded blocks were there already, and were used")
    contig, chunk = np.concatenate(contig_parts), np.concatenate(chunk_parts)
    return Embedded(_mapped(folder / FEATURES, len(chunk), encoders.width), contig, chunk, chunks)


def _base_key(encoders: FrameEncoders, sums: Mapping[str, Mapping[str, str]], chunk_nt: int) -> str:
    """Return a digest of all that a row depends on but its chunk: first half of a part's key."""
    dnabert_s, esm2 = encoders.dnabert_s, encoders.esm2
    computed = [[e.precision, e.device.type, e.attention] for e in (dnabert_s, esm2)]
    known = json.dumps([chunk_nt, {k: dict(v) for k, v in sums.items()}, computed], sort_keys=True)
    return hashlib.sha256(known.encode()).hexdigest()


def _plain(contigs: Sequence[LabelledContig]) -> Iterator[Contig]:
    """Neither names nor labels belong to the key of an embedding."""
    for record, contig in enumerate(contigs, 1):
        yield Contig("", record, "", contig.sequence)


def _embedded(block: Block, encoders: FrameEncoders) -> tuple[Float32, Int64]:
    """Features (m, F) of a block's open frames, and the row (m,) of each one's chunk."""
    texts = Texts.of_block(block)
    frames = open_frames_of(texts.text, texts.offset, texts.length_nt)
    features: Float32 = encoders.features(frames).cpu().numpy()
    return features, frames.chunk.astype(np.int64)


@contextmanager
def _opened(folder: Path, width: int) -> "Iterator[_FeatureFile]":
    """The feature file of a folder, locked against other processes."""
    folder.mkdir(parents=True, exist_ok=True)
    with (folder / FEATURES).open("a+b") as data, (folder / INDEX).open("a+b") as index:
        try:
            fcntl.flock(data, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError as error:
            raise ResumeError(
                f"{folder}: another training is at work here; wait for it, or name another folder"
            ) from error
        file = _FeatureFile(data, index, width)
        yield file
        file.cut()


class _FeatureFile:
    """Rows in one file, and a line a part in another; a part is there once its line is.

    The parts that are there are asked for in their order. From the first that is not the one asked
    for, or whose rows are damaged, everything is thrown away and made anew.
    """

    def __init__(self, data: BinaryIO, index: BinaryIO, width: int) -> None:
        self._data, self._index, self._width = data, index, width
        self._data_end = self._index_end = 0
        self._appending = False
        self.reused = 0
        index.seek(0)
        data.seek(0)

    def kept(self, key: str) -> Int64 | None:
        """The chunk row (m,) of each frame of the next part, None if it must be made."""
        if self._appending:
            return None
        line = self._index.readline()
        part = _part(line)
        if part is not None and part.key == key:
            size = 4 * self._width * len(part.chunk)
            if hashlib.sha256(self._data.read(size)).hexdigest() == part.sha256:
                self._data_end += size
                self._index_end += len(line)
                self.reused += 1
                return np.array(part.chunk, np.int64)
        self.cut()
        return None

    def cut(self) -> None:
        """Drops what lies behind the last part that was asked for."""
        if not self._appending:
            self._index.truncate(self._index_end)
            self._data.truncate(self._data_end)
            self._appending = True

    def add(self, key: str, features: Float32, chunk: Int64) -> Int64:
        """Appends a part, on the disk when this returns; gives back chunk."""
        rows = np.ascontiguousarray(features, np.float32).astype("<f4", copy=False).tobytes()
        part = _Part(key, chunk.tolist(), hashlib.sha256(rows).hexdigest())
        for file, content in ((self._data, rows), (self._index, part.line())):
            file.write(content)
            file.flush()
            os.fsync(file.fileno())
        return chunk


def _part(line: bytes) -> _Part | None:
    """A line of the index; None for one that was cut off or is not ours."""
    try:
        return _Part(**json.loads(line)) if line.endswith(b"\n") else None
    except (ValueError, TypeError):
        return None


def _mapped(path: Path, rows: int, width: int) -> Float32:
    if not rows:
        return np.empty((0, width), np.float32)
    return np.memmap(path, "<f4", "r", shape=(rows, width))
