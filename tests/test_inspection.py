"""validate says what predict would do, and nothing else."""

import gzip
import json
from pathlib import Path

import pytest

from command import dna, fasta, frames_manifest, made_bundle, run_json, virnucpro
from virnucpro.bundle import embedded_bundles, write_bundle
from virnucpro.errors import InputError
from virnucpro.frames import open_frames
from virnucpro.inspection import NAMED, inspect

MIXED = [
    ("empty", ""),
    ("long", dna(1_700)),
    ("one", "A"),
    ("short", dna(70)),
    ("n", "N" * 100),
    ("chunk", dna(500)),
]


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
    from virnucpro.bundle import load

    for number, order in enumerate((MIXED, MIXED[::-1])):
        file = tmp_path / f"{number}.fa"
        file.write_bytes(fasta(order))
        (found,) = inspect([file], load(bundle))
        assert (found.shortest_nt, found.longest_nt) == (1, 1_700)
    (tmp_path / "none.fa").write_bytes(fasta(MIXED[:1]))
    (found,) = inspect([tmp_path / "none.fa"], load(bundle))
    assert (found.records, found.shortest_nt, found.longest_nt) == (1, None, None)


def test_open_frames_are_counted_for_bundles_that_score_them(tmp_path):
    bundle = write_bundle(tmp_path / "frames", frames_manifest(), {})
    chunks = [dna(300, i) for i in range(60)] + ["ATG" * 100, "A", "N" * 300]
    (tmp_path / "in.fa").write_bytes(fasta((f"c{i}", text) for i, text in enumerate(chunks)))
    (found,) = inspect([tmp_path / "in.fa"], bundle)
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
    from virnucpro.bundle import load

    (tmp_path / "in.fa").write_bytes(fasta(MIXED))
    with pytest.raises(InputError, match="would carry the same sample name, in,"):
        inspect([tmp_path / "in.fa", tmp_path / "in.fa"], load(bundle))
