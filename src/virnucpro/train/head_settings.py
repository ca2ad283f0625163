"""The settings by which a head is fitted, and the published ones."""

from dataclasses import dataclass
from typing import Any, Self

from virnucpro.encoders.esm2 import check_chunk
from virnucpro.errors import SettingsError
from virnucpro.train.checks import check_least

ADAM, SGD = OPTIMISERS = ("adam", "sgd")


@dataclass(frozen=True, slots=True, kw_only=True)
class HeadSettings:
    """The settings by which the head is fitted.

    hidden: its inner width; batch_frames: least frames of a step; optimiser: adam, or sgd with
    momentum; decay: factor of the learning rate after each decay_epochs; epochs: most passes over
    the frames; patience: epochs without a better one on the slice that end the training (a higher
    AUROC, or at the same AUROC a lower loss);
    slice_fraction: of the bases of each group held out for that, by unit.
    """

    chunk_nt: int = 500
    hidden: int = 512
    batch_frames: int = 256
    optimiser: str = ADAM
    learning_rate: float = 5e-4
    momentum: float = 0.0
    decay: float = 1.0
    decay_epochs: int = 1
    epochs: int = 100
    patience: int = 5
    slice_fraction: float = 0.05
    seed: int = 0

    def __post_init__(self) -> None:
        check_chunk(self.chunk_nt, SettingsError)
        if self.optimiser not in OPTIMISERS:
            raise SettingsError(f"optimiser must be one of {', '.join(OPTIMISERS)}")
        check_least(self, hidden=1, batch_frames=2, epochs=1, patience=1, learning_rate=0, seed=0)
        check_least(self, momentum=0, decay=0, decay_epochs=1)

    @classmethod
    def published(cls, **others: Any) -> Self:  # noqa: ANN401
        """Return the published recipe: SGD in batches of 32. others: the remaining fields."""
        return cls(
            batch_frames=32,
            optimiser=SGD,
            learning_rate=2e-4,
            momentum=0.9,
            decay=0.85,
            decay_epochs=10,
            **others,
        )

    def learning_rate_of(self, epoch: int) -> float:
        """Return the learning rate of an epoch, which count from 1."""
        return self.learning_rate * self.decay ** ((epoch - 1) // self.decay_epochs)
