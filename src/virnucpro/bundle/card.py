"""The statements of a bundle's card on its calls: an excerpt for run.json, and what follows.

This module knows nothing of tables or pages.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from math import isfinite
from typing import Any

from virnucpro.bundle.manifest import Bundle, table_of
from virnucpro.classifiers.model import PROTEIN_KMERS

PREVALENCES = (0.001, 0.01, 0.1)
_RATES = ("recall", "false_positive_rate")


def about_bundle(bundle: Bundle) -> dict[str, Any]:
    """Return the entry of a bundle in run.json, so that a report needs nothing but the run."""
    card = bundle.card
    fixed = table_of(card, "fixed_fragments")
    accuracy = {
        "measured_on": card.get("measured_on"),
        **{name: fixed.get(name) for name in ("viral", "others", "auroc", *_RATES)},
        "by_threshold": _rows(card, "by_threshold", "threshold"),
        "by_length": _rows(card, "by_length", "length_nt"),
        "by_group": [
            {"group": row.get("value"), "false_positive_rate": row["false_positive_rate"]}
            for row in _tables(card, "by_part")
            if row.get("part") == "group" and "false_positive_rate" in row
        ],
    }
    return {
        "name": bundle.name,
        "sha256": bundle.sha256,
        "kind": bundle.kind,
        "chunk_nt": bundle.chunk_nt,
        "provenance": bundle.provenance.name.lower(),
        "description": bundle.description,
        "threshold": bundle.threshold,
        "record_threshold": bundle.record_threshold,
        "validated_nt": bundle.validated_nt,
        "protein_kmers": PROTEIN_KMERS in bundle.parts,
        "accuracy": accuracy if fixed else None,
        "of_records": _of_records(bundle),
    }


def _of_records(bundle: Bundle) -> list[dict[str, float]]:
    """Return the rates of whole records at the bundle's own threshold, by length; often empty."""
    from virnucpro.bundle.calibration import length_bins

    part = table_of(bundle.parts, "calibration")
    edges = part.get("edges")  # which strangers may have written
    if not isinstance(edges, list) or not edges or not all(map(_is_finite, edges)):
        return []
    begins = {name: from_nt for from_nt, name in length_bins(edges, bundle.chunk_nt)}
    return [
        {"from_nt": begins[str(row.get("length"))], **{n: row[n] for n in _RATES}}
        for row in _tables(part, "by_length")
        if str(row.get("length")) in begins and all(row.get(n) is not None for n in _RATES)
    ]


def _is_finite(value: object) -> bool:
    return isinstance(value, int | float) and isfinite(value)


def _rows(card: Mapping[str, Any], name: str, key: str) -> list[dict[str, float]]:
    names = (key, *_RATES)
    rows = _tables(card, name)
    return [{n: row[n] for n in names} for row in rows if all(n in row for n in names)]


def _tables(card: Mapping[str, Any], name: str) -> list[Mapping[str, Any]]:
    """The tables of an array of a card; a card of strangers may hold anything there."""
    found = card.get(name)
    return [row for row in found if isinstance(row, Mapping)] if isinstance(found, list) else []


@dataclass(frozen=True, slots=True)
class Rates:
    """Rates of chunks of one length at one threshold: share of virus found, of others called."""

    length_nt: int
    threshold: float
    recall: float
    false_positive_rate: float

    def precision(self, prevalence: float) -> float | None:
        """Share of calls virus that are right where this share of the chunks is viral."""
        found = self.recall * prevalence
        wrong = self.false_positive_rate * (1 - prevalence)
        return found / (found + wrong) if found + wrong else None


@dataclass(frozen=True, slots=True)
class Accuracy:
    """The accuracy measured of a run's bundle, from its run.json."""

    by_threshold: tuple[Rates, ...]
    by_length: tuple[Rates, ...]
    by_group: tuple[tuple[str, float], ...]
    auroc: float | None
    fragments: tuple[int, int]

    @classmethod
    def of(cls, bundle: Mapping[str, Any] | None) -> "Accuracy | None":
        """Return the accuracy from the bundle as it stands in run.json; None where unmeasured."""
        found = (bundle or {}).get("accuracy")
        if bundle is None or not found or "threshold" not in bundle:
            return None
        chunk_nt, usual = bundle["chunk_nt"], bundle["threshold"]

        def rates(row: Mapping[str, Any]) -> Rates:
            place = row.get("length_nt", chunk_nt), row.get("threshold", usual)
            return Rates(*place, row["recall"], row["false_positive_rate"])

        own = [] if found["recall"] is None else [rates(found)]
        return cls(
            by_threshold=tuple(map(rates, found["by_threshold"] or ())) or tuple(own),
            by_length=tuple(map(rates, found["by_length"])),
            by_group=tuple((row["group"], row["false_positive_rate"]) for row in found["by_group"]),
            auroc=found["auroc"],
            fragments=(found["viral"] or 0, found["others"] or 0),
        )

    def at(self, threshold: float | None, length_nt: int | None) -> Rates | None:
        """The rates measured nearest to chunks of a length; None if not at this threshold.

        Other lengths than the bundle's own were measured at its own threshold only.
        """
        near = [r for r in (*self.by_threshold, *self.by_length) if r.threshold == threshold]
        if length_nt is None:
            return near[0] if near else None
        return min(near, key=lambda r: abs(r.length_nt - length_nt), default=None)
