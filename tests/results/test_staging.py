"""Results appear together, when all are finished; tests/storage has what a single file does."""

import hashlib
import signal
import subprocess
import sys

import pytest

from virnucpro.errors import VirnucproError
from virnucpro.results.files import RunFiles
from virnucpro.results.staging import Staging


def test_staged_files_appear_together_or_not_at_all(tmp_path):
    files = RunFiles(tmp_path)

    def interrupted():
        with Staging(files) as staging:
            staging.open(files.calls, b"head\n").write(b"row\n")
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        interrupted()
    assert not files.calls.exists()
    assert not files.scratch.exists()
    with Staging(files) as staging:
        staging.open(files.calls, b"head\n").write(b"row\n")
        staging.open(files.calls, b"head\n").write(b"row\n")
        staging.open(files.contigs)
        assert not files.calls.exists()
        staging.publish()
    text = b"head\nrow\nrow\n"
    assert files.calls.read_bytes() == text
    assert files.contigs.read_bytes() == b""
    assert not files.scratch.exists()
    assert staging.sizes == {"calls.tsv": len(text), "contigs.tsv": 0}
    assert staging.digests["calls.tsv"] == hashlib.sha256(text).hexdigest()


FULL_DISK = """
import resource, sys
from pathlib import Path
from virnucpro.errors import VirnucproError
from virnucpro.results.files import RunFiles
from virnucpro.results.staging import Staging
files = RunFiles(Path(sys.argv[1]))
resource.setrlimit(resource.RLIMIT_FSIZE, (512, 512))
try:
    with Staging(files) as staging:
        file = staging.open(files.calls)
        for _ in range(1000):
            file.write(b"x" * 100)
        staging.publish()
except VirnucproError as error:
    print(error)
"""


def test_a_full_disk_leaves_nothing_behind(tmp_path):
    command = [sys.executable, "-c", FULL_DISK, str(tmp_path)]
    done = subprocess.run(command, capture_output=True, text=True, timeout=60, check=False)
    assert "the disk is full" in done.stdout, done.stderr
    assert list(tmp_path.iterdir()) == [RunFiles(tmp_path).hidden]
    assert list(RunFiles(tmp_path).hidden.iterdir()) == []


KILLED = """
import sys
from pathlib import Path
from virnucpro.results.files import RunFiles
from virnucpro.results.staging import Staging
files = RunFiles(Path(sys.argv[1]))
with Staging(files) as staging:
    file = staging.open(files.calls)
    print("ready", flush=True)
    while True:
        file.write(b"row " * 1000)
"""


def test_a_kill_leaves_no_result_that_is_half_written(tmp_path):
    """TRAP R8."""
    with subprocess.Popen(
        [sys.executable, "-c", KILLED, str(tmp_path)], stdout=subprocess.PIPE
    ) as process:
        assert process.stdout is not None
        process.stdout.readline()
        with pytest.raises(subprocess.TimeoutExpired):
            process.wait(0.05)
        process.send_signal(signal.SIGKILL)
    files = RunFiles(tmp_path)
    assert [path for path in files.public if path.exists()] == []
    assert (files.scratch / files.calls.name).exists()


def test_a_folder_that_cannot_be_written_to_is_one_sentence(tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(VirnucproError, match="file: this folder cannot be written to"):
        Staging(RunFiles(tmp_path / "file")).__enter__()


def test_a_prefix_stands_before_every_name(tmp_path):
    files = RunFiles(tmp_path, "lake")
    assert all(path.name.startswith("lake.") for path in files.public)
    assert [p.name for p in RunFiles(tmp_path).public] == [p.name[5:] for p in files.public]
    assert files.hidden != RunFiles(tmp_path).hidden
