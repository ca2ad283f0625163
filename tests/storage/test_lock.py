"""One process at a time in a folder, and for no longer than it lives."""

import errno
import os
import signal
import subprocess
import sys
import time
from functools import partial
from pathlib import Path

import pytest

from virnucpro.errors import ResumeError
from virnucpro.storage import lock
from virnucpro.storage.lock import Lock, holder_of


@pytest.fixture
def without_flock(monkeypatch):
    """A file system that has no locks, and a quick heart."""

    def refuse(*_):
        raise OSError(errno.ENOLCK, "no locks available")

    monkeypatch.setattr(lock.fcntl, "flock", refuse)
    monkeypatch.setattr(lock, "SETTLE_S", 0.0)
    monkeypatch.setattr(lock, "BEAT_S", 0.05)


def test_a_folder_is_for_one_and_free_when_that_has_ended(tmp_path):
    held = Lock(tmp_path / "new" / "folder")
    with pytest.raises(ResumeError, match=f"in use by process {os.getpid()} on "):
        Lock(tmp_path / "new" / "folder")
    held.release()
    again = Lock(tmp_path / "new" / "folder")
    again.remove()
    assert list((tmp_path / "new").iterdir()) == []


def test_a_lock_that_was_taken_over_is_not_touched_again(tmp_path, without_flock):
    held = Lock(tmp_path)
    path = tmp_path / lock.NAME
    path.write_text('{"token": "another"}')
    os.utime(path, (0, 0))
    time.sleep(0.3)
    assert path.stat().st_mtime == 0
    with pytest.raises(ResumeError, match="was taken over by"):
        held.check()
    held.release()
    assert path.read_text() == '{"token": "another"}'


def test_a_beat_that_fails_once_is_tried_again(tmp_path, monkeypatch, without_flock):
    touch, failed = os.utime, []

    def once(*arguments):
        if not failed:
            failed.append(True)
            raise OSError(errno.EIO, "Input/output error")
        touch(*arguments)

    held = Lock(tmp_path)
    path = tmp_path / lock.NAME
    touch(path, (0, 0))
    monkeypatch.setattr(os, "utime", once)
    deadline = time.monotonic() + 10
    while not path.stat().st_mtime and time.monotonic() < deadline:
        time.sleep(0.01)
    assert failed
    assert path.stat().st_mtime > 0
    held.release()


CHILD = """
import os, sys, time
from pathlib import Path
from virnucpro.storage.lock import Lock
held = Lock(Path(sys.argv[1]))
if os.fork():
    os.kill(os.getpid(), 9)
time.sleep(20)
"""


def test_a_child_that_outlives_its_parent_holds_no_lock(tmp_path):
    with subprocess.Popen([sys.executable, "-c", CHILD, tmp_path], start_new_session=True) as run:
        assert run.wait(20) == -signal.SIGKILL
        deadline = time.monotonic() + 10  # it may not have run yet
        while (held := is_held(tmp_path)) and time.monotonic() < deadline:
            time.sleep(0.01)
        os.killpg(run.pid, signal.SIGKILL)  # the child is there
    assert not held


def is_held(folder: Path) -> bool:
    try:
        Lock(folder).release()
    except ResumeError:
        return True
    return False


def test_a_command_that_is_started_holds_no_lock(tmp_path):
    sleep = partial(subprocess.Popen, ["sleep", "20"], close_fds=False)
    held = Lock(tmp_path)
    with sleep() as child:
        pass_on = [path.resolve() for path in Path(f"/proc/{child.pid}/fd").iterdir()]
        child.kill()
    held.release()
    assert not [path for path in pass_on if path.name == lock.NAME]


@pytest.mark.skipif(not Path("/proc/self/stat").exists(), reason="no /proc here")
def test_a_process_that_has_ended_unasked_holds_nothing(tmp_path):
    """A zombie: killed while its parent, as a container's first process may, does not wait."""
    script = "from pathlib import Path; from virnucpro.storage.lock import Lock; import time\n"
    script += f"lock = Lock(Path({str(tmp_path)!r})); print(flush=True); time.sleep(60)"
    with subprocess.Popen([sys.executable, "-c", script], stdout=subprocess.PIPE) as child:
        child.stdout.readline()
        (named, lives) = holder_of(tmp_path)
        assert (str(child.pid) in named, lives) == (True, True)
        child.kill()
        stat = Path(f"/proc/{child.pid}/stat")
        while b") Z" not in stat.read_bytes():
            time.sleep(0.01)
        assert holder_of(tmp_path) is None
