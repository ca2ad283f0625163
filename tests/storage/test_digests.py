"""The cache folder and the digests that it remembers: never wrong, never needed."""

import hashlib
import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from virnucpro.errors import BundleError
from virnucpro.storage import digests as cache
from virnucpro.storage.digests import REMEMBERED_BYTES, cache_dir, cache_path, file_digest

OLD_NS = 1_600_000_000_123_456_789


@pytest.fixture
def folder(tmp_path, monkeypatch) -> Path:
    monkeypatch.setenv(cache.VARIABLE, str(tmp_path / "cache"))
    return tmp_path / "cache"


def big_file(path: Path, start: bytes = b"abc") -> Path:
    """Sparse, and older than any clock's tick."""
    with path.open("wb") as file:
        file.write(start)
        file.truncate(REMEMBERED_BYTES)
    os.utime(path, ns=(OLD_NS, OLD_NS))
    return path


def plain_digest(path: Path) -> str:
    return hashlib.sha256(path.read_bytes()).hexdigest()


def overwrite(path: Path, start: bytes) -> None:
    """Another content behind the same size, time and inode: what only reading can tell."""
    with path.open("r+b") as file:
        file.write(start)
    os.utime(path, ns=(OLD_NS, OLD_NS))


def test_the_folder_is_the_variable_or_the_platforms(tmp_path, folder, monkeypatch):
    assert cache_dir() == cache_path() == folder
    assert folder.is_dir()
    monkeypatch.setenv(cache.VARIABLE, "")
    monkeypatch.setenv("HOME", str(tmp_path / "home"))
    monkeypatch.setenv("XDG_CACHE_HOME", "")
    found = cache_dir()
    assert found is not None
    assert found.is_dir()
    assert found.is_relative_to(tmp_path / "home")
    assert found.name == "virnucpro"


def test_a_big_file_is_read_once_then_trusted(tmp_path, folder):
    path = big_file(tmp_path / "big")
    first = file_digest(path)
    assert first == plain_digest(path)
    overwrite(path, b"xyz")
    assert file_digest(path) == first
    assert file_digest(path, afresh=True) == plain_digest(path) != first
    assert file_digest(path) == plain_digest(path)


def test_a_link_is_the_file_that_it_names(tmp_path, folder):
    path = big_file(tmp_path / "big")
    (tmp_path / "link").symlink_to(path)
    file_digest(tmp_path / "link")
    (memo,) = (folder / "digests").iterdir()
    file_digest(path)
    assert list((folder / "digests").iterdir()) == [memo]


def newer(path):
    os.utime(path, ns=(OLD_NS, OLD_NS + 1))


def longer(path):
    with path.open("ab") as file:
        file.write(b"x")
    os.utime(path, ns=(OLD_NS, OLD_NS))


def another_inode(path):
    big_file(path.with_name("other"), b"other").replace(path)


@pytest.mark.parametrize("change", [newer, longer, another_inode])
def test_another_time_size_or_inode_is_read_again(tmp_path, folder, change):
    path = big_file(tmp_path / "big")
    file_digest(path)
    overwrite(path, b"xyz")
    change(path)
    assert file_digest(path) == plain_digest(path)


def test_a_file_that_changed_just_now_is_not_remembered(tmp_path, folder):
    path = big_file(tmp_path / "big")
    os.utime(path)
    file_digest(path)
    assert not folder.exists()


def test_a_small_file_needs_no_cache(tmp_path, folder):
    path = tmp_path / "small"
    path.write_bytes(b"abc")
    os.utime(path, ns=(OLD_NS, OLD_NS))
    assert file_digest(path) == plain_digest(path)
    assert not folder.exists()


@pytest.mark.parametrize("memo", [b"", b"{", b"[1]", b"\xff", b'{"sha256": 3}'])
def test_a_damaged_memo_is_none(tmp_path, folder, memo):
    path = big_file(tmp_path / "big")
    file_digest(path)
    (kept,) = (folder / "digests").iterdir()
    whole = json.loads(kept.read_text())
    for damage in (memo, json.dumps({**whole, "sha256": "0" * 63}).encode()):
        kept.write_bytes(damage)
        assert file_digest(path) == plain_digest(path)
        assert json.loads(kept.read_text()) == whole


def test_a_missing_file_is_one_sentence(tmp_path, folder):
    with pytest.raises(BundleError, match="none: cannot be read"):
        file_digest(tmp_path / "none")


def digest_elsewhere(path, **environment):
    """The digest of a file in another process, and all that it said."""
    code = (
        "import sys; from pathlib import Path; from virnucpro.storage.digests import file_digest\n"
        "for _ in range(3): found = file_digest(Path(sys.argv[1]))\n"
        "print(found)"
    )
    kept = {k: v for k, v in os.environ.items() if k not in ("HOME", "XDG_CACHE_HOME")}
    return subprocess.Popen(
        [sys.executable, "-c", code, str(path)],
        env={**kept, **environment},
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )


def test_an_unusable_folder_is_one_warning(tmp_path):
    path = big_file(tmp_path / "big")
    (tmp_path / "file").write_text("in the way")
    for place in (tmp_path / "file", tmp_path / "file" / "below"):
        out, err = digest_elsewhere(path, VIRNUCPRO_CACHE=str(place)).communicate()
        assert out.strip() == plain_digest(path)
        assert len(err.splitlines()) == 1
        assert err.startswith(f"warning: {place}: nothing can be kept in this cache (")


@pytest.mark.skipif(not hasattr(os, "geteuid"), reason="no users of that kind")
def test_no_home_and_an_unknown_user(tmp_path, monkeypatch):
    monkeypatch.delenv("HOME", raising=False)
    for name in (cache.VARIABLE, "XDG_CACHE_HOME"):
        monkeypatch.delenv(name, raising=False)

    def unknown(uid):
        raise KeyError(uid)

    monkeypatch.setattr("pwd.getpwuid", unknown)
    monkeypatch.setattr("pwd.getpwnam", unknown)
    monkeypatch.chdir(tmp_path)
    assert cache_path() is None
    assert cache_dir() is None
    assert file_digest(big_file(tmp_path / "big")) == plain_digest(tmp_path / "big")
    assert [path.name for path in tmp_path.iterdir()] == ["big"]


def test_a_folder_for_reading_only(tmp_path, folder, monkeypatch):
    path = big_file(tmp_path / "big")
    first = file_digest(path)
    overwrite(path, b"xyz")
    real = os.access
    monkeypatch.setattr(os, "access", lambda at, mode: mode == os.R_OK and real(at, mode))
    assert cache_dir() is None
    assert file_digest(path) == first
    assert file_digest(path, afresh=True) == plain_digest(path)


def test_several_processes_at_once(tmp_path, folder):
    """TRAP D6, R8."""
    path = big_file(tmp_path / "big")
    running = [digest_elsewhere(path, VIRNUCPRO_CACHE=str(folder)) for _ in range(4)]
    for process in running:
        out, err = process.communicate()
        assert (out.strip(), err) == (plain_digest(path), "")
    assert len(list((folder / "digests").iterdir())) == 1
