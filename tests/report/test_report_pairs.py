"""What report.html says of pairs: counts, the calls of their mates, and those called virus."""

import json
import random
from collections import Counter
from pathlib import Path

import pysam
import pytest
from test_report import MOST_BYTES, many, parsed

from command import dna, made_bundle, run_json, table, virnucpro
from made_reads import alignment, ubam
from made_runs import Chunk, made_paired_run, made_run, peak_of_reading
from virnucpro.errors import InputError
from virnucpro.report import remake, shown
from virnucpro.report.runs import read_run
from virnucpro.results.read import run_files
from virnucpro.run.predict import predict

BOTH = [0x4D, 0x8D]
CALLS = ("none", "others", "virus")
SAID = ("both virus", "both others", "mates disagree", "one mate only", "no mate called")
OTHER_MATES = (
    "pairs.tsv and contigs.tsv do not hold the same mates, so pairs are only counted here; "
    "run predict again"
)


@pytest.fixture(scope="module")
def folder(tmp_path_factory) -> Path:
    return tmp_path_factory.mktemp("pairs")


@pytest.fixture(scope="module")
def run_dir(folder) -> Path:
    """A run on two BAM: pairs of all kinds, mates by themselves, and reads that are none."""
    made_bundle(folder / "km", block_nt=3_000)
    for sample in ("lake", "sea"):
        with pysam.AlignmentFile(
            folder / f"{sample}.bam", "wb", header={"HD": {"VN": "1.6"}}
        ) as file:
            for i in range(90):
                flags = {3: BOTH[:1], 4: BOTH[1:], 5: [0x4], 6: BOTH[::-1]}.get(i % 11, BOTH)
                for flag in flags:
                    short = i % 7 == 2 and (flag == BOTH[1] or i % 3 == 0)
                    sequence = dna(40 if short else 120, f"{sample}{i}{flag}")
                    file.write(alignment(file.header, f"<i>{sample}{i}", sequence, flag))
    predict([folder / "lake.bam", folder / "sea.bam"], folder / "km", folder / "run")
    return folder / "run"


def said_by(run_dir: Path) -> list[tuple[str, dict[str, str]]]:
    """What the mates of each pair say, by the tables alone."""
    call = {(r["sample"], r["record"]): r["call"] for r in table(run_dir / "contigs.tsv")}
    found = []
    for pair in table(run_dir / "pairs.tsv"):
        records = [(pair["sample"], pair[f"record_{i}"]) for i in (1, 2)]
        calls = [c for c in (call[r] for r in records if r[1]) if c != "none"]
        if len(calls) < 2:
            found.append((SAID[4 - len(calls)], pair))
        elif calls[0] != calls[1]:
            found.append(("mates disagree", pair))
        else:
            found.append((f"both {calls[0]}", pair))
    return found


def counted(found) -> dict[str, tuple[str, str]]:
    """The table of the page that counts pairs by the calls of their mates."""
    return {row[0]: row[1:] for row in found.rows if row and row[0] in SAID}


def test_the_page_counts_pairs_by_what_their_mates_say(run_dir):
    found, told = parsed(run_dir / "report.html"), said_by(run_dir)
    counts = run_json(run_dir)["counts"]
    assert f"{counts['virus_pairs']} of {counts['pairs']} pairs called virus" in found.text
    pairs = Counter(said for said, _ in told)
    virus = Counter(said for said, pair in told if pair["call"] == "virus")
    assert set(pairs) == set(SAID)
    assert counted(found) == {said: (str(pairs[said]), str(virus[said])) for said in SAID}
    assert sum(virus.values()) == counts["virus_pairs"] > 0
    assert ("all pairs", str(counts["pairs"]), str(counts["virus_pairs"])) in found.rows
    assert "does not" not in found.text


def test_the_page_holds_the_pairs_called_virus(run_dir):
    (run,) = parsed(run_dir / "report.html").data["runs"]
    contigs = {(r["sample"], r["record"]): r for r in table(run_dir / "contigs.tsv")}
    expected = []
    for said, pair in said_by(run_dir):
        if pair["call"] != "virus":
            continue
        mates = [contigs.get((pair["sample"], pair[f"record_{i}"])) for i in (1, 2)]
        numbers = [
            float(pair[n]) if pair[n] else None for n in ("p_virus", "p_virus_1", "p_virus_2")
        ]
        expected.append(
            [
                ["lake", "sea"].index(pair["sample"]),
                pair["template"],
                *(int(pair[f"record_{i}"] or 0) or None for i in (1, 2)),
                *numbers,
                *(CALLS.index(mate["call"]) if mate else 0 for mate in mates),
                SAID.index(said),
                "",
                "",
            ]
        )
    assert run["pairs"] == expected
    assert run["virus_pairs"] == len(expected)
    assert any(row[2] is None for row in expected)
    assert any((row[2] or 0) > (row[3] or 10**9) for row in expected)  # the second came first


@pytest.mark.parametrize("rows", [1, 7, 64])
def test_mates_are_found_in_blocks_of_any_size(run_dir, monkeypatch, rows):
    (files,) = run_files(run_dir)
    whole = repr(read_run(files).pairs)  # for nan is not equal to nan
    monkeypatch.setattr("virnucpro.results.read.BLOCK_ROWS", rows)
    assert repr(read_run(files).pairs) == whole


def test_origins_and_notes_of_both_mates_are_told(tmp_path):
    files = made_paired_run(tmp_path, [("a", 0.9, 0.8), ("b", 0.7, None), ("c", 0.6, 0.7)])
    header, *rows = files.contigs.read_text().splitlines()
    columns = header.split("\t")
    told = {"origin": ["phage", "bacteria", "", "phage", "human", "human"]}
    told["note"] = ["PhiX174", "PhiX174,low_complexity", "", "", "", "adapter"]
    made = [row.split("\t") for row in rows]
    for name, words in told.items():
        for row, word in zip(made, words, strict=True):
            row[columns.index(name)] = word
    files.contigs.write_text("".join("\t".join(row) + "\n" for row in [columns, *made]))
    (run,) = parsed(remake([tmp_path])).data["runs"]
    assert [row[-2:] for row in run["pairs"]] == [
        ["phage,bacteria", "PhiX174,low_complexity"],
        ["phage", ""],
        ["human", "adapter"],
    ]


def test_gzipped_tables_and_a_prefix_change_nothing(folder, run_dir, tmp_path):
    inputs = [folder / "lake.bam", folder / "sea.bam"]
    predict(inputs, folder / "km", tmp_path, tables="gz", prefix="A")
    found = parsed(tmp_path / "A.report.html")
    assert found.data == parsed(run_dir / "report.html").data
    assert "missing." not in found.text


def test_the_page_says_how_many_calls_of_pairs_are_wrong_or_why_nobody_knows(tmp_path):
    ubam(tmp_path / "x.bam", [(f"t{i // 2}", dna(150, i)) for i in range(80)], paired=True)
    predict(tmp_path / "x.bam", "mini-500", tmp_path / "known", threshold=0)
    predict(tmp_path / "x.bam", "kmer-500", tmp_path / "unknown", threshold=0)
    pairs = run_json(tmp_path / "known")["worth"]["pairs"]
    assert pairs["called"] == 40
    text = parsed(tmp_path / "known" / "report.html").text
    assert f"{pairs['sentence']}." in text.replace("\N{NO-BREAK SPACE}", " ")
    assert "The expected mistakes of pairs are stated above." in text
    text = parsed(tmp_path / "unknown" / "report.html").text
    why = "How many of these calls are wrong is not estimated, because the bundle has no calib"
    assert why in text
    said = (
        "Of 40 pairs of reads, each also called as one by the chunks of both mates, 40 were called"
    )
    assert said in virnucpro("cite", tmp_path / "known").out
    document = run_json(tmp_path / "known")  # as an earlier version wrote it
    del document["worth"]["pairs"]
    (tmp_path / "known" / "run.json").write_text(json.dumps(document))
    text = parsed(remake([tmp_path / "known"])).text
    assert "The expected mistakes above count records, not pairs." in text


# What is not there


def test_a_run_without_pairs_has_no_word_of_them(tmp_path):
    made_run(tmp_path, many(20))
    found = parsed(remake([tmp_path]))
    assert not {"pair", "pairs", "mates"} & {*found.text.lower().split()}
    assert [(run["pairs"], run["virus_pairs"]) for run in found.data["runs"]] == [([], 0)]


def test_pairs_of_which_none_is_virus_have_counts_alone(tmp_path):
    made_paired_run(tmp_path, [("a", 0.1, 0.2), ("b", None, None)])
    found = parsed(remake([tmp_path]))
    assert "0 of 2 pairs called virus" in found.text
    assert counted(found) == {"both others": ("1", "0"), "no mate called": ("1", "0")}
    assert "Pairs called virus" not in found.text


def test_a_missing_table_of_pairs_costs_only_what_it_held(tmp_path):
    made_paired_run(tmp_path, [("a", 0.9, 0.2), ("b", 0.1, 0.2)]).pairs.unlink()
    found = parsed(remake([tmp_path]))
    assert "viral.fasta, pairs.tsv are missing. What they would show is left out" in found.text
    assert "1 of 2 pairs called virus." in found.text
    assert counted(found) == {}


@pytest.mark.parametrize("cut", ["contigs.tsv", "pairs.tsv"])
@pytest.mark.parametrize("rows", [1, 10_000])
def test_pairs_are_only_counted_where_a_table_is_cut_short(tmp_path, monkeypatch, cut, rows):
    monkeypatch.setattr("virnucpro.results.read.BLOCK_ROWS", rows)
    made_paired_run(tmp_path, [(f"t{i}", 0.9, 0.2) for i in range(4)])
    lines = (tmp_path / cut).read_text().splitlines(keepends=True)
    for left in (lines[:3], lines[:2] + lines[3:], lines[:1]):
        (tmp_path / cut).write_text("".join(left))
        found = parsed(remake([tmp_path]))
        assert OTHER_MATES in found.text
        assert counted(found) == {}
        assert found.data["runs"][0]["pairs"] == []
    (tmp_path / cut).write_text("".join(lines))
    assert counted(parsed(remake([tmp_path]))) == {"mates disagree": ("4", "4")}


def test_mates_of_another_sample_are_not_told_of(tmp_path):
    files = made_paired_run(tmp_path, [("a", 0.9, 0.2)])
    files.pairs.write_text(files.pairs.read_text().replace("lake", "sea"))
    assert OTHER_MATES in parsed(remake([tmp_path])).text


def test_a_table_of_other_pairs_does_not_belong_to_the_run(tmp_path):
    files = made_paired_run(tmp_path, [("a", 0.9, 0.2), ("b", 0.1, 0.2)])
    files.pairs.write_text(files.pairs.read_text().replace("\tothers\t", "\tvirus\t"))
    found = parsed(remake([tmp_path]))
    said = "pairs.tsv does not belong to run.json. One counts 2 (virus_pairs), the other 1."
    assert said in found.text


def test_a_damaged_row_of_pairs_is_named(tmp_path):
    files = made_paired_run(tmp_path, [("a", 0.9, 0.2)])
    with files.pairs.open("a") as file:
        file.write("lake\tb\tx\t4\t\t\t\tnone\tok\n")
    with pytest.raises(InputError, match=r"pairs\.tsv, line 3: this row is damaged"):
        remake([tmp_path])


def test_runs_with_pairs_and_without_stand_side_by_side(tmp_path):
    made_paired_run(tmp_path / "paired", [("a", 0.9, 0.2), ("b", 0.7, 0.6)])
    made_run(tmp_path / "single", [("c", [Chunk(0.9)])])
    found = parsed(remake([tmp_path / "paired", tmp_path / "single"], tmp_path / "all.html"))
    assert [len(run["pairs"]) for run in found.data["runs"]] == [2, 0]
    assert found.text.count("pairs called virus") == 1


# Bounds


def made_pairs(number: int, name: str = "t"):
    rng = random.Random(number)
    return ((f"{name}{i}", 0.6 + 0.3 * rng.random(), rng.random()) for i in range(number))


def test_a_big_paired_run_gives_a_page_of_bounded_size_that_says_what_it_shows(tmp_path):
    made_paired_run(tmp_path / "long", made_pairs(12_000, "\N{DNA DOUBLE HELIX}<&" * 40))
    path = remake([tmp_path / "long"])
    assert path.stat().st_size < MOST_BYTES
    (run,) = parsed(path).data["runs"]
    rows = table(tmp_path / "long" / "pairs.tsv")
    scores = sorted((float(r["p_virus"]) for r in rows if r["call"] == "virus"), reverse=True)
    assert run["virus_pairs"] == len(scores)
    assert 500 < len(run["pairs"]) < len(scores)
    assert sorted((row[4] for row in run["pairs"]), reverse=True) == scores[: len(run["pairs"])]
    made_paired_run(tmp_path / "short", made_pairs(16_000, "t"))
    (run,) = parsed(remake([tmp_path / "short"])).data["runs"]
    assert 9_000 < len(run["pairs"]) <= shown.MOST_ROWS < run["virus_pairs"]


def test_memory_does_not_grow_with_the_pairs(tmp_path, monkeypatch):
    monkeypatch.setattr(shown, "MOST_ROWS", 250)
    monkeypatch.setattr("virnucpro.report.pairs.MOST_ROWS", 250)
    monkeypatch.setattr("virnucpro.results.read.BLOCK_ROWS", 250)
    peaks = []
    for place, number in enumerate((4_000, 700, 4_000)):  # the first fills caches
        peaks.append(peak_of_reading(made_paired_run(tmp_path / str(place), made_pairs(number))))
    assert peaks[2] < 1.15 * peaks[1]
