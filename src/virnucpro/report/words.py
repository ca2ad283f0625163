"""A run in plain words: what to beware of, and a paragraph for a methods section."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from virnucpro import __version__
from virnucpro.citation import article_reference, program_reference
from virnucpro.report.card import Accuracy, Rates
from virnucpro.report.quantities import percent, rounded_percent, several
from virnucpro.report.runs import Run

# Chunks shorter than this share of the bundle's length are short for it.
_SHORT = 0.8
_SOME = 0.1
_METHODS = {
    "frames": "the open reading frames of each chunk were embedded with DNABERT-S and ESM-2, and a "
    "two-layer perceptron scored each frame",
    "chunks": "a convolutional and attention network over the codons of all six frames scored each "
    "chunk",
    "kmer": "a logistic regression on k-mer counts scored each chunk",
}


@dataclass(frozen=True, slots=True)
class Note:
    """Something to know before the results are used; grave: they may be wrong or not there."""

    title: str
    text: str
    grave: bool = False


def typical_nt(run: Run) -> int | None:
    """The length of the median chunk; None where calls.tsv is missing or empty."""
    half = run.lengths_nt.total() / 2
    seen = 0
    for length_nt in sorted(run.lengths_nt):
        seen += run.lengths_nt[length_nt]
        if seen >= half:
            return length_nt
    return None


def rates_of(run: Run) -> Rates | None:
    """What was measured nearest to what this run is made of."""
    accuracy = Accuracy.of(run.bundle)
    return None if accuracy is None else accuracy.at(run.threshold, typical_nt(run))


def notes(run: Run, *, paths: bool = True) -> list[Note]:
    """Everything to beware of in a run, the gravest first. paths: whether any may be told."""
    found = [*_ending(run, paths), *_files(run), *_counts(run)]
    finished = run.status not in _PAST
    if run.counts["records"] == 0 and run.files.contigs.exists() and finished:
        empty = Note("The input is empty.", "There was no record in it, so there is no result.")
        return [*found, empty]
    return [*found, *_calls(run), *_chunks(run)]


def _ending(run: Run, paths: bool) -> list[Note]:
    status, error = run.status, run.document.get("error") or ""
    if not paths and ("/" in error or "\\" in error):
        error = "What ended it is in run.json."
    kept = "The tables hold what was read before that."
    if status in ("failed", "interrupted"):
        held = kept if run.files.contigs.exists() else "It left no tables."
        sentence = f"{error[:1].upper()}{error[1:]}" if error else ""
        return [Note(f"This run {_PAST[status]}.", f"{_ended(sentence)} {held}".strip(), True)]
    return []


_PAST = {"failed": "failed", "interrupted": "was interrupted"}


def _ended(sentence: str) -> str:
    return sentence if not sentence or sentence.endswith(".") else f"{sentence}."


def _files(run: Run) -> list[Note]:
    found = []
    if run.missing and run.status not in ("failed", "interrupted"):
        verb, pronoun = ("is", "it") if len(run.missing) == 1 else ("are", "they")
        left_out = f"What {pronoun} would show is left out of this page."
        found.append(Note(f"{', '.join(run.missing)} {verb} missing.", left_out, True))
    found += [Note("A file does not fit the others.", f"{note}.", True) for note in run.notes]
    return found


def _counts(run: Run) -> list[Note]:
    stated: Mapping[str, Any] = run.document.get("counts") or {}
    counted = run.counts
    if not stated or not run.files.contigs.exists():
        return []
    for name in ("records", "virus", "others", "none", "failed", "bases", "chunks"):
        if stated.get(name, counted[name]) != counted[name]:
            return [
                Note(
                    f"{run.files.contigs.name} does not belong to {run.files.run_json.name}.",
                    f"One counts {counted[name]:,} ({name}), the other {stated[name]:,}. "
                    "This page shows the table.",
                    True,
                )
            ]
    return []


def _calls(run: Run) -> list[Note]:
    bundle = run.bundle
    found = []
    if bundle and (words := _PROVENANCE[bundle.get("provenance")]):
        found.append(Note(f"This is {model(bundle)}.", words))
    rates, share = rates_of(run), _called_share(run)
    if rates is not None and share is not None and share <= rates.false_positive_rate:
        found.append(
            Note(
                "The calls may all be mistakes.",
                f"{percent(share)} of the chunks were called virus. On sequences that are not "
                f"viral, this bundle was measured to call "
                f"{rounded_percent(rates.false_positive_rate)} virus.",
            )
        )
    usual = bundle.get("threshold")
    if usual is not None and run.threshold not in (None, usual):
        found.append(
            Note(
                f"The threshold was set to {run.threshold:g}.",
                f"The bundle's own is {usual:g}."
                + ("" if rates else " Its card has no measurement at this one."),
            )
        )
    if run.low:
        found.append(
            Note(
                f"{run.low:,} of {several(run.low_seen, 'record')} called virus "
                f"{'is' if run.low == 1 else 'are'} mostly repeats of few letters.",
                "Low-complexity sequence is often miscalled; look at these first.",
            )
        )
    failed = run.counts["failed"]
    if failed:
        found.append(
            Note(
                f"{several(failed, 'record')} could not be processed.",
                f"{run.files.failed.name} lists them with the reasons.",
                True,
            )
        )
    return found


# What follows from whose weights a bundle holds.
_PROVENANCE = {
    None: "An earlier version made this run and did not write down whose weights these are.",
    "published": "",
    "published_head": "Its head is the published one, but not on the encoders that it was "
    "published with. Cuts that pipelines make on its scores may not apply.",
    "other": "Cuts that pipelines make on scores of the published model do not apply.",
}


def model(bundle: Mapping[str, Any]) -> str:
    """What a bundle is, next to the published model."""
    if "provenance" not in bundle:
        return "perhaps the published VirNucPro model"
    same = bundle.get("provenance") == "published"
    return f"{'' if same else 'not '}the published VirNucPro model"


def _called_share(run: Run) -> float | None:
    """Share of the called chunks that were called virus."""
    called = run.chunks["virus"] + run.chunks["others"]
    return run.chunks["virus"] / called if called else None


def _chunks(run: Run) -> list[Note]:
    found = []
    chunks = run.lengths_nt.total()
    bundle = run.bundle
    typical, chunk_nt = typical_nt(run), bundle.get("chunk_nt")
    if typical is not None and chunk_nt and typical < _SHORT * chunk_nt:
        rates = rates_of(run)
        measured = ""
        if rates is not None and rates.length_nt < chunk_nt:
            measured = (
                f" On fragments of {rates.length_nt:,} nt it finds "
                f"{rounded_percent(rates.recall)} of the viral ones and calls "
                f"{rounded_percent(rates.false_positive_rate)} of the others virus."
            )
        found.append(
            Note(
                "The sequences are short.",
                f"Half of the chunks have {typical:,} nt or less; the bundle was made for chunks "
                f"of {chunk_nt:,} nt.{measured}",
            )
        )
    below = run.chunks["status below_validated_length"]
    if below:
        found.append(
            Note(
                f"{several(below, 'chunk')} {'is' if below == 1 else 'are'} shorter than anything "
                "that was measured.",
                f"Below {bundle.get('validated_nt', '?')} nt nobody knows how good the calls are.",
            )
        )
    none = run.chunks["none"]
    if chunks and none / chunks > _SOME:
        reasons = ", ".join(
            f"{run.chunks[f'status {status}']:,} {reason}"
            for status, reason in NOT_CALLED.items()
            if run.chunks[f"status {status}"]
        )
        found.append(
            Note(f"{percent(none / chunks)} of the chunks have no call.", f"Of these, {reasons}.")
        )
    return found


NOT_CALLED = {
    "no_open_frame": "no open frame",
    "too_short": "too short",
    "ambiguous": "unknown letters",
    "failed": "failed",
    "empty": "empty",
}


def methods(run: Run | None = None) -> str:
    """A paragraph for a methods section; without a run, of the program alone."""
    document = {} if run is None else run.document
    version = (document.get("versions") or {}).get("virnucpro", __version__)
    opening = (
        f"Sequences were classified as viral or other with virnucpro {version}, an independent "
        "implementation of the VirNucPro method (Li et al. 2025)"
    )
    bundle = document.get("bundle")
    if run is None or not bundle:
        return f"{opening}."
    unit = f"{bundle['chunk_nt']:,} nt"
    counts = run.counts
    sentences = [
        f"{opening} and its bundle {bundle['name']} (sha256 {bundle['sha256']}), "
        f"which is {model(bundle)}",
        f"Sequences were cut into overlapping chunks of {unit}; {_METHODS[bundle['kind']]}. A "
        f"sequence's score is the mean over its chunks, weighted by the bases that each adds, and "
        f"it was called viral at a score of {run.threshold:g} or more",
    ]
    if counts["records"]:
        sentences.append(
            f"Of {several(counts['records'], 'sequence')} ({counts['bases']:,} nt), "
            f"{counts['virus']:,} were called viral"
        )
    accuracy, rates = Accuracy.of(bundle), rates_of(run)
    if accuracy is not None and rates is not None:
        sentences.append(
            f"On validation fragments of {rates.length_nt:,} nt this bundle finds "
            f"{rounded_percent(rates.recall)} of the viral ones at this threshold and calls "
            f"{rounded_percent(rates.false_positive_rate)} of the others viral"
        )
    return ". ".join(sentences) + "."


def references() -> str:
    """What the paragraph refers to."""
    return f"{program_reference()}\n{article_reference()}\n"
