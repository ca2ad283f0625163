"""A bundle's manifest as tables for a person."""

from collections.abc import Iterator, Mapping, Sequence
from typing import TYPE_CHECKING, Any

from rich.table import Table
from rich.text import Text

from virnucpro.cli.terminal import tables_in_parts
from virnucpro.progress import WARNING, escaped

if TYPE_CHECKING:
    from virnucpro.bundle.catalogue import Known
    from virnucpro.bundle.download import Placed
    from virnucpro.bundle.manifest import Bundle

Manifest = Mapping[str, Any]
# What few will read to its end.
LAST = ("calibration", "training")
MEANS = " A longer sequence, whose score is a mean, rarely reaches a high threshold."
# The two thresholds of a bundle with a calibration.
RECORDS, CHUNKS = "threshold of records", "threshold of chunks"
# What everybody should know of a bundle, and the columns of its card that say most.
FIRST = (
    "name",
    "description",
    "weights",
    "chunk_nt",
    "threshold",
    *(RECORDS, CHUNKS),
    "validated_nt",
    "path",
    "sha256",
)
OF_CARD = {
    "by_novelty": ("novelty", "viral", "auroc", "recall_at_1pct_fpr"),
    "by_threshold": ("threshold", "recall", "false_positive_rate", "precision_at_1_percent"),
    "by_length": ("length_nt", "auroc", "recall", "false_positive_rate", "at_1_percent_virus"),
    "by_part": ("value", "auroc", "recall", "false_positive_rate"),
}


def known_manifest(known: "Known", places: "Placed | None" = None) -> dict[str, Any]:
    """A model of the catalogue like a manifest: its parts, whose they are, and where they go."""
    head = known.head
    about = {
        "name": known.name,
        "description": known.description,
        "chunk_nt": known.chunk_nt,
        "megabytes": megabytes(known.size_bytes),
        "accuracy": "not measured by this project, which never had these weights",
    }
    parts: dict[str, Any] = {
        "head": {
            "origin": head.origin,
            "licence": head.licence,
            "address": head.url,
            "git_blob": head.git_blob,
        }
    }
    for encoder in known.encoders:
        parts[encoder.part] = {
            "origin": encoder.origin,
            "licence": encoder.licence,
            "revision": encoder.revision,
            "files": [
                {
                    "file": file.name,
                    "megabytes": megabytes(file.size_bytes),
                    "sha256": file.sha256 or "not known; pinned by the revision",
                }
                for file in encoder.files
            ],
        }
    if places is None:
        about["status"] = f"not here; fetch it with `virnucpro bundles download {known.name}`"
    else:
        parts["head"]["goes to"] = str(places.bundle)
        for encoder in known.encoders:
            parts[encoder.part]["goes to"] = str(places.folder(encoder))
    return {**about, **parts}


def contents(bundle: "Bundle") -> dict[str, Any]:
    """The files of a bundle, and of its encoders too, with their sizes as they lie there."""
    from virnucpro.bundle.verify import listed_files

    rows, total = [], 0
    for path, sha256 in listed_files(bundle):
        try:
            size_bytes = path.stat().st_size
        except OSError:
            size_bytes = None
        total += size_bytes or 0
        size = "missing" if size_bytes is None else megabytes(size_bytes)
        name = path.relative_to(bundle.path) if path.is_relative_to(bundle.path) else path
        rows.append({"file": str(name), "megabytes": size, "sha256": sha256})
    return {"megabytes": megabytes(total), "files": rows}


def megabytes(size_bytes: int | None) -> str:
    """A size in MB, small ones to the kB."""
    if size_bytes is None:
        return "not known"
    return f"{size_bytes / 1e6:,.{1 if size_bytes >= 1e6 else 3}f}"


def essentials(manifest: Manifest, width: int) -> Iterator[Table | Text]:
    """Yield what a bundle is and how well it does; without a measurement, all but its training."""
    manifest = _thresholds_named(manifest)
    card = manifest.get("card", {})
    if "fixed_fragments" not in card:
        short = {name: value for name, value in manifest.items() if name not in LAST}
        yield from card_tables(short, width)
        yield from _calibrated(manifest, width)
        if "accuracy" not in manifest:  # of one that can be fetched it is said there
            yield Text(escaped(_unmeasured(manifest)))
        if any(name in manifest for name in LAST):
            yield Text("How it was trained: --all, or --json for programs.")
        return
    yield next(card_tables({name: manifest[name] for name in FIRST if name in manifest}, width))
    yield from _calibrated(manifest, width)
    short = {"measured_on": card.get("measured_on", "")}
    for name in ("fixed_fragments", "expected_precision"):
        part = card.get(name)
        short |= {name: part} if isinstance(part, Mapping) else {}
    for name, columns in OF_CARD.items():
        rows = [row for row in card.get(name, ()) if row.get("part", "group") == "group"]
        if name == "by_novelty":
            rows = [row for row in rows if row["length_nt"] == manifest["chunk_nt"]]
        short |= {name: [{n: row[n] for n in columns if n in row} for row in rows]} if rows else {}
    yield from _part("card", short, width)
    warnings = [WARNING + escaped(str(sentence)) for sentence in card.get("warnings", ())]
    last = "Sources, training and files: --all, or --json for programs."
    yield Text("\n".join([*warnings, *_two_draws(card, "calibration" in manifest), last]))


def _thresholds_named(manifest: Manifest) -> Manifest:
    """Return a manifest with both thresholds beside each other, if records have their own."""
    of_records = manifest.get("calibration")
    if not isinstance(of_records, Mapping) or "threshold" not in of_records:
        return manifest
    named: dict[str, Any] = {}
    for name, value in manifest.items():
        if name == "threshold":
            named |= {RECORDS: of_records["threshold"], CHUNKS: value}
        else:
            named[name] = value
    return named


def _unmeasured(manifest: Manifest) -> str:
    """Say what is known of a bundle without a measurement: how it did on its training's slice."""
    measure = "`virnucpro evaluate` does that on your data"
    training = manifest.get("training")
    held_out = training.get("slice_auroc") if isinstance(training, Mapping) else None
    if not held_out:
        return f"Nothing was measured of it; {measure}."
    if isinstance(held_out, Mapping):
        by_length = [f"{in_line(area)} at {length} nt" for length, area in held_out.items()]
        held_out = ", ".join(by_length)
    return (
        f"AUROC on what its training held out: {in_line(held_out)}. Nothing else was measured of "
        f"it; {measure}."
    )


def _calibrated(manifest: Manifest, width: int) -> Iterator[Table | Text]:
    """Yield what calls of records are worth, by their length, as the calibration was measured."""
    found = manifest.get("calibration", {})
    if not isinstance(found, Mapping) or not found.get("by_length"):
        return
    names = ["records", "calibration_error", "recall", "false_positive_rate"]
    names += [f"right_at_{share}_percent" for share in (1, 10, 50)]
    rows = [
        {"length": row["length"], **{n: row[n] for n in names if n in row}}
        for row in found["by_length"]
    ]
    title = f"records called virus at p_virus >= {found['threshold']:g}, by length"
    yield from _rows(title, rows, width)
    yield Text(
        "records: windows of sequences, up to 25 of a unit, so that a few sequences that look "
        "viral may count often.\n"
        "right_at_N_percent: share of the calls that are right where N % of the records are viral."
    )


def _two_draws(card: Manifest, calibrated: bool) -> Iterator[str]:
    """Yield why two tables of a card give two numbers for one length and threshold.

    calibrated: whether records have another score than the mean of their chunks.
    """
    if not {"fixed_fragments", "by_threshold", "by_length"} <= card.keys():
        return
    fragments = card["fixed_fragments"].get("viral", 0) + card["fixed_fragments"].get("others", 0)
    yield (
        f"fixed_fragments, by_threshold and by_part are of {fragments:,} fixed fragments of the "
        "chunk length; by_length is of others, drawn for each length, so they differ a little."
        + MEANS
        * (not calibrated)
    )


def card_tables(manifest: Manifest, width: int) -> Iterator[Table | Text]:
    """Yield first what the bundle is, then every table of its card, for paper of this width."""
    manifest = _thresholds_named(manifest)
    top = Table(box=None, show_header=False)
    for name, value in manifest.items():
        if not isinstance(value, Mapping) and not _is_rows(value):
            top.add_row(Text(escaped(name)), _folding(value))
    yield top
    yield from _calibrated(manifest, width)
    parts = {name: value for name, value in manifest.items() if isinstance(value, Mapping)}
    for name in sorted(parts.keys() - {"files"}, key=lambda name: (name in LAST, name)):
        yield from _part(name, parts[name], width)
        if name == "card":
            yield from map(Text, _two_draws(parts[name], "calibration" in manifest))


def _part(title: str, part: Manifest, width: int) -> Iterator[Table]:
    rows = {name: value for name, value in part.items() if not _is_table(value)}
    if rows:
        table = Table(title=Text(escaped(title)), box=None, show_header=False, title_justify="left")
        for name, value in rows.items():
            table.add_row(Text(escaped(name)), _folding(value))
        yield table
    for name, value in part.items():
        if _is_rows(value):
            yield from _rows(f"{title}: {name}", value, width)
        elif isinstance(value, Mapping):
            yield from _part(f"{title}: {name}", value, width)


def _rows(title: str, rows: Sequence[Manifest], width: int) -> Iterator[Table]:
    columns = list(dict.fromkeys(name for row in rows for name in row))
    cells = [[in_line(row.get(name, "")) for name in columns] for row in rows]
    repeated = len({"part", "value"} & {*columns[:2]}) or 1
    yield from tables_in_parts(columns, cells, width, title=title, repeated=repeated)


def _is_rows(value: object) -> bool:
    return isinstance(value, list) and bool(value) and all(isinstance(v, Mapping) for v in value)


def _is_table(value: object) -> bool:
    return isinstance(value, Mapping) or _is_rows(value)


def _folding(value: object) -> Text:
    """A value that may be longer than its column: a sha256 must not end in dots."""
    return Text(escaped(in_line(value)), overflow="fold")


def in_line(value: object) -> str:
    """A value in one line."""
    if isinstance(value, bool):
        return "yes" if value else "no"
    if isinstance(value, float):
        return f"{value:.4g}"
    if isinstance(value, int):
        return f"{value:,}"
    if isinstance(value, Mapping):
        return ", ".join(f"{name} {in_line(item)}" for name, item in value.items())
    if isinstance(value, list):
        return ", ".join(in_line(item) for item in value)
    return str(value)
