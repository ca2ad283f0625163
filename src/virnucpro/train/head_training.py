"""A head on its way: epoch after epoch over features on disk, with its state on disk after each.

m open frames, F features, R rows of a batch.
"""

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.nn import functional as F

from virnucpro.classifiers.head import Head
from virnucpro.measure.metrics import auroc
from virnucpro.progress import Position, Progress
from virnucpro.train.embedding import FeatureRows
from virnucpro.train.head_settings import ADAM, HeadSettings
from virnucpro.train.state import (
    load_optimiser,
    optimiser_tensors,
    prefixed,
    read_state,
    under,
    write_state,
)

JUDGED_AT_ONCE = 4096

Int64 = NDArray[np.int64]


@dataclass(frozen=True, slots=True)
class FramesToFit:
    """The frames to fit on and to judge by: rows (places in features), their labels (m,)."""

    features: FeatureRows
    chunk: Int64
    label: Int64
    fitting: Int64
    judging: Int64


class HeadTraining:
    """A head on its way: epoch after epoch, with its state on disk after each."""

    def __init__(
        self,
        frames: FramesToFit,
        settings: HeadSettings,
        device: torch.device,
        key: str,
        path: Path,
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
        self._optimizer: torch.optim.Optimizer = (
            torch.optim.Adam(learned, lr=settings.learning_rate)
            if settings.optimiser == ADAM
            else torch.optim.SGD(learned, lr=settings.learning_rate, momentum=settings.momentum)
        )
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
        for group in self._optimizer.param_groups:
            group["lr"] = self._settings.learning_rate_of(number)
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
        features = torch.from_numpy(self._frames.features[rows])
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
