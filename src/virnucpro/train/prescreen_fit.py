"""A small and a large bundle, and labelled sequences -> the cuts at which the small one may look
before the large one, for several recalls.

Recall is that of the viral chunks that the large bundle calls virus; the work that is left is the
share of other chunks that are handed on. Groups weigh the same, and units in them. The sequences
must be others than those that either bundle was trained on. This module writes no file.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from virnucpro.bundle.manifest import Bundle
from virnucpro.bundle.prescreen import PART, Choice
from virnucpro.classifiers.cascade import Cuts
from virnucpro.errors import InputError
from virnucpro.measure.fragments import fragments_at
from virnucpro.measure.labels import LabelledContig

Float64 = NDArray[np.float64]

RECALLS = (0.8, 0.9, 0.95, 0.98, 0.99, 0.995, 0.999)
LENGTHS_NT = (75, 100, 150, 200, 250, 300, 400, 500)
# Of 99.5 % so many fragments miss one or more.
FEWEST_FOUND = 200


@dataclass(frozen=True, slots=True)
class Looked:
    """Scores of fragments of one length by both bundles; nan where one does not call."""

    length_nt: int
    viral: NDArray[np.bool_]
    group: NDArray[np.str_]
    small: Float64
    large: Float64

    def cut(self, recall: float, threshold: float) -> float:
        """Return the highest cut that keeps a recall. Raises InputError for too few fragments."""
        found = self.small[self.viral & (self.large >= threshold) & np.isfinite(self.small)]
        if len(found) < FEWEST_FOUND:
            raise InputError(
                f"of the viral fragments of {self.length_nt} nt the larger bundle calls "
                f"{len(found)} virus, and {FEWEST_FOUND} are needed; give more viral "
                "sequences, or a higher --per-side"
            )
        return float(np.quantile(found, 1 - recall, method="lower"))

    def handed_on(self, cut: float) -> dict[str, float]:
        """Return the share of the fragments of each group of others that are handed on."""
        passed = ~(self.small < cut)  # also those that are not called
        names = np.unique(self.group[~self.viral])
        return {str(n): float(passed[~self.viral & (self.group == n)].mean()) for n in names}


def lengths_of(chunk_nt: int) -> tuple[int, ...]:
    """The lengths that cuts are fitted at, for bundles of a chunk length."""
    return (*(nt for nt in LENGTHS_NT if nt < chunk_nt), chunk_nt)


def look(
    small: Bundle,
    large: Bundle,
    contigs: Sequence[LabelledContig],
    *,
    precision: str = "auto",
    device: str = "cpu",
    per_side: int = 2000,
    seed: int = 0,
    progress: Callable[[int], None] = lambda _: None,
) -> list[Looked]:
    """Score fragments of every length by both bundles. progress: takes each length when done."""
    first = small.classifier("cpu" if small.kind == "kmer" else device)
    second = large.classifier(device, precision)
    found = []
    for length_nt in lengths_of(large.chunk_nt):
        fragments = fragments_at(contigs, length_nt, per_side, seed)
        texts = [fragment.sequence.decode("ascii") for fragment in fragments]
        found.append(
            Looked(
                length_nt,
                np.array([fragment.label == 1 for fragment in fragments], np.bool_),
                np.array([fragment.group for fragment in fragments], np.str_),
                first.score(texts).p_virus,
                second.score(texts).p_virus,
            )
        )
        progress(length_nt)
    return found


def choices_of(looked: Sequence[Looked], threshold: float) -> list[Choice]:
    """Return the cuts for each recall. threshold: at which the large bundle calls a chunk virus.

    A longer chunk never has a lower cut. Raises InputError for too few fragments.
    """
    lengths = tuple(each.length_nt for each in looked)
    choices = []
    for recall in RECALLS:
        raw = [each.cut(recall, threshold) for each in looked]
        # From the longest down, so that noise can only lower a cut.
        cuts = np.minimum.accumulate(raw[::-1])[::-1].tolist()
        work = tuple(
            float(np.mean([*each.handed_on(cut).values()]))
            for each, cut in zip(looked, cuts, strict=True)
        )
        choices.append(Choice(recall, Cuts(lengths, tuple(cuts)), work))
    return choices


def entry_of(
    small: Bundle, choices: Sequence[Choice], measured_on: str, fragments: int
) -> dict[str, Any]:
    """Return what the manifest of the large bundle keeps of a pair."""
    return {
        "name": small.name,
        "sha256": small.sha256,
        "measured_on": measured_on,
        "fragments": fragments,
        "lengths_nt": list(choices[0].cuts.lengths_nt),
        "choices": [
            {
                "recall": choice.recall,
                # Down, so that no fragment that counted as handed on is ended.
                "thresholds": [np.floor(cut * 1e6) / 1e6 for cut in choice.cuts.p_virus],
                "handed_on": [round(share, 4) for share in choice.handed_on],
            }
            for choice in choices
        ],
    }


def with_entry(large: Bundle, entry: dict[str, Any]) -> dict[str, Any]:
    """Return what changes in a manifest; an earlier measurement of the same bundle goes."""
    others = [each for each in large.parts.get(PART, []) if each["name"] != entry["name"]]
    return {PART: [*others, entry]}


def table_of(choices: Sequence[Choice]) -> list[list[str]]:
    """Return rows of text: recall, threshold and share handed on, at the longest length."""
    return [
        [
            f"{100 * choice.recall:g} %",
            f"{choice.cuts.p_virus[-1]:.3f}",
            f"{100 * choice.handed_on[-1]:.0f} %",
        ]
        for choice in choices
    ]
