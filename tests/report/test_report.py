"""report.html as text: its numbers, its words, names as data, and bounds. A browser comes later."""

import gzip
import hashlib
import json
import random
import re
import tomllib
from collections import Counter
from html.parser import HTMLParser
from importlib import resources
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from test_outputs_doc import a_run_json

from command import dna, fasta, made_bundle, run_json, table, virnucpro
from made_runs import Chunk, made_run, peak_of_reading
from virnucpro.bundle import embedded_bundles, load
from virnucpro.bundle.card import PREVALENCES, Accuracy, about_bundle
from virnucpro.bundle.write import write_bundle
from virnucpro.classifiers.complexity import complexities
from virnucpro.classifiers.kmer import KMER_WEIGHTS
from virnucpro.errors import InputError, ResumeError, SettingsError
from virnucpro.report import (
    drawings,
    names,
    notes,
    page,
    quantities,
    remake,
    runs,
    shown,
    words,
)
from virnucpro.report.runs import Run, read_run
from virnucpro.report.words import numbered
from virnucpro.results.files import RunFiles
from virnucpro.results.prior import Prior
from virnucpro.results.read import run_files
from virnucpro.results.worth import BINS, Worth
from virnucpro.run.predict import predict

MOST_BYTES = 5_000_000
NARROW = "\N{NO-BREAK SPACE}"
SCRIPT, END = "<script>alert(1)</script>", "</script><b>bold</b>"
RECORDS = [
    (SCRIPT, dna(2600, 1)),
    (END, dna(1800, 2)),
    ("<!--<script>", dna(700, 3)),
    ("quote\"'&amp;", dna(700, 4)),
    ("long", dna(9000, 5)),
    ("tiny", "ACGT"),
    ("unknown", "N" * 400),
    ("repeats", "AT" * 1500),
    ("", "ACGT" * 50),
]


class Parsed(HTMLParser):
    """Elements, their texts, and what scripts hold."""

    def __init__(self, text: str):
        super().__init__(convert_charrefs=True)
        self.tags, self.texts, self.attributes = Counter(), [], []
        self.scripts: dict[str, str] = {}
        self.rows: list[tuple[str, ...]] = []
        self._script, self._in_cell = None, False
        self.feed(text)
        self.close()

    def handle_starttag(self, tag, attributes):
        self.tags[tag] += 1
        self.attributes += [value for _, value in attributes]
        if tag == "script":
            self._script = dict(attributes).get("id", f"script {self.tags[tag]}")
            self.scripts[self._script] = ""
        elif tag == "tr":
            self.rows.append(())
        elif tag in ("td", "th") and self.rows:
            self.rows[-1] += ("",)
            self._in_cell = True

    def handle_endtag(self, tag):
        if tag == "script":
            self._script = None
        elif tag in ("td", "th"):
            self._in_cell = False

    def handle_data(self, data):
        if self._script:
            self.scripts[self._script] += data
        else:
            self.texts.append(data)
            if self._in_cell and self.rows:
                self.rows[-1] = (*self.rows[-1][:-1], self.rows[-1][-1] + data.replace(NARROW, " "))

    @property
    def text(self) -> str:
        return " ".join("".join(self.texts).replace(NARROW, " ").split())

    @property
    def data(self) -> dict:
        return json.loads(self.scripts["data"])


def parsed(path: Path) -> Parsed:
    return Parsed(path.read_text("utf-8"))


@pytest.fixture(scope="module")
def folder(tmp_path_factory) -> Path:
    return tmp_path_factory.mktemp("report")


@pytest.fixture(scope="module")
def run_dir(folder) -> Path:
    """A real run on names that are markup, and on sequences that are not called."""
    (folder / "lake <i>x.fasta").write_bytes(fasta(RECORDS))
    bundle = made_bundle(folder / "km").path
    predict([folder / "lake <i>x.fasta"], bundle, folder / "run")
    return folder / "run"


# Numbers


def test_the_page_counts_what_the_run_counted(run_dir):
    counts = run_json(run_dir)["counts"]
    rows = [row[:2] for row in parsed(run_dir / "report.html").rows]
    records, chunks = (rows[i : i + 12] for i, row in enumerate(rows) if row[0] == "virus")
    assert records[:4] == [
        ("virus", f"{counts['virus']:,}"),
        ("others", f"{counts['others']:,}"),
        ("not called", f"{counts['none']:,}"),
        ("failed", f"{counts['failed']:,}"),
    ]
    assert records[4] == ("all records", f"{counts['records']:,}")
    end = next(i for i, row in enumerate(chunks) if row[0] == "all chunks")
    assert sum(int(number.replace(",", "")) for _, number in chunks[:end]) == counts["chunks"]
    assert dict(chunks)["not called: too short"] == str(counts["chunk_status"]["too_short"])
    assert dict(chunks)["not called: unknown letters"] == "1"


def test_what_failed_is_counted_apart_from_what_has_no_call(tmp_path):
    contigs = [
        *[(f"v{i}", [Chunk(0.9)]) for i in range(3)],
        *[(f"f{i}", [Chunk(None, "failed")]) for i in range(4)],
        *[(f"n{i}", [Chunk(None, "too_short")]) for i in range(5)],
    ]
    made_run(tmp_path, contigs)
    found = parsed(remake([tmp_path]))
    rows = dict(row[:2] for row in found.rows[:5])
    expected = {"virus": "3", "others": "0", "not called": "5", "failed": "4", "all records": "12"}
    assert rows == expected


def test_the_page_draws_the_rows_of_the_tables(run_dir):
    (run,) = parsed(run_dir / "report.html").data["runs"]
    contigs, calls = table(run_dir / "contigs.tsv"), table(run_dir / "calls.tsv")
    assert [row[2] for row in run["rows"]] == [row["contig"] for row in contigs]
    for told, row in zip(run["rows"], contigs, strict=True):
        numbers = [row[name] for name in ("record", "length_nt", "chunks", "virus_chunks")]
        assert [str(told[i]) for i in (1, 3, 4, 5)] == numbers
        assert told[6] == (float(row["p_virus"]) if row["p_virus"] else None)
    drawn = {track["record"]: track for track in run["tracks"]}
    assert set(drawn) == {int(r["record"]) for r in contigs if int(r["chunks"]) > 1}
    for record, track in drawn.items():
        chunks = [row for row in calls if int(row["record"]) == record]
        assert track["start"] == [int(row["start"]) for row in chunks]
        assert track["end"] == [int(row["end"]) for row in chunks]
        assert track["score"] == [round(float(row["p_virus"]), 3) for row in chunks]
        assert track["viral"] == [row["call"] == "virus" for row in chunks]
    scores = run["scores"]["chunks"]
    assert sum(scores["virus"] + scores["others"]) == sum(row["p_virus"] != "" for row in calls)
    assert sum(scores["virus"][:25]) == sum(scores["others"][25:]) == 0


@pytest.mark.parametrize("bundle", embedded_bundles(), ids=lambda bundle: bundle.name)
def test_expected_precision_is_that_of_the_card(bundle):
    """The card took it from exact rates; ours are rounded to four decimals."""
    about = json.loads(json.dumps(about_bundle(bundle)))
    accuracy = Accuracy.of(about)
    rates = accuracy.at(bundle.threshold, bundle.chunk_nt)
    expected = [
        bundle.card["expected_precision"][f"at_{name}_percent_virus"] for name in ("0.1", "1", "10")
    ]
    assert [rates.precision(p) for p in PREVALENCES] == pytest.approx(expected, abs=3e-4)
    for row in bundle.card["by_threshold"]:
        found = accuracy.at(row["threshold"], bundle.chunk_nt).precision(0.01)
        # 4 of the 1,991 other fragments lie above the highest threshold.
        assert found == pytest.approx(row["precision_at_1_percent"], rel=0.05)
    for row in bundle.card["by_length"]:
        if row["length_nt"] != bundle.chunk_nt:
            found = accuracy.at(bundle.threshold, row["length_nt"])
            assert found.recall == row["recall"]
            assert found.precision(0.1) == pytest.approx(row["at_10_percent_virus"], abs=3e-4)


def test_a_bundle_without_measurements_says_so(run_dir):
    assert run_json(run_dir)["bundle"]["accuracy"] is None
    assert "Nothing was measured of this bundle" in parsed(run_dir / "report.html").text


def test_a_threshold_that_was_not_measured_promises_nothing(tmp_path):
    files = made_run(tmp_path, [("a", [Chunk()])], settings={"threshold": 0.6})
    text = parsed(remake([files.run_dir])).text
    assert "was not measured at the threshold 0.6" in text
    assert "of 100 chunks called virus are viral" not in text
    made_run(tmp_path, [("a", [Chunk()])], settings={"threshold": 0.9})
    text = parsed(remake([files.run_dir])).text
    cut = next(row for row in load("mini-500").card["by_threshold"] if row["threshold"] == 0.9)
    right = f"{100 * cut['precision_at_1_percent']:.0f}"
    assert f"{right}of 100 chunks called virus are viral, where 1 % of all are" in text


def test_short_reads_are_judged_by_what_was_measured_on_short_reads(tmp_path):
    files = made_run(tmp_path, [(f"r{i}", [Chunk(0.2, length_nt=148)]) for i in range(9)])
    run = read_run(files)
    assert words.rates_of(run).length_nt == 150
    (note,) = [n for n in notes.notes(run) if n.title == "The sequences are short."]
    row = next(r for r in load("mini-500").card["by_length"] if r["length_nt"] == 150)
    found = f"{100 * row['recall']:.0f} % of the viral fragments of 150 nt"
    assert f"As single chunks at the threshold 0.5, it finds {found} and calls" in note.text


def test_the_report_says_how_few_calls_of_reads_are_right(tmp_path):
    """Records are told by what the calibration measured of records, others by their chunks."""
    shortest = load("mini-500").part("calibration")["by_length"][0]
    right = f"{100 * shortest['right_at_1_percent']:.0f} are viral where 1 % of the sample is"
    some = f"and {100 * shortest['right_at_10_percent']:.0f} where 10 % is"

    def said(length_nt: int, **changes) -> str:
        reads = [(f"r{i}", [Chunk(0.9, length_nt=length_nt)]) for i in range(9)]
        found = notes.notes(read_run(made_run(tmp_path, reads, **changes)))
        return next(n.text for n in found if n.title == "The sequences are short.")

    of_records = load("mini-500").record_threshold
    asked = {"settings": {"threshold": of_records}}
    records = said(150, **asked)
    at = f"at the threshold {of_records:g}, of 100 records called virus"
    assert f"{at}, {right}, {some}." in records
    assert "of 100 records" not in said(200, **asked)
    chunks = said(150)
    row = next(r for r in load("mini-500").card["by_length"] if r["length_nt"] == 150)
    at = "at the threshold 0.5, of 100 chunks called virus"
    assert f"{at}, {100 * row['at_1_percent_virus']:.0f} are" in chunks


def a_worth() -> dict:
    return Worth(
        called=6,
        scored=6,
        wrong=3.0,
        fewest_wrong=3.0,
        most_wrong=3.0,
        wrong_bound=None,
        more_virus=False,
        prior=Prior.fixed(0.05, "default"),
        threshold=0.82,
        fdr=None,
        null="null: bacteria",
        negatives=9,
        smallest_q=0.1,
        refusal="",
        viral_negatives="",
        beyond=0,
        by_threshold=(),
        origins={},
        notes={},
        scores=(0,) * BINS,
        null_scores=(0,) * BINS,
    ).as_dict()


def test_whole_records_are_measured_by_the_lengths_of_this_run(tmp_path):
    bundle = load("mini-500")
    lengths = [150] * 3 + [400] * 2 + [5 * 500]
    chunks = [[Chunk(0.9, length_nt=min(n, 500))] * max(1, n // 500) for n in lengths]
    records = [(f"r{i}", of_record) for i, of_record in enumerate(chunks)]
    records.append(("none", [Chunk(None, "too_short", length_nt=600)]))
    asked = {"threshold": bundle.record_threshold}
    worth = a_worth()
    run = read_run(made_run(tmp_path, records, settings=asked, worth=worth))
    rows = words.rates_of_records(run)
    measured = bundle.part("calibration")["by_length"]
    assert [(row.length_nt, run.by_length[row.length_nt]["records"]) for row in rows] == [
        (0, 3),
        (275, 2),
        (2_050, 1),
    ]
    assert [(row.recall, row.false_positive_rate) for row in rows] == [
        (measured[i]["recall"], measured[i]["false_positive_rate"]) for i in (0, 1, 3)
    ]
    for row, i in zip(rows, (0, 1, 3), strict=True):
        assert row.precision(0.01) == pytest.approx(measured[i]["right_at_1_percent"], abs=1e-3)
    shares = [
        [quantities.rounded_percent(measured[i][n]) for n in ("recall", "false_positive_rate")]
        for i in (0, 1, 3)
    ]
    said = (
        f"each called as a whole at a score of {bundle.record_threshold:g}, this bundle calls "
        f"viral: below 275 nt, {shares[0][0]} of the viral ones and {shares[0][1]} of the others; "
        f"from 275 to 550 nt, {shares[1][0]} and {shares[1][1]}; from 2,050 to 6,050 nt, "
        f"{shares[2][0]} and {shares[2][1]}."
    )
    assert said in words.methods(run)
    assert "at a threshold of 0.5" not in words.methods(run)
    text = parsed(remake([tmp_path])).text
    assert said in text
    assert f"By length of record, threshold {bundle.record_threshold:g}" in text
    assert "Records, virus: of this run. Found, wrong, right: measured on windows of such" in text
    assert "Others called virus, by group, fragments of 500 nt, threshold 0.5" in text
    for changes in (
        {"settings": {"threshold": 0.6, "chunk_threshold": 0.5}, "worth": worth},
        {"settings": asked | {"chunk_threshold": 0.5}, "worth": worth | {"fdr": 0.1}},
    ):
        other = read_run(made_run(tmp_path, records, **changes))
        assert words.rates_of_records(other) == []
        of_chunks = "these rates are of single chunks at the threshold of chunks, not of the calls"
        assert of_chunks in words.methods(other)
        assert "By length of record" not in parsed(remake([tmp_path])).text


def test_the_table_of_inputs_names_both_files_of_a_pair(tmp_path):
    plain = {"sample": "lake", "sha256": "0" * 64, "bytes": 9, "records": 2}
    pair = plain | {"path": "s_R1.fq", "mates": "s_R2.fq"}
    alone = plain | {"sample": "sea", "path": "t.fq", "mates": None}
    files = made_run(tmp_path, [("a", [Chunk()])], inputs=[pair, alone])
    rows = parsed(remake([files.run_dir])).rows
    named = [row[1] for row in rows if row[:1] in (("lake",), ("sea",)) and row[-1] == "0" * 64]
    assert named == ["s_R1.fq and s_R2.fq", "t.fq"]
    page_text = parsed(remake([files.run_dir], paths=False)).text
    assert "s_R2.fq" not in page_text


def test_lengths_of_records_are_read_in_any_order(tmp_path):
    files = made_run(tmp_path, [("a", [Chunk(0.9)]), ("b", [Chunk(0.9, length_nt=100)])])
    document = json.loads(files.run_json.read_text())
    rates = {"recall": 0.5, "false_positive_rate": 0.1}
    rows = [{"from_nt": nt, **rates} for nt in (300, 0, 400, 10**15)]
    document["bundle"]["of_records"] = rows
    files.run_json.write_text(json.dumps(document))
    found = read_run(files).by_length
    assert {nt: n["records"] for nt, n in found.items()} == {0: 1, 300: 0, 400: 1, 10**15: 0}


def test_a_bundle_without_a_calibration_measures_no_records(tmp_path):
    run = read_run(made_run(tmp_path, [("a", [Chunk(0.9)])], bundle="kmer-500"))
    assert run.bundle["of_records"] == words.rates_of_records(run) == []
    assert "each a single chunk, this bundle finds" in words.methods(run)
    assert "these rates are of single chunks" not in words.methods(run)


def test_what_was_measured_on_longer_fragments_is_not_promised_for_reads(tmp_path):
    reads = [(f"r{i}", [Chunk(0.2, length_nt=148)]) for i in range(9)]
    files = made_run(tmp_path, reads, settings={"threshold": 0.9})
    text = parsed(remake([files.run_dir])).text
    assert (
        "Half of the chunks of this run have 148 nt or less: on these it does worse, and how much "
        "at the threshold 0.9 was not measured." in text
    )
    assert "of 100 chunks called virus are viral" not in text
    made_run(tmp_path, reads)
    text = parsed(remake([files.run_dir])).text
    row = next(r for r in load("mini-500").card["by_length"] if r["length_nt"] == 150)
    assert f"fragments of 150 nt this bundle finds {100 * row['recall']:.0f} %" in text
    right = f"{100 * row['at_1_percent_virus']:.0f}"
    assert f"{right}of 100 chunks called virus are viral, where 1 % of all are" in text
    assert "it does worse" not in text


@pytest.mark.parametrize(
    ("chunks", "threshold", "said"), [(3, 0.9, True), (1, 0.9, False), (3, 0.5, False)]
)
def test_rates_of_chunks_are_not_promised_for_long_records(tmp_path, chunks, threshold, said):
    contig = [Chunk(0.2) for _ in range(chunks)]
    files = made_run(tmp_path, [("a", contig)], settings={"threshold": threshold})
    text = parsed(remake([files.run_dir])).text
    told = (
        "of the others virus. This is of single chunks: the score of a longer record is the mean "
        "of its chunks, and reaches 0.9 more rarely, so fewer are found. How many of"
    )
    assert (told in text) == said
    assert ("of the others virus. How many of" in text) != said


def test_the_two_sets_of_numbers_are_told_apart(tmp_path):
    files = made_run(tmp_path, [("a", [Chunk()])])
    text = parsed(remake([files.run_dir])).text
    assert "By threshold, fragments of 500 nt" in text
    assert (
        "By threshold: on 3,991 fixed fragments of 500 nt. By length: on other fragments, drawn "
        "for each length from the same sequences; so the two differ a little" in text
    )
    done = virnucpro("bundles", "show", "mini-500")
    assert "are of 3,991 fixed fragments of the chunk length; by_length is of others" in done.out
    means = "A longer sequence, whose score is a mean, rarely reaches a high threshold."
    assert means not in done.out  # it has a calibration
    assert means in virnucpro("bundles", "show", "mini-500-v1").out


# Words


CASES = {
    "The input is empty.": ([], {}),
    "This is not the published VirNucPro model.": ([("a", [Chunk()])], {}),
    "The calls may all be mistakes.": ([(f"{i}", [Chunk(i / 1000)]) for i in range(550)], {}),
    "The threshold was set to 0.7.": ([("a", [Chunk()])], {"settings": {"threshold": 0.7}}),
    "1 chunk is shorter than anything that was measured.": (
        [("a", [Chunk(), Chunk(0.4, "below_validated_length", length_nt=70)])],
        {},
    ),
    "33.3 % of the chunks have no call.": (
        [("a", [Chunk(), Chunk(), Chunk(None, "ambiguous", "")])],
        {},
    ),
    "1 record could not be processed.": ([("a", [Chunk()]), ("b", [Chunk(None, "failed")])], {}),
    "This run failed.": (
        [("a", [Chunk()])],
        {"status": "failed", "error": "/secret/in.fa: broke off"},
    ),
    "This run was interrupted.": ([], {"status": "interrupted", "error": "terminated"}),
    "contigs.tsv does not belong to run.json.": (
        [("a", [Chunk()])],
        {"counts": a_run_json()["counts"] | {"records": 2}},
    ),
}


@pytest.mark.parametrize("title", CASES)
def test_what_to_beware_of_is_said_when_it_is_so(tmp_path, title):
    for other, (contigs, changes) in CASES.items():
        found = notes.notes(read_run(made_run(tmp_path, contigs, **changes)))
        assert (title in [note.title for note in found]) == (
            other == title or (title.startswith("This is not") and other != "The input is empty.")
        ), other


def test_calls_above_the_rate_of_mistakes_are_not_doubted(tmp_path):
    rate = 100 * load("mini-500").card["fixed_fragments"]["false_positive_rate"]
    for virus, doubted in ((int(rate), True), (int(rate) + 1, False)):
        contigs = [(f"{i}", [Chunk(0.9 if i < virus else 0.1)]) for i in range(100)]
        found = notes.notes(read_run(made_run(tmp_path, contigs)))
        assert ("The calls may all be mistakes." in [note.title for note in found]) == doubted


@pytest.mark.parametrize(
    ("share", "text"),
    [(0, "0 %"), (0.0004, "< 0.1 %"), (0.4, "40.0 %"), (0.9999, "> 99.9 %"), (1, "100 %")],
)
def test_shares_are_never_rounded_to_nothing_or_all(share, text):
    assert quantities.percent(share) == text


def test_the_methods_paragraph_states_the_run(run_dir):
    run = read_run(RunFiles(run_dir))
    counts, bundle = run_json(run_dir)["counts"], run_json(run_dir)["bundle"]
    paragraph = words.methods(run)
    for fact in (
        f"its bundle km (sha256 {bundle['sha256']}), which is not the published VirNucPro model",
        "chunks of 500 nt",
        "called viral at a score of 0.5 or more",
        f"Of 9 sequences ({counts['bases']:,} nt), {counts['virus']} were called viral",
        "Li et al. 2025",
    ):
        assert fact in paragraph
    assert " ".join(paragraph.split()) in parsed(run_dir / "report.html").text


# Names are data


def test_names_stay_names(run_dir):
    found = parsed(run_dir / "report.html")
    assert found.tags["script"] == 1 + len(page.SCRIPTS)
    assert found.tags["b"] == 2  # the two headlines
    assert found.tags["i"] == Counter(found.attributes)["swatch fill-virus"] * 0 + sum(
        str(value).startswith("swatch") for value in found.attributes
    )
    told = [row[2] for row in found.data["runs"][0]["rows"]]
    assert told[:4] == [SCRIPT, END, "<!--<script>", "quote\"'&amp;"]
    assert "lake <i>x" in found.text
    text = (run_dir / "report.html").read_text("utf-8")
    for raw in ("<script>alert", "</script><b>", "<!--<script>", "<i>x"):
        assert raw not in text


ELEMENT = page.environment().from_string('<p title="{{ text }}">{{ text }}</p>')
DATA = page.environment().from_string('<p><script id="data">{{ document|tojson }}</script></p>')
texts = st.text(st.sampled_from("<>\"'&%; \n") | st.characters(exclude_categories=()), max_size=40)


@settings(deadline=None)
@given(texts)
def test_any_text_comes_out_as_it_went_in(text):
    marked = names.visible(text).replace("\r", "")
    found = Parsed(ELEMENT.render(text=text))
    shown = marked.replace(" %", f"{NARROW}%")
    assert "".join(found.texts) == shown
    assert found.attributes == [shown]
    assert found.tags == {"p": 1}


@settings(deadline=None)
@given(
    st.dictionaries(
        texts, texts | st.lists(st.none() | st.floats(allow_nan=False, allow_infinity=False))
    )
)
def test_any_data_comes_out_as_they_went_in(document):
    written = DATA.render(document=document)
    found = Parsed(written)
    assert found.data == document
    assert found.tags == {"p": 1, "script": 1}
    assert written.isascii()


def test_nothing_invisible_stands_in_a_name():
    assert names.visible("a\u202eb\x00c\ud800d e\u2066") == "a\ufffdb\ufffdc\ufffdd e\ufffd"


def test_a_name_that_would_fill_the_page_keeps_its_beginning_and_its_end():
    longest = "".join(chr(0x1F300 + i) for i in range(names.LONGEST_NAME))
    assert names.short(longest) == longest
    for name in (f"{longest}x", f"{longest}{longest}"):
        beginning, end = names.short(name).split("…")
        assert len(beginning) + 1 + len(end) == names.LONGEST_NAME
        assert name.startswith(beginning)
        assert name.endswith(end)
        assert abs(len(beginning) - len(end)) <= 1


def test_the_table_and_the_captions_hold_whole_names(tmp_path):
    long = [f"{'A00551:128:' * 60}{i}" for i in range(5)]
    made_run(tmp_path, [(name, [Chunk(), Chunk(0.7)]) for name in long])
    (run,) = parsed(remake([tmp_path])).data["runs"]
    assert [row[2] for row in run["rows"]] == long
    assert sorted(track["name"] for track in run["tracks"]) == long


def test_the_script_finds_each_field_of_a_row_by_its_name(tmp_path):
    made_run(tmp_path, many(3))
    data = parsed(remake([tmp_path])).data
    script = resources.files("virnucpro.report").joinpath("page.js").read_text("utf-8")
    known = {*data["columns"]["rows"], *data["columns"]["pairs"]}
    assert known == {*re.findall(r"\brow\.(\w+)", script)} - {"append"}  # of a table row
    assert {*re.findall(r'\bat: "(\w+)"', script)} <= known
    assert {len(row) for row in data["runs"][0]["rows"]} == {len(data["columns"]["rows"])}
    assert not re.search(r"\brow\[\d", script)


def test_long_names_of_reads_stay_apart_where_they_are_cut(tmp_path):
    made_run(tmp_path, [(f"{'A00551:128:' * 120}{i}", [Chunk()]) for i in range(5)])
    (run,) = parsed(remake([tmp_path])).data["runs"]
    assert len({row[2] for row in run["rows"]}) == 5
    assert {len(row[2]) for row in run["rows"]} == {names.LONGEST_WHOLE}


def test_no_paths(folder, run_dir):
    document = json.loads((run_dir / "run.json").read_text())
    changed = document | {"status": "failed", "error": f"{folder}/lake: it broke off"}
    other = folder / "told"
    other.mkdir()
    for path in run_dir.iterdir():
        (other / path.name).write_bytes(path.read_bytes())
    (other / "run.json").write_text(json.dumps(changed | {"command": ["virnucpro", str(folder)]}))
    assert str(folder) in remake([other]).read_text()
    out = remake([other], folder / "none.html", paths=False)
    assert str(folder) not in out.read_text()
    assert "lake <i>x" in parsed(out).text
    assert "This run failed." in parsed(out).text


# What is missing, damaged or in the way


@pytest.mark.parametrize("name", ["run.json", "contigs.tsv", "calls.tsv", "viral.fasta"])
def test_a_missing_file_costs_only_what_it_held(folder, run_dir, tmp_path, name):
    for path in run_dir.iterdir():
        if path.name != name:
            (tmp_path / path.name).write_bytes(path.read_bytes())
    found = parsed(remake([tmp_path]))
    assert f"{name} is missing. What they would show" not in found.text
    assert f"{name} is missing. What it would show is left out of this page." in found.text
    assert ("9 records called virus" in found.text) == (name != "contigs.tsv")
    assert ("How it was run" in found.text) == (name != "run.json")
    assert ("Along the sequences" in found.text) == (name not in ("calls.tsv",))


def test_a_run_that_left_no_tables(tmp_path):
    document = {"status": "interrupted", "exit_code": 130, "error": "interrupted", "counts": None}
    files = made_run(tmp_path / "run", [], **document)
    files.contigs.unlink()
    files.calls.unlink()
    with pytest.raises(
        InputError, match=r"run\.json: this run is not finished, so there is nothing"
    ):
        remake([tmp_path / "run"])
    assert not files.report.exists()
    made_run(tmp_path / "other", [("a", [Chunk()])])
    text = parsed(remake([tmp_path / "run", tmp_path / "other"], tmp_path / "both.html")).text
    assert "This run was interrupted." in text
    assert "It left no tables." in text
    assert "contigs.tsv" not in text.partition("It left no tables.")[0]


@pytest.mark.parametrize(
    ("name", "line", "number"),
    [
        ("contigs.tsv", "lake\t1\ta\n", 3),
        ("contigs.tsv", "lake\tx\ta\t1\t1\t1\t1\t\t\tnone\tok\t\t\t\t\t\n", 3),
        ("calls.tsv", "lake\t1\ta\t1\t0\t4\tF9\t\tnone\tok\t\t\n", 3),
    ],
)
@pytest.mark.parametrize("rows", [1, 5, 6])
def test_a_damaged_row_is_named(tmp_path, monkeypatch, name, line, number, rows):
    monkeypatch.setattr("virnucpro.results.read.BLOCK_ROWS", 3)
    made_run(tmp_path, [("a", [Chunk()])] * rows)
    whole = (tmp_path / name).read_text().splitlines(keepends=True)[1]
    with (tmp_path / name).open("a") as file:
        file.write(line + whole)
    where = f"{name}, line {rows - 1 + number}: this row is damaged"
    with pytest.raises(InputError, match=where):
        remake([tmp_path])


def test_a_run_of_a_version_that_wrote_less(tmp_path):
    bundle = {"name": "old", "sha256": "0" * 64, "kind": "kmer", "chunk_nt": 500}
    files = made_run(tmp_path, [("a", [Chunk()])], bundle=bundle)
    text = parsed(remake([tmp_path])).text
    assert "This is perhaps the published VirNucPro model." in text
    assert "Nothing was measured of this bundle" in text
    assert "its bundle old" in words.methods(read_run(files))


def test_a_folder_of_runs_is_no_run(tmp_path):
    made_run(tmp_path / "lake", [("a", [Chunk()])], prefix="P")
    with pytest.raises(InputError, match="run directory of predict, or those in it, as lake"):
        run_files(tmp_path)


def test_what_is_no_run_is_refused(tmp_path):
    with pytest.raises(InputError, match="no such folder"):
        run_files(tmp_path / "nothing")
    with pytest.raises(InputError, match="holds no run"):
        run_files(tmp_path)
    for text in ("[1]", "{", '{"a": 1}', "\udcff"):
        (tmp_path / "run.json").write_bytes(text.encode("utf-8", "surrogateescape"))
        with pytest.raises(InputError, match=r"damaged|not written by virnucpro"):
            remake([tmp_path])
    assert [path.name for path in tmp_path.iterdir()] == ["run.json"]


def test_a_page_replaces_a_page_and_nothing_else(tmp_path):
    made_run(tmp_path / "run", [("a", [Chunk()])])
    first = remake([tmp_path / "run"])
    assert first == tmp_path / "run" / "report.html"
    before = first.read_bytes()
    assert remake([tmp_path / "run"]).read_bytes() == before
    other = tmp_path / "thesis.html"
    other.write_text("<html>years of work</html>")
    for path in (other, tmp_path):
        with pytest.raises(ResumeError):
            remake([tmp_path / "run"], path)
    assert other.read_text() == "<html>years of work</html>"


# Several runs


def test_several_runs_stand_side_by_side(tmp_path):
    for prefix, p_virus in (("A", 0.9), ("B", 0.1)):
        made_run(tmp_path / "flat", [(f"of {prefix}", [Chunk(p_virus)])], prefix=prefix)
    made_run(tmp_path / "third", [("c", [Chunk()])], bundle="kmer-500")
    with pytest.raises(SettingsError, match="3 runs; name the page of them with -o"):
        remake([tmp_path / "flat", tmp_path / "third"])
    found = parsed(remake([tmp_path / "flat", tmp_path / "third"], tmp_path / "all.html"))
    assert "3 runs side by side" in found.text
    assert "have different bundles" in found.text
    compared = [row[:5] for row in found.rows if row and row[0][:2] in ("1.", "2.", "3.")]
    assert compared == [
        ("1. lake (flat/A)", "mini-500-v2", "0.5", "1", "1 (100 %)"),
        ("2. lake (flat/B)", "mini-500-v2", "0.5", "1", "0 (0 %)"),
        ("3. lake (third)", "kmer-500-v1", "0.5", "1", "1 (100 %)"),
    ]
    assert [run["rows"][0][2] for run in found.data["runs"]] == ["of A", "of B", "c"]
    assert "Details of 1. lake (flat/A)2. lake (flat/B)3. lake (third)" in found.text
    bare = remake([tmp_path / "flat", tmp_path / "third"], tmp_path / "bare.html", paths=False)
    assert "Details of 1. lake2. lake3. lake" in parsed(bare).text


def test_only_runs_of_one_name_are_told_apart_by_their_folders(tmp_path):
    samples = {"c1": "contigs", "c2": "contigs", "c3": "lake"}
    runs = [
        Run(RunFiles(tmp_path / folder / "run"), {"inputs": [{"sample": sample}]})
        for folder, sample in samples.items()
    ]
    assert numbered(runs, True) == ["1. contigs (c1/run)", "2. contigs (c2/run)", "3. lake"]
    assert numbered(runs, False) == ["1. contigs", "2. contigs", "3. lake"]


def test_the_overview_of_several_runs_marks_those_to_beware_of_and_says_why(tmp_path):
    made_run(tmp_path, [("a", [Chunk()])], prefix="A")
    broken = {"status": "failed", "exit_code": 1, "error": "/data/in.fa.gz: the stream is cut off"}
    made_run(tmp_path, [("b", [Chunk()])], prefix="B", **broken)
    contigs = [("c", [Chunk(None, "failed")]), ("d", [Chunk()])]
    made_run(tmp_path, contigs, prefix="C", status="partial")
    made_run(tmp_path, [("e", [Chunk()])], prefix="D").run_json.unlink()
    for prefix in "ABCD":
        (tmp_path / f"{prefix}.viral.fasta").write_text(">v\n" + "ACGT" * 125 + "\n")
    found = parsed(remake([tmp_path], tmp_path / "all.html"))
    names = [row[0] for row in found.rows if row and row[0][:2] in ("1.", "2.", "3.", "4.")]
    assert names == [
        "1. lake (A)",
        "2. lake (B) failed",
        "3. lake (C) partial",
        "4. lake (D) unknown",
    ]
    overview = found.text.split("Details of")[0]
    assert "1. lake (A):" not in overview
    assert (
        "2. lake (B): This run failed. /data/in.fa.gz: the stream is cut off. The tables hold what "
        "was read before that."
    ) in overview
    assert "3. lake (C): 1 record could not be processed. C.failed.tsv lists them" in overview
    assert "4. lake (D): D.run.json is missing." in overview
    bare = parsed(remake([tmp_path], tmp_path / "bare.html", paths=False))
    assert "2. lake: This run failed. The reason is in run.json." in bare.text
    assert "/data/in.fa.gz" not in bare.text


def test_more_runs_than_a_page_has_room_for(tmp_path, monkeypatch):
    monkeypatch.setattr("virnucpro.report.MOST_RUNS", 2)
    for prefix in "ABC":
        made_run(tmp_path, [], prefix=prefix)
    with pytest.raises(SettingsError, match="MultiQC"):
        remake([tmp_path], tmp_path / "all.html")


# Bounds


def many(number: int, name: str = "r"):
    rng = random.Random(number)
    return ((f"{name}{i}", [Chunk(rng.random())] * rng.randint(1, 3)) for i in range(number))


def test_a_big_run_gives_a_page_of_bounded_size_that_says_what_it_shows(tmp_path):
    made_run(tmp_path, many(12_000, "\N{DNA DOUBLE HELIX}<&" * 40))
    path = remake([tmp_path])
    assert path.stat().st_size < MOST_BYTES
    (run,) = parsed(path).data["runs"]
    assert run["records"] == 12_000
    assert 1_000 < len(run["rows"]) < 10_000
    scores = sorted((float(r["p_virus"]) for r in table(tmp_path / "contigs.tsv")), reverse=True)
    assert sorted((row[6] for row in run["rows"]), reverse=True) == scores[: len(run["rows"])]
    assert max(len(row[2]) for row in run["rows"]) > names.LONGEST_NAME
    (tmp_path / "small").mkdir()
    made_run(tmp_path / "small", many(12_000))
    assert len(parsed(remake([tmp_path / "small"])).data["runs"][0]["rows"]) == shown.MOST_ROWS


def test_names_of_drawn_records_do_not_fill_a_page_of_many_runs(tmp_path):
    name = "\N{DNA DOUBLE HELIX}" * 900
    made_run(tmp_path, [(f"{name}{i}", [Chunk()] * 3) for i in range(60)])
    path = remake([tmp_path] * 20, tmp_path / "all.html")
    assert path.stat().st_size < MOST_BYTES
    tracks = parsed(path).data["runs"][0]["tracks"]
    assert {len(track["name"]) for track in tracks} == {names.LONGEST_NAME}


def test_as_many_runs_as_a_page_takes_fit(tmp_path):
    made_run(tmp_path, many(150, "a_rather_long_name_of_an_assembled_contig_"))
    assert remake([tmp_path] * 100, tmp_path / "all.html").stat().st_size < MOST_BYTES


def test_memory_does_not_grow_with_the_input(tmp_path, monkeypatch):
    monkeypatch.setattr(shown, "MOST_ROWS", 250)
    monkeypatch.setattr("virnucpro.results.read.BLOCK_ROWS", 250)
    peaks = []
    for place, number in enumerate((6_000, 750, 6_000)):  # the first fills caches
        peaks.append(peak_of_reading(made_run(tmp_path / str(place), many(number))))
    assert peaks[2] < 1.15 * peaks[1]


@pytest.mark.parametrize("chunks", [999, 1_000, 1_001, 4_500])
def test_a_chromosome_is_drawn_in_points_that_add_up(tmp_path, chunks):
    rng = random.Random(chunks)
    made = [Chunk(rng.random() if rng.random() < 0.9 else None) for _ in range(chunks)]
    files = made_run(tmp_path, [("chr", made), ("plasmid", [Chunk(0.9), Chunk(0.2)])])
    track = next(t for t in read_run(files).tracks if t.shown.row.contig == "chr")
    assert len(track.start) <= shown.POINTS_A_TRACK
    assert (track.start[0], track.end[-1]) == (0, 500 * chunks)
    assert track.end[:-1] == track.start[1:]
    called = [chunk.p_virus for chunk in made if chunk.p_virus is not None]
    assert sum(track.chunks) == chunks
    assert sum(track.called) == len(called)
    assert sum(track.virus) == sum(p >= 0.5 for p in called)
    total = sum(p * n for p, n in zip(track.p, track.called, strict=True) if n)
    assert total == pytest.approx(sum(called), abs=1e-3)
    assert np.nanmax(track.high) == pytest.approx(max(called), abs=1e-6)


def test_the_points_of_all_tracks_are_bounded(tmp_path):
    files = made_run(tmp_path, [(f"c{i}", [Chunk()] * (900 + i)) for i in range(60)])
    run = read_run(files)
    assert 10 < len(run.tracks) < 60
    assert sum(len(track.start) for track in run.tracks) <= shown.MOST_POINTS
    assert run.counts["of several chunks"] == 60
    assert "of the 60 records of more than one chunk" in parsed(remake([tmp_path])).text


def test_what_is_drawn_is_the_longest_and_the_most_viral(tmp_path):
    contigs = [(f"c{i}", [Chunk(i / 300)] * (2 + (300 - i) % 7)) for i in range(300)]
    contigs[17] = ("prophage", [Chunk(0.9)] * 30 + [Chunk(0.1)] * 60)
    contigs[250] = ("host", [Chunk(0.05)] * 120)
    names = [track.shown.row.contig for track in read_run(made_run(tmp_path, contigs)).tracks]
    assert names[0] == "prophage"
    assert {"host", "c299", "c298"} <= set(names)
    assert len(names) == len(set(names)) <= 3 * shown.MOST_TRACKS


# Low complexity

random_dna = st.integers(0, 10**6).map(lambda seed: dna(300, seed).encode())
repeats = st.builds(
    lambda unit, times: unit.encode() * times,
    st.text("ACGT", min_size=1, max_size=3),
    st.integers(100, 200),
)


@settings(deadline=None)
@given(random_dna, repeats)
def test_repeats_are_of_low_complexity_and_random_letters_are_not(plain, repeated):
    found = complexities([plain, repeated, repeated + plain, b"N" * 300])
    assert found[0].share == 0
    assert found[1].share == 1
    joined = len(repeated)
    assert found[2].low_share(0, joined) > 0.9
    assert found[2].low_share(joined + 32, joined + 300) == 0
    assert found[3].share == 0
    assert complexities([plain[:40]])[0].share == 0


@settings(deadline=None)
@given(st.lists(random_dna | repeats | st.binary(max_size=200), min_size=1, max_size=6))
def test_sequences_are_judged_alike_alone_and_together(sequences):
    together = complexities(sequences)
    assert len(together) == len(sequences)
    for sequence, found in zip(sequences, together, strict=True):
        (alone,) = complexities([sequence])
        assert alone.low.tolist() == found.low.tolist()
        assert alone.share == found.share == pytest.approx(found.low.mean())
        (lower,) = complexities([sequence.lower().replace(b"t", b"u")])
        assert lower.low.tolist() == found.low.tolist()


def test_genes_are_rarely_of_low_complexity(shared):
    import gzip

    with gzip.open(shared / "data" / "val" / "viral.fasta.gz", "rb") as file:
        sequences = [line.rstrip() for line in file if not line.startswith(b">")][:200]
    assert sum(c.share >= runs.LOW_SHARE for c in complexities(sequences)) <= 2


def test_repeats_called_virus_are_pointed_at(tmp_path):
    """With the threshold at 0 every record that has a score is called virus."""
    (tmp_path / "in.fa").write_bytes(fasta(RECORDS))
    made_bundle(tmp_path / "km")
    predict([tmp_path / "in.fa"], tmp_path / "km", tmp_path / "run", threshold=0)
    found = parsed(tmp_path / "run" / "report.html")
    assert "2 of 7 records called virus are mostly repeats of few letters." in found.text
    (run,) = found.data["runs"]
    assert {row[2]: row[10] for row in run["rows"] if row[10]} == {"repeats": 100, "": 100}
    low = {track["name"]: track["low"] for track in run["tracks"]}
    assert set(low["repeats"]) == {100}
    assert set(low["long"]) == {0}
    # Another viral.fasta than contigs.tsv speaks of marks nothing.
    with (tmp_path / "run" / "viral.fasta").open("ab") as file:
        file.write(b">one more\nACGT\n")
    found = parsed(remake([tmp_path / "run"]))
    assert "viral.fasta does not hold the records that contigs.tsv calls virus" in found.text
    assert not any(row[10] for row in found.data["runs"][0]["rows"])
    assert not any(track["low"] for track in found.data["runs"][0]["tracks"])


# Regions


def measured_bundle(directory: Path):
    """A k-mer bundle whose card has rates, so that it finds regions."""
    plain = made_bundle(directory.parent / "plain")
    rates = {"recall": 0.9, "false_positive_rate": 0.1}
    with (plain.path / "bundle.toml").open("rb") as file:
        manifest = tomllib.load(file)
    fields = {name: manifest[name] for name in manifest if name not in ("files", "format")}
    card = {"fixed_fragments": {"viral": 999, "others": 999, "auroc": 0.9, **rates}}
    arrays = {KMER_WEIGHTS: plain.arrays(KMER_WEIGHTS)}
    return write_bundle(directory, {**fields, "name": directory.name, "card": card}, arrays)


def along(bundle, text: str, seed: int) -> str:
    """A sequence of chunks that the bundle calls virus (v) or others (o)."""
    pieces = [dna(500, f"{seed} {i}") for i in range(8 * len(text))]
    scores = bundle.classifier().score(pieces).p_virus
    found = {
        "v": [p for p, score in zip(pieces, scores, strict=True) if score > 0.6],
        "o": [p for p, score in zip(pieces, scores, strict=True) if score < 0.4],
    }
    return "".join(found[letter].pop() for letter in text)


@pytest.fixture(scope="module")
def prophage(tmp_path_factory) -> Path:
    return run_with_regions(tmp_path_factory.mktemp("prophage"))


def run_with_regions(folder: Path) -> Path:
    """A run with regions on records that are called others, and on two that are called virus."""
    bundle = measured_bundle(folder / "km")
    host, virus = "o" * 30 + "v" * 12 + "o" * 40 + "v" * 9, "v" * 10
    records = [
        ("read", dna(150)),
        ("host one", along(bundle, host, 1)),
        ("virus", along(bundle, virus, 2)),
        ("repeats", along(bundle, "o", 3) + "AT" * 2000),
        ("host two", along(bundle, "o" * 20 + "v" * 9, 4)),
    ]
    (folder / "in.fa").write_bytes(fasta(records))
    predict(folder / "in.fa", folder / "km", folder / "run")
    return folder / "run"


def test_the_page_draws_the_regions_of_the_table(prophage):
    rows = table(prophage / "regions.tsv")
    assert [(row["contig"], row["start"], row["end"]) for row in rows] == [
        ("host", "15000", "21000"),
        ("host", "41000", "45500"),
        ("virus", "0", "5000"),
        ("repeats", "500", "4500"),
        ("host", "10000", "14500"),
    ]
    found = parsed(prophage / "report.html")
    (run,) = found.data["runs"]
    drawn = {track["record"]: track["regions"] for track in run["tracks"]}
    assert drawn[2] == [[15_000, 21_000, 12, 12], [41_000, 45_500, 9, 9]]
    assert (drawn[3], drawn[5]) == ([[0, 5_000, 10, 10]], [[10_000, 14_500, 9, 9]])
    assert run["tracks"][0]["record"] == 2  # the most of it viral
    assert drawn[4] == [[500, 4_500, 8, 8]]


def test_the_page_says_of_regions_what_the_log_says(prophage, tmp_path):
    said = "5 viral regions on 4 of the records; 3 on records not called virus. viral.fasta holds"
    held = "holds the records called virus, and the regions on the others."
    text = parsed(prophage / "report.html").text
    assert (said in text, held in text) == (True, True)
    log = (prophage / "log.txt").read_text()
    assert "5, on 4 of the records; viral.fasta holds 3 on records not called virus" in log
    bundle = load(prophage.parent / "km")
    (tmp_path / "in.fa").write_bytes(fasta([("virus", along(bundle, "v" * 10, 2))]))
    outcome = predict(tmp_path / "in.fa", bundle.path, tmp_path / "run")
    text = parsed(outcome.files.report).text
    assert "1 viral region on 1 of the records. viral.fasta holds the records called virus." in text


def test_regions_in_viral_fasta_are_not_taken_for_records(prophage, tmp_path):
    read = read_run(RunFiles(prophage))
    names = [x for x in (prophage / "viral.fasta").read_text().split("\n") if x.startswith(">")]
    assert sum(":" in name for name in names) == len(read.excerpts) == 3
    assert read.low_seen == run_json(prophage)["counts"]["virus"] == len(names) - 3
    assert read.low == 1
    assert not read.notes
    assert "does not hold the records" not in parsed(prophage / "report.html").text
    for path in prophage.iterdir():
        (tmp_path / path.name).write_bytes(path.read_bytes())
    rows = (tmp_path / "regions.tsv").read_text().splitlines(keepends=True)
    (tmp_path / "regions.tsv").write_text("".join([*rows, rows[-1].replace("in\t5", "in\t99")]))
    assert "regions.tsv tells of records that contigs.tsv does not hold" in "".join(
        read_run(RunFiles(tmp_path)).notes
    )
    (tmp_path / "regions.tsv").unlink()
    assert "regions.tsv is missing" in parsed(remake([tmp_path])).text


def test_a_run_without_sequences_misses_none(prophage, tmp_path):
    predict(prophage.parent / "in.fa", prophage.parent / "km", tmp_path / "run", write="none")
    assert "missing" not in parsed(tmp_path / "run" / "report.html").text


# The whole program


def test_predict_and_report_write_the_same_page(run_dir):
    before = (run_dir / "report.html").read_bytes()
    done = virnucpro("report", run_dir)
    assert (done.code, done.out) == (0, "")
    assert done.err == f"the page is {run_dir / 'report.html'}\n"
    assert (run_dir / "report.html").read_bytes() == before


def test_gzipped_tables_give_the_same_page(folder, run_dir, tmp_path):
    predict([folder / "lake <i>x.fasta"], folder / "km", tmp_path / "run", tables="gz")
    assert not (tmp_path / "run" / "contigs.tsv").exists()
    found = parsed(tmp_path / "run" / "report.html")
    assert found.data == parsed(run_dir / "report.html").data
    assert "missing" not in found.text
    before = (tmp_path / "run" / "report.html").read_bytes()
    assert remake([tmp_path / "run"]).read_bytes() == before
    packed = tmp_path / "run" / "contigs.tsv.gz"
    packed.write_bytes(packed.read_bytes()[:-20])
    with pytest.raises(InputError, match=r"contigs\.tsv\.gz: this file is damaged"):
        remake([tmp_path / "run"])


@pytest.mark.parametrize(
    ("lengths", "median"),
    [({}, None), ({7: 1}, 7), ({100: 4, 500: 5}, 500), ({500: 5, 100: 6}, 100)],
)
def test_the_typical_chunk_is_the_median(lengths, median):
    run = runs.Run(RunFiles(Path()), {}, lengths_nt=Counter(lengths))
    assert words.typical_nt(run) == median


def test_virus_stands_on_others_in_a_small_histogram():
    scores = runs.Histogram()
    scores.others[:2], scores.virus[0] = [3, 2], 1
    assert list(drawings.columns_of(scores)) == [
        ("others", 0, "6.00", "18.00"),
        ("virus", 0, "0.00", "6.00"),
        ("others", 2, "12.00", "12.00"),
    ]


def test_a_run_that_went_on_tells_no_speed(tmp_path):
    timings = {"total_s": 9.0, "startup_s": 1.0, "blocks_s": 7.0, "scoring_s": 5.0, "tables_s": 0.5}
    for reused, told in ((0, True), (3, False)):
        blocks = {"total": 9, "reused": reused, "damaged": 0}
        made_run(tmp_path, [("a", [Chunk()] * 70)], timings=timings, blocks=blocks)
        text = parsed(remake([tmp_path])).text
        assert ("10 chunks and 5 kb a second once started" in text) == told
        assert ("3 blocks had been scored by an earlier process" in text) != told


def test_an_empty_and_a_broken_input_have_a_page(tmp_path):
    made_bundle(tmp_path / "km")
    (tmp_path / "empty.fa").write_bytes(b"")
    (tmp_path / "broken.fa.gz").write_bytes(
        bytes.fromhex("1f8b0800000000000003") + b"no deflate stream"
    )
    for name, code in (("empty.fa", 0), ("broken.fa.gz", 1)):
        out = tmp_path / name.split(".")[0]
        done = virnucpro("predict", tmp_path / name, "-o", out, "--bundle", tmp_path / "km", "-q")
        assert done.code == code
    assert "The input is empty." in parsed(tmp_path / "empty" / "report.html").text
    assert "This run failed." in parsed(tmp_path / "broken" / "report.html").text


def test_what_is_vendored_is_what_was_published():
    vendor = resources.files("virnucpro.report").joinpath("vendor")
    readme = vendor.joinpath("README.md").read_text("utf-8")
    listed = dict(re.findall(r"\| `([\w.]+)` .* `([0-9a-f]{64})` \|", readme))
    assert sorted(listed) == ["d3.min.js", "plot.umd.min.js"]
    for name, sha256 in listed.items():
        assert hashlib.sha256(vendor.joinpath(name).read_bytes()).hexdigest() == sha256
    for script in page.SCRIPTS:
        code = resources.files("virnucpro.report").joinpath(script).read_text("utf-8")
        assert not re.search("</script|<!--", code, re.IGNORECASE)  # it would end its element
    licences = vendor.joinpath("LICENSES.txt").read_text("utf-8")
    assert "-->" not in licences
    for name in ("d3 7.9.2", "@observablehq/plot 0.6.17", "interval-tree-1d"):
        assert name in licences


def test_a_page_of_a_run_that_failed_is_not_in_the_way_of_the_next_start(tmp_path):
    made_bundle(tmp_path / "km")
    whole = gzip.compress(b"".join(b">r%d\n%s\n" % (i, 90 * b"ACGGTC") for i in range(99)))
    reads, run = tmp_path / "in.fa.gz", tmp_path / "run"
    command = ("predict", reads, "-o", run, "--bundle", tmp_path / "km", "-q")
    reads.write_bytes(whole[: len(whole) // 2])
    assert virnucpro(*command).code == 1
    assert virnucpro("report", run).code == 0
    reads.write_bytes(whole)
    done = virnucpro(*command)
    assert done.code == 0, done.err
    (run / "report.html").write_text("mine")
    (run / "run.json").unlink()
    assert virnucpro(*command).code == 3
