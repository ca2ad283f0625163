"""Whole runs: nothing is lost, blocks and threads do not show, and run.json tells the truth."""

import gzip
import hashlib
import json
import tempfile
from collections import Counter
from dataclasses import replace
from pathlib import Path

import jsonschema
import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st
from test_outputs_doc import rows, schema, sections, words

from command import (
    TABLES,
    dna,
    fasta,
    made_bundle,
    random_reads,
    results,
    run_json,
    table,
    virnucpro,
)
from made_blocks import journal_in
from virnucpro.blocks import Block, Scored, blocks_of
from virnucpro.bundle import embedded_bundles
from virnucpro.bundle.manifest import Bundle
from virnucpro.calls import Rule
from virnucpro.chunks import chunk_spans
from virnucpro.classifiers.kmer import KmerClassifier
from virnucpro.classifiers.plan import plan_of
from virnucpro.devices.compute import Compute
from virnucpro.errors import DeviceError, InputError, SettingsError, VirnucproError
from virnucpro.progress import Position, Silent
from virnucpro.reads import Contig, open_sources
from virnucpro.results.judge import MeanJudge
from virnucpro.results.outputs import Outputs
from virnucpro.results.write import write_tables
from virnucpro.run.pipeline import compute, contigs_of
from virnucpro.run.predict import predict, run
from virnucpro.run.runners import Scorer, SerialRunner, Work
from virnucpro.run.settings import Part, Restart, Settings, option_names

CHUNK_NT = 80
TEXT = dna(60_000)
EDGES = [0, 1, 59, 60, 61, 79, 80, 81, 159, 160, 161, 239, 240, 241, 4_000]
RECORDS = st.lists(
    st.tuples(
        st.sampled_from(["a", "b", "a_1", "", "x_chunk_1"]),
        st.sampled_from(EDGES) | st.integers(0, 600),
    ),
    max_size=30,
)
EMBEDDED = [bundle.name for bundle in embedded_bundles()]


@pytest.fixture(scope="module")
def bundle(tmp_path_factory) -> Bundle:
    return made_bundle(tmp_path_factory.mktemp("bundles") / "km")


@pytest.fixture(scope="module")
def short(tmp_path_factory) -> Bundle:
    """A bundle of short chunks."""
    return made_bundle(tmp_path_factory.mktemp("bundles") / "short", chunk_nt=CHUNK_NT)


def sequences(records: list[tuple[str, int]]) -> list[tuple[str, str]]:
    return [(name, TEXT[37 * i : 37 * i + n]) for i, (name, n) in enumerate(records)]


class Unwatched:
    def line(self, text: str) -> None:
        pass

    def advance(self, scored: Scored, *, new: bool) -> None:
        pass

    def within(self, chunks: float) -> None:
        pass

    def skip(self, block: Block) -> None:
        pass


def work_of(bundle: Bundle) -> Work:
    return Work(bundle, plan_of(bundle, "cpu", "auto"), Compute().on("cpu"), 0)


def tables_of(bundle: Bundle, path: Path, *block_nt: int) -> dict[str, bytes]:
    """The results of a run of this block size, and perhaps of another first one."""
    with tempfile.TemporaryDirectory() as folder:
        files, journal = journal_in(Path(folder))
        sources = open_sources([path])
        sizes = bundle.chunk_nt, *block_nt
        with SerialRunner(work_of(bundle)) as runner:
            compute(contigs_of(sources, []), [], runner, journal, sizes, Unwatched())
        seen = [source.seen for source in sources]
        write_tables(
            files,
            journal,
            MeanJudge(Rule(bundle.kind), bundle.chunk_nt),
            open_sources([path]),
            seen,
        )
        return results(Path(folder))


@settings(max_examples=30, deadline=None)
@given(RECORDS, st.integers(150, 4_000))
@example([("a", 4_000), ("", 0), ("a", 4_000)], 1)
@example([("a", 1)] * 30, 65)
def test_the_size_of_blocks_does_not_show(short, tmp_path_factory, records, block_nt):
    """TRAP D1."""
    path = tmp_path_factory.mktemp("in") / "in.fa"
    path.write_bytes(fasta(sequences(records)))
    whole = tables_of(short, path, 10_000_000)
    assert tables_of(short, path, block_nt) == whole
    assert tables_of(short, path, block_nt, 1 + block_nt // 8) == whole


@pytest.mark.parametrize(("bad", "most"), [([200], 1 + 2 * 8), ([*range(5, 256, 16)], 256)])
def test_chunks_that_fail_are_found_by_halves(short, monkeypatch, bad, most):
    """A block may have thousands: it takes two tries for each halving, not one for each chunk.

    However many there are, where others between them are scored, the device is not at fault.
    """
    texts = [TEXT[i : i + CHUNK_NT].encode() for i in range(256)]
    letters = [b"N" * CHUNK_NT if i in bad else text for i, text in enumerate(texts)]
    contigs = (Contig("in", i, "a", text) for i, text in enumerate(letters, 1))
    (block,) = blocks_of(contigs, CHUNK_NT, 10_000_000)
    scorer, tried = Scorer(work_of(short)), []
    score = KmerClassifier.score_block

    def failing(classifier, part):
        tried.append(len(part.rows))
        if b"NN" in part.text:
            raise DeviceError("the device failed")
        return score(classifier, part)

    monkeypatch.setattr(KmerClassifier, "score_block", failing)
    with scorer:
        scored = scorer.finish(scorer.begin(block, None))
    assert scored.failures == dict.fromkeys(bad, "the device failed")
    assert len(tried) <= most


@pytest.mark.parametrize("chunks", [1, 2, 8])
def test_where_no_chunk_of_a_block_is_scored_the_device_is_at_fault(short, monkeypatch, chunks):
    """A single chunk tells nothing of the device."""
    contigs = (Contig("in", i, "a", b"N" * CHUNK_NT) for i in range(1, chunks + 1))
    (block,) = blocks_of(contigs, CHUNK_NT, 10_000_000)
    score = KmerClassifier.score_block

    def failing(classifier, part):
        if b"NN" in part.text:
            raise DeviceError("the device failed")
        return score(classifier, part)

    monkeypatch.setattr(KmerClassifier, "score_block", failing)
    with Scorer(work_of(short)) as scorer:
        begun = scorer.begin(block, None)
        if chunks == 1:
            assert scorer.finish(begun).failures == {0: "the device failed"}
            return
        with pytest.raises(DeviceError, match="no chunk of block 0 could be scored"):
            scorer.finish(begun)


@settings(max_examples=40, deadline=None)
@given(RECORDS)
@example([("a", 1)] * 30)
@example([("a", 50_000), ("b", 0), ("a", 50_000)])
def test_every_record_and_every_chunk_comes_out_once(short, tmp_path_factory, records):
    """TRAP D1, D6."""
    folder = tmp_path_factory.mktemp("run")
    given_records = sequences(records)
    (folder / "in.fa").write_bytes(fasta(given_records))
    outcome = predict([folder / "in.fa"], short.path, folder / "out")
    contigs, calls = table(outcome.files.contigs), table(outcome.files.calls)
    found = [(row["record"], row["contig"], row["length_nt"]) for row in contigs]
    assert found == [
        (str(i), name, str(len(text))) for i, (name, text) in enumerate(given_records, 1)
    ]
    spans = [(r["record"], r["contig"], r["chunk"], r["start"], r["end"]) for r in calls]
    assert spans == [
        (str(i), name, str(k), str(start), str(end))
        for i, (name, text) in enumerate(given_records, 1)
        for k, (start, end) in enumerate(chunk_spans(len(text), CHUNK_NT), 1)
    ]
    check_published_tables(outcome.files.run_dir, calls)
    check_counts(run_json(outcome.files.run_dir), contigs, calls)
    check_viral(outcome.files.viral_fasta, given_records, contigs)


def check_published_tables(run_dir: Path, calls: list[dict[str, str]]) -> None:
    """A row for each called chunk, all under names of their own."""
    called = [row for row in calls if row["call"] != "none"]
    frames = table(run_dir / "prediction_results.txt")
    chunks = table(run_dir / "prediction_results_highestscore.csv")
    ids = [row["Sequence_ID"].removesuffix("F1") for row in frames]
    assert len(ids) == len(set(ids)) == len(called)
    assert sorted(ids, key=str.encode) == [row["Modified_ID"] for row in chunks]
    for frame, call in zip(frames, called, strict=True):
        assert float(frame["score2"]) == pytest.approx(float(call["p_virus"]), abs=1e-6)


def check_counts(
    document: dict, contigs: list[dict[str, str]], calls: list[dict[str, str]]
) -> None:
    """run.json counts what the tables hold."""
    counts = document["counts"]
    by_call = Counter(row["call"] for row in contigs)
    assert counts["records"] == len(contigs) == sum(i["records"] for i in document["inputs"])
    assert (counts["virus"], counts["others"]) == (by_call["virus"], by_call["others"])
    assert counts["none"] + counts["failed"] == by_call["none"]
    assert counts["chunks"] == len(calls)
    status = Counter(row["status"] for row in calls)
    assert {name: n for name, n in counts["chunk_status"].items() if n} == status
    assert counts["virus_chunks"] == sum(row["call"] == "virus" for row in calls)
    assert counts["virus_chunks"] == sum(int(row["virus_chunks"]) for row in contigs)
    assert counts["bases"] == sum(int(row["length_nt"]) for row in contigs)


def check_viral(path: Path, records: list[tuple[str, str]], contigs: list[dict[str, str]]) -> None:
    parts = [part.split("\n", 1) for part in path.read_text().split(">")[1:]]
    assert [(header, text.replace("\n", "")) for header, text in parts] == [
        record for record, row in zip(records, contigs, strict=True) if row["call"] == "virus"
    ]


@pytest.mark.parametrize("name", EMBEDDED or [None])
def test_embedded_bundles_call_every_chunk_and_threads_do_not_show(name, tmp_path):
    """TRAP N11, R1: the real command on a small real model."""
    if name is None:
        pytest.skip("no bundle is embedded yet")
    lengths = [0, 1, 59, 60, 75, 299, 300, 301, 500, 700, 1_200]
    (tmp_path / "in.fa").write_bytes(fasta((f"c{n}", dna(n, n)) for n in lengths))
    found = []
    for threads in (1, 2):
        out = tmp_path / f"run{threads}"
        if threads == 1:
            arguments = ("predict", tmp_path / "in.fa", "-o", out, "--bundle", name)
            assert virnucpro(*arguments, "--threads", threads).code == 0
        else:  # in this process, which has loaded torch perhaps
            assert predict(tmp_path / "in.fa", name, out, threads=threads).exit_code == 0
        jsonschema.validate(run_json(out), schema())
        of_kmers = run_json(out)["bundle"]["kind"] == "kmer"
        in_products = name.endswith("-v2") and run_json(out)["settings"]["precision"] == "bf16"
        kernel = "batched products" if in_products else "PyTorch CPU flash"
        assert run_json(out)["attention"] == ({} if of_kmers else {"codon": kernel})
        named = "" if of_kmers else f"codon {kernel}"
        assert run_json(out)["fingerprint"]["attention"] == named
        assert run_json(out)["settings"]["threads"] == (1 if of_kmers else threads)
        found.append(results(out))
    assert found[0] == found[1]
    for row in table(tmp_path / "run1" / "calls.tsv"):
        assert (row["call"] != "none") == (int(row["end"]) - int(row["start"]) >= 60)


def test_run_json_of_a_real_run(bundle, tmp_path):
    """TRAP N15."""
    data = fasta((f"s{i}", dna(40 + 100 * i, i)) for i in range(20))
    (tmp_path / "in.fa").write_bytes(data)
    arguments = ("in.fa", "-o", "run", "--bundle", bundle.path, "--sample", "lake")
    assert virnucpro("predict", *arguments, cwd=tmp_path).code == 0
    document = run_json(tmp_path / "run")
    jsonschema.validate(document, schema())
    assert (document["status"], document["exit_code"], document["error"]) == ("complete", 0, None)
    assert document["inputs"] == [
        {
            "path": "in.fa",
            "sample": "lake",
            "sha256": hashlib.sha256(data).hexdigest(),
            "bytes": len(data),
            "records": 20,
            "mates": None,
            "format": "FASTA",
            "whole": True,
            "warning": None,
            "left_out": None,
        }
    ]
    assert document["bundle"] == {
        "name": "km",
        "sha256": bundle.sha256,
        "kind": "kmer",
        "chunk_nt": 500,
        "threshold": 0.5,
        "validated_nt": 75,
        "record_threshold": 0.5,
        "description": "random weights, for tests",
        "provenance": "other",
        "protein_kmers": False,
        "accuracy": None,
        "of_records": [],
    }
    assert document["command"][1:] == ["predict", *map(str, arguments)]
    assert document["device"]["precision"] == document["settings"]["precision"] == "fp64"
    assert document["versions"]["torch"] is None
    assert document["fingerprint"]["bundle"] == bundle.sha256
    assert 20_000_000 < document["memory"]["peak_bytes"] < 400_000_000
    timings = document["timings"]
    assert timings["total_s"] >= timings["blocks_s"] >= timings["scoring_s"] >= 0
    (documented,) = [r for r in rows(sections()["run.json"], "field | type") if "total_s" in r[2]]
    assert set(words(documented[2])) == set(json.loads(words(documented[3])[0])) == set(timings)
    assert document["started"] <= document["finished"]
    run_dir = tmp_path / "run"
    check_counts(document, table(run_dir / "contigs.tsv"), table(run_dir / "calls.tsv"))


def test_real_columns_are_the_documented_ones(bundle, tmp_path):
    bad = [(f"s{i}", dna(90, i) + "!" * (i == 110)) for i in range(1, 121)]
    (tmp_path / "in.fa").write_bytes(fasta(bad))
    everything = {"write": "all", "parquet": True, "log_json": True}
    outcome = predict([tmp_path / "in.fa"], bundle.path, tmp_path / "run", **everything)
    assert outcome.exit_code == 2
    for name in (*TABLES, "regions.tsv", "failed.tsv"):
        documented = [words(row[0])[0] for row in rows(sections()[name], "column | type")]
        header = (tmp_path / "run" / name).read_text().split("\n")[0]
        assert header.split("\t") == documented
    listed = [words(row[0])[0] for row in rows(sections()[""], "file | what")]
    listed.remove("pairs.tsv")  # of inputs with mates
    listed.remove("embeddings.parquet")  # of bundles of kind frames
    assert sorted(path.name for path in (tmp_path / "run").iterdir()) == sorted(listed)


def test_every_record_is_written_once_or_where_nobody_wants_it_not(short, tmp_path):
    """The choice of files is not in the fingerprint: kept blocks give each of them."""
    records = sequences([("a", 400), ("", 0), ("x", 30), ("long", 900), ("b", 241)])
    bad = [("q", "ACGT" * 30)] * 100 + [("bad", "AC!T" * 20), ("last", "GATTACA" * 12)]
    (tmp_path / "in.fa").write_bytes(fasta([*records, *bad]))
    texts = {}
    for write in ("all", "none", "viral"):
        outcome = predict(
            tmp_path / "in.fa", short.path, tmp_path / "run", write=write, keep_blocks=True
        )
        assert run_json(tmp_path / "run")["blocks"]["reused"] == (write != "all")
        assert run_json(tmp_path / "run")["settings"]["write"] == write
        texts[write] = {p.name: p.read_bytes() for p in (tmp_path / "run").glob("*.fasta")}
    assert set(texts["all"]) == {"viral.fasta", "others.fasta"}
    assert texts["none"] == {}
    assert texts["viral"] == {"viral.fasta": texts["all"]["viral.fasta"]}
    number = {name: text.count(b">") for name, text in texts["all"].items()}
    counts = outcome.counts
    assert number == {
        "viral.fasta": counts.virus,
        "others.fasta": counts.records - 1 - counts.virus,
    }
    assert 0 < counts.virus < counts.called
    assert counts.failed == 1
    assert b">bad" not in texts["all"]["others.fasta"]
    assert b">last" in texts["all"]["viral.fasta"] + texts["all"]["others.fasta"]
    with pytest.raises(SettingsError, match="write must be none, viral or all, got 'some'"):
        predict(tmp_path / "in.fa", short.path, tmp_path / "run", write="some")


def test_a_refused_record_keeps_its_length(short, tmp_path):
    """For its letters, or for being long; blocks and tables count it in."""
    records = [*[(f"r{i}", dna(90, i)) for i in range(100)], ("bad", "AC!T" * 20), ("c", dna(300))]
    (tmp_path / "in.fa").write_bytes(fasta(records))
    outcome = predict(tmp_path / "in.fa", short.path, tmp_path / "run", max_length=200)
    found = {row["contig"]: row for row in table(outcome.files.contigs)}
    assert [(found[n]["length_nt"], found[n]["status"]) for n in ("bad", "c", "r7")] == [
        ("80", "failed"),
        ("300", "failed"),
        ("90", "ok"),
    ]
    assert (found["bad"]["chunks"], found["c"]["chunks"]) == ("0", "0")
    assert outcome.counts.bases == 100 * 90 + 80 + 300
    assert outcome.counts.failed == 2


def test_several_inputs_in_order(bundle, tmp_path):
    for name in ("b", "a"):
        (tmp_path / f"{name}.fa").write_bytes(fasta([("x", dna(100, name)), ("y", dna(600, name))]))
    paths = [tmp_path / "b.fa", tmp_path / "a.fa"]
    outcome = predict(paths, bundle.path, tmp_path / "run")
    found = [(row["sample"], row["record"], row["contig"]) for row in table(outcome.files.contigs)]
    assert found == [("b", "1", "x"), ("b", "2", "y"), ("a", "1", "x"), ("a", "2", "y")]
    alone = predict(paths[1:], bundle.path, tmp_path / "alone")
    rows_of_a = outcome.files.calls.read_text().splitlines()[-3:]
    assert rows_of_a == alone.files.calls.read_text().splitlines()[1:]
    assert [i["records"] for i in run_json(tmp_path / "run")["inputs"]] == [2, 2]


def test_a_run_repeats_itself_to_the_byte(bundle, tmp_path):
    (tmp_path / "in.fa").write_bytes(random_reads(300, 700))
    first = predict([tmp_path / "in.fa"], bundle.path, tmp_path / "1")
    again = predict([tmp_path / "in.fa"], bundle.path, tmp_path / "2")
    assert results(first.files.run_dir) == results(again.files.run_dir)
    assert first.counts == again.counts


def test_the_library_says_nothing(bundle, tmp_path, capfd):
    (tmp_path / "in.fa").write_bytes(fasta([("a", dna(900))]))
    outcome = predict([str(tmp_path / "in.fa")], bundle.path, str(tmp_path / "run"), threshold=0.9)
    assert (outcome.status, outcome.exit_code, outcome.error) == ("complete", 0, None)
    assert run_json(tmp_path / "run")["settings"]["threshold"] == 0.9
    assert capfd.readouterr() == ("", "")


class Looking(Silent):
    """Keeps what it is told, and does something after the first block."""

    def __init__(self, then=lambda: None) -> None:
        self.positions: list[Position] = []
        self._then = then

    def advance(self, position: Position) -> None:
        if len(self.positions) == 1:  # the first is of the beginning
            self._then()
        self.positions.append(position)


def test_progress_rises_to_the_whole(short, tmp_path):
    (tmp_path / "in.fa").write_bytes(random_reads(9_000, 400))
    small = made_bundle(tmp_path / "small", block_nt=200_000)
    watcher = Looking()
    run(Settings.of(tmp_path / "in.fa", tmp_path / "run", str(small.path)), watcher)
    size = (tmp_path / "in.fa").stat().st_size
    done = [p.done for p in watcher.positions]
    counts = [p.count for p in watcher.positions]
    assert len(done) > 10
    assert (done, counts) == (sorted(done), sorted(counts))
    assert done[0] < size / 2
    assert {p.total for p in watcher.positions} == {size}
    last = watcher.positions[-1]
    assert (last.done, last.count, last.unit) == (size, 9_000, "chunks")
    assert last.note == "9,000 records, 9,000 chunks"


def test_blocks_that_were_finished_before_count_for_no_rate(short, tmp_path):
    (tmp_path / "in.fa").write_bytes(random_reads(9, 400))
    for threshold, new in ((0.5, 45), (0.6, 0)):
        watcher = Looking()
        outputs = {"threshold": threshold, "keep_blocks": True}
        run(Settings.of(tmp_path / "in.fa", tmp_path / "run", str(short.path), **outputs), watcher)
        assert watcher.positions[-1].count == new


def same_size(path: Path) -> None:
    path.write_bytes(path.read_bytes()[:-10] + b"ACGTACGTA\n")


def longer(path: Path) -> None:
    path.write_bytes(path.read_bytes() + b">new\nACGT\n")


def shorter(path: Path) -> None:
    path.write_bytes(path.read_bytes()[:2_000])


@pytest.mark.parametrize(
    ("change", "sentence"),
    [
        (same_size, "the file is not as it was when it was scored"),
        (longer, "the file is not as it was when it was scored"),
        (shorter, "the file is not as it was when it was scored"),
        (Path.unlink, "cannot be read (No such file or directory)"),
    ],
)
def test_an_input_that_changes_between_the_passes(bundle, tmp_path, change, sentence):
    """TRAP D10."""
    path = tmp_path / "in.fa"
    path.write_bytes(random_reads(50, 700))
    wish = Settings.of(path, tmp_path / "run", bundle.path)
    with pytest.raises(InputError) as caught:
        run(wish, Looking(lambda: change(path)))
    assert sentence in str(caught.value)
    document = run_json(tmp_path / "run")
    jsonschema.validate(document, schema())
    assert (document["status"], document["exit_code"]) == ("failed", 1)
    assert document["error"] == str(caught.value)
    assert results(tmp_path / "run") == {}


@pytest.mark.parametrize("lost", [4, 40])
def test_an_input_that_had_broken_off_and_is_whole_in_the_second_pass(bundle, tmp_path, lost):
    """TRAP D9: viral.fasta holds the records that the tables call, also behind that input."""
    packed, plain = tmp_path / "a.fa.gz", tmp_path / "b.fa"
    whole = gzip.compress(fasta([(f"a{i}", dna(300, i)) for i in range(20)]))
    packed.write_bytes(whole[:-lost])
    plain.write_bytes(fasta([(f"b{i}", dna(300, 100 + i)) for i in range(20)]))
    wish = Settings.of([packed, plain], tmp_path / "run", bundle.path)
    outcome = run(wish, Looking(lambda: packed.write_bytes(whole)))
    assert (outcome.status, outcome.exit_code) == ("failed", 1)
    contigs = table(outcome.files.contigs)
    viral = [row["contig"] for row in contigs if row["call"] == "virus"]
    headers = [x[1:] for x in outcome.files.viral_fasta.read_text().split() if x[0] == ">"]
    assert headers == viral
    assert {name[0] for name in viral} == {"a", "b"}
    assert len(contigs) < 40


@pytest.mark.parametrize(
    ("error", "code", "sentence"),
    [
        (MemoryError(), 4, "out of memory"),
        (ZeroDivisionError("a bug"), 1, "ZeroDivisionError: a bug"),
    ],
)
def test_an_error_that_is_none_of_ours_is_on_record(bundle, tmp_path, error, code, sentence):
    (tmp_path / "in.fa").write_bytes(random_reads(5, 300))
    wish = Settings.of(tmp_path / "in.fa", tmp_path / "run", bundle.path)

    def fail() -> None:
        raise error

    with pytest.raises(type(error)):
        run(wish, Looking(fail))
    document = run_json(tmp_path / "run")
    jsonschema.validate(document, schema())
    found = document["status"], document["exit_code"], document["error"]
    assert found == ("failed", code, sentence)
    assert results(tmp_path / "run") == {}


@pytest.mark.parametrize("error", [KeyboardInterrupt(), ZeroDivisionError("a bug")])
def test_a_full_disk_does_not_replace_what_ended_the_run(bundle, tmp_path, monkeypatch, error):
    (tmp_path / "in.fa").write_bytes(random_reads(5, 300))
    wish = Settings.of(tmp_path / "in.fa", tmp_path / "run", bundle.path)

    def refuse(*_):
        raise VirnucproError("the disk is full")

    def fail() -> None:
        monkeypatch.setattr("virnucpro.results.record.write_json", refuse)
        raise error

    with pytest.raises(type(error)) as caught:
        run(wish, Looking(fail))
    assert caught.value is error


@pytest.mark.parametrize("kind", [str, Path])
def test_one_path_is_one_input(bundle, tmp_path, monkeypatch, kind):
    (tmp_path / "in.fa").write_bytes(fasta([("a", dna(900))]))
    monkeypatch.chdir(tmp_path)
    assert predict(kind("in.fa"), bundle.path, "run").counts.records == 1


OPTIONS = {
    "reading": {
        "sample": "s",
        "mates": Path("m"),
        "pairs": "none",
        "read_groups": True,
        "reference": Path("r"),
        "min_length": 5,
        "max_length": 7,
        "max_records": 9,
    },
    "scoring": {
        "prescreen": "kmer-500",
        "prescreen_recall": 0.9,
        "prescreen_threshold": 0.1,
        "genetic_code": "auto",
    },
    "compute": {
        "gpus": "none",
        "workers": 2,
        "scheduler": "tcp://here",
        "precision": "bf16",
        "threads": 3,
        "attention": "math",
        "batch_tokens": 64,
        "esm_batch_size": 65,
        "dnabert_batch_size": 66,
        "dataloader_workers": 4,
        "pin_memory": True,
        "cuda_streams": False,
        "expandable_segments": True,
        "cache_clear_interval": 8,
    },
    "outputs": {
        "prefix": "p",
        "threshold": 0.25,
        "tables": "gz",
        "compat_tables": False,
        "write": "all",
        "parquet": True,
        "save_embeddings": True,
        "log_json": True,
        "allow_partial": True,
        "prior": "auto",
        "fdr": 0.05,
        "host": "human",
        "negatives": Path("n"),
    },
    "restart": {
        "resume": False,
        "force": True,
        "rerun": True,
        "keep_blocks": True,
        "journal": Path("j"),
        "part": Part(2, 5),
    },
}


def test_the_library_takes_every_setting(bundle, monkeypatch):
    """One by one, so that none is left out or swapped with another."""
    taken = []
    monkeypatch.setattr("virnucpro.run.predict.run", taken.append)
    plain = Settings(inputs=(Path("a"), Path("b")), out=Path("o"), bundle=str(bundle.path))
    predict(["a", Path("b")], bundle.path, "o")
    changed = [plain]
    for group, values in OPTIONS.items():
        for name, value in values.items():
            predict(["a", Path("b")], bundle.path, "o", **{name: value})
            with_it = replace(getattr(plain, group), **{name: value})
            assert with_it != getattr(plain, group)
            changed.append(replace(plain, **{group: with_it}))
    assert taken == changed
    assert {name for values in OPTIONS.values() for name in values} == option_names()


def test_settings_come_in_groups_too_and_a_single_one_wins():
    outputs = Outputs(threshold=0.9, write="all")
    found = Settings.of("a", "o", outputs=outputs, threshold=0.1, journal="j", part="2/5")
    assert found.outputs == Outputs(threshold=0.1, write="all")
    assert found.restart == Restart(journal=Path("j"), part=Part(2, 5))
    with pytest.raises(TypeError, match="unknown options: spool, treshold"):
        Settings.of("a", "o", treshold=0.1, spool=Path())


@pytest.mark.parametrize("part", ["0/5", "6/5", "5", "2/", "-1/5", "1/0", "a/b", "1/2/3"])
def test_a_part_is_one_of_several(part):
    with pytest.raises(SettingsError, match=f"must be i/n with 1 <= i <= n, as 2/5, got '{part}'"):
        Settings.of("a", "o", part=part)


def test_threads_of_a_bundle_that_uses_one_are_spoken_of(bundle, tmp_path):
    (tmp_path / "in.fa").write_bytes(fasta([("a", dna(900))]))
    for threads in (None, 1, 4):
        outcome = predict(
            tmp_path / "in.fa", bundle.path, tmp_path / f"r{threads}", threads=threads
        )
        said = "--threads 4 changes nothing" in outcome.files.log.read_text()
        assert said == (threads == 4)


@pytest.mark.parametrize(
    ("asked", "flags", "threads"),
    [("1", {}, 1), ("1,4", {}, 1), ("1", {"threads": 2}, 2), ("64", {}, 3), ("no", {}, 3)],
)
def test_omp_num_threads_is_the_default_of_threads(tmp_path, monkeypatch, asked, flags, threads):
    monkeypatch.setenv("OMP_NUM_THREADS", asked)
    monkeypatch.setattr("virnucpro.devices.machine.cpu_count", lambda: 3)
    (tmp_path / "in.fa").write_bytes(fasta([("a", dna(300))]))
    outcome = predict(tmp_path / "in.fa", "mini-300", tmp_path / "run", **flags)
    assert run_json(outcome.files.run_dir)["settings"]["threads"] == threads
    said = "OMP_NUM_THREADS" in outcome.files.log.read_text()
    assert said == (threads == 1)


def test_settings_that_cannot_be(bundle, tmp_path):
    fine = {"inputs": tmp_path / "in.fa", "out": tmp_path / "run", "bundle": bundle.path}
    for change in (
        {"inputs": ()},
        {"threshold": 1.01},
        {"threshold": float("nan")},
        {"tables": "zip"},
        {"prefix": "a/b"},
        {"prefix": "."},
        {"sample": "lake", "inputs": (tmp_path / "a.fa", tmp_path / "b.fa")},
        {"rerun": True, "resume": False},
        {"workers": 0},
        {"workers": 2, "scheduler": "tcp://here"},
        {"workers": 2, "gpus": "all"},
        {"batch_tokens": 0},
        {"cache_clear_interval": -1},
        {"save_embeddings": True},
    ):
        with pytest.raises(SettingsError):
            run(Settings.of(**fine | change))
    assert list(tmp_path.iterdir()) == []


@pytest.mark.slow
def test_many_reads_take_no_more_memory_and_little_time_without_torch(tmp_path):
    """TRAP R9: Ten times as many reads may take the lines that wait for sorting, and no more.

    The issue asks for 10,000 reads a second on a quiet machine; this one may be busy.
    """
    made_bundle(tmp_path / "km", block_nt=1_000_000)
    peaks = []
    for number in (10_000, 100_000):
        path = tmp_path / f"{number}.fa"
        path.write_bytes(random_reads(number, 150))
        arguments = ("predict", path, "-o", tmp_path / f"r{number}", "--bundle", tmp_path / "km")
        assert virnucpro(*arguments, "-q").code == 0
        document = run_json(tmp_path / f"r{number}")
        assert document["counts"]["records"] == number
        assert document["versions"]["torch"] is None
        peaks.append(document["memory"]["peak_bytes"])
    assert peaks[1] - peaks[0] < 16_000_000, peaks
    assert number / document["timings"]["total_s"] > 5_000
