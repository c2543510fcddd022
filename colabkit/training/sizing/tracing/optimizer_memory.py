"""Memory of an optimizer, held between steps and for a moment during one, from the shapes of the weights alone."""

from __future__ import annotations

import math
from collections.abc import Sequence
from itertools import pairwise

from colabkit.training.sizing.tracing.accounting import BLOCK_BYTES, rounded
from colabkit.training.sizing.workload import Optimizer

Shape = tuple[int, ...]

# bitsandbytes/optim/optimizer.py: smaller tensors keep states in float32; one absmax a block; two code tables of 256
# floats.
SMALLEST_8BIT = 4096
BLOCK_8BIT = 256
LARGE: Shape = (1024, 1024)  # as most weights of a network are


def optimizer_bytes(shapes: Sequence[Shape], optimizer: Optimizer, *, on_gpu: bool) -> tuple[int, int]:
    """Return (bytes of the states, bytes needed for a moment in a step) for weights in float32 of these shapes.

    adamw: torch's, fused on a GPU (nothing beside the states), one tensor after another on a CPU. adamw_8bit:
    bitsandbytes.
    adafactor: transformers' with its defaults, factored, no first moment. sgd: without momentum, as the Trainer makes
    it.
    """
    sizes = [rounded(4 * math.prod(shape)) for shape in shapes]
    if optimizer == "adamw":
        # On a CPU: the previous tensor's denominator, a square root, this denominator (torch/optim/adam.py:
        # _single_tensor_adam).
        return 2 * sum(sizes) + BLOCK_BYTES * len(sizes), 0 if on_gpu else _largest_in_turn(sizes)
    if optimizer == "adamw_8bit":
        return 2 * sum(map(_state_8bit, shapes)) + 2 * rounded(4 * 256), 0
    if optimizer == "adafactor":
        # A root mean square each. In a step: the previous tensor's update, the gradient squared, the update
        # (transformers/optimization.py: Adafactor.step).
        return sum(map(_factored, shapes)) + BLOCK_BYTES * len(sizes), _largest_in_turn(sizes)
    return 0, 0


def bytes_a_weight(optimizer: Optimizer) -> float:
    """Return what the states of a large matrix come to for each of its weights."""
    return optimizer_bytes([LARGE], optimizer, on_gpu=True)[0] / math.prod(LARGE)


def _largest_in_turn(sizes: Sequence[int]) -> int:
    return max((2 * size + before for before, size in pairwise([0, *sizes])), default=0)


def _state_8bit(shape: Shape) -> int:
    count = math.prod(shape)
    return rounded(4 * count) if count < SMALLEST_8BIT else rounded(count) + rounded(4 * -(-count // BLOCK_8BIT))


def _factored(shape: Shape) -> int:
    if len(shape) < 2:
        return rounded(4 * math.prod(shape))
    return rounded(4 * math.prod(shape[:-1])) + rounded(4 * math.prod((*shape[:-2], shape[-1])))
