"""The drop-in for the published program's container: its command line, its files, its WDL."""

import io
import os
import re
import shutil
import subprocess
import sys
import tarfile
from pathlib import Path

import pytest

import forks
from command import Finished, dna, fasta, made_bundle, results, run_json, table, virnucpro
from conftest import REPOSITORY
from virnucpro.cli.compat import WITHOUT_EFFECT, _gpus, compat

COMPAT = REPOSITORY / "recipes" / "compat"
CLI, CONTIGS, WDL = (COMPAT / f"virnucpro{end}" for end in ("_cli.py", "_contigs.py", ".wdl"))
SAMPLE = fasta((f"NODE_{i}_length", dna(500 + 60 * i, i)) for i in range(12))


@pytest.fixture(scope="module")
def made(tmp_path_factory) -> Path:
    return made_bundle(tmp_path_factory.mktemp("bundles") / "km").path


@pytest.fixture
def here(tmp_path, monkeypatch) -> Path:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "in.fa").write_bytes(SAMPLE)
    return tmp_path


def run(program: Path, *words: object) -> Finished:
    done = forks.run(str(program), [*map(str, words)])
    return Finished(done.returncode, done.stdout.decode(), done.stderr.decode())


def test_the_two_files_are_those_of_predict(here, made):
    words = ("--batch-size", "256", "--threads", "1", "--persistent-models", "--bundle", made)
    done = run(CLI, "in.fa", "x.virnucpro.tsv", "--expected-length", "500", *words)
    assert done.code == 0, done.err
    assert [line for line in done.err.splitlines() if "no effect" in line] == [
        f"--{name.replace('_', '-')} has no effect: {WITHOUT_EFFECT[name]}"
        for name in ("batch_size", "persistent_models")
    ]
    assert virnucpro("predict", "in.fa", "-o", "plain", "--bundle", made).code == 0
    plain = results(here / "plain")
    assert Path("x.virnucpro.tsv").read_bytes() == plain["prediction_results.txt"]
    highest = Path("x.virnucpro_highestscore.csv")
    assert highest.read_bytes() == plain["prediction_results_highestscore.csv"]
    assert {"Modified_ID", "max_score_0", "max_score_1"} <= table(highest)[0].keys()
    assert sorted(path.name for path in here.iterdir()) == [
        "in.fa", "plain", "x.virnucpro.run", "x.virnucpro.tsv", highest.name
    ]  # fmt: skip
    assert run_json(here / "x.virnucpro.run")["command"][:2] == ["virnucpro", "predict"]


REFUSED = {
    "of another length": (("--expected-length", "300", "--bundle", "KM"), 2, "must be 500 for the"),
    "of no published model": (("--expected-length", "400"), 2, "must be 300 or 500 for a"),
    "not here": ((), 1, "`virnucpro bundles download virnucpro-500`"),
    "both": (("--no-gpu", "--use-gpu"), 2, "--no-gpu contradicts"),
    "no GPU": (("--gpus", "9", "--bundle", "mini-500"), 1, "device cuda:9"),
}


@pytest.mark.parametrize(("words", "code", "sentence"), REFUSED.values(), ids=REFUSED)
def test_what_is_refused_leaves_nothing(here, made, monkeypatch, words, code, sentence):
    monkeypatch.setenv("VIRNUCPRO_CACHE", str(here / "none"))
    done = run(CLI, "in.fa", "x.tsv", *(made if word == "KM" else word for word in words))
    assert done.code == code
    assert sentence in " ".join(done.err.split())
    assert "Traceback" not in done.err
    assert not [*here.glob("x*.tsv"), *here.glob("x*.csv")]


def test_exit_codes_are_passed_on_and_an_old_result_stays_until_there_is_a_new_one(here, made):
    words = ("in.fa", "x.tsv", "--bundle", made)
    assert run(CLI, *words).code == 0
    before = Path("x.tsv").read_bytes()
    (here / "in.fa").unlink()
    done = run(CLI, *words)
    assert (done.code, "in.fa" in done.error) == (1, True)
    assert Path("x.tsv").read_bytes() == before
    odd = fasta([*((f"r{i}", dna(200, i)) for i in range(100)), ("odd", "AC!T" * 50)])
    (here / "in.fa").write_bytes(odd)
    assert run(CLI, *words).code == 2
    assert Path("x.tsv").read_bytes() != before
    assert run(CLI, *words, "--allow-partial").code == 0


def test_resume_goes_on_and_replaces_a_run_of_another_input(here, made):
    words = ("in.fa", "x.tsv", "--bundle", made, "--resume")
    assert run(CLI, *words).code == 0
    assert "nothing is done" in run(CLI, *words).err
    (here / "in.fa").write_bytes(fasta([("other", dna(600, 99))]))
    assert run(CLI, *words).code == 0
    assert [row["Modified_ID"] for row in table(Path("x_highestscore.csv"))] == [
        "other_chunk_1",
        "other_chunk_2",
    ]


def test_gpus_of_each_spelling(monkeypatch):
    from virnucpro.devices import machine

    none = {"use_gpu": False, "no_gpu": False, "parallel": False}
    for count in (0, 2):
        monkeypatch.setattr(machine, "gpu_count", lambda count=count: count)
        assert _gpus(None, **none) is None
        assert _gpus(None, **none | {"use_gpu": True}) == "0"
        assert _gpus(None, **none | {"no_gpu": True, "parallel": True}) == "none"
        assert _gpus("1,0", **none | {"parallel": True}) == "1,0"
        assert _gpus(None, **none | {"parallel": True}) == ("all" if count else None)
        assert _gpus(None, **none | {"use_gpu": True, "parallel": True}) == "all"


# Calls of contigs


def scores(*rows: tuple[str, float, float]) -> bytes:
    lines = ["Modified_ID\tIs_Virus\tmax_score_0\tmax_score_1"]
    lines += [f"{name}\t{v >= o}\t{o}\t{v}" for name, o, v in rows]
    return ("\n".join(lines) + "\n").encode()


CHUNKS = scores(
    *((f"NODE_10_x_chunk_{k}", 0.1, 0.9) for k in range(1, 6)),
    ("NODE_2_x_chunk_1", 0.9, 0.1),
    ("k141_7_chunk_1", 0.8, 0.8),
    *((f"NODE_3_x_chunk_{k}", 0.5, 0.9) for k in range(1, 6)),
    *((f"NODE_4_x_chunk_{k}", 0.9, 0.29 + k / 50) for k in range(5)),
)
EXPECTED = [
    ("k141_7", "Ambiguous", "review", "0.0", "1", "0", "0", "1", "0.0", "0.0"),
    ("NODE_2_x", "Non-viral", "low_confidence", "-0.8", "1", "0", "1", "0", "0.0", "1.0"),
    ("NODE_3_x", "Viral", "low_confidence", "0.4", "5", "0", "0", "0", "0.0", "0.0"),
    ("NODE_4_x", "Non-viral", "moderate_confidence", "-0.571", "5", "0", "1", "0", "0.0", "0.2"),
    ("NODE_10_x", "Viral", "high_confidence", "0.8", "5", "5", "0", "0", "1.0", "0.0"),
]


def packed(path: Path, *names: str) -> Path:
    with tarfile.open(path, "w:gz") as tar:
        for name in names:
            data = CHUNKS if name.endswith("csv") else b"Sequence_ID\n"
            info = tarfile.TarInfo(name)
            info.size = len(data)
            tar.addfile(info, io.BytesIO(data))
    return path


@pytest.mark.parametrize("how", ["plain", "tgz", "zst"])
def test_contigs_of_any_assembler(here, how):
    if how == "plain":
        path = here / "s.csv"
        path.write_bytes(CHUNKS)
    else:
        path = packed(here / "s.tgz", "x.tsv", "x_highestscore.csv")
    if how == "zst":
        zstd = pytest.importorskip("backports.zstd")
        (here / "s.tar.zst").write_bytes(zstd.compress(tarfile_of(path)))
        path = here / "s.tar.zst"
    done = run(CONTIGS, path, "out.tsv")
    assert done.code == 0, done.err
    assert [tuple(row.values()) for row in table(here / "out.tsv")] == EXPECTED


def tarfile_of(path: Path) -> bytes:
    import gzip

    return gzip.decompress(path.read_bytes())


def test_contigs_by_a_pattern(here):
    (here / "s.csv").write_bytes(CHUNKS)
    done = run(CONTIGS, "s.csv", "out.tsv", "--id-pattern", r"(NODE_\d+)")
    assert (done.code, "1 of 17 rows" in done.err) == (0, True)
    assert [row["ID"] for row in table(here / "out.tsv")] == [row[0] for row in EXPECTED[1:]]
    (here / "empty.csv").write_bytes(scores())
    assert run(CONTIGS, "empty.csv", "none.tsv").code == 0
    assert table(here / "none.tsv") == []


def test_what_the_contigs_cannot_be_made_from(here):
    (here / "s.csv").write_bytes(CHUNKS)
    packed(here / "two.tgz", "a_highestscore.csv", "b_highestscore.csv")
    (here / "bad.tgz").write_bytes(b"no tar")
    for words, sentence in (
        (("two.tgz",), "holds 2 files"),
        (("s.csv", "--id-col", "Name"), "no column Name"),
        (("s.csv", "--id-pattern", "(x9)"), "give another with --id-pattern"),
        (("bad.tgz",), "virnucpro_contigs: "),
        (("none.csv",), "none.csv"),
    ):
        done = run(CONTIGS, words[0], "out.tsv", *words[1:])
        assert (done.code, sentence in done.err, "Traceback" in done.err) == (1, True, False)
    assert not (here / "out.tsv").exists()


def test_contigs_agree_with_the_margin_in_the_docs(here, made):
    """docs/migrating.md states the rule as a few lines of Python."""
    assert run(CLI, "in.fa", "x.tsv", "--bundle", made).code == 0
    assert run(CONTIGS, "x_highestscore.csv", "out.tsv").code == 0
    margins: dict[str, list[float]] = {}
    for row in table(Path("x_highestscore.csv")):
        name = row["Modified_ID"].rpartition("_chunk_")[0]
        margins.setdefault(name, []).append(float(row["max_score_1"]) - float(row["max_score_0"]))
    for row in table(here / "out.tsv"):
        ds = margins[row["ID"]]
        expected = sum(d * abs(d) ** 0.5 for d in ds) / sum(abs(d) ** 0.5 for d in ds)
        assert float(row["weighted_delta"]) == pytest.approx(expected, abs=6e-4)
        assert int(row["n_chunks"]) == len(ds)


# The WDL

PLACEHOLDER = re.compile(r"~\{(.*?)\}")


def commands() -> dict[str, str]:
    """The command of each task."""
    text = WDL.read_text()
    return dict(
        re.findall(r"^task (\w+) \{.*?command <<<\n(.*?)>>>", text, re.DOTALL | re.MULTILINE)
    )


def filled(command: str, **values: object) -> str:
    """The command with inputs in place, as an engine fills it in."""

    def value(match: re.Match[str]) -> str:
        words = match[1]
        if switch := re.fullmatch(r"true='(.*?)' false='' (\w+)", words):
            return switch[1] if values[switch[2]] else ""
        if optional := re.fullmatch(r"'(.*?)' \+ (\w+)", words):
            found = values[optional[2]]
            return "" if found is None else f"{optional[1]}{found}"
        return str(values[words])

    return PLACEHOLDER.sub(value, command).replace("/opt/", f"{COMPAT}/")


def shell(command: str, folder: Path) -> subprocess.CompletedProcess[str]:
    bin_ = folder / "bin"
    bin_.mkdir(exist_ok=True)
    (bin_ / "python3").write_text(f'#!/bin/sh\nexec {sys.executable} "$@"\n')
    (bin_ / "python3").chmod(0o755)
    environment = {"PATH": f"{bin_}:{os.environ['PATH']}", "PYTHONPATH": str(REPOSITORY / "src")}
    return subprocess.run(
        ["bash", "-c", command],
        cwd=folder,
        env=os.environ | environment,
        capture_output=True,
        text=True,
        check=False,
    )


def test_the_command_lines_of_the_wdl_run(here, made):
    given = {"reads_input": "in.fa", "basename": "in", "expected_length": 500, "bundle": made}
    given |= {"use_gpu": False, "parallel": False, "persist_model": True, "batch_size": 256}
    given |= {"esm_batch_size": 2048, "dnabert_batch_size": None, "resume": True}
    done = shell(filled(commands()["classify_virnucpro"], **given, allow_partial=False), here)
    assert done.returncode == 0, done.stderr
    with tarfile.open("in.virnucpro.tgz") as tar:
        assert tar.getnames() == ["in.virnucpro.tsv", "in.virnucpro_highestscore.csv"]
    with tarfile.open("in.virnucpro.run.tgz") as tar:
        assert "in.virnucpro.run/report.html" in tar.getnames()
    given = {"virnucpro_scores_tsv": "in.virnucpro.tgz", "out_filename": "in.contigs.tsv"}
    given |= {"min_viral_prop": 0.1, "min_nonviral_prop": 0.1, "min_chunks": 5}
    given |= {"id_col": "Modified_ID", "id_pattern": r"^(.+)_chunk_[0-9]+$"}
    done = shell(filled(commands()["classify_virnucpro_contigs"], **given), here)
    assert done.returncode == 0, done.stderr
    rows = table(here / "in.contigs.tsv")
    assert [row["ID"] for row in rows] == [f"NODE_{i}_length" for i in range(12)]


def test_the_wdl_has_the_names_that_pipelines_use():
    text = WDL.read_text()
    assert list(commands()) == ["classify_virnucpro", "classify_virnucpro_contigs"]
    for name in ("File virnuc_pro_scores =", "File contig_classifications ="):
        assert name in text
    for attribute in "acceleratorType acceleratorCount gpuType gpuCount dx_instance_type vm_size":
        assert attribute in text
    known = {name for option in compat.params for name in option.opts}
    used = set(re.findall(r"--[a-z-]+", commands()["classify_virnucpro"]))
    assert used <= known


def test_the_docs_cover_every_argument():
    page = (REPOSITORY / "docs" / "migrating.md").read_text("utf-8")
    rows = [line for line in page.splitlines() if line.startswith("| ")]
    for option in compat.params:
        if option.param_type_name == "option" and option.name != "help":
            assert any(f"`{option.opts[0]}" in row for row in rows), option.opts


def test_miniwdl_finds_no_fault():
    if shutil.which("miniwdl") is None:
        pytest.skip("miniwdl is not installed")
    done = subprocess.run(
        ["miniwdl", "check", "--strict", "--suppress", "UnknownRuntimeKey", WDL],
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stdout + done.stderr
