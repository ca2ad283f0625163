"""What a run says of itself in its log, line by line, from what is known when it is said."""

from collections.abc import Iterator, Sequence

from virnucpro import __version__
from virnucpro.bundle import DEFAULT_BUNDLE, Bundle
from virnucpro.calls import Status
from virnucpro.classifiers import Classifier, Plan
from virnucpro.devices import (
    Device,
    cpu_count,
    expandable_segments_seen,
    gpu_count,
    threads_by_environment,
)
from virnucpro.disk import Shape, disk_needed, shortage
from virnucpro.engine import Engine
from virnucpro.run_directory import RunFiles
from virnucpro.settings import Settings
from virnucpro.tables import Counts

FETCH_PUBLISHED = "`virnucpro bundles download virnucpro-500` fetches the published one"


def what_runs(settings: Settings, bundle: Bundle, plan: Plan, device: Device) -> Iterator[str]:
    """The bundle, where it computes, and wishes that change nothing."""
    default = settings.bundle == DEFAULT_BUNDLE
    named = f"{bundle.name} (the default)" if default else bundle.name
    theirs = f"; {FETCH_PUBLISHED}" if default else ""
    yield f"virnucpro {__version__}, bundle {named}, {bundle.provenance}{theirs}"
    yield (
        f"chunks of {bundle.chunk_nt} nt, virus at p_virus >= {settings.cut(bundle):g}; "
        f"{plan.precision} on {device.name}, {device.threads} thread{'s' * (device.threads > 1)}"
    )
    if bundle.kind != "kmer" and not settings.threads and threads_by_environment():
        yield "as many threads as OMP_NUM_THREADS says; --threads overrules it"
    if bundle.kind == "kmer" and (settings.threads or 1) > 1:
        yield f"--threads {settings.threads} changes nothing: this bundle computes on one"
    yield from settings.without_effect(device.index, bundle.kind)


def what_computes(
    classifier: Classifier, device: Device, engine: Engine, attention: str, workers: int
) -> Iterator[str]:
    """Each thing as it was observed; attention: the one that was asked for."""
    cuda = device.kind == "cuda"
    for name, kernels in classifier.attention.items():
        yield f"attention of {name}: {kernels}"
    if attention == "flash" and classifier.attention.get("dnabert_s"):
        yield (
            "--attention flash is met for dnabert_s by a fused kernel that takes ALiBi's bias, "
            "which PyTorch's FlashAttention-2 does not"
        )
    if (ahead := classifier.ahead) is not None:
        if ahead.in_turns:
            yield "the GPU does not hold both encoders, so they take turns in each block"
        gpus = f", {gpu_count()} GPU{'s' * (gpu_count() > 1)}" if cuda else ", no GPU"
        yield f"loader workers: {workers} ({cpu_count()} processors{gpus})"
    if cuda:
        segments = expandable_segments_seen(device.index)
        yield f"page-locked buffers: {_on(engine.pin_memory)}"
        yield f"copies on streams of their own: {_on(engine.cuda_streams)}"
        yield f"expandable segments, as the allocator has them: {_on(segments)}"
        interval = engine.cache_clear_interval
        yield f"the CUDA cache is emptied {f'every {interval} batches' if interval else 'never'}"
    for name, batches in classifier.batches.items():
        yield f"batches of {name}: at most {batches.budget:,} tokens"


def _on(state: bool | None) -> str:
    return "unknown" if state is None else "on" if state else "off"


def disk_taken(
    settings: Settings, bundle: Bundle, shapes: Sequence[Shape], files: RunFiles
) -> Iterator[str]:
    """What the run may take, and a warning where less is free."""
    need = disk_needed(
        shapes,
        frames=bundle.kind == "frames",
        packed=files.packed,
        compat=settings.compat_tables,
        sequences=settings.write,
        parquet=settings.parquet,
        embeddings=settings.save_embeddings,
    )
    there = sum(path.stat().st_size for path in files.blocks.iterdir())
    blocks = max(0, need.blocks - there)
    yield f"this may take up to {max((blocks + need.tables) / 1e6, 0.1):,.1f} MB of disk"
    if sentence := shortage([(files.blocks, blocks), (files.hidden, need.tables)]):
        yield f"warning: {sentence}"


def what_was_found(counts: Counts, files: RunFiles) -> Iterator[str]:
    """The numbers of the tables."""
    yield (
        f"{counts.records:,} records: {counts.virus:,} virus, {counts.others:,} others, "
        f"{counts.none:,} not called, {counts.failed:,} failed"
    )
    yield (
        f"{counts.chunks:,} chunks: {counts.virus_chunks:,} virus, {counts.others_chunks:,} "
        f"others{_not_ok(counts)}"
    )
    if counts.pairs:
        names = f"{files.pairs.name} and {files.viral_names.name}"
        yield f"{counts.pairs:,} pairs: {counts.virus_pairs:,} virus, as {names} have them"
    if counts.regions:
        yield f"viral regions: {counts.regions:,}, on {counts.region_records:,} of the records"
    if counts.incomplete:
        yield f"what could not be processed is listed in {files.failed}"


def _not_ok(counts: Counts) -> str:
    """What stands behind the numbers of calls: chunks whose status is not ok, by status."""
    reasons = [
        f"{number:,} {name.replace('_', ' ')}"
        for name, number in counts.chunk_status.items()
        if number and name != Status.OK.name.lower()
    ]
    return f"; {', '.join(reasons)}" if reasons else ""
