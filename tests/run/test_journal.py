from dataclasses import fields, replace

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from made_blocks import MadeChunk, MadeContig, blocks_of_made, journal_in
from virnucpro.blocks import Block, Scored, blocks_of
from virnucpro.calls import Scores, Status
from virnucpro.errors import BlockError, OtherRun
from virnucpro.reads import Contig
from virnucpro.records import Records
from virnucpro.results.files import RunFiles
from virnucpro.results.record import BlockCounts
from virnucpro.run.block_file import from_bytes, read_block, to_bytes
from virnucpro.run.journal import Journal, sha256_of
from virnucpro.run.settings import Part

FINGERPRINT = {"inputs": "aa", "bundle": "bb"}
MARK = sha256_of(FINGERPRINT)

CONTIGS = [
    MadeContig("long one", [MadeChunk(0, 90, Status.OK, {0: (0.25, 0.75), 5: (0.5, 0.5)})] * 3),
    MadeContig("é\N{SNOWMAN}", sample="other", fault="it holds a Z"),
    MadeContig("", [MadeChunk(0, 9, Status.NO_OPEN_FRAME)], sample="other"),
    MadeContig("raw \udce9", [], sample="other"),
]


def same(one: Scored, other: Scored) -> bool:
    arrays = [
        (getattr(getattr(one, group), part.name), getattr(getattr(other, group), part.name))
        for group in ("rows", "scores")
        for part in fields(getattr(one, group))
        if part.name != "embeddings"
    ]
    return all(
        a is b or (a.dtype == b.dtype and np.array_equal(a, b, equal_nan=True)) for a, b in arrays
    ) and all(
        getattr(one, name) == getattr(other, name)
        for name in ("block_number", "digest", "records", "failures")
    )


class Watcher:
    """Keeps what a journal tells."""

    def __init__(self) -> None:
        self.lines: list[str] = []
        self.before: list[int] = []
        self.skipped: list[int] = []

    def line(self, text: str) -> None:
        self.lines.append(text)

    def advance(self, scored: Scored, *, new: bool) -> None:
        assert not new
        self.before.append(scored.block_number)

    def within(self, chunks: float) -> None:
        pass

    def skip(self, block: Block) -> None:
        self.skipped.append(block.number)


# The file of a block


@given(st.lists(st.integers(0, 6)), st.sampled_from(["frames", "chunks"]))
def test_a_block_comes_back_as_it_was(cuts, kind):
    for scored in blocks_of_made(CONTIGS, cuts, kind):
        failures = dict.fromkeys(range(min(1, len(scored.rows))), "the device failed")
        n = len(scored.rows)
        more = {"notes": np.arange(n, dtype=np.uint8), "groups": np.ones((n, 3), np.float16)}
        for kept in ({}, more):
            scores = replace(scored.scores, **kept)
            back, _ = from_bytes(to_bytes(replace(scored, scores=scores), MARK))
            assert same(back, replace(scored, scores=scores))
        scored = replace(scored, failures=failures)
        back, mark = from_bytes(to_bytes(scored, MARK))
        assert same(back, scored)
        assert mark == MARK


def test_a_block_without_records(tmp_path):
    empty = blocks_of_made([MadeContig("a")], [])[0]
    empty = Scored(4, "d", Records.of(), empty.rows, empty.scores)
    (tmp_path / "b").write_bytes(to_bytes(empty, MARK))
    assert same(read_block(tmp_path / "b", 4, MARK), empty)


def test_scores_must_fit_the_chunks():
    one, two = blocks_of_made(CONTIGS, [1])
    with pytest.raises(ValueError, match="scores for"):
        Scored(0, "d", one.records, one.rows, two.scores)


@pytest.mark.parametrize("damage", [b"", b"\0" * 100, None])
def test_a_damaged_block_is_named(tmp_path, damage):
    """TRAP D5."""
    path = tmp_path / "b"
    data = to_bytes(blocks_of_made(CONTIGS, [])[0], MARK)
    path.write_bytes(data[: len(data) // 2] if damage is None else damage)
    with pytest.raises(BlockError, match=str(path)):
        read_block(path, 0, MARK)


def test_any_flipped_bit_is_found(tmp_path):
    """TRAP D5: Also one that leaves a block that can be read."""
    data = to_bytes(blocks_of_made(CONTIGS, [])[0], MARK)
    rng = np.random.default_rng(1)
    for at in [0, len(data) - 1, *rng.choice(len(data), 300, replace=False).tolist()]:
        flipped = bytes([data[at] ^ 1 << int(rng.integers(8))])
        (tmp_path / "b").write_bytes(data[:at] + flipped + data[at + 1 :])
        with pytest.raises(BlockError):
            read_block(tmp_path / "b", 0, MARK)


def test_a_block_of_another_number_or_run_is_told(tmp_path):
    """TRAP D3."""
    path = tmp_path / "b"
    path.write_bytes(to_bytes(blocks_of_made(CONTIGS, [])[0], MARK))
    with pytest.raises(BlockError, match="missing or damaged"):
        read_block(path, 1, MARK)
    with pytest.raises(BlockError, match="of another run"):
        read_block(path, 0, sha256_of({"bundle": "cc"}))


# The journal


RECORDS = [("a", "ACGT" * 20), ("b", "GGCCTA" * 30), ("c", "TTAACG" * 12), ("d", "CATG")]


def read(records=RECORDS, sample: str = "in", block_nt: int = 100) -> list[Block]:
    """Blocks of records; the usual ones are six: a, three of b, c and d."""
    contigs = [Contig(sample, i, name, text.encode()) for i, (name, text) in enumerate(records, 1)]
    return list(blocks_of(contigs, 60, block_nt))


def scored(block: Block) -> Scored:
    none = Scores.failed(len(block.rows))
    return Scored(block.number, block.digest, block.records, block.rows, none)


def finished(run_dir, blocks=None, **how) -> Journal:
    """A journal in which all blocks were finished in one process, as a new one opens it."""
    files, journal = journal_in(run_dir)
    for block in journal.unfinished(read() if blocks is None else blocks, [], Watcher()):
        journal.commit(scored(block))
    return Journal(files, {}, **how)


def test_blocks_come_back_in_order_and_none_is_missing(tmp_path):
    files, journal = journal_in(tmp_path)
    blocks = blocks_of_made(CONTIGS, [1, 2, 3, 4])
    for one in (*reversed(blocks), blocks[2]):
        journal.commit(one)
    assert [s.block_number for s in journal.scored()] == list(range(len(blocks)))
    assert all(same(a, b) for a, b in zip(journal.scored(), blocks, strict=True))
    for number in (1, len(blocks) - 1):
        files.block(number).rename(tmp_path / "away")
        with pytest.raises(BlockError, match=f"{number:09d}"):
            list(journal.scored())
        (tmp_path / "away").rename(files.block(number))


def test_finished_blocks_are_not_given_again(tmp_path):
    journal, watcher, blocks = finished(tmp_path), Watcher(), read()
    assert [block.records[0].name for block in blocks] == list("abbbcd")
    assert list(journal.unfinished(blocks, [], watcher)) == []
    assert watcher.before == [0, 1, 2, 3, 4, 5]
    assert journal.counts == BlockCounts(total=6, reused=6, damaged=0)
    assert journal.compared


def test_blocks_of_this_process_are_not_counted_as_reused(tmp_path):
    """Where one is found damaged when tables are made, all are read once more."""
    files, journal = journal_in(tmp_path)
    for block in journal.unfinished(read(), [], Watcher()):
        journal.commit(scored(block))
    files.block(3).write_bytes(b"")
    watcher = Watcher()
    assert [block.number for block in journal.unfinished(read(), [], watcher)] == [3]
    assert journal.counts == BlockCounts(total=6, reused=0, damaged=1)
    assert "block: this finished block is missing or damaged; it is comp" in watcher.lines[0]


def test_a_part_is_of_its_own_blocks(tmp_path):
    files, _ = journal_in(tmp_path)
    watcher, journal = Watcher(), Journal(files, {}, part=Part(2, 3))
    assert [block.number for block in journal.unfinished(read(), [], watcher)] == [1, 4]
    assert watcher.skipped == [0, 2, 3, 5]
    assert journal.counts.total == 6


def test_a_lock_is_looked_at_before_each_write(tmp_path):
    def lost() -> None:
        raise BlockError("lost")

    files, _ = journal_in(tmp_path)
    with pytest.raises(BlockError, match="lost"):
        Journal(files, {}, check=lost).commit(scored(read()[0]))
    assert list(files.blocks.iterdir()) == []


def test_samples_may_have_other_names(tmp_path):
    journal = finished(tmp_path)
    assert list(journal.unfinished(read(sample="lake"), [], Watcher())) == []
    assert {record.sample for one in journal.scored() for record in one.records} == {"lake"}


@pytest.mark.parametrize("late", [False, True])
def test_blocks_behind_a_break_are_provisional_whenever_they_are_finished(tmp_path, late):
    """Blocks are read ahead: those before the break may be finished after it was met."""
    files, journal = journal_in(tmp_path)
    broken: list[str] = []

    def breaking():
        for block in read():
            broken.extend(["broke off"] * (block.number == 2))
            yield block

    waiting = []
    for block in journal.unfinished(breaking(), broken, Watcher()):
        waiting.append(scored(block))
        while waiting and not late:
            journal.commit(waiting.pop())
    for one in waiting:
        journal.commit(one)
    names = [f"{k:09d}.{'block' if k < 2 else 'provisional'}" for k in range(6)]
    assert sorted(path.name for path in files.blocks.iterdir()) == names
    assert [one.block_number for one in journal.scored()] == [0, 1, 2, 3, 4, 5]
    again = Journal(files, {})
    again.remove_provisional()
    assert sorted(path.name for path in files.blocks.iterdir()) == names[:2]
    assert [block.number for block in again.unfinished(read(), [], Watcher())] == [2, 3, 4, 5]


def test_blocks_behind_a_later_break_stay_for_when_the_input_is_whole(tmp_path):
    """Whatever comes from behind the break, it is not taken for a change of the input."""
    journal, other = finished(tmp_path), read([*RECORDS[:1], ("new", "ACG" * 50)])

    def breaking():
        yield other[0]
        broken.append("broke off")
        yield from other[1:]

    broken: list[str] = []
    for block in journal.unfinished(breaking(), broken, Watcher()):
        journal.commit(scored(block))
    assert [one.digest for one in journal.scored()] == [block.digest for block in other]
    whole = Journal(RunFiles(tmp_path), {})
    whole.remove_provisional()
    assert list(whole.unfinished(read(), [], Watcher())) == []


def other_letter(records):
    return [*records[:1], ("b", "GGCCTC" + records[1][1][6:]), *records[2:]]


CHANGES = {
    "a letter": (other_letter, "record 2 (b) of sample in had other letters"),
    "a name": (lambda r: [("new", r[0][1]), *r[1:]], "record 1 (new) of sample in was record 1 (a"),
    "a length": (
        lambda r: [*r[:3], ("d", r[3][1] + "A" * 1_200)],
        "record 4 (d) of sample in has 1,204 nt now, and had 4",
    ),
    "order": (lambda r: [r[1], r[0], *r[2:]], "record 1 (b) of sample in was record 1 (a)"),
    "one more": (lambda r: [("a", "A"), *r], "record 1 (a) of sample in has 1 nt now, and had 80"),
    "one more behind": (lambda r: [*r, ("e", "A")], "record 5 (e) of sample in was not in it"),
    "fewer": (lambda r: r[:2], "record 3 (c) of sample in was in it"),
    "much fewer": (lambda r: r[:1], "record 2 (b) of sample in was in it"),
    "none": (lambda _: [], "record 1 (a) of sample in was in it"),
}


@pytest.mark.parametrize(("change", "words"), CHANGES.values(), ids=CHANGES)
def test_another_input_is_refused_and_its_first_record_named(tmp_path, change, words):
    """TRAP D9, D10."""
    journal = finished(tmp_path)
    before = {path: path.read_bytes() for path in tmp_path.rglob("*.block")}
    with pytest.raises(OtherRun) as caught:
        list(journal.unfinished(read(change(RECORDS)), [], Watcher()))
    assert words in str(caught.value)
    assert not journal.compared
    assert {path: path.read_bytes() for path in tmp_path.rglob("*.block")} == before


def test_a_damaged_block_behind_the_end_proves_nothing(tmp_path):
    journal = finished(tmp_path)
    for name in ("000000900.block", "x.block", "notes.txt"):
        (RunFiles(tmp_path).blocks / name).write_bytes(b"mine")
    assert list(journal.unfinished(read(), [], Watcher())) == []
