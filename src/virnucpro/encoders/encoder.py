"""Sequences in, one float32 row each out: duplicates once, sorted by length, cut by a token budget.

B sequences, T tokens, C width.
"""

from collections.abc import Callable, Sequence
from typing import Protocol

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from virnucpro.batches import token_batches
from virnucpro.encoders.attention import kernel_named, observing
from virnucpro.errors import BundleError
from virnucpro.tokens import Ids, padded

Tokenize = Callable[[Sequence[str]], list[Ids]]

# Enough rows for full use of a CPU's matrix units; the same on every device until one is measured.
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
    kernel to use, by its name in attention.KERNELS; kernels_seen: the names of those that ran.
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
        self.kernels_seen: set[str] = set()
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
            return self._hidden(ids.to(self.device)).float()

    def pooled(self, ids: Tensor) -> Tensor:
        """The embeddings of a padded batch, float32 (B, C) on the device."""
        ids_BT = ids.to(self.device)
        with torch.no_grad():
            return self.model.pool(self._hidden(ids_BT), ids_BT).float()

    def _hidden(self, ids_BT: Tensor) -> Tensor:
        with observing(self.kernels_seen):
            return self.model(ids_BT, backend=self.attention)

    def rows(self, ids: Sequence[Ids]) -> Tensor:
        """The embedding of each sequence of ids, float32 (rows, C) on the device, in their order.

        Equal sequences are computed once.
        """
        unique: dict[bytes, int] = {}
        place = [unique.setdefault(sequence.tobytes(), len(unique)) for sequence in ids]
        distinct = [np.frombuffer(key, np.int64) for key in unique]
        out = torch.empty(len(distinct), self.width, device=self.device)
        for batch in token_batches([len(sequence) for sequence in distinct], self.batch_tokens):
            ids_BT = torch.from_numpy(padded([distinct[row] for row in batch], self.model.pad))
            out[torch.tensor(batch, device=self.device)] = self.pooled(ids_BT)
        return out[torch.tensor(place, dtype=torch.int64, device=self.device)]

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

        Raises as ids does.
        """
        rows: NDArray[np.float32] = self.rows(self.ids(sequences)).cpu().numpy()
        return rows
