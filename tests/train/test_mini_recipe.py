"""The recipe of the embedded bundles, from data to card, with tiny settings."""

import dataclasses
import gzip
import importlib.util
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.numpy import load_file

from virnucpro.bundle import load
from virnucpro.classifiers.codon import CodonConfig
from virnucpro.classifiers.model import SECOND_OPINION
from virnucpro.classifiers.protein_kmers import PROTEIN_KMERS
from virnucpro.classifiers.second_opinion import SECOND_WEIGHTS
from virnucpro.errors import ResumeError
from virnucpro.measure.labels import LabelledContig
from virnucpro.train.kmer_fit import KmerSettings

ROOT = Path(__file__).resolve().parents[2]
README = """# Data
## Sources
| source | what | licence stated | records | Mbp |
| --- | --- | --- | --- | --- |
| a | things | MIT | 1 | 1 |
| b | others | GPL-3 | 1 | 1 |

## Counts
| side | group |
"""


MORE = """# More
## Sources
| source | what | licence stated | viral records / Mbp | non-viral records / Mbp |
| --- | --- | --- | --- | --- |
| c | still others | CC0 | 1 | 1 |
"""


@pytest.fixture(scope="module")
def recipe():
    sys.path.insert(0, str(ROOT / "recipes"))  # where it finds the module beside it
    spec = importlib.util.spec_from_file_location("mini_recipe", ROOT / "recipes" / "mini.py")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@pytest.fixture
def data(tmp_path):
    """A folder as ../shared/data: units of A-rich virus and G-rich others."""
    root = tmp_path / "data"
    rng = np.random.default_rng(1)
    for part, units, length in (("train", 6, 900), ("more", 6, 900), ("val", 3, 1200)):
        (root / part / "fragments").mkdir(parents=True)
        for side, p in (("viral", [0.4, 0.2, 0.1, 0.3]), ("nonviral", [0.1, 0.3, 0.4, 0.2])):
            fasta, table = [], ["id\tgroup\tlength\tsource\tlevel\tunit"]
            for unit in range(units):
                text = rng.choice(list(b"ACGT"), length, p=p).astype(np.uint8).tobytes().decode()
                name = f"{part}{side}{unit}"
                fasta.append(f">{name}|g|o\n{text}\n")
                source = "c" if part == "more" else "ab"[unit % 2]
                table.append(f"{name}\tg{side}\t{length}\t{source}\twindow\t{part}u{side}{unit}")
            with gzip.open(root / part / f"{side}.fasta.gz", "wt") as file:
                file.write("".join(fasta))
            with gzip.open(root / part / f"{side}.tsv.gz", "wt") as file:
                file.write("\n".join(table) + "\n")
            for n in (300, 500):
                folder = root / part / "fragments"
                cut = [line.split("\n") for line in fasta]
                with (folder / f"{side}{n}").open("w") as file:
                    file.writelines(f"{h.split('|')[0]}\n{s[:n]}\n" for h, s, _ in cut)
    folder = root / "val" / "fragments"
    for n in (300, 500):
        both = (folder / f"viral{n}").read_text() + (folder / f"nonviral{n}").read_text()
        with gzip.open(folder / f"frag{n}.fasta.gz", "wt") as file:
            file.write(both)
        names = [line[1:] for line in both.splitlines() if line.startswith(">")]
        rows = [
            f"{n}\t{int('nonviral' not in n)}\tgnonviral\twindow\ta\t{n.replace('val', 'valu', 1)}"
            for n in names
        ]
        header = "id\tlabel\tgroup\tlevel\tsource\tunit"
        (folder / f"frag{n}.labels.tsv").write_text("\n".join([header, *rows]) + "\n")
        novelty = ("unseen", "known", "close")
        told = [f"valviral{unit}\t{novelty[unit]}" for unit in range(3)]
        (folder / f"frag{n}.novelty.tsv").write_text("\n".join(["id\tnovelty", *told]) + "\n")
    with gzip.open(root / "val" / "viral.novelty.tsv.gz", "wt") as file:
        file.write("id\tstart\tend\tidentity\nvalviral1\t0\t200\t95.0\nvalviral2\t0\t90\t50\n")
    (root / "README.md").write_text(README)
    (root / "more" / "README.md").write_text(MORE)
    return root


def tiny_of(recipe):
    return dataclasses.replace(
        recipe.networks.PLAIN,
        network=CodonConfig(channels=(8, 8), blocks=(1, 1), kernels=(3, 3), embedding=8),
        hidden=8,
        steps=8,
        batch_nt=3000,
        lengths_nt=(75, 150),
        groups=("gviral", "gnonviral"),
        unresolved=(),
        slice_fraction=0.3,
        slice_fragments=20,
        evaluate_every=4,
    )


def test_from_data_to_cards(recipe, data, tmp_path, monkeypatch):
    torch.set_num_threads(1)
    tiny = tiny_of(recipe)
    cut = tmp_path / "prophages.tsv"
    cut.write_text("id\tstart\tend\tmean_score\nmorenonviral3\t300\t500\t0.9\n")
    monkeypatch.setattr(importlib.import_module("sides"), "PROPHAGES", cut)
    for name, settings in recipe.networks.NETWORKS.items():
        kept = ("seed", "slice_seed", "unit_power", "loss_power")
        own = {k: getattr(settings, k) for k in kept}
        monkeypatch.setitem(recipe.networks.NETWORKS, name, dataclasses.replace(tiny, **own))
    monkeypatch.setattr(recipe.measures, "LENGTHS_NT", (75, 600))
    quick = KmerSettings(k=4, fragments=300, held_out_fragments=100, slice_fraction=0.3)
    monkeypatch.setattr(recipe, "KmerSettings", lambda: quick)
    asked = []
    for name in ("calibrate", "prescreen"):  # more data than is here
        module = importlib.import_module(name)
        monkeypatch.setattr(module, "main", asked.append)
    out = tmp_path / "out"
    arguments = ["--data", str(data), "--out", str(out), "--per-side", "30"]
    with pytest.raises(SystemExit, match="missing"):
        recipe.main([*arguments, "--only", "bundle"])
    with pytest.raises(SystemExit, match="time is up"):
        recipe.main([*arguments, "--only", "train", "--max-minutes", "0"])
    with pytest.raises(SystemExit) as refused:
        recipe.main([*arguments, "--network", "plain"])
    assert refused.value.code == 2  # of wrong options
    with pytest.raises(SystemExit, match="stopped"):
        recipe.main([*arguments, "--only", "train", "--network", "branch-1"])
    with pytest.raises(SystemExit, match=r"further than 0\.01 .* mini-500-v2, mini-300-v2"):
        recipe.main(arguments)
    with pytest.raises(ResumeError, match="made with steps = 8, not 2"):
        recipe.main([*arguments, "--only", "train", "--steps", "2"])
    assert asked[0][:2] == [str(out / f"mini-{chunk_nt}-v2") for chunk_nt in (500, 300)]
    assert asked[1][:2] == ["--bundles", str(out)]
    weights = [
        load_file(out / f"{name}.safetensors")
        for name in ("mean", "branch-1", "branch-2", "branch-3", "branch-4")
    ]
    for name, mean in weights[0].items():
        four = [branch[name] for branch in weights[1:]]
        assert np.allclose(mean, np.mean(four, 0), atol=1e-6)
    assert not all(np.array_equal(weights[1][name], weights[2][name]) for name in weights[0])
    monkeypatch.setattr(recipe, "NOISE", 1.0)
    recipe.main([*arguments, "--only", "compare"])
    for chunk_nt in (500, 300):
        bundle = load(out / f"mini-{chunk_nt}-v2")
        assert (bundle.kind, bundle.chunk_nt, bundle.validated_nt) == ("chunks", chunk_nt, 75)
        assert bundle.part(PROTEIN_KMERS)["training"]["kmers"]["virus"] > 0
        card = bundle.card
        assert [row["length_nt"] for row in card["by_length"]] == [75, 600]
        assert {"auroc", "auroc_low", "kmer_auroc"} <= card["fixed_fragments"].keys()
        assert card["fixed_fragments"]["viral"] == 3
        assert card["fixed_fragments"]["kmer_auroc"] > 0.9
        assert card["sources"] == [
            {"source": "a", "records": 6, "bases": 5400, "licence": "MIT"},
            {"source": "b", "records": 6, "bases": 5400, "licence": "GPL-3"},
            {"source": "c", "records": 12, "bases": 10800, "licence": "CC0"},
        ]
        novelties = {(row["length_nt"], row["novelty"]): row["viral"] for row in card["by_novelty"]}
        assert novelties[(300, "all")] == 3
        assert novelties[(300, "strict")] == novelties[(500, "known")] == 1
        assert {n: novelties.get((150, n)) for n in ("unseen", "related", "known")} == {
            "unseen": 2,
            "related": None,
            "known": 1,
        }
        assert [row["substitutions"] for row in card["by_substitutions"]] == [0.01, 0.05]
        assert [row["fragments"] for row in card["nonsense"]] == [3, 3, 1200]
        assert [row["group"] for row in card["by_origin"]] == ["gnonviral"]
        assert 0 <= bundle.parts["agreement"]["bf16"]["label_agreement"] <= 1
        second = bundle.part(SECOND_OPINION)
        scale, loss = second["training"]["scale"], second["training"]["log_loss"]
        assert 0.1 <= scale <= 1.5
        assert loss["after"] < loss["before"]
        given_, kept = load_file(out / "second.safetensors"), bundle.arrays(SECOND_WEIGHTS)
        assert not {name for name in given_.keys() ^ kept.keys() if not name.startswith("group.")}
        for name, values in kept.items():
            assert values.dtype == (np.float16 if given_[name].dtype == np.float32 else np.int64)
            factor = scale if name.startswith("head.output.") else 1
            np.testing.assert_allclose(values, given_[name] * factor, rtol=2e-3, atol=1e-6)
        assert second["training"]["networks"]["other"]["settings"]["loss_power"] == 0.5
        assert second["virus_groups"] == ["gviral"]
        training = bundle.parts["training"]
        assert training["steps"] == 8 * 5
        assert training["networks"]["branch-2"]["settings"]["seed"] == 2
        assert "random weights" in training["networks"]["plain"]["method"]
        assert "given weights" in training["networks"]["branch-1"]["method"]
        assert all(name.startswith(("train/", "more/")) for name in training["data"])
        apart = training["calibration"]["units"]
        assert apart == 2
        assert training["fitting"]["units"] + training["slice"]["units"] + apart == 24
        assert training["fitting"]["contigs"] + training["slice"]["contigs"] == 24 - apart + 1
        kmer = load(out / f"kmer-{chunk_nt}-v1")
        assert kmer.card["fixed_fragments"]["auroc"] == card["fixed_fragments"]["kmer_auroc"]


def test_folds_part_the_units_and_measure_what_was_left_out(recipe, data, tmp_path, monkeypatch):
    folds = importlib.import_module("folds")
    torch.set_num_threads(1)
    monkeypatch.setattr(importlib.import_module("sides"), "PROPHAGES", tmp_path / "prophages.tsv")
    (tmp_path / "prophages.tsv").write_text("id\tstart\tend\tmean_score\n")
    monkeypatch.setattr(recipe.networks, "PLAIN", tiny_of(recipe))
    monkeypatch.setattr(folds.shutil, "which", lambda _: None)
    out = tmp_path / "folds"
    arguments = ["--data", str(data), "--out", str(out), "--per-side", "20", "--steps", "2"]
    with pytest.raises(SystemExit, match="time is up"):
        folds.main([*arguments, "--only", "train", "--max-minutes", "0"])
    assert not (out / "fold-0").exists()
    folds.main(arguments)
    parts = folds.folds_of(recipe.train_side(data).contigs)
    units = [{contig.unit for contig in part} for part in parts]
    assert sum(map(len, units)) == len(set.union(*units)) == 24
    assert all({contig.label for contig in part} == {0, 1} for part in parts)
    for fold, part in enumerate(parts):
        bundle = load(out / f"fold-{fold}")
        kmers, training = bundle.part(PROTEIN_KMERS)["training"], bundle.parts["training"]
        assert kmers["contigs"]["contigs"] == 24 - len(part)
        seen = training["fitting"]["contigs"] + training["slice"]["contigs"]
        assert seen == 24 - len(part)
    rows = (out / "folds.tsv").read_text().splitlines()
    assert sum("\tall\t" in row for row in rows) == 5 * 2 * 2
    assert any("\tnovelty: unseen\t" in row for row in rows)


def test_open_stretches_are_translated_in_six_frames():
    folds = importlib.import_module("folds")
    text = "ATGGCN" + "GCTAAA" * 20 + "TAA"
    found = [*folds.open_stretches(text.encode())]
    assert "MX" + "AK" * 20 in found
    reverse = text.encode().translate(folds.fragments.COMPLEMENT)[::-1]
    assert sorted(folds.open_stretches(reverse)) == sorted(found)


def test_licences_come_from_the_table_of_sources_alone(recipe):
    assert recipe.measures._licences(README) == {"a": "MIT", "b": "GPL-3"}


def test_val_is_never_read_in_training(recipe, data):
    labelled = recipe.train_side(data)
    assert {c.name[:4] for c in labelled.contigs} == {"trai", "more"}


def test_stretches_are_cut_out_and_the_rest_stays(recipe):
    contig = LabelledContig("x.1|bacteria|y", b"ACGT" * 250, 0, "bacteria", unit="gen:X")
    other = LabelledContig("z", b"ACGT" * 250, 0)
    cut = {"x.1": [(700, 900), (10, 100)]}
    pieces = importlib.import_module("sides").without_stretches([contig, other], cut)
    assert [piece.name for piece in pieces] == [
        "x.1|bacteria|y:101-700",
        "x.1|bacteria|y:901-1000",
        "z",
    ]
    assert pieces[0].sequence == contig.sequence[100:700]
    assert pieces[0].unit == "gen:X"


def test_what_looks_viral_over_5_kb_is_a_stretch():
    sys.path.insert(0, str(ROOT / "recipes"))
    prophages = importlib.import_module("prophages")
    score = np.full(60, 0.1)
    score[20:35] = 0.9
    score[27] = np.nan
    assert prophages.stretches(score) == [(20, 35)]
    score[22:35] = 0.1
    assert prophages.stretches(score) == []
    assert prophages.stretches(score[:5]) == []


def test_a_piece_has_the_novelty_of_the_stretch_that_it_shares_75_nt_with(recipe):
    fragments = recipe.measures.fragments
    record = bytes(np.random.default_rng(2).choice(list(b"ACGT"), 900).astype(np.uint8))
    records = {"u": [("r", record)]}
    reverse = record[300:600].translate(fragments.COMPLEMENT)[::-1]
    assert fragments._place(record[10:90], "u", records) == ("r", 10)
    assert fragments._place(reverse, "u", records) == ("r", ~300)
    stretches = [(0, 100, 95.0), (60, 200, 50.0)]
    assert fragments._novelty(stretches, 25, 175) == "known"
    assert fragments._novelty(stretches, 26, 176) == "related"
    assert fragments._novelty(stretches, 126, 276) == "unseen"
    assert fragments._novelty([(0, 100, 44.9)], 0, 150) == "distant"
