"""A run that is ended anywhere and started again is, to the byte, one that was never disturbed.

Every run here is a process of its own, and every end a real signal or a real fault.
"""

import gzip
import json
import os
import random
import re
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path

import jsonschema
import pytest
from test_outputs_doc import schema

import forks
from command import (
    SUPPORT,
    WHOLE,
    Finished,
    dna,
    fasta,
    made_bundle,
    random_reads,
    results,
    run_json,
    table,
    virnucpro,
)
from stub_program import MARK
from virnucpro.results.files import RunFiles
from virnucpro.run.directory import written_in
from virnucpro.run.predict import predict as whole_run

RECORDS = [(f"s{i % 9} words", dna(300 + 177 * i, i)) for i in range(14)]
BLOCK_NT = 3_000  # eight blocks
STUB = str(SUPPORT / "stub_program.py")
_CLEAN: dict[tuple, dict[str, bytes]] = {}


@pytest.fixture
def here(tmp_path, monkeypatch) -> Path:
    """A working directory with an input of some blocks, a bundle, and an undisturbed run."""
    monkeypatch.chdir(tmp_path)
    made_bundle(tmp_path / "km", block_nt=BLOCK_NT)
    (tmp_path / "in.fa").write_bytes(fasta(RECORDS))
    return tmp_path


def predict(*flags: object, inputs: tuple = ("in.fa",), out: str = "run", **how) -> Finished:
    return virnucpro("predict", *inputs, "-o", out, "--bundle", "km", *flags, **how)


def stub(faults: str, *flags: object) -> Finished:
    """predict with faults; see stub_program."""
    done = forks.run(STUB, [faults, *arguments(*flags)])
    return Finished(done.returncode, done.stdout.decode(), done.stderr.decode())


def arguments(*flags: object) -> list[str]:
    return ["predict", "in.fa", "-o", "run", "--bundle", "km", *map(str, flags)]


def clean(*flags: object, inputs: tuple = ("in.fa",)) -> dict[str, bytes]:
    """The results of an undisturbed run, made once for each input and set of flags."""
    key = (flags, *((name, Path(name).read_bytes()) for name in inputs))
    if key not in _CLEAN:
        assert predict("-q", *flags, inputs=inputs, out="clean").code in (0, 2)
        _CLEAN[key] = results(Path("clean"))
    return _CLEAN[key]


def blocks(out: str = "run") -> list[Path]:
    return sorted(RunFiles(Path(out)).blocks.glob("*.block"))


def stopped_after(number: int, *flags: object) -> None:
    """A run that is out of memory once it has finished so many blocks."""
    done = stub(f"memory={number}", *flags)
    assert done.code == 4, done.err
    assert len(blocks()) == number


def scored() -> list[int]:
    """The blocks that stubs have scored so far."""
    return [int(line) for line in Path("scored.txt").read_text().splitlines()]


def check(expected: dict[str, bytes], reused: int, damaged: int = 0, out: str = "run") -> None:
    document = run_json(Path(out))
    jsonschema.validate(document, schema())
    assert results(Path(out)) == expected
    found = document["blocks"]
    assert (found["reused"], found["damaged"]) == (reused, damaged)


# Ended at every step


@pytest.mark.parametrize(
    ("how", "every", "options"),
    [
        ("SIGKILL", 1, ()),
        ("SIGTERM", 3, ()),
        ("SIGINT", 3, ("--journal", "JOURNAL")),
        ("SIGTERM", 3, ("--force",)),
        ("SIGKILL", 9, ("--parquet", "--write", "all")),
    ],
)
def test_a_run_that_is_ended_at_any_step(here, how, every, options):
    """TRAP D4, R5."""
    options = [str(here / "journal") if word == "JOURNAL" else word for word in options]
    (here / "in.fa").write_bytes(fasta(RECORDS[:5]))  # two blocks
    command = [sys.executable, SUPPORT / "crash_points.py", here, how, str(every), *options]
    done = subprocess.run(command, capture_output=True, text=True, check=False, timeout=300)
    assert done.returncode == 0, done.stderr[-2_000:]
    assert int(done.stdout.split()[-1]) > 30


def test_a_small_network_that_is_killed_twice(here):
    """TRAP D4, R5: mini-500 with small blocks, killed at random moments, once while it goes on."""
    from virnucpro.bundle import load

    small = here / "small"
    small.mkdir()
    for path in load("mini-500").path.iterdir():
        text = path.read_bytes()
        if path.name == "bundle.toml":
            lines = text.decode().splitlines(keepends=True)
            text = "".join(
                "block_nt = 3000\n" if x.startswith("block_nt") else x for x in lines
            ).encode()
        (small / path.name).write_bytes(text)
    command = ["predict", "in.fa", "-o", "run", "--bundle", "small", "-q"]
    rng = random.Random(0)
    kept = 0
    for _ in range(2):
        with forks.Fork("virnucpro", command, network=True) as process:
            aim = kept + rng.randint(1, 3)
            wait_for(lambda: len(blocks()) >= aim, process)  # noqa: B023
            time.sleep(rng.random() / 20)
            process.kill()
            process.wait()
            no_process_of(process.pid)
        kept = len(blocks())
    for out in ("run", "clean"):
        assert whole_run("in.fa", "small", out).status == "complete"
    assert run_json(Path("run"))["blocks"]["reused"] == kept
    assert results(Path("run")) == results(Path("clean"))


def wait_for(happened: Callable[[], bool], process: subprocess.Popen | forks.Fork) -> None:
    deadline = time.monotonic() + 60
    while not happened():
        assert process.poll() is None, "it ended before"
        assert time.monotonic() < deadline
        time.sleep(0.002)


def no_process_of(session: int) -> None:
    """Nothing is left of what was started in a session of its own."""
    with pytest.raises(ProcessLookupError):
        os.killpg(session, 0)


# What is finished is not computed again


def test_a_run_goes_on_where_it_was_stopped(here):
    expected = clean()
    stopped_after(3)
    assert stub("").code == 0
    assert scored() == [0, 1, 2, 3, *range(3, run_json(Path("run"))["blocks"]["total"])]
    check(expected, reused=3)
    assert {path.name for path in (here / "run").iterdir()} == {*expected, *WHOLE}
    assert "3 of 8 blocks were finished before" in (here / "run" / "log.txt").read_text()


def test_out_of_memory_keeps_what_is_finished_and_says_so(here):
    """TRAP R7."""
    stopped_after(2)
    document = run_json(here / "run")
    jsonschema.validate(document, schema())
    assert (document["status"], document["exit_code"]) == ("failed", 4)
    assert "--batch-tokens 64" in document["error"]
    assert document["outputs"] == {}
    assert results(here / "run") == {}


def test_a_finished_run_is_left_as_it_is(here):
    assert predict("-q").code == 0
    before = {path.name: (path.read_bytes(), path.stat().st_mtime_ns) for path in files()}
    done = predict()
    assert done.code == 0
    assert re.search(r"this run was finished on \d{4}-\d\d-\d\d \d\d:\d\d UTC \(comp", done.err)
    assert "nothing is done" in done.err
    assert predict("--no-resume").code == 0
    (here / "moved.fa").write_bytes((here / "in.fa").read_bytes())
    assert predict("--sample", "in", inputs=("moved.fa",)).code == 0
    assert before == {path.name: (path.read_bytes(), path.stat().st_mtime_ns) for path in files()}


def test_a_finished_foreign_or_busy_folder_is_known_before_the_weights_are_read(here):
    weights = here / "km" / "kmer.safetensors"
    assert predict("-q").code == 0
    kept = weights.read_bytes()
    weights.write_bytes(b"")
    done = predict()
    assert done.code == 0, done.err
    assert "nothing is done" in done.err
    (here / "other").mkdir()
    (here / "other" / "calls.tsv").write_text("mine")
    done = predict(out="other")
    assert (done.code, "in the way" in done.error) == (3, True)
    weights.write_bytes(kept)
    process = started("slow=30", "--force")
    wait_for(Path("scored.txt").exists, process)
    weights.write_bytes(b"")
    done = predict()
    process.kill()
    process.communicate()
    assert (done.code, "in use" in done.error) == (3, True)
    done = predict("--force", out="run")
    assert done.code == 1
    assert "kmer.safetensors: its sha256 is not the one" in done.error
    assert run_json(here / "run")["status"] == "failed"


def test_a_kill_while_the_page_is_made_again_leaves_nothing(here):
    """What write_atomic leaves lies in the hidden folder, which the next process removes."""
    assert predict("-q").code == 0
    there = {path.name for path in (here / "run").iterdir()}
    (here / "run" / "report.html").unlink()
    code = (
        "import os; from pathlib import Path; from virnucpro import cli; "
        "Path.replace = lambda *_: os._exit(9); cli.main()"
    )
    command = [sys.executable, "-c", code, *arguments("-q")]
    assert subprocess.run(command, check=False, timeout=60).returncode == 9
    assert predict("-q").code == 0
    assert {path.name for path in (here / "run").iterdir()} == there


def test_what_a_run_does_not_write_again_goes_and_what_is_a_users_stays(here):
    every = ("--log-json", "--parquet", "--write", "all", "--tables", "gz")
    there = WHOLE | {"in.fa"}
    assert predict("-q", *every).code == 0
    assert (here / "run" / "log.jsonl").exists()
    (here / "run" / "in.fa").write_text("mine")
    assert predict("-q", "--threshold", 0.7).code == 0
    assert {path.name for path in (here / "run").iterdir()} == there
    (here / "run" / "log.jsonl").write_text("mine")
    for flags in (("--force",), ("--threshold", 0.6), ("--threshold", 0.6, "--log-json")):
        done = predict("-q", *flags)
        assert (done.code, "log.jsonl: this is in the way" in done.error) == (3, True)
    assert (here / "run" / "log.jsonl").read_text() == "mine"


def test_the_log_for_programs_is_of_all_of_a_run_or_not_there(here):
    for flags in ((), ("--log-json",), ("--force", "--log-json")):
        assert stub("kill=4", "--log-json", "--force").code == -9
        before = (here / "run" / "log.jsonl").read_bytes()
        assert predict(*flags).code == 0
        if "--log-json" not in flags:
            assert not (here / "run" / "log.jsonl").exists()
        else:
            log = (here / "run" / "log.jsonl").read_bytes()
            assert log.startswith(before) == ("--force" not in flags)
            assert b"results are in" not in log
            assert len(log) > 300


def files() -> list[Path]:
    return [path for path in Path("run").iterdir() if path.is_file()]


def test_a_finished_run_with_failures_is_as_partial_as_before(here):
    flags = ("-q", "--max-length", 1_500)
    for _ in range(2):
        assert predict(*flags).code == 2
    assert predict(*flags, "--allow-partial").code == 0
    failed = table(here / "run" / "failed.tsv")
    longer = [str(i) for i, (_, text) in enumerate(RECORDS, 1) if len(text) > 1_500]
    assert [row["record"] for row in failed] == longer
    assert failed[0]["reason"] == "it has 1,539 nt, more than the 1,500 of --max-length"
    done = predict("-q")
    assert done.code == 3
    assert "with another max_length (1500; this run: none)" in done.error


@pytest.mark.parametrize(
    ("name", "damage", "keep"),
    [
        ("calls.tsv", "missing", False),
        ("calls.tsv", "changed", True),
        ("viral.fasta", "changed", False),
        ("prediction_results.txt", "missing", True),
    ],
)
def test_a_result_that_is_missing_or_changed_is_made_again(here, name, damage, keep):
    flags = ["-q"] + ["--keep-blocks"] * keep
    assert stub("", *flags).code == 0
    expected, once = results(here / "run"), scored()
    path = here / "run" / name
    if damage == "missing":
        path.unlink()
    else:
        path.write_bytes(path.read_bytes()[:-1] + b"!")
    done = stub("", *flags)
    assert done.code == 0
    check(expected, reused=len(once) if keep else 0)
    assert scored() == (once if keep else once * 2)
    warned = (
        f"warning: the run here was finished, but {name} is missing or changed: its results are "
        "made again\n"
    )
    assert done.err == warned
    assert f" {warned}" in (here / "run" / "log.txt").read_text()


def test_run_json_lists_every_result(here):
    every = ("-q", "--write", "all", "--parquet", "--log-json", "--max-length", 2_000)
    assert predict(*every).code == 2
    outputs = set(run_json(here / "run")["outputs"])
    made = {"report.html", "virnucpro_mqc.json", "virnucpro_general_mqc.json"}
    made |= {"run.json", "log.txt", "log.jsonl"}
    assert {path.name for path in files()} == outputs | made
    assert {Path(name).suffix for name in outputs} == {
        *(".tsv", ".bed", ".parquet", ".txt", ".csv", ".fasta")
    }
    assert written_in(here / "run") == outputs | made


def test_quiet_does_not_hide_that_calls_were_made_again(here):
    assert stub("", "-q").err == ""
    done = stub("", "-q", "--threshold", 0.9)
    assert done.err == (
        "warning: the run here was finished, but the threshold was 0.5: its results are made "
        "again\n"
    )
    assert stub("", "-q", "--threshold", 0.9).err == ""


@pytest.mark.parametrize("change", [("--threshold", 0.8), ("--sample", "lake")])
def test_options_of_the_tables_repeat_only_these(here, change):
    expected = clean(*change)
    assert stub("", "--keep-blocks").code == 0
    once = scored()
    done = stub("", "--keep-blocks", *change)
    assert done.code == 0
    assert "warning: the run here was finished, but the" in done.err
    assert scored() == once
    check(expected, reused=len(once))
    assert blocks()
    assert stub("", *change).code == 0
    assert blocks()  # nothing was done
    assert stub("").code == 0
    assert scored() == once
    assert not blocks()


@pytest.mark.parametrize("change", [("--threshold", 0.8), ("--sample", "lake")])
def test_options_of_the_tables_may_change_before_a_run_goes_on(here, change):
    expected = clean(*change)
    stopped_after(3)
    assert stub("", *change).code == 0
    check(expected, reused=3)


def test_a_retry_in_another_folder_goes_on(here):
    expected = clean()
    done = stub("memory=3", "--journal", "journal")
    assert done.code == 4
    assert len(list(Path("journal/.virnucpro/blocks").iterdir())) == 3
    assert predict("--journal", "journal", out="retry").code == 0
    check(expected, reused=3, out="retry")
    assert list(Path("journal").iterdir()) == []
    assert predict("--journal", "journal").code == 0
    check(expected, reused=0)


def test_blocks_of_another_run_in_a_shared_folder_stay(here):
    """A finished run beside them, --force, and a run directory that is named by mistake."""
    assert predict("--journal", "j", out="one").code == 0
    (here / "two.fa").write_bytes(fasta(RECORDS[3:]))
    (here / "in.fa").rename(here / "one.fa")
    (here / "two.fa").rename(here / "in.fa")
    expected = clean()
    assert stub("memory=3", "--journal", "j").code == 4
    kept = files_below(here / "j")
    done = predict("--journal", "j", inputs=("one.fa",), out="one")
    assert done.code == 3  # the sample is another now
    assert "j: the unfinished run here read another input" in done.error
    assert results(here / "one").keys() == expected.keys()
    done = predict("--journal", "j", "--sample", "in", inputs=("one.fa",), out="one")
    assert (done.code, "nothing is done" in done.err) == (0, True)
    done = predict("--journal", "j", "--force", out="three")
    assert done.code == 3
    assert "j: holds the blocks of another run" in done.error
    assert "another folder with --journal" in done.error
    assert files_below(here / "j") == kept
    assert predict("--journal", "j").code == 0
    check(expected, reused=3)


def test_a_finished_run_does_not_care_whose_blocks_lie_in_the_shared_folder(here):
    assert predict("--journal", "j", out="one").code == 0
    assert stub("memory=3", "--journal", "j", "--max-length", 2_000).code == 4
    kept = files_below(here / "j")
    assert predict("--journal", "j", out="one").code == 0
    done = predict("--journal", "j", "--threshold", 0.8, out="one")
    assert done.code == 3
    assert done.error.startswith("j: this folder holds another run, with another max_le")
    assert "choose another with --journal" in done.error
    assert files_below(here / "j") == kept


def test_a_run_directory_is_no_folder_for_the_blocks_of_another(here):
    stopped_after(3)
    kept = files_below(here / "run")
    for flags in ((), ("--force",)):
        done = predict("--journal", "run", *flags, out="other")
        assert done.code == 3
        assert "run: this is the run directory of an unfinished run" in done.error
    assert files_below(here / "run") == kept


def files_below(folder: Path) -> dict[Path, bytes]:
    return {p: p.read_bytes() for p in folder.rglob("*") if p.is_file() and p.name != "lock"}


def test_a_journal_in_the_run_directory_is_the_same_as_none(here):
    assert stub("memory=3", "--journal", here / "run").code == 4
    assert stub("").code == 0
    assert run_json(here / "run")["blocks"]["reused"] == 3


# Damage


def flipped(path: Path) -> None:
    data = bytearray(path.read_bytes())
    data[len(data) * 2 // 3] ^= 1
    path.write_bytes(data)


def of_another(path: Path) -> None:
    path.write_bytes(blocks()[2].read_bytes())


@pytest.mark.parametrize("damage", [flipped, of_another])
def test_a_damaged_block_is_computed_again_and_reported(here, damage):
    """TRAP D5."""
    expected = clean()
    stopped_after(4)
    damage(blocks()[1])
    done = stub("")
    assert done.code == 0
    assert "000000001.block: this finished block is missing or damaged" in done.err
    assert "computed again" in done.err
    check(expected, reused=3, damaged=1)
    assert scored()[5:] == [1, 4, 5, 6, 7]


def test_a_block_that_is_damaged_when_tables_are_made_is_computed_again(here):
    expected = clean()
    stopped_after(3)
    done = stub("damage")
    assert done.code == 0
    assert "000000000.block: this finished block is missing or damaged; it is computed" in done.err
    check(expected, reused=2, damaged=1)
    assert scored()[4:] == [3, 4, 5, 6, 7, 0]


@pytest.mark.parametrize("how", [(), ("--keep-blocks",)])
def test_blocks_of_another_bundle_are_never_taken(here, how):
    """TRAPS D3: nothing but the blocks is left to tell of what bundle they are."""
    expected = clean(*how)
    made_bundle(here / "km2", chunk_nt=500, block_nt=BLOCK_NT)
    assert stub("memory=3", "--bundle", here / "km2").code == 4
    files = RunFiles(here / "run")
    files.fingerprint.unlink()
    files.run_json.unlink()
    done = stub("", *how)
    assert done.code == 0
    assert done.err.count("this finished block is of another run; it is computed again") == 3
    check(expected, reused=0, damaged=3)


def test_blocks_behind_a_link_are_not_replaced(here):
    assert predict("--keep-blocks").code == 0
    files = RunFiles(here / "run")
    files.blocks.rename(here / "elsewhere")
    files.blocks.symlink_to(here / "elsewhere")
    before = len(list((here / "elsewhere").iterdir()))
    done = predict("--force", "--max-length", 100)
    assert (done.code, f"{Path('run/.virnucpro/blocks')}: this is in the way" in done.error) == (
        3,
        True,
    )
    assert len(list((here / "elsewhere").iterdir())) == before == 8


def test_a_missing_block_is_computed(here):
    expected = clean()
    stopped_after(4)
    blocks()[0].unlink()
    assert stub("").code == 0
    check(expected, reused=3)


def test_what_lies_in_the_blocks_folder_by_mistake_is_no_block(here):
    expected = clean()
    stopped_after(4)
    folder = RunFiles(here / "run").blocks
    for name in (".000000001.block.1.ab", "notes.txt", "x.block", "000000900.block"):
        (folder / name).write_bytes(b"mine")
    assert stub("").code == 0
    check(expected, reused=4)


# Another input


def letter(records: list[tuple[str, str]]) -> list[tuple[str, str]]:
    name, text = records[5]
    other = "A" if text[7] != "A" else "C"
    return [*records[:5], (name, text[:7] + other + text[8:]), *records[6:]]


CHANGES = {
    "a letter": (letter, "record 6 (s5) of sample in had other letters"),
    "fewer": (lambda r: r[:6], "record 7 (s6) of sample in was in it"),
}


@pytest.mark.parametrize(("change", "words"), CHANGES.values(), ids=CHANGES)
def test_an_unfinished_run_of_another_input_is_refused_and_the_record_named(here, change, words):
    """TRAP D9, D10."""
    stopped_after(5)
    before = {path: path.read_bytes() for path in blocks()}
    stat = (here / "in.fa").stat()
    (here / "in.fa").write_bytes(fasta(change(RECORDS)))
    os.utime(here / "in.fa", ns=(stat.st_atime_ns, stat.st_mtime_ns))
    done = stub("")
    assert done.code == 3
    assert words in done.error
    assert {path: path.read_bytes() for path in blocks()} == before
    assert results(here / "run") == {}
    (here / "in.fa").write_bytes(fasta(RECORDS))
    assert stub("").code == 0
    assert run_json(here / "run")["blocks"]["reused"] == 5


@pytest.mark.parametrize("same_size", [True, False])
def test_a_finished_run_of_another_input_is_refused(here, same_size):
    """TRAP D10: The same name, the same times, and where it says so the same size."""
    assert predict("-q", "--keep-blocks").code == 0
    before = results(here / "run")
    stat = (here / "in.fa").stat()
    records = letter(RECORDS) if same_size else RECORDS[1:]
    (here / "in.fa").write_bytes(fasta(records))
    os.utime(here / "in.fa", ns=(stat.st_atime_ns, stat.st_mtime_ns))
    assert ((here / "in.fa").stat().st_size == stat.st_size) == same_size
    done = predict("-q")
    assert done.code == 3
    assert "finished run of another input: the content of in.fa is not that of in.fa" in done.error
    assert results(here / "run") == before
    done = predict("-q", inputs=("in.fa", "km/../other.fa"))
    assert done.code == 1
    (here / "other.fa").write_bytes(fasta(RECORDS))
    done = predict("-q", inputs=("in.fa", "other.fa"))
    assert (done.code, "a finished run of 1 inputs, not 2" in done.error) == (3, True)


def test_letters_that_mean_the_same_are_the_same_input(here):
    """Another line width, case, compression and name of the file."""
    stopped_after(4)
    lower = [(name, text.lower().replace("t", "u")) for name, text in RECORDS]
    text = "".join(f">{n}\n{s[:50]}\r\n\r\n{s[50:]}\n" for n, s in lower).encode()
    (here / "again.fna.gz").write_bytes(gzip.compress(text))
    expected = clean(inputs=("again.fna.gz",))
    assert predict(inputs=("again.fna.gz",)).code == 0
    check(expected, reused=4)


def test_another_bundle_is_refused_and_named(here):
    """TRAP N15."""
    stopped_after(2)
    for path in (here / "km").iterdir():
        path.unlink()
    made_bundle(here / "km", block_nt=2_000)
    done = predict()
    assert done.code == 3
    assert "another run, with another bundle " in done.error
    assert len(blocks()) == 2


@pytest.mark.parametrize(
    ("flags", "where", "option"),
    [
        (("--prefix", "p"), ", named in p.log.txt there", "-o"),
        (("--journal", "j"), "", "--journal"),
    ],
)
def test_another_bundle_is_looked_up_where_its_name_is(here, flags, where, option):
    assert stub("memory=1", *flags).code == 4
    made_bundle(here / "other", chunk_nt=300, block_nt=BLOCK_NT)
    done = predict(*flags, "--bundle", "other")
    assert done.code == 3
    assert re.search(
        rf"another bundle \(sha256 \w{{12}}\.\.\.{re.escape(where)}; this run: sha256 \w{{12}}"
        rf"\.\.\.\); choose another with {option}\b",
        done.error,
    )


def test_another_version_is_refused_and_named(here):
    stopped_after(2)
    path = RunFiles(here / "run").fingerprint
    document = json.loads(path.read_text())
    path.write_text(json.dumps(document | {"version": "other"}))
    (here / "run" / "run.json").unlink()
    done = predict()
    assert done.code == 3
    assert "with another version (other; this run: " in done.error


def test_the_fingerprint_says_what_makes_a_run(here):
    assert predict("-q").code == 0
    fingerprint = run_json(here / "run")["fingerprint"]
    assert set(fingerprint) == {
        *("inputs", "bundle", "precision", "device", "attention", "chunk_nt", "frames"),
        *("block_nt", "min_length", "max_length", "max_records", "version"),
    }
    (here / "in.fa").write_bytes(fasta(letter(RECORDS)))
    assert predict("-q", "--force").code == 0
    changed = run_json(here / "run")["fingerprint"]
    assert {name for name in changed if changed[name] != fingerprint[name]} == {"inputs"}


# Inputs that break off


@pytest.mark.parametrize("length", [0.3, 0.8])
def test_an_input_that_was_cut_off_and_is_whole_later(here, length):
    """What was read is finished and kept, and what comes behind is not mistaken for a change."""
    whole = gzip.compress(fasta(RECORDS))
    (here / "b.fa").write_bytes(fasta(RECORDS[:3]))
    (here / "a.fa.gz").write_bytes(whole)
    expected = clean(inputs=("a.fa.gz", "b.fa"))
    (here / "a.fa.gz").write_bytes(whole[: int(length * len(whole))])
    done = predict(inputs=("a.fa.gz", "b.fa"))
    assert done.code == 1
    assert "a.fa.gz: the gzip stream is cut off or damaged" in done.error
    found = table(here / "run" / "contigs.tsv")
    assert [row["sample"] for row in found[-3:]] == ["b"] * 3
    broken = results(here / "run")
    kept = len(blocks())
    assert run_json(here / "run")["blocks"]["total"] > kept
    assert kept > 0 or length < 0.5
    assert predict(inputs=("a.fa.gz", "b.fa")).code == 1  # as before, and nothing is lost
    assert results(here / "run") == broken
    assert run_json(here / "run")["blocks"]["reused"] == kept
    (here / "a.fa.gz").write_bytes(whole)
    assert predict(inputs=("a.fa.gz", "b.fa")).code == 0
    check(expected, reused=kept)


def letter_in(records: list[tuple[str, str]], number: int, at: int = 50) -> list[tuple[str, str]]:
    name, text = records[number]
    other = "A" if text[at] != "A" else "C"
    changed = text[:at] + other + text[at + 1 :]
    return [*records[:number], (name, changed), *records[number + 1 :]]


@pytest.mark.parametrize(
    "others",
    [
        [(f"o{i}", dna(400, f"o{i}")) for i in range(20)],
        letter_in(RECORDS, 1),
        RECORDS[:2],
    ],
    ids=["another", "one letter", "shorter"],
)
def test_another_input_after_one_that_was_cut_off_is_refused(here, others):
    """And what was made of the one that was cut off stays."""
    whole = gzip.compress(fasta(RECORDS))
    (here / "in.fa").write_bytes(whole[: int(0.8 * len(whole))])
    assert predict().code == 1
    assert len(blocks()) > 1

    def kept() -> dict[Path, bytes]:
        found = files_below(here / "run").items()
        return {p: d for p, d in found if p.suffix != ".provisional" and p.name != "log.txt"}

    before = kept()
    (here / "in.fa").write_bytes(fasta(others))
    done = predict()
    assert done.code == 3
    assert "the unfinished run here read another input: record " in done.error
    assert kept() == before
    (here / "in.fa").write_bytes(whole)
    expected = clean()
    assert predict().code == 0
    assert results(here / "run") == expected


def test_what_was_cut_off_may_go_on_otherwise(here):
    """Blocks that lay behind the break were never compared with a whole input."""
    whole = gzip.compress(fasta(RECORDS))
    (here / "in.fa").write_bytes(whole[: int(0.8 * len(whole))])
    assert predict().code == 1
    last, kept = len(table(here / "run" / "contigs.tsv")) - 1, len(blocks())
    (here / "in.fa").write_bytes(fasta(letter_in(RECORDS, last, at=-50)))
    expected = clean()
    assert predict().code == 0
    check(expected, reused=kept)


def test_an_input_that_breaks_off_in_a_second_attempt(here):
    """Blocks behind the break were finished by the first one, and are there for the third."""
    data = fasta(RECORDS)
    (here / "in.fa").write_bytes(gzip.compress(data))
    expected = clean()
    stopped_after(6)
    (here / "in.fa").write_bytes(gzip.compress(data)[: len(gzip.compress(data)) // 3])
    assert stub("").code == 1
    assert 0 < run_json(here / "run")["counts"]["records"] < 10
    assert len(blocks()) == 6
    (here / "in.fa").write_bytes(gzip.compress(data))
    assert stub("").code == 0
    check(expected, reused=6)


@pytest.mark.parametrize("at", [0, 5_000, 15_000])
def test_an_input_that_cannot_be_read_to_its_end(here, at):
    expected = clean()
    done = stub(f"read={at}")
    assert done.code == 1
    found = table(here / "run" / "contigs.tsv")
    last = f"after record {len(found)} ({found[-1]['contig']})" if found else "before its first"
    assert f"in.fa: reading failed {last}" in done.error
    assert "(Input/output error); make the file readable and repeat the run" in done.error
    counts = run_json(here / "run")["counts"]
    assert counts["records"] == len(found) == {0: 0, 5_000: 6, 15_000: 11}[at]
    assert stub("").code == 0
    check(expected, reused={0: 0, 5_000: 1, 15_000: 4}[at])


def test_a_file_that_the_system_fails_to_read(here):
    """/proc/self/mem has no first page."""
    (here / "bad.fa").symlink_to("/proc/self/mem")
    done = predict(inputs=("bad.fa",))
    assert done.code == 1
    assert "reading failed before its first record was complete" in done.error


def test_an_input_that_is_gone_for_the_second_pass(here):
    expected = clean()
    done = slow_and(lambda: (here / "in.fa").rename(here / "away.fa"))
    assert done.code == 1
    assert "in.fa: cannot be read (No such file or directory)" in done.error
    assert results(here / "run") == {}
    assert predict().code == 1
    (here / "away.fa").rename(here / "in.fa")
    assert predict().code == 0
    check(expected, reused=8)


def test_an_input_that_changes_for_the_second_pass(here):
    done = slow_and(lambda: (here / "in.fa").write_bytes(fasta(letter(RECORDS))))
    assert done.code == 1
    assert "the file is not as it was when it was scored" in done.error
    assert results(here / "run") == {}
    done = predict()
    assert done.code == 3
    assert "record 6 (s5)" in done.error


def slow_and(act: Callable[[], object]) -> Finished:
    """A run in which something happens after its first block, when all of the input was read."""
    with started("slow=0.1", "-q") as process:
        wait_for(lambda: len(blocks()) > 0, process)
        act()
        _, err = process.communicate()
    return Finished(process.wait(), "", err.decode())


# Chunks that fail


FAILING = [
    *RECORDS[:3],
    ("bad", MARK.decode() * 4),
    ("half", dna(900, "h") + MARK.decode() + dna(500, "i")),
    *RECORDS[3:],
]


@pytest.mark.parametrize(
    ("fault", "reason"),
    [("device", "the device failed"), ("nan", "its score in fp64 is not a finite number")],
)
def test_chunks_that_fail_are_listed_and_the_rest_is_scored(here, fault, reason):
    (here / "in.fa").write_bytes(fasta(FAILING))
    expected = clean()
    done = stub(fault)
    assert done.code == 2
    failed = table(here / "run" / "failed.tsv")
    assert [(row["record"], row["contig"]) for row in failed] == [("4", "bad"), ("5", "half")]
    assert failed[0]["reason"] == f"1 of 1 chunks could not be scored: {reason}"
    document = run_json(here / "run")
    jsonschema.validate(document, schema())
    counts = document["counts"]
    assert document["status"] == "partial"
    assert (counts["records"], counts["failed"], counts["partly_failed"]) == (16, 1, 1)
    calls = {(r["record"], r["chunk"]): r for r in table(here / "run" / "calls.tsv")}
    chunks = [key for key, row in calls.items() if row["status"] == "failed"]
    assert len(chunks) == counts["chunk_status"]["failed"] == 2
    for key, row in calls.items():
        if key in chunks:
            assert (row["p_virus"], row["call"]) == ("", "none")
    others = [r for r in expected["calls.tsv"].decode().splitlines() if "\tbad\t" not in r]
    mine = (here / "run" / "calls.tsv").read_text().splitlines()
    assert len(set(others) - set(mine)) == 1  # the one chunk of half
    before = results(here / "run")
    assert stub("", "--allow-partial").code == 0  # finished, as it was
    assert results(here / "run") == before


def test_an_error_of_torch_on_a_chunk_is_listed_and_the_rest_is_scored(here):
    """TRAP N2: what fails in a forward is neither swallowed nor the end of the run."""
    (here / "in.fa").write_bytes(fasta([*RECORDS[:3], ("bad", "A" * 400), *RECORDS[3:5]]))
    expected = whole_run("in.fa", "mini-500", "clean").files.calls.read_text()
    done = stub("torch", "--bundle", "mini-500")
    assert done.code == 2, done.err
    (failed,) = table(here / "run" / "failed.tsv")
    assert failed["contig"] == "bad"
    assert failed["reason"].startswith(
        "1 of 1 chunks could not be scored: mini-500-v2: computing on cpu failed (inconsistent"
    )
    others = [r for r in expected.splitlines() if "\tbad\t" not in r]
    mine = (here / "run" / "calls.tsv").read_text().splitlines()
    assert [row.split("\t")[:7] for row in mine if "\tbad\t" not in row] == [
        row.split("\t")[:7] for row in others
    ]
    assert run_json(here / "run")["counts"]["failed"] == 1


def test_chunks_that_fail_stay_failed_when_a_run_goes_on(here):
    (here / "in.fa").write_bytes(fasta(FAILING))
    assert stub("device").code == 2
    expected = results(here / "run")
    assert stub("device,memory=4", "--force").code == 4
    assert stub("device").code == 2
    check(expected, reused=4)


@pytest.mark.parametrize(("chunks", "code"), [(2, 2), (8, 2), (9, 1)])
def test_a_few_chunks_without_a_finite_score_are_listed_though_they_fill_a_block(
    here, chunks, code
):
    (here / "in.fa").write_bytes(fasta((f"bad{i}", MARK.decode() * 3) for i in range(chunks)))
    assert stub("nan").code == code
    assert run_json(here / "run")["status"] == ("partial" if code == 2 else "failed")
    if code == 2:
        assert len(table(here / "run" / "failed.tsv")) == chunks


@pytest.mark.parametrize("number", [1, 4, len(FAILING)])
def test_no_chunk_is_at_fault_where_the_device_is_gone(here, number):
    """Its first failure is on a chunk alone in its block, the whole input even; the run goes on."""
    (here / "in.fa").write_bytes(fasta(FAILING[:number] if number > 1 else FAILING[3:4]))
    expected = clean()
    done = stub("device,gone")
    assert (done.code, done.error) == (1, "the device is gone")
    assert run_json(here / "run")["status"] == "failed"
    assert not (here / "run" / "failed.tsv").exists()
    assert stub("").code == 0
    assert results(here / "run") == expected


@pytest.mark.parametrize("records", [RECORDS, RECORDS[3:5], RECORDS[3:4]])
def test_a_device_that_is_gone_ends_the_run(here, records):
    (here / "in.fa").write_bytes(fasta(records))
    done = stub("dead,gone")
    assert done.code == 1
    assert done.error.startswith("the device ")
    assert len(scored()) < 40
    assert predict().code == 0


# Signals


@pytest.mark.parametrize(("how", "code"), [(signal.SIGINT, 130), (signal.SIGTERM, 143)])
def test_a_signal_drops_the_block_at_hand_and_leaves_no_process(here, how, code):
    """TRAP R6."""
    expected = clean()
    process = started("slow=30")
    wait_for(Path("scored.txt").exists, process)
    clock = time.monotonic()
    process.send_signal(how)
    _, err = process.communicate()
    assert (process.returncode, time.monotonic() - clock < 5) == (code, True)
    assert err.decode().rstrip().endswith("virnucpro: stopped before the end")
    no_process_of(process.pid)
    document = run_json(here / "run")
    assert (document["status"], document["exit_code"]) == ("interrupted", code)
    assert predict().code == 0
    check(expected, reused=0)


@pytest.mark.parametrize(
    ("number", "flags", "said"),
    [
        (1, ("--force",), "1 finished block is kept: give the same command again without --force"),
        (2, ("--no-resume",), "2 finished blocks are kept: give the same command again without "),
        (0, ("--no-resume",), "no block was finished yet: the same command without --no-resume "),
        (0, ("--force",), "no block was finished yet: the same command begins at the start\n"),
    ],
)
def test_what_is_said_at_a_signal_is_what_the_next_command_does(here, number, flags, said):
    done = stub(f"stop={number}", *flags)
    assert (done.code, f"\n{said}" in done.err) == (130, True), done.err
    assert (predict(*flags).code == 3) == ("without --no-resume" in done.err)
    assert stub(f"stop={number}", "--force").code == 130
    done = predict()
    there = f"finished blocks of an earlier start: {number}; those that fit are reused\n"
    assert (done.code, there in done.err) == (0, number > 0)
    assert run_json(here / "run")["blocks"]["reused"] == number


@pytest.mark.parametrize(
    ("stop", "flags", "more"),
    [
        ("compared", (), ""),
        ("compared", ("--no-resume",), ""),
        ("0", ("--threshold", 0.9), ""),
        ("1", ("--threshold", 0.9), "; 1 finished block is kept, too"),
        ("2", ("--threshold", 0.9), "; 2 finished blocks are kept, too"),
        ("said", ("--force",), ""),
    ],
)
def test_a_signal_says_that_a_finished_run_stays(here, stop, flags, more):
    assert predict("-q").code == 0
    before = results(here / "run")
    done = stub(f"stop={stop}", *flags)
    assert done.code == 130
    assert f"\nthe run in run is finished, and stays as it is{more}\n" in f"\n{done.err}"
    assert "same command" not in done.err
    assert results(here / "run") == before
    assert run_json(here / "run")["status"] == "complete"


def test_a_signal_in_a_sheet_says_what_to_leave_out(here):
    (here / "sheet.tsv").write_text("sample\tpath\na\tin.fa\n")
    flags = ("--sample-sheet", "sheet.tsv", "-o", "run", "--bundle", "km", "--force", "--no-resume")
    done = forks.run(STUB, ["stop=1", "predict", *flags])
    assert done.returncode == 130
    assert b"again without --force and --no-resume, and it goes on\n" in done.stderr


def test_blocks_are_not_spoken_of_where_only_tables_are_made_again(here):
    assert predict("-q", "--keep-blocks").code == 0
    done = predict("--threshold", 0.9)
    assert (done.code, "earlier start" in done.err) == (0, False)
    assert run_json(here / "run")["blocks"]["reused"] == 8


def test_a_second_signal_ends_a_run_that_hangs(here):
    expected = clean()
    process = started("slow=30,hang")
    wait_for(Path("scored.txt").exists, process)
    process.send_signal(signal.SIGTERM)
    process.send_signal(signal.SIGTERM)  # at once: the same one, as a scheduler may send it
    with pytest.raises(subprocess.TimeoutExpired):
        process.wait(1.5)
    for _ in range(8):  # on a busy machine the first may have been answered late
        process.send_signal(signal.SIGTERM)
        with suppress(subprocess.TimeoutExpired):
            process.wait(1.2)
            break
    assert process.wait(1) == 143
    process.communicate()
    no_process_of(process.pid)
    assert predict().code == 0
    check(expected, reused=0)


def test_a_signal_that_was_ignored_stays_so(here):
    """As under nohup, or in the background of a script."""
    command = ["sh", "-c", 'trap "" INT; exec "$@"', "sh", sys.executable]
    command += [STUB, "slow=0.1", *arguments()]
    with subprocess.Popen(command, stderr=subprocess.DEVNULL) as process:
        wait_for(Path("scored.txt").exists, process)
        process.send_signal(signal.SIGINT)
        assert process.wait(60) == 0


def started(faults: str, *flags: object) -> forks.Fork:
    return forks.Fork(STUB, [faults, *arguments(*flags)])


# Two at once


@pytest.mark.parametrize(
    ("faults", "flags"),
    [
        ("slow=30", ()),
        ("slow=30", ("--force",)),
        ("slow=30,no-flock=60", ()),
        ("slow=30,no-flock=60", ("--no-resume",)),
    ],
)
def test_a_directory_in_use_is_refused(here, faults, flags):
    """TRAP R8."""
    process = started(faults)
    wait_for(Path("scored.txt").exists, process)
    before = {path.name for path in (here / "run").iterdir()}
    done = stub(faults.replace("slow=30", "slow=0"), *flags)
    assert done.code == 3
    said = f"in use by process {process.pid} on {os.uname().nodename} since 20"
    assert said in done.error
    assert {path.name for path in (here / "run").iterdir()} == before
    process.kill()
    process.communicate()
    assert scored() == [0]


def test_a_run_that_was_killed_holds_nothing(here):
    process = started("slow=30")
    wait_for(Path("scored.txt").exists, process)
    process.kill()
    process.communicate()
    assert predict().code == 0


def test_without_locks_a_killed_run_is_stale_after_a_while(here):
    process = started("slow=30,no-flock=60")
    wait_for(Path("scored.txt").exists, process)
    process.kill()
    process.communicate()
    done = stub("no-flock=60")
    assert done.code == 3
    assert "or if it was killed, until 60 s have passed" in done.error
    time.sleep(0.6)
    done = stub("no-flock=0.5")
    assert done.code == 0
    assert "so stale; taken over" in done.err
    assert "this file system has no locks, so the file is touched every" in done.err


def test_without_locks_a_live_run_is_never_stale(here):
    process = started("slow=30,no-flock=60")
    wait_for(Path("scored.txt").exists, process)
    time.sleep(1.5)  # far more than what is stale to the next one
    assert stub("no-flock=1").code == 3
    process.kill()
    process.communicate()


def test_without_locks_a_run_that_ended_leaves_none(here):
    assert stub("no-flock=60,memory=2").code == 4
    assert stub("no-flock=60").code == 0
    assert not (here / "run" / ".virnucpro").exists()


def test_results_of_a_finished_run_stay_until_they_can_be_made_again(tmp_path):
    """Of one whose tables were to be made in another form, and that was stopped before."""
    bundle = made_bundle(tmp_path / "km").path
    (tmp_path / "in.fa").write_bytes(random_reads(50, 300))
    run_dir = tmp_path / "run"
    whole_run(tmp_path / "in.fa", bundle, run_dir)
    before = {path.name: path.read_bytes() for path in run_dir.iterdir() if path.name != "log.txt"}

    def stopped(*_):
        raise KeyboardInterrupt

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("virnucpro.classifiers.kmer.KmerClassifier.score_block", stopped)
        with pytest.raises(KeyboardInterrupt):
            whole_run(tmp_path / "in.fa", bundle, run_dir, write="all")
    assert {name: (run_dir / name).read_bytes() for name in before} == before
    assert whole_run(tmp_path / "in.fa", bundle, run_dir, write="all").status == "complete"
    assert (run_dir / "others.fasta").exists()
