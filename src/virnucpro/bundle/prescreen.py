"""A bundle that looks first, before a larger one: which chunks it hands on, and what that costs.

How much is lost depends on both bundles. What was measured of such a pair stands in the manifest of
the larger one, in [[prescreens]], under the sha256 of the smaller; train/prescreen_fit.py fits it.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any, assert_never

from virnucpro.bundle import load
from virnucpro.bundle.manifest import MANIFEST, Bundle
from virnucpro.classifiers import Classifier
from virnucpro.classifiers.cascade import CascadeClassifier, Cuts, with_first
from virnucpro.classifiers.genetic_code import CHOICES
from virnucpro.classifiers.plan import Plan, plan_of
from virnucpro.devices.compute import Compute
from virnucpro.errors import BundleError, SettingsError
from virnucpro.frames import STANDARD

PART = "prescreens"
DEFAULT_RECALL = 0.995


@dataclass(frozen=True, slots=True, kw_only=True)
class Scoring:
    """Settings of how chunks are scored, besides the bundle.

    prescreen: name or directory of a bundle that looks first. prescreen_recall: share of the viral
    chunks that the bundle calls virus which it must hand on, one of those that were measured; None:
    0.995.
    prescreen_threshold: least p_virus of chunks that it hands on, instead. genetic_code: by which
    frames are open, one of genetic_code.CHOICES.
    """

    prescreen: str | None = None
    prescreen_recall: float | None = None
    prescreen_threshold: float | None = None
    genetic_code: str = str(STANDARD)

    def check(self) -> None:
        """Raise SettingsError for values out of range, or that contradict each other."""
        if self.genetic_code not in CHOICES:
            raise SettingsError(
                f"--genetic-code must be one of {', '.join(CHOICES)}, got {self.genetic_code!r}"
            )
        recall, threshold = self.prescreen_recall, self.prescreen_threshold
        if self.prescreen is None and (recall is not None or threshold is not None):
            raise SettingsError(
                "--prescreen-recall and --prescreen-threshold are for a bundle that looks first; "
                "name it with --prescreen"
            )
        if recall is not None and threshold is not None:
            raise SettingsError(
                "--prescreen-recall and --prescreen-threshold both decide what is handed on; give "
                "one of them"
            )
        for option, value in (("recall", recall), ("threshold", threshold)):
            if value is not None and not 0 <= value <= 1:
                raise SettingsError(f"--prescreen-{option} must be 0 to 1, got {value}")


@dataclass(frozen=True, slots=True)
class Choice:
    """Cuts of a pair of bundles. handed_on: share of others above each cut, as measured."""

    recall: float
    cuts: Cuts
    handed_on: tuple[float, ...]


@dataclass(frozen=True, slots=True)
class Prescreen:
    """A bundle that looks first. choice: what was measured; None where the user gave the cut."""

    bundle: Bundle
    cuts: Cuts
    choice: Choice | None = None

    @classmethod
    def of(cls, large: Bundle, scoring: Scoring, threshold: float) -> "Prescreen | None":
        """Return the bundle that looks before the large one, as asked for; None for none.

        threshold: at which chunks are cut. Raises BundleError, and SettingsError for a pair that
        does not go together, or of which nothing was measured.
        """
        if scoring.prescreen is None:
            return None
        small = load(scoring.prescreen)
        check_pair(large, small)
        if scoring.prescreen_threshold is not None:
            found = cls(small, Cuts((0,), (scoring.prescreen_threshold,)))
        else:
            recall = scoring.prescreen_recall
            choice = choice_of(large, small, DEFAULT_RECALL if recall is None else recall)
            found = cls(small, choice.cuts, choice)
        if (highest := max(found.cuts.p_virus)) > threshold:
            raise SettingsError(
                f"{small.name} would rule out chunks of a p_virus up to {highest:g}, although from "
                f"{threshold:g} on a chunk is called virus; give a --prescreen-threshold that is "
                "no higher than that, a higher --prescreen-recall, or a higher --threshold"
            )
        return found

    @property
    def sentence(self) -> str:
        """A sentence for the log."""
        said = f"{self.bundle.name} scores chunks first, and rules out p_virus below {self.cuts}"
        if self.choice is None:
            return f"{said}; what that loses was not measured"
        return (
            f"{said}: {100 * self.choice.recall:g} % of held-out viral chunks that are called "
            f"virus are passed on, and {100 * self.choice.handed_on[-1]:.0f} % of others"
        )

    def about(self) -> dict[str, Any]:
        """Return the entry in run.json."""
        return {
            "name": self.bundle.name,
            "sha256": self.bundle.sha256,
            "recall": None if self.choice is None else self.choice.recall,
            "lengths_nt": list(self.cuts.lengths_nt),
            "thresholds": list(self.cuts.p_virus),
        }

    def plan(self, large: Plan, attention: str) -> Plan:
        """Return the plan of both on the device of the large one."""
        own = self._own_plan(large, attention)
        return replace(large, attention={**large.attention, **with_first(own.attention)})

    def before(self, large: Classifier, plan: Plan, compute: Compute) -> Classifier:
        """Return a classifier that has this bundle look before another. plan: of that one."""
        own = self._own_plan(plan, compute.attention)
        return CascadeClassifier(
            self.bundle.classifier(own.device, own.precision, compute), large, self.cuts
        )

    def _own_plan(self, large: Plan, attention: str) -> Plan:
        match self.bundle.kind:
            case "kmer":
                return plan_of(self.bundle, "cpu")
            case "chunks" | "frames":
                # A function of the large one's precision, which the fingerprint has.
                precision = large.precision if large.precision in ("bf16", "fp16") else "fp32"
                return plan_of(self.bundle, large.device, precision, attention)
            case unknown:
                assert_never(unknown)


def check_pair(large: Bundle, small: Bundle) -> None:
    """Raise SettingsError unless one bundle can look before the other."""
    match small.kind:
        case "chunks" | "kmer":
            fits = small.chunk_nt == large.chunk_nt
        case "frames":
            fits = False
        case unknown:
            assert_never(unknown)
    if not fits:
        raise SettingsError(
            f"what looks before {large.name} must score whole chunks of {large.chunk_nt} nt, and "
            f"{small.name} is of kind {small.kind} and takes {small.chunk_nt} nt; choose another "
            "bundle"
        )


def choice_of(large: Bundle, small: Bundle, recall: float) -> Choice:
    """Return the cuts for a recall, as the large bundle's manifest has them.

    Raises SettingsError where nothing was measured of this pair, or not at this recall.
    """
    fits = [entry for entry in _entries(large) if entry.get("sha256") == small.sha256]
    if not fits:
        raise SettingsError(
            f"how {small.name} does before {large.name} was not measured, so there is no threshold "
            f"for it; `virnucpro prescreen {large.name} {small.name}` measures it on labelled "
            "sequences, or give --prescreen-threshold"
        )
    try:
        choices = {
            float(row["recall"]): Choice(
                float(row["recall"]),
                Cuts(tuple(fits[0]["lengths_nt"]), tuple(row["thresholds"])),
                tuple(row["handed_on"]),
            )
            for row in fits[0]["choices"]
        }
    except (KeyError, TypeError, ValueError) as error:
        raise BundleError(
            f"{large.path / MANIFEST}: its [[{PART}]] cannot be used ({error}); make the bundle "
            "again"
        ) from error
    if recall not in choices:
        known = ", ".join(f"{value:g}" for value in sorted(choices))
        raise SettingsError(
            f"--prescreen-recall must be one of {known}, got {recall:g}; only these were measured "
            "for the two bundles"
        )
    return choices[recall]


def _entries(large: Bundle) -> Sequence[Mapping[str, Any]]:
    found = large.parts.get(PART)
    return [e for e in found if isinstance(e, Mapping)] if isinstance(found, list) else []
