"""Measured numbers of a bundle -> the card of that bundle."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from virnucpro.bundle import embedded_bundles
from virnucpro.bundle.manifest import Bundle
from virnucpro.bundle.write import write_into
from virnucpro.errors import BundleError
from virnucpro.measure.accuracy import Evaluation
from virnucpro.measure.performance import Performance

_NUMBERS = (
    "viral",
    "others",
    "auroc",
    "auprc",
    "accuracy",
    "recall",
    "false_positive_rate",
    "recall_at_1pct_fpr",
    "recall_at_01pct_fpr",
)


def check_own(bundle: Bundle, directory: Path) -> None:
    """Raise BundleError unless a bundle lies in this directory, and is not the program's own."""
    if not directory.is_dir() or not directory.samefile(bundle.path):
        raise BundleError(
            f"{directory}: the bundle that is measured lies in {bundle.path}; measure the one "
            "whose card is to be written"
        )
    if any(each.path.samefile(directory) for each in embedded_bundles()):
        raise BundleError(
            f"{directory}: this bundle comes with the program; copy the folder, and measure the "
            "copy"
        )


def keep_card(
    bundle: Bundle,
    evaluation: Evaluation,
    precision: str,
    files: Sequence[str],
    warnings: Sequence[str],
) -> Bundle:
    """Return a bundle whose card holds what was measured on these files, of chunks.

    Raises OSError where it cannot be written.
    """
    whole, *parts = evaluation.chunk
    card: dict[str, Any] = {
        "measured_on": f"chunks of {', '.join(files)}, by virnucpro evaluate",
        "precision": precision,
        "fixed_fragments": _numbers(whole),
        "by_threshold": [
            {
                "threshold": evaluation.threshold,
                "recall": whole.recall,
                "false_positive_rate": whole.false_positive_rate,
            }
        ],
        "by_part": [
            {"part": p.part, "value": p.value, "against": p.against, **_numbers(p)} for p in parts
        ],
        "warnings": list(warnings),
    }
    return write_into(bundle, {"card": card})


def _numbers(performance: Performance) -> dict[str, Any]:
    return {name: getattr(performance, name) for name in _NUMBERS}
