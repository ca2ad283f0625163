"""The path: contigs -> blocks -> scores -> journal, iterators all the way."""

from collections.abc import Iterable, Iterator, Sequence

from virnucpro.blocks import blocks_of
from virnucpro.classifiers.genetic_code import code_of
from virnucpro.errors import StreamBroken
from virnucpro.frames import STANDARD
from virnucpro.reads import Contig, Source
from virnucpro.reads.files import Reading
from virnucpro.run.journal import Journal, Watcher
from virnucpro.run.runners import Runner


def compute(
    contigs: Iterable[Contig],
    broken: Sequence[StreamBroken],
    runner: Runner,
    journal: Journal,
    sizes: tuple[int, ...],
    watcher: Watcher,
) -> None:
    """Score every block that no earlier process has finished. Memory does not grow with the input.

    broken: inputs that broke off while contigs were read. sizes: of a chunk, a block and the first
    block, as blocks.blocks_of takes them.
    """

    blocks = journal.unfinished(blocks_of(contigs, *sizes), broken, watcher)
    runner.under_way = watcher.within
    for scored in runner.run(blocks):  # in any order
        journal.commit(scored)  # whole or not at all
        watcher.advance(scored, new=True)


def contigs_of(sources: Sequence[Source], broken: list[StreamBroken]) -> Iterator[Contig]:
    """Yield the contigs of all inputs in order.

    A stream that breaks ends its own input, not the run: what it delivered stays, the error is
    appended to broken, and the next input follows.
    """
    for source in sources:
        try:
            yield from source.contigs()
        except StreamBroken as error:
            broken.append(error)


def coded(contigs: Iterator[Contig], choice: str) -> Iterator[Contig]:
    """Say of each contig by which genetic code its frames are read. choice: of Scoring."""
    if choice == str(STANDARD):
        return contigs
    return (contig._replace(code=code_of(contig.sequence, choice)) for contig in contigs)


def limited(contigs: Iterator[Contig], reading: Reading) -> Iterator[Contig]:
    """Mark contigs longer than reading.max_length as faulty, shorter than min_length as short."""
    least_nt, most_nt = reading.min_length, reading.max_length
    if least_nt is None and most_nt is None:
        return contigs
    return _marked(contigs, least_nt, most_nt)


def _marked(
    contigs: Iterator[Contig], least_nt: int | None, most_nt: int | None
) -> Iterator[Contig]:
    for contig in contigs:
        if least_nt is not None and 0 < len(contig.sequence) < least_nt:
            contig = contig._replace(short=True)
        if most_nt is not None and len(contig.sequence) > most_nt:
            contig = contig.refused(
                f"it has {contig.length_nt:,} nt, more than the {most_nt:,} of --max-length"
            )
        yield contig
