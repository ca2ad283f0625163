"""A block that is read again: whether it holds what an earlier process read.

An input that broke off says nothing of what would have come behind, and may be whole now.
"""

from collections.abc import Iterable, Sequence
from dataclasses import replace
from itertools import zip_longest

from virnucpro.batches import Block, Record
from virnucpro.scored import Scored


def difference(scored: Scored, block: Block, unbroken: int | None) -> str | None:
    """How a block differs from what was read before, in words; None where both may be one.

    unbroken: as Scored.unbroken, of this process.
    """
    if scored.digest == block.digest:
        return None
    was = before_break(scored.records, scored.unbroken)
    now = before_break(block.records, unbroken)
    known = len(was), len(now)
    if scored.unbroken is not None:
        now = now[: known[0]]
    if unbroken is not None:
        was = was[: known[1]]
    if scored.unbroken is unbroken is None or not _same(was, now):
        return first_difference(was, now)
    return None


def before_break(records: Sequence[Record], unbroken: int | None) -> Sequence[Record]:
    """The records that came before an input that broke off."""
    return [r for r in records if unbroken is None or r.ordinal < unbroken]


def _same(old: Sequence[Record], new: Sequence[Record]) -> bool:
    """Whether these are the same records, whatever their samples are called."""
    return len(old) == len(new) and all(
        replace(was, sample=now.sample) == now for was, now in zip(old, new, strict=True)
    )


def first_difference(old: Iterable[Record], new: Iterable[Record]) -> str:
    """The first record of a block that is not the same as before, in words."""
    for before, now in zip_longest(old, new):
        if before is None:
            return f"{_named(now)} was not in it"
        if now is None:
            return f"{_named(before)} was in it"
        if before.name != now.name or before.record != now.record:
            return f"{_named(now)} was {_named(before)} there"
        if before.length_nt != now.length_nt:
            return f"{_named(now)} has {now.length_nt:,} nt now, and had {before.length_nt:,}"
        if replace(before, sample=now.sample) != now:
            break
    return f"{_named(now)} had other letters"


def _named(record: Record) -> str:
    return f"record {record.record} ({record.name}) of sample {record.sample}"
