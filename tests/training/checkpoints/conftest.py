"""Shared by the tests of checkpoints."""

from __future__ import annotations

import pytest
import torch

from colabkit.training.checkpoints.checkpoints import Checkpoints


@pytest.fixture
def two(tmp_path):
    """Two whole generations, 1 and 2, the second best."""
    points = Checkpoints(tmp_path / "two", say=lambda line: None)
    points.save(1, {"w": torch.tensor([1.0]), "n": 1}, best=True, wait=True)
    points.save(2, {"w": torch.tensor([2.0]), "n": 2}, best=True, wait=True)
    return tmp_path / "two"
