"""What train and evaluate refuse before they read a sequence."""

import json
from dataclasses import replace

import numpy as np
import pytest
import torch
from click.testing import CliRunner

from chunk_codons import codons_of
from command import dna, fasta, made_bundle
from frame_bundles import published_dnabert_s, published_esm2
from made_genomes import collection
from virnucpro.bundle import load
from virnucpro.classifiers.chunk_status import MIN_NT
from virnucpro.classifiers.protein_kmers import PROTEIN_KMERS, protein_kmers_of
from virnucpro.classifiers.whole_chunks import codon_network_of
from virnucpro.cli.evaluate import evaluate
from virnucpro.cli.train import SHORTEST_CHUNK_NT, train
from virnucpro.errors import InputError, SettingsError
from virnucpro.train.head_fit import SIDES as NAMED_SIDES
from virnucpro.train.judge import scorer_of

DATA = ("--positive", "missing.fa", "--negative", "missing.fa", "-o", "out")
ENCODERS = ("--dnabert", "d", "--esm", "e")
SIDES = [*NAMED_SIDES.values()]


@pytest.mark.parametrize(
    "arguments",
    [
        ("kmer", "--chunk", "0"),
        ("kmer", "--fragments", "0"),
        ("kmer", "--seed", "-1"),
        ("head", *ENCODERS, "--epochs", "0"),
        ("head", *ENCODERS, "--seed", "-1"),
        ("encoder", "--chunk", "0"),
        ("encoder", "--seed", "-1"),
        ("encoder", "--steps", "0"),
        ("encoder", "--batch-nt", "0"),
        ("encoder", "--max-minutes", "-1"),
    ],
    ids=" ".join,
)
def test_a_number_out_of_range_is_refused_by_its_name(arguments):
    done = CliRunner().invoke(train, [*arguments, *DATA])
    assert done.exit_code == 2
    assert f"Invalid value for '{arguments[-2]}'" in " ".join(done.output.split())
    assert "missing.fa" not in done.output


def test_no_chunk_is_shorter_than_what_can_be_called():
    assert SHORTEST_CHUNK_NT == MIN_NT


@pytest.mark.parametrize(
    ("chunk", "longest", "judged"),
    [("300", 300, (300,)), ("500", 500, (300, 500)), ("60", 60, (60,))],
)
def test_an_encoder_sees_no_fragment_longer_than_its_chunks(
    tmp_path, monkeypatch, chunk, longest, judged
):
    """Else a set of chunks of 300 nt, as train make writes it, would have nothing to judge by."""
    seen = []

    def fit(_contigs, settings, *_others, **_more):
        seen.append(settings)
        raise InputError("enough")

    monkeypatch.setattr("virnucpro.train.encoder_fit.fit_encoder", fit)
    for name, sequence in (("viral", "ACGT"), ("others", "ACGG")):
        (tmp_path / name).write_text(f">a\n{sequence}\n")
    data = ["--positive", str(tmp_path / "viral"), "--negative", str(tmp_path / "others")]
    CliRunner().invoke(train, ["encoder", "--chunk", chunk, *data, "-o", str(tmp_path / "out")])
    assert max(seen[0].lengths_nt) == longest
    assert seen[0].slice_lengths_nt == judged


def test_an_encoder_remembers_protein_kmers_of_what_it_was_trained_on(tmp_path):
    sides = {"viral": [], "others": []}
    for side, records in sides.items():
        records += [dna(450, seed=f"{side}{n}") for n in range(12)]
        (tmp_path / side).write_bytes(fasta((f"{side}{n}", r) for n, r in enumerate(records)))
    data = ["--positive", str(tmp_path / "viral"), "--negative", str(tmp_path / "others")]
    words = ["encoder", "--chunk", "300", *data, "-o", str(tmp_path / "b"), "--threads", "1"]
    done = CliRunner().invoke(train, [*words, "--steps", "2", "--batch-nt", "3000"])
    assert done.exit_code == 0, done.output
    assert "of the network, without k-mers, on the slice" in " ".join(done.output.split())
    bundle = load(tmp_path / "b")
    kmers = protein_kmers_of(bundle, ())
    viral, others = (int(kmers.found(codons_of(r))[:, 0].sum()) for r in sides.values())
    assert viral > 10 > others
    network = codon_network_of(bundle, "cpu", "fp32")
    chunks = [record[:300] for record in sides["others"]]
    given = scorer_of(network, torch.device("cpu"))(chunks)
    alone = replace(bundle, parts={k: v for k, v in bundle.parts.items() if k != PROTEIN_KMERS})
    assert np.abs(given - alone.classifier("cpu", "fp32").score(chunks).p_virus).max() < 1e-6


@pytest.mark.parametrize("path", ["missing/x.json", "file/x.json", "folder"])
def test_json_that_cannot_be_written_is_refused_at_once(path, tmp_path):
    (tmp_path / "file").touch()
    (tmp_path / "folder").mkdir()
    bundle = made_bundle(tmp_path / "b").path
    data = ["--positive", "missing.fa", "--negative", "missing.fa"]
    done = CliRunner().invoke(evaluate, [str(bundle), *data, "--json", str(tmp_path / path)])
    assert isinstance(done.exception, SettingsError)
    assert str(done.exception).startswith(str(tmp_path / path))
    assert "--json" in str(done.exception)


def test_a_made_set_trains_a_head_by_the_published_recipe(golden, tmp_path):
    genomes, out = collection(tmp_path / "genomes"), tmp_path / "set"
    words = ["make", str(genomes), "-o", str(out), "--chunks", "60", "--search", "9-mers"]
    done = CliRunner().invoke(train, words)
    assert done.exit_code == 0, done.output
    sides = [str(out / "train" / f"{side}.fasta.gz") for side in ("viral", "nonviral")]
    encoders = [
        *("--dnabert", str(published_dnabert_s(golden, tmp_path / "d"))),
        *("--esm", str(published_esm2(golden, tmp_path / "e"))),
    ]
    words = ["head", "--positive", sides[0], "--negative", sides[1], *encoders, "--gpus", "none"]
    words += ["-o", str(tmp_path / "b"), "--epochs", "2", "--recipe", "published", "--threads", "1"]
    refused = CliRunner().invoke(train, [*words, "--chunk", "200"])
    assert "give --chunk as the training set was made with" in str(refused.exception)
    done = CliRunner().invoke(train, [*words, "--chunk", "300"])
    assert done.exit_code == 0, done.output
    record = load(tmp_path / "b").part("training")
    assert record["settings"]["optimiser"] == "sgd"
    assert record["settings"]["batch_frames"] == 32
    assert record["precision"] == "fp32"
    manifest = json.loads((out / "manifest.json").read_text())
    for name, digest in record["data"].items():
        assert manifest["files_sha256"][name] == digest
    stated = sum(
        counts["frames"]
        for groups in manifest["parts"]["train"].values()
        for counts in groups.values()
    )
    frames = sum(record[part][side]["frames"] for part in ("fitting", "slice") for side in SIDES)
    assert record["fitted_frames"] < stated <= frames
