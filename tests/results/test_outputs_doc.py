"""docs/outputs.md, the schema of run.json and real files say the same."""

import json
import re
import shutil
from pathlib import Path

import jsonschema
import numpy as np
import pytest

import virnucpro
from made_blocks import MadeChunk, MadeContig, blocks_of_made, journal_in
from virnucpro.calls import Call, Rule, Status
from virnucpro.reads import open_sources
from virnucpro.results.counts import Counts
from virnucpro.results.files import RunFiles
from virnucpro.results.judge import MeanJudge
from virnucpro.results.kinds import Floats, Integers, shortest
from virnucpro.results.record import SCHEMA_VERSION
from virnucpro.results.regions import Odds
from virnucpro.results.schema import (
    CallsTable,
    ChunkScoresTable,
    ContigsTable,
    FailedTable,
    FrameScoresTable,
    RegionsTable,
    kinds_of,
)
from virnucpro.results.write import Wanted, write_tables

DOCUMENT = Path(__file__).resolve().parents[2] / "docs" / "outputs.md"
TABLES = {
    "contigs.tsv": ContigsTable,
    "calls.tsv": CallsTable,
    "prediction_results.txt": FrameScoresTable,
    "prediction_results_highestscore.csv": ChunkScoresTable,
    "failed.tsv": FailedTable,
    "regions.tsv": RegionsTable,
}


def sections() -> dict[str, str]:
    parts = re.split(r"^#{2,3} (.*)$", DOCUMENT.read_text(), flags=re.MULTILINE)
    return {"": parts[0]} | dict(zip(parts[1::2], parts[2::2], strict=True))


def rows(text: str, head: str) -> list[list[str]]:
    """The rows of the one table under a head such as 'column | type'."""
    (table,) = re.findall(rf"^\| {re.escape(head)}.*\n\|[ |-]+\n((?:\|.*\n)+)", text, re.MULTILINE)
    return [[cell.strip() for cell in row.strip("| ").split(" | ")] for row in table.splitlines()]


def words(cell: str) -> list[str]:
    return re.findall(r"`([^`]+)`", cell)


@pytest.fixture(scope="module")
def run_dir(tmp_path_factory) -> Path:
    """A real run with a call, a failure and an empty record."""
    folder = tmp_path_factory.mktemp("run")
    (folder / "lake.fasta").write_bytes(b">a\nACGTACGT\n>b\nACGT\n>c\n")
    scores = {0: (0.25, 0.75), 4: (0.125, 0.875)}
    ok = [MadeChunk(0, 4, Status.OK, scores), MadeChunk(4, 8, Status.OK, scores)]
    failed = MadeChunk(0, 4, Status.FAILED)
    contigs = [MadeContig("a", ok, 8), MadeContig("b", [failed], 4), MadeContig("c")]
    files, journal = journal_in(folder / "out")
    journal.commit(blocks_of_made(contigs, [])[0])
    sources = open_sources([folder / "lake.fasta"])
    assert len(list(sources[0].contigs())) == 3
    seen = [sources[0].seen]
    wanted = Wanted(odds=Odds(0.9, 0.1, 4), sequences="all")
    write_tables(files, journal, MeanJudge(Rule("frames"), 4), sources, seen, wanted)
    shutil.rmtree(files.hidden)
    return folder / "out"


@pytest.mark.parametrize("name", TABLES)
def test_columns_are_documented_as_they_are(run_dir, name):
    """TRAP N14."""
    table = rows(sections()[name], "column | type")
    documented = [words(row[0])[0] for row in table]
    assert documented == list(TABLES[name]._fields)
    types = [
        {Integers: "int", Floats: "float"}.get(type(kind), "text")
        for kind in kinds_of(TABLES[name]).values()
    ]
    assert [row[1] for row in table] == types
    assert (run_dir / name).read_text().split("\n")[0].split("\t") == documented


@pytest.mark.parametrize("name", TABLES)
def test_values_have_the_documented_type(run_dir, name):
    kinds = [row[1] for row in rows(sections()[name], "column | type")]
    examples = [words(row[3])[0] for row in rows(sections()[name], "column | type")]
    read = {"int": int, "float": float, "text": str}
    lines = [line.split("\t") for line in (run_dir / name).read_text().splitlines()[1:]]
    assert lines
    for line in [*lines, examples]:
        for kind, value in zip(kinds, line, strict=True):
            if value:
                read[kind](value)


def test_every_file_is_listed(run_dir):
    listed = [words(row[0])[0] for row in rows(sections()[""], "file | what")]
    assert sorted(listed) == sorted(path.name for path in RunFiles(run_dir).public)
    assert {p.name for p in run_dir.iterdir()} <= set(listed)
    named = {word for section in sections() for word in section.split()}
    assert set(listed) <= named


def test_every_status_and_call_is_documented():
    states = rows(sections()["calls.tsv"], "status | call")
    assert [words(row[0])[0] for row in states] == [
        s.name.lower() for s in Status if s != Status.EMPTY
    ]
    assert [row[1] == "yes" for row in states] == [s.called for s in Status if s != Status.EMPTY]
    (call,) = [r for r in rows(sections()["calls.tsv"], "column | type") if words(r[0]) == ["call"]]
    assert set(words(call[2])) == {c.name.lower() for c in Call}
    assert "`empty`" in sections()["contigs.tsv"]


def test_example_scores_are_what_the_program_would_print():
    for name in ("prediction_results.txt", "prediction_results_highestscore.csv"):
        for _, kind, _, example in rows(sections()[name], "column | type"):
            if kind == "float":
                (text,) = words(example)
                assert shortest(np.array([text], dtype=np.float32)) == [text]


def schema() -> dict:
    return json.loads(
        Path(virnucpro.__file__).with_name("results").joinpath("run.schema.json").read_text()
    )


def a_run_json() -> dict:
    status = {s.name.lower(): 0 for s in Status if s != Status.EMPTY}
    numbers = dict.fromkeys(
        (name for name in Counts.__dataclass_fields__ if name != "chunk_status"), 0
    )
    return {
        "schema_version": SCHEMA_VERSION,
        "status": "complete",
        "exit_code": 0,
        "error": None,
        "versions": {"virnucpro": "0.1.0", "python": "3.11.2", "torch": None, "numpy": "2.0.0"},
        "command": ["virnucpro", "predict", "lake.fasta", "-o", "run"],
        "inputs": [
            {"path": "lake.fasta", "sample": "lake", "sha256": "0" * 64, "bytes": 9, "records": 0}
        ],
        "bundle": {"name": "mini-500-v1", "sha256": "f" * 64, "kind": "chunks", "chunk_nt": 500},
        "settings": {"threshold": 0.5, "threads": None},
        "device": {"kind": "cpu", "name": "Xeon", "precision": "bf16", "threads": 2},
        "attention": {"codon": "PyTorch CPU flash"},
        "fingerprint": {"bundle": "f" * 64},
        "blocks": {"total": 3, "reused": 1, "damaged": 0},
        "outputs": {"calls.tsv": "0" * 64},
        "output_bytes": {"calls.tsv": 9},
        "counts": Counts(**numbers, chunk_status=status).as_dict(),
        "worth": None,
        "negatives": None,
        "timings": {"total_s": 2.41, "tables_s": 0.05},
        "batches": {},
        "memory": {"peak_bytes": 612368384},
        "started": "2025-01-31T12:00:00+00:00",
        "finished": "2025-01-31T12:00:05Z",
    }


def test_the_schema_is_one_and_takes_a_run():
    jsonschema.Draft202012Validator.check_schema(schema())
    jsonschema.validate(a_run_json(), schema())
    early = a_run_json() | {"status": "failed", "bundle": None, "device": None, "counts": None}
    jsonschema.validate(early, schema())


@pytest.mark.parametrize(
    "change",
    [
        {"schema_version": 2},
        {"status": "done"},
        {"unknown": 1},
        {"started": "yesterday"},
        {"inputs": [{"path": "x"}]},
        {"counts": {"records": 1}},
        {"bundle": {"name": "m", "sha256": "short", "kind": "chunks", "chunk_nt": 500}},
    ],
)
def test_the_schema_refuses_what_is_wrong(change):
    with pytest.raises(jsonschema.ValidationError):
        jsonschema.validate(a_run_json() | change, schema())


def test_the_schema_is_documented_field_by_field():
    fields = [words(row[0])[0] for row in rows(sections()["run.json"], "field | type")]
    assert sorted(fields) == sorted(schema()["properties"])
    assert {*fields} - {*schema()["required"]} == {"workers", "part", "parts", "prescreen"}
    counts = [w for row in rows(sections()["run.json"], "count |") for w in words(row[0])]
    assert sorted(counts) == sorted(schema()["$defs"]["counts"]["properties"])
    assert sorted(counts) == sorted(Counts.__dataclass_fields__)
    states = schema()["$defs"]["counts"]["properties"]["chunk_status"]["properties"]
    assert list(states) == [s.name.lower() for s in Status if s != Status.EMPTY]
