"""The names that programs outside this repository use, exactly as they use them."""

import subprocess
import sys

import numpy as np
import pytest

import virnucpro
from virnucpro import bundle
from virnucpro.calls import chunk_calls
from virnucpro.chunks import chunk_spans
from virnucpro.cli import program
from virnucpro.encoders import load_dnabert_s, load_esm2
from virnucpro.frames import open_frames
from virnucpro.run.settings import option_names


def test_chunks_frames_and_calls():
    assert chunk_spans(501, 500) == [(0, 500), (250, 501)]
    first = open_frames("GGT")[0]
    assert (first.name, first.nucleotides, first.protein) == ("F1", "GGT", "G")
    assert chunk_calls([("a_chunk_1F1", 0.25, 0.75)]) == [("a_chunk_1", True, 0.25, 0.75)]


def test_encoders(golden):
    esm2 = load_esm2(golden / "esm2_hf_layout.weights.safetensors", "cpu", "fp32")
    assert esm2.embed(["MKV", "A"]).shape == (2, 80)
    weights = golden / "dnabert_h8.weights.safetensors"
    tokenizer = golden / "dnabert_s_tokenizer.json"
    dnabert_s = load_dnabert_s(weights, "cpu", "fp32", tokenizer=tokenizer)
    rows = dnabert_s.embed(["ACGTACGT"])
    assert (rows.shape, rows.dtype) == ((1, 64), np.float32)


@pytest.mark.parametrize("name", ["mini-500", "mini-300"])
def test_bundles(name):
    found = bundle.load(name)
    assert found.head.probabilities(np.zeros((3, 256), np.float32)).shape == (3, 2)
    classifier = found.classifier("cpu", "fp32")
    chunk = "ACGTTGCAAGGCTTAACCGGATATCG" * 8
    reverse = chunk.translate(str.maketrans("ACGT", "TGCA"))[::-1]
    one, other = (classifier.score([text]).p_virus for text in (chunk, reverse))
    assert one.tolist() == other.tolist()


def test_predict_in_a_script_without_a_guard(tmp_path):
    (tmp_path / "a.fa").write_text(">a\n" + "ACGTTGCAAGGCTTAACCGGATATCG" * 8)
    script = tmp_path / "script.py"
    script.write_text(
        "import virnucpro\nprint(virnucpro.predict(['a.fa'], out='run').counts.called)"
    )
    done = subprocess.run(
        [sys.executable, script], cwd=tmp_path, capture_output=True, text=True, check=True
    )
    assert done.stdout == "1\n"
    assert "predict" in virnucpro.__all__


def test_a_library_call_takes_every_setting():
    """TRAP R12: what the command line can ask for, by the same names and no others."""
    of_call = {"inputs", "out", "bundle", "sample_sheet"}
    of_terminal = {"quiet", "verbose", "no_progress", "config"}
    of_the_published_program = {
        "model_path", "model_type", "output_dir", "parallel", "persistent_models",
    }  # fmt: skip
    asked = {parameter.name for parameter in program.commands["predict"].params}
    asked = asked - {"interleaved", "unpaired"} | {"pairs"}
    assert asked == option_names() | of_call | of_terminal | of_the_published_program
