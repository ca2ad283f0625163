"""The library: rows read back are those of the tables, and docs/library.md runs."""

import doctest
import shutil
from itertools import zip_longest
from pathlib import Path

import pytest

import virnucpro
from command import dna, fasta, made_bundle
from conftest import REPOSITORY
from virnucpro.errors import InputError
from virnucpro.results import read as results
from virnucpro.results.schema import CallsTable, ContigsTable

INPUT = fasta(
    [("a", dna(1200, 1)), ("short", "ACGT"), ("a", dna(500, 2)), ("none", ""), ('"q', dna(90))]
)


@pytest.fixture(scope="module")
def runs(tmp_path_factory) -> Path:
    """A plain run, a gzipped one, and two of different prefixes in one folder."""
    folder = tmp_path_factory.mktemp("runs")
    (folder / "in.fa").write_bytes(INPUT)
    bundle = made_bundle(folder / "km").path
    virnucpro.predict(folder / "in.fa", bundle, folder / "plain")
    virnucpro.predict(folder / "in.fa", bundle, folder / "packed", tables="gz", prefix="x")
    for prefix in ("A", "B"):
        virnucpro.predict(folder / "in.fa", bundle, folder / "both", prefix=prefix)
    return folder


def as_text(row: tuple) -> list[str]:
    """A row as it stands in the table."""
    shown = []
    for cell in row:
        if isinstance(cell, float):
            shown.append(f"{cell:.6f}")
        elif isinstance(cell, tuple):
            shown.append(",".join(cell))
        else:
            shown.append("" if cell is None else str(cell))
    return shown


@pytest.mark.parametrize("name", ["calls", "contigs"])
def test_rows_are_those_of_the_table(runs, name):
    read = getattr(results, name)
    lines = (runs / "plain" / f"{name}.tsv").read_text().splitlines()[1:]
    for line, row in zip_longest(lines, read(runs / "plain")):
        assert as_text(row) == line.split("\t")
    assert [*read(str(runs / "packed"))] == [*read(runs / "plain")]
    assert [*read(runs / "both", prefix="B")] == [*read(runs / "plain")]


def test_fields_are_the_columns():
    assert results.ChunkRow._fields == CallsTable._fields
    assert results.ContigRow._fields == ContigsTable._fields


def test_types(runs):
    first, short, *_ = results.contigs(runs / "plain")
    assert (first.contig, first.record, first.length_nt, first.chunks) == ("a", 1, 1200, 3)
    assert isinstance(first.p_virus, float)
    assert (short.p_virus, short.call, short.status) == (None, "none", "too_short")
    chunk, *_, last = [*results.calls(runs / "plain")][:4]
    assert (last.contig, last.frames) == ("short", ())
    assert (chunk.start, chunk.end, chunk.max_p_virus) == (0, 500, None)
    assert isinstance(chunk.frames, tuple)


def test_columns_of_a_later_version_are_left_out(runs, tmp_path):
    shutil.copytree(runs / "plain", tmp_path / "run")
    file = tmp_path / "run" / "contigs.tsv"
    file.write_text("".join(f"new\t{line}" for line in file.read_text().splitlines(True)))
    assert [*results.contigs(tmp_path / "run")] == [*results.contigs(runs / "plain")]


def damaged(run_dir: Path, old: str, new: str) -> None:
    file = run_dir / "contigs.tsv"
    file.write_text(file.read_text().replace(old, new, 1))


@pytest.mark.parametrize(
    ("old", "new", "message"),
    [
        ("\t1200\t", "\tmany\t", "contigs.tsv, line 2: this row is damaged"),
        ("\t1200\t", f"\t{9 * '999'}\t", "contigs.tsv, line 2: this row is damaged"),
        ("\n", "\n\n", "contigs.tsv, line 2: this row is damaged"),
        ("length_nt", "length", "line 1: the column length_nt is missing"),
    ],
)
def test_what_is_damaged_is_named(runs, tmp_path, old, new, message):
    shutil.copytree(runs / "plain", tmp_path / "run")
    damaged(tmp_path / "run", old, new)
    with pytest.raises(InputError, match=message):
        [*results.contigs(tmp_path / "run")]


def test_a_gzipped_table_that_is_cut_off_is_an_error(runs, tmp_path):
    shutil.copytree(runs / "packed", tmp_path / "run")
    file = tmp_path / "run" / "x.calls.tsv.gz"
    file.write_bytes(file.read_bytes()[:-9])
    with pytest.raises(InputError, match=r"x.calls.tsv.gz: this file is damaged"):
        [*results.calls(tmp_path / "run")]


def test_which_run_is_meant_must_be_known(runs, tmp_path):
    with pytest.raises(InputError, match="several runs; say which by its prefix: 'A', 'B'"):
        results.calls(runs / "both")
    with pytest.raises(InputError, match="no run of the prefix 'C'"):
        results.calls(runs / "both", prefix="C")
    with pytest.raises(InputError, match="holds no run"):
        results.calls(tmp_path)
    shutil.copytree(runs / "plain", tmp_path / "run")
    (tmp_path / "run" / "calls.tsv").unlink()
    with pytest.raises(InputError, match=r"calls.tsv: cannot be read"):
        results.calls(tmp_path / "run")


def test_rows_before_a_damaged_one_come(runs, tmp_path):
    """Of a table whose end is damaged the beginning is there."""
    shutil.copytree(runs / "plain", tmp_path / "run")
    with (tmp_path / "run" / "contigs.tsv").open("a") as file:
        file.write("end\n")
    rows = results.contigs(tmp_path / "run")
    assert len([next(rows) for _ in range(5)]) == 5
    with pytest.raises(InputError, match="line 7"):
        next(rows)


def test_the_examples_of_the_documentation_run(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    shutil.copytree(REPOSITORY / "examples", tmp_path / "examples")
    done = doctest.testfile(
        str(REPOSITORY / "docs" / "library.md"),
        module_relative=False,
        optionflags=doctest.ELLIPSIS,
    )
    assert done.attempted > 8
    assert not done.failed


def test_the_package_says_that_it_has_types():
    assert (Path(virnucpro.__file__).parent / "py.typed").is_file()
