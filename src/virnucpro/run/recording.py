"""The record of a run under way or at its end, from what was given and observed."""

from collections.abc import Mapping
from platform import node
from typing import Any

from virnucpro.blocks import Telemetry
from virnucpro.bundle.card import about_bundle
from virnucpro.bundle.prescreen import Prescreen
from virnucpro.devices.memory import peak_memory_bytes
from virnucpro.results.record import (
    PART,
    RUNNING,
    DeviceRecord,
    InputRecord,
    RunRecord,
    instant,
    now,
    versions,
)
from virnucpro.results.write import Written
from virnucpro.run.directory import RunDirectory
from virnucpro.run.fingerprint import inputs_digest
from virnucpro.run.prepare import Job


def record_of(
    job: Job,
    directory: RunDirectory,
    telemetry: Telemetry,
    timings: Mapping[str, float],
    *,
    status: str,
    exit_code: int | None,
    error: str | None,
    written: Written | None,
    whole: bool,
    negative_blocks: int | None,
) -> RunRecord:
    """Return the record of a run as it is now.

    timings: seconds by stage. written: the results, once there are any. whole: whether no input
    broke off. negative_blocks: of --negatives.
    """
    end = now()
    total_s = (end - job.started).total_seconds()
    scoring_s = telemetry.scoring_s / max(1, len(telemetry.shares))
    timings = {**timings, "scoring_s": scoring_s, "total_s": total_s}
    resolved = {
        "pin_memory": job.compute.pin_memory,
        "cuda_streams": job.compute.cuda_streams,
        "dataloader_workers": job.prefetch,
        "threshold": job.threshold,
        "chunk_threshold": job.chunk_threshold,
        "precision": job.plan.precision,
        "threads": job.device.threads,
    }
    device = DeviceRecord(
        kind=job.device.kind,
        name=job.device.name,
        precision=job.plan.precision,
        threads=job.device.threads,
    )
    memory = {stage: memory.as_dict() for stage, memory in telemetry.memory.items()}
    return RunRecord(
        status=status,
        exit_code=exit_code,
        error=error,
        versions=versions(),
        command=job.settings.command,
        inputs=[InputRecord.of(source) for source in job.sources],
        bundle=about_bundle(job.bundle),
        settings=job.settings.as_dict() | resolved,
        device=device,
        attention=telemetry.attention,
        fingerprint=directory.fingerprint | (inputs_digest(job.sources) if whole else {}),
        blocks=directory.journal.counts,
        outputs={} if written is None else dict(written.digests),
        output_bytes={} if written is None else dict(written.sizes),
        counts=None if written is None else written.counts,
        timings={name: round(seconds, 3) for name, seconds in timings.items()},
        batches={name: batches.as_dict() for name, batches in telemetry.batches.items()},
        memory={"peak_bytes": peak_memory_bytes()} | memory,
        started=instant(job.started),
        finished=None if status == RUNNING else instant(end),
        workers=[
            share.as_dict(name, timings.get("blocks_s", 0.0))
            for name, share in sorted(telemetry.shares.items())
        ],
        part=_part_of(job, telemetry, negative_blocks) if status == PART else None,
        worth=None if written is None or written.worth is None else written.worth.as_dict(),
        prescreen=None if job.prescreen is None else _first_of(job.prescreen, written),
        negatives=None
        if job.negatives is None
        else {"path": str(job.negatives.source.path), "sha256": job.negatives.sha256},
    )


def _first_of(prescreen: Prescreen, written: Written | None) -> dict[str, Any]:
    """Return the entry of the bundle that looked first, with what it ended."""
    return {**prescreen.about(), "chunks": None if written is None else written.prescreened}


def _part_of(job: Job, telemetry: Telemetry, negative_blocks: int | None) -> dict[str, Any]:
    """Return what a merge must know of a part besides its blocks."""
    part = job.settings.restart.part
    assert part is not None
    return {
        "number": part.number,
        "of": part.of,
        "host": node(),
        "embedding_widths": telemetry.embedding_widths,
        "crc": [source.seen.crc for source in job.sources],
        "mates": [source.seen.mates for source in job.sources],
        "negative_blocks": negative_blocks,
    }
