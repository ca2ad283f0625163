"""embeddings.parquet: each id has its own vectors, also of a run that was stopped."""

import hashlib
import json

import numpy as np
import pytest
import torch
from safetensors.numpy import load as load_arrays
from safetensors.numpy import save as save_arrays
from test_outputs_doc import rows, sections, words

from command import dna, fasta, made_bundle, table, virnucpro
from frame_bundles import genes, published_dnabert_s, published_esm2
from virnucpro.bundle import load
from virnucpro.calls import Embeddings, Scores
from virnucpro.chunks import chunk_spans
from virnucpro.classifiers.head import Head
from virnucpro.encoders import load_dnabert_s, load_esm2
from virnucpro.errors import ResumeError, SettingsError
from virnucpro.frames import open_frames
from virnucpro.progress import Silent
from virnucpro.run.journal import Journal
from virnucpro.run.predict import predict
from virnucpro.train.head_fit import HeadSettings, fit_head, write_frames_bundle

parquet = pytest.importorskip("pyarrow.parquet")

CHUNK_NT = 300
WIDTHS = "nucleotides", "protein"
# Another batch rounds the embeddings' matrix products differently.
SAME = 1e-5


@pytest.fixture(scope="module")
def bundle(golden, tmp_path_factory):
    """Small encoders, and blocks of a few chunks."""
    folder = tmp_path_factory.mktemp("bundle")
    paths = published_dnabert_s(golden, folder / "d"), published_esm2(golden, folder / "e")
    sizes = HeadSettings(chunk_nt=CHUNK_NT, hidden=8, epochs=1, batch_frames=16, slice_fraction=0.3)
    encoders = load_dnabert_s(paths[0]), load_esm2(paths[1])
    fit = fit_head(genes(8, 600, seed=5), sizes, *encoders, None, Silent())
    write_frames_bundle(folder / "b", fit, "tiny-300", "A test.", *paths, copy=True)
    manifest = folder / "b" / "bundle.toml"
    text = manifest.read_text().replace("block_nt = 20000", "block_nt = 1200")
    assert "block_nt = 1200" in text
    manifest.write_text(text)
    return folder / "b"


@pytest.fixture(scope="module")
def records():
    contigs = [
        (f"c{i % 5}", contig.sequence.decode()) for i, contig in enumerate(genes(8, 900, seed=8))
    ]
    return [*contigs, ("", ""), ("closed", "TTAATTAATTAA" * 20), ("c1", dna(700))]


@pytest.fixture
def here(bundle, records, tmp_path):
    (tmp_path / "in.fa").write_bytes(fasta(records))
    return tmp_path


def run_of(here, bundle, out="run", **options):
    return predict(here / "in.fa", bundle, here / out, save_embeddings=True, **options)


def read(files) -> list[dict]:
    return parquet.read_table(files.embeddings).to_pylist()


def test_every_open_frame_has_the_vectors_of_its_own_sequence(bundle, records, here):
    """TRAP D4: computed one by one, from the input alone."""
    found = read(run_of(here, bundle).files)
    dnabert_s = load_dnabert_s(bundle / "dnabert_s")
    esm2 = load_esm2(bundle / "esm2/esm2.safetensors")
    expected = [
        (record, name, k, frame)
        for record, (name, text) in enumerate(records, 1)
        for k, (start, end) in enumerate(chunk_spans(len(text), CHUNK_NT), 1)
        for frame in open_frames(text[start:end])
    ]
    assert len(found) == len(expected) > 20
    for row, (record, name, k, frame) in zip(found, expected, strict=True):
        place = (row["sample"], row["record"], row["contig"], row["chunk"], row["frame"])
        assert place == ("in", record, name, k, frame.name)
        for column, alone in (
            ("nucleotides", dnabert_s.embed([frame.nucleotides])[0]),
            ("protein", esm2.embed([frame.protein])[0]),
        ):
            np.testing.assert_allclose(row[column], alone, atol=SAME)


def test_the_head_makes_the_scores_of_them(bundle, here):
    files = run_of(here, bundle).files
    head: Head = load(bundle).head
    features = torch.tensor([[*row["nucleotides"], *row["protein"]] for row in read(files)])
    scores = [(float(r["score1"]), float(r["score2"])) for r in table(files.frame_scores)]
    np.testing.assert_allclose(head.probabilities(features).numpy(), scores, atol=1e-6)
    schema = parquet.read_schema(files.embeddings)
    documented = rows(sections()["embeddings.parquet"], "column | type")
    assert schema.names == [word for row in documented for word in words(row[0])]
    protein = parquet.read_table(files.embeddings)["protein"].to_numpy(zero_copy_only=False)
    assert np.stack(protein).shape == (len(scores), load(bundle).classifier().widths[1])
    widths = dict(zip(WIDTHS, load(bundle).classifier().widths, strict=True))
    for name, width in widths.items():
        assert str(schema.field(name).type) == f"fixed_size_list<element: float>[{width}]"


class Stopped(Exception):
    """Stands for whatever ends a run."""


@pytest.mark.parametrize("damage", ["nothing", "missing", "damaged", "another's"])
def test_a_run_that_goes_on_has_the_same_vectors(bundle, here, monkeypatch, damage):
    whole = run_of(here, bundle, "whole").files.embeddings.read_bytes()
    commit, left = Journal.commit, [3]

    def stopping(journal, scored):
        commit(journal, scored)
        left[0] -= 1
        if not left[0]:
            raise Stopped

    with monkeypatch.context() as patch:
        patch.setattr(Journal, "commit", stopping)
        with pytest.raises(Stopped):
            run_of(here, bundle)
    assert not (here / "run" / "embeddings.parquet").exists()
    kept = sorted((here / "run" / ".virnucpro" / "blocks").glob("*.embeddings"))
    assert len(kept) >= 2
    if damage == "missing":
        kept[0].unlink()
    elif damage == "another's":
        arrays = load_arrays(kept[0].read_bytes()[32:])
        arrays["texts"] = load_arrays(kept[1].read_bytes()[32:])["texts"]
        data = save_arrays(arrays)
        kept[0].write_bytes(hashlib.sha256(data).digest() + data)
    elif damage == "damaged":
        data = bytearray(kept[0].read_bytes())
        data[-5] ^= 1
        kept[0].write_bytes(bytes(data))
    outcome = run_of(here, bundle)
    assert outcome.files.embeddings.read_bytes() == whole
    blocks = json.loads(outcome.files.run_json.read_text())["blocks"]
    damaged = damage != "nothing"
    assert (blocks["reused"], blocks["damaged"]) == (3 - damaged, damaged)
    assert not (here / "run" / ".virnucpro").exists()


def test_blocks_that_were_kept_without_vectors_are_computed_again(bundle, here):
    predict(here / "in.fa", bundle, here / "run", keep_blocks=True)
    assert not list((here / "run" / ".virnucpro" / "blocks").glob("*.embeddings"))
    outcome = run_of(here, bundle, keep_blocks=True)
    assert read(outcome.files) == read(run_of(here, bundle, "other").files)
    calls = outcome.files.calls.read_bytes()
    without = predict(here / "in.fa", bundle, here / "run", keep_blocks=True)
    assert not without.files.embeddings.exists()
    assert without.files.calls.read_bytes() == calls


def test_another_input_is_refused_also_where_vectors_are_missing(bundle, here, monkeypatch):
    commit = Journal.commit

    def stopping(journal, scored):
        commit(journal, scored)
        raise Stopped

    with monkeypatch.context() as patch:
        patch.setattr(Journal, "commit", stopping)
        with pytest.raises(Stopped):
            predict(here / "in.fa", bundle, here / "run")
    (here / "in.fa").write_bytes(fasta([("other", dna(900))]))
    with pytest.raises(ResumeError, match="read another input"):
        run_of(here, bundle)


def test_an_input_without_a_frame_has_a_table_without_a_row(bundle, tmp_path):
    for name, text in (("empty", b""), ("closed", fasta([("c", "TTAATTAATTAA" * 20)]))):
        (tmp_path / f"{name}.fa").write_bytes(text)
        files = predict(
            tmp_path / f"{name}.fa", bundle, tmp_path / name, save_embeddings=True
        ).files
        assert read(files) == []
        assert parquet.read_schema(files.embeddings).names[-2:] == list(WIDTHS)


def test_other_bundles_embed_no_frame_and_say_so_before_anything_is_written(tmp_path):
    made_bundle(tmp_path / "km")
    (tmp_path / "in.fa").write_bytes(b">a\nACGT\n")
    for name in (tmp_path / "km", "mini-500"):
        arguments = ("predict", tmp_path / "in.fa", "-o", tmp_path / "run", "--bundle", name)
        done = virnucpro(*arguments, "--save-embeddings")
        assert done.code == 2
        assert "--save-embeddings needs a bundle of kind frames" in done.error
        assert not (tmp_path / "run").exists()


def test_without_pyarrow_it_is_said(bundle, here, monkeypatch):
    monkeypatch.setattr("virnucpro.results.parquet.find_spec", lambda _: None)
    with pytest.raises(SettingsError, match="--save-embeddings needs pyarrow"):
        run_of(here, bundle)


def test_vectors_stay_with_their_frames_where_chunks_fail():
    """Halves of a block are joined, and what failed among them is left out."""
    half = Scores(
        status=np.zeros(3, np.uint8),
        frames=np.array([1, 3, 1], np.uint8),
        p_virus=np.full(3, 0.5),
        max_p_virus=np.full(3, 0.5, np.float32),
        max_p_others=np.full(3, 0.5, np.float32),
        frame_chunk=np.array([0, 1, 1, 2], np.int32),
        frame=np.array([0, 0, 1, 0], np.uint8),
        frame_p_others=np.full(4, 0.5, np.float32),
        frame_p_virus=np.full(4, 0.5, np.float32),
        embeddings=Embeddings(np.arange(8.0).reshape(4, 2), np.arange(4.0).reshape(4, 1)),
    )
    joined = Scores.joined([half, Scores.failed(1), half.failing(np.array([1]))])
    assert joined.frame_chunk.tolist() == [0, 1, 1, 2, 4, 6]
    assert joined.embeddings.protein.ravel().tolist() == [0, 1, 2, 3, 0, 3]
    assert joined.embeddings.nucleotides[:, 1].tolist() == [1, 3, 5, 7, 1, 7]
