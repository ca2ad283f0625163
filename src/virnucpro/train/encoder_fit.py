"""Training a small encoder from scratch, end to end with its head: labelled contigs -> network.

AdamW with warm-up and cosine by steps, on random fragments; what is kept is the best snapshot of
a running average of the weights, judged on a slice of the contigs cut by unit. Where groups are
named, a second head learns to tell them, which the network is the better for. Everything random
is drawn anew from (seed, step), so a run that was stopped goes on as if it had not been. This
module knows no command line and writes nothing but its state.
"""

import hashlib
import json
import math
import platform
import time
from collections.abc import Callable, Mapping, Sequence
from contextlib import AbstractContextManager, nullcontext
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from virnucpro.bundle.manifest import LABELS, Bundle
from virnucpro.bundle.write import write_bundle
from virnucpro.calls import DEFAULT_THRESHOLD
from virnucpro.classifiers.chunk_status import MIN_NT
from virnucpro.classifiers.codon import CodonNetwork, frame_codons
from virnucpro.classifiers.model import PROTEIN_KMERS
from virnucpro.classifiers.protein_kmers import PROTEIN_KMERS_FILE
from virnucpro.classifiers.whole_chunks import CODON_WEIGHTS
from virnucpro.errors import ResumeError, SettingsError
from virnucpro.measure.labels import LabelledContig
from virnucpro.storage.atomic import disk_errors
from virnucpro.train.checks import check_finite
from virnucpro.train.encoder_settings import EncoderSettings, learning_rate_at
from virnucpro.train.fragments import NO_CONTIG, FragmentPool, blurred
from virnucpro.train.judge import Judge, autocast
from virnucpro.train.losses import bounded_loss, group_loss, possible_groups, tail_loss
from virnucpro.train.protein_kmers_fit import FittedKmers
from virnucpro.train.slices import contigs_digest, described, judging_slice, parted
from virnucpro.train.state import (
    load_optimiser,
    optimiser_tensors,
    prefixed,
    read_state,
    under,
    write_state,
)
from virnucpro.train.units import contig_weights

STATE = "training-state.safetensors"
# About 2,000 chunks of 500 nt, some seconds of work on a CPU.
BLOCK_NT = 1_000_000
SHORTEST_FOR_BATCH_NT = 200
REPORT_EVERY_S = 1.0
# What a kill costs at most, besides a step: by the clock, as on a CPU a step may take a minute.
SAVE_EVERY_S = 60.0


@dataclass(frozen=True, slots=True)
class FitProgress:
    """The state of a fit.

    loss: mean since the last evaluation; auroc: on the slice, of the last evaluation, None before
    the first; evaluated: whether that was now; judging: whether it is about to be; seconds_left by
    pace.
    """

    step: int
    steps: int
    loss: float
    auroc: float | None
    evaluated: bool
    seconds_left: float
    judging: bool = False


@dataclass(frozen=True, slots=True)
class FitResult:
    """The best network so far, in eval mode on the CPU, and the record of how it was made.

    finished is False when max_minutes ended the fit first; state then goes on with the same call.
    """

    network: CodonNetwork = field(repr=False)
    record: dict[str, Any] = field(repr=False)
    finished: bool
    state: Path


Progress = Callable[[FitProgress], None]


def fit_encoder(
    contigs: Sequence[LabelledContig],
    settings: EncoderSettings | None = None,
    device: torch.device | str = "cpu",
    workdir: Path = Path("training"),
    progress: Progress | None = None,
    *,
    data_sha256: Mapping[str, str] | None = None,
    max_minutes: float | None = None,
    start: CodonNetwork | None = None,
) -> FitResult:
    """Train, going on from the state in workdir if there is one.

    start: a network whose weights are the first ones, in place of random ones; SettingsError if it
    is not of the shape of the settings.

    On a CPU the same contigs, settings and number of threads give the same weights, however often
    the fit was stopped. progress is called at every evaluation, and after a step when it was not
    for a second. max_minutes ends the fit after a step, or within an evaluation. data_sha256, file
    to hash, goes into the record. Raises InputError when a side is missing, ResumeError when
    workdir holds the state of another training, VirnucproError when it cannot be written to.
    """
    settings = settings or EncoderSettings()
    device = torch.device(device)
    deadline = math.inf if max_minutes is None else time.monotonic() + 60 * max_minutes
    with disk_errors(workdir):
        workdir.mkdir(parents=True, exist_ok=True)
    cuda = [device] if device.type == "cuda" else []
    with torch.random.fork_rng(cuda, enabled=True), _fast_kernels(device):
        fit = _Fit(contigs, settings, device, workdir / STATE, start)
        fit.resume()
        finished = fit.run(deadline, progress or (lambda _: None))
        network = fit.chosen()
    return FitResult(network, fit.record(data_sha256 or {}), finished, workdir / STATE)


def write_chunk_bundle(
    directory: Path,
    fit: FitResult,
    *,
    name: str,
    description: str,
    chunk_nt: int,
    validated_nt: int,
    kmers: FittedKmers | None = None,
) -> Bundle:
    """A new bundle of kind chunks; validated_nt: shortest length that was measured.

    kmers: the protein k-mers that it is to remember. Raises BundleError if the directory is not
    empty, or the weights are not finite.
    """
    arrays = fit.network.arrays()
    check_finite(arrays)
    manifest: dict[str, Any] = {
        "name": name,
        "description": description,
        "kind": "chunks",
        "chunk_nt": chunk_nt,
        "block_nt": BLOCK_NT,
        "min_nt": MIN_NT,
        "validated_nt": validated_nt,
        "threshold": DEFAULT_THRESHOLD,
        "labels": list(LABELS),
        "codon": fit.network.part(),
        "training": fit.record,
    }
    files = {CODON_WEIGHTS: arrays}
    if kmers is not None:
        manifest[PROTEIN_KMERS] = kmers.part
        files[PROTEIN_KMERS_FILE] = kmers.filters
    return write_bundle(directory, manifest, files)


class _Fit:
    """The moving parts of a training: network, average, best snapshot, optimiser, history."""

    def __init__(
        self,
        contigs: Sequence[LabelledContig],
        settings: EncoderSettings,
        device: torch.device,
        state: Path,
        start: CodonNetwork | None,
    ) -> None:
        self._settings, self._device, self._state = settings, device, state
        held_out = judging_slice(contigs, settings.slice_fraction, settings.cut_by, "the network")
        fitting, judging = parted(contigs, held_out)
        self._identity = {
            "settings": _plain(asdict(settings)),
            "contigs_sha256": contigs_digest(contigs),
        }
        self._described = {"fitting": described(fitting), "slice": described(judging)}
        weights = contig_weights(
            fitting, by_level=settings.by_level, unit_power=settings.unit_power
        )
        self._pool = FragmentPool([c.sequence for c in fitting], weights, device)
        self._label = torch.tensor([c.label for c in fitting], device=device)
        possible = possible_groups(fitting, settings.groups, dict(settings.unresolved))
        self._possible = possible.to(device)
        self._judge = Judge(judging, settings, device)
        torch.manual_seed(settings.seed)
        self._network = self._new_network()
        if start is not None:
            if start.part() != self._network.part():
                raise SettingsError("the network to start from is not of the shape of the settings")
            self._network.load_state_dict(start.state_dict())
            self._identity["start_sha256"] = weights_digest(start)
        self._average = self._new_network()
        self._average.load_state_dict(self._network.state_dict())
        self._best = {k: v.clone() for k, v in self._average.state_dict().items()}
        self._optimiser = torch.optim.AdamW(
            self._network.parameters(),
            lr=settings.learning_rate,
            weight_decay=settings.weight_decay,
            fused=device.type == "cuda",
        )
        self._generator = torch.Generator(device=device)
        self._step = 0
        self._seconds = 0.0
        self._history: list[dict[str, Any]] = []
        self._losses: list[Tensor] = []

    def _new_network(self) -> CodonNetwork:
        settings = self._settings
        return CodonNetwork(settings.network, settings.hidden, settings.groups).to(self._device)

    def run(self, deadline: float, progress: Progress) -> bool:
        """Step until the end; False when the deadline came first. The state is saved either way."""
        first, before = self._step, self._seconds
        began = told = saved = time.monotonic()

        def stand(*, evaluated: bool = False, judging: bool = False) -> FitProgress:
            pace = (time.monotonic() - began) / max(1, self._step - first)
            return self._stand(evaluated, judging, pace)

        while not self._ended():
            if time.monotonic() > deadline:
                self.save()
                return False
            if not self._evaluation_due():
                self._losses.append(self._one_step())
                self._step += 1
            self._seconds = before + time.monotonic() - began
            if due := self._evaluation_due():
                progress(stand(judging=True))
            evaluated = due and self._evaluate(deadline)
            now = time.monotonic()
            if evaluated or now - saved >= SAVE_EVERY_S:
                self.save()
                saved = now
            if evaluated or now - told >= REPORT_EVERY_S:
                told = now
                progress(stand(evaluated=evaluated))
        return True

    def _stand(self, evaluated: bool, judging: bool, pace: float) -> FitProgress:
        last = self._history[-1] if self._history else {}
        loss = float(last["loss"]) if evaluated else _mean(self._losses)
        step, steps = self._step, self._settings.steps
        left = pace * (steps - step)
        return FitProgress(step, steps, loss, last.get("mean"), evaluated, left, judging)

    def _evaluation_due(self) -> bool:
        due = self._step == self._settings.steps or self._step % self._settings.evaluate_every == 0
        reached = self._history[-1]["step"] if self._history else 0
        return due and self._step > reached

    def _ended(self) -> bool:
        """Return True at the last step, or when patience has run out, and judged."""
        if self._evaluation_due():
            return False
        if self._step >= self._settings.steps:
            return True
        if not self._settings.patience or not self._history:
            return False
        best = max(range(len(self._history)), key=lambda i: self._history[i]["mean"])
        return len(self._history) - 1 - best >= self._settings.patience

    def _one_step(self) -> Tensor:
        """Draw, forward, backward, update; the loss, still on the device."""
        settings = self._settings
        rng = np.random.default_rng([settings.seed, self._step])
        seed = int(rng.integers(2**62))
        torch.manual_seed(seed)  # for dropout
        self._generator.manual_seed(seed + 1)
        length_nt = int(rng.choice(settings.lengths_nt))
        count = max(2, settings.batch_nt // max(length_nt, SHORTEST_FOR_BATCH_NT))
        codes_BL, length_B, contig_B = self._pool.draw(
            count, length_nt, self._generator, settings.augmentation
        )
        codons_B6T = blurred(
            frame_codons(codes_BL, length_B), settings.augmentation, self._generator
        )
        for group in self._optimiser.param_groups:
            group["lr"] = learning_rate_at(settings, self._step)
        self._network.train()
        with autocast(self._device):
            logits_B2, group_BG = self._network.both(codons_B6T)
        made_B = contig_B == NO_CONTIG
        label_B = self._label[contig_B].masked_fill(made_B, 0)
        logits_B2 = logits_B2.float()
        if settings.loss_power:
            loss = bounded_loss(logits_B2, label_B, settings.loss_power)
        else:
            loss = F.cross_entropy(logits_B2, label_B, label_smoothing=settings.label_smoothing)
        if settings.groups:
            possible_BG = self._possible[contig_B] | made_B[:, None]
            loss = loss + settings.group_weight * group_loss(group_BG.float(), possible_BG)
        if settings.tail_weight:
            tail = tail_loss(logits_B2, label_B, settings.tail_share)
            loss = loss + settings.tail_weight * tail
        self._optimiser.zero_grad(set_to_none=True)
        loss.backward()  # type: ignore[no-untyped-call]
        torch.nn.utils.clip_grad_norm_(self._network.parameters(), settings.gradient_norm)
        self._optimiser.step()
        self._follow()
        return loss.detach()

    def _follow(self) -> None:
        """Move the average towards the network, faster in the first steps."""
        decay = min(self._settings.average_decay, (1 + self._step) / (10 + self._step))
        with torch.no_grad():
            torch._foreach_lerp_(
                _floats(self._average.state_dict()), _floats(self._network.state_dict()), 1 - decay
            )

    def _evaluate(self, deadline: float) -> bool:
        """Judge the average; False when the deadline came first, and nothing is changed."""
        found = self._judge.judged(self._average, deadline)
        if found is None:
            return False
        mean = round(sum(found["auroc"].values()) / len(found["auroc"]), 6)
        best = max((entry["mean"] for entry in self._history), default=-1.0)
        self._history.append(
            {
                "step": self._step,
                "loss": round(_mean(self._losses), 5),
                **found,
                "mean": mean,
                "seconds": round(self._seconds, 1),
            }
        )
        self._losses.clear()
        if mean > best:
            self._best = {k: v.clone() for k, v in self._average.state_dict().items()}
        return True

    def chosen(self) -> CodonNetwork:
        """The best snapshot, on the CPU."""
        network = self._new_network().cpu()
        network.load_state_dict({k: v.cpu() for k, v in self._best.items()})
        return network.eval()

    def record(self, data_sha256: Mapping[str, str]) -> dict[str, Any]:
        """The training record that a bundle keeps."""
        best = max(self._history, key=lambda entry: entry["mean"], default=None)
        device = self._device
        name = torch.cuda.get_device_name(device) if device.type == "cuda" else platform.machine()
        return {
            "method": "codon network and head, end to end, from "
            + ("given weights" if "start_sha256" in self._identity else "random weights"),
            **self._identity,
            **self._described,
            "data": dict(data_sha256),
            "steps": self._step,
            "parameters": sum(p.numel() for p in self._network.parameters()),
            "chosen_step": best["step"] if best else 0,
            "chosen_by": "mean AUROC on the slice cut by unit",
            "slice_auroc": best["auroc"] if best else {},
            "slice_recall_at_1pct_fpr": best["recall_at_1pct_fpr"] if best else {},
            "evaluations": self._history,
            "seconds": round(self._seconds, 1),
            "device": f"{device.type} ({name})",
            "precision": "bf16 autocast" if device.type == "cuda" else "fp32",
            "versions": {"torch": str(torch.__version__), "python": platform.python_version()},
        }

    def save(self) -> None:
        """Write the state, whole or not at all."""
        tensors = prefixed("network", self._network.state_dict())
        tensors |= prefixed("average", self._average.state_dict())
        tensors |= prefixed("best", self._best)
        tensors |= optimiser_tensors(self._optimiser)
        progress = {
            "step": self._step,
            "seconds": self._seconds,
            "history": self._history,
            "losses": torch.stack(self._losses).tolist() if self._losses else [],
        }
        write_state(self._state, tensors, {"identity": self._identity, "progress": progress})

    def resume(self) -> None:
        """Go on from the state, if there is one. Raises ResumeError."""
        if not self._state.exists():
            return
        found = read_state(self._state)
        if found is None:
            raise ResumeError(f"{self._state}: damaged, or not the state of a training; delete it")
        tensors, training = found
        self._check_identity(training["identity"])
        progress = training["progress"]
        self._step, self._seconds = progress["step"], progress["seconds"]
        self._history = progress["history"]
        self._losses = list(torch.tensor(progress["losses"], device=self._device))
        self._network.load_state_dict(under("network", tensors))
        self._average.load_state_dict(under("average", tensors))
        self._best = {k: v.to(self._device) for k, v in under("best", tensors).items()}
        load_optimiser(self._optimiser, tensors)

    def _check_identity(self, identity: Mapping[str, Any]) -> None:
        told = "choose another folder, or delete that file to begin anew"
        if identity["contigs_sha256"] != self._identity["contigs_sha256"]:
            raise ResumeError(f"{self._state}: made from other contigs; {told}")
        if identity.get("start_sha256") != self._identity.get("start_sha256"):
            raise ResumeError(f"{self._state}: began with other weights; {told}")
        saved, wanted = identity["settings"], _plain(asdict(self._settings))
        for name in sorted({*saved, *wanted}):
            if saved.get(name) != wanted.get(name):
                raise ResumeError(
                    f"{self._state}: made with {name} = {saved.get(name)}, not "
                    f"{wanted.get(name)}; {told}"
                )


def weights_digest(network: CodonNetwork) -> str:
    """sha256 over the names and values of the weights, in the order of names."""
    digest = hashlib.sha256()
    for name, values in sorted(network.arrays().items()):
        digest.update(name.encode() + values.tobytes())
    return digest.hexdigest()


def _fast_kernels(device: torch.device) -> AbstractContextManager[Any]:
    if device.type == "cuda":
        return torch.backends.cudnn.flags(enabled=True, benchmark=True)
    return nullcontext()


def _mean(losses: list[Tensor]) -> float:
    return float(torch.stack(losses).mean())


def _floats(state: Mapping[str, Tensor]) -> list[Tensor]:
    return [tensor for tensor in state.values() if tensor.is_floating_point()]


def _plain(settings: dict[str, Any]) -> dict[str, Any]:
    """Return the settings as JSON gives them back."""
    found: dict[str, Any] = json.loads(json.dumps(settings))
    return found
