"""The path: contigs -> blocks -> scores -> journal, iterators all the way."""

from collections.abc import Iterable, Iterator, Sequence

from virnucpro.batches import blocks_of
from virnucpro.errors import StreamBroken
from virnucpro.journal import Journal, Onlooker
from virnucpro.reads import Contig, Source
from virnucpro.runners import Runner


def classify(
    contigs: Iterable[Contig],
    runner: Runner,
    journal: Journal,
    sizes: tuple[int, ...],
    onlooker: Onlooker,
) -> None:
    """Scores contigs and keeps every finished block in the journal.

    sizes: of a chunk, a block, and the first block, as batches.blocks_of takes them.
    """
    blocks = journal.unfinished(blocks_of(contigs, *sizes), onlooker)
    for scored in runner.run(blocks):
        journal.commit(scored)
        onlooker.seen(scored, new=True)


def contigs_of(sources: Sequence[Source], broken: list[StreamBroken]) -> Iterator[Contig]:
    """The contigs of all inputs in order.

    A stream that breaks ends its own input, not the run: what it delivered stays, the error is
    appended to broken, and the next input follows.
    """
    for source in sources:
        try:
            yield from source.contigs()
        except StreamBroken as error:
            broken.append(error)


def limited(
    contigs: Iterable[Contig], least_nt: int | None, most_nt: int | None
) -> Iterator[Contig]:
    """Contigs, of which those longer than most_nt are faulty, those under least_nt short."""
    for contig in contigs:
        if least_nt is not None and 0 < len(contig.sequence) < least_nt:
            contig = contig._replace(short=True)
        if most_nt is not None and len(contig.sequence) > most_nt:
            contig = contig.refused(
                f"it has {contig.length_nt:,} nt, more than the {most_nt:,} of --max-length"
            )
        yield contig
