"""How often labels agree with fp32 when encoders of full size compute in fewer bits.

    python bench/agreement.py --tokenizer tokenizer.json [--device cuda] [--esm 3B] [--frames 6000]

Open frames of fixed fragments and of windows of the genomes of val go through both encoders with
random weights. A head is fitted once, on the fp32 embeddings of every sixth of them and whether
they come from a virus, and stays as it is; labels of the others in each precision are compared with
those in fp32, by the margin |P(virus) - 1/2| that they have there. Random weights know nothing of
viruses, and the published ones could not be had; so this is about rounding, not about accuracy.
"""

import argparse
import json
import random
from collections.abc import Iterator, Sequence
from pathlib import Path

import torch
from torch import Tensor, nn

from figures import table
from virnucpro.devices.memory import clear_cache
from virnucpro.encoders.gpu import FusedEsm2
from virnucpro.frames import open_frames
from virnucpro.measure.speed import Bench
from virnucpro.reads import letters, open_sources
from virnucpro.tokens import Ids, NucleotideTokenizer, protein_ids

REPOSITORY = Path(__file__).resolve().parents[1]
VALIDATION = REPOSITORY.parent / "shared" / "data" / "val"
SIDES = ("nonviral", "viral")
CHUNK_NT = 500
EVERY = 6
MARGINS = (0.0, 0.01, 0.05, 0.1, 0.25)
PRECISIONS = ("fp32", "bf16", "fp16", "fp8")


def windows(path: Path, seed: int) -> Iterator[str]:
    """Windows of a chunk's length, one after the other from contigs in turn, without end."""
    [source] = open_sources([path])
    texts = [letters(contig.sequence).decode("ascii") for contig in source.contigs()]
    texts = [text for text in texts if len(text) >= CHUNK_NT]
    draw = random.Random(seed)
    while True:
        text = draw.choice(texts)
        start = draw.randrange(len(text) - CHUNK_NT + 1)
        yield text[start : start + CHUNK_NT]


def frames(folder: Path, count: int) -> tuple[list[str], list[str], Tensor]:
    """Nucleotides and proteins of distinct open frames, half of each side, and whether viral."""
    nucleotides, proteins, viral = [], [], []
    for label, side in enumerate(SIDES):
        seen: set[str] = set()
        for window in windows(folder / f"{side}.fasta.gz", label):
            for frame in open_frames(window):
                if frame.protein not in seen and len(seen) < count // 2:
                    seen.add(frame.protein)
                    nucleotides.append(frame.nucleotides)
                    proteins.append(frame.protein)
                    viral.append(label)
            if len(seen) >= count // 2:
                break
    return nucleotides, proteins, torch.tensor(viral)


def embedded(
    bench: Bench, precision: str, ids: dict[str, list[Ids]]
) -> tuple[Tensor, dict[str, list[str]]]:
    """Features (frames, width) in a precision, float32, on the CPU; the kernels that ran."""
    parts, kernels = [], {}
    for name in ("dnabert_s", "esm2"):
        plain, _, layers = precision.partition("@")
        encoder = bench.encoder(name, plain)
        if layers and name == "esm2":
            first, _, last = layers.partition("-")
            eight_bit = range(int(first), int(last or first) + 1)
            encoder.model = FusedEsm2(encoder.model.model, eight_bit)  # type: ignore[attr-defined]
        parts.append(encoder.rows(ids[name]).cpu())
        kernels[name] = sorted(encoder.kernels_seen)
        del encoder
        clear_cache(bench.device)
    return torch.cat(parts, 1), kernels


def fitted(features_RF: Tensor, viral_R: Tensor) -> nn.Module:
    """The published head's shape, on standardised features."""
    torch.manual_seed(5)
    mean, scale = features_RF.mean(0), features_RF.std(0) + 1e-6
    head = nn.Sequential(
        nn.Linear(features_RF.shape[1], 512), nn.ReLU(), nn.Dropout(0.5), nn.Linear(512, 2)
    )
    optimiser = torch.optim.AdamW(head.parameters(), lr=1e-3, weight_decay=1e-2)
    standard_RF = (features_RF - mean) / scale
    for _ in range(30):
        for batch in torch.randperm(len(viral_R)).split(256):
            loss = nn.functional.cross_entropy(head(standard_RF[batch]), viral_R[batch])
            optimiser.zero_grad()
            loss.backward()
            optimiser.step()
    with torch.no_grad():  # the standardising becomes part of the first layer
        first = head[0]
        first.bias -= first.weight @ (mean / scale)
        first.weight /= scale
    return head.eval()


def agreement(fp32_R2: Tensor, found_R2: Tensor) -> list[dict[str, float]]:
    """Share of equal labels among the rows that have at least each margin in fp32."""
    margin_R = (fp32_R2[:, 1] - 0.5).abs()
    same_R = fp32_R2.argmax(1) == found_R2.argmax(1)
    rows = []
    for margin in MARGINS:
        kept_R = margin_R >= margin
        share = same_R[kept_R].double().mean().item() if kept_R.any() else float("nan")
        rows.append({"margin": margin, "rows": int(kept_R.sum()), "agree": share})
    return rows


def measure(
    bench: Bench,
    ids: dict[str, list[Ids]],
    viral_R: Tensor,
    precisions: Sequence[str],
    json_file: Path | None,
) -> dict[str, object]:
    """Agreement of each precision with fp32 on what the head was not fitted on."""
    fitting = torch.arange(len(viral_R)) % EVERY == 0
    found: dict[str, object] = {}
    fp32_R2 = head = plain_RF = None
    for precision in precisions:
        features_RF, kernels = embedded(bench, precision, ids)
        if head is None or plain_RF is None:
            head, plain_RF = fitted(features_RF[fitting], viral_R[fitting]), features_RF
        with torch.no_grad():
            p_R2 = head(features_RF[~fitting]).softmax(1)
        fp32_R2 = p_R2 if fp32_R2 is None else fp32_R2
        right = (p_R2.argmax(1) == viral_R[~fitting]).double().mean().item()
        error_RF = (features_RF - plain_RF).abs()
        found[precision] = {
            "accuracy": right,
            "largest_error": error_RF.max().item(),
            "mean_error": error_RF.mean().item(),
            "mean_size": plain_RF.abs().mean().item(),
            "largest_p_error": (p_R2 - fp32_R2).abs().max().item(),
            "by_margin": agreement(fp32_R2, p_R2),
            "kernels": kernels,
        }
        print(precision, json.dumps(found[precision]), flush=True)
        if json_file:
            json_file.write_text(json.dumps(found, indent=1))
    return found


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").split("\n", 1)[0])
    parser.add_argument("--tokenizer", required=True, help="DNABERT-S's tokenizer.json")
    parser.add_argument("--val", type=Path, default=VALIDATION, help="a folder as shared/data/val")
    parser.add_argument("--device", default="cpu")
    parser.add_argument("--esm", default="3B")
    parser.add_argument("--dnabert", default="117M")
    parser.add_argument("--frames", type=int, default=6_000, help="every sixth fits the head")
    parser.add_argument(
        "--precision",
        action="append",
        help="besides fp32; default: all; fp16@30-35: ESM-2's layers 30 to 35 in fp8, others not",
    )
    parser.add_argument("--json", type=Path)
    chosen = parser.parse_args()
    nucleotides, proteins, viral_R = frames(chosen.val, chosen.frames)
    ids = {
        "dnabert_s": NucleotideTokenizer(chosen.tokenizer).batch(nucleotides),
        "esm2": [protein_ids(protein) for protein in proteins],
    }
    bench = Bench(torch.device(chosen.device), chosen.esm, chosen.dnabert, 0, 1)
    precisions = ["fp32", *(chosen.precision or PRECISIONS[1:])]
    found = measure(bench, ids, viral_R, precisions, chosen.json)
    rows = [
        [name, f"{row['margin']}", f"{row['rows']:,}", f"{row['agree']:.4%}"]
        for name, reading in found.items()
        for row in reading["by_margin"]  # type: ignore[index]
    ]
    print(table(("precision", "margin", "frames", "agree"), rows))


if __name__ == "__main__":
    main()
