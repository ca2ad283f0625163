"""A file gets to its place whole or not at all, and what the disk refuses is one sentence."""

import errno
import os
import signal
import stat
import subprocess
import sys
from pathlib import Path

import pytest

from virnucpro.errors import VirnucproError
from virnucpro.storage.atomic import OutputFile, disk_errors, is_special, write_atomic


@pytest.mark.parametrize(
    ("number", "words", "code"),
    [
        (errno.ENOSPC, "disk is full", 1),
        (errno.EDQUOT, "disk is full", 1),
        (errno.EACCES, "no permission", 3),
        (errno.EROFS, "no permission", 3),
        (errno.EIO, "cannot be written", 3),
    ],
)
def test_what_the_disk_refuses_is_one_sentence(number, words, code):
    with pytest.raises(VirnucproError, match=words) as caught, disk_errors(Path("some/run")):
        raise OSError(number, os.strerror(number))
    assert str(caught.value).startswith("some/run: ")
    assert "folder with -o" in str(caught.value) or "another with -o" in str(caught.value)
    assert caught.value.exit_code == code
    named = pytest.raises(VirnucproError, match="with --workdir")
    with named as other, disk_errors(Path("some/run"), "--workdir"):
        raise OSError(number, os.strerror(number))
    assert "-o" not in str(other.value)


def test_the_name_of_an_open_file_is_special(tmp_path):
    """A rename to /dev/stdout would replace the device, where root may."""
    code = (
        "import sys; from pathlib import Path; from virnucpro.storage.atomic import is_special\n"
        "names = ('/dev/stdout', '/dev/fd/1', '/proc/self/fd/1')\n"
        "print([is_special(Path(name)) for name in names])"
    )
    with (tmp_path / "out").open("w") as out:
        subprocess.run([sys.executable, "-c", code], stdout=out, check=True)
    assert (tmp_path / "out").read_text() == "[True, True, True]\n"
    assert not is_special(tmp_path / "out")


def test_a_failed_rename_leaves_the_old_file(tmp_path, monkeypatch):
    path = tmp_path / "run.json"
    write_atomic(path, b"old")

    def refuse(*_):
        raise OSError(errno.ENOSPC, "no space")

    monkeypatch.setattr(os, "replace", refuse)
    monkeypatch.setattr(Path, "replace", refuse)
    with pytest.raises(VirnucproError, match="disk is full"):
        write_atomic(path, b"new")
    assert path.read_bytes() == b"old"
    assert list(tmp_path.iterdir()) == [path]


@pytest.mark.parametrize("number", [errno.EINVAL, errno.EIO])
def test_a_file_system_that_flushes_no_folders(tmp_path, monkeypatch, number):
    """That it knows no such call is no matter; that it fails is."""
    flush = os.fsync

    def files_alone(descriptor):
        if stat.S_ISDIR(os.fstat(descriptor).st_mode):
            raise OSError(number, os.strerror(number))
        flush(descriptor)

    monkeypatch.setattr(os, "fsync", files_alone)
    if number == errno.EIO:
        with pytest.raises(VirnucproError, match="Input/output error"):
            write_atomic(tmp_path / "a", b"new")
    else:
        write_atomic(tmp_path / "a", b"new")
        assert (tmp_path / "a").read_bytes() == b"new"


def test_contents_are_on_the_disk_before_a_name_stands_for_them(tmp_path, monkeypatch):
    """Else a loss of power may leave a file that is whole by its name, and empty."""
    path, flushed = tmp_path / "run.json", []

    def note(descriptor):
        found = os.fstat(descriptor)
        what = "folder" if stat.S_ISDIR(found.st_mode) else found.st_size
        flushed.append((what, path.exists()))

    monkeypatch.setattr(os, "fsync", note)
    write_atomic(path, b"new")
    assert flushed == [(3, False), ("folder", True)]
    flushed.clear()
    for durable in (True, False):
        with OutputFile(tmp_path / f"table {durable}", durable) as file:
            file.write(b"row\n")
    assert flushed == [(4, True)]


KILLED = """
import sys
from pathlib import Path
from virnucpro.storage.atomic import write_atomic
print("ready", flush=True)
number = 0
while True:
    write_atomic(Path(sys.argv[1]) / str(number % 7), bytes([number % 256]) * 100_000)
    number += 1
"""


def test_a_kill_leaves_no_file_that_is_half_written(tmp_path):
    """TRAP R8."""
    command = [sys.executable, "-c", KILLED, str(tmp_path)]
    seen = 0
    for trial in range(3):
        with subprocess.Popen(command, stdout=subprocess.PIPE) as process:
            assert process.stdout is not None
            process.stdout.readline()
            with pytest.raises(subprocess.TimeoutExpired):
                process.wait(0.05 + 0.03 * trial)
            process.send_signal(signal.SIGKILL)
        for path in tmp_path.glob("[0-9]*"):
            data = path.read_bytes()
            assert len(data) == 100_000
            assert len(set(data)) == 1
            seen += 1
    assert seen
