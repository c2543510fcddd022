"""The state of every global random generator: Python, NumPy, torch CPU and CUDA."""

from __future__ import annotations

import random
from typing import Any


def random_state() -> dict[str, Any]:
    """Return the state of every global random generator: Python, NumPy, torch CPU and CUDA."""
    import numpy
    import torch

    version, internal, gauss = random.getstate()
    kind, keys, position, has_gauss, cached = numpy.random.get_state()
    return {
        "python": [version, list(internal), gauss],
        "numpy": [kind, keys.tolist(), position, has_gauss, cached],
        "torch": torch.get_rng_state(),
        "cuda": torch.cuda.get_rng_state_all() if torch.cuda.is_available() else [],
    }


def set_random_state(state: dict[str, Any]) -> None:
    """Set every global random generator to a state from `random_state`."""
    import numpy
    import torch

    version, internal, gauss = state["python"]
    random.setstate((version, tuple(internal), gauss))
    kind, keys, position, has_gauss, cached = state["numpy"]
    numpy.random.set_state((kind, numpy.array(keys, numpy.uint32), position, has_gauss, cached))
    torch.set_rng_state(state["torch"])
    if torch.cuda.is_available() and len(state["cuda"]) == torch.cuda.device_count():
        torch.cuda.set_rng_state_all(state["cuda"])


def seed_of(*parts: int) -> int:
    """Return a seed that is a pure function of these numbers."""
    import numpy

    return int(numpy.random.SeedSequence(parts).generate_state(1, numpy.uint32)[0])


def set_seeds(seed: int) -> None:
    """Set every global random generator to a seed below 2**32."""
    import numpy
    import torch

    random.seed(seed)
    numpy.random.seed(seed)
    torch.manual_seed(seed)
