"""Ways to read our tables that keep a name what it is."""

import os
import re
import shutil
import subprocess
from pathlib import Path

import pytest

from command import dna, fasta, made_bundle
from virnucpro.results import calls, contigs
from virnucpro.run.predict import predict

DOCUMENT = Path(__file__).resolve().parents[2] / "docs" / "outputs.md"
NAMES = ["NA", "None", "001", "1e5", "nan", "null", "#N/A", "TRUE", "-inf", "a,b", 'a"b', "#c"]


@pytest.fixture
def run_dir(tmp_path, monkeypatch) -> Path:
    """The run directory run, of records with these names, one of which has no letters."""
    monkeypatch.chdir(tmp_path)
    bundle = made_bundle(tmp_path / "km").path
    records = [(name, dna(300, i)) for i, name in enumerate(NAMES)]
    Path("NA.fa").write_bytes(fasta([*records, ("", "")]))
    assert predict("NA.fa", bundle, "run", parquet=True).exit_code == 0
    return tmp_path / "run"


def test_the_library_keeps_names(run_dir):
    assert [row.contig for row in contigs(run_dir)] == [*NAMES, ""]
    assert {row.sample for row in contigs(run_dir)} == {"NA"}
    assert [row.contig for row in calls(run_dir)] == NAMES


def test_parquet_keeps_names(run_dir):
    parquet = pytest.importorskip("pyarrow.parquet")
    table = parquet.read_table(run_dir / "contigs.parquet")
    assert table.column("contig").to_pylist() == [*NAMES, ""]
    assert set(table.column("sample").to_pylist()) == {"NA"}


def test_pandas_keeps_names_as_the_docs_say(run_dir):
    pandas = pytest.importorskip("pandas")
    pattern = r"```python\n(names = [^`]*?pandas.*?)```"
    (snippet,) = re.findall(pattern, DOCUMENT.read_text(), re.DOTALL)
    found = {"pandas": pandas}
    exec(snippet, found)  # noqa: S102 - our own documentation
    table = found["table"]
    assert list(table["contig"][:-1]) == NAMES
    assert set(table["sample"]) == {"NA"}
    assert table["p_virus"].dtype == "float64"
    assert table["p_virus"].isna().tolist() == [False] * len(NAMES) + [True]


@pytest.mark.parametrize("name", ["contigs", "calls", "regions"])
def test_polars_keeps_names_as_the_docs_say(run_dir, name):
    polars = pytest.importorskip("polars")
    pattern = r"```python\n(names = [^`]*?polars.*?)```"
    (snippet,) = re.findall(pattern, DOCUMENT.read_text(), re.DOTALL)
    found = {"polars": polars}
    exec(snippet.replace("contigs.tsv", f"{name}.tsv"), found)  # noqa: S102 - our own documentation
    table = found["table"]
    if name == "regions":
        assert table.is_empty()
        return
    with_letters = table["contig"].to_list()[: len(NAMES)]
    assert with_letters == NAMES
    assert {*table["sample"]} == {"NA"}
    assert table["p_virus"].dtype == polars.Float64
    assert table["p_virus"].null_count() == len(table) - len(NAMES)


@pytest.mark.parametrize(("name", "column"), [("contigs", "contig"), ("pairs", "template")])
def test_r_keeps_names_as_the_docs_say(tmp_path, monkeypatch, name, column):
    if shutil.which("Rscript") is None:
        pytest.skip("Rscript is not installed (r-base-core)")
    monkeypatch.chdir(tmp_path)
    names = [*NAMES, "\u00e9"]
    mates = [(each, dna(300, i)) for i, each in enumerate(names) for _ in range(2)]
    Path("NA.fa").write_bytes(fasta(mates))
    bundle = made_bundle(tmp_path / "km").path
    assert predict("NA.fa", bundle, "run", pairs="interleaved").exit_code == 0
    (snippet,) = re.findall(r"```r\n(.*?)```", DOCUMENT.read_text(), re.DOTALL)
    snippet = snippet.replace("contigs.tsv", f"{name}.tsv").replace("contig =", f"{column} =")
    told = f'cat(table$sample, table${column}, table$p_virus < 2, sep = "\\n", file = "told")'
    same = f'stopifnot(any(table${column} == "\\u00e9"))'
    Path("read.R").write_text(f"{snippet}\n{told}\n{same}\n", "utf-8")
    command, locale = ["Rscript", "--vanilla", "read.R"], {"LC_ALL": "C"}
    done = subprocess.run(
        command, env=os.environ | locale, capture_output=True, text=True, check=False
    )
    assert (done.returncode, done.stderr) == (0, "")
    expected = names if name == "pairs" else [each for each in names for _ in range(2)]
    found = Path("told").read_text("utf-8").replace("<U+00E9>", "\u00e9").splitlines()
    assert found == ["NA"] * len(expected) + expected + ["TRUE"] * len(expected)
