"""Sequences in, one float32 row each out: duplicates once, sorted by length, cut by a token budget.

B sequences, T tokens, C width.
"""

from collections import deque
from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager, contextmanager, nullcontext
from functools import partial
from typing import Any, Protocol

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from virnucpro.blocks import Batches
from virnucpro.devices.compute import CACHE_CLEAR_INTERVAL
from virnucpro.devices.memory import budget_that_fits, clear_cache
from virnucpro.devices.out_of_memory import fitting
from virnucpro.encoders.attention import check_backend, observing
from virnucpro.encoders.batching import token_batches
from virnucpro.encoders.copies import CopyBuffers
from virnucpro.encoders.widened import widened
from virnucpro.errors import BundleError
from virnucpro.progress import stepped
from virnucpro.tokens import Ids, TokenRows, padded

Tokenize = Callable[[Sequence[str]], list[Ids]]

# Enough rows for full use of a CPU's matrix units.
BATCH_TOKENS = 4096
# A batch in fp32 takes twice the memory a token, beside a layer whose weights are twice as large.
WIDE_SHARE = 4


class Network(Protocol):
    """Interface of an encoder's module: hidden states (B, T, C) of ids (B, T), and their mean.

    biased: whether its attention has a bias; dtype: what its products run in; token_bytes: about
    what a token of a batch takes in memory. padded says whether a batch has pads; None: look.
    """

    @property
    def pad(self) -> int: ...
    @property
    def width(self) -> int: ...
    @property
    def biased(self) -> bool: ...
    @property
    def dtype(self) -> torch.dtype: ...
    @property
    def token_bytes(self) -> int: ...
    def __call__(self, ids_BT: Tensor, *, backend: str, padded: bool | None) -> Tensor: ...
    def pool(self, hidden_BTC: Tensor, ids_BT: Tensor) -> Tensor: ...


class Encoder:
    """A frozen encoder on its device.

    tokenize: sequences -> their ids, or None where no tokenizer came with the weights.
    batch_tokens: most tokens of a batch, pads included; one row is never cut. It becomes smaller
    when a batch does not fit in memory; budget is what it was at first. attention: a name of
    attention.BACKENDS. On CUDA also: pinned and streams (as CopyBuffers), and cache_clear_interval,
    the number of batches after which the allocator's cache is emptied, 0 for never.

    forwards, tokens, pads: counts of all batches so far; widened: of sequences by wide_rows.
    """

    def __init__(
        self,
        model: Network,
        tokenize: Tokenize | None,
        *,
        name: str,
        precision: str,
        device: torch.device,
        batch_tokens: int = BATCH_TOKENS,
        attention: str = "auto",
        pinned: bool = True,
        streams: bool = True,
        cache_clear_interval: int = CACHE_CLEAR_INTERVAL,
    ) -> None:
        check_backend(attention, device, model.dtype, model.biased)
        self.model = model
        self.name = name
        self.precision = precision
        self.device = device
        self.batch_tokens = self.budget = self._fitted = batch_tokens
        self.attention = attention
        self.pinned = pinned
        self.streams = streams
        self.cache_clear_interval = cache_clear_interval
        self.forwards = self.tokens = self.pads = self.widened = 0
        self._kernels: dict[Any, str] = {}
        self._tokenize = tokenize
        self._buffers: CopyBuffers | None = None

    def wide_rows(self, sequences: Sequence[NDArray[np.integer[Any]]]) -> Tensor:
        """Return the embedding of each sequence of ids, computed in fp32 by the weights in 16 bits.

        For sequences whose numbers overflowed: weights are widened for every batch, which is slow,
        and softmax is written out. float32 (rows, C) on the device, in their order. Raises
        OutOfMemory as rows does.
        """
        module = widened(_module_of(self.model))
        found = torch.empty(len(sequences), self.width, device=self.device)
        lengths = list(map(len, sequences))
        budget = max(1, self.batch_tokens // WIDE_SHARE)
        waiting = deque(token_batches(lengths, budget))

        def compute(batch: Sequence[int]) -> Tensor:
            ids = padded([sequences[row] for row in batch], self.model.pad)
            ids_BT = torch.from_numpy(ids).to(self.device)
            with torch.no_grad(), _current(self.device):
                hidden_BTC = module(ids_BT, backend="math", padded=None)
                pooled: Tensor = module.pool(hidden_BTC, ids_BT).float()
            return pooled

        while waiting:
            batch = waiting.popleft()
            tokens = len(batch) * max(lengths[row] for row in batch)
            part = fitting(partial(compute, batch), self.name, len(batch), tokens, self.device)
            if part is None:
                budget = max(1, min(budget, tokens) // 2)
                rest = [row for later in (batch, *waiting) for row in later]
                cut = token_batches([lengths[row] for row in rest], budget)
                waiting = deque([rest[row] for row in piece] for piece in cut)
            else:
                found[batch] = part
        self.widened += len(sequences)
        return found

    def fit_memory(self) -> None:
        """Halves the budget of a batch until one fits into what is free on the device."""
        self.batch_tokens = budget_that_fits(self.batch_tokens, self.model.token_bytes, self.device)
        self._fitted = self.batch_tokens

    def restore_budget(self) -> None:
        """Batches are again as large as when the encoder was loaded, whatever did not fit since."""
        self.batch_tokens = self._fitted

    @property
    def _page_locks(self) -> bool:
        return self.device.type == "cuda" and self.pinned

    @property
    def width(self) -> int:
        """Width of a row."""
        return self.model.width

    @property
    def kernels_seen(self) -> set[str]:
        """The attention kernels that ran so far, by the names of attention.NAMES, as observed."""
        return set(self._kernels.values())

    @property
    def batches(self) -> Batches:
        """All batches so far."""
        counts = (self.forwards, self.tokens, self.pads, self.widened)
        return Batches(self.budget, self.batch_tokens, *counts)

    @property
    def padding(self) -> float | None:
        """Share of pads among the tokens of all batches, 0 to 1; None before the first."""
        return self.batches.padding

    def hidden(self, ids: Tensor) -> Tensor:
        """Hidden states of the last layer, float32 (B, T, C) on the device, zero at pads.

        ids: int64 (B, T), shorter rows filled up with the encoder's own pad id.
        """
        padded = bool((ids == self.model.pad).any())
        with torch.no_grad():
            return self._hidden(ids.to(self.device), padded).float()

    def pooled(self, ids: Tensor) -> Tensor:
        """The embeddings of a padded batch, float32 (B, C) on the device."""
        return self._pooled(ids.to(self.device), bool((ids == self.model.pad).any()))

    def _pooled(self, ids_BT: Tensor, padded: bool) -> Tensor:
        with torch.no_grad():
            return self.model.pool(self._hidden(ids_BT, padded), ids_BT).float()

    def _hidden(self, ids_BT: Tensor, padded: bool) -> Tensor:
        with observing(self._kernels, self._attended), _current(self.device):
            return self.model(ids_BT, backend=self.attention, padded=padded)

    def work(self, ids: TokenRows) -> float:
        """Return the work of rows, in the units of its steps: multiplications of a layer, about."""
        layers = len(_module_of(self.model).layers)
        return float(ids.lengths.sum()) * layers * self.width**2

    def _attended(self, tokens: int) -> None:
        stepped(tokens * self.width**2)

    def rows(self, ids: TokenRows | Sequence[Ids]) -> Tensor:
        """The embedding of each sequence of ids, float32 (rows, C) on the device, in their order.

        Equal sequences are computed once. A batch that does not fit in memory is tried again as
        two, and batches stay as small from then on. The host does not wait for the device but to
        reuse a buffer, and once at the end without page-locked memory. Raises OutOfMemory, with a
        report, for a single sequence that does not fit.
        """
        tokens = ids if isinstance(ids, TokenRows) else TokenRows.of(ids)
        distinct, lengths = tokens.distinct(), tokens.lengths.tolist()
        # Page-locking memory waits for the device, which at the end would have nothing to do.
        places = torch.empty(len(tokens), dtype=torch.int64, pin_memory=self._page_locks)
        computed: list[int] = []
        parts: list[Tensor] = []
        waiting = deque(token_batches(lengths, self.batch_tokens))
        while waiting:
            batch = waiting.popleft()
            part = self._fitting([distinct[row] for row in batch])
            if part is None:
                rest = [row for later in (batch, *waiting) for row in later]
                cut = token_batches([lengths[row] for row in rest], self.batch_tokens)
                waiting = deque([rest[row] for row in piece] for piece in cut)
            else:
                computed += batch
                parts.append(part)
        if not parts:
            return torch.empty(0, self.width, device=self.device)
        where = np.empty(len(computed), np.int64)
        where[computed] = np.arange(len(computed))
        places.copy_(torch.from_numpy(where[tokens.place]))
        return torch.cat(parts)[places.to(self.device, non_blocking=self._page_locks)]

    def _fitting(self, batch: Sequence[NDArray[np.uint16]]) -> Tensor | None:
        """The embeddings of a batch, (B, C), or None where it does not fit: then half of it may."""
        tokens = len(batch) * max(map(len, batch))
        pads = tokens - sum(map(len, batch))

        def compute() -> Tensor:
            with self._sent(padded(batch, self.model.pad)) as ids_BT:
                return self._pooled(ids_BT, pads > 0)

        part = fitting(compute, self.name, len(batch), tokens, self.device)
        if part is None:
            self.batch_tokens = max(1, min(self.batch_tokens, tokens) // 2)
            return None
        self.forwards += 1
        self.tokens += tokens
        self.pads += pads
        if self.cache_clear_interval and self.forwards % self.cache_clear_interval == 0:
            clear_cache(self.device)
        return part

    @contextmanager
    def _sent(self, ids_BT: Ids) -> Iterator[Tensor]:
        """A batch on the device."""
        if self.device.type != "cuda":
            yield torch.from_numpy(ids_BT)
            return
        if self._buffers is None or self._buffers.tokens < ids_BT.size:
            room = max(self.batch_tokens, ids_BT.size)
            self._buffers = CopyBuffers(self.device, room, pinned=self.pinned, streams=self.streams)
        with _current(self.device), self._buffers.sent(ids_BT) as there_BT:
            yield there_BT

    def ids(self, sequences: Sequence[str]) -> list[Ids]:
        """The ids of each sequence, in their order.

        Raises BundleError without a tokenizer, ValueError for a sequence that the encoder cannot
        take.
        """
        if self._tokenize is None:
            raise BundleError(
                f"{self.name}: came without its tokenizer.json, so it cannot read letters; "
                "load it with tokenizer=PATH, or from the published directory"
            )
        return self._tokenize(sequences)

    def embed(self, sequences: Sequence[str]) -> NDArray[np.float32]:
        """The embedding of each sequence, float32 (rows, C), in their order.

        Raises as ids and rows do.
        """
        rows: NDArray[np.float32] = self.rows(self.ids(sequences)).cpu().numpy()
        return rows


def _module_of(model: Network) -> Any:  # noqa: ANN401
    """Return the module whose weights a model computes with."""
    return model if isinstance(model, torch.nn.Module) else getattr(model, "model")  # noqa: B009


def _current(device: torch.device) -> AbstractContextManager[None]:
    """Return a context in which kernels that are not told their device run on this one."""
    return torch.cuda.device(device) if device.type == "cuda" else nullcontext()
