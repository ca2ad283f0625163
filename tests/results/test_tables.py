import errno
import gzip
import os
import re
import shutil
import subprocess
import sys
import tracemalloc
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st

from command import SUPPORT
from made_blocks import MadeChunk, MadeContig, blocks_of_made, frame_scores, journal_in
from virnucpro.blocks import Rows, Scored
from virnucpro.calls import FRAME_NAMES, Call, Rule, Status, chunk_calls
from virnucpro.errors import InputError, VirnucproError
from virnucpro.reads import open_sources
from virnucpro.records import Record, Records
from virnucpro.results.contig_calls import ContigCalls
from virnucpro.results.counts import Counts
from virnucpro.results.judge import MeanJudge
from virnucpro.results.kinds import shortest, six_decimals
from virnucpro.results.regions import MOST_EXPECTED, Odds
from virnucpro.results.rows import header
from virnucpro.results.schema import (
    CallsTable,
    ChunkScoresTable,
    ContigsTable,
    FailedTable,
    FrameScoresTable,
    RegionsTable,
)
from virnucpro.results.unique_names import name_hashes, repeated_hashes, unique_names
from virnucpro.results.write import Wanted, write_tables
from virnucpro.storage.atomic import OutputFile, disk_errors
from virnucpro.storage.sorting import SortedLines

TABLES = (
    "calls.tsv",
    "contigs.tsv",
    "prediction_results.txt",
    "prediction_results_highestscore.csv",
    "regions.tsv",
    "regions.bed",
    "viral.fasta",
    "viral_names.txt",
)


def fasta_of(contigs: Sequence[MadeContig]) -> bytes:
    """An input with these records; the letters do not matter to the tables."""
    lines = []
    for ordinal, contig in enumerate(contigs):
        text = ("acgtTGCANu"[ordinal % 10 :] + "GATTACA" * contig.length_nt)[: contig.length_nt]
        lines += [f">{contig.name} and more words", text]
    return ("\n".join(lines) + "\n").encode() if lines else b""


JUDGE = MeanJudge(Rule("frames"), 4)
ODDS = Odds(0.9, 0.2, 4)


def run_of(folder: Path, contigs, cuts=(), kind="frames", threshold=0.5, sequences="all"):
    """Tables of made contigs: (counts, files by name)."""
    folder.mkdir()
    path = folder / "in.fasta"
    path.write_bytes(fasta_of(contigs))
    files, journal = journal_in(folder / "run")
    for scored in blocks_of_made(contigs, cuts, kind):
        journal.commit(scored)
    (source,) = open_sources([path])
    assert sum(1 for _ in source.contigs()) == len(contigs)
    judge, wanted = MeanJudge(Rule(kind, threshold), 4), Wanted(odds=ODDS, sequences=sequences)
    again = open_sources([path])
    counts = write_tables(files, journal, judge, again, [source.seen], wanted).counts
    shutil.rmtree(files.hidden)
    return counts, {p.name: p.read_bytes() for p in (folder / "run").iterdir()}


NAMES = st.sampled_from(["a", "a_1", "a_2", "a_1_1", "c1", "c10", "é", "_1", "a_01"])


@st.composite
def made_runs(draw):
    contigs = []
    for _ in range(draw(st.integers(0, 8))):
        chunks, end = [], 0
        for _ in range(draw(st.sampled_from([0, 1, 1, 2, 12]))):
            start = max(0, end - draw(st.integers(0, 4)))
            end += draw(st.integers(1, 9))
            status = draw(st.sampled_from([s for s in Status if s < Status.EMPTY]))
            frames = {}
            if status.called or (status == Status.FAILED and draw(st.booleans())):
                for f in draw(st.sets(st.integers(0, 5), min_size=1, max_size=3)):
                    p = float(np.float32(draw(st.integers(1, 2**12)) / 2**12) * 0.9999)
                    frames[f] = (float(np.float32(1 - p)), float(np.float32(p)))
            chunks.append(MadeChunk(start, end, status, frames))
        fault = "it holds a\tZ" if not chunks and draw(st.booleans()) else ""
        contigs.append(MadeContig(draw(NAMES), chunks, end, fault))
    return contigs


def naive_names(names: Sequence[str]) -> list[str]:
    used, seen, unique = set(names), set(), []
    for name in names:
        given_name, number = name, 0
        while number == 0 and name in seen and given_name in used:
            number = next(k for k in range(1, 10**6) if f"{name}_{k}" not in used)
            given_name = f"{name}_{number}"
        seen.add(name)
        used.add(given_name)
        unique.append(given_name)
    return unique


def naive_compatible(contigs: Sequence[MadeContig]) -> tuple[bytes, bytes]:
    frames, called = [], []
    for name, contig in zip(naive_names([c.name for c in contigs]), contigs, strict=True):
        for k, chunk in enumerate(contig.chunks, 1):
            for f, (p0, p1) in sorted(chunk.frames.items()):
                row = (f"{name}_chunk_{k}{FRAME_NAMES[f]}", p0, p1)
                frames.append(row)
                if chunk.status.called:
                    called.append(row)
    one = header(FrameScoresTable).decode()
    for frame_id, p0, p1 in frames:
        label = "virus" if p1 > p0 else "others"
        one += f"{frame_id}\t{label}\t{np.float32(p0)!s}\t{np.float32(p1)!s}\n"
    two = header(ChunkScoresTable).decode()
    for chunk_id, virus, m0, m1 in chunk_calls(called):
        two += f"{chunk_id}\t{virus}\t{np.float32(m0)!s}\t{np.float32(m1)!s}\n"
    return one.encode(), two.encode()


def rows_of(data: bytes) -> list[dict[str, str]]:
    lines = [line.split("\t") for line in data.decode().split("\n")]
    assert lines.pop() == [""]
    return [dict(zip(lines[0], line, strict=True)) for line in lines[1:]]


def along(name: str, text: str) -> MadeContig:
    """A contig of chunks called virus (v), others (o) or not at all (-)."""
    frames = {"v": {0: (0.125, 0.875)}, "o": {0: (0.875, 0.125)}}
    status = {"-": Status.NO_OPEN_FRAME}
    chunks = [
        MadeChunk(4 * i, 4 * i + 4, status.get(letter, Status.OK), frames.get(letter, {}))
        for i, letter in enumerate(text)
    ]
    return MadeContig(name, chunks, 4 * len(text))


PROPHAGES = [
    along("a", "o" * 20 + "vvvv-vvv" + "o" * 30 + "vvvvvvovv" + "oo"),
    along("a", "v" * 9 + "oo"),
    MadeContig("empty"),
    along("b", "oooo-vvvvvvvv" + "o" * 9),
]


@settings(deadline=None, max_examples=40, suppress_health_check=[HealthCheck.too_slow])
@given(made_runs(), st.lists(st.integers(0, 40)), st.sampled_from([0.5, 0.8]))
@example(PROPHAGES, [10, 24, 60, 75], 0.5)
def test_tables_of_frames(tmp_path_factory, contigs, cuts, threshold):
    """TRAP N14."""
    folder = tmp_path_factory.mktemp("made")
    counts, files = run_of(folder / "cut", contigs, cuts, threshold=threshold)
    assert files == run_of(folder / "whole", contigs, threshold=threshold)[1]
    compatible = naive_compatible(contigs)
    assert files["prediction_results.txt"] == compatible[0]
    assert files["prediction_results_highestscore.csv"] == compatible[1]
    check_calls(contigs, rows_of(files["calls.tsv"]), threshold)
    check_contigs(contigs, rows_of(files["contigs.tsv"]), counts)
    regions = rows_of(files["regions.tsv"])
    check_regions(contigs, rows_of(files["calls.tsv"]), regions, files["regions.bed"], counts)
    check_sequences(contigs, rows_of(files["contigs.tsv"]), regions, files)
    check_failed(contigs, files.get("failed.tsv"), counts)


def check_calls(contigs, rows, threshold):
    expected = [
        (i, contig, k, chunk)
        for i, contig in enumerate(contigs, 1)
        for k, chunk in enumerate(contig.chunks, 1)
    ]
    for row, (i, contig, k, chunk) in zip(rows, expected, strict=True):
        assert (row["sample"], row["record"], row["contig"]) == ("in", str(i), contig.name)
        assert (row["chunk"], row["start"], row["end"]) == (
            f"{k}",
            f"{chunk.start}",
            f"{chunk.end}",
        )
        assert row["frames"] == ",".join(FRAME_NAMES[f] for f in sorted(chunk.frames))
        assert row["status"] == chunk.status.name.lower()
        m0 = max((p for p, _ in chunk.frames.values()), default=0)
        m1 = max((p for _, p in chunk.frames.values()), default=0)
        if chunk.status.called:
            virus = m1 >= m0 if threshold == 0.5 else m1 / (m0 + m1) >= threshold
            assert row["call"] == ("virus" if virus else "others")
            texts = [f"{p:.6f}" for p in (m1 / (m0 + m1), m1, m0)]
        else:
            assert row["call"] == "none"
            texts = [""] * 3
        assert [row["p_virus"], row["max_p_virus"], row["max_p_others"]] == texts


def check_contigs(contigs, rows, counts):
    assert len(rows) == len(contigs) == counts.records
    for i, (row, contig) in enumerate(zip(rows, contigs, strict=True), 1):
        called = [c for c in contig.chunks if c.status.called]
        assert (row["record"], row["contig"]) == (str(i), contig.name)
        assert row["length_nt"] == str(contig.length_nt)
        assert (row["chunks"], row["called"]) == (f"{len(contig.chunks)}", f"{len(called)}")
        assert (row["call"] == "none") == (row["p_virus"] == "") == (not called)
        states = [c.status for c in contig.chunks]
        if called:
            assert row["status"] == "ok"
        elif contig.fault:
            assert row["status"] == "failed"
        else:
            assert row["status"] == max(states, default=Status.EMPTY).name.lower()
    by_status = {s: sum(row["status"] == s for row in rows) for s in ("failed", "ok")}
    assert (counts.failed, counts.called) == (by_status["failed"], by_status["ok"])
    assert counts.virus == sum(row["call"] == "virus" for row in rows)
    assert counts.bases == sum(c.length_nt for c in contigs)
    assert counts.virus_chunks == sum(int(row["virus_chunks"]) for row in rows)


def check_regions(contigs, calls, regions, bed, counts):
    """A region begins and ends with a chunk called virus, and counts what lies in it."""
    assert counts.regions == len(regions)
    assert counts.region_records == len({row["record"] for row in regions})
    before = {}
    for row, line in zip(regions, bed.decode().splitlines(), strict=True):
        start, end, record = int(row["start"]), int(row["end"]), row["record"]
        inside = [
            c
            for c in calls
            if c["record"] == record and int(c["start"]) >= start and int(c["end"]) <= end
        ]
        assert row["contig"] == contigs[int(record) - 1].name
        assert int(row["region"]) == before.get(record, (0, 0))[0] + 1
        assert start >= before.get(record, (0, 0))[1] or inside
        assert (row["length_nt"], row["chunks"]) == (str(end - start), str(len(inside)))
        virus = [c for c in inside if c["call"] == "virus"]
        assert (row["virus_chunks"], row["called"]) == (
            str(len(virus)),
            str(sum(c["call"] != "none" for c in inside)),
        )
        assert len(virus) >= 2
        assert (int(virus[0]["start"]), int(virus[-1]["end"])) == (start, end)
        assert float(row["expected_by_chance"]) <= MOST_EXPECTED
        scores = [float(c["p_virus"]) for c in inside if c["p_virus"]]
        assert min(scores) - 1e-6 <= float(row["p_virus"]) <= max(scores) + 1e-6
        before[record] = int(row["region"]), end
        name, *span, label, score, strand = line.split("\t")
        assert (name, span) == (row["contig"], [row["start"], row["end"]])
        assert (label, strand) == (f"in:{record}:{row['region']}", ".")
        assert int(score) == pytest.approx(1000 * float(row["p_virus"]), abs=0.51)


def records_of(text: bytes) -> list[tuple[bytes, bytes]]:
    assert all(len(line) <= 60 for line in text.split(b"\n") if not line.startswith(b">"))
    found = re.findall(rb">([^\n]*)\n([^>]*)", text)
    return [(name, sequence.replace(b"\n", b"")) for name, sequence in found]


def check_sequences(contigs, rows, regions, files):
    """Every record is in one file, whole; a region of one that is no virus is in viral.fasta."""
    viral, others = [], []
    for (head, letters), row in zip(records_of_input(contigs), rows, strict=True):
        if row["call"] == "virus":
            viral.append((head, letters))
            continue
        others.append((head, letters))
        for region in regions:
            if region["record"] == row["record"]:
                start, end = int(region["start"]), int(region["end"])
                name = f"{row['contig']}:{start + 1}-{end}".encode()
                viral.append((name, letters[start:end]))
    assert records_of(files["viral.fasta"]) == viral
    assert records_of(files["others.fasta"]) == others


def records_of_input(contigs):
    found = re.findall(rb">([^\n]*)\n([^>]*)", fasta_of(contigs))
    return [(name, sequence.replace(b"\n", b"")) for name, sequence in found]


def check_failed(contigs, data, counts):
    expected = []
    for i, contig in enumerate(contigs, 1):
        failed = sum(c.status == Status.FAILED for c in contig.chunks)
        reason = (
            f"{failed} of {len(contig.chunks)} chunks could not be scored: unknown"
            if failed
            else ""
        )
        reason = contig.fault.replace("\t", " ") or reason
        if reason:
            values = ("in", str(i), contig.name, reason)
            expected.append(dict(zip(FailedTable._fields, values, strict=True)))
    assert counts.incomplete == bool(expected) == (data is not None)
    assert counts.failed + counts.partly_failed == len(expected)
    if data is not None:
        assert rows_of(data) == expected


def test_a_bundle_of_whole_chunks(tmp_path):
    p = float(np.float32(0.9981))
    chunks = [
        MadeChunk(0, 500, Status.OK, {4: (float(np.float32(1 - p)), p)}),
        MadeChunk(250, 300, Status.TOO_SHORT),
        MadeChunk(260, 700, Status.BELOW_VALIDATED_LENGTH, {0: (0.75, 0.25)}),
    ]
    counts, files = run_of(
        tmp_path / "a", [MadeContig("c", chunks, 700)], kind="chunks", threshold=0.9
    )
    assert files["calls.tsv"].decode().split("\n")[1:] == [
        "in\t1\tc\t1\t0\t500\tF1,F2,F3,R1,R2,R3\t0.998100\tvirus\tok\t\t",
        "in\t1\tc\t2\t250\t300\t\t\tnone\ttoo_short\t\t",
        "in\t1\tc\t3\t260\t700\tF1,F2,F3,R1,R2,R3\t0.250000\tothers\tbelow_validated_length\t\t",
        "",
    ]
    mean = (500 * p + 200 * 0.25) / 700
    row = f"in\t1\tc\t700\t3\t2\t1\t{mean:.6f}\t0.998100\tothers\tok\t\t\t\t\t"
    assert files["contigs.tsv"].decode().split("\n")[1] == row
    assert files["prediction_results.txt"].decode().split("\n")[1:] == [
        "c_chunk_1R2\tvirus\t0.0019000173\t0.9981",
        "c_chunk_3F1\tothers\t0.75\t0.25",
        "",
    ]
    assert files["prediction_results_highestscore.csv"].decode().split("\n")[1:] == [
        "c_chunk_1\tTrue\t0.0019000173\t0.9981",
        "c_chunk_3\tFalse\t0.75\t0.25",
        "",
    ]
    assert (counts.others, counts.virus_chunks, counts.others_chunks) == (1, 1, 1)


def test_a_tie_is_others_for_a_frame_and_virus_for_a_chunk(tmp_path):
    contig = MadeContig("c", [MadeChunk(0, 9, Status.OK, {0: (0.5, 0.5)})], 9)
    _, files = run_of(tmp_path / "a", [contig])
    assert rows_of(files["prediction_results.txt"])[0]["Prediction"] == "others"
    assert rows_of(files["prediction_results_highestscore.csv"])[0]["Is_Virus"] == "True"
    assert rows_of(files["calls.tsv"])[0]["call"] == "virus"


def test_an_empty_input_gives_every_table_with_its_header(tmp_path):
    """TRAP D7, R13."""
    counts, files = run_of(tmp_path / "a", [])
    assert files == {
        "calls.tsv": header(CallsTable),
        "contigs.tsv": header(ContigsTable),
        "prediction_results.txt": header(FrameScoresTable),
        "prediction_results_highestscore.csv": header(ChunkScoresTable),
        "regions.tsv": header(RegionsTable),
        "regions.bed": b"",
        "viral.fasta": b"",
        "viral_names.txt": b"",
        "others.fasta": b"",
    }
    assert counts.records == counts.chunks == 0


def test_numbers_as_text():
    values = np.array([1e-5, 1e-4, 0.9981, 1, 0, 1.5e-8, 1e-45, 0.1, 2 / 3], dtype=np.float32)
    texts = ["1e-05", "1e-04", "0.9981", "1.0", "0.0", "1.5e-08", "1e-45", "0.1", "0.6666667"]
    assert shortest(values) == texts
    assert six_decimals(np.array([0.5, np.nan, 1, 1e-7])) == [
        "0.500000",
        "",
        "1.000000",
        "0.000000",
    ]
    assert six_decimals(np.array([np.nan, np.nan])) == ["", ""]
    assert six_decimals(np.zeros(0)) == []


@given(st.lists(st.floats(0, 1, width=32)))
def test_scores_read_back_and_are_shortest(values):
    array = np.array(values, dtype=np.float32)
    texts = shortest(array)
    assert [np.float32(text) for text in texts] == list(array)
    assert texts == [str(value) for value in array]


def unique(folder: Path, names: Sequence[str], per_block: int):
    records = [Record(i, "s", i + 1, name, 1, True, True) for i, name in enumerate(names)]
    blocks = [Records.of(records[i : i + per_block]) for i in range(0, len(records), per_block)]
    (folder / "hashes").write_bytes(name_hashes(names).tobytes())
    found = unique_names(lambda: iter(blocks), folder / "hashes", folder)
    return [name for block in blocks for name in found.of(block)]


@settings(deadline=None)
@given(
    st.lists(st.one_of(NAMES, st.from_regex(r"\A[ab](_[012]){0,3}\Z"), st.text(max_size=2))),
    st.integers(1, 5),
)
def test_unique_names_equal_the_plain_ones(tmp_path_factory, names, per_block):
    """TRAP D12."""
    names = [name.replace("\n", "") for name in names if name.isascii() or name.isprintable()]
    found = unique(tmp_path_factory.mktemp("names"), names, per_block)
    assert found == naive_names(names)
    assert len(set(found)) == len(found)


def test_paired_reads_share_names(tmp_path):
    """TRAP D12."""
    names = [f"read_{i // 2}" for i in range(20_000)] + ["read_7_1", "read_8"]
    found = unique(tmp_path, names, 333)
    assert found[:4] == ["read_0", "read_0_1", "read_1", "read_1_1"]
    assert found[14:18] == ["read_7", "read_7_2", "read_8", "read_8_1"]
    assert found[-2:] == ["read_7_1", "read_8_2"]


def test_repeated_hashes_hold_less_than_16_bytes_a_record(tmp_path):
    """Of pairs; the lines of names lie on the disk, and the rest is a bounded part at a time."""
    number = 500_000
    (tmp_path / "hashes").write_bytes(np.repeat(np.arange(number // 2), 2).tobytes())
    tracemalloc.start()
    found = repeated_hashes(tmp_path / "hashes", at_once=20_000)
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert len(found) == number // 2
    assert peak < 10 * number


def test_repeated_hashes_are_found_in_parts(tmp_path):
    names = [str(i) for i in (*range(1000), *range(0, 1000, 7))]
    (tmp_path / "hashes").write_bytes(name_hashes(names).tobytes())
    expected = sorted(hash(str(i)) for i in range(0, 1000, 7))
    assert repeated_hashes(tmp_path / "hashes", at_once=100).tolist() == expected


@given(st.lists(st.binary(max_size=5)), st.integers(1, 7), st.integers(2, 3))
def test_sorting_on_disk(tmp_path_factory, lines, lines_in_memory, fan_in):
    lines = [line.replace(b"\n", b"\r") + b"\n" for line in lines]
    folder = tmp_path_factory.mktemp("sort")
    sorter = SortedLines(folder, "x", lines_in_memory, fan_in)
    for start in range(0, len(lines), 3):
        sorter.add(lines[start : start + 3])
    runs = len(list(folder.iterdir()))
    assert runs <= (fan_in - 1) * (1 + np.log(max(2, len(lines))) / np.log(fan_in))
    assert list(sorter.sorted()) == sorted(lines)
    assert list(folder.iterdir()) == []


def open_files() -> int:
    return sum(1 for _ in Path("/dev/fd").iterdir())


def test_few_files_are_open_while_lines_are_sorted(tmp_path):
    sorter = SortedLines(tmp_path, "x", lines_in_memory=1, fan_in=4)
    before, most = open_files(), 0
    for i in range(4**4 - 1):  # three runs of each of four sizes
        sorter.add([b"%03d\n" % (i * 7 % 255)])
    assert len(list(tmp_path.iterdir())) == 12
    for i, line in enumerate(sorter.sorted()):
        assert line == b"%03d\n" % i
        most = max(most, open_files() - before)
    assert most <= 4


def test_ids_are_sorted_by_their_bytes(tmp_path):
    ok = MadeChunk(0, 9, Status.OK, {0: (0.5, 0.5)})
    contigs = [MadeContig(n, [ok] * 10, 9) for n in ("é", "c1", "c10", "c1_chunk_1", "Z")]
    _, files = run_of(tmp_path / "a", contigs, [7])
    ids = [row["Modified_ID"] for row in rows_of(files["prediction_results_highestscore.csv"])]
    assert ids == sorted(ids, key=str.encode)
    assert ids.index("c10_chunk_1") < ids.index("c1_chunk_1")
    assert ids.index("c1_chunk_10") < ids.index("c1_chunk_2")
    assert len(ids) == 50


def one_virus(folder: Path):
    """An input, and the journal with its one record, called virus."""
    path = folder / "in.fasta"
    path.write_bytes(b">a\n" + b"ACGT" * 100 + b"\n")
    files, journal = journal_in(folder / "run")
    chunk = MadeChunk(0, 400, Status.OK, {0: (0.25, 0.75)})
    journal.commit(blocks_of_made([MadeContig("a", [chunk], 400)], [])[0])
    (source,) = open_sources([path])
    list(source.contigs())
    return path, files, journal, source.seen


@pytest.mark.parametrize("text", [b">a\nACGA\n", b">a\nACGT\n>b\nA\n", b""])
def test_an_input_that_changed_is_named_and_nothing_written(tmp_path, text):
    path, files, journal, seen = one_virus(tmp_path)
    path.write_bytes(text)
    with pytest.raises(InputError, match="the file is not as it was when it was scored") as caught:
        write_tables(files, journal, JUDGE, open_sources([path]), [seen])
    assert str(path) in str(caught.value)
    assert [p.name for p in files.run_dir.iterdir()] == [".virnucpro"]


def test_a_stream_that_broke_in_the_first_pass_may_break_again(tmp_path):
    path, files, journal, seen = one_virus(tmp_path)
    data = gzip.compress(
        path.read_bytes()
        + b">b\n"
        + bytes(np.random.default_rng(1).choice(list(b"ACGT"), 100_000).astype(np.uint8))
        + b"\n"
    )
    path.write_bytes(data[: len(data) // 2])
    sources = open_sources([path])
    write_tables(files, journal, JUDGE, sources, [replace(seen, sha256="")])
    text = files.viral_fasta.read_bytes()
    assert text.replace(b"\n", b"") == b">a" + b"ACGT" * 100
    broken = replace(seen, sha256="")
    for text, before in ((path.read_bytes(), seen), (b"", broken), (b">a\nACGA\n", broken)):
        path.write_bytes(text)
        with pytest.raises(InputError, match="not as it was"):
            write_tables(
                files, journal, MeanJudge(Rule("frames"), 4), open_sources([path]), [before]
            )


def lacking_chunk(scored: Scored, row: int) -> Scored:
    rows, scores = scored.rows, scored.scores
    columns = (rows.record, rows.number, rows.start, rows.end)
    kept = Rows(*(np.delete(column, row) for column in columns))
    fewer = frame_scores([MadeChunk(0, 1, Status.NO_OPEN_FRAME)] * (len(scores) - 1))
    return replace(scored, rows=kept, scores=fewer)


def test_a_lost_or_doubled_record_is_a_bug_that_is_seen(tmp_path):
    """TRAP D1, D6."""
    chunks = [MadeChunk(0, 5, Status.NO_OPEN_FRAME), MadeChunk(4, 9, Status.NO_OPEN_FRAME)]
    contigs = [MadeContig(n, chunks, 9) for n in "abc"]
    blocks = blocks_of_made(contigs, [3])
    for number, damaged in enumerate(
        [
            [lacking_chunk(blocks[0], 0), blocks[1]],
            [lacking_chunk(blocks[0], 1), blocks[1]],
            [blocks[0], lacking_chunk(blocks[1], 0)],
            [blocks[0], lacking_chunk(blocks[1], 2)],
            [replace(blocks[1], block_number=0)],
            [blocks[0]],
            [blocks[0], replace(blocks[0], block_number=1)],
        ]
    ):
        files, journal = journal_in(tmp_path / str(number))
        for scored in damaged:
            journal.commit(scored)
        with pytest.raises(AssertionError, match="record"):
            write_tables(files, journal, JUDGE, [], [])
        assert not files.calls.exists()


def test_a_block_that_was_given_up_names_no_groups():
    """The next block of its contig does."""
    chunks = [MadeChunk(0, 5, Status.FAILED), MadeChunk(4, 9, Status.OK, {0: (0.25, 0.75)})]
    first, second = blocks_of_made([MadeContig("a", chunks, 9)], [1])
    named = replace(second.scores, groups=np.log(np.full((1, 3), 1 / 3, np.float16)))
    contigs = ContigCalls()
    for rows, scores, call, ends in (
        (first.rows, first.scores, Call.NONE, False),
        (second.rows, named, Call.VIRUS, True),
    ):
        calls = np.array([call], np.uint8)
        found = contigs.add(1, rows.record, rows.start, rows.end, scores, calls, ends)
    assert found.groups.shape == (1, 3)


def test_counts_must_add_up():
    """TRAP D6."""
    status = dict.fromkeys((s.name.lower() for s in Status if s < Status.EMPTY), 0)
    numbers = dict.fromkeys((n for n in Counts.__dataclass_fields__ if n != "chunk_status"), 0)
    Counts(**numbers, chunk_status=status)
    for name in ("records", "none", "virus", "chunks", "virus_chunks"):
        with pytest.raises(AssertionError, match="add up"):
            Counts(**(numbers | {name: 1}), chunk_status=status)
    with pytest.raises(AssertionError, match="add up"):
        Counts(**numbers, chunk_status=status | {"ok": 1})


class Disk:
    """Stands for OutputFile.write on a disk that takes so many pieces and no more."""

    def __init__(self, room):
        self.room = room
        self.write = OutputFile.write

    def __call__(self, file, data):
        self.room -= 1
        if self.room < 0:
            with disk_errors(file.path.parent):
                raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
        self.write(file, data)


def test_a_full_disk_while_tables_are_written(tmp_path, monkeypatch):
    path, files, journal, seen = one_virus(tmp_path)

    def write(room):
        disk = Disk(room)
        with monkeypatch.context() as patch:
            patch.setattr(OutputFile, "write", lambda file, data: disk(file, data))
            write_tables(files, journal, JUDGE, open_sources([path]), [seen])
        return disk.room

    needed = 1000 - write(1000)
    assert needed > 8
    for name in TABLES:
        (files.run_dir / name).unlink()
    for room in range(needed):
        with pytest.raises(VirnucproError, match="disk is full"):
            write(room)
        assert [p.name for p in files.run_dir.iterdir()] == [".virnucpro"]


KILLED = """
import os, signal, sys
from pathlib import Path
sys.path[:0] = sys.argv[2].split(os.pathsep)
from test_tables import one_virus
from virnucpro.calls import Rule
from virnucpro.results.files import RunFiles
from virnucpro.storage.atomic import OutputFile
from virnucpro.reads import open_sources
from virnucpro.results.judge import MeanJudge
from virnucpro.results.write import write_tables
path, files, journal, seen = one_virus(Path(sys.argv[1]))
left = [int(sys.argv[3])]
for name in ("write", "close"):
    def wrapped(file, *data, method=getattr(OutputFile, name)):
        left[0] -= 1
        if left[0] < 0:
            os.kill(os.getpid(), signal.SIGKILL)
        method(file, *data)
    setattr(OutputFile, name, wrapped)
write_tables(files, journal, MeanJudge(Rule("frames"), 4), open_sources([path]), [seen])
"""


@pytest.mark.parametrize("steps", [1, 9, 14, 100])
def test_a_kill_while_tables_are_written_leaves_none(tmp_path, steps):
    """TRAP R8."""
    arguments = [
        str(tmp_path),
        os.pathsep.join([str(SUPPORT), str(Path(__file__).parent)]),
        str(steps),
    ]
    done = subprocess.run(
        [sys.executable, "-c", KILLED, *arguments], capture_output=True, timeout=60, check=False
    )
    assert done.returncode == (0 if steps == 100 else -9), done.stderr
    public = {p.name for p in (tmp_path / "run").iterdir()} - {".virnucpro"}
    assert public == (set(TABLES) if steps == 100 else set())
