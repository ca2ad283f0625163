"""virnucpro bench."""

import json
from pathlib import Path
from typing import TYPE_CHECKING, Any

import rich_click as click

from virnucpro.cli.json_file import check_json_file
from virnucpro.cli.values import NAME, FilePath

if TYPE_CHECKING:
    from virnucpro.measure.speed import Case, Timing

CASES = "ours, plain, compiled, no streams, not pinned"

COLUMNS = "encoder    size  by            precision     tokens/s  share  attention that ran"


@click.command()
@click.option("--device", type=NAME, default="cpu", show_default=True, help="cpu, cuda or cuda:N.")
@click.option(
    "--encoder",
    "encoders",
    multiple=True,
    type=click.Choice(["esm2", "dnabert_s"]),
    help="One encoder alone; default: both.",
)
@click.option(
    "--esm",
    type=click.Choice(["tiny", "8M", "35M", "150M", "650M", "3B"]),
    help="Size of ESM-2; default: 3B on a GPU, 8M on a CPU.",
)
@click.option(
    "--tokens",
    type=click.IntRange(min=1),
    help="Tokens a repeat; default: 1,000,000 on a GPU, fewer for what is slow, 8,000 on a CPU.",
)
@click.option(
    "--repeats", type=click.IntRange(min=1), default=5, show_default=True, help="Times each."
)
@click.option(
    "--case",
    "cases",
    multiple=True,
    metavar="ENCODER:BY:PRECISION[:ATTENTION]",
    help=f"Only this, may be given again; BY is one of {CASES}.",
)
@click.option("--json", "json_file", type=FilePath(path_type=Path), help="Keep all figures here.")
def bench(
    device: str,
    encoders: tuple[str, ...],
    esm: str | None,
    tokens: int | None,
    repeats: int,
    cases: tuple[str, ...],
    json_file: Path | None,
) -> int:
    """Measure how fast encoders of full size compute here, on random weights.

    Each line is the median of several runs over the same random sequences, from ids to embeddings;
    share is of the rate that a large matrix product had around it; plain is without layers made
    for this kind of device.

    \b
    virnucpro bench --esm 8M
    virnucpro bench --device cuda --case esm2:ours:bf16:flash
    """
    import torch

    from virnucpro.devices.choice import check_present, known_device
    from virnucpro.encoders.attention import BACKENDS
    from virnucpro.measure.speed import Bench, attention_alone, default_cases, machine

    check_present(known_device(device))
    if json_file is not None:
        check_json_file(json_file)
    place = torch.device(device)
    cuda = place.type == "cuda"
    size = esm or ("3B" if cuda else "8M")
    small = "tiny" if size == "tiny" else "117M"
    measured = Bench(place, size, small, tokens or (1_000_000 if cuda else 8_000), repeats)
    wanted = [_case(text) for text in cases] or default_cases(
        place, encoders or ("esm2", "dnabert_s")
    )
    document: dict[str, Any] = {
        "machine": machine(place),
        "esm2": size,
        "dnabert_s": small,
        "readings": [],
    }
    click.echo(" ".join(f"{key}: {value}" for key, value in document["machine"].items()))
    click.echo(COLUMNS)
    for reading in measured.readings(wanted):
        click.echo(line_of(reading))
        document["readings"].append(reading.as_dict())
        _write(json_file, document)
    if not cases:
        kernels = [name for name in BACKENDS if name != "auto"] if cuda else ["sdpa", "math"]
        alone = attention_alone(place, "bf16" if cuda else "fp32", kernels, 20 if cuda else 1)
        document["attention_alone_ms"] = alone
        for encoder, found in alone.items():
            for name, value in found.items():
                text = value if isinstance(value, str) else f"{value:.3f} ms"
                click.echo(f"attention alone, {encoder}, {name}: {text}")
        _write(json_file, document)
    return 0


def _case(text: str) -> "Case":
    from virnucpro.measure.speed import Case

    encoder, by, precision, *attention = [*text.split(":"), "", ""][:4]
    if encoder not in ("esm2", "dnabert_s") or by not in CASES.split(", ") or not precision:
        raise click.BadParameter(
            f"{text!r} is not ENCODER:BY:PRECISION[:ATTENTION]", param_hint="--case"
        )
    return Case(encoder, by, precision, attention[0] or "auto")


def line_of(reading: "Timing") -> str:
    """Return a reading as a line of the table."""
    case = reading.case
    head = f"{case.encoder:10} {reading.size:5} {case.by:13} {case.precision:9}"
    if reading.refused:
        return f"{head} {case.attention}: {reading.refused}"
    share = reading.tflops / reading.peak_tflops
    ran = ", ".join(reading.kernels) or "its own choice"
    return f"{head} {reading.tokens_per_s:12,.0f} {share:6.1%}  {ran} ({case.attention})"


def _write(path: Path | None, document: dict[str, Any]) -> None:
    if path is not None:
        path.write_text(json.dumps(document, indent=1), "utf-8")
