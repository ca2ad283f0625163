"""virnucpro cite says what CITATION.cff says."""

import json
import os
import re
import subprocess

import pytest

from command import virnucpro
from conftest import REPOSITORY
from made_runs import Chunk, made_run
from virnucpro import __version__
from virnucpro.report import citation
from virnucpro.storage.lock import Lock

CFF = (REPOSITORY / "CITATION.cff").read_text("utf-8")


def test_the_facts_are_those_of_the_file():
    folded = " ".join(CFF.split())
    assert f"title: >- {citation.ARTICLE_TITLE} " in folded
    people = re.findall(r"\{family-names: (.*), given-names: (.*)\}", CFF)
    assert tuple(people) == citation.ARTICLE_AUTHORS
    for name, value in (
        ("journal", citation.JOURNAL),
        ("volume", citation.VOLUME),
        ("issue", citation.ISSUE),
        ("year", citation.YEAR),
        ("doi", citation.DOI),
    ):
        assert re.findall(rf"^    {name}: (.*)$", CFF, re.MULTILINE) == [str(value)]
    assert re.findall(r"^version: (.*)$", CFF, re.MULTILINE) == [__version__]
    assert f"- name: {citation.PROGRAM}" in CFF


def entries(bibtex: str) -> dict[str, dict[str, str]]:
    """Fields by entry of BibTeX with a field a line."""
    assert bibtex.count("{") == bibtex.count("}")
    parts = re.findall(r"@(\w+)\{\w+,\n(.*?)\n\}\n", bibtex, re.DOTALL)
    return {
        kind: dict(re.findall(r"^  (\w+) *= \{(.*)\},?$", body, re.MULTILINE))
        for kind, body in parts
    }


def test_bibtex_alone_can_be_redirected():
    done = virnucpro("cite", "--bibtex")
    assert (done.code, done.err) == (0, "")
    found = entries(done.out)
    assert found["software"]["version"] == __version__
    article = found["article"]
    assert article["author"].startswith("Li, Jing and Mi, Jia and ")
    assert article["author"].count(" and ") == len(citation.ARTICLE_AUTHORS) - 1
    assert article["title"] == f"{{{citation.ARTICLE_TITLE}}}"
    assert (article["doi"], article["pages"]) == ("10.1093/bib/bbaf224", "bbaf224")


def test_a_paragraph_with_and_without_a_run(tmp_path):
    done = virnucpro("cite")
    assert (done.code, done.err) == (0, "")
    assert done.out.startswith("Sequences were classified as viral or other with virnucpro")
    assert "doi:10.1093/bib/bbaf224" in done.out
    assert entries(done.out).keys() == {"software", "article"}
    made_run(tmp_path, [("a", [Chunk()])])
    of_run = virnucpro("cite", tmp_path)
    assert (of_run.code, of_run.err) == (0, "")
    assert "its bundle mini-500-v2 (sha256 " in of_run.out
    assert virnucpro("cite", tmp_path / "none").error.endswith(
        "there is no such folder; name the run directory of predict"
    )


@pytest.mark.parametrize("status", ["failed", "interrupted"])
def test_of_a_run_that_did_not_finish_nothing_is_written(tmp_path, status):
    made_run(tmp_path, [("a", [Chunk()])], status=status, error="the disk is full")
    done = virnucpro("cite", tmp_path)
    assert (done.code, done.out) == (1, "")
    assert "run.json: this run is not finished" in done.error


@pytest.mark.parametrize("command", ["report", "cite"])
@pytest.mark.parametrize("hidden", [".virnucpro", ".lake.virnucpro"])
def test_of_a_run_at_work_there_is_nothing_to_show_yet(tmp_path, command, hidden):
    lock = Lock(tmp_path / hidden)
    done = virnucpro(command, tmp_path)
    assert (done.code, done.out) == (1, "")
    assert f"a run is at work here, process {os.getpid()} on " in done.error
    assert done.error.endswith("; wait for its end")
    made_run(tmp_path, [("a", [Chunk()])], prefix=hidden.removesuffix(".virnucpro").strip("."))
    assert "a run is at work here, process" in virnucpro(command, tmp_path).error
    lock.check()  # looking has taken nothing
    lock.release()
    assert virnucpro(command, tmp_path).code == 0


@pytest.mark.parametrize("command", ["report", "cite"])
def test_of_a_run_that_was_killed_it_is_said_that_it_was_stopped(tmp_path, command):
    with subprocess.Popen(["sleep", "9"]) as gone:
        gone.kill()
    lock = tmp_path / ".virnucpro" / "lock"
    lock.parent.mkdir()
    holder = {"host": os.uname().nodename, "pid": gone.pid, "started": "then"}
    for text in (json.dumps(holder), ""):
        lock.write_text(text)
        done = virnucpro(command, tmp_path)
        assert (done.code, "was stopped before it had results" in done.error) == (1, True)
    lock.write_text(json.dumps(holder | {"host": "another"}))  # nobody knows
    done = virnucpro(command, tmp_path)
    assert "on another since then; wait for its end; if it was stopped there, give" in done.error
    made_run(tmp_path, [("a", [Chunk()])])
    assert virnucpro(command, tmp_path).code == 0
