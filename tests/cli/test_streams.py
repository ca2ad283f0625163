"""Standard streams that are missing, closed or full change nothing but what is printed."""

import os
import signal
import subprocess
import sys
import threading
import time
from pathlib import Path

import pytest

import forks
from command import (
    SUPPORT,
    TABLES,
    dna,
    fasta,
    made_bundle,
    random_reads,
    run_json,
    virnucpro,
)

CLOSED = ["2>&-", ">&- 2>&-", "<&- >&- 2>&-", "<&-", "2>/dev/full", ">/dev/full 2>/dev/full"]


@pytest.fixture
def here(tmp_path, monkeypatch) -> Path:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "in.fa").write_bytes(fasta([("a", dna(400)), ("b", dna(900, 1))]))
    made_bundle(tmp_path / "km", block_nt=250_000)
    return tmp_path


def shell(words: str, streams: str) -> subprocess.CompletedProcess[bytes]:
    command = f'"$0" -m virnucpro {words} {streams}'
    return subprocess.run(
        ["sh", "-c", command, sys.executable], capture_output=True, timeout=60, check=False
    )


@pytest.mark.parametrize("streams", CLOSED)
def test_a_run_is_the_same_whatever_its_streams_are(here, streams):
    assert virnucpro("predict", "in.fa", "-o", "whole", "--bundle", "km").code == 0
    assert shell("predict in.fa -o odd --bundle km", streams).returncode == 0
    for name in TABLES:
        assert (here / "odd" / name).read_bytes() == (here / "whole" / name).read_bytes()
    # Nothing was printed into a file that took the number of a descriptor.
    assert "virnucpro: " not in (here / "odd" / "log.txt").read_text()


@pytest.mark.parametrize("streams", CLOSED)
@pytest.mark.parametrize(
    ("words", "code"), [("predict no.fa -o run --bundle km", 1), ("predict --nosuch", 2)]
)
def test_exit_codes_of_mistakes_are_the_same(here, words, code, streams):
    assert shell(words, streams).returncode == code


@pytest.mark.parametrize("words", ["bundles list", "cite", "--help"])
def test_what_cannot_be_printed_to_a_full_disk_is_said(here, words):
    done = shell(words, "> /dev/full")
    assert done.returncode == 1
    said = b"virnucpro: standard output cannot be written (No space left on device)"
    assert done.stderr.startswith(said)
    done = shell(words, ">&-")
    assert (done.returncode, done.stderr) == (0, b"")


@pytest.mark.parametrize(
    ("words", "code"),
    [("bundles show km", 0), ("bundles verify km", 0), ("config", 0), ("--no", 2)],
)
def test_a_reader_that_leaves_changes_no_exit_code(here, words, code):
    read, write = os.pipe()
    os.close(read)
    done = subprocess.run(
        [sys.executable, "-m", "virnucpro", *words.split()],
        stdout=write,
        stderr=subprocess.PIPE,
        timeout=60,
        check=False,
    )
    os.close(write)
    assert done.returncode == code
    assert b"standard output" not in done.stderr


def test_an_evaluation_is_written_though_its_reader_leaves(here):
    words = "evaluate km --positive in.fa --negative in.fa --json all.json"
    assert shell(words, "| true").returncode == 0
    assert (here / "all.json").exists()


def test_a_pipe_beyond_the_descriptors_that_select_takes(here):
    resource = pytest.importorskip("resource")
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    if hard < 2_000:
        pytest.skip("this machine allows no more than 1,023 descriptors")
    from virnucpro.reads import open_sources

    resource.setrlimit(resource.RLIMIT_NOFILE, (max(soft, 2_000), hard))
    os.mkfifo("pipe")
    text = (here / "in.fa").read_bytes()
    writer = threading.Thread(target=lambda: Path("pipe").write_bytes(text))
    taken = [os.open(os.devnull, os.O_RDONLY) for _ in range(1_100)]
    try:
        writer.start()
        (source,) = open_sources([Path("pipe")])
        assert [contig.name for contig in source.contigs()] == ["a", "b"]
    finally:
        for descriptor in taken:
            os.close(descriptor)
        writer.join(10)
        resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))


def test_a_terminal_that_is_gone_stops_a_run_that_goes_on_later(here):
    """SIGHUP is an interruption as SIGTERM is."""
    (here / "big.fa").write_bytes(random_reads(10_000, 300))
    arguments = ["predict", "big.fa", "-o", "run", "--bundle", "km", "-q"]
    with forks.Fork(str(SUPPORT / "stub_program.py"), ["slow=0.3", *arguments]) as process:
        blocks, deadline = here / "run" / ".virnucpro" / "blocks", time.monotonic() + 60
        while not list(blocks.glob("*.block")):
            assert process.poll() is None
            assert time.monotonic() < deadline
            time.sleep(0.01)
        process.send_signal(signal.SIGHUP)
        _, err = process.communicate()
    assert process.wait() == 143
    assert b"Traceback" not in err
    assert run_json(here / "run")["status"] == "interrupted"
    assert virnucpro(*arguments).code == 0
    assert run_json(here / "run")["blocks"]["reused"] > 0
