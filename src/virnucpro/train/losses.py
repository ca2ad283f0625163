"""The losses of a small encoder: the sides, the groups, and the tail of the others.

Shapes: B fragments, G groups, K of the tail.
"""

from collections.abc import Mapping, Sequence

import torch
import torch.nn.functional as F
from torch import Tensor

from virnucpro.errors import InputError
from virnucpro.measure.labels import LabelledContig


def possible_groups(
    contigs: Sequence[LabelledContig],
    groups: Sequence[str],
    unresolved: Mapping[str, Sequence[str]],
) -> Tensor:
    """Return which of groups each contig may belong to: bool (contigs, G).

    unresolved: what a group of contigs stands for, where that is several of groups. Raises
    InputError for a contig of a group that neither names.
    """
    rows: dict[str, list[bool]] = {}
    for contig in contigs if groups else ():
        if contig.group in rows:
            continue
        among = unresolved.get(contig.group, (contig.group,))
        rows[contig.group] = [group in among for group in groups]
        if not any(rows[contig.group]):
            raise InputError(
                f"the contig {contig.name} is of the group {contig.group!r}, which is not among "
                f"those that the network is to name ({', '.join(groups)})"
            )
    found = [rows[c.group] if groups else [] for c in contigs]
    return torch.tensor(found, dtype=torch.bool).view(len(contigs), len(groups))


def bounded_loss(logits_B2: Tensor, label_B: Tensor, power: float) -> Tensor:
    """Mean (1 - p ** power) / power, p being P(label): cross entropy where power is near 0.

    At most 1 / power, so wrong labels pull less (Zhang and Sabuncu 2018, arXiv 1805.07836).
    """
    log_p_B = logits_B2.log_softmax(1).gather(1, label_B[:, None]).squeeze(1)
    return (1 - (power * log_p_B).exp()).mean() / power


def group_loss(logits_BG: Tensor, possible_BG: Tensor) -> Tensor:
    """Mean -log P(the possible groups together): cross entropy where one alone is possible."""
    right_B = logits_BG.masked_fill(~possible_BG, -torch.inf).logsumexp(1)
    return (logits_BG.logsumexp(1) - right_B).mean()


def tail_loss(logits_B2: Tensor, label_B: Tensor, share: float) -> Tensor:
    """Mean softplus of (score of another - score of a virus), over viral rows and the tail.

    The tail: the others that score highest, in number the given share of half the batch.
    """
    score_B = logits_B2[:, 1] - logits_B2[:, 0]
    viral_B = (label_B == 1).to(score_B.dtype)
    count = max(1, int(share * len(score_B) / 2))
    tail_K = score_B.masked_fill(label_B == 1, -1e4).topk(count).values
    apart_BK = F.softplus(tail_K[None, :] - score_B[:, None])
    return (apart_BK.mean(1) * viral_B).sum() / viral_B.sum().clamp(min=1)
