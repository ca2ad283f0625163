"""The command lines of the workflows, run as the engines give them: twice, and with odd names."""

import gzip
import os
import re
import shlex
import subprocess
import sys
from pathlib import Path

import pytest

from command import dna, fasta, made_bundle, table

WORKFLOWS = Path(__file__).resolve().parents[1] / "recipes" / "workflows"


class Quoted(str):
    """A value as Snakemake puts it into a command; with :q quoted for a shell."""

    def __format__(self, spec: str) -> str:
        return shlex.quote(self) if spec == "q" else str(self)


class Values:
    def __init__(self, **values: str) -> None:
        self.__dict__ = {name: Quoted(value) for name, value in values.items()}


@pytest.fixture
def here(tmp_path, monkeypatch) -> Path:
    """A working directory, and a PATH with the program on it."""
    monkeypatch.chdir(tmp_path)
    made_bundle(tmp_path / "km")
    (tmp_path / "bin").mkdir()
    program = tmp_path / "bin" / "virnucpro"
    program.write_text(f'#!/bin/sh\nexec "{sys.executable}" -m virnucpro "$@"\n')
    program.chmod(0o755)
    monkeypatch.setenv("PATH", f"{tmp_path / 'bin'}:{os.environ['PATH']}")
    return tmp_path


def ran(command: str) -> None:
    done = subprocess.run(["bash", "-c", command], capture_output=True, check=False, timeout=100)
    assert done.returncode == 0, (command, done.stderr)


def put(path: str, records: int) -> None:
    Path(path).parent.mkdir(parents=True, exist_ok=True)
    text = fasta([(f"r{i}", dna(300, i)) for i in range(records)])
    Path(path).write_bytes(gzip.compress(text) if path.endswith(".gz") else text)


def snakemake(sample: str) -> str:
    """The shell command of the rule for a sample."""
    rule = (WORKFLOWS / "Snakefile").read_text()
    shell = "".join(re.findall(r'"(.*)"', rule.partition("shell:")[2]))
    journal, out = (re.search(rf'{name}=.*?"(.*)"', rule)[1] for name in ("journal", "out"))
    wildcards = Values(sample=sample)
    return shell.format(
        input=Quoted(f"reads/{sample}.fastq.gz"),
        wildcards=wildcards,
        params=Values(
            out=out.replace("{sample}", sample),
            bundle="km",
            journal=journal.format(wildcards=wildcards),
        ),
        threads=1,
        log=Quoted(f"{sample}.log"),
    )


@pytest.mark.parametrize("sample", ["lake", "a lake's $1 & more", "lake.1"])
def test_snakemake_runs_again_when_an_input_has_changed(here, sample):
    for records in (3, 2):
        put(f"reads/{sample}.fastq.gz", records)
        ran(snakemake(sample))
        found = Path("results") / sample / f"{sample}.contigs.tsv"
        assert len(table(found)) == records
        found.unlink()  # as Snakemake does before it runs a rule again


@pytest.mark.parametrize("reads", ["./in.fa", "../up/in put.fastq.gz", "a.b/s.1.fq.gz"])
def test_the_array_job_takes_paths_with_dots_and_blanks(here, reads, monkeypatch):
    (here / "work").mkdir()
    monkeypatch.chdir(here / "work")
    Path("files.txt").write_text(f"{reads}\n")
    environment = {
        "SLURM_ARRAY_TASK_ID": "1",
        "SLURM_ARRAY_JOB_ID": "7",
        "SLURM_CPUS_PER_TASK": "1",
    }
    for name, value in environment.items():
        monkeypatch.setenv(name, value)
    sample = {"./in.fa": "in", "../up/in put.fastq.gz": "in put", "a.b/s.1.fq.gz": "s.1"}[reads]
    for records in (3, 2):
        put(reads, records)
        ran(f"bash {shlex.quote(str(WORKFLOWS / 'virnucpro.slurm'))}")
        assert len(table(Path("results") / sample / f"{sample}.contigs.tsv")) == records


@pytest.mark.parametrize("pair", [False, True])
def test_nextflow_gives_a_read_or_a_pair(here, pair):
    """What Groovy puts into the script, of which paths come quoted, is put in here."""
    script = (WORKFLOWS / "virnucpro.nf").read_text().split('"""')[1]
    first, second = "my reads_1.fa", "my reads_2.fa"
    for path in (first, second):
        put(path, 2)
    single = shlex.quote(first)
    values = {
        "inputs": f"{single} --mates {shlex.quote(second)}" if pair else single,
        "sample": "my reads",
        "chosen": "--bundle km",
        "task.cpus": "1",
    }
    for name, value in values.items():
        script = script.replace(f"${{{name}}}", value)
    ran(script.replace("\\\\\n", "\\\n"))
    assert len(table(Path("my reads.contigs.tsv"))) == (4 if pair else 2)
