"""How many whole records a threshold finds, by their length: not chunks, whose rates a card has.

    python bench/contigs.py DATA [--bundle mini-500] [--threshold T ...] [--indels 0.01]

DATA has val/viral.fasta.gz and val/nonviral.fasta.gz, of which every record is classified once;
with --indels after insertions and deletions that begin at this share of its letters.
"""

import argparse
import sys
import tempfile
from collections import defaultdict
from pathlib import Path

from figures import markdown
from virnucpro.measure.labels import read_two_sided
from virnucpro.results.read import contigs
from virnucpro.run.predict import predict

# Least and most nt of a class; chunks of the default bundle have 500.
LENGTHS = ((0, 500), (501, 1_000), (1_001, 3_000), (3_001, None))


def length_class(length_nt: int) -> str:
    least, most = next(pair for pair in LENGTHS if pair[1] is None or length_nt <= pair[1])
    if most is None:
        return f"over {least - 1:,} nt"
    return f"{least:,} to {most:,} nt" if least else f"up to {most:,} nt"


def changed(files: list[Path], rate: float, folder: Path) -> list[Path]:
    """Viral and other records with the insertions and deletions that cards are measured with."""
    sys.path.append(str(Path(__file__).parents[1] / "recipes"))
    from fragments import with_indels

    records = with_indels(read_two_sided(files[:1], files[1:]).contigs, rate)
    found = []
    for label, file in zip((1, 0), files, strict=True):
        texts = (f">{c.name}\n{c.sequence.decode()}\n" for c in records if c.label == label)
        found.append(folder / file.name.removesuffix(".gz"))
        found[-1].write_text("".join(texts))
    return found


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("data", type=Path)
    parser.add_argument("--bundle", default="mini-500")
    parser.add_argument("--threshold", type=float, nargs="+", default=[0.5, 0.6, 0.7, 0.8, 0.9])
    parser.add_argument("--indels", type=float, default=0.0)
    options = parser.parse_args()
    scores = defaultdict(lambda: {"viral": [], "nonviral": []})
    with tempfile.TemporaryDirectory() as folder:
        files = [options.data / "val" / f"{side}.fasta.gz" for side in ("viral", "nonviral")]
        if options.indels:
            files = changed(files, options.indels, Path(folder))
        out = Path(folder) / "run"
        predict(files, options.bundle, out, compat_tables=False, write="none")
        for row in contigs(out):
            # What has no score is called virus at no threshold.
            score = -1.0 if row.p_virus is None else row.p_virus
            scores[length_class(row.length_nt)][row.sample].append(score)
    header = ["records of", "", *(f"{threshold:g}" for threshold in options.threshold)]
    lines = []
    for name in map(length_class, (least for least, _ in LENGTHS)):
        for side, what in (("viral", "found"), ("nonviral", "wrong")):
            of = scores[name][side]
            cells = (sum(score >= cut for score in of) for cut in options.threshold)
            rates = (f"{100 * n / len(of):.0f} % ({n})" if of else "-" for n in cells)
            lines.append([name, f"{what}, of {len(of):,}", *rates])
    print(markdown(header, lines))


if __name__ == "__main__":
    main()
