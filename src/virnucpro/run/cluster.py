"""Workers of Dask distributed: started here, one a device, or those of a running cluster.

Needs the extra `cluster`. A scheduler that is started here listens on the loopback alone and has no
dashboard; its workers are plain processes without a nanny, started again when they die.
"""

import json
import logging
import os
import subprocess
import sys
import tempfile
from collections.abc import Sequence
from contextlib import ExitStack
from importlib.util import find_spec
from pathlib import Path
from time import monotonic, sleep
from typing import Self

from virnucpro.errors import SettingsError, VirnucproError, WorkerError, install_extra

START_S = 120.0
# A worker that dies this often, and finishes no block between, has a fault of its own.
MOST_DEATHS_IN_A_ROW = 10
THREADS_A_WORKER = 2  # one computes, one prepares the next block
LOOPBACK = "127.0.0.1"
_ANY_PORT = f"{LOOPBACK}:0"
_ENDS_WITH_INPUT = "virnucpro.run.dask_worker"
# How long a lost connection to a running scheduler may take to come back.
RECONNECT_S = 30.0
# A running cluster in which no worker appeared for this long is taken to be complete.
SETTLED_S = 0.5

# What was found to go wrong with the usual settings (docs/scale.md).
_CONFIG = {
    "distributed.scheduler.allowed-failures": 0,  # the client tries again, one block at a time
    "distributed.scheduler.http.routes": [],  # Dask serves HTTP in any case, so it serves nothing
    "distributed.worker.http.routes": [],
    "distributed.scheduler.work-stealing": False,
    "distributed.scheduler.active-memory-manager.start": False,
    "distributed.scheduler.worker-ttl": "1 hour",
    "distributed.scheduler.worker-saturation": 1.0,
    "distributed.worker.profile.enabled": False,
    "distributed.comm.timeouts.connect": "30s",
    "distributed.diagnostics.nvml": False,  # our own workers tell how busy a GPU is
    "distributed.admin.log-length": 100,
    "distributed.admin.low-level-log-length": 100,
    "distributed.admin.event-loop-monitor-interval": "1s",
    "distributed.admin.tick.limit": "1 hour",
}


def check_installed(option: str) -> None:
    """Raise SettingsError if Dask distributed cannot be loaded. option: that needs it."""
    if find_spec("distributed") is None:
        raise SettingsError(
            f"{option} needs Dask distributed, which is not installed; {install_extra('cluster')}"
        )
    try:
        import distributed  # noqa: F401
    except (ImportError, AttributeError, OSError, TypeError, ValueError) as error:
        # A part that is missing or of another version, or a file of Dask's configuration.
        raise SettingsError(
            f"{option} needs Dask distributed, which cannot be loaded ({error}); mend what that "
            f"names, or {install_extra('cluster')}"
        ) from error


class LocalWorkers:
    """A scheduler in this process and worker processes on this host, for `with`.

    devices: what each worker sees in CUDA_VISIBLE_DEVICES; empty for none.
    """

    def __init__(self, devices: Sequence[str], threads: int) -> None:
        self._devices = devices
        self._threads = threads
        self._processes: list[subprocess.Popen[bytes]] = []
        self._deaths = [0] * len(devices)
        self._ends = ExitStack()

    def __enter__(self) -> Self:
        import dask
        from distributed import Client, Scheduler, SpecCluster

        # Closing a cluster restores the level, and lines about lost connections come after it.
        logging.getLogger("distributed").setLevel(logging.CRITICAL)
        with ExitStack() as ends:
            ends.enter_context(dask.config.set(_CONFIG))
            options = {
                "host": LOOPBACK,
                "port": 0,
                "dashboard": False,
                "dashboard_address": _ANY_PORT,
            }
            cluster = SpecCluster(scheduler={"cls": Scheduler, "options": options}, silence_logs=50)
            ends.callback(cluster.close, timeout=5)
            self.client: Client = ends.enter_context(Client(cluster, set_as_default=False))
            self._address = cluster.scheduler_address
            self._folder = Path(ends.enter_context(tempfile.TemporaryDirectory()))
            ends.callback(self._stop)
            for place in range(len(self._devices)):
                self._processes.append(self._start(place))
            self._wait()
            self._ends = ends.pop_all()
        return self

    def __exit__(self, *_: object) -> None:
        self._ends.close()

    def _start(self, place: int) -> subprocess.Popen[bytes]:
        import dask

        threads = str(self._threads)
        variables = dict.fromkeys(
            ("OMP_NUM_THREADS", "MKL_NUM_THREADS", "OPENBLAS_NUM_THREADS"), threads
        )
        preload = [*dask.config.get("distributed.worker.preload"), _ENDS_WITH_INPUT]
        path = os.pathsep.join(os.fspath(entry) or str(Path.cwd()) for entry in sys.path)
        with self._log(place).open("wb") as log:
            return subprocess.Popen(
                [
                    *(sys.executable, "-m", "distributed.cli.dask_worker", self._address),
                    *("--no-nanny", "--host", LOOPBACK, "--memory-limit", "0"),
                    *("--no-dashboard", "--dashboard-address", _ANY_PORT),
                    *("--nworkers", "1", "--nthreads", str(THREADS_A_WORKER)),
                    *("--name", str(place + 1)),
                    *(word for module in preload for word in ("--preload", module)),
                    *("--local-directory", str(self._folder), "--death-timeout", "60"),
                ],
                env=os.environ
                | variables
                | {"CUDA_VISIBLE_DEVICES": self._devices[place], "PYTHONPATH": path}
                | {
                    "DASK_INTERNAL_INHERIT_CONFIG": dask.config.serialize(dask.config.global_config)
                },
                stdin=subprocess.PIPE,  # a worker ends with it, and so with this process
                stdout=log,
                stderr=log,
                start_new_session=True,  # Ctrl-C is for the client alone
            )

    def _wait(self) -> None:
        """Wait until all workers are connected."""
        end = monotonic() + START_S
        while len(self.client.scheduler_info()["workers"]) < len(self._processes):
            if dead := [p for p in self._processes if p.poll() is not None]:
                raise WorkerError(f"a worker process did not start: {self._last_words(dead[0])}")
            if monotonic() > end:
                raise WorkerError(f"worker processes did not start within {START_S:.0f} s")
            sleep(0.05)

    def _log(self, place: int) -> Path:
        return self._folder / f"worker-{place + 1}.log"

    def _last_words(self, process: subprocess.Popen[bytes]) -> str:
        log = self._log(self._processes.index(process))
        lines = log.read_text("utf-8", "replace").splitlines()
        return f"exit code {process.returncode}" + (f", {lines[-1]}" if lines else "")

    def replace_dead(self) -> None:
        """Start a process in the place of each that has died. Raises WorkerError for too many."""
        for place, process in enumerate(self._processes):
            if process.poll() is not None:
                self._deaths[place] += 1
                if self._deaths[place] >= MOST_DEATHS_IN_A_ROW:
                    raise WorkerError(
                        f"worker {place + 1} died {self._deaths[place]} times and finished no "
                        f"block between, the last time with: {self._last_words(process)}"
                    )
                _close_pipe(process)
                self._processes[place] = self._start(place)

    def has_worked(self, name: str) -> None:
        """Take that a worker has finished a block."""
        self._deaths[int(name) - 1] = 0

    def kill(self, name: str) -> bool:
        """Kill a worker that does not answer; return whether it was one of these."""
        process = self._processes[int(name) - 1]
        process.kill()
        process.wait()
        return True

    def _stop(self) -> None:
        for process in self._processes:  # they hold nothing that is worth a wait
            process.kill()
        for process in self._processes:
            process.wait()
            _close_pipe(process)


def _close_pipe(process: subprocess.Popen[bytes]) -> None:
    assert process.stdin is not None
    process.stdin.close()


class RunningCluster:
    """A running scheduler, for `with`. address: of it, or its scheduler file."""

    def __init__(self, address: str) -> None:
        self._address = address

    def __enter__(self) -> Self:
        from distributed import Client

        by_file = self._address.endswith(".json")
        end = monotonic() + RECONNECT_S
        # A connection to what is no address would be tried again for a minute.
        while (fault := self._fault(by_file)) is not None:
            if not by_file or monotonic() > end:
                raise fault
            sleep(0.1)  # the scheduler may be starting
        try:
            where = {"scheduler_file" if by_file else "address": self._address}
            self.client = Client(**where, timeout=RECONNECT_S, set_as_default=False)
        except (OSError, ValueError, TimeoutError) as error:
            raise WorkerError(
                f"{self._address}: no Dask scheduler answers here ({error}); check --scheduler"
            ) from error
        try:
            self._wait_for_workers()
        except WorkerError:
            self.client.close()
            raise
        return self

    def _fault(self, by_file: bool) -> VirnucproError | None:
        """Return the error where this is neither the address nor the file of a scheduler."""
        from distributed.comm.addressing import get_address_host

        if not by_file:
            try:
                get_address_host(self._address)
            except (ValueError, TypeError, Warning) as error:  # of a kind that is not installed
                return SettingsError(
                    "--scheduler must be an address, as tcp://host:8786, or the .json file of a "
                    f"scheduler, got {self._address!r} ({error})"
                )
            return None
        do = "start one with `dask scheduler --scheduler-file`, or check --scheduler"
        try:
            get_address_host(json.loads(Path(self._address).read_bytes())["address"])
        except FileNotFoundError:
            return WorkerError(f"{self._address}: this file of a Dask scheduler is missing; {do}")
        except (OSError, KeyError, TypeError, ValueError) as error:
            return WorkerError(f"{self._address}: not the file of a Dask scheduler ({error}); {do}")
        return None

    def _wait_for_workers(self) -> None:
        """Wait for the first worker, and until no more come; later ones are taken, too."""
        end, before = monotonic() + RECONNECT_S, 0
        while (
            now := len(self.client.scheduler_info(n_workers=-1)["workers"])
        ) != before or not now:
            if not now and monotonic() > end:
                raise WorkerError(
                    f"{self._address}: the scheduler has no workers; start some with `dask worker`"
                )
            before = now
            sleep(SETTLED_S)

    def __exit__(self, *_: object) -> None:
        self.client.close(timeout=5)

    def replace_dead(self) -> None:
        """Do nothing: workers of a running cluster are its own."""

    def has_worked(self, name: str) -> None:
        """Do nothing, likewise."""

    def kill(self, name: str) -> bool:
        """Return False: a worker of a running cluster is not ours to kill."""
        return False
