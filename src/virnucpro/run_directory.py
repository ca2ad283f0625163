"""The files of a run directory: where each lies, and run.json as it is read again."""

import hashlib
import json
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from virnucpro.errors import ResumeError
from virnucpro.writing import PACKED_SUFFIX, disk_errors

RUN_SCHEMA_VERSION = 1
# After the name of a result that somebody has edited, where a run put it aside.
EDITED = ".edited"
FINISHED = ("complete", "partial")


class _Public:
    """The path of a file that a user may find; table: gzipped where the tables are."""

    def __init__(self, name: str, *, table: bool = False) -> None:
        self._name, self._table = name, table

    def __get__(self, files: "RunFiles", kind: type["RunFiles"] | None = None) -> Path:
        suffix = PACKED_SUFFIX if self._table and files.packed else ""
        prefix = f"{files.prefix}." if files.prefix else ""
        return files.run_dir / f"{prefix}{self._name}{suffix}"


@dataclass(frozen=True, slots=True)
class RunFiles:
    """Every path of a run. prefix stands before each name, with a dot after it unless empty.

    journal: another folder for the finished blocks, by default the run directory. packed: whether
    the tables are gzipped, which their names say too.
    """

    run_dir: Path
    prefix: str = ""
    journal: Path | None = None
    packed: bool = False

    # In the order of docs/outputs.md.
    calls = _Public("calls.tsv", table=True)
    contigs = _Public("contigs.tsv", table=True)
    frame_scores = _Public("prediction_results.txt", table=True)
    chunk_scores = _Public("prediction_results_highestscore.csv", table=True)
    pairs = _Public("pairs.tsv", table=True)
    regions = _Public("regions.tsv")
    regions_bed = _Public("regions.bed")
    viral_fasta = _Public("viral.fasta")
    viral_names = _Public("viral_names.txt")
    others_fasta = _Public("others.fasta")
    calls_parquet = _Public("calls.parquet")
    contigs_parquet = _Public("contigs.parquet")
    embeddings = _Public("embeddings.parquet")
    failed = _Public("failed.tsv")
    report = _Public("report.html")
    multiqc = _Public("virnucpro_mqc.json")
    run_json = _Public("run.json")
    log = _Public("log.txt")
    log_json = _Public("log.jsonl")

    @property
    def public(self) -> tuple[Path, ...]:
        """Every file that a user may find."""
        named = vars(RunFiles).values()
        return tuple(name.__get__(self) for name in named if isinstance(name, _Public))

    @property
    def results(self) -> tuple[Path, ...]:
        """What a run of these names may leave besides run.json and log.txt, in either form."""
        both = (*self.public, *replace(self, packed=not self.packed).public)
        return tuple(dict.fromkeys(p for p in both if p not in (self.run_json, self.log)))

    @property
    def hidden(self) -> Path:
        return self._hidden(self.run_dir)

    @property
    def kept(self) -> Path:
        """Where the finished blocks lie, and what they are of; hidden unless journal is given."""
        return self._hidden(self.journal or self.run_dir)

    @property
    def journal_option(self) -> str:
        """What a user names the folder of the blocks with."""
        return "--journal" if self.journal else "-o"

    def _hidden(self, folder: Path) -> Path:
        return folder / (f".{self.prefix}.virnucpro" if self.prefix else ".virnucpro")

    @property
    def fingerprint(self) -> Path:
        return self.kept / "fingerprint.json"

    @property
    def blocks(self) -> Path:
        return self.kept / "blocks"

    @property
    def written(self) -> Path:
        """The public names that runs here have written under, for when there is no run.json."""
        return self.hidden / "written.json"

    @property
    def scratch(self) -> Path:
        """Where tables are put together and sorted; emptied when they are done."""
        return self.hidden / "scratch"

    @property
    def finished_blocks(self) -> int:
        """How many blocks are kept there, not counting on their being whole."""
        return sum(1 for _ in self.blocks.glob("*.block"))

    def block(self, number: int) -> Path:
        return self.blocks / f"{number:09d}.block"

    def block_embeddings(self, number: int) -> Path:
        return self.blocks / f"{number:09d}.embeddings"


def read_run_json(files: RunFiles) -> dict[str, Any] | None:
    """run.json, if it is there. Raises ResumeError if it is not one of ours."""
    with disk_errors(files.run_dir):
        if not files.run_json.exists():
            return None
    document = read_json(files.run_json)
    kinds = {"fingerprint": dict, "outputs": dict, "settings": dict, "inputs": list}
    if not {"schema_version", "fingerprint"} <= document.keys() or not all(
        isinstance(document.get(name, kind()), kind) for name, kind in kinds.items()
    ):
        raise ResumeError(
            f"{files.run_json}: this was not written by virnucpro, so nothing here is replaced; "
            "choose another folder with -o"
        )
    return document


def missing_or_changed(files: RunFiles, document: Mapping[str, Any]) -> list[str]:
    """The results that are not there as run.json lists them, by name."""
    outputs = document.get("outputs") or {}
    return [name for name, sha256 in outputs.items() if _sha256(files.run_dir / name) != sha256]


def _sha256(path: Path) -> str:
    with suppress(OSError), path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()
    return ""


def read_json(path: Path) -> dict[str, Any]:
    """A file of an earlier run. Raises ResumeError where it is damaged."""
    try:
        return {**json.loads(path.read_bytes())}
    except (OSError, TypeError, ValueError) as error:  # no file, no JSON, or not an object
        raise ResumeError(
            f"{path}: this file of an earlier run is damaged; choose another folder with -o"
        ) from error
