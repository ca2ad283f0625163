"""Runs predict again and again, ends it at every step on the disk, and starts it again.

A process of its own that loads the program once and forks: each run is a real process that a real
signal ends. A step is a call that changes a file or a folder of the run, or a flush to the disk,
which is left out, since no signal loses what was written. What a run loads late is loaded here, and
the page has no scripts: in each fork these would take half of the time.

    python crash_points.py FOLDER SIGNAL EVERY [option of predict ...]

FOLDER holds in.fa and the bundle km; every so many steps are tried. Prints how many steps there
are; a run that was ended at a step, started again, ended, and started again must be as one that
was never disturbed.
"""

import gc
import importlib.resources.readers  # noqa: F401
import os
import shutil
import signal
import sys
from collections.abc import Callable
from pathlib import Path

import numpy.ma  # noqa: F401

import virnucpro.classifiers.kmer
import virnucpro.run.predict  # noqa: F401
from command import WHOLE, interruptible, results, run_json
from forks import load_templates
from virnucpro import cli
from virnucpro.report import page

EVENTS = {"open", "os.rename", "os.remove", "os.mkdir", "os.rmdir", "os.truncate", "shutil.rmtree"}


def at_step(number: int, folders: tuple[str, ...], act: Callable[[], None]) -> list[int]:
    """Lets act happen at a step of this process; returns the steps so far, as the one item."""
    steps = [0]

    def step() -> None:
        if steps[0] == number:
            steps[0] += 1
            act()
        steps[0] += 1

    def watch(event: str, arguments: tuple) -> None:
        changes = event != "open" or (arguments[2] or 0) & (os.O_WRONLY | os.O_RDWR)
        if event in EVENTS and changes and str(arguments[0]).startswith(folders):
            step()

    os.fsync = lambda _: step()
    sys.addaudithook(watch)
    return steps


def run(folder: Path, out: Path, options: list[str], how: signal.Signals, step: int) -> int:
    """The exit code of a run in a process of its own; step < 0: undisturbed.

    Negative codes are signals; an undisturbed run leaves the number of its steps in steps.txt.
    """
    if child := os.fork():
        return os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])
    code = 99
    try:
        sys.argv = ["virnucpro", "predict", str(folder / "in.fa"), "-o", str(out), "-q"]
        sys.argv += ["--bundle", str(folder / "km"), *options]
        folders = (str(out), str(folder / "journal"))
        steps = at_step(step, folders, lambda: os.kill(os.getpid(), how))
        cli.main()
    except SystemExit as end:
        code = int(end.code or 0)
        (folder / "steps.txt").write_text(str(steps[0]))
    finally:
        os._exit(code)


def log(out: Path) -> bytes:
    path = out / "log.txt"
    return path.read_bytes() if path.exists() else b""


def check(folder: Path, out: Path, expected: dict[str, bytes], steps: str) -> None:
    assert results(out) == expected, steps
    assert run_json(out)["status"] == "complete", steps
    names = {*expected, *WHOLE}
    assert {path.name for path in out.iterdir()} == names, (steps, list(out.iterdir()))
    assert not list((folder / "journal").glob(".*")), steps


def main(folder: Path, how: signal.Signals, every: int, options: list[str]) -> None:
    interruptible()
    page.SCRIPTS = ()
    load_templates()
    if "--parquet" in options:
        import pandas  # noqa: F401 - pyarrow loads it, where there is one
        import pyarrow.parquet  # noqa: F401
    gc.freeze()
    ended = {signal.SIGKILL: -9, signal.SIGTERM: 143, signal.SIGINT: 130}[how]
    # With --force the folder holds another run before.
    before = folder / "before"
    if "--force" in options:
        assert run(folder, before, ["--max-length", "400"], how, -1) in (0, 2)
    assert run(folder, folder / "clean", options, how, -1) == 0
    expected = results(folder / "clean")
    count = int((folder / "steps.txt").read_text())
    again = [option for option in options if option != "--force"]
    for step in range(0, count, every):
        out = folder / "run"
        shutil.rmtree(out, ignore_errors=True)
        if before.exists():
            shutil.copytree(before, out)
        logged = log(out)
        code = run(folder, out, options, how, step)
        # Before its first line of log the program ends at once. A signal in the last steps, behind
        # run.json, may come too late to matter.
        early = code == -how and log(out) in (logged, b"")
        assert code == ended or early or (code == 0 and step > count - 9), (step, code)
        second = (7 * step) % count
        if step % 2 == 0:  # killed twice, at another step
            assert run(folder, out, options, signal.SIGKILL, second) in (0, -9), (step, second)
        code = run(folder, out, again, how, -1)
        if code == 3 and run_json(out)["settings"]["max_length"] == 400:  # the one before stays
            assert before.exists()
            continue
        assert code == 0, (step, second, code)
        check(folder, out, expected, f"steps {step}, {second}")
    print(count)


if __name__ == "__main__":
    main(Path(sys.argv[1]), signal.Signals[sys.argv[2]], int(sys.argv[3]), sys.argv[4:])
