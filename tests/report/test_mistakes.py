"""What report, MultiQC and the methods paragraph say of expected mistakes."""

import json
from collections import Counter
from pathlib import Path

import numpy as np
import pytest
from test_report import Parsed

from command import dna, fasta, made_bundle, run_json, table
from made_calibrations import a_calibration, calibrated
from virnucpro.report.data import data_of
from virnucpro.report.notes import notes
from virnucpro.report.page import page_of
from virnucpro.report.runs import Run, read_run
from virnucpro.report.words import methods
from virnucpro.results.files import RunFiles
from virnucpro.run.predict import predict

NEGATIVES = {"bacteria": [np.linspace(-4, 3, 300).tolist()] * 5}


@pytest.fixture(scope="module")
def folder(tmp_path_factory) -> Path:
    folder = tmp_path_factory.mktemp("worth")
    bundle = calibrated(made_bundle(folder / "km"), a_calibration(NEGATIVES, threshold=0.6)).path
    path = folder / "in.fa"
    records = [(f"r{i}", dna(200 + 61 * i, i)) for i in range(60)]
    path.write_bytes(fasta([*records, ("repeat", "AC" * 300)]))
    predict(path, bundle, folder / "cut", prior=0.3)
    predict(path, bundle, folder / "rate", fdr=0.5)
    predict(path, bundle, folder / "none", fdr=0.001)
    predict(path, folder / "km", folder / "plain")
    low = a_calibration({"bacteria": [np.linspace(-4, -2, 300).tolist()] * 5})
    predict(path, calibrated(made_bundle(folder / "low"), low).path, folder / "found", fdr=0.4)
    return folder


def of(folder: Path, name: str) -> Run:
    return read_run(RunFiles(folder / name))


def test_what_is_drawn_and_what_is_compared_with(folder):
    run = of(folder, "none")
    text = page_of([run]).decode()
    assert "of the negatives of the calibration" in text
    assert "--negatives, which q_value compares with" not in text
    first = run.worth["sentence"][0].upper()
    assert f'<p class="lead">{first}{run.worth["sentence"][1:8]}' in text
    run.document = {**run.document, "negatives": {"path": "own.fa", "sha256": "0" * 64}}
    text = page_of([run]).decode()
    assert "Those of --negatives, which q_value compares with, are not drawn." in text


def test_long_names_of_samples_are_short_in_headings():
    name = "a" * 150 + "z" * 150
    run = Run(RunFiles(Path()), {}, records={name: Counter(records=1)})
    assert run.name == "a" * 50 + "…" + "z" * 49


def test_the_section_says_the_sentence_and_what_other_thresholds_call(folder):
    text = page_of([of(folder, "cut")]).decode()
    worth = run_json(folder / "cut")["worth"]
    assert worth["sentence"] in text.replace("\N{NO-BREAK SPACE}", " ")
    assert "<h2>Expected mistakes</h2>" in text
    for at in worth["by_threshold"]:
        wrong = f"{at['wrong']:.1f}" if at["wrong"] < 9.95 else f"{at['wrong']:,.0f}"
        assert f"<td>{at['called']:,}</td><td>{wrong}</td>" in text
    (used,) = (at for at in worth["by_threshold"] if at["threshold"] == 0.6)
    assert (used["called"], used["wrong"]) == (worth["called"], worth["wrong"])
    assert text.count('<tr class="current"><th scope="row">0.6</th>') == 1
    assert "<h3>Notes on the sequences</h3>" in text
    assert "if 30.0\N{NO-BREAK SPACE}% of the records are viral" in text
    assert "low complexity" in text
    assert 'class="null"' in text
    assert "Expected mistakes" not in page_of([of(folder, "plain")]).decode()


@pytest.mark.parametrize("name", ["cut", "rate", "plain"])
def test_the_table_of_records_tells_what_each_call_is_worth(folder, name):
    (run,) = data_of([of(folder, name)])["runs"]
    rows = table(folder / name / "contigs.tsv")
    assert len(run["rows"]) == len(rows) == 61
    for told, row in zip(run["rows"], rows, strict=True):
        numbers = [float(row[c]) if row[c] else None for c in ("probability", "q_value")]
        assert [*told[12:]] == [*numbers, row["origin"], row["note"]]
    assert run["rows"][-1][15] == ("" if name == "plain" else "low_complexity")
    assert (run["rows"][0][12] is None) == (name == "plain")


def test_multiqc_has_the_number(folder):
    for name in ("cut", "rate", "plain"):
        (row,) = json.loads((folder / name / "virnucpro_mqc.json").read_text())["data"].values()
        worth = run_json(folder / name)["worth"]
        assert row["expected_wrong"] == (None if worth is None else worth["most_wrong"])


def test_a_rate_is_what_everything_says_of_mistakes(folder):
    worth, page = run_json(folder / "found")["worth"], page_of([of(folder, "found")]).decode()
    most = round(0.4 * worth["called"], 1)
    assert most > 1
    assert (worth["fewest_wrong"], worth["wrong"], worth["most_wrong"]) == (0, most, most)
    assert f"of these at most {most:,.0f} (40 %) are expected to be wrong" in worth["sentence"]
    assert worth["sentence"] in (folder / "found" / "log.txt").read_text()
    assert worth["sentence"] in page.replace("\N{NO-BREAK SPACE}", " ")
    for name in ("virnucpro_mqc.json", "virnucpro_general_mqc.json"):
        (row,) = json.loads((folder / "found" / name).read_text())["data"].values()
        assert row["expected_wrong"] == most


def test_a_rate_that_calls_nothing_expects_no_mistake(folder):
    worth = run_json(folder / "none")["worth"]
    assert [worth[name] for name in ("called", "fewest_wrong", "wrong", "most_wrong")] == [0] * 4


def test_the_methods_say_how_records_were_called(folder):
    assert "at a calibrated score of 0.6 or more" in methods(of(folder, "cut"))
    assert "at a false discovery rate of 0.5 by conformal p-values against 300" in methods(
        of(folder, "rate")
    )
    assert "the mean over its chunks" in methods(of(folder, "plain"))


def test_a_run_whose_thresholds_lack_its_own_can_still_be_shown(folder):
    run = of(folder, "cut")
    rows = [at for at in run.worth["by_threshold"] if at["threshold"] != 0.6]
    run.document = run.document | {"worth": run.worth | {"by_threshold": rows}}
    text = page_of([run]).decode()
    assert '<th scope="row">0.5</th>' in text
    assert '<th scope="row">0.6</th>' not in text
    rate = [at["threshold"] for at in of(folder, "rate").worth["by_threshold"]]
    assert rate == [at["threshold"] for at in rows]


def test_a_page_says_that_records_were_called_by_q_value(folder):
    cut, rate = of(folder, "cut"), of(folder, "rate")
    text = page_of([rate]).decode()
    assert "<dt>records called at</dt><dd>q_value &lt;= 0.5</dd>" in text
    assert "records have none, for they were called virus at q_value &lt;= 0.5." in text
    assert "0.6 for records" not in text
    assert "<dt>threshold</dt>" not in text
    text = page_of([cut]).decode()
    assert "<dt>threshold</dt><dd>0.6</dd>" in text
    assert "0.6 for records" in text
    assert "q_value &lt;=" not in text
    assert [run["threshold"] for run in data_of([cut, rate])["runs"]] == [0.6, None]
    assert rate.threshold == cut.threshold
    both = page_of([cut, rate]).decode()
    assert '<td class="n">0.6</td>' in both
    assert '<td class="n">q_value &lt;= 0.5</td>' in both
    assert "have different thresholds; their calls cannot be compared" in both


def test_the_overview_of_runs_tells_how_many_calls_are_expected_to_be_wrong(folder):
    names = ("cut", "rate", "none", "plain", "found")
    both = Parsed(page_of([of(folder, name) for name in names]).decode())
    head, *rows = both.rows[:6]
    told = [row[head.index("expected wrong")] for row in rows]
    worth = {name: run_json(folder / name)["worth"] for name in names}
    assert f"of these {told[0]} are expected to be wrong" in worth["cut"]["sentence"]
    assert f"of these {told[4]} (40 %)" in worth["found"]["sentence"]
    assert (worth["rate"]["called"], worth["none"]["called"]) == (0, 0)
    assert (*told[1:4],) == ("0", "0", "\N{EN DASH}")
    assert {len(row) for row in rows} == {len(head)}
    alike = Parsed(page_of([of(folder, "plain")] * 2).decode())
    assert "expected wrong" not in alike.rows[0]
    assert {len(row) for row in alike.rows[:3]} == {len(head) - 1}


def test_a_refusal_is_the_first_thing_to_read(folder):
    titles = [note.title for note in notes(of(folder, "none"))]
    assert "Nothing is called." in titles
    assert not any(title.startswith("The threshold was set") for title in titles)
    assert "Nothing is called." not in [note.title for note in notes(of(folder, "cut"))]
