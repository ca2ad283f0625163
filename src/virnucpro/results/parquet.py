"""calls.parquet, contigs.parquet and embeddings.parquet: typed columns, numbers in full.

Rows are gathered into row groups, so that memory does not grow with the input. pyarrow is loaded
only where it is asked for. This module knows no rule and no journal of blocks.
"""

import io
from collections.abc import Callable, Iterable, Mapping, Sequence
from importlib.util import find_spec
from typing import TYPE_CHECKING, Any, Self

import numpy as np
from numpy.typing import NDArray

from virnucpro.blocks import Scored
from virnucpro.calls import CALL_NAMES, FRAME_NAMES, FRAME_SETS, STATUS_NAMES, Embeddings, Scores
from virnucpro.classifiers.screen import NOTE_TEXTS
from virnucpro.errors import SettingsError
from virnucpro.reads import MATE_TEXTS
from virnucpro.records import Records
from virnucpro.results.contig_calls import Contigs
from virnucpro.results.judge import Judged
from virnucpro.storage.atomic import OutputFile

if TYPE_CHECKING:
    from _typeshed import ReadableBuffer

GROUP_ROWS = 100_000
EMBEDDING_ROWS = 2_000  # 13 kB each, with the published encoders

Columns = Mapping[str, Any]


def check_pyarrow(option: str) -> None:
    """Raises SettingsError if there is no pyarrow; option: what needs it."""
    if find_spec("pyarrow") is None:
        raise SettingsError(
            f"{option} needs pyarrow, which is not installed; "
            "`pip install 'virnucpro[parquet]'` adds it"
        )


class _Sink(io.RawIOBase):
    """An OutputFile as pyarrow writes to one; closing it leaves the file open.

    useless: whether nobody will read the file; pyarrow ends it all the same.
    """

    def __init__(self, file: OutputFile) -> None:
        self._file = file
        self._at = 0
        self.useless = False

    def writable(self) -> bool:
        return True

    def tell(self) -> int:
        return self._at

    def write(self, data: "ReadableBuffer", /) -> int:
        piece = bytes(data)
        if not self.useless:
            self._file.write(piece)
        self._at += len(piece)
        return len(piece)


class ParquetTable:
    """A table in the making; columns: name -> type of pyarrow, "coded", or a vector's width."""

    def __init__(self, file: OutputFile, columns: Mapping[str, str | int], group_rows: int) -> None:
        import pyarrow
        from pyarrow import parquet

        coded = pyarrow.dictionary(pyarrow.int8(), pyarrow.string())

        def type_of(kind: str | int) -> Any:  # noqa: ANN401
            if isinstance(kind, int):
                return pyarrow.list_(pyarrow.float32(), kind)
            return coded if kind == "coded" else getattr(pyarrow, kind)()

        types = {name: type_of(kind) for name, kind in columns.items()}
        texts = [name for name, kind in columns.items() if kind in ("string", "coded")]
        self._group_rows = group_rows
        self._schema = pyarrow.schema(list(types.items()))
        self._batch: Callable[..., Any] = pyarrow.record_batch
        self._array: Callable[..., Any] = pyarrow.array
        self._coded: Callable[..., Any] = pyarrow.DictionaryArray.from_arrays
        self._vectors: Callable[..., Any] = pyarrow.FixedSizeListArray.from_arrays
        self._table: Callable[..., Any] = pyarrow.Table.from_batches
        self._sink = _Sink(file)
        self._writer = parquet.ParquetWriter(
            self._sink, self._schema, compression="zstd", use_dictionary=texts
        )
        self._waiting: list[Any] = []
        self._rows = 0

    def add(self, columns: Columns) -> None:
        """More rows.

        Each column is a sequence, an array whose nan is no value, (codes, words) of a coded one, or
        an array of vectors.
        """
        arrays = [self._column(columns[part.name], part.type) for part in self._schema]
        self._waiting.append(self._batch(arrays, schema=self._schema))
        self._rows += self._waiting[-1].num_rows
        if self._rows >= self._group_rows:
            self._flush()

    def _column(self, values: Any, kind: Any) -> Any:  # noqa: ANN401
        if isinstance(values, tuple):
            codes, words = values
            return self._coded(self._array(codes.astype(np.int8)), self._array(words))
        if isinstance(values, np.ndarray) and values.ndim == 2:
            return self._vectors(self._array(values.ravel()), type=kind)
        return self._array(values, type=kind, from_pandas=True)

    def _flush(self) -> None:
        self._writer.write_table(self._table(self._waiting, self._schema), self._rows)
        self._waiting, self._rows = [], 0

    def close(self) -> None:
        """Writes what is left, and the end of the file."""
        if self._rows:
            self._flush()
        self._writer.close()

    def abandon(self) -> None:
        """Lets go of a file that is whole, or that nobody will read."""
        self._sink.useless = True
        self._writer.close()


CALLS_TYPES = {
    "sample": "string",
    "record": "int64",
    "contig": "string",
    "chunk": "int32",
    "start": "int64",
    "end": "int64",
    "frames": "string",
    "p_virus": "float64",
    "call": "coded",
    "status": "coded",
    "max_p_virus": "float32",
    "max_p_others": "float32",
}
# Only where one bundle looked before another.
SPEAKER_TYPES = {"bundle": "coded"}
# Only where a genetic code was told of each record.
CODE_TYPES = {"genetic_code": "int64"}
# Only where the input has mates.
MATE_TYPES = {"mate": "string"}
CONTIGS_TYPES = {
    "sample": "string",
    "record": "int64",
    "contig": "string",
    "length_nt": "int64",
    "chunks": "int64",
    "called": "int64",
    "virus_chunks": "int64",
    "p_virus": "float64",
    "max_p_virus": "float64",
    "call": "coded",
    "status": "coded",
    "log_odds": "float64",
    "probability": "float64",
    "q_value": "float64",
    "origin": "string",
    "note": "string",
}


def speaker_of(scores: Scores) -> NDArray[np.uint8]:
    """0 for each chunk that the bundle scored, 1 for each that one before it ended, (n,)."""
    if scores.prescreened is None:  # a block that was given up
        return np.zeros(len(scores), np.uint8)
    return scores.prescreened.astype(np.uint8)


def _texts(names: Iterable[str]) -> list[str]:
    """Letters that are no UTF-8, which text tables copy, cannot stand in Parquet."""
    return [
        name
        if name.isascii()
        else name.encode("utf-8", "surrogateescape").decode("utf-8", "replace")
        for name in names
    ]


class _Written:
    """Tables that are closed at the end of a with block, and let go of however it ends."""

    def __init__(self, *tables: ParquetTable) -> None:
        self._tables = tables

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: type[BaseException] | None, *_: object) -> None:
        try:
            if kind is None:
                for table in self._tables:
                    table.close()
        finally:
            for table in self._tables:
                table.abandon()


class ParquetTables(_Written):
    """Both tables of a run, block by block. For `with`."""

    def __init__(
        self,
        calls: OutputFile,
        contigs: OutputFile,
        speakers: tuple[str, str] | None = None,
        *,
        codes: bool = False,
        mates: bool = False,
    ) -> None:
        self._speakers = speakers
        last = SPEAKER_TYPES if speakers else {}
        self._calls = ParquetTable(calls, CALLS_TYPES | last, GROUP_ROWS)
        try:
            more = (CODE_TYPES if codes else {}) | (MATE_TYPES if mates else {})
            self._contigs = ParquetTable(contigs, CONTIGS_TYPES | more, GROUP_ROWS)
        except BaseException:
            self._calls.abandon()
            raise
        super().__init__(self._calls, self._contigs)

    def add_chunks(self, scored: Scored, calls: NDArray[np.uint8]) -> None:
        """The rows of calls.parquet of a block; calls: (n,)."""
        rows, scores, records = scored.rows, scored.scores, scored.records
        of = rows.record.tolist()
        self._calls.add(
            {
                "sample": _texts(records.sample[i] for i in of),
                "record": records.record[of],
                "contig": _texts(records.name[i] for i in of),
                "chunk": rows.number,
                "start": rows.start,
                "end": rows.end,
                "frames": [FRAME_SETS[bits] for bits in scores.frames.tolist()],
                "p_virus": scores.p_virus,
                "call": (calls, CALL_NAMES),
                "status": (scores.status, STATUS_NAMES),
                "max_p_virus": scores.max_p_virus,
                "max_p_others": scores.max_p_others,
                "bundle": (speaker_of(scores), self._speakers),
            }
        )

    def add_contigs(
        self,
        records: Records,
        contigs: Contigs,
        judged: Judged,
        status: NDArray[np.uint8],
        origins: Sequence[str],
    ) -> None:
        """The rows of contigs.parquet of r contigs; status, origins: as of rows.contigs_rows."""
        self._contigs.add(
            {
                "sample": _texts(records.sample),
                "record": records.record,
                "contig": _texts(records.name),
                "length_nt": records.length_nt,
                "chunks": contigs.chunks,
                "called": contigs.called,
                "virus_chunks": contigs.virus,
                "p_virus": judged.p_virus,
                "max_p_virus": contigs.max_p_virus,
                "call": (judged.call, CALL_NAMES),
                "status": (status, STATUS_NAMES),
                "log_odds": judged.log_odds,
                "probability": judged.probability,
                "q_value": judged.q_value,
                "origin": [origins[i] or None for i in judged.origin.tolist()],
                "note": [NOTE_TEXTS[i] or None for i in judged.notes.tolist()],
                "genetic_code": records.code,
                "mate": [MATE_TEXTS[i] or None for i in records.mate.tolist()],
            }
        )


EMBEDDINGS_TYPES = {
    "sample": "string",
    "record": "int64",
    "contig": "string",
    "chunk": "int32",
    "frame": "coded",
}


class EmbeddingsTable(_Written):
    """embeddings.parquet, block by block. widths: of nucleotides and protein. For `with`."""

    def __init__(self, file: OutputFile, widths: tuple[int, int]) -> None:
        columns = EMBEDDINGS_TYPES | dict(zip(("nucleotides", "protein"), widths, strict=True))
        self._table = ParquetTable(file, columns, EMBEDDING_ROWS)
        super().__init__(self._table)

    def add(self, scored: Scored, embeddings: Embeddings) -> None:
        """The frames of a block, in their order."""
        scores, records = scored.scores, scored.records
        of = scored.rows.record[scores.frame_chunk].tolist()
        self._table.add(
            {
                "sample": _texts(records.sample[i] for i in of),
                "record": records.record[of],
                "contig": _texts(records.name[i] for i in of),
                "chunk": scored.rows.number[scores.frame_chunk],
                "frame": (scores.frame, FRAME_NAMES),
                "nucleotides": embeddings.nucleotides,
                "protein": embeddings.protein,
            }
        )
