"""Two encoders on a device that holds the weights of only one at a time."""

from collections.abc import Iterator
from contextlib import contextmanager

from torch import Tensor, nn

from virnucpro.devices.memory import clear_cache
from virnucpro.encoders.encoder import Encoder
from virnucpro.encoders.gpu import FusedEsm2


class Visitor:
    """An encoder whose weights live on the host, and on its device while it computes."""

    def __init__(self, encoder: Encoder) -> None:
        self._device = encoder.device
        self._tensors = list(_weights(encoder))
        self._home = [tensor.data.to("cpu") for tensor in self._tensors]
        self._leave()

    @contextmanager
    def there(self) -> Iterator[None]:
        """While its weights are on the device."""
        for tensor, home in zip(self._tensors, self._home, strict=True):
            tensor.data = home.to(self._device)
        try:
            yield
        finally:
            self._leave()

    def _leave(self) -> None:
        for tensor, home in zip(self._tensors, self._home, strict=True):
            tensor.data = home
        clear_cache(self._device)


def _weights(encoder: Encoder) -> Iterator[Tensor]:
    model = encoder.model
    module = model if isinstance(model, nn.Module) else getattr(model, "model", None)
    assert isinstance(module, nn.Module)
    yield from module.parameters()
    yield from module.buffers()
    if isinstance(model, FusedEsm2):
        yield from model.eight_bit_weights()
