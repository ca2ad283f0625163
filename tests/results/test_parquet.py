"""Parquet: the same rows as the text tables, typed, and as safe on the disk."""

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st
from test_tables import PROPHAGES, Disk, fasta_of, made_runs

from command import WHOLE, dna, fasta, made_bundle, table, virnucpro
from made_blocks import MadeContig, blocks_of_made, journal_in
from virnucpro.calls import Rule
from virnucpro.errors import SettingsError, VirnucproError
from virnucpro.reads import open_sources
from virnucpro.records import Records
from virnucpro.results.judge import MeanJudge
from virnucpro.results.write import Wanted, write_tables
from virnucpro.run.predict import predict
from virnucpro.storage.atomic import OutputFile

parquet = pytest.importorskip("pyarrow.parquet")

JUDGE = MeanJudge(Rule("frames"), 4)


def staged(folder: Path, contigs: list[MadeContig], cuts: list[int]):
    """Files and journal of made contigs, their input, and what a first pass saw of it."""
    (folder / "in.fasta").write_bytes(fasta_of(contigs))
    files, journal = journal_in(folder / "run")
    for scored in blocks_of_made(contigs, cuts):
        journal.commit(scored)
    (source,) = open_sources([folder / "in.fasta"])
    list(source.contigs())
    return files, journal, folder / "in.fasta", source.seen


def as_text(value: object) -> str:
    if value is None:
        return ""
    return f"{value:.6f}" if isinstance(value, float) else str(value)


def check_same(binary: Path, text: Path) -> None:
    rows = [
        {k: as_text(v) for k, v in row.items()} for row in parquet.read_table(binary).to_pylist()
    ]
    assert rows == table(text)


@settings(deadline=None, max_examples=25, suppress_health_check=[HealthCheck.too_slow])
@given(made_runs(), st.lists(st.integers(0, 40)), st.sampled_from([1, 5, 1_000]))
@example([], [], 5)
@example(PROPHAGES, [10, 24, 60, 75], 20)
def test_both_forms_hold_the_same_rows(tmp_path_factory, contigs, cuts, group):
    files, journal, path, seen = staged(tmp_path_factory.mktemp("made"), contigs, cuts)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("virnucpro.results.parquet.GROUP_ROWS", group)
        wanted = Wanted(parquet=True)
        counts = write_tables(files, journal, JUDGE, open_sources([path]), [seen], wanted).counts
    check_same(files.calls_parquet, files.calls)
    check_same(files.contigs_parquet, files.contigs)
    groups = parquet.ParquetFile(files.calls_parquet).num_row_groups
    assert (groups > 1) <= (counts.chunks > group)
    assert not counts.chunks or groups >= 1


def test_columns_are_those_of_the_text_tables_with_types(tmp_path):
    files, journal, path, seen = staged(tmp_path, PROPHAGES, [])
    wanted = Wanted(parquet=True)
    write_tables(files, journal, JUDGE, open_sources([path]), [seen], wanted)
    types = {f.name: str(f.type) for f in parquet.read_schema(files.calls_parquet)}
    assert (types["start"], types["p_virus"], types["max_p_virus"]) == ("int64", "double", "float")
    assert types["call"].startswith("dictionary<values=string")
    assert (types["chunk"], types["record"]) == ("int32", "int64")
    assert list(types) == files.calls.read_text().split("\n")[0].split("\t")
    types = {f.name: str(f.type) for f in parquet.read_schema(files.contigs_parquet)}
    assert list(types) == files.contigs.read_text().split("\n")[0].split("\t")
    assert {types[name] for name in ("record", "length_nt", "chunks")} == {"int64"}
    assert {types[name] for name in ("p_virus", "max_p_virus", "q_value")} == {"double"}
    assert {types[name] for name in ("sample", "contig", "origin", "note")} == {"string"}
    contigs = parquet.read_table(files.contigs_parquet, columns=["origin", "contig"])
    assert contigs["origin"].null_count == len(contigs) > contigs["contig"].null_count == 0
    called = parquet.read_table(files.calls_parquet, columns=["p_virus", "call"])
    p_virus = called["p_virus"].to_numpy()
    assert {0.875, 0.125} == set(p_virus[~np.isnan(p_virus)])  # in full, not with six decimals
    assert called["p_virus"].null_count == sum(c == "none" for c in called["call"].to_pylist()) > 0


def test_a_name_that_is_no_text_is_marked(tmp_path):
    files, journal, path, seen = staged(tmp_path, [PROPHAGES[0]], [])
    scored = next(journal.scored())
    record = replace(scored.records[0], name="raw \udce9 é")
    journal.commit(replace(scored, records=Records.of([record])))
    wanted = Wanted(parquet=True)
    write_tables(files, journal, JUDGE, open_sources([path]), [seen], wanted)
    for name in (files.calls_parquet, files.contigs_parquet):
        assert set(parquet.read_table(name)["contig"].to_pylist()) == {"raw \ufffd é"}


def test_a_real_run_and_its_choice(tmp_path):
    made_bundle(tmp_path / "km", block_nt=5_000)
    (tmp_path / "in.fa").write_bytes(fasta((f"c{i}", dna(200 * i, i)) for i in range(30)))
    arguments = ("predict", tmp_path / "in.fa", "--bundle", tmp_path / "km", "-q", "-o")
    run = tmp_path / "run"
    assert virnucpro(*arguments, run, "--parquet", "--keep-blocks").code == 0
    names = {"calls.parquet", "contigs.parquet"}
    assert {p.name for p in run.iterdir()} - {".virnucpro"} == WHOLE | names
    for name in ("calls", "contigs"):
        check_same(run / f"{name}.parquet", run / f"{name}.tsv")
    before = {name: (run / name).read_bytes() for name in names}
    assert virnucpro(*arguments, tmp_path / "again", "--parquet", "--tables", "gz").code == 0
    assert before == {name: (tmp_path / "again" / name).read_bytes() for name in names}
    assert virnucpro(*arguments, run).code == 0  # without, they go
    assert {p.name for p in run.iterdir()} == WHOLE


def test_without_pyarrow_one_sentence_says_what_to_do(tmp_path, monkeypatch):
    made_bundle(tmp_path / "km")
    (tmp_path / "in.fa").write_bytes(b">a\nACGT\n")
    monkeypatch.setattr("virnucpro.results.parquet.find_spec", lambda _: None)
    with pytest.raises(SettingsError, match=r"--parquet needs pyarrow.*\.\[parquet\]") as told:
        predict(tmp_path / "in.fa", tmp_path / "km", tmp_path / "run", parquet=True)
    assert told.value.exit_code == 2
    assert not (tmp_path / "run").exists()
    assert predict(tmp_path / "in.fa", tmp_path / "km", tmp_path / "run").exit_code == 0


def test_a_full_disk_leaves_neither(tmp_path, monkeypatch):
    files, journal, path, seen = staged(tmp_path, PROPHAGES, [30])

    def write(room: int) -> int:
        disk = Disk(room)
        with monkeypatch.context() as patch:
            patch.setattr(OutputFile, "write", lambda file, data: disk(file, data))
            wanted = Wanted(parquet=True)
            write_tables(files, journal, JUDGE, open_sources([path]), [seen], wanted)
        return disk.room

    needed = 1000 - write(1000)
    assert needed > 20
    for path_ in files.results:
        path_.unlink(missing_ok=True)
    for room in range(needed):
        with pytest.raises(VirnucproError, match="disk is full"):
            write(room)
        assert [p.name for p in files.run_dir.iterdir()] == [".virnucpro"]
