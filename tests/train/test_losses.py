"""The losses of the groups and of the tail, against plain ones."""

import numpy as np
import pytest
import torch
import torch.nn.functional as F

from virnucpro.errors import InputError
from virnucpro.measure.labels import LabelledContig
from virnucpro.train.losses import bounded_loss, group_loss, possible_groups, tail_loss

GROUPS = ("phage", "plant", "fungi")


def contig(group):
    return LabelledContig(f"of {group}", b"ACGT", 0, group)


def test_a_group_is_itself_or_what_it_stands_for():
    contigs = [contig("plant"), contig("eukaryote"), contig("phage")]
    found = possible_groups(contigs, GROUPS, {"eukaryote": ("plant", "fungi")})
    assert found.tolist() == [[False, True, False], [False, True, True], [True, False, False]]
    assert possible_groups(contigs, (), {}).shape == (3, 0)
    with pytest.raises(InputError, match="the contig of moss is of the group 'moss', which is not"):
        possible_groups([contig("moss")], GROUPS, {})


def test_the_bounded_loss_lies_between_cross_entropy_and_a_line():
    logits = 9 * torch.randn(50, 2, generator=torch.Generator().manual_seed(1))
    label = torch.arange(50) % 2
    p = logits.double().softmax(1)[torch.arange(50), label]
    found = bounded_loss(logits.double(), label, 0.5)
    torch.testing.assert_close(found, (2 - 2 * p.sqrt()).mean())
    torch.testing.assert_close(bounded_loss(logits.double(), label, 1.0), (1 - p).mean())
    near = bounded_loss(logits.double(), label, 1e-6)
    torch.testing.assert_close(near, F.cross_entropy(logits.double(), label), rtol=1e-4, atol=0)
    assert bounded_loss(torch.tensor([[500.0, 0.0]]), torch.tensor([1]), 0.5).item() == 2


def test_the_loss_of_groups_is_cross_entropy_where_they_are_resolved():
    logits = torch.randn(5, 3, generator=torch.Generator().manual_seed(1))
    target = torch.tensor([0, 1, 2, 1, 0])
    one = F.one_hot(target, 3).bool()
    torch.testing.assert_close(group_loss(logits, one), F.cross_entropy(logits, target))
    either = one | F.one_hot((target + 1) % 3, 3).bool()
    probability = (logits.softmax(1) * either).sum(1)
    torch.testing.assert_close(group_loss(logits, either), -probability.log().mean())
    torch.testing.assert_close(group_loss(logits, torch.ones_like(one)), torch.tensor(0.0))


def test_the_loss_of_the_tail_compares_each_virus_with_the_highest_others():
    score = [3.0, -1.0, 0.5, 2.0, -4.0, 1.0]
    label = torch.tensor([1, 0, 0, 1, 0, 0])
    logits = torch.tensor([[0.0, s] for s in score], requires_grad=True)
    found = tail_loss(logits, label, 0.7)
    expected = np.mean([np.log1p(np.exp(other - s)) for s in (3.0, 2.0) for other in (1.0, 0.5)])
    assert found.item() == pytest.approx(expected)
    found.backward()
    assert logits.grad[[1, 4]].abs().sum() == 0
    assert logits.grad[[0, 2, 3, 5], 1].sign().tolist() == [-1, 1, -1, 1]
