"""Recipes: what containers and schedulers rely on, tried with the real program; their syntax."""

import gzip
import os
import re
import shutil
import signal
import subprocess
import sys
import tomllib
from pathlib import Path

import pytest

from command import PROGRAM, dna, fasta, made_bundle, run_json, virnucpro
from conftest import REPOSITORY
from frame_bundles import small_bundle

RECIPES = REPOSITORY / "recipes"
WORKFLOWS = RECIPES / "workflows"
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
    """The one folder to write to, with an input; whoever comes may enter."""
    folder = tmp_path / "work"
    folder.mkdir()
    (folder / "in.fa").write_bytes(fasta((f"s{i}", dna(700, i)) for i in range(4)))
    folder.chmod(0o777)
    for parent in tmp_path.parents:
        if parent.stat().st_uid == os.getuid() and parent != Path("/"):
            parent.chmod(parent.stat().st_mode | 0o011)
    tmp_path.chmod(0o711)
    return folder


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


# Dockerfiles, conda


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


PROJECT = tomllib.loads((REPOSITORY / "pyproject.toml").read_text("utf-8"))["project"]


def test_the_conda_recipe_needs_what_the_package_needs():
    text = (RECIPES / "bioconda" / "meta.yaml").read_text()
    run = text[text.index("  run:\n") : text.index("\ntest:")]
    listed = {
        tuple(words.split(" ", 1)) for words in re.findall(r"^    - (.*)$", run, re.MULTILINE)
    }
    for wanted in [f"python{PROJECT['requires-python']}", *PROJECT["dependencies"]]:
        name, version = re.fullmatch(r"([\w.-]+)([^;]*)(?:;.*)?", wanted).groups()
        assert ("pytorch" if name == "torch" else name, version.strip()) in listed
    assert f"  license: {PROJECT['license']}\n" in text
    assert all((REPOSITORY / name).exists() for name in PROJECT["license-files"])
    assert all(f"    - {name}\n" in text for name in PROJECT["license-files"])


# Workflows


CHECKS = {
    "virnucpro.slurm": ("bash", "-n"),
    "virnucpro.wdl": ("miniwdl", "check"),
    "virnucpro.nf": ("nextflow", "lint"),
    "Snakefile": ("snakemake", "--list-rules", "--snakefile"),
    "parts.slurm": ("bash", "-n"),
    "parts.wdl": ("miniwdl", "check"),
    "parts.nf": ("nextflow", "lint"),
    "parts.smk": ("snakemake", "--list-rules", "--snakefile"),
    "cluster.slurm": ("bash", "-n"),
}


@pytest.mark.parametrize("name", CHECKS)
def test_workflows_have_no_faults(tmp_path, name):
    command = CHECKS[name]
    if shutil.which(command[0]) is None:
        pytest.skip(f"{command[0]} is not installed")
    done = subprocess.run([*command, WORKFLOWS / name], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout + done.stderr


def test_every_workflow_is_checked():
    assert {path.name for path in WORKFLOWS.iterdir()} == CHECKS.keys()


def programs(folder: Path, **scripts: str) -> str:
    """A PATH on which these programs come first."""
    folder.mkdir()
    for name, text in scripts.items():
        (folder / name).write_text(f"#!/usr/bin/env bash\n{text}\n")
        (folder / name).chmod(0o755)
    return f"{folder}:{os.environ['PATH']}"


SLURM = {"SLURM_ARRAY_TASK_ID": "2", "SLURM_ARRAY_JOB_ID": "77", "SLURM_CPUS_PER_TASK": "1"}


@pytest.mark.slow
def test_the_array_job_takes_its_file(work):
    (work / "files.txt").write_text("none.fa\nin.fa\n")
    path = programs(work / "bin", virnucpro=f'exec {sys.executable} -m virnucpro "$@"')
    script = ["bash", WORKFLOWS / "virnucpro.slurm"]
    done = subprocess.run(
        script, cwd=work, env=os.environ | SLURM | {"PATH": path}, capture_output=True, check=False
    )
    assert done.returncode == 0, done.stderr
    assert (work / "results" / "in" / "in.contigs.tsv").exists()


OURS = f'exec {sys.executable} -m virnucpro "$@"'


def undivided(work: Path) -> dict[str, bytes]:
    """The results of in.fa in one run, with the k-mer bundle in small blocks."""
    made_bundle(work / "km", block_nt=1_000)
    words = ["in.fa", "-o", "run", "--bundle", "km", "--sample", "lake", "--prefix", "lake"]
    assert virnucpro("predict", *words, cwd=work).code == 0
    return {
        path.name: path.read_bytes()
        for path in (work / "run").iterdir()
        if path.suffix in (".tsv", ".fasta", ".txt", ".csv") and not path.name.endswith("log.txt")
    }


def expect_results(folder: Path, expected: dict[str, bytes]) -> None:
    assert {name: (folder / name).read_bytes() for name in expected} == expected


@pytest.mark.slow
def test_snakemake_scatters_and_merges(work):
    if shutil.which("snakemake") is None:
        pytest.skip("snakemake is not installed")
    expected = undivided(work)
    (work / "reads").mkdir()
    (work / "reads" / "lake.fastq.gz").write_bytes(gzip.compress((work / "in.fa").read_bytes()))
    wanted = "results/lake/lake.contigs.tsv"
    config = ["--config", "virnucpro_bundle=km", "virnucpro_parts=3"]
    done = subprocess.run(
        ["snakemake", "--snakefile", WORKFLOWS / "parts.smk", "--cores", "1", wanted, *config],
        cwd=work,
        env=os.environ | {"PATH": programs(work / "bin", virnucpro=OURS)},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    expect_results(work / "results" / "lake", expected)


@pytest.mark.slow
def test_an_array_job_of_parts_is_merged(work):
    expected = undivided(work)
    path = programs(work / "bin", virnucpro=OURS)
    for number in "12":
        part = {"SLURM_ARRAY_TASK_ID": number, "SLURM_ARRAY_TASK_COUNT": "2", "PATH": path}
        script = ["bash", WORKFLOWS / "parts.slurm", "in.fa", "lake", "--bundle", "km"]
        script += ["--sample", "lake"]
        subprocess.run(script, cwd=work, env=os.environ | SLURM | part, check=True)
    merge = "virnucpro merge lake/part-* -o lake/run --prefix lake"
    subprocess.run(["bash", "-ec", merge], cwd=work, env=os.environ | {"PATH": path}, check=True)
    expect_results(work / "lake" / "run", expected)


@pytest.mark.slow
def test_a_job_with_a_cluster_of_its_own(work):
    """srun starts one worker here, where Slurm starts one a task."""
    expected = undivided(work)
    dask = f'exec {sys.executable} -m dask "$@"'
    path = programs(work / "bin", virnucpro=OURS, dask=dask, srun='exec "$@"')
    script = ["bash", WORKFLOWS / "cluster.slurm", "in.fa", "lake", "--bundle", "km"]
    script += ["--sample", "lake", "--prefix", "lake"]
    environment = os.environ | {"SLURM_JOB_ID": "77", "PATH": path}
    subprocess.run(script, cwd=work, env=environment, check=True, timeout=100)
    expect_results(work / "lake", expected)
    assert not list(work.glob("scheduler-*.json"))


@pytest.mark.parametrize(("ending", "code", "again"), [(143, 143, True), (0, 0, False)])
@pytest.mark.parametrize("name", ["virnucpro.slurm", "parts.slurm"])
def test_the_array_job_passes_the_signal_on(tmp_path, name, ending, code, again):
    """A stub stands for the program: only the script is looked at."""
    (tmp_path / "files.txt").write_text("\nin.fa\n")
    path = programs(
        tmp_path / "bin",
        virnucpro=f"trap 'exit {ending}' TERM\ntouch began\nwhile :; do sleep 0.05; done",
        scontrol='echo "$@" > requeued',
    )
    environment = os.environ | SLURM | {"PATH": path, "SLURM_ARRAY_TASK_COUNT": "3"}
    script = ["bash", WORKFLOWS / name, "in.fa", "results"]
    with subprocess.Popen(script, cwd=tmp_path, env=environment) as process:
        while not (tmp_path / "began").exists():
            assert process.poll() is None
        process.send_signal(signal.SIGTERM)
        assert process.wait(20) == code
    assert (tmp_path / "requeued").exists() == again
    if again:
        assert (tmp_path / "requeued").read_text() == "requeue 77_2\n"
