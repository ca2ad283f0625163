"""Batches of ids on their way to a device: page-locked buffers, a stream of their own, events.

A buffer on the host is written again only when its last copy has ended, one on the device only when
what computed with it has ended. On a CPU there is nothing to stage.

B sequences, T tokens.
"""

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass

import torch
from torch import Tensor

from virnucpro.tokens import Ids

# One in use by the device, one on its way, one being filled.
SLOTS = 3


@dataclass(frozen=True, slots=True)
class _Slot:
    host: Tensor
    there: Tensor
    copied: torch.cuda.Event
    used: torch.cuda.Event


class CopyBuffers:
    """Room for batches of some tokens each, on a CUDA device.

    pinned: whether the host's buffers are page-locked; streams: whether copies run on a stream of
    their own, beside the computing.
    """

    def __init__(self, device: torch.device, tokens: int, *, pinned: bool, streams: bool) -> None:
        self.tokens = tokens
        self._stream = torch.cuda.Stream(device) if streams else None  # type: ignore[no-untyped-call]
        self._device = device
        self._turn = 0
        self._slots = [
            _Slot(
                torch.empty(tokens, dtype=torch.int64, pin_memory=pinned),
                torch.empty(tokens, dtype=torch.int64, device=device),
                torch.cuda.Event(),  # type: ignore[no-untyped-call]
                torch.cuda.Event(),  # type: ignore[no-untyped-call]
            )
            for _ in range(SLOTS)
        ]
        for slot in self._slots:
            # The allocator may have given room that work under way still writes to.
            slot.used.record(torch.cuda.current_stream(device))

    @contextmanager
    def sent(self, ids_BT: Ids) -> Iterator[Tensor]:
        """A batch on the device, int64 (B, T), to be computed with within this context alone."""
        slot = self._slots[self._turn]
        self._turn = (self._turn + 1) % SLOTS
        slot.copied.synchronize()
        slot.host[: ids_BT.size].copy_(torch.from_numpy(ids_BT.reshape(-1)))
        computing = torch.cuda.current_stream(self._device)
        copying = computing if self._stream is None else self._stream
        copying.wait_event(slot.used)
        with torch.cuda.stream(copying):
            slot.there[: ids_BT.size].copy_(slot.host[: ids_BT.size], non_blocking=True)
        slot.copied.record(copying)
        computing.wait_event(slot.copied)
        try:
            yield slot.there[: ids_BT.size].view(ids_BT.shape)
        finally:
            slot.used.record(computing)
