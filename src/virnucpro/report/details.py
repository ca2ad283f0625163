"""The details of how a run was made: its bundle, device, settings and inputs."""

from collections.abc import Mapping, Sequence
from typing import Any

from virnucpro.report.html import Html, joined
from virnucpro.report.html import element as h
from virnucpro.report.pieces import columns, more_of, row, section, table
from virnucpro.report.quantities import instant, several, size
from virnucpro.report.runs import Run
from virnucpro.report.sections import MOST_SAMPLES


def details(run: Run, paths: bool) -> Html | None:
    """The section; None where run.json is missing."""
    document, bundle = run.document, run.bundle
    if not document:
        return None
    attention = document.get("attention") or {}
    facts: list[tuple[str, object]] = [
        ("bundle", bundle.get("name")),
        ("", bundle.get("description")),
        ("bundle sha256", bundle.get("sha256") and h("code", bundle["sha256"])),
        ("threshold", run.settings.get("threshold")),
        ("chunks", bundle.get("chunk_nt") and f"{bundle['chunk_nt']:,} nt"),
        ("device", _device(document.get("device") or {})),
        ("attention", ", ".join(f"{name}: {by}" for name, by in attention.items())),
        ("versions", ", ".join(f"{k} {v}" for k, v in document["versions"].items() if v)),
        ("ended", instant(document["finished"]) if "finished" in document else None),
        ("run directory", h("code", str(run.files.run_dir)) if paths else None),
        ("command", h("code", " ".join(document.get("command", ()))) if paths else None),
    ]
    told = [joined(h("dt", name), h("dd", fact)) for name, fact in facts if fact not in (None, "")]
    return section(
        "How it was run",
        h("dl", *told, class_="details"),
        _inputs(document.get("inputs", []), paths),
    )


def _device(device: Mapping[str, Any]) -> str:
    threads = device.get("threads") and several(device["threads"], "thread")
    return ", ".join(
        str(fact) for fact in (device.get("name"), device.get("precision"), threads) if fact
    )


def _inputs(inputs: Sequence[dict[str, Any]], paths: bool) -> Html | None:
    if not inputs:
        return None
    head = columns("sample", *(("file",) if paths else ()), "records", "size", "sha256")
    rows = [
        row(
            i["sample"],
            h("td", h("code", i["path"]), class_="text") if paths else None,
            h("td", f"{i['records']:,}"),
            h("td", size(i["bytes"], "B")),
            h("td", h("code", i["sha256"] or "the end was not reached"), class_="text"),
        )
        for i in inputs[:MOST_SAMPLES]
    ]
    more = more_of(len(inputs) - len(rows), "more input", "run.json")
    return joined(table(head, rows, "plain inputs"), more)
