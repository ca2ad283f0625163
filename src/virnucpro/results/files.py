"""The files of a run directory: the name and place of each."""

import json
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from virnucpro.errors import ResumeError
from virnucpro.storage.atomic import PACKED_SUFFIX

BLOCK, PROVISIONAL = "block", "provisional"


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
    multiqc_general = _Public("virnucpro_general_mqc.json")
    run_json = _Public("run.json")
    log = _Public("log.txt")
    log_json = _Public("log.jsonl")

    @property
    def public(self) -> tuple[Path, ...]:
        """Every file that a user may find."""
        named = vars(RunFiles).values()
        return tuple(name.__get__(self) for name in named if isinstance(name, _Public))

    @property
    def reports(self) -> tuple[Path, ...]:
        """The files that are made last, from the other files of a finished run."""
        return self.report, self.multiqc, self.multiqc_general

    @property
    def results(self) -> tuple[Path, ...]:
        """Files that a run of these names may leave in either form besides run.json and log.txt."""
        both = (*self.public, *replace(self, packed=not self.packed).public)
        return tuple(dict.fromkeys(p for p in both if p not in (self.run_json, self.log)))

    @property
    def hidden(self) -> Path:
        return self._hidden(self.run_dir)

    @property
    def kept(self) -> Path:
        """The folder of finished blocks and of what they are of; hidden unless journal is given."""
        return self._hidden(self.journal or self.run_dir)

    @property
    def journal_option(self) -> str:
        """The option that a user names the folder of the blocks with."""
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
    def negatives(self) -> Path:
        """The folder of the blocks of --negatives."""
        return self.kept / "negatives"

    @property
    def of_negatives(self) -> "RunFiles":
        """The same paths, with the blocks of --negatives in place of the blocks of the sample."""
        return replace(self, journal=self.negatives)

    @property
    def scratch(self) -> Path:
        """The folder where tables are put together and sorted; emptied when they are done."""
        return self.hidden / "scratch"

    @property
    def finished_blocks(self) -> int:
        """The number of blocks that are kept there, whole or not."""
        return sum(1 for _ in self.blocks.glob(f"*.{BLOCK}"))

    def block(self, number: int, *, provisional: bool = False) -> Path:
        """The file of a block; provisional: of one that lies behind an input that broke off."""
        return self.blocks / f"{number:09d}.{PROVISIONAL if provisional else BLOCK}"

    def embeddings_of(self, block: Path) -> Path:
        """The file of the embeddings of a block, beside the file of the block."""
        return block.with_name(f"{block.name}.embeddings")


def read_json(path: Path) -> dict[str, Any]:
    """Read a hidden file of an earlier run. Raises ResumeError if it is damaged."""
    try:
        return {**json.loads(path.read_bytes())}
    except (OSError, TypeError, ValueError) as error:  # no file, no JSON, or not an object
        raise ResumeError(
            f"{path}: this file of an earlier run is damaged; choose another folder with -o"
        ) from error
