"""What a release consists of: the recipe for bioconda, and what is checked of a wheel."""

import importlib.util
import re
import sys
import tomllib
from pathlib import Path
from zipfile import ZipFile

import pytest
from jinja2 import Environment, StrictUndefined

from conftest import REPOSITORY
from virnucpro import __version__

RECIPES = REPOSITORY / "recipes"
BIOCONDA = RECIPES / "bioconda" / "meta.yaml"
PYPROJECT = tomllib.loads((REPOSITORY / "pyproject.toml").read_text("utf-8"))
PROJECT, BUILD = PYPROJECT["project"], PYPROJECT["build-system"]


@pytest.fixture(scope="module")
def release():
    spec = importlib.util.spec_from_file_location("release_recipe", RECIPES / "release.py")
    module = importlib.util.module_from_spec(spec)
    sys.modules["release_recipe"] = module
    spec.loader.exec_module(module)
    return module


@pytest.fixture(scope="module")
def meta(release) -> dict:
    """The recipe as conda-build reads it: a template of Jinja, then YAML."""
    yaml = pytest.importorskip("yaml")
    text = BIOCONDA.read_text("utf-8")
    filled = release.recipe(text, "ab" * 32, "https://example.org/v/", "someone")
    assert "@" not in re.sub(r"^#.*$", "", filled, flags=re.MULTILINE)
    template = Environment(undefined=StrictUndefined).from_string(filled)
    rendered = template.render(
        PYTHON="python", pin_subpackage=lambda name, max_pin: f"{name} pinned to {max_pin}"
    )
    return yaml.safe_load(rendered)


def test_the_recipe_has_what_bioconda_asks_for(meta):
    assert meta["package"] == {"name": "virnucpro", "version": __version__}
    assert meta["source"]["sha256"] == "ab" * 32
    assert meta["source"]["url"].endswith(f"/virnucpro-{__version__}.tar.gz")
    assert meta["extra"] == {
        "recipe-maintainers": ["someone"],
        "identifiers": ["doi:10.1093/bib/bbaf224"],
    }
    assert meta["about"]["dev_url"] == "https://example.org/v"
    assert meta["about"]["license"] == PROJECT["license"]
    assert meta["about"]["license_file"] == PROJECT["license-files"]
    assert all((REPOSITORY / name).exists() for name in PROJECT["license-files"])
    entries = dict(entry.split(" = ") for entry in meta["build"]["entry_points"])
    assert entries == PROJECT["scripts"]
    assert meta["build"]["noarch"] == "python"
    assert meta["build"]["run_exports"] == ["virnucpro pinned to x.x"]
    assert {"virnucpro doctor", "virnucpro --version"} <= {*meta["test"]["commands"]}


def test_the_recipe_needs_what_the_package_needs(meta):
    python = f"python{PROJECT['requires-python']}"
    assert as_conda([python, *PROJECT["dependencies"]]) == meta["requirements"]["run"]
    assert as_conda([python, "pip", *BUILD["requires"]]) == meta["requirements"]["host"]


def as_conda(requirements: list[str]) -> list[str]:
    """Requirements in conda's form, under conda's names."""
    names = {"torch": "pytorch"}
    parts = (re.fullmatch(r"([\w.-]+)([^;]*)(?:;.*)?", each).groups() for each in requirements)
    return [f"{names.get(name, name)} {version.strip()}".strip() for name, version in parts]


def test_a_recipe_without_a_place_for_the_sum_is_an_error(release):
    with pytest.raises(ValueError, match="no @SHA256@ any more"):
        release.recipe("sha256: 1", "2", "3", "4")


def wheel(path: Path, **files: str) -> Path:
    with ZipFile(path, "w") as archive:
        for name, text in files.items():
            archive.writestr(name, text)
    return path


def test_faults_of_a_wheel(release, tmp_path, monkeypatch):
    meta = {
        "v.dist-info/entry_points.txt": "[console_scripts]\na = b:c\n",
        "v.dist-info/licenses/LICENSE": "MIT",
    }
    good = wheel(tmp_path / "good.whl", **{"v/x.py": "", **meta})
    assert release.faults(good, ["v/x.py"], ["a"]) == []
    assert release.faults(good, ["v/x.py", "v/y.py"], ["a"]) == ["v/y.py is missing"]
    assert release.faults(good, [], ["a"]) == ["v/x.py is no file of the package"]
    assert release.faults(good, ["v/x.py"], ["a", "b"]) == ["command b is missing"]
    bare = wheel(tmp_path / "bare.whl", **{"v/x.py": ""})
    assert "the licence is missing" in release.faults(bare, ["v/x.py"], [])
    monkeypatch.setattr(release, "LARGEST_BYTES", 10)
    assert "more than 10" in release.faults(good, ["v/x.py"], ["a"])[0]


def test_the_first_command_is_that_of_the_readme(release):
    readme = (REPOSITORY / "README.md").read_text("utf-8")
    assert release.first_command(readme).startswith("virnucpro predict examples/")
    with pytest.raises(ValueError, match="no line"):
        release.first_command("pip install virnucpro")
