#!/usr/bin/env python3
"""Calls of contigs from OUTPUT_highestscore.csv, by the rule that viral-pipelines applies to it.

    virnucpro_contigs.py SCORES OUT.tsv      (SCORES: that table, or a tar of one)

Needs Python alone; for a .tar.zst also backports.zstd or Python 3.14. The margin of a chunk is
max_score_1 - max_score_0; that of a contig the mean over its chunks, each weighted by the square
root of its size. The cuts were made for the published model and do not apply to another.
"""

import argparse
import csv
import io
import re
import sys
import tarfile
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from math import sqrt
from pathlib import Path
from typing import NamedTuple, TextIO

HIGHEST = "_highestscore.csv"
COLUMNS = ("ID", "call", "tier", "weighted_delta", "n_chunks", "n_confident_viral")
COLUMNS += ("n_confident_nonviral", "n_ambiguous", "viral_proportion", "nonviral_proportion")


class Chunk(NamedTuple):
    """Scores of a chunk: the largest of its frames for others and for virus."""

    others: float
    virus: float

    @property
    def margin(self) -> float:
        return self.virus - self.others


class Cuts(NamedTuple):
    """Least shares of confident chunks, and how few chunks lower a tier by one."""

    viral: float
    nonviral: float
    chunks: int


@contextmanager
def scores_table(path: Path) -> Iterator[TextIO]:
    """Opens the table. Raises ValueError for a tar with none or several."""
    if not re.search(r"\.(tgz|tar(\.\w+)?)$", path.name):
        with path.open(encoding="utf-8", newline="") as file:
            yield file
        return
    with opened_tar(path) as tar:
        files = [member for member in tar.getmembers() if member.isfile()]
        tables = [member for member in files if member.name.endswith(HIGHEST)] or files
        if len(tables) != 1:
            raise ValueError(f"{path}: holds {len(tables)} files *{HIGHEST}; it must hold one")
        inside = tar.extractfile(tables[0])
        assert inside is not None  # a regular file
        yield io.TextIOWrapper(inside, encoding="utf-8", newline="")


@contextmanager
def opened_tar(path: Path) -> Iterator[tarfile.TarFile]:
    if path.suffix != ".zst":
        with tarfile.open(path) as tar:
            yield tar
        return
    if sys.version_info >= (3, 14):
        from compression import zstd
    else:
        from backports import zstd
    with zstd.open(path) as file, tarfile.open(fileobj=io.BytesIO(file.read())) as tar:
        yield tar


def contigs(file: TextIO, id_column: str, pattern: str) -> Iterator[tuple[str, list[Chunk]]]:
    """Yields the name and the chunks of each contig.

    pattern: its first group, in the id of a chunk, is what chunks of one contig share. Rows that it
    does not match are left out. Raises ValueError for a missing column and if it matches no row.
    """
    rows = csv.DictReader(file, delimiter="\t", quoting=csv.QUOTE_NONE)
    wanted = (id_column, "max_score_0", "max_score_1")
    if missing := [name for name in wanted if name not in (rows.fieldnames or ())]:
        raise ValueError(f"the table has no column {', '.join(missing)}")
    found: dict[str, tuple[str, list[Chunk]]] = {}
    count = unmatched = 0
    for row in rows:
        count += 1
        match = re.search(pattern, row[id_column])
        if match is None:
            unmatched += 1
            continue
        name = re.sub(r"_chunk_\d+$", "", row[id_column])
        _, chunks = found.setdefault(match[1], (name, []))
        chunks.append(Chunk(float(row["max_score_0"]), float(row["max_score_1"])))
    if unmatched:
        sentence = f"{unmatched} of {count} rows do not match the pattern {pattern}"
        if unmatched == count:
            raise ValueError(f"{sentence}; give another with --id-pattern")
        print(f"warning: {sentence}, and are left out", file=sys.stderr)
    yield from found.values()


def row_of(name: str, chunks: Sequence[Chunk], cuts: Cuts) -> tuple[object, ...]:
    """The row of a contig, as COLUMNS."""
    weights = [sqrt(abs(chunk.margin)) for chunk in chunks]
    total = sum(weights)
    weighted = zip(chunks, weights, strict=True)
    margin = sum(chunk.margin * weight for chunk, weight in weighted) / total if total else 0.0
    viral = sum(chunk.virus > 0.8 and chunk.others < 0.3 for chunk in chunks)
    nonviral = sum(chunk.others > 0.8 and chunk.virus < 0.3 for chunk in chunks)
    ambiguous = sum(chunk.virus > 0.7 and chunk.others > 0.7 for chunk in chunks)
    told = len(chunks) - ambiguous
    shares = [number / told if told else 0.0 for number in (viral, nonviral)]
    if abs(margin) <= 0.3:
        call, tier = "Ambiguous", "review"
    else:
        call = "Viral" if margin > 0 else "Non-viral"
        confident, share, least = (
            (viral, shares[0], cuts.viral) if margin > 0 else (nonviral, shares[1], cuts.nonviral)
        )
        sure = confident >= 1 and share >= least
        few = len(chunks) < cuts.chunks
        if not sure:
            tier = "review" if few else "low_confidence"
        elif few:
            tier = "low_confidence"
        else:
            tier = "high_confidence" if abs(margin) > 0.6 else "moderate_confidence"
    counts = (len(chunks), viral, nonviral, ambiguous)
    return (name, call, tier, round(margin, 3), *counts, *(round(share, 3) for share in shares))


def natural(name: str) -> list[tuple[int, str]]:
    """A key that sorts NODE_2 before NODE_10."""
    parts = re.split(r"(\d+)", name)
    return [(int(part), "") if part.isdecimal() else (-1, part.lower()) for part in parts]


def write(path: Path, rows: Iterable[tuple[object, ...]]) -> None:
    lines = ["\t".join(map(str, row)) for row in (COLUMNS, *rows)]
    path.write_text("\n".join(lines) + "\n", encoding="utf-8")


def main() -> None:
    parser = argparse.ArgumentParser(description="Calls of contigs from scores of chunks.")
    parser.add_argument("scores", type=Path, help=f"*{HIGHEST}, or a tar that holds one")
    parser.add_argument("out", type=Path, help="the table to write")
    parser.add_argument("--min-viral-prop", type=float, default=0.1)
    parser.add_argument("--min-nonviral-prop", type=float, default=0.1)
    parser.add_argument("--min-chunks", type=int, default=5)
    parser.add_argument("--id-col", default="Modified_ID")
    parser.add_argument(
        "--id-pattern",
        default=r"^(.+)_chunk_\d+$",
        help="its first group is the contig; default: all before _chunk_N",
    )
    given = parser.parse_args()
    cuts = Cuts(given.min_viral_prop, given.min_nonviral_prop, given.min_chunks)
    try:
        with scores_table(given.scores) as file:
            found = sorted(
                contigs(file, given.id_col, given.id_pattern), key=lambda c: natural(c[0])
            )
        write(given.out, (row_of(name, chunks, cuts) for name, chunks in found))
    except (OSError, ValueError, tarfile.TarError) as error:
        sys.exit(f"virnucpro_contigs: {error}")


if __name__ == "__main__":
    main()
