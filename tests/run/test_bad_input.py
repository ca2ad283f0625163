"""Every bad input through the real command line: one clear sentence, the right exit code."""

import gzip
import os
import re
import resource
import shutil
import subprocess
from functools import partial
from pathlib import Path

import jsonschema
import pytest
from test_outputs_doc import schema

from command import (
    WHOLE,
    Finished,
    dna,
    fasta,
    made_bundle,
    results,
    run_json,
    table,
    virnucpro,
)
from made_reads import ubam
from virnucpro.reads.streams import PIECE_BYTES
from virnucpro.results.schema import (
    CallsTable,
    ChunkScoresTable,
    ContigsTable,
    FrameScoresTable,
)
from virnucpro.storage.lock import NAME as LOCK

HEADERS = {
    "calls.tsv": CallsTable._fields,
    "contigs.tsv": ContigsTable._fields,
    "prediction_results.txt": FrameScoresTable._fields,
    "prediction_results_highestscore.csv": ChunkScoresTable._fields,
}
GOOD = fasta((f"s{i}", dna(600, i)) for i in range(1, 151))


@pytest.fixture(scope="module")
def bundle(tmp_path_factory) -> Path:
    return made_bundle(tmp_path_factory.mktemp("bundles") / "km").path


@pytest.fixture
def predict(tmp_path, bundle):
    """Runs predict on a file of this content, into tmp_path / "run"."""

    def call(data: bytes, name: str = "in.fa", *options: object, **how) -> Finished:
        (tmp_path / name).write_bytes(data)
        arguments = (tmp_path / name, "-o", tmp_path / "run", "--bundle", bundle)
        return virnucpro("predict", *arguments, *options, **how)

    return call


def check_failed(run_dir: Path, sentence: str) -> None:
    """The run is on record as failed, and has no table."""
    document = run_json(run_dir)
    jsonschema.validate(document, schema())
    assert (document["status"], document["exit_code"]) == ("failed", 1)
    assert document["error"] == sentence
    assert sentence in (run_dir / "log.txt").read_text()
    assert results(run_dir) == {}


def test_a_missing_file(tmp_path, bundle):
    done = virnucpro("predict", "no.fa", "-o", "run", "--bundle", bundle, cwd=tmp_path)
    assert done.code == 1
    assert done.error == "no.fa: cannot be read (No such file or directory); check the path"
    assert list(tmp_path.iterdir()) == []


def test_a_directory_as_input(tmp_path, bundle):
    done = virnucpro("predict", ".", "-o", "run", "--bundle", bundle, cwd=tmp_path)
    assert done.code == 1
    assert done.error == ".: there is no file of sequences in this folder; name one that has some"


@pytest.mark.parametrize(
    ("name", "data"),
    [
        ("in.fa", b""),
        ("in.fa.gz", b""),
        ("in.fa.gz", gzip.compress(b"", mtime=0)),
        ("in.fa", b"\n\n"),
    ],
)
def test_an_empty_file_gives_empty_tables(predict, tmp_path, name, data):
    """TRAP D7."""
    assert predict(data, name).code == 0
    found = results(tmp_path / "run")
    for file, columns in HEADERS.items():
        assert found[file] == ("\t".join(columns) + "\n").encode()
    assert found["viral.fasta"] == b""
    document = run_json(tmp_path / "run")
    jsonschema.validate(document, schema())
    assert document["status"] == "complete"
    assert document["counts"]["records"] == document["counts"]["chunks"] == 0


@pytest.mark.parametrize(
    ("data", "words"),
    [
        (b"hello\nworld\n", "in.fa, line 1: not FASTA: a line that begins with '>'"),
        (b"@r1\nACGT\n-\nIIII\n", "in.fa, line 3: not FASTQ: the third line"),
        (b"\x89PNG\r\n\x1a\n\0\0\0\rIHDR", "this is a binary file"),
        (b">ok\nACGT\n>p1 kinase\nMKV\nLEFPQ\n", "line 5: record 2 (p1) holds the letter 'L'"),
        (b">ok\nACGT\n>p1\nMKV\nLEFPQ\n", "looks like protein"),
        (b">a\nAC-GT\n", "line 2: record 1 (a) holds the letter '-'"),
    ],
)
def test_what_is_no_dna_ends_the_run(predict, tmp_path, data, words):
    done = predict(data)
    assert done.code == 1
    assert words in done.error
    check_failed(tmp_path / "run", done.error)


def test_records_that_are_odd_but_fine(predict, tmp_path):
    """TRAP R13.

    Empty, of one letter, lower case, RNA and IUPAC letters: all are listed, none is refused.
    """
    text, iupac = dna(100), "RYSWKMBDHVN"
    records = [
        ("empty", ""),
        ("one", "A"),
        ("plain", text),
        ("lower", text.lower()),
        ("rna", text.replace("T", "U")),
        ("iupac", text + iupac + iupac.lower()),
        ("n_only", "N" * 100),
        ("", text),
    ]
    assert predict(fasta(records)).code == 0
    contigs = table(tmp_path / "run" / "contigs.tsv")
    assert [row["contig"] for row in contigs] == [name for name, _ in records]
    assert [row["status"] for row in contigs] == [
        "empty",
        "too_short",
        *["ok"] * 4,
        "ambiguous",
        "ok",
    ]
    assert [row["chunks"] for row in contigs[:2]] == ["0", "1"]
    assert {row["call"] for row in contigs if row["status"] != "ok"} == {"none"}
    assert (
        len({row["p_virus"] for row in contigs if row["contig"] in ("plain", "lower", "rna")}) == 1
    )
    assert not (tmp_path / "run" / "failed.tsv").exists()


def test_a_bad_letter_after_record_100_fails_that_record_alone(predict, tmp_path):
    data = GOOD.replace(b">s120\n" + dna(600, 120).encode(), b">s120\n" + b"ACGT!" + b"A" * 500)
    done = predict(data, "in.fa", "--write", "all")
    assert done.code == 2
    assert "Traceback" not in done.err
    assert "failed.tsv" in done.err
    (failed,) = table(tmp_path / "run" / "failed.tsv")
    assert (failed["record"], failed["contig"]) == ("120", "s120")
    assert "at base 5, the letter '!'" in failed["reason"]
    contigs = table(tmp_path / "run" / "contigs.tsv")
    assert len(contigs) == 150
    assert [row["contig"] for row in contigs if row["status"] == "failed"] == ["s120"]
    document = run_json(tmp_path / "run")
    jsonschema.validate(document, schema())
    assert (document["status"], document["exit_code"]) == ("partial", 2)
    assert document["counts"]["failed"] == 1
    first = results(tmp_path / "run")
    assert (first["viral.fasta"] + first["others.fasta"]).count(b">") == 149  # nothing of s120
    done = predict(data, "in.fa", "--write", "all", "--allow-partial", "--force")
    assert done.code == 0
    assert run_json(tmp_path / "run")["status"] == "partial"
    assert results(tmp_path / "run") == first


def test_duplicate_ids_are_kept_and_made_unique_where_names_are_all(predict, tmp_path):
    """TRAP D12."""
    records = [("x a", dna(600, 1)), ("x b", dna(600, 2)), ("x_1", dna(100, 3)), ("x", dna(90, 4))]
    assert predict(fasta(records)).code == 0
    run = tmp_path / "run"
    assert [(r["record"], r["contig"]) for r in table(run / "contigs.tsv")] == [
        ("1", "x"),
        ("2", "x"),
        ("3", "x_1"),
        ("4", "x"),
    ]
    ids = [row["Sequence_ID"] for row in table(run / "prediction_results.txt")]
    expected = [
        "x_chunk_1",
        "x_chunk_2",
        "x_2_chunk_1",
        "x_2_chunk_2",
        "x_1_chunk_1",
        "x_3_chunk_1",
    ]
    assert ids == [f"{name}F1" for name in expected]
    chunks = [row["Modified_ID"] for row in table(run / "prediction_results_highestscore.csv")]
    assert chunks == sorted(expected)


def test_a_truncated_gzip_keeps_what_came_before(predict, tmp_path):
    whole = gzip.compress(GOOD)
    done = predict(whole[: len(whole) // 2], "in.fa.gz")
    assert done.code == 1
    contigs = table(tmp_path / "run" / "contigs.tsv")
    assert 20 < len(contigs) < 130
    last = contigs[-1]["contig"]
    assert last == f"s{len(contigs)}"
    assert f"cut off or damaged after record {len(contigs)} ({last})" in done.error
    document = run_json(tmp_path / "run")
    jsonschema.validate(document, schema())
    assert (document["status"], document["exit_code"]) == ("failed", 1)
    assert document["error"] == done.error
    assert document["counts"]["records"] == document["inputs"][0]["records"] == len(contigs)
    assert not document["inputs"][0]["whole"]
    assert document["inputs"][0]["sha256"]
    kept = results(tmp_path / "run")
    complete = fasta((f"s{i}", dna(600, i)) for i in range(1, len(contigs) + 1))
    assert predict(complete, "in.fa", "--force").code == 0
    assert results(tmp_path / "run") == kept


def test_the_rest_of_the_inputs_is_read_after_a_broken_one(tmp_path, bundle):
    whole = gzip.compress(GOOD)
    (tmp_path / "a.fa.gz").write_bytes(whole[: len(whole) // 2])
    (tmp_path / "b.fa").write_bytes(fasta([("last", dna(300))]))
    done = virnucpro("predict", "a.fa.gz", "b.fa", "-o", "r", "--bundle", bundle, cwd=tmp_path)
    assert done.code == 1
    assert "a.fa.gz" in done.error
    assert table(tmp_path / "r" / "contigs.tsv")[-1]["contig"] == "last"


# The run directory


def test_another_run_is_refused_until_forced(predict, tmp_path):
    assert predict(GOOD).code == 0
    before = {path.name: path.read_bytes() for path in (tmp_path / "run").iterdir()}
    done = predict(fasta([("other", dna(300))]), "other.fa")
    assert done.code == 3
    assert "holds a finished run of another input: the content of" in done.error
    assert "choose another folder with -o, or replace the run with --rerun" in done.error
    assert {path.name: path.read_bytes() for path in (tmp_path / "run").iterdir()} == before
    assert predict(fasta([("other", dna(300))]), "other.fa", "--force").code == 0
    assert [row["contig"] for row in table(tmp_path / "run" / "contigs.tsv")] == ["other"]


OTHER = fasta([("other", dna(300))])


def as_if_killed(run: Path) -> None:
    """Leaves of a finished run what one that was killed before its tables would leave."""
    for path in run.iterdir():
        if path.name not in (".virnucpro", "log.txt", "log.jsonl"):
            path.unlink()
    (run / ".virnucpro" / LOCK).touch()


@pytest.mark.parametrize("unfinished", [False, True])
def test_rerun_replaces_a_run_of_another_input(predict, tmp_path, unfinished):
    assert predict(GOOD, "in.fa", "--keep-blocks", "--log-json").code == 0
    run = tmp_path / "run"
    if unfinished:
        as_if_killed(run)
    done = predict(OTHER, "other.fa", "--rerun")
    assert done.code == 0
    assert re.search(r"run: (the unfinished|this folder).*; --rerun replaces it\n", done.err)
    assert predict(OTHER, "other.fa", "-o", tmp_path / "clean").code == 0
    assert results(run) == results(tmp_path / "clean")
    assert {path.name for path in run.iterdir()} == WHOLE
    assert "150 records" not in (run / "log.txt").read_text()


def test_rerun_replaces_a_run_of_another_bundle_or_limit(predict, tmp_path):
    assert predict(GOOD).code == 0
    other = made_bundle(tmp_path / "other", chunk_nt=300).path
    done = predict(GOOD, "in.fa", "--bundle", other, "--rerun")
    assert (done.code, run_json(tmp_path / "run")["bundle"]["chunk_nt"]) == (0, 300)
    done = predict(GOOD, "in.fa", "--bundle", other, "--rerun", "--max-records", "9")
    assert (done.code, run_json(tmp_path / "run")["counts"]["records"]) == (0, 9)


def test_rerun_goes_on_with_this_run(predict, tmp_path):
    assert predict(GOOD, "in.fa", "--keep-blocks").code == 0
    first = results(tmp_path / "run")
    as_if_killed(tmp_path / "run")
    assert predict(GOOD, "in.fa", "--rerun").code == 0
    blocks = run_json(tmp_path / "run")["blocks"]
    assert 0 < blocks["total"] == blocks["reused"]
    assert results(tmp_path / "run") == first
    done = predict(GOOD, "in.fa", "--rerun")
    assert (done.code, "nothing is done" in done.err) == (0, True)


def test_rerun_of_what_comes_through_a_pipe(tmp_path, bundle):
    """It is read once, though the run begins twice."""
    arguments = ("predict", "-", "-o", tmp_path / "run", "--bundle", bundle, "--rerun")
    for data in (GOOD, OTHER):
        assert virnucpro(*arguments, input=data).code == 0
    assert [row["contig"] for row in table(tmp_path / "run" / "contigs.tsv")] == ["other"]


def test_rerun_of_alignments_through_a_pipe_reads_them_to_the_end(predict, tmp_path):
    """The first pass ends at the block that differs, and tells its reader to wait for no more."""
    small = made_bundle(tmp_path / "small", block_nt=100_000).path
    assert predict(GOOD, "in.fa", "--bundle", small, "--keep-blocks").code == 0
    as_if_killed(tmp_path / "run")
    ubam(tmp_path / "in.bam", [(f"r{i}", dna(9_000, i)) for i in range(400)])
    data = (tmp_path / "in.bam").read_bytes()
    assert len(data) > PIECE_BYTES
    arguments = ("predict", "-", "-o", tmp_path / "run", "--bundle", small, "--rerun")
    assert virnucpro(*arguments, input=data).code == 0
    assert run_json(tmp_path / "run")["counts"]["records"] == 400


def test_rerun_takes_no_folder_that_no_run_wrote(predict, tmp_path):
    run = tmp_path / "run"
    run.mkdir()
    (run / "calls.tsv").write_text("mine")
    assert predict(GOOD, "in.fa", "--rerun").code == 3
    assert [(path.name, path.read_text()) for path in run.iterdir()] == [("calls.tsv", "mine")]
    done = predict(GOOD, "in.fa", "--rerun", "--no-resume")
    assert (done.code, done.error) == (
        2,
        "--rerun and --no-resume contradict each other; give one of them",
    )


def test_the_difference_of_another_run_is_named(predict, tmp_path):
    assert predict(GOOD).code == 0
    other = made_bundle(tmp_path / "other", chunk_nt=300).path
    done = predict(GOOD, "in.fa", "--bundle", other)
    assert done.code == 3
    assert re.search(
        r"another run, with another bundle \(sha256 [0-9a-f]{12}\.\.\., named in log.txt there; "
        r"this run: sha256 [0-9a-f]{12}\.\.\.\); choose another with -o, or",
        done.error,
    )


def test_force_removes_no_input_of_its_own(predict, tmp_path):
    assert predict(GOOD).code == 0
    run = tmp_path / "run"
    before = {path.name: path.read_bytes() for path in run.iterdir()}
    done = virnucpro("predict", run / "viral.fasta", "-o", run, "--force", "--bundle", "km")
    assert done.code == 1  # no such bundle
    bundle = made_bundle(tmp_path / "b").path
    done = virnucpro("predict", run / "viral.fasta", "-o", run, "--force", "--bundle", bundle)
    assert done.code == 3
    assert "viral.fasta: this input has the name of a file that the run would write" in done.error
    assert {path.name: path.read_bytes() for path in run.iterdir()} == before


def test_an_empty_folder_and_foreign_files_of_other_names_are_fine(predict, tmp_path):
    run = tmp_path / "run"
    run.mkdir()
    (run / "notes.txt").write_text("mine")
    (run / "sub").mkdir()
    assert predict(GOOD).code == 0
    assert predict(GOOD, "in.fa", "--force").code == 0
    assert (run / "notes.txt").read_text() == "mine"
    assert (run / "sub").is_dir()


@pytest.mark.parametrize("options", [(), ("--force",)])
def test_a_foreign_file_under_one_of_our_names_is_refused(predict, tmp_path, options):
    run = tmp_path / "run"
    run.mkdir()
    (run / "calls.tsv").write_text("mine")
    done = predict(GOOD, "in.fa", *options)
    assert done.code == 3
    assert "run/calls.tsv: this is in the way" in done.error
    assert [path.name for path in run.iterdir()] == ["calls.tsv"]
    assert (run / "calls.tsv").read_text() == "mine"


def test_a_foreign_run_json_is_refused_also_with_force(predict, tmp_path):
    run = tmp_path / "run"
    run.mkdir()
    (run / "run.json").write_text('{"tool": "another"}')
    for options in ((), ("--force",)):
        assert predict(GOOD, "in.fa", *options).code == 3
    assert [path.name for path in run.iterdir()] == ["run.json"]


def test_a_file_as_run_directory(predict, tmp_path):
    (tmp_path / "run").write_text("mine")
    for options in ((), ("--force",)):
        done = predict(GOOD, "in.fa", *options)
        assert done.code == 3
        assert "run: this is a file; choose a folder with -o" in done.error
    assert (tmp_path / "run").read_text() == "mine"


@pytest.fixture(scope="module")
def without_privileges() -> list[str]:
    """A command that takes away what lets root write and read everywhere; none for others."""
    if os.geteuid() != 0:
        return []
    caps = "-dac_override,-dac_read_search"
    through = ["setpriv", f"--inh-caps={caps}", f"--bounding-set={caps}"]
    if shutil.which("setpriv") is None:
        pytest.skip("root may write everywhere, and there is no setpriv to take that away")
    if subprocess.run([*through, "true"], capture_output=True, check=False).returncode != 0:
        pytest.skip("root's privileges cannot be taken away here")
    return through


@pytest.mark.parametrize("options", [(), ("--force",)])
def test_no_permission_to_write(predict, tmp_path, without_privileges, options):
    (tmp_path / "run").mkdir(mode=0o555)
    for out in (tmp_path / "run", tmp_path / "run" / "new"):
        done = predict(GOOD, "in.fa", "-o", out, *options, through=without_privileges)
        assert done.code == 3
        assert done.error.startswith(f"{out}: no permission to write here; choose another")
    assert list((tmp_path / "run").iterdir()) == []


def test_a_sheet_into_a_folder_that_cannot_be_written_to(predict, tmp_path, without_privileges):
    """Said once, before any sample."""
    (tmp_path / "in.fa").write_bytes(GOOD)
    (tmp_path / "sheet.tsv").write_text("sample\tpath\na\tin.fa\nb\tin.fa\n")
    (tmp_path / "closed").mkdir(mode=0o555)
    words = ("predict", "--sample-sheet", "sheet.tsv", "-o", "closed/sh")
    done = virnucpro(*words, cwd=tmp_path, through=without_privileges)
    assert done.code == 3
    assert done.error.startswith("closed/sh: no permission to write here; choose another")
    assert "sample" not in done.err


def test_a_folder_of_blocks_that_cannot_be_written_to(predict, tmp_path, without_privileges):
    """Exit code 3, and no run directory."""
    (tmp_path / "blocks").mkdir(mode=0o555)
    arguments = (GOOD, "in.fa", "-o", "run", "--journal", tmp_path / "blocks" / "new")
    done = predict(*arguments, through=without_privileges)
    assert done.code == 3
    assert "choose another folder with --journal" in done.error
    assert not (tmp_path / "run").exists()


@pytest.mark.parametrize("mode", [0o555, 0o000])
def test_a_report_that_cannot_be_written(predict, tmp_path, without_privileges, mode):
    """By its folder, which may not even be looked into."""
    assert predict(GOOD).code == 0
    (tmp_path / "closed").mkdir(mode=mode)
    arguments = ("report", "run", "-o", tmp_path / "closed" / "page.html")
    done = virnucpro(*arguments, cwd=tmp_path, through=without_privileges)
    assert done.code == 3
    assert "closed: no permission to write here" in done.error


def test_no_permission_to_read(predict, tmp_path, without_privileges):
    (tmp_path / "in.fa").touch(0)
    arguments = ("in.fa", "-o", "run", "--bundle", made_bundle(tmp_path / "km").path)
    done = virnucpro("predict", *arguments, cwd=tmp_path, through=without_privileges)
    assert done.code == 1
    assert done.error == "in.fa: cannot be read (Permission denied); check the path"


def check_full_disk(done: Finished, run: Path) -> None:
    assert done.code == 1
    assert "the disk is full; free some space" in done.error
    assert results(run) == {}
    names = [path.name for path in run.iterdir()]
    assert set(names) <= {".virnucpro", "log.txt", "run.json"}
    if "run.json" in names:
        check_failed(run, done.error)


@pytest.mark.parametrize("limit", [100, 350, 3_000, 16_000])
def test_a_file_that_may_not_grow(predict, tmp_path, limit):
    """As on a full disk; reaches the fingerprint, the log, the first block, and the tables."""
    limited = partial(resource.setrlimit, resource.RLIMIT_FSIZE, (limit, limit))
    done = predict(GOOD * 2, preexec_fn=limited)
    check_full_disk(done, tmp_path / "run")
    assert predict(GOOD * 2).code == 0
    assert predict(GOOD * 2, "in.fa", "-o", tmp_path / "clean").code == 0
    assert results(tmp_path / "run") == results(tmp_path / "clean")


@pytest.fixture
def small_disk(tmp_path):
    folder = tmp_path / "disk"
    folder.mkdir()
    mount = ["mount", "-t", "tmpfs", "-o", "size=64k", "tmpfs", str(folder)]
    if os.geteuid() != 0 or shutil.which("mount") is None:
        pytest.skip("mounting a small disk needs root")
    if subprocess.run(mount, capture_output=True, check=False).returncode != 0:
        pytest.skip("a small disk cannot be mounted here")
    yield folder
    subprocess.run(["umount", str(folder)], check=True)


@pytest.mark.parametrize("filled", [0, 40, 64])
def test_a_full_disk(tmp_path, bundle, small_disk, filled):
    """Full at the start of the run, at its blocks, and at its tables."""
    (tmp_path / "in.fa").write_bytes(GOOD)
    with (small_disk / "ballast").open("wb", buffering=0) as ballast:
        ballast.write(bytes(filled * 1024))
    out = small_disk / "run"
    out.mkdir(exist_ok=True)
    arguments = ("predict", tmp_path / "in.fa", "--bundle", bundle, "-o")
    check_full_disk(virnucpro(*arguments, out), out)
    (small_disk / "ballast").unlink()
    subprocess.run(["mount", "-o", "remount,size=2m", small_disk], check=True)
    assert virnucpro(*arguments, out).code == 0
    assert virnucpro(*arguments, tmp_path / "clean").code == 0
    assert results(out) == results(tmp_path / "clean")


# Names and paths


@pytest.mark.parametrize(
    "name",
    [
        "my reads.v2.fa.fasta",
        "nucleotide.fa.fa",
        "tab\there.fa",
        "été ☃.fa",
        ":warning: [red]x[bold].fa",
        "a_chunk_1F1.fa",
        os.fsdecode(b"latin\xe9.fa"),
    ],
)
def test_paths_are_data(tmp_path, bundle, name):
    """TRAP D11."""
    folder = tmp_path / "nucleotide.fa dir"
    folder.mkdir()
    (folder / name).write_bytes(fasta([("nucleotide.fa", dna(700))]))
    out = folder / f"out {name}"
    done = virnucpro("predict", folder / name, "-o", out, "--bundle", bundle)
    assert done.code == 0, done.err
    if name.isprintable():
        assert f"reading {folder / name} as" in done.err
    assert {path.name for path in out.iterdir()} == WHOLE
    (contig,) = table(out / "contigs.tsv")
    assert contig["contig"] == "nucleotide.fa"
    stem = os.fsencode(name).removesuffix(b".fasta" if name.endswith("fasta") else b".fa")
    sample = stem.decode("utf-8", "replace").replace("\t", "\N{REPLACEMENT CHARACTER}")
    assert contig["sample"] == sample
    assert run_json(out)["inputs"][0]["path"] == str(folder / name)


def test_headers_are_data(predict, tmp_path):
    """TRAP D11."""
    names = [
        "nucleotide",
        "x.fa_chunk_7",
        "a_chunk_1F1",
        "F1",
        "R3",
        "été☃",
        "q\"uote'",
        "semi;colon,comma",
        "..",
        "-",
        "#hash",
        "{brace}%s\\n",
        "=1+1",
    ]
    records = [(f"{name}\tand\twords", dna(150, name)) for name in names]
    assert predict(fasta(records)).code == 0
    run = tmp_path / "run"
    assert [row["contig"] for row in table(run / "contigs.tsv")] == names
    assert [row["contig"] for row in table(run / "calls.tsv")] == names
    ids = [row["Sequence_ID"] for row in table(run / "prediction_results.txt")]
    assert ids == [f"{name}_chunk_1F1" for name in names]
    chunks = [row["Modified_ID"] for row in table(run / "prediction_results_highestscore.csv")]
    assert chunks == sorted((f"{name}_chunk_1" for name in names), key=str.encode)
    calls = {row["contig"]: row["call"] for row in table(run / "contigs.tsv")}
    assert set(calls.values()) == {"virus", "others"}
    viral = [(header, text) for header, text in records if calls[header.split("\t")[0]] == "virus"]
    wrapped = [
        (header, "\n".join(text[i : i + 60] for i in (0, 60, 120))) for header, text in viral
    ]
    assert (run / "viral.fasta").read_bytes() == fasta(wrapped)
