"""Python programs in processes that begin at once: one process has loaded virnucpro, and forks.

To load what a run needs takes longer than most runs of tests. A fork is a process like any other,
with an interpreter that ends like any other; only its modules were there before.

    python forks.py SOCKET
"""

import atexit
import gc
import json
import os
import runpy
import signal
import socket
import subprocess
import sys
import tempfile
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from functools import cache
from pathlib import Path

SECONDS = 120
# Of no meaning to what is loaded before a fork: torch and the hub's client are loaded in it.
HARMLESS = ("PYTEST_", "VIRNUCPRO_CACHE", "HF_", "KMP_")

_ENVIRONMENT = dict(os.environ)  # before any test


def run(
    program: str, arguments: Sequence[str], cwd: Path | None = None
) -> subprocess.CompletedProcess[bytes]:
    """What subprocess.run gives for `python -m program`, or `python program` where it is a path."""
    changed = {name for name, _ in _ENVIRONMENT.items() ^ os.environ.items()}
    if not all(name.startswith(HARMLESS) for name in changed):
        command = [sys.executable, *([] if program.endswith(".py") else ["-m"]), program]
        how = {"capture_output": True, "check": False, "timeout": SECONDS, "cwd": cwd}
        return subprocess.run([*command, *arguments], **how)
    pipes = [os.pipe() for _ in range(3)]
    given = [write for _, write in pipes]
    with tempfile.TemporaryFile() as asked:
        request = {"program": program, "arguments": list(arguments)}
        request |= {"cwd": os.fspath(cwd or Path.cwd()), "environment": dict(os.environ)}
        asked.write(json.dumps(request).encode())
        asked.flush()
        socket.send_fds(_server(), [b"."], [asked.fileno(), 0, *given])
    for write in given:
        os.close(write)
    with ThreadPoolExecutor(2) as pool:
        out, err, end = pool.map(_read, [read for read, _ in pipes])
    assert end, "the process that forks has ended"
    return subprocess.CompletedProcess([program, *arguments], int(end), out, err)


def _read(descriptor: int) -> bytes:
    with open(descriptor, "rb") as file:
        return file.read()


@cache
def _server() -> socket.socket:
    """Where the process that forks can be asked; it ends with this one."""
    ours, theirs = socket.socketpair()
    process = subprocess.Popen(
        [sys.executable, __file__, str(theirs.fileno())],
        pass_fds=[theirs.fileno()],
        stdout=subprocess.PIPE,  # as those of the forks: Python makes others for a file
        stderr=subprocess.PIPE,
        env=_ENVIRONMENT,
    )
    theirs.close()

    def end() -> None:
        ours.close()
        process.wait()

    atexit.register(end)
    return ours


def serve(connection: socket.socket) -> None:
    """Forks for what is asked for, until nobody can ask any more. Returns in every fork."""
    at_interrupt = signal.signal(signal.SIGINT, signal.SIG_IGN)
    while True:
        message, descriptors, _, _ = socket.recv_fds(connection, 1, 5)
        if not message:
            os._exit(0)
        if os.fork():
            for descriptor in descriptors:
                os.close(descriptor)
            with suppress(ChildProcessError):
                while os.waitpid(-1, os.WNOHANG)[0]:
                    pass
            continue
        connection.close()
        asked, *streams, end = descriptors
        if child := os.fork():
            # Not in the program, which has a use of its own for this signal.
            signal.signal(signal.SIGALRM, lambda *_, child=child: os.kill(child, signal.SIGKILL))
            signal.alarm(SECONDS)
            for stream in streams:
                os.close(stream)
            code = os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])
            os.write(end, str(code).encode())
            os._exit(0)
        os.close(end)
        for number, stream in enumerate(streams):
            os.dup2(stream, number)
            os.close(stream)
        signal.signal(signal.SIGINT, at_interrupt)
        begin(asked)
        return


def begin(asked: int) -> None:
    """Becomes the program that is asked for."""
    with open(asked, "rb") as file:
        file.seek(0)
        request = json.load(file)
    os.environ.clear()
    os.environ.update(request["environment"])
    os.chdir(request["cwd"])
    program = request["program"]
    sys.argv = [program, *request["arguments"]]
    if program.endswith(".py"):
        runpy.run_path(program, run_name="__main__")
    else:
        sys.path[0] = request["cwd"]
        runpy.run_module(program, run_name="__main__", alter_sys=True)


def load_templates() -> None:
    """Compiles the templates of the page, which takes longer than a small run."""
    from virnucpro.report.page import environment

    for name in environment().list_templates(["html"]):
        environment().get_template(name)


if __name__ == "__main__":
    import numpy.ma  # noqa: F401

    import virnucpro.classifiers.kmer
    import virnucpro.run.predict  # noqa: F401

    load_templates()
    gc.freeze()
    serve(socket.socket(fileno=int(sys.argv[1])))
