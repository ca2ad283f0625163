"""Memory and speed of `train head` on many frames, all of it but the encoders.

    python bench/train_head.py --work FOLDER [--frames 1000000] [--recipe published] [--zeros]

Writes a training set of made chunks with one open frame each, reads it as the command does, puts
random features of the published width where the encoders would put theirs, and fits the head on
them. A second call with the same folder goes on from there. With --zeros the features are those of
a file without content, which takes neither disk nor time to make. Prints the seconds of each part
and the largest resident size of the process.
"""

import argparse
import gzip
import platform
import sys
from collections.abc import Sequence
from pathlib import Path
from time import perf_counter
from types import SimpleNamespace

import numpy as np
import torch

from virnucpro.blocks import Block, Texts
from virnucpro.classifiers.open_frames import FrameEncoders
from virnucpro.devices.machine import use_threads
from virnucpro.devices.memory import peak_memory_bytes
from virnucpro.frames import open_frames_of
from virnucpro.measure.labels import LabelledContig, read_two_sided
from virnucpro.progress import Silent
from virnucpro.train import embedding, head_fit
from virnucpro.train.head_settings import HeadSettings

CHUNK_NT = 300
WIDTHS = 768, 2560
UNITS = 500
STOPS = ("TAA", "TAG", "TGA")
CODONS = [a + b + c for a in "ACGT" for b in "ACGT" for c in "ACGT"]
SENSE = np.array([codon for codon in CODONS if codon not in STOPS], "S3")
AT_ONCE = 10_000


def write_set(folder: Path, frames: int) -> list[Path]:
    """Return FASTA of both sides, with their tables, each chunk of one unit of many."""
    folder.mkdir(parents=True, exist_ok=True)
    paths = [folder / f"{side}.fasta.gz" for side in ("nonviral", "viral")]
    random = np.random.default_rng(0)
    for label, path in enumerate(paths):
        if path.exists():
            continue
        table = path.with_name(path.name.replace("fasta", "tsv"))
        with gzip.open(path, "wt", 1) as fasta, gzip.open(table, "wt", 1) as rows:
            rows.write("id\tgroup\tlevel\tsource\tunit\tframes\n")
            for number in range(frames // 2):
                if number % AT_ONCE == 0:
                    chunks = SENSE[random.integers(0, len(SENSE), (AT_ONCE, CHUNK_NT // 3))]
                name = f"NC_{label}{number:08}.1_chunk_{number % 997}"
                fasta.write(f">{name}\n{chunks[number % AT_ONCE].tobytes().decode()}\n")
                rows.write(f"{name}\tg{number % 7}\tCDS\tmade\tu{label}.{number % UNITS}\tF1\n")
    return paths


def made_features(block: Block, _: FrameEncoders) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Random features of the open frames of a block; they say nothing of any label."""
    texts = Texts.of_block(block)
    frames = open_frames_of(texts.text, texts.offset, texts.length_nt)
    random = np.random.default_rng(block.number)
    features = random.standard_normal((len(frames), sum(WIDTHS)), np.float32)
    return features, frames.chunk.astype(np.int64), frames.frame.astype(np.int64)


def no_features(contigs: Sequence[LabelledContig], *others: object) -> embedding.Embedded:
    """One frame of zeros for each contig. others: of embed_contigs, of which the folder is used."""
    folder = others[3]
    assert isinstance(folder, Path)
    folder.mkdir(parents=True, exist_ok=True)
    place, path = np.arange(len(contigs)), folder / embedding.FEATURES
    with path.open("wb") as file:
        file.truncate(4 * sum(WIDTHS) * len(contigs))
    with path.open("rb") as file:
        rows = embedding.FeatureRows(file, len(contigs), sum(WIDTHS))
    return embedding.Embedded(rows, place, place, np.zeros_like(place), np.ones_like(place))


def made_encoder(width: int) -> SimpleNamespace:
    """The attributes of an encoder that are read beside its embeddings."""
    return SimpleNamespace(
        name=f"made-{width}",
        width=width,
        precision="fp32",
        device=torch.device("cpu"),
        attention="none",
        ids=lambda _: [],
    )


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--work", type=Path, required=True)
    parser.add_argument("--frames", type=int, default=1_000_000)
    parser.add_argument("--recipe", choices=("adam", "published"), default="published")
    parser.add_argument("--epochs", type=int, default=1)
    parser.add_argument("--hidden", type=int, default=512, help="fewer take less time")
    parser.add_argument("--threads", type=int)
    parser.add_argument("--zeros", action="store_true", help="write no features")
    asked = parser.parse_args()
    use_threads(asked.threads)
    print(
        " ".join(sys.argv), "|", platform.machine(), torch.get_num_threads(), "threads", flush=True
    )
    embedding._embedded = made_features
    if asked.zeros:
        head_fit.embed_contigs = no_features
    head_fit.encoder_sums = lambda name: {name: name}
    clock = perf_counter()

    def tell(what: str) -> None:
        nonlocal clock
        now = perf_counter()
        print(f"{what}: {now - clock:,.1f} s, peak {peak_memory_bytes() / 1e9:.2f} GB", flush=True)
        clock = now

    nonviral, viral = write_set(asked.work / "set", asked.frames)
    tell("made the set")
    data = read_two_sided([viral], [nonviral])
    tell(f"read {len(data.contigs):,} chunks")
    chosen = HeadSettings.published if asked.recipe == "published" else HeadSettings

    class Told(Silent):
        def line(self, text: str) -> None:
            tell(text)

        def advance(self, position: object) -> None:
            note = getattr(position, "note", "")
            if note.startswith("loss"):
                tell(note)

    settings = chosen(chunk_nt=CHUNK_NT, epochs=asked.epochs, hidden=asked.hidden)
    pair = [made_encoder(width) for width in WIDTHS]
    fit = head_fit.fit_head(data.contigs, settings, *pair, asked.work / "state", Told(), {})
    sizes = (asked.work / "state" / embedding.FEATURES).stat().st_size / 1e9
    tell(f"fitted on {fit.record['fitted_frames']:,} frames; {sizes:.1f} GB of features")


if __name__ == "__main__":
    main()
