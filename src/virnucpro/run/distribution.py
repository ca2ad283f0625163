"""Which runner computes a run: here, on several devices of this host, or on a running cluster."""

from dataclasses import replace
from typing import TYPE_CHECKING

from virnucpro.bundle import load
from virnucpro.bundle.prescreen import Prescreen
from virnucpro.devices.choice import visible_devices
from virnucpro.run.cluster import LocalWorkers, RunningCluster, check_installed
from virnucpro.run.prepare import Job
from virnucpro.run.runners import LoadedClassifiers, Runner, SerialRunner
from virnucpro.run.settings import Settings

if TYPE_CHECKING:
    from virnucpro.run.dask_runner import DaskRunner


def runner_for(job: Job, loaded: LoadedClassifiers | None) -> Runner:
    """Return the runner of a run on this host. loaded: as of runners.Scorer."""
    compute = job.settings.compute
    if compute.workers is None and len(job.devices) == 1:
        return SerialRunner(job.work, loaded)
    from virnucpro.run.dask_runner import DaskRunner
    from virnucpro.run.dask_worker import Task, named_first

    on_cpu = job.device.kind == "cpu"
    visible = [""] * len(job.devices) if on_cpu else visible_devices(job.devices)
    task = Task(
        bundle=job.settings.bundle,
        sha256=job.bundle.sha256,
        compute=replace(
            compute, gpus="none" if on_cpu else None, workers=None, precision=job.plan.precision
        ),
        workers_a_host=len(job.devices),
        embeddings=job.settings.outputs.save_embeddings,
        first=named_first(job.settings.scoring, job.prescreen),
    )
    return DaskRunner(task, LocalWorkers(visible, job.device.threads))


def running_cluster(settings: Settings) -> "DaskRunner":
    """Return the runner on a running cluster, before it is known what its workers compute with."""
    check_installed("--scheduler")
    from virnucpro.run.dask_runner import DaskRunner
    from virnucpro.run.dask_worker import Task, named_first

    settings.check()
    assert settings.compute.scheduler is not None
    bundle = load(settings.bundle)
    prescreen = Prescreen.of(bundle, settings.scoring, settings.outputs.chunk_threshold(bundle))
    task = Task(
        bundle=settings.bundle,
        sha256=bundle.sha256,
        compute=replace(settings.compute, scheduler=None),
        workers_a_host=1,
        embeddings=settings.outputs.save_embeddings,
        first=named_first(settings.scoring, prescreen),
    )
    return DaskRunner(task, RunningCluster(settings.compute.scheduler))
