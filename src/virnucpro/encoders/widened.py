"""An encoder's pass in fp32 by weights in 16 bits, a layer at a time: the answer to an overflow."""

from copy import copy, deepcopy
from typing import TypeVar

from torch import Tensor, nn

from virnucpro.encoders.dnabert_s import DnabertS
from virnucpro.encoders.esm2 import Esm2

M = TypeVar("M", Esm2, DnabertS)


class _Widened(nn.Module):
    """A layer that computes in fp32 by a copy of its weights, which lives for one call.

    The layer itself stays as it is, for whoever computes with it meanwhile.
    """

    def __init__(self, layer: nn.Module) -> None:
        super().__init__()
        self._layer = (layer,)  # not a child of this module

    def forward(self, *inputs: object) -> Tensor:
        computed: Tensor = deepcopy(self._layer[0]).float()(*inputs)
        return computed


def widened(module: M) -> M:
    """Return a module with the same weights that computes in fp32.

    Embeddings and norms give fp32 already; products are widened layer by layer, so that no more
    memory is taken than one layer's weights in fp32.
    """
    wide = copy(module)
    layers = nn.ModuleList(_Widened(layer) for layer in module.layers)
    wide._modules = {**module._modules, "layers": layers}
    return wide
