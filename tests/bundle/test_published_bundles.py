"""A tiny published model, in the layouts of the real ones, on the real command line."""

import csv
import errno
import json
import os
import re
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest
import tomli_w
import torch
from huggingface_hub import constants

import tolerances
from command import SUPPORT, Finished, dna, fasta, interruptible, run_json, table
from frame_bundles import CLOSED
from published_files import (
    REPOSITORIES,
    REVISIONS,
    catalogue_of,
    git_blob,
    head_of_pickle,
    pickled_heads,
    published_encoders,
)
from server import Manners, refusing, serving
from virnucpro import bundle as bundles
from virnucpro import cli
from virnucpro.bundle import fetch as downloads
from virnucpro.bundle import load
from virnucpro.bundle.assemble import copy_checked
from virnucpro.bundle.catalogue import read_catalogue
from virnucpro.bundle.manifest import Provenance
from virnucpro.bundle.write import BEING_MADE
from virnucpro.chunks import chunk_spans
from virnucpro.cli.completion import bundle_names
from virnucpro.encoders import load_dnabert_s, load_esm2
from virnucpro.errors import BundleError
from virnucpro.frames import open_frames
from virnucpro.storage.lock import Lock

SHARD = "pytorch_model-00001-of-00002.bin"
NAME, ALIAS, CHUNK_NT = "tiny-300-v1", "tiny-300", 300
SETTINGS = ("HF_HOME", "HF_HUB_CACHE", "HF_ENDPOINT", "HF_HUB_OFFLINE", "XDG_CACHE_HOME")


@pytest.fixture(scope="module")
def published(golden, tmp_path_factory) -> Path:
    """What is public, laid out as in a bundle: a head, as wide as both encoders, and these."""
    folder = tmp_path_factory.mktemp("published")
    encoders = published_encoders(golden, folder)
    width = load_dnabert_s(encoders["dnabert_s"]).width + load_esm2(encoders["esm2"]).width
    pickled_heads(folder / "heads", width)
    (folder / "examples.pt").write_bytes((folder / "heads" / "examples.pt").read_bytes())
    (folder / "head.pth").write_bytes((folder / "heads" / "head.pth").read_bytes())
    shutil.rmtree(folder / "heads")
    for part, path in encoders.items():
        path.rename(folder / part)
    return folder


def encoders_of(published: Path) -> dict[str, Path]:
    return {part: published / part for part in ("dnabert_s", "esm2")}


def write_catalogue(
    published: Path, path: Path, url: str = "https://127.0.0.1:9/300_model.pth", **changes
) -> Path:
    head = published / "head.pth"
    path.write_text(tomli_w.dumps(catalogue_of(head, encoders_of(published), url, **changes)))
    return path


@pytest.fixture
def catalogue(published, tmp_path, monkeypatch) -> Path:
    """The tiny model in the place of the real ones: what the package's own list has."""
    path = write_catalogue(published, tmp_path / "catalogue.toml")
    monkeypatch.setattr("virnucpro.bundle.catalogue.CATALOGUE", path)
    return path


@pytest.fixture
def surroundings(tmp_path):
    """An environment with a cache of its own and no setting of the hub but those given."""

    def made(given: dict[str, str]) -> dict[str, str]:
        own = {"VIRNUCPRO_CACHE": str(tmp_path / "cache"), "HOME": str(tmp_path / "home")}
        return {k: v for k, v in os.environ.items() if k not in SETTINGS} | own | given

    return made


@pytest.fixture
def program(catalogue) -> list[str]:
    """The program that knows the tiny model, as a command."""
    return [sys.executable, str(SUPPORT / "other_catalogue.py"), str(catalogue)]


@pytest.fixture
def real(surroundings, program):
    """The program in a process of its own."""

    def run(*arguments, **given) -> Finished:
        done = subprocess.run(
            [*program, *map(str, arguments)],
            env=surroundings(given),
            capture_output=True,
            check=False,
            text=True,
            timeout=120,
        )
        return Finished(done.returncode, done.stdout, done.stderr)

    return run


@pytest.fixture
def command(surroundings, monkeypatch, capsys):
    """The same program in this process, which has loaded torch already."""

    def run(*arguments, **given) -> Finished:
        environment = surroundings(given)
        for name in SETTINGS:
            monkeypatch.delenv(name, raising=False)
        for name, value in environment.items():
            monkeypatch.setenv(name, value)
        # What the hub's library read from the environment when it was imported.
        endpoint = environment.get("HF_ENDPOINT", "https://hub.invalid")
        hub = Path(environment.get("HF_HOME", f"{environment['HOME']}/.cache/huggingface")) / "hub"
        monkeypatch.setattr(constants, "ENDPOINT", endpoint)
        template = endpoint + "/{repo_id}/resolve/{revision}/{filename}"
        monkeypatch.setattr(constants, "HUGGINGFACE_CO_URL_TEMPLATE", template)
        monkeypatch.setattr(constants, "HF_HUB_CACHE", str(hub))
        monkeypatch.setattr(constants, "HF_HUB_OFFLINE", "HF_HUB_OFFLINE" in environment)
        monkeypatch.setattr(downloads, "_FIRST_WAIT_S", 0.001)
        monkeypatch.setattr(sys, "argv", ["virnucpro", *map(str, arguments)])
        capsys.readouterr()
        code = cli._run()
        printed = capsys.readouterr()
        return Finished(code, printed.out, printed.err)

    return run


READS = {
    "long": dna(1_000, 1),
    "open": "GCTAAAGAC" * 40,
    "closed": CLOSED * 30,
    "short": "ACG",
    "letters": "GCNAAAGAC" * 20,
}


@pytest.fixture
def reads(tmp_path) -> Path:
    (tmp_path / "reads.fa").write_bytes(fasta(READS.items()))
    return tmp_path / "reads.fa"


@pytest.fixture(scope="module")
def by_hand(published) -> dict[str, tuple[float, float]]:
    """P(others), P(virus) of every open frame, from encoders and head as published."""
    dnabert_s = load_dnabert_s(published / "dnabert_s")
    esm2 = load_esm2(published / "esm2")
    head = head_of_pickle(published / "head.pth")
    found = {}
    for name, sequence in READS.items():
        for k, (start, end) in enumerate(chunk_spans(len(sequence), CHUNK_NT), 1):
            for frame in open_frames(sequence[start:end]):
                parts = dnabert_s.embed([frame.nucleotides]), esm2.embed([frame.protein])
                row = head.probabilities(np.concatenate(parts, axis=1))[0]
                found[f"{name}_chunk_{k}{frame.name}"] = (float(row[0]), float(row[1]))
    assert len(found) > 8
    return found


def check_run(wanted: dict[str, tuple[float, float]], run_dir: Path) -> None:
    """The tables hold what the published method says of these reads."""
    with (run_dir / "prediction_results.txt").open() as file:
        rows = {row["Sequence_ID"]: row for row in csv.DictReader(file, delimiter="\t")}
    assert rows.keys() == wanted.keys()
    for name, (others, virus) in wanted.items():
        row = rows[name]
        assert abs(float(row["score1"]) - others) <= tolerances.FRAMES_FP32
        assert abs(float(row["score2"]) - virus) <= tolerances.FRAMES_FP32
        assert row["Prediction"] == ("virus" if virus > others else "others")
    calls = table(run_dir / "calls.tsv")
    for call in calls:
        ours = f"{call['contig']}_chunk_{call['chunk']}"
        frames = [n.removeprefix(ours) for n in wanted if n.startswith(f"{ours}F")]
        frames += [n.removeprefix(ours) for n in wanted if n.startswith(f"{ours}R")]
        assert call["frames"] == ",".join(frames)
        assert call["status"] == ("ok" if frames else "no_open_frame")
        assert (call["call"] == "none") is not bool(frames)
        if frames:
            others = max(wanted[ours + frame][0] for frame in frames)
            virus = max(wanted[ours + frame][1] for frame in frames)
            assert call["call"] == ("virus" if virus >= others else "others")
            assert abs(float(call["p_virus"]) - virus / (virus + others)) <= 2e-6
    assert {call["status"] for call in calls} == {"ok", "no_open_frame"}
    assert run_json(run_dir)["bundle"]["chunk_nt"] == CHUNK_NT


# download --from, and what follows it


def test_from_a_folder_to_calls(published, by_hand, catalogue, command, real, reads, tmp_path):
    """The way of a machine without network, from the first command to the last."""
    listed = command("bundles", "list")
    assert f"{NAME}  {ALIAS}" in " ".join(listed.out.split()).replace(" ", "  ")
    assert "to fetch" in listed.out
    shown = command("bundles", "show", ALIAS).out
    for words in ("licence of esm2", "origin of dnabert_s", "licence of the head", "1" * 40):
        assert words in shown

    done = real("bundles", "download", ALIAS, "--from", published, HF_HUB_OFFLINE="1")
    assert done.code == 0, done.err
    assert done.out == ""
    for words in ("licence of esm2", "origin of dnabert_s", "licence of the head", "goes to"):
        assert words in done.err
    assert re.search(r"pytorch_model.bin +\d\.\d +[0-9a-f]{64}\s", done.err)  # not folded
    listed = command("bundles", "list").out
    row, _described = [line for line in listed.splitlines() if NAME in line]
    assert ALIAS in row
    assert "downloaded" in row
    assert [item.value for item in bundle_names(None, None, "tiny")] == [ALIAS, NAME]
    shown = command("bundles", "show", ALIAS).out
    assert "licence of esm2" in shown
    for file in ("esm2/pytorch_model-00001-of-00002.bin", "head.safetensors"):
        assert re.search(rf"{file} +0\.\d{{3}}\s", shown)
        assert re.search(rf"{file} +[0-9a-f]{{64}}\s", shown)  # in a second part, at 100 columns
    checked = real("bundles", "verify", ALIAS)
    assert checked.code == 0, checked.err
    assert checked.out.count("ok ") == 9
    assert f"{NAME} is whole: 9 files" in checked.out

    done = real("predict", reads, "-o", tmp_path / "run", "--bundle", ALIAS)
    assert done.code == 0, done.err
    check_run(by_hand, tmp_path / "run")
    log = (tmp_path / "run" / "log.txt").read_text()
    assert f"bundle {NAME}, the published VirNucPro model" in log
    again = command("bundles", "download", ALIAS, "--from", tmp_path / "none")
    assert again.code == 0, again.err
    assert "is there already, and whole" in again.err


def test_carried_bundles_are_the_same_bundle(
    published, by_hand, catalogue, command, tmp_path, reads
):
    """Downloaded to a directory, carried, used there, and taken into a cache: one sha256."""
    there, here = tmp_path / "there", tmp_path / "here"
    assert command("bundles", "download", NAME, "--from", published, "--to", there).code == 0
    assert sorted(path.name for path in there.iterdir()) == [
        "bundle.toml", "dnabert_s", "esm2", "head.pth", "head.safetensors",
    ]  # fmt: skip
    assert not any(path.is_symlink() for path in there.rglob("*"))
    there.rename(here)
    assert command("bundles", "verify", here).code == 0
    done = command("predict", reads, "-o", tmp_path / "run", "--bundle", here)
    assert done.code == 0, done.err
    check_run(by_hand, tmp_path / "run")
    assert command("bundles", "download", NAME, "--from", here).code == 0
    cached = tmp_path / "cache" / "bundles" / NAME
    assert load(cached).sha256 == load(here).sha256
    # A whole cache can be moved.
    (tmp_path / "cache").rename(tmp_path / "moved")
    assert load(tmp_path / "moved" / "bundles" / NAME).classifier().name == NAME


def broken_copy(published: Path, folder: Path, name: str, data: bytes | None) -> Path:
    """The published files, one of which is damaged or missing."""
    shutil.copytree(published, folder)
    (folder / name).unlink()
    if data is not None:
        (folder / name).write_bytes(data)
    return folder


@pytest.mark.parametrize(
    ("name", "words"),
    [
        ("head.pth", "head.pth: its git blob is"),
        ("dnabert_s/pytorch_model.bin", "pytorch_model.bin: it has another sha256"),
        ("dnabert_s/tokenizer.json", "tokenizer.json: it has another sha256"),
        ("esm2/pytorch_model-00002-of-00002.bin", "00002.bin: it has another sha256"),
        ("esm2/config.json", "config.json: it is not the published one: it is not a JSON object"),
    ],
)
def test_a_wrong_file_is_refused_by_name(published, catalogue, command, tmp_path, name, words):
    whole = (published / name).read_bytes()
    flipped = whole[:-3] + bytes([whole[-3] ^ 1]) + whole[-2:]
    if name.endswith("config.json"):
        flipped = whole[:-3]
    folder = broken_copy(published, tmp_path / "flipped", name, flipped)
    done = command("bundles", "download", NAME, "--from", folder)
    assert done.code == 1
    assert words in done.error
    assert load_fails(tmp_path / "cache" / "bundles" / NAME)
    folder = broken_copy(published, tmp_path / "missing", name, None)
    done = command("bundles", "download", NAME, "--from", folder)
    assert done.code == 1
    assert f"{folder / name}: missing" in done.error
    assert "use `virnucpro bundles import` for files from elsewhere" in done.error
    assert not list((tmp_path / "cache").rglob("*.part"))
    folder = broken_copy(published, tmp_path / "cut", name, whole[:-9])
    assert command("bundles", "download", NAME, "--from", folder).code == 1
    # What was right is kept, and the rest follows.
    assert command("bundles", "download", NAME, "--from", published).code == 0


def load_fails(path: Path) -> bool:
    with pytest.raises(BundleError):
        load(path)
    return True


def test_two_downloads_at_once(published, catalogue, command, tmp_path):
    """Also of two models, which may share an encoder."""
    given = ("bundles", "download", NAME, "--from", published)
    other = Lock(tmp_path / "cache" / "bundles" / BEING_MADE)
    assert "another process is making a bundle here" in command(*given).error
    other.remove()
    assert command(*given).code == 0
    assert command("bundles", "verify", NAME).code == 0


def test_a_download_of_which_nothing_came_is_begun_again(published, catalogue, command, tmp_path):
    (tmp_path / "nothing").mkdir()
    given = ("bundles", "download", NAME, "--to", tmp_path / "carried", "--from")
    assert "head.pth: missing" in command(*given, tmp_path / "nothing").error
    assert not list(tmp_path.rglob("*.part"))
    assert load_fails(tmp_path / "carried")
    assert command(*given, published).code == 0


def test_another_config_than_the_published_one(published, catalogue, command, tmp_path):
    config = json.loads((published / "esm2" / "config.json").read_text())
    data = json.dumps({**config, "num_hidden_layers": 7}).encode()
    folder = broken_copy(published, tmp_path / "changed", "esm2/config.json", data)
    done = command("bundles", "download", NAME, "--from", folder)
    assert "num_hidden_layers is 7 instead of" in done.error


def test_an_encoder_that_went_or_changed_is_named(published, catalogue, command, tmp_path, reads):
    assert command("bundles", "download", NAME, "--from", published).code == 0
    cache = tmp_path / "cache"
    shard = next((cache / "encoders").glob("other*/pytorch_model-00001-of-00002.bin"))
    whole = shard.read_bytes()
    shard.write_bytes(whole[:-1] + bytes([whole[-1] ^ 1]))
    done = command("bundles", "verify", NAME)
    assert done.code == 1
    assert f"WRONG {cache / 'bundles' / NAME / 'esm2' / shard.name}: its sha256" in done.out
    assert "pytorch_model-00001-of-00002.bin of bundle tiny-300-v1 is damaged" in done.error
    done = command("predict", reads, "-o", tmp_path / "run", "--bundle", NAME)
    assert done.code == 1
    assert "pytorch_model-00001-of-00002.bin of the encoder esm2 is not what" in done.error
    # Fetching again mends it.
    assert command("bundles", "download", NAME, "--from", published).code == 0
    assert command("bundles", "verify", NAME).code == 0
    shutil.rmtree(cache / "encoders")
    done = command("predict", reads, "-o", tmp_path / "run", "--bundle", NAME)
    assert "the encoder dnabert_s is not there any more" in done.error
    done = command("bundles", "verify", NAME)
    assert done.out.count("WRONG") == 7


# The network


def hub_files(published: Path) -> dict[str, bytes]:
    """The routes of a hub that are used, and of a repository with the head."""
    found = {"/raw/300_model.pth": (published / "head.pth").read_bytes()}
    for part, folder in encoders_of(published).items():
        for path in folder.iterdir():
            place = f"/{REPOSITORIES[part]}/resolve/{REVISIONS[part]}/{path.name}"
            found[place] = path.read_bytes()
    return found


@pytest.fixture
def download(published, command, catalogue):
    """The command that downloads, from a server with these manners."""

    def run(manners: Manners, *more, command=command, **environment) -> Finished:
        with serving(manners) as at:
            write_catalogue(published, catalogue, f"{at}/raw/300_model.pth")
            return command("bundles", "download", ALIAS, *more, HF_ENDPOINT=at, **environment)

    return run


def test_over_the_network(published, by_hand, download, command, real, tmp_path, reads):
    manners = Manners(hub_files(published))
    done = download(manners, command=real)
    assert done.code == 0, done.err
    assert len(manners.seen) == 8
    assert command("bundles", "verify", ALIAS).code == 0
    assert command("predict", reads, "-o", tmp_path / "run", "--bundle", ALIAS).code == 0
    check_run(by_hand, tmp_path / "run")
    assert not list((tmp_path / "cache").rglob("*.part"))
    assert not (tmp_path / "home").exists()  # nothing lies outside of the cache
    # Nothing is fetched twice, not by the bundle's name and not for another directory.
    again = Manners(hub_files(published))
    assert download(again).code == 0
    assert again.seen == []


def test_a_connection_that_drops_midway(published, download, command):
    manners = Manners(hub_files(published), drop_after=3_000, drops=5)
    done = download(manners)
    assert done.code == 0, done.err
    assert any(range_ for _, range_ in manners.seen)
    assert command("bundles", "verify", ALIAS).code == 0


def test_a_stopped_download_goes_on(published, download, command, tmp_path):
    """The server dies in the middle of a shard; the next call asks for the rest alone."""
    files = hub_files(published)
    shard = next(path for path in files if path.endswith("00001-of-00002.bin"))
    drop = len(files[shard]) // 2
    done = download(Manners(files, cuts={shard: drop}))
    assert done.code == 1
    assert "run the same command again, and it goes on after" in done.error
    assert load_fails(tmp_path / "cache" / "bundles" / NAME)
    second = Manners(files)
    assert download(second).code == 0
    assert second.seen[0] == (shard, f"bytes={drop}-")
    assert {path for path, _ in second.seen}.isdisjoint(
        {path for path in files if "dnabert" in path.lower()}
    )
    assert command("bundles", "verify", ALIAS).code == 0


@pytest.mark.parametrize(("end", "code"), [(signal.SIGINT, 130), (signal.SIGKILL, -9)])
def test_a_process_that_ends_midway_loses_nothing(
    published, catalogue, program, download, surroundings, tmp_path, end, code
):
    files = hub_files(published)
    shard = next(path for path in files if path.endswith("00001-of-00002.bin"))
    half = len(files[shard]) // 2
    with serving(Manners(files, stalls={shard: half})) as at:
        write_catalogue(published, catalogue, f"{at}/raw/300_model.pth")
        running = subprocess.Popen(
            [*program, "bundles", "download", ALIAS],
            env=surroundings({"HF_ENDPOINT": at}),
            stderr=subprocess.PIPE,
            text=True,
            preexec_fn=interruptible,
        )
        while not [p for p in tmp_path.rglob("*.part") if p.stat().st_size == half]:
            assert running.poll() is None
            time.sleep(0.02)
        running.send_signal(end)
        _, said = running.communicate(timeout=30)
    assert running.returncode == code
    assert "Traceback" not in said
    again = Manners(files)
    assert download(again).code == 0
    assert again.seen[0] == (shard, f"bytes={half}-")


@pytest.mark.parametrize("ending", ["300_model.pth", "tokenizer.json", "00002-of-00002.bin"])
def test_wrong_content_is_refused_and_not_kept(published, download, tmp_path, ending):
    files = hub_files(published)
    (path,) = [path for path in files if path.endswith(ending)]
    whole = files[path]
    done = download(Manners({**files, path: whole[:-1] + bytes([whole[-1] ^ 1])}))
    assert done.code == 1
    assert ending in done.error
    assert "not kept" in done.error
    assert not list((tmp_path / "cache").rglob("*.part"))
    assert not [p for p in (tmp_path / "cache").rglob("*") if p.name.endswith(ending)]
    done = download(Manners(files))
    assert done.code == 0, done.err


@pytest.mark.parametrize("name", ["config.json", "pytorch_model.bin.index.json"])
@pytest.mark.parametrize(
    "page", [b"<html>please log in</html>", b"[1]", b'{"weight_map": {"a": "b"}}']
)
def test_a_page_instead_of_a_file_is_not_kept(published, download, tmp_path, name, page):
    """Of these no checksum is known, and a proxy may answer with anything."""
    files = hub_files(published)
    path = f"/{REPOSITORIES['esm2']}/resolve/{REVISIONS['esm2']}/{name}"
    done = download(Manners({**files, path: page}))
    assert f"{name}: it is not the published one" in done.error
    assert not list((tmp_path / "cache" / "encoders").rglob(f"*other*/{name}*"))
    assert download(Manners(files)).code == 0


@pytest.mark.parametrize("ending", ["300_model.pth", "dnabert/config.json"])
@pytest.mark.parametrize("code", [404, 500])
def test_a_server_that_refuses(published, download, tmp_path, ending, code):
    files = hub_files(published)
    path = next(path for path in files if path.endswith(Path(ending).name))
    done = download(Manners(files, answers={path: [code] * 9}))
    assert done.code == 1
    assert f"{path}: the server answers {code}" in done.error
    assert not list((tmp_path / "cache").rglob("*.part"))


def test_no_network_says_what_to_do(published, catalogue, command, real):
    with refusing() as dead:
        write_catalogue(published, catalogue, f"{dead}/300_model.pth")
        given = ("bundles", "download", ALIAS)
        for environment in ({"HF_HUB_OFFLINE": "1"}, {"HF_ENDPOINT": dead}):
            done = command(*given, **environment)
            assert done.code == 1
            assert f"run `virnucpro bundles download {NAME} --to {NAME}`" in done.error
            assert f"run `virnucpro bundles download {NAME} --from {NAME}`" in done.error
            assert "licence of the head" in done.err
        assert "HF_HUB_OFFLINE is set" in real(*given, HF_HUB_OFFLINE="1").error


def test_the_hubs_own_cache_is_respected(published, download, command, real, tmp_path, monkeypatch):
    """Encoders go where HF_HOME says; what lies there already is not fetched."""
    home = {"HF_HOME": str(tmp_path / "hf")}
    manners = Manners(hub_files(published))
    assert download(manners, command=real, **home).code == 0
    snapshot = tmp_path / "hf" / "hub" / "models--other--esm2_tiny" / "snapshots" / ("2" * 40)
    assert (snapshot / "pytorch_model-00002-of-00002.bin").is_file()
    assert not (tmp_path / "cache" / "encoders").exists()
    assert command("bundles", "verify", ALIAS, **home).code == 0
    (tmp_path / "cache").rename(tmp_path / "old")
    again = Manners(hub_files(published))
    assert download(again, **home).code == 0
    assert [path for path, _ in again.seen] == ["/raw/300_model.pth"]
    # Also where the hub keeps it by itself, without that setting.
    (tmp_path / "home" / ".cache").mkdir(parents=True)
    (tmp_path / "hf").rename(tmp_path / "home" / ".cache" / "huggingface")
    (tmp_path / "cache").rename(tmp_path / "older")
    again = Manners(hub_files(published))
    assert download(again, "--to", tmp_path / "apart").code == 0
    assert [path for path, _ in again.seen] == ["/raw/300_model.pth"]
    assert not any(path.is_symlink() for path in (tmp_path / "apart").rglob("*"))
    # What is used where it is needs no room.
    usage = shutil.disk_usage(tmp_path)._replace(free=10)
    monkeypatch.setattr("virnucpro.bundle.download.shutil.disk_usage", lambda _: usage)
    again = Manners(hub_files(published))
    assert download(again).code == 0
    assert [path for path, _ in again.seen] == ["/raw/300_model.pth"]
    assert command("bundles", "verify", ALIAS).code == 0
    assert not (tmp_path / "cache" / "encoders").exists()


def test_a_cache_behind_a_link(published, download, command, tmp_path):
    """Its path is not as deep as the folder that it names."""
    (tmp_path / "deep" / "deeper" / "cache").mkdir(parents=True)
    (tmp_path / "short").symlink_to(tmp_path / "deep" / "deeper" / "cache")
    places = {"VIRNUCPRO_CACHE": str(tmp_path / "short"), "HF_HOME": str(tmp_path / "hf")}
    assert download(Manners(hub_files(published)), **places).code == 0
    assert command("bundles", "verify", ALIAS, **places).code == 0


def test_to_a_directory_over_the_network(published, by_hand, download, command, tmp_path, reads):
    to = tmp_path / "carried"
    done = download(Manners(hub_files(published)), "--to", to, VIRNUCPRO_CACHE="/dev/null/none")
    assert done.code == 0, done.err
    assert command("predict", reads, "-o", tmp_path / "run", "--bundle", to).code == 0
    check_run(by_hand, tmp_path / "run")
    (tmp_path / "mine").mkdir()
    (tmp_path / "mine" / "thesis.txt").write_text("x")
    done = download(Manners({}), "--to", tmp_path / "mine")
    assert "already holds something; choose an empty directory" in done.error


def files_of(folder: Path) -> dict[str, bytes]:
    """The files of a bundle by name, without the mark of one that is being made."""
    paths = [p for p in folder.rglob("*") if p.is_file() and BEING_MADE not in p.parts]
    return {str(p.relative_to(folder)): p.read_bytes() for p in paths}


@pytest.mark.parametrize("manifest", ["whole", "gone", "damaged", "head gone too"])
def test_a_users_own_encoders_are_never_taken_for_a_download(
    published, catalogue, command, tmp_path, manifest
):
    """`import --copy` writes the same names, and these may be the only copy of a tuned encoder."""
    own = shutil.copytree(published / "esm2", tmp_path / "tuned")
    shard = own / SHARD
    whole = shard.read_bytes()
    shard.write_bytes(whole[:-1] + bytes([whole[-1] ^ 1]))
    mine = tmp_path / NAME
    done = command("bundles", "import", published / "head.pth", "-o", mine, "--chunk", 300,
                   "--esm", own, "--dnabert", published / "dnabert_s", "--copy")  # fmt: skip
    assert done.code == 0, done.err
    if manifest == "damaged":
        (mine / "bundle.toml").write_text("= = =")
    elif manifest != "whole":
        (mine / "bundle.toml").unlink()
    if manifest == "head gone too":
        (mine / "head.pth").unlink()
    before = files_of(mine)
    given = ("bundles", "download", NAME, "--to", mine)
    for source in (published, tmp_path / "none"):
        done = command(*given, "--from", source)
        assert done.code == 1
        assert f"{mine}: already holds something; choose an empty directory" in done.error
        assert files_of(mine) == before


def test_a_damaged_file_stays_until_a_whole_one_is_there(published, catalogue, command, tmp_path):
    given = ("bundles", "download", NAME, "--to", tmp_path / "c")
    assert command(*given, "--from", published).code == 0
    whole = files_of(tmp_path / "c")
    shard = tmp_path / "c" / "esm2" / SHARD
    shard.write_bytes(whole[f"esm2/{SHARD}"][:-1] + b"x")
    before = files_of(tmp_path / "c")
    assert command(*given, "--from", tmp_path / "none").code == 1
    assert files_of(tmp_path / "c") == before
    assert command(*given, "--from", published).code == 0
    assert files_of(tmp_path / "c") == whole


@pytest.mark.parametrize(
    ("name", "to"),
    [
        ("head.safetensors", False),
        ("head.pth", False),
        ("bundle.toml", False),
        ("head.safetensors", True),
        ("head.pth", True),
    ],
)
def test_a_damaged_head_or_manifest_is_mended(published, catalogue, command, tmp_path, name, to):
    place = tmp_path / "c" if to else tmp_path / "cache" / "bundles" / NAME
    given = ("bundles", "download", NAME, *["--to", place] * to)
    assert command(*given, "--from", published).code == 0
    before = files_of(place)
    (place / name).write_bytes(before[name][:-1] + b"x")
    done = command(*given, "--from", published)
    assert done.code == 0, done.err
    assert "is there already" not in done.err
    assert files_of(place) == before


def test_places_and_sources_without_permission_are_one_sentence(
    published, catalogue, command, tmp_path, monkeypatch
):
    """A name too long stands for a folder without permission: root has all of them."""
    long = tmp_path / ("x" * 300)
    given = ("bundles", "download", NAME, "--from", published)
    assert "File name too long" in command(*given, "--to", long).error
    done = command("bundles", "import", published / "head.pth", "-o", long, "--chunk", 300)
    assert "cannot be looked into (File name too long)" in done.error
    done = command("predict", published / "head.pth", "-o", tmp_path / "r", "--bundle", long)
    assert "cannot be looked into (File name too long)" in done.error
    real, shard = Path.open, published / "esm2" / SHARD

    def failing(path, *mode, **options):
        if path == shard:
            raise OSError(errno.EIO, "Input/output error")
        return real(path, *mode, **options)

    monkeypatch.setattr(Path, "open", failing)
    done = command(*given)
    assert f"{shard}: cannot be read (Input/output error)" in done.error
    with pytest.raises(BundleError, match="cannot be read"):
        copy_checked(shard, tmp_path / "copy", "0" * 64)


def test_a_link_into_a_cache_that_is_gone_is_replaced(published, download, command, tmp_path):
    home = {"HF_HOME": str(tmp_path / "hf")}
    assert download(Manners(hub_files(published)), **home).code == 0
    (tmp_path / "hf").rename(tmp_path / "moved")
    assert download(Manners(hub_files(published))).code == 0
    shutil.rmtree(tmp_path / "moved")
    assert download(Manners(hub_files(published))).code == 0
    assert command("bundles", "verify", ALIAS).code == 0


def test_no_cache_and_no_directory(published, download):
    done = download(Manners(hub_files(published)), VIRNUCPRO_CACHE="/dev/null/none")
    assert done.code == 1
    assert "choose one for this bundle with --to" in done.error


def test_a_disk_without_room(published, catalogue, monkeypatch, tmp_path):
    from virnucpro.bundle import download as acquire
    from virnucpro.progress import Silent

    usage = shutil.disk_usage(tmp_path)._replace(free=10_000)
    monkeypatch.setenv("VIRNUCPRO_CACHE", str(tmp_path / "cache"))
    monkeypatch.setattr(acquire.shutil, "disk_usage", lambda _: usage)
    known = read_catalogue().find(NAME)
    places = acquire.placed(known, None, published)
    with pytest.raises(BundleError, match=r"GB are still needed here, but 0\.0 GB are free"):
        acquire.download(known, places, published, Silent())
    assert not (tmp_path / "cache" / "encoders").exists()


# import


def test_a_head_alone_scores_features(published, command, tmp_path, reads):
    done = command("bundles", "import", published / "head.pth", "-o", tmp_path / "h",
                   "--chunk", 300)  # fmt: skip
    assert done.code == 0, done.err
    assert "nothing in it was executed" in done.err
    assert "not one of the published heads" in done.err
    assert "scores features, not sequences" in done.err
    bundle = load(tmp_path / "h")
    examples = torch.load(published / "examples.pt", weights_only=True)
    found = bundle.head.probabilities(examples["x"])
    assert (found - examples["y"]).abs().max() <= tolerances.HEAD_FP32
    done = command("predict", reads, "-o", tmp_path / "run", "--bundle", tmp_path / "h")
    assert done.code == 1
    assert "holds a head, but no encoder dnabert_s" in done.error
    assert command("bundles", "verify", tmp_path / "h").code == 0


@pytest.mark.parametrize("kept", [False, True])
def test_an_import_that_was_killed_is_begun_again(published, command, tmp_path, monkeypatch, kept):
    """But only there: a whole bundle, or anything else, is not written over."""
    encoders = ("--esm", published / "esm2", "--dnabert", published / "dnabert_s", "--copy")
    to = ("-o", tmp_path / "b", "--chunk", 300)
    given = ("bundles", "import", published / "head.pth", *to, *encoders)

    def killed(*_):
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        step = "write.write_manifest" if kept else "assemble.copy_checked"
        patch.setattr(f"virnucpro.bundle.{step}", killed)
        assert command(*given).code == 130
    assert load_fails(tmp_path / "b")
    assert (tmp_path / "b" / "head.safetensors").exists() == kept
    assert command(*given).code == 0
    assert {path.name for path in (tmp_path / "b").iterdir()} == {
        "bundle.toml", "dnabert_s", "esm2", "head.pth", "head.safetensors",
    }  # fmt: skip
    assert command("bundles", "verify", tmp_path / "b").code == 0
    assert "already holds something" in command(*given).error


@pytest.mark.parametrize("copy", [False, True])
def test_a_head_with_its_encoders(published, by_hand, command, tmp_path, reads, copy):
    given = ("--esm", published / "esm2", "--dnabert", published / "dnabert_s")
    done = command("bundles", "import", published / "head.pth", "-o", tmp_path / "b",
                   "--chunk", 300, *given, *["--copy"] * copy)  # fmt: skip
    assert done.code == 0, done.err
    assert "given by you" in done.err
    bundle = load(tmp_path / "b")
    assert (bundle.chunk_nt, bundle.threshold, bundle.block_nt) == (300, 0.5, 20_000)
    for part, folder in encoders_of(published).items():
        path = Path(bundle.part("encoders")[part]["path"])
        assert path == (Path(part) if copy else folder)
    assert command("predict", reads, "-o", tmp_path / "run", "--bundle", tmp_path / "b").code == 0
    check_run(by_hand, tmp_path / "run")
    assert command("bundles", "verify", tmp_path / "b").out.count("ok ") == 9


def test_what_cannot_be_imported(published, command, tmp_path, golden):
    to = ("-o", tmp_path / "b", "--chunk", 300)
    head = published / "head.pth"
    done = command("bundles", "import", published / "dnabert_s" / "pytorch_model.bin", *to)
    assert "it holds no head" in done.error
    done = command("bundles", "import", tmp_path / "none.pth", *to)
    assert "none.pth: cannot be read" in done.error
    done = command("bundles", "import", golden / "legacy_model.pth", *to,
                   "--esm", published / "esm2", "--dnabert", published / "dnabert_s")  # fmt: skip
    assert "the head takes 3,328 numbers a frame, these encoders give" in done.error
    done = command("bundles", "import", head, *to, "--esm", published / "dnabert_s")
    assert "not the encoder esm2" in done.error
    done = command("bundles", "import", head, *to, "--copy")
    assert (done.code, "--copy copies encoders" in done.err) == (2, True)
    done = command("bundles", "import", head, "-o", tmp_path / "b", "--chunk", 5000)
    assert "chunks of 5000 nt cannot be used" in done.error
    assert not (tmp_path / "b").exists()
    (tmp_path / "full").mkdir()
    (tmp_path / "full" / "x").write_text("x")
    done = command("bundles", "import", head, "-o", tmp_path / "full", "--chunk", 300)
    assert "already holds something" in done.error


@pytest.fixture
def as_published(catalogue, tmp_path, monkeypatch):
    """No bundle of the machine's own is here."""
    monkeypatch.setenv("VIRNUCPRO_CACHE", str(tmp_path / "cache"))


def test_only_the_published_files_pass_for_the_published_model(as_published, published, tmp_path):
    from virnucpro.bundle.assemble import import_head

    head = published / "head.pth"
    given = encoders_of(published)
    whole = import_head(head, tmp_path / "whole", CHUNK_NT, given)
    assert whole.bundle.provenance is Provenance.PUBLISHED
    assert str(whole.bundle.provenance) == "the published VirNucPro model"
    assert any("the published head 300_model.pth" in line for line in whole.found)
    assert any(f"{REPOSITORIES['esm2']} as published" in line for line in whole.found)
    alone = import_head(head, tmp_path / "alone", CHUNK_NT, {})
    assert alone.bundle.provenance is not Provenance.PUBLISHED
    assert alone.bundle.provenance.startswith("the published VirNucPro head, but not on")

    config = json.loads((published / "esm2" / "config.json").read_text())
    changed = dict(given, esm2=shutil.copytree(published / "esm2", tmp_path / "esm_changed"))
    (changed["esm2"] / "config.json").write_text(json.dumps({**config, "extra": 1}))
    same_fields = import_head(head, tmp_path / "extra", CHUNK_NT, changed)
    assert same_fields.bundle.provenance is Provenance.PUBLISHED
    other = dict(given, esm2=shutil.copytree(published / "esm2", tmp_path / "esm_seven"))
    (other["esm2"] / "config.json").write_text(json.dumps({**config, "num_hidden_layers": 7}))
    assert (
        import_head(head, tmp_path / "seven", CHUNK_NT, other).bundle.provenance
        is not Provenance.PUBLISHED
    )
    tokens = shutil.copytree(published / "dnabert_s", tmp_path / "dnabert_changed")
    (tokens / "tokenizer.json").write_text((tokens / "tokenizer.json").read_text() + "\n")
    mixed = import_head(head, tmp_path / "mixed", CHUNK_NT, dict(given, dnabert_s=tokens))
    assert mixed.bundle.provenance is not Provenance.PUBLISHED
    assert mixed.bundle.provenance.startswith("the published VirNucPro head, but not on")

    text = (tmp_path / "whole" / "bundle.toml").read_text()
    for old, new in (
        ("chunk_nt = 300", "chunk_nt = 500"),
        (git_blob(head.read_bytes()), "0" * 40),
        ('kind = "frames"', 'kind = "chunks"'),
        (REVISIONS["esm2"], "3" * 40),
        (whole.bundle.part("encoders")["esm2"]["sha256"][SHARD], "4" * 64),
    ):
        assert old in text
        (tmp_path / "whole" / "bundle.toml").write_text(text.replace(old, new))
        assert load(tmp_path / "whole").provenance is not Provenance.PUBLISHED


def test_a_published_head_keeps_its_chunk_length(as_published, published, tmp_path):
    """TRAP N15."""
    from virnucpro.bundle.assemble import import_head

    with pytest.raises(BundleError, match="head for chunks of 300 nt, not of 500; import it with"):
        import_head(published / "head.pth", tmp_path / "b", 500, {})
    assert not (tmp_path / "b").exists()


def test_predict_never_downloads(as_published, published, tmp_path):
    with pytest.raises(BundleError, match=f"fetch it with `virnucpro bundles download {ALIAS}`"):
        load(ALIAS)
    assert bundles.downloaded_bundles() == []


def test_the_real_models_are_known_and_not_here(command, reads, tmp_path):
    for name, chunk_nt in (("virnucpro-500", 500), ("virnucpro-300-v1", 300)):
        done = command("predict", reads, "-o", tmp_path / "run", "--bundle", name)
        assert done.code == 1
        assert f"`virnucpro bundles download {name}`" in done.error
        assert f"chunks of {chunk_nt} nt" in done.error
    done = command("bundles", "download", "virnucpro-400")
    assert "those that can are virnucpro-500-v1, virnucpro-300-v1" in done.error
