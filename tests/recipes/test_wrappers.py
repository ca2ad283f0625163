"""Modules for nf-core, Snakemake and Galaxy: their form, their options, and runs where they can."""

import re
import shutil
import subprocess
import sys
from pathlib import Path
from xml.etree import ElementTree

import pytest

from command import dna, fasta, run_json, virnucpro
from conftest import REPOSITORY
from virnucpro import __version__
from virnucpro.cli import program
from virnucpro.results.files import RunFiles

RECIPES = REPOSITORY / "recipes"
NF_CORE = RECIPES / "nf-core" / "virnucpro" / "predict"
WRAPPER = RECIPES / "snakemake" / "bio" / "virnucpro" / "predict"
GALAXY = RECIPES / "galaxy"
RUN_FILES = {path.name for path in RunFiles(Path()).public}
KNOWN = {name for option in program.commands["predict"].params for name in option.opts}


def options(text: str) -> set[str]:
    return set(re.findall(r"(?<![\w-])--[a-z][a-z-]*", text))


# nf-core


@pytest.fixture(scope="module")
def module() -> str:
    return (NF_CORE / "main.nf").read_text("utf-8")


def test_the_nextflow_module_has_the_parts_that_nf_core_asks_for(module):
    for part in (
        'tag "$meta.id"',
        "task.ext.when == null || task.ext.when",
        "def args = task.ext.args ?: ''",
        'prefix = task.ext.prefix ?: "${meta.id}"',
        "label 'process_medium'",
        "workflow.containerEngine == 'singularity'",
        "task.accelerator",
        "topic: versions",
        "emit: versions_virnucpro",
        "\n    stub:\n",
    ):
        assert part in module, part
    script = module[module.index("    script:") : module.index("    stub:")]
    assert options(script) <= KNOWN
    assert f"virnucpro:{__version__}--" in module
    for name in ("environment.yml", "environment.gpu.yml"):
        assert f"bioconda::virnucpro={__version__}" in (NF_CORE / name).read_text("utf-8")


def test_the_nextflow_module_gives_files_of_a_run_and_stubs_those_that_must_be_there(module):
    lines = [line for line in module.splitlines() if "emit:" in line and "path(" in line]
    given = {re.search(r'prefix}\.([^"{]+)', line)[1]: "optional" in line for line in lines}
    assert given.keys() <= RUN_FILES
    stub = module[module.index("    stub:") :]
    stubbed = set(re.findall(r"\$\{prefix}\.(\S+)", stub))
    assert stubbed <= RUN_FILES
    assert {name for name, optional in given.items() if not optional} <= stubbed
    assert "${prefix}.virnucpro*_mqc.json" in module
    assert {"virnucpro_mqc.json", "virnucpro_general_mqc.json"} <= stubbed


def test_meta_yml_tells_every_input_and_output(module):
    yaml = pytest.importorskip("yaml")
    meta = yaml.safe_load((NF_CORE / "meta.yml").read_text("utf-8"))
    assert meta["name"] == "virnucpro_predict"
    emitted = set(re.findall(r"emit: (\w+)", module))
    assert meta["output"].keys() == emitted
    for name, channel in meta["output"].items():
        line = next(line for line in module.splitlines() if re.search(rf"emit: {name}\b", line))
        if "path(" in line:
            assert [*channel[0][1]] == [re.search(r'path\("(.*?)"\)', line)[1]]
    assert [*meta["input"][0][1]] == ["sequences"]
    assert [*meta["input"][1]] == ["bundle"]
    assert meta["topics"].keys() == set(re.findall(r"topic: (\w+)", module))


@pytest.mark.parametrize("name", ["main.nf.test", "main.gpu.nf.test"])
def test_nf_tests_have_a_run_and_a_stub(name):
    text = (NF_CORE / "tests" / name).read_text("utf-8")
    assert text.count("{") == text.count("}")
    assert 'tag "virnucpro/predict"' in text
    assert ('tag "gpu"' in text) == ("gpu" in name)
    tests = text.split("\n    test(")[1:]
    assert ['options "-stub"' in test for test in tests].count(True) == 1
    assert len(tests) > 1
    config = re.search(r'config "\./(\S+)"', text)[1]
    assert (NF_CORE / "tests" / config).exists()


# Snakemake


def test_the_wrapper_moves_files_of_a_run():
    text = (WRAPPER / "wrapper.py").read_text("utf-8")
    names = dict(re.findall(r'^    "(\w+)": "(\S+)",$', text, re.MULTILINE))
    assert {*names.values()} <= RUN_FILES
    assert options(text) - {"--{name}"} <= KNOWN
    yaml = pytest.importorskip("yaml")
    meta = yaml.safe_load((WRAPPER / "meta.yaml").read_text("utf-8"))
    assert {name for entry in meta["output"] for name in entry} == names.keys()
    environment = yaml.safe_load((WRAPPER / "environment.yaml").read_text("utf-8"))
    assert environment["dependencies"] == [f"virnucpro ={__version__}"]


@pytest.mark.slow
def test_snakemake_runs_the_wrapper_again_after_its_input_changed(tmp_path, monkeypatch):
    if shutil.which("snakemake") is None:
        pytest.skip("snakemake is not installed")
    here = tmp_path / "test"
    shutil.copytree(WRAPPER / "test", here)
    text = (here / "Snakefile").read_text("utf-8")
    (here / "Snakefile").write_text(
        text.replace('"master/bio/virnucpro/predict"', f'"file://{WRAPPER}"'), "utf-8"
    )
    (tmp_path / "bin").mkdir()
    script = tmp_path / "bin" / "virnucpro"
    script.write_text(f'#!/bin/sh\nexec {sys.executable} -m virnucpro "$@"\n')
    script.chmod(0o755)
    monkeypatch.setenv("PATH", str(script.parent), prepend=":")
    monkeypatch.setenv("PYTHONPATH", str(REPOSITORY / "src"))
    (here / "reads" / "a b.fasta").write_bytes(fasta([("x", dna(700))]))
    targets = ["results/lake.contigs.tsv", "results/a b.contigs.tsv"]
    command = ["snakemake", "--cores", "1", *targets]
    for rows in (3, 1):
        done = subprocess.run(command, cwd=here, capture_output=True, text=True, check=False)
        assert done.returncode == 0, done.stderr
        table = (here / "results" / "lake.contigs.tsv").read_text().splitlines()
        assert len(table) == 1 + rows
        assert table[1].startswith("lake\t")
        (here / "reads" / "lake.fasta").write_bytes(fasta([("other", dna(800, 2))]))
    assert (here / "results" / "a b.html").exists()
    assert not [*here.glob("results/*.run")]


# Galaxy


@pytest.fixture(scope="module")
def tool() -> ElementTree.Element:
    return ElementTree.parse(GALAXY / "virnucpro.xml").getroot()


def test_the_galaxy_tool_gives_files_of_a_run(tool):
    places = [data.get("from_work_dir") for data in tool.iter("data")]
    assert {place.removeprefix("run/") for place in places} <= RUN_FILES
    assert tool.find("outputs/data[@name='report']").get("format") == "html"
    tokens = {token.get("name"): token.text for token in tool.iter("token")}
    assert tokens["@TOOL_VERSION@"] == __version__


def test_the_galaxy_tool_uses_options_that_exist_and_fails_by_exit_code(tool):
    command = tool.find("command")
    assert command.get("detect_errors") == "exit_code"
    arguments = {p.get("argument") for p in tool.iter("param") if p.get("argument")}
    assert (options(command.text) | arguments) <= KNOWN
    assert "--allow-partial" in arguments
    assert '"\\${GALAXY_SLOTS:-4}"' in command.text
    assert tool.findtext("citations/citation") == "10.1093/bib/bbaf224"


def test_what_the_tests_of_the_galaxy_tool_assert_is_true(tool, tmp_path):
    """A test's own parameters, given to the real program."""
    places = {data.get("name"): data.get("from_work_dir") for data in tool.iter("data")}
    for number, test in enumerate(tool.iter("test")):
        values = {p.get("name"): p.get("value") for p in test.iter("param")}
        run_dir = tmp_path / str(number) / "run"
        flags = ["--bundle", values.get("bundle", "mini-500")]
        flags += ["--threshold", values["threshold"]] if "threshold" in values else []
        done = virnucpro("predict", GALAXY / "test-data" / values["reads"], "-o", run_dir, *flags)
        assert done.code == 0, done.err
        for output in test.iter("output"):
            text = (run_dir.parent / places[output.get("name")]).read_text("utf-8")
            for lines in output.iter("has_n_lines"):
                assert len(text.splitlines()) == int(lines.get("n"))
            for words in output.iter("has_text"):
                assert words.get("text") in text
        assert run_json(run_dir)["counts"]["records"] == 3


@pytest.mark.slow
def test_planemo_finds_no_fault():
    if shutil.which("planemo") is None:
        pytest.skip("planemo is not installed")
    command = ["planemo", "lint", GALAXY / "virnucpro.xml"]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
