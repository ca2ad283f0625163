"""Python programs in processes that begin at once: one process has loaded virnucpro, and forks.

To load what a run needs takes longer than most runs of tests. A fork is a process like any other;
only its modules were there before, and at its end, when threads have ended, exit functions have run
and streams are flushed, memory is not taken apart, which takes as long as a run.

    python forks.py SOCKET
"""

import atexit
import gc
import json
import os
import runpy
import select
import signal
import socket
import subprocess
import sys
import tempfile
import threading
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from functools import cache
from pathlib import Path
from typing import BinaryIO, Self

SECONDS = 120
# Of no meaning to what is loaded before a fork: torch and the hub's client are loaded in it. torch
# itself sets the last one, and a module fixture that loaded it would leave it set.
HARMLESS = ("PYTEST_", "VIRNUCPRO_CACHE", "HF_", "KMP_", "TORCHINDUCTOR_")

_ENVIRONMENT = dict(os.environ)  # before any test


def run(
    program: str, arguments: Sequence[str], cwd: Path | None = None, data: bytes | None = None
) -> subprocess.CompletedProcess[bytes]:
    """What subprocess.run gives for `python -m program`, or `python program` where it is a path.

    data: for its standard input, through a pipe; without it that of this process.
    """
    changed = {name for name, _ in _ENVIRONMENT.items() ^ os.environ.items()}
    if not all(name.startswith(HARMLESS) for name in changed):
        command = [sys.executable, *([] if program.endswith(".py") else ["-m"]), program]
        how = {"capture_output": True, "check": False, "timeout": SECONDS, "cwd": cwd}
        how |= {} if data is None else {"input": data}
        return subprocess.run([*command, *arguments], **how)
    process = Fork(program, arguments, cwd, data)
    out, err = process.communicate()
    return subprocess.CompletedProcess([program, *arguments], process.wait(), out, err)


class Fork:
    """A program that runs in a fork, with as much of subprocess.Popen as tests need.

    more: put into its environment. It leads a session of its own, and Ctrl-C interrupts it.
    """

    def __init__(
        self,
        program: str,
        arguments: Sequence[str],
        cwd: Path | None = None,
        data: bytes | None = None,
        **more: str,
    ) -> None:
        self.returncode: int | None = None
        self._data = data
        (out, out_end), (err, err_end), (end, end_end) = (os.pipe() for _ in range(3))
        stdin, feed = (0, None) if data is None else os.pipe()
        with tempfile.TemporaryFile() as asked:
            request = {"program": program, "arguments": list(arguments)}
            request |= {"cwd": os.fspath(cwd or Path.cwd()), "environment": os.environ | more}
            asked.write(json.dumps(request).encode())
            asked.flush()
            given = [asked.fileno(), stdin, out_end, err_end, end_end]
            socket.send_fds(_server(), [b"."], given)
        for descriptor in (out_end, err_end, end_end, *(() if data is None else (stdin,))):
            os.close(descriptor)
        self.stdin = None if feed is None else os.fdopen(feed, "wb")
        self.stdout, self.stderr, self._end = (os.fdopen(each, "rb") for each in (out, err, end))
        line = self._end.readline()
        assert line, "the process that forks has ended"
        self.pid = int(line)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, failed: type[BaseException] | None, *_: object) -> None:
        if failed:
            self.kill()
        for stream in (self.stdin, self.stdout, self.stderr):
            if stream is not None:
                with suppress(BrokenPipeError):
                    stream.close()
        self.wait()

    def poll(self) -> int | None:
        """The exit code, or that of subprocess for a signal; None while the program runs."""
        if self.returncode is None and select.select([self._end], [], [], 0)[0]:
            return self.wait()
        return self.returncode

    def wait(self, timeout: float = SECONDS) -> int:
        if self.returncode is None:
            if not select.select([self._end], [], [], timeout)[0]:
                raise subprocess.TimeoutExpired("fork", timeout)
            with self._end:
                self.returncode = int(self._end.read())
        return self.returncode

    def send_signal(self, number: int) -> None:
        if self.poll() is None:
            os.kill(self.pid, number)

    def kill(self) -> None:
        self.send_signal(signal.SIGKILL)

    def communicate(self) -> tuple[bytes, bytes]:
        with self, ThreadPoolExecutor(3) as pool:
            if self.stdin is not None:
                pool.submit(_write, self.stdin, self._data)
            out, err = pool.map(_read, (self.stdout, self.stderr))
        return out, err


def _read(file: BinaryIO) -> bytes:
    return file.read()


def _write(file: BinaryIO, data: bytes) -> None:
    with suppress(BrokenPipeError), file:
        file.write(data)


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
    signal.signal(signal.SIGINT, signal.SIG_IGN)
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
            os.write(end, b"%d\n" % child)
            code = os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])
            os.write(end, str(code).encode())
            os._exit(0)
        os.close(end)
        for number, stream in enumerate(streams):
            os.dup2(stream, number)
            os.close(stream)
        os.setsid()
        signal.signal(signal.SIGINT, signal.default_int_handler)
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
    try:
        if program.endswith(".py"):
            runpy.run_path(program, run_name="__main__")
        else:
            sys.path[0] = request["cwd"]
            runpy.run_module(program, run_name="__main__", alter_sys=True)
    except SystemExit as end:
        if isinstance(end.code, str):
            raise
        leave(end.code or 0)


def leave(code: int) -> None:
    """Ends this process as an interpreter does, whose memory the system takes back."""
    threading._shutdown()
    atexit._run_exitfuncs()
    for stream in (sys.stdout, sys.stderr):
        if stream is not None and not stream.closed:
            try:
                stream.flush()
            except OSError:
                code = 120  # Python's own
    os._exit(code)


def flush_nothing(descriptor: int) -> None:
    """Stands for os.fsync, half of a run, which only a loss of power tells from it."""
    os.fstat(descriptor)  # one that is closed is an error, as there


def load_templates() -> None:
    """Compiles the templates of the page, which takes longer than a small run."""
    from virnucpro.report.page import environment

    for name in environment().list_templates(["html"]):
        environment().get_template(name)


if __name__ == "__main__":
    import difflib  # noqa: F401
    import importlib.resources.readers  # noqa: F401

    import numpy.ma  # noqa: F401

    import virnucpro.classifiers.kmer
    import virnucpro.cli
    import virnucpro.cli.compat
    import virnucpro.run.merge
    import virnucpro.run.predict
    import virnucpro.run.samples
    import virnucpro.run.validate  # noqa: F401

    os.fsync = flush_nothing
    load_templates()
    gc.freeze()
    serve(socket.socket(fileno=int(sys.argv[1])))
