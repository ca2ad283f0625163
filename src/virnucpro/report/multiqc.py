"""The data MultiQC shows of a run: a table of its own, and columns of the general statistics."""

import json
from collections.abc import Mapping
from typing import Any

from virnucpro.report.names import visible
from virnucpro.report.runs import Run

_PERCENT = {"suffix": "%", "min": 0, "max": 100, "format": "{:,.1f}", "scale": "Oranges"}
_HEADERS: dict[str, dict[str, Any]] = {
    "virus_percent": {
        "title": "Virus",
        "description": "Records called virus, of all",
        **_PERCENT,
    },
    "virus": {"title": "Virus records", "description": "Records called virus"},
    "expected_wrong": {
        "title": "Expected wrong",
        "description": "Of the records called virus, expected to be wrong at most; of all samples "
        "of a run",
        "format": "{:,.0f}",
        "scale": "Reds",
    },
    "others": {"title": "Others", "description": "Records called others"},
    "none": {"title": "Not called", "description": "Records without a call"},
    "failed": {"title": "Failed", "description": "Records that could not be processed"},
    "records": {"title": "Records", "description": "Records of the input"},
    "virus_chunks_percent": {
        "title": "Virus chunks",
        "description": "Chunks called virus, of all",
        **_PERCENT,
        "hidden": True,
    },
    "chunks": {"title": "Chunks", "description": "Chunks of all records", "hidden": True},
    "bases": {"title": "Bases", "description": "Letters of all records", "hidden": True},
    "threshold": {
        "title": "Threshold",
        "description": "Least p_virus of a call virus",
        "format": "{:,.2f}",
        "hidden": True,
    },
    "bundle": {"title": "Bundle", "description": "Bundle that classified the records"},
}
_CALLED = {
    "title": "Called",
    "description": "Records with a call, virus or others",
    "format": "{:,d}",
    "scale": "Blues",
}
_COUNTS = ("virus", "others", "none", "failed", "records", "chunks", "bases")


def multiqc_table(run: Run) -> bytes:
    """The file of one run: a row for each of its samples."""
    headers = {
        name: ({"format": "{:,d}", "scale": "Blues"} if name in _COUNTS else {}) | header
        for name, header in _HEADERS.items()
    }
    document = {
        "id": "virnucpro",
        "section_name": "VirNucPro",
        "description": "Records that virnucpro called virus. A call is not a finding: each run's "
        "report.html tells how many to expect to be right.",
        "plot_type": "table",
        "pconfig": {"id": "virnucpro_table", "title": "VirNucPro: calls", "namespace": "VirNucPro"},
        "headers": headers,
        "data": rows(run),
    }
    return (json.dumps(document, indent=2, allow_nan=False) + "\n").encode()


def general_statistics(run: Run) -> bytes:
    """The file of one run for the table at the top of a report: three columns, a row a sample.

    A file of its own, since MultiQC takes one kind of content from each.
    """
    shown = ("virus_percent", "expected_wrong")
    document = {
        "id": "virnucpro_general",
        "plot_type": "generalstats",
        "namespace": "VirNucPro",
        "headers": {"called": _CALLED, **{name: _HEADERS[name] for name in shown}},
        "data": {
            sample: {
                "called": row["virus"] + row["others"],
                **{name: row[name] for name in shown if row[name] is not None},
            }
            for sample, row in rows(run).items()
        },
    }
    return (json.dumps(document, indent=2, allow_nan=False) + "\n").encode()


def rows(run: Run) -> dict[str, dict[str, Any]]:
    """Values by row. A run with a prefix puts it before a sample that its user did not name."""
    inputs = [i["sample"] for i in run.document.get("inputs", [])]
    named = run.settings.get("sample") is not None or not run.files.prefix
    found = {}
    samples = [*dict.fromkeys([*inputs, *run.records])]
    alone = len(samples) == 1  # the expected mistakes are those of the run
    for sample in samples:
        counts: Mapping[str, int] = run.records.get(sample, {})
        records, chunks = counts.get("records", 0), counts.get("chunks", 0)
        row = {
            **{name: counts.get(name, 0) for name in _COUNTS},
            "virus_percent": 100 * counts.get("virus", 0) / records if records else None,
            "virus_chunks_percent": 100 * counts.get("virus_chunks", 0) / chunks
            if chunks
            else None,
            "expected_wrong": _expected_wrong(run) if alone else None,
            "threshold": run.threshold,
            "bundle": run.bundle.get("name"),
        }
        name = visible(sample if named else f"{run.files.prefix}.{sample}")
        found[name] = {column: row[column] for column in _HEADERS}
    return found


def _expected_wrong(run: Run) -> float | None:
    """Return how many calls of a run are expected to be wrong, at most where a range is known."""
    return float(run.worth["most_wrong"]) if run.worth else None
