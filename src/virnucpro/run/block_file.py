"""The file that holds a scored block until the tables are made.

A file is its own sha256, then safetensors: arrays, and the texts as JSON in a byte array. The
embeddings of a block, a thousand times as large, are in a file of their own, which only their table
reads. This module turns values into bytes and back; it knows no run directory.
"""

import hashlib
import json
from dataclasses import fields
from itertools import groupby
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from safetensors import SafetensorError
from safetensors.numpy import load, save

from virnucpro.blocks import Rows, Scored
from virnucpro.calls import OPTIONAL, Embeddings, Scores
from virnucpro.errors import BlockError
from virnucpro.records import Records

_ROWS = tuple(part.name for part in fields(Rows))
_RECORDS = (
    "ordinal",
    "record",
    "length_nt",
    "begins",
    "ends",
    "letters_crc",
    "mate",
    "short",
    "code",
)
_SCORES = tuple(part.name for part in fields(Scores) if part.name not in OPTIONAL)
_IF_ANY = tuple(name for name in OPTIONAL if name != "embeddings")
_DAMAGE = (OSError, SafetensorError, KeyError, TypeError, ValueError)


def to_bytes(scored: Scored, fingerprint: str) -> bytes:
    """Return the content of the file of a block. fingerprint: sha256 of that of the run."""
    texts = {
        "block_number": scored.block_number,
        "digest": scored.digest,
        "fingerprint": fingerprint,
        "names": scored.records.name,
        "samples": _runs(scored.records.sample),
        "faults": {str(row): reason for row, reason in scored.records.faults.items()},
        "failures": {str(row): reason for row, reason in scored.failures.items()},
    }
    arrays: dict[str, NDArray[np.generic]] = {"texts": _json_array(texts)}
    for group, names in ((scored.rows, _ROWS), (scored.scores, _SCORES)):
        for name in names:
            arrays[name] = np.ascontiguousarray(getattr(group, name))
    for name in _IF_ANY:
        if (values := getattr(scored.scores, name)) is not None:
            arrays[name] = np.ascontiguousarray(values)
    columns = [getattr(scored.records, name) for name in _RECORDS]
    arrays["records"] = np.stack(columns, axis=1, dtype=np.int64)
    return _sealed(arrays)


def from_bytes(data: bytes) -> tuple[Scored, str]:
    """Return a block and the fingerprint in its file, without telemetry.

    Raises ValueError, KeyError or SafetensorError for other data.
    """
    arrays = load(_unsealed(data))
    texts = json.loads(arrays["texts"].tobytes())
    columns = dict(zip(_RECORDS, np.ascontiguousarray(arrays["records"].T), strict=True))
    columns |= {name: columns[name].astype(np.bool_) for name in ("begins", "ends", "short")}
    records = Records(
        sample=[sample for sample, times in texts["samples"] for _ in range(times)],
        name=texts["names"],
        faults={int(row): reason for row, reason in texts["faults"].items()},
        **columns,
    )
    columns_of_scores: dict[str, Any] = {name: arrays[name] for name in _SCORES}
    columns_of_scores |= {name: arrays.get(name) for name in _IF_ANY}
    scored = Scored(
        block_number=texts["block_number"],
        digest=texts["digest"],
        records=records,
        rows=Rows(**{name: arrays[name] for name in _ROWS}),
        scores=Scores(**columns_of_scores),
        failures={int(row): reason for row, reason in texts["failures"].items()},
    )
    return scored, texts["fingerprint"]


def read_block(path: Path, number: int, fingerprint: str) -> Scored:
    """Read a block back.

    Raises BlockError if the file is missing or damaged, or holds a block of another number or run.
    """
    try:
        scored, of_run = from_bytes(path.read_bytes())
        if scored.block_number != number:
            raise ValueError(f"block {scored.block_number}")
    except _DAMAGE as error:
        raise BlockError(f"{path}: this finished block is missing or damaged") from error
    if of_run != fingerprint:
        raise BlockError(f"{path}: this finished block is of another run")
    return scored


def embeddings_to_bytes(scored: Scored, embeddings: Embeddings, fingerprint: str) -> bytes:
    """Return the content of the file of a block's embeddings."""
    return _sealed(
        {
            "texts": _json_array(_identity(scored, fingerprint)),
            "nucleotides": np.ascontiguousarray(embeddings.nucleotides),
            "protein": np.ascontiguousarray(embeddings.protein),
        }
    )


def read_embeddings(path: Path, scored: Scored, fingerprint: str) -> Embeddings | None:
    """Read the embeddings of a block's frames back; None where it has no frame.

    Raises BlockError if they are missing or damaged.
    """
    if not len(scored.scores.frame):
        return None
    try:
        arrays = load(_unsealed(path.read_bytes()))
        if json.loads(arrays["texts"].tobytes()) != _identity(scored, fingerprint):
            raise ValueError("embeddings of another block")
        embeddings = Embeddings(arrays["nucleotides"], arrays["protein"])
        if len(embeddings) != len(scored.scores.frame):
            raise ValueError("embeddings of other frames")
    except _DAMAGE as error:
        raise BlockError(
            f"{path}: the embeddings of this finished block are missing or damaged"
        ) from error
    return embeddings


def _identity(scored: Scored, fingerprint: str) -> dict[str, object]:
    """Return a value that tells the embeddings of one block from those of any other, in any run."""
    return {
        "block_number": scored.block_number,
        "digest": scored.digest,
        "fingerprint": fingerprint,
    }


def _json_array(document: object) -> NDArray[np.generic]:
    return np.frombuffer(json.dumps(document).encode("ascii"), dtype=np.uint8)


def _sealed(arrays: dict[str, NDArray[np.generic]]) -> bytes:
    data = bytes(save(arrays))
    return hashlib.sha256(data).digest() + data


def _unsealed(data: bytes) -> bytes:
    """Return what follows the sha256 at the front. Raises ValueError if it is another one."""
    size = hashlib.sha256().digest_size
    if hashlib.sha256(data[size:]).digest() != data[:size]:
        raise ValueError("the sha256 does not fit")
    return data[size:]


def _runs(samples: list[str]) -> list[tuple[str, int]]:
    """Return a run-length code: a sample's name would else stand in every record."""
    return [(sample, len([*rows])) for sample, rows in groupby(samples)]
