"""The finished parts of a run -> its results, byte for byte those of an undivided run.

Needs the parts' blocks and, for sequences, the inputs; no weights, no device and no torch.
"""

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, fields, replace
from pathlib import Path
from time import perf_counter
from typing import Any

from virnucpro.blocks import Scored
from virnucpro.bundle.card import about_bundle
from virnucpro.bundle.manifest import Bundle, read_bundle
from virnucpro.calls import Embeddings
from virnucpro.errors import BlockError, InputError, ResumeError, SettingsError, ending
from virnucpro.frames import STANDARD
from virnucpro.progress import Position, Progress, Silent, several
from virnucpro.reads import Seen, Source, open_sources
from virnucpro.reads.files import Reading
from virnucpro.report import write_reports
from virnucpro.results.files import RunFiles
from virnucpro.results.outputs import Outputs
from virnucpro.results.read import run_files
from virnucpro.results.record import FINISHED, PART, RUNNING, BlockCounts, RunRecord, instant, now
from virnucpro.results.write import planned
from virnucpro.run.block_file import read_block, read_embeddings
from virnucpro.run.directory import RunDirectory, missing_or_changed
from virnucpro.run.finalise import finalise, results_plan
from virnucpro.run.fingerprint import in_words
from virnucpro.run.journal import sha256_of
from virnucpro.run.log import closing, open_log
from virnucpro.run.resume import OF_TABLES, Outcome, as_before
from virnucpro.run.settings import Part, Restart

# Settings that say what is called.
_CUTS = ("threshold", "chunk_threshold")
_AGAIN = "give its predict command again"
# Settings that may differ between parts: they change neither scores nor results.
_OF_PARTS = {
    *(f.name for f in fields(Restart)),
    *("gpus", "workers", "scheduler", "threads", "batch_tokens", "esm_batch_size"),
    *("dnabert_batch_size", "dataloader_workers", "pin_memory", "cuda_streams"),
    *("expandable_segments", "cache_clear_interval", "attention", "log_json", "prefix"),
    # Where they lie; what they hold has a digest.
    *("negatives", "mates", "reference", "prescreen"),
}


@dataclass(frozen=True, slots=True)
class FinishedPart:
    """A part of a run as it lies on disk."""

    folder: Path
    files: RunFiles
    record: RunRecord
    part: Part

    @classmethod
    def open(cls, folder: Path) -> "FinishedPart":
        """Read what lies in a folder. Raises ResumeError unless it is a finished part."""
        try:
            found = run_files(folder)
        except InputError as error:
            raise ResumeError(str(error)) from error
        if len(found) > 1:
            raise ResumeError(
                f"{folder}: holds {len(found)} runs; give each part a folder of its own"
            )
        record = RunRecord.read(found[0].run_json, ResumeError)
        if record is None or record.status != PART or not record.part:
            if record is not None and not record.part and record.status in FINISHED:
                raise ResumeError(
                    f"{folder}: is a whole run and no part of one; parts are what predict --part "
                    "makes"
                )
            status = "unknown" if record is None else record.status
            raise ResumeError(
                f"{folder}: is not a finished part of a run (its status is {status}); {_AGAIN}"
            )
        journal = record.settings.get("journal")
        files = replace(found[0], journal=None if journal is None else Path(journal))
        try:
            part = Part(int(record.part["number"]), int(record.part["of"]))
        except (KeyError, TypeError, ValueError) as error:
            raise ResumeError(f"{found[0].run_json}: is damaged ({error}); {_AGAIN}") from error
        return cls(folder, files, record, part)

    @property
    def fingerprint(self) -> dict[str, str]:
        """The fingerprint that all parts share."""
        return {k: v for k, v in self.record.fingerprint.items() if k != "part"}


class MergedBlocks:
    """The blocks of all parts, as of one run. Satisfies results.finished.FinishedBlocks."""

    def __init__(
        self,
        parts: Sequence[FinishedPart],
        tell: Callable[[int, int], None],
        negatives: str | None = None,
    ) -> None:
        """Take parts in their order.

        tell: takes how many blocks of how many were read. negatives: sha256 of the file of
        --negatives, whose blocks these are then.
        """
        self._parts = parts
        self._tell = tell
        of_run = {k: v for k, v in parts[0].fingerprint.items() if k != "inputs"}
        self.total = parts[0].record.blocks.total
        if negatives is not None:
            of_run["negatives"] = negatives
            self.total = int((parts[0].record.part or {})["negative_blocks"])
            self._parts = [replace(p, files=p.files.of_negatives) for p in parts]
        self._fingerprint = sha256_of(of_run)

    def _part(self, number: int) -> FinishedPart:
        return self._parts[number % len(self._parts)]

    def scored(self) -> Iterator[Scored]:
        """Yield the blocks in their order. Raises BlockError, naming the part."""
        for number in range(self.total):
            part = self._part(number)
            try:
                yield read_block(part.files.block(number), number, self._fingerprint)
            except BlockError as error:
                raise BlockError(
                    f"{error}; part {part.part} must make it again: {_AGAIN}"
                ) from error
            self._tell(number + 1, self.total)

    def embeddings(self, scored: Scored) -> Embeddings | None:
        """Return the embeddings of a block's frames; None without a frame. Raises BlockError."""
        files = self._part(scored.block_number).files
        path = files.embeddings_of(files.block(scored.block_number))
        return read_embeddings(path, scored, self._fingerprint)


def merge(
    folders: Sequence[Path],
    out: Path,
    *,
    inputs: Sequence[Path] = (),
    prefix: str = "",
    force: bool = False,
    command: Sequence[str] = (),
    progress: Progress | None = None,
) -> Outcome:
    """Make the results of a run from its parts.

    inputs: where the inputs lie now, in their order, if not where the parts read them. Raises
    ResumeError for a part that is missing, foreign, doubled or damaged, InputError for an input
    that is not the one that was read, VirnucproError where the disk refuses.
    """
    clock, started = perf_counter(), now()
    progress = progress or Silent()
    parts = _complete([FinishedPart.open(folder) for folder in folders])
    first = parts[0].record
    bundle = _bundle(parts[0])
    outputs = replace(_outputs(first), prefix=prefix)
    files = RunFiles(out, prefix, None, outputs.tables == "gz")
    if any(files.hidden.resolve() == part.files.hidden.resolve() for part in parts):
        raise ResumeError(f"{out}: is one of the parts; choose another folder with -o")
    fingerprint = {k: v for k, v in parts[0].fingerprint.items() if k != "inputs"}
    sources = _sources(first, inputs) if outputs.write != "none" else []
    before = _seen(parts[0])
    if not force and (earlier := _finished(files, parts)) is not None:
        return as_before(files, earlier, outputs, progress)
    with (
        RunDirectory.take(files, fingerprint, Restart(force=force), again=True) as directory,
        open_log(files, progress) as log,
    ):
        total = several(first.blocks.total, "block")
        log.line(f"merging {several(len(parts), 'part')} of {total}")
        for note in directory.notes:
            log.line(note)

        def tell(done: int, total: int) -> None:
            progress.advance(Position(done, total, f"{done:,} of {total:,} blocks"))

        blocks = MergedBlocks(parts, tell)
        sha256 = (first.negatives or {}).get("sha256")
        negatives = None if sha256 is None else MergedBlocks(parts, tell, sha256)
        widths = (first.part or {}).get("embedding_widths")
        looked_first = str(first.prescreen["name"]) if first.prescreen else None
        plan = results_plan(
            *(bundle, outputs, tuple(widths) if widths else None, looked_first),
            genetic_code=str(first.settings.get("genetic_code", STANDARD)),
        )
        for note in plan.notes:
            log.line(note)
        record = _merged(parts, command, about_bundle(bundle), instant(started))
        running = replace(record, status=RUNNING, exit_code=None, finished=None)
        directory.begin_results(running, planned(files, plan.wanted))
        try:
            written = finalise(blocks, sources, before, plan, files, negatives)
        except BaseException as error:
            status, code, sentence = ending(error)
            directory.fail(replace(record, status=status, exit_code=code, error=sentence))
            raise
        counts = written.counts
        status = "partial" if counts.incomplete else "complete"
        for line in closing(written, files):
            log.line(line)
        seconds = perf_counter() - clock
        record = replace(
            record,
            status=status,
            exit_code=outputs.exit_code(status),
            outputs=dict(written.digests),
            output_bytes=dict(written.sizes),
            counts=counts,
            worth=None if written.worth is None else written.worth.as_dict(),
            prescreen=first.prescreen and {**first.prescreen, "chunks": written.prescreened},
            timings={**record.timings, "tables_s": round(seconds, 3)},
            finished=instant(now()),
        )
        directory.write(record)
        write_reports(files)
        assert status in FINISHED
        directory.complete(keep_blocks=False)
        return Outcome(files, status, outputs.exit_code(status), None, counts)


def _complete(parts: Sequence[FinishedPart]) -> list[FinishedPart]:
    """Return parts in their order. Raises ResumeError unless they are all parts of one run."""
    if not parts:
        raise SettingsError("no part was named; give the run directory of every part")
    first, by_number = parts[0], dict[int, FinishedPart]()
    for part in parts:
        if (other := by_number.setdefault(part.part.number, part)) is not part:
            raise ResumeError(
                f"{part.folder}: is part {part.part}, as {other.folder} is; leave one of them out"
            )
        for what, (expected, found) in _differences(first, part).items():
            raise ResumeError(
                f"{part.folder}: is of another run than {first.folder}, by its {what} "
                f"({in_words(found)}, not {in_words(expected)}); run it again with the options and "
                "inputs of the others"
            )
    missing = [n for n in range(1, first.part.of + 1) if n not in by_number]
    if missing:
        names = ", ".join(f"{n}/{first.part.of}" for n in missing)
        raise ResumeError(
            f"{'part' if len(missing) == 1 else 'parts'} {names} missing: a run of "
            f"{first.part.of} parts needs all of them; name their folders, too"
        )
    return [by_number[number] for number in sorted(by_number)]


def _differences(one: FinishedPart, other: FinishedPart) -> dict[str, tuple[object, object]]:
    """Return by name what differs between two parts that may not."""
    pairs: dict[str, tuple[object, object]] = {
        "number of parts": (one.part.of, other.part.of),
        "number of blocks": (one.record.blocks.total, other.record.blocks.total),
        "samples": (one.record.samples, other.record.samples),
        "file of negatives": (_negatives(one), _negatives(other)),
    }
    for name in one.fingerprint | other.fingerprint:
        pairs[name] = one.fingerprint.get(name), other.fingerprint.get(name)
    settings, others = one.record.settings, other.record.settings
    for name in settings:  # in their order: the first that differs is named
        if name not in _OF_PARTS:
            pairs[f"setting {name}"] = settings[name], others.get(name)
    return {name: pair for name, pair in pairs.items() if pair[0] != pair[1]}


def _negatives(part: FinishedPart) -> str | None:
    return (part.record.negatives or {}).get("sha256")


def _bundle(part: FinishedPart) -> Bundle:
    """Return the bundle by the manifest that a part keeps; its weights need not be here."""
    bundle = read_bundle(part.files.hidden)
    if bundle.sha256 != part.fingerprint.get("bundle"):
        raise ResumeError(f"{bundle.path}: its manifest of the bundle is damaged; {_AGAIN}")
    return bundle


def _outputs(record: RunRecord) -> Outputs:
    """Return the output settings that the parts were made with. Raises ResumeError."""
    names = {f.name for f in fields(Outputs)}
    given = {name: value for name, value in record.settings.items() if name in names}
    # A calibration has a threshold for records alone; one that a user gave cuts chunks, too.
    if given.get("threshold") != record.settings.get("chunk_threshold", given.get("threshold")):
        given["threshold"] = None
    if given.get("fdr") is not None:
        given["threshold"] = None
    given["negatives"] = given.get("negatives") and Path(given["negatives"])
    outputs = Outputs(**given)
    outputs.check()
    return outputs


def _sources(record: RunRecord, inputs: Sequence[Path]) -> list[Source]:
    """Return the inputs of the parts, opened anew. Raises InputError for one that is missing."""
    names = {f.name for f in fields(Reading)}
    given = {name: value for name, value in record.settings.items() if name in names}
    paths = list(inputs) or [Path(entry.path) for entry in record.inputs]
    if len(paths) != len(record.inputs):
        raise SettingsError(
            f"the parts read {len(record.inputs)} inputs, and {len(paths)} were named with --input"
        )
    for name in ("mates", "reference"):
        given[name] = given.get(name) and Path(given[name])
    reading = Reading(**given)
    sources: list[Source] = []
    for path, entry in zip(paths, record.inputs, strict=True):
        try:
            sources += open_sources([path], entry.sample, reading)
        except InputError as error:
            raise InputError(f"{error}; say where it lies now with --input") from error
    return sources


def _seen(part: FinishedPart) -> list[Seen]:
    """Return what the parts have seen of each input."""
    about = part.record.part or {}
    sums, mates = about.get("crc") or [], about.get("mates") or []
    return [
        Seen(entry.records, crc, entry.sha256 or "", of_pairs)
        for entry, crc, of_pairs in zip(part.record.inputs, sums, mates, strict=True)
    ]


def _finished(files: RunFiles, parts: Sequence[FinishedPart]) -> RunRecord | None:
    """Return the record of a merge of the same parts, if it was finished before and is whole."""
    record = RunRecord.read(files.run_json, ResumeError)
    if record is None or not record.is_finished or missing_or_changed(files, record):
        return None
    first = parts[0].record
    same = (
        dict(record.fingerprint) == dict(parts[0].fingerprint)
        and list(record.parts) == [_summary(part) for part in parts]
        and all(record.settings.get(n) == first.settings.get(n) for n in (*OF_TABLES, *_CUTS))
        and record.samples == first.samples
        and record.negatives == first.negatives
    )
    return record if same else None


def _merged(
    parts: Sequence[FinishedPart], command: Sequence[str], bundle: Mapping[str, Any], started: str
) -> RunRecord:
    """Return the record of a merged run, before its results are there."""
    first = parts[0].record
    seconds: dict[str, float] = {}
    for part in parts:
        for name, value in part.record.timings.items():
            seconds[name] = round(seconds.get(name, 0.0) + value, 3)
    own = {"journal": None, "part": None, "resume": True, "force": False, "rerun": False}
    return replace(
        first,
        command=list(command),
        settings={**first.settings, **own},
        fingerprint=parts[0].fingerprint,
        blocks=BlockCounts(
            total=first.blocks.total,
            reused=sum(part.record.blocks.reused for part in parts),
            damaged=sum(part.record.blocks.damaged for part in parts),
        ),
        timings=seconds,
        batches={},
        workers=[],
        part=None,
        parts=[_summary(part) for part in parts],
        started=started,
    )


def _summary(part: FinishedPart) -> dict[str, Any]:
    """Return what run.json says of a part."""
    record = part.record
    return {
        "part": str(part.part),
        "run_dir": str(part.folder),
        "host": (record.part or {}).get("host"),
        "device": None if record.device is None else asdict(record.device),
        "started": record.started,
        "finished": record.finished,
        "timings": dict(record.timings),
        "blocks": asdict(record.blocks),
        "workers": list(record.workers),
        "batches": dict(record.batches),
        "memory": dict(record.memory),
    }
