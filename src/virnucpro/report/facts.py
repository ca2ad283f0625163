"""Facts of a run as the template shows them: its parts by call, and what it was made with."""

from collections.abc import Mapping, Sequence
from itertools import groupby
from typing import Any, NamedTuple

from virnucpro.bundle.card import Rates
from virnucpro.calls import Call
from virnucpro.progress import several
from virnucpro.report.pairs import AGREEMENTS, Agreement
from virnucpro.report.runs import Run
from virnucpro.report.tracks import Track
from virnucpro.report.words import NOT_CALLED
from virnucpro.results.expected_wrong import wrong_in_words

CALLS = {"virus": "virus", "others": "others", "none": "not called", "failed": "failed"}
_OF_PAIRS = ("virus", "others", "none")


class BarPart(NamedTuple):
    """A part of a whole; kind gives its colour."""

    kind: str
    name: str
    number: int


def record_parts(run: Run) -> list[BarPart]:
    """Records by their calls, those that failed apart."""
    counts = run.counts
    return [BarPart(kind, name, counts[kind]) for kind, name in CALLS.items()]


def called(run: Run) -> list[tuple[str, list[BarPart], int]]:
    """Records, chunks and pairs with their parts and number, of the tables that there are."""
    groups = []
    if run.files.contigs.exists():
        groups.append(("record", record_parts(run), run.counts["records"]))
    if run.files.calls.exists():
        groups.append(("chunk", _chunk_parts(run), run.lengths_nt.total()))
    if run.pairs.calls.total():
        parts = [BarPart(kind, CALLS[kind], run.pairs.calls[kind]) for kind in _OF_PAIRS]
        groups.append(("pair", parts, run.pairs.calls.total()))
    return groups


def by_agreement(run: Run) -> list[tuple[str, int, int]]:
    """Return the pairs by the calls of their mates: all of them, and those called virus."""
    found = run.pairs.agreements
    rows = [
        (name, sum(found[agreement, call] for call in Call), found[agreement, Call.VIRUS])
        for agreement, name in zip(Agreement, AGREEMENTS, strict=True)
    ]
    return [row for row in rows if row[1]]


def agreements_of_virus(run: Run) -> list[str]:
    """Return the names of those rows that have pairs called virus."""
    return [name for name, _, virus in by_agreement(run) if virus]


def _chunk_parts(run: Run) -> list[BarPart]:
    reasons = [
        BarPart("failed", "failed", run.chunks["status failed"])
        if status == "failed"
        else BarPart("none", f"not called: {reason}", run.chunks[f"status {status}"])
        for status, reason in NOT_CALLED.items()
    ]
    called = [BarPart(call, call, run.chunks[call]) for call in ("virus", "others")]
    return [*called, *[part for part in reasons if part.number]]


def raised_for_means(run: Run, rates: Rates) -> bool:
    """Return whether the threshold is raised for records whose score is a mean of chunks."""
    bundle = run.bundle
    means = not run.worth and run.longest_nt > bundle["chunk_nt"]
    return bool(means and rates.threshold > bundle["threshold"])


def cut(run: Run) -> str | None:
    """Return what decided the calls of records; None where run.json does not say."""
    if run.fdr is not None:
        return f"q_value <= {run.fdr:g}"
    return None if run.threshold is None else f"{run.threshold:g}"


def expected_wrong(run: Run) -> str | None:
    """Return how many records called virus are expected to be wrong; None if nobody knows."""
    worth = run.worth
    if not worth:
        return None
    if not worth["called"]:
        return "0"
    return wrong_in_words(worth["fewest_wrong"], worth["most_wrong"], worth["fdr"])


def by_reason(tracks: Sequence[Track]) -> list[tuple[str, list[tuple[int, Track]]]]:
    """Return the tracks with their numbers, by the reason why they are drawn."""
    numbered = groupby(enumerate(tracks), key=lambda item: item[1].reason)
    return [(reason, list(of_reason)) for reason, of_reason in numbered]


def differences(runs: Sequence[Run]) -> str:
    """Return how runs differ so that their calls cannot be compared; empty if they do not."""
    varied = {
        "bundles": {run.bundle.get("sha256") for run in runs},
        "thresholds": {cut(run) for run in runs},
    }
    return " and ".join(name for name, values in varied.items() if len(values) > 1)


def device(document: Mapping[str, Any]) -> str:
    """Return the device of run.json with its precision and threads."""
    of = document.get("device") or {}
    threads = of.get("threads") and several(of["threads"], "thread")
    return ", ".join(str(fact) for fact in (of.get("name"), of.get("precision"), threads) if fact)


def attention(document: Mapping[str, Any]) -> str:
    """Return the attention kernels of run.json by network."""
    kernels = document.get("attention") or {}
    return ", ".join(f"{network}: {kernel}" for network, kernel in kernels.items())


def versions(document: Mapping[str, Any]) -> str:
    """Return the versions in run.json."""
    return ", ".join(f"{name} {v}" for name, v in document["versions"].items() if v)
