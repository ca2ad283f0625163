"""Damaged FASTA against the readers and `virnucpro predict`, for as long as one likes.

    python bench/fuzz.py [--minutes 20] [--seed 0] [--only KIND] [--guided]

Each input is a function of its seed (tests/support/damaged_fasta.py): FASTA of a few or of more
than a hundred records, plain or gzipped, with up to eight damages. Nineteen of twenty go through
the reader alone, the others through a whole run, one in a hundred of these as a process of its own.
What comes out is compared with a plain parser: every record is there, or one sentence says why
not; no traceback, and no input takes longer than the limit. --only alignments tries BAM, SAM and
CRAM, packed BGZF, bzip2, xz and zstd, header the headers of alignments, sheet sample sheets
(tests/support/damaged_formats.py). --guided lets atheris (pip install
atheris; Linux) look for bytes that reach new code of the reader instead. Ends with 1 and the seeds
where something is wrong; `--seed N --count 1 --only reader` runs one of them again.
"""

import argparse
import faulthandler
import os
import subprocess
import sys
import tempfile
import time
import traceback
from collections import Counter
from contextlib import suppress
from pathlib import Path

REPOSITORY = Path(__file__).resolve().parents[1]
sys.path.insert(0, str(REPOSITORY / "tests" / "support"))

CHUNK_NT = 80
BLOCK_NT = 2_000
LIMIT_S = 20
KINDS = ("reader", "predict", "command")
FORMATS = ("alignments", "packed", "header", "sheet")
SAY_EVERY_S = 60


def kind_of(number: int) -> str:
    """Which way an input goes, by turns."""
    return KINDS[0] if number % 20 else KINDS[1] if number % 2_000 else KINDS[2]


def check(kind: str, seed: int, folder: Path, bundle: Path) -> None:
    """One input in an empty folder; raises AssertionError, or whatever the program raised."""
    import damaged_formats
    from damaged_fasta import check_predict, check_reader, damaged

    if kind in FORMATS:
        getattr(damaged_formats, f"check_{kind}")(seed, folder)
        return
    data = damaged(seed)
    if kind == "reader":
        check_reader(data, folder / "in.fa")
    elif kind == "predict":
        check_predict(data, folder, bundle, CHUNK_NT)
    else:
        check_command(data, folder, bundle)


def check_command(data: bytes, folder: Path, bundle: Path) -> None:
    """The command in a process of its own: its exit code, and what it says where it fails."""
    path, out = folder / "in.fa", folder / "out"
    path.write_bytes(data)
    arguments = ["predict", str(path), "-o", str(out), "--bundle", str(bundle), "-q"]
    command = [sys.executable, "-m", "virnucpro", *arguments]
    done = subprocess.run(command, capture_output=True, timeout=LIMIT_S, check=False)
    said = done.stderr.decode()
    if done.returncode not in (0, 1, 2) or "Traceback" in said or done.stdout:
        raise AssertionError(f"ended with {done.returncode}: {said}")
    lines = [line for line in said.splitlines() if not line.startswith("warning: ")]
    if len(lines) != (done.returncode == 1) or not all(x.startswith("virnucpro: ") for x in lines):
        raise AssertionError(f"exit code {done.returncode}, but said {said!r}")


def fuzz(minutes: float, first: int, count: int | None, only: str | None) -> int:
    """Seeds from first on until the time is over or so many are done; the number that failed."""
    from command import made_bundle

    os.fsync = lambda _: None  # the disk is not what is tried here
    ended, failed, began = Counter[str](), list[str](), time.monotonic()
    said = began
    with tempfile.TemporaryDirectory() as place:
        bundle = made_bundle(Path(place) / "km", chunk_nt=CHUNK_NT, block_nt=BLOCK_NT).path
        seed = first
        while time.monotonic() - began < minutes * 60 and (count is None or seed < first + count):
            kind = only or kind_of(seed)
            faulthandler.dump_traceback_later(LIMIT_S, exit=True)
            with tempfile.TemporaryDirectory(prefix=f"{seed}-", dir=place) as folder:
                try:
                    check(kind, seed, Path(folder), bundle)
                except Exception:  # noqa: BLE001 - whatever it is, it is what is looked for
                    failed.append(f"--only {kind} --seed {seed} --count 1")
                    print(f"\n{failed[-1]}\n{traceback.format_exc()}", flush=True)
            ended[kind] += 1
            seed += 1
            if time.monotonic() - said > SAY_EVERY_S:
                said = time.monotonic()
                print(f"seed {seed}: {dict(ended)}, {len(failed)} failed", flush=True)
        faulthandler.cancel_dump_traceback_later()
    minutes = (time.monotonic() - began) / 60
    print(
        f"{minutes:.1f} minutes, seeds {first} to {seed - 1}: {dict(ended)}, {len(failed)} failed"
    )
    for line in failed:
        print(line)
    return len(failed)


def guided(minutes: float) -> None:
    """Atheris on the reader; it ends the process itself, with its own code where it finds."""
    import atheris

    with atheris.instrument_imports(include=["virnucpro.reads"]):
        import damaged_fasta

    folder = tempfile.mkdtemp()
    corpus = Path(folder) / "corpus"
    corpus.mkdir()
    for seed in range(300):
        (corpus / str(seed)).write_bytes(damaged_fasta.damaged(seed)[:4_000])
    options = [f"-max_total_time={minutes * 60:.0f}", f"-timeout={LIMIT_S}", "-max_len=4096"]

    def one_input(data: bytes) -> None:
        damaged_fasta.check_reader(data, Path(folder) / "in.fa")

    atheris.Setup([sys.argv[0], *options, str(corpus)], one_input)
    with suppress(KeyboardInterrupt):
        atheris.Fuzz()


def main() -> int:
    """Fuzz, print."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").split("\n", 1)[0])
    parser.add_argument("--minutes", type=float, default=20)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--count", type=int)
    parser.add_argument("--only", choices=(*KINDS, *FORMATS))
    parser.add_argument("--guided", action="store_true", help="with atheris, the reader only")
    chosen = parser.parse_args()
    if chosen.guided:
        guided(chosen.minutes)
        return 0
    return min(1, fuzz(chosen.minutes, chosen.seed, chosen.count, chosen.only))


if __name__ == "__main__":
    sys.exit(main())
