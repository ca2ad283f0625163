"""The fingerprint, which makes a run this run: written and compared here alone.

A difference in any field means other results, so a folder takes no run of another fingerprint.
Budgets, workers, threads, paths and times are not part of it.
"""

import hashlib
import re
from collections.abc import Mapping, Sequence
from typing import Any

from virnucpro import __version__
from virnucpro.bundle.manifest import Bundle
from virnucpro.bundle.prescreen import Prescreen
from virnucpro.classifiers.plan import Plan
from virnucpro.errors import OtherRun
from virnucpro.frames import STANDARD
from virnucpro.reads import Source
from virnucpro.reads.files import Reading
from virnucpro.results.files import RunFiles

# Fields that are there only where a run has something else.
_USUAL = {"part": "none", "prescreen": "none", "genetic_code": str(STANDARD)}


def fingerprint_of(
    bundle: Bundle,
    plan: Plan,
    reading: Reading,
    prescreen: Prescreen | None = None,
    genetic_code: str = str(STANDARD),
) -> dict[str, str]:
    """Return the fingerprint of a run, as far as it is known before the inputs are read."""
    unusual = {}
    if genetic_code != str(STANDARD):
        unusual["genetic_code"] = genetic_code
    if prescreen is not None:
        cuts = prescreen.cuts
        exact = dict(zip(cuts.lengths_nt, cuts.p_virus, strict=True))
        unusual["prescreen"] = f"sha256 {prescreen.bundle.sha256}, cuts by length {exact}"
    return {
        "bundle": bundle.sha256,
        "precision": plan.precision,
        "device": plan.device.split(":")[0],
        "attention": ", ".join(f"{name} {by}" for name, by in plan.attention.items()),
        "chunk_nt": str(bundle.chunk_nt),
        "frames": "open" if bundle.kind == "frames" else "none",
        "block_nt": "-".join(str(nt) for nt in sorted({plan.first_nt, plan.block_nt})),
        "min_length": str(reading.min_length or "none"),
        "max_length": str(reading.max_length or "none"),
        "max_records": str(reading.max_records or "none"),
        "version": __version__,
        **unusual,
    }


def inputs_digest(sources: Sequence[Source]) -> dict[str, str]:
    """Return the sha256 over the digests of all inputs, in order, if each was read to its end."""
    digests = [source.sha256 for source in sources]
    if not all(digests):
        return {}
    return {"inputs": hashlib.sha256("\n".join(digests).encode()).hexdigest()}


def difference(
    earlier: Mapping[str, Any], fingerprint: Mapping[str, str]
) -> tuple[str, str, str] | None:
    """Return the first field that differs, and what it was and is, in words; None for none."""
    earlier, fingerprint = ({**_USUAL, **each} for each in (earlier, fingerprint))
    for field in fingerprint:
        if earlier.get(field) != fingerprint[field]:
            before, now = (in_words(of.get(field, "unknown")) for of in (earlier, fingerprint))
            what = "prescreen, or other thresholds of it" if field == "prescreen" else field
            return what, before, now
    return None


def refuse_other(
    earlier: Mapping[str, Any],
    fingerprint: Mapping[str, str],
    files: RunFiles,
    option: str = "-o",
) -> None:
    """Raise OtherRun, naming the first field that differs, if an earlier run has another.

    option: names the folder of the earlier run; the folder of --journal holds blocks alone.
    """
    if (other := difference(earlier, fingerprint)) is None:
        return
    what, before, now = other
    if what == "bundle" and option == "-o":
        before += f", named in {files.log.name} there"
    folder = files.run_dir if option == "-o" else files.kept.parent
    raise OtherRun(
        f"{folder}: this folder holds another run, with another {what} ({before}; this run: "
        f"{now}); choose another with {option}"
        + (", or replace it with --rerun" if option == "-o" else "")
    )


def in_words(value: object) -> str:
    """Return a value of a fingerprint or a setting as a sentence has it.

    Of a sha256 its first figures are enough, and of a prescreen its sha256.
    """
    if isinstance(value, bool):
        return ("off", "on")[value]
    if isinstance(value, list):
        return ", ".join(map(str, value))
    text = "none" if value is None else str(value)
    found = re.match(r"(?:sha256 )?([0-9a-f]{12})[0-9a-f]{52}\b", text)
    return f"sha256 {found[1]}..." if found else text
