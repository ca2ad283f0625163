"""What the tests of heads and of bundles of kind frames share: tiny encoders, and genes."""

import json
import shutil

import numpy as np
import torch
from safetensors import safe_open
from safetensors.torch import load_file, save_file

from virnucpro.encoders import load_dnabert_s, load_esm2
from virnucpro.measure.labels import LabelledContig
from virnucpro.progress import Silent
from virnucpro.train.head_fit import fit_head, write_frames_bundle
from virnucpro.train.head_settings import HeadSettings

# Tiny products gain nothing from a second thread, and lose much where tests share the cores.
torch.set_num_threads(1)

CHUNK_NT = 300
# Inner numbers of the first layer are so many times as large: some proteins' exceed 65,504.
OVERFLOW_SCALE = 1e4
# Holds a stop in each of the six frames.
CLOSED = "TTAATTAATTAA"
VIRAL_CODONS = ("GCA", "AAA", "ATT", "GAA", "AGA", "ACA", "CAA", "TTA", "GGA", "AAT")
OTHER_CODONS = ("GCC", "CTG", "GTC", "GAC", "CGC", "ACC", "CAG", "TCC", "GGC", "AAG")


class Told(Silent):
    """A progress that remembers what it was told, and calls back at each step."""

    def __init__(self, at_step=lambda note: None):
        self.lines, self.notes, self._at_step = [], [], at_step

    def line(self, text):
        self.lines.append(text)

    def detail(self, text):
        self.lines.append(text)

    def advance(self, position):
        assert 0 <= position.done <= position.total
        if position.done:
            self.notes.append(position.note)
            self._at_step(position.note)


class Stopped(Exception):
    """Stands for whatever ends a training in the middle."""


def published_dnabert_s(golden, folder):
    """The golden DNABERT-S as a directory like the published one."""
    folder.mkdir(parents=True)
    weights = golden / "dnabert_h12.weights.safetensors"
    shutil.copyfile(weights, folder / "model.safetensors")
    shutil.copyfile(golden / "dnabert_s_tokenizer.json", folder / "tokenizer.json")
    with safe_open(weights, "pt") as file:
        (folder / "config.json").write_text(file.metadata()["config"])
    assert json.loads((folder / "config.json").read_text())
    return folder


def published_esm2(golden, folder):
    """The golden ESM-2 as one file with its config inside."""
    folder.mkdir(parents=True)
    path = folder / "esm2.safetensors"
    shutil.copyfile(golden / "esm2_hf_layout.weights.safetensors", path)
    return path


def overflowing(source, target):
    """An ESM-2 that computes what another does, by numbers that fp16 cannot hold."""
    tensors = load_file(source)
    with torch.no_grad():
        for name in ("weight", "bias"):
            tensors[f"encoder.layer.0.intermediate.dense.{name}"] *= OVERFLOW_SCALE
        tensors["encoder.layer.0.output.dense.weight"] /= OVERFLOW_SCALE
    with safe_open(source, "pt") as file:
        save_file(tensors, target, file.metadata())
    return target


def loaded(dnabert_path, esm_path):
    return load_dnabert_s(dnabert_path), load_esm2(esm_path)


def gene(random, codons, length_nt):
    """A frame without a stop, of skewed codons and a few of the other kind."""
    pool = np.array([*codons * 3, *VIRAL_CODONS, *OTHER_CODONS])
    return "".join(random.choice(pool, length_nt // 3 + 1))[:length_nt]


def genes(count=24, length_nt=1500, seed=0):
    """Labelled contigs, half viral, each a unit of its own; every fourth holds a closed stretch."""
    random = np.random.default_rng(seed)
    found = []
    for k in range(count):
        label = k % 2
        text = gene(random, VIRAL_CODONS if label else OTHER_CODONS, length_nt - 40 * k)
        if k % 4 < 2:
            text = text[:600] + CLOSED * 30 + text[600:]
        found.append(LabelledContig(f"c{k}", text.encode(), label, unit=f"u{k}"))
    return found


def small_bundle(golden, folder, chunk_nt, esm2=None):
    """A small bundle of kind frames."""
    paths = published_dnabert_s(golden, folder / "d"), esm2 or published_esm2(golden, folder / "e")
    sizes = HeadSettings(chunk_nt=chunk_nt, hidden=8, batch_frames=16, epochs=1, slice_fraction=0.3)
    fit = fit_head(genes(8, max(600, chunk_nt), seed=5), sizes, *loaded(*paths), None, Told())
    write_frames_bundle(folder / "b", fit, "tiny-300", "A test.", *paths, copy=True)
    return folder / "b"


def written(path, contigs):
    """FASTA of contigs, among them an empty one, one without an open frame, and a short one."""
    texts = [contig.sequence.decode() for contig in contigs]
    texts[3:3] = ["", CLOSED * 9, "ACGT"]
    path.write_text("".join(f">r{k}\n{text}\n" for k, text in enumerate(texts)))
    return path
