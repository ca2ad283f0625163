"""Features of a frame -> P(others), P(virus): the published head, for any width of its input.

R rows, F features (nucleotide embedding, then protein embedding, in the published models).
"""

from collections.abc import Mapping
from pathlib import Path
from typing import overload

import numpy as np
import torch
from numpy.typing import NDArray
from safetensors import SafetensorError
from safetensors.torch import load_file
from torch import Tensor, nn
from torch.nn import functional as F

from virnucpro.errors import BundleError

CLASSES = 2
DROPOUT = 0.5


class Head(nn.Module):
    """Linear, BatchNorm, ReLU, Dropout, Linear; class 0 is others, class 1 is virus."""

    def __init__(self, features: int, hidden: int = 512) -> None:
        super().__init__()
        self.hidden = nn.Linear(features, hidden)
        self.norm = nn.BatchNorm1d(hidden)
        self.dropout = nn.Dropout(DROPOUT)
        self.output = nn.Linear(hidden, CLASSES)

    @property
    def features(self) -> int:
        """Width of the input."""
        return self.hidden.in_features

    def forward(self, features_RF: Tensor) -> Tensor:
        """Logits (R, 2): with dropout and batch statistics in training mode."""
        logits: Tensor = self.output(self.dropout(F.relu(self.norm(self.hidden(features_RF)))))
        return logits

    @overload
    def probabilities(self, features: NDArray[np.floating]) -> NDArray[np.float32]: ...
    @overload
    def probabilities(self, features: Tensor) -> Tensor: ...
    def probabilities(
        self, features: NDArray[np.floating] | Tensor
    ) -> NDArray[np.float32] | Tensor:
        """P(others) and P(virus), float32 (R, 2), of the kind that features are.

        Always as in eval mode, without touching the mode. Raises ValueError for another width.
        """
        # torch warns of memory that it may not write to, and has no negative strides.
        given = (
            features
            if isinstance(features, Tensor)
            else torch.from_numpy(np.require(features, requirements=("C", "W")))
        )
        if given.ndim != 2 or given.shape[1] != self.features:
            raise ValueError(
                f"the head takes rows of {self.features} features, not {tuple(given.shape)}."
            )
        with torch.no_grad():
            logits_RC = self._eval(given.to(self.hidden.weight))
        found = logits_RC.float().softmax(-1)
        return found if isinstance(features, Tensor) else found.cpu().numpy()

    def _eval(self, features_RF: Tensor) -> Tensor:
        norm = self.norm
        normed = F.batch_norm(
            self.hidden(features_RF),
            norm.running_mean,
            norm.running_var,
            norm.weight,
            norm.bias,
            training=False,
            eps=norm.eps,
        )
        logits: Tensor = self.output(F.relu(normed))
        return logits


def state_of(path: Path | str) -> dict[str, Tensor]:
    """The tensors of a safetensors file. Raises BundleError where it is missing or damaged."""
    try:
        return load_file(path)
    except OSError as error:
        raise BundleError(f"{path}: cannot be read ({error.strerror or error})") from error
    except SafetensorError as error:
        raise BundleError(f"{path}: not a safetensors file, or damaged ({error})") from error


def misfits(module: nn.Module, state: Mapping[str, Tensor]) -> list[str]:
    """Names that only one of the two has, or that have another shape in each, sorted."""
    wanted = {name: tensor.shape for name, tensor in module.state_dict().items()}
    found = {name: tensor.shape for name, tensor in state.items()}
    return sorted(name for name in wanted | found if wanted.get(name) != found.get(name))


def load_head(path: Path | str) -> Head:
    """A head from the safetensors of its state, in eval mode; its widths are those of its tensors.

    Raises BundleError where the file is missing, damaged, or holds something else.
    """
    state = state_of(path)
    weight = state.get("hidden.weight")
    if weight is None or weight.ndim != 2:
        raise BundleError(f"{path}: holds no head (no matrix hidden.weight)")
    try:
        return head_of_state(state)
    except ValueError as error:
        raise BundleError(f"{path}: not a head, or of mixed sizes; see {error}") from error


def head_of_state(state: Mapping[str, Tensor]) -> Head:
    """Return a head with these tensors, in eval mode; its widths are those of the tensors.

    Raises ValueError, naming them, for tensors that do not belong together.
    """
    hidden, features = state["hidden.weight"].shape
    with torch.device("meta"):
        head = Head(features, hidden)
    if wrong := misfits(head, state):
        raise ValueError(", ".join(wrong))
    head.load_state_dict(dict(state), assign=True)
    return head.requires_grad_(False).eval()
