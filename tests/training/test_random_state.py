"""The state of every global random generator: Python, NumPy, torch CPU and CUDA."""

from __future__ import annotations

import numpy as np

from colabkit.training.random_state import seed_of


def test_seeds_differ_between_steps_and_ranks():
    seeds = [seed_of(seed, step, rank) for seed in range(3) for step in range(50) for rank in range(8)]
    assert len(set(seeds)) == len(seeds) and seeds == [
        seed_of(s, k, r) for s in range(3) for k in range(50) for r in range(8)
    ]
    assert np.asarray(seeds).dtype == np.int64
