"""The disk that a run takes: said before the start, as an upper end that means something."""

import gzip
import re
import shutil
from collections import namedtuple
from pathlib import Path

import pytest

from command import TABLES, WHOLE, dna, fasta, made_bundle, random_reads, results, virnucpro
from virnucpro.reads import Reading, open_sources
from virnucpro.reads import estimate as disk
from virnucpro.reads.estimate import Shape, disk_needed, shortage
from virnucpro.run.predict import predict
from virnucpro.storage.atomic import OutputFile
from virnucpro.storage.sorting import SortedLines

INPUTS = {
    "reads": random_reads(3_000, 150),
    "pairs": fasta((f"pair_{i // 2} words", dna(150, i)) for i in range(3_000)),
    "contigs": fasta((f"contig_of_a_longer_name_{i}", dna(7_000, i)) for i in range(60)),
    "one": fasta([("chromosome", dna(400_000))]),
    "empty": fasta((str(i), "") for i in range(3_000)),
}
GZ = {f"{name}.gz" for name in TABLES}


@pytest.fixture(scope="module")
def bundle(tmp_path_factory) -> Path:
    return made_bundle(tmp_path_factory.mktemp("bundles") / "km", block_nt=50_000).path


def need_of(path: Path, **choice) -> int:
    (source,) = open_sources([path])
    shape = Shape.of(source, 500)
    need = disk_needed([shape], frames=False, packed=False, compat=True, **choice)
    return need.blocks + need.tables


@pytest.mark.parametrize("name", INPUTS)
@pytest.mark.parametrize(
    "choice",
    [{}, {"write": "all", "parquet": True}, {"write": "none"}],
    ids=["usual", "all", "few"],
)
def test_a_run_takes_no_more_than_was_said_and_not_far_less(
    bundle, tmp_path, monkeypatch, name, choice
):
    path = tmp_path / "in.fa.gz"
    path.write_bytes(gzip.compress(INPUTS[name], 1))
    peak = 0
    close = OutputFile.close

    def counting(file: OutputFile) -> None:
        nonlocal peak
        close(file)
        files = (tmp_path / "run").rglob("*")
        peak = max(peak, sum(p.stat().st_size for p in files if p.is_file()))

    monkeypatch.setattr(OutputFile, "close", counting)
    monkeypatch.setattr(SortedLines.__init__, "__defaults__", (500, 4))
    predict(path, bundle, tmp_path / "run", **choice)
    called_virus = len(INPUTS[name])  # all of it might have been
    needed = need_of(path, sequences=choice.get("write", "viral"))
    assert peak < needed < 2.5 * peak + called_virus


def test_pairs_take_room(tmp_path):
    (tmp_path / "in.fa").write_bytes(INPUTS["pairs"])
    needs = {}
    for pairs in ("none", "interleaved"):
        (source,) = open_sources([tmp_path / "in.fa"], None, Reading(pairs=pairs))
        shape = Shape.of(source, 500)
        assert shape.mates == (3_000 if pairs == "interleaved" else 0)
        needs[pairs] = disk_needed([shape], frames=False, packed=False, compat=True).tables
    rows = [f"in\tpair_{i}\t1\t2\t0.1\t0.2\t0.15\tothers\tok\n" for i in range(1_500)]
    assert needs["interleaved"] > needs["none"] + len("".join(rows))


@pytest.mark.parametrize("packed", [False, True])
@pytest.mark.parametrize("name", ["reads", "contigs", "one"])
def test_the_head_of_an_input_tells_of_the_rest(tmp_path, monkeypatch, packed, name):
    path = tmp_path / "in.fa"
    path.write_bytes(gzip.compress(INPUTS[name]) if packed else INPUTS[name])
    whole = need_of(path)
    monkeypatch.setattr(disk, "HEAD_BYTES", 100_000)
    assert need_of(path) == pytest.approx(whole, rel=0.5 if packed else 0.1)


@pytest.mark.parametrize(
    "data", [b"", b"\x1f\x8b", gzip.compress(INPUTS["reads"], mtime=0)[:5_000]]
)
def test_an_input_that_cannot_be_read_is_not_told_of_here(tmp_path, data):
    (tmp_path / "in.fa").write_bytes(data)
    assert need_of(tmp_path / "in.fa") >= 0


def test_a_disk_that_is_too_small_is_said_before_the_start(tmp_path, monkeypatch):
    usage = namedtuple("usage", "total used free")
    monkeypatch.setattr(shutil, "disk_usage", lambda _: usage(0, 0, 2_000_000_000))
    (tmp_path / "a").mkdir()
    assert shortage([(tmp_path, 1_000_000_000), (tmp_path / "a", 1_000_000_000)]) is None
    sentence = shortage([(tmp_path, 1_000_000_000), (tmp_path / "a", 1_100_000_000)])
    assert sentence is not None
    assert f"{tmp_path}: this run may need up to 2.1 GB, but 2.0 GB are free" in sentence


def test_a_run_that_will_fill_its_disk_begins_with_a_warning(bundle, tmp_path, monkeypatch):
    (tmp_path / "in.fa").write_bytes(INPUTS["reads"])
    usage = namedtuple("usage", "total used free")
    monkeypatch.setattr(shutil, "disk_usage", lambda _: usage(0, 0, 200_000))
    predict(tmp_path / "in.fa", bundle, tmp_path / "run", journal=tmp_path / "journal")
    log = (tmp_path / "run" / "log.txt").read_text()
    assert re.search(r"this may need up to \d\.\d MB of disk\n", log)
    assert re.search(r"warning: .*: this run may need up to .* MB are free; free some space", log)
    assert log.index("warning: ") < log.index("3,000 records")


def test_gzipped_tables_hold_the_same_and_are_the_same_each_time(bundle, tmp_path):
    (tmp_path / "in.fa").write_bytes(INPUTS["pairs"])
    arguments = ("predict", tmp_path / "in.fa", "--bundle", bundle, "-q", "-o")
    assert virnucpro(*arguments, tmp_path / "plain").code == 0
    runs = [tmp_path / "a", tmp_path / "b"]
    for run in runs:
        assert virnucpro(*arguments, run, "--tables", "gz").code == 0
        assert {path.name for path in run.iterdir()} == WHOLE - set(TABLES) | GZ
    for name in TABLES:
        data = (runs[0] / f"{name}.gz").read_bytes()
        assert data == (runs[1] / f"{name}.gz").read_bytes()
        assert data[3:8] == bytes(5)  # no name, no time
        assert gzip.decompress(data) == (tmp_path / "plain" / name).read_bytes()
    assert virnucpro(*arguments, runs[0], "--force").code == 0
    assert results(runs[0]) == results(tmp_path / "plain")
    assert not GZ & {path.name for path in runs[0].iterdir()}


def test_the_published_tables_can_be_left_out(bundle, tmp_path):
    (tmp_path / "in.fa").write_bytes(INPUTS["reads"])
    arguments = ("predict", tmp_path / "in.fa", "--bundle", bundle, "-q", "-o")
    assert virnucpro(*arguments, tmp_path / "all").code == 0
    assert virnucpro(*arguments, tmp_path / "few", "--no-compat-tables").code == 0
    kept = {
        "calls.tsv",
        "contigs.tsv",
        "regions.tsv",
        "regions.bed",
        "viral.fasta",
        "viral_names.txt",
    }
    everything = results(tmp_path / "all")
    assert results(tmp_path / "few") == {name: everything[name] for name in kept}


def test_a_finished_run_takes_another_form(bundle, tmp_path):
    (tmp_path / "in.fa").write_bytes(INPUTS["reads"])
    arguments = ("predict", tmp_path / "in.fa", "--bundle", bundle, "-o", tmp_path / "run")
    assert virnucpro(*arguments, "--keep-blocks").code == 0
    plain = results(tmp_path / "run")
    done = virnucpro(*arguments, "--keep-blocks", "--tables", "gz", "--no-compat-tables")
    assert done.code == 0
    other = "the setting tables was plain, the setting compat_tables was on"
    assert f"but {other}: its results are made again" in done.err
    names = {path.name for path in (tmp_path / "run").iterdir()}
    assert names & (GZ | set(TABLES)) == {"calls.tsv.gz", "contigs.tsv.gz"}
    assert virnucpro(*arguments).code == 0
    assert results(tmp_path / "run") == plain
