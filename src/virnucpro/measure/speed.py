"""The speed of encoders of full size here, on random weights.

What is timed is what `predict` calls: ids on the host to embeddings on the device, in batches by
the token budget, pooling included. Every case is warmed up, then timed several times to the end of
its work; the median counts. The rate of a large matrix product is measured before and after each
case, so that a share of the peak is of the peak that this machine had then.

B sequences, T tokens.
"""

import statistics
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from functools import partial
from time import perf_counter
from typing import Any, TypeVar

import numpy as np
import torch
from torch import Tensor, nn

from virnucpro.devices.choice import check_fp8
from virnucpro.devices.compute import Compute
from virnucpro.devices.machine import cpu_name
from virnucpro.devices.memory import clear_cache
from virnucpro.encoders import Encoder, dnabert_s_encoder, esm2_encoder
from virnucpro.encoders.attention import BACKENDS, attention, mask_of, why_not
from virnucpro.encoders.dnabert_s import DnabertS, DnabertSConfig
from virnucpro.encoders.esm2 import Esm2, Esm2Config
from virnucpro.encoders.precision import dtype_of, products
from virnucpro.errors import VirnucproError
from virnucpro.tokens import (
    NUCLEOTIDE_CLS,
    NUCLEOTIDE_SEP,
    PROTEIN_CLS,
    PROTEIN_EOS,
    Ids,
    TokenRows,
)

ESM2_SIZES = {
    "tiny": Esm2Config(layers=2, width=64, heads=4, ffn=256),
    **{
        name: Esm2Config(layers=layers, width=width, heads=heads, ffn=4 * width)
        for name, layers, width, heads in (
            ("8M", 6, 320, 20),
            ("35M", 12, 480, 20),
            ("150M", 30, 640, 20),
            ("650M", 33, 1280, 20),
            ("3B", 36, 2560, 40),
        )
    },
}
DNABERT_S_SIZES = {
    "tiny": DnabertSConfig(vocabulary=4096, layers=2, width=96, heads=12, ffn=192),
    "117M": DnabertSConfig(vocabulary=4096, layers=12, width=768, heads=12, ffn=3072),
}
M = TypeVar("M", bound=nn.Module)

# A slow case is timed on fewer sequences, so that a repeat takes no longer than about this.
MOST_S = 2.0
PEAK_SIZE = {"cuda": 8192, "cpu": 1024}


@dataclass(frozen=True, slots=True)
class Case:
    """A timed case: encoder (esm2 or dnabert_s), who computes it, precision, attention wished."""

    encoder: str
    by: str
    precision: str
    attention: str = "auto"


@dataclass(frozen=True, slots=True)
class Timing:
    """A case as it was timed.

    kernels: as observed; seconds: of each repeat; tokens: of one, without pads; tflops: of its
    matrix products and attention, a second, pads not counted; peak_tflops: of a large product in
    the same precision (in bf16 for fp8 and int8) around it; padding: share of pads, None for
    others' code. refused: why it could not be timed; then all else is empty.
    """

    case: Case
    size: str
    refused: str = ""
    kernels: tuple[str, ...] = ()
    batch_tokens: int = 0
    tokens: int = 0
    seconds: tuple[float, ...] = ()
    tflops: float = 0.0
    peak_tflops: float = 0.0
    padding: float | None = None
    memory_bytes: int | None = None
    warm_up_s: float = 0.0

    @property
    def tokens_per_s(self) -> float:
        """The tokens a second, from the median time."""
        return self.tokens / statistics.median(self.seconds) if self.seconds else 0.0

    def as_dict(self) -> dict[str, Any]:
        """Return plain values for JSON."""
        found = {**asdict(self.case), **asdict(self), "tokens_per_s": self.tokens_per_s}
        del found["case"]
        return found


@dataclass(slots=True)
class Bench:
    """Encoders of one size each on a device, and the sequences that they are timed on.

    rivals: programs of others that may be timed beside ours, by name.
    """

    device: torch.device
    esm2: str
    dnabert_s: str
    tokens: int
    repeats: int
    rivals: Mapping[str, "Rival"] = field(default_factory=dict)
    lengths: Mapping[str, tuple[int, int]] = field(
        default_factory=lambda: {"esm2": (168, 168), "dnabert_s": (100, 120)}
    )

    def readings(self, cases: Sequence[Case]) -> Iterator[Timing]:
        """Each case as it is timed."""
        for case in cases:
            yield self._reading(case)
            clear_cache(self.device)

    def _reading(self, case: Case) -> Timing:
        size = self.esm2 if case.encoder == "esm2" else self.dnabert_s
        try:
            encode, encoder = self._made(case)
        except (VirnucproError, ImportError) as error:
            return Timing(case, size, refused=str(error))
        ids = self.ids(case.encoder)
        some = ids[: max(1, len(ids) // 10)]
        warm_up_s = self._timed(lambda: encode(some))
        ids = ids[: max(1, int(len(some) * MOST_S / self._timed(lambda: encode(some))))]
        run = _over(encode, encoder, ids)
        self._timed(run)
        if self.device.type == "cuda":
            torch.cuda.reset_peak_memory_stats(self.device)
        before = self.peak(case.precision)
        seconds = tuple(self._timed(run) for _ in range(self.repeats))
        peak = (before + self.peak(case.precision)) / 2
        tokens = sum(map(len, ids))
        work = sum(self._operations(case.encoder, len(sequence)) for sequence in ids)
        cuda = self.device.type == "cuda"
        return Timing(
            case,
            size,
            kernels=tuple(sorted(encoder.kernels_seen)) if encoder else (),
            batch_tokens=encoder.batch_tokens if encoder else self.rivals[case.by].batch_tokens,
            tokens=tokens,
            seconds=seconds,
            tflops=work / statistics.median(seconds) / 1e12,
            peak_tflops=peak,
            padding=encoder.padding if encoder else None,
            memory_bytes=torch.cuda.max_memory_allocated(self.device) if cuda else None,
            warm_up_s=warm_up_s,
        )

    def runner(self, case: Case, ids: Sequence[Ids]) -> Callable[[], object]:
        """Return a function to run a case on these ids. Raises where it cannot be computed here."""
        return _over(*self._made(case), ids)

    def _timed(self, run: Callable[[], object]) -> float:
        self._wait()
        clock = perf_counter()
        run()
        self._wait()
        return perf_counter() - clock

    def _wait(self) -> None:
        if self.device.type == "cuda":
            torch.cuda.synchronize(self.device)

    def ids(self, encoder: str) -> list[Ids]:
        """Random sequences of ids, no two alike, of lengths drawn between the encoder's two."""
        random = np.random.default_rng(11)
        least, most = self.lengths[encoder]
        first, last, (low, high) = {
            "esm2": (PROTEIN_CLS, PROTEIN_EOS, (4, 24)),
            "dnabert_s": (NUCLEOTIDE_CLS, NUCLEOTIDE_SEP, (5, 4096)),
        }[encoder]
        made: list[Ids] = []
        left = self.tokens
        while left > 0:
            sequence = random.integers(low, high, random.integers(least, most + 1))
            sequence[0], sequence[-1] = first, last
            made.append(sequence)
            left -= len(sequence)
        return made

    def _operations(self, encoder: str, tokens: int) -> int:
        """Multiplications and additions of a sequence: matrix products and attention."""
        if encoder == "esm2":
            esm2 = ESM2_SIZES[self.esm2]
            width, layers, products = esm2.width, esm2.layers, 2 * esm2.ffn
        else:
            dnabert_s = DNABERT_S_SIZES[self.dnabert_s]
            width, layers, products = dnabert_s.width, dnabert_s.layers, 3 * dnabert_s.ffn
        return tokens * layers * (2 * width * (4 * width + products) + 4 * tokens * width)

    def peak(self, precision: str) -> float:
        """TFLOP/s of a large matrix product of random numbers."""
        size = PEAK_SIZE[self.device.type]
        dtype = torch.bfloat16 if precision in ("fp8", "int8") else dtype_of(precision)
        a, b = (torch.randn(size, size, device=self.device).to(dtype) for _ in range(2))

        def seconds(products: int) -> float:
            clock = perf_counter()
            for _ in range(products):
                torch.mm(a, b)
            self._wait()
            return perf_counter() - clock

        seconds(1)  # the first waits for its library
        # A processor without bf16 units takes seconds for one, which is enough of a measure.
        products = max(1, min(10, int(1 / seconds(1))))
        if products > 1:
            seconds(products)
        return products * 2 * size**3 / seconds(products) / 1e12

    def _made(self, case: Case) -> tuple[Callable[[Sequence[Ids]], object], Encoder | None]:
        if case.precision == "fp8":
            check_fp8(str(self.device))
        if case.by in self.rivals:
            return self.rivals[case.by].make(self, case), None
        plain = case.by in ("plain", "compiled")
        encoder = self.encoder(case.encoder, case.precision, case.attention, plain=plain)
        if case.by == "compiled":
            _compile_layers(encoder)
        elif case.by == "no streams":
            encoder.streams = False
        elif case.by == "not pinned":
            encoder.pinned = False
        return encoder.rows, encoder

    def encoder(
        self, name: str, precision: str, attention: str = "auto", plain: bool = False
    ) -> Encoder:
        """One of ours with random weights; plain: by its module as it is written."""
        dtype = dtype_of(products(precision))
        words: dict[str, Any] = {
            "name": "random",
            "precision": precision,
            "compute": Compute(attention=attention),
            "plain": plain,
        }
        if name == "esm2":
            made = random_weights(lambda: Esm2(ESM2_SIZES[self.esm2]), dtype, self.device)
            return esm2_encoder(made, **words)
        small = random_weights(
            lambda: DnabertS(DNABERT_S_SIZES[self.dnabert_s]), dtype, self.device
        )
        return dnabert_s_encoder(small, None, **words)


@dataclass(frozen=True, slots=True)
class Rival:
    """A program of others that computes ESM-2.

    make: returns what computes ids, or raises VirnucproError or ImportError. batch_tokens: most
    tokens of a batch; 0: it cuts batches itself.
    """

    make: Callable[[Bench, Case], Callable[[Sequence[Ids]], object]]
    batch_tokens: int


def _over(
    encode: Callable[[Sequence[Ids]], object], encoder: Encoder | None, ids: Sequence[Ids]
) -> Callable[[], object]:
    """Ids come to ours as whoever prepared a block has them."""
    return partial(encode, ids) if encoder is None else partial(encoder.rows, TokenRows.of(ids))


def random_weights(make: Callable[[], M], dtype: torch.dtype, device: torch.device) -> M:
    """A module with weights of a size that keeps rows of unit size, the same for every dtype."""
    with torch.device("meta"):
        module = make()
    module = module.to(dtype).to_empty(device=device).requires_grad_(False).eval()
    random = torch.Generator(device).manual_seed(7)
    for name, weight in module.named_parameters():
        scale = weight.shape[-1] ** -0.5 if weight.ndim > 1 and "embedding" not in name else 0.1
        drawn = torch.randn(weight.shape, generator=random, device=device) * scale
        weight.copy_(drawn + 1 if "norm" in name and name.endswith("weight") else drawn)
    return module


def _compile_layers(encoder: Encoder) -> None:
    """torch.compile of each layer as it is written, for comparison with the layers of fused.py.

    Kernels are observed before, with pads and without: the compiler does not see through that.
    """
    model: Any = encoder.model
    some = [np.full(length, NUCLEOTIDE_SEP, np.int64) for length in (9, 8)]
    encoder.rows(some)
    encoder.rows(some[:1])
    for layer in model.layers:
        layer.compile(dynamic=False)


def attention_alone(
    device: torch.device, precision: str, names: Sequence[str], repeats: int = 20
) -> dict[str, dict[str, float | str]]:
    """Milliseconds of attention alone, by encoder and kernel, at the shapes of both encoders."""
    dtype = dtype_of(precision)
    found: dict[str, dict[str, float | str]] = {}
    for encoder, (heads, rows, tokens) in {
        "esm2": (40, 100, 168),
        "dnabert_s": (12, 480, 110),
    }.items():
        q, k, v = (
            torch.randn(rows, tokens, heads, 64, device=device).to(dtype).transpose(1, 2)
            for _ in range(3)
        )
        slopes = torch.arange(1, heads + 1, device=device) / heads if encoder != "esm2" else None
        keep_BT = torch.ones(rows, tokens, dtype=torch.bool, device=device)
        mask = mask_of(keep_BT, slopes, padded=False)
        found[encoder] = {}
        for name in names:
            if reason := why_not(name, device, dtype, slopes is not None):
                found[encoder][name] = reason
                continue

            def run(name: str = name) -> Tensor:
                return attention(q, k, v, mask, backend=name)  # noqa: B023

            run()
            found[encoder][name] = _milliseconds(run, device, repeats)
    return found


def _milliseconds(run: Callable[[], object], device: torch.device, repeats: int) -> float:
    times = []
    for _ in range(3):
        if device.type == "cuda":
            torch.cuda.synchronize(device)
        clock = perf_counter()
        for _ in range(repeats):
            run()
        if device.type == "cuda":
            torch.cuda.synchronize(device)
        times.append((perf_counter() - clock) / repeats * 1e3)
    return statistics.median(times)


def machine(device: torch.device) -> dict[str, Any]:
    """Return the machine that was measured on."""
    if device.type != "cuda":
        return {
            "device": cpu_name(),
            "threads": torch.get_num_threads(),
            "torch": torch.__version__,
        }
    found = torch.cuda.get_device_properties(device)
    return {
        "device": found.name,
        "capability": f"{found.major}.{found.minor}",
        "memory_bytes": found.total_memory,
        "torch": torch.__version__,
    }


def default_cases(device: torch.device, encoders: Sequence[str]) -> list[Case]:
    """Return the cases that a plain `virnucpro bench` times on a device."""
    ours: list[Case] = []
    for encoder in encoders:
        if device.type == "cpu":
            ours += [Case(encoder, "ours", "fp32"), Case(encoder, "ours", "fp32", "math")]
            continue
        ours += [Case(encoder, "ours", precision) for precision in ("bf16", "fp16", "fp8", "fp32")]
        ours += [Case(encoder, "ours", "bf16", name) for name in BACKENDS if name != "auto"]
        ours += [Case(encoder, by, "bf16") for by in ("no streams", "not pinned")]
        ours.append(Case(encoder, "compiled", "bf16", "cudnn"))  # ours is opaque to the compiler
    return [c for c in ours if (c.encoder, c.precision) != ("dnabert_s", "fp8")]
