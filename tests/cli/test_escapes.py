"""Escape sequences in names are printed escaped, wherever they come from."""

import pytest

from command import dna, fasta, made_bundle, virnucpro

RED = "\x1b[31m"


@pytest.fixture
def here(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    made_bundle(tmp_path / "km")
    text = (tmp_path / "km" / "bundle.toml").read_text()
    red = text.replace("random weights, for tests", "random\\u001b[31m weights")
    (tmp_path / "km" / "bundle.toml").write_text(red)
    (tmp_path / f"in{RED}.fa").write_bytes(fasta([(f"a{RED}", dna(300))]))
    return tmp_path


@pytest.mark.parametrize(
    "words",
    [
        ("predict", f"in{RED}.fa", "-o", "run", "--bundle", "km"),
        ("predict", f"no{RED}.fa", "-o", "run", "--bundle", "km"),
        ("validate", f"in{RED}.fa", "--bundle", "km"),
        ("bundles", "show", "km"),
        ("bundles", "show", "km", "--all"),
        ("bundles", "verify", f"no{RED}"),
        ("predict", f"in{RED}.fa", "-o", f"run{RED}", "--bundle", "km", "-v"),
    ],
)
def test_nothing_that_a_terminal_obeys_is_printed(here, words):
    done = virnucpro(*words)
    assert "\x1b" not in done.out + done.err
    assert "\\x1b[31m" in done.out + done.err
    for log in here.glob("run*/log.txt"):
        assert "\x1b" not in log.read_text()
