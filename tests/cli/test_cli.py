"""The command line: help, wrong use, the effect of every flag, and being stopped."""

import itertools
import json
import os
import re
import shutil
import signal
import subprocess
import sys
import time
from contextlib import nullcontext
from pathlib import Path

import jsonschema
import pytest
from test_outputs_doc import schema

import forks
from command import (
    PROGRAM,
    TABLES,
    WHOLE,
    dna,
    fasta,
    made_bundle,
    random_reads,
    results,
    run_json,
    table,
    virnucpro,
)
from virnucpro import __version__, bundle
from virnucpro.cli import program
from virnucpro.cli.json_file import check_json_file
from virnucpro.cli.predict import ELSEWHERE
from virnucpro.errors import SettingsError
from virnucpro.run import predict as run

SAMPLE = fasta((f"s{i}", dna(40 + 60 * i, i)) for i in range(12))


@pytest.fixture(scope="module")
def made(tmp_path_factory) -> Path:
    return made_bundle(tmp_path_factory.mktemp("bundles") / "km").path


@pytest.fixture
def here(tmp_path, monkeypatch) -> Path:
    """A working directory with an input."""
    monkeypatch.chdir(tmp_path)
    (tmp_path / "in.fa").write_bytes(SAMPLE)
    return tmp_path


def test_version_is_one_line():
    for flag in ("--version", "-V"):
        done = virnucpro(flag)
        assert (done.code, done.out, done.err) == (0, f"virnucpro {__version__}\n", "")


def test_the_script_is_the_same_program():
    script = shutil.which("virnucpro", path=str(Path(sys.executable).parent))
    if script is None:
        pytest.skip("the package is not installed with its script")
    done = subprocess.run([script, "--version"], capture_output=True, text=True, check=True)
    assert done.stdout == f"virnucpro {__version__}\n"


def test_results_do_not_depend_on_how_strings_are_hashed(here, made):
    """Most runs of tests are forks of one process, so they hash alike."""
    (here / "more.fa").write_bytes(random_reads(300, 700))
    for seed in ("1", "2"):
        arguments = ("predict", "in.fa", "more.fa", "-o", seed, "--bundle", made, "--write", "all")
        done = virnucpro(*arguments, env={**os.environ, "PYTHONHASHSEED": seed})
        assert done.code == 0, done.err
    assert results(here / "1") == results(here / "2")
    assert len(results(here / "1")) > 8


COMMANDS = [(), ("predict",), ("validate",), ("evaluate",), ("bundles",), ("train",)]
DEEPER = [("bundles", "list"), ("bundles", "show"), ("train", "kmer"), ("train", "head")]


@pytest.mark.parametrize("command", COMMANDS + DEEPER, ids=" ".join)
def test_every_command_explains_itself(command):
    done = virnucpro(*command, "--help")
    assert (done.code, done.err) == (0, "")
    assert "Usage:" in done.out
    assert "--help" in done.out
    assert len(done.out.splitlines()) > 6


def test_predict_alone_shows_a_short_usage(tmp_path):
    done = virnucpro("predict", cwd=tmp_path)
    assert (done.code, done.out, [*tmp_path.iterdir()]) == (2, "", [])
    lines = done.err.splitlines()
    assert lines[0] == "usage: virnucpro predict INPUT... -o RUN_DIR"
    assert len(lines) < 10
    for line in lines:
        if line.startswith("  virnucpro"):
            words = line.split()[2:]
            known = {name for p in program.commands["predict"].params for name in p.opts}
            assert {word for word in words if word.startswith("-")} <= known


def test_no_old_option_is_shown_and_every_option_is():
    out = virnucpro("predict", "--help").out.replace("/", " ")
    for option in program.commands["predict"].params:
        for name in option.opts if option.param_type_name == "option" else ():
            assert (name in out.split()) == (name not in ELSEWHERE), name


WRONG = {
    "no command": (),
    "no such command": ("frobnicate",),
    "no input": ("predict", "-o", "run"),
    "no run directory": ("predict", "in.fa"),
    "no such option": ("predict", "in.fa", "-o", "run", "--frobnicate"),
    "threshold too high": ("predict", "in.fa", "-o", "run", "--threshold", "1.5"),
    "threshold no number": ("predict", "in.fa", "-o", "run", "--threshold", "high"),
    "threshold nan": ("predict", "in.fa", "-o", "run", "--threshold", "nan", "--bundle", "KM"),
    "no such precision": ("predict", "in.fa", "-o", "run", "--precision", "fp4"),
    "precision of others": (
        "predict",
        "in.fa",
        "-o",
        "run",
        "--precision",
        "bf16",
        "--bundle",
        "KM",
    ),
    "no threads": ("predict", "in.fa", "-o", "run", "--threads", "0"),
    "prefix with a folder": ("predict", "in.fa", "-o", "run", "--prefix", "a/b", "--bundle", "KM"),
    "no bundle named": ("bundles", "show"),
    "half of the labels": ("evaluate", "KM", "--fasta", "in.fa"),
}


@pytest.mark.parametrize("arguments", WRONG.values(), ids=WRONG)
def test_a_wrong_command_line_ends_with_2_and_leaves_nothing(here, made, arguments):
    done = virnucpro(*(str(made) if word == "KM" else word for word in arguments))
    assert done.code == 2
    assert "Traceback" not in done.err + done.out
    assert len(done.err + done.out) > 20
    assert [path.name for path in here.iterdir()] == ["in.fa"]


@pytest.mark.parametrize("option", ELSEWHERE)
@pytest.mark.parametrize("value", [(), ("500",)], ids=["alone", "with a value"])
def test_an_option_of_the_published_programs_is_answered(here, option, value, capsys):
    done = in_process("predict", "in.fa", "-o", "run", option, *value)
    assert done == 2
    last = capsys.readouterr().err.strip().splitlines()[-1]
    assert last == f"Error: {option} is not an option of this program: {ELSEWHERE[option]}."


def test_an_option_of_the_published_programs_as_a_user_sees_it(here):
    done = virnucpro("predict", "in.fa", "--model-type", "500")
    assert done.code == 2
    assert "choose a bundle, as --bundle virnucpro-500 (published) or mini-500" in done.err


def in_process(*arguments: object) -> int:
    """As main does, without a process of its own."""
    from virnucpro.cli import _run

    before = sys.argv
    sys.argv = ["virnucpro", *map(str, arguments)]
    try:
        return _run()
    finally:
        sys.argv = before


# What flags do


def predict(made: Path, *flags: object, out: str = "run") -> dict[str, bytes]:
    assert in_process("predict", "in.fa", "-o", out, "--bundle", made, *flags) == 0
    return {path.name: path.read_bytes() for path in Path(out).iterdir() if path.is_file()}


def test_stdout_stays_empty_and_the_log_is_what_was_said(here, made):
    done = virnucpro("predict", "in.fa", "-o", "run", "--bundle", made)
    assert (done.code, done.out) == (0, "")
    said = done.err.splitlines()
    logged = [line.split(" ", 2)[2] for line in (here / "run" / "log.txt").read_text().splitlines()]
    memory = [line for line in logged if line.startswith("memory, ")]
    stages = [line.partition(":")[0].removeprefix("memory, ") for line in memory]
    assert stages == ["start", "loaded", "blocks", "tables"]
    in_the_log = {*memory, f"bundle sha256 {bundle.load(made).sha256}"}
    assert logged[1] in in_the_log
    spoken = [line for line in logged if line not in in_the_log]
    assert said == [*spoken, "results are in run; begin with run/report.html or run/contigs.tsv"]
    assert said[0].startswith(
        f"virnucpro {__version__}, bundle km, not the published VirNucPro model: "
    )
    assert said[4].startswith("this may need up to")
    assert said[5].startswith("no regions are looked for: the card of km has no")
    assert said[6] == "12 records: 3 virus, 8 others, 1 not called, 0 failed"


def test_the_first_line_says_that_the_default_is_not_the_published_model(here):
    done = virnucpro("predict", "in.fa", "-o", "run")
    assert done.code == 0
    first = done.err.splitlines()[0]
    assert "bundle mini-500-v2 (the default), not the published VirNucPro model: " in first
    assert "`virnucpro bundles download virnucpro-500` fetches the published one" in first
    help_ = " ".join(virnucpro("predict", "--help").out.split())
    assert "virnucpro-500" in help_


def test_no_precision_is_promised_where_nothing_was_called_by_mistake(here, made):
    for name in "vn":
        (here / f"{name}.fa").write_bytes(fasta((f"{name}{i}", dna(300, i)) for i in range(9)))
    words = ("evaluate", made, "--positive", "v.fa", "--negative", "n.fa")
    done = virnucpro(*words, "--threshold", "1")
    assert "virus at p_virus >= 1\n" in done.err
    assert (
        "calls of contigs where 1 % are viral: not known, as none of 9 others was called virus\n"
        in done.out
    )
    assert "where 1 % are viral: 1.0 %\n" in virnucpro(*words, "--threshold", "0").out


def test_a_bundle_without_a_card_says_that_nothing_was_measured(made):
    said = "Nothing was measured of it; `virnucpro evaluate` does that on your data."
    assert said in virnucpro("bundles", "show", made).out
    assert said not in virnucpro("bundles", "show", "mini-500").out


def test_pairs_are_pointed_to(here, made):
    (here / "in.fa").write_bytes(fasta((f"r{i}", dna(200, i)) for i in (1, 1, 2, 2)))
    flags = ("--interleaved", "--prefix", "p", "--bundle", made)
    done = virnucpro("predict", "in.fa", "-o", "run", *flags)
    said = r"\n2 pairs: \d virus; see p.pairs.tsv and p.viral_names.txt\n"
    assert re.search(said, done.err)
    assert done.err.endswith("; begin with run/p.report.html or run/p.pairs.tsv\n")
    for k in (1, 2):
        virnucpro("predict", "in.fa", "-o", f"part{k}", "--part", f"{k}/2", *flags)
    done = virnucpro("merge", "part1", "part2", "-o", "merged", "--prefix", "p")
    assert done.err.endswith("; begin with merged/p.report.html or merged/p.pairs.tsv\n")


def test_quiet_says_nothing_but_logs(here, made):
    done = virnucpro("predict", "in.fa", "-o", "run", "--bundle", made, "--quiet")
    assert (done.code, done.out, done.err) == (0, "", "")
    assert "12 records" in (here / "run" / "log.txt").read_text()
    done = virnucpro("predict", "in.fa", "-o", "in.fa", "--bundle", made, "-q")
    assert done.code == 3
    assert done.error


def test_sample_and_prefix(here, made):
    """TRAP R12."""
    plain = predict(made)
    named = predict(made, "--sample", "lake 5", out="named")
    assert {row["sample"] for row in table(here / "named" / "calls.tsv")} == {"lake 5"}
    assert named["calls.tsv"].replace(b"lake 5\t", b"in\t") == plain["calls.tsv"]
    put = predict(made, "--prefix", "P", out="run")
    assert {n: data for n, data in put.items() if not n.startswith("P.")} == plain
    for name in (*TABLES, "viral.fasta"):
        assert put[f"P.{name}"] == plain[name]
    assert json.loads(put["P.run.json"])["settings"]["prefix"] == "P"


def test_threshold_moves_calls_and_never_the_published_tables(here, made):
    """TRAP R12."""
    plain = predict(made)
    for threshold in (0, 0.2, 0.8):
        moved = predict(made, "--threshold", threshold, out=f"t{threshold}")
        for row in table(here / f"t{threshold}" / "calls.tsv"):
            virus = row["p_virus"] != "" and float(row["p_virus"]) >= threshold
            assert (row["call"] == "virus") == virus
        for name in ("prediction_results.txt", "prediction_results_highestscore.csv"):
            assert moved[name] == plain[name]
        assert json.loads(moved["run.json"])["settings"]["threshold"] == threshold
    found = [Path(f"t{t}/viral.fasta").read_bytes().count(b">") for t in (0, 0.2, 0.8)]
    assert 11 == found[0] > found[1] > found[2]


FLAGS = {
    "--sample": ("--sample", "x"),
    "--prefix": ("--prefix", "x"),
    "--tables": ("--tables", "gz"),
    "--no-compat-tables": ("--no-compat-tables",),
    "--unpaired": ("--unpaired",),
    "--read-groups": ("--read-groups",),
    "--reference": ("--reference", "in.fa"),
    "--min-length": ("--min-length", "100"),
    "--write": ("--write", "all"),
    "--parquet": ("--parquet",),
    "--max-length": ("--max-length", "700"),
    "--max-records": ("--max-records", "4"),
    "--resume": ("--no-resume",),
    "--rerun": ("--rerun",),
    "--force": ("--force",),
    "--keep-blocks": ("--keep-blocks",),
    "--journal": ("--journal", "journal{}"),
    "--part": ("--part", "1/1"),
    "--threshold": ("--threshold", "0.3"),
    "--precision": ("--precision", "auto"),
    "--threads": ("--threads", "1"),
    "--gpus": ("--gpus", "none"),
    "--attention": ("--attention", "math"),
    "--batch-tokens": ("--batch-tokens", "64"),
    "--esm-batch-size": ("--esm-batch-size", "64"),
    "--dnabert-batch-size": ("--dnabert-batch-size", "64"),
    "--dataloader-workers": ("--dataloader-workers", "1"),
    "--pin-memory": ("--pin-memory",),
    "--expandable-segments": ("--expandable-segments",),
    "--cache-clear-interval": ("--cache-clear-interval", "0"),
    "--cuda-streams": ("--no-cuda-streams",),
    "--allow-partial": ("--allow-partial",),
    "-q": ("-q",),
    "-v": ("-v",),
    "--no-progress": ("--no-progress",),
    "--log-json": ("--log-json",),
    "--config": ("--config", "few.toml"),
}


CONTRADICTING = [{"--resume", "--rerun"}]


def groups_of_pairs(names, most=6):
    """Groups in which each two names that may stand together once or more, and each name alone."""
    pairs = itertools.combinations(names, 2)
    missing = {pair for pair in pairs if {*pair} not in CONTRADICTING}
    while missing:
        group = list(min(missing, key=lambda pair: tuple(map(names.index, pair))))
        while len(group) < most:
            gain = {
                name: sum(
                    (min(g, name, key=names.index), max(g, name, key=names.index)) in missing
                    for g in group
                )
                for name in names
                if name not in group and not any({name, g} in CONTRADICTING for g in group)
            }
            best = max(gain, key=gain.get)
            if not gain[best]:
                break
            group.append(best)
        group.sort(key=names.index)
        missing -= set(itertools.combinations(group, 2))
        yield group
    yield from ([name] for name in names)


# Tried in tests of their own, with files, bundles and clusters that they are for.
NEEDING_MORE = {
    "-o",
    "--bundle",
    "--mates",
    "--interleaved",
    "--sample-sheet",
    "--save-embeddings",
    "--workers",
    "--scheduler",
    "--prior",
    "--fdr",
    "--host",
    "--negatives",
    "--prescreen",
    "--prescreen-recall",
    "--prescreen-threshold",
    "--genetic-code",
}


def test_every_flag_starts_alone_and_in_pairs(here, made):
    """TRAP R2."""
    (here / "few.toml").write_text("threads = 1\n")
    for number, names in enumerate(groups_of_pairs([*FLAGS])):
        flags = [word.format(number) for name in names for word in FLAGS[name]]
        assert predict(made, *flags, out=f"run{number}"), names
    known = {o.opts[0] for o in program.commands["predict"].params if o.param_type_name == "option"}
    assert known - {*FLAGS, *ELSEWHERE} == NEEDING_MORE


@pytest.mark.parametrize("unbuffered", ["", "1"])
@pytest.mark.parametrize("words", ["config", "bundles list", "cite", "--help"])
def test_a_full_disk_behind_standard_output_is_one_sentence(words, unbuffered):
    command, environment = [*PROGRAM, *words.split()], os.environ | {"PYTHONUNBUFFERED": unbuffered}
    with Path("/dev/full").open("wb") as full:
        done = subprocess.run(
            command, stdout=full, stderr=subprocess.PIPE, env=environment, check=False
        )
    assert done.returncode == 1
    assert done.stderr.decode() == (
        "virnucpro: standard output cannot be written (No space left on device); "
        "send it to where there is room\n"
    )


def test_evaluate_prints_whole_numbers_where_nobody_looks(here, made):
    """Elsewhere than on a terminal nothing is cut to a width."""
    (here / "v.fa").write_bytes(random_reads(30, 300, 1))
    (here / "n.fa").write_bytes(random_reads(30, 300, 2))
    done = virnucpro(
        "evaluate", made, "--positive", "v.fa", "--negative", "n.fa", "--json", "e.json"
    )
    assert done.code == 0
    assert "recall at 0.1 % FPR" in done.out
    assert "…" not in done.out
    (line,) = [x for x in done.out.splitlines() if x.startswith(" all ")][:1]
    contig = json.loads((here / "e.json").read_text())["contig"]
    assert f"{contig[0]['auroc']:.3f}" in line.split()


def test_a_pipe_takes_the_json_of_evaluate_and_stays_a_pipe(here, made):
    """As any device would: a rename would put a file in its place."""
    (here / "v.fa").write_bytes(random_reads(3, 300, 1))
    (here / "n.fa").write_bytes(random_reads(3, 300, 2))
    os.mkfifo(here / "pipe")
    words = ("--positive", "v.fa", "--negative", "n.fa", "--json", "pipe")
    with subprocess.Popen(["cat", "pipe"], stdout=subprocess.PIPE) as reader:
        try:
            done = virnucpro("evaluate", made, *words)
            document = json.loads(reader.communicate(timeout=10)[0])
        finally:
            reader.kill()
    assert done.code == 0, done.err
    assert document["contig"][0]["others"] == 3
    assert (here / "pipe").is_fifo()


def test_an_open_file_takes_the_json_of_evaluate_by_its_device_name(here, made):
    """As --json /dev/stdout does, which root could replace by a file."""
    (here / "v.fa").write_bytes(random_reads(3, 300, 1))
    (here / "n.fa").write_bytes(random_reads(3, 300, 2))
    with (here / "out").open("w") as file:
        file.write("before\n")
        file.flush()
        words = ("--positive", "v.fa", "--negative", "n.fa", "--json", f"/dev/fd/{file.fileno()}")
        done = virnucpro("evaluate", made, *words, pass_fds=[file.fileno()])
        assert done.code == 0, done.err
        assert os.path.samestat(os.fstat(file.fileno()), (here / "out").stat())
    first, rest = (here / "out").read_text().split("\n", 1)
    assert (first, json.loads(rest)["contig"][0]["others"]) == ("before", 3)


@pytest.mark.parametrize(("content", "taken"), [("", True), ('{"a": 1}', True), ("[1]", False)])
def test_json_goes_over_an_empty_file_and_over_older_json_alone(tmp_path, content, taken):
    """mktemp makes an empty file."""
    (tmp_path / "out").write_text(content)
    with nullcontext() if taken else pytest.raises(SettingsError, match="is not replaced"):
        check_json_file(tmp_path / "out")


# Being stopped


@pytest.fixture(scope="module")
def big(tmp_path_factory) -> Path:
    """An input of many blocks, and a bundle that makes them small."""
    folder = tmp_path_factory.mktemp("big")
    (folder / "in.fa").write_bytes(random_reads(60_000, 250))
    (folder / "small.fa").write_bytes(SAMPLE)
    made_bundle(folder / "km", block_nt=250_000)
    return folder


def stopped(big: Path, out: Path, how: signal.Signals, when: str) -> tuple[int, str, float]:
    """Signals a run once it has come so far; exit code, standard error, seconds until the end."""
    arguments = ["predict", str(big / "in.fa"), "-o", str(out), "--bundle", str(big / "km")]
    with forks.Fork("virnucpro", arguments) as process:
        deadline = time.monotonic() + 60
        while not list(out.glob(when)):
            assert process.poll() is None, "the run ended before it could be stopped"
            assert time.monotonic() < deadline
            time.sleep(0.002)
        clock = time.monotonic()
        process.send_signal(how)
        _, err = process.communicate()
        return process.wait(), err.decode(), time.monotonic() - clock


WHEN = {
    "first blocks": ".virnucpro/blocks/00000000[3-9].block",
    "tables": ".virnucpro/scratch/calls.tsv",
}


@pytest.mark.parametrize("when", WHEN.values(), ids=WHEN)
@pytest.mark.parametrize(("how", "code"), [(signal.SIGINT, 130), (signal.SIGHUP, 143)])
def test_a_stopped_run_says_so(big, tmp_path, when, how, code):
    """TRAP R6."""
    out = tmp_path / "run"
    ended, err, seconds = stopped(big, out, how, when)
    assert ended == code
    assert seconds < 5
    assert "Traceback" not in err
    assert err.rstrip().endswith("virnucpro: stopped before the end")
    document = run_json(out)
    jsonschema.validate(document, schema())
    assert (document["status"], document["exit_code"]) == ("interrupted", code)
    assert document["counts"] is None
    assert {path.name for path in out.iterdir()} == {".virnucpro", "run.json", "log.txt"}
    assert "interrupted" in (out / "log.txt").read_text().splitlines()[-1]
    check_forced(big, out)


@pytest.mark.parametrize("when", WHEN.values(), ids=WHEN)
def test_a_killed_run_leaves_nothing_that_looks_whole(big, tmp_path, when):
    """TRAP R8."""
    out = tmp_path / "run"
    ended, _, _ = stopped(big, out, signal.SIGKILL, when)
    assert ended == -signal.SIGKILL
    left = {".virnucpro", "log.txt"} | ({"run.json"} if when == WHEN["tables"] else set())
    assert {path.name for path in out.iterdir()} == left
    if "run.json" in left:
        jsonschema.validate(run_json(out), schema())
        assert (run_json(out)["status"], run_json(out)["finished"]) == ("running", None)
    arguments = ("predict", big / "small.fa", "-o", out, "--bundle", big / "km")
    done = virnucpro(*arguments)
    assert done.code == 3
    assert "the unfinished run here read another input: record 1 (s0) of sample small" in done.error
    done = virnucpro(*arguments, "--no-resume")
    assert done.code == 3
    assert "already holds an unfinished run" in done.error
    check_forced(big, out)


@pytest.mark.parametrize(
    "lost", ["report.html", "virnucpro_mqc.json", "virnucpro_general_mqc.json"]
)
def test_a_report_that_a_kill_prevented_is_made_when_the_command_is_given_again(here, made, lost):
    before = predict(made)
    (here / "run" / lost).unlink()
    (here / "run" / ".virnucpro").mkdir()
    (here / "run" / ".virnucpro" / f".{lost}.17.0123abcd").write_text("half of it")
    after = predict(made)
    assert not (here / "run" / ".virnucpro").exists()
    assert after.keys() == before.keys()
    assert after["run.json"] == before["run.json"]
    assert after["virnucpro_mqc.json"] == before["virnucpro_mqc.json"]


ENDING = """
import atexit, sys, time
from virnucpro.cli import main
atexit.register(lambda: (print("ending", flush=True), time.sleep(0.5)))
sys.argv = ["virnucpro", "--version"]
main()
"""


@pytest.mark.parametrize("how", [signal.SIGINT, signal.SIGTERM])
def test_a_signal_after_the_end_changes_nothing(how):
    command = [sys.executable, "-c", ENDING]
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE) as process:
        while b"ending" not in process.stdout.readline():
            pass
        process.send_signal(how)
        assert process.communicate(timeout=30) == (b"", b"")
        assert process.returncode == 0


def check_forced(big: Path, out: Path) -> None:
    """With --force the folder takes a new run, and nothing of the old one stays."""
    arguments = ("predict", big / "small.fa", "-o", out, "--bundle", big / "km", "--force", "-q")
    assert virnucpro(*arguments).code == 0
    assert {path.name for path in out.iterdir()} == WHOLE
    assert run_json(out)["status"] == "complete"
    run.predict([big / "small.fa"], big / "km", out.parent / "fresh")
    assert results(out) == results(out.parent / "fresh")


@pytest.mark.parametrize("where", ["closed", "full"])
def test_a_run_goes_on_when_nobody_can_be_told(here, made, where):
    """Its results matter more than its lines."""
    command = [sys.executable, "-m", "virnucpro", "predict", "in.fa", "-o", "run"]
    if where == "closed":
        reading, writing = os.pipe()
        os.close(reading)
    else:
        if not Path("/dev/full").exists():
            pytest.skip("this system has no /dev/full")
        writing = os.open("/dev/full", os.O_WRONLY)
    try:
        done = subprocess.run([*command, "--bundle", str(made)], stderr=writing, check=False)
    finally:
        os.close(writing)
    assert done.returncode == 0
    assert json.loads((here / "run" / "run.json").read_text())["status"] == "complete"


def test_descriptors_that_are_closed_are_given_to_no_file(here, made):
    """What is meant for a terminal would be written into a result."""
    predict(made, out="open")
    shell = ["sh", "-c", 'exec "$@" <&- >&- 2>&-', "sh", *PROGRAM, "predict", "in.fa", "-o", "run"]
    assert subprocess.run([*shell, "--bundle", made, "-v"], check=False).returncode == 0
    assert run_json(here / "run")["status"] == "complete"
    assert results(here / "run") == results(here / "open")
    shell[-3:] = ["-", "-o", "piped"]
    assert subprocess.run([*shell, "--bundle", made], check=False).returncode == 1
    assert "nothing is piped into standard input" in run_json(here / "piped")["error"]
