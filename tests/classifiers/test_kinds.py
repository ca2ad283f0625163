"""Every dispatch on the kind of a bundle knows every kind, and takes no other for one of them."""

import json
from dataclasses import replace
from importlib import resources

import pytest

from virnucpro import bundle
from virnucpro.calls import KINDS
from virnucpro.classifiers import classifier_of, head_of, plan_of
from virnucpro.report.words import _METHODS


@pytest.mark.parametrize("dispatch", [classifier_of, head_of, plan_of])
def test_an_unknown_kind_is_not_taken_for_another(dispatch):
    with pytest.raises(AssertionError, match="'waves'"):
        dispatch(replace(bundle.load("mini-500"), kind="waves"))


def test_run_json_and_the_methods_paragraph_know_every_kind():
    schema = json.loads((resources.files("virnucpro.results") / "run.schema.json").read_text())
    assert schema["properties"]["bundle"]["properties"]["kind"]["enum"] == [*KINDS]
    assert _METHODS.keys() == {*KINDS}
