"""Whose a run directory is: who may take it, and what of it is never touched."""

import os
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import pytest
from test_outputs_doc import a_run_json

from command import SUPPORT
from made_blocks import MadeContig, blocks_of_made
from virnucpro.errors import OtherRun, ResumeError, VirnucproError
from virnucpro.report import GENERATOR
from virnucpro.results.files import RunFiles
from virnucpro.results.record import RUNNING, RunRecord
from virnucpro.results.staging import Staging
from virnucpro.run.directory import RunDirectory, clear_leftovers, missing_or_changed, written_in
from virnucpro.run.settings import Part, Restart
from virnucpro.storage import lock
from virnucpro.storage.atomic import write_json

FINGERPRINT = {"bundle": "bb", "version": "1"}
OTHER = FINGERPRINT | {"bundle": "cc"}
BLOCK = blocks_of_made([MadeContig("a")], [])[0]
GO_ON = Restart()
FORCE = Restart(force=True)
NO_RESUME = Restart(resume=False)


def take(files: RunFiles | Path, restart: Restart = GO_ON, **how) -> RunDirectory:
    files = files if isinstance(files, RunFiles) else RunFiles(files)
    return RunDirectory.take(files, how.pop("fingerprint", FINGERPRINT), restart, **how)


def record(folder: Path, status: str, outputs: dict[str, str], **changes) -> RunRecord:
    """run.json of a run, as it was read back."""
    document = a_run_json() | {"fingerprint": FINGERPRINT, "status": status, "outputs": outputs}
    if status == RUNNING:
        document |= {"finished": None, "counts": None}
    path = folder.with_name(f"{folder.name}.made.json")
    write_json(path, document | changes)
    made = RunRecord.read(path, AssertionError)
    path.unlink()
    assert made is not None
    return made


def files_in(folder: Path) -> dict[str, bytes]:
    return {str(p.relative_to(folder)): p.read_bytes() for p in folder.rglob("*") if p.is_file()}


def run(
    files: RunFiles | Path,
    restart: Restart = GO_ON,
    *,
    finished: bool = True,
    results: bool = True,
    keep_blocks: bool = False,
    **how,
) -> RunFiles:
    """A run of one block and one result, to its end, or killed before it says complete."""
    with take(files, restart, **how) as directory:
        files = directory.files
        directory.journal.commit(BLOCK)
        directory.journal.compared = True
        if results:
            running = record(files.run_dir, RUNNING, {})
            directory.begin_results(running, [files.calls])
            with Staging(files) as staging:
                staging.open(files.calls, b"ours")
                staging.publish()
            files.log.write_text("ours")
        if finished:
            outputs = dict(staging.digests)
            complete = record(files.run_dir, "complete", outputs, output_bytes=staging.sizes)
            directory.write(complete)
            directory.complete(keep_blocks=keep_blocks)
    return files


# New, empty and foreign folders


def test_empty_and_foreign_folders_are_taken(tmp_path):
    (tmp_path / "empty").mkdir()
    (tmp_path / "foreign").mkdir()
    (tmp_path / "foreign" / "notes.txt").write_text("mine")
    for folder in ("empty", "foreign", "deep/er"):
        with take(tmp_path / folder) as directory:
            directory.complete(keep_blocks=False)
    assert [path.name for path in (tmp_path / "foreign").iterdir()] == ["notes.txt"]
    assert list((tmp_path / "empty").iterdir()) == []


@pytest.mark.parametrize("restart", [FORCE, GO_ON])
@pytest.mark.parametrize(
    "name",
    ["calls.tsv", "calls.tsv.gz", "viral.fasta", "log.txt", "log.jsonl", "failed.tsv", "x/"],
)
def test_foreign_files_under_our_names_are_refused(tmp_path, name, restart):
    """A folder, or a link to nowhere, too."""
    if name == "x/":
        (tmp_path / "contigs.tsv").symlink_to("nowhere")
        name = "contigs.tsv"
    else:
        (tmp_path / name).write_text("mine")
    (tmp_path / ".virnucpro").mkdir()  # an empty one says nothing
    before = files_in(tmp_path)
    with pytest.raises(ResumeError, match=f"{name}: this is in the way"):
        take(tmp_path, restart)
    assert files_in(tmp_path) == before
    assert list((tmp_path / ".virnucpro").iterdir()) == []
    with take(RunFiles(tmp_path, "P")):
        pass


def test_force_needs_a_run_or_nothing(tmp_path):
    (tmp_path / "notes.txt").write_text("mine")
    with pytest.raises(ResumeError, match="no run that --force could replace"):
        take(tmp_path, FORCE)
    assert files_in(tmp_path) == {"notes.txt": b"mine"}
    (tmp_path / "empty").mkdir()
    for folder in ("empty", "new"):
        run(tmp_path / folder, FORCE)
    with take(RunFiles(tmp_path / "new", "other"), FORCE):
        assert (tmp_path / "new" / "run.json").exists()


@pytest.mark.parametrize("restart", [FORCE, GO_ON])
@pytest.mark.parametrize(
    "content",
    [
        *("{}", "[]", "damaged", '{"fingerprint": {}}'),
        *('{"schema_version": 1, "fingerprint": null}', '{"schema_version": 99}', None),
    ],
)
def test_a_foreign_run_json_is_spared(tmp_path, restart, content):
    if content is None:
        (tmp_path / "run.json").mkdir()
    else:
        (tmp_path / "run.json").write_text(content)
    (tmp_path / "contigs.tsv").write_text("mine")
    before = files_in(tmp_path)
    with pytest.raises(ResumeError, match=r"run\.json: this file is damaged, or was not written"):
        take(tmp_path, restart)
    assert files_in(tmp_path) == before
    assert written_in(tmp_path) == set()


def test_foreign_hidden_folders_files_and_damage_are_refused(tmp_path):
    (tmp_path / "a" / ".virnucpro" / "mine").mkdir(parents=True)
    for files in (RunFiles(tmp_path / "a"), RunFiles(tmp_path / "new", journal=tmp_path / "a")):
        with pytest.raises(ResumeError, match=r"a/\.virnucpro: this is in the way"):
            take(files)
    files = run(tmp_path / "c", finished=False)
    files.fingerprint.write_bytes(b"[]")
    with pytest.raises(ResumeError, match=r"fingerprint\.json: .*damaged"):
        take(files)
    (tmp_path / "d").write_text("a file")
    for files in (RunFiles(tmp_path / "d"), RunFiles(tmp_path / "e", journal=tmp_path / "d")):
        with pytest.raises(ResumeError, match="this is a file"):
            take(files)


@pytest.mark.parametrize("option", ["-o", "--journal"])
def test_a_name_that_is_too_long_is_one_sentence(tmp_path, option):
    long = tmp_path / ("x" * 300)
    files = RunFiles(long) if option == "-o" else RunFiles(tmp_path / "run", journal=long)
    with pytest.raises(VirnucproError, match=f"xxx: .*File name too long.*another with {option}"):
        take(files)
    if option == "-o":
        with pytest.raises(VirnucproError, match="File name too long"):
            RunRecord.read(files.run_json, ResumeError)


# Earlier runs


@pytest.mark.parametrize("finished", [True, False])
@pytest.mark.parametrize("field", FINGERPRINT)
def test_another_run_is_refused_and_the_field_named(tmp_path, finished, field):
    files = run(tmp_path, finished=finished)
    before = files_in(tmp_path)
    with pytest.raises(OtherRun, match=f"another {field} ") as caught:
        take(files, fingerprint=FINGERPRINT | {field: "cc"})
    assert caught.value.exit_code == 3
    assert files_in(tmp_path) == before


@pytest.mark.parametrize("status", ["failed", "interrupted", "killed"])
def test_another_run_that_finished_no_block_is_replaced(tmp_path, status):
    """It has nothing to lose, and the notes say so."""
    files = RunFiles(tmp_path / "run")
    with take(files) as directory:
        files.log.write_text("theirs")
        if status != "killed":
            directory.fail(record(tmp_path, status, {}, exit_code=1, counts=None))
            files.report.write_text(GENERATOR)
    with pytest.raises(ResumeError, match="leave out --no-resume to replace it"):
        take(files, NO_RESUME, fingerprint=OTHER)
    with take(files, fingerprint=OTHER) as directory:
        assert directory.notes == [
            "an earlier run here, with another bundle (bb; this run: cc), finished no block; this "
            "run replaces it"
        ]
        assert not files.run_json.exists()
        assert not files.log.exists()
        assert not files.report.exists()
        directory.journal.commit(BLOCK)
    with pytest.raises(OtherRun, match="another bundle "):
        take(files)
    with take(files, fingerprint=OTHER) as directory:
        assert directory.notes == []
        assert files.block(0).exists()


@pytest.mark.parametrize("journal", [None, "blocks"])
@pytest.mark.parametrize("left", ["block", "provisional", "negatives", "results", "part"])
def test_another_run_that_has_something_to_lose_is_refused(tmp_path, left, journal):
    """Also where this one keeps its blocks elsewhere."""
    files = RunFiles(tmp_path / "run")
    with take(files) as directory:
        status, outputs = "part" if left == "part" else "failed", {}
        if left == "negatives":
            directory.journal_of_negatives("nn").commit(BLOCK)
        elif left == "results":
            outputs = {files.calls.name: "0" * 64}
        elif left != "part":
            files.block(3, provisional=left == "provisional").write_bytes(b"damaged or not")
        directory.write(record(files.run_dir, status, outputs))
    before = files_in(files.run_dir)
    mine = replace(files, journal=None if journal is None else tmp_path / journal)
    with pytest.raises(OtherRun, match="another bundle "):
        take(mine, fingerprint=OTHER)
    assert files_in(files.run_dir) == before


def test_another_run_whose_blocks_may_lie_elsewhere_is_refused(tmp_path):
    """Also where none is seen: the folder of --journal may be named otherwise, or be away."""
    files = RunFiles(tmp_path / "run", journal=tmp_path / "blocks")
    with take(files) as directory:
        directory.write(record(files.run_dir, "interrupted", {}, settings={"journal": "blocks"}))
    for journal in (None, tmp_path / "blocks", tmp_path / "away"):
        with pytest.raises(OtherRun, match="another bundle "):
            take(RunFiles(files.run_dir, journal=journal), fingerprint=OTHER)


def test_another_run_is_not_replaced_by_one_that_keeps_its_blocks_elsewhere(tmp_path):
    """Its fingerprint would stay behind."""
    take(RunFiles(tmp_path / "run")).close()
    with pytest.raises(OtherRun, match="another bundle "):
        take(RunFiles(tmp_path / "run", journal=tmp_path / "blocks"), fingerprint=OTHER)
    forced = take(RunFiles(tmp_path / "run", journal=tmp_path / "blocks"), FORCE, fingerprint=OTHER)
    forced.close()
    assert not (forced.files.hidden / forced.files.fingerprint.name).exists()


def test_another_run_at_work_is_in_use_also_without_a_block(tmp_path):
    with take(tmp_path), pytest.raises(ResumeError, match="in use by"):
        take(tmp_path, fingerprint=OTHER)


def test_another_part_is_another_run(tmp_path):
    files = run(tmp_path, Restart(part=Part(1, 2)), finished=False, results=False)
    for part in (None, Part(2, 2)):
        with pytest.raises(OtherRun, match="another part "):
            take(files, Restart(part=part))
    take(files, Restart(part=Part(1, 2))).close()


@pytest.mark.parametrize("results", [True, False])
def test_an_unfinished_run_is_refused_without_resume_and_else_goes_on(tmp_path, results):
    files = run(tmp_path, finished=False, results=results)
    before = files_in(tmp_path)
    with pytest.raises(ResumeError, match="already holds an unfinished run"):
        take(files, NO_RESUME)
    assert files_in(tmp_path) == before
    with take(files) as directory:
        assert files.block(0).exists()
        # Until all that was kept is known to be of the same input.
        assert files.calls.exists() == results
        directory.begin_results(record(tmp_path, RUNNING, {}), [files.contigs])
        assert not files.calls.exists()
        now = RunRecord.read(files.run_json, ResumeError)
        assert now is not None
        assert now.outputs == {"contigs.tsv": None}


def test_what_a_killed_run_was_about_to_write_is_ours(tmp_path):
    """run.json names each result before it is there."""
    with take(tmp_path) as directory:
        files = directory.files
        directory.begin_results(record(tmp_path, RUNNING, {}), [files.calls, files.pairs])
    files.pairs.write_text("half of what was to appear")
    files.others_fasta.write_text("mine")
    assert written_in(tmp_path) == {".virnucpro", "run.json", "pairs.tsv"}
    with pytest.raises(ResumeError, match=r"others\.fasta: this is in the way"):
        take(files)
    files.others_fasta.unlink()
    with take(files) as directory:
        directory.fail(record(tmp_path, "failed", {}))
        assert not files.pairs.exists()


@pytest.mark.parametrize("how", ["force", "go on", "go on without", "fail without"])
def test_the_log_for_programs_is_of_all_of_a_run_or_gone(tmp_path, how):
    files = run(tmp_path, finished=False)
    files.log_json.write_text("ours, of a process that was killed before run.json told of it")
    to_come = record(tmp_path, RUNNING, {}, settings={"log_json": how == "go on"})
    with take(files, FORCE if how == "force" else GO_ON) as directory:
        assert files.log_json.exists() == (how != "force")
        if how == "fail without":
            directory.fail(to_come)
        else:
            directory.begin_results(to_come, [])
    assert files.log_json.exists() == (how == "go on")


def test_an_error_takes_the_place_of_all_results(tmp_path):
    files = run(tmp_path, finished=False)
    with take(files) as directory:
        directory.fail(record(tmp_path, "failed", {}, error="no"))
    assert not files.calls.exists()
    failed = RunRecord.read(files.run_json, ResumeError)
    assert failed is not None
    assert (failed.status, failed.error, failed.outputs) == ("failed", "no", {})
    assert files.block(0).exists()


def test_a_run_that_was_finished_meanwhile_is_not_replaced(tmp_path):
    files = run(tmp_path)
    before = files_in(tmp_path)
    with pytest.raises(ResumeError, match="just finished a run here"):
        take(files)
    assert files_in(tmp_path).keys() - {".virnucpro/lock"} == before.keys()
    with take(files, again=True) as directory:
        assert files_in(tmp_path).items() >= before.items()
        directory.begin_results(record(tmp_path, RUNNING, {}), [])
        assert not files.calls.exists()
        assert files.log.read_text() == "ours"


@pytest.mark.parametrize("finished", [True, False])
def test_an_earlier_run_is_replaced_and_nothing_else(tmp_path, finished):
    files = run(tmp_path, finished=finished)
    (tmp_path / "notes.txt").write_text("mine")
    with take(files, FORCE, fingerprint={"bundle": "cc"}) as directory:
        assert sorted(path.name for path in tmp_path.iterdir()) == [".virnucpro", "notes.txt"]
        assert list(files.blocks.iterdir()) == []
        directory.complete(keep_blocks=False)
    assert [path.name for path in tmp_path.iterdir()] == ["notes.txt"]


@pytest.mark.parametrize("name", ["failed.tsv", "calls.tsv.gz", "report.html", "log.jsonl"])
@pytest.mark.parametrize("how", [{"restart": FORCE}, {"again": True}])
def test_files_that_a_run_here_never_wrote_are_refused(tmp_path, name, how):
    """report.html is of every run that has results; this one was stopped before."""
    with take(tmp_path) as directory:
        directory.write(record(tmp_path, "complete", {}))
        directory.complete(keep_blocks=False)
    (tmp_path / name).write_text("mine")
    before = files_in(tmp_path)
    with pytest.raises(ResumeError, match=f"{name}: this is in the way"):
        take(tmp_path, **how)
    assert files_in(tmp_path) == before


def test_provisional_blocks_are_of_one_process(tmp_path):
    files = run(tmp_path, finished=False)
    provisional = files.block(1, provisional=True)
    for path in (provisional, files.embeddings_of(provisional)):
        path.write_bytes(b"behind a break")
    with take(files):
        assert [path.name for path in files.blocks.iterdir()] == ["000000000.block"]


def test_files_of_other_names_stay_in_the_hidden_folder(tmp_path):
    """But what a kill has left of a file in the making goes."""
    files = run(tmp_path, finished=False)
    (files.hidden / ".ipynb_checkpoints").mkdir()
    (files.hidden / ".mine").write_text("mine")
    (files.blocks / ".000000003.block.4711.0123abcd").write_bytes(b"half")
    with take(files) as directory:
        assert [path.name for path in files.blocks.iterdir()] == ["000000000.block"]
        directory.complete(keep_blocks=False)
    assert {path.name for path in files.hidden.iterdir()} == {".ipynb_checkpoints", ".mine"}


def test_blocks_are_kept_on_demand(tmp_path):
    files = run(tmp_path, keep_blocks=True)
    assert {path.name for path in files.hidden.iterdir()} == {"blocks", "fingerprint.json"}
    assert files.block(0).exists()


@pytest.mark.parametrize("damage", ["", "missing", "longer", "changed", "changed, as old", "touch"])
def test_results_that_are_not_as_they_were_written_are_told(tmp_path, damage):
    files = run(tmp_path)
    made = RunRecord.read(files.run_json, ResumeError)
    assert made is not None
    later_ns = files.run_json.stat().st_mtime_ns + 10**9
    if damage == "missing":
        files.calls.unlink()
    elif damage == "longer":
        files.calls.write_bytes(b"ours!")
    elif damage.startswith("changed"):
        files.calls.write_bytes(b"mine")
    if damage in ("changed", "touch"):
        os.utime(files.calls, ns=(later_ns, later_ns))
    if damage == "changed, as old":  # of the size that is listed and no younger: not read again
        os.utime(files.calls, ns=(0, 0))
    wrong = damage in ("missing", "longer", "changed")
    assert missing_or_changed(files, made) == ["calls.tsv"] * wrong


# Blocks elsewhere


def test_blocks_elsewhere_outlive_the_run_directory(tmp_path):
    first = RunFiles(tmp_path / "out1", journal=tmp_path / "j")
    run(first, finished=False, results=False)
    assert not (first.hidden / "blocks").exists()
    second = RunFiles(tmp_path / "out2", journal=tmp_path / "j")
    with pytest.raises(OtherRun, match="another bundle"):
        take(second, fingerprint=FINGERPRINT | {"bundle": "cc"})
    with take(second) as directory:
        assert second.block(0).exists()
        with pytest.raises(ResumeError, match=f"{tmp_path / 'j'}.*: in use by process"):
            take(RunFiles(tmp_path / "out3", journal=tmp_path / "j"))
        directory.complete(keep_blocks=False)
    assert list((tmp_path / "j").iterdir()) == list((tmp_path / "out2").iterdir()) == []


def test_blocks_elsewhere_are_the_retrys_once_it_has_read_the_same_input(tmp_path):
    first = RunFiles(tmp_path / "out1", journal=tmp_path / "j")
    second = RunFiles(tmp_path / "out2", journal=tmp_path / "j")
    take(first).close()
    with pytest.raises(ResumeError, match=r"holds the blocks of another run .*out1"):
        take(second, FORCE)
    run(second, finished=False)
    with pytest.raises(ResumeError, match=r"holds the blocks of another run .*out2"):
        take(first, FORCE)
    take(second, FORCE).close()


def test_blocks_of_another_run_are_no_leftovers(tmp_path):
    first, second = (RunFiles(tmp_path / out, journal=tmp_path / "j") for out in ("one", "two"))
    run(first)
    run(second, finished=False, results=False)
    clear_leftovers(first)
    assert second.block(0).exists()
    first.hidden.mkdir()
    second.hidden.mkdir(exist_ok=True)
    clear_leftovers(second)
    assert not second.kept.exists()
    assert not second.hidden.exists()


# One process at a time


def test_a_lock_that_was_taken_over_ends_the_run_and_is_left_to_the_other(tmp_path):
    """Where there are no system's locks, a process that slept long finds itself replaced."""
    directory = take(tmp_path)
    files = directory.files
    path = files.hidden / lock.NAME
    path.write_text('{"token": "another"}')
    made = record(tmp_path, "failed", {})
    for act in (
        lambda: directory.journal.commit(BLOCK),
        lambda: directory.begin_results(made, [files.calls]),
        lambda: directory.fail(made),
        lambda: directory.write(made),
        lambda: directory.complete(keep_blocks=False),
    ):
        with pytest.raises(ResumeError, match="was taken over by"):
            act()
    directory.close()
    assert path.read_text() == '{"token": "another"}'
    assert not files.block(0).exists()
    assert not files.run_json.exists()


@pytest.mark.parametrize("restart", [GO_ON, FORCE, NO_RESUME])
def test_a_folder_in_use_is_refused_as_such_and_left_alone(tmp_path, restart):
    """TRAP R8."""
    files = run(tmp_path, finished=False)
    with take(files):
        before = files_in(tmp_path)
        with pytest.raises(ResumeError, match=f"in use by process {os.getpid()} on "):
            take(files, restart)
        assert files_in(tmp_path) == before


def test_what_runs_have_put_into_a_folder_is_told_by_prefix(tmp_path):
    """In a folder of inputs these are none; a user's file that is named alike is one."""
    ours: set[str] = set()
    for prefix in ("", "s.fa", "lake"):
        files = run(RunFiles(tmp_path, prefix), finished=prefix != "lake")
        assert files.calls.exists()
        ours |= {path.name for path in (files.run_json, files.log, files.calls)}
    (tmp_path / "other.calls.tsv").write_text("mine")
    (tmp_path / "viral.fasta.mine.fa").write_text(">a\nACGT\n")
    assert written_in(tmp_path) == ours | {".lake.virnucpro"}


# What the disk refuses


def in_process(code: str, *arguments: str, cwd: Path | None = None):
    command = [sys.executable, "-c", code, *arguments]
    return subprocess.run(command, capture_output=True, text=True, timeout=60, check=False, cwd=cwd)


NO_PERMISSION = """
import os, sys
from pathlib import Path
from virnucpro.errors import VirnucproError
from virnucpro.run.directory import RunDirectory
from virnucpro.run.settings import Restart
from virnucpro.results.files import RunFiles
Path().chmod(int(sys.argv[1], 0))
if os.geteuid() == 0:
    os.setuid(65534)
try:
    RunDirectory.take(RunFiles(Path("run")), {}, Restart())
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
    assert done.stdout.startswith("3 run: no permission"), done.stderr


FULL_DISK = """
import os, resource, sys
from pathlib import Path
sys.path[:0] = sys.argv[2].split(os.pathsep)
from made_blocks import MadeContig, blocks_of_made
from virnucpro.errors import VirnucproError
from virnucpro.results.files import RunFiles
from virnucpro.run.directory import RunDirectory
from virnucpro.run.settings import Restart
directory = RunDirectory.take(RunFiles(Path(sys.argv[1])), {}, Restart())
resource.setrlimit(resource.RLIMIT_FSIZE, (512, 512))
try:
    directory.journal.commit(blocks_of_made([MadeContig("a")], [])[0])
except VirnucproError as error:
    print(error)
"""


def test_a_full_disk_leaves_nothing_behind(tmp_path):
    run_dir = tmp_path / "run"
    done = in_process(FULL_DISK, str(run_dir), str(SUPPORT))
    assert "the disk is full" in done.stdout, done.stderr
    left = {str(path.relative_to(run_dir)) for path in run_dir.rglob("*")}
    kept = (".virnucpro", ".virnucpro/blocks", ".virnucpro/fingerprint.json", ".virnucpro/lock")
    assert left == {*kept}
