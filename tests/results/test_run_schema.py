"""run.json that is JSON, but not quite ours: a sentence, whoever reads it."""

import copy
import json
import random
from pathlib import Path

import pytest

from command import dna, fasta, made_bundle, virnucpro
from virnucpro.errors import InputError, ResumeError, VirnucproError
from virnucpro.report import remake
from virnucpro.results.record import RunRecord
from virnucpro.results.run_schema import checked_document
from virnucpro.run.predict import predict

VALUES = [None, {}, [], "x", "", -1, 0, 1.5, True, [{}], {"a": 1}, "\x1b[31m", 10**30, float("nan")]


@pytest.fixture(scope="module")
def run_dir(tmp_path_factory) -> Path:
    folder = tmp_path_factory.mktemp("run")
    bundle = made_bundle(folder / "km").path
    (folder / "in.fa").write_bytes(fasta([("a", dna(900))]))
    assert predict(folder / "in.fa", bundle, folder / "run").exit_code == 0
    return folder / "run"


@pytest.fixture
def document(run_dir) -> dict:
    """That of a whole run, which is put back."""
    text = (run_dir / "run.json").read_bytes()
    yield json.loads(text)
    (run_dir / "run.json").write_bytes(text)


def put(run_dir: Path, document: object) -> None:
    (run_dir / "run.json").write_text(json.dumps(document))


@pytest.mark.parametrize(
    ("change", "words"),
    [
        (lambda d: d.update(inputs=[{}]), "inputs[0].path is missing"),
        (lambda d: d.update(counts=None), "a run that is complete must have counts and an end"),
        (lambda d: d.update(finished=None), "a run that is complete must have counts and an end"),
        (lambda d: d["counts"].update(records="3"), "counts.records must be integer, got '3'"),
        (lambda d: d["counts"].pop("virus"), "counts.virus is missing"),
        (lambda d: d.update(status="done"), "status must be one of complete, partial"),
        (lambda d: d.update(schema_version=2), "schema_version must be 1, got 2"),
        (lambda d: d.update(started="2026-99-99T00:00:00Z"), "month must be in 1..12"),
        (lambda d: d["settings"].update(threshold="0.5"), "settings.threshold must be number"),
        (lambda d: d["bundle"].update(kind="\x1b[31m"), r"got '\x1b[31m'"),
        (lambda d: d.clear(), "schema_version is missing"),
    ],
)
def test_what_is_wrong_is_named(run_dir, document, change, words):
    change(document)
    put(run_dir, document)
    for raising in (ResumeError, InputError):
        with pytest.raises(raising) as caught:
            RunRecord.read(run_dir / "run.json", raising)
        assert words in str(caught.value)
        assert "was not written by virnucpro" in str(caught.value)
    with pytest.raises(InputError) as caught:
        remake([run_dir], run_dir / "page.html")
    assert words in str(caught.value)


def test_fields_of_later_versions_are_passed_over(run_dir, document):
    for place in (document, document["counts"], document["inputs"][0], document["bundle"]):
        place["later"] = {"a": 1}
    put(run_dir, document)
    assert RunRecord.read(run_dir / "run.json", InputError).counts.records == 1
    assert remake([run_dir], run_dir / "page.html").exists()
    done = virnucpro("predict", run_dir / "../in.fa", "-o", run_dir, "--bundle", run_dir / "../km")
    assert (done.code, "nothing is done" in done.err) == (0, True)


@pytest.mark.parametrize("text", [b"", b"[]", b"null", b"{", b"[" * 100_000, b"\xff", b"\x1f\x8b"])
def test_what_is_no_object_of_json(text):
    with pytest.raises(ValueError):
        checked_document(text)


def test_a_folder_in_its_place_is_a_sentence(run_dir, document):
    (run_dir / "run.json").unlink()
    (run_dir / "run.json").mkdir()
    try:
        done = virnucpro("report", run_dir, "-o", run_dir / "page.html")
        assert done.code == 1
        assert "run.json" in done.error
        arguments = (run_dir / "../in.fa", "-o", run_dir, "--bundle", run_dir / "../km")
        done = virnucpro("predict", *arguments)
        assert done.code == 3
        assert "run.json" in done.error
    finally:
        (run_dir / "run.json").rmdir()


def test_any_change_is_shown_or_refused_in_a_sentence(run_dir, document):
    """Of 300 changes, each by a seed, none ends in a bug."""
    places = list(within(document))
    for seed in range(300):
        rng = random.Random(seed)
        changed = copy.deepcopy(document)
        *way, last = rng.choice(places)
        place = changed
        for step in way:
            place = place[step]
        if rng.random() < 0.3:
            del place[last]
        else:
            place[last] = rng.choice(VALUES)
        put(run_dir, changed)
        try:
            remake([run_dir], run_dir / "page.html")
        except VirnucproError:
            continue
        except Exception as error:
            error.add_note(f"seed {seed}: {way} {last}")
            raise


def within(value: object, way: tuple = ()) -> list[tuple]:
    """The places in a document, but for the document."""
    inner = value.items() if isinstance(value, dict) else ()
    inner = enumerate(value) if isinstance(value, list) else inner
    found = []
    for name, each in inner:
        found += [(*way, name), *within(each, (*way, name))]
    return found
