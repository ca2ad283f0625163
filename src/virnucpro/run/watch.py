"""A run as it is watched: counts, telemetry and progress while its blocks are finished."""

from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from time import monotonic

from virnucpro.blocks import Block, Scored, Telemetry
from virnucpro.calls import is_called
from virnucpro.progress import Position
from virnucpro.reads import Source
from virnucpro.reads.contig import Contig
from virnucpro.run.log import RunLog, rates, smaller_batches

# No more often than this within a block.
SHOWN_EVERY_S = 0.5


@dataclass(slots=True)
class Watch:
    """A journal.Watcher that counts, logs, and passes on how far the run is.

    letters_a_byte: of each source, about. unbounded: whether nobody knows how much will come.
    records: what they are called in the progress. stage: the same for programs. kept_blocks: those
    that an earlier process finished. telemetry: of loading and of all blocks that were scored.
    """

    log: RunLog
    chunk_nt: int
    sources: Sequence[Source]
    letters_a_byte: Sequence[float]
    unbounded: bool
    records: str = "records"
    stage: str = "sample"
    kept_blocks: int = 0
    telemetry: Telemetry = field(default_factory=Telemetry)
    read_chunks: int = 0
    scored: Counter[str] = field(default_factory=Counter)
    _most: tuple[float, int, int] = (0.0, 0, 0)
    _shown_at: float = 0.0

    def begin_again(self, sources: Sequence[Source]) -> None:
        """Count from the start, of the same inputs opened anew."""
        self.sources, self.read_chunks = sources, 0
        self.scored.clear()
        self._most = 0.0, 0, 0

    def observe(self, telemetry: Telemetry) -> None:
        """Take telemetry, and warn where batches became smaller."""
        before, self.telemetry = self.telemetry, self.telemetry + telemetry
        for line in (*telemetry.notes, *smaller_batches(before.batches, self.telemetry.batches)):
            self.log.line(line)

    def counted(self, contigs: Iterator[Contig]) -> Iterator[Contig]:
        """Yield contigs, and count their chunks as read."""
        for contig in contigs:
            letters = 0 if contig.short else len(contig.sequence)
            self.read_chunks += -(-letters // self.chunk_nt)
            yield contig

    def line(self, text: str) -> None:
        """Take a line of the log."""
        self.log.line(text)

    def skip(self, block: Block) -> None:
        """Take a block of another part."""
        self.scored["skipped chunks"] += len(block.rows)
        self.show()

    def advance(self, scored: Scored, *, new: bool) -> None:
        """Take a finished block."""
        if new:
            self.observe(scored.telemetry)
        self.scored["records"] += len(scored.records.begun)
        self.scored["chunks"] += len(scored.rows)
        self.scored["called chunks"] += int(is_called(scored.scores.status).sum())
        self.scored["new chunks"] += len(scored.rows) if new else 0
        self.show()

    def within(self, chunks: float) -> None:
        """Take how many chunks of blocks that are not finished are scored."""
        if monotonic() - self._shown_at >= SHOWN_EVERY_S:
            self.show(chunks)

    def show(self, under_way: float | None = None) -> None:
        """Pass on the share of the input's bytes whose chunks are scored.

        under_way: chunks of blocks that are not finished; None where a block has just ended.
        """
        self._shown_at, scored, more = monotonic(), self.scored, under_way or 0.0
        densities = zip(self.sources, self.letters_a_byte, strict=True)
        read = sum(source.bytes_used(letters) for source, letters in densities)
        behind = scored["chunks"] + scored["skipped chunks"] + more
        share = behind / self.read_chunks if self.read_chunks else 1.0
        total = sum(source.size_bytes for source in self.sources)
        now = read * share, scored["new chunks"] + int(more), scored["chunks"] + int(more)
        # What is under way is an estimate, and so is what was read of a file: neither goes back.
        self._most = done, count, chunks = (
            max(self._most[0], now[0]),
            max(self._most[1], now[1]),
            max(self._most[2], now[2]),
        )
        self.log.advance(
            Position(
                done=done,
                total=None if self.unbounded else total,
                note=f"{scored['records']:,} {self.records}, {chunks:,} chunks"
                f"{rates(self.telemetry.shares)}",
                count=count,
                unit="chunks",
                whole=under_way is None,
                numbers={
                    "stage": self.stage,
                    "records": scored["records"],
                    "chunks": chunks,
                    "reused_chunks": scored["chunks"] - scored["new chunks"],
                    "kept_blocks": self.kept_blocks,
                },
            )
        )
