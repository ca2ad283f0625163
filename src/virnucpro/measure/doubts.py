"""Reasons why measured numbers are better, or worse, than a bundle is: sentences for their readers.

Knows bundles and labelled contigs; measures no accuracy itself.
"""

from collections.abc import Iterator, Mapping, Sequence

from virnucpro.bundle.manifest import Bundle
from virnucpro.bundle.sketch import share_known, training_sketch
from virnucpro.errors import InputError
from virnucpro.measure.accuracy import Evaluation
from virnucpro.measure.labels import LabelledContig

# Related genomes share some 31-mers; more than this is not chance.
KNOWN = 0.05
# Where so many sequences of one side are on the other, the sides are the same.
SAME = 0.9
_SIDES = ((1, "viral sequences"), (0, "others"))
# What follows for numbers and for a calibration from sequences that a bundle was trained on, by
# label.
MEASURED = dict.fromkeys(
    (0, 1), "it will do worse on sequences that it has not seen; measure it on others"
)
CALIBRATED = {
    1: "the calibration takes for granted that new viruses score as high as these, and promises to "
    "find more of them than it will; calibrate on viruses that it was not trained on",
    0: "the calibration takes for granted that new hosts score as low as these, and more calls "
    "will be wrong than it says; calibrate on others that it was not trained on",
}


def doubts(
    bundle: Bundle, contigs: Sequence[LabelledContig], evaluation: Evaluation
) -> Iterator[str]:
    """Yield what to doubt: training data, sequences with both labels, an AUROC below chance."""
    yield from known(bundle, contigs)
    yield from on_both_sides(contigs)
    auroc = evaluation.contig[0].auroc
    if auroc is not None and auroc < 0.5:
        yield (
            f"the AUROC of contigs, {auroc:.3f}, is below 0.5, which is that of guessing: look "
            "whether the sides are exchanged (--positive is virus, label 1)"
        )


def known(
    bundle: Bundle, contigs: Sequence[LabelledContig], consequence: Mapping[int, str] = MEASURED
) -> Iterator[str]:
    """Yield a sentence on each side that the bundle was trained on. consequence: by label."""
    sketch = training_sketch(bundle)
    for label, side in _SIDES:
        of_side = (contig.sequence for contig in contigs if contig.label == label)
        share = None if sketch is None else share_known(sketch, of_side)
        if share is not None and share >= KNOWN:
            yield (
                f"{bundle.name} was trained on sequences such as these: {100 * share:.0f} % of the "
                f"31-mers of the {side} are in its training data, so that {consequence[label]}"
            )


def check_sides(contigs: Sequence[LabelledContig]) -> None:
    """Raise InputError if nearly all sequences of one side are on the other, too."""
    shared = _shared(contigs)
    for label, side in _SIDES:
        own = [contig.sequence in shared for contig in contigs if contig.label == label]
        if own and sum(own) >= SAME * len(own):
            raise InputError(
                f"{sum(own):,} of {len(own):,} {side} are on the other side, too, so that nothing "
                "can be learnt from them; look whether a file was given twice"
            )


def _shared(contigs: Sequence[LabelledContig]) -> set[bytes]:
    """The sequences that occur with both labels; one that could not be read is none."""
    viral, others = (
        {contig.sequence for contig in contigs if contig.label == label and contig.sequence}
        for label in (1, 0)
    )
    return viral & others


def on_both_sides(contigs: Sequence[LabelledContig]) -> Iterator[str]:
    """Yield a sentence if sequences occur with both labels."""
    both = len(_shared(contigs))
    if both:
        sequences = "sequence is" if both == 1 else "sequences are"
        yield (
            f"{both:,} {sequences} on both sides, so that no bundle could call them right; look "
            "whether a file was given twice"
        )
