"""How far our numbers lie from the published ones, from float64, and from each other.

    python bench/numerics.py [--write] [--bundle DIR ...] [--fragments N]

Measures the encoders and the head on the golden vectors, and every bundle that scores whole chunks
on the fixed fragments of val: bf16 against fp32, and one strand against the other. --write puts
the tables into docs/numerics.md, between its two markers, so that the page holds no number that was
typed. Float64 readings are the plain formulas of tests/support/plain_encoders.py. The golden part
takes half a minute, a bundle some minutes.
"""

import argparse
import sys
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from safetensors.numpy import load_file

from figures import machine, markdown
from virnucpro.bundle import embedded_bundles, load
from virnucpro.bundle.manifest import Bundle
from virnucpro.bundle.pickled_head import read_head
from virnucpro.classifiers.head import head_of_state
from virnucpro.encoders import Encoder, load_dnabert_s, load_esm2
from virnucpro.reads import letters, open_sources
from virnucpro.tokens import padded

REPOSITORY = Path(__file__).resolve().parents[1]
SHARED = REPOSITORY.parent / "shared"
GOLDEN = SHARED / "golden"
FRAGMENTS = SHARED / "data" / "val" / "fragments"
PAGE = REPOSITORY / "docs" / "numerics.md"
MARKS = ("<!-- begin: bench/numerics.py -->", "<!-- end: bench/numerics.py -->")
HALF = ("bf16", "fp16")
COMPLEMENT = str.maketrans("ACGT", "TGCA")

sys.path.insert(0, str(REPOSITORY / "tests" / "support"))

import plain_encoders  # noqa: E402
import tolerances  # noqa: E402

Array = NDArray[np.floating[Any]]


@dataclass(frozen=True, slots=True)
class Reading:
    """Hidden states (T, C) and mean (C,) of one sequence, whoever computed them."""

    hidden: Array
    mean: Array


@dataclass(frozen=True, slots=True)
class Golden:
    """A golden model: its weights, how we load it, how the formulas read it."""

    name: str
    weights: str
    examples: str
    load: Callable[..., Encoder]
    formulas: Callable[..., Array]
    layers: int
    heads: int
    bound: float

    def encoder(self, precision: str, plain: bool = False) -> Encoder:
        return self.load(GOLDEN / self.weights, "cpu", precision, plain=plain)

    def published(self) -> tuple[list[NDArray[np.int64]], list[Reading]]:
        """Ids of the golden sequences, and what the published code gave for them in fp32."""
        tensors = load_file(GOLDEN / self.examples)
        numbers = range(len(tensors) // 3)
        ids = [tensors[f"input_ids.{k}"][0] for k in numbers]
        return ids, [Reading(tensors[f"hidden.{k}"][0], tensors[f"mean.{k}"][0]) for k in numbers]

    def float64(self, ids: Sequence[NDArray[np.int64]]) -> list[Reading]:
        """The formulas in float64; means over the residues (ESM-2) or all tokens (DNABERT-S)."""
        tensors = load_file(GOLDEN / self.weights)
        pooled = slice(1, -1) if self.load is load_esm2 else slice(None)
        hidden = [self.formulas(tensors, row, self.layers, self.heads) for row in ids]
        return [Reading(states, states[pooled].mean(0)) for states in hidden]


ESM2 = (load_esm2, plain_encoders.esm2, 3, 4, tolerances.ESM2_GOLDEN_FP32)
FAIR = "esm2_fair_layout.weights.safetensors"
GOLDEN_MODELS = (
    Golden("ESM-2", FAIR, "esm2.examples.safetensors", *ESM2),
    *(
        Golden(
            f"DNABERT-S, {heads} heads",
            f"dnabert_h{heads}.weights.safetensors",
            f"dnabert_h{heads}.examples.safetensors",
            load_dnabert_s,
            plain_encoders.dnabert_s,
            layers,
            heads,
            tolerances.DNABERT_S_GOLDEN_FP32,
        )
        for heads, layers in ((12, 3), (8, 2))
    ),
)


def readings(encoder: Encoder, ids: Sequence[NDArray[np.int64]], together: bool) -> list[Reading]:
    """What our encoder gives, for each sequence alone or for all in one padded batch."""
    found = []
    for batch in [list(ids)] if together else [[row] for row in ids]:
        ids_BT = torch.from_numpy(padded(batch, encoder.model.pad))
        hidden_BTC, mean_BC = encoder.hidden(ids_BT).numpy(), encoder.pooled(ids_BT).numpy()
        found += [Reading(hidden_BTC[i, : len(row)], mean_BC[i]) for i, row in enumerate(batch)]
    return found


def apart(ours: Sequence[Reading], theirs: Sequence[Reading]) -> list[str]:
    """The largest absolute difference of hidden states, and of means."""
    pairs = list(zip(ours, theirs, strict=True))
    hidden = max(float(np.abs(a.hidden - b.hidden).max()) for a, b in pairs)
    mean = max(float(np.abs(a.mean - b.mean).max()) for a, b in pairs)
    return [f"{hidden:.1e}", f"{mean:.1e}"]


def encoder_rows(golden: Golden) -> Iterator[list[str]]:
    """Rows of the table of encoders, for one golden model."""
    ids, published = golden.published()
    formulas = golden.float64(ids)
    fp32 = golden.encoder("fp32")
    alone, batch = (readings(fp32, ids, together) for together in (False, True))
    bound = f"{golden.bound:g}"
    yield [golden.name, "published fp32, float64 formulas", *apart(published, formulas), ""]
    yield [golden.name, "ours fp32 alone, published fp32", *apart(alone, published), bound]
    yield [golden.name, "ours fp32 in a batch, published fp32", *apart(batch, published), bound]
    yield [golden.name, "ours fp32 alone, float64 formulas", *apart(alone, formulas), ""]
    yield [golden.name, "ours fp32 in a batch, ours fp32 alone", *apart(batch, alone), bound]
    encoder = golden.encoder("fp32", plain=True)
    encoder.model.double()  # type: ignore[attr-defined]
    wide = [float64_reading(encoder, row) for row in ids]
    limit = f"{tolerances.FLOAT64:g}"
    yield [golden.name, "ours in float64, float64 formulas", *apart(wide, formulas), limit]
    family = "esm2" if golden.load is load_esm2 else "dnabert_s"
    for precision in HALF:
        half = readings(golden.encoder(precision), ids, together=True)
        limit = f"{tolerances.GOLDEN_HALF[family, precision]:g}"
        yield [golden.name, f"ours {precision} in a batch, ours fp32", *apart(half, batch), limit]


def float64_reading(encoder: Encoder, ids: NDArray[np.int64]) -> Reading:
    """One sequence through the module itself, whose weights were made float64."""
    ids_BT = torch.from_numpy(ids)[None]
    with torch.inference_mode():
        hidden_BTC = encoder.model(ids_BT, backend="math")
        mean_BC = encoder.model.pool(hidden_BTC, ids_BT)
    return Reading(hidden_BTC[0].numpy(), mean_BC[0].numpy())


def head_rows() -> Iterator[list[str]]:
    """Rows of the table of heads: both containers of the published head."""
    examples = load_file(GOLDEN / "legacy_model.examples.safetensors")
    for name in ("legacy_model.pth", "legacy_model_prezip.pth"):
        found = head_of_state(
            {k: torch.from_numpy(v) for k, v in read_head(GOLDEN / name).arrays.items()}
        ).probabilities(examples["features"])
        error = float(np.abs(found - examples["probabilities"]).max())
        same = (found.argmax(1) == examples["probabilities"].argmax(1)).all()
        yield [name, f"{len(found)}", f"{error:.1e}", f"{tolerances.HEAD_FP32:g}", f"{same}"]


def fragments(chunk_nt: int, most: int | None) -> list[str]:
    """The fixed fragments of val that a bundle of this chunk length is compared on."""
    [source] = open_sources([FRAGMENTS / f"frag{chunk_nt}.fasta.gz"])
    return [letters(contig.sequence).decode("ascii") for contig in source.contigs()][:most]


def bundle_rows(bundle: Bundle, most: int | None) -> Iterator[list[str]]:
    """Rows of the table of bundles: each precision against fp32 and against the other strand."""
    given = fragments(bundle.chunk_nt, most)
    other = [text.translate(COMPLEMENT)[::-1] for text in given]
    scored = {}
    for precision in ("fp32", "bf16"):
        classifier = bundle.classifier("cpu", precision)
        scored[precision] = classifier.score(given).p_virus
        strands = np.abs(scored[precision] - classifier.score(other).p_virus)
        away = np.abs(scored[precision] - scored["fp32"])
        calls = [p >= bundle.threshold for p in (scored[precision], scored["fp32"])]
        changed = int(np.sum(calls[0] != calls[1]))
        yield [
            bundle.name,
            precision,
            f"{len(given):,}",
            f"{away.max():.1e}",
            f"{away.mean():.1e}",
            f"{changed} ({1 - changed / len(given):.2%} agree)",
            f"{strands.max():g}",
        ]


def report(bundles: Sequence[Bundle], most: int | None) -> str:
    """All tables, in Markdown."""
    here = machine()
    encoders = [row for golden in GOLDEN_MODELS for row in encoder_rows(golden)]
    scored = [row for bundle in bundles for row in bundle_rows(bundle, most)]
    parts = [
        f"Measured on {here['cpu']} with torch {torch.__version__}. Differences are "
        "absolute, the largest of all unless a column says otherwise.",
        "### Encoders, on the golden models",
        markdown(("model", "compared", "hidden states", "means", "tolerance"), encoders),
        "### Head, on the golden examples",
        markdown(("file", "rows", "probabilities", "tolerance", "same labels"), list(head_rows())),
        "### Embedded bundles, on the fixed fragments of val",
        markdown(
            (
                "bundle",
                "precision",
                "fragments",
                "p_virus, from fp32",
                "mean of that",
                "calls that differ from fp32",
                "p_virus, between strands",
            ),
            scored,
        )
        if scored
        else "None was there to measure.",
    ]
    return "\n\n".join(parts)


def write(page: Path, text: str) -> None:
    """Put text between the two markers of a page. Ends the program where they are missing."""
    before, begin, rest = page.read_text("utf-8").partition(MARKS[0])
    _, end, after = rest.partition(MARKS[1])
    if not begin or not end:
        raise SystemExit(f"{page} lacks the markers {MARKS[0]} and {MARKS[1]}")
    page.write_text(f"{before}{begin}\n\n{text}\n\n{end}{after}", "utf-8")


def main() -> None:
    """Measure, print, write."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").split("\n", 1)[0])
    parser.add_argument("--write", action="store_true", help="put the tables into the page")
    parser.add_argument("--bundle", action="append", help="instead of the embedded ones")
    parser.add_argument("--fragments", type=int, help="only so many; not with --write")
    chosen = parser.parse_args()
    if chosen.write and chosen.fragments:
        parser.error("the page is written from all fragments only")
    named = [load(name) for name in chosen.bundle or []]
    bundles = named or [bundle for bundle in embedded_bundles() if bundle.kind == "chunks"]
    text = report(bundles, chosen.fragments)
    print(text)
    if chosen.write:
        write(PAGE, text)


if __name__ == "__main__":
    main()
