"""Sample sheets as spreadsheets, R and people write them."""

from pathlib import Path

import pytest

from command import dna, fasta
from virnucpro.errors import InputError
from virnucpro.reads.sample_sheet import SheetRow, read_sheet

PLAIN = "sample\tpath\nlake\tone.fa\nsea\ttwo.fa\n"
READ = [SheetRow("lake", Path("one.fa")), SheetRow("sea", Path("two.fa"))]


@pytest.fixture
def here(tmp_path, monkeypatch) -> Path:
    monkeypatch.chdir(tmp_path)
    for name in ("one.fa", "two.fa"):
        (tmp_path / name).write_bytes(fasta([("a", dna(90))]))
    return tmp_path


def sheet(data: str | bytes) -> list[SheetRow]:
    path = Path("sheet.tsv")
    path.write_bytes(data if isinstance(data, bytes) else data.encode())
    return read_sheet(path)


@pytest.mark.parametrize(
    "text",
    [
        PLAIN,
        PLAIN.replace("\n", "\t\n"),
        PLAIN.replace("\n", "\t\t\t\r\n") + "\t\t\t\r\n",
        PLAIN.replace("\n", "\r"),
        "\ufeff" + PLAIN,
        '"sample"\t"path"\n"lake"\t"one.fa"\n"sea"\t"two.fa"\n""\t""\n',
        "Sample\tPath\tMates\nlake\tone.fa\t\nsea\ttwo.fa\n",
        PLAIN.replace("lake", " lake ").replace("two.fa", "two.fa "),
    ],
)
def test_what_programs_add_is_nothing_to_a_sheet(here, text):
    assert sheet(text) == READ


@pytest.mark.parametrize("encoding", ["utf-16", "utf-16-le", "utf-16-be"])
def test_unicode_text_of_a_spreadsheet(here, encoding):
    mark = "" if encoding == "utf-16" else "\ufeff"
    assert sheet((mark + PLAIN).encode(encoding)) == READ


def test_text_in_the_encoding_of_a_country_is_refused(here):
    with pytest.raises(InputError, match="the sheet is not UTF-8 text; export it as UTF-8"):
        sheet(PLAIN.replace("lake", "s\u00e9e").encode("latin-1"))


def test_quotes_within_a_cell_stay(here):
    Path('a"b".fa').write_bytes(b">a\nACGT\n")
    (found,) = sheet('sample\tpath\nla"ke\ta"b".fa\n')
    assert found == SheetRow('la"ke', Path('a"b".fa'))
    (found,) = sheet('sample\tpath\nlake\t"a""b"".fa"\n')
    assert found.path == Path('a"b".fa')


def test_a_home_is_where_the_shell_has_it(here, monkeypatch):
    monkeypatch.setenv("HOME", str(here))
    found = sheet("sample\tpath\tmates\nlake\t~/one.fa\t~/two.fa\n")
    assert found == [SheetRow("lake", here / "one.fa", here / "two.fa")]
    Path("~nobody-here").write_bytes(b">a\nACGT\n")
    assert sheet("sample\tpath\nlake\t~nobody-here\n")[0].path == Path("~nobody-here")


def test_cells_that_no_column_names_are_refused(here):
    with pytest.raises(InputError, match="line 2: 3 columns, but the header has 2"):
        sheet("sample\tpath\t\nlake\tone.fa\tx\n")
