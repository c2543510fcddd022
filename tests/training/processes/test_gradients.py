"""Gradients summed over processes after backward: the same bits in each, those of one process, nothing made up."""

from __future__ import annotations

import pytest
import torch
from torch import nn

from colabkit.training.processes import gradients
from colabkit.training.processes.gradients import broadcast_parameters, reduce_gradients
from colabkit.training.processes.ranks import Ranks


def parameters_of(rank):
    """Parameters of several kinds and sizes with gradients that tell the rank; some have none."""
    torch.manual_seed(10 + rank)
    shapes = [(3, 5), (7,), (), (40, 50), (2, 3, 4), (6, 6), (0,), (9,)]
    made = [
        nn.Parameter(torch.zeros(shape, dtype=torch.float64 if i == 4 else torch.float32))
        for i, shape in enumerate(shapes)
    ]
    for parameter in made:
        parameter.grad = torch.randn_like(parameter)
    made[5].grad = made[5].grad.t()  # not contiguous
    made[1].grad = None if rank == 0 else made[1].grad
    made[7].grad = None
    frozen = nn.Parameter(torch.zeros(2), requires_grad=False)
    return [*made, frozen]


def reduced(ranks, bucket_bytes):
    gradients.GRADIENT_BUCKET_BYTES = bucket_bytes
    parameters = parameters_of(ranks.rank)
    reduce_gradients(parameters, ranks)
    return [None if p.grad is None else p.grad.numpy() for p in parameters]


@pytest.mark.parametrize("bucket_bytes", [1, 100, 64 << 20])
def test_every_gradient_becomes_the_sum(two, bucket_bytes):
    first, second = two.call(reduced, bucket_bytes)
    mine, theirs = parameters_of(0), parameters_of(1)
    for ours, other, a, b in zip(first, second, mine, theirs, strict=True):
        if a.grad is None and b.grad is None:
            assert ours is None and other is None
            continue
        expected = sum(p.grad for p in (a, b) if p.grad is not None)
        assert ours.tobytes() == other.tobytes() and ours.dtype == other.dtype == expected.numpy().dtype
        torch.testing.assert_close(torch.from_numpy(ours), expected)
    assert sum(gradient is None for gradient in first) == 2


def test_alone_nothing_is_touched():
    parameters = parameters_of(0)
    before = [p.grad for p in parameters]
    reduce_gradients(parameters, Ranks())
    assert all(p.grad is grad for p, grad in zip(parameters, before, strict=True))


def test_buckets_are_not_larger_than_they_may_be(monkeypatch):
    monkeypatch.setattr(gradients, "GRADIENT_BUCKET_BYTES", 400)
    given = [torch.zeros(n) for n in (50, 50, 1, 300, 20)] + [torch.zeros(5, dtype=torch.float64)]
    buckets = list(gradients._buckets(given))
    assert [[len(t) for t in bucket] for bucket in buckets] == [[50, 50], [1], [300], [20], [5]]


def broadcasted(ranks):
    torch.manual_seed(ranks.rank)
    model = nn.Sequential(nn.Linear(3, 4), nn.BatchNorm1d(4))
    model[1].num_batches_tracked += ranks.rank
    model[0].weight.requires_grad_(False)
    broadcast_parameters(model, ranks)
    return {name: tensor.numpy() for name, tensor in model.state_dict().items()}


def test_all_begin_with_the_weights_of_the_first(two):
    first, second = two.call(broadcasted)
    torch.manual_seed(0)
    expected = nn.Sequential(nn.Linear(3, 4), nn.BatchNorm1d(4)).state_dict()
    for name, tensor in expected.items():
        assert first[name].tobytes() == second[name].tobytes() == tensor.numpy().tobytes(), name


def asked(ranks):
    return (
        ranks.any_each([ranks.rank == 1, False, True]),
        ranks.worst(ranks.rank + 3),
        ranks.any(ranks.rank),
        ranks.any(0),
        ranks.any_each([]) if ranks.world == 1 else [],
    )


def test_questions_to_all(two):
    assert two.call(asked) == [([True, False, True], 4, True, False, [])] * 2
    assert asked(Ranks()) == ([False, False, True], 3, False, False, [])
