"""Regions: what chance gives stays as rare as is promised, and a prophage is found."""

import gzip
from dataclasses import replace
from itertools import pairwise
from math import exp
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from command import dna, fasta, made_bundle, run_json, table, virnucpro
from conftest import REPOSITORY
from virnucpro.bundle import embedded_bundles, load
from virnucpro.calls import Call
from virnucpro.chunks import span_arrays
from virnucpro.results.regions import (
    FEWEST_OF_GROUP,
    FEWEST_VIRUS,
    MOST_EXPECTED,
    Odds,
    Region,
    RegionFinder,
    odds_of,
    stretches,
)

CHUNK_NT = 500
MINI = odds_of(load("mini-500"), 0.5)
ODDS = [MINI, Odds(0.3, 0.014, CHUNK_NT), Odds(0.71, 0.5, CHUNK_NT), Odds(0.95, 0.05, CHUNK_NT)]


def regions_of(virus: np.ndarray, odds: Odds, length_nt: int | None = None) -> list[Region]:
    """The regions of one contig, or of a row each, whose chunks are called virus or others."""
    contigs, chunks = np.atleast_2d(virus).shape
    start, end = span_arrays(length_nt or CHUNK_NT * chunks, CHUNK_NT)
    assert len(start) == chunks
    spans = np.tile(start, contigs), np.tile(end, contigs)
    calls = np.where(virus, Call.VIRUS, Call.OTHERS).astype(np.uint8).ravel()
    record = np.repeat(np.arange(contigs, dtype=np.int32), chunks)
    return RegionFinder(odds).add(contigs, record, *spans, virus.ravel() * 0.5, calls, True)


# What chance gives


@pytest.mark.parametrize("odds", ODDS, ids=str)
@pytest.mark.parametrize("chunks", [1, 2, 3, 5, 10, 40, 100, 1_000, 10_000])
def test_chance_gives_no_more_regions_than_promised(odds, chunks):
    """Of contigs of all lengths, and also below the cut: the number expected is an upper bound."""
    rng = np.random.default_rng(chunks)
    contigs = max(300_000 // chunks, 60)
    if chunks <= 3:
        contigs = 20_000
    drawn = rng.random((contigs, chunks)) < odds.false_positive_rate
    found = [region.expected for region in regions_of(drawn, odds)]
    assert all(expected <= MOST_EXPECTED for expected in found)
    for most in (MOST_EXPECTED, MOST_EXPECTED / 10):
        number = sum(expected <= most for expected in found)
        mean = most * contigs
        assert number <= mean + 4 * mean**0.5
    if chunks < odds.fewest_chunks:
        assert not found
    step = np.where(drawn, odds.of_virus, odds.of_others)
    for most in (1.0, 0.2):  # the sum has no other cut in it than the one that was asked for
        least = np.log(chunks * odds.recall / most)
        if least > 0:
            number = sum(len(stretches(row, least)) for row in step.tolist())
            assert number <= most * contigs + 4 * (most * contigs) ** 0.5


def test_more_mistakes_than_the_rate_do_give_regions():
    """The simulation above can fail."""
    rng = np.random.default_rng(1)
    drawn = rng.random((300, 1_000)) < 2 * MINI.false_positive_rate
    assert len(regions_of(drawn, MINI)) > 2 * MOST_EXPECTED * 300


def test_hosts_that_differ_along_the_contig_do_not_either():
    """No chunk is called virus more often than the rate, but many are less often."""
    rng = np.random.default_rng(2)
    rates = np.repeat(rng.random((2_000, 10)) ** 2, 10, axis=1) * MINI.false_positive_rate
    drawn = rng.random(rates.shape) < rates
    assert len(regions_of(drawn, MINI)) <= MOST_EXPECTED * len(drawn)


@pytest.mark.parametrize("odds", ODDS, ids=str)
def test_from_how_many_chunks_on_a_contig_can_have_a_region(odds):
    fewest = odds.fewest_chunks
    assert fewest >= FEWEST_VIRUS
    (region,) = regions_of(np.ones(fewest, bool), odds)
    assert (region.start, region.end) == (0, CHUNK_NT * fewest)
    assert region.expected == pytest.approx(
        fewest * odds.recall * (odds.false_positive_rate / odds.recall) ** fewest
    )
    assert regions_of(np.ones(fewest - 1, bool), odds) == []


def test_bases_that_two_chunks_share_speak_once():
    odds = Odds(0.95, 0.05, CHUNK_NT)
    assert odds.fewest_chunks == 2
    assert len(regions_of(np.ones(2, bool), odds, 1_000)) == 1
    assert regions_of(np.ones(2, bool), odds, 501) == []


# Where a region lies


def naive(values: list[float], first: int, last: int) -> float:
    return sum(values[first:last])


def test_no_stretch_begins_with_what_sums_up_to_nothing():
    assert stretches([1.0, -1.0, 2.0], 1.5) == [(2, 3, 2.0)]


values = st.lists(st.sampled_from([-1.4, -0.7, 0.9, 0.9, 0.4]), max_size=60)


@given(values, st.sampled_from([0.5, 2.0, 3.5]))
def test_stretches_are_whole_apart_and_as_good_as_they_get(values, least):
    found = stretches(values, least)
    for first, last, total in found:
        assert total == pytest.approx(naive(values, first, last))
        assert total >= least
        for cut in range(first + 1, last):  # neither end can be cut off to gain
            assert naive(values, first, cut) > 0
            assert naive(values, cut, last) > 0
            # nor does it bridge what is as strong against a virus
            best = max(naive(values, first, end) for end in range(first, cut + 1))
            assert best - naive(values, first, cut) < least
    for (_, before, _), (first, _, _) in pairwise(found):
        assert before <= first
    gaps = [0, *(edge for first, last, _ in found for edge in (first, last)), len(values)]
    for first, last in zip(gaps[::2], gaps[1::2], strict=True):  # between them there is none
        for begin in range(first, last):
            for end in range(begin + 1, last + 1):
                assert naive(values, begin, end) < least + 1e-9


def test_a_strong_host_between_two_parts_them_and_a_weak_one_does_not():
    def virus(*lengths: int) -> np.ndarray:
        return np.concatenate([np.full(n, i % 2 == 0) for i, n in enumerate(lengths)])

    assert len(regions_of(virus(30, 2, 30), MINI)) == 1
    first, second = regions_of(virus(30, 12, 30), MINI)
    assert (first.end, second.start) == (15_000, 21_000)
    assert (first.number, second.number) == (1, 2)
    (region,) = regions_of(virus(0, 50, 30, 50), MINI)
    assert (region.start, region.end, region.length_nt) == (25_000, 40_000, 15_000)
    assert (region.chunks, region.called, region.virus) == (30, 30, 30)
    assert region.expected == pytest.approx(130 * MINI.recall * exp(-30 * MINI.of_virus), rel=1e-9)


def test_chunks_without_a_call_say_nothing():
    start, end = span_arrays(20_000, CHUNK_NT)
    calls = np.full(40, Call.NONE, np.uint8)
    calls[5:35:3] = Call.VIRUS
    p_virus = np.where(calls == Call.VIRUS, 0.75, np.nan)
    finder = RegionFinder(MINI)
    (region,) = finder.add(1, np.zeros(40, np.int32), start, end, p_virus, calls, True)
    assert (region.start, region.end) == (2_500, 16_500)
    assert (region.chunks, region.called, region.virus) == (28, 10, 10)
    assert region.p_virus == 0.75


@settings(deadline=None)
@given(
    st.lists(st.lists(st.sampled_from([0.1, 0.9, 0.8, None]), max_size=25), max_size=5),
    st.lists(st.integers(1, 100)),
)
def test_where_blocks_are_cut_does_not_show(contigs, cuts):
    rows = [(i, k, p) for i, chunks in enumerate(contigs) for k, p in enumerate(chunks)]
    edges = [0, *sorted({c for c in cuts if c < len(rows)}), len(rows)]
    found = []
    for cut in (edges, [0, len(rows)]):
        finder = RegionFinder(Odds(0.9, 0.2, 10))
        regions = []
        for first, last in pairwise(cut):
            part = rows[first:last]
            if not part:
                continue
            begin = part[0][0]
            r = part[-1][0] - begin + 1
            ends = last == len(rows) or rows[last][0] != part[-1][0]
            p = np.array([np.nan if p is None else p for _, _, p in part])
            call = np.where(np.isnan(p), Call.NONE, np.where(p > 0.5, Call.VIRUS, Call.OTHERS))
            start = np.array([10 * k for _, k, _ in part])
            record = np.array([i - begin for i, _, _ in part], np.int32)
            columns = (record, start, start + 10, p, call.astype(np.uint8))
            for region in finder.add(r, *columns, ends):
                tail = (region.number, region.start, region.end, region.called, region.p_virus)
                regions.append((region.index + begin, *tail, region.expected))
        found.append(regions)
    assert found[0] == found[1]


# What a bundle's card says


@pytest.mark.parametrize("bundle", embedded_bundles(), ids=lambda bundle: bundle.name)
def test_rates_are_those_of_the_card_and_never_smaller(bundle):
    measured = {row["threshold"]: row for row in bundle.card["by_threshold"]}
    before = 1.0
    for threshold in (0.5, 0.55, 0.7, 0.75, 0.8, 0.85, 0.9, 0.93, 0.95, 0.99, 1.0):
        odds = odds_of(bundle, threshold)
        below = max(t for t in measured if t <= threshold)
        if isinstance(odds, str):
            assert bundle.kind == "kmer"
            continue
        assert odds.chunk_nt == bundle.chunk_nt
        assert odds.false_positive_rate > measured[below]["false_positive_rate"]
        assert odds.false_positive_rate <= before
        assert odds.recall <= measured[below]["recall"]
        before = odds.false_positive_rate
    own = odds_of(bundle, bundle.threshold)
    worst = max(
        row["false_positive_rate"]
        for row in bundle.card["by_part"]
        if row["part"] == "group" and row["others"]
    )
    assert own.false_positive_rate == pytest.approx(worst, rel=0.01)
    assert "no false-positive rate at this threshold" in odds_of(bundle, 0.4)


def test_no_mistake_among_the_fragments_is_not_no_mistake_at_all():
    rates = {"recall": 1.0, "false_positive_rate": 0.0}
    card = {"fixed_fragments": {"viral": 100, "others": 199, **rates}}
    odds = odds_of(replace(load("mini-500"), card=card), 0.5)
    assert (odds.false_positive_rate, odds.recall) == (1 / 200, 0.999)


@pytest.mark.parametrize(("others", "times"), [(FEWEST_OF_GROUP, 4), (FEWEST_OF_GROUP - 1, 1)])
def test_the_worst_group_counts_where_it_has_enough_fragments(others, times):
    fixed = {"viral": 100, "others": 999, "recall": 0.9, "false_positive_rate": 0.1}
    group = {"part": "group", "others": others, "false_positive_rate": 0.4}
    card = {"fixed_fragments": fixed, "by_part": [group]}
    odds = odds_of(replace(load("mini-500"), card=card), 0.5)
    assert odds.false_positive_rate == pytest.approx(times * (0.1 * 999 + 1) / 1000)


def test_a_bundle_without_rates_has_no_regions_and_the_log_says_why(tmp_path):
    made_bundle(tmp_path / "km")
    (tmp_path / "in.fa").write_bytes(fasta([("long", dna(30_000))]))
    arguments = ("-o", tmp_path / "run", "--bundle", tmp_path / "km", "--threshold", 0)
    done = virnucpro("predict", tmp_path / "in.fa", *arguments)
    assert done.code == 0
    why = "no regions are looked for: the card of km has no false-positive rate"
    assert why in done.err
    assert why in (tmp_path / "run" / "log.txt").read_text()
    assert len((tmp_path / "run" / "regions.tsv").read_text().splitlines()) == 1
    assert (tmp_path / "run" / "regions.bed").read_bytes() == b""


def test_regions_stay_where_fdr_calls_nothing_and_log_and_report_say_so(tmp_path):
    run, sample = tmp_path / "run", REPOSITORY / "examples" / "sample.fasta"
    done = virnucpro("predict", sample, "-o", run, "--fdr", 1e-9)
    assert done.code == 0, done.err
    assert {row["call"] for row in table(run / "contigs.tsv")} == {"others"}
    rows = table(run / "regions.tsv")
    headers = [x[1:] for x in (run / "viral.fasta").read_text().splitlines() if x[0] == ">"]
    assert headers == [f"{r['contig']}:{int(r['start']) + 1}-{r['end']}" for r in rows] != []
    held = f"; viral.fasta holds {len(rows)} on records not called virus"
    assert held in (run / "log.txt").read_text()
    assert "viral.fasta holds the records called virus" in (run / "report.html").read_text()
    assert virnucpro("predict", sample, "-o", run, "--fdr", 1e-9, "--write", "none").code == 0
    assert (run / "log.txt").read_text().count(held) == 1
    assert "viral.fasta holds" not in (run / "report.html").read_text()


# Real DNA


@pytest.fixture(scope="module")
def prophages(shared, tmp_path_factory) -> tuple[Path, dict[str, tuple[int, int]]]:
    """Windows of bacteria, some with the genes of a phage or a virus put in; where these lie."""

    def records(name: str) -> list[tuple[str, str]]:
        with gzip.open(shared / "data" / "val" / f"{name}.fasta.gz", "rt") as file:
            lines = [line.rstrip() for line in file]
        return [(h[1:], s) for h, s in zip(lines[::2], lines[1::2], strict=True)]

    hosts = [s for h, s in records("nonviral") if "|bacteria|Brucella" in h and len(s) > 15_000]
    virus = records("viral")
    inserts = {
        "phage": "".join(s for h, s in virus if h.endswith("|phage|mpa2_virus_run12979919")),
        "giant": next(s for h, s in virus if h.startswith("mpa2v_4443108|")),
        "none": "",
    }
    folder = tmp_path_factory.mktemp("prophages")
    text, places = [], {}
    for i, host in enumerate(hosts[:3]):
        for name, insert in inserts.items():
            contig = f"{name}_{i}"
            text.append((f"{contig} a host", host[:9_990] + insert + host[9_990:]))
            if insert:
                places[contig] = (9_990, 9_990 + len(insert))
    (folder / "in.fa").write_bytes(fasta(text))
    return folder / "in.fa", places


def test_a_virus_in_a_bacterium_is_found_and_written_without_its_host(prophages, tmp_path):
    path, places = prophages
    run = tmp_path / "run"
    arguments = ("-o", run, "--bundle", "mini-500", "--threshold", 0.7, "--write", "all", "-q")
    assert virnucpro("predict", path, *arguments).code == 0
    rows = table(run / "regions.tsv")
    assert {row["contig"] for row in rows} == set(places)
    assert len(rows) == len(places)
    for row in rows:
        start, end = places[row["contig"]]
        assert abs(int(row["start"]) - start) < 2_000
        assert abs(int(row["end"]) - end) < 2_000
        assert int(row["length_nt"]) == int(row["end"]) - int(row["start"])
        assert float(row["expected_by_chance"]) < 1e-4
    counts = run_json(run)["counts"]
    assert (counts["regions"], counts["region_records"]) == (len(rows), len(rows))
    assert (
        f"<b>{len(rows)} viral regions</b> on {len(rows)} of the records"
        in (run / "report.html").read_text()
    )
    bed = [line.split("\t") for line in (run / "regions.bed").read_text().splitlines()]
    assert [cells[:3] for cells in bed] == [[r["contig"], r["start"], r["end"]] for r in rows]
    assert [cells[3] for cells in bed] == [f"in:{row['record']}:1" for row in rows]
    calls = {row["contig"]: row["call"] for row in table(run / "contigs.tsv")}
    excerpts = [row for row in rows if calls[row["contig"]] == "others"]
    assert excerpts
    check_as_samtools(path, run, excerpts)


def check_as_samtools(path: Path, run: Path, excerpts: list[dict[str, str]]) -> None:
    """Excerpts are to the byte what samtools faidx gives of their names."""
    pysam = pytest.importorskip("pysam")
    names = [f"{r['contig']}:{int(r['start']) + 1}-{r['end']}" for r in excerpts]
    viral = (run / "viral.fasta").read_text()
    assert [line[1:] for line in viral.splitlines() if ":" in line] == names
    for name in names:
        assert pysam.faidx(str(path), name) in viral
    assert (run / "others.fasta").read_text().count(">") + viral.count(">") == 9 + len(names)
