"""validate says what predict would do, and nothing else."""

import gzip
import json
import os
from pathlib import Path

import pysam
import pytest

from command import dna, fasta, frames_manifest, made_bundle, run_json, table, virnucpro
from made_reads import ubam
from virnucpro.bundle import embedded_bundles, load
from virnucpro.bundle.write import write_bundle
from virnucpro.frames import open_frames
from virnucpro.run.settings import Settings
from virnucpro.run.validate import NAMED, Inspection, inspect

MIXED = [
    ("empty", ""),
    ("long", dna(1_700)),
    ("one", "A"),
    ("short", dna(70)),
    ("n", "N" * 100),
    ("chunk", dna(500)),
]


def inspected(*paths: Path, bundle: Path, **options) -> list[Inspection]:
    return inspect(Settings(inputs=paths, out=Path(), **options), load(bundle))[0]


@pytest.fixture(scope="module")
def bundle(tmp_path_factory) -> Path:
    return made_bundle(tmp_path_factory.mktemp("bundles") / "km").path


@pytest.mark.parametrize(
    "name", ["made", *[b.name for b in embedded_bundles() if b.kind != "frames"][:1]]
)
def test_it_counts_as_predict_does(tmp_path, bundle, name):
    (tmp_path / "in.fa").write_bytes(fasta(MIXED))
    chosen = bundle if name == "made" else name
    done = virnucpro("validate", tmp_path / "in.fa", "--bundle", chosen, "--json")
    assert (done.code, done.err) == (0, "")
    (found,) = json.loads(done.out)
    assert (
        virnucpro("predict", tmp_path / "in.fa", "-o", tmp_path / "r", "--bundle", chosen).code == 0
    )
    counts = run_json(tmp_path / "r")["counts"]
    assert found["records"] == counts["records"] == len(MIXED)
    assert found["bases"] == counts["bases"] == sum(len(text) for _, text in MIXED)
    assert found["chunks"] == counts["chunks"]
    assert found["chunk_status"] == {k: n for k, n in counts["chunk_status"].items() if n}
    assert set(found["chunk_status"]) >= {"ok", "too_short", "ambiguous"}
    assert (found["empty"], found["faulty"]) == (1, 0)
    assert found["open_frames"] is None


def test_lengths_are_of_records_with_letters_in_any_order(tmp_path, bundle):
    """An empty record is counted as such, and is not the shortest one."""
    for number, order in enumerate((MIXED, MIXED[::-1])):
        file = tmp_path / f"{number}.fa"
        file.write_bytes(fasta(order))
        (found,) = inspected(file, bundle=bundle)
        assert (found.shortest_nt, found.longest_nt) == (1, 1_700)
    (tmp_path / "none.fa").write_bytes(fasta(MIXED[:1]))
    (found,) = inspected(tmp_path / "none.fa", bundle=bundle)
    assert (found.records, found.shortest_nt, found.longest_nt) == (1, None, None)


def test_open_frames_are_counted_for_bundles_that_score_them(tmp_path):
    bundle = write_bundle(tmp_path / "frames", frames_manifest(), {})
    chunks = [dna(300, i) for i in range(60)] + ["ATG" * 100, "A", "N" * 300]
    (tmp_path / "in.fa").write_bytes(fasta((f"c{i}", text) for i, text in enumerate(chunks)))
    (found,) = inspected(tmp_path / "in.fa", bundle=bundle.path)
    frames = [len(open_frames(text)) for text in chunks]
    assert found.open_frames == sum(frames) > 0
    without = sum(n == 0 for n in frames)
    assert found.chunk_status == {"ok": len(chunks) - without, "no_open_frame": without}


def test_text_for_a_person(tmp_path, bundle):
    (tmp_path / "in.fa").write_bytes(fasta(MIXED))
    done = virnucpro("validate", "in.fa", "--bundle", bundle, cwd=tmp_path)
    assert done.code == 0
    assert done.out == (
        "in.fa, sample in\n"
        "  records  6, of these 1 empty\n"
        "  bases    2,371, 1 to 1,700\n"
        "  chunks   8: 5 ok, 1 below validated length, 1 too short, 1 ambiguous\n"
        "  failing  0 records\n"
    )
    assert [path.name for path in tmp_path.iterdir()] == ["in.fa"]


def test_faults_are_named_the_first_few(tmp_path, bundle):
    bad = [(f"r{i}", "AC!GT" if i > 100 else "ACGT") for i in range(1, 109)]
    (tmp_path / "bad.fa").write_bytes(fasta(bad))
    (tmp_path / "good.fa").write_bytes(fasta(MIXED))
    done = virnucpro("validate", "good.fa", "bad.fa", "--bundle", bundle, cwd=tmp_path)
    assert done.code == 2
    assert "  failing  8 records\n    record 101 (r101): it holds, at base 3" in done.out
    assert done.out.count("    record ") == NAMED


def test_it_ends_as_predict_would(tmp_path, bundle):
    whole = gzip.compress(fasta((f"s{i}", dna(600, i)) for i in range(40)))
    (tmp_path / "cut.fa.gz").write_bytes(whole[:-2000])
    done = virnucpro("validate", "cut.fa.gz", "--bundle", bundle, cwd=tmp_path)
    assert done.code == 1
    assert done.error.startswith("cut.fa.gz: the gzip stream is cut off or damaged after record")
    (tmp_path / "protein.fa").write_bytes(b">p\nMKLEFPQ\n")
    done = virnucpro("validate", "protein.fa", "--bundle", bundle, cwd=tmp_path)
    assert done.code == 1
    assert "looks like protein" in done.error
    done = virnucpro("validate", "no.fa", "--bundle", bundle, cwd=tmp_path)
    assert done.code == 1
    assert done.error.startswith("no.fa: cannot be read")


def test_the_same_sample_twice(tmp_path, bundle):
    (tmp_path / "in.fa").write_bytes(fasta(MIXED))
    first, again = inspected(tmp_path / "in.fa", tmp_path, bundle=bundle)
    assert (first.records, first.broken, again.sample) == (len(MIXED), None, None)
    assert "this file was named twice, also as" in again.broken
    (tmp_path / "in.fasta").write_bytes(fasta(MIXED))
    first, again = inspected(tmp_path / "in.fa", tmp_path / "in.fasta", bundle=bundle)
    assert "would carry the same sample name, in," in again.broken


def test_it_reads_pairs_and_limits_as_predict_does(tmp_path, bundle):
    for mate in (1, 2):
        reads = [(f"r{i}/{mate}", dna(60 + i, (i, mate))) for i in range(40)]
        (tmp_path / f"r_{mate}.fa").write_bytes(fasta(reads))
    options = ("--mates", "r_2.fa", "--sample", "lake", "--min-length", "70", "--max-length", "90")
    options = (*options, "--max-records", "70", "--bundle", bundle)
    done = virnucpro("validate", "r_1.fa", *options, "--json", cwd=tmp_path)
    (found,) = json.loads(done.out)
    predicted = virnucpro("predict", "r_1.fa", *options, "-o", "run", cwd=tmp_path)
    document = run_json(tmp_path / "run")
    counts = document["counts"]
    assert (done.code, predicted.code, found["sample"]) == (2, 2, "lake")
    for name in ("records", "pairs", "chunks"):
        assert found[name] == counts[name] > 0
    assert found["faulty"] == counts["failed"] == 8
    assert found["short"] == 20
    assert (found["records"], found["mates"]) == (70, "r_2.fa")
    done = virnucpro("validate", "r_1.fa", "--mates", "r_2.fa", "--bundle", bundle, cwd=tmp_path)
    assert done.out.startswith("r_1.fa and r_2.fa, sample r\n")
    assert "  pairs    40\n" in done.out
    done = virnucpro("validate", "r_1.fa", "--interleaved", "--bundle", bundle, cwd=tmp_path)
    assert (done.code, "are not mates by their names" in done.error) == (1, True)
    done = virnucpro("validate", "r_1.fa", "--interleaved", "--unpaired", cwd=tmp_path)
    assert (done.code, "contradict each other" in done.err) == (2, True)


def test_mates_that_stand_alone_are_counted_as_predict_does(tmp_path, bundle):
    reads = [(f"q{i // 2}", dna(100 + i, i)) for i in range(40)]
    ubam(tmp_path / "whole.bam", reads, paired=True)
    with (
        pysam.AlignmentFile(tmp_path / "whole.bam", check_sq=False) as whole,
        pysam.AlignmentFile(tmp_path / "in.bam", "wb", header=whole.header) as some,
    ):
        for number, read in enumerate(whole.fetch(until_eof=True)):
            if number not in (3, 4, 21):
                some.write(read)
    done = virnucpro("validate", "in.bam", "--bundle", bundle, cwd=tmp_path)
    assert "  pairs    20, of these 3 without a mate\n" in done.out
    virnucpro("predict", "in.bam", "--bundle", bundle, "-o", "run", cwd=tmp_path)
    rows = [row["status"] for row in table(tmp_path / "run" / "pairs.tsv")]
    assert (len(rows), rows.count("mate_missing")) == (20, 3)


@pytest.mark.parametrize(
    "data",
    [
        None,
        b"",
        gzip.compress(b">n1\nACGT\n")[:-12],
        gzip.compress(fasta((f"n{i}", dna(500, i)) for i in range(40)))[:-100],
        b">n1\nACGT\n>p2\nMKLVFF\n",
        b"PK\x03\x04",
    ],
    ids=["missing", "empty", "cut", "cut late", "protein", "zip"],
)
def test_negatives_that_predict_refuses_are_refused_in_its_words(tmp_path, bundle, data):
    (tmp_path / "in.fa").write_bytes(fasta(MIXED))
    if data is not None:
        (tmp_path / "blank.fa").write_bytes(data)
    arguments = ("in.fa", "--bundle", bundle, "--negatives", "blank.fa")
    done = virnucpro("validate", *arguments, cwd=tmp_path)
    predicted = virnucpro("predict", *arguments, "-o", "run", cwd=tmp_path)
    assert (done.code, predicted.code) == (1, 1)
    kept = "; the blocks of the sample are finished and kept"  # which predict alone has
    assert predicted.error.partition(kept)[0] == done.error
    assert done.error.removeprefix("--negatives ").startswith("blank.fa")
    assert "in.fa, sample in\n  records  6," in done.out
    found = json.loads(virnucpro("validate", *arguments, "--json", cwd=tmp_path).out)
    assert [(f["path"], f["negatives"]) for f in found] == [("in.fa", False), ("blank.fa", True)]


def test_negatives_from_a_pipe_are_refused_in_the_words_of_predict(tmp_path, bundle):
    (tmp_path / "in.fa").write_bytes(fasta(MIXED))
    os.mkfifo(tmp_path / "pipe")
    arguments = ("in.fa", "--bundle", bundle, "--negatives", "pipe")
    done = virnucpro("validate", *arguments, cwd=tmp_path)
    predicted = virnucpro("predict", *arguments, "-o", "run", cwd=tmp_path)
    assert (done.code, done.error) == (predicted.code, predicted.error) == (1, done.error)
    assert "pipe: cannot be used as negatives\n" in done.out


def test_negatives_are_counted_as_predict_scores_them(tmp_path, bundle):
    (tmp_path / "in.fa").write_bytes(fasta(MIXED))
    blank = [*((f"n{i}", dna(60 + i, i)) for i in range(110)), ("odd", "ACGT!")]
    (tmp_path / "blank.fa").write_bytes(fasta(blank))
    options = ("--min-length", 70, "--max-length", 1_700, "--max-records", 4, "--unpaired")
    arguments = ("in.fa", "--bundle", bundle, *options, "--negatives", "blank.fa")
    done = virnucpro("validate", *arguments, cwd=tmp_path)
    predicted = virnucpro("predict", *arguments, "-o", "run", cwd=tmp_path)
    assert (done.code, predicted.code, done.err) == (0, 0, "")  # a fault costs a negative alone
    said = "blank.fa, negatives\n  records  111, of these 0 empty, 10 shorter than --min-length\n"
    assert said in done.out
    assert "  failing  1 record\n    record 111 (odd): " in done.out
    assert "negatives: 111 records of blank.fa" in predicted.err


@pytest.mark.parametrize("letters", ["ACGT", "N" * 100], ids=["short", "unknown"])
def test_negatives_without_a_score_give_the_warning_of_predict(tmp_path, bundle, letters):
    (tmp_path / "in.fa").write_bytes(fasta(MIXED))
    (tmp_path / "blank.fa").write_bytes(fasta([("n", letters)]))
    arguments = ("in.fa", "--bundle", bundle, "--negatives", "blank.fa")
    done = virnucpro("validate", *arguments, cwd=tmp_path)
    predicted = virnucpro("predict", *arguments, "-o", "run", cwd=tmp_path)
    assert (done.code, predicted.code) == (0, 0)
    warning = done.out.partition("blank.fa, negatives\n")[2].partition("  warning  ")[2]
    assert f"warning: blank.fa: {warning.strip()}" in " ".join(predicted.err.split())
    assert warning.startswith("none of these negatives could be scored")


def test_negatives_of_a_sheet_are_inspected_once(tmp_path, bundle):
    (tmp_path / "in.fa").write_bytes(fasta(MIXED))
    (tmp_path / "blank.fa").write_bytes(fasta(MIXED))
    (tmp_path / "sheet.tsv").write_text("sample\tpath\nlake\tin.fa\nsea\tin.fa\n")
    arguments = ("--sample-sheet", "sheet.tsv", "--bundle", bundle, "--negatives", "blank.fa")
    done = virnucpro("validate", *arguments, "--json", cwd=tmp_path)
    assert done.code == 0
    assert [f["path"] for f in json.loads(done.out)] == ["in.fa", "in.fa", "blank.fa"]


def test_a_sheet_is_inspected_sample_by_sample(tmp_path, bundle):
    for name in ("a", "b_1", "b_2"):
        (tmp_path / name).write_bytes(fasta([("r", dna(300, name))]))
    (tmp_path / "sheet.tsv").write_text("sample\tpath\tmates\nlake\ta\nsea\tb_1\tb_2\n")
    arguments = ("--sample-sheet", "sheet.tsv", "--bundle", bundle, "--json")
    done = virnucpro("validate", *arguments, cwd=tmp_path)
    assert [(f["sample"], f["pairs"]) for f in json.loads(done.out)] == [("lake", 0), ("sea", 1)]


def test_all_that_is_wrong_with_a_row_of_a_sheet_is_named(tmp_path, bundle):
    (tmp_path / "good.fa").write_bytes(fasta(MIXED))
    rows = "sample\tpath\nlake\tno.fa\nlake\tgood.fa\nlake\tnor.fa\n"
    (tmp_path / "sheet.tsv").write_text(rows)
    done = virnucpro("validate", "--sample-sheet", "sheet.tsv", "--bundle", bundle, cwd=tmp_path)
    assert done.code == 1
    for words in (
        "sheet.tsv, line 2: column path: no.fa: cannot be read",
        "sheet.tsv, line 3: column sample: lake stands on line 2, too; give it one line",
        "sheet.tsv, line 4: column sample: lake stands on line 2, too; give it one line",
        "sheet.tsv, line 4: column path: nor.fa: cannot be read",
    ):
        assert words in done.error


def test_what_is_wrong_with_one_input_hides_no_other(tmp_path, bundle):
    (tmp_path / "text").write_bytes(b"hello")
    (tmp_path / "protein.fa").write_bytes(b">p\nMKLEFPQ\n")
    (tmp_path / "good.fa").write_bytes(fasta(MIXED))
    done = virnucpro("validate", "text", "protein.fa", "good.fa", "--bundle", bundle, cwd=tmp_path)
    assert done.code == 1
    assert "good.fa, sample good\n  records  6," in done.out
    assert ["text" in done.err, "protein.fa, line 2" in done.err] == [True, True]
    done = virnucpro("validate", "no.fa", "protein.fa", "nor.fa", "--bundle", bundle, cwd=tmp_path)
    for name in ("no.fa: cannot", "nor.fa: cannot", "protein.fa, line 2: record 1"):
        assert f"virnucpro: {name}" in done.err


def test_what_cannot_be_opened_keeps_no_other_from_being_read(tmp_path, bundle):
    late = fasta([*((f"r{i}", dna(90, i)) for i in range(200)), ("odd", "ACGT!" * 30)])
    (tmp_path / "late.fa").write_bytes(late)
    arguments = ("validate", "no.fa", "late.fa", "--bundle", bundle)
    done = virnucpro(*arguments, cwd=tmp_path)
    assert done.code == 1
    assert done.error.startswith("no.fa: cannot be read")
    assert "  failing  1 record\n    record 201 (odd): " in done.out
    assert done.out.endswith("\nno.fa: could not be opened\n")
    found = json.loads(virnucpro(*arguments, "--json", cwd=tmp_path).out)
    assert [(f["path"], f["sample"], f["faulty"]) for f in found] == [
        ("late.fa", "late", 1),
        ("no.fa", None, 0),
    ]
    assert found[1]["broken"].startswith("no.fa: cannot be read")
