"""Files over the network: whole, right, or refused; never begun anew without need."""

import errno
import http.client
import io
import random
from http.client import HTTPMessage
from urllib.request import Request

import pytest

from server import Manners, refusing, serving
from virnucpro.bundle import fetch as downloads
from virnucpro.bundle.fetch import NoNetwork, fetch
from virnucpro.errors import BundleError

DATA = random.Random(3).randbytes(3_000_000)


@pytest.fixture(autouse=True)
def at_once(monkeypatch):
    monkeypatch.setattr(downloads, "_FIRST_WAIT_S", 0.001)


def fetched(tmp_path, manners, path="/file", size=None, told=None):
    part = tmp_path / "file.part"
    with serving(manners) as at:
        fetch(f"{at}{path}", part, size, [].append if told is None else told.append)
    return part.read_bytes()


@pytest.mark.parametrize("size", [None, len(DATA)])
def test_a_file_comes_whole_and_is_told_of(tmp_path, size):
    told = []
    assert fetched(tmp_path, Manners({"/file": DATA}), size=size, told=told) == DATA
    assert sum(told) == len(DATA)


@pytest.mark.parametrize("size", [None, len(DATA)])
def test_a_connection_that_drops_is_taken_up_where_it_broke(tmp_path, size):
    manners, told = Manners({"/file": DATA}, drop_after=1_200_000, drops=2), []
    assert fetched(tmp_path, manners, size=size, told=told) == DATA
    assert manners.sent("file") == ["", "bytes=1200000-", "bytes=2400000-"]
    assert sum(told) == len(DATA)


def test_what_an_earlier_run_left_is_gone_on_from(tmp_path):
    (tmp_path / "file.part").write_bytes(DATA[:1_000_001])
    manners, told = Manners({"/file": DATA}), []
    assert fetched(tmp_path, manners, told=told) == DATA
    assert manners.sent("file") == ["bytes=1000001-"]
    assert sum(told) == len(DATA) - 1_000_001


def test_a_server_without_ranges_sends_all_again(tmp_path):
    manners = Manners({"/file": DATA}, ranges=False, drop_after=2_000_000, drops=1)
    assert fetched(tmp_path, manners) == DATA
    assert manners.sent("file") == ["", "bytes=2000000-"]


@pytest.mark.parametrize("size", [None, len(DATA)])
@pytest.mark.parametrize("extra", [0, 5])
def test_what_is_too_long_or_whole_already(tmp_path, size, extra):
    (tmp_path / "file.part").write_bytes(DATA + b"x" * extra)
    manners = Manners({"/file": DATA})
    assert fetched(tmp_path, manners, size=size) == DATA
    whole = bool(size) and not extra
    assert len(manners.seen) == (0 if whole else 1 if size else 2)


@pytest.mark.parametrize("code", [429, 500, 503])
def test_a_server_that_is_busy_is_asked_again(tmp_path, code):
    manners = Manners({"/file": DATA}, answers={"/file": [code, code]})
    assert fetched(tmp_path, manners) == DATA
    assert len(manners.seen) == 3


def test_a_server_that_says_how_long_to_wait_is_obeyed(tmp_path, monkeypatch):
    slept = []
    monkeypatch.setattr(downloads.time, "sleep", slept.append)
    monkeypatch.setattr(downloads.time, "time", lambda: 1_445_412_474.0)
    manners = Manners({"/file": DATA}, answers={"/file": [503]}, retry_after="17")
    assert fetched(tmp_path, manners) == DATA
    (tmp_path / "file.part").unlink()
    date = "Wed, 21 Oct 2015 07:28:00 GMT"
    manners = Manners({"/file": DATA}, answers={"/file": [429]}, retry_after=date)
    assert fetched(tmp_path, manners) == DATA
    assert slept == [17, 6]


def test_a_server_that_wants_to_be_left_alone_for_long_ends_the_command(tmp_path):
    manners = Manners({"/file": DATA}, answers={"/file": [503]}, retry_after="4000")
    with pytest.raises(BundleError, match="run the same command again in 4,000 s"):
        fetched(tmp_path, manners)


def test_the_size_of_a_file_is_asked_for_without_the_file():
    manners = Manners({"/file": DATA})
    with serving(manners) as address:
        assert downloads.size_of(f"{address}/file") == len(DATA)
        assert downloads.size_of(f"{address}/other") is None
    assert manners.seen == []
    with refusing() as address, pytest.raises(NoNetwork, match="cannot be reached"):
        downloads.size_of(f"{address}/file")


def test_a_server_that_stays_busy_is_one_sentence(tmp_path):
    manners = Manners({"/file": DATA}, answers={"/file": [503] * 9})
    with pytest.raises(BundleError, match="answers 503 Service Unavailable; run the same command"):
        fetched(tmp_path, manners)
    assert len(manners.seen) == 4
    assert not (tmp_path / "file.part").stat().st_size


def test_a_connection_that_drops_for_ever(tmp_path):
    manners = Manners({"/file": DATA}, drop_after=0, drops=99)
    with pytest.raises(BundleError, match=r"broke off.*goes on after the 0 bytes"):
        fetched(tmp_path, manners)
    manners = Manners({"/file": DATA}, ranges=False, drop_after=100, drops=99)
    with pytest.raises(BundleError, match=r"broke off.*goes on after the 100 bytes"):
        fetched(tmp_path, manners)
    assert (tmp_path / "file.part").read_bytes() == DATA[:100]


@pytest.mark.parametrize(("path", "code"), [("/none", 404), ("/file", 401), ("/file", 403)])
def test_what_is_not_there_is_said_at_once(tmp_path, path, code):
    manners = Manners({"/file": DATA}, answers={"/file": [code]})
    with pytest.raises(BundleError, match=f"{path}: the server answers {code}"):
        fetched(tmp_path, manners, path)
    assert len(manners.seen) == 1
    assert not (tmp_path / "file.part").stat().st_size


def test_another_size_is_refused_before_it_is_fetched(tmp_path):
    told = []
    with pytest.raises(BundleError, match="a file of 3,000,000 bytes there instead of 7"):
        fetched(tmp_path, Manners({"/file": DATA}), size=7, told=told)
    assert told == []


def test_a_server_that_sends_without_end(tmp_path, monkeypatch):
    monkeypatch.setattr(downloads, "_MOST_BYTES", 2_000_000)
    with pytest.raises(BundleError, match="sends more than such a file has"):
        fetched(tmp_path, Manners({"/file": DATA}))
    assert not (tmp_path / "file.part").stat().st_size


def test_a_redirection_is_followed_with_its_range(tmp_path):
    (tmp_path / "file.part").write_bytes(DATA[:10])
    manners = Manners({"/there": DATA}, redirects={"/file": "/there"})
    assert fetched(tmp_path, manners) == DATA
    assert manners.seen == [("/file", "bytes=10-"), ("/there", "bytes=10-")]


def test_nothing_to_reach(tmp_path):
    part = tmp_path / "file.part"
    with refusing() as dead:
        for at in (dead, "http://nowhere.invalid"):
            with pytest.raises(NoNetwork, match=f"{at}/file cannot be reached"):
                fetch(f"{at}/file", part, None, lambda _: None)
    assert not part.stat().st_size


def test_a_server_that_goes_midway_may_come_back(tmp_path, monkeypatch):
    """A refused connection is no missing network once something has come."""
    again, waits = [], []
    gone = serving(Manners({"/file": DATA}, drop_after=1_000, drops=1))
    at = gone.__enter__()
    port = int(at.rpartition(":")[2])

    def sleep(_):
        waits.append(port)
        if len(waits) == 1:
            gone.__exit__(None, None, None)
        elif len(waits) == 2:
            again.append(serving(Manners({"/file": DATA}), port))
            again[0].__enter__()

    monkeypatch.setattr(downloads.time, "sleep", sleep)
    try:
        fetch(f"{at}/file", tmp_path / "file.part", None, lambda _: None)
    finally:
        again[0].__exit__(None, None, None)
    assert (tmp_path / "file.part").read_bytes() == DATA
    assert len(waits) == 2


class Breaks(io.BytesIO):
    """A body whose reading fails in a way of its own."""

    def read1(self, size=-1):
        if self.tell():
            raise OSError(errno.EHOSTUNREACH, "No route to host")
        return super().read1(1_000)


def test_a_route_that_is_lost_midway_is_no_error_of_the_disk(tmp_path, monkeypatch):
    body = Breaks(DATA)
    with pytest.raises(http.client.HTTPException, match="No route to host"):
        list(downloads._pieces(body))
    real = downloads._pieces
    monkeypatch.setattr(downloads, "_pieces", lambda _: real(Breaks(DATA)))
    manners = Manners({"/file": DATA}, ranges=False)
    with pytest.raises(BundleError, match=r"broke off.*goes on after the 1,000 bytes"):
        fetched(tmp_path, manners)


def test_no_redirection_out_of_an_encrypted_connection():
    follow = downloads._StaysSafe().redirect_request
    request = Request("https://a.org/file")
    with pytest.raises(BundleError, match=r"refers to http://a\.org/x, which is not encrypted"):
        follow(request, io.BytesIO(), 302, "", HTTPMessage(), "http://a.org/x")
    assert follow(request, io.BytesIO(), 302, "", HTTPMessage(), "https://b.org/x") is not None


def test_another_range_than_was_asked_for(tmp_path):
    """It would end up in the middle of the file."""
    (tmp_path / "file.part").write_bytes(DATA[:1_000])
    with pytest.raises(BundleError, match=r"broke off.*goes on after the 1,000 bytes"):
        fetched(tmp_path, Manners({"/file": DATA}, shifted=5))
    assert (tmp_path / "file.part").read_bytes() == DATA[:1_000]


def test_a_proxy_of_the_environment_is_used(tmp_path, monkeypatch):
    """A proxy is asked for the whole address."""
    manners = Manners({"http://somewhere.invalid/file": DATA})
    with serving(manners) as at:
        monkeypatch.setenv("http_proxy", at)
        monkeypatch.setenv("no_proxy", "")
        fetch("http://somewhere.invalid/file", tmp_path / "file.part", None, lambda _: None)
    assert (tmp_path / "file.part").read_bytes() == DATA


def test_no_certificate_no_file(tmp_path, monkeypatch):
    """A server that does not speak TLS stands for one that cannot prove who it is."""
    with serving(Manners({"/file": DATA})) as at:
        url = at.replace("http://", "https://") + "/file"
        with pytest.raises(BundleError, match="the connection is not safe"):
            fetch(url, tmp_path / "file.part", None, lambda _: None)
