"""Training a small encoder from scratch, end to end with its head: labelled contigs -> network.

AdamW with warm-up and cosine by steps, on random fragments; what is kept is the best snapshot of
a running average of the weights, judged on a slice of the contigs cut by unit. Everything random
is drawn anew from (seed, step), so a run that was stopped goes on as if it had not been. This
module knows no command line and writes nothing but its state.
"""

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
from numpy.typing import NDArray
from torch import Tensor

from virnucpro.bundle.manifest import LABELS, Bundle
from virnucpro.bundle.write import write_bundle
from virnucpro.calls import DEFAULT_THRESHOLD
from virnucpro.classifiers.chunk_status import MIN_NT
from virnucpro.classifiers.codon import (
    CodonConfig,
    CodonNetwork,
    frame_codons,
    padded_codons,
)
from virnucpro.classifiers.whole_chunks import CODON_WEIGHTS
from virnucpro.errors import InputError, ResumeError
from virnucpro.frames import UNKNOWN_LETTER, letter_codes
from virnucpro.measure.accuracy import fragments_at
from virnucpro.measure.labels import LabelledContig
from virnucpro.measure.metrics import auroc
from virnucpro.storage.atomic import disk_errors
from virnucpro.train.checks import check_finite, check_least
from virnucpro.train.fragments import Augmentation, FragmentPool, blurred
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
JUDGED_AT_ONCE = 512
SHORTEST_FOR_BATCH_NT = 200
REPORT_EVERY_S = 1.0
# A few dozen lengths and no more: CUDA looks for the fastest kernels anew for each.
LENGTHS_NT = (
    *(75, 100, 123, 150, 171, 200, 222, 250, 272, 300, 300),
    *(323, 350, 372, 400, 424, 450, 472, 500, 500, 500),
)


@dataclass(frozen=True, slots=True, kw_only=True)
class EncoderSettings:
    """Every number of a training.

    batch_nt: letters of a batch, of fragments of one length, drawn from lengths_nt for each step.
    warm_up: share of the steps. average_decay: of the running average of the weights.
    slice_fraction: of the bases of each label and group held out, by unit, for choosing;
    slice_fragments: of each label, at each of slice_lengths_nt. The fit stops early after patience
    evaluations without a better one; 0 means never.
    """

    network: CodonConfig = field(default_factory=CodonConfig)
    hidden: int = 128
    steps: int = 6500
    batch_nt: int = 320_000
    lengths_nt: tuple[int, ...] = LENGTHS_NT
    learning_rate: float = 2e-3
    weight_decay: float = 0.1
    warm_up: float = 0.03
    label_smoothing: float = 0.02
    gradient_norm: float = 1.0
    average_decay: float = 0.999
    augmentation: Augmentation = field(default_factory=Augmentation)
    slice_fraction: float = 0.05
    slice_fragments: int = 2000
    slice_lengths_nt: tuple[int, ...] = (300, 500)
    evaluate_every: int = 250
    save_every: int = 500
    patience: int = 8
    seed: int = 0

    def __post_init__(self) -> None:
        check_least(self, hidden=1, steps=1, batch_nt=1, lengths_nt=3, learning_rate=0)
        check_least(self, weight_decay=0, warm_up=0, gradient_norm=0, average_decay=0)
        check_least(self, slice_fragments=2, slice_lengths_nt=3, evaluate_every=1, save_every=1)
        check_least(self, label_smoothing=0, patience=0, seed=0)


@dataclass(frozen=True, slots=True)
class FitProgress:
    """Where a fit stands.

    loss: mean since the last evaluation; auroc: on the slice, of the last evaluation, None before
    the first; evaluated: whether that was now; seconds_left by pace.
    """

    step: int
    steps: int
    loss: float
    auroc: float | None
    evaluated: bool
    seconds_left: float


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
) -> FitResult:
    """Train, going on from the state in workdir if there is one.

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
        fit = _Fit(contigs, settings, device, workdir / STATE)
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
) -> Bundle:
    """A new bundle of kind chunks; validated_nt: shortest length that was measured.

    Raises BundleError if the directory is not empty, or the weights are not finite.
    """
    arrays = fit.network.arrays()
    check_finite(arrays)
    manifest = {
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
    return write_bundle(directory, manifest, {CODON_WEIGHTS: arrays})


def learning_rate_at(settings: EncoderSettings, step: int) -> float:
    """Linear warm-up, then half a cosine down to almost nothing at the last step."""
    done = step / settings.steps
    warm = min(1.0, (step + 1) / max(1.0, settings.warm_up * settings.steps))
    return settings.learning_rate * (warm * 0.5 * (1 + math.cos(math.pi * min(1.0, done))) + 1e-3)


class _Judge:
    """Fragments of the slice, and the AUROC of a network on them."""

    def __init__(
        self, contigs: Sequence[LabelledContig], settings: EncoderSettings, device: torch.device
    ) -> None:
        self._device = device
        self._sets: list[tuple[int, list[Tensor], NDArray[np.bool_]]] = []
        for length_nt in settings.slice_lengths_nt:
            found = fragments_at(contigs, length_nt, settings.slice_fragments, settings.seed)
            label = np.array([f.label == 1 for f in found], np.bool_)
            if not label.any() or label.all():
                raise InputError(
                    f"the slice that chooses the network has no {length_nt} nt of one side; give "
                    "both sides two units or more that are long enough"
                )
            codes = _padded_codes([f.sequence for f in found], length_nt)
            batches = list(torch.split(codes.to(device), JUDGED_AT_ONCE))
            self._sets.append((length_nt, batches, label))

    def auroc(self, network: CodonNetwork, deadline: float) -> dict[str, float] | None:
        """By length in nt, as text; None when the deadline comes first."""
        network.eval()
        found = {}
        for length_nt, batches, label in self._sets:
            scores = []
            for codes in batches:
                if time.monotonic() > deadline:
                    return None
                scores.append(self._scores(network, codes, length_nt))
            value = auroc(label, torch.cat(scores).double().cpu().numpy())
            found[str(length_nt)] = 0.0 if value is None else round(value, 5)
        return found

    def _scores(self, network: CodonNetwork, codes_BL: Tensor, length_nt: int) -> Tensor:
        length_B = torch.full((len(codes_BL),), length_nt, device=self._device)
        with torch.no_grad(), _autocast(self._device):
            logits_B2: Tensor = network(frame_codons(codes_BL, length_B)).float()
        return logits_B2[:, 1] - logits_B2[:, 0]


class _Fit:
    """The moving parts of a training: network, average, best snapshot, optimiser, history."""

    def __init__(
        self,
        contigs: Sequence[LabelledContig],
        settings: EncoderSettings,
        device: torch.device,
        state: Path,
    ) -> None:
        self._settings, self._device, self._state = settings, device, state
        held_out = judging_slice(contigs, settings.slice_fraction, settings.seed, "the network")
        fitting, judging = parted(contigs, held_out)
        self._identity = {
            "settings": _plain(asdict(settings)),
            "contigs_sha256": contigs_digest(contigs),
        }
        self._described = {"fitting": described(fitting), "slice": described(judging)}
        self._pool = FragmentPool(
            [c.sequence for c in fitting],
            [c.label for c in fitting],
            contig_weights(fitting),
            device,
        )
        self._judge = _Judge(judging, settings, device)
        torch.manual_seed(settings.seed)
        self._network = self._new_network()
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
        return CodonNetwork(self._settings.network, self._settings.hidden).to(self._device)

    def run(self, deadline: float, progress: Progress) -> bool:
        """Step until the end; False when the deadline came first. The state is saved either way."""
        settings, first, before = self._settings, self._step, self._seconds
        began = told = time.monotonic()
        while not self._ended():
            if time.monotonic() > deadline:
                self.save()
                return False
            if not self._evaluation_due():
                self._losses.append(self._one_step())
                self._step += 1
            self._seconds = before + time.monotonic() - began
            evaluated = self._evaluation_due() and self._evaluate(deadline)
            if evaluated or self._step % settings.save_every == 0:
                self.save()
            now = time.monotonic()
            if evaluated or now - told >= REPORT_EVERY_S:
                pace, told = (now - began) / max(1, self._step - first), now
                progress(self._stand(evaluated, pace))
        return True

    def _stand(self, evaluated: bool, pace: float) -> FitProgress:
        last = self._history[-1] if self._history else {}
        loss = float(last["loss"]) if evaluated else _mean(self._losses)
        step, steps = self._step, self._settings.steps
        left = pace * (steps - step)
        return FitProgress(step, steps, loss, last.get("mean"), evaluated, left)

    def _evaluation_due(self) -> bool:
        due = self._step == self._settings.steps or self._step % self._settings.evaluate_every == 0
        reached = self._history[-1]["step"] if self._history else 0
        return due and self._step > reached

    def _ended(self) -> bool:
        """At the last step, or when patience has run out, and judged."""
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
        codes_BL, length_B, label_B = self._pool.draw(
            count, length_nt, self._generator, settings.augmentation
        )
        codons_B6T = blurred(
            frame_codons(codes_BL, length_B), settings.augmentation, self._generator
        )
        for group in self._optimiser.param_groups:
            group["lr"] = learning_rate_at(settings, self._step)
        self._network.train()
        with _autocast(self._device):
            logits_B2 = self._network(codons_B6T)
        loss = F.cross_entropy(logits_B2.float(), label_B, label_smoothing=settings.label_smoothing)
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
        found = self._judge.auroc(self._average, deadline)
        if found is None:
            return False
        mean = round(sum(found.values()) / len(found), 6)
        best = max((entry["mean"] for entry in self._history), default=-1.0)
        self._history.append(
            {
                "step": self._step,
                "loss": round(_mean(self._losses), 5),
                "auroc": found,
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
        network = CodonNetwork(self._settings.network, self._settings.hidden)
        network.load_state_dict({k: v.cpu() for k, v in self._best.items()})
        return network.eval()

    def record(self, data_sha256: Mapping[str, str]) -> dict[str, Any]:
        """The training record that a bundle keeps."""
        best = max(self._history, key=lambda entry: entry["mean"], default=None)
        device = self._device
        name = torch.cuda.get_device_name(device) if device.type == "cuda" else platform.machine()
        return {
            "method": "codon network and head, end to end, from random weights",
            **self._identity,
            **self._described,
            "data": dict(data_sha256),
            "steps": self._step,
            "parameters": sum(p.numel() for p in self._network.parameters()),
            "chosen_step": best["step"] if best else 0,
            "chosen_by": "mean AUROC on the slice cut by unit",
            "slice_auroc": best["auroc"] if best else {},
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
        saved, wanted = identity["settings"], _plain(asdict(self._settings))
        for name in sorted({*saved, *wanted}):
            if saved.get(name) != wanted.get(name):
                raise ResumeError(
                    f"{self._state}: made with {name} = {saved.get(name)}, not "
                    f"{wanted.get(name)}; {told}"
                )


def _padded_codes(sequences: Sequence[bytes], length_nt: int) -> Tensor:
    """Codes (B, 3 * T + 2) of sequences of one length."""
    codes = np.full((len(sequences), 3 * padded_codons(length_nt) + 2), UNKNOWN_LETTER, np.uint8)
    codes[:, :length_nt] = letter_codes(b"".join(sequences)).reshape(-1, length_nt)
    return torch.from_numpy(codes)


def _autocast(device: torch.device) -> AbstractContextManager[Any]:
    """bf16 products on CUDA; fp32 on a CPU, where the same numbers matter more than speed."""
    if device.type == "cuda":
        return torch.autocast("cuda", torch.bfloat16)
    return nullcontext()


def _fast_kernels(device: torch.device) -> AbstractContextManager[Any]:
    if device.type == "cuda":
        return torch.backends.cudnn.flags(enabled=True, benchmark=True)
    return nullcontext()


def _mean(losses: list[Tensor]) -> float:
    return float(torch.stack(losses).mean())


def _floats(state: Mapping[str, Tensor]) -> list[Tensor]:
    return [tensor for tensor in state.values() if tensor.is_floating_point()]


def _plain(settings: dict[str, Any]) -> dict[str, Any]:
    """As JSON gives them back."""
    found: dict[str, Any] = json.loads(json.dumps(settings))
    return found
