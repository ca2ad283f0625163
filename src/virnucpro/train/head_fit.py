"""Fitting the published head on frozen encoders: labelled contigs -> a bundle of kind frames.

Contigs are cut into chunks; every open frame of a chunk carries the label of its contig. Both
classes weigh the same in the loss, whatever their numbers of frames. The epoch that is kept, and
the end of the training, are chosen on a slice of the contigs cut by unit. The same contigs,
settings, encoders and machine give the same weights.

m open frames, F features.
"""

import hashlib
import json
import platform
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass, field
from pathlib import Path
from tempfile import TemporaryDirectory
from time import perf_counter
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.nn import functional as F

from virnucpro import __version__
from virnucpro.bundle.assemble import EncoderFiles, frames_manifest, put_together
from virnucpro.bundle.encoder_files import encoder_sums
from virnucpro.bundle.manifest import Bundle
from virnucpro.bundle.write import check_free
from virnucpro.classifiers.head import Head
from virnucpro.classifiers.open_frames import DNABERT_S, ESM2, FrameEncoders
from virnucpro.encoders import Encoder
from virnucpro.encoders.esm2 import MAX_RESIDUES
from virnucpro.errors import BundleError, InputError, SettingsError
from virnucpro.measure.labels import LabelledContig
from virnucpro.measure.metrics import auroc
from virnucpro.progress import Position, Progress
from virnucpro.storage.atomic import disk_errors
from virnucpro.train.checks import check_finite, check_least
from virnucpro.train.embedding import Embedded, embed_contigs
from virnucpro.train.slices import contigs_digest, judging_slice
from virnucpro.train.state import (
    load_optimiser,
    optimiser_tensors,
    prefixed,
    read_state,
    under,
    write_state,
)

STATE = "head-state.safetensors"
JUDGED_AT_ONCE = 4096
SIDES = {0: "others", 1: "viral"}

Bool = NDArray[np.bool_]
Float32 = NDArray[np.float32]
Int64 = NDArray[np.int64]
Sums = Mapping[str, Mapping[str, str]]


@dataclass(frozen=True, slots=True, kw_only=True)
class HeadSettings:
    """The settings by which the head is fitted.

    hidden: its inner width; batch_frames: least frames of a step; epochs: most passes over the
    frames; patience: epochs without a better one on the slice that end the training (a higher
    AUROC, or at the same AUROC a lower loss);
    slice_fraction: of the bases of each group held out for that, by unit.
    """

    chunk_nt: int = 500
    hidden: int = 512
    batch_frames: int = 256
    learning_rate: float = 5e-4
    epochs: int = 100
    patience: int = 5
    slice_fraction: float = 0.05
    seed: int = 0

    def __post_init__(self) -> None:
        if not 3 <= self.chunk_nt <= 3 * MAX_RESIDUES:
            raise SettingsError(
                f"chunks of {self.chunk_nt} nt cannot be used; ESM-2 takes 3 to {3 * MAX_RESIDUES}"
            )
        check_least(self, hidden=1, batch_frames=2, epochs=1, patience=1, learning_rate=0, seed=0)


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
) -> HeadFit:
    """Fits the head.

    workdir keeps embeddings and, after every epoch, the state of the training: a second call goes
    on from there, to the very result of an undisturbed one. Without it they lie in a temporary
    folder. data_sha256, file to hash, goes into the record. Raises InputError when a side is
    missing or has no open frame, BundleError for an encoder without what a bundle needs,
    ResumeError when workdir is in use.
    """
    clock = perf_counter()
    held_out = judging_slice(contigs, settings.slice_fraction, settings.seed, "the epoch")
    encoders = FrameEncoders.of(dnabert_s, esm2)
    sums = {DNABERT_S: encoder_sums(dnabert_s.name), ESM2: encoder_sums(esm2.name)}
    with _folder(workdir) as folder, disk_errors(folder):
        stages.line(f"embedding {len(contigs):,} contigs on {esm2.device} in {esm2.precision}")
        embedded = embed_contigs(contigs, settings.chunk_nt, encoders, sums, folder, stages)
        frames = _frames(contigs, held_out, embedded)
        key = _key(contigs, settings, encoders, sums)
        training = _Training(frames, settings, esm2.device, key, folder / STATE)
        training.run(stages)
    best = training.best
    record = {
        "method": "published head on frozen encoders; Adam on cross-entropy, both classes weigh "
        "the same; the epoch of the highest AUROC of chunks, then the lowest loss, on a slice cut "
        "by unit",
        "settings": asdict(settings),
        "data": dict(data_sha256 or {}),
        "contigs_sha256": contigs_digest(contigs),
        "encoders": {name: dict(files) for name, files in sums.items()},
        "precision": esm2.precision,
        "device": esm2.device.type,
        "fitting": _counts(contigs, ~held_out, embedded),
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


@contextmanager
def _folder(workdir: Path | None) -> Iterator[Path]:
    if workdir is not None:
        yield workdir
        return
    with TemporaryDirectory(prefix="virnucpro-") as made:
        yield Path(made)


@dataclass(frozen=True, slots=True)
class _Frames:
    """The frames to fit on and to judge by: rows (places in features), their labels (m,)."""

    features: Float32
    chunk: Int64
    label: Int64
    fitting: Int64
    judging: Int64


def _frames(contigs: Sequence[LabelledContig], held_out: Bool, embedded: Embedded) -> _Frames:
    label = np.array([contig.label for contig in contigs], np.int64)[embedded.contig]
    out = held_out[embedded.contig]
    fitting, judging = np.flatnonzero(~out), np.flatnonzero(out)
    for rows, what in ((fitting, "fitting"), (judging, "the slice that chooses the epoch")):
        if len(np.unique(label[rows])) < 2:
            raise InputError(
                f"{what} has no open frame on one of its sides; give more or longer contigs"
            )
    return _Frames(embedded.features, embedded.chunk, label, fitting, judging)


def _key(
    contigs: Sequence[LabelledContig], settings: HeadSettings, encoders: FrameEncoders, sums: Sums
) -> str:
    """Digest of all that the weights depend on."""
    computed = [encoders.esm2.precision, encoders.dnabert_s.precision, encoders.esm2.device.type]
    known = [contigs_digest(contigs), asdict(settings), computed, sums, _versions()]
    return hashlib.sha256(json.dumps(known, sort_keys=True).encode()).hexdigest()


class _Training:
    """A head on its way: epoch after epoch, with its state on disk after each."""

    def __init__(
        self, frames: _Frames, settings: HeadSettings, device: torch.device, key: str, path: Path
    ) -> None:
        self._frames, self._settings, self._device = frames, settings, device
        self._key, self._path = key, path
        count = np.bincount(frames.label[frames.fitting], minlength=2)
        weight = count.sum() / (2 * count)
        self._class_weight = torch.tensor(weight, dtype=torch.float32, device=device)
        with _seeded(settings.seed, 0, device):
            self._head = Head(frames.features.shape[1], settings.hidden).to(device)
        # In front of a BatchNorm its gradient is zero but for rounding, which Adam would scale up
        # to full steps.
        self._head.hidden.bias.requires_grad_(False)
        learned = [parameter for parameter in self._head.parameters() if parameter.requires_grad]
        self._optimizer = torch.optim.Adam(learned, lr=settings.learning_rate)
        self._best: dict[str, Tensor] = {}
        self.history: list[dict[str, Any]] = []

    @property
    def best(self) -> dict[str, Any]:
        """The epoch of the highest AUROC, of equals that of the lowest loss on the slice."""
        return max(self.history, key=lambda epoch: (epoch["slice_auroc"], -epoch["slice_loss"]))

    def best_head(self) -> Head:
        """The head as that epoch left it, on the CPU."""
        with torch.device("meta"):
            head = Head(self._head.features, self._settings.hidden)
        head.load_state_dict(self._best, assign=True)
        return head.requires_grad_(False).eval()

    def run(self, stages: Progress) -> None:
        """Trains to the end, from the state on disk if there is one of this very training."""
        if self._resume():
            stages.line(f"going on after epoch {len(self.history)}")
        while not self._ended():
            self._epoch()
            self._save()
            last = self.history[-1]
            note = f"loss {last['loss']:.4f}, slice AUROC {last['slice_auroc']:.4f}"
            stages.advance(Position(last["epoch"], self._settings.epochs, note))
        stages.line(
            f"kept epoch {self.best['epoch']} of {len(self.history)}, "
            f"slice AUROC {self.best['slice_auroc']:.4f}"
        )

    def _ended(self) -> bool:
        done = len(self.history)
        waited = done - self.best["epoch"] if done else 0
        return done >= self._settings.epochs or waited >= self._settings.patience

    def _epoch(self) -> None:
        number = len(self.history) + 1
        with _seeded(self._settings.seed, number, self._device):
            loss = self._pass(np.random.default_rng([self._settings.seed, number]))
        judged_loss, area = self._judged()
        values = {"epoch": number, "loss": loss, "slice_loss": judged_loss, "slice_auroc": area}
        self.history.append(values)
        if self.best["epoch"] == number:
            state = self._head.state_dict()
            self._best = {name: tensor.detach().cpu().clone() for name, tensor in state.items()}

    def _pass(self, random: np.random.Generator) -> float:
        """One pass over the frames in random order; their mean loss."""
        order = random.permutation(self._frames.fitting)
        total = weight = 0.0
        self._head.train()
        # Batches of nearly equal size: batch statistics need more than one row.
        for rows in np.array_split(order, max(1, len(order) // self._settings.batch_frames)):
            features_RF, label_R = self._batch(np.sort(rows))
            loss = F.cross_entropy(self._head(features_RF), label_R, self._class_weight)
            self._optimizer.zero_grad()
            loss.backward()  # type: ignore[no-untyped-call]
            self._optimizer.step()
            batch_weight = float(self._class_weight[label_R].sum())
            total += float(loss.detach()) * batch_weight
            weight += batch_weight
        return total / weight

    def _batch(self, rows: Int64) -> tuple[Tensor, Tensor]:
        features = torch.from_numpy(np.asarray(self._frames.features[rows], np.float32))
        label = torch.from_numpy(self._frames.label[rows])
        return features.to(self._device), label.to(self._device)

    def _judged(self) -> tuple[float, float]:
        """Return, on the slice, the mean loss of its frames, weighted as in fitting, and the AUROC
        of p_virus of its chunks that have an open frame."""
        rows = self._frames.judging
        parts, total, weight = [], 0.0, 0.0
        for part in np.array_split(rows, -(-len(rows) // JUDGED_AT_ONCE)):
            features_RF, label_R = self._batch(part)
            probability_R2 = self._head.probabilities(features_RF)
            lost_R = -probability_R2.clamp_min(1e-30).log().gather(1, label_R[:, None])[:, 0]
            weight_R = self._class_weight[label_R]
            total += float((lost_R * weight_R).sum())
            weight += float(weight_R.sum())
            parts.append(probability_R2.cpu().numpy())
        _, first = np.unique(self._frames.chunk[rows], return_index=True)
        best = np.maximum.reduceat(np.concatenate(parts), first, axis=0).astype(np.float64)
        viral = self._frames.label[rows][first] == 1
        area = auroc(viral, best[:, 1] / best.sum(axis=1))
        if area is None:
            raise ValueError("the slice has one side only")
        return total / weight, area

    def _save(self) -> None:
        tensors = prefixed("head", self._head.state_dict()) | prefixed("best", self._best)
        tensors |= optimiser_tensors(self._optimizer)
        write_state(self._path, tensors, {"key": self._key, "history": self.history})

    def _resume(self) -> bool:
        """Takes up the state on disk; False if there is none, or it is of another training."""
        if not self._path.is_file():
            return False
        found = read_state(self._path)
        if found is None or found[1].get("key") != self._key:
            return False
        tensors, training = found
        self.history = training["history"]
        self._head.load_state_dict(under("head", tensors))
        self._best = under("best", tensors)
        load_optimiser(self._optimizer, tensors)
        return True


@contextmanager
def _seeded(seed: int, epoch: int, device: torch.device) -> Iterator[None]:
    """torch's random numbers, of a seed and an epoch alone; the caller's are left as they were."""
    with torch.random.fork_rng(devices=[device] if device.type == "cuda" else []):
        torch.manual_seed(int(np.random.SeedSequence([seed, epoch]).generate_state(1)[0]))
        yield


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
