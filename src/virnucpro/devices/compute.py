"""Settings of how a run computes: device, precision, batches, memory and speed controls.

None of them changes results beyond what rounding does in another precision, with batches of other
sizes and with other attention kernels. Importing this loads no torch.
"""

from dataclasses import dataclass, replace

from virnucpro.devices.memory import GIB, memory_of
from virnucpro.errors import SettingsError

CACHE_CLEAR_INTERVAL = 100
# Page-locked buffers take some 10 MB; where less than this is free, the system needs it more.
PINNED_FREE = GIB


@dataclass(frozen=True, slots=True, kw_only=True)
class Compute:
    """Settings of how to compute; None is this machine's own choice.

    gpus: all, none, or numbers as 0,1; None: the first GPU, else the CPU. workers: processes that
    compute on the CPU. scheduler: address or file of a running Dask scheduler. precision: fp32,
    bf16, fp16, fp8 or auto. threads: of the CPU; None: as devices.machine.use_threads chooses.
    attention: a name of encoders.attention.BACKENDS. batch_tokens: most tokens of a batch, pads
    included, of both encoders; esm_batch_size, dnabert_batch_size: of one of them.
    dataloader_workers: threads that translate and tokenize ahead of the device. pin_memory:
    page-locked buffers for copies to the device. cuda_streams: copies on streams of their own.
    expandable_segments: adds that to the settings of the CUDA allocator. cache_clear_interval:
    batches after which the allocator's cache is emptied, 0 for never.
    """

    gpus: str | None = None
    workers: int | None = None
    scheduler: str | None = None
    precision: str = "auto"
    threads: int | None = None
    attention: str = "auto"
    batch_tokens: int | None = None
    esm_batch_size: int | None = None
    dnabert_batch_size: int | None = None
    dataloader_workers: int | None = None
    pin_memory: bool | None = None
    cuda_streams: bool | None = None
    expandable_segments: bool = False
    cache_clear_interval: int = CACHE_CLEAR_INTERVAL

    def check(self) -> None:
        """Raise SettingsError for a number out of range."""
        if self.workers is not None and self.workers < 1:
            raise SettingsError(f"--workers must be 1 or more, got {self.workers}")
        others = [self.scheduler is not None, self.workers is not None]
        if all(others) or (any(others) and self.gpus not in (None, "none")):
            raise SettingsError("--gpus, --workers and --scheduler contradict each other; give one")
        for name in ("batch_tokens", "esm_batch_size", "dnabert_batch_size"):
            tokens = getattr(self, name)
            if tokens is not None and tokens < 1:
                raise SettingsError(f"{_option(name)} must be 1 token or more, got {tokens}")
        for name in ("cache_clear_interval", "dataloader_workers"):
            number = getattr(self, name)
            if number is not None and number < 0:
                raise SettingsError(f"{_option(name)} must be 0 or more, got {number}")

    def on(self, device: str) -> "Compute":
        """Return the same with pinning and streams decided for a device."""
        cuda = device.startswith("cuda")
        free = memory_of("cpu").free
        pinned = free is None or free >= PINNED_FREE if self.pin_memory is None else self.pin_memory
        streams = self.cuda_streams is not False
        return replace(self, pin_memory=cuda and pinned, cuda_streams=cuda and streams)

    def tokens(self, encoder: str) -> int | None:
        """Return the batch size asked for of an encoder, esm2 or dnabert_s."""
        own = {"esm2": self.esm_batch_size, "dnabert_s": self.dnabert_batch_size}.get(encoder)
        return self.batch_tokens if own is None else own

    def without_effect(self, device: str, kind: str) -> list[str]:
        """Return a sentence on each setting that changes nothing here.

        device: cpu or cuda:N. kind: of the bundle.
        """
        sentences = []
        cuda = device.startswith("cuda")
        for option, wish in (
            ("--pin-memory", self.pin_memory),
            ("--cuda-streams", self.cuda_streams),
        ):
            if wish and not cuda:
                sentences.append(f"warning: {option} changes nothing without CUDA, and is off")
            elif wish and kind != "frames":
                sentences.append(f"{option} changes nothing: this bundle has no published encoders")
        if not cuda and self.cache_clear_interval != CACHE_CLEAR_INTERVAL:
            sentences.append("warning: --cache-clear-interval changes nothing without CUDA")
        for option, value in (
            ("--esm-batch-size", self.esm_batch_size),
            ("--dnabert-batch-size", self.dnabert_batch_size),
        ):
            if value and kind != "frames":
                sentences.append(f"{option} changes nothing: this bundle has no published encoders")
        if kind == "kmer":
            if self.batch_tokens is not None:
                sentences.append("--batch-tokens changes nothing: this bundle has no network")
            if self.attention != "auto":
                sentences.append("--attention changes nothing: this bundle has no network")
            if self.gpus not in (None, "none"):
                sentences.append("--gpus changes nothing: this bundle computes on the CPU")
            if (self.threads or 1) > 1:
                sentences.append(
                    f"--threads {self.threads} changes nothing: this bundle computes on one"
                )
        if self.expandable_segments and not cuda:
            sentences.append("warning: --expandable-segments changes nothing without CUDA")
        if self.dataloader_workers and kind != "frames":
            sentences.append(
                "--dataloader-workers changes nothing: this bundle prepares nothing ahead"
            )
        return sentences


def _option(name: str) -> str:
    return f"--{name.replace('_', '-')}"


DEFAULTS = Compute()
