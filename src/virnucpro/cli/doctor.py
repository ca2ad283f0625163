"""virnucpro doctor."""

import json
from collections.abc import Sequence

import rich_click as click


@click.command()
@click.option("--json", "as_json", is_flag=True, help="Print JSON.")
def doctor(as_json: bool) -> int:
    """Say what this machine can do, and try whether the package works on it.

    Runs every attention kernel on a small batch, on the CPU and on each GPU, and the embedded
    bundles on three fixed sequences. The first line says whether everything works, the last what to
    try next; exits 1 where something that should work does not.
    """
    from virnucpro.measure.doctor import examine

    findings = [*examine()]
    broken = [finding.topic for finding in findings if finding.broken]
    if as_json:
        click.echo(json.dumps([finding.as_dict() for finding in findings], indent=2))
        return int(bool(broken))
    click.echo(_verdict(broken))
    for finding in findings:
        sign = "BROKEN " if finding.broken else ""
        click.echo(f"{sign}{finding.topic}: {finding.text}")
    click.echo(f"next: {_next(broken)}")
    return int(bool(broken))


def _verdict(broken: Sequence[str]) -> str:
    if not broken:
        return "everything works"
    things = "1 thing is" if len(broken) == 1 else f"{len(broken)} things are"
    return f"{things} broken: {'; '.join(broken)}"


def _next(broken: Sequence[str]) -> str:
    """Return the one command to try, by the topics of what is broken."""
    kernels = [topic for topic in broken if ", attention of " in topic]
    if "torch" in broken:
        return "nvidia-smi"
    if len(kernels) < len(broken):  # a bundle that came with the package
        return "pip install --force-reinstall . # in the folder of the source code"
    predict = "virnucpro predict contigs.fasta -o run"
    if not kernels:
        return predict
    if not any(topic.endswith(", math") for topic in kernels):
        return f"{predict} --attention math"
    if any(topic.startswith("cpu,") for topic in kernels):
        return "pip install --force-reinstall torch"
    return f"{predict} --gpus none"
