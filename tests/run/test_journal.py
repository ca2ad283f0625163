import errno
import os
import signal
import stat
import subprocess
import sys
import time
from dataclasses import fields
from functools import partial
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from command import SUPPORT
from made_blocks import MadeChunk, MadeContig, blocks_of_made
from virnucpro.blocks import Scored
from virnucpro.calls import Status
from virnucpro.errors import ResumeError, VirnucproError
from virnucpro.results.files import RunFiles, read_run_json
from virnucpro.results.staging import Staging
from virnucpro.run.block_file import from_bytes, read_block, to_bytes
from virnucpro.run.directory import claim
from virnucpro.run.journal import Journal
from virnucpro.storage import lock
from virnucpro.storage.atomic import disk_errors, write_atomic

FINGERPRINT = {"inputs": "aa", "bundle": "bb"}

CONTIGS = [
    MadeContig("long one", [MadeChunk(0, 90, Status.OK, {0: (0.25, 0.75), 5: (0.5, 0.5)})] * 3),
    MadeContig("é\N{SNOWMAN}", sample="other", fault="it holds a Z"),
    MadeContig("", [MadeChunk(0, 9, Status.NO_OPEN_FRAME)], sample="other"),
    MadeContig("raw \udce9", [], sample="other"),
]


def same(one: Scored, other: Scored) -> bool:
    arrays = [
        (getattr(getattr(one, group), part.name), getattr(getattr(other, group), part.name))
        for group in ("rows", "scores")
        for part in fields(getattr(one, group))
        if part.name != "embeddings"
    ]
    return all(
        a.dtype == b.dtype and np.array_equal(a, b, equal_nan=True) for a, b in arrays
    ) and all(
        getattr(one, name) == getattr(other, name)
        for name in ("block_number", "digest", "records", "telemetry")
    )


@given(st.lists(st.integers(0, 6)), st.sampled_from(["frames", "chunks"]))
def test_a_block_comes_back_as_it_was(cuts, kind):
    for scored in blocks_of_made(CONTIGS, cuts, kind):
        assert same(from_bytes(to_bytes(scored)), scored)


def test_a_block_without_records(tmp_path):
    empty = blocks_of_made([MadeContig("a")], [])[0]
    empty = Scored(4, "d", (), empty.rows, empty.scores)
    (tmp_path / "b").write_bytes(to_bytes(empty))
    assert same(read_block(tmp_path / "b"), empty)


def test_scores_must_fit_the_chunks():
    one, two = blocks_of_made(CONTIGS, [1])
    with pytest.raises(ValueError, match="scores for"):
        Scored(0, "d", one.records, one.rows, two.scores)


@pytest.mark.parametrize("damage", [b"", b"\0" * 100, None])
def test_a_damaged_block_is_named(tmp_path, damage):
    """TRAP D5."""
    path = tmp_path / "b"
    data = to_bytes(blocks_of_made(CONTIGS, [])[0])
    path.write_bytes(data[: len(data) // 2] if damage is None else damage)
    with pytest.raises(ResumeError, match=str(path)):
        read_block(path)


def test_blocks_come_back_in_order_and_none_is_missing(tmp_path):
    journal = Journal.open(RunFiles(tmp_path / "run"), FINGERPRINT)
    blocks = blocks_of_made(CONTIGS, [1, 2, 3, 4])
    for scored in reversed(blocks):
        journal.commit(scored)
    assert [s.block_number for s in journal.scored()] == list(range(len(blocks)))
    assert all(same(a, b) for a, b in zip(journal.scored(), blocks, strict=True))
    for number in (1, len(blocks) - 1):
        journal.files.block(number).rename(tmp_path / "away")
        with pytest.raises(ResumeError, match=f"{number:09d}"):
            list(journal.scored())
        (tmp_path / "away").rename(journal.files.block(number))
    journal.finished()
    assert list((tmp_path / "run").iterdir()) == []


def test_empty_and_foreign_folders_are_taken(tmp_path):
    (tmp_path / "empty").mkdir()
    Journal.open(RunFiles(tmp_path / "empty"), FINGERPRINT)
    (tmp_path / "foreign").mkdir()
    (tmp_path / "foreign" / "notes.txt").write_text("mine")
    with Journal.open(RunFiles(tmp_path / "foreign"), FINGERPRINT) as journal:
        journal.finished()
    assert [p.name for p in (tmp_path / "foreign").iterdir()] == ["notes.txt"]
    Journal.open(RunFiles(tmp_path / "deep" / "er"), FINGERPRINT)


class Nobody:
    """Looks on at a run whose inputs, whole or broken off, hold so many records before a break."""

    def __init__(self, unbroken: int | None = None) -> None:
        self.unbroken = unbroken
        self.lines: list[str] = []

    def seen(self, scored: Scored, *, new: bool) -> None:
        pass

    def line(self, text: str) -> None:
        self.lines.append(text)


def test_blocks_behind_a_break_are_marked_whenever_they_are_finished(tmp_path):
    """Blocks are read ahead: those before the break may be finished after it was met."""
    blocks = blocks_of_made(CONTIGS, [1, 2, 3, 4])
    onlooker = Nobody()

    def read():
        for number in range(len(blocks)):
            if number == 2:
                onlooker.unbroken = 1
            yield SimpleNamespace(number=number)

    with Journal.open(RunFiles(tmp_path), FINGERPRINT) as journal:
        assert len(list(journal.unfinished(read(), onlooker))) == len(blocks)
        for scored in reversed(blocks):
            journal.commit(scored)
        marks = [scored.unbroken for scored in journal.scored()]
    assert marks == [None, None] + [1] * (len(blocks) - 2)


def test_blocks_that_were_behind_a_break_are_so_no_more_when_the_input_is_whole(tmp_path):
    blocks = blocks_of_made(CONTIGS, [1, 2])
    read = [
        SimpleNamespace(number=b.block_number, digest=b.digest, records=b.records) for b in blocks
    ]
    for onlooker, new, mark in ((Nobody(0), len(blocks), 0), (Nobody(), 0, None)):
        with Journal.open(RunFiles(tmp_path), FINGERPRINT) as journal:
            assert len(list(journal.unfinished(read, onlooker))) == new
            for scored in blocks[:new]:
                journal.commit(scored)
            assert {scored.unbroken for scored in journal.scored()} == {mark}


def files_in(folder: Path) -> dict[str, bytes]:
    return {str(p.relative_to(folder)): p.read_bytes() for p in folder.rglob("*") if p.is_file()}


def publish(journal: Journal, *names: str) -> None:
    with Staging(journal.files, journal.outputs, partial(claim, journal.files)) as staging:
        for name in names:
            staging.open(getattr(journal.files, name), b"ours")
        staging.publish()


def earlier(folder: Path, finished: bool, *, results: bool = True) -> RunFiles:
    """A folder with a run that was ended, in order or by a kill."""
    with Journal.open(RunFiles(folder), FINGERPRINT) as journal:
        journal.commit(blocks_of_made(CONTIGS, [])[0])
        if results:
            publish(journal, "calls")
            journal.files.log.write_text("ours")
        if finished:
            journal.compared = True
            journal.write_run_json(
                {
                    "schema_version": 1,
                    "status": "complete",
                    "fingerprint": FINGERPRINT,
                    "outputs": journal.outputs,
                },
                Nobody(),
            )
            journal.finished()
    return journal.files


@pytest.mark.parametrize("finished", [True, False])
@pytest.mark.parametrize("field", FINGERPRINT)
def test_another_run_is_refused_and_the_field_named(tmp_path, finished, field):
    files = earlier(tmp_path, finished)
    before = files_in(tmp_path)
    with pytest.raises(ResumeError, match=f"another {field} ") as caught:
        Journal.open(files, FINGERPRINT | {field: "cc"})
    assert caught.value.exit_code == 3
    assert files_in(tmp_path) == before


def test_an_unfinished_run_is_refused_without_resume_and_else_goes_on(tmp_path):
    files = earlier(tmp_path, finished=False)
    before = files_in(tmp_path)
    with pytest.raises(ResumeError, match="already holds an unfinished run"):
        Journal.open(files, FINGERPRINT, resume=False)
    assert files_in(tmp_path) == before
    with Journal.open(files, FINGERPRINT) as journal:
        assert files.block(0).exists()
        assert files.calls.exists()  # until all that was kept is known to be of the same input
        journal.write_run_json({"schema_version": 1, "fingerprint": FINGERPRINT}, Nobody())
        assert not files.calls.exists()
        files.run_json.unlink()
        files.log.unlink()
        journal.finished()
    with Journal.open(files, FINGERPRINT, resume=False):
        pass


def test_a_run_that_was_finished_meanwhile_is_not_replaced(tmp_path):
    files = earlier(tmp_path, finished=True)
    before = files_in(tmp_path)
    with pytest.raises(ResumeError, match="just finished a run here"):
        Journal.open(files, FINGERPRINT)
    assert files_in(tmp_path).keys() - {".virnucpro/lock"} == before.keys()
    with Journal.open(files, FINGERPRINT, again=True) as journal:
        assert files_in(tmp_path).items() >= before.items()
        assert list(journal.unfinished([], Nobody())) == []
        assert files_in(tmp_path).keys() & before.keys() == {"log.txt"}


@pytest.mark.parametrize("finished", [True, False])
def test_an_earlier_run_is_replaced_and_nothing_else(tmp_path, finished):
    files = earlier(tmp_path, finished)
    (tmp_path / "notes.txt").write_text("mine")
    with Journal.open(files, {"bundle": "cc"}, force=True) as journal:
        assert sorted(p.name for p in tmp_path.iterdir()) == [".virnucpro", "notes.txt"]
        assert list(files.blocks.iterdir()) == []
        journal.finished()
    assert [p.name for p in tmp_path.iterdir()] == ["notes.txt"]


@pytest.mark.parametrize("force", [True, False])
@pytest.mark.parametrize("content", ["{}", "[]", "damaged", '{"fingerprint": {}}'])
def test_a_foreign_run_json_is_spared(tmp_path, force, content):
    for name in ("run.json", "contigs.tsv"):
        (tmp_path / name).write_text(content)
    with pytest.raises(ResumeError, match=r"run\.json"):
        Journal.open(RunFiles(tmp_path), FINGERPRINT, force=force)
    assert files_in(tmp_path) == dict.fromkeys(("run.json", "contigs.tsv"), content.encode())


@pytest.mark.parametrize("force", [True, False])
@pytest.mark.parametrize("name", ["calls.tsv", "viral.fasta", "log.txt", "failed.tsv"])
def test_foreign_files_under_our_names_are_refused(tmp_path, name, force):
    (tmp_path / name).write_text("mine")
    (tmp_path / ".virnucpro").mkdir()  # an empty one says nothing
    with pytest.raises(ResumeError, match=name):
        Journal.open(RunFiles(tmp_path), FINGERPRINT, force=force)
    assert files_in(tmp_path) == {name: b"mine"}
    with Journal.open(RunFiles(tmp_path, "P"), FINGERPRINT):
        pass


def test_force_needs_a_run_or_nothing(tmp_path):
    (tmp_path / "notes.txt").write_text("mine")
    with pytest.raises(ResumeError, match="no run that --force could replace"):
        Journal.open(RunFiles(tmp_path), FINGERPRINT, force=True)
    assert files_in(tmp_path) == {"notes.txt": b"mine"}
    (tmp_path / "empty").mkdir()
    for folder in ("empty", "new"):
        with Journal.open(RunFiles(tmp_path / folder), FINGERPRINT, force=True) as journal:
            journal.write_run_json({"schema_version": 1, "fingerprint": {}}, Nobody())
    with Journal.open(RunFiles(tmp_path / "new", "other"), FINGERPRINT, force=True):
        assert (tmp_path / "new" / "run.json").exists()


@pytest.mark.parametrize("name", ["failed.tsv", "calls.tsv.gz", "report.html"])
@pytest.mark.parametrize("how", [{"force": True}, {"again": True}])
def test_files_that_a_run_here_never_wrote_are_refused(tmp_path, name, how):
    with Journal.open(RunFiles(tmp_path), FINGERPRINT) as journal:
        journal.write_run_json({"schema_version": 1, "fingerprint": FINGERPRINT}, Nobody())
        journal.finished()
    (tmp_path / name).write_text("mine")
    before = files_in(tmp_path)
    with pytest.raises(ResumeError, match=f"{name}: this is in the way"):
        Journal.open(RunFiles(tmp_path), FINGERPRINT, **how)
    assert files_in(tmp_path) == before


def test_files_of_other_names_stay_in_the_hidden_folder(tmp_path):
    """But what a kill has left of a file in the making goes."""
    files = earlier(tmp_path, finished=False)
    (files.hidden / ".ipynb_checkpoints").mkdir()
    (files.hidden / ".mine").write_text("mine")
    (files.blocks / ".000000003.block.4711.0123abcd").write_bytes(b"half")
    with Journal.open(files, FINGERPRINT) as journal:
        assert [path.name for path in files.blocks.iterdir()] == ["000000000.block"]
        journal.finished()
    assert {p.name for p in files.hidden.iterdir()} == {".ipynb_checkpoints", ".mine"}


@pytest.mark.parametrize("content", [None, "[]", '{"schema_version": 1, "fingerprint": null}'])
def test_a_run_json_that_is_none_is_one_sentence(tmp_path, content):
    if content is None:
        (tmp_path / "run.json").mkdir()
    else:
        (tmp_path / "run.json").write_text(content)
    with pytest.raises(ResumeError, match=r"run\.json: this (file of an ear|was not written)"):
        Journal.open(RunFiles(tmp_path), FINGERPRINT)


@pytest.mark.parametrize("option", ["-o", "--journal"])
def test_a_name_that_is_too_long_is_one_sentence(tmp_path, option):
    long = tmp_path / ("x" * 300)
    files = RunFiles(long) if option == "-o" else RunFiles(tmp_path / "run", journal=long)
    with pytest.raises(VirnucproError, match=f"xxx: .*File name too long.*another with {option}"):
        Journal.open(files, FINGERPRINT)
    if option == "-o":
        with pytest.raises(VirnucproError, match="File name too long"):
            read_run_json(files)


def test_foreign_hidden_folders_links_and_damage_are_refused(tmp_path):
    (tmp_path / "a" / ".virnucpro" / "mine").mkdir(parents=True)
    with pytest.raises(ResumeError, match=r"\.virnucpro"):
        Journal.open(RunFiles(tmp_path / "a"), FINGERPRINT)
    with pytest.raises(ResumeError, match=r"\.virnucpro"):
        Journal.open(RunFiles(tmp_path / "new", journal=tmp_path / "a"), FINGERPRINT)
    (tmp_path / "b").mkdir()
    (tmp_path / "b" / "calls.tsv").symlink_to("nowhere")
    with pytest.raises(ResumeError, match="in the way"):
        Journal.open(RunFiles(tmp_path / "b"), FINGERPRINT)
    files = earlier(tmp_path / "c", finished=False)
    files.fingerprint.write_bytes(b"[]")
    with pytest.raises(ResumeError, match="damaged"):
        Journal.open(files, FINGERPRINT)
    (tmp_path / "d").write_text("a file")
    for files in (RunFiles(tmp_path / "d"), RunFiles(tmp_path / "e", journal=tmp_path / "d")):
        with pytest.raises(ResumeError, match="this is a file"):
            Journal.open(files, FINGERPRINT)


def test_blocks_elsewhere_outlive_the_run_directory(tmp_path):
    first = RunFiles(tmp_path / "out1", journal=tmp_path / "j")
    with Journal.open(first, FINGERPRINT) as journal:
        journal.commit(blocks_of_made(CONTIGS, [])[0])
    assert not (first.hidden / "blocks").exists()
    second = RunFiles(tmp_path / "out2", journal=tmp_path / "j")
    with pytest.raises(ResumeError, match="another bundle"):
        Journal.open(second, FINGERPRINT | {"bundle": "cc"})
    with Journal.open(second, FINGERPRINT) as journal:
        assert second.block(0).exists()
        with pytest.raises(ResumeError, match=f"{tmp_path / 'j'}.*: in use by process"):
            Journal.open(RunFiles(tmp_path / "out3", journal=tmp_path / "j"), FINGERPRINT)
        journal.finished()
    assert list((tmp_path / "j").iterdir()) == list((tmp_path / "out2").iterdir()) == []


def test_blocks_elsewhere_are_the_retrys_once_it_has_read_the_same_input(tmp_path):
    first = RunFiles(tmp_path / "out1", journal=tmp_path / "j")
    second = RunFiles(tmp_path / "out2", journal=tmp_path / "j")
    with Journal.open(first, FINGERPRINT):
        pass
    with Journal.open(second, FINGERPRINT) as journal:
        list(journal.unfinished((), Nobody()))
    with pytest.raises(ResumeError, match=r"holds the blocks of another run .*out2"):
        Journal.open(first, FINGERPRINT, force=True)
    Journal.open(second, FINGERPRINT, force=True).close()


@pytest.mark.parametrize("how", ["taken", "removed"])
def test_a_lock_that_was_taken_over_ends_the_run_and_is_left_to_the_other(
    tmp_path, monkeypatch, how
):
    """Where there are no system's locks, a process that slept long finds itself replaced."""

    def refuse(*_):
        raise OSError(errno.ENOLCK, "no locks available")

    monkeypatch.setattr(lock.fcntl, "flock", refuse)
    monkeypatch.setattr(lock, "SETTLE_S", 0.0)
    monkeypatch.setattr(lock, "BEAT_S", 0.05)
    journal = Journal.open(RunFiles(tmp_path), FINGERPRINT)
    path = journal.files.hidden / lock.NAME
    if how == "removed":
        path.unlink()
    path.write_text('{"token": "another"}')
    os.utime(path, (0, 0))
    time.sleep(0.3)
    assert path.stat().st_mtime == 0

    def write_run_json(compared):
        journal.compared = compared
        journal.write_run_json({}, Nobody())

    for act in (
        lambda: journal.commit(blocks_of_made(CONTIGS, [])[0]),
        lambda: write_run_json(compared=False),
        lambda: write_run_json(compared=True),
        journal.finished,
    ):
        with pytest.raises(ResumeError, match="was taken over by"):
            act()
    journal.close()
    assert path.read_text() == '{"token": "another"}'
    assert not journal.files.block(0).exists()
    assert not journal.files.run_json.exists()


def test_a_beat_that_fails_once_is_tried_again(tmp_path, monkeypatch):
    def refuse(*_):
        raise OSError(errno.ENOLCK, "no locks available")

    touch, failed = os.utime, []

    def once(*arguments):
        if not failed:
            failed.append(True)
            raise OSError(errno.EIO, "Input/output error")
        touch(*arguments)

    monkeypatch.setattr(lock.fcntl, "flock", refuse)
    monkeypatch.setattr(lock, "SETTLE_S", 0.0)
    monkeypatch.setattr(lock, "BEAT_S", 0.05)
    with Journal.open(RunFiles(tmp_path), FINGERPRINT) as journal:
        path = journal.files.hidden / lock.NAME
        touch(path, (0, 0))
        monkeypatch.setattr(os, "utime", once)
        deadline = time.monotonic() + 10
        while not path.stat().st_mtime and time.monotonic() < deadline:
            time.sleep(0.01)
        assert failed
        assert path.stat().st_mtime > 0


CHILD = """
import os, sys, time
from pathlib import Path
from virnucpro.run.journal import Journal
from virnucpro.results.files import RunFiles
Journal.open(RunFiles(Path(sys.argv[1])), {"inputs": "aa", "bundle": "bb"})
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
        Journal.open(RunFiles(folder), FINGERPRINT).close()
    except ResumeError:
        return True
    return False


def test_a_command_that_a_run_starts_holds_no_lock(tmp_path):
    sleep = partial(subprocess.Popen, ["sleep", "20"], close_fds=False)
    with Journal.open(RunFiles(tmp_path), FINGERPRINT), sleep() as child:
        pass_on = [path.resolve() for path in Path(f"/proc/{child.pid}/fd").iterdir()]
        child.kill()
    assert not [path for path in pass_on if path.name == "lock"]


def test_a_prefix_stands_before_every_name(tmp_path):
    files = RunFiles(tmp_path, "lake")
    assert all(path.name.startswith("lake.") for path in files.public)
    assert [p.name for p in RunFiles(tmp_path).public] == [p.name[5:] for p in files.public]
    assert files.hidden != RunFiles(tmp_path).hidden


@pytest.mark.parametrize(
    ("number", "words"),
    [
        (errno.ENOSPC, "disk is full"),
        (errno.EDQUOT, "disk is full"),
        (errno.EACCES, "no permission"),
        (errno.EROFS, "no permission"),
        (errno.EIO, "cannot be written"),
    ],
)
def test_what_the_disk_refuses_is_one_sentence(number, words):
    with pytest.raises(VirnucproError, match=words) as caught, disk_errors(Path("some/run")):
        raise OSError(number, os.strerror(number))
    assert str(caught.value).startswith("some/run: ")
    assert "folder with -o" in str(caught.value) or "another with -o" in str(caught.value)
    assert caught.value.exit_code == 1
    named = pytest.raises(VirnucproError, match="with --workdir")
    with named as other, disk_errors(Path("some/run"), "--workdir"):
        raise OSError(number, os.strerror(number))
    assert "-o" not in str(other.value)


def in_process(code: str, *arguments: str, cwd: Path | None = None):
    command = [sys.executable, "-c", code, *arguments]
    return subprocess.run(command, capture_output=True, text=True, timeout=60, check=False, cwd=cwd)


NO_PERMISSION = """
import os, sys
from pathlib import Path
from virnucpro.errors import VirnucproError
from virnucpro.run.journal import Journal
from virnucpro.results.files import RunFiles
Path().chmod(int(sys.argv[1], 0))
if os.geteuid() == 0:
    os.setuid(65534)
try:
    Journal.open(RunFiles(Path("run")), {})
except VirnucproError as error:
    print(error.exit_code, error)
"""


@pytest.mark.parametrize("mode", ["0o555", "0o444"])
def test_no_permission(tmp_path, mode):
    """To write there, and to see what lies there."""
    folder = tmp_path / "closed"
    folder.mkdir()
    done = in_process(NO_PERMISSION, mode, cwd=folder)
    folder.chmod(0o755)
    assert done.stdout.startswith("1 run: no permission"), done.stderr


FULL_DISK = """
import os, resource, sys
from pathlib import Path
sys.path[:0] = sys.argv[2].split(os.pathsep)
from test_journal import CONTIGS, FINGERPRINT
from made_blocks import blocks_of_made
from virnucpro.errors import VirnucproError
from virnucpro.run.journal import Journal
from virnucpro.results.files import RunFiles
from virnucpro.results.staging import Staging
journal = Journal.open(RunFiles(Path(sys.argv[1])), FINGERPRINT)
resource.setrlimit(resource.RLIMIT_FSIZE, (512, 512))
try:
    journal.commit(blocks_of_made(CONTIGS, [])[0])
except VirnucproError as error:
    print(error)
try:
    with Staging(journal.files, {}) as staging:
        file = staging.open(journal.files.calls)
        for _ in range(1000):
            file.write(b"x" * 100)
        staging.publish()
except VirnucproError as error:
    print(error)
"""


def test_a_full_disk_leaves_nothing_behind(tmp_path):
    run = tmp_path / "run"
    done = in_process(
        FULL_DISK, str(run), os.pathsep.join([str(SUPPORT), str(Path(__file__).parent)])
    )
    assert done.stdout.count("the disk is full") == 2, done.stderr
    left = {str(p.relative_to(run)) for p in run.rglob("*")}
    kept = (".virnucpro", ".virnucpro/blocks", ".virnucpro/fingerprint.json", ".virnucpro/lock")
    assert left == {*kept}


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


def test_staged_files_appear_together_or_not_at_all(tmp_path):
    files = Journal.open(RunFiles(tmp_path), FINGERPRINT).files

    def interrupted():
        with Staging(files, {}) as staging:
            staging.open(files.calls, b"head\n").write(b"row\n")
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        interrupted()
    assert not files.calls.exists()
    assert not files.scratch.exists()
    with Staging(files, {}) as staging:
        staging.open(files.calls, b"head\n").write(b"row\n")
        staging.open(files.calls, b"head\n").write(b"row\n")
        assert not files.calls.exists()
        staging.publish()
    assert files.calls.read_bytes() == b"head\nrow\nrow\n"
    assert not files.scratch.exists()


KILLED = """
import sys
from pathlib import Path
from virnucpro.results.files import RunFiles
from virnucpro.results.staging import Staging
from virnucpro.storage.atomic import write_atomic
files = RunFiles(Path(sys.argv[1]))
files.blocks.mkdir(parents=True)
with Staging(files, {}) as staging:
    file = staging.open(files.calls)
    print("ready", flush=True)
    number = 0
    while True:
        file.write(b"row " * 1000)
        write_atomic(files.block(number % 7), bytes([number % 256]) * 100_000)
        number += 1
"""


def test_a_kill_leaves_no_file_that_is_half_written(tmp_path):
    """TRAP R8."""
    for trial in range(3):
        run = tmp_path / str(trial)
        command = [sys.executable, "-c", KILLED, str(run)]
        with subprocess.Popen(command, stdout=subprocess.PIPE) as process:
            assert process.stdout is not None
            process.stdout.readline()
            with pytest.raises(subprocess.TimeoutExpired):
                process.wait(0.05 + 0.03 * trial)
            process.send_signal(signal.SIGKILL)
        files = RunFiles(run)
        assert [p for p in files.public if p.exists()] == []
        for path in files.blocks.glob("[0-9]*"):
            data = path.read_bytes()
            assert len(data) == 100_000
            assert len(set(data)) == 1
