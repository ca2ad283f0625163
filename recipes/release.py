"""Builds what a release consists of, and tries it as a user would. Uploads nothing.

    python recipes/release.py OUT [--repository URL --maintainer GITHUB_NAME]

Needs build and twine. In OUT: sdist and wheel, checked by twine; the wheel holds every file of
src/virnucpro and nothing else, and is installed into a new environment, where the first command of
README.md runs outside the repository, on the example of the sdist. Then the address and sha256 of
the sdist are printed; with --repository and --maintainer, OUT/meta.yaml is the recipe for bioconda.
"""

import argparse
import hashlib
import os
import re
import shutil
import subprocess
import sys
import tarfile
import tempfile
import tomllib
import venv
from collections.abc import Iterable
from pathlib import Path
from zipfile import ZipFile

ROOT = Path(__file__).resolve().parents[1]
RECIPE = ROOT / "recipes" / "bioconda" / "meta.yaml"
LARGEST_BYTES = 20 * 10**6  # of PyPI's 100 MB; the embedded bundles take most
FIRST = re.compile(r"^    pip install \. && (virnucpro predict .*)$", re.MULTILINE)


def call(*words: object, cwd: Path | None = None) -> str:
    """The standard output of a command, without this repository on Python's path."""
    print("+", *words, flush=True)
    environment = {name: value for name, value in os.environ.items() if name != "PYTHONPATH"}
    command = [str(word) for word in words]
    return subprocess.run(
        command, cwd=cwd, env=environment, check=True, stdout=subprocess.PIPE, text=True
    ).stdout


def build(out: Path) -> tuple[Path, Path]:
    """The sdist and the wheel, made in an empty folder."""
    call(sys.executable, "-m", "build", "--outdir", out, ROOT)
    (sdist,), (wheel,) = out.glob("*.tar.gz"), out.glob("*.whl")
    call(sys.executable, "-m", "twine", "check", "--strict", sdist, wheel)
    return sdist, wheel


def faults(wheel: Path, sources: Iterable[str], scripts: Iterable[str]) -> list[str]:
    """Return what is wrong with a wheel, a sentence each.

    sources: the files of the package, from src. scripts: names of its commands.
    """
    with ZipFile(wheel) as archive:
        names = {name for name in archive.namelist() if not name.endswith("/")}
        meta = {name for name in names if ".dist-info/" in name}
        entries = [archive.read(n).decode() for n in meta if n.endswith("entry_points.txt")]
    found = [f"{name} is missing" for name in sorted({*sources} - names)]
    found += [f"{name} is no file of the package" for name in sorted(names - meta - {*sources})]
    if not any("/licenses/" in name for name in meta):
        found.append("the licence is missing")
    lines = "".join(entries).splitlines()
    found += [
        f"command {s} is missing" for s in scripts if not any(s == x.split(" ")[0] for x in lines)
    ]
    size = wheel.stat().st_size
    if size > LARGEST_BYTES:
        found.append(f"it has {size:,} bytes, more than {LARGEST_BYTES:,}")
    return found


def try_out(sdist: Path, wheel: Path, folder: Path) -> None:
    """Install the wheel in a new environment and run README's first command there."""
    environment = folder / "venv"
    venv.create(environment, with_pip=True)
    programs = environment / "bin"
    call(programs / "pip", "install", "--quiet", "--disable-pip-version-check", wheel)
    with tarfile.open(sdist) as tar:
        tar.extractall(folder, filter="data")
    source = folder / sdist.name.removesuffix(".tar.gz")
    work = folder / "work"
    work.mkdir()
    shutil.copytree(source / "examples", work / "examples")
    program, *words = first_command((source / "README.md").read_text("utf-8")).split()
    call(programs / program, *words, cwd=work)
    rows = (work / words[-1] / "contigs.tsv").read_text("utf-8").splitlines()
    print(
        f"{len(rows) - 1} records in contigs.tsv; {call(programs / program, '--version').strip()}"
    )
    print(call(programs / "virnucpro-compat", "--version").strip())


def first_command(readme: str) -> str:
    """Return the first command of README.md, behind the installation. Raises ValueError."""
    found = FIRST.search(readme)
    if found is None:
        raise ValueError("README.md has no line `pip install . && virnucpro predict ...` any more")
    return found[1]


def recipe(text: str, sha256: str, repository: str, maintainer: str) -> str:
    """Return the recipe for bioconda with what only a release knows. Raises ValueError."""
    values = {"SHA256": sha256, "REPOSITORY": repository.rstrip("/"), "MAINTAINER": maintainer}
    for name, value in values.items():
        if f"@{name}@" not in text:
            raise ValueError(f"{RECIPE.name} has no @{name}@ any more")
        text = text.replace(f"@{name}@", value)
    return text


def main() -> None:
    parser = argparse.ArgumentParser(description="Builds and tries a release; uploads nothing.")
    parser.add_argument("out", type=Path, help="a new folder")
    parser.add_argument("--repository", help="address of the source code, for the recipe")
    parser.add_argument("--maintainer", help="GitHub name of who answers for the recipe")
    given = parser.parse_args()
    if (given.repository is None) != (given.maintainer is None):
        parser.error("--repository and --maintainer go together")
    given.out.mkdir(parents=True)
    sdist, wheel = build(given.out)
    tracked = call("git", "ls-files", "src/virnucpro", cwd=ROOT).splitlines()
    project = tomllib.loads((ROOT / "pyproject.toml").read_text("utf-8"))["project"]
    sources = [name.removeprefix("src/") for name in tracked]
    if wrong := faults(wheel, sources, project["scripts"]):
        sys.exit(f"{wheel}: {'; '.join(wrong)}")
    print(f"{wheel.name}: {len(sources)} files, {wheel.stat().st_size:,} bytes")
    with tempfile.TemporaryDirectory() as folder:
        try_out(sdist, wheel, Path(folder))
    sha256 = hashlib.sha256(sdist.read_bytes()).hexdigest()
    print(f"url: https://pypi.org/packages/source/v/virnucpro/{sdist.name}")
    print(f"sha256: {sha256}")
    if given.repository is not None:
        text = recipe(RECIPE.read_text("utf-8"), sha256, given.repository, given.maintainer)
        (given.out / RECIPE.name).write_text(text, "utf-8")


if __name__ == "__main__":
    main()
