"""Workflows: their syntax, and what schedulers rely on, tried with the real program."""

import gzip
import os
import shutil
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from command import made_bundle, virnucpro
from conftest import REPOSITORY
from open_folder import open_folder

WORKFLOWS = REPOSITORY / "recipes" / "workflows"


@pytest.fixture
def work(tmp_path) -> Path:
    return open_folder(tmp_path)


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
    if not (work / "km").exists():
        made_bundle(work / "km", block_nt=1_000)
    words = ["in.fa", "-o", "run", "--bundle", "km", "--sample", "lake", "--prefix", "lake"]
    words += ["--rerun"]
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
    command = ["snakemake", "--snakefile", WORKFLOWS / "parts.smk", "--cores", "1", wanted]
    environment = os.environ | {"PATH": programs(work / "bin", virnucpro=OURS)}

    def ends(parts: int) -> None:
        done = subprocess.run(
            [*command, "--config", "virnucpro_bundle=km", f"virnucpro_parts={parts}"],
            cwd=work,
            env=environment,
            capture_output=True,
            text=True,
            check=False,
        )
        assert done.returncode == 0, done.stderr

    ends(3)
    expect_results(work / "results" / "lake", expected)
    other = (work / "in.fa").read_bytes().replace(b"ACG", b"AGC")
    (work / "in.fa").write_bytes(other)
    (work / "reads" / "lake.fastq.gz").write_bytes(gzip.compress(other))
    expected = undivided(work)
    ends(2)
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
    """srun starts one worker here, where Slurm starts one a task. The log has no traceback."""
    expected = undivided(work)
    dask = f'exec {sys.executable} -m dask "$@"'
    path = programs(work / "bin", virnucpro=OURS, dask=dask, srun='exec "$@"')
    script = ["bash", WORKFLOWS / "cluster.slurm", "in.fa", "lake", "--bundle", "km"]
    script += ["--sample", "lake", "--prefix", "lake"]
    environment = os.environ | {"SLURM_JOB_ID": "77", "PATH": path}
    with (work / "log").open("wb") as log:
        subprocess.run(script, cwd=work, env=environment, check=True, timeout=100, stderr=log)
    expect_results(work / "lake", expected)
    said = (work / "log").read_text()
    assert "Traceback" not in said, said
    assert said.index("End worker") < said.index("End scheduler")
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
