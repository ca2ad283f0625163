"""What overflows in fp16 is computed again in fp32, alone, and said."""

import json

import numpy as np
import pytest
import torch

from frame_bundles import CHUNK_NT, genes, overflowing, small_bundle, written
from virnucpro.encoders import load_esm2
from virnucpro.run.predict import predict

PROTEINS = ["MKV" * 20, "ACDEFGHIKL" * 6, "AAAAAAAA", "LLLLLLLLLLWWWWWW"]


def test_rows_in_fp32_by_weights_in_fp16(golden, tmp_path):
    path = overflowing(golden / "esm2_hf_layout.weights.safetensors", tmp_path / "e.safetensors")
    half = load_esm2(path, precision="fp16")
    ids = half.ids(PROTEINS)
    rows = half.rows(ids).numpy()
    lost = ~np.isfinite(rows).all(axis=1)
    assert 0 < lost.sum() < len(PROTEINS)
    assert np.isnan(rows[lost]).all()  # an overflow reaches every number
    wide = half.wide_rows(ids).numpy()
    reference = load_esm2(path, plain=True)
    with torch.no_grad():
        for weight in reference.model.parameters():
            weight.copy_(weight.half().float())
    assert np.abs(wide - reference.rows(ids).numpy()).max() < 2e-5
    assert half.batches.widened == len(PROTEINS)
    assert half.model.dtype == torch.float16


@pytest.fixture
def bundle(golden, tmp_path):
    esm2 = overflowing(golden / "esm2_hf_layout.weights.safetensors", tmp_path / "esm2.safetensors")
    return small_bundle(golden, tmp_path / "bundle", CHUNK_NT, esm2)


def test_a_run_in_fp16_says_what_overflowed(bundle, tmp_path):
    contigs = written(tmp_path / "in.fa", genes(6, 700, seed=8))
    runs = {
        precision: predict(
            contigs, bundle, tmp_path / precision, precision=precision, save_embeddings=True
        )
        for precision in ("fp16", "fp32")
    }
    document = json.loads(runs["fp16"].files.run_json.read_text())
    widened = document["batches"]["esm2"]["widened"]
    assert widened > 0
    log = runs["fp16"].files.log.read_text()
    assert f"{widened} frames overflowed in fp16 and were computed again in fp32" in log
    assert runs["fp16"].counts.failed == 0
    assert "overflowed" not in runs["fp32"].files.log.read_text()
    rows = [
        [line.split("\t") for line in run.files.calls.read_text().splitlines()[1:]]
        for run in runs.values()
    ]
    assert [row[:7] for row in rows[0]] == [row[:7] for row in rows[1]]
    scores = [[float(row[7]) for row in table if row[7]] for table in rows]
    assert scores[0]
    assert np.abs(np.subtract(*scores)).max() < 0.02
