"""A run in plain words, and a paragraph for a methods section."""

from collections.abc import Mapping, Sequence
from itertools import pairwise, takewhile
from typing import Any

from virnucpro import __version__
from virnucpro.bundle.card import Accuracy, Rates
from virnucpro.progress import several
from virnucpro.report.citation import article_reference, program_reference
from virnucpro.report.quantities import rounded_percent
from virnucpro.report.runs import Run

# Chunks shorter than this share of a length are short for it.
SHORT = 0.8
_METHODS = {
    "frames": "the open reading frames of each chunk were embedded with DNABERT-S and ESM-2, and a "
    "two-layer perceptron scored each frame",
    "chunks": "a convolutional and attention network over the codons of all six frames scored each "
    "chunk",
    "kmer": "a logistic regression on k-mer counts scored each chunk",
}
_KMERS = ", and protein k-mers that it shares with the training data were added to the score"


def numbered(runs: Sequence[Run], paths: bool) -> list[str]:
    """Return the names of several runs with their numbers.

    paths: whether runs of one name are told apart by what differs in their folders and prefixes.
    """
    places = [(run.name, *run.files.run_dir.resolve().parts, run.files.prefix) for run in runs]
    names = []
    for i, place in enumerate(places, 1):
        name = f"{i}. {place[0]}"
        alike = [other for other in places if other[0] == place[0]]
        steps = (len({*step}) == 1 for step in zip(*alike, strict=False))
        own = "/".join(filter(None, place[len([*takewhile(bool, steps)]) :]))
        names.append(f"{name} ({own})" if own and paths else name)
    return names


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
    """Return the rates measured nearest to what this run is made of; None if unmeasured."""
    accuracy = Accuracy.of(run.bundle)
    return None if accuracy is None else accuracy.at(run.chunk_threshold, typical_nt(run))


def rates_of_records(run: Run) -> list[Rates]:
    """Return what whole records of the lengths of this run were measured at, the shortest first.

    Nothing where the run asked for another threshold than was measured, or for a rate of mistakes.
    """
    threshold = run.bundle.get("record_threshold")
    if run.worth.get("fdr") is not None or run.threshold != threshold or threshold is None:
        return []
    return [
        Rates(row["from_nt"], threshold, row["recall"], row["false_positive_rate"])
        for row in run.bundle.get("of_records", ())
        if row["from_nt"] in run.by_length and run.by_length[row["from_nt"]]["records"]
    ]


def unlike(run: Run, rates: Rates) -> bool:
    """Return whether most chunks of a run are much shorter than the chunks of these rates."""
    typical = typical_nt(run)
    return typical is not None and typical < SHORT * rates.length_nt


def model(bundle: Mapping[str, Any]) -> str:
    """Return how a bundle relates to the published model."""
    if "provenance" not in bundle:
        return "perhaps the published VirNucPro model"
    same = bundle.get("provenance") == "published"
    return f"{'' if same else 'not '}the published VirNucPro model"


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
        f"Sequences were cut into overlapping chunks of {unit}; {_METHODS[bundle['kind']]}"
        f"{_KMERS if bundle.get('protein_kmers') else ''}. "
        f"{_of_sequences(run)}",
    ]
    if counts["records"]:
        sentences.append(
            f"Of {several(counts['records'], 'sequence')} ({counts['bases']:,} nt), "
            f"{counts['virus']:,} {'was' if counts['virus'] == 1 else 'were'} called viral"
        )
    of_pairs = document.get("counts") or {}
    if pairs := of_pairs.get("pairs", 0):
        virus = of_pairs.get("virus_pairs", 0)
        sentences.append(
            f"Of {several(pairs, 'pair')} of reads, each also called as one by the chunks of both "
            f"mates, {virus:,} {'was' if virus == 1 else 'were'} called viral"
        )
    if measured := _measured(run):
        sentences.append(measured)
    return ". ".join(sentences) + "."


def _measured(run: Run) -> str:
    """Return a sentence on how good such calls are; empty where nothing was measured of them."""
    of_records, rates = rates_of_records(run), rates_of(run)
    if of_records:
        begins = sorted(int(row["from_nt"]) for row in run.bundle["of_records"])
        ends = dict(pairwise(begins))
        (first, *more) = (
            (
                _span(int(row.length_nt), ends.get(int(row.length_nt))),
                rounded_percent(row.recall),
                rounded_percent(row.false_positive_rate),
            )
            for row in of_records
        )
        return (
            "Of windows of validation sequences, each called as a whole at a score of "
            f"{of_records[0].threshold:g}, this bundle calls viral: {first[0]}, {first[1]} of the "
            f"viral ones and {first[2]} of the others"
        ) + "".join(f"; {span}, {found} and {wrong}" for span, found, wrong in more)
    if rates is None:
        return ""
    measured = (
        f"On validation fragments of {rates.length_nt:,} nt, each a single chunk, "
        f"this bundle finds {rounded_percent(rates.recall)} of the viral ones at a threshold of "
        f"{rates.threshold:g} and calls "
        f"{rounded_percent(rates.false_positive_rate)} of the others viral"
    )
    if run.worth:
        measured += (
            "; these rates are of single chunks at the threshold of chunks, not of the calls of "
            "sequences"
        )
    return measured


def _span(from_nt: int, to_nt: int | None) -> str:
    if to_nt is None:
        return f"from {from_nt:,} nt on"
    return f"from {from_nt:,} to {to_nt:,} nt" if from_nt else f"below {to_nt:,} nt"


def _of_sequences(run: Run) -> str:
    """Return a sentence on how sequences were scored and called."""
    worth = run.worth
    if not worth:
        return (
            "A sequence's score is the mean over its chunks, weighted by the bases that each adds, "
            f"and it was called viral at a score of {run.threshold:g} or more"
        )
    scored = (
        "The log-odds of a sequence's chunks were combined by a calibrated rule that depends on "
        "their number"
    )
    if worth["fdr"] is not None:
        return (
            f"{scored}, and it was called viral at a false discovery rate of {worth['fdr']:g} by "
            f"conformal p-values against {worth['negatives']:,} sequences that are not viral"
        )
    return f"{scored}, and it was called viral at a calibrated score of {run.threshold:g} or more"


def references() -> str:
    """Return the references of the paragraph."""
    return f"{program_reference()}\n{article_reference()}\n"
