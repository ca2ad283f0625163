"""What a release consists of: the recipe for bioconda, and what is checked of a wheel."""

import importlib.util
import re
import sys
import tomllib
from pathlib import Path
from zipfile import ZipFile

import pytest

from conftest import REPOSITORY
from virnucpro import __version__

RECIPES = REPOSITORY / "recipes"
BIOCONDA = RECIPES / "bioconda" / "meta.yaml"
PROJECT = tomllib.loads((REPOSITORY / "pyproject.toml").read_text("utf-8"))["project"]


@pytest.fixture(scope="module")
def release():
    spec = importlib.util.spec_from_file_location("release_recipe", RECIPES / "release.py")
    module = importlib.util.module_from_spec(spec)
    sys.modules["release_recipe"] = module
    spec.loader.exec_module(module)
    return module


def test_the_recipe_has_what_bioconda_asks_for(release):
    yaml = pytest.importorskip("yaml")
    text = BIOCONDA.read_text("utf-8")
    assert f'version = "{__version__}"' in text
    filled = release.recipe(text, "ab" * 32, "https://example.org/v/", "someone")
    assert "@" not in re.sub(r"^#.*$", "", filled, flags=re.MULTILINE)
    plain = re.sub(r"^\{%.*$", "", filled, flags=re.MULTILINE)
    plain = plain.replace("{{ name }}", "virnucpro").replace("{{ version }}", __version__)
    found = yaml.safe_load(re.sub(r"\{\{.*?\}\}", "x", plain))
    assert found["source"]["sha256"] == "ab" * 32
    assert found["source"]["url"].endswith(f"/virnucpro-{__version__}.tar.gz")
    assert found["extra"] == {
        "recipe-maintainers": ["someone"],
        "identifiers": ["doi:10.1093/bib/bbaf224"],
    }
    assert found["about"]["dev_url"] == "https://example.org/v"
    entries = dict(entry.split(" = ") for entry in found["build"]["entry_points"])
    assert entries == PROJECT["scripts"]
    assert found["build"]["noarch"] == "python"
    assert not any("torch" in name for name in found["requirements"]["host"])
    assert {"virnucpro doctor", "virnucpro --version"} <= {*found["test"]["commands"]}


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


def test_the_conda_recipe_needs_what_the_package_needs():
    text = BIOCONDA.read_text()
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
