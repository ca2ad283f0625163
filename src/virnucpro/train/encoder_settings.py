"""Settings of the training of a small encoder, and the learning rate that they mean at a step."""

import math
from dataclasses import dataclass, field, replace

from virnucpro.classifiers.codon import CodonConfig
from virnucpro.errors import SettingsError
from virnucpro.train.checks import check_least
from virnucpro.train.fragments import Augmentation

# A few dozen lengths and no more: CUDA looks for the fastest kernels anew for each.
LENGTHS_NT = (
    *(75, 100, 123, 150, 171, 200, 222, 250, 272, 300, 300),
    *(323, 350, 372, 400, 424, 450, 472, 500, 500, 500),
)


@dataclass(frozen=True, slots=True, kw_only=True)
class EncoderSettings:
    """Every number of a training.

    batch_nt: letters of a batch, of fragments of one length, drawn from lengths_nt for each step.
    warm_up: share of the steps. average_decay: of the running average of the weights.
    loss_power: of a bounded loss in place of smoothed cross entropy, see bounded_loss; 0 for none.
    groups: what the second head tells apart; unresolved: groups of contigs that stand for several
    of these, each with which; group_weight: of that head's loss. tail_weight: of a loss that ranks
    viral fragments above the tail_share of the others that score highest, in a batch.
    by_level, unit_power: how contigs are weighed, see contig_weights.
    slice_fraction: of the bases of each label and group held out, by unit, for choosing;
    slice_fragments: of each label, at each of slice_lengths_nt; slice_seed: the seed of the
    slice; None: that of everything else. The fit stops early after patience evaluations without
    a better one; 0 means never.
    """

    network: CodonConfig = field(default_factory=CodonConfig)
    hidden: int = 128
    steps: int = 6500
    batch_nt: int = 320_000
    lengths_nt: tuple[int, ...] = LENGTHS_NT
    learning_rate: float = 2e-3
    weight_decay: float = 0.1
    warm_up: float = 0.03
    label_smoothing: float = 0.02
    loss_power: float = 0.0
    gradient_norm: float = 1.0
    average_decay: float = 0.999
    augmentation: Augmentation = field(default_factory=Augmentation)
    groups: tuple[str, ...] = ()
    unresolved: tuple[tuple[str, tuple[str, ...]], ...] = ()
    group_weight: float = 0.3
    tail_weight: float = 0.0
    tail_share: float = 0.1
    by_level: bool = False
    unit_power: float = 0.5
    slice_fraction: float = 0.05
    slice_fragments: int = 2000
    slice_seed: int | None = None
    slice_lengths_nt: tuple[int, ...] = (300, 500)
    evaluate_every: int = 250
    patience: int = 8
    seed: int = 0

    @property
    def cut_by(self) -> int:
        """The seed that cuts the slice and draws its fragments."""
        return self.seed if self.slice_seed is None else self.slice_seed

    def up_to(self, chunk_nt: int) -> "EncoderSettings":
        """Return the same for chunks of a length: no fragment is longer than what is scored.

        Raises SettingsError for chunks that are longer than all fragments.
        """
        if chunk_nt > (longest := max(self.lengths_nt)):
            raise SettingsError(
                f"an encoder is trained on fragments of up to {longest} nt, so chunks of "
                f"{chunk_nt:,} nt would be new to it; give --chunk {longest} or less (a longer "
                "record is scored by its chunks)"
            )
        lengths, judged = (
            tuple(nt for nt in given if nt <= chunk_nt) or (chunk_nt,)
            for given in (self.lengths_nt, self.slice_lengths_nt)
        )
        return replace(self, lengths_nt=lengths, slice_lengths_nt=judged)

    def __post_init__(self) -> None:
        check_least(self, hidden=1, steps=1, batch_nt=1, lengths_nt=3, learning_rate=0)
        check_least(self, weight_decay=0, warm_up=0, gradient_norm=0, average_decay=0)
        check_least(self, slice_fragments=2, slice_lengths_nt=3, evaluate_every=1)
        check_least(self, label_smoothing=0, loss_power=0, patience=0, seed=0, unit_power=0)
        check_least(self, group_weight=0, tail_weight=0, tail_share=0)


def learning_rate_at(settings: EncoderSettings, step: int) -> float:
    """Linear warm-up, then half a cosine down to almost nothing at the last step."""
    done = step / settings.steps
    warm = min(1.0, (step + 1) / max(1.0, settings.warm_up * settings.steps))
    return settings.learning_rate * (warm * 0.5 * (1 + math.cos(math.pi * min(1.0, done))) + 1e-3)
