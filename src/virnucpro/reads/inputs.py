"""The inputs that a user named, and what a run says of them: in its log, and in run.json."""

import re
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path

from virnucpro.errors import InputError
from virnucpro.progress import several
from virnucpro.reads import STDIN, Reading, Source, decoded, holds_records, open_sources
from virnucpro.reads.estimate import Shape

# s_R1.fastq.gz, s_1.fq, s_R1_001.fastq
_FIRST_MATES = re.compile(
    r"(.*[._-]R?)1((?:_\d+)?\.(?:fastq|fq)(?:\.\w+)?)", re.IGNORECASE | re.DOTALL
)
# More names than these are counted.
_NAMED = 10

# Records of so many letters on average are reads, which the bundles of shorter chunks are for.
READS_NT = 300
FOR_LONGER = {"mini-300": "mini-500", "virnucpro-300": "virnucpro-500"}
# mini-500 gives reads the very scores of mini-300, and states the same accuracy of them.
FOR_READS = {"virnucpro-500": "virnucpro-300"}


def open_inputs(
    paths: Sequence[Path],
    sample: str | None,
    reading: Reading,
    results_in: Callable[[Path], set[str]],
    faults: list[InputError] | None = None,
) -> tuple[list[Source], list[str]]:
    """Return the inputs, each folder replaced by the files in it, and a line on each folder.

    Raises InputError that says all that is wrong with them, as far as their first records tell, if
    one of them cannot even be opened. results_in: names what runs have written into a folder,
    which is not an input. faults: takes the errors instead, and the other inputs are opened.
    """
    found: list[InputError] = [] if faults is None else faults
    files, notes = _files_in(paths, results_in, found)
    sources = open_sources(files, sample, reading, found)
    if found and faults is None:
        shapes_of(sources, found)
        raise InputError.of(found)
    return sources, notes


def shapes_of(
    sources: Sequence[Source], faults: list[InputError], chunk_nt: int = 1
) -> list[Shape]:
    """Return what each input that is not a pipe holds, from a look at its head.

    faults: takes the errors that end a run once it reads such an input. chunk_nt: the
    length of a chunk, on which only the numbers of chunks depend.
    """
    shapes: list[Shape] = []
    for source in sources:
        if not source.streamed:
            try:
                shapes.append(Shape.of(source, chunk_nt))
            except InputError as error:
                error.__cause__ = error.__context__ = None
                # Its frames hold the reader, and htslib's thread with it.
                faults.append(error.with_traceback(None))
    return shapes


def _files_in(
    paths: Sequence[Path], results_in: Callable[[Path], set[str]], faults: list[InputError]
) -> tuple[list[Path], list[str]]:
    """Return the paths, each folder replaced by its sequence files by name; a line on each folder.

    What runs have written there is not an input: a folder of nothing else is passed over, as a
    pattern of the shell names it beside others. faults: takes one for each folder without
    sequences, and for each that cannot be read.
    """
    files: list[Path] = []
    notes: list[str] = []
    of_runs: list[InputError] = []
    for path in paths:
        if path == STDIN or not path.is_dir():
            files.append(path)
            continue
        try:
            there = sorted(each for each in path.iterdir() if not each.name.startswith("."))
            written = results_in(path)
            others = [each for each in there if each.name not in written]
            taken = [each for each in others if each.is_file() and _is_input(each, faults)]
        except OSError as error:
            faults.append(InputError(f"cannot be read ({error.strerror}); check it", path))
            continue
        if taken:
            names = [decoded(each.name) for each in others if each not in set(taken)]
            more = f" and {len(names) - _NAMED} more" if len(names) > _NAMED else ""
            passed = f"; passed over: {', '.join(names[:_NAMED])}{more}" if names else ""
            own = f"; {len(there) - len(others)} that runs here wrote left out" if written else ""
            entries = "entry" if len(there) == 1 else "entries"
            files_of = f"{several(len(taken), 'file')} of sequences of {len(there)} {entries}"
            notes.append(f"{path}: {files_of}{own}{passed}")
            files += taken
        elif written:
            said = "this folder holds a run of virnucpro, and its results are not an input"
            notes.append(f"{path}: {said}; passed over")
            of_runs.append(InputError(f"{said}; to classify one of them, name the file", path))
        else:
            folders = [decoded(each.name) for each in there if each.is_dir()][:_NAMED]
            deeper = f"; folders in it, as {folders[0]}, are not looked into" if folders else ""
            said = f"there is no file of sequences in this folder{deeper}; name one that has some"
            faults.append(InputError(said, path))
    if not files:
        faults += of_runs
    return files, notes


def _is_input(path: Path, faults: list[InputError]) -> bool:
    """Return whether a file of a folder is one of sequences, and can be read."""
    try:
        return holds_records(path)
    except InputError as error:
        faults.append(error)
        return False


def opening_lines(sources: Sequence[Source]) -> list[str]:
    """Return a line on each input that is going to be read."""
    most = sources[0].reading.max_records
    part = "" if most is None else f", of which {several(most, 'record')} at most"
    lines: list[str] = []
    for source in sources:
        names = " and ".join(str(file.path) for file in source.files)
        size = "a pipe" if source.streamed else f"{source.size_bytes:,} bytes"
        lines.append(f"reading {names} as sample {source.sample}, {size}{part}")
    if mates := [*_named_as_mates(sources)]:
        (one, other), more = mates[0], len(mates) - 1
        such = (
            f", and so {'is' if more == 1 else 'are'} {several(more, 'more pair')}" if more else ""
        )
        lines.append(
            f"{one} and {other} are named as mates and read as two samples{such}; to read pairs, "
            "give the second file with --mates, or both in a --sample-sheet; --unpaired says that "
            "they are meant so"
        )
    return lines


def _named_as_mates(sources: Sequence[Source]) -> Iterator[tuple[str, str]]:
    """Yield the paths of two inputs, a file each, that are named like first and second mates."""
    paths = {str(source.path) for source in sources if len(source.files) == 1}
    for path in sorted(paths if sources[0].reading.pairs == "auto" else ()):
        found = _FIRST_MATES.fullmatch(path)
        if found and (other := f"{found[1]}2{found[2]}") in paths:
            yield path, other


def closing_lines(sources: Sequence[Source]) -> Iterator[list[str]]:
    """Yield lines on what of each input is not in the tables or was read as something else."""
    yield [_alignments(source) for source in sources if source.left_out is not None]
    yield [f"warning: {path}: {told}" for source in sources for path, told in source.warnings]
    yield [
        f"{source.path}: only its first {source.seen.records // len(source.files):,} records"
        f"{' and their mates' if len(source.files) > 1 else ''} were read, as --max-records asks; "
        "these results are not those of the whole"
        for source in sources
        if not source.whole
    ]
    empty = [source for source in sources if source.sha256 and not source.seen.records]
    if len(empty) == len(sources):
        yield ["warning: no record was read, so every table has its header alone"]
    else:
        yield [f"warning: {source.path}: no record was read" for source in empty]
    yield list(_without_effect(sources))
    if any(source.rna for source in sources):
        yield ["there are letters U (RNA), which were read as T"]


def _alignments(source: Source) -> str:
    read, left_out = source.seen.records, source.left_out or {}
    counts = [f"{n:,} {name.replace('_', '-')}" for name, n in left_out.items()]
    return (
        f"{source.path}: {read + sum(left_out.values()):,} alignments, of which {read:,} were "
        f"read; left out: {', '.join(counts)}"
    )


def _without_effect(sources: Sequence[Source]) -> Iterator[str]:
    """Yield lines on settings of the reading that were given and are for other formats."""
    reading = sources[0].reading
    forms = [file.form for source in sources for file in source.files]
    if not all(forms):  # one broke off before it was known
        return
    if reading.reference is not None and not any(form.startswith("CRAM") for form in forms):
        yield "--reference changes nothing: no input is a CRAM"
    if reading.read_groups and not any(form.startswith(("BAM", "CRAM", "SAM")) for form in forms):
        yield f"--read-groups changes nothing: {sources[0].path} is {forms[0]}, which has none"


def other_bundle(name: str, records: float, letters: float) -> str | None:
    """Return which bundle suits this many records and letters, if not `name`, which is in use."""
    if not records:
        return None
    mean_nt = letters / records
    alias = name.rpartition("-v")[0] or name
    others = FOR_LONGER if mean_nt > READS_NT else FOR_READS
    if alias not in others:
        return None
    other = others[alias]
    return (
        f"records are of {mean_nt:,.0f} nt on average: {other} would suit them better, which is "
        f"made for chunks of {other.rpartition('-')[2]} nt and states its accuracy on such"
    )
