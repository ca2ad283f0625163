"""How far a run is and how long it will take: from fake clocks, real runs and a real terminal."""

import gzip
import io
import os
import pty
import re
import select
import signal
import struct
import subprocess
import sys
import termios
import time
from dataclasses import replace
from fcntl import ioctl
from pathlib import Path

import pytest

from command import PROGRAM, dna, fasta, interruptible, made_bundle, random_reads, virnucpro
from made_reads import fastq
from virnucpro.classifiers.kmer import KmerClassifier
from virnucpro.cli import terminal
from virnucpro.cli.signals import SIGNALS
from virnucpro.progress import Forecast, Position, Silent, stepped
from virnucpro.run import watch
from virnucpro.run.predict import predict, run
from virnucpro.run.settings import Settings


def forecast(*steps: tuple[float, Position]) -> Forecast:
    found = Forecast()
    for now, position in steps:
        found.take(now, position)
    return found


def at(done: float, count: int | None = None, total: float | None = 1e5) -> Position:
    """So much of the work, each of it of this process unless another count is given."""
    return Position(done, total, "", int(done) if count is None else count, "chunks")


def test_nothing_is_foretold_before_the_first_step():
    found = forecast((50.0, at(0)))
    assert (found.rate, found.share, found.left_s(60.0)) == (None, 0.0, None)
    found = Forecast()
    assert (found.rate, found.share, found.left_s(60.0)) == (None, None, None)


def test_two_steps_of_one_moment_are_no_rate():
    found = forecast((5.0, at(0)), (5.0, at(1_000)))
    assert (found.rate, found.left_s(5.0)) == (None, None)


def test_the_time_before_work_began_is_no_rate():
    found = forecast((0.0, at(0)), (300.0, at(0)), (310.0, at(1_000)))
    assert found.rate == 100
    assert found.left_s(310.0) == pytest.approx(990)
    assert found.left_s(320.0) == pytest.approx(980)
    assert found.left_s(3_000.0) == 0.0


def test_the_rate_is_that_of_late():
    steps = [(10.0 * i, at(1_000 * i)) for i in range(20)]
    slow = [(190 + 100.0 * i, at(19_000 + 1_000 * i)) for i in range(1, 10)]
    found = forecast((0.0, at(0)), *steps, *slow)
    assert found.rate == 10
    assert found.left_s(1090.0) == pytest.approx((100_000 - 28_000) / 10)


def test_what_is_left_goes_by_the_work_and_not_by_the_count():
    """Long reads first, then short ones: more chunks a byte are to come."""
    steps = [(float(i), at(1_000 * i)) for i in range(1, 40)]
    more = [(40.0 + i, at(39_000 + 100 * i, 39_000 + 1_000 * i)) for i in range(61)]
    found = forecast((0.0, at(0)), *steps, *more)
    assert found.rate == pytest.approx(1_000)
    assert found.left_s(100.0) == pytest.approx((100_000 - 45_000) / 100, rel=0.02)


def test_what_was_finished_before_is_no_rate():
    resumed = [(float(i), at(10_000 * i, 0)) for i in range(1, 6)]
    found = forecast((0.0, at(0)), *resumed, (15.0, at(51_000, 1_000)))
    assert found.rate == 100
    assert found.share == pytest.approx(0.51)
    assert found.left_s(15.0) == pytest.approx(490)


def test_work_that_begins_anew_knows_nothing_of_the_one_before():
    """Another sample of a sheet, or blocks that are computed again."""
    first = [(float(i), at(1_000 * i)) for i in range(1, 100)]
    dense = [(200.0 + i, at(2_000 * i, 10_000 * i)) for i in range(11)]
    found = forecast((0.0, at(0)), *first, *dense)
    assert found.rate == 10_000
    assert found.left_s(210.0) == pytest.approx(80_000 / 2_000)


def test_where_nothing_is_counted_the_time_left_is_known_all_the_same():
    found = forecast((0.0, Position(0, 9)), (10.0, Position(3, 9)))
    assert (found.rate, found.share, found.left_s(10.0)) == (None, 3 / 9, 20)


def test_an_input_that_grew_is_at_its_end_and_no_further():
    found = forecast((0.0, Position(0, 9)), (10.0, Position(12, 9)))
    assert (found.share, found.left_s(10.0)) == (1.0, 0.0)


def test_of_a_pipe_only_the_rate_is_told():
    found = forecast((0.0, at(0, total=None)), (10.0, at(5_000, 500, None)))
    assert (found.rate, found.share, found.left_s(11.0)) == (50, None, None)


# Real runs


class Watching(Silent):
    """A watcher with a clock that tells a second a chunk."""

    def __init__(self) -> None:
        self.lines: list[str] = []
        self.told: list[tuple[float | None, float | None]] = []
        self.positions: list[Position] = []
        self._forecast = Forecast()

    def line(self, text: str) -> None:
        self.lines.append(text)

    def advance(self, position: Position) -> None:
        now = float(position.count)
        self._forecast.take(now, position)
        self.positions.append(position)
        self.told.append((self._forecast.share, self._forecast.left_s(now)))


def fastq_reads(number: int, length_nt: int) -> bytes:
    return fastq((f"r{i}", dna(length_nt, i)) for i in range(number))


INPUTS = {
    "few blocks": random_reads(600, 250),
    "one contig": fasta([("chromosome", dna(150_000))]),
    "many": random_reads(10_000, 300),
    "qualities": fastq_reads(600, 250),
    "empty": b"",
}


@pytest.mark.parametrize("name", INPUTS)
@pytest.mark.parametrize("packed", [False, True])
def test_a_run_knows_from_its_first_block_what_is_left(tmp_path, name, packed):
    """Blocks of a steady pace end when was said.

    To a tenth: of a file that is larger than its head the rest is guessed.
    """
    bundle = made_bundle(tmp_path / "km", block_nt=30_000)
    (tmp_path / "in.fa").write_bytes(gzip.compress(INPUTS[name]) if packed else INPUTS[name])
    seen = Watching()
    run(Settings.of(tmp_path / "in.fa", tmp_path / "run", bundle.path), seen)
    chunks = seen.positions[-1].count
    assert seen.positions[0].count == 0
    for position, (share, left) in zip(seen.positions[1:], seen.told[1:], strict=True):
        assert share == pytest.approx(position.count / chunks, abs=0.1)
        assert left == pytest.approx(chunks - position.count, abs=0.1 * chunks)
    assert not chunks or seen.told[-1][0] == 1.0


def test_progress_moves_within_a_block(tmp_path, monkeypatch):
    """In the bundle that is the default; without a step backwards where the next block begins."""
    monkeypatch.setattr(watch, "SHOWN_EVERY_S", 0.0)
    (tmp_path / "in.fa").write_bytes(random_reads(160, 400) + fasta([("low", "ACG" * 9_000)]))
    seen = Watching()
    run(Settings.of(tmp_path / "in.fa", tmp_path / "run", precision="fp32"), seen)
    within = [position for position in seen.positions if not position.whole]
    assert len(within) > 5
    assert len({position.done for position in within}) > 5
    for values in ([p.done for p in seen.positions], [p.count for p in seen.positions]):
        assert values == sorted(values)
    assert [p.whole for p in seen.positions[:: len(seen.positions) - 1]] == [True, True]
    assert seen.positions[-1].done == seen.positions[-1].total


def test_progress_does_not_go_back_where_denser_reads_begin(tmp_path, monkeypatch):
    """Short reads have more chunks a byte, so less of what is read seems to be scored."""
    score = KmerClassifier.score_block

    def with_steps(classifier, block):
        for _ in range(4):
            stepped(0.25)
        return score(classifier, block)

    monkeypatch.setattr(watch, "SHOWN_EVERY_S", 0.0)
    monkeypatch.setattr(KmerClassifier, "score_block", with_steps)
    bundle = made_bundle(tmp_path / "km", block_nt=30_000)
    (tmp_path / "in.fa").write_bytes(fasta([("long", dna(60_000))]) + random_reads(2_000, 80))
    seen = Watching()
    run(Settings.of(tmp_path / "in.fa", tmp_path / "run", bundle.path), seen)
    assert sum(not position.whole for position in seen.positions) > 8
    done = [position.done for position in seen.positions]
    assert done == sorted(done)


def test_a_resumed_run_counts_what_was_there(tmp_path):
    bundle = made_bundle(tmp_path / "km", block_nt=30_000)
    (tmp_path / "in.fa").write_bytes(INPUTS["few blocks"])
    predict(tmp_path / "in.fa", bundle.path, tmp_path / "run", keep_blocks=True)
    blocks = sorted((tmp_path / "run").glob(".virnucpro/blocks/*.block"))
    for block in blocks[2:]:
        block.unlink()
    (tmp_path / "run" / "calls.tsv").unlink()
    seen = Watching()
    run(Settings.of(tmp_path / "in.fa", tmp_path / "run", bundle.path, keep_blocks=True), seen)
    counts = [p.count for p in seen.positions]
    assert len(counts) == 1 + len(blocks)
    assert counts[:3] == [0, 0, 0]
    assert counts[3:] == sorted({*counts[3:]} - {0})
    chunks = int(seen.positions[-1].note.split()[2])
    assert 0 < seen.positions[1].done < seen.positions[2].done
    assert seen.told[2][0] == pytest.approx((chunks - counts[-1]) / chunks, abs=0.05)


def test_negatives_have_a_progress_of_their_own(tmp_path):
    bundle = made_bundle(tmp_path / "km", block_nt=30_000)
    (tmp_path / "in.fa").write_bytes(INPUTS["few blocks"])
    (tmp_path / "blank.fa").write_bytes(random_reads(900, 250))
    seen = Watching()
    negatives = {"negatives": tmp_path / "blank.fa"}
    run(Settings.of(tmp_path / "in.fa", tmp_path / "run", bundle.path, **negatives), seen)
    assert f"scoring the negatives of {tmp_path / 'blank.fa'}, " in "\n".join(seen.lines)
    (first,) = [i for i, p in enumerate(seen.positions) if p.note == "0 negatives, 0 chunks"]
    assert seen.positions[first - 1].note.startswith("600 records, ")
    assert seen.told[first] == (0.0, None)
    chunks = seen.positions[-1].count
    assert seen.positions[-1].note.startswith("900 negatives, ")
    for position, (share, left) in zip(
        seen.positions[first + 1 :], seen.told[first + 1 :], strict=True
    ):
        assert share == pytest.approx(position.count / chunks, abs=0.1)
        assert left == pytest.approx(chunks - position.count, abs=0.1 * chunks)


# What a person sees


BEGIN = Position(0, 100_000, "0 records", 0, "chunks")


def after(chunks: int) -> Position:
    return Position(chunks, 100_000, f"{chunks:,} records, {chunks:,} chunks", chunks, "chunks")


class Terminal(io.StringIO):
    def isatty(self) -> bool:
        return True


def test_a_bar_on_a_terminal_tells_the_time_left_from_its_first_step(monkeypatch):
    monkeypatch.setattr(sys, "stderr", Terminal())
    clock = [0.0]
    monkeypatch.setattr(terminal, "monotonic", lambda: clock[0])
    with terminal.Screen() as screen:
        screen.advance(Position(0, 4, "nothing"))
        clock[0] = 60.0
        screen.advance(Position(1, 4, "a quarter"))
    assert screen.now() == "25%, a quarter, 0:01:00 elapsed, 0:03:00 left"


@pytest.mark.parametrize(
    ("rate", "text"), [(12345.6, "12,346"), (10.0, "10"), (2.51, "2.5"), (0.031, "0.031")]
)
def test_a_slow_rate_is_no_zero(rate, text):
    assert terminal._few_digits(rate) == text


def test_plain_lines_come_also_while_a_block_takes_long(monkeypatch, capfd):
    monkeypatch.setattr(terminal, "PLAIN_EVERY_S", 0.2)
    with terminal.Screen() as screen:
        time.sleep(0.5)
        screen.advance(BEGIN)
        time.sleep(0.1)
        screen.advance(after(50_000))
        time.sleep(0.5)
    err = capfd.readouterr().err
    shown = err.splitlines()
    assert 4 <= len(shown) <= 5, err
    assert shown[0] == "starting, 0:00:00 elapsed"
    assert re.fullmatch(
        r"50%, 50,000 records, 50,000 chunks, [\d,]+ chunks/s, \d\.\d\d GiB, 0:00:01 elapsed, "
        r"0:00:00 left",
        shown[-1],
    )


@pytest.mark.parametrize("options", [{"quiet": True}, {"bar": False}])
def test_no_line_comes_where_none_is_wanted(monkeypatch, capfd, options):
    monkeypatch.setattr(terminal, "PLAIN_EVERY_S", 0.05)
    with terminal.Screen(**options) as screen:
        screen.advance(BEGIN)
        time.sleep(0.2)
    assert capfd.readouterr().err == ""


def test_a_line_for_each_block_on_request(monkeypatch, capfd):
    """And none within a block."""
    with terminal.Screen(bar=False, verbose=True) as screen:
        screen.advance(BEGIN)
        screen.advance(replace(after(500), whole=False))
        screen.advance(after(1_000))
        screen.advance(after(2_000))
    assert [line[:24] for line in capfd.readouterr().err.splitlines()] == [
        "1%, 1,000 records, 1,000",
        "2%, 2,000 records, 2,000",
    ]


@pytest.fixture(scope="module")
def big(tmp_path_factory) -> Path:
    folder = tmp_path_factory.mktemp("big")
    (folder / "in.fa").write_bytes(random_reads(4_000, 250))
    made_bundle(folder / "km", block_nt=50_000)
    return folder


def seen_in_a_terminal(command: list, columns: int, **environment: str) -> tuple[str, int]:
    """What a program writes to a terminal of so many columns, and its exit code."""
    ours, theirs = pty.openpty()
    ioctl(theirs, termios.TIOCSWINSZ, struct.pack("HHHH", 24, columns, 0, 0))
    kept = {k: v for k, v in os.environ.items() if k not in ("NO_COLOR", "COLUMNS", "FORCE_COLOR")}
    environment = kept | {"TERM": "xterm-256color"} | environment
    with subprocess.Popen(
        command,
        stdin=theirs,
        stdout=theirs,
        stderr=theirs,
        env=environment,
        preexec_fn=interruptible,
    ) as process:
        os.close(theirs)
        text = b""
        while select.select([ours], [], [], 60)[0]:
            try:
                text += os.read(ours, 1 << 16)
            except OSError:  # the program has ended
                break
    os.close(ours)
    return text.decode(), process.returncode


def slow_program(big: Path, *arguments: object) -> list:
    """The program with a pause a block, so that something can be seen."""
    code = (
        "import sys, time\n"
        "from virnucpro.run import runners\n"
        "from virnucpro.__main__ import main\n"
        "before = runners.SerialRunner.run\n"
        "def run(self, blocks):\n"
        "    for scored in before(self, blocks):\n"
        "        time.sleep(0.05)\n"
        "        yield scored\n"
        "runners.SerialRunner.run = run\n"
        "main()\n"
    )
    predicted = ["predict", big / "in.fa", "--bundle", big / "km", "-o", *arguments]
    return [sys.executable, "-c", code, *predicted]


CONTROL = re.compile(r"\x1b\[[0-9;?]*[A-Za-z]")
COLOUR = re.compile(r"\x1b\[[0-9;]*m")


@pytest.mark.parametrize("columns", [80, 120])
def test_a_bar_in_a_real_terminal(big, tmp_path, columns):
    text, code = seen_in_a_terminal(slow_program(big, tmp_path / "run"), columns)
    assert code == 0, text
    shown = [CONTROL.sub("", line).strip() for line in re.split(r"[\r\n]", text)]
    bars = [line for line in shown if "chunks/s" in line]
    form = r"\S+ +\d+% [\d,]+ chunks, [\d,]+ chunks/s, \d\.\d\d GiB \d:\d\d:\d\d \d:\d\d:\d\d left"
    assert bars
    assert all(re.fullmatch(form, line) for line in bars), bars
    assert "…" not in text.replace("reading", "")
    assert COLOUR.search(text)
    # It goes when the work is done, and the cursor is shown again.
    assert shown[-2].startswith("results are in ") or "results are in" in text.split("\x1b[?25h")[0]
    assert "\x1b[?25h" in text


@pytest.mark.parametrize("how", SIGNALS)
def test_a_signal_before_a_run_leaves_the_cursor_shown(big, tmp_path, how):
    """It kills the program at once."""
    command = slow_program(big, tmp_path / "run")
    kill = f"    os.kill(os.getpid(), {int(how)})\n"
    before = "import os\nfrom virnucpro.run import predict as run\ndef prepare(*_):\n" + kill
    command[2] = before + "run.prepare = prepare\n" + command[2]
    text, code = seen_in_a_terminal(command, 80)
    assert code == -how
    assert "\x1b[?25l" not in text


@pytest.mark.parametrize(
    ("arguments", "environment"),
    [
        (["--no-progress"], {}),
        (["-q"], {}),
        ([], {"TERM": "dumb"}),
        ([], {"NO_COLOR": "1"}),
        ([], {"NO_COLOR": "1", "TERM": "dumb"}),
    ],
)
def test_no_bar_on_request_or_where_it_cannot_move(big, tmp_path, arguments, environment):
    command = slow_program(big, tmp_path / "run", *arguments)
    text, code = seen_in_a_terminal(command, 100, **environment)
    assert code == 0
    assert "\x1b[" not in text
    assert "chunks/s" not in text
    assert ("results are in" in text) == ("-q" not in arguments)


def test_lines_are_wrapped_between_words_in_a_terminal(big, tmp_path):
    run_dir = tmp_path / ("a" * 100)
    command = slow_program(big, run_dir, "--no-progress")
    text, code = seen_in_a_terminal(command, 60, NO_COLOR="1")
    assert code == 0
    lines = [line.rstrip() for line in text.splitlines()]
    assert f"{run_dir}/report.html" in lines
    assert all(len(line) <= 60 or line.startswith(str(tmp_path)) for line in lines)
    logged = [x.split(" ", 2)[2] for x in (run_dir / "log.txt").read_text().splitlines()]
    assert logged[0] in " ".join(lines)


@pytest.mark.parametrize(
    ("columns", "lines"),
    [
        ("0", ["/a/long/path-of-no-blank/x.fa: cannot be read"]),
        ("1", ["/a/long/path-of-no-blank/x.fa: cannot be read"]),
        ("20", ["/a/long/path-of-no-blank/x.fa:", "cannot be read"]),
        ("40", ["/a/long/path-of-no-blank/x.fa: cannot be", "read"]),
        ("80", ["/a/long/path-of-no-blank/x.fa: cannot be read"]),
    ],
)
def test_where_a_line_is_broken(monkeypatch, columns, lines):
    monkeypatch.setattr(sys, "stderr", Terminal())
    monkeypatch.setenv("COLUMNS", columns)
    assert terminal.folded(" ".join(lines)).split("\n") == lines


@pytest.mark.parametrize("arguments", [["bundles", "list"], ["cite", "--help"], ["cite", "no"]])
def test_a_terminal_of_no_columns_by_the_environment(arguments):
    """The terminal's own width counts then."""
    command = [*PROGRAM, *arguments]
    expected = seen_in_a_terminal(command, 80)
    assert expected[0].strip()
    assert seen_in_a_terminal(command, 80, COLUMNS="0") == expected


TABLES = {
    "bundles list": ["bundles", "list"],
    "bundles show": ["bundles", "show", "mini-500", "--all"],
    "evaluate": ["evaluate", "kmer-500", "--positive", "v.fa", "--negative", "o.fa", "-q"],
    "help": ["predict", "--help"],
}


@pytest.mark.parametrize("arguments", TABLES.values(), ids=TABLES)
def test_tables_fit_into_a_terminal_and_lose_nothing(tmp_path, monkeypatch, arguments):
    monkeypatch.chdir(tmp_path)
    for name in ("v.fa", "o.fa"):
        Path(name).write_bytes(fasta((f"{name}{i}", dna(500, i)) for i in range(8)))
    command = [*PROGRAM, *arguments]
    text, code = seen_in_a_terminal(command, 80, NO_COLOR="1")
    assert code == 0
    assert "\x1b" not in text
    assert max(len(line.rstrip()) for line in text.splitlines()) <= 80
    piped = virnucpro(*arguments).out
    if arguments[0] != "predict":  # sentences below tables are not broken
        tables = [line.rstrip() for line in piped.splitlines() if "  " in line.strip()]
        whole = 25 + max(map(len, piped.split()))  # a path beside its name
        assert max(map(len, tables)) <= max(100, whole)
    # A sha256 may be folded, and a column that is empty is left out.
    words = {word for word in piped.split() if len(word) < 60} - {"it"}
    assert words <= set(text.split())


def test_a_path_stays_whole_beside_a_column_of_several_words(capsys):
    paper, path = terminal.Paper(), "/" + "folder-" * 11
    paper.print(*terminal.tables_in_parts(["", ""], [["threshold of records", path]], 100))
    assert path in capsys.readouterr().out


def test_a_file_gets_tables_of_a_page_and_whatever_has_no_blank_whole(capsys):
    paper, path = terminal.Paper(), "/".join(["folder"] * 40)
    header, rows = ["name", "path", "words"], [["n", path, "few words " * 40]]
    assert paper.width == 100
    paper.print(*terminal.tables_in_parts(header, rows, paper.width), "a sentence " * 20)
    *table, sentence = capsys.readouterr().out.splitlines()
    assert path in " ".join(table).split()
    assert all(len(line.rstrip()) <= 100 for line in table if path not in line)
    assert sentence == "a sentence " * 20


def test_the_parts_of_a_wide_table():
    rows = [["name", "a" * 10, "b" * 10, "c" * 50, "d" * 5], ["x" * 8, "", "", "", ""]]
    assert terminal.columns_fitting(rows, 200, 1) == [[0, 1, 2, 3, 4]]
    assert terminal.columns_fitting(rows, 34, 1) == [[0, 1, 2], [0, 3], [0, 4]]
    assert terminal.columns_fitting(rows, 33, 1) == [[0, 1], [0, 2], [0, 3], [0, 4]]
    parts = list(terminal.tables_in_parts(rows[0], rows[1:], 34, title="t"))
    assert [part.title.plain for part in parts] == ["t"]  # nothing is in the others
    assert terminal.columns_fitting(rows, 34, 2) == [[0, 1, 2], [0, 1, 3], [0, 1, 4]]


@pytest.mark.parametrize("rows", [[], [[]], [[], []]])
def test_a_table_without_columns_has_no_parts(rows):
    assert terminal.columns_fitting([[], *rows], 80, 1) == []
    assert list(terminal.tables_in_parts([], rows, 80, title="t")) == []


def test_a_table_of_fewer_columns_than_are_repeated():
    assert terminal.columns_fitting([["a"], ["b"]], 80, 2) == [[0]]


@pytest.mark.parametrize("forced", [{}, {"FORCE_COLOR": "1"}])
def test_a_file_gets_plain_lines_alone(big, tmp_path, forced):
    command = slow_program(big, tmp_path / "run")
    command[2] = "from virnucpro.cli import terminal\nterminal.PLAIN_EVERY_S = 0.1\n" + command[2]
    done = subprocess.run(
        command, capture_output=True, check=True, text=True, env={**os.environ, **forced}
    )
    assert "chunks/s" in done.stderr
    assert "\x1b" not in done.stderr


def test_lines_end_with_a_run_that_is_stopped(big, tmp_path):
    """The thread that writes them holds up neither the signal nor the end."""
    command = slow_program(big, tmp_path / "run")
    command[2] = "from virnucpro.cli import terminal\nterminal.PLAIN_EVERY_S = 0.1\n" + command[2]
    with subprocess.Popen(
        command, stderr=subprocess.PIPE, text=True, preexec_fn=interruptible
    ) as process:
        lines = iter(process.stderr.readline, "")
        assert next(line for line in lines if "chunks/s" in line)
        clock = time.monotonic()
        process.send_signal(signal.SIGINT)
        rest = process.stderr.read()
        assert process.wait(30) == 130
    assert time.monotonic() - clock < 10
    assert rest.splitlines()[-1] == "virnucpro: stopped before the end"
