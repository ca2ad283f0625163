"""Files for MultiQC: their rows are those of the tables, and the real MultiQC shows them."""

import csv
import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from command import WHOLE, made_bundle, random_reads, run_json, table
from virnucpro.report.multiqc import general_statistics
from virnucpro.report.runs import read_run
from virnucpro.results.files import RunFiles
from virnucpro.run.predict import predict


@pytest.fixture(scope="module")
def folder(tmp_path_factory) -> Path:
    """Three runs on inputs of one name, their files flat in one folder, and one of two inputs."""
    folder = tmp_path_factory.mktemp("mqc")
    made_bundle(folder / "km")
    for prefix, number in (("A", 20), ("B", 30), ("C", 0)):
        (folder / prefix).mkdir()
        (folder / prefix / "reads.fa").write_bytes(random_reads(number, 200, number))
        choice = {"prefix": prefix, "write": "all", "parquet": True}
        predict(folder / prefix / "reads.fa", folder / "km", folder / "flat", **choice)
    two = [folder / "x.fa", folder / "y.fa"]
    for number, path in enumerate(two, 5):
        path.write_bytes(random_reads(number, 200, number))
    predict(two, folder / "km", folder / "two")
    predict(two[0], folder / "km", folder / "named", prefix="P", sample="lake")
    return folder


def test_runs_on_inputs_of_one_name_share_no_file(folder):
    """Every file of a run has its prefix, and is what a run alone would have written."""
    everything = WHOLE | {"others.fasta", "calls.parquet", "contigs.parquet"}
    found = {path.name for path in (folder / "flat").iterdir()}
    assert found == {f"{prefix}.{name}" for prefix in "ABC" for name in everything}
    choice = {"write": "all", "parquet": True}
    alone = folder / "alone"
    predict(folder / "B" / "reads.fa", folder / "km", alone, **choice)
    timed = {"run.json", "log.txt", "report.html"}
    for name in everything - timed - {name for name in everything if name.endswith("_mqc.json")}:
        assert (folder / "flat" / f"B.{name}").read_bytes() == (alone / name).read_bytes(), name
    outputs = run_json(alone)["outputs"]
    prefixed = json.loads((folder / "flat" / "B.run.json").read_text())["outputs"]
    assert prefixed == {f"B.{name}": sha256 for name, sha256 in outputs.items()}


def counted(path: Path, sample: str) -> dict[str, int]:
    rows = [row for row in table(path) if row["sample"] == sample]
    calls = [row["call"] for row in rows]
    return {
        "records": len(rows),
        **{call: calls.count(call) for call in ("virus", "others", "none")},
        **{name: sum(int(row[name]) for row in rows) for name in ("chunks",)},
        "bases": sum(int(row["length_nt"]) for row in rows),
        "failed": 0,
    }


def test_rows_are_samples_with_the_counts_of_the_table(folder):
    document = json.loads((folder / "two" / "virnucpro_mqc.json").read_text())
    assert list(document["data"]) == ["x", "y"]
    assert set(document["data"]["x"]) == set(document["headers"])
    for sample, row in document["data"].items():
        expected = counted(folder / "two" / "contigs.tsv", sample)
        assert {name: row[name] for name in expected} == expected
        assert row["virus_percent"] == pytest.approx(100 * row["virus"] / row["records"])
    empty = json.loads((folder / "flat" / "C.virnucpro_mqc.json").read_text())["data"]
    assert (empty["C.reads"]["records"], empty["C.reads"]["virus_percent"]) == (0, None)


def test_a_sample_that_its_user_named_keeps_its_name(folder):
    document = json.loads((folder / "named" / "P.virnucpro_mqc.json").read_text())
    assert list(document["data"]) == ["lake"]


def test_general_statistics_are_three_columns_of_the_same_rows(folder):
    table_ = json.loads((folder / "two" / "virnucpro_mqc.json").read_text())["data"]
    document = json.loads((folder / "two" / "virnucpro_general_mqc.json").read_text())
    assert list(document["headers"]) == ["called", "virus_percent", "expected_wrong"]
    for sample, row in document["data"].items():
        expected = table_[sample]
        assert row["called"] == expected["virus"] + expected["others"]
        assert row["virus_percent"] == expected["virus_percent"]
    assert document["data"].keys() == table_.keys()


@pytest.mark.parametrize(
    ("worth", "expected"),
    [
        (None, None),
        ({"fdr": None, "called": 8, "wrong": 1.5, "most_wrong": 2.5}, 2.5),
        ({"fdr": 0.25, "called": 8, "wrong": 2.0, "most_wrong": 2.0}, 2.0),
    ],
)
def test_expected_mistakes_come_from_what_the_run_says_of_its_worth(folder, worth, expected):
    run = read_run(RunFiles(folder / "named", "P"))
    run.document["worth"] = worth
    row = json.loads(general_statistics(run))["data"]["lake"]
    assert row.get("expected_wrong") == expected
    run.document["inputs"].append({**run.document["inputs"][0], "sample": "pond"})
    of_two = json.loads(general_statistics(run))["data"]
    assert [of_two[name].get("expected_wrong") for name in ("lake", "pond")] == [None, None]


def test_multiqc_shows_three_runs_as_three_rows(folder, tmp_path):
    # Not by importing it: that changes the filters of warnings for every test that comes after.
    script = shutil.which("multiqc", path=str(Path(sys.executable).parent))
    if script is None:
        pytest.skip("multiqc, of the extra test, is not installed")
    done = subprocess.run(
        [script, folder / "flat", "-o", tmp_path, "--no-ansi", "--no-version-check"],
        capture_output=True,
        text=True,
        env=os.environ | {"HOME": str(tmp_path), "MULTIQC_NO_VERSION_CHECK": "1"},
    )
    assert done.returncode == 0, done.stderr
    data = tmp_path / "multiqc_data" / "multiqc_virnucpro_table.txt"
    with data.open() as file:
        rows = {row["Sample"]: row for row in csv.DictReader(file, delimiter="\t")}
    assert list(rows) == ["A.reads", "B.reads", "C.reads"]
    for prefix in "ABC":
        row = rows[f"{prefix}.reads"]
        expected = counted(folder / "flat" / f"{prefix}.contigs.tsv", "reads")
        assert {name: int(row[name]) for name in expected} == expected
        assert row["bundle"] == "km"
    with (tmp_path / "multiqc_data" / "multiqc_general_stats.txt").open() as file:
        general = {row["Sample"]: row for row in csv.DictReader(file, delimiter="\t")}
    for sample, row in general.items():
        called = row["custom_content_virnucpro-called"]
        assert float(called) == int(rows[sample]["virus"]) + int(rows[sample]["others"])
        percent = row["custom_content_virnucpro-virus_percent"]
        assert (percent or "None") == rows[sample]["virus_percent"]
    assert general.keys() == rows.keys()
    page = (tmp_path / "multiqc_report.html").read_text()
    assert "Records that virnucpro called virus." in page
