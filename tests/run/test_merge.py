"""Parts of a run and their merge: the bytes of an undivided run, and parts that do not fit."""

import json
import os
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import jsonschema
import pytest

from command import PROGRAM, dna, fasta, made_bundle, results, run_json, virnucpro
from made_reads import ubam
from virnucpro.errors import InputError, ResumeError, SettingsError
from virnucpro.progress import Silent
from virnucpro.results.run_schema import schema
from virnucpro.run.merge import merge
from virnucpro.run.predict import run
from virnucpro.run.settings import Settings

BLOCK_NT = 12_000
OPTIONS = {"write": "all", "parquet": True}


@pytest.fixture(scope="module")
def here(tmp_path_factory) -> Path:
    """A folder with two inputs of some 11 blocks, one faulty record among them, and a bundle."""
    folder = tmp_path_factory.mktemp("merge")
    records = [(f"r{k}", dna(400, k)) for k in range(260)]
    records[33], records[150] = ("empty", ""), ("faulty", dna(200) + "!" + dna(199))
    (folder / "a.fa").write_bytes(fasta(records[:200]))
    (folder / "b.fa").write_bytes(fasta([*records[200:], ("long", dna(30_000, "long"))]))
    made_bundle(folder / "km", block_nt=BLOCK_NT)
    return folder


def predicted(here: Path, out: Path, part: str | None = None, **options) -> Path:
    inputs = [here / "a.fa", here / "b.fa"]
    run(Settings.of(inputs, out, here / "km", part=part, **{**OPTIONS, **options}))
    return out


@pytest.fixture(scope="module")
def expected(here) -> dict[str, bytes]:
    """The results of an undivided run."""
    return results(predicted(here, here / "whole"))


@pytest.fixture(scope="module")
def thirds(here) -> list[Path]:
    """Three finished parts."""
    return [predicted(here, here / f"third{k}", f"{k}/3") for k in (1, 2, 3)]


def copies(parts: list[Path], folder: Path) -> list[Path]:
    """The same parts, to be damaged."""
    return [Path(shutil.copytree(part, folder / part.name)) for part in parts]


# The same bytes


@pytest.mark.parametrize("count", [1, 2, 5])
def test_merged_parts_are_the_undivided_run(here, expected, tmp_path, count):
    parts = [predicted(here, tmp_path / f"p{k}", f"{k}/{count}") for k in range(1, count + 1)]
    outcome = merge(parts[::-1], tmp_path / "run")  # in any order
    assert (outcome.status, outcome.exit_code) == ("partial", 2)  # of the faulty record
    assert results(tmp_path / "run") == expected
    whole, merged = run_json(here / "whole"), run_json(tmp_path / "run")
    same = ("counts", "outputs", "output_bytes", "fingerprint", "inputs", "bundle", "device")
    assert {name: merged[name] for name in same} == {name: whole[name] for name in same}
    assert merged["blocks"] == whole["blocks"]
    assert [part["part"] for part in merged["parts"]] == [
        f"{k}/{count}" for k in range(1, count + 1)
    ]
    assert all(part["host"] and part["timings"]["blocks_s"] >= 0 for part in merged["parts"])
    assert (tmp_path / "run" / "report.html").exists()
    assert not (tmp_path / "run" / ".virnucpro").exists()


def test_parts_without_a_block_are_merged_like_others(here, tmp_path):
    (tmp_path / "small.fa").write_bytes(fasta([("one", dna(700)), ("two", dna(800))]))

    def done(out: str, part: str | None) -> list[str]:
        lines = Lines()
        run(Settings.of(tmp_path / "small.fa", tmp_path / out, here / "km", part=part), lines)
        return lines.lines

    done("whole", None)
    for k in (1, 2, 3):
        last = done(f"p{k}", f"{k}/3")[-1]
        assert last.startswith(f"part {k}/3 of 1 block is finished")
        assert ("and holds none, as there are fewer blocks than parts" in last) == (k > 1)
    lines = Lines()
    merge([tmp_path / f"p{k}" for k in (3, 1, 2)], tmp_path / "run", progress=lines)
    assert results(tmp_path / "run") == results(tmp_path / "whole")
    assert lines.lines[0] == "merging 3 parts of 1 block"


@pytest.mark.parametrize("name", ["pairs.fa", "pairs.bam", "singles.bam"])
def test_merged_parts_tell_mates_as_the_undivided_run_does(here, tmp_path, name):
    reads = [(f"t{k // 2}", dna(150, k)) for k in range(200)]
    (tmp_path / "pairs.fa").write_bytes(fasta(reads))
    ubam(tmp_path / "pairs.bam", reads, paired=True)
    ubam(tmp_path / "singles.bam", reads)
    options = {"pairs": "interleaved"} if name == "pairs.fa" else {}

    def of(out: Path, part: str | None) -> Path:
        run(Settings.of([tmp_path / name], out, here / "km", part=part, parquet=True, **options))
        return out

    whole = results(of(tmp_path / "whole", None))
    merge([of(tmp_path / f"p{k}", f"{k}/2") for k in (1, 2)], tmp_path / "run")
    assert results(tmp_path / "run") == whole
    header = whole["contigs.tsv"].partition(b"\n")[0]
    assert header.endswith(b"\tmate") == (name != "singles.bam")


@pytest.mark.parametrize("part", ["1/3", "2/3", "3/3"])
def test_a_part_shows_how_much_of_the_whole_input_is_behind_it(here, tmp_path, part):
    class Positions(Silent):
        def __init__(self):
            self.done = []

        def advance(self, position):
            self.done.append(position.done / position.total)

    shown = Positions()
    run(Settings.of(here / "b.fa", tmp_path / "part", here / "km", part=part), shown)
    assert shown.done == sorted(shown.done)
    assert 0 <= shown.done[0] < shown.done[-1] == 1


def test_a_part_has_no_tables_and_is_left_as_it_is(here, thirds):
    document = run_json(thirds[1])
    jsonschema.validate(document, schema())
    assert (document["status"], document["exit_code"]) == ("part", 0)
    assert not results(thirds[1])
    blocks = sorted((thirds[1] / ".virnucpro" / "blocks").glob("*.block"))
    assert {int(path.stem) % 3 for path in blocks} == {1}
    before = {path: path.stat().st_mtime_ns for path in blocks}
    predicted(here, thirds[1], "2/3")
    assert {path: path.stat().st_mtime_ns for path in blocks} == before
    assert run_json(thirds[1])["blocks"]["reused"] == len(blocks)


def test_a_merge_that_is_done_is_left_as_it_is(thirds, expected, tmp_path):
    merge(thirds, tmp_path / "run")
    lines = Lines()
    assert merge(thirds, tmp_path / "run", progress=lines).before
    assert "nothing is done" in lines.lines[-1]
    assert not merge(thirds, tmp_path / "run", force=True).before
    (tmp_path / "run" / "calls.tsv").write_text("edited")
    merge(thirds, tmp_path / "run")
    assert results(tmp_path / "run") == expected


def test_a_merge_of_parts_with_another_question_is_made_again(here, thirds, tmp_path):
    parts = copies(thirds, tmp_path)
    merge(parts, tmp_path / "run")
    before = results(tmp_path / "run")
    for k, part in enumerate(parts, 1):
        predicted(here, part, f"{k}/3", threshold=0.9)
    assert not merge(parts, tmp_path / "run").before
    assert run_json(tmp_path / "run")["settings"]["threshold"] == 0.9
    assert results(tmp_path / "run") != before


class Lines(Silent):
    def __init__(self):
        self.lines = []

    def line(self, text):
        self.lines.append(text)


def test_parts_by_workers_and_a_merge_without_torch_and_weights(here, expected, tmp_path):
    """As the hosts that merge often are: no GPU, no torch, no bundle."""
    bundle = Path(shutil.copytree(here / "km", tmp_path / "km"))
    parts = []
    for k in (1, 2):
        inputs = [here / "a.fa", here / "b.fa"]
        workers = {"workers": 1} if k == 2 else {}
        run(Settings.of(inputs, tmp_path / f"p{k}", bundle, part=f"{k}/2", **OPTIONS, **workers))
        parts.append(tmp_path / f"p{k}")
    shutil.rmtree(bundle)
    (tmp_path / "none").mkdir()
    for name in ("torch", "distributed", "dask"):
        (tmp_path / "none" / f"{name}.py").write_text(f"raise ImportError('{name} was imported')")
    path = os.pathsep.join([str(tmp_path / "none"), *filter(None, sys.path)])
    done = subprocess.run(
        [*PROGRAM, "merge", *map(str, parts), "-o", str(tmp_path / "run")],
        env=os.environ | {"PYTHONPATH": path, "CUDA_VISIBLE_DEVICES": ""},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 2, done.stderr
    assert results(tmp_path / "run") == expected


def test_inputs_may_have_moved(here, expected, tmp_path):
    for name in "ab":
        shutil.copy(here / f"{name}.fa", tmp_path)
    parts = []
    for k in (1, 2):
        inputs = [tmp_path / "a.fa", tmp_path / "b.fa"]
        run(Settings.of(inputs, tmp_path / f"p{k}", here / "km", part=f"{k}/2", **OPTIONS))
        parts.append(tmp_path / f"p{k}")
    (tmp_path / "a.fa").rename(tmp_path / "moved.fa")
    with pytest.raises(InputError, match=r"a\.fa.*say where it lies now with --input"):
        merge(parts, tmp_path / "run")
    merge(parts, tmp_path / "run", inputs=[tmp_path / "moved.fa", tmp_path / "b.fa"])
    assert results(tmp_path / "run") == expected
    with pytest.raises(SettingsError, match="the parts read 2 inputs, and 1 were named"):
        merge(parts, tmp_path / "run", inputs=[tmp_path / "moved.fa"], force=True)
    with pytest.raises(InputError, match="not as it was"):
        merge(parts, tmp_path / "again", inputs=[tmp_path / "b.fa", tmp_path / "moved.fa"])


# Parts that do not fit


def refused(parts: list[Path], out: Path) -> str:
    """The sentence of a merge that is refused, by the real program."""
    done = virnucpro("merge", *parts, "-o", out)
    assert done.code == 3, done.err
    assert not results(out)
    return done.error


def test_a_part_is_missing(thirds, tmp_path):
    assert refused(thirds[:1] + thirds[2:], tmp_path / "run") == (
        "part 2/3 missing: a run of 3 parts needs all of them; name their folders, too"
    )


def test_a_part_is_doubled(thirds, tmp_path):
    (again,) = copies(thirds[:1], tmp_path)
    sentence = refused([*thirds, again], tmp_path / "run")
    assert sentence == f"{again}: is part 1/3, as {thirds[0]} is; leave one of them out"


@pytest.mark.parametrize(
    ("change", "what"),
    [
        ({"part": "2/2"}, "its number of parts (2, not 3)"),
        ({"inputs": "other"}, "its inputs"),
        ({"bundle": "other"}, "its bundle"),
        ({"min_length": 100}, "its min_length (100, not none)"),
        ({"threshold": 0.7}, "its setting threshold (0.7, not 0.5)"),
    ],
)
def test_a_part_of_another_run(here, thirds, tmp_path, change, what):
    inputs, bundle, options = [here / "a.fa", here / "b.fa"], here / "km", dict(OPTIONS)
    if change.get("inputs"):
        (tmp_path / "b.fa").write_bytes((here / "b.fa").read_bytes().replace(b"ACG", b"ACT", 1))
        inputs[1] = tmp_path / "b.fa"
    elif change.get("bundle"):
        bundle = made_bundle(tmp_path / "other", block_nt=BLOCK_NT).path
    else:
        options |= change
    other = tmp_path / "other part"
    run(Settings.of(inputs, other, bundle, **{"part": "2/3", **options}))
    sentence = refused([thirds[0], other, thirds[2]], tmp_path / "run")
    assert sentence.startswith(f"{other}: is of another run than {thirds[0]}, by {what}")
    assert sentence.endswith("; run it again with the options and inputs of the others")


def test_a_part_that_is_no_part(here, expected, thirds, tmp_path):
    sentence = refused([here / "whole", *thirds], tmp_path / "run")
    assert sentence.startswith(f"{here / 'whole'}: is a whole run and no part of one; parts are")
    sentence = refused([tmp_path / "missing", *thirds], tmp_path / "run")
    assert str(tmp_path / "missing") in sentence


def test_a_part_does_not_go_where_a_whole_run_is_finished(here, expected):
    with pytest.raises(ResumeError, match=r"holds a finished run, which a part would replace"):
        predicted(here, here / "whole", "1/2")
    assert results(here / "whole") == expected


@pytest.mark.parametrize("how", ["cut", "altered", "deleted", "exchanged"])
def test_a_damaged_part_is_named_and_can_be_made_again(here, expected, thirds, tmp_path, how):
    parts = copies(thirds, tmp_path)
    path, other, *_ = sorted((parts[1] / ".virnucpro" / "blocks").glob("*.block"))
    data = path.read_bytes()
    if how == "cut":
        path.write_bytes(data[:-7])
    elif how == "altered":
        path.write_bytes(data[:100] + bytes([data[100] ^ 4]) + data[101:])
    elif how == "deleted":
        path.unlink()
    else:
        shutil.copy(other, path)
    sentence = refused(parts, tmp_path / "run")
    assert str(path) in sentence
    assert sentence.endswith("; part 2/3 must make it again: give its predict command again")
    predicted(here, parts[1], "2/3")
    merge(parts, tmp_path / "run")
    assert results(tmp_path / "run") == expected


def test_the_run_directory_may_be_none_of_the_parts(thirds):
    with pytest.raises(ResumeError, match=r"is one of the parts; choose another folder with -o"):
        merge(thirds, thirds[0])


def test_damaged_records_and_manifests_of_parts(thirds, tmp_path):
    parts = copies(thirds, tmp_path)
    document = run_json(parts[0])
    del document["part"]["of"]
    (parts[0] / "run.json").write_text(json.dumps(document))
    assert "run.json: this file is damaged" in refused(parts, tmp_path / "run")
    parts = copies(thirds, tmp_path / "more")
    manifest = parts[0] / ".virnucpro" / "bundle.toml"
    manifest.write_text(manifest.read_text() + "\n# edited\n")
    assert "its manifest of the bundle is damaged" in refused(parts, tmp_path / "run")


# Crash and resume


def test_a_killed_part_goes_on_and_a_killed_merge_too(here, expected, tmp_path):
    """TRAP D4."""
    part = tmp_path / "p1"
    inputs = [str(here / "a.fa"), str(here / "b.fa")]
    options = ["--write", "all", "--parquet", "--bundle", str(here / "km")]
    command = [*PROGRAM, "predict", *inputs, "-o", str(part), "--part", "1/2", "-q", *options]
    killed_when(command, part / ".virnucpro" / "blocks", "*.block")
    assert not results(part)
    with pytest.raises(ResumeError, match=r"p1: .*give (the same|its) predict command again"):
        merge([part], tmp_path / "run")
    predicted(here, part, "1/2")
    assert run_json(part)["blocks"]["reused"] > 0
    parts = [part, predicted(here, tmp_path / "p2", "2/2")]
    out = tmp_path / "run"
    command = [*PROGRAM, "merge", *map(str, parts), "-o", str(out), "-q"]
    killed_when(command, out / ".virnucpro" / "scratch", "*")
    merge(parts, out)
    assert results(out) == expected
    assert run_json(out)["status"] == "partial"


def killed_when(command: list[str], folder: Path, pattern: str) -> None:
    """Kill a command as soon as a file is there."""
    process = subprocess.Popen(command)
    while process.poll() is None and not any(folder.glob(pattern)):
        time.sleep(0.0005)
    process.send_signal(signal.SIGKILL)
    assert process.wait() in (-9, 0, 2)
