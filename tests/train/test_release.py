"""Genomes of a RefSeq release: listed, downloaded politely, checked; from a local server."""

import gzip
import hashlib
import json
import random

import pytest
from click.testing import CliRunner

from frame_bundles import Told
from server import Manners, refusing, serving
from virnucpro.bundle import fetch as downloads
from virnucpro.cli.train import train
from virnucpro.errors import BundleError, ResumeError, SettingsError
from virnucpro.storage.lock import Lock
from virnucpro.train import release as releases
from virnucpro.train.release import GROUPS, RECORD, download_release, read_release, spread

RANDOM = random.Random(1)
FOLDERS = [folder for folders in GROUPS.values() for folder in folders]


def packed() -> bytes:
    """40,000 bytes of gzip."""
    return gzip.compress(RANDOM.randbytes(40_000 - 23), 0, mtime=0)


GENOMES = {
    f"/r/{folder}/{folder}.{number}.genomic.gbff.gz": packed()
    for folder in FOLDERS
    for number in (1, 2, 10)
}
OTHERS = {f"/r/{folder}/{folder}.1.protein.faa.gz": b"none of ours" for folder in FOLDERS}
LISTED = "".join(
    f"{hashlib.md5(data).hexdigest()}\t{path.rpartition('/')[2]}\n"
    for path, data in {**OTHERS, **GENOMES}.items()
)
LISTS = {
    "/r/RELEASE_NUMBER": b"230\n",
    "/r/release-catalog/release230.files.installed": f"MD5 checksum\tFile name\n{LISTED}".encode(),
}
INDEX = {
    f"/r/{folder}/": "".join(
        f'<a href="{path.rpartition("/")[2]}">x</a>\n'
        for path in {**OTHERS, **GENOMES}
        if path.startswith(f"/r/{folder}/")
    ).encode()
    for folder in FOLDERS
}
ALL = {**GENOMES, **OTHERS, **LISTS}


@pytest.fixture(autouse=True)
def at_once(monkeypatch):
    monkeypatch.setattr(downloads, "_FIRST_WAIT_S", 0.001)


def read(address, groups=("viral",), files=5):
    return read_release(f"{address}/r", groups, files, 0, Told())


def downloaded(manners, out, groups=("viral",), told=None):
    with serving(manners) as address:
        release = read(address, groups)
        download_release(release, out, 0, told or Told())
    return release


def test_a_release_is_listed_and_nothing_is_downloaded():
    manners = Manners({**ALL})
    with serving(manners) as address:
        release = read(address, [*GROUPS], files=2)
    assert release.number == "230"
    assert [file.name for file in release.files if file.group == "vertebrate"] == [
        f"vertebrate_{kind}.{number}.genomic.gbff.gz"
        for kind in ("mammalian", "other")
        for number in (1, 2)
    ]
    assert len(release.files) == 2 * len(FOLDERS)
    assert release.size_bytes == 40_000 * len(release.files)
    assert {path for path, _ in manners.seen} == {*LISTS}
    for file in release.files:
        assert file.md5 == hashlib.md5(GENOMES[f"/r/{file.folder}/{file.name}"]).hexdigest()


def test_files_are_spread_over_their_folder():
    assert spread([*range(10)], 3) == [0, 3, 6]
    assert spread([*range(3)], 5) == [0, 1, 2]


def test_files_come_into_folders_of_groups_with_a_record(tmp_path):
    release = downloaded(Manners({**ALL}), tmp_path, ["viral", "vertebrate"])
    for file in release.files:
        data = (tmp_path / file.place).read_bytes()
        assert data == GENOMES[f"/r/{file.folder}/{file.name}"]
    record = json.loads((tmp_path / RECORD).read_text())
    assert record["release"] == "230"
    assert record["files"]["viral/viral.10.genomic.gbff.gz"]["bytes"] == 40_000
    assert {p.name for p in tmp_path.iterdir()} == {"viral", "vertebrate", RECORD}


def test_what_is_there_is_not_fetched_again_and_what_is_damaged_is(tmp_path):
    downloaded(Manners({**ALL}), tmp_path)
    damaged = tmp_path / "viral" / "viral.2.genomic.gbff.gz"
    damaged.write_bytes(b"x" + damaged.read_bytes()[1:])
    manners, told = Manners({**ALL}), Told()
    downloaded(manners, tmp_path, told=told)
    assert [path for path, _ in manners.seen if "genomic" in path] == [f"/r/viral/{damaged.name}"]
    assert "2 of 3 files are there already" in told.lines


def test_a_download_that_was_stopped_goes_on(tmp_path):
    path = "/r/viral/viral.1.genomic.gbff.gz"
    (tmp_path / "viral").mkdir()
    part = tmp_path / "viral" / "viral.1.genomic.gbff.gz.part"
    part.write_bytes(GENOMES[path][:30_000])
    manners = Manners({**ALL}, drop_after=4_000, drops=1)
    downloaded(manners, tmp_path)
    assert manners.sent("viral.1.genomic.gbff.gz") == ["bytes=30000-", "bytes=34000-"]
    assert (tmp_path / "viral" / "viral.1.genomic.gbff.gz").read_bytes() == GENOMES[path]


def test_what_began_in_another_release_is_begun_anew(tmp_path):
    (tmp_path / "viral").mkdir()
    (tmp_path / "viral" / "viral.1.genomic.gbff.gz.part").write_bytes(b"x" * 30_000)
    manners = Manners({**ALL})
    downloaded(manners, tmp_path)
    assert manners.sent("viral.1.genomic.gbff.gz") == ["bytes=30000-", ""]


def test_a_wrong_sum_is_not_kept(tmp_path):
    wrong = {**ALL, "/r/viral/viral.2.genomic.gbff.gz": b"y" * 40_000}
    with pytest.raises(BundleError, match=r"viral\.2\..* its MD5 sum is .* run the same command"):
        downloaded(Manners(wrong), tmp_path)
    assert {p.name for p in (tmp_path / "viral").iterdir()} == {"viral.1.genomic.gbff.gz"}
    assert not (tmp_path / RECORD).exists()


def test_a_mirror_without_sums_is_read_by_its_pages_and_checked_by_size(tmp_path):
    told = Told()
    manners = Manners({**GENOMES, **OTHERS, **INDEX})
    with serving(manners) as address:
        release = read_release(f"{address}/r", ["viral"], 5, 0, told)
        download_release(release, tmp_path, 0, told)
        short = tmp_path / "viral" / "viral.1.genomic.gbff.gz"
        short.write_bytes(short.read_bytes()[:-1])
        download_release(release, tmp_path, 0, told)
    assert release.number == ""
    assert [file.md5 for file in release.files] == [None] * 3
    assert [line for line in told.lines if "checked by their size and as gzip" in line]
    assert short.read_bytes() == GENOMES["/r/viral/viral.1.genomic.gbff.gz"]


FIRST = "/r/viral/viral.1.genomic.gbff.gz"


def stopped_at_a_mirror(folder, manners):
    """A download of one file, of which 30,000 bytes have come; no list of MD5 sums."""
    manners.cuts = {FIRST: 30_000}
    with serving(manners) as address:
        release = read_release(f"{address}/r", ["viral"], 1, 0, Told())
        with pytest.raises(BundleError, match="broke off"):
            download_release(release, folder, 0, Told())
    part = folder / "viral" / "viral.1.genomic.gbff.gz.part"
    assert part.read_bytes() == manners.files[FIRST][:30_000]
    return part


def finished_at_a_mirror(folder, manners):
    with serving(manners) as address:
        release = read_release(f"{address}/r", ["viral"], 1, 0, Told())
        download_release(release, folder, 0, Told())
    assert (folder / "viral" / "viral.1.genomic.gbff.gz").read_bytes() == manners.files[FIRST]
    assert len([*(folder / "viral").iterdir()]) == 1
    return manners.sent("viral.1.genomic.gbff.gz")


@pytest.mark.parametrize(
    ("version", "ranges"), [('"one"', ["bytes=30000-"]), ("", [""]), ('W/"weak"', [""])]
)
def test_a_mirror_without_sums_goes_on_where_its_file_has_a_version(tmp_path, version, ranges):
    files, versions = {**GENOMES, **INDEX}, {FIRST: version}
    stopped_at_a_mirror(tmp_path, Manners(files, versions=versions))
    assert finished_at_a_mirror(tmp_path, Manners(files, versions=versions)) == ranges


@pytest.mark.parametrize(("if_range", "asked"), [(True, 1), (False, 2)])
def test_another_release_at_a_mirror_without_sums_is_begun_anew(tmp_path, if_range, asked):
    files = {**GENOMES, **INDEX}
    stopped_at_a_mirror(tmp_path, Manners(files, versions={FIRST: '"one"'}))
    manners = Manners({**files, FIRST: packed()}, versions={FIRST: '"two"'}, if_range=if_range)
    assert len(finished_at_a_mirror(tmp_path, manners)) == asked


def test_a_part_of_unknown_origin_is_begun_anew_at_a_mirror_without_sums(tmp_path):
    files, versions = {**GENOMES, **INDEX}, {FIRST: '"one"'}
    part = stopped_at_a_mirror(tmp_path, Manners(files, versions=versions))
    part.with_name(part.name + downloads.VERSION).unlink()
    assert finished_at_a_mirror(tmp_path, Manners(files, versions=versions)) == [""]


def test_a_whole_part_of_another_release_is_begun_anew_at_a_mirror_without_sums(tmp_path):
    files = {**GENOMES, **INDEX}
    part = stopped_at_a_mirror(tmp_path, Manners(files, versions={FIRST: '"one"'}))
    part.write_bytes(GENOMES[FIRST])
    name, time = GENOMES[FIRST][:4], b"\1\2\3\4"
    other = name + time + GENOMES[FIRST][8:]  # of another moment, as gzip keeps it
    manners = Manners({**files, FIRST: other}, versions={FIRST: '"two"'})
    assert finished_at_a_mirror(tmp_path, manners) == [f"bytes={len(other) - 1}-"]
    unchanged = Manners({**files, FIRST: other}, versions={FIRST: '"two"'})
    assert finished_at_a_mirror(tmp_path, unchanged) == []


@pytest.mark.parametrize("stamp", [b"", b"\xff\xfe", b"one\r\nHost: other"])
def test_a_damaged_version_of_a_part_is_as_good_as_none(tmp_path, stamp):
    files, versions = {**GENOMES, **INDEX}, {FIRST: '"one"'}
    part = stopped_at_a_mirror(tmp_path, Manners(files, versions=versions))
    part.with_name(part.name + downloads.VERSION).write_bytes(stamp)
    assert finished_at_a_mirror(tmp_path, Manners(files, versions=versions)) == [""]


def test_a_part_of_a_mirror_is_finished_where_there_are_sums_and_leaves_nothing(tmp_path):
    files = {**GENOMES, **INDEX}
    stopped_at_a_mirror(tmp_path, Manners(files, versions={FIRST: '"one"'}))
    assert finished_at_a_mirror(tmp_path, Manners({**files, **LISTS})) == ["bytes=30000-"]


def test_a_file_that_cannot_be_unpacked_is_not_kept(tmp_path):
    """Halves of two releases, of the right size."""
    mixed = GENOMES[FIRST][:20_000] + packed()[20_000:]
    manners = Manners({**GENOMES, **INDEX, FIRST: mixed})
    with serving(manners) as address:
        release = read_release(f"{address}/r", ["viral"], 1, 0, Told())
        with pytest.raises(BundleError, match=r"viral\.1\..* cannot be unpacked .*not kept"):
            download_release(release, tmp_path, 0, Told())
    assert not [*(tmp_path / "viral").iterdir()]


def test_sums_of_an_older_kind_are_not_taken_for_md5():
    old = LISTS["/r/release-catalog/release230.files.installed"].decode().splitlines()
    lines = "\n".join(f"123456789\t{line.split()[-1]}" for line in old).encode()
    files = {**ALL, "/r/release-catalog/release230.files.installed": lines}
    with serving(Manners(files)) as address:
        assert [file.md5 for file in read(address).files] == [None] * 3


def test_requests_are_apart_and_the_program_says_who_it_is(tmp_path, monkeypatch):
    slept = []
    monkeypatch.setattr(releases.time, "sleep", slept.append)
    manners = Manners({**ALL})
    with serving(manners) as address:
        release = read_release(f"{address}/r", ["viral"], 5, 0.7, Told())
        download_release(release, tmp_path, 0.7, Told())
    # The number, the list, three sizes, three files.
    assert slept == [0.7] * 8
    assert manners.agents == {f"virnucpro/{downloads.__version__}"}


@pytest.mark.parametrize("group", ["viral"])
def test_a_server_without_the_group_is_refused(group):
    with (
        serving(Manners({})) as address,
        pytest.raises(BundleError, match=r"lists no file viral\.\*.* check --address"),
    ):
        read(address, [group])


def test_an_address_that_is_none_or_nobody_answers():
    with pytest.raises(SettingsError, match="must begin with https"):
        read_release("ftp://x/y", ["viral"], 5, 0, Told())
    with refusing() as address, pytest.raises(BundleError, match="cannot be reached"):
        read(address)


def test_two_downloads_into_one_folder_are_one_too_many(tmp_path):
    lock = Lock(tmp_path / ".fetching")
    try:
        with pytest.raises(ResumeError, match="in use by"):
            downloaded(Manners({**ALL}), tmp_path)
    finally:
        lock.remove()


def test_a_disk_without_room_is_said_before_the_download(tmp_path, monkeypatch):
    monkeypatch.setattr(releases.shutil, "disk_usage", lambda _: type("D", (), {"free": 1000}))
    manners = Manners({**ALL})
    with pytest.raises(BundleError, match="GB are still needed here"):
        downloaded(manners, tmp_path)
    assert not [path for path, _ in manners.seen if "genomic" in path]


def test_the_command_lists_and_downloads(tmp_path):
    words = ["fetch", "--group", "viral", "--files", "2", "--pause", "0", "--no-progress"]
    with serving(Manners({**ALL})) as address:
        words += ["--address", f"{address}/r"]
        listed = CliRunner().invoke(train, [*words, "--list"])
        done = CliRunner().invoke(train, [*words, "-o", str(tmp_path / "refseq")])
    assert (listed.exit_code, done.exit_code) == (0, 0), done.output
    assert "viral/viral.1.genomic.gbff.gz" in listed.stdout
    assert "2 files" in listed.output
    assert len([*(tmp_path / "refseq" / "viral").iterdir()]) == 2


@pytest.mark.parametrize(
    ("words", "why"),
    [
        ([], "give either -o DIR, or --list"),
        (["-o", "x", "--list"], "give either -o DIR, or --list"),
        (["--list", "--group", "algae"], "--group algae is unknown"),
        (
            ["--list", "--group", "fungus"],
            "is unknown (did you mean fungi?); choose",
        ),
    ],
)
def test_a_command_that_says_not_what_to_do(words, why):
    done = CliRunner().invoke(train, ["fetch", *words])
    assert done.exit_code == 2
    assert why in " ".join(done.output.replace("│", " ").split())
