import json
from collections.abc import Sequence
from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from virnucpro.calls import Scores, Status
from virnucpro.chunks import chunk_spans
from virnucpro.classifiers.chunk_status import whole_chunk_scores
from virnucpro.measure import accuracy
from virnucpro.measure.accuracy import evaluate, performance_by_length
from virnucpro.measure.labels import LabelledContig, read_with_labels
from virnucpro.measure.metrics import auroc
from virnucpro.measure.performance import table_row


class ShareOfA:
    """p_virus is the share of A; a chunk of less than 10 letters has none."""

    name = "share of A"

    def __init__(self) -> None:
        self.seen: list[int] = []

    def score(self, chunks: Sequence[str]) -> Scores:
        self.seen.append(len(chunks))
        share = np.array([chunk.count("A") / max(len(chunk), 1) for chunk in chunks])
        short = np.array([len(chunk) < 10 for chunk in chunks], dtype=np.bool_)
        status = np.where(short, Status.TOO_SHORT, Status.OK).astype(np.uint8)
        return whole_chunk_scores(status, share)


def contig(text: str, label: int, group: str = "", unit: str = "", **more: str) -> LabelledContig:
    return LabelledContig(f"{group}{unit}", text.encode(), label, group, unit=unit, **more)


def some_contigs() -> list[LabelledContig]:
    rng = np.random.default_rng(0)
    contigs = []
    for i in range(60):
        label = i % 2
        p = np.array([0.25 + 0.06 * label, 0.25, 0.25, 0.25 - 0.06 * label])
        text = "".join(rng.choice(list("ACGT"), size=int(rng.integers(50, 400)), p=p))
        group = f"{'v' if label else 'o'}{i % 3}"
        level = "gene_CDS" if i % 4 < 2 else ("genome" if label else "window")
        contigs.append(contig(text, label, group, f"u{i // 2}", level=level, source="s"))
    return contigs


def test_evaluation_over_all_chunks_and_contigs() -> None:
    contigs = some_contigs()
    found = evaluate(ShareOfA(), contigs, chunk_nt=100, threshold=0.28, resamples=50)
    label = np.array([c.label == 1 for c in contigs])
    whole = found.contig[0]
    assert (whole.part, whole.viral, whole.others) == ("all", 30, 30)
    # The mean weighted by added bases is, for this score, near the share of A of the contig.
    share = np.array([c.sequence.count(b"A") / len(c.sequence) for c in contigs])
    assert whole.auroc == pytest.approx(auroc(label, share), abs=0.05)
    assert whole.auroc_interval is not None
    assert whole.auroc_interval.low < whole.auroc < whole.auroc_interval.high
    chunks = [-(-len(c.sequence) // 100) for c in contigs]
    assert found.chunk[0].viral + found.chunk[0].others == sum(chunks)
    assert found.chunk[0].viral == sum(n for n, c in zip(chunks, contigs, strict=True) if c.label)
    assert found.bases == sum(len(c.sequence) for c in contigs)


def test_parts_with_one_label_are_set_against_all_of_the_other() -> None:
    contigs = some_contigs()
    found = evaluate(ShareOfA(), contigs, chunk_nt=1000, threshold=0.28, resamples=20)
    parts = {(p.part, p.value): p for p in found.contig}
    assert set(parts) == {
        ("all", ""),
        *(("group", g) for g in ("v0", "v1", "v2", "o0", "o1", "o2")),
        *(("level", v) for v in ("gene_CDS", "genome", "window")),
        ("source", "s"),
        *(("source and level", f"s {v}") for v in ("gene_CDS", "genome", "window")),
    }
    share = np.array([c.sequence.count(b"A") / len(c.sequence) for c in contigs])
    label = np.array([c.label == 1 for c in contigs])
    group = np.array([c.group for c in contigs])

    viral = parts["group", "v1"]
    rows = (group == "v1") | ~label
    assert viral.auroc == pytest.approx(auroc(label[rows], share[rows]))
    assert (viral.against, viral.viral, viral.others) == ("all others", 10, 0)
    assert viral.recall == np.mean(share[group == "v1"] >= 0.28) == viral.accuracy
    assert viral.precision is viral.f1 is viral.auprc is viral.false_positive_rate is None
    assert viral.auroc_interval is None

    other = parts["group", "o1"]
    rows = (group == "o1") | label
    assert other.auroc == pytest.approx(auroc(label[rows], share[rows]))
    assert other.against == "all viral"
    assert other.false_positive_rate == np.mean(share[group == "o1"] >= 0.28)
    assert other.recall is None

    level = parts["level", "gene_CDS"]
    rows = np.array([c.level == "gene_CDS" for c in contigs])
    assert level.auroc == pytest.approx(auroc(label[rows], share[rows]))
    assert (level.against, level.viral + level.others) == ("", rows.sum())
    assert level.auroc_interval is not None


def test_what_has_no_score_ranks_lowest_and_is_counted() -> None:
    contigs = [
        contig("A" * 9, 1, unit="a"),
        contig("A" * 20, 1, unit="b"),
        contig("", 1, unit="c"),
        contig("C" * 20, 0, unit="d"),
    ]
    found = evaluate(ShareOfA(), contigs, chunk_nt=100, resamples=10)
    whole = found.contig[0]
    assert (whole.viral, whole.others, whole.without_score) == (3, 1, 2)
    assert whole.auroc == pytest.approx(1 / 3)
    assert whole.recall == pytest.approx(1 / 3)
    assert found.chunk[0].without_score == 1
    assert found.chunk[0].viral == 2


def test_results_become_json_and_text() -> None:
    found = evaluate(ShareOfA(), some_contigs(), chunk_nt=100, threshold=0.28, resamples=20)
    plain = json.loads(json.dumps(found.as_dict(), allow_nan=False))
    assert plain["contig"][0]["auroc"] == found.contig[0].auroc
    assert plain["contig"][0]["recall_at_01pct_fpr"] is None
    assert [e["prevalence"] for e in plain["expected_precision"]] == [0.001, 0.01, 0.1]
    recall, rate = found.contig[0].recall, found.contig[0].false_positive_rate
    assert recall is not None
    assert rate is not None
    expected = recall * 0.01 / (recall * 0.01 + rate * 0.99)
    assert plain["expected_precision"][1]["precision"] == pytest.approx(expected)
    for rank in ("chunk", "contig"):
        header, rows = found.table(rank)
        assert {len(row) for row in rows} == {len(header)}
        assert len(rows) == len(found.of(rank))
    assert found.table("contig")[1][0][5] == f"{found.contig[0].auroc:.3f}"


def test_scoring_in_slices_changes_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    contigs = some_contigs()
    contigs[7:7] = [contig("", 1), contig("ACG", 0)]
    contigs.append(contig("", 0))
    once, many = ShareOfA(), ShareOfA()
    done: list[int] = []
    whole = accuracy.score_contigs(once, contigs, 100)
    monkeypatch.setattr(accuracy, "SCORED_AT_ONCE_NT", 250)
    sliced = accuracy.score_contigs(many, contigs, 100, done.append)
    assert len(once.seen) == 1
    assert len(many.seen) > 20
    assert sum(many.seen) == sum(once.seen)
    np.testing.assert_array_equal(whole.chunk, sliced.chunk)
    np.testing.assert_array_equal(whole.contig, sliced.contig)
    assert np.isnan(whole.contig).nonzero()[0].tolist() == [7, 8, 62]
    assert sum(done) == sum(e - s for c in contigs for s, e in chunk_spans(len(c.sequence), 100))


def test_no_contig_at_all() -> None:
    found = evaluate(ShareOfA(), [], chunk_nt=100)
    assert found.contig[0].auroc is None
    assert len(found.chunk) == 1


def test_a_classifier_that_loses_rows_is_caught() -> None:
    class Loses(ShareOfA):
        def score(self, chunks: Sequence[str]) -> Scores:
            return super().score(chunks[:-1])

    with pytest.raises(ValueError, match="chunks went in"):
        evaluate(Loses(), some_contigs(), chunk_nt=100)


@settings(max_examples=60, deadline=None)
@given(st.lists(st.text("ACGT", max_size=90), max_size=5), st.integers(5, 25))
def test_contig_p_is_the_mean_weighted_by_added_bases(texts: list[str], chunk_nt: int) -> None:
    scored = accuracy.score_contigs(ShareOfA(), [contig(t, 1) for t in texts], chunk_nt)
    for text, found in zip(texts, scored.contig, strict=True):
        covered, total, bases = 0, 0.0, 0
        for start, end in chunk_spans(len(text), chunk_nt):
            if end - start >= 10:
                added = end - max(start, covered)
                total += text[start:end].count("A") / (end - start) * added
                covered, bases = end, bases + added
        assert found == pytest.approx(total / bases if bases else np.nan, nan_ok=True)


class ShareOfAT(ShareOfA):
    """The same on both strands."""

    def score(self, chunks: Sequence[str]) -> Scores:
        return super().score([chunk.replace("T", "A") for chunk in chunks])


def test_performance_by_length() -> None:
    rng = np.random.default_rng(2)
    contigs = []
    for i in range(20):
        p = [0.28, 0.22, 0.22, 0.28] if i % 2 else [0.25] * 4
        contigs.append(contig("".join(rng.choice(list("ACGT"), size=900, p=p)), i % 2, unit=f"{i}"))
    found = performance_by_length(
        ShareOfAT(), contigs, chunk_nt=100, lengths_nt=(20, 300, 5000), per_side=80, resamples=20
    )
    assert list(found) == [20, 300, 5000]
    assert (found[20].viral, found[20].others) == (80, 80)
    assert found[5000].auroc is None
    short, long = found[20].auroc, found[300].auroc
    assert short is not None
    assert long is not None
    assert 0.5 < short < 0.8 < long
    assert table_row(found[5000])[5] == ""


def test_the_fixed_fragments_have_the_labels_that_their_readme_states(shared) -> None:
    folder = shared / "data" / "val" / "fragments"
    found = read_with_labels([folder / "frag300.fasta.gz"], [folder / "frag300.labels.tsv"])
    assert {len(c.sequence) for c in found.contigs} == {300}
    assert sum(c.label for c in found.contigs) == 2000
    assert {c.group for c in found.contigs if c.label} == {
        "rna_virus",
        "phage",
        "dna_virus",
        "unknown_virus",
    }


def test_novelty_is_of_viral_rows_against_all_others() -> None:
    contigs = [
        replace(c, novelty=("unseen", "distant", "known", "")[i // 2 % 4]) if c.label else c
        for i, c in enumerate(some_contigs())
    ]
    found = evaluate(ShareOfA(), contigs, chunk_nt=500, resamples=50).contig
    parts = {p.value: p for p in found if p.part == "novelty"}
    assert list(parts) == ["strict", "unseen", "distant", "known"]
    assert parts["strict"].viral == parts["unseen"].viral + parts["distant"].viral
    share = {c.name: c.sequence.count(b"A") / len(c.sequence) for c in contigs}
    for name, members in {"strict": ("unseen", "distant"), "known": ("known",)}.items():
        rows = [c for c in contigs if not c.label or c.novelty in members]
        label = np.array([c.label == 1 for c in rows])
        score = np.array([share[c.name] for c in rows])
        part = parts[name]
        assert part.auroc == auroc(label, score)
        assert (part.viral, part.others, part.against) == (int(label.sum()), 0, "all others")
        assert part.auroc_interval is not None
        assert part.auroc_interval.low <= part.auroc <= part.auroc_interval.high
    known = next(row for row in map(table_row, found) if row[0] == "novelty known")
    assert known[6].count("-") == 1
