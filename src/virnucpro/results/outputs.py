"""Settings of what a run writes, and where it cuts scores."""

from dataclasses import dataclass
from pathlib import Path

from virnucpro.bundle.manifest import Bundle
from virnucpro.errors import SettingsError
from virnucpro.results.false_discovery import WORST
from virnucpro.results.judge import AUTO, Question
from virnucpro.results.parquet import check_pyarrow

TABLE_FORMS = ("plain", "gz")
SEQUENCES = ("none", "viral", "all")


@dataclass(frozen=True, slots=True, kw_only=True)
class Outputs:
    """Settings of what to write.

    prefix: put before the name of each file, with a dot. threshold: least p_virus of a call virus,
    0 to 1; None: the bundle's own. tables: plain or gz. compat_tables: the two tables in the
    published program's format, too. write: "none", "viral" (viral.fasta) or "all" (others.fasta,
    too). parquet: calls and contigs in that format, too. save_embeddings: of frames, too.
    log_json: log.jsonl, too. allow_partial: exit 0 even if some records failed. prior: share of the
    records that is viral, 0 to 1, "auto" to estimate it, None for the default. fdr: call records
    with a q-value of at most this, above 0 and below 1, and not by the threshold. host: whose
    negatives q-values compare with. negatives: a file of the user's own instead.
    """

    prefix: str = ""
    threshold: float | None = None
    tables: str = "plain"
    compat_tables: bool = True
    write: str = "viral"
    parquet: bool = False
    save_embeddings: bool = False
    log_json: bool = False
    prior: float | str | None = None
    fdr: float | None = None
    host: str = WORST
    negatives: Path | None = None
    allow_partial: bool = False

    def check(self) -> None:
        """Raise SettingsError for values out of range, and where Parquet cannot be written."""
        if self.threshold is not None and not 0 <= self.threshold <= 1:
            raise SettingsError(f"the threshold must be 0 to 1, got {self.threshold}")
        if self.fdr is not None and not 0 < self.fdr < 1:
            raise SettingsError(
                f"--fdr must be more than 0 and less than 1, such as 0.05, got {self.fdr:g}"
            )
        if self.fdr is not None and self.threshold is not None:
            raise SettingsError(
                "--fdr and --threshold both decide what is called; give one of them"
            )
        if self.prior not in (None, AUTO) and not _is_share(self.prior):
            raise SettingsError(f"--prior must be auto or 0 to 1, got {self.prior!r}")
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

    @property
    def question(self) -> Question:
        """The question that the user has about the sample."""
        return Question(
            prior=self.prior, fdr=self.fdr, host=self.host, negatives=self.negatives is not None
        )

    def record_threshold(self, bundle: Bundle) -> float:
        """Return where p_virus of records is cut."""
        return bundle.record_threshold if self.threshold is None else self.threshold

    def chunk_threshold(self, bundle: Bundle) -> float:
        """Return where p_virus of chunks is cut."""
        return bundle.threshold if self.threshold is None else self.threshold

    def exit_code(self, status: str) -> int:
        """Return the exit code of a run that ended with this status."""
        return 2 if status == "partial" and not self.allow_partial else 0


def _is_share(value: object) -> bool:
    return isinstance(value, float | int) and 0 <= value <= 1
