"""What a user may ask of predict, and whether it makes sense. Importing this loads no torch."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypedDict

from virnucpro.bundle import DEFAULT_BUNDLE, Bundle
from virnucpro.engine import CACHE_CLEAR_INTERVAL, Engine
from virnucpro.errors import SettingsError
from virnucpro.parquet import check_pyarrow
from virnucpro.reads import PAIRS, Reading

TABLE_FORMS = ("plain", "gz")
SEQUENCES = ("none", "viral", "all")


class Options(TypedDict, total=False):
    """What a library call may say besides inputs, bundle and run directory; see Settings."""

    sample: str | None
    mates: Path | None
    pairs: str
    read_groups: bool
    reference: Path | None
    min_length: int | None
    max_records: int | None
    prefix: str
    threshold: float | None
    precision: str
    threads: int | None
    cache_weights: bool
    gpus: str | None
    attention: str
    batch_tokens: int | None
    esm_batch_size: int | None
    dnabert_batch_size: int | None
    dataloader_workers: int | None
    pin_memory: bool | None
    expandable_segments: bool
    cache_clear_interval: int
    cuda_streams: bool | None
    max_length: int | None
    tables: str
    compat_tables: bool
    write: str
    parquet: bool
    save_embeddings: bool
    allow_partial: bool
    resume: bool
    force: bool
    keep_blocks: bool
    journal: Path | None
    log_json: bool


@dataclass(frozen=True, slots=True, kw_only=True)
class Settings:
    """What a user asked for. None means the bundle's or this machine's own.

    sample: the name in the column sample, for one file only; otherwise made from the file's name.
    mates: file of the second mates of the one input.
    pairs, read_groups, reference, max_records: as in reads.Reading.
    min_length: records of fewer nt are listed, but not classified.
    prefix: put before the name of each file written, with a dot.
    threshold: least p_virus of a call virus, 0 to 1.
    precision: fp32, bf16, fp16, fp8 or auto.
    threads: of the CPU; None: as devices.threads_by_environment says, else every processor allowed.
    gpus: all, none, or the number of one; None: the first there is.
    attention, batch_tokens, cache_weights and the other wishes of an engine: see engine.Engine.
    dataloader_workers: processes that translate and tokenize ahead; None: 0 on a CPU.
    expandable_segments: adds that to the CUDA allocator's settings.
    max_length: records of more nt are listed as failed.
    tables: plain or gz.
    compat_tables: whether the two tables in the published program's format are written.
    write: "none", "viral" (viral.fasta) or "all" (others.fasta, too).
    parquet: whether calls and contigs are written in that format, too.
    save_embeddings: whether those of frames are, as well.
    allow_partial: whether 0 is the exit code of a run in which some records failed, too.
    resume: False refuses an unfinished run.
    force: whether an earlier run in out is replaced.
    keep_blocks: whether finished blocks stay for a later run with, say, another threshold.
    journal: folder for the blocks, by default out.
    log_json: whether log.jsonl is written, too.
    command: the command line, for run.json.
    """

    inputs: tuple[Path, ...]
    out: Path
    bundle: str = DEFAULT_BUNDLE
    sample: str | None = None
    mates: Path | None = None
    pairs: str = "auto"
    read_groups: bool = False
    reference: Path | None = None
    min_length: int | None = None
    max_records: int | None = None
    prefix: str = ""
    threshold: float | None = None
    precision: str = "auto"
    threads: int | None = None
    cache_weights: bool = False
    gpus: str | None = None
    attention: str = "auto"
    batch_tokens: int | None = None
    esm_batch_size: int | None = None
    dnabert_batch_size: int | None = None
    dataloader_workers: int | None = None
    pin_memory: bool | None = None
    expandable_segments: bool = False
    cache_clear_interval: int = CACHE_CLEAR_INTERVAL
    cuda_streams: bool | None = None
    max_length: int | None = None
    tables: str = "plain"
    compat_tables: bool = True
    write: str = "viral"
    parquet: bool = False
    save_embeddings: bool = False
    allow_partial: bool = False
    resume: bool = True
    force: bool = False
    keep_blocks: bool = False
    journal: Path | None = None
    log_json: bool = False
    command: tuple[str, ...] = ()

    def check(self) -> None:
        """Raises SettingsError for what no machine could do."""
        if not self.inputs:
            raise SettingsError("no input was named; give one file or more")
        if self.sample is not None and len(self.inputs) > 1:
            raise SettingsError(
                f"the sample name {self.sample} was given for {len(self.inputs)} inputs, but "
                "rows are told apart by it; run them one by one, or leave it out"
            )
        if self.threshold is not None and not 0 <= self.threshold <= 1:
            raise SettingsError(f"the threshold is {self.threshold}, but must lie in 0 to 1")
        if self.pairs not in PAIRS:
            raise SettingsError(f"pairs is {self.pairs!r}, but must be {', '.join(PAIRS)}")
        if self.mates is not None and self.pairs == "interleaved":
            raise SettingsError("mates lie in a file of their own or interleaved, not both")
        if self.mates is not None and self.pairs == "none":
            raise SettingsError(
                "--mates and --unpaired contradict each other; to read both files without pairs, "
                "name both as inputs"
            )
        if min(self.min_length or 1, self.max_records or 1) < 1 or self.max_records == 0:
            raise SettingsError("the least length and the number of records must be 1 or more")
        if self.max_length is not None and self.max_length < 1:
            raise SettingsError(
                f"the longest record is {self.max_length} nt, but must be 1 or more"
            )
        if self.dataloader_workers is not None and self.dataloader_workers < 0:
            raise SettingsError(
                f"{self.dataloader_workers} loader workers cannot be; give 0 or more"
            )
        self.engine.check()
        if self.tables not in TABLE_FORMS:
            raise SettingsError(f"tables is {self.tables!r}, but must be plain or gz")
        if self.write not in SEQUENCES:
            raise SettingsError(f"write is {self.write!r}, but must be none, viral or all")
        if self.parquet:
            check_pyarrow("--parquet")
        if self.save_embeddings:
            check_pyarrow("--save-embeddings")
        if self.prefix and Path(self.prefix).name != self.prefix:
            raise SettingsError(
                f"the prefix is {self.prefix!r}, but must be a part of a file's name, without "
                "'/'; name the folder with -o"
            )

    @property
    def reading(self) -> Reading:
        """How the inputs are read."""
        return Reading(
            mates=self.mates,
            pairs=self.pairs,
            read_groups=self.read_groups,
            reference=self.reference,
            max_records=self.max_records,
            spool=self.out,
        )

    @property
    def engine(self) -> Engine:
        """How the classifier computes."""
        return Engine(**{name: getattr(self, name) for name in Engine.__slots__})

    def without_effect(self, device: str, kind: str) -> list[str]:
        """Sentences about what was asked for and changes nothing here, with this kind of bundle."""
        said = self.engine.without_effect(device, kind)
        if self.expandable_segments and not device.startswith("cuda"):
            said.append("warning: --expandable-segments changes nothing without CUDA")
        if self.dataloader_workers and kind != "frames":
            said.append("--dataloader-workers changes nothing: this bundle prepares nothing ahead")
        if self.gpus not in (None, "none") and kind == "kmer":
            said.append("--gpus changes nothing: this bundle computes on the processor")
        return said

    def check_for(self, bundle: Bundle) -> None:
        """Raises SettingsError for what this bundle has not."""
        if self.save_embeddings and bundle.kind != "frames":
            raise SettingsError(
                f"--save-embeddings needs a bundle of kind frames, and {bundle.name} is of kind "
                f"{bundle.kind}, which embeds no frame; leave it out, or choose another bundle"
            )

    def cut(self, bundle: Bundle) -> float:
        """Where p_virus is cut."""
        return bundle.threshold if self.threshold is None else self.threshold

    def exit_code(self, status: str) -> int:
        """The exit code of a run that ended so."""
        return 2 if status == "partial" and not self.allow_partial else 0


def settings_of(
    paths: Path | str | Sequence[Path | str], bundle: str | Path, out: Path | str, options: Options
) -> Settings:
    """The settings of a library call."""
    several = [paths] if isinstance(paths, Path | str) else paths
    more: dict[str, Any] = dict(options)
    for name in ("journal", "mates", "reference"):
        if more.get(name) is not None:
            more[name] = Path(more[name])
    inputs = tuple(Path(path) for path in several)
    return Settings(inputs=inputs, out=Path(out), bundle=str(bundle), **more)
