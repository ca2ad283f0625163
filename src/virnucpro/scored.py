"""A block with its scores, and the one file that holds it until the tables are made.

The file is its own sha256, then safetensors: arrays, and the names as JSON in a byte array. This
module knows no run directory; it turns a value into bytes and back.
"""

import hashlib
import json
from dataclasses import dataclass, field, fields
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from safetensors import SafetensorError
from safetensors.numpy import load, save

from virnucpro.batches import Record, Rows
from virnucpro.calls import Scores
from virnucpro.errors import BlockError

_ROWS = tuple(part.name for part in fields(Rows))
_SCORES = tuple(part.name for part in fields(Scores))


@dataclass(frozen=True, slots=True)
class Scored:
    """What a run keeps of a block: its contigs, its chunks, and what the classifier said of them.

    scores has as many rows as rows; telemetry is seconds and counts by name. failures: why a chunk
    could not be scored, by its row. unbroken: None, or the records of the run that came before an
    input that had broken off by the end of this block, which is cut elsewhere once that input can
    be read. fingerprint: sha256 of that of the run.
    """

    block_number: int
    digest: str
    records: tuple[Record, ...]
    rows: Rows
    scores: Scores
    telemetry: dict[str, float] = field(default_factory=dict)
    failures: dict[int, str] = field(default_factory=dict)
    unbroken: int | None = None
    fingerprint: str = ""

    def __post_init__(self) -> None:
        if len(self.rows) != len(self.scores):
            raise ValueError(f"{len(self.scores)} scores for {len(self.rows)} chunks")

    def to_bytes(self) -> bytes:
        """The content of this block's file."""
        arrays: dict[str, NDArray[np.generic]] = {"words": self._words()}
        for group, names in ((self.rows, _ROWS), (self.scores, _SCORES)):
            for name in names:
                arrays[name] = np.ascontiguousarray(getattr(group, name))
        columns = [
            (r.ordinal, r.record, r.length_nt, r.begins, r.ends, r.letters_crc, r.mate, r.short)
            for r in self.records
        ]
        arrays["records"] = np.array(columns, dtype=np.int64).reshape(-1, 8)
        data = bytes(save(arrays))
        return hashlib.sha256(data).digest() + data

    def _words(self) -> NDArray[np.uint8]:
        words = {
            "block_number": self.block_number,
            "digest": self.digest,
            "names": [r.name for r in self.records],
            "samples": _runs([r.sample for r in self.records]),
            "faults": {str(i): r.fault for i, r in enumerate(self.records) if r.fault},
            "telemetry": self.telemetry,
            "failures": {str(row): reason for row, reason in self.failures.items()},
            "unbroken": self.unbroken,
            "fingerprint": self.fingerprint,
        }
        return np.frombuffer(json.dumps(words).encode("ascii"), dtype=np.uint8)

    @classmethod
    def from_bytes(cls, data: bytes) -> "Scored":
        """The inverse of to_bytes. Raises ValueError, KeyError or SafetensorError on other data."""
        arrays = load(_checked(data))
        words = json.loads(arrays["words"].tobytes())
        number = len(words["names"])
        faults = [words["faults"].get(str(i), "") for i in range(number)]
        samples = [sample for sample, times in words["samples"] for _ in range(times)]
        columns = arrays["records"].T.tolist() or [[]] * 8
        ordinal, record, length_nt, begins, ends, crc, mate, short = columns
        begins, ends, short = (map(bool, column) for column in (begins, ends, short))
        where = (ordinal, samples, record, words["names"], length_nt, begins, ends)
        return cls(
            block_number=words["block_number"],
            digest=words["digest"],
            records=tuple(map(Record, *where, faults, crc, mate, short)),
            rows=Rows(**{name: arrays[name] for name in _ROWS}),
            scores=Scores(**{name: arrays[name] for name in _SCORES}),
            telemetry=words["telemetry"],
            failures={int(row): reason for row, reason in words["failures"].items()},
            unbroken=words["unbroken"],
            fingerprint=words["fingerprint"],
        )

    @classmethod
    def from_file(
        cls, path: Path, number: int | None = None, fingerprint: str | None = None
    ) -> "Scored":
        """Reads a block back.

        number: which it must be; fingerprint: of which run. Raises BlockError if it is another, or
        the file is missing or damaged.
        """
        try:
            scored = cls.from_bytes(path.read_bytes())
            if number not in (None, scored.block_number):
                raise ValueError("this is another block")
        except (OSError, SafetensorError, KeyError, TypeError, ValueError) as error:
            raise BlockError(f"{path}: this finished block is missing or damaged") from error
        if fingerprint not in (None, scored.fingerprint):
            raise BlockError(f"{path}: this finished block is of another run")
        return scored


def _checked(data: bytes) -> bytes:
    """What follows the sha256 at the front. Raises ValueError where it is another one."""
    size = hashlib.sha256().digest_size
    if hashlib.sha256(data[size:]).digest() != data[:size]:
        raise ValueError("the sha256 does not fit")
    return data[size:]


def _runs(words: list[str]) -> list[tuple[str, int]]:
    """Run-length code: a sample's name would else stand in every record."""
    runs: list[tuple[str, int]] = []
    for word in words:
        if runs and runs[-1][0] == word:
            runs[-1] = (word, runs[-1][1] + 1)
        else:
            runs.append((word, 1))
    return runs
