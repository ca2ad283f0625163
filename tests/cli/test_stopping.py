"""Ctrl-C, SIGTERM and SIGHUP at any moment, and what is said of what was finished."""

import os
import re
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

import forks
from command import (
    PROGRAM,
    SUPPORT,
    dna,
    fasta,
    interruptible,
    made_bundle,
    random_reads,
    results,
    run_json,
    virnucpro,
)
from virnucpro.cli.signals import SIGNALS, Stop

ENDS = [(signal.SIGINT, 130), (signal.SIGTERM, 143), (signal.SIGHUP, 143)]
STOPPED = "virnucpro: stopped before the end"


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


def forked(program: Path | str, *arguments: object, **more: str) -> forks.Fork:
    return forks.Fork(str(program), list(map(str, arguments)), **more)


BEGUN = """
import signal
signal.signal(signal.SIGINT, signal.SIG_DFL)
print("begun", flush=True)
from virnucpro.__main__ import main
main()
"""


@pytest.mark.parametrize(("how", "code"), ENDS)
def test_a_signal_at_any_moment_is_one_line_at_most(here, how, code):
    (here / "program.py").write_text(BEGUN)
    for after_s in (0.0, 0.05, 0.2, 0.5, 1.0):
        run_dir = here / f"run-{after_s}"
        program = (sys.executable, str(here / "program.py"))
        process = started("predict", "in.fa", "-o", run_dir, "-q", program=program)
        assert process.stdout.readline() == "begun\n"
        time.sleep(after_s)
        process.send_signal(how)
        _, err = process.communicate(timeout=60)
        if process.returncode == -how:  # before there was work to save
            assert err == ""
            assert not (run_dir / "run.json").exists()
        elif process.returncode == 0:  # it was done before, on a fast machine
            assert run_json(run_dir)["status"] == "complete"
        else:
            assert (process.returncode, err.strip()) == (code, STOPPED)


KILLING = "import os, sys; os.kill(os.getpid(), int(os.environ['HOW']))\n{after}"
WENT_ON = "print('went on', file=sys.stderr)\n"


@pytest.mark.parametrize("library", ["rich_click", "numpy"])
@pytest.mark.parametrize("how", SIGNALS)
def test_a_signal_in_an_import_before_a_run_kills_at_once(here, how, library):
    """rich_click is imported before the command line is read, numpy after it."""
    (here / "first").mkdir()
    (here / "first" / f"{library}.py").write_text(KILLING.format(after=WENT_ON))
    path = os.pathsep.join([str(here / "first"), os.environ.get("PYTHONPATH", "")])
    env = {**os.environ, "PYTHONPATH": path, "HOW": str(int(how))}
    process = started("predict", "in.fa", "-o", "run", env=env)
    _, err = process.communicate(timeout=60)
    assert (process.returncode, err) == (-how, "")
    assert not (here / "run").exists()


IN_A_RUN = """
import os, signal, sys, time
from virnucpro.run import finalise
from virnucpro.__main__ import main

def kill(how=int(os.environ.get("HOW", "0"))):
    os.kill(os.getpid(), how)

class Ended:
    def __del__(self):
        kill()

write_tables = finalise.write_tables

def write(*arguments, **more):
    {act}
    return write_tables(*arguments, **more)

finalise.write_tables = write
main()
"""
SWALLOWED = """
    try:
        kill()
    except BaseException:
        pass
"""
ACTS = {"raised": "kill()", "swallowed": SWALLOWED.strip(), "unraisable": "Ended()"}


IN_SMALL_BLOCKS = ("predict", "in.fa", "-o", "run", "--bundle", "km", "-q")


def stopped_within(here: Path, act: str, how: signal.Signals) -> tuple[int, str]:
    """Exit code and standard error of a run that signals itself before the tables."""
    (here / "program.py").write_text(IN_A_RUN.replace("{act}", act))
    process = forked(here / "program.py", *IN_SMALL_BLOCKS, HOW=str(int(how)))
    _, err = process.communicate()
    return process.wait(), err.decode()


@pytest.mark.parametrize("act", ACTS)
@pytest.mark.parametrize(("how", "code"), ENDS)
def test_a_signal_in_a_run_ends_it_in_order(here, how, code, act):
    """Also where a library swallows what it raises, or Python itself in a finaliser."""
    ended, err = stopped_within(here, ACTS[act], how)
    assert (ended, err.splitlines()[-1]) == (code, STOPPED)
    assert act == "unraisable" or err.strip() == STOPPED
    document = run_json(here / "run")
    assert (document["status"], document["exit_code"]) == ("interrupted", code)
    assert results(here / "run") == {}


def test_a_second_signal_ends_the_program_at_once(here):
    act = """
    try:
        kill()
    except BaseException:
        pass
    kill()  # of the same group, within a second
    time.sleep(1.1)
    kill()
    print("went on")
"""
    ended, err = stopped_within(here, act.strip(), signal.SIGTERM)
    assert (ended, err) == (143, "virnucpro: stopped at once\n")
    done = virnucpro(*IN_SMALL_BLOCKS)
    assert (done.code, done.out, done.err) == (0, "", "")
    assert run_json(here / "run")["blocks"]["reused"] > 0


@pytest.mark.parametrize("how", [signal.SIGINT, signal.SIGHUP])
def test_a_signal_that_is_ignored_stays_so(here, how):
    """As under nohup."""
    (here / "first.py").write_text(IN_A_RUN.replace("{act}", "kill()"))
    env = {**os.environ, "HOW": str(int(how))}
    program = ["sh", "-c", 'trap "" INT HUP; exec "$@"', "sh", sys.executable]
    code = f"import os; os.kill(os.getpid(), {int(how)}); exec(open('first.py').read())"
    process = started(*IN_SMALL_BLOCKS, program=[*program, "-c", code], env=env)
    assert (process.communicate(timeout=60), process.returncode) == (("", ""), 0)
    assert run_json(here / "run")["status"] == "complete"


def stop_after(blocks: int, run_dir: Path, *flags: object) -> str:
    """Standard error of a run that is stopped when so many blocks are finished."""
    run = ("predict", "big.fa", "-o", run_dir, "--bundle", "km", *flags)
    process = forked(SUPPORT / "stub_program.py", "slow=0.3", *run)
    kept = run_dir / ".virnucpro" / "blocks"
    while sum(1 for _ in kept.glob("*.block")) < blocks or not (run_dir / "log.txt").exists():
        assert process.poll() is None
        time.sleep(0.002)
    process.send_signal(signal.SIGINT)
    _, err = process.communicate()
    assert process.wait() == 130
    return err.decode()


def test_what_was_finished_is_said(here):
    (here / "big.fa").write_bytes(random_reads(10_000, 250))
    run_dir = here / "run"
    err = stop_after(2, run_dir)
    blocks = sum(1 for _ in (run_dir / ".virnucpro" / "blocks").glob("*.block"))
    goes_on = "are kept: give the same command again, and it goes on"
    assert f"\n{blocks:,} finished blocks {goes_on}\n" in err
    err = virnucpro("predict", "big.fa", "-o", run_dir, "--bundle", "km", "-v").err
    said = f"\nfinished blocks of an earlier start: {blocks}; those that fit are "
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
    process = forked(here / "program.py", "predict", "in.fa", "-o", "run", "--bundle", "km")
    while not (here / "hanging").exists():
        assert process.poll() is None
        time.sleep(0.002)
    process.send_signal(signal.SIGINT)
    _, err = process.communicate()
    assert process.wait() == 130
    err = err.decode()
    assert "no block was finished yet: the same command begins at the start\n" in err
    assert "kept" not in err


def test_signals_are_taken_from_the_first_check_and_ignored_at_the_end():
    """Python is about to end then, and would put its own handlers back."""
    before = {number: signal.getsignal(number) for number in SIGNALS}
    stop = Stop()
    try:
        signal.signal(signal.SIGINT, signal.SIG_IGN)
        assert signal.getsignal(signal.SIGHUP) == before[signal.SIGHUP]
        stop.check()
        assert signal.getsignal(signal.SIGINT) == signal.SIG_IGN
        assert signal.getsignal(signal.SIGHUP) == signal.getsignal(signal.SIGTERM) == stop._take
        stop.end()
        assert [signal.getsignal(number) for number in SIGNALS] == [signal.SIG_IGN] * 3
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
