"""A run before anything is written: bundle, inputs, device, plan and fingerprint."""

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import TYPE_CHECKING

from virnucpro.bundle import load
from virnucpro.bundle.card import about_bundle
from virnucpro.bundle.manifest import Bundle
from virnucpro.bundle.prescreen import Prescreen
from virnucpro.classifiers.plan import Plan, plan_of
from virnucpro.classifiers.prefetch import workers_for
from virnucpro.devices.choice import devices_for
from virnucpro.devices.compute import Compute
from virnucpro.devices.machine import (
    Device,
    cpu_count,
    cpu_name,
    device_name,
    gpu_count,
    use_threads,
)
from virnucpro.devices.memory import use_expandable_segments
from virnucpro.errors import BundleError, ResumeError
from virnucpro.reads import Source
from virnucpro.reads.inputs import open_inputs
from virnucpro.results.files import RunFiles
from virnucpro.results.record import now
from virnucpro.results.run_schema import fault_of_bundle
from virnucpro.run.cluster import check_installed
from virnucpro.run.directory import written_in
from virnucpro.run.fingerprint import fingerprint_of
from virnucpro.run.negatives import Negatives
from virnucpro.run.runners import Work
from virnucpro.run.settings import Settings

if TYPE_CHECKING:
    from virnucpro.run.dask_worker import Identity


@dataclass(frozen=True, slots=True)
class Job:
    """A run as it was asked for and comes to on this machine.

    devices: cpu or cuda:N, one a worker where there are several. compute: resolved for a device.
    prefetch: workers that prepare blocks ahead. notes: sentences on the inputs. negatives: the
    user's own. prescreen: the bundle that looks first.
    """

    settings: Settings
    bundle: Bundle
    sources: Sequence[Source]
    notes: Sequence[str]
    device: Device
    devices: Sequence[str]
    plan: Plan
    compute: Compute
    prefetch: int
    files: RunFiles
    fingerprint: dict[str, str]
    started: datetime
    negatives: Negatives | None = None
    prescreen: Prescreen | None = None

    @property
    def threshold(self) -> float:
        """The p_virus at which records are cut."""
        return self.settings.outputs.record_threshold(self.bundle)

    @property
    def chunk_threshold(self) -> float:
        """The p_virus at which chunks are cut."""
        return self.settings.outputs.chunk_threshold(self.bundle)

    @property
    def sizes(self) -> tuple[int, int, int]:
        """The sizes of a chunk, a block and the first block, as blocks.blocks_of takes them."""
        return self.bundle.chunk_nt, self.plan.block_nt, self.plan.first_nt

    @property
    def work(self) -> Work:
        """The work, as a runner needs to know it."""
        embeddings = self.settings.outputs.save_embeddings
        return Work(self.bundle, self.plan, self.compute, self.prefetch, embeddings, self.prescreen)

    @property
    def prefetches(self) -> bool:
        """Return whether blocks are prepared ahead of the device."""
        return self.bundle.kind == "frames" and self.prescreen is None

    @property
    def streamed(self) -> bool:
        """Return whether an input comes through a pipe."""
        return any(source.streamed for source in self.sources)


def prepare(settings: Settings, remote: "Identity | None" = None) -> Job:
    """Return a run, ready to be started. Nothing is written yet.

    remote: what the workers of a running cluster compute with. Raises SettingsError, BundleError,
    InputError, DeviceError, and ResumeError where an input has the name of a result.
    """
    started = now()
    settings.check()
    bundle = load(settings.bundle)
    if fault := fault_of_bundle(about_bundle(bundle)):
        raise BundleError(
            f"{bundle.path}: its manifest or card cannot be used ({fault}); make the bundle again"
        )
    settings.check_for(bundle)
    prescreen = Prescreen.of(bundle, settings.scoring, settings.outputs.chunk_threshold(bundle))
    reading, compute = settings.spooling, settings.compute
    sources, notes = open_inputs(settings.inputs, reading.sample, reading, written_in)
    files = settings.files
    negatives = Negatives.of(settings.outputs, settings.reading, settings.scoring.genetic_code)
    _refuse_inputs_as_results([*sources, *([negatives.source] if negatives else [])], files)
    if remote is not None:
        plan = remote.plan
        device = Device(plan.device, remote.device_name, remote.threads)
        devices = [plan.device]
    else:
        devices = _devices(bundle, compute)
        if compute.workers or len(devices) > 1:
            check_installed("--workers" if compute.workers else "--gpus with several")
        device = _device(bundle, devices, compute)
        plan = plan_of(bundle, device.index, compute.precision, compute.attention)
        if prescreen is not None:
            plan = prescreen.plan(plan, compute.attention)
    prefetch = 0
    if bundle.kind == "frames" and prescreen is None:
        gpus = gpu_count() if device.kind == "cuda" else 0
        prefetch = workers_for(device.kind, gpus, cpu_count(), compute.dataloader_workers)
    return Job(
        settings=settings,
        bundle=bundle,
        sources=sources,
        notes=notes,
        device=device,
        devices=devices,
        plan=plan,
        compute=compute.on(device.index),
        prefetch=prefetch,
        files=files,
        fingerprint=fingerprint_of(bundle, plan, reading, prescreen, settings.scoring.genetic_code),
        started=started,
        negatives=negatives,
        prescreen=prescreen,
    )


def _refuse_inputs_as_results(sources: Sequence[Source], files: RunFiles) -> None:
    """Raise ResumeError if an input lies where a file of the run would replace it."""
    replaced = {path.resolve() for path in (*files.results, *files.public)}
    for path in (file.path for source in sources for file in source.files):
        if path.resolve() in replaced:
            raise ResumeError(
                f"{path}: this input has the name of a file that the run would write; choose "
                "another folder with -o"
            )


def _devices(bundle: Bundle, compute: Compute) -> list[str]:
    """Return the device of each worker."""
    if bundle.kind == "kmer" or compute.workers:
        return ["cpu"] * (compute.workers or 1)
    return devices_for(compute.gpus)


def _device(bundle: Bundle, devices: Sequence[str], compute: Compute) -> Device:
    """Return where a run computes; the k-mer model uses one thread and loads no torch."""
    if bundle.kind == "kmer":
        return Device("cpu", cpu_name(), 1)
    if compute.expandable_segments:
        use_expandable_segments()
    threads = compute.threads
    if compute.workers and threads is None:
        threads = max(1, cpu_count() // compute.workers)
    return Device(devices[0], device_name(devices[0]), use_threads(threads))
