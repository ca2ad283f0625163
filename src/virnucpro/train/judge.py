"""The accuracy of a network on a slice that was held out, while it is fitted."""

import copy
import time
from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager, nullcontext
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from virnucpro.classifiers.codon import CodonNetwork, frame_codons, padded_codes
from virnucpro.errors import InputError
from virnucpro.measure.fragments import fragments_at
from virnucpro.measure.labels import LabelledContig
from virnucpro.measure.metrics import auroc, recall_at_false_positive_rate
from virnucpro.train.encoder_settings import EncoderSettings

JUDGED_AT_ONCE = 512


class Judge:
    """Fragments of the slice, and the AUROC of a network on them."""

    def __init__(
        self, contigs: Sequence[LabelledContig], settings: EncoderSettings, device: torch.device
    ) -> None:
        self._device = device
        self._sets: list[tuple[int, list[Tensor], NDArray[np.bool_]]] = []
        for length_nt in settings.slice_lengths_nt:
            found = fragments_at(contigs, length_nt, settings.slice_fragments, settings.cut_by)
            label = np.array([f.label == 1 for f in found], np.bool_)
            if not label.any() or label.all():
                raise InputError(
                    f"the slice that chooses the network has no {length_nt} nt of one side; give "
                    "both sides two units or more that are long enough"
                )
            codes, _ = padded_codes([f.sequence for f in found])
            batches = list(torch.split(codes.to(device), JUDGED_AT_ONCE))
            self._sets.append((length_nt, batches, label))

    def judged(self, network: CodonNetwork, deadline: float) -> dict[str, dict[str, float]] | None:
        """AUROC, and recall at 1 % false positives, by length in nt, as text.

        None when the deadline comes first.
        """
        network.eval()
        found: dict[str, dict[str, float]] = {"auroc": {}, "recall_at_1pct_fpr": {}}
        for length_nt, batches, label in self._sets:
            scores = []
            for codes in batches:
                if time.monotonic() > deadline:
                    return None
                scores.append(self._scores(network, codes, length_nt))
            score = torch.cat(scores).double().cpu().numpy()
            values = auroc(label, score), recall_at_false_positive_rate(label, score, 0.01)
            for measure, value in zip(found.values(), values, strict=True):
                measure[str(length_nt)] = 0.0 if value is None else round(value, 5)
        return found

    def _scores(self, network: CodonNetwork, codes_BL: Tensor, length_nt: int) -> Tensor:
        length_B = torch.full((len(codes_BL),), length_nt, device=self._device)
        with torch.no_grad(), autocast(self._device):
            logits_B2: Tensor = network(frame_codons(codes_BL, length_B)).float()
        return logits_B2[:, 1] - logits_B2[:, 0]


def scorer_of(
    network: CodonNetwork, device: torch.device
) -> Callable[[Sequence[str]], NDArray[np.float64]]:
    """Return a function that gives P(virus) of sequences of one length."""
    network = copy.deepcopy(network).to(device).eval()

    def p_virus(texts: Sequence[str]) -> NDArray[np.float64]:
        given = padded_codes([text.encode("ascii") for text in texts])
        batches = zip(*(torch.split(t.to(device), JUDGED_AT_ONCE) for t in given), strict=True)
        parts = [network.outputs(frame_codons(*batch)).p_virus for batch in batches]
        found: NDArray[np.float64] = torch.cat(parts).double().cpu().numpy()
        return found

    return p_virus


def autocast(device: torch.device) -> AbstractContextManager[Any]:
    """bf16 products on CUDA; fp32 on a CPU, where the same numbers matter more than speed."""
    if device.type == "cuda":
        return torch.autocast("cuda", torch.bfloat16)
    return nullcontext()
