"""The warnings about a run, in plain words."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace

from virnucpro.progress import several
from virnucpro.report.quantities import of_hundred, percent, rounded_percent
from virnucpro.report.runs import Run
from virnucpro.report.words import (
    NOT_CALLED,
    SHORT,
    model,
    numbered,
    rates_of,
    rates_of_records,
    typical_nt,
)

_SOME = 0.1
# Shorter ones are reads of which any bundle tells little.
READS_NT = 200
_BROKEN_OFF = {"failed": "failed", "interrupted": "was interrupted"}
# What follows from whose weights a bundle holds.
_PROVENANCE = {
    None: "An earlier version made this run and did not write down whose weights these are.",
    "published": "",
    "published_head": "Its head is the published one, but not on the encoders that it was "
    "published with. Thresholds that pipelines use for it may not apply.",
    "other": "Thresholds that pipelines use for the published model do not apply.",
}


@dataclass(frozen=True, slots=True)
class Note:
    """Something to know before the results are used; grave: they may be wrong or not there."""

    title: str
    text: str
    grave: bool = False


def notes(run: Run, *, paths: bool = True) -> list[Note]:
    """Everything to beware of in a run, the gravest first. paths: whether any may be told."""
    found = [*_ending(run, paths), *_files(run), *_counts(run)]
    finished = run.status not in _BROKEN_OFF
    if run.counts["records"] == 0 and run.files.contigs.exists() and finished:
        empty = Note("The input is empty.", "There was no record in it, so there is no result.")
        return [*found, empty]
    return [*found, *_calls(run), *_chunks(run)]


def grave_notes(runs: Sequence[Run], paths: bool) -> list[Note]:
    """The grave notes of several runs, each with the number and name of its run."""
    return [
        replace(note, title=f"{name}: {note.title}")
        for name, run in zip(numbered(runs, paths), runs, strict=True)
        for note in notes(run, paths=paths)
        if note.grave
    ]


def _ending(run: Run, paths: bool) -> Iterator[Note]:
    if run.status not in _BROKEN_OFF:
        return
    error = run.document.get("error") or ""
    if not paths and ("/" in error or "\\" in error):
        error = "The reason is in run.json."
    kept = "The tables hold what was read before that."
    held = kept if run.files.contigs.exists() else "It left no tables."
    sentence = error  # which may begin with the name of a file
    if sentence and not sentence.endswith("."):
        sentence += "."
    yield Note(f"This run {_BROKEN_OFF[run.status]}.", f"{sentence} {held}".strip(), True)


def _files(run: Run) -> Iterator[Note]:
    if run.missing and run.status not in _BROKEN_OFF:
        verb, pronoun = ("is", "it") if len(run.missing) == 1 else ("are", "they")
        left_out = f"What {pronoun} would show is left out of this page."
        yield Note(f"{', '.join(run.missing)} {verb} missing.", left_out, True)
    for note in run.notes:
        yield Note("A file does not fit the others.", f"{note}.", True)


def _counts(run: Run) -> Iterator[Note]:
    stated, counted = run.document.get("counts"), run.counts
    if not stated or not run.files.contigs.exists():
        return
    of_records = ("records", "virus", "others", "none", "failed", "bases", "chunks")
    found = [(run.files.contigs, name, counted[name]) for name in of_records]
    if run.files.pairs.exists():
        pairs = {"pairs": run.pairs.calls.total(), "virus_pairs": run.pairs.calls["virus"]}
        found += [(run.files.pairs, name, number) for name, number in pairs.items()]
    for path, name, number in found:
        if stated.get(name, number) != number:
            yield Note(
                f"{path.name} does not belong to {run.files.run_json.name}.",
                f"One counts {number:,} ({name}), the other {stated[name]:,}. "
                "This page shows the table.",
                True,
            )
            return


def _calls(run: Run) -> Iterator[Note]:
    bundle, rates = run.bundle, rates_of(run)
    if bundle and (words := _PROVENANCE[bundle.get("provenance")]):
        yield Note(f"This is {model(bundle)}.", words)
    called = run.chunks["virus"] + run.chunks["others"]
    share = run.chunks["virus"] / called if called else None
    if rates is not None and share is not None and share <= rates.false_positive_rate:
        yield Note(
            "The calls may all be mistakes.",
            f"{percent(share)} of the chunks were called virus. On sequences that are not "
            f"viral, this bundle was measured to call "
            f"{rounded_percent(rates.false_positive_rate)} of the chunks virus.",
        )
    usual = bundle.get("record_threshold", bundle.get("threshold"))
    if run.worth.get("refusal"):
        why = run.worth["refusal"].partition(": ")[2]
        yield Note("Nothing is called.", f"{why[:1].upper()}{why[1:]}.")
    elif hint := run.worth.get("viral_negatives"):
        yield Note("The negatives seem to hold viruses.", f"{hint}.")
    if of_negatives := run.worth.get("negative_notes"):
        sentences = (f"{of[:1].upper()}{of[1:]}." for of in of_negatives)
        yield Note("The comparison with the negatives has gaps.", " ".join(sentences))
    if usual is not None and run.threshold not in (None, usual):
        unmeasured = "" if rates else " Its card has no measurement at this one."
        yield Note(
            f"The threshold was set to {run.threshold:g}.",
            f"The bundle's own is {usual:g}.{unmeasured}",
        )
    if run.low:
        yield Note(
            f"{run.low:,} of {several(run.low_seen, 'record')} called virus "
            f"{'is' if run.low == 1 else 'are'} mostly repeats of few letters.",
            "Low-complexity sequence is often miscalled; look at these first.",
        )
    if failed := run.counts["failed"]:
        yield Note(
            f"{several(failed, 'record')} could not be processed.",
            f"{run.files.failed.name} lists them with the reasons.",
            True,
        )


def _of_reads(run: Run, typical_nt: int) -> str:
    """Return a sentence on how few calls of reads are right; nothing for longer ones."""
    records, chunks = rates_of_records(run)[:1], rates_of(run)
    rates = records[0] if records else chunks
    if typical_nt >= READS_NT or rates is None:
        return ""
    few, some = (rates.precision(share) for share in (0.01, 0.1))
    return (
        f" Few calls of reads this short are right: at the threshold {rates.threshold:g}, of 100 "
        f"{'records' if records else 'chunks'} called virus, {of_hundred(few)} are viral where 1 % "
        "of the sample is, and "
        f"{of_hundred(some)} where 10 % is. Contigs assembled from them are told better."
    )


def _chunks(run: Run) -> Iterator[Note]:
    chunks, rates = run.lengths_nt.total(), rates_of(run)
    typical, chunk_nt = typical_nt(run), run.bundle.get("chunk_nt")
    if typical is not None and chunk_nt and typical < SHORT * chunk_nt:
        measured = ""
        if rates is not None and rates.length_nt < chunk_nt:
            measured = (
                f" As single chunks at the threshold {rates.threshold:g}, it finds "
                f"{rounded_percent(rates.recall)} of the viral fragments of "
                f"{rates.length_nt:,} nt and calls "
                f"{rounded_percent(rates.false_positive_rate)} of the others virus."
            )
        yield Note(
            "The sequences are short.",
            f"Half of the chunks have {typical:,} nt or less; the bundle was made for chunks "
            f"of {chunk_nt:,} nt.{measured}{_of_reads(run, typical)}",
        )
    if below := run.chunks["status below_validated_length"]:
        yield Note(
            f"{several(below, 'chunk')} {'is' if below == 1 else 'are'} shorter than anything "
            "that was measured.",
            f"Below {run.bundle.get('validated_nt', '?')} nt nobody knows how good the calls are.",
        )
    none = run.chunks["none"]
    if chunks and none / chunks > _SOME:
        numbers = {reason: run.chunks[f"status {status}"] for status, reason in NOT_CALLED.items()}
        reasons = ", ".join(f"{number:,} {reason}" for reason, number in numbers.items() if number)
        yield Note(f"{percent(none / chunks)} of the chunks have no call.", f"Of these, {reasons}.")
