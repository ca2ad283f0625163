"""The two tables in the format of the published tool."""

import numpy as np

from virnucpro.blocks import Scored
from virnucpro.calls import FRAME_NAMES, Scores, consensus
from virnucpro.results.files import RunFiles
from virnucpro.results.finished import FinishedBlocks
from virnucpro.results.rows import encoded, header, shortest
from virnucpro.results.staging import Staging
from virnucpro.results.unique_names import UniqueNames, sort_key
from virnucpro.storage.sorting import SortedLines, pieces_of

FRAME_SCORES_COLUMNS = ("Sequence_ID", "Prediction", "score1", "score2")
CHUNK_SCORES_COLUMNS = ("Modified_ID", "Is_Virus", "max_score_0", "max_score_1")
_TRUTH = ("False", "True")
_LABELS = ("others", "virus")


def write_published(
    files: RunFiles, staging: Staging, finished: FinishedBlocks, names: UniqueNames
) -> None:
    """A pass over the blocks of its own."""
    frames_file = staging.open(files.frame_scores, header(FRAME_SCORES_COLUMNS))
    chunks_file = staging.open(files.chunk_scores, header(CHUNK_SCORES_COLUMNS))
    chunks = SortedLines(files.scratch, "chunks")
    for scored in finished.scored():
        unique = names.of(scored.records)
        if len(scored.scores.frame):  # else neither table has a row
            ids = _chunk_ids(scored, unique)
            frames_file.write(_frame_rows(ids, scored.scores))
            chunks.add(_chunk_rows(ids, scored.scores))
    for piece in pieces_of(chunks.sorted()):
        chunks_file.write(piece.replace(b"\0\0", b"\t").replace(b"\0\xff", b"\0"))


def _chunk_ids(scored: Scored, names: list[str]) -> list[str]:
    numbers = scored.rows.number.tolist()
    records = scored.rows.record.tolist()
    return [f"{names[i]}_chunk_{k}" for i, k in zip(records, numbers, strict=True)]


def _frame_rows(ids: list[str], scores: Scores) -> bytes:
    """Rows of prediction_results.txt; a tie is others."""
    labels = (scores.frame_p_virus > scores.frame_p_others).tolist()
    lines = [
        f"{ids[i]}{FRAME_NAMES[f]}\t{_LABELS[label]}\t{p0}\t{p1}\n"
        for i, f, label, p0, p1 in zip(
            scores.frame_chunk.tolist(),
            scores.frame.tolist(),
            labels,
            shortest(scores.frame_p_others),
            shortest(scores.frame_p_virus),
            strict=True,
        )
    ]
    return encoded(lines)


def _chunk_rows(ids: list[str], scores: Scores) -> list[bytes]:
    """Lines of prediction_results_highestscore.csv with a sort key for their first column."""
    kept = scores.called[scores.frame_chunk]
    p_others, p_virus = scores.frame_p_others[kept], scores.frame_p_virus[kept]
    found = consensus(scores.frame_chunk[kept], p_others, p_virus)
    if len(found.chunk) != np.sum(scores.called):
        raise AssertionError("a called chunk has no scored frame")
    m0, m1 = shortest(found.max_p_others), shortest(found.max_p_virus)
    lines = [
        f"{sort_key(ids[i])}{_TRUTH[virus]}\t{p0}\t{p1}\n"
        for i, virus, p0, p1 in zip(found.chunk.tolist(), found.virus.tolist(), m0, m1, strict=True)
    ]
    return [line.encode("utf-8", "surrogateescape") for line in lines]
