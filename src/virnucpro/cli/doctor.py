"""virnucpro doctor."""

import json
from collections.abc import Sequence

import rich_click as click


@click.command()
@click.option("--json", "as_json", is_flag=True, help="Print JSON.")
def doctor(as_json: bool) -> int:
    """Say what this machine can do, and try whether the package works on it.

    Runs every attention kernel on a small batch, on the CPU and on each GPU, and the embedded
    bundles on two fixed sequences. The first line says whether everything works; exits 1
    where something that should work does not.
    """
    from virnucpro.measure.doctor import examine

    findings = list(examine())
    if as_json:
        click.echo(json.dumps([finding.as_dict() for finding in findings], indent=2))
    else:
        click.echo(_verdict([finding.topic for finding in findings if finding.broken]))
        for finding in findings:
            sign = "BROKEN " if finding.broken else ""
            click.echo(f"{sign}{finding.topic}: {finding.text}")
    return int(any(finding.broken for finding in findings))


def _verdict(broken: Sequence[str]) -> str:
    if not broken:
        return "everything works"
    things = "1 thing is" if len(broken) == 1 else f"{len(broken)} things are"
    return f"{things} broken: {'; '.join(broken)}"
