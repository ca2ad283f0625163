"""virnucpro evaluate."""

from pathlib import Path
from typing import TYPE_CHECKING

import rich_click as click

from virnucpro.cli.completion import bundle_names
from virnucpro.cli.json_file import check_json_file
from virnucpro.cli.labelled import OPTIONS, labelled_options, read_labelled, scoring_options
from virnucpro.cli.terminal import Paper, Screen, tables_in_parts
from virnucpro.cli.values import FILE, NAME, THRESHOLD
from virnucpro.progress import WARNING, Position, several

if TYPE_CHECKING:
    from virnucpro.measure.accuracy import Evaluation

# Fewer say little of a false-positive rate of a few per cent.
FEW = 100


@click.command()
@click.argument("bundle", type=NAME, shell_complete=bundle_names)
@click.option_panel("Labelled sequences", options=[*OPTIONS, "--novelty"])
@click.option_panel("Classifier", options=["--threshold", "--precision", "--threads"])
@click.option_panel("Output", options=["--json", "--into", "--quiet", "--no-progress"])
@labelled_options
@click.option(
    "--novelty",
    type=FILE,
    help="A table with columns id and novelty: how near each viral record is to what the bundle "
    "was trained on (unseen, distant, related, close, known). Adds the accuracy by novelty.",
)
@click.option("--threshold", type=THRESHOLD, help="Default: the bundle's.")
@scoring_options
@click.option(
    "--json",
    "json_path",
    type=FILE,
    help="Also write everything as JSON.",
)
@click.option(
    "--into",
    type=FILE,
    metavar="DIR",
    help="Write what was measured into the card of the bundle in this directory, which must be the "
    "one that is measured and your own; `bundles show`, reports and run.json tell it then.",
)
@click.option("-q", "--quiet", is_flag=True, help="Print the tables only.")
@click.option("--no-progress", is_flag=True, help="Print no progress.")
def evaluate(
    bundle: str,
    fasta: tuple[Path, ...],
    labels: tuple[Path, ...],
    positive: tuple[Path, ...],
    negative: tuple[Path, ...],
    novelty: Path | None,
    threshold: float | None,
    precision: str,
    threads: int | None,
    json_path: Path | None,
    into: Path | None,
    quiet: bool,
    no_progress: bool,
) -> None:
    """Measure a bundle on sequences that are known to be viral or not.

    Gives AUROC, AUPRC, accuracy, precision, recall, F1, and recall at 1 % and 0.1 % false
    positives, by chunk and by contig, overall and by group, level, source and novelty where these
    are known. Sequences without a score rank lowest. A warning is printed if the bundle was trained
    on such sequences, if some are on both sides, or if the AUROC is below 0.5.

    \b
    virnucpro evaluate mini-500 --positive viral.fasta --negative host.fasta
    virnucpro evaluate my-bundle --fasta all.fasta --labels labels.tsv
    """
    from virnucpro.bundle import load
    from virnucpro.devices.machine import use_threads
    from virnucpro.measure.accuracy import evaluate as measure
    from virnucpro.measure.card import check_own, keep_card
    from virnucpro.measure.doubts import doubts
    from virnucpro.measure.labels import with_novelty
    from virnucpro.storage.atomic import write_json

    if json_path is not None:
        check_json_file(json_path)
    found = load(bundle)
    if into is not None:
        check_own(found, into)
    with Screen(quiet=quiet, bar=not no_progress) as screen:
        contigs = read_labelled(fasta, labels, positive, negative, screen, warns=False).contigs
        if novelty is not None:
            contigs = with_novelty(contigs, novelty)
        total, done = sum(len(contig.sequence) for contig in contigs), 0
        if found.kind != "kmer":
            use_threads(threads)
        classifier = found.classifier(precision=precision)
        cut = found.threshold if threshold is None else threshold
        screen.line(
            f"bundle {found.name} (sha256 {found.sha256}), {classifier.precision}, virus at "
            f"p_virus >= {cut:g}"
            + (
                f", of contigs {found.record_threshold:g} (calibrated)"
                if threshold is None and found.record_threshold != cut
                else ""
            )
        )

        def advance(bases: int) -> None:
            nonlocal done
            done += bases
            screen.advance(Position(min(done, total), total, f"{done:,} nt scored"))

        evaluation = measure(
            classifier,
            contigs,
            chunk_nt=found.chunk_nt,
            threshold=cut,
            progress=advance,
            calibration=found.calibration,
            contig_threshold=found.record_threshold if threshold is None else threshold,
        )
        warnings = list(doubts(found, contigs, evaluation))
        for sentence in warnings:
            screen.line(f"{WARNING}{sentence}")
    _print(evaluation)
    if json_path is not None:
        document = {"bundle_sha256": found.sha256, "precision": classifier.precision}
        write_json(json_path, document | evaluation.as_dict() | {"warnings": warnings})
    if into is not None:
        files = [path.name for path in (*fasta, *positive, *negative)]
        changed = keep_card(found, evaluation, classifier.precision, files, warnings)
        click.echo(f"{into}: the card is written; its sha256 is now {changed.sha256}", err=True)


def _print(evaluation: "Evaluation") -> None:
    paper = Paper()
    for rank in ("contig", "chunk"):
        header, rows = evaluation.table(rank)
        parts = tables_in_parts(header, rows, paper.width, title=f"by {rank}", repeated=2)
        paper.print(*parts)
    others, rate = evaluation.contig[0].others, evaluation.contig[0].false_positive_rate
    for share, precision in evaluation.expected_precision:
        value = "not known" if precision is None else f"{100 * precision:.1f} %"
        if rate == 0:
            value = f"not known, as none of {others} others was called virus"
        paper.print(
            f"expected precision of calls of contigs where {100 * share:g} % are viral: {value}"
        )
    if others < FEW:
        paper.print(
            f"only {several(others, 'contig')} of others {'was' if others == 1 else 'were'} "
            "measured, so that how many are called virus by mistake, and the precision, are hardly "
            "known"
            if others
            else "no contigs of others were measured, so that there is no AUROC, and nothing is "
            "known of calls by mistake; add sequences of label 0"
        )
