"""The documentation: its commands run, its options exist, its pages build."""

import doctest
import os
import re
import shlex
import shutil
import subprocess
import sys
from pathlib import Path

import click
import pytest

from conftest import REPOSITORY
from virnucpro.cli import program

DOCS = REPOSITORY / "docs"
PAGES = sorted(DOCS.glob("*.md"))
RUNS = re.compile(r"^<!-- runs(?:: exit (\d))? -->\n```sh\n(.*?)^```$", re.MULTILINE | re.DOTALL)
TEXTS = [
    *PAGES,
    REPOSITORY / "README.md",
    REPOSITORY / "recipes" / "README.md",
    *sorted((REPOSITORY / "recipes" / "workflows").iterdir()),
]


@pytest.fixture
def here(tmp_path, monkeypatch) -> Path:
    """A folder with the examples, in which `virnucpro` is this program."""
    monkeypatch.chdir(tmp_path)
    shutil.copytree(REPOSITORY / "examples", tmp_path / "examples")
    (tmp_path / "bin").mkdir()
    compat = str(REPOSITORY / "recipes" / "compat" / "virnucpro_cli.py")
    for name, words in (("virnucpro", ["-m", "virnucpro"]), ("virnucpro-compat", [compat])):
        script = tmp_path / "bin" / name
        script.write_text(f'#!/bin/sh\nexec {shlex.join([sys.executable, *words])} "$@"\n')
        script.chmod(0o755)
    monkeypatch.setenv("PATH", f"{tmp_path / 'bin'}{os.pathsep}{os.environ['PATH']}")
    return tmp_path


RUNNING = [page for page in PAGES if RUNS.search(page.read_text("utf-8"))]


def test_nothing_is_installed_from_where_it_is_not():
    """The package is not on PyPI: not in a page, and not in a sentence or the help."""
    sources = (REPOSITORY / "src" / "virnucpro").rglob("*.py")
    for path in (*TEXTS, *(REPOSITORY / "recipes").glob("Dockerfile*"), *sources):
        for command in re.findall(r"pip3? install [^\n`&]*", path.read_text("utf-8")):
            assert not re.search(r"[ '\"]virnucpro\b(?!-)", command), (path, command)


def test_there_are_commands_that_run():
    assert {page.stem for page in RUNNING} >= {"quickstart", "bundles", "migrating", "workflows"}


@pytest.mark.slow
@pytest.mark.parametrize("page", RUNNING, ids=lambda page: page.stem)
def test_the_commands_of_a_page_run(here, page):
    text = page.read_text("utf-8")
    for code, commands in RUNS.findall(text):
        done = subprocess.run(
            ["bash", "-euo", "pipefail", "-c", commands],
            capture_output=True,
            text=True,
            check=False,
            timeout=300,
        )
        assert done.returncode == int(code or 0), f"{commands}\n{done.stdout}\n{done.stderr}"
    if page.stem == "migrating":
        examples = doctest.testfile(str(page), module_relative=False)
        assert (examples.failed, examples.attempted > 5) == (0, True)


def commands_in(text: str) -> list[list[str]]:
    """The words of every command of ours, with its lines joined."""
    text = re.sub(r"[ \t]*\\\n\s*", " ", text)
    found = re.findall(r"(?:^[ ]*|`|&& |\()(virnucpro [a-z][^`\n#|>&]*)", text, re.MULTILINE)
    return [re.findall(r"\S+", command)[1:] for command in found]


def command_of(words: list[str]) -> tuple[click.Command, list[str]]:
    found: click.Command = program
    while isinstance(found, click.Group) and words:
        name, *words = words
        if name not in found.commands:
            return found, [name]
        found = found.commands[name]
    return found, words


def check_options(words: list[str]) -> None:
    command, rest = command_of(words)
    if isinstance(command, click.Group):
        assert not rest or "|" in " ".join(words), words
    known = {name for p in command.params for name in (*p.opts, *p.secondary_opts)} | {"--help"}
    for word in rest:
        if re.fullmatch(r"--[a-z-]+|-[a-z]", word):
            assert word in known, " ".join(words)


@pytest.mark.parametrize("path", TEXTS, ids=lambda path: path.name)
def test_the_options_of_every_command_exist(path):
    for words in commands_in(path.read_text("utf-8")):
        check_options(words)


def commands_under(group: click.Group):
    for command in group.commands.values():
        yield from commands_under(command) if isinstance(command, click.Group) else (command,)


@pytest.mark.parametrize("command", [*commands_under(program)], ids=lambda command: command.name)
def test_the_examples_of_the_help_are_right(command):
    assert "\\" not in command.help.replace("\\\n", "")
    for words in commands_in(command.help.replace("\b", "")):
        check_options(words)


def test_every_command_is_looked_at():
    assert sum(len(commands_in(path.read_text("utf-8"))) for path in TEXTS) > 50


@pytest.mark.parametrize("words", ["predict x --treshold 1", "bundles fetch x", "predikt x"])
def test_what_is_no_command_or_option_is_found(words):
    with pytest.raises(AssertionError):
        check_options(words.split())


@pytest.mark.slow
def test_the_site_builds_without_a_warning(tmp_path):
    pytest.importorskip("mkdocs", reason="the extra docs is not installed")
    pytest.importorskip("material", reason="the extra docs is not installed")
    command = [sys.executable, "-W", "ignore", "-m", "mkdocs", "build", "--strict", "--quiet"]
    config = REPOSITORY / "mkdocs.yml"
    done = subprocess.run(
        [*command, "--config-file", config, "--site-dir", tmp_path / "site"],
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    for page in PAGES:
        built = "index.html" if page.stem == "index" else f"{page.stem}/index.html"
        html = (tmp_path / "site" / built).read_text("utf-8")
        assert "fonts.googleapis" not in html


# Of click, and of Rust, in which the tokenizer is written.
NOT_OURS = {"Usage:", "memory allocation of ... bytes failed"}


def test_messages_that_troubleshooting_explains_are_there():
    sources = "".join(p.read_text("utf-8") for p in sorted((REPOSITORY / "src").rglob("*.py")))
    sources = re.sub(r'"\s*\n\s*f?"', "", sources)  # a literal goes on in the next line
    table = (DOCS / "troubleshooting.md").read_text("utf-8")
    symptoms = re.findall(r"^\| (.*?) \|", table, re.MULTILINE)
    messages = {text for each in symptoms for text in re.findall(r"`([^`]+)`", each)} - NOT_OURS
    assert len(messages) > 5
    for message in messages:
        for part in message.split("..."):
            assert part.strip() in sources, message
