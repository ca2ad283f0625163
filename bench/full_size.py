"""The published encoders at their real sizes, with random weights: does it load, fit and run?

    python bench/full_size.py FOLDER [--only STEP ...] [--device cuda] [--clean]

Writes into FOLDER what the publishers offer, in their layouts and sizes: DNABERT-S, ESM-2 650M as
fair-esm's and as Hugging Face's file, ESM-2 3B in shards. Then loads each through the code that
`predict` uses, in a process of its own and from a warm disk: bytes of the files a second, and the
peak of anonymous memory, which is what a load really takes (mapped files can be dropped at any
time). Then scores 50 chunks with bundles of DNABERT-S and either ESM-2; on the CPU by the command
`virnucpro predict`. Numbers mean nothing with random weights; time and memory do not care.

Every step that is done is kept in FOLDER/full_size.json, so that the same command goes on where it
was stopped. All steps take 6 GB of memory and 12 GB of disk, with --dtype fp32 18 GB. --clean
removes the weights at the end. Ends with 1 where a goal was missed.
"""

import argparse
import json
import os
import random
import re
import shutil
import subprocess
import sys
import threading
import time
from argparse import Namespace
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from figures import machine, markdown
from virnucpro.bundle import load
from virnucpro.bundle.encoder_files import encoder_files, encoder_sums
from virnucpro.bundle.write import write_bundle
from virnucpro.classifiers.head import Head
from virnucpro.encoders import load_dnabert_s, load_esm2

REPOSITORY = Path(__file__).resolve().parents[1]
TOKENIZERS = [
    folder / "shared" / "golden" / "dnabert_s_tokenizer.json"
    for folder in (REPOSITORY.parent, REPOSITORY)
]
DTYPES = {"fp32": torch.float32, "fp16": torch.float16}
# Goals: bytes of the files a second from a warm disk, and room beside the weights themselves.
BYTES_A_SECOND = 1e9
ROOM_BYTES = 2e9
CHUNK_NT = 500
CHUNKS = 50
# Of loads in one process: in a virtual machine the first also waits for the host to find memory.
REPEATS = 2
RESIDUES = 166
PROTEINS = 5
# Large enough that shards are as large as published ones, small enough for the writer's memory.
SHARD_BYTES = 2e9


@dataclass(frozen=True, slots=True)
class Esm2Size:
    layers: int
    width: int
    heads: int


M650 = Esm2Size(33, 1280, 20)
B3 = Esm2Size(36, 2560, 40)
SIZES = {"3B": B3, "650M": M650, "8M": Esm2Size(6, 320, 20)}
DNABERT_S = {
    "vocab_size": 4096,
    "num_hidden_layers": 12,
    "hidden_size": 768,
    "num_attention_heads": 12,
    "intermediate_size": 3072,
    "type_vocab_size": 2,
    "layer_norm_eps": 1e-12,
    "alibi_starting_size": 512,
}


# Random weights in the published layouts


@dataclass(frozen=True, slots=True)
class Maker:
    """Makes random tensors on a device, where that is quick, and hands them out on the CPU."""

    device: torch.device
    dtype: torch.dtype

    def normal(self, *shape: int) -> Tensor:
        return torch.randn(shape, device=self.device).mul_(0.02).to(self.dtype).cpu()

    def linear(self, name: str, rows: int, columns: int) -> Iterator[tuple[str, Tensor]]:
        yield f"{name}.weight", self.normal(rows, columns)
        yield f"{name}.bias", self.normal(rows)

    def norm(self, name: str, width: int) -> Iterator[tuple[str, Tensor]]:
        yield f"{name}.weight", torch.ones(width, dtype=self.dtype)
        yield f"{name}.bias", torch.zeros(width, dtype=self.dtype)

    def inv_freq(self, size: Esm2Size) -> Tensor:
        width = size.width // size.heads
        exact: Tensor = 10000 ** (-torch.arange(0, width, 2) / width)
        return exact.half().to(self.dtype)  # as the published ones are rounded


def fair_esm2(size: Esm2Size, make: Maker) -> Iterator[tuple[str, Tensor]]:
    """An ESM-2 under fair-esm's names, with its language model head."""
    width, stem = size.width, "encoder.sentence_encoder."
    words = make.normal(33, width)
    yield f"{stem}embed_tokens.weight", words
    for k in range(size.layers):
        layer = f"{stem}layers.{k}."
        for part in ("k", "v", "q", "out"):
            yield from make.linear(f"{layer}self_attn.{part}_proj", width, width)
        yield f"{layer}self_attn.rot_emb.inv_freq", make.inv_freq(size)
        yield from make.norm(f"{layer}self_attn_layer_norm", width)
        yield from make.linear(f"{layer}fc1", 4 * width, width)
        yield from make.linear(f"{layer}fc2", width, 4 * width)
        yield from make.norm(f"{layer}final_layer_norm", width)
    yield from make.norm(f"{stem}emb_layer_norm_after", width)
    yield "encoder.lm_head.weight", words
    yield "encoder.lm_head.bias", make.normal(33)
    yield from make.linear("encoder.lm_head.dense", width, width)
    yield from make.norm("encoder.lm_head.layer_norm", width)


def hugging_face_esm2(size: Esm2Size, make: Maker) -> Iterator[tuple[str, Tensor]]:
    """An ESM-2 under Hugging Face's names, with the heads and leftovers of its files."""
    width = size.width
    yield "esm.embeddings.word_embeddings.weight", make.normal(33, width)
    yield "esm.embeddings.position_embeddings.weight", make.normal(1026, width)
    yield "esm.embeddings.position_ids", torch.arange(1026)[None]
    for k in range(size.layers):
        layer = f"esm.encoder.layer.{k}."
        for part in ("query", "key", "value"):
            yield from make.linear(f"{layer}attention.self.{part}", width, width)
        yield f"{layer}attention.self.rotary_embeddings.inv_freq", make.inv_freq(size)
        yield from make.linear(f"{layer}attention.output.dense", width, width)
        yield from make.norm(f"{layer}attention.LayerNorm", width)
        yield from make.linear(f"{layer}intermediate.dense", 4 * width, width)
        yield from make.linear(f"{layer}output.dense", width, 4 * width)
        yield from make.norm(f"{layer}LayerNorm", width)
    yield from make.norm("esm.encoder.emb_layer_norm_after", width)
    yield from make.linear("esm.contact_head.regression", 1, size.layers * size.heads)
    yield from make.linear("lm_head.dense", width, width)
    yield from make.norm("lm_head.layer_norm", width)


def dnabert_s(make: Maker) -> Iterator[tuple[str, Tensor]]:
    """A DNABERT-S under its published names, with its pooler: 117,068,544 numbers."""
    yield "embeddings.word_embeddings.weight", make.normal(4096, 768)
    yield "embeddings.token_type_embeddings.weight", make.normal(2, 768)
    yield from make.norm("embeddings.LayerNorm", 768)
    for k in range(12):
        layer = f"encoder.layer.{k}."
        yield from make.linear(f"{layer}attention.self.Wqkv", 3 * 768, 768)
        yield from make.linear(f"{layer}attention.output.dense", 768, 768)
        yield from make.norm(f"{layer}attention.output.LayerNorm", 768)
        yield f"{layer}mlp.gated_layers.weight", make.normal(2 * 3072, 768)
        yield from make.linear(f"{layer}mlp.wo", 768, 3072)
        yield from make.norm(f"{layer}mlp.layernorm", 768)
    yield from make.linear("pooler.dense", 768, 768)


def hugging_face_config(size: Esm2Size) -> dict[str, Any]:
    return {
        "architectures": ["EsmForMaskedLM"],
        "emb_layer_norm_before": False,
        "hidden_size": size.width,
        "intermediate_size": 4 * size.width,
        "layer_norm_eps": 1e-5,
        "model_type": "esm",
        "num_attention_heads": size.heads,
        "num_hidden_layers": size.layers,
        "position_embedding_type": "rotary",
        "token_dropout": True,
        "vocab_size": 33,
    }


def write_dnabert_s(folder: Path, make: Maker, tokenizer: Path) -> None:
    torch.save(dict(dnabert_s(make)), folder / "pytorch_model.bin")
    (folder / "config.json").write_text(json.dumps(DNABERT_S))
    shutil.copyfile(tokenizer, folder / "tokenizer.json")


def write_fair_esm2(folder: Path, name: str, size: Esm2Size, make: Maker) -> None:
    sizes = Namespace(
        encoder_layers=size.layers,
        encoder_embed_dim=size.width,
        encoder_attention_heads=size.heads,
        token_dropout=True,
    )
    torch.save({"cfg": {"model": sizes}, "model": dict(fair_esm2(size, make))}, folder / name)


def write_hugging_face_esm2(folder: Path, size: Esm2Size, make: Maker, sharded: bool) -> None:
    (folder / "config.json").write_text(json.dumps(hugging_face_config(size)))
    if not sharded:
        torch.save(dict(hugging_face_esm2(size, make)), folder / "pytorch_model.bin")
        return
    weight_map: dict[str, str] = {}
    shard: dict[str, Tensor] = {}
    number = 1

    def flush() -> None:
        name = f"pytorch_model-{number:05}.bin"
        torch.save(shard, folder / name)
        weight_map.update(dict.fromkeys(shard, name))
        shard.clear()

    for name, tensor in hugging_face_esm2(size, make):
        if sum(t.nbytes for t in shard.values()) + tensor.nbytes > SHARD_BYTES:
            flush()
            number += 1
        shard[name] = tensor
    flush()
    index = {"metadata": {}, "weight_map": weight_map}
    (folder / "pytorch_model.bin.index.json").write_text(json.dumps(index))


# What a process takes


def anonymous_bytes(process: int | str = "self") -> int:
    """Anonymous memory of a process now; 0 for one that has ended."""
    try:
        text = Path(f"/proc/{process}/status").read_text("ascii")
    except OSError:
        return 0
    found = re.search(r"RssAnon:\s+(\d+) kB", text)
    return 1024 * int(found.group(1)) if found else 0


def peak_resident_bytes(process: int | str = "self") -> int:
    found = re.search(r"VmHWM:\s+(\d+) kB", Path(f"/proc/{process}/status").read_text("ascii"))
    return 1024 * int(found.group(1)) if found else 0


def rollup_bytes(field: str) -> int:
    """A sum over all maps of this process, counted page by page."""
    found = re.search(rf"{field}:\s+(\d+) kB", Path("/proc/self/smaps_rollup").read_text("ascii"))
    return 1024 * int(found.group(1)) if found else 0


class Watch:
    """The peak of anonymous memory while something runs."""

    def __init__(self, process: int | str = "self", every_s: float = 0.002) -> None:
        self.peak_bytes = 0
        self._process, self._every_s = process, every_s
        self._over = threading.Event()

    @contextmanager
    def watching(self) -> Iterator["Watch"]:
        watcher = threading.Thread(target=self._look)
        watcher.start()
        try:
            yield self
        finally:
            self._over.set()
            watcher.join()

    def _look(self) -> None:
        while True:
            self.peak_bytes = max(self.peak_bytes, anonymous_bytes(self._process))
            if self._over.wait(self._every_s):
                return


def read_once(paths: list[Path]) -> float:
    """Reads files into the page cache; bytes a second of a second reading."""
    buffer = bytearray(1 << 24)
    rate = 0.0
    for _ in range(2):
        began, count = time.perf_counter(), 0
        for path in paths:
            with path.open("rb", buffering=0) as file:
                while read := file.readinto(buffer):
                    count += read
        rate = count / (time.perf_counter() - began)
    return rate


# Steps, each in a process of its own


@dataclass(frozen=True, slots=True)
class Loading:
    """A load of one encoder, to be measured."""

    encoder: str
    path: str
    device: str
    precision: str
    threads: int | None


def measured_load(loading: Loading) -> dict[str, Any]:
    """Loads an encoder and runs it on a few sequences."""
    if loading.threads is not None:
        torch.set_num_threads(loading.threads)
    device = torch.device(loading.device)
    torch.zeros(1, device=device)
    paths = list(encoder_files(loading.path).values())
    warm = read_once(paths)
    loader: Callable[..., Any] = load_dnabert_s if loading.encoder == "DNABERT-S" else load_esm2
    before = anonymous_bytes()
    times: list[tuple[float, float]] = []
    with Watch().watching() as watch:
        for _ in range(REPEATS):
            encoder = None
            began, worked = time.perf_counter(), time.process_time()
            encoder = loader(loading.path, loading.device, loading.precision)
            synchronise(device)
            times.append((time.perf_counter() - began, time.process_time() - worked))
    seconds, processor_seconds = min(times)
    # The layers that run may not be the module that holds the weights, or hold some of them packed.
    module = getattr(encoder.model, "model", encoder.model)
    state = module.state_dict().values()
    packed = sum(
        linear.in_features * linear.out_features
        for linear in module.modules()
        if isinstance(linear, torch.nn.Linear) and not linear.weight.numel()
    )
    size = sum(tensor.nbytes for tensor in state) + packed * module.dtype.itemsize
    numbers = sum(tensor.numel() for tensor in state) + packed
    source = sum(path.stat().st_size for path in paths)
    found = {
        "encoder": loading.encoder,
        "path": Path(loading.path).name,
        "device": loading.device,
        "precision": loading.precision,
        "threads": torch.get_num_threads(),
        "numbers": numbers,
        "source_bytes": source,
        "weights_bytes": size,
        "seconds": seconds,
        "first_seconds": times[0][0],
        "processor_seconds": processor_seconds,
        "bytes_a_second": source / seconds,
        "plain_reading_bytes_a_second": warm,
        "anonymous_before_bytes": before,
        "anonymous_peak_bytes": watch.peak_bytes,
        "anonymous_after_by_smaps_bytes": rollup_bytes("Anonymous"),
        "resident_peak_bytes": peak_resident_bytes(),
        "limit_bytes": 2 * numbers * (2 if loading.precision == "fp32" else 1) + ROOM_BYTES,
    }
    return found | measured_forward(encoder, device)


def measured_forward(encoder: Any, device: torch.device) -> dict[str, Any]:  # noqa: ANN401
    dice = random.Random(1)
    letters = "ACDEFGHIKLMNPQRSTVWY" if encoder.width > 1000 else "ACGT"
    length = RESIDUES if encoder.width > 1000 else CHUNK_NT
    sequences = ["".join(dice.choices(letters, k=length)) for _ in range(PROTEINS)]
    began = time.perf_counter()
    rows = encoder.embed(sequences)
    synchronise(device)
    assert rows.shape == (PROTEINS, encoder.width)
    return {
        "forward": f"{PROTEINS} sequences of {length}",
        "forward_seconds": time.perf_counter() - began,
        "finite": bool(torch.isfinite(torch.from_numpy(rows)).all()),
        "device_peak_bytes": torch.cuda.max_memory_allocated() if device.type == "cuda" else None,
    }


def synchronise(device: torch.device) -> None:
    if device.type == "cuda":
        torch.cuda.synchronize(device)


def chunks_with_open_frames() -> list[str]:
    """Chunks as long as a bundle's, each without a stop in its first frame at least."""
    dice = random.Random(2)
    codons = [a + b + c for a in "ACGT" for b in "ACGT" for c in "ACGT"]
    sense = [codon for codon in codons if codon not in ("TAA", "TAG", "TGA")]
    return ["".join(dice.choices(sense, k=CHUNK_NT // 3 + 1))[:CHUNK_NT] for _ in range(CHUNKS)]


def make_bundle(folder: Path, dnabert: Path, esm: Path, width: int) -> None:
    """A bundle of kind frames with a random head."""
    torch.manual_seed(1)
    head = {name: tensor.numpy() for name, tensor in Head(768 + width).state_dict().items()}
    encoders = {
        part: {"path": str(path.resolve()), "sha256": encoder_sums(path)}
        for part, path in (("dnabert_s", dnabert), ("esm2", esm))
    }
    manifest = {
        "name": "full-size",
        "description": "random weights at the published sizes",
        "kind": "frames",
        "chunk_nt": CHUNK_NT,
        "block_nt": 20_000,
        "min_nt": 0,
        "validated_nt": CHUNK_NT,
        "threshold": 0.5,
        "encoders": encoders,
    }
    write_bundle(folder, manifest, {"head.safetensors": head})


def published_kind(folder: Path, esm: str, make: Maker, tokenizer: Path) -> Path:
    """Makes a bundle of both encoders in published layouts, unless it is there. esm: of SIZES."""
    folder, size = folder / esm, SIZES[esm]
    bundle = folder / "bundle"
    if not (bundle / "bundle.toml").exists():
        for part in ("dnabert", "esm"):
            (folder / part).mkdir(parents=True, exist_ok=True)
        write_dnabert_s(folder / "dnabert", make, tokenizer)
        write_hugging_face_esm2(folder / "esm", size, make, sharded=True)
        make_bundle(bundle, folder / "dnabert", folder / "esm", size.width)
    return bundle


def measured_score(bundle: Path, device: str, precision: str) -> dict[str, Any]:
    """Scores the chunks by the library, on a device."""
    place = torch.device(device)
    torch.zeros(1, device=place)
    with Watch().watching() as watch:
        began = time.perf_counter()
        classifier = load(bundle).classifier(device, precision)
        synchronise(place)
        loaded = time.perf_counter()
        scores = classifier.score(chunks_with_open_frames())
        synchronise(place)
        ended = time.perf_counter()
    assert len(scores.p_virus) == CHUNKS
    return {
        "device": device,
        "precision": precision,
        "chunks": CHUNKS,
        "seconds": ended - began,
        "loading_seconds": loaded - began,
        "scoring_seconds": ended - loaded,
        "anonymous_peak_bytes": watch.peak_bytes,
        "resident_peak_bytes": peak_resident_bytes(),
        "device_peak_bytes": torch.cuda.max_memory_allocated(place)
        if place.type == "cuda"
        else None,
    }


def measured_predict(folder: Path, bundle: Path, precision: str) -> dict[str, Any]:
    """Scores them by the command, from its start to its last file."""
    fasta = folder / "chunks.fasta"
    fasta.write_text("".join(f">c{k}\n{c}\n" for k, c in enumerate(chunks_with_open_frames())))
    out = folder / "run"
    command = [sys.executable, "-m", "virnucpro", "predict", str(fasta), "-o", str(out), "--force"]
    command += ["--bundle", str(bundle), "--precision", precision, "--no-progress"]
    began = time.perf_counter()
    child = subprocess.Popen(command)
    with Watch(child.pid, 0.01).watching() as watch:
        _, state, usage = os.wait4(child.pid, 0)
    seconds = time.perf_counter() - began
    child.returncode = os.waitstatus_to_exitcode(state)
    if child.returncode:
        raise SystemExit(f"virnucpro predict ended with {child.returncode}")
    run = json.loads((out / "run.json").read_text("utf-8"))
    return {
        "device": "cpu",
        "precision": precision,
        "chunks": run["counts"]["chunks"],
        "seconds": seconds,
        "loading_seconds": run["timings"].get("startup_s"),
        "scoring_seconds": run["timings"].get("blocks_s"),
        "anonymous_peak_bytes": watch.peak_bytes,
        "resident_peak_bytes": usage.ru_maxrss * 1024,
        "device_peak_bytes": None,
    }


# The order of things


class Bench:
    """Steps in a folder, each done once."""

    def __init__(self, folder: Path, chosen: argparse.Namespace) -> None:
        self.folder, self.chosen = folder, chosen
        self.weights = folder / "weights"
        self.results = folder / "full_size.json"
        self.done: dict[str, Any] = {}
        if self.results.is_file():
            self.done = json.loads(self.results.read_text("utf-8"))

    def steps(self) -> dict[str, Callable[[], dict[str, Any]]]:
        """Every step by its name, in order."""
        weights, small = self.weights, self.chosen.precision
        fair, huge = weights / "esm2_650m" / "esm2_t33_650M_UR50D.pt", weights / "esm2_3b"
        return {
            "load-dnabert-s": lambda: self.load("DNABERT-S", weights / "dnabert_s", "fp32"),
            "load-650m-fair": lambda: self.load("ESM-2 650M", fair, "fp32"),
            "load-650m-fair-16": lambda: self.load("ESM-2 650M", fair, small),
            "load-650m-hf": lambda: self.load("ESM-2 650M", weights / "esm2_650m_hf", "fp32"),
            "load-650m-hf-16": lambda: self.load("ESM-2 650M", weights / "esm2_650m_hf", small),
            "predict-fp32": lambda: self.predict("fp32"),
            "predict-16": lambda: self.predict(small),
            "load-3b-16": lambda: self.load("ESM-2 3B", huge, small),
            "load-3b-16-one-thread": lambda: self.load("ESM-2 3B", huge, small, threads=1),
            "predict-3b-16": lambda: self.predict(small, "esm2_3b", B3),
        }

    def run(self) -> None:
        """The steps that were chosen and are not done yet."""
        for name, step in self.steps().items():
            if name in self.done or name not in (self.chosen.only or [name]):
                continue
            print(f"{name} ...", file=sys.stderr, flush=True)
            self.done[name] = step() | {"load_1min": machine()["load_1min"]}
            text = json.dumps(self.done, indent=2)
            self.results.write_text(text, "utf-8")

    def written(self, name: str, write: Callable[[Path], None]) -> Path:
        """A folder of weights, written whole or not at all."""
        folder = self.weights / name
        if not folder.is_dir():
            print(f"writing {folder} ...", file=sys.stderr, flush=True)
            unfinished = self.weights / f"{name}.part"
            shutil.rmtree(unfinished, ignore_errors=True)
            unfinished.mkdir(parents=True)
            write(unfinished)
            unfinished.rename(folder)
        return folder

    def maker(self, dtype: str) -> Maker:
        return Maker(torch.device(self.chosen.device), DTYPES[dtype])

    def write(self, path: Path) -> None:
        """The weights that a step needs, where they are not there yet."""
        writers: dict[str, Callable[[Path], None]] = {
            "dnabert_s": lambda at: write_dnabert_s(at, self.maker("fp32"), self.chosen.tokenizer),
            "esm2_650m": lambda at: write_fair_esm2(
                at, "esm2_t33_650M_UR50D.pt", M650, self.maker("fp16")
            ),
            "esm2_650m_hf": lambda at: write_hugging_face_esm2(
                at, M650, self.maker("fp32"), sharded=False
            ),
            "esm2_3b": lambda at: write_hugging_face_esm2(
                at, B3, self.maker(self.chosen.dtype), sharded=True
            ),
        }
        name = path.relative_to(self.weights).parts[0]
        self.written(name, writers[name])

    def load(
        self,
        encoder: str,
        path: Path,
        precision: str,
        *,
        threads: int | None = None,
    ) -> dict[str, Any]:
        self.write(path)
        chosen = threads or self.chosen.threads
        loading = Loading(encoder, str(path), self.chosen.device, precision, chosen)
        return self.apart("load", asdict(loading))

    def predict(
        self, precision: str, name: str = "esm2_650m", size: Esm2Size = M650
    ) -> dict[str, Any]:
        dnabert, esm = self.weights / "dnabert_s", self.weights / name
        self.write(dnabert)
        self.write(esm)
        bundle = self.weights / f"bundle-{name}"
        if not bundle.is_dir():
            [*files] = esm.glob("*.pt")  # fair-esm's layout is one file, the other a folder
            make_bundle(bundle, dnabert, files[0] if files else esm, size.width)
        if self.chosen.device == "cpu":
            return measured_predict(self.folder, bundle, precision)
        return self.apart("score", {"bundle": str(bundle), "precision": precision})

    def apart(self, what: str, given: dict[str, Any]) -> dict[str, Any]:
        """A step in a process of its own, whose memory is not this one's."""
        given = {"device": self.chosen.device, **given}
        command = [sys.executable, __file__, "--apart", what, json.dumps(given)]
        around = {**os.environ, "VIRNUCPRO_CACHE": str((self.weights / "cache").resolve())}
        done = subprocess.run(command, stdout=subprocess.PIPE, text=True, check=False, env=around)
        if done.returncode:
            raise SystemExit(f"{what} of {given} ended with {done.returncode}")
        found: dict[str, Any] = json.loads(done.stdout.splitlines()[-1])
        return found

    def report(self) -> str:
        """What was measured, as Markdown tables."""
        loads = [
            (
                name,
                f"{r['encoder']} `{r['path']}`",
                f"{r['precision']} on {r['device']}",
                f"{r['threads']}",
                f"{r['source_bytes'] / 1e9:.2f}",
                f"{r['first_seconds']:.2f}",
                f"{r['seconds']:.2f}",
                f"{r['processor_seconds']:.2f}",
                f"{r['bytes_a_second'] / 1e9:.2f}",
                f"{r['source_bytes'] / 1e9 / r['processor_seconds']:.2f}",
                f"{r['weights_bytes'] / 1e9:.2f}",
                f"{r['anonymous_peak_bytes'] / 1e9:.2f}",
                f"{r['resident_peak_bytes'] / 1e9:.2f}",
                f"{r['forward_seconds']:.1f}",
                f"{r['load_1min']}",
            )
            for name, r in self.done.items()
            if name.startswith("load")
        ]
        runs = [
            (
                name,
                f"{r['precision']} on {r['device']}",
                f"{r['chunks']}",
                f"{r['seconds']:.1f}",
                f"{r['loading_seconds']:.1f}",
                f"{r['scoring_seconds']:.1f}",
                f"{r['anonymous_peak_bytes'] / 1e9:.2f}",
                f"{r['resident_peak_bytes'] / 1e9:.2f}",
            )
            for name, r in self.done.items()
            if name.startswith("predict")
        ]
        return "\n\n".join(
            [f"{machine()['cpu']}, torch {torch.__version__}.", *_tables(loads, runs)]
        )

    def missed(self) -> list[str]:
        """Goals that a step missed."""
        loads = {name: r for name, r in self.done.items() if name.startswith("load-")}
        return [
            *(
                f"{n}: slower than 1 GB/s"
                for n, r in loads.items()
                if r["bytes_a_second"] < BYTES_A_SECOND
            ),
            *(
                f"{n}: more anonymous memory than its limit"
                for n, r in loads.items()
                if r["anonymous_peak_bytes"] > r["limit_bytes"]
            ),
            *(f"{n}: numbers that are not finite" for n, r in loads.items() if not r["finite"]),
        ]


def _tables(loads: list[Any], runs: list[Any]) -> Iterator[str]:
    if loads:
        yield markdown(
            (
                "step",
                "encoder",
                "into",
                "threads",
                "files, GB",
                "first load, s",
                "second, s",
                "processor s",
                "GB/s",
                "GB a processor s",
                "weights, GB",
                "peak anonymous, GB",
                "peak resident, GB",
                f"forward of {PROTEINS}, s",
                "load of the machine",
            ),
            loads,
        )
    if runs:
        yield markdown(
            (
                "step",
                "in",
                "chunks",
                "s in all",
                "to load",
                "to score",
                "peak anonymous, GB",
                "peak resident, GB",
            ),
            runs,
        )


def main() -> None:
    """Do the steps that are not done yet, print all."""
    if sys.argv[1:2] == ["--apart"]:
        what, given = sys.argv[2], json.loads(sys.argv[3])
        if what == "load":
            print(json.dumps(measured_load(Loading(**given))))
        else:
            print(json.dumps(measured_score(Path(given.pop("bundle")), **given)))
        return
    parser = argparse.ArgumentParser(description=(__doc__ or "").split("\n", 1)[0])
    parser.add_argument("folder", type=Path, help="where weights and results go")
    parser.add_argument("--only", nargs="+", metavar="STEP", help="these steps, by name")
    parser.add_argument("--device", default="cpu", help="cpu or cuda")
    parser.add_argument("--precision", default="bf16", choices=("bf16", "fp16"), help="of 16 bit")
    parser.add_argument("--dtype", default="fp16", choices=DTYPES, help="of the 3B files")
    parser.add_argument("--threads", type=int, help="of the CPU while loading")
    parser.add_argument("--tokenizer", type=Path, help="DNABERT-S's tokenizer.json")
    parser.add_argument("--clean", action="store_true", help="remove the weights at the end")
    chosen = parser.parse_args()
    if chosen.tokenizer is None:
        there = [path for path in TOKENIZERS if path.is_file()]
        if not there:
            parser.error("name DNABERT-S's tokenizer.json with --tokenizer")
        chosen.tokenizer = there[0]
    bench = Bench(chosen.folder, chosen)
    unknown = {*(chosen.only or ())} - bench.steps().keys()
    if unknown:
        steps = ", ".join(bench.steps())
        parser.error(f"no step is called {', '.join(sorted(unknown))}; there are {steps}")
    bench.run()
    print(bench.report())
    if chosen.clean:
        shutil.rmtree(bench.weights, ignore_errors=True)
    missed = bench.missed()
    for sentence in missed:
        print(f"missed: {sentence}", file=sys.stderr)
    raise SystemExit(1 if missed else 0)


if __name__ == "__main__":
    main()
