"""How much of a run the encoders alone would take: predict from FASTA to tables, at full size.

    python bench/end_to_end.py FOLDER [--device cuda] [--precision bf16 ...] [--frames 20000]

Writes DNABERT-S and ESM-2 at their real sizes, with random weights and in published layouts, into
FOLDER (see full_size.py), and two inputs from a seeded generator: sequences of 500 nt, and reads of
150 nt. Each has one frame of sense codons, and others that are open by chance; how many is said.
For each input and precision, side by side in one process:

- predict, by its run.json: start-up (weights read and checked, first batches), blocks and tables.
- the encoders alone, on the same frames, prepared before, in the same batches: ids to embeddings.

The share is encoders alone / (blocks + tables): what is missing to 1 is host work that shows. What
is done is kept in FOLDER/end_to_end.json, so that the same command goes on where it was stopped.
"""

import argparse
import json
import random
from collections.abc import Callable
from pathlib import Path
from time import perf_counter
from typing import Any

import torch

from figures import markdown
from full_size import SIZES, TOKENIZERS, Maker, published_kind
from virnucpro.blocks import blocks_of
from virnucpro.bundle import load
from virnucpro.classifiers.plan import plan_of
from virnucpro.devices.compute import Compute
from virnucpro.reads import open_sources
from virnucpro.run.pipeline import contigs_of
from virnucpro.run.predict import predict

LENGTHS = {"chunks of 500 nt": 500, "reads of 150 nt": 150}


def written_input(path: Path, length_nt: int, records: int) -> None:
    """FASTA of sequences whose first frame is open."""
    dice = random.Random(length_nt)
    codons = [a + b + c for a in "ACGT" for b in "ACGT" for c in "ACGT"]
    sense = [codon for codon in codons if codon not in ("TAA", "TAG", "TGA")]
    with path.open("w") as file:
        for k in range(records):
            text = "".join(dice.choices(sense, k=length_nt // 3 + 1))[:length_nt]
            file.write(f">r{k}\n{text}\n")


def alone(classifier: Any, blocks: list[Any]) -> Callable[[], float]:  # noqa: ANN401
    """Seconds of both encoders over blocks that are prepared, waited for once at the end."""
    prepared = [classifier.preparation(block) for block in blocks]
    encoders = classifier._encoders

    def seconds() -> float:
        clock = perf_counter()
        for one in prepared:
            features = encoders.features_of(one.nucleotides, one.protein)
        float(features.sum())
        return perf_counter() - clock

    return seconds


def measured(
    folder: Path, bundle: Path, name: str, precision: str, wish: argparse.Namespace
) -> dict[str, Any]:
    """One input in one precision."""
    path = folder / f"{LENGTHS[name]}.fa"
    device, attention = wish.device, wish.attention
    plan = plan_of(load(bundle), device, precision, attention)
    gpus = device.partition(":")[2] or "0" if device.startswith("cuda") else "none"
    outcome = predict(
        path,
        bundle,
        folder / "run",
        force=True,
        precision=precision,
        gpus=gpus,
        attention=attention,
        dataloader_workers=wish.dataloader_workers,
    )
    document = json.loads(outcome.files.run_json.read_text())
    classifier = load(bundle).classifier(device, precision, Compute(attention=attention))
    [source] = open_sources([path])
    contigs = contigs_of([source], [])
    sizes = load(bundle).chunk_nt, plan.block_nt, plan.first_nt
    blocks = list(blocks_of(contigs, *sizes))
    alone(classifier, blocks[:1])()  # loads kernels
    seconds = alone(classifier, blocks)()
    found = sum(len(classifier.preparation(block).chunk) for block in blocks)
    timings = document["timings"]
    return {
        "input": name,
        "precision": precision,
        "records": len(blocks) and sum(len(block.records) for block in blocks),
        "open_frames": found,
        "blocks": len(blocks),
        "timings": timings,
        "batches": document["batches"],
        "memory": document["memory"],
        "settings": document["settings"],
        "attention": document["attention"],
        "encoders_alone_s": seconds,
        "share": seconds / (timings["blocks_s"] + timings["tables_s"]),
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("folder", type=Path)
    parser.add_argument("--device", default="cuda")
    parser.add_argument("--precision", nargs="+", default=["bf16"])
    parser.add_argument("--frames", type=int, default=20_000)
    parser.add_argument("--attention", default="auto")
    parser.add_argument("--dataloader-workers", type=int)
    parser.add_argument("--only", choices=LENGTHS, nargs="+", default=[*LENGTHS])
    parser.add_argument("--esm", choices=SIZES, default="3B")
    wish = parser.parse_args()
    folder: Path = wish.folder
    folder.mkdir(parents=True, exist_ok=True)
    kept = folder / "end_to_end.json"
    done: dict[str, Any] = json.loads(kept.read_text()) if kept.exists() else {}
    tokenizer = next(path for path in TOKENIZERS if path.exists())
    make = Maker(torch.device(wish.device), torch.float16)
    bundle = published_kind(folder, wish.esm, make, tokenizer)
    for length_nt in LENGTHS.values():
        written_input(folder / f"{length_nt}.fa", length_nt, wish.frames)
    for precision in wish.precision:
        for name in wish.only:
            key = f"{name}, {precision}"
            if wish.attention != "auto":
                key += f", {wish.attention}"
            if wish.dataloader_workers is not None:
                key += f", {wish.dataloader_workers} threads"
            if key not in done:
                done[key] = measured(folder, bundle, name, precision, wish)
                kept.write_text(json.dumps(done, indent=1))
            print(key, json.dumps(done[key]["timings"]), f"{done[key]['share']:.1%}", flush=True)
    rows = [
        [
            key,
            f"{found['records']:,}",
            f"{found['open_frames']:,}",
            f"{found['timings']['startup_s']:.1f}",
            f"{found['timings']['blocks_s']:.1f}",
            f"{found['timings']['tables_s']:.1f}",
            f"{found['encoders_alone_s']:.1f}",
            f"{found['share']:.1%}",
        ]
        for key, found in done.items()
    ]
    columns = ["input", "records", "open frames", "start-up, s", "blocks, s", "tables, s"]
    print(markdown([*columns, "encoders alone, s", "share"], rows))


if __name__ == "__main__":
    main()
