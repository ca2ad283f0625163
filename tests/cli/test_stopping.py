"""Ctrl-C and SIGTERM at any moment of a start-up, and what is said of what was finished."""

import os
import re
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from command import PROGRAM, dna, fasta, interruptible, made_bundle, random_reads, run_json
from virnucpro.cli.signals import SIGNALS, Stop

ENDS = [(signal.SIGINT, 130), (signal.SIGTERM, 143)]
EARLY = "virnucpro: stopped before it began\n"


@pytest.fixture
def here(tmp_path, monkeypatch) -> Path:
    """A working directory with a small input, and a bundle with small blocks."""
    monkeypatch.chdir(tmp_path)
    (tmp_path / "in.fa").write_bytes(fasta([("a", dna(400)), ("b", dna(900, 1))]))
    made_bundle(tmp_path / "km", block_nt=250_000)
    return tmp_path


def started(*arguments: object, program=PROGRAM, **more) -> subprocess.Popen:
    command = [*program, *map(str, arguments)]
    pipes = {"stdout": subprocess.PIPE, "stderr": subprocess.PIPE, "text": True}
    return subprocess.Popen(command, preexec_fn=interruptible, **pipes, **more)


def wait_until_taken(process: subprocess.Popen) -> None:
    """Until the program takes SIGTERM; before, Python itself is starting."""
    status = Path(f"/proc/{process.pid}/status")
    while process.poll() is None:
        caught = next(line for line in status.read_text().splitlines() if line.startswith("SigCgt"))
        if int(caught.split()[1], 16) >> (signal.SIGTERM - 1) & 1:
            return
        time.sleep(0.001)
    raise AssertionError("it ended before")


@pytest.mark.skipif(not Path("/proc/self/status").exists(), reason="tells by /proc")
@pytest.mark.parametrize(("how", "code"), ENDS)
def test_a_signal_at_any_moment_of_a_start_is_one_line(here, how, code):
    for after_s in (0.0, 0.01, 0.03, 0.06, 0.1, 0.2, 0.4, 0.8, 1.2):
        run_dir = here / f"run-{after_s}"
        process = started("predict", "in.fa", "-o", run_dir, "-q")
        wait_until_taken(process)
        time.sleep(after_s)
        process.send_signal(how)
        _, err = process.communicate(timeout=60)
        if process.returncode == 0:  # it was done before, on a fast machine
            assert run_json(run_dir)["status"] == "complete"
            continue
        assert process.returncode == code, err
        (line,) = err.split("\n\n")[-1].strip().splitlines()
        assert line.startswith("virnucpro: stopped before ")


KILLING = "import os, sys; os.kill(os.getpid(), int(os.environ['HOW']))\n{after}"
WENT_ON = "print('went on', file=sys.stderr)\n"


@pytest.mark.parametrize("library", ["rich_click", "numpy"])
@pytest.mark.parametrize(("how", "code"), ENDS)
def test_a_signal_in_an_import_before_a_run_ends_it_at_once(here, how, code, library):
    """rich_click is imported before the command line is read, numpy after it."""
    (here / "first").mkdir()
    (here / "first" / f"{library}.py").write_text(KILLING.format(after=WENT_ON))
    path = os.pathsep.join([str(here / "first"), os.environ.get("PYTHONPATH", "")])
    env = {**os.environ, "PYTHONPATH": path, "HOW": str(int(how))}
    process = started("predict", "in.fa", "-o", "run", env=env)
    _, err = process.communicate(timeout=60)
    end = EARLY if library == "rich_click" else "virnucpro: stopped before the end\n"
    assert (process.returncode, err) == (code, end)
    assert not (here / "run").exists()


def test_a_signal_that_is_ignored_stays_so_from_the_start(here):
    """As under nohup."""
    command = ["sh", "-c", 'trap "" INT; exec "$@"', "sh", *PROGRAM]
    with started("predict", "in.fa", "-o", "run", program=command) as process:
        wait_until_taken(process)
        process.send_signal(signal.SIGINT)
        process.communicate(timeout=60)
    assert process.returncode == 0


IN_A_RUN = """
import sys
from virnucpro.run import predict as run
from virnucpro.__main__ import main

write_tables = run.write_tables

def write(*arguments, **more):
    import killing
    return write_tables(*arguments, **more)

run.write_tables = write
main()
"""


@pytest.mark.parametrize(("how", "code"), ENDS)
def test_a_signal_in_an_import_in_a_run_waits_for_the_end_of_the_import(here, how, code):
    (here / "killing.py").write_text(KILLING.format(after=WENT_ON))
    (here / "program.py").write_text(IN_A_RUN)
    arguments = ("predict", "in.fa", "-o", "run", "--bundle", here / "km", "-q")
    program = (sys.executable, here / "program.py")
    env = {**os.environ, "HOW": str(int(how))}
    process = started(*arguments, program=map(str, program), env=env)
    _, err = process.communicate(timeout=60)
    assert process.returncode == code
    assert [x for x in err.splitlines() if x] == ["went on", "virnucpro: stopped before the end"]
    assert run_json(here / "run")["status"] == "interrupted"


UNRAISABLE = """
import os, sys
from virnucpro.run import predict as run
from virnucpro.__main__ import main

class Ended:
    def __del__(self):
        os.kill(os.getpid(), int(os.environ["HOW"]))

write_tables = run.write_tables

def write(*arguments, **more):
    Ended()
    return write_tables(*arguments, **more)

run.write_tables = write
main()
"""


@pytest.mark.parametrize(("how", "code"), ENDS)
def test_a_signal_where_nothing_can_be_raised_is_not_spoken_of(here, how, code):
    """Python would print "Exception ignored in"."""
    (here / "program.py").write_text(UNRAISABLE)
    arguments = ("predict", "in.fa", "-o", "run", "--bundle", here / "km", "-q")
    program = (sys.executable, str(here / "program.py"))
    process = started(*arguments, program=program, env={**os.environ, "HOW": str(int(how))})
    _, err = process.communicate(timeout=60)
    assert process.returncode == code
    assert err.strip() == "virnucpro: stopped before the end"


def stop_after(blocks: int, run_dir: Path, *flags: object) -> str:
    """Standard error of a run that is stopped when so many blocks are finished."""
    process = started("predict", "big.fa", "-o", run_dir, "--bundle", "km", *flags)
    kept = run_dir / ".virnucpro" / "blocks"
    while sum(1 for _ in kept.glob("*.block")) < blocks or not (run_dir / "log.txt").exists():
        assert process.poll() is None
        time.sleep(0.002)
    process.send_signal(signal.SIGINT)
    _, err = process.communicate(timeout=60)
    assert process.returncode == 130
    return err


def test_what_was_finished_is_said(here):
    (here / "big.fa").write_bytes(random_reads(60_000, 250))
    run_dir = here / "run"
    err = stop_after(2, run_dir)
    blocks = sum(1 for _ in (run_dir / ".virnucpro" / "blocks").glob("*.block"))
    goes_on = "are kept: give the same command again, and it goes on"
    assert f"\n{blocks:,} finished blocks {goes_on}\n" in err
    done = started("predict", "big.fa", "-o", run_dir, "--bundle", "km", "-v")
    _, err = done.communicate(timeout=60)
    said = f"\nfinished blocks of an earlier start: {blocks}; what fits "
    assert 0 < err.index(said) < err.index(" records, ")
    assert re.search(rf"\n{blocks} of \d+ blocks were finished before\n", err)


HUNG = """
import time
from virnucpro.classifiers.kmer import KmerClassifier
from virnucpro.__main__ import main

def hang(*_):
    open("hanging", "w").close()
    time.sleep(60)

KmerClassifier.score = hang
main()
"""


def test_that_nothing_was_finished_is_said(here):
    (here / "program.py").write_text(HUNG)
    program = (sys.executable, str(here / "program.py"))
    process = started("predict", "in.fa", "-o", "run", "--bundle", "km", program=program)
    while not (here / "hanging").exists():
        assert process.poll() is None
        time.sleep(0.002)
    process.send_signal(signal.SIGINT)
    _, err = process.communicate(timeout=60)
    assert process.returncode == 130
    assert "no block was finished yet: the same command begins at the start\n" in err
    assert "kept" not in err


def test_what_was_there_is_put_back(monkeypatch):
    """Signals stay ignored, since Python is about to end; an alarm may be somebody else's."""
    before = {number: signal.getsignal(number) for number in (*SIGNALS, signal.SIGALRM)}
    stop = Stop()
    try:
        stop.begin()
        assert signal.getsignal(signal.SIGALRM) == stop._later
        stop.end()
        assert signal.getsignal(signal.SIGALRM) == before[signal.SIGALRM]
        assert sys.unraisablehook is sys.__unraisablehook__
        assert [signal.getsignal(number) for number in SIGNALS] == [signal.SIG_IGN] * 2
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
