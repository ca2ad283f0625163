"""What containers rely on, tried with the real program; the Dockerfiles."""

import os
import re
import shutil
import subprocess
import sys
import tomllib
from pathlib import Path

import pytest

from command import PROGRAM, run_json
from conftest import REPOSITORY
from frame_bundles import small_bundle
from open_folder import open_folder

RECIPES = REPOSITORY / "recipes"
# As a container's: nothing but where programs are.
BARE = {"PATH": "/usr/bin:/bin", "PYTHONPATH": str(REPOSITORY / "src"), "OMP_NUM_THREADS": "1"}
STRANGER = ("setpriv", "--reuid=54321", "--regid=54321", "--clear-groups")
CONFINED = """
mount --make-rprivate /
mount -t tmpfs -o size=64m tmpfs /dev/shm
mount --bind "$1" "$1"
mount -o remount,ro,bind /
! touch "$2" 2> /dev/null || exit 99
cd "$1"
shift 2
exec "$@"
"""


def can(*command: object) -> bool:
    found = shutil.which(str(command[0])) is not None
    return (
        found
        and not subprocess.run([*map(str, command)], capture_output=True, check=False).returncode
    )


needs_root = pytest.mark.skipif(
    not can(*STRANGER, "true"), reason="only root may become another user, with setpriv"
)
needs_namespaces = pytest.mark.skipif(
    not can("unshare", "-m", "sh", "-c", "mount --make-rprivate /"),
    reason="no mount namespaces are to be had here",
)


@pytest.fixture
def work(tmp_path) -> Path:
    return open_folder(tmp_path)


def runs(command: list, folder: Path, *more: str, **environment: str) -> dict:
    """Runs predict behind a command; run.json of it."""
    words = ["predict", "in.fa", "-o", "run", "--no-progress", *more]
    done = subprocess.run(
        [*map(str, command), *PROGRAM, *words],
        cwd=folder,
        env=BARE | environment,
        capture_output=True,
        text=True,
        check=False,
        timeout=120,
    )
    assert done.returncode == 0, done.stderr
    return run_json(folder / "run")


@pytest.mark.slow
def test_without_a_home_or_any_variable(work):
    assert runs([], work)["status"] == "complete"


@pytest.mark.slow
@needs_root
def test_a_user_without_an_entry(work):
    if not can(*STRANGER, sys.executable, "-c", "import torch"):
        pytest.skip("other users may not read the Python of these tests")
    assert runs([*STRANGER], work)["status"] == "complete"
    assert (work / "run" / "calls.tsv").stat().st_uid == 54321


@pytest.mark.slow
@needs_namespaces
def test_everything_but_the_run_directory_is_read_only_and_shared_memory_is_small(work, tmp_path):
    confined = ["unshare", "-m", "sh", "-ec", CONFINED, "sh", work, tmp_path / "elsewhere"]
    document = runs(confined, work, HOME="/nowhere", VIRNUCPRO_CACHE="/nowhere/cache")
    assert document["status"] == "complete"
    assert document["counts"]["records"] == 4


@pytest.mark.slow
@needs_namespaces
def test_workers_of_both_encoders_need_no_shared_memory(golden, work, tmp_path):
    bundle = small_bundle(golden, work, 300)
    confined = ["unshare", "-m", "sh", "-ec", CONFINED, "sh", work, tmp_path / "elsewhere"]
    document = runs(confined, work, "--bundle", str(bundle), "--dataloader-workers", "2")
    assert (document["status"], document["settings"]["dataloader_workers"]) == ("complete", 2)


# Dockerfiles


PROJECT = tomllib.loads((REPOSITORY / "pyproject.toml").read_text("utf-8"))["project"]


@pytest.mark.parametrize("name", ["Dockerfile.cpu", "Dockerfile.cuda"])
def test_dockerfiles_have_no_faults(name):
    hadolint = shutil.which("hadolint", path=f"{Path(sys.executable).parent}:{os.environ['PATH']}")
    if hadolint is None:
        pytest.skip("hadolint is not installed")
    done = subprocess.run([hadolint, RECIPES / name], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout


@pytest.mark.parametrize("name", ["Dockerfile.cpu", "Dockerfile.cuda"])
def test_dockerfiles_are_pinned_and_copy_what_is_there(name):
    text = (RECIPES / name).read_text()
    bases = re.findall(r"^FROM (\S+)", text, re.MULTILINE)
    assert bases
    assert all(re.fullmatch(r"python:3\.\d+\.\d+-slim-bookworm", base) for base in bases)
    for line in re.findall(r"^COPY (?!--from)(.*)$", text, re.MULTILINE):
        assert all((REPOSITORY / word).exists() for word in line.split()[:-1])
    torch = next(d for d in PROJECT["dependencies"] if d.startswith("torch"))
    assert name.endswith("cuda") or f'"{torch}"' in text
