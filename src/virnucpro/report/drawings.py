"""The drawings that need no script, as coordinates."""

from collections.abc import Iterator, Mapping
from typing import Any, NamedTuple

from virnucpro.report.runs import Histogram

_WIDTH, _HEIGHT = 480, 120
_SPARK_HEIGHT = 24


class Spread(NamedTuple):
    """Two distributions: columns (x, y, width, height), and the path of a line."""

    width: int
    height: int
    columns: list[tuple[str, str, str, str]]
    line: str


def columns_of(scores: Histogram) -> Iterator[tuple[str, int, str, str]]:
    """Yield the columns of a small histogram: call, x, y, height; virus stands on others."""
    most = max(a + b for a, b in zip(scores.virus, scores.others, strict=True))
    for i, (virus, others) in enumerate(zip(scores.virus, scores.others, strict=True)):
        for call, number, top in (("others", others, others), ("virus", virus, others + virus)):
            if number:
                y, height = _SPARK_HEIGHT * (1 - top / most), _SPARK_HEIGHT * number / most
                yield call, 2 * i, f"{y:.2f}", f"{height:.2f}"


def cells(share: float) -> str:
    """A path that shows a share of a hundred cells; dashes make cells of its lines."""
    parts = []
    for row in range(10):
        if filled := min(max(100 * share - 10 * row, 0), 10):
            whole, rest = divmod(filled, 1)
            parts.append(f"M0 {11 * row + 4.5}H{11 * whole + 9 * rest:.3g}")
    return "".join(parts)


def spread(worth: Mapping[str, Any]) -> Spread | None:
    """Log-odds of the records as columns, of the negatives as a line, each as shares."""
    scores, null = worth["scores"], worth["null_scores"]
    if not sum(scores) or not sum(null):
        return None
    shares = [[number / sum(numbers) for number in numbers] for numbers in (scores, null)]
    top, width = max(map(max, shares)), _WIDTH / len(scores)
    heights, line = ([_HEIGHT * share / top for share in of] for of in shares)
    columns = [
        (f"{i * width + 0.5:g}", f"{_HEIGHT - height:.1f}", f"{width - 1:g}", f"{height:.1f}")
        for i, height in enumerate(heights)
        if height
    ]
    path = "".join(
        f"{'L' if i else 'M'}{i * width:g} {_HEIGHT - height:.1f}H{(i + 1) * width:g}"
        for i, height in enumerate(line)
    )
    return Spread(_WIDTH, _HEIGHT, columns, path)
