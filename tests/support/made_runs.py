"""Run directories made by hand: run.json and tables with just what a test wants in them."""

import gc
import json
import tracemalloc
from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple

from test_outputs_doc import a_run_json

from virnucpro.bundle import load
from virnucpro.bundle.card import about_bundle
from virnucpro.calls import Status
from virnucpro.report.runs import read_run
from virnucpro.results.files import RunFiles
from virnucpro.results.schema import CallsTable, ContigsTable, PairsTable


@dataclass(frozen=True)
class Chunk:
    """p_virus None: not called, for the reason that status gives."""

    p_virus: float | None = 0.5
    status: str = "ok"
    frames: str = "F1,F2,F3,R1,R2,R3"
    length_nt: int = 500


def made_run(
    run_dir: Path,
    contigs: Iterable[tuple[str, list[Chunk]]],
    *,
    prefix: str = "",
    bundle: str | dict[str, object] = "mini-500",
    **changes: object,
) -> RunFiles:
    """Writes run.json, contigs.tsv and calls.tsv; changes are fields of run.json."""
    files = RunFiles(run_dir, prefix)
    run_dir.mkdir(parents=True, exist_ok=True)
    about = about_bundle(load(bundle)) if isinstance(bundle, str) else bundle
    made = list(contigs)
    fields = {"bundle": about, "counts": counts_of(made)}
    files.run_json.write_text(json.dumps(a_run_json() | fields | changes))
    with files.contigs.open("w") as contigs_file, files.calls.open("w") as calls_file:
        contigs_file.write("\t".join(ContigsTable._fields) + "\n")
        calls_file.write("\t".join(CallsTable._fields) + "\n")
        for record, (name, chunks) in enumerate(made, 1):
            contigs_file.write(line(ContigsTable, contig_row(record, name, chunks)))
            start = 0
            for number, chunk in enumerate(chunks, 1):
                end = start + chunk.length_nt
                row = {
                    "sample": "lake",
                    "record": record,
                    "contig": name,
                    "chunk": number,
                    "start": start,
                    "end": end,
                    "frames": chunk.frames,
                    "p_virus": text(chunk.p_virus),
                    "call": call(chunk.p_virus),
                    "status": chunk.status,
                }
                calls_file.write(line(CallsTable, row))
                start = end
    return files


def made_paired_run(
    run_dir: Path, pairs: Iterable[tuple[str, float | None, float | None]], **changes: object
) -> RunFiles:
    """A run on pairs of reads with these scores, each pair with the mean of its mates."""
    made = list(pairs)
    reads = [
        (name, [Chunk(p, "ok" if p is not None else "too_short", length_nt=150)])
        for name, *scores in made
        for p in scores
    ]
    scored = [[p for p in scores if p is not None] for _, *scores in made]
    means = [sum(scores) / len(scores) if scores else None for scores in scored]
    virus = sum(call(mean) == "virus" for mean in means)
    counts = counts_of(reads) | {"pairs": len(made), "virus_pairs": virus}
    files = made_run(
        run_dir, reads, **{"counts": counts, "outputs": {"pairs.tsv": "0" * 64}} | changes
    )
    header, *rows = files.contigs.read_text().splitlines()
    with files.contigs.open("w") as file:
        file.write(f"{header}\tmate\n")
        file.writelines(f"{row}\t/{1 + i % 2}\n" for i, row in enumerate(rows))
    with files.pairs.open("w") as file:
        file.write("\t".join(PairsTable._fields) + "\n")
        for i, ((name, one, two), mean) in enumerate(zip(made, means, strict=True)):
            row = {
                "sample": "lake",
                "template": name,
                "record_1": 2 * i + 1,
                "record_2": 2 * i + 2,
                "p_virus_1": text(one),
                "p_virus_2": text(two),
                "p_virus": text(mean),
                "call": call(mean),
                "status": ("not_called", "one_called", "ok")[len(scored[i])],
            }
            file.write(line(PairsTable, row))
    return files


def counts_of(contigs: list[tuple[str, list[Chunk]]]) -> dict[str, object]:
    """The counts of run.json for such tables."""
    rows = [contig_row(record, name, chunks) for record, (name, chunks) in enumerate(contigs, 1)]
    chunks = [chunk for _, of_contig in contigs for chunk in of_contig]
    calls = Counter(row["call"] for row in rows)
    of_chunks = Counter(call(chunk.p_virus) for chunk in chunks)
    status = Counter(chunk.status for chunk in chunks)
    failed = sum(row["status"] == "failed" for row in rows)
    return {
        "records": len(rows),
        "called": calls["virus"] + calls["others"],
        "none": calls["none"] - failed,
        "failed": failed,
        "partly_failed": sum(
            row["status"] == "ok" and any(chunk.status == "failed" for chunk in of_contig)
            for row, (_, of_contig) in zip(rows, contigs, strict=True)
        ),
        "virus": calls["virus"],
        "others": calls["others"],
        "chunks": len(chunks),
        "virus_chunks": of_chunks["virus"],
        "others_chunks": of_chunks["others"],
        "chunk_status": {
            s.name.lower(): status[s.name.lower()] for s in Status if s < Status.EMPTY
        },
        "bases": sum(chunk.length_nt for chunk in chunks),
    }


def contig_row(record: int, name: str, chunks: list[Chunk]) -> dict[str, object]:
    scores = [chunk.p_virus for chunk in chunks if chunk.p_virus is not None]
    mean = sum(scores) / len(scores) if scores else None
    length_nt = sum(chunk.length_nt for chunk in chunks)
    virus = sum(call(p) == "virus" for p in scores)
    status = "ok" if scores else chunks[-1].status if chunks else "empty"
    return {
        "sample": "lake",
        "record": record,
        "contig": name,
        "length_nt": length_nt,
        "chunks": len(chunks),
        "called": len(scores),
        "virus_chunks": virus,
        "p_virus": text(mean),
        "max_p_virus": text(max(scores, default=None)),
        "call": call(mean),
        "status": status,
    }


def line(table: type[NamedTuple], row: dict[str, object]) -> str:
    """A line of a table; columns that the row does not name are empty."""
    return "\t".join(str(row.get(name, "")) for name in table._fields) + "\n"


def text(p_virus: float | None) -> str:
    return "" if p_virus is None else f"{p_virus:.6f}"


def call(p_virus: float | None) -> str:
    return "none" if p_virus is None else "virus" if p_virus >= 0.5 else "others"


def peak_of_reading(files: RunFiles) -> int:
    """Bytes of memory that Python takes at most while a report reads a run."""
    gc.collect()
    tracemalloc.start()
    read_run(files)
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    return peak
