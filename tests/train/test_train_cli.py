"""What train and evaluate refuse before they read a sequence."""

import pytest
from click.testing import CliRunner

from command import made_bundle
from virnucpro.classifiers.chunk_status import MIN_NT
from virnucpro.cli.evaluate import evaluate
from virnucpro.cli.train import SHORTEST_CHUNK_NT, train
from virnucpro.errors import SettingsError

DATA = ("--positive", "missing.fa", "--negative", "missing.fa", "-o", "out")
ENCODERS = ("--dnabert", "d", "--esm", "e")


@pytest.mark.parametrize(
    "arguments",
    [
        ("kmer", "--chunk", "0"),
        ("kmer", "--fragments", "0"),
        ("kmer", "--seed", "-1"),
        ("head", *ENCODERS, "--epochs", "0"),
        ("head", *ENCODERS, "--seed", "-1"),
        ("encoder", "--chunk", "0"),
        ("encoder", "--seed", "-1"),
        ("encoder", "--steps", "0"),
        ("encoder", "--batch-nt", "0"),
        ("encoder", "--max-minutes", "-1"),
    ],
    ids=" ".join,
)
def test_a_number_out_of_range_is_refused_by_its_name(arguments):
    done = CliRunner().invoke(train, [*arguments, *DATA])
    assert done.exit_code == 2
    assert f"Invalid value for '{arguments[-2]}'" in " ".join(done.output.split())
    assert "missing.fa" not in done.output


def test_no_chunk_is_shorter_than_what_can_be_called():
    assert SHORTEST_CHUNK_NT == MIN_NT


@pytest.mark.parametrize("path", ["missing/x.json", "file/x.json", "folder"])
def test_json_that_cannot_be_written_is_refused_at_once(path, tmp_path):
    (tmp_path / "file").touch()
    (tmp_path / "folder").mkdir()
    bundle = made_bundle(tmp_path / "b").path
    data = ["--positive", "missing.fa", "--negative", "missing.fa"]
    done = CliRunner().invoke(evaluate, [str(bundle), *data, "--json", str(tmp_path / path)])
    assert isinstance(done.exception, SettingsError)
    assert str(done.exception).startswith(str(tmp_path / path))
    assert "--json" in str(done.exception)
