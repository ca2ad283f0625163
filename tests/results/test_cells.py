"""Columns of a table, against a parse cell by cell."""

import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from virnucpro.results.cells import cells_of

WORDS = st.text(st.characters(exclude_characters="\t\n"), max_size=9)
WHOLE = st.integers(0, 10**17).map(str) | st.sampled_from(["-4", "007"])
DECIMAL = st.floats(-1e9, 1e9).map("{:.6f}".format)
OTHER = st.sampled_from(["", "1.5", "0.00012", "1e-05", "-0.000000", "inf", "12", ".123456"])


def column(texts: list[str], place: int):
    lines = "".join("\t".join(["x"] * place + [text, "ü"]) + "\n" for text in texts)
    return cells_of(lines.encode("utf-8", "surrogatepass"), place + 2, [place])[0]


@given(st.lists(WORDS, min_size=1) | st.lists(st.just("same"), min_size=1), st.integers(0, 2))
def test_texts_are_those_of_the_cells(texts, place):
    data = [text.encode("utf-8", "surrogatepass").decode("utf-8", "replace") for text in texts]
    found = column(texts, place)
    assert found.texts() == [*found] == [found[i] for i in range(len(found))] == data
    assert found.same() == (data[0] if len({*texts}) == 1 else None)


@given(st.lists(WHOLE, min_size=1), st.integers(0, 2))
def test_whole_numbers_are_those_of_the_cells(texts, place):
    assert column(texts, place).whole_numbers().tolist() == [int(text) for text in texts]


@given(st.lists(DECIMAL | st.just(""), min_size=1) | st.lists(DECIMAL | OTHER, min_size=1))
def test_decimals_are_to_the_bit_those_of_the_cells(texts):
    wanted = np.array([float(text) if text else math.nan for text in texts])
    assert column(texts, 1).decimals().tobytes() == wanted.tobytes()


@pytest.mark.parametrize("text", ["x", "1x", "1\0", "--1", "1-2", "0x10", "1.2.3", "1,000000"])
def test_what_is_no_number_is_refused(text):
    for texts in ([text], ["123", text], [text, "0.123456"], ["0.123456", "", f"{text}.123456"]):
        if any(not t.isdecimal() for t in texts):
            with pytest.raises(ValueError):
                column(texts, 0).whole_numbers()
        with pytest.raises(ValueError):
            column(texts, 0).decimals()


@pytest.mark.parametrize(
    "data", [b"a\tb\nc\n", b"a\nb\tc\n", b"a\tb\tc\n", b"a\tb\tc\td\n", b"\n\n"]
)
def test_rows_of_another_width_are_refused(data):
    with pytest.raises(ValueError, match="a row of other width"):
        cells_of(data, 2, [0])
