"""What a run says of its inputs: lines for its log, and what run.json holds of each."""

from collections.abc import Iterator, Sequence
from typing import Any

from virnucpro.reads import Source

# Records of so many letters on average are reads, which the bundles of shorter chunks are for.
READS_NT = 300
SHORT_AND_LONG = {"mini-300": "mini-500", "virnucpro-300": "virnucpro-500"}


def opening_lines(sources: Sequence[Source]) -> Iterator[str]:
    """What is going to be read."""
    for source in sources:
        names = " and ".join(str(file.path) for file in source.files)
        size = "a pipe" if source.streamed else f"{source.size_bytes:,} bytes"
        most = source.reading.max_records
        part = "" if most is None else f", of which {most:,} records at most"
        yield f"reading {names} as sample {source.sample}, {size}{part}"


def closing_lines(sources: Sequence[Source]) -> Iterator[str]:
    """What of the inputs is not in the tables, and what was read as something else."""
    for source in sources:
        if source.left_out is not None:
            counts = [f"{n:,} {name.replace('_', '-')}" for name, n in source.left_out.items()]
            there = source.seen.records + sum(source.left_out.values())
            yield (
                f"{source.path}: {there:,} alignments, of which {source.seen.records:,} were read; "
                f"left out: {', '.join(counts)}"
            )
        if not source.whole:
            yield (
                f"{source.path}: only its first {source.seen.records:,} records were read, as "
                "--max-records asks; these results are not those of the whole"
            )
    yield from _without_effect(sources)
    if any(source.rna for source in sources):
        yield "there are letters U (RNA), which were read as T"


def _without_effect(sources: Sequence[Source]) -> Iterator[str]:
    """What of the reading was asked for and is for other formats."""
    reading = sources[0].reading
    forms = [file.form for source in sources for file in source.files]
    if not all(forms):  # one broke off before it was known
        return
    if reading.reference is not None and not any(form.startswith("CRAM") for form in forms):
        yield "--reference changes nothing: no input is a CRAM"
    if reading.read_groups and not any(form.startswith(("BAM", "CRAM", "SAM")) for form in forms):
        yield f"--read-groups changes nothing: {sources[0].path} is {forms[0]}, which has none"


def other_bundle(name: str, records: float, letters: float) -> str | None:
    """Which bundle suits so many records and letters, if another; name: of the one in use."""
    if not records:
        return None
    mean_nt = letters / records
    alias = name.rpartition("-v")[0] or name
    others = SHORT_AND_LONG if mean_nt > READS_NT else {b: a for a, b in SHORT_AND_LONG.items()}
    if alias not in others:
        return None
    other = others[alias]
    return (
        f"records are of {mean_nt:,.0f} nt on average: {other} would suit them better, which is "
        f"made for chunks of {other.rpartition('-')[2]} nt and states its accuracy on such"
    )


def input_entry(source: Source) -> dict[str, Any]:
    """An element of inputs in run.json."""
    mates = [str(file.path) for file in source.files[1:]]
    return {
        "path": str(source.path),
        "mates": mates[0] if mates else None,
        "sample": source.sample,
        "format": source.files[0].form,
        "sha256": source.sha256 or None,
        "bytes": source.bytes_read if source.streamed else source.size_bytes,
        "records": source.seen.records,
        "whole": source.whole and bool(source.sha256),
        "left_out": source.left_out,
    }
