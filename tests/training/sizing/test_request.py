"""Request of a pipeline to sizing: its workload, the lengths of its samples, and what its settings say."""

from __future__ import annotations

from colabkit.training.sizing.devices import GIB
from colabkit.training.sizing.request import seed_rule


def test_the_documented_rule():
    model_bytes = 12.5 * GIB  # the rule's own example: an L4 of 24 GB gives 6 samples of 8 s
    batch, accumulation = seed_rule(8.0, model_bytes, 24 * GIB, safety_margin=0.85, target=32)
    assert (batch, accumulation) == (6, 5)
    assert seed_rule(8.0, 2**20, 80 * GIB)[0] == 64 and seed_rule(8.0, 50 * GIB, 16 * GIB) == (1, 32)
