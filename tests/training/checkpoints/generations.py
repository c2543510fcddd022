"""Generations in a folder as tests look at them: which there are, what is loaded of them, whether states are alike."""

from __future__ import annotations

import pytest
import torch

from colabkit.training.checkpoints import generation
from colabkit.training.checkpoints.checkpoints import Checkpoints


def names(folder):
    return sorted(generation.step_of(path.name) for path in folder.glob("generation-*"))


def place(folder, step):
    (found,) = folder.glob(f"generation-{step:09d}-*")
    return found


def same(a, b) -> bool:
    if isinstance(a, torch.Tensor):
        return (
            isinstance(b, torch.Tensor)
            and a.dtype == b.dtype
            and a.shape == b.shape
            and torch.equal(a.contiguous().flatten().view(torch.uint8), b.contiguous().flatten().view(torch.uint8))
        )
    if isinstance(a, dict):
        return (
            type(b) is dict
            and [*a] == [*b]
            and all(type(k) is type(m) for k, m in zip(a, b, strict=True))
            and all(same(a[k], b[k]) for k in a)
        )
    if isinstance(a, (list, tuple)):
        return type(a) is type(b) and len(a) == len(b) and all(map(same, a, b))
    return type(a) is type(b) and (a == b or (a != a and b != b))


def round_trip(folder, state):
    Checkpoints(folder, say=pytest.fail).save(7, state, wait=True)
    step, found = Checkpoints(folder, say=pytest.fail).load_latest()
    assert step == 7
    return found


def loaded(folder):
    said = []
    points = Checkpoints(folder, say=said.append)
    found = points.load_latest()
    best = points.load_best()
    return found and found[0], best and best[0], said
