"""The short form of bench/fuzz.py: damaged inputs of fixed seeds, and any bytes at all."""

import tempfile
from pathlib import Path

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from command import made_bundle
from damaged_fasta import TOKENS, check_predict, check_reader, damaged
from damaged_formats import check_alignments, check_header, check_packed, check_sheet

CHUNK_NT = 80


@pytest.fixture(scope="module")
def bundle(tmp_path_factory) -> Path:
    folder = tmp_path_factory.mktemp("bundles") / "km"
    return made_bundle(folder, chunk_nt=CHUNK_NT, block_nt=2_000).path


def test_damaged_fasta_is_read_as_it_is_or_refused_in_a_sentence(tmp_path):
    for seed in range(400):
        try:
            check_reader(damaged(seed), tmp_path / "in.fa")
        except BaseException as error:
            error.add_note(f"seed {seed}")
            raise


@settings(max_examples=300, deadline=None)
@given(st.lists(st.sampled_from(TOKENS) | st.binary(max_size=3), max_size=12).map(b"".join))
@example(b"\x1f\x8b")
def test_any_bytes_are_read_as_they_are_or_refused_in_a_sentence(data):
    with tempfile.TemporaryDirectory() as folder:
        check_reader(data, Path(folder) / "in.fa")


def test_no_record_of_damaged_fasta_is_lost_on_the_way(bundle, tmp_path):
    for seed in range(1_000, 1_060):
        folder = tmp_path / str(seed)
        folder.mkdir()
        try:
            check_predict(damaged(seed), folder, bundle, CHUNK_NT)
        except BaseException as error:
            error.add_note(f"seed {seed}")
            raise


@pytest.mark.parametrize("check", [check_alignments, check_packed, check_header, check_sheet])
def test_no_record_of_another_damaged_format_is_lost_without_a_word(tmp_path, check):
    for seed in range(100):
        try:
            check(seed, tmp_path)
        except BaseException as error:
            error.add_note(f"seed {seed}")
            raise
