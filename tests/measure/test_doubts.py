"""`evaluate` tells when it is fooled, and writes what it measured into a card."""

import json
import shutil

import pytest

from command import dna, fasta, made_bundle, virnucpro
from virnucpro.bundle import load
from virnucpro.bundle.card import about_bundle
from virnucpro.bundle.manifest import read_manifest
from virnucpro.bundle.sketch import add_sketch
from virnucpro.cli.cards import essentials
from virnucpro.measure.doubts import check_sides, on_both_sides
from virnucpro.measure.labels import LabelledContig


@pytest.fixture
def here(tmp_path, monkeypatch):
    """Two sides, and a bundle that was trained on the viral one."""
    monkeypatch.chdir(tmp_path)
    viral = [(f"v{i}", dna(15_000, f"v{i}")) for i in range(4)]
    others = [(f"o{i}", dna(15_000, f"o{i}")) for i in range(4)]
    (tmp_path / "viral.fa").write_bytes(fasta(viral))
    (tmp_path / "others.fa").write_bytes(fasta(others))
    bundle = made_bundle(tmp_path / "km")
    add_sketch(bundle, (sequence.encode() for _, sequence in viral))
    made_bundle(tmp_path / "plain")
    return tmp_path


def warnings(*words: object) -> list[str]:
    done = virnucpro("evaluate", *words)
    assert done.code == 0, done.err
    return [line for line in done.err.splitlines() if line.startswith("warning: ")]


SIDES = ("--positive", "viral.fa", "--negative", "others.fa")


def test_training_data_are_recognised(here):
    (said, *_) = warnings("km", *SIDES)
    assert said.startswith("warning: km was trained on sequences such as these: 100 % of the")
    assert "31-mers of the viral sequences are in its training data" in said
    assert not [x for x in warnings("plain", *SIDES) if "trained" in x]


def test_training_data_on_the_other_side_are_recognised(here):
    said = warnings("km", "--positive", "others.fa", "--negative", "viral.fa")
    assert any("31-mers of the others are in its training data" in x for x in said)


def test_a_calibration_on_training_data_is_told_what_that_means(here):
    many = [(f"v{i}", dna(15_000, f"v{i}")) for i in range(12)]
    (here / "many.fa").write_bytes(fasta(many))
    others = fasta((f"n{i}", dna(15_000, f"n{i}")) for i in range(12))
    (here / "none.fa").write_bytes(others)
    add_sketch(load("plain"), (sequence.encode() for _, sequence in many))
    for sides, says in (
        (
            ("many.fa", "none.fa"),
            "of the viral sequences are in its training data, so that the "
            "calibration takes for granted that new viruses score as high as these",
        ),
        (
            ("none.fa", "many.fa"),
            "of the others are in its training data, so that the calibration "
            "takes for granted that new hosts score as low as these, and more calls will be wrong",
        ),
    ):
        words = ("--positive", sides[0], "--negative", sides[1], "-o", f"cal-{sides[0]}", "-q")
        done = virnucpro("calibrate", "plain", *words)
        assert done.code == 0, done.err
        assert says in done.err
        assert "it will do worse" not in done.err


def test_a_file_on_both_sides_is_told(here):
    said = warnings("plain", "--positive", "viral.fa", "--negative", "viral.fa")
    assert any(x.startswith("warning: 4 sequences are on both sides") for x in said)


def test_sides_that_are_exchanged_are_told(here):
    words = ("plain", "--positive", "others.fa", "--negative", "viral.fa")
    below = [("is below 0.5" in " ".join(warnings(*w))) for w in (words, ("plain", *SIDES))]
    assert sorted(below) == [False, True]


def test_what_was_measured_goes_into_an_own_card(here):
    before = load("plain")
    done = virnucpro("evaluate", "plain", *SIDES, "--into", "plain", "--json", "found.json", "-q")
    assert done.code == 0, done.err
    after = load("plain")
    assert after.sha256 != before.sha256
    assert after.files == before.files
    accuracy = about_bundle(after)["accuracy"]
    measured = json.loads((here / "found.json").read_text())["chunk"][0]
    for name in ("viral", "others", "auroc", "recall", "false_positive_rate"):
        assert accuracy[name] == measured[name]
    assert "chunks of viral.fa, others.fa" in accuracy["measured_on"]
    shown = virnucpro("bundles", "show", "plain")
    assert (shown.code, "auroc" in shown.out) == (0, True)
    assert virnucpro("predict", "viral.fa", "-o", "run", "--bundle", "plain", "-q").code == 0
    assert virnucpro("bundles", "verify", "plain").code == 0


def test_a_card_of_another_bundle_is_not_touched(here):
    for bundle, into in (("plain", "km"), ("kmer-500", "plain"), ("plain", "nowhere")):
        done = virnucpro("evaluate", bundle, *SIDES, "--into", into)
        assert done.code == 1
        assert "measure the one whose card is to be written" in done.error


def test_a_bundle_of_the_program_keeps_its_card(here):
    place = load("kmer-500").path
    done = virnucpro("evaluate", "kmer-500", *SIDES, "--into", place)
    assert (done.code, "this bundle comes with the program; copy" in done.error) == (1, True)
    shutil.copytree(place, here / "copy")
    assert virnucpro("evaluate", "copy", *SIDES, "--into", "copy").code == 0


def test_a_single_label_is_told(here):
    (here / "labels.tsv").write_text("id\tlabel\n" + "".join(f"v{i}\t1\n" for i in range(4)))
    done = virnucpro("evaluate", "plain", "--fasta", "viral.fa", "--labels", "labels.tsv")
    assert done.code == 0, done.err
    assert "no contigs of others were measured, so that there is no AUROC" in done.out


@pytest.mark.parametrize("command", [("train", "kmer"), ("calibrate", "plain")])
def test_a_file_on_both_sides_is_refused_before_a_bundle_is_made(here, command):
    same = ("--positive", "viral.fa", "--negative", "viral.fa")
    for more in ((), ("--negative", "others.fa"), ("--positive", "others.fa")):
        done = virnucpro(*command, *same, *more, "-o", "new", "-q")
        assert (done.code, (here / "new").exists()) == (1, False)
        assert "are on the other side, too, so that nothing can be learnt" in done.error


def test_a_few_sequences_on_both_sides_are_told_before_a_bundle_is_made(here):
    some = (here / "viral.fa").read_bytes().partition(b">v1")[0]
    (here / "mixed.fa").write_bytes(some + (here / "others.fa").read_bytes())
    sides = ("--positive", "viral.fa", "--negative", "mixed.fa", "-o", "new", "-q")
    done = virnucpro("train", "kmer", "--fragments", "1000", *sides)
    assert done.code == 0, done.err
    assert "warning: 1 sequence is on both sides, so that no bundle could" in done.err


@pytest.mark.parametrize(("chunk_nt", "lengths"), [(100, (100, 100)), (800, (150, 800))])
def test_a_kmer_model_is_fitted_on_fragments_of_up_to_a_chunk(here, chunk_nt, lengths):
    words = ("train", "kmer", *SIDES, "-o", "new", "--chunk", chunk_nt, "--fragments", "1000")
    done = virnucpro(*words)
    assert done.code == 0, done.err
    assert "of 8 units" not in done.err  # every record is one of its own
    fitted = load("new").parts["training"]["settings"]
    assert (fitted["shortest_nt"], fitted["longest_nt"]) == lengths


def test_an_encoder_for_longer_chunks_than_it_is_trained_on_is_refused(here):
    done = virnucpro("train", "encoder", *SIDES, "-o", "new", "--chunk", "6000")
    assert (done.code, "give --chunk 500 or less" in done.error) == (2, True)
    assert not (here / "new").exists()


def test_training_writes_a_sketch(here):
    words = ("train", "kmer", *SIDES, "-o", "new", "--chunk", "500", "--fragments", "1000", "-q")
    assert virnucpro(*words).code == 0
    assert any("new was trained on sequences such as these" in x for x in warnings("new", *SIDES))
    assert virnucpro("bundles", "verify", "new").code == 0


def test_an_own_bundle_shows_what_its_training_held_out_and_doubts_of_its_card(here):
    words = ("train", "kmer", *SIDES, "-o", "new", "--chunk", "500", "--fragments", "1000", "-q")
    assert virnucpro(*words).code == 0
    manifest = read_manifest(load("new").path)
    area = manifest["training"]["slice_auroc"]
    held_out = f"AUROC on what its training held out: {area:.4g}."
    assert held_out in virnucpro("bundles", "show", "new").out
    by_length = manifest | {"training": {"slice_auroc": {"300": 0.9, "500": 0.95}}}
    (*_, sentence, _) = essentials(by_length, 80)
    assert "held out: 0.9 at 300 nt, 0.95 at 500 nt. Nothing else" in str(sentence)
    assert virnucpro("evaluate", "new", *SIDES, "--into", "new", "-q").code == 0
    shown = " ".join(virnucpro("bundles", "show", "new").out.split())
    assert "warning: new was trained on sequences such as these" in shown
    assert held_out not in shown


def test_sequences_that_could_not_be_read_are_not_the_same():
    empty = [LabelledContig(f"{label}", b"", label) for label in (1, 1, 0, 0)]
    assert [*on_both_sides(empty)] == []
    check_sides(empty)
