"""Sequences in, one float32 row each out: duplicates once, sorted by length, cut by a token budget.

B sequences, T tokens, C width.
"""

from collections.abc import Callable, Iterator, Sequence
from typing import Protocol

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from virnucpro.encoders.attention import kernel_named
from virnucpro.errors import BundleError
from virnucpro.tokens import Ids, padded

Tokenize = Callable[[Sequence[str]], list[Ids]]

# Enough rows for full use of a CPU's matrix units; a device's budget comes from its bundle.
BATCH_TOKENS = 4096


class Model(Protocol):
    """What an encoder's module offers: hidden states (B, T, C) of ids (B, T), and their mean."""

    @property
    def pad(self) -> int: ...
    @property
    def width(self) -> int: ...
    def __call__(self, ids_BT: Tensor, *, backend: str) -> Tensor: ...
    def pool(self, hidden_BTC: Tensor, ids_BT: Tensor) -> Tensor: ...


class Encoder:
    """A frozen encoder on its device.

    tokenize: sequences -> their ids, or None where no tokenizer came with the weights.
    batch_tokens: most tokens of a batch, pads included; one row is never cut. attention: the
    kernel, by its name in attention.KERNELS.
    """

    def __init__(
        self,
        model: Model,
        tokenize: Tokenize | None,
        *,
        name: str,
        precision: str,
        device: torch.device,
        batch_tokens: int = BATCH_TOKENS,
        attention: str = "sdpa",
    ) -> None:
        kernel_named(attention)
        self.model = model
        self.name = name
        self.precision = precision
        self.device = device
        self.batch_tokens = batch_tokens
        self.attention = attention
        self._tokenize = tokenize

    @property
    def width(self) -> int:
        """Width of a row."""
        return self.model.width

    def hidden(self, ids: Tensor) -> Tensor:
        """Hidden states of the last layer, float32 (B, T, C) on the device, zero at pads.

        ids: int64 (B, T), shorter rows filled up with the encoder's own pad id.
        """
        with torch.no_grad():
            hidden_BTC: Tensor = self.model(ids.to(self.device), backend=self.attention)
        return hidden_BTC.float()

    def pooled(self, ids: Tensor) -> Tensor:
        """The embeddings of a padded batch, float32 (B, C) on the device."""
        ids_BT = ids.to(self.device)
        with torch.no_grad():
            hidden_BTC = self.model(ids_BT, backend=self.attention)
            pooled_BC: Tensor = self.model.pool(hidden_BTC, ids_BT)
        return pooled_BC.float()

    def rows(self, ids: Sequence[Ids]) -> Tensor:
        """The embedding of each sequence of ids, float32 (rows, C) on the device, in their order.

        Equal sequences are computed once.
        """
        unique: dict[bytes, int] = {}
        place = [unique.setdefault(sequence.tobytes(), len(unique)) for sequence in ids]
        distinct = [np.frombuffer(key, np.int64) for key in unique]
        out = torch.empty(len(distinct), self.width, device=self.device)
        for batch in batches([len(sequence) for sequence in distinct], self.batch_tokens):
            ids_BT = torch.from_numpy(padded([distinct[row] for row in batch], self.model.pad))
            out[torch.tensor(batch, device=self.device)] = self.pooled(ids_BT)
        return out[torch.tensor(place, dtype=torch.int64, device=self.device)]

    def embed(self, sequences: Sequence[str]) -> NDArray[np.float32]:
        """The embedding of each sequence, float32 (rows, C), in their order.

        Raises BundleError without a tokenizer, ValueError for a sequence that the encoder cannot
        take.
        """
        if self._tokenize is None:
            raise BundleError(
                f"{self.name}: came without its tokenizer.json, so it cannot read letters; "
                "load it with tokenizer=PATH, or from the published directory"
            )
        rows: NDArray[np.float32] = self.rows(self._tokenize(sequences)).cpu().numpy()
        return rows


def batches(lengths: Sequence[int], budget: int) -> Iterator[list[int]]:
    """Places of sequences, the longest first, in batches of rows * longest <= budget.

    A sequence longer than the budget is a batch of its own. Equal lengths keep their order.
    """
    batch: list[int] = []
    longest = 0
    for place in sorted(range(len(lengths)), key=lambda row: -lengths[row]):
        if batch and (len(batch) + 1) * longest > budget:
            yield batch
            batch = []
        longest = longest if batch else lengths[place]
        batch.append(place)
    if batch:
        yield batch
