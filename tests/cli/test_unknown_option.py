"""Suggestions name options that exist and work."""

import re

import pytest
import rich_click as click

from command import virnucpro
from virnucpro.cli import program
from virnucpro.cli.predict import ELSEWHERE
from virnucpro.cli.unknown_option import MEANT


def said(*words: str) -> str:
    done = virnucpro(*words)
    assert done.code == 2
    return " ".join(re.sub("[\u2500-\u257f]", " ", done.err).split())


@pytest.mark.parametrize(
    ("option", "meant"),
    [
        ("--output", "--out"),
        ("--cpus", "--threads"),
        ("-t", "--threads"),
        ("--model", "--bundle"),
        ("--treshold", "--threshold"),
    ],
)
def test_the_option_that_is_meant_is_suggested(option, meant):
    assert f"'{meant}'" in said("predict", "x.fa", option, "4").partition("id you mean")[2]


def test_what_resembles_no_option_suggests_none():
    assert "Did you mean" not in said("predict", "x.fa", "--fast", "4")  # click: --mates, --part


def test_a_missing_option_says_what_it_is():
    assert "Missing option '-o' / '--out'. Run directory." in said("predict", "x.fa")


def test_inputs_need_no_option():
    for option in ("--input", "-i", "--reads"):
        text = said("predict", option, "x.fa", "-o", "run")
        assert "Inputs are named without an option." in text
        assert "Did you mean" not in text


def test_no_option_that_is_refused_is_suggested():
    for option in [*(name[:-1] for name in ELSEWHERE), "--output-dirs", "--model-types"]:
        text = said("predict", "x.fa", option, "x")
        assert not any(refused in text.partition("id you mean")[2] for refused in ELSEWHERE), text


def test_options_that_are_meant_exist():
    for command in ("predict", "validate"):
        options = [p for p in program.commands[command].params if isinstance(p, click.Option)]
        names = {name for option in options for name in (*option.opts, *option.secondary_opts)}
        assert not names & {other for others in MEANT.values() for other in others}
    assert MEANT.keys() <= {
        name for option in program.commands["predict"].params for name in option.opts
    }
