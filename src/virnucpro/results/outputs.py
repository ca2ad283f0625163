"""Settings of what a run writes, and where it cuts scores."""

from dataclasses import dataclass
from pathlib import Path

from virnucpro.errors import SettingsError
from virnucpro.results.parquet import check_pyarrow

TABLE_FORMS = ("plain", "gz")
SEQUENCES = ("none", "viral", "all")


@dataclass(frozen=True, slots=True, kw_only=True)
class Outputs:
    """What to write.

    prefix: put before the name of each file, with a dot. threshold: least p_virus of a call virus,
    0 to 1; None: the bundle's own. tables: plain or gz. compat_tables: the two tables in the
    published program's format, too. write: "none", "viral" (viral.fasta) or "all" (others.fasta,
    too). parquet: calls and contigs in that format, too. save_embeddings: those of frames, too.
    log_json: log.jsonl, too. allow_partial: exit 0 even if some records failed.
    """

    prefix: str = ""
    threshold: float | None = None
    tables: str = "plain"
    compat_tables: bool = True
    write: str = "viral"
    parquet: bool = False
    save_embeddings: bool = False
    log_json: bool = False
    allow_partial: bool = False

    def check(self) -> None:
        """Raise SettingsError for values out of range, and where Parquet cannot be written."""
        if self.threshold is not None and not 0 <= self.threshold <= 1:
            raise SettingsError(f"the threshold must be 0 to 1, got {self.threshold}")
        if self.tables not in TABLE_FORMS:
            raise SettingsError(f"tables must be plain or gz, got {self.tables!r}")
        if self.write not in SEQUENCES:
            raise SettingsError(f"write must be none, viral or all, got {self.write!r}")
        if self.parquet:
            check_pyarrow("--parquet")
        if self.save_embeddings:
            check_pyarrow("--save-embeddings")
        if self.prefix and Path(self.prefix).name != self.prefix:
            raise SettingsError(
                f"the prefix must be a part of a file's name, without '/', got {self.prefix!r}; "
                "name the folder with -o"
            )

    def exit_code(self, status: str) -> int:
        """Return the exit code of a run that ended with this status."""
        return 2 if status == "partial" and not self.allow_partial else 0
