"""The two tables in the format of the published tool."""

from collections.abc import Iterator

import numpy as np

from virnucpro.blocks import Scored
from virnucpro.calls import FRAME_NAMES, Scores, consensus
from virnucpro.results.files import RunFiles
from virnucpro.results.rows import header, lines_of, text_of
from virnucpro.results.schema import (
    ChunkScoresColumns,
    ChunkScoresTable,
    FrameScoresColumns,
    FrameScoresTable,
)
from virnucpro.results.staging import Staging
from virnucpro.results.unique_names import UniqueNames, sort_key
from virnucpro.storage.sorting import SortedLines, pieces_of


def write_published(
    files: RunFiles, staging: Staging, finished: Iterator[Scored], names: UniqueNames
) -> None:
    """Write both from finished blocks, which may be left out where no frame was scored."""
    frames_file = staging.open(files.frame_scores, header(FrameScoresTable))
    chunks_file = staging.open(files.chunk_scores, header(ChunkScoresTable))
    chunks = SortedLines(files.scratch, "chunks")
    for scored in finished:
        unique = names.of(scored.records)
        if len(scored.scores.frame):  # else neither table has a row
            ids = _chunk_ids(scored, unique)
            frames_file.write(text_of(_frames(ids, scored.scores)))
            lines = lines_of(_chunks([*map(sort_key, ids)], scored.scores))
            chunks.add(f"{line}\n".encode("utf-8", "surrogateescape") for line in lines)
    for piece in pieces_of(chunks.sorted()):
        chunks_file.write(piece.replace(b"\0\0", b"").replace(b"\0\xff", b"\0"))


def _chunk_ids(scored: Scored, names: list[str]) -> list[str]:
    numbers = scored.rows.number.tolist()
    records = scored.rows.record.tolist()
    return [f"{names[i]}_chunk_{k}" for i, k in zip(records, numbers, strict=True)]


def _frames(ids: list[str], scores: Scores) -> FrameScoresColumns:
    """Return the columns of prediction_results.txt; a tie is others."""
    frames = zip(scores.frame_chunk.tolist(), scores.frame.tolist(), strict=True)
    return FrameScoresTable(
        Sequence_ID=[f"{ids[i]}{FRAME_NAMES[f]}" for i, f in frames],
        Prediction=(scores.frame_p_virus > scores.frame_p_others).astype(np.uint8),
        score1=scores.frame_p_others,
        score2=scores.frame_p_virus,
    )


def _chunks(ids: list[str], scores: Scores) -> ChunkScoresColumns:
    """Return the columns of prediction_results_highestscore.csv."""
    kept = scores.called[scores.frame_chunk]
    p_others, p_virus = scores.frame_p_others[kept], scores.frame_p_virus[kept]
    found = consensus(scores.frame_chunk[kept], p_others, p_virus)
    if len(found.chunk) != np.sum(scores.called):
        raise AssertionError("a called chunk has no scored frame")
    return ChunkScoresTable(
        Modified_ID=[ids[i] for i in found.chunk.tolist()],
        Is_Virus=found.virus.astype(np.uint8),
        max_score_0=found.max_p_others,
        max_score_1=found.max_p_virus,
    )
