"""Labelled contigs -> embeddings of their open frames in one file on disk, block by block.

Memory does not grow with the contigs: rows are appended to a file and read back as they are asked
for. An embedding that was stopped goes on from the blocks that are there; each is known by a key of
its chunks, the encoders and the chunk length.

m open frames, F features.
"""

import errno
import fcntl
import hashlib
import json
import os
from collections import deque
from collections.abc import Generator, Iterable, Iterator, Mapping, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import closing, contextmanager
from dataclasses import asdict, dataclass
from itertools import chain, pairwise
from pathlib import Path
from queue import SimpleQueue
from typing import BinaryIO

import numpy as np
from numpy.typing import NDArray

from virnucpro.blocks import Block, Texts, blocks_of
from virnucpro.chunks import span_arrays
from virnucpro.classifiers.open_frames import BLOCK_NT, FrameEncoders
from virnucpro.classifiers.plan import CUDA_BLOCK_NT
from virnucpro.errors import ResumeError, SettingsError
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
    among the chunks of all contigs, ascending; frame: (m,) 0..5 for F1..R3; chunks: (contigs,)
    number of chunks of each.
    """

    features: "FeatureRows"
    contig: Int64
    chunk: Int64
    frame: Int64
    chunks: Int64


class FeatureRows:
    """Rows (m, F) of a file of float32, read when they are asked for.

    Not through a memory map: its pages would count as memory of the process. A lock on the file
    that is given is held until this is closed, too.
    """

    def __init__(self, file: BinaryIO, rows: int, width: int) -> None:
        self.shape = (rows, width)
        self._file = os.fdopen(os.dup(file.fileno()), "rb", buffering=0)
        if hasattr(os, "posix_fadvise"):  # rows come in random order
            os.posix_fadvise(self._file.fileno(), 0, 0, os.POSIX_FADV_RANDOM)

    def close(self) -> None:
        """Close the file."""
        self._file.close()

    def __getitem__(self, rows: Int64) -> Float32:
        """Return rows (k, F), faster where they ascend. Raises OSError."""
        width, found = self.shape[1], np.empty((len(rows), self.shape[1]), "<f4")
        begins = np.flatnonzero(np.diff(rows, prepend=-2) != 1)
        for begin, end in pairwise([*begins.tolist(), len(rows)]):
            part = found[begin:end].data.cast("B")
            offset = 4 * width * int(rows[begin])
            while part:
                count = os.preadv(self._file.fileno(), [part], offset)
                if not count:
                    raise OSError(errno.EIO, "the file of features ends too early")
                part, offset = part[count:], offset + count
        return found


@dataclass(frozen=True, slots=True)
class _Part:
    """A block in the file: its key, the chunk of each of its frames (row in the block), which of
    F1..R3 each is, and the sha256 of its features."""

    key: str
    chunk: list[int]
    frame: list[int]
    sha256: str

    def line(self) -> bytes:
        return json.dumps(asdict(self), separators=(",", ":")).encode() + b"\n"


def embed_contigs(
    contigs: Sequence[LabelledContig],
    chunk_nt: int,
    encoders: Sequence[FrameEncoders],
    sums: Mapping[str, Mapping[str, str]],
    folder: Path,
    stages: Progress,
) -> Embedded:
    """Embed every open frame of every chunk into files of folder.

    encoders: the same pair on one device or several, which take blocks in turn. sums: the sha256 of
    the encoders' files. The folder is locked until the features are closed. Raises ResumeError if
    another process works there.
    """
    chunks = np.array([len(span_arrays(len(c.sequence), chunk_nt)[0]) for c in contigs], np.int64)
    base, width = base_key(encoders[0], sums, chunk_nt), encoders[0].width
    block_nt = CUDA_BLOCK_NT if encoders[0].esm2.device.type == "cuda" else BLOCK_NT
    contig_parts, chunk_parts, frame_parts = ([np.empty(0, np.int64)] for _ in range(3))
    done, frames = 0, 0
    with _opened(folder, width) as file:
        blocks = blocks_of(_plain(contigs), chunk_nt, block_nt)
        for block, row, frame in _placed(blocks, base, encoders, file):
            contig_parts.append(block.records.ordinal[block.rows.record[row]])
            chunk_parts.append(done + row)
            frame_parts.append(frame)
            done += len(block.rows)
            frames += len(row)
            note = f"{frames:,} open frames embedded"
            stages.advance(Position(done, int(chunks.sum()), note))
        if file.reused:
            stages.line(f"{file.reused:,} embedded blocks were there already, and were used")
        rows = file.rows(frames)
    contig, chunk, frame = map(np.concatenate, (contig_parts, chunk_parts, frame_parts))
    return Embedded(rows, contig, chunk, frame, chunks)


def _placed(
    blocks: Iterator[Block], base: str, encoders: Sequence[FrameEncoders], file: "_FeatureFile"
) -> Iterator[tuple[Block, Int64, Int64]]:
    """Yield every block with the chunk row and the number of each frame, all in the file."""
    for block in blocks:
        kept = file.kept(f"{base}{block.digest}")
        if kept is None:
            blocks = chain((block,), blocks)
            break
        yield block, *kept
    with closing(_computed(blocks, encoders)) as computed:
        for block, made in computed:
            yield block, *file.add(f"{base}{block.digest}", *made)


def _computed(
    blocks: Iterable[Block], encoders: Sequence[FrameEncoders]
) -> Generator[tuple[Block, tuple[Float32, Int64, Int64]]]:
    """Yield blocks with what the encoders make of them, in order; each device has a thread."""
    free: SimpleQueue[FrameEncoders] = SimpleQueue()
    for pair in encoders:
        free.put(pair)

    def compute(block: Block) -> tuple[Float32, Int64, Int64]:
        pair = free.get()
        try:
            return _embedded(block, pair)
        finally:
            free.put(pair)

    waiting: deque[tuple[Block, Future[tuple[Float32, Int64, Int64]]]] = deque()
    with ThreadPoolExecutor(len(encoders)) as pool:
        try:
            for block in blocks:
                waiting.append((block, pool.submit(compute, block)))
                if len(waiting) > len(encoders):
                    first, made = waiting.popleft()
                    yield first, made.result()
            while waiting:
                first, made = waiting.popleft()
                yield first, made.result()
        finally:
            pool.shutdown(wait=False, cancel_futures=True)


def base_key(encoders: FrameEncoders, sums: Mapping[str, Mapping[str, str]], chunk_nt: int) -> str:
    """Return a digest of all that a row depends on but its chunk; a part's key begins with it."""
    dnabert_s, esm2 = encoders.dnabert_s, encoders.esm2
    computed = [[e.precision, e.device.type, e.attention] for e in (dnabert_s, esm2)]
    known = json.dumps([chunk_nt, {k: dict(v) for k, v in sums.items()}, computed], sort_keys=True)
    return hashlib.sha256(known.encode()).hexdigest()


def _plain(contigs: Sequence[LabelledContig]) -> Iterator[Contig]:
    """Neither names nor labels belong to the key of an embedding."""
    for record, contig in enumerate(contigs, 1):
        yield Contig("", record, "", contig.sequence)


def _embedded(block: Block, encoders: FrameEncoders) -> tuple[Float32, Int64, Int64]:
    """Return features (m, F), chunk row (m,) and number (m,) of a block's open frames."""
    texts = Texts.of_block(block)
    frames = open_frames_of(texts.text, texts.offset, texts.length_nt)
    features: Float32 = encoders.features(frames).cpu().numpy()
    if not np.isfinite(features).all():
        raise SettingsError(
            f"numbers overflow in {encoders.esm2.precision}; choose --precision bf16 or fp32"
        )
    return features, frames.chunk.astype(np.int64), frames.frame.astype(np.int64)


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

    def kept(self, key: str) -> tuple[Int64, Int64] | None:
        """Return chunk row (m,) and number (m,) of the next part's frames; None: to be made."""
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
                return np.array(part.chunk, np.int64), np.array(part.frame, np.int64)
        self.cut()
        return None

    def cut(self) -> None:
        """Drops what lies behind the last part that was asked for."""
        if not self._appending:
            self._index.truncate(self._index_end)
            self._data.truncate(self._data_end)
            self._appending = True

    def rows(self, count: int) -> FeatureRows:
        """Return the first rows, to be read."""
        return FeatureRows(self._data, count, self._width)

    def add(self, key: str, features: Float32, chunk: Int64, frame: Int64) -> tuple[Int64, Int64]:
        """Append a part, on the disk when this returns; return chunk and frame."""
        rows = np.ascontiguousarray(features, np.float32).astype("<f4", copy=False).tobytes()
        sha256 = hashlib.sha256(rows).hexdigest()
        part = _Part(key, chunk.tolist(), frame.tolist(), sha256)
        for file, content in ((self._data, rows), (self._index, part.line())):
            file.write(content)
            file.flush()
            os.fsync(file.fileno())
        return chunk, frame


def _part(line: bytes) -> _Part | None:
    """A line of the index; None for one that was cut off or is not ours."""
    try:
        return _Part(**json.loads(line)) if line.endswith(b"\n") else None
    except (ValueError, TypeError):
        return None
