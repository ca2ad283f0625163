"""Annotated genomes -> a training set: labelled chunks whose open frames a CDS confirms.

Two passes over the files, each a record at a time: the first counts, the second writes the chunks
that were drawn. Memory grows with the number of units and with the chunks asked for, not with the
files. The same files, settings and seed give the same set, byte for byte.
"""

import shutil
from collections import Counter, defaultdict
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from virnucpro import __version__
from virnucpro.bundle.write import being_made, check_free
from virnucpro.calls import FRAME_NAMES
from virnucpro.errors import InputError, SettingsError
from virnucpro.progress import WARNING, Position, Progress
from virnucpro.storage.atomic import disk_errors, write_json
from virnucpro.train.annotated import Annotated, Confirmed, confirmed_frames
from virnucpro.train.annotated_files import AnnotatedFile, annotated_files
from virnucpro.train.checks import check_least
from virnucpro.train.near import COVER, SCREEN, K, Near, chosen_search, near_proteins
from virnucpro.train.set_files import PARTS, SIDES, Chunk, SetFiles
from virnucpro.train.units import held_out_units

VIRAL = "viral"
LEFT_OUT = {
    "without_letters": "have no letters (such files name contigs instead)",
    "without_cds": "have no annotated CDS",
    "without_unit": "have no known lineage, and were left out",
}
MANIFEST = "manifest.json"
FORMAT = 1

Stratum = tuple[int, str]


@dataclass(frozen=True, slots=True, kw_only=True)
class SetSettings:
    """The settings of a training set.

    overlap: share of chunk_nt that a frame has in common with a CDS of its strand and phase;
    chunks: most chunks of each side; held_out: share of units for val; identity: of proteins that
    count as near duplicates; search: see near.chosen_search.
    """

    chunk_nt: int = 300
    overlap: float = 0.5
    chunks: int = 500_000
    held_out: float = 0.1
    identity: float = 0.8
    search: str = "auto"
    seed: int = 0

    def __post_init__(self) -> None:
        check_least(self, chunk_nt=3, chunks=2, seed=0)
        for name in ("overlap", "held_out", "identity"):
            if not 0 < (value := getattr(self, name)) <= 1:
                option = f"--{name.replace('_', '-')}"
                raise SettingsError(f"{option} must lie above 0 and not above 1, got {value:g}")
        if self.held_out == 1:
            raise SettingsError("--held-out must lie below 1, or nothing is left to train on")

    @property
    def overlap_nt(self) -> int:
        """The fewest letters of a frame in a CDS."""
        return int(np.ceil(self.overlap * self.chunk_nt))


@dataclass(slots=True)
class _Census:
    """Counts of a first pass: chunks of each unit by label and group, and what was left out."""

    chunks: dict[str, dict[Stratum, int]] = field(
        default_factory=lambda: defaultdict(lambda: defaultdict(int))
    )
    groups: dict[str, Counter[str]] = field(default_factory=lambda: defaultdict(Counter))
    sha256: dict[str, str] = field(default_factory=dict)


@dataclass(slots=True)
class _Draw:
    """The chunks of a unit that are still to come, and how many of them are still to be drawn."""

    left: int
    wanted: int


def make_set(
    inputs: Mapping[str, Sequence[Path]],
    settings: SetSettings,
    out: Path,
    stages: Progress,
    threads: int = 1,
) -> dict[str, Any]:
    """Make a training set in a directory that must be new or empty; return its manifest.

    inputs: files and folders of each group; the group viral is the one side, all others are the
    other. Raises InputError for what cannot be read, and where a side has no confirmed chunk.
    """
    check_free(out)
    search = chosen_search(settings.search)
    files = {
        group: [AnnotatedFile(file) for path in paths for file in annotated_files(path)]
        for group, paths in inputs.items()
    }
    census = _counted(files, settings, stages)
    val = held_out_units(census.chunks, settings.held_out, settings.seed)
    draws = _drawn(census, val, settings)
    with being_made(out), disk_errors(out):
        work = out / ".work"
        shutil.rmtree(work, ignore_errors=True)
        with SetFiles(out, work) as written:
            for chunk in _chosen(files, draws, settings, stages):
                written.add("val" if chunk.unit in val else "train", chunk)
            stages.line(f"looking for near duplicates across the split by {search}")
            near = near_proteins(*written.proteins(), settings.identity, search, work, threads)
            removed = written.finish(near.names)
        shutil.rmtree(work)
        manifest = _manifest(settings, census, near, removed, written)
        write_json(out / MANIFEST, manifest)
    _tell(manifest, out, stages)
    return manifest


def _records(
    files: Mapping[str, Sequence[AnnotatedFile]], stages: Progress, verb: str
) -> Iterator[tuple[str, AnnotatedFile, Annotated]]:
    total, done = sum(map(len, files.values())), 0
    for group, group_files in files.items():
        for file in group_files:
            for number, record in enumerate(file.records(), 1):
                yield group, file, record
                note = f"{verb} {group} {file.path.name}, record {number:,}"
                stages.advance(Position(done, total, note))
            done += 1
            stages.advance(Position(done, total, f"{verb} {group} {file.path.name}"))


def _counted(
    files: Mapping[str, Sequence[AnnotatedFile]], settings: SetSettings, stages: Progress
) -> _Census:
    census = _Census()
    for group, _, record in _records(files, stages, "counting"):
        counts = census.groups[group]
        counts["records"] += 1
        counts["bases"] += len(record.sequence)
        counts["without_letters"] += not record.sequence
        counts["without_cds"] += not record.exons
        counts["without_unit"] += not record.unit
        for found in _confirmed(record, settings):
            chunks = len(np.unique(found.chunk))
            census.chunks[record.unit][int(group == VIRAL), group] += chunks
            counts["confirmed_chunks"] += chunks
    for group, group_files in files.items():
        census.groups[group].update(
            files=0, records=0, confirmed_chunks=0, **dict.fromkeys(LEFT_OUT, 0)
        )
        census.groups[group]["files"] = len(group_files)
        for file in group_files:
            census.sha256 |= {f"{group}/{p}": digest for p, digest in file.sha256.items()}
    for label, side in enumerate(SIDES):
        if not any(counts for counts in _chunks_of(census, label).values()):
            raise InputError(
                f"no chunk of the {side} side has an open frame that an annotated CDS confirms; "
                "give annotated genomes (GenBank, or FASTA with GFF3) of both sides"
            )
    return census


def _confirmed(record: Annotated, settings: SetSettings) -> Iterator[Confirmed]:
    if record.unit:
        yield from confirmed_frames(record, settings.chunk_nt, settings.overlap_nt)


def _chunks_of(census: _Census, label: int) -> dict[str, dict[str, int]]:
    """Return the chunks of each unit of each group of a side."""
    found: dict[str, dict[str, int]] = defaultdict(dict)
    for unit, strata in census.chunks.items():
        for (side, group), chunks in strata.items():
            if side == label:
                found[group][unit] = chunks
    return found


def _drawn(census: _Census, val: set[str], settings: SetSettings) -> dict[tuple[str, str], _Draw]:
    """Return how much to draw of each group and unit: groups alike, and within a group units."""
    draws: dict[tuple[str, str], _Draw] = {}
    for label in range(len(SIDES)):
        groups = _chunks_of(census, label)
        of_val = round(settings.chunks * settings.held_out)
        for total, in_val in ((settings.chunks - of_val, False), (of_val, True)):
            units = {
                g: {u: n for u, n in of.items() if (u in val) == in_val} for g, of in groups.items()
            }
            shares = shared_out({group: sum(of.values()) for group, of in units.items()}, total)
            for group, of in units.items():
                wanted = shared_out(of, shares[group])
                draws |= {(group, unit): _Draw(of[unit], wanted[unit]) for unit in of}
    return draws


def shared_out(have: Mapping[str, int], total: int) -> dict[str, int]:
    """Return how much of total each gives: alike, where one has less the others more.

    >>> shared_out({"a": 1, "b": 9, "c": 9}, 11)
    {'a': 1, 'b': 5, 'c': 5}
    """
    given = {}
    for left, name in zip(
        range(len(have), 0, -1), sorted(have, key=lambda name: (have[name], name)), strict=True
    ):
        given[name] = min(have[name], -(-total // left) if have[name] else 0)
        total -= given[name]
    return given


def _chosen(
    files: Mapping[str, Sequence[AnnotatedFile]],
    draws: Mapping[tuple[str, str], _Draw],
    settings: SetSettings,
    stages: Progress,
) -> Iterator[Chunk]:
    """Yield the chunks drawn, at random and without repeats, in the order of the files."""
    random = np.random.default_rng(settings.seed)
    place_of: dict[str, int] = {}
    for place, (group, file, record) in enumerate(_records(files, stages, "writing")):
        for found in _confirmed(record, settings):
            numbers = np.unique(found.chunk)
            draw = draws.get((group, record.unit), _Draw(0, 0))
            if len(numbers) > draw.left:
                raise InputError("changed while it was read; run the same command again", file.path)
            spared = draw.left - draw.wanted
            count = int(random.hypergeometric(draw.wanted, spared, len(numbers)))
            draw.left -= len(numbers)
            draw.wanted -= count
            if count and place_of.setdefault(record.name, place) != place:
                raise InputError(
                    f"the record {record.name} occurs twice in what was given; give it once",
                    file.path,
                )
            for number in np.sort(random.choice(numbers, count, replace=False)).tolist():
                yield _chunk(group, file, record, found, number)


def _chunk(
    group: str, file: AnnotatedFile, record: Annotated, found: Confirmed, number: int
) -> Chunk:
    rows = np.flatnonzero(found.chunk == number).tolist()
    start, end = int(found.start[rows[0]]), int(found.end[rows[0]])
    return Chunk(
        name=f"{record.name}_chunk_{number + 1}",
        label=int(group == VIRAL),
        group=group,
        source=file.path.name,
        unit=record.unit,
        frames=tuple(FRAME_NAMES[found.frame[row]] for row in rows),
        overlap_nt=tuple(found.overlap_nt[row].item() for row in rows),
        record=record.name,
        start=start,
        end=end,
        organism=record.organism,
        letters=record.sequence[start:end],
        proteins=tuple(found.protein[row] for row in rows),
    )


def _manifest(
    settings: SetSettings,
    census: _Census,
    near: Near,
    removed: Mapping[str, int],
    written: SetFiles,
) -> dict[str, Any]:
    parts: dict[str, dict[str, dict[str, Any]]] = {part: {} for part in PARTS}
    for (part, side, group), counts in sorted(written.counts.items()):
        parts[part].setdefault(side, {})[group] = dict(counts)
    return {
        "format": FORMAT,
        "virnucpro": __version__,
        "settings": asdict(settings) | {"overlap_nt": settings.overlap_nt},
        "split": "by unit: of viruses the family, of others the genus",
        "frames": "open by the standard code, and of the strand and phase of an annotated CDS on "
        "overlap_nt letters or more",
        "near_duplicates": {
            "search": near.search,
            "version": near.version,
            "rule": _rule(near.search, settings.identity),
            "removed_from_val": dict(removed),
        },
        "inputs": {group: dict(counts) for group, counts in census.groups.items()},
        "inputs_sha256": census.sha256,
        "parts": parts,
        "files_sha256": written.sha256,
    }


def _rule(search: str, identity: float) -> str:
    if search == SCREEN:
        return f"{identity**K:.3f} or more of its 9-mers occur in proteins of train"
    return f"{identity:g} or more identical over {COVER:g} or more of it to a protein of train"


def _tell(manifest: Mapping[str, Any], out: Path, stages: Progress) -> None:
    for group, counts in manifest["inputs"].items():
        for what, why in LEFT_OUT.items():
            if counts[what]:
                stages.line(f"{group}: {counts[what]:,} of {counts['records']:,} records {why}")
    for part, sides in manifest["parts"].items():
        for side in SIDES:
            groups = sides.get(side, {})
            chunks = sum(counts["chunks"] for counts in groups.values())
            told = ", ".join(
                f"{group} {counts['chunks']:,} of {counts['units']:,} units"
                for group, counts in groups.items()
            )
            stages.line(f"{part}, {side}: {chunks:,} chunks ({told or 'none'})")
            if not chunks:
                stages.line(f"{WARNING}{part} has no {side} chunk; give more units of that side")
    near = manifest["near_duplicates"]
    program = " ".join(filter(None, (near["search"], near["version"])))
    gone = ", ".join(f"{count:,} {side}" for side, count in near["removed_from_val"].items())
    stages.line(f"near duplicates by {program} ({near['rule']}): removed from val {gone}")
    stages.line(f"wrote {out}")
