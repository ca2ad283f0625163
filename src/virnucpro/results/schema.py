"""Every column of every table, once: its name, its kind, and the order.

A table is a named tuple of its columns. Its parameters are what stands in a column of texts, of
whole numbers, ...: arrays where a block is written, single values in the rows of the library. Where
a column has no kind of its own, its parameter says it. docs/outputs.md explains each column.
"""

from collections.abc import Mapping, Sequence
from functools import cache
from typing import Annotated, Any, Generic, NamedTuple, TypeAlias, TypeVar, get_type_hints

import numpy as np
from numpy.typing import NDArray

from virnucpro.calls import CALL_NAMES, FRAME_NAMES, FRAME_SETS, STATUS_NAMES
from virnucpro.results.kinds import (
    Coded,
    Floats,
    Integers,
    Kind,
    Named,
    Ordinals,
    Texts,
    Words,
    four_digits,
    shortest,
    six_decimals,
    three_digits,
)

Text = TypeVar("Text")
Whole = TypeVar("Whole")
Real = TypeVar("Real")
Code = TypeVar("Code")
Word = TypeVar("Word")
Frames = TypeVar("Frames")
Vector = TypeVar("Vector")

PAIR_STATUSES = ("ok", "one_called", "not_called", "mate_missing")

_CALL, _STATUS = Coded(CALL_NAMES), Coded(STATUS_NAMES)
_FRAMES = Coded(FRAME_SETS, "string", [(*filter(None, names.split(",")),) for names in FRAME_SETS])
_INT32, _SINGLE = Integers("int32"), Floats(six_decimals, "float32")
_SHORTEST = Floats(shortest)
_OF_PARAMETER: Mapping[Any, Kind] = {
    Text: Texts(),
    Whole: Integers("int64"),
    Real: Floats(six_decimals),
    Word: Named(),
    Frames: _FRAMES,
    Vector: Kind("vectors"),
}


class CallsTable(NamedTuple, Generic[Text, Whole, Real, Code, Frames]):
    """calls.tsv and calls.parquet."""

    sample: Text
    record: Whole
    contig: Text
    chunk: Annotated[Whole, _INT32]
    start: Whole
    end: Whole
    frames: Frames
    p_virus: Real
    call: Annotated[Code, _CALL]
    status: Annotated[Code, _STATUS]
    max_p_virus: Annotated[Real, _SINGLE]
    max_p_others: Annotated[Real, _SINGLE]


class CallsPrescreened(NamedTuple, Generic[Word]):
    """The last column of the calls where one bundle looked before another."""

    bundle: Annotated[Word, Named("coded")]


class ContigsTable(NamedTuple, Generic[Text, Whole, Real, Code, Word]):
    """contigs.tsv and contigs.parquet."""

    sample: Text
    record: Whole
    contig: Text
    length_nt: Whole
    chunks: Whole
    called: Whole
    virus_chunks: Whole
    p_virus: Real
    max_p_virus: Real
    call: Annotated[Code, _CALL]
    status: Annotated[Code, _STATUS]
    log_odds: Real
    probability: Real
    q_value: Annotated[Real, Floats(four_digits)]
    origin: Word
    note: Word


class ContigsRecoded(NamedTuple, Generic[Whole]):
    """The last column of the contigs where a genetic code was told of each record."""

    genetic_code: Whole


class ContigsPaired(NamedTuple, Generic[Word]):
    """The last column of the contigs where the input has mates."""

    mate: Word


class PairsTable(NamedTuple, Generic[Text, Whole, Real, Code]):
    """pairs.tsv."""

    sample: Text
    template: Text
    record_1: Annotated[Whole, Ordinals()]
    record_2: Annotated[Whole, Ordinals()]
    p_virus_1: Real
    p_virus_2: Real
    p_virus: Real
    call: Annotated[Code, _CALL]
    status: Annotated[Code, Coded(PAIR_STATUSES)]


class RegionsTable(NamedTuple, Generic[Text, Whole, Real]):
    """regions.tsv."""

    sample: Text
    record: Whole
    contig: Text
    region: Whole
    start: Whole
    end: Whole
    length_nt: Whole
    chunks: Whole
    called: Whole
    virus_chunks: Whole
    p_virus: Real
    expected_by_chance: Annotated[Real, Floats(three_digits)]


class FailedTable(NamedTuple, Generic[Text, Whole]):
    """failed.tsv."""

    sample: Text
    record: Whole
    contig: Text
    reason: Text


class FrameScoresTable(NamedTuple, Generic[Text, Real, Code]):
    """prediction_results.txt, as the published tool has it."""

    Sequence_ID: Text
    Prediction: Annotated[Code, Coded(("others", "virus"))]
    score1: Annotated[Real, _SHORTEST]
    score2: Annotated[Real, _SHORTEST]


class ChunkScoresTable(NamedTuple, Generic[Text, Real, Code]):
    """prediction_results_highestscore.csv, as the published tool has it."""

    Modified_ID: Text
    Is_Virus: Annotated[Code, Coded(("False", "True"))]
    max_score_0: Annotated[Real, _SHORTEST]
    max_score_1: Annotated[Real, _SHORTEST]


class EmbeddingsTable(NamedTuple, Generic[Text, Whole, Code, Vector]):
    """embeddings.parquet."""

    sample: Text
    record: Whole
    contig: Text
    chunk: Annotated[Whole, _INT32]
    frame: Annotated[Code, Coded(FRAME_NAMES)]
    nucleotides: Vector
    protein: Vector


_Ints: TypeAlias = NDArray[np.integer[Any]]
_Floats: TypeAlias = NDArray[np.floating[Any]]
_Codes: TypeAlias = NDArray[np.uint8]
_Texts: TypeAlias = Sequence[str]

# The tables as columns of n rows, which mypy checks where they are made.
CallsColumns: TypeAlias = CallsTable[_Texts, _Ints, _Floats, _Codes, _Codes]
ContigsColumns: TypeAlias = ContigsTable[_Texts, _Ints, _Floats, _Codes, Words]
PairsColumns: TypeAlias = PairsTable[_Texts, _Ints, _Floats, _Codes]
RegionsColumns: TypeAlias = RegionsTable[_Texts, _Ints, _Floats]
FailedColumns: TypeAlias = FailedTable[_Texts, _Ints]
FrameScoresColumns: TypeAlias = FrameScoresTable[_Texts, _Floats, _Codes]
ChunkScoresColumns: TypeAlias = ChunkScoresTable[_Texts, _Floats, _Codes]
EmbeddingsColumns: TypeAlias = EmbeddingsTable[_Texts, _Ints, _Codes, NDArray[np.float32]]


class ChunkRow(CallsTable[str, int, float | None, str, tuple[str, ...]]):
    """A row of calls.tsv, as in docs/outputs.md.

    start, end: nt on the contig, 0-based half-open; frames: the scored ones, as F1 or R3;
    the probabilities, 0 to 1, are None where there is none.
    """

    __slots__ = ()


class ContigRow(ContigsTable[str, int, float | None, str, str]):
    """A row of contigs.tsv, as in docs/outputs.md; numbers are None, texts empty without one."""

    __slots__ = ()


@cache
def kinds_of(table: type[NamedTuple]) -> Mapping[str, Kind]:
    """Return the kind of every column of a table, by name and in order."""
    hints = get_type_hints(table, include_extras=True)
    return {
        name: hint.__metadata__[0] if hasattr(hint, "__metadata__") else _OF_PARAMETER[hint]
        for name, hint in hints.items()
    }
