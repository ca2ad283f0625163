"""Entries of mates, brought together and checked. Knows no format."""

import shlex
from pathlib import Path

from virnucpro.errors import InputError, StreamBroken
from virnucpro.reads.contig import Contig, Entries, Entry, template_of

# So many records without their mate beside them are remembered, to notice it elsewhere.
REMEMBERED = 50_000


def alternating(first: Entries, second: Entries, paths: tuple[Path, Path]) -> Entries:
    """The mates of two files by turns: the first of one, the first of the other, and so on.

    Raises StreamBroken, after all pairs before, where a file ends before the other, or two records
    have names that are not names of mates; InputError where the first two have such names, or one
    file has no record at all.
    """
    number = 0
    for one in first:
        number += 1
        other = next(second, None)
        if other is None:
            raise _ended(number, one, paths[0], paths[1])
        if not _are_mates(one, other):
            if number == 1 and _are_mates(other, one):
                raise _swapped(one, other, paths)
            raise _not_mates(
                f"{_named(number, one)} and {_named(number, other)} of {paths[1]} are not mates by "
                "their names; give two files with the mates in the same order",
                number,
                paths[0],
            )
        yield *one[:3], 1, one[4]
        yield *other[:3], 2, other[4]
    if (other := next(second, None)) is not None:
        raise _ended(number + 1, other, paths[1], paths[0])


def interleaved(entries: Entries, path: Path) -> Entries:
    """Entries of which each two that follow each other are mates. Raises as alternating does."""
    number = 1
    for one in entries:
        other = next(entries, None)
        if other is None:
            raise _alone(number, one, path, "the file ends there")
        if not _are_mates(one, other):
            these = f"{_named(number, one)} and {_named(number + 1, other)}"
            raise _not_mates(
                f"{these} are mates in the wrong order; put the first mate of each pair first"
                if _are_mates(other, one)
                else f"{these} are not mates by their names, so this file is not interleaved; "
                "leave out --interleaved, or repair the file",
                number,
                path,
            )
        yield *one[:3], 1, one[4]
        yield *other[:3], 2, other[4]
        number += 2


def side_by_side(entries: Entries, path: Path) -> Entries:
    """Pass on entries whose mates are told by flags.

    Raises InputError where the mate of a record that stands alone comes later: of such a file the
    pairs would not be found.
    """
    alone: dict[str, tuple[int, int]] = {}
    name, mate, record = "", 0, 0  # of the entry before, if it still lacks its mate
    for number, entry in enumerate(entries, 1):
        if mate and entry[3] == 3 - mate and entry[0] == name:
            mate = 0
        else:
            if mate:
                _remember(alone, name, mate, record, path)
            name, mate, record = entry[0], entry[3], number
        yield entry
    if mate:
        _remember(alone, name, mate, record, path)


def are_pair(one: Contig, other: Contig) -> bool:
    """Return whether two contigs that follow each other are the mates of a pair."""
    return other.mate == 3 - one.mate and template_of(one.name, other.name) is not None


def _remember(
    alone: dict[str, tuple[int, int]], name: str, mate: int, record: int, path: Path
) -> None:
    """Takes a record whose mate is not beside it."""
    other, earlier = alone.get(name, (mate, 0))
    if other != mate:
        raise InputError(
            f"the mates of {name} are records {earlier} and {record}, not side by side; bring "
            f"mates together with `samtools collate -o collated.bam {path.name}`, or read every "
            "record for itself with --unpaired",
            path,
        )
    if len(alone) < REMEMBERED:
        alone.setdefault(name, (mate, record))


def _are_mates(one: Entry, other: Entry) -> bool:
    return template_of(one[0], other[0]) is not None


def _named(number: int, entry: Entry) -> str:
    return f"record {number} ({entry[0]})"


def _not_mates(why: str, record: int, path: Path) -> InputError:
    """Return the error, which is told before anything is scored if it is of the first record."""
    if record == 1:
        return InputError(why, path)
    return StreamBroken(f"{why} (what came before is kept)", path)


def _swapped(one: Entry, other: Entry, paths: tuple[Path, Path]) -> InputError:
    words = shlex.join([str(paths[1]), "--mates", str(paths[0])])
    return InputError(
        f"this file and {paths[1]} are swapped: {_named(1, one)} here is the second mate, and "
        f"{_named(1, other)} there the first; give {words}, or in a sample sheet {paths[1]} as "
        "path and this file as mates",
        paths[0],
    )


def _ended(number: int, entry: Entry, path: Path, ended: Path) -> InputError:
    """Return the error, which is told before anything is scored if the other file is empty."""
    if number == 1:
        return InputError(
            f"there is no record in this file, so {_named(number, entry)} of {path} has no mate; "
            "give two files with the mates in the same order",
            ended,
        )
    return _alone(number, entry, path, f"{ended} ends before it")


def _alone(number: int, entry: Entry, path: Path, why: str) -> StreamBroken:
    return StreamBroken(
        f"{_named(number, entry)} has no mate, since {why}; give whole files (what came before is "
        "kept)",
        path,
    )
