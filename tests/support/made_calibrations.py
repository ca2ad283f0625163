"""Calibrations made by hand: scores are what they say, and negatives are what a test wants."""

from collections.abc import Mapping, Sequence

import numpy as np

from virnucpro.bundle.calibration import Calibration, Curve, Negatives, Origin, RecordRule
from virnucpro.bundle.manifest import Bundle
from virnucpro.train.calibrate import calibrated_copy

KNOTS = np.log([0.1, 1.0, 10.0])


def a_calibration(
    negatives: Mapping[str, Sequence[Sequence[float]]] | None = None,
    *,
    a: float = 0.0,
    b: float = 1.0,
    power: float = 0.0,
    chunk_nt: int = 500,
    threshold: float = 0.8,
    replicates: np.ndarray | None = None,
    origin: Origin | None = None,
) -> Calibration:
    """negatives: log-odds by group and length bin. replicates: (draws, 2) of a and b."""
    given = negatives or {"bacteria": [[-4.0], [-4.0]]}
    rows = [
        (score, b, g)
        for g, bins in enumerate(given.values())
        for b, scores in enumerate(bins)
        for score in scores
    ]
    score, length_bin, group = zip(*rows, strict=True) if rows else ((), (), ())
    drawn = np.zeros((0, 2)) if replicates is None else replicates
    return Calibration(
        rule=RecordRule(Curve(KNOTS, np.full(3, a)), Curve(KNOTS, np.full(3, b)), power, chunk_nt),
        replicates=np.repeat(drawn[:, :, None], 3, axis=2).astype(np.float32),
        negatives=Negatives(
            np.array(score, float),
            np.array(length_bin, np.uint8),
            np.array(group, np.uint8),
            (*given,),
        ),
        threshold=threshold,
        worst_rate=0.05,
        worst_group=next(iter(given)),
        origin=origin,
    )


def calibrated(bundle: Bundle, calibration: Calibration) -> Bundle:
    """A copy of a bundle beside it, with a calibration."""
    folder = bundle.path.with_name(f"{bundle.path.name}-calibrated")
    return calibrated_copy(bundle, folder, folder.name, calibration, {})
