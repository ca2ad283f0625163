"""virnucpro config and --config: every option, and what is no option; completion in shells."""

import itertools
import json
import os
import shutil
import subprocess
import sys
from datetime import datetime
from pathlib import Path

import pytest
import rich_click as click
from click.testing import CliRunner
from click.types import StringParamType

from command import dna, fasta, made_bundle, run_json, virnucpro
from virnucpro.cli import program
from virnucpro.cli.config import _is_switch, settable
from virnucpro.progress import Position, Silent
from virnucpro.results.files import RunFiles
from virnucpro.run import log

PREDICT = program.commands["predict"]
OPTIONS = settable(PREDICT)


def resolved(*words: str) -> dict:
    """What predict would get."""
    return PREDICT.make_context("predict", list(words)).params


NEEDED = ("in.fa", "-o", "run")
PLAIN = resolved(*NEEDED)


def other_value(parameter: click.Parameter) -> str:
    """A value that is not the default, as on the command line."""
    kind, default = parameter.type, PLAIN[parameter.name]
    if isinstance(kind, click.Choice):
        return next(c for c in kind.choices if c != default)
    if isinstance(kind, click.FloatRange):
        return "0.25"
    if isinstance(kind, click.IntRange) or kind is click.INT:
        return str((getattr(kind, "min", None) or 0) + 3)
    return 'a "quoted" näme \\ of'


def words_of(parameter: click.Parameter) -> list[str]:
    """One option on the command line, other than it is by itself."""
    if parameter.param_type_name == "argument":
        return [other_value(parameter), "b"]
    name = max(parameter.opts, key=len)
    if not _is_switch(parameter):
        return [name, other_value(parameter)] * (2 if parameter.multiple else 1)
    if parameter.secondary_opts and PLAIN[parameter.name] is not False:
        return [parameter.secondary_opts[0]]
    return [name]


@pytest.mark.parametrize("key", OPTIONS)
def test_every_option_goes_through_a_file(tmp_path, key):
    needed = [] if key == "inputs" else ["in.fa"]
    needed += [] if key == "out" else ["-o", "run"]
    words = [*needed, *words_of(OPTIONS[key])]
    said = resolved(*words)
    assert said != PLAIN
    written = CliRunner().invoke(program, ["config", *words])
    assert (written.exit_code, written.stderr) == (0, "")
    file = tmp_path / "all.toml"
    file.write_text(written.stdout, "utf-8")
    assert resolved("--config", str(file)) == said
    again = CliRunner().invoke(program, ["config", "--config", str(file)])
    assert again.stdout == written.stdout


def test_what_has_no_value_stands_there_as_a_comment():
    done = virnucpro("config")
    assert (done.code, done.err) == (0, "")
    for key, parameter in OPTIONS.items():
        commented = PLAIN[parameter.name] is None or key in ("inputs", "out")
        assert f"\n# {key} =\n" in f"\n{done.out}" if commented else f"\n{key} = " in done.out


def test_the_command_line_wins(tmp_path):
    file = tmp_path / "c.toml"
    file.write_text('threshold = 0.9\nresume = false\nno-compat-tables = true\ninputs = ["x"]\n')
    params = resolved("--config", str(file), *NEEDED, "--threshold", "0.3", "--resume")
    assert (params["threshold"], params["resume"], params["compat_tables"]) == (0.3, True, False)
    assert params["inputs"] == (Path("in.fa"),)


def test_a_run_from_a_file_alone(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    made_bundle(tmp_path / "km")
    Path("in.fa").write_bytes(fasta([("a", dna(900))]))
    Path("c.toml").write_text('inputs = ["in.fa"]\nout = "run"\nbundle = "km"\nthreshold = 0.25\n')
    assert virnucpro("predict", "--config", "c.toml").code == 0
    assert run_json(Path("run"))["settings"]["threshold"] == 0.25


WRONG = {
    "treshold = 1": "unknown option 'treshold' (did you mean threshold?); `virnucpro config`",
    "config = 'x'": "unknown option 'config'",
    "model-type = 500": "unknown option 'model-type'",
    "threshold = 'high'": "threshold: 'high' is not a number from 0 to 1, such as 0.5",
    "threshold = 3": "threshold: 3 is not a number from 0 to 1, such as 0.5",
    "threads = true": "threads must be a value, not true or false.",
    "force = 1": "force must be true or false.",
    "tables = ['gz']": "tables must be one value.",
    "tables = 'zip'": "tables: 'zip' is not one of 'plain', 'gz'.",
    "inputs = 'in.fa'": "inputs must be a list.",
    "mates = 5": "mates must be a path in quotes, got 5.",
    "reference = 5.5": "reference must be a path in quotes, got 5.5.",
    "inputs = ['in.fa', 5]": "inputs must be a path in quotes, got 5.",
    "max-records = 2.7": "max-records must be a whole number, got 2.7.",
    "cache-clear-interval = 2.0": "cache-clear-interval must be a whole number, got 2.0.",
    "[predict]\nthreads = 1": "unknown option 'predict'",
    "threads = ": "not TOML: Invalid value (at line 1, column 11); `virnucpro config",
    "mates = ''": "mates: it is empty; is a shell variable unset?",
    "threshold = nan": "threshold: nan is not a number from 0 to 1, such as 0.5",
}


@pytest.mark.parametrize("text", WRONG)
def test_what_is_wrong_in_a_file_is_one_sentence(tmp_path, text):
    file = tmp_path / "c.toml"
    file.write_text(text + "\n")
    done = virnucpro("predict", "--config", file, *NEEDED, cwd=tmp_path)
    assert (done.code, done.out) == (2, "")
    flat = " ".join(done.err.replace("│", " ").split()).replace("- ", "-")
    assert WRONG[text] in flat, flat
    assert "c.toml" in flat
    assert not (tmp_path / "run").exists()


def commands_under(group: click.Group, above: str = "") -> dict[str, click.Command]:
    found = {}
    for name, command in group.commands.items():
        if isinstance(command, click.Group):
            found |= commands_under(command, f"{above}{name} ")
        else:
            found[above + name] = command
    return found


COMMANDS = commands_under(program)
# Texts that say the same as nothing where they are empty, and those that are refused anyway.
MAY_BE_EMPTY = {"--prefix", "--description", "--case"}
TAKE_A_TEXT = [
    pytest.param(command, parameter, id=f"{name} {parameter.opts[0]}")
    for name, command in COMMANDS.items()
    for parameter in command.params
    if not getattr(parameter, "hidden", False)
    and not _is_switch(parameter)
    and isinstance(parameter.type, click.Path | StringParamType)
    and not MAY_BE_EMPTY.intersection(parameter.opts)
]


def test_there_are_texts_to_leave_empty():
    assert len(TAKE_A_TEXT) > 60


@pytest.mark.parametrize(("command", "parameter"), TAKE_A_TEXT)
def test_an_empty_path_or_name_is_refused(command, parameter):
    words = [parameter.opts[0], ""]
    if parameter.param_type_name == "argument":
        arguments = [p for p in command.params if p.param_type_name == "argument"]
        words = [*["a"] * arguments.index(parameter), ""]
    with pytest.raises(click.BadParameter, match="it is empty; is a shell variable unset\\?") as no:
        command.make_context(command.name, words)
    assert (no.value.param, no.value.exit_code) == (parameter, 2)


def refused(*words: str) -> str:
    """What the program says of a command line, with its frame and line breaks taken out."""
    done = CliRunner().invoke(program, [*words])
    assert (done.exit_code, done.stdout) == (2, "")
    return " ".join(done.stderr.replace("│", " ").split())


def test_an_unset_variable_is_not_the_current_folder(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    Path("in.fa").write_bytes(fasta([("a", dna(900))]))
    assert "'[INPUTS]...': it is empty; is a" in refused("predict", "", "-o", "run")
    assert "'-o' / '--out': it is empty; is a" in refused("predict", "in.fa", "-o", "")
    assert "command: it is empty; is a" in refused("")
    assert [path.name for path in tmp_path.iterdir()] == ["in.fa"]


@pytest.mark.parametrize("share", ["500", "500%", "%", "1,5,0", "-0.1", "nan", "high"])
@pytest.mark.parametrize("command", [["predict", "in.fa", "-o", "run"], ["evaluate", "mini-500"]])
def test_a_threshold_is_a_number_from_0_to_1(command, share):
    said = refused(*command, f"--threshold={share}")
    assert f"'--threshold': '{share}' is not a number from 0 to 1, such as 0.5 " in f"{said} "


@pytest.mark.parametrize(
    ("option", "given", "share"),
    [
        ("--threshold", "90 %", "0.9"),
        ("--threshold", "90", "0.9"),
        ("--threshold", "1.5", "0.5"),
        ("--threshold", "5%", "0.05"),
        ("--fdr", "0.1%", "0.001"),
        ("--fdr", "5", "0.05"),
        ("--fdr", "0,05", "0.05"),
        ("--prescreen-recall", "100%", "1"),
        ("--prescreen-recall", "99,5", "0.995"),
    ],
)
def test_a_percentage_or_a_decimal_comma_is_answered_with_its_share(option, given, share):
    said = refused("predict", "in.fa", "-o", "run", option, given)
    assert f"'{option}': '{given}' is not a number from 0 to 1, such as {share} " in f"{said} "


@pytest.mark.parametrize("given", ["5", "5%", "0,05"])
def test_the_other_prior_is_auto_in_any_case(given):
    said = refused("predict", "in.fa", "-o", "run", "--prior", given)
    why = f"'--prior': '{given}' is not auto or a number from 0 to 1, such as 0.05 "
    assert why in f"{said} "
    assert resolved(*NEEDED, "--prior", "Auto")["prior"] == "auto"


def test_a_file_in_the_place_of_a_command(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    Path("my viral.fa").write_bytes(fasta([("a", dna(900))]))
    assert (
        "No such command 'my viral.fa'; to classify what is in it, give `virnucpro predict 'my "
        "viral.fa' -o run`."
    ) in refused("my viral.fa")
    for name in ("other.fa", "a" * 5_000):
        assert "predict" not in refused(name).partition("No such command")[2]


def test_one_sample_is_no_samples(tmp_path):
    bundle = made_bundle(tmp_path / "km").path
    for name in "ab":
        (tmp_path / f"{name}.fa").write_bytes(fasta([(name, dna(900))]))
    words = ("predict", "--sample-sheet", "sheet.tsv", "-o", "runs", "--bundle", bundle)
    for rows, said in (("a\ta.fa\n", "1 sample: "), ("a\ta.fa\nb\tb.fa\n", "2 samples: ")):
        (tmp_path / "sheet.tsv").write_text(f"sample\tpath\n{rows}")
        last = virnucpro(*words, cwd=tmp_path).err.splitlines()[-1]
        assert last == f"{said}results are in runs, a folder for each"
    (tmp_path / "sheet.tsv").write_text("sample\tpath\na\ta.fa\nb\tb.fa\nc\ta.fa\nd\tb.fa\n")
    (tmp_path / "runs" / "d").write_text("in the way")
    done = virnucpro(*words, cwd=tmp_path)
    assert done.code != 0
    assert "3 of 4 samples: results are in runs, a folder for each" in done.err


def test_a_bundle_of_the_program_needs_no_download():
    done = CliRunner().invoke(program, ["bundles", "download", "mini-500"])
    said = "mini-500 comes with the program, so it is here: use it with --bundle mini-500"
    assert (done.exit_code, done.stdout, " ".join(done.stderr.split())) == (0, "", said)
    done = CliRunner().invoke(program, ["bundles", "download", "kmer-500-v1", "--quiet"])
    assert (done.exit_code, done.output) == (0, "")
    said = refused("bundles", "download", "mini-500", "--to", "carried")
    assert "mini-500 comes with the program; leave out --to and --from." in said


def test_a_file_that_is_not_there(tmp_path):
    done = virnucpro("predict", "--config", "none.toml", *NEEDED, cwd=tmp_path)
    assert done.code == 1
    assert done.error == "none.toml: cannot be read (No such file or directory); check --config"


# The log for programs


def test_each_line_of_the_log_is_an_object(tmp_path):
    made_bundle(tmp_path / "km")
    (tmp_path / "in.fa").write_bytes(fasta([("a", dna(900))]))
    arguments = ("predict", "in.fa", "-o", "run", "--bundle", "km", "--log-json", "--prefix", "p")
    assert virnucpro(*arguments, cwd=tmp_path).code == 0
    texts = (tmp_path / "run" / "p.log.txt").read_text().splitlines()
    every = [json.loads(x) for x in (tmp_path / "run" / "p.log.jsonl").read_text().splitlines()]
    entries = [entry for entry in every if entry["level"] not in ("progress", "end")]
    assert [entry["text"] for entry in entries] == [text.split(" ", 2)[2] for text in texts]
    assert {entry["level"] for entry in entries} == {"info"}
    assert (every[-1]["level"], every[-1]["status"], every[-1]["exit_code"]) == (
        "end",
        "complete",
        0,
    )
    times = [datetime.fromisoformat(entry["time"]) for entry in every]
    assert times == sorted(times)
    assert times[0].tzinfo is not None
    # Another run in this folder goes on with it, and --force begins it anew.
    (tmp_path / "run" / "p.calls.tsv").unlink()
    assert virnucpro(*arguments, cwd=tmp_path).code == 0
    more = (tmp_path / "run" / "p.log.jsonl").read_text().splitlines()
    assert len(more) > len(every)
    assert virnucpro(*arguments, "--force", cwd=tmp_path).code == 0
    assert len((tmp_path / "run" / "p.log.jsonl").read_text().splitlines()) == len(every)


def progress_of(path: Path) -> list[dict]:
    entries = [json.loads(line) for line in path.read_text().splitlines()]
    return [entry for entry in entries if entry["level"] == "progress"]


@pytest.mark.parametrize("piped", [False, True])
def test_progress_is_there_in_numbers(tmp_path, piped):
    """At the beginning, at the end where that is known, and not at each block between."""
    made_bundle(tmp_path / "km", block_nt=2_000)
    (tmp_path / "in.fa").write_bytes(data := fasta((f"r{i}", dna(900, i)) for i in range(40)))
    words = ("predict", "-" if piped else "in.fa", "-o", "run", "--bundle", "km", "--log-json")
    assert virnucpro(*words, "-q", "--no-progress", cwd=tmp_path, input=data).code == 0
    first, *rest = progress_of(tmp_path / "run" / "log.jsonl")
    time = first.pop("time")
    assert datetime.fromisoformat(time).tzinfo is not None
    assert first == {
        "level": "progress",
        "text": "0 records, 0 chunks",
        "stage": "sample",
        "records": 0,
        "chunks": 0,
        "reused_chunks": 0,
        "kept_blocks": 0,
        "done_bytes": 0,
        "total_bytes": None if piped else len(data),
        "chunks_per_s": None,
        "left_s": None,
    }
    if piped:
        assert rest == []
    else:
        (last,) = rest
        assert last.keys() == {"time", *first}
        assert (last["text"], last["done_bytes"]) == ("40 records, 80 chunks", len(data))
        assert (last["records"], last["chunks"]) == (40, 80)
        assert last["chunks_per_s"] > 0
        assert last["left_s"] == 0


def test_progress_comes_once_a_period(tmp_path, monkeypatch):
    clock = itertools.count(step=12.0)
    monkeypatch.setattr(log, "monotonic", lambda: next(clock))
    with log.open_log(RunFiles(tmp_path), Silent(), as_json=True) as both:
        for step in range(10):
            both.advance(Position(100.0 * step, 1_200, f"{step} records", 6 * step, "chunks"))
    found = progress_of(tmp_path / "log.jsonl")
    assert [entry["done_bytes"] for entry in found] == [0, 300, 600, 900]
    assert found[1]["chunks_per_s"] == 0.5
    assert found[1]["left_s"] == 108.0
    assert (tmp_path / "log.txt").read_text() == ""


def test_what_ended_a_run_is_an_error_in_it(tmp_path):
    made_bundle(tmp_path / "km")
    (tmp_path / "in.fa").write_text(">a\nACGT!\n")
    arguments = ("predict", "in.fa", "-o", "run", "--bundle", "km", "--log-json")
    done = virnucpro(*arguments, cwd=tmp_path)
    *_, last, end = map(json.loads, (tmp_path / "run" / "log.jsonl").read_text().splitlines())
    assert last["level"] == "error"
    assert last["text"] == f"failed: {done.error}"
    assert (end["level"], end["status"], end["exit_code"]) == ("end", "failed", 1)


def test_the_end_of_the_input_is_told_once(tmp_path):
    """Many short records may follow when all bytes are read."""
    steps = ((5.0, "sample"), (10.0, "sample"), (10.0, "sample"), (10.0, "negatives"))
    with log.open_log(RunFiles(tmp_path), Silent(), as_json=True) as both:
        for done, stage in steps:
            both.advance(Position(done, 10.0, numbers={"stage": stage}))
    found = progress_of(tmp_path / "log.jsonl")
    told = [(entry["stage"], entry["done_bytes"]) for entry in found]
    assert told == [("sample", 5), ("sample", 10), ("negatives", 10)]


def test_progress_of_negatives_and_of_a_run_that_goes_on(tmp_path):
    made_bundle(tmp_path / "km", block_nt=2_000)
    (tmp_path / "in.fa").write_bytes(fasta((f"r{i}", dna(900, i)) for i in range(40)))
    (tmp_path / "no.fa").write_bytes(fasta((f"n{i}", dna(900, i)) for i in range(50, 60)))
    words = ("predict", "in.fa", "-o", "run", "--bundle", "km", "--log-json")
    assert virnucpro(*words, "--keep-blocks", cwd=tmp_path).code == 0
    (tmp_path / "run" / "contigs.tsv").unlink()
    again = virnucpro(*words, "--keep-blocks", "--negatives", "no.fa", cwd=tmp_path)
    assert again.code == 0, again.err
    found = progress_of(tmp_path / "run" / "log.jsonl")[2:]
    seen = [(x["stage"], x["records"], x["chunks"], x["reused_chunks"]) for x in found]
    ends = [("sample", 0, 0, 0), ("sample", 40, 80, 80), ("negatives", 0, 0, 0)]
    assert seen == [*ends, ("negatives", 10, 20, 0)]
    assert [x["kept_blocks"] > 0 for x in found] == [True, True, False, False]
    assert [x["done_bytes"] == x["total_bytes"] for x in found] == [False, True, False, True]


def test_without_the_option_there_is_none(tmp_path):
    made_bundle(tmp_path / "km")
    (tmp_path / "in.fa").write_bytes(fasta([("a", dna(900))]))
    assert virnucpro("predict", "in.fa", "-o", "run", "--bundle", "km", cwd=tmp_path).code == 0
    assert not (tmp_path / "run" / "log.jsonl").exists()


# Completion


def completed(shell: str, *words: str) -> list[str]:
    """What a shell is offered for the last word."""
    environment = os.environ | {
        "_VIRNUCPRO_COMPLETE": f"{shell}_complete",
        "COMP_WORDS": " ".join(("virnucpro", *words)),
        "COMP_CWORD": str(len(words)) if shell != "fish" else words[-1],
    }
    code = "import sys; from virnucpro.cli import main; sys.argv = ['virnucpro']; main()"
    done = subprocess.run(
        [sys.executable, "-c", code], env=environment, capture_output=True, text=True, check=True
    )
    assert done.stderr == ""
    return done.stdout.split("\n")


@pytest.mark.parametrize("shell", ["bash", "fish"])
def test_options_and_bundles_are_completed(shell):
    assert any("--threshold" in line for line in completed(shell, "predict", "--thr"))
    assert any("bundles" in line for line in completed(shell, "bund"))
    for words in (("predict", "--bundle", "mini-5"), ("bundles", "show", "mini-5")):
        offered = completed(shell, *words)
        assert [line.split(",")[-1].split("\t")[0] for line in offered if line] == [
            "mini-500",
            "mini-500-v1",
            "mini-500-v2",
        ]
    assert any(line.startswith("dir") for line in completed(shell, "predict", "--bundle", "x/"))


def test_what_can_be_fetched_is_offered_where_it_is_of_use(tmp_path, monkeypatch):
    monkeypatch.setenv("VIRNUCPRO_CACHE", str(tmp_path))
    published = [f"plain,virnucpro-{nt}" for nt in ("300", "300-v1", "500", "500-v1")]
    for command in ("show", "download"):
        assert completed("bash", "bundles", command, "virn") == [*published, ""]
    assert completed("bash", "bundles", "show", "kmer-3") == [
        "plain,kmer-300",
        "plain,kmer-300-v1",
        "",
    ]
    for words in (("predict", "--bundle"), ("bundles", "verify")):
        assert completed("bash", *words, "virn") == ["dir,virn", ""]


@pytest.mark.skipif(shutil.which("bash") is None, reason="there is no bash")
def test_bash_takes_the_script():
    code = "import sys; from virnucpro.cli import main; sys.argv = ['virnucpro']; main()"
    environment = os.environ | {"_VIRNUCPRO_COMPLETE": "bash_source"}
    script = subprocess.run(
        [sys.executable, "-c", code], env=environment, capture_output=True, text=True, check=True
    ).stdout
    subprocess.run(
        ["bash", "-c", script + "\ncomplete -p virnucpro"], check=True, capture_output=True
    )
