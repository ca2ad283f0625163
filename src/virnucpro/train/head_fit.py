"""Fitting the published head on frozen encoders: labelled contigs -> a bundle of kind frames.

Contigs are cut into chunks; every open frame of a chunk carries the label of its contig. Where a
contig states which of its frames code, these alone are fitted on; the slice is judged by all, as
sequences are scored later. Both classes weigh the same in the loss, whatever their numbers of
frames. The epoch that is kept, and the end of the training, are chosen on a slice of the contigs
cut by unit. The same contigs, settings, encoders and machine give the same weights.

m open frames, F features.
"""

import hashlib
import json
import platform
from collections.abc import Iterator, Mapping, Sequence
from contextlib import closing, contextmanager
from dataclasses import asdict, dataclass, field
from pathlib import Path
from tempfile import TemporaryDirectory
from time import perf_counter
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from virnucpro import __version__
from virnucpro.bundle.assemble import EncoderFiles, frames_manifest, put_together
from virnucpro.bundle.encoder_files import encoder_sums
from virnucpro.bundle.manifest import Bundle
from virnucpro.bundle.write import check_free
from virnucpro.calls import FRAME_NAMES
from virnucpro.classifiers.head import Head
from virnucpro.classifiers.open_frames import DNABERT_S, ESM2, FrameEncoders
from virnucpro.encoders import Encoder
from virnucpro.errors import BundleError, InputError
from virnucpro.measure.labels import LabelledContig
from virnucpro.progress import Progress
from virnucpro.storage.atomic import disk_errors
from virnucpro.train.checks import check_finite
from virnucpro.train.embedding import Embedded, base_key, embed_contigs
from virnucpro.train.head_settings import HeadSettings
from virnucpro.train.head_training import FramesToFit, HeadTraining
from virnucpro.train.slices import contigs_digest, judging_slice

STATE = "head-state.safetensors"
SIDES = {0: "others", 1: "viral"}

Bool = NDArray[np.bool_]
Float32 = NDArray[np.float32]
Int64 = NDArray[np.int64]
Sums = Mapping[str, Mapping[str, str]]


@dataclass(frozen=True, slots=True)
class HeadFit:
    """A fitted head in eval mode on the CPU, and the record of how it was made."""

    head: Head = field(repr=False)
    settings: HeadSettings
    record: dict[str, Any] = field(repr=False)


def fit_head(
    contigs: Sequence[LabelledContig],
    settings: HeadSettings,
    dnabert_s: Encoder,
    esm2: Encoder,
    workdir: Path | None,
    stages: Progress,
    data_sha256: Mapping[str, str] | None = None,
    others: Sequence[tuple[Encoder, Encoder]] = (),
) -> HeadFit:
    """Fit the head.

    others: the same encoders on further devices, to embed with; the head is fitted on the first.
    workdir keeps embeddings and, after every epoch, the state of the training: a second call goes
    on from there, to the very result of an undisturbed one. Without it they lie in a temporary
    folder. data_sha256, file to hash, goes into the record. Raises InputError when a side is
    missing or has no open frame, BundleError for an encoder without what a bundle needs,
    ResumeError when workdir is in use.
    """
    clock = perf_counter()
    _check_lengths(contigs, settings.chunk_nt)
    held_out = judging_slice(contigs, settings.slice_fraction, settings.seed, "the epoch")
    encoders = FrameEncoders.of(dnabert_s, esm2)
    sums = {DNABERT_S: encoder_sums(dnabert_s.name), ESM2: encoder_sums(esm2.name)}
    with _folder(workdir) as folder, disk_errors(folder):
        every = [encoders, *(FrameEncoders.of(*pair) for pair in others)]
        devices = ", ".join(str(pair.esm2.device) for pair in every)
        stages.line(f"embedding {len(contigs):,} contigs on {devices} in {esm2.precision}")
        embedded = embed_contigs(contigs, settings.chunk_nt, every, sums, folder, stages)
        with closing(embedded.features):
            frames = _frames(contigs, held_out, embedded)
            key = _key(contigs, settings, encoders, sums)
            training = HeadTraining(frames, settings, esm2.device, key, folder / STATE)
            training.run(stages)
    best = training.best
    record = {
        "method": "published head on frozen encoders; cross-entropy, both classes weigh the same; "
        "the epoch of the highest AUROC of chunks, then the lowest loss, on a slice cut by unit",
        "settings": asdict(settings),
        "data": dict(data_sha256 or {}),
        "contigs_sha256": contigs_digest(contigs),
        "encoders": {name: dict(files) for name, files in sums.items()},
        "precision": esm2.precision,
        "device": esm2.device.type,
        "fitting": _counts(contigs, ~held_out, embedded),
        "fitted_frames": len(frames.fitting),
        "slice": _counts(contigs, held_out, embedded),
        "epochs": training.history,
        "chosen_epoch": best["epoch"],
        "slice_auroc": best["slice_auroc"],
        "seconds_of_last_call": round(perf_counter() - clock, 1),
        "versions": _versions(),
    }
    return HeadFit(training.best_head(), settings, record)


def write_frames_bundle(
    directory: Path,
    fit: HeadFit,
    name: str,
    description: str,
    dnabert_path: Path,
    esm_path: Path,
    copy: bool,
) -> Bundle:
    """A bundle of kind frames in an empty directory.

    copy: whether the encoders' files are copied into the bundle, which then stands alone;
    otherwise it names where they lie. bundle.toml is written last, so that a directory that lacks
    something is not a bundle. Raises BundleError if the directory is not empty, if the weights are
    not finite, or if these are not the encoders that the head was fitted on.
    """
    encoders = [EncoderFiles.at(DNABERT_S, dnabert_path), EncoderFiles.at(ESM2, esm_path)]
    for encoder in encoders:
        if sorted(encoder.sums.values()) != sorted(fit.record["encoders"][encoder.part].values()):
            raise BundleError(
                f"{encoder.path}: not the encoder {encoder.part} that this head was fitted on"
            )
    parts = {
        "encoders": {
            encoder.part: encoder.table(encoder.published(), inside=copy) for encoder in encoders
        },
        "training": fit.record,
    }
    manifest = frames_manifest(name, description, fit.settings.chunk_nt, parts)
    head = {k: v.contiguous().numpy() for k, v in fit.head.state_dict().items()}
    check_finite(head)
    check_free(directory)
    return put_together(directory, manifest, head, copies=encoders if copy else ())


def _check_lengths(contigs: Sequence[LabelledContig], chunk_nt: int) -> None:
    """Raise InputError for a contig that states its frames and is longer than a chunk."""
    for contig in contigs:
        if contig.frames and len(contig.sequence) > chunk_nt:
            raise InputError(
                f"{contig.name} states which of its frames code, but has "
                f"{len(contig.sequence)} nt, more than a chunk of {chunk_nt}; give --chunk as the "
                "training set was made with"
            )


@contextmanager
def _folder(workdir: Path | None) -> Iterator[Path]:
    if workdir is not None:
        yield workdir
        return
    with TemporaryDirectory(prefix="virnucpro-") as made:
        yield Path(made)


def _frames(contigs: Sequence[LabelledContig], held_out: Bool, embedded: Embedded) -> FramesToFit:
    label = np.array([contig.label for contig in contigs], np.int64)[embedded.contig]
    out = held_out[embedded.contig]
    fitting = np.flatnonzero(~out & _coding(contigs)[embedded.contig, embedded.frame])
    judging = np.flatnonzero(out)
    for rows, what in ((fitting, "fitting"), (judging, "the slice that chooses the epoch")):
        if len(np.unique(label[rows])) < 2:
            raise InputError(
                f"{what} has no open frame on one of its sides; give more or longer contigs"
            )
    return FramesToFit(embedded.features, embedded.chunk, label, fitting, judging)


def _coding(contigs: Sequence[LabelledContig]) -> Bool:
    """Return which frames (contigs, 6) may be fitted on: all of a contig that states none."""
    rows: dict[str, list[bool]] = {"": [True] * len(FRAME_NAMES)}
    for contig in contigs:
        if contig.frames not in rows:
            stated = contig.frames.split(",")
            rows[contig.frames] = [name in stated for name in FRAME_NAMES]
    return np.array([rows[contig.frames] for contig in contigs], np.bool_)


def _key(
    contigs: Sequence[LabelledContig], settings: HeadSettings, encoders: FrameEncoders, sums: Sums
) -> str:
    """Digest of all that the weights depend on."""
    rows = base_key(encoders, sums, settings.chunk_nt)
    known = [contigs_digest(contigs), asdict(settings), rows, _versions()]
    return hashlib.sha256(json.dumps(known, sort_keys=True).encode()).hexdigest()


def _counts(
    contigs: Sequence[LabelledContig], chosen: Bool, embedded: Embedded
) -> dict[str, dict[str, int]]:
    """Contigs, units, chunks, chunks without open frame, and frames of each side of a part."""
    label = np.array([contig.label for contig in contigs], np.int64)
    _, first = np.unique(embedded.chunk, return_index=True)
    frames = np.bincount(embedded.contig, minlength=len(contigs))
    scored = np.bincount(embedded.contig[first], minlength=len(contigs))
    found = {}
    for value, side in SIDES.items():
        of_side = chosen & (label == value)
        found[side] = {
            "contigs": int(of_side.sum()),
            "units": len({contigs[i].unit for i in np.flatnonzero(of_side).tolist()}),
            "chunks": int(embedded.chunks[of_side].sum()),
            "chunks_without_frame": int((embedded.chunks - scored)[of_side].sum()),
            "frames": int(frames[of_side].sum()),
        }
    return found


def _versions() -> dict[str, str]:
    return {
        "virnucpro": __version__,
        "python": platform.python_version(),
        "torch": str(torch.__version__),
        "numpy": np.__version__,
    }
