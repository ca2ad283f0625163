"""The recipe of the embedded bundles, from data to card, with tiny settings."""

import dataclasses
import gzip
import importlib.util
from pathlib import Path

import numpy as np
import pytest
import torch

from virnucpro.bundle import load
from virnucpro.classifiers.codon import CodonConfig
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


@pytest.fixture(scope="module")
def recipe():
    spec = importlib.util.spec_from_file_location("mini_recipe", ROOT / "recipes" / "mini.py")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@pytest.fixture
def data(tmp_path):
    """A folder as ../shared/data: units of A-rich virus and G-rich others."""
    root = tmp_path / "data"
    rng = np.random.default_rng(1)
    for part, units, length in (("train", 6, 900), ("val", 3, 1200)):
        (root / part / "fragments").mkdir(parents=True)
        for side, p in (("viral", [0.4, 0.2, 0.1, 0.3]), ("nonviral", [0.1, 0.3, 0.4, 0.2])):
            fasta, table = [], ["id\tgroup\tlength\tsource\tlevel\tunit"]
            for unit in range(units):
                text = rng.choice(list(b"ACGT"), length, p=p).astype(np.uint8).tobytes().decode()
                name = f"{part}{side}{unit}"
                fasta.append(f">{name}|g|o\n{text}\n")
                table.append(f"{name}\tg\t{length}\t{'ab'[unit % 2]}\twindow\tu{side}{unit}")
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
        rows = [f"{n}\t{int('nonviral' not in n)}\tg\twindow\ta\t{n}" for n in names]
        header = "id\tlabel\tgroup\tlevel\tsource\tunit"
        (folder / f"frag{n}.labels.tsv").write_text("\n".join([header, *rows]) + "\n")
    (root / "README.md").write_text(README)
    return root


def test_from_data_to_cards(recipe, data, tmp_path, monkeypatch):
    torch.set_num_threads(1)
    tiny = dataclasses.replace(
        recipe.CANDIDATES[recipe.CHOSEN],
        network=CodonConfig(channels=(8, 8), blocks=(1, 1), kernels=(3, 3), embedding=8),
        hidden=8,
        steps=8,
        batch_nt=3000,
        lengths_nt=(75, 150),
        slice_fraction=0.3,
        slice_fragments=20,
        evaluate_every=4,
    )
    monkeypatch.setitem(recipe.CANDIDATES, recipe.CHOSEN, tiny)
    monkeypatch.setattr(recipe, "LENGTHS_NT", (75, 600))
    quick = KmerSettings(k=4, fragments=300, held_out_fragments=100, slice_fraction=0.3)
    monkeypatch.setattr(recipe, "KmerSettings", lambda: quick)
    out = tmp_path / "out"
    arguments = ["--data", str(data), "--out", str(out), "--per-side", "30"]
    with pytest.raises(SystemExit, match="only train first"):
        recipe.main([*arguments, "--only", "bundle"])
    recipe.main([*arguments, "--only", "train", "--max-minutes", "0"])
    with pytest.raises(SystemExit, match="stopped"):
        recipe.main([*arguments, "--only", "bundle"])
    recipe.main(arguments)
    for chunk_nt in (500, 300):
        bundle = load(out / f"mini-{chunk_nt}-v1")
        assert (bundle.kind, bundle.chunk_nt, bundle.validated_nt) == ("chunks", chunk_nt, 75)
        card = bundle.card
        assert [row["length_nt"] for row in card["by_length"]] == [75, 600]
        assert {"auroc", "auroc_low", "kmer_auroc"} <= card["fixed_fragments"].keys()
        assert card["fixed_fragments"]["viral"] == 3
        assert card["fixed_fragments"]["kmer_auroc"] > 0.9
        assert card["sources"] == [
            {"source": "a", "records": 6, "bases": 5400, "licence": "MIT"},
            {"source": "b", "records": 6, "bases": 5400, "licence": "GPL-3"},
        ]
        assert 0 <= bundle.parts["agreement"]["bf16"]["label_agreement"] <= 1
        training = bundle.parts["training"]
        assert training["steps"] == 8
        assert all(name.startswith("train/") for name in training["data"])
        kmer = load(out / f"kmer-{chunk_nt}-v1")
        assert kmer.card["fixed_fragments"]["auroc"] == card["fixed_fragments"]["kmer_auroc"]


def test_licences_come_from_the_table_of_sources_alone(recipe):
    assert recipe._licences(README) == {"a": "MIT", "b": "GPL-3"}


def test_val_is_never_read_in_training(recipe, data):
    labelled = recipe.train_side(data)
    assert {c.name[:5] for c in labelled.contigs} == {"train"}
