"""Adds to the embedded bundles the network that they ask where they are unsure.

How wide "unsure" is, how many frames it sees and what its logit counts were chosen by what they
cost and gain on the slice that chose the networks (see README.md). The scale of its logits is
fitted there, as those of a bounded loss are too large. What was measured of a bundle before (card,
calibration, prescreen) is stale then.
"""

from collections.abc import Sequence
from pathlib import Path

import numpy as np
import torch

import networks
import sides
from virnucpro.bundle.manifest import Bundle
from virnucpro.bundle.write import write_into
from virnucpro.classifiers.codon import CodonNetwork, canonical_codes, frame_codons, padded_codes
from virnucpro.classifiers.model import SECOND_OPINION
from virnucpro.classifiers.second_opinion import SECOND_WEIGHTS, SecondOpinion, part_of
from virnucpro.classifiers.whole_chunks import codon_network_of
from virnucpro.measure.fragments import fragments_at
from virnucpro.measure.labels import LabelledContig
from virnucpro.train.checks import check_finite
from virnucpro.train.encoder_fit import FitResult
from virnucpro.train.slices import described, judging_slice, parted

UNSURE, SHARE, FRAMES = 1.5, 0.5, 3
SCALES = tuple(round(0.05 * i, 2) for i in range(2, 31))
LENGTHS_NT = (150, 300, 500)
PER_SIDE = 2000
AT_ONCE = 256


def add(bundles: Sequence[Bundle], second: FitResult, data: Path, device: str) -> None:
    """Writes the second network into each bundle; all have the same first network."""
    contigs = sides.fitting_side(sides.train_side(data).contigs)
    settings = networks.PLAIN
    held_out = judging_slice(contigs, settings.slice_fraction, settings.cut_by, "the scale")
    judging = parted(contigs, held_out)[1]
    network = without_groups(second.network)
    first = codon_network_of(bundles[0], device, "fp32")
    losses = log_losses(first, opinion_of(network).to(device), judging, device)
    scale = min(SCALES, key=lambda tried: losses[tried])
    print(
        f"scale {scale}: log loss {losses[scale]} on the slice, {losses[0.0]} without", flush=True
    )
    with torch.no_grad():
        network.head.output.weight *= scale
        network.head.output.bias *= scale
    # Half precision, so that a bundle stays below 12 MB; the counters of batches are whole numbers.
    arrays = {
        name: values.astype(np.float16) if values.dtype == np.float32 else values
        for name, values in network.arrays().items()
    }
    check_finite(arrays)
    training = {
        **second.record,
        "scale": scale,
        "scale_fitted_on": described(judging),
        "log_loss": {"before": losses[0.0], "after": losses[scale]},
    }
    viral = sorted({contig.group for contig in contigs if contig.label == 1})
    words = {"unsure": UNSURE, "share": SHARE, "frames": FRAMES, "virus_groups": viral}
    part = {**part_of(network, **words), "training": training}
    for bundle in bundles:
        made = write_into(bundle, {SECOND_OPINION: part}, {SECOND_WEIGHTS: arrays})
        print(f"{made.name}: {made.sha256}")


def without_groups(network: CodonNetwork) -> CodonNetwork:
    """A copy of a network without the head for groups: the first network names them."""
    copy = CodonNetwork(network.encoder.config, network.head.hidden.out_features)
    copy.load_state_dict(
        {k: v for k, v in network.state_dict().items() if not k.startswith("group.")}
    )
    return copy.eval()


def opinion_of(network: CodonNetwork) -> SecondOpinion:
    """A network as a bundle will ask it, but of no group."""
    folded = without_groups(network).for_inference()
    return SecondOpinion(folded, unsure=UNSURE, share=SHARE, frames=FRAMES, virus_groups=())


def log_losses(
    first: CodonNetwork, second: SecondOpinion, judging: Sequence[LabelledContig], device: str
) -> dict[float, float]:
    """Scale of the second network's logit -> mean log loss on fragments; 0: without it.

    Without protein k-mers, which know these units.
    """
    own, other, label = [], [], []
    for length_nt in LENGTHS_NT:
        drawn = fragments_at(judging, length_nt, PER_SIDE, networks.PLAIN.cut_by)
        for start in range(0, len(drawn), AT_ONCE):
            some = drawn[start : start + AT_ONCE]
            codes, lengths = (t.to(device) for t in padded_codes([f.sequence for f in some]))
            codons = frame_codons(canonical_codes(codes, lengths)[0], lengths)
            outputs = first.outputs(codons)
            own.append(outputs.logit)
            other.append(second.asked(outputs.weight, codons))
            label += [f.label for f in some]
    first_N, second_N = (torch.cat(parts).cpu().numpy() for parts in (own, other))
    sign_N = np.where(np.array(label) == 1, -1, 1)
    share_N = np.clip(1 - np.abs(first_N) / UNSURE, 0, SHARE)
    found = {}
    for scale in (0.0, *SCALES):
        counted_N = share_N if scale else 0 * share_N
        logit_N = first_N + counted_N * (scale * second_N - first_N)
        found[scale] = round(float(np.logaddexp(0, sign_N * logit_N).mean()), 5)
    return found
