"""How a classifier computes on its device: what a user may choose besides device and precision.

None of it changes results beyond what rounding does in batches of other sizes and other attention
kernels. Importing this loads no torch.
"""

from dataclasses import dataclass, replace

from virnucpro.devices import GIB, memory_of
from virnucpro.errors import SettingsError

CACHE_CLEAR_INTERVAL = 100
# Page-locked buffers take some 10 MB; where less than this is free, the system needs it more.
PINNED_FREE = GIB


@dataclass(frozen=True, slots=True, kw_only=True)
class Engine:
    """Wishes; None is this machine's own choice.

    attention: a name of encoders.attention.BACKENDS. batch_tokens: most tokens of a batch, pads
    included, of both encoders; esm_batch_size, dnabert_batch_size: of one of them. pin_memory:
    page-locked buffers for copies to the device; cuda_streams: copies on a stream of their own.
    cache_clear_interval: batches after which the allocator's cache is emptied, 0 for never.
    cache_weights: published encoders are kept in the cache as they lie in memory. save_embeddings:
    what the encoders make of each frame comes back with the scores.
    """

    attention: str = "auto"
    batch_tokens: int | None = None
    esm_batch_size: int | None = None
    dnabert_batch_size: int | None = None
    pin_memory: bool | None = None
    cuda_streams: bool | None = None
    cache_clear_interval: int = CACHE_CLEAR_INTERVAL
    cache_weights: bool = False
    save_embeddings: bool = False

    def check(self) -> None:
        """Raises SettingsError for numbers that mean nothing."""
        for name in ("batch_tokens", "esm_batch_size", "dnabert_batch_size"):
            tokens = getattr(self, name)
            if tokens is not None and tokens < 1:
                raise SettingsError(f"{name} is {tokens} tokens, but must be 1 or more")
        if self.cache_clear_interval < 0:
            raise SettingsError(
                f"cache_clear_interval is {self.cache_clear_interval}, but must be a number of "
                "batches, or 0 for never"
            )

    def on(self, device: str) -> "Engine":
        """The same with pinning and streams decided for a device."""
        cuda = device.startswith("cuda")
        free = memory_of("cpu").free
        pinned = free is None or free >= PINNED_FREE if self.pin_memory is None else self.pin_memory
        streams = self.cuda_streams is not False
        return replace(self, pin_memory=cuda and pinned, cuda_streams=cuda and streams)

    def tokens(self, encoder: str) -> int | None:
        """The wished budget of an encoder, esm2 or dnabert_s."""
        own = {"esm2": self.esm_batch_size, "dnabert_s": self.dnabert_batch_size}.get(encoder)
        return self.batch_tokens if own is None else own

    def without_effect(self, device: str, kind: str) -> list[str]:
        """Sentences about wishes that change nothing on this device, with this kind of bundle."""
        said = []
        cuda = device.startswith("cuda")
        for name, wish in (
            ("--pin-memory", self.pin_memory),
            ("--cuda-streams", self.cuda_streams),
        ):
            if wish and not cuda:
                said.append(f"warning: {name} changes nothing without CUDA, and is off")
            elif wish and kind != "frames":
                said.append(f"{name} changes nothing: this bundle has no published encoders")
        if not cuda and self.cache_clear_interval != CACHE_CLEAR_INTERVAL:
            said.append("warning: --cache-clear-interval changes nothing without CUDA")
        for name, value in (
            ("--esm-batch-size", self.esm_batch_size),
            ("--dnabert-batch-size", self.dnabert_batch_size),
            ("--cache-weights", self.cache_weights),
        ):
            if value and kind != "frames":
                said.append(f"{name} changes nothing: this bundle has no published encoders")
        if kind == "kmer":
            if self.batch_tokens is not None:
                said.append("--batch-tokens changes nothing: this bundle has no network")
            if self.attention != "auto":
                said.append("--attention changes nothing: this bundle has no network")
        return said


DEFAULTS = Engine()
