"""calls.parquet, contigs.parquet and embeddings.parquet: typed columns, numbers in full.

Rows are gathered into row groups, so that memory does not grow with the input. pyarrow is loaded
only where it is asked for. This module knows no rule and no journal of blocks.
"""

import io
from collections.abc import Callable, Sequence
from importlib.util import find_spec
from typing import TYPE_CHECKING, Any, NamedTuple, Self

import numpy as np

from virnucpro.errors import SettingsError, install_extra
from virnucpro.results.schema import kinds_of
from virnucpro.storage.atomic import OutputFile

if TYPE_CHECKING:
    from _typeshed import ReadableBuffer

GROUP_ROWS = 100_000
EMBEDDING_ROWS = 2_000  # 13 kB each, with the published encoders


def check_pyarrow(option: str) -> None:
    """Raises SettingsError if there is no pyarrow; option: what needs it."""
    if find_spec("pyarrow") is None:
        raise SettingsError(
            f"{option} needs pyarrow, which is not installed; {install_extra('parquet')}"
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
    """A table in the making, for `with`: closed at its end, and let go of however it ends.

    parts: of results.schema, as in rows.text_of. widths: of its vectors.
    """

    def __init__(
        self, file: OutputFile, *parts: type[NamedTuple], widths: Sequence[int] = ()
    ) -> None:
        import pyarrow
        from pyarrow import parquet

        coded = pyarrow.dictionary(pyarrow.int8(), pyarrow.string())
        width = iter(widths)

        def type_of(name: str) -> Any:  # noqa: ANN401
            if name == "vectors":
                return pyarrow.list_(pyarrow.float32(), next(width))
            return coded if name == "coded" else getattr(pyarrow, name)()

        kinds = {name: kind for part in parts for name, kind in kinds_of(part).items()}
        texts = [name for name, kind in kinds.items() if kind.parquet in ("string", "coded")]
        self._group_rows = EMBEDDING_ROWS if widths else GROUP_ROWS
        self._kinds = [*kinds.values()]
        self._schema = pyarrow.schema([(name, type_of(k.parquet)) for name, k in kinds.items()])
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

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: type[BaseException] | None, *_: object) -> None:
        try:
            if kind is None:
                if self._rows:
                    self._flush()
                self._writer.close()
        finally:  # a file that is whole, or that nobody will read
            self._sink.useless = True
            self._writer.close()

    def add(self, *parts: NamedTuple) -> None:
        """Add rows. parts: their columns; nan is no value."""
        columns = (column for part in parts for column in part)
        arrays = [
            self._array_of(kind.stored(column), field.type)
            for kind, column, field in zip(self._kinds, columns, self._schema, strict=True)
        ]
        self._waiting.append(self._batch(arrays, schema=self._schema))
        self._rows += self._waiting[-1].num_rows
        if self._rows >= self._group_rows:
            self._flush()

    def _array_of(self, values: Any, kind: Any) -> Any:  # noqa: ANN401
        if isinstance(values, tuple):
            codes, words = values
            return self._coded(self._array(codes.astype(np.int8)), self._array(words))
        if isinstance(values, np.ndarray) and values.ndim == 2:
            return self._vectors(self._array(values.ravel()), type=kind)
        return self._array(values, type=kind, from_pandas=True)

    def _flush(self) -> None:
        self._writer.write_table(self._table(self._waiting, self._schema), self._rows)
        self._waiting, self._rows = [], 0
