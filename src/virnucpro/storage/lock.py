"""One process at a time in a folder. Knows nothing of what lies there.

A lock that the system keeps goes with its process, however that ends. Where the file system has
none, the holder touches the lock file every few seconds, and one that lies still is stale.
"""

import errno
import fcntl
import json
import os
import secrets
import threading
import time
from contextlib import suppress
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from virnucpro.errors import ResumeError

NAME = "lock"
STALE_S = 60.0
BEAT_S = 10.0
# Of two that find the same stale lock at the same moment, the later one has written by then.
SETTLE_S = 1.0

_NO_FLOCK = {errno.ENOLCK, errno.ENOTSUP, errno.EOPNOTSUPP, errno.ENOSYS, errno.EINVAL}


class Lock:
    """Held from its making to release, or to the end of the process; makes the folder.

    notes: what a user should know of how it is held. Raises ResumeError where another holds it,
    OSError where the folder cannot be written to.
    """

    def __init__(self, folder: Path) -> None:
        self.notes: list[str] = []
        self._path = folder / NAME
        self._mine = _self_description()
        self._ended = threading.Event()
        self._descriptor: int | None = None
        while self._descriptor is None:
            folder.mkdir(parents=True, exist_ok=True)
            try:
                descriptor = os.open(self._path, os.O_RDWR | os.O_CREAT, 0o666)
            except FileNotFoundError:  # its last holder has just removed the folder
                continue
            try:
                if self._taken(descriptor):
                    self._descriptor = descriptor
            finally:
                if self._descriptor is None:
                    os.close(descriptor)
        # A child that outlives this process must not hold the lock.
        os.register_at_fork(after_in_child=self._forget)

    def check(self) -> None:
        """Raises ResumeError if another process has taken the lock over, or removed it."""
        if not self._is_ours():
            holder = {} if self._descriptor is None else _holder(self._descriptor)
            raise ResumeError(
                f"{self._path}: was taken over by {_named(holder)} or removed, so this run has "
                "ended; give the command again once no other run is at work there"
            )

    def release(self) -> None:
        """Lets others in; the file stays, empty."""
        self._ended.set()
        if self._descriptor is not None:
            if self._is_ours():
                os.ftruncate(self._descriptor, 0)
            self._forget()

    def remove(self) -> None:
        """Release the lock, and remove the file, and the folder if nothing else lies there."""
        if not self._is_ours():
            self.release()
            return
        self._path.unlink()
        self._ended.set()
        self._forget()
        with suppress(OSError):  # something else lies there
            self._path.parent.rmdir()

    def _forget(self) -> None:
        descriptor, self._descriptor = self._descriptor, None
        if descriptor is not None:
            os.close(descriptor)

    def _taken(self, descriptor: int) -> bool:
        """Return True if the lock is ours now; False if its file was removed meanwhile."""
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            raise self._in_use(_holder(descriptor)) from None
        except OSError as error:
            if error.errno not in _NO_FLOCK:
                raise
            self._take_by_heartbeat(descriptor)
            return True
        if not self._is_still(descriptor):
            return False
        self._describe(descriptor)
        return True

    def _is_ours(self) -> bool:
        """True while we hold it; another process may take a lock whose heartbeat has stopped."""
        descriptor = self._descriptor
        return (
            descriptor is not None
            and self._is_still(descriptor)
            and _holder(descriptor) == self._mine
        )

    def _is_still(self, descriptor: int) -> bool:
        try:
            return os.path.samestat(os.fstat(descriptor), self._path.stat())
        except FileNotFoundError:
            return False

    def _describe(self, descriptor: int) -> None:
        os.ftruncate(descriptor, 0)
        os.pwrite(descriptor, json.dumps(self._mine).encode(), 0)

    def _take_by_heartbeat(self, descriptor: int) -> None:
        holder = _holder(descriptor)
        if holder:
            age_s = self._now_there() - os.fstat(descriptor).st_mtime
            if age_s < STALE_S:
                raise self._in_use(
                    holder, f", or if it was killed, until {STALE_S:.0f} s have passed"
                )
            self.notes.append(
                f"{self._path}: left by {_named(holder)}, untouched for {age_s:.0f} s, so stale; "
                "taken over"
            )
        self._describe(descriptor)
        time.sleep(SETTLE_S)
        if not self._is_still(descriptor) or _holder(descriptor) != self._mine:
            raise self._in_use(_holder(descriptor))
        self.notes.append(
            f"{self._path}: this file system has no locks, so the file is touched every "
            f"{BEAT_S:.0f} s instead, and is stale after {STALE_S:.0f} s"
        )
        threading.Thread(target=self._beat, args=(descriptor,), daemon=True).start()

    def _now_there(self) -> float:
        """The time on the file system's own clock."""
        probe = self._path.with_name(f"{NAME}.{secrets.token_hex(4)}")
        try:
            probe.touch()
            return probe.stat().st_mtime
        finally:
            probe.unlink(missing_ok=True)

    def _beat(self, descriptor: int) -> None:
        while not self._ended.wait(BEAT_S):
            with suppress(OSError):  # tried again; where that takes too long, another takes over
                if self._descriptor == descriptor and self._is_ours():
                    os.utime(descriptor)

    def _in_use(self, holder: dict[str, Any], how_long: str = "") -> ResumeError:
        return ResumeError(
            f"{self._path.parent}: in use by {_named(holder)}; wait until that run has ended"
            f"{how_long}, or choose another folder"
        )


def holder_of(folder: Path) -> tuple[str, bool] | None:
    """Return who holds a lock, in words, and whether it surely lives; None if nobody holds it.

    Looks at the lock of the folder without taking it, so that whoever begins at this moment does
    not find it taken. Whether a process of another host lives is not known.
    """
    try:
        holder = _described((folder / NAME).read_bytes())
    except OSError:
        return None
    here = holder.get("host") == os.uname().nodename
    if not holder or (here and not _lives(holder.get("pid"))):
        return None
    return _named(holder), here


def _lives(pid: Any) -> bool:  # noqa: ANN401
    try:
        os.kill(pid, 0)
    except PermissionError:  # of another user
        return True
    except (OSError, TypeError, OverflowError):
        return False
    return not _has_ended(pid)


def _has_ended(pid: int) -> bool:
    """Return whether a process has ended and its parent does not ask for its exit code (Linux)."""
    try:
        stat = Path(f"/proc/{pid}/stat").read_bytes()
    except OSError:
        return False
    return stat.rpartition(b")")[2].split()[:1] == [b"Z"]


def _self_description() -> dict[str, Any]:
    return {
        "host": os.uname().nodename,
        "pid": os.getpid(),
        "started": datetime.now(UTC).isoformat(timespec="seconds"),
        "token": secrets.token_hex(4),
    }


def _holder(descriptor: int) -> dict[str, Any]:
    """Return what the lock file says; nothing where its holder has not written it yet."""
    return _described(os.pread(descriptor, 4096, 0))


def _described(text: bytes) -> dict[str, Any]:
    try:
        return {**json.loads(text)}
    except (TypeError, ValueError):
        return {}


def _named(holder: dict[str, Any]) -> str:
    pid, host, started = (holder.get(key, "unknown") for key in ("pid", "host", "started"))
    return f"process {pid} on {host} since {started}"
