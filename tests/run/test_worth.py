"""The program on a calibrated bundle: columns, options, refusals, parts, and starting again."""

import gzip
import json
import os
import shutil
from importlib import resources
from pathlib import Path

import jsonschema
import numpy as np
import pytest

from command import dna, fasta, made_bundle, results, run_json, table, virnucpro
from made_calibrations import a_calibration, calibrated
from virnucpro import predict as virnucpro_predict
from virnucpro.bundle.manifest import Bundle
from virnucpro.errors import SettingsError

NEGATIVES = {
    "bacteria": [np.linspace(-4, 1, 400).tolist()] * 5,
    "human": [np.linspace(-4, 0.5, 150).tolist()] * 5,
}


@pytest.fixture(scope="module")
def bundle(tmp_path_factory) -> Bundle:
    plain = made_bundle(tmp_path_factory.mktemp("bundles") / "km", block_nt=6_000)
    return calibrated(plain, a_calibration(NEGATIVES, a=-0.5, b=0.8, threshold=0.7))


@pytest.fixture(scope="module")
def reads(tmp_path_factory) -> Path:
    path = tmp_path_factory.mktemp("reads") / "reads.fa"
    lengths = [150 + 37 * (i % 40) for i in range(120)]
    path.write_bytes(fasta((f"r{i}", dna(n, i)) for i, n in enumerate(lengths)))
    return path


def predict(reads: Path, out: Path, bundle: Bundle, *options: object):
    return virnucpro("predict", reads, "-o", out, "--bundle", bundle.path, *options)


@pytest.fixture(scope="module")
def whole(tmp_path_factory, reads, bundle) -> Path:
    out = tmp_path_factory.mktemp("run") / "whole"
    assert predict(reads, out, bundle, "--prior", 0.1).code == 0
    return out


def test_columns_say_what_they_mean(whole):
    rows, chunks = table(whole / "contigs.tsv"), table(whole / "calls.tsv")
    for row in rows:
        log_odds = float(row["log_odds"])
        assert float(row["p_virus"]) == pytest.approx(1 / (1 + np.exp(-log_odds)), abs=2e-6)
        prior = np.log(0.1 / 0.9)
        assert float(row["probability"]) == pytest.approx(
            1 / (1 + np.exp(-log_odds - prior)), abs=2e-6
        )
        assert row["call"] == ("virus" if float(row["p_virus"]) >= 0.7 else "others")
        assert 0 < float(row["q_value"]) <= 1
        assert row["origin"] == ""
    # Chunks keep the scores of the network: one chunk, and yet another number.
    alone = [row["record"] for row in rows if row["chunks"] == "1"]
    raw = {chunk["record"]: float(chunk["p_virus"]) for chunk in chunks}
    score = {row["record"]: float(row["p_virus"]) for row in rows}
    assert all(abs(raw[record] - score[record]) > 1e-3 for record in alone if raw[record] > 0.3)
    assert {row["call"] for row in rows} == {"virus", "others"}


def test_run_json_says_what_the_calls_are_worth(whole):
    document = run_json(whole)
    schema = json.loads(
        resources.files("virnucpro.results").joinpath("run.schema.json").read_text()
    )
    jsonschema.validate(
        document["worth"], schema["properties"]["worth"] | {"$defs": schema["$defs"]}
    )
    worth = document["worth"]
    assert worth["called"] == document["counts"]["virus"] > 0
    assert worth["prior"]["how"] == "given"
    rows = [r for r in table(whole / "contigs.tsv") if r["call"] == "virus"]
    expected = sum(1 - float(row["probability"]) for row in rows)
    assert worth["wrong"] == pytest.approx(expected, abs=0.051)
    log = (whole / "log.txt").read_text()
    assert worth["sentence"] in log
    assert (
        "which 5 % of the calibration's bacteria and fewer of its other large groups of hosts reach"
    ) in log


def test_a_null_without_a_rate_says_what_it_changes(tmp_path, reads, bundle, whole):
    blank = tmp_path / "blank.fa"
    blank.write_bytes(fasta((f"n{i}", dna(500, f"n{i}")) for i in range(40)))
    says = "changes the column q_value"
    assert says not in (whole / "log.txt").read_text()
    for number, (options, sentence) in enumerate(
        (
            (("--host", "human"), f"--host human {says}; calls go by the threshold"),
            (("--negatives", blank), f"--negatives {says}; calls go by the threshold"),
            (("--host", "human", "--prior", "auto"), f"{says} and the prior that is estimated;"),
            (("--host", "human", "--fdr", 0.3), None),
        )
    ):
        run = tmp_path / str(number)
        prior = () if "--prior" in options else ("--prior", 0.1)
        assert predict(reads, run, bundle, *options, *prior).code == 0
        assert (sentence or "") in (run / "log.txt").read_text()
        assert (says in (run / "log.txt").read_text()) == (sentence is not None)
        if sentence is not None and not number:  # and it is true
            same, other = table(whole / "contigs.tsv"), table(run / "contigs.tsv")
            changed = {n for a, b in zip(same, other, strict=True) for n in a if a[n] != b[n]}
            assert changed == {"q_value"}


def test_the_two_published_tables_do_not_change(tmp_path, reads, bundle, whole):
    plain = made_bundle(tmp_path / "km", block_nt=6_000)
    assert predict(reads, tmp_path / "plain", plain).code == 0
    for name in ("prediction_results.txt", "prediction_results_highestscore.csv", "calls.tsv"):
        assert (tmp_path / "plain" / name).read_bytes() == (whole / name).read_bytes()


def test_parts_merged_are_the_whole_run(tmp_path, reads, bundle):
    own = tmp_path / "blank.fa"
    own.write_bytes(fasta((f"n{i}", dna(500, f"n{i}")) for i in range(40)))
    for options in (("--prior", "auto"), ("--fdr", 0.2), ("--negatives", own, "--fdr", 0.5)):
        folder = tmp_path / "_".join(str(o) for o in options if not isinstance(o, Path))
        assert predict(reads, folder / "whole", bundle, *options).code == 0
        for part in ("1/2", "2/2"):
            done = predict(reads, folder / part[0], bundle, *options, "--part", part)
            assert done.code == 0, done.err
        merged = virnucpro("merge", *(folder / n for n in "12"), "-o", folder / "merged")
        assert merged.code == 0, merged.err
        assert results(folder / "merged") == results(folder / "whole")
        worths = [run_json(folder / name)["worth"] for name in ("merged", "whole")]
        assert worths[0] == worths[1]


def test_a_calibration_of_one_group_has_no_others_that_reach_the_threshold(tmp_path, reads):
    plain = made_bundle(tmp_path / "km", block_nt=6_000)
    one = calibrated(plain, a_calibration({"others": [[-3.0] * 40] * 5}))
    assert predict(reads, tmp_path / "run", one).code == 0
    log = (tmp_path / "run" / "log.txt").read_text()
    assert "which 5 % of the calibration's others reach" in log


@pytest.mark.parametrize("rate", [0.0, 1.0])
def test_a_rate_that_decides_nothing_is_refused(tmp_path, reads, bundle, rate):
    (tmp_path / "fdr.toml").write_text(f"fdr = {rate}")
    says = f"--fdr must be more than 0 and less than 1, such as 0.05, got {rate:g}"
    for given in (("--fdr", rate), ("--config", tmp_path / "fdr.toml")):
        done = predict(reads, tmp_path / "run", bundle, *given)
        assert (done.code, says in " ".join(done.err.split())) == (2, True)
    with pytest.raises(SettingsError, match=says):
        virnucpro_predict(reads, bundle.path, tmp_path / "run", fdr=rate)
    assert not (tmp_path / "run").exists()


def test_a_refusal_is_no_failure_and_is_not_silenced(tmp_path, reads, bundle):
    done = predict(reads, tmp_path / "run", bundle, "--fdr", 1e-6, "--quiet")
    assert done.code == 0
    said = " ".join(done.err.split())
    assert "warning: nothing is called at --fdr 1e-06: the negatives of" in said
    assert run_json(tmp_path / "run")["counts"]["virus"] == 0
    assert (tmp_path / "run" / "viral.fasta").read_bytes() == b""


def test_q_values_decide_and_fall_with_the_score(tmp_path, reads, bundle):
    assert predict(reads, tmp_path / "run", bundle, "--fdr", 0.3, "--host", "human").code == 0
    rows = table(tmp_path / "run" / "contigs.tsv")
    assert {r["call"] for r in rows} == {"virus", "others"}
    for row in rows:
        assert (row["call"] == "virus") == (float(row["q_value"]) <= 0.3)
    of_length = sorted(
        (float(r["log_odds"]), -float(r["q_value"])) for r in rows if int(r["length_nt"]) < 275
    )
    assert [q for _, q in of_length] == sorted(q for _, q in of_length)
    assert run_json(tmp_path / "run")["worth"]["null"] == "null: human"


def test_negatives_are_scored_in_the_run_and_again_only_when_they_change(tmp_path, reads, bundle):
    own = tmp_path / "blank.fa"
    own.write_bytes(fasta((f"n{i}", dna(500, f"n{i}")) for i in range(40)))
    options = ("--negatives", own, "--fdr", 0.5)
    done = predict(reads, tmp_path / "run", bundle, *options)
    assert done.code == 0, done.err
    assert "negatives: 40 records" in done.err
    document = run_json(tmp_path / "run")
    assert document["worth"]["negatives"] == 40
    assert document["counts"]["records"] == 120
    assert "nothing is done" in predict(reads, tmp_path / "run", bundle, *options).err
    own.write_bytes(fasta((f"n{i}", dna(500, f"m{i}")) for i in range(50)))
    changed = predict(reads, tmp_path / "run", bundle, *options)
    assert "the negatives were others" in " ".join(changed.err.split())
    assert run_json(tmp_path / "run")["worth"]["negatives"] == 50
    before = results(tmp_path / "run")
    own.write_bytes(b">protein\nMKLVFF\n")
    assert predict(reads, tmp_path / "run", bundle, *options).code == 1
    assert results(tmp_path / "run") == before
    assert run_json(tmp_path / "run")["status"] == "complete"


def test_viruses_among_the_negatives_are_told_of_once(tmp_path, reads):
    """Of the negatives all are called at 0.3, and of the calibration's hosts none, or all."""
    unlike, alike = (
        calibrated(
            made_bundle(tmp_path / name, block_nt=6_000),
            a_calibration({"bacteria": [[log_odds] * 400] * 5}, threshold=0.3),
        )
        for name, log_odds in (("unlike", -3.0), ("alike", 3.0))
    )
    own = tmp_path / "blank.fa"
    own.write_bytes(fasta((f"n{i}", dna(500, f"n{i}")) for i in range(400)))
    hint, refused = "so these negatives seem to hold viruses", "nothing is called at --fdr 0.5"
    for options, called in (((), True), (("--fdr", 0.5), False)):
        run = tmp_path / f"run{len(options) and options[1]}"
        done = predict(reads, run, unlike, "--negatives", own, *options, "--quiet")
        log = (run / "log.txt").read_text()
        assert (done.code, log.count(hint)) == (0, 1), done.err
        assert "warning: " in next(line for line in log.splitlines() if hint in line)
        assert hint in " ".join(done.err.split())
        assert (refused in log) == (not called)
        assert hint in run_json(run)["worth"]["viral_negatives"]
        page = " ".join((run / "report.html").read_text().split())
        assert ("The negatives seem to hold viruses." in page) == called
    assert predict(reads, tmp_path / "usual", alike, "--negatives", own).code == 0
    assert hint not in (tmp_path / "usual" / "log.txt").read_text()
    assert run_json(tmp_path / "usual")["worth"]["viral_negatives"] == ""


@pytest.mark.parametrize(
    ("data", "message"),
    [
        (b"", "blank.fa: --negatives has no record, so there is nothing to compare with"),
        (b"\n\n", "blank.fa: --negatives has no record"),
        (gzip.compress(b">n1\nACGT\n")[:-12], "blank.fa: the gzip stream is cut off or damaged"),
        (b">n1\nACGT\n>p2\nMKLVFF\n", "blank.fa, line 4: record 2 (p2) holds the letter 'L'"),
    ],
    ids=["empty", "blank", "cut", "protein"],
)
def test_bad_negatives_are_refused_before_anything_is_touched(
    tmp_path, reads, bundle, whole, data, message
):
    own = tmp_path / "blank.fa"
    own.write_bytes(data)
    done = predict(reads, tmp_path / "run", bundle, "--negatives", own)
    assert (done.code, message in done.error) == (1, True), done.err
    assert not (tmp_path / "run").exists()
    finished = shutil.copytree(whole, tmp_path / "finished")
    before = {path.name: path.read_bytes() for path in finished.iterdir()}
    assert predict(reads, finished, bundle, "--negatives", own).error == done.error
    assert {path.name: path.read_bytes() for path in finished.iterdir()} == before


def test_negatives_that_break_off_late_leave_the_scored_sample(tmp_path, reads, bundle):
    own, run = tmp_path / "blank.fa.gz", tmp_path / "run"
    data = gzip.compress(fasta((f"n{i}", dna(500, i)) for i in range(40)))
    own.write_bytes(data[:-100])
    done = predict(reads, run, bundle, "--negatives", own)
    assert done.code == 1
    assert done.error.startswith(f"--negatives {own}: the gzip stream is cut off or damaged")
    assert "the blocks of the sample are finished and kept, and the same command" in done.error
    own.write_bytes(data)
    assert predict(reads, run, bundle, "--negatives", own).code == 0
    blocks = run_json(run)["blocks"]
    assert blocks["reused"] == blocks["total"] > 0


def test_a_finished_run_says_that_it_remains_where_negatives_fail_late(
    tmp_path, reads, bundle, whole
):
    finished, own = shutil.copytree(whole, tmp_path / "finished"), tmp_path / "blank.fa.gz"
    before, log = results(finished), (finished / "log.txt").read_text()
    own.write_bytes(gzip.compress(fasta((f"n{i}", dna(500, i)) for i in range(40)))[:-100])
    done = predict(reads, finished, bundle, "--prior", 0.1, "--negatives", own)
    assert (done.code, "the gzip stream is cut off or damaged" in done.error) == (1, True)
    remains = "the results of the earlier run here remain as they were\n"
    assert (remains in done.err, results(finished)) == (True, before)
    assert run_json(finished)["status"] == "complete"
    after = (finished / "log.txt").read_text()
    assert (after.startswith(log), after.endswith(remains)) == (True, True)


def test_negatives_of_which_none_has_a_score_are_told_of(tmp_path, reads, bundle):
    own = tmp_path / "blank.fa"
    warning = "blank.fa: none of these negatives could be scored"
    for length_nt, part, told in ((5, "1/1", True), (500, "1/1", False), (5, "2/2", False)):
        own.write_bytes(fasta((f"n{i}", dna(length_nt, f"n{i}")) for i in range(3)))
        run = tmp_path / f"{length_nt}_{part[0]}"
        done = predict(reads, run, bundle, "--negatives", own, "--part", part)
        assert (done.code, warning in " ".join(done.err.split())) == (0, told), done.err


def test_a_faulty_negative_is_counted_and_told_of(tmp_path, reads, bundle):
    own = tmp_path / "blank.fa"
    good = [(f"n{i}", dna(150 + 37 * (i % 60), f"n{i}")) for i in range(240)]
    own.write_bytes(fasta([*good, ("protein", "MKLVFF" * 30), ("tiny", "ACGT")]))
    told = (
        "2 of 242 negatives have no score and are left out of the comparison (1 failed, 1 too sho"
    )
    for name, model in (("known", bundle), ("plain", made_bundle(tmp_path / "km"))):
        run = tmp_path / name
        done = predict(reads, run, model, "--negatives", own, "--quiet")
        assert (done.code, told in " ".join(done.err.split())) == (0, True), done.err
        assert f"warning: {told}" in (run / "log.txt").read_text()
    page = " ".join((tmp_path / "known" / "report.html").read_text().split())
    assert "The comparison with the negatives has gaps." in page
    assert told in page
    parts = [tmp_path / f"p{i}" for i in (1, 2)]
    for i, part in enumerate(parts, 1):
        assert predict(reads, part, bundle, "--negatives", own, "--part", f"{i}/2").code == 0
    assert virnucpro("merge", *parts, "-o", tmp_path / "merged").code == 0
    assert f"warning: {told}" in (tmp_path / "merged" / "log.txt").read_text()


def test_a_run_without_a_calibration_says_what_can_be_done(tmp_path, reads, bundle):
    says = "how many of these calls are wrong is not estimated, because the bundle has no calib"
    plain = made_bundle(tmp_path / "km")
    for name, model, told in (("plain", plain, True), ("known", bundle, False)):
        assert predict(reads, tmp_path / name, model).code == 0
        assert (says in (tmp_path / name / "log.txt").read_text()) == told


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (("--prior", "often"), "'often'"),
        (("--fdr", "0.1", "--threshold", "0.6"), "give one of them"),
        (("--host", "plant"), "no negatives of plant"),
        (("--host", "human", "--negatives", "reads"), "both name the null"),
        (("--negatives", "missing.fa"), "missing.fa"),
    ],
)
def test_wrong_options_are_one_sentence(tmp_path, reads, bundle, options, message):
    given = [reads if option == "reads" else option for option in options]
    done = predict(reads, tmp_path / "run", bundle, *given)
    assert done.code in (1, 2)
    assert message in " ".join(done.err.split())
    assert "Traceback" not in done.err


def test_negatives_from_a_pipe_are_refused_before_anything_is_scored(tmp_path, reads, bundle):
    pipe = tmp_path / "pipe"
    os.mkfifo(pipe)
    done = predict(reads, tmp_path / "run", bundle, "--negatives", pipe)
    assert done.code == 1
    assert "must be a file that can be read twice" in " ".join(done.err.split())


def test_a_bundle_without_a_calibration_says_so(tmp_path, reads):
    plain = made_bundle(tmp_path / "km", block_nt=6_000)
    for options in (("--prior", "auto"), ("--fdr", 0.1), ("--host", "human")):
        done = predict(reads, tmp_path / "run", plain, *options)
        assert done.code == 2
        assert "virnucpro calibrate" in " ".join(done.err.split())
    own = tmp_path / "blank.fa"
    own.write_bytes(fasta((f"n{i}", dna(300, f"n{i}")) for i in range(200)))
    done = predict(reads, tmp_path / "run", plain, "--fdr", 0.9, "--negatives", own)
    assert done.code == 0, done.err
    rows = table(tmp_path / "run" / "contigs.tsv")
    assert {row["log_odds"] for row in rows} == {row["probability"] for row in rows} == {""}
    assert all(row["q_value"] for row in rows)
    assert run_json(tmp_path / "run")["worth"] is None


def test_another_question_makes_the_tables_again(tmp_path, reads, bundle):
    out = tmp_path / "run"
    assert predict(reads, out, bundle, "--keep-blocks").code == 0
    before = results(out)
    again = predict(reads, out, bundle, "--keep-blocks", "--prior", 0.5)
    assert "was finished, but it had no --prior: its results" in " ".join(again.err.split())
    after = results(out)
    assert before["calls.tsv"] == after["calls.tsv"]
    assert before["contigs.tsv"] != after["contigs.tsv"]
    other = predict(reads, out, bundle, "--keep-blocks", "--prior", 0.2)
    assert "but the setting prior was 0.5: its results" in " ".join(other.err.split())
    back = predict(reads, out, bundle, "--keep-blocks")
    told = "but it had --prior 0.2 (this command has none): its results"
    assert told in " ".join(back.err.split())
    assert results(out) == before
