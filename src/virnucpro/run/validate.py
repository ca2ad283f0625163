"""The work of `virnucpro validate`: what predict would do with an input, without a score."""

from collections.abc import Iterator
from dataclasses import asdict, dataclass, field
from typing import Any, assert_never

import numpy as np
from numpy.typing import NDArray

from virnucpro.blocks import Block, Texts, blocks_of
from virnucpro.bundle.manifest import Bundle
from virnucpro.calls import STATUS_NAMES, Status
from virnucpro.classifiers.chunk_status import chunk_status
from virnucpro.errors import InputError, StreamBroken
from virnucpro.frames import letter_codes, open_frames_of
from virnucpro.reads import Contig, Source, are_pair
from virnucpro.reads.files import Reading
from virnucpro.reads.inputs import open_inputs
from virnucpro.run.directory import written_in
from virnucpro.run.negatives import OPTION, UNSCORED, Negatives
from virnucpro.run.pipeline import contigs_of, limited
from virnucpro.run.settings import Settings

NAMED = 5


@dataclass(slots=True)
class Inspection:
    """One input: counts of its records and chunks, and what is wrong with it.

    mates: the second file. sample: None where the input could not be opened. short: records of
    fewer letters than asked for; pairs: rows that pairs.tsv would have, of which without_mate lack
    one. chunk_status counts chunks by the status that predict would give them; open_frames is None
    for bundles that score whole chunks. shortest_nt, longest_nt: of the records that have letters.
    faults: the first few sentences, of faulty records in all. broken: why the input ends early or
    is refused. warning: what is odd about the end of its file, or that no negative has a score.
    negatives: whether this is the file of --negatives, whose sample is None where it is refused.
    """

    path: str
    mates: str | None
    sample: str | None
    records: int = 0
    empty: int = 0
    short: int = 0
    pairs: int = 0
    without_mate: int = 0
    faulty: int = 0
    bases: int = 0
    shortest_nt: int | None = None
    longest_nt: int | None = None
    chunks: int = 0
    chunk_status: dict[str, int] = field(default_factory=dict)
    open_frames: int | None = None
    faults: list[str] = field(default_factory=list)
    broken: str | None = None
    warning: str | None = None
    negatives: bool = False

    @property
    def exit_code(self) -> int:
        """The exit code that predict would end with for this input alone."""
        if self.broken:
            return 1
        return 2 if self.faulty and not self.negatives else 0  # which has no row for a failure

    def as_dict(self) -> dict[str, Any]:
        """Return plain values for JSON."""
        return asdict(self)


def inspect(settings: Settings, bundle: Bundle) -> tuple[list[Inspection], list[str]]:
    """Reads every input to its end; with them a line on each folder among the inputs.

    Inputs that cannot be opened come last. Raises SettingsError, and InputError for options that do
    not go with the inputs.
    """
    settings.check()
    reading = settings.reading
    faults: list[InputError] = []
    sources, notes = open_inputs(settings.inputs, reading.sample, reading, written_in, faults)
    closed = [Inspection(str(e.path), None, None, broken=str(e)) for e in faults]
    return [*(_inspect(source, bundle, reading) for source in sources), *closed], notes


def inspect_negatives(settings: Settings, bundle: Bundle) -> Inspection | None:
    """Reads the file of --negatives to its end, by the rules of predict; None if none is named."""
    outputs, code = settings.outputs, settings.scoring.genetic_code
    if outputs.negatives is None:
        return None
    found = Inspection(str(outputs.negatives), None, None)
    try:
        if negatives := Negatives.of(outputs, settings.reading, code):
            found = _inspect(negatives.source, bundle, negatives.reading)
            found.broken = found.broken and f"{OPTION} {found.broken}"
    except InputError as error:
        found.broken = str(error)
    found.negatives = True
    scored = any(STATUS_NAMES[status] in found.chunk_status for status in Status if status.called)
    if not (found.broken or scored):
        found.warning = "; ".join(filter(None, (found.warning, UNSCORED)))
    return found


def _inspect(source: Source, bundle: Bundle, reading: Reading) -> Inspection:
    mates = [str(file.path) for file in source.files[1:]]
    found = Inspection(str(source.path), mates[0] if mates else None, source.sample)
    broken: list[StreamBroken] = []
    contigs = limited(contigs_of([source], broken), reading)
    status = np.zeros(len(Status), np.int64)
    frames = 0
    try:
        for block in blocks_of(_counted(contigs, found), bundle.chunk_nt, bundle.block_nt):
            of_block, open_frames = _status(block, bundle)
            status += np.bincount(of_block, minlength=len(Status))
            frames += open_frames
        found.broken = str(broken[0]) if broken else None
        found.warning = "; ".join(told for _, told in source.warnings) or None
    except InputError as error:
        found.broken = str(error)
    found.chunk_status = {STATUS_NAMES[s]: int(status[s]) for s in Status if status[s]}
    found.chunks = int(status.sum())
    found.open_frames = frames if bundle.kind == "frames" else None
    return found


def _counted(contigs: Iterator[Contig], found: Inspection) -> Iterator[Contig]:
    last: Contig | None = None  # without its letters
    for contig in contigs:
        length_nt = len(contig.sequence)
        found.records += 1
        found.short += contig.short
        if last is not None and are_pair(last, contig):
            found.without_mate -= 1
            last = None
        else:
            found.pairs += contig.mate > 0
            found.without_mate += contig.mate > 0
            last = contig._replace(sequence=b"") if contig.mate else None
        found.bases += length_nt
        found.empty += not (length_nt or contig.fault)
        if contig.fault:
            found.faulty += 1
            if len(found.faults) < NAMED:
                found.faults.append(f"record {contig.record} ({contig.name}): {contig.fault}")
        elif length_nt:
            found.shortest_nt = min(length_nt, found.shortest_nt or length_nt)
            found.longest_nt = max(length_nt, found.longest_nt or 0)
        yield contig


def _status(block: Block, bundle: Bundle) -> tuple[NDArray[np.uint8], int]:
    """Status of a block's chunks, and how many open frames they have."""
    length_nt = block.rows.length_nt
    match bundle.kind:
        case "frames":
            frames = open_frames_of(block.text, block.offset, length_nt)
            status = np.full(len(length_nt), Status.NO_OPEN_FRAME, np.uint8)
            status[frames.chunk] = Status.OK
            return status, len(frames.chunk)
        case "chunks" | "kmer":
            codes, texts = letter_codes(block.text), Texts.of_block(block)
            return chunk_status(codes, texts, bundle.min_nt, bundle.validated_nt), 0
        case unknown:
            assert_never(unknown)
