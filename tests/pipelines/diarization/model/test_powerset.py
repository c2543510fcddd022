"""Powerset classes: what they stand for, and the loss under the best naming of the speakers."""

from __future__ import annotations

from itertools import combinations, permutations
from math import comb, exp, log

import pytest
import torch

from colabkit.pipelines.diarization.model.powerset import Powerset


@pytest.mark.parametrize("num_speakers, max_overlap", [(1, 2), (2, 2), (3, 2), (3, 1), (4, 2), (5, 3)])
def test_there_is_one_class_for_every_set_up_to_the_overlap(num_speakers, max_overlap):
    powerset = Powerset(num_speakers, max_overlap)
    sizes = [comb(num_speakers, size) for size in range(min(max_overlap, num_speakers) + 1)]
    assert powerset.num_classes == sum(sizes)
    rows = {tuple(row) for row in powerset.table_CS.tolist()}
    assert len(rows) == sum(sizes) and powerset.table_CS[0].sum() == 0


def test_every_class_comes_back_from_its_speakers():
    powerset = Powerset(4, 2)
    classes = powerset.to_classes(powerset.table_CS[None].bool())
    assert classes.tolist() == [list(range(powerset.num_classes))]


def test_with_too_many_at_once_the_first_ones_count():
    powerset = Powerset(4, 2)
    active = torch.tensor([[[1, 1, 1, 1], [0, 1, 1, 1], [0, 0, 1, 1]]], dtype=torch.bool)
    kept = powerset.table_CS[powerset.to_classes(active)[0]]
    assert kept.tolist() == [[1, 1, 0, 0], [0, 1, 1, 0], [0, 0, 1, 1]]


def reference_loss(logits, active, weight, num_speakers, max_overlap):
    """The loss in plain Python, from its definition; returns it and whether the best naming is unique."""
    sets = [frozenset(s) for size in range(max_overlap + 1) for s in combinations(range(num_speakers), size)]
    losses = {}
    for naming in permutations(range(num_speakers)):
        total = 0.0
        for row, talking, w in zip(logits, active, weight, strict=True):
            renamed = frozenset(naming[s] for s in range(num_speakers) if talking[s])
            total -= w * (row[sets.index(renamed)] - log(sum(exp(v) for v in row)))
        losses[naming] = total
    best = min(losses, key=losses.get)
    return losses[best], best


@pytest.mark.parametrize("num_speakers", [1, 2, 3, 4])
def test_loss_equals_a_search_over_all_namings_in_plain_python(num_speakers):
    powerset = Powerset(num_speakers, 2)
    generator = torch.Generator().manual_seed(num_speakers)
    logits = torch.randn(5, 30, powerset.num_classes, generator=generator, dtype=torch.float64) * 2
    classes = torch.randint(powerset.num_classes, (5, 30), generator=generator)
    active = powerset.table_CS[classes].bool()
    weight = (torch.rand(5, 30, generator=generator) < 0.8).double()
    loss, order = powerset.best_permutation_loss(logits, powerset.to_classes(active), weight)
    for b in range(5):
        expected, naming = reference_loss(
            logits[b].tolist(), active[b].tolist(), weight[b].tolist(), num_speakers, powerset.max_overlap
        )
        assert loss[b].item() == pytest.approx(expected, rel=1e-9)
        assert tuple(order[b].tolist()) == naming


def test_the_naming_says_which_output_speaks_for_each_target():
    powerset = Powerset(3, 2)
    active = torch.zeros(1, 30, 3, dtype=torch.bool)
    active[0, :10, 0] = active[0, 8:20, 1] = active[0, 20:, 2] = True
    outputs = active[..., [2, 0, 1]]  # output 0 is target 2, output 1 is target 0, output 2 is target 1
    logits = 10.0 * torch.nn.functional.one_hot(powerset.to_classes(outputs), powerset.num_classes).float()
    loss, order = powerset.best_permutation_loss(logits, powerset.to_classes(active), torch.ones(1, 30))
    assert order.tolist() == [[1, 2, 0]] and loss.item() < 0.1
    assert torch.equal(outputs[..., order[0]], active)


def test_smoothing_pulls_towards_even_probabilities():
    powerset = Powerset(2, 2)
    classes, weight = torch.zeros(1, 4, dtype=torch.long), torch.ones(1, 4)
    certain = torch.tensor([9.0, 0, 0, 0]).expand(1, 4, 4)
    plain, smooth = (powerset.best_permutation_loss(certain, classes, weight, s)[0].item() for s in (0.0, 0.1))
    even = powerset.best_permutation_loss(torch.zeros(1, 4, 4), classes, weight, 0.1)[0].item()
    assert smooth > plain and even == pytest.approx(4 * log(4), rel=1e-5)
