"""Abilities of this machine, tried rather than looked up, and whether the package works on it.

Attention kernels are run on a small batch and named as observed; the embedded bundles score three
fixed sequences, whose scores are stored here.
"""

import platform
from collections.abc import Iterator
from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path
from random import Random
from typing import Any

import torch

from virnucpro import __version__
from virnucpro.bundle import embedded_bundles
from virnucpro.bundle.manifest import Bundle
from virnucpro.classifiers.prefetch import workers_for
from virnucpro.devices.machine import cpu_count, cpu_has_bf16, cpu_name, gpu_count
from virnucpro.devices.memory import memory_of
from virnucpro.encoders.attention import BACKENDS, attention, mask_of, observing, why_not
from virnucpro.errors import VirnucproError
from virnucpro.frames import AMINO_ACID_OF, STOP

DRIVER = Path("/proc/driver/nvidia/version")
# Open frames of random codons: no bundle is sure of them, so that an error shows in the score.
_SENSE = [codon for codon, letter in AMINO_ACID_OF.items() if letter != STOP]
_CODONS = 160
# Of a pneumovirus and of a mitochondrial oxidase: each filter of protein k-mers holds some of it.
_HELD = "SLQGIHLSDLSYK" + "TNHKDIGTLYFIF"


def _with_known_protein(seed: int) -> str:
    random = Random(seed)
    codons = [random.choice([c for c in _SENSE if AMINO_ACID_OF[c] == amino]) for amino in _HELD]
    return "".join(codons + random.choices(_SENSE, k=_CODONS - len(codons)))


SEQUENCES = (
    *("".join(Random(seed).choices(_SENSE, k=_CODONS)) for seed in (18, 29)),
    _with_known_protein(48),
)
# P(virus) of the three, cut to the bundle's chunk length, in fp32 (the k-mer model: in fp64).
STORED = {
    "kmer-300-v1": (0.662328, 0.757247, 0.528780),
    "kmer-500-v1": (0.666426, 0.632854, 0.627090),
    "mini-300-v1": (0.465832, 0.279151, 0.664230),
    "mini-300-v2": (0.685528, 0.736890, 0.422358),
    "mini-500-v1": (0.387736, 0.312461, 0.481542),
    "mini-500-v2": (0.655132, 0.553570, 0.393716),
}
# fp32 on another processor rounds sums differently.
TOLERANCE = 1e-4
# A kernel's error against float64 in its own precision, on numbers of unit size.
KERNEL_TOLERANCE = {torch.float32: 1e-4, torch.bfloat16: 0.03, torch.float16: 0.005}


@dataclass(frozen=True, slots=True)
class Finding:
    """One line of the report. broken: something that should work does not."""

    topic: str
    text: str
    broken: bool = False

    def as_dict(self) -> dict[str, Any]:
        """For JSON."""
        return {"topic": self.topic, "text": self.text, "broken": self.broken}


def examine() -> Iterator[Finding]:
    """Looks at this machine and tries what is on it, one finding after the other."""
    yield Finding("virnucpro", f"{__version__}, Python {platform.python_version()}")
    bf16 = "multiplies" if cpu_has_bf16() else "does not multiply"
    yield Finding("processor", f"{cpu_name()}, {cpu_count()} usable, {bf16} bf16 in hardware")
    yield Finding("memory", str(memory_of("cpu")))
    gpus = gpu_count()
    workers = workers_for("cuda" if gpus else "cpu", gpus, cpu_count())
    yield Finding("loader workers", f"{workers} would be taken by predict with published encoders")
    yield _torch()
    yield from _attention(torch.device("cpu"))
    for index in range(gpus):
        yield from _gpu(torch.device("cuda", index))
    for bundle in embedded_bundles():
        yield _bundle(bundle)


def _torch() -> Finding:
    cuda = torch.version.cuda
    text = f"{torch.__version__}, {f'for CUDA {cuda}' if cuda else 'without CUDA'}"
    blind = cuda is not None and DRIVER.exists() and not torch.cuda.is_available()
    if blind:
        text += "; there is an NVIDIA driver, but torch sees no GPU through it"
    return Finding("torch", text, broken=blind)


def _gpu(device: torch.device) -> Iterator[Finding]:
    found = torch.cuda.get_device_properties(device)
    triton = "with" if find_spec("triton") else "without"
    yield Finding(
        str(device),
        f"{found.name}, capability {found.major}.{found.minor}, {found.total_memory / 2**30:.1f} "
        f"GiB, driver {_driver()}, {triton} Triton",
    )
    yield Finding(str(device), str(memory_of(device)))
    yield from _attention(device)


def _driver() -> str:
    try:
        words = DRIVER.read_text("ascii", "replace").partition("Module")[2].split()
    except OSError:
        return "unknown"
    return next((word for word in words if word[0].isdigit()), "unknown")


def _attention(device: torch.device) -> Iterator[Finding]:
    dtypes = {"fp32": torch.float32, "bf16": torch.bfloat16, "fp16": torch.float16}
    for biased, kind in ((False, "ESM-2"), (True, "DNABERT-S, with ALiBi")):
        for precision, dtype in dtypes.items():
            for backend in BACKENDS:
                where = f"{device}, attention of {kind}, {precision}, {backend}"
                if reason := why_not(backend, device, dtype, biased):
                    if device.type != "cpu":
                        yield Finding(where, f"no: {reason}")
                    continue
                yield _kernel(where, device, dtype, backend, biased)


def _kernel(
    where: str, device: torch.device, dtype: torch.dtype, backend: str, biased: bool
) -> Finding:
    random = torch.Generator().manual_seed(1)
    q, k, v = (torch.randn(3, 4, 24, 64, generator=random).to(device, dtype) for _ in range(3))
    keep_BT = torch.ones(3, 24, dtype=torch.bool, device=device)
    keep_BT[1, 5:] = False
    slopes_H = torch.tensor([0.5, 0.25, 0.125, 0.0625], device=device) if biased else None
    mask = mask_of(keep_BT, slopes_H, padded=True)
    seen: dict[Any, str] = {}
    try:
        with observing(seen), torch.inference_mode():
            found = attention(q, k, v, mask, backend=backend)
    except (RuntimeError, VirnucproError) as error:
        return Finding(where, f"failed: {str(error).splitlines()[0]}", broken=True)
    plain = attention(q.double(), k.double(), v.double(), mask, backend="math")
    kept = keep_BT[:, None, :, None].expand_as(plain)
    error_size = (found - plain)[kept].abs().max().item()
    wrong = not error_size <= KERNEL_TOLERANCE[dtype]
    return Finding(where, f"{', '.join(seen.values())}, {error_size:.1e} from float64", wrong)


def _bundle(bundle: Bundle) -> Finding:
    stored = STORED.get(bundle.name)
    if stored is None:
        return Finding(bundle.name, "no scores are stored for it")
    precision = "fp64" if bundle.kind == "kmer" else "fp32"
    try:
        chunks = [sequence[: bundle.chunk_nt] for sequence in SEQUENCES]
        found = bundle.classifier("cpu", precision).score(chunks).p_virus.tolist()
    except VirnucproError as error:
        return Finding(bundle.name, f"failed: {error}", broken=True)
    away = max(abs(ours - theirs) for ours, theirs in zip(found, stored, strict=True))
    return Finding(bundle.name, f"{away:.1e} from its stored scores", broken=not away <= TOLERANCE)
