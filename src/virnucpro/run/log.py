"""log.txt and log.jsonl of a run, and the sentences that a run writes there.

Every sentence is made from values that were observed when it is written.
"""

import json
from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager, suppress
from datetime import UTC, datetime
from pathlib import Path
from time import monotonic
from typing import TextIO

from virnucpro import __version__
from virnucpro.blocks import Batches, Share, Telemetry
from virnucpro.bundle import DEFAULT_BUNDLE
from virnucpro.bundle.manifest import Bundle
from virnucpro.calls import Status
from virnucpro.classifiers.genetic_code import AUTO as AUTO_CODE
from virnucpro.classifiers.plan import Plan
from virnucpro.devices.compute import Compute
from virnucpro.devices.machine import Device, cpu_count, gpu_count, threads_by_environment
from virnucpro.devices.memory import Memory
from virnucpro.errors import VirnucproError
from virnucpro.frames import STANDARD
from virnucpro.progress import (
    PLAIN_EVERY_S,
    WARNING,
    Forecast,
    Position,
    Progress,
    escaped,
    several,
)
from virnucpro.reads.estimate import Shape, disk_needed, shortage
from virnucpro.results.counts import Counts
from virnucpro.results.false_discovery import WORST
from virnucpro.results.files import RunFiles
from virnucpro.results.judge import AUTO as AUTO_PRIOR
from virnucpro.results.outputs import Outputs
from virnucpro.results.write import Written
from virnucpro.run.settings import Settings
from virnucpro.storage.atomic import disk_errors

# Lines on so many inputs are shown; the rest is counted.
MOST_LINES = 10

FETCH_PUBLISHED = "`virnucpro bundles download virnucpro-500` fetches the published one"


class RunLog:
    """log.txt, log.jsonl where it is wanted, and a copy of each line for whoever watches."""

    def __init__(self, file: TextIO, progress: Progress, jsonl: TextIO | None = None) -> None:
        self._file = file
        self._jsonl = jsonl
        self._progress = progress
        self._forecast = Forecast()
        self._progress_at: float | None = None
        self._stage: int | str | None = None
        self._ends = False

    def line(self, text: str) -> None:
        """Write a line."""
        self._write(text)
        self._progress.line(text)

    def detail(self, text: str) -> None:
        """Write a line that only people who want every detail see on a terminal."""
        self._write(text)
        self._progress.detail(text)

    def common(self, text: str, *, detail: bool = False) -> None:
        """Write a line that every sample of a sheet has, and of these only the first shows."""
        self._write(text)
        self._progress.common(text, detail=detail)

    def lines(self, each: Sequence[str]) -> None:
        """Write a line on each of several inputs; all but the first few to the files alone."""
        for line in each[:MOST_LINES]:
            self.line(line)
        for line in each[MOST_LINES:]:
            self.detail(line)
        if len(each) > MOST_LINES:
            more = several(len(each) - MOST_LINES, "more such line")
            self.line(f"{more} in {Path(self._file.name).name}")

    def memory(self, stage: str, memory: Memory, *, cuda: bool) -> None:
        """Write the memory of the device at a stage."""
        (self.line if cuda else self.detail)(f"memory, {stage}: {memory}")

    def ended(self, status: str, sentence: str) -> None:
        """Write how a run ended that did not finish; to the files alone."""
        self._write(f"{status}: {sentence}", "error")

    def end(self, status: str, exit_code: int) -> None:
        """Write for programs, as the last line, that this process has come to its end."""
        if self._jsonl is not None:
            with suppress(VirnucproError):  # the results are there, whatever the disk says to that
                values = {"level": "end", "text": status, "status": status, "exit_code": exit_code}
                self._write_json(self._jsonl, datetime.now(UTC), values)

    def advance(self, position: Position) -> None:
        """Pass on how far the run is, and write it down for programs now and then."""
        now, before = monotonic(), self._progress_at
        self._forecast.take(now, position)
        ends = position.total is not None and position.done >= position.total
        stage = position.numbers.get("stage")
        anew = stage != self._stage or ends > self._ends
        due = before is None or anew or now - before >= PLAIN_EVERY_S
        self._ends = ends
        if self._jsonl is not None and due:
            self._progress_at, self._stage = now, stage
            self._write_progress(self._jsonl, position, now)
        self._progress.advance(position)

    def _write_progress(self, jsonl: TextIO, position: Position, now: float) -> None:
        """Write a line with numbers; total, rate and time left are null where they are unknown."""
        left, rate = self._forecast.left_s(now), self._forecast.rate
        values = {
            "level": "progress",
            "text": position.note,
            **position.numbers,
            "done_bytes": round(position.done),
            "total_bytes": position.total,
            "chunks_per_s": None if rate is None else round(rate, 3),
            "left_s": None if left is None else round(left, 1),
        }
        self._write_json(jsonl, datetime.now(UTC), values)

    def _write_json(self, jsonl: TextIO, time: datetime, values: Mapping[str, object]) -> None:
        document = {"time": time.isoformat(timespec="milliseconds"), **values}
        with disk_errors(Path(self._file.name).parent):
            jsonl.write(json.dumps(document) + "\n")
            jsonl.flush()

    def _write(self, text: str, level: str = "") -> None:
        text = escaped(text)
        level = level or ("warning" if text.startswith(WARNING) else "info")
        now = datetime.now(UTC)
        with disk_errors(Path(self._file.name).parent):
            self._file.write(f"{now:%Y-%m-%d %H:%M:%S} {text}\n")
            self._file.flush()
        if self._jsonl is not None:
            values = {"level": level, "text": text.removeprefix(WARNING)}
            self._write_json(self._jsonl, now, values)


@contextmanager
def open_log(files: RunFiles, progress: Progress, *, as_json: bool = False) -> Iterator[RunLog]:
    """Open the log of a run, which later processes append to."""
    with ExitStack() as stack:

        def opened(path: Path) -> TextIO:
            with disk_errors(files.run_dir):
                # A path need not be UTF-8.
                file = path.open("a", encoding="utf-8", errors="backslashreplace")
            stack.callback(_close, file)
            return file

        jsonl = opened(files.log_json) if as_json else None
        yield RunLog(opened(files.log), progress, jsonl)


def _close(file: TextIO) -> None:
    with suppress(OSError):  # every line was flushed; a refusal was raised then
        file.close()


def opening(settings: Settings, bundle: Bundle, plan: Plan, device: Device) -> Iterator[str]:
    """Yield sentences on the bundle, where it computes, and settings that change nothing."""
    default = settings.bundle == DEFAULT_BUNDLE
    name = f"{bundle.name} (the default)" if default else bundle.name
    fetch = f"; {FETCH_PUBLISHED}" if default else ""
    yield f"virnucpro {__version__}, bundle {name}, {bundle.provenance}{fetch}"
    yield f"records are called virus at {_cuts(settings, bundle)}"
    yield (
        f"chunks of {bundle.chunk_nt} nt, {plan.precision} on {device.name}, "
        f"{several(device.threads, 'thread')}"
    )
    outputs = settings.outputs
    if outputs.fdr is None and (outputs.negatives or outputs.host != WORST):
        null = "--negatives" if outputs.negatives else f"--host {outputs.host}"
        prior = " and the prior that is estimated" if outputs.prior == AUTO_PRIOR else ""
        yield (
            f"{null} changes the column q_value{prior}; calls go by the threshold, as without it "
            "(--fdr calls by q_value)"
        )
    if (code := settings.scoring.genetic_code) != str(STANDARD):
        yield (
            "the genetic code of each record is the one that makes its open frames much longer "
            "(column genetic_code of contigs.tsv)"
            if code == AUTO_CODE
            else f"frames are open by genetic code {code}"
        ) + "; the published method has code 1"
    if bundle.kind != "kmer" and not settings.compute.threads and threads_by_environment():
        yield "threads are those of OMP_NUM_THREADS; --threads overrides it"
    yield from settings.compute.without_effect(device.index, bundle.kind)


def _cuts(settings: Settings, bundle: Bundle) -> str:
    """Return what decides the calls of records and, if that differs, of chunks."""
    outputs, threshold = settings.outputs, settings.outputs.record_threshold(bundle)
    cut = f"p_virus >= {threshold:g}" if outputs.fdr is None else f"q_value <= {outputs.fdr:g}"
    if "calibration" in bundle.parts and outputs.fdr is None and outputs.threshold is None:
        found = bundle.part("calibration")
        others = " and fewer of its other large groups of hosts" if len(found["groups"]) > 1 else ""
        cut += (
            f", which {100 * found['worst_rate']:g} % of the calibration's {found['worst_group']}"
            f"{others} reach"
        )
    chunk_threshold = outputs.chunk_threshold(bundle)
    if outputs.fdr is not None or chunk_threshold != threshold:
        cut += f"; chunks and regions at p_virus >= {chunk_threshold:g}"
    return cut


def computing(
    loaded: Telemetry, device: Device, compute: Compute, workers: int, *, prefetches: bool
) -> Iterator[str]:
    """Yield sentences on what computes, as observed when the classifier was loaded.

    compute: resolved for the device. prefetches: whether blocks are prepared by workers.
    """
    cuda = device.kind == "cuda"
    for name, kernels in loaded.attention.items():
        yield f"attention of {name}: {kernels}"
    if compute.attention == "flash" and loaded.attention.get("dnabert_s"):
        yield (
            "--attention flash is met for dnabert_s by a fused kernel that takes ALiBi's bias, "
            "which PyTorch's FlashAttention-2 does not"
        )
    if prefetches:
        if loaded.in_turns:
            yield "the GPU does not hold both encoders, so they take turns in each block"
        gpus = f", {several(gpu_count(), 'GPU')}" if cuda else ", no GPU"
        yield f"loader workers: {workers} ({cpu_count()} processors{gpus})"
    if cuda:
        yield f"page-locked buffers: {_on(compute.pin_memory)}"
        yield f"copies on streams of their own: {_on(compute.cuda_streams)}"
        segments = loaded.expandable_segments
        yield f"expandable segments of the allocator: {_on(segments)}"
        interval = compute.cache_clear_interval
        yield f"the CUDA cache is emptied {f'every {interval} batches' if interval else 'never'}"
    for name, batches in loaded.batches.items():
        yield f"batches of {name}: at most {batches.budget:,} tokens"


def _on(state: bool | None) -> str:
    return "unknown" if state is None else "on" if state else "off"


def smaller_batches(before: Mapping[str, Batches], now: Mapping[str, Batches]) -> Iterator[str]:
    """Yield a warning for each encoder whose batches became smaller for want of memory."""
    for name, batches in now.items():
        most = before[name].least if name in before else batches.budget
        if batches.least < most:
            yield (
                f"warning: memory is short: batches of {name} hold at most {batches.least:,} "
                f"tokens from now on, not {most:,}, so scores may round otherwise"
            )


def overflows(batches: Mapping[str, Batches]) -> Iterator[str]:
    """Yield a sentence on frames that overflowed in fp16, if any did."""
    if widened := max((each.widened for each in batches.values()), default=0):
        yield f"{widened:,} frames overflowed in fp16 and were computed again in fp32"


def shares(of_workers: Mapping[str, Share]) -> Iterator[str]:
    """Yield a sentence on the share of each of several workers, and on how even the shares are."""
    if len(of_workers) < 2:
        return
    for name, share in sorted(of_workers.items()):
        rate = f", {share.chunks / share.seconds:,.0f} chunks/s" if share.seconds else ""
        used = "unknown" if share.utilisation is None else f"{share.utilisation:.0%}"
        yield (
            f"worker {name} ({share.host}, {share.device}): {several(share.blocks, 'block')}, "
            f"{share.chunks:,} chunks in {share.seconds:,.1f} s{rate}, utilisation {used}"
        )
    yield f"load balance (slowest / mean): {balance(of_workers):.2f}"


def rates(of_workers: Mapping[str, Share]) -> str:
    """Return how many chunks a second each of several workers scores; empty for one."""
    found = [s.chunks / s.seconds for s in of_workers.values() if s.seconds]
    if len(of_workers) < 2 or not found:
        return ""
    return f", {len(of_workers)} workers at {min(found):,.0f} to {max(found):,.0f} chunks/s"


def balance(of_workers: Mapping[str, Share]) -> float:
    """Return the seconds of the slowest worker over the mean."""
    seconds = [share.seconds for share in of_workers.values()]
    mean = sum(seconds) / len(seconds)
    return max(seconds) / mean if mean else 1.0


def disk_taken(
    outputs: Outputs, bundle: Bundle, shapes: Sequence[Shape], files: RunFiles
) -> Iterator[str]:
    """Yield a sentence on the disk that the run may take, and a warning if less is free."""
    need = disk_needed(
        shapes,
        frames=bundle.kind == "frames",
        packed=files.packed,
        compat=outputs.compat_tables,
        sequences=outputs.write,
        embeddings=outputs.save_embeddings,
    )
    finished = sum(path.stat().st_size for path in files.blocks.iterdir())
    blocks = max(0, need.blocks - finished)
    yield f"this may need up to {max((blocks + need.tables) / 1e6, 0.1):,.1f} MB of disk"
    if sentence := shortage([(files.blocks, blocks), (files.hidden, need.tables)]):
        yield f"warning: {sentence}"


def closing(written: Written, files: RunFiles) -> Iterator[str]:
    """Yield sentences with the numbers of the tables."""
    counts, worth, prescreened = written.counts, written.worth, written.prescreened
    yield (
        f"{several(counts.records, 'record')}: {counts.virus:,} virus, {counts.others:,} others, "
        f"{counts.none:,} not called, {counts.failed:,} failed"
    )
    yield (
        f"{several(counts.chunks, 'chunk')}: {counts.virus_chunks:,} virus, "
        f"{counts.others_chunks:,} others{_not_ok(counts)}"
    )
    if prescreened is not None:
        yield (
            f"{prescreened:,} of the chunks were ruled out by the first bundle and keep its score "
            "(column bundle of calls.tsv)"
        )
    if written.refusal:
        yield f"{WARNING}{written.refusal}"
    elif worth is not None:
        yield worth.sentence
    if worth is not None:
        if worth.notes:
            noted = ", ".join(f"{number:,} {name}" for name, number in worth.notes.items())
            yield f"noted (column note): {noted}"
        if worth.viral_negatives not in worth.refusal:
            yield f"warning: {worth.viral_negatives}"
    yield from written.notes
    if counts.pairs:
        names = f"{files.pairs.name} and {files.viral_names.name}"
        yield f"{counts.pairs:,} pairs: {counts.virus_pairs:,} virus; see {names}"
        if worth is not None and worth.pairs is not None and worth.pairs.called:
            yield worth.pairs.sentence
    if counts.regions:
        held = f"{files.viral_fasta.name} holds {written.excerpts:,} on records not called virus"
        yield (
            f"viral regions: {counts.regions:,}, on {counts.region_records:,} of the records"
            + (f"; {held}" if written.excerpts else "")
        )
    if counts.incomplete:
        yield f"records that could not be processed are listed in {files.failed}"


def _not_ok(counts: Counts) -> str:
    """Return counts of chunks whose status is not ok, by status."""
    reasons = [
        f"{number:,} {name.replace('_', ' ')}"
        for name, number in counts.chunk_status.items()
        if number and name != Status.OK.name.lower()
    ]
    return f"; {', '.join(reasons)}" if reasons else ""
