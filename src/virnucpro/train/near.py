"""Proteins that are nearly the same as one of others: by diamond, mmseqs2, or shared 9-mers.

The 9-mer screen needs no other program. It takes a protein whose share of 9-mers that occur in the
others is what that identity leaves whole on average, identity ** 9.
"""

import shutil
import subprocess
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import islice
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from virnucpro.errors import VirnucproError

DIAMOND, MMSEQS, SCREEN = "diamond", "mmseqs", "9-mers"
# Of a protein that an alignment covers; the screen has no alignment.
COVER = 0.5
K = 9
_AT_ONCE = 20_000
_BITS = 5
_UNKNOWN = 31
_CODES = np.full(256, _UNKNOWN, np.uint64)
_CODES[np.frombuffer(b"ACDEFGHIKLMNPQRSTVWY", np.uint8)] = np.arange(20)

UInt64 = NDArray[np.uint64]
Int64 = NDArray[np.int64]


@dataclass(frozen=True, slots=True)
class Near:
    """The names of proteins that have a near duplicate, and the program that found them."""

    names: frozenset[str]
    search: str
    version: str


def chosen_search(wish: str) -> str:
    """Return the search to use; auto is diamond or mmseqs2 where installed, else the screen.

    Raises VirnucproError for a program that is not installed.
    """
    if wish == "auto":
        return next((name for name in (DIAMOND, MMSEQS) if shutil.which(name)), SCREEN)
    if wish != SCREEN and shutil.which(wish) is None:
        raise VirnucproError(
            f"{wish} is not on PATH; install it, or choose --search {SCREEN}, which needs no "
            "other program"
        )
    return wish


def near_proteins(
    proteins: Path, others: Path, identity: float, search: str, folder: Path, threads: int
) -> Near:
    """Return which proteins are nearly the same as one of others, both FASTA with a line a protein.

    search: see chosen_search. folder: for what the programs write. Raises VirnucproError where a
    program fails.
    """
    if search == SCREEN:
        return Near(frozenset(_sharing(proteins, others, identity**K)), SCREEN, "")
    hits, percent = folder / "hits.tsv", f"{100 * identity:g}"
    if search == DIAMOND:
        database = str(folder / "others.dmnd")
        _call(DIAMOND, "makedb", "--in", str(others), "-d", database, "--threads", str(threads))
        words = ["blastp", "-q", str(proteins), "-d", database, "-o", str(hits), "-f", "6"]
        words += ["qseqid", "--id", percent, "--query-cover", f"{100 * COVER:g}", "-k", "25"]
        _call(DIAMOND, *words, "--threads", str(threads))
        version = _call(DIAMOND, "version").split()[-1]
    else:
        words = ["easy-search", str(proteins), str(others), str(hits), str(folder / "mmseqs")]
        words += ["--min-seq-id", f"{identity:g}", "-c", f"{COVER:g}", "--cov-mode", "2"]
        _call(MMSEQS, *words, "--format-output", "query", "--threads", str(threads))
        version = _call(MMSEQS, "version").strip()
    return Near(frozenset(hits.read_text("utf-8").split()), search, version)


def _call(*words: str) -> str:
    """Run a program; return its output. Raises VirnucproError if it fails."""
    done = subprocess.run(words, capture_output=True, text=True, check=False)
    if done.returncode:
        lines = (done.stderr.strip() or done.stdout.strip()).splitlines()
        raise VirnucproError(
            f"{words[0]} {words[1]} failed (exit code {done.returncode}: "
            f"{lines[-1] if lines else 'nothing said'}); mend it, or choose --search {SCREEN}"
        )
    return done.stdout


def _sharing(proteins: Path, others: Path, share: float) -> Iterator[str]:
    """Yield the names of proteins with at least this share of their 9-mers among the others'."""
    names, texts = list[str](), list[str]()
    for name, text in _read(proteins):
        names.append(name)
        texts.append(text)
    words, owner = _words(texts)
    known, place = np.unique(words, return_inverse=True)
    seen = np.zeros(len(known), np.bool_)
    if len(known):
        rest = _read(others)
        while batch := [text for _, text in islice(rest, _AT_ONCE)]:
            asked, _ = _words(batch)
            row = np.minimum(np.searchsorted(known, asked), len(known) - 1)
            seen[row[known[row] == asked]] = True
    count = np.bincount(owner, minlength=len(names))
    shared = np.bincount(owner, seen[place], minlength=len(names))
    near = (count > 0) & (shared >= share * count)
    yield from (names[row] for row in np.flatnonzero(near).tolist())


def _read(path: Path) -> Iterator[tuple[str, str]]:
    with path.open(encoding="utf-8") as file:
        for header in file:
            yield header[1:].rstrip("\n"), next(file).rstrip("\n")


def _words(proteins: Sequence[str]) -> tuple[UInt64, Int64]:
    """Return every 9-mer of known residues as a number (w,), and the row (w,) of its protein."""
    text = np.frombuffer("*".join((*proteins, "")).encode("ascii"), np.uint8)
    codes = _CODES[text]
    count = max(0, len(codes) - K + 1)
    words, whole = np.zeros(count, np.uint64), np.ones(count, np.bool_)
    for place in range(K):
        part = codes[place : place + count]
        words = words << np.uint64(_BITS) | part
        whole &= part != _UNKNOWN
    ends = np.cumsum([len(protein) + 1 for protein in proteins])
    owner = np.searchsorted(ends, np.flatnonzero(whole), side="right").astype(np.int64)
    return words[whole], owner
