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


def test_snakemake_runs_again_when_an_input_has_changed(here):
    for sample, records in (("a lake's $1 & more", 3), ("lake.1", 3), ("lake.1", 2)):
        put(f"reads/{sample}.fastq.gz", records)
        ran(snakemake(sample))
        found = Path("results") / sample / f"{sample}.contigs.tsv"
        assert len(table(found)) == records
        found.unlink()  # as Snakemake does before it runs a rule again


def test_the_array_job_takes_paths_with_dots_and_blanks(here, monkeypatch):
    (here / "work").mkdir()
    monkeypatch.chdir(here / "work")
    program = here / "bin" / "virnucpro"  # the default bundle needs torch, which takes its time
    program.write_text(program.read_text().replace('"$@"', f'"$@" --bundle "{here / "km"}"'))
    samples = {"in": "./in.fa", "in put": "../up/in put.fastq.gz", "s.1": "a.b/s.1.fq.gz"}
    Path("files.txt").write_text("".join(f"{reads}\n" for reads in samples.values()))
    monkeypatch.setenv("SLURM_ARRAY_JOB_ID", "7")
    monkeypatch.setenv("SLURM_CPUS_PER_TASK", "1")
    for sample, records in (("in", 3), ("in put", 3), ("s.1", 3), ("s.1", 2)):
        put(samples[sample], records)
        monkeypatch.setenv("SLURM_ARRAY_TASK_ID", str(1 + list(samples).index(sample)))
        ran(f"bash {shlex.quote(str(WORKFLOWS / 'virnucpro.slurm'))}")
        assert len(table(Path("results") / sample / f"{sample}.contigs.tsv")) == records


def test_the_array_job_refuses_two_files_of_one_sample_name(here, monkeypatch):
    (here / "work").mkdir()
    monkeypatch.chdir(here / "work")
    Path("files.txt").write_text("a/lake.fastq.gz\na/lake2.fq\nb/lake.fq")
    monkeypatch.setenv("SLURM_ARRAY_TASK_ID", "3")
    words = ["bash", WORKFLOWS / "virnucpro.slurm"]
    done = subprocess.run(words, capture_output=True, text=True, check=False)
    assert (done.returncode, "several files give the sample name lake, and so" in done.stderr) == (
        2,
        True,
    )
    assert not Path("results").exists()


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
