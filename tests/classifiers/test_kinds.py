"""What scores, plans and counts by the kind of a bundle takes no unknown kind for another."""

import json
from dataclasses import replace
from importlib import resources

import pytest

from command import dna, fasta
from virnucpro import bundle
from virnucpro.bundle.prescreen import Prescreen, check_pair
from virnucpro.calls import KINDS
from virnucpro.classifiers import classifier_of, head_of, plan_of
from virnucpro.classifiers.cascade import Cuts
from virnucpro.classifiers.plan import chosen
from virnucpro.report.words import _METHODS
from virnucpro.run.settings import Settings
from virnucpro.run.validate import inspect


@pytest.fixture
def unknown() -> bundle.Bundle:
    return replace(bundle.load("mini-500"), kind="waves")


@pytest.mark.parametrize("dispatch", [classifier_of, head_of, plan_of])
def test_an_unknown_kind_is_not_taken_for_another(unknown, dispatch):
    with pytest.raises(AssertionError, match="'waves'"):
        dispatch(unknown)


def test_an_unknown_kind_has_no_precision(unknown):
    with pytest.raises(AssertionError, match="'waves'"):
        chosen(unknown, "cpu", "auto")


def test_an_unknown_kind_does_not_look_first(unknown):
    large = bundle.load("mini-500")
    with pytest.raises(AssertionError, match="'waves'"):
        check_pair(large, unknown)
    with pytest.raises(AssertionError, match="'waves'"):
        Prescreen(unknown, Cuts((0,), (0.1,))).plan(plan_of(large), "auto")


def test_chunks_have_no_status_for_an_unknown_kind(unknown, tmp_path):
    (tmp_path / "in.fa").write_bytes(fasta([("r", dna(500))]))
    with pytest.raises(AssertionError, match="'waves'"):
        inspect(Settings.of([tmp_path / "in.fa"], tmp_path / "run", "mini-500"), unknown)


def test_run_json_and_the_methods_paragraph_know_every_kind():
    schema = json.loads((resources.files("virnucpro.results") / "run.schema.json").read_text())
    assert schema["properties"]["bundle"]["properties"]["kind"]["enum"] == [*KINDS]
    assert _METHODS.keys() == {*KINDS}
