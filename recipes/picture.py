"""Makes docs/sample.svg, the picture in README: the first command as a person sees it.

python recipes/picture.py
"""

import csv
import io
import subprocess
import sys
import tempfile
from pathlib import Path

from rich.console import Console
from rich.table import Table

SHOWN = ("contig", "length_nt", "chunks", "virus_chunks", "p_virus", "call", "status")
ROOT = Path(__file__).resolve().parents[1]


def main() -> None:
    console = Console(record=True, width=104, file=io.StringIO(), highlight=False)
    with tempfile.TemporaryDirectory() as folder:
        out = Path(folder) / "run"
        command = ["predict", "examples/sample.fasta", "-o"]
        done = subprocess.run(
            [sys.executable, "-m", "virnucpro", *command, str(out)],
            cwd=ROOT,
            capture_output=True,
            text=True,
            check=True,
        )
        console.print(f"[bold]$ virnucpro {' '.join(command)} run[/]")
        console.print(done.stderr.replace(str(out), "run"), markup=False)
        console.print("[bold]$ cut -f 3-5,7,8,10,11 run/contigs.tsv[/]")
        with (out / "contigs.tsv").open(encoding="utf-8", newline="") as file:
            rows = list(csv.DictReader(file, delimiter="\t"))
    table = Table(*SHOWN, box=None, pad_edge=False)
    for row in rows:
        style = "bold magenta" if row["call"] == "virus" else ""
        table.add_row(*(row[name] for name in SHOWN), style=style)
    console.print(table)
    console.save_svg(str(ROOT / "docs" / "sample.svg"), title="virnucpro")


if __name__ == "__main__":
    main()
