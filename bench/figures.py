"""What the benchmarks share: how they time, what they say of the machine, how they show figures."""

import os
import statistics
import time
from collections.abc import Callable, Mapping, Sequence
from typing import Any

from virnucpro.devices.machine import cpu_count, cpu_name


def processor_seconds(work: Callable[[], object], repeats: int) -> float:
    """Median processor time of a call: for one thread and no input to wait for."""
    times = []
    for _ in range(repeats):
        began = time.process_time()
        work()
        times.append(time.process_time() - began)
    return statistics.median(times)


def by_turns(
    runs: Mapping[tuple[str, ...], Callable[[], object]], clock: Callable[[], float], rounds: int
) -> dict[tuple[str, ...], list[float]]:
    """What each run took in each round by the clock, after one that does not count."""
    found: dict[tuple[str, ...], list[float]] = {name: [] for name in runs}
    for _ in range(rounds + 1):
        for name, run in runs.items():
            begin = clock()
            run()
            found[name].append(clock() - begin)
    return {name: taken[1:] for name, taken in found.items()}


def machine() -> dict[str, Any]:
    """The processor and how busy it was in the last minute; a load above 0.5 blurs the figures."""
    return {"cpu": cpu_name(), "cpus": cpu_count(), "load_1min": round(os.getloadavg()[0], 2)}


def table(columns: Sequence[str], rows: Sequence[Sequence[object]]) -> str:
    """Rows under their columns, the first column to the left, numbers to the right."""
    texts = [list(columns), *([str(cell) for cell in row] for row in rows)]
    widths = [max(map(len, column)) for column in zip(*texts, strict=True)]
    return "\n".join(
        "  ".join([row[0].ljust(widths[0]), *map(str.rjust, row[1:], widths[1:])]) for row in texts
    )


def markdown(columns: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    """The same as a Markdown table."""
    lines = [columns, ["---"] * len(columns), *rows]
    return "\n".join(f"| {' | '.join(line)} |" for line in lines)
